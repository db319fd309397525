/* tcp_impl.h - the inside of the TCP half: the connection, what it holds, and who does what.
 *
 * A packet's way: tcp_input.c finds its owner and applies RFC 9293 section 3.10.7.4; tcp_ack.c takes its
 * acknowledgement, tcp_recv.c its payload. No callback runs before tcp_batch_end() (tcp_batch.c): callbacks
 * first, then tcp_output.c, so that one ACK tells of everything that the batch brought and of everything that
 * was consumed. Only whole packets of new data leave earlier, as the embedder queues them.
 *
 * What always holds (checked by tcp_check.c in debug builds)
 *   snd_una <= segments in order, without gaps, up to snd_nxt <= snd_end (+1 for a FIN); chunks cover
 *   snd_una..snd_end.
 *   rcv_held is the sum of the receive queue's pieces; intervals are sorted, disjoint, not adjacent, all
 *   above rcv_nxt.
 *   rcv_adv, the right edge that the client was told, never moves back.
 * An idle connection holds no block, segment, piece, interval set or recovery record (MEM-1). */
#ifndef CULVERT_TCP_IMPL_H
#define CULVERT_TCP_IMPL_H

#include "stack_impl.h"

/* ---- arithmetic of sequence numbers (RFC 9293 section 3.4) ------------------------------------------- */

static inline bool seq_lt(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}
static inline bool seq_le(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) <= 0;
}
static inline uint32_t seq_max(uint32_t a, uint32_t b)
{
    return seq_lt(a, b) ? b : a;
}
static inline uint32_t seq_min(uint32_t a, uint32_t b)
{
    return seq_lt(a, b) ? a : b;
}
static inline uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}
static inline uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* ---- constants --------------------------------------------------------------------------------------- */

#define TCP_HEADER       20
#define TCP_HEADER_MAX   60
#define TCP_MSS_MIN      88     /* MSS-2: a peer that offers less is not believed */
#define TCP_MSS_DEFAULT4 536    /* RFC 9293 MUST-15 */
#define TCP_MSS_DEFAULT6 1220   /* the same */
#define TCP_PMTU_MIN4    552    /* ICM-3 */
#define TCP_PMTU_MIN6    1280   /* RFC 8201 section 4 */
#define TCP_TS_BYTES     12     /* NOP NOP TS */
#define TCP_IP_MAX       65535u /* a packet with all headers (VN-5) */

#define COPY_BREAK_BYTES     2048u   /* received results below this are copied, not to spend a chunk */
#define COMPACT_BYTES        16384u  /* held payload below this does not pin a slot (MEM-2) */
#define COMPACT_PRESSED      49152u  /* nor below this, when memory is short */
#define BUDGET_PRESSED       65536u  /* of a connection whose data waits while memory is short */
#define UNSENT_BYTES         131072u /* queued beyond what can leave now: read later, it only gets cold */
#define CHUNK_REUSE_BYTES    32768u /* a tail chunk with this much room is filled before a new one is taken */
#define OOO_INTERVALS        128
#define SEGMENTS_PER_CONN    4096
#define TURN_BYTES           (4 * 65536u) /* BAT-3 */
#define REO_PERSIST          16           /* recoveries without a DSACK (RFC 8985 section 6.2, step 4) */
#define RTO_INITIAL_US       1000000u
#define RTO_UNSURE_US        3000000u /* SYN-ACK sent more than once, nothing measured (RFC 6298 section 5.7) */
#define RTO_VAR_FLOOR_US     200000u
#define RTO_MAX_US           60000000u
#define PTO_FLOOR_US         2000u   /* RFC 8985 section 7.2, with our tick */
#define PTO_ONE_SEGMENT_US   200000u /* worst delayed ACK of the client when one segment is in flight */
#define PTO_IMPATIENT_US     5000u /* round trips from here on do not wait for a delayed ACK behind a burst */
#define NO_MEMORY_RETRY_US   10000u
#define LATE_MS              2u
#define TICK_US              1000u
#define SYN_ACK_RETRIES      5
#define REQUEST_LIFE_MS      150000u /* TF5 */
#define ORPHAN_RTOS          8
#define PAWS_IDLE_MS         (24u * 86400 * 1000) /* RFC 7323 section 5.5 */
#define CHALLENGE_SPACE_MS   500u
#define CHALLENGE_WINDOW_MS  5000u
#define CHALLENGE_PER_WINDOW 10
#define PMTU_ENTRIES         1024
#define PMTU_LIFE_US         (600u * 1000000ull)
#define SOURCE_COUNTERS      16384

