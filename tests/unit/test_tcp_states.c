/* test_tcp_states.c - faces src/stack/tcp_input.c: what a segment does in each state, resets and blind attacks
 * (tcp-stack.md 4, RST-1 to RST-6, CLS-3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "lab_script.h"

static const char *state_of(const struct lab *lab)
{
    return lab->conn != NULL ? lab_info(lab).state : lab->closes > 0 ? "gone" : "none";
}

/* CLS-3: what an ordinary segment does in each state. seq is relative to what the stack expects next, ack to
 * what it has sent. */
static const struct state_row {
    enum lab_where in;
    const char *what;
    uint8_t flags;
    int32_t seq, ack;
    uint32_t len;
    const char *answer; /* flags of the only answer, "" for none */
    const char *then;   /* state afterwards */
} state_rows[] = {
    { LAB_SYN_RECEIVED, "SYN again", LAB_SYN, -1, 0, 0, "SYN,ACK", "SYN-RECEIVED" },
    { LAB_SYN_RECEIVED, "another SYN", LAB_SYN, 500, 0, 0, "ACK", "SYN-RECEIVED" },
    { LAB_SYN_RECEIVED, "exact RST", LAB_RST, 0, 0, 0, "", "gone" },
    { LAB_SYN_RECEIVED, "RST in the window", LAB_RST, 9, 0, 0, "ACK", "SYN-RECEIVED" },
    { LAB_SYN_RECEIVED, "RST outside", LAB_RST, 70000, 0, 0, "", "SYN-RECEIVED" },
    { LAB_SYN_RECEIVED, "ACK", LAB_ACK, 0, 0, 0, "", "ESTABLISHED" },
    { LAB_SYN_RECEIVED, "ACK of the future", LAB_ACK, 0, 1, 0, "RST", "SYN-RECEIVED" },
    { LAB_SYN_RECEIVED, "FIN", LAB_ACK | LAB_FIN, 0, 0, 0, "ACK", "CLOSE-WAIT" },
    { LAB_SYN_RECEIVED, "data outside", LAB_ACK, 70000, 0, 10, "ACK", "SYN-RECEIVED" },
    { LAB_ESTABLISHED, "SYN", LAB_SYN, 0, 0, 0, "ACK", "ESTABLISHED" },
    { LAB_ESTABLISHED, "old SYN", LAB_SYN, -101, 0, 0, "ACK", "ESTABLISHED" },
    { LAB_ESTABLISHED, "SYN far away", LAB_SYN, 5000000, 0, 0, "ACK", "ESTABLISHED" },
    { LAB_ESTABLISHED, "exact RST", LAB_RST, 0, 0, 0, "", "gone" },
    { LAB_ESTABLISHED, "RST in the window", LAB_RST, 1, 0, 0, "ACK", "ESTABLISHED" },
    { LAB_ESTABLISHED, "RST below", LAB_RST, -1, 0, 0, "", "ESTABLISHED" },
    { LAB_ESTABLISHED, "RST outside", LAB_RST, 5000000, 0, 0, "", "ESTABLISHED" },
    { LAB_SYN_RECEIVED, "RST with the window's last number", LAB_RST, 65534, 0, 0, "ACK", "SYN-RECEIVED" },
    { LAB_SYN_RECEIVED, "RST behind it", LAB_RST, 65535, 0, 0, "", "SYN-RECEIVED" },
    { LAB_ESTABLISHED, "RST with a wrong ACK", LAB_RST | LAB_ACK, 0, 12345, 0, "", "gone" },
    { LAB_ESTABLISHED, "FIN", LAB_ACK | LAB_FIN, 0, 0, 0, "ACK", "CLOSE-WAIT" },
    { LAB_ESTABLISHED, "FIN with data", LAB_ACK | LAB_FIN, 0, 0, 50, "ACK", "CLOSE-WAIT" },
    { LAB_ESTABLISHED, "FIN beyond a hole", LAB_ACK | LAB_FIN, 10, 0, 0, "ACK", "ESTABLISHED" },
    { LAB_ESTABLISHED, "no ACK flag", 0, 0, 0, 10, "", "ESTABLISHED" },
    { LAB_ESTABLISHED, "ACK of the future", LAB_ACK, 0, 1, 10, "ACK", "ESTABLISHED" },
    { LAB_ESTABLISHED, "ancient ACK", LAB_ACK, 0, -9000000, 10, "ACK", "ESTABLISHED" },
    { LAB_ESTABLISHED, "data outside", LAB_ACK, 5000000, 0, 10, "ACK", "ESTABLISHED" },
    { LAB_ESTABLISHED, "data again", LAB_ACK, -50, 0, 50, "ACK", "ESTABLISHED" },
    { LAB_ESTABLISHED, "keep-alive probe", LAB_ACK, -1, 0, 0, "ACK", "ESTABLISHED" },
    { LAB_ESTABLISHED, "keep-alive probe with a byte", LAB_ACK, -1, 0, 1, "ACK", "ESTABLISHED" },
    { LAB_ESTABLISHED, "ACK", LAB_ACK, 0, 0, 0, "", "ESTABLISHED" },
    { LAB_FIN_WAIT_1, "ACK of our FIN", LAB_ACK, 0, 0, 0, "", "FIN-WAIT-2" },
    { LAB_FIN_WAIT_1, "old ACK", LAB_ACK, 0, -1, 0, "", "FIN-WAIT-1" },
    { LAB_FIN_WAIT_1, "FIN with our ACK", LAB_ACK | LAB_FIN, 0, 0, 0, "ACK", "gone" },
    { LAB_FIN_WAIT_1, "FIN without", LAB_ACK | LAB_FIN, 0, -1, 0, "ACK", "CLOSING" },
    { LAB_FIN_WAIT_1, "data", LAB_ACK, 0, -1, 10, "ACK", "FIN-WAIT-1" },
    { LAB_FIN_WAIT_1, "exact RST", LAB_RST, 0, 0, 0, "", "gone" },
    { LAB_FIN_WAIT_1, "SYN", LAB_SYN, 0, 0, 0, "ACK", "FIN-WAIT-1" },
    { LAB_FIN_WAIT_1, "data outside", LAB_ACK, 5000000, 0, 10, "ACK", "FIN-WAIT-1" },
    { LAB_FIN_WAIT_2, "data", LAB_ACK, 0, 0, 10, "ACK", "FIN-WAIT-2" },
    { LAB_FIN_WAIT_2, "FIN", LAB_ACK | LAB_FIN, 0, 0, 0, "ACK", "gone" },
    { LAB_FIN_WAIT_2, "FIN with data", LAB_ACK | LAB_FIN, 0, 0, 10, "ACK", "gone" },
    { LAB_FIN_WAIT_2, "exact RST", LAB_RST, 0, 0, 0, "", "gone" },
    { LAB_FIN_WAIT_2, "SYN", LAB_SYN, 0, 0, 0, "ACK", "FIN-WAIT-2" },
    { LAB_FIN_WAIT_2, "bad seq", LAB_ACK, 5000000, 0, 0, "ACK", "FIN-WAIT-2" },
    { LAB_CLOSING, "ACK of our FIN", LAB_ACK, 0, 0, 0, "", "gone" },
    { LAB_CLOSING, "FIN again", LAB_ACK | LAB_FIN, -1, -1, 0, "ACK", "CLOSING" },
    { LAB_CLOSING, "exact RST", LAB_RST, 0, 0, 0, "", "gone" },
    { LAB_CLOSING, "SYN", LAB_SYN, 0, 0, 0, "ACK", "CLOSING" },
    { LAB_CLOSING, "bad seq", LAB_ACK, 5000000, -1, 0, "ACK", "CLOSING" },
    { LAB_CLOSE_WAIT, "ACK", LAB_ACK, 0, 0, 0, "", "CLOSE-WAIT" },
    { LAB_CLOSE_WAIT, "FIN again", LAB_ACK | LAB_FIN, -1, 0, 0, "ACK", "CLOSE-WAIT" },
    { LAB_CLOSE_WAIT, "data after FIN", LAB_ACK, 0, 0, 10, "", "CLOSE-WAIT" },
    { LAB_CLOSE_WAIT, "exact RST", LAB_RST, 0, 0, 0, "", "gone" },
    { LAB_CLOSE_WAIT, "SYN", LAB_SYN, 0, 0, 0, "ACK", "CLOSE-WAIT" },
    { LAB_CLOSE_WAIT, "bad seq", LAB_ACK, 5000000, 0, 0, "ACK", "CLOSE-WAIT" },
    { LAB_LAST_ACK, "ACK of our FIN", LAB_ACK, 0, 0, 0, "", "gone" },
    { LAB_LAST_ACK, "old ACK", LAB_ACK, 0, -1, 0, "", "LAST-ACK" },
    { LAB_LAST_ACK, "FIN again", LAB_ACK | LAB_FIN, -1, -1, 0, "ACK", "LAST-ACK" },
    { LAB_LAST_ACK, "exact RST", LAB_RST, 0, 0, 0, "", "gone" },
    { LAB_LAST_ACK, "SYN", LAB_SYN, 0, 0, 0, "ACK", "LAST-ACK" },
    { LAB_LAST_ACK, "bad seq", LAB_ACK, 5000000, -1, 0, "ACK", "LAST-ACK" },
    { LAB_TIME_WAIT, "FIN again", LAB_ACK | LAB_FIN, -1, 0, 0, "ACK", "gone" },
    { LAB_TIME_WAIT, "exact RST", LAB_RST, 0, 0, 0, "", "gone" },
    { LAB_TIME_WAIT, "late ACK", LAB_ACK, 0, 0, 0, "", "gone" },
    { LAB_TIME_WAIT, "data", LAB_ACK, 0, 0, 10, "ACK", "gone" },
    { LAB_TIME_WAIT, "an ACK from before", LAB_ACK, -50, 0, 0, "ACK", "gone" },
    { LAB_TIME_WAIT, "an ACK beyond", LAB_ACK, 50, 0, 0, "ACK", "gone" },
    { LAB_TIME_WAIT, "another FIN", LAB_ACK | LAB_FIN, 50, 0, 0, "ACK", "gone" },
    { LAB_TIME_WAIT, "old SYN", LAB_SYN, -50, 0, 0, "ACK", "gone" },
};

