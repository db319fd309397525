/* test_tcp_close.c - faces src/stack/tcp_timewait.c, tcp_batch.c and tcp_conn.c: how connections end
 * (tcp-stack.md 5.10). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "lab_script.h"

/* ---- ends -------------------------------------------------------------------------------------------- */

static void half_close_by_the_client_lets_our_bytes_flow(void **state) /* CLS-1; faults.md T13 */
{
    struct lab *lab = lab_in(LAB_CLOSE_WAIT);

    (void)state;
    assert_true(lab->eof);
    lab_write(lab, 5000);
    assert_int_equal(lab_last(lab)->len, 5000);
    lab_run_us(lab, 90000000);
    assert_int_equal(lab->closes, 0);
    lab_ack(lab, 2 + LAB_UP, 5001);
    tcp_shutdown(lab->conn);
    lab_batch(lab);
    lab_ack(lab, 2 + LAB_UP, 5002);
    assert_int_equal(lab->closes, 1);
    assert_int_equal(lab->close_err, 0);
    assert_int_equal(lab_in_use(lab, "timewait"), 0);
    lab_free(lab);
}

static void our_half_close_lets_the_clients_bytes_flow(void **state) /* CLS-1 */
{
    struct lab *lab = lab_in(LAB_FIN_WAIT_2);

    (void)state;
    lab_run_us(lab, 1000000000);
    lab_data(lab, 1 + LAB_UP, 2, 1000);
    assert_int_equal(lab->got, LAB_UP + 1000);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 1001 + LAB_UP, .ack = 2 });
    assert_int_equal(lab->closes, 1);
    assert_int_equal(lab->close_err, 0);
    assert_int_equal(lab_in_use(lab, "timewait"), 1);
    lab_free(lab);
}

static void a_fin_leaves_with_the_last_data(void **state)
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);

    (void)state;
    lab->shutdown_when_put = true;
    lab_write(lab, 700);
    assert_int_equal(lab->outs, 1);
    assert_int_equal(lab_count(lab, "FIN,ACK"), 1);
    assert_int_equal(lab_last(lab)->len, 700);
    assert_true(lab_last(lab)->flags & LAB_PSH);
    lab_free(lab);
}

static void a_bare_fin_pushes_nothing(void **state) /* SND-2: PSH is for bytes; a FIN says more than that */
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);

    (void)state;
    tcp_shutdown(lab->conn);
    lab_batch(lab);
    lab_run_us(lab, 3000000); /* the first time, and as often as it is repeated */
    assert_in_range(lab_count(lab, "FIN,ACK"), 2, 8);
    for (size_t i = 0; i < lab->outs; i++)
        assert_false(lab->out[i].flags & LAB_PSH);
    lab_free(lab);
}

static void a_fin_is_repeated_like_data(void **state) /* CLS-3 */
{
    struct lab *lab = lab_in(LAB_FIN_WAIT_1);

    (void)state;
    lab_run_us(lab, 3000000);
    assert_in_range(lab_count(lab, "FIN,ACK"), 2, 8);
    lab_ack(lab, 1 + LAB_UP, 2);
    assert_string_equal(lab_info(lab).state, "FIN-WAIT-2");
    lab_free(lab);
}

static void unread_bytes_outlive_the_clients_end(
    void **state) /* TW-1: the record comes after the last byte */
{
    struct lab *lab = lab_stalled();

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 1, .ack = 1, .len = 5000 });
    tcp_shutdown(lab->conn);
    lab_batch(lab);
    lab_ack(lab, 5002, 2);
    assert_int_equal(lab->closes, 0);
    lab_read(lab, 4000);
    lab_batch(lab);
    assert_int_equal(lab->closes, 0);
    lab_read(lab, 1000);
    assert_true(lab->eof);
    lab_batch(lab);
    assert_int_equal(lab->closes, 1);
    assert_int_equal(lab->close_err, 0);
    lab_free(lab);
}

static void a_fin_beyond_a_hole_waits_for_it(void **state) /* CLS-3 */
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);

    (void)state;
    lab_send(lab,
             &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 1 + LAB_UP + 500, .ack = 1, .len = 100 });
    assert_false(lab->eof);
    lab_data(lab, 1 + LAB_UP, 1, 500);
    assert_true(lab->eof);
    assert_int_equal(lab->got, LAB_UP + 600);
    assert_int_equal(lab_last(lab)->ack, 1 + LAB_UP + 601);
    assert_int_equal(lab_in_use(lab, "interval"), 0);
    lab_free(lab);
}

