/* netns.c - a network namespace of the test's own, and waiting for events on a loop instead of sleeping. */
#include "netns.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
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

const char *netns_tun_missing(void)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

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
