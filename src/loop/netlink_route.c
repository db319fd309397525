/* netlink_route.c - routes and policy rules over the route socket (rtnetlink(7), ip-rule(8)).
 * Prefixes of ours count in the 16-byte form and those of the kernel in the family's; nl_prefix() and nl_prefix_len() are the
 * only places that know it. */
#include "netlink_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>

/* ---- routes ---- */

static struct nlmsghdr *route_request(struct netlink *nl, uint16_t type, uint16_t flags,
                                      const struct nl_route *r)
{
    struct nlmsghdr *req = nl_request(nl, type, flags, sizeof(struct rtmsg));
    struct rtmsg *rtm = mnl_nlmsg_get_payload(req);
    bool via = !ip_is_none(&r->gateway);

    rtm->rtm_family = r->v6 ? AF_INET6 : AF_INET;
    rtm->rtm_dst_len = nl_prefix_len(&r->dst, r->v6);
    rtm->rtm_table = r->table < 256 ? (uint8_t)r->table : RT_TABLE_UNSPEC;
    rtm->rtm_protocol = r->proto;
    rtm->rtm_type = r->type;
    if (type == RTM_DELROUTE)
        rtm->rtm_scope = RT_SCOPE_NOWHERE; /* any */
    else
        rtm->rtm_scope = r->type == RTN_UNICAST && !via && !r->v6 ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
    if (rtm->rtm_dst_len > 0)
        nl_put_addr(req, RTA_DST, &r->dst.addr, r->v6);
    mnl_attr_put_u32(req, RTA_TABLE, r->table);
    if (r->metric != 0)
        mnl_attr_put_u32(req, RTA_PRIORITY, r->metric);
    if (r->ifindex != 0)
        mnl_attr_put_u32(req, RTA_OIF, (uint32_t)r->ifindex);
    if (via)
        nl_put_addr(req, RTA_GATEWAY, &r->gateway, r->v6);
    return req;
}

int netlink_route_add(struct netlink *nl, const struct nl_route *r)
{
    return nl_talk(nl, route_request(nl, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, r), NULL, NULL);
}

int netlink_route_del(struct netlink *nl, const struct nl_route *r)
{
    return nl_talk(nl, route_request(nl, RTM_DELROUTE, 0, r), NULL, NULL);
}

static void read_first_hop(const struct nlattr *multipath, struct nl_route *r)
{
    const struct rtnexthop *hop = mnl_attr_get_payload(multipath);

    if (mnl_attr_get_payload_len(multipath) >= sizeof(*hop)) {
        r->ifindex = hop->rtnh_ifindex;
        r->dead = (hop->rtnh_flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN)) != 0;
    }
}

/* IPv6 says "dev lo" of its unreachable routes, IPv4 says nothing; neither goes away with a link. */
static bool is_tied_to_link(uint8_t type)
{
    return type != RTN_UNREACHABLE && type != RTN_BLACKHOLE && type != RTN_PROHIBIT && type != RTN_THROW;
}

static int parse_route(const struct nlmsghdr *nlh, void *arg)
{
    const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
    struct nl_attrs attrs;
    struct nl_route *r;

    if (nlh->nlmsg_type != RTM_NEWROUTE || mnl_nlmsg_get_payload_len(nlh) < sizeof(*rtm))
        return 0;
    if ((rtm->rtm_family != AF_INET && rtm->rtm_family != AF_INET6) || (rtm->rtm_flags & RTM_F_CLONED) != 0)
        return 0;
    if ((r = nl_list_add(arg)) == NULL)
        return -ENOMEM;
    nl_attrs_read(nlh, sizeof(*rtm), &attrs);
    r->v6 = rtm->rtm_family == AF_INET6;
    r->type = rtm->rtm_type;
    r->proto = rtm->rtm_protocol;
    r->dead = (rtm->rtm_flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN)) != 0;
    r->dst = nl_prefix(attrs.at[RTA_DST], rtm->rtm_dst_len, r->v6);
    r->table = nl_attr_u32(attrs.at[RTA_TABLE], rtm->rtm_table);
    r->metric = nl_attr_u32(attrs.at[RTA_PRIORITY], 0);
    r->ifindex = (int)nl_attr_u32(attrs.at[RTA_OIF], 0);
    (void)nl_attr_addr(attrs.at[RTA_GATEWAY], r->v6, &r->gateway);
    if (attrs.at[RTA_MULTIPATH] != NULL)
        read_first_hop(attrs.at[RTA_MULTIPATH], r);
    if (!is_tied_to_link(r->type))
        r->ifindex = 0;
    return 0;
}

