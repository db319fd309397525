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
/** sniff_quic() - the ClientHello in a datagram's Initial packets (RFC 9000 section 17.2.2, RFC 9001, RFC 9369)
 * One datagram is looked at: a ClientHello that goes on in the next one tells its name if that stands in the first. */
enum sniffed sniff_quic(struct span datagram, char name[256]);

#endif
