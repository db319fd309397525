/* addr.c - IP addresses, prefixes, socket addresses and flow keys.
 *
 * IPv4 lives in its v4-mapped form (RFC 4291 section 2.5.5.2), so a comparison is 16 bytes whatever the family.
 * Text is read strictly (RFC 4291 section 2.2, dotted quads without leading zeros) and written as RFC 5952 says. */
#include "culvert/base.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define V4_PREFIX_BITS 96 /* ::ffff:0:0/96 */

static const uint8_t v4_mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

struct ip_addr ip_from4(const uint8_t be[4])
{
    struct ip_addr a;

    memcpy(a.b, v4_mapped, sizeof(v4_mapped));
    memcpy(a.b + sizeof(v4_mapped), be, 4);
    return a;
}

struct ip_addr ip_from6(const uint8_t be[16])
{
    struct ip_addr a;

    memcpy(a.b, be, 16);
    return a;
}

bool ip_is4(const struct ip_addr *a)
{
    return memcmp(a->b, v4_mapped, sizeof(v4_mapped)) == 0;
}

bool ip_is_none(const struct ip_addr *a)
{
    return (a->w[0] | a->w[1] | a->w[2] | a->w[3]) == 0;
}

bool ip_equal(const struct ip_addr *a, const struct ip_addr *b)
{
    return memcmp(a->b, b->b, sizeof(a->b)) == 0;
}

bool ip_is_multicast(const struct ip_addr *a)
{
    return ip_is4(a) ? (a->b[12] & 0xf0) == 0xe0 : a->b[0] == 0xff;
}

bool ip_is_loopback(const struct ip_addr *a)
{
    static const uint8_t one[16] = { [15] = 1 };

    return ip_is4(a) ? a->b[12] == 127 : memcmp(a->b, one, sizeof(one)) == 0;
}

bool ip_is_link_local(const struct ip_addr *a)
{
    if (ip_is4(a))
        return a->b[12] == 169 && a->b[13] == 254;
    return a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80;
}

bool ip_is_martian(const struct ip_addr *a)
{
    if (ip_is4(a) && (a->b[12] == 0 || a->b[12] >= 240))
        return true;
    return ip_is_none(a) || ip_is_multicast(a) || ip_is_loopback(a);
}

/* What is not public, beside martians and link-local; IPv4 lengths count from 96. */
static const struct ip_prefix special[] = {
#define V4(one, two, three, bits)                                                                            \
    {                                                                                                        \
        { .b = { [10] = 0xff, 0xff, one, two, three } }, V4_PREFIX_BITS + (bits)                             \
    }
    V4(10, 0, 0, 8),    /* private (RFC 1918) */
    V4(100, 64, 0, 10), /* shared between a carrier and its customers (RFC 6598) */
    V4(172, 16, 0, 12),
    V4(192, 168, 0, 16),
    V4(192, 0, 0, 24), /* protocol assignments (RFC 6890) */
    V4(192, 0, 2, 24), /* documents (RFC 5737) */
    V4(198, 51, 100, 24),
    V4(203, 0, 113, 24),
    V4(198, 18, 0, 15), /* benchmarks (RFC 2544), fake addresses */
#undef V4
    { { .b = { 0 } }, V4_PREFIX_BITS },             /* ::a.b.c.d, deprecated */
    { { .b = { 0, 0x64, 0xff, 0x9b, 0, 1 } }, 48 }, /* a site's own NAT64 (RFC 8215) */
    { { .b = { 1 } }, 64 },                         /* discard (RFC 6666) */
    { { .b = { 0x20, 0x01 } }, 23 },                /* protocol assignments, Teredo among them */
    { { .b = { 0x20, 0x01, 0x0d, 0xb8 } }, 32 },    /* documents (RFC 3849) */
    { { .b = { 0x3f, 0xff } }, 20 },                /* documents (RFC 9637) */
    { { .b = { 0xfc } }, 7 },                       /* unique local (RFC 4193) */
    { { .b = { 0xfe, 0xc0 } }, 10 },                /* site-local, deprecated */
};

/* The IPv4 address inside a NAT64 (RFC 6052) or 6to4 (RFC 3056) address. */
static bool embedded4(const struct ip_addr *a, struct ip_addr *out)
{
    static const struct ip_prefix nat64 = { { .b = { 0, 0x64, 0xff, 0x9b } }, 96 };
    static const struct ip_prefix six_to_four = { { .b = { 0x20, 0x02 } }, 16 };

    if (ip_in_prefix(a, &nat64))
        *out = ip_from4(a->b + 12);
    else if (ip_in_prefix(a, &six_to_four))
        *out = ip_from4(a->b + 2);
    else
        return false;
    return true;
}

bool ip_is_public(const struct ip_addr *a)
{
    struct ip_addr inner;

    if (embedded4(a, &inner))
        a = &inner;
    if (ip_is_martian(a) || ip_is_link_local(a))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(special); i++)
        if (ip_in_prefix(a, &special[i]))
            return false;
    return true;
}

