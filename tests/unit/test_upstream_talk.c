/* test_upstream_talk.c - HTTP CONNECT and SOCKS4 as state machines: what is said, what each answer means (faults.md S12). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "upstream/talk.h"

#include <cmocka.h>

#define BYTES(text) (text), sizeof(text) - 1

static struct host_port to(const char *host, uint16_t port)
{
    struct host_port hp = { .port = port };

    if (ip_parse(host, &hp.addr) != 0)
        hp.name = host;
    return hp;
}

/* Feeds @answer, @piece bytes at a time; *left: what was not taken. Return: the last step */
static enum talk_step run(struct talk *t, const char *answer, size_t len, size_t piece, size_t *left)
{
    uint8_t said[TALK_OUT_MAX], held[TALK_IN_MAX];
    enum talk_step step = TALK_AGAIN;
    size_t have = 0, off = 0;

    for (;;) {
        struct span in = { held, have };
        struct buf out;
        size_t n;

        buf_init(&out, said, sizeof(said));
        step = talk_step(t, &in, &out);
        assert_false(out.full);
        memmove(held, in.data, in.len);
        have = in.len;
        if (step == TALK_AGAIN)
            continue;
        if (step != TALK_NEED_INPUT || off == len)
            break;
        in = (struct span){ held, have };
        n = talk_missing(t, &in);
        n = n == TALK_LOOK || n > piece ? piece : n;
        n = n < len - off ? n : len - off;
        n = n < sizeof(held) - have ? n : sizeof(held) - have;
        memcpy(held + have, answer + off, n);
        have += n;
        off += n;
    }
    *left = have + len - off;
    return step;
}

static void start(struct talk *t, enum upstream_kind kind, const struct socks5_login *login,
                  struct host_port target)
{
    memset(t, 0xaa, sizeof(*t));
    talk_init(t, kind, SOCKS5_CONNECT, login, &target);
}

/* ---- what is said ------------------------------------------------------------------------------------------------ */

static void a_request_names_the_target_and_the_login(void **state)
{
    static const struct socks5_login none = { 0 }, alice = { "alice", "sesame" }, user = { "bob", NULL };
    static const struct {
        enum upstream_kind kind;
        const struct socks5_login *login;
        const char *host;
        const char *says;
        size_t len;
    } rows[] = {
        { UPSTREAM_HTTP, &none, "192.0.2.1",
          BYTES("CONNECT 192.0.2.1:443 HTTP/1.1\r\nHost: 192.0.2.1:443\r\n\r\n") },
        { UPSTREAM_HTTP, &none, "2001:db8::1",
          BYTES("CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n") },
        { UPSTREAM_HTTP, &alice, "a.test",
          BYTES("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nProxy-Authorization: Basic "
                "YWxpY2U6c2VzYW1l\r\n\r\n") },
        { UPSTREAM_SOCKS4, &none, "192.0.2.1", BYTES("\4\1\1\xbb\xc0\0\2\1\0") },
        { UPSTREAM_SOCKS4A, &user, "a.test", BYTES("\4\1\1\xbb\0\0\0\1bob\0a.test\0") },
        { UPSTREAM_SOCKS4A, &none, "192.0.2.1", BYTES("\4\1\1\xbb\xc0\0\2\1\0") },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct span in = { (const uint8_t *)"", 0 };
        uint8_t said[TALK_OUT_MAX];
        struct talk t;
        struct buf out;

        start(&t, rows[i].kind, rows[i].login, to(rows[i].host, 443));
        buf_init(&out, said, sizeof(said));
        assert_int_equal(talk_step(&t, &in, &out), TALK_AGAIN);
        assert_int_equal(out.len, rows[i].len);
        assert_memory_equal(said, rows[i].says, rows[i].len);
    }
}

static void the_longest_request_fits(void **state)
{
    char user[256], password[256], name[256];
    struct socks5_login login = { user, password };
    struct span in = { (const uint8_t *)"", 0 };
    uint8_t said[TALK_OUT_MAX];
    struct talk t;
    struct buf out;

    (void)state;
    memset(user, 'u', 255);
    memset(password, 'p', 255);
    memset(name, 'n', 255);
    user[255] = password[255] = name[255] = '\0';
    start(&t, UPSTREAM_HTTP, &login, (struct host_port){ .name = name, .port = 65535 });
    buf_init(&out, said, sizeof(said));
    assert_int_equal(talk_step(&t, &in, &out), TALK_AGAIN);
    assert_false(out.full);
    login.password = NULL;
    start(&t, UPSTREAM_SOCKS4A, &login, (struct host_port){ .name = name, .port = 65535 });
    buf_init(&out, said, sizeof(said));
    assert_int_equal(talk_step(&t, &in, &out), TALK_AGAIN);
    assert_int_equal(out.len, SOCKS4_OUT_MAX);
}

/* ---- what is heard -------------------------------------------------------------------------------------------------- */

#define H407 "HTTP/1.1 407 x\r\n"

