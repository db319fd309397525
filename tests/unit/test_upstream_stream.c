/* test_upstream_stream.c - streams that open, race, carry and break; DIRECT over loopback. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "up_rig.h"
#include "upstream/upstream_impl.h"

#define BYTES(s) s, sizeof(s) - 1

/* ---- DIRECT ---- */

static void a_direct_stream_carries_both_ways_and_ends(void **state)
{
    static const struct plan_step steps[] = { { 4, BYTES("pong"), false } };
    struct plan plan = { steps, 1, PLAN_CLOSE, 0 };
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct plan_server server;
    struct host_port to;
    struct stream_log log;

    plan_open(&server, rig, &plan);
    to = rig_to("127.0.0.1", server.port);
    stream_start(rig, &log, up, &to, 2000);
    assert_string_equal(up_stream_stage(log.s), "connect");
    rig_until(rig, stream_is_settled, &log);
    assert_true(log.opened);
    assert_string_equal(up_stream_stage(log.s), "stream");
    stream_send(&log, "ping", 4);
    rig_until(rig, stream_is_over, &log);
    assert_true(log.eof);
    assert_int_equal(log.in_len, 4);
    assert_memory_equal(log.in, "pong", 4);
    assert_int_equal(up_counters(rig->env)->bytes_up, 4);
    assert_int_equal(up_counters(rig->env)->bytes_down, 4);
    stream_forget(&log);
    plan_close(&server);
    upstream_unref(up);
}

static void a_refused_target_is_refused_and_nobody_elses_fault(void **state) /* faults.md S1, G8 */
{
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct up_health health;
    struct stream_log log;
    struct host_port to = rig_to("127.0.0.1", 0);
    int fd = closed_port(&to.port);

    stream_settle(rig, &log, up, &to, 2000);
    assert_true(log.closed);
    assert_int_equal(log.why.err, -ECONNREFUSED);
    assert_string_equal(log.why.stage, "connect");
    assert_false(log.why.proxy_fault);
    assert_non_null(strstr(log.why.text, "refuses"));
    up_health_get(rig->env, up, &health);
    assert_int_equal(health.failures, 0);
    close(fd);
    upstream_unref(up);
}

static void nothing_of_ours_is_dialled_back_into_the_tun(void **state) /* faults.md S19 */
{
    static const char *const inside[] = { "198.18.0.7", "0.0.0.0", "0.1.2.3", "::" };
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();

    assert_int_equal(ip_prefix_parse("198.18.0.0/30", &rig->rules.refuse[0]), 0);
    assert_int_equal(ip_prefix_parse("198.18.0.4/30", &rig->rules.refuse[1]), 0);
    rig->rules.refuses = 2;
    for (size_t i = 0; i < ARRAY_LEN(inside); i++) {
        struct host_port to = rig_to(inside[i], 80);
        struct stream_log log;

        stream_settle(rig, &log, up, &to, 2000);
        assert_int_equal(log.why.err, -ELOOP);
        assert_non_null(strstr(log.why.text, "back into the gateway"));
    }
    assert_int_equal(up_counters(rig->env)->loop_refused, ARRAY_LEN(inside));
    upstream_unref(up);
}

static void a_server_name_that_leads_into_the_tun_is_refused(void **state) /* faults.md S19 */
{
    struct upstream_options o = { .name = "office",
                                  .kind = UPSTREAM_SOCKS5,
                                  .server = { .name = "proxy.test", .port = 1080 } };
    struct up_rig *rig = *state;
    struct rig_name *name = rig_name(rig, "proxy.test", RIG_LATER);
    struct host_port to = rig_to("192.0.2.1", 80);
    struct stream_log log;
    struct upstream *up;

    name->addrs[name->n++] = rig_addr("0.0.0.0");
    assert_int_equal(upstream_new(&o, &up), 0);
    stream_start(rig, &log, up, &to, 2000);
    assert_string_equal(up_stream_stage(log.s), "resolve");
    rig_until(rig, stream_is_settled, &log);
    assert_int_equal(log.why.err, -ELOOP);
    upstream_unref(up);
}

