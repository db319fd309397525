/* test_vnet.c - faces src/tun/vnet.c: what is believed of a header that was read, and what is never written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "culvert/tun.h"

/* A header as the kernel would lay it out. */
struct hdr {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset;
};

static void put_hdr(const struct hdr *h, uint8_t out[VNET_HDR_LEN])
{
    out[0] = h->flags;
    out[1] = h->gso_type;
    memcpy(out + 2, &h->hdr_len, 2);
    memcpy(out + 4, &h->gso_size, 2);
    memcpy(out + 6, &h->csum_start, 2);
    memcpy(out + 8, &h->csum_offset, 2);
}

/* On the heap and exactly as long as said, so that a read past the end is seen. */
static int decode(const struct hdr *h, uint8_t version, size_t len, struct pkt_meta *out)
{
    uint8_t bytes[VNET_HDR_LEN];
    uint8_t *packet = calloc(1, len > 0 ? len : 1);
    int r;

    assert_non_null(packet);
    if (len > 0)
        packet[0] = (uint8_t)(version << 4);
    put_hdr(h, bytes);
    r = vnet_decode(bytes, packet, len, out);
    free(packet);
    return r;
}

enum { CSUM = 1, VALID = 2, TCP4 = 1, UFO = 3, TCP6 = 4, USO = 5, ECN = 0x80 };

