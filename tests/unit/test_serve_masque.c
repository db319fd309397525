/* test_serve_masque.c - the MASQUE server in one loop with its client, TLS and HTTP/2 between them, and real sockets behind it. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "culvert/serve.h"
#include "h2_rig.h"
#include "serve/ledger.h"
#include "tls_pair.h"

static const char *why_skipped;

/* ---- the server, and a client inside TLS ---- */

struct lab {
    struct h2_rig h2; /* its client's side only */
    struct masque *masque;
    struct serve_ledger *ledger;
    struct echo_proxy *echo;
    struct tls_settings *server_tls;
    struct tls_worker *worker;
    struct tls_context *context;
    struct tls *tls;
    struct loop_io io;
    int fd;
    bool open;
};

static const char *const alpn[] = { "h2" };

static struct tls_settings *server_settings(void)
{
    struct tls_options o = { .server = true,
                             .resume = true,
                             .certificate = pki_server()->certificate,
                             .private_key = pki_server()->key,
                             .alpn = alpn,
                             .alpns = 1 };
    struct tls_settings *s;
    struct err err;

    assert_int_equal(tls_settings_new(&o, &s, &err), 0);
    return s;
}

static struct masque_options options(void)
{
    struct masque_options o = { .echo = true, .connect_timeout_ms = 2000, .max_streams = 64 };

    o.listen.addr = rig_addr("127.0.0.1");
    assert_int_equal(ip_prefix_parse("127.0.0.0/8", &o.allow[0]), 0);
    assert_int_equal(ip_prefix_parse("192.0.2.0/28", &o.allow[1]), 0);
    assert_int_equal(ip_prefix_parse("2001:db8::/64", &o.allow[2]), 0);
    o.allows = 3;
    return o;
}

static void open_echo(struct lab *lab)
{
    struct ip_addr exit4 = rig_addr("198.51.100.1"), exit6 = rig_addr("2001:db8:f::1");
    struct echo_proxy_options o;

    echo_proxy_options_defaults(&o);
    o.loop = lab->h2.rig.loop;
    o.wheel = &lab->h2.rig.wheel;
    o.on_answer = masque_on_echo_answer;
    o.arg = lab->masque;
    o.quiet = true;
    assert_int_equal(echo_proxy_new(&o, &lab->echo), 0);
    masque_attach_echo(lab->masque, lab->echo, &exit4, &exit6);
}

static void lab_serve(struct lab *lab, const struct masque_options *opt)
{
    struct masque_options o = *opt;
    struct err err = { "" };

    lab->server_tls = server_settings();
    o.tls = lab->server_tls;
    if (masque_open(&o, lab->h2.rig.env, &lab->masque, &err) != 0)
        fail_msg("%s", err.text);
    open_echo(lab);
}

static ssize_t io_recv(void *arg, void *to, size_t len)
{
    ssize_t n = recv(((struct lab *)arg)->fd, to, len, 0);

    return n >= 0 ? n : -errno;
}

static ssize_t io_send(void *arg, const void *data, size_t len)
{
    ssize_t n = send(((struct lab *)arg)->fd, data, len, MSG_NOSIGNAL);

    return n >= 0 ? n : -errno;
}

static void io_wake(void *arg)
{
    (void)arg;
}

static void step(struct lab *lab)
{
    switch (tls_handshake(lab->tls, clock_now_us())) { /* each call is a turn of its own */
    case TLS_DONE:
        loop_io_stop(lab->h2.rig.loop, &lab->io);
        lab->open = true;
        return;
    case TLS_WANT_READ:
        loop_io_set(lab->h2.rig.loop, &lab->io, LOOP_READ);
        return;
    case TLS_WANT_WRITE:
    case TLS_LATER:
    case TLS_QUEUED:
        loop_io_set(lab->h2.rig.loop, &lab->io, LOOP_WRITE);
        return;
    case TLS_BROKEN:
        fail_msg("TLS: the server %s", tls_why(lab->tls));
    }
}

static void on_io(struct loop_io *io, unsigned events)
{
    (void)events;
    step(CONTAINER_OF(io, struct lab, io));
}

static bool is_open(void *arg)
{
    return ((struct lab *)arg)->open;
}

static bool has_settings(void *arg)
{
    return ((struct lab *)arg)->h2.client.settings;
}

