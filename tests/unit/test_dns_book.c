/* test_dns_book.c - faces src/dns/book.c and book_store.c: fake addresses that wrap by age, names behind real ones, and the file. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "culvert/dns.h"

#define MINUTE_US UINT64_C(60000000)

static struct name_book *book_of(const char *range4, const char *range6, uint32_t shards)
{
    struct name_book_options opt = { .shards = shards, .reals = 64 };
    struct name_book *b;

    if (range4 != NULL)
        assert_int_equal(ip_prefix_parse(range4, &opt.fake4), 0);
    if (range6 != NULL)
        assert_int_equal(ip_prefix_parse(range6, &opt.fake6), 0);
    assert_int_equal(name_book_new(&opt, &b), 0);
    name_book_use_fakes(b);
    return b;
}

static int fake(struct name_book *b, const char *name, uint64_t now_us, struct ip_addr out[2])
{
    return name_book_fake(b, name_book_shard(b, name), name, now_us, out);
}

static void a_name_has_one_address_of_each_family_and_keeps_it(void **state)
{
    struct name_book *b = book_of("198.19.0.0/16", "fdfe:dcba:9877::/64", 3);
    struct ip_addr one[2], again[2], other[2];
    char name[256], text[IP_TEXT_MAX];

    (void)state;
    assert_int_equal(fake(b, "a.example", 1, one), 0);
    assert_int_equal(fake(b, "b.example", 2, other), 0);
    assert_int_equal(fake(b, "a.example", 3, again), 0);
    assert_true(ip_equal(&one[0], &again[0]) && ip_equal(&one[1], &again[1]));
    assert_false(ip_equal(&one[0], &other[0]));
    assert_int_equal(strncmp(ip_text(&one[0], text), "198.19.", 7), 0);
    assert_int_equal(strncmp(ip_text(&one[1], text), "fdfe:dcba:9877:", 15), 0);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(name_book_find(b, &one[k], 9, name, false), NAME_FAKE);
        assert_string_equal(name, "a.example");
    }
    name_book_free(b);
}

/* faults.md D8: the oldest that is unused is reused; not within 10 minutes, and never while a flow uses it */
static void a_full_range_reuses_the_oldest_that_is_neither_used_nor_young(void **state)
{
    struct name_book *b = book_of("198.19.0.0/28", NULL, 1); /* 14 addresses */
    struct ip_addr first[2], second[2], out[2], fresh[2];
    char name[256];

    (void)state;
    for (int i = 0; i < 14; i++) {
        snprintf(name, sizeof(name), "n%d.example", i);
        assert_int_equal(fake(b, name, MINUTE_US + (uint64_t)i, i == 0 ? first : i == 1 ? second : out), 0);
    }
    assert_int_equal(fake(b, "new.example", 10 * MINUTE_US, fresh),
                     -ENOSPC); /* all are younger than 10 minutes */
    assert_int_equal(name_book_find(b, &first[0], 0, name, true), NAME_FAKE); /* a flow begins */
    assert_int_equal(fake(b, "new.example", 12 * MINUTE_US, fresh), 0);
    assert_true(ip_equal(&fresh[0], &second[0])); /* the first is in use */
    assert_int_equal(name_book_find(b, &first[0], 0, name, false), NAME_FAKE);
    assert_string_equal(name, "n0.example");
    assert_int_equal(name_book_find(b, &second[0], 0, name, false), NAME_FAKE);
    assert_string_equal(name, "new.example");
    name_book_release(b, &first[0]);
    assert_int_equal(fake(b, "n1.example", 12 * MINUTE_US, out),
                     0); /* it had lost its address, and has another */
    assert_false(ip_equal(&out[0], &second[0]));
    for (int i = 0; i < 11; i++) {
        snprintf(name, sizeof(name), "more%d.example", i);
        assert_int_equal(fake(b, name, 13 * MINUTE_US, out), 0);
    }
    assert_int_equal(fake(b, "last.example", 14 * MINUTE_US, out),
                     -ENOSPC); /* n0 counted as young since it was seen used */
    assert_int_equal(fake(b, "last.example", 23 * MINUTE_US, out), 0);
    name_book_free(b);
}

