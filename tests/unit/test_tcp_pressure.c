/* test_tcp_pressure.c - faces src/stack/tcp_pressure.c: what gives way when memory runs short
 * (tcp-stack.md LIM-1, LIM-2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "lab.h"
#include "stack/tcp_impl.h"

#define STALLED 1000
#define HEALTHY 10
#define PART    28960u /* 20 segments of 1,448 */
#define MSS     1448u

struct flow {
    uint16_t port;
    uint32_t iss, seq; /* seq: the client's next byte */
    struct tcp_conn *conn;
    bool reset;
    uint64_t sent, taken;
};

struct crowd {
    struct flow stalled[STALLED], healthy[HEALTHY];
    size_t most; /* memory in use, at its highest */
    unsigned resets;
};

static struct flow *flow_of(struct crowd *w, uint16_t port)
{
    return port >= 20000 ? &w->healthy[port - 20000] : &w->stalled[port - 1000];
}

/* The client's view: what is acknowledged need not be sent again, and a reset is a reset. */
static void watch(struct lab *lab, const struct lab_out *o)
{
    struct crowd *w = lab->hook_arg;
    struct flow *f = flow_of(w, o->port);

    if (o->flags & LAB_RST) {
        f->reset = true;
        w->resets++;
    } else if (!(o->flags & LAB_SYN) && (int32_t)(o->ack - f->seq) > 0) {
        f->seq = o->ack;
    }
}

static void open_flow(struct lab *lab, struct flow *f, uint16_t port)
{
    f->port = port;
    f->seq = 1;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = port });
    f->iss = lab->iss;
    f->conn = lab->conn;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .port = port });
}

static void send_part(struct lab *lab, struct flow *f, uint32_t len)
{
    lab->iss = f->iss;
    lab_send(lab,
             &(struct lab_seg){
                 .flags = LAB_ACK, .seq = f->seq, .ack = 1, .port = f->port, .len = len, .gso_size = MSS });
}

static void note_memory(struct lab *lab, struct crowd *w)
{
    if (lab->stack->block_bytes > w->most)
        w->most = lab->stack->block_bytes;
}

/* Whoever reads for it takes all at once. */
static void healthy_turn(struct lab *lab, struct flow *f)
{
    size_t n;

    assert_false(f->reset);
    send_part(lab, f, PART);
    f->sent += PART;
    n = tcp_readable_bytes(f->conn);
    tcp_consume(f->conn, n);
    f->taken += n;
    lab_batch(lab);
}

static struct lab *crowd_lab(struct crowd *w)
{
    struct lab_options o;
    struct lab *lab;

    lab_options_default(&o);
    o.ts = false;
    o.stall = true;
    o.config.max_tcp = 2048;
    lab = lab_new(&o);
    lab->keep_payload = false;
    lab->hook = watch;
    lab->hook_arg = w;
    for (uint16_t i = 0; i < STALLED; i++)
        open_flow(lab, &w->stalled[i], (uint16_t)(1000 + i));
    for (uint16_t i = 0; i < HEALTHY; i++)
        open_flow(lab, &w->healthy[i], (uint16_t)(20000 + i));
    return lab;
}

/* LIM-1; faults.md T9, R3. The windows of all together are four times the memory. */
static void stalled_upstreams_leave_memory_to_healthy_flows(void **state)
{
    static struct crowd w;
    struct lab *lab = crowd_lab(&w);
    uint64_t sent = 0, taken = 0;
    size_t cap = lab->opt.config.buffer_cap_bytes;

    (void)state;
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < STALLED; i++) {
            if (!w.stalled[i].reset)
                send_part(lab, &w.stalled[i], PART);
            note_memory(lab, &w);
            lab->now_us += 500;
            if (i % 10 == 0)
                healthy_turn(lab, &w.healthy[i / 10 % HEALTHY]);
        }
    }
    for (int i = 0; i < HEALTHY; i++) {
        sent += w.healthy[i].sent;
        taken += w.healthy[i].taken;
    }
    print_message("memory at most %zu of %zu, %u resets, %llu of %llu bytes\n", w.most, cap, w.resets,
                  (unsigned long long)taken, (unsigned long long)sent);
    assert_true(w.most <= cap);
    assert_true(taken * 10 > sent * 9);
    assert_true(lab->stack->block_bytes <= cap / 100 * 95 + 65536);
    assert_true(w.resets > 0 && w.resets < STALLED);
    assert_int_equal(stack_counters(lab->stack)->tcp_pressure_aborted, w.resets);
    lab_free(lab);
}

