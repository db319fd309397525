/* mq_relay.c - a CONNECT of the scripted MASQUE server that leads to a port of this machine: both ways, as fast as the other end
 * takes it, each direction with an end of its own. */
#include "mq_relay.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { WAY_BYTES = 16384 };

struct way {
    size_t len, off;
    bool ended, told;
    uint8_t data[WAY_BYTES];
};
struct mq_relay {
    struct loop_io io;
    struct mq_stream *s;
    struct way up, down;
};

static bool is_empty(const struct way *w)
{
    return w->off == w->len;
}

/* What a read said. */
static void filled(struct way *w, ssize_t n)
{
    w->off = 0;
    w->len = n > 0 ? (size_t)n : 0;
    w->ended = n == 0;
}

/* Return: it may go on */
static bool up(struct mq_relay *r, int fd)
{
    struct way *w = &r->up;
    ssize_t n;

    if (is_empty(w) && !w->ended)
        filled(w, h2_recv(r->s->s, w->data, sizeof(w->data)));
    if (is_empty(w))
        return false;
    n = send(fd, w->data + w->off, w->len - w->off, MSG_NOSIGNAL);
    w->off += n > 0 ? (size_t)n : 0;
    r->s->got += n > 0 ? (size_t)n : 0;
    return n > 0;
}

static bool down(struct mq_relay *r, int fd)
{
    struct way *w = &r->down;
    struct iovec out;
    ssize_t n;

    if (is_empty(w) && !w->ended) {
        n = recv(fd, w->data, sizeof(w->data), 0);
        if (n < 0 && errno != EAGAIN) { /* refused, or reset */
            struct h2_stream *s = r->s->s;

            r->s->s = NULL;
            mq_relay_end(r->s);
            h2_stream_close(s, H2_CONNECT_ERROR);
            return false;
        }
        filled(w, n);
    }
    if (is_empty(w))
        return false;
    out = (struct iovec){ w->data + w->off, w->len - w->off };
    n = h2_sendv(r->s->s, &out, 1);
    w->off += n > 0 ? (size_t)n : 0;
    return n > 0;
}

void mq_relay_turn(struct mq_stream *s)
{
    struct mq_relay *r = s->relay;
    int fd = loop_io_fd(&r->io);

    while (up(r, fd))
        ;
    while (down(r, fd))
        ;
    if (!s->relay)
        return;
    if (r->up.ended && !r->up.told)
        r->up.told = shutdown(fd, SHUT_WR) == 0 || errno != ENOTCONN;
    if (r->down.ended && !r->down.told)
        h2_shutdown(s->s);
    r->down.told = r->down.ended;
    h2_want(s->s,
            (is_empty(&r->up) && !r->up.ended ? LOOP_READ : 0u) | (is_empty(&r->down) ? 0u : LOOP_WRITE));
    loop_io_set(s->conn->server->rig->loop, &r->io,
                (is_empty(&r->down) && !r->down.ended ? LOOP_READ : 0u) |
                    (is_empty(&r->up) && r->up.told == r->up.ended ? 0u : LOOP_WRITE));
}

static void on_io(struct loop_io *io, unsigned events)
{
    (void)events;
    mq_relay_turn(CONTAINER_OF(io, struct mq_relay, io)->s);
}

void mq_relay_start(struct mq_stream *s, uint16_t port)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                              .sin_port = htons(port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int buffer = 4 * WAY_BYTES; /* or the kernel takes megabytes before anybody is held up */
    struct mq_relay *r = calloc(1, sizeof(*r));

    assert_true(fd >= 0 && r);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer)), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer)), 0);
    (void)connect(fd, (struct sockaddr *)&to, sizeof(to)); /* what it said comes with the first read */
    r->s = s;
    s->relay = r;
    loop_io_start(s->conn->server->rig->loop, &r->io, fd, LOOP_READ, on_io);
}

void mq_relay_end(struct mq_stream *s)
{
    struct mq_relay *r = s->relay;
    int fd;

    if (!r)
        return;
    fd = loop_io_fd(&r->io);
    loop_io_stop(s->conn->server->rig->loop, &r->io);
    close(fd);
    free(r);
    s->relay = NULL;
}
