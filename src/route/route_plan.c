/* route_plan.c - from options to routes and rules, as pure data, and the same as commands of ip(8).
 * The order is that of adding: the end of our range first, then from the mark down to "everything", so that at no moment a rule
 * leads traffic away that a later one would have exempted. Undoing goes the other way round. */
#include "route_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>

enum { /* from the first of our priorities on; route.h shows them as a table */
       AT_MARK = 0,
       AT_FOREIGN_MARK = 1,
       AT_NOT_FROM = 2,
       AT_FROM = 3,
       AT_FROM_ELSEWHERE = 4,
       AT_FROM_HERE = 5,
       AT_FROM_TUN = 6,
       AT_USER = 7,
       AT_HOLD = ROUTE_HOLD_AT,
       AT_LINK_LOCAL = 10,
       AT_DNS = 20,
       AT_EXCLUDE = 30,
       AT_MAIN = 80,
       AT_EVERYTHING = 90,
       AT_END = 99,
       RULES_A_FAMILY = 16, /* beside those of lists */
       ROUTES_MAX = 4,
       DNS_PORT = 53
};

struct planner {
    const struct route_options *opt;
    const struct route_surroundings *around;
    struct route_plan *plan;
    uint32_t table, priority;
    int ifindex;
    bool v6;
};

uint32_t route_table(const struct route_options *opt)
{
    return opt->table != 0 ? opt->table : ROUTE_TABLE_DEFAULT;
}

uint32_t route_priority(const struct route_options *opt)
{
    return opt->priority != 0 ? opt->priority : ROUTE_PRIORITY_DEFAULT;
}

static struct ip_prefix any_prefix(bool v6)
{
    static const uint8_t zero4[4], zero6[16];

    return (struct ip_prefix){ .addr = v6 ? ip_from6(zero6) : ip_from4(zero4), .len = v6 ? 0 : 96 };
}

static struct nl_rule *add_rule(struct planner *p, uint32_t at, uint8_t action)
{
    struct nl_rule *r = &p->plan->rules[p->plan->rule_count++];

    *r = (struct nl_rule){
        .v6 = p->v6, .priority = p->priority + at, .action = action, .proto = ROUTE_PROTO_CULVERT
    };
    r->src = r->dst = any_prefix(p->v6);
    if (action == FR_ACT_GOTO)
        r->goto_priority = p->priority + AT_END;
    return r;
}

static void exempt_mark(struct planner *p)
{
    struct nl_rule *r = add_rule(p, AT_MARK, FR_ACT_GOTO);

    r->fwmark = p->opt->mark;
    r->fwmask = p->opt->mark_mask != 0 ? p->opt->mark_mask : UINT32_MAX;
}

static void exempt(struct planner *p, uint32_t at, const struct ip_prefix *prefix)
{
    add_rule(p, at, FR_ACT_GOTO)->dst = *prefix;
}

static void exempt_text(struct planner *p, const char *prefix)
{
    struct ip_prefix parsed;

    if (ip_prefix_parse(prefix, &parsed) == 0)
        exempt(p, AT_LINK_LOCAL, &parsed);
}

static void capture_dns(struct planner *p, uint8_t proto)
{
    struct nl_rule *r = add_rule(p, AT_DNS, FR_ACT_TO_TBL);

    r->table = p->table;
    r->ip_proto = proto;
    r->dport_first = r->dport_last = DNS_PORT;
}

/* A mapped prefix of IPv6 is IPv4 to us: base knows one form of each address. */
static bool is_of_family(const struct ip_prefix *prefix, bool v6)
{
    return (ip_is4(&prefix->addr) && prefix->len >= 96) != v6;
}

static void exempt_foreign_marks(struct planner *p)
{
    for (size_t i = 0; i < p->around->marks; i++) {
        struct nl_rule *r = add_rule(p, AT_FOREIGN_MARK, FR_ACT_GOTO);

        r->fwmark = p->around->mark[i].mark;
        r->fwmask = p->around->mark[i].mask;
    }
}

static void set_iif(struct nl_rule *r, const char *name)
{
    snprintf(r->iif, sizeof(r->iif), "%s", name);
}

