/* tcp_flow.c - one TCP flow: a held SYN becomes an upstream stream, then bytes both ways, then a truthful end.
 *
 * How it works (tcp-stack.md 5.1, CLS-1, CLS-2; design.md section 6)
 *   OPENING  the client's SYN is held by the stack while the upstream opens (late accept). A refusal is passed on in kind.
 *   ACCEPT   the upstream answered, our SYN-ACK is out.
 *            With early accept the order is turned round (SYN-1): ACCEPT at once, then DIALING when the client's handshake
 *            is complete; what it sends waits in its window, tcp_peek() shows it, and a failure can only be an RST.
 *   OPEN     client bytes go from the stack's slots straight into the upstream's socket; upstream bytes are received
 *            straight into the stack's send chunks. Neither side is read when the other cannot take more.
 *            Each direction ends by itself: FIN becomes shutdown(), end of file becomes FIN.
 *   DRAIN    the upstream broke; what had been read is delivered (5 s at most), then the client gets RST, never a clean FIN.
 * Whoever ends last ends the flow: the stack's on_tcp_closed frees it. Moving the bytes is tcp_bytes.c. */
#include <stdio.h>

#include "forward_impl.h"

#define DRAIN_POLL_US 20000
#define DRAIN_MAX_MS  5000
#define EVICT_IDLE_MS 10000 /* who was silent for less is no candidate */

static const char client_gave_up[] = "client gave up while the upstream was being opened";

/* ---- ending ---------------------------------------------------------------------------------------------------- */

void tcp_flow_key(const struct tcp_flow *t, struct flow_key *out)
{
    if (t->state == TCP_FLOW_OPENING)
        *out = t->opening->key;
    else
        tcp_conn_flow(t->conn, out);
}

static void flow_end(struct tcp_flow *t, const char *why)
{
    struct forward *f = t->ways->f;
    struct tcp_info info = { 0 };
    struct flow_end end = { .id = flow_id(f, false, slab_index(&f->tcp_flows, t), t->started_ms),
                            .way = t->ways->target[t->target],
                            .policy = t->ways->policy,
                            .rule = t->rule,
                            .age_ms = forward_now_ms(f) - t->started_ms,
                            .why = why };

    tcp_flow_key(t, &end.key);
    if (t->state == TCP_FLOW_OPENING) {
        owner_leave(t->opening->owner);
        slab_put(&f->openings, t->opening);
    } else
        tcp_conn_info(t->conn, &info);
    end.bytes_up = info.bytes_up;
    end.bytes_down = info.bytes_down;
    flow_ended(f, &end);
    counter_add(&f->cnt.bytes_up, info.bytes_up);
    counter_add(&f->cnt.bytes_down, info.bytes_down);
    wheel_cancel(f->wheel, &t->timer);
    rate_detach_tcp(t);
    if (t->state == TCP_FLOW_DNS)
        dns_session_free(t->dns);
    source_leave(f, t->source);
    if (tcp_flow_has_owner(t))
        owner_leave(t->owner);
    if (t->fake)
        flow_name_release(f, &end.key.target);
    ways_unref(t->ways);
    slab_put(&f->tcp_flows, t);
}

/* ---- the upstream's events -------------------------------------------------------------------------------------------- */

/* Our SYN-ACK. Return: false: there is no connection, and the flow is over. */
static bool flow_accept(struct tcp_flow *t)
{
    struct owner *owner = t->opening->owner;
    struct tcp_conn *conn;
    int r = tcp_request_accept(t->opening->request, t, &conn);

    if (r != 0) {
        tcp_request_reject(t->opening->request, REJECT_SILENT);
        if (t->up)
            up_stream_reset(t->up);
        if (r == -ENOBUFS)
            FCOUNT(t->ways->f, limit_tcp);
        FCOUNT(t->ways->f, tcp_failed);
        flow_end(t, r == -ENOBUFS ? "no memory for a connection" : client_gave_up);
        return false;
    }
    slab_put(&t->ways->f->openings, t->opening);
    t->conn = conn;
    t->state = TCP_FLOW_ACCEPT;
    if (owner) {
        t->owner = owner;
        t->state = TCP_FLOW_EARLY;
    }
    return true;
}

/* Both sides are there. */
static void flow_open(struct tcp_flow *t)
{
    t->state = TCP_FLOW_OPEN;
    t->active_ms = forward_now_ms(t->ways->f);
    t->want_read = true;
    if (rates_on(t->ways->f))
        rate_attach_tcp(t);
    tcp_flow_want(t);
    wheel_set(t->ways->f->wheel, &t->timer,
              loop_now_us(t->ways->f->loop) + (uint64_t)t->ways->f->opt.tcp_idle_timeout_ms * 1000);
}

