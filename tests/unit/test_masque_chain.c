/* test_masque_chain.c - a way out of type masque as the hop before another one (`dialer-proxy`): what is spoken through its
 * stream, both ends of it, and every way it can fail. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bulk.h"
#include "mq_server.h"
#include "pki.h"

#include <cmocka.h>

#define BYTES(s)    s, sizeof(s) - 1
#define OPENED      "\5\0\0\1\0\0\0\0\0\0"
#define HTTP_OK     "HTTP/1.1 200 x\r\n\r\n"
#define CONNECT_OUT "CONNECT 192.0.2.1:80 HTTP/1.1\r\nHost: 192.0.2.1:80\r\n\r\n"

enum { OUTER, MIDDLE, INNER, WAYS };

struct setup {
    struct up_rig rig;
    struct mq_server outer,
        inner; /* MIDDLE is spoken to through OUTER, INNER through MIDDLE, by the same two servers */
    struct plan_server plan;
    struct upstream *way[WAYS];
    uint16_t nobody; /* OUTER is at this port instead; 0: its server's */
};

static struct tls_settings *trusting(void)
{
    static const char *const alpn[] = { H2_ALPN };
    const struct pki_id *authority = pki_authority();
    struct tls_options opt = { .resume = true, .alpn = alpn, .alpns = 1 };
    struct tls_settings *settings;
    struct err err;

    assert_int_equal(tls_ca_parse(authority->certificate, strlen(authority->certificate), &opt.ca, &err), 0);
    assert_int_equal(tls_settings_new(&opt, &settings, &err), 0);
    tls_ca_unref(opt.ca);
    return settings;
}

/* OUTER leads to @plan's server, a way out of @kind; or, without a plan, to the second MASQUE server. */
static void make(struct setup *s, enum upstream_kind kind, const struct plan *plan, uint32_t pool)
{
    static const struct plan nothing = { NULL, 0, PLAN_HANG, 0 };
    struct upstream_options list[WAYS] = {
        { .name = "outer", .kind = UPSTREAM_MASQUE, .secure = true },
        { .name = "middle", .kind = kind, .dialer = 1 + OUTER, .pool = pool },
        { .name = "inner", .kind = UPSTREAM_SOCKS5, .dialer = 1 + MIDDLE }
    };
    bool masque = kind == UPSTREAM_MASQUE;

    rig_init(&s->rig);
    mq_open(&s->outer, &s->rig, H2_ALPN);
    mq_open(&s->inner, &s->rig, H2_ALPN);
    plan_open(&s->plan, &s->rig, plan ? plan : &nothing);
    s->outer.relay = masque ? s->inner.port : s->plan.port;
    s->inner.relay = masque && plan ? s->plan.port : 0;
    list[OUTER].server = rig_to("127.0.0.1", s->nobody ? s->nobody : s->outer.port);
    list[MIDDLE].server = rig_to("127.0.0.1", 1080); /* a port that the relay does not look at */
    list[INNER].server = rig_to("inner.test", 1081);
    list[OUTER].tls = trusting();
    if (masque) {
        list[MIDDLE].secure = true;
        list[MIDDLE].tls = tls_settings_ref(list[OUTER].tls);
    }
    assert_int_equal(upstreams_new(list, WAYS, s->way), 0);
    tls_settings_unref(list[OUTER].tls);
    tls_settings_unref(list[MIDDLE].tls);
}

static void unmake(struct setup *s)
{
    plan_close(&s->plan);
    mq_close(&s->outer);
    mq_close(&s->inner);
    for (size_t i = 0; i < WAYS; i++)
        upstream_unref(s->way[i]);
    rig_fini(&s->rig);
}

static void start_through(struct setup *s, struct stream_log *log, unsigned way, unsigned timeout_ms)
{
    struct host_port to = rig_to("192.0.2.1", 80);

    stream_start(&s->rig, log, s->way[way], &to, timeout_ms);
}

static void open_through(struct setup *s, struct stream_log *log, unsigned way, unsigned timeout_ms)
{
    start_through(s, log, way, timeout_ms);
    rig_until(&s->rig, stream_is_settled, log);
}

static bool has_five(void *log)
{
    return ((struct stream_log *)log)->in_len >= 5;
}

static bool plan_ended(void *plan)
{
    return ((struct plan_server *)plan)->closed > 0;
}

/* ---- what it carries ---- */

static const struct plan_step socks5[] = { { 3, BYTES("\5\0"), false }, { 10, BYTES(OPENED "first"), true } };
static const struct plan_step socks4[] = { { 9, BYTES("\0\132\0\0\0\0\0\0first"), true } };
static const struct plan_step http[] = { { sizeof(CONNECT_OUT) - 1, BYTES(HTTP_OK "first"), true } };

