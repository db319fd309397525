/* test_echo_proxy.c - requests, replies and errors of the echo proxy, the kernel at the other end. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "echo/ping_impl.h"
#include "echo_rig.h"

/* ---- requests and replies ---- */

static void a_reply_has_the_clients_id_number_and_bytes(void **state) /* icmp.md X7, X18, X21 */
{
    struct echo_rig *g = *state;
    for (int v6 = 0; v6 < 2; v6++) {
        if (v6)
            rig_use_v6(g);
        g->ask.tos = 0x48;
        g->ask.responder = 5;
        assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
        rig_answers(g, (unsigned)v6 + 1);
        assert_int_equal(g->errors, 0);
        assert_true(ip_equal(&g->last.client, &g->ask.client) && ip_equal(&g->last.target, &g->ask.target));
        assert_int_equal(g->last.id, 77);
        assert_int_equal(g->last.seq, 1);
        assert_int_equal(g->last.payload_len, 10);
        assert_memory_equal(g->payload, "0123456789", 10);
        assert_int_equal(g->last.ttl, 63); /* the kernel's 64, and we are one router */
        if (!v6) /* whether Linux reflects the class of IPv6 depends on its version */
            assert_int_equal(g->last.tos, 0x48);
        assert_int_equal(g->responder, 5);
    }
    assert_int_equal(rig_count(g, "requests_v4"), 1);
    assert_int_equal(rig_count(g, "requests_v6"), 1);
    assert_int_equal(rig_count(g, "replies"), 2);
    assert_int_equal(rig_count(g, "outstanding"), 0);
}

static void payloads_of_every_size_are_exact(void **state) /* icmp.md X18, X23 */
{
    static const uint32_t sizes[] = { 0, 1, 1472, 1473, 3000, 65507 };
    static uint8_t data[65507];
    unsigned n = 0;
    struct echo_rig *g = *state;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    g->ask.payload = data;
    for (int v6 = 0; v6 < 2; v6++) {
        if (v6)
            rig_use_v6(g);
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
            g->ask.seq++;
            g->ask.payload_len = sizes[i];
            assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
            rig_answers(g, ++n);
            assert_int_equal(g->last.payload_len, sizes[i]);
            assert_memory_equal(g->payload, data, sizes[i]);
        }
    }
}

static const struct refused_row {
    const char *when, *target;
    uint8_t code, ttl;
    bool broadcast;
    enum echo_proxy_result wanted;
    const char *counter;
} refused[] = {
    { "a code", "192.0.2.1", 1, 64, false, ECHO_PROXY_DROPPED, "drops_code" },
    { "multicast", "224.0.0.1", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "multicast", "ff02::1", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "broadcast", "255.255.255.255", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "0/8", "0.1.2.3", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "240/4", "240.0.0.1", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "unspecified", "::", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "loopback", "127.0.0.1", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "loopback", "::1", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "link-local without its link", "fe80::1", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "a network's broadcast, as the stack saw", "192.0.2.255", 0, 64, true, ECHO_PROXY_DROPPED,
      "drops_target" },
    { "an address of this host", "192.0.2.1", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "TTL 1", "192.0.2.1", 0, 1, false, ECHO_PROXY_EXPIRED, "ttl_expired" },
    { "TTL 0", "2001:db8::1", 0, 0, false, ECHO_PROXY_EXPIRED, "ttl_expired" },
};

static void what_may_not_leave_makes_no_flow_and_no_socket(void **state) /* icmp.md X8, X9, X10, X30 */
{
    struct echo_rig *g = *state;
    g->ask.local = false;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        const struct refused_row *r = &refused[i];
        uint64_t before = rig_count(g, r->counter);

        g->ask.target = echo_rig_addr(r->target);
        g->ask.code = r->code;
        g->ask.ttl = r->ttl;
        g->ask.broadcast = r->broadcast;
        if (rig_ask(g) != r->wanted || rig_count(g, r->counter) != before + 1)
            fail_msg("%s: %s", r->when, r->target);
    }
    assert_int_equal(rig_count(g, "flows_created"), 0);
}