static void lab_connect(struct lab *lab)
{
    static const struct tls_io tls_io = { io_recv, io_send, io_wake };
    struct sockaddr_storage ss;
    struct ip_port at = { rig_addr("127.0.0.1"), masque_port(lab->masque) };
    socklen_t len = ip_to_sockaddr(&at, &ss);
    struct h2_options o = { .loop = lab->h2.rig.loop,
                            .wheel = &lab->h2.rig.wheel,
                            .events = &h2_side_events };

    lab->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(lab->fd, (struct sockaddr *)&ss, len), 0);
    assert_int_equal(fcntl(lab->fd, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(tls_open(lab->context, &tls_io, lab, &lab->tls), 0);
    lab->open = false;
    loop_io_start(lab->h2.rig.loop, &lab->io, lab->fd, LOOP_WRITE, on_io);
    rig_until(&lab->h2.rig, is_open, lab);
    assert_string_equal(tls_alpn(lab->tls), "h2");
    memset(&lab->h2.client, 0, sizeof(lab->h2.client));
    o.fd = lab->h2.client.fd = lab->fd;
    o.tls = lab->tls;
    o.arg = &lab->h2.client;
    assert_int_equal(h2_open(&o, &lab->h2.client.h), 0);
    rig_until(&lab->h2.rig, has_settings, lab);
}

static void lab_leave(struct lab *lab)
{
    if (lab->fd <= 0)
        return;
    h2_close(lab->h2.client.h);
    lab->h2.client.h = NULL;
    tls_free(lab->tls);
    close(lab->fd);
    lab->fd = -1;
}

static int setup(void **state)
{
    struct lab *lab = calloc(1, sizeof(*lab));
    struct tls_options o = { .ca = tls_test_ca(pki_authority()), .resume = true, .alpn = alpn, .alpns = 1 };
    struct tls_settings *s;
    struct err err;

    rig_init(&lab->h2.rig);
    assert_int_equal(tls_worker_new(&lab->worker), 0);
    assert_int_equal(tls_settings_new(&o, &s, &err), 0);
    assert_int_equal(tls_context_new(lab->worker, s, "localhost", &lab->context), 0);
    tls_settings_unref(s);
    tls_ca_unref(o.ca);
    *state = lab;
    return 0;
}

static int teardown(void **state)
{
    struct lab *lab = *state;

    lab_leave(lab);
    masque_close(lab->masque);
    echo_proxy_free(lab->echo);
    serve_ledger_free(lab->ledger);
    tls_settings_unref(lab->server_tls);
    tls_context_free(lab->context);
    tls_worker_free(lab->worker);
    rig_fini(&lab->h2.rig);
    free(lab);
    return 0;
}

static void lab_start(struct lab *lab)
{
    struct masque_options o = options();

    lab_serve(lab, &o);
    lab_connect(lab);
}

static struct stream_side *ask(struct lab *lab, const char *host, uint16_t port)
{
    char authority[64];
    struct stream_side *s;

    snprintf(authority, sizeof(authority), "%s:%u", host, port);
    s = h2_ask(&lab->h2, authority, NULL, NULL);
    rig_until(&lab->h2.rig, h2_answered, s);
    return s;
}

/* ---- TCP ---- */

static bool got_four(void *arg)
{
    return ((struct stream_side *)arg)->got >= 4;
}

static void a_stream_is_a_connection_and_half_closes_both_ways(void **state)
{
    static const struct plan_step steps[] = { { 4, "pong", 4, false } };
    struct plan plan = { steps, 1, PLAN_CLOSE, 0 };
    struct lab *lab = *state;
    struct plan_server target;
    struct stream_side *s;

    lab_start(lab);
    plan_open(&target, &lab->h2.rig, &plan);
    s = ask(lab, "127.0.0.1", target.port);
    assert_int_equal(s->status, 200);
    assert_int_equal(h2_put(s, "ping", 4), 4);
    rig_until(&lab->h2.rig, h2_has_ended, s);
    assert_int_equal(s->got, 4);
    assert_memory_equal(s->in, "pong", 4);
    h2_stream_close(s->s, H2_NO_ERROR);
    plan_close(&target);
    plan.end = PLAN_HANG;
    plan_open(&target, &lab->h2.rig, &plan);
    s = ask(lab, "127.0.0.1", target.port);
    h2_shutdown(s->s);
    rig_until(&lab->h2.rig, plan_saw_close, &target);
    assert_false(target.saw_reset);
    assert_false(s->closed);
    h2_stream_close(s->s, H2_CANCEL);
    plan_close(&target);
    assert_int_equal(masque_counters(lab->masque)->streams, 2);
}

static void a_reset_is_a_reset_both_ways(void **state)
{
    static const struct plan_step steps[] = { { 4, "pong", 4, false } };
    struct plan plan = { steps, 1, PLAN_RESET, 0 }, hang = { NULL, 0, PLAN_HANG, 0 };
    struct lab *lab = *state;
    struct plan_server target, other;
    struct stream_side *s;

    lab_start(lab);
    plan_open(&target, &lab->h2.rig, &plan);
    s = ask(lab, "127.0.0.1", target.port);
    h2_put(s, "ping", 4);
    rig_until(&lab->h2.rig, h2_was_closed, s);
    assert_int_equal(s->code, H2_CONNECT_ERROR);
    plan_open(&other, &lab->h2.rig, &hang);
    s = ask(lab, "127.0.0.1", other.port);
    h2_stream_close(s->s, H2_CANCEL);
    rig_until(&lab->h2.rig, plan_saw_close, &other);
    assert_true(other.saw_reset);
    plan_close(&target);
    plan_close(&other);
}

static void a_target_that_floods_is_held_up_by_a_client_that_does_not_read(void **state)
{
    struct plan plan = { NULL, 0, PLAN_HANG, 64 << 20 };
    struct lab *lab = *state;
    struct plan_server target;
    struct stream_side *s;
    uint64_t moved;

    lab_start(lab);
    plan_open(&target, &lab->h2.rig, &plan);
    s = ask(lab, "127.0.0.1", target.port);
    s->hold = true;
    h2_want(s->s, 0);
    rig_run_ms(&lab->h2.rig, 300);
    moved = masque_counters(lab->masque)->bytes_down;
    assert_true(moved > 0 && moved < 4 << 20);
    s->hold = false;
    h2_want(s->s, LOOP_READ);
    rig_until(&lab->h2.rig, got_four, s);
    h2_stream_close(s->s, H2_CANCEL);
    plan_close(&target);
}

static void what_cannot_be_had_is_told_by_a_status(void **state)
{
    struct lab *lab = *state;
    struct rig_name *name;
    uint16_t closed;
    int fd = closed_port(&closed);
    const struct {
        const char *authority, *protocol, *path;
        unsigned status;
    } rows[] = {
        { "10.1.2.3:80", NULL, NULL, 403 },
        { "[::1]:80", NULL, NULL, 403 },
        { "169.254.169.254:80", NULL, NULL, 403 },
        { "[64:ff9b::7f00:1]:80", NULL, NULL, 403 },
        { "rebind.test:80", NULL, NULL, 403 },
        { "nowhere.test:80", NULL, NULL, 502 },
        { "127.0.0.1", NULL, NULL, 400 },
        { "127.1:80", NULL, NULL, 400 },
        { "proxy", "connect-udp", "/.well-known/masque/udp/10.1.2.3/53/", 403 },
        { "proxy", "connect-udp", "/.well-known/masque/udp/rebind.test/53/", 403 },
        { "proxy", "connect-udp", "/.well-known/masque/udp/nowhere.test/53/", 502 },
        { "proxy", "connect-udp", "/.well-known/masque/udp/127.0.0.1/0/", 400 },
        { "proxy", "connect-udp", "/elsewhere", 400 },
        { "proxy", "connect-ip", "/.well-known/masque/ip/*/6/", 501 },
        { "proxy", "connect-ip", "/.well-known/masque/ip/*/*/", 501 },
        { "proxy", "connect-ip", "/.well-known/masque/ip/192.0.2.1/1/", 501 },
        { "proxy", "websocket", "/", 501 },
    };
    int wrong = 0;

    lab_start(lab);
    name = rig_name(&lab->h2.rig, "rebind.test", RIG_LATER);
    name->addrs[name->n++] = rig_addr("10.0.0.1");
    name = rig_name(&lab->h2.rig, "nowhere.test", RIG_FAILS);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream_side *s = h2_ask(&lab->h2, rows[i].authority, rows[i].protocol, rows[i].path);

        rig_until(&lab->h2.rig, h2_answered, s);
        if (s->status != rows[i].status && ++wrong)
            print_error("%s %s: %u, not %u\n", rows[i].authority, rows[i].path, s->status, rows[i].status);
        h2_stream_close(s->s, H2_NO_ERROR);
    }
    assert_int_equal(ask(lab, "127.0.0.1", closed)->status, 502);
    assert_int_equal(wrong, 0);
    close(fd);
}

