/* test_tcp_counted.c - faces src/stack/tcp_input.c, tcp_recv.c, tcp_ooo.c, tcp_timewait.c and tcp_output.c: every segment is counted once,
 * and what one connection or one crowd may cost others is bounded (tcp-stack.md OBS-1, OOO-1, RST-5, BAT-3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "lab_script.h"
#include "stack/tcp_impl.h"

/* ---- one segment, one counter ------------------------------------------------------------------------- */

#define C(member) offsetof(struct stack_counters, tcp_##member)

static const size_t fates[] = {
    C(acks_in),          C(data_in),    C(ooo),           C(requests),  C(syn_cookie), C(passed_on),
    C(rst_in),           C(challenged), C(malformed),     C(checksum),  C(unknown),    C(half_open_limit),
    C(pressure_refused), C(paws),       C(out_of_window), C(duplicate), C(bad_ack),    C(ooo_dropped),
    C(after_fin),        C(unwanted),   C(no_room),
};

static const struct fate_row {
    const char *what;
    enum lab_where in;
    struct lab_seg seg; /* numbers relative to the SYNs */
    size_t counter;
} fate_rows[] = {
    { "a SYN", LAB_NOTHING, { .flags = LAB_SYN }, C(requests) },
    { "an ACK of nothing", LAB_NOTHING, { .flags = LAB_ACK, .seq = 1, .ack = 1 }, C(unknown) },
    { "an RST of nothing", LAB_NOTHING, { .flags = LAB_RST, .seq = 1 }, C(unknown) },
    { "a SYN again", LAB_HELD, { .flags = LAB_SYN }, C(duplicate) },
    { "another SYN", LAB_HELD, { .flags = LAB_SYN, .seq = 5000 }, C(requests) },
    { "an ACK before its time", LAB_HELD, { .flags = LAB_ACK, .seq = 1, .ack = 1 }, C(bad_ack) },
    { "a FIN before its time", LAB_HELD, { .flags = LAB_FIN, .seq = 1 }, C(unknown) },
    { "an RST for a held SYN", LAB_HELD, { .flags = LAB_RST, .seq = 1 }, C(rst_in) },
    { "a guessed RST for it", LAB_HELD, { .flags = LAB_RST, .seq = 2 }, C(out_of_window) },
    { "a SYN again, answered", LAB_SYN_RECEIVED, { .flags = LAB_SYN }, C(duplicate) },
    { "the last of the handshake", LAB_SYN_RECEIVED, { .flags = LAB_ACK, .seq = 1, .ack = 1 }, C(acks_in) },
    { "data instead of it",
      LAB_SYN_RECEIVED,
      { .flags = LAB_ACK, .seq = 1, .ack = 1, .len = 9 },
      C(data_in) },
    { "a wrong last", LAB_SYN_RECEIVED, { .flags = LAB_ACK, .seq = 1, .ack = 77 }, C(bad_ack) },
    { "an ACK", LAB_ESTABLISHED, { .flags = LAB_ACK, .seq = 101, .ack = 1 }, C(acks_in) },
    { "data", LAB_ESTABLISHED, { .flags = LAB_ACK, .seq = 101, .ack = 1, .len = 9 }, C(data_in) },
    { "half of it old", LAB_ESTABLISHED, { .flags = LAB_ACK, .seq = 91, .ack = 1, .len = 20 }, C(data_in) },
    { "a FIN", LAB_ESTABLISHED, { .flags = LAB_ACK | LAB_FIN, .seq = 101, .ack = 1 }, C(data_in) },
    { "data with a FIN",
      LAB_ESTABLISHED,
      { .flags = LAB_ACK | LAB_FIN, .seq = 101, .ack = 1, .len = 9 },
      C(data_in) },
    { "data beyond a hole", LAB_ESTABLISHED, { .flags = LAB_ACK, .seq = 201, .ack = 1, .len = 9 }, C(ooo) },
    { "a FIN beyond a hole", LAB_ESTABLISHED, { .flags = LAB_ACK | LAB_FIN, .seq = 201, .ack = 1 }, C(ooo) },
    { "data that came before",
      LAB_ESTABLISHED,
      { .flags = LAB_ACK, .seq = 1, .ack = 1, .len = 9 },
      C(duplicate) },
    { "a keep-alive probe", LAB_ESTABLISHED, { .flags = LAB_ACK, .seq = 100, .ack = 1 }, C(duplicate) },
    { "far beyond the window",
      LAB_ESTABLISHED,
      { .flags = LAB_ACK, .seq = 101 + (64u << 20), .ack = 1, .len = 9 },
      C(out_of_window) },
    { "an exact RST", LAB_ESTABLISHED, { .flags = LAB_RST, .seq = 101 }, C(rst_in) },
    { "an RST in the window", LAB_ESTABLISHED, { .flags = LAB_RST, .seq = 150 }, C(challenged) },
    { "an RST outside", LAB_ESTABLISHED, { .flags = LAB_RST, .seq = 50 }, C(out_of_window) },
    { "a SYN in the window", LAB_ESTABLISHED, { .flags = LAB_SYN, .seq = 150 }, C(challenged) },
    { "an old SYN", LAB_ESTABLISHED, { .flags = LAB_SYN }, C(challenged) },
    { "no ACK flag", LAB_ESTABLISHED, { .flags = LAB_PSH, .seq = 101, .len = 9 }, C(malformed) },
    { "a short header",
      LAB_ESTABLISHED,
      { .flags = LAB_ACK, .seq = 101, .ack = 1, .drop_offset = true },
      C(malformed) },
    { "a bad checksum",
      LAB_ESTABLISHED,
      { .flags = LAB_ACK, .seq = 101, .ack = 1, .bad_checksum = true },
      C(checksum) },
    { "an ACK of the future", LAB_ESTABLISHED, { .flags = LAB_ACK, .seq = 101, .ack = 99 }, C(bad_ack) },
    { "an old timestamp",
      LAB_ESTABLISHED,
      { .flags = LAB_ACK, .seq = 101, .ack = 1, .old_ts = true },
      C(paws) },
    { "no timestamp", LAB_ESTABLISHED, { .flags = LAB_ACK, .seq = 101, .ack = 1, .no_ts = true }, C(paws) },
    { "data behind a FIN",
      LAB_CLOSE_WAIT,
      { .flags = LAB_ACK, .seq = 102, .ack = 1, .len = 9 },
      C(after_fin) },
    { "a FIN again", LAB_CLOSE_WAIT, { .flags = LAB_ACK | LAB_FIN, .seq = 101, .ack = 1 }, C(duplicate) },
    { "a FIN in TIME-WAIT",
      LAB_TIME_WAIT,
      { .flags = LAB_ACK | LAB_FIN, .seq = 101, .ack = 2 },
      C(duplicate) },
    { "an ACK in TIME-WAIT", LAB_TIME_WAIT, { .flags = LAB_ACK, .seq = 102, .ack = 2 }, C(duplicate) },
    { "an RST in TIME-WAIT", LAB_TIME_WAIT, { .flags = LAB_RST, .seq = 102 }, C(rst_in) },
    { "an old SYN in TIME-WAIT", LAB_TIME_WAIT, { .flags = LAB_SYN, .old_ts = true }, C(challenged) },
    { "a new SYN in TIME-WAIT", LAB_TIME_WAIT, { .flags = LAB_SYN, .seq = 5000 }, C(requests) },
};

