/* relay.c - bytes between a client and its target, both ways, half-closes kept, resets passed on.
 *
 * How it works. A direction borrows a buffer of 64 KiB when there is something to read, writes it out at once and gives it back;
 * the pool hands out the buffer that was given back last, so one that is still in the cache. Only what the sink does not take
 * stays in a buffer, and while it does nothing more is read: that is the back-pressure. A user's rate is kept the same way: a
 * direction whose rate is used up is not read until it is earned.
 *
 * What always holds. A direction reads only when its buffer is empty, and writes only when it is not. At the limit of the pool
 * a direction waits its turn without reading. A client's reset reaches the target within the turn, or within a second while the
 * target takes nothing and the client is therefore not read: what is not read, libev does not watch, and an abandoned stream would
 * hold megabytes of the kernel's memory for as long as its target sleeps. The target's reset reaches the client after what the
 * target had sent (tcp-stack.md CLS-2), 5 s later at the latest. */
#include "relay.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#define DRAIN_US      UINT64_C(5000000)
#define DRAIN_POLL_US UINT64_C(5000)
#define LOOK_US       UINT64_C(1000000)

enum {
    ROUNDS = 8,         /* buffers moved for one event */
    KEEP_BUFFERS = 64,  /* 4 MiB that are not given back */
    BUFFERS_MAX = 4096, /* 256 MiB, touched on demand: what a server holds for stalled peers is bounded */
};

static void wait_for_buffer(struct relay *r, struct half *h)
{
    struct relays *all = r->all;

    if (!r->half[UP].starved && !r->half[DOWN].starved) {
        r->next_starved = all->starved;
        all->starved = r;
    }
    h->starved = true;
}

static void want(struct relay *r);

/* A buffer is free again: whoever waits may ask anew. */
static void give_back(struct relay *r, struct half *h)
{
    struct relays *all = r->all;
    struct relay *waiting = all->starved;

    buffers_put(&all->buffers, h->buffer);
    h->buffer = NULL;
    if (!waiting)
        return;
    all->starved = waiting->next_starved;
    waiting->half[UP].starved = waiting->half[DOWN].starved = false;
    if (waiting != r)
        want(waiting);
}

static void leave_starved(struct relay *r)
{
    struct relay **at = &r->all->starved;

    if (!r->half[UP].starved && !r->half[DOWN].starved)
        return;
    while (*at != r)
        at = &(*at)->next_starved;
    *at = r->next_starved;
    r->half[UP].starved = r->half[DOWN].starved = false;
}

static void release(struct relay *r)
{
    leave_starved(r);
    for (int way = 0; way < 2; way++) {
        if (r->half[way].buffer)
            give_back(r, &r->half[way]);
    }
}

/* ---- the end ---- */

int relays_init(struct relays *all, uint32_t max_streams)
{
    return buffers_init(&all->buffers, RELAY_BUFFER_BYTES,
                        max_streams > BUFFERS_MAX / 2 ? BUFFERS_MAX : 2 * max_streams, KEEP_BUFFERS);
}

void relays_fini(struct relays *all)
{
    buffers_fini(&all->buffers);
}

void relay_stop(struct relay *r, bool reset)
{
    if (!r->started)
        return;
    r->started = false;
    if (r->all->running == r)
        r->all->running = NULL;
    wheel_cancel(r->all->wheel, &r->timer);
    if (reset)
        up_stream_reset(r->up);
    else
        up_stream_close(r->up);
    r->up = NULL;
    release(r);
}

static void end(struct relay *r, bool reset)
{
    relay_stop(r, reset);
    r->end->over(r, reset);
}

static void on_drain_timer(struct relay *r, uint64_t now_us)
{
    if (now_us >= r->drain_until_us || r->end->is_sent(r))
        end(r, true);
    else
        wheel_set(r->all->wheel, &r->timer, now_us + DRAIN_POLL_US);
}

static void start_drain(struct relay *r)
{
    uint64_t now_us = loop_now_us(r->all->loop);

    up_stream_reset(r->up);
    r->up = NULL;
    release(r);
    r->draining = true;
    r->drain_until_us = now_us + DRAIN_US;
    r->end->want(r, 0);
    on_drain_timer(r, now_us);
}

/* ---- moving ---- */

static bool wants_to_read(const struct half *h)
{
    return !h->eof && !h->buffer && !h->starved && !h->resting;
}

static void want(struct relay *r)
{
    const struct half *up = &r->half[UP], *down = &r->half[DOWN];

    if (r->draining)
        return;
    r->end->want(r, (wants_to_read(up) ? LOOP_READ : 0u) | (down->buffer ? LOOP_WRITE : 0u));
    up_stream_want(r->up, (wants_to_read(down) ? LOOP_READ : 0u) | (up->buffer ? LOOP_WRITE : 0u));
    if (up->buffer && !wheel_is_set(&r->timer))
        wheel_set(r->all->wheel, &r->timer, loop_now_us(r->all->loop) + LOOK_US);
}

static ssize_t write_end(struct relay *r, int way, const void *from, size_t len)
{
    if (way == UP)
        return up_stream_sendv(r->up, &(struct iovec){ (void *)(uintptr_t)from, len }, 1);
    return r->end->send(r, from, len);
}

/* Writes what waits. Return: 0 all of it is out, 1 the sink is full, or -errno. */
static int write_out(struct relay *r, int way)
{
    struct half *h = &r->half[way];

    while (h->len > 0) {
        ssize_t n = write_end(r, way, h->buffer + h->off, h->len);

        if (n == -EAGAIN)
            return 1;
        if (n < 0)
            return (int)n;
        h->off += (uint32_t)n;
        h->len -= (uint32_t)n;
        counter_add(r->all->bytes[way], (uint64_t)n);
    }
    give_back(r, h);
    return 0;
}

