/* test_tcp_order.c - faces src/stack/tcp_input.c and its neighbours: which check a segment meets first, what of it is used, and what
 * every segment of ours looks like (tcp-stack.md 4, IP-6, WND-3, OBS-1). */
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

static struct lab *open_lab(void (*change)(struct lab_options *o))
{
    struct lab_options o;
    struct lab *lab;

    lab_options_default(&o);
    if (change != NULL)
        change(&o);
    lab = lab_connected(&o);
    return lab;
}

static void stall(struct lab_options *o)
{
    o->stall = true;
}

/* ---- the order of checks ------------------------------------------------------------------------------ */

/* The client has sent 100 bytes, so 101 is next; each segment fails more than one check, and the first one is what counts. */
#define OLD 3000u /* a timestamp from before */
static const struct order_row {
    const char *what;
    struct lab_seg seg;
    size_t counter; /* the one that it adds to */
    bool answered;
} orders[] = {
    { "an old timestamp, and beyond the window",
      { .flags = LAB_ACK, .seq = 9000000, .ack = 1, .len = 10, .old_ts = true },
      offsetof(struct stack_counters, tcp_paws),
      true },
    { "an old timestamp, and a SYN",
      { .flags = LAB_SYN, .seq = 101, .tsval = OLD },
      offsetof(struct stack_counters, tcp_paws),
      true },
    { "an old timestamp, and a bad ACK",
      { .flags = LAB_ACK, .seq = 101, .ack = 70000, .len = 10, .old_ts = true },
      offsetof(struct stack_counters, tcp_paws),
      true },
    { "no timestamp, and beyond the window",
      { .flags = LAB_ACK, .seq = 9000000, .ack = 1, .len = 10, .no_ts = true },
      offsetof(struct stack_counters, tcp_paws),
      false },
    { "no timestamp, and a SYN of a client that knows nothing of this connection",
      { .flags = LAB_SYN, .seq = 101, .no_ts = true },
      offsetof(struct stack_counters, tcp_challenged),
      true },
    { "a reset beyond the window",
      { .flags = LAB_RST, .seq = 9000000 },
      offsetof(struct stack_counters, tcp_out_of_window),
      false },
    { "a reset from before",
      { .flags = LAB_RST, .seq = 50 },
      offsetof(struct stack_counters, tcp_out_of_window),
      false },
    { "beyond the window, and a bad ACK",
      { .flags = LAB_ACK, .seq = 9000000, .ack = 70000, .len = 10 },
      offsetof(struct stack_counters, tcp_out_of_window),
      true },
    { "data from before, and a bad ACK",
      { .flags = LAB_ACK, .seq = 1, .ack = 70000, .len = 10 },
      offsetof(struct stack_counters, tcp_duplicate),
      true },
    { "no ACK flag, with data",
      { .flags = LAB_PSH, .seq = 101, .len = 10 },
      offsetof(struct stack_counters, tcp_malformed),
      false },
    { "an ACK of what was never sent, with data and a FIN",
      { .flags = LAB_ACK | LAB_FIN, .seq = 101, .ack = 2, .len = 10 },
      offsetof(struct stack_counters, tcp_bad_ack),
      true },
    { "an ACK from long ago, with data",
      { .flags = LAB_ACK, .seq = 101, .ack = 0u - 9000000, .len = 10 },
      offsetof(struct stack_counters, tcp_bad_ack),
      true },
};

/* All reasons for which a segment of a connection may be thrown away. */
static uint64_t thrown_away(const struct stack_counters *c)
{
    return c->tcp_paws + c->tcp_out_of_window + c->tcp_duplicate + c->tcp_malformed + c->tcp_bad_ack +
           c->tcp_checksum + c->tcp_unknown + c->tcp_challenged;
}

