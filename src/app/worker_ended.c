/* worker_ended.c - a worker keeps the last flows that ended, and tells of each while somebody listens (gateway_events.c).
 *
 * What ended is kept as text, in memory of its own: the way out and the rules that the texts come from may be gone when somebody asks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker_impl.h"

/* 256 records of about 600 bytes, for those who listen. */
#define ENDED_BYTES   (1u << 18)
#define ENDED_RECORDS 256

struct worker_ended {
    struct ring ring; /* the worker puts, the main thread takes */
    uint8_t memory[ENDED_BYTES];
};

struct worker_last {
    uint64_t count; /* ever */
    struct {
        uint64_t at_us;
        struct status_ended flow;
    } slot[WORKER_LAST_MAX];
};

struct watch_order {
    struct loop_msg msg;
    struct worker *worker;
    bool on;
};

static void put_text(char *to, size_t size, const char *text)
{
    size_t len = strnlen(text, size - 1);

    memcpy(to, text, len);
    to[len] = '\0';
}

static void put_ended(struct status_ended *to, const struct flow_end *e)
{
    to->id = e->id;
    to->key = e->key;
    to->up = e->bytes_up;
    to->down = e->bytes_down;
    to->age_ms = e->age_ms;
    to->ago_ms = 0;
    put_text(to->upstream, sizeof(to->upstream), upstream_name(e->way));
    put_text(to->rule, sizeof(to->rule), rules_name(forward_policy_rules(e->policy), e->rule));
    put_text(to->reason, sizeof(to->reason), e->why ? e->why : "ended");
    put_text(to->host, sizeof(to->host), e->name);
}

static void on_flow_ended(void *arg, const struct flow_end *e)
{
    struct worker *w = arg;
    uint64_t at = w->last->count++ % WORKER_LAST_MAX;
    struct status_ended *to = w->ended_wanted ? ring_reserve(&w->ended->ring, sizeof(*to)) : NULL;

    w->last->slot[at].at_us = loop_now_us(w->loop);
    put_ended(&w->last->slot[at].flow, e);
    if (!to)
        return;
    *to = w->last->slot[at].flow;
    ring_commit(&w->ended->ring);
}

/* ---- the last ones ---- */

int worker_last_open(struct worker *w)
{
    w->last = calloc(1, sizeof(*w->last)); /* touched when flows end */
    if (!w->last)
        return -ENOMEM;
    forward_watch_ends(w->forward, on_flow_ended, w);
    return 0;
}

size_t worker_last(const struct worker *w, struct status_ended **out)
{
    uint64_t now_us = loop_now_us(w->loop), n = w->last->count;
    size_t count = n < WORKER_LAST_MAX ? (size_t)n : WORKER_LAST_MAX;
    struct status_ended *list = calloc(count + 1, sizeof(*list));

    *out = list;
    if (!list)
        return 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t at = (n - 1 - i) % WORKER_LAST_MAX;

        list[i] = w->last->slot[at].flow;
        list[i].ago_ms = (now_us - w->last->slot[at].at_us) / 1000;
    }
    return count;
}

/* ---- those who listen ---- */

static void do_watch(struct loop_msg *m)
{
    struct watch_order *o = CONTAINER_OF(m, struct watch_order, msg);

    o->worker->ended_wanted = o->on;
    free(o);
}

void worker_watch(struct worker *w, bool on)
{
    struct watch_order *o = malloc(sizeof(*o));

    if (!w->ended) {
        w->ended = aligned_alloc(CACHE_LINE, sizeof(*w->ended));
        if (w->ended)
            ring_init(&w->ended->ring, w->ended->memory, sizeof(w->ended->memory), ENDED_RECORDS);
    }
    if (!o || !w->ended) { /* nothing is told of this worker's flows until somebody listens anew */
        free(o);
        return;
    }
    *o = (struct watch_order){ { NULL, do_watch }, w, on };
    loop_post(w->loop, &o->msg);
}

bool worker_next_ended(struct worker *w, struct status_ended *out)
{
    const struct status_ended *e;
    size_t len;

    if (!w->ended || (e = ring_peek(&w->ended->ring, &len)) == NULL)
        return false;
    *out = *e;
    ring_pop(&w->ended->ring);
    return true;
}
