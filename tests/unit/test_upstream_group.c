/* test_upstream_group.c - groups and chains against servers that follow a plan: what fails is tried with the next member, before
 * anybody has seen anything; hops that lead to hops. */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "udp_rig.h"

#define BYTES(s) s, sizeof(s) - 1
#define OPENED   "\5\0\0\1\0\0\0\0\0\0"
#define REFUSED  "\5\5\0\1\0\0\0\0\0\0"

static const struct plan_step well[] = { { 3, BYTES("\5\0"), false }, { 10, BYTES(OPENED), false } };
static const struct plan_step refuses_target[] = { { 3, BYTES("\5\0"), false },
                                                   { 10, BYTES(REFUSED), false } };
static const struct plan_step wants_login[] = { { 3, BYTES("\5\xff"), false } };
static const struct plan plan_well = { well, 2, PLAN_HANG, 0 };

enum { DIRECT, A, B, INNER, GROUP, WAYS };

struct setup { /* a group of A and B; INNER is a group of both, for nesting */
    struct up_rig rig;
    struct plan_server server[2];
    struct upstream *way[WAYS];
};

static const uint32_t both[] = { A, B }, nested[] = { INNER, DIRECT };

static void make(struct setup *s, const struct plan *a, const struct plan *b, struct group_options o)
{
    struct upstream_options list[WAYS] = { { .name = "DIRECT", .kind = UPSTREAM_DIRECT },
                                           { .name = "a", .kind = UPSTREAM_SOCKS5 },
                                           { .name = "b", .kind = UPSTREAM_SOCKS5 },
                                           { .name = "inner", .kind = UPSTREAM_GROUP },
                                           { .name = "g", .kind = UPSTREAM_GROUP } };
    struct group_options inner = o;

    rig_init(&s->rig);
    plan_open(&s->server[0], &s->rig, a);
    plan_open(&s->server[1], &s->rig, b);
    list[A].server = rig_to("127.0.0.1", s->server[0].port);
    list[B].server = rig_to("127.0.0.1", s->server[1].port);
    inner.members = both;
    inner.member_count = 2;
    if (!o.members) {
        o.members = both;
        o.member_count = 2;
    }
    o.timeout_ms = inner.timeout_ms = o.timeout_ms > 0 ? o.timeout_ms : 1000;
    o.max_failures = inner.max_failures = o.max_failures > 0 ? o.max_failures : 2;
    o.retry_after_ms = inner.retry_after_ms = o.retry_after_ms > 0 ? o.retry_after_ms : 30000;
    list[INNER].group = &inner;
    list[GROUP].group = &o;
    assert_int_equal(upstreams_new(list, WAYS, s->way), 0);
}

static void unmake(struct setup *s)
{
    plan_close(&s->server[0]);
    plan_close(&s->server[1]);
    for (size_t i = 0; i < WAYS; i++)
        upstream_unref(s->way[i]);
    rig_fini(&s->rig);
}

static uint64_t counted(struct setup *s, size_t offset)
{
    return counter_read((const counter *)((const char *)up_counters(s->rig.env) + offset));
}
#define COUNTED(s, member) counted(s, offsetof(struct up_counters, member))

static void open_through(struct setup *s, struct stream_log *log, unsigned way, unsigned timeout_ms)
{
    struct host_port to = rig_to("192.0.2.1", 80);

    stream_settle(&s->rig, log, s->way[way], &to, timeout_ms);
}

/* ---- the next member ---- */

static const struct fails_row {
    const char *how;
    struct plan plan;
} fails[] = {
    { "closes at once", { NULL, 0, PLAN_CLOSE, 0 } },
    { "resets in the middle", { well, 1, PLAN_RESET, 0 } },
    { "refuses the login", { wants_login, 1, PLAN_CLOSE, 0 } },
    { "talks nonsense", { NULL, 0, PLAN_HANG, 100 } },
    { "says nothing at all", { NULL, 0, PLAN_HANG, 0 } },
};

