/* test_tcp_numbers.c - faces src/stack/tcp_ack.c, tcp_loss.c, tcp_sack.c, tcp_cc.c, tcp_timer.c and tcp_timewait.c: the numbers of
 * tcp-stack.md 5.5 to 5.10 to the letter, one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "lab_script.h"
#include "stack/tcp_impl.h"

#define MSS    1448u
#define RTT_US 20000u

static uint64_t timeouts(const struct lab *lab)
{
    return stack_counters(lab->stack)->tcp_rto;
}

static void run_until_timeouts(struct lab *lab, uint64_t n)
{
    while (timeouts(lab) < n)
        lab_run_us(lab, 1000);
}

/* ---- time ------------------------------------------------------------------------------------------------ */

static void the_rto_follows_from_each_round_trip(void **state) /* tcp-stack.md RTO-1; RFC 6298 section 2 */
{
    static const struct {
        uint32_t rtt_us, srtt_us, rttvar_us, rto_us;
    } rows[] = {
        { 200000, 112500, 62500, 362500 },
        { 50000, 104687, 62500, 354687 },
        { 104687, 104687, 46875, 304687 },
        { 104687, 104687, 35156, 304687 }, /* 4 x RTTVAR is below 200 ms from here on */
    };
    struct lab *lab = lab_open(100000, NULL);
    uint32_t at = 1;

    (void)state;
    assert_int_equal(lab_info(lab).rto_us, 100000 + 200000);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        lab_write(lab, 2 * MSS);
        lab->now_us += rows[i].rtt_us;
        lab_ack(lab, 1, at += 2 * MSS);
        assert_in_range(lab_info(lab).srtt_us, rows[i].srtt_us - 1, rows[i].srtt_us + 1);
        assert_in_range(lab_info(lab).rttvar_us, rows[i].rttvar_us - 2, rows[i].rttvar_us + 2);
        assert_in_range(lab_info(lab).rto_us, rows[i].rto_us - 8, rows[i].rto_us + 8);
    }
    lab_free(lab);
}

static void timeouts_in_a_row_reduce_once(void **state) /* tcp-stack.md RTO-2, CC-3 */
{
    struct lab *lab = lab_open(RTT_US, NULL);
    uint32_t ssthresh;

    (void)state;
    lab_write(lab, 10 * MSS);
    run_until_timeouts(lab, 1);
    ssthresh = lab_info(lab).ssthresh_bytes;
    assert_int_equal(ssthresh, 7 * MSS);
    run_until_timeouts(lab, 3);
    assert_int_equal(lab_info(lab).ssthresh_bytes, ssthresh);
    lab_free(lab);
}

static void one_timeout_keeps_what_was_reported(void **state) /* tcp-stack.md RTO-2; RFC 6675 section 5.1 */
{
    struct lab *lab = lab_open(RTT_US, NULL);

    (void)state;
    lab_write(lab, 10 * MSS);
    lab->now_us += RTT_US;
    lab_sack(lab, 1, 1 + 5 * MSS, 1 + 10 * MSS);
    run_until_timeouts(lab, 1);
    assert_int_equal(lab_info(lab).sacked, 5 * MSS);
    assert_int_equal(lab_info(lab).lost, 5 * MSS);
    run_until_timeouts(lab, 2);
    assert_int_equal(lab_info(lab).sacked, 0);
    lab_free(lab);
}

static void an_orphan_has_eight_timeouts(void **state) /* tcp-stack.md CLS-4 */
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    o.config.user_timeout_ms = 24 * 3600 * 1000;
    lab = lab_connected(&o);
    lab_write(lab, 1000);
    tcp_release(lab->conn);
    lab->conn = NULL;
    lab_run_us(lab, 3600ull * 1000000);
    assert_int_equal(stack_tcp_count(lab->stack), 0);
    assert_int_equal(timeouts(lab), 8);
    assert_int_equal(lab_count(lab, "RST,ACK"), 1);
    lab_free(lab);
}

static void a_probe_waits_two_milliseconds_at_least(void **state) /* tcp-stack.md REC-3 */
{
    struct lab *lab = lab_open(100, NULL);
    uint64_t told;

    (void)state;
    lab_write(lab, 10 * MSS);
    lab->now_us += 100;
    lab_ack(lab, 1, 1 + 8 * MSS); /* two more are on their way */
    told = lab->now_us;
    lab_clear(lab);
    while (lab->outs == 0)
        lab_run_us(lab, 100);
    assert_in_range(lab->now_us - told, 2000, 3100); /* a tick later at most */
    lab_free(lab);
}

