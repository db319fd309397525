/* test_tcp_shares.c - faces src/stack/tcp_batch.c, tcp_cc.c, tcp_loss.c, tcp_timer.c: how much a connection may take, of the rate, of a turn,
 * and of work that is counted (tcp-stack.md BAT-3, CC-1, REC-4, TMR-2, section 10). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "lab_script.h"
#include "stack/tcp_impl.h"

#define MSS 1448u

static struct lab *open_lab(void (*change)(struct lab_options *o))
{
    struct lab_options o;
    struct lab *lab;

    lab_options_default(&o);
    o.ws = 10;
    if (change != NULL)
        change(&o);
    lab = lab_new(&o);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    lab->now_us += 10000;
    lab_ack(lab, 1, 1);
    lab_clear(lab);
    return lab;
}

static uint32_t next_ack(const struct lab *lab)
{
    struct tcp_info info = lab_info(lab);

    return (uint32_t)(info.bytes_down + info.unacked + 1);
}

/* ---- rate ------------------------------------------------------------------------------------------------ */

static void newreno(struct lab_options *o)
{
    o->config.congestion = TCP_CC_NEWRENO;
}

/* A flight of 40 segments meets one loss: ssthresh as a percentage of the flight. */
static uint32_t percent_after_a_loss(void (*change)(struct lab_options *o))
{
    struct lab *lab = open_lab(change);
    uint32_t flight, una, percent;

    lab_write(lab, 400 * MSS);
    while (lab_info(lab).unacked < 40 * MSS) {
        lab->now_us += 10000;
        lab_ack(lab, 1, next_ack(lab));
    }
    flight = lab_info(lab).unacked;
    una = next_ack(lab) - flight;
    lab->now_us += 10000;
    lab_sack(lab, una, una + MSS, una + flight);
    lab_run_us(lab, 20000);
    percent = (uint32_t)(lab_info(lab).ssthresh_bytes * 100ull / flight);
    lab_free(lab);
    return percent;
}

static void cubic_keeps_seven_tenths_and_newreno_a_half(
    void **state) /* tcp-stack.md CC-1; RFC 9438 section 4.6, RFC 5681 section 3.1 */
{
    (void)state;
    assert_in_range(percent_after_a_loss(NULL), 68, 71);
    assert_in_range(percent_after_a_loss(newreno), 48, 51);
    assert_true(sizeof(struct tcp_cc_state) <= 40);
}

static void the_first_two_duplicates_let_new_segments_out(void **state) /* tcp-stack.md REC-4; RFC 3042 */
{
    struct lab *lab = open_lab(lab_no_sack);

    (void)state;
    lab_write(lab, 100 * MSS);
    assert_int_equal(lab_info(lab).unacked, 10 * MSS);
    for (uint32_t i = 0; i < 2; i++) {
        lab_clear(lab);
        lab->now_us += 1000;
        lab_ack(lab, 1, 1);
        assert_int_equal(lab_payload_out(lab), MSS);
        assert_int_equal(lab->out[0].seq, 1 + (10 + i) * MSS);
    }
    assert_int_equal(stack_counters(lab->stack)->tcp_rexmit_fast, 0);
    lab_free(lab);
}

/* One of 40 is lost; the others are reported one by one. What leaves meanwhile follows what arrives, at seven tenths. */
static void recovery_sends_in_proportion_to_what_arrives(
    void **state) /* tcp-stack.md REC-4; RFC 9937 section 6 */
{
    struct lab *lab = open_lab(NULL);
    uint32_t una, flight, reports;
    uint64_t sent;

    (void)state;
    lab_write(lab, 400 * MSS);
    while (lab_info(lab).unacked < 40 * MSS) {
        lab->now_us += 10000;
        lab_ack(lab, 1, next_ack(lab));
    }
    flight = lab_info(lab).unacked;
    una = next_ack(lab) - flight;
    reports = flight / MSS - 1;
    lab->now_us += 10000;
    lab_clear(lab);
    for (uint32_t i = 1; i <= reports; i++) {
        lab_sack(lab, una, una + MSS, una + (i + 1) * MSS);
        lab->now_us += 200;
        assert_true(lab_payload_out(lab) <=
                    (uint64_t)(i + 1) * MSS); /* never more than has arrived, and the first again */
    }
    sent = lab_payload_out(lab);
    assert_in_range(sent, (uint64_t)flight * 6 / 10, (uint64_t)flight * 8 / 10);
    assert_string_equal(lab_info(lab).cc_state, "recovery");
    lab->now_us += 10000;
    lab_ack(lab, 1, next_ack(lab));
    assert_string_equal(lab_info(lab).cc_state, "open");
    assert_in_range(lab_info(lab).cwnd_bytes, lab_info(lab).ssthresh_bytes,
                    lab_info(lab).ssthresh_bytes + 2 * MSS);
    lab_free(lab);
}

static void on_one_hop_packets_are_large(
    void **state) /* tcp-stack.md CC-4: at 100 us, 40 segments a packet on average */
{
    struct lab_options o;
    struct lab *lab;
    size_t packets = 0;
    uint64_t bytes = 0;

    (void)state;
    lab_options_default(&o);
    o.ws = 10;
    lab = lab_new(&o);
    lab->keep_payload = false;
    lab_connect(lab);
    lab_write(lab, 16u << 20);
    while (lab_info(lab).unacked > 0) {
        for (size_t i = 0; i < lab->outs; i++) {
            packets += lab->out[i].len > 0;
            bytes += lab->out[i].len;
        }
        lab->outs = 0;
        lab->now_us += 100;
        lab_ack(lab, 1, next_ack(lab));
    }
    assert_true(bytes / packets >= 40 * MSS);
    lab_free(lab);
}

