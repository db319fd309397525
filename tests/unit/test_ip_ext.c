/* test_ip_ext.c - IPv6 extension headers: faults.md P9 to P11, tcp-stack.md IP-4. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "ip_lab.h"

static struct pkt pkt;

enum { HBH = 0, ROUTING = 43, FRAGMENT = 44, NONE = 59, DEST = 60 };

/* What one packet did. */
struct seen {
    bool delivered;
    const char *counted; /* "", "ip.ext_header" or "ip.proto" */
    int problem;         /* code of the Parameter Problem that was sent, -1: none */
    uint32_t pointer;
};

static struct seen run(struct ip_lab *lab)
{
    uint64_t ext = ip_lab_count(lab, "ip.ext_header"), proto = ip_lab_count(lab, "ip.proto");
    struct seen s = { .counted = "", .problem = -1 };

    ip_lab_clear(lab);
    lab->on_request = LAB_ACCEPT;
    ip_lab_input(lab, &pkt);
    s.delivered = lab->gots == 1;
    if (ip_lab_count(lab, "ip.ext_header") == ext + 1)
        s.counted = "ip.ext_header";
    if (ip_lab_count(lab, "ip.proto") == proto + 1)
        s.counted = "ip.proto";
    if (lab->outs > 0) {
        struct pkt_view v = ip_lab_out(lab, 0);

        assert_int_equal(lab->outs, 1);
        assert_int_equal(v.type, 4);
        s.problem = v.code;
        s.pointer = v.word;
        assert_memory_equal(v.data, pkt.data, v.len); /* quotes from the first byte */
    }
    return s;
}

static void start(const char *dst)
{
    pkt_udp(&pkt, LAB_CLIENT6, 4000, dst, 53, "question", 8);
}

/* A chain of @n destination option headers of 8 bytes; each holds a PadN of 4. */
static void chain_of(uint8_t *chain, size_t n)
{
    memset(chain, 0, n * 8);
    for (uint8_t *h = chain; h < chain + n * 8; h += 8) {
        h[0] = DEST;
        h[2] = 1;
        h[3] = 4;
    }
}

static void eight_headers_are_walked_and_a_ninth_is_not(void **state) /* faults.md P9 */
{
    struct ip_lab *lab = *state;
    uint8_t chain[72];
    struct seen s;

    for (size_t n = 1; n <= 9; n++) {
        start(LAB_TARGET6);
        chain_of(chain, n);
        pkt_insert_ext(&pkt, DEST, chain, n * 8, (n - 1) * 8);
        s = run(lab);
        assert_int_equal(s.delivered, n <= 8);
        assert_string_equal(s.counted, n <= 8 ? "" : "ip.ext_header");
    }
}

/* A fragment header that cuts nothing is passed over (RFC 6946), and counts like any other. */
static void an_atomic_fragment_begins_no_new_count(void **state) /* tcp-stack.md IP-4 */
{
    struct ip_lab *lab = *state;
    uint8_t chain[72], *atomic = chain + 32;

    for (size_t n = 8; n <= 9; n++) {
        start(LAB_TARGET6);
        chain_of(chain, n);
        atomic[-8] = FRAGMENT; /* the fifth header */
        memset(atomic + 1, 0, 7);
        pkt_insert_ext(&pkt, DEST, chain, n * 8, (n - 1) * 8);
        assert_int_equal(run(lab).delivered, n == 8);
    }
}

/* One header of @len bytes, filled with Pad1. */
static struct seen run_pads(struct ip_lab *lab, uint8_t first, size_t len)
{
    uint8_t header[2048] = { 0 };

    header[1] = (uint8_t)(len / 8 - 1);
    start(LAB_TARGET6);
    pkt_insert_ext(&pkt, first, header, len, 0);
    return run(lab);
}

static void more_than_512_bytes_of_headers_are_dropped(void **state) /* faults.md P9: 1280 bytes of Pad1 */
{
    struct ip_lab *lab = *state;

    assert_true(run_pads(lab, HBH, 512).delivered);
    assert_string_equal(run_pads(lab, HBH, 520).counted, "ip.ext_header");
    assert_string_equal(run_pads(lab, DEST, 1280).counted, "ip.ext_header");
    assert_string_equal(run_pads(lab, DEST, 2048).counted, "ip.ext_header");
}

