/* tcp_request.c - SYNs that wait for the embedder's decision: the records behind struct tcp_request.
 *
 * How it works: a SYN that nothing knows becomes a record (SYN-2: nothing larger before the upstream is
 * usable) on the list `fresh`; tcp_batch_end() tells the embedder and moves it to `pending`, which is in
 * order of age and expires after 150 s (icmp.md TF5). Another SYN with the same number is swallowed, one with
 * a new number replaces the record, an RST ends it. A record that the embedder has seen and that ended by
 * itself waits on `gone` until on_tcp_request_gone() has been called, because packets are read at times when
 * no callback may run. When half of the records are taken, a SYN is answered with a cookie (tcp_cookie.c),
 * and its record is made when the client's ACK brings that back. */
#include "tcp_impl.h"

static void list_add(struct request_list *l, struct tcp_request *r)
{
    r->next = NULL;
    r->prev = l->tail;
    if (l->tail != NULL)
        l->tail->next = r;
    else
        l->head = r;
    l->tail = r;
}

static void list_remove(struct request_list *l, struct tcp_request *r)
{
    if (r->prev != NULL)
        r->prev->next = r->next;
    else
        l->head = r->next;
    if (r->next != NULL)
        r->next->prev = r->prev;
    else
        l->tail = r->prev;
}

static struct request_list *list_of(struct tcp_shard *t, const struct tcp_request *r)
{
    switch ((enum request_state)r->state) {
    case REQUEST_NEW:
        return &t->fresh;
    case REQUEST_PENDING:
        return &t->pending;
    case REQUEST_RESET:
    case REQUEST_EXPIRED:
        return &t->gone;
    case REQUEST_DONE:
        break;
    }
    return &t->done;
}

static bool is_gone(const struct tcp_request *r)
{
    return r->state == REQUEST_RESET || r->state == REQUEST_EXPIRED || r->state == REQUEST_DONE;
}

static uint16_t *source_counter(struct stack *s, const struct ip_addr *source)
{
    return &s->tcp->per_source[hash_bytes(&s->cfg.secret, source, sizeof(*source)) % SOURCE_COUNTERS];
}

/* A handshake that waits for the client's ACK counts like a SYN that waits for the embedder. */
void tcp_half_open_enter(struct stack *s, const struct ip_addr *client)
{
    ++*source_counter(s, client);
    s->tcp->handshakes++;
}

void tcp_half_open_leave(struct stack *s, const struct ip_addr *client)
{
    --*source_counter(s, client);
    s->tcp->handshakes--;
}

/* Out of the table: the 4-tuple is free again. */
static void request_unlist(struct tcp_request *r)
{
    tcp_table_remove(r->s->tcp, &r->key);
    --*source_counter(r->s, &r->key.client);
}

static void request_free(struct tcp_request *r)
{
    struct tcp_shard *t = r->s->tcp;

    if (!is_gone(r))
        request_unlist(r);
    list_remove(list_of(t, r), r);
    pool_put(&t->requests, r);
}

/* Decided. Whoever decides a second time in the same turn gets an error, not the memory of another request. */
static void request_done(struct tcp_request *r)
{
    struct tcp_shard *t = r->s->tcp;

    if (!is_gone(r))
        request_unlist(r);
    list_remove(list_of(t, r), r);
    r->state = REQUEST_DONE;
    list_add(&t->done, r);
    t->requests_done++;
}

void tcp_request_reap(struct stack *s)
{
    struct tcp_shard *t = s->tcp;

    while (t->done.head != NULL)
        request_free(t->done.head);
    t->requests_done = 0;
}

/* It ends by itself: silently if the embedder has not heard of it yet. */
static void request_ends(struct tcp_request *r, enum request_state how)
{
    struct tcp_shard *t = r->s->tcp;

    if (r->state == REQUEST_NEW) {
        request_free(r);
        return;
    }
    request_unlist(r);
    list_remove(&t->pending, r);
    r->state = (uint8_t)how;
    list_add(&t->gone, r);
}

