/* route_dns.c - the system's resolv.conf(5) names us while we run, and is put back with every byte.
 *
 * What was there gets a second name beside it (a hard link, so a symbolic link of resolvconf or systemd-resolved stays one), then
 * ours takes its place in one rename: at no moment is there no file, and that second name is the journal. It lies on the same
 * disk, so it is there after a crash and after a power cut, and undoing is one rename back. Where the file is a mount of its own,
 * as in containers, it cannot be renamed; then its content is copied away and back.
 * Whoever writes the file anew meanwhile, a DHCP client, keeps his: ours is told by its first line. */
#include "route_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OURS    "# culvert: put here by tun.system-dns; what was here is beside it, and comes back at the end\n"
#define NOTHING "culvert: there was nothing" /* what the second name links to then */

enum { PATH_MAX_HERE = 256, TEXT_MAX_HERE = 16384 };

struct names {
    char saved[PATH_MAX_HERE], fresh[PATH_MAX_HERE];
};

static int names_of(const char *path, struct names *n)
{
    int len = snprintf(n->saved, sizeof(n->saved), "%s" ROUTE_DNS_SAVED, path);

    if (len < 0 || (size_t)len >= sizeof(n->saved))
        return -ENAMETOOLONG;
    snprintf(n->fresh, sizeof(n->fresh), "%s.culvert-new", path);
    return 0;
}

static ssize_t read_file(const char *path, char text[TEXT_MAX_HERE])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd < 0 ? -errno : read(fd, text, TEXT_MAX_HERE);

    if (fd >= 0)
        close(fd);
    return n;
}

static bool is_ours(const char *path)
{
    char text[TEXT_MAX_HERE];
    struct stat st;

    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && read_file(path, text) >= (ssize_t)strlen(OURS) &&
           memcmp(text, OURS, strlen(OURS)) == 0;
}

static int write_file(const char *path, int flags, const char *text, size_t len)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | flags, 0644), r = 0;
    ssize_t n;

    if (fd < 0)
        return -errno;
    n = write(fd, text, len);
    if (n != (ssize_t)len) /* a disk that is nearly full takes a part */
        r = n < 0 ? -errno : -ENOSPC;
    else if (fchmod(fd, 0644) != 0 || fsync(fd) != 0)
        r = -errno;
    close(fd);
    return r;
}

static int copy(const char *from, const char *to, int flags)
{
    char text[TEXT_MAX_HERE];
    ssize_t n = read_file(from, text);

    if (n == TEXT_MAX_HERE)
        return -EFBIG; /* no resolv.conf, whatever it is */
    return n < 0 ? (int)n : write_file(to, flags, text, (size_t)n);
}

/* The second name. One that is there while the file is ours is a dead predecessor's, and still right. */
static int save(const char *path, const struct names *n)
{
    if (is_ours(path))
        return 0;
    (void)unlink(n->saved); /* of a file that somebody has replaced since */
    if (linkat(AT_FDCWD, path, AT_FDCWD, n->saved, 0) == 0)
        return 0;
    if (errno == ENOENT)
        return symlink(NOTHING, n->saved) == 0 ? 0 : -errno;
    if (errno == EXDEV || errno == EPERM || errno == EOPNOTSUPP)
        return copy(path, n->saved, O_CREAT | O_EXCL);
    return -errno;
}

static int put(const char *path, const struct names *n, const char *text)
{
    int r;

    (void)unlink(n->fresh);
    if ((r = write_file(n->fresh, O_CREAT | O_EXCL, text, strlen(text))) != 0)
        return r;
    if (rename(n->fresh, path) == 0)
        return 0;
    r = -errno;
    (void)unlink(n->fresh);
    return r == -EBUSY ? write_file(path, O_TRUNC, text, strlen(text)) : r;
}

int route_dns_set(const char *path, const struct ip_addr server[2])
{
    char text[512] = OURS, address[IP_TEXT_MAX];
    struct names n = { .saved = "" };
    int r = names_of(path, &n);

    for (size_t i = 0; i < 2; i++) {
        size_t len = strlen(text);

        if (!ip_is_none(&server[i]))
            snprintf(text + len, sizeof(text) - len, "nameserver %s\n", ip_text(&server[i], address));
    }
    if (r != 0 || (r = save(path, &n)) != 0)
        return r;
    if ((r = put(path, &n, text)) != 0)
        (void)unlink(n.saved);
    return r;
}

static bool was_nothing(const struct names *n)
{
    char to[sizeof(NOTHING)];
    ssize_t len = readlink(n->saved, to, sizeof(to));

    return len == (ssize_t)strlen(NOTHING) && memcmp(to, NOTHING, strlen(NOTHING)) == 0;
}

int route_dns_restore(const char *path)
{
    struct names n = { .saved = "" };
    struct stat st;
    int r = names_of(path, &n);

    if (r != 0 || lstat(n.saved, &st) != 0)
        return r != 0 ? r : -errno;
    if (was_nothing(&n)) {
        if (is_ours(path))
            (void)unlink(path);
        return unlink(n.saved) == 0 ? 0 : -errno;
    }
    if (!is_ours(path)) { /* somebody's own by now */
        log_info("%s was written anew meanwhile, and stays as it is", path);
        return unlink(n.saved) == 0 ? 0 : -errno;
    }
    if (rename(n.saved, path) == 0)
        return 0;
    if (errno != EBUSY)
        return -errno;
    r = copy(n.saved, path, O_TRUNC);
    return r != 0 || unlink(n.saved) == 0 ? r : -errno;
}