static void hop_by_hop_stands_first_or_nowhere(void **state) /* faults.md P9 */
{
    static const uint8_t chain[16] = { HBH, 0, 1, 4, 0, 0, 0, 0, 0, 0, 1, 4 };
    struct ip_lab *lab = *state;
    struct seen s;

    start(LAB_TARGET6);
    pkt_insert_ext(&pkt, HBH, chain + 8, 8, 0);
    assert_true(run(lab).delivered);
    start(LAB_TARGET6);
    pkt_insert_ext(&pkt, DEST, chain, 16, 8);
    s = run(lab);
    assert_false(s.delivered);
    assert_string_equal(s.counted, "ip.ext_header");
    assert_int_equal(s.problem, 1);
    assert_int_equal(s.pointer, 40); /* the byte that names it */
}

static void a_second_fragment_header_is_dropped(void **state) /* faults.md P9: 2 x fragment */
{
    static const uint8_t chain[16] = { FRAGMENT, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2 };
    struct ip_lab *lab = *state;
    struct seen s;

    start(LAB_TARGET6);
    pkt_insert_ext(&pkt, FRAGMENT, chain, 16, 8);
    s = run(lab);
    assert_false(s.delivered);
    assert_string_equal(s.counted, "ip.ext_header");
}

static void routing_headers(void **state) /* faults.md P9; RFC 5095, RFC 8200 section 4.4 */
{
    static const struct {
        const char *what;
        uint8_t type, left;
        bool passes;
    } rows[] = {
        { "type 0, used up", 0, 0, false },  { "type 0, one left", 0, 1, false },
        { "type 2, used up", 2, 0, true },   { "type 4, used up", 4, 0, true },
        { "type 4, one left", 4, 1, false }, { "type 253, one left", 253, 1, false },
    };
    struct ip_lab *lab = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint8_t header[8] = { 0, 0, rows[i].type, rows[i].left };
        struct seen s;

        start(LAB_TARGET6);
        pkt_insert_ext(&pkt, ROUTING, header, 8, 0);
        s = run(lab);
        if (s.delivered != rows[i].passes || (!rows[i].passes && (s.problem != 0 || s.pointer != 42)))
            fail_msg("routing header %s: delivered %d, problem %d at %u", rows[i].what, s.delivered,
                     s.problem, s.pointer);
    }
}

static void headers_beyond_the_packet_are_dropped(void **state) /* faults.md P9: length beyond packet */
{
    static const uint8_t firsts[] = { HBH, ROUTING, DEST };
    struct ip_lab *lab = *state;

    for (size_t i = 0; i < ARRAY_LEN(firsts); i++) {
        for (unsigned units = 0; units < 256; units++) {
            uint8_t header[8] = { 0, (uint8_t)units, 4, 0 };

            start(LAB_TARGET6);
            pkt_insert_ext(&pkt, firsts[i], header, 8, 0);
            pkt.len = 40 + 8;
            pkt_fix_ip(&pkt);
            assert_false(run(lab).delivered);
        }
        for (size_t len = 1; len < 8; len++) {
            uint8_t header[8] = { 0, 0, 1, 4 };

            start(LAB_TARGET6);
            pkt_insert_ext(&pkt, firsts[i], header, 8, 0);
            pkt.len = 40 + len;
            pkt_fix_ip(&pkt);
            assert_string_equal(run(lab).counted, "ip.ext_header");
        }
    }
    start(LAB_TARGET6);
    pkt.data[6] = FRAGMENT;
    pkt.len = 40 + 7;
    pkt_fix_ip(&pkt);
    assert_string_equal(run(lab).counted, "ip.ext_header");
}

