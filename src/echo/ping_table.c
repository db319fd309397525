/* ping_table.c - which flows live, who may have one more, and whose turn it is to go (icmp.md X6, X11, X12, X16). Pure.
 *
 * A flow is found by its key, and stands in two lists by age: one of all flows, one of its source. At a cap the longest idle
 * flow goes, if it has been idle for a second: of all flows at the process's cap, of the same source at the source's, so that a
 * sweep by one client takes nobody else's place while its own flows can make room. A source's rate of new flows outlives
 * its flows: it is forgotten only when its bucket is full again, or when more sources come than we remember. */
#include "ping_impl.h"

#define EVICT_AFTER_US PING_SECOND_US
#define TOKEN          1000000ull

/* ---- lists ---------------------------------------------------------------------------------------------------------- */

static void list_init(struct ping_link *head)
{
    head->prev = head->next = head;
}

static void list_append(struct ping_link *head, struct ping_link *l)
{
    l->prev = head->prev;
    l->next = head;
    head->prev->next = l;
    head->prev = l;
}

static void list_remove(struct ping_link *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    l->prev = l->next = NULL;
}

static struct ping_link *list_first(const struct ping_link *head)
{
    return head->next == head ? NULL : head->next;
}

/* ---- life --------------------------------------------------------------------------------------------------------------- */

int ping_table_init(struct ping_table *t, const struct echo_proxy_options *o, const struct hash_key *key)
{
    int r;

    t->key = *key;
    t->max_per_source = o->max_per_source;
    t->new_per_second = o->new_per_second;
    t->new_burst = o->new_burst;
    list_init(&t->by_age);
    list_init(&t->idle_sources);
    if ((r = slab_init(&t->flows, sizeof(struct ping_flow), o->max_flows)) != 0)
        return r;
    return slab_init(&t->sources, sizeof(struct ping_source), o->max_flows + 1024);
}

void ping_table_fini(struct ping_table *t)
{
    slab_fini(&t->flows);
    slab_fini(&t->sources);
}

bool ping_table_trim(struct ping_table *t)
{
    bool more = slab_trim(&t->flows, NULL, NULL);

    return slab_trim(&t->sources, NULL, NULL) || more;
}

/* ---- sources ------------------------------------------------------------------------------------------------------------- */

static struct ping_source **source_bucket(struct ping_table *t, const struct ip_addr *addr)
{
    return &t->source_bucket[hash_bytes(&t->key, addr, sizeof(*addr)) % PING_BUCKETS];
}

static void refill(const struct ping_table *t, struct ping_source *s, uint64_t now_us)
{
    uint64_t full = t->new_burst * TOKEN, passed_us = now_us - s->filled_us;

    if (passed_us >= full / (t->new_per_second > 0 ? t->new_per_second : 1))
        s->tokens = full;
    else
        s->tokens += passed_us * t->new_per_second; /* a second is 1,000,000 of either */
    if (s->tokens > full)
        s->tokens = full;
    s->filled_us = now_us;
}

static void forget_source(struct ping_table *t, struct ping_source *s)
{
    struct ping_source **at = source_bucket(t, &s->addr);

    while (*at != s)
        at = &(*at)->bucket_next;
    *at = s->bucket_next;
    list_remove(&s->idle);
    slab_put(&t->sources, s);
}

static struct ping_source *find_source(struct ping_table *t, const struct ip_addr *addr, uint64_t now_us)
{
    struct ping_source **bucket = source_bucket(t, addr), *s = *bucket;

    while (s && !ip_equal(&s->addr, addr))
        s = s->bucket_next;
    if (s) {
        refill(t, s, now_us);
        return s;
    }
    if (t->sources.in_use == t->sources.limit && list_first(&t->idle_sources))
        forget_source(t, CONTAINER_OF(list_first(&t->idle_sources), struct ping_source, idle));
    s = slab_get(&t->sources);
    if (!s)
        return NULL;
    s->addr = *addr;
    s->tokens = t->new_burst * TOKEN;
    s->filled_us = now_us;
    s->bucket_next = *bucket;
    *bucket = s;
    list_init(&s->flows_by_age);
    list_append(&t->idle_sources, &s->idle);
    return s;
}

/* ---- flows ------------------------------------------------------------------------------------------------------------------ */

