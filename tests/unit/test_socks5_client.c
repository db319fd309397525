/* test_socks5_client.c - the client's side of SOCKS5 as tables: bytes in, bytes out, and what is said when it goes wrong. */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "upstream/socks5.h"

static const struct socks5_login no_login, alice = { "alice", "sesame" };

/* Feeds @in in pieces of @piece bytes, but never more than the machine asks for. Returns how the last step ended. */
static enum socks5_step feed(struct socks5 *s, const void *in, size_t len, size_t piece, struct buf *out,
                             size_t *used)
{
    uint8_t held[SOCKS5_IN_MAX];
    size_t have = 0, off = 0;

    for (;;) {
        struct span span = { held, have };
        enum socks5_step step = socks5_step(s, &span, out);
        size_t n;

        memmove(held, span.data, span.len);
        have = span.len;
        if (step == SOCKS5_AGAIN)
            continue;
        *used = off - have;
        if (step != SOCKS5_NEED_INPUT || off == len)
            return step;
        span.data = held;
        n = socks5_missing(s, &span);
        assert_true(n > 0 && have + n <= sizeof(held));
        n = n < piece ? n : piece;
        n = n < len - off ? n : len - off;
        memcpy(held + have, (const uint8_t *)in + off, n);
        have += n;
        off += n;
    }
}

static struct host_port to4(void)
{
    static const uint8_t be[] = { 192, 0, 2, 1 };

    return (struct host_port){ NULL, ip_from4(be), 80 };
}

/* ---- what it says ---- */

static const struct say_row {
    const char *when;
    enum socks5_goal goal;
    const struct socks5_login *login;
    const char *target; /* NULL: 192.0.2.1 */
    const char *in;
    size_t in_len;
    const char *out;
    size_t out_len;
    bool at_once;
} says[] = {
#define BYTES(s) s, sizeof(s) - 1
    { "all at once", SOCKS5_CONNECT, &no_login, NULL, BYTES("\5\0\5\0\0\1\0\0\0\0\0\0"),
      BYTES("\5\1\0\5\1\0\1\300\0\2\1\0\120"), true },
    { "all at once, with a login", SOCKS5_CONNECT, &alice, NULL, BYTES("\5\2\1\0\5\0\0\3\0\0\0"),
      BYTES("\5\1\2\1\5alice\6sesame\5\1\0\1\300\0\2\1\0\120"), true },
    { "a stream to an IPv4 address", SOCKS5_CONNECT, &no_login, NULL, BYTES("\5\0\5\0\0\1\0\0\0\0\0\0"),
      BYTES("\5\1\0\5\1\0\1\300\0\2\1\0\120"), false },
    { "a stream to an IPv6 address", SOCKS5_CONNECT, &no_login, "2001:db8::1",
      BYTES("\5\0\5\0\0\1\0\0\0\0\0\0"), BYTES("\5\1\0\5\1\0\4\40\1\15\270\0\0\0\0\0\0\0\0\0\0\0\1\0\120"),
      false },
    { "a stream to a name", SOCKS5_CONNECT, &no_login, "a.test", BYTES("\5\0\5\0\0\1\0\0\0\0\0\0"),
      BYTES("\5\1\0\5\1\0\3\6a.test\0\120"), false },
    { "a login that the server wants", SOCKS5_CONNECT, &alice, NULL, BYTES("\5\2\1\0\5\0\0\1\0\0\0\0\0\0"),
      BYTES("\5\2\0\2\1\5alice\6sesame\5\1\0\1\300\0\2\1\0\120"), false },
    { "a login that the server does not want", SOCKS5_CONNECT, &alice, NULL,
      BYTES("\5\0\5\0\0\1\0\0\0\0\0\0"), BYTES("\5\2\0\2\5\1\0\1\300\0\2\1\0\120"), false },
    { "an association", SOCKS5_ASSOCIATE, &no_login, NULL, BYTES("\5\0\5\0\0\1\177\0\0\1\4\70"),
      BYTES("\5\1\0\5\3\0\1\0\0\0\0\0\0"), false },
    { "a probe", SOCKS5_HELLO, &no_login, NULL, BYTES("\5\0"), BYTES("\5\1\0"), false },
    { "a probe with a login", SOCKS5_HELLO, &alice, NULL, BYTES("\5\2\1\0"),
      BYTES("\5\2\0\2\1\5alice\6sesame"), false },
};

