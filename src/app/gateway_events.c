/* gateway_events.c - what happens, for those who listen: ended flows as they end, counters once a second.
 *
 * A worker puts ended flows into a ring of its own, as long as somebody listens; the main thread takes them out every TURN_US. A
 * full ring loses flows for the listener, never memory, and never a worker's time. */
#include <stdlib.h>

#include "gateway_impl.h"

enum { TURN_US = 250000, TURNS_OF_COUNTERS = 4 };

static void on_counters(void *arg, const struct status_snapshot *s)
{
    struct gateway *g = arg;

    if (g->watch_events)
        g->watch_events->on_counters(g->watch_arg, s);
}

static void drain(struct gateway *g)
{
    struct status_ended e;

    for (uint32_t i = 0; i < g->worker_count; i++)
        while (g->watch_events && worker_next_ended(g->workers[i], &e))
            g->watch_events->on_ended(g->watch_arg, &e);
}

static void on_turn(struct loop_timer *t)
{
    struct gateway *g = CONTAINER_OF(t, struct gateway, watch_timer);

    drain(g);
    if (!g->watch_events)
        return; /* the last listener left meanwhile */
    if (++g->watch_turns % TURNS_OF_COUNTERS == 0)
        gateway_status(g, 0, on_counters, g);
    loop_timer_start(g->setup.loop, t, loop_now_us(g->setup.loop) + TURN_US, on_turn);
}

void gateway_watch(struct gateway *g, const struct gateway_events *events, void *arg)
{
    g->watch_events = events;
    g->watch_arg = arg;
    for (uint32_t i = 0; i < g->worker_count; i++)
        worker_watch(g->workers[i], events != NULL);
    if (events)
        loop_timer_start(g->setup.loop, &g->watch_timer, loop_now_us(g->setup.loop) + TURN_US, on_turn);
    else
        loop_timer_stop(g->setup.loop, &g->watch_timer);
}

void gateway_watch_end(struct gateway *g)
{
    g->watch_events = NULL;
    loop_timer_stop(g->setup.loop, &g->watch_timer);
}
