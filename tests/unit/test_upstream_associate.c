/* test_upstream_associate.c - UDP through a scripted SOCKS5 relay, over loopback. */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "udp_rig.h"

#define BYTES(s) s, sizeof(s) - 1

/* ---- SOCKS5 ---- */

/* A control connection's plan that announces @relay; the caller keeps @reply. */
static void plan_associate(struct plan *plan, struct plan_step steps[2], char reply[10],
                           const struct ip_port *relay, enum plan_end end)
{
    memcpy(reply, "\5\0\0\1", 4);
    memcpy(reply + 4, relay->addr.b + 12, 4);
    put_be16((uint8_t *)reply + 8, relay->port);
    steps[0] = (struct plan_step){ 3, "\5\0", 2, false };
    steps[1] = (struct plan_step){ 10, reply, 10, false };
    *plan = (struct plan){ steps, 2, end, 0 };
}

struct relay { /* a scripted server with a relay, and an association through it */
    struct peer peer;
    struct plan plan;
    struct plan_step steps[2];
    char reply[10];
    struct plan_server server;
    struct upstream *up;
    struct udp_log log;
};

static void relay_open(struct relay *r, struct up_rig *rig, const char *announced)
{
    struct ip_port at;

    peer_open(&r->peer, rig, "127.0.0.1", false);
    at = (struct ip_port){ rig_addr(announced), r->peer.at.port };
    plan_associate(&r->plan, r->steps, r->reply, &at, PLAN_HANG);
    plan_open(&r->server, rig, &r->plan);
    r->up = rig_socks(r->server.port, NULL, NULL);
    udp_start(rig, &r->log, r->up);
    assert_true(r->log.opened);
}

static void relay_close(struct relay *r)
{
    up_udp_close(r->log.u);
    peer_close(&r->peer);
    plan_close(&r->server);
    upstream_unref(r->up);
}

static void datagrams_carry_their_header_both_ways(
    void **state) /* RFC 1928 section 7; faults.md U3, U8, U9 */
{
    static const char *const announced[] = { "127.0.0.1",
                                             "0.0.0.0" }; /* 0.0.0.0: the server's own address (U8) */
    struct up_rig *rig = *state;

    for (size_t i = 0; i < ARRAY_LEN(announced); i++) {
        struct host_port name = { .name = "A.test", .port = 53 };
        struct ip_port to = { rig_addr("192.0.2.1"), 53 };
        struct relay r;

        relay_open(&r, rig, announced[i]);
        assert_int_equal(udp_rig_send(&r.log, &to, "data", 4, 0), 0);
        assert_int_equal(udp_rig_send(&r.log, &to, "", 0, 0), 0);
        assert_int_equal(up_udp_send(r.log.u, &name, "n", 1, 0, 0, 0), 0);
        until_count(rig, &r.peer.count, 3);
        assert_int_equal(r.peer.got[0].len, 14);
        assert_memory_equal(r.peer.got[0].data, "\0\0\0\1\300\0\2\1\0\65data", 14);
        assert_int_equal(r.peer.got[1].len, 10);
        assert_memory_equal(r.peer.got[2].data, "\0\0\0\3\6a.test\0\65n", 14);
        assert_int_equal(rig->asked, 0);
        name.name = "bad name";
        assert_int_equal(up_udp_send(r.log.u, &name, "n", 1, 0, 0, 0), -EINVAL);

        peer_send(&r.peer, &r.peer.last_from, BYTES("\0\0\0\1\300\0\2\1\0\65answer"));
        until_count(rig, &r.log.count, 1);
        assert_true(ip_port_equal(&r.log.source, &to));
        assert_memory_equal(r.log.last, "answer", 6);
        peer_send(&r.peer, &r.peer.last_from, BYTES("\0\0\0\1\300\0\2\1\0\65"));
        until_count(rig, &r.log.count, 2);
        assert_int_equal(r.log.last_len, 0);
        peer_send(&r.peer, &r.peer.last_from, BYTES("\0\0\0\3\6a.test\0\65by name"));
        until_count(rig, &r.log.count, 3);
        assert_true(ip_is_none(&r.log.source.addr)); /* the owner takes the last target */
        assert_memory_equal(r.log.last, "by name", 7);
        relay_close(&r);
    }
}

