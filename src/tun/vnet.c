/* vnet.c - the virtio-net header in front of each packet (virtio 1.2 section 5.1.6; linux/virtio_net.h), as pure functions.
 *
 *     0 flags   1 gso type   2-3 hdr_len   4-5 gso_size   6-7 csum_start   8-9 csum_offset        host byte order
 *
 * Reading trusts lengths and never hdr_len. Writing is stricter than Linux, which was seen to take a super-segment without
 * NEEDS_CSUM, a lying hdr_len, and gso_size 8 or larger than the payload (Linux 6.18): such packets go wrong later. */
#include "culvert/tun.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

enum { /* not all of these are in the kernel headers of Debian 12 */
       F_NEEDS_CSUM = 1,
       F_DATA_VALID = 2,
       GSO_NONE = 0,
       GSO_TCPV4 = 1,
       GSO_TCPV6 = 4,
       GSO_UDP_L4 = 5,
       GSO_ECN = 0x80
};

enum {
    IP4_HEADER = 20, /* bytes, without options */
    IP6_HEADER = 40,
    TCP_HEADER = 20,
    UDP_HEADER = 8,
    TCP_CSUM_OFFSET = 16,
    UDP_CSUM_OFFSET = 6,
    IP_TOTAL_MAX = 65535,
    TCP_GSO_MIN = 48,       /* the smallest MSS we clamp to, 88, less 40 bytes of options (MSS-2) */
    USO_SEGMENTS_MAX = 128, /* Linux: UDP_MAX_SEGMENTS (VN-6) */
    UDP_GSO_MAX = IP_TOTAL_MAX - IP4_HEADER - UDP_HEADER
};

static uint16_t get16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static void put16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, sizeof(v));
}

static size_t ip_header_min(uint8_t version)
{
    return version == 4 ? IP4_HEADER : IP6_HEADER;
}

/* Which kind of super-segment the type byte means for a packet of this version; false: none that we asked for. */
static bool gso_kind(uint8_t type, uint8_t version, enum pkt_gso *out)
{
    switch (type & ~GSO_ECN) {
    case GSO_NONE:
        *out = PKT_GSO_NONE;
        return type == GSO_NONE; /* ECN is a property of TCP super-segments */
    case GSO_TCPV4:
        *out = PKT_GSO_TCP4;
        return version == 4;
    case GSO_TCPV6:
        *out = PKT_GSO_TCP6;
        return version == 6;
    case GSO_UDP_L4:
        *out = PKT_GSO_UDP;
        return type == GSO_UDP_L4 && (version == 4 || version == 6);
    }
    return false; /* UFO (3) among them: it is never asked for */
}

/* The checksum field must lie in the packet, behind an IP header. */
static bool csum_fits(const struct pkt_meta *m, size_t len, uint8_t version)
{
    return m->csum_start >= ip_header_min(version) && (size_t)m->csum_start + m->csum_offset + 2 <= len;
}

/* A super-segment has a whole IP and L4 header, a segment size, and a checksum that is either left to us or vouched for.
 * Linux cuts a packet in software before it reaches a device without either (netif_needs_gso), so we never see one. */
static bool gso_fits(const struct pkt_meta *m, size_t len, uint8_t version)
{
    bool udp = m->gso == PKT_GSO_UDP;
    size_t headers = ip_header_min(version) + (udp ? UDP_HEADER : TCP_HEADER);

    if (m->gso_size == 0 || len < headers || (!m->needs_csum && !m->csum_valid))
        return false;
    if (!m->needs_csum)
        return true;
    return m->csum_offset == (udp ? UDP_CSUM_OFFSET : TCP_CSUM_OFFSET) &&
           (size_t)m->csum_start + (udp ? UDP_HEADER : TCP_HEADER) <= len;
}

