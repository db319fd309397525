/* test_masque.c - src/upstream/masque*.c: streams and associations through a MASQUE server, and every way it can fail. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mq_server.h"

#include <cmocka.h>

static bool has_five(void *arg)
{
    return ((struct stream_log *)arg)->in_len >= 5;
}

static void streams_share_one_connection(void **state)
{
    struct mq_lab l;
    struct stream_log logs[20];
    struct up_health health;

    (void)state;
    mq_lab_init(&l, H2_ALPN);
    for (size_t i = 0; i < ARRAY_LEN(logs); i++)
        mq_start(&l, &logs[i], i % 2 ? "target.test" : "2001:db8::1", 443, 5000);
    for (size_t i = 0; i < ARRAY_LEN(logs); i++) {
        rig_until(&l.rig, stream_is_settled, &logs[i]);
        assert_true(logs[i].opened);
        stream_send(&logs[i], "hello", 5);
        rig_until(&l.rig, has_five, &logs[i]);
        assert_memory_equal(logs[i].in, "hello", 5);
    }
    assert_int_equal(l.server.accepted, 1);
    assert_int_equal(l.server.requests, 20);
    assert_string_equal(l.server.last_authority, "target.test:443");
    for (size_t i = 0; i < ARRAY_LEN(logs); i++) {
        up_stream_shutdown(logs[i].s);
        rig_until(&l.rig, stream_is_over, &logs[i]);
        assert_true(logs[i].eof);
        stream_forget(&logs[i]);
    }
    up_health_get(l.rig.env, l.up, &health);
    assert_true(health.rtt_us > 0 && health.last_good_us > 0);
    mq_lab_fini(&l);
}

static void the_login_is_sent(void **state) /* RFC 7617, RFC 6750 */
{
    struct mq_lab l;
    struct stream_log log;

    (void)state;
    for (int token = 0; token < 2; token++) {
        mq_lab_init(&l, H2_ALPN);
        upstream_unref(l.up);
        l.up = token ? mq_upstream(&l.server, NULL, NULL, "s3cret")
                     : mq_upstream(&l.server, "alice", "pw", NULL);
        mq_start(&l, &log, "a.test", 1, 5000);
        rig_until(&l.rig, stream_is_settled, &log);
        assert_string_equal(l.server.login, token ? "Bearer s3cret" : "Basic YWxpY2U6cHc=");
        stream_forget(&log);
        mq_lab_fini(&l);
    }
}

static const struct answer_row {
    unsigned status;
    const char *proxy_status;
    enum h2_code reset;
    int err;
    bool proxy_fault;
    const char *text;
} answers[] = {
    { 407, NULL, 0, -EHOSTUNREACH, true, "407" },
    { 403, NULL, 0, -EACCES, false, "does not allow" },
    { 502, "x; error=connection_refused", 0, -ECONNREFUSED, false, "refused" },
    { 502, NULL, 0, -EHOSTUNREACH, false, "could not reach" },
    { 504, NULL, 0, -ETIMEDOUT, false, "in time" },
    { 405, NULL, 0, -EHOSTUNREACH, true, "CONNECT" },
    { 301, NULL, 0, -EHOSTUNREACH, true, "301" },
    { 0, NULL, H2_CONNECT_ERROR, -ECONNREFUSED, false, "refused" },
    { 0, NULL, H2_ENHANCE_YOUR_CALM, -EHOSTUNREACH, true, "too much" },
    { 0, NULL, H2_REFUSED_STREAM, -EHOSTUNREACH, true, "REFUSED_STREAM" },
    { 0, NULL, H2_INTERNAL_ERROR, -EHOSTUNREACH, true, "code 2" },
};

