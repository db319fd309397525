/* ruleset.c - `rules` become the list that src/rules compiles: classic strings and maps, one after the other.
 *
 * The items are kept as nodes until all names are known, since a rule may name a proxy that stands below it. What a
 * condition may say is the business of src/rules; where it stands in the file is ours. */
#include "config_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TARGET_BYTES_MAX 256
#define VALUE_CONDS_MAX  RULE_CONDS_MAX
#define RULE_NAME_BYTES  32 /* "rules[N]" */

/* ---- keys of the map form ---------------------------------------------------------------------------------------- */

static void read_item(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    (void)k;
    (void)to;
    cfg_nodes_push(r, &r->rules, v);
}

static void conds_add(struct cfg_read *r, struct cfg_rule *rule, const struct rule_cond *conds, size_t n)
{
    if (rule->n_conds + n > rule->cap) {
        size_t cap = rule->cap == 0 ? 8 : rule->cap;
        struct rule_cond *list;

        while (cap < rule->n_conds + n)
            cap *= 2;
        list = cfg_scratch(r, cap * sizeof(*list));
        if (list == NULL)
            return;
        if (rule->n_conds > 0)
            memcpy(list, rule->conds, rule->n_conds * sizeof(*list));
        rule->conds = list;
        rule->cap = cap;
    }
    memcpy(rule->conds + rule->n_conds, conds, n * sizeof(*conds));
    rule->n_conds += n;
}

/* What only the configuration knows: the list that is named, the database. */
static bool attach(struct cfg_read *r, const struct cfg_node *v, struct rule_cond *conds, size_t n)
{
    bool good = true;

    for (size_t i = 0; i < n; i++) {
        struct rule_cond *c = &conds[i];

        if (c->kind == RULE_SET) {
            c->set = cfg_provider_set(r, c->value.text, c->value.len, v, (size_t)(c->value.text - v->text));
            good = good && c->set != NULL;
        } else if (c->kind == RULE_IP_ASN || (c->kind == RULE_GEOIP && c->value.len == 2)) {
            c->geo = cfg_geodata(r, c->kind == RULE_IP_ASN ? RULE_GEO_ASN : RULE_GEO_COUNTRY, v);
            good = good && c->geo != NULL;
        }
    }
    return good;
}

/* dst-cidr, network and the others: src/rules knows the kind by the key's name. */
static void read_values(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct rule_cond conds[VALUE_CONDS_MAX];
    enum rule_kind kind = RULE_DST_CIDR;
    struct err err = { "" };
    size_t n = 0, at = 0;

    if (rules_key_parse(k->name, &kind) != 0)
        cfg_error(r, v, "is no key of a rule");
    else if (rules_value_parse(kind, v->text, conds, ARRAY_LEN(conds), &n, &at, &err) != 0)
        cfg_error_at(r, v, at, "%s", err.text);
    else if (attach(r, v, conds, n))
        conds_add(r, to, conds, n);
}

static void read_no_resolve(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_rule *rule = to;

    (void)k;
    if (strcmp(v->text, "true") != 0 && strcmp(v->text, "false") != 0)
        cfg_error(r, v, "is neither true nor false; write one of these");
    rule->no_resolve = strcmp(v->text, "true") == 0;
}

/* `via` and `name`. */
static void read_text(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_rule *rule = to;

    memcpy((char *)to + k->offset, &v->text, sizeof(v->text));
    if (k->offset == offsetof(struct cfg_rule, via))
        rule->via_at = v;
    if (v->count == 0 || v->count >= TARGET_BYTES_MAX)
        cfg_error(r, v, "has %u bytes; 1 to %d would work", (unsigned)v->count, TARGET_BYTES_MAX - 1);
}

/* ---- one rule ------------------------------------------------------------------------------------------------------- */

/* An index of a target; false: reported. */
static bool resolve(struct cfg_read *r, const char *name, const struct cfg_node *at, size_t offset,
                    uint32_t *out)
{
    int64_t index = cfg_target_find(r, name);
    const char *nearest;
    char quoted[CFG_QUOTED_MAX];

    if (index >= 0) {
        *out = (uint32_t)index;
        return true;
    }
    nearest = cfg_target_nearest(r, name);
    cfg_quote(name, quoted);
    if (nearest != NULL)
        cfg_error_at(r, at, offset, "no proxy is called %s; did you mean \"%s\"?", quoted, nearest);
    else
        cfg_error_at(r, at, offset,
                     "no proxy is called %s; a name from proxies, DIRECT, REJECT or REJECT-DROP would work",
                     quoted);
    return false;
}

static bool compile_text(struct cfg_read *r, const struct cfg_node *v, struct rule *out)
{
    struct rule_text text = { .n_conds = 0 };
    char target[TARGET_BYTES_MAX];
    struct rule_cond *conds;
    struct err err = { "" };
    size_t at = 0;

    if (rules_parse(v->text, &text, &at, &err) != 0) {
        bool cut = v->brackets && strchr(v->text, ',') == NULL;

        cfg_error_at(r, v, at, "%s%s", err.text, cut ? "; between [ and ], a rule stands in quotes" : "");
        return false;
    }
    at = (size_t)(text.target - v->text);
    if (text.target_len >= sizeof(target)) {
        cfg_error_at(r, v, at, "a target of %zu bytes; a name has at most %d", text.target_len,
                     TARGET_BYTES_MAX - 1);
        return false;
    }
    memcpy(target, text.target, text.target_len);
    target[text.target_len] = '\0';
    if (!resolve(r, target, v, at, &out->target) || !attach(r, v, text.conds, text.n_conds) ||
        (conds = cfg_scratch(r, text.n_conds * sizeof(*conds))) == NULL)
        return false;
    memcpy(conds, text.conds, text.n_conds * sizeof(*conds));
    out->conds = conds;
    out->n_conds = text.n_conds;
    out->no_resolve = text.no_resolve;
    out->name = v->text;
    return true;
}

