/* udp_rules.c - which way a datagram's target goes, as far as the rules can say it now. */
#include "forward_impl.h"

/* Later targets of a mapping are decided at once, so what UID and PROCESS rules may want is asked for when it is made. */
static bool owner_wanted(const struct forward *f, const struct ways *w, const struct owner *owner)
{
    return f->owner_ask && (!owner || !owner->asked || owner->waiting) &&
           (rules_needs(w->rules) & OWNER_NEEDS) != 0;
}

static enum udp_decision decide(struct forward *f, const struct udp_case *c, struct udp_verdict *out)
{
    struct rule_flow asked = { .client = *c->client,
                               .proto = IP_PROTO_UDP,
                               .in_name = f->opt.in_name[0] != '\0' ? f->opt.in_name : NULL };

    flow_name_find(f, &c->target->addr, &out->name);
    if (out->name.known == NAME_FAKE_UNKNOWN) {
        flow_name_unknown(
            f, &(struct flow_key){
                   c->client->addr, c->target->addr, c->client->port, c->target->port, IP_PROTO_UDP, { 0 } });
        return UDP_NOBODY;
    }
    asked.target = flow_name_target(&out->name, c->target);
    if (c->looked && !asked.target.name)
        asked.target.name = c->sniffed;
    if (c->looked || out->name.known != NAME_UNKNOWN || !sniff_port(&f->opt.sniff.quic, c->target->port))
        asked.settled = RULE_NEEDS_NAME;
    if (owner_wanted(f, c->ways, c->owner)) {
        out->rule = (struct rule_verdict){ .rule = RULE_IMPLICIT, .needs = OWNER_NEEDS };
        return UDP_WANTS_OWNER;
    }
    if (flow_match(f, c->ways, &asked, c->owner, c->name, &out->rule))
        return UDP_WANTS_ADDRESS;
    return (out->rule.needs & RULE_NEEDS_NAME) != 0 ? UDP_WANTS_NAME : UDP_DECIDED;
}

enum udp_decision udp_decide(struct forward *f, const struct udp_case *c, struct udp_verdict *out)
{
    enum udp_decision decision = decide(f, c, out);

    if (decision != UDP_DECIDED && decision != UDP_NOBODY && out->name.known == NAME_FAKE)
        flow_name_release(f, &c->target->addr);
    return decision;
}
