/* test_tcp_recv.c - faces src/stack/tcp_recv.c and tcp_ooo.c: acknowledgements, holes, the window
 * (tcp-stack.md 4, 5.3, 5.9). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "lab.h"

static struct lab *open_lab(bool stall)
{
    struct lab_options o;
    struct lab *lab;

    lab_options_default(&o);
    o.stall = stall;
    lab = lab_connected(&o);
    return lab;
}

static void feed(struct lab *lab, uint32_t seq, uint32_t len)
{
    lab_feed(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = seq, .ack = 1, .len = len });
}

/* Spends the credit for quick ACKs, as the first 16 segments of a connection do. */
static uint32_t past_quick_acks(struct lab *lab)
{
    uint32_t seq = 1;

    for (int i = 0; i < 16; i++, seq += 1000)
        lab_data(lab, seq, 1, 1000);
    lab_run_us(lab, 50000);
    lab_clear(lab);
    return seq;
}

/* ---- acknowledgements -------------------------------------------------------------------------------- */

static void a_batch_of_32_segments_gets_one_ack(void **state) /* BAT-1, ACK-2 */
{
    struct lab *lab = open_lab(false);

    (void)state;
    for (uint32_t i = 0; i < 32; i++)
        feed(lab, 1 + i * 1448, 1448);
    assert_int_equal(lab->outs, 0);
    lab_batch(lab);
    assert_int_equal(lab->outs, 1);
    assert_int_equal(lab_last(lab)->ack, 1 + 32 * 1448);
    assert_int_equal(lab->got, 32 * 1448);
    assert_int_equal(lab->readables, 1);
    lab_free(lab);
}

static void the_first_segments_are_acknowledged_at_once(void **state) /* ACK-1 */
{
    struct lab *lab = open_lab(false);

    (void)state;
    for (uint32_t i = 0; i < 16; i++)
        lab_data(lab, 1 + i * 100, 1, 100);
    assert_int_equal(lab_count(lab, "ACK"), 16);
    lab_data(lab, 1601, 1, 100);
    assert_int_equal(lab_count(lab, "ACK"), 16);
    lab_free(lab);
}

static void later_ones_wait_at_most_40_ms_or_for_a_second_one(void **state) /* ACK-1 */
{
    struct lab *lab = open_lab(false);
    uint32_t seq = past_quick_acks(lab);

    (void)state;
    lab_data(lab, seq, 1, 1000);
    assert_int_equal(lab->outs, 0);
    lab_run_us(lab, 39000);
    assert_int_equal(lab->outs, 0);
    lab_run_us(lab, 2000);
    assert_int_equal(lab->outs, 1);
    lab_clear(lab);
    lab_data(lab, seq + 1000, 1, 1000);
    lab_data(lab, seq + 2000, 1, 1000);
    assert_int_equal(lab->outs, 1);
    lab_run_us(lab, 100000);
    assert_int_equal(lab->outs, 1);
    lab_free(lab);
}

static void after_a_silence_segments_are_acknowledged_at_once_again(void **state) /* ACK-1: idle > RTO */
{
    struct lab *lab = open_lab(false);
    uint32_t seq = past_quick_acks(lab);

    (void)state;
    assert_int_equal(lab_info(lab).rto_us, 200100); /* of a round trip of 100 us */
    lab_run_us(lab, 140000);                        /* 190 ms since the last segment */
    lab_data(lab, seq, 1, 1000);
    assert_int_equal(lab->outs, 0);
    lab_run_us(lab, 210000);
    lab_clear(lab);
    for (uint32_t i = 1; i <= 16; i++) {
        lab_data(lab, seq + i * 1000, 1, 1000);
        assert_int_equal(lab_count(lab, "ACK"), i);
    }
    lab_data(lab, seq + 17000, 1, 1000);
    assert_int_equal(lab_count(lab, "ACK"), 16);
    lab_free(lab);
}

static void data_carries_the_ack(void **state) /* ACK-1: piggybacked */
{
    struct lab *lab = open_lab(false);
    uint32_t seq = past_quick_acks(lab);

    (void)state;
    lab_data(lab, seq, 1, 500);
    lab_write(lab, 10);
    assert_int_equal(lab->outs, 1);
    assert_int_equal(lab_last(lab)->ack, seq + 500);
    lab_run_us(lab, 60000);
    assert_int_equal(lab_count(lab, "ACK"), 1);
    lab_free(lab);
}

