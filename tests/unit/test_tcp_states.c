/* test_tcp_states.c - faces src/stack/tcp_input.c: what a segment does in each state, resets and blind attacks
 * (tcp-stack.md 4, RST-1 to RST-6, CLS-3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "lab.h"

#define UP 100 /* bytes the client has sent when a state is reached: next is 101, or 102 after its FIN */

enum where {
    SYN_RECEIVED,
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    CLOSING,
    TIME_WAIT,
    CLOSE_WAIT,
    LAST_ACK,
    HELD,
    NOTHING
};
static const char *const where_names[] = { "SYN-RECEIVED", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2",
                                           "CLOSING",      "TIME-WAIT",   "CLOSE-WAIT", "LAST-ACK",
                                           "held SYN",     "LISTEN" };

static void client_fin(struct lab *lab, uint32_t ack)
{
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 1 + UP, .ack = ack });
}

static void we_shut_down(struct lab *lab)
{
    tcp_shutdown(lab->conn);
    lab_batch(lab);
}

/* A laboratory whose connection is in state @w. Our numbers: SYN 0, no data, FIN 1. */
static struct lab *lab_in(enum where w)
{
    struct lab_options o;
    struct lab *lab;

    lab_options_default(&o);
    o.hold = w == HELD;
    lab = lab_new(&o);
    if (w == NOTHING)
        return lab;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    if (w == SYN_RECEIVED || w == HELD)
        return lab;
    lab_ack(lab, 1, 1);
    lab_data(lab, 1, 1, UP);
    switch (w) {
    case FIN_WAIT_1:
        we_shut_down(lab);
        break;
    case FIN_WAIT_2:
        we_shut_down(lab);
        lab_ack(lab, 1 + UP, 2);
        break;
    case CLOSING:
        we_shut_down(lab);
        client_fin(lab, 1);
        break;
    case TIME_WAIT:
        we_shut_down(lab);
        client_fin(lab, 2);
        break;
    case CLOSE_WAIT:
        client_fin(lab, 1);
        break;
    case LAST_ACK:
        client_fin(lab, 1);
        we_shut_down(lab);
        break;
    case SYN_RECEIVED:
    case ESTABLISHED:
    case HELD:
    case NOTHING:
        break;
    }
    lab_clear(lab);
    return lab;
}

static const char *state_of(const struct lab *lab)
{
    return lab->conn != NULL ? lab_info(lab).state : lab->closes > 0 ? "gone" : "none";
}

/* CLS-3: what an ordinary segment does in each state. seq is relative to what the stack expects next, ack to
 * what it has sent. */
