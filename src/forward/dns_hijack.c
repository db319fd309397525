/* dns_hijack.c - DNS that is answered here, whomever the client asked (config.md dns.hijack): by datagram and over TCP.
 *
 * Over TCP (RFC 7766): messages follow each other, answers leave in the order in which they are ready. At most PENDING_MAX
 * questions of a connection are open and OUT_MAX bytes of answers wait; more are not read until then, so TCP holds the
 * client back. One client has room for half of a worker's connections. An answer that the connection's window does not take
 * waits in memory of its own: up to 64 KiB, off any bulk path. */
#include <stdlib.h>

#include "forward_impl.h"

#define PENDING_MAX   16
#define OUT_MAX       131072
#define SESSIONS_MAX  1024 /* connections of a worker */
#define SESSIONS_EACH (SESSIONS_MAX / 2)
#define QUERY_MAX     1024 /* a question has at most 300 bytes, with options that nobody needs a few more */

bool dns_hijacked(const struct forward *f, const struct ip_port *target, bool tcp)
{
    if (!f->dns_settings || f->dns_settings->mode == DNS_MODE_OFF)
        return false;
    for (size_t i = 0; i < f->dns_settings->hijacks; i++) {
        const struct dns_hijack *h = &f->dns_settings->hijack[i];

        if (h->tcp == tcp && h->to.port == target->port &&
            (ip_is_none(&h->to.addr) || ip_equal(&h->to.addr, &target->addr)))
            return true;
    }
    return false;
}

/* ---- datagrams --------------------------------------------------------------------------------------------------------- */

static void pending_free(struct dns_pending *p)
{
    struct dns_pending **at = &p->flow->asked;

    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    slab_put(&p->flow->f->pending, p);
}

static void on_reply(void *arg, const uint8_t *message, size_t len)
{
    struct dns_pending *p = arg;
    struct udp_flow *u = p->flow;
    struct iovec iov = { (void *)(uintptr_t)message, len };

    u->active_ms = forward_now_ms(u->f);
    if (message)
        udp_flow_reply(u, &p->shown, &iov, 1, 0);
    pending_free(p);
}

void dns_hijack_ask(struct udp_flow *u, const struct ip_port *shown, const uint8_t *message, size_t len)
{
    struct dns_pending *p = slab_get(&u->f->pending);
    struct dns_ask *ask;

    if (!p)
        return; /* the client's resolver repeats it */
    p->flow = u;
    p->shown = *shown;
    p->next = u->asked;
    u->asked = p;
    if (dns_service_ask(u->f->dns, &u->client.addr, message, len, false, on_reply, p, &ask) != 0)
        pending_free(p);
    else if (ask)
        p->ask = ask;
}

void dns_hijack_cancel(struct udp_flow *u)
{
    while (u->asked) {
        dns_service_cancel(u->asked->ask);
        pending_free(u->asked);
    }
}

/* ---- TCP ------------------------------------------------------------------------------------------------------------------ */

struct answer { /* it waits for room in the connection */
    struct answer *next;
    size_t len, sent;
    uint8_t bytes[]; /* length and message */
};

struct question {
    struct dns_session *session; /* NULL: free */
    struct dns_ask *ask;
};

struct dns_session {
    void *free_link;
    struct tcp_flow *flow;
    struct question questions[PENDING_MAX];
    unsigned open;
    bool eof, shut; /* the client's end; ours */
    bool running;   /* take_messages() is at it */
    size_t out_bytes, in_len;
    struct answer *first, *last;
    uint8_t in[2 + QUERY_MAX];
};

int dns_sessions_init(struct slab *s)
{
    return slab_init(s, sizeof(struct dns_session), SESSIONS_MAX);
}

struct dns_session *dns_session_new(struct tcp_flow *t)
{
    struct forward *f = t->ways->f;
    struct dns_session *s = t->source->sessions < SESSIONS_EACH ? slab_get(&f->sessions) : NULL;

    if (!s) {
        FCOUNT(f, limit_dns);
        return NULL;
    }
    s->flow = t;
    t->source->sessions++;
    return s;
}

