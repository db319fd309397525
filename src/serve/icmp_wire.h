/* icmp_wire.h - whole IP packets with ICMP inside, as connect-ip carries them (RFC 9484 section 6): read and written, no I/O.
 * Memory  nothing is allocated; what is read points into the packet. */
#ifndef CULVERT_SERVE_ICMP_WIRE_H
#define CULVERT_SERVE_ICMP_WIRE_H

#include "culvert/echo.h"

enum icmp_wire {
    ICMP_WIRE_ECHO,   /* an echo request */
    ICMP_WIRE_BROKEN, /* lengths, checksums, addresses of another family */
    ICMP_WIRE_OTHER,  /* sound, and nothing that we carry: other protocols and types, fragments */
};

/** icmp_wire_read() - an IP packet of the family that the tunnel is for
 * @out: for ICMP_WIRE_ECHO all that the packet says: addresses, id, seq, checksum, code, ttl, tos, df, options, payload and
 * header; the rest is zero. */
enum icmp_wire icmp_wire_read(struct span packet, bool v6, struct echo_proxy_request *out);

enum { ICMP_WIRE_HEAD_MAX = 40 + 8 };
/** icmp_wire_put_reply() - the IP and ICMP headers of an echo reply; the payload follows them
 * Return: bytes of the headers. */
size_t icmp_wire_put_reply(const struct echo_proxy_answer *a, uint8_t head[ICMP_WIRE_HEAD_MAX]);

struct icmp_wire_error {
    struct ip_addr source, target; /* who says it, and to whom */
    uint8_t type, code;            /* of their family */
    uint32_t info;                 /* MTU or pointer */
    struct span quote; /* the packet that it is about, cut by icmp_wire_put_error() to what fits */
};
/** icmp_wire_put_error() - the headers of an ICMP error; @quote gets how much of the quote follows them: the whole is at most
 * 576 bytes for IPv4 (RFC 1812 section 4.3.2.3), 1,280 for IPv6 (RFC 4443 section 2.4 (c)). Return: bytes of the headers. */
size_t icmp_wire_put_error(const struct icmp_wire_error *e, uint8_t head[ICMP_WIRE_HEAD_MAX], size_t *quote);

#endif
