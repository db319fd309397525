/* udp_impl.h - what udp.c (mappings, callbacks) and udp_io.c (packets in and out) share. */
#ifndef CULVERT_UDP_IMPL_H
#define CULVERT_UDP_IMPL_H

#include "ip_impl.h"

#define UDP_HEADER 8

/* A datagram that waits, in the headroom of the block that holds its packet. */
struct udp_item {
    const uint8_t *ip; /* the packet, for quotes */
    struct iovec data; /* behind the UDP header */
    uint32_t ip_len;
    uint32_t tag; /* of its two ends: others that have the same are worth a closer look */
    uint16_t gso_size;
    uint8_t ttl, tos;
};

/* Items are linked by block->next. */
struct udp_queue {
    struct block *first, *last;
    uint32_t count;
};

/* A mapping: a request until it is decided, then an endpoint. Both public types are this one object. */
struct udp_node {
    struct flow_key key; /* UDP_MATCH_CLIENT and requests: target none and target_port 0 */
    struct stack *s;
    struct udp_node *chain;
    struct wheel_timer expiry;    /* of a request */
    struct udp_node *next_opened; /* accepted with datagrams held; delivered at batch end */
    struct udp_queue held;
    struct ip_port asked; /* the target of the datagram that asked */
    uint32_t path_mtu;    /* to the client, as a too-big said; 0: none came */
    uint64_t path_mtu_us; /* when */
    void *user;
    bool open;   /* an endpoint */
    bool busy;   /* one of its callbacks runs: whoever called it frees it */
    bool closed; /* by a callback, while busy */
    bool opened_listed;
};

struct udp_shard {
    struct pool nodes;
    struct hash_key key;
    struct udp_node **table;
    uint32_t places; /* power of two */
    uint32_t endpoints, by_flow, requests, max_requests;
    size_t held_bytes;      /* of blocks that requests hold */
    uint32_t held;          /* how many blocks */
    struct udp_queue ready; /* verified, in order of arrival; delivered at batch end */
    struct udp_node *opened;
};

static inline struct udp_item *udp_item(struct block *b)
{
    return (struct udp_item *)(void *)((uint8_t *)b + sizeof(struct block));
}

void udp_queue_append(struct udp_queue *q, struct block *b);
struct block *udp_queue_take(struct udp_queue *q); /* NULL: empty */
void udp_queue_unlink(struct udp_queue *q, struct block *before,
                      struct block *b); /* @before NULL: it is first */

/* udp_io.c: read a datagram's addresses from its packet. */
struct flow_key udp_item_key(const struct udp_item *i);
/* A copy of a waiting datagram in a block of its size, so that it pins no slot; the block itself when it fits
 * well already. Takes @b; NULL: no memory, and @b is gone. */
struct block *udp_item_compact(struct stack *s, struct block *b);
void udp_item_show(const struct udp_item *i, struct udp_datagram *out);
/** udp_row_take() - put the first of @q, and those behind it that make a row with it, into @row
 * A row has one client, one target, one TTL and TOS, and datagrams of one size; the last may be shorter. What
 * belongs to the same two ends but does not fit the row ends it, so that their order is kept.
 * Return: how many blocks, linked in @row; @iov, of UDP_ROW_RANGES, and @out say what they hold. */
uint32_t udp_row_take(struct udp_queue *q, struct udp_queue *row, struct iovec *iov,
                      struct udp_datagram *out);
/* One ICMP error about a waiting datagram. */
void udp_item_reject(struct stack *s, const struct udp_item *i, enum stack_reject why);

#endif
