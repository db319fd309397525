/* test_ip_input.c - what the IP layer takes and what it throws away: faults.md section 1, tcp-stack.md 2 and 3. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "ip_lab.h"

static struct pkt pkt; /* the packet of the running test */

/* The counter that rose by one between two looks, among the reasons of the IP layer; "" for none. */
static const char *const reasons[] = { "ip.short",      "ip.version",     "ip.malformed", "ip.checksum",
                                       "ip.bad_src",    "ip.bad_dst",     "ip.options",   "ip.proto",
                                       "ip.ext_header", "udp.length",     "udp.checksum", "tcp.checksum",
                                       "tcp.malformed", "icmp.rx.invalid" };

struct look {
    uint64_t count[ARRAY_LEN(reasons)];
};

static struct look look(struct ip_lab *lab)
{
    struct look l;

    for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
        l.count[i] = ip_lab_count(lab, reasons[i]);
    return l;
}

static const char *reason_since(struct ip_lab *lab, const struct look *before)
{
    const char *found = "";

    for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
        uint64_t more = ip_lab_count(lab, reasons[i]) - before->count[i];

        if (more > 1 || (more == 1 && found[0] != '\0'))
            return "counted twice";
        if (more == 1)
            found = reasons[i];
    }
    return found;
}

static const char *reason_of(struct ip_lab *lab, const void *data, size_t len, const struct pkt_meta *meta)
{
    struct look before = look(lab);

    ip_lab_bytes(lab, data, len, meta);
    stack_batch_end(lab->s, lab->now_us);
    return reason_since(lab, &before);
}

static const char *reason_of_pkt(struct ip_lab *lab, const struct pkt *p)
{
    return reason_of(lab, p->data, p->len, &p->meta);
}

/* A plain UDP datagram of the client, of either family. */
static void plain(bool v6)
{
    pkt_udp(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, 4000, v6 ? LAB_TARGET6 : LAB_TARGET, 53, "question", 8);
}

#define EXPECT(what, actual, expected)                                                                       \
    do {                                                                                                     \
        const char *seen_ = (actual);                                                                        \
        if (strcmp(seen_, (expected)) != 0) {                                                                \
            print_error("%s: counted \"%s\", not \"%s\"\n", what, seen_, expected);                          \
            wrong++;                                                                                         \
        }                                                                                                    \
    } while (0)

static void short_packets_are_dropped(void **state) /* faults.md P1; tcp-stack.md IP-1 */
{
    struct ip_lab *lab = *state;
    int wrong = 0;

    plain(false);
    for (size_t len = 0; len < 20; len++)
        EXPECT("IPv4 cut", reason_of(lab, pkt.data, len, &pkt.meta), "ip.short");
    plain(true);
    for (size_t len = 1; len < 40; len++)
        EXPECT("IPv6 cut", reason_of(lab, pkt.data, len, &pkt.meta), "ip.short");
    assert_int_equal(wrong, 0);
    assert_int_equal(lab->outs, 0);
}

static void other_versions_are_dropped(void **state) /* faults.md P2 */
{
    struct ip_lab *lab = *state;
    int wrong = 0;

    for (unsigned version = 0; version < 16; version++) {
        plain(false);
        pkt.data[0] = (uint8_t)(version << 4 | 5);
        if (version != 4 && version != 6)
            EXPECT("version", reason_of_pkt(lab, &pkt), "ip.version");
    }
    assert_int_equal(wrong, 0);
}

