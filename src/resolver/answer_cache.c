/* answer_cache.c - whole answers of name servers, by name, type and what was said of DNSSEC; the least used ones go.
 * What has expired stays for an hour, for when no server answers (RFC 8767; faults.md D7). */
#include "service_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_MAX 4096 /* longer ones are asked for again */
#define SECOND_US   UINT64_C(1000000)

int answer_cache_init(struct answer_cache *c, size_t cap)
{
    int r;

    *c = (struct answer_cache){ .cap = cap, .bucket_count = 64 };
    while (c->bucket_count < cap)
        c->bucket_count *= 2;
    if ((r = random_bytes(&c->key, sizeof(c->key))) != 0)
        return r;
    c->buckets = calloc(c->bucket_count, sizeof(struct kept_answer *));
    return c->buckets != NULL ? 0 : -ENOMEM;
}

void answer_cache_clear(struct answer_cache *c)
{
    struct kept_answer *next;

    for (struct kept_answer *k = c->oldest; k != NULL; k = next) {
        next = k->newer;
        free(k);
    }
    if (c->buckets != NULL)
        memset((void *)c->buckets, 0, c->bucket_count * sizeof(struct kept_answer *));
    c->oldest = c->newest = NULL;
    c->count = c->bytes = 0;
}

void answer_cache_fini(struct answer_cache *c)
{
    answer_cache_clear(c);
    free(c->buckets);
    *c = (struct answer_cache){ .cap = 0 };
}

static uint64_t hash_of(const struct answer_cache *c, const struct answer_key *k)
{
    return hash_bytes(&c->key, k->name, strlen(k->name)) + k->type * 31u + k->flags;
}

static void age_unlink(struct answer_cache *c, struct kept_answer *k)
{
    *(k->older != NULL ? &k->older->newer : &c->oldest) = k->newer;
    *(k->newer != NULL ? &k->newer->older : &c->newest) = k->older;
}

static void age_append(struct answer_cache *c, struct kept_answer *k)
{
    k->older = c->newest;
    k->newer = NULL;
    *(c->newest != NULL ? &c->newest->newer : &c->oldest) = k;
    c->newest = k;
}

static struct kept_answer **place_of(struct answer_cache *c, const struct answer_key *key, uint64_t hash)
{
    struct kept_answer **at = &c->buckets[hash & (c->bucket_count - 1)];
    size_t len = strlen(key->name);

    for (; *at != NULL; at = &(*at)->chain) {
        const struct kept_answer *k = *at;

        if (k->hash == hash && k->type == key->type && k->flags == key->flags && k->name_len == len &&
            memcmp(k->bytes + k->len, key->name, len) == 0)
            break;
    }
    return at;
}

struct kept_answer *answer_cache_find(struct answer_cache *c, const struct answer_key *key)
{
    struct kept_answer *k = *place_of(c, key, hash_of(c, key));

    if (k == NULL)
        return NULL;
    age_unlink(c, k);
    age_append(c, k);
    return k;
}

static size_t bytes_of(const struct kept_answer *k)
{
    return sizeof(*k) + k->len + k->name_len;
}

static void remove_at(struct answer_cache *c, struct kept_answer **at)
{
    struct kept_answer *k = *at;

    *at = k->chain;
    age_unlink(c, k);
    c->count--;
    c->bytes -= bytes_of(k);
    free(k);
}

static void remove_oldest(struct answer_cache *c)
{
    struct kept_answer **at = &c->buckets[c->oldest->hash & (c->bucket_count - 1)];

    while (*at != c->oldest)
        at = &(*at)->chain;
    remove_at(c, at);
}

void answer_cache_put(struct answer_cache *c, const struct answer_key *key, struct span message,
                      const struct dns_relay *relay, uint64_t now_us)
{
    uint64_t hash = hash_of(c, key);
    struct kept_answer **at = place_of(c, key, hash), *k;
    size_t name_len = strlen(key->name);

    if (*at != NULL)
        remove_at(c, at);
    if (relay->len > MESSAGE_MAX)
        return;
    if (c->count >= c->cap)
        remove_oldest(c);
    k = malloc(sizeof(*k) + relay->len + name_len);
    if (k == NULL)
        return;
    *k = (struct kept_answer){
        .hash = hash,
        .came_us = now_us,
        .expires_us = now_us + relay->answer.ttl_s * SECOND_US,
        .type = key->type,
        .additionals = relay->additionals,
        .len = (uint16_t)relay->len,
        .flags = key->flags,
        .name_len = (uint8_t)name_len,
        .positive = relay->answer.rcode == DNS_NOERROR,
    };
    memcpy(k->bytes, message.data, relay->len);
    memcpy(k->bytes + relay->len, key->name, name_len);
    at = &c->buckets[hash & (c->bucket_count - 1)];
    k->chain = *at;
    *at = k;
    age_append(c, k);
    c->count++;
    c->bytes += bytes_of(k);
}
