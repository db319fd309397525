/* test_tcp_idle.c - faces src/stack/tcp_conn.c, tcp_table.c and tcp_timer.c: 100,000 connections in one process, and what each costs. The
 * upstream is mocked: every request is accepted. Nothing is timed: operations and bytes are counted (tcp-stack.md section 10). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "forward/forward_impl.h"
#include "lab.h"
#include "stack/tcp_impl.h"
#include "upstream/upstream_impl.h"

#define MANY       100000u
#define PER_CLIENT 50000u
#define SAMPLE     100u
#define MESSAGE    1024u

struct many {
    struct lab *lab;
    char client[IP_TEXT_MAX];
    uint16_t port;
};

/* What was done since the last look. */
struct work {
    uint64_t wheel, probes, lookups, gets;
};

static uint64_t gets_of(const struct stack *s)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < s->pool_count; i++)
        sum += s->pools[i]->fail_count;
    return sum;
}

static struct work work_of(const struct lab *lab)
{
    return (struct work){ lab->stack->wheel.operations, lab->stack->tcp->probes, lab->stack->tcp->lookups,
                          gets_of(lab->stack) };
}

static struct work work_since(const struct lab *lab, const struct work *then)
{
    struct work now = work_of(lab);

    return (struct work){ now.wheel - then->wheel, now.probes - then->probes, now.lookups - then->lookups,
                          now.gets - then->gets };
}

static struct many many_new(void)
{
    struct lab_options o;
    struct many m = { 0 };

    lab_options_default(&o);
    stack_config_defaults(&o.config);
    o.config.max_tcp = 131072;
    o.config.keepalive_idle_ms = 300000;
    o.config.offload_csum = o.config.offload_tso = true;
    m.lab = lab_new(&o);
    for (size_t i = 0; i < m.lab->stack->pool_count; i++)
        m.lab->stack->pools[i]->fail_every = UINT32_MAX; /* counts, and never comes round */
    return m;
}

/* Open number @i and let it carry a message each way. */
static void open_one(struct many *m, uint32_t i)
{
    struct lab *lab = m->lab;

    snprintf(m->client, sizeof(m->client), "10.0.1.%u", 1 + i / PER_CLIENT);
    lab->opt.client = m->client;
    m->port = (uint16_t)(10000 + i % PER_CLIENT);
    lab->got = lab->put = lab->to_put = 0;
    lab->eof = false;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = m->port });
    lab->now_us += 100;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .port = m->port });
    lab_send(lab, &(struct lab_seg){
                      .flags = LAB_ACK | LAB_PSH, .seq = 1, .ack = 1, .len = MESSAGE, .port = m->port });
    lab_write(lab, MESSAGE);
    lab->now_us += 100;
    lab_send(lab,
             &(struct lab_seg){ .flags = LAB_ACK, .seq = 1 + MESSAGE, .ack = 1 + MESSAGE, .port = m->port });
    lab_clear(lab);
}

static void close_one(struct many *m)
{
    struct lab *lab = m->lab;

    lab->shutdown_at_eof = true;
    lab_send(lab, &(struct lab_seg){
                      .flags = LAB_ACK | LAB_FIN, .seq = 1 + MESSAGE, .ack = 1 + MESSAGE, .port = m->port });
    lab_send(lab,
             &(struct lab_seg){ .flags = LAB_ACK, .seq = 2 + MESSAGE, .ack = 2 + MESSAGE, .port = m->port });
    lab_clear(lab);
}

static void count_given_back(void *arg, void *start, size_t len)
{
    (void)start;
    *(size_t *)arg += len;
}

/* ---- idle ----------------------------------------------------------------------------------------------------------- */

static void nothing_but_connections_is_held(const struct lab *lab, uint32_t conns)
{
    static const char *const empty[] = { "chunk2", "chunk16",  "flight",   "segment",
                                         "piece",  "interval", "recovery", "syn" };

    for (size_t i = 0; i < ARRAY_LEN(empty); i++) {
        uint32_t n = lab_in_use(lab, empty[i]);

        if (n != 0)
            print_error("%u of %s\n", n, empty[i]); /* UINT32_MAX: there is no such pool */
        assert_int_equal(n, 0);
    }
    assert_true(lab_in_use(lab, "chunk64") <= 1); /* the one to receive into is the shard's */
    assert_int_equal(lab_in_use(lab, "slot"), 0); /* what is read into, and its spare, do not count */
    assert_int_equal(stack_tcp_count(lab->stack), conns);
}