static void abort_sends_a_reset_and_closes_once(void **state) /* CLS-2, RST-6 */
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);
    uint32_t tsval;

    (void)state;
    lab_write(lab, 1000);
    tsval = lab_last(lab)->tsval;
    lab_clear(lab);
    lab_run_us(lab, 70000);
    tcp_abort(lab->conn);
    tcp_abort(lab->conn);
    lab_batch(lab);
    assert_int_equal(lab_count(lab, "RST,ACK"), 1);
    assert_true(lab_last(lab)->ts);
    assert_int_equal(lab_last(lab)->tsval - tsval, 70);
    assert_int_equal(lab_last(lab)->seq, 1001);
    assert_int_equal(lab_last(lab)->ack, 1 + LAB_UP);
    assert_int_equal(lab->closes, 1);
    assert_int_equal(lab->close_err, -ECONNABORTED);
    lab_free(lab);
}

static void release_delivers_what_is_queued_and_says_fin(void **state) /* CLS-4 */
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);

    (void)state;
    lab_write(lab, 1000);
    tcp_release(lab->conn);
    lab->conn = NULL;
    lab_batch(lab);
    assert_int_equal(lab_count(lab, "FIN,ACK"), 1);
    lab_ack(lab, 1 + LAB_UP, 1002);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 1 + LAB_UP, .ack = 1002 });
    assert_int_equal(stack_tcp_count(lab->stack), 0);
    assert_int_equal(lab_in_use(lab, "timewait"), 1);
    assert_int_equal(lab->closes, 0);
    lab_free(lab);
}

static void an_orphan_resets_a_client_that_goes_on_talking(void **state) /* RFC 2525 section 2.17 */
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);

    (void)state;
    tcp_release(lab->conn);
    lab->conn = NULL;
    lab_batch(lab);
    lab_data(lab, 1 + LAB_UP, 1, 10);
    assert_int_equal(lab_count(lab, "RST,ACK"), 1);
    assert_int_equal(stack_tcp_count(lab->stack), 0);
    lab_free(lab);
}

static void release_with_unread_bytes_is_a_reset(void **state) /* CLS-2 */
{
    struct lab *lab = lab_stalled();

    (void)state;
    lab_data(lab, 1, 1, 10);
    tcp_release(lab->conn);
    lab_batch(lab);
    assert_int_equal(lab_count(lab, "RST,ACK"), 1);
    assert_int_equal(lab->closes, 0);
    lab_free(lab);
}

static void an_orphan_does_not_live_for_ever(void **state) /* CLS-4; faults.md T11 */
{
    struct lab *lab = lab_in(LAB_FIN_WAIT_2);

    (void)state;
    tcp_release(lab->conn);
    lab->conn = NULL;
    lab_run_us(lab, 59000000);
    assert_int_equal(stack_tcp_count(lab->stack), 1);
    lab_run_us(lab, 2000000);
    assert_int_equal(stack_tcp_count(lab->stack), 0);
    lab_free(lab);
    lab = lab_in(LAB_ESTABLISHED); /* data that nobody acknowledges */
    lab_write(lab, 1000);
    tcp_release(lab->conn);
    lab->conn = NULL;
    lab_run_us(lab, 200000000);
    assert_int_equal(stack_tcp_count(lab->stack), 0);
    lab_free(lab);
}

static void a_client_that_vanishes_meets_the_user_timeout(void **state) /* UTO-1; faults.md T11 */
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);

    (void)state;
    lab_write(lab, 1000);
    lab_run_us(lab, 119990000);
    assert_int_equal(lab->closes, 0);
    lab_run_us(lab, 20000); /* not at the next retransmission, which would be a minute away */
    assert_int_equal(lab->closes, 1);
    assert_int_equal(lab->close_err, -ETIMEDOUT);
    assert_int_equal(lab_count(lab, "RST,ACK"), 1);
    lab_free(lab);
}