static void answers_mean_what_they_mean_in_http_1(void **state) /* faults.md S12 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        const struct answer_row *row = &answers[i];
        struct stream_log log;
        struct mq_lab l;

        mq_lab_init(&l, H2_ALPN);
        l.server.tcp_status = row->status;
        l.server.proxy_status = row->proxy_status;
        l.server.reset = row->reset;
        mq_start(&l, &log, "a.test", 1, 3000);
        rig_until(&l.rig, stream_is_settled, &log);
        if (!log.closed || log.why.err != row->err || log.why.proxy_fault != row->proxy_fault ||
            !strstr(log.why.text, row->text)) {
            print_error("%u, %d: err %d, fault %d, \"%s\"\n", row->status, row->reset, log.why.err,
                        log.why.proxy_fault, log.why.text);
            wrong++;
        }
        if (row->reset == H2_REFUSED_STREAM && l.server.requests != 2) { /* once more, and not again */
            print_error("asked %u times\n", l.server.requests);
            wrong++;
        }
        stream_forget(&log);
        mq_lab_fini(&l);
    }
    assert_int_equal(wrong, 0);
}

static void a_server_without_http_2_is_named(void **state)
{
    static const struct {
        const char *alpn, *raw, *text;
    } rows[] = {
        { NULL, NULL, "ALPN h2" },
        { H2_ALPN, "HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/2" },
        { H2_ALPN, "SSH-2.0-x\r\n", "HTTP/2" },
    };
    struct stream_log log;
    struct mq_lab l;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        mq_lab_init(&l, rows[i].alpn);
        l.server.raw = rows[i].raw;
        mq_start(&l, &log, "a.test", 1, 3000);
        rig_until(&l.rig, stream_is_settled, &log);
        assert_true(log.closed && log.why.proxy_fault);
        assert_int_equal(log.why.err, -EHOSTUNREACH);
        if (!strstr(log.why.text, rows[i].text))
            fail_msg("row %zu: \"%s\"", i, log.why.text);
        stream_forget(&log);
        mq_lab_fini(&l);
    }
}

static void a_silent_server_ends_with_the_opening_s_time(void **state) /* faults.md S2 */
{
    struct stream_log log;
    struct mq_lab l;

    (void)state;
    mq_lab_init(&l, H2_ALPN);
    l.server.raw = ""; /* TLS, then nothing */
    mq_start(&l, &log, "a.test", 1, 300);
    rig_until(&l.rig, stream_is_settled, &log);
    assert_int_equal(log.why.err, -EHOSTUNREACH);
    stream_forget(&log);
    mq_lab_fini(&l);
    mq_lab_init(&l, H2_ALPN);
    l.server.tcp_status = 0; /* HTTP/2, and no answer */
    mq_start(&l, &log, "a.test", 1, 300);
    rig_until(&l.rig, stream_is_settled, &log);
    assert_int_equal(log.why.err, -EHOSTUNREACH);
    assert_non_null(strstr(log.why.text, "request"));
    assert_false(log.why.proxy_fault);
    stream_forget(&log);
    mq_lab_fini(&l);
}

static void a_window_that_never_opens_holds_up_one_stream(void **state) /* faults.md S14 */
{
    static char data[65536];
    struct stream_log slow, fast;
    struct iovec iov = { data, sizeof(data) };
    struct mq_lab l;
    size_t sent = 0;

    (void)state;
    mq_lab_init(&l, H2_ALPN);
    l.server.hold = true;
    mq_start(&l, &slow, "a.test", 1, 3000);
    rig_until(&l.rig, stream_is_settled, &slow);
    for (int i = 0; i < 50; i++) {
        ssize_t n = up_stream_sendv(slow.s, &iov, 1);

        sent += n > 0 ? (size_t)n : 0;
        rig_run_ms(&l.rig, 1);
    }
    assert_in_range(sent, 65535, 65535 + 65536 + 16384);
    l.server.hold = false;
    mq_start(&l, &fast, "b.test", 1, 3000);
    rig_until(&l.rig, stream_is_settled, &fast);
    stream_send(&fast, "hello", 5);
    rig_until(&l.rig, has_five, &fast);
    stream_forget(&slow);
    stream_forget(&fast);
    mq_lab_fini(&l);
}