static const struct state_row {
    enum where in;
    const char *what;
    uint8_t flags;
    int32_t seq, ack;
    uint32_t len;
    const char *answer; /* flags of the only answer, "" for none */
    const char *then;   /* state afterwards */
} state_rows[] = {
    { SYN_RECEIVED, "SYN again", LAB_SYN, -1, 0, 0, "SYN,ACK", "SYN-RECEIVED" },
    { SYN_RECEIVED, "another SYN", LAB_SYN, 500, 0, 0, "ACK", "SYN-RECEIVED" },
    { SYN_RECEIVED, "exact RST", LAB_RST, 0, 0, 0, "", "gone" },
    { SYN_RECEIVED, "RST in the window", LAB_RST, 9, 0, 0, "ACK", "SYN-RECEIVED" },
    { SYN_RECEIVED, "RST outside", LAB_RST, 70000, 0, 0, "", "SYN-RECEIVED" },
    { SYN_RECEIVED, "ACK", LAB_ACK, 0, 0, 0, "", "ESTABLISHED" },
    { SYN_RECEIVED, "ACK of the future", LAB_ACK, 0, 1, 0, "RST", "SYN-RECEIVED" },
    { SYN_RECEIVED, "FIN", LAB_ACK | LAB_FIN, 0, 0, 0, "ACK", "CLOSE-WAIT" },
    { SYN_RECEIVED, "data outside", LAB_ACK, 70000, 0, 10, "ACK", "SYN-RECEIVED" },
    { ESTABLISHED, "SYN", LAB_SYN, 0, 0, 0, "ACK", "ESTABLISHED" },
    { ESTABLISHED, "old SYN", LAB_SYN, -101, 0, 0, "ACK", "ESTABLISHED" },
    { ESTABLISHED, "SYN far away", LAB_SYN, 5000000, 0, 0, "ACK", "ESTABLISHED" },
    { ESTABLISHED, "exact RST", LAB_RST, 0, 0, 0, "", "gone" },
    { ESTABLISHED, "RST in the window", LAB_RST, 1, 0, 0, "ACK", "ESTABLISHED" },
    { ESTABLISHED, "RST below", LAB_RST, -1, 0, 0, "", "ESTABLISHED" },
    { ESTABLISHED, "RST outside", LAB_RST, 5000000, 0, 0, "", "ESTABLISHED" },
    { ESTABLISHED, "RST with a wrong ACK", LAB_RST | LAB_ACK, 0, 12345, 0, "", "gone" },
    { ESTABLISHED, "FIN", LAB_ACK | LAB_FIN, 0, 0, 0, "ACK", "CLOSE-WAIT" },
    { ESTABLISHED, "FIN with data", LAB_ACK | LAB_FIN, 0, 0, 50, "ACK", "CLOSE-WAIT" },
    { ESTABLISHED, "FIN beyond a hole", LAB_ACK | LAB_FIN, 10, 0, 0, "ACK", "ESTABLISHED" },
    { ESTABLISHED, "no ACK flag", 0, 0, 0, 10, "", "ESTABLISHED" },
    { ESTABLISHED, "ACK of the future", LAB_ACK, 0, 1, 10, "ACK", "ESTABLISHED" },
    { ESTABLISHED, "ancient ACK", LAB_ACK, 0, -9000000, 10, "ACK", "ESTABLISHED" },
    { ESTABLISHED, "data outside", LAB_ACK, 5000000, 0, 10, "ACK", "ESTABLISHED" },
    { ESTABLISHED, "data again", LAB_ACK, -50, 0, 50, "ACK", "ESTABLISHED" },
    { ESTABLISHED, "keep-alive probe", LAB_ACK, -1, 0, 0, "ACK", "ESTABLISHED" },
    { ESTABLISHED, "keep-alive probe with a byte", LAB_ACK, -1, 0, 1, "ACK", "ESTABLISHED" },
    { ESTABLISHED, "ACK", LAB_ACK, 0, 0, 0, "", "ESTABLISHED" },
    { FIN_WAIT_1, "ACK of our FIN", LAB_ACK, 0, 0, 0, "", "FIN-WAIT-2" },
    { FIN_WAIT_1, "old ACK", LAB_ACK, 0, -1, 0, "", "FIN-WAIT-1" },
    { FIN_WAIT_1, "FIN with our ACK", LAB_ACK | LAB_FIN, 0, 0, 0, "ACK", "gone" },
    { FIN_WAIT_1, "FIN without", LAB_ACK | LAB_FIN, 0, -1, 0, "ACK", "CLOSING" },
    { FIN_WAIT_1, "data", LAB_ACK, 0, -1, 10, "ACK", "FIN-WAIT-1" },
    { FIN_WAIT_1, "exact RST", LAB_RST, 0, 0, 0, "", "gone" },
    { FIN_WAIT_1, "SYN", LAB_SYN, 0, 0, 0, "ACK", "FIN-WAIT-1" },
    { FIN_WAIT_1, "data outside", LAB_ACK, 5000000, 0, 10, "ACK", "FIN-WAIT-1" },
    { FIN_WAIT_2, "data", LAB_ACK, 0, 0, 10, "ACK", "FIN-WAIT-2" },
    { FIN_WAIT_2, "FIN", LAB_ACK | LAB_FIN, 0, 0, 0, "ACK", "gone" },
    { FIN_WAIT_2, "FIN with data", LAB_ACK | LAB_FIN, 0, 0, 10, "ACK", "gone" },
    { FIN_WAIT_2, "exact RST", LAB_RST, 0, 0, 0, "", "gone" },
    { FIN_WAIT_2, "SYN", LAB_SYN, 0, 0, 0, "ACK", "FIN-WAIT-2" },
    { FIN_WAIT_2, "bad seq", LAB_ACK, 5000000, 0, 0, "ACK", "FIN-WAIT-2" },
    { CLOSING, "ACK of our FIN", LAB_ACK, 0, 0, 0, "", "gone" },
    { CLOSING, "FIN again", LAB_ACK | LAB_FIN, -1, -1, 0, "ACK", "CLOSING" },
    { CLOSING, "exact RST", LAB_RST, 0, 0, 0, "", "gone" },
    { CLOSING, "SYN", LAB_SYN, 0, 0, 0, "ACK", "CLOSING" },
    { CLOSING, "bad seq", LAB_ACK, 5000000, -1, 0, "ACK", "CLOSING" },
    { CLOSE_WAIT, "ACK", LAB_ACK, 0, 0, 0, "", "CLOSE-WAIT" },
    { CLOSE_WAIT, "FIN again", LAB_ACK | LAB_FIN, -1, 0, 0, "ACK", "CLOSE-WAIT" },
    { CLOSE_WAIT, "data after FIN", LAB_ACK, 0, 0, 10, "", "CLOSE-WAIT" },
    { CLOSE_WAIT, "exact RST", LAB_RST, 0, 0, 0, "", "gone" },
    { CLOSE_WAIT, "SYN", LAB_SYN, 0, 0, 0, "ACK", "CLOSE-WAIT" },
    { CLOSE_WAIT, "bad seq", LAB_ACK, 5000000, 0, 0, "ACK", "CLOSE-WAIT" },
    { LAST_ACK, "ACK of our FIN", LAB_ACK, 0, 0, 0, "", "gone" },
    { LAST_ACK, "old ACK", LAB_ACK, 0, -1, 0, "", "LAST-ACK" },
    { LAST_ACK, "FIN again", LAB_ACK | LAB_FIN, -1, -1, 0, "ACK", "LAST-ACK" },
    { LAST_ACK, "exact RST", LAB_RST, 0, 0, 0, "", "gone" },
    { LAST_ACK, "SYN", LAB_SYN, 0, 0, 0, "ACK", "LAST-ACK" },
    { LAST_ACK, "bad seq", LAB_ACK, 5000000, -1, 0, "ACK", "LAST-ACK" },
    { TIME_WAIT, "FIN again", LAB_ACK | LAB_FIN, -1, 0, 0, "ACK", "gone" },
    { TIME_WAIT, "exact RST", LAB_RST, 0, 0, 0, "", "gone" },
    { TIME_WAIT, "late ACK", LAB_ACK, 0, 0, 0, "", "gone" },
    { TIME_WAIT, "data", LAB_ACK, 0, 0, 10, "ACK", "gone" },
    { TIME_WAIT, "old SYN", LAB_SYN, -50, 0, 0, "ACK", "gone" },
};