static void a_super_segment_counts_as_its_segments(void **state) /* ACK-1, ACK-2 */
{
    struct lab *lab = open_lab(false);
    uint32_t seq = past_quick_acks(lab);

    (void)state;
    lab_send(lab,
             &(struct lab_seg){ .flags = LAB_ACK, .seq = seq, .ack = 1, .len = 44 * 1448, .gso_size = 1448 });
    assert_int_equal(lab->outs, 1);
    assert_int_equal(lab_last(lab)->ack, seq + 44 * 1448);
    assert_false(lab->got_wrong);
    assert_int_equal(stack_counters(lab->stack)->payload_copied, 0);
    lab_free(lab);
}

/* The same bytes as single segments and as super-segments, in the same odd order: the same stream, ACK and
 * SACKs. */
static void super_segments_mean_what_their_segments_mean(void **state) /* FUZ-8; faults.md T18 */
{
    static const struct {
        uint32_t seq, len;
        uint16_t mss;
        uint8_t flags;
    } parts[] = {
        { 1, 3000, 1000, LAB_ACK },
        { 8001, 4000, 1000, LAB_ACK | LAB_PSH },
        { 6001, 500, 1, LAB_ACK },
        { 3001, 3500, 700, LAB_ACK },
        { 14001, 600, 536, LAB_ACK | LAB_ECE },
        { 9001, 5000, 88, LAB_ACK },
        { 14601, 1000, 100, LAB_ACK | LAB_FIN },
    };
    struct lab *one = open_lab(false), *super = open_lab(false);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        for (uint32_t at = 0; at < parts[i].len; at += parts[i].mss) {
            uint32_t len = parts[i].len - at < parts[i].mss ? parts[i].len - at : parts[i].mss;
            bool last = at + len == parts[i].len;

            lab_feed(one, &(struct lab_seg){ .flags = last ? parts[i].flags : LAB_ACK,
                                             .seq = parts[i].seq + at,
                                             .ack = 1,
                                             .len = len });
        }
        lab_batch(one);
        lab_send(super, &(struct lab_seg){ .flags = parts[i].flags,
                                           .seq = parts[i].seq,
                                           .ack = 1,
                                           .len = parts[i].len,
                                           .gso_size = parts[i].mss });
        assert_int_equal(one->got, super->got);
        assert_int_equal(lab_last(one)->ack, lab_last(super)->ack);
        assert_int_equal(one->eof, super->eof);
        assert_int_equal(lab_in_use(one, "interval"), lab_in_use(super, "interval"));
    }
    assert_false(one->got_wrong || super->got_wrong);
    lab_free(one);
    lab_free(super);
}

/* ---- holes ------------------------------------------------------------------------------------------- */

static void at_most_128_islands_are_kept(void **state) /* OOO-1; faults.md T8 */
{
    struct lab *lab = open_lab(false);

    (void)state;
    for (uint32_t i = 0; i < 10000; i++)
        feed(lab, 3 + i * 2, 1);
    lab_batch(lab);
    assert_int_equal(lab_in_use(lab, "piece"), 128);
    assert_int_equal(stack_counters(lab->stack)->tcp_ooo_dropped, 10000 - 128);
    assert_in_range(lab_in_use(lab, "chunk2"), 1, 2);
    assert_int_equal(lab->outs, 1);
    for (uint32_t i = 0; i < 129; i++)
        feed(lab, 1 + i * 2, 2);
    lab_batch(lab);
    assert_int_equal(lab->got, 258);
    assert_false(lab->got_wrong);
    lab_free(lab);
}

static void what_was_sacked_is_never_dropped(void **state) /* ACK-3: no reneging */
{
    struct lab *lab = open_lab(true);

    (void)state;
    lab_data(lab, 50001, 1, 1000);
    for (uint32_t i = 0; i < 35; i++)
        lab_data(lab, 1 + i * 1400, 1, 1400);
    lab_data(lab, 49001, 1, 1000);
    assert_int_equal(lab_last(lab)->ack, 51001);
    lab_free(lab);
}

/* ---- memory ------------------------------------------------------------------------------------------ */

static size_t held_bytes(const struct lab *lab)
{
    struct stack_pool_info info[32];
    size_t n = stack_pools(lab->stack, info, ARRAY_LEN(info)), sum = 0;

    for (size_t i = 0; i < n; i++) {
        if (strncmp(info[i].name, "chunk", 5) == 0 || strcmp(info[i].name, "slot") == 0)
            sum += (size_t)info[i].in_use * info[i].object_bytes;
    }
    return sum;
}

static void one_byte_segments_into_a_closed_window_stay_cheap(void **state) /* MEM-2, WND-5 */
{
    struct lab *lab = open_lab(true);
    uint32_t sent = 0;

    (void)state;
    lab->opt.stall = true;
    while (sent < 300000) {
        for (int i = 0; i < 32; i++)
            feed(lab, 1 + sent++, 1);
        lab_batch(lab);
    }
    assert_in_range(tcp_readable_bytes(lab->conn), 262144, 262144 + 256);
    assert_in_range(held_bytes(lab), 262144, (1u << 20) + 65536 + 128);
    assert_int_equal(lab_last(lab)->wnd, 0);
    lab_read(lab, SIZE_MAX);
    while (tcp_readable_bytes(lab->conn) > 0)
        lab_read(lab, SIZE_MAX);
    assert_false(lab->got_wrong);
    lab_free(lab);
}