static void goaway_drains_and_the_next_stream_dials(void **state)
{
    struct stream_log old, fresh;
    struct mq_lab l;

    (void)state;
    mq_lab_init(&l, H2_ALPN);
    mq_start(&l, &old, "a.test", 1, 3000);
    rig_until(&l.rig, stream_is_settled, &old);
    mq_drain(&l.server);
    rig_run_ms(&l.rig, 20);
    mq_start(&l, &fresh, "b.test", 1, 3000);
    rig_until(&l.rig, stream_is_settled, &fresh);
    assert_true(fresh.opened);
    assert_int_equal(l.server.accepted, 2);
    stream_send(&old, "hello", 5); /* the old one goes on */
    rig_until(&l.rig, has_five, &old);
    up_stream_shutdown(old.s);
    rig_until(&l.rig, stream_is_over, &old);
    assert_true(old.eof);
    stream_forget(&old);
    stream_forget(&fresh);
    mq_lab_fini(&l);
}

/* RFC 9113 section 6.8: streams above the number were not looked at, so they are asked for again at once. */
static void what_goaway_leaves_out_is_asked_for_on_a_new_connection(void **state)
{
    enum {
        SENT = 100,
        ALL = 130
    }; /* what a client may send before SETTINGS; the others wait, and may never leave */
    static struct stream_log logs[ALL];
    static const unsigned last_ids[] = { 0, 2 * (SENT / 2) - 1, 2 * SENT - 1 };

    (void)state;
    for (size_t row = 0; row < ARRAY_LEN(last_ids); row++) {
        unsigned taken = (last_ids[row] + 1) / 2;
        struct mq_lab l;

        mq_lab_init(&l, H2_ALPN);
        l.server.tcp_status = 0;
        l.server.max_streams = SENT;
        for (size_t i = 0; i < ALL; i++)
            mq_start(&l, &logs[i], "a.test", 1, 60000);
        while (l.server.requests < SENT)
            rig_run_ms(&l.rig, 1);
        l.server.tcp_status = 200;
        l.server.max_streams = 2 * ALL;
        mq_go_away(&l.server, last_ids[row]);
        for (size_t i = taken; i < ALL; i++) {
            rig_until(&l.rig, stream_is_settled, &logs[i]);
            assert_true(logs[i].opened);
        }
        assert_int_equal(l.server.accepted, 2);
        assert_int_equal(l.server.requests, SENT + ALL - taken);
        for (size_t i = 0; i < ALL; i++) {
            assert_true(i >= taken || !stream_is_settled(&logs[i]));
            stream_forget(&logs[i]);
        }
        mq_lab_fini(&l);
    }
}

static void a_cut_connection_breaks_its_streams_and_comes_back(void **state) /* faults.md S17 */
{
    struct stream_log log, again;
    struct mq_lab l;

    (void)state;
    mq_lab_init(&l, H2_ALPN);
    mq_start(&l, &log, "a.test", 1, 3000);
    rig_until(&l.rig, stream_is_settled, &log);
    mq_cut(&l.server);
    rig_until(&l.rig, stream_is_over, &log);
    assert_true(log.closed);
    assert_int_equal(log.why.err, -ECONNRESET);
    stream_forget(&log);
    mq_start(&l, &again, "a.test", 1, 3000);
    rig_until(&l.rig, stream_is_settled, &again);
    assert_true(again.opened);
    assert_int_equal(l.server.accepted, 2);
    stream_forget(&again);
    mq_lab_fini(&l);
}

static void a_server_that_fails_is_not_hammered(void **state) /* faults.md S13: back-off with jitter */
{
    struct stream_log log;
    struct mq_lab l;

    (void)state;
    mq_lab_init(&l, NULL); /* no HTTP/2 there */
    for (int i = 0; i < 100; i++) {
        mq_start(&l, &log, "a.test", 1, 3000);
        rig_until(&l.rig, stream_is_settled, &log);
        assert_int_equal(log.why.err, -EHOSTUNREACH);
        assert_non_null(strstr(log.why.text, "ALPN h2")); /* the reason stays */
        stream_forget(&log);
    }
    assert_in_range(l.server.accepted, 1, 10);
    mq_lab_fini(&l);
}

/* ---- datagrams -------------------------------------------------------------------------------------------------------- */