static void lengths_that_lie_are_dropped(void **state) /* faults.md P3; icmp.md V6; tcp-stack.md IP-1 */
{
    struct ip_lab *lab = *state;
    int wrong = 0;

    for (unsigned ihl = 0; ihl < 5; ihl++) {
        plain(false);
        pkt.data[0] = (uint8_t)(0x40 | ihl);
        EXPECT("IHL too small", reason_of_pkt(lab, &pkt), "ip.malformed");
    }
    plain(false);
    pkt.data[0] = 0x4f;
    EXPECT("IHL beyond packet", reason_of_pkt(lab, &pkt), "ip.malformed");
    for (unsigned total = 0; total < 20; total++) {
        plain(false);
        put_be16(pkt.data + 2, (uint16_t)total);
        EXPECT("total < header", reason_of_pkt(lab, &pkt), "ip.malformed");
    }
    plain(false);
    put_be16(pkt.data + 2, (uint16_t)(pkt.len + 1));
    EXPECT("total > held", reason_of_pkt(lab, &pkt), "ip.malformed");
    plain(true);
    put_be16(pkt.data + 4, (uint16_t)(pkt.len - 39));
    EXPECT("IPv6 payload > held", reason_of_pkt(lab, &pkt), "ip.malformed");
    assert_int_equal(wrong, 0);
    assert_int_equal(lab->outs, 0);
}

static void padding_is_cut_and_not_answered(void **state) /* faults.md P4; icmp.md V7 */
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        size_t len;

        pkt_echo(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, v6 ? LAB_GATEWAY6 : LAB_GATEWAY, 7, 1, "0123", 4);
        len = pkt.len;
        memset(pkt.data + pkt.len, 0xee, 60000);
        pkt.len += 60000;
        ip_lab_input(lab, &pkt);
        assert_int_equal(lab->outs, 1);
        assert_int_equal(lab->out[0].len, len);
        assert_int_equal(ip_lab_out(lab, 0).len, 4);
        ip_lab_clear(lab);
    }
}

static void header_checksum_counts_unless_the_device_vouches(
    void **state) /* faults.md P5; tcp-stack.md VN-2 */
{
    struct ip_lab *lab = *state;
    int wrong = 0;

    lab->on_request = LAB_ACCEPT;
    plain(false);
    pkt.data[10] ^= 1;
    EXPECT("no flag", reason_of_pkt(lab, &pkt), "ip.checksum");
    pkt.meta.csum_valid = true;
    EXPECT("DATA_VALID", reason_of_pkt(lab, &pkt), "");
    pkt.meta = (struct pkt_meta){ .needs_csum = true, .csum_start = 20, .csum_offset = 6 };
    EXPECT("NEEDS_CSUM", reason_of_pkt(lab, &pkt), "");
    assert_int_equal(wrong, 0);
    assert_int_equal(lab->gots, 2);
}

/* Flag x good or bad checksum, for each protocol. ICMP is always computed (icmp.md V3 to V5). */
static void l4_checksum_matrix(void **state) /* tcp-stack.md VN-2 */
{
    static const struct {
        const char *what;
        bool needs_csum, csum_valid, good;
        const char *udp, *tcp, *icmp;
    } rows[] = {
        { "no flag, good", false, false, true, "", "", "" },
        { "no flag, bad", false, false, false, "udp.checksum", "tcp.checksum", "icmp.rx.invalid" },
        { "DATA_VALID, good", false, true, true, "", "", "" },
        { "DATA_VALID, bad", false, true, false, "", "", "icmp.rx.invalid" },
        { "NEEDS_CSUM, bad", true, false, false, "", "", "icmp.rx.invalid" },
    };
    struct ip_lab *lab = *state;
    int wrong = 0;

    for (int v6 = 0; v6 < 2; v6++) {
        const char *src = v6 ? LAB_CLIENT6 : LAB_CLIENT, *dst = v6 ? LAB_TARGET6 : LAB_TARGET;

        for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
            for (int proto = 0; proto < 3; proto++) {
                size_t at = proto == 0 ? 6 : proto == 1 ? 16 : 2;
                const char *expected = proto == 0 ? rows[i].udp : proto == 1 ? rows[i].tcp : rows[i].icmp;

                if (proto == 0)
                    pkt_udp(&pkt, src, 1, dst, 2, "x", 1);
                else if (proto == 1)
                    pkt_tcp(&pkt, src, 1, dst, 2, PKT_ACK, 1, 1, "x", 1);
                else
                    pkt_echo(&pkt, src, dst, 1, 1, "x", 1);
                if (!rows[i].good)
                    pkt.data[pkt.l4 + at] ^= 0x55;
                pkt.meta.needs_csum = rows[i].needs_csum;
                pkt.meta.csum_valid = rows[i].csum_valid;
                pkt.meta.csum_start = (uint16_t)pkt.l4;
                pkt.meta.csum_offset = (uint16_t)at;
                EXPECT(rows[i].what, reason_of_pkt(lab, &pkt), expected);
            }
        }
    }
    assert_int_equal(wrong, 0);
}

