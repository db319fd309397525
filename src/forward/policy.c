/* policy.c - a forwarder's policy and each worker's hold on it: what lets a reload change the rules while flows live.
 *
 * How it works. The policy is immutable and counted by an atomic. A worker counts its own flows in a `struct ways` of its own, without
 * an atomic, and gives its one reference to the policy back when the last of these flows has ended. All memory is taken when the
 * policy is made, so a worker that is told of a new one cannot fail half way. */
#include <stdatomic.h>
#include <stdlib.h>

#include "forward_impl.h"

struct forward_policy {
    atomic_uint refs;
    struct forward_options options;
    struct rules *rules;
    struct upstream **target;
    size_t count;
    struct rate_limit *rates;
    uint32_t rate_count;
    _Atomic uint8_t *echo_said;
    uint32_t workers;
    struct hold { /* a cache line and more each: its count changes with every flow */
        _Alignas(CACHE_LINE) struct ways ways;
    } * hold;             /* one a worker */
    counter *hits;        /* hit_places() for each worker */
    struct meter *meters; /* rate_count for each worker, and one between them: no two write one cache line */
};

static void policy_free(struct forward_policy *p)
{
    for (size_t i = 0; i < p->count; i++)
        upstream_unref(p->target[i]);
    rules_unref(p->rules);
    free(p->target);
    free((void *)p->echo_said);
    free(p->rates);
    free(p->hold);
    free(p->hits);
    free(p->meters);
    free(p);
}

/* Of one worker: a counter for each rule and one more, in cache lines of its own. */
static size_t hit_places(const struct forward_policy *p)
{
    const size_t line = CACHE_LINE / sizeof(counter);

    return (rules_count(p->rules) + line) / line * line;
}

static int holds_new(struct forward_policy *p, uint32_t workers)
{
    size_t places = hit_places(p);

    p->hits = aligned_alloc(CACHE_LINE, workers * places * sizeof(*p->hits));
    if (!p->hits)
        return -ENOMEM;
    memset(p->hits, 0, workers * places * sizeof(*p->hits));
    p->hold = aligned_alloc(CACHE_LINE, workers * sizeof(*p->hold));
    if (!p->hold)
        return -ENOMEM;
    memset(p->hold, 0, workers * sizeof(*p->hold));
    p->meters = calloc((size_t)workers * (p->rate_count + 1), sizeof(*p->meters));
    if (!p->meters)
        return -ENOMEM;
    p->workers = workers;
    for (uint32_t i = 0; i < workers; i++)
        p->hold[i].ways = (struct ways){ .policy = p,
                                         .rules = p->rules,
                                         .count = p->count,
                                         .target = p->target,
                                         .echo_said = p->echo_said,
                                         .rates = p->rates,
                                         .rate_count = p->rate_count,
                                         .meters = p->meters + (size_t)i * (p->rate_count + 1),
                                         .workers = workers,
                                         .hits = p->hits + i * places,
                                         .rule_count = (uint32_t)rules_count(p->rules) };
    return 0;
}

int forward_policy_new(const struct forward_policy_setup *setup, struct forward_policy **out)
{
    struct forward_policy *p = calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    atomic_init(&p->refs, 1);
    p->options = *setup->options;
    p->rules = rules_ref(setup->rules);
    p->target = calloc(setup->target_count, sizeof(struct upstream *));
    p->echo_said = calloc(2 * (rules_count(p->rules) + 1), sizeof(*p->echo_said));
    p->rates = calloc(setup->rate_count + 1, sizeof(*p->rates));
    if (p->rates && setup->rate_count > 0)
        memcpy(p->rates, setup->rates, setup->rate_count * sizeof(*p->rates));
    p->rate_count = (uint32_t)setup->rate_count;
    for (; p->target && p->count < setup->target_count; p->count++)
        p->target[p->count] = upstream_ref(setup->targets[p->count]);
    if (!p->target || !p->echo_said || !p->rates || holds_new(p, setup->workers) != 0) {
        policy_free(p);
        return -ENOMEM;
    }
    *out = p;
    return 0;
}

struct forward_policy *forward_policy_ref(struct forward_policy *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void forward_policy_unref(struct forward_policy *p)
{
    if (p && atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1)
        policy_free(p);
}

struct rules *forward_policy_rules(struct forward_policy *p)
{
    return p->rules;
}

struct upstream *const *forward_policy_targets(const struct forward_policy *p, size_t *count)
{
    *count = p->count;
    return p->target;
}

uint64_t forward_policy_hits(const struct forward_policy *p, uint32_t rule)
{
    size_t places = hit_places(p), at = rule == RULE_IMPLICIT ? rules_count(p->rules) : rule;
    uint64_t sum = 0;

    for (uint32_t i = 0; i < p->workers; i++)
        sum += counter_read(&p->hits[i * places + at]);
    return sum;
}

bool forward_policy_has(const struct forward_policy *p, const struct upstream *up)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->target[i] == up)
            return true;
    return false;
}

const struct rate_limit *forward_policy_rates(const struct forward_policy *p, size_t *count)
{
    *count = p->rate_count;
    return p->rates;
}

uint64_t forward_policy_whole(const struct forward_policy *p, const struct share *s)
{
    switch ((enum share_kind)s->kind) {
    case SHARE_TCP:
        return p->options.max_tcp;
    case SHARE_UDP:
        return p->options.max_udp;
    case SHARE_SOURCE:
        return p->options.per_source;
    case SHARE_RATE:
        break;
    }
    return s->limit < p->rate_count ? p->rates[s->limit].bytes_per_s[s->dir] : 0;
}

const struct forward_options *forward_policy_options(const struct forward_policy *p)
{
    return &p->options;
}

struct ways *policy_ways(struct forward_policy *p, struct forward *f)
{
    struct ways *w = &p->hold[f->worker].ways;

    assert(f->worker < p->workers);
    w->f = f;
    if (w->refs++ == 0)
        forward_policy_ref(p);
    return w;
}

struct ways *ways_ref(struct ways *w)
{
    w->refs++;
    return w;
}

void ways_unref(struct ways *w)
{
    if (w && --w->refs == 0)
        forward_policy_unref(w->policy);
}