/* ---- the scoreboard -------------------------------------------------------------------------------------- */

static void an_old_ack_still_reports(void **state) /* tcp-stack.md REC-1: SACK on an ACK below SND.UNA */
{
    struct lab *lab = lab_open(RTT_US, NULL);

    (void)state;
    lab_write(lab, 10 * MSS);
    lab->now_us += RTT_US;
    lab_ack(lab, 1, 1 + 2 * MSS);
    lab_sack(lab, 1 + MSS, 1 + 5 * MSS, 1 + 6 * MSS); /* overtaken by the one before */
    assert_int_equal(lab_info(lab).sacked, MSS);
    lab_free(lab);
}

static void a_connection_has_4096_descriptors(void **state) /* tcp-stack.md REC-1, section 7 */
{
    struct lab *lab = lab_open(RTT_US, NULL);

    (void)state;
    lab->conn->cwnd = 4u << 20;
    for (uint32_t i = 0; i < 5000; i++)
        lab_write(lab, 1);
    assert_int_equal(lab->conn->segments, 4096);
    assert_int_equal(lab_info(lab).unacked, 4096);
    assert_true(stack_counters(lab->stack)->tcp_segment_limit > 0);
    lab_ack(lab, 1, 1 + 4096);
    lab_run_us(lab, 1000);
    lab_ack(lab, 1, 5001);
    assert_int_equal(lab_info(lab).unacked, 0);
    lab_free(lab);
}

/* After a time-out two new segments leave (F-RTO), and the second is reported: fewer than three, and yet the first does not get a quarter
 * of a round trip. */
static void in_recovery_nobody_waits_for_reordering(void **state) /* tcp-stack.md REC-2 */
{
    struct lab *lab = lab_open(RTT_US, NULL);
    uint32_t end = 1 + 11 * MSS; /* a loss probe was the eleventh */

    (void)state;
    lab_write(lab, 40 * MSS);
    assert_int_equal(lab_info(lab).unacked, 10 * MSS);
    run_until_timeouts(lab, 1);
    lab->now_us += RTT_US;
    lab_ack(lab, 1, 1 + MSS);
    assert_int_equal(lab_info(lab).unacked, 12 * MSS);
    assert_int_equal(lab_info(lab).lost, 10 * MSS);
    lab->now_us += RTT_US;
    lab_sack(lab, 1 + MSS, end + MSS, end + 2 * MSS);
    assert_int_equal(lab_info(lab).sacked, MSS);
    assert_int_equal(lab_info(lab).lost, 11 * MSS);
    lab_free(lab);
}

/* Twenty of forty are lost and leave again together; an ACK of two of them lets out two and one more. */
static void recovery_without_new_loss_grows_like_slow_start(
    void **state) /* tcp-stack.md REC-4; RFC 9937 section 6 */
{
    struct lab *lab = lab_open(RTT_US, NULL);
    uint32_t una;

    (void)state;
    lab_write(lab, 400 * MSS);
    while (lab_info(lab).unacked < 40 * MSS) {
        lab->now_us += RTT_US;
        lab_ack(lab, 1, (uint32_t)(lab_info(lab).bytes_down + lab_info(lab).unacked + 1));
    }
    una = (uint32_t)lab_info(lab).bytes_down + 1;
    lab->now_us += RTT_US;
    lab_clear(lab);
    lab_sack(lab, una, una + 20 * MSS, una + 40 * MSS);
    assert_int_equal(lab_payload_out(lab), 20 * MSS);
    lab->now_us += RTT_US;
    lab_clear(lab);
    lab_ack(lab, 1, una + 2 * MSS);
    assert_int_equal(lab_payload_out(lab), 3 * MSS);
    lab_free(lab);
}

