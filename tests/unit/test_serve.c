/* test_serve.c - our SOCKS5 client against our SOCKS5 server, in one loop over loopback: streams. */
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "serve_lab.h"

#define BYTES(s) s, sizeof(s) - 1

static const struct serve_user users[] = { { "alice", "sesame" }, { "bob", "builder" } };

static void a_stream_goes_through_by_address_and_by_name(void **state)
{
    static const char *const hosts[] = { "127.0.0.1", "target.test" };
    static const struct plan_step steps[] = { { 4, BYTES("pong"), false } };
    struct plan plan = { steps, 1, PLAN_CLOSE, 0 };
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct rig_name *name = rig_name(&lab->rig, "target.test", RIG_LATER);
    struct plan_server target;
    struct stream_log log;

    name->addrs[name->n++] = rig_addr("::1"); /* nobody there: the next one at once */
    name->addrs[name->n++] = rig_addr("127.0.0.1");
    serve_lab_open(lab, &o);
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
        struct host_port to;

        plan_open(&target, &lab->rig, &plan);
        to = rig_to(hosts[i], target.port);
        stream_settle(&lab->rig, &log, lab->up, &to, 2000);
        assert_true(log.opened);
        stream_send(&log, "ping", 4);
        rig_until(&lab->rig, stream_is_over, &log);
        assert_true(log.eof);
        assert_int_equal(log.in_len, 4);
        assert_memory_equal(log.in, "pong", 4);
        stream_forget(&log);
        plan_close(&target);
    }
    assert_int_equal(serve_counters(lab->serve)->streams, 2);
}

static void a_server_on_ipv6_serves(void **state)
{
    struct plan plan = { NULL, 0, PLAN_HANG, 0 };
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("::1");
    struct plan_server target;
    struct stream_log log;
    struct host_port to;

    serve_lab_open(lab, &o);
    plan_open(&target, &lab->rig, &plan);
    to = rig_to("127.0.0.1", target.port);
    stream_settle(&lab->rig, &log, lab->up, &to, 2000);
    assert_true(log.opened);
    stream_forget(&log);
    plan_close(&target);
}

static void a_login_opens_or_does_not(void **state)
{
    static const struct {
        const char *username, *password;
        bool opens;
        const char *says;
    } rows[] = {
        { "alice", "sesame", true, "" },
        { "bob", "builder", true, "" },
        { "alice", "builder", false, "check username and password" },
        { "carol", "sesame", false, "check username and password" },
        { NULL, NULL, false, "set username and password" },
    };
    struct plan plan = { NULL, 0, PLAN_HANG, 0 };
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct plan_server target;

    o.users = users;
    o.user_count = ARRAY_LEN(users);
    serve_lab_open(lab, &o);
    plan_open(&target, &lab->rig, &plan);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct upstream *up = rig_socks(serve_port(lab->serve), rows[i].username, rows[i].password);
        struct host_port to = rig_to("127.0.0.1", target.port);
        struct stream_log log;

        stream_settle(&lab->rig, &log, up, &to, 2000);
        assert_int_equal(log.opened, rows[i].opens);
        assert_non_null(strstr(log.why.text, rows[i].says));
        stream_forget(&log);
        upstream_unref(up);
    }
    assert_int_equal(serve_counters(lab->serve)->login_failed, 2);
    plan_close(&target);
}

static void a_failed_dial_is_told_as_it_was(void **state) /* RFC 1928 section 6 */
{
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct stream_log log;
    struct host_port to;
    struct silence silent;
    uint16_t port;
    int fd = closed_port(&port);

    assert_int_equal(ip_prefix_parse("127.0.0.0/8", &o.allow[o.allows++]), 0);
    assert_int_equal(ip_prefix_parse("198.18.0.0/16", &o.allow[o.allows++]), 0);
    assert_int_equal(ip_prefix_parse("2001:db8::/32", &o.allow[o.allows++]), 0);
    o.connect_timeout_ms = 100;
    serve_lab_open(lab, &o);

    to = rig_to("127.0.0.1", port);
    stream_settle(&lab->rig, &log, lab->up, &to, 2000);
    assert_int_equal(log.why.err, -ECONNREFUSED);

    to = rig_to("192.0.2.1", port); /* not among the allowed */
    stream_settle(&lab->rig, &log, lab->up, &to, 2000);
    assert_int_equal(log.why.err, -EACCES);

    to = rig_to("198.18.0.1", port); /* this namespace has no route but loopback */
    stream_settle(&lab->rig, &log, lab->up, &to, 2000);
    assert_int_equal(log.why.err, -ENETUNREACH);

    to = rig_to("missing.test", port);
    stream_settle(&lab->rig, &log, lab->up, &to, 2000);
    assert_int_equal(log.why.err, -EHOSTUNREACH);

    silence_open(&silent, "127.0.0.9", port);
    to = rig_to("127.0.0.9", port);
    stream_settle(&lab->rig, &log, lab->up, &to, 2000);
    assert_int_equal(log.why.err, -ETIMEDOUT);
    silence_close(&silent);
    close(fd);
}

