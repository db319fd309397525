/* ping_impl.h - the inside of an echo proxy.
 *
 *     ping_table.c   which flows live, who may have one more, whose turn it is to go     pure
 *     ping_number.c  sequence numbers: sent lately, shared sockets' map, raw ids         pure
 *     ping_quote.c   received messages and error records, and what a client may see      pure
 *     ping_guard.c   our own requests of the last seconds, for the whole process
 *     ping_socket.c  ping and raw sockets: made, sent to, read
 *     ping_probe.c   which sockets can be had, and what the operator is told
 *     ping_flow.c    opening, closing, and answers
 *     echo_proxy.c   requests, and life */
#ifndef CULVERT_PING_IMPL_H
#define CULVERT_PING_IMPL_H

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "culvert/echo.h"

enum {
    PING4_REPLY = 0,
    PING4_UNREACH = 3,
    PING4_QUENCH = 4,
    PING4_REDIRECT = 5,
    PING4_REQUEST = 8,
    PING4_EXPIRED = 11,
    PING4_PARAMETER = 12,
    PING6_UNREACH = 1,
    PING6_TOO_BIG = 2,
    PING6_EXPIRED = 3,
    PING6_PARAMETER = 4,
    PING6_REQUEST = 128,
    PING6_REPLY = 129,
};

#define PING_HEADER     8
#define PING_POOL_MAX   8 /* shared sockets of one family */
#define PING_SECOND_US  1000000ull
#define PING_RX_BYTES   65536 /* of one message (X23) */
#define PING_RX_BATCH   16    /* messages a system call (X26) */
#define PING_HEADER_MAX 60    /* of an IPv4 header, kept for quotes (X19) */
#define PING_QUOTE_MAX  1232  /* 1,280 less 40 and 8 (U7); IPv4: 548 */

/* ---- numbers (ping_number.c) -------------------------------------------------------------------------------------- */

/* The sequence numbers of the last 4,096 requests of one flow, and how many replies each has had (X19, X20, X22). */
struct ping_seen {
    uint8_t place[4096]; /* by the low 12 bits: the high 4 bits, and 1 + replies; 0: nothing */
};
enum { PING_REPLIES_MAX = 4 };
enum ping_seen_result { PING_SEEN_NEVER, PING_SEEN_FIRST, PING_SEEN_AGAIN, PING_SEEN_TOO_OFTEN };
void ping_seen_sent(struct ping_seen *s, uint16_t seq);
bool ping_seen_has(const struct ping_seen *s, uint16_t seq);
enum ping_seen_result ping_seen_reply(struct ping_seen *s, uint16_t seq); /* counts it */

/* What is out on sockets that flows share (X17): (socket, number on the wire) to (flow, client's number). */
struct ping_out {
    void *free_link;
    struct ping_out *bucket_next, *age_next; /* in order of time, for all have the same time-out */
    uint64_t until_us, generation;           /* of the flow */
    uint32_t flow;                           /* its place in the table */
    uint16_t socket, wire_seq, seq;
    uint8_t replies;
};
#define PING_OUT_BUCKETS 4096
#define PING_OUT_WORDS   (65536 / 64)
struct ping_map {
    struct slab outs;
    uint64_t *used[2 * PING_POOL_MAX]; /* of each socket that was opened: a bit for each number that is out */
    struct ping_out *bucket[PING_OUT_BUCKETS];
    struct ping_out *oldest, *newest;
    struct prng prng;
};
int ping_map_init(struct ping_map *m, uint32_t limit, uint64_t seed);
void ping_map_fini(struct ping_map *m);
size_t ping_map_bytes(const struct ping_map *m); /* beside the slab */
/** ping_map_open() - @socket, below 2 * PING_POOL_MAX, may be given numbers; again: no effect. Return: 0 or -ENOMEM */
int ping_map_open(struct ping_map *m, uint16_t socket);
/** ping_map_add() - a fresh random number for one more request on @socket; NULL: none is free
 * Entries that are over at @now_us go first; a number is never given again before that. */
struct ping_out *ping_map_add(struct ping_map *m, uint64_t now_us, uint64_t until_us, uint16_t socket);
struct ping_out *ping_map_find(struct ping_map *m, uint64_t now_us, uint16_t socket, uint16_t wire_seq);
void ping_map_expire(struct ping_map *m, uint64_t now_us);

