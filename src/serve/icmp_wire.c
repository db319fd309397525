/* icmp_wire.c - IP packets with ICMP inside.
 *
 * Left out. Fragments: a tunnel has no MTU that would make them, and reassembly belongs to the client's side (icmp.md 2.6).
 * Extension headers of IPv6: a ping socket could not carry them. One is read: a fragment header that cuts nothing (RFC 6946) says that the
 * packet came in pieces to whoever sent it here, and may leave in pieces again. So does a length that fits no link. */
#include "icmp_wire.h"

#include <string.h>

enum {
    HEAD4 = 20,
    HEAD6 = 40,
    FRAGMENT_HEAD = 8, /* RFC 8200 section 4.5 */
    NEXT_FRAGMENT = 44,
    LINK_MAX = 65535,
    ICMP_HEAD = 8,
    TTL_OURS = 64,
    ECHO_REQUEST4 = 8,
    ECHO_REPLY4 = 0,
    ECHO_REQUEST6 = 128,
    ECHO_REPLY6 = 129,
    ERROR_MAX4 = 576,
    ERROR_MAX6 = 1280,
};

/* ---- reading ---- */

static enum icmp_wire read_icmp(struct span icmp, bool v6, struct echo_proxy_request *out)
{
    uint32_t sum = v6 ? csum_pseudo(&out->client, &out->target, IP_PROTO_ICMPV6, (uint32_t)icmp.len) : 0;

    if (icmp.len < ICMP_HEAD || csum_fold(csum_add(sum, icmp.data, icmp.len)) != 0xffff)
        return ICMP_WIRE_BROKEN;
    if (icmp.data[0] != (v6 ? ECHO_REQUEST6 : ECHO_REQUEST4))
        return ICMP_WIRE_OTHER;
    out->code = icmp.data[1];
    out->checksum = get_be16(icmp.data + 2);
    out->id = get_be16(icmp.data + 4);
    out->seq = get_be16(icmp.data + 6);
    out->payload = icmp.data + ICMP_HEAD;
    out->payload_len = (uint32_t)(icmp.len - ICMP_HEAD);
    return ICMP_WIRE_ECHO;
}

static enum icmp_wire read4(struct span p, struct echo_proxy_request *out)
{
    size_t head = p.len >= HEAD4 ? (size_t)(p.data[0] & 15) * 4 : 0, total;

    if (head < HEAD4 || p.data[0] >> 4 != 4 || head > p.len || csum_fold(csum_add(0, p.data, head)) != 0xffff)
        return ICMP_WIRE_BROKEN;
    total = get_be16(p.data + 2);
    if (total < head || total > p.len)
        return ICMP_WIRE_BROKEN;
    if (p.data[9] != IP_PROTO_ICMP || (get_be16(p.data + 6) & 0x3fff) != 0)
        return ICMP_WIRE_OTHER;
    out->client = ip_from4(p.data + 12);
    out->target = ip_from4(p.data + 16);
    out->tos = p.data[1];
    out->ttl = p.data[8];
    out->df = (p.data[6] & 0x40) != 0;
    out->options = head > HEAD4;
    out->ip_header = p.data;
    out->ip_header_len = (uint16_t)head;
    return read_icmp((struct span){ p.data + head, total - head }, false, out);
}

static enum icmp_wire read6(struct span p, struct echo_proxy_request *out)
{
    size_t len, head = HEAD6;

    if (p.len < HEAD6 || p.data[0] >> 4 != 6)
        return ICMP_WIRE_BROKEN;
    len = get_be16(p.data + 4);
    if (len > p.len - HEAD6)
        return ICMP_WIRE_BROKEN;
    if (p.data[6] == NEXT_FRAGMENT && len >= FRAGMENT_HEAD && p.data[HEAD6] == IP_PROTO_ICMPV6 &&
        (get_be16(p.data + HEAD6 + 2) & 0xfff9) == 0)
        head += FRAGMENT_HEAD;
    else if (p.data[6] != IP_PROTO_ICMPV6)
        return ICMP_WIRE_OTHER;
    out->client = ip_from6(p.data + 8);
    out->target = ip_from6(p.data + 24);
    if (ip_is4(&out->client) || ip_is4(&out->target)) /* mapped addresses never travel (icmp.md V11) */
        return ICMP_WIRE_BROKEN;
    out->tos = (uint8_t)(p.data[0] << 4 | p.data[1] >> 4);
    out->ttl = p.data[7];
    out->df = head == HEAD6 && HEAD6 + len <= LINK_MAX;
    out->ip_header = p.data;
    out->ip_header_len = (uint16_t)head;
    return read_icmp((struct span){ p.data + head, HEAD6 + len - head }, true, out);
}