static void only_bare_repetitions_are_duplicate_acks(
    void **state) /* tcp-stack.md REC-5; RFC 5681 section 2 */
{
    struct lab *lab = lab_open(RTT_US, lab_no_sack);
    const struct stack_counters *n = stack_counters(lab->stack);

    (void)state;
    lab_write(lab, 10 * MSS);
    for (uint32_t i = 0; i < 5; i++)
        lab_data(lab, 1 + i * 10, 1, 10);
    for (uint32_t i = 0; i < 5; i++)
        lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 51, .ack = 1, .wnd = 60000 + i });
    assert_int_equal(n->tcp_rexmit_fast, 0);
    for (uint32_t i = 0; i < 3; i++)
        lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 51, .ack = 1, .wnd = 60004 });
    assert_int_equal(n->tcp_rexmit_fast, 1);
    lab_free(lab);
}

/* ---- the rate -------------------------------------------------------------------------------------------- */

static void the_initial_window_is_rfc_6928s(void **state) /* tcp-stack.md CC-2 */
{
    static const uint32_t rows[][2] = { { 88, 880 },     { 536, 5360 },   { 1448, 14480 },
                                        { 1460, 14600 }, { 4000, 14600 }, { 8948, 17896 } };
    struct lab *lab = lab_open(RTT_US, NULL);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        lab->conn->mss = (uint16_t)rows[i][0];
        assert_int_equal(tcp_cc_initial(lab->conn), rows[i][1]);
    }
    lab->conn->mss = MSS;
    lab_free(lab);
}

/* A connection after a reduction from 100 segments to 70; nothing is on its way. */
static struct lab *reduced(enum tcp_congestion which, uint32_t rtt_us)
{
    struct lab *lab = lab_open(rtt_us, NULL);
    struct tcp_conn *c = lab->conn;

    c->cwnd = 100 * MSS;
    (void)tcp_cc_select(which)->reduce(c, false);
    c->cwnd = 70 * MSS;
    return lab;
}

/* @rounds windows are acknowledged. Return: cwnd in hundredths of a segment. */
static uint32_t grown(struct lab *lab, enum tcp_congestion which, uint32_t rtt_us, uint32_t rounds)
{
    struct tcp_conn *c = lab->conn;

    for (uint32_t i = 0; i < rounds; i++) {
        tcp_cc_select(which)->acked(c, c->cwnd);
        lab->now_us += rtt_us;
        stack_advance(lab->stack, lab->now_us);
    }
    return (uint32_t)(c->cwnd * 100ull / MSS);
}

/* W(t) = 0.4 (t - K)^3 + 100 with K = cbrt(30 / 0.4) = 4.217 s; each round aims at where the next one ends. */
static void cubic_grows_by_its_curve(void **state) /* tcp-stack.md CC-1; RFC 9438 section 4.2 */
{
    struct lab *lab = reduced(TCP_CC_CUBIC, 100000);

    (void)state;
    assert_int_equal(lab->conn->cc.w_max, 100 * MSS);
    assert_in_range(grown(lab, TCP_CC_CUBIC, 100000, 10), 8500, 8800);  /* 1.0 s: 86.7 */
    assert_in_range(grown(lab, TCP_CC_CUBIC, 100000, 10), 9450, 9650);  /* 2.0 s: 95.6 */
    assert_in_range(grown(lab, TCP_CC_CUBIC, 100000, 22), 9950, 10050); /* 4.2 s: 100 */
    assert_in_range(grown(lab, TCP_CC_CUBIC, 100000, 30), 11400,
                    11600); /* 7.2 s: 110.6, and Reno, with a whole segment a round beyond 100, has 115.3 */
    lab_free(lab);
}

static void on_short_paths_cubic_is_as_fast_as_reno(
    void **state) /* tcp-stack.md CC-1; RFC 9438 section 4.3 */
{
    struct lab *lab = reduced(TCP_CC_CUBIC, 10000);

    (void)state;
    assert_in_range(grown(lab, TCP_CC_CUBIC, 10000, 20), 7980,
                    8150); /* 70 + 20 x 9/17, where the curve has 74 */
    lab_free(lab);
}

static void cubic_gives_way_to_others_after_two_losses(
    void **state) /* tcp-stack.md CC-1; RFC 9438 section 4.7 */
{
    struct lab *lab = reduced(TCP_CC_CUBIC, RTT_US);

    (void)state;
    lab->conn->cwnd = 80 * MSS;
    (void)tcp_cc_select(TCP_CC_CUBIC)->reduce(lab->conn, false);
    assert_in_range(lab->conn->cc.w_max, 68 * MSS - 1, 68 * MSS);
    lab_free(lab);
}