/* Ids of raw sockets: the one that was given back latest is used last (4.8). */
struct ping_ids {
    uint16_t *ring; /* free ids in order */
    uint32_t first, count, size;
    uint16_t low, high; /* ours: low..high */
};
int ping_ids_init(struct ping_ids *ids, uint32_t share, uint32_t shares);
void ping_ids_fini(struct ping_ids *ids);
uint16_t ping_ids_take(struct ping_ids *ids); /* 0: all are in use */
void ping_ids_put(struct ping_ids *ids, uint16_t id);

/* ---- flows (ping_table.c) -------------------------------------------------------------------------------------------- */

struct ping_key {
    struct ip_addr client, target;
    uint32_t ingress;
    uint16_t id, zero; /* so that it can be hashed as bytes */
};

struct ping_link {
    struct ping_link *prev, *next;
};

struct ping_source { /* one client address: how many flows, and how fast it makes them */
    void *free_link;
    struct ip_addr addr;
    struct ping_source *bucket_next;
    struct ping_link idle; /* without flows: may be forgotten, the oldest first */
    struct ping_link flows_by_age;
    uint32_t flows;
    uint64_t tokens; /* a millionth each */
    uint64_t filled_us;
};

struct ping_sent { /* one request that may still be answered (X19) */
    uint64_t sent_us;
    uint32_t len; /* ICMP header and payload */
    uint16_t seq, checksum;
    bool used, answered;
    uint8_t header_len; /* 0: not kept, rebuilt */
    uint8_t header[PING_HEADER_MAX];
};
#define PING_RING 64

struct ping_socket {
    struct echo_proxy *proxy;
    struct loop_io io;
    int fd; /* -1: none */
    bool v6, raw, shared;
    uint16_t index;    /* of a shared one */
    uint16_t wire_id;  /* the kernel's, host order; raw: each flow has its own */
    int mtu_mode;      /* what IP_MTU_DISCOVER is set to, -1: not yet */
    uint8_t bad_reads; /* in a row */
};

struct ping_flow {
    void *free_link;
    struct echo_proxy *proxy;
    struct ping_key key;
    uint64_t generation; /* never the same twice in one proxy */
    uint64_t responder;
    bool live;
    bool v6, answered_once;
    struct ping_source *source;
    struct ping_flow *bucket_next;
    struct ping_link age, source_age;
    struct wheel_timer timer;
    uint64_t active_us;
    struct ping_socket own; /* fd -1 where sock is another one */
    struct ping_socket *sock;
    uint16_t wire_id;
    int ifindex;
    uint32_t outstanding;
    uint64_t errors_window_us; /* E13 */
    uint32_t errors_in_window;
    uint64_t numbers_window_us; /* on a shared socket */
    uint32_t numbers_in_window;
    uint16_t ring_next;
    struct ping_sent ring[PING_RING];
    struct ping_seen seen;
};

#define PING_BUCKETS 4096
struct ping_table {
    struct slab flows, sources;
    struct hash_key key;
    struct ping_flow *bucket[PING_BUCKETS];
    struct ping_source *source_bucket[PING_BUCKETS];
    struct ping_link by_age;       /* the longest idle first */
    struct ping_link idle_sources; /* the longest without flows first */
    uint64_t generation;
    uint32_t max_per_source, new_per_second, new_burst;
};
enum ping_admit { PING_ADMIT, PING_ADMIT_RATE, PING_ADMIT_SOURCE_CAP, PING_ADMIT_FLOW_CAP };

int ping_table_init(struct ping_table *t, const struct echo_proxy_options *o, const struct hash_key *key);
void ping_table_fini(struct ping_table *t);
struct ping_flow *ping_table_find(const struct ping_table *t, const struct ping_key *key);
/** ping_table_admit() - may @client have one more flow (X12)? Spends one of its tokens then
 * @evict: the flow that must be closed first, or NULL */
enum ping_admit ping_table_admit(struct ping_table *t, const struct ip_addr *client, uint64_t now_us,
                                 struct ping_flow **evict);
struct ping_flow *ping_table_add(struct ping_table *t, const struct ping_key *key,
                                 uint64_t now_us); /* after PING_ADMIT */
void ping_table_touch(struct ping_table *t, struct ping_flow *f, uint64_t now_us);
void ping_table_remove(struct ping_table *t, struct ping_flow *f);
struct ping_flow *ping_table_at(struct ping_table *t, uint32_t index,
                                uint64_t generation); /* NULL: it is gone (X16) */