static bool state_row_holds(const struct state_row *r)
{
    struct lab *lab = lab_in(r->in);
    bool fin = r->in == CLOSING || r->in == TIME_WAIT || r->in == CLOSE_WAIT || r->in == LAST_ACK;
    bool ours = r->in != SYN_RECEIVED && r->in != ESTABLISHED && r->in != CLOSE_WAIT;
    struct lab_seg s = { .flags = r->flags, .len = r->len };
    char text[40] = "";
    bool ok;

    s.seq = (uint32_t)((r->in == SYN_RECEIVED ? 1 : 1 + UP + fin) + r->seq);
    s.ack = (uint32_t)((ours ? 2 : 1) + r->ack);
    s.old_ts = r->in == TIME_WAIT && (r->flags & LAB_SYN);
    lab_clear(lab);
    lab_send(lab, &s);
    lab_run_us(lab, 45000); /* a delayed ACK is an answer, too */
    if (lab->outs > 0)
        lab_flags_text(lab->out[0].flags, text);
    ok = lab->outs <= 1 && strcmp(text, r->answer) == 0 && strcmp(state_of(lab), r->then) == 0;
    if (!ok)
        print_error("%s, %s: %zu answers (%s), then %s; not (%s), %s\n", where_names[r->in], r->what,
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
    for (int w = SYN_RECEIVED; w <= NOTHING; w++) {
        for (int flags = 0; flags < 256; flags++) {
            struct lab *lab = lab_in((enum where)w);
            unsigned closes = lab->closes;
            bool ok;

            lab_clear(lab);
            lab_send(lab, &(struct lab_seg){ .flags = (uint8_t)flags, .seq = 300, .ack = 1, .len = 3 });
            lab_run_us(lab, 45000);
            ok = lab->outs <= 1 && lab->closes == closes;
            if ((flags & LAB_RST) && lab->outs > 0)
                ok = ok && !(lab->out[0].flags & LAB_RST);
            if (!ok)
                print_error("%s, flags %d: %zu answers, %u ends\n", where_names[w], flags, lab->outs,
                            lab->closes);
            wrong += !ok;
            lab_free(lab);
        }
    }
    assert_int_equal(wrong, 0);
}

static void only_an_exact_reset_number_is_obeyed(void **state) /* RST-1, RST-3; faults.md T5 */
{
    struct lab *lab = lab_in(ESTABLISHED);

    (void)state;
    for (uint32_t i = 1; i < 65536; i++)
        lab_feed(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 1 + UP + i });
    lab_batch(lab);
    assert_int_equal(lab->closes, 0);
    assert_int_equal(lab_count(lab, "ACK"), 1);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 1 + UP });
    assert_int_equal(lab->close_err, -ECONNRESET);
    lab_free(lab);
}

