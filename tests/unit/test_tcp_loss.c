/* test_tcp_loss.c - faces src/stack/tcp_loss.c, tcp_sack.c, tcp_ack.c, tcp_timer.c and tcp_cc.c: what happens when
 * segments are lost, late or marked (tcp-stack.md 5.5 to 5.8). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "lab_script.h"
#include "stack/tcp_impl.h"

#define MSS 1448u

/* ---- loss -------------------------------------------------------------------------------------------- */

static void a_hole_is_filled_once_and_at_once(void **state) /* REC-1, REC-2 */
{
    struct lab *lab = lab_open(10000, NULL);

    (void)state;
    lab_write(lab, 10 * MSS);
    lab_clear(lab);
    lab->now_us += 10000;
    lab_sack(lab, 1 + MSS, 1 + 2 * MSS, 1 + 10 * MSS); /* the second of ten is missing */
    assert_int_equal(lab->outs, 1);
    assert_int_equal(lab_last(lab)->seq, 1 + MSS);
    assert_int_equal(lab_last(lab)->len, MSS);
    assert_string_equal(lab_info(lab).cc_state, "recovery");
    assert_int_equal(lab_info(lab).sacked, 8 * MSS);
    lab_sack(lab, 1 + MSS, 1 + 2 * MSS, 1 + 10 * MSS);
    assert_int_equal(lab->outs, 1);
    lab->now_us += 10000;
    lab_ack(lab, 1, 1 + 10 * MSS);
    assert_string_equal(lab_info(lab).cc_state, "open");
    assert_int_equal(lab_info(lab).unacked, 0);
    assert_int_equal(lab_info(lab).cwnd_bytes, lab_info(lab).ssthresh_bytes);
    lab_free(lab);
}

static void a_long_hole_is_filled_by_few_packets(void **state) /* REC-6 */
{
    struct lab *lab = lab_open(10000, lab_no_tso);
    uint32_t first;

    (void)state;
    lab_write(lab, 2000000);
    for (int i = 0; i < 4; i++)
        lab_pump(lab, 10000, (uint32_t)lab_info(lab).bytes_down + 1);
    first = (uint32_t)lab_info(lab).bytes_down + 1;
    assert_true(lab_info(lab).unacked > 60 * MSS);
    lab->conn->s->cfg.offload_tso = true;
    lab_clear(lab);
    lab->now_us += 10000;
    lab_sack(lab, first, first + 20 * MSS, first + lab_info(lab).unacked);
    for (int i = 0; i < 3 && lab_info(lab).lost > lab_info(lab).retrans; i++)
        lab_sack(lab, first, first + 20 * MSS, first + lab_info(lab).unacked);
    {
        unsigned again = 0;
        uint32_t bytes = 0;

        for (size_t i = 0; i < lab->outs; i++) {
            if (lab->out[i].seq < first + 20 * MSS && lab->out[i].len > 0) {
                again++;
                bytes += lab->out[i].len;
            }
        }
        assert_int_equal(bytes, 20 * MSS);
        assert_in_range(again, 1, 3);
    }
    lab_free(lab);
}

static void reordering_within_the_window_repeats_nothing(void **state) /* REC-2 */
{
    struct lab *lab = lab_open(20000, NULL);

    (void)state;
    lab_write(lab, 10 * MSS);
    lab_clear(lab);
    lab->now_us += 20000;
    lab_sack(lab, 1, 1 + MSS, 1 + 3 * MSS); /* two segments overtook the first */
    assert_int_equal(lab->outs, 0);
    assert_string_equal(lab_info(lab).cc_state, "disorder");
    lab_run_us(lab, 3000);
    assert_int_equal(lab->outs, 0);
    lab_ack(lab, 1, 1 + 3 * MSS); /* here it is, within a quarter of the round trip */
    lab_run_us(lab, 3000);
    assert_int_equal(lab->outs, 0);
    assert_string_equal(lab_info(lab).cc_state, "open");
    lab_free(lab);
}

