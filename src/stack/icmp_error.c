/* icmp_error.c - ICMP errors, ours and theirs (RFC 792, RFC 1812 section 4.3.2, RFC 4443 section 2.4, RFC
 * 5927).
 *
 * Ours: never about another error, a later fragment or a packet to many; 576 (IPv4) or 1280 bytes (IPv6) at
 * most; one token bucket for both families, which too-big messages do not spend, for without them nothing
 * would get through. The sender is the gateway address of the family or, without one, the address that the
 * packet went to (icmp.md J2). Theirs: the quote must name a flow from the address that the error was sent
 * to; what it quotes is read with bounds. */
#include "ip_impl.h"

#define ICMP_HEADER   8
#define V4_PACKET_MAX 576
#define V6_PACKET_MAX 1280
#define QUOTE_L4_MAX  64

struct type_code {
    uint8_t type, code;
};

static const struct type_code codes_v4[] = {
    [REJECT_SILENT] = { 0, 0 },
    [REJECT_RST] = { ICMP4_UNREACHABLE, 3 },
    [REJECT_NET_UNREACH] = { ICMP4_UNREACHABLE, 0 },
    [REJECT_HOST_UNREACH] = { ICMP4_UNREACHABLE, 1 },
    [REJECT_PORT_UNREACH] = { ICMP4_UNREACHABLE, 3 },
    [REJECT_NET_PROHIBITED] = { ICMP4_UNREACHABLE, 9 },
    [REJECT_HOST_PROHIBITED] = { ICMP4_UNREACHABLE, 10 },
    [REJECT_ADMIN_PROHIBITED] = { ICMP4_UNREACHABLE, 13 },
    [REJECT_POLICY] = { ICMP4_UNREACHABLE, 13 },
    [REJECT_TTL_EXCEEDED] = { ICMP4_TIME_EXCEEDED, 0 },
};
static const struct type_code codes_v6[] = {
    [REJECT_SILENT] = { 0, 0 },
    [REJECT_RST] = { ICMP6_UNREACHABLE, 4 },
    [REJECT_NET_UNREACH] = { ICMP6_UNREACHABLE, 0 },
    [REJECT_HOST_UNREACH] = { ICMP6_UNREACHABLE, 3 },
    [REJECT_PORT_UNREACH] = { ICMP6_UNREACHABLE, 4 },
    [REJECT_NET_PROHIBITED] = { ICMP6_UNREACHABLE, 1 },
    [REJECT_HOST_PROHIBITED] = { ICMP6_UNREACHABLE, 1 },
    [REJECT_ADMIN_PROHIBITED] = { ICMP6_UNREACHABLE, 1 },
    [REJECT_POLICY] = { ICMP6_UNREACHABLE, 5 },
    [REJECT_TTL_EXCEEDED] = { ICMP6_TIME_EXCEEDED, 0 },
};

/* ---- out ----------------------------------------------------------------------------------------------- */

static bool is_error_type(bool v6, uint8_t type)
{
    if (v6)
        return type < 128 || type == ICMP6_REDIRECT;
    return type == ICMP4_UNREACHABLE || type == ICMP4_QUENCH || type == ICMP4_REDIRECT ||
           type == ICMP4_TIME_EXCEEDED || type == ICMP4_PARAM_PROBLEM;
}

static bool is_too_big(bool v6, uint8_t type, uint8_t code)
{
    return v6 ? type == ICMP6_TOO_BIG : type == ICMP4_UNREACHABLE && code == 4;
}

/* May an error be sent about this packet at all (icmp.md U7)? */
bool icmp_may_answer(const struct packet *p, uint8_t type, uint8_t code)
{
    if (p->proto == (p->v6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP) &&
        (p->l4_len < 1 || is_error_type(p->v6, p->l4[0])))
        return false;
    if (p->broadcast || p->multicast) /* RFC 4443 section 2.4 (e.3) names the two exceptions */
        return p->v6 && (type == ICMP6_TOO_BIG || (type == ICMP6_PARAM_PROBLEM && code == 2));
    return true;
}

static void count_sent(struct stack *s, bool v6, uint8_t type, uint8_t code)
{
    if (is_too_big(v6, type, code))
        COUNT_ICMP(s, v6, tx_packet_too_big);
    else if (type == (v6 ? ICMP6_TIME_EXCEEDED : ICMP4_TIME_EXCEEDED))
        COUNT_ICMP(s, v6, tx_time_exceeded);
    else if (type == (v6 ? ICMP6_PARAM_PROBLEM : ICMP4_PARAM_PROBLEM))
        COUNT_ICMP(s, v6, tx_param_problem);
    else
        COUNT_ICMP(s, v6, tx_dst_unreachable);
}

