/* dns_flow.c - DNS datagrams over TCP, for a way out that carries no UDP (RFC 1035 section 4.2.2; config.md proxies[].udp).
 * One stream for each question: the client's resolver sees a datagram go out and one come back, as ever. It lives as long as a
 * DNS flow that nothing happens on: a client port that goes on asking keeps its flow, and without a time-out of their own
 * a silent server would soon hold all the questions that there is room for. One client has room for half of them. */
#include "forward_impl.h"

#define QUERIES_MAX  1024 /* of a worker */
#define QUERIES_EACH (QUERIES_MAX / 2)

int dns_queries_init(struct slab *s)
{
    return slab_init(s, sizeof(struct dns_carried), QUERIES_MAX);
}

static void query_free(struct dns_carried *q)
{
    struct udp_flow *u = q->flow;
    struct dns_carried **at;

    for (at = &u->queries; *at != q; at = &(*at)->next)
        ;
    *at = q->next;
    u->source->queries--;
    wheel_cancel(u->f->wheel, &q->timer);
    slab_put(&u->f->queries, q);
}

static void query_end(struct dns_carried *q)
{
    up_stream_close(q->up);
    query_free(q);
}

static void query_push(struct dns_carried *q)
{
    size_t total = 2u + q->message_len;

    while (q->sent < total) {
        struct iovec iov = { q->buf + q->sent, total - q->sent };
        ssize_t n = up_stream_sendv(q->up, &iov, 1);

        if (n == -EAGAIN) {
            up_stream_want(q->up, LOOP_READ | LOOP_WRITE);
            return;
        }
        if (n < 0) {
            query_end(q);
            return;
        }
        q->sent = (uint16_t)(q->sent + n);
    }
    up_stream_want(q->up, LOOP_READ);
}

static void on_open(void *arg)
{
    query_push(arg);
}

static void on_writable(void *arg)
{
    query_push(arg);
}

/* The answer counts as the datagram that it becomes. */
static bool in_time(const struct dns_carried *q, size_t bytes)
{
    const struct udp_flow *u = q->flow;

    if (!rates_on(u->f) ||
        rate_pass(u->f, u->source, rate_of(u->f, u->ways->target[q->target], up_stream_way(q->up)), RATE_DOWN,
                  bytes))
        return true;
    FCOUNT(u->f, rate_dropped);
    return false;
}

static void on_readable(void *arg)
{
    struct dns_carried *q = arg;
    ssize_t n;

    if (q->sent < 2u + q->message_len) /* an answer to half a question is none */
        return;
    while ((n = up_stream_recv(q->up, q->buf + q->got, sizeof(q->buf) - q->got)) > 0) {
        uint16_t len;

        q->got = (uint16_t)(q->got + n);
        if (q->got < 2)
            continue;
        len = get_be16(q->buf);
        if (len < 12 || len > sizeof(q->buf) - 2)
            break; /* no DNS header, or more than a datagram's reader takes: the client asks again */
        if (q->got >= 2u + len) {
            struct iovec iov = { q->buf + 2, len };

            q->flow->active_ms = forward_now_ms(q->flow->f);
            if (in_time(q, len))
                udp_flow_reply(q->flow, &q->shown, &iov, 1, 0);
            break;
        }
    }
    if (n != -EAGAIN)
        query_end(q);
}

static void on_closed(void *arg, const struct up_failure *why)
{
    (void)why; /* a lost question: the client's resolver repeats it */
    query_free(arg);
}

static const struct up_stream_events query_events = { on_open, on_readable, on_writable, on_closed };

static void on_timer(struct wheel_timer *t, uint64_t now_us)
{
    (void)now_us;
    query_end(CONTAINER_OF(t, struct dns_carried, timer));
}

void dns_flow_ask(struct udp_flow *u, uint16_t target, const struct host_port *server,
                  const struct ip_port *shown, const uint8_t *message, size_t len)
{
    struct forward *f = u->f;
    struct dns_carried *q;

    if (len < 12 || len > sizeof(q->buf) - 2)
        return;
    if (u->source->queries >= QUERIES_EACH || !(q = slab_get(&f->queries))) {
        FCOUNT(f, limit_dns);
        return;
    }
    q->flow = u;
    q->target = target;
    q->shown = *shown;
    q->message_len = (uint16_t)len;
    put_be16(q->buf, (uint16_t)len);
    memcpy(q->buf + 2, message, len);
    if (up_stream_open(f->env, u->ways->target[target], server, (uint64_t)f->opt.connect_timeout_ms * 1000,
                       &query_events, q, &q->up) != 0) {
        slab_put(&f->queries, q);
        return;
    }
    q->timer.fn = on_timer;
    wheel_set(f->wheel, &q->timer, loop_now_us(f->loop) + (uint64_t)f->opt.dns_idle_timeout_ms * 1000);
    q->next = u->queries;
    u->queries = q;
    u->source->queries++;
    FCOUNT(f, dns_over_tcp);
}

void dns_flow_cancel(struct udp_flow *u)
{
    while (u->queries)
        query_end(u->queries);
}
