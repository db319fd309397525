/* test_upstream_handshake.c - SOCKS5 servers that do what a plan says: every fault at every byte, and probes. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "up_rig.h"

#define BYTES(s) s, sizeof(s) - 1

static void a_name_is_checked_before_anything_is_dialled(void **state) /* faults.md S10 */
{
    static const char *const bad[] = {
        "", "a b", "a\tb", "h\303\266st", "a..b", ".a", "a@b", "a/b", "[::1]x"
    };
    static const struct up_stream_events none;
    char longest[302];
    struct plan plan = { NULL, 0, PLAN_HANG, 0 };
    struct up_rig *rig = *state;
    struct plan_server server;
    struct up_stream *s = NULL;
    struct upstream *up;

    up = plan_socks(&server, rig, &plan);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct host_port to = { .name = bad[i], .port = 80 };

        assert_int_equal(up_stream_open(rig->env, up, &to, 1000000, &none, NULL, &s), -EINVAL);
    }
    for (size_t len = 255; len <= 300; len++) {
        struct host_port to = { .name = longest, .port = 80 };

        for (size_t i = 0; i < len; i++)
            longest[i] = i % 50 == 49 ? '.' : 'a';
        longest[len] = '\0';
        if (longest[len - 1] == '.')
            continue;
        assert_int_equal(up_stream_open(rig->env, up, &to, 1000000, &none, NULL, &s),
                         len > 255 ? -EINVAL : 0);
        if (len == 255)
            up_stream_close(s);
    }
    assert_int_equal(rig->asked, 0); /* never resolved here */
    plan_close(&server);
    upstream_unref(up);
}

static bool got_request(void *arg)
{
    struct plan_server *p = arg;

    return p->conns[0].total_in > 3 + 4;
}

static void a_name_goes_to_the_proxy_and_an_address_as_one(void **state) /* faults.md S10 */
{
    static const struct {
        const char *name;
        const char *wire;
        size_t len;
    } rows[] = {
        { "Example.TEST.", BYTES("\5\1\0\3\14example.test\0\120") }, /* normalised */
        { "192.0.2.9", BYTES("\5\1\0\1\300\0\2\11\0\120") },
    };
    static const struct plan_step steps[] = { { 3, BYTES("\5\0"), false } };
    struct plan plan = { steps, 1, PLAN_HANG, 0 };
    struct up_rig *rig = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct host_port to = { .name = rows[i].name, .port = 80 };
        struct plan_server server;
        struct stream_log log;
        struct upstream *up;

        up = plan_socks(&server, rig, &plan);
        stream_start(rig, &log, up, &to, 2000);
        rig_until(rig, got_request, &server);
        assert_int_equal(server.conns[0].total_in, 3 + rows[i].len);
        assert_memory_equal(server.conns[0].in + 3, rows[i].wire, rows[i].len);
        assert_int_equal(rig->asked, 0);
        stream_forget(&log);
        plan_close(&server);
        upstream_unref(up);
    }
}

/* ---- SOCKS5: every byte of a handshake, every fault (faults.md section 6) ---- */

#define REPLY_OK BYTES("\5\0\0\1\177\0\0\1\20\1")

static void a_handshake_byte_by_byte_with_data_glued_on_loses_nothing(void **state) /* faults.md S4 */
{
    static const char glued[] = "\5\0\0\3\5relay\20\1first data of the stream";
    const size_t data_len = sizeof("first data of the stream") - 1;
    struct up_rig *rig = *state;

    for (int slowly = 0; slowly < 2; slowly++) {
        const struct plan_step steps[] = { { 4, BYTES("\5\2"), slowly },
                                           { 14, BYTES("\1\0"), slowly },
                                           { 10, glued, sizeof(glued) - 1, slowly } };
        struct plan plan = { steps, 3, PLAN_CLOSE, 0 };
        struct host_port to = rig_to("192.0.2.1", 80);
        struct plan_server server;
        struct stream_log log;
        struct upstream *up;

        plan_open(&server, rig, &plan);
        up = rig_socks(server.port, "alice", "sesame");
        stream_start(rig, &log, up, &to, 3000);
        rig_until(rig, stream_is_over, &log);
        assert_true(log.opened && log.eof);
        assert_int_equal(log.in_len, data_len);
        assert_memory_equal(log.in, glued + sizeof(glued) - 1 - data_len, data_len);
        stream_forget(&log);
        plan_close(&server);
        upstream_unref(up);
    }
}