static uint64_t counter_at(const struct lab *lab, size_t offset)
{
    return *(const uint64_t *)((const char *)stack_counters(lab->stack) + offset);
}

/* Return: whether the row's counter rose by one, and no other. */
static bool fate_holds(const struct fate_row *row)
{
    struct lab *lab = lab_in(row->in);
    uint64_t before[ARRAY_LEN(fates)], sum = 0, own;

    lab->now_us += 2000;
    for (size_t i = 0; i < ARRAY_LEN(fates); i++)
        before[i] = counter_at(lab, fates[i]);
    own = counter_at(lab, row->counter);
    lab_send(lab, &row->seg);
    for (size_t i = 0; i < ARRAY_LEN(fates); i++) {
        if (counter_at(lab, fates[i]) != before[i] && fates[i] != row->counter)
            print_error("%s: %s\n", row->what, stack_counter_descs[fates[i] / sizeof(uint64_t)].name);
        sum += counter_at(lab, fates[i]) - before[i];
    }
    own = counter_at(lab, row->counter) - own;
    lab_free(lab);
    return sum == 1 && own == 1;
}

static void every_segment_adds_one_to_one_counter(void **state) /* tcp-stack.md OBS-1 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(fate_rows); i++) {
        if (fate_holds(&fate_rows[i]))
            continue;
        print_error("\"%s\" was counted otherwise\n", fate_rows[i].what);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* An orphan's client that goes on talking, a full set of intervals, a pool that is empty. */
