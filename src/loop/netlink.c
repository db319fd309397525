/* netlink.c - a route socket: requests, dumps, links and addresses (RFC 3549; netlink(7), rtnetlink(7)).
 *
 * How it works. One request is out at a time; its answers are those with its sequence number and our port, everything else in
 * the socket is left over from a dump that was given up and is skipped. A dump is many messages, in several reads; if the
 * tables change in between, the kernel marks the rest NLM_F_DUMP_INTR and the dump is read anew (netlink(7)).
 * NETLINK_GET_STRICT_CHK (Linux 4.20) makes the kernel filter dumps by table and link; we filter again, for kernels and
 * families that do not. */
#include "netlink_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

enum { DUMP_TRIES = 16 }; /* a table that changes at each of 16 readings is a storm, not a configuration */

#ifndef IFA_F_NODAD
#define IFA_F_NODAD 0x02
#endif

/* ---- the socket ---- */

int netlink_open(struct netlink **out, struct err *err)
{
    struct netlink *nl = calloc(1, sizeof(*nl));
    int on = 1, r;

    if (nl == NULL)
        return err_set(err, -ENOMEM, "out of memory");
    nl->sock = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
    if (nl->sock == NULL || mnl_socket_bind(nl->sock, 0, MNL_SOCKET_AUTOPID) != 0) {
        r = -errno;
        netlink_close(nl);
        return err_set(err, r, "the kernel's route socket does not open: %s", strerror(-r));
    }
    nl->portid = mnl_socket_get_portid(nl->sock);
    /* Both only spare work, so a kernel without them is fine. */
    (void)mnl_socket_setsockopt(nl->sock, NETLINK_GET_STRICT_CHK, &on, sizeof(on));
    (void)mnl_socket_setsockopt(nl->sock, NETLINK_CAP_ACK, &on, sizeof(on));
    *out = nl;
    return 0;
}

void netlink_close(struct netlink *nl)
{
    if (nl == NULL)
        return;
    if (nl->sock != NULL)
        mnl_socket_close(nl->sock);
    free(nl);
}

/* ---- requests ---- */

struct nlmsghdr *nl_request(struct netlink *nl, uint16_t type, uint16_t flags, size_t extra)
{
    struct nlmsghdr *req = mnl_nlmsg_put_header(nl->request);

    mnl_nlmsg_put_extra_header(req, extra); /* zeroed by libmnl */
    req->nlmsg_type = type;
    req->nlmsg_flags = NLM_F_REQUEST | flags;
    return req;
}

struct answers {
    nl_parse_fn *parse;
    void *arg;
    int result; /* the first failure of parse, or 0 */
    bool interrupted;
};

/* Returns whether this message ends the answer; then a->result is final. */
static bool take_answer(struct answers *a, const struct nlmsghdr *nlh)
{
    int code = 0;

    if ((nlh->nlmsg_flags & NLM_F_DUMP_INTR) != 0)
        a->interrupted = true;
    if (nlh->nlmsg_type == NLMSG_ERROR || nlh->nlmsg_type == NLMSG_DONE) {
        if (mnl_nlmsg_get_payload_len(nlh) >=
            sizeof(code)) /* nlmsgerr begins with the code, DONE is the code */
            memcpy(&code, mnl_nlmsg_get_payload(nlh), sizeof(code));
        if (a->result == 0)
            a->result = code;
        return true;
    }
    if (a->parse != NULL && a->result == 0)
        a->result = a->parse(nlh, a->arg);
    return false;
}

static int receive_answers(struct netlink *nl, struct answers *a)
{
    for (;;) {
        ssize_t got = mnl_socket_recvfrom(nl->sock, nl->answer, sizeof(nl->answer));
        const struct nlmsghdr *nlh = (const struct nlmsghdr *)(const void *)nl->answer;
        int len = (int)got;

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        for (; mnl_nlmsg_ok(nlh, len); nlh = mnl_nlmsg_next(nlh, &len)) {
            if (nlh->nlmsg_seq != nl->seq || nlh->nlmsg_pid != nl->portid)
                continue;
            if (take_answer(a, nlh))
                return a->interrupted && a->result == 0 ? -EINTR : a->result;
        }
    }
}

static int send_and_receive(struct netlink *nl, struct nlmsghdr *req, nl_parse_fn *parse, void *arg)
{
    struct answers a = { .parse = parse, .arg = arg };

    req->nlmsg_seq = ++nl->seq;
    if (mnl_socket_sendto(nl->sock, req, req->nlmsg_len) < 0)
        return -errno;
    return receive_answers(nl, &a);
}