static void on_up_open(void *arg)
{
    struct tcp_flow *t = arg;

    if (t->state == TCP_FLOW_DIALING) {
        FCOUNT(t->ways->f, tcp_opened);
        flow_open(t);
        tcp_flow_pump_up(t); /* what came meanwhile */
    } else if (flow_accept(t)) {
        FCOUNT(t->ways->f, tcp_opened);
    }
}

/* There will be no upstream. After an early accept all that is left to say to the client is RST (SYN-1). */
static void dial_failed(struct tcp_flow *t, int err, const char *why)
{
    FCOUNT(t->ways->f, tcp_failed);
    if (t->state == TCP_FLOW_OPENING) {
        tcp_request_reject(t->opening->request, reject_for_error(err));
    } else {
        tcp_abort(t->conn);
        tcp_release(t->conn);
    }
    flow_end(t, why);
}

static void on_up_readable(void *arg)
{
    struct tcp_flow *t = arg;

    if (t->state == TCP_FLOW_ACCEPT) { /* the target speaks first; tcp_flow_on_open() asks again */
        tcp_flow_want(t);
        return;
    }
    t->active_ms = forward_now_ms(t->ways->f);
    tcp_flow_pump_down(t);
}

static void on_up_writable(void *arg)
{
    struct tcp_flow *t = arg;

    t->active_ms = forward_now_ms(t->ways->f);
    tcp_flow_pump_up(t);
}

static void on_up_closed(void *arg, const struct up_failure *why)
{
    struct tcp_flow *t = arg;
    char text[256];

    t->up = NULL;
    if (t->state != TCP_FLOW_OPENING && t->state != TCP_FLOW_DIALING) {
        if (t->state != TCP_FLOW_DRAIN)
            tcp_flow_broke(t);
        return;
    }
    snprintf(text, sizeof(text), "%s: %s", why->stage, why->text);
    dial_failed(t, why->err, text);
}

static const struct up_stream_events up_events = { on_up_open, on_up_readable, on_up_writable, on_up_closed };

/* ---- time ---------------------------------------------------------------------------------------------------------------- */

static void drain_read(struct tcp_flow *t)
{
    while (t->up) {
        uint8_t *to;
        size_t room = tcp_tx_space(t->conn, &to);
        ssize_t n;

        if (room == 0)
            return;
        n = up_stream_recv(t->up, to, room);
        tcp_tx_commit(t->conn, n > 0 ? (size_t)n : 0);
        if (n > 0 && t->paced) /* in advance: it does not wait for its turn */
            rate_took(t, RATE_DOWN, (size_t)n);
        if (n > 0)
            continue;
        up_stream_reset(t->up);
        t->up = NULL;
    }
}

static void drain_step(struct tcp_flow *t)
{
    drain_read(t);
    if ((!t->up && tcp_tx_queued(t->conn) == 0) || forward_now_ms(t->ways->f) - t->active_ms >= DRAIN_MAX_MS)
        tcp_abort(t->conn);
    else
        wheel_set(t->ways->f->wheel, &t->timer, loop_now_us(t->ways->f->loop) + DRAIN_POLL_US);
}

static void on_timer(struct wheel_timer *timer, uint64_t now_us)
{
    struct tcp_flow *t = CONTAINER_OF(timer, struct tcp_flow, timer);
    const struct forward_options *o = &t->ways->f->opt;
    uint32_t idle_ms = forward_now_ms(t->ways->f) - t->active_ms, limit_ms;

    if (t->state == TCP_FLOW_DRAIN) {
        drain_step(t);
        return;
    }
    if (t->state == TCP_FLOW_SNIFF) {
        tcp_flow_sniff(t, true);
        return;
    }
    if (rate_waits(t, RATE_UP) || rate_waits(t, RATE_DOWN)) /* it would if it could */
        idle_ms = 0;
    limit_ms = t->state == TCP_FLOW_DNS     ? o->dns_idle_timeout_ms
               : t->client_eof || t->up_eof ? o->half_close_timeout_ms
                                            : o->tcp_idle_timeout_ms;
    if (t->state == TCP_FLOW_DNS && idle_ms >= limit_ms && !t->up_eof) {
        t->up_eof = true; /* our FIN; whoever does not answer it is cut off the next time */
        t->active_ms = forward_now_ms(t->ways->f);
        dns_session_idle(t->dns);
        idle_ms = 0;
    }
    if (idle_ms >= limit_ms) {
        FCOUNT(t->ways->f, tcp_idle);
        tcp_abort(t->conn);
        return;
    }
    wheel_set(t->ways->f->wheel, timer,
              now_us + (uint64_t)(limit_ms - idle_ms) * 1000); /* lazy: activity only stamps active_ms */
}

