/* stack.h - a userspace TCP/IP stack for gateways: packets in, byte streams and datagrams out, and back.
 *
 * Knows     IPv4, IPv6, ICMP, UDP and passive TCP for ANY destination address. It has no clock, socket,
 *           thread or allocator of its own: time is an argument (monotonic microseconds), memory is handed
 *           over once, packets leave by a callback.
 * Threads   one stack is one shard, used by one thread. Many stacks may live in one process; they share
 *           nothing.
 * Calls     callbacks run only inside stack_batch_end() and stack_advance(), except emit, handoff and all of
 *           echo (handlers, endpoints, observers), which may run inside any call. Every function below may be
 *           called from every callback except emit and handoff.
 * Lifetime  a request is borrowed until completed or its on_..._gone; a connection until its on_tcp_closed
 *           (the last call). */
#ifndef CULVERT_STACK_H
#define CULVERT_STACK_H

#include <sys/uio.h>

#include "culvert/base.h"

struct stack;
struct tcp_request; /* a client's SYN that waits for our decision (icmp.md 6.1) */
struct tcp_conn;    /* an accepted connection */
struct udp_request; /* a datagram that matched no endpoint (icmp.md 6.2) */
struct udp_endpoint;

/* How to turn something down. RST is for TCP; for UDP and echo it means port unreachable. */
enum stack_reject {
    REJECT_SILENT,
    REJECT_RST,
    REJECT_NET_UNREACH,      /* 3/0, v6 1/0 */
    REJECT_HOST_UNREACH,     /* 3/1, v6 1/3 */
    REJECT_PORT_UNREACH,     /* 3/3, v6 1/4 */
    REJECT_NET_PROHIBITED,   /* 3/9, v6 1/1 */
    REJECT_HOST_PROHIBITED,  /* 3/10, v6 1/1 */
    REJECT_ADMIN_PROHIBITED, /* 3/13, v6 1/1 */
    REJECT_POLICY,           /* 3/13, v6 1/5 */
    REJECT_TTL_EXCEEDED,     /* 11/0, v6 3/0 */
};

/* ---- echo (icmp.md 3) ---------------------------------------------------------------------------------- */

enum ip_family { IP_FAMILY_4 = 4, IP_FAMILY_6 = 6 };
enum echo_verdict { ECHO_PASS, ECHO_CONSUMED };
enum echo_result {
    EV_SENT,
    EV_ALREADY,      /* a verb was used before */
    EV_STALE,        /* the callback is over, or the token is spent, expired or unknown */
    EV_NOT_REQUEST,  /* it is an echo reply: nobody answers those */
    EV_NO_ROUTE,     /* no address to send it from */
    EV_RATE_LIMITED, /* icmp.md 2.5 */
    EV_DROPPED,      /* not allowed, too large, or the device did not take it */
    EV_LIMIT,
    EV_POSTED, /* on its way to the shard that owns the token */
};
enum { ECHO_TEMPORARY = 1, ECHO_BROADCAST = 2, ECHO_MULTICAST = 4, ECHO_REASSEMBLED = 8, ECHO_IS_REPLY = 16 };
/* (generation, shard, slot), 32, 16 and 16 bits; 0 is none. Not given twice within 2^32 detaches of a slot. */
typedef uint64_t echo_token;

struct echo_req { /* valid only inside the callback; every pointer dies with it */
    struct ip_addr src, dst;
    uint16_t id, seq;
    uint8_t code, ttl, tos;
    bool df;
    uint32_t flags; /* ECHO_* */
    uint64_t rx_time_us;
    const uint8_t *payload; /* after the 8-byte ICMP header */
    uint32_t payload_len;
    const uint8_t *ip_header; /* unmodified, for quotes; the whole datagram follows */
    uint16_t ip_header_len;
    struct stack *stack; /* whose request this is; a copy of this struct carries no right to answer */
};

/* An echo handler; runs in stack_input(). It must not block. Any verb may be called in it; the interface
 * stays as it is while it runs (stack_add_address() and its kin return -EBUSY). */
typedef enum echo_verdict echo_handler(void *arg, struct echo_req *r);
enum { ECHO_KIND_REQUEST = 1, ECHO_KIND_REPLY = 2 };
/** stack_set_echo_handler() - ask @fn about echo messages of this family; NULL: nobody
 * @kinds: ECHO_KIND_*; replies are those that no endpoint waits for. Takes effect with the next message, in
 *         one piece.
 * Return: 0; -EAFNOSUPPORT: the stack was built without this family. */
int stack_set_echo_handler(struct stack *s, enum ip_family family, uint32_t kinds, echo_handler *fn,
                           void *arg);

/* The synchronous verbs: one of them takes effect, once, whatever the verdict says (icmp.md W3, W4). */
/** echo_reply() - the stack's built-in reply, now: addresses swapped, id, seq and payload kept (icmp.md 2.4) */
enum echo_result echo_reply(struct echo_req *r);
/** echo_reject() - an ICMP error that quotes the request, now (icmp.md 3.3); REJECT_SILENT: nothing, counted so */
enum echo_result echo_reject(struct echo_req *r, enum stack_reject why);
/* 3/4 with @mtu_bytes, v6 2/0: the link to the target takes no longer packet (icmp.md U8) */
enum echo_result echo_reject_too_big(struct echo_req *r, uint32_t mtu_bytes);
enum echo_result echo_expire(struct echo_req *r); /* time exceeded in transit (icmp.md X30) */