static void payload_that_cannot_be_kept_has_its_counters(void **state) /* tcp-stack.md OBS-1 */
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);
    const struct stack_counters *n = stack_counters(lab->stack);

    (void)state;
    for (uint32_t i = 0; i < 129; i++)
        lab_data(lab, 201 + 2 * i, 1, 1);
    assert_true(n->tcp_ooo == 128 && n->tcp_ooo_dropped == 1);
    lab_data(lab, 201, 1, 3); /* closes the first gap: 127 are left */
    lab_data(lab, 201, 1, 3);
    assert_int_equal(n->tcp_duplicate, 1);
    tcp_release(lab->conn);
    lab_batch(lab);
    lab_free(lab);

    lab = lab_in(LAB_ESTABLISHED);
    n = stack_counters(lab->stack);
    tcp_release(lab->conn);
    lab_batch(lab);
    lab_data(lab, 101, 1, 9);
    assert_int_equal(n->tcp_unwanted, 1);
    lab_free(lab);

    lab = lab_in(LAB_ESTABLISHED);
    n = stack_counters(lab->stack);
    lab->stack->tcp->ooo.fail_every = 1;
    lab_data(lab, 201, 1, 9);
    assert_true(n->tcp_no_room == 1 && n->tcp_ooo == 0);
    lab->stack->tcp->ooo.fail_every = 0;
    lab_free(lab);
}

/* ---- one reset, one cause ----------------------------------------------------------------------------- */

static void of_nothing(struct lab *lab)
{
    lab_ack(lab, 1, 1);
}

static void refuse(struct lab *lab)
{
    tcp_request_reject(lab->request, REJECT_RST);
}

static void forget(struct lab *lab) /* nobody decides */
{
    lab_run_us(lab, 151000000);
}

static void end_it(struct lab *lab)
{
    tcp_abort(lab->conn);
}

static void talk_to_an_orphan(struct lab *lab)
{
    tcp_release(lab->conn);
    lab_batch(lab);
    lab_data(lab, 101, 1, 9);
}

static void vanish(struct lab *lab)
{
    lab_write(lab, 100);
    lab_run_us(lab, 200000000);
}

static void every_reset_has_one_cause(void **state) /* tcp-stack.md OBS-1: RST sent by cause */
{
    static const struct {
        const char *what;
        enum lab_where in;
        void (*happens)(struct lab *lab);
        size_t counter;
    } rows[] = {
        { "an ACK of nothing", LAB_NOTHING, of_nothing, C(rst_stranger) },
        { "an ACK before its time", LAB_HELD, of_nothing, C(rst_stranger) },
        { "a refusal", LAB_HELD, refuse, C(rst_refused) },
        { "no decision", LAB_HELD, forget, C(rst_refused) },
        { "an abort", LAB_ESTABLISHED, end_it, C(rst_aborted) },
        { "data that nobody reads", LAB_ESTABLISHED, talk_to_an_orphan, C(rst_aborted) },
        { "a client that vanished", LAB_ESTABLISHED, vanish, C(rst_timeout) },
    };
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct lab *lab = lab_in(rows[i].in);

        lab->now_us += 2000;
        rows[i].happens(lab);
        lab_batch(lab); /* tcp_check.c asserts that no other cause was counted */
        if (counter_at(lab, rows[i].counter) != 1 || stack_counters(lab->stack)->tcp_rst_sent != 1) {
            print_error("%s: %u resets\n", rows[i].what, (unsigned)stack_counters(lab->stack)->tcp_rst_sent);
            wrong++;
        }
        lab_free(lab);
    }
    assert_int_equal(wrong, 0);
}