/* ---- the stack's events ---------------------------------------------------------------------------------------------------- */

static bool carried_nothing(const struct tcp_flow *t)
{
    struct tcp_info info;

    tcp_conn_info(t->conn, &info);
    return info.bytes_up + info.bytes_down == 0;
}

/* Who opened and never said a word before all others, then the idlest (faults.md T12). */
static bool goes_before(const struct tcp_flow *a, const struct tcp_flow *b)
{
    bool silent = carried_nothing(a);

    if (silent != carried_nothing(b))
        return silent;
    return (int32_t)(a->active_ms - b->active_ms) < 0;
}

/* At the limit one of a few flows drawn at random makes room, if it is idle: nearly the oldest, without keeping a list in order. */
static void evict_idle_flow(struct forward *f)
{
    struct tcp_flow *first = NULL;

    for (int i = 0; i < 32 && f->tcp_flows.touched > 0; i++) {
        struct tcp_flow *t = slab_at(&f->tcp_flows, prng_below(&f->prng, f->tcp_flows.touched));

        if (t->state == TCP_FLOW_OPEN && forward_now_ms(f) - t->active_ms >= EVICT_IDLE_MS &&
            (!first || goes_before(t, first)))
            first = t;
    }
    if (!first)
        return;
    FCOUNT(f, tcp_idle);
    tcp_abort(first->conn);
}

static struct tcp_flow *flow_new(struct forward *f, struct tcp_request *r, const struct flow_key *key)
{
    struct source *source;
    struct tcp_flow *t;

    source = source_enter(f, &key->client);
    if (!source) /* first, so that nobody makes room for who has had his part */
        return NULL;
    if (share_near(f, &f->tcp_part, f->tcp_flows.in_use)) {
        /* Its place is free at the end of this batch: the client's next SYN finds it. */
        if (f->tcp_part.scarce)
            evict_idle_flow(f);
        FCOUNT(f, limit_tcp);
        source_leave(f, source);
        return NULL;
    }
    t = slab_get(&f->tcp_flows);
    if (!t) { /* more than one worker can have at all */
        FCOUNT(f, limit_tcp);
        source_leave(f, source);
        return NULL;
    }
    t->opening = slab_get(&f->openings);
    *t->opening = (struct tcp_opening){ r, *key, NULL };
    t->source = source;
    t->ways = ways_ref(f->ways);
    t->state = TCP_FLOW_OPENING;
    t->started_ms = t->active_ms = forward_now_ms(f);
    t->timer.fn = on_timer;
    return t;
}

static bool rejected_by_rule(struct forward *f, struct tcp_request *r, enum upstream_kind kind)
{
    if (kind == UPSTREAM_REJECT) {
        FCOUNT(f, rejected);
        tcp_request_reject(r, REJECT_RST);
        return true;
    }
    if (kind == UPSTREAM_REJECT_DROP) {
        FCOUNT(f, dropped);
        tcp_request_reject(r, REJECT_SILENT);
        return true;
    }
    return false;
}

/* The flow's owner, which it has not any more. NULL: it had none. */
static struct owner *take_owner(struct tcp_flow *t)
{
    struct owner *owner = NULL;

    if (t->state == TCP_FLOW_OPENING) {
        owner = t->opening->owner;
        t->opening->owner = NULL;
    } else if (t->state == TCP_FLOW_EARLY) {
        owner = t->owner;
        t->up = NULL;
        t->state = TCP_FLOW_DIALING;
    }
    return owner;
}

void tcp_flow_dial(struct tcp_flow *t)
{
    struct forward *f = t->ways->f;
    struct owner *owner = take_owner(t);
    struct up_known known = { 0 };
    struct host_port target = { 0 };
    struct flow_key key;
    struct ip_port dst;
    char name[256];
    int r;

    tcp_flow_key(t, &key);
    dst = forward_target(f, &(struct ip_port){ key.target, key.target_port });
    target.addr = dst.addr;
    target.port = dst.port;
    up_env_set_client(f->env, &key.client);
    if (t->fake && name_book_find(f->book, &key.target, 0, name, false) == NAME_FAKE)
        target = (struct host_port){ .name = name, .port = dst.port };
    if (owner)
        known = (struct up_known){ owner->name.addrs, owner->name.n, owner->name.err };
    r = up_stream_open_known(f->env, t->ways->target[t->target], &target,
                             owner && owner->name.asked ? &known : NULL,
                             (uint64_t)f->opt.connect_timeout_ms * 1000, &up_events, t, &t->up);
    owner_leave(owner);
    if (r == 0)
        return;
    if (r == -EMFILE || r == -ENFILE) {
        FCOUNT(f, no_sockets);
        evict_idle_flow(f);
    }
    dial_failed(t, r, strerror(-r));
}

