/* test_tcp_send.c - faces src/stack/tcp_output.c, tcp_send.c, tcp_timer.c and tcp_icmp.c: what leaves and when
 * (tcp-stack.md 1.4, 5.4 and ICM-1 to ICM-3). */
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

/* ---- sizes ------------------------------------------------------------------------------------------- */

static void the_first_flight_is_ten_segments_in_one_packet(void **state) /* CC-2, DN-4, PERF-15 */
{
    struct lab *lab = lab_open(100, NULL);

    (void)state;
    lab_write(lab, 1000000);
    assert_int_equal(lab->outs, 1);
    assert_int_equal(lab_last(lab)->len, 10 * MSS);
    assert_int_equal(lab_last(lab)->gso_size, MSS);
    assert_true(lab_last(lab)->df);
    lab_free(lab);
}

static void without_offload_each_segment_is_a_packet(void **state)
{
    struct lab *lab = lab_open(100, lab_no_tso);

    (void)state;
    lab_write(lab, 1000000);
    assert_int_equal(lab->outs, 10);
    for (size_t i = 0; i < lab->outs; i++) {
        assert_int_equal(lab->out[i].len, MSS);
        assert_int_equal(lab->out[i].gso_size, 0);
    }
    lab_free(lab);
}

static void acks_of_a_batch_free_one_large_packet(void **state) /* BAT-2 */
{
    struct lab *lab = lab_open(100, NULL);

    (void)state;
    lab_write(lab, 1000000);
    lab_clear(lab);
    lab->now_us += 100;
    for (uint32_t i = 1; i <= 10; i++)
        lab_feed(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1 + i * MSS });
    lab_batch(lab);
    assert_int_equal(lab->outs, 1);
    assert_int_equal(lab_last(lab)->len, 20 * MSS);
    lab_free(lab);
}

static void super_segments_are_as_large_as_a_packet_can_be(void **state) /* VN-5, PERF-15 */
{
    for (int v6 = 0; v6 < 2; v6++) {
        struct lab_options o;
        struct lab *lab;
        uint32_t most = 0, mss = v6 ? 1428 : MSS;

        lab_options_default(&o);
        o.v6 = v6;
        o.ws = 10;
        lab = lab_connected(&o);
        lab_write(lab, 20000000);
        for (int i = 0; i < 12; i++)
            lab_pump(lab, 100, (uint32_t)lab_info(lab).bytes_down + 1);
        for (size_t i = 0; i < lab->outs; i++)
            most = lab->out[i].len > most ? lab->out[i].len : most;
        assert_int_equal(most % mss, 0);
        assert_in_range(most, 65535 - 100 - mss, 65535 - 52);
        lab_free(lab);
    }
    (void)state;
}

/* Whatever the MSS: 65,535 bytes with all headers, since Linux refuses what IPv6 could say beyond that (faults.md V2). */
static void no_mss_makes_a_packet_too_long(void **state) /* VN-5 */
{
    uint32_t longest[2] = { 0, 0 };

    (void)state;
    for (uint16_t offered = 1200; offered <= 1440; offered++) {
        for (int v6 = 0; v6 < 2; v6++) {
            struct lab_options o;
            struct lab *lab;

            lab_options_default(&o);
            o.v6 = v6;
            o.config.snd_buffer_initial = 1u << 20;
            lab = lab_new(&o);
            lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .mss = offered });
            lab->now_us += 100;
            lab_ack(lab, 1, 1);
            lab->conn->cwnd = 1u << 20; /* as after a long transfer */
            for (uint32_t i = 1; i <= 3 && offered % 2 > 0; i++)
                lab_data(lab, 1 + 1000 * i, 1, 10); /* holes: each packet carries SACK blocks, too */
            lab_write(lab, 3 * 65536);
            for (size_t i = 0; i < lab->outs; i++)
                longest[v6] = lab->out[i].packet_bytes > longest[v6] ? lab->out[i].packet_bytes : longest[v6];
            lab_free(lab);
        }
    }
    assert_in_range(longest[0], 65000, 65535);
    assert_in_range(longest[1], 65000, 65535);
}

