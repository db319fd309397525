/* nodes.c - conditions as the caller gives them become nodes as they are evaluated.
 *
 * A rule is a list of conditions where one kind is a group of alternatives. It becomes one expression: AND of the groups, each an OR
 * of its values; what has one member needs no AND or OR around it. A group of many names or ranges becomes a set of its own, so that
 * a rule of 50,000 values is asked as fast as one of five. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rules_impl.h"

static bool is_logic(enum rule_kind kind)
{
    return kind == RULE_AND || kind == RULE_OR || kind == RULE_NOT;
}

static bool value_is(const struct rule_cond *c, const char *word)
{
    return piece_is((struct piece){ c->value.text, c->value.len }, word);
}

/* A country needs a database; the two words for "not of the internet" do not. */
static bool geoip_is_valid(const struct rule_cond *c)
{
    return c->value.len > 0 && (c->geo != NULL || value_is(c, "lan") || value_is(c, "private") ||
                                value_is(c, "LAN") || value_is(c, "PRIVATE"));
}

static bool cond_is_valid(const struct rule_cond *c)
{
    switch (c->kind) {
    case RULE_DST_CIDR:
    case RULE_SRC_CIDR:
        return c->prefix.len <= 128;
    case RULE_DST_PORT:
    case RULE_SRC_PORT:
        return c->ports.first <= c->ports.last;
    case RULE_NETWORK:
        return c->networks != 0 && (c->networks & ~(RULE_TCP | RULE_UDP | RULE_ICMP)) == 0;
    case RULE_UID:
        return c->numbers.first <= c->numbers.last;
    case RULE_IP_ASN:
        return c->numbers.first <= c->numbers.last && c->geo != NULL;
    case RULE_GEOIP:
        return geoip_is_valid(c);
    case RULE_SET:
        return c->set != NULL;
    case RULE_DOMAIN:
    case RULE_DOMAIN_SUFFIX:
    case RULE_DOMAIN_KEYWORD:
    case RULE_DOMAIN_WILDCARD:
    case RULE_DOMAIN_LABELS:
    case RULE_DOMAIN_REGEX:
    case RULE_PROCESS_NAME:
    case RULE_PROCESS_PATH:
    case RULE_IN_NAME:
        return c->value.len > 0;
    case RULE_AND:
    case RULE_OR:
    case RULE_NOT:
        return c->inside > 0;
    }
    return false;
}

/* ---- storage -------------------------------------------------------------------------------------------------- */

static struct node *push(struct nodes *n)
{
    if (n->count == n->cap) {
        uint32_t cap = n->cap == 0 ? 16 : n->cap + n->cap / 2;
        struct node *list = cap > UINT32_MAX / sizeof(*list) ? NULL : realloc(n->list, cap * sizeof(*list));

        if (list == NULL)
            return NULL;
        n->list = list;
        n->cap = cap;
    }
    n->list[n->count] = (struct node){ .kind = 0 };
    return &n->list[n->count++];
}

/* Expressions and names of interfaces stay as written; all else is compared in lower case. */
static bool keeps_case(enum rule_kind kind)
{
    return kind == RULE_DOMAIN_REGEX || kind == RULE_IN_NAME;
}

/* Into the arena, which may still move: until nodes_settle() a text is an offset. */
static int store_text(struct nodes *n, const struct rule_cond *c, struct node *to)
{
    size_t cap = n->text_cap == 0 ? 256 : n->text_cap;
    char *text;

    while (cap < n->text_len + c->value.len)
        cap *= 2;
    if (cap != n->text_cap) {
        text = realloc(n->text, cap);
        if (text == NULL)
            return -ENOMEM;
        n->text = text;
        n->text_cap = cap;
    }
    for (uint32_t i = 0; i < c->value.len; i++) {
        char ch = c->value.text[i];

        n->text[n->text_len + i] =
            ch >= 'A' && ch <= 'Z' && !keeps_case(c->kind) ? (char)(ch - 'A' + 'a') : ch;
    }
    to->value.text = (const char *)(uintptr_t)n->text_len;
    to->value.len = c->value.len;
    n->text_len += c->value.len;
    return 0;
}

static int store_set(struct nodes *n, struct rule_set *set, uint32_t *out)
{
    struct rule_set **sets;

    for (*out = 0; *out < n->n_sets; ++*out)
        if (n->sets[*out] == set)
            return 0;
    sets = realloc(n->sets, (n->n_sets + 1) * sizeof(*sets));
    if (sets == NULL)
        return -ENOMEM;
    n->sets = sets;
    n->sets[n->n_sets++] = rule_set_ref(set);
    return 0;
}