enum tcp_flag {
    TCP_FIN = 1,
    TCP_SYN = 2,
    TCP_RST = 4,
    TCP_PSH = 8,
    TCP_ACK = 16,
    TCP_URG = 32,
    TCP_ECE = 64,
    TCP_CWR = 128
};

/* ---- one segment that came in ------------------------------------------------------------------------ */

struct tcp_sack {
    uint32_t start, end;
};

struct tcp_options {
    bool has_mss, has_ws, has_ts, sack_ok;
    uint16_t mss;
    uint8_t ws;
    uint8_t sacks;
    uint32_t tsval, tsecr;
    struct tcp_sack sack[4];
};

struct tcp_seg {
    uint32_t seq, ack;
    uint16_t wnd; /* as in the header, not scaled */
    uint8_t flags;
    uint8_t ecn;    /* of the IP header */
    uint32_t count; /* segments in it: more than one in a super-segment */
    uint32_t mss;   /* payload of one of them */
    const uint8_t *data;
    uint32_t len;
    struct block *slot; /* where data lies, if it may be kept */
    struct tcp_options opt;
};

/* tcp_options_parse() - RFC 9293 section 3.1; unknown options are skipped, a broken length ends the list
 * (SEQ-1) */
void tcp_options_parse(struct span in, struct tcp_options *out);

/* ---- what a connection holds ------------------------------------------------------------------------- */

enum tcps {
    TCPS_SYN_RECEIVED,
    TCPS_ESTABLISHED,
    TCPS_FIN_WAIT_1,
    TCPS_FIN_WAIT_2,
    TCPS_CLOSING,
    TCPS_TIME_WAIT, /* bytes wait to be consumed; afterwards a TIME-WAIT record takes over */
    TCPS_CLOSE_WAIT,
    TCPS_LAST_ACK,
    TCPS_CLOSED /* all is acknowledged, but bytes wait to be consumed */
};

struct tcp_key {
    struct ip_addr client, target;
    uint16_t client_port, target_port;
};

/* Received payload: a range of a slot or a chunk, of which it holds one reference. */
struct piece {
    struct piece *next;
    struct block *block;
    uint32_t off, len;
};

struct pieces {
    struct piece *head, *tail;
};

struct interval {
    uint32_t start, end;
    struct pieces pieces;
};

/* What arrived beyond a hole; exists only while there is something in it (OOO-1). */
struct ooo_set {
    uint32_t count, bytes;
    uint32_t recent[4]; /* a number inside each interval touched last, newest first (RFC 2018 section 4) */
    uint32_t fin_seq;
    bool has_fin;
    uint8_t recents;
    struct block *chunk; /* small payloads are copied here, one behind the other; one reference */
    struct interval iv[OOO_INTERVALS];
};

enum seg_flag {
    SEG_SACKED = 1,
    SEG_LOST = 2,
    SEG_RETRANS = 4 /* sent again, and still on its way */,
    SEG_FIN = 8,
    SEG_TOO_LONG = 16 /* with SEG_LOST: no loss, it did not fit the path (ICM-3) */
};

/* A stretch of the stream that was sent as one packet; MSS-sized parts of it may be split off later
 * (REC-1). */
struct segment {
    struct segment *next;
    struct block *block; /* chunk of its first byte; NULL: a bare FIN */
    uint32_t seq, len;   /* len counts the FIN */
    uint32_t tx_us;      /* last transmission, low 32 bits */
    uint16_t mss;
    uint8_t flags;
    uint8_t rexmits; /* 255 means that or more */
};

