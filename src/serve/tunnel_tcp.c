/* tunnel_tcp.c - CONNECT by HTTP/2: one stream is one TCP connection (RFC 9113 section 8.5).
 *
 * END_STREAM is a FIN and RST_STREAM is an RST, both ways. The stream's window opens again as the target takes what came; what
 * the target sends is read while the stream has room: that is the back-pressure, and relay.c does not know it from a socket's. */
#include "masque_impl.h"

static struct tunnel *tunnel_of(struct relay *r)
{
    return CONTAINER_OF(r, struct tunnel, relay);
}

static ssize_t end_recv(struct relay *r, void *to, size_t len)
{
    return h2_recv(tunnel_of(r)->stream, to, len);
}

static ssize_t end_send(struct relay *r, const void *from, size_t len)
{
    return h2_sendv(tunnel_of(r)->stream, &(struct iovec){ (void *)(uintptr_t)from, len }, 1);
}

static void end_shut(struct relay *r)
{
    h2_shutdown(tunnel_of(r)->stream);
}

static void end_want(struct relay *r, unsigned events)
{
    h2_want(tunnel_of(r)->stream, events);
}

static bool end_is_sent(struct relay *r)
{
    return !h2_unsent(tunnel_of(r)->stream);
}

static void end_over(struct relay *r, bool reset)
{
    tunnel_end(tunnel_of(r), reset ? H2_CONNECT_ERROR : H2_NO_ERROR);
}

/* A stream's reset comes by a frame, which is read at all times. */
static const struct relay_end client_end = { end_recv,    end_send, end_shut, end_want,
                                             end_is_sent, NULL,     end_over };

/* ---- the target ---- */

static void on_open(void *arg)
{
    struct tunnel *t = arg;
    struct up_stream *up = t->up;

    t->up = NULL;
    MASQUE_COUNT(t->g->m, streams);
    tunnel_answer(t, 200, 0, false);
    t->relay.user = t->user;
    relay_start(&t->relay, &t->g->m->relays, &client_end, up, NULL, 0);
}

static void on_up_readable(void *arg)
{
    relay_on_up_readable(&((struct tunnel *)arg)->relay);
}

static void on_up_writable(void *arg)
{
    relay_on_up_writable(&((struct tunnel *)arg)->relay);
}

static void on_up_closed(void *arg, const struct up_failure *why)
{
    struct tunnel *t = arg;

    t->up = NULL;
    if (t->is_open)
        relay_on_up_closed(&t->relay);
    else
        tunnel_refuse(t, (unsigned)http_status_for(why->err), why->err);
}

static const struct up_stream_events up_events = { on_open, on_up_readable, on_up_writable, on_up_closed };

void tunnel_tcp_open(struct tunnel *t, const struct host_port *to)
{
    struct masque *m = t->g->m;
    int r = up_stream_open(m->env, m->direct, to, (uint64_t)m->opt.connect_timeout_ms * 1000, &up_events, t,
                           &t->up);

    if (r != 0)
        tunnel_refuse(t, (unsigned)http_status_for(r), r);
}

void tunnel_tcp_release(struct tunnel *t)
{
    up_stream_reset(t->up);
    t->up = NULL;
    relay_stop(&t->relay, true);
}

/* ---- the stream ---- */

static void on_readable(void *arg)
{
    relay_on_client(&((struct tunnel *)arg)->relay, LOOP_READ);
}

static void on_writable(void *arg)
{
    relay_on_client(&((struct tunnel *)arg)->relay, LOOP_WRITE);
}

const struct h2_stream_events tunnel_tcp_events = { .on_readable = on_readable,
                                                    .on_writable = on_writable,
                                                    .on_closed = tunnel_on_closed };
