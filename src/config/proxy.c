/* proxy.c - the ways out: `proxies` as maps and URLs, `proxy-groups`, the three that are always there, and the names of all.
 *
 * Names are gathered while the file is read and sorted once at the end, so that 100,000 rules find their targets fast. */
#include "config_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES_MAX  128
#define URL_STORAGE     1024
#define SUGGESTIONS_MAX 100 /* each one compares with every name */

static const char *const built_in[CONFIG_TARGET_FIRST_PROXY] = {
    [CONFIG_TARGET_DIRECT] = "DIRECT",
    [CONFIG_TARGET_REJECT] = "REJECT",
    [CONFIG_TARGET_REJECT_DROP] = "REJECT-DROP",
};

struct target {
    const char *name;
    const struct cfg_node *at; /* NULL: built in */
    int64_t index;             /* of config->upstreams */
    size_t order;              /* of equal names the first comes first */
};

struct cfg_targets {
    struct cfg_proxy **proxies;
    size_t count, cap;
    struct cfg_group **groups;
    size_t group_count, group_cap;
    struct target *names; /* sorted, from cfg_proxies_finish() on */
    size_t n_names;
    unsigned suggestions; /* made so far */
};

/* ---- gathering -------------------------------------------------------------------------------------------------- */

static struct cfg_targets *targets(struct cfg_read *r)
{
    if (r->targets == NULL)
        r->targets = cfg_scratch(r, sizeof(*r->targets));
    return r->targets;
}

/* Room for one more pointer in a list of scratch memory. Return: the list, perhaps a longer one; NULL: no memory */
static void *longer(struct cfg_read *r, void *list, size_t count, size_t *cap)
{
    void *out;

    if (count < *cap)
        return list;
    *cap = *cap == 0 ? 16 : *cap * 2;
    out = cfg_scratch(r, *cap * sizeof(void *));
    if (out != NULL && count > 0)
        memcpy(out, list, count * sizeof(void *));
    return out;
}

static struct cfg_proxy *proxy_add(struct cfg_read *r)
{
    struct cfg_targets *t = targets(r);
    struct cfg_proxy *p = cfg_scratch(r, sizeof(*p)), **list;

    if (t == NULL || p == NULL || (list = longer(r, t->proxies, t->count, &t->cap)) == NULL)
        return NULL;
    t->proxies = list;
    t->proxies[t->count++] = p;
    return p;
}

/* Rules name targets between commas, so a name has none. */
static bool name_valid(struct cfg_read *r, const char *name, const struct cfg_node *at)
{
    size_t len = strlen(name);

    if (len == 0 || len > NAME_BYTES_MAX)
        cfg_error(r, at, "a name of %zu bytes; 1 to %d would work", len, NAME_BYTES_MAX);
    else if (strchr(name, ',') != NULL)
        cfg_error(r, at, "a name with a comma cannot stand in a rule; leave the comma out");
    else
        return true;
    return false;
}

static void read_name(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_proxy *p = to;

    (void)k;
    if (!name_valid(r, v->text, v))
        return;
    p->options.name = cfg_keep_text(r, v->text, v->count);
    p->at = v;
}

struct cfg_proxy *cfg_proxy_url(struct cfg_read *r, const char *url, const struct cfg_node *at)
{
    struct cfg_proxy *p = proxy_add(r);
    char *storage = cfg_keep(r, URL_STORAGE);
    struct err err;

    if (p == NULL || storage == NULL)
        return NULL;
    p->at = at;
    if (upstream_parse_url(url, storage, &p->options, &err) != 0) {
        cfg_error(r, at, "%s", err.text);
        p->options.name = NULL;
        return NULL;
    }
    if (!name_valid(r, p->options.name, at))
        return NULL;
    cfg_tls_finish(r, p, at);
    return p;
}

static bool is_socks4(const struct cfg_proxy *p)
{
    return p->options.kind == UPSTREAM_SOCKS4 || p->options.kind == UPSTREAM_SOCKS4A;
}