enum { ECHO_KEEP_PAYLOAD = 1, ECHO_KEEP_HEADER = 2, ECHO_ALLOW_DUP = 4 };
/** echo_detach() - the right to answer later; lives config.echo_token_ms, then nothing is sent
 * @keep: PAYLOAD: for replies with the request's own payload; HEADER: its IP header, for exact quotes; both:
 *        the whole datagram. ALLOW_DUP: may be completed any number of times until it expires. Nothing else
 *        is copied.
 * Return: 0: caps met (4,096 tokens and 4 MiB kept in a shard), or the right to answer is used up. */
echo_token echo_detach(struct echo_req *r, uint32_t keep);
static inline uint32_t echo_token_shard(echo_token t)
{
    return (uint32_t)(t >> 16) & 0xffff;
}

enum echo_outcome_kind {
    ECHO_OUT_DROP, /* nothing is sent; the token is spent */
    ECHO_OUT_REPLY,
    ECHO_OUT_ERROR,  /* an ICMP error as type and code say */
    ECHO_OUT_EXPIRE, /* time exceeded, code 0 */
    ECHO_OUT_REJECT, /* as `why` says */
};

/* What became of a request that was taken away: every pointer is borrowed until the call returns. */
struct echo_outcome {
    enum echo_outcome_kind kind;
    enum stack_reject why; /* REJECT */
    uint8_t type, code;    /* ERROR: ICMP of the client's family */
    uint32_t info; /* ERROR: bytes 4 to 7, host order: the MTU of a too-big; for 12/0 the pointer << 24 */
    /* REPLY: who answered; none: the address that was asked. Others: the offender; none: our gateway address,
     * else the address that was asked. An address that is neither of these nor assigned needs the spoofing
     * switch. */
    struct ip_addr source;
    const uint8_t *payload; /* REPLY: what came back; NULL: the request's own, kept by the token */
    uint32_t payload_len;
    /* errors: the client's datagram from its IP header on; NULL: as kept, else rebuilt */
    const uint8_t *quote;
    uint32_t quote_len;
    uint8_t ttl;  /* REPLY: 0: the stack's own */
    bool has_tos; /* REPLY: else the request's */
    uint8_t tos;
    bool relayed; /* errors: another router's words, whose limit is its relay's affair (icmp.md E13) */
};

/** echo_complete() - answer a detached request [the thread of @s]
 * Another shard's token goes to events.echo_post and comes back as EV_POSTED, or EV_DROPPED when it has no
 * room.
 * Return: EV_STALE: unknown, expired or spent, or its destination is no longer ours (icmp.md A6). */
enum echo_result echo_complete(struct stack *s, echo_token token, const struct echo_outcome *o);
/** echo_post() - the same from [any] thread: always by events.echo_post; @s: any shard of the group, alive */
enum echo_result echo_post(const struct stack *s, echo_token token, const struct echo_outcome *o);

/* Which echo an outcome belongs to when there is no token: as the client sent it. */
struct echo_addr {
    struct ip_addr client, target;
    uint16_t id, seq;
};
/** echo_inject() - send an outcome to a client: late or duplicate replies, errors of a proxied echo (icmp.md
 * 4.4, 4.5)
 * REPLY needs o->payload (or payload_len 0); ERROR, EXPIRE and REJECT without a quote rebuild one from @a. */
enum echo_result echo_inject(struct stack *s, const struct echo_outcome *o, const struct echo_addr *a);

/** echo_outcome_pack() - an outcome as flat bytes, for a ring between threads; @out may be NULL
 * Return: bytes needed; nothing is written when @cap is less. */
size_t echo_outcome_pack(const struct echo_outcome *o, void *out, size_t cap);
/* The pointers of *out lie in @data; false: these bytes are no outcome. */
bool echo_outcome_unpack(const void *data, size_t len, struct echo_outcome *out);

/* The same in gVisor's shape: a handler that says whether it handled the message, and a Reply() that may be
 * called again. Both kinds of echo message, both families; the memory is the caller's and outlives the stack. */
struct forwarder_request {
    struct echo_req *req; /* what it is; NULL after the callback */
    const struct forwarder *owner;
    bool replied;
};
typedef bool forwarder_fn(void *arg, struct forwarder_request *r);
struct forwarder {
    forwarder_fn *fn;
    void *arg;
    struct forwarder_request current; /* the one that may reply */
};
void forwarder_init(struct forwarder *f, struct stack *s, forwarder_fn *fn, void *arg);
/** forwarder_reply() - the built-in reply, at most once. true: it is sent, now or by an earlier call; false:
 * not a request,
 * not sent, after the callback, or on a copy of the request */
bool forwarder_reply(struct forwarder_request *r);

/* ---- the interface (icmp.md 3.5, 6.3) ------------------------------------------------------------------ */

/* All of these return -EBUSY inside an echo handler and -EAFNOSUPPORT for a family that the stack was built without. */
enum {
    ADDRESS_PRIVACY = 1
}; /* of limited life (RFC 8981): we speak as another one if we can; answered like any other */
/** stack_add_address() - an address is ours from the next packet on; config.max_addresses of them
 * @onlink_len: of its prefix, in the 16-byte form, for broadcast addresses and the choice of a source; 0: the
 *              address alone
 * Return: 0; -EEXIST; -EINVAL: not a unicast address; -ENOBUFS. The first of a family is the gateway address. */
int stack_add_address(struct stack *s, const struct ip_addr *a, uint8_t onlink_len, uint32_t flags);
int stack_remove_address(struct stack *s,
                         const struct ip_addr *a); /* 0 or -ENOENT; tokens for it become stale */
/* Echo to an address of a local prefix: asked of the handler, else as config.echo_temporary says; answered by
 * the stack itself; neither answered nor asked. */
enum local_echo { LOCAL_ECHO_HANDLER, LOCAL_ECHO_REPLY, LOCAL_ECHO_SUPPRESS };
/** stack_add_local_prefix() - all its addresses are ours, without being counted, even when not promiscuous;
 * again: changes
 * @echo. The longest prefix decides. Return: 0; -EINVAL; -ENOBUFS (config.max_local_prefixes). */
