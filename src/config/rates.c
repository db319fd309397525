/* rates.c - `rate-limits`: how fast clients and ways out may be. An entry with several ranges becomes one limit for each. */
#include "config_impl.h"

#include <string.h>

static void read_entry(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_rate *e = cfg_scratch(r, sizeof(*e)), **last = &r->rates;
    size_t errors = r->messages->errors;

    (void)to;
    if (e == NULL)
        return;
    e->at = v;
    while (*last != NULL)
        last = &(*last)->next;
    *last = e;
    cfg_read_section(r, k->section, v, e);
    e->wrong = r->messages->errors > errors;
}

static void read_source(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_rate *e = to;

    (void)k;
    (void)cfg_take_prefix(r, v, e->source, &e->sources, ARRAY_LEN(e->source));
}

static void read_proxy(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    (void)r;
    (void)k;
    ((struct cfg_rate *)to)->proxy = v;
}

/* ---- the end of it: all names of proxies are known ---- */

static bool complete(struct cfg_read *r, const struct cfg_rate *e)
{
    if (e->wrong)
        return false; /* said already */
    if (e->sources == 0 && e->proxy == NULL)
        cfg_error(r, e->at, "says nobody's rate; source (clients, each by itself) or proxy would work");
    else if (e->sources > 0 && e->proxy != NULL)
        cfg_error(r, e->at, "names clients and a way out; make it two entries");
    else if (e->limit.bytes_per_s[0] == 0 && e->limit.bytes_per_s[1] == 0)
        cfg_error(r, e->at, "limits nothing; up or down would work, as in down: 50Mbit");
    else
        return true;
    return false;
}

static void add(struct cfg_read *r, const struct cfg_rate *e, const struct rate_limit *limit)
{
    struct config *c = r->config;

    if (c->rate_count == RATE_LIMITS_MAX)
        cfg_error(r, e->at, "is one too many; %d ranges and ways out are the most", RATE_LIMITS_MAX);
    if (c->rate_count <= RATE_LIMITS_MAX)
        c->rates[c->rate_count++] = *limit; /* one more place, so that it is said once */
}

static void take_proxy(struct cfg_read *r, const struct cfg_rate *e, struct rate_limit limit)
{
    size_t before = cfg_enter_key(r, "proxy");
    int64_t target = cfg_target_named(r, e->proxy);

    limit.target = (uint32_t)target;
    for (size_t i = 0; target >= 0 && i < r->config->rate_count; i++)
        if (r->config->rates[i].target == limit.target)
            cfg_error(r, e->proxy, "has a limit already; once is enough");
    if (target == CONFIG_TARGET_REJECT || target == CONFIG_TARGET_REJECT_DROP)
        cfg_error(r, e->proxy, "carries nothing; the name of a proxy or a group would work");
    else if (target >= 0)
        add(r, e, &limit);
    cfg_leave(r, before);
}

static void take(struct cfg_read *r, const struct cfg_rate *e, struct rate_limit limit)
{
    if (e->proxy != NULL)
        take_proxy(r, e, limit);
    for (size_t i = 0; i < e->sources; i++) {
        limit.source = e->source[i];
        add(r, e, &limit);
    }
}

void cfg_rates_finish(struct cfg_read *r)
{
    size_t before = cfg_enter_key(r, "rate-limits"), i = 0;

    if (r->rates != NULL)
        r->config->rates = cfg_keep(r, (RATE_LIMITS_MAX + 1) * sizeof(*r->config->rates));
    for (const struct cfg_rate *e = r->rates; e != NULL && r->config->rates != NULL; e = e->next) {
        size_t inner = cfg_enter_index(r, i++);
        struct rate_limit limit = e->limit;

        limit.target = RATE_OF_SOURCE;
        if (complete(r, e))
            take(r, e, limit);
        cfg_leave(r, inner);
    }
    cfg_leave(r, before);
}

const struct cfg_type cfg_rate_list = {
    .name = "list of maps", .expects = "a list of maps", .kind = CFG_MAP, .list = true, .read = read_entry
};
const struct cfg_type cfg_rate_source = { .name = "list of prefixes",
                                          .expects = "a prefix such as 192.168.1.0/24",
                                          .kind = CFG_SCALAR,
                                          .list = true,
                                          .read = read_source };
const struct cfg_type cfg_rate_proxy = {
    .name = "name", .expects = "the name of a proxy or a group", .kind = CFG_SCALAR, .read = read_proxy
};
