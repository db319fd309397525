/* relay.c - bytes between a client and its target, both ways, half-closes kept, resets passed on.
 *
 * How it works. A direction borrows a buffer of 64 KiB when there is something to read, writes it out at once and gives it back;
 * the pool hands out the buffer that was given back last, so one that is still in the cache. Only what the sink does not take
 * stays in a buffer, and while it does nothing more is read: that is the back-pressure.
 *
 * What always holds. A direction reads only when its buffer is empty, and writes only when it is not. At the limit of the pool
 * a direction waits its turn without reading. A client's reset reaches the target within the turn; the target's reset reaches
 * the client after what the target had sent (tcp-stack.md CLS-2), 5 s later at the latest. */
#include "serve_impl.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#define DRAIN_US      UINT64_C(5000000)
#define DRAIN_POLL_US UINT64_C(5000)

enum { ROUNDS = 8 }; /* buffers moved for one event */

/* ---- the two ends ---- */

static ssize_t read_end(struct conn *c, int way, void *to, size_t len)
{
    ssize_t n;

    if (way == DOWN)
        return up_stream_recv(c->up, to, len);
    n = recv(loop_io_fd(&c->io), to, len, 0);
    return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

static ssize_t write_end(struct conn *c, int way, const void *from, size_t len)
{
    ssize_t n;

    if (way == UP)
        return up_stream_sendv(c->up, &(struct iovec){ (void *)(uintptr_t)from, len }, 1);
    n = send(loop_io_fd(&c->io), from, len, MSG_NOSIGNAL);
    return n >= 0 ? n : errno == EINTR || errno == ENOBUFS || errno == ENOMEM ? -EAGAIN : -errno;
}

static void shut_end(struct conn *c, int way)
{
    if (way == UP)
        up_stream_shutdown(c->up);
    else
        (void)shutdown(loop_io_fd(&c->io), SHUT_WR);
}

/* ---- buffers ---- */

static void wait_for_buffer(struct conn *c, struct half *h)
{
    struct serve *s = c->s;

    if (!c->half[UP].starved && !c->half[DOWN].starved) {
        c->next_starved = s->starved;
        s->starved = c;
    }
    h->starved = true;
}

static void want(struct conn *c);

/* A buffer is free again: whoever waits may ask anew. */
static void give_back(struct conn *c, struct half *h)
{
    struct serve *s = c->s;
    struct conn *waiting = s->starved;

    buffers_put(&s->buffers, h->buffer);
    h->buffer = NULL;
    if (!waiting)
        return;
    s->starved = waiting->next_starved;
    waiting->half[UP].starved = waiting->half[DOWN].starved = false;
    if (waiting != c)
        want(waiting);
}

static void leave_starved(struct conn *c)
{
    struct conn **at = &c->s->starved;

    if (!c->half[UP].starved && !c->half[DOWN].starved)
        return;
    while (*at != c)
        at = &(*at)->next_starved;
    *at = c->next_starved;
    c->half[UP].starved = c->half[DOWN].starved = false;
}

void relay_release(struct conn *c)
{
    leave_starved(c);
    for (int way = 0; way < 2; way++) {
        if (c->half[way].buffer)
            give_back(c, &c->half[way]);
    }
}

/* ---- moving ---- */

static bool wants_to_read(const struct half *h)
{
    return !h->eof && !h->buffer && !h->starved;
}

static void want(struct conn *c)
{
    const struct half *up = &c->half[UP], *down = &c->half[DOWN];

    if (c->state != CONN_RELAY)
        return;
    loop_io_set(c->s->loop, &c->io, (wants_to_read(up) ? LOOP_READ : 0u) | (down->buffer ? LOOP_WRITE : 0u));
    up_stream_want(c->up, (wants_to_read(down) ? LOOP_READ : 0u) | (up->buffer ? LOOP_WRITE : 0u));
}

static void start_drain(struct conn *c)
{
    up_stream_reset(c->up);
    c->up = NULL;
    relay_release(c);
    c->state = CONN_DRAIN;
    c->drain_until_us = loop_now_us(c->s->loop) + DRAIN_US;
    loop_io_set(c->s->loop, &c->io, 0);
    relay_on_drain_timer(c);
}

void relay_on_drain_timer(struct conn *c)
{
    uint64_t now_us = loop_now_us(c->s->loop);
    int queued = 0;

    if (now_us >= c->drain_until_us || ioctl(loop_io_fd(&c->io), SIOCOUTQ, &queued) != 0 || queued == 0)
        conn_end(c, true);
    else
        wheel_set(c->s->wheel, &c->timer, now_us + DRAIN_POLL_US);
}

/* Writes what waits. Return: 0 all of it is out, 1 the sink is full, or -errno. */
static int write_out(struct conn *c, int way)
{
    struct half *h = &c->half[way];

    while (h->len > 0) {
        ssize_t n = write_end(c, way, h->buffer + h->off, h->len);

        if (n == -EAGAIN)
            return 1;
        if (n < 0)
            return (int)n;
        h->off += (uint32_t)n;
        h->len -= (uint32_t)n;
        counter_add(way == UP ? &c->s->cnt.bytes_up : &c->s->cnt.bytes_down, (uint64_t)n);
    }
    give_back(c, h);
    return 0;
}

/* Reads once. Return: bytes, 0 the end, -EAGAIN nothing now or no buffer, -errno. */
static ssize_t read_in(struct conn *c, int way)
{
    struct half *h = &c->half[way];
    ssize_t n;

    h->buffer = buffers_get(&c->s->buffers);
    if (!h->buffer) {
        wait_for_buffer(c, h);
        return -EAGAIN;
    }
    n = read_end(c, way, h->buffer, RELAY_BUFFER_BYTES);
    h->off = 0;
    h->len = n > 0 ? (uint32_t)n : 0;
    if (n <= 0)
        give_back(c, h);
    return n;
}

enum outcome { GOES_ON, SOURCE_BROKE, SINK_BROKE };

static enum outcome pump(struct conn *c, int way)
{
    struct half *h = &c->half[way];
    bool more = true;

    for (int round = 0; round < ROUNDS; round++) {
        ssize_t n;
        int r = h->buffer ? write_out(c, way) : 0;

        if (r < 0)
            return SINK_BROKE;
        if (r > 0 || !more || h->eof)
            break;
        n = read_in(c, way);
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
        shut_end(c, way);
    }
    return GOES_ON;
}

/* The target takes no more: it has reset. What it had sent before is still to be read, and its end tells (faults.md S17). */
static void stop_sending(struct conn *c)
{
    struct half *h = &c->half[UP];

    give_back(c, h);
    h->len = 0;
    h->eof = h->shut = true;
    want(c);
}

/* Moves one direction and deals with what came of it. The connection may be gone afterwards. */
static void move(struct conn *c, int way)
{
    enum outcome o = pump(c, way);

    if (o == SOURCE_BROKE && way == DOWN)
        start_drain(c);
    else if (o == SINK_BROKE && way == UP && !c->half[DOWN].shut)
        stop_sending(c);
    else if (o != GOES_ON)
        conn_end(c, true); /* the client's end broke */
    else if (c->half[UP].shut && c->half[DOWN].shut)
        conn_end(c, false);
    else
        want(c);
}

void relay_on_client(struct conn *c, unsigned events)
{
    struct serve *s = c->s;

    s->running = c;
    if ((events & LOOP_READ) != 0)
        move(c, UP);
    if ((events & LOOP_WRITE) != 0 && s->running == c && c->state == CONN_RELAY)
        move(c, DOWN);
    s->running = NULL;
}

void relay_on_up_readable(void *conn)
{
    move(conn, DOWN);
}

void relay_on_up_writable(void *conn)
{
    move(conn, UP);
}

void relay_start(struct conn *c, const uint8_t *early, size_t len)
{
    struct half *h = &c->half[UP];

    if (len > 0) {
        h->buffer = buffers_get(&c->s->buffers);
        if (!h->buffer) {
            conn_end(c, true);
            return;
        }
        memcpy(h->buffer, early, len);
        h->off = 0;
        h->len = (uint32_t)len;
    }
    move(c, UP);
}
