/* test_echo_flows.c - flows of the echo proxy, shared and raw sockets, rights, loops and uplinks; the kernel at the other end. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "echo/ping_impl.h"
#include "echo_rig.h"

/* ---- flows ---- */

static void flows_of_two_clients_have_kernel_ids_of_their_own(void **state) /* icmp.md X6, X7 */
{
    struct echo_rig *g = *state;
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    g->ask.client = echo_rig_addr("10.9.9.8");
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    rig_answers(g, 2);
    g->ask.seq = 2;
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    rig_answers(g, 3);
    assert_int_equal(rig_count(g, "flows"), 2);
    assert_int_equal(((struct ping_flow *)slab_at(&g->proxy->table.flows, 0))->wire_id ==
                         ((struct ping_flow *)slab_at(&g->proxy->table.flows, 1))->wire_id,
                     0);
}

static void an_idle_flow_ends_between_its_time_and_a_second_more(void **state) /* icmp.md X11 */
{
    uint64_t last_us;
    struct echo_rig *g = *state;

    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    rig_answers(g, 1);
    last_us = ((struct ping_flow *)slab_at(&g->proxy->table.flows, 0))->active_us;
    wheel_advance(&g->wheel, last_us + 9999000);
    assert_int_equal(echo_proxy_flows(g->proxy), 1);
    wheel_advance(&g->wheel, last_us + 11000000);
    assert_int_equal(echo_proxy_flows(g->proxy), 0);
    assert_int_equal(rig_count(g, "flows_idle"), 1);
    assert_int_equal(rig_count(g, "flows"), 0);
}

static void a_new_responder_gets_the_flow_with_its_socket(void **state) /* icmp.md X14 */
{
    uint16_t wire_id;
    struct echo_rig *g = *state;

    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    wire_id = ((struct ping_flow *)slab_at(&g->proxy->table.flows, 0))->wire_id;
    g->ask.responder = 2;
    g->ask.seq = 2;
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    rig_answers(g, 2);
    assert_int_equal(g->responder, 2); /* the reply in flight reached it, too */
    assert_int_equal(((struct ping_flow *)slab_at(&g->proxy->table.flows, 0))->wire_id, wire_id);
    assert_int_equal(rig_count(g, "flows_rebound"), 1);
    assert_int_equal(rig_count(g, "flows_created"), 1);
}

static void a_responder_that_is_gone_takes_its_flows_with_it(void **state) /* icmp.md X15 */
{
    struct echo_rig *g = *state;
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    g->ask.client = echo_rig_addr("10.9.9.8");
    g->ask.responder = 2;
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    echo_proxy_responder_gone(g->proxy, 1);
    assert_int_equal(echo_proxy_flows(g->proxy), 1);
    assert_int_equal(rig_count(g, "drops_responder"), 1);
    rig_answers(g, 1);
    assert_int_equal(g->responder, 2);
    assert_false(loop_wait_until(&g->wait, 50, rig_never, NULL));
    assert_int_equal(g->replies, 1);
}

static void no_descriptor_or_id_means_a_second_of_rest_and_nothing_else(void **state) /* icmp.md X13, M17 */
{
    static const int errors[] = { -EMFILE, -ENFILE, -EADDRINUSE, -EAGAIN };
    struct echo_rig *g = *state;

    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        g->make_result = errors[i];
        g->proxy->backoff_until_us = 0;
        g->ask.client = echo_rig_addr("10.9.9.8");
        assert_int_equal(rig_ask(g), ECHO_PROXY_DROPPED);
        assert_int_equal(rig_count(g, "drops_socket"), i + 1);
        g->make_result = 0;
        assert_int_equal(rig_ask(g), ECHO_PROXY_DROPPED);
        assert_int_equal(rig_count(g, "drops_backoff"), i + 1);
    }
    g->ask.client = echo_rig_addr("10.9.9.9"); /* the flow that lives goes on */
    g->ask.seq = 2;
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    rig_answers(g, 2);
    assert_int_equal(rig_count(g, "flows"), 1);
}

static void many_flows_share_few_sockets_and_never_mix(void **state) /* icmp.md X17 */
{
    struct echo_proxy_options o;
    struct echo_rig *g = *state;

    rig_options(g, &o);
    o.pool_after = 2;
    rig_start(g, &o);
    for (unsigned i = 0; i < 100; i++) {
        uint8_t payload[2], c[4] = { 10, 9, 8, (uint8_t)i };

        g->ask.client = ip_from4(c);
        g->ask.seq = (uint16_t)(i % 7);
        put_be16(payload, (uint16_t)i);
        g->ask.payload = payload;
        g->ask.payload_len = 2;
        assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
        rig_answers(g, i + 1);
        assert_int_equal(get_be16(g->payload), i);
        assert_int_equal(g->last.seq, i % 7);
        assert_int_equal(g->last.client.b[15], i);
    }
    assert_int_equal(rig_count(g, "flows"), 100);
    assert_int_equal(rig_count(g, "flows_pooled"), 98);
    for (int i = 0; i < 4; i++)
        assert_true(g->proxy->pool[0][i].fd >= 0);
    assert_int_equal(g->proxy->pool[0][4].fd, -1);
    wheel_advance(&g->wheel, clock_now_us() + 30000000);
    assert_int_equal(rig_count(g, "flows_pooled"), 0);
}

