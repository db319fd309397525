/* memory.c - what a connection holds: nghttp2's share is counted where it asks for it. */
#include "h2_impl.h"

#include <malloc.h>
#include <stdlib.h>

static void *counted(struct h2 *h, void *memory)
{
    h->library_bytes += malloc_usable_size(memory);
    return memory;
}

static void *on_malloc(size_t size, void *arg)
{
    return counted(arg, malloc(size));
}

static void *on_calloc(size_t n, size_t size, void *arg)
{
    return counted(arg, calloc(n, size));
}

static void on_free(void *memory, void *arg)
{
    struct h2 *h = arg;

    h->library_bytes -= malloc_usable_size(memory);
    free(memory);
}

static void *on_realloc(void *memory, size_t size, void *arg)
{
    struct h2 *h = arg;
    size_t before = malloc_usable_size(memory);
    void *grown = realloc(memory, size);

    if (grown)
        h->library_bytes += malloc_usable_size(grown) - before;
    return grown;
}

void h2_count_memory(struct h2 *h, nghttp2_mem *out)
{
    *out = (nghttp2_mem){ h, on_malloc, on_free, on_calloc, on_realloc };
}

void h2_memory(const struct h2 *h, struct memory_use *add)
{
    add->bytes[MEMORY_HTTP2] +=
        sizeof(*h) + h->library_bytes + slab_resident_bytes(&h->slab) + slab_resident_bytes(&h->blocks.slab);
    for (const struct h2_stream *s = h->streams; s; s = s->next)
        add->bytes[MEMORY_HTTP2] += queue_bytes(s->queue);
}
