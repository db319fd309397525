/* rules.c - a list of rules is compiled, counted, and given back.
 *
 * How it works: each rule is one expression (nodes.c). Most rules can only hold if the flow has one of a few values: a name, a range,
 * a port, a user. Such a rule is entered under these values (guards.c, prefixes.c), and match.c asks it only if the flow has one; so
 * what a match costs does not grow with the list. Which rules those are is decided here, by reading the expression: one condition,
 * an OR of them, or an AND with one of these in it.
 *
 * What always holds: indexes name candidates, never answers. A rule is always asked in full, so an index may be too generous, and
 * must never leave a rule out. */
#include "culvert/rules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rules_impl.h"

/* ---- which values a rule is found by ---------------------------------------------------------------------------- */

static bool is_guard_leaf(const struct node *n)
{
    switch ((enum rule_kind)n->kind) {
    case RULE_DST_CIDR:
    case RULE_SRC_CIDR:
        return true;
    case RULE_DOMAIN:
    case RULE_DOMAIN_SUFFIX:
    case RULE_PROCESS_NAME:
    case RULE_IN_NAME:
        return n->value.len <= NAME_BYTES_MAX;
    case RULE_DST_PORT:
    case RULE_SRC_PORT:
    case RULE_UID:
        return n->range.first == n->range.last;
    case RULE_NETWORK:
    case RULE_DOMAIN_KEYWORD:
    case RULE_DOMAIN_WILDCARD:
    case RULE_DOMAIN_LABELS:
    case RULE_DOMAIN_REGEX:
    case RULE_GEOIP:
    case RULE_IP_ASN:
    case RULE_PROCESS_PATH:
    case RULE_SET:
    case RULE_AND:
    case RULE_OR:
    case RULE_NOT:
        break;
    }
    return false;
}

static bool is_guard(const struct node *n)
{
    if (n->kind != RULE_OR)
        return is_guard_leaf(n);
    for (const struct node *m = n + 1; m < n + 1 + n->inside; m += 1 + m->inside)
        if (!is_guard_leaf(m))
            return false;
    return true;
}

/* The expression that must hold and can be looked up; a name or a range before a port, which many rules share. NULL: none. */
static const struct node *guard_of(const struct node *root)
{
    const struct node *best = NULL;

    if (root->kind != RULE_AND)
        return is_guard(root) ? root : NULL;
    for (const struct node *m = root + 1; m < root + 1 + root->inside; m += 1 + m->inside) {
        const struct node *leaf = m->kind == RULE_OR ? m + 1 : m;

        if (is_guard(m) && (best == NULL || (leaf->kind != RULE_DST_PORT && leaf->kind != RULE_SRC_PORT)))
            best = m;
    }
    return best;
}

static int order_add(struct order *o, uint32_t rule)
{
    if (o->count > 0 && o->list[o->count - 1] == rule)
        return 0;
    if (o->count == o->cap) {
        uint32_t cap = o->cap == 0 ? 16 : o->cap + o->cap / 2;
        uint32_t *list = realloc(o->list, cap * sizeof(*list));

        if (list == NULL)
            return -ENOMEM;
        o->list = list;
        o->cap = cap;
    }
    o->list[o->count++] = rule;
    return 0;
}

static int enter_value(struct rules_core *c, const struct node *n, uint32_t rule)
{
    enum rule_kind kind = (enum rule_kind)n->kind;

    if (kind == RULE_DST_CIDR)
        return prefixes_add(&c->dst, &n->prefix, rule);
    if (kind == RULE_SRC_CIDR)
        return prefixes_add(&c->src, &n->prefix, rule);
    if (kind == RULE_DST_PORT || kind == RULE_SRC_PORT || kind == RULE_UID)
        return guards_add(&c->guards, kind, &n->range.first, sizeof(n->range.first), rule);
    return guards_add(&c->guards, kind, n->value.text, n->value.len, rule);
}

