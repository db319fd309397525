/* conn.c - a client's connection until its request is answered, and its end.
 *
 * How it works. Bytes are collected in a `hello`, at most 1 KiB; server_step() reads them and says what to answer. CONNECT
 * dials through upstream's DIRECT, ASSOCIATE makes a relay; the reply goes out when they are ready, and the hello is given
 * back. The whole handshake has the deadline of a dial.
 *
 * Our last words (a refusal) must arrive: closing a socket with unread bytes would reset it and may take them along, so we end
 * our direction and read on until the client hangs up, 2 s at the most. */
#include "serve_impl.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#define LINGER_US UINT64_C(2000000)

static void on_client(struct loop_io *io, unsigned events);
static void on_timer(struct wheel_timer *t, uint64_t now_us);

/* ---- the end ---- */

static void drop_hello(struct conn *c)
{
    slab_put(&c->s->hellos, c->hello); /* which clears it: it may hold a password */
    c->hello = NULL;
}

void conn_end(struct conn *c, bool reset)
{
    struct serve *s = c->s;
    int fd = loop_io_fd(&c->io);

    wheel_cancel(s->wheel, &c->timer);
    if (reset)
        up_stream_reset(c->up);
    else
        up_stream_close(c->up);
    relay_stop(&c->relay, reset);
    if (c->holds_flow)
        ledger_close_flow(c->user);
    associate_close(c->associate);
    tunnel_close(c->tunnel);
    drop_hello(c);
    serve_access_free(c->access);
    loop_io_stop(s->loop, &c->io);
    if (reset) {
        struct linger now = { .l_onoff = 1, .l_linger = 0 };

        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    close(fd);
    *c->at = c->next;
    if (c->next)
        c->next->at = c->at;
    slab_put(&s->conns, c);
}

void conn_linger(struct conn *c)
{
    c->state = CONN_LINGER;
    drop_hello(c);
    (void)shutdown(loop_io_fd(&c->io), SHUT_WR);
    loop_io_set(c->s->loop, &c->io, LOOP_READ);
    wheel_set(c->s->wheel, &c->timer, loop_now_us(c->s->loop) + LINGER_US);
}

static void read_away(struct conn *c)
{
    uint8_t away[4096];

    for (;;) {
        ssize_t n = recv(loop_io_fd(&c->io), away, sizeof(away), 0);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            conn_end(c, false);
            return;
        }
    }
}

/* ---- answers ---- */

/* A few bytes into an empty socket: they fit, or the client is gone. */
static bool say(struct conn *c, const struct buf *out)
{
    if (out->len == 0)
        return true;
    if (send(loop_io_fd(&c->io), out->data, out->len, MSG_NOSIGNAL) == (ssize_t)out->len)
        return true;
    conn_end(c, true);
    return false;
}

bool conn_reply(struct conn *c, enum server_reply code, const struct ip_port *bound)
{
    uint8_t bytes[SERVER_OUT_MAX];
    struct buf out;

    buf_init(&out, bytes, sizeof(bytes));
    server_put_reply(&out, code, bound);
    if (!say(c, &out))
        return false;
    if (code != REPLY_OK) {
        conn_linger(c);
        return false;
    }
    return true;
}

/* ---- dialling ---- */

