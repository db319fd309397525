/* test_icmp_error.c - ICMP errors in both directions: icmp.md 2.5, 2.9 (U3 to U8), tcp-stack.md ICM-1, ICM-4. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "ip_lab.h"
#include "stack/ip_impl.h"

static struct pkt pkt, quoted;

/* ---- theirs ------------------------------------------------------------------------------------------------------------ */

/* An error of this type about a TCP segment of ours to the client, quoting @len bytes of it. */
static void error_about_tcp(bool v6, uint8_t type, uint8_t code, uint32_t word, size_t len)
{
    const char *target = v6 ? LAB_TARGET6 : LAB_TARGET, *client = v6 ? LAB_CLIENT6 : LAB_CLIENT;

    pkt_tcp(&quoted, target, 80, client, 4000, PKT_ACK, 1000, 2000, "data", 4);
    if (len > quoted.len)
        len = quoted.len;
    pkt_icmp(&pkt, v6 ? "fd00::99" : "10.0.0.99", target, type, code, word, quoted.data, len);
}

/* Two shards, so that an error which was understood shows: it is handed on, for its flow is not known here. */
static int setup_two(void **state)
{
    struct ip_lab *lab = ip_lab_new();

    lab->cfg.shards = 2;
    ip_lab_start(lab);
    *state = lab;
    return 0;
}

static bool is_taken(struct ip_lab *lab)
{
    ip_lab_clear(lab);
    ip_lab_input(lab, &pkt);
    return lab->hands == 1;
}

static void quotes_are_read_with_bounds(void **state) /* tcp-stack.md FUZ-6, in small */
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        size_t enough = (v6 ? 40 : 20) + 8;

        for (size_t len = 0; len <= 80; len++) {
            error_about_tcp(v6, v6 ? 1 : 3, 0, 0, len);
            assert_int_equal(is_taken(lab), len >= enough);
        }
    }
    assert_int_equal(lab->outs, 0);
}

static void only_errors_about_packets_from_their_destination_count(
    void **state) /* RFC 5927 section 4; icmp.md U4 */
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        error_about_tcp(v6, v6 ? 1 : 3, 0, 0, 100);
        assert_true(is_taken(lab));
        pkt.data[v6 ? 39 : 19] ^= 1; /* sent to somebody else than the quoted source */
        pkt_fix_ip(&pkt);
        pkt_fix_l4(&pkt);
        assert_false(is_taken(lab));
    }
}

static void odd_quotes_are_ignored(void **state)
{
    static const struct {
        const char *what;
        size_t at;
        uint8_t value;
        bool v6;
    } rows[] = {
        { "version 6 inside ICMPv4", 0, 0x65, false },
        { "options", 0, 0x46, false },
        { "IHL 4", 0, 0x44, false },
        { "a later fragment", 7, 1, false },
        { "UDP", 9, 17, false },
        { "SCTP", 9, 132, false },
        { "version 4 inside ICMPv6", 0, 0x45, true },
        { "UDP v6", 6, 17, true },
        { "fragment v6", 6, 44, true },
    };
    struct ip_lab *lab = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        error_about_tcp(rows[i].v6, rows[i].v6 ? 1 : 3, 0, 0, 100);
        pkt.data[pkt.l4 + 8 + rows[i].at] = rows[i].value;
        pkt_fix_l4(&pkt);
        if (is_taken(lab))
            fail_msg("taken: %s", rows[i].what);
    }
}

static void every_type_and_code_is_survived_and_never_answered(void **state) /* icmp.md U5, U6 */
{
    struct ip_lab *lab = ip_lab_new();

    (void)state;
    lab->ev.on_echo = NULL;
    lab->cfg.echo_temporary = ECHO_TEMPORARY_SUPPRESS;
    ip_lab_start(lab);
    for (int v6 = 0; v6 < 2; v6++) {
        for (unsigned type = 0; type < 256; type++) {
            for (unsigned code = 0; code < 16; code++) {
                error_about_tcp(v6, (uint8_t)type, (uint8_t)code, 1280, 100);
                ip_lab_input(lab, &pkt);
            }
        }
    }
    assert_int_equal(lab->outs, 0);
    ip_lab_free(lab);
}

/* ---- ours --------------------------------------------------------------------------------------------------------------- */