uint8_t tcp_request_offers(const struct tcp_seg *syn)
{
    const struct tcp_options *o = &syn->opt;
    bool ecn = (syn->flags & (TCP_ECE | TCP_CWR)) == (TCP_ECE | TCP_CWR); /* RFC 3168 section 6.1.1 */

    return (uint8_t)((o->has_ts ? REQUEST_TS : 0) | (o->sack_ok ? REQUEST_SACK : 0) |
                     (o->has_ws ? REQUEST_WS : 0) | (ecn ? REQUEST_ECN : 0));
}

static void request_fill(struct tcp_request *r, const struct packet *p, const struct tcp_seg *seg)
{
    const struct tcp_options *o = &seg->opt;

    r->irs = seg->seq;
    r->wnd = seg->wnd;
    r->mss = o->has_mss ? o->mss : 0;
    r->ws = o->has_ws ? o->ws : 0;
    r->tsval = o->has_ts ? o->tsval : 0;
    r->tos = p->tos;
    r->flags = (uint8_t)(tcp_request_offers(seg) | (p->v6 ? REQUEST_V6 : 0));
}

/* A client that has waited for a while may ask for less: Linux leaves out ECN from its second SYN on (RFC 3168 section
 * 6.1.1.1), others all options after a few. It would not understand an answer to what it asked for first. */
static void request_again(struct tcp_request *r, const struct tcp_seg *syn)
{
    r->flags &= (uint8_t)(tcp_request_offers(syn) | ~REQUEST_OFFERS);
    r->wnd = syn->wnd;
    if ((r->flags & REQUEST_TS) && seq_lt(r->tsval, syn->opt.tsval))
        r->tsval = syn->opt.tsval;
}

/* Return: a record on the list `fresh`, with the key and what goes with it; NULL: none to be had. */
static struct tcp_request *request_new(struct stack *s, const struct tcp_request *from)
{
    struct tcp_shard *t = s->tcp;
    struct tcp_request *r = pool_get(&t->requests);

    if (r == NULL)
        return NULL;
    *r = *from;
    ++*source_counter(s, &r->key.client);
    tcp_table_add(t, OWNER_REQUEST, &r->key);
    list_add(&t->fresh, r);
    COUNT(s, tcp_requests);
    return r;
}

/* From half of the records on, clients have to show first that they exist: a cookie is sent, and the other
 * half is for those that bring one back (SYN-3). */
static bool is_crowded(const struct stack *s)
{
    return stack_half_open_count(s) >= (s->cfg.max_half_open + 1) / 2;
}

static bool has_room_for(struct stack *s, const struct ip_addr *client)
{
    return *source_counter(s, client) < s->cfg.max_half_open_per_source &&
           stack_half_open_count(s) < s->cfg.max_half_open;
}

/* LIM-1: swallowed, so that the client comes again when there may be memory. */
static bool is_refused(struct stack *s)
{
    if (tcp_pressure(s) < PRESSURE_REFUSE)
        return false;
    COUNT(s, tcp_pressure_refused);
    return true;
}

void tcp_request_syn(struct stack *s, const struct packet *p, const struct flow_key *flow,
                     const struct tcp_seg *seg, uint32_t iss_above)
{
    struct tcp_request r = { .s = s };

    if (is_refused(s))
        return;
    tcp_orphan_make_room(s);
    tcp_key_of(flow, &r.key);
    request_fill(&r, p, seg);
    if (*source_counter(s, &flow->client) >= s->cfg.max_half_open_per_source) {
        COUNT(s, tcp_half_open_limit); /* swallowed: the client's next SYN is the retry (TF4) */
        return;
    }
    if (is_crowded(s)) {
        tcp_cookie_send(s, &r);
        return;
    }
    r.iss = tcp_iss(s, &r.key);
    if (iss_above != 0 && seq_le(r.iss, iss_above)) /* TW-2 */
        r.iss = iss_above + 1;
    if (request_new(s, &r) == NULL)
        COUNT(s, tcp_half_open_limit);
}

