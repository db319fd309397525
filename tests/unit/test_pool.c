/* test_pool.c - pools, packet blocks and token buckets of the stack (tcp-stack.md 1.2, icmp.md 2.5), and its checksum. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "ip_lab.h"
#include "stack/stack_impl.h"

static void count_bytes(void *arg, void *memory, size_t bytes)
{
    memset(memory, 0, bytes);
    *(size_t *)arg += bytes;
}

static void pool_fails_every_kth_time_when_a_test_asks(void **state) /* tcp-stack.md MEM-3 */
{
    struct ip_lab *lab = *state;
    struct pool *p = &lab->s->blocks[BLOCK_CHUNK2];
    int failed = 0;

    p->fail_every = 3;
    for (int i = 0; i < 30; i++) {
        void *object = pool_get(p);

        failed += object == NULL;
        if (object != NULL)
            pool_put(p, object);
    }
    assert_int_equal(failed, 10);
}

static void memory_without_use_is_given_back(void **state) /* design.md 3.13 */
{
    struct ip_lab *lab = *state;
    struct block *held[64];
    size_t bytes = 0;

    for (size_t i = 0; i < ARRAY_LEN(held); i++)
        assert_non_null(held[i] = block_get(lab->s, BLOCK_CHUNK64));
    assert_false(stack_trim(lab->s, count_bytes, &bytes));
    for (size_t i = 0; i < ARRAY_LEN(held); i++)
        block_put(lab->s, held[i]);
    assert_true(stack_trim(lab->s, count_bytes, &bytes));
    assert_false(stack_trim(lab->s, count_bytes, &bytes));
    assert_true(bytes >= ARRAY_LEN(held) * 65536);
}

static void blocks_obey_one_cap_over_all_classes(void **state)
{
    struct ip_lab *lab = *state;
    struct block *held[4096], *b;
    size_t n = 0, before = lab->s->block_bytes;

    assert_int_equal(block_class_for(2048), BLOCK_CHUNK2);
    assert_int_equal(block_class_for(2049), BLOCK_CHUNK16);
    assert_int_equal(block_class_for(16385), BLOCK_CHUNK64);
    while ((b = block_get(lab->s, (enum block_class)(n % BLOCK_SLOT))) != NULL) {
        memset(block_data(b), 0xaa, b->bytes);
        held[n++] = b;
    }
    assert_true(lab->s->block_bytes <= lab->cfg.buffer_cap_bytes);
    assert_true(lab->s->block_bytes > lab->cfg.buffer_cap_bytes - 70000);
    held[0]->refs++;
    block_put(lab->s, held[0]); /* one of two references: still there */
    assert_int_equal(held[0]->refs, 1);
    while (n > 0)
        block_put(lab->s, held[--n]);
    assert_int_equal(lab->s->block_bytes, before);
}

static void the_rx_slot_is_there_even_when_no_other_can_be_had(void **state)
{
    struct ip_lab *lab = *state;
    static struct pkt p;

    lab->s->blocks[BLOCK_SLOT].fail_every = 1;
    lab->on_request = LAB_ACCEPT;
    pkt_udp(&p, LAB_CLIENT, 1, LAB_TARGET, 2, "hello", 5);
    for (int i = 0; i < 10; i++)
        ip_lab_input(lab, &p);
    assert_int_equal(lab->gots, 10);
    assert_memory_equal(lab->got[9].data.iov_base, "hello", 5);
}

static void nothing_is_in_use_when_nothing_is_held(void **state) /* tcp-stack.md MEM-1 */
{
    static const char *const pools[] = { "slot", "chunk2", "chunk16", "chunk64", "udp", "echo", "frag" };
    struct ip_lab *lab = *state;
    static struct pkt p;

    lab->on_request = LAB_REJECT;
    lab->why = REJECT_PORT_UNREACH;
    for (int i = 0; i < 100; i++) {
        pkt_udp(&p, LAB_CLIENT, (uint16_t)(i + 1), LAB_TARGET, 2, "hello", 5);
        ip_lab_feed(lab, &p);
    }
    stack_batch_end(lab->s, lab->now_us);
    for (size_t i = 0; i < ARRAY_LEN(pools); i++)
        assert_int_equal(ip_lab_in_use(lab, pools[i]), 0);
}