struct udp_log {
    struct up_udp *u;
    bool open, closed;
    struct up_failure why;
    unsigned got, errors;
    struct ip_port last_source;
    uint8_t last[2048];
    size_t last_len;
    int icmp_type, icmp_code;
};

static void on_udp_open(void *arg)
{
    ((struct udp_log *)arg)->open = true;
}

static void on_datagrams(void *arg, const struct up_datagram *d, size_t n)
{
    struct udp_log *log = arg;

    for (size_t i = 0; i < n; i++) {
        log->got++;
        log->last_source = d[i].source;
        log->last_len = d[i].len;
        memcpy(log->last, d[i].data, d[i].len < sizeof(log->last) ? d[i].len : sizeof(log->last));
    }
}

static void on_udp_error(void *arg, const struct ip_port *target, const struct ip_addr *offender, int type,
                         int code, uint32_t mtu)
{
    struct udp_log *log = arg;

    (void)target, (void)offender, (void)mtu;
    log->errors++;
    log->icmp_type = type;
    log->icmp_code = code;
}

static void on_udp_closed(void *arg, const struct up_failure *why)
{
    struct udp_log *log = arg;

    log->closed = true;
    log->why = *why;
    log->u = NULL;
}

static const struct up_udp_events udp_events = { on_udp_open, on_datagrams, on_udp_error, on_udp_closed };

static bool udp_settled(void *arg)
{
    struct udp_log *log = arg;

    return log->open || log->closed;
}

static bool udp_over(void *arg)
{
    return ((struct udp_log *)arg)->closed;
}

static bool udp_got(void *arg)
{
    struct udp_log *log = arg;

    return log->got > 0 || log->errors > 0;
}

static void open_udp(struct mq_lab *l, struct udp_log *log)
{
    *log = (struct udp_log){ 0 };
    assert_int_equal(up_udp_open(l->rig.env, l->up, 3000000, &udp_events, log, &log->u), 0);
    rig_until(&l->rig, udp_settled, log);
}

static void send_udp(struct udp_log *log, const char *host, uint16_t port, const void *data, size_t len)
{
    struct host_port to = rig_to(host, port);

    assert_int_equal(up_udp_send(log->u, &to, data, len, 0, 0, 0), 0);
}

static void datagrams_go_by_one_stream_a_target(void **state) /* RFC 9298 */
{
    struct udp_log log;
    struct mq_lab l;

    (void)state;
    mq_lab_init(&l, H2_ALPN);
    open_udp(&l, &log);
    assert_true(log.open);
    for (int i = 0; i < 300; i++) {
        struct host_port to;
        char host[32];

        snprintf(host, sizeof(host), "192.0.2.%d", 1 + i % 100);
        log.got = 0;
        send_udp(&log, host, 53, "question", 8);
        rig_until(&l.rig, udp_got, &log);
        assert_int_equal(log.last_len, 8);
        assert_int_equal(log.last_source.port, 53);
        to = rig_to(host, 53);
        assert_true(ip_equal(&log.last_source.addr, &to.addr));
    }
    assert_int_equal(l.server.requests,
                     300); /* 64 at a time: in this order the one that is needed has always just gone */
    assert_string_equal(l.server.last_protocol, "connect-udp");
    assert_string_equal(l.server.last_path, "/.well-known/masque/udp/192.0.2.100/53/");
    log.got = 0;
    send_udp(&log, "name.test", 443, "", 0);
    rig_until(&l.rig, udp_got, &log);
    assert_int_equal(log.last_len, 0);
    assert_true(ip_is_none(&log.last_source.addr));
    assert_int_equal(l.server.accepted, 1);
    up_udp_close(log.u);
    mq_lab_fini(&l);
}

