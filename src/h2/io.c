/* io.c - a connection's descriptor: bytes in, frames out, and telling owners what has come.
 *
 * How it works. One turn reads a bounded amount, tells every stream that has news once, writes, and goes round again while
 * telling made something to write; what is left then waits for the next turn, so one busy connection does not hold up the rest
 * of the worker. Small frames are gathered into one record; a large one leaves from nghttp2's own memory; up to four records
 * leave with one system call.
 *
 * What may be ahead of an urgent datagram: one frame that nghttp2 has already cut, and what the socket has not sent. The kernel
 * bounds the latter (TCP_NOTSENT_LOWAT holds for send(), too), and tightly once there is an urgent stream. */
#include "h2_impl.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

enum {
    READ_BYTES = 16384,
    READ_ROUNDS = 16,
    TELL_ROUNDS = 8,
    SMALL_FRAME = 4096,
    LOW_WATER_BULK = 128 * 1024,
    LOW_WATER_URGENT = 16 * 1024,
};

/* ---- the way to the other side ---- */

static ssize_t read_bytes(struct h2 *h, void *to, size_t len)
{
    ssize_t n;

    if (h->opt.tls)
        return tls_recv(h->opt.tls, to, len);
    n = recv(h->opt.fd, to, len, 0);
    return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

static ssize_t write_bytes(struct h2 *h, struct iovec *iov, int iovcnt)
{
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = (size_t)iovcnt };
    ssize_t n;

    if (h->opt.tls)
        return tls_sendv(h->opt.tls, iov, iovcnt);
    n = sendmsg(h->opt.fd, &msg, MSG_NOSIGNAL);
    if (n >= 0)
        return n;
    return errno == EINTR || errno == ENOBUFS || errno == ENOMEM ? -EAGAIN : -errno; /* faults.md R4 */
}

void io_low_water(struct h2 *h)
{
    int one = 1, bytes = h->urgent ? LOW_WATER_URGENT : LOW_WATER_BULK;

    if (h->opt.fd < 0)
        return;
    /* in a test the descriptor may be no TCP socket */
    (void)setsockopt(h->opt.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(h->opt.fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof(bytes));
}

static void watch(struct h2 *h, unsigned events)
{
    if (h->opt.fd < 0)
        h->opt.want(h->opt.below, events);
    else
        loop_io_set(h->opt.loop, &h->io, events);
}

/* ---- reading ---- */

static void feed(struct h2 *h, const uint8_t *data, size_t len)
{
    ssize_t r = nghttp2_session_mem_recv(h->ng, data, len);

    h->heard_us = loop_now_us(h->opt.loop);
    if (r >= 0 || h->fatal)
        return;
    if (r == NGHTTP2_ERR_BAD_CLIENT_MAGIC || !h->settings)
        h2_fail(h, -EPROTO, "does not speak HTTP/2");
    else if (r == NGHTTP2_ERR_FLOODED)
        h2_fail(h, -EBUSY, "floods the connection");
    else
        h2_fail(h, -EPROTO, "broke HTTP/2: %s", nghttp2_strerror((int)r));
}

static void read_some(struct h2 *h)
{
    uint8_t data[READ_BYTES];
    int i;

    h->unread = false;
    for (i = 0; i < READ_ROUNDS && !h->fatal && !h->closed; i++) {
        ssize_t n = read_bytes(h, data, sizeof(data));

        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            h2_fail(h, -ECONNRESET,
                    h->settings ? "closed the connection" : "closed the connection without a word of HTTP/2");
            return;
        }
        feed(h, data, (size_t)n);
        if ((size_t)n < sizeof(data)) /* nothing more is there now, but perhaps an end */
            break;
    }
    /* a session of TLS below ours may have read ahead as well: full reads mean that there may be more, at any level */
    h->unread = h->opt.tls && (i == READ_ROUNDS || tls_unread(h->opt.tls));
}

/* ---- writing ---- */

/* The next frames: small ones are copied together, a large one stays where nghttp2 has it. */
static int fill(struct h2 *h)
{
    while (h->frame_len == 0) {
        const uint8_t *data;
        ssize_t n = nghttp2_session_mem_send(h->ng, &data);

        if (n <= 0)
            return (int)n;
        if (n < SMALL_FRAME && (size_t)n <= sizeof(h->out) - h->out_len) {
            memcpy(h->out + h->out_len, data, (size_t)n);
            h->out_len += (size_t)n;
        } else {
            h->frame = data;
            h->frame_len = (size_t)n;
        }
    }
    return 0;
}

static void sent(struct h2 *h, size_t n)
{
    size_t small = h->out_len - h->out_off;

    small = n < small ? n : small;
    h->out_off += small;
    if (h->out_off == h->out_len)
        h->out_off = h->out_len = 0;
    if (n > small) {
        h->frame += n - small;
        h->frame_len -= n - small;
    }
}