static int walk_routes(struct netlink *nl, int family, uint32_t table, netlink_route_fn *fn, void *arg)
{
    struct nl_list list = { .item_size = sizeof(struct nl_route) };
    const struct nl_route *routes;
    struct nlmsghdr *req = nl_request(nl, RTM_GETROUTE, 0, sizeof(struct rtmsg));
    struct rtmsg *rtm = mnl_nlmsg_get_payload(req);
    int r;

    rtm->rtm_family = (uint8_t)family;
    if (table != 0) {
        rtm->rtm_table = table < 256 ? (uint8_t)table : RT_TABLE_UNSPEC;
        mnl_attr_put_u32(req, RTA_TABLE, table);
    }
    r = nl_dump(nl, req, parse_route, &list);
    routes = (const struct nl_route *)(const void *)list.items;
    for (size_t i = 0; i < list.count && r == 0; i++)
        if (table == 0 || routes[i].table == table)
            r = fn(arg, &routes[i]);
    free(list.items);
    return r;
}

int netlink_routes(struct netlink *nl, uint32_t table, netlink_route_fn *fn, void *arg)
{
    int r = walk_routes(nl, AF_INET, table, fn, arg);

    return r != 0 ? r : walk_routes(nl, AF_INET6, table, fn, arg);
}

struct best_default {
    int skip_ifindex;
    bool found;
    struct nl_route route;
};

static int consider_default(void *arg, const struct nl_route *r)
{
    struct best_default *best = arg;

    if (nl_prefix_len(&r->dst, r->v6) != 0 || r->type != RTN_UNICAST || r->dead || r->ifindex == 0 ||
        r->ifindex == best->skip_ifindex)
        return 0;
    if (!best->found || r->metric < best->route.metric) {
        best->found = true;
        best->route = *r;
    }
    return 0;
}

int netlink_default_link(struct netlink *nl, bool v6, int skip_ifindex, int *ifindex)
{
    struct best_default best = { .skip_ifindex = skip_ifindex };
    int r = walk_routes(nl, v6 ? AF_INET6 : AF_INET, RT_TABLE_MAIN, consider_default, &best);

    if (r == 0 && !best.found)
        r = -ENETUNREACH;
    if (r == 0)
        *ifindex = best.route.ifindex;
    return r;
}

/* ---- rules ---- */

static void put_rule_matches(struct nlmsghdr *req, const struct nl_rule *r)
{
    if (nl_prefix_len(&r->src, r->v6) > 0)
        nl_put_addr(req, FRA_SRC, &r->src.addr, r->v6);
    if (nl_prefix_len(&r->dst, r->v6) > 0)
        nl_put_addr(req, FRA_DST, &r->dst.addr, r->v6);
    if (r->iif[0] != '\0')
        mnl_attr_put_strz(req, FRA_IIFNAME, r->iif);
    if (r->oif[0] != '\0')
        mnl_attr_put_strz(req, FRA_OIFNAME, r->oif);
    if (r->fwmark != 0 || r->fwmask != 0) {
        mnl_attr_put_u32(req, FRA_FWMARK, r->fwmark);
        mnl_attr_put_u32(req, FRA_FWMASK, r->fwmask != 0 ? r->fwmask : UINT32_MAX);
    }
    if (r->has_uid) {
        struct fib_rule_uid_range uids = { .start = r->uid_first, .end = r->uid_last };

        mnl_attr_put(req, FRA_UID_RANGE, sizeof(uids), &uids);
    }
    if (r->ip_proto != 0)
        mnl_attr_put_u8(req, FRA_IP_PROTO, r->ip_proto);
    if (r->dport_first != 0) {
        struct fib_rule_port_range ports = { .start = r->dport_first,
                                             .end = r->dport_last != 0 ? r->dport_last : r->dport_first };

        mnl_attr_put(req, FRA_DPORT_RANGE, sizeof(ports), &ports);
    }
}

static int change_rule(struct netlink *nl, uint16_t type, uint16_t flags, const struct nl_rule *r)
{
    struct nlmsghdr *req = nl_request(nl, type, flags, sizeof(struct fib_rule_hdr));
    struct fib_rule_hdr *frh = mnl_nlmsg_get_payload(req);

    frh->family = r->v6 ? AF_INET6 : AF_INET;
    frh->src_len = nl_prefix_len(&r->src, r->v6);
    frh->dst_len = nl_prefix_len(&r->dst, r->v6);
    frh->table = r->table < 256 ? (uint8_t)r->table : RT_TABLE_UNSPEC;
    frh->action = r->action;
    frh->flags = r->invert ? FIB_RULE_INVERT : 0;
    if (r->priority != 0)
        mnl_attr_put_u32(req, FRA_PRIORITY, r->priority);
    if (r->table != 0)
        mnl_attr_put_u32(req, FRA_TABLE, r->table);
    if (r->suppress_prefixlen_plus1 != 0)
        mnl_attr_put_u32(req, FRA_SUPPRESS_PREFIXLEN, r->suppress_prefixlen_plus1 - 1);
    if (r->action == FR_ACT_GOTO)
        mnl_attr_put_u32(req, FRA_GOTO, r->goto_priority);
    if (r->proto != 0)
        mnl_attr_put_u8(req, FRA_PROTOCOL, r->proto);
    put_rule_matches(req, r);
    return nl_talk(nl, req, NULL, NULL);
}