enum {
    CONN_TS = 1u << 0,
    CONN_SACK = 1u << 1,
    CONN_V6 = 1u << 2,
    CONN_ECN = 1u << 3,
    CONN_ECE_DUE = 1u << 4, /* echo congestion until CWR (RFC 3168 section 6.1.3) */
    CONN_CWR_DUE = 1u << 5,
    CONN_ACK_NOW = 1u << 6,
    CONN_SYNACK_DUE = 1u << 7,    /* (re)send the SYN-ACK */
    CONN_SYNACK_AGAIN = 1u << 8,  /* it was sent more than once: no RTT from it */
    CONN_FIN_QUEUED = 1u << 9,    /* embedder has shut down */
    CONN_FIN_SENT = 1u << 10,     /* FIN has a sequence number below snd_nxt */
    CONN_FIN_RCVD = 1u << 11,     /* client's FIN is in order */
    CONN_RELEASED = 1u << 12,     /* nobody listens any more */
    CONN_DEAD = 1u << 13,         /* only on_tcp_closed is left */
    CONN_BACKLOG = 1u << 14,      /* bytes were left over from an earlier batch */
    CONN_WANT_WRITE = 1u << 15,   /* tcp_tx_space() said 0 */
    CONN_LOSS_CHECK = 1u << 16,   /* an ACK came since loss detection ran */
    CONN_REORDER = 1u << 17,      /* reordering was seen (RFC 8985 section 6.2) */
    CONN_CWND_LIMITED = 1u << 18, /* output stopped at cwnd in this round */
    CONN_RECOVERY = 1u << 19,     /* fast recovery, until snd_una reaches `recover` */
    CONN_LOSS = 1u << 20,         /* after a timeout, likewise */
    CONN_TLP_OUT = 1u << 21,      /* a loss probe is in flight; tlp_end says up to where */
    CONN_TLP_REXMIT = 1u << 22,   /* and it repeated old data */
    CONN_TLP_SEND = 1u << 23,     /* one segment may leave whatever cwnd says */
    CONN_DSACK = 1u << 24,        /* a duplicate to be reported */
    CONN_RESTART = 1u << 25,      /* retransmission timer starts anew */
    CONN_PROBING = 1u << 26,      /* the window is closed, and we ask */
    CONN_LISTED = 1u << 27,       /* in the ready or the output list */
    CONN_STARVED = 1u << 28,      /* TIMER_ACK is the retry of a writer without memory */
    CONN_EV_OPEN = 1u << 29,
    CONN_EV_READABLE = 1u << 30,
    CONN_EV_WRITABLE = 1u << 31
};
#define CONN_EVENTS (CONN_EV_OPEN | CONN_EV_READABLE | CONN_EV_WRITABLE)

enum { LOSS_ADVANCED = 1 /* snd_una moved */, LOSS_NEW = 2 /* something was marked lost */ };

enum tcp_rst {
    RST_NONE,
    RST_STRANGER,
    RST_REFUSED,
    RST_ABORTED,
    RST_TIMEOUT,
    RST_PRESSURE
}; /* why we send one */

enum tcp_timer { TIMER_REXMIT = 1, TIMER_ACK = 2, TIMER_LIFE = 4 };
enum rexmit_kind { REXMIT_RTO, REXMIT_TLP, REXMIT_REORDER, REXMIT_PROBE };

struct tcp_cc_state {
    uint32_t w_max; /* cwnd at the last reduction, bytes */
    union {
        struct { /* HyStart++ (RFC 9406), in the first slow start */
            uint32_t last_min_rtt_us, min_rtt_us, baseline_rtt_us;
        };
        struct { /* CUBIC (RFC 9438), afterwards; NewReno uses rest */
            uint32_t epoch_ms, k_ms, w_est;
        };
    };
    uint32_t rest;
    uint8_t samples, css_rounds;
    bool in_css, done; /* done: the first slow start is over */
};

enum frto { FRTO_OFF, FRTO_FIRST, FRTO_SECOND }; /* the ACK that it waits for */

/* State of loss recovery (RFC 9937, RFC 6675) and what it has cost: exists from entering until a round trip
 * after leaving. */
struct recovery {
    uint32_t flight; /* when it began (RecoverFS) */
    uint32_t prr_delivered, prr_out;
    uint32_t cwnd, ssthresh; /* before, to be restored if it was needless */
    struct tcp_cc_state cc;
    uint32_t start, until; /* snd_una when it began; over: where waiting for DSACKs ends */
    uint32_t repeated;     /* bytes sent again that no DSACK has reported as needless */
    uint32_t tsval;        /* of the first retransmission */
    uint8_t frto;          /* enum frto */
    bool again;            /* something was sent again, */
    bool judged;           /* and the ACK that came next has been looked at */
    bool original;         /* an ACK brings what was never repeated */
    bool over;             /* left */
};

/* What a connection knows only of what is on its way: taken with the first segment, given back when the last one is acknowledged,
 * so that an idle connection does without it (PERF-9). Then c->fl is a shared one that is all zeros and must not be written. */
struct flight {
    struct segment *seg_head, *seg_tail;        /* NULL: nothing is on its way */
    uint32_t sacked, lost, retrans;             /* bytes of segments with that flag */
    uint32_t delivered;                         /* bytes, since loss detection ran last */
    uint32_t rack_tx_us, rack_end, rack_rtt_us; /* the newest delivery (RFC 8985 section 6.2) */
    uint32_t fack;                              /* the highest */
    uint32_t round_end, round_flight; /* one window of data, and the most that was in flight in it */
    struct segment first; /* one of the list, so that a short flight takes one object and no more */
    bool first_used;
};

