/* echo_token.c - echo requests that are answered later (icmp.md 3.2).
 *
 * A token names a place in this shard and the generation of its last use, so one that is spent, expired or
 * made up finds nothing. Only what echo_detach() was asked to keep is copied: the IP header, the payload, or
 * both, which then are the datagram as it came. The packet that leaves is built here, on the shard that owns
 * the token, whoever completes it. */
#include "echo_impl.h"

#define KEPT_BYTES_MAX ((size_t)4 << 20)

struct detached {
    struct stack *s;
    struct wheel_timer expiry;
    struct block *block; /* NULL: nothing was kept */
    size_t kept_bytes;
    struct echo_subject subject; /* lies in block and in icmp */
    uint8_t icmp[ICMP_HEADER];
    bool many; /* ECHO_ALLOW_DUP */
};

static void forget(struct detached *d)
{
    struct echo_shard *e = d->s->echo;

    e->places[pool_index(&e->detached, d)].in_use = false;
    e->kept_bytes -= d->kept_bytes;
    wheel_cancel(&d->s->wheel, &d->expiry);
    if (d->block != NULL)
        block_put(d->s, d->block);
    pool_put(&e->detached, d);
}

static void on_expiry(struct wheel_timer *t, uint64_t now_us)
{
    struct detached *d = CONTAINER_OF(t, struct detached, expiry);

    (void)now_us;
    COUNT_ICMP(d->s, d->subject.p.v6, detach_expired);
    forget(d);
}

/* ---- what is kept -------------------------------------------------------------------------------------- */

/* From where to where of the packet: its IP header begins at ip, its payload behind the ICMP header. */
static size_t range_to_keep(const struct packet *p, uint32_t keep, const uint8_t **from)
{
    const uint8_t *payload = p->l4 + ICMP_HEADER, *end = p->ip + p->ip_len;

    *from = (keep & ECHO_KEEP_HEADER) != 0 ? p->ip : payload;
    return (size_t)((keep & ECHO_KEEP_PAYLOAD) != 0 ? end - *from : payload - *from);
}

/* The subject's pointers, moved from the packet to the copy that begins at @at. */
static void point_at_copy(struct detached *d, const struct packet *p, uint32_t keep, const uint8_t *at)
{
    struct echo_subject *q = &d->subject;
    size_t headers = (size_t)(p->l4 + ICMP_HEADER - p->ip);

    q->p.l4 = d->icmp;
    q->p.l4_len = ICMP_HEADER;
    q->p.ip = NULL;
    q->p.ip_len = 0;
    q->p.slot = NULL;
    q->payload = NULL;
    if ((keep & ECHO_KEEP_HEADER) != 0) {
        q->p.ip = at;
        q->p.ip_len = (uint32_t)d->kept_bytes;
    }
    if ((keep & ECHO_KEEP_PAYLOAD) != 0)
        q->payload = (keep & ECHO_KEEP_HEADER) != 0 ? at + headers : at;
}

static bool keep_bytes(struct stack *s, struct detached *d, const struct packet *p, uint32_t keep)
{
    const uint8_t *from, *at = d->icmp; /* an empty payload is kept, too: somewhere that is not NULL */

    d->kept_bytes = range_to_keep(p, keep, &from);
    if (s->echo->kept_bytes + d->kept_bytes > KEPT_BYTES_MAX)
        return false;
    if (d->kept_bytes > 0) {
        d->block = ip_copy(s, from, d->kept_bytes, &at);
        if (d->block == NULL)
            return false;
    }
    point_at_copy(d, p, keep, at);
    s->echo->kept_bytes += d->kept_bytes;
    return true;
}

static struct detached *detach(struct stack *s, const struct packet *p, uint32_t keep)
{
    struct detached *d = pool_get(&s->echo->detached);

    if (d == NULL)
        return NULL;
    *d = (struct detached){
        .s = s, .subject = echo_subject_of(s, p), .expiry.fn = on_expiry, .many = (keep & ECHO_ALLOW_DUP) != 0
    };
    memcpy(d->icmp, p->l4, ICMP_HEADER);
    if (!keep_bytes(s, d, p, keep)) {
        pool_put(&s->echo->detached, d);
        return NULL;
    }
    wheel_set(&s->wheel, &d->expiry, s->now_us + (uint64_t)s->cfg.echo_token_ms * 1000);
    return d;
}

echo_token echo_detach(struct echo_req *r, uint32_t keep)
{
    struct stack *s = r->stack;
    struct echo_shard *e = s->echo;
    struct detached *d;
    uint32_t at;

    if (echo_right_to_answer(r) != EV_SENT)
        return 0;
    d = detach(s, e->current, keep);
    if (d == NULL) {
        COUNT_ICMP(s, e->current->v6, detach_refused);
        return 0;
    }
    COUNT_ICMP(s, e->current->v6, detached);
    e->answered = true;
    at = pool_index(&e->detached, d);
    e->places[at].in_use = true;
    return (uint64_t)++e->places[at].generation << 32 | (uint64_t)s->cfg.shard << 16 | (at + 1);
}

/* ---- completion ---------------------------------------------------------------------------------------- */

static struct detached *find(struct stack *s, echo_token token)
{
    uint32_t at = (uint32_t)(token & 0xffff) - 1, generation = (uint32_t)(token >> 32);
    struct echo_shard *e = s->echo;

    if (at >= ECHO_TOKENS || !e->places[at].in_use || e->places[at].generation != generation)
        return NULL;
    return pool_at(&e->detached, at);
}

enum echo_result echo_post(const struct stack *s, echo_token token, const struct echo_outcome *o)
{
    if (s->ev.echo_post == NULL || echo_token_shard(token) >= s->cfg.shards)
        return EV_STALE;
    return s->ev.echo_post(s->ev.driver, echo_token_shard(token), token, o) ? EV_POSTED : EV_DROPPED;
}

enum echo_result echo_complete(struct stack *s, echo_token token, const struct echo_outcome *o)
{
    enum echo_result result = EV_STALE;
    struct detached *d;

    if (token != 0 && echo_token_shard(token) != s->cfg.shard)
        return echo_post(s, token, o);
    d = find(s, token);
    if (d != NULL && ip_still_ours(s, &d->subject.p))
        result = echo_send_outcome(s, &d->subject, o);
    else
        COUNT_ICMP(s, d != NULL && d->subject.p.v6, stale);
    if (d != NULL && (!d->many || result == EV_STALE))
        forget(d);
    return result;
}

/* ---- life ---------------------------------------------------------------------------------------------- */

void echo_forget_all(struct stack *s)
{
    for (uint32_t i = 0; i < ECHO_TOKENS; i++) {
        if (s->echo->places[i].in_use)
            forget(pool_at(&s->echo->detached, i));
    }
}

size_t echo_memory_bytes(void)
{
    return sizeof(struct echo_shard) + pool_region_bytes(sizeof(struct detached), ECHO_TOKENS);
}

void echo_init(struct stack *s, void *memory)
{
    uint8_t *at = memory;

    s->echo = region_take(&at, sizeof(struct echo_shard), CACHE_LINE);
    pool_init(s, &s->echo->detached, "echo", sizeof(struct detached), ECHO_TOKENS, &at);
    for (int v6 = 0; v6 < 2; v6++)
        s->echo->on[v6] = (struct echo_on){ s->ev.on_echo, s->arg, ECHO_KIND_REQUEST };
}
