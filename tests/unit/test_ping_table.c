/* test_ping_table.c - flows and their caps, numbers and ids, the guard, the operator's message. No socket, no clock. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "echo/ping_impl.h"

#define S PING_SECOND_US

static struct ping_key key(unsigned client, unsigned target, uint16_t id)
{
    uint8_t c[4] = { 10, 1, (uint8_t)(client >> 8), (uint8_t)client },
            t[4] = { 192, 0, (uint8_t)(target >> 8), (uint8_t)target };

    return (struct ping_key){ ip_from4(c), ip_from4(t), 0, id, 0 };
}

static struct ping_table *table_new(uint32_t flows, uint32_t per_source, uint32_t rate, uint32_t burst)
{
    struct ping_table *t = calloc(1, sizeof(*t));
    struct echo_proxy_options o = {
        .max_flows = flows, .max_per_source = per_source, .new_per_second = rate, .new_burst = burst
    };

    assert_int_equal(ping_table_init(t, &o, &(struct hash_key){ 1, 2 }), 0);
    return t;
}

static void table_free(struct ping_table *t)
{
    ping_table_fini(t);
    free(t);
}

/* One more flow, as ping_flow.c makes it. NULL: refused. */
static struct ping_flow *make(struct ping_table *t, struct ping_key k, uint64_t now_us, enum ping_admit *why)
{
    struct ping_flow *evict = NULL;

    *why = ping_table_admit(t, &k.client, now_us, &evict);
    if (*why != PING_ADMIT)
        return NULL;
    if (evict)
        ping_table_remove(t, evict);
    return ping_table_add(t, &k, now_us);
}

/* ---- flows ---- */