bool ip_in_prefix(const struct ip_addr *a, const struct ip_prefix *p)
{
    unsigned bytes = p->len / 8, bits = p->len % 8;

    if (p->len > 128 || (ip_is4(a) && p->len < V4_PREFIX_BITS))
        return false;
    if (memcmp(a->b, p->addr.b, bytes) != 0)
        return false;
    return bits == 0 || ((a->b[bytes] ^ p->addr.b[bytes]) >> (8 - bits)) == 0;
}

bool ip_prefix_equal(const struct ip_prefix *a, const struct ip_prefix *b)
{
    return a->len == b->len && ip_equal(&a->addr, &b->addr);
}

bool ip_port_equal(const struct ip_port *a, const struct ip_port *b)
{
    return a->port == b->port && ip_equal(&a->addr, &b->addr);
}

bool flow_key_equal(const struct flow_key *a, const struct flow_key *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

int ip_parse(const char *text, struct ip_addr *out)
{
    size_t len = strlen(text);
    char copy[INET6_ADDRSTRLEN];
    uint8_t be[16];

    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
        if (memchr(text, ':', len) == NULL) /* brackets are for IPv6 (RFC 3986 section 3.2.2) */
            return -EINVAL;
    }
    if (len == 0 || len >= sizeof(copy))
        return -EINVAL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    if (inet_pton(AF_INET, copy, be) == 1)
        *out = ip_from4(be);
    else if (inet_pton(AF_INET6, copy, be) == 1)
        *out = ip_from6(be);
    else
        return -EINVAL;
    return 0;
}

/* "0".."128" without sign, space or leading zero; @max is what the family allows. */
static int prefix_len_parse(const char *text, unsigned max, unsigned *out)
{
    unsigned n = 0;

    if (text[0] == '\0' || (text[0] == '0' && text[1] != '\0'))
        return -EINVAL;
    for (const char *p = text; *p != '\0'; p++) {
        if (*p < '0' || *p > '9')
            return -EINVAL;
        n = n * 10 + (unsigned)(*p - '0');
        if (n > max)
            return -EINVAL;
    }
    *out = n;
    return 0;
}

static void prefix_clear_host_bits(struct ip_prefix *p)
{
    for (unsigned bit = p->len; bit < 128; bit++)
        p->addr.b[bit / 8] &= (uint8_t) ~(0x80u >> (bit % 8));
}

int ip_interface_parse(const char *text, struct ip_prefix *out)
{
    const char *slash = strchr(text, '/');
    size_t len = slash != NULL ? (size_t)(slash - text) : strlen(text);
    char copy[IP_TEXT_MAX];
    struct ip_prefix p;
    unsigned skipped, bits;

    if (len >= sizeof(copy))
        return -EINVAL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    if (ip_parse(copy, &p.addr) != 0)
        return -EINVAL;
    /* A mapped address written as IPv6 counts its bits as IPv6 does. */
    skipped = strchr(copy, ':') == NULL ? V4_PREFIX_BITS : 0;
    bits = 128 - skipped;
    if (slash != NULL && prefix_len_parse(slash + 1, bits, &bits) != 0)
        return -EINVAL;
    p.len = (uint8_t)(skipped + bits);
    *out = p;
    return 0;
}

int ip_prefix_parse(const char *text, struct ip_prefix *out)
{
    int r = ip_interface_parse(text, out);

    if (r == 0)
        prefix_clear_host_bits(out);
    return r;
}

const char *ip_text(const struct ip_addr *a, char out[IP_TEXT_MAX])
{
    bool is4 = ip_is4(a);

    inet_ntop(is4 ? AF_INET : AF_INET6, is4 ? a->b + 12 : a->b, out, IP_TEXT_MAX);
    return out;
}

const char *ip_port_text(const struct ip_port *a, char out[IP_PORT_TEXT_MAX])
{
    char addr[IP_TEXT_MAX];

    snprintf(out, IP_PORT_TEXT_MAX, ip_is4(&a->addr) ? "%s:%u" : "[%s]:%u", ip_text(&a->addr, addr),
             (unsigned)a->port);
    return out;
}

socklen_t ip_to_sockaddr(const struct ip_port *a, struct sockaddr_storage *out)
{
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    struct sockaddr_in *in4 = (struct sockaddr_in *)out;

    memset(out, 0, sizeof(*out));
    if (ip_is4(&a->addr)) {
        in4->sin_family = AF_INET;
        in4->sin_port = htons(a->port);
        memcpy(&in4->sin_addr, a->addr.b + 12, 4);
        return sizeof(*in4);
    }
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(a->port);
    memcpy(&in6->sin6_addr, a->addr.b, 16);
    return sizeof(*in6);
}

int ip_from_sockaddr(const struct sockaddr *sa, struct ip_port *out)
{
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;

    if (sa->sa_family == AF_INET) {
        memcpy(&in4, sa, sizeof(in4));
        out->addr = ip_from4((const uint8_t *)&in4.sin_addr);
        out->port = ntohs(in4.sin_port);
        return 0;
    }
    if (sa->sa_family == AF_INET6) {
        memcpy(&in6, sa, sizeof(in6));
        out->addr = ip_from6(in6.sin6_addr.s6_addr);
        out->port = ntohs(in6.sin6_port);
        return 0;
    }
    return -EAFNOSUPPORT;
}
