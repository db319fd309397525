/* gateway_deal.c - limits of the process are dealt to the workers anew, once a second while some worker wants more than its equal part.
 *
 * How it works (design.md section 6; forward.h, share_deal()). A worker that comes near its part rings; the first round follows at once. A
 * round asks all workers what they use of the limits that matter, deals when the last one has answered, and tells them. Workers name in
 * their answers what else they have met, for the next round, which comes a second after the one before. A limit that equal parts will do for
 * is left out again; with none left there are no rounds. Nobody waits: what a worker does meanwhile is within the part that it has. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "gateway_impl.h"
#include "worker_impl.h"

#define ROUND_US 1000000

struct deal {
    struct gateway *g; /* NULL: it has ended, and who comes last frees this */
    struct loop *loop; /* main's */
    struct loop_timer timer;
    struct loop_msg bell;
    atomic_bool rung;
    bool wanted;                   /* somebody rang, and no round has begun since */
    struct round *round;           /* under way */
    uint64_t last_us;              /* when the one before began */
    struct forward_policy *policy; /* that `keys` are of; a reference */
    struct share keys[SHARES_MAX];
    size_t count;
};

struct round {
    struct deal *deal;
    struct forward_policy *policy; /* a reference */
    uint32_t workers, waiting;
    size_t asked;
    bool dealt[SHARES_MAX];
    struct round_part {
        struct loop_msg msg;
        struct round *round;
        struct worker *worker;
        size_t count;
        struct share list[SHARES_MAX];
    } part[];
};

static void free_if_over(struct deal *d)
{
    if (d->g || d->round || atomic_load(&d->rung))
        return;
    forward_policy_unref(d->policy);
    free(d);
}

/* ---- the workers' side ---- */

static void on_part_back(struct loop_msg *m);

static void do_ask(struct loop_msg *m)
{
    struct round_part *p = CONTAINER_OF(m, struct round_part, msg);

    if (p->worker->stack)
        p->count = forward_shares_report(p->worker->forward, p->round->policy, p->list, p->count);
    m->fn = on_part_back;
    loop_post(p->round->deal->loop, m);
}

static void on_told(struct loop_msg *m);

static void do_tell(struct loop_msg *m)
{
    struct round_part *p = CONTAINER_OF(m, struct round_part, msg);

    for (size_t i = 0; p->worker->stack && i < p->round->asked; i++)
        forward_shares_set(p->worker->forward, p->round->policy, &p->list[i], p->round->dealt[i]);
    m->fn = on_told;
    loop_post(p->round->deal->loop, m);
}

/* ---- main's side ---- */

static void post_to_all(struct round *r, void (*fn)(struct loop_msg *m))
{
    r->waiting = r->workers;
    for (uint32_t i = 0; i < r->workers; i++) {
        r->part[i].msg.fn = fn;
        loop_post(worker_loop(r->part[i].worker), &r->part[i].msg);
    }
}

static void start_timer(struct deal *d);

static void end_round(struct round *r)
{
    struct deal *d = r->deal;

    d->round = NULL;
    forward_policy_unref(r->policy);
    free(r);
    if (d->g && (d->wanted || d->count > 0))
        start_timer(d);
    free_if_over(d);
}

static void on_told(struct loop_msg *m)
{
    struct round *r = CONTAINER_OF(m, struct round_part, msg)->round;

    if (--r->waiting == 0)
        end_round(r);
}

static void remember(struct deal *d, const struct share *key)
{
    for (size_t i = 0; i < d->count; i++)
        if (share_same(&d->keys[i], key))
            return;
    if (d->count < SHARES_MAX)
        d->keys[d->count++] = *key;
}

