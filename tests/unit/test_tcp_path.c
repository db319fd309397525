/* test_tcp_path.c - faces src/stack/tcp_icmp.c, tcp_sack.c, tcp_cc.c and tcp_recv.c: what a connection learns of its path, and when it
 * forgets it again (tcp-stack.md ICM-3, REC-2, CC-1, ACK-1). */
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

/* ---- the MTU --------------------------------------------------------------------------------------------- */

static void a_live_connection_grows_again_when_a_learned_mtu_is_forgotten(
    void **state) /* tcp-stack.md ICM-3 */
{
    struct lab *lab = lab_open(RTT_US, NULL);

    (void)state;
    lab_write(lab, 4 * MSS);
    lab_icmp(lab, 1, 3, 4, 1400);
    assert_int_equal(lab_info(lab).mss_bytes, 1400 - 52);
    lab_ack(lab, 1, 1 + 4 * MSS);
    lab_run_us(lab, 590ull * 1000000);
    lab_write(lab, 1000);
    assert_int_equal(lab_info(lab).mss_bytes, 1400 - 52);
    lab_ack(lab, 1, 1 + 4 * MSS + 1000);
    lab_run_us(lab, 20ull * 1000000);
    lab_clear(lab);
    lab_write(lab, 3 * MSS);
    assert_int_equal(lab_info(lab).mss_bytes, MSS);
    assert_int_equal(lab->out[0].gso_size, MSS);
    lab_free(lab);
}

struct mtu_row {
    const char *what;
    void (*before)(struct lab *lab,
                   uint32_t len); /* the client's doing, when ten segments of @len are on their way */
    bool hole;                    /* our segments carry a SACK block */
    uint32_t repeated;            /* segments that leave at once when the path takes 1,400 */
};

static void nothing(struct lab *lab, uint32_t len)
{
    (void)lab;
    (void)len;
}

static void the_last_was_reported(struct lab *lab, uint32_t len)
{
    lab_sack(lab, 1, 1 + 9 * len, 1 + 10 * len);
}

static void two_near_the_end_were_reported(struct lab *lab, uint32_t len)
{
    lab_sack(lab, 1, 1 + 7 * len, 1 + 9 * len);
}

static void v6_path(struct lab_options *o)
{
    o->v6 = true;
}

static const struct mtu_row mtu_rows[] = {
    { "nothing arrived", nothing, false, 10 },
    { "the client misses something, too", nothing, true, 10 },
    { "the last one was reported", the_last_was_reported, false, 9 },
    { "two were reported", two_near_the_end_were_reported, false, 8 },
};

/* What was too long for the path leaves again at once, in segments that fit, and is no loss: when its ACKs come one by one, the rate
 * is what it was. */
static const char *mtu_wrong(const struct mtu_row *r, bool v6)
{
    struct lab *lab = lab_open(RTT_US, v6 ? v6_path : NULL);
    uint32_t ssthresh = lab_info(lab).ssthresh_bytes, mss = lab_info(lab).mss_bytes, small, seq = 1;
    uint32_t len = r->hole ? mss - 12 : mss;
    const char *wrong = NULL;

    if (r->hole)
        lab_data(lab, 1001, 1, 100);
    lab_write(lab, 10 * len);
    lab->now_us += RTT_US / 2;
    r->before(lab, len);
    lab_clear(lab);
    lab_icmp(lab, 1, v6 ? 2 : 3, v6 ? 0 : 4, 1400);
    small = lab_info(lab).mss_bytes;
    if (small != mss - 100)
        wrong = "the MTU was not believed";
    for (size_t i = 0; i < lab->outs; i++)
        if (lab->out[i].gso_size > small || (lab->out[i].gso_size == 0 && lab->out[i].len > small))
            wrong = "too long again";
    if (lab_payload_out(lab) != r->repeated * len)
        wrong = "not what was too long";
    for (; seq < 10 * len && wrong == NULL; seq += small) {
        lab->now_us += 1000;
        lab_ack(lab, 1, seq + small < 1 + 10 * len ? seq + small : 1 + 10 * len);
        if (strcmp(lab_info(lab).cc_state, "recovery") == 0 || strcmp(lab_info(lab).cc_state, "loss") == 0 ||
            lab_info(lab).ssthresh_bytes != ssthresh)
            wrong = "it counted as a loss";
    }
    lab_free(lab);
    return wrong;
}

static void what_is_too_long_for_the_path_is_no_loss(
    void **state) /* tcp-stack.md ICM-3; RFC 1191, RFC 8201 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(mtu_rows); i++) {
        const char *why = mtu_wrong(&mtu_rows[i / 2], i & 1);

        if (why == NULL)
            continue;
        print_error("%s, IPv%d: %s\n", mtu_rows[i / 2].what, i & 1 ? 6 : 4, why);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* ---- the round trip -------------------------------------------------------------------------------------- */

