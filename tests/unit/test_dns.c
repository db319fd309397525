/* test_dns.c - faces src/dns: what is taken from queries and answers, and what is refused of them. */
#include "culvert/dns.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define ID        0x1234
#define RESPONSE  0x8180 /* QR, RD, RA */
#define TRUNCATED 0x0200
#define OWNER     "\xc0\x0c" /* a pointer to the question's name */

/* A message under construction. Its bytes are handed to readers in a heap copy of exact size, where ASan sees every
 * read past the end. */
struct message {
    uint8_t bytes[70000];
    struct buf b;
};

static struct dns_question question_of(const char *name, uint16_t type)
{
    struct dns_question q = { .type = type, .class = DNS_IN };

    assert_int_equal(dns_name_from_text(name, &q.name), 0);
    return q;
}

static void begin(struct message *m, uint16_t flags, unsigned questions, unsigned answers,
                  unsigned authorities, unsigned additionals)
{
    buf_init(&m->b, m->bytes, sizeof(m->bytes));
    buf_u16(&m->b, ID);
    buf_u16(&m->b, flags);
    buf_u16(&m->b, (uint16_t)questions);
    buf_u16(&m->b, (uint16_t)answers);
    buf_u16(&m->b, (uint16_t)authorities);
    buf_u16(&m->b, (uint16_t)additionals);
}

static void put_question(struct message *m, const struct dns_question *q)
{
    buf_put(&m->b, q->name.wire, q->name.len);
    buf_u16(&m->b, q->type);
    buf_u16(&m->b, q->class);
}

static void put_record(struct message *m, const char *owner, size_t owner_len, uint16_t type, uint32_t ttl_s,
                       const void *rdata, size_t rdata_len)
{
    buf_put(&m->b, owner, owner_len);
    buf_u16(&m->b, type);
    buf_u16(&m->b, DNS_IN);
    buf_u32(&m->b, ttl_s);
    buf_u16(&m->b, (uint16_t)rdata_len);
    buf_put(&m->b, rdata, rdata_len);
}

static void put_a(struct message *m, const char *owner, size_t owner_len, uint32_t ttl_s, uint8_t last)
{
    put_record(m, owner, owner_len, DNS_A, ttl_s, (const uint8_t[]){ 192, 0, 2, last }, 4);
}

static void put_cname(struct message *m, const struct dns_name *owner, const struct dns_name *target,
                      uint32_t ttl_s)
{
    put_record(m, (const char *)owner->wire, owner->len, DNS_CNAME, ttl_s, target->wire, target->len);
}

static int read_answer(const struct message *m, const struct dns_question *q, struct dns_answer *out)
{
    uint8_t *copy = malloc(m->b.len + 1);
    int r;

    assert_non_null(copy);
    assert_false(m->b.full);
    memcpy(copy + 1, m->bytes, m->b.len);
    r = dns_read_answer((struct span){ copy + 1, m->b.len }, ID, q, out);
    free(copy);
    return r;
}

static int read_query(const struct message *m, struct dns_query *out)
{
    uint8_t *copy = malloc(m->b.len + 1);
    int r;

    assert_non_null(copy);
    memcpy(copy + 1, m->bytes, m->b.len);
    r = dns_read_query((struct span){ copy + 1, m->b.len }, out);
    free(copy);
    return r;
}

static bool has_addr(const struct dns_answer *a, size_t i, const char *text)
{
    char is[IP_TEXT_MAX];

    return i < a->n_addrs && strcmp(ip_text(&a->addrs[i], is), text) == 0;
}

/* ---- names ---- */

