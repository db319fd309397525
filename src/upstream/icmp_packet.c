/* icmp_packet.c - echo requests as packets, and what comes back: replies, and errors with the request that they quote. */
#include "icmp_packet.h"

#include <errno.h>
#include <string.h>

enum {
    IP4_HEAD = 20,
    IP6_HEAD = 40,
    FRAGMENT_HEAD = 8, /* RFC 8200 section 4.5 */
    NEXT_FRAGMENT = 44,
    ICMP_HEAD = 8,
    ICMP4_REQUEST = 8,
    ICMP4_REPLY = 0,
    ICMP6_REQUEST = 128,
    ICMP6_REPLY = 129,
};

/* Kept in memory order, as it goes into the packet. */
static void put_sum(uint8_t *at, uint32_t sum)
{
    uint16_t folded = (uint16_t)~csum_fold(sum);

    memcpy(at, &folded, sizeof(folded));
}

static void put_ip4(uint8_t *p, const struct up_echo_request *r, const struct ip_addr *source, uint16_t ip_id)
{
    memset(p, 0, IP4_HEAD);
    p[0] = 0x45;
    p[1] = r->tos;
    put_be16(p + 2, (uint16_t)(IP4_HEAD + ICMP_HEAD + r->payload_len));
    put_be16(p + 4, ip_id);
    put_be16(p + 6, r->df ? 0x4000 : 0);
    p[8] = r->ttl;
    p[9] = IP_PROTO_ICMP;
    memcpy(p + 12, source->b + 12, 4);
    memcpy(p + 16, r->target.b + 12, 4);
    put_sum(p + 10, csum_add(0, p, IP4_HEAD));
}

/* IPv6 has no DF. What may leave in pieces says so by a fragment header that cuts nothing (RFC 6946), if there is room for one: the
 * longest packets leave in pieces anyhow. Return: bytes of the headers. */
static size_t put_ip6(uint8_t *p, const struct up_echo_request *r, const struct ip_addr *source,
                      uint16_t ip_id)
{
    bool pieces = !r->df && FRAGMENT_HEAD + ICMP_HEAD + r->payload_len <= 65535;
    size_t more = pieces ? FRAGMENT_HEAD : 0;

    put_be32(p, 0x60000000u | (uint32_t)r->tos << 20);
    put_be16(p + 4, (uint16_t)(more + ICMP_HEAD + r->payload_len));
    p[6] = pieces ? NEXT_FRAGMENT : IP_PROTO_ICMPV6;
    p[7] = r->ttl;
    memcpy(p + 8, source->b, 16);
    memcpy(p + 24, r->target.b, 16);
    if (pieces) {
        memset(p + IP6_HEAD, 0, FRAGMENT_HEAD);
        p[IP6_HEAD] = IP_PROTO_ICMPV6;
        put_be32(p + IP6_HEAD + 4, ip_id);
    }
    return IP6_HEAD + more;
}

size_t icmp_packet_put(const struct up_echo_request *r, const struct ip_addr *source, uint16_t ip_id,
                       uint8_t head[ICMP_PACKET_HEAD])
{
    bool v6 = !ip_is4(&r->target);
    size_t ip = IP4_HEAD;
    uint32_t sum = 0;
    uint8_t *icmp;

    if (v6) {
        ip = put_ip6(head, r, source, ip_id);
        sum = csum_pseudo(source, &r->target, IP_PROTO_ICMPV6, ICMP_HEAD + r->payload_len);
    } else {
        put_ip4(head, r, source, ip_id);
    }
    icmp = head + ip;
    memset(icmp, 0, ICMP_HEAD);
    icmp[0] = v6 ? ICMP6_REQUEST : ICMP4_REQUEST;
    put_be16(icmp + 4, r->id);
    put_be16(icmp + 6, r->seq);
    sum = csum_add(sum, icmp, ICMP_HEAD);
    put_sum(icmp + 2, csum_add(sum, r->payload, r->payload_len));
    return ip + ICMP_HEAD;
}

/* ---- reading ---- */

struct packet {
    struct ip_addr source, target;
    uint8_t ttl, tos;
    struct span body; /* the ICMP message */
};

