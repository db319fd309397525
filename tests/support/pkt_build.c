/* pkt_build.c - see pkt_build.h. Slow and plain on purpose. */
#include "pkt_build.h"

#include <assert.h>
#include <string.h>

#define V4 20
#define V6 40

uint16_t pkt_sum(const uint8_t *data, size_t len, uint32_t start)
{
    uint32_t sum = start;

    for (size_t i = 0; i < len; i++) {
        sum += i % 2 == 0 ? (uint32_t)data[i] << 8 : data[i];
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)sum;
}

bool pkt_is6(const struct pkt *p)
{
    return p->data[0] >> 4 == 6;
}

static uint32_t pseudo(const uint8_t *ip, uint8_t proto, size_t l4_len)
{
    bool v6 = ip[0] >> 4 == 6;
    uint8_t tail[8] = { 0, 0, 0, 0, 0, 0, 0, proto };

    put_be32(tail, (uint32_t)l4_len);
    return pkt_sum(tail, 8, pkt_sum(v6 ? ip + 8 : ip + 12, v6 ? 32 : 8, 0));
}

static size_t sum_offset(uint8_t proto)
{
    return proto == IP_PROTO_TCP ? 16 : proto == IP_PROTO_UDP ? 6 : 2;
}

static uint8_t proto_of(const struct pkt *p)
{
    /* The byte that named L4 is not remembered for chains; tests that build those fix the checksum before. */
    return pkt_is6(p) ? p->data[6] : p->data[9];
}

void pkt_fix_l4(struct pkt *p)
{
    uint8_t proto = proto_of(p), *l4 = p->data + p->l4;
    size_t len = p->len - p->l4, at = sum_offset(proto);
    uint16_t sum;

    if (len < at + 2 || (proto != IP_PROTO_TCP && proto != IP_PROTO_UDP && proto != IP_PROTO_ICMP &&
                         proto != IP_PROTO_ICMPV6))
        return;
    put_be16(l4 + at, 0);
    sum = (uint16_t)~pkt_sum(l4, len, proto == IP_PROTO_ICMP ? 0 : pseudo(p->data, proto, len));
    put_be16(l4 + at, sum == 0 && proto == IP_PROTO_UDP ? 0xffff : sum);
}

void pkt_fix_ip(struct pkt *p)
{
    size_t header;

    if (pkt_is6(p)) {
        put_be16(p->data + 4, (uint16_t)(p->len - V6));
        return;
    }
    header = (p->data[0] & 15u) * 4;
    put_be16(p->data + 2, (uint16_t)p->len);
    put_be16(p->data + 10, 0);
    put_be16(p->data + 10, (uint16_t)~pkt_sum(p->data, header, 0));
}

void pkt_raw(struct pkt *p, const char *src, const char *dst, uint8_t proto, const void *data, size_t len)
{
    struct ip_addr s, d;
    bool v6 = strchr(dst, ':') != NULL;

    memset(p, 0, V6);
    p->meta = (struct pkt_meta){ 0 };
    ip_parse(src, &s);
    ip_parse(dst, &d);
    p->l4 = v6 ? V6 : V4;
    p->len = p->l4 + len;
    assert(p->len <= PKT_MAX);
    if (v6) {
        p->data[0] = 0x60;
        p->data[6] = proto;
        p->data[7] = 64;
        memcpy(p->data + 8, s.b, 16);
        memcpy(p->data + 24, d.b, 16);
    } else {
        p->data[0] = 0x45;
        p->data[8] = 64;
        p->data[9] = proto;
        put_be16(p->data + 4, 0x4321);
        memcpy(p->data + 12, s.b + 12, 4);
        memcpy(p->data + 16, d.b + 12, 4);
    }
    if (len > 0 && data != NULL)
        memcpy(p->data + p->l4, data, len);
    pkt_fix_ip(p);
}

