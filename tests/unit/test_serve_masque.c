/* test_serve_masque.c - the MASQUE server: streams, logins and limits, certificates. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "masque_lab.h"

/* ---- TCP ---- */

static bool got_four(void *arg)
{
    return ((struct stream_side *)arg)->got >= 4;
}

static void a_stream_is_a_connection_and_half_closes_both_ways(void **state)
{
    static const struct plan_step steps[] = { { 4, "pong", 4, false } };
    struct plan plan = { steps, 1, PLAN_CLOSE, 0 };
    struct masque_lab *lab = *state;
    struct plan_server target;
    struct stream_side *s;

    masque_lab_start(lab);
    plan_open(&target, &lab->h2.rig, &plan);
    s = masque_lab_ask(lab, "127.0.0.1", target.port);
    assert_int_equal(s->status, 200);
    assert_int_equal(h2_put(s, "ping", 4), 4);
    rig_until(&lab->h2.rig, h2_has_ended, s);
    assert_int_equal(s->got, 4);
    assert_memory_equal(s->in, "pong", 4);
    h2_stream_close(s->s, H2_NO_ERROR);
    plan_close(&target);
    plan.end = PLAN_HANG;
    plan_open(&target, &lab->h2.rig, &plan);
    s = masque_lab_ask(lab, "127.0.0.1", target.port);
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
    struct masque_lab *lab = *state;
    struct plan_server target, other;
    struct stream_side *s;

    masque_lab_start(lab);
    plan_open(&target, &lab->h2.rig, &plan);
    s = masque_lab_ask(lab, "127.0.0.1", target.port);
    h2_put(s, "ping", 4);
    rig_until(&lab->h2.rig, h2_was_closed, s);
    assert_int_equal(s->code, H2_CONNECT_ERROR);
    plan_open(&other, &lab->h2.rig, &hang);
    s = masque_lab_ask(lab, "127.0.0.1", other.port);
    h2_stream_close(s->s, H2_CANCEL);
    rig_until(&lab->h2.rig, plan_saw_close, &other);
    assert_true(other.saw_reset);
    plan_close(&target);
    plan_close(&other);
}

static void a_target_that_floods_is_held_up_by_a_client_that_does_not_read(void **state)
{
    struct plan plan = { NULL, 0, PLAN_HANG, 64 << 20 };
    struct masque_lab *lab = *state;
    struct plan_server target;
    struct stream_side *s;
    uint64_t moved;

    masque_lab_start(lab);
    plan_open(&target, &lab->h2.rig, &plan);
    s = masque_lab_ask(lab, "127.0.0.1", target.port);
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
    struct masque_lab *lab = *state;
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

    masque_lab_start(lab);
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
    assert_int_equal(masque_lab_ask(lab, "127.0.0.1", closed)->status, 502);
    assert_int_equal(wrong, 0);
    close(fd);
}

/* ---- logins and limits ---- */

static unsigned ask_as(struct masque_lab *lab, const char *login, uint16_t port)
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
    struct masque_options o = masque_lab_options();
    struct plan plan = { NULL, 0, PLAN_HANG, 0 };
    struct masque_lab *lab = *state;
    struct plan_server target;

    o.users = users;
    o.user_count = 2;
    o.per_user.flows = 2;
    assert_int_equal(serve_ledger_new(&o.per_user, 2, &lab->ledger), 0);
    o.ledger = lab->ledger;
    masque_lab_serve(lab, &o);
    masque_lab_connect(lab);
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
    return masque_counters(((struct masque_lab *)lab)->masque)->bytes_down >= 300000;
}

static void a_relay_keeps_to_its_users_rate(void **state)
{
    struct masque_options o = masque_lab_options();
    struct plan plan = { NULL, 0, PLAN_HANG, 4 << 20 };
    struct masque_lab *lab = *state;
    struct plan_server target;
    struct stream_side *s;
    uint64_t since_us;

    o.per_user.bytes_per_second = 1000000;
    assert_int_equal(serve_ledger_new(&o.per_user, 0, &lab->ledger), 0);
    o.ledger = lab->ledger;
    masque_lab_serve(lab, &o);
    masque_lab_connect(lab);
    plan_open(&target, &lab->h2.rig, &plan);
    since_us = clock_now_us();
    s = masque_lab_ask(lab, "127.0.0.1", target.port);
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
    struct masque_options fresh = masque_lab_options();
    struct masque_lab *lab = *state;
    struct plan_server target;
    struct stream_side *s;

    masque_lab_start(lab);
    plan_open(&target, &lab->h2.rig, &plan);
    s = masque_lab_ask(lab, "127.0.0.1", target.port);
    fresh.tls = masque_lab_settings();
    assert_int_equal(masque_set_access(lab->masque, masque_access_new(&fresh)), 0);
    tls_settings_unref(fresh.tls);
    tls_settings_unref(lab->server_tls); /* the old session is all that holds the old certificate now */
    lab->server_tls = NULL;
    h2_put(s, "ping", 4);
    rig_until(&lab->h2.rig, got_four, s);
    masque_lab_leave(lab);
    masque_lab_connect(lab);
    assert_int_equal(masque_lab_ask(lab, "127.0.0.1", target.port)->status, 200);
    plan_close(&target);
}

static void a_session_is_resumed_by_another_thread_of_the_server(void **state)
{
    struct masque_options o = masque_lab_options();
    struct masque_lab *lab = *state;
    struct err err = { "" };
    struct masque *first;

    masque_lab_start(lab);
    assert_false(tls_resumed(lab->tls));
    (void)h2_ping(lab->h2.client.h);
    rig_run_ms(&lab->h2.rig, 20); /* with TLS 1.3 the ticket comes behind the handshake */
    masque_lab_leave(lab);
    first = lab->masque;
    o.tls = lab->server_tls;
    assert_int_equal(masque_open(&o, lab->h2.rig.env, &lab->masque, &err), 0);
    masque_lab_connect(lab);
    assert_true(tls_resumed(lab->tls));
    masque_close(first);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, masque_lab_setup, masque_lab_teardown)

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
    };

    return run_unless(netns_enter(), tests);
}
