/* test_upstream_pipeline.c - greeting, login and request in one message: who is told so, and what becomes of servers that
 * do not take it. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "up_rig.h"
#include "upstream/upstream_impl.h"

#define BYTES(s) s, sizeof(s) - 1
#define REPLY    "\5\0\0\1\177\0\0\1\20\1"
#define REQUEST  "\5\1\0\1\300\0\2\1\0\120"

static const struct plan_step plain[] = { { 3, BYTES("\5\0"), false }, { 10, BYTES(REPLY), false } };
static const struct plan_step refusing[] = { { 3, BYTES("\5\0"), false },
                                             { 10, BYTES("\5\5\0\1\0\0\0\0\0\0"), false } };
static const struct plan_step with_login[] = { { 3, BYTES("\5\2"), false },
                                               { 14, BYTES("\1\0"), false },
                                               { 10, BYTES(REPLY), false } };

/* Opens the server, too; leave() ends both. */
static struct upstream *office(struct up_rig *rig, struct plan_server *server, const struct plan *plan,
                               enum upstream_pipelining how, const char *user)
{
    struct upstream_options o = { .name = "office",
                                  .kind = UPSTREAM_SOCKS5,
                                  .pipelining = how,
                                  .username = user,
                                  .password = user ? "sesame" : NULL };
    struct upstream *up;

    plan_open(server, rig, plan);
    o.server = rig_to("127.0.0.1", server->port);
    assert_int_equal(upstream_new(&o, &up), 0);
    return up;
}

static void leave(struct plan_server *server, struct upstream *up)
{
    plan_close(server);
    upstream_unref(up);
}

/* One stream, until it is open or has failed. Return: 0 or the error. */
static int open_once(struct up_rig *rig, struct upstream *up)
{
    struct host_port to = rig_to("192.0.2.1", 80);
    struct stream_log log;
    int err;

    stream_settle(rig, &log, up, &to, 5000);
    err = log.opened ? 0 : log.why.err;
    stream_forget(&log);
    return err;
}

static bool all_ended(void *arg)
{
    struct plan_server *server = arg;

    for (size_t i = 0; i < PLAN_CONNS; i++) {
        if (server->conns[i].active)
            return false;
    }
    return true;
}

/* What the server got in its first segment of the connection that came last; all connections are over then. */
static size_t first_said(struct up_rig *rig, struct plan_server *server)
{
    rig_until(rig, all_ended, server);
    return server->conns[0].first_in;
}

static void a_server_that_takes_it_is_told_all_at_once_from_then_on(void **state)
{
    struct plan plan = { .steps = plain, .count = 2, .end = PLAN_HANG };
    struct up_rig *rig = *state;
    struct plan_server server;
    struct upstream *up;

    up = office(rig, &server, &plan, UPSTREAM_PIPELINING_AUTO, NULL);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(open_once(rig, up), 0);
        assert_int_equal(first_said(rig, &server), i == 0 ? 3 : 3 + 10);
        assert_memory_equal(server.conns[0].in, "\5\1\0" REQUEST, 13);
    }
    assert_true(env_memory(rig->env, up)->pipelining_proved);
    assert_int_equal(server.accepted, 3);
    leave(&server, up);
}

static void a_refusal_proves_as_much_as_a_success(void **state)
{
    struct plan plan = { .steps = refusing, .count = 2, .end = PLAN_HANG };
    struct up_rig *rig = *state;
    struct plan_server server;
    struct upstream *up;

    up = office(rig, &server, &plan, UPSTREAM_PIPELINING_ON, NULL);
    assert_int_equal(open_once(rig, up), -ECONNREFUSED);
    assert_int_equal(first_said(rig, &server), 13); /* `true`: from the first one on */
    assert_true(env_memory(rig->env, up)->pipelining_proved);
    leave(&server, up);
}

static void only_one_is_on_trial_while_the_others_go_step_by_step(void **state)
{
    struct plan plan = { .steps = plain, .count = 2, .end = PLAN_HANG };
    struct host_port to = rig_to("192.0.2.1", 80);
    struct up_rig *rig = *state;
    struct stream_log logs[4];
    struct plan_server server;
    struct upstream *up;
    int at_once = 0;

    up = office(rig, &server, &plan, UPSTREAM_PIPELINING_AUTO, NULL);
    assert_int_equal(open_once(rig, up), 0);
    rig_until(rig, all_ended, &server);
    for (size_t i = 0; i < ARRAY_LEN(logs); i++)
        stream_start(rig, &logs[i], up, &to, 5000);
    for (size_t i = 0; i < ARRAY_LEN(logs); i++)
        rig_until(rig, stream_is_settled, &logs[i]);
    for (size_t i = 0; i < ARRAY_LEN(logs); i++) {
        assert_true(logs[i].opened);
        at_once += server.conns[i].first_in > 3;
        stream_forget(&logs[i]);
    }
    assert_in_range(at_once, 1, ARRAY_LEN(logs) - 1);
    leave(&server, up);
}