static ssize_t end_recv(struct relay *r, void *to, size_t len)
{
    ssize_t n = recv(loop_io_fd(&CONTAINER_OF(r, struct conn, relay)->io), to, len, 0);

    return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

static ssize_t end_send(struct relay *r, const void *from, size_t len)
{
    ssize_t n = send(loop_io_fd(&CONTAINER_OF(r, struct conn, relay)->io), from, len, MSG_NOSIGNAL);

    return n >= 0 ? n : errno == EINTR || errno == ENOBUFS || errno == ENOMEM ? -EAGAIN : -errno;
}

static void end_shut(struct relay *r)
{
    (void)shutdown(loop_io_fd(&CONTAINER_OF(r, struct conn, relay)->io), SHUT_WR);
}

static void end_want(struct relay *r, unsigned events)
{
    loop_io_set(r->all->loop, &CONTAINER_OF(r, struct conn, relay)->io, events);
}

static bool end_is_sent(struct relay *r)
{
    int queued = 0;

    return ioctl(loop_io_fd(&CONTAINER_OF(r, struct conn, relay)->io), SIOCOUTQ, &queued) != 0 || queued == 0;
}

static void end_over(struct relay *r, bool reset)
{
    conn_end(CONTAINER_OF(r, struct conn, relay), reset);
}

static bool end_is_broken(struct relay *r)
{
    return relay_socket_broken(loop_io_fd(&CONTAINER_OF(r, struct conn, relay)->io));
}

static const struct relay_end client_end = { end_recv,    end_send,      end_shut, end_want,
                                             end_is_sent, end_is_broken, end_over };

static void on_open(void *arg)
{
    struct conn *c = arg;
    struct up_stream *up = c->up;
    uint8_t early[SERVER_IN_MAX];
    size_t len = c->hello->in_len;

    if (!conn_reply(c, REPLY_OK, NULL))
        return;
    memcpy(early, c->hello->in, len);
    drop_hello(c);
    c->state = CONN_RELAY;
    c->up = NULL;
    c->relay.user = c->user;
    SERVE_COUNT(c->s, streams);
    relay_start(&c->relay, &c->s->relays, &client_end, up, early, len);
}

static void on_readable(void *arg)
{
    relay_on_up_readable(&((struct conn *)arg)->relay);
}

static void on_writable(void *arg)
{
    relay_on_up_writable(&((struct conn *)arg)->relay);
}

static void on_closed(void *arg, const struct up_failure *why)
{
    struct conn *c = arg;

    c->up = NULL;
    if (c->state == CONN_OPENING)
        (void)conn_reply(c, server_reply_for(why->err), NULL);
    else
        relay_on_up_closed(&c->relay);
}

static const struct up_stream_events up_events = { on_open, on_readable, on_writable, on_closed };

static void start_request(struct conn *c)
{
    struct socks5_server *server = &c->hello->server;
    int r;

    c->user = ledger_user(c->access->ledger, (size_t)server->user);
    c->holds_flow = ledger_open_flow(c->user);
    if (!c->holds_flow) {
        (void)conn_reply(c, REPLY_NOT_ALLOWED, NULL);
        return;
    }
    c->state = CONN_OPENING;
    wheel_cancel(c->s->wheel, &c->timer); /* the dial has a deadline of its own */
    if (server->command == SERVER_CONNECT)
        r = up_stream_open(c->s->env, c->s->direct, &server->target,
                           (uint64_t)c->s->opt.connect_timeout_ms * 1000, &up_events, c, &c->up);
    else
        r = !c->s->opt.udp                        ? -EOPNOTSUPP
            : server->command == SERVER_ASSOCIATE ? associate_open(c)
                                                  : tunnel_open(c);
    if (r == -EOPNOTSUPP)
        (void)conn_reply(c, REPLY_NO_COMMAND, NULL);
    else if (r != 0)
        (void)conn_reply(c, server_reply_for(r), NULL);
}

/* ---- the handshake ---- */

static void give_up(struct conn *c)
{
    if (c->hello->server.login_failed)
        SERVE_COUNT(c->s, login_failed);
    else
        SERVE_COUNT(c->s, bad_requests);
    conn_linger(c);
}

/* What the client has said so far, as far as it goes. */
static void run_steps(struct conn *c)
{
    struct hello *h = c->hello;

    for (;;) {
        struct span in = { h->in, h->in_len };
        uint8_t bytes[SERVER_OUT_MAX];
        struct buf out;
        enum server_step step;

        buf_init(&out, bytes, sizeof(bytes));
        step = server_step(&h->server, &in, &out);
        memmove(h->in, in.data, in.len);
        h->in_len = in.len;
        if (!say(c, &out))
            return;
        switch (step) {
        case SERVER_AGAIN:
            continue;
        case SERVER_NEED_INPUT:
            return;
        case SERVER_ASKED:
            start_request(c);
            return;
        case SERVER_GIVE_UP:
            give_up(c);
            return;
        }
    }
}

static void read_hello(struct conn *c)
{
    struct hello *h = c->hello;
    ssize_t n = recv(loop_io_fd(&c->io), h->in + h->in_len, sizeof(h->in) - h->in_len, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) { /* also when a message does not fit, which cannot be: recv of no bytes is 0 */
        conn_end(c, n < 0);
        return;
    }
    h->in_len += (size_t)n;
    run_steps(c);
}

/* While we dial: a client that goes away ends the dial; one that already sends lets its bytes wait in its socket. */
static void look_for_end(struct conn *c)
{
    uint8_t byte;
    ssize_t n = recv(loop_io_fd(&c->io), &byte, 1, MSG_PEEK);

    if (n > 0)
        loop_io_set(c->s->loop, &c->io, 0);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        conn_end(c, true);
}

static void on_client(struct loop_io *io, unsigned events)
{
    struct conn *c = CONTAINER_OF(io, struct conn, io);

    switch ((enum conn_state)c->state) {
    case CONN_HANDSHAKE:
        read_hello(c);
        return;
    case CONN_OPENING:
        look_for_end(c);
        return;
    case CONN_RELAY:
        relay_on_client(&c->relay, events);
        return;
    case CONN_UDP: /* whatever it says, an association ends with its connection */
        if (c->tunnel) {
            tunnel_on_client(c->tunnel, events);
            return;
        }
        read_away(c);
        return;
    case CONN_LINGER:
        read_away(c);
        return;
    }
}

static void on_timer(struct wheel_timer *t, uint64_t now_us)
{
    struct conn *c = CONTAINER_OF(t, struct conn, timer);

    (void)now_us;
    conn_end(c, c->state == CONN_LINGER);
}

int conn_new(struct serve *s, int fd)
{
    struct conn *c = slab_get(&s->conns);
    struct hello *h = c ? slab_get(&s->hellos) : NULL;

    if (!h) {
        slab_put(&s->conns, c);
        return -ENOMEM;
    }
    c->s = s;
    c->hello = h;
    c->timer.fn = on_timer;
    c->access = serve_access_ref(s->access);
    server_init(&h->server, c->access->users, c->access->user_count);
    c->next = s->all;
    c->at = &s->all;
    if (c->next)
        c->next->at = &c->next;
    s->all = c;
    wheel_set(s->wheel, &c->timer, loop_now_us(s->loop) + (uint64_t)s->opt.connect_timeout_ms * 1000);
    loop_io_start(s->loop, &c->io, fd, LOOP_READ, on_client);
    return 0;
}