/* @quoted: only as much as a router has quoted is there, so lengths may say more. */
static bool get_ip4(struct span in, bool quoted, struct packet *out)
{
    size_t head, total;

    if (in.len < IP4_HEAD || in.data[0] >> 4 != 4)
        return false;
    head = (size_t)(in.data[0] & 15) * 4;
    total = get_be16(in.data + 2);
    if (head < IP4_HEAD || head > in.len || total < head || in.data[9] != IP_PROTO_ICMP)
        return false;
    if (!quoted && (total > in.len || (get_be16(in.data + 6) & 0x3fff) != 0 ||
                    csum_fold(csum_add(0, in.data, head)) != 0xffff))
        return false;
    *out = (struct packet){ .source = ip_from4(in.data + 12), .target = ip_from4(in.data + 16) };
    out->ttl = in.data[8];
    out->tos = in.data[1];
    out->body = (struct span){ in.data + head, (total < in.len ? total : in.len) - head };
    return true;
}

static bool get_ip6(struct span in, bool quoted, struct packet *out)
{
    size_t len, head = IP6_HEAD;

    if (in.len < IP6_HEAD || in.data[0] >> 4 != 6)
        return false;
    len = get_be16(in.data + 4);
    if (!quoted && len > in.len - IP6_HEAD)
        return false;
    len = IP6_HEAD + len < in.len ? IP6_HEAD + len : in.len;
    if (quoted && in.data[6] == NEXT_FRAGMENT && len >= IP6_HEAD + FRAGMENT_HEAD &&
        in.data[IP6_HEAD] == IP_PROTO_ICMPV6) /* ours: it cuts nothing */
        head += FRAGMENT_HEAD;
    else if (in.data[6] != IP_PROTO_ICMPV6)
        return false;
    *out = (struct packet){ .source = ip_from6(in.data + 8), .target = ip_from6(in.data + 24) };
    if (ip_is4(&out->source) || ip_is4(&out->target)) /* a mapped address in a real packet (icmp.md V11) */
        return false;
    out->ttl = in.data[7];
    out->tos = (uint8_t)(get_be16(in.data) >> 4);
    out->body = (struct span){ in.data + head, len - head };
    return true;
}

static bool get_ip(struct span in, bool v6, bool quoted, struct packet *out)
{
    return v6 ? get_ip6(in, quoted, out) : get_ip4(in, quoted, out);
}

static bool sum_is_right(const struct packet *p, bool v6)
{
    uint32_t sum = v6 ? csum_pseudo(&p->source, &p->target, IP_PROTO_ICMPV6, (uint32_t)p->body.len) : 0;

    return csum_fold(csum_add(sum, p->body.data, p->body.len)) == 0xffff;
}

/* Unreachable, time exceeded, parameter problem, and too big: what traceroute and path MTU discovery live on. */
static bool is_error(uint8_t type, bool v6)
{
    return v6 ? type >= 1 && type <= 4 : type == 3 || type == 11 || type == 12;
}

int icmp_packet_get(const uint8_t *data, size_t len, const struct ip_addr *source, struct up_echo_answer *out)
{
    bool v6 = !ip_is4(source);
    struct packet p, q;
    const uint8_t *icmp;

    if (!get_ip((struct span){ data, len }, v6, false, &p) || !ip_equal(&p.target, source) ||
        p.body.len < ICMP_HEAD || !sum_is_right(&p, v6))
        return -EBADMSG;
    icmp = p.body.data;
    *out = (struct up_echo_answer){ .source = p.source, .target = p.source, .ttl = p.ttl, .tos = p.tos };
    if (icmp[0] == (v6 ? ICMP6_REPLY : ICMP4_REPLY) && icmp[1] == 0) {
        out->id = get_be16(icmp + 4);
        out->seq = get_be16(icmp + 6);
        out->payload = icmp + ICMP_HEAD;
        out->payload_len = (uint32_t)(p.body.len - ICMP_HEAD);
        return 0;
    }
    if (!is_error(icmp[0], v6) ||
        !get_ip((struct span){ icmp + ICMP_HEAD, p.body.len - ICMP_HEAD }, v6, true, &q) ||
        !ip_equal(&q.source, source) || q.body.len < ICMP_HEAD ||
        q.body.data[0] != (v6 ? ICMP6_REQUEST : ICMP4_REQUEST))
        return -EBADMSG;
    out->is_error = true;
    out->target = q.target;
    out->id = get_be16(q.body.data + 4);
    out->seq = get_be16(q.body.data + 6);
    out->type = icmp[0];
    out->code = icmp[1];
    out->info = get_be32(icmp + 4);
    return 0;
}
