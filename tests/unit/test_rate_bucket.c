/* test_rate_bucket.c - faces src/forward/rate_bucket.c: streams and datagrams under one rate, in virtual time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "culvert/base.h"
#include "forward/rate_bucket.h"

#define SECOND UINT64_C(1000000)
#define MBIT   UINT64_C(125000)

/* What two programs get in ten seconds: streams that always want more, and datagrams of @size that come @per_second. */
static const struct row {
    const char *what;
    uint64_t rate;
    uint32_t streams, per_second, size;
    unsigned streams_percent,
        datagrams_percent; /* of the rate, at least; both together never above 101 and a depth */
} rows[] = {
    { "one stream", 50 * MBIT, 1, 0, 0, 99, 0 },
    { "a hundred streams", 50 * MBIT, 100, 0, 0, 99, 0 },
    { "a stream at 64 kbit/s", 8000, 1, 0, 0, 94, 0 },
    { "streams at 10 Gbit/s", 10000 * MBIT, 8, 0, 0, 99, 0 },
    { "datagrams above the rate", 8 * MBIT, 0, 2000, 1200, 0, 98 },
    { "datagrams far above the rate", 1 * MBIT, 0, 10000, 1200, 0, 97 },
    { "small ones, at a tenth of the rate, beside streams", 10 * MBIT, 4, 1250, 100, 88, 10 },
    { "a flood beside streams: half and half", 10 * MBIT, 4, 5000, 1200, 48, 48 },
    { "a flood beside one stream", 1 * MBIT, 1, 5000, 1200, 45, 45 },
    { "datagrams of 60 KiB", 8 * MBIT, 0, 100, 61440, 0, 95 },
};

struct moved {
    uint64_t streams, datagrams;
};

/* Every millisecond: datagrams that are due, then streams as rate.c serves them, a quantum each. */
static struct moved ten_seconds(const struct row *r)
{
    struct rate_bucket b;
    struct moved m = { 0 };
    uint64_t sent = 0;

    rate_bucket_open(&b, r->rate, 0);
    b.waiting = r->streams;
    for (uint64_t now = 1000; now <= 10 * SECOND; now += 1000) {
        for (; sent < now * r->per_second / SECOND; sent++) {
            rate_bucket_refill(&b, now);
            if (!rate_bucket_has_room(&b))
                continue;
            rate_bucket_pass(&b, r->size);
            m.datagrams += r->size;
        }
        rate_bucket_refill(&b, now);
        while (r->streams > 0 && b.tokens > 0) {
            int64_t n = b.tokens < rate_bucket_quantum(&b) ? b.tokens : rate_bucket_quantum(&b);

            rate_bucket_take(&b, (uint64_t)n);
            m.streams += (uint64_t)n;
        }
    }
    assert_int_equal(b.used, m.streams + m.datagrams);
    return m;
}

static void streams_and_datagrams_get_their_part_of_the_rate_and_no_more(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct row *r = &rows[i];
        struct rate_bucket full;
        struct moved m = ten_seconds(r);
        uint64_t whole = 10 * r->rate, depth;

        rate_bucket_open(&full, r->rate, 0);
        depth = (uint64_t)rate_bucket_depth(&full) * 2 + r->size;
        if (m.streams * 100 >= whole * r->streams_percent &&
            m.datagrams * 100 >= whole * r->datagrams_percent && m.streams + m.datagrams <= whole + depth)
            continue;
        print_error("%s: streams %.1f %%, datagrams %.1f %%\n", r->what,
                    100. * (double)m.streams / (double)whole, 100. * (double)m.datagrams / (double)whole);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void nothing_is_earned_while_the_bucket_is_full(void **state)
{
    struct rate_bucket b;

    (void)state;
    rate_bucket_open(&b, 50 * MBIT, 0);
    rate_bucket_refill(&b, 3600 * SECOND);
    assert_int_equal(b.tokens, rate_bucket_depth(&b));
    assert_int_equal(rate_bucket_depth(&b), 50 * MBIT / 20); /* 50 ms of the rate */
    assert_true(rate_bucket_is_full(&b, 3600 * SECOND));
    rate_bucket_take(&b, 1);
    assert_false(rate_bucket_is_full(&b, 3600 * SECOND));
}

/* At 8 kbit/s a datagram of 60 KiB is paid for in a minute, whether somebody looks meanwhile or not. */
static void what_was_taken_in_advance_is_paid_back_while_nobody_looks(void **state)
{
    static const uint64_t every_us[] = { SECOND / 10, 30 * SECOND, 60 * SECOND };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(every_us); i++) {
        struct rate_bucket b;

        rate_bucket_open(&b, 1000, 0);
        rate_bucket_pass(&b, 61440);
        for (uint64_t now = every_us[i]; now <= 60 * SECOND; now += every_us[i])
            rate_bucket_refill(&b, now);
        assert_in_range(b.tokens, rate_bucket_depth(&b) - 1440 - 1, rate_bucket_depth(&b) - 1440);
        rate_bucket_refill(&b, 3600 * SECOND);
        assert_int_equal(b.tokens, rate_bucket_depth(&b));
    }
}

/* A byte a microsecond is earned by eighths: what is no whole byte yet is not lost, however often somebody looks. */
static void looking_often_earns_as_much_as_looking_once(void **state)
{
    static const uint64_t every_us[] = { 1, 7, 100, 999, 10000 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(every_us); i++) {
        struct rate_bucket b;

        rate_bucket_open(&b, MBIT, 0);
        b.tokens = -(int64_t)MBIT;
        for (uint64_t now = every_us[i]; now <= SECOND; now += every_us[i])
            rate_bucket_refill(&b, now);
        assert_in_range(b.tokens + (int64_t)MBIT, MBIT * 985 / 1000, MBIT);
    }
}

static void a_stream_is_due_when_its_quantum_is_there(void **state)
{
    struct rate_bucket b;
    uint64_t due;

    (void)state;
    rate_bucket_open(&b, 10 * MBIT, 0);
    rate_bucket_take(&b, (uint64_t)b.tokens);
    due = rate_bucket_due_us(&b);
    assert_in_range(due, 9900, 10100); /* 10 ms of the rate */
    rate_bucket_refill(&b, due);
    assert_true(b.tokens >= rate_bucket_quantum(&b) - 1);
}

static void another_rate_holds_from_now_on(void **state)
{
    struct rate_bucket b;

    (void)state;
    rate_bucket_open(&b, 100 * MBIT, 0);
    rate_bucket_set_rate(&b, 10 * MBIT, 0);
    assert_int_equal(b.tokens, rate_bucket_depth(&b)); /* what a smaller one holds */
    rate_bucket_take(&b, (uint64_t)b.tokens);
    rate_bucket_refill(&b, SECOND / 100);
    assert_in_range(b.tokens, MBIT / 10 - 2, MBIT / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_and_datagrams_get_their_part_of_the_rate_and_no_more),
        cmocka_unit_test(nothing_is_earned_while_the_bucket_is_full),
        cmocka_unit_test(what_was_taken_in_advance_is_paid_back_while_nobody_looks),
        cmocka_unit_test(looking_often_earns_as_much_as_looking_once),
        cmocka_unit_test(a_stream_is_due_when_its_quantum_is_there),
        cmocka_unit_test(another_rate_holds_from_now_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