bool ping_table_trim(struct ping_table *t);

/** ping_flow_sent() - the record of @seq, NULL: overwritten or never sent */
struct ping_sent *ping_flow_sent(struct ping_flow *f, uint16_t seq);
struct ping_sent *ping_flow_note(struct ping_flow *f, uint16_t seq); /* the oldest place, for a new one */

/* ---- messages (ping_quote.c) --------------------------------------------------------------------------------------------- */

struct ping_message { /* one received message */
    uint16_t id, seq;
    uint8_t ttl, tos; /* raw IPv4: from its header; else the caller's, by cmsg */
    const uint8_t *payload;
    uint32_t payload_len;
};
enum ping_read { PING_READ_REPLY, PING_READ_OTHER, PING_READ_BAD };
/** ping_read_message() - what a read from a ping or raw socket gave
 * PING_READ_OTHER: ICMP, but no echo reply with code 0. PING_READ_BAD: too short, or a bad IP header. */
enum ping_read ping_read_message(struct span bytes, bool v6, bool raw, struct ping_message *out);

struct ping_error_record {      /* one entry of the error queue, as the kernel says it */
    uint8_t origin, type, code; /* SO_EE_ORIGIN_* */
    int err;
    uint32_t info;
    struct ip_addr offender; /* none: not said */
    struct ip_addr target;
    struct ip_addr source; /* our address in the quoted packet (IPv6), none: not said */
    struct span quoted;    /* from the echo header on */
};
struct msghdr;
/** ping_read_error() - take a record out of the control messages of recvmsg(MSG_ERRQUEUE); false: none in it */
bool ping_read_error(const struct msghdr *m, struct span data, struct ping_error_record *out);

enum ping_error_action { PING_ERROR_DROP, PING_ERROR_TELL };
/** ping_error_map() - E1 to E7, by type and code and never by errno (E10)
 * @limit: no MTU above it is told; 0: none. Return: whether the client is told; then *type, *code, *info are its own family's. */
enum ping_error_action ping_error_map(const struct ping_error_record *e, bool v6, uint32_t limit,
                                      uint8_t *type, uint8_t *code, uint32_t *info);
/** ping_quoted_echo() - id and seq of the echo header that an error quotes; false: too short, or no request */
bool ping_quoted_echo(struct span quoted, bool v6, uint16_t *id, uint16_t *seq);

struct ping_original { /* what the client sent, as far as it is known */
    struct ip_addr client, target;
    uint16_t id, seq;
    const struct ping_sent *sent; /* NULL: overwritten; then the checksum is restored from the wire's (E11) */
    struct ip_addr wire_source;   /* IPv6: ours */
};
/** ping_quote() - the client's own datagram: IP header with TTL 1, echo header, and as much payload as @quoted has and fits
 * Return: bytes in @out. */
uint16_t ping_quote(const struct ping_original *o, struct span quoted, uint8_t out[PING_QUOTE_MAX]);
uint16_t ping_sum_replace(uint16_t sum, const void *from, const void *to,
                          size_t len);                           /* RFC 1624; len even */
uint16_t ping_sum(const void *data, size_t len, uint32_t start); /* RFC 1071, complemented */

/* ---- guard (ping_guard.c) --------------------------------------------------------------------------------------------------- */

void ping_guard_sent(struct echo_guard *g, uint64_t now_us, const struct ip_addr *target, uint16_t wire_id,
                     uint16_t seq);
bool ping_guard_has(const struct echo_guard *g, uint64_t now_us, const struct ip_addr *target, uint16_t id,
                    uint16_t seq);
void ping_guard_stop(struct echo_guard *g, uint64_t now_us, const struct ip_addr *target); /* for 30 s */
bool ping_guard_is_stopped(const struct echo_guard *g, uint64_t now_us, const struct ip_addr *target);

/* ---- sockets (ping_socket.c) ------------------------------------------------------------------------------------------------ */

struct ping_packet { /* one request on its way out */
    const struct ip_addr *target;
    uint16_t id, seq; /* on the wire; a ping socket's id is the kernel's, whatever we write */
    uint8_t ttl, tos; /* ttl 0: the system's */
    bool df;          /* must not be cut: by anybody (IPv4), by routers and by us (IPv6) */
    int ifindex;
    const uint8_t *payload;
    uint32_t payload_len;
};

