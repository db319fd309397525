/* route_restore.c - what of the plan is missing in the kernel, and adding it again. */
#include "route_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool same_prefix(const struct ip_prefix *a, const struct ip_prefix *b)
{
    return a->len == b->len && ip_equal(&a->addr, &b->addr);
}

static bool same_route(const struct nl_route *a, const struct nl_route *b)
{
    return a->v6 == b->v6 && a->type == b->type && a->proto == b->proto && a->table == b->table &&
           a->metric == b->metric && a->ifindex == b->ifindex && same_prefix(&a->dst, &b->dst);
}

static bool same_rule(const struct nl_rule *a, const struct nl_rule *b)
{
    return a->v6 == b->v6 && a->invert == b->invert && a->priority == b->priority && a->table == b->table &&
           a->action == b->action && a->proto == b->proto && a->goto_priority == b->goto_priority &&
           a->fwmark == b->fwmark && a->fwmask == b->fwmask &&
           a->suppress_prefixlen_plus1 == b->suppress_prefixlen_plus1 && a->has_uid == b->has_uid &&
           a->uid_first == b->uid_first && a->uid_last == b->uid_last && a->ip_proto == b->ip_proto &&
           a->dport_first == b->dport_first && a->dport_last == b->dport_last &&
           strcmp(a->iif, b->iif) == 0 && strcmp(a->oif, b->oif) == 0 && same_prefix(&a->src, &b->src) &&
           same_prefix(&a->dst, &b->dst);
}

struct presence {
    const struct route_plan *plan;
    bool *routes, *rules; /* one allocation; routes comes first */
};

static int note_route(void *arg, const struct nl_route *r)
{
    struct presence *p = arg;

    for (size_t i = 0; i < p->plan->route_count; i++)
        if (same_route(&p->plan->routes[i], r))
            p->routes[i] = true;
    return 0;
}

static int note_rule(void *arg, const struct nl_rule *r)
{
    struct presence *p = arg;

    if (r->proto != ROUTE_PROTO_CULVERT)
        return 0;
    for (size_t i = 0; i < p->plan->rule_count; i++)
        if (same_rule(&p->plan->rules[i], r))
            p->rules[i] = true;
    return 0;
}

/* On success the caller frees p->routes. The device may have come back with another index. */
static int survey(struct route *rt, struct presence *p)
{
    struct nl_link link;
    int r = netlink_link_by_name(rt->nl, rt->tun_name, &link);

    if (r != 0 || !link.up)
        return r != 0 ? r : -ENETDOWN;
    for (size_t i = 0; i < rt->plan.route_count; i++)
        if (rt->plan.routes[i].ifindex != 0)
            rt->plan.routes[i].ifindex = link.ifindex;
    p->plan = &rt->plan;
    p->routes = calloc(rt->plan.route_count + rt->plan.rule_count, sizeof(bool));
    if (p->routes == NULL)
        return -ENOMEM;
    p->rules = p->routes + rt->plan.route_count;
    if ((r = netlink_routes(rt->nl, rt->table, note_route, p)) != 0 ||
        (r = netlink_rules(rt->nl, note_rule, p)) != 0)
        free(p->routes);
    return r;
}

int route_missing(struct route *rt, unsigned *count)
{
    struct presence p;
    int r = survey(rt, &p);

    if (r != 0)
        return r;
    *count = 0;
    for (size_t i = 0; i < rt->plan.route_count + rt->plan.rule_count; i++)
        *count += !p.routes[i];
    free(p.routes);
    return 0;
}

/* Goes on after a failure: what can be back should be. Returns the first one. */
static int add_missing(struct route *rt, const struct presence *p, unsigned *added)
{
    int result = 0;

    for (size_t i = 0; i < rt->plan.route_count + rt->plan.rule_count; i++) {
        int r = 0;

        if (p->routes[i])
            continue;
        if (i < rt->plan.route_count)
            r = netlink_route_add(rt->nl, &rt->plan.routes[i]);
        else
            r = netlink_rule_add(rt->nl, &rt->plan.rules[i - rt->plan.route_count]);
        *added += r == 0;
        if (result == 0 && r != -EEXIST) /* the same prefix excluded twice */
            result = r;
    }
    return result;
}

int route_restore(struct route *rt, unsigned *added)
{
    struct presence p;
    int r = survey(rt, &p);

    *added = 0;
    if (r != 0)
        return r;
    r = add_missing(rt, &p, added);
    free(p.routes);
    return r;
}

int route_restore_device(struct route *r)
{
    unsigned added;

    return route_restore(r, &added);
}