enum icmp_wire icmp_wire_read(struct span packet, bool v6, struct echo_proxy_request *out)
{
    *out = (struct echo_proxy_request){ 0 };
    return v6 ? read6(packet, out) : read4(packet, out);
}

/* ---- writing ---- */

/* Kept in memory order, as it goes into the packet. */
static void put_sum(uint8_t *at, uint32_t sum)
{
    uint16_t folded = (uint16_t)~csum_fold(sum);

    memcpy(at, &folded, sizeof(folded));
}

struct ip_fields {
    const struct ip_addr *source, *target;
    uint8_t ttl, tos;
    size_t len; /* behind the IP header */
};

static size_t put_ip(uint8_t *to, const struct ip_fields *f)
{
    if (ip_is4(f->target)) {
        memset(to, 0, HEAD4);
        to[0] = 0x45;
        to[1] = f->tos;
        put_be16(to + 2, (uint16_t)(HEAD4 + f->len));
        to[8] = f->ttl;
        to[9] = IP_PROTO_ICMP;
        memcpy(to + 12, f->source->b + 12, 4);
        memcpy(to + 16, f->target->b + 12, 4);
        put_sum(to + 10, csum_add(0, to, HEAD4));
        return HEAD4;
    }
    put_be32(to, 6u << 28 | (uint32_t)f->tos << 20);
    put_be16(to + 4, (uint16_t)f->len);
    to[6] = IP_PROTO_ICMPV6;
    to[7] = f->ttl;
    memcpy(to + 8, f->source->b, 16);
    memcpy(to + 24, f->target->b, 16);
    return HEAD6;
}

/* @icmp: its head, checksum zero; @rest: what follows it. */
static void put_checksum(uint8_t *icmp, const struct ip_fields *f, const uint8_t *rest, size_t rest_len)
{
    uint32_t len = (uint32_t)(ICMP_HEAD + rest_len);
    uint32_t sum = ip_is4(f->target) ? 0 : csum_pseudo(f->source, f->target, IP_PROTO_ICMPV6, len);

    put_sum(icmp + 2, csum_add(csum_add(sum, icmp, ICMP_HEAD), rest, rest_len));
}

size_t icmp_wire_put_reply(const struct echo_proxy_answer *a, uint8_t head[ICMP_WIRE_HEAD_MAX])
{
    struct ip_fields f = { &a->target, &a->client, a->ttl, a->tos, ICMP_HEAD + a->payload_len };
    size_t n = put_ip(head, &f);
    uint8_t *icmp = head + n;

    memset(icmp, 0, ICMP_HEAD);
    icmp[0] = ip_is4(f.target) ? ECHO_REPLY4 : ECHO_REPLY6;
    put_be16(icmp + 4, a->id);
    put_be16(icmp + 6, a->seq);
    put_checksum(icmp, &f, a->payload, a->payload_len);
    return n + ICMP_HEAD;
}

size_t icmp_wire_put_error(const struct icmp_wire_error *e, uint8_t head[ICMP_WIRE_HEAD_MAX], size_t *quote)
{
    bool v4 = ip_is4(&e->target);
    size_t most = v4 ? ERROR_MAX4 - HEAD4 - ICMP_HEAD : ERROR_MAX6 - HEAD6 - ICMP_HEAD, n;
    size_t quoted = e->quote.len < most ? e->quote.len : most;
    struct ip_fields f = { &e->source, &e->target, TTL_OURS, 0, ICMP_HEAD + quoted };
    uint8_t *icmp;

    n = put_ip(head, &f);
    icmp = head + n;
    memset(icmp, 0, ICMP_HEAD);
    icmp[0] = e->type;
    icmp[1] = e->code;
    if (v4 && e->type == 12) /* RFC 792: the pointer is one byte; MTU (RFC 1191): the last two */
        icmp[4] = (uint8_t)e->info;
    else if (v4)
        put_be16(icmp + 6, (uint16_t)e->info);
    else
        put_be32(icmp + 4, e->info);
    put_checksum(icmp, &f, e->quote.data, quoted);
    *quote = quoted;
    return n + ICMP_HEAD;
}