/* ---- logins and limits ---- */

static unsigned ask_as(struct lab *lab, const char *login, uint16_t port)
{
    char authority[32];
    const struct h2_field field = { "proxy-authorization", login };
    const struct h2_head head = {
        .method = "CONNECT", .authority = authority, .fields = &field, .field_count = login ? 1 : 0
    };
    struct stream_side *s = &lab->h2.client.streams[lab->h2.client.n++];

    snprintf(authority, sizeof(authority), "127.0.0.1:%u", port);
    *s = (struct stream_side){ .side = &lab->h2.client };
    assert_int_equal(h2_request(lab->h2.client.h, &head, &h2_stream_log, s, &s->s), 0);
    rig_until(&lab->h2.rig, h2_answered, s);
    return s->status;
}

static void users_log_in_and_keep_to_their_limits(void **state)
{
    static const struct serve_user users[] = { { "alice", "sesame" }, { "bob", "builder" } };
    struct masque_options o = options();
    struct plan plan = { NULL, 0, PLAN_HANG, 0 };
    struct lab *lab = *state;
    struct plan_server target;

    o.users = users;
    o.user_count = 2;
    o.per_user.flows = 2;
    assert_int_equal(serve_ledger_new(&o.per_user, 2, &lab->ledger), 0);
    o.ledger = lab->ledger;
    lab_serve(lab, &o);
    lab_connect(lab);
    plan_open(&target, &lab->h2.rig, &plan);
    assert_int_equal(ask_as(lab, NULL, target.port), 407);
    assert_int_equal(ask_as(lab, "Basic YWxpY2U6d3Jvbmc=", target.port), 407);
    assert_int_equal(ask_as(lab, "Basic YWxpY2U6c2VzYW1l", target.port), 200);
    assert_int_equal(ask_as(lab, "Bearer sesame", target.port), 200);
    assert_int_equal(ask_as(lab, "Bearer sesame", target.port), 429);
    assert_int_equal(ask_as(lab, "Bearer builder", target.port), 200); /* another user's are another user's */
    h2_stream_close(lab->h2.client.streams[2].s, H2_CANCEL);
    rig_until(&lab->h2.rig, plan_saw_close, &target);
    assert_int_equal(ask_as(lab, "Bearer sesame", target.port), 200);
    assert_int_equal(masque_counters(lab->masque)->login_failed, 1);
    plan_close(&target);
}