static void a_larger_buffer_is_filled_whatever_the_window(
    void **state) /* TST-3: write() takes what SO_SNDBUF promises */
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    o.config.snd_buffer_initial = 1u << 20;
    lab = lab_connected(&o);
    lab_write(lab, 1u << 20);
    assert_int_equal(lab->put, 1u << 20);
    assert_int_equal(lab_info(lab).unacked + lab_info(lab).unsent, 1u << 20);
    assert_int_equal(lab_info(lab).unacked,
                     lab_info(lab).cwnd_bytes / lab_info(lab).mss_bytes * lab_info(lab).mss_bytes);
    lab_free(lab);
}

static void bulk_copies_nothing(void **state) /* DN-1, PERF-1, PERF-4 */
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    o.ws = 10;
    lab = lab_new(&o);
    lab->keep_payload = false;
    lab_connect(lab);
    lab->to_put = 64u << 20;
    lab_write(lab, 0);
    while (lab_info(lab).unacked > 0) {
        lab->outs = 0;
        lab->now_us += 100;
        lab_ack(lab, 1, (uint32_t)(lab_info(lab).bytes_down + lab_info(lab).unacked + 1));
    }
    assert_int_equal(lab_info(lab).bytes_down, 64u << 20);
    assert_in_range(stack_counters(lab->stack)->payload_copied, 0, (64u << 20) / 1000);
    assert_true((64u << 20) / stack_counters(lab->stack)->tcp_out > 48 * 1024);
    assert_true(stack_wheel(lab->stack)->operations * 10 <
                stack_counters(lab->stack)->tcp_out + 200); /* PERF-6 */
    lab_free(lab);
}

/* Whole packets leave as they are queued; the last packet that came may be long ago, and tells no time. */
static void what_a_socket_brings_after_silence_is_dated_now(void **state) /* ARC-1 */
{
    struct lab *lab = lab_open(20000, NULL);

    (void)state;
    lab->now_us += 5000000;
    stack_time(lab->stack, lab->now_us);
    lab_write(lab, 10 * MSS);
    assert_int_equal(lab_payload_out(lab), 10 * MSS);
    lab->now_us += 20000;
    lab_ack(lab, 1, 1 + 10 * MSS);
    assert_int_equal(lab_info(lab).srtt_us, 20000);
    lab_free(lab);
}

static void small_writes_are_packed_and_pushed(void **state) /* SND-2, copy-break */
{
    struct lab *lab = lab_open(100, NULL);

    (void)state;
    for (int i = 0; i < 50; i++) {
        uint8_t *p;

        assert_true(tcp_tx_space(lab->conn, &p) >= 100);
        for (uint32_t k = 0; k < 100; k++)
            p[k] = lab_pattern((uint64_t)i * 100 + k);
        tcp_tx_commit(lab->conn, 100);
    }
    lab_batch(lab);
    assert_int_equal(lab->outs, 1);
    assert_int_equal(lab_last(lab)->len, 5000);
    assert_true(lab_last(lab)->flags & LAB_PSH);
    for (uint32_t i = 0; i < 5000; i++)
        assert_int_equal(lab_last(lab)->data[i], lab_pattern(i));
    assert_in_range(lab_in_use(lab, "chunk64"), 0, 1);
    lab_ack(lab, 1, 5001);
    assert_int_equal(lab_in_use(lab, "chunk2"), 0);
    lab_free(lab);
}

/* The ACK that leaves in the same turn must not take the retry with it. */
static void a_writer_that_found_no_memory_is_woken_without_any_packet(void **state) /* MEM-3 */
{
    struct lab *lab = lab_open(100, NULL);
    struct pool *blocks = lab->stack->blocks;
    uint8_t *p;

    (void)state;
    lab_feed(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .len = 100 });
    blocks[BLOCK_CHUNK64].fail_every = blocks[BLOCK_CHUNK16].fail_every = 1;
    assert_int_equal(tcp_tx_space(lab->conn, &p), 0);
    blocks[BLOCK_CHUNK64].fail_every = blocks[BLOCK_CHUNK16].fail_every = 0;
    lab_batch(lab);
    assert_int_equal(lab_count(lab, "ACK"), 1);
    assert_int_equal(lab->writables, 0);
    lab_run_us(lab, 2 * NO_MEMORY_RETRY_US);
    assert_int_equal(lab->writables, 1);
    assert_true(tcp_tx_space(lab->conn, &p) > 0);
    lab_free(lab);
}

