/* worker_ended.c - a worker tells of the flows that end, while somebody listens (gateway_events.c). */
#include <stdio.h>
#include <stdlib.h>

#include "worker_impl.h"

/* 256 records of about 450 bytes. */
#define ENDED_BYTES   (1u << 17)
#define ENDED_RECORDS 256

struct worker_ended {
    struct ring ring; /* the worker puts, the main thread takes */
    uint8_t memory[ENDED_BYTES];
};

struct watch_order {
    struct loop_msg msg;
    struct worker *worker;
    bool on;
};

static void on_flow_ended(void *arg, const struct flow_end *e)
{
    struct worker *w = arg;
    struct status_ended *to = ring_reserve(&w->ended->ring, sizeof(*to));

    if (!to)
        return;
    *to =
        (struct status_ended){ .key = e->key, .up = e->bytes_up, .down = e->bytes_down, .age_ms = e->age_ms };
    snprintf(to->upstream, sizeof(to->upstream), "%s", upstream_name(e->way));
    snprintf(to->rule, sizeof(to->rule), "%s", rules_name(forward_policy_rules(e->policy), e->rule));
    snprintf(to->reason, sizeof(to->reason), "%s", e->why ? e->why : "ended");
    ring_commit(&w->ended->ring);
}

static void do_watch(struct loop_msg *m)
{
    struct watch_order *o = CONTAINER_OF(m, struct watch_order, msg);

    if (o->worker->stack)
        forward_watch_ends(o->worker->forward, o->on ? on_flow_ended : NULL, o->worker);
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
