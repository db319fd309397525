/* watchdog.c - the main thread asks each worker for a sign of life. */
#include "watchdog.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "process.h"
#include "worker_impl.h"

struct watchdog {
    struct loop *loop;
    struct loop_timer timer;
    bool is_process;
    void (*on_wake)(void *arg, uint64_t slept_us);
    void *arg;
    uint64_t gap_us;
    uint32_t count;
    struct sign {
        struct loop_msg msg;
        struct worker *worker;
        atomic_bool out;  /* posted, and not run yet */
        unsigned waiting; /* ticks since it was posted [main] */
    } sign[];
};

/* ---- sleep ---- */

uint64_t clock_slept_us(uint64_t *gap_us, uint64_t monotonic_us, uint64_t boottime_us)
{
    uint64_t gap = boottime_us > monotonic_us ? boottime_us - monotonic_us : 0;
    uint64_t slept = *gap_us != 0 && gap > *gap_us ? gap - *gap_us : 0;

    *gap_us = gap != 0 ? gap : 1; /* 0 is "not known yet" */
    return slept;
}

static uint64_t clock_us(clockid_t id)
{
    struct timespec t = { 0 };

    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void look_at_clock(struct watchdog *w)
{
    uint64_t slept = clock_slept_us(&w->gap_us, clock_us(CLOCK_MONOTONIC), clock_us(CLOCK_BOOTTIME));

    if (slept < WATCHDOG_SLEPT_US)
        return;
    log_info("the machine slept for %llu s: ways out are tried anew", (unsigned long long)(slept / 1000000));
    if (w->on_wake != NULL)
        w->on_wake(w->arg, slept);
}

/* ---- life signs ---- */

static void on_sign(struct loop_msg *m) /* [worker] */
{
    struct sign *s = CONTAINER_OF(m, struct sign, msg);

    atomic_store_explicit(&s->out, false, memory_order_release);
}

/* SIGABRT goes to the thread itself, so that the banner and the core show where it hangs. Inside another program that is not ours
 * to do. */
static void on_stuck(const struct watchdog *w, const struct sign *s)
{
    log_error("worker-%u has been stuck for %d s%s", s->worker->index,
              WATCHDOG_TICKS * WATCHDOG_TICK_US / 1000000,
              w->is_process ? ": ending, so that a new start can help" : "");
    if (!w->is_process)
        return;
    pthread_kill(s->worker->thread, SIGABRT);
    for (int i = 0; i < 20; i++)
        nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
    abort();
}

static void on_tick(struct loop_timer *t)
{
    struct watchdog *w = CONTAINER_OF(t, struct watchdog, timer);

    for (uint32_t i = 0; i < w->count; i++) {
        struct sign *s = &w->sign[i];

        if (!atomic_load_explicit(&s->out, memory_order_acquire)) {
            if (s->waiting >= WATCHDOG_TICKS)
                log_warning("worker-%u goes on", s->worker->index);
            s->waiting = 0;
            atomic_store_explicit(&s->out, true, memory_order_relaxed);
            s->msg.fn = on_sign;
            loop_post(s->worker->loop, &s->msg);
        } else if (++s->waiting == WATCHDOG_TICKS) {
            on_stuck(w, s);
        }
    }
    if (w->is_process)
        process_notify("WATCHDOG=1");
    look_at_clock(w);
    loop_timer_start(w->loop, t, loop_now_us(w->loop) + WATCHDOG_TICK_US, on_tick);
}

int watchdog_start(struct loop *l, struct worker *const *workers, uint32_t count, bool is_process,
                   void (*on_wake)(void *arg, uint64_t slept_us), void *arg, struct watchdog **out)
{
    struct watchdog *w = calloc(1, sizeof(*w) + count * sizeof(w->sign[0]));

    if (w == NULL)
        return -ENOMEM;
    w->loop = l;
    w->is_process = is_process;
    w->on_wake = on_wake;
    w->arg = arg;
    w->count = count;
    for (uint32_t i = 0; i < count; i++)
        w->sign[i].worker = workers[i];
    look_at_clock(w);
    loop_timer_start(l, &w->timer, loop_now_us(l) + WATCHDOG_TICK_US, on_tick);
    *out = w;
    return 0;
}

void watchdog_stop(struct watchdog *w)
{
    if (w != NULL)
        loop_timer_stop(w->loop, &w->timer);
}

void watchdog_free(struct watchdog *w)
{
    free(w);
}