/* A partial checksum at another place says nothing about this one. */
static void needs_csum_elsewhere_is_no_trust(void **state)
{
    struct ip_lab *lab = *state;
    int wrong = 0;

    plain(false);
    pkt.data[pkt.l4 + 6] ^= 1;
    pkt.meta = (struct pkt_meta){ .needs_csum = true, .csum_start = 24, .csum_offset = 6 };
    EXPECT("csum_start elsewhere", reason_of_pkt(lab, &pkt), "udp.checksum");
    assert_int_equal(wrong, 0);
}

static void impossible_sources_are_dropped_and_never_answered(
    void **state) /* faults.md P6; icmp.md V11, 2.1 */
{
    static const char *const v4[] = { "127.0.0.1",  "127.255.255.255", "0.0.0.0",         "0.1.2.3",
                                      "224.0.0.1",  "239.255.255.255", "255.255.255.255", "240.0.0.1",
                                      "10.0.0.255", "10.0.0.0" };
    static const char *const v6[] = { "::1", "::", "ff02::1", "ff0e::1:2" };
    static const uint8_t mapped[16] = { [10] = 0xff, [11] = 0xff, [12] = 10, [15] = 9 };
    struct ip_lab *lab = *state;
    int wrong = 0;

    lab->cfg.echo_temporary = ECHO_TEMPORARY_REPLY;
    for (size_t i = 0; i < ARRAY_LEN(v4); i++) {
        pkt_echo(&pkt, v4[i], LAB_GATEWAY, 1, 1, "x", 1);
        EXPECT(v4[i], reason_of_pkt(lab, &pkt), "ip.bad_src");
        pkt_udp(&pkt, v4[i], 1000, LAB_TARGET, 53, "x", 1);
        EXPECT(v4[i], reason_of_pkt(lab, &pkt), "ip.bad_src");
        pkt_tcp(&pkt, v4[i], 1000, LAB_TARGET, 80, PKT_SYN, 1, 0, NULL, 0);
        EXPECT(v4[i], reason_of_pkt(lab, &pkt), "ip.bad_src");
    }
    for (size_t i = 0; i < ARRAY_LEN(v6); i++) {
        pkt_echo(&pkt, v6[i], LAB_GATEWAY6, 1, 1, "x", 1);
        EXPECT(v6[i], reason_of_pkt(lab, &pkt), "ip.bad_src");
    }
    pkt_echo(&pkt, LAB_CLIENT6, LAB_GATEWAY6, 1, 1, "x", 1);
    memcpy(pkt.data + 8, mapped, 16);
    EXPECT("mapped source", reason_of_pkt(lab, &pkt), "ip.bad_src");
    assert_int_equal(wrong, 0);
    assert_int_equal(lab->outs, 0);
    assert_int_equal(lab->requests + lab->echoes, 0);
}

static void land_is_dropped(void **state) /* faults.md P6: source = destination address and port */
{
    struct ip_lab *lab = *state;
    int wrong = 0;

    pkt_tcp(&pkt, LAB_TARGET, 80, LAB_TARGET, 80, PKT_SYN, 1, 0, NULL, 0);
    EXPECT("TCP", reason_of_pkt(lab, &pkt), "ip.bad_src");
    pkt_udp(&pkt, LAB_TARGET6, 80, LAB_TARGET6, 80, "x", 1);
    EXPECT("UDP", reason_of_pkt(lab, &pkt), "ip.bad_src");
    pkt_echo(&pkt, LAB_GATEWAY, LAB_GATEWAY, 80, 80, "x", 1);
    EXPECT("echo", reason_of_pkt(lab, &pkt), "ip.bad_src");
    pkt_udp(&pkt, LAB_TARGET6, 80, LAB_TARGET6, 81, "x", 1);
    EXPECT("other port", reason_of_pkt(lab, &pkt), "");
    assert_int_equal(wrong, 0);
    assert_int_equal(lab->outs, 0);
}