static void a_rate_is_one_for_all_that_a_user_has(void **state)
{
    const struct serve_per_user limits = { 0, 1000000 };
    struct serve_ledger *l;
    struct ledger_user *u;

    (void)state;
    assert_int_equal(serve_ledger_new(&limits, 1, &l), 0);
    u = ledger_user(l, 0);
    for (int i = 0; i < 20; i++) { /* a bucket of 200 ms */
        assert_int_equal(ledger_wait_us(u, 0, 1000000), 0);
        ledger_spend(u, 0, 1000000, 10001);
    }
    assert_int_equal(ledger_wait_us(u, 0, 1000000), 20);
    assert_int_equal(ledger_wait_us(u, 1, 1000000), 0); /* the other way is another bucket */
    assert_int_equal(ledger_wait_us(u, 0, 1000020), 0);
    assert_null(ledger_user(l, 1));
    serve_ledger_free(l);
}

static bool has_drained(void *lab)
{
    return masque_counters(((struct lab *)lab)->masque)->bytes_down >= 300000;
}

static void a_relay_keeps_to_its_users_rate(void **state)
{
    struct masque_options o = options();
    struct plan plan = { NULL, 0, PLAN_HANG, 4 << 20 };
    struct lab *lab = *state;
    struct plan_server target;
    struct stream_side *s;
    uint64_t since_us;

    o.per_user.bytes_per_second = 1000000;
    assert_int_equal(serve_ledger_new(&o.per_user, 0, &lab->ledger), 0);
    o.ledger = lab->ledger;
    lab_serve(lab, &o);
    lab_connect(lab);
    plan_open(&target, &lab->h2.rig, &plan);
    since_us = clock_now_us();
    s = ask(lab, "127.0.0.1", target.port);
    rig_until(&lab->h2.rig, has_drained, lab);
    /* 200 KB at once, one read of 64 KiB too many, and the rest in its time: never earlier, whatever the machine does */
    assert_true(clock_now_us() - since_us > 20000);
    assert_true(masque_counters(lab->masque)->bytes_down <
                300000 + 200000 + 2 * 65536 + (clock_now_us() - since_us));
    h2_stream_close(s->s, H2_CANCEL);
    plan_close(&target);
}

/* ---- certificates ---- */

