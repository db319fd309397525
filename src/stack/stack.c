/* stack.c - one shard: its configuration, its memory, and the calls that move it: input, batch end, time.
 *
 * How it works: stack_input() takes a packet as far as it can go without calling the embedder;
 * stack_batch_end() then runs callbacks and lets the connections that were touched send, so that all input of
 * a batch is seen before any answer leaves (tcp-stack.md BAT-1). Timers share one wheel. The stack lives at
 * the front of the region that it was given; the rest are pools and tables, whose untouched pages cost
 * nothing. */
#include "ip_impl.h"

#define PAGE_BYTES    4096
#define MTU_MIN       576 /* RFC 791 section 3.2: what every host must take */
#define MTU_MAX       65535
#define MIN_RX_SLOTS  2 /* the one being filled and its spare */
#define MIN_CAP_SLOTS 4
#define ADDRESSES_MAX (1u << 24)
#define SHARDS_MAX    65535 /* an echo token has 16 bits for its shard */
#define TOKEN_MS_MIN  1000
#define TOKEN_MS_MAX  60000

void stack_config_defaults(struct stack_config *c)
{
    *c = (struct stack_config){
        .mtu_bytes = 1500,
        .ttl = 64,
        .shards = 1,
        .ipv4 = true,
        .ipv6 = true,
        .max_addresses = 64,
        .max_local_prefixes = 64,
        .promiscuous = true,
        .spoofing = true,
        .rx_slots = 512,
        .buffer_cap_bytes = (size_t)256 << 20,
        .max_tcp = 131072,
        .max_half_open = 4096,
        .max_half_open_per_source = 256,
        .max_time_wait = 65536,
        .max_udp = 65536,
        .icmp_errors_per_second = 1000,
        .icmp_errors_burst = 50,
        .echo_temporary = ECHO_TEMPORARY_COMPAT,
        .echo_endpoint_shadows = true,
        .echo_replies_per_second = 1000,
        .echo_replies_burst = 50,
        .echo_token_ms = 10000,
        .proto_unreachable = true,
        .rst_per_second = 1000,
        .congestion = TCP_CC_CUBIC,
        .rcv_budget_initial = 256 << 10,
        .rcv_budget_max = 4 << 20,
        .snd_buffer_initial = 128 << 10,
        .snd_buffer_max = 4 << 20,
        .window_scale = 8,
        .delayed_ack_us = 40000,
        .quick_ack_segments = 16,
        .user_timeout_ms = 120000,
        .keepalive_interval_ms = 30000,
        .keepalive_probes = 5,
        .time_wait_ms = 60000,
        .fin_wait2_ms = 60000,
        .ecn = true,
        .restart_after_idle = true,
    };
}

static bool config_is_sound(const struct stack_config *c, const struct stack_events *ev)
{
    if (c->mtu_bytes < MTU_MIN || c->mtu_bytes > MTU_MAX || c->ttl == 0 || c->window_scale > 14)
        return false;
    if (c->shards == 0 || c->shard >= c->shards || (c->shards > 1 && ev->handoff == NULL))
        return false;
    if (c->addresses > ARRAY_LEN(c->address) || ev->emit == NULL)
        return false;
    for (size_t i = 0; i < c->addresses; i++) {
        if (ip_is_martian(&c->address[i]) || c->address_len[i] > 128)
            return false;
    }
    if ((c->promiscuous && c->handle_local) || c->max_addresses < c->addresses ||
        c->max_addresses > ADDRESSES_MAX || c->max_local_prefixes > ADDRESSES_MAX ||
        c->echo_token_ms < TOKEN_MS_MIN || c->echo_token_ms > TOKEN_MS_MAX || c->shards > SHARDS_MAX)
        return false;
    return c->rx_slots >= MIN_RX_SLOTS &&
           c->buffer_cap_bytes >= MIN_CAP_SLOTS * (size_t)(STACK_SLOT_BYTES + BLOCK_HEADROOM);
}

size_t stack_memory_bytes(const struct stack_config *c)
{
    size_t parts[] = { sizeof(struct stack),  blocks_region_bytes(c),      udp_memory_bytes(c),
                       echo_memory_bytes(),   frag_memory_bytes(c),        tcp_memory_bytes(c),
                       iface_memory_bytes(c), icmp_endpoint_memory_bytes() };
    size_t sum = 0;

    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        sum += parts[i] + CACHE_LINE;
    return (sum + PAGE_BYTES - 1) & ~(size_t)(PAGE_BYTES - 1);
}

