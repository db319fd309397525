/* sniff.h - the name that a client's first bytes tell: pure readers of what nobody vouches for; private to src/forward.
 * Every reader stops within the bytes that it was given. */
#ifndef CULVERT_FORWARD_SNIFF_H
#define CULVERT_FORWARD_SNIFF_H

#include "culvert/base.h"

#define SNIFF_BYTES_MAX 16384 /* of one ClientHello or HTTP head; what is longer has no name for us */

enum sniffed {
    SNIFF_MORE, /* it may come with more bytes */
    SNIFF_NONE, /* there is none, whatever follows */
    SNIFF_NAME, /* normalised */
};

/** sniff_hello() - the server_name of a ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3), from its first byte */
enum sniffed sniff_hello(struct span in, char name[256]);
/** sniff_tls() - the same in TLS records, split as they like */
enum sniffed sniff_tls(struct span in, char name[256]);
/** sniff_http() - Host of an HTTP/1 request (RFC 9112 section 3.2), or the name in its absolute target */
enum sniffed sniff_http(struct span in, char name[256]);

/* ---- QUIC: the ClientHello of one connection, put together from its Initial packets (RFC 9000 section 17.2.2, RFC 9001, RFC 9369) */

#define QUIC_HELLO_MAX 8192 /* bytes of CRYPTO frames; a hello with a post-quantum key share has about 2000 */
#define QUIC_CID_MAX   20
struct quic_hello {   /* begins as zeros */
    uint32_t version; /* 0: no packet was opened yet */
    uint8_t cid_len;
    bool begun; /* a datagram was there that begins a connection */
    uint8_t cid[QUIC_CID_MAX], key[16], iv[12], hp[16];
    uint32_t whole;                   /* bytes from the first on without a gap */
    uint8_t have[QUIC_HELLO_MAX / 8]; /* a bit for each byte */
    uint8_t bytes[QUIC_HELLO_MAX];
};
/** quic_hello_add() - the next datagram of the client, in whatever order they come
 * Return: SNIFF_NONE: the first datagram begins no connection, or the hello has no name; SNIFF_MORE: another datagram may tell it. */
enum sniffed quic_hello_add(struct quic_hello *q, struct span datagram, char name[256]);

#endif
