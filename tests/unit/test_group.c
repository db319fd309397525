/* test_group.c - the choice among the members of a group: data in, choice out, and time is a number. */
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/upstream/group.h"

#define S UINT64_C(1000000)

static const char *const names[] = { "a", "b", "c", "d" };

static struct group group_of(enum group_kind kind, enum group_strategy strategy, uint32_t members)
{
    struct group_options o = { .kind = kind,
                               .strategy = strategy,
                               .member_count = members,
                               .tolerance_ms = 50,
                               .max_failures = 2,
                               .retry_after_ms = 30000 };
    struct group g;

    group_init(&g, &o, names);
    return g;
}

/* What happens, one letter and a member each; then which order a flow gets. */
static const struct order_row {
    const char *when;
    enum group_kind kind;
    const char *
        happens; /* "-a" a failure, "+a" a success, "!a" a failed test, "=a3" a test of 60 ms, "#a" shut, "*" decide */
    const char *order;
} orders[] = {
    { "select takes its first", GROUP_SELECT, "", "a" },
    { "and no other, whatever happens", GROUP_SELECT, "-a-a-a*", "a" },
    { "fallback goes by the file", GROUP_FALLBACK, "", "abc" },
    { "one failure is none", GROUP_FALLBACK, "-a*", "abc" },
    { "two in a row take it out", GROUP_FALLBACK, "-a-a*", "bc" },
    { "not in a row", GROUP_FALLBACK, "-a+a-a*", "abc" },
    { "all are down", GROUP_FALLBACK, "-a-a-b-b-c-c*", "" },
    { "a success brings it back, at the end", GROUP_FALLBACK, "-a-a*+a*", "bac" },
    { "a failed test takes it out at once", GROUP_FALLBACK, "!b*", "ac" },
    { "a nested group without members", GROUP_FALLBACK, "#a*", "bc" },
    { "the fastest", GROUP_URL_TEST, "=a9=b1=c5*", "bca" },
    { "nearly as fast is not faster", GROUP_URL_TEST, "=a3=b1=c9*", "abc" },
    { "what was not tested comes last", GROUP_URL_TEST, "=c5*", "cab" },
    { "the fastest fails its test", GROUP_URL_TEST, "=a9=b1=c5*!b*", "ca" },
};

static void happen(struct group *g, const char *s, uint64_t now_us)
{
    while (*s) {
        uint32_t i = s[0] == '*' ? 0 : (uint32_t)(s[1] - 'a');

        switch (*s) {
        case '-':
        case '+':
            group_note(g, i, *s == '+', now_us, 0);
            break;
        case '!':
            group_test(g, i, 0, now_us, 0);
            break;
        case '=':
            group_test(g, i, (uint32_t)(s[2] - '0') * 20000, now_us, 0);
            s++;
            break;
        case '#':
            g->member[i].shut = true;
            break;
        default:
            group_decide(g, now_us);
            s--;
            break;
        }
        s += 2;
    }
}

static const char *order_text(const struct group *g, uint64_t key, char out[GROUP_MEMBERS_MAX + 1])
{
    uint16_t order[GROUP_MEMBERS_MAX];
    size_t n = group_order(g, key, order);

    for (size_t i = 0; i < n; i++)
        out[i] = (char)('a' + order[i]);
    out[n] = '\0';
    return out;
}