static void a_bucket_lets_its_burst_through_and_then_its_rate(void **state) /* icmp.md L1, L8 */
{
    struct bucket b;
    unsigned taken = 0;

    (void)state;
    bucket_fill(&b, 5000000, 50);
    for (uint64_t now = 5000000; now < 6000000; now += 100)
        taken += bucket_take(&b, now, 1000, 50);
    assert_in_range(taken, 50 + 999, 50 + 1000);
    assert_true(bucket_take(&b, UINT64_MAX / 2, 1000, 50)); /* a long pause saves no more than the burst */
    for (taken = 1; bucket_take(&b, UINT64_MAX / 2, 1000, 50); taken++)
        ;
    assert_int_equal(taken, 50);
    bucket_fill(&b, 0, 50);
    while (bucket_take(&b, 0, 16, 50))
        ;
    assert_true(bucket_take(&b, (uint64_t)1 << 60, 16, 50)); /* a product that would wrap round to nothing */
    assert_false(bucket_take(&b, UINT64_MAX, 0, 50));
    assert_false(bucket_take(&b, UINT64_MAX, 1000, 0));
    for (int i = 0; i < 1000; i++)
        assert_true(bucket_take(&b, 0, UINT32_MAX, 0));
}

/* ---- checksums ------------------------------------------------------------------------------------------------------- */

static uint16_t stack_sum(const uint8_t *data, size_t len, uint32_t start)
{
    uint16_t folded = csum_fold(csum_add(start, data, len));
    uint8_t bytes[2];

    memcpy(bytes, &folded, 2); /* it is in memory order */
    return get_be16(bytes);
}

static void checksum_equals_the_naive_one_at_every_alignment_and_length(void **state)
{
    static uint8_t data[70000];
    struct prng r;

    (void)state;
    prng_seed(&r, 5);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)prng_next(&r);
    for (size_t align = 0; align < 16; align++) {
        for (size_t len = 0; len < 200; len++)
            assert_int_equal(stack_sum(data + align, len, 0), pkt_sum(data + align, len, 0));
        for (int i = 0; i < 20; i++) {
            size_t len = prng_below(&r, 65536);

            assert_int_equal(stack_sum(data + align, len, 0), pkt_sum(data + align, len, 0));
        }
    }
    memset(data, 0xff, sizeof(data));
    for (size_t len = 1; len < 65536; len += 997)
        assert_int_equal(stack_sum(data, len, UINT32_MAX), len % 2 == 0 ? 0xffff : 0xff00);
    assert_int_equal(stack_sum(data, 0, 0), 0);
}

static void checksum_of_pieces_is_that_of_the_whole(void **state)
{
    uint8_t data[3000];
    struct prng r;

    (void)state;
    prng_seed(&r, 6);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)prng_next(&r);
    for (size_t cut = 0; cut <= sizeof(data); cut += 2)
        assert_int_equal(csum_fold(csum_add(csum_add(0, data, cut), data + cut, sizeof(data) - cut)),
                         csum_fold(csum_add(0, data, sizeof(data))));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, ip_lab_setup, ip_lab_teardown)
    const struct CMUnitTest tests[] = {
        T(pool_fails_every_kth_time_when_a_test_asks),
        T(memory_without_use_is_given_back),
        T(blocks_obey_one_cap_over_all_classes),
        T(the_rx_slot_is_there_even_when_no_other_can_be_had),
        T(nothing_is_in_use_when_nothing_is_held),
        cmocka_unit_test(a_bucket_lets_its_burst_through_and_then_its_rate),
        cmocka_unit_test(checksum_equals_the_naive_one_at_every_alignment_and_length),
        cmocka_unit_test(checksum_of_pieces_is_that_of_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