/* What comes from an included interface jumps over the rule that sends everything else away. */
static void choose_interfaces(struct planner *p)
{
    const struct route_choice *in = p->opt->include, *out = p->opt->leave_out;

    for (size_t i = 0; out != NULL && i < out->interfaces; i++)
        set_iif(add_rule(p, AT_NOT_FROM, FR_ACT_GOTO), out->interface[i]);
    if (in == NULL || in->interfaces == 0)
        return;
    add_rule(p, AT_FROM_HERE, FR_ACT_NOP);
    for (size_t i = 0; i < in->interfaces; i++) {
        struct nl_rule *r = add_rule(p, AT_FROM, FR_ACT_GOTO);

        set_iif(r, in->interface[i]);
        r->goto_priority = p->priority + AT_FROM_HERE;
    }
    add_rule(p, AT_FROM_ELSEWHERE, FR_ACT_GOTO);
}

/* Forwarded packets count as user 0 in the kernel's lookups, so these are about packets of the machine itself only. */
static void leave_out_users(struct planner *p, uint32_t first, uint32_t last)
{
    struct nl_rule *r = add_rule(p, AT_USER, FR_ACT_GOTO);

    set_iif(r, "lo");
    r->has_uid = true;
    r->uid_first = first;
    r->uid_last = last;
}

static int by_first(const void *a, const void *b)
{
    const struct route_ids *x = a, *y = b;

    return x->first < y->first ? -1 : x->first > y->first;
}

/* "Only these" is "not the gaps between them": a rule has one range. */
static void choose_users(struct planner *p)
{
    const struct route_choice *in = p->opt->include, *out = p->opt->leave_out;
    struct route_ids sorted[ROUTE_NAMES_MAX];
    uint64_t next = 0;

    for (size_t i = 0; out != NULL && i < out->uids; i++)
        leave_out_users(p, out->uid[i].first, out->uid[i].last);
    if (in == NULL || in->uids == 0)
        return;
    memcpy(sorted, in->uid, in->uids * sizeof(sorted[0]));
    qsort(sorted, in->uids, sizeof(sorted[0]), by_first);
    for (size_t i = 0; i < in->uids; i++) {
        if (sorted[i].first > next)
            leave_out_users(p, (uint32_t)next, sorted[i].first - 1);
        if ((uint64_t)sorted[i].last + 1 > next)
            next = (uint64_t)sorted[i].last + 1;
    }
    if (next < UINT32_MAX) /* the last number means "nobody" to the kernel */
        leave_out_users(p, (uint32_t)next, UINT32_MAX - 1);
}

/* Only routes as specific as the connected network itself, or more, are followed. */
static void keep_local_networks(struct planner *p)
{
    for (size_t i = 0; i < p->around->locals; i++) {
        const struct ip_prefix *net = &p->around->local[i];
        struct nl_rule *r;

        if (!is_of_family(net, p->v6))
            continue;
        r = add_rule(p, AT_MAIN, FR_ACT_TO_TBL);
        r->table = RT_TABLE_MAIN;
        r->dst = *net;
        r->suppress_prefixlen_plus1 = p->v6 ? net->len : net->len - 96u;
    }
}

static void keep_main(struct planner *p)
{
    struct nl_rule *r = add_rule(p, AT_MAIN, FR_ACT_TO_TBL);

    r->table = RT_TABLE_MAIN;
    r->suppress_prefixlen_plus1 = 1;
}

