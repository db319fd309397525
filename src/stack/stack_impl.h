/* stack_impl.h - the inside of a shard: what the IP half and the TCP half of src/stack share. The IP half:
 * stack.c pool.c csum.c ip_*.c frag.c icmp*.c udp.c. The TCP half: tcp_*.c. They meet only here. */
#ifndef CULVERT_STACK_IMPL_H
#define CULVERT_STACK_IMPL_H

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "culvert/stack.h"

/* ---- memory: pools inside the region that stack_init() was given (tcp-stack.md 1.2) -------------------- */

#define PAGE_BYTES      4096
#define STACK_POOLS_MAX 24

/* A slab of the region, with a name for status and a hook for tests. */
struct pool {
    const char *name;
    struct slab slab;
    uint32_t fail_every; /* tests: every k-th get fails; 0 = never (MEM-3) */
    uint32_t fail_count;
};
void *pool_get(struct pool *p); /* NULL at the limit; the memory is NOT zeroed */
void pool_put(struct pool *p, void *object);
uint32_t pool_index(const struct pool *p, const void *object); /* 0..limit-1: for tokens and tables */
void *pool_at(const struct pool *p, uint32_t index);

/* A piece of packet memory: a slot that a packet was read into, or a chunk of the send queue or of compacted
 * data. The block's own header lies in its headroom; `data` never moves. All blocks together obey
 * config.buffer_cap_bytes. */
#define BLOCK_HEADROOM 128
enum block_class { BLOCK_CHUNK2, BLOCK_CHUNK16, BLOCK_CHUNK64, BLOCK_SLOT, BLOCK_CLASSES };
struct block {
    uint32_t bytes;     /* usable: 2048, 16384 or 65536 */
    uint32_t refs;      /* pieces of it that are still held; block_put() at 0 gives it back */
    uint8_t class_;     /* enum block_class */
    struct block *next; /* the holder's list */
    uint32_t seq,
        fill; /* the holder's: TCP keeps the sequence number of the first byte, and the bytes used */
};
static inline uint8_t *block_data(struct block *b)
{
    return (uint8_t *)b + BLOCK_HEADROOM;
}
size_t blocks_region_bytes(const struct stack_config *c);
void blocks_init(struct stack *s, uint8_t **region);
size_t blocks_resident_bytes(const struct stack *s);
struct block *block_get(struct stack *s, enum block_class c); /* refs = 1; NULL: cap reached */
void block_put(struct stack *s, struct block *b);             /* one reference less */
size_t block_cost(const struct stack *s,
                  enum block_class c); /* what one counts against the cap: its part of whole pages */
enum block_class block_class_for(size_t bytes);
/* The only function that copies payload in userspace (PERF-1 counts it). */
void payload_copy(struct stack *s, void *to, const void *from, size_t len);

/* ---- packets ------------------------------------------------------------------------------------------- */

/* A checked view of one packet; made by ip_input.c, borrowed by everything above until it returns. */
struct packet {
    struct ip_addr src, dst;
    const uint8_t *ip; /* IP header, for quotes */
    uint32_t ip_len;   /* whole packet, padding cut off */
    const uint8_t *l4; /* behind all IP and extension headers */
    uint32_t l4_len;
    uint8_t proto, ttl, tos;
    bool v6, df, reassembled;
    bool csum_ok;         /* L4 checksum trusted (VN-2): do not verify */
    bool local;           /* dst is assigned to us */
    bool by_prefix;       /* dst is in a local prefix, and echo to it goes the way of prefix_echo */
    uint8_t prefix_echo;  /* enum local_echo */
    bool fragment_header; /* IPv6: it had one, were it an atomic one */
    bool router_alert;    /* IPv6: in its hop-by-hop options */
    uint8_t ext_headers;  /* IPv6: walked so far, before and behind the header of an atomic fragment */
    uint32_t ext_bytes;
    bool broadcast, multicast; /* dst; TCP and UDP never see these */
    uint32_t origin;           /* the shard that read it; == config.shard unless handed off */
    struct pkt_meta meta;
    struct block *
        slot; /* where it lies, if it may be kept: take a reference and it is kept; NULL: copy what you keep */
};

