/* names.c - a set of names that answers in one look-up for each label, however many names it has.
 *
 * How it works: the text of all entries lies in one run of bytes, and an open-addressed table of offsets finds an entry by the
 * hash of its text. A name is asked for whole, then without its first label, and so on: what a suffix trie does edge by edge. The
 * table is built once, when all entries are there, so it is filled to three quarters and nothing is ever moved. The hash is keyed
 * by chance, so that a list from elsewhere cannot be written to collide.
 *
 * What it costs: two bytes and the text for each entry, and 6.7 for its slot: 26 for a name of 17 bytes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rules_impl.h"

#define NAMES_FREE UINT32_MAX
#define ENTRY_HEAD 2 /* flags, length */

static int grow(struct names *n, size_t more)
{
    size_t cap = n->cap == 0 ? 4096 : n->cap;
    uint8_t *bytes;

    while (cap < n->used + more)
        cap += cap / 2;
    if (cap == n->cap)
        return 0;
    if (cap >= NAMES_FREE || (bytes = realloc(n->bytes, cap)) == NULL)
        return -ENOMEM;
    n->bytes = bytes;
    n->cap = cap;
    return 0;
}

int names_add(struct names *n, const char *name, size_t len, uint8_t flags)
{
    if (grow(n, ENTRY_HEAD + len) != 0)
        return -ENOMEM;
    n->bytes[n->used] = flags;
    n->bytes[n->used + 1] = (uint8_t)len;
    memcpy(n->bytes + n->used + ENTRY_HEAD, name, len);
    n->used += ENTRY_HEAD + len;
    n->count++;
    return 0;
}

/* The slot of this text, or the free one where it would go. */
static uint32_t slot_of(const struct names *n, uint64_t hash, const char *text, size_t len, uint64_t *visited)
{
    uint32_t i = (uint32_t)(((hash & UINT32_MAX) * n->slots) >> 32);
    uint8_t tag = (uint8_t)(hash >> 56);

    for (; n->slot[i] != NAMES_FREE; i = i + 1 == n->slots ? 0 : i + 1) {
        const uint8_t *entry = n->bytes + n->slot[i];

        if (n->tag[i] != tag)
            continue;
        if (visited != NULL)
            ++*visited;
        if (entry[1] == len && memcmp(entry + ENTRY_HEAD, text, len) == 0)
            break;
    }
    return i;
}

/* Every entry gets its slot; one that is there already gives its flags to the first, and its bytes to the next. */
static void fill(struct names *n)
{
    size_t to = 0;

    n->count = 0;
    for (size_t at = 0; at < n->used;) {
        uint8_t *entry = n->bytes + at;
        size_t size = ENTRY_HEAD + (size_t)entry[1];
        const char *text = (const char *)entry + ENTRY_HEAD;
        uint64_t hash = hash_bytes(&n->key, text, entry[1]);
        uint32_t slot = slot_of(n, hash, text, entry[1], NULL);

        at += size;
        if (n->slot[slot] != NAMES_FREE) {
            n->bytes[n->slot[slot]] |= entry[0];
            continue;
        }
        memmove(n->bytes + to, entry, size);
        n->slot[slot] = (uint32_t)to;
        n->tag[slot] = (uint8_t)(hash >> 56);
        n->count++;
        to += size;
    }
    n->used = to;
}

int names_finish(struct names *n)
{
    uint8_t *exact;
    int r;

    if (n->count == 0)
        return 0;
    if ((r = random_bytes(&n->key, sizeof(n->key))) != 0)
        return r;
    n->slots = n->count + n->count / 3 + 1;
    n->slot = malloc(n->slots * sizeof(*n->slot));
    n->tag = malloc(n->slots);
    if (n->slot == NULL || n->tag == NULL)
        return -ENOMEM;
    memset(n->slot, 0xff, n->slots * sizeof(*n->slot));
    fill(n);
    exact = realloc(n->bytes, n->used);
    if (exact != NULL)
        n->bytes = exact;
    n->cap = n->used;
    return 0;
}

static uint8_t flags_of(const struct names *n, const char *text, size_t len, uint64_t *visited)
{
    uint32_t slot = slot_of(n, hash_bytes(&n->key, text, len), text, len, visited);

    if (visited != NULL)
        ++*visited;
    return n->slot[slot] == NAMES_FREE ? 0 : n->bytes[n->slot[slot]];
}

bool names_has(const struct names *n, const char *name, size_t len, uint64_t *visited)
{
    size_t at = 0;
    uint8_t wanted = NAME_SELF;

    if (n->count == 0 || len == 0 || len > NAME_BYTES_MAX)
        return false;
    for (;;) {
        const char *dot;

        if (flags_of(n, name + at, len - at, visited) & wanted)
            return true;
        dot = memchr(name + at, '.', len - at);
        if (dot == NULL)
            return false;
        wanted = at == 0 ? NAME_BELOW | NAME_CHILD : NAME_BELOW;
        at = (size_t)(dot - name) + 1;
    }
}

size_t names_bytes(const struct names *n)
{
    return n->cap + n->slots * (sizeof(*n->slot) + sizeof(*n->tag));
}

void names_fini(struct names *n)
{
    free(n->bytes);
    free(n->slot);
    free(n->tag);
    *n = (struct names){ .bytes = NULL };
}