static uint8_t *with_header(struct pkt *p, const char *src, const char *dst, uint8_t proto, size_t header,
                            const void *data, size_t len)
{
    uint8_t *l4;

    pkt_raw(p, src, dst, proto, NULL, header + len);
    l4 = p->data + p->l4;
    memset(l4, 0, header);
    if (len > 0)
        memcpy(l4 + header, data, len);
    return l4;
}

void pkt_udp(struct pkt *p, const char *src, uint16_t sport, const char *dst, uint16_t dport,
             const void *data, size_t len)
{
    uint8_t *h = with_header(p, src, dst, IP_PROTO_UDP, 8, data, len);

    put_be16(h, sport);
    put_be16(h + 2, dport);
    put_be16(h + 4, (uint16_t)(8 + len));
    pkt_fix_l4(p);
}

void pkt_tcp(struct pkt *p, const char *src, uint16_t sport, const char *dst, uint16_t dport, uint8_t flags,
             uint32_t seq, uint32_t ack, const void *data, size_t len)
{
    uint8_t *h = with_header(p, src, dst, IP_PROTO_TCP, 20, data, len);

    put_be16(h, sport);
    put_be16(h + 2, dport);
    put_be32(h + 4, seq);
    put_be32(h + 8, ack);
    h[12] = 5 << 4;
    h[13] = flags;
    put_be16(h + 14, 65535);
    pkt_fix_l4(p);
}

void pkt_icmp(struct pkt *p, const char *src, const char *dst, uint8_t type, uint8_t code, uint32_t word,
              const void *data, size_t len)
{
    bool v6 = strchr(dst, ':') != NULL;
    uint8_t *h = with_header(p, src, dst, v6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP, 8, data, len);

    h[0] = type;
    h[1] = code;
    put_be32(h + 4, word);
    pkt_fix_l4(p);
}

void pkt_echo(struct pkt *p, const char *src, const char *dst, uint16_t id, uint16_t seq, const void *data,
              size_t len)
{
    bool v6 = strchr(dst, ':') != NULL;

    pkt_icmp(p, src, dst, v6 ? 128 : 8, 0, (uint32_t)id << 16 | seq, data, len);
}

static void insert(struct pkt *p, const uint8_t *bytes, size_t len, size_t at)
{
    memmove(p->data + at + len, p->data + at, p->len - at);
    memcpy(p->data + at, bytes, len);
    p->len += len;
    p->l4 += len;
}

void pkt_insert_options(struct pkt *p, const uint8_t *options, size_t len)
{
    insert(p, options, len, V4);
    p->data[0] = (uint8_t)(0x40 | ((V4 + len) / 4));
    pkt_fix_ip(p);
}

void pkt_insert_ext(struct pkt *p, uint8_t first, const uint8_t *chain, size_t len, size_t next_at)
{
    uint8_t proto = p->data[6];

    insert(p, chain, len, V6);
    p->data[6] = first;
    p->data[V6 + next_at] = proto;
    pkt_fix_ip(p);
}

