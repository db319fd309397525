/* group.c - the choice among the members of a group, without I/O.
 *
 * How it works. Each group has a usual member, `now`, that changes rarely, and for each flow an order of members to try. A
 * member with max_failures in a row is down: its circuit is open, new flows leave it out at once, and only a test closes it
 * again (faults.md S20). So a dead member costs nothing even while it is still the usual one.
 *
 * What always holds (faults.md S13). `now` changes at most once in GROUP_WINDOW_US, unless the user picks. A member that was
 * down is preferred again only after it has been well for as long. The wait before a test doubles each time a member goes down
 * again soon, and has a jitter of a quarter, so that neither we nor many of us knock in step.
 *
 * Hashing is by the highest score (rendezvous): when a member goes down only its own flows move. */
#include "group.h"

#include <string.h>

enum { TIMES_DOWN_MAX = 4 }; /* 16-fold */

/* The finaliser of MurmurHash3: names and addresses of our own side, nobody gains by guessing it. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 33)) * UINT64_C(0xff51afd7ed558ccd);
    x = (x ^ (x >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
    return x ^ (x >> 33);
}

static uint64_t hash_name(const char *name)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

    for (; *name; name++)
        h = (h ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    return h;
}

void group_init(struct group *g, const struct group_options *o, const char *const names[])
{
    memset(g, 0, sizeof(*g));
    g->kind = o->kind;
    g->strategy = o->strategy;
    g->max_failures = o->max_failures > 0 ? o->max_failures : 1;
    g->tolerance_us = (uint64_t)o->tolerance_ms * 1000;
    g->retry_after_us = (uint64_t)o->retry_after_ms * 1000;
    g->count = (uint16_t)(o->member_count < GROUP_MEMBERS_MAX ? o->member_count : GROUP_MEMBERS_MAX);
    for (uint32_t i = 0; i < g->count; i++)
        g->member[i].hash = hash_name(names[i]);
}

static bool is_well(const struct group *g, uint32_t i)
{
    return !g->member[i].down && !g->member[i].shut;
}

/* ---- the order for one flow ---- */

static uint64_t score(const struct group *g, uint16_t i, uint64_t key)
{
    return mix(g->member[i].hash ^ mix(key));
}

/* Is @a to be tried before @b? Equal ones stay in the file's order. */
static bool is_before(const struct group *g, uint16_t a, uint16_t b, uint64_t key)
{
    const struct group_member *x = &g->member[a], *y = &g->member[b];

    switch (g->kind) {
    case GROUP_SELECT:
        return false;
    case GROUP_FALLBACK:
        return a == g->now && b != g->now;
    case GROUP_URL_TEST:
        if (a == g->now || b == g->now)
            return a == g->now;
        return x->delay_us != 0 && (y->delay_us == 0 || x->delay_us < y->delay_us);
    case GROUP_LOAD_BALANCE:
        if (g->strategy != GROUP_ROUND_ROBIN)
            return score(g, a, key) > score(g, b, key);
        return (a + g->count - g->turn % g->count) % g->count <
               (b + g->count - g->turn % g->count) % g->count;
    }
    return false;
}

size_t group_order(const struct group *g, uint64_t key, uint16_t out[GROUP_MEMBERS_MAX])
{
    size_t n = 0;

    if (g->kind == GROUP_SELECT) {
        out[0] = g->now;
        return g->member[g->now].shut ? 0 : 1;
    }
    for (uint16_t i = 0; i < g->count; i++) {
        size_t at = n;

        if (!is_well(g, i))
            continue;
        for (; at > 0 && is_before(g, i, out[at - 1], key); at--)
            out[at] = out[at - 1];
        out[at] = i;
        n++;
    }
    return n;
}

/* ---- what happened ---- */

static void went_down(struct group *g, struct group_member *m, uint64_t now_us, uint32_t dice)
{
    uint64_t wait_us, quarter_us;

    if (!m->down && m->well_us != 0 && now_us - m->well_us > g->retry_after_us << (TIMES_DOWN_MAX + 1))
        m->times_down = 0; /* that was long ago */
    wait_us = g->retry_after_us << m->times_down;
    quarter_us = wait_us / 4;
    if (m->times_down < TIMES_DOWN_MAX)
        m->times_down++;
    m->down = true;
    m->retry_us = now_us + wait_us - quarter_us + (quarter_us > 0 ? dice % (2 * quarter_us) : 0);
}