static const struct answer_row {
    const char *when;
    enum upstream_kind kind;
    const char *answer;
    size_t len;
    int err; /* 0: it opens */
    bool fault, login;
    const char *says;
    size_t left;
} answers[] = {
    /* faults.md S12, S8, S5 */
    { "200", UPSTREAM_HTTP, BYTES("HTTP/1.1 200 OK\r\n\r\n"), 0, false, false, "", 0 },
    { "200 with data behind", UPSTREAM_HTTP, BYTES("HTTP/1.1 200 OK\r\n\r\n\r\nHTTP"), 0, false, false, "",
      6 },
    { "lengths mean nothing", UPSTREAM_HTTP,
      BYTES("HTTP/1.1 200\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nabcd"), 0, false, false,
      "", 4 },
    { "204 of 1.0", UPSTREAM_HTTP, BYTES("HTTP/1.0 204 x\r\n\r\n"), 0, false, false, "", 0 },
    { "bare LF", UPSTREAM_HTTP, BYTES("HTTP/1.1 200 x\nA: b\n\nx"), 0, false, false, "", 1 },
    { "100 and 103 first", UPSTREAM_HTTP,
      BYTES("HTTP/1.1 100 x\r\n\r\nHTTP/1.1 103 x\r\nA: b\r\n\r\nHTTP/1.1 200 x\r\n\r\nz"), 0, false, false,
      "", 1 },
    { "101", UPSTREAM_HTTP, BYTES("HTTP/1.1 101 x\r\n\r\n"), -EHOSTUNREACH, true, false, "101", 0 },
    { "301", UPSTREAM_HTTP, BYTES("HTTP/1.1 301 x\r\n\r\n"), -EHOSTUNREACH, true, false, "301", 0 },
    { "401", UPSTREAM_HTTP, BYTES("HTTP/1.1 401 x\r\n\r\n"), -EHOSTUNREACH, true, true, "401", 0 },
    { "403", UPSTREAM_HTTP, BYTES("HTTP/1.1 403 x\r\n\r\n"), -EACCES, false, false, "does not allow", 0 },
    { "405", UPSTREAM_HTTP, BYTES("HTTP/1.1 405 x\r\n\r\n"), -EHOSTUNREACH, true, false,
      "does not take CONNECT", 0 },
    { "407 Basic", UPSTREAM_HTTP, BYTES(H407 "proxy-authenticate: basic realm=x\r\n\r\n"), -EHOSTUNREACH,
      true, true, "set username", 0 },
    { "407 Digest", UPSTREAM_HTTP, BYTES(H407 "Proxy-Authenticate: Digest x\r\n\r\n"), -EHOSTUNREACH, true,
      true, "Basic would work", 0 },
    { "502", UPSTREAM_HTTP, BYTES("HTTP/1.1 502 x\r\n\r\n"), -EHOSTUNREACH, false, false, "could not reach",
      0 },
    { "503 of squid, refused", UPSTREAM_HTTP,
      BYTES("HTTP/1.1 503 x\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\n\r\n"), -ECONNREFUSED, false, false,
      "refused", 0 },
    { "504", UPSTREAM_HTTP, BYTES("HTTP/1.1 504 x\r\n\r\n"), -ETIMEDOUT, false, false, "in time", 0 },
    { "RFC 9209", UPSTREAM_HTTP, BYTES("HTTP/1.1 502 x\r\nProxy-Status: a; error=connection_timeout\r\n\r\n"),
      -ETIMEDOUT, false, false, "in time", 0 },
    { "500", UPSTREAM_HTTP, BYTES("HTTP/1.1 500 x\r\n\r\n"), -EHOSTUNREACH, true, false, "500", 0 },
    { "HTTP/0.9", UPSTREAM_HTTP, BYTES("<html>"), -EHOSTUNREACH, true, false, "HTTP/0.9", 5 },
    { "a status of letters", UPSTREAM_HTTP, BYTES("HTTP/1.1 2x0 x\r\n"), -EHOSTUNREACH, true, false,
      "no status", 0 },
    { "a status of four digits", UPSTREAM_HTTP, BYTES("HTTP/1.1 2000 x\r\n"), -EHOSTUNREACH, true, false,
      "no status", 0 },
    { "HTTP/2", UPSTREAM_HTTP, BYTES("HTTP/2 200\r\n"), -EHOSTUNREACH, true, false, "no status", 0 },
    { "SOCKS5", UPSTREAM_HTTP, BYTES("\5\0"), -EHOSTUNREACH, true, false, "speaks SOCKS5", 1 },
    { "TLS", UPSTREAM_HTTP, BYTES("\x15\3"), -EHOSTUNREACH, true, false, "wants TLS", 1 },
    { "granted", UPSTREAM_SOCKS4, BYTES("\0\x5a\0\0\0\0\0\0data"), 0, false, false, "", 4 },
    { "granted, version 4", UPSTREAM_SOCKS4, BYTES("\4\x5a\0\0\0\0\0\0"), 0, false, false, "", 0 },
    { "refused", UPSTREAM_SOCKS4A, BYTES("\0\x5b\0\0\0\0\0\0"), -ECONNREFUSED, false, false, "code 91", 0 },
    { "no ident", UPSTREAM_SOCKS4, BYTES("\0\x5c\0\0\0\0\0\0"), -EHOSTUNREACH, true, true, "set username",
      0 },
    { "code 1", UPSTREAM_SOCKS4, BYTES("\0\1\0\0\0\0\0\0"), -EHOSTUNREACH, true, false, "code 1", 0 },
    { "SOCKS5, too", UPSTREAM_SOCKS4, BYTES("\5\0"), -EHOSTUNREACH, true, false, "speaks SOCKS5", 2 },
    { "HTTP", UPSTREAM_SOCKS4, BYTES("HTTP/1.1 400 x\r\n\r\n"), -EHOSTUNREACH, true, false, "HTTP server",
      18 },
};

