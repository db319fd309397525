/* endpoint_icmp.c - ICMP endpoints: who sends echo requests from inside the stack and waits for the replies.
 *
 * An endpoint is bound to an echo id and, if it likes, to a local and a remote address. It receives echo
 * replies only (icmp.md section 1). The most exact one gets a reply: both addresses, then the remote, then
 * the local, then neither (N3; the id stands in for the local port, N5). A request that meets an endpoint's
 * id is the endpoint's to discard while config.echo_endpoint_shadows is set (O4, O15). */
#include "echo_impl.h"

#define ENDPOINTS 256
#define PLACES    256

struct icmp_endpoint {
    struct stack *s;
    struct icmp_endpoint *chain;
    struct icmp_bind bind;
    icmp_reply_fn *fn;
    void *user;
};

struct endpoint_shard {
    struct pool endpoints;
    struct icmp_endpoint *table[PLACES];
};

static struct icmp_endpoint **place_of(const struct stack *s, const struct icmp_bind *b)
{
    struct flow_key k = { .client = b->remote, .target = b->local, .client_port = b->id };

    k.proto = b->family == IP_FAMILY_6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP;
    return &s->echo_endpoints->table[hash_flow(&s->cfg.secret, &k) % PLACES];
}

static struct icmp_endpoint *find(const struct stack *s, const struct icmp_bind *b)
{
    for (struct icmp_endpoint *e = *place_of(s, b); e != NULL; e = e->chain) {
        if (e->bind.id == b->id && e->bind.family == b->family && ip_equal(&e->bind.local, &b->local) &&
            ip_equal(&e->bind.remote, &b->remote))
            return e;
    }
    return NULL;
}

static struct icmp_endpoint *find_for(const struct stack *s, const struct packet *p)
{
    static const struct {
        bool local, remote;
    } order[] = { { true, true }, { false, true }, { true, false }, { false, false } };

    if (s->echo_endpoints->endpoints.slab.in_use == 0)
        return NULL;
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        struct icmp_bind b = { .family = p->v6 ? IP_FAMILY_6 : IP_FAMILY_4, .id = get_be16(p->l4 + 4) };
        struct icmp_endpoint *e;

        if (order[i].local)
            b.local = p->dst;
        if (order[i].remote)
            b.remote = p->src;
        e = find(s, &b);
        if (e != NULL)
            return e;
    }
    return NULL;
}

/* ---- what arrives -------------------------------------------------------------------------------------- */

bool icmp_endpoint_shadows(struct stack *s, const struct packet *p)
{
    if (!s->cfg.echo_endpoint_shadows || find_for(s, p) == NULL)
        return false;
    COUNT_ICMP(s, p->v6, endpoint_malformed);
    return true;
}

bool icmp_endpoint_reply(struct stack *s, const struct packet *p)
{
    struct icmp_endpoint *e = find_for(s, p);
    struct icmp_reply r = { .from = p->src,
                            .to = p->dst,
                            .id = get_be16(p->l4 + 4),
                            .seq = get_be16(p->l4 + 6),
                            .ttl = p->ttl,
                            .tos = p->tos,
                            .rx_time_us = s->now_us,
                            .payload = p->l4 + ICMP_HEADER,
                            .payload_len = p->l4_len - ICMP_HEADER };

    if (e == NULL)
        return false;
    COUNT_ICMP(s, p->v6, endpoint_in);
    e->fn(e->user, &r); /* may close it: it is not touched after this */
    return true;
}

void icmp_endpoint_error(struct stack *s, const struct packet *quoted, const struct ip_addr *offender,
                         const struct icmp_error *what)
{
    struct packet as_reply = *quoted; /* ours went from src to dst; a reply would come back */
    struct icmp_reply r = { .is_error = true, .offender = *offender, .type = what->type, .code = what->code };
    struct icmp_endpoint *e;

    as_reply.src = quoted->dst;
    as_reply.dst = quoted->src;
    e = find_for(s, &as_reply);
    if (e == NULL) {
        COUNT(s, icmp_ignored);
        return;
    }
    r.from = as_reply.src;
    r.to = as_reply.dst;
    r.id = get_be16(quoted->l4 + 4);
    r.seq = get_be16(quoted->l4 + 6);
    r.info = what->word;
    r.rx_time_us = s->now_us;
    e->fn(e->user, &r);
}

