/* test_upstream_secure.c - streams inside TLS against a server of our own in the same loop: data, ends, time-outs, openings that
 * are given up (faults.md section 7). */
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tls_pair.h"
#include "up_rig.h"

#include <cmocka.h>

enum after { ECHO, SAY_AND_CLOSE, SAY_AND_CUT, SAY_AND_RESET, ANSWER_AFTER_END };
enum { DATA = 200000, CONNS = 16 };

struct conn {
    struct loop_io io;
    struct server *server;
    struct tls *tls;
    struct wheel_timer timer;
    size_t got, sent; /* since the handshake */
    uint8_t held[65536];
    size_t held_len;
    bool active, end_seen;
    uint64_t end_us;
};

struct server {
    struct up_rig *rig;
    struct loop_io listener;
    struct tls_worker *worker;
    struct tls_context *context;
    struct conn conns[CONNS];
    enum after after;
    bool mute; /* says nothing, not even hello */
    uint16_t port;
    unsigned accepted;
};

static uint8_t pattern(size_t i)
{
    return (uint8_t)(i * 7 + i / 251);
}

/* ---- the server: TLS, then SOCKS5 without login, then `after` ---- */

static ssize_t sock_recv(void *arg, void *to, size_t len)
{
    ssize_t n = recv(loop_io_fd(&((struct conn *)arg)->io), to, len, 0);

    return n < 0 ? -errno : n;
}

static ssize_t sock_send(void *arg, const void *data, size_t len)
{
    ssize_t n = send(loop_io_fd(&((struct conn *)arg)->io), data, len, MSG_NOSIGNAL);

    return n < 0 ? -errno : n;
}

static const struct tls_io sock_io = { sock_recv, sock_send, NULL };

static void conn_end(struct conn *c, bool reset)
{
    struct linger now = { .l_onoff = 1, .l_linger = 0 };
    int fd = loop_io_fd(&c->io);

    if (!c->active)
        return;
    c->active = false;
    wheel_cancel(&c->server->rig->wheel, &c->timer);
    tls_free(c->tls);
    if (reset)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    loop_io_stop(c->server->rig->loop, &c->io);
    close(fd);
}

static bool put(struct conn *c, const void *data, size_t len)
{
    struct iovec one = { (void *)(uintptr_t)data, len };

    return tls_sendv(c->tls, &one, 1) == (ssize_t)len;
}

static void say_all(struct conn *c)
{
    static uint8_t data[DATA];

    for (size_t i = 0; i < DATA; i++)
        data[i] = pattern(i);
    while (c->sent < DATA) {
        struct iovec rest = { data + c->sent, DATA - c->sent };
        ssize_t n = tls_sendv(c->tls, &rest, 1);

        if (n <= 0)
            break;
        c->sent += (size_t)n;
    }
    if (c->sent < DATA || tls_flush(c->tls) != 0) {
        loop_io_set(c->server->rig->loop, &c->io, LOOP_READ | LOOP_WRITE);
        return;
    }
    if (c->server->after != SAY_AND_CUT && c->server->after != SAY_AND_RESET)
        tls_shutdown(c->tls);
    conn_end(c, c->server->after == SAY_AND_RESET);
}

static void on_bytes(struct conn *c)
{
    size_t need = c->got == 0 ? 3 : 10;

    if (c->got < 13) {
        if (c->held_len < need)
            return;
        if (!put(c, c->got == 0 ? "\5\0" : "\5\0\0\1\0\0\0\0\0\0", c->got == 0 ? 2 : 10)) {
            conn_end(c,
                     false); /* the client has given up; with TLS 1.3 it has spoken before we are through */
            return;
        }
        c->got += need;
        c->held_len = 0;
    } else if (c->server->after == ECHO) {
        assert_true(put(c, c->held, c->held_len));
        c->held_len = 0;
    }
    if (c->got == 13 && c->server->after != ECHO && c->server->after != ANSWER_AFTER_END)
        say_all(c);
}