static const char *order_wrong(const struct order_row *row)
{
    struct lab *lab = open_lab(NULL);
    const struct stack_counters *c = stack_counters(lab->stack);
    const char *wrong = NULL;
    uint64_t before, all;

    lab_data(lab, 1, 1, 100);
    lab_run_us(lab, 1000000);
    lab_clear(lab);
    before = *(const counter *)((const char *)c + row->counter);
    all = thrown_away(c);
    lab_send(lab, &row->seg);
    if (*(const counter *)((const char *)c + row->counter) != before + 1)
        wrong = "another check came first";
    else if (thrown_away(c) != all + 1)
        wrong = "not one counter";
    else if (lab->got != 100 || lab->eof)
        wrong = "something of it was used";
    else if (lab->closes != 0)
        wrong = "the connection ended";
    else if (lab_count(lab, "ACK") != (row->answered ? 1u : 0u) || lab->outs != lab_count(lab, "ACK"))
        wrong = "the answer";
    lab_free(lab);
    return wrong;
}

static void the_first_check_that_fails_is_the_one_that_counts(
    void **state) /* tcp-stack.md SEQ-3, OBS-1, TS-1 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
        const char *why = order_wrong(&orders[i]);

        if (why == NULL)
            continue;
        print_error("%s: %s\n", orders[i].what, why);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void a_syn_is_challenged_whatever_its_number(void **state) /* tcp-stack.md RST-2 */
{
    static const uint32_t seqs[] = { 101, 102, 50, 0, 5000, 9000000, 0x80000065u };
    struct lab *lab = open_lab(NULL);

    (void)state;
    lab_data(lab, 1, 1, 100);
    for (size_t i = 0; i < ARRAY_LEN(seqs); i++) {
        lab_run_us(lab, 1000000);
        lab_clear(lab);
        lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .seq = seqs[i] });
        assert_int_equal(lab_count(lab, "ACK"), 1);
        assert_int_equal(lab_last(lab)->seq, 1);
        assert_int_equal(lab_last(lab)->ack, 101);
    }
    assert_int_equal(lab->closes, 0);
    assert_int_equal(lab->requests, 1);
    lab_free(lab);
}

static void keep_alive_probes_are_answered_within_the_budget(void **state) /* tcp-stack.md SEQ-5 */
{
    struct lab *lab = open_lab(NULL);

    (void)state;
    lab_data(lab, 1, 1, 100);
    lab_run_us(lab, 1000000);
    lab_clear(lab);
    for (int i = 0; i < 5; i++) { /* close together, and yet each is answered */
        lab_ack(lab, 100, 1);
        lab_run_us(lab, 10000);
        assert_int_equal(lab_count(lab, "ACK"), i + 1);
    }
    for (int i = 0; i < 100; i++)
        lab_ack(lab, 100, 1);
    assert_int_equal(lab_count(lab, "ACK"), 10);
    lab_run_us(lab, 6000000);
    lab_clear(lab);
    lab_data(lab, 100, 1, 1); /* the old kind carries a byte */
    assert_int_equal(lab_count(lab, "ACK"), 1);
    assert_int_equal(lab_last(lab)->ack, 101);
    assert_int_equal(lab->got, 100);
    lab_free(lab);
}

/* ---- what is used of a segment -------------------------------------------------------------------------- */

static void what_straddles_the_window_is_cut_on_both_sides(void **state) /* tcp-stack.md SEQ-3, SEQ-4 */
{
    struct lab *lab = open_lab(stall);
    uint32_t edge, at = 1;

    (void)state;
    for (; lab_info(lab).rcv_wnd > 40000; at += 40000)
        lab_data(lab, at, 1, 40000);
    edge = at + lab_info(lab).rcv_wnd;
    assert_int_equal(tcp_readable_bytes(lab->conn), at - 1);
    lab_clear(lab);
    lab_data(lab, at - 500, 1, edge - at + 500 + 300); /* 500 bytes too early, and 300 too far */
    assert_int_equal(tcp_readable_bytes(lab->conn), edge - 1);
    assert_int_equal(lab_last(lab)->ack, edge);
    assert_int_equal(lab_last(lab)->wnd, 0);
    lab_read(lab, SIZE_MAX);
    assert_false(lab->got_wrong);
    lab_free(lab);
}