/* ---- intervals ---------------------------------------------------------------------------------------- */

/* Bytes with a hole beside each, in the worst orders, and the super-segment that covers them all at last. */
static void a_packet_beyond_a_hole_costs_few_steps(void **state) /* tcp-stack.md OOO-1 */
{
    (void)state;
    for (int order = 0; order < 4; order++) {
        struct lab *lab = lab_in(LAB_ESTABLISHED);
        uint64_t most = 0, packets = 0, *steps = &lab->stack->tcp->ooo_steps;

        for (uint32_t i = 0; i < 400; i++) { /* far beyond the cap of 128, too */
            uint32_t at = order == 0   ? i
                          : order == 1 ? 399 - i
                          : order == 2 ? i * 151 % 400
                                       : (i & 1 ? 399 - i : i);
            uint64_t before = *steps;

            lab_data(lab, 201 + 2 * at, 1, 1);
            packets++;
            most = *steps - before > most ? *steps - before : most;
        }
        assert_in_range(most, 1, 16);
        lab_data(lab, 201, 1, 800); /* each interval that it swallows was paid for by a packet */
        packets++;
        assert_true(*steps <= 16 * packets);
        assert_int_equal(lab->conn->ooo->count, 1);
        lab_data(lab, 101, 1, 100);
        assert_int_equal(lab->got, 1000);
        assert_false(lab->got_wrong);
        lab_free(lab);
    }
}

/* ---- TIME-WAIT beside a crowd ------------------------------------------------------------------------- */

static void strangers_do_not_silence_time_wait(void **state) /* tcp-stack.md RST-5, TW-1 */
{
    struct lab *lab = lab_in(LAB_TIME_WAIT);
    const struct stack_counters *n = stack_counters(lab->stack);

    (void)state;
    for (uint32_t i = 0; i < 3000; i++) /* of one millisecond */
        lab_feed(lab,
                 &(struct lab_seg){ .flags = LAB_ACK, .seq = i, .ack = i, .port = (uint16_t)(1000 + i) });
    lab_batch(lab);
    assert_true(n->tcp_rst_limited > 1000);
    lab_clear(lab);
    lab_client_fin(lab, 2);
    assert_int_equal(lab_count(lab, "ACK"), 1);
    lab_free(lab);
}

/* ---- turns -------------------------------------------------------------------------------------------- */

static void wide(struct lab_options *o)
{
    o->config.snd_buffer_initial = 4u << 20;
    o->ws = 10;
}

/* What leaves while it is queued, before the end of the batch, is one turn; then others come first. */
static void queueing_without_end_is_one_turn(void **state) /* tcp-stack.md BAT-3 */
{
    struct lab *lab = lab_open(100, wide);
    uint8_t *space;
    uint64_t queued = 0;
    size_t room;

    (void)state;
    lab->conn->cwnd = 2u << 20; /* as after a long transfer */
    lab->conn->srtt_us = 100;
    lab_ack(lab, 1, 1); /* a window of 64 MiB */
    lab_clear(lab);
    while (queued < 1u << 20 && (room = tcp_tx_space(lab->conn, &space)) > 0) {
        memset(space, 0, room);
        tcp_tx_commit(lab->conn, room);
        queued += room;
    }
    assert_true(queued >= 1u << 20);
    assert_in_range(lab_payload_out(lab), 3 * 65536, 5 * 65536); /* four packets of almost 64 KiB */
    lab_batch(lab);
    assert_int_equal(lab_payload_out(lab), queued);
    lab_clear(lab);
    room = tcp_tx_space(lab->conn, &space); /* the batch's end gives the next turn */
    memset(space, 0, room);
    tcp_tx_commit(lab->conn, room);
    assert_true(lab->outs > 0);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_segment_adds_one_to_one_counter),
        cmocka_unit_test(payload_that_cannot_be_kept_has_its_counters),
        cmocka_unit_test(every_reset_has_one_cause),
        cmocka_unit_test(a_packet_beyond_a_hole_costs_few_steps),
        cmocka_unit_test(strangers_do_not_silence_time_wait),
        cmocka_unit_test(queueing_without_end_is_one_turn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
