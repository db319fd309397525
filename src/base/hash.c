/* hash.c - SipHash (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012).
 *
 * Tables that strangers fill with keys of their choice need a keyed hash, or they become lists. SipHash-2-4 is the
 * published function; tables of flows use one compression round and three final ones, which is enough where an attacker
 * never sees the hash, and half the cost. */
#include "culvert/base.h"

#include <string.h>

#define FLOW_BYTES 37 /* of struct flow_key, without its padding */

_Static_assert(sizeof(struct flow_key) == 40, "flow_key has no padding of the compiler's");
_Static_assert(offsetof(struct flow_key, pad) == FLOW_BYTES, "the bytes that are hashed come first");

struct sip {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotl(uint64_t x, unsigned n)
{
    return x << n | x >> (64 - n);
}

static inline void sip_rounds(struct sip *s, int rounds)
{
    while (rounds-- > 0) {
        s->v0 += s->v1;
        s->v2 += s->v3;
        s->v1 = rotl(s->v1, 13) ^ s->v0;
        s->v3 = rotl(s->v3, 16) ^ s->v2;
        s->v0 = rotl(s->v0, 32);
        s->v2 += s->v1;
        s->v0 += s->v3;
        s->v1 = rotl(s->v1, 17) ^ s->v2;
        s->v3 = rotl(s->v3, 21) ^ s->v0;
        s->v2 = rotl(s->v2, 32);
    }
}

static inline uint64_t read_le64(const uint8_t *p, size_t len)
{
    uint64_t v = 0;

    for (size_t i = 0; i < len; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static inline void sip_word(struct sip *s, uint64_t m, int rounds)
{
    s->v3 ^= m;
    sip_rounds(s, rounds);
    s->v0 ^= m;
}

/* Inlined into its two callers, so that the round counts are constants there. */
static inline uint64_t sip_hash(const struct hash_key *key, const uint8_t *p, size_t len, int c, int d)
{
    struct sip s = {
        .v0 = key->k0 ^ 0x736f6d6570736575, /* "somepseudorandomlygeneratedbytes", section 2.1 */
        .v1 = key->k1 ^ 0x646f72616e646f6d,
        .v2 = key->k0 ^ 0x6c7967656e657261,
        .v3 = key->k1 ^ 0x7465646279746573,
    };
    size_t rest = len % 8;

    for (size_t i = 0; i + 8 <= len; i += 8)
        sip_word(&s, read_le64(p + i, 8), c);
    sip_word(&s, (uint64_t)(len & 0xff) << 56 | (rest > 0 ? read_le64(p + len - rest, rest) : 0), c);
    s.v2 ^= 0xff;
    sip_rounds(&s, d);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

uint64_t hash_bytes(const struct hash_key *key, const void *data, size_t len)
{
    return sip_hash(key, data, len, 2, 4);
}

uint64_t hash_flow(const struct hash_key *key, const struct flow_key *flow)
{
    return sip_hash(key, (const uint8_t *)flow, FLOW_BYTES, 1, 3);
}
