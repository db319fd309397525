/* test_upstream_udp.c - DIRECT associations over loopback. */
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "udp_rig.h"

/* ---- DIRECT ---- */

static void datagrams_of_any_size_go_and_come_back(void **state) /* faults.md U3, U4 */
{
    static const size_t sizes[] = { 0, 1, 1400, 9000, 65507 };
    static const char *const addrs[] = { "127.0.0.1", "::1" };
    static uint8_t data[65507];
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct peer peers[2];
    struct udp_log log;

    udp_start(rig, &log, up);
    for (size_t family = 0; family < 2; family++) {
        peer_open(&peers[family], rig, addrs[family], true);
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
            unsigned before = log.count;

            memset(data, (int)(i + 1), sizeof(data));
            assert_int_equal(udp_rig_send(&log, &peers[family].at, data, sizes[i], 0), 0);
            until_count(rig, &log.count, before + 1);
            assert_int_equal(log.last_len, sizes[i]);
            assert_memory_equal(log.last, data, sizes[i] < 64 ? sizes[i] : 64);
            assert_true(ip_port_equal(&log.source, &peers[family].at));
        }
    }
    assert_int_equal(up_counters(rig->env)->datagrams_up, 10);
    assert_int_equal(up_counters(rig->env)->datagrams_down, 10);
    assert_int_equal(up_counters(rig->env)->bytes_up, up_counters(rig->env)->bytes_down);
    up_udp_close(log.u);
    peer_close(&peers[0]);
    peer_close(&peers[1]);
    upstream_unref(up);
}

static void a_row_leaves_by_one_system_call_as_equal_datagrams(void **state)
{
    static uint8_t data[64 * 1200];
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct udp_log log;
    struct peer peer;
    uint64_t calls;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i / 1200);
    peer_open(&peer, rig, "127.0.0.1", false);
    udp_start(rig, &log, up);
    calls = up_counters(rig->env)->send_calls;
    assert_int_equal(udp_rig_send(&log, &peer.at, data, 40 * 1200 + 7, 1200), 0);
    assert_int_equal(up_counters(rig->env)->send_calls - calls, 1);
    until_count(rig, &peer.count, 41);
    assert_int_equal(peer.got[39].len, 1200);
    assert_int_equal(peer.got[39].data[0], 39);
    assert_int_equal(peer.got[40].len, 7);
    assert_int_equal(udp_rig_send(&log, &peer.at, data, 64 * 1200, 1200), 0); /* more than one call takes */
    until_count(rig, &peer.count, 41 + 64);
    assert_int_equal(udp_rig_send(&log, &peer.at, data, 1200, 1200), 0); /* a row of one */
    until_count(rig, &peer.count, 41 + 65);
    assert_int_equal(udp_rig_send(&log, &peer.at, data, 20000, 9000), 0);
    until_count(rig, &peer.count, 41 + 68);
    assert_int_equal(up_counters(rig->env)->datagrams_up, 41 + 68);
    up_udp_close(log.u);
    peer_close(&peer);
    upstream_unref(up);
}

static void one_port_of_ours_talks_to_every_target(void **state) /* RFC 4787 REQ-1 */
{
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct peer a, b;
    struct udp_log log;

    peer_open(&a, rig, "127.0.0.1", false);
    peer_open(&b, rig, "127.0.0.2", false);
    udp_start(rig, &log, up);
    assert_int_equal(udp_rig_send(&log, &a.at, "a", 1, 0), 0);
    assert_int_equal(udp_rig_send(&log, &b.at, "b", 1, 0), 0);
    until_count(rig, &a.count, 1);
    until_count(rig, &b.count, 1);
    assert_int_equal(a.last_from.port, b.last_from.port);
    peer_send(&b, &a.last_from, "anyone may answer", 17);
    until_count(rig, &log.count, 1);
    assert_true(ip_port_equal(&log.source, &b.at));
    up_udp_close(log.u);
    peer_close(&a);
    peer_close(&b);
    upstream_unref(up);
}

static void the_hop_limit_is_the_senders(void **state) /* design.md section 6, UDP and TTL */
{
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct host_port to;
    struct udp_log log;
    struct peer peer;

    peer_open(&peer, rig, "127.0.0.1", false);
    to = (struct host_port){ NULL, peer.at.addr, peer.at.port };
    udp_start(rig, &log, up);
    assert_int_equal(up_udp_send(log.u, &to, "x", 1, 0, 7, 0x48), 0);
    until_count(rig, &peer.count, 1);
    assert_int_equal(peer.last_ttl, 7);
    up_udp_close(log.u);
    peer_close(&peer);
    upstream_unref(up);
}

static void an_icmp_error_is_told_and_not_the_end(void **state) /* faults.md U12 */
{
    static const char *const addrs[] = { "127.0.0.1", "::1" };
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();

    for (size_t family = 0; family < 2; family++) {
        struct peer gone, there;
        struct ip_port closed;
        struct udp_log log;

        peer_open(&gone, rig, addrs[family], false);
        peer_open(&there, rig, addrs[family], true);
        closed = gone.at;
        peer_close(&gone);
        udp_start(rig, &log, up);
        assert_int_equal(udp_rig_send(&log, &closed, "x", 1, 0), 0);
        assert_int_equal(udp_rig_send(&log, &there.at, "y", 1, 0), 0); /* the pending error does not eat it */
        until_count(rig, &log.count, 1);
        rig_until(rig, udp_has_errors, &log);
        assert_true(ip_port_equal(&log.error_target, &closed));
        assert_true(ip_equal(&log.offender, &closed.addr));
        assert_int_equal(log.icmp_type, family == 0 ? 3 : 1); /* port unreachable */
        assert_int_equal(log.icmp_code, family == 0 ? 3 : 4);
        assert_int_equal(udp_rig_send(&log, &there.at, "z", 1, 0), 0);
        until_count(rig, &log.count, 2);
        up_udp_close(log.u);
        peer_close(&there);
    }
    upstream_unref(up);
}