static void what_the_first_member_fails_the_next_one_does(void **state) /* faults.md S1, E9 */
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(fails); i++) {
        struct setup s = { 0 };
        struct stream_log log;

        make(&s, &fails[i].plan, &plan_well, (struct group_options){ .kind = GROUP_FALLBACK });
        open_through(&s, &log, GROUP, 1000);
        if (!log.opened)
            fail_msg("%s: %s", fails[i].how, log.why.text);
        assert_ptr_equal(up_stream_way(log.s), s.way[B]);
        assert_int_equal(COUNTED(&s, group_retries), 1);
        assert_int_equal(COUNTED(&s, streams_failed), 0);
        stream_forget(&log);
        unmake(&s);
    }
}

static void a_target_that_refuses_is_not_tried_again(void **state)
{
    static const struct plan no = { refuses_target, 2, PLAN_CLOSE, 0 };
    struct setup s = { 0 };
    struct stream_log log;

    (void)state;
    make(&s, &no, &plan_well, (struct group_options){ .kind = GROUP_FALLBACK });
    open_through(&s, &log, GROUP, 1000);
    assert_true(log.closed);
    assert_int_equal(log.why.err, -ECONNREFUSED);
    assert_int_equal(s.server[1].accepted, 0);
    stream_forget(&log);
    unmake(&s);
}

static void when_all_fail_the_last_word_is_told(void **state)
{
    static const struct plan no = { NULL, 0, PLAN_CLOSE, 0 };
    struct setup s = { 0 };
    struct stream_log log;

    (void)state;
    make(&s, &no, &no, (struct group_options){ .kind = GROUP_FALLBACK });
    open_through(&s, &log, GROUP, 1000);
    assert_int_equal(log.why.err, -EHOSTUNREACH);
    assert_true(log.why.proxy_fault);
    assert_non_null(strstr(log.why.text, "b (127.0.0.1:"));
    stream_forget(&log);
    unmake(&s);
}

/* ---- the circuit ---- */

static bool a_is_well(void *arg)
{
    struct setup *s = arg;
    struct up_group_info info;

    assert_int_equal(up_group_info(s->rig.env, s->way[GROUP], &info), 0);
    return !info.member[0].down;
}

static bool all_are_accepted(void *arg) /* the server may be behind */
{
    struct setup *s = arg;

    return s->server[0].accepted >= 100 + COUNTED(s, group_tests);
}

static void after_max_failures_new_flows_fail_at_once_until_a_test_succeeds(void **state) /* faults.md S20 */
{
    static const struct plan no = { NULL, 0, PLAN_CLOSE, 0 };
    static const uint32_t one[] = { A };
    static struct stream_log logs[100];
    struct setup s = { 0 };
    struct host_port to = rig_to("192.0.2.1", 80);

    (void)state;
    make(&s, &no, &plan_well,
         (struct group_options){
             .kind = GROUP_FALLBACK, .members = one, .member_count = 1, .retry_after_ms = 4000 });
    for (size_t i = 0; i < ARRAY_LEN(logs); i++)
        stream_start(&s.rig, &logs[i], s.way[GROUP], &to, 2000);
    for (size_t i = 0; i < ARRAY_LEN(logs); i++) {
        rig_until(&s.rig, stream_is_settled, &logs[i]);
        assert_true(logs[i].closed);
        stream_forget(&logs[i]);
    }
    /* The hundred were under way together; from now on nothing is dialled but for tests. */
    for (size_t i = 0; i < 10; i++) {
        open_through(&s, &logs[0], GROUP, 2000);
        assert_non_null(strstr(logs[0].why.text, "no member of g is well"));
        stream_forget(&logs[0]);
    }
    assert_int_equal(COUNTED(&s, group_refused), 10);
    s.server[0].plan = plan_well;
    rig_until(&s.rig, a_is_well, &s);
    rig_until(&s.rig, all_are_accepted, &s);
    assert_int_equal(s.server[0].accepted, 100 + COUNTED(&s, group_tests));
    open_through(&s, &logs[0], GROUP, 2000);
    assert_true(logs[0].opened);
    stream_forget(&logs[0]);
    unmake(&s);
}

