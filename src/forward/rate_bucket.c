/* rate_bucket.c - see rate_bucket.h. */
#include "rate_bucket.h"

#include <stddef.h>

#define DEPTH_US    50000 /* of the rate: how much may come at once */
#define DEPTH_MIN   4096  /* bytes: two datagrams of an Ethernet */
#define QUANTUM_US  10000 /* of the rate; many streams share one wake-up of the worker */
#define QUANTUM_MIN 1448
#define QUANTUM_MAX 65536
#define LOOKS_US    1000000 /* longer than between two looks while anything moves; rate times it is below 2^64 */

int64_t rate_bucket_depth(const struct rate_bucket *b)
{
    int64_t depth = (int64_t)(b->rate * DEPTH_US / 1000000);

    return depth > DEPTH_MIN ? depth : DEPTH_MIN;
}

int64_t rate_bucket_quantum(const struct rate_bucket *b)
{
    int64_t quantum = (int64_t)(b->rate * QUANTUM_US / 1000000);

    return quantum < QUANTUM_MIN ? QUANTUM_MIN : quantum < QUANTUM_MAX ? quantum : QUANTUM_MAX;
}

void rate_bucket_open(struct rate_bucket *b, uint64_t rate, uint64_t now_us)
{
    *b = (struct rate_bucket){ .rate = rate, .at_us = now_us };
    b->tokens = rate_bucket_depth(b);
}

void rate_bucket_set_rate(struct rate_bucket *b, uint64_t rate, uint64_t now_us)
{
    rate_bucket_refill(b, now_us);
    b->rate = rate;
    if (b->tokens > rate_bucket_depth(b))
        b->tokens = rate_bucket_depth(b);
}

/* Nobody has looked for long: is it full by now? A large datagram through a slow bucket takes a minute in advance. */
static bool has_filled(const struct rate_bucket *b, uint64_t passed_us)
{
    uint64_t missing = (uint64_t)(rate_bucket_depth(b) - b->tokens + b->credit);

    return passed_us > LOOKS_US && missing * 1000000 / b->rate <= passed_us;
}

void rate_bucket_refill(struct rate_bucket *b, uint64_t now_us)
{
    uint64_t passed = now_us - b->at_us, earned;
    int64_t payable, depth = rate_bucket_depth(b);

    if (now_us <= b->at_us || b->rate == 0)
        return;
    if (has_filled(b, passed)) {
        b->tokens = depth;
        b->credit = 0;
        b->at_us = now_us;
        return;
    }
    earned = b->rate * passed / 1000000;
    if (earned == 0)
        return;
    b->at_us += (earned * 1000000 + b->rate - 1) / b->rate; /* the rest of a byte is earned next time */
    payable = (int64_t)(b->waiting > 0 ? earned / 2 : earned);
    if (payable > b->credit)
        payable = b->credit;
    b->credit -= payable;
    b->tokens += (int64_t)earned - payable;
    if (b->tokens > depth)
        b->tokens = depth;
}

void rate_bucket_take(struct rate_bucket *b, uint64_t bytes)
{
    b->tokens -= (int64_t)bytes;
    b->used += bytes;
}

bool rate_bucket_has_room(const struct rate_bucket *b)
{
    return (b->waiting == 0 && b->tokens > 0) || b->credit < rate_bucket_depth(b);
}

void rate_bucket_pass(struct rate_bucket *b, uint64_t bytes)
{
    if (b->waiting == 0 && b->tokens > 0)
        b->tokens -= (int64_t)bytes;
    else
        b->credit += (int64_t)bytes;
    b->used += bytes;
}

bool rate_bucket_has_turn(const struct rate_bucket *b)
{
    return b->tokens >= rate_bucket_quantum(b);
}

uint64_t rate_bucket_due_us(const struct rate_bucket *b)
{
    int64_t missing = rate_bucket_quantum(b) - b->tokens;
    uint64_t share = b->credit > 0 ? b->rate / 2 : b->rate;

    return missing <= 0 ? b->at_us
                        : b->at_us + ((uint64_t)missing * 1000000 + share) / (share > 0 ? share : 1);
}

bool rate_bucket_is_full(struct rate_bucket *b, uint64_t now_us)
{
    rate_bucket_refill(b, now_us);
    return b->rate == 0 || (b->tokens == rate_bucket_depth(b) && b->credit == 0);
}