static void a_new_certificate_is_for_new_connections(void **state)
{
    static const struct plan_step steps[] = { { 4, "pong", 4, false } };
    struct plan plan = { steps, 1, PLAN_HANG, 0 };
    struct masque_options fresh = options();
    struct lab *lab = *state;
    struct plan_server target;
    struct stream_side *s;

    lab_start(lab);
    plan_open(&target, &lab->h2.rig, &plan);
    s = ask(lab, "127.0.0.1", target.port);
    fresh.tls = server_settings();
    assert_int_equal(masque_set_access(lab->masque, masque_access_new(&fresh)), 0);
    tls_settings_unref(fresh.tls);
    tls_settings_unref(lab->server_tls); /* the old session is all that holds the old certificate now */
    lab->server_tls = NULL;
    h2_put(s, "ping", 4);
    rig_until(&lab->h2.rig, got_four, s);
    lab_leave(lab);
    lab_connect(lab);
    assert_int_equal(ask(lab, "127.0.0.1", target.port)->status, 200);
    plan_close(&target);
}

static void a_session_is_resumed_by_another_thread_of_the_server(void **state)
{
    struct masque_options o = options();
    struct lab *lab = *state;
    struct err err = { "" };
    struct masque *first;

    lab_start(lab);
    assert_false(tls_resumed(lab->tls));
    (void)h2_ping(lab->h2.client.h);
    rig_run_ms(&lab->h2.rig, 20); /* with TLS 1.3 the ticket comes behind the handshake */
    lab_leave(lab);
    first = lab->masque;
    o.tls = lab->server_tls;
    assert_int_equal(masque_open(&o, lab->h2.rig.env, &lab->masque, &err), 0);
    lab_connect(lab);
    assert_true(tls_resumed(lab->tls));
    masque_close(first);
}

/* ---- UDP ---- */

struct echo_server { /* answers datagrams with themselves */
    struct loop_io io;
    uint16_t port;
};

static void on_datagram(struct loop_io *io, unsigned events)
{
    static uint8_t data[65536];
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    ssize_t n = recvfrom(loop_io_fd(io), data, sizeof(data), 0, (struct sockaddr *)&ss, &len);

    (void)events;
    if (n >= 0)
        (void)sendto(loop_io_fd(io), data, (size_t)n, 0, (struct sockaddr *)&ss, len);
}

