/* ping_flow.c - one flow: its socket, its end, and what comes back for it (icmp.md 4.3, X20 to X25, 4.5).
 *
 * What always holds. A reply or error is matched to a flow by what cannot be stale: a socket of its own dies with it, and on
 * shared and raw sockets the flow's generation or id must still be the one that was sent with (X16). Nothing of the flow
 * is touched after on_answer(), which may have closed it. */
#include "ping_impl.h"

#include <netinet/in.h>

#define BACKOFF_US        PING_SECOND_US /* after sockets or ids ran out (X13) */
#define ERRORS_PER_SECOND 20             /* to the client of one flow (E13) */

/* ---- end ------------------------------------------------------------------------------------------------------------ */

void ping_flow_close(struct ping_flow *f)
{
    struct echo_proxy *p = f->proxy;

    wheel_cancel(p->opt.wheel, &f->timer);
    gauge_move(&p->cnt.outstanding, -(int64_t)f->outstanding);
    gauge_move(&p->cnt.flows, -1);
    if (f->sock && f->sock->shared)
        gauge_move(&p->cnt.flows_pooled, -1);
    if (f->sock && f->sock->raw && f->wire_id) {
        p->by_raw_id[f->wire_id] = 0;
        ping_ids_put(&p->ids, f->wire_id);
    }
    ping_socket_close(&f->own);
    ping_table_remove(&p->table, f);
}

void ping_flow_socket_broke(struct ping_socket *s)
{
    struct ping_table *t = &s->proxy->table;

    if (!s->shared && !s->raw) {
        ping_flow_close(CONTAINER_OF(s, struct ping_flow, own));
        return;
    }
    for (uint32_t i = 0; i < t->flows.touched; i++) {
        struct ping_flow *f = slab_at(&t->flows, i);

        if (f->live && f->sock == s)
            ping_flow_close(f);
    }
    ping_socket_close(s); /* the next flow opens it again; raw: the next probe */
    if (s->raw)
        echo_proxy_probe(s->proxy);
}

/* The timer is not moved with each packet: it looks when it fires (X11). */
static void on_idle(struct wheel_timer *t, uint64_t now_us)
{
    struct ping_flow *f = CONTAINER_OF(t, struct ping_flow, timer);
    struct echo_proxy *p = f->proxy;
    uint64_t end_us = f->active_us + (uint64_t)p->opt.idle_ms * 1000;

    if (now_us < end_us) {
        wheel_set(p->opt.wheel, t, end_us);
        return;
    }
    PCOUNT(p, flows_idle);
    ping_flow_close(f);
}

/* ---- opening ---------------------------------------------------------------------------------------------------------- */

static int use_raw(struct ping_flow *f)
{
    struct echo_proxy *p = f->proxy;
    uint16_t id = ping_ids_take(&p->ids);

    f->sock = &p->raw[f->v6];
    if (id == 0)
        return -EAGAIN;
    f->wire_id = id;
    p->by_raw_id[id] = slab_index(&p->table.flows, f) + 1;
    return 0;
}

static int use_own(struct ping_flow *f)
{
    int r = ping_socket_open(f->proxy, &f->own, f->v6, ECHO_SOCKET_PING, NULL);

    f->sock = &f->own;
    f->wire_id = f->own.wire_id;
    return r;
}

static int use_shared(struct ping_flow *f)
{
    struct echo_proxy *p = f->proxy;
    uint32_t at = p->pool_next++ % p->opt.pool_sockets;
    struct ping_socket *s = &p->pool[f->v6][at];
    int r;

    if (s->fd < 0) {
        s->shared = true;
        s->index = (uint16_t)(at + (f->v6 ? PING_POOL_MAX : 0));
        if ((r = ping_map_open(&p->map, s->index)) != 0 ||
            (r = ping_socket_open(p, s, f->v6, ECHO_SOCKET_PING, NULL)) != 0)
            return r;
    }
    f->sock = s;
    f->wire_id = s->wire_id;
    gauge_move(&p->cnt.flows_pooled, 1);
    return 0;
}

