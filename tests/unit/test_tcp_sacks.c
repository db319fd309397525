/* test_tcp_sacks.c - faces src/stack/tcp_ooo.c: which islands, duplicates and FINs an ACK tells of (tcp-stack.md ACK-3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lab.h"

static struct lab *open_lab(void)
{
    struct lab_options o;

    lab_options_default(&o);
    return lab_connected(&o);
}

static void an_island_touched_often_hides_no_other(
    void **state) /* ACK-3, RFC 2018 section 4: as many as possible */
{
    struct lab *lab = open_lab();

    (void)state;
    lab_data(lab, 1001, 1, 1);
    lab_data(lab, 5301, 1, 1400);
    lab_data(lab, 4701, 1, 1000);
    lab_data(lab, 2701, 1, 2000); /* three of one island */
    lab_data(lab, 1301, 1, 1);
    assert_int_equal(lab_last(lab)->sacks, 3);
    assert_int_equal(lab_last(lab)->sack[0].start, 1301);
    assert_int_equal(lab_last(lab)->sack[1].start, 2701);
    assert_int_equal(lab_last(lab)->sack[1].end, 6701);
    assert_int_equal(lab_last(lab)->sack[2].start, 1001);
    for (uint32_t i = 0; i < 4; i++)
        lab_data(lab, 8001 + 1000 * i, 1, 10); /* newer ones than there is room for, */
    lab_data(lab, 8011, 1, 4000);              /* which then are one: the old ones come back */
    assert_int_equal(lab_last(lab)->sacks, 3); /* a DSACK, */
    assert_int_equal(lab_last(lab)->sack[1].start, 8001);
    assert_int_equal(lab_last(lab)->sack[1].end, 12011);
    assert_true(lab_last(lab)->sack[2].start < 8001);
    lab_free(lab);
}

static void a_fin_beyond_a_hole_is_reported_too(
    void **state) /* RFC 2018 section 4: it has a sequence number */
{
    struct lab *lab = open_lab();

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 3001, .ack = 1 });
    assert_int_equal(lab_last(lab)->sacks, 1);
    assert_int_equal(lab_last(lab)->sack[0].start, 3001);
    assert_int_equal(lab_last(lab)->sack[0].end, 3002);
    lab_data(lab, 1001, 1, 1000);
    assert_int_equal(lab_last(lab)->sacks, 2);
    assert_int_equal(lab_last(lab)->sack[0].end, 2001);
    assert_int_equal(lab_last(lab)->sack[1].start, 3001);
    lab_data(lab, 2001, 1, 1000); /* up to it */
    assert_int_equal(lab_last(lab)->sacks, 1);
    assert_int_equal(lab_last(lab)->sack[0].start, 1001);
    assert_int_equal(lab_last(lab)->sack[0].end, 3002);
    assert_false(lab->eof);
    lab_data(lab, 1, 1, 1000);
    assert_int_equal(lab_last(lab)->ack, 3002);
    assert_int_equal(lab_last(lab)->sacks, 0);
    assert_true(lab->eof);
    assert_int_equal(lab->got, 3000);
    lab_free(lab);
}

static void a_fin_that_its_client_passes_is_forgotten(void **state)
{
    struct lab *lab = open_lab();

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 501, .ack = 1 });
    lab_data(lab, 1, 1, 1000);
    assert_int_equal(lab_last(lab)->ack, 1001);
    assert_int_equal(lab_last(lab)->sacks, 0);
    assert_int_equal(lab_in_use(lab, "interval"), 0);
    assert_false(lab->eof);
    lab_free(lab);
}

static void one_old_byte_is_a_duplicate_or_a_probe(
    void **state) /* RFC 2883 section 4; RFC 9293 section 3.8.4 */
{
    struct lab *lab = open_lab();

    (void)state;
    lab_data(lab, 1, 1, 1000);
    lab_data(lab, 301, 1, 1);
    assert_int_equal(lab_last(lab)->sacks, 1);
    assert_int_equal(lab_last(lab)->sack[0].start, 301);
    assert_int_equal(lab_last(lab)->sack[0].end, 302);
    lab_data(lab, 1000, 1, 1); /* just below what we expect */
    assert_int_equal(lab_last(lab)->ack, 1001);
    assert_int_equal(lab_last(lab)->sacks, 0);
    lab_free(lab);
}

static void what_fills_a_hole_and_more_is_a_duplicate_too(void **state) /* ACK-3, RFC 2883 section 4.2 */
{
    struct lab *lab = open_lab();

    (void)state;
    lab_data(lab, 501, 1, 400);
    lab_data(lab, 1501, 1, 100);
    lab_data(lab, 3001, 1, 100);
    lab_data(lab, 1, 1, 2000); /* the hole, and both islands behind it once more: the first one is told */
    assert_int_equal(lab_last(lab)->ack, 2001);
    assert_int_equal(lab_last(lab)->sacks, 2);
    assert_int_equal(lab_last(lab)->sack[0].start, 501);
    assert_int_equal(lab_last(lab)->sack[0].end, 901);
    assert_int_equal(lab_last(lab)->sack[1].start, 3001);
    lab_data(lab, 2001, 1, 1050); /* half of the last one */
    assert_int_equal(lab_last(lab)->ack, 3101);
    assert_int_equal(lab_last(lab)->sacks, 1);
    assert_int_equal(lab_last(lab)->sack[0].start, 3001);
    assert_int_equal(lab_last(lab)->sack[0].end, 3051);
    lab_data(lab, 3101, 1, 10); /* told once */
    assert_int_equal(lab_last(lab)->sacks, 0);
    assert_int_equal(lab->got, 3110);
    assert_false(lab->got_wrong);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_island_touched_often_hides_no_other),
        cmocka_unit_test(a_fin_beyond_a_hole_is_reported_too),
        cmocka_unit_test(a_fin_that_its_client_passes_is_forgotten),
        cmocka_unit_test(one_old_byte_is_a_duplicate_or_a_probe),
        cmocka_unit_test(what_fills_a_hole_and_more_is_a_duplicate_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