/* What a server says in a whole handshake with login; the faults come after its first k bytes. */
static const char whole[] = "\5\2\1\0\5\0\0\1\177\0\0\1\20\1";

/* The plan that sends the first @k bytes of `whole`, each part when it is due, then ends as @end. */
static void plan_cut(struct plan *plan, struct plan_step steps[4], size_t k, enum plan_end end)
{
    static const size_t after[] = { 4, 14, 10 }, part[] = { 2, 2, 10 };
    size_t off = 0, n = 0;

    for (; n < 3 && off + part[n] <= k; n++) {
        steps[n] = (struct plan_step){ after[n], whole + off, part[n], false };
        off += part[n];
    }
    if (n < 3)
        steps[n] = (struct plan_step){ after[n], whole + off, k - off, false };
    *plan = (struct plan){ steps, n < 3 ? n + 1 : n, end, 0 };
}

static const char *stage_at(size_t k)
{
    return k < 2 ? "method" : k < 4 ? "login" : "request";
}

static void every_fault_at_every_byte(struct up_rig *rig, enum plan_end end, unsigned timeout_ms)
{
    int wrong = 0;

    for (size_t k = 0; k < sizeof(whole) - 1; k++) {
        struct plan_step steps[4];
        struct host_port to = rig_to("192.0.2.1", 80);
        uint64_t timeouts = up_counters(rig->env)->socks_timeout;
        struct up_health before, after;
        struct plan_server server;
        struct stream_log log;
        struct upstream *up;
        struct plan plan;
        uint64_t start_us = clock_now_us();
        bool blamed;

        plan_cut(&plan, steps, k, end);
        plan_open(&server, rig, &plan);
        up = rig_socks(server.port, "alice", "sesame");
        up_health_get(rig->env, up, &before);
        stream_settle(rig, &log, up, &to, timeout_ms);
        up_health_get(rig->env, up, &after);
        /* silence after our request may be the target's, see handshake.c */
        blamed = !(end == PLAN_HANG && k == 4);
        if (!log.closed || log.why.err != -EHOSTUNREACH || strcmp(log.why.stage, stage_at(k)) != 0 ||
            log.why.proxy_fault != blamed || after.failures != (blamed ? 1 : 0) ||
            up_counters(rig->env)->socks_timeout - timeouts != (end == PLAN_HANG ? 1 : 0) ||
            (end == PLAN_HANG && log.closed_us - start_us < timeout_ms * 1000u) ||
            strstr(log.why.text, "sesame")) {
            print_error("%s after %zu bytes: %s: %s (err %d, fault %d, failures %u)\n",
                        end == PLAN_HANG    ? "hang"
                        : end == PLAN_CLOSE ? "close"
                                            : "reset",
                        k, log.why.stage, log.why.text, log.why.err, log.why.proxy_fault, after.failures);
            wrong++;
        }
        plan_close(&server);
        upstream_unref(up);
    }
    assert_int_equal(wrong, 0);
}

static void a_server_that_hangs_at_any_byte_meets_the_deadline_of_the_whole(void **state) /* faults.md S2 */
{
    every_fault_at_every_byte(*state, PLAN_HANG, 40);
}

static void a_server_that_closes_at_any_byte_fails_once(void **state) /* faults.md S3 */
{
    every_fault_at_every_byte(*state, PLAN_CLOSE, 5000);
}

static void a_server_that_resets_at_any_byte_fails_once(void **state) /* faults.md S3 */
{
    every_fault_at_every_byte(*state, PLAN_RESET, 5000);
}

static void slow_progress_does_not_stretch_the_deadline(void **state) /* faults.md S2 */
{
    static const char reply[262] =
        "\5\0\0\3\377"; /* a name of 255 bytes, one a millisecond: never ends in time */
    static const struct plan_step steps[] = { { 3, BYTES("\5\0"), true },
                                              { 10, reply, sizeof(reply), true } };
    struct plan plan = { steps, 2, PLAN_HANG, 0 };
    struct up_rig *rig = *state;
    struct host_port to = rig_to("192.0.2.1", 80);
    struct plan_server server;
    struct stream_log log;
    struct upstream *up;

    up = plan_socks(&server, rig, &plan);
    stream_settle(rig, &log, up, &to, 60);
    assert_true(log.closed);
    assert_string_equal(log.why.stage, "request");
    assert_true(log.why.proxy_fault);
    plan_close(&server);
    upstream_unref(up);
}

