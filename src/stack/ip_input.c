/* ip_input.c - from bytes to a checked packet, and to the protocol that it is for (icmp.md 2.1 gives the
 * order).
 *
 * Every packet leaves this file on exactly one way: delivered to TCP, UDP or ICMP; held as a fragment; or
 * dropped with one counter. Lengths are compared before any byte is read, and everything behind the packet's
 * own length is padding that nobody sees again. IPv4 options are walked with bounds and otherwise ignored; a
 * source route is refused (RFC 9293 section 3.9.2.1). Jumbograms are not taken: no TUN device makes them. */
#include "ip_impl.h"

enum { OPTION_END = 0, OPTION_NOP = 1, OPTION_LSRR = 131, OPTION_SSRR = 137 };

static const uint8_t all_hosts_v4[4] = { 224, 0, 0, 1 };
static const uint8_t all_nodes_v6[16] = { 0xff, 0x02, [15] = 1 };
static const uint8_t mapped_prefix[12] = { [10] = 0xff, [11] = 0xff };

size_t ip_min_l4(uint8_t proto)
{
    return proto == IP_PROTO_TCP ? 20 : 8;
}

struct block *ip_copy(struct stack *s, const uint8_t *packet, size_t len, const uint8_t **out)
{
    struct block *b = block_get(s, block_class_for(len));
    uint8_t *at;

    if (b == NULL)
        return NULL;
    at = block_data(b) - (len > b->bytes ? V6_HEADER : 0);
    payload_copy(s, at, packet, len);
    *out = at;
    return b;
}

/* ---- addresses ----------------------------------------------------------------------------------------- */

/* Groups that every host is in; we join no others. */
static bool is_joined(const struct ip_addr *a)
{
    return ip_is4(a) ? memcmp(a->b + 12, all_hosts_v4, sizeof(all_hosts_v4)) == 0
                     : memcmp(a->b, all_nodes_v6, sizeof(all_nodes_v6)) == 0;
}

/* Not martian, or loopback where that is allowed. */
static bool may_be_unicast(const struct stack *s, const struct ip_addr *a)
{
    return !ip_is_martian(a) || (s->cfg.allow_loopback && ip_is_loopback(a));
}

/* Step 5. Promiscuous comes last: it asks nothing of the tables (icmp.md M2). */
static bool destination_is_ours(struct stack *s, struct packet *p)
{
    enum local_echo echo = LOCAL_ECHO_HANDLER;

    p->by_prefix = false;
    p->local = iface_is_assigned(&s->iface, &p->dst);
    p->broadcast = !p->local && iface_is_broadcast(&s->iface, &p->dst);
    p->multicast = ip_is_multicast(&p->dst);
    if (p->local || p->broadcast)
        return true;
    if (p->multicast)
        return is_joined(&p->dst);
    if (!may_be_unicast(s, &p->dst))
        return false;
    p->by_prefix = iface_is_local_prefix(&s->iface, &p->dst, &echo);
    p->prefix_echo = (uint8_t)echo;
    return p->by_prefix || s->cfg.promiscuous;
}

bool ip_may_send_from(struct stack *s, const struct ip_addr *source, const struct ip_addr *asked)
{
    return s->cfg.spoofing || (asked != NULL && ip_equal(source, asked)) ||
           iface_is_assigned(&s->iface, source);
}

bool ip_still_ours(struct stack *s, const struct packet *p)
{
    struct packet now = { .dst = p->dst };

    return !s->iface.down && destination_is_ours(s, &now) && now.local == p->local &&
           now.by_prefix == p->by_prefix;
}

/* icmp.md 2.1 steps 2 to 5, and IP-2. */
static bool addresses_pass(struct stack *s, struct packet *p, bool fragment)
{
    if (!s->cfg.allow_loopback && ip_is_loopback(&p->dst)) {
        COUNT(s, ip_bad_dst);
        return false;
    }
    if (!s->cfg.allow_loopback && ip_is_loopback(&p->src)) {
        COUNT(s, ip_bad_src);
        return false;
    }
    if (s->observers > 0 && !fragment)
        observers_show(s, p->ip, p->ip_len);
    if (!may_be_unicast(s, &p->src) || iface_is_broadcast(&s->iface, &p->src) ||
        (s->cfg.handle_local && iface_is_assigned(&s->iface, &p->src))) {
        COUNT(s, ip_bad_src);
        return false;
    }
    if (!destination_is_ours(s, p)) {
        COUNT(s, ip_bad_dst);
        return false;
    }
    return true;
}

