/* steer.c - which shard a packet belongs to: a keyed hash that the device can compute, too (tcp-stack.md STR-4).
 *
 * How it works. What identifies a flow is cut into words of 32 bits, and each is multiplied by a secret factor of 64 bits of its
 * own; the upper half of the sum is the hash. For any two different flows and a random key it is as likely as by chance that they
 * meet (Dietzfelbinger 1996, Carter and Wegman's linear family), so nobody who does not know the key can aim at one shard. One
 * more multiplication spreads what comes in equal steps, such as a client's ports. That is a quarter of SipHash's work
 * and a dozen instructions in the kernel. Words are taken as they lie in the packet, in this machine's order: values mean nothing elsewhere.
 *
 * src/tun/tun_steer.c says the same in the kernel's instructions, and test_tun_steer.c compares the two. */
#include "culvert/base.h"

#include <string.h>

enum { V4_HEADER = 20, V4_PARTS = 0x3fff, V4_OFFSET = 0x1fff };
enum { V6_HEADER = 40, V6_PARTS = 0xfff9, V6_OFFSET = 0xfff8, FRAGMENT_HEADER = 8 };
enum { HOP_BY_HOP = 0, ROUTING = 43, FRAGMENT = 44, DEST_OPTIONS = 60 };
enum { PORTS = 4, ICMP_HEADER = 8, NO_PORTS = 0 };

/* Where a flow's two ends stand in a packet. */
struct ends {
    const uint8_t *client, *target; /* len bytes each */
    const uint8_t *client_port, *target_port;
    size_t len;
};

void steer_init(struct steer *out, const struct hash_key *key)
{
    uint64_t *factor = (uint64_t *)out;

    for (uint64_t i = 0; i < sizeof(*out) / sizeof(*factor); i++)
        factor[i] = hash_bytes(key, &i, sizeof(i));
}

/* ---- the hash ---------------------------------------------------------------------------------------------------- */

static uint64_t address(const uint64_t factor[4], const uint8_t *be, size_t len)
{
    uint64_t sum = 0;
    uint32_t word;

    for (size_t at = 0; at < len; at += sizeof(word)) {
        memcpy(&word, be + at, sizeof(word));
        sum += factor[(16 - len + at) / sizeof(word)] * word; /* IPv4 is the last word of its mapped form */
    }
    return sum;
}

static uint64_t port(uint64_t factor, const uint8_t *be)
{
    uint16_t word;

    memcpy(&word, be, sizeof(word));
    return factor * word;
}

/* The device keeps 16 bits. */
static uint16_t spread(uint64_t sum)
{
    uint32_t h = (uint32_t)(sum >> 32);

    h ^= h >> 16;
    h *= STEER_SPREAD;
    return (uint16_t)(h >> 16);
}

static uint16_t value_of(const struct steer *k, const struct ends *e, uint8_t proto)
{
    uint64_t sum = k->start + address(k->client, e->client, e->len);

    if (proto == IP_PROTO_UDP)
        return spread(sum + port(k->client_port, e->client_port));
    sum += address(k->target, e->target, e->len);
    if (proto == IP_PROTO_TCP)
        sum += port(k->client_port, e->client_port) + port(k->target_port, e->target_port);
    return spread(sum);
}

static const uint8_t *address_bytes(const struct ip_addr *a, size_t len)
{
    return a->b + sizeof(a->b) - len;
}

uint16_t steer_client_port(const struct steer *k, const struct ip_addr *client, uint16_t client_port)
{
    size_t len = ip_is4(client) ? 4 : 16;
    uint8_t be[2];
    struct ends e = { .client = address_bytes(client, len), .client_port = be, .len = len };

    put_be16(be, client_port);
    return value_of(k, &e, IP_PROTO_UDP);
}

uint16_t steer_addresses(const struct steer *k, const struct ip_addr *client, const struct ip_addr *target)
{
    size_t len = ip_is4(client) ? 4 : 16;
    struct ends e = { .client = address_bytes(client, len),
                      .target = address_bytes(target, len),
                      .len = len };

    return value_of(k, &e, NO_PORTS);
}

/* ---- packets ------------------------------------------------------------------------------------------------------- */

