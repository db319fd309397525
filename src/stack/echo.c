/* echo.c - echo requests: who answers them, the handler's verdict, and its verbs (icmp.md 2.3, 3.1, 3.3).
 *
 * A request is lent to the handler for the time of one callback. The right to answer belongs to the one
 * struct echo_req inside the shard, so neither a copy of it nor a call that comes too late sends anything. At
 * most one answer leaves for each request: a verb, or the built-in reply when the handler passed. What is
 * answered later is echo_token.c's. */
#include "echo_impl.h"

static bool is_temporary(const struct packet *p)
{
    return !p->local && !p->by_prefix && !p->broadcast && !p->multicast;
}

/* ---- verbs --------------------------------------------------------------------------------------------- */

enum echo_result echo_right_to_answer(const struct echo_req *r)
{
    struct echo_shard *e = r->stack->echo;

    if (r != &e->req || e->current == NULL) {
        COUNT_ICMP(r->stack, !ip_is4(&r->src), stale);
        return EV_STALE;
    }
    if ((r->flags & ECHO_IS_REPLY) != 0)
        return EV_NOT_REQUEST;
    return e->answered ? EV_ALREADY : EV_SENT;
}

enum echo_result echo_reply(struct echo_req *r)
{
    enum echo_result result = echo_right_to_answer(r);
    struct echo_shard *e = r->stack->echo;
    struct echo_subject q;

    if (result != EV_SENT)
        return result;
    e->answered = true;
    q = echo_subject_of(r->stack, e->current);
    result = echo_send_reply(r->stack, &q, NULL);
    if (result == EV_SENT)
        COUNT_ICMP(r->stack, e->current->v6, handler_reply);
    return result;
}

/* One ICMP error about the current request; what was not sent is counted where it failed. */
static enum echo_result answer_with_error(struct echo_req *r, enum stack_reject why, uint32_t mtu)
{
    enum echo_result result = echo_right_to_answer(r);
    struct stack *s = r->stack;
    const struct packet *p = s->echo->current;
    struct icmp_error e;

    if (result != EV_SENT)
        return result;
    s->echo->answered = true;
    if (!icmp_error_for(p->v6, why, mtu, &e)) {
        COUNT_ICMP(s, p->v6, rejected);
        return EV_DROPPED;
    }
    if (!icmp_may_answer(p, e.type, e.code)) { /* to many: icmp.md J3 */
        COUNT_ICMP(s, p->v6, dropped);
        return EV_DROPPED;
    }
    result = icmp_send_chosen(s, p, &e);
    if (result == EV_SENT)
        COUNT_ICMP(s, p->v6, rejected);
    return result;
}

enum echo_result echo_reject(struct echo_req *r, enum stack_reject why)
{
    return answer_with_error(r, why, 0);
}

enum echo_result echo_reject_too_big(struct echo_req *r, uint32_t mtu_bytes)
{
    return answer_with_error(r, REJECT_SILENT, mtu_bytes);
}

enum echo_result echo_expire(struct echo_req *r)
{
    return answer_with_error(r, REJECT_TTL_EXCEEDED, 0);
}

/* ---- input --------------------------------------------------------------------------------------------- */

static void fill_request(struct stack *s, const struct packet *p, bool is_reply, struct echo_req *r)
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
    if (is_reply)
        r->flags |= ECHO_IS_REPLY;
}

/* The handler is read once: it may set another one while it runs, for the next message (icmp.md O23). */
static enum echo_verdict ask_handler(struct stack *s, const struct packet *p, bool is_reply)
{
    struct echo_shard *e = s->echo;
    const struct echo_on *on = &e->on[p->v6];
    enum echo_verdict v;

    assert(e->current == NULL);
    fill_request(s, p, is_reply, &e->req);
    e->current = p;
    e->answered = false;
    v = on->fn(on->arg, &e->req);
    e->current = NULL;
    e->req.payload = e->req.ip_header = NULL; /* a late reader shall notice at once (icmp.md W1) */
    return v;
}

static bool handler_wants(const struct stack *s, const struct packet *p, uint32_t kind)
{
    const struct echo_on *on = &s->echo->on[p->v6];

    return on->fn != NULL && (on->kinds & kind) != 0;
}

/* icmp.md 2.3: what happens when no handler decided. */
static bool reply_is_due(const struct stack *s, const struct packet *p)
{
    if (p->broadcast || p->multicast)
        return !s->cfg.echo_ignore_broadcast;
    if (p->local)
        return true;
    if (p->by_prefix && p->prefix_echo != LOCAL_ECHO_HANDLER)
        return p->prefix_echo == LOCAL_ECHO_REPLY;
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

static void built_in_reply(struct stack *s, const struct packet *p)
{
    if (reply_is_due(s, p)) {
        struct echo_subject q = echo_subject_of(s, p);

        echo_send_reply(s, &q, NULL);
    } else {
        COUNT_ICMP(s, p->v6, suppressed);
    }
}

/* 2.1 step 12: we are one router on the way to everything that is not our own (icmp.md 4.7). */
static bool expires_here(struct stack *s, const struct packet *p)
{
    if (!s->cfg.echo_hop || p->ttl > 1 || p->local || p->broadcast || p->multicast)
        return false;
    if (icmp_reject(s, p, REJECT_TTL_EXCEEDED, 0) == EV_SENT)
        COUNT_ICMP(s, p->v6, rejected);
    return true;
}

static bool belongs_to_handler(struct stack *s, const struct packet *p)
{
    if (p->by_prefix && p->prefix_echo != LOCAL_ECHO_HANDLER)
        return false;
    return !icmp_endpoint_shadows(s, p) && handler_wants(s, p, ECHO_KIND_REQUEST);
}

void echo_input(struct stack *s, struct packet *p)
{
    if (icmp_owner_took_it(s, p))
        return;
    COUNT_ICMP(s, p->v6, rx_echo_request);
    if (expires_here(s, p))
        return;
    if (belongs_to_handler(s, p)) {
        enum echo_verdict v = ask_handler(s, p, false);

        if (s->echo->answered)
            return;
        if (v == ECHO_CONSUMED) {
            COUNT_ICMP(s, p->v6, consumed);
            return;
        }
    }
    built_in_reply(s, p);
}

void echo_reply_input(struct stack *s, struct packet *p)
{
    COUNT_ICMP(s, p->v6, rx_echo_reply);
    if (!icmp_endpoint_reply(s, p) && handler_wants(s, p, ECHO_KIND_REPLY))
        ask_handler(s, p, true);
}

bool echo_is_in_callback(const struct stack *s)
{
    return s->echo != NULL && s->echo->current != NULL;
}

/* ---- life ---------------------------------------------------------------------------------------------- */

int stack_set_echo_handler(struct stack *s, enum ip_family family, uint32_t kinds, echo_handler *fn,
                           void *arg)
{
    bool v6 = family == IP_FAMILY_6;

    if (!stack_family_is_on(s, family))
        return -EAFNOSUPPORT;
    s->echo->on[v6] = (struct echo_on){ fn, arg, kinds };
    return 0;
}