static void each_datagram_of_a_row_has_its_header_and_the_row_one_system_call(void **state)
{
    struct up_rig *rig = *state;
    struct host_port to = { .addr = rig_addr("192.0.2.1"), .port = 53 };
    struct iovec row[] = { { (void *)(uintptr_t) "aaaabbbb", 8 },
                           { (void *)(uintptr_t) "cccc", 4 },
                           { (void *)(uintptr_t) "dd", 2 } };
    static const char *const want[] = { "\0\0\0\1\300\0\2\1\0\65aaaa", "\0\0\0\1\300\0\2\1\0\65bbbb",
                                        "\0\0\0\1\300\0\2\1\0\65cccc", "\0\0\0\1\300\0\2\1\0\65dd" };
    struct relay r;
    uint64_t calls;

    relay_open(&r, rig, "127.0.0.1");
    calls = up_counters(rig->env)->send_calls;
    assert_int_equal(up_udp_send_row(r.log.u, &to, row, 3, 4, 0, 0), 0);
    assert_int_equal(up_counters(rig->env)->send_calls - calls, 1);
    until_count(rig, &r.peer.count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(r.peer.got[i].len, i < 3 ? 14 : 12);
        assert_memory_equal(r.peer.got[i].data, want[i], i < 3 ? 14 : 12);
    }
    relay_close(&r);
}

static void malformed_replies_are_dropped_and_counted(void **state) /* faults.md U9 */
{
    static const struct {
        const char *data;
        size_t len;
    } bad[] = {
        { BYTES("") },
        { BYTES("\0\0") },
        { BYTES("\0\0\0\1\300\0\2\1\0") },
        { BYTES("\0\1\0\1\300\0\2\1\0\65x") },
        { BYTES("\0\0\1\1\300\0\2\1\0\65x") },
        { BYTES("\0\0\0\0\300\0\2\1\0\65x") },
        { BYTES("\0\0\0\2\300\0\2\1\0\65x") },
        { BYTES("\0\0\0\5\300\0\2\1\0\65x") },
        { BYTES("\0\0\0\377\300\0\2\1\0\65x") },
        { BYTES("\0\0\0\3\377a\0\65x") },
    };
    struct up_rig *rig = *state;
    struct ip_port to = { rig_addr("192.0.2.1"), 53 };
    struct relay r;

    relay_open(&r, rig, "127.0.0.1");
    assert_int_equal(udp_rig_send(&r.log, &to, "x", 1, 0), 0);
    until_count(rig, &r.peer.count, 1);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        peer_send(&r.peer, &r.peer.last_from, bad[i].data, bad[i].len);
    peer_send(&r.peer, &r.peer.last_from, BYTES("\0\0\0\1\300\0\2\1\0\65good"));
    until_count(rig, &r.log.count, 1);
    assert_int_equal(up_counters(rig->env)->socks_udp_malformed, ARRAY_LEN(bad));
    relay_close(&r);
}

static void a_stranger_does_not_get_in(void **state) /* faults.md U8, U11 */
{
    struct up_rig *rig = *state;
    struct ip_port to = { rig_addr("192.0.2.1"), 53 };
    struct peer stranger;
    struct relay r;

    relay_open(&r, rig, "127.0.0.1");
    peer_open(&stranger, rig, "127.0.0.1", false); /* the right address, the wrong port */
    assert_int_equal(udp_rig_send(&r.log, &to, "x", 1, 0), 0);
    until_count(rig, &r.peer.count, 1);
    peer_send(&stranger, &r.peer.last_from, BYTES("\0\0\0\1\300\0\2\1\0\65forged"));
    peer_send(&r.peer, &r.peer.last_from, BYTES("\0\0\0\1\300\0\2\1\0\65true"));
    until_count(rig, &r.log.count, 1);
    rig_run_ms(rig, 5);
    assert_int_equal(r.log.count, 1);
    assert_memory_equal(r.log.last, "true", 4);
    peer_close(&stranger);
    relay_close(&r);
}

static void a_row_through_a_relay_has_a_header_before_each(void **state)
{
    static uint8_t data[30 * 1000];
    struct up_rig *rig = *state;
    struct ip_port to = { rig_addr("192.0.2.1"), 53 };
    struct relay r;
    uint64_t calls;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i / 1000);
    relay_open(&r, rig, "127.0.0.1");
    calls = up_counters(rig->env)->send_calls;
    assert_int_equal(udp_rig_send(&r.log, &to, data, 29 * 1000 + 5, 1000), 0);
    assert_int_equal(up_counters(rig->env)->send_calls - calls, 1);
    until_count(rig, &r.peer.count, 30);
    for (size_t i = 0; i < 30; i++) {
        assert_int_equal(r.peer.got[i].len, i < 29 ? 1010 : 15);
        assert_memory_equal(r.peer.got[i].data, "\0\0\0\1\300\0\2\1\0\65", 10);
        assert_int_equal(r.peer.got[i].data[10], i);
    }
    relay_close(&r);
}