/* A resolver that wants TCP: there is nobody to dial. */
static void hijack(struct forward *f, struct tcp_request *r, const struct flow_key *key)
{
    struct tcp_flow *t = flow_new(f, r, key);

    if (!t) {
        tcp_request_reject(r, REJECT_SILENT);
        return;
    }
    t->rule = RULE_IMPLICIT;
    FCOUNT(f, dns_hijacked);
    tcp_request_set_user(r, t);
    flow_accept(t);
}

/* Its client is there: messages may come. */
static void flow_open_dns(struct tcp_flow *t)
{
    struct forward *f = t->ways->f;
    struct dns_session *s = dns_session_new(t);

    if (!s) {
        tcp_abort(t->conn);
        return;
    }
    t->dns = s;
    t->state = TCP_FLOW_DNS;
    t->active_ms = forward_now_ms(f);
    wheel_set(f->wheel, &t->timer, loop_now_us(f->loop) + (uint64_t)f->opt.dns_idle_timeout_ms * 1000);
}

/* Return: true: the verdict lacks something that can be asked for. */
static bool decide(struct forward *f, const struct ways *w, const struct flow_key *key,
                   const struct flow_name *name, struct owner *owner, struct rule_verdict *out)
{
    struct ip_port dst = forward_target(f, &(struct ip_port){ key->target, key->target_port });
    struct rule_flow asked = { .client = { key->client, key->client_port },
                               .target = flow_name_target(name, &dst),
                               .proto = IP_PROTO_TCP,
                               .settled = sniff_may(f, name, dst.port) ? 0 : RULE_NEEDS_NAME };

    return flow_match(f, w, &asked, owner, owner ? &owner->name : NULL, out);
}

/* The rules have decided. */
static void flow_take(struct tcp_flow *t, const struct rule_verdict *verdict)
{
    struct forward *f = t->ways->f;

    t->rule = verdict->rule;
    t->target = (uint16_t)verdict->target;
    t->sniff = (verdict->needs & RULE_NEEDS_NAME) != 0;
    if (t->sniff) { /* not decided yet: with the name, who opened it is asked for again, if it still matters */
        owner_leave(t->opening->owner);
        t->opening->owner = NULL;
    }
    if (!t->sniff &&
        rejected_by_rule(f, t->opening->request, upstream_kind(forward_way(f, t->ways, verdict->target))))
        flow_end(t, "a rule rejects it");
    else if (t->sniff || f->opt.accept == TCP_ACCEPT_EARLY)
        flow_accept(t);
    else
        tcp_flow_dial(t);
}

/* What the verdict lacks is asked for, one after the other; then it is taken. Without the answers there is none: a flow is not sent where
 * a rule might not want it because too many others wait. */
static void flow_settle(struct tcp_flow *t, const struct flow_name *name, struct rule_verdict *verdict)
{
    struct tcp_opening *o = t->opening;
    const char *text = name->known == NAME_FAKE ? name->text : NULL;

    while (verdict->needs & OWNER_ASKABLE) {
        if (owner_ask(t->ways, &o->owner, &o->key, text, verdict->needs, t))
            return;
        if (!o->owner) {
            FCOUNT(t->ways->f, undecided);
            tcp_request_reject(o->request, REJECT_SILENT);
            flow_end(t, "too many flows wait for what their rules ask for");
            return;
        }
        decide(t->ways->f, t->ways, &o->key, name, o->owner, verdict);
    }
    flow_take(t, verdict);
}

void tcp_flow_on_request(void *arg, struct tcp_request *r)
{
    struct forward *f = arg;
    struct rule_verdict verdict;
    struct flow_name name;
    struct flow_key key;
    struct ip_port dst;
    struct tcp_flow *t;
    bool wait;

    tcp_request_flow(r, &key);
    if (forward_is_loop(f, &key)) {
        tcp_request_reject(r, REJECT_SILENT);
        return;
    }
    dst = (struct ip_port){ key.target, key.target_port };
    if (dns_hijacked(f, &dst, true)) {
        hijack(f, r, &key);
        return;
    }
    flow_name_find(f, &key.target, &name);
    if (name.known == NAME_FAKE_UNKNOWN) {
        flow_name_unknown(f, &key);
        tcp_request_reject(r, REJECT_RST);
        return;
    }
    wait = decide(f, f->ways, &key, &name, NULL, &verdict);
    t = NULL;
    if ((wait || (verdict.needs & RULE_NEEDS_NAME) != 0 ||
         !rejected_by_rule(f, r, upstream_kind(forward_way(f, f->ways, verdict.target)))) &&
        !(t = flow_new(f, r, &key)))
        tcp_request_reject(r, REJECT_SILENT);
    if (!t) {
        if (name.known == NAME_FAKE)
            flow_name_release(f, &key.target);
        return;
    }
    t->fake = name.known == NAME_FAKE;
    tcp_request_set_user(r, t);
    flow_settle(t, &name, &verdict);
}

