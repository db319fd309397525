/* env.c - one worker's surroundings: its pools, what it remembers of each upstream, its counters. */
#include "upstream_impl.h"
#include "masque.h"
#include "udp_impl.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    PROBES_MAX = 256,
    TUNNELS_MAX = 4096, /* associations over TCP; about 50 KB each */
    POOLED_MAX = 4096,
    MASQUE_TARGETS_POOL = 4096, /* of all associations of one worker */
    HANDSHAKES_MAX = 65536,     /* at the same time; an opening ends within its time-out */
};

#define UP_COUNTER(name, member)                                                                             \
    {                                                                                                        \
        name, (uint32_t)offsetof(struct up_counters, member)                                                 \
    }
const struct counter_desc up_counter_descs[] = {
    UP_COUNTER("upstream.streams_opened", streams_opened),
    UP_COUNTER("upstream.streams_failed", streams_failed),
    UP_COUNTER("upstream.udp_opened", udp_opened),
    UP_COUNTER("upstream.udp_failed", udp_failed),
    UP_COUNTER("upstream.bytes_up", bytes_up),
    UP_COUNTER("upstream.bytes_down", bytes_down),
    UP_COUNTER("upstream.datagrams_up", datagrams_up),
    UP_COUNTER("upstream.datagrams_down", datagrams_down),
    UP_COUNTER("upstream.datagrams_unsent", datagrams_unsent),
    UP_COUNTER("upstream.datagrams_held", datagrams_held),
    UP_COUNTER("upstream.no_sockets", no_sockets),
    UP_COUNTER("upstream.loop_refused", loop_refused),
    UP_COUNTER("upstream.send_calls", send_calls),
    UP_COUNTER("upstream.recv_calls", recv_calls),
    UP_COUNTER("upstream.pool_opened", pool_opened),
    UP_COUNTER("upstream.pool_taken", pool_taken),
    UP_COUNTER("upstream.pool_dead", pool_dead),
    UP_COUNTER("upstream.pool_expired", pool_expired),
    UP_COUNTER("upstream.pipelined", pipelined),
    UP_COUNTER("upstream.started_over", started_over),
    UP_COUNTER("group.retries", group_retries),
    UP_COUNTER("group.switches", group_switches),
    UP_COUNTER("group.tests", group_tests),
    UP_COUNTER("group.refused", group_refused),
    UP_COUNTER("tls.full", tls_full),
    UP_COUNTER("tls.resumed", tls_resumed),
    UP_COUNTER("tls.failed", tls_failed),
    UP_COUNTER("tls.timeout", tls_timeout),
    UP_COUNTER("tls.truncated", tls_truncated),
    UP_COUNTER("masque.echo_malformed", echo_malformed),
    UP_COUNTER("socks.udp_malformed", socks_udp_malformed),
    UP_COUNTER("socks.timeout", socks_timeout),
#define UP_RTT_DESC(member, name) UP_COUNTER(name, member),
    RTT_COUNTERS(UP_RTT_DESC, masque_rtt, "masque.rtt")
#undef UP_RTT_DESC
        { NULL, 0 },
};

static uint32_t at_most(uint64_t n, uint32_t most)
{
    return n < most ? (uint32_t)n : most;
}

static int init_pools(struct up_env *env, const struct up_env_options *o)
{
    uint32_t handshakes = at_most((uint64_t)o->max_streams + o->max_udp + PROBES_MAX, HANDSHAKES_MAX);
    int r;

    if ((r = slab_init(&env->streams, sizeof(struct up_stream), o->max_streams > 0 ? o->max_streams : 1)) !=
            0 ||
        (r = slab_init(&env->pooled, sizeof(struct pooled), POOLED_MAX)) != 0 ||
        (r = slab_init(&env->masque_streams, masque_stream_bytes(),
                       at_most((uint64_t)o->max_streams + HANDSHAKES_MAX, UINT32_MAX / 2))) != 0 ||
        (r = slab_init(&env->masque_udps, masque_udp_bytes(), o->max_udp > 0 ? o->max_udp : 1)) != 0 ||
        (r = slab_init(&env->masque_targets, masque_target_bytes(), MASQUE_TARGETS_POOL)) != 0 ||
        (r = slab_init(&env->udps, sizeof(struct up_udp), o->max_udp > 0 ? o->max_udp : 1)) != 0 ||
        (r = slab_init(&env->handshakes, sizeof(struct handshake), handshakes)) != 0 ||
        (r = slab_init(&env->probes, sizeof(struct probe), PROBES_MAX)) != 0 ||
        (r = slab_init(&env->secures, sizeof(struct secure),
                       at_most((uint64_t)o->max_streams + HANDSHAKES_MAX, UINT32_MAX / 2))) != 0 ||
        (r = slab_init(&env->tunnels, udp_tunnel_bytes(), at_most(o->max_udp, TUNNELS_MAX) + 1)) != 0 ||
        (r = slab_init(&env->names, sizeof(struct udp_name), UDP_NAMES_POOL)) != 0 ||
        (r = slab_init(&env->held, sizeof(struct udp_held), UDP_HELD_POOL)) != 0)
        return r;
    return udp_rx_new(&env->rx);
}

