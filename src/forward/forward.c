/* forward.c - a worker's forwarder: what its flows share. Flows themselves are in tcp_flow.c, udp_flow.c and echo_policy.c. */
#include "culvert/forward.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "forward_impl.h"

const struct counter_desc forward_counter_descs[] = {
#define FORWARD_COUNTER_DESC(member, name) { name, offsetof(struct forward_counters, member) },
    FORWARD_COUNTERS(FORWARD_COUNTER_DESC)
#undef FORWARD_COUNTER_DESC
        { NULL, 0 },
};

void forward_options_defaults(struct forward_options *o)
{
    *o = (struct forward_options){
        .accept = TCP_ACCEPT_LATE,
        .connect_timeout_ms = 10 * 1000,
        .tcp_idle_timeout_ms = 2 * 3600 * 1000,
        .half_close_timeout_ms = 60 * 1000,
        .nat = UDP_NAT_ENDPOINT_INDEPENDENT,
        .udp_idle_timeout_ms = 300 * 1000,
        .dns_idle_timeout_ms = 10 * 1000,
        .echo = ECHO_MODE_AUTO,
        .echo_unsupported = ECHO_MODE_REPLY_IF_HEALTHY,
        .echo_delay = ECHO_DELAY_UPSTREAM_RTT,
        .echo_reject_with = REJECT_ADMIN_PROHIBITED,
        .echo_relay_errors = true,
        .echo_max_flows = 1024,
        .max_tcp = 131072,
        .max_udp = 65536,
        .per_source = 0,
    };
}

/* ---- flows of one source --------------------------------------------------------------------------------------- */

static struct source **source_bucket(struct forward *f, const struct ip_addr *addr)
{
    return &f->source_table[hash_bytes(&f->source_key, addr, sizeof(*addr)) % SOURCE_BUCKETS];
}

struct source *source_find(struct forward *f, const struct ip_addr *addr)
{
    struct source *s = *source_bucket(f, addr);

    while (s && !ip_equal(&s->addr, addr))
        s = s->next;
    return s;
}

struct source *source_get(struct forward *f, const struct ip_addr *addr)
{
    struct source **bucket, *s = source_find(f, addr);

    if (s || !(s = slab_get(&f->sources)))
        return s;
    bucket = source_bucket(f, addr);
    *s = (struct source){ .addr = *addr, .next = *bucket };
    *bucket = s;
    share_begin(f, &s->part, f->opt.per_source);
    return s;
}

struct source *source_enter(struct forward *f, const struct ip_addr *addr)
{
    struct source *s = source_get(f, addr);

    if (!s || (f->opt.per_source > 0 && share_near(f, &s->part, s->flows))) {
        FCOUNT(f, limit_source);
        return NULL;
    }
    s->flows++;
    if (rates_on(f))
        rate_enter_source(f, s);
    return s;
}

void source_leave(struct forward *f, struct source *s)
{
    if (s && --s->flows == 0)
        source_forget(f, s);
}

void source_forget(struct forward *f, struct source *s)
{
    struct source **at;

    if (s->dealt_flows || s->dealt_rate || !rate_leave_source(f, s))
        return;
    for (at = source_bucket(f, &s->addr); *at != s; at = &(*at)->next)
        ;
    *at = s->next;
    slab_put(&f->sources, s);
}

/* ---- small shared decisions -------------------------------------------------------------------------------------- */

bool forward_is_loop(struct forward *f, const struct flow_key *key)
{
    char from[IP_PORT_TEXT_MAX], to[IP_PORT_TEXT_MAX];
    uint32_t held;

    if (!f->own || !own_flows_has(f->own, key))
        return false;
    FCOUNT(f, loop);
    if (log_limit_pass(&f->limits[LOG_LOOP], loop_now_us(f->loop), 1, &held)) {
        struct ip_port a = { key->client, key->client_port }, b = { key->target, key->target_port };

        log_warning(
            "loop: our own socket %s to %s came back through the TUN and was dropped (%u more held back); "
            "set tun.routing-mark or tun.interface-name, or route that address around the TUN",
            ip_port_text(&a, from), ip_port_text(&b, to), held);
    }
    return true;
}

