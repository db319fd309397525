/* test_base_ring.c - faces src/base/ring.c: records arrive whole, in order and once, with one thread and with two. */
#include "culvert/base.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define CAP 256

struct fixture {
    struct ring ring;
    _Alignas(8) uint8_t memory[CAP];
};

static bool put(struct ring *r, size_t len, uint8_t fill)
{
    void *at = ring_reserve(r, len);

    if (at == NULL)
        return false;
    memset(at, fill, len);
    ring_commit(r);
    return true;
}

/* Takes the oldest record; its length, or -1 when there is none. Every byte must be @fill. */
static int take(struct ring *r, uint8_t fill)
{
    size_t len;
    const uint8_t *p = ring_peek(r, &len);

    if (p == NULL)
        return -1;
    assert_int_equal((uintptr_t)p & 7, 0);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(p[i], fill);
    ring_pop(r);
    return (int)len;
}

static void records_come_out_in_order_with_their_lengths(void **state)
{
    static struct fixture f;

    (void)state;
    ring_init(&f.ring, f.memory, CAP, 100);
    assert_true(ring_is_empty(&f.ring));
    assert_int_equal(take(&f.ring, 0), -1);
    assert_true(put(&f.ring, 5, 1) && put(&f.ring, 0, 2) && put(&f.ring, 64, 3));
    assert_false(ring_is_empty(&f.ring));
    assert_int_equal(take(&f.ring, 1), 5);
    assert_int_equal(take(&f.ring, 2), 0);
    assert_int_equal(take(&f.ring, 3), 64);
    assert_true(ring_is_empty(&f.ring));
}

static void records_of_every_length_wrap_without_being_split(void **state)
{
    static struct fixture f;

    (void)state;
    ring_init(&f.ring, f.memory, CAP, 100);
    for (unsigned round = 0; round < 5000; round++) {
        size_t len = (round * 37) % (CAP / 2 - 8 + 1);

        assert_true(put(&f.ring, len, (uint8_t)round));
        assert_int_equal(take(&f.ring, (uint8_t)round), (int)len);
    }
}

static void a_full_ring_refuses_and_a_pop_makes_room(void **state)
{
    static struct fixture f;
    unsigned in = 0;

    (void)state;
    ring_init(&f.ring, f.memory, CAP, 100);
    while (put(&f.ring, 24, (uint8_t)in))
        in++;
    assert_int_equal(in, CAP / 32);
    assert_int_equal(take(&f.ring, 0), 24);
    assert_true(put(&f.ring, 24, (uint8_t)in));
    assert_false(put(&f.ring, 0, 0));
    for (unsigned i = 1; i <= in; i++)
        assert_int_equal(take(&f.ring, (uint8_t)i), 24);
    assert_int_equal(take(&f.ring, 0), -1);
}

static void the_number_of_records_is_bounded_too(void **state)
{
    static struct fixture f;

    (void)state;
    ring_init(&f.ring, f.memory, CAP, 3);
    assert_true(put(&f.ring, 0, 0) && put(&f.ring, 0, 0) && put(&f.ring, 0, 0));
    assert_false(put(&f.ring, 0, 0));
    assert_int_equal(take(&f.ring, 0), 0);
    assert_true(put(&f.ring, 0, 0));
    assert_false(put(&f.ring, 0, 0));
}

static void a_record_over_half_of_the_memory_is_refused_wherever_the_ring_stands(void **state)
{
    static struct fixture f;

    (void)state;
    ring_init(&f.ring, f.memory, CAP, 100);
    for (int i = 0; i < 100; i++) {
        assert_null(ring_reserve(&f.ring, CAP / 2 - 7));
        assert_null(ring_reserve(&f.ring, SIZE_MAX));
        assert_true(put(&f.ring, CAP / 2 - 8, 1));
        assert_int_equal(take(&f.ring, 1), CAP / 2 - 8);
        assert_true(put(&f.ring, 9, 1));
        assert_int_equal(take(&f.ring, 1), 9);
    }
}

static void a_reservation_that_is_not_committed_was_never_there(void **state)
{
    static struct fixture f;

    (void)state;
    ring_init(&f.ring, f.memory, CAP, 100);
    assert_true(put(&f.ring, 120, 1));
    assert_int_equal(take(&f.ring, 1), 120);
    assert_true(put(&f.ring, 80, 2));
    assert_non_null(ring_reserve(&f.ring, 100)); /* would wrap */
    assert_true(put(&f.ring, 16, 3));            /* does not */
    assert_int_equal(take(&f.ring, 2), 80);
    assert_int_equal(take(&f.ring, 3), 16);
    assert_true(ring_is_empty(&f.ring));
}

#define RECORDS 50000

static void *producer(void *arg)
{
    struct ring *r = arg;

    for (uint32_t i = 0; i < RECORDS; i++) {
        size_t len = 4 + (i * 13) % 90;
        uint8_t *at;

        while ((at = ring_reserve(r, len)) == NULL)
            sched_yield();
        memset(at, (int)(i & 0xff), len);
        put_be32(at, i);
        ring_commit(r);
    }
    return NULL;
}

static void two_threads_pass_every_record_once_and_whole(void **state)
{
    static struct fixture f;
    pthread_t thread;
    uint32_t wrong = 0;

    (void)state;
    ring_init(&f.ring, f.memory, CAP, 5);
    assert_int_equal(pthread_create(&thread, NULL, producer, &f.ring), 0);
    for (uint32_t i = 0; i < RECORDS; i++) {
        const uint8_t *p;
        size_t len;

        while ((p = ring_peek(&f.ring, &len)) == NULL)
            sched_yield();
        wrong += len != 4 + (i * 13) % 90 || get_be32(p) != i;
        for (size_t k = 4; k < len; k++)
            wrong += p[k] != (i & 0xff);
        ring_pop(&f.ring);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(wrong, 0);
    assert_true(ring_is_empty(&f.ring));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_out_in_order_with_their_lengths),
        cmocka_unit_test(records_of_every_length_wrap_without_being_split),
        cmocka_unit_test(a_full_ring_refuses_and_a_pop_makes_room),
        cmocka_unit_test(the_number_of_records_is_bounded_too),
        cmocka_unit_test(a_record_over_half_of_the_memory_is_refused_wherever_the_ring_stands),
        cmocka_unit_test(a_reservation_that_is_not_committed_was_never_there),
        cmocka_unit_test(two_threads_pass_every_record_once_and_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