static void an_echo_of_the_future_measures_nothing(
    void **state) /* tcp-stack.md RTO-1; RFC 7323 section 4.1 */
{
    struct lab *lab = lab_open(RTT_US, NULL);
    uint64_t rto = lab_info(lab).rto_us;

    (void)state;
    lab_write(lab, MSS);
    lab_run_us(lab, 2 * rto); /* sent twice: only the echo can tell which one arrived */
    lab->last_tsval += 5000;
    lab_ack(lab, 1, 1 + MSS);
    assert_int_equal(lab_info(lab).unacked, 0);
    assert_int_equal(lab_info(lab).srtt_us, RTT_US);
    assert_int_equal(lab_info(lab).rto_us, rto);
    lab_free(lab);
}

/* ---- reordering ------------------------------------------------------------------------------------------ */

/* A flight of ten with one loss, which recovery repairs. Return: the number behind it. */
static uint32_t one_recovery(struct lab *lab)
{
    uint32_t una = (uint32_t)lab_info(lab).bytes_down + 1;

    lab->conn->cwnd = 20 * MSS; /* recoveries in a row leave little of it */
    lab_write(lab, 10 * MSS);
    lab->now_us += RTT_US;
    lab_sack(lab, una, una + MSS, una + 10 * MSS);
    assert_string_equal(lab_info(lab).cc_state, "recovery");
    lab->now_us += RTT_US;
    lab_ack(lab, 1, una + 10 * MSS);
    assert_string_equal(lab_info(lab).cc_state, "open");
    return una + 10 * MSS;
}

static void patience_with_reordering_ends_after_sixteen_recoveries(
    void **state) /* tcp-stack.md REC-2; RFC 8985 section 6.2, step 4 */
{
    struct lab *lab = lab_open(RTT_US, NULL);
    uint32_t end;

    (void)state;
    end = one_recovery(lab);
    assert_int_equal(lab_info(lab).reordering, 1);
    lab_sack(lab, end, end - 2 * MSS, end - MSS); /* it came twice */
    lab_sack(lab, end, end - MSS, end);           /* and another, but of the same round */
    assert_int_equal(lab_info(lab).reordering, 2);
    for (int i = 1; i <= 15; i++) {
        one_recovery(lab);
        assert_int_equal(lab_info(lab).reordering, 2);
    }
    one_recovery(lab);
    assert_int_equal(lab_info(lab).reordering, 1);
    lab_free(lab);
}

/* ---- slow start (RFC 9406) ------------------------------------------------------------------------------- */

static void ample(struct lab_options *o)
{
    o->config.snd_buffer_initial = 4u << 20;
    o->ws = 10;
}

/* One flight that is acknowledged in twelve steps after @rtt_us. Return: by how much cwnd grew, of what was acknowledged in percent. */
static uint32_t round_trip(struct lab *lab, uint32_t rtt_us)
{
    struct tcp_info before = lab_info(lab);
    uint32_t una = (uint32_t)before.bytes_down + 1, flight = before.unacked;

    lab->now_us += rtt_us;
    for (uint32_t i = 1; i <= 12; i++)
        lab_ack(lab, 1, una + (uint32_t)((uint64_t)flight * i / 12));
    return (lab_info(lab).cwnd_bytes - before.cwnd_bytes) * 100 / flight;
}

static struct lab *slow_starting(void)
{
    struct lab *lab = lab_open(RTT_US, ample);

    lab_write(lab, 40000000);
    for (int i = 0; i < 3; i++)
        assert_true(round_trip(lab, RTT_US) > 90);
    assert_false(lab->conn->cc.in_css);
    return lab;
}

static void a_longer_round_trip_makes_slow_start_careful(
    void **state) /* tcp-stack.md CC-1; RFC 9406 section 4.2 */
{
    struct lab *lab = slow_starting();

    (void)state;
    assert_true(round_trip(lab, RTT_US + 3900) > 90); /* below the threshold of 4 ms */
    assert_false(lab->conn->cc.in_css);
    round_trip(lab, RTT_US);
    for (int i = 0; i < 2; i++)
        round_trip(lab, RTT_US + 8000);
    assert_true(lab->conn->cc.in_css);
    assert_in_range(round_trip(lab, RTT_US + 8000), 20, 26); /* a quarter */
    assert_true(lab_info(lab).ssthresh_bytes == UINT32_MAX);
    lab_free(lab);
}

static void five_careful_rounds_end_slow_start(void **state) /* CC-1; RFC 9406 section 4.2 */
{
    struct lab *lab = slow_starting();
    int rounds = 0;

    (void)state;
    while (!lab->conn->cc.in_css)
        round_trip(lab, RTT_US + 8000);
    while (lab_info(lab).ssthresh_bytes == UINT32_MAX && rounds < 20) {
        round_trip(lab, RTT_US + 8000);
        rounds++;
    }
    assert_in_range(rounds, 4, 5); /* the round that noticed is the first */
    assert_true(lab->conn->cc.done);
    assert_true(lab_info(lab).ssthresh_bytes <= lab_info(lab).cwnd_bytes);
    lab_free(lab);
}

