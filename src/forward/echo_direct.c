/* echo_direct.c - pings of DIRECT: a client's request to the echo proxy, its answers back to the client (icmp.md M12).
 *
 * What always holds. A request that cannot be sent is dropped, or told to the client as what our kernel said of the target; it is
 * never answered in the target's place (M17). An answer carries what the target or a router said, in the client's terms. */
#include "forward_impl.h"

/* This worker is the only one that its proxy answers to; with a place in the upper bits it is a ping to a fake address. */
enum { RESPONDER = 1 };

static void fill(const struct echo_req *r, const struct echo_alias *alias, struct echo_proxy_request *out)
{
    bool v6 = !ip_is4(&r->dst);

    *out = (struct echo_proxy_request){
        .client = r->src,
        .target = alias ? alias->real : r->dst,
        .ingress = alias ? (uint32_t)alias->place : 0,
        .id = r->id,
        .seq = r->seq,
        .checksum = get_be16(r->ip_header + r->ip_header_len + 2), /* the datagram follows its header */
        .code = r->code,
        .ttl = r->ttl,
        .tos = r->tos,
        .df = v6 ? !(r->flags & ECHO_REASSEMBLED) : r->df,
        .broadcast = (r->flags & (ECHO_BROADCAST | ECHO_MULTICAST)) != 0,
        .options = r->ip_header_len > (v6 ? 40 : 20),
        .responder = alias ? alias->place << 1 : RESPONDER,
        .payload = r->payload,
        .payload_len = r->payload_len,
        .ip_header = r->ip_header,
        .ip_header_len = r->ip_header_len,
    };
}

/* A request that was held has lost the right to an answer of the stack, but not its client. */
static void say_late(struct forward *f, const struct echo_req *r, const struct echo_outcome *o)
{
    struct echo_addr to = { r->src, r->dst, r->id, r->seq };

    if (echo_inject(f->stack, o, &to) != EV_SENT)
        FCOUNT(f, echo_undelivered);
}

void echo_refuse(struct forward *f, struct echo_req *r, enum stack_reject why)
{
    struct echo_outcome o = { .kind = ECHO_OUT_REJECT, .why = why };

    if ((r->flags & ECHO_WAS_HELD) != 0)
        say_late(f, r, &o);
    else
        echo_reject(r, why);
}

void echo_end(struct forward *f, struct echo_req *r)
{
    struct echo_outcome o = { .kind = ECHO_OUT_EXPIRE };

    if ((r->flags & ECHO_WAS_HELD) != 0)
        say_late(f, r, &o);
    else
        echo_expire(r);
}

bool echo_direct(struct forward *f, struct echo_req *r, const struct echo_alias *alias)
{
    struct echo_proxy_request request;
    enum stack_reject why = REJECT_SILENT;

    fill(r, alias, &request);
    switch (echo_proxy_send(f->echo, &request)) {
    case ECHO_PROXY_SENT:
        FCOUNT(f, echo_proxied);
        return true;
    case ECHO_PROXY_DROPPED:
        FCOUNT(f, echo_dropped);
        return true;
    case ECHO_PROXY_EXPIRED:
        FCOUNT(f, echo_rejected);
        echo_end(f, r);
        return true;
    case ECHO_PROXY_OFF:
        return false;
    case ECHO_PROXY_NET_UNREACH:
        why = REJECT_NET_UNREACH;
        break;
    case ECHO_PROXY_HOST_UNREACH:
        why = REJECT_HOST_UNREACH;
        break;
    case ECHO_PROXY_ADMIN_PROHIBITED:
        why = REJECT_ADMIN_PROHIBITED;
        break;
    }
    FCOUNT(f, echo_rejected);
    echo_refuse(f, r, why);
    return true;
}

/* Is it @target's datagram that an error quotes? Where the client's own header is not kept any more, or is one with extensions, the
 * proxy makes one out of what it knows: the address that it sends to. */
static bool quotes(const struct echo_proxy_answer *a, const struct ip_addr *target)
{
    if (ip_is4(target))
        return a->quote_len >= 20 && memcmp(a->quote + 16, target->b + 12, 4) == 0;
    return a->quote_len >= 40 && memcmp(a->quote + 24, target->b, 16) == 0;
}

void forward_on_echo_answer(void *arg, uint64_t responder, const struct echo_proxy_answer *a)
{
    struct forward *f = arg;
    const struct ip_addr *shown = responder == RESPONDER ? &a->target : echo_name_shown(f, responder >> 1);
    struct echo_addr to = { a->client, a->target, a->id, a->seq };
    struct echo_outcome o = { .kind = a->is_error ? ECHO_OUT_ERROR : ECHO_OUT_REPLY };

    if (!shown) {
        FCOUNT(f, echo_undelivered);
        return;
    }
    to.target = *shown;
    if (a->is_error) {
        bool pointer4 = ip_is4(&a->target) && a->type == 12;

        o.type = a->type;
        o.code = a->code;
        o.info = pointer4 ? a->info << 24 : a->info; /* RFC 792: the pointer is the first of the four bytes */
        o.source = ip_equal(&a->offender, &a->target) ? *shown : a->offender;
        if (quotes(a, shown)) { /* else the stack makes one, and no real address is in it (icmp.md M18) */
            o.quote = a->quote;
            o.quote_len = a->quote_len;
        }
        o.relayed = true;
    } else {
        o.payload = a->payload;
        o.payload_len = a->payload_len;
        o.ttl = a->ttl;
        o.tos = a->tos;
        o.has_tos = true;
    }
    if (echo_inject(f->stack, &o, &to) != EV_SENT)
        FCOUNT(f, echo_undelivered);
}
