/* udp_flow.c - one UDP mapping: a client port, and one association for each way out that its datagrams take.
 *
 * How it works (RFC 4787 REQ-1 and REQ-8; design.md section 3; faults.md section 5)
 *   The first datagram asks (on_udp_request); the stack holds it, and what follows, until the association is open. Then the
 *   endpoint takes all datagrams of this client port, whatever their target, and replies from anywhere go back to it.
 *   Rules are asked for each new target; targets that take another way get an association of their own, opened on demand,
 *   its datagrams held meanwhile. A way out without UDP gets DNS over TCP, and port unreachable for everything else.
 *   An association that dies is opened anew by the next datagram. Nothing is ever sent another way. */
#include <stdio.h>

#include "forward_impl.h"

/* Datagrams of one size from one source that leave as one super-packet (tcp-stack.md UDP-3). */
#define REPLY_ROW_MAX 64

/* ---- ending -------------------------------------------------------------------------------------------------------- */

void udp_assoc_free(struct udp_assoc *a)
{
    struct forward *f = a->flow->f;

    held_drop(f, &a->held);
    if (a->up)
        up_udp_close(a->up);
    if (a->faked)
        flow_name_release(f, &a->fake.addr);
    slab_put(&f->assocs, a);
}

static void flow_free(struct udp_flow *u, const char *why)
{
    struct forward *f = u->f;
    struct flow_end end = { .id = flow_id(f, true, slab_index(&f->udp_flows, u), u->started_ms),
                            .key = { u->client.addr,
                                     u->first_target.addr,
                                     u->client.port,
                                     u->first_target.port,
                                     IP_PROTO_UDP,
                                     { 0 } },
                            .way = u->ways->target[u->assocs ? u->assocs->target : 0],
                            .policy = u->ways->policy,
                            .rule = u->rule,
                            .age_ms = forward_now_ms(f) - u->started_ms,
                            .bytes_up = u->bytes_up,
                            .bytes_down = u->bytes_down,
                            .why = why };

    flow_ended(f, &end);
    counter_add(&f->cnt.bytes_up, u->bytes_up);
    counter_add(&f->cnt.bytes_down, u->bytes_down);
    owner_leave(u->owner);
    dns_flow_cancel(u);
    dns_hijack_cancel(u);
    udp_looks_free(u);
    while (u->assocs) {
        struct udp_assoc *a = u->assocs;

        u->assocs = a->next;
        udp_assoc_free(a);
    }
    wheel_cancel(f->wheel, &u->timer);
    source_leave(f, u->source);
    ways_unref(u->ways);
    slab_put(&f->udp_flows, u);
}

void udp_flow_end(struct udp_flow *u, const char *why)
{
    if (u->state == UDP_FLOW_OPEN)
        udp_endpoint_close(u->endpoint);
    else
        udp_request_reject(u->request, REJECT_SILENT);
    FCOUNT(u->f, udp_ended);
    flow_free(u, why);
}

static void request_refused(struct udp_flow *u, enum stack_reject how, const char *why)
{
    udp_request_reject(u->request, how);
    FCOUNT(u->f, udp_failed);
    flow_free(u, why);
}

/* ---- to the client ------------------------------------------------------------------------------------------------------- */

void udp_flow_reply(struct udp_flow *u, const struct ip_port *source, const struct iovec *iov, int n,
                    uint16_t gso_size)
{
    for (int i = 0; i < n; i++)
        u->bytes_down += iov[i].iov_len;
    udp_send(u->endpoint, source, iov, n, gso_size); /* what fails is counted by the stack */
}

/* The client asked the DNS address of the TUN: the answer must come from there (forward.h). */
static struct ip_port shown_source(const struct udp_assoc *a, const struct up_datagram *d)
{
    const struct forward *f = a->flow->f;
    struct ip_port source = ip_is_none(&d->source.addr) ? a->last_target : d->source;

    if (a->faked) /* the name's server answered; the client knows it by the fake address */
        return a->fake;
    if (a->alias && ip_port_equal(&source, &f->opt.dns_server))
        source = (struct ip_port){ f->opt.dns_address[ip_is4(&a->flow->client.addr) ? 0 : 1], 53 };
    return source;
}

