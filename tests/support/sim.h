/* sim.h - a client written without a look at the stack, and a link between the two that loses, delays,
 * reorders and doubles (tcp-stack.md 9.2). One seed decides everything; time is virtual. */
#ifndef CULVERT_TEST_SIM_H
#define CULVERT_TEST_SIM_H

#include "lab.h"

struct sim_link {                    /* the same both ways */
    double loss, duplicate, reorder; /* probabilities for each packet of one MSS */
    uint64_t delay_us, jitter_us, reorder_us;
    uint64_t rate_bytes_per_s; /* 0: no limit */
    unsigned queue_packets;    /* of the rate limit; 0: no limit */
};

struct sim_options {
    struct lab_options lab;
    struct sim_link link;
    uint64_t seed;
    uint64_t up_bytes, down_bytes;
    unsigned wrap;      /* 1: both ISS in the last 64 KiB before 2^32; 2: before 2^31 */
    bool whole_down;    /* super-segments reach the client as they are: one hop */
    bool merge_up;      /* the client's segments reach the stack as super-segments of random length */
    bool stalled_relay; /* the embedder reads a little every now and then */
    bool down_after_up; /* the embedder answers when the client has said all: half close */
    uint64_t blackout_at_us, blackout_us;
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
};

void sim_options_default(struct sim_options *o);
struct sim_result sim_run(const struct sim_options *o);

#endif