static void the_sender_does_not_dribble_into_a_small_window(void **state) /* SND-1 */
{
    struct lab *lab = lab_open(100, NULL);

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .wnd = 40 }); /* 40 << 7 = 5,120 */
    lab_write(lab, 100000);
    assert_int_equal(lab_payload_out(lab), 3 * MSS);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1 + MSS, .wnd = 30 }); /* 3,840 */
    assert_int_equal(lab_payload_out(lab), 3 * MSS);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1 + 3 * MSS, .wnd = 30 });
    assert_int_equal(lab_payload_out(lab), 5 * MSS);
    lab_free(lab);
}

/* The client's window never was more than 1,000 bytes, so half of that is worth a packet, and less is not. */
static void half_of_the_largest_window_is_worth_a_packet(void **state) /* SND-1 */
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    o.ws = -1;
    lab = lab_new(&o);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .wnd = 1000 });
    lab->now_us += 100;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .wnd = 1000 });
    lab_clear(lab);
    lab_write(lab, 5000);
    assert_int_equal(lab_payload_out(lab), 1000);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 601, .wnd = 500 }); /* 100 more */
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1001, .wnd = 499 });
    assert_int_equal(lab_payload_out(lab), 1000);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1001, .wnd = 500 });
    assert_int_equal(lab_payload_out(lab), 1500);
    lab_free(lab);
}

static void only_the_last_segment_of_what_is_queued_is_pushed(void **state) /* SND-2 */
{
    struct lab *lab = lab_open(100, lab_no_tso);

    (void)state;
    lab_write(lab, 9 * MSS + 100);
    assert_int_equal(lab->outs, 10);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(lab->out[i].flags & LAB_PSH, i == 9 ? LAB_PSH : 0);
    lab_free(lab);
}

static void a_small_buffer(struct lab_options *o)
{
    o->config.snd_buffer_max = 128u << 10;
}

/* All of it is on its way, so that nothing but the limit holds the reader up. */
static void reading_resumes_when_two_thirds_of_the_limit_are_left(void **state) /* DN-3 */
{
    struct lab *lab = lab_open(100, a_small_buffer);
    uint32_t most = (128u << 10) / 3 * 2, all;

    (void)state;
    lab->conn->cwnd = 1u << 20; /* as after a long transfer */
    lab_write(lab, 1000000);
    all = (uint32_t)lab->put;
    assert_in_range(all, 128u << 10, (128u << 10) + 65536);
    assert_int_equal(lab_info(lab).unacked, all);
    lab->to_put = lab->put;
    lab_ack(lab, 1, 1 + all - most - 1);
    assert_int_equal(lab->writables, 0);
    lab_ack(lab, 1, 1 + all - most);
    assert_int_equal(lab->writables, 1);
    lab_free(lab);
}

static void reading_stops_at_the_limit_and_resumes_at_two_thirds(void **state) /* DN-3 */
{
    struct lab *lab = lab_open(100, NULL);
    uint32_t limit = 128 << 10;

    (void)state;
    lab_write(lab, 10000000);
    assert_in_range(lab->put, limit, limit + 65536);
    assert_int_equal(lab->writables, 0);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1 + 2 * MSS, .zero_wnd = true });
    assert_int_equal(lab->writables, 0);
    lab_run_us(lab, 1000000);
    assert_in_range(lab->put, limit, limit + 65536);
    lab_ack(lab, 1, 1 + 10 * MSS);
    lab_pump(lab, 100, 190000);
    assert_true(lab->writables > 0);
    lab_free(lab);
}

/* ---- the closed window ------------------------------------------------------------------------------- */