/* Has the user spent this direction's rate? Then it rests. */
static bool must_rest(struct relay *r, int way)
{
    uint64_t now_us = loop_now_us(r->all->loop), wait_us = ledger_wait_us(r->user, way, now_us);

    if (wait_us == 0)
        return false;
    r->half[way].resting = true;
    if (!wheel_is_set(&r->timer) || r->timer.deadline_us > now_us + wait_us)
        wheel_set(r->all->wheel, &r->timer, now_us + wait_us);
    return true;
}

/* Reads once. Return: bytes, 0 the end, -EAGAIN nothing now or no buffer, -errno. */
static ssize_t read_in(struct relay *r, int way)
{
    struct half *h = &r->half[way];
    ssize_t n;

    if (must_rest(r, way))
        return -EAGAIN;
    h->buffer = buffers_get(&r->all->buffers);
    if (!h->buffer) {
        wait_for_buffer(r, h);
        return -EAGAIN;
    }
    n = way == UP ? r->end->recv(r, h->buffer, RELAY_BUFFER_BYTES)
                  : up_stream_recv(r->up, h->buffer, RELAY_BUFFER_BYTES);
    h->off = 0;
    h->len = n > 0 ? (uint32_t)n : 0;
    if (n <= 0)
        give_back(r, h);
    else
        ledger_spend(r->user, way, loop_now_us(r->all->loop), (size_t)n);
    return n;
}

enum outcome { GOES_ON, SOURCE_BROKE, SINK_BROKE };

static enum outcome pump(struct relay *r, int way)
{
    struct half *h = &r->half[way];
    bool more = true;

    for (int round = 0; round < ROUNDS; round++) {
        ssize_t n;
        int e = h->buffer ? write_out(r, way) : 0;

        if (e < 0)
            return SINK_BROKE;
        if (e > 0 || !more || h->eof)
            break;
        n = read_in(r, way);
        if (n == -EAGAIN)
            break;
        if (n < 0)
            return SOURCE_BROKE;
        h->eof = n == 0;
        more =
            n ==
            RELAY_BUFFER_BYTES; /* a short read: the source is empty, and its readiness tells when it is not */
    }
    if (h->buffer && h->len > 0)
        return GOES_ON;
    if (h->eof && !h->shut) {
        h->shut = true;
        if (way == UP)
            up_stream_shutdown(r->up);
        else
            r->end->shut(r);
    }
    return GOES_ON;
}

/* The target takes no more: it has reset. What it had sent before is still to be read, and its end tells (faults.md S17). */
static void stop_sending(struct relay *r)
{
    struct half *h = &r->half[UP];

    give_back(r, h);
    h->len = 0;
    h->eof = h->shut = true;
    want(r);
}

/* Moves one direction and deals with what came of it. The relay may be over afterwards. */
static void move(struct relay *r, int way)
{
    enum outcome o = pump(r, way);

    if (o == SOURCE_BROKE && way == DOWN)
        start_drain(r);
    else if (o == SINK_BROKE && way == UP && !r->half[DOWN].shut)
        stop_sending(r);
    else if (o != GOES_ON)
        end(r, true); /* the client's end broke */
    else if (r->half[UP].shut && r->half[DOWN].shut)
        end(r, false);
    else
        want(r);
}

static void move_both(struct relay *r, unsigned ways)
{
    struct relays *all = r->all;

    all->running = r;
    if ((ways & 1u << UP) != 0)
        move(r, UP);
    if ((ways & 1u << DOWN) != 0 && all->running == r && !r->draining)
        move(r, DOWN);
    all->running = NULL;
}

void relay_on_client(struct relay *r, unsigned events)
{
    if (!r->draining)
        move_both(r, ((events & LOOP_READ) != 0 ? 1u << UP : 0u) |
                         ((events & LOOP_WRITE) != 0 ? 1u << DOWN : 0u));
}

void relay_on_up_readable(struct relay *r)
{
    move_both(r, 1u << DOWN);
}

void relay_on_up_writable(struct relay *r)
{
    move_both(r, 1u << UP);
}

void relay_on_up_closed(struct relay *r)
{
    r->up = NULL;
    end(r, true);
}

bool relay_socket_broken(int fd)
{
    struct pollfd p = { .fd = fd };

    return poll(&p, 1, 0) == 1 && (p.revents & POLLERR) != 0;
}

static void on_timer(struct wheel_timer *t, uint64_t now_us)
{
    struct relay *r = CONTAINER_OF(t, struct relay, timer);
    unsigned ways = 0;

    if (r->draining) {
        on_drain_timer(r, now_us);
        return;
    }
    if (r->half[UP].buffer && r->end->is_broken && r->end->is_broken(r)) {
        end(r, true);
        return;
    }
    for (int way = 0; way < 2; way++) {
        if (r->half[way].resting)
            ways |= 1u << way;
        r->half[way].resting = false;
    }
    if (ways != 0)
        move_both(r, ways);
    else
        want(r); /* and look again */
}

void relay_start(struct relay *r, struct relays *all, const struct relay_end *relay_end, struct up_stream *up,
                 const uint8_t *early, size_t len)
{
    struct half *h = &r->half[UP];

    r->all = all;
    r->end = relay_end;
    r->up = up;
    r->timer.fn = on_timer;
    r->started = true;
    if (len > 0) {
        h->buffer = buffers_get(&all->buffers);
        if (!h->buffer) {
            end(r, true);
            return;
        }
        memcpy(h->buffer, early, len);
        h->off = 0;
        h->len = (uint32_t)len;
    }
    move_both(r, 1u << UP);
}