static void newreno_grows_by_a_segment_a_round(void **state) /* tcp-stack.md CC-1; RFC 5681 section 3.1 */
{
    struct lab *lab = reduced(TCP_CC_NEWRENO, RTT_US);

    (void)state;
    assert_in_range(grown(lab, TCP_CC_NEWRENO, RTT_US, 10), 7990, 8001);
    lab_free(lab);
}

static void a_window_that_is_not_used_does_not_grow(void **state) /* tcp-stack.md CC-2; RFC 7661 section 4 */
{
    struct lab *lab = reduced(TCP_CC_CUBIC, RTT_US);
    uint32_t at = 1;

    (void)state;
    lab->conn->ssthresh = 70 * MSS;
    for (int i = 0; i < 200; i++) {
        lab_write(lab, 10 * MSS);
        lab->now_us += RTT_US;
        lab_ack(lab, 1, at += 10 * MSS);
        assert_int_equal(lab_info(lab).cwnd_bytes, 70 * MSS);
    }
    lab_free(lab);
}

static void no_restart(struct lab_options *o)
{
    o->config.restart_after_idle = false;
}

/* An idle time of a little less, a little more than the RTO of 240 ms, and more with the restart turned off. */
static void the_restart_after_idle_comes_after_one_rto(
    void **state) /* tcp-stack.md CC-3; RFC 5681 section 4.1 */
{
    static const struct {
        lab_change *change;
        uint32_t idle_us, segments;
    } rows[] = { { NULL, 200000, 20 }, { NULL, 260000, 10 }, { no_restart, 5000000, 20 } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct lab *lab = lab_open(RTT_US, rows[i].change);

        lab_write(lab, 10 * MSS);
        lab->now_us += RTT_US;
        lab_ack(lab, 1, 1 + 10 * MSS);
        lab->conn->cwnd = 20 * MSS;
        lab_run_us(lab, rows[i].idle_us);
        lab_clear(lab);
        lab_write(lab, 40 * MSS);
        assert_int_equal(lab_payload_out(lab), rows[i].segments * MSS);
        lab_free(lab);
    }
}

/* ---- ECN ------------------------------------------------------------------------------------------------- */

static struct lab *with_ecn(void)
{
    struct lab *lab = lab_open(RTT_US, NULL);

    lab->conn->flags |= CONN_ECN;
    return lab;
}

static void only_new_data_is_marked_and_a_mark_is_echoed_until_cwr(void **state) /* tcp-stack.md ECN-1 */
{
    struct lab *lab = with_ecn();

    (void)state;
    lab_write(lab, 10 * MSS);
    assert_int_equal(lab_last(lab)->tos & 3, 2);
    lab_clear(lab);
    lab->now_us += RTT_US;
    lab_sack(lab, 1, 1 + MSS, 1 + 10 * MSS);
    assert_int_equal(lab->outs, 1);
    assert_int_equal(lab_last(lab)->seq, 1);
    assert_int_equal(lab_last(lab)->tos & 3, 0); /* again: not ECN-capable (RFC 3168 section 6.1.5) */
    lab_ack(lab, 1, 1 + 10 * MSS);
    lab_clear(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1 + 10 * MSS, .len = 100, .tos = 3 });
    lab_data(lab, 101, 1 + 10 * MSS, 100);
    lab_data(lab, 201, 1 + 10 * MSS, 100);
    assert_int_equal(lab_count(lab, "ACK,ECE"), 3);
    lab_clear(lab);
    lab_send(lab,
             &(struct lab_seg){ .flags = LAB_ACK | LAB_CWR, .seq = 301, .ack = 1 + 10 * MSS, .len = 100 });
    assert_int_equal(lab_count(lab, "ACK"), 1);
    lab_free(lab);
}

static void echoes_of_one_window_reduce_once(void **state) /* tcp-stack.md ECN-1; RFC 3168 section 6.1.2 */
{
    struct lab *lab = with_ecn();
    uint32_t ssthresh;

    (void)state;
    lab_write(lab, 10 * MSS);
    lab->now_us += RTT_US;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_ECE, .seq = 1, .ack = 1 + 2 * MSS });
    ssthresh = lab_info(lab).ssthresh_bytes;
    assert_in_range(ssthresh, 8 * MSS, 9 * MSS); /* 0.85 of ten */
    for (uint32_t i = 3; i <= 10; i++)
        lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_ECE, .seq = 1, .ack = 1 + i * MSS });
    assert_int_equal(lab_info(lab).ssthresh_bytes, ssthresh);
    lab_free(lab);
}

