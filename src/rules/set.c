/* set.c - a set under construction, and what may be asked of a finished one.
 *
 * Entries of a `domain` list are names: "example.org" is that name, "+.example.org" it and all below, ".example.org" all below,
 * "*.example.org" what is one label below; a star elsewhere is one label. Entries of an `ipcidr` list are ranges. Those of a
 * `classical` list are rules without a target; names and ranges go to the same tables, and only what is left is asked one by one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rules_impl.h"

#define ENTRY_BYTES_MAX 1024

struct rule_set_builder {
    enum rule_behavior behavior;
    struct rule_set *set;
    uint32_t cap;          /* of set->expr */
    struct rule_text text; /* of the entry that is being read: large, so not on the stack */
};

int rule_set_build(enum rule_behavior behavior, struct rule_set_builder **out)
{
    struct rule_set_builder *b = calloc(1, sizeof(*b));

    if (b == NULL || (b->set = calloc(1, sizeof(*b->set))) == NULL) {
        free(b);
        return -ENOMEM;
    }
    atomic_init(&b->set->refs, 1);
    b->behavior = behavior;
    *out = b;
    return 0;
}

void rule_set_builder_free(struct rule_set_builder *b)
{
    if (b == NULL)
        return;
    rule_set_unref(b->set);
    free(b);
}

static int shown(size_t len)
{
    return len < 60 ? (int)len : 60;
}

/* ---- expressions ------------------------------------------------------------------------------------------------ */

static int add_expression(struct rule_set_builder *b, const struct rule_cond *conds, size_t n,
                          bool no_resolve)
{
    struct rule_set *s = b->set;
    int r;

    if (s->n_exprs == b->cap) {
        uint32_t cap = b->cap == 0 ? 16 : b->cap * 2;
        uint32_t *list = realloc(s->expr, cap * sizeof(*list));

        if (list == NULL)
            return -ENOMEM;
        s->expr = list;
        b->cap = cap;
    }
    r = nodes_add(&s->nodes, conds, n, no_resolve, &s->expr[s->n_exprs]);
    if (r == 0)
        s->n_exprs++;
    return r;
}

/* ---- names ------------------------------------------------------------------------------------------------------ */

static int bad_name(const char *text, size_t len, struct err *err)
{
    return err_set(err, -EINVAL,
                   "\"%.*s\" is no name; write example.org, +.example.org (with all below), .example.org or "
                   "*.example.org",
                   shown(len), text);
}

/* A star that is not the first label: compared label by label. */
static int add_pattern(struct rule_set_builder *b, const char *text, size_t len, struct err *err)
{
    struct rule_cond c = { .kind = RULE_DOMAIN_LABELS, .value = { text, (uint32_t)len } };
    char plain[NAME_BYTES_MAX + 1], name[256];
    size_t skip = text[0] == '+' ? 2 : text[0] == '.' ? 1 : 0;

    if (len > NAME_BYTES_MAX || len <= skip)
        return bad_name(text, len, err);
    for (size_t i = skip; i < len; i++) {
        bool alone = (i == skip || text[i - 1] == '.') && (i + 1 == len || text[i + 1] == '.');

        if (text[i] == '*' && !alone)
            return err_set(err, -EINVAL,
                           "\"%.*s\": a star stands for a whole label here; use DOMAIN-WILDCARD", shown(len),
                           text);
        plain[i - skip] = text[i] == '*' ? 'x' : text[i];
    }
    if (host_name_normalise(plain, len - skip, name) != 0)
        return bad_name(text, len, err);
    return add_expression(b, &c, 1, false);
}

static int add_name(struct rule_set_builder *b, const char *text, size_t len, struct err *err)
{
    uint8_t flags = NAME_SELF;
    const char *at = text;
    char name[256];

    if (len > 2 && (text[0] == '+' || text[0] == '*') && text[1] == '.') {
        flags = text[0] == '+' ? NAME_SELF | NAME_BELOW : NAME_CHILD;
        at += 2;
    } else if (len > 1 && text[0] == '.') {
        flags = NAME_BELOW;
        at++;
    }
    len -= (size_t)(at - text);
    if (memchr(at, '*', len) != NULL)
        return add_pattern(b, text, len + (size_t)(at - text), err);
    if (host_name_normalise(at, len, name) != 0)
        return bad_name(text, len + (size_t)(at - text), err);
    return names_add(&b->set->names, name, strlen(name), flags);
}

/* ---- ranges and rules ---------------------------------------------------------------------------------------------- */

static int add_range(struct rule_set_builder *b, const char *text, struct err *err)
{
    struct rule_cond c;
    size_t at, n;
    int r = rules_value_parse(RULE_DST_CIDR, text, &c, 1, &n, &at, err);

    return r != 0 ? r : prefixes_add(&b->set->dst, &c.prefix, 0);
}

