/* test_frag.c - reassembly: faults.md section 2, icmp.md 2.6, tcp-stack.md IP-5. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <time.h>
#include <cmocka.h>

#include "ip_lab.h"

static struct pkt whole, piece;
static uint8_t data[65536];

static int setup(void **state)
{
    struct ip_lab *lab;
    struct prng r;

    prng_seed(&r, 7);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)prng_next(&r);
    ip_lab_setup(state);
    lab = *state;
    lab->on_request = LAB_ACCEPT;
    return 0;
}

/* A UDP datagram with @len bytes of data; its payload for fragments is 8 longer. */
static void datagram(bool v6, size_t len)
{
    pkt_udp(&whole, v6 ? LAB_CLIENT6 : LAB_CLIENT, 4000, v6 ? LAB_TARGET6 : LAB_TARGET, 53, data, len);
}

static void send_piece(struct ip_lab *lab, size_t offset, size_t len, bool more, uint32_t id)
{
    pkt_fragment(&whole, offset, len, more, id, &piece);
    ip_lab_feed(lab, &piece);
}

static void end_batch(struct ip_lab *lab)
{
    stack_batch_end(lab->s, lab->now_us);
}

static void assert_delivered(struct ip_lab *lab, size_t n, size_t len)
{
    end_batch(lab);
    assert_int_equal(lab->gots, n);
    if (n > 0) {
        assert_int_equal(lab->got[n - 1].d.len, len);
        assert_memory_equal(lab->got[n - 1].d.data->iov_base, data, len);
    }
}

static void pieces_in_any_order_make_the_datagram(void **state) /* icmp.md F1 */
{
    static const size_t orders[6][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 },
                                         { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
    static const size_t from[] = { 0, 1480, 2960 }, len[] = { 1480, 1480, 48 };
    struct ip_lab *lab = *state;
    size_t done = 0;

    for (int v6 = 0; v6 < 2; v6++) {
        for (size_t o = 0; o < 6; o++) {
            datagram(v6, 3000);
            for (size_t i = 0; i < 3; i++)
                send_piece(lab, from[orders[o][i]], len[orders[o][i]], orders[o][i] != 2,
                           (uint32_t)(100 + o));
            assert_delivered(lab, ++done, 3000);
        }
    }
    assert_int_equal(ip_lab_count(lab, "frag.in"), 36);
    assert_int_equal(ip_lab_count(lab, "frag.done"), 12);
    assert_int_equal(ip_lab_in_use(lab, "frag"), 0);
}

/* What the device vouches for is a piece; the checksum of the whole is another. */
static void a_joined_datagram_is_summed_whatever_its_pieces_claim(void **state) /* tcp-stack.md VN-2 */
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        for (int good = 0; good < 2; good++) {
            datagram(v6, 3000);
            whole.data[whole.len - 1] ^= !good;
            for (size_t at = 0; at < 3008; at += 1504) {
                pkt_fragment(&whole, at, 1504, at == 0, (uint32_t)(200 + good), &piece);
                piece.meta.csum_valid = true;
                ip_lab_feed(lab, &piece);
            }
            end_batch(lab);
            assert_int_equal(lab->gots, v6 + good);
            assert_int_equal(ip_lab_count(lab, "udp.checksum"), v6 + 1);
        }
    }
}

static void the_longest_datagrams_arrive(
    void **state) /* faults.md U4 and F8 on their way in: 65,507 bytes; IPv6 65,527 */
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        size_t len = v6 ? 65527 : 65507, total = len + 8;

        datagram(v6, len);
        for (size_t at = 0; at < total; at += 1472) {
            size_t part = total - at < 1472 ? total - at : 1472;

            send_piece(lab, at, part, at + part < total, 5);
        }
        assert_delivered(lab, (size_t)v6 + 1, len);
    }
}

static void exact_duplicates_are_ignored(void **state) /* icmp.md F1, F4; design.md section 6 */
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        datagram(v6, 3000);
        send_piece(lab, 0, 1480, true, 9);
        send_piece(lab, 0, 1480, true, 9);
        send_piece(lab, 2960, 48, false, 9);
        send_piece(lab, 2960, 48, false, 9);
        send_piece(lab, 0, 1480, true, 9);
        send_piece(lab, 1480, 1480, true, 9);
        assert_delivered(lab, (size_t)v6 + 1, 3000);
    }
    assert_int_equal(ip_lab_count(lab, "frag.overlap"), 0);
}

