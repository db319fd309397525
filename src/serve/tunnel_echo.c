/* tunnel_echo.c - connect-ip by HTTP/2, for pings: whole IP packets with echo requests inside, which leave by src/echo's sockets
 * (RFC 9484; icmp.md sections 4 and 5.1).
 *
 * How it works. A tunnel is for one family: any target, protocol 1 or 58. It is given an address of its own (ADDRESS_ASSIGN),
 * which nobody outside ever sees: it keeps the caps of icmp.md 4.3 apart, a session each, since the echo proxy counts by source.
 * Packets from other sources are dropped. What a request cannot have is told as a router would: an ICMP error from the exit's
 * address, which is the one that the client reaches us at, or one of this host's for the other family.
 *
 * Late is worse than lost: answers wait in a queue of 128, ahead of bulk data, for 10 s at the most (icmp.md T6, T7). */
#include "masque_impl.h"

#include "icmp_wire.h"

#define DEADLINE_US UINT64_C(10000000)

enum {
    QUEUE_FRAMES = 128,
    QUEUE_BYTES = 512 * 1024, /* the next power of two above 4 of the longest */
    CAPSULE_MAX = 128,
};

enum { UNREACH = 0, EXPIRED = 1 };
/* what is told, by family */
static const uint8_t types[2][2] = { { 3, 11 }, { 1, 3 } };

/* ---- to the client ---- */

static void send_packet(struct tunnel *t, const uint8_t *head, size_t head_len, const uint8_t *rest,
                        size_t rest_len)
{
    struct iovec iov[2] = { { (void *)(uintptr_t)head, head_len }, { (void *)(uintptr_t)rest, rest_len } };
    struct masque *m = t->g->m;
    uint64_t now_us = loop_now_us(m->loop);

    if (ledger_wait_us(t->user, DOWN, now_us) > 0) {
        MASQUE_COUNT(m, over_limit);
        return;
    }
    ledger_spend(t->user, DOWN, now_us, head_len + rest_len);
    MASQUE_COUNT(m, echo_answers);
    (void)h2_datagram_send(t->stream, 0, iov, rest_len > 0 ? 2 : 1, now_us + DEADLINE_US);
}

static void send_error(struct tunnel *t, struct icmp_wire_error *e)
{
    uint8_t head[ICMP_WIRE_HEAD_MAX];
    size_t quote, n;

    e->target = t->assigned;
    if (ip_is_none(&e->source))
        e->source = t->g->m->exit_addr[t->v6];
    if (ip_is_none(&e->source))
        return; /* nobody to say it (icmp.md X34) */
    n = icmp_wire_put_error(e, head, &quote);
    send_packet(t, head, n, e->quote.data, quote);
}

static void tell(struct tunnel *t, struct span packet, int what, uint8_t code)
{
    struct icmp_wire_error e = { .type = types[t->v6][what], .code = code, .quote = packet };

    send_error(t, &e);
}

void masque_on_echo_answer(void *masque, uint64_t responder, const struct echo_proxy_answer *a)
{
    struct masque *m = masque;
    uint32_t slot = (uint32_t)responder - 1, generation = (uint32_t)(responder >> 32);
    struct tunnel *t = slot < m->tunnels.touched ? slab_at(&m->tunnels, slot) : NULL;
    uint8_t head[ICMP_WIRE_HEAD_MAX];

    if (!t || t->kind != TUNNEL_ECHO || !t->is_open || t->generation != generation) {
        MASQUE_COUNT(m, echo_dropped); /* icmp.md T13 */
        return;
    }
    if (a->is_error) {
        struct icmp_wire_error e = { .source = a->offender,
                                     .type = a->type,
                                     .code = a->code,
                                     .info = a->info,
                                     .quote = { a->quote, a->quote_len } };

        send_error(t, &e);
        return;
    }
    send_packet(t, head, icmp_wire_put_reply(a, head), a->payload, a->payload_len);
}

/* ---- from the client ---- */

static uint64_t responder_of(struct tunnel *t)
{
    return (uint64_t)t->generation << 32 | (slab_index(&t->g->m->tunnels, t) + 1);
}

/* STATUS of icmp.md 5.1, as packets (design.md section 6). */
static void act_on(struct tunnel *t, enum echo_proxy_result r, struct span packet)
{
    switch (r) {
    case ECHO_PROXY_SENT:
        MASQUE_COUNT(t->g->m, echo_requests);
        return;
    case ECHO_PROXY_DROPPED:
    case ECHO_PROXY_OFF:
        MASQUE_COUNT(t->g->m, echo_dropped);
        return;
    case ECHO_PROXY_EXPIRED:
        tell(t, packet, EXPIRED, 0);
        return;
    case ECHO_PROXY_NET_UNREACH:
        tell(t, packet, UNREACH, 0);
        return;
    case ECHO_PROXY_HOST_UNREACH:
        tell(t, packet, UNREACH, t->v6 ? 3 : 1);
        return;
    case ECHO_PROXY_ADMIN_PROHIBITED:
        tell(t, packet, UNREACH, t->v6 ? 1 : 13);
        return;
    }
}

static bool within_rate(struct tunnel *t, size_t bytes)
{
    uint64_t now_us = loop_now_us(t->g->m->loop);

    if (ledger_wait_us(t->user, UP, now_us) > 0) {
        MASQUE_COUNT(t->g->m, over_limit);
        return false;
    }
    ledger_spend(t->user, UP, now_us, bytes);
    return true;
}