/* ---- expressions ------------------------------------------------------------------------------------------------ */

static int leaf(struct nodes *n, const struct rule_cond *c, bool no_resolve)
{
    struct node *to;

    if (!cond_is_valid(c))
        return -EINVAL;
    if ((to = push(n)) == NULL)
        return -ENOMEM;
    to->kind = (uint8_t)c->kind;
    to->no_resolve = c->no_resolve || no_resolve;
    switch (c->kind) {
    case RULE_DST_CIDR:
    case RULE_SRC_CIDR:
        to->prefix = c->prefix;
        return 0;
    case RULE_DST_PORT:
    case RULE_SRC_PORT:
        to->range.first = c->ports.first;
        to->range.last = c->ports.last;
        return 0;
    case RULE_NETWORK:
        to->networks = c->networks;
        return 0;
    case RULE_IP_ASN:
        to->geo = rule_geo_ref(c->geo);
        to->range.first = c->numbers.first;
        to->range.last = c->numbers.last;
        return 0;
    case RULE_UID:
        to->range.first = c->numbers.first;
        to->range.last = c->numbers.last;
        return 0;
    case RULE_SET:
        return store_set(n, c->set, &to->set);
    case RULE_GEOIP:
        to->geo = c->geo == NULL ? NULL : rule_geo_ref(c->geo);
        return store_text(n, c, to);
    case RULE_DOMAIN_REGEX: {
        int r = regex_new(c->value.text, c->value.len, &to->regex, NULL);

        return r != 0 ? r : store_text(n, c, to);
    }
    case RULE_DOMAIN:
    case RULE_DOMAIN_SUFFIX:
    case RULE_DOMAIN_KEYWORD:
    case RULE_DOMAIN_WILDCARD:
    case RULE_DOMAIN_LABELS:
    case RULE_PROCESS_NAME:
    case RULE_PROCESS_PATH:
    case RULE_IN_NAME:
        return store_text(n, c, to);
    case RULE_AND:
    case RULE_OR:
    case RULE_NOT:
        break;
    }
    return -EINVAL;
}

static int open_logic(struct nodes *n, enum rule_kind kind, uint32_t *at)
{
    struct node *to = push(n);

    if (to == NULL)
        return -ENOMEM;
    to->kind = (uint8_t)kind;
    *at = n->count - 1;
    return 0;
}

static void close_logic(struct nodes *n, uint32_t at)
{
    n->list[at].inside = n->count - at - 1;
}

/* One condition with all that it holds; @left: conditions from here on, so that none claims more. */
static int item(struct nodes *n, const struct rule_cond *c, size_t left, bool no_resolve, unsigned depth)
{
    uint32_t at;
    size_t members = 0;
    int r;

    if (!is_logic(c->kind))
        return c->inside == 0 ? leaf(n, c, no_resolve) : -EINVAL;
    if (!cond_is_valid(c) || c->inside >= left || depth >= RULE_DEPTH_MAX)
        return -EINVAL;
    if ((r = open_logic(n, c->kind, &at)) != 0)
        return r;
    for (size_t i = 1; i <= c->inside; i += 1 + c[i].inside, members++)
        if ((r = item(n, c + i, 1 + c->inside - i, no_resolve, depth + 1)) != 0)
            return r;
    close_logic(n, at);
    return c->kind == RULE_NOT && members != 1 ? -EINVAL : 0;
}

static bool may_be_set(enum rule_kind kind)
{
    return kind == RULE_DST_CIDR || kind == RULE_SRC_CIDR || kind == RULE_DOMAIN ||
           kind == RULE_DOMAIN_SUFFIX;
}

static int add_to_set(struct rule_set *s, const struct rule_cond *c)
{
    char name[256];

    if (!cond_is_valid(c))
        return -EINVAL;
    s->entries++;
    if (c->kind == RULE_DST_CIDR)
        return prefixes_add(&s->dst, &c->prefix, 0);
    if (c->kind == RULE_SRC_CIDR)
        return prefixes_add(&s->src, &c->prefix, 0);
    if (host_name_normalise(c->value.text, c->value.len, name) != 0)
        return -EINVAL;
    return names_add(&s->names, name, strlen(name),
                     c->kind == RULE_DOMAIN ? NAME_SELF : NAME_SELF | NAME_BELOW);
}