struct ip_port forward_target(const struct forward *f, const struct ip_port *dst)
{
    if (dst->port == 53 && !ip_is_none(&f->opt.dns_server.addr))
        for (size_t i = 0; i < ARRAY_LEN(f->opt.dns_address); i++)
            if (!ip_is_none(&f->opt.dns_address[i]) && ip_equal(&f->opt.dns_address[i], &dst->addr))
                return f->opt.dns_server;
    return *dst;
}

enum stack_reject reject_for_error(int err)
{
    switch (-err) {
    case ECONNREFUSED:
    case EADDRNOTAVAIL: /* faults.md S23: out of local ports looks refused */
    case ELOOP:
        return REJECT_RST;
    case ENETUNREACH:
        return REJECT_NET_UNREACH;
    case EACCES:
    case EPERM:
        return REJECT_ADMIN_PROHIBITED;
    case ETIMEDOUT: /* the target timed out: the client shall see a time-out, too (design.md section 6) */
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
        return REJECT_SILENT;
    default:
        return REJECT_HOST_UNREACH;
    }
}

/* ICMP errors about what we sent for the client are the client's to know (faults.md U12; icmp.md E1 to E5). */
enum stack_reject reject_for_icmp(bool v6, int type, int code)
{
    if (type == (v6 ? 3 : 11))
        return REJECT_TTL_EXCEEDED;
    if (v6)
        return code == 0   ? REJECT_NET_UNREACH
               : code == 1 ? REJECT_ADMIN_PROHIBITED
               : code == 4 ? REJECT_PORT_UNREACH
                           : REJECT_HOST_UNREACH;
    switch (code) {
    case 0:
        return REJECT_NET_UNREACH;
    case 3:
        return REJECT_PORT_UNREACH;
    case 9:
        return REJECT_NET_PROHIBITED;
    case 10:
        return REJECT_HOST_PROHIBITED;
    case 13:
        return REJECT_ADMIN_PROHIBITED;
    default:
        return REJECT_HOST_UNREACH;
    }
}

static void log_flow(const struct flow_end *e, uint32_t held)
{
    struct ip_port from = { e->key.client, e->key.client_port }, to = { e->key.target, e->key.target_port };
    char from_text[IP_PORT_TEXT_MAX], to_text[IP_PORT_TEXT_MAX], id[20], more[48] = "";
    const char *network = e->key.proto == IP_PROTO_TCP ? "tcp" : "udp", *why = e->why ? e->why : "ended";
    const char *rule = rules_name(forward_policy_rules(e->policy), e->rule);
    const struct log_field fields[] = {
        { "id", id, 0 },
        { "network", network, 0 },
        { "source", ip_port_text(&from, from_text), 0 },
        { "destination", ip_port_text(&to, to_text), 0 },
        { "host", e->name, 0 },
        { "upstream", upstream_name(e->way), 0 },
        { "rule", rule, 0 },
        { "reason", why, 0 },
        { "up", NULL, e->bytes_up },
        { "down", NULL, e->bytes_down },
        { "age-ms", NULL, e->age_ms },
        { "held-back", NULL, held },
    };

    snprintf(id, sizeof(id), "%016" PRIx64, e->id);
    if (held)
        snprintf(more, sizeof(more), " (%u more lines like this held back)", held);
    log_event(e->why ? LOG_INFO : LOG_DEBUG, "flow ended", fields, ARRAY_LEN(fields),
              "%s %s -> %s%s%s%s via %s by %s: %s; up %" PRIu64 " down %" PRIu64 " bytes in %u.%03u s%s",
              network, from_text, to_text, e->name[0] ? " (" : "", e->name, e->name[0] ? ")" : "",
              upstream_name(e->way), rule, why, e->bytes_up, e->bytes_down, e->age_ms / 1000,
              e->age_ms % 1000, more);
}

