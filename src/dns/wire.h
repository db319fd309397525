/* wire.h - what the readers and the writer of DNS messages share; private to src/dns. */
#ifndef DNS_WIRE_H
#define DNS_WIRE_H

#include "culvert/dns.h"

/* Bits of the second word of the header (RFC 1035 section 4.1.1, RFC 4035 section 3.2). */
enum {
    FLAG_QR = 0x8000,
    FLAG_OPCODE = 0x7800,
    FLAG_AA = 0x0400,
    FLAG_TC = 0x0200,
    FLAG_RD = 0x0100,
    FLAG_RA = 0x0080,
    FLAG_CD = 0x0010,
    FLAG_RCODE = 0x000f,
};
#define OPCODE_SHIFT  11
#define EDNS_DO       0x8000 /* in the TTL field's low half (RFC 6891 section 6.1.3) */
#define LABEL_POINTER 0xc0   /* RFC 1035 section 4.1.4 */
#define LABEL_MAX     63
#define QUESTION_AT   DNS_HEADER_LEN
#define UDP_BYTES_OLD 512 /* RFC 1035 section 4.2.1 */

/** name_read() - the name at *@at of @msg, pointers followed; *@at moves behind it
 * Pointers must lead backwards, each further than the one before, so that a walk ends. Return: false if broken. */
bool name_read(struct span msg, size_t *at, struct dns_name *out);
bool name_skip(struct span msg, size_t *at); /* the same, without following pointers */

#endif
