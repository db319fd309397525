/* test_rate.c - faces src/forward/rate.c: which lists of waiting streams are looked at, and when. In virtual time; the flows are shells,
 * whose turn shows as having left the list. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "../../src/forward/forward_impl.h"

enum { SLOW = 100, SLOW_RATE = 1000, FAST_RATE = 1000000 };

static struct told { /* by the stack's function */
    unsigned held, released;
} told;

static uint64_t now_us;

/* ---- what rate.c calls; defined here, so that nothing of the other folders is linked ---- */

void tcp_hold_back(struct tcp_conn *c, bool held)
{
    (void)c;
    if (held)
        told.held++;
    else
        told.released++;
}

uint64_t loop_now_us(const struct loop *l)
{
    (void)l;
    return now_us;
}

void share_want(struct forward *f)
{
    (void)f;
}

uint64_t share_equal(const struct forward *f, uint64_t whole)
{
    (void)f;
    return whole;
}

void source_forget(struct forward *f, struct source *s)
{
    (void)f;
    (void)s;
}

const char *upstream_name(const struct upstream *up)
{
    (void)up;
    return "";
}

struct upstream *up_stream_way(const struct up_stream *s)
{
    (void)s;
    return NULL;
}

struct upstream *up_udp_way(const struct up_udp *u)
{
    (void)u;
    return NULL;
}

void tcp_flow_resume(struct tcp_flow *t, int dir) /* it moves all that it may, and wants more */
{
    size_t n;

    while ((n = rate_allow(t, dir)) > 0)
        rate_took(t, dir, n);
}

/* ---- a worker with clients, one flow each ---- */

struct table {
    struct forward f;
    struct wheel wheel;
    struct ways ways;
    struct upstream *target[1];
    struct rate_limit rates[2];
    struct source source[SLOW + 1];
    struct tcp_flow flow[SLOW + 1];
};

static struct table *table_new(void)
{
    struct table *t = calloc(1, sizeof(*t));

    now_us = 1000000;
    told = (struct told){ 0 };
    wheel_init(&t->wheel, now_us);
    t->rates[0] = (struct rate_limit){ .target = RATE_OF_SOURCE, .bytes_per_s = { SLOW_RATE, SLOW_RATE } };
    t->rates[1] = (struct rate_limit){ .target = RATE_OF_SOURCE, .bytes_per_s = { FAST_RATE, FAST_RATE } };
    assert_int_equal(ip_prefix_parse("10.0.0.0/8", &t->rates[0].source), 0);
    assert_int_equal(ip_prefix_parse("11.0.0.0/8", &t->rates[1].source), 0);
    t->ways = (struct ways){ .f = &t->f, .target = t->target, .rates = t->rates, .rate_count = 2 };
    t->f.wheel = &t->wheel;
    t->f.ways = &t->ways;
    assert_int_equal(slab_init(&t->f.meters, sizeof(struct meter), SLOW + 1), 0);
    assert_int_equal(slab_init(&t->f.paces, sizeof(struct pace), SLOW + 1), 0);
    for (int i = 0; i <= SLOW; i++) {
        struct tcp_flow *flow = &t->flow[i];

        t->source[i].addr = ip_from4((const uint8_t[]){ i < SLOW ? 10 : 11, 0, 0, (uint8_t)i });
        rate_enter_source(&t->f, &t->source[i]);
        *flow = (struct tcp_flow){ .ways = &t->ways, .state = TCP_FLOW_OPEN, .source = &t->source[i] };
        rate_attach_tcp(flow);
        assert_true(flow->paced);
        tcp_flow_resume(flow, RATE_UP); /* takes what the bucket held, and waits */
        assert_true(rate_waits(flow, RATE_UP));
    }
    return t;
}

static void table_free(struct table *t)
{
    for (int i = 0; i <= SLOW; i++)
        rate_detach_tcp(&t->flow[i]);
    assert_int_equal(t->wheel.pending, 0);
    assert_int_equal(told.held, told.released);
    slab_fini(&t->f.meters);
    slab_fini(&t->f.paces);
    free(t);
}

static void run_ms(struct table *t, unsigned ms)
{
    for (unsigned i = 0; i < ms; i++) {
        now_us += 1000;
        wheel_advance(&t->wheel, now_us);
    }
}

static void who_cannot_be_served_yet_is_not_looked_at(void **state)
{
    struct table *t = table_new();
    const struct rate_bucket *slow = &t->source[0].meter->line[RATE_UP].bucket,
                             *fast = &t->source[SLOW].meter->line[RATE_UP].bucket;
    uint64_t looked_at = slow->at_us, used = fast->used;

    (void)state;
    run_ms(t, 500);
    assert_int_equal(slow->at_us, looked_at); /* a quantum takes it 1.4 s */
    assert_true(fast->used - used > FAST_RATE / 2 * 95 / 100);
    assert_true(fast->used - used <= FAST_RATE / 2);
    run_ms(t, 1500);
    for (int i = 0; i < SLOW; i++)
        assert_in_range(t->source[i].meter->line[RATE_UP].bucket.used, 4096 + 1448, 4096 + 2000);
    table_free(t);
}

/* Each turn is a whole quantum: at 1 kB/s two in three seconds, not a few bytes every 2 ms. */
static void a_turn_is_never_for_a_few_bytes(void **state)
{
    struct table *t = table_new();

    (void)state;
    rate_detach_tcp(&t->flow[SLOW]);
    told.released = 1;
    run_ms(t, 3000);
    assert_int_equal(told.released - 1, 2 * SLOW);
    table_free(t);
}

static void a_larger_part_is_used_at_once(void **state)
{
    struct table *t = table_new();
    struct rate_line *line = &t->source[0].meter->line[RATE_UP];
    uint64_t used = line->bucket.used;

    (void)state;
    rate_line_set_rate(&t->f, line, FAST_RATE);
    run_ms(t, 20);
    assert_true(line->bucket.used > used);
    table_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_cannot_be_served_yet_is_not_looked_at),
        cmocka_unit_test(a_turn_is_never_for_a_few_bytes),
        cmocka_unit_test(a_larger_part_is_used_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