static void a_passing_delay_lets_slow_start_go_on(void **state) /* CC-1; RFC 9406 section 4.2 */
{
    struct lab *lab = slow_starting();

    (void)state;
    while (!lab->conn->cc.in_css)
        round_trip(lab, RTT_US + 8000);
    round_trip(lab, RTT_US);
    assert_false(lab->conn->cc.in_css);
    assert_true(round_trip(lab, RTT_US) > 90);
    assert_true(lab_info(lab).ssthresh_bytes == UINT32_MAX);
    lab_free(lab);
}

/* ---- acknowledging where packets are lost ---------------------------------------------------------------- */

static void spend_quick_acks(struct lab *lab)
{
    for (uint32_t i = 0; i < 20; i++)
        lab_data(lab, 1 + i * 1000, 1, 1000);
    lab_clear(lab);
}

/* Eight segments from @seq on that share a batch. Return: ACKs. */
static unsigned acks_for_eight(struct lab *lab, uint32_t seq)
{
    lab_clear(lab);
    for (uint32_t i = 0; i < 8; i++)
        lab_feed(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = seq + i * 1000, .ack = 1, .len = 1000 });
    lab_batch(lab);
    return lab_count(lab, "ACK");
}

static void after_a_retransmission_every_second_segment_is_acknowledged(
    void **state) /* tcp-stack.md ACK-1; RFC 5681 section 4.2 */
{
    struct lab *lab = lab_open(RTT_US, NULL);

    (void)state;
    spend_quick_acks(lab);
    assert_int_equal(acks_for_eight(lab, 20001), 1);   /* one a batch */
    lab_data(lab, 29001, 1, 1000);                     /* one is missing */
    lab_data(lab, 28001, 1, 1000);                     /* and comes */
    assert_in_range(acks_for_eight(lab, 30001), 4, 5); /* the fifth opens the window, after the batch */
    assert_int_equal(lab_last(lab)->ack, 38001);
    acks_for_eight(lab, 38001); /* sixteen segments later that is over */
    assert_int_equal(acks_for_eight(lab, 46001), 1);
    lab_data(lab, 45001, 1, 1000); /* our ACK was lost: the same */
    assert_in_range(acks_for_eight(lab, 54001), 4, 5);
    lab_free(lab);
}

static void each_segment_behind_a_hole_is_a_duplicate_ack_for_who_counts_them(
    void **state) /* tcp-stack.md ACK-1, REC-5; RFC 5681 section 4.2 */
{
    for (int sack = 0; sack <= 1; sack++) {
        struct lab *lab = lab_open(RTT_US, sack ? NULL : lab_no_sack);

        (void)state;
        spend_quick_acks(lab);
        /* a client with SACK needs one report, one without counts three */
        assert_int_equal(acks_for_eight(lab, 21001), sack ? 1 : 8);
        for (size_t i = 0; i < lab->outs; i++)
            assert_int_equal(lab->out[i].ack, 20001);
        lab_free(lab);
    }
}

/* ---- counted causes -------------------------------------------------------------------------------------- */

static void every_cause_of_a_retransmission_has_its_counter(void **state) /* tcp-stack.md OBS-1 */
{
    struct lab *rack = lab_open(RTT_US, NULL), *reno = lab_open(RTT_US, lab_no_sack);
    const struct stack_counters *n = stack_counters(rack->stack);

    (void)state;
    lab_write(rack, 10 * MSS);
    rack->now_us += RTT_US;
    lab_sack(rack, 1, 1 + MSS, 1 + 10 * MSS);
    assert_true(n->tcp_rexmit_rack == 1 && n->tcp_rexmit_fast == 0 && n->tcp_rexmit_rto == 0);
    lab_ack(rack, 1, 1 + 10 * MSS);
    lab_write(rack, 2 * MSS);
    lab_icmp(rack, 1 + 10 * MSS, 3, 4, 1400);
    assert_true(n->tcp_rexmit_mtu > 0 && n->tcp_rexmit_rack == 1);
    lab_free(rack);

    n = stack_counters(reno->stack);
    lab_write(reno, 10 * MSS);
    reno->now_us += RTT_US;
    for (int i = 0; i < 3; i++)
        lab_ack(reno, 1, 1);
    assert_true(n->tcp_rexmit_fast == 1 && n->tcp_rexmit_rack == 0 && n->tcp_rexmit_rto == 0);
    lab_run_us(reno, 3000000);
    assert_true(n->tcp_rexmit_rto > 0 && n->tcp_rexmit_fast == 1);
    lab_free(reno);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_live_connection_grows_again_when_a_learned_mtu_is_forgotten),
        cmocka_unit_test(what_is_too_long_for_the_path_is_no_loss),
        cmocka_unit_test(an_echo_of_the_future_measures_nothing),
        cmocka_unit_test(patience_with_reordering_ends_after_sixteen_recoveries),
        cmocka_unit_test(a_longer_round_trip_makes_slow_start_careful),
        cmocka_unit_test(five_careful_rounds_end_slow_start),
        cmocka_unit_test(a_passing_delay_lets_slow_start_go_on),
        cmocka_unit_test(after_a_retransmission_every_second_segment_is_acknowledged),
        cmocka_unit_test(each_segment_behind_a_hole_is_a_duplicate_ack_for_who_counts_them),
        cmocka_unit_test(every_cause_of_a_retransmission_has_its_counter),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