static void a_super_segment_beyond_the_advertised_edge_is_cut(void **state) /* tcp-stack.md SEQ-4 */
{
    struct lab *lab = open_lab(stall);
    uint32_t edge = 0, at = 1;

    (void)state;
    while (lab_info(lab).rcv_wnd > 0) {
        edge = at + lab_info(lab).rcv_wnd;
        lab_send(lab, &(struct lab_seg){
                          .flags = LAB_ACK, .seq = at, .ack = 1, .len = 30 * MSS, .gso_size = MSS });
        at += 30 * MSS;
    }
    assert_true(tcp_readable_bytes(lab->conn) == edge - 1);
    assert_int_equal(lab_last(lab)->ack, edge);
    lab_read(lab, SIZE_MAX);
    assert_false(lab->got_wrong);
    lab_free(lab);
}

static void an_old_segment_does_not_change_the_window(
    void **state) /* tcp-stack.md WND-3; RFC 9293 SND.WL1, SND.WL2 */
{
    struct lab *lab = open_lab(NULL);

    (void)state;
    lab_data(lab, 1, 1, 100);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 101, .ack = 1, .wnd = 500 });
    assert_int_equal(lab_info(lab).snd_wnd, 500 << 7);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 51, .ack = 1, .len = 100, .wnd = 7 });
    assert_int_equal(lab->got, 150);
    assert_int_equal(lab_info(lab).snd_wnd, 500 << 7); /* it was sent before the one that said 500 */
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 151, .ack = 1, .wnd = 600 });
    assert_int_equal(lab_info(lab).snd_wnd, 600 << 7);
    lab_free(lab);
}

static void shift_15(struct lab_options *o)
{
    o->ws = 15;
}

static void no_scaling(struct lab_options *o)
{
    o->ws = -1;
}

static void windows_are_scaled_as_agreed(
    void **state) /* tcp-stack.md WND-3; RFC 7323 section 2.3; faults.md T9 */
{
    struct lab *lab = open_lab(shift_15);

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .wnd = 1 });
    assert_int_equal(lab_info(lab).snd_wnd, 1 << 14);
    assert_int_equal(lab->snd_shift, 8);
    lab_free(lab);
    lab = open_lab(no_scaling);
    assert_int_equal(lab->snd_shift, 0);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .wnd = 300 });
    assert_int_equal(lab_info(lab).snd_wnd, 300);
    lab_data(lab, 1, 1, 1000);
    assert_in_range(lab_last(lab)->wnd, 1, 65535);
    lab_free(lab);
}

/* ---- ICMP ------------------------------------------------------------------------------------------------ */

static const struct icmp_row {
    bool v6;
    uint8_t type, code;
    bool ends_handshake;
} icmps[] = {
    { false, 3, 0, false },  { false, 3, 1, false },  { false, 3, 2, true },   { false, 3, 3, true },
    { false, 3, 5, false },  { false, 3, 9, false },  { false, 3, 13, false }, { false, 4, 0, false },
    { false, 11, 0, false }, { false, 12, 0, false }, { true, 1, 0, false },   { true, 1, 1, false },
    { true, 1, 3, false },   { true, 1, 4, true },    { true, 3, 0, false },   { true, 4, 0, false },
};

static bool icmp_ends(const struct icmp_row *row, bool open, uint32_t quoted)
{
    struct lab_options o;
    struct flow_key flow;
    struct lab *lab;
    bool ended;

    lab_options_default(&o);
    o.v6 = row->v6;
    lab = lab_new(&o);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    if (open) {
        lab_ack(lab, 1, 1);
        lab_write(lab, 1000);
    }
    tcp_conn_flow(lab->conn, &flow);
    tcp_icmp_error(lab->stack, &flow, quoted + lab->iss, row->v6, row->type, row->code, 0);
    lab_batch(lab);
    ended = lab->closes > 0;
    lab_free(lab);
    return ended;
}

