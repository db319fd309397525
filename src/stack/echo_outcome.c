/* echo_outcome.c - from what became of an echo to the packet that its client gets (icmp.md 2.4, 3.2 A8, 4.4,
 * 4.5).
 *
 * One way out for all of them: the built-in reply, a completed token, an injected late reply. Id, sequence
 * number and addressee come from the request and from nowhere else. */
#include "echo_impl.h"

struct echo_subject echo_subject_of(const struct stack *s, const struct packet *p)
{
    return (struct echo_subject){ .p = *p,
                                  .payload = p->l4 + ICMP_HEADER,
                                  .payload_len = p->l4_len - ICMP_HEADER,
                                  .ip_id = p->v6 ? 0 : get_be16(p->ip + 4),
                                  .options = s->reply_options,
                                  .limited = true };
}

/* Who the answer comes from, if nobody is named: the address that was asked, or of a group one of ours. */
static const struct ip_addr *own_source(struct stack *s, const struct packet *p)
{
    return p->broadcast || p->multicast ? iface_source_for(&s->iface, p->multicast ? &p->src : &p->dst)
                                        : &p->dst;
}

static bool names_source(const struct echo_outcome *o)
{
    return o != NULL && !ip_is_none(&o->source);
}

static enum echo_result no_route(struct stack *s, bool v6)
{
    COUNT_ICMP(s, v6, no_route);
    return EV_NO_ROUTE;
}

static void override(struct ip_out *out, struct iovec *payload, const struct echo_outcome *o)
{
    if (o->ttl != 0)
        out->ttl = o->ttl;
    if (o->has_tos)
        out->tos = o->tos;
    if (o->payload != NULL)
        *payload = (struct iovec){ .iov_base = (uint8_t *)(uintptr_t)o->payload, .iov_len = o->payload_len };
}

/* icmp.md R1 to R10. The request's bytes are the reply's payload where they lie: nothing is copied. */
enum echo_result echo_send_reply(struct stack *s, const struct echo_subject *q, const struct echo_outcome *o)
{
    const struct packet *p = &q->p;
    const struct ip_addr *src = names_source(o) ? &o->source : own_source(s, p);
    uint8_t room[IP_OUT_HEADROOM + ICMP_HEADER], *h = room + IP_OUT_HEADROOM;
    struct iovec payload = { .iov_base = (uint8_t *)(uintptr_t)q->payload, .iov_len = q->payload_len };
    struct ip_out out = { .dst = p->src, .ttl = s->cfg.ttl, .tos = p->tos, .csum_offset = 2 };

    if (!stack_has_family(s, &p->src) || src == NULL || ip_is4(src) == p->v6 ||
        !ip_may_send_from(s, src, &p->dst))
        return no_route(s, p->v6);
    if (q->limited && s->cfg.echo_reply_limited &&
        !bucket_take(&s->echo_bucket, s->now_us, s->cfg.echo_replies_per_second, s->cfg.echo_replies_burst)) {
        COUNT_ICMP(s, p->v6, rate_limited);
        return EV_RATE_LIMITED;
    }
    out.src = *src;
    out.proto = p->v6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP;
    out.df = !p->v6 && p->df && !p->reassembled;
    out.ip_id = q->ip_id;
    out.options = q->options.len > 0 ? &q->options : NULL;
    if (o != NULL)
        override(&out, &payload, o);
    memcpy(h, p->l4, ICMP_HEADER);
    h[0] = p->v6 ? ICMP6_ECHO_REPLY : ICMP4_ECHO_REPLY;
    if (payload.iov_base == NULL || ip_output(s, &out, h, ICMP_HEADER, &payload, 1) != 0) {
        COUNT_ICMP(s, p->v6, dropped);
        return EV_DROPPED;
    }
    COUNT_ICMP(s, p->v6, tx_echo_reply);
    return EV_SENT;
}

/* ---- errors -------------------------------------------------------------------------------------------- */

static bool error_of(const struct echo_outcome *o, bool v6, struct icmp_error *out)
{
    switch (o->kind) {
    case ECHO_OUT_DROP:
    case ECHO_OUT_REPLY:
        return false;
    case ECHO_OUT_ERROR:
        *out = (struct icmp_error){ .type = o->type, .code = o->code, .word = o->info };
        break;
    case ECHO_OUT_EXPIRE:
        icmp_error_for(v6, REJECT_TTL_EXCEEDED, 0, out);
        break;
    case ECHO_OUT_REJECT:
        if (!icmp_error_for(v6, o->why, 0, out))
            return false;
        break;
    }
    out->limited = !o->relayed;
    out->from = o->source;
    return true;
}

/* Only what is an error of the family may be sent as one: an outcome must not become a reply, or a
 * redirect. */
