/* owner.c - flows whose rule depends on who opened them: the question goes out, the flow waits, the rules are asked again.
 *
 * A question is an object of its own, since its answer may come when the flow is gone: then `user` is NULL, and the answer only
 * gives the object back. */
#include "forward_impl.h"

#define OWNER_NEEDS (RULE_NEEDS_UID | RULE_NEEDS_PROCESS)

bool owner_match(struct forward *f, const struct ways *w, struct rule_flow *asked, const struct owner *owner,
                 struct rule_verdict *out)
{
    asked->in_name = f->opt.in_name[0] != '\0' ? f->opt.in_name : NULL;
    if (!f->owner_ask || owner) /* cannot be asked, or was */
        asked->settled |= OWNER_NEEDS;
    if (owner && owner->ask.found) {
        asked->has_uid = true;
        asked->uid = owner->ask.uid;
        asked->process = owner->ask.program[0] != '\0' ? owner->ask.program : NULL;
    }
    asked->settled |=
        RULE_NEEDS_ADDRESS; /* a packet has one; a fake address is a name, and is not looked up */
    rules_match(w->rules, asked, out);
    if (out->regex_gave_up)
        FCOUNT(f, regex_limit);
    return (out->needs & OWNER_NEEDS) != 0;
}

static void on_answer(struct loop_msg *m)
{
    struct owner *o = CONTAINER_OF(m, struct owner, ask.msg);

    o->waiting = false;
    if (!o->user)
        slab_put(&o->f->owners, o);
    else if (o->ask.key.proto == IP_PROTO_TCP)
        tcp_flow_on_owner(o->user);
    else
        udp_flow_on_owner(o->user);
}

struct owner *owner_ask(struct forward *f, const struct flow_key *key, void *user)
{
    struct owner *o = slab_get(&f->owners);

    if (!o)
        return NULL;
    o->f = f;
    o->user = user;
    o->waiting = true;
    o->ask.home = f->loop;
    o->ask.key = *key;
    o->ask.wants_program = (rules_needs(f->ways->rules) & RULE_NEEDS_PROCESS) != 0;
    o->ask.answer = on_answer;
    f->owner_ask(f->owner_arg, &o->ask);
    return o;
}

void owner_leave(struct owner *o)
{
    if (!o)
        return;
    o->user = NULL;
    if (!o->waiting)
        slab_put(&o->f->owners, o);
}

void forward_attach_owners(struct forward *f, owner_ask_fn *ask, void *arg)
{
    f->owner_ask = ask;
    f->owner_arg = arg;
}
