/* owner.c - flows whose rule depends on what a packet does not say: who opened them, or the addresses behind a name.
 *
 * The question goes out, the flow waits, and the rules are asked again; each thing is asked for once a flow, and only when the first
 * rule that is still open needs it. A question is an object of its own, since the answer about an owner may come when the flow is
 * gone: then `user` is NULL, and the answer only gives the object back.
 *
 * What always holds. A name that was looked up for a rule is dialled at those addresses of that answer which go to the rule's target,
 * and at no other: it is not looked up again. So neither a name with a private and a public address nor one whose answer
 * changes from one question to the next (DNS rebinding) comes by a way that the rules have for its other address. */
#include "forward_impl.h"

/* ---- the addresses of a name ----------------------------------------------------------------------------------------- */

static void on_resolved(void *arg, int err, const struct ip_addr *addrs, size_t n)
{
    struct name_ask *a = arg;

    a->query = NULL;
    a->resolving = false;
    a->err = err;
    if (err == 0) {
        a->n = n < RESOLVER_ADDRS_MAX ? n : RESOLVER_ADDRS_MAX;
        memcpy(a->addrs, addrs, a->n * sizeof(a->addrs[0]));
    }
    if (!a->asking)
        a->answered(a);
}

bool name_ask(struct forward *f, struct name_ask *a, const char *name, void (*answered)(struct name_ask *a))
{
    int r;

    *a = (struct name_ask){ .answered = answered, .asked = true, .err = -ENOENT };
    if (!name || strlen(name) >= sizeof(a->name))
        return false;
    strcpy(a->name, name);
    a->resolving = a->asking = true;
    r = up_resolve_name(f->env, a->name, on_resolved, a, &a->query);
    a->asking = false;
    if (r != 0) {
        a->resolving = false;
        a->err = r;
    }
    if (!a->resolving)
        a->query = NULL;
    return a->resolving;
}

void name_ask_cancel(struct forward *f, struct name_ask *a)
{
    if (a->resolving)
        up_resolve_cancel(f->env, a->query);
    a->resolving = false;
}

/* Where flow_match() has said no: the verdict has another target. */
static void drop_others(struct name_ask *a, uint32_t fits)
{
    size_t n = 0;

    for (size_t i = 0; i < a->n; i++)
        if (fits & UINT32_C(1) << i)
            a->addrs[n++] = a->addrs[i];
    a->n = n;
}

/* ---- the rules ------------------------------------------------------------------------------------------------------- */

bool flow_match(struct forward *f, const struct ways *w, struct rule_flow *asked, const struct owner *owner,
                struct name_ask *name, struct rule_verdict *out)
{
    static_assert(RESOLVER_ADDRS_MAX <= RULE_ADDRS_MAX, "all addresses of a name are asked about");
    uint32_t fits = 0;

    asked->in_name = f->opt.in_name[0] != '\0' ? f->opt.in_name : NULL;
    if (!f->owner_ask)
        asked->settled |= OWNER_NEEDS;
    if (owner && owner->asked) {
        asked->settled |= OWNER_NEEDS;
        asked->has_uid = owner->ask.found;
        asked->uid = owner->ask.uid;
        asked->process = owner->ask.found && owner->ask.program[0] != '\0' ? owner->ask.program : NULL;
    }
    if (name && name->asked) {
        asked->settled |= RULE_NEEDS_ADDRESS;
        rules_match_any(w->rules, asked, name->addrs, name->n, out, &fits);
    } else {
        rules_match(w->rules, asked, out);
    }
    if (out->regex_gave_up)
        FCOUNT(f, regex_limit);
    if ((out->needs & (OWNER_ASKABLE | RULE_NEEDS_NAME)) != 0)
        return (out->needs & OWNER_ASKABLE) != 0; /* not the last word */
    ways_hit(w, out->rule);
    if (name && name->asked)
        drop_others(name, fits);
    return false;
}

/* ---- who opened it --------------------------------------------------------------------------------------------------- */

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

static void on_name(struct name_ask *a)
{
    answered(CONTAINER_OF(a, struct owner, name));
}

static bool ask_owner(struct owner *o, const struct ways *w)
{
    o->asked = true;
    o->waiting = true;
    o->ask.home = o->f->loop;
    o->ask.wants_program = (rules_needs(w->rules) & RULE_NEEDS_PROCESS) != 0;
    o->ask.answer = on_answer;
    o->f->owner_ask(o->f->owner_arg, &o->ask);
    return true;
}

bool owner_ask(const struct ways *w, struct owner **at, const struct flow_key *key, const char *name,
               uint8_t needs, void *user)
{
    struct forward *f = w->f;
    struct owner *o = *at ? *at : slab_get(&f->owners);

    if (!o)
        return false;
    *at = o;
    o->f = f;
    o->user = user;
    o->ask.key = *key;
    return needs & OWNER_NEEDS ? ask_owner(o, w) : name_ask(f, &o->name, name, on_name);
}

void owner_leave(struct owner *o)
{
    if (!o)
        return;
    name_ask_cancel(o->f, &o->name);
    o->user = NULL;
    if (!o->waiting)
        slab_put(&o->f->owners, o);
}

void forward_attach_owners(struct forward *f, owner_ask_fn *ask, void *arg)
{
    f->owner_ask = ask;
    f->owner_arg = arg;
}