/* Without it five reports would be enough (a_hole_is_filled_once_and_at_once). */
static void a_path_that_was_seen_to_reorder_gets_its_time(void **state) /* REC-2, RFC 8985 section 6.2 */
{
    struct lab *lab = lab_open(20000, NULL);
    uint32_t una = 1 + 10 * MSS;

    (void)state;
    lab_write(lab, 10 * MSS);
    lab->now_us += 20000;
    lab_sack(lab, 1, 1 + MSS, 1 + 3 * MSS);
    lab_ack(lab, 1, 1 + 3 * MSS); /* the first was only late */
    lab_ack(lab, 1, una);
    lab_write(lab, 10 * MSS);
    lab_clear(lab);
    lab->now_us += 20000;
    lab_sack(lab, una, una + MSS, una + 6 * MSS);
    lab_run_us(lab, 3000);
    assert_int_equal(lab->outs, 0);
    lab_run_us(lab, 4000);
    assert_int_equal(lab->outs, 1);
    assert_int_equal(lab_last(lab)->seq, una);
    lab_free(lab);
}

static void after_the_reordering_window_it_is_lost(void **state) /* REC-2 */
{
    struct lab *lab = lab_open(20000, NULL);

    (void)state;
    lab_write(lab, 10 * MSS);
    lab_clear(lab);
    lab->now_us += 20000;
    lab_sack(lab, 1, 1 + MSS, 1 + 3 * MSS);
    assert_int_equal(lab->outs, 0);
    lab_run_us(lab, 7000);
    assert_int_equal(lab->outs, 1);
    assert_int_equal(lab_last(lab)->seq, 1);
    assert_int_equal(lab_last(lab)->len, MSS);
    lab_free(lab);
}

/* REC-2: the ninth of ten came long ago, and only now a SACK says so; its round trip is no time to wait. */
static void an_old_delivery_puts_off_what_is_lost_by_an_rto_at_most(void **state)
{
    struct lab *lab = lab_open(10000, lab_no_ts); /* what was repeated measures no round trip */
    uint32_t mss = lab_info(lab).mss_bytes;
    struct lab_seg late = { .flags = LAB_ACK, .seq = 1, .ack = 1 + mss, .sacks = 2 };
    uint64_t told;

    (void)state;
    lab_write(lab, 10 * mss);
    while (stack_counters(lab->stack)->tcp_rto == 0)
        lab_run_us(lab, 1000);
    lab->now_us += 20000000;
    lab_ack(lab, 1, 1 + mss);
    lab->now_us += 10000;
    late.sack[0].start = 1 + 2 * mss;
    late.sack[0].end = 1 + 3 * mss;
    late.sack[1].start = 1 + 8 * mss;
    late.sack[1].end = 1 + 9 * mss;
    lab_clear(lab);
    told = lab->now_us;
    lab_send(lab, &late);
    assert_in_range(lab_info(lab).rto_us, 1, 1000000);
    while (lab->outs == 0 || lab_last(lab)->seq != 1 + mss)
        lab_run_us(lab, 1000);
    assert_in_range(lab->now_us - told, 0, lab_info(lab).rto_us + 1000);
    lab_free(lab);
}

/* From the last ACK that comes by itself until the last of what repairs the loss leaves; the client has it half a round trip later. */
static uint64_t repair_us(uint32_t rtt_us, uint32_t lost)
{
    struct lab *lab = lab_open(rtt_us, NULL);
    uint32_t tail = 1 + (10 - lost) * MSS;
    uint64_t start;

    lab_write(lab, 10 * MSS);
    lab_clear(lab);
    lab_run_us(lab, rtt_us);
    start = lab->now_us;
    lab_ack(lab, 1, tail);
    while (lab->outs == 0)
        lab_run_us(lab, 500);
    assert_int_equal(lab_last(lab)->seq, 1 + 9 * MSS);
    assert_int_equal(lab_last(lab)->len, MSS);
    if (lost > 1) { /* the probe's SACK tells of the rest */
        lab_run_us(lab, rtt_us);
        assert_int_equal(lab->outs, 1); /* one probe an episode */
        lab_clear(lab);
        lab_sack(lab, tail, 1 + 9 * MSS, 1 + 10 * MSS);
        while (lab->outs == 0)
            lab_run_us(lab, 500);
        assert_int_equal(lab_last(lab)->seq, tail);
        assert_int_equal(lab_last(lab)->len, MSS); /* PRR lets one out for the one that arrived */
    }
    assert_int_equal(stack_counters(lab->stack)->tcp_rto, 0);
    assert_int_equal(stack_counters(lab->stack)->tcp_rexmit_tlp, 1);
    start = lab->now_us - start;
    lab_free(lab);
    return start;
}

