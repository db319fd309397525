/* echo_policy.c - who answers a ping, and when (icmp.md 5.3; design.md section 6, Healthy).
 *
 * A rule's `echo`, else `stack.icmp.echo`, says the mode; `auto` looks at the way out: DIRECT is proxied, another one gets what
 * `on-unsupported` says. Which mode a rule's pings get, and why, is logged once for each rule (M16).
 *
 * reply-if-healthy: the built-in reply goes out only when the way that TCP to the same destination would take is well: a
 * handshake or data within 15 s, or else one probe that answers within 2 s; pings that come meanwhile wait for the same probe.
 * The answer is held back for the upstream's measured delay, so that no tool shows a false "<1 ms". What fails gets
 * what `on-down` says, silence or host unreachable: no failure becomes a reply, or goes out another way (M17, T11). */
#include "forward_impl.h"

#define HEALTHY_FOR_US   (15 * 1000000ull)
#define PROBE_TIMEOUT_US (2 * 1000000ull)

/* What a detached request gets: the reply, or what `on-down` says. */
static void answer(struct echo_wait *w, bool reply)
{
    struct forward *f = w->f;
    struct echo_outcome o = { .kind = ECHO_OUT_DROP };

    if (reply) {
        o.kind = ECHO_OUT_REPLY;
        FCOUNT(f, echo_replied);
    } else if (f->opt.echo_down == ECHO_DOWN_REJECT) {
        o = (struct echo_outcome){ .kind = ECHO_OUT_REJECT, .why = REJECT_HOST_UNREACH };
        FCOUNT(f, echo_rejected);
    } else {
        FCOUNT(f, echo_dropped);
    }
    echo_complete(f->stack, w->token, &o);
    wheel_cancel(f->wheel, &w->timer);
    slab_put(&f->echoes, w);
}

static void on_delay_over(struct wheel_timer *t, uint64_t now_us)
{
    (void)now_us;
    answer(CONTAINER_OF(t, struct echo_wait, timer), true);
}

static struct echo_wait *detach(struct forward *f, struct echo_req *r)
{
    struct echo_wait *w = slab_get(&f->echoes);

    if (!w)
        return NULL;
    w->f = f;
    w->timer.fn = on_delay_over;
    w->token = echo_detach(r, ECHO_KEEP_PAYLOAD);
    if (w->token)
        return w;
    slab_put(&f->echoes, w);
    return NULL;
}

static uint32_t delay_us(struct forward *f, struct upstream *up)
{
    struct up_health health;

    if (f->opt.echo_delay == ECHO_DELAY_NONE)
        return 0;
    up_health_get(f->env, up, &health);
    return health.rtt_us;
}

static void reply_after(struct forward *f, struct echo_req *r, uint32_t wait_us)
{
    struct echo_wait *w;

    if (wait_us == 0) {
        if (echo_reply(r) == EV_SENT)
            FCOUNT(f, echo_replied);
        return;
    }
    w = detach(f, r);
    if (w)
        wheel_set(f->wheel, &w->timer, loop_now_us(f->loop) + wait_us);
    else
        FCOUNT(f, echo_dropped);
}

static void probe_free(struct echo_probe *p)
{
    struct echo_probe **at;

    for (at = &p->f->probing; *at != p; at = &(*at)->next)
        ;
    *at = p->next;
    upstream_unref(p->up);
    slab_put(&p->f->probes, p);
}

static void on_probed(void *arg, int err)
{
    struct echo_probe *p = arg;

    while (p->waiting) {
        struct echo_wait *w = p->waiting;

        p->waiting = w->next;
        answer(w, err == 0);
    }
    probe_free(p);
}

/* The probe of @up that runs, or a new one. NULL: none can be started. */
static struct echo_probe *probe_of(struct forward *f, struct upstream *up)
{
    struct echo_probe *p = f->probing;

    while (p && p->up != up)
        p = p->next;
    if (p || !(p = slab_get(&f->probes)))
        return p;
    *p = (struct echo_probe){ .f = f, .up = upstream_ref(up), .next = f->probing };
    f->probing = p;
    if (up_probe(f->env, up, PROBE_TIMEOUT_US, on_probed, p) == 0)
        return p;
    probe_free(p);
    return NULL;
}