static void a_flood_on_a_shared_socket_leaves_numbers_for_others(void **state) /* icmp.md X17 */
{
    struct echo_proxy_options o;
    struct echo_rig *g = *state;
    unsigned sent = 0;

    rig_options(g, &o);
    o.pool_after = 0;
    o.max_flows = 4; /* 256 numbers */
    rig_start(g, &o);
    for (unsigned i = 0; i < 1000; i++) {
        g->ask.seq = (uint16_t)i;
        sent += rig_ask(g) == ECHO_PROXY_SENT;
    }
    assert_int_equal(sent, 128);
    assert_int_equal(rig_count(g, "drops_socket"), 1000 - 128);
    g->ask.client = echo_rig_addr("10.9.9.8");
    for (unsigned i = 0; i < 64; i++) {
        g->ask.seq = (uint16_t)i;
        assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    }
}

static void a_reply_to_a_flow_that_is_gone_is_dropped(void **state) /* icmp.md X16, X17 */
{
    struct echo_proxy_options o;
    struct echo_rig *g = *state;

    rig_options(g, &o);
    o.pool_after = 0;
    rig_start(g, &o);
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    ping_flow_close(slab_at(&g->proxy->table.flows, 0));
    g->ask.client = echo_rig_addr("10.9.9.8"); /* the same place, another flow */
    g->ask.seq = 9;
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    rig_answers(g, 1);
    assert_false(loop_wait_until(&g->wait, 50, rig_never, NULL));
    assert_int_equal(g->replies, 1);
    assert_int_equal(g->last.seq, 9);
    assert_int_equal(rig_count(g, "drops_generation"), 1);
}

static void a_socket_that_cannot_be_read_ends_its_flows_and_nobody_elses(void **state) /* icmp.md X25 */
{
    struct echo_proxy_options o;
    struct ping_flow *f;
    int null;
    struct echo_rig *g = *state;

    rig_options(g, &o);
    o.pool_after = 1;
    rig_start(g, &o);
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT); /* a socket of its own */
    g->ask.client = echo_rig_addr("10.9.9.8");
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT); /* a shared one */
    rig_answers(g, 2);
    null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (uint32_t i = 0; i < 2; i++) {
        f = slab_at(&g->proxy->table.flows, i);
        ping_socket_on_ready(&f->sock->io, LOOP_READ); /* nothing to read is no error */
        assert_int_equal(echo_proxy_flows(g->proxy), 2 - i);
        loop_io_stop(g->loop, &f->sock->io);
        assert_true(dup2(null, f->sock->fd) >= 0);
        for (int n = 0; f->live && n < 10; n++)
            ping_socket_on_ready(&f->sock->io, LOOP_READ);
        assert_int_equal(echo_proxy_flows(g->proxy), 1 - i);
    }
    close(null);
    g->ask.seq = 2; /* both kinds are opened again */
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    g->ask.client = echo_rig_addr("10.9.9.9");
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    rig_answers(g, 4);
}

/* ---- rights, loops, uplinks ---- */

static void without_the_right_the_mode_is_off_until_it_comes_back(void **state) /* icmp.md X1, X3, X4 */
{
    struct echo_rig *g = *state;
    assert_int_equal(echo_proxy_mode(g->proxy, false), ECHO_PROXY_MODE_PING);
    g->make_result = -EACCES;
    assert_int_equal(rig_ask(g), ECHO_PROXY_OFF);
    assert_int_equal(echo_proxy_mode(g->proxy, false), ECHO_PROXY_MODE_OFF);
    assert_int_equal(rig_count(g, "families_off"), 2);
    assert_true(loop_timer_active(&g->proxy->probe_timer));
    g->make_result = 0;
    echo_proxy_probe(g->proxy);
    assert_int_equal(rig_count(g, "families_ping_socket"), 2);
    assert_false(loop_timer_active(&g->proxy->probe_timer));
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    rig_answers(g, 1);
}

static void raw_sockets_do_the_same_with_ids_of_ours(void **state) /* icmp.md 4.8 */
{
    struct echo_proxy_options o;
    struct echo_rig *g = *state;

    rig_options(g, &o);
    o.prefer_raw = true;
    o.share = 1;
    o.shares = 4;
    rig_start(g, &o);
    if (echo_proxy_mode(g->proxy, false) != ECHO_PROXY_MODE_RAW)
        SKIP("a raw socket needs CAP_NET_RAW");
    for (unsigned i = 0; i < 40; i++) {
        uint8_t c[4] = { 10, 9, 8, (uint8_t)i };

        g->ask.client = ip_from4(c);
        if (i == 20)
            rig_use_v6(g);
        if (i > 20) {
            g->ask.client = echo_rig_addr("fd00::9");
            g->ask.id = (uint16_t)i;
        }
        assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
        rig_answers(g, i + 1);
        assert_true(ip_equal(&g->last.client, &g->ask.client));
        assert_memory_equal(g->payload, "0123456789", 10);
        assert_int_equal(g->last.ttl, 63);
    }
    assert_int_equal(rig_count(g, "replies"), 40);
    assert_int_equal(g->proxy->ids.low, 1 + 16383);
    wheel_advance(&g->wheel, clock_now_us() + 30000000);
    assert_int_equal(g->proxy->ids.count, g->proxy->ids.size);
}