static void a_nested_group_without_a_well_member_is_left_out(void **state)
{
    static const struct plan no = { NULL, 0, PLAN_CLOSE, 0 };
    struct setup s = { 0 };
    struct stream_log log;

    (void)state;
    make(&s, &no, &no,
         (struct group_options){
             .kind = GROUP_FALLBACK, .members = nested, .member_count = 2, .max_failures = 1 });
    assert_string_equal(upstream_name(up_current(s.rig.env, s.way[GROUP])), "a");
    open_through(&s, &log, INNER, 1000);
    stream_forget(&log);
    assert_string_equal(upstream_name(up_current(s.rig.env, s.way[GROUP])), "DIRECT");
    unmake(&s);
}

static void a_pick_is_obeyed_and_names_are_checked(void **state)
{
    struct setup s = { 0 };
    struct stream_log log;

    (void)state;
    make(&s, &plan_well, &plan_well, (struct group_options){ .kind = GROUP_SELECT });
    assert_int_equal(up_group_pick(s.rig.env, s.way[GROUP], "nobody"), -ENOENT);
    assert_int_equal(up_group_pick(s.rig.env, s.way[A], "a"), -EINVAL);
    assert_int_equal(up_group_pick(s.rig.env, s.way[GROUP], "b"), 0);
    open_through(&s, &log, GROUP, 1000);
    assert_ptr_equal(up_stream_way(log.s), s.way[B]);
    stream_forget(&log);
    unmake(&s);
}

static void a_pick_survives_a_reload_by_name(void **state)
{
    static const uint32_t three[] = { 0, 1, 2 };
    struct setup s = { 0 };
    struct group_options o = { .kind = GROUP_SELECT, .members = three, .member_count = 3, .max_failures = 1 };
    struct upstream_options list[] = {
        { .name = "DIRECT", .kind = UPSTREAM_DIRECT },
        { .name = "b", .kind = UPSTREAM_SOCKS5, .server = rig_to("127.0.0.1", 1) },
        { .name = "a", .kind = UPSTREAM_SOCKS5, .server = rig_to("127.0.0.1", 2) },
        { .name = "g", .kind = UPSTREAM_GROUP, .group = &o }
    };
    struct upstream *out[4];

    (void)state;
    make(&s, &plan_well, &plan_well, (struct group_options){ .kind = GROUP_SELECT });
    assert_int_equal(up_group_pick(s.rig.env, s.way[GROUP], "b"), 0);
    assert_int_equal(upstreams_new(list, 4, out), 0);
    assert_ptr_equal(up_current(s.rig.env, out[3]), out[1]);
    for (size_t i = 0; i < 4; i++)
        upstream_unref(out[i]);
    unmake(&s);
}

static void a_circle_is_refused(void **state)
{
    static const uint32_t self[] = { 0 };
    struct group_options o = { .kind = GROUP_SELECT, .members = self, .member_count = 1 };
    struct upstream_options list[] = { { .name = "g", .kind = UPSTREAM_GROUP, .group = &o } };
    struct upstream_options chain[] = { { .name = "a", .kind = UPSTREAM_SOCKS5, .dialer = 2 },
                                        { .name = "b", .kind = UPSTREAM_SOCKS5, .dialer = 1 } };
    struct upstream *out[2];

    (void)state;
    chain[0].server = chain[1].server = rig_to("127.0.0.1", 1);
    assert_int_equal(upstreams_new(list, 1, out), -ELOOP);
    assert_int_equal(upstreams_new(chain, 2, out), -ELOOP);
}

/* ---- tests by url ---- */

