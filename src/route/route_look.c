/* route_look.c - what a plan takes from the machine: connected networks, and marks that others route by. */
#include "route_impl.h"

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <string.h>

struct looker {
    struct netlink *nl;
    const struct route_options *opt;
    int tun_ifindex;
    struct route_surroundings *out;
};

/* ---- networks ---- */

/* Nobody on the internet has these, so a LAN that uses them takes nothing from the tunnel (faults.md E5). */
static bool is_private(const struct ip_prefix *net)
{
    static const char *const ranges[] = { "10.0.0.0/8",    "172.16.0.0/12",  "192.168.0.0/16",
                                          "100.64.0.0/10", "169.254.0.0/16", "198.18.0.0/15",
                                          "fc00::/7",      "fe80::/10" };

    for (size_t i = 0; i < ARRAY_LEN(ranges); i++) {
        struct ip_prefix range;

        if (ip_prefix_parse(ranges[i], &range) == 0 && net->len >= range.len &&
            ip_in_prefix(&net->addr, &range))
            return true;
    }
    return false;
}

/* The LAN that the file names is trusted with whatever addresses it has: a router's clients may have public ones. */
static bool is_included(const struct looker *l, int ifindex)
{
    const struct route_choice *in = l->opt->include;
    struct nl_link link;

    if (in == NULL || in->interfaces == 0 || netlink_link_by_index(l->nl, ifindex, &link) != 0)
        return false;
    for (size_t i = 0; i < in->interfaces; i++)
        if (strcmp(in->interface[i], link.name) == 0)
            return true;
    return false;
}

/* Made by the kernel for an address of an interface; what a DHCP server sends has another origin, or a gateway. */
static bool is_connected(const struct looker *l, const struct nl_route *r)
{
    return r->proto == RTPROT_KERNEL && r->type == RTN_UNICAST && r->ifindex != 0 &&
           r->ifindex != l->tun_ifindex && ip_is_none(&r->gateway) && r->dst.len > (r->v6 ? 0 : 96);
}

static bool has(const struct ip_prefix *list, size_t count, const struct ip_prefix *net)
{
    for (size_t i = 0; i < count; i++)
        if (ip_prefix_equal(&list[i], net))
            return true;
    return false;
}

/* Ordinary routes that would take something from the tunnel; a default takes nothing, and a host's own addresses are no routes. */
static bool would_lead_past(const struct looker *l, const struct nl_route *r)
{
    return r->type == RTN_UNICAST && r->ifindex != 0 && r->ifindex != l->tun_ifindex &&
           r->dst.len > (r->v6 ? 0 : 96);
}

static int take_network(void *arg, const struct nl_route *r)
{
    struct looker *l = arg;
    struct route_surroundings *out = l->out;

    if (is_connected(l, r) && (is_private(&r->dst) || is_included(l, r->ifindex))) {
        if (out->locals < ARRAY_LEN(out->local) && !has(out->local, out->locals, &r->dst))
            out->local[out->locals++] = r->dst;
    } else if (would_lead_past(l, r) && out->refuseds < ARRAY_LEN(out->refused) &&
               !has(out->refused, out->refuseds, &r->dst)) {
        out->refused[out->refuseds++] = r->dst;
    }
    return 0;
}

/* ---- marks ---- */

static int take_mark(void *arg, const struct nl_rule *r)
{
    struct looker *l = arg;
    struct route_surroundings *out = l->out;
    uint32_t mask = r->fwmask != 0 ? r->fwmask : UINT32_MAX;

    if (r->proto == ROUTE_PROTO_CULVERT || r->fwmark == 0 || out->marks == ARRAY_LEN(out->mark))
        return 0;
    for (size_t i = 0; i < out->marks; i++)
        if (out->mark[i].mark == r->fwmark && out->mark[i].mask == mask)
            return 0;
    out->mark[out->marks++] = (struct route_mark){ .mark = r->fwmark, .mask = mask };
    return 0;
}

int route_look(struct netlink *nl, const struct route_options *opt, int tun_ifindex,
               struct route_surroundings *out)
{
    struct looker l = { .nl = nl, .opt = opt, .tun_ifindex = tun_ifindex, .out = out };
    int r;

    memset(out, 0, sizeof(*out)); /* compared as bytes */
    if ((r = netlink_rules(nl, take_mark, &l)) != 0 || !opt->strict)
        return r;
    return netlink_routes(nl, RT_TABLE_MAIN, take_network, &l);
}
