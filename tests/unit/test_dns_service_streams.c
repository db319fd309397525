/* test_dns_service_streams.c - faces src/resolver's stream.c, https.c and lookup.c on virtual time: connections that are shared, end, fall
 * silent or lie, requests that are refused, and look-ups of both families. */
#include "service_lab.h"

/* ---- TCP and TLS ---- */

static void questions_share_a_connection_and_answers_come_in_any_order(
    void **state) /* RFC 7766 sections 6.2.1, 7 */
{
    static const char *const servers[] = { "tcp", "tls#socks" };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(servers); i++) {
        struct lab *lab = lab_new(DNS_RACE, servers[i]);
        struct told *one = ask(lab, "one.example"), *two;
        size_t second;

        stream_now_open(ways->stream[0]);
        two = ask(lab, "two.example");
        assert_int_equal(ways->streams, 1);
        second = 2 + get_be16(ways->stream[0]->out);
        stream_answers(lab, 0, second, GOOD, 2);
        assert_int_equal(one->calls, 0);
        assert_told(two, DNS_NOERROR, 2, 0);
        stream_answers(lab, 0, 0, GOOD, 1);
        assert_told(one, DNS_NOERROR, 1, 0);
        ways_run_ms(9800);
        assert_false(ways->stream[0]->closed);
        ways_run_ms(500);
        assert_true(ways->stream[0]->closed); /* idle for ten seconds */
        lab_free(lab);
    }
}

static void an_answer_may_come_byte_by_byte(void **state)
{
    struct lab *lab = lab_new(DNS_RACE, "tcp");
    struct told *t = ask(lab, "a.example");
    struct up_stream *s;
    uint8_t framed[600];
    struct span a;

    (void)state;
    stream_now_open(ways->stream[0]);
    s = ways->stream[0];
    a = answer_to(lab, s->out + 2, s->out_len - 2, GOOD, 60, 1);
    put_be16(framed, (uint16_t)a.len);
    memcpy(framed + 2, a.data, a.len);
    for (size_t i = 0; i < a.len + 2; i++) {
        assert_int_equal(t->calls, 0);
        stream_now_brings(s, framed + i, 1);
    }
    assert_told(t, DNS_NOERROR, 1, 0);
    lab_free(lab);
}

static void a_connection_that_ends_under_a_question_has_it_asked_once_more(void **state) /* faults.md D13 */
{
    struct lab *lab = lab_new(DNS_RACE, "tcp");
    struct told *t = ask(lab, "a.example");

    (void)state;
    stream_now_open(ways->stream[0]);
    ways->stream[0]->eof = true;
    ways->stream[0]->events->on_readable(ways->stream[0]->arg);
    assert_int_equal(ways->streams, 2);
    assert_int_equal(lab->s->cnt.repeated, 1);
    stream_now_open(ways->stream[1]);
    stream_now_gone(ways->stream[1]); /* and no third time */
    assert_int_equal(ways->streams, 2);
    assert_told(t, DNS_SERVFAIL, 0, 0);
    t = ask(lab, "b.example"); /* one that was never there is not tried twice */
    stream_now_gone(ways->stream[2]);
    assert_told(t, DNS_SERVFAIL, 0, 0);
    assert_int_equal(ways->streams, 3);
    lab_free(lab);
}

static void bytes_that_are_no_dns_end_a_connection_and_a_wrong_question_its_try(
    void **state) /* faults.md D5, D3 */
{
    struct lab *lab = lab_new(DNS_RACE, "tcp");
    struct told *t = ask(lab, "a.example");
    struct span a;
    uint8_t framed[600];

    (void)state;
    stream_now_open(ways->stream[0]);
    stream_now_brings(ways->stream[0], "\0\0", 2); /* a message of no bytes */
    assert_true(ways->stream[0]->closed);
    stream_now_open(ways->stream[1]);
    a = answer_to(lab, ways->stream[1]->out + 2, ways->stream[1]->out_len - 2, GOOD, 60, 1);
    put_be16(framed, (uint16_t)a.len);
    memcpy(framed + 2, a.data, a.len);
    framed[2 + DNS_HEADER_LEN + 1] ^= 0x20; /* its id, but another question: nobody else can have said it */
    stream_now_brings(ways->stream[1], framed, a.len + 2);
    assert_told(t, DNS_SERVFAIL, 0, 0);
    assert_int_equal(lab->s->cnt.ignored, 1);
    assert_false(ways->stream[1]->closed);
    lab_free(lab);
}