static enum echo_result send_error(struct stack *s, const struct packet *p, const struct icmp_error *e)
{
    uint8_t room[IP_OUT_HEADROOM + ICMP_HEADER], *h = room + IP_OUT_HEADROOM;
    size_t most = (p->v6 ? V6_PACKET_MAX - V6_HEADER : V4_PACKET_MAX - V4_HEADER) - ICMP_HEADER;
    struct iovec quote = { .iov_base = (uint8_t *)(uintptr_t)p->ip,
                           .iov_len = p->ip_len < most ? p->ip_len : most };
    struct ip_out o = { .src = e->from,
                        .dst = p->src,
                        .proto = p->v6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP,
                        .ttl = s->cfg.ttl,
                        .df = true,
                        .csum_offset = 2 };

    if (e->limited && !is_too_big(p->v6, e->type, e->code) &&
        !bucket_take(&s->icmp_bucket, s->now_us, s->cfg.icmp_errors_per_second, s->cfg.icmp_errors_burst)) {
        COUNT_ICMP(s, p->v6, rate_limited);
        return EV_RATE_LIMITED;
    }
    h[0] = e->type;
    h[1] = e->code;
    put_be16(h + 2, 0);
    put_be32(h + 4, e->word);
    if (ip_output(s, &o, h, ICMP_HEADER, &quote, 1) != 0) {
        COUNT_ICMP(s, p->v6, dropped);
        return EV_DROPPED;
    }
    count_sent(s, p->v6, e->type, e->code);
    return EV_SENT;
}

/* The source is looked for before a token is spent (icmp.md L6). */
enum echo_result icmp_send_chosen(struct stack *s, const struct packet *p, const struct icmp_error *e)
{
    const struct ip_addr *gateway = ip_gateway(s, &p->src);
    struct icmp_error filled = *e;

    if (!icmp_may_answer(p, e->type, e->code))
        return EV_DROPPED;
    if (ip_is_none(&e->from) && gateway == NULL && (p->broadcast || p->multicast)) {
        COUNT_ICMP(s, p->v6, no_route);
        return EV_NO_ROUTE;
    }
    if (ip_is_none(&e->from))
        filled.from = gateway != NULL ? *gateway : p->dst;
    return send_error(s, p, &filled);
}

enum echo_result icmp_send_raw(struct stack *s, const struct packet *p, uint8_t type, uint8_t code,
                               uint32_t word)
{
    struct icmp_error e = { .type = type, .code = code, .word = word, .limited = true };

    return icmp_send_chosen(s, p, &e);
}

bool icmp_error_for(bool v6, enum stack_reject why, uint32_t mtu, struct icmp_error *out)
{
    struct type_code c = v6 ? codes_v6[why] : codes_v4[why];

    if (mtu > 0)
        c = v6 ? (struct type_code){ ICMP6_TOO_BIG, 0 } : (struct type_code){ ICMP4_UNREACHABLE, 4 };
    else if (why == REJECT_SILENT)
        return false;
    *out = (struct icmp_error){ .type = c.type, .code = c.code, .word = mtu, .limited = true };
    return true;
}

enum echo_result icmp_reject(struct stack *s, const struct packet *p, enum stack_reject why, uint32_t mtu)
{
    struct icmp_error e;

    if (!icmp_error_for(p->v6, why, mtu, &e))
        return EV_DROPPED;
    return icmp_send_chosen(s, p, &e);
}

bool icmp_send_error(struct stack *s, const struct packet *p, enum stack_reject why, uint32_t mtu)
{
    return icmp_reject(s, p, why, mtu) == EV_SENT;
}

size_t icmp_rebuild_header(const struct stack *s, const struct flow_key *f, size_t l4_len, uint8_t *h)
{
    uint16_t check;

    if (!ip_is4(&f->client)) {
        put_be32(h, (uint32_t)6 << 28);
        put_be16(h + 4, (uint16_t)l4_len);
        h[6] = f->proto;
        h[7] = s->cfg.ttl;
        memcpy(h + 8, f->client.b, 16);
        memcpy(h + 24, f->target.b, 16);
        return V6_HEADER;
    }
    memset(h, 0, V4_HEADER);
    h[0] = 0x45;
    put_be16(h + 2, (uint16_t)(V4_HEADER + l4_len));
    h[8] = s->cfg.ttl;
    h[9] = f->proto;
    memcpy(h + 12, f->client.b + 12, 4);
    memcpy(h + 16, f->target.b + 12, 4);
    check = (uint16_t)~csum_fold(csum_add(0, h, V4_HEADER));
    memcpy(h + 10, &check, sizeof(check));
    return V4_HEADER;
}

