/* dns.h - DNS messages as bytes: questions and answers read with bounds, queries and replies written; and the book of names.
 * Knows     RFC 1035, RFC 6891 (EDNS), RFC 2308 (negative answers), RFC 3596 (AAAA); no socket, no clock, no dice.
 * Threads   messages, names and patterns: [any] pure functions that allocate nothing. The book of names at the end says for each
 *           function who may call it; it allocates in name_book_new() and name_book_encode() only.
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

enum dns_type {
    DNS_A = 1,
    DNS_NS = 2,
    DNS_CNAME = 5,
    DNS_SOA = 6,
    DNS_PTR = 12,
    DNS_AAAA = 28,
    DNS_OPT = 41
};
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

/* DNS_Q_EDNS: say that DNS_UDP_BYTES may come back (RFC 6891); without, for servers that answer FORMERR to it. DNS_Q_DO (with
 * it) and DNS_Q_CD: what a client said of DNSSEC (RFC 4035 section 3.2). */
enum { DNS_Q_EDNS = 1, DNS_Q_DO = 2, DNS_Q_CD = 4 };
/** dns_put_query() - one standard query with recursion desired; the id is the caller's dice
 * @flags: of DNS_Q_* */
void dns_put_query(struct buf *out, uint16_t id, const struct dns_question *q, unsigned flags);

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

/* What becomes of a question, by type and class (faults.md D12; RFC 6895 section 3.1). */
enum dns_fate {
    DNS_PASS,            /* a question for name servers, or for fake addresses */
    DNS_NOT_IMPLEMENTED, /* transfers, ANY, meta types, other classes: NOTIMP */
    DNS_EMPTY,           /* a type that the configuration blocks: NOERROR without records */
};
enum dns_fate dns_question_fate(const struct dns_question *q, const uint16_t *blocked, size_t n_blocked);

/** dns_ptr_address() - the address that a name under in-addr.arpa or ip6.arpa stands for (RFC 1035 section 3.5, RFC 3596)
 * Return: false: it is no such name, or not a whole address. */
bool dns_ptr_address(const struct dns_name *n, struct ip_addr *out);

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

/* ---- answers that are handed on ---- */

struct dns_relay {            /* what is known of a whole answer, to a question of any type */
    struct dns_answer answer; /* addresses for A and AAAA only; ttl_s: the lowest of all records */
    size_t len;               /* of the message without its OPT record and what stands behind that */
    uint16_t additionals;     /* that are left */
};
/** dns_read_relay() - as dns_read_answer(), for a question of any type */
int dns_read_relay(struct span msg, uint16_t id, const struct dns_question *q, struct dns_relay *out);
/** dns_put_relay() - a name server's answer as the reply to a client's query, with its id, spelling and flags, and EDNS if it had
 * @stored: the first `len` bytes of what dns_read_relay() read; @additionals: as there
 * @age_s: since it came; TTLs are that much lower, at least 1 s. @stale: it is past its time: all TTLs are 30 s (RFC 8767 section 4)
 * @out: empty, its cap the most that may be sent; too small: only the question, and TC. Return: 0 or -ENOSPC. */
int dns_put_relay(struct buf *out, const struct dns_query *q, struct span stored, uint16_t additionals,
                  uint32_t age_s, bool stale);

/* ---- replies ---- */

struct dns_record {
    const struct dns_name *owner; /* NULL: the question's name */
    uint16_t type;                /* DNS_A or DNS_AAAA with addr, DNS_CNAME or DNS_PTR with name */
    uint32_t ttl_s;
    struct ip_addr addr;
    const struct dns_name *name;
};

/** dns_put_reply() - the reply to a query that dns_read_query() has read; @out is empty, its cap the most that may be sent
 * Records that do not fit are all left out and TC is set (RFC 2181 section 9).
 * Return: 0; -ENOSPC: not even header and question fit, @out must not be sent. */
int dns_put_reply(struct buf *out, const struct dns_query *q, enum dns_rcode rcode,
                  const struct dns_record *records, size_t n);