static void a_key_names_one_flow_and_every_part_of_it_counts(void **state) /* icmp.md X6 */
{
    struct ping_table *t = table_new(16, 16, 200, 400);
    struct ping_key k[] = {
        key(1, 1, 7), key(2, 1, 7), key(1, 2, 7), key(1, 1, 8), key(1, 1, 7), key(1, 1, 7)
    };
    struct ping_flow *f[6];
    enum ping_admit why;

    (void)state;
    k[4].ingress = 1;
    k[5].client = (struct ip_addr){ .b = { 0x20, 1, [15] = 1 } };
    k[5].target = (struct ip_addr){ .b = { 0x20, 1, [15] = 2 } };
    for (size_t i = 0; i < ARRAY_LEN(k); i++) {
        assert_null(ping_table_find(t, &k[i]));
        f[i] = make(t, k[i], S, &why);
        assert_non_null(f[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(k); i++)
        assert_ptr_equal(ping_table_find(t, &k[i]), f[i]);
    table_free(t);
}

static void a_place_that_is_used_again_is_another_flow(void **state) /* icmp.md X16 */
{
    struct ping_table *t = table_new(1, 1, 200, 400);
    enum ping_admit why;
    struct ping_flow *f = make(t, key(1, 1, 7), S, &why);
    uint32_t at = slab_index(&t->flows, f);
    uint64_t generation = f->generation;

    (void)state;
    assert_ptr_equal(ping_table_at(t, at, generation), f);
    ping_table_remove(t, f);
    assert_null(ping_table_at(t, at, generation));
    f = make(t, key(1, 1, 7), S, &why);
    assert_int_equal(slab_index(&t->flows, f), at);
    assert_null(ping_table_at(t, at, generation));
    assert_null(ping_table_at(t, at + 1000, f->generation));
    table_free(t);
}

static void at_the_cap_the_longest_idle_goes_if_it_is_idle(void **state) /* icmp.md X12 */
{
    struct ping_table *t = table_new(3, 3, 200, 400);
    enum ping_admit why;
    struct ping_flow *f[3];

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        f[i] = make(t, key(i, 1, 7), S + i, &why);
    assert_null(make(t, key(9, 1, 7), 2 * S - 1, &why)); /* none is idle for a second yet */
    assert_int_equal(why, PING_ADMIT_FLOW_CAP);
    ping_table_touch(t, f[0], 2 * S - 1);
    assert_non_null(make(t, key(9, 1, 7), 2 * S + 1, &why));
    assert_non_null(
        ping_table_find(t, &(struct ping_key){ key(0, 1, 7).client, key(0, 1, 7).target, 0, 7, 0 }));
    assert_null(ping_table_find(t, &(struct ping_key){ key(1, 1, 7).client, key(1, 1, 7).target, 0, 7, 0 }));
    assert_int_equal(t->flows.in_use, 3);
    table_free(t);
}

static void one_source_has_its_own_cap_and_takes_nobody_elses_place(void **state) /* icmp.md X12 */
{
    struct ping_table *t = table_new(8, 2, 200, 400);
    struct ping_key other = key(1, 1, 1), mine = key(2, 1, 1);
    enum ping_admit why;

    (void)state;
    make(t, other, S, &why);
    make(t, mine, S + 1, &why);
    make(t, key(2, 2, 1), S + 2, &why);
    assert_null(make(t, key(2, 3, 1), S + 3, &why));
    assert_int_equal(why, PING_ADMIT_SOURCE_CAP);
    assert_non_null(
        make(t, key(2, 3, 1), 3 * S, &why)); /* in place of its own oldest, though another is older */
    assert_non_null(ping_table_find(t, &other));
    assert_null(ping_table_find(t, &mine));
    table_free(t);
}

static void new_flows_of_one_source_are_limited_in_rate_and_the_limit_outlives_them(
    void **state) /* icmp.md X12 */
{
    struct ping_table *t = table_new(1024, 1024, 200, 400);
    enum ping_admit why;
    unsigned made = 0;

    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        struct ping_flow *f = make(t, key(1, i, 1), S, &why);

        if (f) {
            made++;
            ping_table_remove(t, f);
        }
    }
    assert_int_equal(made, 400);
    assert_int_equal(why, PING_ADMIT_RATE);
    assert_non_null(make(t, key(2, 1, 1), S, &why)); /* another source is not concerned */
    for (unsigned i = made = 0; i < 1000; i++)
        made += make(t, key(1, i, 1), 2 * S, &why) != NULL;
    assert_int_equal(made, 200);
    table_free(t);
}

static void any_number_of_sources_is_forgotten_again(void **state) /* icmp.md X12 */
{
    struct ping_table *t = table_new(64, 64, 200, 400);
    enum ping_admit why;

    (void)state;
    for (unsigned i = 0; i < 100000; i++) {
        struct ping_key k = key(i, 1, (uint16_t)i);
        struct ping_flow *f;

        k.client.b[13] = (uint8_t)(i >> 16);
        f = make(t, k, S + i * 700ull, &why);
        assert_true(f != NULL || why == PING_ADMIT_FLOW_CAP);
    }
    assert_true(t->flows.in_use <= 64);
    assert_true(t->sources.in_use <= 64 + 1024);
    table_free(t);
}

static void the_ring_keeps_the_last_64_requests(void **state) /* icmp.md X19 */
{
    struct ping_flow *f = calloc(1, sizeof(*f));

    (void)state;
    assert_null(ping_flow_sent(f, 0));
    for (uint32_t i = 0; i < 100; i++)
        ping_flow_note(f, (uint16_t)i)->checksum = (uint16_t)i;
    for (uint32_t i = 0; i < 100; i++)
        assert_true((ping_flow_sent(f, (uint16_t)i) != NULL) == (i >= 36));
    ping_flow_note(f, 99)->checksum = 1; /* a number that is used again: the newest counts */
    assert_int_equal(ping_flow_sent(f, 99)->checksum, 1);
    free(f);
}

/* ---- numbers ---- */

static void the_last_4096_numbers_are_known_and_answered_four_times(void **state) /* icmp.md X19, X20, X22 */
{
    struct ping_seen *s = calloc(1, sizeof(*s));

    (void)state;
    for (uint32_t i = 0; i < 10000; i++)
        ping_seen_sent(s, (uint16_t)i);
    for (uint32_t i = 0; i < 65536; i++)
        assert_true(ping_seen_has(s, (uint16_t)i) == (i >= 10000 - 4096 && i < 10000));
    assert_int_equal(ping_seen_reply(s, 1), PING_SEEN_NEVER);
    assert_int_equal(ping_seen_reply(s, 9000), PING_SEEN_FIRST);
    for (int i = 1; i < 4; i++)
        assert_int_equal(ping_seen_reply(s, 9000), PING_SEEN_AGAIN);
    assert_int_equal(ping_seen_reply(s, 9000), PING_SEEN_TOO_OFTEN);
    ping_seen_sent(s, 9000); /* asked again */
    assert_int_equal(ping_seen_reply(s, 9000), PING_SEEN_FIRST);
    free(s);
}

static void a_shared_sockets_numbers_are_never_reused_before_their_time(void **state) /* icmp.md X17 */
{
    static uint8_t used[65536];
    struct ping_map *m = calloc(1, sizeof(*m));

    (void)state;
    assert_int_equal(ping_map_init(m, 70000, 9), 0);
    assert_int_equal(ping_map_open(m, 2), 0);
    assert_int_equal(ping_map_open(m, 3), 0);
    for (uint32_t i = 0; i < 65536; i++) {
        struct ping_out *o = ping_map_add(m, 1, 1000, 2);

        assert_non_null(o);
        assert_int_equal(used[o->wire_seq]++, 0);
    }
    assert_null(ping_map_add(m, 999, 2000, 2));     /* all of one socket are out */
    assert_non_null(ping_map_add(m, 999, 2000, 3)); /* another one has its own */
    assert_non_null(ping_map_find(m, 999, 2, 5));
    assert_null(ping_map_find(m, 1000, 2, 5)); /* their time is over */
    assert_non_null(ping_map_add(m, 1000, 2000, 2));
    assert_int_equal(m->outs.in_use, 2);
    for (uint32_t i = 1; i < 65536; i++) /* and all of them are free again */
        assert_non_null(ping_map_add(m, 1000, 2000, 2));
    assert_null(ping_map_add(m, 1000, 2000, 2));
    ping_map_fini(m);
    free(m);
}

static void numbers_on_the_wire_cannot_be_guessed_from_the_last(void **state) /* icmp.md X17 */
{
    struct ping_map *m = calloc(1, sizeof(*m));
    uint16_t last = 0;
    int near = 0;

    (void)state;
    assert_int_equal(ping_map_init(m, 1000, 9), 0);
    assert_int_equal(ping_map_open(m, 0), 0);
    for (int i = 0; i < 1000; i++) {
        struct ping_out *o = ping_map_add(m, 1, 1000, 0);

        near += (uint16_t)(o->wire_seq - last) < 16;
        last = o->wire_seq;
    }
    assert_true(near < 10);
    assert_null(ping_map_add(m, 1, 1000, 0)); /* the map is full: refused, not overwritten */
    ping_map_fini(m);
    free(m);
}

static void raw_ids_rotate_and_belong_to_one_worker(void **state) /* icmp.md 4.8 */
{
    struct ping_ids a, b;
    uint16_t first;

    (void)state;
    assert_int_equal(ping_ids_init(&a, 0, 2), 0);
    assert_int_equal(ping_ids_init(&b, 1, 2), 0);
    assert_true(a.low == 1 && a.high < b.low);
    first = ping_ids_take(&a);
    ping_ids_put(&a, first);
    for (uint32_t i = 1; i < a.size; i++)
        assert_int_not_equal(ping_ids_take(&a), first); /* what was given back latest comes last */
    assert_int_equal(ping_ids_take(&a), first);
    assert_int_equal(ping_ids_take(&a), 0);
    ping_ids_put(&a, 77);
    assert_int_equal(ping_ids_take(&a), 77);
    ping_ids_fini(&a);
    ping_ids_fini(&b);
}

/* ---- guard ---- */

static void the_guard_knows_requests_for_ten_seconds_and_targets_for_thirty(void **state) /* icmp.md X37 */
{
    struct ip_addr target = key(1, 1, 1).target, other = key(1, 2, 1).target;
    struct echo_guard *g;
    unsigned kept = 0;

    (void)state;
    assert_int_equal(echo_guard_new(&g), 0);
    assert_false(ping_guard_has(g, S, &target, 7, 1));
    ping_guard_sent(g, S, &target, 7, 1);
    assert_true(ping_guard_has(g, S, &target, 7, 1));
    assert_false(ping_guard_has(g, S, &target, 7, 2));
    assert_false(ping_guard_has(g, S, &target, 8, 1));
    assert_false(ping_guard_has(g, S, &other, 7, 1));
    assert_true(ping_guard_has(g, 10 * S, &target, 7, 1));
    assert_false(ping_guard_has(g, 12 * S, &target, 7, 1));
    assert_false(ping_guard_is_stopped(g, S, &target));
    ping_guard_stop(g, S, &target);
    assert_true(ping_guard_is_stopped(g, 30 * S, &target));
    assert_false(ping_guard_is_stopped(g, 30 * S, &other));
    assert_false(ping_guard_is_stopped(g, 33 * S, &target));
    for (uint32_t i = 0; i < 10000; i++) /* it may forget, the oldest first; it is a hint */
        ping_guard_sent(g, 40 * S, &target, 1, (uint16_t)i);
    for (uint32_t i = 0; i < 10000; i++)
        kept += ping_guard_has(g, 40 * S, &target, 1, (uint16_t)i);
    assert_true(kept > 9900);
    echo_guard_free(g);
    echo_guard_free(NULL);
}

/* ---- the operator's message ---- */

static const struct range_row {
    const char *text;
    bool known;
    uint32_t low, high;
} ranges[] = {
    { "1\t0\n", true, 1, 0 },
    { "0\t2147483647\n", true, 0, 2147483647 },
    { "  5   4294967294\n", true, 5, 4294967294u },
    { "5 4294967295", false, 0, 0 },
    { "5", false, 0, 0 },
    { "", false, 0, 0 },
    { "-1 5", false, 0, 0 },
    { "1 2 3", false, 0, 0 },
    { "1x2", false, 0, 0 },
    { "a b", false, 0, 0 },
    { "99999999999 1", false, 0, 0 },
};

static void the_range_is_two_unsigned_numbers(void **state) /* icmp.md X2 */
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ranges); i++) {
        struct ping_range r = ping_range_parse(ranges[i].text);

        if (r.known != ranges[i].known || (r.known && (r.low != ranges[i].low || r.high != ranges[i].high)))
            fail_msg("\"%s\": %d %u %u", ranges[i].text, r.known, r.low, r.high);
    }
}