int nl_talk(struct netlink *nl, struct nlmsghdr *req, nl_parse_fn *parse, void *arg)
{
    req->nlmsg_flags |= NLM_F_ACK;
    if (nl->change != NULL && parse == NULL) /* a request without an answer changes something */
        return nl->change(nl->change_arg, req, req->nlmsg_len);
    return send_and_receive(nl, req, parse, arg);
}

uint32_t nl_batch_seq(struct netlink *nl)
{
    return ++nl->seq;
}

int nl_talk_batch(struct netlink *nl, size_t len)
{
    struct answers a = { 0 };

    if (mnl_socket_sendto(nl->sock, nl->request, len) < 0)
        return -errno;
    return receive_answers(nl, &a);
}

int nl_dump(struct netlink *nl, struct nlmsghdr *req, nl_parse_fn *parse, struct nl_list *list)
{
    int r = -EINTR;

    req->nlmsg_flags |= NLM_F_DUMP;
    /* Without memory for the list once more as well: what is read here may be what puts the machine back. */
    for (int i = 0; i < DUMP_TRIES && (r == -EINTR || r == -ENOMEM); i++) {
        list->count = 0;
        r = send_and_receive(nl, req, parse, list);
    }
    if (r == -ENOENT || r == -EOPNOTSUPP || r == -EAFNOSUPPORT) { /* no such table, no such family */
        list->count = 0;
        r = 0;
    }
    return r;
}

void *nl_list_add(struct nl_list *list)
{
    void *item;

    if (list->count == list->room) {
        size_t room = list->room == 0 ? 32 : list->room * 2;
        char *items = reallocarray(list->items, room, list->item_size);

        if (items == NULL)
            return NULL;
        list->items = items;
        list->room = room;
    }
    item = list->items + list->count++ * list->item_size;
    return memset(item, 0, list->item_size);
}

/* ---- attributes ---- */

static int keep_attr(const struct nlattr *a, void *arg)
{
    struct nl_attrs *attrs = arg;

    if (mnl_attr_get_type(a) < NL_ATTRS_MAX)
        attrs->at[mnl_attr_get_type(a)] = a;
    return MNL_CB_OK;
}

void nl_attrs_read(const struct nlmsghdr *nlh, size_t header_len, struct nl_attrs *out)
{
    memset(out, 0, sizeof(*out));
    if (mnl_nlmsg_get_payload_len(nlh) >= header_len)
        mnl_attr_parse(nlh, (unsigned)header_len, keep_attr, out);
}

uint32_t nl_attr_u32(const struct nlattr *a, uint32_t otherwise)
{
    return a != NULL && mnl_attr_get_payload_len(a) >= sizeof(uint32_t) ? mnl_attr_get_u32(a) : otherwise;
}

void nl_attr_name(const struct nlattr *a, char out[16])
{
    size_t len = a != NULL ? mnl_attr_get_payload_len(a) : 0;

    memset(out, 0, 16);
    if (len > 15)
        len = 15;
    if (len > 0)
        memcpy(out, mnl_attr_get_payload(a), len);
}

bool nl_attr_addr(const struct nlattr *a, bool v6, struct ip_addr *out)
{
    const uint8_t *bytes;

    if (a == NULL || mnl_attr_get_payload_len(a) != (v6 ? 16 : 4))
        return false;
    bytes = mnl_attr_get_payload(a);
    *out = v6 ? ip_from6(bytes) : ip_from4(bytes);
    return true;
}

uint8_t nl_prefix_len(const struct ip_prefix *p, bool v6)
{
    if (v6)
        return p->len;
    return p->len > 96 ? (uint8_t)(p->len - 96) : 0;
}

void nl_put_addr(struct nlmsghdr *req, uint16_t type, const struct ip_addr *a, bool v6)
{
    if (v6)
        mnl_attr_put(req, type, 16, a->b);
    else
        mnl_attr_put(req, type, 4, a->b + 12);
}

struct ip_prefix nl_prefix(const struct nlattr *a, uint8_t len, bool v6)
{
    static const uint8_t any4[4], any6[16];
    struct ip_prefix p = { .addr = v6 ? ip_from6(any6) : ip_from4(any4), .len = v6 ? 0 : 96 };

    if (nl_attr_addr(a, v6, &p.addr))
        p.len = (uint8_t)(v6 ? len : len + 96);
    return p;
}