static bool symmetric_stranger(const struct udp_assoc *a, const struct ip_port *source)
{
    return a->flow->f->opt.nat == UDP_NAT_SYMMETRIC && !ip_port_equal(source, &a->flow->first_target);
}

/* @n datagrams: do the limits let them pass? */
static bool in_time(const struct udp_assoc *a, int dir, size_t bytes, size_t n)
{
    struct forward *f = a->flow->f;

    if (!rates_on(f) || rate_pass(f, a->flow->source, a->rate, dir, bytes))
        return true;
    counter_add(&f->cnt.rate_dropped, n);
    return false;
}

static void on_datagrams(void *arg, const struct up_datagram *d, size_t n)
{
    struct udp_assoc *a = arg;
    struct udp_flow *u = a->flow;

    u->active_ms = forward_now_ms(u->f);
    for (size_t i = 0; i < n;) {
        struct ip_port source = shown_source(a, &d[i]);
        struct iovec iov[REPLY_ROW_MAX];
        size_t row = 0, bytes = 0;

        /* A row: same source, same size; a shorter one may be the last. */
        do {
            iov[row] = (struct iovec){ (void *)(uintptr_t)d[i + row].data, d[i + row].len };
            bytes += d[i + row].len;
            row++;
        } while (i + row < n && row < REPLY_ROW_MAX && d[i + row].len > 0 && d[i + row - 1].len == d[i].len &&
                 d[i + row].len <= d[i].len && bytes + d[i + row].len <= 65507 &&
                 ip_port_equal(&d[i + row].source, &d[i].source));
        if (!symmetric_stranger(a, &source) && in_time(a, RATE_DOWN, bytes, row))
            udp_flow_reply(u, &source, iov, (int)row, row > 1 ? (uint16_t)d[i].len : 0);
        i += row;
    }
}

static void on_error(void *arg, const struct ip_port *target, const struct ip_addr *offender, int type,
                     int code, uint32_t mtu)
{
    struct udp_assoc *a = arg;
    struct udp_flow *u = a->flow;
    const struct ip_port *shown = a->faked ? &a->fake : target;

    /* The client knows the name's server by the fake address, perhaps of the other family. */
    if (offender && a->faked &&
        (ip_equal(offender, &target->addr) || ip_is4(offender) != ip_is4(&shown->addr)))
        offender = NULL;
    if (u->state == UDP_FLOW_OPEN)
        udp_endpoint_error(u->endpoint, shown, offender, reject_for_icmp(!ip_is4(&target->addr), type, code),
                           mtu);
}

/* ---- to the internet ------------------------------------------------------------------------------------------------------- */

static void refuse_datagram(struct udp_assoc *a, const struct ip_port *target, enum stack_reject how)
{
    FCOUNT(a->flow->f, udp_refused);
    udp_endpoint_error(a->flow->endpoint, target, NULL, how, 0);
}

/* DNS goes over TCP, each question by itself; nothing else can be had. */
static void send_without_udp(struct udp_assoc *a, const struct udp_datagram *d, const struct host_port *to)
{
    struct udp_walk w = { .row = d };
    struct iovec one;

    while (udp_walk_next(&w, &one)) {
        if (to->port != 53)
            refuse_datagram(a, &d->target, REJECT_PORT_UNREACH);
        else if (in_time(a, RATE_UP, one.iov_len, 1))
            dns_flow_ask(a->flow, a->target, to, &d->target, one.iov_base, one.iov_len);
    }
}