struct stack *stack_init(void *memory, const struct stack_config *c, const struct stack_events *ev, void *arg,
                         uint64_t now_us)
{
    uint8_t *at = memory;
    struct stack *s;

    if (!config_is_sound(c, ev))
        return NULL;
    s = region_take(&at, sizeof(*s), CACHE_LINE);
    s->cfg = *c;
    s->most_cap_bytes = c->buffer_cap_bytes;
    s->ev = *ev;
    s->arg = arg;
    if (s->ev.driver == NULL)
        s->ev.driver = arg;
    s->now_us = now_us;
    prng_seed(&s->prng, c->seed);
    steer_init(&s->steer, &c->steer_key);
    wheel_init(&s->wheel, now_us);
    bucket_fill(&s->icmp_bucket, now_us, c->icmp_errors_burst);
    bucket_fill(&s->echo_bucket, now_us, c->echo_replies_burst);
    bucket_fill(&s->rst_bucket, now_us, c->rst_per_second);
    bucket_fill(&s->tw_bucket, now_us, c->rst_per_second);
    bucket_fill(&s->walk_bucket, now_us, WALK_BURST);
    blocks_init(s, &at);
    if (!iface_init(s, region_take(&at, iface_memory_bytes(c), CACHE_LINE)))
        return NULL;
    udp_init(s, region_take(&at, udp_memory_bytes(c), CACHE_LINE));
    icmp_endpoint_init(s, region_take(&at, icmp_endpoint_memory_bytes(), CACHE_LINE));
    echo_init(s, region_take(&at, echo_memory_bytes(), CACHE_LINE));
    frag_init(s, region_take(&at, frag_memory_bytes(c), CACHE_LINE));
    tcp_init(s, region_take(&at, tcp_memory_bytes(c), CACHE_LINE));
    s->rx = block_get(s, BLOCK_SLOT);
    return s;
}

void stack_fini(struct stack *s)
{
    if (s == NULL)
        return;
    echo_forget_all(s); /* first, so that whoever completes one now finds it stale (icmp.md A7) */
    tcp_fini(s);
    udp_fini(s);
    for (size_t i = 0; i < s->pool_count; i++)
        slab_fini(&s->pools[i]->slab);
}

/* ---- input --------------------------------------------------------------------------------------------- */

/* Time only goes forward here, whatever the callers' clocks do to each other. */
static void set_now(struct stack *s, uint64_t now_us)
{
    if (now_us > s->now_us)
        s->now_us = now_us;
}

uint8_t *stack_rx_slot(struct stack *s)
{
    return block_data(s->rx);
}

/* A slot may be kept by a connection only while there is another one to read the next packet into. */
static struct block *keepable_slot(struct stack *s)
{
    if (s->rx_spare == NULL)
        s->rx_spare = block_get(s, BLOCK_SLOT);
    return s->rx_spare != NULL ? s->rx : NULL;
}

void stack_input(struct stack *s, uint64_t now_us, size_t len, const struct pkt_meta *meta)
{
    struct block *slot = keepable_slot(s);

    set_now(s, now_us);
    COUNT(s, ip_in);
    COUNT_ADD(s, ip_in_bytes, len);
    ip_input(s, block_data(s->rx), len, meta, slot, s->cfg.shard, false);
    if (s->rx->refs > 1) { /* kept: the reference that was ours goes, the spare takes over */
        block_put(s, s->rx);
        s->rx = s->rx_spare;
        s->rx_spare = NULL;
    }
}

void stack_input_handoff(struct stack *s, uint64_t now_us, uint32_t origin, const void *packet, size_t len,
                         const struct pkt_meta *meta)
{
    set_now(s, now_us);
    COUNT(s, ip_handoff_in);
    ip_input(s, packet, len, meta, NULL, origin, false);
}

/* ---- batches and time ---------------------------------------------------------------------------------- */

void stack_time(struct stack *s, uint64_t now_us)
{
    set_now(s, now_us);
}

void stack_batch_end(struct stack *s, uint64_t now_us)
{
    if (s->in_batch) /* called from a callback: the call that is under way does the work */
        return;
    set_now(s, now_us);
    s->in_batch = true;
    COUNT(s, batches);
    udp_batch_end(s);
    tcp_batch_end(s);
    s->in_batch = false;
}

uint64_t stack_next_deadline(const struct stack *s)
{
    if (udp_batch_pending(s) || tcp_batch_pending(s))
        return s->now_us;
    return wheel_next_us(&s->wheel);
}

void stack_advance(struct stack *s, uint64_t now_us)
{
    if (s->in_advance)
        return;
    set_now(s, now_us);
    s->in_advance = true;
    wheel_advance(&s->wheel, s->now_us);
    s->in_advance = false;
    stack_batch_end(s, s->now_us);
}