/* LIM-1: at 80 % the budget of a connection whose data waits shrinks; what it was told it may send stays. */
static void an_edge_that_was_told_never_moves_back(void **state)
{
    struct lab *lab = lab_stalled();
    uint32_t edge;

    (void)state;
    lab_data(lab, 1, 1, 40000);
    edge = lab->conn->rcv_adv;
    lab->stack->block_bytes += lab->opt.config.buffer_cap_bytes / 100 * 85;
    for (uint32_t seq = 40001; seq < 200000; seq += 20000) {
        lab_data(lab, seq, 1, 20000);
        assert_true((int32_t)(lab->conn->rcv_adv - edge) >= 0);
        edge = lab->conn->rcv_adv;
    }
    assert_int_equal(lab->conn->rcv_budget, BUDGET_PRESSED);
    assert_int_equal(lab->conn->rcv_held, 200000);
    lab->stack->block_bytes -= lab->opt.config.buffer_cap_bytes / 100 * 85;
    lab_read(lab, SIZE_MAX);
    assert_int_equal(lab->got, 200000);
    assert_false(lab->got_wrong);
    lab_free(lab);
}

/* LIM-1: a counter for each step, and nobody who moves is ended. */
static void at_95_percent_new_connections_wait_and_the_largest_stalled_one_ends(void **state)
{
    struct lab_options o;
    struct tcp_conn *small, *large;
    struct lab *lab;
    size_t pretended;

    (void)state;
    lab_options_default(&o);
    o.stall = true;
    o.ts = false;
    lab = lab_new(&o);
    pretended = o.config.buffer_cap_bytes / 100 * 95;
    lab_connect(lab);
    small = lab->conn;
    lab_data(lab, 1, 1, 10000);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 7 });
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .port = 7, .seq = 1, .ack = 1 });
    large = lab->conn;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .port = 7, .seq = 1, .ack = 1, .len = 50000 });
    lab->stack->block_bytes += pretended;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 8 });
    assert_int_equal(lab->requests, 2);
    assert_int_equal(stack_counters(lab->stack)->tcp_pressure_refused, 1);
    assert_int_equal(lab->closes, 0);
    lab->now_us += 1100000;
    tcp_consume(small, 100);
    lab_clear(lab);
    lab_batch(lab);
    assert_int_equal(lab->closes, 1);
    assert_int_equal(lab->close_err, -ECONNABORTED);
    assert_int_equal(lab_count(lab, "RST,ACK"), 1);
    assert_int_equal(lab->out[0].port, 7);
    assert_int_equal(stack_counters(lab->stack)->tcp_pressure_aborted, 1);
    lab->now_us += 500000;
    lab_batch(lab); /* the small one has moved within the second */
    assert_int_equal(lab->closes, 1);
    lab->stack->block_bytes -= pretended;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 8 });
    assert_int_equal(lab->requests, 3);
    (void)large;
    lab_free(lab);
}

/* LIM-1; faults.md T9: a client whose window is closed for ever, although it answers to probes. */
static void a_closed_window_is_a_stall(void **state)
{
    struct lab_options o;
    struct lab *lab;
    size_t pretended;

    (void)state;
    lab_options_default(&o);
    lab = lab_new(&o);
    pretended = o.config.buffer_cap_bytes / 100 * 95;
    lab_connect(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .zero_wnd = true });
    lab_write(lab, 100000);
    for (int i = 0; i < 10; i++) {
        lab_run_us(lab, 1000000);
        lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .zero_wnd = true });
    }
    assert_int_equal(lab->closes, 0);
    lab->stack->block_bytes += pretended;
    lab_batch(lab);
    assert_int_equal(lab->closes, 1);
    lab->stack->block_bytes -= pretended;
    lab_free(lab);
}

/* faults.md T10: what is read from upstream for a slow client is bounded, and less when memory is short. */
static void a_send_buffer_shrinks_under_pressure(void **state)
{
    struct lab_options o;
    struct lab *lab;
    uint32_t calm;

    (void)state;
    lab_options_default(&o);
    lab = lab_connected(&o);
    calm = tcp_send_limit(lab->conn);
    assert_true(calm >= o.config.snd_buffer_initial);
    lab->stack->block_bytes += o.config.buffer_cap_bytes / 100 * 85;
    assert_int_equal(tcp_send_limit(lab->conn), o.config.snd_buffer_initial / 4);
    lab->stack->block_bytes -= o.config.buffer_cap_bytes / 100 * 85;
    assert_int_equal(tcp_send_limit(lab->conn), calm);
    lab_free(lab);
}

/* What the client was sent is what was written, up to where it has all of it. */
static uint32_t client_has(const struct lab *lab, uint32_t end)
{
    for (size_t i = 0; i < lab->outs; i++) {
        const struct lab_out *o = &lab->out[i];

        for (uint32_t k = 0; k < o->len; k++)
            assert_int_equal(o->data[k], lab_pattern(o->seq - 1 + k));
        if (o->seq <= end && o->seq + o->len > end)
            end = o->seq + o->len;
    }
    return end;
}