static int take_socket(struct ping_flow *f)
{
    struct echo_proxy *p = f->proxy;

    if (p->mode[f->v6] == ECHO_PROXY_MODE_RAW)
        return use_raw(f);
    if (p->cnt.flows - p->cnt.flows_pooled <= p->opt.pool_after) /* this one is counted already */
        return use_own(f);
    return use_shared(f);
}

static enum echo_proxy_result no_socket(struct echo_proxy *p, bool v6, int r)
{
    switch (-r) {
    case EMFILE:
    case ENFILE:
        PCOUNT(p, send_emfile);
        break;
    case EADDRINUSE:
    case EAGAIN:
        PCOUNT(p, send_eagain);
        break;
    case EACCES: /* the range has changed under us: say so, and let the policy fall back */
    case EPERM:
        echo_proxy_probe(p);
        if (p->mode[v6] == ECHO_PROXY_MODE_OFF)
            return ECHO_PROXY_OFF;
        break;
    default:
        PCOUNT(p, send_other);
        break;
    }
    p->backoff_until_us = ping_now_us(p) + BACKOFF_US;
    PCOUNT(p, drop_socket);
    return ECHO_PROXY_DROPPED;
}

/* Make room for one more flow of this client; false: refused and counted. */
static bool admit(struct echo_proxy *p, const struct ip_addr *client)
{
    struct ping_flow *evict;

    if (ping_now_us(p) < p->backoff_until_us) {
        PCOUNT(p, drop_backoff);
        return false;
    }
    switch (ping_table_admit(&p->table, client, ping_now_us(p), &evict)) {
    case PING_ADMIT:
        break;
    case PING_ADMIT_RATE:
        PCOUNT(p, drop_rate);
        return false;
    case PING_ADMIT_SOURCE_CAP:
        PCOUNT(p, drop_source_cap);
        return false;
    case PING_ADMIT_FLOW_CAP:
        PCOUNT(p, drop_flow_cap);
        return false;
    }
    if (evict) {
        PCOUNT(p, flows_evicted);
        ping_flow_close(evict);
    }
    return true;
}

struct ping_flow *ping_flow_open(struct echo_proxy *p, const struct ping_key *key,
                                 const struct echo_proxy_request *r, int ifindex,
                                 enum echo_proxy_result *result)
{
    struct ping_flow *f;
    int err;

    *result = ECHO_PROXY_DROPPED;
    if (!admit(p, &key->client))
        return NULL;
    f = ping_table_add(&p->table, key, ping_now_us(p));
    if (!f) {
        PCOUNT(p, drop_flow_cap);
        return NULL;
    }
    f->proxy = p;
    f->v6 = !ip_is4(&key->target);
    f->responder = r->responder;
    f->ifindex = ifindex;
    f->timer.fn = on_idle;
    gauge_move(&p->cnt.flows, 1);
    if ((err = take_socket(f)) != 0) {
        bool v6 = f->v6;

        ping_flow_close(f);
        *result = no_socket(p, v6, err);
        return NULL;
    }
    wheel_set(p->opt.wheel, &f->timer, f->active_us + (uint64_t)p->opt.idle_ms * 1000);
    PCOUNT(p, flows_created);
    return f;
}

/* ---- answers -------------------------------------------------------------------------------------------------------------- */

static void trace_first_reply(struct ping_flow *f, uint16_t seq, uint64_t rtt_us)
{
    char client[IP_TEXT_MAX], target[IP_TEXT_MAX];

    if (f->answered_once)
        return;
    f->answered_once = true;
    log_debug("icmp proxy: first reply %s -> %s id %u seq %u, %llu.%03llu ms",
              ip_text(&f->key.target, target), ip_text(&f->key.client, client), f->key.id, seq,
              (unsigned long long)rtt_us / 1000, (unsigned long long)rtt_us % 1000);
}