static void keep_alive_is_off_unless_configured(void **state) /* KA-1 */
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);

    (void)state;
    lab_run_us(lab, 86400ull * 1000000);
    assert_int_equal(lab->outs, 0);
    assert_int_equal(lab->closes, 0);
    lab_free(lab);
}

static void keep_alive_ends_what_does_not_answer(void **state) /* KA-1; faults.md T11 */
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    o.config.keepalive_idle_ms = 300000;
    lab = lab_connected(&o);
    lab_run_us(lab, 299000000);
    assert_int_equal(lab->outs, 0);
    lab_run_us(lab, 2000000);
    assert_int_equal(lab->outs, 1);
    assert_int_equal(lab_last(lab)->seq, 0);
    assert_int_equal(lab_last(lab)->len, 0);
    lab_ack(lab, 1, 1); /* it lives */
    lab_run_us(lab, 290000000);
    assert_int_equal(lab->outs, 1);
    lab_run_us(lab, 20000000 + 5 * 30000000);
    assert_int_equal(lab->closes, 1);
    assert_int_equal(lab->close_err, -ETIMEDOUT);
    assert_int_equal(lab_count(lab, "ACK"), 6);
    lab_free(lab);
}

/* ---- TIME-WAIT --------------------------------------------------------------------------------------- */

static void time_wait_lasts_60_s_and_a_fin_starts_it_anew(void **state) /* TW-1 */
{
    struct lab *lab = lab_in(LAB_TIME_WAIT);

    (void)state;
    assert_int_equal(stack_tcp_count(lab->stack), 0);
    lab_run_us(lab, 50000000);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 1 + LAB_UP, .ack = 2 });
    assert_int_equal(lab_count(lab, "ACK"), 1);
    assert_int_equal(lab_last(lab)->ack, 2 + LAB_UP);
    assert_int_equal(lab_last(lab)->seq, 2);
    assert_true(lab_last(lab)->ts);
    lab_run_us(lab, 59000000);
    assert_int_equal(lab_in_use(lab, "timewait"), 1);
    lab_run_us(lab, 2000000);
    assert_int_equal(lab_in_use(lab, "timewait"), 0);
    lab_free(lab);
}

static void a_port_reused_within_a_second_connects(void **state) /* TW-2; faults.md T15 */
{
    struct lab *lab = lab_in(LAB_TIME_WAIT);
    uint32_t old_iss = lab->iss;

    (void)state;
    lab_run_us(lab, 500000);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .seq = 900 });
    assert_int_equal(lab->requests, 2);
    assert_int_equal(lab_count(lab, "SYN,ACK"), 1);
    assert_true((int32_t)(lab_last(lab)->raw_seq - (old_iss + 2)) > 0);
    assert_int_equal(lab_in_use(lab, "timewait"), 0);
    lab_ack(lab, 901, 1);
    assert_int_equal(lab->opens, 2);
    lab_free(lab);
}

static void without_timestamps_only_a_higher_number_reuses_the_port(void **state) /* TW-2 */
{
    struct lab *lab = lab_open(0, lab_no_ts);

    (void)state;
    tcp_shutdown(lab->conn);
    lab_batch(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 1, .ack = 2 });
    lab_clear(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .seq = 1 });
    assert_int_equal(lab_count(lab, "ACK"), 1);
    assert_int_equal(lab->requests, 1);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .seq = 100000 });
    assert_int_equal(lab->requests, 2);
    lab_free(lab);
}

static void the_oldest_time_wait_record_gives_way(void **state) /* TW-1 */
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    lab = lab_new(&o);
    for (uint16_t i = 0; i < 200; i++) {
        uint16_t port = (uint16_t)(1000 + i);

        lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = port });
        lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .port = port });
        tcp_shutdown(lab->conn);
        lab_batch(lab);
        lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 1, .ack = 2, .port = port });
        lab_clear(lab);
    }
    assert_int_equal(lab->closes, 200);
    assert_int_equal(lab_in_use(lab, "timewait"), 64);
    for (uint16_t i = 0; i < 200; i += 199) { /* the first is a stranger by now, the last is known */
        lab_send(lab, &(struct lab_seg){
                          .flags = LAB_ACK | LAB_FIN, .seq = 1, .ack = 2, .port = (uint16_t)(1000 + i) });
        assert_int_equal(lab_count(lab, "RST"), 1);
        assert_int_equal(lab_count(lab, "ACK"), i > 0);
    }
    lab_run_us(lab, 61000000);
    assert_int_equal(lab_in_use(lab, "timewait"), 0);
    lab_free(lab);
}

