/* route_print.c - a plan as commands of ip(8), for --dry-run. */
#include "route_impl.h"

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>

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
    if (r->iif[0] != '\0')
        fprintf(out, " iif %s", r->iif);
    if (r->has_uid)
        fprintf(out, " uidrange %u-%u", r->uid_first, r->uid_last);
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
