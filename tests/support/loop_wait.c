/* loop_wait.c - see loop_wait.h. */
#include "loop_wait.h"

static void look(void *arg)
{
    struct loop_wait *w = arg;

    if (!w->waiting || !w->done(w->arg))
        return;
    w->ok = true;
    w->waiting = false;
    loop_stop(w->loop);
}

static void on_deadline(struct loop_timer *t)
{
    struct loop_wait *w = CONTAINER_OF(t, struct loop_wait, deadline);

    w->waiting = false;
    loop_stop(w->loop);
}

void loop_wait_init(struct loop_wait *w, struct loop *l)
{
    *w = (struct loop_wait){ .loop = l };
    loop_on_turn_end(l, look, w);
}

bool loop_wait_until(struct loop_wait *w, unsigned timeout_ms, bool (*done)(void *arg), void *arg)
{
    w->done = done;
    w->arg = arg;
    w->ok = false;
    w->waiting = true;
    loop_timer_start(w->loop, &w->deadline, clock_now_us() + (uint64_t)timeout_ms * 1000, on_deadline);
    loop_run(w->loop);
    loop_timer_stop(w->loop, &w->deadline);
    return w->ok;
}