/* Every way for a second fragment to touch the first (bytes 800..1599), with the same data. */
static void an_overlap_ends_the_datagram_and_its_later_pieces(void **state) /* faults.md F1 */
{
    static const struct {
        const char *what;
        size_t from, len;
        bool more;
    } rows[] = {
        { "inside", 808, 784, true },
        { "covers", 792, 824, true },
        { "the front", 400, 408, true },
        { "the tail", 1592, 80, true },
        { "the first 8", 800, 8, true },
        { "the last 8", 1592, 8, true },
        { "longer at the end", 800, 808, true },
        { "longer at the front", 792, 808, true },
        { "an end before it", 400, 80, false },
        { "an end inside", 800, 80, false },
    };
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            uint64_t before = ip_lab_count(lab, "frag.overlap");

            datagram(v6, 3000);
            send_piece(lab, 800, 800, true, (uint32_t)(1000 + i));
            send_piece(lab, rows[i].from, rows[i].len, rows[i].more, (uint32_t)(1000 + i));
            if (ip_lab_count(lab, "frag.overlap") != before + 1)
                fail_msg("%s was taken", rows[i].what);
            send_piece(lab, 0, 800, true, (uint32_t)(1000 + i));
            send_piece(lab, 800, 800, true, (uint32_t)(1000 + i));
            send_piece(lab, 1600, 1408, false, (uint32_t)(1000 + i));
            assert_delivered(lab, 0, 0);
            assert_int_equal(ip_lab_count(lab, "frag.overlap"), before + 4);
        }
    }
    assert_int_equal(ip_lab_in_use(lab, "chunk2") + ip_lab_in_use(lab, "chunk16"), 0);
    ip_lab_run_until(lab, lab->now_us + 61000000);
    assert_int_equal(ip_lab_in_use(lab, "frag"), 0);
    assert_int_equal(lab->outs, 0); /* overlaps are never answered (icmp.md F4) */
    assert_int_equal(ip_lab_count(lab, "frag.expired"), 0);
}

static void two_pieces_sent_again_as_one_are_an_overlap(void **state) /* faults.md F1: no exact duplicate */
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        datagram(v6, 3000);
        send_piece(lab, 800, 400, true, 4);
        send_piece(lab, 1200, 400, true, 4);
        send_piece(lab, 800, 800, true, 4);
        assert_int_equal(ip_lab_count(lab, "frag.overlap"), v6 + 1);
    }
}

static void an_overlap_with_other_data_is_one_as_well(
    void **state) /* faults.md F1: same data and other data */
{
    struct ip_lab *lab = *state;

    datagram(false, 3000);
    send_piece(lab, 0, 1480, true, 3);
    memset(whole.data + whole.l4 + 1400, 0xee, 100);
    send_piece(lab, 1400, 160, true, 3);
    send_piece(lab, 1480, 1528, false, 3);
    assert_delivered(lab, 0, 0);
    assert_int_equal(ip_lab_count(lab, "frag.overlap"), 2);
}

static void two_different_ends_end_the_datagram(void **state) /* icmp.md F4 */
{
    static const size_t second_end[] = { 1600, 1608, 1611, 2000 };
    struct ip_lab *lab = *state;

    for (size_t i = 0; i < ARRAY_LEN(second_end); i++) {
        datagram(false, 3000);
        send_piece(lab, 1480, 133, false, (uint32_t)i); /* ends at 1613 */
        send_piece(lab, 1480, second_end[i] - 1480, false, (uint32_t)i);
        send_piece(lab, 0, 1480, true, (uint32_t)i);
        assert_delivered(lab, 0, 0);
        assert_int_equal(ip_lab_count(lab, "frag.overlap"), 2 * (i + 1));
    }
    datagram(false, 3000); /* a middle piece at or behind the end */
    send_piece(lab, 1480, 128, false, 77);
    send_piece(lab, 1608, 80, true, 77);
    assert_int_equal(ip_lab_count(lab, "frag.overlap"), 9);
}

static void fragments_past_65535_are_dropped(void **state) /* faults.md F2: ping of death */
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        for (size_t over = 1; over < 1400; over += 100) {
            size_t at = 65528, len = 7 + over;

            datagram(v6, 1400);
            pkt_fragment(&whole, 0, len, false, 3, &piece);
            if (v6)
                put_be16(piece.data + 42, (uint16_t)at);
            else
                put_be16(piece.data + 6, (uint16_t)(at / 8));
            pkt_fix_ip(&piece);
            ip_lab_input(lab, &piece);
        }
    }
    assert_int_equal(ip_lab_count(lab, "frag.malformed"), 28);
    assert_int_equal(ip_lab_in_use(lab, "frag"), 0);
}

