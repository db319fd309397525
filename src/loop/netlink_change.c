/* netlink_change.c - changes that another process makes for us, and which of them it should (design: least privilege).
 *
 * How it works. The process that forwards packets has no CAP_NET_ADMIN. What it would ask of the kernel it hands, byte for byte, to
 * the helper, which looks at it here before it sends it. What is let through is the kind of request that this folder makes: one
 * message, of a type with a rule below, its attributes whole and each of them known. */
#include "netlink_impl.h"

#include <errno.h>
#include <string.h>

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

void netlink_delegate(struct netlink *nl, netlink_change_fn *fn, void *arg)
{
    nl->change = fn;
    nl->change_arg = arg;
}

/* Types of attributes that may be there, as bits. */
#define ALLOW(type) (1ull << (type))

static const uint64_t route_attributes = ALLOW(RTA_DST) | ALLOW(RTA_OIF) | ALLOW(RTA_GATEWAY) |
                                         ALLOW(RTA_PRIORITY) | ALLOW(RTA_TABLE) | ALLOW(RTA_PREFSRC) |
                                         ALLOW(RTA_METRICS);
static const uint64_t rule_attributes =
    ALLOW(FRA_DST) | ALLOW(FRA_SRC) | ALLOW(FRA_IIFNAME) | ALLOW(FRA_OIFNAME) | ALLOW(FRA_GOTO) |
    ALLOW(FRA_PRIORITY) | ALLOW(FRA_FWMARK) | ALLOW(FRA_FWMASK) | ALLOW(FRA_TABLE) |
    ALLOW(FRA_SUPPRESS_PREFIXLEN) | ALLOW(FRA_PROTOCOL) | ALLOW(FRA_IP_PROTO) | ALLOW(FRA_SPORT_RANGE) |
    ALLOW(FRA_DPORT_RANGE) | ALLOW(FRA_UID_RANGE);
static const uint64_t link_attributes = ALLOW(IFLA_MTU) | ALLOW(IFLA_TXQLEN) | ALLOW(IFLA_AF_SPEC);
static const uint64_t address_attributes = ALLOW(IFA_LOCAL) | ALLOW(IFA_ADDRESS) | ALLOW(IFA_FLAGS);

/* Is the message exactly as long as its attributes, and each one allowed? */
static bool attributes_are(const struct nlmsghdr *nlh, size_t header, uint64_t allowed)
{
    const struct nlattr *a;
    const char *at = mnl_nlmsg_get_payload_offset(nlh, header), *end = mnl_nlmsg_get_payload_tail(nlh);

    for (; at < end; at += MNL_ALIGN(a->nla_len)) {
        a = (const struct nlattr *)(const void *)at;
        if (!mnl_attr_ok(a, (int)(end - at)) || mnl_attr_get_type(a) >= NL_ATTRS_MAX ||
            !(allowed & ALLOW(mnl_attr_get_type(a))))
            return false;
    }
    return true;
}

/* Never in the tables that the machine itself uses: default, main and local are 253 to 255. */
static bool route_is_ours(const struct nlmsghdr *nlh, uint8_t proto)
{
    const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
    struct nl_attrs attrs;
    uint32_t table;

    if (mnl_nlmsg_get_payload_len(nlh) < sizeof(*rtm) || rtm->rtm_protocol != proto ||
        !attributes_are(nlh, sizeof(*rtm), route_attributes))
        return false;
    nl_attrs_read(nlh, sizeof(*rtm), &attrs);
    table = nl_attr_u32(attrs.at[RTA_TABLE], rtm->rtm_table);
    return table != RT_TABLE_UNSPEC && (table < RT_TABLE_DEFAULT || table > RT_TABLE_LOCAL);
}

static bool rule_is_ours(const struct nlmsghdr *nlh, uint8_t proto)
{
    struct nl_attrs attrs;
    const struct nlattr *a;

    if (mnl_nlmsg_get_payload_len(nlh) < sizeof(struct fib_rule_hdr) ||
        !attributes_are(nlh, sizeof(struct fib_rule_hdr), rule_attributes))
        return false;
    nl_attrs_read(nlh, sizeof(struct fib_rule_hdr), &attrs);
    a = attrs.at[FRA_PROTOCOL];
    return a != NULL && mnl_attr_get_payload_len(a) == 1 && mnl_attr_get_u8(a) == proto;
}

static bool link_is_ours(const struct nlmsghdr *nlh, int ifindex)
{
    const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(nlh);

    return mnl_nlmsg_get_payload_len(nlh) >= sizeof(*ifi) && ifindex > 0 && ifi->ifi_index == ifindex &&
           (nlh->nlmsg_flags & NLM_F_CREATE) == 0 && attributes_are(nlh, sizeof(*ifi), link_attributes);
}

static bool address_is_ours(const struct nlmsghdr *nlh, int ifindex)
{
    const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(nlh);

    return mnl_nlmsg_get_payload_len(nlh) >= sizeof(*ifa) && ifindex > 0 &&
           ifa->ifa_index == (uint32_t)ifindex && attributes_are(nlh, sizeof(*ifa), address_attributes);
}

bool netlink_change_is_ours(const void *request, size_t len, uint8_t proto, int ifindex)
{
    const struct nlmsghdr *nlh = request;

    if (len < sizeof(*nlh) || len > NETLINK_CHANGE_MAX || nlh->nlmsg_len != len || MNL_ALIGN(len) != len)
        return false; /* libmnl reads up to the next multiple of four */
    switch (nlh->nlmsg_type) {
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        return route_is_ours(nlh, proto);
    case RTM_NEWRULE:
    case RTM_DELRULE:
        return rule_is_ours(nlh, proto);
    case RTM_NEWLINK:
    case RTM_SETLINK:
        return link_is_ours(nlh, ifindex);
    case RTM_NEWADDR:
    case RTM_DELADDR:
        return address_is_ours(nlh, ifindex);
    }
    return false;
}

int netlink_change(struct netlink *nl, const void *request, size_t len)
{
    struct nlmsghdr *req = (struct nlmsghdr *)(void *)nl->request;

    if (len < sizeof(*req) || len > sizeof(nl->request))
        return -EINVAL;
    memcpy(req, request, len);
    return nl_talk(nl, req, NULL, NULL);
}