static bool state_row_holds(const struct state_row *r)
{
    struct lab *lab = lab_in(r->in);
    bool fin =
        r->in == LAB_CLOSING || r->in == LAB_TIME_WAIT || r->in == LAB_CLOSE_WAIT || r->in == LAB_LAST_ACK;
    bool ours = r->in != LAB_SYN_RECEIVED && r->in != LAB_ESTABLISHED && r->in != LAB_CLOSE_WAIT;
    struct lab_seg s = { .flags = r->flags, .len = r->len };
    char text[40] = "";
    bool ok;

    s.seq = (uint32_t)((r->in == LAB_SYN_RECEIVED ? 1 : 1 + LAB_UP + fin) + r->seq);
    s.ack = (uint32_t)((ours ? 2 : 1) + r->ack);
    s.old_ts = r->in == LAB_TIME_WAIT && (r->flags & LAB_SYN);
    lab_clear(lab);
    lab_send(lab, &s);
    lab_run_us(lab, 45000); /* a delayed ACK is an answer, too */
    if (lab->outs > 0)
        lab_flags_text(lab->out[0].flags, text);
    ok = lab->outs <= 1 && strcmp(text, r->answer) == 0 && strcmp(state_of(lab), r->then) == 0;
    if (!ok)
        print_error("%s, %s: %zu answers (%s), then %s; not (%s), %s\n", lab_where_name(r->in), r->what,
                    lab->outs, text, state_of(lab), r->answer, r->then);
    lab_free(lab);
    return ok;
}

