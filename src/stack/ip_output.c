/* ip_output.c - the last step of every packet that the stack sends: IP header, checksum, fragments, emit.
 *
 * The L4 header lies in its sender's memory with room in front of it for ours; payload is never moved (DN-2).
 * When the device fills in checksums we store the sum of the pseudo-header, which is what it continues from
 * (VN-4), else we sum the payload ourselves and count the bytes. TCP always carries DF and fits (RFC 6864
 * section 4: its id may then be anything, so 0); what is larger than the MTU and may be cut is cut here (RFC
 * 791 section 2.3, RFC 8200 section 4.5). */
#include "ip_impl.h"

#define FRAG_RANGES (STACK_EMIT_IOV - 1)
#define V6_MTU_MIN  1280

static size_t ranges_len(const struct iovec *v, int n)
{
    size_t sum = 0;

    for (int i = 0; i < n; i++)
        sum += v[i].iov_len;
    return sum;
}

/* The sum over ranges that follow @offset bytes: a range at an odd place has its bytes in the other halves of
 * the words. */
static uint32_t ranges_sum(struct stack *s, uint32_t sum, size_t offset, const struct iovec *v, int n)
{
    for (int i = 0; i < n; i++) {
        uint16_t part;

        COUNT_ADD(s, payload_summed, v[i].iov_len);
        if (offset % 2 == 0) {
            sum = csum_add(sum, v[i].iov_base, v[i].iov_len);
        } else {
            uint32_t swapped;

            part = csum_fold(csum_add(0, v[i].iov_base, v[i].iov_len));
            swapped = (uint32_t)(uint16_t)(part << 8 | part >> 8);
            sum = csum_add(sum, &swapped, sizeof(swapped));
        }
        offset += v[i].iov_len;
    }
    return sum;
}

/* Does this protocol's checksum cover the pseudo-header? ICMPv4 is the one that has none. */
static bool has_pseudo(uint8_t proto)
{
    return proto != IP_PROTO_ICMP;
}

static void put_sum(uint8_t *l4, uint16_t offset, uint16_t folded)
{
    memcpy(l4 + offset, &folded, sizeof(folded));
}

static void full_checksum(struct stack *s, const struct ip_out *o, uint8_t *l4, size_t l4_len,
                          const struct iovec *payload, int ranges, size_t total)
{
    uint32_t sum = has_pseudo(o->proto) ? csum_pseudo(&o->src, &o->dst, o->proto, (uint32_t)total) : 0;
    uint16_t check;

    put_sum(l4, o->csum_offset, 0);
    sum = csum_add(sum, l4, l4_len);
    check = (uint16_t)~csum_fold(ranges_sum(s, sum, l4_len, payload, ranges));
    if (check == 0 && o->proto == IP_PROTO_UDP) /* 0 says "none" (RFC 768) */
        check = 0xffff;
    put_sum(l4, o->csum_offset, check);
}

static size_t v4_header_len(const struct ip_options *options)
{
    return V4_HEADER + (options != NULL ? options->len : 0u);
}

static void put_v4(const struct ip_out *o, const struct ip_options *options, uint8_t *h, size_t total,
                   uint16_t id, uint16_t fragment)
{
    size_t header = v4_header_len(options);
    uint16_t check;

    h[0] = (uint8_t)(0x40 | header / 4);
    h[1] = o->tos;
    put_be16(h + 2, (uint16_t)total);
    put_be16(h + 4, id);
    put_be16(h + 6, fragment);
    h[8] = o->ttl;
    h[9] = o->proto;
    put_be16(h + 10, 0);
    memcpy(h + 12, o->src.b + 12, 4);
    memcpy(h + 16, o->dst.b + 12, 4);
    if (header > V4_HEADER)
        memcpy(h + V4_HEADER, options->data, options->len);
    check = (uint16_t)~csum_fold(csum_add(0, h, header));
    memcpy(h + 10, &check, sizeof(check));
}

