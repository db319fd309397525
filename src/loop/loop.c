/* loop.c - the event loop of one thread, on libev's epoll backend.
 *
 * How a turn runs. libev collects what is ready, then calls watchers by priority, highest first:
 *     check, priority 2        takes the time of this turn, and runs the turn-begin hooks
 *     descriptors and timers   priority 0, in no promised order
 *     doorbell, priority -2    runs the posted messages
 * and before it sleeps again the prepare watcher runs the turn-end hooks and looks whether somebody asked to stop.
 *
 * What always holds. The message queue is a stack that senders push to with one compare-and-swap; the consumer takes it whole
 * and reverses it, so messages of one sender keep their order. Only the push onto an empty stack rings the doorbell.
 * A message posted while messages run waits for the next turn, so descriptors are never starved.
 * No timer callback runs early: libev counts from its own reading of the clock, which is a little older than ours, so
 * on_timer compares with the deadline and sleeps again if need be. */
#include "loop_impl.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <ev.h>

enum { MAX_HOOKS = 4, MAX_SIGNALS = 8 };

struct timer_impl {
    struct ev_timer ev;
    uint64_t deadline_us;
};

static_assert(sizeof(struct ev_io) <= sizeof(struct loop_io), "loop_io must hold an ev_io");
static_assert(_Alignof(struct ev_io) <= _Alignof(struct loop_io), "loop_io must be aligned as an ev_io");
static_assert(sizeof(struct timer_impl) <= sizeof(struct loop_timer),
              "loop_timer must hold an ev_timer and a deadline");
static_assert(_Alignof(struct timer_impl) <= _Alignof(struct loop_timer),
              "loop_timer must be aligned as an ev_timer");
static_assert((int)LOOP_READ == (int)EV_READ && (int)LOOP_WRITE == (int)EV_WRITE,
              "our event bits are libev's");
static_assert(sizeof(void *) == sizeof(void (*)(void)), "a callback is kept in libev's data pointer");

struct hook {
    loop_hook_fn *fn;
    void *arg;
};

struct hooks {
    struct hook at[MAX_HOOKS];
    size_t count;
};

struct signal_watch {
    struct ev_signal ev; /* first, so that on_signal finds the rest */
    loop_signal_fn *fn;
    void *arg;
};

struct loop {
    struct ev_loop *ev;
    uint64_t now_us;
    struct ev_check check;
    struct ev_prepare prepare;
    struct ev_async doorbell;
    struct hooks begin, end; /* of a turn */
    struct signal_watch signals[MAX_SIGNALS];
    size_t signal_count;
    pthread_t owner; /* valid while `running` */
    atomic_bool running;
    atomic_bool stop;
    _Alignas(CACHE_LINE) _Atomic(struct loop_msg *) messages; /* newest first; the line that senders write */
};

uint64_t clock_now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail with this clock (clock_gettime(2)) */
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static bool is_running(const struct loop *l)
{
    return atomic_load_explicit(&l->running, memory_order_acquire);
}

bool loop_is_mine(const struct loop *l)
{
    return !is_running(l) || pthread_equal(l->owner, pthread_self());
}

uint64_t loop_now_us(const struct loop *l)
{
    return is_running(l) ? l->now_us : clock_now_us();
}

/* ---- messages ---- */

void loop_ring_doorbell(struct loop *l)
{
    ev_async_send(l->ev, &l->doorbell);
}

void loop_post(struct loop *l, struct loop_msg *m)
{
    struct loop_msg *head = atomic_load_explicit(&l->messages, memory_order_relaxed);

    do
        m->next = head;
    while (!atomic_compare_exchange_weak_explicit(&l->messages, &head, m, memory_order_release,
                                                  memory_order_relaxed));
    if (head == NULL) /* else the sender before us rings, or has rung */
        loop_ring_doorbell(l);
}

static struct loop_msg *take_messages(struct loop *l)
{
    struct loop_msg *newest = atomic_exchange_explicit(&l->messages, NULL, memory_order_acquire);
    struct loop_msg *oldest = NULL;

