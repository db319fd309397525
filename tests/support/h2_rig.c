/* h2_rig.c - two ends of an HTTP/2 connection and their owners. */
#include "h2_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- streams ---- */

static void read_capsules(struct stream_side *s)
{
    static uint8_t memory[H2_DATAGRAM_MAX];
    struct capsule c;
    int r;

    while ((r = h2_capsule_recv(s->s, memory, sizeof(memory), &c)) == 1) {
        if (c.type != CAPSULE_DATAGRAM)
            continue;
        if (s->datagrams++ == 0)
            s->bulk_at = s->side->streams[0].got;
        s->last_len = c.len;
        memcpy(s->last, c.value, c.len < sizeof(s->last) ? c.len : sizeof(s->last));
    }
    s->ended = r == 0;
    s->bad = r == 0 || r == -EAGAIN ? s->bad : r;
}

static void on_readable(void *arg)
{
    struct stream_side *s = arg;
    char data[4096];
    ssize_t n;

    if (s->hold) {
        h2_want(s->s, 0);
        return;
    }
    if (s->capsules) {
        read_capsules(s);
        return;
    }
    while ((n = h2_recv(s->s, data, sizeof(data))) > 0) {
        if (s->got < sizeof(s->in) - 1) {
            size_t room = sizeof(s->in) - 1 - s->got;

            memcpy(s->in + s->got, data, (size_t)n < room ? (size_t)n : room);
        }
        s->got += (size_t)n;
    }
    s->ended = n == 0;
}

static void on_writable(void *arg)
{
    struct stream_side *s = arg;

    s->writable = true;
    h2_want(s->s, LOOP_READ);
}

static void on_response(void *arg, const struct h2_head *head)
{
    struct stream_side *s = arg;

    s->status = head->status;
}

static void on_stream_closed(void *arg, int err, uint32_t code)
{
    struct stream_side *s = arg;

    s->closed = true;
    s->err = err;
    s->code = code;
    s->s = NULL;
}

const struct h2_stream_events h2_stream_log = { on_response, on_readable, on_writable, on_stream_closed };

/* ---- connections ---- */

static void on_settings(void *arg)
{
    ((struct h2_side *)arg)->settings = true;
}

static void copy(char *to, size_t cap, const char *text)
{
    snprintf(to, cap, "%s", text ? text : "");
}

static void on_request(void *arg, struct h2_stream *stream, const struct h2_head *head)
{
    struct h2_side *side = arg;
    struct stream_side *s = &side->streams[side->n % SIDE_STREAMS];

    side->requests++;
    if (side->refuse)
        return;
    side->n++;
    *s = (struct stream_side){ .side = side, .s = stream, .hold = side->hold };
    copy(s->path, sizeof(s->path), head->path);
    copy(s->protocol, sizeof(s->protocol), head->protocol);
    copy(s->authority, sizeof(s->authority), head->authority);
    copy(s->login, sizeof(s->login), h2_field(head, "proxy-authorization"));
    h2_accept(stream, &h2_stream_log, s);
    if (side->answer.status)
        assert_int_equal(h2_respond(stream, &side->answer), 0);
}

static void on_drain(void *arg)
{
    ((struct h2_side *)arg)->drained = true;
}

static void on_pong(void *arg, uint64_t rtt_us)
{
    assert_true(rtt_us < 60 * 1000000u);
    ((struct h2_side *)arg)->pongs++;
}

static void on_closed(void *arg, int err, const char *why)
{
    struct h2_side *side = arg;

    side->over = true;
    side->err = err;
    snprintf(side->why, sizeof(side->why), "%s", why);
    side->h = NULL;
}

const struct h2_events h2_side_events = { on_settings, on_request, on_drain, on_pong, on_closed };

static void side_open(struct h2_rig *r, struct h2_side *side, bool server)
{
    struct h2_options opt = { .loop = r->rig.loop,
                              .wheel = &r->rig.wheel,
                              .server = server,
                              .fd = side->fd,
                              .events = &h2_side_events,
                              .arg = side };

    assert_int_equal(h2_open(&opt, &side->h), 0);
}

static void pair(struct h2_rig *r)
{
    int fds[2];

    memset(r, 0, sizeof(*r));
    rig_init(&r->rig);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    r->client.fd = fds[0];
    r->server.fd = fds[1];
    r->server.answer.status = 200;
}

static bool is_ready(void *arg)
{
    struct h2_rig *r = arg;

    return r->client.settings && r->server.settings && r->client.pongs > 0 && r->server.pongs > 0;
}

void h2_rig_init(struct h2_rig *r)
{
    pair(r);
    side_open(r, &r->client, false);
    side_open(r, &r->server, true);
    rig_until(&r->rig, is_ready, r);
}

void h2_rig_init_raw(struct h2_rig *r, bool server)
{
    pair(r);
    side_open(r, server ? &r->server : &r->client, server);
}

void h2_rig_fini(struct h2_rig *r)
{
    h2_close(r->client.h);
    h2_close(r->server.h);
    close(r->client.fd);
    close(r->server.fd);
    rig_fini(&r->rig);
}

struct stream_side *h2_ask(struct h2_rig *r, const char *authority, const char *protocol, const char *path)
{
    struct stream_side *s = &r->client.streams[r->client.n++ % SIDE_STREAMS];
    struct h2_head head = { .method = "CONNECT",
                            .authority = authority,
                            .protocol = protocol,
                            .scheme = protocol ? "https" : NULL,
                            .path = path };

    *s = (struct stream_side){ .side = &r->client };
    assert_int_equal(h2_request(r->client.h, &head, &h2_stream_log, s, &s->s), 0);
    return s;
}

size_t h2_put(struct stream_side *s, const void *data, size_t len)
{
    struct iovec iov = { (void *)(uintptr_t)data, len };
    ssize_t n = h2_sendv(s->s, &iov, 1);

    assert_true(n > 0 || n == -EAGAIN);
    return n > 0 ? (size_t)n : 0;
}

bool h2_answered(void *arg)
{
    return ((struct stream_side *)arg)->status != 0 || ((struct stream_side *)arg)->closed;
}

bool h2_was_closed(void *arg)
{
    return ((struct stream_side *)arg)->closed;
}

bool h2_has_ended(void *arg)
{
    return ((struct stream_side *)arg)->ended;
}

bool h2_side_over(void *arg)
{
    return ((struct h2_side *)arg)->over;
}