static void unknown_options_do_what_their_type_asks_for(void **state) /* RFC 8200 section 4.2 */
{
    static const struct {
        uint8_t type;
        const char *dst;
        bool passes;
        int problem;
    } rows[] = {
        { 0x01, LAB_TARGET6, true, -1 },  /* PadN */
        { 0x05, LAB_TARGET6, true, -1 },  /* router alert */
        { 0x1e, LAB_TARGET6, true, -1 },  /* 00: skip */
        { 0x5e, LAB_TARGET6, false, -1 }, /* 01: drop */
        { 0x9e, LAB_TARGET6, false, 2 },  /* 10: drop and tell */
        { 0xde, LAB_TARGET6, false, 2 },  /* 11: tell unless multicast */
        { 0xc9, LAB_TARGET6, false, 2 },  /* home address: 11 */
        { 0x5e, "ff02::1", false, -1 },   { 0x9e, "ff02::1", false, 2 }, { 0xde, "ff02::1", false, -1 },
    };
    struct ip_lab *lab = *state;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint8_t header[8] = { 0, 0, rows[i].type, 4, 0, 0, 0, 0 };
        struct seen s;

        start(rows[i].dst);
        pkt_insert_ext(&pkt, DEST, header, 8, 0);
        s = run(lab);
        if (s.delivered != rows[i].passes || s.problem != rows[i].problem ||
            (s.problem == 2 && s.pointer != 42))
            fail_msg("option %#x to %s: delivered %d, problem %d at %u", rows[i].type, rows[i].dst,
                     s.delivered, s.problem, s.pointer);
    }
}

static void options_that_run_past_their_header_are_dropped(void **state)
{
    struct ip_lab *lab = *state;

    for (unsigned len = 5; len < 256; len += 50) {
        uint8_t header[8] = { 0, 0, 1, (uint8_t)len };

        start(LAB_TARGET6);
        pkt_insert_ext(&pkt, DEST, header, 8, 0);
        assert_string_equal(run(lab).counted, "ip.ext_header");
    }
    for (unsigned at = 2; at < 8; at++) { /* Pad1s, then an option without a length */
        uint8_t header[8] = { 0 };
        struct seen s;

        header[7] = 1;
        start(LAB_TARGET6);
        pkt_insert_ext(&pkt, DEST, header, 8, 0);
        s = run(lab);
        assert_string_equal(s.counted, "ip.ext_header");
        assert_int_equal(s.problem, 0);
    }
}

static void jumbograms_are_dropped(void **state) /* faults.md P10 */
{
    static const uint8_t jumbo[8] = { 0, 0, 0xc2, 4, 0, 1, 0, 0 };
    struct ip_lab *lab = *state;

    start(LAB_TARGET6);
    pkt_insert_ext(&pkt, HBH, jumbo, 8, 0);
    assert_string_equal(run(lab).counted, "ip.ext_header");
    put_be16(pkt.data + 4, 0);
    assert_false(run(lab).delivered);
    start(LAB_TARGET6);
    put_be16(pkt.data + 4, 0);
    assert_false(run(lab).delivered);
    assert_int_equal(ip_lab_count(lab, "ip.malformed"), 2);
}

static void unknown_protocols_point_at_their_number(void **state) /* faults.md P11; icmp.md UF8 */
{
    static const uint8_t protos[] = { 1, 2, 47, 50, 51, 132, 255 };
    static const uint8_t header[8] = { 0, 0, 1, 4 }, atomic[8] = { 0, 0, 0, 0, 0, 0, 0, 9 };
    struct ip_lab *lab = *state;

    for (size_t i = 0; i < ARRAY_LEN(protos); i++) {
        struct seen s;

        pkt_raw(&pkt, LAB_CLIENT6, LAB_TARGET6, protos[i], "12345678", 8);
        s = run(lab);
        assert_string_equal(s.counted, "ip.proto");
        assert_int_equal(s.problem, 1);
        assert_int_equal(s.pointer, 6);
        pkt_insert_ext(&pkt, DEST, header, 8, 0);
        s = run(lab);
        assert_int_equal(s.problem, 1);
        assert_int_equal(s.pointer, 40);
        pkt_raw(&pkt, LAB_CLIENT6, LAB_TARGET6, protos[i], "12345678", 8);
        pkt_insert_ext(&pkt, FRAGMENT, atomic, 8, 0); /* RFC 6946: as if it were not there, but it is */
        s = run(lab);
        assert_int_equal(s.problem, 1);
        assert_int_equal(s.pointer, 40);
    }
    pkt_raw(&pkt, LAB_CLIENT6, LAB_TARGET6, NONE, "12345678", 8);
    assert_int_equal(run(lab).problem, -1);
    pkt_raw(&pkt, LAB_CLIENT6, "ff02::1", 132, "12345678", 8);
    assert_int_equal(run(lab).problem, -1);
}