/* LIM-1: from 80 % on, what a client does not take leaves its large chunk, on its way or not. Then the client comes back: parts of packets
 * that it has and has not, and the rest, are sent from where the bytes are now. */
static void what_is_not_taken_moves_to_small_chunks_and_arrives_as_it_was(void **state)
{
    static const uint32_t taken[] = { 0, 1, 1448, 5000 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(taken); i++) {
        struct lab_options o;
        uint32_t large, end = 1 + taken[i];
        struct lab *lab;
        size_t pretended;

        lab_options_default(&o);
        o.ts = false;
        o.sack = true;
        lab = lab_connected(&o);
        pretended = o.config.buffer_cap_bytes / 100 * 85;
        lab_write(lab, 40000);
        assert_true(client_has(lab, 1) < 40001); /* some of it has not left */
        if (taken[i] > 0)
            lab_ack(lab, 1, end);
        large = lab_in_use(lab, "chunk64");
        lab->stack->block_bytes += pretended;
        lab->now_us += 250000;
        lab_batch(lab);
        assert_int_equal(lab_in_use(lab, "chunk64"), large - 1);
        assert_true(lab_in_use(lab, "chunk16") >= 2);
        lab->stack->block_bytes -= pretended;
        lab_clear(lab);
        lab_send(lab, &(struct lab_seg){
                          .flags = LAB_ACK, .seq = 1, .ack = end, .sacks = 1, .sack = { { 7241, 8689 } } });
        for (int turn = 0; end < 40001 && turn < 60; turn++) {
            lab_run_us(lab, 500000);
            end = client_has(lab, end);
            lab_clear(lab);
            lab_ack(lab, 1, end);
        }
        assert_int_equal(end, 40001);
        assert_int_equal(lab_in_use(lab, "chunk16"), 0);
        lab_free(lab);
    }
}

/* LIM-2, CLS-4: orphans count against the limit, and make room when it is reached. */
static void the_oldest_orphan_makes_room_for_a_new_connection(void **state)
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    o.ts = false;
    o.config.max_tcp = 3;
    lab = lab_new(&o);
    for (uint16_t port = 1; port <= 3; port++) {
        lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = port });
        lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .port = port, .seq = 1, .ack = 1 });
        lab->now_us += 1000;
        if (port < 3) {
            tcp_release(lab->conn);
            lab_batch(lab);
            lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .port = port, .seq = 1, .ack = 2 });
        }
    }
    assert_int_equal(stack_tcp_count(lab->stack), 3);
    lab_clear(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 4 });
    assert_int_equal(lab_count(lab, "RST,ACK"), 1);
    assert_int_equal(lab->out[0].port, 1);
    assert_int_equal(lab_count(lab, "SYN,ACK"), 1);
    assert_int_equal(stack_counters(lab->stack)->tcp_orphan_ended, 1);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 5 });
    lab_clear(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 6 }); /* nobody is left to go */
    assert_int_equal(lab->outs, 0);
    assert_int_equal(stack_counters(lab->stack)->tcp_orphan_ended, 2);
    tcp_request_reject(lab->request, REJECT_SILENT);
    lab_free(lab);
}

static void orphan(struct lab *lab, uint16_t port)
{
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = port });
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .port = port, .seq = 1, .ack = 1 });
    tcp_release(lab->conn);
    lab_batch(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .port = port, .seq = 1, .ack = 2 });
    lab->now_us += 1000;
    lab_clear(lab);
}

/* A walk through a table with 60,000 connections was measured at 3.3 ms: one for each SYN would be all that a worker does. */
static void a_crowd_at_a_large_limit_walks_through_the_table_once_for_many(void **state) /* LIM-2 */
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    o.ts = false;
    o.config.max_tcp = 1024;
    lab = lab_new(&o);
    for (uint16_t port = 1; port <= 1024; port++)
        orphan(lab, port);
    for (uint16_t port = 2000; port < 2006; port++)
        lab_feed(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = port });
    assert_int_equal(stack_counters(lab->stack)->tcp_orphan_ended,
                     8); /* four for four of these, four for the rest */
    lab_batch(lab);
    assert_int_equal(stack_tcp_count(lab->stack), 1024 - 8 + 6);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 2006 });
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 2007 });
    assert_int_equal(stack_counters(lab->stack)->tcp_orphan_ended, 8);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 2008 });
    assert_int_equal(stack_counters(lab->stack)->tcp_orphan_ended, 12);
    lab_free(lab);
}