static void only_allowed_destinations_are_dialled(void **state)
{
    struct ip_prefix allow;
    struct upstream_options o = { .name = "DIRECT", .kind = UPSTREAM_DIRECT, .allow = &allow, .allows = 1 };
    struct up_rig *rig = *state;
    struct host_port to = rig_to("127.0.0.1", 80);
    struct stream_log log;
    struct upstream *up;

    assert_int_equal(ip_prefix_parse("192.0.2.0/24", &allow), 0);
    assert_int_equal(upstream_new(&o, &up), 0);
    memset(&allow, 0, sizeof(allow)); /* it was copied */
    stream_settle(rig, &log, up, &to, 2000);
    assert_int_equal(log.why.err, -EACCES);
    upstream_unref(up);
}

static void this_host_is_not_the_public_internet(void **state)
{
    const struct ip_addr own = rig_addr("198.41.0.4"), other = rig_addr("198.41.0.5"),
                         lan = rig_addr("192.168.1.1");
    const struct ip_prefix allow = { own, 128 };
    struct upstream_options o = { .name = "DIRECT", .kind = UPSTREAM_DIRECT, .public_only = true };
    struct upstream *up;

    (void)state;
    assert_int_equal(upstream_new(&o, &up), 0);
    assert_true(upstream_allows(up, &other, &own, 1));
    assert_false(upstream_allows(up, &own, &own, 1));
    assert_true(upstream_allows(up, &own, NULL, 0));
    assert_false(upstream_allows(up, &lan, &own, 1));
    upstream_unref(up);
    o.allow = &allow; /* named, so allowed */
    o.allows = 1;
    assert_int_equal(upstream_new(&o, &up), 0);
    assert_true(upstream_allows(up, &own, &own, 1) && upstream_allows(up, &other, &own, 1));
    upstream_unref(up);
}

static void reject_is_refused_at_once(void **state)
{
    struct upstream_options o = { .name = "REJECT", .kind = UPSTREAM_REJECT };
    static const struct up_stream_events none;
    struct up_rig *rig = *state;
    struct host_port to = rig_to("192.0.2.1", 80);
    struct up_stream *s = NULL;
    struct up_udp *u = NULL;
    struct upstream *up;

    assert_int_equal(upstream_new(&o, &up), 0);
    assert_int_equal(up_stream_open(rig->env, up, &to, 1000, &none, NULL, &s), -ECONNREFUSED);
    assert_int_equal(up_udp_open(rig->env, up, 1000, NULL, NULL, &u), -ECONNREFUSED);
    assert_null(s);
    upstream_unref(up);
}

static void without_descriptors_an_opening_fails_alone(void **state) /* faults.md R1 */
{
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    static const struct up_stream_events none;
    struct host_port to = rig_to("127.0.0.1", 9);
    struct rlimit old, low;
    struct up_stream *s = NULL;
    int last = dup(0);

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = old;
    low.rlim_cur = (rlim_t)last;
    close(last);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    assert_int_equal(up_stream_open(rig->env, up, &to, 1000000, &none, NULL, &s), -EMFILE);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_null(s);
    assert_int_equal(up_counters(rig->env)->no_sockets, 1);
    upstream_unref(up);
}

/* The connection of ours that has @fd, as a packet of it would look in the TUN. */
static struct flow_key key_of(int fd, const struct host_port *to)
{
    struct flow_key key = { .proto = IP_PROTO_TCP, .target = to->addr, .target_port = to->port };
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    struct ip_port local;

    assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
    assert_int_equal(ip_from_sockaddr((struct sockaddr *)&ss, &local), 0);
    key.client = local.addr;
    key.client_port = local.port;
    return key;
}

