/* test_wheel.c - the timing wheel of base against a naive model, and its promises one by one (tcp-stack.md TMR-1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "culvert/base.h"

#define TICK_US 1000

/* One timer and what happened to it. */
struct probe {
    struct wheel_timer timer;
    uint64_t fired_at_us;
    uint32_t fired;
    struct bench *bench;
};

struct bench {
    struct wheel wheel;
    struct probe *order[16]; /* the first that fired, in order */
    size_t fired;
    uint64_t last_deadline_tick;
    unsigned early, late, disorder;
    uint64_t previous_advance_us;
};

static uint64_t tick_of(uint64_t us)
{
    return (us + TICK_US - 1) / TICK_US;
}

static void note(struct wheel_timer *t, uint64_t now_us)
{
    struct probe *p = CONTAINER_OF(t, struct probe, timer);
    struct bench *b = p->bench;

    assert_false(wheel_is_set(t));
    p->fired++;
    p->fired_at_us = now_us;
    if (b->fired < ARRAY_LEN(b->order))
        b->order[b->fired] = p;
    b->fired++;
    b->early += t->deadline_us > now_us;
    /* Due in time for an earlier advance, and yet it comes only now. */
    b->late += tick_of(t->deadline_us) * TICK_US <= b->previous_advance_us;
    b->disorder += tick_of(t->deadline_us) < b->last_deadline_tick;
    b->last_deadline_tick = tick_of(t->deadline_us);
}

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));

    wheel_init(&b->wheel, 0);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

static void advance(struct bench *b, uint64_t now_us)
{
    wheel_advance(&b->wheel, now_us);
    b->previous_advance_us = now_us;
}

static void arm(struct bench *b, struct probe *p, uint64_t deadline_us)
{
    p->bench = b;
    p->timer.fn = note;
    wheel_set(&b->wheel, &p->timer, deadline_us);
}

static void no_timer_fires_early_and_none_a_tick_late(void **state)
{
    static const uint64_t at[] = { 1,       999,        1000,        1001,         255999,       256000,
                                   256001,  65535000,   65536000,    65536001,     16777216000,  16777215999,
                                   1000000, 4294967296, 42949672960, 429496729600, 4294967296000 };
    struct bench *b = *state;

    for (size_t i = 0; i < ARRAY_LEN(at); i++) {
        struct probe p = { 0 };
        uint64_t start = b->wheel.now_tick * TICK_US, due = start + at[i];

        arm(b, &p, due);
        assert_true(wheel_next_us(&b->wheel) <= tick_of(due) * TICK_US);
        advance(b, due - 1);
        assert_int_equal(p.fired, 0);
        advance(b, tick_of(due) * TICK_US);
        assert_int_equal(p.fired, 1);
        assert_int_equal(b->wheel.pending, 0);
        assert_true(wheel_next_us(&b->wheel) == UINT64_MAX);
    }
}

static void a_deadline_in_the_past_fires_at_the_next_advance(void **state)
{
    struct bench *b = *state;
    struct probe p = { 0 };

    advance(b, 5000000);
    arm(b, &p, 17);
    assert_true(wheel_next_us(&b->wheel) <= 5000000);
    advance(b, 5000000);
    assert_int_equal(p.fired, 1);
}

static void timers_of_one_tick_fire_in_the_order_they_were_set(void **state)
{
    struct bench *b = *state;
    struct probe p[6] = { 0 };
    const uint64_t due = 70000000;

    arm(b, &p[0], due); /* far: level 2 */
    advance(b, 66000000);
    arm(b, &p[1], due); /* level 1 */
    advance(b, 69950000);
    arm(b, &p[2], due); /* level 0 */
    arm(b, &p[3], due);
    arm(b, &p[4], due - 999); /* the same tick */
    arm(b, &p[1], due);       /* set again: now the last */
    arm(b, &p[5], due + 1);   /* the next tick */
    advance(b, due + 1000);
    assert_ptr_equal(b->order[0], &p[0]);
    assert_ptr_equal(b->order[1], &p[2]);
    assert_ptr_equal(b->order[2], &p[3]);
    assert_ptr_equal(b->order[3], &p[4]);
    assert_ptr_equal(b->order[4], &p[1]);
    assert_ptr_equal(b->order[5], &p[5]);
}

static void a_cancelled_timer_never_fires_and_cancelling_twice_is_fine(void **state)
{
    struct bench *b = *state;
    struct probe p[3] = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(p); i++)
        arm(b, &p[i], 300000);
    wheel_cancel(&b->wheel, &p[1].timer);
    wheel_cancel(&b->wheel, &p[1].timer);
    assert_int_equal(b->wheel.pending, 2);
    advance(b, 400000);
    assert_int_equal(p[0].fired + p[2].fired, 2);
    assert_int_equal(p[1].fired, 0);
}

static struct probe *victim;
static void cancel_victim(struct wheel_timer *t, uint64_t now_us)
{
    struct probe *p = CONTAINER_OF(t, struct probe, timer);

    (void)now_us;
    p->fired++;
    wheel_cancel(&p->bench->wheel, &victim->timer);
}

static void a_timer_may_cancel_another_of_the_same_tick(void **state)
{
    struct bench *b = *state;
    struct probe p[3] = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(p); i++)
        arm(b, &p[i], 2000);
    p[0].timer.fn = cancel_victim;
    victim = &p[1];
    advance(b, 2000);
    assert_int_equal(p[0].fired, 1);
    assert_int_equal(p[1].fired, 0);
    assert_int_equal(p[2].fired, 1);
    assert_int_equal(b->wheel.pending, 0);
}

