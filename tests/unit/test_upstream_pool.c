/* test_upstream_pool.c - connections that are dialled ahead: taken, replaced, found dead, given up. */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "up_rig.h"
#include "upstream/upstream_impl.h"

#define BYTES(s) s, sizeof(s) - 1
#define REPLY    "\5\0\0\1\177\0\0\1\20\1"
#define REQUEST  "\5\1\0\1\300\0\2\1\0\120"

enum { POOL = 2 };

static const struct plan_step plain[] = { { 3, BYTES("\5\0"), false }, { 10, BYTES(REPLY), false } };
/* Takes the request and says nothing more. */
static const struct plan_step mute[] = { { 3, BYTES("\5\0"), false }, { 10, "", 0, false } };

struct lab {
    struct up_rig rig;
    struct plan_server server;
    struct upstream *up;
    struct up_memory *m;
};

static int setup(void **state)
{
    struct lab *lab = calloc(1, sizeof(*lab));
    struct plan plan = { .steps = plain, .count = 2, .end = PLAN_HANG };
    struct upstream_options o = { .name = "office", .kind = UPSTREAM_SOCKS5, .pool = POOL };

    rig_init(&lab->rig);
    plan_open(&lab->server, &lab->rig, &plan);
    o.server = rig_to("127.0.0.1", lab->server.port);
    assert_int_equal(upstream_new(&o, &lab->up), 0);
    lab->m = env_memory(lab->rig.env, lab->up);
    *state = lab;
    return 0;
}

/* What is pooled goes with the environment: rig_fini() finds no timer left. */
static int teardown(void **state)
{
    struct lab *lab = *state;

    plan_close(&lab->server);
    upstream_unref(lab->up);
    rig_fini(&lab->rig);
    free(lab);
    return 0;
}

static uint32_t ready(const struct lab *lab)
{
    uint32_t n = 0;

    for (const struct pooled *p = lab->m->pool; p; p = p->next)
        n += p->handshake == NULL;
    return n;
}

static bool is_full(void *arg)
{
    return ready(arg) == POOL;
}

static bool is_empty(void *arg)
{
    struct lab *lab = arg;

    return lab->m->pooled == 0;
}

/* One stream, until it is open or has failed. Return: 0 or the error. */
static int open_once(struct lab *lab)
{
    struct host_port to = rig_to("192.0.2.1", 80);
    struct stream_log log;
    int err;

    stream_settle(&lab->rig, &log, lab->up, &to, 5000);
    err = log.opened ? 0 : log.why.err;
    stream_forget(&log);
    return err;
}

static void fill(struct lab *lab)
{
    assert_int_equal(lab->m->pooled, 0); /* not before a flow has worked */
    assert_int_equal(open_once(lab), 0);
    rig_until(&lab->rig, is_full, lab);
}

static void a_flow_finds_its_connection_greeted_and_the_pool_is_filled_again(void **state)
{
    struct lab *lab = *state;
    const struct up_counters *cnt = up_counters(lab->rig.env);
    unsigned accepted;

    fill(lab);
    assert_int_equal(lab->server.accepted, 1 + POOL);
    for (size_t i = 0; i < PLAN_CONNS; i++) /* no target was told to those that wait */
        assert_true(!lab->server.conns[i].active || lab->server.conns[i].total_in <= 3 || i == 0);
    for (int i = 0; i < 5; i++) {
        accepted = lab->server.accepted;
        assert_int_equal(open_once(lab), 0);
        assert_int_equal(cnt->pool_taken, i + 1);
        assert_true(lab->m->pooled <= POOL);
        rig_until(&lab->rig, is_full, lab);
        assert_int_equal(lab->server.accepted, accepted + 1); /* the one that fills the gap */
    }
    assert_int_equal(cnt->pool_opened, POOL + 5);
    assert_int_equal(cnt->pool_dead, 0);
}

static struct memory_use memory_of(const struct lab *lab)
{
    struct memory_use use = { { 0 } };

    up_env_memory(lab->rig.env, &use);
    return use;
}

static void memory_of_ways_out_follows_opens_and_closes(void **state)
{
    struct lab *lab = *state;
    struct memory_use before = memory_of(lab), during, after;

    fill(lab);
    during = memory_of(lab);
    pool_drop_all(lab->m);
    up_env_trim(lab->rig.env);
    up_env_trim(lab->rig.env);
    after = memory_of(lab);
    assert_true(during.bytes[MEMORY_UPSTREAM] >=
                before.bytes[MEMORY_UPSTREAM] + POOL * sizeof(struct pooled));
    assert_int_equal(after.bytes[MEMORY_UPSTREAM], before.bytes[MEMORY_UPSTREAM]);
    assert_int_equal(during.bytes[MEMORY_TLS], 0);
    assert_int_equal(memory_sum(&during), during.bytes[MEMORY_UPSTREAM]);
}

static void one_that_waits_is_only_asked_for_the_target(void **state)
{
    struct host_port to = rig_to("192.0.2.1", 80);
    struct lab *lab = *state;
    struct stream_log log;
    bool asked = false;

    fill(lab);
    stream_settle(&lab->rig, &log, lab->up, &to, 5000);
    for (size_t i = 0; i < PLAN_CONNS; i++) {
        const struct plan_conn *c = &lab->server.conns[i];

        asked |=
            c->active && c->first_in == 3 && c->total_in == 13 && memcmp(c->in, "\5\1\0" REQUEST, 13) == 0;
    }
    assert_true(log.opened && asked);
    assert_int_equal(up_counters(lab->rig.env)->pool_taken, 1);
    stream_forget(&log);
}