/* One datagram (or a row) by an association that is open or knows that it has no UDP. */
static void assoc_send(struct udp_assoc *a, const struct udp_datagram *d, const struct ip_port *target)
{
    struct host_port to = { NULL, a->pinned ? a->real : target->addr, target->port };
    char name[256];
    bool direct = a->up && upstream_kind(up_udp_way(a->up)) == UPSTREAM_DIRECT;

    a->last_target = *target;
    if (direct && a->pinned && ip_is_none(&a->real)) {
        refuse_datagram(a, &d->target, REJECT_HOST_UNREACH);
        return;
    }
    if (a->faked && !(direct && a->pinned)) {
        if (name_book_find(a->flow->f->book, &a->fake.addr, 0, name, false) != NAME_FAKE)
            return;
        to.name = name;
    }
    if (a->no_udp) {
        send_without_udp(a, d, &to);
        return;
    }
    if (!in_time(a, RATE_UP, d->len, d->gso_size > 0 ? (d->len + d->gso_size - 1) / d->gso_size : 1))
        return;
    up_udp_send_row(a->up, &to, d->data, d->ranges, d->gso_size,
                    direct && d->ttl > 1 ? (uint8_t)(d->ttl - 1) : 0, d->tos);
}

static void send_held(struct udp_assoc *a)
{
    struct forward *f = a->flow->f;
    struct held *h;

    while ((h = held_take(&a->held)) != NULL) {
        struct iovec data = { h->data, h->len };
        struct udp_datagram d = { a->flow->client, h->target, &data, 1, h->len, 0, h->ttl, h->tos };
        struct ip_port target = forward_target(f, &h->target);

        assoc_send(a, &d, &target);
        slab_put(&f->held, h);
    }
}

/* Return: false: there is no memory for an endpoint, and the flow has ended. */
static bool flow_accept(struct udp_flow *u)
{
    enum udp_match match = u->f->opt.nat == UDP_NAT_SYMMETRIC ? UDP_MATCH_FLOW : UDP_MATCH_CLIENT;
    struct udp_endpoint *endpoint;

    if (udp_request_accept(u->request, match, u, &endpoint) != 0) {
        FCOUNT(u->f, limit_udp);
        request_refused(u, REJECT_SILENT, "no memory for an endpoint");
        return false;
    }
    u->endpoint = endpoint;
    u->state = UDP_FLOW_OPEN;
    return true;
}

static void assoc_ready(struct udp_assoc *a)
{
    a->open = true;
    if (rates_on(a->flow->f))
        a->rate = rate_of(a->flow->f, a->flow->ways->target[a->target], a->up ? up_udp_way(a->up) : NULL);
    if (a->flow->state == UDP_FLOW_OPENING) {
        if (!flow_accept(a->flow))
            return;
        FCOUNT(a->flow->f, udp_opened);
    }
    send_held(a);
}

static void on_assoc_open(void *arg)
{
    assoc_ready(arg);
}

static void assoc_without_udp(struct udp_assoc *a)
{
    struct udp_flow *u = a->flow;

    a->no_udp = true;
    if (u->state == UDP_FLOW_OPENING && u->first_target.port != 53) {
        FCOUNT(u->f, udp_refused);
        request_refused(u, REJECT_PORT_UNREACH, "this way out has no UDP");
        return;
    }
    assoc_ready(a);
}

static enum stack_reject reject_for_opening(int err)
{
    enum stack_reject how = reject_for_error(err);

    return how == REJECT_RST ? REJECT_PORT_UNREACH : how;
}

static void on_assoc_closed(void *arg, const struct up_failure *why)
{
    struct udp_assoc *a = arg;
    struct udp_flow *u = a->flow;
    bool was_open = a->open;
    char text[256];

    a->up = NULL;
    a->open = false;
    if (why->err == -EOPNOTSUPP && was_open && upstream_kind(u->ways->target[a->target]) == UPSTREAM_GROUP)
        return; /* the next datagram finds a member that has it, or learns that none has */
    if (why->err == -EOPNOTSUPP) {
        assoc_without_udp(a);
        return;
    }
    if (u->state == UDP_FLOW_OPENING) {
        snprintf(text, sizeof(text), "%s: %s", why->stage, why->text);
        request_refused(u, reject_for_opening(why->err), text);
        return;
    }
    held_refuse(u->f, &a->held, u->endpoint,
                reject_for_opening(why->err)); /* if it had been open, nothing waits */
}

static const struct up_udp_events assoc_events = { on_assoc_open, on_datagrams, on_error, on_assoc_closed };

