/* test_dns_answer.c - faces src/dns/read.c: what is taken from the answers of name servers, and what is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "dns_message.h"

#define Q "\0\1\0\1" /* type A, class IN */

static void addresses_are_taken_in_order_with_the_lowest_ttl(void **state)
{
    struct dns_question q = question_of("example.com", DNS_A);
    static struct message m;
    struct dns_answer out;

    (void)state;
    message_begin(&m, MESSAGE_RESPONSE, 1, 3, 0, 0);
    message_question(&m, &q);
    message_a(&m, MESSAGE_OWNER, 2, 300, 1);
    message_a(&m, "\7EXAMPLE\3com\0", 13, 60, 2); /* the case of an owner does not matter */
    message_a(&m, "\5other\0", 7, 5, 3);          /* somebody else's */
    assert_int_equal(message_read_answer(&m, &q, &out), 0);
    assert_int_equal(out.rcode, DNS_NOERROR);
    assert_int_equal(out.n_addrs, 2);
    assert_true(answer_has(&out, 0, "192.0.2.1") && answer_has(&out, 1, "192.0.2.2"));
    assert_int_equal(out.ttl_s, 60);
}

static void ipv6_addresses_are_taken_but_no_mapped_ones(void **state)
{
    static const uint8_t six[16] = { 0x20, 1, 0xd, 0xb8, [15] = 1 },
                         mapped[16] = { [10] = 0xff, 0xff, 10, 0, 0, 1 };
    struct dns_question q = question_of("example.com", DNS_AAAA);
    static struct message m;
    struct dns_answer out;

    (void)state;
    message_begin(&m, MESSAGE_RESPONSE, 1, 3, 0, 0);
    message_question(&m, &q);
    message_record(&m, MESSAGE_OWNER, 2, DNS_AAAA, 60, mapped, 16);
    message_record(&m, MESSAGE_OWNER, 2, DNS_AAAA, 60, six, 16);
    message_a(&m, MESSAGE_OWNER, 2, 60, 1); /* not what was asked */
    assert_int_equal(message_read_answer(&m, &q, &out), 0);
    assert_int_equal(out.n_addrs, 1);
    assert_true(answer_has(&out, 0, "2001:db8::1"));
}

static void ttls_are_clamped_to_a_second_and_a_day(void **state) /* faults.md D6 */
{
    static const struct {
        uint32_t ttl_s, taken_s;
    } rows[] = {
        { 0, 1 },          { 1, 1 },          { 86400, 86400 }, { 86401, 86400 }, { INT32_MAX, 86400 },
        { 0x80000000, 1 }, { UINT32_MAX, 1 },
    };
    struct dns_question q = question_of("example.com", DNS_A);
    static struct message m;
    struct dns_answer out;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        message_begin(&m, MESSAGE_RESPONSE, 1, 1, 0, 0);
        message_question(&m, &q);
        message_a(&m, MESSAGE_OWNER, 2, rows[i].ttl_s, 1);
        assert_int_equal(message_read_answer(&m, &q, &out), 0);
        assert_int_equal(out.ttl_s, rows[i].taken_s);
    }
}

/* A chain of @steps CNAMEs and an address at its end; backwards: each record stands before the one that leads to it. */
static int read_chain(unsigned steps, bool backwards, bool circle, struct dns_answer *out)
{
    struct dns_question q = question_of("n0", DNS_A);
    static struct message m;
    struct dns_name name, next;
    char text[16];

    message_begin(&m, MESSAGE_RESPONSE, 1, steps + 1, 0, 0);
    message_question(&m, &q);
    for (unsigned i = 0; i < steps; i++) {
        unsigned k = backwards ? steps - 1 - i : i;

        snprintf(text, sizeof(text), "n%u", k);
        assert_int_equal(dns_name_from_text(text, &name), 0);
        snprintf(text, sizeof(text), "n%u", circle && k + 1 == steps ? 0 : k + 1);
        assert_int_equal(dns_name_from_text(text, &next), 0);
        message_cname(&m, &name, &next, 100 + k);
    }
    snprintf(text, sizeof(text), "n%u", steps);
    assert_int_equal(dns_name_from_text(text, &name), 0);
    message_a(&m, (char *)name.wire, name.len, 200, 1);
    return message_read_answer(&m, &q, out);
}