void flow_ended(struct forward *f, struct flow_end *e)
{
    enum log_cause cause = e->why ? LOG_FLOW_FAILED : LOG_FLOW_ENDED;
    char name[256];
    uint32_t held;

    e->name = flow_name_shown(f, &e->key.target, name);
    if (f->on_end)
        f->on_end(f->end_arg, e);
    if (log_enabled(e->why ? LOG_INFO : LOG_DEBUG) &&
        log_limit_pass(&f->limits[cause], loop_now_us(f->loop), 10, &held))
        log_flow(e, held);
}

void forward_watch_ends(struct forward *f, flow_end_fn *fn, void *arg)
{
    f->on_end = fn;
    f->end_arg = arg;
}

/* faults.md U5: at the limit the idlest of a few drawn at random makes room. */
void udp_flow_evict(struct forward *f)
{
    struct udp_flow *oldest = NULL;

    for (int i = 0; i < 32 && f->udp_flows.touched > 0; i++) {
        struct udp_flow *u = slab_at(&f->udp_flows, prng_below(&f->prng, f->udp_flows.touched));

        if (u->state == UDP_FLOW_OPEN && (!oldest || (int32_t)(u->active_ms - oldest->active_ms) < 0))
            oldest = u;
    }
    if (oldest) {
        FCOUNT(f, udp_idle_evicted);
        udp_flow_end(oldest, "evicted: limits.udp is met");
    }
}

/* ---- life ---------------------------------------------------------------------------------------------------------- */

static int slabs_init(struct forward *f)
{
    struct forward_options *o = &f->opt;
    uint32_t flows;
    int r;

    if (o->max_tcp > FORWARD_TCP_MAX)
        o->max_tcp = FORWARD_TCP_MAX;
    if (o->max_udp > FORWARD_UDP_MAX)
        o->max_udp = FORWARD_UDP_MAX;
    flows = o->max_tcp + o->max_udp;

    if ((r = slab_init(&f->tcp_flows, sizeof(struct tcp_flow), o->max_tcp)) != 0 ||
        (r = slab_init(&f->openings, sizeof(struct tcp_opening), o->max_tcp)) != 0 ||
        (r = slab_init(&f->udp_flows, sizeof(struct udp_flow), o->max_udp)) != 0 ||
        (r = slab_init(&f->assocs, sizeof(struct udp_assoc), o->max_udp * 2)) != 0 ||
        (r = slab_init(&f->held, sizeof(struct held) + HELD_BYTES, 4096)) != 0 ||
        (r = slab_init(&f->sources, sizeof(struct source), flows + 1)) != 0 || /* one asks at the limit */
        (r = slab_init(&f->meters, sizeof(struct meter), flows)) != 0 ||
        (r = slab_init(&f->paces, sizeof(struct pace), o->max_tcp)) != 0 ||
        (r = dns_queries_init(&f->queries)) != 0 ||
        (r = slab_init(&f->pending, sizeof(struct dns_pending), 4096)) != 0 ||
        (r = dns_sessions_init(&f->sessions)) != 0 ||
        (r = slab_init(&f->owners, sizeof(struct owner), FLOW_OWNERS_MAX + o->max_udp)) != 0 ||
        (r = slab_init(&f->echoes, sizeof(struct echo_wait), 4096)) != 0 ||
        (r = slab_init(&f->probes, sizeof(struct echo_probe), ECHO_PROBES_MAX)) != 0 ||
        (r = udp_waits_init(f)) != 0)
        return r;
    return 0;
}

int forward_new(const struct forward_setup *setup, struct forward **out)
{
    struct forward *f = calloc(1, sizeof(*f));
    uint64_t seed;
    int r;

    if (!f)
        return -ENOMEM;
    f->loop = setup->loop;
    f->own = setup->own;
    f->worker = setup->worker;
    memcpy(f->gateway, setup->gateway, sizeof(f->gateway));
    f->epoch_us = clock_now_us();
    f->ways = policy_ways(setup->policy, f);
    f->opt = *forward_policy_options(setup->policy);
    share_begin(f, &f->tcp_part, f->opt.max_tcp);
    share_begin(f, &f->udp_part, f->opt.max_udp);
    if ((r = slabs_init(f)) != 0 || (r = random_bytes(&seed, sizeof(seed))) != 0 ||
        (r = random_bytes(&f->source_key, sizeof(f->source_key))) != 0) {
        forward_free(f);
        return r;
    }
    prng_seed(&f->prng, seed);
    *out = f;
    return 0;
}

