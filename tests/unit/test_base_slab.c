/* test_base_slab.c - slabs: objects are distinct, indices go both ways, and memory where nothing lives is given back. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "culvert/base.h"

#define LIMIT 1000

static void objects_are_zeroed_distinct_and_limited(void **state)
{
    static const uint8_t zero[100];
    struct slab s;
    uint8_t *all[LIMIT];

    (void)state;
    assert_int_equal(slab_init(&s, sizeof(zero), LIMIT), 0);
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < LIMIT; i++) {
            all[i] = slab_get(&s);
            assert_non_null(all[i]);
            assert_memory_equal(all[i], zero, sizeof(zero));
            memset(all[i], (int)(i % 200) + 1, sizeof(zero));
        }
        assert_null(slab_get(&s));
        for (uint32_t i = 0; i < LIMIT; i++) {
            assert_int_equal(all[i][99], i % 200 + 1); /* nobody else wrote here */
            assert_ptr_equal(slab_at(&s, slab_index(&s, all[i])), all[i]);
            assert_true(slab_index(&s, all[i]) < s.touched);
        }
        for (uint32_t i = 0; i < LIMIT; i++)
            slab_put(&s, all[(i * 7) % LIMIT]);
        assert_int_equal(s.in_use, 0);
    }
    assert_int_equal(s.high_water, LIMIT);
    assert_int_equal(s.failed, 3);
    slab_fini(&s);
}

static void what_lives_gathers_at_the_bottom(void **state)
{
    struct slab s;
    void *all[LIMIT];
    uint32_t highest = 0;

    (void)state;
    assert_int_equal(slab_init(&s, 256, LIMIT), 0);
    for (uint32_t i = 0; i < LIMIT; i++)
        all[i] = slab_get(&s);
    for (uint32_t i = 0; i < LIMIT; i++)
        slab_put(&s, all[i]);
    for (uint32_t i = 0; i < 64; i++) {
        uint32_t at = slab_index(&s, slab_get(&s));

        highest = at > highest ? at : highest;
    }
    assert_true(highest < 64);
    slab_fini(&s);
}

static size_t given_back;

static void count_given_back(void *arg, void *memory, size_t bytes)
{
    (void)arg;
    memset(memory, 0, bytes);
    given_back += bytes;
}

static void idle_memory_is_given_back_at_the_second_trim(void **state)
{
    struct slab s;
    void *all[LIMIT], *kept;

    (void)state;
    given_back = 0;
    assert_int_equal(slab_init(&s, 1024, LIMIT), 0);
    kept = slab_get(&s);
    for (uint32_t i = 1; i < LIMIT; i++)
        all[i] = slab_get(&s);
    assert_false(slab_trim(&s, count_given_back, NULL)); /* everything lives */
    for (uint32_t i = 1; i < LIMIT; i++)
        slab_put(&s, all[i]);
    assert_true(slab_trim(&s, count_given_back, NULL)); /* freed a moment ago */
    assert_int_equal(given_back, 0);
    assert_false(slab_trim(&s, count_given_back, NULL));
    assert_true(given_back >= (LIMIT - 16) * 1024u); /* all but the group where `kept` lives */
    assert_true(s.touched <= 16);
    memset(kept, 1, 1024);
    for (uint32_t i = 1; i < LIMIT; i++)
        assert_non_null(slab_get(&s));
    assert_null(slab_get(&s));
    slab_fini(&s);
}

static void a_group_used_between_two_trims_stays(void **state)
{
    struct slab s;
    void *one;

    (void)state;
    given_back = 0;
    assert_int_equal(slab_init(&s, 1024, LIMIT), 0);
    slab_put(&s, slab_get(&s));
    assert_true(slab_trim(&s, count_given_back, NULL));
    one = slab_get(&s);
    slab_put(&s, one);
    assert_true(slab_trim(&s, count_given_back, NULL)); /* it was used again: it waits once more */
    assert_int_equal(given_back, 0);
    slab_fini(&s);
}

static void large_objects_and_the_callers_memory_work_alike(void **state)
{
    size_t bytes = slab_region_bytes(70000, 9);
    void *memory = aligned_alloc(4096, bytes);
    struct slab s;
    void *all[9];

    (void)state;
    assert_non_null(memory);
    memset(memory, 0, bytes);
    slab_init_at(&s, memory, 70000, 9);
    for (int i = 0; i < 9; i++) {
        all[i] = slab_get(&s);
        assert_non_null(all[i]);
        memset(all[i], i, 70000);
    }
    assert_null(slab_get(&s));
    for (int i = 0; i < 9; i++) {
        assert_int_equal(((uint8_t *)all[i])[69999], i);
        slab_put(&s, all[i]);
    }
    slab_fini(&s);
    free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_are_zeroed_distinct_and_limited),
        cmocka_unit_test(what_lives_gathers_at_the_bottom),
        cmocka_unit_test(idle_memory_is_given_back_at_the_second_trim),
        cmocka_unit_test(a_group_used_between_two_trims_stays),
        cmocka_unit_test(large_objects_and_the_callers_memory_work_alike),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
