/* test_masque_echo.c - src/upstream/masque_echo.c and masque_check.c: pings through a MASQUE server, and whether it is well. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mq_server.h"

#include <cmocka.h>

struct ping_log {
    unsigned answers, errors, held_ok, held_bad;
    int held_err;
    struct up_echo_answer last;
    uint8_t payload[65536];
};

static void on_ping_answer(void *arg, struct upstream *up, const struct up_echo_answer *a)
{
    struct ping_log *log = arg;

    (void)up;
    log->answers += !a->is_error;
    log->errors += a->is_error;
    log->last = *a;
    if (a->payload_len > 0)
        memcpy(log->payload, a->payload, a->payload_len);
}

static void on_ping_held(void *arg, uint64_t cookie, int err)
{
    struct ping_log *log = arg;

    assert_int_equal(cookie, 77);
    log->held_ok += err == 0;
    log->held_bad += err != 0;
    log->held_err = err;
}

static const struct up_echo_events ping_events = { on_ping_answer, on_ping_held };

static int ping(struct mq_lab *l, const char *target, uint16_t seq, const void *payload, uint32_t len)
{
    struct up_echo_request r = { .target = rig_addr(target),
                                 .id = 4711,
                                 .seq = seq,
                                 .ttl = 9,
                                 .tos = 0x20,
                                 .df = true,
                                 .payload = payload,
                                 .payload_len = len,
                                 .cookie = 77 };

    return up_echo_send(l->rig.env, l->up, &r);
}

static bool was_answered(void *arg)
{
    struct ping_log *log = arg;

    return log->answers + log->errors > 0;
}

static bool was_settled(void *arg)
{
    struct ping_log *log = arg;

    return log->held_ok + log->held_bad > 0;
}

static bool server_got_ping(void *arg)
{
    return ((struct mq_server *)arg)->pings > 0;
}

static void pings_go_through_connect_ip(void **state) /* icmp.md T1, T2, T4; RFC 9484 */
{
    static const uint32_t sizes[] = { 0, 56, 1472, 20000, 65507 };
    static uint8_t data[65536];
    static struct ping_log log;
    struct mq_lab l;

    (void)state;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7);
    for (int v6 = 0; v6 < 2; v6++) {
        const char *target = v6 ? "2001:db8::99" : "192.0.2.99";

        mq_lab_init(&l, H2_ALPN);
        up_echo_listen(l.rig.env, &ping_events, &log);
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
            uint32_t len = sizes[i] + (v6 && sizes[i] > 60000 ? 20 : 0);

            log = (struct ping_log){ 0 };
            assert_int_equal(ping(&l, target, (uint16_t)(100 + i), data, len), i == 0 ? 1 : 0);
            rig_until(&l.rig, was_answered, &log);
            assert_int_equal(log.answers, 1);
            assert_int_equal(log.held_ok, i == 0);
            assert_int_equal(log.last.id, 4711);
            assert_int_equal(log.last.seq, 100 + i);
            assert_int_equal(log.last.tos, 0x20);
            assert_int_equal(log.last.ttl, 61);
            assert_int_equal(log.last.payload_len, len);
            assert_memory_equal(log.payload, data, len);
            assert_int_equal(l.server.last_ping[v6 ? 7 : 8], 9); /* our hop limit */
        }
        assert_string_equal(l.server.last_protocol, "connect-ip");
        assert_string_equal(l.server.last_path,
                            v6 ? "/.well-known/masque/ip/%2A/58/" : "/.well-known/masque/ip/%2A/1/");
        assert_int_equal(l.server.requests, 1);
        assert_int_equal(up_echo_state(l.rig.env, l.up, v6), UP_ECHO_READY);
        mq_lab_fini(&l);
    }
}

static void a_far_end_without_pings_is_remembered(void **state) /* icmp.md T10, T14 */
{
    static struct ping_log log;
    struct mq_lab l;

    (void)state;
    mq_lab_init(&l, H2_ALPN);
    l.server.ip_status = 501;
    log = (struct ping_log){ 0 };
    up_echo_listen(l.rig.env, &ping_events, &log);
    assert_int_equal(ping(&l, "192.0.2.1", 1, "x", 1), 1);
    rig_until(&l.rig, was_settled, &log);
    assert_int_equal(log.held_err, -EOPNOTSUPP);
    assert_int_equal(up_echo_state(l.rig.env, l.up, false), UP_ECHO_UNSUPPORTED);
    assert_int_equal(ping(&l, "192.0.2.1", 2, "x", 1), -EOPNOTSUPP);
    assert_int_equal(l.server.requests, 1); /* no frame is sent */
    mq_lab_fini(&l);
}

static void a_tunnel_that_is_down_says_so(void **state) /* icmp.md T11 */
{
    static struct ping_log log;
    struct mq_lab l;

    (void)state;
    mq_lab_init(&l, NULL); /* no HTTP/2 */
    log = (struct ping_log){ 0 };
    up_echo_listen(l.rig.env, &ping_events, &log);
    assert_int_equal(ping(&l, "192.0.2.1", 1, "x", 1), 1);
    rig_until(&l.rig, was_settled, &log);
    assert_int_equal(log.held_err, -EHOSTUNREACH);
    assert_int_equal(ping(&l, "192.0.2.1", 2, "x", 1), -EHOSTUNREACH);
    assert_int_equal(log.answers, 0);
    mq_lab_fini(&l);
}