static void check_login(struct cfg_read *r, const struct cfg_proxy *p, const struct cfg_node *v)
{
    const struct cfg_node *password = cfg_map_get(v, "password");

    if (p->options.token != NULL && p->options.kind != UPSTREAM_MASQUE)
        cfg_error(r, cfg_map_get(v, "token"),
                  "only type masque has a token; username and password would work");
    else if (p->options.token != NULL && (p->options.username != NULL || password != NULL))
        cfg_error(r, cfg_map_get(v, "token"),
                  "a token stands for username and password; keep one of the two");
    else if (is_socks4(p) && password != NULL)
        cfg_error(r, password, "SOCKS4 has no password; leave it out, or use type socks5");
    else if (is_socks4(p))
        return;
    else if (p->options.username != NULL && password == NULL)
        cfg_error(r, v, "has a username and no password; a login is both (RFC 1929)");
    else if (p->options.password != NULL && cfg_map_get(v, "username") == NULL)
        cfg_error(r, v, "has a password and no username; a login is both (RFC 1929)");
    else if ((p->options.kind == UPSTREAM_HTTP || p->options.kind == UPSTREAM_MASQUE) &&
             p->options.username != NULL && strchr(p->options.username, ':') != NULL)
        cfg_error(r, cfg_map_get(v, "username"), "holds a colon, which ends a user name in HTTP (RFC 7617)");
}

static void read_proxy(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_proxy *p;

    (void)to;
    if (v->kind == CFG_SCALAR) {
        p = cfg_proxy_url(r, v->text, v);
        if (p != NULL && p->options.password != NULL && r->secret_inside == NULL)
            r->secret_inside = v;
        return;
    }
    p = proxy_add(r);
    if (p == NULL)
        return;
    cfg_read_section(r, k->section, v, p);
    check_login(r, p, v);
    cfg_tls_finish(r, p, v);
}

static void read_group(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_targets *t = targets(r);
    struct cfg_group *g = cfg_keep(r, sizeof(*g)), **list; /* its options outlive the load */

    (void)to;
    if (t == NULL || g == NULL || (list = longer(r, t->groups, t->group_count, &t->group_cap)) == NULL)
        return;
    t->groups = list;
    t->groups[t->group_count++] = g;
    cfg_read_section(r, k->section, v, g);
}

static void read_group_name(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_group *g = to;

    (void)k;
    if (!name_valid(r, v->text, v))
        return;
    g->name = cfg_keep_text(r, v->text, v->count);
    g->at = v;
}

/* ---- names ---------------------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const struct target *x = a, *y = b;
    int order = strcmp(x->name, y->name);

    return order != 0 ? order : x->order < y->order ? -1 : 1;
}

static void name_add(struct cfg_targets *t, const char *name, const struct cfg_node *at, int64_t index)
{
    t->names[t->n_names] = (struct target){ name, at, index, t->n_names };
    t->n_names++;
}

static void duplicate(struct cfg_read *r, const struct target *first, const struct target *second)
{
    char quoted[CFG_QUOTED_MAX];

    cfg_quote(second->name, quoted);
    if (first->at == NULL)
        cfg_error(r, second->at, "the name %s is built in; choose another one", quoted);
    else
        cfg_error(r, second->at, "the name %s is there twice; the first is on line %u, column %u", quoted,
                  (unsigned)first->at->line, (unsigned)first->at->column);
}

static void check_names(struct cfg_read *r, const struct cfg_targets *t)
{
    for (size_t i = 1, first = 0; i < t->n_names; i++) {
        size_t before, at;

        if (strcmp(t->names[first].name, t->names[i].name) != 0) {
            first = i;
            continue;
        }
        at = (size_t)t->names[i].index -
             CONFIG_TARGET_FIRST_PROXY; /* a built-in name comes first among its equals */
        before = cfg_enter_key(r, at >= t->count ? "proxy-groups" : "proxies");
        cfg_enter_index(r, at >= t->count ? at - t->count : at);
        duplicate(r, &t->names[first], &t->names[i]);
        cfg_leave(r, before);
    }
}

