/* fuzz_vnet.c - a virtio-net header and a packet of arbitrary bytes (faults.md V1, tcp-stack.md FUZ-1).
 * Input: 10 bytes of header, then the packet. What is accepted must keep the promises of struct pkt_meta, and what the encoder
 * takes must decode to the same. */
#include <stdint.h>
#include <stdlib.h>

#include "culvert/tun.h"

static void require(bool true_always)
{
    if (!true_always)
        abort();
}

static void check_decoded(const struct pkt_meta *m, size_t len)
{
    require(m->gso <= PKT_GSO_UDP);
    require((m->gso != PKT_GSO_NONE) == (m->gso_size > 0));
    require(!m->needs_csum || (size_t)m->csum_start + m->csum_offset + 2 <= len);
    require(m->gso == PKT_GSO_NONE || m->needs_csum || m->csum_valid);
    require(!m->ecn || m->gso == PKT_GSO_TCP4 || m->gso == PKT_GSO_TCP6);
}

static void check_written(const struct pkt_meta *m, const uint8_t *packet, size_t len)
{
    uint8_t hdr[VNET_HDR_LEN];
    struct pkt_meta back;

    if (vnet_fault(m, len, packet[0] >> 4) != NULL)
        return;
    vnet_encode(m, len, packet[0] >> 4, hdr);
    require(vnet_decode(hdr, packet, len, &back) == 0);
    require(back.gso == m->gso && back.gso_size == m->gso_size && back.needs_csum == m->needs_csum);
    require(back.ecn == m->ecn);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pkt_meta m;

    if (size <= VNET_HDR_LEN)
        return 0;
    if (vnet_decode(data, data + VNET_HDR_LEN, size - VNET_HDR_LEN, &m) == 0) {
        check_decoded(&m, size - VNET_HDR_LEN);
        check_written(&m, data + VNET_HDR_LEN, size - VNET_HDR_LEN);
    }
    return 0;
}