static void a_lost_tail_is_repaired_within_three_round_trips(void **state) /* tcp-stack.md REC-3 */
{
    static const uint32_t rtts_us[] = { 5000, 20000, 100000, 300000 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rtts_us); i++) {
        assert_in_range(repair_us(rtts_us[i], 1), 2 * rtts_us[i], 2 * rtts_us[i] + 2000);
        for (uint32_t lost = 2; lost <= 3; lost++)
            assert_true(repair_us(rtts_us[i], lost) < 3 * rtts_us[i] + 10000);
    }
}

/* RFC 8985 section 7.2: a segment that went alone may wait for its delayed ACK. */
static void a_segment_alone_is_probed_after_200_ms_more(void **state) /* tcp-stack.md REC-3 */
{
    struct lab *lab = lab_open(20000, NULL);

    (void)state;
    lab_write(lab, MSS);
    lab_clear(lab);
    lab_run_us(lab, 2 * 20000 + 150000);
    assert_int_equal(lab->outs, 0);
    lab_run_us(lab, 52000);
    assert_int_equal(lab->outs, 1);
    lab_free(lab);
}

static void a_late_loop_reads_before_it_repeats(void **state) /* REC-3: what is late is often only unread */
{
    struct lab *lab = lab_open(2000, NULL);

    (void)state;
    lab_write(lab, 10 * MSS);
    lab_clear(lab);
    lab->now_us += 50000; /* the loop slept through the probe's time */
    stack_advance(lab->stack, lab->now_us);
    assert_int_equal(lab->outs, 0);
    lab_ack(lab, 1, 1 + 10 * MSS);
    lab_run_us(lab, 500000);
    assert_int_equal(lab->outs, 0);
    lab_write(lab, 10 * MSS); /* but it is only one tick that it waits */
    lab_clear(lab);
    lab->now_us += 50000;
    stack_advance(lab->stack, lab->now_us);
    lab->now_us += 20000;
    stack_advance(lab->stack, lab->now_us);
    assert_int_equal(lab->outs, 1);
    lab_free(lab);
}

/* Nothing comes back: whole segments may be too long for the way. */
static void timeouts_of_whole_segments_try_1024_bytes_and_then_the_floor(void **state) /* MSS-3 */
{
    static const struct {
        bool v6;
        uint32_t mtu[4]; /* after so many timeouts */
    } rows[] = { { false, { 1500, 1500, 1024, 552 } }, { true, { 1500, 1500, 1280, 1280 } } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct lab_options o;
        struct lab *lab;

        lab_options_default(&o);
        o.v6 = rows[i].v6;
        lab = lab_connected(&o);
        lab_write(lab, 10 * 1428);
        for (uint32_t n = 0; n < 4; n++) {
            while (lab_info(lab).backoff < n)
                lab_run_us(lab, 1000);
            assert_int_equal(lab_info(lab).mss_bytes, rows[i].mtu[n] - (rows[i].v6 ? 72 : 52));
        }
        lab_free(lab);
    }
}

