/* cell_files.c - files of the host that look different inside a cell: resolv.conf, nsswitch.conf, and sockets of daemons that
 * would answer name lookups past the TUN (faults.md Q7).
 *
 * How it works. A small tmpfs is mounted for a moment over a folder that nothing here needs; our files are made in it and bound
 * over the host's, then it is taken away again and lives on in what was bound. All of it happens in the child's own mount
 * namespace, which changes of the host reach, and whose changes reach nobody.
 *
 * Where /etc/resolv.conf is missing or dangles there is nothing to bind over, and /etc cannot be written: then /etc itself is
 * replaced by a tmpfs that holds our file beside a symbolic link to each of the host's entries.
 *
 * What is left to the host: programs that ask over D-Bus (org.freedesktop.resolve1) get answers of the host's. */
#include "cell_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static const char RESOLV_CONF[] = "/etc/resolv.conf", NSSWITCH[] = "/etc/nsswitch.conf";
static const char RESOLVED_DIR[] = "/run/systemd/resolve";
static const char SHADOW_DIR[] = "/etc/.host"; /* the host's /etc, inside the one that replaces it */

/* Folders that are free to be covered for a moment: nothing that we bind lies below them. */
static const char *const scratch_places[] = { "/tmp", "/var/tmp", "/mnt", "/srv", "/dev/shm" };
/* Folders with sockets of daemons that look names up for others. */
static const char *const hidden_dirs[] = { "/run/nscd", "/var/run/nscd", "/run/avahi-daemon" };

static int mount_tmpfs(const char *where)
{
    return mount("tmpfs", where, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=1m") == 0 ? 0
                                                                                                     : -errno;
}

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    ssize_t n;

    if (fd < 0)
        return -errno;
    n = write(fd, text, strlen(text));
    close(fd);
    return n == (ssize_t)strlen(text) ? 0 : -EIO;
}

static int bind_over(const char *what, const char *where)
{
    return mount(what, where, NULL, MS_BIND, NULL) == 0 ? 0 : -errno;
}

static bool is_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* ---- daemons ---- */

static int hide_daemons(const char *resolv_conf)
{
    int r;

    for (size_t i = 0; i < ARRAY_LEN(hidden_dirs); i++) {
        if (is_dir(hidden_dirs[i]) && (r = mount_tmpfs(hidden_dirs[i])) != 0)
            return r;
    }
    if (!is_dir(RESOLVED_DIR))
        return 0;
    /* /etc/resolv.conf often is a link into it, so what it may point to must be there. */
    if ((r = mount_tmpfs(RESOLVED_DIR)) != 0 ||
        (r = write_file("/run/systemd/resolve/resolv.conf", resolv_conf)) != 0)
        return r;
    return write_file("/run/systemd/resolve/stub-resolv.conf", resolv_conf);
}

/* ---- /etc as a whole ---- */

/* One entry of the host's /etc: a link stays the link that it was, so that relative ones keep their meaning. */
static int shadow_entry(int host, const char *name)
{
    char to[PATH_MAX], path[PATH_MAX];
    ssize_t len = readlinkat(host, name, to, sizeof(to) - 1);

    if (len >= 0)
        to[len] = '\0';
    else
        snprintf(to, sizeof(to), "%s/%s", SHADOW_DIR, name);
    snprintf(path, sizeof(path), "/etc/%s", name);
    return symlink(to, path) == 0 || errno == EEXIST ? 0 : -errno;
}

static int shadow_entries(int host)
{
    DIR *dir = fdopendir(host); /* takes the descriptor */
    const struct dirent *e;
    int r = 0;

    if (dir == NULL)
        return -errno;
    while (r == 0 && (e = readdir(dir)) != NULL) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
            strcmp(e->d_name, "resolv.conf") != 0)
            r = shadow_entry(dirfd(dir), e->d_name);
    }
    closedir(dir);
    return r;
}

static int shadow_etc(const char *resolv_conf)
{
    int host = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;
    char self[40];

    if (host < 0)
        return -errno;
    snprintf(self, sizeof(self), "/proc/self/fd/%d", host);
    if ((r = mount_tmpfs("/etc")) != 0 || (r = mkdir(SHADOW_DIR, 0755) == 0 ? 0 : -errno) != 0 ||
        (r = mount(self, SHADOW_DIR, NULL, MS_BIND | MS_REC, NULL) == 0 ? 0 : -errno) != 0) {
        close(host);
        return r;
    }
    r = shadow_entries(host);
    return r != 0 ? r : write_file(RESOLV_CONF, resolv_conf);
}

/* ---- all together ---- */

static int mount_scratch(const char **out)
{
    int r = -ENOENT;

    for (size_t i = 0; i < ARRAY_LEN(scratch_places); i++) {
        if (is_dir(scratch_places[i]) && (r = mount_tmpfs(scratch_places[i])) == 0) {
            *out = scratch_places[i];
            return 0;
        }
    }
    return r;
}

/* @text over @target, which is a file of the host's. */
static int replace_one(const char *scratch, const char *name, const char *text, const char *target)
{
    char path[64];
    int r;

    snprintf(path, sizeof(path), "%s/%s", scratch, name);
    r = write_file(path, text);
    return r != 0 ? r : bind_over(path, target);
}

static int replace_all(const char *resolv_conf, const char *nsswitch)
{
    const char *scratch = NULL;
    int r = mount_scratch(&scratch);

    if (r != 0)
        return r;
    if (nsswitch != NULL && access(NSSWITCH, F_OK) == 0)
        r = replace_one(scratch, "nsswitch.conf", nsswitch, NSSWITCH);
    if (r == 0 && access(RESOLV_CONF, F_OK) == 0)
        r = replace_one(scratch, "resolv.conf", resolv_conf, RESOLV_CONF);
    umount2(scratch, MNT_DETACH);
    if (r == 0 && access(RESOLV_CONF, F_OK) != 0)
        r = shadow_etc(resolv_conf);
    return r;
}

/* The proof, whatever was done above: what a resolver will read is what we wrote. */
static int check_resolv_conf(const char *resolv_conf)
{
    char text[64] = "";
    int fd = open(RESOLV_CONF, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

    if (fd >= 0)
        close(fd);
    return n > 0 && strncmp(text, resolv_conf, (size_t)n) == 0 ? 0 : -EIO;
}

int cell_replace_files(const char *resolv_conf, const char *nsswitch, struct err *err)
{
    int r;

    if (resolv_conf == NULL)
        return 0;
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) != 0)
        r = -errno;
    else if ((r = hide_daemons(resolv_conf)) == 0 && (r = replace_all(resolv_conf, nsswitch)) == 0)
        r = check_resolv_conf(resolv_conf);
    return r == 0
               ? 0
               : err_set(err, r, "name lookups cannot be led into the TUN, since %s cannot be replaced: %s",
                         RESOLV_CONF, strerror(-r));
}