void dns_session_free(struct dns_session *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < PENDING_MAX; i++)
        if (s->questions[i].session)
            dns_service_cancel(s->questions[i].ask);
    while (s->first) {
        struct answer *a = s->first;

        s->first = a->next;
        free(a);
    }
    s->flow->source->sessions--;
    slab_put(&s->flow->ways->f->sessions, s);
}

static void finish(struct dns_session *s)
{
    if (s->eof && !s->shut && s->open == 0 && !s->first) {
        s->shut = true;
        tcp_shutdown(s->flow->conn);
    }
}

static void send_answers(struct dns_session *s)
{
    while (s->first) {
        struct answer *a = s->first;
        uint8_t *to;
        size_t room = tcp_tx_space(s->flow->conn, &to), n = a->len - a->sent;

        if (room == 0)
            return;
        if (n > room)
            n = room;
        memcpy(to, a->bytes + a->sent, n);
        tcp_tx_commit(s->flow->conn, n);
        a->sent += n;
        if (a->sent < a->len)
            continue;
        s->first = a->next;
        s->out_bytes -= a->len;
        free(a);
    }
    finish(s);
}

static void queue(struct dns_session *s, const uint8_t *message, size_t len)
{
    struct answer *a = malloc(sizeof(*a) + 2 + len);

    if (!a)
        return; /* the client asks again */
    *a = (struct answer){ .len = 2 + len };
    put_be16(a->bytes, (uint16_t)len);
    memcpy(a->bytes + 2, message, len);
    if (s->first)
        s->last->next = a;
    else
        s->first = a;
    s->last = a;
    s->out_bytes += a->len;
}

static void on_answer(void *arg, const uint8_t *message, size_t len)
{
    struct question *q = arg;
    struct dns_session *s = q->session;

    q->session = NULL;
    q->ask = NULL;
    s->open--;
    s->flow->active_ms = forward_now_ms(s->flow->ways->f);
    if (message)
        queue(s, message, len);
    send_answers(s);
    if (!s->running)
        dns_session_on_readable(s);
}

static void ask(struct dns_session *s, const uint8_t *message, size_t len)
{
    struct question *q = s->questions;
    struct dns_ask *open;
    struct flow_key key;

    while (q->session)
        q++;
    q->session = s;
    s->open++;
    tcp_flow_key(s->flow, &key);
    if (dns_service_ask(s->flow->ways->f->dns, &key.client, message, len, true, on_answer, q, &open) == 0) {
        if (open)
            q->ask = open;
        return;
    }
    q->session = NULL;
    s->open--;
}

/* Fills `in` from the connection. Return: something came. */
static bool fill(struct dns_session *s)
{
    struct iovec iov;
    size_t n;

    if (s->in_len == sizeof(s->in) || tcp_peek(s->flow->conn, &iov, 1) < 1)
        return false;
    n = iov.iov_len < sizeof(s->in) - s->in_len ? iov.iov_len : sizeof(s->in) - s->in_len;
    memcpy(s->in + s->in_len, iov.iov_base, n);
    s->in_len += n;
    tcp_consume(s->flow->conn, n);
    return true;
}

/* Return: false: what comes is no question of DNS (faults.md D5). */
static bool take_messages(struct dns_session *s)
{
    while (s->open < PENDING_MAX && s->out_bytes < OUT_MAX) {
        size_t len = s->in_len < 2 ? 0 : get_be16(s->in);

        if (s->in_len >= 2 && (len < DNS_HEADER_LEN || len > QUERY_MAX))
            return false;
        if (s->in_len < 2 || s->in_len < 2 + len) {
            if (!fill(s))
                return true;
            continue;
        }
        ask(s, s->in + 2, len);
        s->in_len -= 2 + len;
        memmove(s->in, s->in + 2 + len, s->in_len);
    }
    return true;
}

void dns_session_on_readable(struct dns_session *s)
{
    bool well;

    s->running = true;
    well = take_messages(s);
    s->running = false;
    if (!well) {
        tcp_abort(s->flow->conn);
        return;
    }
    if (tcp_at_eof(s->flow->conn))
        s->eof = true;
    finish(s);
}

void dns_session_on_writable(struct dns_session *s)
{
    send_answers(s);
    dns_session_on_readable(s);
}

void dns_session_idle(struct dns_session *s)
{
    s->eof = true;
    finish(s);
}
