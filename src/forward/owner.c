/* owner.c - flows whose rule depends on what a packet does not say: who opened them, or the address behind a name.
 *
 * The question goes out, the flow waits, and the rules are asked again; each thing is asked for once a flow, and only when the first
 * rule that is still open needs it. A question is an object of its own, since the answer about an owner may come when the flow is
 * gone: then `user` is NULL, and the answer only gives the object back. */
#include "forward_impl.h"

#define OWNER_NEEDS (RULE_NEEDS_UID | RULE_NEEDS_PROCESS)

/* The address counts for the name that was asked for; a UDP mapping may have others. */
static void add_facts(const struct owner *o, struct rule_flow *asked)
{
    asked->settled |= o->settled;
    if (o->ask.found) {
        asked->has_uid = true;
        asked->uid = o->ask.uid;
        asked->process = o->ask.program[0] != '\0' ? o->ask.program : NULL;
    }
    if (o->n_addrs > 0 && asked->target.name && ip_is_none(&asked->target.addr) &&
        strcmp(asked->target.name, o->name) == 0) {
        asked->target.addr = o->addrs[0];
        asked->more_addrs = o->addrs + 1;
        asked->n_more_addrs = o->n_addrs - 1;
    }
}

bool owner_match(struct forward *f, const struct ways *w, struct rule_flow *asked, const struct owner *owner,
                 struct rule_verdict *out)
{
    asked->in_name = f->opt.in_name[0] != '\0' ? f->opt.in_name : NULL;
    if (!f->owner_ask)
        asked->settled |= OWNER_NEEDS;
    if (owner)
        add_facts(owner, asked);
    rules_match(w->rules, asked, out);
    if (out->regex_gave_up)
        FCOUNT(f, regex_limit);
    if ((out->needs & (OWNER_ASKABLE | RULE_NEEDS_NAME)) == 0) /* else it is not the last word */
        ways_hit(w, out->rule);
    return (out->needs & OWNER_ASKABLE) != 0;
}

static void answered(struct owner *o)
{
    if (!o->user)
        slab_put(&o->f->owners, o);
    else if (o->ask.key.proto == IP_PROTO_TCP)
        tcp_flow_on_owner(o->user);
    else
        udp_flow_on_owner(o->user);
}

static void on_answer(struct loop_msg *m)
{
    struct owner *o = CONTAINER_OF(m, struct owner, ask.msg);

    o->waiting = false;
    answered(o);
}

static void on_resolved(void *arg, int err, const struct ip_addr *addrs, size_t n)
{
    struct owner *o = arg;

    o->query = NULL;
    o->resolving = false;
    if (err == 0) {
        o->n_addrs = n < RESOLVER_ADDRS_MAX ? n : RESOLVER_ADDRS_MAX;
        memcpy(o->addrs, addrs, o->n_addrs * sizeof(o->addrs[0]));
    }
    if (!o->asking)
        answered(o);
}

static bool ask_owner(struct owner *o)
{
    o->settled |= OWNER_NEEDS;
    o->waiting = true;
    o->ask.home = o->f->loop;
    o->ask.wants_program = (rules_needs(o->f->ways->rules) & RULE_NEEDS_PROCESS) != 0;
    o->ask.answer = on_answer;
    o->f->owner_ask(o->f->owner_arg, &o->ask);
    return true;
}

static bool ask_address(struct owner *o, const char *name)
{
    int r;

    o->settled |= RULE_NEEDS_ADDRESS;
    if (!name || strlen(name) >= sizeof(o->name))
        return false;
    strcpy(o->name, name);
    o->resolving = o->asking = true;
    r = up_resolve_name(o->f->env, o->name, on_resolved, o, &o->query);
    o->asking = false;
    if (r != 0)
        o->resolving = false;
    if (!o->resolving)
        o->query = NULL;
    return o->resolving;
}

bool owner_ask(struct forward *f, struct owner **at, const struct flow_key *key, const char *name,
               uint8_t needs, void *user)
{
    struct owner *o = *at ? *at : slab_get(&f->owners);

    if (!o)
        return false;
    *at = o;
    o->f = f;
    o->user = user;
    o->ask.key = *key;
    return needs & OWNER_NEEDS ? ask_owner(o) : ask_address(o, name);
}

void owner_leave(struct owner *o)
{
    if (!o)
        return;
    if (o->resolving)
        up_resolve_cancel(o->f->env, o->query);
    o->user = NULL;
    if (!o->waiting)
        slab_put(&o->f->owners, o);
}

void forward_attach_owners(struct forward *f, owner_ask_fn *ask, void *arg)
{
    f->owner_ask = ask;
    f->owner_arg = arg;
}