static bool both_are_tested(void *arg)
{
    struct setup *s = arg;
    struct up_group_info info;

    assert_int_equal(up_group_info(s->rig.env, s->way[GROUP], &info), 0);
    return info.member[1].delay_us != 0 && (info.member[0].delay_us != 0 || info.member[0].down);
}

static void url_test_takes_the_one_that_answers(void **state)
{
    /* the greeting, CONNECT to cp.test, then "HEAD /204 HTTP/1.1 ..." through it */
    static const struct plan_step tested[] = { { 3, BYTES("\5\0"), false },
                                               { 14, BYTES(OPENED), false },
                                               { 20, BYTES("HTTP/1.1 204 x\r\n\r\n"), false } };
    static const struct plan_step dumb[] = { { 3, BYTES("\5\0"), false }, { 14, BYTES(OPENED), false } };
    static const struct plan yes = { tested, 3, PLAN_HANG, 0 }, no = { dumb, 2, PLAN_CLOSE, 0 };
    struct setup s = { 0 };
    struct group_options o = { .kind = GROUP_URL_TEST,
                               .url = { .name = "cp.test", .port = 80 },
                               .url_path = "/204" };

    (void)state;
    make(&s, &no, &yes, o);
    assert_int_equal(up_group_start(s.rig.env, s.way[GROUP], true), 0);
    rig_until(&s.rig, both_are_tested, &s);
    assert_string_equal(upstream_name(up_current(s.rig.env, s.way[GROUP])), "b");
    assert_memory_equal(s.server[1].conns[0].in + 3, "\5\1\0\3\7cp.test\0\120", 14);
    assert_memory_equal(s.server[1].conns[0].in + 17, "HEAD /204 HTTP/1.1\r\nHost: cp.test:80\r\n", 38);
    unmake(&s);
}

/* ---- datagrams ---- */

#define RELAYS "\5\0\0\1\177\0\0\1\0\65"
static const struct plan_step relays_udp[] = { { 3, BYTES("\5\0"), false }, { 10, BYTES(RELAYS), false } };
static const struct plan_step refuses_udp[] = { { 3, BYTES("\5\0"), false },
                                                { 10, BYTES("\5\7\0\1\0\0\0\0\0\0"), false } };
static const struct plan plan_udp = { relays_udp, 2, PLAN_HANG, 0 },
                         plan_no_udp = { refuses_udp, 2, PLAN_CLOSE, 0 };

static void a_member_without_udp_is_passed_over_by_associations(void **state) /* faults.md U6 */
{
    struct udp_log udp;
    struct stream_log log;
    struct setup s = { 0 };

    (void)state;
    make(&s, &plan_no_udp, &plan_udp, (struct group_options){ .kind = GROUP_FALLBACK });
    for (unsigned i = 0; i < 3; i++) { /* asked once, and then known */
        udp_start(&s.rig, &udp, s.way[GROUP]);
        assert_true(udp.opened);
        assert_string_equal(upstream_name(up_udp_way(udp.u)), "b");
        assert_int_equal(s.server[0].accepted, 1);
        assert_int_equal(s.server[1].accepted, 1 + i);
        up_udp_close(udp.u);
    }
    assert_string_equal(upstream_name(up_current(s.rig.env, s.way[GROUP])), "a"); /* no worse for it */
    assert_false(up_udp_may_take(s.rig.env, s.way[GROUP], s.way[A]));
    assert_true(up_udp_may_take(s.rig.env, s.way[GROUP], s.way[B]));
    open_through(&s, &log, GROUP, 1000);
    assert_int_equal(s.server[0].accepted, 2);
    stream_forget(&log);
    unmake(&s);
}