void cfg_proxies_finish(struct cfg_read *r)
{
    struct cfg_targets *t = targets(r);
    size_t count = t == NULL ? 0 : CONFIG_TARGET_FIRST_PROXY + t->count + t->group_count, at, errors;
    struct upstream_options *ups = cfg_keep(r, count * sizeof(*ups));

    if (t == NULL || ups == NULL)
        return;
    t->names = cfg_scratch(r, count * sizeof(*t->names));
    if (t->names == NULL)
        return;
    for (size_t i = 0; i < CONFIG_TARGET_FIRST_PROXY; i++) {
        ups[i] = (struct upstream_options){ .name = built_in[i], .kind = (enum upstream_kind)i };
        name_add(t, built_in[i], NULL, (int64_t)i);
    }
    for (size_t i = 0; i < t->count; i++) {
        ups[CONFIG_TARGET_FIRST_PROXY + i] = t->proxies[i]->options;
        if (t->proxies[i]->options.name != NULL)
            name_add(t, t->proxies[i]->options.name, t->proxies[i]->at,
                     CONFIG_TARGET_FIRST_PROXY + (int64_t)i);
    }
    for (size_t i = 0; i < t->group_count; i++) {
        at = CONFIG_TARGET_FIRST_PROXY + t->count + i;
        ups[at] = (struct upstream_options){ .name = t->groups[i]->name,
                                             .kind = UPSTREAM_GROUP,
                                             .group = &t->groups[i]->options };
        if (t->groups[i]->name != NULL)
            name_add(t, t->groups[i]->name, t->groups[i]->at, (int64_t)at);
    }
    qsort(t->names, t->n_names, sizeof(*t->names), by_name);
    errors = r->messages->errors;
    check_names(r, t);
    r->config->upstreams = ups;
    r->config->upstream_count = count;
    cfg_groups_finish(r, ups, errors);
}

struct cfg_group *cfg_group_at(const struct cfg_read *r, size_t i)
{
    return r->targets != NULL && i < r->targets->group_count ? r->targets->groups[i] : NULL;
}

const struct cfg_group *cfg_group_of(const struct cfg_read *r, size_t target)
{
    size_t first = CONFIG_TARGET_FIRST_PROXY + (r->targets != NULL ? r->targets->count : 0);

    return target >= first ? cfg_group_at(r, target - first) : NULL;
}

const struct cfg_proxy *cfg_proxy_at(const struct cfg_read *r, size_t i)
{
    return r->targets != NULL && i < r->targets->count ? r->targets->proxies[i] : NULL;
}

static int name_against(const void *name, const void *target)
{
    return strcmp(name, ((const struct target *)target)->name);
}

int64_t cfg_target_find(const struct cfg_read *r, const char *name)
{
    const struct target *found = r->targets == NULL ? NULL
                                                    : bsearch(name, r->targets->names, r->targets->n_names,
                                                              sizeof(struct target), name_against);

    return found == NULL ? CFG_TARGET_UNKNOWN : found->index;
}

const char *cfg_target_nearest(const struct cfg_read *r, const char *name)
{
    struct cfg_targets *t = r->targets;
    unsigned best = cfg_slips_allowed(name);
    const char *nearest = NULL;

    if (t == NULL || t->suggestions++ >= SUGGESTIONS_MAX)
        return NULL;
    for (size_t i = 0; i < t->n_names; i++) {
        unsigned d = cfg_word_distance(name, t->names[i].name, best);

        if (d <= best && (nearest == NULL || d < best)) {
            nearest = t->names[i].name;
            best = d;
        }
    }
    return nearest;
}

const struct cfg_type cfg_proxy_list = { .name = "list of maps and URLs",
                                         .expects = "a map, or a URL such as socks5://192.0.2.10:1080",
                                         .kind = CFG_MAP,
                                         .list = true,
                                         .mixed = true,
                                         .read = read_proxy };
const struct cfg_type cfg_proxy_name = {
    .name = "text", .expects = "a name", .kind = CFG_SCALAR, .read = read_name
};
const struct cfg_type cfg_group_name = {
    .name = "text", .expects = "a name", .kind = CFG_SCALAR, .read = read_group_name
};
const struct cfg_type cfg_group_list = {
    .name = "list of maps", .expects = "a list of maps", .kind = CFG_MAP, .list = true, .read = read_group
};