static void what_listens_there_is_named(void **state) /* faults.md S5 */
{
    static const struct {
        const char *says;
        size_t len;
        const char *text;
    } rows[] = {
        { BYTES("HTTP/1.1 400 Bad Request\r\n\r\n"), "is an HTTP server" },
        { BYTES("\25\3\1\0\2\2\106"), "wants TLS" },
        { BYTES("\4\132"), "SOCKS4" },
        { BYTES("\0\133"), "SOCKS4" },
    };
    struct up_rig *rig = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct plan_step steps[] = { { 3, rows[i].says, rows[i].len, false } };
        struct plan plan = { steps, 1, PLAN_HANG, 0 };
        struct host_port to = rig_to("192.0.2.1", 80);
        struct plan_server server;
        struct stream_log log;
        struct upstream *up;

        up = plan_socks(&server, rig, &plan);
        stream_settle(rig, &log, up, &to, 3000);
        assert_int_equal(log.why.err, -EHOSTUNREACH);
        assert_non_null(strstr(log.why.text, rows[i].text));
        assert_non_null(strstr(log.why.text, "office (127.0.0.1:"));
        plan_close(&server);
        upstream_unref(up);
    }
}

static void a_refused_login_is_not_hammered(void **state) /* faults.md S6 */
{
    static const struct plan_step steps[] = { { 3, BYTES("\5\377"), false } };
    struct plan plan = { steps, 1, PLAN_HANG, 0 };
    struct up_rig *rig = *state;
    struct host_port to = rig_to("192.0.2.1", 80);
    struct plan_server server;
    struct stream_log log;
    struct upstream *up;

    up = plan_socks(&server, rig, &plan);
    for (int i = 0; i < 20; i++) {
        stream_settle(rig, &log, up, &to, 3000);
        assert_int_equal(log.why.err, -EHOSTUNREACH);
        assert_non_null(strstr(log.why.text, "set username and password"));
    }
    assert_int_equal(server.accepted, 1);
    plan_close(&server);
    upstream_unref(up);
}

static void a_server_that_talks_without_end_fails(void **state) /* faults.md S11 */
{
    struct plan plan = { NULL, 0, PLAN_HANG, 1 << 20 };
    struct up_rig *rig = *state;
    struct host_port to = rig_to("192.0.2.1", 80);
    struct plan_server server;
    struct stream_log log;
    struct upstream *up;

    plan_open(&server, rig, &plan); /* 1 MiB before our request */
    up = rig_socks(server.port, NULL, NULL);
    stream_settle(rig, &log, up, &to, 3000);
    assert_true(log.closed);
    assert_string_equal(log.why.stage, "method");
    plan_close(&server);
    upstream_unref(up);
}

static void the_target_of_a_proxy_fails_without_blame_for_the_proxy(void **state) /* faults.md S8 */
{
    static const int errs[] = {
        0,          -EHOSTUNREACH, -EACCES,      -ENETUNREACH, -EHOSTUNREACH, -ECONNREFUSED,
        -ETIMEDOUT, -EHOSTUNREACH, -ENETUNREACH, -EHOSTUNREACH
    };
    struct up_rig *rig = *state;

    for (size_t code = 1; code < ARRAY_LEN(errs); code++) {
        char reply[10] = { 5, (char)code, 0, 1 };
        const struct plan_step steps[] = { { 3, BYTES("\5\0"), false }, { 10, reply, sizeof(reply), false } };
        struct plan plan = { steps, 2, PLAN_CLOSE, 0 };
        struct host_port to = rig_to("192.0.2.1", 80);
        struct up_health health;
        struct plan_server server;
        struct stream_log log;
        struct upstream *up;

        up = plan_socks(&server, rig, &plan);
        stream_settle(rig, &log, up, &to, 3000);
        assert_int_equal(log.why.err, errs[code]);
        assert_false(log.why.proxy_fault);
        up_health_get(rig->env, up, &health);
        assert_int_equal(health.failures, 0);
        assert_true(health.last_good_us > 0 && health.rtt_us > 0);
        plan_close(&server);
        upstream_unref(up);
    }
}

