/* test_udp.c - UDP of the stack: faults.md section 5 (U1, U2, U4, U13), icmp.md 6.2, tcp-stack.md section 6. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <errno.h>
#include <cmocka.h>

#include <sys/mman.h>

#include "udp_script.h"

static struct pkt pkt;
static uint8_t data[65536];

static int setup(void **state)
{
    udp_bytes(data, sizeof(data));
    return ip_lab_setup(state);
}

static void datagram(bool v6, uint16_t sport, uint16_t dport, size_t len)
{
    udp_from_client(&pkt, v6, sport, dport, data, len);
}

static void lengths_that_lie_are_dropped(void **state) /* faults.md U1 */
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        static const unsigned lengths[] = { 0, 1, 7, 8, 11, 13, 20, 65535 };
        uint64_t before = ip_lab_count(lab, "udp.length");

        for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
            datagram(v6, 4000, 53, 4);
            put_be16(pkt.data + pkt.l4 + 4, (uint16_t)lengths[i]);
            pkt_fix_l4(&pkt);
            ip_lab_input(lab, &pkt);
            pkt.meta.csum_valid = true;
            ip_lab_input(lab, &pkt);
        }
        for (size_t len = 0; len < 8; len++) {
            pkt_raw(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, v6 ? LAB_TARGET6 : LAB_TARGET, IP_PROTO_UDP, data,
                    len);
            if (len > 0 || !v6) /* IPv6 without any payload stops earlier */
                ip_lab_input(lab, &pkt);
        }
        assert_int_equal(ip_lab_count(lab, "udp.length"), before + 2 * ARRAY_LEN(lengths) + (v6 ? 7 : 8));
    }
    assert_int_equal(lab->requests, 0);
}

static void no_checksum_is_fine_in_v4_and_not_in_v6(void **state) /* faults.md U2; tcp-stack.md UDP-2 */
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        datagram(v6, 4000, 53, 4);
        put_be16(pkt.data + pkt.l4 + 6, 0);
        ip_lab_input(lab, &pkt);
    }
    assert_int_equal(lab->requests, 1);
    assert_int_equal(ip_lab_count(lab, "udp.checksum"), 1);
}

static void a_corrupt_datagram_makes_no_request(void **state) /* faults.md U2; icmp.md UF2, UF3 */
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        for (size_t at = 0; at < 12; at++) {
            datagram(v6, 4000, 53, 4);
            if (at == 4 || at == 5)
                continue; /* the length */
            pkt.data[pkt.l4 + at] ^= 0x10;
            ip_lab_input(lab, &pkt);
        }
    }
    assert_int_equal(ip_lab_count(lab, "udp.checksum"), 20);
    assert_int_equal(lab->requests + lab->outs, 0);
}

static void a_request_shows_its_first_datagram(void **state) /* icmp.md UF1 */
{
    struct ip_lab *lab = *state;
    struct udp_datagram d;

    datagram(true, 4000, 53, 100);
    pkt.data[7] = 3;
    put_be16(pkt.data, 0x6b80); /* traffic class 0xb8 */
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->requests, 1);
    udp_request_first(lab->request, &d);
    assert_int_equal(d.client.port, 4000);
    assert_int_equal(d.target.port, 53);
    assert_int_equal(d.len, 100);
    assert_memory_equal(d.data->iov_base, data, 100);
    assert_int_equal(d.ttl, 3);
    assert_int_equal(d.tos, 0xb8);
}

static void datagrams_before_the_decision_are_held_in_order(
    void **state) /* faults.md U13; icmp.md UF1; design.md section 6: 16 */
{
    struct ip_lab *lab = *state;
    struct udp_endpoint *e;

    for (uint16_t i = 0; i < 20; i++) {
        datagram(false, 4000, (uint16_t)(100 + i), i); /* to other targets, too: one mapping */
        if (i % 3 == 0)
            ip_lab_input(lab, &pkt);
        else
            ip_lab_feed(lab, &pkt);
    }
    stack_batch_end(lab->s, lab->now_us);
    assert_int_equal(lab->requests, 1);
    assert_int_equal(ip_lab_count(lab, "udp.held_dropped"), 4);
    assert_int_equal(ip_lab_in_use(lab, "slot"), 0); /* held in blocks of their size */
    assert_int_equal(udp_request_accept(lab->request, UDP_MATCH_CLIENT, lab, &e), 0);
    assert_int_equal(lab->gots, 0);
    assert_true(stack_next_deadline(lab->s) <= lab->now_us);
    datagram(false, 4000, 999, 50);
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->gots, 17);
    for (uint16_t i = 0; i < 16; i++) { /* the newest, in order */
        assert_int_equal(lab->got[i].d.target.port, 104 + i);
        assert_int_equal(lab->got[i].d.len, 4 + i);
        assert_memory_equal(lab->got[i].d.data->iov_base, data, 4 + i);
    }
    assert_int_equal(lab->got[16].d.target.port, 999);
    assert_int_equal(ip_lab_in_use(lab, "chunk2"), 0);
}