static void errors_are_soft_but_for_two_during_the_handshake(void **state) /* tcp-stack.md ICM-1, ICM-2 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(icmps); i++) {
        const struct icmp_row *row = &icmps[i];

        if (icmp_ends(row, false, 0) == row->ends_handshake && !icmp_ends(row, true, 1) &&
            !icmp_ends(row, false, 1) && !icmp_ends(row, false, UINT32_MAX))
            continue;
        print_error("ICMP%s %u/%u\n", row->v6 ? "v6" : "", row->type, row->code);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* In every later state something of ours is in flight, or nothing, and no error ends or changes it. */
static void errors_are_soft_in_every_later_state(void **state) /* tcp-stack.md ICM-2 */
{
    static const enum lab_where states[] = { LAB_ESTABLISHED, LAB_FIN_WAIT_1, LAB_FIN_WAIT_2,
                                             LAB_CLOSING,     LAB_CLOSE_WAIT, LAB_LAST_ACK };

    (void)state;
    for (size_t w = 0; w < ARRAY_LEN(states); w++) {
        struct lab *lab = lab_in(states[w]);
        struct tcp_info before;

        if (states[w] == LAB_ESTABLISHED || states[w] == LAB_CLOSE_WAIT)
            lab_write(lab, 1000);
        before = lab_info(lab);
        for (int type = 0; type < 256; type++) {
            for (int code = 0; code < 16; code++) {
                if (type != 3 || code != 4) {
                    lab_icmp(lab, 0, (uint8_t)type, (uint8_t)code, 0);
                    lab_icmp(lab, 1, (uint8_t)type, (uint8_t)code, 0);
                }
            }
        }
        assert_int_equal(lab->closes, 0);
        assert_string_equal(lab_info(lab).state, before.state);
        assert_int_equal(lab_info(lab).unacked, before.unacked);
        assert_int_equal(lab_info(lab).mss_bytes, before.mss_bytes);
        lab_free(lab);
    }
}

static void a_learned_mtu_is_forgotten_after_ten_minutes(void **state) /* tcp-stack.md ICM-3 */
{
    struct lab *lab = open_lab(NULL);
    struct flow_key flow;

    (void)state;
    lab_write(lab, 10 * MSS);
    tcp_conn_flow(lab->conn, &flow);
    tcp_icmp_error(lab->stack, &flow, 1 + lab->iss, false, 3, 4, 1400);
    lab_batch(lab);
    assert_int_equal(lab_info(lab).mss_bytes, 1400 - 52);
    lab_ack(lab, 1, 1 + 10 * MSS);
    lab_run_us(lab, 599ull * 1000000);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 41000 });
    assert_int_equal(lab_info(lab).mss_bytes, 1400 - 52);
    lab_run_us(lab, 2ull * 1000000);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 41001 });
    assert_int_equal(lab_info(lab).mss_bytes, MSS);
    lab_free(lab);
}

/* The client's clock of milliseconds goes half around in 24.9 days: what it says then looks older than what it said before. */
static void after_24_days_of_silence_no_timestamp_is_old(
    void **state) /* tcp-stack.md TS-1; RFC 7323 section 5.5; faults.md T17 */
{
    static const struct {
        uint64_t days;
        uint32_t back;
        bool taken;
    } rows[] = { { 1, 1000, false }, { 23, 2000000000, false }, { 25, 2000000000, true }, { 25, 1, true } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct lab *lab = open_lab(NULL);
        uint32_t before = (uint32_t)(lab->now_us / 1000) + lab->ts_base;

        lab_data(lab, 1, 1, 100);
        lab->now_us += rows[i].days * 86400 * 1000000;
        lab_send(lab,
                 &(struct lab_seg){
                     .flags = LAB_ACK, .seq = 101, .ack = 1, .len = 50, .tsval = before - rows[i].back });
        assert_int_equal(lab->got, rows[i].taken ? 150 : 100);
        lab_send(lab,
                 &(struct lab_seg){
                     .flags = LAB_ACK, .seq = 151, .ack = 1, .len = 50, .tsval = before - rows[i].back + 1 });
        assert_int_equal(lab->got,
                         rows[i].taken ? 200 : 100); /* from the first one on its clock counts again */
        lab_free(lab);
    }
}