static void members_are_tried_in_this_order(void **state)
{
    char seen[GROUP_MEMBERS_MAX + 1];
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
        struct group g = group_of(orders[i].kind, GROUP_CONSISTENT_HASH, 3);

        happen(&g, orders[i].happens, 100 * S);
        if (strcmp(order_text(&g, 0, seen), orders[i].order) == 0)
            continue;
        print_error("%s: \"%s\", not \"%s\"\n", orders[i].when, seen, orders[i].order);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* faults.md S13: up for a second, down for a second, for ten minutes. */
static void a_member_that_flaps_makes_at_most_one_switch_in_30_seconds(void **state)
{
    struct group g = group_of(GROUP_FALLBACK, GROUP_CONSISTENT_HASH, 2);
    uint64_t last_us = 0, down_tests = 0;
    unsigned switches = 0;

    (void)state;
    for (uint64_t t = 0; t < 6000; t++) {
        uint64_t now_us = 100 * S + t * S / 10;
        bool up = now_us / S % 2 == 0;
        uint16_t order[GROUP_MEMBERS_MAX];

        if (g.member[0].down && g.member[0].retry_us <= now_us) {
            group_test(&g, 0, up ? 1000 : 0, now_us, (uint32_t)t);
            down_tests++;
        }
        if (group_order(&g, 0, order) > 0 && order[0] == 0)
            group_note(&g, 0, up, now_us, (uint32_t)t);
        if (!group_decide(&g, now_us))
            continue;
        assert_true(last_us == 0 || now_us - last_us >= GROUP_WINDOW_US);
        last_us = now_us;
        switches++;
    }
    assert_in_range(switches, 1, 20);
    assert_in_range(down_tests, 2, 20); /* no storm: the wait grows */
}

static void a_member_that_is_down_is_tested_later_each_time_with_a_jitter(void **state) /* faults.md S20 */
{
    static const uint64_t waits_s[] = { 30, 60, 120, 240, 480, 480 };
    struct group g = group_of(GROUP_FALLBACK, GROUP_CONSISTENT_HASH, 2);
    uint64_t now_us = 100 * S;

    (void)state;
    group_note(&g, 0, false, now_us, 0);
    assert_false(g.member[0].down);
    for (size_t i = 0; i < ARRAY_LEN(waits_s); i++) {
        uint64_t wait_us = waits_s[i] * S;

        if (i == 0)
            group_note(&g, 0, false, now_us, 12345);
        else
            group_test(&g, 0, 0, now_us, (uint32_t)(i * UINT32_C(0x9e3779b9)));
        assert_true(g.member[0].down);
        assert_in_range(g.member[0].retry_us - now_us, wait_us - wait_us / 4, wait_us + wait_us / 4);
        assert_int_equal(group_due_us(&g, now_us), g.member[0].retry_us);
        now_us = g.member[0].retry_us;
    }
    group_test(&g, 0, 1000, now_us, 0);
    assert_false(g.member[0].down);
    assert_int_equal(g.member[0].failures, 0);
}

static void what_came_back_is_preferred_again_after_30_seconds(void **state)
{
    struct group g = group_of(GROUP_FALLBACK, GROUP_CONSISTENT_HASH, 3);
    char seen[GROUP_MEMBERS_MAX + 1];

    (void)state;
    happen(&g, "-a-a*", 100 * S);
    assert_int_equal(g.now, 1);
    happen(&g, "=a1*", 150 * S);
    assert_string_equal(order_text(&g, 0, seen), "bac");
    assert_int_equal(group_due_us(&g, 150 * S), 180 * S);
    assert_false(group_decide(&g, 180 * S - 1));
    assert_true(group_decide(&g, 180 * S));
    assert_string_equal(order_text(&g, 0, seen), "abc");
}

static void round_robin_takes_turns(void **state)
{
    struct group g = group_of(GROUP_LOAD_BALANCE, GROUP_ROUND_ROBIN, 3);
    char seen[GROUP_MEMBERS_MAX + 1], firsts[7] = "";

    (void)state;
    for (size_t i = 0; i < 6; i++, g.turn++)
        firsts[i] = order_text(&g, 0, seen)[0];
    assert_string_equal(firsts, "abcabc");
    happen(&g, "-b-b*", 100 * S);
    g.turn = 1;
    assert_string_equal(order_text(&g, 0, seen), "ca");
}

/* Each member gets its share; a key stays; and when a member goes down only its own keys move. */
static void hashing_spreads_and_stays(void **state)
{
    struct group g = group_of(GROUP_LOAD_BALANCE, GROUP_CONSISTENT_HASH, 4), down = g;
    char seen[GROUP_MEMBERS_MAX + 1], after[GROUP_MEMBERS_MAX + 1];
    unsigned share[4] = { 0 };

    (void)state;
    happen(&down, "-b-b*", 100 * S);
    for (uint64_t key = 0; key < 4000; key++) {
        order_text(&g, key, seen);
        share[seen[0] - 'a']++;
        assert_string_equal(order_text(&g, key, after), seen);
        order_text(&down, key, after);
        assert_int_equal(after[0], seen[0] == 'b' ? seen[1] : seen[0]);
    }
    for (size_t i = 0; i < 4; i++)
        assert_in_range(share[i], 800, 1200);
}

static void a_pick_counts_at_once_and_every_time(void **state)
{
    struct group g = group_of(GROUP_SELECT, GROUP_CONSISTENT_HASH, 3);
    char seen[GROUP_MEMBERS_MAX + 1];

    (void)state;
    group_pick(&g, 2, 100 * S);
    assert_string_equal(order_text(&g, 0, seen), "c");
    group_pick(&g, 1, 100 * S + 1);
    assert_string_equal(order_text(&g, 0, seen), "b");
    assert_false(group_decide(&g, 500 * S));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_are_tried_in_this_order),
        cmocka_unit_test(a_member_that_flaps_makes_at_most_one_switch_in_30_seconds),
        cmocka_unit_test(a_member_that_is_down_is_tested_later_each_time_with_a_jitter),
        cmocka_unit_test(what_came_back_is_preferred_again_after_30_seconds),
        cmocka_unit_test(round_robin_takes_turns),
        cmocka_unit_test(hashing_spreads_and_stays),
        cmocka_unit_test(a_pick_counts_at_once_and_every_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