static void impossible_destinations_are_dropped(void **state) /* faults.md P7; tcp-stack.md IP-2 */
{
    static const char *const many[] = { "224.0.0.1",  "224.0.0.251", "239.255.255.250", "255.255.255.255",
                                        "10.0.0.255", "10.0.0.0",    "127.0.0.1",       "0.0.0.0",
                                        "240.0.0.1",  "ff02::1",     "ff02::fb",        "::1",
                                        "::" };
    static const uint8_t mapped[16] = { [10] = 0xff, [11] = 0xff, [12] = 10, [15] = 9 };
    struct ip_lab *lab = *state;
    int wrong = 0;

    for (size_t i = 0; i < ARRAY_LEN(many); i++) {
        const char *src = strchr(many[i], ':') != NULL ? LAB_CLIENT6 : LAB_CLIENT;

        pkt_tcp(&pkt, src, 1000, many[i], 80, PKT_SYN, 1, 0, NULL, 0);
        EXPECT(many[i], reason_of_pkt(lab, &pkt), "ip.bad_dst");
        pkt_udp(&pkt, src, 1000, many[i], 80, "x", 1);
        EXPECT(many[i], reason_of_pkt(lab, &pkt), "ip.bad_dst");
    }
    plain(true);
    memcpy(pkt.data + 24, mapped, 16);
    EXPECT("mapped destination", reason_of_pkt(lab, &pkt), "ip.bad_dst");
    assert_int_equal(wrong, 0);
    assert_int_equal(lab->outs, 0);
    assert_int_equal(lab->requests, 0);
}

static void without_promiscuous_only_assigned_addresses_are_ours(void **state) /* icmp.md N1, B6 */
{
    struct ip_lab *lab = ip_lab_new();
    int wrong = 0;

    (void)state;
    lab->cfg.promiscuous = false;
    ip_lab_start(lab);
    plain(false);
    EXPECT("temporary", reason_of_pkt(lab, &pkt), "ip.bad_dst");
    pkt_echo(&pkt, LAB_CLIENT, LAB_GATEWAY, 1, 1, "x", 1);
    EXPECT("assigned", reason_of_pkt(lab, &pkt), "");
    assert_int_equal(lab->outs, 1);
    assert_int_equal(wrong, 0);
    ip_lab_free(lab);
}

static void options_are_walked_with_bounds_and_ignored(void **state) /* faults.md P8; tcp-stack.md IP-3 */
{
    struct ip_lab *lab = *state;
    uint8_t options[40];
    int wrong = 0;

    lab->on_request = LAB_ACCEPT;
    for (unsigned kind = 0; kind < 256; kind++) {
        static const uint8_t lengths[] = { 0, 1, 2, 3, 4, 39, 40, 41, 255 };

        for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
            bool routed = kind == 131 || kind == 137;

            memset(options, 1, sizeof(options));
            options[0] = (uint8_t)kind;
            options[1] = lengths[i];
            plain(false);
            pkt_insert_options(&pkt, options, sizeof(options));
            EXPECT("option", reason_of_pkt(lab, &pkt), routed ? "ip.options" : "");
        }
    }
    memset(options, 1, sizeof(options));
    options[39] = 131; /* the last byte: a source route without a length */
    plain(false);
    pkt_insert_options(&pkt, options, sizeof(options));
    EXPECT("source route at the end", reason_of_pkt(lab, &pkt), "ip.options");
    options[38] = 0; /* behind the end of options nothing counts */
    plain(false);
    pkt_insert_options(&pkt, options, sizeof(options));
    EXPECT("source route behind the end", reason_of_pkt(lab, &pkt), "");
    assert_int_equal(wrong, 0);
    assert_int_equal(lab->outs, 0);
}