/* ---- turns ------------------------------------------------------------------------------------------------ */

static void queue_for(struct tcp_conn *c, size_t bytes)
{
    uint8_t *space;
    size_t room;

    while (bytes > 0 && (room = tcp_tx_space(c, &space)) > 0) {
        size_t n = bytes < room ? bytes : room;

        memset(space, 0, n);
        tcp_tx_commit(c, n);
        bytes -= n;
    }
}

static void wide(struct lab_options *o)
{
    o->config.snd_buffer_initial = 2u << 20;
}

/* Both have 1 MiB to send and a window for it: they take turns of four large packets. */
static void connections_take_turns_of_four_large_packets(void **state) /* tcp-stack.md BAT-3 */
{
    struct lab *lab = open_lab(wide);
    struct tcp_conn *first = lab->conn, *second;
    uint32_t run = 0, longest = 0, iss = lab->iss, other_iss;
    uint16_t last = 0;

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 41000 });
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .port = 41000 });
    second = lab->conn;
    other_iss = lab->iss;
    assert_ptr_not_equal(first, second);
    first->cwnd = second->cwnd = 2u << 20; /* as after a long transfer */
    first->srtt_us = second->srtt_us = 100;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .zero_wnd = true, .port = 41000 });
    lab->iss = iss; /* the laboratory knows one at a time */
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .zero_wnd = true });
    queue_for(first, 1u << 20);
    queue_for(second, 1u << 20);
    lab_batch(lab);
    lab_clear(lab);
    lab_feed(lab, &(struct lab_seg){
                      .flags = LAB_ACK, .seq = 1, .ack = 1 }); /* a window of 64 MiB for both at once */
    lab->iss = other_iss;
    lab_feed(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .port = 41000 });
    lab_batch(lab);
    assert_true(lab->outs >= 4); /* what is unsent is 128 KiB each, so a turn may take all of it */
    for (size_t i = 0; i < lab->outs; i++) {
        run = lab->out[i].port == last ? run + 1 : 1;
        last = lab->out[i].port;
        longest = run > longest ? run : longest;
    }
    assert_true(lab->out[0].port != last);
    assert_in_range(longest, 1, 5); /* 4 x 64 KiB, in packets that are a little smaller */
    lab_free(lab);
}

/* ---- counted work ----------------------------------------------------------------------------------------- */

static void a_deadline_that_moves_away_moves_no_timer(void **state) /* tcp-stack.md TMR-2, TMR-3, PERF-6 */
{
    struct lab *lab = open_lab(NULL);
    uint64_t operations, node;

    (void)state;
    lab_write(lab, 400 * MSS);
    lab->now_us += 10000; /* round trips grow from here on, and so do the deadlines */
    operations = stack_wheel(lab->stack)->operations;
    node = lab->conn->timer.deadline_us;
    for (int i = 0; i < 8; i++) { /* each ACK starts the retransmission timer anew */
        uint32_t before = lab->conn->rexmit_at;

        lab->now_us += 1000;
        lab_ack(lab, 1, 1 + (uint32_t)(i + 1) * MSS);
        assert_true((int32_t)(lab->conn->rexmit_at - before) >= 0);
        assert_int_equal(lab->conn->timer.deadline_us, node);
    }
    assert_int_equal(stack_wheel(lab->stack)->operations, operations);
    lab_free(lab);
}

static void one_ack_at_most_for_a_super_segment(void **state) /* tcp-stack.md ACK-2, PERF-3 */
{
    struct lab *lab = open_lab(NULL);
    const struct stack_counters *c = stack_counters(lab->stack);
    uint64_t summed = c->payload_summed;
    uint32_t at = 1;

    (void)state;
    for (int i = 0; i < 500; i++) {
        for (int k = 0; k < 1 + i % 3; k++, at += 40 * MSS)
            lab_feed(lab, &(struct lab_seg){
                              .flags = LAB_ACK, .seq = at, .ack = 1, .len = 40 * MSS, .gso_size = MSS });
        lab_batch(lab);
        lab->now_us += 100;
    }
    assert_int_equal(lab->got, at - 1);
    assert_true(c->tcp_pure_acks <= 500);        /* and one a batch, of which each brought up to three */
    assert_int_equal(c->payload_copied, 0);      /* PERF-1 */
    assert_int_equal(c->payload_summed, summed); /* PERF-5: the device has looked at the checksum */
    lab_free(lab);
}

static void bytes_are_summed_once_when_nobody_else_does(void **state) /* tcp-stack.md PERF-5 */
{
    struct lab *lab = open_lab(NULL);
    uint64_t before = stack_counters(lab->stack)->payload_summed;

    (void)state;
    for (uint32_t i = 0; i < 1000; i++)
        lab_data(lab, 1 + i * 1400, 1, 1400);
    assert_int_equal(lab->got, 1400000);
    assert_in_range(stack_counters(lab->stack)->payload_summed - before, 1400000, 1000 * (1400 + 60));
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cubic_keeps_seven_tenths_and_newreno_a_half),
        cmocka_unit_test(the_first_two_duplicates_let_new_segments_out),
        cmocka_unit_test(recovery_sends_in_proportion_to_what_arrives),
        cmocka_unit_test(on_one_hop_packets_are_large),
        cmocka_unit_test(connections_take_turns_of_four_large_packets),
        cmocka_unit_test(a_deadline_that_moves_away_moves_no_timer),
        cmocka_unit_test(one_ack_at_most_for_a_super_segment),
        cmocka_unit_test(bytes_are_summed_once_when_nobody_else_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
