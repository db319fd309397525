/* test_tcp_scenarios.c - faces src/stack/tcp_*.c: situations that the test suites of other stacks ask about (gVisor's packetimpact
 * and end-to-end tests, smoltcp, lwIP), as far as a passive opener meets them and no other test of ours has them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "lab_script.h"
#include "stack/tcp_impl.h"

#define MSS    1448u
#define RTT_US 20000u

static void ack_with_window(struct lab *lab, uint32_t ack, uint32_t wnd)
{
    lab_send(lab,
             &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = ack, .wnd = wnd, .zero_wnd = wnd == 0 });
}

/* ---- a SYN that comes again, with less in it ------------------------------------------------------------- */

static const uint8_t only_mss[] = { 2, 4, 5, 180 }, /* 1,460 */
    no_scale[] = { 2, 4, 5, 180, 1, 1, 8, 10, 0, 15, 200, 0, 0, 0, 0, 0, 4, 2 };

static const struct again_row {
    const char *what;
    const uint8_t *options; /* of the second SYN; NULL: as in the first */
    size_t options_len;
    uint8_t flags;
    bool ts, sack, ws, ecn; /* agreed on in the end */
} agains[] = {
    { "nothing changed", NULL, 0, LAB_SYN | LAB_ECE | LAB_CWR, true, true, true, true },
    { "without ECN, as Linux does", NULL, 0, LAB_SYN, true, true, true, false },
    { "with nothing but the MSS", only_mss, sizeof(only_mss), LAB_SYN, false, false, false, false },
    { "without a scale", no_scale, sizeof(no_scale), LAB_SYN | LAB_ECE | LAB_CWR, true, true, false, true },
};

static bool agreed(const struct lab *lab, const struct again_row *r)
{
    const struct lab_out *o = lab_last(lab);

    return o->ts == r->ts && o->sack_ok == r->sack && (o->ws >= 0) == r->ws &&
           ((o->flags & LAB_ECE) != 0) == r->ecn && o->mss == 1460;
}

/* @held: the SYN-ACK leaves after the second SYN; else after each. @late: the full SYN comes again behind the other one. */
static const char *again_wrong(const struct again_row *r, bool held, bool late)
{
    const struct lab_seg first = { .flags = LAB_SYN | LAB_ECE | LAB_CWR };
    const char *wrong = NULL;
    struct lab_options o;
    struct lab *lab;

    lab_options_default(&o);
    o.hold = held;
    lab = lab_new(&o);
    lab_send(lab, &first);
    lab_run_us(lab, 500000);
    lab_send(lab,
             &(struct lab_seg){ .flags = r->flags, .options = r->options, .options_len = r->options_len });
    if (late)
        lab_send(lab, &first);
    if (held) {
        assert_int_equal(tcp_request_accept(lab->request, lab, &lab->conn), 0);
        lab_batch(lab);
    }
    if (!agreed(lab, r))
        wrong = "the SYN-ACK";
    lab->opt.ts = r->ts;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .len = 100, .wnd = 1000 });
    lab_write(lab, 1000);
    if (lab->requests != 1 || lab->got != 100)
        wrong = "the client was not understood";
    else if (lab_info(lab).snd_wnd != (r->ws ? 1000u << 7 : 1000))
        wrong = "the scale of its window";
    else if ((lab_last(lab)->tos & 3) != (r->ecn ? 2 : 0))
        wrong = "ECT on data";
    lab_free(lab);
    return wrong;
}

static void what_a_client_no_longer_asks_for_is_not_agreed_on(
    void **state) /* tcp-stack.md SYN-1, SYN-4, SYN-6; RFC 3168 section 6.1.1.1 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(agains) * 4; i++) {
        const struct again_row *r = &agains[i / 4];
        const char *why = again_wrong(r, i & 1, i & 2);

        if (why == NULL)
            continue;
        print_error("%s%s%s: %s\n", r->what, i & 1 ? ", held" : "", i & 2 ? ", reordered" : "", why);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void windows_are_not_scaled_when_we_do_not_offer_it(
    void **state) /* tcp-stack.md WND-3; RFC 7323 section 2.2 */
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    o.config.window_scale = 0;
    lab = lab_new(&o);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    assert_int_equal(lab_last(lab)->ws, -1);
    ack_with_window(lab, 1, 1000);
    assert_int_equal(lab_info(lab).snd_wnd, 1000);
    lab_free(lab);
}

/* ---- windows that close over what was sent --------------------------------------------------------------- */

/* The client answers whatever comes within @seconds by saying again that its window is closed. */
static void keep_it_closed(struct lab *lab, unsigned seconds)
{
    for (unsigned i = 0; i < 4 * seconds; i++) {
        size_t before = lab->outs;

        lab_run_us(lab, 250000);
        if (lab->outs > before)
            ack_with_window(lab, 1, 0);
    }
}