static void one_costs_as_much_as_the_hundred_thousandth(void **state)
/* MEM-1, PERF-9, PERF-11; tcp-stack.md section 10 */
{
    struct many m = many_new();
    struct lab *lab = m.lab;
    struct work first = { 0 }, then;
    const struct tcp_shard *t = lab->stack->tcp;

    (void)state;
    for (uint32_t n = SAMPLE, i = 0; n <= MANY; n *= 10) {
        struct work w;

        while (i < n - SAMPLE)
            open_one(&m, i++);
        lab_run_us(lab, 100000); /* delayed ACKs leave */
        then = work_of(lab);
        while (i < n)
            open_one(&m, i++);
        w = work_since(lab, &then);
        lab_run_us(lab, 100000);
        if (n == SAMPLE)
            first = w;
        if (w.wheel > first.wheel + SAMPLE / 10 || w.gets > first.gets || w.probes > 2 * w.lookups)
            print_error("at %u: %llu wheel operations, %llu gets, %llu probes in %llu lookups\n", n,
                        (unsigned long long)w.wheel, (unsigned long long)w.gets, (unsigned long long)w.probes,
                        (unsigned long long)w.lookups);
        assert_true(w.wheel <= first.wheel + SAMPLE / 10);
        assert_true(w.gets <= first.gets && w.lookups == first.lookups);
        assert_true(w.probes <= 2 * w.lookups);
    }
    assert_false(lab->got_wrong);
    nothing_but_connections_is_held(lab, MANY);
    /* PERF-9, the stack's part: the connection and its place in the table, which is dimensioned for records, too */
    assert_true(t->conns.slab.object_bytes + 4.0 * (t->bucket_mask + 1) / lab->stack->cfg.max_tcp <= 352);
    print_message("an idle connection: %u + %.1f in the stack, %zu in forward, %zu in upstream\n",
                  t->conns.slab.object_bytes, 4.0 * (t->bucket_mask + 1) / lab->stack->cfg.max_tcp,
                  sizeof(struct tcp_flow), sizeof(struct up_stream));
    /* all of it: 512 is the specification's */
    assert_true(t->conns.slab.object_bytes + 4.0 * (t->bucket_mask + 1) / lab->stack->cfg.max_tcp +
                    sizeof(struct tcp_flow) + sizeof(struct up_stream) <=
                512);
    lab_free(lab);
}

static void idle_ones_cost_next_to_nothing_as_time_goes_by(void **state) /* TMR-1, KA-1 */
{
    struct many m = many_new();
    struct lab *lab = m.lab;
    struct work then;

    (void)state;
    for (uint32_t i = 0; i < 1000; i++)
        open_one(&m, i);
    lab_run_us(lab, 1000000);
    then = work_of(lab);
    lab_run_us(lab, 250000000);                            /* less than keep-alive's patience */
    assert_true(work_since(lab, &then).wheel <= 4 * 1000); /* levels of the wheel */
    assert_int_equal(stack_tcp_count(lab->stack), 1000);
    lab_free(lab);
}

/* ---- short ones, half-open ones, and those that are over -------------------------------------------------------------- */

static void a_short_connection_takes_few_objects(void **state) /* PERF-8; PERF-10 */
{
    struct many m = many_new();
    struct lab *lab = m.lab;
    const struct tcp_shard *t = lab->stack->tcp;
    double share =
        4.0 * (t->bucket_mask + 1) / (t->conns.slab.limit + t->requests.slab.limit + t->tws.slab.limit);
    struct work then;

    (void)state;
    open_one(&m, 0);
    close_one(&m);
    then = work_of(lab);
    for (uint32_t i = 1; i <= SAMPLE; i++) {
        open_one(&m, i);
        close_one(&m);
    }
    then = work_since(lab, &then);
    print_message("a short connection: %.2f objects taken and put back\n", (double)then.gets / SAMPLE);
    assert_true(2 * then.gets <= 16 * SAMPLE);
    assert_int_equal(stack_tcp_count(lab->stack), 0);
    assert_true(t->requests.slab.object_bytes + share <= 128);
    assert_true(t->tws.slab.object_bytes + share <= 96);
    lab_run_us(lab, 200000000); /* TIME-WAIT is over */
    nothing_but_connections_is_held(lab, 0);
    lab_free(lab);
}

static void memory_of_the_closed_is_given_back(void **state) /* PERF-9 */
{
    struct many m = many_new();
    struct lab *lab = m.lab;
    size_t given = 0;

    (void)state;
    for (uint32_t i = 0; i < 20000; i++)
        open_one(&m, i);
    for (uint32_t i = 0; i < 20000; i++) {
        m.port = (uint16_t)(10000 + i);
        lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 1 + MESSAGE, .port = m.port });
    }
    assert_int_equal(stack_tcp_count(lab->stack), 0);
    for (int i = 0; i < 4; i++)
        stack_trim(lab->stack, count_given_back, &given);
    assert_true(given >= 20000 * sizeof(struct tcp_conn) / 10 * 9);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_costs_as_much_as_the_hundred_thousandth),
        cmocka_unit_test(idle_ones_cost_next_to_nothing_as_time_goes_by),
        cmocka_unit_test(a_short_connection_takes_few_objects),
        cmocka_unit_test(memory_of_the_closed_is_given_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