/* Memory is out at the moment when one that was silent for a minute speaks, and one writes to its client: neither stands still. Only a
 * second later the one whose bytes nobody takes does. */
static void who_wakes_up_does_not_stand_still(void **state) /* LIM-1; faults.md R9 */
{
    struct lab *lab = lab_stalled();

    (void)state;
    lab_run_us(lab, 60000000);
    lab->stack->cfg.buffer_cap_bytes = lab->stack->block_bytes;
    lab_data(lab, 1, 1, 1000); /* into the slot that is there in any case */
    assert_int_equal(tcp_readable_bytes(lab->conn), 1000);
    lab->stack->cfg.buffer_cap_bytes = lab->opt.config.buffer_cap_bytes;
    {
        uint8_t *space;

        assert_true(tcp_tx_space(lab->conn, &space) > 0);
        tcp_tx_commit(lab->conn, 100);
    }
    lab->stack->cfg.buffer_cap_bytes = lab->stack->block_bytes;
    lab->now_us += 100000;
    lab_batch(lab);
    assert_int_equal(lab->closes, 0);
    lab_ack(lab, 1001, 101);
    lab_run_us(lab, 800000);
    lab_ack(lab, 1001, 101);
    assert_int_equal(lab->closes, 0);
    lab_run_us(lab, 300000);
    lab_ack(lab, 1001, 101);
    assert_int_equal(lab->closes, 1);
    assert_int_equal(stack_counters(lab->stack)->tcp_pressure_aborted, 1);
    lab_free(lab);
}

/* Now and then it sends what overlaps, and of that a little is new. Nobody takes anything all the same. */
static void an_overlap_is_no_sign_of_life(void **state) /* LIM-1, MEM-2 */
{
    struct lab *lab = lab_stalled();
    uint32_t at = 1001;

    (void)state;
    lab_data(lab, 1, 1, 1000);
    for (int i = 0; i < 8; i++, at += 3) {
        lab_run_us(lab, 300000);
        lab_data(lab, at + 1, 1, 2);
        lab_data(lab, at, 1, 2);
    }
    assert_int_equal(tcp_readable_bytes(lab->conn), at - 1);
    lab->stack->block_bytes += lab->opt.config.buffer_cap_bytes;
    lab_batch(lab);
    assert_int_equal(lab->closes, 1);
    lab->stack->block_bytes -= lab->opt.config.buffer_cap_bytes;
    lab_free(lab);
}

/* LIM-1: of two whose bytes nobody takes, the embedder may not take one's yet. It is given up when there is no other. */
static void who_waits_for_its_turn_is_given_up_last(void **state)
{
    struct tcp_conn *held;
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    o.stall = true;
    o.ts = false;
    lab = lab_new(&o);
    lab_connect(lab);
    held = lab->conn;
    lab_data(lab, 1, 1, 50000);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 7 });
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .port = 7, .seq = 1, .ack = 1 });
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .port = 7, .seq = 1, .ack = 1, .len = 1000 });
    tcp_hold_back(held, true);
    lab->stack->block_bytes += lab->opt.config.buffer_cap_bytes;
    lab->now_us += 2000000;
    lab_clear(lab);
    lab_batch(lab);
    assert_int_equal(lab->closes, 1);
    assert_int_equal(lab->out[0].port, 7); /* the small one */
    tcp_hold_back(held, false);            /* its turn: from now on it can stand still */
    lab->now_us += 500000;
    lab_batch(lab);
    assert_int_equal(lab->closes, 1);
    tcp_hold_back(held, true);
    lab->now_us += 600000;
    lab_batch(lab);
    assert_int_equal(lab->closes, 2);
    lab->stack->block_bytes -= lab->opt.config.buffer_cap_bytes;
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stalled_upstreams_leave_memory_to_healthy_flows),
        cmocka_unit_test(an_edge_that_was_told_never_moves_back),
        cmocka_unit_test(at_95_percent_new_connections_wait_and_the_largest_stalled_one_ends),
        cmocka_unit_test(a_closed_window_is_a_stall),
        cmocka_unit_test(a_send_buffer_shrinks_under_pressure),
        cmocka_unit_test(what_is_not_taken_moves_to_small_chunks_and_arrives_as_it_was),
        cmocka_unit_test(the_oldest_orphan_makes_room_for_a_new_connection),
        cmocka_unit_test(a_crowd_at_a_large_limit_walks_through_the_table_once_for_many),
        cmocka_unit_test(who_wakes_up_does_not_stand_still),
        cmocka_unit_test(an_overlap_is_no_sign_of_life),
        cmocka_unit_test(who_waits_for_its_turn_is_given_up_last),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
