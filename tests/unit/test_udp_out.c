/* test_udp_out.c - faces src/stack/udp_io.c: what the stack sends of UDP: replies, rows of them, fragments, errors
 * (tcp-stack.md UDP-3, UDP-4, VN-6, VN-7; faults.md U4, U12). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <errno.h>
#include <cmocka.h>

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

static int send_bytes(struct ip_lab *lab, bool v6, size_t len)
{
    struct iovec iov = { .iov_base = data, .iov_len = len };
    struct ip_port from = udp_target(v6, 53);

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
            udp_open(lab, v6);
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
    struct ip_port from = udp_target(false, 53);

    udp_open(lab, false);
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
    struct ip_port from = udp_target(false, 53);
    unsigned ones = 0;

    udp_open(lab, false);
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
            udp_open(lab, v6);
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
        udp_open(lab, v6);
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
    struct ip_port from = udp_target(v6, 53);

    for (size_t i = 0; i < n; i++)
        iov[i] = (struct iovec){ .iov_base = data + i * size, .iov_len = i + 1 < n ? size : last };
    return udp_send(lab->endpoint, &from, iov, (int)n, (uint16_t)size);
}

static void a_row_of_datagrams_is_one_write_where_the_device_takes_it(
    void **state) /* tcp-stack.md UDP-3, VN-6 */
{
    static const struct {
        const char *what;
        bool v6;
        size_t n, size, last;
        bool super;
    } rows[] = {
        { "10 x 1200", false, 10, 1200, 1200, true },
        { "shorter last", false, 10, 1200, 1, true },
        { "128", false, 128, 500, 500, true },
        { "129", false, 129, 500, 500, false },
        { "one", false, 1, 1200, 1200, false },
        { "empty last", false, 3, 1200, 0, false },
        { "longer last", false, 3, 1200, 1201, false },
        { "65,507 bytes", false, 45, 1472, 739, true },
        { "65,508 bytes", false, 45, 1472, 740, false },
        { "128, IPv6", true, 128, 500, 500, true },
        { "65,487 bytes, IPv6", true, 46, 1452, 147, true }, /* 65,535 with both headers: faults.md V2 */
        { "65,488 bytes, IPv6", true, 46, 1452, 148, false },
    };
    struct ip_lab *lab = ip_lab_new();

    (void)state;
    lab->cfg.offload_csum = lab->cfg.offload_uso = true;
    ip_lab_start(lab);
    udp_open(lab, false);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].v6 && !rows[i - 1].v6)
            udp_open(lab, true);
        ip_lab_clear(lab);
        assert_int_equal(send_row(lab, rows[i].v6, rows[i].n, rows[i].size, rows[i].last), 0);
        if (lab->outs != (rows[i].super ? 1 : rows[i].n))
            fail_msg("%s left in %zu packets", rows[i].what, lab->outs);
        if (rows[i].super) {
            assert_int_equal(lab->out[0].meta.gso, PKT_GSO_UDP);
            assert_int_equal(lab->out[0].meta.gso_size, rows[i].size);
            assert_int_equal(lab->out[0].meta.hdr_len, rows[i].v6 ? 48 : 28);
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
    udp_open(lab, true);
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

    udp_open(lab, false);
    assert_int_equal(send_bytes(lab, true, 10), -EAFNOSUPPORT);
    lab->emit_result = -EAGAIN; /* what the device says is handed on */
    assert_int_equal(send_bytes(lab, false, 10), -EAGAIN);
    assert_int_equal(ip_lab_count(lab, "ip.emit_failed"), 1);
}

static void an_upstream_error_reaches_the_client(void **state) /* faults.md U12: refused, too big */
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        struct ip_port t = udp_target(v6, 53);
        struct ip_addr router;
        struct pkt_view v;

        udp_open(lab, v6);
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

    udp_open(lab, true);
    assert_int_equal(send_bytes(lab, true, 3000), 0);
    first = ip_lab_out(lab, 0).id;
    ip_lab_clear(lab);
    assert_int_equal(send_bytes(lab, true, 3000), 0);
    assert_int_not_equal(ip_lab_out(lab, 0).id, first);
    assert_true(first > 0xffff || ip_lab_out(lab, 0).id > 0xffff); /* all 32 bits are used */
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, ip_lab_teardown)
    const struct CMUnitTest tests[] = {
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
