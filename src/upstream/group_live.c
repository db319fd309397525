/* group_live.c - the groups of one worker: what its flows and the tests found out, fed into the choice of group.c.
 *
 * How it works. Health comes from real traffic first: each opening tells how its member did. A member that is down is tested
 * when its wait is over, by this worker for itself: with the group's url, or by a handshake without a target. The rounds of
 * url-test, in which all members are measured, are one worker's, and the others are told (up_group_tested()); a round starts
 * only if the group was used since the last one.
 *
 * What always holds. A choice is this worker's own; a switch never touches a running flow. Nested groups are looked through: a
 * try always is a way out that opens sockets, and one that failed counts against the innermost group. */
#include "group.h"
#include "upstream_impl.h"

#include <stdio.h>
#include <stdlib.h>

struct member_test {
    struct group_live *live;
    struct handshake *handshake; /* NULL: none is under way */
    uint64_t started_us;
};

struct group_live {
    struct group g;
    struct up_env *env;
    struct up_memory *memory; /* the group's */
    struct wheel_timer timer;
    struct prng prng;
    uint64_t round_us;                   /* when the next round is due */
    uint32_t running;                    /* tests under way */
    bool rounds;                         /* they are ours */
    bool used;                           /* since the last round */
    bool passed_over[GROUP_MEMBERS_MAX]; /* it was told that this member carries no UDP */
    struct member_test test[GROUP_MEMBERS_MAX];
};

static void on_timer(struct wheel_timer *t, uint64_t now_us);

/* ---- life ---- */

/* A reload brings a new group of the same name: what the user picked is picked there, too, if it is still a member. */
static void inherit(struct up_env *env, struct group_live *l)
{
    const struct upstream *up = l->memory->up;
    const struct group_live *old = NULL;

    for (size_t i = 0; i < MEMORY_BUCKETS && l->g.kind == GROUP_SELECT; i++) {
        for (struct up_memory *m = env->memories[i]; m; m = m->next) {
            if (m != l->memory && m->live && strcmp(m->up->name, up->name) == 0 &&
                (!old || m->live->g.switched_us > old->g.switched_us))
                old = m->live;
        }
    }
    for (uint32_t i = 0; old && i < l->g.count; i++) {
        if (strcmp(up->members[i]->name, old->memory->up->members[old->g.now]->name) == 0)
            group_pick(&l->g, i, old->g.switched_us);
    }
}

static struct group_live *live_of(struct up_env *env, struct up_memory *m)
{
    const char *names[GROUP_MEMBERS_MAX];
    const struct upstream *up = m->up;
    struct group_live *l;

    if (m->live)
        return m->live;
    l = calloc(1, sizeof(*l)); /* once for each group of a configuration */
    if (!l)
        return NULL;
    for (uint32_t i = 0; i < up->group.member_count; i++) {
        names[i] = up->members[i]->name;
        l->test[i].live = l;
    }
    group_init(&l->g, &up->group, names);
    l->env = env;
    l->memory = m;
    l->timer.fn = on_timer;
    prng_seed(&l->prng, env->opt.seed ^ (uint64_t)(uintptr_t)m);
    m->live = l;
    inherit(env, l);
    return l;
}

void group_live_stop(struct up_env *env, struct up_memory *m)
{
    if (!m->live)
        return;
    wheel_cancel(env->opt.wheel, &m->live->timer);
    for (uint32_t i = 0; i < m->live->g.count; i++) {
        handshake_cancel(m->live->test[i].handshake);
        m->live->test[i].handshake = NULL;
    }
}

void group_live_free(struct up_env *env, struct up_memory *m)
{
    group_live_stop(env, m);
    free(m->live);
    m->live = NULL;
}

/* ---- deciding ---- */

static void arm(struct group_live *l)
{
    uint64_t now_us = env_now_us(l->env), due_us = group_due_us(&l->g, now_us);

    if (l->rounds && l->used && l->round_us < due_us)
        due_us = l->round_us;
    if (due_us == UINT64_MAX)
        wheel_cancel(l->env->opt.wheel, &l->timer);
    else
        wheel_set(l->env->opt.wheel, &l->timer, due_us > now_us ? due_us : now_us);
}