static void unknown_protocols_are_counted_and_the_sender_told(void **state) /* faults.md P11; icmp.md UF8 */
{
    static const uint8_t protos[] = { 2, 47, 50, 51, 132, 255, 0, 41, 58 };
    struct ip_lab *lab = *state;
    int wrong = 0;

    for (size_t i = 0; i < ARRAY_LEN(protos); i++) {
        struct pkt_view v;

        pkt_raw(&pkt, LAB_CLIENT, LAB_TARGET, protos[i], "12345678", 8);
        EXPECT("IPv4", reason_of_pkt(lab, &pkt), "ip.proto");
        assert_int_equal(lab->outs, 1);
        v = ip_lab_out(lab, 0);
        assert_int_equal(v.proto, IP_PROTO_ICMP);
        assert_int_equal(v.type << 8 | v.code, 3 << 8 | 2);
        assert_memory_equal(v.data, pkt.data, pkt.len);
        ip_lab_clear(lab);
    }
    assert_int_equal(wrong, 0);
}

static void nothing_is_said_about_unknown_protocols_when_that_is_off(void **state) /* faults.md P11 */
{
    struct ip_lab *lab = ip_lab_new();

    (void)state;
    lab->cfg.proto_unreachable = false;
    ip_lab_start(lab);
    pkt_raw(&pkt, LAB_CLIENT, LAB_TARGET, 132, "12345678", 8);
    ip_lab_input(lab, &pkt);
    pkt_raw(&pkt, LAB_CLIENT6, LAB_TARGET6, 132, "12345678", 8);
    ip_lab_input(lab, &pkt);
    assert_int_equal(ip_lab_count(lab, "ip.proto"), 2);
    assert_int_equal(lab->outs, 0);
    ip_lab_free(lab);
}

static void ttl_does_not_matter_to_an_end_host(void **state) /* faults.md P12; icmp.md V8 */
{
    struct ip_lab *lab = *state;

    lab->on_request = LAB_ACCEPT;
    for (uint8_t ttl = 0; ttl < 2; ttl++) {
        plain(false);
        pkt.data[8] = ttl;
        pkt_fix_ip(&pkt);
        ip_lab_input(lab, &pkt);
        assert_int_equal(lab->gots, ttl + 1);
        assert_int_equal(lab->got[ttl].d.ttl, ttl);
        pkt_echo(&pkt, LAB_CLIENT6, LAB_GATEWAY6, 1, 1, "x", 1);
        pkt.data[7] = ttl;
        ip_lab_input(lab, &pkt);
        assert_int_equal(lab->outs, ttl + 1);
        assert_int_equal(ip_lab_out(lab, ttl).ttl, 64);
    }
}

static void super_segments_of_another_protocol_are_dropped(void **state) /* tcp-stack.md VN-3 */
{
    struct ip_lab *lab = *state;
    int wrong = 0;

    for (int v6 = 0; v6 < 2; v6++) {
        for (uint8_t gso = 0; gso < 5; gso++) {
            bool fits = gso == PKT_GSO_NONE || gso == PKT_GSO_UDP;

            plain(v6);
            pkt.meta = (struct pkt_meta){ .gso = gso, .gso_size = 4, .csum_valid = true };
            EXPECT("UDP", reason_of_pkt(lab, &pkt), fits ? "" : "ip.malformed");
        }
        plain(v6);
        pkt.meta = (struct pkt_meta){ .gso = PKT_GSO_UDP, .gso_size = 0, .csum_valid = true };
        EXPECT("size 0", reason_of_pkt(lab, &pkt), "ip.malformed");
    }
    assert_int_equal(wrong, 0);
}

static uint8_t random_byte(struct prng *r)
{
    return (uint8_t)prng_next(r);
}