struct tcp_conn {
    /* line 0: found by a packet */
    struct tcp_key key;
    uint32_t chain;                                     /* next of the table's bucket */
    uint8_t state;                                      /* enum tcps */
    uint8_t timers : 3, rexmit_kind : 2, loss_news : 2; /* enum tcp_timer that are armed; its enum; LOSS_* */
    uint8_t put_off : 1;                                /* a late timer has been given another tick */
    uint8_t backoff;
    uint8_t snd_wscale : 4, rcv_wscale : 4;
    uint32_t flags; /* CONN_* */
    struct stack *s;
    struct tcp_conn *list_next; /* of the ready or the output list */

    /* line 1: receiving */
    uint32_t rcv_nxt, rcv_adv; /* next in order; right edge advertised */
    uint32_t rcv_budget, rcv_held;
    uint32_t ts_recent, ts_offset, last_ack_sent;
    uint32_t last_rx_ms;
    struct pieces rcv;
    struct ooo_set *ooo;
    uint16_t rcv_mss;
    uint16_t dsack_len; /* with CONN_DSACK: what came again */
    uint32_t dsack_start;

    /* line 2: sending */
    uint32_t snd_una, snd_nxt, snd_end; /* snd_end: behind the last queued byte, FIN not counted */
    uint32_t snd_wnd, snd_wnd_max, snd_wl1;
    uint32_t cwnd, ssthresh; /* bytes */
    struct flight *fl;       /* never NULL */
    struct block *snd_head, *snd_tail;

    /* line 3: loss and time */
    uint32_t srtt_us, rttvar_us, min_rtt_us;
    union {
        uint32_t recover;   /* where recovery ends; while a loss probe is out: where the probe did */
        uint32_t synack_us; /* SYN-RECEIVED: when our SYN-ACK left */
    };
    uint16_t mss, mss_peer;  /* payload of a full segment without SACK blocks; as offered, clamped */
    uint16_t pmtu, segments; /* segments in the list */
    struct recovery *rec;

    /* line 4: timers, owner */
    struct wheel_timer timer;
    void *user;
    uint32_t rexmit_at, ack_at, life_at; /* ms */
    uint32_t progress_ms;                /* snd_una moved, or something became outstanding */

    /* line 5: rarely read */
    struct tcp_cc_state cc;
    uint64_t bytes_up, bytes_down; /* consumed; acknowledged */
    uint32_t rcv_round_ms;         /* receive autotuning: when this round began, */
    uint32_t rcv_round_mark;       /* and bytes_up then, low bits */
    uint32_t challenge_ms;         /* when the limiter's window began */
    uint32_t challenge_last_ms : 13,
        challenges : 4;            /* low bits of the last answer's time; answers in this window, */
    uint32_t challenge_causes : 5; /* and the causes that wait until CHALLENGE_SPACE_MS after the last one */
    uint32_t reo_persist : 5, reo_grown : 1; /* recoveries until reo_mult falls back; it grew in this round */
    uint32_t pmtu_learned : 1;               /* from a router: for ten minutes (ICM-3) */
    uint32_t careful : 1;  /* packets are being lost: more ACKs, while there are quick_acks */
    uint32_t overlap : 1;  /* cut pieces short in this batch; slots may be kept for little */
    int8_t err;            /* for on_tcp_closed */
    uint8_t knobs : 7;     /* its set of options, below KNOB_SETS */
    uint8_t held_back : 1; /* tcp_hold_back() */
    uint8_t dupacks, reo_mult, quick_acks, segs_unacked; /* segs_unacked: since the last ACK that we sent */
    uint8_t probes, keepalives;
};

/* Payload of the longest packet, with all options. IPv6's length does not count its own header, but Linux takes no packet
 * that is longer than this with it (VN-5, faults.md V2). */
static inline uint32_t tcp_payload_most(const struct tcp_conn *c)
{
    return TCP_IP_MAX - TCP_HEADER_MAX - (c->flags & CONN_V6 ? 40 : 20);
}

_Static_assert(sizeof(struct segment) <= 32, "a segment descriptor is at most 32 bytes");
_Static_assert(sizeof(struct piece) <= 24 && sizeof(struct interval) <= 24,
               "an interval is at most 24 bytes");
_Static_assert(sizeof(struct tcp_conn) <= 336, "a connection is at most 336 bytes (PERF-9)");
_Static_assert(sizeof(struct flight) <= 96, "and 96 more while something is on its way");
_Static_assert(sizeof(struct tcp_cc_state) <= 40, "congestion control state is at most 40 bytes (CC-1)");

enum {
    REQUEST_TS = 1,
    REQUEST_SACK = 2,
    REQUEST_WS = 4,
    REQUEST_ECN = 8,
    REQUEST_V6 = 16,
    REQUEST_OPEN = 32, /* the client's ACK has come: a cookie's handshake is complete */
    REQUEST_OFFERS = REQUEST_TS | REQUEST_SACK | REQUEST_WS | REQUEST_ECN
};
enum request_state {
    REQUEST_NEW,
    REQUEST_PENDING,
    REQUEST_RESET,   /* not yet told */
    REQUEST_EXPIRED, /* not yet told */
    REQUEST_DONE,    /* decided: every verb fails until the batch ends, then it is no more (icmp.md TF7) */
};

