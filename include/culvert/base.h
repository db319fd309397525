/* base.h - what every folder shares: addresses, byte views, keyed hash, random numbers, rings, log, counters.
 * Knows     nothing of packets' meaning, of loops, sockets or threads; it sits below all other folders.
 * Threads   [any] unless a function says otherwise: there is no shared mutable state except the log's sink.
 * Memory    nothing here allocates, except where the name ends in _new; slab_init() and buffers_init() map address space, once. */
#ifndef CULVERT_BASE_H
#define CULVERT_BASE_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define CACHE_LINE                      64

/* ---- addresses ---------------------------------------------------------------------------------------- */

/* An IPv4 or IPv6 address in 16 bytes, network order. IPv4 is kept in its v4-mapped form (::ffff:a.b.c.d, RFC 4291
 * section 2.5.5.2), so that one comparison serves both families; a real packet with a mapped address is dropped before
 * it becomes one of these (icmp.md V11). All zero is "no address". */
struct ip_addr {
    union {
        uint8_t b[16];
        uint32_t w[4];
    };
};

struct ip_port {
    struct ip_addr addr;
    uint16_t port; /* host order */
};

struct ip_prefix {
    struct ip_addr addr; /* bits beyond len are zero */
    uint8_t len;         /* 0..128, counted in the 16-byte form: 10.0.0.0/8 has len 104 */
};

/* Where a flow wants to go: by name if there is one, else by address. */
struct host_port {
    const char *name;    /* NULL, or a host name of 1..255 bytes, without a trailing dot; borrowed */
    struct ip_addr addr; /* used when name is NULL */
    uint16_t port;       /* host order */
};

enum ip_proto { IP_PROTO_ICMP = 1, IP_PROTO_TCP = 6, IP_PROTO_UDP = 17, IP_PROTO_ICMPV6 = 58 };

/* One flow as its client sees it; the key of every table of flows. Compare with flow_key_equal(). */
struct flow_key {
    struct ip_addr client, target;
    uint16_t client_port, target_port; /* host order; echo: client_port is the id, target_port 0 */
    uint8_t proto;                     /* enum ip_proto */
    uint8_t pad[3];                    /* always zero, so that the key can be hashed as bytes */
};

#define IP_TEXT_MAX      48 /* longest ip_text() with its NUL */
#define IP_PORT_TEXT_MAX 56 /* longest ip_port_text() with its NUL */

struct ip_addr ip_from4(const uint8_t be[4]); /* bytes as they stand in a packet */
struct ip_addr ip_from6(const uint8_t be[16]);
bool ip_is4(const struct ip_addr *a);
bool ip_is_none(const struct ip_addr *a);
bool ip_equal(const struct ip_addr *a, const struct ip_addr *b);
bool ip_is_multicast(const struct ip_addr *a);
bool ip_is_loopback(const struct ip_addr *a);   /* 127/8 or ::1 */
bool ip_is_link_local(const struct ip_addr *a); /* 169.254/16 or fe80::/10 */
/* 0.0.0.0/8, 240/4 with 255.255.255.255, ::, multicast, loopback: never the end of a unicast flow (faults.md P6, P7) */
bool ip_is_martian(const struct ip_addr *a);
/* Reached through the public internet: unicast, and in no range of the special-purpose registries of IANA (RFC 6890) that stays
 * within a site, a host or a document. An IPv6 form of an IPv4 address (NAT64, 6to4) is what that address is. */
bool ip_is_public(const struct ip_addr *a);
/* A prefix shorter than 96 holds no IPv4 address: ::/0 is all of IPv6, 0.0.0.0/0 (len 96) all of IPv4. */
bool ip_in_prefix(const struct ip_addr *a, const struct ip_prefix *p);
bool ip_prefix_equal(const struct ip_prefix *a, const struct ip_prefix *b);
bool ip_port_equal(const struct ip_port *a, const struct ip_port *b);
bool flow_key_equal(const struct flow_key *a, const struct flow_key *b);

/** ip_parse() - "192.0.2.1", "2001:db8::1" or "[2001:db8::1]", and nothing else; no zone, no name
 * Return: 0, or -EINVAL and @out is untouched. */
