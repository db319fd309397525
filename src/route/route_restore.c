/* route_restore.c - the plan and the kernel compared: what is missing is added, what is ours and not planned is removed. */
#include "route_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/rtnetlink.h>

static bool same_route(const struct nl_route *a, const struct nl_route *b)
{
    return a->v6 == b->v6 && a->type == b->type && a->proto == b->proto && a->table == b->table &&
           a->metric == b->metric && a->ifindex == b->ifindex && ip_prefix_equal(&a->dst, &b->dst);
}

static bool same_rule(const struct nl_rule *a, const struct nl_rule *b)
{
    return a->v6 == b->v6 && a->invert == b->invert && a->priority == b->priority && a->table == b->table &&
           a->action == b->action && a->proto == b->proto && a->goto_priority == b->goto_priority &&
           a->fwmark == b->fwmark && a->fwmask == b->fwmask &&
           a->suppress_prefixlen_plus1 == b->suppress_prefixlen_plus1 && a->has_uid == b->has_uid &&
           a->uid_first == b->uid_first && a->uid_last == b->uid_last && a->ip_proto == b->ip_proto &&
           a->dport_first == b->dport_first && a->dport_last == b->dport_last &&
           strcmp(a->iif, b->iif) == 0 && strcmp(a->oif, b->oif) == 0 && ip_prefix_equal(&a->src, &b->src) &&
           ip_prefix_equal(&a->dst, &b->dst);
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

/* ---- taking over ---- */

/* What guards a family that we do not carry: a kernel without that family has nothing to guard. */
static bool may_be_left_out(const struct route *rt, bool v6, int result)
{
    return v6 && !rt->opt.v6 &&
           (result == -EAFNOSUPPORT || result == -EOPNOTSUPP || result == -EACCES || result == -EINVAL);
}

/* The plan keeps only what is in the kernel, so that later looks find nothing missing. */
static int add_routes(struct route *rt, const struct presence *p, struct err *err)
{
    size_t kept = 0;

    for (size_t i = 0; i < rt->plan.route_count; i++) {
        const struct nl_route *route = &rt->plan.routes[i];
        int r = p->routes[i] ? 0 : netlink_route_add(rt->nl, route);

        if (may_be_left_out(rt, route->v6, r))
            continue;
        if (r != 0)
            return err_set(err, r, "auto-route: the default IPv%d route of table %u cannot be added: %s",
                           route->v6 ? 6 : 4, rt->table, strerror(-r));
        rt->plan.routes[kept++] = *route;
    }
    rt->plan.route_count = kept;
    return 0;
}

static int add_rules(struct route *rt, const struct presence *p, struct err *err)
{
    size_t kept = 0;

    for (size_t i = 0; i < rt->plan.rule_count; i++) {
        const struct nl_rule *rule = &rt->plan.rules[i];
        int r = p->rules[i] ? 0 : netlink_rule_add(rt->nl, rule);

        if (may_be_left_out(rt, rule->v6, r))
            continue;
        if (r != 0 && r != -EEXIST) /* EEXIST: the same prefix is excluded twice */
            return err_set(err, r, "auto-route: the IPv%d rule at priority %u cannot be added: %s",
                           rule->v6 ? 6 : 4, rule->priority, strerror(-r));
        rt->plan.rules[kept++] = *rule;
    }
    rt->plan.rule_count = kept;
    return 0;
}

struct sweep {
    struct route *rt;
    unsigned removed;
    int result;
};

static void count_removal(struct sweep *s, int r)
{
    if (r == 0)
        s->removed++;
    else if (r != -ESRCH && r != -ENOENT && s->result == 0) /* gone meanwhile is as good */
        s->result = r;
}

static int sweep_rule(void *arg, const struct nl_rule *r)
{
    struct sweep *s = arg;
    const struct route *rt = s->rt;

    if (r->proto != ROUTE_PROTO_CULVERT || r->priority < rt->priority ||
        r->priority >= rt->priority + ROUTE_PRIORITIES)
        return 0;
    for (size_t i = 0; i < rt->plan.rule_count; i++)
        if (same_rule(&rt->plan.rules[i], r))
            return 0;
    count_removal(s, netlink_rule_del(rt->nl, r));
    return 0;
}

static int sweep_route(void *arg, const struct nl_route *r)
{
    struct sweep *s = arg;

    if (r->proto != ROUTE_PROTO_CULVERT)
        return 0;
    for (size_t i = 0; i < s->rt->plan.route_count; i++)
        if (same_route(&s->rt->plan.routes[i], r))
            return 0;
    count_removal(s, netlink_route_del(s->rt->nl, r));
    return 0;
}

/* Rules first: one that leads into our table must not outlive its routes. */
static int remove_others(struct route *rt, unsigned *removed)
{
    struct sweep s = { .rt = rt };
    int r = netlink_rules(rt->nl, sweep_rule, &s);

    if (r == 0)
        r = netlink_routes(rt->nl, rt->table, sweep_route, &s);
    *removed += s.removed;
    return r != 0 ? r : s.result;
}

int route_adopt(struct route *rt, unsigned *taken, struct err *err)
{
    unsigned removed = 0;
    struct presence p;
    int r = survey(rt, &p);

    if (r != 0)
        return err_set(err, r, "auto-route: routes and rules cannot be compared: %s", strerror(-r));
    for (size_t i = 0; i < rt->plan.route_count + rt->plan.rule_count; i++)
        removed += p.routes[i];
    if ((r = add_routes(rt, &p, err)) == 0 && (r = add_rules(rt, &p, err)) == 0 &&
        (r = remove_others(rt, &removed)) != 0)
        err_set(err, r, "auto-route: what an earlier culvert left cannot be removed: %s", strerror(-r));
    free(p.routes);
    *taken = removed;
    return r;
}

/* ---- following ---- */

static bool is_planned(const struct route_plan *plan, const struct nl_rule *rule)
{
    for (size_t i = 0; i < plan->rule_count; i++)
        if (same_rule(&plan->rules[i], rule))
            return true;
    return false;
}

static int change_rules(struct route *rt, const struct route_plan *now)
{
    int result = 0;

    for (size_t i = 0; i < now->rule_count; i++) {
        int r = is_planned(&rt->plan, &now->rules[i]) ? 0 : netlink_rule_add(rt->nl, &now->rules[i]);

        if (result == 0 && r != -EEXIST && !may_be_left_out(rt, now->rules[i].v6, r))
            result = r;
    }
    for (size_t i = rt->plan.rule_count; i > 0; i--) {
        const struct nl_rule *rule = &rt->plan.rules[i - 1];
        int r = is_planned(now, rule) ? 0 : netlink_rule_del(rt->nl, rule);

        if (result == 0 && r != -ENOENT && r != -ESRCH)
            result = r;
    }
    return result;
}

static bool was_refused(const struct route_surroundings *before, const struct ip_prefix *net)
{
    for (size_t i = 0; before != NULL && i < before->refuseds; i++)
        if (ip_prefix_equal(&before->refused[i], net))
            return true;
    return false;
}

void route_tell_refused(const struct route_surroundings *before, const struct route_surroundings *now)
{
    char text[IP_TEXT_MAX];

    for (size_t i = 0; i < now->refuseds; i++) {
        const struct ip_prefix *net = &now->refused[i];

        if (!was_refused(before, net))
            log_warning("strict-route: a route to %s/%u would lead past the tunnel and is not followed; "
                        "tun.route-exclude-address allows it",
                        ip_text(&net->addr, text), ip_is4(&net->addr) ? net->len - 96u : net->len);
    }
}

int route_follow(struct route *rt)
{
    struct route_surroundings around;
    struct route_plan now;
    struct nl_link link;
    int r = netlink_link_by_name(rt->nl, rt->tun_name, &link);

    if (r != 0 || (r = route_look(rt->nl, &rt->opt, link.ifindex, &around)) != 0)
        return r;
    if (memcmp(&around, &rt->around, sizeof(around)) == 0)
        return 0;
    if ((r = route_plan_make(&rt->opt, &around, link.ifindex, &now, NULL)) != 0)
        return r;
    route_tell_refused(&rt->around, &around);
    r = change_rules(rt, &now);
    free(rt->plan.rules); /* the routes do not depend on the surroundings */
    rt->plan.rules = now.rules;
    rt->plan.rule_count = now.rule_count;
    rt->around = around;
    now.rules = NULL;
    route_plan_fini(&now);
    return r;
}