/* ---- delivery ------------------------------------------------------------------------------------------ */

/* A packet that seems to come from where it goes to would be answered to ourselves (RFC 9293 section
 * 3.9.2.3). */
static bool is_land(const struct packet *p)
{
    if (!ip_equal(&p->src, &p->dst))
        return false;
    if ((p->proto != IP_PROTO_TCP && p->proto != IP_PROTO_UDP) || p->l4_len < 4)
        return true;
    return memcmp(p->l4, p->l4 + 2, 2) == 0;
}

/* A super-segment must be of the protocol and family that its header claims (VN-3). */
static bool gso_fits(const struct packet *p)
{
    switch ((enum pkt_gso)p->meta.gso) {
    case PKT_GSO_NONE:
        return true;
    case PKT_GSO_TCP4:
        return p->meta.gso_size > 0 && p->proto == IP_PROTO_TCP && !p->v6;
    case PKT_GSO_TCP6:
        return p->meta.gso_size > 0 && p->proto == IP_PROTO_TCP && p->v6;
    case PKT_GSO_UDP:
        return p->meta.gso_size > 0 && p->proto == IP_PROTO_UDP;
    }
    return false;
}

static void unknown_protocol(struct stack *s, const struct packet *p)
{
    COUNT(s, ip_proto);
    if (s->cfg.proto_unreachable && !p->v6) /* IPv6 answers where the chain ended, in ip_ext.c */
        icmp_send_raw(s, p, ICMP4_UNREACHABLE, 2, 0);
}

static void deliver(struct stack *s, struct packet *p)
{
    bool for_one = !p->broadcast && !p->multicast;

    if (is_land(p)) {
        COUNT(s, ip_bad_src);
        return;
    }
    if (!gso_fits(p)) {
        COUNT(s, ip_malformed);
        return;
    }
    /* Trust is for the checksum that the device speaks of, and only there (VN-2). */
    p->csum_ok = !p->reassembled &&
                 (p->meta.csum_valid || (p->meta.needs_csum && p->meta.csum_start == p->l4 - p->ip));
    if (p->proto == (p->v6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP))
        icmp_input(s, p);
    else if (p->proto != IP_PROTO_TCP && p->proto != IP_PROTO_UDP)
        unknown_protocol(s, p);
    else if (!for_one &&
             (p->proto == IP_PROTO_TCP || s->ev.on_udp_broadcast == NULL || p->meta.gso != PKT_GSO_NONE))
        COUNT(s, ip_bad_dst); /* icmp.md TF2 */
    else if (p->proto == IP_PROTO_TCP)
        tcp_input(s, p);
    else
        udp_input(s, p);
}

/* ---- IPv4 ---------------------------------------------------------------------------------------------- */

/* False when the packet asks to be routed by its source. What cannot be parsed ends the walk: options are not
 * ours to use. */
static bool options_pass(const uint8_t *options, size_t len)
{
    struct span rest = { options, len };
    uint8_t kind, size;

    while (span_u8(&rest, &kind) && kind != OPTION_END) {
        if (kind == OPTION_LSRR || kind == OPTION_SSRR)
            return false;
        if (kind == OPTION_NOP)
            continue;
        if (!span_u8(&rest, &size) || size < 2 || size - 2u > rest.len)
            break;
        span_skip(&rest, size - 2u);
    }
    return true;
}

static void v4_fragment(struct stack *s, struct packet *p, uint16_t word)
{
    struct fragment f = { .id = get_be16(p->ip + 4),
                          .offset = (word & V4_OFFSET) * 8u,
                          .more = (word & V4_MF) != 0 };

    frag_input(s, p, &f);
}

static void v4_input(struct stack *s, struct packet *p, size_t len)
{
    const uint8_t *h = p->ip;
    size_t header, total;
    uint16_t word;

    if (len < V4_HEADER) {
        COUNT(s, ip_short);
        return;
    }
    header = (size_t)(h[0] & 0x0f) * 4;
    total = get_be16(h + 2);
    if (header < V4_HEADER || total < header || total > len) {
        COUNT(s, ip_malformed);
        return;
    }
    if (!p->meta.csum_valid && !p->meta.needs_csum && csum_fold(csum_add(0, h, header)) != 0xffff) {
        COUNT(s, ip_checksum);
        return;
    }
    p->src = ip_from4(h + 12);
    p->dst = ip_from4(h + 16);
    word = get_be16(h + 6);
    p->ip_len = (uint32_t)total;
    if (!addresses_pass(s, p, (word & (V4_MF | V4_OFFSET)) != 0))
        return;
    if (header > V4_HEADER && !options_pass(h + V4_HEADER, header - V4_HEADER)) {
        COUNT(s, ip_options);
        return;
    }
    p->l4 = h + header;
    p->l4_len = (uint32_t)(total - header);
    p->tos = h[1];
    p->ttl = h[8];
    p->proto = h[9];
    p->df = (word & V4_DF) != 0;
    if ((word & (V4_MF | V4_OFFSET)) != 0)
        v4_fragment(s, p, word);
    else
        deliver(s, p);
}