int ip_parse(const char *text, struct ip_addr *out);
/** ip_prefix_parse() - "10.0.0.0/8", "fd00::/8" or a bare address; bits beyond the length are cleared
 * Return: 0, or -EINVAL and @out is untouched. */
int ip_prefix_parse(const char *text, struct ip_prefix *out);
/** ip_interface_parse() - the same, but host bits stay: the address of an interface with its on-link prefix */
int ip_interface_parse(const char *text, struct ip_prefix *out);
const char *ip_text(const struct ip_addr *a, char out[IP_TEXT_MAX]);           /* returns @out */
const char *ip_port_text(const struct ip_port *a, char out[IP_PORT_TEXT_MAX]); /* 1.2.3.4:5 or [::1]:5 */
socklen_t ip_to_sockaddr(const struct ip_port *a,
                         struct sockaddr_storage *out); /* returns the length for bind, connect */
int ip_from_sockaddr(const struct sockaddr *sa, struct ip_port *out); /* 0 or -EAFNOSUPPORT */

/* ---- byte views ---------------------------------------------------------------------------------------- */

/* Bytes that someone else owns and that we read from the front. Every reader of foreign bytes goes through one. */
struct span {
    const uint8_t *data;
    size_t len;
};

static inline void span_skip(struct span *s, size_t n) /* @n <= s->len is the caller's promise */
{
    s->data += n;
    s->len -= n;
}
bool span_u8(struct span *s, uint8_t *out); /* these take from the front, or return false and take nothing */
bool span_u16(struct span *s, uint16_t *out);
bool span_u32(struct span *s, uint32_t *out);
bool span_bytes(struct span *s, size_t n, const uint8_t **out);

/* A fixed buffer that we append to. Overflow sets `full` and appends nothing; check once at the end. */
struct buf {
    uint8_t *data;
    size_t len, cap;
    bool full;
};

void buf_init(struct buf *b, void *memory, size_t cap); /* @memory stays the caller's */
void buf_put(struct buf *b, const void *data, size_t len);
void buf_u8(struct buf *b, uint8_t v);
void buf_u16(struct buf *b, uint16_t v); /* network order, as all of these */
void buf_u32(struct buf *b, uint32_t v);

static inline uint16_t get_be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}
static inline uint32_t get_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline void put_be16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void put_be32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

/* Lower-case ASCII copy of a host name without its trailing dot. -EINVAL: empty, over 255 bytes, a label over 63 or empty,
 * or a byte that is no letter, digit, '-', '_' or '.' (faults.md S10). @out holds 256 bytes. */
int host_name_normalise(const char *text, size_t len, char out[256]);

/* ---- the internet checksum ------------------------------------------------------------------------------- */

/* RFC 1071, over 16-bit words in memory order; data may be odd only at the end */
uint32_t csum_add(uint32_t sum, const void *data, size_t len);
uint16_t csum_fold(uint32_t sum); /* folded, not complemented */
uint32_t csum_pseudo(const struct ip_addr *src, const struct ip_addr *dst, uint8_t proto, uint32_t l4_len);

/* ---- packets' link metadata ------------------------------------------------------------------------------ */

/* What the virtio-net header says of a packet (virtio 1.2 section 5.1.6); made by tun, used by stack, and back. */
enum pkt_gso { PKT_GSO_NONE = 0, PKT_GSO_TCP4, PKT_GSO_TCP6, PKT_GSO_UDP };

struct pkt_meta {
    uint8_t gso; /* enum pkt_gso */
    /* L4 checksum field holds the pseudo-header sum only: trust when read, the kernel fills when written */
    bool needs_csum;
    bool csum_valid;      /* read only: verified below us */
    bool ecn;             /* a super-segment whose first segment carries CWR */
    uint16_t gso_size;    /* payload bytes of each segment, > 0 when gso is set */
    uint16_t hdr_len;     /* written: IP + L4 header bytes; read: a hint that nobody may rely on */
    uint16_t csum_start;  /* L4 offset, valid when needs_csum */
    uint16_t csum_offset; /* 16 TCP, 6 UDP */
};

/* ---- keyed hash and random numbers ----------------------------------------------------------------------- */

struct hash_key {
    uint64_t k0, k1; /* secret, from the kernel's random source */
};