static void echo_server_open(struct lab *lab, struct echo_server *e)
{
    struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(sin);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    *e = (struct echo_server){ .port = 0 };
    assert_int_equal(bind(fd, (struct sockaddr *)&sin, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
    e->port = ntohs(sin.sin_port);
    loop_io_start(lab->h2.rig.loop, &e->io, fd, LOOP_READ, on_datagram);
}

static void echo_server_close(struct lab *lab, struct echo_server *e)
{
    int fd = loop_io_fd(&e->io);

    loop_io_stop(lab->h2.rig.loop, &e->io);
    close(fd);
}

static struct stream_side *ask_udp(struct lab *lab, const char *host, uint16_t port)
{
    static const struct h2_datagram_options queue = { .frames = 64, .bytes = 512 * 1024 };
    char path[128];
    struct stream_side *s;

    snprintf(path, sizeof(path), "/.well-known/masque/udp/%s/%u/", host, port);
    s = h2_ask(&lab->h2, "proxy", "connect-udp", path);
    s->capsules = true;
    assert_int_equal(h2_datagrams(s->s, &queue), 0);
    rig_until(&lab->h2.rig, h2_answered, s);
    return s;
}

static void put_datagram(struct stream_side *s, uint64_t context, const void *data, size_t len)
{
    struct iovec iov = { (void *)(uintptr_t)data, len };

    assert_int_equal(h2_datagram_send(s->s, context, &iov, 1, UINT64_MAX), 0);
}

static bool got_datagram(void *arg)
{
    return ((struct stream_side *)arg)->datagrams >= 1;
}

static bool got_all_sizes(void *arg)
{
    return ((struct stream_side *)arg)->datagrams >= 4;
}

static void datagrams_go_both_ways_by_address_and_by_name(void **state)
{
    static const size_t sizes[] = { 0, 1, 1350, 60000 };
    static uint8_t data[60000];
    struct lab *lab = *state;
    struct echo_server e;
    struct rig_name *name;

    lab_start(lab);
    name = rig_name(&lab->h2.rig, "target.test", RIG_NOW);
    name->addrs[name->n++] = rig_addr("10.0.0.1"); /* not this one */
    name->addrs[name->n++] = rig_addr("127.0.0.1");
    echo_server_open(lab, &e);
    for (int by_name = 0; by_name < 2; by_name++) {
        struct stream_side *s = ask_udp(lab, by_name ? "target.test" : "127.0.0.1", e.port);

        assert_int_equal(s->status, 200);
        put_datagram(s, 1, "other context", 13); /* dropped */
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
            put_datagram(s, 0, data, sizes[i]);
        rig_until(&lab->h2.rig, got_all_sizes, s);
        assert_int_equal(s->datagrams, 4);
        assert_int_equal(s->last_len, 60001); /* its context, too */
        h2_shutdown(s->s);
        rig_until(&lab->h2.rig, h2_has_ended, s);
        h2_stream_close(s->s, H2_NO_ERROR);
    }
    assert_int_equal(masque_counters(lab->masque)->datagrams_up, 8);
    echo_server_close(lab, &e);
}

static void a_closed_port_resets_the_stream(void **state)
{
    struct lab *lab = *state;
    struct echo_server e;
    struct stream_side *s;

    lab_start(lab);
    echo_server_open(lab, &e);
    echo_server_close(lab, &e);
    s = ask_udp(lab, "127.0.0.1", e.port);
    put_datagram(s, 0, "x", 1);
    rig_until(&lab->h2.rig, h2_was_closed, s);
    assert_int_equal(s->code, H2_CONNECT_ERROR);
}

/* ---- pings ---- */

static uint16_t sum16(const uint8_t *data, size_t len, uint32_t sum)
{
    for (size_t i = 0; i < len; i++)
        sum += (uint32_t)data[i] << (i % 2 ? 0 : 8);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

struct ping {
    const char *from, *to;
    uint8_t ttl, type;
    uint16_t id, seq;
    size_t payload;
};

/* An echo request as a client of the tunnel sends it. Return: its length. */
static size_t make_ping(const struct ping *p, uint8_t *to)
{
    struct ip_addr a = rig_addr(p->from), b = rig_addr(p->to);
    size_t head = ip_is4(&a) ? 20 : 40, len = head + 8 + p->payload;
    uint8_t *icmp = to + head;
    uint32_t sum = 0;

    memset(to, 0, head + 8);
    for (size_t i = 0; i < p->payload; i++)
        icmp[8 + i] = (uint8_t)(i * 7);
    icmp[0] = p->type ? p->type : head == 20 ? 8 : 128;
    put_be16(icmp + 4, p->id);
    put_be16(icmp + 6, p->seq);
    if (head == 20) {
        to[0] = 0x45;
        to[1] = 0x20;
        put_be16(to + 2, (uint16_t)len);
        to[8] = p->ttl;
        to[9] = 1;
        memcpy(to + 12, a.b + 12, 4);
        memcpy(to + 16, b.b + 12, 4);
        put_be16(to + 10, sum16(to, 20, 0));
    } else {
        to[0] = 0x62;
        put_be16(to + 4, (uint16_t)(len - 40));
        to[6] = 58;
        to[7] = p->ttl;
        memcpy(to + 8, a.b, 16);
        memcpy(to + 24, b.b, 16);
        for (size_t i = 8; i < 40; i += 2)
            sum += get_be16(to + i);
        sum += (uint32_t)(len - 40) + 58;
    }
    put_be16(icmp + 2, sum16(icmp, len - head, sum));
    return len;
}

#define FIRST4 "100.64.0.2" /* what the first tunnel of a server is given */
#define FIRST6 "fd63:756c:7665:7274::2"

static struct stream_side *ask_echo(struct lab *lab, int proto)
{
    static const struct h2_datagram_options queue = { .frames = 128, .bytes = 512 * 1024, .urgent = true };
    char path[MASQUE_PATH_MAX];
    struct stream_side *s;

    masque_ip_path_put((uint8_t)proto, path);
    s = h2_ask(&lab->h2, "proxy", "connect-ip", path);
    s->capsules = true;
    assert_int_equal(h2_datagrams(s->s, &queue), 0);
    rig_until(&lab->h2.rig, h2_answered, s);
    return s;
}

static void put_ping(struct stream_side *s, const struct ping *p)
{
    static uint8_t packet[H2_DATAGRAM_MAX];

    put_datagram(s, 0, packet, make_ping(p, packet));
}

#define NEEDS_NAMESPACE                                                                                      \
    if (why_skipped)                                                                                         \
    skip()

static void a_ping_of_any_size_comes_back_exact(void **state) /* icmp.md T1, T2 */
{
    static const size_t sizes[2][5] = { { 0, 56, 1452, 9000, 65507 },
                                        { 0, 56, 1452, 9000, 65488 } }; /* "lo" takes 65,536 */
    struct lab *lab = *state;

    NEEDS_NAMESPACE;
    lab_start(lab);
    for (int v6 = 0; v6 < 2; v6++) {
        struct stream_side *s = ask_echo(lab, v6 ? 58 : 1);
        size_t head = v6 ? 40 : 20;

        assert_int_equal(s->status, 200);
        for (size_t i = 0; i < ARRAY_LEN(sizes[0]); i++) {
            struct ping p = {
                v6 ? FIRST6 : FIRST4, v6 ? "2001:db8::1" : "192.0.2.1", 64, 0, 0xbeef, (uint16_t)(i + 1),
                sizes[v6][i]
            };

            s->datagrams = 0;
            put_ping(s, &p);
            rig_until(&lab->h2.rig, got_datagram, s);
            assert_int_equal(s->last_len, 1 + head + 8 + sizes[v6][i]);
            assert_int_equal(s->last[1 + head], v6 ? 129 : 0);
            assert_int_equal(get_be16(s->last + 1 + head + 4), 0xbeef);
            assert_int_equal(get_be16(s->last + 1 + head + 6), i + 1);
            if (sizes[v6][i] >= 8)
                assert_int_equal(s->last[1 + head + 8 + 3], 21);
            assert_int_equal(s->last[1 + (v6 ? 7 : 8)], 63); /* one hop: ours (T3) */
        }
        h2_stream_close(s->s, H2_CANCEL);
        rig_run_ms(&lab->h2.rig, 20); /* its place, and so its address, is free again */
    }
}

static void what_a_ping_cannot_have_is_an_error_from_the_exit(void **state) /* icmp.md T3, T9, T15 */
{
    static const struct {
        const char *when, *to;
        uint8_t ttl, type, code;
        const char *source;
    } rows[] = {
        { "its time is up here", "192.0.2.1", 1, 11, 0, "198.51.100.1" },
        { "a private target", "10.0.0.1", 64, 3, 13, "198.51.100.1" },
        { "no route", "192.0.2.14", 64, 3, 0, "198.51.100.1" },
        { "ours, and private", "2001:db8:9::1", 64, 1, 1, "2001:db8:f::1" },
        { "time is up, IPv6", "2001:db8::1", 1, 3, 0, "2001:db8:f::1" },
    };
    struct lab *lab = *state;
    int wrong = 0;

    NEEDS_NAMESPACE;
    lab_start(lab);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct ip_addr to = rig_addr(rows[i].to), source = rig_addr(rows[i].source), said;
        bool v6 = !ip_is4(&to);
        struct stream_side *s = ask_echo(lab, v6 ? 58 : 1);
        struct ping p = { v6 ? FIRST6 : FIRST4, rows[i].to, rows[i].ttl, 0, 7, 1, 56 };
        size_t head = v6 ? 40 : 20;

        put_ping(s, &p);
        rig_until(&lab->h2.rig, got_datagram, s);
        said = v6 ? ip_from6(s->last + 1 + 8) : ip_from4(s->last + 1 + 12);
        if ((s->last[1 + head] != rows[i].type || s->last[2 + head] != rows[i].code ||
             !ip_equal(&said, &source)) &&
            ++wrong)
            print_error("%s: %u/%u\n", rows[i].when, s->last[1 + head], s->last[2 + head]);
        h2_stream_close(s->s, H2_CANCEL);
        rig_run_ms(&lab->h2.rig, 20);
    }
    assert_int_equal(wrong, 0);
}

static bool has_dropped(void *lab)
{
    return masque_counters(((struct lab *)lab)->masque)->echo_dropped >= 4;
}

static void what_is_no_ping_of_this_tunnel_is_dropped(void **state) /* RFC 9484 section 7.1; icmp.md T5 */
{
    const struct ping foreign = { "100.64.0.9", "192.0.2.1", 64, 0, 1, 1, 8 };
    const struct ping reply = { FIRST4, "192.0.2.1", 64, 11, 1, 1, 8 };
    const struct ping six = { FIRST6, "2001:db8::1", 64, 0, 1, 1, 8 };
    const struct ping good = { FIRST4, "192.0.2.1", 64, 0, 1, 9, 8 };
    struct lab *lab = *state;
    struct stream_side *s;

    NEEDS_NAMESPACE;
    lab_start(lab);
    s = ask_echo(lab, 1);
    put_ping(s, &foreign);
    put_ping(s, &reply);
    put_ping(s, &six);
    put_datagram(s, 0, "", 0);
    rig_until(&lab->h2.rig, has_dropped, lab);
    assert_int_equal(s->datagrams, 0);
    put_ping(s, &good);
    rig_until(&lab->h2.rig, got_datagram, s);
    rig_run_ms(&lab->h2.rig, 50);
    assert_int_equal(s->datagrams, 1); /* one answer for one request, and none for the others */
    h2_stream_close(s->s, H2_CANCEL);
}

static void a_server_without_pings_says_so_by_a_status(void **state) /* icmp.md T10 */
{
    struct masque_options o = options();
    struct lab *lab = *state;

    o.echo = false;
    lab_serve(lab, &o);
    lab_connect(lab);
    assert_int_equal(ask_echo(lab, 1)->status, 403);
    assert_int_equal(ask_echo(lab, 58)->status, 403);
}

static void an_answer_to_a_tunnel_that_has_ended_is_dropped(void **state) /* icmp.md T13 */
{
    struct echo_proxy_answer a = { .ttl = 64 };
    struct lab *lab = *state;
    struct stream_side *s;

    NEEDS_NAMESPACE;
    lab_start(lab);
    s = ask_echo(lab, 1);
    a.client = rig_addr(FIRST4);
    a.target = rig_addr("192.0.2.1");
    masque_on_echo_answer(lab->masque, UINT64_C(1) << 32 | 1,
                          &a); /* this one: first place, first generation */
    rig_until(&lab->h2.rig, got_datagram, s);
    masque_on_echo_answer(lab->masque, UINT64_C(9) << 32 | 1, &a);
    masque_on_echo_answer(lab->masque, UINT64_C(1) << 32 | 99, &a);
    h2_stream_close(s->s, H2_CANCEL);
    rig_run_ms(&lab->h2.rig, 20);
    masque_on_echo_answer(lab->masque, UINT64_C(1) << 32 | 1, &a);
    assert_int_equal(masque_counters(lab->masque)->echo_dropped, 3);
    assert_int_equal(masque_counters(lab->masque)->echo_answers, 1);
}

/* ---- the namespace ---- */

static int enter(void **state)
{
    struct ip_prefix a;
    struct netlink *nl;
    struct nl_link lo;
    FILE *f;

    (void)state;
    why_skipped = netns_enter();
    if (why_skipped)
        return 0;
    f = fopen("/proc/sys/net/ipv4/ping_group_range", "w");
    if (!f || fprintf(f, "%u %u", getegid(), getegid()) < 0 || fclose(f) != 0)
        why_skipped = "ping_group_range cannot be set here";
    assert_int_equal(netlink_open(&nl, NULL), 0);
    assert_int_equal(netlink_link_by_name(nl, "lo", &lo), 0);
    assert_int_equal(netlink_link_set(nl, lo.ifindex, true, 65536, 0), 0);
    assert_int_equal(ip_interface_parse("192.0.2.1/32", &a), 0);
    assert_int_equal(netlink_addr_add(nl, lo.ifindex, &a), 0);
    assert_int_equal(ip_interface_parse("2001:db8::1/128", &a), 0);
    assert_int_equal(netlink_addr_add(nl, lo.ifindex, &a), 0);
    netlink_close(nl);
    return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_stream_is_a_connection_and_half_closes_both_ways),
        TEST(a_reset_is_a_reset_both_ways),
        TEST(a_target_that_floods_is_held_up_by_a_client_that_does_not_read),
        TEST(what_cannot_be_had_is_told_by_a_status),
        TEST(users_log_in_and_keep_to_their_limits),
        cmocka_unit_test(a_rate_is_one_for_all_that_a_user_has),
        TEST(a_relay_keeps_to_its_users_rate),
        TEST(a_new_certificate_is_for_new_connections),
        TEST(a_session_is_resumed_by_another_thread_of_the_server),
        TEST(datagrams_go_both_ways_by_address_and_by_name),
        TEST(a_closed_port_resets_the_stream),
        TEST(a_ping_of_any_size_comes_back_exact),
        TEST(what_a_ping_cannot_have_is_an_error_from_the_exit),
        TEST(what_is_no_ping_of_this_tunnel_is_dropped),
        TEST(a_server_without_pings_says_so_by_a_status),
        TEST(an_answer_to_a_tunnel_that_has_ended_is_dropped),
    };

    return cmocka_run_group_tests(tests, enter, NULL);
}