static void a_cut_loses_pings_and_the_next_one_goes_on(void **state) /* icmp.md T5, T12, T13 */
{
    static struct ping_log log;
    struct mq_lab l;

    (void)state;
    mq_lab_init(&l, H2_ALPN);
    l.server.mute_echo = true;
    log = (struct ping_log){ 0 };
    up_echo_listen(l.rig.env, &ping_events, &log);
    assert_int_equal(ping(&l, "192.0.2.1", 1, "x", 1), 1);
    rig_until(&l.rig, server_got_ping, &l.server);
    mq_cut(&l.server);
    rig_run_ms(&l.rig, 30);
    assert_int_equal(log.answers, 0);
    l.server.mute_echo = false;
    l.server.pings = 0;
    assert_int_equal(ping(&l, "192.0.2.1", 2, "x", 1), 1);
    rig_until(&l.rig, was_answered, &log);
    assert_int_equal(log.last.seq, 2);
    assert_int_equal(l.server.pings, 1); /* the first was not sent again */
    mq_lab_fini(&l);
}

static void a_draining_connection_still_brings_its_answers(void **state) /* icmp.md T17 */
{
    static struct ping_log log;
    struct mq_lab l;

    (void)state;
    mq_lab_init(&l, H2_ALPN);
    log = (struct ping_log){ 0 };
    up_echo_listen(l.rig.env, &ping_events, &log);
    assert_int_equal(ping(&l, "192.0.2.1", 1, "x", 1), 1);
    rig_until(&l.rig, was_answered, &log);
    log.answers = 0;
    assert_int_equal(ping(&l, "192.0.2.1", 2, "x", 1), 0); /* under way ... */
    mq_drain(&l.server);                                   /* ... when the GOAWAY comes */
    rig_until(&l.rig, was_answered, &log);
    assert_int_equal(log.last.seq, 2);
    rig_run_ms(&l.rig, 10);
    log.answers = 0;
    assert_int_equal(ping(&l, "192.0.2.1", 3, "x", 1), 1);
    rig_until(&l.rig, was_answered, &log);
    assert_int_equal(log.last.seq, 3);
    assert_int_equal(l.server.accepted, 2);
    mq_lab_fini(&l);
}

/* ---- is it well? ---- */

static void probe_twice(struct mq_lab *l, struct probe_log *log, uint64_t timeout_us)
{
    *log = (struct probe_log){ .wanted = 2 };
    assert_int_equal(up_probe(l->rig.env, l->up, timeout_us, probe_log_on_probe, log), 0);
    assert_int_equal(up_probe(l->rig.env, l->up, timeout_us, probe_log_on_probe, log), 0);
    rig_until(&l->rig, probe_log_is_done, log);
}

static uint64_t pings_at(const struct mq_lab *l, size_t conn)
{
    return counter_read(&h2_counters(l->server.conns[conn].h2)->pings_received);
}

static void a_probe_is_a_ping_on_the_living_connection(
    void **state) /* icmp.md M11; design.md section 6, Healthy */
{
    struct up_health health;
    struct probe_log log;
    struct stream_log stream;
    struct mq_lab l;
    uint64_t before;

    (void)state;
    mq_lab_init(&l, H2_ALPN);
    probe_twice(&l, &log, 2000000); /* there is none: one handshake, and it stays */
    assert_int_equal(log.err, 0);
    assert_int_equal(l.server.accepted, 1);
    mq_start(&l, &stream, "a.test", 1, 3000);
    rig_until(&l.rig, stream_is_settled, &stream);
    assert_true(stream.opened);
    before = pings_at(&l, 0);
    probe_twice(&l, &log, 2000000);
    assert_int_equal(log.err, 0);
    assert_int_equal(pings_at(&l, 0), before + 1); /* two that ask at the same time are one */
    assert_int_equal(l.server.accepted, 1);
    up_health_get(l.rig.env, l.up, &health);
    assert_int_equal(health.failures, 0);
    mq_drain(&l.server); /* its stream goes on, and the connection takes nothing new */
    rig_run_ms(&l.rig, 20);
    probe_twice(&l, &log, 2000000);
    assert_int_equal(log.err, 0);
    assert_int_equal(l.server.accepted, 2);
    stream_forget(&stream);
    mq_lab_fini(&l);
}

static void a_probe_of_a_server_that_fails_says_so_in_time(void **state) /* icmp.md M11, M17 */
{
    struct probe_log log;
    struct mq_lab l;

    (void)state;
    mq_lab_init(&l, H2_ALPN);
    l.server.raw = ""; /* TLS, and then nothing: its SETTINGS never come */
    probe_twice(&l, &log, 200000);
    assert_int_equal(log.err, -ETIMEDOUT);
    mq_lab_fini(&l);
    mq_lab_init(&l, NULL); /* no HTTP/2 */
    probe_twice(&l, &log, 2000000);
    assert_int_equal(log.err, -EHOSTUNREACH);
    mq_lab_fini(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_probe_is_a_ping_on_the_living_connection),
        cmocka_unit_test(a_probe_of_a_server_that_fails_says_so_in_time),
        cmocka_unit_test(pings_go_through_connect_ip),
        cmocka_unit_test(a_far_end_without_pings_is_remembered),
        cmocka_unit_test(a_tunnel_that_is_down_says_so),
        cmocka_unit_test(a_cut_loses_pings_and_the_next_one_goes_on),
        cmocka_unit_test(a_draining_connection_still_brings_its_answers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