static void an_absent_or_silent_proxy_is_an_unreachable_host(void **state) /* faults.md S1 */
{
    struct up_rig *rig = *state;
    struct host_port to = rig_to("192.0.2.1", 80);
    struct up_health health;
    struct silence silent;
    struct stream_log log;
    struct upstream *up;
    uint16_t port;
    int fd = closed_port(&port);

    up = rig_socks(port, NULL, NULL);
    stream_settle(rig, &log, up, &to, 3000);
    assert_int_equal(log.why.err, -EHOSTUNREACH);
    assert_true(log.why.proxy_fault);
    up_health_get(rig->env, up, &health);
    assert_int_equal(health.failures, 1);
    upstream_unref(up);
    close(fd);

    silence_open(&silent, "127.0.0.1", port);
    up = rig_socks(port, NULL, NULL);
    stream_settle(rig, &log, up, &to, 50);
    assert_int_equal(log.why.err, -EHOSTUNREACH);
    assert_string_equal(log.why.stage, "connect");
    upstream_unref(up);
    up = rig_direct(); /* the same silence of a target itself is a time-out */
    to = rig_to("127.0.0.1", port);
    stream_settle(rig, &log, up, &to, 50);
    assert_int_equal(log.why.err, -ETIMEDOUT);
    silence_close(&silent);
    upstream_unref(up);
}

static void local_ports_that_run_out_are_named(void **state) /* faults.md S23 */
{
    struct up_rig *rig = *state;
    struct upstream *up;
    struct host_port to = rig_to("192.0.2.1", 80);
    struct plan plan = { NULL, 0, PLAN_HANG, 0 };
    struct plan_server server;
    struct stream_log log;
    char range[64] = "";
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "r+");
    uint16_t port;
    int taken;

    if (!f)
        SKIP("needs root");
    plan_open(&server, rig, &plan);
    taken = closed_port(&port); /* the one port of the range is in use */
    assert_non_null(fgets(range, sizeof(range), f));
    rewind(f);
    fprintf(f, "%u %u\n", port, port);
    fclose(f);
    up = rig_socks(server.port, NULL, NULL);
    stream_settle(rig, &log, up, &to, 2000);
    f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "w");
    fputs(range, f);
    fclose(f);
    assert_int_equal(log.why.err, -ECONNREFUSED);
    assert_false(log.why.proxy_fault);
    assert_non_null(strstr(log.why.text, "ip_local_port_range"));
    close(taken);
    plan_close(&server);
    upstream_unref(up);
}

static void an_opening_may_be_given_up_at_any_moment(void **state) /* faults.md G4 */
{
    static const struct plan_step steps[] = { { 3, BYTES("\5\0"), true }, { 10, REPLY_OK, true } };
    struct plan plan = { steps, 2, PLAN_HANG, 0 };
    struct up_rig *rig = *state;
    struct host_port to = rig_to("192.0.2.1", 80);
    struct plan_server server;
    struct upstream *up;

    up = plan_socks(&server, rig, &plan);
    for (unsigned ms = 0; ms < 24; ms++) {
        struct stream_log log;

        stream_start(rig, &log, up, &to, 2000);
        rig_run_ms(rig, ms);
        if (ms % 2 || log.closed)
            stream_forget(&log);
        else
            up_stream_reset(log.s);
        while (server.closed <= ms && server.accepted > server.closed)
            rig_run_ms(rig, 1);
    }
    plan_close(&server);
    upstream_unref(up);
}

/* ---- who speaks without waiting ---- */

/* A server next to us has answered before connect() returns. */
static void a_near_server_is_spoken_to_before_the_loop_turns(void **state)
{
    struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(sin);
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), fd;
    struct host_port to = rig_to("192.0.2.1", 80);
    struct up_rig *rig = *state;
    struct stream_log log;
    struct upstream *up;
    char greeting[8];

    assert_int_equal(bind(listening, (struct sockaddr *)&sin, sizeof(sin)), 0);
    assert_int_equal(listen(listening, 1), 0);
    assert_int_equal(getsockname(listening, (struct sockaddr *)&sin, &len), 0);
    up = rig_socks(ntohs(sin.sin_port), NULL, NULL);
    stream_start(rig, &log, up, &to, 2000);
    fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK);
    assert_true(fd >= 0);
    assert_int_equal(recv(fd, greeting, sizeof(greeting), 0), 3);
    assert_memory_equal(greeting, "\5\1\0", 3);
    stream_forget(&log);
    close(fd);
    close(listening);
    upstream_unref(up);
}

/* The first send is refused within up_stream_open(), which calls nobody. */
static void a_near_refusal_is_told_later_and_in_full(void **state)
{
    struct host_port to = rig_to("192.0.2.1", 80);
    struct up_rig *rig = *state;
    struct stream_log log;
    struct upstream *up;
    uint16_t port;
    int fd = closed_port(&port);

    up = rig_socks(port, NULL, NULL);
    stream_start(rig, &log, up, &to, 60000);
    rig_until(rig, stream_is_over, &log);
    assert_string_equal(log.why.stage, "connect");
    assert_non_null(strstr(log.why.text, "refuses connections"));
    stream_start(rig, &log, up, &to, 60000);
    stream_forget(&log); /* between the failure and the word of it */
    upstream_unref(up);
    close(fd);
}

