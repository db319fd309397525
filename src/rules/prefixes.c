/* prefixes.c - ranges of addresses, and which of them hold an address, narrowest first (rules_impl.h says how). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rules_impl.h"

int prefixes_add(struct prefixes *p, const struct ip_prefix *prefix, uint32_t value)
{
    if (p->count >= PREFIXES_MAX)
        return -E2BIG;
    if (p->count == p->cap) {
        uint32_t cap = p->cap == 0 ? 64 : p->cap + p->cap / 2;
        struct prefix_entry *list = realloc(p->list, cap * sizeof(*list));

        if (list == NULL)
            return -ENOMEM;
        p->list = list;
        p->cap = cap;
    }
    p->list[p->count++] = (struct prefix_entry){ prefix->addr, value, prefix->len, PREFIX_NONE };
    return 0;
}

static int by_address(const void *a, const void *b)
{
    const struct prefix_entry *x = a, *y = b;
    int order = memcmp(x->addr.b, y->addr.b, sizeof(x->addr.b));

    if (order != 0)
        return order;
    if (x->len != y->len)
        return x->len < y->len ? -1 : 1;
    return x->value > y->value ? -1 : x->value < y->value; /* on the way up, the first rule comes first */
}

/* As bits, whatever the family: ::/0 is around everything. */
static bool is_around(const struct prefix_entry *wide, const struct ip_addr *addr)
{
    unsigned whole = wide->len / 8, rest = wide->len % 8;

    if (memcmp(wide->addr.b, addr->b, whole) != 0)
        return false;
    return rest == 0 || ((wide->addr.b[whole] ^ addr->b[whole]) & (uint8_t)(0xff00u >> rest)) == 0;
}

static bool holds(const struct prefix_entry *e, const struct ip_addr *addr)
{
    struct ip_prefix p = { e->addr, e->len };

    return ip_in_prefix(addr, &p);
}

/* In a set, one inside another says nothing; but ::/0 and its like hold no IPv4 address. */
static bool says_nothing(const struct prefixes *p, uint32_t up, const struct prefix_entry *e)
{
    struct ip_prefix inner = { e->addr, e->len };

    if (up == PREFIX_NONE)
        return false;
    return holds(&p->list[up], &inner.addr);
}

int prefixes_finish(struct prefixes *p, bool as_set)
{
    uint32_t up = PREFIX_NONE, to = 0;
    struct prefix_entry *exact;

    if (p->count == 0)
        return 0;
    qsort(p->list, p->count, sizeof(*p->list), by_address);
    for (uint32_t i = 0; i < p->count; i++) {
        struct prefix_entry e = p->list[i];

        while (up != PREFIX_NONE && !is_around(&p->list[up], &e.addr))
            up = p->list[up].up;
        if (as_set && says_nothing(p, up, &e))
            continue;
        e.up = up & PREFIX_NONE;
        p->list[to] = e;
        up = to++;
    }
    p->count = to;
    exact = realloc(p->list, to * sizeof(*p->list));
    if (exact != NULL)
        p->list = exact;
    p->cap = to;
    return 0;
}

static uint32_t first_holding(const struct prefixes *p, const struct ip_addr *addr, uint32_t at,
                              uint64_t *visited)
{
    for (; at != PREFIX_NONE; at = p->list[at].up) {
        if (visited != NULL)
            ++*visited;
        if (holds(&p->list[at], addr))
            return at;
    }
    return PREFIX_NONE;
}

uint32_t prefixes_find(const struct prefixes *p, const struct ip_addr *addr, uint64_t *visited)
{
    uint32_t low = 0, high = p->count;

    while (low < high) { /* the first that starts behind @addr */
        uint32_t middle = low + (high - low) / 2;

        if (visited != NULL)
            ++*visited;
        if (memcmp(p->list[middle].addr.b, addr->b, sizeof(addr->b)) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low == 0 ? PREFIX_NONE : first_holding(p, addr, low - 1, visited);
}

uint32_t prefixes_wider(const struct prefixes *p, const struct ip_addr *addr, uint32_t from,
                        uint64_t *visited)
{
    return first_holding(p, addr, p->list[from].up, visited);
}

void prefixes_fini(struct prefixes *p)
{
    free(p->list);
    *p = (struct prefixes){ .list = NULL };
}