static void our_own_connections_are_known(void **state) /* faults.md E1 */
{
    struct plan plan = { NULL, 0, PLAN_HANG, 0 };
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct plan_server server;
    struct stream_log log;
    struct flow_key key;
    struct host_port to;

    plan_open(&server, rig, &plan);
    to = rig_to("127.0.0.1", server.port);
    stream_settle(rig, &log, up, &to, 2000);
    key = key_of(loop_io_fd(&log.s->io), &to);
    assert_true(own_flows_has(rig->own, &key));
    key.target_port++;
    assert_false(own_flows_has(rig->own, &key));
    key.target_port--;
    stream_forget(&log);
    assert_false(own_flows_has(rig->own, &key));
    plan_close(&server);
    upstream_unref(up);
}

static void a_server_that_has_just_answered_is_dialled_without_the_guard(
    void **state) /* PERF-14, faults.md E1 */
{
    static const struct plan_step steps[] = { { 3, BYTES("\5\0"), false },
                                              { 10, BYTES("\5\0\0\1\177\0\0\1\20\1"), false } };
    static const struct {
        uint64_t ago_us;
        bool guarded;
    } rows[] = { { UINT64_MAX, true }, { 0, false }, { SECOND_US / 2, true }, { 0, false } };
    struct plan plan = { steps, 2, PLAN_HANG, 0 };
    struct host_port to = rig_to("192.0.2.1", 80);
    struct up_rig *rig = *state;
    struct plan_server server;
    struct upstream *up = plan_socks(&server, rig, &plan);
    struct host_port proxy = rig_to("127.0.0.1", server.port);
    struct up_memory *m = env_memory(rig->env, up);

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream_log log;
        struct flow_key key;

        m->health.last_good_us = rows[i].ago_us < UINT64_MAX ? clock_now_us() - rows[i].ago_us : 0;
        stream_settle(rig, &log, up, &to, 5000);
        assert_true(log.opened);
        assert_int_equal(m->unguarded, 0); /* it was answered */
        key = key_of(loop_io_fd(&log.s->io), &proxy);
        assert_int_equal(own_flows_has(rig->own, &key), rows[i].guarded);
        stream_forget(&log);
    }
    plan_close(&server);
    upstream_unref(up);
}

/* A route that changes at the wrong moment: what comes back makes one more dial each time, and the 65th is known. */
static void of_the_dials_that_nobody_answers_64_are_without_the_guard(void **state) /* faults.md E1 */
{
    enum { DIALS = 70, UNGUARDED = 64 };
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct host_port proxy, to = rig_to("192.0.2.1", 80);
    struct stream_log logs[DIALS];
    struct up_rig *rig = *state;
    socklen_t len = sizeof(here);
    struct up_memory *m;
    struct upstream *up;

    assert_int_equal(bind(listener, (struct sockaddr *)&here, sizeof(here)), 0);
    assert_int_equal(listen(listener, 2 * DIALS), 0); /* and nobody ever says a word */
    assert_int_equal(getsockname(listener, (struct sockaddr *)&here, &len), 0);
    proxy = rig_to("127.0.0.1", ntohs(here.sin_port));
    up = rig_socks(proxy.port, NULL, NULL);
    m = env_memory(rig->env, up);
    for (size_t i = 0; i < DIALS; i++) {
        struct flow_key key;

        up_memory_good(rig->env, m);
        stream_start(rig, &logs[i], up, &to, 5000);
        key = key_of(loop_io_fd(&logs[i].s->handshake->io), &proxy);
        assert_int_equal(own_flows_has(rig->own, &key), i >= UNGUARDED);
    }
    assert_int_equal(m->unguarded, UNGUARDED);
    for (size_t i = 0; i < DIALS; i++)
        stream_forget(&logs[i]);
    assert_int_equal(m->unguarded, 0);
    close(listener);
    upstream_unref(up);
}

/* ---- names and several addresses ---- */

