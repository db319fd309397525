/* memory.c - what memory is for, in words and in sums. */
#include "culvert/base.h"

const char *memory_purpose_name(enum memory_purpose p)
{
    static const char *const names[MEMORY_PURPOSE_COUNT] = {
#define MEMORY_PURPOSE_NAME(purpose, name) [purpose] = name,
        MEMORY_PURPOSES(MEMORY_PURPOSE_NAME)
#undef MEMORY_PURPOSE_NAME
    };

    return names[p];
}

void memory_add_slabs(struct memory_use *use, enum memory_purpose p, const struct slab *const *slabs,
                      size_t n)
{
    for (size_t i = 0; i < n; i++)
        use->bytes[p] += slab_resident_bytes(slabs[i]);
}

uint64_t memory_sum(const struct memory_use *use)
{
    uint64_t sum = 0;

    for (size_t p = 0; p < MEMORY_PURPOSE_COUNT; p++)
        sum += p == MEMORY_GEODATA ? 0 : use->bytes[p];
    return sum;
}
