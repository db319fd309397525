/* slab.c - objects of one size from address space that is reserved at once, touched on demand and given back when idle. */
#include "culvert/base.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define SLAB_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLAB_ASAN 1
#endif
#endif

#ifdef SLAB_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, n)   ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define POISON(p, n)   ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

#define PAGE_BYTES  4096u
#define GROUP_BYTES 16384u /* small enough to become empty, large enough to be worth a system call */

/* ---- layout: groups' headers, the bitmap, then the groups themselves, each on whole pages ------------------------ */

struct layout {
    uint32_t object_bytes, per_group, group_bytes, group_count;
    size_t headers, bitmap, total;
};

static size_t pages(size_t bytes)
{
    return (bytes + PAGE_BYTES - 1) & ~(size_t)(PAGE_BYTES - 1);
}

static struct layout layout_of(size_t object_bytes, uint32_t limit)
{
    struct layout l = { .object_bytes = (uint32_t)(object_bytes + 15) & ~15u };

    l.per_group = l.object_bytes < GROUP_BYTES ? GROUP_BYTES / l.object_bytes : 1;
    /* Large objects share pages, so that the end of the last one is not wasted for each: one sixteenth at most. */
    while (l.per_group < 4 && l.object_bytes > GROUP_BYTES &&
           (pages((size_t)l.per_group * l.object_bytes) - (size_t)l.per_group * l.object_bytes) * 16 >
               (size_t)l.per_group * l.object_bytes)
        l.per_group++;
    l.group_bytes = (uint32_t)pages((size_t)l.per_group * l.object_bytes);
    l.group_count = (limit + l.per_group - 1) / l.per_group;
    l.headers = l.group_count * sizeof(struct slab_group);
    l.bitmap = (l.group_count + 63) / 64 * sizeof(uint64_t);
    l.total = pages(l.headers + l.bitmap) + (size_t)l.group_count * l.group_bytes;
    return l;
}

size_t slab_region_bytes(size_t object_bytes, uint32_t limit)
{
    return layout_of(object_bytes, limit).total;
}

static uint32_t group_capacity(const struct slab *s, uint32_t group)
{
    uint32_t before = group * s->per_group;

    return s->limit - before < s->per_group ? s->limit - before : s->per_group;
}

static void set_room(struct slab *s, uint32_t group)
{
    s->room[group / 64] |= 1ull << group % 64;
    if (group < s->lowest)
        s->lowest = group;
}

void slab_init_at(struct slab *s, void *memory, size_t object_bytes, uint32_t limit)
{
    struct layout l = layout_of(object_bytes, limit);

    *s = (struct slab){
        .groups = memory,
        .room = (uint64_t *)(void *)((uint8_t *)memory + l.headers),
        .base = (uint8_t *)memory + pages(l.headers + l.bitmap),
        .object_bytes = l.object_bytes,
        .limit = limit,
        .per_group = l.per_group,
        .group_bytes = l.group_bytes,
        .group_count = l.group_count,
    };
    for (uint32_t g = 0; g < l.group_count; g++)
        set_room(s, g);
    s->lowest = 0;
}

int slab_init(struct slab *s, size_t object_bytes, uint32_t limit)
{
    size_t bytes = slab_region_bytes(object_bytes, limit);
    void *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        return -ENOMEM;
    slab_init_at(s, memory, object_bytes, limit);
    s->mapped_bytes = bytes;
    s->zeroed = true;
    return 0;
}

void slab_fini(struct slab *s)
{
    if (s->base)
        UNPOISON(s->base, (size_t)s->group_bytes * s->group_count);
    if (s->mapped_bytes)
        munmap(s->groups, s->mapped_bytes);
    *s = (struct slab){ 0 };
}

/* ---- one object ------------------------------------------------------------------------------------------------------ */

/* The lowest group with room, or group_count. Words below `lowest` are never looked at again until something is freed there. */
static uint32_t find_group(struct slab *s)
{
    for (uint32_t word = s->lowest / 64; word < (s->group_count + 63) / 64; word++) {
        if (s->room[word]) {
            s->lowest = word * 64 + (uint32_t)__builtin_ctzll(s->room[word]);
            return s->lowest;
        }
    }
    s->lowest = s->group_count;
    return s->group_count;
}