/* All conditions of @kind as one set. */
static int set_of_group(struct nodes *n, enum rule_kind kind, const struct rule_cond *conds, size_t count,
                        bool no_resolve)
{
    struct rule_set *s = calloc(1, sizeof(*s));
    struct node *to = push(n);
    int r = 0;

    if (s == NULL || to == NULL) {
        free(s);
        return -ENOMEM;
    }
    atomic_init(&s->refs, 1);
    to->kind = RULE_SET;
    to->no_resolve = no_resolve;
    to->set = RULE_SET_OWN;
    to->own_set = s;
    s->needs = kind == RULE_DST_CIDR ? RULE_NEEDS_ADDRESS : kind == RULE_SRC_CIDR ? 0 : RULE_NEEDS_NAME;
    for (size_t i = 0; i < count && r == 0; i += 1 + conds[i].inside)
        if (conds[i].kind == kind)
            r = add_to_set(s, &conds[i]);
    if (r == 0 && (r = names_finish(&s->names)) == 0 && (r = prefixes_finish(&s->dst, true)) == 0)
        r = prefixes_finish(&s->src, true);
    return r;
}

/* The values of one kind: any of them. */
static int group(struct nodes *n, enum rule_kind kind, const struct rule_cond *conds, size_t count,
                 size_t members, bool no_resolve)
{
    uint32_t at = 0;
    int r = 0;

    if (members >= SET_WORTH_IT && may_be_set(kind))
        return set_of_group(n, kind, conds, count, no_resolve);
    if (members > 1)
        r = open_logic(n, RULE_OR, &at);
    for (size_t i = 0; i < count && r == 0; i += 1 + conds[i].inside)
        if (conds[i].kind == kind)
            r = item(n, &conds[i], count - i, no_resolve, 1);
    if (r == 0 && members > 1)
        close_logic(n, at);
    return r;
}

int nodes_add(struct nodes *n, const struct rule_cond *conds, size_t count, bool no_resolve, uint32_t *at)
{
    size_t members[RULE_KINDS] = { 0 };
    unsigned groups = 0;
    uint32_t whole = 0;
    int r = 0;

    *at = n->count;
    for (size_t i = 0; i < count; i += 1 + conds[i].inside) {
        if ((unsigned)conds[i].kind >= RULE_KINDS)
            return -EINVAL;
        groups += members[conds[i].kind]++ == 0;
    }
    if (groups != 1)
        r = open_logic(n, RULE_AND, &whole);
    for (int kind = 0; kind < RULE_KINDS && r == 0; kind++)
        if (members[kind] > 0)
            r = group(n, (enum rule_kind)kind, conds, count, members[kind], no_resolve);
    if (r == 0 && groups != 1)
        close_logic(n, whole);
    return r;
}

static bool has_text(const struct node *n)
{
    switch ((enum rule_kind)n->kind) {
    case RULE_DOMAIN:
    case RULE_DOMAIN_SUFFIX:
    case RULE_DOMAIN_KEYWORD:
    case RULE_DOMAIN_WILDCARD:
    case RULE_DOMAIN_LABELS:
    case RULE_DOMAIN_REGEX:
    case RULE_GEOIP:
    case RULE_PROCESS_NAME:
    case RULE_PROCESS_PATH:
    case RULE_IN_NAME:
        return true;
    case RULE_DST_CIDR:
    case RULE_SRC_CIDR:
    case RULE_DST_PORT:
    case RULE_SRC_PORT:
    case RULE_NETWORK:
    case RULE_IP_ASN:
    case RULE_UID:
    case RULE_SET:
    case RULE_AND:
    case RULE_OR:
    case RULE_NOT:
        break;
    }
    return false;
}

void nodes_settle(struct nodes *n)
{
    for (uint32_t i = 0; i < n->count; i++)
        if (has_text(&n->list[i]))
            n->list[i].value.text = n->text + (uintptr_t)n->list[i].value.text;
}

void nodes_fini(struct nodes *n)
{
    for (uint32_t i = 0; i < n->count; i++) {
        struct node *node = &n->list[i];

        if (node->kind == RULE_DOMAIN_REGEX)
            regex_free(node->regex);
        else if (node->kind == RULE_GEOIP || node->kind == RULE_IP_ASN)
            rule_geo_unref(node->geo);
        else if (node->kind == RULE_SET && node->set == RULE_SET_OWN)
            rule_set_unref(node->own_set);
    }
    for (uint32_t i = 0; i < n->n_sets; i++)
        rule_set_unref(n->sets[i]);
    free(n->list);
    free(n->text);
    free(n->sets);
    *n = (struct nodes){ .list = NULL };
}

size_t nodes_bytes(const struct nodes *n)
{
    return n->cap * sizeof(*n->list) + n->text_cap;
}