/* The original and the probe may both have arrived: a DSACK says so, or, of a client without that, one more ACK. */
static void a_needed_probe_is_a_loss_and_a_needless_one_is_not(void **state) /* REC-3, RFC 8985 section 7.4 */
{
    enum { NEEDED, DSACK, ACK_AGAIN, WAYS };

    (void)state;
    for (int way = NEEDED; way < WAYS; way++) {
        struct lab *lab = lab_open(20000, NULL);
        struct lab_seg s = { .flags = LAB_ACK, .seq = 1, .ack = 1 + 10 * MSS };
        uint32_t cwnd;

        lab_write(lab, 10 * MSS);
        lab_run_us(lab, 20000);
        lab_ack(lab, 1, 1 + 9 * MSS);
        cwnd = lab_info(lab).cwnd_bytes;
        lab_clear(lab);
        while (lab->outs == 0)
            lab_run_us(lab, 1000);
        if (way == DSACK) {
            s.sacks = 1;
            s.sack[0].start = 1 + 9 * MSS;
            s.sack[0].end = 1 + 10 * MSS;
        }
        lab_send(lab, &s);
        if (way == ACK_AGAIN)
            lab_send(lab, &s);
        lab_write(lab, MSS);
        lab->now_us += 20000;
        lab_ack(lab, 1, 1 + 11 * MSS);
        assert_int_equal(stack_counters(lab->stack)->tcp_spurious, way == DSACK); /* OBS-1 */
        if (way == NEEDED)
            assert_true(lab_info(lab).cwnd_bytes < cwnd);
        else
            assert_true(lab_info(lab).cwnd_bytes >= cwnd);
        lab_free(lab);
    }
}

static void three_duplicate_acks_repeat_one_segment(void **state) /* REC-5, RFC 5681 section 3.2 */
{
    struct lab *lab = lab_open(10000, lab_no_sack);

    (void)state;
    lab_write(lab, 10 * MSS);
    lab_clear(lab);
    lab->now_us += 10000;
    lab_ack(lab, 1, 1 + MSS);
    lab_ack(lab, 1, 1 + MSS);
    lab_ack(lab, 1, 1 + MSS);
    assert_int_equal(lab->outs, 0);
    lab_ack(lab, 1, 1 + MSS);
    assert_int_equal(lab->outs, 1);
    assert_int_equal(lab_last(lab)->seq, 1 + MSS);
    assert_int_equal(lab_last(lab)->len, MSS);
    lab_ack(lab, 1, 1 + 4 * MSS); /* a partial ACK: the next hole (RFC 6582) */
    assert_int_equal(lab->outs, 2);
    assert_int_equal(lab_last(lab)->seq, 1 + 4 * MSS);
    lab_ack(lab, 1, 1 + 10 * MSS);
    assert_string_equal(lab_info(lab).cc_state, "open");
    lab_free(lab);
}

static void a_timeout_starts_again_with_one_segment(void **state) /* RTO-1, RTO-2 */
{
    struct lab *lab = lab_open(10000, lab_no_sack);
    uint64_t sent = 0;

    (void)state;
    lab_write(lab, 10 * MSS);
    lab_clear(lab);
    sent = lab->now_us;
    while (lab->outs == 0)
        lab_run_us(lab, 1000);
    assert_in_range(lab->now_us - sent, 209000, 213000);
    assert_int_equal(lab_payload_out(lab), MSS);
    assert_int_equal(lab_info(lab).cwnd_bytes, MSS);
    assert_int_equal(lab_info(lab).backoff, 1);
    assert_in_range(lab_info(lab).rto_us, 419000, 425000);
    lab_clear(lab);
    lab_run_us(lab, 425000);
    assert_int_equal(lab_payload_out(lab), MSS);
    assert_int_equal(lab_info(lab).backoff, 2);
    lab_clear(lab);
    lab_ack(lab, 1, 1 + MSS); /* backoff ends with new data acknowledged */
    assert_int_equal(lab_info(lab).backoff, 0);
    assert_in_range(lab_payload_out(lab), MSS,
                    2 * MSS); /* in smaller pieces: the path may swallow large ones (MSS-3) */
    assert_int_equal(lab_info(lab).mss_bytes, 1024 - 52);
    lab_free(lab);
}

static void sack_marks_are_forgotten_after_a_second_timeout(void **state) /* RTO-2, RFC 2018 section 8 */
{
    struct lab *lab = lab_open(10000, NULL);

    (void)state;
    lab_write(lab, 10 * MSS);
    lab->now_us += 10000;
    lab_sack(lab, 1, 1 + 5 * MSS, 1 + 10 * MSS);
    lab_run_us(lab, 3000000);
    assert_true(stack_counters(lab->stack)->tcp_rto >= 2);
    assert_int_equal(lab_info(lab).sacked, 0);
    lab_free(lab);
}