/* A target that answers only after the client has ended its direction. */
struct late_target {
    struct up_rig *rig;
    struct loop_io listener, io;
    uint16_t port;
    bool has_io;
    size_t got;
    bool eof;
};

static void on_late_conn(struct loop_io *io, unsigned events)
{
    struct late_target *t = CONTAINER_OF(io, struct late_target, io);
    char in[256];
    ssize_t n = recv(loop_io_fd(io), in, sizeof(in), 0);

    (void)events;
    if (n > 0) {
        t->got += (size_t)n;
        return;
    }
    t->eof = n == 0;
    assert_int_equal(send(loop_io_fd(io), "after your end", 14, MSG_NOSIGNAL), 14);
    shutdown(loop_io_fd(io), SHUT_WR);
    loop_io_set(t->rig->loop, io, 0);
}

static void on_late_listener(struct loop_io *io, unsigned events)
{
    struct late_target *t = CONTAINER_OF(io, struct late_target, listener);
    int fd = accept4(loop_io_fd(io), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)events;
    t->has_io = true;
    loop_io_start(t->rig->loop, &t->io, fd, LOOP_READ, on_late_conn);
}

static void late_open(struct late_target *t, struct up_rig *rig)
{
    int fd;

    *t = (struct late_target){ .rig = rig };
    fd = closed_port(&t->port);
    assert_int_equal(listen(fd, 4), 0);
    loop_io_start(rig->loop, &t->listener, fd, LOOP_READ, on_late_listener);
}

static void late_close(struct late_target *t)
{
    int fd = loop_io_fd(&t->listener);

    loop_io_stop(t->rig->loop, &t->listener);
    close(fd);
    if (t->has_io) {
        fd = loop_io_fd(&t->io);
        loop_io_stop(t->rig->loop, &t->io);
        close(fd);
    }
}

static void a_half_close_is_kept(void **state) /* faults.md T13 */
{
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct late_target target;
    struct stream_log log;
    struct host_port to;

    serve_lab_open(lab, &o);
    late_open(&target, &lab->rig);
    to = rig_to("127.0.0.1", target.port);
    stream_settle(&lab->rig, &log, lab->up, &to, 2000);
    stream_send(&log, "question", 8);
    up_stream_shutdown(log.s);
    rig_until(&lab->rig, stream_is_over, &log);
    assert_true(log.eof && target.eof);
    assert_int_equal(target.got, 8);
    assert_int_equal(log.in_len, 14);
    assert_memory_equal(log.in, "after your end", 14);
    stream_forget(&log);
    late_close(&target);
}

static void a_reset_of_the_target_comes_after_its_bytes(void **state) /* faults.md S17, G8 */
{
    static const struct plan_step steps[] = { { 1, BYTES("last words"), false } };
    struct plan plan = { steps, 1, PLAN_RESET, 0 };
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct plan_server target;
    struct stream_log log;
    struct host_port to;

    serve_lab_open(lab, &o);
    plan_open(&target, &lab->rig, &plan);
    to = rig_to("127.0.0.1", target.port);
    stream_settle(&lab->rig, &log, lab->up, &to, 2000);
    stream_send(&log, "x", 1);
    rig_until(&lab->rig, stream_is_over, &log);
    assert_true(log.broke && !log.eof);
    assert_int_equal(log.in_len, 10);
    stream_forget(&log);
    plan_close(&target);
}

