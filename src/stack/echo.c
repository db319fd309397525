/* echo.c - echo requests: the handler's verdict, its verbs, and the built-in reply (icmp.md 2.3 to 2.5, 3.1 to 3.3).
 *
 * A request is lent to the handler for the time of one callback. The right to answer belongs to the one struct echo_req
 * inside the shard, so neither a copy of it nor a call that comes too late sends anything. At most one answer leaves for
 * each request: a verb, or the built-in reply when the handler passed. echo_detach() copies the packet, and a token
 * (generation and place) lets it be answered once within 10 s. */
#include "ip_impl.h"

#define ICMP_HEADER     8
#define TOKENS          4096
#define KEPT_BYTES_MAX  ((size_t)4 << 20)
#define TOKEN_EXPIRY_US 10000000

struct detached {
    struct stack *s;
    struct wheel_timer expiry;
    struct block *block;
    struct packet packet; /* lies in block */
};

struct place {
    uint32_t generation; /* of the last token */
    bool in_use;
};

struct echo_shard {
    struct pool detached;
    struct place places[TOKENS];
    size_t kept_bytes;
    struct echo_req req;          /* the one that the handler sees */
    const struct packet *current; /* NULL outside the callback */
    bool answered;                /* a verb was used on it */
};

/* ---- the built-in reply ------------------------------------------------------------------------------------------------- */

static bool is_temporary(const struct packet *p)
{
    return !p->local && !p->broadcast && !p->multicast;
}

/* icmp.md R1 to R10. The request's bytes are the reply's payload where they lie: nothing is copied. */
static enum echo_result send_reply(struct stack *s, const struct packet *p)
{
    uint8_t room[IP_OUT_HEADROOM + ICMP_HEADER], *h = room + IP_OUT_HEADROOM;
    const struct ip_addr *src = p->broadcast || p->multicast ? ip_gateway(s, &p->src) : &p->dst;
    struct iovec payload = { .iov_base = (uint8_t *)(uintptr_t)p->l4 + ICMP_HEADER,
                             .iov_len = p->l4_len - ICMP_HEADER };
    struct ip_out o = { .dst = p->src, .ttl = s->cfg.ttl, .tos = p->tos, .csum_offset = 2 };

    if (src == NULL) {
        COUNT(s, icmp_no_route);
        return EV_NO_ROUTE;
    }
    o.src = *src;
    o.proto = p->v6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP;
    if (!p->v6) {
        o.df = p->df;
        o.ip_id = get_be16(p->ip + 4);
    }
    memcpy(h, p->l4, ICMP_HEADER);
    h[0] = p->v6 ? ICMP6_ECHO_REPLY : ICMP4_ECHO_REPLY;
    if (ip_output(s, &o, h, ICMP_HEADER, &payload, 1) != 0) {
        COUNT(s, icmp_dropped);
        return EV_DROPPED;
    }
    COUNT(s, icmp_echo_reply_sent);
    return EV_SENT;
}

static enum echo_result send_reject(struct stack *s, const struct packet *p, enum stack_reject why)
{
    enum echo_result r = icmp_reject(s, p, why, 0);

    if (r == EV_SENT || why == REJECT_SILENT)
        COUNT(s, icmp_rejected);
    return r;
}

/* ---- verbs -------------------------------------------------------------------------------------------------------------------- */

/* May this verb act? EV_SENT: yes. */
static enum echo_result right_to_answer(const struct echo_req *r)
{
    struct echo_shard *e = r->stack->echo;

    if (r != &e->req || e->current == NULL) {
        COUNT(r->stack, icmp_stale);
        return EV_STALE;
    }
    return e->answered ? EV_ALREADY : EV_SENT;
}

enum echo_result echo_reply(struct echo_req *r)
{
    enum echo_result may = right_to_answer(r);

    if (may != EV_SENT)
        return may;
    r->stack->echo->answered = true;
    return send_reply(r->stack, r->stack->echo->current);
}

enum echo_result echo_reject(struct echo_req *r, enum stack_reject why)
{
    enum echo_result may = right_to_answer(r);

    if (may != EV_SENT)
        return may;
    r->stack->echo->answered = true;
    return send_reject(r->stack, r->stack->echo->current, why);
}

static void forget(struct detached *d)
{
    struct echo_shard *e = d->s->echo;

    e->places[pool_index(&e->detached, d)].in_use = false;
    e->kept_bytes -= d->packet.ip_len;
    wheel_cancel(&d->s->wheel, &d->expiry);
    block_put(d->s, d->block);
    pool_put(&e->detached, d);
}

static void on_expiry(struct wheel_timer *t, uint64_t now_us)
{
    struct detached *d = CONTAINER_OF(t, struct detached, expiry);

    (void)now_us;
    COUNT(d->s, icmp_detach_expired);
    forget(d);
}

/* Copy the packet that is being handled; NULL when a cap is met. */
static struct detached *detach(struct stack *s, const struct packet *p)
{
    struct echo_shard *e = s->echo;
    struct detached *d;
    const uint8_t *ip;

