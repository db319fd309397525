/* test_tcp_sim.c - faces all of src/stack/tcp_*.c: streams over a link that loses, reorders, doubles and goes
 * dark, and memory that runs out (tcp-stack.md TST-4, TST-5, MEM-3, SEQ-8). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "sim.h"
#include "stack/tcp_impl.h"

#define SEEDS 150

/* Every value of the matrix of TST-5 is drawn by the seed. */
static void draw(struct sim_options *o, uint64_t seed)
{
    static const double loss[] = { 0, 0.001, 0.01, 0.05, 0.2 };
    struct prng r;

    prng_seed(&r, seed + 1000);
    sim_options_default(o);
    o->seed = seed;
    o->lab.v6 = prng_below(&r, 2);
    o->lab.ts = prng_below(&r, 2);
    o->lab.sack = prng_below(&r, 3) > 0;
    o->lab.ws = prng_below(&r, 2) ? 7 : -1;
    o->lab.config.offload_tso = prng_below(&r, 3) > 0;
    o->lab.config.congestion = prng_below(&r, 2) ? TCP_CC_CUBIC : TCP_CC_NEWRENO;
    o->link.loss = loss[prng_below(&r, 5)];
    o->link.delay_us = prng_below(&r, 2) ? 5000 : 100;
    o->link.jitter_us = prng_below(&r, 3) == 0 ? 500 : 0;
    if (prng_below(&r, 3) == 0) {
        o->link.reorder = 0.05;
        o->link.duplicate = 0.02;
    }
    o->wrap = prng_below(&r, 3);
    o->whole_down = prng_below(&r, 2);
    o->merge_up = prng_below(&r, 2);
    o->stalled_relay = prng_below(&r, 4) == 0;
    o->down_after_up = prng_below(&r, 4) == 0;
    o->batch_packets = 1 + prng_below(&r, 32);
    o->up_bytes = prng_below(&r, 300000);
    o->down_bytes = prng_below(&r, 300000);
    o->client_window = prng_below(&r, 4) == 0 ? 8000 : 0;
    o->deadline_us = 900ull * 1000000;
}

static bool streams_are_exact(uint64_t seed)
{
    struct sim_options o;
    struct sim_result r;

    draw(&o, seed);
    r = sim_run(&o);
    if (!r.done)
        print_error("seed %llu (SIM_SEED=%llu runs it alone): %s after %.3f s\n", (unsigned long long)seed,
                    (unsigned long long)seed, r.why, (double)r.took_us / 1e6);
    return r.done;
}

static void both_streams_are_exact_over_any_link(void **state) /* TST-4, TST-5, SEQ-8; faults.md T17, T18 */
{
    const char *only = getenv("SIM_SEED"), *many = getenv("SIM_SEEDS");
    uint64_t seeds = many != NULL ? strtoull(many, NULL, 10) : SEEDS;
    int wrong = 0;

    (void)state;
    if (only != NULL) {
        assert_true(streams_are_exact(strtoull(only, NULL, 10)));
        return;
    }
    for (uint64_t seed = 0; seed < seeds; seed++)
        wrong += !streams_are_exact(seed);
    assert_int_equal(wrong, 0);
}

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

/* ---- memory that runs out ---------------------------------------------------------------------------- */

struct failing {
    unsigned pool, every;
};

static struct pool *pool_number(struct stack *s, unsigned n)
{
    struct tcp_shard *t = s->tcp;
    struct pool *const pools[] = { &t->segments,
                                   &t->pieces,
                                   &t->ooo,
                                   &t->recoveries,
                                   &t->tws,
                                   &t->requests,
                                   &t->conns,
                                   &s->blocks[BLOCK_CHUNK2],
                                   &s->blocks[BLOCK_CHUNK16],
                                   &s->blocks[BLOCK_CHUNK64],
                                   &s->blocks[BLOCK_SLOT] };

    return n < ARRAY_LEN(pools) ? pools[n] : NULL;
}

static void make_fail(struct lab *lab, void *arg)
{
    const struct failing *f = arg;

    pool_number(lab->stack, f->pool)->fail_every = f->every;
}

static void pools_may_fail_at_any_time(void **state) /* MEM-3 */
{
    static const unsigned every[] = { 1, 2, 3, 5, 7, 13, 29, 50 };
    int wrong = 0;

    (void)state;
    for (unsigned pool = 0; pool < 11; pool++) {
        for (size_t k = 0; k < ARRAY_LEN(every); k++) {
            struct failing f = { pool, every[k] };
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
            if (r.wrong || (!r.done && !r.reset && every[k] > 1)) {
                print_error("pool %u, every %u: %s after %.3f s\n", pool, every[k], r.why,
                            (double)r.took_us / 1e6);
                wrong++;
            }
        }
    }
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_streams_are_exact_over_any_link),
        cmocka_unit_test(little_is_repeated_at_one_percent_loss),
        cmocka_unit_test(what_arrives_out_of_order_is_kept),
        cmocka_unit_test(a_narrow_queue_is_filled_but_not_flooded),
        cmocka_unit_test(a_blackout_is_survived),
        cmocka_unit_test(pools_may_fail_at_any_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
