/* test_tcp_table.c - faces src/stack/tcp_table.c and tcp_shard.c: who owns a 4-tuple, what entries cost
 * (tcp-stack.md section 10), and that nothing but the arguments decides (ARC-1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "lab.h"
#include "sim.h"
#include "stack/tcp_impl.h"

static void entries_are_as_small_as_promised(void **state) /* PERF-9, PERF-10; tcp-stack.md 1.2 */
{
    (void)state;
    assert_true(sizeof(struct tcp_conn) + sizeof(uint32_t) <= 340);
    assert_true(sizeof(struct tcp_request) + sizeof(uint32_t) <= 128);
    assert_true(sizeof(struct tcp_tw) + sizeof(uint32_t) <= 96);
    assert_true(sizeof(struct segment) <= 32 && sizeof(struct interval) <= 24);
}

/* 3 of 4 buckets' worth of records; every one is found, and what it takes is counted. */
static void a_lookup_takes_less_than_two_probes(void **state) /* PERF-11 */
{
    struct lab_options o;
    struct lab *lab;
    struct tcp_shard *t;
    uint32_t entries;

    (void)state;
    lab_options_default(&o);
    o.hold = true;
    o.config.max_tcp = 16;
    o.config.max_half_open = 12288 - 16 - 64;
    o.config.max_half_open_per_source = UINT16_MAX;
    lab = lab_new(&o);
    t = lab->stack->tcp;
    entries = o.config.max_half_open;
    assert_true(entries * 100ull / (t->bucket_mask + 1) >= 74);
    for (uint32_t i = 0; i < entries; i++) {
        lab_feed(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = (uint16_t)(1000 + i) });
        if (lab->outs > 0) /* the second half of the records is for those that bring a cookie back */
            lab_feed(lab,
                     &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .port = (uint16_t)(1000 + i) });
        lab_clear(lab);
    }
    assert_int_equal(stack_half_open_count(lab->stack), entries);
    t->lookups = t->probes = 0;
    for (uint32_t i = 0; i < entries; i++)
        lab_feed(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = (uint16_t)(1000 + i) });
    assert_int_equal(stack_counters(lab->stack)->tcp_duplicate, entries);
    assert_true(t->probes < 2 * t->lookups);
    t->lookups = t->probes = 0;
    for (uint32_t i = 0; i < 1000; i++)
        lab_feed(lab, &(struct lab_seg){ .flags = LAB_RST, .port = (uint16_t)(40000 + i) });
    assert_true(t->probes < 2 * t->lookups);
    lab_free(lab);
}

static void the_same_seed_gives_the_same_run(void **state) /* ARC-1 */
{
    struct sim_options o;
    struct sim_result a, b;

    (void)state;
    sim_options_default(&o);
    o.link.loss = 0.05;
    o.link.reorder = 0.05;
    o.seed = 42;
    a = sim_run(&o);
    b = sim_run(&o);
    assert_true(a.done && a.digest != 0);
    assert_memory_equal(&a, &b, sizeof(a)); /* the digest is of every byte that was sent */
    o.lab.config.secret.k0++;
    b = sim_run(&o);
    assert_true(b.done && a.digest != b.digest);
}

static void two_stacks_in_one_process_share_nothing(void **state)
{
    struct lab_options o;
    struct lab *a, *b;

    (void)state;
    lab_options_default(&o);
    a = lab_new(&o);
    b = lab_new(&o);
    lab_connect(a);
    lab_connect(b);
    lab_data(a, 1, 1, 1000);
    assert_int_equal(a->got, 1000);
    assert_int_equal(b->got, 0);
    lab_send(a, &(struct lab_seg){ .flags = LAB_RST, .seq = 1001 });
    assert_int_equal(stack_tcp_count(a->stack), 0);
    assert_int_equal(stack_tcp_count(b->stack), 1);
    lab_free(a);
    lab_free(b);
}

static void the_end_of_a_stack_tells_everybody(void **state)
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    lab = lab_connected(&o);
    lab_write(lab, 100000);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 5001, .ack = 1, .len = 1000 });
    lab->opt.hold = true;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 50000 });
    lab_clear(lab);
    tcp_fini(lab->stack);
    assert_int_equal(lab->closes, 1);
    assert_int_equal(lab->close_err, -ECONNABORTED);
    assert_int_equal(lab->gones, 1);
    assert_int_equal(lab->outs, 0);
    assert_int_equal(lab_in_use(lab, "chunk64"), 0);
    assert_int_equal(lab_in_use(lab, "piece"), 0);
    assert_int_equal(lab_in_use(lab, "segment"), 0);
    assert_int_equal(lab_in_use(lab, "interval"), 0);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_are_as_small_as_promised),
        cmocka_unit_test(a_lookup_takes_less_than_two_probes),
        cmocka_unit_test(the_same_seed_gives_the_same_run),
        cmocka_unit_test(two_stacks_in_one_process_share_nothing),
        cmocka_unit_test(the_end_of_a_stack_tells_everybody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