static void a_header_with_options_counts_towards_65535(void **state) /* faults.md F2 */
{
    static const uint8_t nops[40] = { 1, 1, 1, 1 };
    struct ip_lab *lab = *state;

    datagram(false, 65507);
    for (size_t at = 1480; at < 65515; at += 1480) {
        size_t part = 65515 - at < 1480 ? 65515 - at : 1480;

        send_piece(lab, at, part, at + part < 65515, 8);
    }
    pkt_fragment(&whole, 0, 1480, true, 8, &piece); /* fits alone, but not with what came */
    pkt_insert_options(&piece, nops, sizeof(nops));
    ip_lab_feed(lab, &piece);
    assert_delivered(lab, 0, 0);
    assert_int_equal(ip_lab_count(lab, "frag.malformed"), 1);
    assert_int_equal(ip_lab_in_use(lab, "frag"), 0);
}

static void tiny_first_fragments_are_dropped(void **state) /* faults.md F4; RFC 7112 */
{
    static const uint8_t protos[] = { IP_PROTO_TCP, IP_PROTO_UDP };
    struct ip_lab *lab = *state;
    uint64_t dropped = 0;

    for (int v6 = 0; v6 < 2; v6++) {
        for (size_t i = 0; i < ARRAY_LEN(protos); i++) {
            const char *src = v6 ? LAB_CLIENT6 : LAB_CLIENT, *dst = v6 ? LAB_TARGET6 : LAB_TARGET;

            pkt_raw(&whole, src, dst, protos[i], data, 100);
            if (protos[i] == IP_PROTO_TCP) {
                send_piece(lab, 0, 8, true, 1);
                send_piece(lab, 0, 16, true, 1);
                dropped += 2;
            }
            send_piece(lab, 0, 24, true, 2); /* enough of any */
            assert_int_equal(ip_lab_count(lab, "frag.malformed"), dropped);
        }
    }
    datagram(true, 100); /* IPv6: the chain ends in a later fragment */
    {
        static const uint8_t dest[16] = { 0, 1, 1, 12 };

        pkt_insert_ext(&whole, 60, dest, 16, 0);
        whole.l4 = 40;
        send_piece(lab, 0, 8, true, 3);
        send_piece(lab, 0, 16, true, 3);
        assert_int_equal(ip_lab_count(lab, "frag.malformed"), dropped + 2);
        send_piece(lab, 0, 24, true, 3);
        send_piece(lab, 24, 100, false, 3);
        assert_delivered(lab, 1, 100);
    }
}

static void atomic_fragments_are_whole_datagrams(void **state) /* faults.md F5; icmp.md F8; RFC 6946 */
{
    struct ip_lab *lab = *state;

    datagram(true, 3000);
    send_piece(lab, 0, 1480, true, 42); /* a reassembly with the same id goes on undisturbed */
    datagram(true, 100);
    send_piece(lab, 0, 108, false, 42);
    assert_delivered(lab, 1, 100);
    datagram(true, 3000);
    send_piece(lab, 1480, 1528, false, 42);
    assert_delivered(lab, 2, 3000);
    assert_int_equal(ip_lab_count(lab, "frag.in"), 2);
}

static void odd_and_empty_pieces_are_dropped(void **state) /* faults.md F6; icmp.md F5 */
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        datagram(v6, 3000);
        for (size_t odd = 1; odd < 8; odd++)
            send_piece(lab, 800, 800 + odd, true, 1);
        send_piece(lab, 800, 0, true, 1);
        send_piece(lab, 800, 0, false, 1);
    }
    /* An empty IPv6 fragment is a packet without payload behind its header. */
    assert_int_equal(ip_lab_count(lab, "frag.malformed"), 18);
    assert_int_equal(ip_lab_in_use(lab, "frag"), 0);
}

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1000 + (double)t.tv_nsec / 1e6;
}

static void eight_thousand_pieces_of_8_bytes(void **state) /* faults.md F6: linear */
{
    struct ip_lab *lab = *state;
    size_t n = 65512 / 8;

    for (int backwards = 0; backwards < 2; backwards++) {
        double start, took;

        datagram(false, 65504);
        start = now_ms();
        for (size_t i = 0; i < n; i++) {
            size_t at = backwards ? n - 1 - i : i;

            send_piece(lab, at * 8, 8, at != n - 1, (uint32_t)(20 + backwards));
        }
        took = now_ms() - start;
        assert_delivered(lab, (size_t)backwards + 1, 65504);
        print_message("%zu pieces in %.2f ms\n", n,
                      took); /* under 1 ms without sanitizers: reported, not asserted */
    }
}

