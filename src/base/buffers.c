/* buffers.c - large buffers from address space that is reserved at once and touched on demand. */
#include "culvert/base.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

int buffers_init(struct buffers *b, size_t bytes, uint32_t limit, uint32_t keep)
{
    void *base =
        mmap(NULL, limit * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (base == MAP_FAILED)
        return -ENOMEM;
    *b = (struct buffers){ .base = base, .bytes = bytes, .limit = limit, .keep = keep };
    return 0;
}

void buffers_fini(struct buffers *b)
{
    if (b->base)
        munmap(b->base, b->limit * b->bytes);
    *b = (struct buffers){ 0 };
}

void *buffers_get(struct buffers *b)
{
    void *buffer = b->free_list;

    if (buffer)
        memcpy(&b->free_list, buffer, sizeof(b->free_list));
    else if (b->touched < b->limit)
        buffer = b->base + b->touched++ * b->bytes;
    else
        return NULL;
    b->in_use++;
    return buffer;
}

void buffers_put(struct buffers *b, void *buffer)
{
    memcpy(buffer, &b->free_list, sizeof(b->free_list));
    b->free_list = buffer;
    if (--b->in_use > 0 || b->touched <= b->keep)
        return;
    madvise(b->base, b->touched * b->bytes, MADV_DONTNEED); /* a rush is over: faults.md G4 */
    b->touched = 0;
    b->free_list = NULL;
}

size_t buffers_resident_bytes(const struct buffers *b)
{
    return b->touched * b->bytes;
}