static struct packet about(const struct pkt *p, struct ip_addr *src, struct ip_addr *dst)
{
    return (struct packet){ .src = *src,
                            .dst = *dst,
                            .ip = p->data,
                            .ip_len = (uint32_t)p->len,
                            .l4 = p->data + p->l4,
                            .l4_len = (uint32_t)(p->len - p->l4),
                            .proto = pkt_is6(p) ? p->data[6] : p->data[9],
                            .v6 = pkt_is6(p) };
}

static void errors_are_never_sent_about_errors(void **state) /* icmp.md U7, X32 */
{
    static const uint8_t errors_v4[] = { 3, 4, 5, 11, 12 }, errors_v6[] = { 1, 2, 3, 4, 100, 127, 137 };
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        struct ip_addr src, dst;
        struct packet p;

        ip_parse(v6 ? LAB_CLIENT6 : LAB_CLIENT, &src);
        ip_parse(v6 ? LAB_TARGET6 : LAB_TARGET, &dst);
        for (size_t i = 0; i < (v6 ? ARRAY_LEN(errors_v6) : ARRAY_LEN(errors_v4)); i++) {
            error_about_tcp(v6, v6 ? errors_v6[i] : errors_v4[i], 0, 0, 40);
            p = about(&pkt, &src, &dst);
            assert_false(icmp_send_error(lab->s, &p, REJECT_HOST_UNREACH, 0));
        }
        error_about_tcp(v6, v6 ? 128 : 8, 0, 0, 40);
        p = about(&pkt, &src, &dst);
        assert_true(icmp_send_error(lab->s, &p, REJECT_HOST_UNREACH, 0));
        p.multicast = true;
        assert_false(icmp_send_error(lab->s, &p, REJECT_HOST_UNREACH, 0));
        assert_int_equal(icmp_send_error(lab->s, &p, REJECT_SILENT, 1300),
                         v6); /* too big is IPv6's exception */
    }
}

static void too_big_carries_the_mtu_and_spends_no_token(void **state) /* icmp.md L3, U8 */
{
    struct ip_lab *lab = ip_lab_new();

    (void)state;
    lab->cfg.icmp_errors_per_second = 0;
    ip_lab_start(lab);
    for (int v6 = 0; v6 < 2; v6++) {
        struct ip_addr src, dst;
        struct packet p;
        struct pkt_view v;

        ip_parse(v6 ? LAB_CLIENT6 : LAB_CLIENT, &src);
        ip_parse(v6 ? LAB_TARGET6 : LAB_TARGET, &dst);
        pkt_udp(&quoted, v6 ? LAB_CLIENT6 : LAB_CLIENT, 1, v6 ? LAB_TARGET6 : LAB_TARGET, 2, NULL, 0);
        p = about(&quoted, &src, &dst);
        assert_true(icmp_send_error(lab->s, &p, REJECT_SILENT, 1400));
        v = ip_lab_out(lab, (size_t)v6);
        assert_int_equal(v.type << 8 | v.code, v6 ? 0x200 : 0x304);
        assert_int_equal(v.word, 1400);
        assert_false(icmp_send_error(lab->s, &p, REJECT_HOST_UNREACH, 0));
    }
    ip_lab_free(lab);
}

static void every_error_of_ours_spends_the_bucket(void **state) /* icmp.md L2 */
{
    static const uint8_t bad_option[] = { 7, 7, 3, 0, 0, 0, 0, 0 },
                         bad_chain[] = { 58, 0, 0x80, 0, 0, 0, 0, 0 };

    (void)state;
    for (int i = 0; i < 8; i++) {
        struct ip_lab *lab = ip_lab_new();
        bool v6 = i % 2;
        const char *client = v6 ? LAB_CLIENT6 : LAB_CLIENT, *gateway = v6 ? LAB_GATEWAY6 : LAB_GATEWAY;
        static const uint8_t types[] = { 3, 1, 3, 1, 11, 3, 12, 4 };

        lab->cfg.icmp_errors_burst = 1;
        lab->cfg.echo_hop = true;
        lab->ev.on_udp_request = NULL;
        ip_lab_start(lab);
        for (int again = 0; again < 2; again++) {
            switch (i / 2) {
            case 0: /* port unreachable */
                pkt_udp(&pkt, client, 4000, gateway, 9, "x", 1);
                break;
            case 1:
                pkt_udp(&pkt, client, 4000, v6 ? LAB_TARGET6 : LAB_TARGET, 9, "x", 1);
                break;
            case 2: /* time exceeded */
                pkt_echo(&pkt, client, v6 ? LAB_TARGET6 : LAB_TARGET, 1, 1, "x", 1);
                pkt.data[v6 ? 7 : 8] = 1;
                pkt_fix_ip(&pkt);
                break;
            default: /* parameter problem */
                pkt_echo(&pkt, client, gateway, 1, 1, "x", 1);
                if (v6)
                    pkt_insert_ext(&pkt, 60, bad_chain, sizeof(bad_chain), 0);
                else
                    pkt_insert_options(&pkt, bad_option, sizeof(bad_option));
                break;
            }
            ip_lab_input(lab, &pkt);
            assert_int_equal(lab->outs, 1);
        }
        assert_int_equal(ip_lab_out(lab, 0).type, types[i]);
        assert_int_equal(ip_lab_count(lab, "icmp.tx.rate_limited"), 1);
        ip_lab_free(lab);
    }
}

