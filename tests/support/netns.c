/* netns.c - a network namespace of the test's own, and waiting for events on a loop instead of sleeping. */
#include "netns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char why_not[160];

static bool write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0)
        close(fd);
    return ok;
}

/* In the new user namespace we are root, and our files still belong to who we were (user_namespaces(7)). */
static bool map_ids(uid_t uid, gid_t gid)
{
    char map[64];

    snprintf(map, sizeof(map), "0 %u 1", (unsigned)uid);
    if (!write_file("/proc/self/uid_map", map) || !write_file("/proc/self/setgroups", "deny"))
        return false;
    snprintf(map, sizeof(map), "0 %u 1", (unsigned)gid);
    return write_file("/proc/self/gid_map", map);
}

static const char *refuse(const char *what)
{
    snprintf(why_not, sizeof(why_not), "%s: %s", what, strerror(errno));
    return why_not;
}

const char *netns_enter(void)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    struct netlink *nl;
    struct nl_link lo;
    int r;

    if (unshare(CLONE_NEWNET) != 0) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
            return refuse("needs root or user namespaces");
        if (!map_ids(uid, gid))
            return refuse("ids cannot be mapped in a user namespace");
    }
    if ((r = netlink_open(&nl, NULL)) != 0) {
        errno = -r;
        return refuse("no route socket in a new network namespace");
    }
    r = netlink_link_by_name(nl, "lo", &lo);
    if (r == 0)
        r = netlink_link_set(nl, lo.ifindex, true, 0, 0);
    netlink_close(nl);
    errno = -r;
    return r == 0 ? NULL : refuse("lo does not come up in a new network namespace");
}

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
    if (!write_file("/proc/sys/net/ipv4/ping_group_range", group))
        return refuse("ping_group_range cannot be set here");
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
        return refuse("lo does not take its addresses");
    return address_receives("2001:db8::1") ? NULL : refuse("2001:db8::1 on lo receives nothing");
}

const char *netns_enter_with_tun(void)
{
    const char *why = netns_enter();
    int fd;

    if (why != NULL)
        return why;
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return refuse("/dev/net/tun does not open");
    close(fd);
    return NULL;
}

static void look(void *arg)
{
    struct loop_wait *w = arg;

    if (!w->waiting || !w->done(w->arg))
        return;
    w->ok = true;
    w->waiting = false;
    loop_stop(w->loop);
}

static void on_deadline(struct loop_timer *t)
{
    struct loop_wait *w = CONTAINER_OF(t, struct loop_wait, deadline);

    w->waiting = false;
    loop_stop(w->loop);
}

void loop_wait_init(struct loop_wait *w, struct loop *l)
{
    *w = (struct loop_wait){ .loop = l };
    loop_on_turn_end(l, look, w);
}

bool loop_wait_until(struct loop_wait *w, unsigned timeout_ms, bool (*done)(void *arg), void *arg)
{
    w->done = done;
    w->arg = arg;
    w->ok = false;
    w->waiting = true;
    loop_timer_start(w->loop, &w->deadline, clock_now_us() + (uint64_t)timeout_ms * 1000, on_deadline);
    loop_run(w->loop);
    loop_timer_stop(w->loop, &w->deadline);
    return w->ok;
}
