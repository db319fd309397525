/* test_tcp_sacks.c - faces src/stack/tcp_ooo.c: which islands, duplicates and FINs an ACK tells of (tcp-stack.md ACK-3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lab_script.h"

static struct lab *open_lab(void)
{
    struct lab_options o;

    lab_options_default(&o);
    return lab_connected(&o);
}

static void a_hole_is_reported_newest_block_first(void **state) /* ACK-3, RFC 2018 section 4 */
{
    struct lab *lab = open_lab();

    (void)state;
    lab_data(lab, 1001, 1, 100);
    assert_int_equal(lab_last(lab)->ack, 1);
    assert_int_equal(lab_last(lab)->sacks, 1);
    lab_data(lab, 2001, 1, 100);
    lab_data(lab, 3001, 1, 100);
    lab_data(lab, 4001, 1, 100);
    assert_int_equal(lab_last(lab)->sacks, 3); /* with timestamps */
    assert_int_equal(lab_last(lab)->sack[0].start, 4001);
    assert_int_equal(lab_last(lab)->sack[0].end, 4101);
    assert_int_equal(lab_last(lab)->sack[1].start, 3001);
    assert_int_equal(lab_last(lab)->sack[2].start, 2001);
    lab_data(lab, 1101, 1, 100);
    assert_int_equal(lab_last(lab)->sack[0].start, 1001);
    assert_int_equal(lab_last(lab)->sack[0].end, 1201);
    lab_data(lab, 1, 1, 1000);
    assert_int_equal(lab_last(lab)->ack, 1201);
    assert_int_equal(lab->got, 1200);
    assert_false(lab->got_wrong);
    lab_free(lab);
}

static void four_blocks_fit_without_timestamps(void **state) /* ACK-3 */
{
    struct lab *lab = lab_open(0, lab_no_ts);

    (void)state;
    for (uint32_t i = 1; i <= 6; i++)
        lab_data(lab, 1 + i * 1000, 1, 10);
    assert_int_equal(lab_last(lab)->sacks, 4);
    assert_int_equal(lab_last(lab)->sack[0].start, 6001);
    assert_int_equal(lab_last(lab)->sack[3].start, 3001);
    lab_free(lab);
}

static void duplicates_are_reported_first(void **state) /* ACK-3, RFC 2883 section 4 */
{
    struct lab *lab = open_lab();

    (void)state;
    lab_data(lab, 1, 1, 1000);
    lab_data(lab, 1, 1, 1000);
    assert_int_equal(lab_last(lab)->sacks, 1);
    assert_int_equal(lab_last(lab)->sack[0].start, 1);
    assert_int_equal(lab_last(lab)->sack[0].end, 1001);
    lab_data(lab, 2001, 1, 1000);
    assert_int_equal(lab_last(lab)->sack[0].start, 2001);
    lab_data(lab, 2501, 1, 1000); /* half of it again */
    assert_int_equal(lab_last(lab)->sack[0].start, 2501);
    assert_int_equal(lab_last(lab)->sack[0].end, 3001);
    assert_int_equal(lab_last(lab)->sack[1].start, 2001);
    assert_int_equal(lab_last(lab)->sack[1].end, 3501);
    lab_free(lab);
}

/* ACK-3's matrix: five overlapping ranges in all 120 orders; the stream and the set of SACKs against a byte
 * map. */
static bool order_works(const int *order)
{
    static const struct {
        uint32_t start, end;
    } range[5] = { { 101, 301 }, { 251, 401 }, { 501, 701 }, { 351, 551 }, { 1, 151 } };
    struct lab *lab = open_lab();
    uint8_t have[800] = { 0 };
    bool ok = true;

    for (int i = 0; i < 5 && ok; i++) {
        const struct lab_out *o;
        uint32_t next = 1, twice = range[order[i]].start, twice_end;

        while (twice < range[order[i]].end && !have[twice])
            twice++;
        for (twice_end = twice; twice_end < range[order[i]].end && have[twice_end];)
            twice_end++;
        lab_data(lab, range[order[i]].start, 1, range[order[i]].end - range[order[i]].start);
        for (uint32_t b = range[order[i]].start; b < range[order[i]].end; b++)
            have[b] = 1;
        while (have[next])
            next++;
        o = lab_last(lab);
        ok = o != NULL && o->ack == next && lab->got == next - 1 && !lab->got_wrong;
        if (ok && twice < twice_end) /* the first stretch that came twice comes first */
            ok = o->sacks > 0 && o->sack[0].start == twice && o->sack[0].end == twice_end;
        for (int k = 0; ok && k < o->sacks; k++) {
            for (uint32_t b = o->sack[k].start; b < o->sack[k].end; b++)
                ok = ok && have[b];
            if (o->sack[k].start > next && k > 0) /* whole islands, beside a DSACK */
                ok = ok && !have[o->sack[k].end];
        }
    }
    ok = ok && lab->got == 700 && lab_in_use(lab, "interval") == 0 && lab_in_use(lab, "piece") == 0;
    lab_free(lab);
    return ok;
}

static void five_overlapping_ranges_in_every_order(void **state)
{
    int wrong = 0, p[5];

    (void)state;
    for (int n = 0; n < 3125; n++) {
        bool used[5] = { false };
        int rest = n, distinct = 1;

        for (int i = 0; i < 5; i++, rest /= 5) {
            p[i] = rest % 5;
            distinct = distinct && !used[p[i]];
            used[p[i]] = true;
        }
        if (distinct && !order_works(p)) {
            print_error("order %d %d %d %d %d\n", p[0], p[1], p[2], p[3], p[4]);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
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

static void an_old_fin_is_no_empty_block(void **state) /* RFC 2883 section 4: a block is of what came twice */
{
    struct lab *lab = open_lab();

    (void)state;
    lab_data(lab, 1, 1, 1000);
    lab_clear(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 501, .ack = 1 });
    assert_int_equal(lab->outs, 1); /* it is answered */
    assert_int_equal(lab->out[0].ack, 1001);
    assert_int_equal(lab->out[0].sacks, 0);
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
        cmocka_unit_test(a_hole_is_reported_newest_block_first),
        cmocka_unit_test(four_blocks_fit_without_timestamps),
        cmocka_unit_test(duplicates_are_reported_first),
        cmocka_unit_test(five_overlapping_ranges_in_every_order),
        cmocka_unit_test(an_island_touched_often_hides_no_other),
        cmocka_unit_test(a_fin_beyond_a_hole_is_reported_too),
        cmocka_unit_test(a_fin_that_its_client_passes_is_forgotten),
        cmocka_unit_test(one_old_byte_is_a_duplicate_or_a_probe),
        cmocka_unit_test(an_old_fin_is_no_empty_block),
        cmocka_unit_test(what_fills_a_hole_and_more_is_a_duplicate_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
