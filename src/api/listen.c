/* listen.c - the sockets that the server listens on: a file that only its owner may open, and an address. */
#ifdef WITH_API

#include "api_impl.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* ---- a socket file ---- */

/* faults.md A7: what a killed process left behind refuses a connection; anything else is in use, or not ours. */
static int remove_stale(const struct sockaddr_un *sa, struct err *err)
{
    struct stat st;
    int fd, r;

    if (lstat(sa->sun_path, &st) != 0)
        return errno == ENOENT ? 0 : err_set(err, -errno, "api.unix: %s: %s", sa->sun_path, strerror(errno));
    if (!S_ISSOCK(st.st_mode))
        return err_set(err, -EEXIST,
                       "api.unix: %s is there and no socket; move it away or choose another path",
                       sa->sun_path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, -errno, "api.unix: no socket: %s", strerror(errno));
    r = connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0 ? 0 : -errno;
    close(fd);
    if (r != -ECONNREFUSED)
        return err_set(err, -EADDRINUSE,
                       "api.unix: another culvert answers on %s; stop it or choose another path",
                       sa->sun_path);
    if (unlink(sa->sun_path) != 0 && errno != ENOENT)
        return err_set(err, -errno, "api.unix: %s is stale and cannot be removed: %s", sa->sun_path,
                       strerror(errno));
    return 0;
}

static int bind_error(int r, const char *path, struct err *err)
{
    if (r == -ENOENT || r == -ENOTDIR)
        return err_set(err, r, "api.unix: the folder of %s is missing; create it or choose another path",
                       path);
    if (r == -EACCES || r == -EPERM || r == -EROFS)
        return err_set(err, r, "api.unix: %s cannot be made: %s; choose a path in a folder of yours", path,
                       strerror(-r));
    return err_set(err, r, "api.unix: %s: %s", path, strerror(-r));
}

int api_listen_unix(const char *path, struct api_socket *out, struct err *err)
{
    struct sockaddr_un sa;
    struct stat st;
    int r;

    if ((r = api_address(path, &sa, err)) != 0 || (r = remove_stale(&sa, err)) != 0)
        return r;
    out->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (out->fd < 0)
        return err_set(err, -errno, "api.unix: no socket: %s", strerror(errno));
    /* Linux makes the file with the mode of the socket, less the umask: never open to others, not even for a moment. */
    if (fchmod(out->fd, 0600) != 0 || bind(out->fd, (struct sockaddr *)&sa, sizeof(sa)) != 0)
        return bind_error(-errno, sa.sun_path, err);
    memcpy(out->path, sa.sun_path, sizeof(out->path));
    if (lstat(out->path, &st) == 0) {
        out->bound = true;
        out->dev = st.st_dev;
        out->ino = st.st_ino;
    }
    return listen(out->fd, API_CONNECTIONS_MAX) == 0 ? 0 : bind_error(-errno, sa.sun_path, err);
}

/* ---- an address ---- */

int api_listen_tcp(const struct ip_port *at, struct api_socket *out, struct err *err)
{
    struct sockaddr_storage ss;
    socklen_t len = ip_to_sockaddr(at, &ss);
    int on = 1;

    out->fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (out->fd < 0)
        return err_set(err, -errno, "api.listen: no socket: %s", strerror(errno));
    if (setsockopt(out->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
        bind(out->fd, (struct sockaddr *)&ss, len) == 0 && listen(out->fd, API_CONNECTIONS_MAX) == 0)
        return 0;
    return err_set_listen(err, -errno, "api.listen: ", at);
}

/* ---- both ---- */

static void remove_file(const struct api_socket *s)
{
    struct stat st;

    if (s->bound && lstat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino)
        unlink(s->path);
}

void api_socket_close(struct api_socket *s)
{
    remove_file(s);
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

#else
typedef int listen_is_left_out; /* a file that says nothing is no C */
#endif
