/* sniff_quic.c - the name in QUIC's first datagrams.
 *
 * Initial packets are sealed with keys that follow from the connection id which the client has chosen (RFC 9001 section 5.2), so
 * whoever sees the datagrams can open them. Their CRYPTO frames may come in any order, as some browsers send them on purpose, and
 * a ClientHello with a post-quantum key share fills more than one datagram. The first packet that opens says which connection
 * this is: packets of another one, from the same port, are passed over. */
#include <assert.h>
#include <string.h>

#include "culvert/tls.h"
#include "sniff.h"

#define LONG_HEADER  0x80
#define FIXED_BIT    0x40
#define SAMPLE_BYTES 16
#define DATAGRAM_MAX 2048 /* an Initial is padded to 1200 and rarely more than a path's MTU */
enum { FRAME_PADDING = 0, FRAME_PING = 1, FRAME_ACK = 2, FRAME_ACK_ECN = 3, FRAME_CRYPTO = 6 };

struct version {
    uint32_t number;
    uint8_t initial_type, early_type; /* of the header's two bits: Initial, and 0-RTT */
    const char *key, *iv, *hp;
    uint8_t salt[20];
};
static const struct version versions[] = {
    { 1,
      0,
      1,
      "quic key",
      "quic iv",
      "quic hp", /* RFC 9001 section 5.2 */
      { 0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17,
        0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a } },
    { 0x6b3343cf,
      1,
      2,
      "quicv2 key",
      "quicv2 iv",
      "quicv2 hp", /* RFC 9369 section 3.3 */
      { 0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93,
        0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9 } },
};

static_assert(QUIC_CID_MAX >= 20, "RFC 9000 section 17.2");

static bool read_varint(struct span *in, uint64_t *out) /* RFC 9000 section 16 */
{
    size_t len;
    uint64_t v;

    if (in->len < 1)
        return false;
    len = (size_t)1 << (in->data[0] >> 6);
    if (in->len < len)
        return false;
    v = in->data[0] & 0x3f;
    for (size_t i = 1; i < len; i++)
        v = v << 8 | in->data[i];
    span_skip(in, len);
    *out = v;
    return true;
}

/* ---- keys ---- */

static int expand_label(const uint8_t secret[TLS_HKDF_BYTES], const char *label, uint8_t *out, size_t len)
{
    uint8_t info[64];
    struct buf b;

    buf_init(&b, info, sizeof(info)); /* RFC 8446 section 7.1 */
    buf_u16(&b, (uint16_t)len);
    buf_u8(&b, (uint8_t)(6 + strlen(label)));
    buf_put(&b, "tls13 ", 6);
    buf_put(&b, label, strlen(label));
    buf_u8(&b, 0);
    return tls_hkdf_expand(secret, info, b.len, out, len);
}

static bool derive(const struct version *v, const uint8_t *cid, size_t cid_len, struct quic_hello *out)
{
    uint8_t initial[TLS_HKDF_BYTES], client[TLS_HKDF_BYTES];

    return tls_hkdf_extract(v->salt, sizeof(v->salt), cid, cid_len, initial) == 0 &&
           expand_label(initial, "client in", client, sizeof(client)) == 0 &&
           expand_label(client, v->key, out->key, sizeof(out->key)) == 0 &&
           expand_label(client, v->iv, out->iv, sizeof(out->iv)) == 0 &&
           expand_label(client, v->hp, out->hp, sizeof(out->hp)) == 0;
}

/* ---- frames ---- */

static bool skip_ack(struct span *in, bool ecn) /* RFC 9000 section 19.3 */
{
    uint64_t ranges, v;

    if (!read_varint(in, &v) || !read_varint(in, &v) || !read_varint(in, &ranges) || !read_varint(in, &v))
        return false;
    for (uint64_t i = 0; i < ranges; i++) {
        if (!read_varint(in, &v) || !read_varint(in, &v))
            return false;
    }
    return !ecn || (read_varint(in, &v) && read_varint(in, &v) && read_varint(in, &v));
}

/* What lies behind the bound is left out, so a longer hello tells its name if that stands in the first part. */
static void take_crypto(struct quic_hello *q, uint64_t at, const uint8_t *data, uint64_t len)
{
    if (at >= QUIC_HELLO_MAX)
        return;
    if (len > QUIC_HELLO_MAX - at)
        len = QUIC_HELLO_MAX - at;
    memcpy(q->bytes + at, data, len);
    for (size_t i = (size_t)at; i < at + len; i++)
        q->have[i / 8] |= (uint8_t)(1u << i % 8);
    while (q->whole < QUIC_HELLO_MAX && (q->have[q->whole / 8] & 1u << q->whole % 8) != 0)
        q->whole++;
}