static void many_flows_at_once_take_what_is_there_and_dial_the_rest(void **state)
{
    struct host_port to = rig_to("192.0.2.1", 80);
    struct lab *lab = *state;
    struct stream_log logs[4];

    fill(lab);
    for (size_t i = 0; i < ARRAY_LEN(logs); i++)
        stream_start(&lab->rig, &logs[i], lab->up, &to, 5000);
    for (size_t i = 0; i < ARRAY_LEN(logs); i++) {
        rig_until(&lab->rig, stream_is_settled, &logs[i]);
        assert_true(logs[i].opened);
        stream_forget(&logs[i]);
    }
    assert_int_equal(up_counters(lab->rig.env)->pool_taken, POOL);
    rig_until(&lab->rig, is_full, lab);
    assert_int_equal(lab->m->pooled, POOL);
}

static void what_the_server_closes_is_dropped_and_not_dialled_again_without_need(void **state)
{
    struct lab *lab = *state;
    unsigned accepted;

    fill(lab);
    accepted = lab->server.accepted;
    for (size_t i = 0; i < PLAN_CONNS; i++) {
        struct plan_conn *c = &lab->server.conns[i];

        if (c->active)
            shutdown(loop_io_fd(&c->io), SHUT_RDWR);
    }
    rig_until(&lab->rig, is_empty, lab);
    assert_int_equal(up_counters(lab->rig.env)->pool_dead, POOL);
    rig_run_ms(&lab->rig, 30);
    assert_int_equal(lab->server.accepted, accepted);
    assert_int_equal(open_once(lab), 0);
    rig_until(&lab->rig, is_full, lab);
}

static bool accepted_one_more(void *arg)
{
    struct lab *lab = arg;

    return lab->server.accepted > 1 + POOL;
}

static void one_that_dies_at_the_request_costs_a_start_over_and_no_flow(void **state)
{
    struct plan mutes = { .steps = mute, .count = 2, .end = PLAN_CLOSE };
    struct plan good = { .steps = plain, .count = 2, .end = PLAN_HANG };
    struct host_port to = rig_to("192.0.2.1", 80);
    struct lab *lab = *state;
    struct stream_log log;

    fill(lab);
    lab->server.plan = mutes;
    stream_start(&lab->rig, &log, lab->up, &to, 5000);
    rig_until(&lab->rig, accepted_one_more, lab);
    lab->server.plan = good;
    rig_until(&lab->rig, stream_is_settled, &log);
    assert_true(log.opened);
    assert_int_equal(up_counters(lab->rig.env)->started_over, 1);
    assert_int_equal(lab->m->health.failures, 0);
    stream_forget(&log);
}

static void an_old_one_is_replaced_while_flows_come_and_only_then(void **state)
{
    struct lab *lab = *state;
    uint64_t now_us;

    fill(lab);
    now_us = loop_now_us(lab->rig.loop);
    assert_true(lab->m->pool->timer.deadline_us > now_us + 10 * SECOND_US);
    for (struct pooled *p = lab->m->pool; p; p = p->next)
        wheel_set(&lab->rig.wheel, &p->timer, now_us);
    rig_run_ms(&lab->rig, 10);
    rig_until(&lab->rig, is_full, lab);
    assert_int_equal(up_counters(lab->rig.env)->pool_expired, POOL);
    lab->m->pool_wanted_us = loop_now_us(lab->rig.loop) - 61 * SECOND_US;
    for (struct pooled *p = lab->m->pool; p; p = p->next)
        wheel_set(&lab->rig.wheel, &p->timer, now_us);
    rig_until(&lab->rig, is_empty, lab);
    rig_run_ms(&lab->rig, 30);
    assert_int_equal(lab->m->pooled, 0);
    assert_int_equal(lab->m->users, 0); /* a reload may forget it */
}

static void a_server_that_fails_is_not_dialled_for_nothing(void **state)
{
    struct plan closes = { .steps = NULL, .count = 0, .end = PLAN_CLOSE };
    struct lab *lab = *state;
    unsigned accepted;

    lab->server.plan = closes;
    assert_int_equal(open_once(lab), -EHOSTUNREACH);
    accepted = lab->server.accepted;
    rig_run_ms(&lab->rig, 30);
    assert_int_equal(lab->server.accepted, accepted);
    assert_int_equal(lab->m->pooled, 0);
}

static void a_new_uplink_empties_the_pool(void **state)
{
    struct lab *lab = *state;

    fill(lab);
    up_env_set_rules(lab->rig.env, &lab->rig.rules);
    assert_int_equal(lab->m->pooled, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    static const struct CMUnitTest tests[] = {
        TEST(a_flow_finds_its_connection_greeted_and_the_pool_is_filled_again),
        TEST(memory_of_ways_out_follows_opens_and_closes),
        TEST(one_that_waits_is_only_asked_for_the_target),
        TEST(many_flows_at_once_take_what_is_there_and_dial_the_rest),
        TEST(what_the_server_closes_is_dropped_and_not_dialled_again_without_need),
        TEST(one_that_dies_at_the_request_costs_a_start_over_and_no_flow),
        TEST(an_old_one_is_replaced_while_flows_come_and_only_then),
        TEST(a_server_that_fails_is_not_dialled_for_nothing),
        TEST(a_new_uplink_empties_the_pool),
    };
    return run_unless(netns_enter(), tests);
}