static void an_address_that_is_nobodys_is_known_as_such(void **state) /* faults.md D8 */
{
    struct name_book *b = book_of("198.19.0.0/24", NULL, 2);
    struct ip_addr a;
    char name[256];

    (void)state;
    assert_int_equal(ip_parse("198.19.0.77", &a), 0);
    assert_int_equal(name_book_find(b, &a, 0, name, true), NAME_FAKE_UNKNOWN);
    assert_int_equal(ip_parse("198.19.0.255", &a), 0);
    assert_int_equal(name_book_find(b, &a, 0, name, true), NAME_FAKE_UNKNOWN);
    assert_int_equal(ip_parse("198.20.0.1", &a), 0);
    assert_int_equal(name_book_find(b, &a, 0, name, true), NAME_UNKNOWN);
    name_book_free(b);
}

static void a_real_address_has_the_latest_name_until_its_time_is_over(void **state)
{
    struct name_book *b = book_of(NULL, NULL, 3);
    struct ip_addr a;
    char name[256];

    (void)state;
    assert_int_equal(ip_parse("192.0.2.1", &a), 0);
    name_book_learn(b, 0, &a, "one.example", 10, 1000);
    name_book_learn(b, 2, &a, "two.example", 20, 500);
    assert_int_equal(name_book_find(b, &a, 30, name, false), NAME_REAL);
    assert_string_equal(name, "two.example");
    assert_int_equal(name_book_find(b, &a, 500, name, false), NAME_REAL);
    assert_string_equal(name, "one.example");
    assert_int_equal(name_book_find(b, &a, 1000, name, false), NAME_UNKNOWN);
    name_book_free(b);
}

static void the_file_brings_every_name_back_whatever_the_shards(void **state)
{
    struct name_book *b = book_of("198.19.0.0/16", "fdfe:dcba:9877::/64", 4), *again;
    struct ip_addr before[50][2], after[2];
    char name[256];
    uint8_t *bytes;
    size_t len;

    (void)state;
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof(name), "n%d.example", i);
        assert_int_equal(fake(b, name, (uint64_t)i + 1, before[i]), 0);
    }
    assert_int_equal(name_book_encode(b, &bytes, &len), 0);
    again = book_of("198.19.0.0/16", "fdfe:dcba:9877::/64", 3);
    assert_int_equal(name_book_decode(again, (struct span){ bytes, len }, 100), 0);
    assert_int_equal(name_book_fakes(again), 50);
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof(name), "n%d.example", i);
        assert_int_equal(fake(again, name, 200, after), 0);
        assert_true(ip_equal(&after[0], &before[i][0]) && ip_equal(&after[1], &before[i][1]));
    }
    for (int i = 0; i < 500; i++) { /* new names meet none of them */
        snprintf(name, sizeof(name), "m%d.example", i);
        assert_int_equal(fake(again, name, 300, after), 0);
        for (int k = 0; k < 50; k++)
            assert_false(ip_equal(&after[0], &before[k][0]));
    }
    free(bytes);
    name_book_free(b);
    name_book_free(again);
}

static void a_file_that_is_not_whole_is_not_taken_at_all(void **state) /* faults.md D9 */
{
    struct name_book *b = book_of("198.19.0.0/24", NULL, 1), *again = book_of("198.19.0.0/24", NULL, 1),
                     *moved = book_of("198.20.0.0/24", NULL, 1);
    struct ip_addr out[2];
    uint8_t *bytes;
    size_t len;

    (void)state;
    assert_int_equal(fake(b, "a.example", 1, out), 0);
    assert_int_equal(fake(b, "b.example", 2, out), 0);
    assert_int_equal(name_book_encode(b, &bytes, &len), 0);
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(name_book_decode(again, (struct span){ bytes, cut }, 1), -EBADMSG);
    for (size_t i = 0; i < len; i++) {
        bytes[i] ^= 0x40;
        assert_int_not_equal(name_book_decode(again, (struct span){ bytes, len }, 1), 0);
        bytes[i] ^= 0x40;
    }
    assert_int_equal(name_book_fakes(again), 0);
    assert_int_equal(name_book_decode(moved, (struct span){ bytes, len }, 1), -ESTALE);
    assert_int_equal(name_book_decode(again, (struct span){ bytes, len }, 1), 0);
    assert_int_equal(name_book_fakes(again), 2);
    free(bytes);
    name_book_free(b);
    name_book_free(again);
    name_book_free(moved);
}

/* ---- one writes, others read ---- */