/* ---- links ---- */

static bool is_set(const struct nlattr *a)
{
    return a != NULL && mnl_attr_get_payload_len(a) >= 1 && mnl_attr_get_u8(a) != 0;
}

static void read_link_info(const struct nlattr *info, struct nl_link *link)
{
    const struct nlattr *a, *data = NULL;

    mnl_attr_for_each_nested(a, info)
    {
        if (mnl_attr_get_type(a) == IFLA_INFO_KIND)
            nl_attr_name(a, link->kind);
        else if (mnl_attr_get_type(a) == IFLA_INFO_DATA)
            data = a;
    }
    if (data == NULL || strcmp(link->kind, "tun") != 0)
        return;
    mnl_attr_for_each_nested(a, data)
    {
        if (mnl_attr_get_type(a) == IFLA_TUN_PI)
            link->tun_pi = is_set(a);
    }
}

/* The attribute may be as short as the kernel's first version of the structure, and need not be aligned. */
static uint64_t read_tx_dropped(const struct nlattr *stats)
{
    const size_t at = offsetof(struct rtnl_link_stats64, tx_dropped);
    uint64_t n = 0;

    if (stats != NULL && mnl_attr_get_payload_len(stats) >= at + sizeof(n))
        memcpy(&n, (const uint8_t *)mnl_attr_get_payload(stats) + at, sizeof(n));
    return n;
}

static int parse_link(const struct nlmsghdr *nlh, void *arg)
{
    struct nl_link *link = arg;
    const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(nlh);
    struct nl_attrs attrs;

    if (nlh->nlmsg_type != RTM_NEWLINK || mnl_nlmsg_get_payload_len(nlh) < sizeof(*ifi))
        return 0;
    nl_attrs_read(nlh, sizeof(*ifi), &attrs);
    *link = (struct nl_link){ .ifindex = ifi->ifi_index, .up = (ifi->ifi_flags & IFF_UP) != 0 };
    link->mtu = nl_attr_u32(attrs.at[IFLA_MTU], 0);
    link->txqueuelen = nl_attr_u32(attrs.at[IFLA_TXQLEN], 0);
    link->tx_dropped = read_tx_dropped(attrs.at[IFLA_STATS64]);
    link->carrier = is_set(attrs.at[IFLA_CARRIER]);
    nl_attr_name(attrs.at[IFLA_IFNAME], link->name);
    if (attrs.at[IFLA_LINKINFO] != NULL)
        read_link_info(attrs.at[IFLA_LINKINFO], link);
    return 0;
}

static int get_link(struct netlink *nl, int ifindex, const char *name, struct nl_link *out)
{
    struct nl_link link = { 0 };
    struct nlmsghdr *req = nl_request(nl, RTM_GETLINK, 0, sizeof(struct ifinfomsg));
    struct ifinfomsg *ifi = mnl_nlmsg_get_payload(req);
    int r;

    ifi->ifi_index = ifindex;
    if (name != NULL)
        mnl_attr_put_strz(req, IFLA_IFNAME, name);
    r = nl_talk(nl, req, parse_link, &link);
    if (r == 0 && link.ifindex == 0)
        r = -ENODEV;
    if (r == 0)
        *out = link;
    return r;
}

int netlink_link_by_name(struct netlink *nl, const char *name, struct nl_link *out)
{
    if (name[0] == '\0' || strlen(name) >= IFNAMSIZ)
        return -ENODEV;
    return get_link(nl, 0, name, out);
}

int netlink_link_by_index(struct netlink *nl, int ifindex, struct nl_link *out)
{
    return ifindex > 0 ? get_link(nl, ifindex, NULL, out) : -ENODEV;
}

