/* ip_options.c - IPv4 options of echo requests (RFC 791 section 3.1, RFC 2113; icmp.md 2.7).
 *
 * The handler and every quote see the header as it came; what a reply carries is made in a buffer of its own:
 * our address recorded, our time stamped, options that we do not know left out. A bad option names the octet
 * that is wrong, as Linux does: the pointer's own octet for record route and timestamp, the option's first
 * for a length that cannot be. */
#include "ip_impl.h"

enum {
    OPT_END = 0,
    OPT_NOP = 1,
    OPT_RECORD_ROUTE = 7,
    OPT_TIMESTAMP = 68,
    OPT_ROUTER_ALERT = 148,
};
enum { STAMP_ONLY = 0, STAMP_AND_ADDRESS = 1, STAMP_PRESPECIFIED = 3 };

#define COPIED             0x80 /* the option stands in every fragment (RFC 791 section 3.1) */
#define OVERFLOW_MAX       15
#define NOT_SINCE_MIDNIGHT ((uint32_t)1 << 31) /* ours is no time of day: we have no clock */

struct options {
    struct stack *s;
    const struct packet *p;
    const struct ip_addr *self; /* whom record route and timestamp name */
    struct buf out;
    bool seen_route, seen_stamp, seen_alert;
};

/* 0: fine; else the octet of the option that is wrong, counted from 1. */

static unsigned put_route(struct options *o, uint8_t *opt, unsigned len)
{
    unsigned at = opt[2];

    if (o->seen_route)
        return 1;
    o->seen_route = true;
    if (len < 3)
        return 2;
    if (at < 4)
        return 3;
    if (at > len) /* full: stays as it is */
        return 0;
    if (at + 3 > len)
        return 3;
    memcpy(opt + at - 1, o->self->b + 12, 4);
    opt[2] = (uint8_t)(at + 4);
    return 0;
}

static unsigned stamp_size(uint8_t flag)
{
    return flag == STAMP_ONLY ? 4 : 8;
}

static unsigned put_stamp(struct options *o, uint8_t *opt, unsigned len)
{
    uint32_t stamp = (uint32_t)(o->s->now_us / 1000) | NOT_SINCE_MIDNIGHT;
    unsigned at = opt[2], size = stamp_size(opt[3] & 15);
    uint8_t flag = opt[3] & 15, overflow = opt[3] >> 4;

    if (at < 5)
        return 3;
    if (flag != STAMP_ONLY && flag != STAMP_AND_ADDRESS && flag != STAMP_PRESPECIFIED)
        return 4;
    if (at > len) {
        if (overflow == OVERFLOW_MAX)
            return 4;
        opt[3] = (uint8_t)((overflow + 1) << 4 | flag);
        return 0;
    }
    if (at + size - 1 > len)
        return 3;
    if (flag == STAMP_PRESPECIFIED && memcmp(opt + at - 1, o->self->b + 12, 4) != 0)
        return 0; /* somebody else's turn */
    if (flag == STAMP_AND_ADDRESS)
        memcpy(opt + at - 1, o->self->b + 12, 4);
    put_be32(opt + at - 1 + size - 4, stamp);
    opt[2] = (uint8_t)(at + size);
    return 0;
}

/* One option of @len bytes, already copied to @opt; *keep: it stays in the reply. */
static unsigned one_option(struct options *o, uint8_t *opt, unsigned len, bool *keep)
{
    switch (opt[0]) {
    case OPT_RECORD_ROUTE:
        return len < 3 ? 2 : put_route(o, opt, len);
    case OPT_TIMESTAMP:
        if (o->seen_stamp)
            return 1;
        o->seen_stamp = true;
        return len < 4 ? 2 : put_stamp(o, opt, len);
    case OPT_ROUTER_ALERT:
        if (o->seen_alert)
            return 1;
        o->seen_alert = true;
        if (len != 4)
            return 2;
        return get_be16(opt + 2) != 0 ? 3 : 0;
    default: /* a number from the wire */
        *keep = false;
        return 0;
    }
}

/* Return: 0, or the offset in the IP header of the octet that is wrong. */
static unsigned walk(struct options *o)
{
    const uint8_t *start = o->p->ip + V4_HEADER;
    struct span rest = { start, (size_t)(o->p->l4 - start) };

    while (rest.len > 0 && rest.data[0] != OPT_END) {
        unsigned at = (unsigned)(rest.data - o->p->ip), len, wrong;
        uint8_t opt[40];
        bool keep = true;

        if (rest.data[0] == OPT_NOP) {
            buf_u8(&o->out, OPT_NOP);
            span_skip(&rest, 1);
            continue;
        }
        len = rest.len < 2 ? 0 : rest.data[1];
        if (len < 2 || len > rest.len)
            return at;
        memcpy(opt, rest.data, len);
        wrong = one_option(o, opt, len, &keep);
        if (wrong != 0)
            return at + wrong - 1;
        if (keep)
            buf_put(&o->out, opt, len);
        span_skip(&rest, len);
    }
    return 0;
}

bool ip_options_for_reply(struct stack *s, struct packet *p, struct ip_options *out)
{
    const struct ip_addr *self = ip_gateway(s, &p->dst);
    struct options o = { .s = s, .p = p, .self = self != NULL ? self : &p->dst };
    unsigned wrong;

    out->len = 0;
    if (p->v6 || p->l4 - p->ip <= V4_HEADER)
        return true;
    buf_init(&o.out, out->data, sizeof(out->data));
    wrong = walk(&o);
    if (wrong != 0) {
        icmp_send_raw(s, p, ICMP4_PARAM_PROBLEM, 0, (uint32_t)wrong << 24);
        return false;
    }
    while (o.out.len % 4 != 0)
        buf_u8(&o.out, OPT_END);
    out->len = (uint8_t)o.out.len;
    return true;
}

/* What later fragments carry: the options that are marked so. */
void ip_options_copied(const struct ip_options *all, struct ip_options *out)
{
    struct span rest = { all->data, all->len };
    struct buf b;

    buf_init(&b, out->data, sizeof(out->data));
    while (rest.len > 1 && rest.data[0] != OPT_END) {
        size_t len = rest.data[0] == OPT_NOP ? 1 : rest.data[1];

        if (len == 0 || len > rest.len)
            break;
        if ((rest.data[0] & COPIED) != 0)
            buf_put(&b, rest.data, len);
        span_skip(&rest, len);
    }
    while (b.len % 4 != 0)
        buf_u8(&b, OPT_END);
    out->len = (uint8_t)b.len;
}
