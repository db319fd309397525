/* chain.c - bytes that wait, in blocks from a mapping that is touched on demand. */
#include "h2_impl.h"

#include <sys/mman.h>

static_assert(sizeof(struct block) == BLOCK_BYTES, "a block is two pages");

int h2_blocks_init(struct h2_blocks *b, uint32_t limit)
{
    b->bytes = slab_region_bytes(sizeof(struct block), limit);
    b->memory =
        mmap(NULL, b->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (b->memory == MAP_FAILED) {
        b->memory = NULL;
        return -ENOMEM;
    }
    slab_init_at(&b->slab, b->memory, sizeof(struct block), limit);
    return 0;
}

void h2_blocks_fini(struct h2_blocks *b)
{
    slab_fini(&b->slab);
    if (b->memory)
        munmap(b->memory, b->bytes);
    *b = (struct h2_blocks){ 0 };
}

static bool grow(struct h2_blocks *b, struct chain *c)
{
    struct block *block = slab_get(&b->slab);

    if (!block)
        return false;
    block->next = NULL;
    block->off = block->len = 0;
    if (c->last)
        c->last->next = block;
    else
        c->first = block;
    c->last = block;
    return true;
}

bool chain_put(struct h2_blocks *b, struct chain *c, const void *data, size_t len)
{
    const uint8_t *from = data;

    while (len > 0) {
        size_t n;

        if ((!c->last || c->last->len == sizeof(c->last->data)) && !grow(b, c))
            return false;
        n = sizeof(c->last->data) - c->last->len;
        n = n < len ? n : len;
        memcpy(c->last->data + c->last->len, from, n);
        c->last->len += (uint32_t)n;
        c->len += n;
        from += n;
        len -= n;
    }
    return true;
}

size_t chain_get(struct h2_blocks *b, struct chain *c, void *to, size_t len)
{
    size_t got = 0;

    while (got < len && c->first) {
        struct block *block = c->first;
        size_t n = block->len - block->off;

        n = n < len - got ? n : len - got;
        if (to)
            memcpy((uint8_t *)to + got, block->data + block->off, n);
        block->off += (uint32_t)n;
        got += n;
        if (block->off < block->len)
            break;
        c->first = block->next;
        if (!c->first)
            c->last = NULL;
        slab_put(&b->slab, block);
    }
    c->len -= got;
    return got;
}

size_t chain_peek(const struct chain *c, void *to, size_t len)
{
    size_t got = 0;

    for (const struct block *block = c->first; block && got < len; block = block->next) {
        size_t n = block->len - block->off;

        n = n < len - got ? n : len - got;
        memcpy((uint8_t *)to + got, block->data + block->off, n);
        got += n;
    }
    return got;
}

void chain_drop(struct h2_blocks *b, struct chain *c)
{
    chain_get(b, c, NULL, c->len);
}