static void it_says_what_rfc_1928_wants_at_any_pace(void **state) /* faults.md S4 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(says); i++) {
        for (size_t piece = 1; piece <= says[i].in_len; piece++) {
            const struct say_row *row = &says[i];
            struct host_port target = to4();
            uint8_t bytes[1024];
            struct socks5 s;
            struct buf out;
            size_t used;

            if (row->target && ip_parse(row->target, &target.addr) != 0)
                target.name = row->target;
            buf_init(&out, bytes, sizeof(bytes));
            socks5_init(&s, row->goal, row->login, &target);
            if (row->at_once)
                socks5_pipeline(&s);
            if (feed(&s, row->in, row->in_len, piece, &out, &used) == SOCKS5_DONE && used == row->in_len &&
                out.len == row->out_len && memcmp(out.data, row->out, out.len) == 0)
                continue;
            print_error("%s, %zu bytes at a time: state %d, %zu of %zu bytes used, %zu sent\n", row->when,
                        piece, s.state, used, row->in_len, out.len);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

static void the_request_waits_for_the_method(void **state)
{
    struct host_port target = to4();
    uint8_t bytes[1024];
    struct socks5 s;
    struct buf out;
    size_t used;

    (void)state;
    buf_init(&out, bytes, sizeof(bytes));
    socks5_init(&s, SOCKS5_CONNECT, &alice, &target);
    assert_int_equal(feed(&s, "", 0, 1, &out, &used), SOCKS5_NEED_INPUT);
    assert_int_equal(out.len, 4);
    assert_string_equal(socks5_stage(&s), "method");
}

static void the_longest_name_and_login_fit(void **state)
{
    char name[256], secret[256];
    struct socks5_login login = { secret, secret };
    struct host_port target = { name, { { { 0 } } }, 443 };
    uint8_t bytes[1024];
    struct socks5 s;
    struct buf out;
    size_t used;

    (void)state;
    memset(name, 'a', 255);
    memset(secret, 's', 255);
    name[255] = secret[255] = '\0';
    buf_init(&out, bytes, 4 + 3 + 2 * 255);
    socks5_init(&s, SOCKS5_CONNECT, &login, &target);
    assert_int_equal(feed(&s, "\5\2", 2, 2, &out, &used), SOCKS5_NEED_INPUT);
    assert_false(out.full);
    assert_int_equal(out.len, 4 + 3 + 2 * 255);
    buf_init(&out, bytes, SOCKS5_OUT_MAX);
    assert_int_equal(feed(&s, "\1\0", 2, 2, &out, &used), SOCKS5_NEED_INPUT);
    assert_false(out.full);
    assert_int_equal(out.len, 3 + SOCKS5_ADDRESS_MAX);
    buf_init(&out, bytes, SOCKS5_OUT_MAX);
    socks5_init(&s, SOCKS5_CONNECT, &login, &target);
    socks5_pipeline(&s);
    assert_int_equal(feed(&s, "", 0, 1, &out, &used), SOCKS5_NEED_INPUT);
    assert_false(out.full);
    assert_int_equal(out.len, 3 + 3 + 2 * 255 + 3 + SOCKS5_ADDRESS_MAX);
}

/* Asked step by step it may do better, so none of these is a wrong login. */
static void who_hears_all_at_once_must_take_the_method_that_it_took_before(void **state)
{
    static const char *const methods[] = { "\5\0", "\5\377", "\5\1" };
    struct host_port target = to4();
    uint8_t bytes[1024];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        struct socks5 s;
        struct buf out;
        size_t used;

        buf_init(&out, bytes, sizeof(bytes));
        socks5_init(&s, SOCKS5_CONNECT, &alice, &target);
        socks5_pipeline(&s);
        assert_int_equal(feed(&s, methods[i], 2, 2, &out, &used), SOCKS5_BROKEN);
        assert_true(s.proxy_fault && !s.login_fault);
    }
}

