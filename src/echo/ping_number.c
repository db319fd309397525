/* ping_number.c - sequence numbers and ids: sent lately, shared sockets' map, raw ids (icmp.md X17, X19, X20, X22, 4.8). Pure. */
#include "ping_impl.h"

#include <stdlib.h>

/* ---- sent lately ---------------------------------------------------------------------------------------------------- */

static uint8_t high_bits(uint16_t seq)
{
    return (uint8_t)(seq >> 12 << 4);
}

void ping_seen_sent(struct ping_seen *s, uint16_t seq)
{
    s->place[seq & 0xfff] = high_bits(seq) | 1;
}

bool ping_seen_has(const struct ping_seen *s, uint16_t seq)
{
    uint8_t at = s->place[seq & 0xfff];

    return (at & 0xf) != 0 && (at & 0xf0) == high_bits(seq);
}

enum ping_seen_result ping_seen_reply(struct ping_seen *s, uint16_t seq)
{
    uint8_t replies;

    if (!ping_seen_has(s, seq))
        return PING_SEEN_NEVER;
    replies = (s->place[seq & 0xfff] & 0xf) - 1;
    if (replies >= PING_REPLIES_MAX)
        return PING_SEEN_TOO_OFTEN;
    s->place[seq & 0xfff]++;
    return replies == 0 ? PING_SEEN_FIRST : PING_SEEN_AGAIN;
}

/* ---- what is out on shared sockets ------------------------------------------------------------------------------------ */

static struct ping_out **map_bucket(struct ping_map *m, uint16_t socket, uint16_t wire_seq)
{
    return &m->bucket[(wire_seq ^ socket * 977u) % PING_OUT_BUCKETS]; /* wire_seq is random already */
}

int ping_map_init(struct ping_map *m, uint32_t limit, uint64_t seed)
{
    prng_seed(&m->prng, seed);
    return slab_init(&m->outs, sizeof(struct ping_out), limit);
}

void ping_map_fini(struct ping_map *m)
{
    for (size_t i = 0; i < ARRAY_LEN(m->used); i++)
        free(m->used[i]);
    slab_fini(&m->outs);
}

size_t ping_map_bytes(const struct ping_map *m)
{
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_LEN(m->used); i++)
        n += m->used[i] ? PING_OUT_WORDS * sizeof(*m->used[i]) : 0;
    return n;
}

int ping_map_open(struct ping_map *m, uint16_t socket)
{
    if (!m->used[socket])
        m->used[socket] = calloc(PING_OUT_WORDS, sizeof(*m->used[socket]));
    return m->used[socket] ? 0 : -ENOMEM;
}

static void mark(struct ping_map *m, uint16_t socket, uint16_t wire_seq, bool used)
{
    uint64_t bit = (uint64_t)1 << wire_seq % 64, *word = &m->used[socket][wire_seq / 64];

    *word = used ? *word | bit : *word & ~bit;
}

/* The first free number from *wire_seq on, round the circle: a look for 64 of them, however many are out. */
static bool next_free(const struct ping_map *m, uint16_t socket, uint16_t *wire_seq)
{
    uint64_t from = UINT64_MAX << *wire_seq % 64;

    for (uint32_t i = 0; i <= PING_OUT_WORDS; i++, from = UINT64_MAX) {
        uint32_t at = (*wire_seq / 64 + i) % PING_OUT_WORDS;
        uint64_t free = ~m->used[socket][at] & from;

        if (free == 0)
            continue;
        *wire_seq = (uint16_t)(at * 64 + (uint32_t)__builtin_ctzll(free));
        return true;
    }
    return false;
}

static void drop_oldest(struct ping_map *m)
{
    struct ping_out *o = m->oldest, **at = map_bucket(m, o->socket, o->wire_seq);

    while (*at != o)
        at = &(*at)->bucket_next;
    *at = o->bucket_next;
    mark(m, o->socket, o->wire_seq, false);
    m->oldest = o->age_next;
    if (!m->oldest)
        m->newest = NULL;
    slab_put(&m->outs, o);
}

void ping_map_expire(struct ping_map *m, uint64_t now_us)
{
    while (m->oldest && m->oldest->until_us <= now_us)
        drop_oldest(m);
}

struct ping_out *ping_map_find(struct ping_map *m, uint64_t now_us, uint16_t socket, uint16_t wire_seq)
{
    struct ping_out *o;

    ping_map_expire(m, now_us);
    o = *map_bucket(m, socket, wire_seq);
    while (o && (o->socket != socket || o->wire_seq != wire_seq))
        o = o->bucket_next;
    return o;
}

struct ping_out *ping_map_add(struct ping_map *m, uint64_t now_us, uint64_t until_us, uint16_t socket)
{
    uint16_t wire_seq = (uint16_t)prng_next(&m->prng);
    struct ping_out *o, **bucket;

    ping_map_expire(m, now_us);
    if (!next_free(m, socket, &wire_seq) || !(o = slab_get(&m->outs)))
        return NULL;
    mark(m, socket, wire_seq, true);
    bucket = map_bucket(m, socket, wire_seq);
    *o = (struct ping_out){
        .bucket_next = *bucket, .until_us = until_us, .socket = socket, .wire_seq = wire_seq
    };
    *bucket = o;
    if (m->newest)
        m->newest->age_next = o;
    else
        m->oldest = o;
    m->newest = o;
    return o;
}

/* ---- raw ids --------------------------------------------------------------------------------------------------------------- */

int ping_ids_init(struct ping_ids *ids, uint32_t share, uint32_t shares)
{
    uint32_t each = 65535 / (shares > 0 ? shares : 1);

    *ids = (struct ping_ids){ .low = (uint16_t)(1 + share * each), .size = each };
    ids->high = (uint16_t)(ids->low + each - 1);
    ids->ring = calloc(each, sizeof(*ids->ring));
    if (!ids->ring)
        return -ENOMEM;
    for (uint32_t i = 0; i < each; i++)
        ids->ring[i] = (uint16_t)(ids->low + i);
    ids->count = each;
    return 0;
}

void ping_ids_fini(struct ping_ids *ids)
{
    free(ids->ring);
    *ids = (struct ping_ids){ 0 };
}

uint16_t ping_ids_take(struct ping_ids *ids)
{
    uint16_t id;

    if (ids->count == 0)
        return 0;
    id = ids->ring[ids->first];
    ids->first = (ids->first + 1) % ids->size;
    ids->count--;
    return id;
}

void ping_ids_put(struct ping_ids *ids, uint16_t id)
{
    assert(id >= ids->low && id <= ids->high && ids->count < ids->size);
    ids->ring[(ids->first + ids->count) % ids->size] = id;
    ids->count++;
}