static struct ping_flow **flow_bucket(const struct ping_table *t, const struct ping_key *key)
{
    return (struct ping_flow **)(uintptr_t)&t->bucket[hash_bytes(&t->key, key, sizeof(*key)) % PING_BUCKETS];
}

struct ping_flow *ping_table_find(const struct ping_table *t, const struct ping_key *key)
{
    struct ping_flow *f = *flow_bucket(t, key);

    while (f && memcmp(&f->key, key, sizeof(*key)) != 0)
        f = f->bucket_next;
    return f;
}

/* The longest idle of a list, if it may go. */
static bool may_go(struct ping_flow *f, uint64_t now_us, struct ping_flow **evict)
{
    if (!f || now_us - f->active_us < EVICT_AFTER_US)
        return false;
    *evict = f;
    return true;
}

enum ping_admit ping_table_admit(struct ping_table *t, const struct ip_addr *client, uint64_t now_us,
                                 struct ping_flow **evict)
{
    struct ping_source *s = find_source(t, client, now_us);
    struct ping_link *oldest;

    *evict = NULL;
    if (!s)
        return PING_ADMIT_FLOW_CAP;
    if (s->tokens < TOKEN)
        return PING_ADMIT_RATE;
    if (s->flows >= t->max_per_source) {
        oldest = list_first(&s->flows_by_age);
        if (!may_go(oldest ? CONTAINER_OF(oldest, struct ping_flow, source_age) : NULL, now_us, evict))
            return PING_ADMIT_SOURCE_CAP;
    } else if (t->flows.in_use == t->flows.limit) {
        oldest = list_first(&t->by_age);
        if (!may_go(oldest ? CONTAINER_OF(oldest, struct ping_flow, age) : NULL, now_us, evict))
            return PING_ADMIT_FLOW_CAP;
    }
    s->tokens -= TOKEN;
    return PING_ADMIT;
}

struct ping_flow *ping_table_add(struct ping_table *t, const struct ping_key *key, uint64_t now_us)
{
    struct ping_source *s = find_source(t, &key->client, now_us);
    struct ping_flow **bucket = flow_bucket(t, key), *f = s ? slab_get(&t->flows) : NULL;

    if (!f)
        return NULL;
    f->key = *key;
    f->generation = ++t->generation;
    f->live = true;
    f->source = s;
    f->active_us = now_us;
    f->own.fd = -1;
    f->bucket_next = *bucket;
    *bucket = f;
    list_append(&t->by_age, &f->age);
    if (s->flows++ == 0)
        list_remove(&s->idle);
    list_append(&s->flows_by_age, &f->source_age);
    return f;
}

void ping_table_touch(struct ping_table *t, struct ping_flow *f, uint64_t now_us)
{
    f->active_us = now_us;
    list_remove(&f->age);
    list_append(&t->by_age, &f->age);
    list_remove(&f->source_age);
    list_append(&f->source->flows_by_age, &f->source_age);
}

void ping_table_remove(struct ping_table *t, struct ping_flow *f)
{
    struct ping_flow **at = flow_bucket(t, &f->key);

    while (*at != f)
        at = &(*at)->bucket_next;
    *at = f->bucket_next;
    list_remove(&f->age);
    list_remove(&f->source_age);
    if (--f->source->flows == 0)
        list_append(&t->idle_sources, &f->source->idle);
    f->live = false;
    slab_put(&t->flows, f);
}

struct ping_flow *ping_table_at(struct ping_table *t, uint32_t index, uint64_t generation)
{
    struct ping_flow *f = index < t->flows.touched ? slab_at(&t->flows, index) : NULL;

    return f && f->live && f->generation == generation ? f : NULL;
}

/* ---- requests of one flow (X19) -------------------------------------------------------------------------------------------------- */

struct ping_sent *ping_flow_sent(struct ping_flow *f, uint16_t seq)
{
    for (uint32_t back = 1; back <= PING_RING; back++) { /* the newest of that number */
        struct ping_sent *s = &f->ring[(f->ring_next + PING_RING - back) % PING_RING];

        if (!s->used)
            return NULL;
        if (s->seq == seq)
            return s;
    }
    return NULL;
}

struct ping_sent *ping_flow_note(struct ping_flow *f, uint16_t seq)
{
    struct ping_sent *s = &f->ring[f->ring_next];

    f->ring_next = (uint16_t)((f->ring_next + 1) % PING_RING);
    *s = (struct ping_sent){ .seq = seq, .used = true };
    return s;
}
