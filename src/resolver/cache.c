/* cache.c - what is known of names: fresh addresses, "there are none", and old addresses for when a name fails.
 *
 * A name keeps its last addresses after they expired, and even after a server said that there are none: they are used
 * only while nothing better is known (faults.md S18; RFC 8767 calls it serving stale). */
#include "resolver_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_US UINT64_C(1000000)

int cache_init(struct cache *c, size_t cap)
{
    int r;

    *c = (struct cache){ .cap = cap };
    if ((r = random_bytes(&c->key, sizeof(c->key))) != 0)
        return r;
    c->hashes = calloc(cap, sizeof(*c->hashes));
    c->names = calloc(cap, sizeof(*c->names));
    return c->hashes != NULL && c->names != NULL ? 0 : -ENOMEM;
}

void cache_fini(struct cache *c)
{
    free(c->hashes);
    free(c->names);
    *c = (struct cache){ .n = 0 };
}

struct cached_name *cache_find(struct cache *c, const char *name)
{
    uint64_t hash = hash_bytes(&c->key, name, strlen(name));

    for (size_t i = 0; i < c->n; i++) {
        if (c->hashes[i] == hash && strcmp(c->names[i].name, name) == 0)
            return &c->names[i];
    }
    return NULL;
}

/* A place that was never used, or the one unused for longest; c->cap if all are pinned. */
static size_t cache_victim(const struct cache *c)
{
    size_t victim = c->cap;

    if (c->n < c->cap)
        return c->n;
    for (size_t i = 0; i < c->n; i++) {
        if (c->names[i].lookup == NULL &&
            (victim == c->cap || c->names[i].used_us < c->names[victim].used_us))
            victim = i;
    }
    return victim;
}

struct cached_name *cache_make(struct cache *c, const char *name)
{
    size_t i = cache_victim(c);

    if (i == c->cap)
        return NULL;
    if (i == c->n)
        c->n++;
    c->names[i] = (struct cached_name){ .used_us = 0 };
    memcpy(c->names[i].name, name, strlen(name) + 1);
    c->hashes[i] = hash_bytes(&c->key, name, strlen(name));
    return &c->names[i];
}

void cached_put_addrs(struct cached_family *f, const struct ip_addr *addrs, size_t n, uint32_t ttl_s,
                      uint64_t now_us)
{
    f->n = (uint8_t)(n < FAMILY_ADDRS_MAX ? n : FAMILY_ADDRS_MAX);
    memcpy(f->addrs, addrs, f->n * sizeof(*addrs));
    f->learned_us = now_us;
    f->expires_us = now_us + ttl_s * SECOND_US;
    f->empty_until_us = 0;
    f->failed_until_us = 0;
}

void cached_put_empty(struct cached_family *f, uint32_t ttl_s, uint64_t now_us)
{
    if (f->expires_us > now_us)
        f->expires_us = now_us;
    f->empty_until_us = now_us + ttl_s * SECOND_US;
    f->failed_until_us = 0;
}

bool cached_is_fresh(const struct cached_family *f, uint64_t now_us)
{
    return f->n > 0 && now_us < f->expires_us;
}

bool cached_is_known(const struct cached_family *f, uint64_t now_us)
{
    return cached_is_fresh(f, now_us) || now_us < f->empty_until_us || now_us < f->failed_until_us;
}

size_t cached_addrs(const struct cached_name *c, bool stale, uint64_t stale_max_us, uint64_t now_us,
                    struct ip_addr out[RESOLVER_ADDRS_MAX])
{
    bool use[FAMILIES];
    size_t n = 0;

    for (int k = 0; k < FAMILIES; k++) {
        const struct cached_family *f = &c->family[k];

        use[k] = stale ? f->n > 0 && now_us - f->learned_us <= stale_max_us : cached_is_fresh(f, now_us);
    }
    for (size_t i = 0; i < FAMILY_ADDRS_MAX; i++) {
        for (int k = 0; k < FAMILIES; k++) {
            if (use[k] && i < c->family[k].n)
                out[n++] = c->family[k].addrs[i];
        }
    }
    return n;
}
