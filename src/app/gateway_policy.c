/* gateway_policy.c - what of a configuration can change while flows live, and changing it (faults.md C9 to C11).
 *
 * How it works. A policy (forward.h) is rules, ways out and options in one immutable piece. A reload builds a whole new one before anybody
 * is told; all workers are told by one allocation, so it is all of them or none. Flows keep the policy that took them until they
 * end. What lies deeper than a policy (the device, the workers, the limits) is compared, named, and left as it was. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway_impl.h"

#define DRAIN_AGAIN_US 1000000 /* when memory was out */
#define LISTS_AGAIN_US 1000000

/* ---- building ------------------------------------------------------------------------------------------------------ */

static void targets_free(struct upstream **targets, size_t n)
{
    for (size_t i = 0; i < n; i++)
        upstream_unref(targets[i]);
    free((void *)targets);
}

/* What of the options is not the file's: shares of the limits, and the name server of `exec` and `demo`. */
static struct forward_options options_of(const struct gateway *g, const struct config *c)
{
    struct forward_options o = c->forward;
    struct config_shares now;

    gateway_shares(c, g->share.workers, &now);
    o.max_tcp = g->share.of.max_tcp;
    o.max_udp = g->share.of.max_udp;
    o.per_source = now.per_source;
    memcpy(o.dns_address, g->setup.dns_address, sizeof(o.dns_address));
    o.dns_server = g->setup.dns_server;
    snprintf(o.in_name, sizeof(o.in_name), "%s", tun_name(g->tun));
    return o;
}

/* Lists that leave no room for packets are a mistake that is told, not a process that the kernel ends. */
static int check_memory(const struct gateway *g, const struct config *c, struct err *err)
{
    uint64_t room = g->share.of.worker_bytes * g->share.workers, sum;
    const struct config_provider *largest = NULL;
    struct memory_use use = { { 0 } };

    rules_memory(c->rules, &use);
    sum = use.bytes[MEMORY_RULES];
    if (sum <= room)
        return 0;
    for (size_t i = 0; i < c->provider_count; i++)
        if (!largest || rule_set_bytes(c->providers[i].set) > rule_set_bytes(largest->set))
            largest = &c->providers[i];
    return err_set(
        err, -ENOMEM,
        "rules and lists take %" PRIu64 " bytes, and limits.memory of %" PRIu64 " leaves %" PRIu64
        " for them and all traffic; the largest list is %.100s with %zu bytes: take a shorter one, or "
        "raise limits.memory",
        sum, g->share.of.memory_bytes, room, largest ? largest->name : "none",
        largest ? rule_set_bytes(largest->set) : 0);
}

static int policy_new(struct gateway *g, const struct config *c, struct forward_policy **out, struct err *err)
{
    struct upstream **targets = calloc(c->upstream_count, sizeof(struct upstream *));
    struct forward_options options = options_of(g, c);
    struct forward_policy_setup setup = {
        .options = &options,
        .rules = c->rules,
        .targets = targets,
        .target_count = c->upstream_count,
        .rates = c->rates,
        .rate_count = c->rate_count,
        .workers = g->share.workers,
    };
    size_t olds = 0;
    struct upstream *const *old = g->policy ? forward_policy_targets(g->policy, &olds) : NULL;
    int r = targets ? upstreams_renew(c->upstreams, c->upstream_count, old, olds, targets) : -ENOMEM;

    if (r == 0)
        r = forward_policy_new(&setup, out);
    if (targets)
        targets_free(targets, c->upstream_count);
    return r == 0 ? 0 : err_set(err, r, "the proxies cannot be set up: %s", strerror(-r));
}

int gateway_policy(struct gateway *g, const struct config *c, struct forward_policy **out, struct err *err)
{
    int r = check_memory(g, c, err);

    return r != 0 ? r : policy_new(g, c, out, err);
}

/* ---- changing it ----------------------------------------------------------------------------------------------------- */

/* Said by name, and left as it was. */
static void say_what_stays(const struct config *old, const struct config *now)
{
    const char *changed[64];
    size_t n = config_fixed_changes(old, now, changed, ARRAY_LEN(changed));

    for (size_t i = 0; i < n; i++)
        log_warning("reload: %s stays as it was until a restart", changed[i]);
}

static void on_drain(struct loop_timer *t)
{
    struct gateway *g = CONTAINER_OF(t, struct gateway, drain_timer);

    if (workers_drain(g->workers, g->worker_count) != 0)
        loop_timer_start(g->setup.loop, t, loop_now_us(g->setup.loop) + DRAIN_AGAIN_US, on_drain);
}

int gateway_set_policy(struct gateway *g, struct forward_policy *p, struct dns_plan *plan)
{
    struct workers_news *news = workers_news_new(g->worker_count, p, plan);

    if (!news)
        return -ENOMEM;
    if (plan) /* nothing can fail any more; and before the first worker hands one out */
        gateway_names_use_fakes(g, plan);
    workers_set_policy(g->workers, news);
    forward_policy_unref(g->policy);
    g->policy = p;
    return 0;
}

int gateway_reload(struct gateway *g, const struct config *now, uint32_t drain_ms, struct err *err)
{
    struct forward_policy *policy;
    struct dns_plan *plan = NULL;
    int r = gateway_policy(g, now, &policy, err);

    if (r != 0)
        return r;
    if ((r = gateway_names_plan(now, policy, &plan)) == 0)
        r = gateway_set_policy(g, policy, plan);
    if (r != 0) {
        forward_policy_unref(policy);
        dns_plan_unref(plan);
        return err_set(err, r, "no memory to tell the workers");
    }
    gateway_picks_again(g);
    gateway_names_set_plan(g, plan);
    gateway_lists_close(g);
    gateway_lists_open(g, now, LISTS_AGAIN_US);
    say_what_stays(g->setup.config, now);
    if ((r = log_init(&now->log)) != 0)
        log_warning("reload: log.output: %s: %s; lines go where they went", now->log.output, strerror(-r));
    loop_timer_stop(g->setup.loop, &g->drain_timer);
    if (drain_ms != GATEWAY_NO_DRAIN)
        loop_timer_start(g->setup.loop, &g->drain_timer,
                         loop_now_us(g->setup.loop) + (uint64_t)drain_ms * 1000, on_drain);
    return 0;
}