static void reading_believes_lengths_and_drops_contradictions(void **state) /* faults.md V1, VN-2, VN-3 */
{
    static const struct {
        const char *when;
        struct hdr h;
        uint8_t version;
        size_t len;
        int r;
    } rows[] = {
        { "nothing set", { 0 }, 4, 40, 0 },
        { "verified below", { .flags = VALID }, 6, 60, 0 },
        { "TCP checksum left to us", { CSUM, 0, 40, 0, 20, 16 }, 4, 40, 0 },
        { "UDP checksum left to us", { CSUM, 0, 28, 0, 20, 6 }, 4, 28, 0 },
        { "checksum field ends with the packet", { CSUM, 0, 0, 0, 20, 18 }, 4, 40, 0 },
        { "checksum field one byte past the end", { CSUM, 0, 0, 0, 20, 19 }, 4, 40, -EPROTO },
        { "checksum start past the end", { CSUM, 0, 0, 0, 41, 0 }, 4, 40, -EPROTO },
        { "checksum start and offset 0xffff", { CSUM, 0, 0, 0, 0xffff, 0xffff }, 4, 65535, -EPROTO },
        { "checksum start in the IPv4 header", { CSUM, 0, 0, 0, 19, 16 }, 4, 60, -EPROTO },
        { "checksum start in the IPv6 header", { CSUM, 0, 0, 0, 39, 16 }, 6, 80, -EPROTO },
        { "checksum numbers without the flag are not looked at", { 0, 0, 0, 0, 0xffff, 0xffff }, 4, 40, 0 },
        { "hdr_len 0 is a hint", { CSUM, TCP4, 0, 100, 20, 16 }, 4, 240, 0 },
        { "hdr_len 65535 is a hint", { CSUM, TCP4, 65535, 100, 20, 16 }, 4, 240, 0 },
        { "TCP over IPv6", { CSUM, TCP6, 60, 100, 40, 16 }, 6, 260, 0 },
        { "TCP with ECN", { CSUM, TCP4 | ECN, 40, 100, 20, 16 }, 4, 240, 0 },
        { "USO over IPv4", { CSUM, USO, 28, 100, 20, 6 }, 4, 228, 0 },
        { "USO over IPv6", { CSUM, USO, 48, 100, 40, 6 }, 6, 248, 0 },
        { "super-segment vouched for", { VALID, TCP4, 40, 100, 0, 0 }, 4, 240, 0 },
        { "super-segment of one segment", { CSUM, TCP4, 40, 1400, 20, 16 }, 4, 240, 0 },
        { "65,495 segments of one byte", { CSUM, TCP4, 40, 1, 20, 16 }, 4, 65535, 0 },
        { "super-segment with no checksum at all", { 0, TCP4, 40, 100, 20, 16 }, 4, 240, -EPROTO },
        { "gso_size 0", { CSUM, TCP4, 40, 0, 20, 16 }, 4, 240, -EPROTO },
        { "TCPv4 in an IPv6 packet", { CSUM, TCP4, 60, 100, 40, 16 }, 6, 260, -EPROTO },
        { "TCPv6 in an IPv4 packet", { CSUM, TCP6, 40, 100, 20, 16 }, 4, 240, -EPROTO },
        { "USO in a packet of neither family", { CSUM, USO, 28, 100, 40, 6 }, 5, 228, -EPROTO },
        { "UFO", { CSUM, UFO, 28, 100, 20, 6 }, 4, 228, -EPROTO },
        { "unknown type 2", { CSUM, 2, 40, 100, 20, 16 }, 4, 240, -EPROTO },
        { "unknown type 7", { CSUM, 7, 40, 100, 20, 16 }, 4, 240, -EPROTO },
        { "unknown type 0x7f", { CSUM, 0x7f, 40, 100, 20, 16 }, 4, 240, -EPROTO },
        { "ECN on a single packet", { CSUM, ECN, 40, 0, 20, 16 }, 4, 240, -EPROTO },
        { "ECN on USO", { CSUM, USO | ECN, 28, 100, 20, 6 }, 4, 228, -EPROTO },
        { "TCP segment with UDP's checksum field", { CSUM, TCP4, 40, 100, 20, 6 }, 4, 240, -EPROTO },
        { "UDP segment with TCP's checksum field", { CSUM, USO, 28, 100, 20, 16 }, 4, 228, -EPROTO },
        { "TCP header cut", { CSUM, TCP4, 40, 100, 20, 16 }, 4, 39, -EPROTO },
        { "TCP header cut behind options", { CSUM, TCP4, 40, 100, 60, 16 }, 4, 79, -EPROTO },
        { "UDP header cut", { CSUM, USO, 28, 100, 20, 6 }, 4, 27, -EPROTO },
        { "empty packet", { 0 }, 4, 0, -EPROTO },
        { "longer than IP can say", { 0 }, 6, 65576, -EPROTO },
        { "unknown flags are ignored", { 0xfc, 0, 0, 0, 0, 0 }, 4, 40, 0 },
        { "an unknown version is the stack's to count", { 0 }, 15, 40, 0 },
    };
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct pkt_meta m;
        int r = decode(&rows[i].h, rows[i].version, rows[i].len, &m);

        if (r == rows[i].r)
            continue;
        print_error("%s: %d, not %d\n", rows[i].when, r, rows[i].r);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* Every flag byte with every type byte, over both families: what is accepted keeps the promises of struct pkt_meta. */
static void all_flags_and_types_decode_to_consistent_metadata_or_not_at_all(void **state) /* faults.md V1 */
{
    unsigned accepted = 0;

    (void)state;
    for (unsigned n = 0; n < 256u * 256u * 2u; n++) {
        uint8_t version = (n >> 16) != 0 ? 6 : 4;
        uint16_t l4 = version == 4 ? 20 : 40, offset = (n & 0x80) != 0 ? 6 : 16;
        struct hdr h = { (uint8_t)n, (uint8_t)(n >> 8), 0, (uint16_t)(n % 3 * 500), l4, offset };
        struct pkt_meta m;

        if (decode(&h, version, 1000, &m) != 0)
            continue;
        accepted++;
        assert_true(m.gso <= PKT_GSO_UDP);
        assert_int_equal(m.needs_csum, h.flags & 1);
        assert_int_equal(m.gso_size > 0, m.gso != PKT_GSO_NONE);
        assert_false(m.gso == PKT_GSO_TCP4 && version != 4);
        assert_false(m.gso == PKT_GSO_TCP6 && version != 6);
        assert_false(m.ecn && m.gso != PKT_GSO_TCP4 && m.gso != PKT_GSO_TCP6);
        assert_true(!m.needs_csum || m.csum_start + m.csum_offset + 2 <= 1000);
    }
    assert_true(accepted > 500);
}

/* ---- writing ---- */

#define TCP4_SUPER(size)                                                                                     \
    {                                                                                                        \
        PKT_GSO_TCP4, true, false, false, size, 40, 20, 16                                                   \
    }
#define TCP6_SUPER(size)                                                                                     \
    {                                                                                                        \
        PKT_GSO_TCP6, true, false, false, size, 60, 40, 16                                                   \
    }
#define UDP4_SUPER(size)                                                                                     \
    {                                                                                                        \
        PKT_GSO_UDP, true, false, false, size, 28, 20, 6                                                     \
    }

static void writing_refuses_what_the_kernel_would_refuse_or_take_by_mistake(
    void **state) /* faults.md V2, VN-4 to VN-6 */
{
    static const struct {
        const char *when;
        struct pkt_meta m;
        size_t len;
        uint8_t version;
        bool fine;
    } rows[] = {
        { "complete packet", { 0 }, 40, 4, true },
        { "complete packet of the largest size", { 0 }, 65535, 6, true },
        { "checksum left to the kernel",
          { .needs_csum = true, .csum_start = 20, .csum_offset = 16 },
          40,
          4,
          true },
        { "UDP over IPv6", { .needs_csum = true, .csum_start = 40, .csum_offset = 6 }, 48, 6, true },
        { "checksum past the end",
          { .needs_csum = true, .csum_start = 20, .csum_offset = 19 },
          40,
          4,
          false },
        { "checksum at 0xffff + 0xffff",
          { .needs_csum = true, .csum_start = 0xffff, .csum_offset = 0xffff },
          65535,
          4,
          false },
        { "checksum in the IP header",
          { .needs_csum = true, .csum_start = 10, .csum_offset = 0 },
          40,
          4,
          false },
        { "bad version 0", { 0 }, 40, 0, false },
        { "bad version 5", { 0 }, 40, 5, false },
        { "bad version 15", { 0 }, 40, 15, false },
        { "short IPv4 packet", { 0 }, 19, 4, false },
        { "short IPv6 packet", { 0 }, 39, 6, false },
        { "65,536 bytes", { 0 }, 65536, 4, false },
        { "65,536 bytes of IPv6", { 0 }, 65536, 6, false },
        { "TCP super-segment", TCP4_SUPER(1460), 40 + 2920, 4, true },
        { "largest TCP super-segment", TCP4_SUPER(1460), 40 + 44 * 1460, 4, true },
        { "TCP super-segment, IPv6", TCP6_SUPER(1440), 60 + 2880, 6, true },
        { "TCP super-segment, wrong family", TCP4_SUPER(1440), 60 + 2880, 6, false },
        { "TCP super-segment, other wrong family", TCP6_SUPER(1440), 60 + 2880, 4, false },
        { "unknown kind 4", { 4, true, false, false, 100, 40, 20, 16 }, 240, 4, false },
        { "unknown kind 7", { 7, true, false, false, 100, 40, 20, 16 }, 240, 4, false },
        { "gso_size 0", TCP4_SUPER(0), 240, 4, false },
        { "gso_size 8", TCP4_SUPER(8), 240, 4, false },
        { "payload below gso_size", TCP4_SUPER(1460), 40 + 1459, 4, false },
        { "payload of exactly gso_size", TCP4_SUPER(1460), 40 + 1460, 4, false },
        { "payload of gso_size and one byte", TCP4_SUPER(1460), 40 + 1461, 4, true },
        { "super-segment without NEEDS_CSUM",
          { PKT_GSO_TCP4, false, false, false, 1460, 40, 20, 16 },
          4000,
          4,
          false },
        { "USO without NEEDS_CSUM", { PKT_GSO_UDP, false, false, false, 100, 28, 20, 6 }, 228, 4, false },
        { "hdr_len beyond the packet",
          { PKT_GSO_TCP4, true, false, false, 100, 241, 20, 16 },
          240,
          4,
          false },
        { "hdr_len that leaves the TCP header out",
          { PKT_GSO_TCP4, true, false, false, 100, 20, 20, 16 },
          240,
          4,
          false },
        { "hdr_len 0", { PKT_GSO_TCP4, true, false, false, 100, 0, 20, 16 }, 240, 4, false },
        { "TCP with UDP's checksum field",
          { PKT_GSO_TCP4, true, false, false, 100, 40, 20, 6 },
          240,
          4,
          false },
        { "USO of 128 segments", UDP4_SUPER(100), 28 + 12800, 4, true },
        { "USO of 129 segments", UDP4_SUPER(100), 28 + 12801, 4, false },
        { "USO of one segment", UDP4_SUPER(100), 28 + 100, 4, true },
        { "USO of no segment", UDP4_SUPER(100), 28, 4, false },
        { "USO with ECN", { PKT_GSO_UDP, true, false, true, 100, 28, 20, 6 }, 228, 4, false },
        { "USO with a lying hdr_len", { PKT_GSO_UDP, true, false, false, 100, 40, 20, 6 }, 228, 4, false },
        { "USO larger than any datagram", UDP4_SUPER(65508), 65535, 4, false },
    };
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *why = vnet_fault(&rows[i].m, rows[i].len, rows[i].version);

        if ((why == NULL) == rows[i].fine)
            continue;
        print_error("%s: %s\n", rows[i].when, why != NULL ? why : "accepted");
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void assert_same_meta(const struct pkt_meta *a, const struct pkt_meta *b)
{
    assert_int_equal(a->gso, b->gso);
    assert_int_equal(a->needs_csum, b->needs_csum);
    assert_int_equal(a->ecn, b->ecn);
    assert_int_equal(a->gso_size, b->gso_size);
    assert_int_equal(a->hdr_len, b->hdr_len);
    assert_int_equal(a->csum_start, b->csum_start);
    assert_int_equal(a->csum_offset, b->csum_offset);
}

static void what_is_encoded_decodes_to_the_same(void **state)
{
    const struct {
        struct pkt_meta m;
        size_t len;
        uint8_t version;
    } rows[] = {
        { { 0 }, 40, 4 },
        { { .needs_csum = true, .csum_start = 20, .csum_offset = 16 }, 40, 4 },
        { TCP4_SUPER(1460), 2960, 4 },
        { TCP6_SUPER(1440), 2940, 6 },
        { { PKT_GSO_TCP4, true, false, true, 1460, 52, 20, 16 }, 2972, 4 },
        { UDP4_SUPER(1200), 28 + 3 * 1200, 4 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint8_t hdr[VNET_HDR_LEN], packet[4096] = { (uint8_t)(rows[i].version << 4) };
        struct pkt_meta back;

        vnet_encode(&rows[i].m, rows[i].len, rows[i].version, hdr);
        assert_int_equal(vnet_decode(hdr, packet, rows[i].len, &back), 0);
        assert_same_meta(&back, &rows[i].m);
    }
}

static void encoding_a_single_packet_leaves_no_segment_size_behind(void **state)
{
    static const uint8_t none[VNET_HDR_LEN];
    const struct pkt_meta m = { .gso_size = 1460, .hdr_len = 40, .csum_start = 20, .csum_offset = 16 };
    uint8_t hdr[VNET_HDR_LEN];

    (void)state;
    vnet_encode(&m, 40, 4, hdr);
    assert_memory_equal(hdr, none, sizeof(hdr));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading_believes_lengths_and_drops_contradictions),
        cmocka_unit_test(all_flags_and_types_decode_to_consistent_metadata_or_not_at_all),
        cmocka_unit_test(writing_refuses_what_the_kernel_would_refuse_or_take_by_mistake),
        cmocka_unit_test(what_is_encoded_decodes_to_the_same),
        cmocka_unit_test(encoding_a_single_packet_leaves_no_segment_size_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