struct tcp_request { /* SYN record */
    struct tcp_key key;
    uint32_t chain;
    struct stack *s;
    void *user;
    struct tcp_request *prev, *next; /* of the list of its state; pending ones by age */
    uint32_t irs, iss, tsval, expires_ms;
    uint16_t wnd, mss;
    uint8_t ws, flags, state, tos;
};
_Static_assert(sizeof(struct tcp_request) <= 96, "a SYN record is at most 96 bytes");

struct tcp_tw { /* TIME-WAIT record */
    struct tcp_key key;
    uint32_t chain;
    uint32_t rcv_nxt, snd_nxt, ts_recent, deadline_ms;
    uint32_t prev; /* index + 1 in the order of deadlines; 0: none */
    uint32_t next : 31, ts : 1;
};
_Static_assert(sizeof(struct tcp_tw) <= 64, "a TIME-WAIT record is at most 64 bytes");

/* ---- the shard --------------------------------------------------------------------------------------- */

enum owner_kind {
    OWNER_NONE,
    OWNER_CONN,
    OWNER_REQUEST,
    OWNER_TW
}; /* upper 2 bits of a reference in the table */

struct tcp_owner {
    enum owner_kind kind;
    union {
        struct tcp_conn *conn;
        struct tcp_request *request;
        struct tcp_tw *tw;
        struct tcp_key *key; /* the first member of all three */
    };
};

struct pmtu_entry {
    struct ip_addr client;
    uint64_t until_us;
    uint32_t mtu;
};

struct conn_list {
    struct tcp_conn *head, *tail;
};
struct request_list {
    struct tcp_request *head, *tail;
};

struct tcp_cc_ops;

struct tcp_knobs { /* a set of options: tcp_knobs.c */
    uint32_t users, value[TCP_OPTIONS];
};
#define KNOB_SETS 32

struct tcp_shard {
    struct pool conns, flights, segments, pieces, ooo, recoveries, requests, tws;
    uint32_t *buckets, bucket_mask;
    bool table_used;      /* something was put in since its memory was last given back */
    uint16_t *per_source; /* half-open requests, by keyed hash of the source */
    uint32_t handshakes;  /* accepted requests whose client has not answered yet: half-open as well (SYN-3) */
    uint64_t cookies_until_us;           /* an ACK may bring back a cookie until then */
    uint64_t relief_at_us, orphan_at_us; /* not before: the next walk through all connections */
    uint32_t orphan_room;                /* SYNs of this batch that orphans have made room for already */
    struct pmtu_entry *pmtu;
    const struct tcp_cc_ops *cc;
    struct conn_list ready, out; /* callbacks to run; output to make */
    struct request_list fresh, pending, gone, done;
    uint32_t requests_done;     /* on the list of that name: no longer half-open */
    struct block *landing;      /* what tcp_tx_space() offers; the shard's until it is known how much came */
    struct tcp_conn *space_for; /* debug: tcp_tx_commit() belongs to this one */
    struct block *space;        /* the block that was offered */
    const struct tcp_conn *turn_of; /* whose packets left last as they were queued, */
    uint32_t turn_left;             /* and what more of them may do so (BAT-3) */
    struct wheel_timer request_timer, tw_timer;
    struct tcp_knobs knobs[KNOB_SETS];
    struct stack *s;
    uint32_t tw_first, tw_last; /* index + 1 */
    uint64_t probes, lookups;   /* PERF-11 */
    uint64_t ooo_steps;         /* looks at an interval while out-of-order payload was put in (OOO-1) */
};

static inline uint32_t now_ms(const struct stack *s)
{
    return (uint32_t)(s->now_us / 1000);
}
static inline uint32_t now_us32(const struct stack *s)
{
    return (uint32_t)s->now_us;
}

