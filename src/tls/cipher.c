/* cipher.c - the few ciphers that a sniffer needs, by mbedTLS: what opens QUIC's Initial packets (RFC 9001 section 5). */
#include <stdio.h>
#include <string.h>
#include <mbedtls/base64.h>
#include <mbedtls/aes.h>
#include <mbedtls/gcm.h>
#include <mbedtls/hkdf.h>
#include <mbedtls/md.h>

#include <errno.h>

#include "culvert/tls.h"

int tls_hkdf_extract(const void *salt, size_t salt_len, const void *secret, size_t len,
                     uint8_t out[TLS_HKDF_BYTES])
{
    const mbedtls_md_info_t *sha256 = mbedtls_md_info_from_type(MBEDTLS_MD_SHA256);

    return mbedtls_hkdf_extract(sha256, salt, salt_len, secret, len, out) == 0 ? 0 : -EINVAL;
}

int tls_hkdf_expand(const uint8_t secret[TLS_HKDF_BYTES], const void *info, size_t info_len, void *out,
                    size_t len)
{
    const mbedtls_md_info_t *sha256 = mbedtls_md_info_from_type(MBEDTLS_MD_SHA256);

    return mbedtls_hkdf_expand(sha256, secret, TLS_HKDF_BYTES, info, info_len, out, len) == 0 ? 0 : -EINVAL;
}

int tls_aes128_block(const uint8_t key[16], const uint8_t in[16], uint8_t out[16])
{
    mbedtls_aes_context aes;
    int r;

    mbedtls_aes_init(&aes);
    r = mbedtls_aes_setkey_enc(&aes, key, 128);
    if (r == 0)
        r = mbedtls_aes_crypt_ecb(&aes, MBEDTLS_AES_ENCRYPT, in, out);
    mbedtls_aes_free(&aes);
    return r == 0 ? 0 : -EINVAL;
}

int tls_aes128_gcm_open(const uint8_t key[16], const uint8_t nonce[12], struct span header,
                        struct span sealed, uint8_t *out)
{
    mbedtls_gcm_context gcm;
    size_t len;
    int r;

    if (sealed.len < TLS_GCM_TAG_BYTES)
        return -EBADMSG;
    len = sealed.len - TLS_GCM_TAG_BYTES;
    mbedtls_gcm_init(&gcm);
    r = mbedtls_gcm_setkey(&gcm, MBEDTLS_CIPHER_ID_AES, key, 128);
    if (r == 0)
        r = mbedtls_gcm_auth_decrypt(&gcm, len, nonce, 12, header.data, header.len, sealed.data + len,
                                     TLS_GCM_TAG_BYTES, sealed.data, out);
    mbedtls_gcm_free(&gcm);
    return r == 0 ? 0 : r == MBEDTLS_ERR_GCM_AUTH_FAILED ? -EBADMSG : -ENOMEM;
}

int tls_websocket_accept(const char *key, char out[TLS_WEBSOCKET_ACCEPT_BYTES])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const mbedtls_md_info_t *sha1 = mbedtls_md_info_from_type(MBEDTLS_MD_SHA1);
    char text[64 + sizeof(guid)];
    uint8_t digest[20];
    size_t len;

    if (sha1 == NULL || strlen(key) > 64)
        return -EINVAL;
    snprintf(text, sizeof(text), "%s%s", key, guid);
    if (mbedtls_md(sha1, (const uint8_t *)text, strlen(text), digest) != 0)
        return -EINVAL;
    return mbedtls_base64_encode((uint8_t *)out, TLS_WEBSOCKET_ACCEPT_BYTES, &len, digest, sizeof(digest)) ==
                   0
               ? 0
               : -EINVAL;
}
