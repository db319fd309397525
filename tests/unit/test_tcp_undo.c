/* test_tcp_undo.c - faces src/stack/tcp_loss.c: reductions that turn out to have been needless
 * (tcp-stack.md RTO-3), and what else measures a path (REC-2, ECN-1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "lab.h"
#include "stack/tcp_impl.h"

#define RTT_US 20000u

/* A flow in full swing: everything sent is acknowledged a round trip later, until cwnd is some 60 segments. */
static struct lab *in_full_swing(bool ts, enum tcp_congestion cc)
{
    struct lab_options o;
    struct lab *lab;

    lab_options_default(&o);
    o.ts = ts;
    o.config.congestion = cc;
    o.config.snd_buffer_initial = 1u << 20;
    lab = lab_new(&o);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    lab->now_us += RTT_US;
    lab_ack(lab, 1, 1);
    lab_write(lab, 40000000);
    while (lab_info(lab).cwnd_bytes < 80000) {
        lab->now_us += RTT_US;
        stack_advance(lab->stack, lab->now_us);
        lab_ack(lab, 1, (uint32_t)(lab_info(lab).bytes_down + lab_info(lab).unacked + 1));
    }
    lab_clear(lab);
    return lab;
}

static uint32_t first_unacked(const struct lab *lab)
{
    return lab->conn->snd_una - lab->iss;
}

/* ACKs of the originals, two segments each, that left before anything was repeated. */
static void late_acks(struct lab *lab, uint32_t until, uint32_t tsval)
{
    uint32_t at = first_unacked(lab), mss = lab->conn->mss;

    while (at < until) {
        at = min_u32(at + 2 * mss, until);
        lab->last_tsval = tsval;
        lab_ack(lab, 1, at);
        lab->now_us += 100;
    }
}

static void spike(bool ts, enum tcp_congestion cc)
{
    struct lab *lab = in_full_swing(ts, cc);
    uint32_t cwnd = lab_info(lab).cwnd_bytes, ssthresh = lab_info(lab).ssthresh_bytes;
    uint32_t until = first_unacked(lab) + lab_info(lab).unacked, tsval = lab->last_tsval;

    lab_run_us(lab, 1000000);
    assert_true(stack_counters(lab->stack)->tcp_rto > 0);
    assert_string_equal(lab_info(lab).cc_state, "loss");
    assert_true(lab_info(lab).cwnd_bytes < 1500);
    late_acks(lab, until, tsval);
    assert_string_equal(lab_info(lab).cc_state, "open");
    assert_int_equal(stack_counters(lab->stack)->tcp_undone, 1);
    assert_in_range(lab_info(lab).cwnd_bytes, cwnd * 9 / 10, cwnd * 2);
    assert_int_equal(lab_info(lab).ssthresh_bytes, ssthresh);
    assert_int_equal(lab_info(lab).backoff, 0);
    assert_true(stack_counters(lab->stack)->tcp_rexmit_rto <= 3);
    lab_free(lab);
}

static void a_spike_of_a_second_costs_no_rate(void **state) /* tcp-stack.md RTO-3; RFC 4015, RFC 3522 */
{
    (void)state;
    spike(true, TCP_CC_CUBIC);
    spike(true, TCP_CC_NEWRENO);
}

static void without_timestamps_f_rto_finds_out(void **state) /* RTO-3; RFC 5682 section 3.1 */
{
    (void)state;
    spike(false, TCP_CC_CUBIC);
    spike(false, TCP_CC_NEWRENO);
}

/* The same silence, but everything was lost: the rate stays down. */
static void real(bool ts)
{
    struct lab *lab = in_full_swing(ts, TCP_CC_CUBIC);
    uint32_t at, until = first_unacked(lab) + lab_info(lab).unacked, cwnd = lab_info(lab).cwnd_bytes;

    lab_run_us(lab, 1000000);
    for (int i = 0; i < 200 && (at = first_unacked(lab)) < until; i++) {
        uint32_t repeated = lab->conn->fl->seg_head->len;

        lab->now_us += RTT_US;
        stack_advance(lab->stack, lab->now_us);
        lab_ack(lab, 1, at + repeated); /* of what was repeated, with its timestamp */
    }
    assert_int_equal(stack_counters(lab->stack)->tcp_undone, 0);
    assert_true(lab_info(lab).ssthresh_bytes <= cwnd / 4 * 3);
    lab_free(lab);
}

static void what_was_lost_is_not_undone(void **state) /* RTO-3 */
{
    (void)state;
    real(true);
}

/* RFC 5682 section 3.1, 2a: the answer to the repeated segment reports a hole. */
static void a_duplicate_after_the_timeout_means_loss(void **state)
{
    struct lab *lab = in_full_swing(false, TCP_CC_CUBIC);
    uint32_t at = first_unacked(lab), mss = lab->conn->mss;
    struct lab_seg s = { .flags = LAB_ACK, .seq = 1, .ack = at, .sacks = 1 };

    (void)state;
    lab_run_us(lab, 1000000);
    s.sack[0].start = at + 2 * mss;
    s.sack[0].end = at + 4 * mss;
    lab_send(lab, &s);
    lab_ack(lab, 1, at + 4 * mss);
    lab_ack(lab, 1, at + 6 * mss);
    assert_int_equal(stack_counters(lab->stack)->tcp_undone, 0);
    assert_string_equal(lab_info(lab).cc_state, "loss");
    lab_free(lab);
}

