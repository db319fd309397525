/* guards.c - from one value of a flow (a suffix of its name, a port, a user) to the rules that this value may fulfil. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rules_impl.h"

static uint64_t hash_of(const struct guards *g, enum rule_kind kind, const void *value, size_t len)
{
    struct hash_key key = { g->key.k0 ^ (uint64_t)kind, g->key.k1 };

    return hash_bytes(&key, value, len);
}

int guards_add(struct guards *g, enum rule_kind kind, const void *value, size_t len, uint32_t rule)
{
    if (g->count == g->cap) {
        uint32_t cap = g->cap == 0 ? 64 : g->cap + g->cap / 2;
        struct guard *list = realloc(g->list, cap * sizeof(*list));

        if (list == NULL)
            return -ENOMEM;
        g->list = list;
        g->cap = cap;
    }
    g->list[g->count++] = (struct guard){ hash_of(g, kind, value, len), rule };
    g->kinds |= 1u << kind;
    return 0;
}

static int by_hash(const void *a, const void *b)
{
    const struct guard *x = a, *y = b;

    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->rule < y->rule ? -1 : x->rule > y->rule;
}

static uint32_t place(const struct guards *g, uint64_t hash, uint64_t *visited)
{
    uint32_t i = (uint32_t)(((hash & UINT32_MAX) * g->slots) >> 32);

    for (; g->slot[i] != GUARD_FREE && g->list[g->slot[i]].hash != hash; i = i + 1 == g->slots ? 0 : i + 1)
        if (visited != NULL)
            ++*visited;
    return i;
}

int guards_finish(struct guards *g)
{
    if (g->count == 0)
        return 0;
    qsort(g->list, g->count, sizeof(*g->list), by_hash);
    g->slots = 2 * g->count + 1;
    g->slot = malloc(g->slots * sizeof(*g->slot));
    if (g->slot == NULL)
        return -ENOMEM;
    memset(g->slot, 0xff, g->slots * sizeof(*g->slot));
    for (uint32_t i = 0; i < g->count; i++)
        if (i == 0 || g->list[i].hash != g->list[i - 1].hash)
            g->slot[place(g, g->list[i].hash, NULL)] = i;
    return 0;
}

const struct guard *guards_find(const struct guards *g, enum rule_kind kind, const void *value, size_t len,
                                const struct guard **end, uint64_t *visited)
{
    uint64_t hash;
    uint32_t slot;

    if (!(g->kinds & 1u << kind))
        return NULL;
    hash = hash_of(g, kind, value, len);
    slot = g->slot[place(g, hash, visited)];
    if (visited != NULL)
        ++*visited;
    *end = g->list + g->count;
    return slot == GUARD_FREE ? NULL : g->list + slot;
}

void guards_fini(struct guards *g)
{
    free(g->list);
    free(g->slot);
    *g = (struct guards){ .list = NULL };
}