static void an_association_dies_with_its_control_connection(void **state) /* faults.md U7 */
{
    struct up_rig *rig = *state;
    struct ip_port to = { rig_addr("192.0.2.1"), 53 };
    struct udp_log again;
    struct relay r;
    int fd;

    relay_open(&r, rig, "127.0.0.1");
    assert_int_equal(udp_rig_send(&r.log, &to, "x", 1, 0), 0);
    fd = loop_io_fd(&r.server.conns[0].io);
    shutdown(fd, SHUT_WR);
    rig_until(rig, udp_is_closed, &r.log);
    assert_int_equal(r.log.why.err, -ECONNRESET);
    udp_start(rig, &again, r.up); /* not remembered as "no UDP" */
    assert_true(again.opened);
    up_udp_close(again.u);
    relay_close(&r);
}

static void a_relay_that_is_gone_does_not_end_the_association(void **state) /* faults.md U12 */
{
    struct up_rig *rig = *state;
    struct ip_port to = { rig_addr("192.0.2.1"), 53 };
    struct relay r;

    relay_open(&r, rig, "127.0.0.1");
    peer_close(&r.peer);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(udp_rig_send(&r.log, &to, "x", 1, 0), 0);
        rig_run_ms(rig, 1);
    }
    assert_false(r.log.closed);
    assert_int_equal(r.log.count, 0);
    peer_open(&r.peer, rig, "127.0.0.1", false);
    relay_close(&r);
}

static void an_exit_without_udp_is_learned_once(void **state) /* faults.md U6 */
{
    static const struct plan_step says_no[] = { { 3, BYTES("\5\0"), false },
                                                { 10, BYTES("\5\7\0\1\0\0\0\0\0\0"), false } };
    static const struct plan plans[] = {
        { says_no, 2, PLAN_HANG, 0 },  /* microsocks */
        { says_no, 1, PLAN_CLOSE, 0 }, /* ssh -D hangs up; here before the request has arrived */
        { says_no, 1, PLAN_RESET, 0 },
    };
    struct up_rig *rig = *state;

    for (size_t i = 0; i < ARRAY_LEN(plans); i++) {
        struct plan_server server;
        struct up_health health;
        struct udp_log log;
        struct upstream *up;

        plan_open(&server, rig, &plans[i]);
        up = rig_socks(server.port, NULL, NULL);
        udp_start(rig, &log, up);
        assert_true(log.closed);
        assert_int_equal(log.why.err, -EOPNOTSUPP);
        assert_false(log.why.proxy_fault);
        assert_int_equal(up_udp_open(rig->env, up, 2000000, &udp_log_events, &log, &log.u), -EOPNOTSUPP);
        assert_int_equal(server.accepted, 1);
        up_health_get(rig->env, up, &health);
        assert_true(health.udp_refused);
        assert_int_equal(health.failures, 0);
        plan_close(&server);
        upstream_unref(up);
    }
}

static void udp_false_is_never_tried(void **state) /* faults.md U6 */
{
    struct upstream_options o = { .name = "office", .kind = UPSTREAM_SOCKS5, .udp = UPSTREAM_UDP_OFF };
    struct up_rig *rig = *state;
    struct up_udp *u = NULL;
    struct upstream *up;

    o.server = rig_to("127.0.0.1", 1);
    assert_int_equal(upstream_new(&o, &up), 0);
    assert_int_equal(up_udp_open(rig->env, up, 2000000, &udp_log_events, NULL, &u), -EOPNOTSUPP);
    assert_null(u);
    upstream_unref(up);
}

static void a_relay_without_a_port_is_refused(void **state)
{
    static const struct plan_step steps[] = { { 3, BYTES("\5\0"), false },
                                              { 10, BYTES("\5\0\0\1\177\0\0\1\0\0"), false } };
    static const struct plan plan = { steps, 2, PLAN_HANG, 0 };
    struct up_rig *rig = *state;
    struct plan_server server;
    struct upstream *up;
    struct udp_log log;

    up = plan_socks(&server, rig, &plan);
    udp_start(rig, &log, up);
    assert_true(log.closed);
    assert_int_equal(log.why.err, -EHOSTUNREACH);
    assert_non_null(strstr(log.why.text, "127.0.0.1:0"));
    plan_close(&server);
    upstream_unref(up);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, up_rig_setup, up_rig_teardown)
    static const struct CMUnitTest tests[] = {
        TEST(datagrams_carry_their_header_both_ways),
        TEST(each_datagram_of_a_row_has_its_header_and_the_row_one_system_call),
        TEST(malformed_replies_are_dropped_and_counted),
        TEST(a_stranger_does_not_get_in),
        TEST(a_row_through_a_relay_has_a_header_before_each),
        TEST(an_association_dies_with_its_control_connection),
        TEST(a_relay_that_is_gone_does_not_end_the_association),
        TEST(an_exit_without_udp_is_learned_once),
        TEST(udp_false_is_never_tried),
        TEST(a_relay_without_a_port_is_refused),
    };
    return run_unless(netns_enter(), tests);
}