/* What was asked for is dealt; what the next round asks for is that of it which matters, and what was named. */
static void deal_all(struct round *r)
{
    struct deal *d = r->deal;

    d->count = 0;
    for (size_t i = 0; i < r->asked; i++) {
        struct share *each[WORKERS_MAX];

        for (uint32_t w = 0; w < r->workers; w++)
            each[w] = &r->part[w].list[i];
        r->dealt[i] = share_deal(each, r->workers, forward_policy_whole(r->policy, each[0]));
        if (r->dealt[i])
            remember(d, each[0]);
    }
    for (uint32_t w = 0; w < r->workers; w++)
        for (size_t i = r->asked; i < r->part[w].count; i++)
            remember(d, &r->part[w].list[i]);
}

static void on_part_back(struct loop_msg *m)
{
    struct round *r = CONTAINER_OF(m, struct round_part, msg)->round;
    bool first = r->asked == 0;

    if (--r->waiting > 0)
        return;
    if (!r->deal->g) {
        end_round(r);
        return;
    }
    deal_all(r);
    if (first) { /* nothing was asked for: now it is known what */
        r->deal->last_us = 0;
        end_round(r);
    } else {
        post_to_all(r, do_tell);
    }
}

/* After a reload other limits may hold: what is of clients and ways begins anew, in the workers, too. */
static void keep_up_with_policy(struct deal *d)
{
    size_t n = 0;

    if (d->policy == d->g->policy)
        return;
    forward_policy_unref(d->policy);
    d->policy = forward_policy_ref(d->g->policy);
    for (size_t i = 0; i < d->count; i++)
        if (d->keys[i].kind == SHARE_TCP || d->keys[i].kind == SHARE_UDP)
            d->keys[n++] = d->keys[i];
    d->count = n;
}

static void on_timer(struct loop_timer *t)
{
    struct deal *d = CONTAINER_OF(t, struct deal, timer);
    uint32_t n = d->g->worker_count;
    struct round *r = calloc(1, sizeof(*r) + n * sizeof(r->part[0]));

    d->last_us = loop_now_us(d->loop);
    d->wanted = false;
    if (!r) { /* the parts stay as they are */
        start_timer(d);
        return;
    }
    keep_up_with_policy(d);
    r->deal = d;
    r->policy = forward_policy_ref(d->policy);
    r->workers = n;
    r->asked = d->count;
    for (uint32_t i = 0; i < n; i++) {
        r->part[i].round = r;
        r->part[i].worker = d->g->workers[i];
        r->part[i].count = d->count;
        for (size_t k = 0; k < d->count; k++)
            r->part[i].list[k] = d->keys[k];
    }
    d->round = r;
    post_to_all(r, do_ask);
}

static void start_timer(struct deal *d)
{
    uint64_t now_us = loop_now_us(d->loop), due_us = d->last_us == 0 ? now_us : d->last_us + ROUND_US;

    if (!d->round && !loop_timer_active(&d->timer))
        loop_timer_start(d->loop, &d->timer, due_us > now_us ? due_us : now_us, on_timer);
}

static void on_bell(struct loop_msg *m)
{
    struct deal *d = CONTAINER_OF(m, struct deal, bell);

    atomic_store(&d->rung, false);
    d->wanted = true; /* by one that a round under way may have asked already: then another one follows */
    if (d->g)
        start_timer(d);
    free_if_over(d);
}

void gateway_deal_wanted(void *deal)
{
    struct deal *d = deal;

    if (!atomic_exchange(&d->rung, true))
        loop_post(d->loop, &d->bell);
}

/* ---- life ---- */

int gateway_deal_open(struct gateway *g)
{
    struct deal *d = calloc(1, sizeof(*d));

    if (!d)
        return -ENOMEM;
    d->g = g;
    d->loop = g->setup.loop;
    d->bell.fn = on_bell;
    d->policy = forward_policy_ref(g->policy);
    g->deal = d;
    return 0;
}

void gateway_deal_close(struct gateway *g)
{
    struct deal *d = g->deal;

    if (!d)
        return;
    g->deal = NULL;
    loop_timer_stop(d->loop, &d->timer);
    d->g = NULL;
    free_if_over(d);
}
