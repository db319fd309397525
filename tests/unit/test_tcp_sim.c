/* test_tcp_sim.c - faces all of src/stack/tcp_*.c: what a link may cost, and memory that runs out (tcp-stack.md TST-4, MEM-3).
 * That streams are exact over every kind of link is shown by test_tcp_matrix.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "sim.h"
#include "stack/tcp_impl.h"

static void little_is_repeated_at_one_percent_loss(
    void **state) /* TST-4: retransmitted/lost < 1.5 with SACK */
{
    uint64_t again = 0, lost = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 8; seed++) {
        struct sim_options o;
        struct sim_result r;

        sim_options_default(&o);
        o.seed = seed;
        o.link.loss = 0.01;
        o.up_bytes = 1000;
        o.down_bytes = 2000000;
        r = sim_run(&o);
        assert_true(r.done);
        again += r.down_resent;
        lost += r.down_dropped;
    }
    assert_true(lost > 0 && again * 2 < lost * 3);
}

static void what_arrives_out_of_order_is_kept(void **state) /* UP-3 */
{
    uint64_t twice = 0, dropped = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 8; seed++) {
        struct sim_options o;
        struct sim_result r;

        sim_options_default(&o);
        o.seed = seed;
        o.link.loss = 0.05;
        o.up_bytes = 1000000;
        o.down_bytes = 0;
        r = sim_run(&o);
        assert_true(r.done);
        twice += r.up_twice * 1400;
        dropped += r.up_dropped;
    }
    if (twice * 10 > dropped * 3)
        print_error("%llu bytes twice, %llu dropped\n", (unsigned long long)twice,
                    (unsigned long long)dropped);
    assert_true(twice * 10 <= dropped * 3);
}

static void a_narrow_queue_is_filled_but_not_flooded(void **state) /* CC-5 */
{
    struct sim_options o;
    struct sim_result r;

    (void)state;
    sim_options_default(&o);
    o.link = (struct sim_link){ .delay_us = 5000, .rate_bytes_per_s = 1250000, .queue_packets = 20 };
    o.up_bytes = 0;
    o.down_bytes = 8000000;
    r = sim_run(&o);
    assert_true(r.done);
    assert_true(r.down_dropped * 20 < r.down_sent);
    assert_true(o.down_bytes * 1000000 / r.took_us * 100 > 85ull * 1250000); /* 85 % of the rate */
}

static void a_blackout_is_survived(void **state) /* RTO-1, UTO-1 */
{
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct sim_options o;
        struct sim_result r;

        sim_options_default(&o);
        o.seed = seed;
        o.blackout_at_us = 20000 + seed * 5000;
        o.blackout_us = 10000000 * (1 + seed % 3);
        o.up_bytes = o.down_bytes = 500000;
        r = sim_run(&o);
        if (!r.done)
            print_error("seed %llu: %s\n", (unsigned long long)seed, r.why);
        assert_true(r.done);
    }
    (void)state;
}

/* Messages shorter than the MSS are too large for it as well. */
static void a_path_that_swallows_large_packets_in_silence_is_found(void **state) /* MSS-3 */
{
    struct sim_options o;
    struct sim_result r;

    (void)state;
    sim_options_default(&o);
    o.message_bytes = 1200;
    o.up_bytes = o.down_bytes = 12000;
    o.link.narrow_mtu = 1100;
    o.narrow_at_us = 30000;
    r = sim_run(&o);
    assert_true(r.done && r.too_big > 0);
    assert_true(r.took_us < 10000000);
}

/* Either side's packets, with SACK and without. */
static void a_third_of_all_packets_may_be_lost(void **state) /* faults.md E10 */
{
    static const double losses[] = { 0.1, 0.3 };

    (void)state;
    for (uint64_t seed = 1; seed <= 16; seed++) {
        struct sim_options o;
        struct sim_result r;

        sim_options_default(&o);
        o.seed = seed;
        o.lab.sack = seed % 4 < 2;
        o.link.loss = losses[seed % 2];
        o.link.duplicate = 0.1;
        o.link.reorder = 0.1;
        o.link.reorder_us = 20000;
        o.link.delay_us = 5000;
        o.up_bytes = o.down_bytes = 200000;
        o.deadline_us = 1800ull * 1000000;
        r = sim_run(&o);
        if (!r.done || r.reset || r.wrong || r.down_dropped == 0 || r.up_dropped == 0)
            fail_msg("seed %llu: %s after %.1f s", (unsigned long long)seed,
                     r.why != NULL ? r.why : "no loss", (double)r.took_us / 1e6);
    }
}