static void a_connection_that_is_silent_gets_no_more_questions(void **state)
{
    struct lab *lab = lab_new(DNS_RACE, "tls");
    struct told *one = ask(lab, "one.example"), *two, *three;

    (void)state;
    stream_now_open(ways->stream[0]);
    ways_run_ms(2900);
    two = ask(lab, "two.example");
    assert_int_equal(ways->streams, 1);
    ways_run_ms(200);
    three = ask(lab, "three.example");
    assert_int_equal(ways->streams, 2);
    stream_now_open(ways->stream[1]);
    stream_answers(lab, 1, 0, GOOD, 3);
    assert_told(three, DNS_NOERROR, 3, 0);
    ways_run_ms(5000);
    assert_told(one, DNS_SERVFAIL, 0, 4750);
    assert_told(two, DNS_SERVFAIL, 0, 4750);
    assert_true(ways->stream[0]->closed);
    assert_false(ways->stream[1]->closed);
    lab_free(lab);
}

/* ---- HTTPS ---- */

/* The response to request @i: its status, and with 200 an answer to the question that its path holds. */
static void https_answers(struct lab *lab, size_t i, unsigned status, const char *type, const char *age,
                          uint8_t last)
{
    struct h2_stream *r = ways->request[i];
    struct h2_field fields[] = { { "content-type", type }, { "age", age } };
    struct h2_head head = { .status = status, .fields = fields, .field_count = age != NULL ? 2 : 1 };
    struct dns_question q = question_of("a.example", DNS_A);
    struct span a;
    uint8_t query[64];
    struct buf b;

    assert_memory_equal(r->path, "/q?dns=AAAB", 11); /* id 0, RD: cacheable by whoever caches */
    r->events->on_response(r->arg, &head);
    if (r->closed)
        return;
    buf_init(&b, query, sizeof(query));
    dns_put_query(&b, 0, &q, DNS_Q_EDNS);
    a = answer_to(lab, query, b.len, GOOD, 60, last);
    memcpy(r->in, a.data, a.len);
    r->in_len = a.len;
    r->end = true;
    r->events->on_readable(r->arg);
}

#define DNS_TYPE "application/dns-message"

static void an_answer_over_https_has_aged_in_caches(void **state) /* RFC 8484 section 5.1 */
{
    struct lab *lab = lab_new(DNS_RACE, "https");
    struct told *t = ask(lab, "a.example");

    (void)state;
    stream_now_open(ways->stream[0]);
    assert_int_equal(ways->requests, 1);
    https_answers(lab, 0, 200, DNS_TYPE, "45", 1);
    assert_told(t, DNS_NOERROR, 1, 0);
    assert_int_equal(t->ttl_s, 15);
    lab_free(lab);
}

static void pages_that_are_no_dns_are_failures(void **state)
{
    static const struct {
        unsigned status;
        const char *type;
    } rows[] = { { 404, DNS_TYPE }, { 200, "text/html" }, { 500, "text/plain" } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct lab *lab = lab_new(DNS_RACE, "https");
        struct told *t = ask(lab, "a.example");

        stream_now_open(ways->stream[0]);
        https_answers(lab, 0, rows[i].status, rows[i].type, NULL, 1);
        assert_told(t, DNS_SERVFAIL, 0, 0);
        assert_int_equal(lab->s->cnt.refused, 1);
        lab_free(lab);
    }
}