uint64_t hash_bytes(const struct hash_key *key, const void *data,
                    size_t len); /* SipHash-2-4 (Aumasson, Bernstein 2012) */
uint64_t hash_flow(const struct hash_key *key,
                   const struct flow_key *flow); /* SipHash-1-3 over the 37 bytes: tables, not tokens */

/* Which shard a packet belongs to (design.md 3.3, tcp-stack.md STR-4): one definition for the owners of the stack, the program that
 * the device runs (src/tun/tun_steer.c), and drivers that spread packets over shards by themselves. Always modulo the number of shards. */
struct steer {
    uint64_t start, client[4], target[4], client_port,
        target_port; /* secret factors of 32 bits each of a packet */
};
#define STEER_SPREAD 0x85ebca6bu
enum {
    STEER_HEADERS_MAX = 8
}; /* extension headers of IPv6 that are stepped over; the stack takes no more either */
void steer_init(struct steer *out, const struct hash_key *key);
uint16_t steer_client_port(const struct steer *k, const struct ip_addr *client,
                           uint16_t port); /* UDP; host order */
uint16_t steer_addresses(const struct steer *k, const struct ip_addr *client,
                         const struct ip_addr *target); /* echo, fragments */
/** steer_packet() - the same of a whole packet of a client, which nobody has checked yet
 * TCP by its 4-tuple, UDP by the client's address and port, an ICMP error by the packet of ours that it quotes, the rest by addresses.
 * Return: 0 for what is no IP packet. */
uint16_t steer_packet(const struct steer *k, const uint8_t *packet, size_t len);

/* A small generator for ids, jitter and ports' spread; seeded from the kernel, so that a test can fix it. Not for keys. */
struct prng {
    uint64_t s[4]; /* xoshiro256** (Blackman, Vigna 2018) */
};
/* The same seed, the same numbers; a generator is one thread's. */
void prng_seed(struct prng *r, uint64_t seed);
uint64_t prng_next(struct prng *r);
uint32_t prng_below(struct prng *r, uint32_t bound); /* 0..bound-1; bound > 0 */

/** random_bytes() - bytes from the kernel's random source; waits for it at boot (faults.md R11)
 * Return: 0, or -errno and @out must not be used. */
int random_bytes(void *out, size_t len);

/* ---- ring: one producer thread, one consumer thread, records of bytes ------------------------------------ */

/* A bounded single-producer single-consumer queue of records; the only thing that two workers share on the packet path.
 * Memory is the caller's, a power of two, zeroed (an anonymous mapping, so that only what is used is touched). */
struct ring {
    _Alignas(CACHE_LINE) _Atomic size_t head; /* consumer's position */
    _Atomic uint32_t taken;                   /* records taken, for max_records */
    /* The producer's line; the consumer reads it anyway, for tail, so what never changes costs it nothing here. */
    _Alignas(CACHE_LINE) _Atomic size_t tail; /* producer's position */
    uint32_t put;                             /* records put */
    uint32_t max_records;
    uint8_t *data;
    size_t cap; /* bytes, power of two */
};

void ring_init(struct ring *r, void *memory, size_t cap, uint32_t max_records);
/** ring_reserve() - room for one record of @len bytes, contiguous and 8-aligned [producer]
 * Return: where to write, then ring_commit(); NULL when full, or when @len is over half of the memory less 8. A record
 * that is reserved and not committed was never there. */
void *ring_reserve(struct ring *r, size_t len);
void ring_commit(struct ring *r); /* the consumer sees it from now on [producer] */
/** ring_peek() - the oldest record [consumer]; NULL when empty. It stays valid until ring_pop(). */
const void *ring_peek(struct ring *r, size_t *len);
void ring_pop(struct ring *r);            /* the one that ring_peek() showed [consumer] */
bool ring_is_empty(const struct ring *r); /* a hint for the other side */

/* ---- timing wheel ------------------------------------------------------------------------------------------- */

/* A hierarchical timing wheel (Varghese and Lauck 1987): tick 1 ms, 4 levels of 256. Time is an argument; O(1) to set and to
 * cancel; no memory beyond the nodes. Nodes that share a tick fire in the order they were set. */