static bool tls_holds(const struct h2 *h)
{
    return h->opt.tls && (tls_unsent(h->opt.tls) || (h->opt.unsent && h->opt.unsent(h->opt.below)));
}

static int tls_release(struct h2 *h)
{
    int r = h->opt.flush ? h->opt.flush(h->opt.below) : 0;

    return r == 0 ? tls_flush(h->opt.tls) : r;
}

/* Records leave together, unless pings may come behind them: those wait for one frame at most. */
static void hold(struct h2 *h)
{
    if (h->opt.tls && !h->urgent)
        tls_hold(h->opt.tls);
}

/* Return: 0 all is out; -EAGAIN; -errno */
static int write_all(struct h2 *h)
{
    hold(h);
    for (;;) {
        struct iovec iov[2];
        int n = 0, r = fill(h);
        ssize_t done;

        if (r < 0) {
            h2_fail(h, -ENOMEM, "could not be written to: %s", nghttp2_strerror(r));
            return 0;
        }
        if (h->opt.unsent && tls_holds(h) && (r = tls_release(h)) != 0)
            return r;
        if (h->out_len > h->out_off)
            iov[n++] = (struct iovec){ h->out + h->out_off, h->out_len - h->out_off };
        if (h->frame_len > 0)
            iov[n++] = (struct iovec){ (void *)(uintptr_t)h->frame, h->frame_len };
        if (n == 0)
            return h->opt.tls ? tls_release(h) : 0;
        done = write_bytes(h, iov, n);
        if (done < 0)
            return (int)done;
        sent(h, (size_t)done);
    }
}

void io_write(struct h2 *h)
{
    int r = write_all(h);

    if (r != 0 && r != -EAGAIN) { /* what they said before is still read: it may tell why */
        watch(h, LOOP_READ);
        read_some(h);
        h2_fail(h, -ECONNRESET, "cut the connection");
        return;
    }
    watch(h, LOOP_READ | (r == -EAGAIN ? LOOP_WRITE : 0u));
}

void io_goodbye(struct h2 *h)
{
    (void)write_all(h);
}

/* ---- telling ---- */

static void tell(struct h2_stream *s)
{
    struct h2 *h = s->h;

    h->running = s;
    if (s->broken != 0 &&
        s->in.len > 0) { /* what came before is read first (faults.md S17); what stays is dropped */
        s->events->on_readable(s->arg);
        if (h->running != s)
            return;
    }
    if (s->broken != 0) {
        s->owned = false;
        s->events->on_closed(s->arg, s->broken, s->code);
        if (!h->closed && s->over)
            stream_free(s);
        h->running = NULL;
        return;
    }
    if ((s->want & LOOP_READ) != 0 && stream_has_news(s) && (s->in.len > 0 || (s->ended_in && !s->told_end)))
        s->events->on_readable(s->arg);
    if (h->running == s && (s->want & LOOP_WRITE) != 0 && stream_has_news(s) && s->events->on_writable &&
        s->broken == 0)
        s->events->on_writable(s->arg);
    if (h->running == s && stream_has_news(s))
        stream_ready(s);
    h->running = NULL;
}

void io_tell(struct h2 *h)
{
    h->round++;
    while (!h->closed && h->ready_first && h->ready_first->round != h->round) {
        struct h2_stream *s = h->ready_first;

        stream_unready(s);
        s->round = h->round;
        tell(s);
    }
}

/* ---- events ---- */

void h2_turn(struct h2 *h, unsigned events)
{
    h2_enter(h);
    if ((events & LOOP_READ) != 0 || h->unread)
        read_some(h);
    for (int i = 0; i < TELL_ROUNDS && !h->closed; i++) {
        io_tell(h);
        if (h->closed || h->fatal)
            break;
        io_write(h);
        if (!h->ready_first)
            break;
    }
    if (!h->closed && (h->ready_first || h->unread))
        h2_later(h);
    h2_leave(h);
}

static void on_io(struct loop_io *io, unsigned events)
{
    h2_turn(CONTAINER_OF(io, struct h2, io), events);
}

static void on_soon(struct wheel_timer *t, uint64_t now_us)
{
    (void)now_us;
    h2_turn(CONTAINER_OF(t, struct h2, soon), 0);
}

void io_start(struct h2 *h)
{
    h->soon.fn = on_soon;
    h->unread = h->opt.tls && tls_unread(h->opt.tls);
    io_low_water(h);
    if (h->opt.fd >= 0)
        loop_io_resume(h->opt.loop, &h->io, h->opt.fd, LOOP_READ | LOOP_WRITE, on_io);
    if (h->unread || h->opt.fd < 0)
        h2_later(h);
}

void io_stop(struct h2 *h)
{
    if (h->opt.fd >= 0)
        loop_io_stop(h->opt.loop, &h->io);
    wheel_cancel(h->opt.wheel, &h->soon);
}