static void lies_in_sack_blocks_change_nothing(void **state) /* REC-1; faults.md T8 */
{
    static const uint32_t blocks[][2] = {
        { 1 + 20 * MSS, 1 + 30 * MSS },
        { 5 * MSS, 2 * MSS },
        { 1, 1 },
        { 0x80000000u, 0x80001000u },
        { 1 + 9 * MSS, 0x7fffffff },
        { 100, 101 },
        { 0xfffffff0u, 10 },
    };
    struct lab *lab = lab_open(10000, NULL);

    (void)state;
    lab_write(lab, 10 * MSS);
    lab_clear(lab);
    for (size_t i = 0; i < ARRAY_LEN(blocks); i++)
        lab_sack(lab, 1, blocks[i][0], blocks[i][1]);
    assert_int_equal(lab_info(lab).sacked, 0);
    assert_int_equal(lab->outs, 0);
    lab_free(lab);
}

static void a_scoreboard_splits_at_segments_only_and_has_a_cap(void **state) /* REC-1 */
{
    struct lab *lab = lab_open(100, NULL);

    (void)state;
    lab_write(lab, 10 * MSS);
    lab_sack(lab, 1, 1 + MSS + 7, 1 + 3 * MSS + 9); /* only the third is whole */
    assert_int_equal(lab_info(lab).sacked, MSS);
    assert_int_equal(lab_in_use(lab, "segment"), 2); /* and the first one, which the flight holds */
    lab_free(lab);
}

static void a_failed_write_is_a_loss_like_any_other(void **state) /* BAT-4 */
{
    struct lab *lab = lab_open(10000, NULL);

    (void)state;
    lab->emit_error = -EAGAIN;
    lab_write(lab, 10 * MSS);
    lab->emit_error = 0;
    assert_int_equal(lab_info(lab).unacked, 10 * MSS);
    lab_clear(lab);
    lab_run_us(lab, 500000);
    assert_true(lab->outs > 0);
    lab_free(lab);
}

/* ---- congestion -------------------------------------------------------------------------------------- */

static void slow_start_grows_with_what_is_used(void **state) /* CC-2: 5 of 10, 6 of 10, 9 of 10 */
{
    static const struct {
        uint32_t used, most;
    } rows[] = { { 5, 10 }, { 6, 12 }, { 9, 18 } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct lab *lab = lab_open(10000, NULL);

        for (int n = 0; n < 6; n++) {
            lab_write(lab, rows[i].used * MSS);
            lab->now_us += 10000;
            lab_ack(lab, 1, (uint32_t)lab->put + 1);
        }
        assert_in_range(lab_info(lab).cwnd_bytes, rows[i].used == 5 ? 10 * MSS : 10 * MSS + 1,
                        rows[i].most * MSS);
        lab_free(lab);
    }
}

static void little_is_read_ahead_of_what_can_leave(void **state) /* DN-3: what waits unsent is read later */
{
    struct lab *lab = lab_open(20000, NULL);

    (void)state;
    lab_write(lab, 100u << 20);
    for (int i = 0; i < 12; i++) {
        struct tcp_info info;

        lab_pump(lab, 20000, (uint32_t)lab_info(lab).bytes_down + 1);
        info = lab_info(lab);
        assert_in_range(lab->put - info.bytes_down - info.unacked, 0, 131072 + 65536);
    }
    assert_true(lab_info(lab).unacked > 1u << 20);
    lab_free(lab);
}

static void a_window_that_only_feeds_a_queue_stops_growing(void **state)
{
    struct lab_options o;
    struct lab *lab;
    uint64_t rtt = 100;

    (void)state;
    lab_options_default(&o);
    o.ws = 10;
    lab = lab_connected(&o);
    lab_write(lab, 200u << 20);
    for (int i = 0; i < 200; i++) { /* the rate is 1 GB/s: the round trip is what stands in the queue */
        rtt = 100 + lab_info(lab).unacked / 1000;
        lab_pump(lab, rtt, (uint32_t)lab_info(lab).bytes_down + 1);
        lab->outs = 0;
    }
    assert_in_range(lab_info(lab).cwnd_bytes, 512u << 10, 5u << 18);
    lab_free(lab);
}