static void with_a_login_only_its_method_is_offered(void **state)
{
    struct plan plan = { .steps = with_login, .count = 3, .end = PLAN_HANG };
    struct up_rig *rig = *state;
    struct plan_server server;
    struct upstream *up;

    up = office(rig, &server, &plan, UPSTREAM_PIPELINING_ON, "alice");
    assert_int_equal(open_once(rig, up), 0);
    assert_int_equal(first_said(rig, &server), 27);
    assert_memory_equal(server.conns[0].in, "\5\1\2\1\5alice\6sesame" REQUEST, 27);
    leave(&server, up);
}

/* ---- servers that choke ---- */

static const struct choke_row {
    const char *who;
    bool forgets, strict;
} chokes[] = {
    { "throws away what came with the greeting, and waits", true, false },
    { "closes when there is more than the greeting", false, true },
};

static void a_server_that_chokes_is_asked_again_step_by_step_and_remembered(void **state)
{
    struct up_rig *rig = *state;

    for (size_t i = 0; i < ARRAY_LEN(chokes); i++) {
        struct plan plan = { .steps = plain, .count = 2, .end = PLAN_HANG };
        struct plan_server server;
        struct up_memory *m;
        struct upstream *up;

        up = office(rig, &server, &plan, UPSTREAM_PIPELINING_AUTO, NULL);
        server.forgets = chokes[i].forgets;
        server.strict = chokes[i].strict;
        m = env_memory(rig->env, up);
        assert_int_equal(open_once(rig, up), 0);
        rig_until(rig, all_ended, &server);
        if (open_once(rig, up) != 0) /* the trial: its client sees a stream, only a little later */
            print_error("a server that %s\n", chokes[i].who);
        rig_until(rig, all_ended, &server);
        assert_int_equal(server.accepted, 3);
        assert_int_equal(m->health.failures, 0);
        assert_false(m->pipelining_tried || m->pipelining_proved);
        assert_true(m->no_pipelining_until_us > loop_now_us(rig->loop) + 600 * SECOND_US);
        assert_int_equal(open_once(rig, up), 0);
        assert_int_equal(first_said(rig, &server), 3);
        assert_int_equal(server.accepted, 4);
        leave(&server, up);
    }
}

static void a_proved_server_that_changes_its_mind_is_found_out(void **state)
{
    struct plan plan = { .steps = plain, .count = 2, .end = PLAN_HANG };
    struct up_rig *rig = *state;
    struct plan_server server;
    struct upstream *up;

    up = office(rig, &server, &plan, UPSTREAM_PIPELINING_ON, NULL);
    assert_int_equal(open_once(rig, up), 0);
    rig_until(rig, all_ended, &server);
    server.strict = true;
    assert_int_equal(open_once(rig, up), 0);
    assert_false(env_memory(rig->env, up)->pipelining_proved);
    assert_int_equal(server.accepted, 3);
    leave(&server, up);
}

static void a_target_that_is_silent_costs_the_server_its_proof_and_no_more(void **state)
{
    static const struct plan_step mute[] = { { 3, BYTES("\5\0"), false } };
    struct plan plan = { .steps = plain, .count = 2, .end = PLAN_HANG };
    struct host_port to = rig_to("192.0.2.1", 80);
    struct up_rig *rig = *state;
    struct plan_server server;
    struct stream_log log;
    struct up_memory *m;
    struct upstream *up;

    up = office(rig, &server, &plan, UPSTREAM_PIPELINING_ON, NULL);
    m = env_memory(rig->env, up);
    assert_int_equal(open_once(rig, up), 0);
    rig_until(rig, all_ended, &server);
    server.plan = (struct plan){ .steps = mute, .count = 1, .end = PLAN_HANG };
    stream_settle(rig, &log, up, &to, 100);
    assert_true(log.closed);
    stream_forget(&log);
    assert_int_equal(up_counters(rig->env)->started_over, 0);
    assert_true(!m->pipelining_proved && !m->pipelining_tried && m->no_pipelining_until_us == 0);
    server.plan = plan;
    rig_until(rig, all_ended, &server);
    assert_int_equal(open_once(rig, up), 0);
    assert_int_equal(first_said(rig, &server), 13);
    assert_true(m->pipelining_proved);
    leave(&server, up);
}

static void a_trial_that_is_given_up_leaves_room_for_the_next(void **state)
{
    struct plan plan = { .steps = plain, .count = 1, .end = PLAN_HANG };
    struct host_port to = rig_to("192.0.2.1", 80);
    struct up_rig *rig = *state;
    struct plan_server server;
    struct stream_log log;
    struct up_memory *m;
    struct upstream *up;

    up = office(rig, &server, &plan, UPSTREAM_PIPELINING_AUTO, NULL);
    m = env_memory(rig->env, up);
    m->health.last_good_us = 1;
    stream_start(rig, &log, up, &to, 5000);
    rig_run_ms(rig, 20);
    assert_true(m->pipelining_tried);
    stream_forget(&log);
    assert_false(m->pipelining_tried);
    leave(&server, up);
}