void forward_stop(struct forward *f)
{
    if (f)
        echo_names_free(f);
}

void forward_free(struct forward *f)
{
    if (!f)
        return;
    echo_probes_forget(f);
    echo_tunnel_free(f);
    slab_fini(&f->tcp_flows);
    slab_fini(&f->openings);
    slab_fini(&f->udp_flows);
    slab_fini(&f->assocs);
    slab_fini(&f->held);
    slab_fini(&f->sources);
    slab_fini(&f->meters);
    slab_fini(&f->paces);
    slab_fini(&f->queries);
    slab_fini(&f->pending);
    slab_fini(&f->sessions);
    slab_fini(&f->owners);
    slab_fini(&f->echoes);
    slab_fini(&f->probes);
    slab_fini(&f->looks);
    slab_fini(&f->waits);
    ways_unref(f->ways);
    free(f);
}

void forward_set_policy(struct forward *f, struct forward_policy *p)
{
    uint32_t max_tcp = f->opt.max_tcp, max_udp = f->opt.max_udp;
    struct ways *old = f->ways;

    f->ways = policy_ways(p, f);
    f->opt = *forward_policy_options(p);
    f->opt.max_tcp = max_tcp; /* of the slabs */
    f->opt.max_udp = max_udp;
    for (uint32_t i = 0; i < SOURCE_BUCKETS; i++)
        for (struct source *s = f->source_table[i]; s; s = s->next) {
            s->dealt_flows = s->dealt_rate = false;
            share_begin(f, &s->part, f->opt.per_source);
        }
    rates_open(f);
    if (old->rate_count > 0 || rates_on(f))
        rates_renew(f);
    ways_unref(old);
}

struct forward_policy *forward_policy_now(const struct forward *f)
{
    return f->ways->policy;
}

size_t forward_pools(const struct forward *f, struct stack_pool_info *out, size_t cap)
{
    const struct {
        const char *name;
        const struct slab *slab;
    } all[] = { { "flow-tcp", &f->tcp_flows },       { "flow-opening", &f->openings },
                { "flow-udp", &f->udp_flows },       { "flow-association", &f->assocs },
                { "flow-held", &f->held },           { "flow-source", &f->sources },
                { "flow-meter", &f->meters },        { "flow-pace", &f->paces },
                { "flow-dns-tcp", &f->queries },     { "flow-dns", &f->pending },
                { "flow-dns-session", &f->sessions } };
    size_t n = 0;

    for (; n < ARRAY_LEN(all) && n < cap; n++) {
        const struct slab *s = all[n].slab;

        out[n] = (struct stack_pool_info){ .name = all[n].name,
                                           .object_bytes = s->object_bytes,
                                           .in_use = s->in_use,
                                           .high_water = s->high_water,
                                           .limit = s->limit,
                                           .failed = s->failed };
    }
    return n;
}

void forward_memory(const struct forward *f, struct memory_use *add)
{
    const struct slab *const all[] = { &f->tcp_flows, &f->openings, &f->udp_flows, &f->assocs,
                                       &f->held,      &f->sources,  &f->queries,   &f->pending,
                                       &f->sessions,  &f->echoes,   &f->probes,    &f->looks,
                                       &f->waits,     &f->meters,   &f->paces,     &f->owners };

    add->bytes[MEMORY_FLOWS] += sizeof(*f);
    memory_add_slabs(add, MEMORY_FLOWS, all, ARRAY_LEN(all));
}

bool forward_trim(struct forward *f)
{
    struct slab *const all[] = { &f->tcp_flows, &f->openings, &f->udp_flows, &f->assocs,
                                 &f->held,      &f->sources,  &f->queries,   &f->pending,
                                 &f->sessions,  &f->echoes,   &f->probes,    &f->looks,
                                 &f->waits,     &f->meters,   &f->paces,     &f->owners };
    bool more = rates_trim(f);

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        more = slab_trim(all[i], NULL, NULL) || more;
    return echo_tunnel_trim(f) || more;
}