struct wheel *stack_wheel(struct stack *s)
{
    return &s->wheel;
}

void stack_set_buffer_cap(struct stack *s, uint64_t bytes)
{
    uint64_t least = MIN_CAP_SLOTS * (uint64_t)(STACK_SLOT_BYTES + BLOCK_HEADROOM);

    if (bytes > s->most_cap_bytes)
        bytes = s->most_cap_bytes;
    s->cfg.buffer_cap_bytes = (size_t)(bytes > least ? bytes : least);
}

void stack_set_mtu(struct stack *s, uint32_t mtu_bytes)
{
    if (mtu_bytes < MTU_MIN)
        mtu_bytes = MTU_MIN;
    s->cfg.mtu_bytes = mtu_bytes < MTU_MAX ? mtu_bytes : MTU_MAX;
    tcp_mtu_changed(s);
}

void stack_set_icmp_limits(struct stack *s, uint32_t errors_per_second, uint32_t errors_burst)
{
    s->cfg.icmp_errors_per_second = errors_per_second;
    s->cfg.icmp_errors_burst = errors_burst;
    bucket_fill(&s->icmp_bucket, s->now_us, errors_burst);
}

void stack_set_echo_limits(struct stack *s, bool limited, uint32_t replies_per_second, uint32_t replies_burst)
{
    s->cfg.echo_reply_limited = limited;
    s->cfg.echo_replies_per_second = replies_per_second;
    s->cfg.echo_replies_burst = replies_burst;
    bucket_fill(&s->echo_bucket, s->now_us, replies_burst);
}

bool stack_family_is_on(const struct stack *s, enum ip_family family)
{
    return family == IP_FAMILY_4 ? s->cfg.ipv4 : family == IP_FAMILY_6 && s->cfg.ipv6;
}

uint64_t stack_now_us(const struct stack *s)
{
    return s->now_us;
}

/* ---- limits and numbers -------------------------------------------------------------------------------- */

void bucket_fill(struct bucket *b, uint64_t now_us, uint32_t burst)
{
    b->last_us = now_us;
    b->credit = (uint64_t)burst * 1000000;
}

bool bucket_take(struct bucket *b, uint64_t now_us, uint32_t rate, uint32_t burst)
{
    uint64_t full = (uint64_t)burst * 1000000, elapsed = now_us - b->last_us;

    if (rate == UINT32_MAX)
        return true;
    if (rate == 0 || burst == 0)
        return false;
    /* `rate` tokens a second are `rate` millionths a microsecond; a long pause must not overflow the
     * product. */
    b->credit = elapsed >= full / rate + 1 ? full : b->credit + elapsed * rate;
    if (b->credit > full)
        b->credit = full;
    b->last_us = now_us;
    if (b->credit < 1000000)
        return false;
    b->credit -= 1000000;
    return true;
}

const struct stack_counters *stack_counters(const struct stack *s)
{
    return &s->cnt;
}

const struct counter_desc stack_counter_descs[] = {
#define COUNTER_ROW(member, text) { text, offsetof(struct stack_counters, member) },
    STACK_COUNTERS(COUNTER_ROW)
#undef COUNTER_ROW
        { NULL, 0 },
};

size_t stack_pools(const struct stack *s, struct stack_pool_info *out, size_t max)
{
    size_t n;

    for (n = 0; n < s->pool_count && n < max; n++) {
        const struct pool *p = s->pools[n];

        out[n] =
            (struct stack_pool_info){ p->name,       p->slab.object_bytes, p->slab.in_use, p->slab.high_water,
                                      p->slab.limit, p->slab.failed };
        /* The slot being read into and its spare belong to nobody's traffic: at rest this says 0 (MEM-1). */
        if (p == &s->blocks[BLOCK_SLOT])
            out[n].in_use -= 1u + (s->rx_spare != NULL);
    }
    return n;
}

void stack_memory(const struct stack *s, struct memory_use *add)
{
    uint64_t packets = blocks_resident_bytes(s), all = 0;

    for (size_t i = 0; i < s->pool_count; i++)
        all += slab_resident_bytes(&s->pools[i]->slab);
    add->bytes[MEMORY_PACKETS] += packets;
    add->bytes[MEMORY_STACK] += sizeof(*s) + all - packets;
}

bool stack_trim(struct stack *s, slab_give_back_fn *give_back, void *arg)
{
    bool more = false;

    for (size_t i = 0; i < s->pool_count; i++)
        more = slab_trim(&s->pools[i]->slab, give_back, arg) || more;
    more = tcp_trim(s, give_back, arg) || more;
    return more;
}