    if (e->kept_bytes + p->ip_len > KEPT_BYTES_MAX)
        return NULL;
    d = pool_get(&e->detached);
    if (d == NULL)
        return NULL;
    *d = (struct detached){ .s = s, .packet = *p, .expiry.fn = on_expiry };
    d->block = ip_copy(s, p->ip, p->ip_len, &ip);
    if (d->block == NULL) {
        pool_put(&e->detached, d);
        return NULL;
    }
    d->packet.ip = ip;
    d->packet.l4 = ip + (p->l4 - p->ip);
    d->packet.slot = NULL;
    e->kept_bytes += p->ip_len;
    wheel_set(&s->wheel, &d->expiry, s->now_us + TOKEN_EXPIRY_US);
    return d;
}

echo_token echo_detach(struct echo_req *r)
{
    struct echo_shard *e = r->stack->echo;
    struct detached *d;
    uint32_t at;

    if (right_to_answer(r) != EV_SENT)
        return 0;
    d = detach(r->stack, e->current);
    if (d == NULL) {
        COUNT(r->stack, icmp_detach_refused);
        return 0;
    }
    COUNT(r->stack, icmp_detached);
    e->answered = true;
    at = pool_index(&e->detached, d);
    e->places[at].in_use = true;
    return (uint64_t)++e->places[at].generation << 32 | (at + 1);
}

enum echo_result echo_complete(struct stack *s, echo_token token, bool reply, enum stack_reject why)
{
    uint32_t at = (uint32_t)token - 1, generation = (uint32_t)(token >> 32);
    struct echo_shard *e = s->echo;
    enum echo_result result;
    struct detached *d;

    if (at >= TOKENS || !e->places[at].in_use || e->places[at].generation != generation) {
        COUNT(s, icmp_stale);
        return EV_STALE;
    }
    d = pool_at(&e->detached, at);
    result = reply ? send_reply(s, &d->packet) : send_reject(s, &d->packet, why);
    forget(d);
    return result;
}

/* ---- input -------------------------------------------------------------------------------------------------------------------- */

static void fill_request(struct stack *s, const struct packet *p, struct echo_req *r)
{
    *r = (struct echo_req){ .src = p->src,
                            .dst = p->dst,
                            .id = get_be16(p->l4 + 4),
                            .seq = get_be16(p->l4 + 6),
                            .code = p->l4[1],
                            .ttl = p->ttl,
                            .tos = p->tos,
                            .df = p->df,
                            .rx_time_us = s->now_us,
                            .payload = p->l4 + ICMP_HEADER,
                            .payload_len = p->l4_len - ICMP_HEADER,
                            .ip_header = p->ip,
                            .ip_header_len = (uint16_t)(p->l4 - p->ip),
                            .stack = s };
    if (is_temporary(p))
        r->flags |= ECHO_TEMPORARY;
    if (p->broadcast)
        r->flags |= ECHO_BROADCAST;
    if (p->multicast)
        r->flags |= ECHO_MULTICAST;
    if (p->reassembled)
        r->flags |= ECHO_REASSEMBLED;
}

static enum echo_verdict ask_handler(struct stack *s, const struct packet *p)
{
    struct echo_shard *e = s->echo;
    enum echo_verdict v;

    assert(e->current == NULL);
    fill_request(s, p, &e->req);
    e->current = p;
    e->answered = false;
    v = s->ev.on_echo(s->arg, &e->req);
    e->current = NULL;
    e->req.payload = e->req.ip_header = NULL; /* a late reader shall notice at once (icmp.md W1) */
    return v;
}

static bool built_in_reply_is_due(const struct stack *s, const struct packet *p)
{
    if (!is_temporary(p))
        return true;
    switch (s->cfg.echo_temporary) {
    case ECHO_TEMPORARY_COMPAT:
        return p->v6;
    case ECHO_TEMPORARY_SUPPRESS:
        return false;
    case ECHO_TEMPORARY_REPLY:
        return true;
    }
    return false;
}

void echo_input(struct stack *s, struct packet *p)
{
    enum echo_verdict v = ECHO_PASS;

    COUNT(s, icmp_echo_request);
    if (s->ev.on_echo != NULL) {
        v = ask_handler(s, p);
        if (s->echo->answered)
            return;
    }
    if (v == ECHO_CONSUMED)
        COUNT(s, icmp_consumed);
    else if (built_in_reply_is_due(s, p))
        send_reply(s, p);
    else
        COUNT(s, icmp_suppressed);
}

/* ---- life ------------------------------------------------------------------------------------------------------------------------ */

size_t echo_memory_bytes(void)
{
    return sizeof(struct echo_shard) + pool_region_bytes(sizeof(struct detached), TOKENS);
}

void echo_init(struct stack *s, void *memory)
{
    uint8_t *at = memory;

    s->echo = region_take(&at, sizeof(struct echo_shard), CACHE_LINE);
    pool_init(s, &s->echo->detached, "echo", sizeof(struct detached), TOKENS, &at);
}
