/* netlink_watch.c - a second route socket that only listens: what changed in links, addresses, routes and rules.
 * The kernel drops events when nobody reads for a while and says ENOBUFS once (netlink(7)); the listener then has to look at
 * everything anew, which is what NETLINK_EVENTS_LOST asks for (faults.md R4). */
#include "netlink_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>

enum {
    RECEIVE_BUFFER_BYTES =
        1 << 20,        /* a router that loads 10,000 routes at once must not lose our link's event */
    READS_PER_TURN = 16 /* then others have their turn; the rest stays readable */
};

struct netlink_watch {
    struct loop_io io;
    struct loop *loop;
    struct mnl_socket *sock;
    netlink_event_fn *fn;
    void *arg;
    _Alignas(8) char buffer[NL_ANSWER_MAX];
};

struct event {
    enum netlink_event what;
    int ifindex;
};

static bool read_link_event(const struct nlmsghdr *nlh, struct event *out)
{
    const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(nlh);

    if (mnl_nlmsg_get_payload_len(nlh) < sizeof(*ifi))
        return false;
    *out = (struct event){ .what = NETLINK_LINK_CHANGED, .ifindex = ifi->ifi_index };
    return true;
}

static bool read_addr_event(const struct nlmsghdr *nlh, struct event *out)
{
    const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(nlh);

    if (mnl_nlmsg_get_payload_len(nlh) < sizeof(*ifa))
        return false;
    *out = (struct event){ .what = NETLINK_ADDR_CHANGED, .ifindex = (int)ifa->ifa_index };
    return true;
}

static bool read_route_event(const struct nlmsghdr *nlh, struct event *out)
{
    const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
    struct nl_attrs attrs;

    if (mnl_nlmsg_get_payload_len(nlh) < sizeof(*rtm) || (rtm->rtm_flags & RTM_F_CLONED) != 0)
        return false;
    nl_attrs_read(nlh, sizeof(*rtm), &attrs);
    *out = (struct event){ .what = NETLINK_ROUTE_CHANGED, .ifindex = (int)nl_attr_u32(attrs.at[RTA_OIF], 0) };
    return true;
}

static bool read_event(const struct nlmsghdr *nlh, struct event *out)
{
    if (nlh->nlmsg_type >> 8 == NFNL_SUBSYS_NFTABLES) { /* types of rtnetlink are below 256 */
        *out = (struct event){ .what = NETLINK_NFT_CHANGED };
        return true;
    }
    switch (nlh->nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK:
        return read_link_event(nlh, out);
    case RTM_NEWADDR:
    case RTM_DELADDR:
        return read_addr_event(nlh, out);
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        return read_route_event(nlh, out);
    case RTM_NEWRULE:
    case RTM_DELRULE:
        *out = (struct event){ .what = NETLINK_RULE_CHANGED };
        return true;
    }
    return false;
}

static void tell(struct netlink_watch *w, size_t len)
{
    const struct nlmsghdr *nlh = (const struct nlmsghdr *)(const void *)w->buffer;
    struct event last = { .what = NETLINK_EVENTS_LOST }; /* equal to none of those below */
    int left = (int)len;

    for (; mnl_nlmsg_ok(nlh, left); nlh = mnl_nlmsg_next(nlh, &left)) {
        struct event e;

        if (!read_event(nlh, &e) || (e.what == last.what && e.ifindex == last.ifindex))
            continue;
        last = e;
        w->fn(w->arg, e.what, e.ifindex);
    }
}

static void on_readable(struct loop_io *io, unsigned events)
{
    struct netlink_watch *w = CONTAINER_OF(io, struct netlink_watch, io);

    (void)events;
    for (int i = 0; i < READS_PER_TURN; i++) {
        ssize_t got = mnl_socket_recvfrom(w->sock, w->buffer, sizeof(w->buffer));

        if (got >= 0)
            tell(w, (size_t)got);
        else if (errno == ENOBUFS ||
                 errno == ENOSPC) /* events lost; or one longer than our buffer, as good as lost */
            w->fn(w->arg, NETLINK_EVENTS_LOST, 0);
        else if (errno != EINTR)
            return;
    }
}

static const unsigned route_groups[] = { RTNLGRP_LINK,       RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,
                                         RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE,  RTNLGRP_IPV4_RULE,
                                         RTNLGRP_IPV6_RULE };
static const unsigned nft_groups[] = { NFNLGRP_NFTABLES };

static int open_socket(struct netlink_watch *w, int protocol, const unsigned *groups, size_t count)
{
    int bytes = RECEIVE_BUFFER_BYTES;

    w->sock = mnl_socket_open2(protocol, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (w->sock == NULL || mnl_socket_bind(w->sock, 0, MNL_SOCKET_AUTOPID) != 0)
        return -errno;
    for (size_t i = 0; i < count; i++)
        if (mnl_socket_setsockopt(w->sock, NETLINK_ADD_MEMBERSHIP, (void *)(uintptr_t)&groups[i],
                                  sizeof(groups[i])) != 0)
            return -errno;
    /* Beyond rmem_max only with privilege; without it, losses are found and repaired all the same. */
    if (setsockopt(mnl_socket_get_fd(w->sock), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) != 0)
        (void)setsockopt(mnl_socket_get_fd(w->sock), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    return 0;
}

static int watch_open(struct loop *l, int protocol, const unsigned *groups, size_t count,
                      netlink_event_fn *fn, void *arg, struct netlink_watch **out)
{
    struct netlink_watch *w = calloc(1, sizeof(*w));
    int r;

    if (w == NULL)
        return -ENOMEM;
    w->loop = l;
    w->fn = fn;
    w->arg = arg;
    if ((r = open_socket(w, protocol, groups, count)) != 0) {
        netlink_watch_close(w);
        return r;
    }
    loop_io_start(l, &w->io, mnl_socket_get_fd(w->sock), LOOP_READ, on_readable);
    *out = w;
    return 0;
}

int netlink_watch_open(struct loop *l, netlink_event_fn *fn, void *arg, struct netlink_watch **out)
{
    return watch_open(l, NETLINK_ROUTE, route_groups, ARRAY_LEN(route_groups), fn, arg, out);
}

int netlink_watch_open_nft(struct loop *l, netlink_event_fn *fn, void *arg, struct netlink_watch **out)
{
    return watch_open(l, NETLINK_NETFILTER, nft_groups, ARRAY_LEN(nft_groups), fn, arg, out);
}

void netlink_watch_close(struct netlink_watch *w)
{
    if (w == NULL)
        return;
    if (loop_io_active(&w->io))
        loop_io_stop(w->loop, &w->io);
    if (w->sock != NULL)
        mnl_socket_close(w->sock);
    free(w);
}