/** ping_socket_open() - with all its options set and an id of its own (X7)
 * @marked: may be NULL. Return: 0 or -errno: -EMFILE, -EAGAIN (no id left), -EACCES, ... */
int ping_socket_open(struct echo_proxy *p, struct ping_socket *s, bool v6, enum echo_proxy_kind kind,
                     bool *marked);
void ping_socket_close(struct ping_socket *s); /* fd -1 is fine */
int ping_socket_send(struct ping_socket *s,
                     const struct ping_packet *k); /* 0 or -errno, as sendmsg; tried once */
/** ping_socket_drain() - read the error queue to its end (X18)
 * @local_mtu: gets the MTU of an EMSGSIZE of our own kernel, if there is one. May be NULL.
 * Return: false when the socket was closed by what came. */
bool ping_socket_drain(struct ping_socket *s, uint32_t *local_mtu);
void ping_socket_on_ready(struct loop_io *io, unsigned events);
bool ping_is_address_of_host(const struct ip_addr *a); /* asks the kernel: a few system calls */

struct ping_rx; /* receive buffers, shared by all sockets of a proxy */
int ping_rx_new(struct ping_rx **out);
void ping_rx_free(struct ping_rx *rx);
void ping_rx_trim(struct ping_rx *rx);

/* ---- probe (ping_probe.c) ----------------------------------------------------------------------------------------------------- */

struct ping_range {
    bool known;
    uint32_t low, high;
};
/** ping_range_parse() - "0\t2147483647\n" (X2) */
struct ping_range ping_range_parse(const char *text);
struct ping_trouble { /* what the operator's message is made of (X5) */
    bool v4, v6;      /* families that are off */
    int err;
    uint32_t group;
    const uint32_t *groups;
    size_t group_count;
    struct ping_range range;
    const char *fallback;
};
int ping_trouble_text(const struct ping_trouble *t, char *out, size_t cap); /* as snprintf */

/* ---- the proxy ------------------------------------------------------------------------------------------------------------------ */

struct echo_proxy {
    struct echo_proxy_options opt;
    struct ping_table table;
    struct ping_map map;
    struct ping_ids ids;
    uint32_t *by_raw_id; /* raw mode: index of the flow + 1 of each id; NULL: not raw */
    struct ping_socket pool[2][PING_POOL_MAX];
    struct ping_socket raw[2];
    uint32_t pool_next;
    enum echo_proxy_mode mode[2]; /* IPv4, IPv6 */
    int why_off[2];
    bool probed;
    struct loop_timer probe_timer;
    uint64_t backoff_until_us; /* X13 */
    struct ping_rx *rx;
    struct ping_socket *reading; /* NULL as soon as it was closed inside a callback */
    struct log_limit log_loop;
    struct echo_proxy_counters cnt;
};

#define PCOUNT(p, member) counter_add(&(p)->cnt.member, 1)

static inline void gauge_move(counter *c, int64_t by)
{
    counter_add(c, (uint64_t)by); /* a gauge is a counter that may go back */
}

static inline uint64_t ping_now_us(const struct echo_proxy *p)
{
    return loop_now_us(p->opt.loop);
}

/* ping_flow.c */
/** ping_flow_open() - a flow for @r, with its socket; *result says why not */
struct ping_flow *ping_flow_open(struct echo_proxy *p, const struct ping_key *key,
                                 const struct echo_proxy_request *r, int ifindex,
                                 enum echo_proxy_result *result);
void ping_flow_close(struct ping_flow *f);
/** ping_flow_tell() - an error about request @seq of @f to its client, if the limits allow */
void ping_flow_tell(struct ping_flow *f, uint16_t seq, const struct ping_error_record *e);
/** ping_flow_socket_broke() - a socket that cannot be read any more: it and its flows are closed (X25) */
void ping_flow_socket_broke(struct ping_socket *s);
/** ping_on_message(), ping_on_error() - what a socket has read. @late_us: how long a message lay in the kernel's queue */
void ping_on_message(struct ping_socket *s, const struct ip_addr *source, const struct ping_message *m,
                     uint64_t late_us);
void ping_on_error(struct ping_socket *s, const struct ping_error_record *e);
void ping_probe_on_timer(struct loop_timer *t);

#endif
