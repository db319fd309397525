/* guest_http2.c - a connection of HTTP/2: its requests are judged here and become tunnels (RFC 9113 section 8.5, RFC 8441).
 *
 * What always holds. A tunnel belongs to its connection and to its stream: whichever ends first ends the other's part. A
 * connection whose client has not logged in with a request within a minute is ended. */
#include "masque_impl.h"

#define SILENT_US UINT64_C(60000000)

enum {
    STREAMS_MAX = 1000, /* of one connection */
    KEEP_ALIVE_MS = 30000,
    FIELDS_MAX = 4,
    CAPSULES = 64, /* of one event */
};

/* ---- answers ---- */

void tunnel_answer(struct tunnel *t, unsigned status, int err, bool capsules)
{
    struct h2_field fields[FIELDS_MAX];
    struct h2_head head = { .status = status, .fields = fields, .end = status != 200 };
    char why[80];

    if (status == 407)
        fields[head.field_count++] = (struct h2_field){ "proxy-authenticate", HTTP_CHALLENGE };
    if (capsules) /* RFC 9297 section 3.4 */
        fields[head.field_count++] = (struct h2_field){ "capsule-protocol", "?1" };
    if (err != 0) {
        snprintf(why, sizeof(why), "culvert; error=%s", http_proxy_error(err));
        fields[head.field_count++] = (struct h2_field){ "proxy-status", why };
    }
    t->is_open = status == 200;
    (void)h2_respond(t->stream, &head);
}

/* ---- life ---- */

static void release(struct tunnel *t)
{
    switch ((enum tunnel_kind)t->kind) {
    case TUNNEL_TCP:
        tunnel_tcp_release(t);
        return;
    case TUNNEL_UDP:
        tunnel_udp_release(t);
        return;
    case TUNNEL_ECHO:
        tunnel_echo_release(t);
        return;
    }
}

void tunnel_drop(struct tunnel *t)
{
    release(t);
    wheel_cancel(t->g->m->wheel, &t->goodbye);
    ledger_close_flow(t->user);
    *t->at = t->next;
    if (t->next)
        t->next->at = t->at;
    slab_put(&t->g->m->tunnels, t);
}

void tunnel_end(struct tunnel *t, enum h2_code code)
{
    struct h2_stream *s = t->stream;

    tunnel_drop(t);
    h2_stream_close(s, code);
}

void tunnel_on_closed(void *tunnel, int err, uint32_t code)
{
    (void)err, (void)code;
    tunnel_drop(tunnel);
}

void tunnel_read_capsules(struct tunnel *t, void (*take)(struct tunnel *t, const struct capsule *c))
{
    for (int i = 0; i < CAPSULES; i++) {
        struct capsule c;
        int r = h2_capsule_recv(t->stream, t->g->m->datagram, H2_DATAGRAM_MAX, &c);

        if (r == -EAGAIN)
            return;
        if (r <= 0) {
            h2_shutdown(t->stream);
            tunnel_end(t, r == 0 ? H2_NO_ERROR : H2_PROTOCOL_ERROR);
            return;
        }
        take(t, &c);
    }
}

static void on_goodbye(struct wheel_timer *timer, uint64_t now_us)
{
    (void)now_us;
    tunnel_end(CONTAINER_OF(timer, struct tunnel, goodbye), H2_NO_ERROR);
}

/* The stream is closed when the answer has left: an RST_STREAM would overtake it. */
void tunnel_refuse(struct tunnel *t, unsigned status, int err)
{
    struct masque *m = t->g->m;

    if (status == 403)
        MASQUE_COUNT(m, denied);
    tunnel_answer(t, status, err, false);
    release(t);
    t->goodbye.fn = on_goodbye;
    wheel_set(m->wheel, &t->goodbye, loop_now_us(m->loop));
}

/* ---- requests ---- */

struct ask { /* what a request is about */
    enum tunnel_kind kind;
    struct http_target target;
    int proto;
    unsigned status; /* 0, or how it is refused */
};

static void read_tcp(const struct h2_head *head, struct ask *q)
{
    struct span authority = { (const uint8_t *)head->authority,
                              head->authority ? strlen(head->authority) : 0 };

    q->kind = TUNNEL_TCP;
    q->status = http_read_authority(authority, &q->target) ? 0 : 400;
}

static void read_ip(const struct h2_head *head, struct ask *q)
{
    char target[256];

    q->kind = TUNNEL_ECHO;
    if (!head->path || masque_ip_path_get(head->path, target, &q->proto) != 0)
        q->status = 400;
    else if (strcmp(target, "*") != 0 || (q->proto != IP_PROTO_ICMP && q->proto != IP_PROTO_ICMPV6))
        q->status = 501; /* whole networks and other protocols: not here */
}

