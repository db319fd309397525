/* test_base_hash.c - faces src/base/hash.c and random.c: published vectors, fairness, and the kernel's source. */
#include "culvert/base.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const struct hash_key reference_key = { 0x0706050403020100, 0x0f0e0d0c0b0a0908 };

/* SipHash-2-4 of 00, 00 01, 00 01 02, ... under the key 00..0f: the authors' reference vectors (index: length), the one of
 * 15 bytes being appendix A of the paper. */
static const struct {
    size_t len;
    uint64_t hash;
} vectors[] = {
    { 0, 0x726fdb47dd0e0e31 },  { 1, 0x74f839c593dc67fd }, { 2, 0x0d6c8009d9a94f5a },
    { 3, 0x85676696d7fb7e2d },  { 4, 0xcf2794e0277187b7 }, { 5, 0x18765564cd99a68d },
    { 6, 0xcbc9466e58fee3ce },  { 7, 0xab0200f58b01d137 }, { 8, 0x93f5f5799a932462 },
    { 15, 0xa129ca6149be45e5 },
};

static void siphash_2_4_gives_the_published_values(void **state)
{
    uint8_t data[16];

    (void)state;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)i;
    for (size_t i = 0; i < ARRAY_LEN(vectors); i++)
        assert_int_equal(hash_bytes(&reference_key, data, vectors[i].len), vectors[i].hash);
}

static void a_flow_hashes_as_siphash_1_3_of_its_37_bytes(void **state)
{
    /* hash(bytes(range(37))) of CPython 3.11 with PYTHONHASHSEED=0, which is SipHash-1-3 under a key of zeros. */
    const uint64_t want = 0x422a9751192ff266;
    struct hash_key zero = { 0, 0 };
    struct flow_key flow;
    uint8_t bytes[sizeof(flow)];

    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    memcpy(&flow, bytes, sizeof(flow));
    assert_int_equal(hash_flow(&zero, &flow), want);
    memset(flow.pad, 0, sizeof(flow.pad));
    assert_int_equal(hash_flow(&zero, &flow), want); /* padding is no part of it */
}

static void each_byte_of_a_flow_and_of_the_key_counts(void **state)
{
    struct flow_key flow = { .proto = IP_PROTO_TCP };
    uint64_t first = hash_flow(&reference_key, &flow);
    struct hash_key other = reference_key;

    (void)state;
    for (size_t i = 0; i < 37; i++) {
        struct flow_key changed = flow;

        ((uint8_t *)&changed)[i] ^= 1;
        assert_int_not_equal(hash_flow(&reference_key, &changed), first);
    }
    other.k1 ^= 1;
    assert_int_not_equal(hash_flow(&other, &flow), first);
}

static void the_generator_gives_the_published_sequence(void **state)
{
    /* xoshiro256** of a state made by splitmix64 from the seed 0 */
    static const uint64_t want[] = { 0x99ec5f36cb75f2b4, 0xbf6e1f784956452a, 0x1a5f849d4933e6e0 };
    struct prng r;

    (void)state;
    prng_seed(&r, 0);
    for (size_t i = 0; i < ARRAY_LEN(want); i++)
        assert_int_equal(prng_next(&r), want[i]);
}

static void prng_below_stays_below_and_reaches_every_value_alike(void **state)
{
    unsigned seen[7] = { 0 };
    struct prng r;

    (void)state;
    prng_seed(&r, 1);
    for (int i = 0; i < 70000; i++)
        seen[prng_below(&r, 7)]++;
    for (size_t i = 0; i < ARRAY_LEN(seen); i++)
        assert_in_range(seen[i], 9500, 10500); /* the seed is fixed, so this is no dice game */
    assert_int_equal(prng_below(&r, 1), 0);
    for (int i = 0; i < 1000; i++)
        assert_true(prng_below(&r, 0x80000001) < 0x80000001);
}

static void random_bytes_fill_the_whole_buffer(void **state)
{
    uint8_t a[300] = { 0 }, b[300] = { 0 };
    size_t zeros = 0;

    (void)state;
    assert_int_equal(random_bytes(a, sizeof(a)), 0);
    assert_int_equal(random_bytes(b, sizeof(b)), 0);
    assert_memory_not_equal(a, b, sizeof(a));
    for (size_t i = 0; i < sizeof(a); i++)
        zeros += a[i] == 0;
    assert_true(zeros < 20);
    assert_int_equal(random_bytes(a, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(siphash_2_4_gives_the_published_values),
        cmocka_unit_test(a_flow_hashes_as_siphash_1_3_of_its_37_bytes),
        cmocka_unit_test(each_byte_of_a_flow_and_of_the_key_counts),
        cmocka_unit_test(the_generator_gives_the_published_sequence),
        cmocka_unit_test(prng_below_stays_below_and_reaches_every_value_alike),
        cmocka_unit_test(random_bytes_fill_the_whole_buffer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