static bool target_saw_reset(void *arg)
{
    struct plan_server *p = arg;

    return p->accepted > 0 && p->closed > 0;
}

static void a_reset_of_the_client_reaches_the_target(void **state) /* faults.md T14 */
{
    struct plan plan = { NULL, 0, PLAN_HANG, 0 };
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct plan_server target;
    struct stream_log log;
    struct host_port to;

    serve_lab_open(lab, &o);
    plan_open(&target, &lab->rig, &plan);
    to = rig_to("127.0.0.1", target.port);
    stream_settle(&lab->rig, &log, lab->up, &to, 2000);
    up_stream_reset(log.s);
    log.s = NULL;
    rig_until(&lab->rig, target_saw_reset, &target);
    assert_true(target.saw_reset);
    stream_forget(&log);
    plan_close(&target);
}

static void a_client_that_goes_away_while_we_dial_ends_the_dial(void **state)
{
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    uint64_t failed;
    struct silence silent;
    struct stream_log log;
    struct host_port to;
    uint16_t port;
    int fd = closed_port(&port);

    rig_name(&lab->rig, "slow.test", RIG_NEVER);
    silence_open(&silent, "127.0.0.9", port);
    serve_lab_open(lab, &o);
    to = rig_to("slow.test", port);
    stream_start(&lab->rig, &log, lab->up, &to, 2000);
    while (lab->rig.asked == 0)
        rig_run_ms(&lab->rig, 1);
    failed = lab->rig.cancelled;
    stream_forget(&log);
    while (lab->rig.cancelled == failed)
        rig_run_ms(&lab->rig, 1);
    silence_close(&silent);
    close(fd);
}

/* ---- a lot of bytes ---- */

/* A target that sends and hashes; both ends of a transfer use it. */
enum { BIG = 24 * 1024 * 1024, PIECE = 64 * 1024 };

static uint8_t pattern(uint64_t at)
{
    return (uint8_t)((at * 2654435761u) >> 13);
}

struct bulk {
    struct up_rig *rig;
    struct loop_io listener, io;
    uint16_t port;
    uint64_t sent, received;
    uint64_t pause_at; /* stop reading here until told */
    bool wrong, eof, has_io, shut;
};

static void bulk_on_io(struct loop_io *io, unsigned events)
{
    static uint8_t data[PIECE];
    struct bulk *b = CONTAINER_OF(io, struct bulk, io);
    int fd = loop_io_fd(io);

    if ((events & LOOP_READ) != 0 && !b->eof) {
        ssize_t n = recv(fd, data, sizeof(data), 0);

        for (ssize_t i = 0; i < n; i++)
            b->wrong |= data[i] != pattern(b->received + (uint64_t)i);
        b->received += n > 0 ? (uint64_t)n : 0;
        b->eof = n == 0;
    }
    if ((events & LOOP_WRITE) != 0 && b->sent < BIG) {
        size_t len = BIG - b->sent < PIECE ? BIG - b->sent : PIECE;
        ssize_t n;

        for (size_t i = 0; i < len; i++)
            data[i] = pattern(b->sent + i);
        n = send(fd, data, len, MSG_NOSIGNAL);
        b->sent += n > 0 ? (uint64_t)n : 0;
    }
    if (b->sent == BIG && !b->shut) {
        b->shut = true;
        shutdown(fd, SHUT_WR);
    }
    loop_io_set(b->rig->loop, io,
                (b->eof || b->received >= b->pause_at ? 0u : LOOP_READ) | (b->sent < BIG ? LOOP_WRITE : 0u));
}

static void bulk_on_listener(struct loop_io *io, unsigned events)
{
    struct bulk *b = CONTAINER_OF(io, struct bulk, listener);

    (void)events;
    b->has_io = true;
    loop_io_start(b->rig->loop, &b->io, accept4(loop_io_fd(io), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC),
                  LOOP_READ | LOOP_WRITE, bulk_on_io);
}

struct bulk_client {
    struct up_stream *s;
    uint64_t sent, received, pause_at;
    bool wrong, eof, broke;
};

static void client_want(struct bulk_client *c)
{
    up_stream_want(c->s, (c->eof || c->received >= c->pause_at ? 0u : LOOP_READ) |
                             (c->sent < BIG ? LOOP_WRITE : 0u));
}