static void put_v6(const struct ip_out *o, uint8_t *h, size_t payload, uint8_t next_header)
{
    put_be32(h, (uint32_t)6 << 28 | (uint32_t)o->tos << 20 | (o->flow_label & 0xfffff));
    put_be16(h + 4, (uint16_t)payload);
    h[6] = next_header;
    h[7] = o->ttl;
    memcpy(h + 8, o->src.b, 16);
    memcpy(h + 24, o->dst.b, 16);
}

static int emit(struct stack *s, const struct iovec *iov, int n, const struct pkt_meta *meta, size_t total)
{
    int r = s->ev.emit(s->ev.driver, iov, n, meta);

    COUNT(s, ip_out);
    COUNT_ADD(s, ip_out_bytes, total);
    if (r != 0)
        COUNT(s, ip_emit_failed);
    return r;
}

/* ---- whole packets ------------------------------------------------------------------------------------- */

static void meta_for_offload(struct pkt_meta *m, const struct ip_out *o, size_t ip_len, size_t l4_len)
{
    m->needs_csum = true;
    m->csum_start = (uint16_t)ip_len;
    m->csum_offset = o->csum_offset;
    m->hdr_len = (uint16_t)(ip_len + l4_len);
    if (o->gso_size == 0)
        return;
    m->gso_size = o->gso_size;
    m->ecn = o->ecn_cwr;
    if (o->proto == IP_PROTO_UDP)
        m->gso = PKT_GSO_UDP;
    else
        m->gso = ip_is4(&o->dst) ? PKT_GSO_TCP4 : PKT_GSO_TCP6;
}

static int output_whole(struct stack *s, const struct ip_out *o, uint8_t *l4, size_t l4_len,
                        const struct iovec *payload, int ranges, size_t total)
{
    bool v4 = ip_is4(&o->dst);
    size_t ip_len = v4 ? v4_header_len(o->options) : V6_HEADER;
    struct iovec iov[STACK_EMIT_IOV];
    struct pkt_meta meta = { 0 };

    if (s->cfg.offload_csum && (o->proto == IP_PROTO_TCP || o->proto == IP_PROTO_UDP)) {
        put_sum(l4, o->csum_offset, csum_fold(csum_pseudo(&o->src, &o->dst, o->proto, (uint32_t)total)));
        meta_for_offload(&meta, o, ip_len, l4_len);
    } else {
        full_checksum(s, o, l4, l4_len, payload, ranges, total);
    }
    if (v4)
        put_v4(o, o->options, l4 - ip_len, ip_len + total, o->ip_id, o->df ? V4_DF : 0);
    else
        put_v6(o, l4 - V6_HEADER, total, o->proto);
    iov[0] = (struct iovec){ .iov_base = l4 - ip_len, .iov_len = ip_len + l4_len };
    for (int i = 0; i < ranges; i++)
        iov[1 + i] = payload[i];
    return emit(s, iov, 1 + ranges, &meta, ip_len + total);
}

/* ---- fragments ----------------------------------------------------------------------------------------- */

/* A place in a row of ranges. */
struct cursor {
    const struct iovec *v;
    int n;
    size_t offset; /* into v[0] */
};

/* Collect the next @len bytes as ranges; returns how many ranges, or -1 when they would be too many. */
static int cursor_take(struct cursor *c, size_t len, struct iovec *out, int max)
{
    int used = 0;

    while (len > 0 && c->n > 0) {
        size_t here = c->v->iov_len - c->offset;
        size_t part = here < len ? here : len;

        if (part > 0) {
            if (used == max)
                return -1;
            out[used++] =
                (struct iovec){ .iov_base = (uint8_t *)c->v->iov_base + c->offset, .iov_len = part };
        }
        c->offset += part;
        len -= part;
        if (c->offset == c->v->iov_len) {
            c->v++;
            c->n--;
            c->offset = 0;
        }
    }
    return used;
}

/* Headers of one fragment: IP, for IPv6 the fragment header, and in the first one the L4 header. Returns
 * their length. */
