/* udp_rules.c - which way a datagram's target goes, as far as the rules can say it now. */
#include "forward_impl.h"
#include "sniff.h"

#define OWNER_NEEDS (RULE_NEEDS_UID | RULE_NEEDS_PROCESS)

/* Later targets of a mapping are decided at once, so what UID and PROCESS rules may want is asked for when it is made. */
static bool owner_wanted(const struct forward *f, const struct ways *w, const struct owner *owner)
{
    return f->owner_ask && (!owner || (owner->settled & OWNER_NEEDS) == 0) &&
           (rules_needs(w->rules) & OWNER_NEEDS) != 0;
}

/* The name in a QUIC Initial, if it is one. */
static bool sniff(const struct udp_datagram *d, char name[256])
{
    struct span first = { d->data[0].iov_base, d->data[0].iov_len };

    if (d->gso_size > 0 && first.len > d->gso_size)
        first.len = d->gso_size;
    return sniff_quic(first, name) == SNIFF_NAME;
}

bool udp_decide(struct forward *f, const struct ways *w, const struct ip_port *client,
                const struct ip_port *target, const struct owner *owner, const struct udp_datagram *d,
                struct flow_name *name, struct rule_verdict *out, bool *wait)
{
    struct rule_flow asked = { .client = *client,
                               .proto = IP_PROTO_UDP,
                               .in_name = f->opt.in_name[0] != '\0' ? f->opt.in_name : NULL };
    char sniffed[256];
    bool found = false;

    flow_name_find(f, &target->addr, name);
    if (name->known == NAME_FAKE_UNKNOWN) {
        flow_name_unknown(f,
                          &(struct flow_key){
                              client->addr, target->addr, client->port, target->port, IP_PROTO_UDP, { 0 } });
        return false;
    }
    asked.target = flow_name_target(name, target);
    if (name->known != NAME_UNKNOWN || !sniff_port(&f->opt.sniff.quic, target->port))
        asked.settled = RULE_NEEDS_NAME;
    if (owner_wanted(f, w, owner)) {
        rules_match(w->rules, &asked, out); /* counts only if nobody can be asked */
        out->needs |= OWNER_NEEDS;
        *wait = true;
        return true;
    }
    *wait = owner_match(f, w, &asked, owner, out);
    if (!*wait && (out->needs & RULE_NEEDS_NAME) != 0) {
        found = sniff(d, sniffed);
        asked.settled |= RULE_NEEDS_NAME;
        asked.target.name = found ? sniffed : NULL;
        *wait = owner_match(f, w, &asked, owner, out);
    }
    if (found && !*wait)
        FCOUNT(f, sniffed);
    return true;
}