/* A packet of ours that an ICMP error quotes, whole or a first fragment, as the stack reads it: its source is the target.
 * Return: its protocol, and *out; NO_PORTS: it says nothing about a flow of ours, and *out stays. */
static uint8_t quote4(const uint8_t *q, size_t len, struct ends *out)
{
    if (len < V4_HEADER + PORTS || q[0] != 0x45 || (get_be16(q + 6) & V4_OFFSET) != 0 ||
        (q[9] != IP_PROTO_TCP && q[9] != IP_PROTO_UDP))
        return NO_PORTS;
    *out = (struct ends){ q + 16, q + 12, q + V4_HEADER + 2, q + V4_HEADER, 4 };
    return q[9];
}

static uint8_t quote6(const uint8_t *q, size_t len, struct ends *out)
{
    const uint8_t *l4 = q + V6_HEADER;
    uint8_t proto;

    if (len < V6_HEADER + PORTS || q[0] >> 4 != 6)
        return NO_PORTS;
    proto = q[6];
    if (proto == FRAGMENT) {
        if (len < V6_HEADER + FRAGMENT_HEADER + PORTS || (get_be16(l4 + 2) & V6_OFFSET) != 0)
            return NO_PORTS;
        proto = l4[0];
        l4 += FRAGMENT_HEADER;
    }
    if (proto != IP_PROTO_TCP && proto != IP_PROTO_UDP)
        return NO_PORTS;
    *out = (struct ends){ q + 24, q + 8, l4 + 2, l4, 16 };
    return proto;
}

static bool is_error4(uint8_t type) /* RFC 792: unreachable, time exceeded, parameter problem */
{
    return type == 3 || type == 11 || type == 12;
}

static bool is_error6(uint8_t type) /* RFC 4443: those and too big */
{
    return type >= 1 && type <= 4;
}

static uint16_t steer_v4(const struct steer *k, const uint8_t *p, size_t len)
{
    size_t header = (p[0] & 0x0f) * 4u, quoted = header + ICMP_HEADER;
    struct ends e = { .client = p + 12, .target = p + 16, .len = 4 };
    uint8_t proto = p[9];

    if (header < V4_HEADER || len < header + PORTS || (get_be16(p + 6) & V4_PARTS) != 0)
        return value_of(k, &e, NO_PORTS);
    e.client_port = p + header;
    e.target_port = p + header + 2;
    if (proto == IP_PROTO_ICMP && is_error4(p[header]) && len > quoted)
        proto = quote4(p + quoted, len - quoted, &e);
    return value_of(k, &e, proto);
}

static uint16_t steer_v6(const struct steer *k, const uint8_t *p, size_t len)
{
    struct ends e = { .client = p + 8, .target = p + 24, .len = 16 };
    uint8_t proto = p[6];
    size_t at = V6_HEADER, header;

    for (unsigned headers = 0; len >= at + PORTS && headers <= STEER_HEADERS_MAX; headers++, at += header) {
        if (proto == IP_PROTO_TCP || proto == IP_PROTO_UDP || proto == IP_PROTO_ICMPV6) {
            e.client_port = p + at;
            e.target_port = p + at + 2;
            if (proto == IP_PROTO_ICMPV6 && is_error6(p[at]) && len > at + ICMP_HEADER)
                proto = quote6(p + at + ICMP_HEADER, len - at - ICMP_HEADER, &e);
            return value_of(k, &e, proto);
        }
        if (proto == FRAGMENT ? (get_be16(p + at + 2) & V6_PARTS) != 0
                              : proto != HOP_BY_HOP && proto != ROUTING && proto != DEST_OPTIONS)
            break; /* a fragment that is the whole datagram is read as if its header were not there (RFC 6946) */
        header = proto == FRAGMENT ? FRAGMENT_HEADER : (p[at + 1] + 1u) * 8;
        proto = p[at];
    }
    return value_of(k, &e, NO_PORTS);
}

uint16_t steer_packet(const struct steer *k, const uint8_t *packet, size_t len)
{
    if (len >= V4_HEADER && packet[0] >> 4 == 4)
        return steer_v4(k, packet, len);
    if (len >= V6_HEADER && packet[0] >> 4 == 6)
        return steer_v6(k, packet, len);
    return 0;
}