static void addresses_take_turns_by_family(void **state) /* RFC 8305 section 4 */
{
    struct ip_addr addrs[5], first = rig_addr("192.0.2.3");
    static const char *const in[] = { "192.0.2.1", "192.0.2.2", "2001:db8::1", "192.0.2.3", "2001:db8::2" };
    static const char *const rows[][5] = {
        { "2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3" },
        { "192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2", "192.0.2.3" },
        { "192.0.2.3", "2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2" },
    };
    void dial_order(struct ip_addr *, size_t, const struct ip_addr *, bool);

    (void)state;
    for (size_t row = 0; row < ARRAY_LEN(rows); row++) {
        char text[IP_TEXT_MAX];

        for (size_t i = 0; i < 5; i++)
            addrs[i] = rig_addr(in[i]);
        dial_order(addrs, 5, row == 2 ? &first : NULL, row == 1);
        for (size_t i = 0; i < 5; i++)
            assert_string_equal(ip_text(&addrs[i], text), rows[row][i]);
    }
}

static void a_silent_address_gives_way_after_250_ms_and_the_winner_is_remembered(
    void **state) /* faults.md S18 */
{
    static const struct plan_step steps[] = { { 3, BYTES("\5\0"), false },
                                              { 10, BYTES("\5\0\0\1\0\0\0\0\0\0"), false } };
    struct upstream_options o = { .name = "office",
                                  .kind = UPSTREAM_SOCKS5,
                                  .server = { .name = "proxy.test" } };
    enum { SILENT = 5 };
    struct plan plan = { steps, 2, PLAN_HANG, 0 };
    struct up_rig *rig = *state;
    struct rig_name *name = rig_name(rig, "proxy.test", RIG_LATER);
    struct host_port to = rig_to("192.0.2.1", 80);
    struct plan_server server;
    struct silence silent[SILENT];
    struct stream_log log;
    struct upstream *up;
    uint64_t start_us;

    plan_open(&server, rig, &plan);
    for (unsigned i = 0; i < SILENT; i++) {
        char addr[32];

        snprintf(addr, sizeof(addr), "127.0.1.%u", i + 1);
        silence_open(&silent[i], addr, server.port);
        name->addrs[name->n++] = rig_addr(addr);
    }
    name->addrs[name->n++] = rig_addr("127.0.0.1");
    o.server.port = server.port;
    assert_int_equal(upstream_new(&o, &up), 0);

    start_us = clock_now_us();
    stream_settle(rig, &log, up, &to, 5000);
    assert_true(log.opened);
    assert_true(log.opened_us - start_us >= SILENT * 250000); /* each of them had its 250 ms */
    stream_forget(&log);

    start_us = clock_now_us();
    stream_settle(rig, &log, up, &to, 5000);
    assert_true(log.opened);
    assert_true(log.opened_us - start_us < 1000000); /* the winner goes first */
    stream_forget(&log);

    name->answer = RIG_FAILS; /* the name disappears: its old addresses serve */
    stream_settle(rig, &log, up, &to, 5000);
    assert_true(log.opened);
    stream_forget(&log);
    for (unsigned i = 0; i < SILENT; i++)
        silence_close(&silent[i]);
    plan_close(&server);
    upstream_unref(up);
}

static void a_refusing_address_gives_way_at_once(void **state) /* faults.md S18 */
{
    struct plan plan = { NULL, 0, PLAN_HANG, 0 };
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct rig_name *name = rig_name(rig, "target.test", RIG_NOW);
    struct plan_server server;
    struct stream_log log;
    struct host_port to;
    uint64_t start_us;

    plan_open(&server, rig, &plan);
    for (unsigned i = 0; i < 7; i++)
        name->addrs[name->n++] = rig_addr(i % 2 ? "127.0.2.1" : "::1");
    name->addrs[name->n++] = rig_addr("127.0.0.1");
    to = rig_to("target.test", server.port);
    start_us = clock_now_us();
    stream_settle(rig, &log, up, &to, 5000);
    assert_true(log.opened);
    assert_true(log.opened_us - start_us < 1000000); /* not seven times 250 ms */
    stream_forget(&log);
    plan_close(&server);
    upstream_unref(up);
}

