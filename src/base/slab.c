/* slab.c - objects of one size from address space that is reserved at once and touched on demand. */
#include "culvert/base.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

int slab_init(struct slab *s, size_t object_bytes, uint32_t limit)
{
    size_t bytes = (object_bytes + 15) & ~(size_t)15;
    void *base =
        mmap(NULL, bytes * limit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (base == MAP_FAILED)
        return -ENOMEM;
    *s = (struct slab){ .base = base, .object_bytes = (uint32_t)bytes, .limit = limit };
    return 0;
}

void slab_fini(struct slab *s)
{
    if (s->base)
        munmap(s->base, (size_t)s->object_bytes * s->limit);
    *s = (struct slab){ 0 };
}

void *slab_get(struct slab *s)
{
    void *object = s->free_list;

    if (object) {
        memcpy(&s->free_list, object, sizeof(s->free_list));
    } else if (s->touched < s->limit) {
        object = s->base + (size_t)s->object_bytes * s->touched++;
    } else {
        s->failed++;
        return NULL;
    }
    if (++s->in_use > s->high_water)
        s->high_water = s->in_use;
    memset(object, 0, s->object_bytes);
    return object;
}

void slab_put(struct slab *s, void *object)
{
    if (!object)
        return;
    assert(slab_index(s, object) < s->touched && s->in_use > 0);
    memset(object, 0,
           s->object_bytes); /* a walk by index sees a free object as all zero, but for its first word */
    memcpy(object, &s->free_list, sizeof(s->free_list));
    s->free_list = object;
    s->in_use--;
}

uint32_t slab_index(const struct slab *s, const void *object)
{
    return (uint32_t)((size_t)((const uint8_t *)object - s->base) / s->object_bytes);
}

void *slab_at(const struct slab *s, uint32_t index)
{
    return s->base + (size_t)s->object_bytes * index;
}
