/* pool.c - slabs inside the region that the embedder handed over, and the packet blocks made of them.
 * Nothing is ever zeroed: whoever asks fills in what it needs. */
#include "stack_impl.h"

#define BLOCKS_TRIM_US 10000 /* between two searches, when all is in use */

static const uint32_t block_bytes_of[BLOCK_CLASSES] = {
    [BLOCK_CHUNK2] = 2048,
    [BLOCK_CHUNK16] = 16384,
    [BLOCK_CHUNK64] = 65536,
    [BLOCK_SLOT] = STACK_SLOT_BYTES,
};
static const char *const block_names[BLOCK_CLASSES] = {
    [BLOCK_CHUNK2] = "chunk2",
    [BLOCK_CHUNK16] = "chunk16",
    [BLOCK_CHUNK64] = "chunk64",
    [BLOCK_SLOT] = "slot",
};

_Static_assert(sizeof(struct block) <= BLOCK_HEADROOM, "a block's header fits in its headroom");

void *region_take(uint8_t **at, size_t bytes, size_t align)
{
    uint8_t *p = (uint8_t *)(((uintptr_t)*at + align - 1) & ~(uintptr_t)(align - 1));

    *at = p + bytes;
    return p;
}

size_t pool_region_bytes(uint32_t object_bytes, uint32_t limit)
{
    return slab_region_bytes(object_bytes, limit) + PAGE_BYTES;
}

void pool_init(struct stack *s, struct pool *p, const char *name, uint32_t object_bytes, uint32_t limit,
               uint8_t **region)
{
    assert(s->pool_count < STACK_POOLS_MAX);
    s->pools[s->pool_count++] = p;
    *p = (struct pool){ .name = name };
    slab_init_at(&p->slab, region_take(region, slab_region_bytes(object_bytes, limit), PAGE_BYTES),
                 object_bytes, limit);
}

/* MEM-3: a test makes every k-th request fail as if the limit had been reached. */
static bool failure_is_injected(struct pool *p)
{
    if (p->fail_every == 0 || ++p->fail_count < p->fail_every)
        return false;
    p->fail_count = 0;
    return true;
}

void *pool_get(struct pool *p)
{
    if (failure_is_injected(p)) {
        p->slab.failed++;
        return NULL;
    }
    return slab_get(&p->slab);
}

void pool_put(struct pool *p, void *object)
{
    slab_put(&p->slab, object);
}

uint32_t pool_index(const struct pool *p, const void *object)
{
    return slab_index(&p->slab, object);
}

void *pool_at(const struct pool *p, uint32_t index)
{
    return slab_at(&p->slab, index);
}

/* ---- blocks ------------------------------------------------------------------------------------------------- */

static uint32_t block_limit(const struct stack_config *c, enum block_class class_)
{
    uint32_t each = block_bytes_of[class_] + BLOCK_HEADROOM;

    if (class_ == BLOCK_SLOT)
        return c->rx_slots;
    return (uint32_t)(c->buffer_cap_bytes / each);
}

size_t blocks_region_bytes(const struct stack_config *c)
{
    size_t sum = 0;

    for (int i = 0; i < BLOCK_CLASSES; i++)
        sum += pool_region_bytes(block_bytes_of[i] + BLOCK_HEADROOM, block_limit(c, (enum block_class)i));
    return sum;
}

void blocks_init(struct stack *s, uint8_t **region)
{
    for (int i = 0; i < BLOCK_CLASSES; i++)
        pool_init(s, &s->blocks[i], block_names[i], block_bytes_of[i] + BLOCK_HEADROOM,
                  block_limit(&s->cfg, (enum block_class)i), region);
}

static size_t cost(const struct pool *p)
{
    return p->slab.group_bytes / p->slab.per_group;
}

size_t block_cost(const struct stack *s, enum block_class c)
{
    return cost(&s->blocks[c]);
}

/* What blocks hold of the system's memory, with what is free in it. */
size_t blocks_resident_bytes(const struct stack *s)
{
    size_t sum = 0;

    for (int i = 0; i < BLOCK_CLASSES; i++)
        sum += slab_resident_bytes(&s->blocks[i].slab);
    return sum;
}

/* Memory that one class has left behind goes back before another one takes more than the cap and a quarter, for what is free among what
 * is used; otherwise stack_trim() gives it back in time. */
static bool fits(struct stack *s, struct pool *p)
{
    if (s->block_bytes + cost(p) > s->cfg.buffer_cap_bytes)
        return false;
    if (!slab_would_grow(&p->slab) ||
        blocks_resident_bytes(s) + p->slab.group_bytes <= s->cfg.buffer_cap_bytes / 4 * 5)
        return true;
    if (s->now_us >= s->blocks_trim_us) {
        s->blocks_trim_us = s->now_us + BLOCKS_TRIM_US;
        for (int i = 0; i < BLOCK_CLASSES; i++) {
            slab_trim(&s->blocks[i].slab, NULL, NULL); /* once to find them, once to give them back */
            slab_trim(&s->blocks[i].slab, NULL, NULL);
        }
    }
    return blocks_resident_bytes(s) + p->slab.group_bytes <= s->cfg.buffer_cap_bytes / 4 * 5;
}

struct block *block_get(struct stack *s, enum block_class c)
{
    struct pool *p = &s->blocks[c];
    struct block *b;

    if (!fits(s, p)) {
        p->slab.failed++;
        return NULL;
    }
    b = pool_get(p);
    if (b == NULL)
        return NULL;
    s->block_bytes += cost(p);
    b->bytes = block_bytes_of[c];
    b->refs = 1;
    b->class_ = (uint8_t)c;
    b->next = NULL;
    return b;
}

void block_put(struct stack *s, struct block *b)
{
    struct pool *p = &s->blocks[b->class_];

    assert(b->refs > 0);
    if (--b->refs > 0)
        return;
    s->block_bytes -= cost(p);
    pool_put(p, b);
}

enum block_class block_class_for(size_t bytes)
{
    if (bytes <= block_bytes_of[BLOCK_CHUNK2])
        return BLOCK_CHUNK2;
    return bytes <= block_bytes_of[BLOCK_CHUNK16] ? BLOCK_CHUNK16 : BLOCK_CHUNK64;
}

void payload_copy(struct stack *s, void *to, const void *from, size_t len)
{
    memcpy(to, from, len);
    COUNT_ADD(s, payload_copied, len);
}