struct race {
    struct name_book *b;
    struct ip_addr addr[14];
    _Atomic bool over;
    _Atomic uint32_t wrong, held;
};

/* A name that is held does not change, and one that is read is whole: "xN.xN...". */
static void *reader(void *arg)
{
    struct race *r = arg;
    char name[256], again[256];

    for (uint32_t i = 0; !r->over; i++) {
        const struct ip_addr *a = &r->addr[i % 14];

        if (name_book_find(r->b, a, 0, name, true) != NAME_FAKE)
            continue;
        r->held++;
        if (name[0] != 'x' || strncmp(name, strchr(name, '.') + 1, strcspn(name, ".")) != 0)
            r->wrong++;
        if (name_book_find(r->b, a, 0, again, false) != NAME_FAKE || strcmp(name, again) != 0)
            r->wrong++;
        name_book_release(r->b, a);
    }
    return NULL;
}

static void a_name_that_is_held_never_changes_and_is_always_whole(void **state)
{
    struct race r = { .b = book_of("198.19.0.0/28", NULL, 1) };
    uint64_t now_us = MINUTE_US;
    pthread_t threads[2];
    struct ip_addr out[2];
    char name[256];

    (void)state;
    for (int i = 0; i < 14; i++) {
        snprintf(name, sizeof(name), "x%d.x%d.example", i, i);
        assert_int_equal(fake(r.b, name, now_us, out), 0);
        r.addr[i] = out[0];
    }
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reader, &r), 0);
    for (int i = 100; i < 40000 || r.held < 100; i++) {
        now_us += 11 * MINUTE_US;
        snprintf(name, sizeof(name), "x%d.x%d.example", i, i);
        fake(r.b, name, now_us, out);
    }
    r.over = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(r.wrong, 0);
    name_book_free(r.b);
}

/* ---- shards write at the same time, over entries that came from disk in another order ---- */

struct writer {
    struct name_book *b;
    uint32_t shard;
    struct ip_addr old[100], fresh[100];
    uint32_t olds;
};

static void *writer(void *arg)
{
    struct writer *w = arg;
    struct ip_addr out[2];
    char name[64];

    for (unsigned i = 0; i < 100; i++) {
        w->olds = 0;
        for (unsigned k = 0; k < 100; k++) { /* those of before are young again */
            snprintf(name, sizeof(name), "old%u.example", k);
            if (name_book_shard(w->b, name) != w->shard)
                continue;
            if (name_book_fake(w->b, w->shard, name, MINUTE_US, out) != 0)
                return NULL;
            w->old[w->olds++] = out[0];
        }
        snprintf(name, sizeof(name), "new%u.of%u.example", i, w->shard);
        if (name_book_fake(w->b, w->shard, name, MINUTE_US, out) != 0)
            return NULL;
        w->fresh[i] = out[0];
    }
    return arg;
}

static void shards_never_give_the_same_address_over_a_book_from_disk(void **state)
{
    struct name_book *from = book_of("198.19.0.0/22", NULL, 1);
    struct writer w[2] = { { .shard = 0 }, { .shard = 1 } };
    struct ip_addr out[2], all[300];
    pthread_t threads[2];
    uint8_t *bytes;
    size_t len, n = 0;
    char name[64];

    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        snprintf(name, sizeof(name), "old%u.example", i);
        assert_int_equal(fake(from, name, MINUTE_US, out), 0);
    }
    assert_int_equal(name_book_encode(from, &bytes, &len), 0);
    w[0].b = w[1].b = book_of("198.19.0.0/22", NULL, 2);
    assert_int_equal(name_book_decode(w[0].b, (struct span){ bytes, len }, MINUTE_US), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, writer, &w[i]), 0);
    for (int i = 0; i < 2; i++) {
        void *done;

        pthread_join(threads[i], &done);
        assert_non_null(done);
        memcpy(all + n, w[i].old, w[i].olds * sizeof(all[0]));
        memcpy(all + n + w[i].olds, w[i].fresh, sizeof(w[i].fresh));
        n += w[i].olds + ARRAY_LEN(w[i].fresh);
    }
    assert_int_equal(n, 300);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++)
            assert_false(ip_equal(&all[i], &all[k]));
    }
    free(bytes);
    name_book_free(from);
    name_book_free(w[0].b);
}

/* ---- patterns and questions ---- */