void echo_probes_forget(struct forward *f)
{
    while (f->probing)
        probe_free(f->probing);
}

static void ask_probe(struct forward *f, struct echo_req *r, uint32_t target)
{
    struct echo_probe *p = probe_of(f, f->ways->target[target]);
    struct echo_wait *w = p ? detach(f, r) : NULL;

    if (!w) {
        echo_answer_down(f, r);
        return;
    }
    w->next = p->waiting;
    p->waiting = w;
}

static void reply_if_healthy(struct forward *f, struct echo_req *r, uint32_t target, struct upstream *up)
{
    struct up_health health;

    up_health_get(f->env, up, &health);
    if (upstream_kind(up) == UPSTREAM_DIRECT ||
        (health.last_good_us && loop_now_us(f->loop) - health.last_good_us <= HEALTHY_FOR_US &&
         health.failures == 0))
        reply_after(f, r, delay_us(f, up));
    else
        ask_probe(f, r, target);
}

void echo_answer_down(struct forward *f, struct echo_req *r)
{
    if (f->opt.echo_down == ECHO_DOWN_DROP) {
        FCOUNT(f, echo_dropped);
        return;
    }
    FCOUNT(f, echo_rejected);
    echo_refuse(
        f, r,
        REJECT_HOST_UNREACH); /* not the code of a rule that says no: ping prints them differently (J4) */
}

/* ---- which way ------------------------------------------------------------------------------------------------------ */

enum way { WAY_REPLY_IF_HEALTHY, WAY_REPLY, WAY_PROXY, WAY_TUNNEL, WAY_DROP, WAY_REJECT, WAY_DOWN };
enum reason {
    ASKED,
    DIRECT_WORKS,
    DIRECT_OFF,
    DIRECT_OFF_ASKED,
    CANNOT_CARRY,
    NEVER_DIRECT,
    TUNNEL_WORKS,
    FAR_END_LACKS,
    NO_TUNNEL
};

struct choice {
    enum way way;
    enum reason reason;
};

static const char *const way_text[] = { "reply-if-healthy", "reply",  "proxy", "tunnel", "drop",
                                        "reject",           "on-down" };
static const char *const reason_text[] = {
    "as configured",
    "auto: it goes direct, and this host may ping",
    "auto: it goes direct, and this host may not ping",
    "echo is proxy, and this host may not ping",
    "auto: its way out cannot carry pings, so on-unsupported decides",
    "echo is proxy, but only DIRECT may contact the target from this host, so on-unsupported decides",
    "auto: its way out carries pings",
    "its far end carries no pings, so on-unsupported decides",
    "echo is tunnel, and its way out is none, so on-unsupported decides",
};

static enum echo_mode mode_for(const struct forward *f, enum rule_echo rule)
{
    switch (rule) {
    case RULE_ECHO_AUTO:
        return ECHO_MODE_AUTO;
    case RULE_ECHO_REPLY:
        return ECHO_MODE_REPLY;
    case RULE_ECHO_REPLY_IF_HEALTHY:
        return ECHO_MODE_REPLY_IF_HEALTHY;
    case RULE_ECHO_PROXY:
        return ECHO_MODE_PROXY;
    case RULE_ECHO_DROP:
        return ECHO_MODE_DROP;
    case RULE_ECHO_REJECT:
        return ECHO_MODE_REJECT;
    case RULE_ECHO_TUNNEL:
        return ECHO_MODE_TUNNEL;
    case RULE_ECHO_UNSET:
        break;
    }
    return f->opt.echo;
}

static enum way way_of_mode(enum echo_mode mode)
{
    switch (mode) {
    case ECHO_MODE_REPLY_IF_HEALTHY:
        return WAY_REPLY_IF_HEALTHY;
    case ECHO_MODE_REPLY:
        return WAY_REPLY;
    case ECHO_MODE_REJECT:
        return WAY_REJECT;
    case ECHO_MODE_DROP:
    case ECHO_MODE_AUTO: /* these three were settled before */
    case ECHO_MODE_PROXY:
    case ECHO_MODE_TUNNEL:
        break;
    }
    return WAY_DROP;
}