static void any_well_member_that_takes_turns_may_keep_its_association(void **state)
{
    static const enum group_kind kinds[] = { GROUP_LOAD_BALANCE, GROUP_FALLBACK };
    static const uint32_t inner[] = { INNER };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        for (int deep = 0; deep < 2; deep++) {
            struct setup s = { 0 };

            make(&s, &plan_udp, &plan_udp,
                 (struct group_options){ .kind = kinds[i],
                                         .strategy = GROUP_ROUND_ROBIN,
                                         .members = deep ? inner : NULL,
                                         .member_count = deep });
            assert_true(up_udp_may_take(s.rig.env, s.way[GROUP], s.way[A]));
            assert_int_equal(up_udp_may_take(s.rig.env, s.way[GROUP], s.way[B]),
                             kinds[i] == GROUP_LOAD_BALANCE);
            assert_false(up_udp_may_take(s.rig.env, s.way[GROUP], s.way[DIRECT]));
            assert_true(up_udp_may_take(s.rig.env, s.way[A], s.way[A]));
            unmake(&s);
        }
    }
}

static void without_a_member_that_has_it_there_is_no_udp(void **state) /* faults.md U6 */
{
    static const enum group_kind kinds[] = { GROUP_FALLBACK, GROUP_SELECT }; /* a pick is obeyed */

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct udp_log udp;
        struct setup s = { 0 };

        make(&s, &plan_no_udp, kinds[i] == GROUP_SELECT ? &plan_udp : &plan_no_udp,
             (struct group_options){ .kind = kinds[i] });
        for (unsigned again = 0; again < 2; again++) {
            udp_start(&s.rig, &udp, s.way[GROUP]);
            assert_true(udp.closed);
            assert_int_equal(udp.why.err, -EOPNOTSUPP);
        }
        assert_non_null(strstr(udp.why.text, "no member of g that could be taken carries UDP"));
        assert_int_equal(s.server[1].accepted, kinds[i] == GROUP_SELECT ? 0 : 1);
        assert_false(udp.why.proxy_fault);
        unmake(&s);
    }
}

/* ---- chains ---- */

static void chain_of(struct setup *s, const struct plan *first)
{
    struct upstream_options list[] = { { .name = "outer", .kind = UPSTREAM_HTTP },
                                       { .name = "middle", .kind = UPSTREAM_SOCKS5, .dialer = 1 },
                                       { .name = "inner", .kind = UPSTREAM_SOCKS5, .dialer = 2 } };

    rig_init(&s->rig);
    plan_open(&s->server[0], &s->rig, first);
    plan_open(&s->server[1], &s->rig, &plan_well);
    list[0].server = rig_to("127.0.0.1", s->server[0].port);
    list[1].server = rig_to("192.0.2.10", 1080);
    list[2].server = rig_to("inner.test", 1081);
    assert_int_equal(upstreams_new(list, 3, s->way), 0);
}

#define CONNECT_OUT "CONNECT 192.0.2.10:1080 HTTP/1.1\r\nHost: 192.0.2.10:1080\r\n\r\n"

static void a_chain_asks_each_hop_for_the_next(void **state)
{
    static const struct plan_step steps[] = { { sizeof(CONNECT_OUT) - 1, BYTES("HTTP/1.1 200 x\r\n\r\n"),
                                                false },
                                              { 3, BYTES("\5\0"), false },
                                              { 17, BYTES(OPENED), false },
                                              { 3, BYTES("\5\0"), false },
                                              { 10, BYTES(OPENED "first"), true } };
    static const struct plan all = { steps, 5, PLAN_HANG, 0 };
    static const char said[] = CONNECT_OUT "\5\1\0\5\1\0\3\12inner.test\4\71\5\1\0\5\1\0\1\300\0\2\1\0\120";
    struct setup s = { 0 };
    struct stream_log log;

    (void)state;
    chain_of(&s, &all);
    open_through(&s, &log, 2, 3000);
    assert_true(log.opened);
    while (log.in_len < 5)
        rig_run_ms(&s.rig, 5);
    assert_memory_equal(log.in, "first", 5);
    assert_memory_equal(s.server[0].conns[0].in, said, sizeof(said) - 1);
    stream_forget(&log);
    unmake(&s);
}