static void plan_rules(struct planner *p)
{
    add_rule(p, AT_END, FR_ACT_NOP);
    exempt_mark(p);
    exempt_foreign_marks(p);
    choose_interfaces(p);
    if (p->opt->strict)
        set_iif(add_rule(p, AT_FROM_TUN, FR_ACT_GOTO), p->opt->tun_name);
    choose_users(p);
    if (p->opt->on_exit != ROUTE_RESTORE)
        add_rule(p, AT_HOLD, FR_ACT_NOP);
    if (p->v6) {
        exempt_text(p, "ff00::/8");
    } else {
        exempt_text(p, "224.0.0.0/4");
        exempt_text(p, "255.255.255.255/32");
    }
    if (p->opt->capture_dns) {
        capture_dns(p, IP_PROTO_UDP);
        capture_dns(p, IP_PROTO_TCP);
    }
    for (size_t i = 0; i < p->opt->excludes; i++)
        if (is_of_family(&p->opt->exclude[i], p->v6))
            exempt(p, AT_EXCLUDE, &p->opt->exclude[i]);
    if (p->opt->strict)
        keep_local_networks(p);
    else
        keep_main(p);
    add_rule(p, AT_EVERYTHING, FR_ACT_TO_TBL)->table = p->table;
}

static void plan_route(struct planner *p, uint8_t type, uint32_t metric, int ifindex)
{
    p->plan->routes[p->plan->route_count++] = (struct nl_route){ .dst = any_prefix(p->v6),
                                                                 .v6 = p->v6,
                                                                 .type = type,
                                                                 .proto = ROUTE_PROTO_CULVERT,
                                                                 .table = p->table,
                                                                 .metric = metric,
                                                                 .ifindex = ifindex };
}

static void plan_family(struct planner *p, bool v6, bool carried)
{
    p->v6 = v6;
    plan_route(p, RTN_UNREACHABLE, UINT32_MAX, 0);
    if (carried)
        plan_route(p, RTN_UNICAST, ROUTE_METRIC_TUN, p->ifindex);
    if (carried || p->opt->strict)
        plan_rules(p);
}

static int check_options(const struct route_options *opt, struct err *err)
{
    uint32_t mask = opt->mark_mask != 0 ? opt->mark_mask : UINT32_MAX;

    if (!opt->v4 && !opt->v6)
        return err_set(err, -EINVAL,
                       "tun.auto-route: the TUN has no address, so there is nothing to lead into it");
    if ((opt->mark & mask) == 0)
        return err_set(err, -EINVAL,
                       "tun.routing-mark: must not be 0, or our own connections would enter the TUN");
    if ((opt->mark & ~mask) != 0)
        return err_set(err, -EINVAL, "tun.routing-mark: 0x%x has bits outside its mask 0x%x", opt->mark,
                       mask);
    if (opt->excludes > ROUTE_EXCLUDES_MAX)
        return err_set(err, -EINVAL, "tun.route-exclude-address: %zu prefixes are more than %d",
                       opt->excludes, ROUTE_EXCLUDES_MAX);
    return 0;
}

/* Room for the rules of both families. */
static size_t rules_at_most(const struct route_options *opt, const struct route_surroundings *around)
{
    size_t lists = opt->excludes + around->locals + around->marks;

    if (opt->include != NULL)
        lists += opt->include->interfaces + opt->include->uids + 1; /* n ranges have n + 1 gaps */
    if (opt->leave_out != NULL)
        lists += opt->leave_out->interfaces + opt->leave_out->uids;
    return 2 * (RULES_A_FAMILY + lists);
}

int route_plan_make(const struct route_options *opt, const struct route_surroundings *around, int tun_ifindex,
                    struct route_plan *out, struct err *err)
{
    static const struct route_surroundings nothing;
    struct route_plan plan = { 0 };
    struct planner p = { .opt = opt, .plan = &plan, .ifindex = tun_ifindex };
    int r = check_options(opt, err);

    if (r != 0)
        return r;
    p.around = around != NULL ? around : &nothing;
    p.table = route_table(opt);
    p.priority = route_priority(opt);
    plan.routes = calloc(ROUTES_MAX, sizeof(*plan.routes));
    plan.rules = calloc(rules_at_most(opt, p.around), sizeof(*plan.rules));
    if (plan.routes == NULL || plan.rules == NULL) {
        route_plan_fini(&plan);
        return err_set(err, -ENOMEM, "out of memory");
    }
    plan_family(&p, false, opt->v4);
    plan_family(&p, true, opt->v6);
    *out = plan;
    return 0;
}

void route_plan_fini(struct route_plan *plan)
{
    free(plan->routes);
    free(plan->rules);
    *plan = (struct route_plan){ 0 };
}