/* Every second piece first: as many holes as there can be. */
static void four_thousand_holes_are_filled(void **state) /* faults.md F6 */
{
    struct ip_lab *lab = *state;
    size_t n = 65512 / 8;

    datagram(false, 65504);
    for (size_t start = 0; start < 2; start++) {
        for (size_t i = start; i < n; i += 2)
            send_piece(lab, i * 8, 8, i != n - 1, 30);
    }
    assert_delivered(lab, 1, 65504);
}

static size_t held_bytes(struct ip_lab *lab)
{
    struct stack_pool_info info[32];
    size_t n = stack_pools(lab->s, info, ARRAY_LEN(info)), sum = 0;

    for (size_t i = 0; i < n; i++) {
        if (strncmp(info[i].name, "chunk", 5) == 0 || strcmp(info[i].name, "frag") == 0)
            sum += (size_t)info[i].in_use * info[i].object_bytes;
    }
    return sum;
}

/* One source floods with incomplete datagrams of a kind; another sends honest ones all the while. */
static void flood(struct ip_lab *lab, int kind, unsigned *honest)
{
    for (uint32_t i = 0; i < 10000; i++) {
        pkt_udp(&whole, "10.0.0.66", 1, LAB_TARGET, 2, data, 5000);
        if (kind == 0)
            send_piece(lab, 0, 1480, true, i);
        else if (kind == 1)
            send_piece(lab, 4440, 568, false, i);
        else
            for (size_t at = 0; at < 4440; at += 1480)
                send_piece(lab, at, 1480, true, i);
        if (i % 100 == 0) {
            datagram(false, 3000);
            send_piece(lab, 0, 1480, true, i);
        }
        if (i % 100 == 50) { /* 50 floods later */
            datagram(false, 3000);
            send_piece(lab, 1480, 1528, false, i - 50);
            end_batch(lab);
        }
        lab->now_us += 100;
        stack_advance(lab->s, lab->now_us);
        assert_true(held_bytes(lab) <= 1 << 20);
    }
    *honest = (unsigned)lab->gots;
}

static void a_flood_of_incomplete_datagrams_hurts_only_its_source(
    void **state) /* faults.md F3; design.md section 6 */
{
    for (int kind = 0; kind < 3; kind++) {
        struct ip_lab *lab = ip_lab_new();
        unsigned honest;

        (void)state;
        ip_lab_start(lab);
        lab->on_request = LAB_ACCEPT;
        flood(lab, kind, &honest);
        assert_int_equal(honest, 100);
        assert_true(ip_lab_count(lab, "frag.evicted") > 9000);
        ip_lab_run_until(lab, lab->now_us + 31000000);
        assert_int_equal(ip_lab_in_use(lab, "frag"), 0);
        assert_int_equal(held_bytes(lab), 0);
        ip_lab_free(lab);
    }
}

static void many_sources_push_out_the_oldest(void **state) /* faults.md F3; icmp.md F6: oldest go first */
{
    struct ip_lab *lab = *state;
    char src[32];

    for (uint32_t i = 0; i < 2000; i++) {
        snprintf(src, sizeof(src), "10.0.%u.%u", 1 + i / 250, 1 + i % 250);
        pkt_udp(&whole, src, 1, LAB_TARGET, 2, data, 3000);
        send_piece(lab, 0, 1480, true, 1);
        assert_true(held_bytes(lab) <= 1 << 20);
    }
    /* The last one is still there, the first one is not. */
    send_piece(lab, 1480, 1528, false, 1);
    assert_delivered(lab, 1, 3000);
    pkt_udp(&whole, "10.0.1.1", 1, LAB_TARGET, 2, data, 3000);
    send_piece(lab, 1480, 1528, false, 1);
    assert_delivered(lab, 1, 3000);
}

static void ids_of_different_sources_and_protocols_do_not_mix(void **state) /* icmp.md F2 */
{
    struct ip_lab *lab = *state;

    datagram(false, 3000);
    send_piece(lab, 0, 1480, true, 5);
    pkt_udp(&whole, "10.0.0.3", 4000, LAB_TARGET, 53, data, 3000);
    send_piece(lab, 1480, 1528, false, 5);
    pkt_raw(&whole, LAB_CLIENT, LAB_TARGET, IP_PROTO_TCP, whole.data + whole.l4, 3008);
    send_piece(lab, 1480, 1528, false, 5);
    datagram(false, 3000);
    send_piece(lab, 1480, 1528, false, 6);
    assert_delivered(lab, 0, 0);
    assert_int_equal(ip_lab_in_use(lab, "frag"), 4);
    send_piece(lab, 1480, 1528, false, 5);
    assert_delivered(lab, 1, 3000);
}

