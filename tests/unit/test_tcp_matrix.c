/* test_tcp_matrix.c - faces all of src/stack/tcp_*.c: the matrix of tcp-stack.md TST-5. A seed draws its cell.
 *
 * The rows of an orthogonal array of strength 2 over the integers modulo 13 say which values meet: 14 columns, 169 rows, and in any
 * two columns every pair of numbers in exactly one row. A factor with n values takes the share of a number in 0..12. So any 169
 * seeds in a row contain every pair of values of any two factors; what is left to chance differs from seed to seed.
 *
 * CULVERT_SEEDS=N runs that many (default 200); SIM_SEED=N one alone, SIM_TRACE=1 with its packets on stderr. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"
#include "skip.h"

#define SEEDS   200
#define LEVELS  13
#define ROWS    (LEVELS * LEVELS)
#define SECOND  1000000ull
#define PATIENT (4000 * SECOND)

enum factor {
    FAMILY,
    TIMESTAMPS,
    SACK,
    SCALING,
    LOSS,
    ISS,
    WORKLOAD,
    IMPAIRMENT,
    CONGESTION,
    DOWN_SHAPE, /* super-segments off, cut, whole, mixed */
    DELAY,
    UP_SHAPE, /* one by one, in batches, merged, merged in batches */
    CLIENT_WINDOW,
    ECN,
    FACTORS
};
static const unsigned values[FACTORS] = { 2, 2, 2, 2, 5, 3, 7, 13, 2, 4, 4, 4, 3, 2 };
static const char *const names[FACTORS] = { "family", "timestamps", "SACK",       "scaling",    "loss",
                                            "ISS",    "workload",   "impairment", "congestion", "down shape",
                                            "delay",  "up shape",   "window",     "ECN" };

enum workload { BULK_UP, BULK_DOWN, BOTH, PING_PONG, BYTE_BY_BYTE, HALF_CLOSE, STALLED_RELAY };
enum impairment {
    PLAIN,
    JITTER,
    REORDER,
    DUPLICATE,
    BURSTS,
    CORRUPT,
    ACK_THINNING,
    RECUT,
    NARROW_TOLD,
    NARROW_SILENT,
    MARK,
    BLACKOUT,
    DROP_TAIL
};

static void cell_of(uint64_t seed, unsigned cell[FACTORS])
{
    unsigned x = (unsigned)(seed % ROWS) / LEVELS, y = (unsigned)(seed % ROWS) % LEVELS;

    for (unsigned f = 0; f < FACTORS; f++) {
        unsigned number = f == 0 ? x : f == 1 ? y : (x + (f - 1) * y) % LEVELS;

        cell[f] = number * values[f] / LEVELS;
    }
}

static void set_workload(struct sim_options *o, enum workload w, struct prng *r)
{
    o->up_bytes = prng_below(r, 200000);
    o->down_bytes = prng_below(r, 200000);
    switch (w) {
    case BULK_UP:
        o->down_bytes = 0;
        break;
    case BULK_DOWN:
        o->up_bytes = 0;
        break;
    case BOTH:
        break;
    case PING_PONG:
        o->message_bytes = prng_below(r, 2) ? 1 + prng_below(r, 1399) : 2800;
        o->up_bytes = o->down_bytes = o->message_bytes * (uint64_t)(1 + prng_below(r, 20));
        break;
    case BYTE_BY_BYTE:
        o->write_bytes = 1;
        o->up_bytes = 1 + prng_below(r, 600);
        o->down_bytes = 1 + prng_below(r, 600);
        break;
    case HALF_CLOSE:
        o->down_after_up = true;
        break;
    case STALLED_RELAY:
        o->stalled_relay = true;
        break;
    }
}

static void set_impairment(struct sim_options *o, enum impairment i, struct prng *r)
{
    struct sim_link *l = &o->link;

    switch (i) {
    case PLAIN:
        break;
    case JITTER:
        l->jitter_us = 500 + prng_below(r, 3000);
        break;
    case REORDER:
        l->reorder = 0.05;
        l->reorder_us = 1000 + prng_below(r, 10000);
        break;
    case DUPLICATE:
        l->duplicate = 0.05;
        break;
    case BURSTS:
        l->to_bad = 0.02;
        l->to_good = 0.3;
        l->bad_loss = 0.7;
        break;
    case CORRUPT:
        l->corrupt = 0.03; /* faults.md T19 */
        break;
    case ACK_THINNING:
        l->ack_thinning = 0.7;
        break;
    case RECUT:
        l->recut = 0.1;
        break;
    case NARROW_TOLD:
        o->narrow_at_us = prng_below(r, 60000);
        l->narrow_mtu = o->lab.v6 ? 1280 : 600 + prng_below(r, 800);
        l->narrow_icmp = true;
        break;
    case NARROW_SILENT: /* 1,024 or the floor is found by itself (MSS-3) */
        o->narrow_at_us = prng_below(r, 60000);
        l->narrow_mtu = o->lab.v6 ? 1280 : 1024 + prng_below(r, 300);
        break;
    case MARK:
        l->mark = 0.05;
        break;
    case BLACKOUT:
        o->blackout_at_us = prng_below(r, 100000);
        o->blackout_us = (1 + prng_below(r, 20)) * SECOND;
        break;
    case DROP_TAIL:
        l->rate_bytes_per_s = 250000 + prng_below(r, 2000000);
        l->queue_packets = 5 + prng_below(r, 30);
        break;
    }
}