    while (newest != NULL) {
        struct loop_msg *next = newest->next;

        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

/* Returns whether there were any. A message may free itself or be posted again, so `next` is read first. */
static bool run_messages(struct loop *l)
{
    struct loop_msg *m = take_messages(l);
    bool any = m != NULL;

    while (m != NULL) {
        struct loop_msg *next = m->next;

        m->fn(m);
        m = next;
    }
    return any;
}

/* ---- libev's callbacks ---- */

static void run_hooks(const struct hooks *h)
{
    for (size_t i = 0; i < h->count; i++)
        h->at[i].fn(h->at[i].arg);
}

static void on_check(struct ev_loop *ev, struct ev_check *w, int revents)
{
    struct loop *l = ev_userdata(ev);

    (void)w;
    (void)revents;
    l->now_us = clock_now_us();
    run_hooks(&l->begin);
}

static void on_prepare(struct ev_loop *ev, struct ev_prepare *w, int revents)
{
    struct loop *l = ev_userdata(ev);

    (void)w;
    (void)revents;
    run_hooks(&l->end);
    if (atomic_load_explicit(&l->stop, memory_order_acquire))
        ev_break(ev, EVBREAK_ONE);
}

static void on_doorbell(struct ev_loop *ev, struct ev_async *w, int revents)
{
    (void)w;
    (void)revents;
    run_messages(ev_userdata(ev));
}

static void on_io(struct ev_loop *ev, struct ev_io *w, int revents)
{
    loop_io_fn *fn = (loop_io_fn *)w->data;
    unsigned events = (unsigned)revents & (EV_READ | EV_WRITE);

    (void)ev;
    if ((revents & EV_ERROR) != 0) /* libev gave up on the descriptor: it was closed under us */
        events = LOOP_READ | LOOP_WRITE;
    fn((struct loop_io *)w, events);
}

static void on_timer(struct ev_loop *ev, struct ev_timer *w, int revents)
{
    struct loop *l = ev_userdata(ev);
    struct loop_timer *t = (struct loop_timer *)w;
    uint64_t deadline_us = ((struct timer_impl *)w)->deadline_us;
    loop_timer_fn *fn = (loop_timer_fn *)w->data;

    (void)revents;
    if (l->now_us < deadline_us)
        loop_timer_start(l, t, deadline_us, fn);
    else
        fn(t);
}

static void on_signal(struct ev_loop *ev, struct ev_signal *w, int revents)
{
    struct signal_watch *s = (struct signal_watch *)w;

    (void)ev;
    (void)revents;
    s->fn(s->arg, w->signum);
}

/* ---- the loop itself ---- */

static void start_watchers(struct loop *l)
{
    ev_check_init(&l->check, on_check);
    ev_set_priority(&l->check, EV_MAXPRI);
    ev_check_start(l->ev, &l->check);
    ev_prepare_init(&l->prepare, on_prepare);
    ev_prepare_start(l->ev, &l->prepare);
    ev_async_init(&l->doorbell, on_doorbell);
    ev_set_priority(&l->doorbell, EV_MINPRI);
    ev_async_start(l->ev, &l->doorbell);
}

int loop_new(struct loop **out)
{
    struct loop *l = aligned_alloc(CACHE_LINE, (sizeof(*l) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);

    if (l == NULL)
        return -ENOMEM;
    memset(l, 0, sizeof(*l));
    atomic_init(&l->messages, NULL);
    loop_memory_prepare();
    errno = 0;
    l->ev = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV | EVFLAG_NOTIMERFD);
    if (l->ev == NULL) {
        int r = errno != 0 ? -errno : -ENOSYS;

        free(l);
        return r;
    }
    ev_set_userdata(l->ev, l);
    start_watchers(l);
    *out = l;
    return 0;
}

void loop_free(struct loop *l)
{
    if (l == NULL)
        return;
    assert(!is_running(l));
    while (run_messages(l))
        ;
    for (size_t i = 0; i < l->signal_count; i++)
        ev_signal_stop(l->ev, &l->signals[i].ev);
    ev_async_stop(l->ev, &l->doorbell);
    ev_prepare_stop(l->ev, &l->prepare);
    ev_check_stop(l->ev, &l->check);
    ev_loop_destroy(l->ev);
    free(l);
}

int loop_run(struct loop *l)
{
    assert(!is_running(l));
    l->owner = pthread_self();
    l->now_us = clock_now_us();
    atomic_store_explicit(&l->running, true, memory_order_release);
    ev_now_update(l->ev); /* libev's clock stood still while nobody ran the loop */
    ev_run(l->ev, 0);
    atomic_store_explicit(&l->running, false, memory_order_release);
    atomic_store_explicit(&l->stop, false, memory_order_release);
    return 0;
}

void loop_stop(struct loop *l)
{
    atomic_store_explicit(&l->stop, true, memory_order_release);
    loop_ring_doorbell(l);
}

static void add_hook(struct loop *l, struct hooks *h, loop_hook_fn *fn, void *arg)
{
    assert(loop_is_mine(l) && h->count < MAX_HOOKS);
    h->at[h->count++] = (struct hook){ .fn = fn, .arg = arg };
}

void loop_on_turn_begin(struct loop *l, loop_hook_fn *fn, void *arg)
{
    add_hook(l, &l->begin, fn, arg);
}

void loop_on_turn_end(struct loop *l, loop_hook_fn *fn, void *arg)
{
    add_hook(l, &l->end, fn, arg);
}

void loop_on_signal(struct loop *l, int signo, loop_signal_fn *fn, void *arg)
{
    struct signal_watch *s;

    assert(loop_is_mine(l) && l->signal_count < MAX_SIGNALS);
    s = &l->signals[l->signal_count++];
    s->fn = fn;
    s->arg = arg;
    ev_signal_init(&s->ev, on_signal, signo);
    ev_signal_start(l->ev, &s->ev);
}

/* ---- descriptors ---- */

static struct ev_io *io_ev(const struct loop_io *io)
{
    return (struct ev_io *)(void *)(uintptr_t)io->ev;
}

static struct ev_io *prepare_io(struct loop *l, struct loop_io *io, int fd, unsigned events, loop_io_fn *fn)
{
    struct ev_io *w = io_ev(io);

    assert(loop_is_mine(l) && fd >= 0 && (events & ~(unsigned)(LOOP_READ | LOOP_WRITE)) == 0);
    if (ev_is_active(w))
        ev_io_stop(l->ev, w);
    ev_io_init(w, on_io, fd, (int)events);
    w->data = (void *)fn;
    return w;
}

void loop_io_start(struct loop *l, struct loop_io *io, int fd, unsigned events, loop_io_fn *fn)
{
    ev_io_start(l->ev, prepare_io(l, io, fd, events, fn));
}

void loop_io_resume(struct loop *l, struct loop_io *io, int fd, unsigned events, loop_io_fn *fn)
{
    struct ev_io *w = prepare_io(l, io, fd, events, fn);

    w->events &= ~EV__IOFDSET; /* "this is another descriptor with the same number": it is not */
    ev_io_start(l->ev, w);
}

void loop_io_set(struct loop *l, struct loop_io *io, unsigned events)
{
    struct ev_io *w = io_ev(io);

    assert(loop_is_mine(l) && ev_is_active(w));
    if (((unsigned)w->events & (EV_READ | EV_WRITE)) == events)
        return;
    ev_io_stop(l->ev,
               w); /* libev compares at the end of the turn: there and back again costs no system call */
    w->events = (w->events & EV__IOFDSET) | (int)events;
    ev_io_start(l->ev, w);
}

void loop_io_stop(struct loop *l, struct loop_io *io)
{
    assert(loop_is_mine(l));
    ev_io_stop(l->ev, io_ev(io));
}

int loop_io_fd(const struct loop_io *io)
{
    return io_ev(io)->fd;
}

bool loop_io_active(const struct loop_io *io)
{
    return ev_is_active(io_ev(io));
}

/* ---- timers ---- */

static struct timer_impl *timer_of(const struct loop_timer *t)
{
    return (struct timer_impl *)(void *)(uintptr_t)t->ev;
}

void loop_timer_start(struct loop *l, struct loop_timer *t, uint64_t deadline_us, loop_timer_fn *fn)
{
    struct timer_impl *ti = timer_of(t);
    uint64_t now_us = loop_now_us(l);
    double delay_s = deadline_us > now_us ? (double)(deadline_us - now_us) / 1e6 : 0.0;

    assert(loop_is_mine(l));
    if (ev_is_active(&ti->ev))
        ev_timer_stop(l->ev, &ti->ev);
    ev_timer_init(&ti->ev, on_timer, delay_s, 0.0);
    ti->ev.data = (void *)fn;
    ti->deadline_us = deadline_us;
    ev_timer_start(l->ev, &ti->ev);
}

void loop_timer_stop(struct loop *l, struct loop_timer *t)
{
    assert(loop_is_mine(l));
    ev_timer_stop(l->ev, &timer_of(t)->ev);
}

bool loop_timer_active(const struct loop_timer *t)
{
    return ev_is_active(&timer_of(t)->ev);
}
