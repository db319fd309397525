/* tcp_shard.c - the memory of the TCP half: one region, taken once (ARC-2), and what is counted in it. */
#include "tcp_impl.h"

static uint32_t bucket_count(const struct stack_config *c)
{
    uint64_t owners = (uint64_t)c->max_tcp + c->max_half_open + c->max_time_wait, n = 64;

    while (n * 3 / 4 < owners && n < 1u << 30)
        n *= 2;
    return (uint32_t)n;
}

/* Descriptors and pieces are what busy connections need; 65,536 are a 4 MiB window of 64-byte segments. */
static uint32_t segment_limit(const struct stack_config *c)
{
    return c->max_tcp * 2 + 65536;
}

static uint32_t piece_limit(const struct stack_config *c)
{
    return c->max_tcp + 65536;
}

static uint32_t ooo_limit(const struct stack_config *c)
{
    return min_u32(c->max_tcp, 16384);
}

size_t tcp_memory_bytes(const struct stack_config *c)
{
    return sizeof(struct tcp_shard) + CACHE_LINE + bucket_count(c) * sizeof(uint32_t) +
           SOURCE_COUNTERS * sizeof(uint16_t) + PMTU_ENTRIES * sizeof(struct pmtu_entry) + 4 * CACHE_LINE +
           pool_region_bytes(sizeof(struct tcp_conn), c->max_tcp) +
           pool_region_bytes(sizeof(struct flight), c->max_tcp) +
           pool_region_bytes(sizeof(struct segment), segment_limit(c)) +
           pool_region_bytes(sizeof(struct piece), piece_limit(c)) +
           pool_region_bytes(sizeof(struct ooo_set), ooo_limit(c)) +
           pool_region_bytes(sizeof(struct recovery), c->max_tcp) +
           pool_region_bytes(sizeof(struct tcp_request), c->max_half_open) +
           pool_region_bytes(sizeof(struct tcp_tw), c->max_time_wait);
}

void tcp_init(struct stack *s, void *memory)
{
    const struct stack_config *c = &s->cfg;
    uint8_t *at = memory;
    struct tcp_shard *t = region_take(&at, sizeof(*t), CACHE_LINE);

    s->tcp = t;
    t->s = s;
    t->cc = tcp_cc_select(c->congestion);
    tcp_knobs_init(t, c);
    t->bucket_mask = bucket_count(c) - 1;
    t->buckets = region_take(&at, bucket_count(c) * sizeof(uint32_t), CACHE_LINE);
    t->per_source = region_take(&at, SOURCE_COUNTERS * sizeof(uint16_t), CACHE_LINE);
    t->pmtu = region_take(&at, PMTU_ENTRIES * sizeof(struct pmtu_entry), CACHE_LINE);
    pool_init(s, &t->conns, "tcb", sizeof(struct tcp_conn), c->max_tcp, &at);
    pool_init(s, &t->flights, "flight", sizeof(struct flight), c->max_tcp, &at);
    pool_init(s, &t->segments, "segment", sizeof(struct segment), segment_limit(c), &at);
    pool_init(s, &t->pieces, "piece", sizeof(struct piece), piece_limit(c), &at);
    pool_init(s, &t->ooo, "interval", sizeof(struct ooo_set), ooo_limit(c), &at);
    pool_init(s, &t->recoveries, "recovery", sizeof(struct recovery), c->max_tcp, &at);
    pool_init(s, &t->requests, "syn", sizeof(struct tcp_request), c->max_half_open, &at);
    pool_init(s, &t->tws, "timewait", sizeof(struct tcp_tw), c->max_time_wait, &at);
    t->request_timer.fn = tcp_request_timer;
    t->tw_timer.fn = tcp_tw_timer;
}

static void fini_conn(struct tcp_conn *c, void *arg)
{
    (void)arg;
    tcp_table_remove(c->s->tcp, &c->key);
    c->flags |= CONN_DEAD;
    c->err = -ECONNABORTED;
    tcp_ready(c);
}

/* All are dead by now, so no callback can do anything to another one. */
static void fini_list(struct stack *s, struct conn_list *l)
{
    struct tcp_conn *c;

    while ((c = l->head) != NULL) {
        bool tell = !(c->flags & CONN_RELEASED);

        l->head = c->list_next;
        c->flags |= CONN_RELEASED;
        if (tell)
            s->ev.on_tcp_closed(c->user, c->err);
        tcp_conn_free(c);
    }
    l->tail = NULL;
}

void tcp_fini(struct stack *s)
{
    struct tcp_shard *t = s->tcp;

    tcp_request_fini(s);
    tcp_table_each_conn(t, fini_conn, NULL);
    fini_list(s, &t->ready);
    fini_list(s, &t->out);
    wheel_cancel(&s->wheel, &t->request_timer);
    wheel_cancel(&s->wheel, &t->tw_timer);
    if (t->landing != NULL)
        block_put(s, t->landing);
    t->landing = NULL;
    tcp_check_empty(t);
}

static void lower_mtu(struct tcp_conn *c, void *arg)
{
    uint32_t mtu = *(const uint32_t *)arg;

    if (c->pmtu <= mtu)
        return;
    c->pmtu = (uint16_t)mtu;
    tcp_set_mss(c);
}

void tcp_mtu_changed(struct stack *s)
{
    uint32_t mtu = min_u32(s->cfg.mtu_bytes, UINT16_MAX);

    tcp_table_each_conn(s->tcp, lower_mtu, &mtu);
}

uint32_t stack_tcp_count(const struct stack *s)
{
    return s->tcp->conns.slab.in_use;
}

uint32_t stack_half_open_count(const struct stack *s)
{
    return s->tcp->requests.slab.in_use - s->tcp->requests_done + s->tcp->handshakes;
}

/* Keys are spread over the whole table, so that a crowd touches all of its pages; when nobody is left they
 * are all zero again. */
bool tcp_trim(struct stack *s, slab_give_back_fn *give_back, void *arg)
{
    struct tcp_shard *t = s->tcp;
    uintptr_t first = ((uintptr_t)t->buckets + PAGE_BYTES - 1) & ~(uintptr_t)(PAGE_BYTES - 1);
    uintptr_t end = (uintptr_t)(t->buckets + t->bucket_mask + 1) & ~(uintptr_t)(PAGE_BYTES - 1);

    if (t->tws.slab.in_use > 0)
        return true; /* they expire without a packet to tell of it */
    if (!t->table_used || t->conns.slab.in_use + t->requests.slab.in_use > 0)
        return false;
    t->table_used = false;
    if (end > first)
        give_back(arg, (void *)first, end - first);
    return false;
}