/* IPv4 options, padded to whole words. */
struct ip_options {
    uint8_t data[40];
    uint8_t len;
};

/* What goes out. The L4 header is built by the caller with its checksum field 0; ip_output() puts the IP
 * header in front of it and the checksum in (pseudo-header sum only, when the device fills the rest). */
struct ip_out {
    struct ip_addr src, dst;
    uint8_t proto, ttl, tos;
    bool df;
    uint16_t ip_id;       /* IPv4, with df clear */
    uint32_t flow_label;  /* IPv6 */
    uint16_t csum_offset; /* of the L4 checksum from the L4 header: 16 TCP, 6 UDP, 2 ICMP */
    uint16_t gso_size;    /* > 0: super-segment; the caller saw that the device takes it */
    bool ecn_cwr;
    uint32_t path_mtu; /* of its way, where that is known to be smaller than the device's; 0: not known */
    const struct ip_options *options; /* IPv4; NULL: none */
};
/** ip_output() - send one packet or super-segment
 * @l4: header, with at least 48 writable bytes before it (IP header goes there); @l4_len its length
 * Packets over the MTU without gso_size are fragmented (UDP, ICMP; IPv4 without df, IPv6 always may) by this
 * function.
 * Return: 0 or -errno; counted either way. */
int ip_output(struct stack *s, const struct ip_out *o, uint8_t *l4, size_t l4_len,
              const struct iovec *payload, int ranges);
#define IP_OUT_HEADROOM 64

/** icmp_send_error() - an ICMP error about @p, limited and with the exceptions of icmp.md U7; @mtu for
 * too-big
 * Return: true when it was sent. */
bool icmp_send_error(struct stack *s, const struct packet *p, enum stack_reject why, uint32_t mtu);
/** The same about a packet that is gone: headers are rebuilt. @l4: at least its first 8 bytes */
bool icmp_send_error_for(struct stack *s, const struct flow_key *flow, const uint8_t *l4, size_t l4_len,
                         const struct ip_addr *offender, enum stack_reject why, uint32_t mtu);

/* ---- doors between the halves -------------------------------------------------------------------------- */

void tcp_input(struct stack *s,
               struct packet *p); /* TCP header not yet looked at; may take references on p->slot */
/* An ICMP error whose quote names a TCP flow of ours (ICM-1..3): type and code, too-big's MTU, the quoted
 * sequence number. False: this shard does not know that flow. */
bool tcp_icmp_error(struct stack *s, const struct flow_key *flow, uint32_t quoted_seq, bool v6, uint8_t type,
                    uint8_t code, uint32_t mtu);
void tcp_batch_end(struct stack *s); /* callbacks, then output, for connections touched since the last call */
bool tcp_batch_pending(const struct stack *s);
size_t tcp_memory_bytes(
    const struct stack_config *c);            /* tables of the TCP half; its pools are set up in tcp_init() */
void tcp_init(struct stack *s, void *memory); /* memory: tcp_memory_bytes(), 64-byte aligned, zeroed */
void tcp_fini(struct stack *s);
void tcp_mtu_changed(struct stack *s);
bool tcp_trim(struct stack *s, slab_give_back_fn *give_back, void *arg); /* as stack_trim(), for its tables */

void udp_input(struct stack *s, struct packet *p);
/* A too-big whose quote names a mapping of ours. False: this shard has no such mapping. */
bool udp_icmp_error(struct stack *s, const struct flow_key *flow, bool v6, uint32_t mtu);
void icmp_input(struct stack *s, struct packet *p);