static const struct kind_row {
    const char *name;
    enum upstream_kind kind;
    struct plan plan;
} kinds[] = {
    { "socks5", UPSTREAM_SOCKS5, { socks5, 2, PLAN_HANG, 0 } },
    { "socks4", UPSTREAM_SOCKS4, { socks4, 1, PLAN_HANG, 0 } },
    { "http", UPSTREAM_HTTP, { http, 1, PLAN_HANG, 0 } },
};

static void each_kind_of_proxy_is_spoken_to_through_it(void **state) /* faults.md S4, S11 */
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct setup s = { 0 };
        struct stream_log log;

        make(&s, kinds[i].kind, &kinds[i].plan, 0);
        open_through(&s, &log, MIDDLE, 3000);
        if (!log.opened)
            fail_msg("%s: %s", kinds[i].name, log.why.text);
        rig_until(&s.rig, has_five, &log);
        assert_memory_equal(log.in, "first", 5);
        assert_string_equal(s.outer.last_authority, "127.0.0.1:1080");
        up_stream_shutdown(log.s);
        rig_until(&s.rig, plan_ended, &s.plan);
        assert_false(s.plan.saw_reset);
        stream_forget(&log);
        unmake(&s);
    }
}

static void a_hop_behind_a_hop_behind_it(void **state)
{
    static const struct plan_step steps[] = { { 3, BYTES("\5\0"), false },
                                              { 17, BYTES(OPENED), false },
                                              { 3, BYTES("\5\0"), false },
                                              { 10, BYTES(OPENED "first"), true } };
    static const struct plan all = { steps, 4, PLAN_HANG, 0 };
    static const char said[] = "\5\1\0\5\1\0\3\12inner.test\4\71\5\1\0\5\1\0\1\300\0\2\1\0\120";
    struct setup s = { 0 };
    struct stream_log log;

    (void)state;
    make(&s, UPSTREAM_SOCKS5, &all, 0);
    open_through(&s, &log, INNER, 3000);
    assert_true(log.opened);
    rig_until(&s.rig, has_five, &log);
    assert_memory_equal(s.plan.conns[0].in, said, sizeof(said) - 1);
    stream_forget(&log);
    unmake(&s);
}

static void streams_of_an_inner_server_share_one_stream_of_the_outer(void **state)
{
    struct setup s = { 0 };
    struct stream_log logs[20];

    (void)state;
    make(&s, UPSTREAM_MASQUE, NULL, 0);
    for (size_t i = 0; i < ARRAY_LEN(logs); i++)
        start_through(&s, &logs[i], MIDDLE, 5000);
    for (size_t i = 0; i < ARRAY_LEN(logs); i++) {
        rig_until(&s.rig, stream_is_settled, &logs[i]);
        assert_true(logs[i].opened);
        stream_send(&logs[i], "hello", 5);
        rig_until(&s.rig, has_five, &logs[i]);
        assert_memory_equal(logs[i].in, "hello", 5);
    }
    assert_int_equal(s.outer.requests, 1);
    assert_int_equal(s.inner.requests, 20);
    for (size_t i = 0; i < ARRAY_LEN(logs); i++) {
        up_stream_shutdown(logs[i].s);
        rig_until(&s.rig, stream_is_over, &logs[i]);
        assert_true(logs[i].eof);
        stream_forget(&logs[i]);
    }
    assert_int_equal(s.inner.resets, 0);
    unmake(&s);
}

static void a_hop_behind_an_inner_server_talks_inside_both(void **state)
{
    struct setup s = { 0 };
    struct stream_log log;

    (void)state;
    make(&s, UPSTREAM_MASQUE, &kinds[0].plan, 0);
    s.plan.plan = (struct plan){ socks5, 2, PLAN_HANG, 0 };
    open_through(&s, &log, INNER, 5000);
    assert_true(log.opened);
    rig_until(&s.rig, has_five, &log);
    assert_string_equal(s.inner.last_authority, "inner.test:1081");
    stream_forget(&log);
    unmake(&s);
}

/* ---- amounts, and ends ---- */

