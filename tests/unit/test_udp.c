/* test_udp.c - UDP of the stack: faults.md section 5 (U1, U2, U4, U13), icmp.md 6.2, tcp-stack.md section 6. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "ip_lab.h"

static struct pkt pkt;
static uint8_t data[65536];

static int setup(void **state)
{
    struct prng r;

    prng_seed(&r, 8);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)prng_next(&r);
    return ip_lab_setup(state);
}

static void datagram(bool v6, uint16_t sport, uint16_t dport, size_t len)
{
    pkt_udp(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, sport, v6 ? LAB_TARGET6 : LAB_TARGET, dport, data, len);
}

static struct ip_port target(bool v6, uint16_t port)
{
    struct ip_port t = { .port = port };

    ip_parse(v6 ? LAB_TARGET6 : LAB_TARGET, &t.addr);
    return t;
}

static void open_endpoint(struct ip_lab *lab, bool v6)
{
    lab->on_request = LAB_ACCEPT;
    datagram(v6, 4000, 53, 4);
    ip_lab_input(lab, &pkt);
    assert_non_null(lab->endpoint);
    ip_lab_clear(lab);
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

    open_endpoint(lab, false);
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

/* ---- out ------------------------------------------------------------------------------------------------------------ */

static int send_bytes(struct ip_lab *lab, bool v6, size_t len)
{
    struct iovec iov = { .iov_base = data, .iov_len = len };
    struct ip_port from = target(v6, 53);

    return udp_send(lab->endpoint, &from, &iov, 1, 0);
}

static void a_reply_comes_from_its_source_with_a_good_checksum(void **state)
{
    for (int offload = 0; offload < 2; offload++) {
        for (int v6 = 0; v6 < 2; v6++) {
            struct ip_lab *lab = ip_lab_new();

            (void)state;
            lab->cfg.offload_csum = offload;
            ip_lab_start(lab);
            open_endpoint(lab, v6);
            for (size_t len = 0; len < 1400; len += 33) {
                struct pkt_view v;

                ip_lab_clear(lab);
                assert_int_equal(send_bytes(lab, v6, len), 0);
                v = ip_lab_out(lab, 0);
                assert_int_equal(v.sport << 16 | v.dport, 53 << 16 | 4000);
                assert_int_equal(v.len, len);
                assert_memory_equal(v.data, data, len);
                assert_int_equal(lab->out[0].meta.needs_csum, offload);
                assert_int_equal(lab->out[0].meta.gso, PKT_GSO_NONE);
            }
            assert_int_equal(ip_lab_count(lab, "stack.payload_copied_bytes"), 4u + 8 + (v6 ? 40 : 20));
            ip_lab_free(lab);
        }
    }
}

static void a_reply_in_pieces_is_summed_as_one(void **state) /* ranges of odd lengths */
{
    struct ip_lab *lab = *state;
    struct ip_port from = target(false, 53);

    open_endpoint(lab, false);
    for (size_t cut = 0; cut <= 9; cut++) {
        struct iovec iov[3] = { { data, cut }, { data + cut, 9 - cut }, { data + 9, 101 } };

        ip_lab_clear(lab);
        assert_int_equal(udp_send(lab->endpoint, &from, iov, 3, 0), 0);
        assert_memory_equal(ip_lab_out(lab, 0).data, data, 110);
    }
}

static void a_checksum_that_comes_out_as_zero_is_sent_as_ones(void **state) /* RFC 768 */
{
    struct ip_lab *lab = *state;
    struct ip_port from = target(false, 53);
    unsigned ones = 0;

    open_endpoint(lab, false);
    for (unsigned v = 0; v < 65536; v++) {
        uint8_t word[2] = { (uint8_t)(v >> 8), (uint8_t)v };
        struct iovec iov = { .iov_base = word, .iov_len = 2 };

        ip_lab_clear(lab);
        assert_int_equal(udp_send(lab->endpoint, &from, &iov, 1, 0), 0);
        ones += get_be16(ip_lab_out(lab, 0).l4 + 6) == 0xffff;
    }
    assert_true(ones > 0);
}

