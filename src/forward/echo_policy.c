/* echo_policy.c - who answers a ping, and when (icmp.md 5.3, M10, M11, M14; design.md section 6, Healthy).
 *
 * reply-if-healthy: the built-in reply goes out only when the way that TCP to the same destination would take is well: a
 * handshake or data within 15 s, or else one probe that answers within 2 s; pings that come meanwhile wait for the same probe.
 * The answer is held back for the upstream's measured delay, so that no tool shows a false "<1 ms". Whatever fails stays
 * silent: no failure becomes a reply (M17). */
#include "forward_impl.h"

#define HEALTHY_FOR_US   (15 * 1000000ull)
#define PROBE_TIMEOUT_US (2 * 1000000ull)

static void answer(struct echo_wait *w, bool reply)
{
    struct forward *f = w->f;

    struct echo_outcome o = { .kind = reply ? ECHO_OUT_REPLY : ECHO_OUT_DROP };

    echo_complete(f->stack, w->token, &o);
    if (reply)
        FCOUNT(f, echo_replied);
    else
        FCOUNT(f, echo_dropped);
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

static void on_probed(void *arg, int err)
{
    struct echo_probe *p = arg;

    p->running = false;
    while (p->waiting) {
        struct echo_wait *w = p->waiting;

        p->waiting = w->next;
        answer(w, err == 0);
    }
}

static void ask_probe(struct forward *f, struct echo_req *r, uint32_t target)
{
    struct echo_probe *p = &f->probes[target];
    struct echo_wait *w;

    if (!p->running) {
        p->f = f;
        p->running = up_probe(f->env, f->ways->target[target], PROBE_TIMEOUT_US, on_probed, p) == 0;
    }
    w = p->running ? detach(f, r) : NULL;
    if (!w) {
        FCOUNT(f, echo_dropped);
        return;
    }
    w->next = p->waiting;
    p->waiting = w;
}

static void reply_if_healthy(struct forward *f, struct echo_req *r, uint32_t target)
{
    struct upstream *up = f->ways->target[target];
    struct up_health health;

    up_health_get(f->env, up, &health);
    if (upstream_kind(up) == UPSTREAM_DIRECT ||
        (health.last_good_us && loop_now_us(f->loop) - health.last_good_us <= HEALTHY_FOR_US &&
         health.failures == 0))
        reply_after(f, r, delay_us(f, up));
    else
        ask_probe(f, r, target);
}

static enum echo_mode mode_for(const struct forward *f, enum rule_echo rule)
{
    switch (rule) {
    case RULE_ECHO_REPLY:
        return ECHO_MODE_REPLY;
    case RULE_ECHO_REPLY_IF_HEALTHY:
        return ECHO_MODE_REPLY_IF_HEALTHY;
    case RULE_ECHO_DROP:
        return ECHO_MODE_DROP;
    case RULE_ECHO_UNSET:
    case RULE_ECHO_AUTO: /* the loader refuses these four until part C */
    case RULE_ECHO_PROXY:
    case RULE_ECHO_TUNNEL:
    case RULE_ECHO_REJECT:
        break;
    }
    return f->opt.echo;
}

enum echo_verdict echo_policy_on_echo(void *arg, struct echo_req *r)
{
    struct forward *f = arg;
    struct rule_flow asked = { { r->src, 0 },
                               { NULL, r->dst, 0 },
                               ip_is4(&r->dst) ? IP_PROTO_ICMP : IP_PROTO_ICMPV6 };
    struct rule_verdict verdict;

    if (!(r->flags &
          ECHO_TEMPORARY)) /* our own address, broadcast, multicast: the stack's built-in rules (icmp.md 2.4) */
        return ECHO_PASS;
    rules_match(f->ways->rules, &asked, &verdict);
    switch (upstream_kind(f->ways->target[verdict.target])) {
    case UPSTREAM_REJECT:
        FCOUNT(f, rejected);
        echo_reject(r, REJECT_ADMIN_PROHIBITED);
        return ECHO_CONSUMED;
    case UPSTREAM_REJECT_DROP:
        FCOUNT(f, dropped);
        return ECHO_CONSUMED;
    case UPSTREAM_DIRECT:
    case UPSTREAM_SOCKS5:
        break;
    }
    switch (mode_for(f, verdict.echo)) {
    case ECHO_MODE_REPLY:
        reply_after(f, r, delay_us(f, f->ways->target[verdict.target]));
        break;
    case ECHO_MODE_REPLY_IF_HEALTHY:
        reply_if_healthy(f, r, verdict.target);
        break;
    case ECHO_MODE_DROP:
        FCOUNT(f, echo_dropped);
        break;
    }
    return ECHO_CONSUMED;
}