static void draw(struct sim_options *o, uint64_t seed)
{
    static const double loss[] = { 0, 0.001, 0.01, 0.05, 0.2 };
    static const uint64_t delay_us[] = { 50, 1000, 5000, 40000 };
    static const uint32_t window[] = { 0, 8000, 60000 };
    unsigned cell[FACTORS];
    struct prng r;

    cell_of(seed, cell);
    prng_seed(&r, seed + 1000);
    sim_options_default(o);
    o->seed = seed;
    o->lab.v6 = cell[FAMILY];
    o->lab.ts = cell[TIMESTAMPS];
    o->lab.sack = cell[SACK];
    o->lab.ws = cell[SCALING] ? 7 : -1;
    o->link.loss = loss[cell[LOSS]];
    o->wrap = cell[ISS];
    o->lab.config.congestion = cell[CONGESTION] ? TCP_CC_NEWRENO : TCP_CC_CUBIC;
    o->lab.config.user_timeout_ms = 1000000; /* twenty lost in a row are not the stack's fault */
    o->lab.config.offload_tso = cell[DOWN_SHAPE] > 0;
    o->down_shape = cell[DOWN_SHAPE] > 1 ? (enum sim_down)(cell[DOWN_SHAPE] - 1) : SIM_DOWN_SEGMENTS;
    o->link.delay_us = delay_us[cell[DELAY]];
    o->batch_packets = cell[UP_SHAPE] % 2 ? 2 + prng_below(&r, 31) : 1;
    o->merge_up = cell[UP_SHAPE] >= 2;
    o->client_window = window[cell[CLIENT_WINDOW]];
    o->ecn = cell[ECN];
    o->deadline_us = PATIENT;
    set_workload(o, (enum workload)cell[WORKLOAD], &r);
    set_impairment(o, (enum impairment)cell[IMPAIRMENT], &r);
}

static void print_cell(uint64_t seed)
{
    unsigned cell[FACTORS];

    cell_of(seed, cell);
    for (unsigned f = 0; f < FACTORS; f++)
        print_error(" %s=%u", names[f], cell[f]);
    print_error("\n");
}

static bool streams_are_exact(uint64_t seed)
{
    struct sim_options o;
    struct sim_result r;

    draw(&o, seed);
    r = sim_run(&o);
    if (r.done)
        return true;
    print_error("seed %llu: %s after %.3f s; SIM_SEED=%llu SIM_TRACE=1 ./test_tcp_matrix\n   ",
                (unsigned long long)seed, r.why, (double)r.took_us / 1e6, (unsigned long long)seed);
    print_cell(seed);
    return false;
}

static void both_streams_are_exact_over_any_link(void **state) /* TST-4, TST-5, SEQ-8; faults.md T17, T18 */
{
    const char *only = getenv("SIM_SEED"), *many = getenv("CULVERT_SEEDS");
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

static void every_pair_of_values_occurs_in_200_seeds(void **state) /* TST-5 */
{
    static bool seen[FACTORS][LEVELS][FACTORS][LEVELS];
    unsigned cell[FACTORS];
    int missing = 0;

    (void)state;
    memset(seen, 0, sizeof(seen));
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        cell_of(seed, cell);
        for (unsigned f = 0; f < FACTORS; f++) {
            for (unsigned g = 0; g < FACTORS; g++)
                seen[f][cell[f]][g][cell[g]] = true;
        }
    }
    for (unsigned f = 0; f < FACTORS; f++) {
        for (unsigned g = 0; g < f; g++) {
            for (unsigned pair = 0; pair < values[f] * values[g]; pair++)
                missing += !seen[f][pair / values[g]][g][pair % values[g]];
        }
    }
    assert_int_equal(missing, 0);
}

/* A simulator whose impairments do nothing would prove nothing. */
static void every_impairment_happens(void **state) /* TST-4 */
{
    struct sim_result sum[DROP_TAIL + 1] = { 0 };
    uint64_t ecn_cwr = 0;

    (void)state;
    if (getenv("SIM_SEED") != NULL)
        SKIP("a single seed shows less than all do");
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        unsigned cell[FACTORS];
        struct sim_options o;
        struct sim_result r, *to;

        cell_of(seed, cell);
        draw(&o, seed);
        r = sim_run(&o);
        to = &sum[cell[IMPAIRMENT]];
        to->corrupted += r.corrupted;
        to->marked += r.marked;
        to->acks_thinned += r.acks_thinned;
        to->too_big += r.too_big;
        to->down_dropped += (r.down_dropped + r.up_dropped) * (o.link.loss == 0);
        to->up_twice += r.up_twice;
        ecn_cwr += r.cwr_down;
    }
    assert_true(sum[CORRUPT].corrupted > 20 && sum[MARK].marked > 20 && sum[ACK_THINNING].acks_thinned > 100);
    assert_true(sum[NARROW_TOLD].too_big > 5 && sum[NARROW_SILENT].too_big > 5 &&
                sum[DUPLICATE].up_twice > 5);
    assert_true(sum[BURSTS].down_dropped > 0 && sum[DROP_TAIL].down_dropped > 0 &&
                sum[BLACKOUT].down_dropped > 0);
    assert_true(sum[PLAIN].down_dropped == 0 && sum[PLAIN].too_big == 0);
    assert_true(ecn_cwr > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_of_values_occurs_in_200_seeds),
        cmocka_unit_test(both_streams_are_exact_over_any_link),
        cmocka_unit_test(every_impairment_happens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