void forward_stack_events(struct stack_events *out)
{
    out->on_tcp_request = tcp_flow_on_request;
    out->on_tcp_request_gone = tcp_flow_on_gone;
    out->on_tcp_open = tcp_flow_on_open;
    out->on_tcp_readable = tcp_flow_on_readable;
    out->on_tcp_writable = tcp_flow_on_writable;
    out->on_tcp_closed = tcp_flow_on_closed;
    out->on_udp_request = udp_flow_on_request;
    out->on_udp_request_gone = udp_flow_on_gone;
    out->on_udp_datagram = udp_flow_on_datagram;
    out->on_echo = echo_policy_on_echo;
}

void forward_attach(struct forward *f, struct stack *s, struct up_env *env)
{
    f->env = env;
    if (env)
        echo_tunnel_attach(f);
    f->stack = s;
    f->wheel = stack_wheel(s);
    rates_open(f);
}

void forward_attach_dns(struct forward *f, struct dns_service *dns, struct name_book *book)
{
    f->dns = dns;
    f->book = book;
}

void forward_set_dns(struct forward *f, const struct dns_settings *settings)
{
    f->dns_settings = settings;
}

void forward_attach_echo(struct forward *f, struct echo_proxy *echo)
{
    f->echo = echo;
}

void forward_end_flows(struct forward *f)
{
    for (uint32_t i = 0; i < f->tcp_flows.touched; i++) {
        struct tcp_flow *t = slab_at(&f->tcp_flows, i);

        if (t->state == TCP_FLOW_OPENING)
            tcp_flow_refuse(t, "the gateway ends");
        else if (t->state != TCP_FLOW_FREE)
            tcp_abort(t->conn);
    }
    for (uint32_t i = 0; i < f->udp_flows.touched; i++) {
        struct udp_flow *u = slab_at(&f->udp_flows, i);

        if (u->state != UDP_FLOW_FREE)
            udp_flow_end(u, "the gateway ends");
    }
}

const struct forward_counters *forward_counters(const struct forward *f)
{
    return &f->cnt;
}

uint32_t forward_tcp_count(const struct forward *f)
{
    return f->tcp_flows.in_use;
}

uint32_t forward_udp_count(const struct forward *f)
{
    return f->udp_flows.in_use;
}

static const char *tcp_state_text(uint8_t state)
{
    static const char *const text[] = {
        [TCP_FLOW_FREE] = "free",       [TCP_FLOW_OPENING] = "opening", [TCP_FLOW_ACCEPT] = "opening",
        [TCP_FLOW_DIALING] = "opening", [TCP_FLOW_OPEN] = "open",       [TCP_FLOW_DRAIN] = "closing",
        [TCP_FLOW_SNIFF] = "opening",   [TCP_FLOW_ASK] = "opening",     [TCP_FLOW_EARLY] = "opening",
        [TCP_FLOW_DNS] = "open",
    };

    return text[state];
}

/* @way: that it has taken, where that is known; else what its rule says, perhaps a group. */
static const struct upstream *way_of(const struct ways *w, uint32_t target, const struct upstream *way)
{
    return way ? way : w->target[target];
}

static const struct upstream *way_of_tcp(const struct tcp_flow *t)
{
    return way_of(t->ways, t->target, tcp_flow_has_up(t) ? up_stream_way(t->up) : NULL);
}

static bool has_left(const struct forward *f, const struct ways *w, const struct upstream *way)
{
    return w != f->ways && !forward_policy_has(f->ways->policy, way);
}

/* Six bits for the worker, one for UDP, 25 for the slot, 32 for when it began there: the slot's next flow has another id, but for
 * one that begins within the same millisecond or 49 days later. */
uint64_t flow_id(const struct forward *f, bool udp, uint32_t slot, uint32_t started_ms)
{
    return (uint64_t)f->worker << FLOW_ID_WORKER_SHIFT | (uint64_t)udp << 57 | (uint64_t)slot << 32 |
           started_ms;
}