#define L63 "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0"

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
    assert_int_equal(dns_name_from_text(L63 "." L63 "." L63 "."
                                            "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxy",
                                        &n),
                     0);
    assert_int_equal(n.len, 255);
    assert_int_equal(dns_name_from_text(L63 "." L63 "." L63 "."
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
    dns_put_query(&m.b, ID, &q, true);
    assert_int_equal(m.b.len, 12 + 13 + 4 + 11);
    assert_int_equal(read_query(&m, &out), 0);
    assert_int_equal(out.id, ID);
    assert_true(out.recursion_desired && out.has_edns && out.has_question && !out.dnssec_ok);
    assert_int_equal(out.udp_bytes, DNS_UDP_BYTES);
    assert_int_equal(out.question.type, DNS_AAAA);
    assert_true(dns_name_equal(&out.question.name, &q.name));

    buf_init(&m.b, m.bytes, sizeof(m.bytes));
    dns_put_query(&m.b, ID, &q, false);
    assert_int_equal(read_query(&m, &out), 0);
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
    dns_put_query(&m.b, ID, &q, true);
    whole = m.b.len;
    for (size_t len = 0; len < whole; len++) {
        m.b.len = len;
        assert_int_equal(read_query(&m, &out), len < DNS_HEADER_LEN ? -EBADMSG : DNS_FORMERR);
        if (len >= DNS_HEADER_LEN)
            assert_int_equal(out.id, ID);
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
    { "label of 64", 0x0100, 1, "\x40" L63 "a\0" Q, 70, DNS_FORMERR },
    { "label type 0x80", 0x0100, 1, "\x80" Q, 5, DNS_FORMERR },
    { "no terminator", 0x0100, 1, "\1a\1b", 4, DNS_FORMERR },
    { "label longer than the message", 0x0100, 1,
      "\x3f"
      "abc",
      4, DNS_FORMERR },
    { "nothing behind the name", 0x0100, 1, "\1a\0", 3, DNS_FORMERR },
    { "name of 255", 0x0100, 1,
      "\x3f" L63 "\x3f" L63 "\x3f" L63 "\x3d"
      "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffg\0" Q,
      259, 0 },
    { "name of 256", 0x0100, 1,
      "\x3f" L63 "\x3f" L63 "\x3f" L63 "\x3e"
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
        begin(&m, (uint16_t)queries[i].flags, queries[i].questions, 0, 0, 0);
        buf_put(&m.b, queries[i].name, queries[i].len);
        r = read_query(&m, &out);
        if (r == queries[i].r && (r < 0 || out.has_question == (r == 0)))
            continue;
        print_error("%s: %d, not %d\n", queries[i].what, r, queries[i].r);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void a_chain_of_128_pointers_is_refused(void **state) /* faults.md D1 */
{
    struct dns_question q = question_of("a", DNS_A);
    static struct message m;
    struct dns_answer out;
    uint8_t rdata[2 * 129];

    (void)state;
    begin(&m, RESPONSE, 1, 2, 0, 0);
    put_question(&m, &q);
    for (size_t i = 0; i < 129; i++) /* each points to the one before, the first to the question */
        put_be16(rdata + 2 * i, (uint16_t)(0xc000 | (i == 0 ? 12 : m.b.len + 12 + 2 * (i - 1))));
    put_record(&m, OWNER, 2, 99, 60, rdata, sizeof(rdata));
    put_record(&m, OWNER, 2, DNS_CNAME, 60, rdata + sizeof(rdata) - 2, 2);
    assert_int_equal(read_answer(&m, &q, &out), -EBADMSG);
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
        begin(&m, 0x0100, 1, 0, 0, rows[i].count);
        put_question(&m, &q);
        buf_put(&m.b, rows[i].opt, rows[i].len);
        if (read_query(&m, &out) != rows[i].r || (rows[i].r == 0 && out.udp_bytes != rows[i].bytes))
            fail_msg("%s", rows[i].what);
        if (rows[i].r == 0)
            assert_true(out.dnssec_ok);
    }
}

/* ---- answers ---- */

static void addresses_are_taken_in_order_with_the_lowest_ttl(void **state)
{
    struct dns_question q = question_of("example.com", DNS_A);
    static struct message m;
    struct dns_answer out;

    (void)state;
    begin(&m, RESPONSE, 1, 3, 0, 0);
    put_question(&m, &q);
    put_a(&m, OWNER, 2, 300, 1);
    put_a(&m, "\7EXAMPLE\3com\0", 13, 60, 2); /* the case of an owner does not matter */
    put_a(&m, "\5other\0", 7, 5, 3);          /* somebody else's */
    assert_int_equal(read_answer(&m, &q, &out), 0);
    assert_int_equal(out.rcode, DNS_NOERROR);
    assert_int_equal(out.n_addrs, 2);
    assert_true(has_addr(&out, 0, "192.0.2.1") && has_addr(&out, 1, "192.0.2.2"));
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
    begin(&m, RESPONSE, 1, 3, 0, 0);
    put_question(&m, &q);
    put_record(&m, OWNER, 2, DNS_AAAA, 60, mapped, 16);
    put_record(&m, OWNER, 2, DNS_AAAA, 60, six, 16);
    put_a(&m, OWNER, 2, 60, 1); /* not what was asked */
    assert_int_equal(read_answer(&m, &q, &out), 0);
    assert_int_equal(out.n_addrs, 1);
    assert_true(has_addr(&out, 0, "2001:db8::1"));
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
        begin(&m, RESPONSE, 1, 1, 0, 0);
        put_question(&m, &q);
        put_a(&m, OWNER, 2, rows[i].ttl_s, 1);
        assert_int_equal(read_answer(&m, &q, &out), 0);
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

    begin(&m, RESPONSE, 1, steps + 1, 0, 0);
    put_question(&m, &q);
    for (unsigned i = 0; i < steps; i++) {
        unsigned k = backwards ? steps - 1 - i : i;

        snprintf(text, sizeof(text), "n%u", k);
        assert_int_equal(dns_name_from_text(text, &name), 0);
        snprintf(text, sizeof(text), "n%u", circle && k + 1 == steps ? 0 : k + 1);
        assert_int_equal(dns_name_from_text(text, &next), 0);
        put_cname(&m, &name, &next, 100 + k);
    }
    snprintf(text, sizeof(text), "n%u", steps);
    assert_int_equal(dns_name_from_text(text, &name), 0);
    put_a(&m, (char *)name.wire, name.len, 200, 1);
    return read_answer(&m, &q, out);
}

static void a_chain_of_16_cnames_is_followed_and_one_of_17_is_not(void **state) /* faults.md D6 */
{
    struct dns_answer out;

    (void)state;
    for (unsigned steps = 0; steps <= 16; steps++) {
        assert_int_equal(read_chain(steps, false, false, &out), 0);
        assert_true(out.n_addrs == 1 && has_addr(&out, 0, "192.0.2.1"));
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
    begin(&m, RESPONSE, 1, 200, 0, 0);
    put_question(&m, &q);
    for (unsigned i = 0; i < 200; i++)
        put_a(&m, OWNER, 2, 60, (uint8_t)i);
    assert_int_equal(read_answer(&m, &q, &out), 0);
    assert_int_equal(out.n_addrs, DNS_ADDRS_MAX);
}

static void no_such_name_holds_as_long_as_the_soa_says_up_to_5_minutes(
    void **state) /* RFC 2308 section 5, faults.md D6 */
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
        begin(&m, RESPONSE | DNS_NXDOMAIN, 1, 0, 1, 0);
        put_question(&m, &q);
        put_be32(soa + 18, rows[i].minimum_s);
        put_record(&m, "\3com\0", 5, DNS_SOA, rows[i].ttl_s, soa, sizeof(soa));
        assert_int_equal(read_answer(&m, &q, &out), 0);
        assert_int_equal(out.rcode, DNS_NXDOMAIN);
        assert_int_equal(out.n_addrs, 0);
        assert_int_equal(out.ttl_s, rows[i].holds_s);
    }
    begin(&m, RESPONSE, 1, 0, 0, 0); /* empty, and no SOA */
    put_question(&m, &q);
    assert_int_equal(read_answer(&m, &q, &out), 0);
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
        { "ours", ID, RESPONSE, &q, 0 },
        { "wrong id", ID + 1, RESPONSE, &q, -ENOMSG },
        { "our own query back", ID, 0x0100, &q, -ENOMSG },
        { "another opcode", ID, 0xa000, &q, -ENOMSG },
        { "another name", ID, RESPONSE, &other_name, -ENOMSG },
        { "another type", ID, RESPONSE, &other_type, -ENOMSG },
        { "another class", ID, RESPONSE, &other_class, -ENOMSG },
        { "case changed", ID, RESPONSE, &other_case, -ENOMSG },
    };
    static struct message m;
    struct dns_answer out;
    int wrong = 0, r;

    (void)state;
    other_class.class = 3;
    other_case.name.wire[1] = 'E';
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        begin(&m, rows[i].flags, 1, 1, 0, 0);
        put_be16(m.bytes, rows[i].id);
        put_question(&m, rows[i].q);
        put_a(&m, OWNER, 2, 60, 1);
        if ((r = read_answer(&m, &q, &out)) == rows[i].r)
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
        { "a record too few", 1, 2, 0, OWNER Q "\0\0\0\1\0\4\1\2\3\4", 16, -EBADMSG },
        { "65,535 records", 1, 65535, 0, OWNER Q "\0\0\0\1\0\4\1\2\3\4", 16, -EBADMSG },
        { "additional records missing", 1, 1, 1, OWNER Q "\0\0\0\1\0\4\1\2\3\4", 16, -EBADMSG },
        { "RDLENGTH past the end", 1, 1, 0, OWNER Q "\0\0\0\1\0\5\1\2\3\4", 16, -EBADMSG },
        { "RDLENGTH 65,535", 1, 1, 0, OWNER Q "\0\0\0\1\xff\xff\1\2\3\4", 16, -EBADMSG },
        { "an A of 3 bytes", 1, 1, 0, OWNER Q "\0\0\0\1\0\3\1\2\3", 15, -EBADMSG },
        { "an A of 5 bytes", 1, 1, 0, OWNER Q "\0\0\0\1\0\5\1\2\3\4\5", 17, -EBADMSG },
        { "owner without end", 1, 1, 0, "\1a\1a\1a", 6, -EBADMSG },
        { "owner with a label of 64", 1, 1, 0, "\x40" L63 "a\0" Q "\0\0\0\1\0\4\1\2\3\4", 80, -EBADMSG },
        { "CNAME that points to itself", 1, 1, 0, OWNER "\0\5\0\1\0\0\0\1\0\2\xc0\x1f", 14, -EBADMSG },
        { "CNAME shorter than its data", 1, 1, 0, OWNER "\0\5\0\1\0\0\0\1\0\4\1b\0\0", 16, -EBADMSG },
        { "CNAME longer than its data", 1, 1, 0, OWNER "\0\5\0\1\0\0\0\1\0\2\1b\0\0", 16, -EBADMSG },
        { "bytes left over", 1, 1, 0, OWNER Q "\0\0\0\1\0\4\1\2\3\4junk", 20, 0 },
        { "an owner that loops is nobody's", 1, 1, 0, "\xc0\x13" Q "\0\0\0\1\0\4\1\2\3\4", 16, 0 },
    };
    static struct message m;
    struct dns_answer out;
    int wrong = 0, r;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        begin(&m, RESPONSE, rows[i].questions, rows[i].answers, 0, rows[i].additionals);
        put_question(&m, &q);
        buf_put(&m.b, rows[i].tail, rows[i].len);
        if ((r = read_answer(&m, &q, &out)) == rows[i].r)
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
    begin(&m, RESPONSE, 1, 2, 0, 1);
    put_question(&m, &q);
    put_cname(&m, &q.name, &b.name, 60);
    put_a(&m, "\1b\7example\0", 11, 60, 1);
    buf_put(&m.b, "\0\0\x29\x04\xd0\0\0\0\0\0\0", 11);
    whole = m.b.len;
    assert_int_equal(read_answer(&m, &q, &out), 0);
    assert_int_equal(out.n_addrs, 1);
    for (m.b.len = 0; m.b.len < whole; m.b.len++)
        assert_int_equal(read_answer(&m, &q, &out), m.b.len < DNS_HEADER_LEN ? -ENOMSG : -EBADMSG);
}