#define WALK_BURST 1000 /* walks that may be saved up of what a second allows (handoff.c) */
/* Pass a packet to another shard. STR-2: TCP that this shard does not know walks on until it is back at its
 * origin.
 * Return: true when it is out of our hands (or dropped because a ring is full, counted); false: it has come
 * round, it is unknown. */
bool stack_pass_on(struct stack *s, const struct packet *p);
bool icmp_owner_took_it(struct stack *s, const struct packet *p); /* an echo request, or a piece of one */
/* A datagram of this client and port, or an error about one to it (design.md 3.3). */
bool udp_owner_took_it(struct stack *s, const struct packet *p, const struct ip_addr *client, uint16_t port);

/* A token bucket: `rate` a second, at most `burst` saved. */
struct bucket {
    uint64_t last_us;
    uint64_t credit; /* in millionths of a token */
};
void bucket_fill(struct bucket *b, uint64_t now_us, uint32_t burst);
bool bucket_take(struct bucket *b, uint64_t now_us, uint32_t rate, uint32_t burst);

/* Take `bytes` of the region, aligned to `align`; used by the init functions only. */
void *region_take(uint8_t **at, size_t bytes, size_t align);
void pool_init(struct stack *s, struct pool *p, const char *name, uint32_t object_bytes, uint32_t limit,
               uint8_t **region);
size_t pool_region_bytes(uint32_t object_bytes, uint32_t limit);

struct tcp_shard; /* tcp_impl.h */
struct udp_shard; /* udp.c */
struct echo_shard;
struct frag_shard;

struct endpoint_shard;
struct iface_entry;

struct iface_lengths {
    uint32_t count[129];
    uint64_t used[3]; /* a bit a length: something has it */
};

/* The interface: iface.c. */
struct iface {
    struct pool entries;
    struct hash_key key;
    struct iface_entry **table;
    uint32_t places; /* power of two */
    struct iface_lengths onlink, local;
    struct iface_entry *first[2], *last[2]; /* addresses of IPv4, IPv6, in order */
    uint64_t touches;                       /* memory that lookups read, for the tests of icmp.md M1 */
    bool down;
};

struct observer {
    stack_observer *fn;
    void *arg;
};

struct stack {
    struct stack_config cfg;
    struct stack_events ev;
    void *arg;    /* of the events */
    void *driver; /* of emit and handoff */
    uint64_t now_us;
    struct prng prng;
    struct steer steer; /* of cfg.steer_key */
    struct wheel wheel;
    struct stack_counters cnt;
    struct pool *pools[STACK_POOLS_MAX]; /* all of them, for status and trim; pool_init() puts them here */
    size_t pool_count;
    struct pool blocks[BLOCK_CLASSES];
    uint64_t blocks_trim_us; /* not before this are free blocks looked for again */
    size_t block_bytes;      /* of all blocks in use, against cfg.buffer_cap_bytes */
    size_t most_cap_bytes;   /* that this cap may be: what the pools were made for */
    struct block *rx;        /* the slot that the next packet is read into */
    struct block *rx_spare;  /* takes its place when it is kept; NULL: it may not be kept */
    struct bucket icmp_bucket, echo_bucket, rst_bucket, tw_bucket, walk_bucket;
    struct iface iface;
    struct observer observer[8];
    uint32_t observers;
    struct endpoint_shard *echo_endpoints;
    struct ip_options reply_options; /* of the echo request that is being handled */
    struct tcp_shard *tcp;
    struct udp_shard *udp;
    struct echo_shard *echo;
    struct frag_shard *frag;
    bool in_batch;   /* callbacks are running */
    bool in_advance; /* timers are running */
};

#define COUNT(s, member) counter_add(&(s)->cnt.member, 1)
/* A counter that each family has of its own. */
#define COUNT_ICMP(s, v6, member) counter_add((v6) ? &(s)->cnt.icmp6_##member : &(s)->cnt.icmp4_##member, 1)
#define COUNT_ADD(s, member, n)   counter_add(&(s)->cnt.member, (n))

#endif
