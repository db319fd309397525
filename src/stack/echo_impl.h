/* echo_impl.h - what echo.c (who answers), echo_token.c (answers that come later) and echo_outcome.c
 * share. */
#ifndef CULVERT_ECHO_IMPL_H
#define CULVERT_ECHO_IMPL_H

#include "ip_impl.h"

#define ICMP_HEADER 8
#define ECHO_TOKENS 4096

struct echo_place {
    uint32_t generation; /* of the last token */
    bool in_use;
};

struct echo_on {
    echo_handler *fn;
    void *arg;
    uint32_t kinds; /* ECHO_KIND_* */
};

struct echo_shard {
    struct pool detached;
    struct echo_place places[ECHO_TOKENS];
    size_t kept_bytes;
    struct echo_on on[2];         /* IPv4, IPv6 */
    struct echo_req req;          /* the one that the handler sees */
    const struct packet *current; /* NULL outside the callback */
    bool answered;                /* a verb was used on it */
};

/* The request that an outcome is about. The packet's addresses and marks always hold; its l4 points at 8
 * bytes, the request's ICMP header; its ip and ip_len are what may be quoted, NULL when that must be made
 * up. */
struct echo_subject {
    struct packet p;
    const uint8_t *payload; /* NULL: not kept */
    size_t payload_len;
    uint16_t ip_id;
    struct ip_options options; /* that a reply carries */
    bool limited;              /* a reply spends the stack's bucket, if there is one for replies */
};
struct echo_subject echo_subject_of(const struct stack *s, const struct packet *p);

/* The built-in reply to a request, or another one in its place: @o, may be NULL, overrides (icmp.md 2.4,
 * A8). */
enum echo_result echo_send_reply(struct stack *s, const struct echo_subject *q, const struct echo_outcome *o);
enum echo_result echo_send_outcome(struct stack *s, const struct echo_subject *q,
                                   const struct echo_outcome *o);

/* May a verb act on this request? EV_SENT: yes. */
enum echo_result echo_right_to_answer(const struct echo_req *r);

#endif
