/* test_socks5_server.c - the server's side of a SOCKS5 handshake as tables. */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "serve/socks5_server.h"

#define BYTES(s) s, sizeof(s) - 1

static const struct serve_user users[] = { { "alice", "sesame" }, { "bob", "builder" } };

struct talk_row {
    const char *when;
    bool login;
    const char *in;
    size_t in_len;
    const char *out;
    size_t out_len;
    enum server_step end;
    size_t left; /* bytes that belong to the target */
};

static enum server_step feed(struct socks5_server *s, const char *in, size_t len, size_t piece,
                             struct buf *out, size_t *left)
{
    uint8_t held[SERVER_IN_MAX];
    size_t have = 0, off = 0;

    for (;;) {
        struct span span = { held, have };
        enum server_step step = server_step(s, &span, out);

        memmove(held, span.data, span.len);
        have = span.len;
        if (step == SERVER_AGAIN)
            continue;
        if (step != SERVER_NEED_INPUT || off == len) {
            *left = have + (len - off);
            return step;
        }
        for (size_t i = 0; i < piece && off < len; i++)
            held[have++] = (uint8_t)in[off++];
    }
}

static int check_talk(const struct talk_row *row, size_t piece)
{
    struct socks5_server s;
    uint8_t bytes[256];
    struct buf out;
    enum server_step end;
    size_t left;

    buf_init(&out, bytes, sizeof(bytes));
    server_init(&s, users, row->login ? ARRAY_LEN(users) : 0);
    end = feed(&s, row->in, row->in_len, piece, &out, &left);
    if (end == row->end && out.len == row->out_len && memcmp(out.data, row->out, out.len) == 0 &&
        (end != SERVER_ASKED || left == row->left))
        return 0;
    print_error("%s, %zu bytes at a time: end %d, %zu bytes out, %zu left\n", row->when, piece, end, out.len,
                left);
    return 1;
}

static const struct talk_row talks[] = {
    { "a request to an IPv4 address", false, BYTES("\5\1\0\5\1\0\1\300\0\2\1\0\120"), BYTES("\5\0"),
      SERVER_ASKED, 0 },
    { "with data behind it", false, BYTES("\5\1\0\5\1\0\1\300\0\2\1\0\120GET /"), BYTES("\5\0"), SERVER_ASKED,
      5 },
    { "to an IPv6 address", false, BYTES("\5\2\0\2\5\1\0\4\40\1\15\270\0\0\0\0\0\0\0\0\0\0\0\1\0\120"),
      BYTES("\5\0"), SERVER_ASKED, 0 },
    { "to a name", false, BYTES("\5\1\0\5\1\0\3\6a.test\0\120"), BYTES("\5\0"), SERVER_ASKED, 0 },
    { "an association", false, BYTES("\5\1\0\5\3\0\1\0\0\0\0\0\0"), BYTES("\5\0"), SERVER_ASKED, 0 },
    { "a right login", true, BYTES("\5\2\0\2\1\5alice\6sesame\5\1\0\1\300\0\2\1\0\120"), BYTES("\5\2\1\0"),
      SERVER_ASKED, 0 },
    { "the second user", true, BYTES("\5\1\2\1\3bob\7builder\5\1\0\1\300\0\2\1\0\120"), BYTES("\5\2\1\0"),
      SERVER_ASKED, 0 },
    { "a wrong password", true, BYTES("\5\1\2\1\5alice\6sesamE"), BYTES("\5\2\1\1"), SERVER_GIVE_UP, 0 },
    { "another user's password", true, BYTES("\5\1\2\1\5alice\7builder"), BYTES("\5\2\1\1"), SERVER_GIVE_UP,
      0 },
    { "a password that goes on", true, BYTES("\5\1\2\1\5alice\7sesame!"), BYTES("\5\2\1\1"), SERVER_GIVE_UP,
      0 },
    { "a password with a zero behind", true, BYTES("\5\1\2\1\5alice\7sesame\0"), BYTES("\5\2\1\1"),
      SERVER_GIVE_UP, 0 },
    { "an empty login", true, BYTES("\5\1\2\1\0\0"), BYTES("\5\2\1\1"), SERVER_GIVE_UP, 0 },
    { "login of version 5", true, BYTES("\5\1\2\5"), BYTES("\5\2"), SERVER_GIVE_UP, 0 },
    { "a login is wanted, none offered", true, BYTES("\5\1\0"), BYTES("\5\377"), SERVER_GIVE_UP, 0 },
    { "no login is wanted, one offered", false, BYTES("\5\1\2"), BYTES("\5\377"), SERVER_GIVE_UP, 0 },
    { "no methods at all", false, BYTES("\5\0"), BYTES("\5\377"), SERVER_GIVE_UP, 0 },
    { "SOCKS4", false, BYTES("\4"), BYTES(""), SERVER_GIVE_UP, 0 },
    { "HTTP", false, BYTES("G"), BYTES(""), SERVER_GIVE_UP, 0 },
    { "BIND", false, BYTES("\5\1\0\5\2\0\1\300\0\2\1\0\120"), BYTES("\5\0\5\7\0\1\0\0\0\0\0\0"),
      SERVER_GIVE_UP, 0 },
    { "address type 2", false, BYTES("\5\1\0\5\1\0\2\300"), BYTES("\5\0\5\10\0\1\0\0\0\0\0\0"),
      SERVER_GIVE_UP, 0 },
    { "a request of version 4", false, BYTES("\5\1\0\4"), BYTES("\5\0"), SERVER_GIVE_UP, 0 },
    { "an empty name", false, BYTES("\5\1\0\5\1\0\3\0\0\120"), BYTES("\5\0\5\4\0\1\0\0\0\0\0\0"),
      SERVER_GIVE_UP, 0 },
    { "a name with a space", false, BYTES("\5\1\0\5\1\0\3\3a b\0\120"), BYTES("\5\0\5\4\0\1\0\0\0\0\0\0"),
      SERVER_GIVE_UP, 0 },
    { "half a greeting", false, BYTES("\5\3\0\1"), BYTES(""), SERVER_NEED_INPUT, 0 },
    { "half a request", false, BYTES("\5\1\0\5\1\0\3\6a.te"), BYTES("\5\0"), SERVER_NEED_INPUT, 0 },
};