static void time_runs_out_after_30_and_60_seconds(void **state) /* icmp.md F3 */
{
    for (int v6 = 0; v6 < 2; v6++) {
        struct ip_lab *lab = ip_lab_new();
        uint64_t limit = v6 ? 60000000 : 30000000, start;
        struct pkt_view v;

        (void)state;
        ip_lab_start(lab);
        start = lab->now_us;
        datagram(v6, 3000);
        send_piece(lab, 1480, 1480, true, 0x1234); /* no first piece: silent */
        ip_lab_run_until(lab, start + limit / 2);
        send_piece(lab, 0, 1480, true, 0x5678);
        ip_lab_run_until(lab, start + limit - 1000);
        assert_int_equal(ip_lab_count(lab, "frag.expired"), 0);
        ip_lab_run_until(lab, start + limit);
        assert_int_equal(ip_lab_count(lab, "frag.expired"), 1);
        assert_int_equal(lab->outs, 0);
        ip_lab_run_until(lab, start + limit / 2 + limit);
        assert_int_equal(ip_lab_count(lab, "frag.expired"), 2);
        assert_int_equal(lab->outs, 1);
        v = ip_lab_out(lab, 0);
        assert_int_equal(v.type << 8 | v.code, v6 ? 3 << 8 | 1 : 11 << 8 | 1);
        pkt_fragment(&whole, 0, 1480, true, 0x5678, &piece);
        assert_int_equal(lab->out[0].len, v6 ? 1280 : 576);
        assert_memory_equal(v.data, piece.data, v.len); /* the first fragment as it was sent */
        ip_lab_free(lab);
    }
}

static void nobody_is_told_of_a_datagram_to_many_that_ran_out_of_time(void **state) /* icmp.md U7, F3 */
{
    static const char *const dst[] = { "224.0.0.1", "255.255.255.255", "10.0.0.255", "ff02::1" };
    struct ip_lab *lab = *state;

    for (size_t i = 0; i < ARRAY_LEN(dst); i++) {
        pkt_udp(&whole, strchr(dst[i], ':') != NULL ? LAB_CLIENT6 : LAB_CLIENT, 4000, dst[i], 53, data, 3000);
        send_piece(lab, 0, 1480, true, 7);
    }
    ip_lab_run_until(lab, lab->now_us + 61000000);
    assert_int_equal(ip_lab_count(lab, "frag.expired"), ARRAY_LEN(dst));
    assert_int_equal(lab->outs, 0);
}

static void a_reassembled_echo_is_answered_in_fragments(
    void **state) /* icmp.md F1; faults.md F8: 60,000 bytes */
{
    static uint8_t reply[65536];
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        size_t total = 60008, len;
        struct pkt_view first;

        ip_lab_clear(lab);
        pkt_echo(&whole, v6 ? LAB_CLIENT6 : LAB_CLIENT, v6 ? LAB_GATEWAY6 : LAB_GATEWAY, 77, 3, data, 60000);
        for (size_t at = 0; at < total; at += 1456) {
            size_t part = total - at < 1456 ? total - at : 1456;

            send_piece(lab, at, part, at + part < total, 99);
        }
        assert_int_equal(lab->echo.flags, ECHO_REASSEMBLED);
        assert_int_equal(lab->echo.payload_len, 60000);
        len = ip_lab_join(lab, 0, lab->outs, reply, sizeof(reply), &first);
        assert_int_equal(len, total);
        assert_int_equal(reply[0], v6 ? 129 : 0);
        assert_memory_equal(reply + 8, data, 60000);
        assert_false(!v6 && first.df);
    }
    assert_int_equal(lab->echoes, 2);
}