static void a_chain_of_16_cnames_is_followed_and_one_of_17_is_not(void **state) /* faults.md D6 */
{
    struct dns_answer out;

    (void)state;
    for (unsigned steps = 0; steps <= 16; steps++) {
        assert_int_equal(read_chain(steps, false, false, &out), 0);
        assert_true(out.n_addrs == 1 && answer_has(&out, 0, "192.0.2.1"));
        assert_int_equal(out.ttl_s, steps > 0 ? 100 : 200);
        assert_int_equal(read_chain(steps, true, false, &out), 0);
        assert_int_equal(out.n_addrs, 1);
    }
    assert_int_equal(read_chain(17, false, false, &out), -EBADMSG);
    assert_int_equal(read_chain(100, true, false, &out), -EBADMSG);
}

static void a_circle_of_cnames_is_refused(void **state) /* faults.md D6 */
{
    struct dns_answer out;

    (void)state;
    assert_int_equal(read_chain(1, false, true, &out), -EBADMSG);
    assert_int_equal(read_chain(2, false, true, &out), -EBADMSG);
    assert_int_equal(read_chain(16, true, true, &out), -EBADMSG);
}

static void only_16_addresses_are_taken(void **state)
{
    struct dns_question q = question_of("example.com", DNS_A);
    static struct message m;
    struct dns_answer out;

    (void)state;
    message_begin(&m, MESSAGE_RESPONSE, 1, 200, 0, 0);
    message_question(&m, &q);
    for (unsigned i = 0; i < 200; i++)
        message_a(&m, MESSAGE_OWNER, 2, 60, (uint8_t)i);
    assert_int_equal(message_read_answer(&m, &q, &out), 0);
    assert_int_equal(out.n_addrs, DNS_ADDRS_MAX);
}

/* RFC 2308 section 5, faults.md D6. */
static void no_such_name_holds_as_long_as_its_soa_says(void **state)
{
    static const struct {
        uint32_t ttl_s, minimum_s, holds_s;
    } rows[] = {
        { 60, 3600, 60 },
        { 3600, 60, 60 },
        { 86400, 86400, 300 },
        { 0, 60, 1 },
    };
    struct dns_question q = question_of("example.com", DNS_A);
    uint8_t soa[22] = { 0 };
    static struct message m;
    struct dns_answer out;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        message_begin(&m, MESSAGE_RESPONSE | DNS_NXDOMAIN, 1, 0, 1, 0);
        message_question(&m, &q);
        put_be32(soa + 18, rows[i].minimum_s);
        message_record(&m, "\3com\0", 5, DNS_SOA, rows[i].ttl_s, soa, sizeof(soa));
        assert_int_equal(message_read_answer(&m, &q, &out), 0);
        assert_int_equal(out.rcode, DNS_NXDOMAIN);
        assert_int_equal(out.n_addrs, 0);
        assert_int_equal(out.ttl_s, rows[i].holds_s);
    }
    message_begin(&m, MESSAGE_RESPONSE, 1, 0, 0, 0); /* empty, and no SOA */
    message_question(&m, &q);
    assert_int_equal(message_read_answer(&m, &q, &out), 0);
    assert_int_equal(out.ttl_s, 5);
}