/* What the rules looked at is what is dialled: another answer, a moment later, changes nothing. */
static void a_name_that_was_looked_up_is_dialled_at_those_addresses_only(void **state)
{
    struct upstream_options list[] = {
        { .name = "DIRECT", .kind = UPSTREAM_DIRECT },
        { .name = "first",
          .kind = UPSTREAM_GROUP,
          .group = &(struct group_options){ .kind = GROUP_SELECT,
                                            .members = (const uint32_t[]){ 0 },
                                            .member_count = 1 } },
    };
    struct plan plan = { NULL, 0, PLAN_HANG, 0 };
    struct up_rig *rig = *state;
    struct rig_name *name = rig_name(rig, "target.test", RIG_NOW);
    struct ip_addr addrs[] = { rig_addr("127.0.2.1"), rig_addr("127.0.0.1") }; /* the first refuses */
    struct plan_server server;
    struct upstream *ups[2];
    struct stream_log log;
    struct host_port to;

    plan_open(&server, rig, &plan);
    name->addrs[name->n++] = rig_addr("127.0.0.1");
    to = rig_to("target.test", server.port);
    assert_int_equal(upstreams_new(list, ARRAY_LEN(list), ups), 0);
    for (size_t i = 0; i < ARRAY_LEN(ups); i++) {
        const struct row {
            struct up_known known;
            bool opens;
            const char *stage;
        } rows[] = {
            { { addrs, 2, 0 }, true, NULL },
            { { addrs, 1, 0 }, false, "connect" },
            { { NULL, 0, -ENOENT }, false, "resolve" },
        };

        for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
            stream_start_known(rig, &log, ups[i], &to, &rows[k].known, 2000);
            rig_until(rig, stream_is_settled, &log);
            assert_int_equal(log.opened, rows[k].opens);
            if (rows[k].stage)
                assert_string_equal(log.why.stage, rows[k].stage);
            stream_forget(&log);
        }
    }
    assert_int_equal(rig->asked, 0);
    plan_close(&server);
    for (size_t i = 0; i < ARRAY_LEN(ups); i++)
        upstream_unref(ups[i]);
}

static void a_name_that_fails_or_hangs_is_told_by_name(void **state)
{
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct host_port to = rig_to("missing.test", 80);
    struct stream_log log;

    stream_settle(rig, &log, up, &to, 2000);
    assert_int_equal(log.why.err, -EHOSTUNREACH);
    assert_string_equal(log.why.stage, "resolve");
    assert_non_null(strstr(log.why.text, "missing.test does not exist"));

    rig_name(rig, "slow.test", RIG_NEVER);
    to = rig_to("slow.test", 80);
    stream_settle(rig, &log, up, &to, 30);
    assert_string_equal(log.why.stage, "resolve");
    assert_int_equal(rig->cancelled, 1);

    stream_start(rig, &log, up, &to, 2000); /* given up by its owner */
    stream_forget(&log);
    assert_int_equal(rig->cancelled, 2);
    upstream_unref(up);
}

/* ---- a stream that is open ---- */

static void a_reset_comes_after_the_bytes_before_it_and_never_as_an_end(void **state) /* faults.md S17, G8 */
{
    static const struct plan_step steps[] = { { 1, BYTES("last words"), false } };
    struct plan plan = { steps, 1, PLAN_RESET, 0 };
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    char in[64];

    for (int send_first = 0; send_first < 2; send_first++) {
        struct plan_server server;
        struct stream_log log;
        struct host_port to;

        plan_open(&server, rig, &plan);
        to = rig_to("127.0.0.1", server.port);
        stream_start(rig, &log, up, &to, 2000);
        log.read_on_open = false;
        rig_until(rig, stream_is_settled, &log);
        stream_send(&log, "x", 1);
        while (server.accepted == 0 || server.conns[0].active)
            rig_run_ms(rig, 1);
        if (send_first) { /* the error is told to the sender, and must still be told to the reader */
            struct iovec iov = { in, 1 };

            assert_int_equal(up_stream_sendv(log.s, &iov, 1), -ECONNRESET);
            assert_int_equal(up_stream_sendv(log.s, &iov, 1), -ECONNRESET);
        }
        assert_int_equal(up_stream_recv(log.s, in, sizeof(in)), 10);
        assert_memory_equal(in, "last words", 10);
        assert_int_equal(up_stream_recv(log.s, in, sizeof(in)), -ECONNRESET);
        assert_false(log.closed); /* not from inside a call */
        rig_until(rig, stream_is_over, &log);
        assert_true(log.closed);
        assert_int_equal(log.why.err, -ECONNRESET);
        stream_forget(&log);
        plan_close(&server);
    }
    upstream_unref(up);
}

