/* rate_bucket.h - one worker's part of a rate: a token bucket that streams wait for and datagrams pass or not; private to src/forward.
 *
 * Tokens are bytes. A stream takes what is there and waits for more. A datagram cannot wait: it passes when there are tokens, and while
 * streams have taken them all, on credit, up to the depth of the bucket. Credit is paid back from at most half of what comes in while
 * streams wait, so neither can starve the other. Time is an argument. */
#ifndef CULVERT_FORWARD_RATE_BUCKET_H
#define CULVERT_FORWARD_RATE_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

struct rate_bucket {
    uint64_t rate;    /* bytes a second; 0: no limit, and nothing else counts */
    int64_t tokens;   /* below 0: taken in advance */
    int64_t credit;   /* what datagrams have had while streams waited */
    uint64_t at_us;   /* up to when tokens have come in */
    uint64_t used;    /* bytes, since rate_bucket_report() */
    uint32_t waiting; /* streams, as their list says (rate.c) */
    bool missed;      /* somebody had to wait, or was dropped, since then */
};

void rate_bucket_open(struct rate_bucket *b, uint64_t rate, uint64_t now_us); /* and full */
/** rate_bucket_set_rate() - another part from now on; what was earned stays, as far as the new depth holds it */
void rate_bucket_set_rate(struct rate_bucket *b, uint64_t rate, uint64_t now_us);
void rate_bucket_refill(struct rate_bucket *b, uint64_t now_us);
int64_t rate_bucket_depth(const struct rate_bucket *b);
/** rate_bucket_quantum() - what a stream takes before it is another one's turn */
int64_t rate_bucket_quantum(const struct rate_bucket *b);
void rate_bucket_take(struct rate_bucket *b, uint64_t bytes); /* a stream has moved these */
/** rate_bucket_has_room() - may a datagram pass? After rate_bucket_refill() */
bool rate_bucket_has_room(const struct rate_bucket *b);
void rate_bucket_pass(struct rate_bucket *b, uint64_t bytes); /* it does */
/** rate_bucket_has_turn() - is a whole quantum there? Less is not worth waking a stream for; after rate_bucket_refill() */
bool rate_bucket_has_turn(const struct rate_bucket *b);
/** rate_bucket_due_us() - when it will be; after rate_bucket_refill() */
uint64_t rate_bucket_due_us(const struct rate_bucket *b);
bool rate_bucket_is_full(struct rate_bucket *b, uint64_t now_us);

#endif
