/* handoff.c - packets that belong to another shard (tcp-stack.md 1.6).
 *
 * The kernel usually brings a flow to the shard that owns it, and where it lets us choose the queue (steer_packet())
 * nearly always. What it brings elsewhere (reassembled datagrams, ICMP errors, flows whose pin expired) walks from
 * shard to shard until one knows it; what belongs to a UDP mapping goes straight to its owner. A packet carries the
 * shard that read it, so the walk ends where it began. */
#include "ip_impl.h"

#define WALKS_PER_SECOND 10000

static void hand_over(struct stack *s, const struct packet *p, uint32_t shard)
{
    if (s->ev.handoff(s->ev.driver, shard, p->origin, p->ip, p->ip_len, &p->meta))
        COUNT(s, ip_handoff_out);
    else
        COUNT(s, ip_handoff_full);
}

/* A packet is sent to its owner once: where it comes by a ring it has arrived. */
static bool owner_took_it(struct stack *s, const struct packet *p, uint16_t steered)
{
    uint32_t owner = steered % s->cfg.shards;

    if (owner == s->cfg.shard || p->origin != s->cfg.shard)
        return false;
    hand_over(s, p, owner);
    return true;
}

/* All requests of one pair of addresses, and the fragments of those, meet in one shard (icmp.md F10). */
bool icmp_owner_took_it(struct stack *s, const struct packet *p)
{
    return s->cfg.shards > 1 && owner_took_it(s, p, steer_addresses(&s->steer, &p->src, &p->dst));
}

bool udp_owner_took_it(struct stack *s, const struct packet *p, const struct ip_addr *client, uint16_t port)
{
    return s->cfg.shards > 1 && owner_took_it(s, p, steer_client_port(&s->steer, client, port));
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