static void the_message_says_all_that_an_operator_needs(void **state) /* icmp.md X5 */
{
    static const uint32_t groups[] = { 27, 100 };
    struct ping_trouble t = { true, true, EACCES, 1000, groups, 2, { true, 1, 0 }, "dropped" };
    char text[1400];

    (void)state;
    ping_trouble_text(&t, text, sizeof(text));
    assert_string_equal(
        text, "icmp proxy off for IPv4 and IPv6: cannot open a ping socket (EACCES). Process groups: "
              "effective 1000, "
              "supplementary 27 100. Allowed here: 1-0, i.e. no group (/proc/sys/net/ipv4/ping_group_range "
              "of this network "
              "namespace; it also governs IPv6 and applies to root). Fix one: set "
              "net.ipv4.ping_group_range=\"1000 1000\" "
              "(containers: on the container or pod, e.g. docker --sysctl, Kubernetes "
              "securityContext.sysctls; it is read-only "
              "from inside); or grant CAP_NET_RAW. Until then pings with policy proxy are dropped.");
    t = (struct ping_trouble){ false, true, EPERM, 0, NULL, 0, { true, 100, 200 }, "dropped" };
    ping_trouble_text(&t, text, sizeof(text));
    assert_non_null(strstr(text, "off for IPv6: cannot open a ping socket (EPERM)"));
    assert_non_null(strstr(text, "supplementary none. Allowed here: 100-200 ("));
    assert_non_null(strstr(text, "; add the user to a group in 100-200; or grant CAP_NET_RAW"));
    t.range.known = false; /* X1: an odd file explains nothing, and disables nothing */
    ping_trouble_text(&t, text, sizeof(text));
    assert_non_null(strstr(text, "Allowed here: unknown ("));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_names_one_flow_and_every_part_of_it_counts),
        cmocka_unit_test(a_place_that_is_used_again_is_another_flow),
        cmocka_unit_test(at_the_cap_the_longest_idle_goes_if_it_is_idle),
        cmocka_unit_test(one_source_has_its_own_cap_and_takes_nobody_elses_place),
        cmocka_unit_test(new_flows_of_one_source_are_limited_in_rate_and_the_limit_outlives_them),
        cmocka_unit_test(any_number_of_sources_is_forgotten_again),
        cmocka_unit_test(the_ring_keeps_the_last_64_requests),
        cmocka_unit_test(the_last_4096_numbers_are_known_and_answered_four_times),
        cmocka_unit_test(a_shared_sockets_numbers_are_never_reused_before_their_time),
        cmocka_unit_test(numbers_on_the_wire_cannot_be_guessed_from_the_last),
        cmocka_unit_test(raw_ids_rotate_and_belong_to_one_worker),
        cmocka_unit_test(the_guard_knows_requests_for_ten_seconds_and_targets_for_thirty),
        cmocka_unit_test(the_range_is_two_unsigned_numbers),
        cmocka_unit_test(the_message_says_all_that_an_operator_needs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