/* ---- the book of names: fake addresses, and the names behind real ones ------------------------------------------------
 *
 * One book for the process. It has a shard for each worker: a name belongs to the shard that its keyed hash picks, and only the
 * worker of that shard writes it. Everybody reads, without a lock and without waiting for anybody: an entry has a sequence number
 * that is odd while it is written, and a reader that saw it change reads again. A flow that uses a fake address counts itself
 * into the entry before it reads the name, and the writer looks at that count after it made the number odd; so one of the two
 * always sees the other, and an address in use never changes its name. */

struct name_book;

struct name_book_options {
    struct ip_prefix fake4, fake6; /* len 0: none of this family */
    uint32_t shards;
    uint32_t
        fakes; /* names with a fake address at a time, at most; 0: 65,536. Never more than the ranges have */
    uint32_t reals; /* real addresses remembered by each shard; 0: 4,096 */
};
/* The ranges are addresses like others until name_book_use_fakes(); from then on for good. */
#define NAME_BOOK_KEEP_US                                                                                    \
    UINT64_C(600000000) /* a fake address handed out within 10 minutes keeps its name (config.md 6) */

int name_book_new(const struct name_book_options *opt,
                  struct name_book **out);     /* 0, -ENOMEM, -EINVAL, or -errno of the dice */
void name_book_free(struct name_book *b);      /* NULL is fine */
void name_book_use_fakes(struct name_book *b); /* [any] */
uint32_t name_book_shard(const struct name_book *b,
                         const char *name); /* whose name it is; normalised, as below [any] */

/** name_book_fake() - the fake addresses of @name, made if need be: the unused one handed out longest ago wraps round [its shard]
 * @out: IPv4, IPv6; none where there is no range. Return: 0; -ENOSPC: all are in use or too young (faults.md D8); -EINVAL. */
int name_book_fake(struct name_book *b, uint32_t shard, const char *name, uint64_t now_us,
                   struct ip_addr out[2]);
/** name_book_learn() - @addr is @name until @until_us; the latest name wins [shard's worker] */
void name_book_learn(struct name_book *b, uint32_t shard, const struct ip_addr *addr, const char *name,
                     uint64_t now_us, uint64_t until_us);

enum name_known {
    NAME_UNKNOWN,      /* an address like any other */
    NAME_REAL,         /* it has been an answer for that name, and still is */
    NAME_FAKE,         /* it stands for that name; never dialled itself */
    NAME_FAKE_UNKNOWN, /* of the fake range, and nobody's: nothing may be sent there (faults.md D8) */
};
/** name_book_find() - what name is behind @addr? [any]
 * @hold: with NAME_FAKE, the address is in use from now on, until name_book_release(). */
enum name_known name_book_find(struct name_book *b, const struct ip_addr *addr, uint64_t now_us,
                               char name[256], bool hold);
void name_book_release(struct name_book *b, const struct ip_addr *addr);       /* [any] once for each hold */
bool name_book_is_fake(const struct name_book *b, const struct ip_addr *addr); /* [any] in the ranges? */
uint64_t name_book_changes(const struct name_book *b); /* [any] grows with each name that was written */
size_t name_book_bytes(const struct name_book *b);     /* [any] of memory */
uint32_t name_book_fakes(const struct name_book *b);   /* [any] names that have an address */

/* ---- the book on disk: fake addresses only, oldest first, with a check sum over all ---- */
/** name_book_encode() - Return: 0 and malloc'ed bytes; -ENOMEM [any] */
int name_book_encode(struct name_book *b, uint8_t **out, size_t *len);
/** name_book_decode() - take back what name_book_encode() made, before any worker runs; all count as handed out now
 * Return: 0; -EBADMSG broken or of another version; -ESTALE made for other ranges. Then nothing was taken (faults.md D9). */
int name_book_decode(struct name_book *b, struct span bytes, uint64_t now_us);

#endif
