/* netns_pings.c - a namespace where anybody may ping: netns_enter_for_pings() of netns.h. */
#include "culvert/loop.h"
#include "netns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/* Even without duplicate address detection the kernel adds the local route of an IPv6 address later, in a work queue (seen with
 * 6.18: 13 of 90 runs on a busy machine). Until then what is sent there is lost. */
static bool address_receives(const char *addr)
{
    struct sockaddr_in6 at = { .sin6_family = AF_INET6 };
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && inet_pton(AF_INET6, addr, &at.sin6_addr) == 1 &&
              bind(fd, (struct sockaddr *)&at, len) == 0 &&
              getsockname(fd, (struct sockaddr *)&at, &len) == 0;
    struct pollfd p = { .fd = fd, .events = POLLIN };

    for (int tries = 0; ok && p.revents == 0 && tries < 500; tries++) {
        (void)sendto(fd, "x", 1, 0, (struct sockaddr *)&at, len);
        (void)poll(&p, 1, 10);
    }
    if (fd >= 0)
        close(fd);
    errno = ETIMEDOUT;
    return ok && (p.revents & POLLIN) != 0;
}

const char *netns_enter_for_pings(uint32_t mtu)
{
    static const char *const addresses[] = { "192.0.2.1/32", "2001:db8::1/128" };
    const char *why = netns_enter();
    char group[32];
    struct ip_prefix a;
    struct netlink *nl;
    struct nl_link lo;
    int r;

    if (why != NULL)
        return why;
    snprintf(group, sizeof(group), "%u %u", getegid(), getegid());
    if (!netns_write_file("/proc/sys/net/ipv4/ping_group_range", group))
        return netns_refuse("ping_group_range cannot be set here");
    if ((r = netlink_open(&nl, NULL)) == 0) {
        if ((r = netlink_link_by_name(nl, "lo", &lo)) == 0)
            r = netlink_link_set(nl, lo.ifindex, true, mtu, 0);
        for (size_t i = 0; r == 0 && i < ARRAY_LEN(addresses); i++)
            if ((r = ip_interface_parse(addresses[i], &a)) == 0)
                r = netlink_addr_add(nl, lo.ifindex, &a);
        netlink_close(nl);
    }
    errno = -r;
    if (r != 0)
        return netns_refuse("lo does not take its addresses");
    return address_receives("2001:db8::1") ? NULL : netns_refuse("2001:db8::1 on lo receives nothing");
}
