/* state_file.c - files of runtime.state-dir. */
#include "state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES 512

static int path_of(const char *dir, const char *name, const char *suffix, char out[PATH_BYTES])
{
    int n = snprintf(out, PATH_BYTES, "%s/%s%s", dir, name, suffix);

    return n > 0 && n < PATH_BYTES ? 0 : -ENAMETOOLONG;
}

static ssize_t read_all(int fd, size_t max, uint8_t **out)
{
    struct stat st;
    size_t len = 0;
    ssize_t n = 0;

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (size_t)st.st_size > max ||
        (*out = malloc((size_t)st.st_size + 1)) == NULL)
        return -EINVAL;
    while (len < (size_t)st.st_size && (n = read(fd, *out + len, (size_t)st.st_size - len)) > 0)
        len += (size_t)n;
    if (n < 0 || len == 0)
        free(*out);
    else
        (*out)[len] = '\0';
    return n < 0 ? -EIO : (ssize_t)len;
}

ssize_t state_file_read(const char *dir, const char *name, size_t max, uint8_t **out)
{
    char path[PATH_BYTES];
    ssize_t r = path_of(dir, name, "", path);
    int fd;

    if (r != 0)
        return r;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    r = read_all(fd, max, out);
    close(fd);
    return r;
}

static int fill(int fd, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;

    while (len > 0) {
        ssize_t n = write(fd, at, len);

        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
    }
    return fsync(fd) == 0 ? 0 : -errno;
}

int state_file_replace(const char *path, const char *fresh, mode_t mode, const void *bytes, size_t len)
{
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    int r;

    if (fd < 0)
        return -errno;
    r = fill(fd, bytes, len);
    close(fd);
    if (r == 0 && rename(fresh, path) != 0)
        r = -errno;
    if (r != 0)
        unlink(fresh);
    return r;
}

int state_file_write(const char *dir, const char *name, const void *bytes, size_t len)
{
    char path[PATH_BYTES], fresh[PATH_BYTES];
    int r;

    if ((r = path_of(dir, name, "", path)) != 0 || (r = path_of(dir, name, ".new", fresh)) != 0)
        return r;
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return -errno;
    return state_file_replace(path, fresh, 0600, bytes, len);
}

void state_file_folders(const char *path)
{
    char folder[4096];
    size_t len = strlen(path);

    if (len >= sizeof(folder))
        return;
    for (size_t i = 1; i < len; i++) {
        if (path[i] != '/')
            continue;
        memcpy(folder, path, i);
        folder[i] = '\0';
        (void)mkdir(folder, 0700); /* what is kept is nobody else's to read, as in state_file_write() */
    }
}