int netlink_rule_add(struct netlink *nl, const struct nl_rule *r)
{
    return change_rule(nl, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, r);
}

int netlink_rule_del(struct netlink *nl, const struct nl_rule *r)
{
    return change_rule(nl, RTM_DELRULE, 0, r);
}

static uint8_t attr_u8(const struct nlattr *a)
{
    return a != NULL && mnl_attr_get_payload_len(a) >= 1 ? mnl_attr_get_u8(a) : 0;
}

static void read_rule_ranges(const struct nl_attrs *attrs, struct nl_rule *r)
{
    const struct nlattr *uids = attrs->at[FRA_UID_RANGE], *ports = attrs->at[FRA_DPORT_RANGE];
    struct fib_rule_uid_range uid;
    struct fib_rule_port_range port;

    if (uids != NULL && mnl_attr_get_payload_len(uids) >= sizeof(uid)) {
        memcpy(&uid, mnl_attr_get_payload(uids), sizeof(uid));
        r->has_uid = true;
        r->uid_first = uid.start;
        r->uid_last = uid.end;
    }
    if (ports != NULL && mnl_attr_get_payload_len(ports) >= sizeof(port)) {
        memcpy(&port, mnl_attr_get_payload(ports), sizeof(port));
        r->dport_first = port.start;
        r->dport_last = port.end;
    }
}

static int parse_rule(const struct nlmsghdr *nlh, void *arg)
{
    const struct fib_rule_hdr *frh = mnl_nlmsg_get_payload(nlh);
    struct nl_attrs attrs;
    struct nl_rule *r;
    uint32_t suppress;

    if (nlh->nlmsg_type != RTM_NEWRULE || mnl_nlmsg_get_payload_len(nlh) < sizeof(*frh))
        return 0;
    if (frh->family != AF_INET && frh->family != AF_INET6)
        return 0;
    if ((r = nl_list_add(arg)) == NULL)
        return -ENOMEM;
    nl_attrs_read(nlh, sizeof(*frh), &attrs);
    r->v6 = frh->family == AF_INET6;
    r->invert = (frh->flags & FIB_RULE_INVERT) != 0;
    r->action = frh->action;
    r->priority = nl_attr_u32(attrs.at[FRA_PRIORITY], 0);
    r->table = nl_attr_u32(attrs.at[FRA_TABLE], frh->table);
    r->goto_priority = nl_attr_u32(attrs.at[FRA_GOTO], 0);
    r->fwmark = nl_attr_u32(attrs.at[FRA_FWMARK], 0);
    r->fwmask = nl_attr_u32(attrs.at[FRA_FWMASK], 0);
    suppress =
        nl_attr_u32(attrs.at[FRA_SUPPRESS_PREFIXLEN], UINT32_MAX); /* the kernel says -1 for "not set" */
    r->suppress_prefixlen_plus1 = suppress + 1;
    r->src = nl_prefix(attrs.at[FRA_SRC], frh->src_len, r->v6);
    r->dst = nl_prefix(attrs.at[FRA_DST], frh->dst_len, r->v6);
    nl_attr_name(attrs.at[FRA_IIFNAME], r->iif);
    nl_attr_name(attrs.at[FRA_OIFNAME], r->oif);
    r->proto = attr_u8(attrs.at[FRA_PROTOCOL]);
    r->ip_proto = attr_u8(attrs.at[FRA_IP_PROTO]);
    read_rule_ranges(&attrs, r);
    return 0;
}

int netlink_rules(struct netlink *nl, netlink_rule_fn *fn, void *arg)
{
    static const int families[] = { AF_INET, AF_INET6 };
    struct nl_list list = { .item_size = sizeof(struct nl_rule) };
    int r = 0;

    for (size_t f = 0; f < ARRAY_LEN(families) && r == 0; f++) {
        struct nlmsghdr *req = nl_request(nl, RTM_GETRULE, 0, sizeof(struct fib_rule_hdr));
        struct fib_rule_hdr *frh = mnl_nlmsg_get_payload(req);
        const struct nl_rule *rules;

        frh->family = (uint8_t)families[f];
        r = nl_dump(nl, req, parse_rule, &list);
        rules = (const struct nl_rule *)(const void *)list.items;
        for (size_t i = 0; i < list.count && r == 0; i++)
            r = fn(arg, &rules[i]);
    }
    free(list.items);
    return r;
}