static bool is_sound(const struct icmp_error *e, bool v6)
{
    if (v6)
        return e->type >= ICMP6_UNREACHABLE && e->type <= ICMP6_PARAM_PROBLEM;
    return e->type == ICMP4_UNREACHABLE || e->type == ICMP4_TIME_EXCEEDED || e->type == ICMP4_PARAM_PROBLEM;
}

/* The quote is the caller's, or what was kept, or made of what is known: addresses, and the ICMP header. */
static enum echo_result send_about(struct stack *s, const struct echo_subject *q,
                                   const struct echo_outcome *o, const struct icmp_error *e)
{
    struct flow_key flow = { .client = q->p.src,
                             .target = q->p.dst,
                             .proto = q->p.v6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP };
    uint8_t made[V6_HEADER + ICMP_HEADER];
    struct packet p = q->p;

    if (o->quote != NULL) {
        p.ip = o->quote;
        p.ip_len = o->quote_len;
    } else if (p.ip == NULL) {
        size_t header = icmp_rebuild_header(s, &flow, ICMP_HEADER + q->payload_len, made);

        memcpy(made + header, p.l4, ICMP_HEADER);
        p.ip = made;
        p.ip_len = (uint32_t)(header + ICMP_HEADER);
    }
    return icmp_send_chosen(s, &p, e);
}

static enum echo_result send_error(struct stack *s, const struct echo_subject *q,
                                   const struct echo_outcome *o)
{
    struct icmp_error e = { 0 };

    if (!error_of(o, q->p.v6, &e))
        return EV_DROPPED;
    if (!is_sound(&e, q->p.v6) || !icmp_may_answer(&q->p, e.type, e.code)) {
        COUNT_ICMP(s, q->p.v6, dropped);
        return EV_DROPPED;
    }
    if (!ip_is_none(&e.from) && (ip_is4(&e.from) == q->p.v6 || !ip_may_send_from(s, &e.from, &q->p.dst)))
        return no_route(s, q->p.v6);
    return send_about(s, q, o, &e);
}

enum echo_result echo_send_outcome(struct stack *s, const struct echo_subject *q,
                                   const struct echo_outcome *o)
{
    enum echo_result r = o->kind == ECHO_OUT_REPLY ? echo_send_reply(s, q, o) : send_error(s, q, o);

    if (r == EV_SENT)
        COUNT_ICMP(s, q->p.v6, injected);
    return r;
}

/* ---- without a token ----------------------------------------------------------------------------------- */

enum echo_result echo_inject(struct stack *s, const struct echo_outcome *o, const struct echo_addr *a)
{
    bool v6 = !ip_is4(&a->client);
    uint8_t icmp[ICMP_HEADER] = { v6 ? ICMP6_ECHO : ICMP4_ECHO };
    struct echo_subject q = { .p = { .src = a->client,
                                     .dst = a->target,
                                     .proto = v6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP,
                                     .v6 = v6,
                                     .l4 = icmp,
                                     .l4_len = ICMP_HEADER } };

    if (ip_is4(&a->target) == v6 || ip_is_martian(&a->client) || ip_is_none(&a->target))
        return no_route(s, v6);
    put_be16(icmp + 4, a->id);
    put_be16(icmp + 6, a->seq);
    q.ip_id = (uint16_t)prng_next(&s->prng);
    if (o->payload == NULL && o->payload_len == 0) /* a reply that carries nothing */
        q.payload = icmp;
    return echo_send_outcome(s, &q, o);
}

/* ---- as bytes ------------------------------------------------------------------------------------------ */

/* What a record begins with; the payload and the quote follow. */
struct packed {
    struct echo_outcome o; /* its pointers are only NULL or not */
};

size_t echo_outcome_pack(const struct echo_outcome *o, void *out, size_t cap)
{
    size_t payload = o->payload != NULL ? o->payload_len : 0, quote = o->quote != NULL ? o->quote_len : 0;
    size_t need = sizeof(struct packed) + payload + quote;
    uint8_t *at = out;

    if (out == NULL || cap < need)
        return need;
    memcpy(at, o, sizeof(*o));
    if (payload > 0)
        memcpy(at + sizeof(struct packed), o->payload, payload);
    if (quote > 0)
        memcpy(at + sizeof(struct packed) + payload, o->quote, quote);
    return need;
}

bool echo_outcome_unpack(const void *data, size_t len, struct echo_outcome *out)
{
    struct span rest = { data, len };
    struct echo_outcome o;
    const uint8_t *head;

    if (!span_bytes(&rest, sizeof(struct packed), &head))
        return false;
    memcpy(&o, head, sizeof(o));
    if ((o.payload != NULL && !span_bytes(&rest, o.payload_len, &o.payload)) ||
        (o.quote != NULL && !span_bytes(&rest, o.quote_len, &o.quote)) || rest.len != 0)
        return false;
    *out = o;
    return true;
}
