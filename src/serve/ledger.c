/* ledger.c - limits of users across threads.
 *
 * How it works. A rate is kept as one number, the time at which all that was spent will have been earned (the "theoretical
 * arrival time" of the generic cell rate algorithm, ITU-T I.371): spending moves it forward by bytes / rate. Bytes may move
 * while it is less than BURST_US ahead of now, so a bucket of a fifth of a second; one read may overdraw it, and pays by waiting
 * longer. Being one number it needs no lock. */
#include "ledger.h"

#include <errno.h>
#include <stdlib.h>

#define BURST_US UINT64_C(200000)

struct ledger_user {
    struct serve_ledger *ledger;
    _Alignas(CACHE_LINE) _Atomic uint32_t flows;
    _Atomic uint64_t earned_at_us[2];
};

struct serve_ledger {
    struct serve_per_user limits;
    size_t count;
    struct ledger_user *users;
};

int serve_ledger_new(const struct serve_per_user *limits, size_t users, struct serve_ledger **out)
{
    struct serve_ledger *l = calloc(1, sizeof(*l));
    size_t n = users > 0 ? users : 1; /* without a login everybody is one user */

    if (!l)
        return -ENOMEM;
    l->users = aligned_alloc(CACHE_LINE, n * sizeof(*l->users));
    if (!l->users) {
        free(l);
        return -ENOMEM;
    }
    l->limits = *limits;
    l->count = n;
    for (size_t i = 0; i < n; i++) {
        l->users[i].ledger = l;
        atomic_init(&l->users[i].flows, 0);
        atomic_init(&l->users[i].earned_at_us[0], 0);
        atomic_init(&l->users[i].earned_at_us[1], 0);
    }
    *out = l;
    return 0;
}

void serve_ledger_free(struct serve_ledger *l)
{
    if (!l)
        return;
    free(l->users);
    free(l);
}

struct ledger_user *ledger_user(struct serve_ledger *l, size_t index)
{
    if (!l || index >= l->count || (l->limits.flows == 0 && l->limits.bytes_per_second == 0))
        return NULL;
    return &l->users[index];
}

bool ledger_open_flow(struct ledger_user *u)
{
    uint32_t limit = u ? u->ledger->limits.flows : 0;

    if (!u)
        return true;
    if (atomic_fetch_add_explicit(&u->flows, 1, memory_order_relaxed) < limit || limit == 0)
        return true;
    ledger_close_flow(u);
    return false;
}

void ledger_close_flow(struct ledger_user *u)
{
    if (u)
        atomic_fetch_sub_explicit(&u->flows, 1, memory_order_relaxed);
}

uint64_t ledger_wait_us(struct ledger_user *u, int way, uint64_t now_us)
{
    uint64_t at;

    if (!u || u->ledger->limits.bytes_per_second == 0)
        return 0;
    at = atomic_load_explicit(&u->earned_at_us[way], memory_order_relaxed);
    return at > now_us + BURST_US ? at - now_us - BURST_US : 0;
}

void ledger_spend(struct ledger_user *u, int way, uint64_t now_us, size_t bytes)
{
    uint64_t at, next, rate = u ? u->ledger->limits.bytes_per_second : 0;

    if (rate == 0)
        return;
    at = atomic_load_explicit(&u->earned_at_us[way], memory_order_relaxed);
    do {
        next = (at > now_us ? at : now_us) + (uint64_t)bytes * 1000000 / rate;
    } while (!atomic_compare_exchange_weak_explicit(&u->earned_at_us[way], &at, next, memory_order_relaxed,
                                                    memory_order_relaxed));
}