static void answers_in_time_wait_are_limited(void **state) /* RST-5, TW-1 */
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    o.config.rst_per_second = 10;
    lab = lab_connected(&o);
    tcp_shutdown(lab->conn);
    lab_batch(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 1, .ack = 2 });
    assert_int_equal(lab_in_use(lab, "timewait"), 1);
    lab_clear(lab);
    for (int i = 0; i < 30; i++)
        lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 1, .ack = 2 });
    assert_int_equal(lab_count(lab, "ACK"), 10);
    lab_free(lab);
}

/* ---- callbacks that end connections (ARC-3) ---------------------------------------------------------- */

static void abort_in_readable(struct lab *lab)
{
    tcp_abort(lab->conn);
}

static void release_in_readable(struct lab *lab)
{
    tcp_release(lab->conn);
    lab->conn = NULL;
}

static void a_callback_may_end_its_connection(void **state)
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);

    (void)state;
    lab->on_readable = abort_in_readable;
    lab_data(lab, 1 + LAB_UP, 1, 10);
    assert_int_equal(lab->closes, 1);
    assert_int_equal(lab_count(lab, "RST,ACK"), 1);
    lab_free(lab);
    lab = lab_in(LAB_ESTABLISHED);
    lab->on_readable = release_in_readable;
    lab_data(lab, 1 + LAB_UP, 1, 10);
    assert_int_equal(lab->closes, 0);
    assert_int_equal(stack_tcp_count(lab->stack), 0);
    lab_free(lab);
}

static void a_new_syn_in_the_batch_of_a_reset_is_a_new_connection(void **state)
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);

    (void)state;
    lab_feed(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 1 + LAB_UP });
    lab_feed(lab, &(struct lab_seg){ .flags = LAB_SYN, .seq = 5000 });
    lab_batch(lab);
    assert_int_equal(lab->closes, 1);
    assert_int_equal(lab->requests, 2);
    lab_free(lab);
}

static void an_idle_connection_holds_nothing(void **state) /* MEM-1 */
{
    static const char *const pools[] = { "slot",  "chunk2",   "chunk16",  "flight", "segment",
                                         "piece", "interval", "recovery", "syn" };
    struct lab *lab = lab_in(LAB_ESTABLISHED);

    (void)state;
    lab_write(lab, 100000);
    for (uint32_t a = 14480; lab_info(lab).unacked > 0; a += 14480)
        lab_ack(lab, 1 + LAB_UP, a > 100000 ? 100001 : a + 1);
    for (size_t i = 0; i < ARRAY_LEN(pools); i++)
        assert_int_equal(lab_in_use(lab, pools[i]), 0);
    assert_in_range(lab_in_use(lab, "chunk64"), 0, 1); /* the shard's landing chunk */
    lab_free(lab);
}

/* ---- options of one connection ------------------------------------------------------------------------ */

static struct tcp_conn *another(struct lab *lab, uint16_t port)
{
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = port });
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .port = port });
    return lab->conn;
}

static void a_timeout_can_be_one_connections(void **state) /* tcp-stack.md ARC-2; UTO-1, KA-1 */
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);
    struct tcp_conn *first = lab->conn;

    (void)state;
    assert_int_equal(tcp_get_option(first, TCP_OPT_USER_TIMEOUT_MS), 120000);
    assert_int_equal(tcp_set_option(first, TCP_OPT_USER_TIMEOUT_MS, 5000), 0);
    lab_write(lab, 1000);
    another(lab, 41000);
    lab_write(lab, 1000);
    lab_run_us(lab, 20000000);
    assert_int_equal(lab->closes, 1);
    assert_int_equal(lab->close_err, -ETIMEDOUT);
    assert_int_equal(stack_tcp_count(lab->stack), 1); /* the other one goes on asking */
    lab->conn = another(lab, 41001);
    assert_int_equal(tcp_set_option(lab->conn, TCP_OPT_KEEPALIVE_PROBES, 2), 0);
    assert_int_equal(tcp_set_option(lab->conn, TCP_OPT_KEEPALIVE_INTERVAL_MS, 1000), 0);
    assert_int_equal(tcp_set_option(lab->conn, TCP_OPT_KEEPALIVE_IDLE_MS, 3000), 0);
    lab_run_us(lab, 2900000);
    assert_int_equal(stack_counters(lab->stack)->tcp_keepalive_probe, 0);
    lab_run_us(lab, 2500000);
    assert_int_equal(lab->closes, 2);
    assert_int_equal(stack_counters(lab->stack)->tcp_keepalive_probe, 2);
    lab_free(lab);
}