static const struct hop_row {
    const char *when;
    struct plan_step steps[4];
    size_t count;
    const char *text;
} hops[] = {
    { "the first closes", { { 0 } }, 0, "middle, reached through outer: outer (127.0.0.1:" },
    { "the first refuses the second",
      { { 30, BYTES("HTTP/1.1 502 x\r\n\r\n"), false } },
      1,
      "middle, reached through outer: outer (127.0.0.1:" },
    { "the second is no SOCKS5 server",
      { { sizeof(CONNECT_OUT) - 1, BYTES("HTTP/1.1 200 x\r\n\r\n"), false }, { 3, BYTES("HTTP"), false } },
      2,
      "inner, reached through middle: middle (192.0.2.10:1080) is an HTTP server" },
    { "the second cannot reach the third",
      { { sizeof(CONNECT_OUT) - 1, BYTES("HTTP/1.1 200 x\r\n\r\n"), false },
        { 3, BYTES("\5\0"), false },
        { 17, BYTES(REFUSED), false } },
      3,
      "inner, reached through middle: middle (192.0.2.10:1080) says that the target refused" },
    { "the third refuses the login",
      { { sizeof(CONNECT_OUT) - 1, BYTES("HTTP/1.1 200 x\r\n\r\n"), false },
        { 3, BYTES("\5\0"), false },
        { 17, BYTES(OPENED), false },
        { 3, BYTES("\5\xff"), false } },
      4,
      "inner (inner.test) wants a login" },
};

static void a_failure_names_its_hop(void **state) /* faults.md S22 */
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(hops); i++) {
        const struct plan plan = { hops[i].steps, hops[i].count, PLAN_CLOSE, 0 };
        struct setup s = { 0 };
        struct stream_log log;

        chain_of(&s, &plan);
        open_through(&s, &log, 2, 3000);
        assert_true(log.closed);
        if (!strstr(log.why.text, hops[i].text) || log.why.err != -EHOSTUNREACH || !log.why.proxy_fault)
            fail_msg("%s: %d \"%s\"", hops[i].when, log.why.err, log.why.text);
        stream_forget(&log);
        unmake(&s);
    }
}

static void a_silent_hop_ends_with_the_whole_opening(void **state) /* faults.md S22, S2 */
{
    static const struct plan silent = { NULL, 0, PLAN_HANG, 0 };
    struct setup s = { 0 };
    struct stream_log log;

    (void)state;
    chain_of(&s, &silent);
    open_through(&s, &log, 2, 300);
    assert_true(log.closed);
    assert_non_null(strstr(log.why.text, "reached through outer: outer (127.0.0.1:"));
    assert_int_equal(log.why.err, -EHOSTUNREACH);
    stream_forget(&log);
    unmake(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_first_member_fails_the_next_one_does),
        cmocka_unit_test(a_target_that_refuses_is_not_tried_again),
        cmocka_unit_test(when_all_fail_the_last_word_is_told),
        cmocka_unit_test(after_max_failures_new_flows_fail_at_once_until_a_test_succeeds),
        cmocka_unit_test(a_nested_group_without_a_well_member_is_left_out),
        cmocka_unit_test(a_pick_is_obeyed_and_names_are_checked),
        cmocka_unit_test(a_pick_survives_a_reload_by_name),
        cmocka_unit_test(a_circle_is_refused),
        cmocka_unit_test(url_test_takes_the_one_that_answers),
        cmocka_unit_test(a_member_without_udp_is_passed_over_by_associations),
        cmocka_unit_test(any_well_member_that_takes_turns_may_keep_its_association),
        cmocka_unit_test(without_a_member_that_has_it_there_is_no_udp),
        cmocka_unit_test(a_chain_asks_each_hop_for_the_next),
        cmocka_unit_test(a_failure_names_its_hop),
        cmocka_unit_test(a_silent_hop_ends_with_the_whole_opening),
    };

    return run_unless(netns_enter(), tests);
}