/* tcp_table.c */
void tcp_key_of(const struct flow_key *flow, struct tcp_key *out);
void tcp_flow_of(const struct tcp_key *key, struct flow_key *out);
uint64_t tcp_hash(const struct stack *s, const struct flow_key *flow);
struct tcp_owner tcp_find(struct tcp_shard *t, const struct flow_key *flow, uint64_t hash);
void tcp_table_add(struct tcp_shard *t, enum owner_kind kind, struct tcp_key *key);
void tcp_table_remove(struct tcp_shard *t, struct tcp_key *key);
/* @fn may remove the connection it is given, and nothing else. */
void tcp_table_each_conn(struct tcp_shard *t, void (*fn)(struct tcp_conn *c, void *arg), void *arg);
/* ISS and timestamp offset of a flow: RFC 6528 section 3, RFC 7323 section 7.1 */
uint32_t tcp_iss(const struct stack *s, const struct tcp_key *key);
uint32_t tcp_ts_offset(const struct stack *s, const struct tcp_key *key);
uint32_t tcp_pmtu_get(struct stack *s, const struct ip_addr *client); /* never above the device's MTU */
void tcp_pmtu_set(struct stack *s, const struct ip_addr *client, uint32_t mtu);

/* tcp_request.c */
void tcp_request_syn(struct stack *s, const struct packet *p, const struct flow_key *flow,
                     const struct tcp_seg *seg, uint32_t iss_above);
void tcp_request_input(struct stack *s, struct tcp_request *r, const struct packet *p,
                       const struct tcp_seg *seg);
/* A segment of no connection: is it the ACK of a SYN-ACK that was a cookie? Then it is dealt with. */
bool tcp_request_cookie_ack(struct stack *s, const struct packet *p, const struct flow_key *flow,
                            const struct tcp_seg *seg);
uint8_t tcp_request_offers(const struct tcp_seg *syn); /* REQUEST_OFFERS of a SYN */
void tcp_half_open_enter(struct stack *s, const struct ip_addr *client);
void tcp_half_open_leave(struct stack *s, const struct ip_addr *client);
void tcp_request_events(struct stack *s); /* on_tcp_request and on_tcp_request_gone */
void tcp_request_reap(struct stack *s);   /* those that were decided are gone now */
bool tcp_request_pending(const struct tcp_shard *t);
void tcp_request_timer(struct wheel_timer *timer, uint64_t now_us);
void tcp_request_fini(struct stack *s);

/* tcp_cookie.c */
void tcp_cookie_send(struct stack *s, struct tcp_request *r); /* a SYN-ACK that is all we remember of @r */
/* Return: whether @seg acknowledges a cookie of this flow; then @r says what its SYN offered. */
bool tcp_cookie_check(struct stack *s, const struct tcp_seg *seg, struct tcp_request *r);

/* tcp_pressure.c: LIM-1 */
enum tcp_pressure { PRESSURE_NONE, PRESSURE_NO_GROWTH, PRESSURE_SHRINK, PRESSURE_REFUSE };
enum tcp_pressure tcp_pressure(const struct stack *s);
void tcp_pressure_relieve(struct stack *s); /* once a batch; may end connections */
void tcp_orphan_make_room(struct stack *s); /* LIM-2: at the limit of connections the oldest orphans go */

/* tcp_timewait.c */
void tcp_tw_enter(struct tcp_conn *c); /* takes the connection's place in the table */
/* Return: true when the segment is a SYN that may open a new connection (TW-2); the record is gone then, and
 * the new ISS has to lie above @iss_above. */
bool tcp_tw_input(struct stack *s, struct tcp_tw *tw, const struct tcp_seg *seg, uint32_t *iss_above);
void tcp_tw_timer(struct wheel_timer *timer, uint64_t now_us);

/* tcp_conn.c */
struct tcp_conn *tcp_conn_new(struct stack *s, const struct tcp_request *r);
void tcp_conn_init(struct tcp_conn *c, struct stack *s, const struct tcp_request *r);
/* The client repeats its SYN, perhaps with less in it: what it does not offer any more is not agreed on. */
void tcp_conn_syn_again(struct tcp_conn *c, const struct tcp_seg *syn);
/* The client has acknowledged our SYN with @ack; @wnd is its header's, @seq the segment's. */
void tcp_conn_opened(struct tcp_conn *c, uint32_t seq, uint32_t ack, uint16_t wnd);
void tcp_conn_free(struct tcp_conn *c); /* returns all it holds */
void tcp_conn_die(struct tcp_conn *c, int err,
                  enum tcp_rst rst);       /* on_tcp_closed(err) at batch end; @rst: tell the client */
void tcp_set_mss(struct tcp_conn *c);      /* from peer's MSS and path MTU (MSS-2) */
void tcp_pmtu_refresh(struct tcp_conn *c); /* to what is known of the way to its client now (ICM-3) */
const char *tcp_state_name(enum tcps state);

/* tcp_knobs.c */
void tcp_knobs_init(struct tcp_shard *t, const struct stack_config *c);
void tcp_knobs_drop(struct tcp_conn *c); /* back to the configuration's */
static inline uint32_t tcp_knob(const struct tcp_conn *c, enum tcp_option which)
{
    return c->s->tcp->knobs[c->knobs].value[which];
}