/* Through one MASQUE server, and through one inside the other. */
static void much_goes_both_ways_and_our_end_leaves_theirs_open(void **state) /* faults.md S16 */
{
    (void)state;
    for (unsigned way = OUTER; way <= MIDDLE; way++) {
        struct echo_server e;
        struct bulk b;
        struct setup s = { 0 };

        make(&s, UPSTREAM_MASQUE, NULL, 0);
        echo_open(&e, &s.rig);
        if (way == OUTER)
            s.outer.relay = e.port;
        s.inner.relay = e.port;
        bulk_start(&s.rig, &b, s.way[way], false);
        rig_until(&s.rig, bulk_over, &b);
        assert_true(b.ended && !b.wrong && !b.closed);
        assert_int_equal(b.got, BULK_BYTES);
        up_stream_close(b.s);
        rig_run_ms(&s.rig, 20);
        assert_int_equal(s.outer.resets + s.inner.resets, 0);
        echo_close(&e);
        unmake(&s);
    }
}

static void a_slow_reader_holds_up_its_own_sender_and_nobody_else(void **state) /* faults.md S14 */
{
    struct stream_log other;
    struct echo_server e;
    struct bulk b;
    struct setup s = { 0 };
    size_t sent;
    int buffer = 65536;

    (void)state;
    make(&s, UPSTREAM_MASQUE, NULL, 0);
    echo_open(&e, &s.rig);
    setsockopt(loop_io_fd(&e.listener), SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
    setsockopt(loop_io_fd(&e.listener), SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
    s.inner.relay = e.port;
    bulk_start(&s.rig, &b, s.way[MIDDLE], true);
    do { /* until nothing moves any more */
        sent = b.sent;
        rig_run_ms(&s.rig, 100);
    } while (b.sent == 0 || b.sent > sent);
    assert_true(b.sent < BULK_BYTES && !b.closed);
    s.inner.relay = 0;
    open_through(&s, &other, MIDDLE, 3000);
    assert_true(other.opened);
    stream_send(&other, "hello", 5);
    rig_until(&s.rig, has_five, &other);
    stream_forget(&other);
    up_stream_want(b.s, LOOP_READ | LOOP_WRITE);
    rig_until(&s.rig, bulk_over, &b);
    assert_true(b.ended && !b.wrong);
    assert_int_equal(b.got, BULK_BYTES);
    up_stream_close(b.s);
    echo_close(&e);
    unmake(&s);
}

/* ---- failures ---- */

static const struct fails_row {
    const char *when;
    unsigned status; /* of the outer server; 0: none */
    enum h2_code reset;
    struct plan_step steps[2];
    size_t count;
    enum plan_end end;
    int err;
    const char *text;
} fails[] = {
    { "the outer wants a login",
      407,
      0,
      { { 0 } },
      0,
      PLAN_HANG,
      -EHOSTUNREACH,
      "middle, reached through outer: outer (127.0.0.1:" },
    { "the outer does not allow it",
      403,
      0,
      { { 0 } },
      0,
      PLAN_HANG,
      -EHOSTUNREACH,
      "middle, reached through outer: outer (127.0.0.1:" },
    { "the outer cannot reach it",
      502,
      0,
      { { 0 } },
      0,
      PLAN_HANG,
      -EHOSTUNREACH,
      "middle, reached through outer: outer (127.0.0.1:" },
    { "the outer resets",
      0,
      H2_INTERNAL_ERROR,
      { { 0 } },
      0,
      PLAN_HANG,
      -EHOSTUNREACH,
      "middle, reached through outer: outer (127.0.0.1:" },
    { "the outer is silent",
      0,
      0,
      { { 0 } },
      0,
      PLAN_HANG,
      -EHOSTUNREACH,
      "middle, reached through outer: outer (127.0.0.1:" },
    { "the next closes", 200, 0, { { 0 } }, 0, PLAN_CLOSE, -EHOSTUNREACH, "middle (127.0.0.1:1080) closed" },
    { "the next resets",
      200,
      0,
      { { 3, BYTES("\5\0"), false } },
      1,
      PLAN_RESET,
      -EHOSTUNREACH,
      "middle (127.0.0.1:1080) reset" },
    { "the next is no SOCKS5 server",
      200,
      0,
      { { 3, BYTES("HTTP"), false } },
      1,
      PLAN_HANG,
      -EHOSTUNREACH,
      "middle (127.0.0.1:1080) is an HTTP server" },
    { "the next wants a login",
      200,
      0,
      { { 3, BYTES("\5\xff"), false } },
      1,
      PLAN_HANG,
      -EHOSTUNREACH,
      "middle (127.0.0.1:1080) wants a login" },
    { "the next is silent",
      200,
      0,
      { { 3, BYTES("\5\0"), false } },
      1,
      PLAN_HANG,
      -EHOSTUNREACH,
      "middle (127.0.0.1:1080) did not finish" },
    { "the target refuses",
      200,
      0,
      { { 3, BYTES("\5\0"), false }, { 10, BYTES("\5\5\0\1\0\0\0\0\0\0"), false } },
      2,
      PLAN_HANG,
      -ECONNREFUSED,
      "middle (127.0.0.1:1080) says that the target refused" },
};

static void a_failure_names_its_hop(void **state) /* faults.md S22, S2, S3 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(fails); i++) {
        const struct fails_row *row = &fails[i];
        const struct plan plan = { row->steps, row->count, row->end, 0 };
        struct setup s = { 0 };
        struct stream_log log;

        make(&s, UPSTREAM_SOCKS5, &plan, 0);
        s.outer.tcp_status = row->status;
        s.outer.reset = row->reset;
        open_through(&s, &log, MIDDLE, 700);
        if (!log.closed || log.why.err != row->err || !strstr(log.why.text, row->text)) {
            print_error("%s: %d \"%s\"\n", row->when, log.why.err, log.why.text);
            wrong++;
        }
        stream_forget(&log);
        unmake(&s);
    }
    assert_int_equal(wrong, 0);
}

static void an_outer_server_that_is_absent_is_named(void **state) /* faults.md S1 */
{
    struct setup s = { 0 };
    struct stream_log log;
    int fd = closed_port(&s.nobody);

    (void)state;
    make(&s, UPSTREAM_SOCKS5, NULL, 0);
    open_through(&s, &log, MIDDLE, 3000);
    assert_true(log.closed);
    assert_non_null(strstr(log.why.text, "middle, reached through outer: outer (127.0.0.1:"));
    assert_non_null(strstr(log.why.text, "refuses connections"));
    stream_forget(&log);
    unmake(&s);
    close(fd);
}

static void a_cut_in_the_middle_is_told_and_names_both(void **state) /* faults.md S17 */
{
    (void)state;
    for (int masque = 0; masque < 2; masque++) {
        struct setup s = { 0 };
        struct stream_log log;

        make(&s, masque ? UPSTREAM_MASQUE : UPSTREAM_SOCKS5, masque ? NULL : &kinds[0].plan, 0);
        open_through(&s, &log, MIDDLE, 3000);
        assert_true(log.opened);
        mq_cut(&s.outer);
        rig_until(&s.rig, stream_is_over, &log);
        assert_true(log.closed);
        assert_int_equal(log.why.err, -ECONNRESET);
        assert_non_null(strstr(log.why.text, "middle, reached through outer, was cut"));
        stream_forget(&log);
        open_through(&s, &log, MIDDLE, 5000); /* and the next one finds a new way */
        assert_true(log.opened);
        assert_int_equal(s.outer.accepted, 2);
        stream_forget(&log);
        unmake(&s);
    }
}

static bool one_is_left(void *mq_server)
{
    struct mq_server *q = mq_server;
    unsigned n = 0;

    for (size_t i = 0; i < MQ_CONNS; i++)
        n += q->conns[i].active;
    return n == 1;
}

static void goaway_of_the_outer_moves_the_inner_and_lets_its_streams_end(
    void **state) /* RFC 9113 section 6.8 */
{
    struct setup s = { 0 };
    struct stream_log first, second;

    (void)state;
    make(&s, UPSTREAM_MASQUE, NULL, 0);
    open_through(&s, &first, MIDDLE, 3000);
    assert_true(first.opened);
    mq_drain(&s.outer);
    rig_run_ms(&s.rig, 50);
    stream_send(&first, "hello", 5);
    rig_until(&s.rig, has_five, &first);
    open_through(&s, &second, MIDDLE, 3000); /* through new ones, both of them */
    assert_true(second.opened);
    assert_int_equal(s.outer.accepted, 2);
    assert_int_equal(s.inner.accepted, 2);
    up_stream_shutdown(first.s);
    rig_until(&s.rig, stream_is_over, &first);
    assert_true(first.eof);
    stream_forget(&first);
    rig_until(&s.rig, one_is_left, &s.inner); /* the old ones end with their last stream */
    rig_until(&s.rig, one_is_left, &s.outer);
    stream_send(&second, "hello", 5);
    rig_until(&s.rig, has_five, &second);
    assert_int_equal(s.outer.resets + s.inner.resets, 0);
    stream_forget(&second);
    unmake(&s);
}

static bool outer_was_asked(void *mq_server)
{
    return ((struct mq_server *)mq_server)->requests == 1;
}

/* Its handshake is under way inside the one that drains: it ends there, serves who waits, and makes room at once. */
static void goaway_of_the_outer_reaches_an_inner_that_comes_later(void **state)
{
    struct setup s = { 0 };
    struct stream_log first, second;

    (void)state;
    make(&s, UPSTREAM_MASQUE, NULL, 0);
    start_through(&s, &first, MIDDLE, 3000);
    rig_until(&s.rig, outer_was_asked, &s.outer);
    mq_drain(&s.outer);
    rig_until(&s.rig, stream_is_settled, &first);
    assert_true(first.opened);
    rig_run_ms(&s.rig, 20);
    open_through(&s, &second, MIDDLE, 3000);
    assert_true(second.opened);
    assert_int_equal(s.outer.accepted, 2);
    assert_int_equal(s.inner.accepted, 2);
    stream_forget(&first);
    stream_forget(&second);
    unmake(&s);
}

static bool plan_was_asked(void *plan)
{
    return ((struct plan_server *)plan)->conns[0].total_in >= 13;
}

static void goaway_of_the_outer_may_come_right_before_the_answer_of_the_next(void **state)
{
    static const struct plan_step steps[] = { { 3, BYTES("\5\0"), false },
                                              { 10, BYTES(OPENED "first"), false } };
    static const struct plan at_once = { steps, 2, PLAN_HANG, 0 };
    struct setup s = { 0 };
    struct stream_log log;

    (void)state;
    make(&s, UPSTREAM_SOCKS5, &at_once, 0);
    start_through(&s, &log, MIDDLE, 3000);
    rig_until(&s.rig, plan_was_asked, &s.plan);
    tls_hold(s.outer.conns[0].tls); /* both leave with one system call */
    mq_go_away(&s.outer, 1);
    rig_until(&s.rig, has_five, &log);
    rig_run_ms(&s.rig, 20);
    assert_true(log.opened && !log.closed);
    stream_forget(&log);
    unmake(&s);
}

static void an_opening_may_be_given_up_at_any_moment(void **state) /* faults.md G4 */
{
    (void)state;
    for (unsigned turns = 0; turns < 40; turns++) {
        struct setup s = { 0 };
        struct stream_log log;

        make(&s, turns % 2 ? UPSTREAM_MASQUE : UPSTREAM_SOCKS5, turns % 2 ? NULL : &kinds[0].plan, 0);
        start_through(&s, &log, MIDDLE, 3000);
        rig_run_ms(&s.rig, turns / 2);
        if (log.opened)
            turns = 40;
        stream_forget(&log);
        unmake(&s);
    }
}

/* ---- dialled ahead ---- */

static bool plan_has_two(void *plan)
{
    return ((struct plan_server *)plan)->accepted >= 2;
}

static void a_pool_of_them(void **state)
{
    struct setup s = { 0 };
    struct stream_log log;
    const struct up_counters *count;

    (void)state;
    make(&s, UPSTREAM_SOCKS5, &kinds[0].plan, 1);
    count = up_counters(s.rig.env);
    open_through(&s, &log, MIDDLE, 3000);
    rig_until(&s.rig, plan_has_two, &s.plan);
    while (counter_read(&count->pool_opened) == 0)
        rig_run_ms(&s.rig, 5);
    stream_forget(&log);
    open_through(&s, &log, MIDDLE, 3000);
    assert_true(log.opened);
    rig_until(&s.rig, has_five, &log);
    assert_int_equal(counter_read(&count->pool_taken), 1);
    stream_forget(&log);
    while (counter_read(&count->pool_opened) < 2)
        rig_run_ms(&s.rig, 5);
    mq_cut(&s.outer); /* what waits is dropped, and not missed */
    while (counter_read(&count->pool_dead) == 0)
        rig_run_ms(&s.rig, 5);
    unmake(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_of_proxy_is_spoken_to_through_it),
        cmocka_unit_test(a_hop_behind_a_hop_behind_it),
        cmocka_unit_test(streams_of_an_inner_server_share_one_stream_of_the_outer),
        cmocka_unit_test(a_hop_behind_an_inner_server_talks_inside_both),
        cmocka_unit_test(much_goes_both_ways_and_our_end_leaves_theirs_open),
        cmocka_unit_test(a_slow_reader_holds_up_its_own_sender_and_nobody_else),
        cmocka_unit_test(a_failure_names_its_hop),
        cmocka_unit_test(an_outer_server_that_is_absent_is_named),
        cmocka_unit_test(a_cut_in_the_middle_is_told_and_names_both),
        cmocka_unit_test(goaway_of_the_outer_moves_the_inner_and_lets_its_streams_end),
        cmocka_unit_test(goaway_of_the_outer_reaches_an_inner_that_comes_later),
        cmocka_unit_test(goaway_of_the_outer_may_come_right_before_the_answer_of_the_next),
        cmocka_unit_test(an_opening_may_be_given_up_at_any_moment),
        cmocka_unit_test(a_pool_of_them),
    };

    return run_unless(netns_enter(), tests);
}