static void a_window_that_closes_over_what_was_sent_is_probed_ever_less_often(
    void **state) /* tcp-stack.md SND-3, ZWP-1; RFC 9293 section 3.8.6.1 */
{
    struct lab *lab = lab_open(RTT_US, NULL);

    (void)state;
    lab_write(lab, 5 * MSS);
    ack_with_window(lab, 1, 0);
    lab_clear(lab);
    keep_it_closed(lab, 300);
    assert_int_equal(lab->closes, 0);
    assert_in_range(lab->outs, 8, 14); /* doubling from 220 ms to 60 s, and a loss probe */
    for (size_t i = 0; i < lab->outs; i++)
        assert_true(lab->out[i].len ==
                    MSS); /* no black hole, although large segments are lost again and again */
    lab_clear(lab);
    ack_with_window(lab, 1, 65535);
    lab_run_us(lab, 500000); /* one time-out, not what is left of the last pause */
    assert_true(lab->outs > 0);
    assert_int_equal(lab->out[0].seq, 1);
    assert_int_equal(lab->out[0].len, MSS);
    lab_free(lab);
}

static void a_fin_that_met_a_closed_window_comes_soon_after_it_opens(
    void **state) /* tcp-stack.md CLS-3, ZWP-1 */
{
    struct lab *lab = lab_open(RTT_US, NULL);

    (void)state;
    ack_with_window(lab, 1, 0);
    lab_shut_down(lab);
    assert_int_equal(lab_count(lab, "FIN,ACK"), 1);
    keep_it_closed(lab, 200);
    assert_int_equal(lab->closes, 0);
    lab_clear(lab);
    ack_with_window(lab, 1, 65535);
    lab_run_us(lab, 500000);
    assert_in_range(lab_count(lab, "FIN,ACK"), 1, 2);
    lab_free(lab);
}

/* ---- over, but not yet read ------------------------------------------------------------------------------ */

static struct lab *closed_but_unread(bool we_first)
{
    struct lab_options o;
    struct lab *lab;

    lab_options_default(&o);
    o.stall = true;
    o.config.keepalive_idle_ms = 10000;
    lab = lab_connected(&o);
    lab_data(lab, 1, 1, LAB_UP);
    if (we_first) {
        lab_shut_down(lab);
        lab_client_fin(lab, 2);
    } else {
        lab_client_fin(lab, 1);
        lab_shut_down(lab);
        lab_ack(lab, 2 + LAB_UP, 2);
    }
    lab_clear(lab);
    return lab;
}

static void what_was_acknowledged_is_delivered_even_if_a_reset_follows_the_end(
    void **state) /* tcp-stack.md TW-1, KA-1; RFC 1337 */
{
    (void)state;
    for (int we_first = 0; we_first <= 1; we_first++) {
        struct lab *lab = closed_but_unread(we_first);

        assert_string_equal(lab_info(lab).state, we_first ? "TIME-WAIT" : "CLOSED");
        lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 2 + LAB_UP });
        lab_run_us(lab, 60000000);
        assert_int_equal(lab->outs, 0); /* nor is a client that has gone asked whether it lives */
        assert_int_equal(lab->closes, 0);
        lab_read(lab, SIZE_MAX);
        lab_batch(lab);
        assert_true(lab->eof && lab->got == LAB_UP);
        assert_int_equal(lab->closes, 1);
        assert_int_equal(lab->close_err, 0);
        lab_free(lab);
    }
}

/* ---- silence --------------------------------------------------------------------------------------------- */

/* Ten segments leave, nothing arrives for @seconds, and then the client acknowledges all that was repeated since. */
static uint32_t mss_after_silence(uint32_t seconds)
{
    struct lab *lab = lab_open(RTT_US, NULL);
    uint32_t mss;

    lab_write(lab, 10 * MSS);
    lab_run_us(lab, seconds * 1000000ull);
    lab_clear(lab);
    while (lab->outs == 0)
        lab_run_us(lab, 100000);
    lab_ack(lab, 1, lab->out[0].seq + lab->out[0].len);
    mss = lab_info(lab).mss_bytes;
    assert_int_equal(lab->closes, 0);
    lab_free(lab);
    return mss;
}

static void an_outage_is_no_black_hole(void **state) /* tcp-stack.md MSS-3; RFC 4821 section 7.7 */
{
    (void)state;
    assert_int_equal(mss_after_silence(0), MSS);
    assert_int_equal(mss_after_silence(1),
                     552 - 52);                  /* a small one got through where two large ones did not */
    assert_int_equal(mss_after_silence(5), MSS); /* small ones were lost, too */
    assert_int_equal(mss_after_silence(60), MSS);
}

/* ---- who is still there ------------------------------------------------------------------------------------ */

static void every_10_s(struct lab_options *o)
{
    o->config.keepalive_idle_ms = 10000;
    o->config.keepalive_interval_ms = 1000;
    o->config.keepalive_probes = 3;
}