struct wheel_timer {
    struct wheel_timer *next, *prev; /* NULL: not set */
    uint64_t deadline_us;
    void (*fn)(struct wheel_timer *t,
               uint64_t now_us); /* unset before the call; may set itself or others, or free its holder */
};

struct wheel {
    uint64_t now_tick;   /* everything up to here has fired */
    uint64_t operations; /* set, cancel and cascade moves, for PERF-6 */
    uint32_t pending;
    /* bitmaps of non-empty places, so that the next deadline is found without a walk */
    uint64_t occupied[4][4];
    struct wheel_timer slot[4][256]; /* list heads */
};

void wheel_init(struct wheel *w, uint64_t now_us);
void wheel_set(struct wheel *w, struct wheel_timer *t,
               uint64_t deadline_us); /* sets or moves; a past deadline fires at the next advance */
void wheel_cancel(struct wheel *w, struct wheel_timer *t); /* not set is fine */
static inline bool wheel_is_set(const struct wheel_timer *t)
{
    return t->next != NULL;
}
/** wheel_next_us() - no timer fires before this; UINT64_MAX when none is set. A lower bound (a cascade may come first). */
uint64_t wheel_next_us(const struct wheel *w);
/** wheel_advance() - fire all that is due at @now_us, in order of time; never early, at most one tick late */
void wheel_advance(struct wheel *w, uint64_t now_us);

/* ---- slab: objects of one size from reserved address space ------------------------------------------------- */

/* Address space for `limit` objects is reserved at once and touched on demand, in groups of whole pages. The group with
 * the lowest address that has room is used first, and in it what was freed last; so what lives gathers at the bottom, and
 * groups where nothing lives can be given back (slab_trim). No malloc after the start. One thread. */
struct slab_group {
    void *free_list;  /* freed objects, through their first words */
    uint32_t live;    /* objects in use */
    uint32_t touched; /* objects ever asked for since the memory was last given back */
    bool idle;        /* nothing lived here at the last slab_trim() */
};

struct slab {
    uint8_t *base;
    struct slab_group *groups;
    uint64_t *room; /* a bit a group: it has an object to give */
    uint32_t object_bytes, limit;
    uint32_t per_group, group_bytes, group_count;
    uint32_t lowest;  /* no group below this one has room */
    uint32_t touched; /* every index ever handed out is below this */
    uint32_t in_use, high_water;
    uint32_t resident;   /* groups that hold memory, whether something lives there or not */
    uint64_t failed;     /* asked for at the limit */
    size_t mapped_bytes; /* slab_init(): ours to unmap; 0: the caller's memory */
    bool zeroed;         /* objects are given out zeroed, and zeroed when they come back */
};
int slab_init(struct slab *s, size_t object_bytes,
              uint32_t limit); /* zeroed objects in a mapping of its own; 0 or -ENOMEM */
/** slab_init_at() - objects that are not zeroed, in the caller's memory of slab_region_bytes(), zeroed and page-aligned
 * Under AddressSanitizer an object that was given back is poisoned. */
void slab_init_at(struct slab *s, void *memory, size_t object_bytes, uint32_t limit);
size_t slab_region_bytes(size_t object_bytes, uint32_t limit); /* a multiple of the page size */
void slab_fini(struct slab *s);                                /* zeroed or initialised */
void *slab_get(struct slab *s);                                /* NULL at the limit */
size_t slab_resident_bytes(const struct slab *s); /* memory that it holds of the system, at most */
bool slab_would_grow(struct slab *s);             /* would the next object take more of it? */
void slab_put(struct slab *s, void *object);      /* NULL is fine */
uint32_t slab_index(const struct slab *s, const void *object);
void *slab_at(const struct slab *s,
              uint32_t index); /* index < touched; may be a free one: the caller marks its own */
/** slab_trim() - give back groups where nothing has lived since the trim before; call it now and then, off the packet path
 * @give_back: releases whole pages; they read as zero afterwards (madvise(MADV_DONTNEED)); NULL: does just that itself
 * Return: true when another call would find more, after some time without use. */
typedef void slab_give_back_fn(void *arg, void *memory, size_t bytes);
bool slab_trim(struct slab *s, slab_give_back_fn *give_back, void *arg);

/* ---- buffers: large ones, held for moments --------------------------------------------------------------------- */