void forward_flows(struct forward *f, flow_fn *fn, void *arg)
{
    uint32_t now_ms = forward_now_ms(f);
    char name[256];

    for (uint32_t i = 0; i < f->tcp_flows.touched; i++) {
        struct tcp_flow *t = slab_at(&f->tcp_flows, i);
        struct tcp_info info = { 0 };
        const struct upstream *way;
        struct flow_key key;

        if (t->state == TCP_FLOW_FREE)
            continue;
        tcp_flow_key(t, &key);
        if (t->state != TCP_FLOW_OPENING)
            tcp_conn_info(t->conn, &info);
        way = way_of_tcp(t);
        fn(arg, &(struct flow_info){ flow_id(f, false, i, t->started_ms), key, way, t->ways->policy, t->rule,
                                     loop_now_us(f->loop) - (uint64_t)(now_ms - t->started_ms) * 1000,
                                     info.bytes_up, info.bytes_down, tcp_state_text(t->state),
                                     has_left(f, t->ways, way), flow_name_shown(f, &key.target, name) });
    }
    for (uint32_t i = 0; i < f->udp_flows.touched; i++) {
        struct udp_flow *u = slab_at(&f->udp_flows, i);
        const struct udp_assoc *a = u->assocs;
        const struct upstream *way;
        struct flow_key key;

        if (u->state == UDP_FLOW_FREE)
            continue;
        key = (struct flow_key){ u->client.addr,       u->first_target.addr, u->client.port,
                                 u->first_target.port, IP_PROTO_UDP,         { 0 } };
        way = way_of(u->ways, a ? a->target : 0, a && a->up ? up_udp_way(a->up) : NULL);
        fn(arg,
           &(struct flow_info){ flow_id(f, true, i, u->started_ms), key, way, u->ways->policy, u->rule,
                                loop_now_us(f->loop) - (uint64_t)(now_ms - u->started_ms) * 1000, u->bytes_up,
                                u->bytes_down, u->state == UDP_FLOW_OPENING ? "opening" : "open",
                                has_left(f, u->ways, way), flow_name_shown(f, &key.target, name) });
    }
}

static void tcp_flow_cut(struct tcp_flow *t, const char *why)
{
    if (t->state == TCP_FLOW_OPENING)
        tcp_flow_refuse(t, why);
    else
        tcp_abort(t->conn);
}

bool forward_end_flow(struct forward *f, uint64_t id)
{
    static const char why[] = "ended through the control socket";
    uint32_t slot = (uint32_t)(id >> 32) & ((1u << 25) - 1), started_ms = (uint32_t)id;

    if (id >> FLOW_ID_WORKER_SHIFT != f->worker)
        return false;
    if ((id >> 57 & 1) == 0) {
        struct tcp_flow *t = slot < f->tcp_flows.touched ? slab_at(&f->tcp_flows, slot) : NULL;

        if (!t || t->state == TCP_FLOW_FREE || t->started_ms != started_ms)
            return false;
        tcp_flow_cut(t, why);
    } else {
        struct udp_flow *u = slot < f->udp_flows.touched ? slab_at(&f->udp_flows, slot) : NULL;

        if (!u || u->state == UDP_FLOW_FREE || u->started_ms != started_ms)
            return false;
        udp_flow_end(u, why);
    }
    return true;
}

uint32_t forward_drain(struct forward *f)
{
    static const char why[] = "its way out left the configuration";
    uint32_t n = 0;

    for (uint32_t i = 0; i < f->tcp_flows.touched; i++) {
        struct tcp_flow *t = slab_at(&f->tcp_flows, i);

        if (t->state == TCP_FLOW_FREE || !has_left(f, t->ways, way_of_tcp(t)))
            continue;
        n++;
        tcp_flow_cut(t, why);
    }
    for (uint32_t i = 0; i < f->udp_flows.touched; i++) {
        struct udp_flow *u = slab_at(&f->udp_flows, i);
        const struct udp_assoc *a = u->assocs;

        if (u->state == UDP_FLOW_FREE ||
            !has_left(f, u->ways, way_of(u->ways, a ? a->target : 0, a && a->up ? up_udp_way(a->up) : NULL)))
            continue;
        n++;
        udp_flow_end(u, why);
    }
    return n;
}