static void a_request_that_was_refused_is_made_once_more(void **state) /* RFC 9113 section 8.7 */
{
    struct lab *lab = lab_new(DNS_RACE, "https");
    struct told *t = ask(lab, "a.example");

    (void)state;
    stream_now_open(ways->stream[0]);
    ways->request[0]->closed = true;
    ways->request[0]->events->on_closed(ways->request[0]->arg, -EAGAIN, H2_REFUSED_STREAM);
    assert_int_equal(ways->requests, 2);
    ways->request[1]->closed = true;
    ways->request[1]->events->on_closed(ways->request[1]->arg, -EAGAIN, H2_REFUSED_STREAM);
    assert_int_equal(ways->requests, 2);
    assert_told(t, DNS_SERVFAIL, 0, 0);
    lab_free(lab);
}

static void a_server_that_drains_gets_new_questions_on_a_new_connection(void **state)
{
    struct lab *lab = lab_new(DNS_RACE, "https");
    struct told *one = ask(lab, "a.example"), *two;

    (void)state;
    stream_now_open(ways->stream[0]);
    ways->h2[0]->events->on_drain(ways->h2[0]->arg);
    two = ask_with(lab, "a.example", DNS_A, DNS_Q_EDNS | DNS_Q_DO);
    assert_int_equal(ways->streams, 2);
    https_answers(lab, 0, 200, DNS_TYPE, NULL, 1);
    assert_told(one, DNS_NOERROR, 1, 0);
    ways_run_ms(50);
    assert_true(ways->stream[0]->closed);
    stream_now_open(ways->stream[1]);
    assert_int_equal(ways->requests, 2);
    dns_service_cancel(two->ask);
    lab_free(lab);
}

static void what_has_no_room_waits_for_a_stream_and_a_server_without_http2_fails(void **state)
{
    struct lab *lab = lab_new(DNS_RACE, "https");
    struct told *t;

    (void)state;
    ask(lab, "a.example");
    stream_now_open(ways->stream[0]);
    ways->h2[0]->full = true;
    t = ask_with(lab, "a.example", DNS_A, DNS_Q_EDNS | DNS_Q_CD);
    assert_int_equal(ways->requests, 1);
    ways->h2[0]->full = false;
    https_answers(lab, 0, 200, DNS_TYPE, NULL, 1);
    ways_run_ms(20);
    assert_int_equal(ways->requests, 2);
    https_answers(lab, 1, 200, DNS_TYPE, NULL, 2);
    assert_int_equal(t->last, 2);
    lab_free(lab);

    lab = lab_new(DNS_RACE, "https");
    ways->no_h2 = true;
    t = ask(lab, "a.example");
    stream_now_open(ways->stream[0]);
    ways_run_ms(20);
    if (ways->streams > 1) /* it was there, so it is asked once more */
        stream_now_open(ways->stream[1]);
    assert_told(t, DNS_SERVFAIL, 0, 0);
    lab_free(lab);
}

/* ---- look-ups ---- */

struct found {
    unsigned calls;
    int err;
    size_t n;
    struct ip_addr addrs[16];
};

static void on_found(void *arg, int err, const struct ip_addr *addrs, size_t n)
{
    struct found *f = arg;

    f->calls++;
    f->err = err;
    f->n = n;
    memcpy(f->addrs, addrs, n * sizeof(*addrs));
}