/* During a round only a member that is down is left: the others' delays are half old, half new. */
static void decide(struct group_live *l)
{
    struct up_env *env = l->env;
    uint32_t from = l->g.now;

    if (l->running > 0 && !l->g.member[from].down && !l->g.member[from].shut)
        return;
    if (!group_decide(&l->g, env_now_us(env)))
        return;
    UP_COUNT(env, group_switches);
    if (env->opt.on_group_switch)
        env->opt.on_group_switch(env->opt.group_arg, l->memory->up, from, l->g.now);
}

void group_tell(struct up_env *env, const struct group_try *t, bool good)
{
    struct group_live *l = t->group->live;
    const struct group_member *m = &l->g.member[t->index];

    if (good && m->failures == 0 && !m->down)
        return; /* nearly always */
    group_note(&l->g, t->index, good, env_now_us(env), prng_below(&l->prng, UINT32_MAX));
    decide(l);
    arm(l);
}

/* ---- trying ---- */

static uint64_t hash_of(const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a; group.c mixes it */

    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

static uint64_t key_of(const struct up_env *env, const struct group *g, const struct host_port *dst)
{
    if (g->strategy == GROUP_STICKY || !dst)
        return hash_of(&env->client, sizeof(env->client));
    return dst->name ? hash_of(dst->name, strlen(dst->name)) : hash_of(&dst->addr, sizeof(dst->addr));
}

static bool is_group(const struct up_memory *m)
{
    return m->up->kind == UPSTREAM_GROUP;
}

/* Is there a member of it that may be tried? */
static bool has_way(struct up_env *env, struct up_memory *m)
{
    struct group_live *l = live_of(env, m);
    uint16_t order[GROUP_MEMBERS_MAX];

    if (!l)
        return false;
    for (uint32_t i = 0; i < l->g.count; i++) {
        struct up_memory *member = env_memory(env, m->up->members[i]);

        l->g.member[i].shut = !member || (is_group(member) && !has_way(env, member));
    }
    return group_order(&l->g, 0, order) > 0;
}

/* A member without UDP stays the one for streams; what was learned of it may be forgotten again (faults.md U6). */
static bool passes_over(struct group_live *l, uint32_t i, const struct up_memory *member)
{
    bool no_udp = up_has_no_udp(l->env, member);

    if (no_udp && !l->passed_over[i] && l->env->opt.on_group_no_udp)
        l->env->opt.on_group_no_udp(l->env->opt.group_arg, l->memory->up, i);
    l->passed_over[i] = no_udp;
    return no_udp;
}

static size_t add_tries(struct up_env *env, struct up_memory *m, const struct host_port *dst, bool udp,
                        struct group_try *out, size_t n)
{
    struct group_live *l = m->live;
    uint16_t order[GROUP_MEMBERS_MAX];
    size_t members;

    decide(l);
    members = group_order(&l->g, key_of(env, &l->g, dst), order);
    for (size_t i = 0; i < members && n < GROUP_TRIES_MAX; i++) {
        struct up_memory *member = env_memory(env, m->up->members[order[i]]);

        if (is_group(member))
            n = add_tries(env, member, dst, udp, out, n);
        else if (!udp || !passes_over(l, order[i], member))
            out[n++] = (struct group_try){ member, m, order[i] };
    }
    return n;
}

static void note_use(struct up_memory *m)
{
    struct group_live *l = m->live;

    l->g.turn++;
    if (!l->used) {
        l->used = true;
        arm(l);
    }
    for (uint32_t i = 0; i < l->g.count; i++) {
        struct up_memory *member = env_memory(l->env, m->up->members[i]);

        if (member && is_group(member) && member->live)
            note_use(member);
    }
}

int group_tries(struct up_env *env, struct up_memory *m, const struct host_port *dst, bool udp,
                struct group_try out[GROUP_TRIES_MAX])
{
    bool well = has_way(env, m);
    int n = well ? (int)add_tries(env, m, dst, udp, out, 0) : 0;

    if (n == 0)
        UP_COUNT(env, group_refused);
    if (m->live)
        note_use(m);
    return n > 0 ? n : well && udp ? -EOPNOTSUPP : -EHOSTUNREACH;
}

struct upstream *up_current(struct up_env *env, struct upstream *up)
{
    struct group_try tries[GROUP_TRIES_MAX];
    struct up_memory *m;

    if (up->kind != UPSTREAM_GROUP)
        return up;
    m = env_memory(env, up);
    if (m && has_way(env, m) && add_tries(env, m, NULL, false, tries, 0) > 0)
        return tries[0].memory->up;
    while (up->kind == UPSTREAM_GROUP)
        up = up->members[0];
    return up;
}

bool up_udp_may_take(struct up_env *env, struct upstream *up, const struct upstream *way)
{
    struct group_try tries[GROUP_TRIES_MAX];
    struct up_memory *m;
    size_t n = 0, i = 0;

    if (up->kind != UPSTREAM_GROUP)
        return up == way;
    m = env_memory(env, up);
    if (m && has_way(env, m))
        n = add_tries(env, m, NULL, true, tries, 0);
    while (i < n && tries[i].memory->up != way)
        i++;
    if (i == 0 || i == n)
        return i < n;
    return up->group.kind == GROUP_LOAD_BALANCE ||
           (tries[i].group == tries[0].group && tries[i].group->up->group.kind == GROUP_LOAD_BALANCE);
}

struct upstream *up_echo_way(struct up_env *env, struct upstream *up, const struct ip_addr *client,
                             const struct host_port *target, bool v6, const struct upstream *prefer)
{
    struct group_try tries[GROUP_TRIES_MAX];
    struct upstream *first = NULL;
    struct up_memory *m;
    size_t n = 0;

    if (up->kind != UPSTREAM_GROUP)
        return up;
    m = env_memory(env, up);
    up_env_set_client(env, client);
    if (m && has_way(env, m))
        n = add_tries(env, m, target, false, tries, 0);
    for (size_t i = 0; i < n; i++) {
        struct upstream *one = tries[i].memory->up;

        if (up_echo_state(env, one, v6) == UP_ECHO_DOWN)
            continue;
        if (one == prefer)
            return one;
        first = first ? first : one;
    }
    return first ? first : up_current(env, up);
}

/* ---- tests ---- */

static void tested(struct group_live *l, uint32_t i, uint32_t delay_us)
{
    group_test(&l->g, i, delay_us, env_now_us(l->env), prng_below(&l->prng, UINT32_MAX));
    decide(l);
    arm(l);
}

static void test_over(struct member_test *t, bool well)
{
    struct group_live *l = t->live;
    struct up_env *env = l->env;
    uint64_t took_us = clock_now_us() - t->started_us;
    uint32_t i = (uint32_t)(t - l->test);
    uint32_t delay_us = !well ? 0 : took_us == 0 ? 1 : took_us < UINT32_MAX ? (uint32_t)took_us : UINT32_MAX;

    l->running--;
    tested(l, i, delay_us);
    if (l->rounds && env->opt.on_group_tested)
        env->opt.on_group_tested(env->opt.group_arg, l->memory->up, i, delay_us);
}

static void on_tested(void *arg, const struct handshake_result *result)
{
    struct member_test *t = arg;

    t->handshake = NULL;
    handshake_result_close(t->live->env, result);
    test_over(t, !result->why);
}

static void start_test(struct group_live *l, uint32_t i)
{
    struct upstream *up = l->memory->up, *way = up->tests ? up->tests[i] : up->members[i];
    struct up_memory *m = env_memory(l->env, way);
    struct member_test *t = &l->test[i];
    uint64_t timeout_us = (uint64_t)up->group.timeout_ms * 1000;

    if (t->handshake || !m)
        return;
    l->g.member[i].retry_us = env_now_us(l->env) + 2 * timeout_us; /* its answer sets it anew */
    t->started_us = clock_now_us();
    UP_COUNT(l->env, group_tests);
    if (handshake_open(l->env, m, SOCKS5_HELLO, NULL, NULL, timeout_us, on_tested, t, &t->handshake) == 0)
        l->running++;
}

static void on_timer(struct wheel_timer *timer, uint64_t now_us)
{
    struct group_live *l = CONTAINER_OF(timer, struct group_live, timer);
    bool round = l->rounds && l->used && l->round_us <= now_us;

    if (round) {
        l->round_us = now_us + (uint64_t)l->memory->up->group.interval_ms * 1000;
        l->used = false;
    }
    for (uint32_t i = 0; i < l->g.count; i++) {
        if (round || (l->g.member[i].down && l->g.member[i].retry_us <= now_us))
            start_test(l, i);
    }
    decide(l);
    arm(l);
}

/* ---- for the outside ---- */

static struct group_live *find(struct up_env *env, struct upstream *group)
{
    struct up_memory *m = group->kind == UPSTREAM_GROUP ? env_memory(env, group) : NULL;

    return m ? live_of(env, m) : NULL;
}

int up_group_start(struct up_env *env, struct upstream *group, bool tests)
{
    struct group_live *l = find(env, group);

    assert(loop_is_mine(env->opt.loop));
    if (!l)
        return group->kind == UPSTREAM_GROUP ? -ENOMEM : -EINVAL;
    l->rounds = tests && l->g.kind == GROUP_URL_TEST;
    l->used = true; /* the first round comes before the first flow */
    arm(l);
    return 0;
}

void up_group_tested(struct up_env *env, struct upstream *group, uint32_t member, uint32_t delay_us)
{
    struct group_live *l = find(env, group);

    if (l && member < l->g.count)
        tested(l, member, delay_us);
}

int upstream_group_selects(const struct upstream *group, const char *member)
{
    if (group->kind != UPSTREAM_GROUP || group->group.kind != GROUP_SELECT)
        return -EINVAL;
    for (uint32_t i = 0; i < group->group.member_count; i++)
        if (strcmp(group->members[i]->name, member) == 0)
            return 0;
    return -ENOENT;
}

int up_group_pick(struct up_env *env, struct upstream *group, const char *member)
{
    struct group_live *l = find(env, group);
    uint32_t from;

    if (!l || l->g.kind != GROUP_SELECT)
        return -EINVAL;
    from = l->g.now;
    for (uint32_t i = 0; i < l->g.count; i++) {
        if (strcmp(group->members[i]->name, member) != 0)
            continue;
        group_pick(&l->g, i, env_now_us(env));
        if (from != i && env->opt.on_group_switch)
            env->opt.on_group_switch(env->opt.group_arg, group, from, i);
        UP_COUNT(env, group_switches);
        return 0;
    }
    return -ENOENT;
}

int up_group_info(struct up_env *env, struct upstream *group, struct up_group_info *out)
{
    struct group_live *l = find(env, group);
    uint16_t order[GROUP_MEMBERS_MAX];

    if (!l)
        return group->kind == UPSTREAM_GROUP ? -ENOMEM : -EINVAL;
    *out = (struct up_group_info){ .kind = l->g.kind, .now = l->g.now, .members = l->g.count };
    if (has_way(env, l->memory) && group_order(&l->g, hash_of(&env->client, sizeof(env->client)), order) > 0)
        out->now = order[0];
    for (uint32_t i = 0; i < l->g.count; i++) {
        const struct group_member *m = &l->g.member[i];

        out->member[i].name = group->members[i]->name;
        out->member[i].down = m->down || m->shut;
        out->member[i].failures = m->failures;
        out->member[i].delay_us = m->delay_us;
    }
    out->switches = counter_read(&env->cnt.group_switches);
    return 0;
}