/* ---- the embedder's side ------------------------------------------------------------------------------- */

int icmp_endpoint_open(struct stack *s, const struct icmp_bind *b, icmp_reply_fn *fn, void *user,
                       struct icmp_endpoint **out)
{
    bool v6 = b->family == IP_FAMILY_6;
    struct icmp_endpoint *e, **at;

    if (!stack_family_is_on(s, b->family) || (!ip_is_none(&b->local) && ip_is4(&b->local) == v6) ||
        (!ip_is_none(&b->remote) && ip_is4(&b->remote) == v6))
        return -EAFNOSUPPORT;
    if (!ip_is_none(&b->local) && !s->cfg.spoofing && !iface_is_assigned(&s->iface, &b->local))
        return -EADDRNOTAVAIL;
    if (find(s, b) != NULL)
        return -EADDRINUSE;
    e = pool_get(&s->echo_endpoints->endpoints);
    if (e == NULL)
        return -ENOBUFS;
    at = place_of(s, b);
    *e = (struct icmp_endpoint){ .s = s, .chain = *at, .bind = *b, .fn = fn, .user = user };
    *at = e;
    *out = e;
    return 0;
}

void icmp_endpoint_close(struct icmp_endpoint *e)
{
    struct icmp_endpoint **at = place_of(e->s, &e->bind);

    while (*at != e)
        at = &(*at)->chain;
    *at = e->chain;
    pool_put(&e->s->echo_endpoints->endpoints, e);
}

enum echo_result icmp_endpoint_send(struct icmp_endpoint *e, const struct icmp_request *r)
{
    struct stack *s = e->s;
    bool v6 = e->bind.family == IP_FAMILY_6;
    const struct ip_addr *src =
        ip_is_none(&e->bind.local) ? iface_source_for(&s->iface, &r->to) : &e->bind.local;
    struct iovec payload = { .iov_base = (uint8_t *)(uintptr_t)r->payload, .iov_len = r->payload_len };
    uint8_t room[IP_OUT_HEADROOM + ICMP_HEADER], *h = room + IP_OUT_HEADROOM;
    struct ip_out out = { .dst = r->to,
                          .proto = v6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP,
                          .ttl = r->ttl != 0 ? r->ttl : s->cfg.ttl,
                          .tos = r->tos,
                          .csum_offset = 2 };

    if (src == NULL || ip_is4(&r->to) == v6 || !ip_may_send_from(s, src, NULL)) {
        COUNT_ICMP(s, v6, no_route);
        return EV_NO_ROUTE;
    }
    out.src = *src;
    out.ip_id = (uint16_t)prng_next(&s->prng);
    memset(h, 0, ICMP_HEADER);
    h[0] = v6 ? ICMP6_ECHO : ICMP4_ECHO;
    put_be16(h + 4, e->bind.id);
    put_be16(h + 6, r->seq);
    if (ip_output(s, &out, h, ICMP_HEADER, &payload, r->payload_len > 0) != 0)
        return EV_DROPPED;
    COUNT_ICMP(s, v6, tx_echo_request);
    return EV_SENT;
}

/* ---- life ---------------------------------------------------------------------------------------------- */

size_t icmp_endpoint_memory_bytes(void)
{
    return sizeof(struct endpoint_shard) + pool_region_bytes(sizeof(struct icmp_endpoint), ENDPOINTS);
}

void icmp_endpoint_init(struct stack *s, void *memory)
{
    uint8_t *at = memory;

    s->echo_endpoints = region_take(&at, sizeof(struct endpoint_shard), CACHE_LINE);
    pool_init(s, &s->echo_endpoints->endpoints, "ping", sizeof(struct icmp_endpoint), ENDPOINTS, &at);
}