static void take_frames(struct quic_hello *q, struct span in)
{
    while (in.len > 0) {
        uint8_t type = in.data[0];
        uint64_t at, len;

        span_skip(&in, 1);
        if (type == FRAME_PADDING || type == FRAME_PING)
            continue;
        if (type == FRAME_ACK || type == FRAME_ACK_ECN) {
            if (!skip_ack(&in, type == FRAME_ACK_ECN))
                return;
            continue;
        }
        if (type != FRAME_CRYPTO || !read_varint(&in, &at) || !read_varint(&in, &len) || in.len < len)
            return; /* nothing else that matters stands in an Initial packet */
        take_crypto(q, at, in.data, len);
        span_skip(&in, len);
    }
}

/* ---- packets ---- */

struct initial {
    const struct version *version;
    const uint8_t *cid;
    size_t cid_len;
    size_t number_at, end; /* of the packet number; of the packet */
    bool early; /* 0-RTT: nothing to read, but an Initial packet of its connection comes with or after it */
};

/* RFC 9000 section 17.2.2 and 17.2.3. Return: false: no packet that a client begins with, in a version that we know. */
static bool read_header(struct span packet, struct initial *out)
{
    struct span in = packet;
    uint8_t first, type, cid_len;
    const uint8_t *skipped;
    uint32_t version;
    uint64_t len;

    *out = (struct initial){ .version = NULL };
    if (!span_u8(&in, &first) || (first & (LONG_HEADER | FIXED_BIT)) != (LONG_HEADER | FIXED_BIT) ||
        !span_u32(&in, &version))
        return false;
    type = first >> 4 & 3;
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        if (versions[i].number == version &&
            (versions[i].initial_type == type || versions[i].early_type == type)) {
            out->version = &versions[i];
            out->early = versions[i].early_type == type;
        }
    }
    if (out->version == NULL || !span_u8(&in, &cid_len) || cid_len > QUIC_CID_MAX ||
        !span_bytes(&in, cid_len, &out->cid))
        return false;
    out->cid_len = cid_len;
    if (!span_u8(&in, &cid_len) || cid_len > QUIC_CID_MAX || !span_bytes(&in, cid_len, &skipped))
        return false;
    if (!out->early) {
        if (!read_varint(&in, &len) || in.len < len)
            return false;
        span_skip(&in, len); /* the token */
    }
    if (!read_varint(&in, &len) || in.len < len || len < 4 + SAMPLE_BYTES)
        return false;
    out->number_at = (size_t)(in.data - packet.data);
    out->end = out->number_at + len;
    return true;
}

/* The keys of this packet's connection are in @q, or could be: false if @q has those of another one. */
static bool have_keys(struct quic_hello *q, const struct initial *h)
{
    if (q->version == h->version->number)
        return q->cid_len == h->cid_len && memcmp(q->cid, h->cid, h->cid_len) == 0;
    return q->version == 0 && derive(h->version, h->cid, h->cid_len, q);
}

/* Takes the protection off (RFC 9001 section 5.4) and opens the packet. */
static bool open_packet(struct span packet, const struct initial *h, struct quic_hello *q)
{
    uint8_t copy[DATAGRAM_MAX], plain[DATAGRAM_MAX], mask[16], nonce[12];
    struct span header, sealed;
    size_t number_len;

    if (h->end > sizeof(copy) || !have_keys(q, h) ||
        tls_aes128_block(q->hp, packet.data + h->number_at + 4, mask) != 0)
        return false;
    memcpy(copy, packet.data, h->end);
    copy[0] ^= mask[0] & 0x0f;
    number_len = (copy[0] & 3) + 1u;
    memcpy(nonce, q->iv, sizeof(nonce));
    for (size_t i = 0; i < number_len; i++) {
        copy[h->number_at + i] ^= mask[1 + i];
        nonce[sizeof(nonce) - number_len + i] ^= copy[h->number_at + i];
    }
    header = (struct span){ copy, h->number_at + number_len };
    sealed = (struct span){ copy + header.len, h->end - header.len };
    if (tls_aes128_gcm_open(q->key, nonce, header, sealed, plain) != 0)
        return false;
    q->version = h->version->number;
    q->cid_len = (uint8_t)h->cid_len;
    memcpy(q->cid, h->cid, h->cid_len);
    take_frames(q, (struct span){ plain, sealed.len - TLS_GCM_TAG_BYTES });
    return true;
}

enum sniffed quic_hello_add(struct quic_hello *q, struct span datagram, char name[256])
{
    struct initial h;
    enum sniffed found;

    if (datagram.len > DATAGRAM_MAX)
        datagram.len = DATAGRAM_MAX;
    while (datagram.len > 0 && read_header(datagram, &h)) { /* several may share a datagram (section 12.2) */
        if (!h.early && !open_packet(datagram, &h, q))
            break;
        q->begun = true;
        span_skip(&datagram, h.end);
    }
    found = q->begun ? sniff_hello((struct span){ q->bytes, q->whole }, name) : SNIFF_NONE;
    return found == SNIFF_MORE && q->whole == QUIC_HELLO_MAX ? SNIFF_NONE : found;
}