static void strict_drops_what_a_ping_socket_cannot_carry(void **state) /* icmp.md 4.6 */
{
    struct echo_proxy_options o;
    struct echo_rig *g = *state;

    rig_options(g, &o);
    o.strict = true;
    rig_start(g, &o);
    g->ask.options = true;
    assert_int_equal(rig_ask(g), ECHO_PROXY_DROPPED);
    assert_int_equal(rig_count(g, "drops_options"), 1);
}

/* ---- errors of our own kernel ---- */

static void what_our_kernel_says_is_the_answer(void **state) /* icmp.md E8 */
{
    static const struct {
        const char *target;
        enum echo_proxy_result wanted;
    } rows[] = { { "198.51.100.1", ECHO_PROXY_NET_UNREACH },
                 { "192.0.2.8", ECHO_PROXY_HOST_UNREACH },
                 { "192.0.2.9", ECHO_PROXY_ADMIN_PROHIBITED },
                 { "2001:db8:1::1", ECHO_PROXY_NET_UNREACH },
                 { "2001:db8::9", ECHO_PROXY_ADMIN_PROHIBITED } };
    struct echo_rig *g = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        g->ask.target = echo_rig_addr(rows[i].target);
        g->ask.client = echo_rig_addr(ip_is4(&g->ask.target) ? "10.9.9.9" : "fd00::9");
        if (rig_ask(g) != rows[i].wanted)
            fail_msg("%s", rows[i].target);
    }
    assert_int_equal(g->replies + g->errors, 0);
}

static void too_big_for_the_first_link_quotes_the_clients_datagram(
    void **state) /* icmp.md E7, E9, E11, X27 */
{
    static uint8_t big[65600];
    static const uint8_t header[20] = { 0x45, 0, 0,  0, 0xab, 0xcd, 0x40, 0, 33, 1,
                                        0,    0, 10, 9, 9,    9,    192,  0, 2,  1 };
    struct echo_rig *g = *state;

    g->ask.payload = big;
    g->ask.payload_len = 3000;
    g->ask.df = true;
    g->ask.checksum = 0x1234;
    g->ask.ip_header = header;
    g->ask.ip_header_len = sizeof(header);
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    rig_answers(g, 1);
    assert_int_equal(g->errors, 1);
    assert_int_equal(g->last.type, 3);
    assert_int_equal(g->last.code, 4);
    assert_int_equal(g->last.info, 2000); /* of "lo", as main() has set it */
    assert_true(ip_is_none(&g->last.offender));
    assert_int_equal(g->last.quote_len, 548);
    assert_int_equal(get_be16(g->quote + 4), 0xabcd);
    assert_int_equal(get_be16(g->quote + 22), 0x1234);
    g->ask.df = false; /* the same without DF is cut to pieces */
    g->ask.seq++;
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    rig_answers(g, 2);
    assert_int_equal(g->replies, 1);
    assert_int_equal(g->last.payload_len, 3000);
}

static void errors_can_be_switched_off(void **state) /* icmp.md E14 */
{
    static uint8_t big[3000];
    struct echo_proxy_options o;
    struct echo_rig *g = *state;

    rig_options(g, &o);
    o.relay_errors = false;
    rig_start(g, &o);
    g->ask.payload = big;
    g->ask.payload_len = sizeof(big);
    g->ask.df = true;
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    assert_int_equal(g->errors, 0);
    assert_int_equal(rig_count(g, "drops_error_off"), 1);
}

static void a_flow_relays_twenty_errors_a_second(void **state) /* icmp.md E13 */
{
    static uint8_t big[3000];
    struct echo_rig *g = *state;

    g->ask.payload = big;
    g->ask.payload_len = sizeof(big);
    g->ask.df = true;
    for (int i = 0; i < 50; i++) {
        g->ask.seq++;
        assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    }
    assert_int_equal(g->errors, 20); /* the loop's time stands still meanwhile */
    assert_int_equal(rig_count(g, "drops_error_rate"), 30);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_reply_has_the_clients_id_number_and_bytes),
        TEST(payloads_of_every_size_are_exact),
        TEST(what_may_not_leave_makes_no_flow_and_no_socket),
        TEST(strict_drops_what_a_ping_socket_cannot_carry),
        TEST(what_our_kernel_says_is_the_answer),
        TEST(too_big_for_the_first_link_quotes_the_clients_datagram),
        TEST(errors_can_be_switched_off),
        TEST(a_flow_relays_twenty_errors_a_second),
    };

    return run_unless(rig_enter(), tests);
}
