/* netns.c - see netns.h. */
#include "netns.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static char why_not[160];

const char *netns_refuse(const char *what)
{
    snprintf(why_not, sizeof(why_not), "%s: %s", what, strerror(errno));
    return why_not;
}

bool netns_write_file(const char *path, const char *text)
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
    if (!netns_write_file("/proc/self/uid_map", map) || !netns_write_file("/proc/self/setgroups", "deny"))
        return false;
    snprintf(map, sizeof(map), "0 %u 1", (unsigned)gid);
    return netns_write_file("/proc/self/gid_map", map);
}

int netns_link_up(const char *name)
{
    struct ifreq ifr = { .ifr_flags = IFF_UP | IFF_RUNNING };
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;

    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    r = s >= 0 && ioctl(s, SIOCSIFFLAGS, &ifr) == 0 ? 0 : -errno;
    if (s >= 0)
        close(s);
    return r;
}

const char *netns_enter(void)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();

    if (unshare(CLONE_NEWNET) != 0) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
            return netns_refuse("needs root or user namespaces");
        if (!map_ids(uid, gid))
            return netns_refuse("ids cannot be mapped in a user namespace");
    }
    return netns_link_up("lo") == 0 ? NULL : netns_refuse("lo does not come up in a new network namespace");
}

const char *netns_enter_with_tun(void)
{
    const char *why = netns_enter();
    int fd;

    if (why != NULL)
        return why;
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return netns_refuse("/dev/net/tun does not open");
    close(fd);
    return NULL;
}