static void an_association_outlives_its_connection(void **state)
{
    struct udp_log log;
    struct mq_lab l;

    (void)state;
    mq_lab_init(&l, H2_ALPN);
    open_udp(&l, &log);
    send_udp(&log, "192.0.2.1", 53, "one", 3);
    rig_until(&l.rig, udp_got, &log);
    mq_cut(&l.server);
    rig_run_ms(&l.rig, 20);
    assert_false(log.closed);
    log.got = 0;
    for (int i = 0; i < 500 && log.got == 0;
         i++) { /* the first ones make it dial and are lost, as datagrams are */
        send_udp(&log, "192.0.2.1", 53, "two", 3);
        rig_run_ms(&l.rig, 10);
    }
    assert_true(log.got > 0);
    assert_int_equal(l.server.accepted, 2);
    up_udp_close(log.u);
    mq_lab_fini(&l);
}

static void what_the_server_lacks_is_remembered(void **state) /* faults.md U6 */
{
    struct udp_log log;
    struct mq_lab l;

    (void)state;
    mq_lab_init(&l, H2_ALPN);
    l.server.udp_status = 501;
    open_udp(&l, &log);
    send_udp(&log, "192.0.2.1", 53, "one", 3);
    rig_until(&l.rig, udp_over, &log);
    assert_int_equal(log.why.err, -EOPNOTSUPP);
    assert_int_equal(up_udp_open(l.rig.env, l.up, 3000000, &udp_events, &log, &log.u), -EOPNOTSUPP);
    mq_lab_fini(&l);
}

static void a_forbidden_target_is_told_once(void **state)
{
    struct udp_log log;
    struct mq_lab l;

    (void)state;
    mq_lab_init(&l, H2_ALPN);
    l.server.udp_status = 403;
    open_udp(&l, &log);
    send_udp(&log, "192.0.2.1", 53, "one", 3);
    rig_until(&l.rig, udp_got, &log);
    assert_int_equal(log.icmp_type, 3);
    assert_int_equal(log.icmp_code, 13);
    for (int i = 0; i < 10; i++) {
        send_udp(&log, "192.0.2.1", 53, "one", 3);
        rig_run_ms(&l.rig, 1);
    }
    assert_int_equal(l.server.requests, 1);
    up_udp_close(log.u);
    mq_lab_fini(&l);
}

static void a_closed_port_is_told_and_asked_for_again(void **state) /* RFC 9298 section 3.1 */
{
    struct udp_log log;
    struct mq_lab l;

    (void)state;
    mq_lab_init(&l, H2_ALPN);
    for (int v6 = 0; v6 < 2; v6++) {
        const char *host = v6 ? "2001:db8::1" : "192.0.2.1";

        open_udp(&l, &log);
        send_udp(&log, host, 53, "one", 3);
        rig_until(&l.rig, udp_got, &log);
        assert_int_equal(log.errors, 0);
        h2_stream_close(l.server.streams[v6].s, H2_CONNECT_ERROR);
        log.got = 0;
        rig_until(&l.rig, udp_got, &log);
        assert_int_equal(log.errors, 1);
        assert_int_equal(log.icmp_type, v6 ? 1 : 3);
        assert_int_equal(log.icmp_code, v6 ? 4 : 3);
        up_udp_close(log.u);
    }
    mq_lab_fini(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_share_one_connection),
        cmocka_unit_test(the_login_is_sent),
        cmocka_unit_test(answers_mean_what_they_mean_in_http_1),
        cmocka_unit_test(a_server_without_http_2_is_named),
        cmocka_unit_test(a_silent_server_ends_with_the_opening_s_time),
        cmocka_unit_test(a_window_that_never_opens_holds_up_one_stream),
        cmocka_unit_test(goaway_drains_and_the_next_stream_dials),
        cmocka_unit_test(what_goaway_leaves_out_is_asked_for_on_a_new_connection),
        cmocka_unit_test(a_cut_connection_breaks_its_streams_and_comes_back),
        cmocka_unit_test(a_server_that_fails_is_not_hammered),
        cmocka_unit_test(datagrams_go_by_one_stream_a_target),
        cmocka_unit_test(an_association_outlives_its_connection),
        cmocka_unit_test(what_the_server_lacks_is_remembered),
        cmocka_unit_test(a_forbidden_target_is_told_once),
        cmocka_unit_test(a_closed_port_is_told_and_asked_for_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