int stack_add_local_prefix(struct stack *s, const struct ip_prefix *p, enum local_echo echo);
int stack_remove_local_prefix(struct stack *s, const struct ip_prefix *p); /* 0 or -ENOENT */
int stack_set_promiscuous(struct stack *s, bool on); /* -EINVAL: with config.handle_local (icmp.md O26) */
/* Packets may leave from any address, not only from assigned ones (icmp.md 6.3). */
void stack_set_spoofing(struct stack *s, bool on);
int stack_set_up(struct stack *s,
                 bool up); /* down: packets that arrive are counted and dropped; tokens are stale */
void stack_set_icmp_limits(struct stack *s, uint32_t errors_per_second, uint32_t errors_burst);
void stack_set_echo_limits(struct stack *s, bool limited, uint32_t replies_per_second,
                           uint32_t replies_burst);

/** stack_observe() - show @fn every unfragmented datagram that arrives, before its addresses and checksum are judged
 * [inside stack_input()]; borrowed, changes nothing. Return: 0 or -ENOBUFS (8 observers). */
typedef void stack_observer(void *arg, const uint8_t *packet, size_t len);
int stack_observe(struct stack *s, stack_observer *fn, void *arg);
void stack_unobserve(struct stack *s, stack_observer *fn, void *arg); /* the same pair; not there is fine */

/* ---- ICMP endpoints: a ping from inside the stack ------------------------------------------------------ */

struct icmp_endpoint;
struct icmp_bind {
    enum ip_family family;
    struct ip_addr local, remote; /* none: any */
    uint16_t id;
};
struct icmp_reply { /* borrowed: dies with the callback */
    struct ip_addr from, to;
    uint16_t id, seq;
    uint8_t ttl, tos;
    uint64_t rx_time_us;
    const uint8_t *payload;
    size_t payload_len;
    bool is_error; /* instead of a reply: about our request to `from` */
    struct ip_addr offender;
    uint8_t type, code;
    uint32_t info;
};
/* Runs in stack_input(); may close its endpoint, or open others. */
typedef void icmp_reply_fn(void *user, const struct icmp_reply *r);
struct icmp_request {
    struct ip_addr to;
    uint16_t seq;
    uint8_t ttl, tos; /* ttl 0: the stack's own */
    const void *payload;
    size_t payload_len;
};
/** icmp_endpoint_open() - wait for echo replies with this id; echo requests never reach it (icmp.md section 1)
 * Return: 0; -EADDRINUSE; -EADDRNOTAVAIL: local is not assigned, and spoofing is off; -EAFNOSUPPORT; -ENOBUFS
 * (256). */
int icmp_endpoint_open(struct stack *s, const struct icmp_bind *b, icmp_reply_fn *fn, void *user,
                       struct icmp_endpoint **out);
/** icmp_endpoint_send() - one echo request, now; @r is borrowed for the call, replies come to its icmp_reply_fn */
enum echo_result icmp_endpoint_send(struct icmp_endpoint *e, const struct icmp_request *r);
void icmp_endpoint_close(struct icmp_endpoint *e); /* no reply after this */

/* ---- what the embedder is told ------------------------------------------------------------------------- */

/* One datagram, or a row of them: what one client socket sent to one target within a batch, in order. */
struct udp_datagram {
    struct ip_port client, target;
    const struct iovec *data; /* borrowed until the callback returns; a range holds whole datagrams */
    int ranges;               /* 1 to UDP_ROW_RANGES */
    size_t len;               /* of all ranges; 0 is a datagram too */
    uint16_t gso_size;        /* > 0: a row of datagrams of this size, the last may be shorter; 0: one */
    uint8_t ttl, tos;         /* the same for all */
};
#define UDP_ROW_RANGES 64

struct stack_events {
    void *driver; /* the `arg` of emit and handoff; NULL: stack_init()'s arg serves them, too */
    /* One packet or super-segment: up to STACK_EMIT_IOV ranges, the first holds all headers; valid until it
     * returns. 0, or -errno: then it counts as sent and lost. */
    int (*emit)(void *arg, const struct iovec *iov, int iovcnt, const struct pkt_meta *meta);
    /* This packet belongs to @to_shard, or may; give it to that shard's stack_input_handoff() with the same
     * @origin. false: no room, the packet is dropped and counted. NULL with one shard. */
    bool (*handoff)(void *arg, uint32_t to_shard, uint32_t origin, const void *packet, size_t len,
                    const struct pkt_meta *meta);

    /* A new SYN that nothing knows. Decide now or later: tcp_request_accept(), _reject() or _complete(). */
    void (*on_tcp_request)(void *arg, struct tcp_request *r);
    /* the client reset or replaced it, or it expired: do not touch it again */
    void (*on_tcp_request_gone)(void *user, int err);
    void (*on_tcp_open)(void *user);     /* the client's ACK completed the handshake */
    void (*on_tcp_readable)(void *user); /* new in-order bytes or the client's FIN; at most once a batch */
    void (*on_tcp_writable)(void *user); /* the send buffer was full and has fallen below 2/3 */
    /* 0: both directions ended in order; -ECONNRESET: client's RST; -ETIMEDOUT: user or keep-alive timeout;
     * -ECONNABORTED: ours */
    void (*on_tcp_closed)(void *user, int err);