/* One request of the flow has had its first answer, of either kind. */
static void settle(struct ping_flow *f, struct ping_sent *sent)
{
    if (!sent || sent->answered)
        return;
    sent->answered = true;
    f->outstanding--;
    gauge_move(&f->proxy->cnt.outstanding, -1);
}

static void deliver(struct ping_flow *f, uint16_t seq, const struct ping_message *m, bool first,
                    uint64_t late_us)
{
    struct echo_proxy *p = f->proxy;
    struct ping_sent *sent = ping_flow_sent(f, seq);
    uint8_t hop = p->opt.transparent || m->ttl <= 1 ? 0 : 1;
    struct echo_proxy_answer a = { .client = f->key.client,
                                   .target = f->key.target,
                                   .id = f->key.id,
                                   .seq = seq,
                                   .ingress = f->key.ingress,
                                   .ttl = (uint8_t)(m->ttl - hop),
                                   .tos = m->tos,
                                   .payload = m->payload,
                                   .payload_len = m->payload_len };

    if (first && sent) {
        uint64_t now_us = clock_now_us() - late_us,
                 rtt_us = now_us > sent->sent_us ? now_us - sent->sent_us : 0;

        RTT_COUNT(&p->cnt, rtt, rtt_us);
        trace_first_reply(f, seq, rtt_us);
    }
    settle(f, sent);
    ping_table_touch(&p->table, f, ping_now_us(p));
    PCOUNT(p, replies);
    p->opt.on_answer(p->opt.arg, f->responder, &a);
}

/* The flow that uses this id on the raw socket. */
static struct ping_flow *flow_of_id(struct echo_proxy *p, uint16_t id, bool v6)
{
    struct ping_flow *f = p->by_raw_id[id] ? slab_at(&p->table.flows, p->by_raw_id[id] - 1) : NULL;

    return f && f->live && f->v6 == v6 && f->wire_id == id ? f : NULL;
}

/* A reply on a socket that flows share: the number on the wire says whose it is. */
static void on_shared_message(struct ping_socket *s, const struct ip_addr *source,
                              const struct ping_message *m, uint64_t late_us)
{
    struct echo_proxy *p = s->proxy;
    struct ping_out *o = ping_map_find(&p->map, ping_now_us(p), s->index, m->seq);
    struct ping_flow *f = o ? ping_table_at(&p->table, o->flow, o->generation) : NULL;

    if (!o)
        PCOUNT(p, drop_seq);
    else if (!f)
        PCOUNT(p, drop_generation);
    else if (!ip_equal(source, &f->key.target))
        PCOUNT(p, drop_source);
    else if (o->replies >= PING_REPLIES_MAX)
        PCOUNT(p, drop_duplicate);
    else
        deliver(f, o->seq, m, o->replies++ == 0, late_us);
}

void ping_on_message(struct ping_socket *s, const struct ip_addr *source, const struct ping_message *m,
                     uint64_t late_us)
{
    struct echo_proxy *p = s->proxy;
    struct ping_flow *f;

    if (s->shared) {
        on_shared_message(s, source, m, late_us);
        return;
    }
    f = s->raw ? flow_of_id(p, m->id, s->v6) : CONTAINER_OF(s, struct ping_flow, own);
    if (!f) {
        PCOUNT(p, drop_generation);
        return;
    }
    if (!ip_equal(source,
                  &f->key.target)) { /* whoever knows the id could answer in the target's place (X20) */
        PCOUNT(p, drop_source);
        return;
    }
    switch (ping_seen_reply(&f->seen, m->seq)) {
    case PING_SEEN_NEVER:
        PCOUNT(p, drop_seq);
        break;
    case PING_SEEN_FIRST:
        deliver(f, m->seq, m, true, late_us);
        break;
    case PING_SEEN_AGAIN:
        deliver(f, m->seq, m, false, late_us);
        break;
    case PING_SEEN_TOO_OFTEN:
        PCOUNT(p, drop_duplicate);
        break;
    }
}