/* The one that was given back last is handed out first: it is still in the cache. When all are back after a rush that took more
 * than `keep`, their memory goes back to the kernel. Not zeroed. No malloc. One thread. */
struct buffers {
    uint8_t *base;
    size_t bytes; /* of each */
    uint32_t limit, keep, touched, in_use;
    void *free_list;
};
int buffers_init(struct buffers *b, size_t bytes, uint32_t limit, uint32_t keep); /* 0 or -ENOMEM */
void buffers_fini(struct buffers *b);                                             /* zeroed or initialised */
void *buffers_get(struct buffers *b);                                             /* NULL at the limit */
void buffers_put(struct buffers *b, void *buffer);
size_t buffers_resident_bytes(const struct buffers *b); /* as slab_resident_bytes() */

/* ---- memory by purpose --------------------------------------------------------------------------------------------- */

/* What memory of the process is for. Each module adds what it holds of the system now, what is free in it included, when somebody
 * asks; nothing is counted on the way of a packet. */
#define MEMORY_PURPOSES(X)                                                                                   \
    X(MEMORY_PACKETS, "packets")   /* blocks of the stack: what waits, and what is being read */             \
    X(MEMORY_STACK, "stack")       /* its records: connections, segments, fragments, time-wait */            \
    X(MEMORY_FLOWS, "flows")       /* the forwarder's */                                                     \
    X(MEMORY_UPSTREAM, "upstream") /* streams, handshakes, associations, health of servers */                \
    X(MEMORY_TLS, "tls")           /* sessions, and buffers lent to them */                                  \
    X(MEMORY_HTTP2, "http2")       /* sessions, streams and what waits in them */                            \
    X(MEMORY_DNS, "dns")           /* questions, answers, the book of names */                               \
    X(MEMORY_PINGS, "pings")       /* pings that leave from this host */                                     \
    X(MEMORY_RULES, "rules")       /* rules and lists */                                                     \
    X(MEMORY_GEODATA, "geodata") /* files that are mapped: the kernel takes their pages back when it must */ \
    X(MEMORY_OTHER, "other")     /* resident, and none of these: program, libraries, tables, log, API */
enum memory_purpose {
#define MEMORY_PURPOSE_MEMBER(purpose, name) purpose,
    MEMORY_PURPOSES(MEMORY_PURPOSE_MEMBER)
#undef MEMORY_PURPOSE_MEMBER
        MEMORY_PURPOSE_COUNT
};
struct memory_use {
    uint64_t bytes[MEMORY_PURPOSE_COUNT];
};
const char *memory_purpose_name(enum memory_purpose p); /* "packets", static */
void memory_add_slabs(struct memory_use *use, enum memory_purpose p, const struct slab *const *slabs,
                      size_t n);
uint64_t memory_sum(const struct memory_use *use); /* but for geodata */

/* ---- log ----------------------------------------------------------------------------------------------------- */

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

struct log_options {
    enum log_level level;   /* default LOG_INFO */
    enum log_format format; /* default LOG_TEXT */
    const char *
        output; /* "stderr" (default), "stdout" or a path, opened for append; borrowed until log_init returns */
};

/** log_init() - set where the lines of the calling thread's log go; may be called again to reopen. Before it, to stderr at LOG_INFO
 * Return: 0, or -errno of opening the file; then the old sink stays. */