int vnet_decode(const uint8_t hdr[VNET_HDR_LEN], const uint8_t *packet, size_t len, struct pkt_meta *out)
{
    struct pkt_meta m = { 0 };
    enum pkt_gso gso;
    uint8_t version;

    if (len == 0 || len > IP_TOTAL_MAX + IP6_HEADER)
        return -EPROTO;
    version = packet[0] >> 4;
    if (!gso_kind(hdr[1], version, &gso))
        return -EPROTO;
    m.gso = (uint8_t)gso;
    m.needs_csum = (hdr[0] & F_NEEDS_CSUM) != 0; /* unknown flags are ignored, as virtio asks */
    m.csum_valid = (hdr[0] & F_DATA_VALID) != 0;
    m.hdr_len = get16(hdr + 2);
    if (m.needs_csum) {
        m.csum_start = get16(hdr + 6);
        m.csum_offset = get16(hdr + 8);
        if (!csum_fits(&m, len, version))
            return -EPROTO;
    }
    if (gso != PKT_GSO_NONE) {
        m.ecn = (hdr[1] & GSO_ECN) != 0;
        m.gso_size = get16(hdr + 4);
        if (!gso_fits(&m, len, version))
            return -EPROTO;
    }
    *out = m;
    return 0;
}

/* ---- writing ---- */

static const char *tcp_gso_fault(const struct pkt_meta *m, size_t payload, uint8_t version)
{
    if (version != (m->gso == PKT_GSO_TCP4 ? 4 : 6))
        return "a TCP super-segment of the other family";
    if (m->csum_offset != TCP_CSUM_OFFSET || m->hdr_len < m->csum_start + TCP_HEADER)
        return "a TCP super-segment whose header lengths do not fit TCP";
    if (m->gso_size < TCP_GSO_MIN)
        return "a TCP segment size below any MSS of ours";
    if (payload <= m->gso_size)
        return "a TCP super-segment of one segment";
    return NULL;
}

static const char *udp_gso_fault(const struct pkt_meta *m, size_t payload)
{
    if (m->csum_offset != UDP_CSUM_OFFSET || m->hdr_len != m->csum_start + UDP_HEADER)
        return "a UDP super-segment whose header lengths do not fit UDP";
    if (m->ecn)
        return "the ECN flag on a UDP super-segment";
    if (m->gso_size > UDP_GSO_MAX)
        return "a UDP segment size above any datagram";
    if (payload == 0 || (payload + m->gso_size - 1) / m->gso_size > USO_SEGMENTS_MAX)
        return "a UDP super-segment of 0 or more than 128 segments";
    return NULL;
}

static const char *gso_fault(const struct pkt_meta *m, size_t len, uint8_t version)
{
    if (!m->needs_csum)
        return "a super-segment without NEEDS_CSUM";
    if (m->gso_size == 0)
        return "a super-segment without a segment size";
    if (m->hdr_len > len)
        return "headers longer than the packet";
    return m->gso == PKT_GSO_UDP ? udp_gso_fault(m, len - m->hdr_len)
                                 : tcp_gso_fault(m, len - m->hdr_len, version);
}

const char *vnet_fault(const struct pkt_meta *meta, size_t packet_len, uint8_t version)
{
    if (version != 4 && version != 6)
        return "neither IPv4 nor IPv6";
    if (packet_len < ip_header_min(version))
        return "shorter than an IP header";
    if (packet_len > IP_TOTAL_MAX) /* IPv6 could say 40 bytes more, but Linux refuses them */
        return "longer than 65,535 bytes";
    if (meta->needs_csum && !csum_fits(meta, packet_len, version))
        return "a checksum field outside the packet";
    if (meta->gso > PKT_GSO_UDP)
        return "an unknown kind of super-segment";
    return meta->gso != PKT_GSO_NONE ? gso_fault(meta, packet_len, version) : NULL;
}

void vnet_encode(const struct pkt_meta *meta, size_t packet_len, uint8_t version, uint8_t hdr[VNET_HDR_LEN])
{
    static const uint8_t types[] = { [PKT_GSO_NONE] = GSO_NONE,
                                     [PKT_GSO_TCP4] = GSO_TCPV4,
                                     [PKT_GSO_TCP6] = GSO_TCPV6,
                                     [PKT_GSO_UDP] = GSO_UDP_L4 };

    assert(vnet_fault(meta, packet_len, version) == NULL);
    (void)packet_len;
    (void)version;
    memset(hdr, 0, VNET_HDR_LEN);
    if (meta->needs_csum) { /* Linux ignores DATA_VALID when it is written */
        hdr[0] = F_NEEDS_CSUM;
        put16(hdr + 6, meta->csum_start);
        put16(hdr + 8, meta->csum_offset);
    }
    if (meta->gso != PKT_GSO_NONE) {
        hdr[1] = (uint8_t)(types[meta->gso] | (meta->ecn ? GSO_ECN : 0));
        put16(hdr + 2, meta->hdr_len);
        put16(hdr + 4, meta->gso_size);
    }
}