static void nothing_starts_that_would_come_back_through_the_tun(void **state) /* icmp.md X35 */
{
    struct echo_proxy_options o;
    struct echo_rig *g = *state;

    rig_options(g, &o);
    o.guard_needed = true;
    rig_start(g, &o);
    assert_int_equal(rig_ask(g), ECHO_PROXY_OFF);
    g->ifindex = 1; /* bound to an interface is enough */
    rig_start(g, &o);
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    rig_answers(g, 1);
}

static void a_prefix_that_must_not_be_dialled_is_not_pinged(void **state) /* icmp.md X8, X35 */
{
    struct echo_rig *g = *state;
    g->ifindex = -ELOOP;
    assert_int_equal(rig_ask(g), ECHO_PROXY_DROPPED);
    g->ifindex = -EACCES;
    assert_int_equal(rig_ask(g), ECHO_PROXY_ADMIN_PROHIBITED);
}

static void flows_of_a_vanished_uplink_are_closed(void **state) /* icmp.md X36 */
{
    struct echo_rig *g = *state;
    g->ifindex = 1;
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    g->ifindex = 0;
    g->ask.client = echo_rig_addr("10.9.9.8");
    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    echo_proxy_uplink_changed(g->proxy);
    assert_int_equal(echo_proxy_flows(g->proxy), 2); /* "lo" is still there */
    ((struct ping_flow *)slab_at(&g->proxy->table.flows, 0))->ifindex = 9999;
    echo_proxy_uplink_changed(g->proxy);
    assert_int_equal(echo_proxy_flows(g->proxy), 1);
}

static void our_own_request_that_comes_back_is_known_by_its_sender_too(void **state) /* icmp.md X37 */
{
    struct ip_addr stranger = echo_rig_addr("10.9.9.9"), own = echo_rig_addr("192.0.2.1");
    uint16_t wire_id;
    struct echo_rig *g = *state;

    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    rig_answers(g, 1);
    wire_id = ((struct ping_flow *)slab_at(&g->proxy->table.flows, 0))->wire_id;
    assert_false(echo_proxy_is_loop(g->proxy, &own, &g->ask.target, wire_id, 2));
    /* a client may have the id and the number that we have: only a sender of this host makes it a loop */
    assert_false(echo_proxy_is_loop(g->proxy, &stranger, &g->ask.target, wire_id, 1));
    assert_true(echo_proxy_is_loop(g->proxy, &own, &g->ask.target, wire_id, 1));
    assert_int_equal(rig_count(g, "loop_detected"), 1);
    assert_int_equal(rig_ask(g), ECHO_PROXY_DROPPED);
    assert_int_equal(rig_count(g, "drops_loop"), 1);
}

static void no_memory_is_taken_for_a_packet(void **state) /* echo.h: Memory */
{
    uint32_t flows;
    struct echo_rig *g = *state;

    assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
    rig_answers(g, 1);
    flows = g->proxy->table.flows.touched;
    for (unsigned i = 0; i < 200; i++) {
        g->ask.seq++;
        assert_int_equal(rig_ask(g), ECHO_PROXY_SENT);
        rig_answers(g, i + 2);
    }
    assert_int_equal(g->proxy->table.flows.touched, flows);
    wheel_advance(&g->wheel, clock_now_us() + 30000000);
    while (echo_proxy_trim(g->proxy))
        ;
    assert_int_equal(echo_proxy_flows(g->proxy), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(flows_of_two_clients_have_kernel_ids_of_their_own),
        TEST(an_idle_flow_ends_between_its_time_and_a_second_more),
        TEST(a_new_responder_gets_the_flow_with_its_socket),
        TEST(a_responder_that_is_gone_takes_its_flows_with_it),
        TEST(no_descriptor_or_id_means_a_second_of_rest_and_nothing_else),
        TEST(many_flows_share_few_sockets_and_never_mix),
        TEST(a_flood_on_a_shared_socket_leaves_numbers_for_others),
        TEST(a_reply_to_a_flow_that_is_gone_is_dropped),
        TEST(a_socket_that_cannot_be_read_ends_its_flows_and_nobody_elses),
        TEST(without_the_right_the_mode_is_off_until_it_comes_back),
        TEST(raw_sockets_do_the_same_with_ids_of_ours),
        TEST(nothing_starts_that_would_come_back_through_the_tun),
        TEST(a_prefix_that_must_not_be_dialled_is_not_pinged),
        TEST(flows_of_a_vanished_uplink_are_closed),
        TEST(our_own_request_that_comes_back_is_known_by_its_sender_too),
        TEST(no_memory_is_taken_for_a_packet),
    };

    return run_unless(rig_enter(), tests);
}
