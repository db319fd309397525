/* test_dns_query.c - faces src/dns/name.c, write.c and the reader of queries: names, questions and our replies. */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "dns_message.h"

/* ---- names ---- */

static void names_go_from_text_to_wire_and_back(void **state)
{
    static const uint8_t wire[] = "\3www\7example\3com"; /* with its NUL, which is the root label */
    char text[DNS_NAME_TEXT_MAX];
    struct dns_name n;

    (void)state;
    assert_int_equal(dns_name_from_text("WWW.example.com.", &n), 0);
    assert_int_equal(n.len, sizeof(wire));
    assert_memory_equal(n.wire, wire, sizeof(wire));
    assert_string_equal(dns_name_text(&n, text), "www.example.com");
    assert_int_equal(dns_name_from_text("a", &n), 0);
    assert_string_equal(dns_name_text(&n, text), "a");
    assert_int_equal(dns_name_from_text("a..b", &n), -EINVAL);
    assert_int_equal(dns_name_from_text(LABEL_63
                                        "." LABEL_63 "." LABEL_63 "."
                                        "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxy",
                                        &n),
                     0);
    assert_int_equal(n.len, 255);
    assert_int_equal(dns_name_from_text(LABEL_63
                                        "." LABEL_63 "." LABEL_63 "."
                                        "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz",
                                        &n),
                     -EINVAL);
}

static void names_compare_without_case_and_print_odd_bytes_as_numbers(void **state)
{
    struct dns_name a = { 7, "\5aB.\xff-" }, b = { 7, "\5Ab.\xff-" }, c = { 7, "\5Ab.\xfe-" },
                    root = { 1, "" };
    char text[DNS_NAME_TEXT_MAX];
    struct dns_name longest = { .len = 255 };

    (void)state;
    assert_true(dns_name_equal(&a, &b));
    assert_false(dns_name_equal(&a, &c));
    assert_false(dns_name_equal(&a, &root));
    assert_string_equal(dns_name_text(&a, text), "aB\\046\\255-");
    assert_string_equal(dns_name_text(&root, text), ".");
    for (size_t i = 0; i < 254; i += 2) /* 127 labels of one odd byte */
        longest.wire[i] = 1;
    assert_int_equal(strlen(dns_name_text(&longest, text)), 127 * 4 + 126);
}

/* ---- queries ---- */

static void a_query_of_ours_reads_back(void **state)
{
    struct dns_question q = question_of("example.com", DNS_AAAA);
    static struct message m;
    struct dns_query out;

    (void)state;
    buf_init(&m.b, m.bytes, sizeof(m.bytes));
    dns_put_query(&m.b, MESSAGE_ID, &q, true);
    assert_int_equal(m.b.len, 12 + 13 + 4 + 11);
    assert_int_equal(message_read_query(&m, &out), 0);
    assert_int_equal(out.id, MESSAGE_ID);
    assert_true(out.recursion_desired && out.has_edns && out.has_question && !out.dnssec_ok);
    assert_int_equal(out.udp_bytes, DNS_UDP_BYTES);
    assert_int_equal(out.question.type, DNS_AAAA);
    assert_true(dns_name_equal(&out.question.name, &q.name));

    buf_init(&m.b, m.bytes, sizeof(m.bytes));
    dns_put_query(&m.b, MESSAGE_ID, &q, false);
    assert_int_equal(message_read_query(&m, &out), 0);
    assert_false(out.has_edns);
    assert_int_equal(out.udp_bytes, 512);
}

static void every_cut_of_a_query_is_refused_and_nothing_is_read_past_its_end(void **state) /* faults.md D1 */
{
    struct dns_question q = question_of("www.example.com", DNS_A);
    static struct message m;
    struct dns_query out;
    size_t whole;

    (void)state;
    buf_init(&m.b, m.bytes, sizeof(m.bytes));
    dns_put_query(&m.b, MESSAGE_ID, &q, true);
    whole = m.b.len;
    for (size_t len = 0; len < whole; len++) {
        m.b.len = len;
        assert_int_equal(message_read_query(&m, &out), len < DNS_HEADER_LEN ? -EBADMSG : DNS_FORMERR);
        if (len >= DNS_HEADER_LEN)
            assert_int_equal(out.id, MESSAGE_ID);
    }
}

#define Q "\0\1\0\1" /* type A, class IN */