/* Return: 0 (opening, or ready at once), or -errno */
static int assoc_dial(struct udp_assoc *a)
{
    struct forward *f = a->flow->f;

    up_env_set_client(f->env, &a->flow->client.addr);
    return up_udp_open(f->env, a->flow->ways->target[a->target], (uint64_t)f->opt.connect_timeout_ms * 1000,
                       &assoc_events, a, &a->up);
}

static void hijack_row(struct udp_flow *u, const struct udp_datagram *d)
{
    struct udp_walk w = { .row = d };
    struct iovec one;

    while (udp_walk_next(&w, &one))
        dns_hijack_ask(u, &d->target, one.iov_base, one.iov_len);
}

void udp_flow_pass(struct udp_flow *u, const struct udp_datagram *d)
{
    struct forward *f = u->f;
    struct ip_port target = forward_target(f, &d->target);
    struct udp_assoc *a = u->last;

    if (!a || !ip_port_equal(&u->last_decided, &target) || udp_pin_is_over(a)) {
        a = udp_assoc_choose(u, d, &target);
        if (!a)
            return;
        u->last = a;
        u->last_decided = target;
    }
    switch (upstream_kind(a->up ? up_udp_way(a->up) : forward_way(f, u->ways, a->target))) {
    case UPSTREAM_REJECT:
        FCOUNT(f, rejected);
        udp_endpoint_error(u->endpoint, &d->target, NULL, REJECT_PORT_UNREACH, 0);
        return;
    case UPSTREAM_REJECT_DROP:
        FCOUNT(f, dropped);
        return;
    case UPSTREAM_DIRECT:
        if (d->ttl <= 1) { /* we are one router (design.md section 6) */
            udp_endpoint_error(u->endpoint, &d->target, &f->gateway[ip_is4(&target.addr) ? 0 : 1],
                               REJECT_TTL_EXCEEDED, 0);
            return;
        }
        break;
    case UPSTREAM_SOCKS5:
    case UPSTREAM_SOCKS4:
    case UPSTREAM_SOCKS4A:
    case UPSTREAM_HTTP:
    case UPSTREAM_GROUP:
    case UPSTREAM_MASQUE:
        break;
    }
    a->alias = !ip_port_equal(&target, &d->target);
    if (a->open) {
        assoc_send(a, d, &target);
        return;
    }
    held_add_row(f, &a->held, d);
    if (!a->up) {
        int r = assoc_dial(a);

        if (r == -EOPNOTSUPP)
            assoc_without_udp(a);
        else if (r != 0)
            held_refuse(f, &a->held, u->endpoint, reject_for_opening(r));
    }
}

void udp_flow_on_datagram(void *user, const struct udp_datagram *d)
{
    struct udp_flow *u = user;

    u->active_ms = forward_now_ms(u->f);
    u->bytes_up += d->len;
    if (dns_hijacked(u->f, &d->target, false)) {
        hijack_row(u, d);
        return;
    }
    if (d->target.port != 53)
        u->dns_only = false;
    udp_flow_pass(u, d);
}

/* ---- time ------------------------------------------------------------------------------------------------------------------------ */

/* Nothing can come back to a mapping without a way out: one that was made to look for a name, and was refused by it. */
static bool has_way(const struct udp_flow *u)
{
    for (const struct udp_assoc *a = u->assocs; a; a = a->next) {
        if (a->up)
            return true;
    }
    return udp_looks_wait(u);
}

static void on_timer(struct wheel_timer *timer, uint64_t now_us)
{
    struct udp_flow *u = CONTAINER_OF(timer, struct udp_flow, timer);
    const struct forward_options *o = &u->f->opt;
    uint32_t idle_ms = forward_now_ms(u->f) - u->active_ms;
    uint32_t limit_ms = u->dns_only || !has_way(u) ? o->dns_idle_timeout_ms : o->udp_idle_timeout_ms;

    if (u->state == UDP_FLOW_OPEN && idle_ms >= limit_ms)
        udp_flow_end(u, NULL);
    else
        wheel_set(u->f->wheel, timer,
                  now_us + (uint64_t)(idle_ms < limit_ms ? limit_ms - idle_ms : limit_ms) * 1000);
}