/* AAAA and A are two questions, in this order; @flags: what is said to each, 0: nothing. */
static const struct find_row {
    const char *what;
    uint16_t flags[2];
    uint8_t last; /* of the A record; 0: none */
    int err;
    size_t n;
} finds[] = {
    { "one family", { GOOD, GOOD }, 7, 0, 1 },
    { "AAAA refused", { SERVFAIL, GOOD }, 7, 0, 1 },
    { "AAAA silent", { 0, GOOD }, 7, 0, 1 },
    { "no address at all", { GOOD, GOOD }, 0, -ENOENT, 0 },
    { "no such name", { MESSAGE_RESPONSE | DNS_NXDOMAIN, MESSAGE_RESPONSE | DNS_NXDOMAIN }, 0, -ENOENT, 0 },
    { "both refused", { SERVFAIL, SERVFAIL }, 0, -EHOSTUNREACH, 0 },
    { "one empty, one refused", { GOOD, SERVFAIL }, 0, -EHOSTUNREACH, 0 },
    { "silence", { 0, 0 }, 0, -EHOSTUNREACH, 0 },
};

static void a_lookup_says_what_both_families_said(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(finds); i++) {
        const struct find_row *row = &finds[i];
        struct lab *lab = lab_new(DNS_RACE, "udp#socks");
        struct found f = { 0 };
        struct dns_lookup *l;

        assert_int_equal(dns_service_lookup(lab->s, "A.example", on_found, &f, &l), 0);
        assert_int_equal(f.calls, 0);
        udp_now_open(ways->udp[0]);
        for (size_t k = 0; k < 2; k++) { /* the latest question of an association is said first */
            uint8_t type = ways->udp[0]->said[k].bytes[DNS_HEADER_LEN + 11 + 1];
            size_t family = type == DNS_AAAA ? 0 : 1;

            if (row->flags[family] != 0)
                udp_answers(lab, 0, k, row->flags[family], family == 1 ? row->last : 0);
        }
        ways_run_ms(5000);
        if (f.calls != 1 || f.err != row->err || f.n != row->n ||
            (f.n > 0 && f.addrs[0].b[15] != row->last)) {
            print_error("%s: %u calls, %d, %zu addresses\n", row->what, f.calls, f.err, f.n);
            wrong++;
        }
        lab_free(lab);
    }
    assert_int_equal(wrong, 0);
}

static void a_lookup_that_is_cancelled_is_never_told(void **state)
{
    struct lab *lab = lab_new(DNS_RACE, "udp");
    struct found f = { 0 };
    struct dns_lookup *l;

    (void)state;
    assert_int_equal(dns_service_lookup(lab->s, "a.example", on_found, &f, &l), 0);
    dns_service_lookup_cancel(l);
    assert_int_equal(dns_service_lookup(lab->s, "a.example", on_found, &f, &l), 0);
    udp_now_open(ways->udp[0]);
    udp_answers(lab, 0, 0, GOOD, 0); /* one half is there */
    dns_service_lookup_cancel(l);
    udp_now_open(ways->udp[1]);
    udp_answers(lab, 1, 0, GOOD, 0);
    ways_run_ms(5000);
    assert_int_equal(f.calls, 0);
    assert_int_equal(dns_service_lookup(lab->s, "not a name", on_found, &f, &l), -EINVAL);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(questions_share_a_connection_and_answers_come_in_any_order),
        cmocka_unit_test(an_answer_may_come_byte_by_byte),
        cmocka_unit_test(a_connection_that_ends_under_a_question_has_it_asked_once_more),
        cmocka_unit_test(bytes_that_are_no_dns_end_a_connection_and_a_wrong_question_its_try),
        cmocka_unit_test(a_connection_that_is_silent_gets_no_more_questions),
        cmocka_unit_test(an_answer_over_https_has_aged_in_caches),
        cmocka_unit_test(pages_that_are_no_dns_are_failures),
        cmocka_unit_test(a_request_that_was_refused_is_made_once_more),
        cmocka_unit_test(a_server_that_drains_gets_new_questions_on_a_new_connection),
        cmocka_unit_test(what_has_no_room_waits_for_a_stream_and_a_server_without_http2_fails),
        cmocka_unit_test(a_lookup_says_what_both_families_said),
        cmocka_unit_test(a_lookup_that_is_cancelled_is_never_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