/* M12, M16, M17: what goes through a proxy is never sent directly, and what cannot be sent is never answered by us. */
static struct choice through(const struct forward *f, struct upstream *up, enum reason works,
                             enum reason cannot, bool v6)
{
    if (upstream_kind(up) != UPSTREAM_MASQUE)
        return (struct choice){ way_of_mode(f->opt.echo_unsupported), cannot };
    if (up_echo_state(f->env, up, v6) == UP_ECHO_UNSUPPORTED)
        return (struct choice){ way_of_mode(f->opt.echo_unsupported), FAR_END_LACKS };
    return (struct choice){ WAY_TUNNEL, works };
}

static struct choice choose(const struct forward *f, enum rule_echo rule, struct upstream *up, bool v6)
{
    bool direct = upstream_kind(up) == UPSTREAM_DIRECT;
    bool can_ping = f->echo && echo_proxy_mode(f->echo, v6) != ECHO_PROXY_MODE_OFF;
    enum echo_mode mode = mode_for(f, rule);

    switch (mode) {
    case ECHO_MODE_AUTO:
        if (direct)
            return can_ping ? (struct choice){ WAY_PROXY, DIRECT_WORKS }
                            : (struct choice){ WAY_DROP, DIRECT_OFF };
        return through(f, up, TUNNEL_WORKS, CANNOT_CARRY, v6);
    case ECHO_MODE_TUNNEL:
        return through(f, up, ASKED, NO_TUNNEL, v6);
    case ECHO_MODE_PROXY:
        if (direct)
            return can_ping ? (struct choice){ WAY_PROXY, ASKED }
                            : (struct choice){ WAY_DOWN, DIRECT_OFF_ASKED };
        return (struct choice){ way_of_mode(f->opt.echo_unsupported), NEVER_DIRECT };
    case ECHO_MODE_REPLY_IF_HEALTHY:
    case ECHO_MODE_REPLY:
    case ECHO_MODE_DROP:
    case ECHO_MODE_REJECT:
        break;
    }
    return (struct choice){ way_of_mode(mode), ASKED };
}

/* One line for each rule and family, and one more when its choice changes (M16). */
static void say(struct forward *f, const struct rule_verdict *verdict, struct choice c, bool v6)
{
    size_t rules = rules_count(f->ways->rules);
    size_t at = 2 * (verdict->rule == RULE_IMPLICIT ? rules : verdict->rule) + v6;
    uint8_t now = (uint8_t)(1 + c.way * 16 + c.reason);
    _Atomic uint8_t *said = f->ways->echo_said;

    if (atomic_load_explicit(&said[at], memory_order_relaxed) == now ||
        atomic_exchange_explicit(&said[at], now, memory_order_relaxed) == now)
        return;
    log_info("icmp: IPv%d pings that %s takes (via %s): %s (%s)", v6 ? 6 : 4,
             rules_name(f->ways->rules, verdict->rule), upstream_name(f->ways->target[verdict->target]),
             way_text[c.way], reason_text[c.reason]);
}

struct ping { /* one request on its way through the policy */
    struct echo_req *r;
    const char *name; /* its target is a fake address, and stands for this; NULL: it is not */
    bool asked; /* `named` and `alias` say what is known of it: only when somebody needs it is it looked up */
    enum echo_named named;
    struct echo_alias alias;
};

static enum echo_named name_of(struct forward *f, struct ping *p)
{
    if (!p->asked)
        p->named = echo_name_find(f, &p->r->dst, p->name, &p->alias);
    p->asked = true;
    return p->named;
}

/* What needs an address that can be pinged: is there one? Otherwise the request waits, or its client is told. */
static bool has_address(struct forward *f, struct ping *p)
{
    if (!p->name)
        return true;
    switch (name_of(f, p)) {
    case ECHO_NAME_KNOWN:
        return true;
    case ECHO_NAME_MISSING: /* icmp.md M18 */
        FCOUNT(f, echo_rejected);
        echo_refuse(f, p->r, REJECT_NET_UNREACH);
        return false;
    case ECHO_NAME_ASKED:
        if (echo_name_hold(f, p->r))
            return false;
        break;
    case ECHO_NAME_BUSY:
        break;
    }
    FCOUNT(f, echo_dropped);
    return false;
}

