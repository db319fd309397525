/* ip_lab.h - one shard under test without TCP in mind: a virtual clock, everything that it emits, hands off and reports.
 * Answers to its callbacks are data in the lab, so that a test reads as a row: what went in, what came out. */
#ifndef CULVERT_TEST_IP_LAB_H
#define CULVERT_TEST_IP_LAB_H

#include "culvert/stack.h"
#include "pkt_build.h"

#define LAB_CLIENT   "10.0.0.2"
#define LAB_CLIENT6  "fd00::2"
#define LAB_TARGET   "192.0.2.80"
#define LAB_TARGET6  "2001:db8::80"
#define LAB_GATEWAY  "10.0.0.1" /* assigned, with 10.0.0.0/24 on link */
#define LAB_GATEWAY6 "fd00::1"

struct lab_packet {
    uint8_t *data;
    size_t len;
    struct pkt_meta meta;
    int iovcnt;
    uint32_t to_shard, origin; /* of a hand-off */
};

struct lab_datagram {
    struct udp_datagram d; /* d.data is the lab's own copy */
    struct iovec data;
    void *user;
};

#define LAB_KEEP 8300 /* packets and datagrams that are remembered */

struct ip_lab {
    struct stack_config cfg; /* change before ip_lab_start() */
    struct stack_events ev;
    struct stack *s;
    void *memory;
    size_t bytes;
    uint64_t now_us;

    struct lab_packet out[LAB_KEEP], handed[64];
    size_t outs, hands;
    int emit_result;   /* what emit says */
    bool handoff_full; /* what handoff says is !this */

    struct lab_datagram got[LAB_KEEP];
    size_t gots, rows;           /* datagrams, and the calls that brought them */
    struct udp_request *request; /* the last one */
    unsigned requests, gone;
    void *gone_user;
    enum { LAB_HOLD, LAB_ACCEPT, LAB_ACCEPT_FLOW, LAB_REJECT } on_request;
    enum stack_reject why;
    struct udp_endpoint *endpoint; /* the last one accepted */
    bool close_in_datagram;        /* on_udp_datagram closes its endpoint */

    unsigned tcp_requests;
    bool tcp_hold; /* a request is left open; else it is refused */

    enum echo_verdict verdict;
    void (*in_echo)(struct ip_lab *lab, struct echo_req *r);
    struct echo_req *echo_ptr;
    struct echo_req echo; /* a copy of the last */
    unsigned echoes;
    int results[8];
    echo_token token;
};

/** ip_lab_new() - a lab with its defaults: small pools, all offloads off, the two gateway addresses, MTU 1500 */
struct ip_lab *ip_lab_new(void);
void ip_lab_start(struct ip_lab *lab);
void ip_lab_free(struct ip_lab *lab); /* also checks that no block is held and the counters add up */
int ip_lab_setup(void **state);       /* for cmocka: new and start */
int ip_lab_teardown(void **state);

/* One packet in, and the end of its batch. */
void ip_lab_input(struct ip_lab *lab, const struct pkt *p);
/* The same without the batch's end. */
void ip_lab_feed(struct ip_lab *lab, const struct pkt *p);
void ip_lab_bytes(struct ip_lab *lab, const void *data, size_t len, const struct pkt_meta *meta);
void ip_lab_run_until(struct ip_lab *lab, uint64_t now_us);
/* Forget what came out. */
void ip_lab_clear(struct ip_lab *lab);
/* Parse emitted packet @i; fails the test, with its defect, if it is not a packet that a careful host would take. */
struct pkt_view ip_lab_out(struct ip_lab *lab, size_t i);
/* Put the emitted fragments from..to-1 together; fails the test if they are not one datagram. Returns its payload length. */
size_t ip_lab_join(struct ip_lab *lab, size_t from, size_t to, uint8_t *out, size_t cap,
                   struct pkt_view *first);

/* The counter of this name ("icmp.x": icmp4.x and icmp6.x together); fails the test if there is none. */
uint64_t ip_lab_count(const struct ip_lab *lab, const char *name);
/* The identity of stack.h: NULL, or what does not add up. */
const char *ip_lab_sum_error(const struct ip_lab *lab);
/* In use of the pool of this name. */
uint32_t ip_lab_in_use(const struct ip_lab *lab, const char *pool);

#endif
