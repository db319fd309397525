/* ring.c - a bounded queue of byte records between exactly one producer thread and one consumer thread.
 *
 * How it works: head and tail count bytes from the start of time, so tail - head is what is in use and nothing needs a
 * spare slot. A record is an 8-byte length and its bytes, rounded up to 8; one that would cross the end is written at
 * the start, and a mark tells the consumer to follow. Producer and consumer each store only their own positions
 * (release) and read the other's (acquire), so no byte of a record is read before it is complete, and none is written
 * over before it was popped. */
#include "culvert/base.h"

#include <assert.h>

#define RECORD_HEADER 8
#define RECORD_WRAP   UINT64_MAX /* instead of a length: the record is at the start of the memory */

static uint64_t *header_at(const struct ring *r, size_t position)
{
    return (uint64_t *)(void *)(r->data + (position & (r->cap - 1)));
}

static size_t record_size(uint64_t len)
{
    return RECORD_HEADER + (((size_t)len + 7) & ~(size_t)7);
}

/* Where the record that begins at @position really lies: there, or after the wrap mark. */
static size_t record_position(const struct ring *r, size_t position)
{
    if (*header_at(r, position) != RECORD_WRAP)
        return position;
    return position + r->cap - (position & (r->cap - 1));
}

void ring_init(struct ring *r, void *memory, size_t cap, uint32_t max_records)
{
    assert(cap >= 16 && (cap & (cap - 1)) == 0 && ((uintptr_t)memory & 7) == 0);
    r->data = memory;
    r->cap = cap;
    r->max_records = max_records;
    atomic_init(&r->head, 0);
    atomic_init(&r->taken, 0);
    atomic_init(&r->tail, 0);
    r->put = 0;
}

void *ring_reserve(struct ring *r, size_t len)
{
    size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    size_t head = atomic_load_explicit(&r->head, memory_order_acquire);
    size_t to_end = r->cap - (tail & (r->cap - 1)), skipped, need;

    /* Half of the memory is the most that fits at every position of an empty ring. */
    if (len > r->cap / 2 - RECORD_HEADER)
        return NULL;
    need = record_size(len);
    skipped = need > to_end ? to_end : 0;
    if (tail - head + skipped + need > r->cap)
        return NULL;
    if (r->put - atomic_load_explicit(&r->taken, memory_order_acquire) >= r->max_records)
        return NULL;
    if (skipped > 0)
        *header_at(r, tail) = RECORD_WRAP;
    *header_at(r, tail + skipped) = len;
    return header_at(r, tail + skipped) + 1;
}

void ring_commit(struct ring *r)
{
    size_t at = record_position(r, atomic_load_explicit(&r->tail, memory_order_relaxed));

    r->put++;
    atomic_store_explicit(&r->tail, at + record_size(*header_at(r, at)), memory_order_release);
}

const void *ring_peek(struct ring *r, size_t *len)
{
    size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    uint64_t *header;

    if (head == atomic_load_explicit(&r->tail, memory_order_acquire))
        return NULL;
    header = header_at(r, record_position(r, head));
    *len = (size_t)*header;
    return header + 1;
}

void ring_pop(struct ring *r)
{
    size_t at = record_position(r, atomic_load_explicit(&r->head, memory_order_relaxed));
    uint32_t taken = atomic_load_explicit(&r->taken, memory_order_relaxed);

    atomic_store_explicit(&r->head, at + record_size(*header_at(r, at)), memory_order_release);
    atomic_store_explicit(&r->taken, taken + 1, memory_order_release);
}

bool ring_is_empty(const struct ring *r)
{
    return atomic_load_explicit(&r->head, memory_order_acquire) ==
           atomic_load_explicit(&r->tail, memory_order_acquire);
}