static const struct query_row {
    const char *what;
    unsigned flags, questions;
    const char *name; /* the bytes at the question */
    size_t len;
    int r;
} queries[] = {
    /* faults.md D1 */
    { "good", 0x0100, 1, "\1a\0" Q, 7, 0 },
    { "root", 0x0100, 1, "\0" Q, 5, 0 },
    { "an answer", 0x8100, 1, "\1a\0" Q, 7, -EBADMSG },
    { "opcode NOTIFY", 0x2000, 1, "\1a\0" Q, 7, DNS_NOTIMP },
    { "no question", 0x0100, 0, "\1a\0" Q, 7, DNS_FORMERR },
    { "two questions", 0x0100, 2, "\1a\0" Q "\1a\0" Q, 14, DNS_FORMERR },
    { "65,535 questions", 0x0100, 65535, "\1a\0" Q, 7, DNS_FORMERR },
    { "pointer to itself", 0x0100, 1, "\xc0\x0c" Q, 6, DNS_FORMERR },
    { "pointer forwards", 0x0100, 1, "\xc0\x0e\1a\0" Q, 9, DNS_FORMERR },
    { "pointer past the end", 0x0100, 1, "\xff\xff" Q, 6, DNS_FORMERR },
    { "label, then pointer to it", 0x0100, 1, "\1a\xc0\x0c" Q, 8, DNS_FORMERR },
    { "pointer into the header", 0x0100, 1, "\xc0\x02" Q, 6,
      0 }, /* backwards, and it ends: strange but a name */
    { "half a pointer", 0x0100, 1, "\xc0", 1, DNS_FORMERR },
    { "label of 64", 0x0100, 1, "\x40" LABEL_63 "a\0" Q, 70, DNS_FORMERR },
    { "label type 0x80", 0x0100, 1, "\x80" Q, 5, DNS_FORMERR },
    { "no terminator", 0x0100, 1, "\1a\1b", 4, DNS_FORMERR },
    { "label longer than the message", 0x0100, 1,
      "\x3f"
      "abc",
      4, DNS_FORMERR },
    { "nothing behind the name", 0x0100, 1, "\1a\0", 3, DNS_FORMERR },
    { "name of 255", 0x0100, 1,
      "\x3f" LABEL_63 "\x3f" LABEL_63 "\x3f" LABEL_63 "\x3d"
      "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffg\0" Q,
      259, 0 },
    { "name of 256", 0x0100, 1,
      "\x3f" LABEL_63 "\x3f" LABEL_63 "\x3f" LABEL_63 "\x3e"
      "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgh\0" Q,
      260, DNS_FORMERR },
};

static void broken_questions_are_formerr(void **state) /* faults.md D1 */
{
    static struct message m;
    struct dns_query out;
    int wrong = 0, r;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(queries); i++) {
        message_begin(&m, (uint16_t)queries[i].flags, queries[i].questions, 0, 0, 0);
        buf_put(&m.b, queries[i].name, queries[i].len);
        r = message_read_query(&m, &out);
        if (r == queries[i].r && (r < 0 || out.has_question == (r == 0)))
            continue;
        print_error("%s: %d, not %d\n", queries[i].what, r, queries[i].r);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void edns_of_a_query_is_read_and_checked(void **state) /* faults.md D12, RFC 6891 section 6.1 */
{
    struct dns_question q = question_of("a", DNS_A);
    static const struct {
        const char *what, *opt;
        size_t len;
        unsigned count;
        int r;
        uint16_t bytes;
    } rows[] = {
        { "4096 bytes, DO", "\0\0\x29\x10\0\0\0\x80\0\0\0", 11, 1, 0, 4096 },
        { "100 bytes count as 512", "\0\0\x29\0\x64\0\0\x80\0\0\0", 11, 1, 0, 512 },
        { "options are skipped", "\0\0\x29\x10\0\0\0\x80\0\0\4\0\x0a\0\0", 15, 1, 0, 4096 },
        { "options past the end", "\0\0\x29\x10\0\0\0\x80\0\0\xff\0\x0a\0\0", 15, 1, DNS_FORMERR, 0 },
        { "version 1", "\0\0\x29\x10\0\0\1\x80\0\0\0", 11, 1, DNS_BADVERS, 0 },
        { "owner is not the root", "\1a\0\0\x29\x10\0\0\0\x80\0\0\0", 13, 1, DNS_FORMERR, 0 },
        { "twice", "\0\0\x29\x10\0\0\0\x80\0\0\0\0\0\x29\x10\0\0\0\x80\0\0\0", 22, 2, DNS_FORMERR, 0 },
        { "fewer records than counted", "\0\0\x29\x10\0\0\0\x80\0\0\0", 11, 65535, DNS_FORMERR, 0 },
    };
    static struct message m;
    struct dns_query out;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        message_begin(&m, 0x0100, 1, 0, 0, rows[i].count);
        message_question(&m, &q);
        buf_put(&m.b, rows[i].opt, rows[i].len);
        if (message_read_query(&m, &out) != rows[i].r || (rows[i].r == 0 && out.udp_bytes != rows[i].bytes))
            fail_msg("%s", rows[i].what);
        if (rows[i].r == 0)
            assert_true(out.dnssec_ok);
    }
}