static void cwnd_reaches_the_send_buffer_quickly_on_one_hop(void **state)
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    o.ws = 10;
    lab = lab_connected(&o);
    lab_write(lab, 100u << 20);
    for (int i = 0; i < 10; i++)
        lab_pump(lab, 100, (uint32_t)lab_info(lab).bytes_down + 1);
    assert_true(lab_info(lab).unacked > 2u << 20);
    lab_free(lab);
}

static void a_slow_path_gets_small_bursts_a_fast_one_large_packets(void **state) /* CC-4 */
{
    struct lab *lab = lab_open(5000, NULL);

    (void)state;
    lab_write(lab, 4000000);
    for (int i = 0; i < 2; i++)
        lab_pump(lab, 5000, (uint32_t)lab_info(lab).bytes_down + 1);
    assert_in_range(lab_info(lab).cwnd_bytes, 30 * MSS, 50 * MSS);
    for (size_t i = 0; i < lab->outs; i++)
        assert_in_range(lab->out[i].len, 0, 16 * MSS);
    lab_free(lab);
}

static void a_packet_is_a_millisecond_of_the_rate(
    void **state) /* tcp-stack.md CC-4: twice that in slow start, two segments at least */
{
    static const struct {
        uint32_t srtt_us;
        bool slow_start;
        uint32_t segments;
    } rows[] = { { 5000, true, 16 }, { 5000, false, 8 }, { 1000000, true, 2 }, { 100, true, 40 } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct lab *lab = lab_open(5000, NULL);
        uint32_t longest = 0;

        lab->conn->cwnd = 40 * MSS;
        lab->conn->ssthresh = rows[i].slow_start ? UINT32_MAX : 40 * MSS;
        lab->conn->srtt_us = rows[i].srtt_us;
        lab_write(lab, 40 * MSS);
        for (size_t k = 0; k < lab->outs; k++)
            longest = max_u32(longest, lab->out[k].len);
        assert_int_equal(longest, rows[i].segments * MSS);
        lab_free(lab);
    }
}

static void an_idle_connection_starts_anew(void **state) /* CC-3, RFC 5681 section 4.1 */
{
    struct lab *lab = lab_open(10000, NULL);

    (void)state;
    lab_write(lab, 40 * MSS);
    lab_pump(lab, 10000, 40 * MSS);
    assert_true(lab_info(lab).cwnd_bytes > 20 * MSS);
    lab_run_us(lab, 5000000);
    lab_clear(lab);
    lab_write(lab, 40 * MSS);
    assert_int_equal(lab_payload_out(lab), 10 * MSS);
    lab_free(lab);
}

static void one_reduction_for_one_window(void **state) /* CC-3 */
{
    struct lab *lab = lab_open(10000, NULL);
    uint32_t first;

    (void)state;
    lab_write(lab, 40 * MSS);
    lab_pump(lab, 10000, 10 * MSS);
    first = (uint32_t)lab_info(lab).bytes_down + 1;
    lab->now_us += 10000;
    lab_sack(lab, first, first + MSS, first + 2 * MSS);
    lab_sack(lab, first, first + MSS, first + 6 * MSS);
    {
        uint32_t ssthresh = lab_info(lab).ssthresh_bytes;

        lab_sack(lab, first, first + 8 * MSS, first + 19 * MSS);
        lab_sack(lab, first + 6 * MSS, first + 8 * MSS, first + 19 * MSS);
        lab_run_us(lab, 5000);
        assert_int_equal(lab_info(lab).ssthresh_bytes, ssthresh);
    }
    lab_free(lab);
}

/* ---- ECN --------------------------------------------------------------------------------------------- */