static int enter_leaf(struct rules_core *c, const struct node *n, uint32_t rule)
{
    uint8_t needs = node_needs(n, NULL);
    int r = enter_value(c, n, rule);

    for (int i = 0; i < NEEDS_KINDS && r == 0; i++)
        if (needs & 1u << i)
            r = order_add(&c->waiting[i], rule);
    return r;
}

static int enter(struct rules_core *c, uint32_t rule)
{
    const struct node *guard = guard_of(&c->nodes.list[c->rule[rule].node]);
    int r = 0;

    if (guard == NULL)
        return order_add(&c->rest, rule);
    if (guard->kind != RULE_OR)
        return enter_leaf(c, guard, rule);
    for (const struct node *m = guard + 1; m < guard + 1 + guard->inside && r == 0; m += 1 + m->inside)
        r = enter_leaf(c, m, rule);
    return r;
}

/* ---- compiling ------------------------------------------------------------------------------------------------------ */

static void core_unref(struct rules_core *c)
{
    if (c == NULL || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    nodes_fini(&c->nodes);
    guards_fini(&c->guards);
    prefixes_fini(&c->dst);
    prefixes_fini(&c->src);
    free(c->rest.list);
    for (size_t i = 0; i < NEEDS_KINDS; i++)
        free(c->waiting[i].list);
    free(c->rule);
    free(c->names);
    free(c);
}

static int copy_names(struct rules_core *c, const struct rule *list)
{
    size_t len = 0, at = 0;

    for (uint32_t i = 0; i < c->n; i++)
        len += (list[i].name != NULL ? strlen(list[i].name) : 0) + 1;
    if (len > UINT32_MAX)
        return -EINVAL;
    c->names = malloc(len + 1);
    if (c->names == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < c->n; i++) {
        const char *name = list[i].name != NULL ? list[i].name : "";

        c->rule[i].name_at = (uint32_t)at;
        memcpy(c->names + at, name, strlen(name) + 1);
        at += strlen(name) + 1;
    }
    return 0;
}

static int compile(struct rules_core *c, const struct rule *list)
{
    int r = random_bytes(&c->guards.key, sizeof(c->guards.key));

    for (uint32_t i = 0; i < c->n && r == 0; i++) {
        c->rule[i].target = list[i].target;
        c->rule[i].echo = (uint8_t)list[i].echo;
        r = nodes_add(&c->nodes, list[i].conds, list[i].n_conds, list[i].no_resolve, &c->rule[i].node);
    }
    if (r == 0)
        nodes_settle(&c->nodes);
    for (uint32_t i = 0; i < c->n && r == 0; i++)
        r = enter(c, i);
    if (r == 0 && (r = guards_finish(&c->guards)) == 0 && (r = prefixes_finish(&c->dst, false)) == 0)
        r = prefixes_finish(&c->src, false);
    return r;
}

static int core_new(const struct rule *list, size_t n, uint32_t implicit_target, struct rules_core **out)
{
    struct rules_core *c;
    int r;

    if (n >= RULE_IMPLICIT)
        return -EINVAL;
    if ((c = calloc(1, sizeof(*c))) == NULL)
        return -ENOMEM;
    atomic_init(&c->refs, 1);
    c->implicit_target = implicit_target;
    c->n = (uint32_t)n;
    c->rule = calloc(n + 1, sizeof(*c->rule));
    r = c->rule == NULL ? -ENOMEM : copy_names(c, list);
    if (r != 0 || (r = compile(c, list)) != 0) {
        core_unref(c);
        return r;
    }
    *out = c;
    return 0;
}

static uint8_t needs_of(const struct rules *r)
{
    uint8_t needs = 0;

    for (uint32_t i = 0; i < r->core->n; i++)
        needs |= node_needs(&r->core->nodes.list[r->core->rule[i].node], r->sets);
    return needs;
}

/* Takes over the caller's reference of @core; the sets are @core's, with @fresh for @old. */
static int list_new(struct rules_core *core, struct rule_set *const *sets, uint32_t n_sets,
                    const struct rule_set *old, struct rule_set *fresh, struct rules **out)
{
    struct rules *r = malloc(sizeof(*r) + n_sets * sizeof(r->sets[0]));

    if (r == NULL) {
        core_unref(core);
        return -ENOMEM;
    }
    atomic_init(&r->refs, 1);
    r->core = core;
    r->n_sets = n_sets;
    for (uint32_t i = 0; i < n_sets; i++)
        r->sets[i] = rule_set_ref(sets[i] == old ? fresh : sets[i]);
    r->needs = needs_of(r);
    *out = r;
    return 0;
}

int rules_new(const struct rule *list, size_t n, uint32_t implicit_target, struct rules **out)
{
    struct rules_core *core;
    int r = core_new(list, n, implicit_target, &core);

    return r != 0 ? r : list_new(core, core->nodes.sets, core->nodes.n_sets, NULL, NULL, out);
}

int rules_with_set(const struct rules *r, const struct rule_set *old, struct rule_set *fresh,
                   struct rules **out)
{
    atomic_fetch_add_explicit(&r->core->refs, 1, memory_order_relaxed);
    return list_new(r->core, r->sets, r->n_sets, old, fresh, out);
}

/* ---- life, and what is told -------------------------------------------------------------------------------------------- */

struct rules *rules_ref(struct rules *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

void rules_unref(struct rules *r)
{
    if (r == NULL || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < r->n_sets; i++)
        rule_set_unref(r->sets[i]);
    core_unref(r->core);
    free(r);
}

size_t rules_count(const struct rules *r)
{
    return r->core->n;
}

const char *rules_name(const struct rules *r, uint32_t rule)
{
    return rule < r->core->n ? r->core->names + r->core->rule[rule].name_at : "(no rule)";
}

uint32_t rules_target(const struct rules *r, uint32_t rule)
{
    return rule < r->core->n ? r->core->rule[rule].target : r->core->implicit_target;
}

uint8_t rules_needs(const struct rules *r)
{
    return r->needs;
}

/* ---- what is held ------------------------------------------------------------------------------------------------------ */

/* A file has a few databases, and many rules name the same one. */
struct geos {
    const struct rule_geo *seen[8];
    size_t n;
    struct memory_use *add;
};

static void add_geo(struct geos *g, const struct rule_geo *geo)
{
    for (size_t i = 0; i < g->n; i++)
        if (g->seen[i] == geo)
            return;
    if (g->n < ARRAY_LEN(g->seen)) {
        g->seen[g->n++] = geo;
        g->add->bytes[MEMORY_GEODATA] += geo_bytes(geo);
    }
}

static void add_inside(struct geos *g, const struct nodes *n)
{
    for (uint32_t i = 0; i < n->count; i++) {
        const struct node *node = &n->list[i];

        if (node->kind == RULE_SET && node->set == RULE_SET_OWN)
            g->add->bytes[MEMORY_RULES] += rule_set_bytes(node->own_set);
        else if ((node->kind == RULE_GEOIP || node->kind == RULE_IP_ASN) && node->geo != NULL)
            add_geo(g, node->geo);
    }
}

void rules_memory(const struct rules *r, struct memory_use *add)
{
    const struct rules_core *c = r->core;
    struct geos geos = { .add = add };
    uint64_t sum = sizeof(*r) + sizeof(*c) + c->n * sizeof(*c->rule) + nodes_bytes(&c->nodes) +
                   c->guards.cap * sizeof(*c->guards.list) + c->guards.slots * sizeof(*c->guards.slot) +
                   ((size_t)c->dst.cap + c->src.cap) * sizeof(struct prefix_entry);

    if (c->n > 0)
        sum += c->rule[c->n - 1].name_at + strlen(rules_name(r, c->n - 1)) + 1;
    add_inside(&geos, &c->nodes);
    for (uint32_t i = 0; i < r->n_sets; i++) {
        sum += rule_set_bytes(r->sets[i]);
        add_inside(&geos, &r->sets[i]->nodes);
    }
    add->bytes[MEMORY_RULES] += sum;
}
