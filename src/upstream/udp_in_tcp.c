/* udp_in_tcp.c - an association whose datagrams are frames of its own connection (`udp: over-tcp`; socks5_frames.c).
 *
 * How it works. The handshake's connection, inside TLS or at the end of a chain as it may be, becomes a stream; what comes is
 * taken apart, what goes is queued behind what the socket did not take. The queue is short: like any other it drops what does not
 * fit, since a datagram that is late is worth less than one that is lost. The association lives as long as the connection. */
#include "udp_impl.h"

enum { BATCH = 32, ROUNDS = 4 };

struct udp_tunnel {
    void *free_link; /* the slab's */
    struct up_stream *stream;
    struct socks5_frames frames;
};

size_t udp_tunnel_bytes(void)
{
    return sizeof(struct udp_tunnel);
}

/* ---- from the relay ---- */

/* Return: how many are in @batch; *whole: nothing is left; -EBADMSG */
static int take(struct up_udp *u, struct up_datagram batch[BATCH], bool *whole)
{
    struct socks5_address from;
    struct span data;
    int n = 0, r = 1;

    while (n < BATCH && (r = socks5_frames_next(&u->tunnel->frames, &from, &data)) == 1) {
        batch[n] = (struct up_datagram){ .data = data.data, .len = data.len };
        if (!from.name) /* with a name, the source is what was asked last (faults.md U9) */
            batch[n].source = from.ip;
        counter_add(&u->env->cnt.bytes_down, data.len);
        n++;
    }
    counter_add(&u->env->cnt.socks_udp_malformed, u->tunnel->frames.malformed);
    u->tunnel->frames.malformed = 0;
    *whole = r == 0;
    return r < 0 ? r : n;
}

/* All whole frames that have come. Return: the association is still there, and goes on */
static bool deliver(struct up_udp *u)
{
    struct up_env *env = u->env;
    const void *running = env->running;
    bool whole = false;

    while (!whole) {
        struct up_datagram batch[BATCH];
        int n = take(u, batch, &whole);

        if (n < 0) {
            udp_associate_died(u, "sends what are no frames, which ends");
            return false;
        }
        env->running = u;
        if (!udp_hand_on(u, batch, (size_t)n))
            return false;
        env->running = running;
    }
    return true;
}

static void on_readable(void *arg)
{
    struct up_udp *u = arg;

    for (int round = 0; round < ROUNDS; round++) {
        uint8_t *to;
        size_t room = socks5_frames_room(&u->tunnel->frames, &to);
        ssize_t n = up_stream_recv(u->tunnel->stream, to, room);

        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            udp_associate_died(u, n == 0 ? "closed" : "reset");
            return;
        }
        socks5_frames_received(&u->tunnel->frames, (size_t)n);
        if (!deliver(u) || (size_t)n < room)
            return;
    }
}

/* ---- to the relay ---- */

static void flush(struct up_udp *u)
{
    struct span out = socks5_frames_unsent(&u->tunnel->frames);
    struct iovec all = { (void *)(uintptr_t)out.data, out.len };
    ssize_t n = out.len > 0 ? up_stream_sendv(u->tunnel->stream, &all, 1) : 0;

    if (n > 0)
        socks5_frames_sent(&u->tunnel->frames, (size_t)n);
    out = socks5_frames_unsent(&u->tunnel->frames);
    up_stream_want(u->tunnel->stream, LOOP_READ | (out.len > 0 ? LOOP_WRITE : 0u));
}

static void on_writable(void *arg)
{
    flush(arg);
}

static void on_closed(void *arg, const struct up_failure *why)
{
    struct up_udp *u = arg;

    (void)why;
    u->tunnel->stream = NULL;
    udp_associate_died(u, "reset");
}

static const struct up_stream_events events = { NULL, on_readable, on_writable, on_closed };

int udp_tunnel_send(struct up_udp *u, const struct host_port *target, const struct up_row_out *o)
{
    struct host_port to;
    char name[256];

    if (udp_target(target, &to, name) != 0)
        return -EINVAL;
    for (size_t i = 0; i < o->ranges; i++) {
        const uint8_t *data = o->data[i].iov_base;
        size_t left = o->data[i].iov_len, size = o->gso_size > 0 ? o->gso_size : left;

        do { /* once for a datagram without data */
            size_t len = left < size ? left : size;
            bool sent = socks5_frames_add(&u->tunnel->frames, &to, data, len) == 0;

            counter_add(sent ? &u->env->cnt.datagrams_up : &u->env->cnt.datagrams_unsent, 1);
            counter_add(&u->env->cnt.bytes_up, sent ? len : 0);
            data += len;
            left -= len;
        } while (left > 0);
    }
    flush(u);
    return 0;
}

/* ---- life ---- */

int udp_tunnel_open(struct up_udp *u, const struct handshake_result *result)
{
    struct udp_tunnel *t = slab_get(&u->env->tunnels);
    int r = t ? stream_adopt(u->env, result, &events, u, &t->stream) : -ENOMEM;

    if (r == 0)
        u->tunnel = t;
    else
        slab_put(&u->env->tunnels, t);
    return r;
}

void udp_tunnel_close(struct up_udp *u)
{
    if (!u->tunnel)
        return;
    up_stream_close(u->tunnel->stream);
    slab_put(&u->env->tunnels, u->tunnel);
    u->tunnel = NULL;
}
