/* bulk.c - see bulk.h. */
#include "bulk.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static void on_echo(struct loop_io *io, unsigned events)
{
    struct echo_server *e = CONTAINER_OF(io, struct echo_server, io);
    int fd = loop_io_fd(io);
    ssize_t n = 0;

    (void)events;
    if (e->off == e->len) {
        n = recv(fd, e->data, sizeof(e->data), 0);
        e->off = 0;
        e->len = n > 0 ? (size_t)n : 0;
    }
    if (e->off < e->len) {
        n = send(fd, e->data + e->off, e->len - e->off, MSG_NOSIGNAL);
        e->off += n > 0 ? (size_t)n : 0;
    } else if (n == 0) {
        assert_int_equal(shutdown(fd, SHUT_WR), 0);
        loop_io_set(e->rig->loop, io, 0);
        return;
    }
    loop_io_set(e->rig->loop, io, e->off < e->len ? LOOP_WRITE : LOOP_READ);
}

static void on_echo_listener(struct loop_io *io, unsigned events)
{
    struct echo_server *e = CONTAINER_OF(io, struct echo_server, listener);
    int fd = accept4(loop_io_fd(io), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)events;
    assert_true(fd >= 0 && !e->active);
    e->active = true;
    loop_io_start(e->rig->loop, &e->io, fd, LOOP_READ, on_echo);
}

void echo_open(struct echo_server *e, struct up_rig *rig)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    memset(e, 0, sizeof(*e));
    e->rig = rig;
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    e->port = ntohs(at.sin_port);
    loop_io_start(rig->loop, &e->listener, fd, LOOP_READ, on_echo_listener);
}

static void close_watched(struct up_rig *rig, struct loop_io *io)
{
    int fd = loop_io_fd(io);

    loop_io_stop(rig->loop, io);
    close(fd);
}

void echo_close(struct echo_server *e)
{
    close_watched(e->rig, &e->listener);
    if (e->active)
        close_watched(e->rig, &e->io);
}

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 7 + i / 251);
}

static void bulk_writable(void *arg)
{
    struct bulk *b = arg;
    uint8_t data[BULK_PIECE];
    size_t len = BULK_BYTES - b->sent < BULK_PIECE ? BULK_BYTES - b->sent : BULK_PIECE;
    struct iovec out = { data, len };
    ssize_t n;

    for (size_t i = 0; i < len; i++)
        data[i] = byte_at(b->sent + i);
    n = up_stream_sendv(b->s, &out, 1);
    b->sent += n > 0 ? (size_t)n : 0;
    if (b->sent < BULK_BYTES)
        return;
    up_stream_want(b->s, LOOP_READ);
    up_stream_shutdown(b->s);
}

static void bulk_readable(void *arg)
{
    struct bulk *b = arg;
    uint8_t data[BULK_PIECE];
    ssize_t n = up_stream_recv(b->s, data, sizeof(data));

    for (ssize_t i = 0; i < n; i++)
        b->wrong |= data[i] != byte_at(b->got++);
    b->ended |= n == 0;
    b->wrong |= n < 0 && n != -EAGAIN;
    if (b->ended || b->wrong)
        up_stream_want(b->s, 0);
}

static void bulk_open(void *arg)
{
    up_stream_want(((struct bulk *)arg)->s, LOOP_READ | LOOP_WRITE);
}

static void bulk_closed(void *arg, const struct up_failure *why)
{
    print_error("%s\n", why->text);
    ((struct bulk *)arg)->closed = true;
}

static void bulk_open_deaf(void *arg)
{
    up_stream_want(((struct bulk *)arg)->s, LOOP_WRITE);
}

void bulk_start(struct up_rig *rig, struct bulk *b, struct upstream *up, bool deaf)
{
    static const struct up_stream_events all = { bulk_open, bulk_readable, bulk_writable, bulk_closed },
                                         some = { bulk_open_deaf, bulk_readable, bulk_writable, bulk_closed };
    struct host_port to = rig_to("192.0.2.1", 80);

    *b = (struct bulk){ 0 };
    assert_int_equal(up_stream_open(rig->env, up, &to, 5 * 1000000, deaf ? &some : &all, b, &b->s), 0);
}

bool bulk_over(void *arg)
{
    struct bulk *b = arg;

    return b->ended || b->closed || b->wrong;
}