static void the_truncated_bit_gives_no_addresses_but_no_complaint(void **state) /* faults.md D5 */
{
    struct dns_question q = question_of("example.com", DNS_A);
    static struct message m;
    struct dns_answer out;

    (void)state;
    begin(&m, RESPONSE | TRUNCATED, 1, 2, 0, 0);
    put_question(&m, &q);
    put_a(&m, OWNER, 2, 60, 1); /* the second one was cut off */
    assert_int_equal(read_answer(&m, &q, &out), 0);
    assert_true(out.truncated);
    assert_int_equal(out.n_addrs, 0);
}

static void error_codes_come_through_even_from_a_bare_header(void **state) /* faults.md D6 */
{
    struct dns_question q = question_of("example.com", DNS_A);
    static struct message m;
    struct dns_answer out;

    (void)state;
    begin(&m, RESPONSE | DNS_FORMERR, 0, 0, 0, 0);
    assert_int_equal(read_answer(&m, &q, &out), 0);
    assert_int_equal(out.rcode, DNS_FORMERR);
    begin(&m, RESPONSE | DNS_NXDOMAIN, 0, 0, 0,
          0); /* that one says something about a name, so it must show it */
    assert_int_equal(read_answer(&m, &q, &out), -EBADMSG);
    begin(&m, RESPONSE | DNS_SERVFAIL, 1, 0, 0, 0);
    put_question(&m, &q);
    assert_int_equal(read_answer(&m, &q, &out), 0);
    assert_int_equal(out.rcode, DNS_SERVFAIL);
    begin(&m, RESPONSE, 1, 0, 0, 1);
    put_question(&m, &q);
    buf_put(&m.b, "\0\0\x29\x04\xd0\1\0\0\0\0\0", 11); /* BADVERS: 1 << 4 */
    assert_int_equal(read_answer(&m, &q, &out), 0);
    assert_int_equal(out.rcode, DNS_BADVERS);
}