static void it_answers_as_rfc_1928_wants_at_any_pace(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(talks); i++) {
        for (size_t piece = 1; piece <= talks[i].in_len; piece++)
            wrong += check_talk(&talks[i], piece);
    }
    assert_int_equal(wrong, 0);
}

static void the_target_is_what_was_asked(void **state)
{
    struct socks5_server s;
    char text[IP_TEXT_MAX];
    uint8_t bytes[64];
    struct buf out;
    size_t left;

    (void)state;
    buf_init(&out, bytes, sizeof(bytes));
    server_init(&s, NULL, 0);
    assert_int_equal(feed(&s, BYTES("\5\1\0\5\1\0\3\7A.Test.\37\220"), 99, &out, &left), SERVER_ASKED);
    assert_string_equal(s.target.name, "a.test");
    assert_int_equal(s.target.port, 8080);
    assert_int_equal(s.command, SERVER_CONNECT);
    server_init(&s, NULL, 0);
    assert_int_equal(
        feed(&s, BYTES("\5\1\0\5\3\0\4\40\1\15\270\0\0\0\0\0\0\0\0\0\0\0\1\0\120"), 99, &out, &left),
        SERVER_ASKED);
    assert_null(s.target.name);
    assert_string_equal(ip_text(&s.target.addr, text), "2001:db8::1");
    assert_int_equal(s.command, SERVER_ASSOCIATE);
}

static void a_failed_dial_is_told_by_its_code(void **state) /* RFC 1928 section 6 */
{
    (void)state;
    assert_int_equal(server_reply_for(-ECONNREFUSED), 5);
    assert_int_equal(server_reply_for(-EHOSTUNREACH), 4);
    assert_int_equal(server_reply_for(-ENETUNREACH), 3);
    assert_int_equal(server_reply_for(-ETIMEDOUT), 6);
    assert_int_equal(server_reply_for(-EACCES), 2);
    assert_int_equal(server_reply_for(-ELOOP), 2);
    assert_int_equal(server_reply_for(-EMFILE), 1);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_answers_as_rfc_1928_wants_at_any_pace),
        cmocka_unit_test(the_target_is_what_was_asked),
        cmocka_unit_test(a_failed_dial_is_told_by_its_code),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