/* RFC 3708: reordering looked like loss; every repeated segment is reported to have come twice. */
static void dsacks_for_all_that_was_repeated_undo_it(void **state) /* RTO-3 */
{
    struct lab *lab = in_full_swing(false, TCP_CC_CUBIC);
    uint32_t at = first_unacked(lab), mss = lab->conn->mss, cwnd = lab_info(lab).cwnd_bytes;
    struct lab_seg s = { .flags = LAB_ACK, .seq = 1, .ack = at, .sacks = 1 };

    (void)state;
    s.sack[0].start = at + 2 * mss;
    s.sack[0].end = at + 20 * mss;
    lab->now_us += RTT_US;
    lab_send(lab, &s);
    assert_string_equal(lab_info(lab).cc_state, "recovery");
    assert_int_equal(lab->conn->rec->repeated, 2 * mss);
    lab_ack(lab, 1, at + 20 * mss); /* the originals, late */
    lab->now_us += RTT_US;
    for (uint32_t i = 0; i < 2; i++) {
        s = (struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = at + 20 * mss, .sacks = 1 };
        s.sack[0].start = at + i * mss;
        s.sack[0].end = at + (i + 1) * mss;
        assert_int_equal(stack_counters(lab->stack)->tcp_undone, 0);
        lab_send(lab, &s);
    }
    assert_int_equal(stack_counters(lab->stack)->tcp_undone, 1);
    assert_string_equal(lab_info(lab).cc_state, "open");
    assert_true(lab_info(lab).cwnd_bytes >= cwnd);
    assert_int_equal(lab_info(lab).lost, 0);
    lab_free(lab);
}

/* RTO-3: in fast recovery a timestamp tells at once. */
static void reordering_beyond_the_window_is_undone_by_its_timestamp(void **state)
{
    struct lab *lab = in_full_swing(true, TCP_CC_CUBIC);
    uint32_t at = first_unacked(lab), mss = lab->conn->mss, cwnd = lab_info(lab).cwnd_bytes;
    uint32_t tsval = lab->last_tsval;
    struct lab_seg s = { .flags = LAB_ACK, .seq = 1, .ack = at, .sacks = 1 };

    (void)state;
    s.sack[0].start = at + 2 * mss;
    s.sack[0].end = at + 20 * mss;
    lab->now_us += RTT_US;
    lab_send(lab, &s);
    assert_string_equal(lab_info(lab).cc_state, "recovery");
    lab->last_tsval = tsval;
    lab_ack(lab, 1, at + 20 * mss);
    assert_string_equal(lab_info(lab).cc_state, "open");
    assert_int_equal(stack_counters(lab->stack)->tcp_undone, 1);
    assert_true(lab_info(lab).cwnd_bytes >= cwnd);
    lab_free(lab);
}

/* MEM-1: nothing of it stays with a connection that has nothing in flight. */
static void an_idle_connection_keeps_no_record(void **state)
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    lab = lab_new(&o);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    lab->now_us += RTT_US;
    lab_ack(lab, 1, 1);
    lab_write(lab, 10000);
    lab_run_us(lab, 800000);
    assert_int_equal(lab_in_use(lab, "recovery"), 1);
    lab_ack(lab, 1, 10001);
    assert_int_equal(lab_in_use(lab, "recovery"), 0);
    lab_free(lab);
}

static void an_ecn_mark_reduces_less_than_a_loss(void **state) /* ECN-1; RFC 8511 */
{
    static const struct {
        enum tcp_congestion cc;
        uint32_t percent;
    } rows[] = { { TCP_CC_CUBIC, 85 }, { TCP_CC_NEWRENO, 80 } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct lab *lab = in_full_swing(true, rows[i].cc);
        uint32_t cwnd = lab_info(lab).cwnd_bytes;

        lab->conn->flags |= CONN_ECN;
        lab_send(lab, &(struct lab_seg){
                          .flags = LAB_ACK | LAB_ECE, .seq = 1, .ack = first_unacked(lab) + lab->conn->mss });
        assert_in_range(lab_info(lab).ssthresh_bytes, cwnd / 100 * (rows[i].percent - 3),
                        cwnd / 100 * (rows[i].percent + 1));
        lab_free(lab);
    }
}

static void the_shortest_round_trip_does_not_count_for_ever(void **state) /* REC-2; RFC 8985 section 6.2 */
{
    struct lab_options o;
    struct lab *lab;
    uint32_t seq = 1;

    (void)state;
    lab_options_default(&o);
    lab = lab_new(&o);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    lab->now_us += 2000;
    lab_ack(lab, 1, 1);
    assert_int_equal(lab->conn->min_rtt_us, 2000);
    for (int i = 0; i < 100; i++) { /* it has moved to a longer path; 17 minutes */
        lab_write(lab, 100);
        lab->now_us += 30000;
        seq += 100;
        lab_ack(lab, 1, seq);
        lab_run_us(lab, 10000000);
        assert_true(i > 20 || lab->conn->min_rtt_us <= 4000);
    }
    assert_in_range(lab->conn->min_rtt_us, 8000, 30000);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_spike_of_a_second_costs_no_rate),
        cmocka_unit_test(without_timestamps_f_rto_finds_out),
        cmocka_unit_test(what_was_lost_is_not_undone),
        cmocka_unit_test(a_duplicate_after_the_timeout_means_loss),
        cmocka_unit_test(dsacks_for_all_that_was_repeated_undo_it),
        cmocka_unit_test(reordering_beyond_the_window_is_undone_by_its_timestamp),
        cmocka_unit_test(an_idle_connection_keeps_no_record),
        cmocka_unit_test(an_ecn_mark_reduces_less_than_a_loss),
        cmocka_unit_test(the_shortest_round_trip_does_not_count_for_ever),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