static void a_closed_window_is_probed_for_ever_while_it_answers(void **state) /* ZWP-1; faults.md T9 */
{
    struct lab *lab = lab_open(100, NULL);
    uint64_t cwnd, at_us[30], pause_us = 0;
    unsigned probes = 0;

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .zero_wnd = true });
    lab_write(lab, 5000);
    assert_int_equal(lab->outs, 0);
    cwnd = lab_info(lab).cwnd_bytes;
    for (int i = 0; i < 600; i++) {
        lab_run_us(lab, 1000000);
        if (lab->outs > 0) {
            for (size_t k = 0; k < lab->outs; k++) {
                assert_int_equal(lab->out[k].len, 0);
                assert_in_range(probes, 0, ARRAY_LEN(at_us) - 1);
                at_us[probes++] = lab->out[k].at_us;
            }
            lab_clear(lab);
            lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .zero_wnd = true });
        }
    }
    assert_int_equal(lab->closes, 0);
    assert_in_range(probes, 15, 25);
    for (unsigned i = 1; i < probes; i++) { /* twice as long each time, up to a minute */
        uint64_t wanted_us = 2 * pause_us < 60000000 ? 2 * pause_us : 60000000;

        if (i > 1)
            assert_in_range(at_us[i] - at_us[i - 1], wanted_us - 3000, wanted_us + 3000);
        pause_us = at_us[i] - at_us[i - 1];
    }
    assert_in_range(pause_us, 59998000, 60002000);
    assert_int_equal(lab_info(lab).cwnd_bytes, cwnd);
    lab_run_us(lab, 61000000); /* the update was lost; the next probe's answer opens it */
    assert_true(lab->outs > 0);
    lab_clear(lab);
    lab_ack(lab, 1, 1);
    assert_int_equal(lab_payload_out(lab), 5000);
    lab_free(lab);
}

static void a_closed_window_without_answers_times_out(void **state) /* UTO-1 */
{
    struct lab *lab = lab_open(100, NULL);

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .zero_wnd = true });
    lab_write(lab, 5000);
    lab_run_us(lab, 119990000);
    assert_int_equal(lab->closes, 0);
    lab_run_us(lab, 1000000); /* 120 s from the first question that nobody answered */
    assert_int_equal(lab->closes, 1);
    assert_int_equal(lab->close_err, -ETIMEDOUT);
    assert_int_equal(lab_count(lab, "RST,ACK"), 1);
    lab_free(lab);
}

/* The answer to a probe opened the window by less than a segment, and that was its last word. */
static void a_client_that_vanishes_behind_a_sliver_times_out(void **state) /* UTO-1, ZWP-1 */
{
    struct lab *lab = lab_open(100, NULL);

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .zero_wnd = true });
    lab_write(lab, 5000);
    while (lab->outs == 0)
        lab_run_us(lab, 1000);
    lab_clear(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .wnd = 8 }); /* 1,024 bytes */
    assert_int_equal(lab_payload_out(lab), 1024);
    lab_run_us(lab, 119000000);
    assert_int_equal(lab->closes, 0);
    lab_run_us(lab, 10000000); /* 120 s from the first question that nobody answered, the first time-out */
    assert_int_equal(lab->closes, 1);
    assert_int_equal(lab->close_err, -ETIMEDOUT);
    lab_free(lab);
}

/* Probes are a minute apart, and the time that a client may be silent is shorter here; it always answers. */
static void a_short_user_timeout_does_not_end_what_answers(void **state) /* UTO-1, ZWP-1, SND-3 */
{
    for (int shrunk = 0; shrunk < 2; shrunk++) { /* closed from the start, or over what is in flight */
        struct lab *lab = lab_open(100, NULL);
        unsigned probes = 0;

        assert_int_equal(tcp_set_option(lab->conn, TCP_OPT_USER_TIMEOUT_MS, 5000), 0);
        if (shrunk)
            lab_write(lab, 5000);
        lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .zero_wnd = true });
        if (!shrunk)
            lab_write(lab, 5000);
        for (uint64_t end_us = lab->now_us + 600000000; lab->now_us < end_us;) {
            lab_clear(lab);
            lab_run_us(lab, stack_next_deadline(lab->stack) - lab->now_us);
            probes += lab->outs > 0;
            if (lab->outs > 0) /* within the millisecond */
                lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .zero_wnd = true });
            assert_int_equal(lab->closes, 0);
        }
        assert_in_range(probes, 100,
                        140); /* one each 5 s: any later would be too late for one that does not answer */
        assert_int_equal(lab->closes, 0);
        lab_run_us(lab, 70000000); /* and now it is gone */
        assert_int_equal(lab->closes, 1);
        lab_free(lab);
    }
    (void)state;
}