    void (*on_udp_request)(
        void *arg, struct udp_request *r);   /* once per client port until decided; holds the newest 16 */
    void (*on_udp_request_gone)(void *user); /* expired undecided */
    void (*on_udp_datagram)(void *user, const struct udp_datagram *d); /* or a row of them */
    /* A datagram to a broadcast address or a joined group; nobody can be its endpoint, udp_inject() can
     * answer it (icmp.md UF6). Runs in stack_input(). NULL: such are dropped. */
    void (*on_udp_broadcast)(void *arg, const struct udp_datagram *d, bool multicast);

    /* The first echo handler of both families, for requests; NULL: the built-in reply for assigned addresses,
     * for others as config.echo_temporary says. Later: stack_set_echo_handler(). */
    echo_handler *on_echo;
    /* Have shard @to_shard call echo_complete(); may run on any thread that calls echo_post(). Copies what it
     * keeps (echo_outcome_pack()). false: no room. NULL: tokens are completed on their own shard only. */
    bool (*echo_post)(void *driver, uint32_t to_shard, echo_token token, const struct echo_outcome *o);
};

#define STACK_EMIT_IOV 132 /* headers, and up to 128 USO segments or 4 TCP ranges */

/* ---- the stack ----------------------------------------------------------------------------------------- */

/* Echo to an address that is not assigned, when no handler decided (icmp.md 2.3): IPv6 is answered and IPv4
 * is not, as in gVisor; neither; both. */
enum stack_echo_temporary { ECHO_TEMPORARY_COMPAT, ECHO_TEMPORARY_SUPPRESS, ECHO_TEMPORARY_REPLY };
enum tcp_congestion { TCP_CC_CUBIC, TCP_CC_NEWRENO };

struct stack_config {          /* stack_config_defaults() fills all of it */
    uint32_t mtu_bytes;        /* of the TUN; the MSS we offer is this less 40 or 60 */
    uint8_t ttl;               /* of what we send, 64 */
    uint32_t shard, shards;    /* 0 of 1 */
    struct hash_key steer_key; /* the same in all shards: owner of a UDP mapping, see steer_packet() */
    struct hash_key secret;    /* of this shard: ISS, tables, cookies */
    uint64_t seed;             /* ids and jitter */
    bool offload_csum, offload_tso, offload_uso; /* what emit can take */
    /* assigned to the stack: echo to them is ours; first of a family is the gateway address */
    struct ip_addr address[8];
    /* on-link prefix of each, counted in the 16-byte form (10.0.0.1/24: 120); 0: the address alone */
    uint8_t address_len[8];
    size_t addresses;
    bool ipv4, ipv6;                            /* families that the stack has; both true */
    uint32_t max_addresses, max_local_prefixes; /* at run time, 64 of each */
    bool promiscuous, spoofing; /* accept any unicast destination; send from any (icmp.md 6.3); both true */
    bool handle_local; /* our own addresses are nobody's source; not with promiscuous (icmp.md O26); false */
    bool allow_loopback;                              /* 127/8 and ::1 may come in from this device; false */
    uint32_t rx_slots;                                /* 512 */
    size_t buffer_cap_bytes;                          /* slots, chunks, reassembly: 256 MiB */
    uint32_t max_tcp;                                 /* 131,072 connections */
    uint32_t max_half_open, max_half_open_per_source; /* 4,096 and 256 */
    uint32_t max_time_wait;                           /* 65,536 records, the oldest recycled */
    uint32_t max_udp;                                 /* 65,536 endpoints */
    uint32_t icmp_errors_per_second, icmp_errors_burst; /* 1,000 and 50; rate UINT32_MAX: no limit */
    enum stack_echo_temporary echo_temporary;           /* ECHO_TEMPORARY_COMPAT */
    /* endpoints hide requests with their id from the handler (icmp.md O4); true */
    bool echo_endpoint_shadows;
    bool echo_ignore_broadcast; /* broadcast and multicast requests are not answered (icmp.md B7); false */
    bool echo_hop; /* time exceeded for TTL 1 or less to what is not assigned (icmp.md 4.7); false */
    bool echo_reply_limited; /* built-in replies have a bucket of their own (icmp.md L4); false */
    uint32_t echo_replies_per_second, echo_replies_burst; /* 1,000 and 50 */
    uint32_t echo_token_ms;  /* life of a detached request: 10,000; 1,000 to 60,000 */
    bool proto_unreachable;  /* tell the sender of an unknown protocol (faults.md P11); true */
    uint32_t rst_per_second; /* to unknown flows: 1,000 */
    enum tcp_congestion congestion;
    uint32_t rcv_budget_initial, rcv_budget_max;                         /* 256 KiB, 4 MiB */
    uint32_t snd_buffer_initial, snd_buffer_max;                         /* 128 KiB, 4 MiB */
    uint8_t window_scale;                                                /* 8 */
    uint32_t delayed_ack_us;                                             /* 40,000 */
    uint32_t quick_ack_segments;                                         /* 16 */
    uint32_t user_timeout_ms;                                            /* 120,000 */
    uint32_t keepalive_idle_ms, keepalive_interval_ms, keepalive_probes; /* 0 = off; 30,000; 5 */
    uint32_t time_wait_ms, fin_wait2_ms;                                 /* 60,000 both */
    bool ecn, restart_after_idle;                                        /* true both */
};
void stack_config_defaults(struct stack_config *c);

/** stack_memory_bytes() - address space that stack_init() wants for this configuration; most of it is never
 * touched */
size_t stack_memory_bytes(const struct stack_config *c);
/** stack_init() - build a stack inside @memory (zeroed, page-aligned, stack_memory_bytes() long, the caller's
 * until the end)
 * Return: the stack, at the front of @memory; NULL when the configuration contradicts itself. */
struct stack *stack_init(void *memory, const struct stack_config *c, const struct stack_events *ev, void *arg,
                         uint64_t now_us);
