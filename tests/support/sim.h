/* sim.h - a client written without a look at the stack, and a link between the two that loses, delays,
 * reorders and doubles (tcp-stack.md 9.2). One seed decides everything; time is virtual. */
#ifndef CULVERT_TEST_SIM_H
#define CULVERT_TEST_SIM_H

#include "lab.h"

#define SIM_EVENTS 65536

struct sim_link { /* the same both ways; probabilities are for each packet */
    double loss, duplicate, reorder;
    double to_bad, to_good, bad_loss; /* Gilbert-Elliott: changes of state, and the loss in the bad one */
    double corrupt;                   /* one bit turns over */
    double mark;                      /* congestion experienced, where the sender allows it */
    double recut;                     /* a box on the way cuts a segment in two, anywhere */
    double ack_thinning;              /* a bare ACK of the client is left out */
    uint64_t delay_us, jitter_us, reorder_us;
    uint64_t rate_bytes_per_s; /* 0: no limit */
    unsigned queue_packets;    /* of the rate limit, drop-tail; 0: no limit */
    uint32_t narrow_mtu;       /* from options.narrow_at_us on, towards the client; 0: never */
    bool narrow_icmp;          /* and the router says so */
};

enum sim_down { /* how the stack's super-segments reach the client */
                SIM_DOWN_SEGMENTS,
                SIM_DOWN_WHOLE, /* as they are: one hop */
                SIM_DOWN_MIXED  /* some merged, some not */
};

struct sim_options {
    struct lab_options lab;
    struct sim_link link;
    uint64_t seed;
    uint64_t up_bytes, down_bytes;
    unsigned wrap; /* 1: both ISS in the last 64 KiB before 2^32; 2: before 2^31 */
    enum sim_down down_shape;
    bool merge_up;          /* the client's segments reach the stack as super-segments of random length */
    bool stalled_relay;     /* the embedder reads a little every now and then */
    bool down_after_up;     /* the embedder answers when the client has said all: half close */
    bool ecn;               /* the client offers it */
    uint32_t message_bytes; /* > 0: ping-pong, message by message; both streams are as long then */
    uint32_t write_bytes;   /* > 0: both sides write so little at a time */
    uint64_t blackout_at_us, blackout_us;
    uint64_t narrow_at_us;
    unsigned batch_packets; /* packets to the stack that share a batch: up to this many */
    uint64_t deadline_us;   /* virtual time until all must be over */
    uint32_t client_window; /* bytes; 0: 1 MiB */
    void (*prepare)(struct lab *lab, void *arg); /* before the first packet */
    void *prepare_arg;
};

struct sim_result {
    bool wrong;      /* a byte that was delivered or sent was not the right one, or an ACK lied */
    bool reset;      /* the stack gave the connection up with an RST */
    bool done;       /* both streams complete and exact, both FINs, the connection gone */
    const char *why; /* when not done */
    uint64_t took_us;
    uint64_t down_sent, down_resent, down_dropped; /* payload bytes towards the client */
    uint64_t up_sent, up_dropped, up_twice;        /* from it; received twice by the stack */
    uint64_t packets_down, acks_down;
    uint64_t digest; /* of every byte that the stack emitted, headers included */
    uint64_t corrupted, marked, cwr_down, too_big,
        acks_thinned; /* packets; cwr_down: of the stack with CWR */
};

void sim_options_default(struct sim_options *o);
struct sim_result sim_run(const struct sim_options *o);

#endif