static void random_packets_and_bit_flips_add_up(
    void **state) /* faults.md P13, in small; the fuzz target does the rest */
{
    struct ip_lab *lab = *state;
    struct prng r;

    prng_seed(&r, 99);
    lab->on_request = LAB_ACCEPT;
    lab->verdict = ECHO_PASS;
    for (int i = 0; i < 20000; i++) {
        switch (prng_below(&r, 5)) {
        case 0:
            pkt.len = prng_below(&r, 200);
            for (size_t k = 0; k < pkt.len; k++)
                pkt.data[k] = random_byte(&r);
            if (pkt.len > 0)
                pkt.data[0] = (uint8_t)((prng_below(&r, 2) ? 0x40 : 0x60) | (pkt.data[0] & 15));
            pkt.meta = (struct pkt_meta){ .csum_valid = prng_below(&r, 2) != 0 };
            break;
        case 1:
            plain(prng_below(&r, 2));
            break;
        case 2:
            pkt_tcp(&pkt, LAB_CLIENT, random_byte(&r), LAB_TARGET, 80, random_byte(&r), 1, 1, "abc", 3);
            break;
        case 3:
            pkt_echo(&pkt, LAB_CLIENT6, LAB_GATEWAY6, 3, 4, "abc", 3);
            break;
        default:
            pkt_icmp(&pkt, LAB_CLIENT, LAB_TARGET, 3, 1, 0, pkt.data, 28);
            break;
        }
        if (pkt.len > 0)
            pkt.data[prng_below(&r, (uint32_t)pkt.len)] ^= (uint8_t)(1u << prng_below(&r, 8));
        ip_lab_feed(lab, &pkt);
        if (i % 16 == 0) {
            stack_batch_end(lab->s, lab->now_us);
            ip_lab_clear(lab);
        }
        lab->now_us += 100;
    }
    stack_batch_end(lab->s, lab->now_us);
    assert_null(ip_lab_sum_error(lab));
}

static void a_configuration_that_contradicts_itself_is_refused(void **state)
{
    static const struct {
        const char *what;
        size_t offset;
        uint32_t value;
    } rows[] = {
        { "mtu too small", offsetof(struct stack_config, mtu_bytes), 575 },
        { "mtu too large", offsetof(struct stack_config, mtu_bytes), 65536 },
        { "no shard", offsetof(struct stack_config, shards), 0 },
        { "shard out of range", offsetof(struct stack_config, shard), 1 },
        { "one slot", offsetof(struct stack_config, rx_slots), 1 },
    };
    struct ip_lab *lab = *state;
    void *memory = calloc(1, 1 << 16);

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stack_config c = lab->cfg;

        memcpy((char *)&c + rows[i].offset, &rows[i].value, sizeof(rows[i].value));
        if (stack_init(memory, &c, &lab->ev, NULL, 0) != NULL)
            fail_msg("accepted: %s", rows[i].what);
    }
    free(memory);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, ip_lab_setup, ip_lab_teardown)
    const struct CMUnitTest tests[] = {
        T(short_packets_are_dropped),
        T(other_versions_are_dropped),
        T(lengths_that_lie_are_dropped),
        T(padding_is_cut_and_not_answered),
        T(header_checksum_counts_unless_the_device_vouches),
        T(l4_checksum_matrix),
        T(needs_csum_elsewhere_is_no_trust),
        T(impossible_sources_are_dropped_and_never_answered),
        T(land_is_dropped),
        T(impossible_destinations_are_dropped),
        cmocka_unit_test(without_promiscuous_only_assigned_addresses_are_ours),
        T(options_are_walked_with_bounds_and_ignored),
        T(unknown_protocols_are_counted_and_the_sender_told),
        cmocka_unit_test(nothing_is_said_about_unknown_protocols_when_that_is_off),
        T(ttl_does_not_matter_to_an_end_host),
        T(super_segments_of_another_protocol_are_dropped),
        T(random_packets_and_bit_flips_add_up),
        T(a_configuration_that_contradicts_itself_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