static void client_on_open(void *arg)
{
    client_want(arg);
}

static void client_on_readable(void *arg)
{
    static uint8_t data[PIECE];
    struct bulk_client *c = arg;
    ssize_t n = up_stream_recv(c->s, data, sizeof(data));

    for (ssize_t i = 0; i < n; i++)
        c->wrong |= data[i] != pattern(c->received + (uint64_t)i);
    c->received += n > 0 ? (uint64_t)n : 0;
    c->eof = n == 0;
    c->broke |= n < 0 && n != -EAGAIN;
    client_want(c);
}

static void client_on_writable(void *arg)
{
    static uint8_t data[PIECE];
    struct bulk_client *c = arg;
    size_t len = BIG - c->sent < PIECE ? BIG - c->sent : PIECE;
    struct iovec iov = { data, len };
    ssize_t n;

    for (size_t i = 0; i < len; i++)
        data[i] = pattern(c->sent + i);
    n = up_stream_sendv(c->s, &iov, 1);
    c->sent += n > 0 ? (uint64_t)n : 0;
    if (c->sent == BIG)
        up_stream_shutdown(c->s);
    client_want(c);
}

static bool client_is_done(void *arg)
{
    struct bulk_client *c = arg;

    return c->broke || (c->eof && c->sent == BIG);
}

static bool bulk_is_done(void *arg)
{
    struct bulk *b = arg;

    return b->eof && b->sent == BIG;
}

static void many_bytes_go_both_ways_exactly_past_stalled_readers(void **state) /* faults.md T10, S14 */
{
    static const struct up_stream_events events = { client_on_open, client_on_readable, client_on_writable,
                                                    NULL };
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct bulk target = { .rig = &lab->rig, .pause_at = BIG / 3 };
    struct bulk_client client = { .pause_at = BIG / 2 };
    struct host_port to;
    int fd = closed_port(&target.port);

    serve_lab_open(lab, &o);
    assert_int_equal(listen(fd, 4), 0);
    loop_io_start(lab->rig.loop, &target.listener, fd, LOOP_READ, bulk_on_listener);
    to = rig_to("127.0.0.1", target.port);
    assert_int_equal(up_stream_open(lab->rig.env, lab->up, &to, 2000000, &events, &client, &client.s), 0);
    while (client.received < client.pause_at || target.received < target.pause_at)
        rig_run_ms(&lab->rig, 5);
    rig_run_ms(&lab->rig, 20); /* both readers stand: what is under way is bounded by the sockets' buffers */
    assert_true(client.sent < BIG && target.sent < BIG);
    client.pause_at = target.pause_at = UINT64_MAX;
    client_want(&client);
    loop_io_set(lab->rig.loop, &target.io, LOOP_READ | (target.sent < BIG ? LOOP_WRITE : 0u));
    rig_until(&lab->rig, client_is_done, &client);
    rig_until(&lab->rig, bulk_is_done, &target);
    assert_false(client.wrong || target.wrong || client.broke);
    assert_int_equal(client.received, BIG);
    assert_int_equal(target.received, BIG);
    assert_int_equal(serve_counters(lab->serve)->bytes_up, BIG);
    assert_int_equal(serve_counters(lab->serve)->bytes_down, BIG);
    up_stream_close(client.s);
    loop_io_stop(lab->rig.loop, &target.listener);
    close(fd);
    fd = loop_io_fd(&target.io);
    loop_io_stop(lab->rig.loop, &target.io);
    close(fd);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, serve_lab_setup, serve_lab_teardown)
    static const struct CMUnitTest tests[] = {
        TEST(a_stream_goes_through_by_address_and_by_name),
        TEST(a_server_on_ipv6_serves),
        TEST(a_login_opens_or_does_not),
        TEST(a_failed_dial_is_told_as_it_was),
        TEST(a_half_close_is_kept),
        TEST(a_reset_of_the_target_comes_after_its_bytes),
        TEST(a_reset_of_the_client_reaches_the_target),
        TEST(a_client_that_goes_away_while_we_dial_ends_the_dial),
        TEST(many_bytes_go_both_ways_exactly_past_stalled_readers),
    };

    return run_unless(netns_enter(), tests);
}