static void an_accept_inside_the_callback_gets_the_rest_of_the_batch(void **state)
{
    struct ip_lab *lab = *state;

    lab->on_request = LAB_ACCEPT;
    for (uint16_t i = 0; i < 30; i++) {
        datagram(false, 4000, (uint16_t)(100 + i), i);
        ip_lab_feed(lab, &pkt);
    }
    assert_int_equal(lab->gots, 0); /* callbacks wait for the end of the batch */
    stack_batch_end(lab->s, lab->now_us);
    assert_int_equal(lab->requests, 1);
    assert_int_equal(lab->gots, 30);
    for (uint16_t i = 0; i < 30; i++)
        assert_int_equal(lab->got[i].d.target.port, 100 + i);
    assert_int_equal(stack_udp_count(lab->s), 1);
}

static void one_endpoint_serves_all_targets_of_a_client_port(void **state) /* tcp-stack.md UDP-1 */
{
    struct ip_lab *lab = *state;
    char dst[32];

    lab->on_request = LAB_ACCEPT;
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(dst, sizeof(dst), "198.51.%u.%u", 100 + i / 250, 1 + i % 250);
        pkt_udp(&pkt, LAB_CLIENT, 4000, dst, (uint16_t)(i + 1), data, 10);
        ip_lab_input(lab, &pkt);
    }
    assert_int_equal(lab->requests, 1);
    assert_int_equal(lab->gots, 1000);
    datagram(false, 4001, 53, 1);
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->requests, 2);
}

static void a_flow_endpoint_takes_its_own_target_only(void **state)
{
    struct ip_lab *lab = *state;
    struct udp_endpoint *first, *second;

    datagram(false, 4000, 53, 1);
    ip_lab_input(lab, &pkt);
    datagram(false, 4000, 54, 2);
    ip_lab_input(lab, &pkt);
    datagram(false, 4000, 53, 3);
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->requests, 1);
    assert_int_equal(udp_request_accept(lab->request, UDP_MATCH_FLOW, lab, &first), 0);
    stack_batch_end(lab->s, lab->now_us);
    assert_int_equal(lab->gots, 2);     /* to port 53 */
    assert_int_equal(lab->requests, 2); /* port 54 asks for itself */
    assert_int_equal(udp_request_accept(lab->request, UDP_MATCH_CLIENT, lab, &second), 0);
    stack_batch_end(lab->s, lab->now_us);
    assert_int_equal(lab->gots, 3);
    datagram(false, 4000, 55, 4); /* the client's endpoint takes the others */
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->gots, 4);
    assert_int_equal(stack_udp_count(lab->s), 2);
    udp_endpoint_close(second);
    datagram(false, 4000, 53, 5);
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->gots, 5);
    assert_int_equal(lab->requests, 2);
    udp_endpoint_close(first);
    assert_int_equal(stack_udp_count(lab->s), 0);
    assert_int_equal(ip_lab_in_use(lab, "udp"), 0);
}

static void after_a_close_the_next_datagram_is_a_new_request(void **state) /* icmp.md UF4 */
{
    struct ip_lab *lab = *state;

    udp_open(lab, false);
    udp_endpoint_close(lab->endpoint);
    datagram(false, 4000, 53, 4);
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->requests, 2);
}

static void an_endpoint_may_be_closed_by_its_own_callback(void **state)
{
    struct ip_lab *lab = *state;

    lab->on_request = LAB_ACCEPT;
    lab->close_in_datagram = true;
    for (uint16_t i = 0; i < 5; i++) {
        datagram(false, 4000, 53, i);
        ip_lab_feed(lab, &pkt);
    }
    for (int i = 0; i < 10; i++)
        stack_batch_end(lab->s, lab->now_us);
    assert_int_equal(stack_udp_count(lab->s), 0);
    assert_int_equal(ip_lab_in_use(lab, "udp"), 0);
    assert_int_equal(ip_lab_in_use(lab, "chunk2"), 0);
    assert_int_equal(lab->gots + ip_lab_count(lab, "udp.held_dropped"), 5);
}