static void a_connection_that_was_greeted_before_is_only_asked(void **state)
{
    static const uint8_t request[] = { 5, 1, 0, 1, 192, 0, 2, 1, 0, 80 };
    struct host_port target = to4();
    uint8_t bytes[1024];
    struct socks5 s;
    struct buf out;
    size_t used;

    (void)state;
    buf_init(&out, bytes, sizeof(bytes));
    socks5_init(&s, SOCKS5_CONNECT, &alice, &target);
    socks5_greeted(&s);
    assert_int_equal(feed(&s, "\5\0\0\1\0\0\0\0\0\0", 10, 10, &out, &used), SOCKS5_DONE);
    assert_int_equal(out.len, sizeof(request));
    assert_memory_equal(out.data, request, sizeof(request));
}

/* ---- replies ---- */

static void a_reply_with_any_address_is_skipped_to_its_last_byte(void **state) /* faults.md S9, S4 */
{
    int wrong = 0;

    (void)state;
    for (size_t len = 0; len <= 257; len++) { /* 0..255: a name of that length; 256: IPv4; 257: IPv6 */
        uint8_t in[600] = { 5, 0, 5, 0, 0, 3, (uint8_t)len }, bytes[64];
        size_t reply = len <= 255 ? 4 + 1 + len + 2 : len == 256 ? 10 : 22, used;
        struct host_port target = to4();
        struct socks5 s;
        struct buf out;

        if (len > 255) {
            in[5] = len == 256 ? 1 : 4;
            in[6] = 7;
        }
        memset(in + 2 + reply, 'D', 20); /* data glued to the reply */
        buf_init(&out, bytes, sizeof(bytes));
        socks5_init(&s, SOCKS5_CONNECT, &no_login, &target);
        if (feed(&s, in, 2 + reply + 20, 100, &out, &used) == SOCKS5_DONE && used == 2 + reply)
            continue;
        print_error("address %zu: state %d, used %zu of %zu\n", len, s.state, used, 2 + reply);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void an_association_knows_its_relay(void **state)
{
    uint8_t bytes[64];
    char text[IP_PORT_TEXT_MAX];
    struct socks5 s;
    struct buf out;
    size_t used;

    (void)state;
    buf_init(&out, bytes, sizeof(bytes));
    socks5_init(&s, SOCKS5_ASSOCIATE, &no_login, NULL);
    assert_int_equal(feed(&s, "\5\0\5\0\0\1\300\0\2\7\4\70", 12, 12, &out, &used), SOCKS5_DONE);
    assert_string_equal(ip_port_text(&s.bound, text), "192.0.2.7:1080");
}

/* ---- what goes wrong ---- */

static const struct fail_row {
    const char *when;
    enum socks5_goal goal;
    const struct socks5_login *login;
    const char *in;
    size_t in_len;
    int err;
    bool proxy_fault, login_fault;
    const char *stage;
    const char *says;
} fails[] = {
    /* faults.md S5 */
    { "SOCKS4", SOCKS5_CONNECT, &no_login, BYTES("\4"), -EHOSTUNREACH, true, false, "method", "SOCKS4" },
    { "a SOCKS4 reply", SOCKS5_CONNECT, &no_login, BYTES("\0\133"), -EHOSTUNREACH, true, false, "method",
      "SOCKS4" },
    { "HTTP", SOCKS5_CONNECT, &no_login, BYTES("H"), -EHOSTUNREACH, true, false, "method", "an HTTP server" },
    { "TLS", SOCKS5_CONNECT, &no_login, BYTES("\25\3\1\0\2\2\106"), -EHOSTUNREACH, true, false, "method",
      "wants TLS" },
    { "SSH", SOCKS5_CONNECT, &no_login, BYTES("SSH-2.0"), -EHOSTUNREACH, true, false, "method", "SSH" },
    { "SMTP", SOCKS5_CONNECT, &no_login, BYTES("220 x"), -EHOSTUNREACH, true, false, "method", "mail" },
    { "garbage", SOCKS5_CONNECT, &no_login, BYTES("\351"), -EHOSTUNREACH, true, false, "method", "0xe9" },
    /* faults.md S6 */
    { "no method fits", SOCKS5_CONNECT, &no_login, BYTES("\5\377"), -EHOSTUNREACH, true, true, "method",
      "set username and password" },
    { "no method fits our login", SOCKS5_CONNECT, &alice, BYTES("\5\377"), -EHOSTUNREACH, true, true,
      "method", "neither" },
    { "a login is wanted", SOCKS5_CONNECT, &no_login, BYTES("\5\2"), -EHOSTUNREACH, true, true, "method",
      "set username and password" },
    { "a method that was not offered", SOCKS5_CONNECT, &alice, BYTES("\5\1"), -EHOSTUNREACH, true, true,
      "method", "method 1" },
    /* faults.md S7 */
    { "login reply of version 5", SOCKS5_CONNECT, &alice, BYTES("\5\2\5"), -EHOSTUNREACH, true, false,
      "login", "version 5" },
    { "login refused", SOCKS5_CONNECT, &alice, BYTES("\5\2\1\1"), -EHOSTUNREACH, true, true, "login",
      "check username and password" },
    { "login refused by v2ray", SOCKS5_HELLO, &alice, BYTES("\5\2\1\377"), -EHOSTUNREACH, true, true, "login",
      "check username and password" },
    /* faults.md S8: some servers send two bytes and close, so two must do */
    { "reply 1", SOCKS5_CONNECT, &no_login, BYTES("\5\0\5\1"), -EHOSTUNREACH, false, false, "request",
      "why" },
    { "reply 2", SOCKS5_CONNECT, &no_login, BYTES("\5\0\5\2"), -EACCES, false, false, "request", "allow" },
    { "reply 3", SOCKS5_CONNECT, &no_login, BYTES("\5\0\5\3"), -ENETUNREACH, false, false, "request",
      "network" },
    { "reply 4", SOCKS5_CONNECT, &no_login, BYTES("\5\0\5\4"), -EHOSTUNREACH, false, false, "request",
      "unreachable" },
    { "reply 5", SOCKS5_CONNECT, &no_login, BYTES("\5\0\5\5"), -ECONNREFUSED, false, false, "request",
      "refused" },
    { "reply 6", SOCKS5_CONNECT, &no_login, BYTES("\5\0\5\6"), -ETIMEDOUT, false, false, "request",
      "in time" },
    { "reply 7", SOCKS5_CONNECT, &no_login, BYTES("\5\0\5\7"), -EHOSTUNREACH, false, false, "request",
      "command" },
    { "reply 8", SOCKS5_CONNECT, &no_login, BYTES("\5\0\5\10"), -ENETUNREACH, false, false, "request",
      "address" },
    { "reply 9", SOCKS5_CONNECT, &no_login, BYTES("\5\0\5\11"), -EHOSTUNREACH, false, false, "request",
      "code 9" },
    { "reply 255", SOCKS5_CONNECT, &no_login, BYTES("\5\0\5\377"), -EHOSTUNREACH, false, false, "request",
      "code 255" },
    { "no UDP", SOCKS5_ASSOCIATE, &no_login, BYTES("\5\0\5\7"), -EOPNOTSUPP, false, false, "request",
      "no UDP" },
    { "reply of version 4", SOCKS5_CONNECT, &no_login, BYTES("\5\0\4"), -EHOSTUNREACH, true, false, "request",
      "version 4" },
    /* faults.md S9 */
    { "address type 0", SOCKS5_CONNECT, &no_login, BYTES("\5\0\5\0\0\0\1"), -EHOSTUNREACH, true, false,
      "request", "type 0" },
    { "address type 2", SOCKS5_CONNECT, &no_login, BYTES("\5\0\5\0\0\2\1"), -EHOSTUNREACH, true, false,
      "request", "type 2" },
    { "address type 255", SOCKS5_CONNECT, &no_login, BYTES("\5\0\5\0\0\377\1"), -EHOSTUNREACH, true, false,
      "request", "type 255" },
};

static void a_failure_says_what_it_looks_like(void **state) /* faults.md S5, S6, S7, S8, S9, U6 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(fails); i++) {
        const struct fail_row *row = &fails[i];
        struct host_port target = to4();
        uint8_t bytes[1024];
        struct socks5 s;
        struct buf out;
        size_t used;

        buf_init(&out, bytes, sizeof(bytes));
        socks5_init(&s, row->goal, row->login, &target);
        if (feed(&s, row->in, row->in_len, 1, &out, &used) == SOCKS5_BROKEN && s.err == row->err &&
            s.proxy_fault == row->proxy_fault && s.login_fault == row->login_fault &&
            strcmp(socks5_stage(&s), row->stage) == 0 && strstr(s.why, row->says) && !strstr(s.why, "sesame"))
            continue;
        print_error("%s: err %d, fault %d, login %d, stage %s, \"%s\"\n", row->when, s.err, s.proxy_fault,
                    s.login_fault, socks5_stage(&s), s.why);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void a_server_that_hangs_up_is_blamed_for_what_it_left_out(void **state) /* faults.md S3, U6 */
{
    static const struct {
        enum socks5_goal goal;
        const char *in;
        size_t in_len;
        int err;
        bool proxy_fault;
        const char *says;
    } rows[] = {
        { SOCKS5_CONNECT, BYTES(""), -EHOSTUNREACH, true, "is it a SOCKS5 server" },
        { SOCKS5_CONNECT, BYTES("\5"), -EHOSTUNREACH, true, "is it a SOCKS5 server" },
        { SOCKS5_CONNECT, BYTES("\5\2"), -EHOSTUNREACH, true, "during the login" },
        { SOCKS5_CONNECT, BYTES("\5\0"), -EHOSTUNREACH, true, "answering the request" },
        { SOCKS5_CONNECT, BYTES("\5\0\5\0\0\1\1"), -EHOSTUNREACH, true, "answering the request" },
        { SOCKS5_ASSOCIATE, BYTES("\5\0"), -EOPNOTSUPP, false, "no UDP" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct host_port target = to4();
        uint8_t bytes[1024];
        struct socks5 s;
        struct buf out;
        size_t used;

        buf_init(&out, bytes, sizeof(bytes));
        socks5_init(&s, rows[i].goal, &alice, &target);
        assert_int_equal(feed(&s, rows[i].in, rows[i].in_len, 10, &out, &used), SOCKS5_NEED_INPUT);
        socks5_gone(&s, i % 2);
        assert_int_equal(s.err, rows[i].err);
        assert_int_equal(s.proxy_fault, rows[i].proxy_fault);
        assert_non_null(strstr(s.why, rows[i].says));
    }
}

/* ---- datagram headers (RFC 1928 section 7) ---- */

static const struct header_row {
    const char *when;
    const char *bytes;
    size_t len;
    int r;
    size_t left;
} headers[] = {
    /* faults.md U9 */
    { "IPv4 with data", BYTES("\0\0\0\1\300\0\2\1\0\65data"), 0, 4 },
    { "IPv4 without data", BYTES("\0\0\0\1\300\0\2\1\0\65"), 0, 0 },
    { "IPv6", BYTES("\0\0\0\4\40\1\15\270\0\0\0\0\0\0\0\0\0\0\0\1\0\65d"), 0, 1 },
    { "a name, as v2ray sends it", BYTES("\0\0\0\3\6a.test\0\65d"), 0, 1 },
    { "an empty name", BYTES("\0\0\0\3\0\0\65d"), 0, 1 },
    { "nothing", BYTES(""), -EBADMSG, 0 },
    { "three bytes", BYTES("\0\0\0"), -EBADMSG, 0 },
    { "cut in the address", BYTES("\0\0\0\1\300\0\2\1\0"), -EBADMSG, 0 },
    { "RSV not 0", BYTES("\0\1\0\1\300\0\2\1\0\65data"), -EBADMSG, 0 },
    { "RSV not 0 either", BYTES("\1\0\0\1\300\0\2\1\0\65data"), -EBADMSG, 0 },
    { "a fragment", BYTES("\0\0\1\1\300\0\2\1\0\65data"), -EBADMSG, 0 },
    { "the last fragment", BYTES("\0\0\201\1\300\0\2\1\0\65data"), -EBADMSG, 0 },
    { "type 0", BYTES("\0\0\0\0\300\0\2\1\0\65data"), -EBADMSG, 0 },
    { "type 2", BYTES("\0\0\0\2\300\0\2\1\0\65data"), -EBADMSG, 0 },
    { "type 5", BYTES("\0\0\0\5\300\0\2\1\0\65data"), -EBADMSG, 0 },
    { "type 255", BYTES("\0\0\0\377\300\0\2\1\0\65data"), -EBADMSG, 0 },
    { "a name past the end", BYTES("\0\0\0\3\377a.test\0\65d"), -EBADMSG, 0 },
    { "a name without its port", BYTES("\0\0\0\3\6a.test\0"), -EBADMSG, 0 },
};

static void a_datagram_header_is_read_with_bounds(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
        struct span in = { (const uint8_t *)headers[i].bytes, headers[i].len };
        struct socks5_address a;
        int r = socks5_udp_get(&in, &a);

        if (r == headers[i].r && (r != 0 || in.len == headers[i].left))
            continue;
        print_error("%s: %d, %zu left\n", headers[i].when, r, in.len);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void a_datagram_header_comes_back_as_it_was_written(void **state)
{
    static const char *const hosts[] = { "192.0.2.1", "2001:db8::1", "a.test" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
        struct host_port hp = { .port = 53 };
        uint8_t bytes[SOCKS5_UDP_HEADER_MAX];
        struct socks5_address a;
        struct span in;

        if (ip_parse(hosts[i], &hp.addr) != 0)
            hp.name = hosts[i];
        in = (struct span){ bytes, socks5_udp_put(bytes, &hp) };
        assert_int_equal(socks5_udp_get(&in, &a), 0);
        assert_int_equal(in.len, 0);
        assert_int_equal(a.ip.port, 53);
        if (hp.name)
            assert_memory_equal(a.name, hp.name, a.name_len);
        else
            assert_true(ip_equal(&a.ip.addr, &hp.addr));
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_says_what_rfc_1928_wants_at_any_pace),
        cmocka_unit_test(the_request_waits_for_the_method),
        cmocka_unit_test(the_longest_name_and_login_fit),
        cmocka_unit_test(who_hears_all_at_once_must_take_the_method_that_it_took_before),
        cmocka_unit_test(a_connection_that_was_greeted_before_is_only_asked),
        cmocka_unit_test(a_reply_with_any_address_is_skipped_to_its_last_byte),
        cmocka_unit_test(an_association_knows_its_relay),
        cmocka_unit_test(a_failure_says_what_it_looks_like),
        cmocka_unit_test(a_server_that_hangs_up_is_blamed_for_what_it_left_out),
        cmocka_unit_test(a_datagram_header_is_read_with_bounds),
        cmocka_unit_test(a_datagram_header_comes_back_as_it_was_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