/* tcp_input.c */
void tcp_conn_input(struct tcp_conn *c, const struct tcp_seg *seg);
void tcp_challenge(struct tcp_conn *c, int cause); /* an ACK at batch end, if the limiter allows (RST-3) */

/* tcp_ack.c: what the client acknowledged */
void tcp_ack_input(struct tcp_conn *c, const struct tcp_seg *seg);
void tcp_rtt_sample(struct tcp_conn *c, uint32_t rtt_us);
void tcp_rtt_echo(struct tcp_conn *c, uint32_t tsecr);
uint32_t tcp_rto_us(const struct tcp_conn *c); /* with backoff */

/* tcp_sack.c: the scoreboard */
struct flight *tcp_no_flight(void);
void tcp_flight_end(struct tcp_conn *c); /* nothing is on its way any more; fine without a flight */
struct segment *tcp_segment_new(struct tcp_conn *c);
void tcp_segment_free(struct tcp_conn *c, struct segment *seg);
bool tcp_segment_split(struct tcp_conn *c, struct segment *seg,
                       uint32_t len);                      /* false: no memory, or the cap */
struct block *tcp_block_at(struct block *b, uint32_t seq); /* the chunk that holds @seq, from @b on */
/* Marks what @seg reports; returns bytes newly delivered. @dsack: its first block told of a duplicate */
uint32_t tcp_sack_input(struct tcp_conn *c, const struct tcp_seg *seg, bool *dsack);
/* @in: the ACK that reports @seg */
void tcp_rack_delivered(struct tcp_conn *c, const struct segment *seg, const struct tcp_seg *in);

/* tcp_loss.c */
uint32_t tcp_pipe(const struct tcp_conn *c); /* bytes believed to be on their way (RFC 6675) */
void tcp_loss_detect(struct tcp_conn *c);    /* after a batch's ACKs: RACK or NewReno, then PRR */
void tcp_loss_acked(struct tcp_conn *c, uint32_t acked,
                    uint32_t delivered); /* an ACK came: cwnd, end of recovery */
void tcp_loss_judge(struct tcp_conn *c, const struct tcp_seg *seg,
                    uint32_t acked);                                   /* was it needless? RTO-3 */
void tcp_loss_repeated(struct tcp_conn *c, const struct segment *seg); /* it has just left again */
void tcp_loss_dsack(struct tcp_conn *c, const struct tcp_sack *b);     /* it came twice */
void tcp_loss_timeout(struct tcp_conn *c);                             /* RTO-2 */
void tcp_loss_probe(struct tcp_conn *c);                               /* TLP */
void tcp_loss_tlp_acked(struct tcp_conn *c, const struct tcp_seg *seg, bool twice); /* @twice: it says so */
void tcp_loss_sent(struct tcp_conn *c, uint32_t bytes); /* PRR counts what leaves */

/* tcp_cc.c */
struct tcp_cc_ops {
    const char *name;
    void (*acked)(struct tcp_conn *c,
                  uint32_t acked); /* new data acknowledged outside recovery, cwnd was in use */
    /* congestion: the new ssthresh. @mark: no loss but an ECN mark, which stands for a shorter queue (RFC 8511) */
    uint32_t (*reduce)(struct tcp_conn *c, bool mark);
};
const struct tcp_cc_ops *tcp_cc_select(enum tcp_congestion which);
void tcp_cc_init(struct tcp_conn *c);
void tcp_cc_acked(struct tcp_conn *c, uint32_t acked);
void tcp_cc_rtt(struct tcp_conn *c, uint32_t rtt_us); /* HyStart++ */
void tcp_cc_sent(struct tcp_conn *c);                 /* after output: how much of cwnd is in use (CC-2) */
void tcp_cc_restart(struct tcp_conn *c);              /* CC-3 */
uint32_t tcp_cc_initial(const struct tcp_conn *c);

/* tcp_recv.c */
void tcp_recv_data(struct tcp_conn *c, const struct tcp_seg *seg);
void tcp_recv_careful(struct tcp_conn *c); /* a retransmission came */
void tcp_recv_consume(struct tcp_conn *c, uint32_t n);
void tcp_recv_settle(struct tcp_conn *c);  /* after callbacks: compact what stays (MEM-2), tune the budget */
void tcp_recv_compact(struct tcp_conn *c); /* out of slots that are far from full */
void tcp_recv_clear(struct tcp_conn *c);
uint32_t tcp_recv_window(const struct tcp_conn *c); /* bytes from rcv_nxt that we can offer now, edge kept */
bool tcp_recv_update_due(const struct tcp_conn *c); /* WND-2 */
int tcp_recv_sacks(const struct tcp_conn *c, struct tcp_sack out[4], int max);