/* ---- a new mapping ------------------------------------------------------------------------------------------------------------------ */

static struct udp_flow *flow_new(struct forward *f, struct udp_request *r, const struct udp_datagram *d)
{
    struct source *source = source_enter(f, &d->client.addr);
    struct udp_flow *u;
    bool full;

    if (!source)
        return NULL;
    full = share_near(f, &f->udp_part, f->udp_flows.in_use);
    if (full && f->udp_part.scarce) {
        udp_flow_evict(f);
        full = f->udp_flows.in_use >= f->udp_part.part;
    }
    u = full ? NULL : slab_get(&f->udp_flows);
    if (!u) {
        FCOUNT(f, limit_udp);
        source_leave(f, source);
        return NULL;
    }
    u->f = f;
    u->request = r;
    u->source = source;
    u->ways = ways_ref(f->ways);
    u->client = d->client;
    u->first_target = d->target;
    u->state = UDP_FLOW_OPENING;
    u->dns_only = d->target.port == 53;
    u->started_ms = u->active_ms = forward_now_ms(f);
    u->timer.fn = on_timer;
    wheel_set(f->wheel, &u->timer,
              loop_now_us(f->loop) +
                  (uint64_t)(u->dns_only ? f->opt.dns_idle_timeout_ms : f->opt.udp_idle_timeout_ms) * 1000);
    return u;
}

/* Turned down before there is a mapping? */
static bool refused_by_rule(struct forward *f, struct udp_request *r, const struct udp_datagram *d,
                            enum upstream_kind kind)
{
    switch (kind) {
    case UPSTREAM_REJECT:
        FCOUNT(f, rejected);
        udp_request_reject(r, REJECT_PORT_UNREACH);
        return true;
    case UPSTREAM_REJECT_DROP:
        FCOUNT(f, dropped);
        udp_request_reject(r, REJECT_SILENT);
        return true;
    case UPSTREAM_DIRECT:
        if (d->ttl > 1)
            return false;
        udp_request_reject(r, REJECT_TTL_EXCEEDED);
        return true;
    case UPSTREAM_SOCKS5:
    case UPSTREAM_SOCKS4:
    case UPSTREAM_SOCKS4A:
    case UPSTREAM_HTTP:
    case UPSTREAM_GROUP:
    case UPSTREAM_MASQUE:
        break;
    }
    return false;
}

/* A resolver's port: an endpoint at once, without a way out until it asks somebody else. */
static void hijack(struct forward *f, struct udp_request *r, const struct udp_datagram *d)
{
    struct udp_flow *u = flow_new(f, r, d);

    if (!u) {
        udp_request_reject(r, REJECT_SILENT);
        return;
    }
    u->rule = RULE_IMPLICIT;
    udp_request_set_user(r, u);
    if (flow_accept(u))
        FCOUNT(f, dns_hijacked);
}

/* The rules have decided: the first way out is opened. */
static void flow_take(struct udp_flow *u, const struct udp_case *c, const struct udp_verdict *v)
{
    struct udp_assoc *a = udp_assoc_by_verdict(u, v->rule.target, c->target, &v->name);
    int dialled;

    if (!a) {
        udp_flow_end(u, "no memory for an association");
        return;
    }
    if (c->looked)
        udp_look_keep(u, c->target, v->rule.target);
    u->rule = v->rule.rule;
    u->last = a;
    u->last_decided = *c->target;
    dialled = assoc_dial(a);
    if (dialled == -EOPNOTSUPP) {
        assoc_without_udp(a);
    } else if (dialled != 0) {
        if (dialled == -EMFILE)
            FCOUNT(u->f, no_sockets);
        request_refused(u, REJECT_SILENT, strerror(-dialled));
    }
}

/* What the rules lack is asked for as it is for later targets, one by one. */
static void flow_look(struct udp_flow *u)
{
    u->rule = RULE_IMPLICIT; /* so far */
    if (!flow_accept(u))
        return;
    FCOUNT(u->f, udp_opened);
    wheel_set(u->f->wheel, &u->timer,
              loop_now_us(u->f->loop) + (uint64_t)u->f->opt.dns_idle_timeout_ms * 1000);
}

