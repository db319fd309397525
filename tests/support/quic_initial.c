/* quic_initial.c - see quic_initial.h. Keys are derived here by themselves, not by what is under test. */
#include "quic_initial.h"

#include <mbedtls/aes.h>
#include <mbedtls/gcm.h>
#include <mbedtls/hkdf.h>
#include <mbedtls/md.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CID = 8, NUMBER_AT = 1 + 4 + 1 + CID + 1 + 1 + 2, NUMBER = 4, TAG = 16 };

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void extension(struct buf *b, uint16_t type, const void *data, size_t len)
{
    buf_u16(b, type);
    buf_u16(b, (uint16_t)len);
    buf_put(b, data, len);
}

static void server_name(struct buf *b, const char *name)
{
    uint8_t ext[300];
    struct buf e;

    buf_init(&e, ext, sizeof(ext));
    buf_u16(&e, (uint16_t)(strlen(name) + 3));
    buf_u8(&e, 0);
    buf_u16(&e, (uint16_t)strlen(name));
    buf_put(&e, name, strlen(name));
    extension(b, 0, ext, e.len);
}

size_t quic_client_hello(uint8_t *out, size_t cap, const char *name, size_t share, bool name_last)
{
    static const uint8_t suites[] = { 0, 6, 0x13, 1, 0x13, 2, 0x13, 3 }, versions[] = { 2, 3, 4 };
    uint8_t ext[9000], zeros[8000] = { 0 };
    struct buf b, e;

    buf_init(&e, ext, sizeof(ext));
    if (!name_last)
        server_name(&e, name);
    extension(&e, 43, versions, sizeof(versions));
    extension(&e, 51, zeros, share);
    if (name_last)
        server_name(&e, name);
    buf_init(&b, out, cap);
    buf_u8(&b, 1);
    buf_u8(&b, 0);
    buf_u16(&b, (uint16_t)(2 + 32 + 1 + sizeof(suites) + 2 + 2 + e.len));
    buf_u16(&b, 0x0303);
    buf_put(&b, zeros, 32);
    buf_u8(&b, 0);
    buf_put(&b, suites, sizeof(suites));
    buf_u16(&b, 0x0100); /* no compression */
    buf_u16(&b, (uint16_t)e.len);
    buf_put(&b, ext, e.len);
    must(b.len < b.cap);
    return b.len;
}

static void label(const uint8_t secret[32], const char *text, uint8_t *out, size_t len)
{
    uint8_t info[64];
    int n = snprintf((char *)info + 3, sizeof(info) - 3, "tls13 %s", text); /* RFC 8446 section 7.1 */

    info[0] = 0;
    info[1] = (uint8_t)len;
    info[2] = (uint8_t)n;
    must(mbedtls_hkdf_expand(mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), secret, 32, info, (size_t)n + 4,
                             out, len) == 0);
}

static void client_secret(bool v2, const char *cid, uint8_t out[32])
{
    static const uint8_t salt1[] = { 0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17,
                                     0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a };
    static const uint8_t salt2[] = { 0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93,
                                     0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9 };
    uint8_t initial[32];

    must(mbedtls_hkdf_extract(mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), v2 ? salt2 : salt1, 20,
                              (const uint8_t *)cid, CID, initial) == 0);
    label(initial, "client in", out, 32);
}

/* RFC 9001 sections 5.3 and 5.4: seal @payload behind the header, then mask the header. */
static void protect(uint8_t *packet, const uint8_t *payload, size_t len, bool v2, const char *cid)
{
    uint8_t secret[32], key[16], iv[12], hp[16], mask[16], *sealed = packet + NUMBER_AT + NUMBER;
    mbedtls_gcm_context gcm;
    mbedtls_aes_context aes;

    client_secret(v2, cid, secret);
    label(secret, v2 ? "quicv2 key" : "quic key", key, sizeof(key));
    label(secret, v2 ? "quicv2 iv" : "quic iv", iv, sizeof(iv));
    label(secret, v2 ? "quicv2 hp" : "quic hp", hp, sizeof(hp));
    for (size_t i = 0; i < NUMBER; i++)
        iv[sizeof(iv) - NUMBER + i] ^= packet[NUMBER_AT + i];
    mbedtls_gcm_init(&gcm);
    must(mbedtls_gcm_setkey(&gcm, MBEDTLS_CIPHER_ID_AES, key, 128) == 0);
    must(mbedtls_gcm_crypt_and_tag(&gcm, MBEDTLS_GCM_ENCRYPT, len, iv, sizeof(iv), packet, NUMBER_AT + NUMBER,
                                   payload, sealed, TAG, sealed + len) == 0);
    mbedtls_gcm_free(&gcm);
    mbedtls_aes_init(&aes);
    must(mbedtls_aes_setkey_enc(&aes, hp, 128) == 0 &&
         mbedtls_aes_crypt_ecb(&aes, MBEDTLS_AES_ENCRYPT, packet + NUMBER_AT + 4, mask) == 0);
    mbedtls_aes_free(&aes);
    packet[0] ^= mask[0] & 0x0f;
    for (size_t i = 0; i < NUMBER; i++)
        packet[NUMBER_AT + i] ^= mask[1 + i];
}

void quic_seal(uint8_t out[QUIC_DATAGRAM], uint32_t version, const char *cid, uint32_t number,
               const void *frames, size_t len)
{
    uint8_t payload[QUIC_PAYLOAD] = { 0 }; /* PADDING behind the frames */
    bool v2 = version != 1;
    struct buf b;

    must(len <= sizeof(payload));
    memcpy(payload, frames, len);
    buf_init(&b, out, QUIC_DATAGRAM);
    buf_u8(&b, v2 ? 0xd3 : 0xc3);
    buf_u32(&b, version);
    buf_u8(&b, CID);
    buf_put(&b, cid, CID);
    buf_u16(&b, 0); /* no source connection id, no token */
    buf_u16(&b, 0x4000 | (uint16_t)(QUIC_DATAGRAM - NUMBER_AT));
    buf_u32(&b, number);
    must(b.len == NUMBER_AT + NUMBER && QUIC_PAYLOAD == QUIC_DATAGRAM - NUMBER_AT - NUMBER - TAG);
    protect(out, payload, sizeof(payload), v2, cid);
}

void quic_initial(uint8_t out[QUIC_DATAGRAM], uint32_t version, const char *cid, uint32_t number,
                  const uint8_t *hello, const struct quic_cut *cuts, size_t n)
{
    uint8_t frames[QUIC_PAYLOAD + 1];
    struct buf b;

    buf_init(&b, frames, sizeof(frames));
    for (size_t i = 0; i < n; i++) {
        buf_u8(&b, 6); /* RFC 9000 section 19.6 */
        buf_u32(&b, 0x80000000 | cuts[i].at);
        buf_u16(&b, (uint16_t)(0x4000 | cuts[i].len));
        buf_put(&b, hello + cuts[i].at, cuts[i].len);
    }
    quic_seal(out, version, cid, number, frames, b.len);
}