/* ---- how much of the reply to ask for ---- */

static void a_reply_that_is_shorter_than_the_last_one_costs_no_byte_of_the_target(
    void **state) /* faults.md S4 */
{
    static const char hello[] = "\5\0\0\3\0\20\1"
                                "220 hello";
    const struct plan_step shorter[] = { { 3, BYTES("\5\0"), false },
                                         { 10, hello, sizeof(hello) - 1, false } };
    struct plan plan = { .steps = plain, .count = 2, .end = PLAN_HANG };
    struct host_port to = rig_to("192.0.2.1", 80);
    struct up_rig *rig = *state;
    struct plan_server server;
    struct stream_log log;
    struct upstream *up;

    for (int how = 0; how < 2; how++) {
        up = office(rig, &server, &plan, how ? UPSTREAM_PIPELINING_ON : UPSTREAM_PIPELINING_OFF, NULL);
        assert_int_equal(open_once(rig, up), 0);
        rig_until(rig, all_ended, &server);
        assert_int_equal(env_memory(rig->env, up)->reply_len, 10);
        server.plan = (struct plan){ .steps = shorter, .count = 2, .end = PLAN_CLOSE };
        stream_start(rig, &log, up, &to, 5000);
        rig_until(rig, stream_is_over, &log);
        assert_true(log.opened && log.eof);
        assert_int_equal(log.in_len, 9);
        assert_memory_equal(log.in, "220 hello", 9);
        stream_forget(&log);
        leave(&server, up);
    }
}

/* ---- with the first packet ---- */

static bool allow_fast_open(void)
{
    FILE *f = fopen("/proc/sys/net/ipv4/tcp_fastopen", "w");

    return f && fputs("3", f) >= 0 && fclose(f) == 0;
}

static bool said_with_the_syn(const struct stream_log *log)
{
    struct tcp_info info = { 0 };
    socklen_t len = sizeof(info);

    assert_int_equal(getsockopt(loop_io_fd(&log->s->io), IPPROTO_TCP, TCP_INFO, &info, &len), 0);
    return (info.tcpi_options & TCPI_OPT_SYN_DATA) != 0;
}

static void with_a_cookie_everything_leaves_with_the_first_packet(void **state) /* RFC 7413 section 4.1 */
{
    struct plan plan = { .steps = plain, .count = 2, .end = PLAN_HANG };
    struct upstream_options o = {
        .name = "office", .kind = UPSTREAM_SOCKS5, .pipelining = UPSTREAM_PIPELINING_ON, .fast_open = true
    };
    struct host_port to = rig_to("192.0.2.1", 80);
    struct up_rig *rig = *state;
    struct plan_server server;
    struct stream_log log;
    struct upstream *up;
    int queue = 16, closed;

    if (!allow_fast_open())
        SKIP("TCP Fast Open cannot be switched on here");
    plan_open(&server, rig, &plan);
    assert_int_equal(
        setsockopt(loop_io_fd(&server.listener), IPPROTO_TCP, TCP_FASTOPEN, &queue, sizeof(queue)), 0);
    o.server = rig_to("127.0.0.1", server.port);
    assert_int_equal(upstream_new(&o, &up), 0);
    for (int i = 0; i < 3; i++) {
        stream_settle(rig, &log, up, &to, 5000);
        assert_true(log.opened);
        assert_true(said_with_the_syn(&log) == (i > 0));
        stream_forget(&log);
        rig_until(rig, all_ended, &server);
    }
    leave(&server, up);
    closed = closed_port(
        &o.server.port); /* the cookie is the address's: its refusal comes after the first words */
    assert_int_equal(upstream_new(&o, &up), 0);
    stream_settle(rig, &log, up, &to, 5000);
    assert_string_equal(log.why.stage, "connect");
    assert_non_null(strstr(log.why.text, "refuses connections"));
    assert_int_equal(log.why.err, -EHOSTUNREACH);
    stream_forget(&log);
    close(closed);
    upstream_unref(up);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, up_rig_setup, up_rig_teardown)
    static const struct CMUnitTest tests[] = {
        TEST(a_server_that_takes_it_is_told_all_at_once_from_then_on),
        TEST(a_refusal_proves_as_much_as_a_success),
        TEST(only_one_is_on_trial_while_the_others_go_step_by_step),
        TEST(with_a_login_only_its_method_is_offered),
        TEST(a_server_that_chokes_is_asked_again_step_by_step_and_remembered),
        TEST(a_proved_server_that_changes_its_mind_is_found_out),
        TEST(a_target_that_is_silent_costs_the_server_its_proof_and_no_more),
        TEST(a_trial_that_is_given_up_leaves_room_for_the_next),
        TEST(a_reply_that_is_shorter_than_the_last_one_costs_no_byte_of_the_target),
        TEST(with_a_cookie_everything_leaves_with_the_first_packet),
    };
    return run_unless(netns_enter(), tests);
}