/* ---- storms ---------------------------------------------------------------------------------------------- */

/* 100,000 in a second of each kind: what was never sent, what was acknowledged long ago, the same again. */
static void a_storm_of_acks_gets_ten_answers_and_no_rate(void **state) /* faults.md T6 */
{
    static const struct {
        uint32_t ack;
        unsigned most; /* answers; an ACK is never answered by an ACK but for what was never sent (SEQ-6) */
    } rows[] = { { 1 + 50 * MSS, 10 }, { 1 + MSS, 0 }, { 1 + 2 * MSS, 0 } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct lab *lab = lab_open(RTT_US, NULL);
        uint32_t cwnd;

        lab_write(lab, 10 * MSS);
        lab->now_us += RTT_US;
        lab_ack(lab, 1, 1 + 2 * MSS);
        cwnd = lab_info(lab).cwnd_bytes;
        lab_clear(lab);
        for (int k = 0; k < 100000; k++) {
            lab_ack(lab, 1, rows[i].ack);
            lab->now_us += 1; /* no timer of its own fires meanwhile: 100 ms in all */
        }
        assert_true(lab->outs <= rows[i].most);
        assert_int_equal(lab_payload_out(lab), 0);
        assert_int_equal(lab_info(lab).cwnd_bytes, cwnd);
        assert_int_equal(lab_info(lab).unacked, 8 * MSS);
        lab_free(lab);
    }
}

static void acks_of_single_bytes_gain_nothing(void **state) /* faults.md T6; RFC 3465 */
{
    struct lab *whole = lab_open(RTT_US, NULL), *split = lab_open(RTT_US, NULL);

    (void)state;
    lab_write(whole, 10 * MSS);
    lab_write(split, 10 * MSS);
    whole->now_us += RTT_US;
    split->now_us += RTT_US;
    lab_ack(whole, 1, 1 + 10 * MSS);
    for (uint32_t i = 1; i <= 10 * MSS; i++)
        lab_ack(split, 1, 1 + i);
    assert_int_equal(lab_info(split).unacked, 0);
    assert_true(lab_info(split).cwnd_bytes <= lab_info(whole).cwnd_bytes);
    lab_free(whole);
    lab_free(split);
}

/* ---- memory ---------------------------------------------------------------------------------------------- */

static void the_ladder_has_its_steps_at_60_80_and_95_percent(void **state) /* tcp-stack.md LIM-1 */
{
    static const struct {
        unsigned percent;
        enum tcp_pressure is;
    } rows[] = { { 0, PRESSURE_NONE },       { 59, PRESSURE_NONE },   { 60, PRESSURE_NO_GROWTH },
                 { 79, PRESSURE_NO_GROWTH }, { 80, PRESSURE_SHRINK }, { 94, PRESSURE_SHRINK },
                 { 95, PRESSURE_REFUSE },    { 100, PRESSURE_REFUSE } };
    struct lab *lab = lab_open(RTT_US, NULL);
    size_t own = lab->stack->block_bytes;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        lab->stack->block_bytes = lab->stack->cfg.buffer_cap_bytes / 100 * rows[i].percent;
        assert_int_equal(tcp_pressure(lab->stack), rows[i].is);
    }
    lab->stack->block_bytes = own;
    lab_free(lab);
}

/* Of two that stand still equally long the larger is reset, and that is enough: down to 90 %. */
static void the_largest_goes_first_and_only_as_many_as_needed(void **state) /* tcp-stack.md LIM-1 */
{
    struct lab *lab = lab_stalled();
    struct tcp_conn *small = lab->conn;
    size_t cap = lab->opt.config.buffer_cap_bytes, pretended;

    (void)state;
    lab_data(lab, 1, 1, 3000);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 7 });
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .port = 7, .seq = 1, .ack = 1 });
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .port = 7, .seq = 1, .ack = 1, .len = 60000 });
    pretended = cap / 100 * 96 - lab->stack->block_bytes;
    lab->stack->block_bytes += pretended;
    lab->now_us += 1500000;
    lab_clear(lab);
    lab_batch(lab);
    assert_int_equal(lab_count(lab, "RST,ACK"), 1);
    assert_int_equal(lab->out[0].port, 7);
    assert_string_equal(tcp_state_name((enum tcps)small->state), "ESTABLISHED");
    lab->stack->block_bytes -= pretended;
    lab_free(lab);
}