static void a_sliver_of_a_window_is_used_after_a_while(void **state) /* ZWP-1, RFC 9293 section 3.8.6.2.1 */
{
    struct lab *lab = lab_open(100, NULL);

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .wnd = 1 }); /* 128 bytes */
    lab_write(lab, 5000);
    assert_int_equal(lab->outs, 0);
    lab_run_us(lab, 1500000);
    assert_true(lab->outs > 0);
    assert_int_equal(lab->out[0].len, 128);
    lab_free(lab);
}

static void a_window_that_shrinks_stops_new_data_only(void **state) /* SND-3 */
{
    struct lab *lab = lab_open(10000, NULL);

    (void)state;
    lab_write(lab, 100000);
    lab_clear(lab);
    lab_send(lab, &(struct lab_seg){
                      .flags = LAB_ACK, .seq = 1, .ack = 1 + MSS, .wnd = 8 }); /* edge inside the flight */
    assert_int_equal(lab_payload_out(lab), 0);
    lab_run_us(lab, 700000);
    assert_true(lab_payload_out(lab) > 0);
    for (size_t i = 0; i < lab->outs; i++)
        assert_true(lab->out[i].seq + lab->out[i].len <= 1 + 10 * MSS);
    assert_int_equal(lab->closes, 0);
    lab_free(lab);
}

/* After a timeout all ten segments count as lost; the window has room for three of them. */
static void what_lies_beyond_a_shrunk_window_is_not_repeated(void **state) /* SND-3 */
{
    struct lab *lab = lab_open(10000, lab_no_tso);

    (void)state;
    lab_write(lab, 10 * MSS);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .wnd = 33 }); /* 4,224 bytes */
    while (lab_info(lab).backoff == 0)
        lab_run_us(lab, 1000);
    lab_clear(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1 + MSS, .wnd = 22 });
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1 + 2 * MSS, .wnd = 11 });
    assert_int_equal(lab_last(lab)->seq, 1 + 2 * MSS); /* the third */
    for (size_t i = 0; i < lab->outs; i++)
        assert_true(lab->out[i].seq <= 1 + 2 * MSS);
    lab_free(lab);
}

/* ---- path MTU ---------------------------------------------------------------------------------------- */

static void v6(struct lab_options *o)
{
    o->v6 = true;
}

static void too_big_lowers_the_mtu_and_repeats_at_once(void **state) /* ICM-1, ICM-3, VN-7 */
{
    (void)state;
    for (int family = 0; family < 2; family++) {
        struct lab *lab = lab_open(10000, family ? v6 : NULL);
        uint8_t type = family ? 2 : 3, code = family ? 0 : 4;
        uint32_t mss = lab_info(lab).mss_bytes, fits = 1400 - (family ? 72 : 52), cwnd;

        lab_write(lab, 10 * mss);
        cwnd = lab_info(lab).cwnd_bytes;
        lab_clear(lab);
        lab_icmp(lab, 1 + 10 * mss, type, code, 1400); /* beyond what was sent: ignored */
        lab_icmp(lab, 0, type, code, 1400);
        assert_int_equal(lab->outs, 0);
        lab_icmp(lab, 1, type, code, 1400);
        assert_int_equal(lab_info(lab).mss_bytes, fits);
        assert_int_equal(lab_payload_out(lab), 10 * mss); /* all of it, at once */
        assert_int_equal(lab->out[0].seq, 1);
        for (size_t i = 0; i < lab->outs; i++)
            assert_int_equal(lab->out[i].gso_size, lab->out[i].len > fits ? fits : 0);
        assert_int_equal(lab_info(lab).cwnd_bytes, cwnd);
        assert_int_equal(lab_info(lab).backoff, 0);
        lab_clear(
            lab); /* a new connection of this client begins with it, and still offers what the device has */
        lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 41000 });
        assert_int_equal(lab_last(lab)->mss, family ? 1440 : 1460);
        lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .port = 41000 });
        assert_int_equal(lab_info(lab).mss_bytes, fits);
        lab_free(lab);
    }
}