/* One piece of a datagram of IPv6; @options: destination options stand between the fragment header and UDP. */
static const struct piece_row {
    const char *what;
    size_t offset, len;
    bool more, options;
    int code; /* of the parameter problem; -1: none */
    uint32_t pointer;
} pieces[] = {
    { "a first one of 9 bytes", 0, 9, true, false, 0, 4 },
    { "a later one of 9 bytes", 800, 9, true, false, 0, 4 },
    { "a last one of 9 bytes", 800, 9, false, false, -1, 0 },
    { "the end beyond 65,535", 65528, 16, true, false, 0, 42 },
    { "the end just beyond 65,535", 65528, 8, false, false, 0, 42 },
    { "the end at 65,535", 65528, 7, false, false, -1, 0 },
    { "options without what follows", 0, 8, true, true, 3, 0 },
    { "half of the options", 0, 16, true, true, 3, 0 },
    { "options without UDP's header", 0, 24, true, true, 3, 0 },
    { "options and UDP's header", 0, 32, true, true, -1, 0 },
};

static bool piece_row_holds(struct ip_lab *lab, const struct piece_row *r, uint32_t id)
{
    static const uint8_t options[24] = { IP_PROTO_UDP, 2, 1, 20 }, data[1000];
    static struct pkt whole, piece;
    struct pkt_view v = { 0 };
    bool ok;

    pkt_udp(&whole, LAB_CLIENT6, 4000, LAB_TARGET6, 53, data, sizeof(data));
    if (r->options)
        pkt_insert_ext(&whole, 60, options, sizeof(options), 0);
    whole.l4 = 40;
    pkt_fragment(&whole, r->offset < 65528 ? r->offset : 0, r->len, r->more, id, &piece);
    put_be16(piece.data + 42, (uint16_t)(r->offset | r->more));
    ip_lab_clear(lab);
    ip_lab_input(lab, &piece);
    if (lab->outs > 0)
        v = ip_lab_out(lab, 0);
    ok = r->code < 0 ? lab->outs == 0
                     : lab->outs == 1 && v.type == 4 && v.code == r->code && v.word == r->pointer &&
                           v.len == piece.len && memcmp(v.data, piece.data, v.len) == 0;
    if (!ok)
        print_error("%s: %zu answers, type %u code %u pointer %u\n", r->what, lab->outs, v.type, v.code,
                    v.word);
    return ok;
}

static void what_is_wrong_with_a_piece_is_told(
    void **state) /* RFC 8200 section 4.5, RFC 7112 section 5; tcp-stack.md IP-5 */
{
    int wrong = 0;

    for (size_t i = 0; i < ARRAY_LEN(pieces); i++)
        wrong += !piece_row_holds(*state, &pieces[i], (uint32_t)(500 + i));
    assert_int_equal(wrong, 0);
}

static void parameter_problems_are_limited(void **state) /* faults.md P9: rate-limited */
{
    struct ip_lab *lab = *state;

    for (int i = 0; i < 200; i++) {
        pkt_raw(&pkt, LAB_CLIENT6, LAB_TARGET6, 132, "12345678", 8);
        ip_lab_input(lab, &pkt);
    }
    assert_int_equal(lab->outs, lab->cfg.icmp_errors_burst);
    assert_int_equal(ip_lab_count(lab, "icmp.tx.rate_limited"), 200 - lab->cfg.icmp_errors_burst);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, ip_lab_setup, ip_lab_teardown)
    const struct CMUnitTest tests[] = {
        T(eight_headers_are_walked_and_a_ninth_is_not),
        T(an_atomic_fragment_begins_no_new_count),
        T(more_than_512_bytes_of_headers_are_dropped),
        T(hop_by_hop_stands_first_or_nowhere),
        T(a_second_fragment_header_is_dropped),
        T(routing_headers),
        T(headers_beyond_the_packet_are_dropped),
        T(unknown_options_do_what_their_type_asks_for),
        T(options_that_run_past_their_header_are_dropped),
        T(jumbograms_are_dropped),
        T(unknown_protocols_point_at_their_number),
        T(what_is_wrong_with_a_piece_is_told),
        T(parameter_problems_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
