/* rules.c - the compiled list and its matching.
 *
 * How it works: a rule is a range of one flat array of conditions, sorted by kind, so that alternatives stand together
 * and a match walks memory in one direction. Everything is in one allocation, counted once, and never written again;
 * workers share it without a lock.
 *
 * What always holds: conds[first .. first + n) of a rule are sorted by kind; names lie behind the conditions. */
#include "culvert/rules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct compiled_rule {
    uint32_t first_cond, n_conds;
    uint32_t target;
    uint32_t name_at; /* in names, NUL-terminated */
    uint8_t echo;     /* enum rule_echo */
};

struct rules {
    atomic_uint refs;
    uint32_t implicit_target;
    size_t n;
    struct rule_cond *conds; /* these three point behind the array of rules */
    char *names;
    struct compiled_rule rule[]; /* [n] */
};

static bool cond_is_valid(const struct rule_cond *c)
{
    switch (c->kind) {
    case RULE_DST_CIDR:
    case RULE_SRC_CIDR:
        return c->prefix.len <= 128;
    case RULE_DST_PORT:
    case RULE_SRC_PORT:
        return c->ports.first <= c->ports.last;
    case RULE_NETWORK:
        return c->networks != 0 && (c->networks & ~(RULE_TCP | RULE_UDP | RULE_ICMP)) == 0;
    }
    return false;
}

/* What the list needs in memory; false if a condition is wrong or the list is beyond 32 bits. */
static bool measure(const struct rule *list, size_t n, size_t *conds, size_t *names)
{
    *conds = 0;
    *names = 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < list[i].n_conds; k++) {
            if (!cond_is_valid(&list[i].conds[k]))
                return false;
        }
        *conds += list[i].n_conds;
        *names += (list[i].name != NULL ? strlen(list[i].name) : 0) + 1;
    }
    return n < RULE_IMPLICIT && *conds < UINT32_MAX && *names < UINT32_MAX;
}

/* Copies @from's conditions to @to, kind by kind. */
static void copy_conds(struct rule_cond *to, const struct rule *from)
{
    for (int kind = 0; kind < RULE_KINDS; kind++) {
        for (size_t k = 0; k < from->n_conds; k++) {
            if ((int)from->conds[k].kind == kind)
                *to++ = from->conds[k];
        }
    }
}

int rules_new(const struct rule *list, size_t n, uint32_t implicit_target, struct rules **out)
{
    size_t n_conds, names_len, conds_at, next_cond = 0, next_name = 0;
    struct rules *r;

    if (!measure(list, n, &n_conds, &names_len))
        return -EINVAL;
    conds_at = sizeof(*r) + n * sizeof(r->rule[0]);
    r = malloc(conds_at + n_conds * sizeof(*r->conds) + names_len);
    if (r == NULL)
        return -ENOMEM;
    atomic_init(&r->refs, 1);
    r->implicit_target = implicit_target;
    r->n = n;
    r->conds = (struct rule_cond *)(void *)((char *)r + conds_at);
    r->names = (char *)(r->conds + n_conds);
    for (size_t i = 0; i < n; i++) {
        const char *name = list[i].name != NULL ? list[i].name : "";

        r->rule[i] = (struct compiled_rule){ .first_cond = (uint32_t)next_cond,
                                             .n_conds = (uint32_t)list[i].n_conds,
                                             .target = list[i].target,
                                             .name_at = (uint32_t)next_name,
                                             .echo = (uint8_t)list[i].echo };
        copy_conds(r->conds + next_cond, &list[i]);
        memcpy(r->names + next_name, name, strlen(name) + 1);
        next_cond += list[i].n_conds;
        next_name += strlen(name) + 1;
    }
    *out = r;
    return 0;
}

struct rules *rules_ref(struct rules *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

void rules_unref(struct rules *r)
{
    if (r != NULL && atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) == 1)
        free(r);
}

size_t rules_count(const struct rules *r)
{
    return r->n;
}

const char *rules_name(const struct rules *r, uint32_t rule)
{
    return rule < r->n ? r->names + r->rule[rule].name_at : "(no rule)";
}

static uint8_t network_bit(enum ip_proto proto)
{
    switch (proto) {
    case IP_PROTO_TCP:
        return RULE_TCP;
    case IP_PROTO_UDP:
        return RULE_UDP;
    case IP_PROTO_ICMP:
    case IP_PROTO_ICMPV6:
        return RULE_ICMP;
    }
    return 0;
}

/* An echo's id travels in the place of a port (struct flow_key) and must never match one. */
static bool port_within(const struct rule_cond *c, uint8_t network, uint16_t port)
{
    return network != RULE_ICMP && port >= c->ports.first && port <= c->ports.last;
}

static bool cond_holds(const struct rule_cond *c, const struct rule_flow *flow, uint8_t network)
{
    switch (c->kind) {
    case RULE_DST_CIDR:
        return !ip_is_none(&flow->target.addr) && ip_in_prefix(&flow->target.addr, &c->prefix);
    case RULE_SRC_CIDR:
        return ip_in_prefix(&flow->client.addr, &c->prefix);
    case RULE_DST_PORT:
        return port_within(c, network, flow->target.port);
    case RULE_SRC_PORT:
        return port_within(c, network, flow->client.port);
    case RULE_NETWORK:
        return (c->networks & network) != 0;
    }
    return false;
}

/* Each kind that is present needs one condition that holds. */
static bool rule_takes(const struct rules *r, const struct compiled_rule *rule, const struct rule_flow *flow,
                       uint8_t network)
{
    const struct rule_cond *c = r->conds + rule->first_cond, *end = c + rule->n_conds;

    while (c < end) {
        enum rule_kind kind = c->kind;
        bool held = false;

        for (; c < end && c->kind == kind; c++)
            held = held || cond_holds(c, flow, network);
        if (!held)
            return false;
    }
    return true;
}

void rules_match(const struct rules *r, const struct rule_flow *flow, struct rule_verdict *out)
{
    uint8_t network = network_bit(flow->proto);

    for (size_t i = 0; i < r->n; i++) {
        if (!rule_takes(r, &r->rule[i], flow, network))
            continue;
        *out = (struct rule_verdict){ .target = r->rule[i].target,
                                      .rule = (uint32_t)i,
                                      .echo = (enum rule_echo)r->rule[i].echo };
        return;
    }
    *out = (struct rule_verdict){ .target = r->implicit_target, .rule = RULE_IMPLICIT };
}
