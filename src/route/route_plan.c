/* route_plan.c - from options to routes and rules, as pure data, and the same as commands of ip(8).
 * The order is that of adding: the end of our range first, then from the mark down to "everything", so that at no moment a rule
 * leads traffic away that a later one would have exempted. Undoing goes the other way round. */
#include "route_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>

enum { /* from the first of our priorities on; route.h shows them as a table */
       AT_MARK = 0,
       AT_LINK_LOCAL = 10,
       AT_DNS = 20,
       AT_EXCLUDE = 30,
       AT_MAIN = 80,
       AT_EVERYTHING = 90,
       AT_END = 99,
       RULES_A_FAMILY = 8, /* beside those of exclusions */
       ROUTES_MAX = 4,
       DNS_PORT = 53
};

struct planner {
    const struct route_options *opt;
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

static void plan_rules(struct planner *p)
{
    struct nl_rule *r;

    add_rule(p, AT_END, FR_ACT_NOP);
    exempt_mark(p);
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
    r = add_rule(p, AT_MAIN, FR_ACT_TO_TBL);
    r->table = RT_TABLE_MAIN;
    r->suppress_prefixlen_plus1 = 1;
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
    if (!carried)
        return;
    plan_route(p, RTN_UNICAST, ROUTE_METRIC_TUN, p->ifindex);
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

int route_plan_make(const struct route_options *opt, int tun_ifindex, struct route_plan *out, struct err *err)
{
    struct route_plan plan = { 0 };
    struct planner p = { .opt = opt, .plan = &plan, .ifindex = tun_ifindex };
    int r = check_options(opt, err);

    if (r != 0)
        return r;
    p.table = route_table(opt);
    p.priority = route_priority(opt);
    plan.routes = calloc(ROUTES_MAX, sizeof(*plan.routes));
    plan.rules = calloc((size_t)2 * RULES_A_FAMILY + opt->excludes, sizeof(*plan.rules));
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

/* ---- the plan as text ---- */

static void print_prefix(const char *word, const struct ip_prefix *p, bool v6, FILE *out)
{
    unsigned len = v6 ? p->len : p->len > 96 ? p->len - 96u : 0u;
    char text[IP_TEXT_MAX];

    if (len > 0)
        fprintf(out, " %s %s/%u", word, ip_text(&p->addr, text), len);
}

static void print_route(const struct nl_route *r, const char *tun_name, FILE *out)
{
    fprintf(out, "ip -%d route add %sdefault", r->v6 ? 6 : 4,
            r->type == RTN_UNREACHABLE ? "unreachable " : "");
    if (r->ifindex != 0)
        fprintf(out, " dev %s", tun_name);
    fprintf(out, " table %u metric %u proto %u\n", r->table, r->metric, r->proto);
}

static void print_action(const struct nl_rule *r, FILE *out)
{
    if (r->action == FR_ACT_GOTO)
        fprintf(out, " goto %u", r->goto_priority);
    else if (r->action == FR_ACT_NOP)
        fputs(" nop", out);
    else if (r->table == RT_TABLE_MAIN)
        fputs(" lookup main", out);
    else
        fprintf(out, " lookup %u", r->table);
}

static void print_rule(const struct nl_rule *r, FILE *out)
{
    fprintf(out, "ip -%d rule add priority %u", r->v6 ? 6 : 4, r->priority);
    print_prefix("to", &r->dst, r->v6, out);
    if (r->fwmark != 0)
        fprintf(out, " fwmark 0x%x/0x%x", r->fwmark, r->fwmask);
    if (r->ip_proto != 0)
        fprintf(out, " ipproto %s", r->ip_proto == IP_PROTO_UDP ? "udp" : "tcp");
    if (r->dport_first != 0)
        fprintf(out, " dport %u", r->dport_first);
    print_action(r, out);
    if (r->suppress_prefixlen_plus1 != 0)
        fprintf(out, " suppress_prefixlength %u", r->suppress_prefixlen_plus1 - 1);
    fprintf(out, " protocol %u\n", r->proto);
}

void route_plan_print(const struct route_plan *plan, const char *tun_name, FILE *out)
{
    for (size_t i = 0; i < plan->route_count; i++)
        print_route(&plan->routes[i], tun_name, out);
    for (size_t i = 0; i < plan->rule_count; i++)
        print_rule(&plan->rules[i], out);
}