static void replies_above_the_mtu_are_fragmented(void **state) /* faults.md U4; tcp-stack.md UDP-4 */
{
    static const size_t sizes[] = { 1472, 1473, 1480, 2952, 2953, 8000, 65507, 65527 };
    static uint8_t joined[66000];

    for (int offload = 0; offload < 2; offload++) {
        struct ip_lab *lab = ip_lab_new();

        (void)state;
        lab->cfg.offload_csum = lab->cfg.offload_uso = offload;
        ip_lab_start(lab);
        for (int v6 = 0; v6 < 2; v6++) {
            open_endpoint(lab, v6);
            for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
                size_t headers = v6 ? 48 : 28, len;
                struct pkt_view first;

                ip_lab_clear(lab);
                if (sizes[i] > (v6 ? 65527u : 65507u)) {
                    assert_int_equal(send_bytes(lab, v6, sizes[i]), -EMSGSIZE);
                    assert_int_equal(lab->outs, 0);
                    continue;
                }
                assert_int_equal(send_bytes(lab, v6, sizes[i]), 0);
                if (sizes[i] + headers <= 1500) {
                    assert_int_equal(lab->outs, 1);
                    continue;
                }
                len = ip_lab_join(lab, 0, lab->outs, joined, sizeof(joined), &first);
                assert_int_equal(len, sizes[i] + 8);
                assert_memory_equal(joined + 8, data, sizes[i]);
                assert_false(!v6 && first.df);
                for (size_t k = 0; k < lab->outs; k++)
                    assert_false(lab->out[k].meta.needs_csum || lab->out[k].meta.gso != PKT_GSO_NONE);
            }
        }
        assert_int_equal(ip_lab_count(lab, "udp.too_big"), 1);
        ip_lab_free(lab);
    }
}

/* The checksum of a fragmented datagram covers all of it: read it back through a second stack. */
static void fragments_of_ours_are_taken_by_another_stack(void **state)
{
    struct ip_lab *lab = *state, *peer = ip_lab_new();

    ip_lab_start(peer);
    peer->on_request = LAB_ACCEPT;
    for (int v6 = 0; v6 < 2; v6++) {
        open_endpoint(lab, v6);
        assert_int_equal(send_bytes(lab, v6, 20001), 0);
        for (size_t i = 0; i < lab->outs; i++)
            ip_lab_bytes(peer, lab->out[i].data, lab->out[i].len, &lab->out[i].meta);
        stack_batch_end(peer->s, peer->now_us);
        assert_int_equal(peer->gots, v6 + 1);
        assert_int_equal(peer->got[v6].d.len, 20001);
        assert_memory_equal(peer->got[v6].d.data->iov_base, data, 20001);
    }
    ip_lab_free(peer);
}

static int send_row(struct ip_lab *lab, bool v6, size_t n, size_t size, size_t last)
{
    static struct iovec iov[300];
    struct ip_port from = target(v6, 53);

    for (size_t i = 0; i < n; i++)
        iov[i] = (struct iovec){ .iov_base = data + i * size, .iov_len = i + 1 < n ? size : last };
    return udp_send(lab->endpoint, &from, iov, (int)n, (uint16_t)size);
}

static void a_row_of_datagrams_is_one_write_where_the_device_takes_it(
    void **state) /* tcp-stack.md UDP-3, VN-6 */
{
    static const struct {
        const char *what;
        size_t n, size, last;
        bool super;
    } rows[] = {
        { "10 x 1200", 10, 1200, 1200, true },    { "shorter last", 10, 1200, 1, true },
        { "128", 128, 500, 500, true },           { "129", 129, 500, 500, false },
        { "one", 1, 1200, 1200, false },          { "empty last", 3, 1200, 0, false },
        { "longer last", 3, 1200, 1201, false },  { "65,507 bytes", 45, 1472, 739, true },
        { "65,508 bytes", 45, 1472, 740, false },
    };
    struct ip_lab *lab = ip_lab_new();

    (void)state;
    lab->cfg.offload_csum = lab->cfg.offload_uso = true;
    ip_lab_start(lab);
    open_endpoint(lab, false);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        ip_lab_clear(lab);
        assert_int_equal(send_row(lab, false, rows[i].n, rows[i].size, rows[i].last), 0);
        if (lab->outs != (rows[i].super ? 1 : rows[i].n))
            fail_msg("%s left in %zu packets", rows[i].what, lab->outs);
        if (rows[i].super) {
            assert_int_equal(lab->out[0].meta.gso, PKT_GSO_UDP);
            assert_int_equal(lab->out[0].meta.gso_size, rows[i].size);
            assert_int_equal(lab->out[0].meta.hdr_len, 28);
            assert_int_equal(ip_lab_out(lab, 0).len, (rows[i].n - 1) * rows[i].size + rows[i].last);
        } else {
            for (size_t k = 0; k < rows[i].n; k++)
                assert_memory_equal(ip_lab_out(lab, k).data, data + k * rows[i].size, ip_lab_out(lab, k).len);
        }
    }
    ip_lab_free(lab);
}

