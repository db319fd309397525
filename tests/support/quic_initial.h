/* quic_initial.h - what a QUIC client sends first, for tests: a ClientHello, cut into Initial packets as a test likes (RFC 9001). */
#ifndef CULVERT_TEST_QUIC_INITIAL_H
#define CULVERT_TEST_QUIC_INITIAL_H

#include "culvert/base.h"

#define QUIC_DATAGRAM 1200 /* what an Initial is padded to (RFC 9000 section 14.1) */
#define QUIC_PAYLOAD  1162 /* room for frames in it, beside the header and the tag */

/** quic_client_hello() - as browsers say it, with a key share of @share bytes (1216 for X25519MLKEM768), before or after the name
 * Return: its length. */
size_t quic_client_hello(uint8_t *out, size_t cap, const char *name, size_t share, bool name_last);

struct quic_cut { /* one CRYPTO frame: these bytes of the hello */
    uint32_t at, len;
};
/** quic_initial() - one datagram with one Initial packet that holds these frames, padded
 * @version: 1 or 0x6b3343cf; @cid: eight bytes */
void quic_initial(uint8_t out[QUIC_DATAGRAM], uint32_t version, const char *cid, uint32_t number,
                  const uint8_t *hello, const struct quic_cut *cuts, size_t n);

/** quic_seal() - the same with any @len <= QUIC_PAYLOAD bytes of frames */
void quic_seal(uint8_t out[QUIC_DATAGRAM], uint32_t version, const char *cid, uint32_t number,
               const void *frames, size_t len);

#endif