static void a_rejection_answers_each_held_datagram(void **state) /* icmp.md UF3, 3.3 */
{
    static const struct {
        enum stack_reject why;
        int v4, v6; /* type and code */
    } rows[] = {
        { REJECT_SILENT, -1, -1 },
        { REJECT_RST, 0x303, 0x104 },
        { REJECT_NET_UNREACH, 0x300, 0x100 },
        { REJECT_HOST_UNREACH, 0x301, 0x103 },
        { REJECT_PORT_UNREACH, 0x303, 0x104 },
        { REJECT_NET_PROHIBITED, 0x309, 0x101 },
        { REJECT_HOST_PROHIBITED, 0x30a, 0x101 },
        { REJECT_ADMIN_PROHIBITED, 0x30d, 0x101 },
        { REJECT_POLICY, 0x30d, 0x105 },
        { REJECT_TTL_EXCEEDED, 0xb00, 0x300 },
    };
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            int expected = v6 ? rows[i].v6 : rows[i].v4;

            ip_lab_clear(lab);
            lab->on_request = LAB_HOLD;
            datagram(v6, (uint16_t)(4000 + i), 53, 700);
            ip_lab_input(lab, &pkt);
            ip_lab_input(lab, &pkt);
            udp_request_reject(lab->request, rows[i].why);
            assert_int_equal(ip_lab_count(lab, "udp.rejected"),
                             2 * (v6 * ARRAY_LEN(rows) + i + 1)); /* tcp-stack.md OBS-1: each of them */
            assert_int_equal(lab->outs, expected < 0 ? 0 : 2);
            for (size_t k = 0; k < lab->outs; k++) {
                struct pkt_view v = ip_lab_out(lab, k);
                struct ip_addr gateway;

                ip_parse(v6 ? LAB_GATEWAY6 : LAB_GATEWAY, &gateway);
                assert_int_equal(v.type << 8 | v.code, expected);
                assert_true(ip_equal(&v.src, &gateway)); /* icmp.md J2 */
                assert_int_equal(lab->out[k].len, v6 ? 796 : 576);
                assert_memory_equal(v.data, pkt.data, v.len); /* J1: as it was received */
            }
        }
    }
    assert_int_equal(ip_lab_in_use(lab, "udp"), 0);
    assert_int_equal(ip_lab_in_use(lab, "chunk2"), 0);
}

static void without_a_handler_ports_are_unreachable(void **state) /* icmp.md UF3 */
{
    struct ip_lab *lab = ip_lab_new();

    (void)state;
    lab->ev.on_udp_request = NULL;
    ip_lab_start(lab);
    datagram(false, 4000, 53, 4);
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->outs, 1);
    assert_int_equal(ip_lab_out(lab, 0).code, 3);
    ip_lab_free(lab);
}

static void undecided_requests_expire(void **state)
{
    struct ip_lab *lab = *state;

    datagram(false, 4000, 53, 4);
    ip_lab_input(lab, &pkt);
    ip_lab_run_until(lab, lab->now_us + 29000000);
    assert_int_equal(lab->gone, 0);
    ip_lab_run_until(lab, lab->now_us + 1000000);
    assert_int_equal(lab->gone, 1);
    assert_ptr_equal(lab->gone_user, lab);
    assert_int_equal(ip_lab_in_use(lab, "udp") + ip_lab_in_use(lab, "chunk2"), 0);
    ip_lab_input(lab, &pkt); /* and the next datagram asks again */
    assert_int_equal(lab->requests, 2);
}

static void the_end_of_the_stack_tells_undecided_requests(void **state)
{
    struct ip_lab *lab = ip_lab_new();
    unsigned gone;

    (void)state;
    ip_lab_start(lab);
    for (uint16_t i = 0; i < 10; i++) {
        lab->on_request = i % 2 ? LAB_ACCEPT : LAB_HOLD;
        datagram(false, (uint16_t)(4000 + i), 53, 4);
        ip_lab_input(lab, &pkt);
    }
    stack_fini(lab->s);
    gone = lab->gone;
    madvise(lab->memory, lab->bytes, MADV_DONTNEED); /* zeroes, as stack_init() wants them */
    lab->s = stack_init(lab->memory, &lab->cfg, &lab->ev, lab, lab->now_us);
    assert_int_equal(gone, 5);
    ip_lab_free(lab);
}