/* ---- what we send ---------------------------------------------------------------------------------------- */

static uint32_t label_of(struct lab *lab, uint16_t port)
{
    uint32_t label;

    lab_clear(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = port });
    label = lab_last(lab)->flow_label;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .port = port });
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .len = 10, .port = port });
    lab_write(lab, 20000);
    for (size_t i = 0; i < lab->outs; i++) {
        assert_int_equal(lab->out[i].flow_label, label);
        assert_int_equal(lab->out[i].ttl, 64);
        assert_int_equal(lab->out[i].tos, 0);
        assert_true(lab->out[i].df || lab->opt.v6);
    }
    assert_true(lab->outs >= 3);
    return label;
}

static void v6(struct lab_options *o)
{
    o->v6 = true;
}

static void every_packet_of_a_connection_has_the_same_ip_header(void **state) /* tcp-stack.md IP-6 */
{
    struct lab *lab = open_lab(v6);
    uint32_t first = label_of(lab, 41000), second = label_of(lab, 41001);

    (void)state;
    assert_true(first != second && first != 0 && second != 0);
    lab_free(lab);
    lab = open_lab(NULL);
    label_of(lab, 41000);
    lab_free(lab);
}

/* ---- ECN -------------------------------------------------------------------------------------------------- */

static void a_syn_that_asks_for_accurate_ecn_gets_the_classic_one(
    void **state) /* tcp-stack.md ECN-2; RFC 9768 section 3.1.1 */
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    lab = lab_new(&o);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN | LAB_ECE | LAB_CWR, .ae = true });
    assert_int_equal(lab_count(lab, "SYN,ACK,ECE"),
                     1); /* ECE alone: "classic" to a client that offers both */
    lab_ack(lab, 1, 1);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .len = 100, .ae = true });
    lab_write(lab, 1000);
    assert_int_equal(lab->got, 100);
    assert_int_equal(lab_last(lab)->tos & 3, 2);
    lab_free(lab);
    o.config.ecn = false;
    lab = lab_new(&o);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN | LAB_ECE | LAB_CWR, .ae = true });
    assert_int_equal(lab_count(lab, "SYN,ACK"), 1);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_check_that_fails_is_the_one_that_counts),
        cmocka_unit_test(a_syn_is_challenged_whatever_its_number),
        cmocka_unit_test(keep_alive_probes_are_answered_within_the_budget),
        cmocka_unit_test(what_straddles_the_window_is_cut_on_both_sides),
        cmocka_unit_test(a_super_segment_beyond_the_advertised_edge_is_cut),
        cmocka_unit_test(an_old_segment_does_not_change_the_window),
        cmocka_unit_test(windows_are_scaled_as_agreed),
        cmocka_unit_test(errors_are_soft_but_for_two_during_the_handshake),
        cmocka_unit_test(errors_are_soft_in_every_later_state),
        cmocka_unit_test(a_learned_mtu_is_forgotten_after_ten_minutes),
        cmocka_unit_test(after_24_days_of_silence_no_timestamp_is_old),
        cmocka_unit_test(every_packet_of_a_connection_has_the_same_ip_header),
        cmocka_unit_test(a_syn_that_asks_for_accurate_ecn_gets_the_classic_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