static void not_used(struct forward *f, const struct udp_verdict *v, const struct ip_port *target)
{
    if (v->name.known == NAME_FAKE)
        flow_name_release(f, &target->addr);
}

static void flow_decided(struct udp_flow *u, const struct udp_case *c, const struct udp_datagram *d,
                         const struct udp_verdict *v)
{
    u->rule = v->rule.rule;
    if (refused_by_rule(u->f, u->request, d, upstream_kind(forward_way(u->f, u->ways, v->rule.target)))) {
        not_used(u->f, v, c->target);
        flow_free(u, "a rule rejects it");
    } else
        flow_take(u, c, v);
}

static void ask_owner(struct udp_flow *u, const struct ip_port *target)
{
    struct flow_key key = { u->client.addr, target->addr, u->client.port, target->port, IP_PROTO_UDP, { 0 } };

    if (owner_ask(u->ways, &u->owner, &key, NULL, OWNER_NEEDS, u))
        return;
    FCOUNT(u->f, undecided);
    request_refused(u, REJECT_SILENT, "too many flows wait for what their rules ask for");
}

/* Who opened it is asked for once, for all of a mapping's targets. */
void udp_flow_on_owner(struct udp_flow *u)
{
    struct ip_port target = forward_target(u->f, &u->first_target);
    struct udp_case c = { .ways = u->ways, .client = &u->client, .target = &target, .owner = u->owner };
    struct udp_verdict v;
    struct udp_datagram d;

    if (u->state == UDP_FLOW_OPEN) {
        udp_looks_on_owner(u);
        return;
    }
    udp_request_first(u->request, &d);
    switch (udp_decide_first(u->f, &c, &d, &v)) {
    case UDP_DECIDED:
        flow_decided(u, &c, &d, &v);
        break;
    case UDP_WANTS_OWNER:
        ask_owner(u, &target);
        break;
    case UDP_WANTS_ADDRESS:
    case UDP_WANTS_NAME:
        flow_look(u);
        break;
    case UDP_NOBODY:
        request_refused(u, REJECT_PORT_UNREACH, "the fake address is nobody's any more");
        break;
    }
}

void udp_flow_on_request(void *arg, struct udp_request *r)
{
    struct forward *f = arg;
    struct udp_verdict v;
    struct udp_datagram d;
    struct flow_key key;
    struct ip_port target;
    struct udp_case c = { .ways = f->ways, .client = &d.client, .target = &target };
    enum udp_decision decision;
    struct udp_flow *u;

    udp_request_first(r, &d);
    key =
        (struct flow_key){ d.client.addr, d.target.addr, d.client.port, d.target.port, IP_PROTO_UDP, { 0 } };
    if (forward_is_loop(f, &key)) {
        udp_request_reject(r, REJECT_SILENT);
        return;
    }
    if (dns_hijacked(f, &d.target, false)) {
        hijack(f, r, &d);
        return;
    }
    target = forward_target(f, &d.target);
    decision = udp_decide_first(f, &c, &d, &v);
    if (decision == UDP_NOBODY) {
        udp_request_reject(r, REJECT_PORT_UNREACH);
        return;
    }
    if (decision == UDP_DECIDED &&
        refused_by_rule(f, r, &d, upstream_kind(forward_way(f, f->ways, v.rule.target)))) {
        not_used(f, &v, &target);
        return;
    }
    u = flow_new(f, r, &d);
    if (!u) {
        if (decision == UDP_DECIDED)
            not_used(f, &v, &target);
        udp_request_reject(r, REJECT_SILENT);
        return;
    }
    udp_request_set_user(r, u);
    if (decision == UDP_DECIDED)
        flow_take(u, &c, &v);
    else if (decision == UDP_WANTS_OWNER)
        ask_owner(u, &target);
    else
        flow_look(u);
}

void udp_flow_on_gone(void *user)
{
    struct udp_flow *u = user;

    if (!u)
        return;
    FCOUNT(u->f, udp_failed);
    flow_free(u, "the way out took too long to open");
}