static void ten_thousand_bad_segments_in_a_second_get_three_answers(void **state) /* RST-3; faults.md T6 */
{
    struct lab *lab = lab_in(ESTABLISHED);

    (void)state;
    for (uint32_t i = 0; i < 10000; i++) {
        lab_data(lab, 7000000 + i * 10, 1, 10);
        lab_run_us(lab, 100);
    }
    assert_in_range(lab_count(lab, "ACK"), 1, 3);
    lab_data(lab, 1 + UP, 1, 1000);
    assert_int_equal(lab->got, UP + 1000);
    lab_free(lab);
}

static void challenges_are_ten_in_five_seconds_whatever_the_cause(void **state) /* RST-3 */
{
    struct lab *lab = lab_in(ESTABLISHED);

    (void)state;
    for (uint32_t i = 0; i < 4000; i++) {
        static const uint8_t kinds[] = { LAB_SYN, LAB_RST, LAB_ACK };

        lab_send(lab, &(struct lab_seg){
                          .flags = kinds[i % 3], .seq = 1 + UP + 5, .ack = i % 3 == 2 ? 77777 : 0 });
        lab_run_us(lab, 1000);
    }
    assert_in_range(lab_count(lab, "ACK"), 5, 10);
    lab_free(lab);
}

static void a_bad_ack_leaves_ts_recent_window_and_data_alone(void **state) /* SEQ-6 */
{
    struct lab *lab = lab_in(ESTABLISHED);
    uint32_t wnd = lab_info(lab).snd_wnd;

    (void)state;
    lab_send(lab,
             &(struct lab_seg){
                 .flags = LAB_ACK, .seq = 1 + UP, .ack = 5000, .len = 10, .wnd = 3, .tsval = 900000000 });
    assert_int_equal(lab->got, UP);
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
        cmocka_unit_test(a_bad_ack_leaves_ts_recent_window_and_data_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