/* tcp_ooo.c */
/* Counts what became of it. */
void tcp_ooo_add(struct tcp_conn *c, uint32_t seq, const uint8_t *data, uint32_t len, struct block *slot);
bool tcp_ooo_fin(struct tcp_conn *c, uint32_t fin_seq); /* false: no memory */
/* moves what became in-order to the receive queue; true: so did a FIN */
bool tcp_ooo_join(struct tcp_conn *c);
void tcp_ooo_clear(struct tcp_conn *c);
enum block_class tcp_copy_class(
    uint32_t held); /* of the chunk to copy to when @held bytes are held already */
bool tcp_pieces_add(struct stack *s, struct pieces *l, struct block *b, uint32_t off, uint32_t len);
void tcp_pieces_skip(struct stack *s, struct pieces *l, uint32_t n);
void tcp_pieces_clear(struct stack *s, struct pieces *l);

/* tcp_send.c: the send queue */
void tcp_send_acked(struct tcp_conn *c); /* frees chunks below snd_una */
void tcp_send_clear(struct tcp_conn *c);
void tcp_send_compact(struct tcp_conn *c); /* under pressure: a small rest leaves its large chunk */
void tcp_wake_writer(struct tcp_conn *c);  /* on_tcp_writable, when it waits and there is room */
uint32_t tcp_send_limit(const struct tcp_conn *c);
uint32_t tcp_tx_unsent(const struct tcp_conn *c); /* bytes queued behind snd_nxt */
/* Ranges of [seq, seq + len), from chunk @b on; returns how many, at most @max, and cuts @len to what they
 * hold. */
int tcp_send_ranges(struct block *b, uint32_t seq, uint32_t *len, struct iovec *iov, int max);

/* tcp_output.c */
bool tcp_output(struct tcp_conn *c);      /* everything that is due; true: there is more for another turn */
void tcp_output_full(struct tcp_conn *c); /* what fills whole packets leaves at once */
uint32_t tcp_sendable(const struct tcp_conn *c); /* bytes that could leave now, if they were queued */
/* tcp_emit.c: one segment each */
void tcp_emit_data(struct tcp_conn *c, uint32_t seq, uint8_t flags, const struct iovec *iov, int ranges,
                   uint32_t len, uint32_t mss);
void tcp_emit_ack(struct tcp_conn *c);
void tcp_emit_probe(struct tcp_conn *c); /* below the window, so that it must be answered */
void tcp_emit_rst(struct tcp_conn *c, enum tcp_rst why);
void tcp_emit_synack(struct tcp_conn *c, uint32_t tsval); /* @tsval: if timestamps were agreed on */
uint32_t tcp_tsval(const struct tcp_conn *c);             /* our clock, as the client sees it */
/* payload of a full segment, with the options that it would carry now */
uint32_t tcp_emit_mss(const struct tcp_conn *c);
/* tcp_reply.c: segments of no connection */
/* RST-4; RST_STRANGER is under the shard's bucket (RST-5) */
void tcp_reply_rst(struct stack *s, const struct flow_key *flow, const struct tcp_seg *seg, enum tcp_rst why);
void tcp_count_rst(struct stack *s, enum tcp_rst why);
/* @ts: TSval and TSecr, or NULL */
void tcp_reply_ack(struct stack *s, const struct flow_key *flow, uint32_t seq, uint32_t ack,
                   const uint32_t ts[2]);

/* tcp_timer.c */
void tcp_timer_set(struct tcp_conn *c, enum tcp_timer which, uint64_t delay_us);
void tcp_timer_clear(struct tcp_conn *c, enum tcp_timer which);
void tcp_timer_fire(struct wheel_timer *timer, uint64_t now_us);
void tcp_timer_rexmit(struct tcp_conn *c); /* choose and arm RTO, TLP or probe for what is outstanding */
void tcp_timer_life(struct tcp_conn *c);   /* keep-alive, FIN-WAIT-2 of an orphan */

/* tcp_batch.c */
void tcp_ready(struct tcp_conn *c); /* look at it in the next tcp_batch_end() */

/* tcp_check.c */
#ifdef NDEBUG
#define tcp_check(c)              ((void)(c))
#define tcp_check_empty(t)        ((void)(t))
#define tcp_check_sum(s)          ((void)(s))
#define tcp_check_acks(s, before) ((void)(s), (void)(before))
#else
void tcp_check(const struct tcp_conn *c);
void tcp_check_empty(const struct tcp_shard *t);
void tcp_check_sum(const struct stack *s); /* OBS-1 */
void tcp_check_acks(const struct stack *s, uint64_t before);
#endif

#endif