/* on_tcp_closed(-ECONNABORTED), on_..._gone for all that lives; sends nothing */
void stack_fini(struct stack *s);

#define STACK_SLOT_BYTES 65536
/** stack_rx_slot() - where the next packet may be read to: STACK_SLOT_BYTES; never NULL. The same until
 * stack_input() keeps it. */
uint8_t *stack_rx_slot(struct stack *s);
/** stack_input() - one packet or super-segment that lies in the current rx slot
 * Bad packets are counted and dropped. Protocol work that can wait is done by stack_batch_end(). */
void stack_input(struct stack *s, uint64_t now_us, size_t len, const struct pkt_meta *meta);
/** stack_input_handoff() - a packet from another shard; copied from @packet */
void stack_input_handoff(struct stack *s, uint64_t now_us, uint32_t origin, const void *packet, size_t len,
                         const struct pkt_meta *meta);
/** stack_time() - what time it is, when work begins that no packet began
 * What is queued or ended between two batches may leave at once and is dated by it; without this by the last packet. */
void stack_time(struct stack *s, uint64_t now_us);
/** stack_batch_end() - once a loop turn, after its input and its work on sockets: callbacks, then ACKs and data */
void stack_batch_end(struct stack *s, uint64_t now_us);
uint64_t stack_next_deadline(const struct stack *s); /* microseconds; UINT64_MAX: none */
void stack_advance(struct stack *s,
                   uint64_t now_us); /* everything that is due, in order of time; then as stack_batch_end() */
/* the shard's one wheel; the embedder's timers live in it too, run by stack_advance() */
struct wheel *stack_wheel(struct stack *s);
void stack_set_mtu(struct stack *s,
                   uint32_t mtu_bytes); /* the device's MTU changed: new flows, and old ones never above it */
/** stack_set_buffer_cap() - what blocks may take from now on: at most what stack_init() was told, and what it wants at least
 * What is over a smaller cap gives way as when memory is short (LIM-1). */
void stack_set_buffer_cap(struct stack *s, uint64_t bytes);
uint64_t stack_now_us(const struct stack *s); /* the last time that was passed in */

/* ---- TCP ----------------------------------------------------------------------------------------------- */

void tcp_request_flow(const struct tcp_request *r, struct flow_key *out); /* who asks for whom */
void tcp_request_set_user(struct tcp_request *r, void *user);             /* for on_tcp_request_gone */
/** tcp_request_accept() - send the SYN-ACK; the request becomes a connection when the client answers
 * Called once the upstream is usable (late accept), or at once and the upstream chosen by what tcp_peek() shows
 * after on_tcp_readable (early accept, SYN-1): unconsumed bytes stay, up to the window.
 * In a crowd of SYNs (from half of config.max_half_open on) requests come with their handshake complete:
 * on_tcp_open follows at once, and rejecting one is an RST unless it is silent.
 * @user: for the connection's callbacks
 * Return: 0; then on_tcp_open or on_tcp_closed comes. -ENOBUFS: no connection to be had; the request is still
 * there. -ESTALE: it was decided before, in this batch. -ECONNRESET: the client took it back,
 * on_tcp_request_gone is on its way. */
int tcp_request_accept(struct tcp_request *r, void *user, struct tcp_conn **out);
/** tcp_request_reject() - turn the SYN down in this way, and forget it
 * Return: 0; -ESTALE: it was decided before, in this batch (later there is no request to ask about). */
int tcp_request_reject(struct tcp_request *r, enum stack_reject why);
/* After REJECT_SILENT the client's next SYN is a new request. */

/** tcp_peek() - in-order bytes that have not been consumed, without copying
 * Return: number of ranges (<= @max); valid until the next call on this connection that consumes, or the end
 * of the callback. */
int tcp_peek(const struct tcp_conn *c, struct iovec *iov, int max);
size_t tcp_readable_bytes(const struct tcp_conn *c); /* all that tcp_peek() would show with room enough */
void tcp_consume(struct tcp_conn *c, size_t n);      /* opens the window; n <= what tcp_peek() showed */
/** tcp_hold_back() - the embedder would consume what is there, and may not yet (a limit of its own)
 * @held: until this is false, it is no stall when memory runs short: others are given up first (LIM-1) */
void tcp_hold_back(struct tcp_conn *c, bool held);
bool tcp_at_eof(const struct tcp_conn *c); /* client's FIN came and all bytes before it are consumed */
/** tcp_tx_space() - memory to receive into, for bytes to the client
 * Return: its length (0: send buffer full, on_tcp_writable will come, or not sendable). Between this and
 * tcp_tx_commit() no other call into the stack. */
size_t tcp_tx_space(struct tcp_conn *c, uint8_t **out);
void tcp_tx_commit(struct tcp_conn *c, size_t n); /* queue the first n bytes; 0 gives the space back */
size_t tcp_tx_queued(const struct tcp_conn *c);   /* queued or unacknowledged */
void tcp_shutdown(struct tcp_conn *c);            /* FIN after what is queued; again: no effect */
void tcp_abort(struct tcp_conn *c);               /* RST; on_tcp_closed(-ECONNABORTED) comes at batch end */
/** tcp_release() - the embedder has no more interest: no callback after this
 * What is queued and the FIN are still delivered (CLS-4); client bytes unread or arriving later bring a
 * RST. */
void tcp_release(struct tcp_conn *c);
void tcp_conn_flow(const struct tcp_conn *c, struct flow_key *out);

