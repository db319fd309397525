/* test_deal.c - faces src/app/gateway_deal.c: who asks for more of a limit is heard, whatever the rounds are at. The loops are turned by
 * hand, so each message comes when the test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "../../src/app/gateway_impl.h"
#include "../../src/app/worker_impl.h"
#include "../../src/forward/forward_impl.h"

enum { WORKERS = 2, WHOLE = 100, PATIENCE_US = 5000000 };

struct table { /* a main thread and its workers, which have no stack */
    struct gateway g;
    struct worker worker[WORKERS];
    struct config *config;
};

static void setup(struct table *t)
{
    static const char text[] = "rules: ['MATCH,REJECT']\n";
    struct config_messages m = { 0 };
    struct forward_options options = { .max_tcp = WHOLE, .max_udp = WHOLE };
    struct forward_policy_setup ps = { .options = &options, .workers = WORKERS };

    *t = (struct table){ .g.worker_count = WORKERS };
    assert_int_equal(config_load_text(text, strlen(text), "deal.yaml", &t->config, &m), 0);
    config_messages_free(&m);
    ps.rules = t->config->rules;
    assert_int_equal(loop_new(&t->g.setup.loop), 0);
    assert_int_equal(forward_policy_new(&ps, &t->g.policy), 0);
    assert_int_equal(gateway_deal_open(&t->g), 0);
    for (uint32_t i = 0; i < WORKERS; i++) {
        struct worker *w = t->g.workers[i] = &t->worker[i];
        struct forward_setup fs = { .policy = t->g.policy, .worker = i };

        assert_int_equal(loop_new(&w->loop), 0);
        fs.loop = w->loop;
        assert_int_equal(forward_new(&fs, &w->forward), 0);
        forward_attach_shares(w->forward, gateway_deal_wanted, t->g.deal);
        w->stack = (void *)w; /* it is there: no more is asked of it */
    }
}

static void teardown(struct table *t)
{
    gateway_deal_close(&t->g);
    for (uint32_t i = 0; i < WORKERS; i++) {
        t->worker[i].stack = NULL;
        loop_free(t->worker[i].loop);
        forward_free(t->worker[i].forward);
    }
    loop_free(t->g.setup.loop);
    forward_policy_unref(t->g.policy);
    config_free(t->config);
}

struct stopper {
    struct loop_msg msg;
    struct loop *l;
};

static void on_stop(struct loop_msg *m)
{
    loop_stop(CONTAINER_OF(m, struct stopper, msg)->l);
}

static void turn(struct loop *l) /* what was posted before runs as well */
{
    struct stopper s = { { NULL, on_stop }, l };

    loop_post(l, &s.msg);
    loop_run(l);
}

/* The main thread and one worker, until that was asked. */
static void until_asked(struct table *t, struct worker *w)
{
    uint64_t end_us = clock_now_us() + PATIENCE_US;

    while (w->forward->wants && clock_now_us() < end_us) {
        turn(t->g.setup.loop);
        turn(w->loop);
    }
    assert_false(w->forward->wants);
}

static void meet_limit(struct worker *w)
{
    w->forward->tcp_part.met = true;
    share_want(w->forward);
}

static void until_dealt(struct table *t, const struct worker *w)
{
    uint64_t end_us = clock_now_us() + PATIENCE_US;

    while (w->forward->tcp_part.part <= WHOLE / WORKERS && clock_now_us() < end_us) {
        turn(t->g.setup.loop);
        for (uint32_t i = 0; i < WORKERS; i++)
            turn(t->worker[i].loop);
    }
    assert_true(w->forward->tcp_part.part > WHOLE / WORKERS);
}

static void a_worker_that_meets_its_part_gets_more(void **state)
{
    struct table t;

    (void)state;
    setup(&t);
    meet_limit(&t.worker[0]);
    until_dealt(&t, &t.worker[0]);
    teardown(&t);
}

static void who_rings_after_it_was_asked_is_asked_again(void **state)
{
    struct table t;

    (void)state;
    setup(&t);
    share_want(t.worker[0].forward); /* of what is over when the question comes */
    until_asked(&t, &t.worker[0]);
    meet_limit(&t.worker[0]);
    turn(t.g.setup.loop); /* the round waits for the other worker, and finds nothing to deal */
    until_dealt(&t, &t.worker[0]);
    teardown(&t);
}

static void a_round_may_be_under_way_at_the_end(void **state)
{
    struct table t;

    (void)state;
    setup(&t);
    meet_limit(&t.worker[0]);
    until_asked(&t, &t.worker[0]);
    teardown(&t); /* the other worker's part is freed by who comes last: leaks would be told */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_that_meets_its_part_gets_more),
        cmocka_unit_test(who_rings_after_it_was_asked_is_asked_again),
        cmocka_unit_test(a_round_may_be_under_way_at_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
