/* worker_fetch.c - files that the main thread wants: fetched in a worker, where the ways out and their health are. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "worker_impl.h"

static void unlink_fetch(struct worker *w, struct worker_fetch *f)
{
    struct worker_fetch **at = &w->fetches;

    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
}

static void answer(struct worker_fetch *f)
{
    f->msg.fn = f->done;
    loop_post(f->back, &f->msg);
}

static void on_fetched(void *arg, struct up_fetched *result)
{
    struct worker_fetch *f = arg;

    f->result = *result;
    unlink_fetch(f->worker, f);
    answer(f);
}

static void do_fetch(struct loop_msg *m)
{
    struct worker_fetch *f = CONTAINER_OF(m, struct worker_fetch, msg);
    struct worker *w = f->worker;
    int r = w->stack ? up_fetch_open(w->env, &f->options, on_fetched, f, &f->under_way) : -ECANCELED;

    if (r == 0) {
        f->next = w->fetches;
        w->fetches = f;
        return;
    }
    f->result = (struct up_fetched){ .err = r };
    snprintf(f->result.why, sizeof(f->result.why), "it cannot be asked for: %s", strerror(-r));
    answer(f);
}

void worker_fetch(struct worker *w, struct worker_fetch *f)
{
    f->worker = w;
    f->msg.fn = do_fetch;
    loop_post(w->loop, &f->msg);
}

void worker_fetches_end(struct worker *w)
{
    struct worker_fetch *f;

    while ((f = w->fetches) != NULL) {
        up_fetch_cancel(f->under_way);
        w->fetches = f->next;
        f->result = (struct up_fetched){ .err = -ECANCELED };
        answer(f);
    }
}
