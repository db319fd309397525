/* store.c - memory that is given back as a whole, and wiped first.
 *
 * Strings and lists of a configuration live as long as the configuration; passwords are among them. Blocks double from
 * 4 KiB to 256 KiB, so that 100,000 rules cost some dozens of calls. */
#include "config_impl.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_FIRST ((size_t)4 << 10)
#define BLOCK_LAST  ((size_t)256 << 10)

struct block {
    struct block *older;
    size_t cap, used;
    _Alignas(max_align_t) unsigned char data[];
};

struct config_store {
    struct block *newest;
};

struct config_store *cfg_store_new(void)
{
    return calloc(1, sizeof(struct config_store));
}

void cfg_store_free(struct config_store *s)
{
    if (s == NULL)
        return;
    while (s->newest != NULL) {
        struct block *b = s->newest;

        s->newest = b->older;
        explicit_bzero(b->data, b->used);
        free(b);
    }
    free(s);
}

static bool store_grow(struct config_store *s, size_t bytes)
{
    size_t cap = s->newest == NULL ? BLOCK_FIRST : s->newest->cap * 2;
    struct block *b;

    if (cap > BLOCK_LAST)
        cap = BLOCK_LAST;
    if (cap < bytes)
        cap = bytes;
    b = malloc(sizeof(*b) + cap);
    if (b == NULL)
        return false;
    *b = (struct block){ .older = s->newest, .cap = cap };
    s->newest = b;
    return true;
}

void *cfg_alloc(struct config_store *s, size_t bytes)
{
    const size_t align = _Alignof(max_align_t);
    void *p;

    if (bytes > SIZE_MAX / 2)
        return NULL;
    bytes = (bytes + align - 1) / align * align;
    if (bytes == 0)
        bytes = align;
    if ((s->newest == NULL || s->newest->cap - s->newest->used < bytes) && !store_grow(s, bytes))
        return NULL;
    p = s->newest->data + s->newest->used;
    s->newest->used += bytes;
    return memset(p, 0, bytes);
}

char *cfg_copy_text(struct config_store *s, const char *text, size_t len)
{
    char *copy = cfg_alloc(s, len + 1);

    return copy == NULL ? NULL : memcpy(copy, text, len);
}