static void a_far_server_is_tried_too_early_once_and_not_again_soon(void **state)
{
    struct host_port to = rig_to("192.0.2.1", 80);
    struct up_rig *rig = *state;
    struct stream_log log;
    struct silence silent;
    struct upstream *up;
    uint16_t port;
    int fd = closed_port(&port);
    uint64_t calls = up_counters(rig->env)->send_calls;

    close(fd);
    silence_open(&silent, "127.0.0.1", port);
    up = rig_socks(port, NULL, NULL);
    for (int i = 0; i < 3; i++) {
        stream_settle(rig, &log, up, &to, 50);
        assert_string_equal(log.why.stage, "connect");
        assert_int_equal(up_counters(rig->env)->send_calls - calls, 1);
    }
    silence_close(&silent);
    upstream_unref(up);
}

/* ---- probes ---- */

static void probes_at_the_same_time_are_one_and_ask_for_no_target(void **state)
{
    static const struct plan_step steps[] = { { 3, BYTES("\5\0"), false } };
    struct plan plan = { steps, 1, PLAN_HANG, 0 };
    struct up_rig *rig = *state;
    struct probe_log log = { .wanted = 3, .err = -1 };
    struct plan_server server;
    struct upstream *up;

    up = plan_socks(&server, rig, &plan);
    for (int i = 0; i < 3; i++)
        assert_int_equal(up_probe(rig->env, up, 1000000, probe_log_on_probe, &log), 0);
    assert_int_equal(log.calls, 0);
    rig_until(rig, probe_log_is_done, &log);
    assert_int_equal(log.err, 0);
    rig_until(rig, plan_saw_close, &server);
    assert_int_equal(server.accepted, 1);
    assert_int_equal(server.conns[0].total_in, 3);
    plan_close(&server);

    log = (struct probe_log){ .wanted = 3, .err = -1 }; /* the port is closed now */
    for (int i = 0; i < 3; i++)
        assert_int_equal(up_probe(rig->env, up, 1000000, probe_log_on_probe, &log), 0);
    rig_until(rig, probe_log_is_done, &log);
    assert_int_equal(log.err, -EHOSTUNREACH);
    upstream_unref(up);

    up = rig_direct(); /* always well */
    log = (struct probe_log){ .wanted = 3, .err = -1 };
    for (int i = 0; i < 3; i++)
        assert_int_equal(up_probe(rig->env, up, 1000000, probe_log_on_probe, &log), 0);
    assert_int_equal(log.calls, 0);
    rig_until(rig, probe_log_is_done, &log);
    assert_int_equal(log.err, 0);
    assert_int_equal(up_probe(rig->env, up, 1000000, probe_log_on_probe, &log),
                     0); /* still running at the end of the test */
    upstream_unref(up);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, up_rig_setup, up_rig_teardown)
    static const struct CMUnitTest tests[] = {
        TEST(a_name_is_checked_before_anything_is_dialled),
        TEST(a_name_goes_to_the_proxy_and_an_address_as_one),
        TEST(a_handshake_byte_by_byte_with_data_glued_on_loses_nothing),
        TEST(a_server_that_hangs_at_any_byte_meets_the_deadline_of_the_whole),
        TEST(a_server_that_closes_at_any_byte_fails_once),
        TEST(a_server_that_resets_at_any_byte_fails_once),
        TEST(slow_progress_does_not_stretch_the_deadline),
        TEST(what_listens_there_is_named),
        TEST(a_refused_login_is_not_hammered),
        TEST(a_server_that_talks_without_end_fails),
        TEST(the_target_of_a_proxy_fails_without_blame_for_the_proxy),
        TEST(an_absent_or_silent_proxy_is_an_unreachable_host),
        TEST(local_ports_that_run_out_are_named),
        TEST(an_opening_may_be_given_up_at_any_moment),
        TEST(a_near_server_is_spoken_to_before_the_loop_turns),
        TEST(a_near_refusal_is_told_later_and_in_full),
        TEST(a_far_server_is_tried_too_early_once_and_not_again_soon),
        TEST(probes_at_the_same_time_are_one_and_ask_for_no_target),
    };
    return run_unless(netns_enter(), tests);
}