bool icmp_send_error_for(struct stack *s, const struct flow_key *flow, const uint8_t *l4, size_t l4_len,
                         const struct ip_addr *offender, enum stack_reject why, uint32_t mtu)
{
    struct packet p = {
        .src = flow->client, .dst = flow->target, .proto = flow->proto, .v6 = !ip_is4(&flow->client)
    };
    struct icmp_error e;
    uint8_t quote[V6_HEADER + QUOTE_L4_MAX];
    size_t header;

    if (!icmp_error_for(p.v6, why, mtu, &e))
        return false;
    if (l4_len > QUOTE_L4_MAX)
        l4_len = QUOTE_L4_MAX;
    header = icmp_rebuild_header(s, flow, l4_len, quote);
    memcpy(quote + header, l4, l4_len);
    p.ip = quote;
    p.ip_len = (uint32_t)(header + l4_len);
    p.l4 = quote + header;
    p.l4_len = (uint32_t)l4_len;
    if (offender != NULL && !ip_is_none(offender) && ip_is4(offender) != p.v6)
        e.from = *offender;
    return icmp_send_chosen(s, &p, &e) == EV_SENT;
}

/* ---- in ------------------------------------------------------------------------------------------------ */

/* The packet of ours that an error quotes. */
struct quoted {
    struct flow_key flow;
    const uint8_t *l4; /* 8 bytes of it */
    uint32_t seq;      /* TCP */
};

/* The quote's own header; @rest begins at its L4 header afterwards. Only what we send: no options, and before
 * IPv6's first piece a fragment header. */
static bool quoted_header(bool v6, struct span *rest, struct ip_addr *src, struct ip_addr *dst,
                          uint8_t *proto)
{
    const uint8_t *h;

    const uint8_t *fragment;

    if (!span_bytes(rest, v6 ? V6_HEADER : V4_HEADER, &h))
        return false;
    if (v6) {
        *src = ip_from6(h + 8);
        *dst = ip_from6(h + 24);
        *proto = h[6];
        if (h[6] == NEXT_FRAGMENT) {
            if (!span_bytes(rest, FRAG_HEADER, &fragment) || (get_be16(fragment + 2) & 0xfff8) != 0)
                return false;
            *proto = fragment[0];
        }
        return h[0] >> 4 == 6 && !ip_is4(src) && !ip_is4(dst);
    }
    *src = ip_from4(h + 12);
    *dst = ip_from4(h + 16);
    *proto = h[9];
    return h[0] == 0x45 && (get_be16(h + 6) & V4_OFFSET) == 0;
}

static bool parse_quote(const struct packet *p, struct quoted *out)
{
    struct span rest = { p->l4 + ICMP_HEADER, p->l4_len - ICMP_HEADER };
    struct quoted q = { .seq = 0 };

    if (!quoted_header(p->v6, &rest, &q.flow.target, &q.flow.client, &q.flow.proto))
        return false;
    q.l4 = rest.data;
    if (!span_u16(&rest, &q.flow.target_port) || !span_u16(&rest, &q.flow.client_port) ||
        !span_u32(&rest, &q.seq))
        return false;
    *out = q;
    return true;
}

/* An echo request of an endpoint of ours, quoted from its IP header on. */
static void quoted_echo(struct stack *s, const struct packet *p, const struct quoted *q,
                        const struct icmp_error *what)
{
    struct packet quoted = { .src = q->flow.target, .dst = q->flow.client, .v6 = p->v6, .l4 = q->l4 };

    if (q->l4[0] == (p->v6 ? ICMP6_ECHO : ICMP4_ECHO))
        icmp_endpoint_error(s, &quoted, &p->src, what);
    else
        COUNT(s, icmp_ignored);
}

static bool is_ours(struct stack *s, const struct packet *p, const struct quoted *q)
{
    return ip_equal(&q->flow.target, &p->dst) && ip_may_send_from(s, &q->flow.target, NULL);
}

/* Return: true when it was for somebody here, or is on its way to the shard that it may be for. */
static bool about_flow(struct stack *s, const struct packet *p, const struct quoted *q,
                       const struct icmp_error *e)
{
    uint32_t mtu = 0;

    if (is_too_big(p->v6, e->type, e->code))
        mtu = p->v6 ? e->word : e->word & 0xffff;
    if (q->flow.proto == IP_PROTO_TCP)
        return tcp_icmp_error(s, &q->flow, q->seq, p->v6, e->type, e->code, mtu) || stack_pass_on(s, p);
    return q->flow.proto == IP_PROTO_UDP && mtu > 0 && /* UDP clients of ours have no use for others */
           (udp_owner_took_it(s, p, &q->flow.client, q->flow.client_port) ||
            udp_icmp_error(s, &q->flow, p->v6, mtu));
}

/* The error's sender is whoever it likes to be; that it was sent to the address which the quoted packet came
 * from, and the quoted sequence number (tcp_icmp_error()), are what a stranger off the path has to guess (RFC
 * 5927 section 4). */
void icmp_error_input(struct stack *s, const struct packet *p)
{
    struct icmp_error e = { .type = p->l4[0], .code = p->l4[1], .word = get_be32(p->l4 + 4) };
    struct quoted q;

    if (!parse_quote(p, &q) || !is_ours(s, p, &q))
        COUNT(s, icmp_ignored);
    else if (q.flow.proto == (p->v6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP))
        quoted_echo(s, p, &q, &e);
    else if (!about_flow(s, p, &q, &e))
        COUNT(s, icmp_ignored);
}
