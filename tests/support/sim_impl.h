/* sim_impl.h - what the link (sim_link.c), the client (sim_client.c) and the run (sim.c) of the simulator share. */
#ifndef CULVERT_TEST_SIM_IMPL_H
#define CULVERT_TEST_SIM_IMPL_H

#include "sim.h"

#define NEVER UINT64_MAX

enum seg_state { UNSENT, SENT, SACKED, LOST, ACKED };
enum event_kind { TO_CLIENT, TO_STACK, ICMP_TO_STACK };

struct event {
    uint64_t at, order;
    enum event_kind kind;
    struct lab_seg seg;
    struct lab_out out; /* of ICMP: the packet that did not fit */
};

struct client {
    bool open, fin_sent, fin_acked, fin_seen, reset;
    uint32_t mss, wnd;    /* of the stack */
    uint32_t seg;         /* bytes of one entry of segs */
    uint64_t una, fin_at; /* stream offsets */
    uint8_t *segs;        /* enum seg_state of each stretch of the stream */
    uint64_t *sent_at;
    size_t nsegs;
    unsigned dupacks, backoff;
    uint64_t rto_at, ack_at, syn_at;
    bool recovering;
    uint64_t recover;
    uint8_t *have; /* byte map of what we received */
    uint64_t got, fin_offset;
    bool fin_known;
    unsigned unacked;
    uint64_t recent[3];
    uint64_t dsack_start, dsack_end;
    bool dsack;
    bool ece, cwr_due; /* RFC 3168: congestion to be told of; an answer that we owe */
    uint64_t cwr_from; /* once a window: not again before this is acknowledged */
};

struct sim {
    struct sim_options o;
    struct lab *lab;
    struct prng rng;
    struct event *heap;
    size_t events;
    uint64_t order;
    uint64_t free_at[2]; /* when the rate limit lets the next packet pass; [1]: to the stack */
    bool bad[2];         /* the Gilbert-Elliott state */
    uint64_t icmp_at;    /* when the router may tell again */
    struct client c;
    struct sim_result r;
    uint64_t down_high;
    uint64_t relay_at;
    unsigned thinned; /* ACKs left out in a row */
    unsigned burst;   /* packets from the stack since the last step */
};

bool sim_chance(struct sim *s, double p);

/* sim_link.c */
void sim_from_stack(struct lab *lab, const struct lab_out *o); /* the lab's hook */
void sim_to_stack(struct sim *s, const struct lab_seg *seg);
bool sim_due(const struct sim *s);
struct event sim_pop(struct sim *s);
/* What a router says whose link is too narrow for @o (RFC 1191, RFC 4443 section 3.2). */
void sim_too_big(struct sim *s, const struct lab_out *o);

/* sim_client.c */
void client_syn(struct sim *s);
void client_input(struct sim *s, const struct lab_out *o);
void client_sends(struct sim *s);
void client_ack(struct sim *s);
void client_timeout(struct sim *s);

#endif