static void small_leftovers_do_not_pin_slots(void **state) /* MEM-2 */
{
    struct lab *lab = open_lab(true);

    (void)state;
    for (uint32_t i = 0; i < 20; i++)
        lab_data(lab, 1 + i * 1448, 1, 1448);
    assert_int_equal(lab_in_use(lab, "slot"), 0);
    lab_send(lab,
             &(struct lab_seg){ .flags = LAB_ACK, .seq = 28961, .ack = 1, .len = 40000, .gso_size = 1448 });
    assert_int_equal(lab_in_use(lab, "slot"), 1);
    lab_read(lab, 28960 + 30000);
    lab_batch(lab);
    assert_int_equal(lab_in_use(lab, "slot"), 0);
    lab_read(lab, SIZE_MAX);
    assert_int_equal(lab->got, 68960);
    assert_false(lab->got_wrong);
    lab_batch(lab);
    assert_int_equal(lab_in_use(lab, "piece"), 0);
    lab_free(lab);
}

/* Most of what lay in a slot comes again in order, and two bytes of it are all that the slot is kept for. */
static void what_is_left_of_an_overlap_does_not_pin_a_slot(void **state) /* MEM-2 */
{
    struct lab *lab = open_lab(true);
    uint32_t at = 1;

    (void)state;
    for (int i = 0; i < 12; i++, at += 16385) {
        lab_data(lab, at + 1, 1, 16384); /* beyond a hole of one byte */
        assert_int_equal(lab_in_use(lab, "slot"), 1);
        lab_data(lab, at, 1, 16383);
        assert_int_equal(lab_in_use(lab, "slot"), 0);
        assert_in_range(held_bytes(lab), 1, 4 * tcp_readable_bytes(lab->conn) + 65536 + 128);
    }
    while (tcp_readable_bytes(lab->conn) > 0)
        lab_read(lab, SIZE_MAX);
    assert_int_equal(lab->got, at - 1);
    assert_false(lab->got_wrong);
    lab_free(lab);
}

/* ---- the window -------------------------------------------------------------------------------------- */

static void the_right_edge_never_moves_back(void **state) /* WND-1 */
{
    struct lab *lab = open_lab(true);
    uint32_t seq = 1, edge = 0;
    struct prng r;

    (void)state;
    prng_seed(&r, 3);
    for (int i = 0; i < 3000; i++) {
        uint32_t len = 1 + prng_below(&r, 1448);
        const struct lab_out *o;

        lab_data(lab, seq, 1, len);
        if (prng_below(&r, 3) == 0) {
            lab_read(lab, prng_below(&r, 5000));
            lab_batch(lab);
        }
        o = lab_last(lab);
        if (o == NULL)
            continue;
        seq = o->ack;
        assert_true(o->ack + o->wnd + 255 >=
                    edge); /* less than one step of the scale, RFC 7323 section 2.4 */
        if (o->ack + o->wnd > edge)
            edge = o->ack + o->wnd;
        assert_true(edge - (uint32_t)lab->got <= 262144 + 2 * 256 + 1);
        lab_clear(lab);
    }
    lab_free(lab);
}

static void one_update_opens_a_closed_window(void **state) /* WND-2 */
{
    struct lab *lab = open_lab(true);
    uint32_t seq = 1;

    (void)state;
    while (lab_info(lab).rcv_wnd > 0) {
        uint32_t len = lab_info(lab).rcv_wnd < 1448 ? lab_info(lab).rcv_wnd : 1448;

        lab_data(lab, seq, 1, len);
        seq += len;
    }
    lab_run_us(lab, 10000000);
    lab_clear(lab);
    lab_read(lab, 1000); /* not worth a word */
    lab_batch(lab);
    assert_int_equal(lab->outs, 0);
    lab_read(lab, SIZE_MAX);
    while (tcp_readable_bytes(lab->conn) > 0)
        lab_read(lab, SIZE_MAX);
    lab_batch(lab);
    assert_int_equal(lab->outs, 1);
    assert_in_range(lab_last(lab)->wnd, 200000, 262144);
    lab_run_us(lab, 1000000);
    assert_int_equal(lab->outs, 1);
    lab_free(lab);
}