static bool compile_map(struct cfg_read *r, const struct cfg_node *v, size_t index, struct rule *out)
{
    struct cfg_rule rule = { .echo = RULE_ECHO_UNSET };
    char *name = cfg_scratch(r, RULE_NAME_BYTES);
    size_t errors = r->messages->errors;

    if (name == NULL)
        return false;
    cfg_read_section(r, &cfg_rule_section, v, &rule);
    if (r->messages->errors != errors || rule.via == NULL)
        return false;
    snprintf(name, RULE_NAME_BYTES, "rules[%zu]", index);
    *out = (struct rule){ .conds = rule.conds,
                          .n_conds = rule.n_conds,
                          .name = rule.name != NULL ? rule.name : name,
                          .no_resolve = rule.no_resolve,
                          .echo = (enum rule_echo)rule.echo };
    if (!resolve(r, rule.via, rule.via_at, 0, &out->target))
        return false;
    if (rule.echo != RULE_ECHO_PROXY || out->target == CONFIG_TARGET_DIRECT)
        return true;
    cfg_error(r, rule.via_at,
              "echo: proxy shows the target this host, so it goes with via: DIRECT only; auto would work");
    return false;
}

/* ---- the list --------------------------------------------------------------------------------------------------------- */

static bool compile(struct cfg_read *r, const struct cfg_node *v, size_t index, struct rule *out)
{
    bool good;
    size_t before = cfg_enter_index(r, index);

    good = v->kind == CFG_SCALAR ? compile_text(r, v, out) : compile_map(r, v, index, out);
    cfg_leave(r, before);
    return good;
}

/* A rule without conditions takes everything: those below it wait in vain. */
static void check_reach(struct cfg_read *r, const struct rule *list, size_t n, bool wanted)
{
    struct cfg_node nowhere = { .line = 0 };
    size_t all = 0;

    while (all < n && list[all].n_conds > 0)
        all++;
    if (r->messages->errors > 0)
        return; /* first things first */
    if (all == n && wanted)
        cfg_warning(r, n > 0 ? r->rules.list[n - 1] : &nowhere,
                    "no MATCH at the end; what no rule takes is rejected, as by MATCH,REJECT");
    else if (all + 1 < n) {
        size_t before = cfg_enter_index(r, all + 1);

        cfg_warning(r, r->rules.list[all + 1], "is never reached, since rules[%zu] takes everything", all);
        cfg_leave(r, before);
    }
}

/* May a ping go out from this host: then the gateway opens its echo proxy, and says so when it cannot. */
static bool wants_echo_proxy(const struct rule *list, size_t n, enum echo_mode usual)
{
    for (size_t i = 0; i < n; i++) {
        if (list[i].target != CONFIG_TARGET_DIRECT)
            continue;
        if (list[i].echo == RULE_ECHO_AUTO || list[i].echo == RULE_ECHO_PROXY)
            return true;
        if (list[i].echo == RULE_ECHO_UNSET && (usual == ECHO_MODE_AUTO || usual == ECHO_MODE_PROXY))
            return true;
    }
    return false;
}

void cfg_rules_finish(struct cfg_read *r, bool wanted)
{
    size_t n = r->rules.count, good = 0, before = cfg_enter_key(r, "rules");
    struct rule *list = cfg_scratch(r, n * sizeof(*list));
    int e;

    for (size_t i = 0; list != NULL && i < n; i++)
        good += compile(r, r->rules.list[i], i, &list[i]);
    if (list != NULL && good == n) {
        check_reach(r, list, n, wanted);
        r->config->forward.echo_direct = wants_echo_proxy(list, n, r->config->forward.echo);
        e = rules_new(list, n, CONFIG_TARGET_REJECT, &r->config->rules);
        if (e == -ENOMEM)
            r->no_memory = true;
        else if (e != 0)
            cfg_error(r, r->rules.list[0], "the rules contradict themselves");
    }
    cfg_leave(r, before);
}

const struct cfg_type cfg_rule_list = {
    .name = "list of rules",
    .expects = "a rule such as MATCH,DIRECT",
    .kind = CFG_MAP,
    .list = true,
    .mixed = true,
    .read = read_item,
};
const struct cfg_type cfg_rule_values = {
    .name = "list of values", .expects = "a value", .kind = CFG_SCALAR, .list = true, .read = read_values
};
const struct cfg_type cfg_rule_no_resolve = {
    .name = "`true`, `false`", .expects = "true or false", .kind = CFG_SCALAR, .read = read_no_resolve
};
const struct cfg_type cfg_rule_text = { .name = "text",
                                        .expects = "the name of a proxy, DIRECT, REJECT or REJECT-DROP",
                                        .kind = CFG_SCALAR,
                                        .read = read_text };
