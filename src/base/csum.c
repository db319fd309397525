/* csum.c - the internet checksum (RFC 1071), eight bytes at a time.
 *
 * One's complement addition does not care about the width of its words nor, up to a swap at the end, about byte order: so
 * 32-bit words are added in memory order into 64-bit sums, which cannot overflow below 2^32 words, and are folded later. */
#include "culvert/base.h"

#include <string.h>

static uint32_t fold_to_32(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    return (uint32_t)(sum + (sum >> 32));
}

uint32_t csum_add(uint32_t sum, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t total = sum, a = 0, b = 0;

    /* Two independent sums of both halves of 64-bit words: loads need no alignment, and compilers make vectors of it. */
    for (; len >= 16; p += 16, len -= 16) {
        uint64_t w[2];

        memcpy(w, p, sizeof(w));
        a += (w[0] & 0xffffffff) + (w[0] >> 32);
        b += (w[1] & 0xffffffff) + (w[1] >> 32);
    }
    for (; len >= 4; p += 4, len -= 4) {
        uint32_t w;

        memcpy(&w, p, sizeof(w));
        total += w;
    }
    if (len > 0) { /* the rest as if zeros followed, the odd byte in the place where memory has it */
        uint32_t w = 0;

        memcpy(&w, p, len);
        total += w;
    }
    return fold_to_32(total + a + b);
}

uint16_t csum_fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)(sum + (sum >> 16));
}

uint32_t csum_pseudo(const struct ip_addr *src, const struct ip_addr *dst, uint8_t proto, uint32_t l4_len)
{
    uint8_t tail[8] = { [7] = proto }; /* RFC 8200 section 8.1; IPv4's has the same sum */
    size_t skip = ip_is4(dst) ? 12 : 0;
    uint32_t sum;

    put_be32(tail, l4_len);
    sum = csum_add(0, tail, sizeof(tail));
    sum = csum_add(sum, src->b + skip, 16 - skip);
    return csum_add(sum, dst->b + skip, 16 - skip);
}
