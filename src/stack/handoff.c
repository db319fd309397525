/* handoff.c - packets that belong to another shard (tcp-stack.md 1.6).
 *
 * The kernel usually brings a flow to the shard that owns it. What it brings elsewhere (reassembled datagrams, ICMP
 * errors, flows whose pin expired) walks from shard to shard until one knows it; a UDP datagram goes straight to the
 * owner of its mapping. A packet carries the shard that read it, so the walk ends where it began. */
#include "ip_impl.h"

#define WALKS_PER_SECOND 10000

static void hand_over(struct stack *s, const struct packet *p, uint32_t shard)
{
    if (s->ev.handoff(s->ev.driver, shard, p->origin, p->ip, p->ip_len, &p->meta))
        COUNT(s, ip_handoff_out);
    else
        COUNT(s, ip_handoff_full);
}

bool stack_hand_to(struct stack *s, const struct packet *p, uint32_t shard)
{
    if (shard == s->cfg.shard || shard >= s->cfg.shards)
        return false;
    hand_over(s, p, shard);
    return true;
}

/* All requests of one pair of addresses, and the fragments of those, meet in one shard (icmp.md F10). */
bool icmp_owner_took_it(struct stack *s, const struct packet *p)
{
    struct flow_key k = { .client = p->src, .target = p->dst };

    if (s->cfg.shards == 1 || p->origin != s->cfg.shard)
        return false;
    k.proto = p->v6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP;
    return stack_hand_to(s, p, (uint32_t)(hash_flow(&s->cfg.steer_key, &k) % s->cfg.shards));
}

bool stack_pass_on(struct stack *s, const struct packet *p)
{
    uint32_t next = (s->cfg.shard + 1) % s->cfg.shards;

    if (next == p->origin || s->cfg.shards == 1)
        return false;
    if (p->origin == s->cfg.shard && !bucket_take(&s->walk_bucket, s->now_us, WALKS_PER_SECOND, WALK_BURST)) {
        COUNT(s, ip_handoff_full);
        return true;
    }
    hand_over(s, p, next);
    return true;
}
