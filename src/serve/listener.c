/* listener.c - accepting connections. */
#include "listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#define ACCEPT_PAUSE_US UINT64_C(100000)

enum {
    BACKLOG = 4096,
    ACCEPTS_MAX = 16, /* of one event; those of TLS take a part of a turn (faults.md L13) */
};

static void accept_again(struct wheel_timer *t, uint64_t now_us)
{
    struct listener *l = CONTAINER_OF(t, struct listener, pause);

    (void)now_us;
    loop_io_set(l->loop, &l->io, LOOP_READ);
}

static void rest(struct listener *l)
{
    counter_add(l->refused, 1);
    loop_io_set(l->loop, &l->io, 0);
    wheel_set(l->wheel, &l->pause, loop_now_us(l->loop) + ACCEPT_PAUSE_US);
}

static void turn_away(struct listener *l, int fd)
{
    struct linger now = { .l_onoff = 1, .l_linger = 0 };

    counter_add(l->refused, 1);
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(fd);
}

/* A client that is gone without a word is noticed within two minutes: nothing else would, while its target is silent. */
static void tune(int fd)
{
    static const struct {
        int level, name, value;
    } options[] = {
        { IPPROTO_TCP, TCP_NODELAY, 1 },   { SOL_SOCKET, SO_KEEPALIVE, 1 },
        { IPPROTO_TCP, TCP_KEEPIDLE, 60 }, { IPPROTO_TCP, TCP_KEEPINTVL, 15 },
        { IPPROTO_TCP, TCP_KEEPCNT, 4 },
    };

    for (size_t i = 0; i < ARRAY_LEN(options); i++)
        (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(options[i].value));
}

static void on_listener(struct loop_io *io, unsigned events)
{
    struct listener *l = CONTAINER_OF(io, struct listener, io);

    (void)events;
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        int fd = accept4(loop_io_fd(io), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
                rest(l);
            return;
        }
        tune(fd);
        if (l->take(l->arg, fd) != 0)
            turn_away(l, fd);
        else
            counter_add(l->accepted, 1);
    }
}

/* ---- opening ---- */

static int bind_listener(struct listener *l, const struct ip_port *at, int fd)
{
    struct sockaddr_storage ss;
    socklen_t len = ip_to_sockaddr(at, &ss);
    int on = 1;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0 ||
        bind(fd, (struct sockaddr *)&ss, len) != 0 || listen(fd, BACKLOG) != 0)
        return -errno;
    len = sizeof(ss);
    if (getsockname(fd, (struct sockaddr *)&ss, &len) != 0)
        return -errno;
    return ip_from_sockaddr((struct sockaddr *)&ss, &l->bound);
}

int listener_open(struct listener *l, const struct ip_port *at, struct err *err)
{
    char text[IP_PORT_TEXT_MAX];
    int family = ip_is4(&at->addr) ? AF_INET : AF_INET6;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), r;

    l->pause.fn = accept_again;
    if (fd < 0)
        return err_set(err, -errno, "cannot open a socket for %s: %s", ip_port_text(at, text),
                       strerror(errno));
    r = bind_listener(l, at, fd);
    if (r != 0) {
        close(fd);
        return err_set_listen(err, r, "", at);
    }
    loop_io_start(l->loop, &l->io, fd, LOOP_READ, on_listener);
    return 0;
}

void listener_close(struct listener *l)
{
    int fd;

    if (!l->wheel)
        return;
    wheel_cancel(l->wheel, &l->pause);
    if (!loop_io_active(&l->io))
        return;
    fd = loop_io_fd(&l->io);
    loop_io_stop(l->loop, &l->io);
    close(fd);
}