static void a_stream_that_broke_may_be_closed_at_once(void **state)
{
    static const struct plan_step steps[] = { { 0, BYTES(""), false } };
    struct plan plan = { steps, 1, PLAN_RESET, 0 };
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct stream_log logs[5];
    struct plan_server server;
    struct host_port to;
    char in[8];

    plan_open(&server, rig, &plan);
    to = rig_to("127.0.0.1", server.port);
    for (size_t i = 0; i < ARRAY_LEN(logs); i++) {
        stream_start(rig, &logs[i], up, &to, 2000);
        logs[i].read_on_open = false;
        rig_until(rig, stream_is_settled, &logs[i]);
        while (server.accepted <= i)
            rig_run_ms(rig, 1);
    }
    for (size_t i = 0; i < ARRAY_LEN(logs); i++) {
        if (logs[i].s)
            assert_int_equal(up_stream_recv(logs[i].s, in, sizeof(in)), -ECONNRESET);
    }
    stream_forget(&logs[1]);
    stream_forget(&logs[0]);
    rig_until(rig, stream_is_over, &logs[4]);
    for (size_t i = 2; i < ARRAY_LEN(logs); i++) {
        assert_true(logs[i].closed);
        stream_forget(&logs[i]);
    }
    plan_close(&server);
    upstream_unref(up);
}

static void a_closed_stream_and_a_reset_one_look_so_to_the_other_side(void **state)
{
    struct plan plan = { NULL, 0, PLAN_HANG, 0 };
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct plan_server server;
    struct stream_log log;
    struct host_port to;

    plan_open(&server, rig, &plan);
    to = rig_to("127.0.0.1", server.port);
    stream_settle(rig, &log, up, &to, 2000);
    stream_send(&log, "bye", 3);
    up_stream_shutdown(log.s);
    rig_until(rig, plan_saw_close, &server);
    assert_int_equal(server.conns[0].total_in, 3);
    rig_until(rig, stream_is_over, &log);
    assert_true(log.eof); /* the plan's server closed in turn */
    up_stream_reset(log.s);
    log.s = NULL;
    stream_forget(&log);
    plan_close(&server);
    upstream_unref(up);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, up_rig_setup, up_rig_teardown)
    static const struct CMUnitTest tests[] = {
        TEST(a_direct_stream_carries_both_ways_and_ends),
        TEST(a_refused_target_is_refused_and_nobody_elses_fault),
        TEST(nothing_of_ours_is_dialled_back_into_the_tun),
        TEST(a_server_name_that_leads_into_the_tun_is_refused),
        TEST(only_allowed_destinations_are_dialled),
        TEST(this_host_is_not_the_public_internet),
        TEST(reject_is_refused_at_once),
        TEST(without_descriptors_an_opening_fails_alone),
        TEST(our_own_connections_are_known),
        TEST(a_server_that_has_just_answered_is_dialled_without_the_guard),
        TEST(of_the_dials_that_nobody_answers_64_are_without_the_guard),
        TEST(addresses_take_turns_by_family),
        TEST(a_silent_address_gives_way_after_250_ms_and_the_winner_is_remembered),
        TEST(a_refusing_address_gives_way_at_once),
        TEST(a_name_that_was_looked_up_is_dialled_at_those_addresses_only),
        TEST(a_name_that_fails_or_hangs_is_told_by_name),
        TEST(a_reset_comes_after_the_bytes_before_it_and_never_as_an_end),
        TEST(a_stream_that_broke_may_be_closed_at_once),
        TEST(a_closed_stream_and_a_reset_one_look_so_to_the_other_side),
    };
    return run_unless(netns_enter(), tests);
}
