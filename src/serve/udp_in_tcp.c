/* udp_in_tcp.c - command 5: datagrams as frames of the client's connection (culvert/upstream.h, socks5_frames).
 *
 * Outwards it is as UDP ASSOCIATE: one DIRECT association, so every target sees the same port. What the client's socket does not
 * take is queued, and dropped when the queue is full. The connection's end is the association's. */
#include "serve_impl.h"

enum { ROUNDS = 4 };

struct tunnel {
    void *free_link; /* the slab's */
    struct conn *conn;
    struct up_udp *udp;
    struct socks5_frames frames;
};

size_t tunnel_bytes(void)
{
    return sizeof(struct tunnel);
}

void tunnel_close(struct tunnel *t)
{
    if (!t)
        return;
    up_udp_close(t->udp);
    t->conn->tunnel = NULL;
    slab_put(&t->conn->s->tunnels, t);
}

/* ---- from the client ---- */

static void send_out(struct tunnel *t, const struct socks5_address *a, const struct span *data)
{
    struct serve *s = t->conn->s;
    struct host_port to = { NULL, a->ip.addr, a->ip.port };
    char name[256];

    if (a->name) {
        memcpy(name, a->name, a->name_len);
        name[a->name_len] = '\0';
        to.name = name;
    }
    if ((a->name && (a->name_len == 0 || strlen(name) != a->name_len)) ||
        up_udp_send(t->udp, &to, data->data, data->len, 0, 0, 0) != 0)
        SERVE_COUNT(s, bad_requests);
    else
        SERVE_COUNT(s, datagrams_up);
}

/* Return: the connection goes on */
static bool take_frames(struct tunnel *t)
{
    struct socks5_address a;
    struct span data;
    int r;

    while ((r = socks5_frames_next(&t->frames, &a, &data)) == 1)
        send_out(t, &a, &data);
    counter_add(&t->conn->s->cnt.bad_requests, t->frames.malformed);
    t->frames.malformed = 0;
    if (r == 0)
        return true;
    SERVE_COUNT(t->conn->s, bad_requests);
    conn_end(t->conn, true);
    return false;
}

static void flush(struct tunnel *t)
{
    struct conn *c = t->conn;
    struct span out = socks5_frames_unsent(&t->frames);
    ssize_t n = out.len > 0 ? send(loop_io_fd(&c->io), out.data, out.len, MSG_NOSIGNAL) : 0;

    if (n > 0) /* an error is the next recv's to tell */
        socks5_frames_sent(&t->frames, (size_t)n);
    out = socks5_frames_unsent(&t->frames);
    loop_io_set(c->s->loop, &c->io, LOOP_READ | (out.len > 0 ? LOOP_WRITE : 0u));
}

void tunnel_on_client(struct tunnel *t, unsigned events)
{
    struct conn *c = t->conn;

    if ((events & LOOP_WRITE) != 0)
        flush(t);
    for (int round = 0; round < ROUNDS && (events & LOOP_READ) != 0; round++) {
        uint8_t *to;
        size_t room = socks5_frames_room(&t->frames, &to);
        ssize_t n = recv(loop_io_fd(&c->io), to, room, 0);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            conn_end(c, n < 0);
            return;
        }
        socks5_frames_received(&t->frames, (size_t)n);
        if (!take_frames(t) || (size_t)n < room)
            return;
    }
}

/* ---- from the world ---- */

static void on_datagrams(void *arg, const struct up_datagram *d, size_t n)
{
    struct tunnel *t = arg;

    if (t->conn->state != CONN_UDP)
        return;
    for (size_t i = 0; i < n; i++) {
        struct host_port from = { NULL, d[i].source.addr, d[i].source.port };

        if (socks5_frames_add(&t->frames, &from, d[i].data, d[i].len) == 0)
            SERVE_COUNT(t->conn->s, datagrams_down);
    }
    flush(t);
}

static void on_open(void *arg)
{
    struct tunnel *t = arg;
    struct conn *c = t->conn;
    struct hello *h = c->hello;
    uint8_t *to;

    if (!conn_reply(c, REPLY_OK, NULL))
        return;
    SERVE_COUNT(c->s, udp_associations);
    wheel_cancel(c->s->wheel, &c->timer);
    c->state = CONN_UDP;
    if (h->in_len <= socks5_frames_room(&t->frames, &to)) { /* always: what came with the request */
        memcpy(to, h->in, h->in_len);
        socks5_frames_received(&t->frames, h->in_len);
    }
    slab_put(&c->s->hellos, h);
    c->hello = NULL;
    loop_io_set(c->s->loop, &c->io, LOOP_READ);
    (void)take_frames(t);
}

static void on_closed(void *arg, const struct up_failure *why)
{
    struct tunnel *t = arg;

    (void)why;
    t->udp = NULL;
    conn_end(t->conn, true);
}

static const struct up_udp_events events = { .on_open = on_open,
                                             .on_datagrams = on_datagrams,
                                             .on_closed = on_closed };

int tunnel_open(struct conn *c)
{
    struct serve *s = c->s;
    struct tunnel *t = slab_get(&s->tunnels);
    int r;

    if (!t)
        return -ENOMEM;
    t->conn = c;
    c->tunnel = t;
    r = up_udp_open(s->env, s->direct, (uint64_t)s->opt.connect_timeout_ms * 1000, &events, t, &t->udp);
    if (r != 0)
        tunnel_close(t);
    return r == -EOPNOTSUPP ? -EIO : r;
}
