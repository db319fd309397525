/* ip_ext.c - IPv6 extension headers (RFC 8200 section 4), walked with bounds.
 *
 * At most 8 headers and 512 bytes are looked at, so that the cost of a packet does not depend on its sender. Hop-by-hop
 * options stand first or nowhere; a routing header is passed over when it is used up, and refused otherwise (type 0
 * always, RFC 5095); unknown options do what the two high bits of their type ask for. */
#include "ip_impl.h"

#define MAX_HEADERS 8
#define MAX_BYTES   512

enum { OPT_PAD1 = 0, OPT_PADN = 1, OPT_ROUTER_ALERT = 5, OPT_JUMBO = 0xc2 };
enum { PROBLEM_FIELD = 0, PROBLEM_NEXT_HEADER = 1, PROBLEM_OPTION = 2 }; /* RFC 4443 section 3.4 */
enum { ROUTING_TYPE_0 = 0 };

struct walk {
    struct stack *s;
    struct packet *p;
    enum ext_place place;
    uint32_t named_at; /* offset of the byte that named the header we are at */
};

static void problem(const struct walk *w, uint8_t code, const uint8_t *at)
{
    if (w->place != EXT_LOOK)
        icmp_send_raw(w->s, w->p, ICMP6_PARAM_PROBLEM, code, (uint32_t)(at - w->p->ip));
}

static enum ext_verdict refuse(const struct walk *w)
{
    if (w->place != EXT_LOOK)
        COUNT(w->s, ip_ext_header);
    return EXT_DROP;
}

/* True when the packet may live with this option; else it was answered as its type asks (RFC 8200 section 4.2). */
static bool option_passes(const struct walk *w, const uint8_t *option)
{
    uint8_t type = option[0];

    if (type == OPT_ROUTER_ALERT)
        w->p->router_alert = true;
    if (type == OPT_PADN || type == OPT_ROUTER_ALERT || type >> 6 == 0)
        return true;
    if (type == OPT_JUMBO) {
        problem(w, PROBLEM_FIELD, option);
        return false;
    }
    if (type >> 6 == 2 || (type >> 6 == 3 && !w->p->multicast))
        problem(w, PROBLEM_OPTION, option);
    return false;
}

static bool options_pass(const struct walk *w, const uint8_t *header, size_t len)
{
    struct span rest = { header + 2, len - 2 };

    while (rest.len > 0) {
        const uint8_t *option = rest.data;
        uint8_t type, size;

        span_u8(&rest, &type);
        if (type == OPT_PAD1)
            continue;
        if (!span_u8(&rest, &size) || size > rest.len) {
            problem(w, PROBLEM_FIELD, option);
            return false;
        }
        if (!option_passes(w, option))
            return false;
        span_skip(&rest, size);
    }
    return true;
}

static bool routing_passes(const struct walk *w, const uint8_t *header)
{
    if (header[2] != ROUTING_TYPE_0 && header[3] == 0)
        return true;
    problem(w, PROBLEM_FIELD, header + 2);
    return false;
}

/* One header that is options or routing: checked and stepped over; *next becomes what follows it. */
static enum ext_verdict step(struct walk *w, uint8_t *next)
{
    struct packet *p = w->p;
    const uint8_t *h = p->l4;
    size_t len;

    if (p->l4_len < 8)
        return EXT_SHORT;
    len = ((size_t)h[1] + 1) * 8;
    if (len > p->l4_len)
        return EXT_SHORT;
    p->ext_bytes += (uint32_t)len;
    if (++p->ext_headers > MAX_HEADERS || p->ext_bytes > MAX_BYTES)
        return refuse(w);
    if (!(*next == NEXT_ROUTING ? routing_passes(w, h) : options_pass(w, h, len)))
        return refuse(w);
    w->named_at = (uint32_t)(h - p->ip);
    *next = h[0];
    p->l4 += len;
    p->l4_len -= (uint32_t)len;
    return EXT_UPPER;
}

static enum ext_verdict at_fragment(struct walk *w)
{
    if (w->p->l4_len < FRAG_HEADER)
        return EXT_SHORT;
    if (w->place != EXT_FIRST ||
        ++w->p->ext_headers > MAX_HEADERS) /* a second one: fragments of fragments are never made */
        return refuse(w);
    return EXT_FRAGMENT;
}

static enum ext_verdict at_unknown(struct walk *w, uint8_t next)
{
    if (w->place == EXT_LOOK)
        return EXT_DROP;
    COUNT(w->s, ip_proto);
    if (next != NEXT_NONE && w->s->cfg.proto_unreachable)
        problem(w, PROBLEM_NEXT_HEADER, w->p->ip + w->named_at);
    return EXT_DROP;
}

/* Where the first header of the walk was named: in the IPv6 header, or in an atomic fragment's. */
static uint32_t first_named_at(const struct packet *p)
{
    uint32_t at = (uint32_t)(p->l4 - p->ip);

    return at == V6_HEADER ? 6 : at - FRAG_HEADER;
}

enum ext_verdict ip_ext_walk(struct stack *s, struct packet *p, uint8_t next, enum ext_place place)
{
    struct walk w = { .s = s, .p = p, .place = place, .named_at = first_named_at(p) };
    bool first = place == EXT_FIRST;

    for (;; first = false) {
        enum ext_verdict v;

        switch (next) {
        case IP_PROTO_TCP:
        case IP_PROTO_UDP:
        case IP_PROTO_ICMPV6:
            p->proto = next;
            return EXT_UPPER;
        case NEXT_FRAGMENT:
            return at_fragment(&w);
        case NEXT_HOP_BY_HOP:
            if (!first) {
                problem(&w, PROBLEM_NEXT_HEADER, p->ip + w.named_at);
                return refuse(&w);
            }
            break;
        case NEXT_DEST_OPTIONS:
        case NEXT_ROUTING:
            break;
        default: /* a number from the wire */
            return at_unknown(&w, next);
        }
        v = step(&w, &next);
        if (v != EXT_UPPER)
            return v;
    }
}