static void every_state_answers_as_rfc_9293_says(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(state_rows); i++)
        wrong += !state_row_holds(&state_rows[i]);
    assert_int_equal(wrong, 0);
}

/* faults.md T1. All 256 combinations in all states: no crash, at most one answer, an RST is never answered
 * with an RST, and what carries no exact RST does not end a connection. */
static void no_combination_of_flags_does_harm(void **state)
{
    int wrong = 0;

    (void)state;
    for (int w = LAB_SYN_RECEIVED; w <= LAB_NOTHING; w++) {
        for (int flags = 0; flags < 256; flags++) {
            struct lab *lab = lab_in((enum lab_where)w);
            unsigned closes = lab->closes;
            bool ok;

            lab_clear(lab);
            lab_send(lab, &(struct lab_seg){ .flags = (uint8_t)flags, .seq = 300, .ack = 1, .len = 3 });
            lab_run_us(lab, 45000);
            ok = lab->outs <= 1 && lab->closes == closes;
            if ((flags & LAB_RST) && lab->outs > 0)
                ok = ok && !(lab->out[0].flags & LAB_RST);
            if (!ok)
                print_error("%s, flags %d: %zu answers, %u ends\n", lab_where_name(w), flags, lab->outs,
                            lab->closes);
            wrong += !ok;
            lab_free(lab);
        }
    }
    assert_int_equal(wrong, 0);
}