/* What the segment brings besides is not kept: the client sends it again. */
bool tcp_request_cookie_ack(struct stack *s, const struct packet *p, const struct flow_key *flow,
                            const struct tcp_seg *seg)
{
    struct tcp_request r = { .s = s };

    if ((seg->flags & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_ACK || s->now_us >= s->tcp->cookies_until_us)
        return false;
    tcp_key_of(flow, &r.key);
    if (!tcp_cookie_check(s, seg, &r))
        return false;
    if (is_refused(s))
        return true;
    tcp_orphan_make_room(s);
    r.flags |= REQUEST_OPEN | (p->v6 ? REQUEST_V6 : 0);
    r.tos = p->tos;
    if (!has_room_for(s, &flow->client) || request_new(s, &r) == NULL)
        COUNT(s, tcp_half_open_limit); /* what it sends next is the retry */
    return true;
}

static bool rst_is_valid(struct tcp_request *r, const struct flow_key *flow, const struct tcp_seg *seg)
{
    uint32_t beyond = seg->seq - (r->irs + 1);

    if (beyond == 0)
        return true;
    COUNT(r->s, tcp_out_of_window);
    if ((r->flags & REQUEST_OPEN) && beyond <= UINT16_MAX &&
        bucket_take(&r->s->rst_bucket, r->s->now_us, r->s->cfg.rst_per_second, r->s->cfg.rst_per_second))
        tcp_reply_ack(r->s, flow, r->iss + 1, r->irs + 1, NULL); /* it may have sent data (RFC 5961) */
    return false;
}

void tcp_request_input(struct stack *s, struct tcp_request *r, const struct packet *p,
                       const struct tcp_seg *seg)
{
    struct flow_key flow;

    tcp_flow_of(&r->key, &flow);
    if (seg->flags & TCP_RST) { /* RST-1: RCV.NXT would be IRS + 1 */
        if (!rst_is_valid(r, &flow, seg))
            return;
        COUNT(s, tcp_rst_in);
        request_ends(r, REQUEST_RESET);
    } else if ((seg->flags & TCP_ACK) && (r->flags & REQUEST_OPEN) && seg->ack == r->iss + 1) {
        COUNT(s, tcp_duplicate);       /* data that comes too early; it will come again */
    } else if (seg->flags & TCP_ACK) { /* we have sent nothing that it could acknowledge */
        COUNT(s, tcp_bad_ack);
        tcp_reply_rst(s, &flow, seg, RST_STRANGER);
    } else if (!(seg->flags & TCP_SYN)) {
        COUNT(s, tcp_unknown);
    } else if (seg->seq == r->irs) {
        COUNT(s, tcp_duplicate); /* TF3 */
        if (!(r->flags & REQUEST_OPEN))
            request_again(r, seg);
    } else {
        request_ends(r, REQUEST_RESET);
        tcp_request_syn(s, p, &flow, seg, 0);
    }
}

/* ---- time and events --------------------------------------------------------------------------------- */

static void reject_rst(struct tcp_request *r)
{
    const struct tcp_seg syn = { .seq = r->irs, .flags = TCP_SYN };
    const struct tcp_seg ack = { .seq = r->irs + 1, .ack = r->iss + 1, .flags = TCP_ACK };
    struct flow_key flow;

    tcp_flow_of(&r->key, &flow);
    tcp_reply_rst(r->s, &flow, r->flags & REQUEST_OPEN ? &ack : &syn, RST_REFUSED);
}

static void arm_timer(struct stack *s)
{
    struct tcp_shard *t = s->tcp;
    uint64_t now_ms64 = s->now_us / 1000;

    if (t->pending.head != NULL && !wheel_is_set(&t->request_timer))
        wheel_set(&s->wheel, &t->request_timer,
                  (now_ms64 + (uint32_t)(t->pending.head->expires_ms - (uint32_t)now_ms64)) * 1000);
}

void tcp_request_timer(struct wheel_timer *timer, uint64_t now_us)
{
    struct tcp_shard *t = CONTAINER_OF(timer, struct tcp_shard, request_timer);
    struct tcp_request *r;

    t->s->now_us = now_us;
    while ((r = t->pending.head) != NULL && (int32_t)(r->expires_ms - now_ms(t->s)) <= 0) {
        reject_rst(r); /* TF5: whoever had it forgot it; the client need not guess */
        request_ends(r, REQUEST_EXPIRED);
    }
    arm_timer(t->s);
}

static int gone_error(const struct tcp_request *r)
{
    return r->state == REQUEST_EXPIRED ? -ETIMEDOUT : -ECONNRESET;
}

bool tcp_request_pending(const struct tcp_shard *t)
{
    return t->fresh.head != NULL || t->gone.head != NULL;
}

void tcp_request_events(struct stack *s)
{
    struct tcp_shard *t = s->tcp;
    struct tcp_request *r;

    while ((r = t->gone.head) != NULL) {
        void *user = r->user;
        int err = gone_error(r);

        request_free(r);
        s->ev.on_tcp_request_gone(user, err);
    }
    while ((r = t->fresh.head) != NULL) {
        list_remove(&t->fresh, r);
        r->state = REQUEST_PENDING;
        r->expires_ms = now_ms(s) + REQUEST_LIFE_MS;
        list_add(&t->pending, r);
        s->ev.on_tcp_request(s->arg, r); /* may complete it */
    }
    arm_timer(s);
}

void tcp_request_fini(struct stack *s)
{
    struct tcp_shard *t = s->tcp;
    struct tcp_request *r;

    while ((r = t->fresh.head) != NULL)
        request_free(r);
    tcp_request_reap(s);
    while ((r = t->pending.head) != NULL)
        request_ends(r, REQUEST_RESET);
    while ((r = t->gone.head) != NULL) {
        void *user = r->user;

        request_free(r);
        s->ev.on_tcp_request_gone(user, -ECONNABORTED);
    }
}

/* ---- the embedder's verbs ---------------------------------------------------------------------------- */

void tcp_request_flow(const struct tcp_request *r, struct flow_key *out)
{
    tcp_flow_of(&r->key, out);
}

void tcp_request_set_user(struct tcp_request *r, void *user)
{
    r->user = user;
}

int tcp_request_accept(struct tcp_request *r, void *user, struct tcp_conn **out)
{
    struct stack *s = r->s;
    struct tcp_conn *c;

    if (is_gone(r))
        return r->state == REQUEST_DONE ? -ESTALE : -ECONNRESET;
    c = tcp_conn_new(s, r);
    if (c == NULL) {
        COUNT(s, tcp_conn_limit);
        return -ENOBUFS;
    }
    c->user = user;
    if (r->flags & REQUEST_OPEN)
        tcp_conn_opened(c, r->irs + 1, r->iss + 1, r->wnd);
    else
        tcp_half_open_enter(s, &c->key.client);
    request_done(r);
    tcp_table_add(s->tcp, OWNER_CONN, &c->key);
    COUNT(s, tcp_accepted);
    tcp_ready(c);
    *out = c;
    return 0;
}

/* The SYN as an ICMP error quotes it: ports and sequence number (RFC 792 asks for 8 bytes). */
static void reject_icmp(struct tcp_request *r, const struct flow_key *flow, enum stack_reject why)
{
    uint8_t l4[8];

    put_be16(l4, r->key.client_port);
    put_be16(l4 + 2, r->key.target_port);
    put_be32(l4 + 4, r->irs);
    icmp_send_error_for(r->s, flow, l4, sizeof(l4), &r->key.target, why, 0);
}

int tcp_request_reject(struct tcp_request *r, enum stack_reject why)
{
    struct flow_key flow;

    if (r->state == REQUEST_DONE)
        return -ESTALE;
    tcp_flow_of(&r->key, &flow);
    if (!is_gone(r)) {
        COUNT(r->s, tcp_rejected);
        if (why == REJECT_RST || (why != REJECT_SILENT && (r->flags & REQUEST_OPEN)))
            reject_rst(r); /* an ICMP error would not end what is open for the client (RFC 1122) */
        else if (why != REJECT_SILENT)
            reject_icmp(r, &flow, why);
    }
    request_done(r);
    return 0;
}