/* Twenty hold as much for as long; those go that bring it from 96 % to 90. */
static void the_ladder_ends_at_90_percent(void **state) /* tcp-stack.md LIM-1 */
{
    enum { HELD = 60000, FIRST_PORT = 100 };
    struct lab_options o;
    struct lab *lab;
    size_t onepercent, pretended;

    (void)state;
    lab_options_default(&o);
    o.stall = true;
    o.config.buffer_cap_bytes = 8u << 20;
    onepercent = o.config.buffer_cap_bytes / 100;
    lab = lab_new(&o);
    for (uint16_t port = FIRST_PORT; port < FIRST_PORT + 20; port++) {
        lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = port });
        lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .port = port, .seq = 1, .ack = 1 });
        lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .port = port, .seq = 1, .ack = 1, .len = HELD });
    }
    assert_true(lab->stack->block_bytes < 90 * onepercent);
    pretended = 96 * onepercent - lab->stack->block_bytes;
    lab->stack->block_bytes += pretended;
    lab->now_us += 1500000;
    lab_clear(lab);
    lab_batch(lab);
    assert_int_equal(lab_count(lab, "RST,ACK"), (6 * onepercent + HELD - 1) / HELD);
    lab->stack->block_bytes -= pretended;
    lab_free(lab);
}

static void budgets_grow_only_while_memory_is_ample(void **state) /* tcp-stack.md LIM-1, WND-4 */
{
    (void)state;
    for (int pressed = 0; pressed < 2; pressed++) {
        struct lab *lab = lab_open(RTT_US, NULL);
        uint32_t before = lab->conn->rcv_budget, at = 1;
        size_t more = pressed ? lab->opt.config.buffer_cap_bytes / 100 * 65 : 0;

        lab->stack->block_bytes += more;
        for (int i = 0; i < 20; i++) {
            for (int k = 0; k < 5; k++, at += 50000)
                lab_data(lab, at, 1, 50000);
            lab->now_us += RTT_US;
        }
        if (pressed)
            assert_int_equal(lab->conn->rcv_budget, before);
        else
            assert_true(lab->conn->rcv_budget > before);
        lab->stack->block_bytes -= more;
        lab_free(lab);
    }
}

/* ---- the end --------------------------------------------------------------------------------------------- */

static void a_reset_does_not_end_time_wait(void **state) /* tcp-stack.md TW-1; RFC 1337 */
{
    struct lab *lab = lab_in(LAB_TIME_WAIT);

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 102 });
    assert_int_equal(lab_in_use(lab, "timewait"), 1);
    lab_clear(lab);
    lab_client_fin(lab, 2);
    assert_int_equal(lab_count(lab, "ACK"), 1);
    lab_free(lab);
}

static void a_syn_must_be_newer_than_time_wait(void **state) /* tcp-stack.md TW-2; RFC 6191 section 2 */
{
    static const struct {
        bool ts;
        int32_t later; /* its timestamp, after the last one */
        uint32_t seq;  /* RCV.NXT is 102 */
        unsigned requests;
    } rows[] = {
        { true, 1, 5, 1 },    { true, 0, 103, 1 },  { true, 0, 102, 0 },  { true, 0, 50, 0 },
        { true, -1, 200, 0 }, { false, 0, 103, 1 }, { false, 0, 102, 0 }, { false, 0, 50, 0 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct lab *lab = lab_in(LAB_TIME_WAIT);
        struct lab_seg syn = { .flags = LAB_SYN, .seq = rows[i].seq, .no_ts = !rows[i].ts };
        unsigned before = lab->requests;

        syn.tsval = (uint32_t)((uint32_t)(lab->now_us / 1000) + lab->ts_base + (uint32_t)rows[i].later);
        lab_send(lab, &syn);
        if (lab->requests != before + rows[i].requests)
            print_error("row %zu\n", i);
        assert_int_equal(lab->requests, before + rows[i].requests);
        assert_int_equal(lab_in_use(lab, "timewait"), 1 - rows[i].requests);
        lab_free(lab);
    }
}

/* The clock of ISS makes 250 a millisecond; this connection has sent a megabyte in less than one. */
static void a_new_connection_begins_above_the_old_one(void **state) /* tcp-stack.md TW-2; RFC 9293 SHLD-4 */
{
    struct lab_options o;
    struct lab *lab;
    uint32_t old;

    (void)state;
    lab_options_default(&o);
    o.random_iss = true;
    lab = lab_connected(&o);
    lab->conn->cwnd = 4u << 20;
    lab_write(lab, 1u << 20);
    for (uint32_t at = 1; at < 1u << 20;)
        lab_ack(lab, 1, at = lab->conn->snd_nxt - lab->iss);
    old = lab->conn->snd_nxt;
    tcp_shutdown(lab->conn);
    lab_batch(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 1, .ack = old + 1 - lab->iss });
    assert_int_equal(lab_in_use(lab, "timewait"), 1);
    lab->now_us += 2000;
    lab_clear(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .seq = 900 });
    assert_int_equal(lab_count(lab, "SYN,ACK"), 1);
    assert_true(seq_lt(old + 1, lab_last(lab)->raw_seq));
    lab_free(lab);
}