static void came_back(struct group_member *m, uint64_t now_us)
{
    m->failures = 0;
    if (m->down)
        m->well_us = now_us;
    m->down = false;
}

void group_note(struct group *g, uint32_t i, bool good, uint64_t now_us, uint32_t dice)
{
    struct group_member *m = &g->member[i];

    if (good) {
        came_back(m, now_us);
        return;
    }
    m->failures++;
    if (!m->down && m->failures >= g->max_failures)
        went_down(g, m, now_us, dice);
}

void group_test(struct group *g, uint32_t i, uint32_t delay_us, uint64_t now_us, uint32_t dice)
{
    struct group_member *m = &g->member[i];

    m->delay_us = delay_us;
    if (delay_us != 0) {
        came_back(m, now_us);
        return;
    }
    m->failures++;
    went_down(g, m, now_us, dice);
}

/* ---- the usual member ---- */

/* Well, and not only just now: what comes back has to prove itself. */
static bool is_settled(const struct group *g, uint32_t i, uint64_t now_us)
{
    return is_well(g, i) && (g->member[i].well_us == 0 || now_us - g->member[i].well_us >= GROUP_WINDOW_US);
}

static uint32_t delay_of(const struct group_member *m)
{
    return m->delay_us != 0 ? m->delay_us : UINT32_MAX;
}

/* Return: the better of the two; @best may be count for none. */
static uint32_t better(const struct group *g, uint32_t best, uint32_t i)
{
    if (best == g->count)
        return i;
    if (g->kind == GROUP_URL_TEST)
        return delay_of(&g->member[i]) < delay_of(&g->member[best]) ? i : best;
    return best; /* in the file's order */
}

static uint32_t wish(const struct group *g, uint64_t now_us)
{
    const struct group_member *now = &g->member[g->now];
    uint32_t settled = g->count, any = g->count, best;
    bool now_well = is_well(g, g->now);

    for (uint32_t i = 0; i < g->count; i++) {
        if (is_settled(g, i, now_us))
            settled = better(g, settled, i);
        if (is_well(g, i))
            any = better(g, any, i);
    }
    best = settled != g->count || now_well ? settled : any;
    if (best == g->count)
        return g->now;
    if (g->kind == GROUP_FALLBACK)
        return !now_well || best < g->now ? best : g->now;
    if (!now_well || now->delay_us == 0)
        return g->member[best].delay_us != 0 || !now_well ? best : g->now;
    return g->member[best].delay_us != 0 && g->member[best].delay_us + g->tolerance_us < now->delay_us
               ? best
               : g->now;
}

static bool may_switch(const struct group *g, uint64_t now_us)
{
    return g->switched_us == 0 || now_us - g->switched_us >= GROUP_WINDOW_US;
}

bool group_decide(struct group *g, uint64_t now_us)
{
    uint32_t to;

    if (g->kind != GROUP_URL_TEST && g->kind != GROUP_FALLBACK)
        return false;
    to = wish(g, now_us);
    if (to == g->now || !may_switch(g, now_us))
        return false;
    g->now = (uint16_t)to;
    g->switched_us = now_us;
    return true;
}

void group_pick(struct group *g, uint32_t i, uint64_t now_us)
{
    g->now = (uint16_t)i;
    g->switched_us = now_us;
}

uint64_t group_due_us(const struct group *g, uint64_t now_us)
{
    uint64_t due_us = UINT64_MAX, at_us;

    for (uint32_t i = 0; i < g->count; i++) {
        const struct group_member *m = &g->member[i];

        at_us = m->down ? m->retry_us : m->well_us != 0 ? m->well_us + GROUP_WINDOW_US : 0;
        if (m->down || at_us > now_us)
            due_us = at_us < due_us ? at_us : due_us;
    }
    at_us = g->switched_us + GROUP_WINDOW_US;
    if (g->switched_us != 0 && at_us > now_us && at_us < due_us)
        due_us = at_us;
    return due_us;
}