int up_env_new(const struct up_env_options *opt, struct up_env **out)
{
    struct up_env *env = calloc(1, sizeof(*env));
    int r;

    if (!env)
        return -ENOMEM;
    env->opt = *opt;
    env->broken_timer.fn = stream_tell_broken;
    r = init_pools(env, opt);
    if (r != 0) {
        up_env_free(env);
        return r;
    }
    *out = env;
    return 0;
}

static void memory_free(struct up_env *env, struct up_memory *m)
{
    group_live_free(env, m);
    pool_drop_all(m);
    masque_free(m->masque);
    tls_context_free(m->tls);
    atomic_fetch_sub(&m->up->memories, 1);
    upstream_unref(m->up);
    free(m);
}

static void drop_pools(struct up_env *env)
{
    for (size_t i = 0; i < MEMORY_BUCKETS; i++) {
        for (struct up_memory *m = env->memories[i]; m; m = m->next)
            pool_drop_all(m);
    }
}

void up_env_free(struct up_env *env)
{
    if (!env)
        return;
    env->echo_events = NULL;
    wheel_cancel(env->opt.wheel, &env->broken_timer);
    for (size_t i = 0; i < MEMORY_BUCKETS; i++) { /* tests hold other memories */
        for (struct up_memory *m = env->memories[i]; m; m = m->next)
            group_live_stop(env, m);
    }
    drop_pools(env);
    for (size_t i = 0; i < MEMORY_BUCKETS; i++) { /* as do connections through a hop */
        for (struct up_memory *m = env->memories[i]; m; m = m->next) {
            probe_free(env, m->probe);
            masque_free(m->masque);
        }
    }
    for (size_t i = 0; i < MEMORY_BUCKETS; i++) {
        while (env->memories[i]) {
            struct up_memory *m = env->memories[i];

            env->memories[i] = m->next;
            memory_free(env, m);
        }
    }
    assert(env->streams.in_use == 0 && env->udps.in_use == 0);
    udp_rx_free(env->rx);
    tls_worker_free(env->tls);
    slab_fini(&env->secures);
    slab_fini(&env->tunnels);
    slab_fini(&env->held);
    slab_fini(&env->names);
    slab_fini(&env->probes);
    slab_fini(&env->handshakes);
    slab_fini(&env->udps);
    slab_fini(&env->streams);
    slab_fini(&env->pooled);
    slab_fini(&env->masque_streams);
    slab_fini(&env->masque_udps);
    slab_fini(&env->masque_targets);
    free(env->masque_scratch);
    free(env);
}

void up_env_memory(const struct up_env *env, struct memory_use *add)
{
    const struct slab *const own[] = { &env->streams, &env->udps, &env->handshakes, &env->probes,
                                       &env->names,   &env->held, &env->tunnels,    &env->pooled };
    const struct slab *const http2[] = { &env->masque_streams, &env->masque_udps, &env->masque_targets };
    const struct slab *const tls[] = { &env->secures };

    memory_add_slabs(add, MEMORY_UPSTREAM, own, ARRAY_LEN(own));
    memory_add_slabs(add, MEMORY_HTTP2, http2, ARRAY_LEN(http2));
    memory_add_slabs(add, MEMORY_TLS, tls, ARRAY_LEN(tls));
    tls_worker_memory(env->tls, add);
    add->bytes[MEMORY_UPSTREAM] += sizeof(*env);
    add->bytes[MEMORY_HTTP2] += env->masque_scratch ? H2_DATAGRAM_MAX : 0;
    for (size_t i = 0; i < MEMORY_BUCKETS; i++)
        for (const struct up_memory *m = env->memories[i]; m; m = m->next) {
            add->bytes[MEMORY_UPSTREAM] += sizeof(*m);
            masque_memory(m->masque, add);
        }
}