static void every_answer_means_what_it_is(void **state)
{
    static const struct socks5_login none = { 0 };
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        const struct answer_row *r = &answers[i];

        for (size_t piece = 1; piece <= 400; piece += 399) { /* byte by byte, and all at once: faults.md S4 */
            struct talk_failure f;
            enum talk_step step;
            struct talk t;
            size_t left;

            start(&t, r->kind, &none, to("192.0.2.1", 443));
            step = run(&t, r->answer, r->len, piece, &left);
            f = talk_failure(&t);
            if (step == (r->err ? TALK_BROKEN : TALK_DONE) && f.err == r->err && strstr(f.why, r->says) &&
                (!r->err || (f.proxy_fault == r->fault && f.login_fault == r->login)) &&
                (r->err || left == r->left))
                continue;
            print_error("%s, by %zu: step %d err %d \"%s\", %zu left\n", r->when, piece, step, f.err, f.why,
                        left);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

static void a_head_is_limited_in_bytes_and_headers(void **state) /* faults.md S11, S12 */
{
    static const struct socks5_login none = { 0 };
    static char head[20000];
    size_t at, left;
    struct talk t;

    (void)state;
    at = (size_t)sprintf(head, "HTTP/1.1 200 x\r\nA: ");
    memset(head + at, 'a', 9000);
    start(&t, UPSTREAM_HTTP, &none, to("192.0.2.1", 443));
    assert_int_equal(run(&t, head, at + 9000, 100, &left), TALK_BROKEN);
    assert_non_null(strstr(talk_failure(&t).why, "8192"));
    for (int n = 99; n <= 1000; n += 901) {
        at = (size_t)sprintf(head, "HTTP/1.1 200 x\r\n");
        for (int i = 0; i < n; i++)
            at += (size_t)sprintf(head + at, "a:b\r\n");
        at += (size_t)sprintf(head + at, "\r\n");
        start(&t, UPSTREAM_HTTP, &none, to("192.0.2.1", 443));
        assert_int_equal(run(&t, head, at, 100, &left), n < 100 ? TALK_DONE : TALK_BROKEN);
    }
}

static void what_socks4_cannot_carry_is_said_and_nothing_is_sent(void **state) /* faults.md S10 */
{
    static const struct socks5_login none = { 0 };
    static const struct {
        enum upstream_kind kind;
        const char *host;
        int err;
    } rows[] = { { UPSTREAM_SOCKS4, "a.test", -EHOSTUNREACH },
                 { UPSTREAM_SOCKS4, "2001:db8::1", -ENETUNREACH },
                 { UPSTREAM_SOCKS4A, "2001:db8::1", -ENETUNREACH } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct span in = { (const uint8_t *)"", 0 };
        uint8_t said[TALK_OUT_MAX];
        struct talk t;
        struct buf out;

        start(&t, rows[i].kind, &none, to(rows[i].host, 80));
        buf_init(&out, said, sizeof(said));
        assert_int_equal(talk_step(&t, &in, &out), TALK_BROKEN);
        assert_int_equal(out.len, 0);
        assert_int_equal(talk_failure(&t).err, rows[i].err);
        assert_false(talk_failure(&t).proxy_fault);
    }
}

static void a_probe_asks_these_for_nothing(void **state)
{
    static const enum upstream_kind kinds[] = { UPSTREAM_HTTP, UPSTREAM_SOCKS4, UPSTREAM_SOCKS4A,
                                                UPSTREAM_DIRECT };
    static const struct socks5_login none = { 0 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct span in = { (const uint8_t *)"", 0 };
        uint8_t said[TALK_OUT_MAX];
        struct talk t;
        struct buf out;

        talk_init(&t, kinds[i], SOCKS5_HELLO, &none, NULL);
        buf_init(&out, said, sizeof(said));
        assert_int_equal(talk_step(&t, &in, &out), TALK_DONE);
        assert_int_equal(out.len, 0);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_names_the_target_and_the_login),
        cmocka_unit_test(the_longest_request_fits),
        cmocka_unit_test(every_answer_means_what_it_is),
        cmocka_unit_test(a_head_is_limited_in_bytes_and_headers),
        cmocka_unit_test(what_socks4_cannot_carry_is_said_and_nothing_is_sent),
        cmocka_unit_test(a_probe_asks_these_for_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