int netlink_link_set(struct netlink *nl, int ifindex, bool up, uint32_t mtu, uint32_t txqueuelen)
{
    struct nlmsghdr *req = nl_request(nl, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
    struct ifinfomsg *ifi = mnl_nlmsg_get_payload(req);

    ifi->ifi_index = ifindex;
    ifi->ifi_flags = up ? IFF_UP : 0;
    ifi->ifi_change = IFF_UP;
    if (mtu != 0)
        mnl_attr_put_u32(req, IFLA_MTU, mtu);
    if (txqueuelen != 0)
        mnl_attr_put_u32(req, IFLA_TXQLEN, txqueuelen);
    return nl_talk(nl, req, NULL, NULL);
}

int netlink_link_no_autoconf(struct netlink *nl, int ifindex)
{
    struct nlmsghdr *req = nl_request(nl, RTM_SETLINK, 0, sizeof(struct ifinfomsg));
    struct ifinfomsg *ifi = mnl_nlmsg_get_payload(req);
    struct nlattr *spec, *inet6;

    ifi->ifi_index = ifindex;
    spec = mnl_attr_nest_start(req, IFLA_AF_SPEC);
    inet6 = mnl_attr_nest_start(req, AF_INET6);
    mnl_attr_put_u8(req, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
    mnl_attr_nest_end(req, inet6);
    mnl_attr_nest_end(req, spec);
    return nl_talk(nl, req, NULL, NULL);
}

/* ---- addresses ---- */

static int change_addr(struct netlink *nl, uint16_t type, uint16_t flags, int ifindex,
                       const struct ip_prefix *addr)
{
    bool v6 = !ip_is4(&addr->addr);
    struct nlmsghdr *req = nl_request(nl, type, flags, sizeof(struct ifaddrmsg));
    struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(req);

    ifa->ifa_family = v6 ? AF_INET6 : AF_INET;
    ifa->ifa_prefixlen = nl_prefix_len(addr, v6);
    ifa->ifa_index = (uint32_t)ifindex;
    if (v6 && type == RTM_NEWADDR) /* nobody else lives on a TUN, and an address must be usable at once */
        ifa->ifa_flags = IFA_F_NODAD;
    nl_put_addr(req, IFA_LOCAL, &addr->addr, v6);
    nl_put_addr(req, IFA_ADDRESS, &addr->addr, v6);
    return nl_talk(nl, req, NULL, NULL);
}

int netlink_addr_add(struct netlink *nl, int ifindex, const struct ip_prefix *addr)
{
    return change_addr(nl, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, ifindex, addr);
}

int netlink_addr_del(struct netlink *nl, int ifindex, const struct ip_prefix *addr)
{
    return change_addr(nl, RTM_DELADDR, 0, ifindex, addr);
}

static int parse_addr(const struct nlmsghdr *nlh, void *arg)
{
    const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(nlh);
    struct nl_attrs attrs;
    struct nl_addr *a;
    bool v6;

    if (nlh->nlmsg_type != RTM_NEWADDR || mnl_nlmsg_get_payload_len(nlh) < sizeof(*ifa))
        return 0;
    if (ifa->ifa_family != AF_INET && ifa->ifa_family != AF_INET6)
        return 0;
    v6 = ifa->ifa_family == AF_INET6;
    nl_attrs_read(nlh, sizeof(*ifa), &attrs);
    if ((a = nl_list_add(arg)) == NULL)
        return -ENOMEM;
    a->ifindex = (int)ifa->ifa_index;
    /* On a point-to-point link IFA_ADDRESS is the far end; ours is IFA_LOCAL where that is given. */
    a->addr = nl_prefix(attrs.at[IFA_LOCAL] != NULL ? attrs.at[IFA_LOCAL] : attrs.at[IFA_ADDRESS],
                        ifa->ifa_prefixlen, v6);
    return 0;
}

static int dump_addrs(struct netlink *nl, int family, int ifindex, struct nl_list *list)
{
    struct nlmsghdr *req = nl_request(nl, RTM_GETADDR, 0, sizeof(struct ifaddrmsg));
    struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(req);
    int r;

    ifa->ifa_family = (uint8_t)family;
    ifa->ifa_index = (uint32_t)ifindex;
    r = nl_dump(nl, req, parse_addr, list);
    return r == -ENODEV ? 0 : r; /* strict kernels look the link up: one that is gone has no addresses */
}

int netlink_addrs(struct netlink *nl, int ifindex, netlink_addr_fn *fn, void *arg)
{
    static const int families[] = { AF_INET, AF_INET6 };
    struct nl_list list = { .item_size = sizeof(struct nl_addr) };
    int r = 0;

    for (size_t f = 0; f < ARRAY_LEN(families) && r == 0; f++) {
        const struct nl_addr *addrs;

        r = dump_addrs(nl, families[f], ifindex, &list);
        addrs = (const struct nl_addr *)(const void *)list.items;
        for (size_t i = 0; i < list.count && r == 0; i++)
            if (ifindex == 0 || addrs[i].ifindex == ifindex)
                r = fn(arg, &addrs[i]);
    }
    free(list.items);
    return r;
}