void tcp_flow_on_owner(struct tcp_flow *t)
{
    struct forward *f = t->ways->f;
    struct rule_verdict verdict;
    struct flow_name name;

    if (t->state == TCP_FLOW_ASK) {
        tcp_flow_sniffed(t);
        return;
    }
    flow_name_find(f, &t->opening->key.target, &name);
    if (name.known == NAME_FAKE) /* the flow has its hold on it already */
        flow_name_release(f, &t->opening->key.target);
    decide(f, t->ways, &t->opening->key, &name, t->opening->owner, &verdict);
    flow_settle(t, &name, &verdict);
}

void tcp_flow_refuse(struct tcp_flow *t, const char *why)
{
    tcp_request_reject(t->opening->request, REJECT_RST);
    up_stream_reset(t->up);
    FCOUNT(t->ways->f, tcp_failed);
    flow_end(t, why);
}

void tcp_flow_on_gone(void *user, int err)
{
    struct tcp_flow *t = user;

    if (!t)
        return;
    if (t->up)
        up_stream_reset(t->up);
    FCOUNT(t->ways->f, tcp_failed);
    flow_end(t, err == -ECONNRESET ? client_gave_up : "client's request expired");
}

void tcp_flow_on_open(void *user)
{
    struct tcp_flow *t = user;
    struct flow_key key;

    if (t->state == TCP_FLOW_EARLY) {
        tcp_flow_dial(t);
        return;
    }
    if (t->state != TCP_FLOW_ACCEPT) /* the upstream broke meanwhile */
        return;
    if (t->up) {
        flow_open(t);
        return;
    }
    tcp_flow_key(t, &key);
    if (dns_hijacked(t->ways->f, &(struct ip_port){ key.target, key.target_port }, true)) {
        flow_open_dns(t);
        return;
    }
    if (t->sniff) {
        tcp_flow_sniff_start(t);
        return;
    }
    t->state = TCP_FLOW_DIALING; /* early: nobody is dialled for a client that may not exist */
    tcp_flow_dial(t);
}

void tcp_flow_on_readable(void *user)
{
    struct tcp_flow *t = user;

    if (t->state == TCP_FLOW_DNS) {
        t->active_ms = forward_now_ms(t->ways->f);
        dns_session_on_readable(t->dns);
        return;
    }
    if (t->state == TCP_FLOW_SNIFF) {
        tcp_flow_sniff(t, false);
        return;
    }
    if (t->state == TCP_FLOW_DRAIN) /* its 5 s are not the client's to prolong */
        return;
    t->active_ms = forward_now_ms(t->ways->f);
    if (!t->want_write) /* the upstream takes no more now: on_up_writable goes on */
        tcp_flow_pump_up(t);
}

void tcp_flow_on_writable(void *user)
{
    struct tcp_flow *t = user;

    if (t->state == TCP_FLOW_DNS) {
        dns_session_on_writable(t->dns);
        return;
    }
    if (t->state != TCP_FLOW_OPEN || t->up_eof || !t->up || rate_waits(t, RATE_DOWN))
        return;
    t->active_ms = forward_now_ms(t->ways->f);
    t->want_read = true;
    tcp_flow_want(t);
}

void tcp_flow_on_closed(void *user, int err)
{
    struct tcp_flow *t = user;
    bool drained = t->state == TCP_FLOW_DRAIN;

    if (tcp_flow_has_up(t)) {
        if (err == 0)
            up_stream_close(t->up);
        else
            up_stream_reset(t->up);
    }
    FCOUNT(t->ways->f, tcp_ended);
    if (err == -ECONNRESET)
        FCOUNT(t->ways->f, tcp_reset_by_client);
    flow_end(t, err == 0             ? NULL
                : drained            ? "the upstream broke the connection"
                : err == -ECONNRESET ? "the client reset the connection"
                : err == -ETIMEDOUT  ? "the client stopped answering"
                                     : "closed by us: idle, or the gateway ends");
}