static int add_rule(struct rule_set_builder *b, const char *text, struct err *err)
{
    struct rule_text *t = &b->text;
    char name[256];
    size_t at;
    int r = rules_parse_entry(text, t, &at, err);
    const struct rule_cond *c = t->conds;

    if (r != 0)
        return r == -ENOMEM ? r : -EINVAL;
    if (t->n_conds == 1 && c->kind == RULE_DST_CIDR)
        return prefixes_add(t->no_resolve ? &b->set->dst_no_resolve : &b->set->dst, &c->prefix, 0);
    if (t->n_conds == 1 && c->kind == RULE_SRC_CIDR)
        return prefixes_add(&b->set->src, &c->prefix, 0);
    if (t->n_conds == 1 && (c->kind == RULE_DOMAIN || c->kind == RULE_DOMAIN_SUFFIX) &&
        host_name_normalise(c->value.text, c->value.len, name) == 0)
        return names_add(&b->set->names, name, strlen(name),
                         c->kind == RULE_DOMAIN ? NAME_SELF : NAME_SELF | NAME_BELOW);
    for (size_t i = 0; i < t->n_conds; i++)
        if (c[i].kind == RULE_SET || c[i].kind == RULE_GEOIP || c[i].kind == RULE_IP_ASN)
            return err_set(err, -EINVAL, "%s cannot stand in a list; write it as a rule of its own",
                           kind_type(c[i].kind));
    return add_expression(b, t->conds, t->n_conds, t->no_resolve);
}

int rule_set_add(struct rule_set_builder *b, const char *text, size_t len, struct err *err)
{
    struct piece p = piece_trim(text, len);
    char copy[ENTRY_BYTES_MAX + 1];
    int r = -EINVAL;

    if (p.len == 0)
        return err_set(err, -EINVAL, "the entry is empty");
    if (p.len > ENTRY_BYTES_MAX)
        return err_set(err, -EINVAL, "an entry of %zu bytes; the most is %d", p.len, ENTRY_BYTES_MAX);
    if (memchr(p.text, '\0', p.len) != NULL)
        return err_set(err, -EINVAL, "the entry has a NUL byte inside");
    if (b->behavior == RULE_SET_DOMAIN)
        r = add_name(b, p.text, p.len, err);
    else {
        memcpy(copy, p.text, p.len);
        copy[p.len] = '\0';
        r = b->behavior == RULE_SET_IPCIDR ? add_range(b, copy, err) : add_rule(b, copy, err);
    }
    if (r == 0)
        b->set->entries++;
    return r;
}

static void settle_needs(struct rule_set *s)
{
    if (s->names.count > 0)
        s->needs |= RULE_NEEDS_NAME;
    if (s->dst.count > 0)
        s->needs |= RULE_NEEDS_ADDRESS;
    for (uint32_t i = 0; i < s->n_exprs; i++)
        s->needs |= node_needs(&s->nodes.list[s->expr[i]], NULL);
}

int rule_set_finish(struct rule_set_builder *b, struct rule_set **out)
{
    struct rule_set *s = b->set;
    int r = names_finish(&s->names);

    if (r == 0 && (r = prefixes_finish(&s->dst, true)) == 0 &&
        (r = prefixes_finish(&s->dst_no_resolve, true)) == 0)
        r = prefixes_finish(&s->src, true);
    if (r != 0) {
        rule_set_builder_free(b);
        return r;
    }
    nodes_settle(&s->nodes);
    settle_needs(s);
    free(b);
    *out = s;
    return 0;
}

/* ---- a finished set -------------------------------------------------------------------------------------------------- */

struct rule_set *rule_set_ref(struct rule_set *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void rule_set_unref(struct rule_set *s)
{
    if (s == NULL || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    names_fini(&s->names);
    prefixes_fini(&s->dst);
    prefixes_fini(&s->dst_no_resolve);
    prefixes_fini(&s->src);
    nodes_fini(&s->nodes);
    free(s->expr);
    free(s);
}

size_t rule_set_count(const struct rule_set *s)
{
    return s->entries;
}

size_t rule_set_bytes(const struct rule_set *s)
{
    size_t ranges = (size_t)s->dst.cap + s->dst_no_resolve.cap + s->src.cap;

    return sizeof(*s) + names_bytes(&s->names) + ranges * sizeof(struct prefix_entry) +
           nodes_bytes(&s->nodes) + s->n_exprs * sizeof(*s->expr);
}

bool rule_set_has_name(const struct rule_set *s, const char *name, uint64_t *visited)
{
    struct rule_flow flow = { .target.name = name,
                              .settled = RULE_NEEDS_ADDRESS | RULE_NEEDS_UID | RULE_NEEDS_PROCESS };
    struct ask a;

    ask_begin(&a, &flow, NULL, visited);
    return set_ask(s, &a, true) == RULE_YES;
}

bool rule_set_has_addr(const struct rule_set *s, const struct ip_addr *addr, uint64_t *visited)
{
    struct rule_flow flow = { .target.addr = *addr,
                              .settled = RULE_NEEDS_NAME | RULE_NEEDS_UID | RULE_NEEDS_PROCESS };
    struct ask a;

    ask_begin(&a, &flow, NULL, visited);
    return set_ask(s, &a, false) == RULE_YES;
}