size_t slab_resident_bytes(const struct slab *s)
{
    return (size_t)s->resident * s->group_bytes;
}

bool slab_would_grow(struct slab *s)
{
    uint32_t at = find_group(s);

    return at < s->group_count && s->groups[at].touched == 0;
}

void *slab_get(struct slab *s)
{
    uint32_t at = find_group(s);
    struct slab_group *g = &s->groups[at];
    uint8_t *object;

    if (at == s->group_count) {
        s->failed++;
        return NULL;
    }
    if (g->free_list) {
        object = g->free_list;
        UNPOISON(object, s->object_bytes);
        memcpy(&g->free_list, object, sizeof(g->free_list));
    } else {
        s->resident += g->touched == 0;
        object = s->base + (size_t)at * s->group_bytes + (size_t)g->touched++ * s->object_bytes;
        UNPOISON(object, s->object_bytes);
    }
    g->live++;
    g->idle = false;
    if (!g->free_list && g->touched == group_capacity(s, at))
        s->room[at / 64] &= ~(1ull << at % 64);
    if (at * s->per_group + g->touched > s->touched)
        s->touched = at * s->per_group + g->touched;
    if (++s->in_use > s->high_water)
        s->high_water = s->in_use;
    if (s->zeroed) /* but for the link, it is: fresh from the system, or cleared by slab_put() */
        memset(object, 0, sizeof(g->free_list));
    return object;
}

void slab_put(struct slab *s, void *object)
{
    struct slab_group *g;
    uint32_t at;

    if (!object)
        return;
    at = slab_index(s, object) / s->per_group;
    g = &s->groups[at];
    assert(g->live > 0 && s->in_use > 0);
    if (s->zeroed)
        memset(object, 0,
               s->object_bytes); /* a walk by index sees a free object as all zero, but for its first word */
    memcpy(object, &g->free_list, sizeof(g->free_list));
    g->free_list = object;
    g->live--;
    s->in_use--;
    set_room(s, at);
    if (!s->zeroed)
        POISON(object, s->object_bytes);
}

uint32_t slab_index(const struct slab *s, const void *object)
{
    size_t offset = (size_t)((const uint8_t *)object - s->base);
    uint32_t group = (uint32_t)(offset / s->group_bytes);

    assert(group < s->group_count && offset % s->group_bytes % s->object_bytes == 0);
    return group * s->per_group + (uint32_t)(offset % s->group_bytes / s->object_bytes);
}

void *slab_at(const struct slab *s, uint32_t index)
{
    assert(index < s->limit);
    return s->base + (size_t)(index / s->per_group) * s->group_bytes +
           (size_t)(index % s->per_group) * s->object_bytes;
}

/* ---- giving back ------------------------------------------------------------------------------------------------------ */

static void release(void *arg, void *memory, size_t bytes)
{
    (void)arg;
    madvise(memory, bytes, MADV_DONTNEED);
}

bool slab_trim(struct slab *s, slab_give_back_fn *give_back, void *arg)
{
    uint32_t last = (s->touched + s->per_group - 1) / s->per_group;
    bool more = false;

    for (uint32_t at = 0; at < last; at++) {
        struct slab_group *g = &s->groups[at];

        if (g->live > 0 || g->touched == 0)
            continue;
        if (!g->idle) { /* freed a moment ago: perhaps it is wanted again */
            g->idle = more = true;
            continue;
        }
        UNPOISON(s->base + (size_t)at * s->group_bytes, s->group_bytes);
        (give_back ? give_back : release)(arg, s->base + (size_t)at * s->group_bytes, s->group_bytes);
        *g = (struct slab_group){ 0 };
        s->resident--;
    }
    while (last > 0 && s->groups[last - 1].touched == 0)
        last--;
    if (s->touched > last * s->per_group)
        s->touched = last * s->per_group;
    return more;
}