static void read_ask(const struct h2_head *head, struct ask *q)
{
    *q = (struct ask){ .kind = TUNNEL_UDP };
    if (!head->method || strcmp(head->method, "CONNECT") != 0)
        q->status = 405;
    else if (!head->protocol)
        read_tcp(head, q);
    else if (strcmp(head->protocol, "connect-udp") == 0)
        q->status =
            head->path && masque_udp_path_get(head->path, q->target.name, &q->target.to) == 0 ? 0 : 400;
    else if (strcmp(head->protocol, "connect-ip") == 0)
        read_ip(head, q);
    else
        q->status = 501; /* RFC 9220 section 3 */
}

static struct span login_of(const struct h2_head *head)
{
    const char *value = h2_field(head, "proxy-authorization");

    if (!value && head->protocol) /* a client may see the proxy as the resource that it asks for */
        value = h2_field(head, "authorization");
    return (struct span){ (const uint8_t *)value, value ? strlen(value) : 0 };
}

/* An answer to a request that becomes no tunnel. */
static void turn_away(struct guest *g, struct h2_stream *s, unsigned status)
{
    struct tunnel t = { .g = g, .stream = s };

    tunnel_answer(&t, status, 0, false);
}

static struct tunnel *tunnel_new(struct guest *g, struct h2_stream *s, struct ledger_user *user,
                                 enum tunnel_kind kind)
{
    static const struct h2_stream_events *const events[] = { &tunnel_tcp_events, &tunnel_udp_events,
                                                             &tunnel_echo_events };
    struct tunnel *t = slab_get(&g->m->tunnels);

    if (!t)
        return NULL;
    t->g = g;
    t->stream = s;
    t->user = user;
    t->kind = (uint8_t)kind;
    t->next = g->tunnels;
    t->at = &g->tunnels;
    if (t->next)
        t->next->at = &t->next;
    g->tunnels = t;
    h2_accept(s, events[kind], t);
    h2_want(s, 0); /* until what it asks for is there */
    return t;
}

static void open_tunnel(struct guest *g, struct h2_stream *s, struct ledger_user *user, struct ask *q)
{
    struct tunnel *t;

    if (!ledger_open_flow(user)) {
        MASQUE_COUNT(g->m, over_limit);
        turn_away(g, s, 429);
        return;
    }
    t = tunnel_new(g, s, user, q->kind);
    if (!t) {
        ledger_close_flow(user);
        turn_away(g, s, 503);
        return;
    }
    switch (q->kind) {
    case TUNNEL_TCP:
        tunnel_tcp_open(t, &q->target.to);
        return;
    case TUNNEL_UDP:
        tunnel_udp_open(t, &q->target.to);
        return;
    case TUNNEL_ECHO:
        tunnel_echo_open(t, q->proto);
        return;
    }
}

static void on_request(void *arg, struct h2_stream *s, const struct h2_head *head)
{
    struct guest *g = arg;
    struct ledger_user *user = NULL;
    struct ask q;

    read_ask(head, &q);
    if (q.status != 0) {
        MASQUE_COUNT(g->m, bad_requests);
        turn_away(g, s, q.status);
    } else if (!masque_login(g->m, login_of(head), &user)) {
        turn_away(g, s, 407);
    } else {
        wheel_cancel(g->m->wheel, &g->deadline);
        open_tunnel(g, s, user, &q);
    }
}

/* ---- the connection ---- */

static void on_closed(void *arg, int err, const char *why)
{
    struct guest *g = arg;

    if (err != 0)
        log_debug("a client's HTTP/2 ended: it %s", why);
    g->h2 = NULL;
    guest_end(g, err != 0 && err != -EPROTO);
}

int http2_start(struct guest *g)
{
    static const struct h2_events events = { .on_request = on_request, .on_closed = on_closed };
    struct masque *m = g->m;
    struct h2_options o = {
        .loop = m->loop,
        .wheel = m->wheel,
        .server = true,
        .fd = loop_io_fd(&g->io),
        .tls = g->tls,
        .max_streams = STREAMS_MAX,
        .keep_alive_ms = KEEP_ALIVE_MS,
        .events = &events,
        .arg = g,
    };

    loop_io_stop(m->loop, &g->io);
    g->state = GUEST_HTTP2;
    wheel_cancel(m->wheel, &g->again);
    wheel_set(m->wheel, &g->deadline, loop_now_us(m->loop) + SILENT_US);
    return h2_open(&o, &g->h2);
}