static void quotes_are_cut_at_576_and_1280(void **state) /* icmp.md U7, J1 */
{
    static uint8_t data[60000];
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        for (size_t len = 0; len < sizeof(data); len = len * 2 + 100) {
            struct ip_addr src, dst;
            size_t whole, limit = v6 ? 1280 : 576;
            struct packet p;

            ip_lab_clear(lab);
            ip_parse(v6 ? LAB_CLIENT6 : LAB_CLIENT, &src);
            ip_parse(v6 ? LAB_TARGET6 : LAB_TARGET, &dst);
            pkt_udp(&quoted, v6 ? LAB_CLIENT6 : LAB_CLIENT, 1, v6 ? LAB_TARGET6 : LAB_TARGET, 2, data, len);
            p = about(&quoted, &src, &dst);
            assert_true(icmp_send_error(lab->s, &p, REJECT_HOST_UNREACH, 0));
            whole = quoted.len + (v6 ? 48 : 28);
            assert_int_equal(lab->out[0].len, whole < limit ? whole : limit);
            assert_int_equal(ip_lab_out(lab, 0).ttl, 64);
            assert_int_equal(ip_lab_out(lab, 0).tos, 0);
        }
    }
}

static void errors_about_packets_that_are_gone_quote_a_rebuilt_header(void **state)
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        struct flow_key flow = { .client_port = 4000, .target_port = 80, .proto = IP_PROTO_TCP };
        uint8_t l4[20] = { 0x0f, 0xa0, 0, 80, 1, 2, 3, 4 };
        struct pkt_view v, inner;
        const struct pkt_meta none = { 0 };

        ip_parse(v6 ? LAB_CLIENT6 : LAB_CLIENT, &flow.client);
        ip_parse(v6 ? LAB_TARGET6 : LAB_TARGET, &flow.target);
        assert_true(icmp_send_error_for(lab->s, &flow, l4, sizeof(l4), NULL, REJECT_NET_UNREACH, 0));
        v = ip_lab_out(lab, (size_t)v6);
        assert_int_equal(v.len, (v6 ? 40 : 20) + sizeof(l4));
        pkt_parse(v.data, v.len, &none, &inner); /* its L4 checksum is not ours to know */
        assert_true(ip_equal(&inner.src, &flow.client) && ip_equal(&inner.dst, &flow.target));
        assert_memory_equal(v.data + (v6 ? 40 : 20), l4, sizeof(l4));
    }
}

int main(void)
{
#define T(f)   cmocka_unit_test_setup_teardown(f, ip_lab_setup, ip_lab_teardown)
#define TWO(f) cmocka_unit_test_setup_teardown(f, setup_two, ip_lab_teardown)
    const struct CMUnitTest tests[] = {
        TWO(quotes_are_read_with_bounds),
        TWO(only_errors_about_packets_from_their_destination_count),
        TWO(odd_quotes_are_ignored),
        cmocka_unit_test(every_type_and_code_is_survived_and_never_answered),
        T(errors_are_never_sent_about_errors),
        cmocka_unit_test(too_big_carries_the_mtu_and_spends_no_token),
        cmocka_unit_test(every_error_of_ours_spends_the_bucket),
        T(quotes_are_cut_at_576_and_1280),
        T(errors_about_packets_that_are_gone_quote_a_rebuilt_header),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