static void only_an_exact_reset_number_is_obeyed(void **state) /* RST-1, RST-3; faults.md T5 */
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);

    (void)state;
    for (uint32_t i = 1; i < 65536; i++)
        lab_feed(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 1 + LAB_UP + i });
    lab_batch(lab);
    assert_int_equal(lab->closes, 0);
    assert_int_equal(lab_count(lab, "ACK"), 1);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 1 + LAB_UP });
    assert_int_equal(lab->close_err, -ECONNRESET);
    lab_free(lab);
}

static void ten_thousand_bad_segments_in_a_second_get_three_answers(void **state) /* RST-3; faults.md T6 */
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);

    (void)state;
    for (uint32_t i = 0; i < 10000; i++) {
        lab_data(lab, 7000000 + i * 10, 1, 10);
        lab_run_us(lab, 100);
    }
    assert_in_range(lab_count(lab, "ACK"), 1, 3);
    lab_data(lab, 1 + LAB_UP, 1, 1000);
    assert_int_equal(lab->got, LAB_UP + 1000);
    lab_free(lab);
}

static void challenges_are_ten_in_five_seconds_whatever_the_cause(void **state) /* RST-3 */
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);

    (void)state;
    for (uint32_t i = 0; i < 4000; i++) {
        static const uint8_t kinds[] = { LAB_SYN, LAB_RST, LAB_ACK };

        lab_send(lab, &(struct lab_seg){
                          .flags = kinds[i % 3], .seq = 1 + LAB_UP + 5, .ack = i % 3 == 2 ? 77777 : 0 });
        lab_run_us(lab, 1000);
    }
    assert_int_equal(lab_count(lab, "ACK"), 10); /* three at once, and half a second later three more */
    lab_free(lab);
}

