/* udp_choose.c - which association of a mapping a target's datagrams take, by the rules or by what they have said before.
 *
 * A target by its fake address has an association to itself; a mapping has 64 at most, and the one not used for longest goes. When the rules looked at its name's addresses, it is pinned to one that they
 * let go its way: a socket of ours sends there and nowhere else, for as long as the mapping lives. A proxy gets the name. */
#include "forward_impl.h"

#define NO_ADDRESS_MS 1000 /* a name without an address is looked up again, if somebody wants it */
#define ASSOCS_MAX    64   /* of one mapping */

/* It was used last: the others are older. */
static struct udp_assoc *to_front(struct udp_flow *u, struct udp_assoc **at)
{
    struct udp_assoc *a = *at;

    *at = a->next;
    a->next = u->assocs;
    u->assocs = a;
    return a;
}

/* A client gets as many fake addresses as it asks for names: without a limit, one port of it would soon have all descriptors. */
static void make_room(struct udp_flow *u)
{
    struct udp_assoc **at = &u->assocs, *oldest;

    for (int n = 1; *at && n < ASSOCS_MAX; n++)
        at = &(*at)->next;
    oldest = *at;
    if (!oldest)
        return;
    *at = NULL;
    if (u->last == oldest)
        u->last = NULL;
    FCOUNT(u->f, udp_way_evicted);
    udp_assoc_free(oldest);
}

/* @fake: the target is a fake address, and held; NULL: it is none. On failure the hold is still the caller's. */
static struct udp_assoc *assoc_for(struct udp_flow *u, uint32_t target, const struct ip_port *fake)
{
    struct udp_assoc *a;

    for (struct udp_assoc **at = &u->assocs; (a = *at) != NULL; at = &a->next) {
        if (a->target != target || a->faked != (fake != NULL) || (fake && !ip_port_equal(&a->fake, fake)))
            continue;
        if (fake)
            flow_name_release(u->f, &fake->addr); /* it has one already */
        return to_front(u, at);
    }
    make_room(u);
    a = slab_get(&u->f->assocs);
    if (!a)
        return NULL;
    a->flow = u;
    a->target = (uint16_t)target;
    a->faked = fake != NULL;
    if (fake)
        a->fake = *fake;
    a->next = u->assocs;
    u->assocs = a;
    return a;
}

struct udp_assoc *udp_assoc_by_verdict(struct udp_flow *u, uint32_t target, const struct ip_port *dst,
                                       const struct flow_name *name)
{
    bool fake = name->known == NAME_FAKE;
    struct udp_assoc *a = assoc_for(u, target, fake ? dst : NULL);

    if (!a && fake)
        flow_name_release(u->f, &dst->addr);
    return a;
}

/* For datagrams there is no race: IPv4 works more often. */
static struct ip_addr address_for_datagrams(const struct name_ask *name)
{
    for (size_t i = 0; i < name->n; i++)
        if (ip_is4(&name->addrs[i]))
            return name->addrs[i];
    return name->n > 0 ? name->addrs[0] : (struct ip_addr){ 0 };
}

bool udp_flow_pin(struct udp_flow *u, const struct ip_port *target, const struct udp_verdict *v,
                  const struct name_ask *name)
{
    struct udp_assoc *a = udp_assoc_by_verdict(u, v->rule.target, target, &v->name);

    if (a && name->asked) {
        a->pinned = true;
        a->real = address_for_datagrams(name);
        a->pinned_ms = forward_now_ms(u->f);
    }
    return a != NULL;
}

bool udp_pin_is_over(const struct udp_assoc *a)
{
    return a->pinned && ip_is_none(&a->real) && forward_now_ms(a->flow->f) - a->pinned_ms >= NO_ADDRESS_MS;
}

/* What was decided by addresses is not decided again while it holds. NULL: nothing was */
static struct udp_assoc *assoc_pinned(struct udp_flow *u, const struct ip_port *target)
{
    for (struct udp_assoc **at = &u->assocs, *a; (a = *at) != NULL; at = &a->next)
        if (a->pinned && ip_port_equal(&a->fake, target) && !udp_pin_is_over(a))
            return to_front(u, at);
    return NULL;
}

struct udp_assoc *udp_assoc_choose(struct udp_flow *u, const struct udp_datagram *d,
                                   const struct ip_port *target)
{
    struct udp_case c = { .ways = u->ways, .client = &u->client, .target = target, .owner = u->owner };
    struct udp_look *look = u->looks ? udp_look_find(u, target) : NULL;
    struct udp_assoc *a = look ? NULL : assoc_pinned(u, target);
    struct udp_verdict v;

    if (a)
        return a;
    if (!look) {
        enum udp_decision decision = udp_decide(u->f, &c, &v);

        if (decision == UDP_DECIDED)
            return udp_assoc_by_verdict(u, v.rule.target, target, &v.name);
        if (decision == UDP_NOBODY) {
            udp_endpoint_error(u->endpoint, &d->target, NULL, REJECT_PORT_UNREACH, 0);
            return NULL;
        }
        look = udp_look_start(u, target, decision, &v);
        if (!look) {
            FCOUNT(u->f, undecided);
            return NULL;
        }
    }
    if (!look->wait)
        return assoc_for(u, look->way, NULL);
    udp_look_take(look, d);
    return NULL;
}