static void a_zero_window_takes_acks_resets_and_a_fin(void **state) /* WND-5, RFC 9293 MUST-66 */
{
    struct lab *lab = open_lab(true);
    uint32_t seq = 1;

    (void)state;
    lab_write(lab, 100);
    while (lab_info(lab).rcv_wnd > 0) {
        uint32_t len = lab_info(lab).rcv_wnd < 1448 ? lab_info(lab).rcv_wnd : 1448;

        lab_data(lab, seq, 1, len);
        seq += len;
    }
    lab_clear(lab);
    lab_data(lab, seq, 51, 10);
    assert_int_equal(lab_info(lab).unacked, 50);
    assert_int_equal(lab_last(lab)->ack, seq);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = seq, .ack = 101 });
    assert_int_equal(lab_last(lab)->ack, seq + 1);
    assert_string_equal(lab_info(lab).state, "CLOSE-WAIT");
    lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = seq + 1 });
    assert_int_equal(lab->closes, 1);
    lab_free(lab);
}

static void urgent_data_is_just_data(void **state) /* SEQ-7; faults.md T16 */
{
    struct lab *lab = open_lab(false);

    (void)state;
    lab_send(lab,
             &(struct lab_seg){ .flags = LAB_ACK | LAB_URG, .seq = 1, .ack = 1, .len = 1000, .urgent = 7 });
    lab_send(lab, &(struct lab_seg){
                      .flags = LAB_ACK | LAB_URG, .seq = 1001, .ack = 1, .len = 1000, .urgent = 65535 });
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 2001, .ack = 1, .len = 1000, .urgent = 1 });
    assert_int_equal(lab->got, 3000);
    assert_false(lab->got_wrong);
    lab_free(lab);
}

/* ---- timestamps -------------------------------------------------------------------------------------- */

static void an_old_timestamp_is_rejected_but_an_rst_is_not(void **state) /* TS-1; faults.md T17 */
{
    struct lab *lab = open_lab(false);

    (void)state;
    lab_data(lab, 1, 1, 100);
    lab_clear(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 101, .ack = 1, .len = 100, .old_ts = true });
    assert_int_equal(lab->got, 100);
    assert_int_equal(lab_count(lab, "ACK"), 1);
    assert_int_equal(stack_counters(lab->stack)->tcp_paws, 1);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 101, .ack = 1, .len = 100, .no_ts = true });
    assert_int_equal(lab->got, 100);
    assert_int_equal(lab->closes, 0);
    lab_run_us(lab, 25ull * 86400 * 1000000); /* after 24 days it means nothing */
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 101, .ack = 1, .len = 100, .tsval = 7 });
    assert_int_equal(lab->got, 200);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 201 });
    assert_int_equal(lab->closes, 1);
    lab_free(lab);
}

static void timestamps_advance_and_echo_the_right_value(void **state) /* TS-1, RFC 7323 section 4.3 */
{
    struct lab *lab = open_lab(false);
    uint32_t first, echoed;

    (void)state;
    lab_data(lab, 1, 1, 100);
    first = lab_last(lab)->tsval;
    echoed = lab_last(lab)->tsecr;
    lab_run_us(lab, 1000000);
    lab_data(lab, 1001, 1, 100); /* beyond a hole: not the one to echo */
    assert_int_equal(lab_last(lab)->tsecr, echoed);
    tcp_shutdown(lab->conn);
    lab_batch(lab);
    assert_int_equal(lab_last(lab)->flags & LAB_FIN, LAB_FIN);
    assert_in_range(lab_last(lab)->tsval - first, 999, 1001);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_of_32_segments_gets_one_ack),
        cmocka_unit_test(the_first_segments_are_acknowledged_at_once),
        cmocka_unit_test(later_ones_wait_at_most_40_ms_or_for_a_second_one),
        cmocka_unit_test(after_a_silence_segments_are_acknowledged_at_once_again),
        cmocka_unit_test(data_carries_the_ack),
        cmocka_unit_test(a_super_segment_counts_as_its_segments),
        cmocka_unit_test(super_segments_mean_what_their_segments_mean),
        cmocka_unit_test(at_most_128_islands_are_kept),
        cmocka_unit_test(what_was_sacked_is_never_dropped),
        cmocka_unit_test(one_byte_segments_into_a_closed_window_stay_cheap),
        cmocka_unit_test(small_leftovers_do_not_pin_slots),
        cmocka_unit_test(what_is_left_of_an_overlap_does_not_pin_a_slot),
        cmocka_unit_test(the_right_edge_never_moves_back),
        cmocka_unit_test(one_update_opens_a_closed_window),
        cmocka_unit_test(a_zero_window_takes_acks_resets_and_a_fin),
        cmocka_unit_test(urgent_data_is_just_data),
        cmocka_unit_test(an_old_timestamp_is_rejected_but_an_rst_is_not),
        cmocka_unit_test(timestamps_advance_and_echo_the_right_value),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