static size_t fragment_headers(const struct ip_out *o, uint8_t *h, uint32_t id, size_t offset, size_t len,
                               bool more)
{
    if (ip_is4(&o->dst)) {
        struct ip_options later = { .len = 0 };
        const struct ip_options *options = o->options;
        size_t header;

        if (options != NULL && offset > 0) {
            ip_options_copied(options, &later);
            options = &later;
        }
        header = v4_header_len(options);
        put_v4(o, options, h, header + len, (uint16_t)id, (uint16_t)(offset / 8 | (more ? V4_MF : 0)));
        return header;
    }
    put_v6(o, h, FRAG_HEADER + len, NEXT_FRAGMENT);
    h[V6_HEADER] = o->proto;
    h[V6_HEADER + 1] = 0;
    put_be16(h + V6_HEADER + 2, (uint16_t)(offset | more));
    put_be32(h + V6_HEADER + 4, id);
    return V6_HEADER + FRAG_HEADER;
}

/* What is known of the way to the client. */
static size_t path_mtu(const struct stack *s, const struct ip_out *o)
{
    return o->path_mtu != 0 && o->path_mtu < s->cfg.mtu_bytes ? o->path_mtu : s->cfg.mtu_bytes;
}

/* An IPv6 datagram that must be cut is cut so that it passes everywhere, for no router can cut it again and a
 * lost piece loses all of it (RFC 8200 section 5, RFC 8900 section 6.1). */
static size_t fragment_mtu(const struct stack *s, const struct ip_out *o)
{
    size_t mtu = path_mtu(s, o);

    return ip_is4(&o->dst) || o->path_mtu != 0 || mtu < V6_MTU_MIN ? mtu : V6_MTU_MIN;
}

static int output_fragments(struct stack *s, const struct ip_out *o, const uint8_t *l4, size_t l4_len,
                            const struct iovec *payload, int ranges, size_t total)
{
    size_t room =
        fragment_mtu(s, o) - (ip_is4(&o->dst) ? v4_header_len(o->options) : V6_HEADER + FRAG_HEADER);
    size_t offset = 0;
    struct cursor at = { .v = payload, .n = ranges };
    uint32_t id = ip_is4(&o->dst) ? o->ip_id : (uint32_t)prng_next(&s->prng);
    uint8_t headers[V4_HEADER + sizeof(o->options->data) + IP_OUT_HEADROOM];
    const struct pkt_meta none = { 0 };
    int r = 0;

    assert(l4_len <= IP_OUT_HEADROOM);
    room &= ~(size_t)7;
    while (offset < total && r == 0) {
        size_t len = total - offset < room ? total - offset : room, head, body = len;
        struct iovec iov[STACK_EMIT_IOV];
        int n;

        head = fragment_headers(o, headers, id, offset, len, offset + len < total);
        if (offset == 0) {
            memcpy(headers + head, l4, l4_len);
            head += l4_len;
            body -= l4_len;
        }
        iov[0] = (struct iovec){ .iov_base = headers, .iov_len = head };
        n = cursor_take(&at, body, iov + 1, FRAG_RANGES);
        if (n < 0)
            return -EMSGSIZE;
        r = emit(s, iov, 1 + n, &none, head + body);
        COUNT(s, frag_sent);
        offset += len;
    }
    return r;
}

static int refuse_size(struct stack *s)
{
    COUNT(s, ip_too_big);
    return -EMSGSIZE;
}

int ip_output(struct stack *s, const struct ip_out *o, uint8_t *l4, size_t l4_len,
              const struct iovec *payload, int ranges)
{
    size_t total = l4_len + ranges_len(payload, ranges);
    size_t ip_len = ip_is4(&o->dst) ? v4_header_len(o->options) : V6_HEADER;
    size_t most = ip_is4(&o->dst) ? IP_MAX - ip_len : IP_MAX; /* IPv6's length field leaves its header out */

    assert(ip_is4(&o->src) == ip_is4(&o->dst) && ranges >= 0);
    if (total > most || ranges > STACK_EMIT_IOV - 1)
        return refuse_size(s);
    if (o->gso_size > 0 || ip_len + total <= path_mtu(s, o))
        return output_whole(s, o, l4, l4_len, payload, ranges, total);
    if (o->proto == IP_PROTO_TCP || (o->df && ip_is4(&o->dst)))
        return refuse_size(s);
    full_checksum(s, o, l4, l4_len, payload, ranges, total);
    return output_fragments(s, o, l4, l4_len, payload, ranges, total);
}
