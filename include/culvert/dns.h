/* dns.h - DNS messages as bytes: questions and answers read with bounds, queries and replies written.
 * Knows     RFC 1035, RFC 6891 (EDNS), RFC 2308 (negative answers), RFC 3596 (AAAA); no socket, no clock, no dice.
 * Threads   [any] pure functions; nothing allocates.
 * Bounds    every reader stops within the bytes it was given, in time linear in them, whatever the counts and pointers
 *           inside claim (faults.md D1, D2). */
#ifndef CULVERT_DNS_H
#define CULVERT_DNS_H

#include "culvert/base.h"

#define DNS_HEADER_LEN    12
#define DNS_UDP_BYTES     1232  /* what we offer to receive (DNS flag day 2020): fits in IPv6's least MTU */
#define DNS_TCP_BYTES_MAX 65535 /* RFC 1035 section 4.2.2 */
#define DNS_CHAIN_MAX     16    /* CNAME records followed in one answer (faults.md D6) */
#define DNS_ADDRS_MAX     16    /* addresses taken of one answer; more are ignored */
#define DNS_TTL_MIN_S     1
#define DNS_TTL_MAX_S     86400

enum dns_type { DNS_A = 1, DNS_NS = 2, DNS_CNAME = 5, DNS_SOA = 6, DNS_AAAA = 28, DNS_OPT = 41 };
enum dns_class { DNS_IN = 1 };
enum dns_rcode {
    DNS_NOERROR = 0,
    DNS_FORMERR = 1,
    DNS_SERVFAIL = 2,
    DNS_NXDOMAIN = 3,
    DNS_NOTIMP = 4,
    DNS_REFUSED = 5,
    DNS_BADVERS = 16, /* RFC 6891 section 9; needs EDNS to be said */
};

/* ---- names ---- */

/* A name as it travels, uncompressed, with its root label; upper and lower case as they came. Zeroed it is no name. */
struct dns_name {
    uint8_t len; /* 1..255 */
    uint8_t wire[255];
};
#define DNS_NAME_TEXT_MAX 1024 /* every byte as \DDD, and a NUL */

/** dns_name_from_text() - from a host name; a trailing dot is fine
 * Return: 0; -EINVAL: no host name (host_name_normalise()), or too long for DNS (253 bytes as text). */
int dns_name_from_text(const char *text, struct dns_name *out);
/* Text without trailing dot, bytes beyond host names as \DDD (RFC 1035 section 5.1); "." for the root. Returns @out. */
const char *dns_name_text(const struct dns_name *n, char out[DNS_NAME_TEXT_MAX]);
bool dns_name_equal(const struct dns_name *a, const struct dns_name *b); /* case of ASCII letters ignored */

/* ---- patterns of names, as in mihomo's fake-ip-filter and hosts ---- */

/** dns_pattern_check() - "a.b" itself; "+.a.b" it and all below it; ".a.b" all below it; "*" in place of a label: any one label
 * @out: the pattern in lower case, 256 bytes. Return: 0 or -EINVAL. */
int dns_pattern_check(const char *text, char out[256]);
/** dns_pattern_match() - @pattern as dns_pattern_check() made it, @name as host_name_normalise() did */
bool dns_pattern_match(const char *pattern, const char *name);

/** dns_type_parse() - "AAAA", "HTTPS", "TYPE65" or a number. Return: the type; 0: none that is known */
uint16_t dns_type_parse(const char *text);

struct dns_question {
    struct dns_name name;
    uint16_t type;  /* enum dns_type, or any other number */
    uint16_t class; /* enum dns_class, or any other */
};

/* ---- queries ---- */

/** dns_put_query() - one standard query with recursion desired; the id is the caller's dice
 * @edns: say that DNS_UDP_BYTES may come back (RFC 6891); without, for servers that answer FORMERR to it */
void dns_put_query(struct buf *out, uint16_t id, const struct dns_question *q, bool edns);

struct dns_query {
    uint16_t id;
    bool recursion_desired, checking_disabled;
    bool has_question; /* false only beside a failure */
    struct dns_question question;
    bool has_edns, dnssec_ok;
    uint8_t opcode;
    /* what the client can receive: 512 without EDNS (RFC 1035 section 4.2.1), never less */
    uint16_t udp_bytes;
};

/** dns_read_query() - what a client asks (faults.md D1, D12)
 * Return: 0; a positive enum dns_rcode to answer with by dns_put_reply(); -EBADMSG: say nothing, it has no header or is
 * an answer itself. */
int dns_read_query(struct span msg, struct dns_query *out);

/* ---- answers ---- */

struct dns_answer {
    unsigned rcode; /* enum dns_rcode or any other, 0..4095 */
    bool truncated; /* TC: ask again over TCP; there are no addresses then */
    bool has_edns;
    size_t n_addrs;
    struct ip_addr addrs[DNS_ADDRS_MAX]; /* at the end of the CNAME chain, in the server's order */
    /* lowest of what was used, DNS_TTL_MIN_S..DNS_TTL_MAX_S; without addresses RFC 2308, at most 300 s */
    uint32_t ttl_s;
};

/** dns_read_answer() - addresses out of an answer to (@id, @q); @q is for A or AAAA in class IN
 * The question must come back byte for byte: a change of case is not ours (faults.md D3).
 * Return: 0; -ENOMSG: not an answer to this question: ignore it and wait on; -EBADMSG: it is, but its bytes are broken or
 * its chain of CNAMEs loops or is over DNS_CHAIN_MAX long: try the next server (faults.md D2, D6). */
int dns_read_answer(struct span msg, uint16_t id, const struct dns_question *q, struct dns_answer *out);

/* ---- replies ---- */

struct dns_record {
    const struct dns_name *owner; /* NULL: the question's name */
    uint16_t type;                /* DNS_A or DNS_AAAA with addr, DNS_CNAME with name */
    uint32_t ttl_s;
    struct ip_addr addr;
    const struct dns_name *name;
};

/** dns_put_reply() - the reply to a query that dns_read_query() has read; @out is empty, its cap the most that may be sent
 * Records that do not fit are all left out and TC is set (RFC 2181 section 9).
 * Return: 0; -ENOSPC: not even header and question fit, @out must not be sent. */
int dns_put_reply(struct buf *out, const struct dns_query *q, enum dns_rcode rcode,
                  const struct dns_record *records, size_t n);

#endif
