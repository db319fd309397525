/* guest_http1.c - a CONNECT of HTTP/1.1 on a connection of its own: read, judged, dialled, relayed (RFC 9110 section 9.3.6).
 * A connection serves one request: whatever is refused ends it, with `Connection: close`. */
#include "masque_impl.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

/* ---- the client's end of the relay ---- */

static struct guest *guest_of(struct relay *r)
{
    return CONTAINER_OF(r, struct guest, relay);
}

static ssize_t end_recv(struct relay *r, void *to, size_t len)
{
    return tls_recv(guest_of(r)->tls, to, len);
}

static ssize_t end_send(struct relay *r, const void *from, size_t len)
{
    return tls_sendv(guest_of(r)->tls, &(struct iovec){ (void *)(uintptr_t)from, len }, 1);
}

static void end_shut(struct relay *r)
{
    guest_of(r)->end_due = true;
    guest_update(guest_of(r));
}

static void end_want(struct relay *r, unsigned events)
{
    guest_of(r)->want = (uint8_t)events;
    guest_update(guest_of(r));
}

static bool end_is_sent(struct relay *r)
{
    struct guest *g = guest_of(r);
    int queued = 0;

    return !tls_unsent(g->tls) && (ioctl(loop_io_fd(&g->io), SIOCOUTQ, &queued) != 0 || queued == 0);
}

static void end_over(struct relay *r, bool reset)
{
    if (reset)
        guest_end(guest_of(r), true);
    else
        guest_linger(guest_of(r));
}

static bool end_is_broken(struct relay *r)
{
    return relay_socket_broken(loop_io_fd(&guest_of(r)->io));
}

static const struct relay_end client_end = { end_recv,    end_send,      end_shut, end_want,
                                             end_is_sent, end_is_broken, end_over };

/* ---- answers ---- */

static void refuse(struct guest *g, int status, int err)
{
    uint8_t bytes[HTTP_ANSWER_MAX];
    struct buf out;

    buf_init(&out, bytes, sizeof(bytes));
    http_put_answer(&out, status, err);
    if (guest_say(g, &out))
        guest_linger(g);
}

static void on_open(void *arg)
{
    struct guest *g = arg;
    struct masque *m = g->m;
    struct head *h = g->head;
    struct up_stream *up = g->up;
    uint8_t bytes[HTTP_ANSWER_MAX];
    struct buf out;

    buf_init(&out, bytes, sizeof(bytes));
    http_put_answer(&out, 200, 0);
    if (!guest_say(g, &out))
        return;
    MASQUE_COUNT(m, streams);
    g->state = GUEST_RELAY;
    g->up = NULL;
    g->head = NULL;
    g->relay.user = g->user;
    relay_start(&g->relay, &m->relays, &client_end, up, h->in, h->len);
    slab_put(&m->heads, h);
}

static void on_readable(void *arg)
{
    relay_on_up_readable(&((struct guest *)arg)->relay);
}

static void on_writable(void *arg)
{
    relay_on_up_writable(&((struct guest *)arg)->relay);
}

static void on_closed(void *arg, const struct up_failure *why)
{
    struct guest *g = arg;

    g->up = NULL;
    if (g->state != GUEST_OPENING) {
        relay_on_up_closed(&g->relay);
        return;
    }
    if (http_status_for(why->err) == 403)
        MASQUE_COUNT(g->m, denied);
    refuse(g, http_status_for(why->err), why->err);
}

static const struct up_stream_events up_events = { on_open, on_readable, on_writable, on_closed };

/* ---- the request ---- */

static void dial(struct guest *g, const struct http_request *q)
{
    struct masque *m = g->m;
    int r;

    if (!ledger_open_flow(g->user)) {
        MASQUE_COUNT(m, over_limit);
        refuse(g, 429, 0);
        return;
    }
    g->holds_flow = true;
    g->state = GUEST_OPENING;
    wheel_cancel(m->wheel, &g->deadline); /* the dial has one of its own */
    r = up_stream_open(m->env, m->direct, &q->target.to, (uint64_t)m->opt.connect_timeout_ms * 1000,
                       &up_events, g, &g->up);
    if (r != 0)
        refuse(g, http_status_for(r), r);
}

void http1_on_readable(struct guest *g)
{
    struct head *h = g->head;
    ssize_t n = tls_recv(g->tls, h->in + h->len, sizeof(h->in) - h->len);
    struct http_request q;
    int status;

    if (n == -EAGAIN)
        return;
    if (n <= 0) {
        guest_end(g, n < 0);
        return;
    }
    h->len += (size_t)n;
    status = http_request_read((struct span){ h->in, h->len }, &h->scanned, &q);
    if (status == 0)
        return;
    if (status != 200) {
        MASQUE_COUNT(g->m, bad_requests);
        refuse(g, status, 0);
        return;
    }
    if (!masque_login(g->m, q.authorization, &g->user)) {
        refuse(g, 407, 0);
        return;
    }
    dial(g, &q);
    if (g->m->running != g || g->state != GUEST_OPENING)
        return;
    h->len -= q.len; /* what follows belongs to the target */
    memmove(h->in, h->in + q.len, h->len);
}