/* ---- IPv6 ---------------------------------------------------------------------------------------------- */

static bool is_mapped(const uint8_t be[16])
{
    return memcmp(be, mapped_prefix, sizeof(mapped_prefix)) == 0;
}

/* An IPv4 address in an IPv6 header is a forgery (icmp.md V11), and it would look like IPv4 from here on. */
static bool v6_addresses(struct stack *s, struct packet *p)
{
    if (is_mapped(p->ip + 8)) {
        COUNT(s, ip_bad_src);
        return false;
    }
    if (is_mapped(p->ip + 24)) {
        COUNT(s, ip_bad_dst);
        return false;
    }
    p->src = ip_from6(p->ip + 8);
    p->dst = ip_from6(p->ip + 24);
    return addresses_pass(s, p, p->ip[6] == NEXT_FRAGMENT);
}

static void v6_walk(struct stack *s, struct packet *p, uint8_t next, enum ext_place place);

/* p->l4 is at a fragment header. One that is the whole datagram is read as if the header were not there (RFC
 * 6946). */
static void v6_fragment(struct stack *s, struct packet *p)
{
    const uint8_t *h = p->l4;
    uint16_t word = get_be16(h + 2);
    struct fragment f = {
        .id = get_be32(h + 4), .offset = word & 0xfff8u, .more = (word & 1) != 0, .next = h[0]
    };

    p->fragment_header = true;
    p->l4 += FRAG_HEADER;
    p->l4_len -= FRAG_HEADER;
    if (f.offset == 0 && !f.more)
        v6_walk(s, p, f.next, EXT_NESTED);
    else
        frag_input(s, p, &f);
}

static void v6_walk(struct stack *s, struct packet *p, uint8_t next, enum ext_place place)
{
    switch (ip_ext_walk(s, p, next, place)) {
    case EXT_UPPER:
        deliver(s, p);
        break;
    case EXT_FRAGMENT:
        v6_fragment(s, p);
        break;
    case EXT_SHORT:
        COUNT(s, ip_ext_header);
        break;
    case EXT_DROP:
        break;
    }
}

static void v6_input(struct stack *s, struct packet *p, size_t len)
{
    const uint8_t *h = p->ip;
    size_t payload;

    if (len < V6_HEADER) {
        COUNT(s, ip_short);
        return;
    }
    payload = get_be16(h + 4);
    if (payload == 0 || payload > len - V6_HEADER) { /* 0 would announce a jumbogram (RFC 2675) */
        COUNT(s, ip_malformed);
        return;
    }
    p->ip_len = (uint32_t)(V6_HEADER + payload);
    if (!v6_addresses(s, p))
        return;
    p->l4 = h + V6_HEADER;
    p->l4_len = (uint32_t)payload;
    p->tos = (uint8_t)(get_be16(h) >> 4);
    p->ttl = h[7];
    p->df = true;
    p->proto = NEXT_NONE; /* until the walk knows better */
    v6_walk(s, p, h[6], p->reassembled ? EXT_NESTED : EXT_FIRST);
}

void ip_input(struct stack *s, const uint8_t *data, size_t len, const struct pkt_meta *meta,
              struct block *slot, uint32_t origin, bool reassembled)
{
    struct packet p = {
        .ip = data, .reassembled = reassembled, .origin = origin, .meta = *meta, .slot = slot
    };

    if (s->iface.down) {
        COUNT(s, ip_down);
        return;
    }
    if (len == 0) {
        COUNT(s, ip_short);
        return;
    }
    p.fragment_header = reassembled;
    p.v6 = data[0] >> 4 == 6;
    if (p.v6 && s->cfg.ipv6)
        v6_input(s, &p, len);
    else if (data[0] >> 4 == 4 && s->cfg.ipv4)
        v4_input(s, &p, len);
    else
        COUNT(s, ip_version);
}
