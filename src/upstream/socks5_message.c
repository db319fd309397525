/* socks5_message.c - addresses and datagram headers of SOCKS5, read and written by both ends (RFC 1928 sections 5 and 7). */
#include "culvert/upstream.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

enum { TYPE_IP4 = 1, TYPE_NAME = 3, TYPE_IP6 = 4 };

size_t socks5_address_put(uint8_t *to, const struct host_port *a)
{
    size_t n = 1;

    if (a->name) {
        size_t len = strlen(a->name);

        assert(len >= 1 &&
               len <= 255); /* checked before the dial, whatever the handshake does (faults.md S10) */
        to[0] = TYPE_NAME;
        to[1] = (uint8_t)len;
        memcpy(to + 2, a->name, len);
        n += 1 + len;
    } else if (ip_is4(&a->addr)) {
        to[0] = TYPE_IP4;
        memcpy(to + 1, a->addr.b + 12, 4);
        n += 4;
    } else {
        to[0] = TYPE_IP6;
        memcpy(to + 1, a->addr.b, 16);
        n += 16;
    }
    put_be16(to + n, a->port);
    return n + 2;
}

/* The address proper. Return as socks5_address_get(). */
static int get_host(struct span *in, uint8_t type, struct socks5_address *out)
{
    const uint8_t *p;
    uint8_t len;

    switch (type) {
    case TYPE_IP4:
        if (!span_bytes(in, 4, &p))
            return -EAGAIN;
        out->ip.addr = ip_from4(p);
        return 0;
    case TYPE_IP6:
        if (!span_bytes(in, 16, &p))
            return -EAGAIN;
        out->ip.addr = ip_from6(p);
        return 0;
    case TYPE_NAME:
        if (!span_u8(in, &len) || !span_bytes(in, len, &p))
            return -EAGAIN;
        out->name = (const char *)p;
        out->name_len = len;
        return 0;
    default:
        return -EAFNOSUPPORT;
    }
}

int socks5_address_get(struct span *in, struct socks5_address *out)
{
    struct socks5_address a = { 0 };
    struct span rest = *in;
    uint8_t type;
    int r;

    if (!span_u8(&rest, &type))
        return -EAGAIN;
    r = get_host(&rest, type, &a);
    if (r != 0)
        return r;
    if (!span_u16(&rest, &a.ip.port))
        return -EAGAIN;
    *in = rest;
    *out = a;
    return 0;
}

size_t socks5_udp_put(uint8_t *to, const struct host_port *a)
{
    memset(to, 0, 3); /* RSV, RSV, FRAG: not a fragment */
    return 3 + socks5_address_put(to + 3, a);
}

int socks5_udp_get(struct span *in, struct socks5_address *out)
{
    struct span rest = *in;

    if (rest.len < 4 || rest.data[0] != 0 || rest.data[1] != 0 || rest.data[2] != 0)
        return -EBADMSG;
    span_skip(&rest, 3);
    if (socks5_address_get(&rest, out) != 0)
        return -EBADMSG;
    *in = rest;
    return 0;
}