static void an_answer_of_64_kib_full_of_pointers_is_read_in_no_time(
    void **state) /* faults.md D2: linear time */
{
    struct dns_question q =
        question_of("a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.b", DNS_A);
    static struct message m;
    struct dns_answer out;

    (void)state;
    for (int i = 0; i < 100; i++) { /* 100 times 1,000 records with the longest way to "not equal" */
        begin(&m, RESPONSE, 1, 1000, 0, 0);
        put_question(&m, &q);
        for (int k = 0; k < 1000; k++)
            put_a(&m, "\xc0\x0e", 2, 60, 1);
        assert_int_equal(read_answer(&m, &q, &out), 0);
        assert_int_equal(out.n_addrs, 0);
    }
}

/* ---- replies ---- */

static struct dns_query query_of(const struct dns_question *q, bool edns)
{
    static struct message m;
    struct dns_query out;

    buf_init(&m.b, m.bytes, sizeof(m.bytes));
    dns_put_query(&m.b, ID, q, edns);
    assert_int_equal(read_query(&m, &out), 0);
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
    assert_int_equal(read_answer(&m, &q, &out), 0);
    assert_true(out.n_addrs == 1 && has_addr(&out, 0, "192.0.2.7") && out.has_edns);
    assert_int_equal(out.ttl_s, 30);
    assert_int_equal(get_be16(m.bytes + 2), RESPONSE);
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
    assert_int_equal(read_answer(&m, &q, &out), 0);
    assert_true(out.truncated && m.b.len <= 512);
    buf_init(&m.b, m.bytes, 65535);
    assert_int_equal(dns_put_reply(&m.b, &query, DNS_NOERROR, records, ARRAY_LEN(records)), 0);
    assert_int_equal(read_answer(&m, &q, &out), 0);
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
    begin(&in, 0x0110, 2, 0, 0, 0);
    rcode = read_query(&in, &query);
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
        cmocka_unit_test(a_chain_of_128_pointers_is_refused),
        cmocka_unit_test(edns_of_a_query_is_read_and_checked),
        cmocka_unit_test(addresses_are_taken_in_order_with_the_lowest_ttl),
        cmocka_unit_test(ipv6_addresses_are_taken_but_no_mapped_ones),
        cmocka_unit_test(ttls_are_clamped_to_a_second_and_a_day),
        cmocka_unit_test(a_chain_of_16_cnames_is_followed_and_one_of_17_is_not),
        cmocka_unit_test(a_circle_of_cnames_is_refused),
        cmocka_unit_test(only_16_addresses_are_taken),
        cmocka_unit_test(no_such_name_holds_as_long_as_the_soa_says_up_to_5_minutes),
        cmocka_unit_test(an_answer_that_is_not_ours_is_not_taken),
        cmocka_unit_test(an_answer_of_ours_that_is_broken_is_told_apart),
        cmocka_unit_test(every_cut_of_an_answer_is_refused),
        cmocka_unit_test(the_truncated_bit_gives_no_addresses_but_no_complaint),
        cmocka_unit_test(error_codes_come_through_even_from_a_bare_header),
        cmocka_unit_test(an_answer_of_64_kib_full_of_pointers_is_read_in_no_time),
        cmocka_unit_test(a_reply_of_ours_reads_back),
        cmocka_unit_test(a_reply_that_does_not_fit_says_truncated),
        cmocka_unit_test(a_broken_query_gets_its_error_without_a_question),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
