/* tcp_table.c - who owns a 4-tuple: a connection, a SYN record or a TIME-WAIT record; and what is known of a
 * client's path.
 *
 * One table for all three, with chains through the objects: at three quarters full a hit costs 1.4 probes on
 * average (PERF-11). The hash is keyed, so that a stranger cannot choose who shares a chain. A reference is 4
 * bytes: kind and index. */
#include "tcp_impl.h"

#define REF_KIND_SHIFT 30
#define REF_INDEX      ((1u << REF_KIND_SHIFT) - 1)

_Static_assert(offsetof(struct tcp_conn, key) == 0 && offsetof(struct tcp_request, key) == 0 &&
                   offsetof(struct tcp_tw, key) == 0,
               "the key comes first in all that the table holds");
_Static_assert(offsetof(struct tcp_conn, chain) == sizeof(struct tcp_key) &&
                   offsetof(struct tcp_request, chain) == sizeof(struct tcp_key) &&
                   offsetof(struct tcp_tw, chain) == sizeof(struct tcp_key),
               "the chain follows the key");

static uint32_t *chain_of(struct tcp_key *key)
{
    return (uint32_t *)(void *)(key + 1);
}

static struct pool *pool_of(struct tcp_shard *t, enum owner_kind kind)
{
    switch (kind) {
    case OWNER_CONN:
        return &t->conns;
    case OWNER_REQUEST:
        return &t->requests;
    case OWNER_TW:
        return &t->tws;
    case OWNER_NONE:
        break;
    }
    return NULL;
}

static struct tcp_owner owner_at(struct tcp_shard *t, uint32_t ref)
{
    struct tcp_owner o = { .kind = (enum owner_kind)(ref >> REF_KIND_SHIFT) };

    o.key = pool_at(pool_of(t, o.kind), ref & REF_INDEX);
    return o;
}

void tcp_key_of(const struct flow_key *flow, struct tcp_key *out)
{
    out->client = flow->client;
    out->target = flow->target;
    out->client_port = flow->client_port;
    out->target_port = flow->target_port;
}

void tcp_flow_of(const struct tcp_key *key, struct flow_key *out)
{
    *out = (struct flow_key){
        .client = key->client,
        .target = key->target,
        .client_port = key->client_port,
        .target_port = key->target_port,
        .proto = IP_PROTO_TCP,
    };
}

static bool key_matches(const struct tcp_key *key, const struct flow_key *flow)
{
    return key->client_port == flow->client_port && key->target_port == flow->target_port &&
           ip_equal(&key->client, &flow->client) && ip_equal(&key->target, &flow->target);
}

uint64_t tcp_hash(const struct stack *s, const struct flow_key *flow)
{
    return hash_flow(&s->cfg.secret, flow);
}

struct tcp_owner tcp_find(struct tcp_shard *t, const struct flow_key *flow, uint64_t hash)
{
    uint32_t ref = t->buckets[hash & t->bucket_mask];
    struct tcp_owner o;

    t->lookups++;
    while (ref != 0) {
        t->probes++;
        o = owner_at(t, ref);
        if (key_matches(o.key, flow))
            return o;
        ref = *chain_of(o.key);
    }
    return (struct tcp_owner){ .kind = OWNER_NONE };
}

static uint32_t *bucket_of(struct tcp_shard *t, const struct tcp_key *key)
{
    struct flow_key flow;

    tcp_flow_of(key, &flow);
    return &t->buckets[tcp_hash(t->s, &flow) & t->bucket_mask];
}

void tcp_table_add(struct tcp_shard *t, enum owner_kind kind, struct tcp_key *key)
{
    uint32_t *bucket = bucket_of(t, key);

    *chain_of(key) = *bucket;
    t->table_used = true;
    *bucket = (uint32_t)kind << REF_KIND_SHIFT | pool_index(pool_of(t, kind), key);
}

void tcp_table_remove(struct tcp_shard *t, struct tcp_key *key)
{
    uint32_t *link = bucket_of(t, key);

    while (*link != 0) {
        struct tcp_owner o = owner_at(t, *link);

        if (o.key == key) {
            *link = *chain_of(key);
            return;
        }
        link = chain_of(o.key);
    }
    assert(!"a key that the table does not hold");
}

void tcp_table_each_conn(struct tcp_shard *t, void (*fn)(struct tcp_conn *c, void *arg), void *arg)
{
    for (uint32_t i = 0; i <= t->bucket_mask; i++) {
        uint32_t ref = t->buckets[i];

        while (ref != 0) {
            struct tcp_owner o = owner_at(t, ref);

            ref = *chain_of(o.key); /* before @fn, which may remove it */
            if (o.kind == OWNER_CONN)
                fn(o.conn, arg);
        }
    }
}

/* Both secrets of a flow come from one keyed hash of more bytes than the table's, so that neither tells of
 * the other. */
static uint64_t flow_secret(const struct stack *s, const struct tcp_key *key)
{
    struct {
        struct tcp_key key;
        uint32_t purpose;
    } in;

    memset(&in, 0, sizeof(in));
    in.key = *key;
    in.purpose = 0x69737321;
    return hash_bytes(&s->cfg.secret, &in, sizeof(in));
}

uint32_t tcp_iss(const struct stack *s, const struct tcp_key *key)
{
    return (uint32_t)flow_secret(s, key) + (uint32_t)(s->now_us / 4);
}

uint32_t tcp_ts_offset(const struct stack *s, const struct tcp_key *key)
{
    return (uint32_t)(flow_secret(s, key) >> 32);
}

static struct pmtu_entry *pmtu_slot(struct stack *s, const struct ip_addr *client)
{
    return &s->tcp->pmtu[hash_bytes(&s->cfg.secret, client, sizeof(*client)) % PMTU_ENTRIES];
}

uint32_t tcp_pmtu_get(struct stack *s, const struct ip_addr *client)
{
    const struct pmtu_entry *e = pmtu_slot(s, client);

    if (e->until_us > s->now_us && ip_equal(&e->client, client))
        return min_u32(e->mtu, s->cfg.mtu_bytes);
    return s->cfg.mtu_bytes;
}

/* One place for a client; another client with the same hash takes it over. */
void tcp_pmtu_set(struct stack *s, const struct ip_addr *client, uint32_t mtu)
{
    *pmtu_slot(s, client) =
        (struct pmtu_entry){ .client = *client, .until_us = s->now_us + PMTU_LIFE_US, .mtu = mtu };
}