static void act(struct forward *f, struct ping *p, uint32_t target, struct upstream *up, enum way way)
{
    struct echo_req *r = p->r;

    switch (way) {
    case WAY_REPLY:
        reply_after(f, r, delay_us(f, up));
        break;
    case WAY_REPLY_IF_HEALTHY:
        reply_if_healthy(f, r, target, up);
        break;
    case WAY_PROXY:
        if (has_address(f, p) && !echo_direct(f, r, p->name ? &p->alias : NULL))
            echo_answer_down(f, r);
        break;
    case WAY_TUNNEL:
        if (has_address(f, p))
            echo_tunnel(f, r, p->name ? &p->alias.real : &r->dst, f->ways->target[target], up);
        break;
    case WAY_REJECT:
        FCOUNT(f, echo_rejected);
        echo_refuse(f, r, f->opt.echo_reject_with);
        break;
    case WAY_DOWN:
        echo_answer_down(f, r);
        break;
    case WAY_DROP:
        FCOUNT(f, echo_dropped);
        break;
    }
}

/* A ping has no socket that could be asked for, and says no name. */
#define PING_SETTLED (RULE_NEEDS_UID | RULE_NEEDS_PROCESS | RULE_NEEDS_NAME)

enum echo_verdict echo_policy_on_echo(void *arg, struct echo_req *r)
{
    struct forward *f = arg;
    bool v6 = !ip_is4(&r->dst);
    struct rule_flow asked = { .client.addr = r->src,
                               .target.addr = r->dst,
                               .proto = v6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP,
                               .in_name = f->opt.in_name[0] != '\0' ? f->opt.in_name : NULL,
                               .settled = PING_SETTLED };
    struct rule_verdict verdict;
    struct choice c;
    struct upstream *by, *up;
    struct ping p = { .r = r };
    char name[256];

    if (f->echo && echo_proxy_is_loop(f->echo, &r->src, &r->dst, r->id, r->seq)) {
        FCOUNT(f, loop);
        return ECHO_CONSUMED;
    }
    if (!(r->flags &
          ECHO_TEMPORARY)) /* our own address, broadcast, multicast: the stack's built-in rules (icmp.md 2.4) */
        return ECHO_PASS;
    if (f->book && name_book_is_fake(f->book, &r->dst)) {
        if (name_book_find(f->book, &r->dst, 0, name, false) != NAME_FAKE) {
            FCOUNT(f, fakeip_unknown);
            echo_refuse(f, r, REJECT_HOST_UNREACH);
            return ECHO_CONSUMED;
        }
        p.name = name;
        asked.target = (struct host_port){ .name = name };
    }
    rules_match(f->ways->rules, &asked, &verdict);
    if (p.name && (verdict.needs & RULE_NEEDS_ADDRESS) != 0) {
        if (name_of(f, &p) == ECHO_NAME_ASKED || p.named == ECHO_NAME_BUSY) {
            (void)has_address(f, &p); /* it waits, and is seen again */
            return ECHO_CONSUMED;
        }
        asked.settled |= RULE_NEEDS_ADDRESS;
        asked.target.addr = p.alias.real;
        rules_match(f->ways->rules, &asked, &verdict);
    }
    ways_hit(f->ways, verdict.rule);
    by = f->ways->target[verdict.target];
    up = up_echo_way(f->env, by, &r->src, &asked.target, v6, echo_tunnel_way(f, r, by));
    switch (upstream_kind(up)) {
    case UPSTREAM_REJECT:
        FCOUNT(f, rejected);
        echo_refuse(f, r, f->opt.echo_reject_with);
        return ECHO_CONSUMED;
    case UPSTREAM_REJECT_DROP:
        FCOUNT(f, dropped);
        return ECHO_CONSUMED;
    case UPSTREAM_DIRECT:
    case UPSTREAM_SOCKS5:
    case UPSTREAM_SOCKS4:
    case UPSTREAM_SOCKS4A:
    case UPSTREAM_HTTP:
    case UPSTREAM_GROUP:
    case UPSTREAM_MASQUE:
        c = choose(f, verdict.echo, up, v6);
        break;
    }
    say(f, &verdict, c, v6);
    act(f, &p, verdict.target, up, c.way);
    return ECHO_CONSUMED;
}
