/* memory.c - what libev does when there is no memory: it goes on (faults.md R2).
 *
 * libev has no way to say "no memory" and ends the process instead. It asks seldom: when a loop is made, and when one of its
 * arrays grows. So there is a reserve for it, address space that is never touched while malloc() works: 2 MiB are the arrays of a
 * loop with 100,000 descriptors. Blocks of the reserve are not given back; when it is used up libev does what it always did. */
#include "loop_impl.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <ev.h>

#define RESERVE_BYTES (2u << 20)
#define ALIGN_BYTES   16u

/* One for the process, as libev's allocator is; threads that make loops or grow theirs share it. */
static struct {
    _Alignas(ALIGN_BYTES) char bytes[RESERVE_BYTES];
    atomic_size_t used;
} reserve;

static bool is_reserved(const void *p)
{
    return (uintptr_t)p - (uintptr_t)reserve.bytes < RESERVE_BYTES;
}

/* A block of the reserve has its size in front of it. */
static void *reserve_get(size_t size)
{
    size_t whole = ALIGN_BYTES + (size + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES, at;

    if (whole > RESERVE_BYTES)
        return NULL;
    at = atomic_fetch_add(&reserve.used, whole);
    if (at > RESERVE_BYTES - whole)
        return NULL;
    memcpy(reserve.bytes + at, &size, sizeof(size));
    return reserve.bytes + at + ALIGN_BYTES;
}

static size_t size_of(void *p)
{
    size_t size;

    if (!is_reserved(p))
        return malloc_usable_size(p);
    memcpy(&size, (char *)p - ALIGN_BYTES, sizeof(size));
    return size;
}

static void *grow(void *old, size_t size)
{
    void *p = is_reserved(old) ? malloc(size) : realloc(old, size);
    size_t had;

    if (p == NULL) {
        p = reserve_get(size);
        if (p == NULL)
            return NULL;
    } else if (!is_reserved(old)) {
        return p;
    }
    had = old != NULL ? size_of(old) : 0;
    if (had > 0)
        memcpy(p, old, had < size ? had : size);
    if (!is_reserved(old))
        free(old);
    return p;
}

static void *allocate(void *old, long size)
{
    if (size > 0)
        return grow(old, (size_t)size);
    if (!is_reserved(old))
        free(old);
    return NULL;
}

static void set_allocator(void)
{
    ev_set_allocator(allocate);
}

void loop_memory_prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, set_allocator);
}