static void conn_go(struct conn *c)
{
    static uint64_t turn;
    enum tls_step step;

    while ((step = tls_handshake(c->tls, ++turn)) == TLS_LATER)
        ;
    if (step == TLS_BROKEN) {
        conn_end(c, false);
        return;
    }
    while (step == TLS_DONE && c->active) {
        ssize_t n = tls_recv(c->tls, c->held + c->held_len, c->got < 13 ? 1 : sizeof(c->held) - c->held_len);

        if (n == -EAGAIN)
            break;
        if (n == 0 && c->server->after == ANSWER_AFTER_END && !c->end_seen) {
            c->end_seen = true;
            c->end_us = clock_now_us();
            assert_true(put(c, "answer", 6));
            tls_shutdown(c->tls);
        }
        if (n <= 0) {
            conn_end(c, false);
            return;
        }
        c->held_len += (size_t)n;
        on_bytes(c);
    }
    if (c->active && c->sent > 0 && c->sent < DATA)
        say_all(c);
}

static void on_conn(struct loop_io *io, unsigned events)
{
    (void)events;
    conn_go(CONTAINER_OF(io, struct conn, io));
}

static void on_listener(struct loop_io *io, unsigned events)
{
    struct server *s = CONTAINER_OF(io, struct server, listener);
    int fd = accept4(loop_io_fd(io), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct conn *c = &s->conns[s->accepted++ % CONNS];

    (void)events;
    assert_false(c->active);
    memset(c, 0, sizeof(*c));
    c->server = s;
    c->active = true;
    assert_int_equal(tls_open(s->context, &sock_io, c, &c->tls), 0);
    loop_io_start(s->rig->loop, &c->io, fd, s->mute ? 0 : LOOP_READ, on_conn);
}

static void server_open(struct server *s, struct up_rig *rig, enum after after)
{
    struct tls_options opt = { .server = true,
                               .resume = true,
                               .certificate = pki_server()->certificate,
                               .private_key = pki_server()->key };
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof(at);
    struct tls_settings *settings;
    struct err err;

    memset(s, 0, sizeof(*s));
    s->rig = rig;
    s->after = after;
    assert_int_equal(tls_worker_new(&s->worker), 0);
    assert_int_equal(tls_settings_new(&opt, &settings, &err), 0);
    assert_int_equal(tls_context_new(s->worker, settings, NULL, &s->context), 0);
    tls_settings_unref(settings);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    s->port = ntohs(at.sin_port);
    loop_io_start(rig->loop, &s->listener, fd, LOOP_READ, on_listener);
}

static void server_close(struct server *s)
{
    int fd = loop_io_fd(&s->listener);

    for (size_t i = 0; i < CONNS; i++)
        conn_end(&s->conns[i], false);
    loop_io_stop(s->rig->loop, &s->listener);
    close(fd);
    tls_context_free(s->context);
    tls_worker_free(s->worker);
}

static struct upstream *sealed(uint16_t port, unsigned half_close_delay_ms)
{
    struct tls_options opt = { .ca = tls_test_ca(pki_authority()), .resume = true };
    struct upstream_options o = {
        .name = "office", .kind = UPSTREAM_SOCKS5, .secure = true, .half_close_delay_ms = half_close_delay_ms
    };
    struct upstream *up;
    struct err err;

    o.server = rig_to("127.0.0.1", port);
    assert_int_equal(tls_settings_new(&opt, &o.tls, &err), 0);
    assert_int_equal(upstream_new(&o, &up), 0);
    tls_settings_unref(o.tls);
    tls_ca_unref(opt.ca);
    return up;
}

/* ---- */

static void data_arrives_whole_and_each_end_is_what_it_was(void **state) /* faults.md L11, S16, S17, G8 */
{
    static const struct {
        enum after after;
        bool broke;
        unsigned truncated;
    } rows[] = { { SAY_AND_CLOSE, false, 0 }, { SAY_AND_CUT, true, 1 } };
    struct up_rig *rig = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        static struct server server;
        uint64_t truncated = up_counters(rig->env)->tls_truncated;
        struct host_port to = rig_to("192.0.2.1", 80);
        struct stream_log log = { .read_on_open = true };
        struct upstream *up;

        server_open(&server, rig, rows[i].after);
        up = sealed(server.port, 0);
        stream_start(rig, &log, up, &to, 5000);
        rig_until(rig, stream_is_over, &log);
        assert_true(log.opened);
        assert_int_equal(log.in_len, DATA);
        for (size_t k = 0; k < DATA; k++)
            assert_int_equal((uint8_t)log.in[k], pattern(k));
        assert_int_equal(log.broke || log.closed, rows[i].broke);
        assert_int_equal(log.eof, !rows[i].broke);
        assert_int_equal(up_counters(rig->env)->tls_truncated - truncated, rows[i].truncated);
        stream_forget(&log);
        server_close(&server);
        upstream_unref(up);
    }
}