int log_init(const struct log_options *opt);
bool log_enabled(enum log_level level); /* would a line of it be written by the calling thread's log? */
/* One line, no newline in @fmt. Never blocks for long, never fails: lines that cannot be written are counted (faults.md R8).
 * Control bytes in arguments are escaped. Secrets and payload never reach it. */
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void log_vline(enum log_level level, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
struct log_field {    /* borrowed */
    const char *name; /* a JSON name that needs no escape */
    const char *text; /* NULL: @number */
    uint64_t number;
};
/** log_event() - one line that programs read as well: as text the sentence of @fmt, as JSON @event as its message and @fields beside it
 * Fields that do not fit the line are left out, the last ones first. */
void log_event(enum log_level level, const char *event, const struct log_field *fields, size_t count,
               const char *fmt, ...) __attribute__((format(printf, 5, 6)));
uint64_t log_lines_lost(void); /* by the calling thread's log */

/* The process has one log, and every thread writes to it until it is given another: a gateway inside another program has its own. */
struct log_sink;
/* @line: without time, level and newline; escaped; borrowed. Any thread that uses the log calls it, several at once. */
typedef void log_fn(void *arg, enum log_level level, const char *line);
/** log_sink_new() - one more log; @fn: takes its lines, and then log_init() sets the level only; NULL: lines go where log_init() says
 * Return: 0 or -ENOMEM. log_sink_free() it when no thread uses it any more; NULL is fine there. */
int log_sink_new(log_fn *fn, void *arg, struct log_sink **out);
void log_sink_free(struct log_sink *l);
/** log_use() - lines of the calling thread go there from now on; NULL: to the process's. Return: what it used before */
struct log_sink *log_use(struct log_sink *l);
/* Of the calling thread, for a thread that it starts; NULL: the process's. */
struct log_sink *log_in_use(void);

#define log_error(...)   log_line(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)                                                                                       \
    do {                                                                                                     \
        if (log_enabled(LOG_DEBUG))                                                                          \
            log_line(LOG_DEBUG, __VA_ARGS__);                                                                \
    } while (0)

/* At most @per_second lines of one cause; the next line after a pause says how many were held back (faults.md G3).
 * One object per cause and thread. */
struct log_limit {
    uint64_t window_us;
    uint32_t used, held;
};
/** log_limit_pass() - may a line of this cause be written now? @held gets the number held back since the last one. */
bool log_limit_pass(struct log_limit *l, uint64_t now_us, uint32_t per_second, uint32_t *held);

/* ---- errors and counters --------------------------------------------------------------------------------------- */

/* A sentence for a person, beside a -errno for the program. */
struct err {
    char text[256];
};
/* What does not fit is cut. */
int err_set(struct err *e, int r, const char *fmt, ...)
    __attribute__((format(printf, 3, 4))); /* returns @r; @e may be NULL */

/** err_set_listen() - why nobody can listen @at, and what would work; @r: -errno of bind or listen, which it returns
 * @what: "api.listen: ", or "" */
int err_set_listen(struct err *e, int r, const char *what, const struct ip_port *at);

/* Counters are plain integers of one thread; another thread reads them through counter_read(), torn-free on 64 bits. */
typedef uint64_t counter;
static inline uint64_t counter_read(const counter *c)
{
    return __atomic_load_n(c, __ATOMIC_RELAXED);
}
static inline void counter_add(counter *c, uint64_t n)
{
    __atomic_store_n(c, *c + n, __ATOMIC_RELAXED);
} /* no locked instruction */
/* clang-format off */
/* A histogram of round trips, among other counters of one list: members NAME_1ms ... NAME_sum_us. */
enum { RTT_STEPS = 8 };
#define RTT_COUNTERS(X, member, name) \
    X(member##_1ms, name "_le_1ms") \
    X(member##_3ms, name "_le_3ms") \
    X(member##_10ms, name "_le_10ms") \
    X(member##_30ms, name "_le_30ms") \
    X(member##_100ms, name "_le_100ms") \
    X(member##_300ms, name "_le_300ms") \
    X(member##_1s, name "_le_1s") \
    X(member##_more, name "_more") \
    X(member##_sum_us, name "_sum_us")
#define RTT_COUNT(c, member, rtt_us) \
    rtt_count((counter *const[RTT_STEPS]){ &(c)->member##_1ms, &(c)->member##_3ms, &(c)->member##_10ms, \
        &(c)->member##_30ms, &(c)->member##_100ms, &(c)->member##_300ms, &(c)->member##_1s, &(c)->member##_more }, \
        &(c)->member##_sum_us, rtt_us)
/* clang-format on */
/** rtt_count() - one more; @le: up to 1 ms, 3, 10, 30, 100, 300, 1 s, more; each is counted in one place. Use RTT_COUNT() */
void rtt_count(counter *const le[RTT_STEPS], counter *sum_us, uint64_t rtt_us);

/* A named counter, for status and metrics. A folder hands out a table of these over its own struct. */
struct counter_desc {
    const char *name; /* "ip.short", "tcp.rst_sent" */
    uint32_t offset;  /* of the counter in the folder's struct */
};

#endif