static void connections_with_the_same_options_share_a_set(void **state) /* ARC-2 */
{
    struct lab *lab = lab_in(LAB_ESTABLISHED);
    struct tcp_conn *c[40];

    (void)state;
    assert_int_equal(tcp_set_option(lab->conn, TCP_OPT_KEEPALIVE_PROBES, 256), -EINVAL);
    assert_int_equal(tcp_set_option(lab->conn, TCP_OPTIONS, 1), -EINVAL);
    for (uint16_t i = 0; i < 40; i++) {
        c[i] = another(lab, (uint16_t)(41000 + i));
        assert_int_equal(tcp_set_option(c[i], TCP_OPT_USER_TIMEOUT_MS, 1000u + i), i < 31 ? 0 : -ENOBUFS);
    }
    assert_int_equal(tcp_get_option(c[35], TCP_OPT_USER_TIMEOUT_MS), 120000); /* as before */
    assert_int_equal(tcp_set_option(c[35], TCP_OPT_USER_TIMEOUT_MS, 1007), 0);
    assert_int_equal(tcp_set_option(c[3], TCP_OPT_USER_TIMEOUT_MS, 77777), 0); /* in its own place */
    tcp_abort(c[7]);
    lab_batch(lab);
    assert_int_equal(tcp_set_option(c[36], TCP_OPT_USER_TIMEOUT_MS, 5),
                     -ENOBUFS); /* c[35] has that set, too */
    tcp_abort(c[8]);
    lab_batch(lab);
    assert_int_equal(tcp_set_option(c[36], TCP_OPT_USER_TIMEOUT_MS, 5), 0);
    tcp_abort(c[36]);
    assert_int_equal(tcp_set_option(c[36], TCP_OPT_USER_TIMEOUT_MS, 6), -ENOTCONN);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(half_close_by_the_client_lets_our_bytes_flow),
        cmocka_unit_test(our_half_close_lets_the_clients_bytes_flow),
        cmocka_unit_test(a_fin_leaves_with_the_last_data),
        cmocka_unit_test(a_bare_fin_pushes_nothing),
        cmocka_unit_test(a_fin_is_repeated_like_data),
        cmocka_unit_test(unread_bytes_outlive_the_clients_end),
        cmocka_unit_test(a_fin_beyond_a_hole_waits_for_it),
        cmocka_unit_test(abort_sends_a_reset_and_closes_once),
        cmocka_unit_test(release_delivers_what_is_queued_and_says_fin),
        cmocka_unit_test(an_orphan_resets_a_client_that_goes_on_talking),
        cmocka_unit_test(release_with_unread_bytes_is_a_reset),
        cmocka_unit_test(an_orphan_does_not_live_for_ever),
        cmocka_unit_test(a_client_that_vanishes_meets_the_user_timeout),
        cmocka_unit_test(keep_alive_is_off_unless_configured),
        cmocka_unit_test(keep_alive_ends_what_does_not_answer),
        cmocka_unit_test(time_wait_lasts_60_s_and_a_fin_starts_it_anew),
        cmocka_unit_test(a_port_reused_within_a_second_connects),
        cmocka_unit_test(without_timestamps_only_a_higher_number_reuses_the_port),
        cmocka_unit_test(the_oldest_time_wait_record_gives_way),
        cmocka_unit_test(answers_in_time_wait_are_limited),
        cmocka_unit_test(a_callback_may_end_its_connection),
        cmocka_unit_test(a_new_syn_in_the_batch_of_a_reset_is_a_new_connection),
        cmocka_unit_test(an_idle_connection_holds_nothing),
        cmocka_unit_test(a_timeout_can_be_one_connections),
        cmocka_unit_test(connections_with_the_same_options_share_a_set),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