static void limits_hold(void **state) /* tcp-stack.md section 7: max_udp; icmp.md 6.2 */
{
    struct ip_lab *lab = *state;
    struct udp_endpoint *e;

    for (uint16_t i = 0; i < 1000; i++) { /* undecided ones */
        datagram(false, (uint16_t)(1 + i), 53, 4);
        ip_lab_input(lab, &pkt);
    }
    assert_int_equal(lab->requests, 256);
    assert_int_equal(ip_lab_count(lab, "udp.limit"), 744);
    ip_lab_run_until(lab, lab->now_us + 31000000);
    lab->on_request = LAB_ACCEPT;
    for (uint16_t i = 0; i < 256; i++) {
        datagram(false, (uint16_t)(1 + i), 53, 4);
        ip_lab_input(lab, &pkt);
    }
    lab->on_request = LAB_HOLD;
    datagram(false, 5000, 53, 4);
    ip_lab_input(lab, &pkt);
    assert_int_equal(stack_udp_count(lab->s), 256);
    assert_int_equal(udp_request_accept(lab->request, UDP_MATCH_CLIENT, NULL, &e), -ENOBUFS);
    assert_int_equal(ip_lab_count(lab, "udp.endpoint_limit"), 1);
    udp_endpoint_close(lab->endpoint);
    assert_int_equal(udp_request_accept(lab->request, UDP_MATCH_CLIENT, lab, &e),
                     0); /* the request was still there */
    stack_batch_end(lab->s, lab->now_us);
    assert_int_equal(stack_udp_count(lab->s), 256);
}

static void requests_never_hold_more_than_their_share_of_the_buffers(void **state)
{
    struct ip_lab *lab = *state;

    for (uint16_t i = 0; i < 200; i++) {
        datagram(false, (uint16_t)(1 + i % 20), 53, 40000);
        ip_lab_input(lab, &pkt);
    }
    assert_true(ip_lab_in_use(lab, "chunk64") * 65536u <= lab->cfg.buffer_cap_bytes / 8 + 65536);
    assert_true(ip_lab_count(lab, "udp.held_dropped") > 100);
}

static void pools_that_fail_lose_datagrams_and_nothing_else(void **state) /* tcp-stack.md MEM-3 */
{
    (void)state;
    for (uint32_t every = 1; every <= 50; every++) {
        struct ip_lab *lab = ip_lab_new();

        lab->cfg.buffer_cap_bytes = 270000 + every * 3000;
        ip_lab_start(lab);
        for (uint16_t i = 0; i < 60; i++) {
            lab->on_request = i % 4;
            datagram(i % 2, (uint16_t)(1 + i % 10), (uint16_t)(1 + i % 3), (i % 5) * 900u);
            ip_lab_feed(lab, &pkt);
            if (i % 7 == 0)
                stack_batch_end(lab->s, lab->now_us);
        }
        ip_lab_run_until(lab, lab->now_us + 31000000);
        assert_int_equal(ip_lab_in_use(lab, "chunk2") + ip_lab_in_use(lab, "chunk16"), 0);
        ip_lab_free(lab);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, ip_lab_teardown)
    const struct CMUnitTest tests[] = {
        T(lengths_that_lie_are_dropped),
        T(no_checksum_is_fine_in_v4_and_not_in_v6),
        T(a_corrupt_datagram_makes_no_request),
        T(a_request_shows_its_first_datagram),
        T(datagrams_before_the_decision_are_held_in_order),
        T(an_accept_inside_the_callback_gets_the_rest_of_the_batch),
        T(one_endpoint_serves_all_targets_of_a_client_port),
        T(a_flow_endpoint_takes_its_own_target_only),
        T(after_a_close_the_next_datagram_is_a_new_request),
        T(an_endpoint_may_be_closed_by_its_own_callback),
        T(a_rejection_answers_each_held_datagram),
        cmocka_unit_test(without_a_handler_ports_are_unreachable),
        T(undecided_requests_expire),
        cmocka_unit_test(the_end_of_the_stack_tells_undecided_requests),
        T(limits_hold),
        T(requests_never_hold_more_than_their_share_of_the_buffers),
        cmocka_unit_test(pools_that_fail_lose_datagrams_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