static void ecn_is_agreed_marked_echoed_and_obeyed(void **state) /* ECN-1, RFC 3168 section 6.1 */
{
    struct lab_options o;
    struct lab *lab;
    uint32_t cwnd;

    (void)state;
    lab_options_default(&o);
    lab = lab_new(&o);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN | LAB_ECE | LAB_CWR });
    assert_int_equal(lab_count(lab, "SYN,ACK,ECE"), 1);
    assert_int_equal(lab_last(lab)->tos & 3, 0);
    lab->now_us += 100;
    lab_ack(lab, 1, 1);
    lab_clear(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .len = 100, .tos = 3 });
    assert_int_equal(lab_count(lab, "ACK,ECE"), 1);
    assert_int_equal(lab_last(lab)->tos & 3, 0); /* not on pure ACKs */
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_CWR, .seq = 101, .ack = 1, .len = 100 });
    assert_int_equal(lab_count(lab, "ACK"), 1);
    lab_write(lab, 100000);
    assert_int_equal(lab_last(lab)->tos & 3, 2);
    cwnd = lab_info(lab).cwnd_bytes;
    lab_clear(lab);
    lab->now_us += 100;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_ECE, .seq = 201, .ack = 1 + 5 * MSS });
    assert_string_equal(lab_info(lab).cc_state, "cwr");
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_ECE, .seq = 201, .ack = 1 + 10 * MSS });
    assert_in_range(lab_info(lab).ssthresh_bytes, cwnd / 2, cwnd);
    assert_int_equal(lab_count(lab, "ACK,CWR"), 1);
    assert_string_equal(lab_info(lab).cc_state, "open"); /* its window is over */
    lab_free(lab);
}

static void ecn_can_be_turned_off(void **state)
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    o.config.ecn = false;
    lab = lab_new(&o);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN | LAB_ECE | LAB_CWR });
    assert_int_equal(lab_count(lab, "SYN,ACK"), 1);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hole_is_filled_once_and_at_once),
        cmocka_unit_test(a_long_hole_is_filled_by_few_packets),
        cmocka_unit_test(reordering_within_the_window_repeats_nothing),
        cmocka_unit_test(a_path_that_was_seen_to_reorder_gets_its_time),
        cmocka_unit_test(after_the_reordering_window_it_is_lost),
        cmocka_unit_test(an_old_delivery_puts_off_what_is_lost_by_an_rto_at_most),
        cmocka_unit_test(a_lost_tail_is_repaired_within_three_round_trips),
        cmocka_unit_test(a_segment_alone_is_probed_after_200_ms_more),
        cmocka_unit_test(three_duplicate_acks_repeat_one_segment),
        cmocka_unit_test(a_timeout_starts_again_with_one_segment),
        cmocka_unit_test(sack_marks_are_forgotten_after_a_second_timeout),
        cmocka_unit_test(lies_in_sack_blocks_change_nothing),
        cmocka_unit_test(a_scoreboard_splits_at_segments_only_and_has_a_cap),
        cmocka_unit_test(a_failed_write_is_a_loss_like_any_other),
        cmocka_unit_test(slow_start_grows_with_what_is_used),
        cmocka_unit_test(little_is_read_ahead_of_what_can_leave),
        cmocka_unit_test(a_window_that_only_feeds_a_queue_stops_growing),
        cmocka_unit_test(cwnd_reaches_the_send_buffer_quickly_on_one_hop),
        cmocka_unit_test(a_slow_path_gets_small_bursts_a_fast_one_large_packets),
        cmocka_unit_test(a_packet_is_a_millisecond_of_the_rate),
        cmocka_unit_test(an_idle_connection_starts_anew),
        cmocka_unit_test(one_reduction_for_one_window),
        cmocka_unit_test(ecn_is_agreed_marked_echoed_and_obeyed),
        cmocka_unit_test(ecn_can_be_turned_off),
        cmocka_unit_test(a_late_loop_reads_before_it_repeats),
        cmocka_unit_test(timeouts_of_whole_segments_try_1024_bytes_and_then_the_floor),
        cmocka_unit_test(a_needed_probe_is_a_loss_and_a_needless_one_is_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