static void rearm_to_the_past(struct wheel_timer *t, uint64_t now_us)
{
    struct probe *p = CONTAINER_OF(t, struct probe, timer);

    p->fired++;
    (void)now_us;
    wheel_set(&p->bench->wheel, t, t->deadline_us);
}

static void a_timer_that_rearms_to_the_past_fires_once_an_advance(void **state)
{
    struct bench *b = *state;
    struct probe p = { 0 }, other = { 0 };

    arm(b, &p, 1000);
    p.timer.fn = rearm_to_the_past;
    arm(b, &other, 900000);
    advance(b, 1000000);
    assert_int_equal(p.fired, 1);
    assert_int_equal(other.fired, 1);
    advance(b, 1000000);
    advance(b, 100000000000);
    assert_int_equal(p.fired, 3);
}

static void a_long_sleep_costs_few_steps_and_loses_no_timer(
    void **state) /* faults.md X7: suspended for 8 h */
{
    struct bench *b = *state;
    struct probe p[2] = { 0 };

    arm(b, &p[0], 28800000000);
    arm(b, &p[1], 30000000000);
    advance(b, 29000000000);
    assert_int_equal(p[0].fired, 1);
    assert_int_equal(p[1].fired, 0);
    assert_true(b->wheel.operations < 16);
}

/* A wheel must not be fooled by the digits of a clock that has been running for long. */
static void all_levels_wrap(void **state)
{
    static const uint64_t starts[] = { 0xff, 0xffff, 0xffffff, 0xffffffff, 0xffffffffff };
    struct bench *b = *state;

    for (size_t i = 0; i < ARRAY_LEN(starts); i++) {
        struct probe p = { 0 }, far = { 0 };

        wheel_init(&b->wheel, starts[i] * TICK_US);
        arm(b, &p, (starts[i] + 2) * TICK_US);
        arm(b, &far, (starts[i] + 0x180000000) * TICK_US); /* beyond the last level */
        advance(b, (starts[i] + 1) * TICK_US);
        assert_int_equal(p.fired, 0);
        advance(b, (starts[i] + 2) * TICK_US);
        assert_int_equal(p.fired, 1);
        advance(b, (starts[i] + 0x17fffffff) * TICK_US);
        assert_int_equal(far.fired, 0);
        advance(b, (starts[i] + 0x180000000) * TICK_US);
        assert_int_equal(far.fired, 1);
    }
}

static int by_deadline(const void *a, const void *b)
{
    const struct probe *x = *(struct probe *const *)a, *y = *(struct probe *const *)b;
    uint64_t xt = tick_of(x->timer.deadline_us), yt = tick_of(y->timer.deadline_us);

    return xt < yt ? -1 : xt > yt;
}

/* Deadlines as a gateway has them: many soon, some in minutes, a few in hours. */
static uint64_t random_deadline(struct prng *r, uint64_t now_us)
{
    static const uint32_t spread_ms[] = { 40, 1000, 60000, 300000, 7200000 };

    return now_us + prng_next(r) % ((uint64_t)spread_ms[prng_below(r, ARRAY_LEN(spread_ms))] * 1000);
}

#define MANY 1000000

static void a_million_random_timers_fire_in_order_none_early_none_late(void **state) /* tcp-stack.md TMR-1 */
{
    struct bench *b = *state;
    struct probe *p = calloc(MANY, sizeof(*p)), **model = calloc(MANY, sizeof(*model));
    uint64_t now = 0;
    struct prng r;
    size_t done = 0;

    prng_seed(&r, 4711);
    for (size_t i = 0; i < MANY; i++) {
        arm(b, &p[i], random_deadline(&r, 1));
        model[i] = &p[i];
    }
    for (size_t i = 0; i < MANY; i += 3) /* a third are moved, a ninth of all is cancelled */
        arm(b, &p[i], random_deadline(&r, 1));
    for (size_t i = 0; i < MANY; i += 9)
        wheel_cancel(&b->wheel, &p[i].timer);
    qsort(model, MANY, sizeof(*model), by_deadline);
    while (b->wheel.pending > 0) {
        uint64_t next = wheel_next_us(&b->wheel);

        now = (next > now ? next : now) + prng_below(&r, 5000);
        advance(b, now);
        for (; done < MANY && tick_of(model[done]->timer.deadline_us) * TICK_US <= now; done++) {
            bool cancelled = (size_t)(model[done] - p) % 9 == 0;

            if (model[done]->fired != !cancelled)
                fail_msg("timer due at %llu us fired %u times by %llu us",
                         (unsigned long long)model[done]->timer.deadline_us, model[done]->fired,
                         (unsigned long long)now);
        }
        if (done < MANY)
            assert_int_equal(model[done]->fired, 0);
    }
    assert_int_equal(b->fired, MANY - (MANY + 8) / 9);
    assert_int_equal(b->early, 0);
    assert_int_equal(b->late, 0);
    assert_int_equal(b->disorder, 0);
    assert_true(b->wheel.operations < 8u * MANY);
    free(p);
    free(model);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(no_timer_fires_early_and_none_a_tick_late),
        T(a_deadline_in_the_past_fires_at_the_next_advance),
        T(timers_of_one_tick_fire_in_the_order_they_were_set),
        T(a_cancelled_timer_never_fires_and_cancelling_twice_is_fine),
        T(a_timer_may_cancel_another_of_the_same_tick),
        T(a_timer_that_rearms_to_the_past_fires_once_an_advance),
        T(a_long_sleep_costs_few_steps_and_loses_no_timer),
        T(all_levels_wrap),
        T(a_million_random_timers_fire_in_order_none_early_none_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