/* ---- errors ------------------------------------------------------------------------------------------------------------------- */

static void count_error(struct echo_proxy *p, bool v6, uint8_t type, uint8_t code)
{
#define ROW(X, family, type, code)                                                                           \
    { (family) == 6, type, code, offsetof(struct echo_proxy_counters, err_v##family##_##type##_##code) },
    static const struct {
        bool v6;
        uint8_t type, code;
        uint32_t offset;
    } kinds[] = { ECHO_PROXY_ERRORS(ROW, ) };
#undef ROW

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (kinds[i].v6 == v6 && kinds[i].type == type && kinds[i].code == code) {
            counter_add((counter *)(void *)((char *)&p->cnt + kinds[i].offset), 1);
            return;
        }
    }
    PCOUNT(p, err_other);
}

static bool error_may_pass(struct ping_flow *f)
{
    uint64_t now_us = ping_now_us(f->proxy);

    if (now_us - f->errors_window_us >= PING_SECOND_US) {
        f->errors_window_us = now_us;
        f->errors_in_window = 0;
    }
    return f->errors_in_window++ < ERRORS_PER_SECOND;
}

void ping_flow_tell(struct ping_flow *f, uint16_t seq, const struct ping_error_record *e)
{
    struct echo_proxy *p = f->proxy;
    struct ping_sent *sent = ping_flow_sent(f, seq);
    struct ping_original o = { f->key.client, f->key.target, f->key.id, seq, sent, e->source };
    struct echo_proxy_answer a = { .is_error = true,
                                   .client = f->key.client,
                                   .target = f->key.target,
                                   .id = f->key.id,
                                   .seq = seq,
                                   .ingress = f->key.ingress };
    uint8_t quote[PING_QUOTE_MAX];

    if (ping_error_map(e, f->v6, 0, &a.type, &a.code, &a.info) == PING_ERROR_DROP) {
        PCOUNT(p, drop_error);
        return;
    }
    settle(f, sent);
    if (!p->opt.relay_errors) {
        PCOUNT(p, drop_error_off);
        return;
    }
    if (!error_may_pass(f)) {
        PCOUNT(p, drop_error_rate);
        return;
    }
    if (!ip_is_none(&e->offender) && !ping_is_address_of_host(&e->offender)) /* E9 */
        a.offender = e->offender;
    a.quote = quote;
    a.quote_len = ping_quote(&o, e->quoted, quote);
    count_error(p, f->v6, a.type, a.code);
    p->opt.on_answer(p->opt.arg, f->responder, &a);
}

void ping_on_error(struct ping_socket *s, const struct ping_error_record *e)
{
    struct echo_proxy *p = s->proxy;
    struct ping_flow *f = NULL;
    struct ping_out *o = NULL;
    uint16_t id, seq;

    if (ping_quoted_echo(e->quoted, s->v6, &id, &seq)) {
        if (s->shared) {
            o = ping_map_find(&p->map, ping_now_us(p), s->index, seq);
            f = o ? ping_table_at(&p->table, o->flow, o->generation) : NULL;
        } else if (!s->raw) {
            f = CONTAINER_OF(s, struct ping_flow, own);
        } else {
            if (id < p->ids.low || id > p->ids.high)
                return; /* of another worker, or another program: every raw socket hears of every error */
            f = flow_of_id(p, id, s->v6);
        }
    }
    if (!f || id != f->wire_id || !ip_equal(&e->target, &f->key.target) ||
        (!o && !ping_seen_has(&f->seen, seq)))
        PCOUNT(p, drop_quote); /* E12 */
    else
        ping_flow_tell(f, o ? o->seq : seq, e);
}