/* ---- replies ---- */

static struct dns_query query_of(const struct dns_question *q, bool edns)
{
    static struct message m;
    struct dns_query out;

    buf_init(&m.b, m.bytes, sizeof(m.bytes));
    dns_put_query(&m.b, MESSAGE_ID, q, edns);
    assert_int_equal(message_read_query(&m, &out), 0);
    return out;
}

static void a_reply_of_ours_reads_back(void **state)
{
    struct dns_question q = question_of("example.com", DNS_A);
    struct dns_query query = query_of(&q, true);
    struct dns_name other;
    struct dns_record records[] = {
        { .type = DNS_CNAME, .ttl_s = 30, .name = &other },
        { .type = DNS_A, .ttl_s = 60, .owner = &other, .addr = ip_from4((const uint8_t[]){ 192, 0, 2, 7 }) },
    };
    static struct message m;
    struct dns_answer out;

    (void)state;
    assert_int_equal(dns_name_from_text("other.example", &other), 0);
    buf_init(&m.b, m.bytes, sizeof(m.bytes));
    assert_int_equal(dns_put_reply(&m.b, &query, DNS_NOERROR, records, 2), 0);
    assert_int_equal(message_read_answer(&m, &q, &out), 0);
    assert_true(out.n_addrs == 1 && answer_has(&out, 0, "192.0.2.7") && out.has_edns);
    assert_int_equal(out.ttl_s, 30);
    assert_int_equal(get_be16(m.bytes + 2), MESSAGE_RESPONSE);
}

static void a_reply_that_does_not_fit_says_truncated(void **state) /* RFC 2181 section 9 */
{
    struct dns_question q = question_of("example.com", DNS_AAAA);
    struct dns_query query = query_of(&q, false);
    struct dns_record records[40];
    static struct message m;
    struct dns_answer out;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(records); i++)
        records[i] =
            (struct dns_record){ .type = DNS_AAAA, .ttl_s = 60, .addr = { .b = { 0x20, 1, [15] = 1 } } };
    buf_init(&m.b, m.bytes, query.udp_bytes);
    assert_int_equal(dns_put_reply(&m.b, &query, DNS_NOERROR, records, ARRAY_LEN(records)), 0);
    assert_int_equal(message_read_answer(&m, &q, &out), 0);
    assert_true(out.truncated && m.b.len <= 512);
    buf_init(&m.b, m.bytes, 65535);
    assert_int_equal(dns_put_reply(&m.b, &query, DNS_NOERROR, records, ARRAY_LEN(records)), 0);
    assert_int_equal(message_read_answer(&m, &q, &out), 0);
    assert_false(out.truncated);
    buf_init(&m.b, m.bytes, 20);
    assert_int_equal(dns_put_reply(&m.b, &query, DNS_NOERROR, NULL, 0), -ENOSPC);
}

static void a_broken_query_gets_its_error_without_a_question(void **state) /* faults.md D1 */
{
    static struct message in, m;
    struct dns_query query;
    int rcode;

    (void)state;
    message_begin(&in, 0x0110, 2, 0, 0, 0);
    rcode = message_read_query(&in, &query);
    assert_int_equal(rcode, DNS_FORMERR);
    buf_init(&m.b, m.bytes, 512);
    assert_int_equal(dns_put_reply(&m.b, &query, (enum dns_rcode)rcode, NULL, 0), 0);
    assert_memory_equal(m.bytes, "\x12\x34\x81\x91\0\0\0\0\0\0\0\0", 12);
    assert_int_equal(m.b.len, 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_go_from_text_to_wire_and_back),
        cmocka_unit_test(names_compare_without_case_and_print_odd_bytes_as_numbers),
        cmocka_unit_test(a_query_of_ours_reads_back),
        cmocka_unit_test(every_cut_of_a_query_is_refused_and_nothing_is_read_past_its_end),
        cmocka_unit_test(broken_questions_are_formerr),
        cmocka_unit_test(edns_of_a_query_is_read_and_checked),
        cmocka_unit_test(a_reply_of_ours_reads_back),
        cmocka_unit_test(a_reply_that_does_not_fit_says_truncated),
        cmocka_unit_test(a_broken_query_gets_its_error_without_a_question),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