void pkt_fragment(const struct pkt *whole, size_t offset, size_t len, bool more, uint32_t id, struct pkt *out)
{
    const uint8_t *payload = whole->data + whole->l4;

    out->meta = (struct pkt_meta){ 0 };
    if (pkt_is6(whole)) {
        uint8_t *h = out->data + V6;

        memcpy(out->data, whole->data, V6);
        out->data[6] = 44;
        memset(h, 0, 8);
        h[0] = whole->data[6];
        put_be16(h + 2, (uint16_t)(offset | more));
        put_be32(h + 4, id);
        out->l4 = V6 + 8;
    } else {
        memcpy(out->data, whole->data, whole->l4);
        put_be16(out->data + 4, (uint16_t)id);
        put_be16(out->data + 6, (uint16_t)(offset / 8 | (more ? 0x2000 : 0)));
        out->l4 = whole->l4;
    }
    memcpy(out->data + out->l4, payload + offset, len);
    out->len = out->l4 + len;
    pkt_fix_ip(out);
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static const char *parse_l4(const uint8_t *ip, const struct pkt_meta *meta, struct pkt_view *v)
{
    size_t header = v->proto == IP_PROTO_TCP ? 20 : 8, at = sum_offset(v->proto);
    uint32_t start = v->proto == IP_PROTO_ICMP ? 0 : pseudo(ip, v->proto, v->l4_len);

    if (v->l4_len < header)
        return "L4 header is cut";
    if (meta->needs_csum) {
        if (meta->csum_start != v->l4 - ip || meta->csum_offset != at)
            return "checksum place is wrong";
        if (get_be16(v->l4 + at) != pkt_sum(NULL, 0, start))
            return "pseudo-header sum is wrong";
    } else if (v->proto == IP_PROTO_UDP && get_be16(v->l4 + at) == 0) {
        return "UDP without checksum";
    } else if (pkt_sum(v->l4, v->l4_len, start) != 0xffff) {
        return "L4 checksum is wrong";
    }
    if (v->proto == IP_PROTO_TCP)
        header = (v->l4[12] >> 4) * 4u;
    if (header > v->l4_len)
        return "TCP header is cut";
    if (v->proto == IP_PROTO_UDP && get_be16(v->l4 + 4) != v->l4_len)
        return "UDP length is wrong";
    if (v->proto == IP_PROTO_ICMP || v->proto == IP_PROTO_ICMPV6) {
        v->type = v->l4[0];
        v->code = v->l4[1];
        v->word = get_be32(v->l4 + 4);
    } else {
        v->sport = get_be16(v->l4);
        v->dport = get_be16(v->l4 + 2);
    }
    v->data = v->l4 + header;
    v->len = v->l4_len - header;
    return NULL;
}

static const char *parse_v4(const uint8_t *d, size_t len, struct pkt_view *v)
{
    uint16_t word = get_be16(d + 6);
    size_t header = (d[0] & 0x0fu) * 4;

    if (header < V4 || len < header || get_be16(d + 2) != len)
        return "IPv4 lengths are wrong";
    if (pkt_sum(d, header, 0) != 0xffff)
        return "IPv4 header checksum is wrong";
    v->src = ip_from4(d + 12);
    v->dst = ip_from4(d + 16);
    v->tos = d[1];
    v->ttl = d[8];
    v->proto = d[9];
    v->id = get_be16(d + 4);
    v->df = (word & 0x4000) != 0;
    v->more = (word & 0x2000) != 0;
    v->offset = (word & 0x1fffu) * 8;
    v->fragment = v->more || v->offset > 0;
    v->l4 = d + header;
    return NULL;
}

static const char *parse_v6(const uint8_t *d, size_t len, struct pkt_view *v)
{
    if (len < V6 || get_be16(d + 4) != len - V6)
        return "IPv6 lengths are wrong";
    v->src = ip_from6(d + 8);
    v->dst = ip_from6(d + 24);
    v->tos = (uint8_t)(get_be16(d) >> 4);
    v->ttl = d[7];
    v->proto = d[6];
    v->df = true;
    v->l4 = d + V6;
    if (v->proto == 44) {
        if (len < V6 + 8)
            return "fragment header is cut";
        v->proto = d[V6];
        v->offset = get_be16(d + V6 + 2) & 0xfff8u;
        v->more = (d[V6 + 3] & 1) != 0;
        v->id = get_be32(d + V6 + 4);
        v->fragment = true;
        v->l4 += 8;
    }
    return NULL;
}

const char *pkt_parse(const uint8_t *data, size_t len, const struct pkt_meta *meta, struct pkt_view *out)
{
    const char *wrong;

    *out = (struct pkt_view){ 0 };
    if (len < V4)
        return "too short";
    wrong = data[0] >> 4 == 6 ? parse_v6(data, len, out) : parse_v4(data, len, out);
    if (wrong != NULL)
        return wrong;
    out->l4_len = len - (size_t)(out->l4 - data);
    out->data = out->l4;
    out->len = out->l4_len;
    return out->fragment ? NULL : parse_l4(data, meta, out);
}