static void patterns_match_as_mihomo_has_them(void **state)
{
    static const struct {
        const char *pattern, *name;
        bool match;
    } rows[] = {
        { "a.b", "a.b", true },       { "a.b", "x.a.b", false },       { "+.a.b", "a.b", true },
        { "+.a.b", "y.x.a.b", true }, { "+.a.b", "xa.b", false },      { ".a.b", "a.b", false },
        { ".a.b", "x.a.b", true },    { "*.a.b", "x.a.b", true },      { "*.a.b", "y.x.a.b", false },
        { "*.a.b", "a.b", false },    { "a.*.b", "a.x.b", true },      { "*", "host", true },
        { "*", "a.b", false },        { "+.lan", "router.lan", true }, { "*.LAN", "router.lan", true },
        { "+.*.b", "x.a.b", true },
    };
    static const char *const wrong_ones[] = { "", "+.", "a*.b", "*a.b", "a..b", "a b" };
    char pattern[256];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(dns_pattern_check(rows[i].pattern, pattern), 0);
        if (dns_pattern_match(pattern, rows[i].name) != rows[i].match)
            fail_msg("%s against %s", rows[i].pattern, rows[i].name);
    }
    for (size_t i = 0; i < ARRAY_LEN(wrong_ones); i++)
        assert_int_equal(dns_pattern_check(wrong_ones[i], pattern), -EINVAL);
}

static void reverse_names_are_addresses(void **state)
{
    static const struct {
        const char *name, *addr;
    } rows[] = {
        { "1.0.19.198.in-addr.arpa", "198.19.0.1" },
        { "1.0.19.198.IN-ADDR.ARPA", "198.19.0.1" },
        { "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.7.8.9.a.b.c.d.e.f.d.f.ip6.arpa", "fdfe:dcba:9877::1" },
        { "0.19.198.in-addr.arpa", NULL },
        { "256.0.19.198.in-addr.arpa", NULL },
        { "01.0.19.198.in-addr.arpa", NULL },
        { "1.0.19.198.in-addr.example", NULL },
    };
    struct dns_name n;
    struct ip_addr a;
    char text[IP_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(dns_name_from_text(rows[i].name, &n), 0);
        assert_int_equal(dns_ptr_address(&n, &a), rows[i].addr != NULL);
        if (rows[i].addr != NULL)
            assert_string_equal(ip_text(&a, text), rows[i].addr);
    }
}

static void a_question_has_its_fate_by_class_and_type(void **state) /* faults.md D12 */
{
    static const uint16_t blocked[] = { 65 };
    static const struct {
        uint16_t type, class;
        enum dns_fate fate;
    } rows[] = {
        { 1, 1, DNS_PASS },
        { 28, 1, DNS_PASS },
        { 16, 1, DNS_PASS },
        { 65, 1, DNS_EMPTY },
        { 64, 1, DNS_PASS },
        { 255, 1, DNS_NOT_IMPLEMENTED },
        { 252, 1, DNS_NOT_IMPLEMENTED },
        { 251, 1, DNS_NOT_IMPLEMENTED },
        { 41, 1, DNS_NOT_IMPLEMENTED },
        { 0, 1, DNS_NOT_IMPLEMENTED },
        { 16, 3, DNS_NOT_IMPLEMENTED },
        { 257, 1, DNS_PASS },
        { 65280, 1, DNS_PASS },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct dns_question q = { .type = rows[i].type, .class = rows[i].class };

        assert_int_equal(dns_question_fate(&q, blocked, 1), rows[i].fate);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_has_one_address_of_each_family_and_keeps_it),
        cmocka_unit_test(a_full_range_reuses_the_oldest_that_is_neither_used_nor_young),
        cmocka_unit_test(an_address_that_is_nobodys_is_known_as_such),
        cmocka_unit_test(a_real_address_has_the_latest_name_until_its_time_is_over),
        cmocka_unit_test(the_file_brings_every_name_back_whatever_the_shards),
        cmocka_unit_test(a_file_that_is_not_whole_is_not_taken_at_all),
        cmocka_unit_test(a_name_that_is_held_never_changes_and_is_always_whole),
        cmocka_unit_test(shards_never_give_the_same_address_over_a_book_from_disk),
        cmocka_unit_test(patterns_match_as_mihomo_has_them),
        cmocka_unit_test(reverse_names_are_addresses),
        cmocka_unit_test(a_question_has_its_fate_by_class_and_type),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