static void take_packet(struct tunnel *t, struct span packet)
{
    struct masque *m = t->g->m;
    struct echo_proxy_request r;
    struct ip_port target;

    if (icmp_wire_read(packet, t->v6, &r) != ICMP_WIRE_ECHO || !ip_equal(&r.client, &t->assigned) ||
        !within_rate(t, packet.len)) { /* RFC 9484 section 7.1: sources that were not assigned */
        MASQUE_COUNT(m, echo_dropped);
        return;
    }
    target = (struct ip_port){ r.target, 0 };
    if (!ip_is_martian(&r.target) && up_may_dial(m->env, m->direct, &target) != 0) {
        MASQUE_COUNT(m, denied);
        tell(t, packet, UNREACH, t->v6 ? 1 : 13); /* icmp.md T9 */
        return;
    }
    r.local = masque_lists(m, &r.target);
    r.broadcast = ip_is_multicast(&r.target);
    r.ingress = slab_index(&m->tunnels, t) + 1;
    r.responder = responder_of(t);
    act_on(t, echo_proxy_send(m->echo, &r), packet);
}

/* ---- capsules ---- */

static struct capsule_address assigned_to(const struct tunnel *t, uint64_t request_id)
{
    return (struct capsule_address){ request_id, { t->assigned, 128 } };
}

static void assign(struct tunnel *t, uint64_t request_id)
{
    struct capsule_address a = assigned_to(t, request_id);
    uint8_t bytes[CAPSULE_MAX];
    struct buf b;

    buf_init(&b, bytes, sizeof(bytes));
    capsule_address_put(&b, &a);
    (void)h2_capsule_send(t->stream, CAPSULE_ADDRESS_ASSIGN, b.data, b.len);
}

/* All of the family, for its ICMP (RFC 9484 section 4.7.3). */
static void advertise(struct tunnel *t)
{
    static const uint8_t none4[4], all4[4] = { 255, 255, 255, 255 };
    struct capsule_route route = { .proto = t->v6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP };
    uint8_t bytes[CAPSULE_MAX];
    struct buf b;

    route.from = ip_from4(none4);
    route.to = ip_from4(all4);
    if (t->v6) {
        route.from = (struct ip_addr){ .w = { 0 } };
        memset(route.to.b, 0xff, sizeof(route.to.b));
    }
    buf_init(&b, bytes, sizeof(bytes));
    capsule_route_put(&b, &route);
    (void)h2_capsule_send(t->stream, CAPSULE_ROUTE_ADVERTISEMENT, b.data, b.len);
}

static void take_capsule(struct tunnel *t, const struct capsule *c)
{
    struct span value = { c->value, c->len };
    struct capsule_address a;
    uint64_t context;

    switch (c->type) {
    case CAPSULE_DATAGRAM:
        if (varint_get(&value, &context) == 0 && context == 0)
            take_packet(t, value);
        return;
    case CAPSULE_ADDRESS_REQUEST: /* whatever it asks for, it gets the one that it has */
        if (capsule_address_get(&value, &a) == 0)
            assign(t, a.request_id);
        return;
    }
}

static void on_readable(void *arg)
{
    tunnel_read_capsules(arg, take_capsule);
}

const struct h2_stream_events tunnel_echo_events = { .on_readable = on_readable,
                                                     .on_closed = tunnel_on_closed };

/* ---- life ---- */

/* 100.64.0.0/10 is for carriers' own networks (RFC 6598); the IPv6 prefix is a unique local one (RFC 4193). */
static struct ip_addr address_for(uint32_t slot, bool v6)
{
    static const uint8_t base6[16] = { 0xfd, 'c', 'u', 'l', 'v', 'e', 'r', 't' };
    uint32_t n = slot + 2;
    struct ip_addr a = ip_from6(base6);
    uint8_t four[4];

    put_be32(four, UINT32_C(0x64400000) | (n & 0x3fffff));
    if (!v6)
        return ip_from4(four);
    put_be32(a.b + 12, n);
    return a;
}

void tunnel_echo_open(struct tunnel *t, int proto)
{
    static const struct h2_datagram_options queue = { .frames = QUEUE_FRAMES,
                                                      .bytes = QUEUE_BYTES,
                                                      .urgent = true };
    struct masque *m = t->g->m;

    t->v6 = proto == IP_PROTO_ICMPV6;
    t->assigned = address_for(slab_index(&m->tunnels, t), t->v6);
    t->generation = ++m->generation;
    if (!m->opt.echo ||
        !m->echo) { /* disabled: RFC 9484 has no capsule for it, a status tells (icmp.md T10) */
        tunnel_refuse(t, 403, 0);
        return;
    }
    if (echo_proxy_mode(m->echo, t->v6) == ECHO_PROXY_MODE_OFF) {
        tunnel_refuse(t, 501, 0);
        return;
    }
    if (h2_datagrams(t->stream, &queue) != 0) {
        tunnel_refuse(t, 503, -ENOMEM);
        return;
    }
    MASQUE_COUNT(m, echo);
    tunnel_answer(t, 200, 0, true);
    assign(t, 0);
    advertise(t);
    h2_want(t->stream, LOOP_READ);
}

void tunnel_echo_release(struct tunnel *t)
{
    if (t->is_open && t->g->m->echo)
        echo_proxy_responder_gone(t->g->m->echo, responder_of(t));
    t->is_open = false;
}
