/* test_tcp_window.c - faces src/stack/tcp_recv.c: when the window opens, and how the budget behind it grows
 * (tcp-stack.md WND-2, WND-4). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lab.h"
#include "stack/tcp_impl.h"

static struct lab *open_lab(bool stall)
{
    struct lab_options o;

    lab_options_default(&o);
    o.stall = stall;
    return lab_connected(&o);
}

/* A reader that takes a hundred bytes at a time, and a sender that asks again and again, must not be brought to send little
 * segments: the edge moves by at least what one of them holds. */
static void a_slow_reader_makes_no_silly_window(void **state) /* WND-2: no SWS */
{
    struct lab *lab = open_lab(true);
    uint32_t seq = 1, edge, moves = 0;

    (void)state;
    while (lab_info(lab).rcv_wnd > 0) {
        uint32_t len = lab_info(lab).rcv_wnd < 1448 ? lab_info(lab).rcv_wnd : 1448;

        lab_data(lab, seq, 1, len);
        seq += len;
    }
    edge = seq;
    for (int i = 0; i < 1000; i++) {
        const struct lab_out *o;

        lab_run_us(lab, 1000000);
        lab_clear(lab);
        lab_read(lab, 100);
        lab_batch(lab);
        if (edge - seq < 1448)
            lab_data(lab, edge, 1, 1); /* a probe: not taken, but answered */
        o = lab_last(lab);
        if (o != NULL && o->ack + o->wnd != edge) {
            uint32_t move = o->ack + o->wnd - edge;

            assert_true(move >= 1448 || move < 256); /* or what the scale's step rounds up */
            edge += move;
            moves += move >= 1448;
        }
        for (; edge - seq >= 1448; seq += 1448)
            lab_data(lab, seq, 1, 1448);
    }
    assert_in_range(moves, 30, 70); /* 100,000 bytes, in steps of one or two segments */
    assert_false(lab->got_wrong);
    lab_free(lab);
}

/* Half of the budget is worth a word when that is less than a segment. */
static void half_of_a_small_budget_opens_a_closed_window(void **state) /* WND-2 */
{
    struct lab_options o;
    struct lab *lab;
    uint32_t seq = 1;

    (void)state;
    lab_options_default(&o);
    o.stall = true;
    o.config.rcv_budget_initial = o.config.rcv_budget_max = 2048;
    lab = lab_connected(&o);
    while (lab_info(lab).rcv_wnd > 0) {
        lab_data(lab, seq, 1, lab_info(lab).rcv_wnd);
        seq = lab_last(lab)->ack;
    }
    lab_clear(lab);
    lab_read(lab, seq - 1 - 1025); /* 1,023 bytes are free */
    lab_batch(lab);
    assert_int_equal(lab->outs, 0);
    lab_read(lab, 1);
    lab_batch(lab);
    assert_int_equal(lab->outs, 1);
    assert_int_equal(lab_last(lab)->wnd, 1024);
    lab_free(lab);
}

static void the_budget_grows_with_what_is_consumed(void **state) /* WND-4 */
{
    struct lab *lab = open_lab(false);
    uint32_t seq = 1, most = 0;

    (void)state;
    for (int i = 0; i < 3000; i++) {
        lab_send(lab, &(struct lab_seg){
                          .flags = LAB_ACK, .seq = seq, .ack = 1, .len = 44 * 1448, .gso_size = 1448 });
        seq += 44 * 1448;
        lab_run_us(lab, 30);
        if (lab_last(lab) != NULL && lab_last(lab)->wnd > most)
            most = lab_last(lab)->wnd;
        lab_clear(lab);
    }
    assert_in_range(most, 1u << 20, 4u << 20);
    lab_free(lab);
}

static void a_slow_path_does_not_grow_it(void **state) /* WND-4 */
{
    struct lab *lab = open_lab(false);
    uint32_t seq = 1;

    (void)state;
    for (int i = 0; i < 500; i++) {
        lab_data(lab, seq, 1, 1448);
        seq += 1448;
        lab_run_us(lab, 1000);
    }
    assert_in_range(lab_last(lab)->wnd, 0, 262144);
    lab_free(lab);
}

/* One millisecond after the other, each with @bytes; the reader takes them at once. @pressed: memory is short, though not so
 * short that anything has to be given up. Return: the budget afterwards. */
static uint32_t budget_after(uint32_t bytes, int ms, bool pressed)
{
    struct block *taken[10];
    struct lab_options o;
    struct lab *lab;
    uint32_t budget;

    lab_options_default(&o);
    o.config.rcv_budget_max = 700000;
    lab = lab_new(&o);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    lab->now_us += 100000; /* the round trip */
    lab_ack(lab, 1, 1);
    for (size_t i = 0; i < ARRAY_LEN(taken); i++)
        taken[i] = block_get(lab->stack, BLOCK_CHUNK64);
    if (pressed)
        stack_set_buffer_cap(lab->stack, lab->stack->block_bytes * 100 / 70);
    for (int i = 0; i < ms; i++) {
        lab_data(lab, 1 + (uint32_t)i * bytes, 1, bytes);
        assert_int_equal(tcp_pressure(lab->stack), pressed ? PRESSURE_NO_GROWTH : PRESSURE_NONE);
        lab_run_us(lab, 1000);
        lab_clear(lab);
    }
    assert_int_equal(lab->got, (uint64_t)ms * bytes);
    assert_false(lab->got_wrong);
    budget = lab->conn->rcv_budget;
    for (size_t i = 0; i < ARRAY_LEN(taken); i++)
        block_put(lab->stack, taken[i]);
    lab_free(lab);
    return budget;
}

static void half_a_budget_in_a_round_trip_doubles_it(void **state) /* WND-4 */
{
    (void)state;
    assert_int_equal(budget_after(1280, 1000, false), 262144); /* 129,280 bytes in 100 ms; half is 131,072 */
    assert_int_equal(budget_after(1300, 250, false), 524288);
    assert_int_equal(budget_after(20000, 1000, false), 700000); /* the most that one connection may have */
    assert_int_equal(budget_after(20000, 1000, true), 262144);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_reader_makes_no_silly_window),
        cmocka_unit_test(half_of_a_small_budget_opens_a_closed_window),
        cmocka_unit_test(the_budget_grows_with_what_is_consumed),
        cmocka_unit_test(a_slow_path_does_not_grow_it),
        cmocka_unit_test(half_a_budget_in_a_round_trip_doubles_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
