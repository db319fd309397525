/* cell_ns.c - namespaces, id maps and privileges of a cell.
 *
 * An ordinary user may map only its own ids into a user namespace, each to itself, so it stays who it is and every other owner
 * looks like "nobody". Root maps all ids that it has. Where user namespaces are forbidden to root, too, it does without. */
#include <sched.h>

#include "cell_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/capability.h>

/* ---- namespaces ---- */

static int unshare_error(int r, struct err *err)
{
    switch (-r) {
    case ENOSPC:
    case EUSERS:
        return err_set(err, r,
                       "no more namespaces are allowed here; as root: sysctl user.max_user_namespaces=10000 "
                       "user.max_net_namespaces=10000");
    case EPERM:
        return err_set(
            err, r,
            "user namespaces are forbidden here; as root: sysctl kernel.unprivileged_userns_clone=1 (Debian) "
            "or "
            "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu); in a container: its seccomp profile; "
            "inside a chroot: never");
    case EINVAL:
    case ENOSYS:
        return err_set(err, r, "this kernel has no user namespaces (CONFIG_USER_NS)");
    }
    return err_set(err, r, "no namespaces for the command: %s", strerror(-r));
}

int cell_unshare(bool *has_user_ns, struct err *err)
{
    int r;

    *has_user_ns = true;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS) == 0)
        return 0;
    r = -errno;
    *has_user_ns = false;
    if (geteuid() == 0 && unshare(CLONE_NEWNET | CLONE_NEWNS) == 0)
        return 0;
    return unshare_error(r, err);
}

/* ---- id maps, written by the parent ---- */

static int write_proc(pid_t pid, const char *name, const char *text)
{
    char path[64];
    ssize_t n, len = (ssize_t)strlen(text);
    int fd, r;

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    n = write(fd, text, (size_t)len); /* the kernel wants it all in one call */
    r = n == len ? 0 : n < 0 ? -errno : -EIO;
    close(fd);
    return r;
}

/* Every id that we have, to itself: what user_namespaces(7) calls an identity map. Needs CAP_SETUID, CAP_SETGID here. */
static int map_all(pid_t child, const char *name)
{
    char own[64], text[2048] = "";
    unsigned long inside, outside, count;
    FILE *f;

    snprintf(own, sizeof(own), "/proc/self/%s", name);
    if ((f = fopen(own, "re")) == NULL)
        return -errno;
    while (fscanf(f, "%lu %lu %lu", &inside, &outside, &count) == 3) {
        size_t used = strlen(text);

        snprintf(text + used, sizeof(text) - used, "%lu %lu %lu\n", inside, inside, count);
    }
    fclose(f);
    return write_proc(child, name, text);
}

static int map_one(pid_t child, const char *name, unsigned long id)
{
    char text[64];

    snprintf(text, sizeof(text), "%lu %lu 1\n", id, id);
    return write_proc(child, name, text);
}

static int map_ids(pid_t child)
{
    int r;

    if (map_all(child, "uid_map") != 0 && (r = map_one(child, "uid_map", geteuid())) != 0)
        return r;
    if (map_all(child, "gid_map") == 0)
        return 0;
    r = write_proc(child, "setgroups", "deny"); /* or the group map is refused (user_namespaces(7)) */
    return r != 0 && r != -ENOENT ? r : map_one(child, "gid_map", getegid());
}

int cell_write_id_maps(pid_t child, struct err *err)
{
    int r = map_ids(child);

    if (r == -EPERM && geteuid() == 0) /* Linux 5.12: user 0 is mapped only by who has CAP_SETFCAP */
        return err_set(
            err, r,
            "root without capabilities, as inside another exec, gets no namespace of its own; run the outer "
            "one as an ordinary user");
    return r == 0 ? 0
                  : err_set(err, r, "ids cannot be mapped into the command's namespace: %s", strerror(-r));
}

/* ---- this process itself, for `demo` ---- */

int cell_enter_network(struct err *err)
{
    uid_t uid = geteuid(); /* unmapped, they would read 65534 */
    gid_t gid = getegid();
    int r;

    if (uid == 0 && unshare(CLONE_NEWNET) == 0)
        return 0;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
        return unshare_error(-errno, err);
    if ((r = map_one(getpid(), "uid_map", uid)) == 0 && (r = write_proc(getpid(), "setgroups", "deny")) == 0)
        r = map_one(getpid(), "gid_map", gid);
    return r == 0 ? 0 : err_set(err, r, "ids cannot be mapped into a namespace: %s", strerror(-r));
}

/* ---- privileges ---- */

/* Echo without privileges is for groups that this setting names (icmp(7)); it belongs to the network namespace. */
void cell_allow_ping(void)
{
    char text[48];
    int fd = open("/proc/sys/net/ipv4/ping_group_range", O_WRONLY | O_CLOEXEC);
    int len = snprintf(text, sizeof(text), "%lu %lu\n", (unsigned long)getegid(), (unsigned long)getegid());

    if (fd < 0 || write(fd, text, (size_t)len) != len)
        log_info("ping may not work inside: ping_group_range cannot be set: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

int cell_drop_privileges(struct err *err)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 ||
        syscall(SYS_capset, &head, none) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return err_set(err, -errno, "privileges cannot be given up: %s", strerror(errno));
    return 0;
}