/* What a client that is asked whether it lives may say; each is an answer. */
static const struct answer_row {
    const char *what;
    struct lab_seg says;
} answers[] = {
    { "an ACK", { .flags = LAB_ACK, .seq = 101, .ack = 1 } },
    { "data", { .flags = LAB_ACK, .seq = 101, .ack = 1, .len = 10 } },
    { "a probe of its own", { .flags = LAB_ACK, .seq = 100, .ack = 1 } },
    { "what it has sent before", { .flags = LAB_ACK, .seq = 1, .ack = 1, .len = 100 } },
};

static void any_segment_is_an_answer_to_a_keep_alive(void **state) /* tcp-stack.md KA-1 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        struct lab *lab = lab_open(RTT_US, every_10_s);

        lab_data(lab, 1, 1, 100);
        lab_run_us(lab, 12500000);
        lab_send(lab, &answers[i].says);
        lab_clear(lab);
        lab_run_us(lab, 9500000);
        if (lab->outs > 0 || lab->closes > 0) {
            print_error("%s: %zu probes, %u ends\n", answers[i].what, lab->outs, lab->closes);
            wrong++;
        }
        lab_free(lab);
    }
    assert_int_equal(wrong, 0);
}

static void nobody_is_asked_while_data_is_out_or_waits(void **state) /* tcp-stack.md KA-1; RFC 9293 MUST-26 */
{
    struct lab *lab = lab_open(RTT_US, every_10_s);
    const struct stack_counters *n = stack_counters(lab->stack);

    (void)state;
    lab_write(lab, 1000); /* and no ACK comes: that is the user time-out's */
    lab_run_us(lab, 60000000);
    assert_int_equal(n->tcp_keepalive_probe, 0);
    assert_int_equal(lab->closes, 0);
    ack_with_window(lab, 1001, 0);
    lab_write(lab, 1000); /* for this the window is closed */
    lab_run_us(lab, 60000000);
    assert_int_equal(n->tcp_keepalive_probe, 0);
    assert_true(n->tcp_zero_probe > 0);
    ack_with_window(lab, 1001, 65535);
    ack_with_window(lab, 2001, 65535);
    lab_run_us(lab, 25000000); /* nothing is out any more */
    assert_int_equal(lab->close_err, -ETIMEDOUT);
    lab_free(lab);
}

/* A probe lies below the window, so the client uses nothing of it, not even the ACK. */
static void a_probe_does_not_stand_for_an_ack_that_is_due(void **state) /* tcp-stack.md ACK-1, ZWP-1 */
{
    struct lab *lab = lab_open(RTT_US, NULL);
    uint32_t seq = 1;

    (void)state;
    for (int i = 0; i < 20; i++, seq += 1000) /* the quick ACKs are spent */
        lab_data(lab, seq, 1, 1000);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = seq, .ack = 1, .zero_wnd = true });
    lab_write(lab, 1000);
    lab_run_us(lab, lab_info(lab).rto_us - 10000);
    lab_clear(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = seq, .ack = 1, .len = 100, .zero_wnd = true });
    lab_run_us(lab, 60000);
    assert_int_equal(stack_counters(lab->stack)->tcp_zero_probe, 1);
    assert_int_equal(lab->outs, 2);
    assert_int_equal(lab->out[0].seq, 0);
    assert_int_equal(lab->out[1].seq, 1);
    assert_int_equal(lab->out[1].ack, seq + 100);
    lab_free(lab);
}

static void a_reset_at_the_right_edge_is_outside(void **state) /* tcp-stack.md RST-1; RFC 5961 section 3.2 */
{
    struct lab *lab = lab_open(RTT_US, NULL);
    uint32_t edge = 1 + lab_info(lab).rcv_wnd;

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = edge });
    assert_int_equal(lab->outs, 0);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = edge - 1 });
    assert_int_equal(lab_count(lab, "ACK"), 1);
    assert_int_equal(lab->closes, 0);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_client_no_longer_asks_for_is_not_agreed_on),
        cmocka_unit_test(windows_are_not_scaled_when_we_do_not_offer_it),
        cmocka_unit_test(a_window_that_closes_over_what_was_sent_is_probed_ever_less_often),
        cmocka_unit_test(a_fin_that_met_a_closed_window_comes_soon_after_it_opens),
        cmocka_unit_test(what_was_acknowledged_is_delivered_even_if_a_reset_follows_the_end),
        cmocka_unit_test(an_outage_is_no_black_hole),
        cmocka_unit_test(any_segment_is_an_answer_to_a_keep_alive),
        cmocka_unit_test(nobody_is_asked_while_data_is_out_or_waits),
        cmocka_unit_test(a_probe_does_not_stand_for_an_ack_that_is_due),
        cmocka_unit_test(a_reset_at_the_right_edge_is_outside),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