static void rows_whose_datagrams_exceed_the_mtu_go_one_by_one(void **state) /* tcp-stack.md VN-7 */
{
    struct ip_lab *lab = ip_lab_new();

    (void)state;
    lab->cfg.offload_csum = lab->cfg.offload_uso = true;
    ip_lab_start(lab);
    open_endpoint(lab, true);
    assert_int_equal(send_row(lab, true, 4, 1452, 1452), 0);
    assert_int_equal(lab->outs, 1);
    ip_lab_clear(lab);
    assert_int_equal(send_row(lab, true, 4, 1453, 1453), 0);
    assert_int_equal(lab->outs, 8);
    for (size_t i = 0; i < lab->outs; i++)
        assert_true(lab->out[i].len <= 1500);
    stack_set_mtu(lab->s, 1280);
    ip_lab_clear(lab);
    assert_int_equal(send_row(lab, true, 4, 1452, 1452), 0);
    for (size_t i = 0; i < lab->outs; i++)
        assert_true(lab->out[i].len <= 1280);
    ip_lab_free(lab);
}

static void a_super_packet_of_datagrams_stays_one(void **state) /* tcp-stack.md UDP-3 */
{
    struct ip_lab *lab = *state;

    lab->on_request = LAB_ACCEPT;
    datagram(false, 4000, 53, 5000);
    pkt.meta = (struct pkt_meta){
        .gso = PKT_GSO_UDP, .gso_size = 1200, .needs_csum = true, .csum_start = 20, .csum_offset = 6
    };
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->gots, 1);
    assert_int_equal(lab->got[0].d.gso_size, 1200);
    assert_int_equal(lab->got[0].d.len, 5000);
    pkt.meta.gso_size = 5000; /* one datagram is no row */
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->got[1].d.gso_size, 0);
}

static void a_source_of_the_other_family_is_refused(void **state)
{
    struct ip_lab *lab = *state;

    open_endpoint(lab, false);
    assert_int_equal(send_bytes(lab, true, 10), -EAFNOSUPPORT);
    lab->emit_result = -EAGAIN; /* what the device says is handed on */
    assert_int_equal(send_bytes(lab, false, 10), -EAGAIN);
    assert_int_equal(ip_lab_count(lab, "ip.emit_failed"), 1);
}

static void an_upstream_error_reaches_the_client(void **state) /* faults.md U12: refused, too big */
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        struct ip_port t = target(v6, 53);
        struct ip_addr router;
        struct pkt_view v;

        open_endpoint(lab, v6);
        udp_endpoint_error(lab->endpoint, &t, NULL, REJECT_PORT_UNREACH, 0);
        v = ip_lab_out(lab, 0);
        assert_int_equal(v.type << 8 | v.code, v6 ? 0x104 : 0x303);
        assert_true(ip_equal(&v.src, &t.addr));
        assert_int_equal(get_be16(v.data + (v6 ? 40 : 20)), 4000);
        assert_int_equal(get_be16(v.data + (v6 ? 42 : 22)), 53);
        ip_parse(v6 ? "2001:db8::1" : "198.51.100.1", &router);
        udp_endpoint_error(lab->endpoint, &t, &router, REJECT_SILENT, 1400);
        v = ip_lab_out(lab, 1);
        assert_int_equal(v.type << 8 | v.code, v6 ? 0x200 : 0x304);
        assert_int_equal(v.word, 1400);
        assert_true(ip_equal(&v.src, &router));
    }
}

static void a_reply_above_an_ipv6_mtu_has_its_own_fragment_id_each_time(void **state)
{
    struct ip_lab *lab = *state;
    uint32_t first;

    open_endpoint(lab, true);
    assert_int_equal(send_bytes(lab, true, 3000), 0);
    first = ip_lab_out(lab, 0).id;
    ip_lab_clear(lab);
    assert_int_equal(send_bytes(lab, true, 3000), 0);
    assert_int_not_equal(ip_lab_out(lab, 0).id, first);
    assert_true(first > 0xffff || ip_lab_out(lab, 0).id > 0xffff); /* all 32 bits are used */
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
        cmocka_unit_test(a_reply_comes_from_its_source_with_a_good_checksum),
        T(a_reply_in_pieces_is_summed_as_one),
        T(a_checksum_that_comes_out_as_zero_is_sent_as_ones),
        cmocka_unit_test(replies_above_the_mtu_are_fragmented),
        T(fragments_of_ours_are_taken_by_another_stack),
        cmocka_unit_test(a_row_of_datagrams_is_one_write_where_the_device_takes_it),
        cmocka_unit_test(rows_whose_datagrams_exceed_the_mtu_go_one_by_one),
        T(a_super_packet_of_datagrams_stays_one),
        T(a_source_of_the_other_family_is_refused),
        T(an_upstream_error_reaches_the_client),
        T(a_reply_above_an_ipv6_mtu_has_its_own_fragment_id_each_time),
        cmocka_unit_test(pools_that_fail_lose_datagrams_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