/* Whatever comes between: the same cause is answered again after 500 ms, and not before. */
static void one_cause_is_answered_every_500_ms(void **state) /* RST-3 */
{
    static const struct lab_seg causes[] = {
        { .flags = LAB_ACK, .seq = 7000000, .ack = 1, .len = 10 },         /* beyond the window */
        { .flags = LAB_ACK, .seq = 1 + LAB_UP, .ack = 1, .old_ts = true }, /* PAWS */
        { .flags = LAB_RST, .seq = 1 + LAB_UP + 5 },
        { .flags = LAB_SYN, .seq = 1 + LAB_UP + 5 },
        { .flags = LAB_ACK, .seq = 1 + LAB_UP, .ack = 77777 },
    };
    struct lab *lab = lab_in(LAB_ESTABLISHED);

    (void)state;
    for (int rounds = 0; rounds < 2; rounds++) {
        lab_clear(lab);
        lab->now_us += 10000; /* later than the timestamps that are old here */
        for (size_t i = 0; i < 3 * ARRAY_LEN(causes); i++)
            lab_send(lab, &causes[i % ARRAY_LEN(causes)]);
        assert_int_equal(lab_count(lab, "ACK"), ARRAY_LEN(causes));
        lab->now_us += 499000;
        for (size_t i = 0; i < ARRAY_LEN(causes); i++)
            lab_send(lab, &causes[i]);
        assert_int_equal(lab_count(lab, "ACK"), ARRAY_LEN(causes));
        lab->now_us += 1000;
        for (size_t i = 0; i < ARRAY_LEN(causes); i++)
            lab_send(lab, &causes[i]);
        assert_int_equal(lab_count(lab, "ACK"), 2 * ARRAY_LEN(causes));
        lab->now_us += 4400000; /* the last is more than 500 ms ago, the first of the ten less than 5 s */
        lab_send(lab, &causes[0]);
        assert_int_equal(lab_count(lab, "ACK"), 2 * ARRAY_LEN(causes));
        lab->now_us += 200000;
    }
    lab_free(lab);
}

static void an_acknowledgement_may_be_old_by_one_window(
    void **state) /* SEQ-6: both ends of what is plausible */
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);
    uint32_t most = lab_info(lab).snd_wnd, una = 1;

    (void)state;
    assert_int_equal(most, 65535u << 7);
    lab_write(lab, 1000);
    lab_data(lab, 1 + LAB_UP, una - most - 1, 10);
    assert_int_equal(lab->got, LAB_UP);
    lab_data(lab, 1 + LAB_UP, una - most, 10);
    assert_int_equal(lab->got, LAB_UP + 10);
    lab_data(lab, 1 + LAB_UP + 10, una + 1001, 10);
    assert_int_equal(lab->got, LAB_UP + 10);
    lab_data(lab, 1 + LAB_UP + 10, una + 1000, 10);
    assert_int_equal(lab->got, LAB_UP + 20);
    assert_int_equal(stack_counters(lab->stack)->tcp_bad_ack, 2);
    lab_free(lab);
}

static void a_bad_ack_leaves_ts_recent_window_and_data_alone(void **state) /* SEQ-6 */
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);
    uint32_t wnd = lab_info(lab).snd_wnd;

    (void)state;
    lab_send(lab,
             &(struct lab_seg){
                 .flags = LAB_ACK, .seq = 1 + LAB_UP, .ack = 5000, .len = 10, .wnd = 3, .tsval = 900000000 });
    assert_int_equal(lab->got, LAB_UP);
    assert_int_equal(lab_info(lab).snd_wnd, wnd);
    assert_true(lab_last(lab)->tsecr != 900000000);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_answers_as_rfc_9293_says),
        cmocka_unit_test(no_combination_of_flags_does_harm),
        cmocka_unit_test(only_an_exact_reset_number_is_obeyed),
        cmocka_unit_test(ten_thousand_bad_segments_in_a_second_get_three_answers),
        cmocka_unit_test(challenges_are_ten_in_five_seconds_whatever_the_cause),
        cmocka_unit_test(one_cause_is_answered_every_500_ms),
        cmocka_unit_test(an_acknowledgement_may_be_old_by_one_window),
        cmocka_unit_test(a_bad_ack_leaves_ts_recent_window_and_data_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