enum tcp_option { /* of one connection; new ones have the configuration's */
                  TCP_OPT_USER_TIMEOUT_MS,
                  TCP_OPT_KEEPALIVE_IDLE_MS, /* 0: off */
                  TCP_OPT_KEEPALIVE_INTERVAL_MS,
                  TCP_OPT_KEEPALIVE_PROBES,
                  TCP_OPT_DELAYED_ACK_US,     /* at most 500,000 */
                  TCP_OPT_QUICK_ACK_SEGMENTS, /* counts from the next silence or loss on */
                  TCP_OPT_RESTART_AFTER_IDLE, /* 0 or 1 */
                  TCP_OPTIONS
};
/** tcp_set_option() - from now on
 * Return: 0; -EINVAL: out of range; -ENOTCONN: it has ended; -ENOBUFS: 31 different sets of options are in use,
 * and this would be another. */
int tcp_set_option(struct tcp_conn *c, enum tcp_option which, uint32_t value);
uint32_t tcp_get_option(const struct tcp_conn *c, enum tcp_option which);

struct tcp_info {      /* a snapshot (tcp-stack.md TST-3) */
    const char *state; /* RFC 9293 name */
    const char
        *cc_state; /* "open", "disorder" (something is missing), "cwr" (an ECN mark), "recovery", "loss" */
    uint32_t cwnd_bytes, ssthresh_bytes, mss_bytes; /* a segment's payload, without SACK blocks */
    uint32_t unacked, sacked, lost, retrans;        /* bytes; a FIN is one of unacked */
    uint32_t reordering; /* by how much more RACK waits after DSACKs: 1 at first (RFC 8985 section 6.2) */
    uint64_t rto_us, srtt_us, rttvar_us;
    uint32_t probes, backoff, snd_wnd, rcv_wnd;
    uint32_t readable, unsent;      /* bytes for the embedder to consume; queued, and never sent so far */
    bool timestamps, sack, ecn;     /* agreed on in the handshake */
    uint8_t snd_wscale, rcv_wscale; /* the client's shift and ours; 0 also without the option */
    uint64_t bytes_up, bytes_down;  /* consumed by us; acknowledged by the client */
};
void tcp_conn_info(const struct tcp_conn *c, struct tcp_info *out);

/* ---- UDP ----------------------------------------------------------------------------------------------- */

void udp_request_first(const struct udp_request *r,
                       struct udp_datagram *out); /* the oldest held; borrowed until the callback returns */
void udp_request_set_user(struct udp_request *r, void *user);
enum udp_match {
    UDP_MATCH_CLIENT,
    UDP_MATCH_FLOW
}; /* all targets of this client port (RFC 4787 REQ-1), or this 4-tuple only */
/** udp_request_accept() - an endpoint; the held datagrams (up to 16, in order) come first, at batch end
 * Return: 0; -ENOBUFS: at the limit, the request is still there. */
int udp_request_accept(struct udp_request *r, enum udp_match match, void *user, struct udp_endpoint **out);
void udp_request_reject(struct udp_request *r,
                        enum stack_reject why); /* its held datagrams: one error for each, limited */

/** udp_send() - a datagram to the endpoint's client, from @source; checksum and fragments are ours
 * @gso_size: > 0: @iov is a row of datagrams of this size, one a range, the last may be shorter; <= 128, <=
 *            65,507 bytes in all
 * Return: 0, or -EMSGSIZE, -EAFNOSUPPORT (families differ), -EADDRNOTAVAIL (spoofing is off, and @source is
 * neither assigned nor whom the client asked), or what emit said; all counted. */
int udp_send(struct udp_endpoint *e, const struct ip_port *source, const struct iovec *iov, int iovcnt,
             uint16_t gso_size);
/** udp_inject() - a datagram without an endpoint, from an assigned address, or any while spoofing; returns as
 * udp_send() */
int udp_inject(struct stack *s, const struct ip_port *from, const struct ip_port *to, const struct iovec *iov,
               int iovcnt);
void udp_endpoint_close(struct udp_endpoint *e); /* the next datagram is a new request */
/** udp_endpoint_error() - tell the client that its last datagram to @target failed: an ICMP error that quotes
 * a rebuilt header
 * @offender: who said so; none: the target itself. @mtu: for too-big only, else 0 and @why decides */
void udp_endpoint_error(struct udp_endpoint *e, const struct ip_port *target, const struct ip_addr *offender,
                        enum stack_reject why, uint32_t mtu);

/* ---- counters and pools -------------------------------------------------------------------------------- */

/* One line a counter: member, name. Every packet that comes in goes exactly one way at the IP layer
 * (faults.md G6):
 *   ip_in + ip_handoff_in + frag_done = tcp_in + udp_in + icmp_in
 *     + ip_down + ip_short + ip_version + ip_malformed + ip_checksum + ip_bad_src + ip_bad_dst
 *     + ip_options + ip_proto + ip_ext_header + frag_in + frag_malformed + frag_overlap + frag_no_memory
 * frag_in are held or repeated pieces, frag_done the datagrams made of them. Above it each protocol has its
 * own reasons. For TCP (OBS-1):
 *   tcp_in = tcp_acks_in + tcp_data_in + tcp_ooo               (only acknowledged; delivered; kept for later)
 *     + tcp_requests + tcp_syn_cookie + tcp_passed_on + tcp_rst_in + tcp_challenged
 *     + tcp_malformed + tcp_checksum + tcp_unknown + tcp_half_open_limit + tcp_pressure_refused + tcp_paws
 *     + tcp_out_of_window + tcp_duplicate + tcp_bad_ack + tcp_ooo_dropped + tcp_after_fin + tcp_unwanted
 *     + tcp_no_room
 * A segment that is kept in part is kept; tcp_check.c asserts the sum after every batch. For UDP, where a super-packet is one:
 *   udp_in = udp_delivered + udp_passed_on + udp_length + udp_checksum + udp_held_dropped + udp_limit + udp_rejected
 * and those that wait for a decision, which udp.c asserts likewise. */