static void a_datagram_that_is_too_large_is_an_error_and_not_the_end(void **state) /* faults.md U12 */
{
    static uint8_t data[65536];
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct udp_log log;
    struct peer peer;

    peer_open(&peer, rig, "127.0.0.1", true);
    udp_start(rig, &log, up);
    assert_int_equal(udp_rig_send(&log, &peer.at, data, sizeof(data), 0), -EMSGSIZE);
    assert_int_equal(up_counters(rig->env)->datagrams_unsent, 1);
    assert_int_equal(udp_rig_send(&log, &peer.at, data, 10, 0), 0);
    until_count(rig, &log.count, 1);
    up_udp_close(log.u);
    peer_close(&peer);
    upstream_unref(up);
}

static void datagrams_wait_for_their_name_in_order(void **state) /* faults.md U13 */
{
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct rig_name *name = rig_name(rig, "target.test", RIG_LATER);
    struct host_port to = { .name = "target.test" };
    struct udp_log log;
    struct peer peer;

    peer_open(&peer, rig, "127.0.0.1", false);
    name->addrs[name->n++] = rig_addr("2001:db8::1"); /* IPv4 is taken, since there is no race */
    name->addrs[name->n++] = peer.at.addr;
    to.port = peer.at.port;
    udp_start(rig, &log, up);
    for (uint8_t i = 0; i < 20; i++)
        assert_int_equal(up_udp_send(log.u, &to, &i, 1, 0, 0, 0), 0);
    until_count(rig, &peer.count, 16);
    for (uint8_t i = 0; i < 16; i++)
        assert_int_equal(peer.got[i].data[0], i + 4); /* the oldest made room */
    assert_int_equal(up_counters(rig->env)->datagrams_unsent, 4);
    assert_int_equal(up_udp_send(log.u, &to, "x", 1, 0, 0, 0), 0); /* known by now */
    until_count(rig, &peer.count, 17);
    assert_int_equal(rig->asked, 1);
    to.name = "missing.test";
    assert_int_equal(up_udp_send(log.u, &to, "x", 1, 0, 0, 0), 0);
    assert_int_equal(up_udp_send(log.u, &to, "x", 1, 0, 0, 0), -EHOSTUNREACH);
    to.name = "bad name";
    assert_int_equal(up_udp_send(log.u, &to, "x", 1, 0, 0, 0), -EINVAL);
    rig_name(rig, "slow.test", RIG_NEVER);
    to.name = "slow.test";
    assert_int_equal(up_udp_send(log.u, &to, "x", 1, 0, 0, 0), 0);
    for (int i = 0; i < 20; i++) { /* more names than an association remembers */
        char host[32];

        snprintf(host, sizeof(host), "h%d.test", i);
        to.name = host;
        (void)up_udp_send(log.u, &to, "x", 1, 0, 0, 0);
    }
    assert_int_equal(rig->cancelled, 1);
    up_udp_close(log.u);
    peer_close(&peer);
    upstream_unref(up);
}

static void our_own_datagrams_are_known(void **state) /* faults.md E1 */
{
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct flow_key key = { .proto = IP_PROTO_UDP };
    struct udp_log log;
    struct peer peer;

    peer_open(&peer, rig, "127.0.0.1", false);
    udp_start(rig, &log, up);
    assert_int_equal(udp_rig_send(&log, &peer.at, "x", 1, 0), 0);
    until_count(rig, &peer.count, 1);
    key.client = peer.last_from.addr;
    key.client_port = peer.last_from.port;
    key.target = peer.at.addr;
    key.target_port = peer.at.port;
    assert_true(own_flows_has(rig->own, &key));
    key.client = rig_addr("192.0.2.77"); /* a client of ours with the same port is no loop */
    assert_false(own_flows_has(rig->own, &key));
    key.client = peer.last_from.addr;
    up_udp_close(log.u);
    assert_false(own_flows_has(rig->own, &key));
    peer_close(&peer);
    upstream_unref(up);
}

static void an_association_may_be_closed_while_it_delivers(void **state)
{
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct udp_log log;
    struct peer peer;

    peer_open(&peer, rig, "127.0.0.1", true);
    udp_start(rig, &log, up);
    log.close_on_data = true;
    for (int i = 0; i < 40; i++)
        assert_int_equal(udp_rig_send(&log, &peer.at, "x", 1, 0), 0);
    until_count(rig, &peer.count, 40);
    assert_null(log.u);
    peer_close(&peer);
    upstream_unref(up);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, up_rig_setup, up_rig_teardown)
    static const struct CMUnitTest tests[] = {
        TEST(datagrams_of_any_size_go_and_come_back),
        TEST(a_row_leaves_by_one_system_call_as_equal_datagrams),
        TEST(one_port_of_ours_talks_to_every_target),
        TEST(the_hop_limit_is_the_senders),
        TEST(an_icmp_error_is_told_and_not_the_end),
        TEST(a_datagram_that_is_too_large_is_an_error_and_not_the_end),
        TEST(datagrams_wait_for_their_name_in_order),
        TEST(our_own_datagrams_are_known),
        TEST(an_association_may_be_closed_while_it_delivers),
    };
    return run_unless(netns_enter(), tests);
}