static bool echoed(void *arg)
{
    return ((struct stream_log *)arg)->in_len >= 60000;
}

static void what_is_sent_comes_back(void **state)
{
    struct up_rig *rig = *state;
    struct host_port to = rig_to("192.0.2.1", 80);
    struct stream_log log = { .read_on_open = true };
    static struct server server;
    struct upstream *up;
    char data[60000];

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (char)pattern(i);
    server_open(&server, rig, ECHO);
    up = sealed(server.port, 0);
    stream_settle(rig, &log, up, &to, 5000);
    assert_true(log.opened);
    up_stream_want(log.s, LOOP_READ);
    stream_send(&log, data, sizeof(data));
    rig_until(rig, echoed, &log);
    assert_memory_equal(log.in, data, sizeof(data));
    stream_forget(&log);
    server_close(&server);
    upstream_unref(up);
}

static void our_end_is_held_until_the_reply_was_silent(void **state) /* faults.md L12 */
{
    struct up_rig *rig = *state;
    struct host_port to = rig_to("192.0.2.1", 80);
    struct stream_log log = { .read_on_open = true };
    static struct server server;
    struct upstream *up;
    uint64_t shut_us;

    server_open(&server, rig, ANSWER_AFTER_END);
    up = sealed(server.port, 80);
    stream_settle(rig, &log, up, &to, 5000);
    up_stream_want(log.s, LOOP_READ);
    shut_us = clock_now_us();
    up_stream_shutdown(log.s);
    rig_until(rig, stream_is_over, &log);
    assert_true(log.eof);
    assert_int_equal(log.in_len, 6);
    assert_memory_equal(log.in, "answer", 6);
    assert_true(server.conns[0].end_us - shut_us >= 75000);
    stream_forget(&log);
    server_close(&server);
    upstream_unref(up);
}

static void a_silent_server_meets_the_deadline_and_is_blamed(void **state) /* faults.md L6, S2 */
{
    struct up_rig *rig = *state;
    struct host_port to = rig_to("192.0.2.1", 80);
    struct stream_log log;
    static struct server server;
    struct upstream *up;

    server_open(&server, rig, ECHO);
    server.mute = true;
    up = sealed(server.port, 0);
    stream_settle(rig, &log, up, &to, 60);
    assert_true(log.closed && log.why.proxy_fault);
    assert_int_equal(log.why.err, -EHOSTUNREACH);
    assert_string_equal(log.why.stage, "tls");
    assert_int_equal(up_counters(rig->env)->tls_timeout, 1);
    server_close(&server);
    upstream_unref(up);
}

static void an_opening_inside_tls_may_be_given_up_at_any_moment(void **state) /* faults.md G4 */
{
    struct up_rig *rig = *state;
    struct host_port to = rig_to("192.0.2.1", 80);
    static struct server server;
    struct upstream *up;

    server_open(&server, rig, ECHO);
    up = sealed(server.port, 0);
    for (unsigned ms = 0; ms < 14; ms++) {
        struct stream_log log;

        stream_start(rig, &log, up, &to, 2000);
        rig_run_ms(rig, ms);
        if (ms % 2 || log.closed)
            stream_forget(&log);
        else
            up_stream_reset(log.s);
        rig_run_ms(rig, 2);
    }
    server_close(&server);
    upstream_unref(up);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, up_rig_setup, up_rig_teardown)
    static const struct CMUnitTest tests[] = {
        TEST(data_arrives_whole_and_each_end_is_what_it_was),
        TEST(what_is_sent_comes_back),
        TEST(our_end_is_held_until_the_reply_was_silent),
        TEST(a_silent_server_meets_the_deadline_and_is_blamed),
        TEST(an_opening_inside_tls_may_be_given_up_at_any_moment),
    };
    return run_unless(netns_enter(), tests);
}