static void an_answer_that_is_not_ours_is_not_taken(void **state) /* faults.md D3 */
{
    struct dns_question q = question_of("example.com", DNS_A), other_name = question_of("example.net", DNS_A);
    struct dns_question other_type = question_of("example.com", DNS_AAAA), other_class = q, other_case = q;
    const struct {
        const char *what;
        uint16_t id, flags;
        const struct dns_question *q;
        int r;
    } rows[] = {
        { "ours", MESSAGE_ID, MESSAGE_RESPONSE, &q, 0 },
        { "wrong id", MESSAGE_ID + 1, MESSAGE_RESPONSE, &q, -ENOMSG },
        { "our own query back", MESSAGE_ID, 0x0100, &q, -ENOMSG },
        { "another opcode", MESSAGE_ID, 0xa000, &q, -ENOMSG },
        { "another name", MESSAGE_ID, MESSAGE_RESPONSE, &other_name, -ENOMSG },
        { "another type", MESSAGE_ID, MESSAGE_RESPONSE, &other_type, -ENOMSG },
        { "another class", MESSAGE_ID, MESSAGE_RESPONSE, &other_class, -ENOMSG },
        { "case changed", MESSAGE_ID, MESSAGE_RESPONSE, &other_case, -ENOMSG },
    };
    static struct message m;
    struct dns_answer out;
    int wrong = 0, r;

    (void)state;
    other_class.class = 3;
    other_case.name.wire[1] = 'E';
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        message_begin(&m, rows[i].flags, 1, 1, 0, 0);
        put_be16(m.bytes, rows[i].id);
        message_question(&m, rows[i].q);
        message_a(&m, MESSAGE_OWNER, 2, 60, 1);
        if ((r = message_read_answer(&m, &q, &out)) == rows[i].r)
            continue;
        print_error("%s: %d, not %d\n", rows[i].what, r, rows[i].r);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void an_answer_of_ours_that_is_broken_is_told_apart(void **state) /* faults.md D2 */
{
    struct dns_question q = question_of("a", DNS_A);
    static const struct {
        const char *what;
        unsigned questions, answers, additionals;
        const char *tail;
        size_t len;
        int r;
    } rows[] = {
        { "two questions", 2, 0, 0, "", 0, -EBADMSG },
        { "65,535 questions", 65535, 0, 0, "", 0, -EBADMSG },
        { "no question, no error", 0, 0, 0, "", 0, -EBADMSG },
        { "a record too few", 1, 2, 0, MESSAGE_OWNER Q "\0\0\0\1\0\4\1\2\3\4", 16, -EBADMSG },
        { "65,535 records", 1, 65535, 0, MESSAGE_OWNER Q "\0\0\0\1\0\4\1\2\3\4", 16, -EBADMSG },
        { "additional records missing", 1, 1, 1, MESSAGE_OWNER Q "\0\0\0\1\0\4\1\2\3\4", 16, -EBADMSG },
        { "RDLENGTH past the end", 1, 1, 0, MESSAGE_OWNER Q "\0\0\0\1\0\5\1\2\3\4", 16, -EBADMSG },
        { "RDLENGTH 65,535", 1, 1, 0, MESSAGE_OWNER Q "\0\0\0\1\xff\xff\1\2\3\4", 16, -EBADMSG },
        { "an A of 3 bytes", 1, 1, 0, MESSAGE_OWNER Q "\0\0\0\1\0\3\1\2\3", 15, -EBADMSG },
        { "an A of 5 bytes", 1, 1, 0, MESSAGE_OWNER Q "\0\0\0\1\0\5\1\2\3\4\5", 17, -EBADMSG },
        { "owner without end", 1, 1, 0, "\1a\1a\1a", 6, -EBADMSG },
        { "owner with a label of 64", 1, 1, 0, "\x40" LABEL_63 "a\0" Q "\0\0\0\1\0\4\1\2\3\4", 80, -EBADMSG },
        { "CNAME that points to itself", 1, 1, 0, MESSAGE_OWNER "\0\5\0\1\0\0\0\1\0\2\xc0\x1f", 14,
          -EBADMSG },
        { "CNAME shorter than its data", 1, 1, 0, MESSAGE_OWNER "\0\5\0\1\0\0\0\1\0\4\1b\0\0", 16, -EBADMSG },
        { "CNAME longer than its data", 1, 1, 0, MESSAGE_OWNER "\0\5\0\1\0\0\0\1\0\2\1b\0\0", 16, -EBADMSG },
        { "bytes left over", 1, 1, 0, MESSAGE_OWNER Q "\0\0\0\1\0\4\1\2\3\4junk", 20, 0 },
        { "an owner that loops is nobody's", 1, 1, 0, "\xc0\x13" Q "\0\0\0\1\0\4\1\2\3\4", 16, 0 },
    };
    static struct message m;
    struct dns_answer out;
    int wrong = 0, r;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        message_begin(&m, MESSAGE_RESPONSE, rows[i].questions, rows[i].answers, 0, rows[i].additionals);
        message_question(&m, &q);
        buf_put(&m.b, rows[i].tail, rows[i].len);
        if ((r = message_read_answer(&m, &q, &out)) == rows[i].r)
            continue;
        print_error("%s: %d, not %d\n", rows[i].what, r, rows[i].r);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void every_cut_of_an_answer_is_refused(void **state) /* faults.md D2 */
{
    struct dns_question q = question_of("example.com", DNS_A), b = question_of("b.example", DNS_A);
    static struct message m;
    struct dns_answer out;
    size_t whole;

    (void)state;
    message_begin(&m, MESSAGE_RESPONSE, 1, 2, 0, 1);
    message_question(&m, &q);
    message_cname(&m, &q.name, &b.name, 60);
    message_a(&m, "\1b\7example\0", 11, 60, 1);
    buf_put(&m.b, "\0\0\x29\x04\xd0\0\0\0\0\0\0", 11);
    whole = m.b.len;
    assert_int_equal(message_read_answer(&m, &q, &out), 0);
    assert_int_equal(out.n_addrs, 1);
    for (m.b.len = 0; m.b.len < whole; m.b.len++)
        assert_int_equal(message_read_answer(&m, &q, &out), m.b.len < DNS_HEADER_LEN ? -ENOMSG : -EBADMSG);
}

static void the_truncated_bit_gives_no_addresses_but_no_complaint(void **state) /* faults.md D5 */
{
    struct dns_question q = question_of("example.com", DNS_A);
    static struct message m;
    struct dns_answer out;

    (void)state;
    message_begin(&m, MESSAGE_RESPONSE | MESSAGE_TRUNCATED, 1, 2, 0, 0);
    message_question(&m, &q);
    message_a(&m, MESSAGE_OWNER, 2, 60, 1); /* the second one was cut off */
    assert_int_equal(message_read_answer(&m, &q, &out), 0);
    assert_true(out.truncated);
    assert_int_equal(out.n_addrs, 0);
}

static void error_codes_come_through_even_from_a_bare_header(void **state) /* faults.md D6 */
{
    struct dns_question q = question_of("example.com", DNS_A);
    static struct message m;
    struct dns_answer out;

    (void)state;
    message_begin(&m, MESSAGE_RESPONSE | DNS_FORMERR, 0, 0, 0, 0);
    assert_int_equal(message_read_answer(&m, &q, &out), 0);
    assert_int_equal(out.rcode, DNS_FORMERR);
    message_begin(&m, MESSAGE_RESPONSE | DNS_NXDOMAIN, 0, 0, 0,
                  0); /* that one says something about a name, so it must show it */
    assert_int_equal(message_read_answer(&m, &q, &out), -EBADMSG);
    message_begin(&m, MESSAGE_RESPONSE | DNS_SERVFAIL, 1, 0, 0, 0);
    message_question(&m, &q);
    assert_int_equal(message_read_answer(&m, &q, &out), 0);
    assert_int_equal(out.rcode, DNS_SERVFAIL);
    message_begin(&m, MESSAGE_RESPONSE, 1, 0, 0, 1);
    message_question(&m, &q);
    buf_put(&m.b, "\0\0\x29\x04\xd0\1\0\0\0\0\0", 11); /* BADVERS: 1 << 4 */
    assert_int_equal(message_read_answer(&m, &q, &out), 0);
    assert_int_equal(out.rcode, DNS_BADVERS);
}

/* faults.md D2: linear time. */
static void sixty_four_kib_full_of_pointers_are_read_in_no_time(void **state)
{
    struct dns_question q =
        question_of("a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.b", DNS_A);
    static struct message m;
    struct dns_answer out;

    (void)state;
    for (int i = 0; i < 100; i++) { /* 100 times 1,000 records with the longest way to "not equal" */
        message_begin(&m, MESSAGE_RESPONSE, 1, 1000, 0, 0);
        message_question(&m, &q);
        for (int k = 0; k < 1000; k++)
            message_a(&m, "\xc0\x0e", 2, 60, 1);
        assert_int_equal(message_read_answer(&m, &q, &out), 0);
        assert_int_equal(out.n_addrs, 0);
    }
}

static void a_chain_of_128_pointers_is_refused(void **state) /* faults.md D1 */
{
    struct dns_question q = question_of("a", DNS_A);
    static struct message m;
    struct dns_answer out;
    uint8_t rdata[2 * 129];

    (void)state;
    message_begin(&m, MESSAGE_RESPONSE, 1, 2, 0, 0);
    message_question(&m, &q);
    for (size_t i = 0; i < 129; i++) /* each points to the one before, the first to the question */
        put_be16(rdata + 2 * i, (uint16_t)(0xc000 | (i == 0 ? 12 : m.b.len + 12 + 2 * (i - 1))));
    message_record(&m, MESSAGE_OWNER, 2, 99, 60, rdata, sizeof(rdata));
    message_record(&m, MESSAGE_OWNER, 2, DNS_CNAME, 60, rdata + sizeof(rdata) - 2, 2);
    assert_int_equal(message_read_answer(&m, &q, &out), -EBADMSG);
}

/* RFC 2308 section 2.2: an alias of a name without addresses is kept no longer than the SOA says, however long the alias holds. */
static void an_alias_that_leads_to_nothing_is_kept_as_nothing_is(void **state)
{
    struct dns_question q = question_of("a.example", DNS_AAAA);
    struct dns_name target;
    uint8_t soa[22] = { 0 };
    struct dns_relay relay;
    struct message m;

    (void)state;
    put_be32(soa + 18, 45);
    assert_int_equal(dns_name_from_text("b.example", &target), 0);
    for (unsigned with_soa = 0; with_soa < 2; with_soa++) {
        message_begin(&m, MESSAGE_RESPONSE, 1, 1, with_soa, 0);
        message_question(&m, &q);
        message_cname(&m, &q.name, &target, 86400);
        if (with_soa)
            message_record(&m, "\0", 1, DNS_SOA, 3600, soa, sizeof(soa));
        assert_int_equal(dns_read_relay((struct span){ m.bytes, m.b.len }, MESSAGE_ID, &q, &relay), 0);
        assert_int_equal(relay.answer.n_addrs, 0);
        assert_int_equal(relay.answer.ttl_s, with_soa ? 45 : 5);
    }
    message_begin(&m, MESSAGE_RESPONSE, 1, 2, 0,
                  0); /* and one that leads somewhere as long as its records say */
    q.type = DNS_A;
    message_question(&m, &q);
    message_cname(&m, &q.name, &target, 600);
    message_a(&m, "\1b\7example", 11, 900, 1);
    assert_int_equal(dns_read_relay((struct span){ m.bytes, m.b.len }, MESSAGE_ID, &q, &relay), 0);
    assert_int_equal(relay.answer.n_addrs, 1);
    assert_int_equal(relay.answer.ttl_s, 600);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_taken_in_order_with_the_lowest_ttl),
        cmocka_unit_test(an_alias_that_leads_to_nothing_is_kept_as_nothing_is),
        cmocka_unit_test(ipv6_addresses_are_taken_but_no_mapped_ones),
        cmocka_unit_test(ttls_are_clamped_to_a_second_and_a_day),
        cmocka_unit_test(a_chain_of_16_cnames_is_followed_and_one_of_17_is_not),
        cmocka_unit_test(a_circle_of_cnames_is_refused),
        cmocka_unit_test(only_16_addresses_are_taken),
        cmocka_unit_test(sixty_four_kib_full_of_pointers_are_read_in_no_time),
        cmocka_unit_test(no_such_name_holds_as_long_as_its_soa_says),
        cmocka_unit_test(an_answer_that_is_not_ours_is_not_taken),
        cmocka_unit_test(an_answer_of_ours_that_is_broken_is_told_apart),
        cmocka_unit_test(every_cut_of_an_answer_is_refused),
        cmocka_unit_test(the_truncated_bit_gives_no_addresses_but_no_complaint),
        cmocka_unit_test(error_codes_come_through_even_from_a_bare_header),
        cmocka_unit_test(a_chain_of_128_pointers_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