bool up_env_trim(struct up_env *env)
{
    struct slab *const all[] = { &env->streams, &env->masque_streams, &env->masque_udps, &env->masque_targets,
                                 &env->udps,    &env->handshakes,     &env->probes,      &env->names,
                                 &env->held,    &env->secures,        &env->tunnels,     &env->pooled };
    bool more = false;

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        more = slab_trim(all[i], NULL, NULL) || more;
    if (env->udps.in_use == 0)
        udp_rx_trim(env->rx);
    return more;
}

void up_env_set_rules(struct up_env *env, const struct up_socket_rules *rules)
{
    assert(loop_is_mine(env->opt.loop));
    env->opt.rules = rules;
    env->rules_number++;
    drop_pools(env);                                       /* they are bound to the old uplink */
    memset(env->local_at_us, 0, sizeof(env->local_at_us)); /* the uplink's address may be another one now */
}

void up_env_set_client(struct up_env *env, const struct ip_addr *client)
{
    env->client = *client;
}

struct loop *up_env_loop(const struct up_env *env)
{
    return env->opt.loop;
}

struct wheel *up_env_wheel(const struct up_env *env)
{
    return env->opt.wheel;
}

const struct up_counters *up_counters(const struct up_env *env)
{
    return &env->cnt;
}

/* ---- memories of upstreams ---- */

static struct up_memory **bucket_of(struct up_env *env, const struct upstream *up)
{
    uint64_t h = (uint64_t)(uintptr_t)up *
                 UINT64_C(0x9e3779b97f4a7c15); /* pointers are our own: no keyed hash needed */

    return &env->memories[h >> 58];
}

static struct up_memory *find_memory(struct up_env *env, const struct upstream *up)
{
    struct up_memory *m = *bucket_of(env, up);

    while (m && m->up != up)
        m = m->next;
    return m;
}

/* Memories of upstreams that only memories still hold: their configuration has gone, and nothing of them is open. */
static void sweep_memories(struct up_env *env)
{
    for (size_t i = 0; i < MEMORY_BUCKETS; i++) {
        struct up_memory **at = &env->memories[i];

        while (*at) {
            struct up_memory *m = *at;

            if (m->users > 0 || m->probe || atomic_load(&m->up->refs) > atomic_load(&m->up->memories)) {
                at = &m->next;
                continue;
            }
            *at = m->next;
            memory_free(env, m);
        }
    }
}

struct up_memory *env_memory(struct up_env *env, struct upstream *up)
{
    struct up_memory *m = find_memory(env, up), **bucket = bucket_of(env, up);

    if (m)
        return m;
    sweep_memories(env);
    m = calloc(1, sizeof(*m)); /* once for each upstream of a configuration, not for each flow */
    if (!m)
        return NULL;
    m->env = env;
    m->up = upstream_ref(up);
    atomic_fetch_add(&up->memories, 1);
    m->next = *bucket;
    *bucket = m;
    return m;
}

/* ---- health ---- */

void up_memory_good(struct up_env *env, struct up_memory *m)
{
    m->health.last_good_us = env_now_us(env);
    m->health.failures = 0;
}

void up_memory_bad(struct up_env *env, struct up_memory *m)
{
    m->health.last_bad_us = env_now_us(env);
    m->health.failures++;
}

void up_memory_rtt(struct up_memory *m, uint64_t rtt_us)
{
    uint32_t rtt = at_most(rtt_us > 0 ? rtt_us : 1, UINT32_MAX), old = m->health.rtt_us;

    m->health.rtt_us =
        old == 0 ? rtt : (uint32_t)(((uint64_t)old * 7 + rtt) / 8); /* as RFC 6298 section 2 smooths */
    if (m->health.rtt_us == 0)
        m->health.rtt_us = 1;
}

void up_health_get(struct up_env *env, const struct upstream *up, struct up_health *out)
{
    struct up_memory *m = find_memory(env, up);

    *out = m ? m->health : (struct up_health){ 0 };
    if (m)
        out->udp_refused = m->no_udp_until_us > env_now_us(env);
}

int up_resolve_name(struct up_env *env, const char *name, up_resolved_fn *fn, void *arg,
                    struct up_resolve **out)
{
    return env->opt.resolve ? env->opt.resolve(env->opt.resolve_arg, name, fn, arg, out) : -EOPNOTSUPP;
}

void up_resolve_cancel(struct up_env *env, struct up_resolve *q)
{
    if (env->opt.resolve_cancel)
        env->opt.resolve_cancel(env->opt.resolve_arg, q);
}