static void mtus_below_the_floor_are_not_believed(void **state) /* ICM-3 */
{
    struct lab_options o;
    struct lab *lab = lab_open(10000, NULL);

    (void)state;
    lab_write(lab, 10 * MSS);
    lab_icmp(lab, 1, 3, 4, 68);
    assert_int_equal(lab_info(lab).mss_bytes, 552 - 52);
    lab_free(lab);
    lab_options_default(&o);
    o.v6 = true;
    lab = lab_connected(&o);
    lab_write(lab, 100000);
    lab_icmp(lab, 1, 2, 0, 1279);
    assert_int_equal(lab_info(lab).mss_bytes, 1428);
    lab_icmp(lab, 1, 2, 0, 1280);
    assert_int_equal(lab_info(lab).mss_bytes, 1280 - 72);
    lab_free(lab);
}

static void icmp_errors_never_end_an_open_connection(void **state) /* ICM-2 */
{
    struct lab *lab = lab_open(10000, NULL);

    (void)state;
    lab_write(lab, 10 * MSS);
    for (int type = 0; type < 256; type++) {
        for (int code = 0; code < 16; code++) {
            if (type != 3 || code != 4)
                lab_icmp(lab, 1, (uint8_t)type, (uint8_t)code, 0);
        }
    }
    assert_int_equal(lab->closes, 0);
    assert_int_equal(lab_info(lab).mss_bytes, MSS);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_flight_is_ten_segments_in_one_packet),
        cmocka_unit_test(without_offload_each_segment_is_a_packet),
        cmocka_unit_test(acks_of_a_batch_free_one_large_packet),
        cmocka_unit_test(super_segments_are_as_large_as_a_packet_can_be),
        cmocka_unit_test(no_mss_makes_a_packet_too_long),
        cmocka_unit_test(a_larger_buffer_is_filled_whatever_the_window),
        cmocka_unit_test(bulk_copies_nothing),
        cmocka_unit_test(what_a_socket_brings_after_silence_is_dated_now),
        cmocka_unit_test(small_writes_are_packed_and_pushed),
        cmocka_unit_test(a_writer_that_found_no_memory_is_woken_without_any_packet),
        cmocka_unit_test(the_sender_does_not_dribble_into_a_small_window),
        cmocka_unit_test(half_of_the_largest_window_is_worth_a_packet),
        cmocka_unit_test(only_the_last_segment_of_what_is_queued_is_pushed),
        cmocka_unit_test(reading_resumes_when_two_thirds_of_the_limit_are_left),
        cmocka_unit_test(reading_stops_at_the_limit_and_resumes_at_two_thirds),
        cmocka_unit_test(a_closed_window_is_probed_for_ever_while_it_answers),
        cmocka_unit_test(a_closed_window_without_answers_times_out),
        cmocka_unit_test(a_client_that_vanishes_behind_a_sliver_times_out),
        cmocka_unit_test(a_short_user_timeout_does_not_end_what_answers),
        cmocka_unit_test(a_sliver_of_a_window_is_used_after_a_while),
        cmocka_unit_test(a_window_that_shrinks_stops_new_data_only),
        cmocka_unit_test(what_lies_beyond_a_shrunk_window_is_not_repeated),
        cmocka_unit_test(too_big_lowers_the_mtu_and_repeats_at_once),
        cmocka_unit_test(mtus_below_the_floor_are_not_believed),
        cmocka_unit_test(icmp_errors_never_end_an_open_connection),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