/* icmp.md F7, F9: an echo request to a temporary address, whose later piece says other things than the first. */
static void marks_are_those_of_the_first_piece(void **state)
{
    static const uint8_t route[] = { 7, 7, 4, 0, 0, 0, 0, 0 };
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        for (int last_first = 0; last_first < 2; last_first++) {
            static struct pkt first, last;

            pkt_echo(&whole, v6 ? LAB_CLIENT6 : LAB_CLIENT, v6 ? LAB_TARGET6 : LAB_TARGET, 1, 2, data, 1000);
            pkt_fragment(&whole, 0, 504, true, 7, &first);
            pkt_fragment(&whole, 504, 504, false, 7, &last);
            if (!v6)
                pkt_insert_options(&first, route, sizeof(route));
            first.data[v6 ? 7 : 8] = 33;
            last.data[v6 ? 7 : 8] = 44;
            if (v6) {
                put_be16(first.data, 0x62a0);
            } else {
                first.data[1] = 0x2a;
                pkt_fix_ip(&first);
                pkt_fix_ip(&last);
            }
            ip_lab_clear(lab);
            lab->echoes = 0;
            ip_lab_input(lab, last_first ? &last : &first);
            assert_int_equal(lab->echoes, 0);
            ip_lab_input(lab, last_first ? &first : &last);
            assert_int_equal(lab->echoes, 1);
            assert_int_equal(lab->echo.ttl, 33);
            assert_int_equal(lab->echo.tos, 0x2a);
            assert_int_equal(lab->echo.flags, ECHO_TEMPORARY | ECHO_REASSEMBLED);
            assert_int_equal(lab->echo.ip_header_len, v6 ? 40 : 20 + sizeof(route));
            assert_int_equal(lab->echo.payload_len, 1000);
        }
    }
}

static void a_fragmented_syn_is_a_syn(void **state) /* faults.md F8 */
{
    struct ip_lab *lab = *state;

    pkt_tcp(&whole, LAB_CLIENT, 1000, LAB_TARGET, 80, PKT_SYN, 1, 0, data, 100);
    send_piece(lab, 0, 64, true, 1);
    send_piece(lab, 64, 56, false, 1);
    end_batch(lab);
    assert_int_equal(lab->tcp_requests, 1);
}

static void pieces_are_lost_when_memory_is_and_nothing_leaks(void **state) /* tcp-stack.md MEM-3 */
{
    static const char *const pools[] = { "chunk2", "chunk16", "chunk64", "frag" };
    (void)state;

    for (uint32_t every = 1; every <= 10; every++) {
        struct ip_lab *lab = ip_lab_new();

        lab->cfg.buffer_cap_bytes = 300000 + every * 7000; /* hardly more than the slots */
        ip_lab_start(lab);
        lab->on_request = LAB_ACCEPT;
        for (uint32_t id = 0; id < 40; id++) {
            datagram(id % 2, 40000);
            for (size_t at = 0; at < 40008; at += 1480) {
                size_t part = 40008 - at < 1480 ? 40008 - at : 1480;

                if ((at / 1480 + id) % (every + 3) != 0)
                    send_piece(lab, at, part, at + part < 40008, id);
            }
            end_batch(lab);
        }
        ip_lab_run_until(lab, lab->now_us + 61000000);
        for (size_t i = 0; i < ARRAY_LEN(pools); i++)
            assert_int_equal(ip_lab_in_use(lab, pools[i]), 0);
        ip_lab_free(lab);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, ip_lab_teardown)
    const struct CMUnitTest tests[] = {
        T(pieces_in_any_order_make_the_datagram),
        T(a_joined_datagram_is_summed_whatever_its_pieces_claim),
        T(the_longest_datagrams_arrive),
        T(exact_duplicates_are_ignored),
        T(an_overlap_ends_the_datagram_and_its_later_pieces),
        T(two_pieces_sent_again_as_one_are_an_overlap),
        T(an_overlap_with_other_data_is_one_as_well),
        T(two_different_ends_end_the_datagram),
        T(fragments_past_65535_are_dropped),
        T(a_header_with_options_counts_towards_65535),
        T(tiny_first_fragments_are_dropped),
        T(atomic_fragments_are_whole_datagrams),
        T(odd_and_empty_pieces_are_dropped),
        T(eight_thousand_pieces_of_8_bytes),
        T(four_thousand_holes_are_filled),
        T(a_flood_of_incomplete_datagrams_hurts_only_its_source),
        T(many_sources_push_out_the_oldest),
        T(ids_of_different_sources_and_protocols_do_not_mix),
        T(time_runs_out_after_30_and_60_seconds),
        T(nobody_is_told_of_a_datagram_to_many_that_ran_out_of_time),
        T(a_reassembled_echo_is_answered_in_fragments),
        T(marks_are_those_of_the_first_piece),
        T(a_fragmented_syn_is_a_syn),
        T(pieces_are_lost_when_memory_is_and_nothing_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