/* Wi-Fi at its worst: for a while every packet is up to 300 ms late, and then nothing passes for 5 s. */
static void jitter_and_then_darkness_are_survived(void **state) /* faults.md E12 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct sim_options o;
        struct sim_result r;

        sim_options_default(&o);
        o.seed = seed;
        o.link.delay_us = 10000;
        o.link.jitter_us = 300000;
        o.up_bytes = o.down_bytes = 300000;
        o.blackout_at_us = 500000;
        o.blackout_us = 5000000;
        r = sim_run(&o);
        if (!r.done || r.reset || r.took_us < 5500000)
            fail_msg("seed %llu: %s after %.3f s", (unsigned long long)seed,
                     r.why != NULL ? r.why : "over before the darkness", (double)r.took_us / 1e6);
    }
}

/* ---- memory that runs out ---------------------------------------------------------------------------- */

#define TCP_POOLS 12 /* the others: test_pool_fails.c */

struct failing {
    unsigned pool, every;
};

static struct pool *pool_number(struct stack *s, unsigned n)
{
    struct tcp_shard *t = s->tcp;
    struct pool *const pools[] = { &t->segments,
                                   &t->pieces,
                                   &t->flights,
                                   &t->ooo,
                                   &t->recoveries,
                                   &t->tws,
                                   &t->requests,
                                   &t->conns,
                                   &s->blocks[BLOCK_CHUNK2],
                                   &s->blocks[BLOCK_CHUNK16],
                                   &s->blocks[BLOCK_CHUNK64],
                                   &s->blocks[BLOCK_SLOT] };

    _Static_assert(ARRAY_LEN(pools) == TCP_POOLS, "every pool has its turn");
    return pools[n];
}

static void make_fail(struct lab *lab, void *arg)
{
    const struct failing *f = arg;

    pool_number(lab->stack, f->pool)->fail_every = f->every;
}

/* CULVERT_LONG=1: every k to 50. */
static void pools_may_fail_at_any_time(void **state) /* MEM-3 */
{
    bool all = getenv("CULVERT_LONG") != NULL;
    int wrong = 0;

    (void)state;
    for (unsigned pool = 0; pool < TCP_POOLS; pool++) {
        for (unsigned k = 1; k <= 50; k += all || k < 3 ? 1 : k < 8 ? 2 : 7) {
            struct failing f = { pool, k };
            struct sim_options o;
            struct sim_result r;

            sim_options_default(&o);
            o.seed = pool * 100 + k;
            o.link.loss = 0.02;
            o.up_bytes = o.down_bytes = 100000;
            o.merge_up = k % 2;
            o.deadline_us = 400ull * 1000000;
            o.prepare = make_fail;
            o.prepare_arg = &f;
            r = sim_run(&o);
            /* With a pool that never gives anything nothing can be promised but honesty. */
            if (r.wrong || (!r.done && !r.reset && k > 1)) {
                print_error("pool %u, every %u: %s after %.3f s\n", pool, k, r.why, (double)r.took_us / 1e6);
                wrong++;
            }
        }
    }
    assert_int_equal(wrong, 0);
}

static void a_fin_without_memory_leaves_later(void **state) /* MEM-3, CLS-3 */
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    lab = lab_connected(&o);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 1, .ack = 1 });
    lab->stack->tcp->flights.fail_every = 1;
    tcp_release(lab->conn);
    lab_batch(lab);
    lab_run_us(lab, 100000);
    assert_int_equal(lab_count(lab, "FIN,ACK"), 0);
    lab->stack->tcp->flights.fail_every = 0;
    lab_run_us(lab, 20000);
    assert_int_equal(lab_count(lab, "FIN,ACK"), 1);
    lab_ack(lab, 2, 2);
    assert_int_equal(stack_tcp_count(lab->stack), 0);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(little_is_repeated_at_one_percent_loss),
        cmocka_unit_test(what_arrives_out_of_order_is_kept),
        cmocka_unit_test(a_narrow_queue_is_filled_but_not_flooded),
        cmocka_unit_test(a_blackout_is_survived),
        cmocka_unit_test(a_path_that_swallows_large_packets_in_silence_is_found),
        cmocka_unit_test(a_third_of_all_packets_may_be_lost),
        cmocka_unit_test(jitter_and_then_darkness_are_survived),
        cmocka_unit_test(pools_may_fail_at_any_time),
        cmocka_unit_test(a_fin_without_memory_leaves_later),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