/* The last byte before the FIN lies beyond what was told: nothing of the FIN counts until it comes again. */
static void a_fin_beyond_the_window_is_not_taken(void **state) /* tcp-stack.md CLS-3, SEQ-4 */
{
    struct lab *lab = lab_stalled();
    uint32_t at = 1;

    (void)state;
    for (; lab_info(lab).rcv_wnd > 40000; at += 40000)
        lab_data(lab, at, 1, 40000);
    lab_send(lab, &(struct lab_seg){
                      .flags = LAB_ACK | LAB_FIN, .seq = at, .ack = 1, .len = lab_info(lab).rcv_wnd + 1 });
    assert_string_equal(lab_info(lab).state, "ESTABLISHED");
    assert_false(tcp_at_eof(lab->conn));
    lab_read(lab, SIZE_MAX);
    assert_false(lab->eof);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rto_follows_from_each_round_trip),
        cmocka_unit_test(timeouts_in_a_row_reduce_once),
        cmocka_unit_test(one_timeout_keeps_what_was_reported),
        cmocka_unit_test(an_orphan_has_eight_timeouts),
        cmocka_unit_test(a_probe_waits_two_milliseconds_at_least),
        cmocka_unit_test(an_old_ack_still_reports),
        cmocka_unit_test(a_connection_has_4096_descriptors),
        cmocka_unit_test(in_recovery_nobody_waits_for_reordering),
        cmocka_unit_test(recovery_without_new_loss_grows_like_slow_start),
        cmocka_unit_test(only_bare_repetitions_are_duplicate_acks),
        cmocka_unit_test(the_initial_window_is_rfc_6928s),
        cmocka_unit_test(cubic_grows_by_its_curve),
        cmocka_unit_test(on_short_paths_cubic_is_as_fast_as_reno),
        cmocka_unit_test(cubic_gives_way_to_others_after_two_losses),
        cmocka_unit_test(newreno_grows_by_a_segment_a_round),
        cmocka_unit_test(a_window_that_is_not_used_does_not_grow),
        cmocka_unit_test(the_restart_after_idle_comes_after_one_rto),
        cmocka_unit_test(only_new_data_is_marked_and_a_mark_is_echoed_until_cwr),
        cmocka_unit_test(echoes_of_one_window_reduce_once),
        cmocka_unit_test(a_storm_of_acks_gets_ten_answers_and_no_rate),
        cmocka_unit_test(acks_of_single_bytes_gain_nothing),
        cmocka_unit_test(the_largest_goes_first_and_only_as_many_as_needed),
        cmocka_unit_test(the_ladder_ends_at_90_percent),
        cmocka_unit_test(budgets_grow_only_while_memory_is_ample),
        cmocka_unit_test(the_ladder_has_its_steps_at_60_80_and_95_percent),
        cmocka_unit_test(a_reset_does_not_end_time_wait),
        cmocka_unit_test(a_syn_must_be_newer_than_time_wait),
        cmocka_unit_test(a_new_connection_begins_above_the_old_one),
        cmocka_unit_test(a_fin_beyond_the_window_is_not_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
