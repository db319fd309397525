/* lab_script.h - what many scripts of the laboratory begin with: a connection in a given state or with a given
 * round trip, and the few packets that are always the same. */
#ifndef CULVERT_TEST_LAB_SCRIPT_H
#define CULVERT_TEST_LAB_SCRIPT_H

#include "lab.h"

typedef void lab_change(struct lab_options *o);

/* A connection whose handshake took @rtt_us; @change may be NULL. Nothing is in lab->out. */
struct lab *lab_open(uint64_t rtt_us, lab_change *change);
void lab_no_sack(struct lab_options *o); /* changes */
void lab_no_ts(struct lab_options *o);   /* timestamps */
void lab_no_tso(struct lab_options *o);

/* An ACK with one SACK block. */
void lab_sack(struct lab *lab, uint32_t ack, uint32_t start, uint32_t end);
/* Acknowledges everything so far, again and again after a round trip, until @until bytes are through. */
void lab_pump(struct lab *lab, uint64_t rtt_us, uint64_t until);
uint64_t lab_payload_out(const struct lab *lab); /* payload bytes of lab->out */
/* An ICMP error about our segment with this (relative) number; ends the batch. */
void lab_icmp(struct lab *lab, uint32_t quoted_seq, uint8_t type, uint8_t code, uint32_t mtu);

enum lab_where {
    LAB_SYN_RECEIVED,
    LAB_ESTABLISHED,
    LAB_FIN_WAIT_1,
    LAB_FIN_WAIT_2,
    LAB_CLOSING,
    LAB_TIME_WAIT,
    LAB_CLOSE_WAIT,
    LAB_LAST_ACK,
    LAB_HELD,   /* its SYN waits for a decision */
    LAB_NOTHING /* LISTEN */
};
#define LAB_UP 100 /* bytes the client has sent when a state is reached: next is 101, or 102 after its FIN */

const char *lab_where_name(enum lab_where w);
/* A laboratory whose connection is in state @w. Our numbers: SYN 0, no data, FIN 1. */
struct lab *lab_in(enum lab_where w);
void lab_client_fin(struct lab *lab, uint32_t ack); /* behind LAB_UP bytes */
void lab_shut_down(struct lab *lab);                /* the embedder has no more to say */

#endif