/* clang-format off */
/* Of one family. What became of echo requests, when their answers are immediate (icmp.md 2.8):
 *   rx.echo_request = tx.echo_reply + handler_consumed + rejected + detached + suppressed_temporary
 *     + tx.no_route + tx.rate_limited + tx.dropped        (the last three count ICMP errors about other
 *     packets, too) */
#define STACK_ICMP_COUNTERS(X, f) \
    X(icmp##f##_rx_echo_request, "icmp" #f ".rx.echo_request") \
    X(icmp##f##_rx_echo_reply, "icmp" #f ".rx.echo_reply") \
    X(icmp##f##_rx_dst_unreachable, "icmp" #f ".rx.dst_unreachable") \
    X(icmp##f##_rx_packet_too_big, "icmp" #f ".rx.packet_too_big") \
    X(icmp##f##_rx_time_exceeded, "icmp" #f ".rx.time_exceeded") \
    X(icmp##f##_rx_param_problem, "icmp" #f ".rx.param_problem") \
    X(icmp##f##_rx_redirect, "icmp" #f ".rx.redirect") \
    X(icmp##f##_rx_query, "icmp" #f ".rx.query") /* timestamp, information, neighbour and group discovery */ \
    X(icmp##f##_rx_invalid, "icmp" #f ".rx.invalid") \
    X(icmp##f##_rx_unrecognized, "icmp" #f ".rx.unrecognized") \
    X(icmp##f##_tx_echo_reply, "icmp" #f ".tx.echo_reply") \
    X(icmp##f##_tx_dst_unreachable, "icmp" #f ".tx.dst_unreachable") \
    X(icmp##f##_tx_packet_too_big, "icmp" #f ".tx.packet_too_big") \
    X(icmp##f##_tx_time_exceeded, "icmp" #f ".tx.time_exceeded") \
    X(icmp##f##_tx_param_problem, "icmp" #f ".tx.param_problem") \
    X(icmp##f##_tx_echo_request, "icmp" #f ".tx.echo_request") /* of an endpoint */ \
    X(icmp##f##_dropped, "icmp" #f ".tx.dropped") \
    X(icmp##f##_rate_limited, "icmp" #f ".tx.rate_limited") \
    X(icmp##f##_no_route, "icmp" #f ".tx.no_route") \
    X(icmp##f##_suppressed, "icmp" #f ".suppressed_temporary") \
    X(icmp##f##_consumed, "icmp" #f ".handler_consumed") \
    X(icmp##f##_handler_reply, "icmp" #f ".handler_reply") /* of those in tx.echo_reply */ \
    X(icmp##f##_rejected, "icmp" #f ".rejected") \
    X(icmp##f##_detached, "icmp" #f ".detached") \
    X(icmp##f##_detach_expired, "icmp" #f ".detach_expired") \
    X(icmp##f##_detach_refused, "icmp" #f ".detach_refused") \
    X(icmp##f##_injected, "icmp" #f ".injected") /* outcomes that were sent, of tokens or injected */ \
    X(icmp##f##_endpoint_in, "icmp" #f ".endpoint.in") /* echo replies */ \
    X(icmp##f##_endpoint_malformed, "icmp" #f ".endpoint.malformed") /* requests that one shadowed */ \
    X(icmp##f##_stale, "icmp" #f ".stale")

#define STACK_COUNTERS(X) \
    X(ip_in, "ip.in") \
    X(ip_in_bytes, "ip.in_bytes") \
    X(ip_out, "ip.out") \
    X(ip_out_bytes, "ip.out_bytes") \
    X(ip_emit_failed, "ip.emit_failed") \
    X(ip_too_big, "ip.too_big") \
    X(ip_down, "ip.down") \
    X(ip_short, "ip.short") \
    X(ip_version, "ip.version") \
    X(ip_malformed, "ip.malformed") \
    X(ip_checksum, "ip.checksum") \
    X(ip_bad_src, "ip.bad_src") \
    X(ip_bad_dst, "ip.bad_dst") \
    X(ip_options, "ip.options") \
    X(ip_proto, "ip.proto") \
    X(ip_ext_header, "ip.ext_header") \
    X(ip_handoff_out, "ip.handoff_out") \
    X(ip_handoff_in, "ip.handoff_in") \
    X(ip_handoff_full, "ip.handoff_full") \
    X(frag_in, "frag.in") \
    X(frag_done, "frag.done") \
    X(frag_overlap, "frag.overlap") \
    X(frag_malformed, "frag.malformed") \
    X(frag_expired, "frag.expired") \
    X(frag_evicted, "frag.evicted") \
    X(frag_no_memory, "frag.no_memory") \
    X(frag_sent, "frag.sent") \
    X(icmp_in, "icmp.in") \
    X(icmp_ignored, "icmp.ignored") \
    STACK_ICMP_COUNTERS(X, 4) \
    STACK_ICMP_COUNTERS(X, 6) \
    X(udp_in, "udp.in") \
    X(udp_out, "udp.out") \
    X(udp_delivered, "udp.delivered") /* to an endpoint, or shown as one to many */ \
    X(udp_passed_on, "udp.passed_on") /* to the shard that owns its mapping */ \
    X(udp_length, "udp.length") \
    X(udp_checksum, "udp.checksum") \
    X(udp_requests, "udp.requests") \
    X(udp_held_dropped, "udp.held_dropped") \
    X(udp_expired, "udp.expired") \
    X(udp_limit, "udp.limit") /* no room for another request */ \
    X(udp_endpoint_limit, "udp.endpoint_limit") /* requests that could not be accepted */ \
    X(udp_rejected, "udp.rejected") \
    X(udp_too_big, "udp.too_big") \
    X(tcp_in, "tcp.in") \
    X(tcp_out, "tcp.out") \
    X(tcp_acks_in, "tcp.acks_in") \
    X(tcp_data_in, "tcp.data_in") /* its payload or FIN was next in order */ \
    X(tcp_passed_on, "tcp.passed_on") /* to another shard */ \
    X(tcp_challenged, "tcp.challenged") /* SYN or RST that was not obeyed */ \
    X(tcp_after_fin, "tcp.after_fin") \
    X(tcp_unwanted, "tcp.unwanted") /* nobody reads any more: reset */ \
    X(tcp_no_room, "tcp.no_room") /* no memory for its payload */ \
    X(tcp_malformed, "tcp.malformed") \
    X(tcp_checksum, "tcp.checksum") \
    X(tcp_requests, "tcp.requests") \
    X(tcp_accepted, "tcp.accepted") \
    X(tcp_opened, "tcp.opened") \
    X(tcp_rejected, "tcp.rejected") \
    X(tcp_half_open_limit, "tcp.half_open_limit") \
    X(tcp_conn_limit, "tcp.conn_limit") \
    X(tcp_rst_sent, "tcp.rst_sent") /* the sum of the five that follow */ \
    X(tcp_rst_stranger, "tcp.rst_stranger") /* to an ACK of nothing */ \
    X(tcp_rst_refused, "tcp.rst_refused") /* to a SYN: the embedder's answer, or none in time */ \
    X(tcp_rst_aborted, "tcp.rst_aborted") /* the embedder ended it, or reads no more */ \
    X(tcp_rst_timeout, "tcp.rst_timeout") \
    X(tcp_rst_pressure, "tcp.rst_pressure") /* packet memory is short, or connections are */ \
    X(tcp_rst_limited, "tcp.rst_limited") \
    X(tcp_rst_in, "tcp.rst_in") \
    X(tcp_challenge_ack, "tcp.challenge_ack") \
    X(tcp_challenge_limited, "tcp.challenge_limited") \
    X(tcp_out_of_window, "tcp.out_of_window") \
    X(tcp_paws, "tcp.paws") \
    X(tcp_bad_ack, "tcp.bad_ack") \
    X(tcp_ooo, "tcp.ooo") \
    X(tcp_ooo_dropped, "tcp.ooo_dropped") \
    X(tcp_duplicate, "tcp.duplicate") \
    X(tcp_pure_acks, "tcp.pure_acks") \
    X(tcp_super_out, "tcp.super_out") \
    X(tcp_super_in, "tcp.super_in") \
    X(tcp_rexmit_fast, "tcp.rexmit_fast") /* three duplicate ACKs of a client without SACK */ \
    X(tcp_rexmit_rack, "tcp.rexmit_rack") \
    X(tcp_rexmit_mtu, "tcp.rexmit_mtu") /* not lost: too long for the path */ \
    X(tcp_rexmit_rto, "tcp.rexmit_rto") \
    X(tcp_rexmit_tlp, "tcp.rexmit_tlp") \
    X(tcp_rto, "tcp.rto") \
    X(tcp_spurious, "tcp.spurious") \
    X(tcp_undone, "tcp.undone") \
    X(tcp_zero_probe, "tcp.zero_window_probe") \
    X(tcp_keepalive_probe, "tcp.keepalive_probe") \
    X(tcp_timeout, "tcp.timeout") \
    X(tcp_time_wait, "tcp.time_wait") \
    X(tcp_no_memory, "tcp.no_memory") \
    X(tcp_segment_limit, "tcp.segment_limit") /* a connection had 4,096 descriptors */ \
    X(tcp_pressure_refused, "tcp.pressure_refused") \
    X(tcp_pressure_aborted, "tcp.pressure_aborted") \
    X(tcp_orphan_ended, "tcp.orphan_ended") \
    X(tcp_unknown, "tcp.unknown") \
    X(tcp_syn_cookie, "tcp.syn_cookie") \
    X(payload_copied, "stack.payload_copied_bytes") \
    X(payload_summed, "stack.payload_checksummed_bytes") \
    X(bytes_up, "stack.bytes_up") \
    X(bytes_down, "stack.bytes_down") \
    X(batches, "stack.batches")
/* clang-format on */

struct stack_counters {
#define STACK_COUNTER_MEMBER(member, name) counter member;
    STACK_COUNTERS(STACK_COUNTER_MEMBER)
#undef STACK_COUNTER_MEMBER
};
const struct stack_counters *stack_counters(const struct stack *s);
extern const struct counter_desc stack_counter_descs[]; /* ends with name NULL */

struct stack_pool_info {
    const char *
        name; /* "slot", "chunk2", "chunk16", "chunk64", "tcb", "segment", "interval", "syn", "timewait", "udp", ... */
    uint32_t object_bytes, in_use, high_water, limit;
    uint64_t failed; /* asked for at the limit */
};
/* Names are static. Return: how many were filled in, at most @max. */
size_t stack_pools(const struct stack *s, struct stack_pool_info *out, size_t max);
void stack_memory(const struct stack *s, struct memory_use *add); /* what its pools hold */
/** stack_trim() - give back memory where nothing has lived since the trim before; a second or so apart, off
 * the packet path
 * @give_back: releases whole pages, which read as zero afterwards (the stack makes no system call itself, but for madvise() when blocks would exceed their cap)
 * Return: true when another call would find more. */
bool stack_trim(struct stack *s, slab_give_back_fn *give_back, void *arg);
uint32_t stack_tcp_count(const struct stack *s); /* connections, TIME-WAIT not among them */
uint32_t stack_udp_count(const struct stack *s);
/* SYNs that wait for the embedder or for their client */
uint32_t stack_half_open_count(const struct stack *s);

#endif
