/* provider.c - `rule-providers` and `geodata`: lists and databases that rules name, read when the file is.
 *
 * A provider's list is its own file, its payload, or the copy on disk of what was fetched; bad entries are an error only where they
 * stand in the configuration itself. A list that was never fetched is empty until it is. Databases are opened when a rule wants them. */
#include "config_impl.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROVIDER_BYTES_MAX ((size_t)256 << 20)
#define LIST_BYTES_DEFAULT ((uint64_t)32 << 20) /* schema_rules.c says so */

struct cfg_providers {
    struct cfg_provider **list;
    size_t count, cap;
    const char *geo_path[2]; /* by enum rule_geo_kind; NULL: not in the file */
    const struct cfg_node *geo_at[2];
    bool geo_failed[2];
};

static struct cfg_providers *providers(struct cfg_read *r)
{
    if (r->providers == NULL)
        r->providers = cfg_scratch(r, sizeof(*r->providers));
    return r->providers;
}

/* ---- gathering -------------------------------------------------------------------------------------------------- */

static struct cfg_provider *provider_add(struct cfg_read *r)
{
    struct cfg_providers *all = providers(r);
    struct cfg_provider *p = cfg_scratch(r, sizeof(*p));

    if (all == NULL || p == NULL)
        return NULL;
    if (all->count == all->cap) {
        size_t cap = all->cap == 0 ? 16 : all->cap * 2;
        struct cfg_provider **list = cfg_scratch(r, cap * sizeof(struct cfg_provider *));

        if (list == NULL)
            return NULL;
        if (all->count > 0)
            memcpy(list, all->list, all->count * sizeof(struct cfg_provider *));
        all->list = list;
        all->cap = cap;
    }
    all->list[all->count++] = p;
    return p;
}

static void read_providers(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    (void)to;
    for (uint32_t i = 0; i < v->count; i++) {
        const struct cfg_pair *pair = &v->pairs[i];
        size_t before = cfg_enter_key(r, pair->key->text);
        struct cfg_provider *p = NULL;

        if (strchr(pair->key->text, ',') != NULL || strchr(pair->key->text, '/') != NULL)
            cfg_error(r, pair->key, "a name with a comma or a slash cannot stand in a rule; leave it out");
        else
            p = provider_add(r);
        if (p != NULL) {
            p->name = pair->key->text;
            p->at = pair->key;
            cfg_read_section(r, k->section, pair->value, p);
        }
        cfg_leave(r, before);
    }
}

static void read_payload(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_provider *p = to;

    (void)k;
    cfg_nodes_push(r, &p->payload, v);
}

static void read_scalar(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    (void)r;
    memcpy((char *)to + k->offset, &v, sizeof(v));
}

/* Relative to the folder of the configuration. */
static const char *path_of(struct cfg_read *r, const char *path)
{
    size_t folder = strlen(r->folder), len = strlen(path);
    char *whole;

    if (path[0] == '/' || folder == 0)
        return path;
    whole = cfg_scratch(r, folder + len + 1);
    if (whole == NULL)
        return path;
    memcpy(whole, r->folder, folder);
    memcpy(whole + folder, path, len + 1);
    return whole;
}

static void read_geo_path(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_providers *all = providers(r);
    bool asn = strcmp(k->name, "asn") == 0;

    (void)to;
    if (all == NULL)
        return;
    all->geo_path[asn] = v->text;
    all->geo_at[asn] = v;
    cfg_note_file(r, path_of(r, v->text), false); /* rules of a later file may want it */
}

/* ---- databases ---------------------------------------------------------------------------------------------------- */

struct rule_geo *cfg_geodata(struct cfg_read *r, enum rule_geo_kind kind, const struct cfg_node *at)
{
    struct cfg_providers *all = providers(r);
    const char *key = kind == RULE_GEO_ASN ? "asn" : "country";
    struct rule_geo **geo = &r->config->geo[kind];
    struct err err = { "" };
    char saved[CFG_PATH_MAX];
    int e;

    if (all == NULL || *geo != NULL || all->geo_failed[kind])
        return *geo;
    if (all->geo_path[kind] == NULL)
        cfg_error(r, at, "needs a database; name its file in geodata.%s", key);
    else if ((e = rule_geo_open(path_of(r, all->geo_path[kind]), kind, geo, &err)) != 0) {
        cfg_note_refused(r->messages, e, path_of(r, all->geo_path[kind]));
        memcpy(saved, r->path, sizeof(saved));
        cfg_leave(r, 0);
        cfg_enter_key(r, "geodata");
        cfg_enter_key(r, key);
        cfg_error(r, all->geo_at[kind], "%s", err.text);
        memcpy(r->path, saved, sizeof(saved));
        r->path_len = strlen(saved);
    }
    all->geo_failed[kind] = *geo == NULL;
    return *geo;
}

/* ---- lists ---------------------------------------------------------------------------------------------------------- */

/* A list of YAML says so in its first line that is no remark. */
static enum rule_format format_of(const struct cfg_provider *p, const char *data, size_t len)
{
    const char *at = data, *end = data + len;

    if (p->format != CFG_FORMAT_AUTO)
        return (enum rule_format)p->format;
    while (at < end && (*at == '#' || *at == '\n' || *at == '\r' || *at == '-')) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));

        at = newline == NULL ? end : newline + 1;
    }
    return end - at >= 8 && strncmp(at, "payload:", 8) == 0 ? RULE_LIST_YAML : RULE_LIST_TEXT;
}

static void say_bad_lines(struct cfg_read *r, const struct cfg_provider *p,
                          const struct rule_list_report *report)
{
    for (uint32_t i = 0; i < report->bad && i < RULE_BAD_LINES_KEPT; i++)
        cfg_warning(r, p->at, "line %u of its list is skipped: %s", report->first_bad[i].line,
                    report->first_bad[i].why.text);
    if (report->bad > RULE_BAD_LINES_KEPT)
        cfg_warning(r, p->at, "%u of the %u lines of its list are skipped", report->bad, report->lines);
}

int config_provider_parse(const struct config_provider *p, const char *data, size_t len,
                          struct rule_set **out, struct rule_list_report *report)
{
    struct cfg_provider as = { .format = p->format };

    return rule_set_parse(p->behavior, format_of(&as, data, len), data, len, out, report);
}

static struct rule_set *load_file(struct cfg_read *r, struct cfg_provider *p, const char *path, bool may_lack)
{
    struct rule_list_report report;
    struct rule_set *set = NULL;
    struct err err = { "" };
    unsigned mode;
    size_t len;
    char *data;
    int e = cfg_read_named(r, path, PROVIDER_BYTES_MAX, &data, &len, &mode, &err);

    if (e == -ENOENT && may_lack)
        return NULL;
    if (e != 0) {
        cfg_error(r, p->path != NULL ? p->path : p->at, "%.120s %s", path, err.text);
        return NULL;
    }
    e = rule_set_parse((enum rule_behavior)p->behavior, format_of(p, data, len), data, len, &set, &report);
    free(data);
    if (e != 0)
        r->no_memory = true;
    else
        say_bad_lines(r, p, &report);
    return set;
}

static struct rule_set *load_payload(struct cfg_read *r, struct cfg_provider *p)
{
    struct rule_set_builder *b = NULL;
    struct rule_set *set = NULL;
    struct err err;
    int e = rule_set_build((enum rule_behavior)p->behavior, &b);

    for (size_t i = 0; e == 0 && i < p->payload.count; i++) {
        const struct cfg_node *v = p->payload.list[i];

        err.text[0] = '\0';
        e = rule_set_add(b, v->text, v->count, &err);
        if (e == -EINVAL || e == -ENOTSUP) {
            cfg_error(r, v, "%s", err.text);
            e = 0;
        }
    }
    if (e != 0 || rule_set_finish(b, &set) != 0)
        r->no_memory = true;
    return set;
}

static const char *need(struct cfg_read *r, const struct cfg_provider *p, const struct cfg_node *v,
                        const char *key, const char *type)
{
    if (v == NULL)
        cfg_error(r, p->at, "a provider of type %s needs the key \"%s\"", type, key);
    return v == NULL ? NULL : v->text;
}

/* Where what was fetched is kept. */
static const char *copy_path(struct cfg_read *r, const struct cfg_provider *p)
{
    size_t size;
    char *path;

    if (p->path != NULL)
        return path_of(r, p->path->text);
    size = strlen(r->config->state_dir) + sizeof("/providers/") + strlen(p->name);
    path = cfg_scratch(r, size);
    if (path == NULL)
        return "";
    snprintf(path, size, "%s/providers/%s", r->config->state_dir, p->name);
    return path;
}

static struct rule_set *load(struct cfg_read *r, struct cfg_provider *p)
{
    switch (p->type) {
    case CONFIG_PROVIDER_FILE:
        if (need(r, p, p->path, "path", "file") != NULL)
            return load_file(r, p, path_of(r, p->path->text), false);
        break;
    case CONFIG_PROVIDER_INLINE:
        if (p->payload.count == 0)
            cfg_error(r, p->at, "a provider of type inline needs the key \"payload\"");
        return load_payload(r, p);
    case CONFIG_PROVIDER_HTTP:
        if (need(r, p, p->url, "url", "http") != NULL)
            return load_file(r, p, copy_path(r, p), true);
        break;
    }
    return NULL;
}

static void finish_url(struct cfg_read *r, struct cfg_provider *p, struct config_provider *out)
{
    struct up_http_url url;
    char quoted[CFG_QUOTED_MAX];

    if (up_http_url_parse(p->url->text, &url) != 0)
        cfg_error(r, p->url, "%s is no address of a list; http://... or https://... would work",
                  cfg_quote(p->url->text, quoted));
    else if (url.secure && r->messages->errors == 0) {
        p->tls.options.resume = true;
        out->tls = cfg_tls_client(r, &p->tls.options, p->url);
    }
    out->url = cfg_keep_text(r, p->url->text, p->url->count);
}

/* The way out for fetching; mihomo's rule of thumb: directly, unless told. */
static uint32_t exit_of(struct cfg_read *r, const struct cfg_provider *p)
{
    int64_t found;
    char quoted[CFG_QUOTED_MAX];

    if (p->proxy == NULL)
        return CONFIG_TARGET_DIRECT;
    found = cfg_target_find(r, p->proxy->text);
    if (found == CFG_TARGET_UNKNOWN)
        cfg_error(r, p->proxy, "no proxy is called %s; a name from proxies or DIRECT would work",
                  cfg_quote(p->proxy->text, quoted));
    return found < 0 ? CONFIG_TARGET_DIRECT : (uint32_t)found;
}

static struct rule_set *empty_set(struct cfg_read *r, const struct cfg_provider *p)
{
    struct rule_set_builder *b;
    struct rule_set *set = NULL;

    if (rule_set_build((enum rule_behavior)p->behavior, &b) != 0 || rule_set_finish(b, &set) != 0)
        r->no_memory = true;
    return set;
}

static void finish_one(struct cfg_read *r, struct cfg_provider *p, struct config_provider *out)
{
    struct rule_set *set = load(r, p);

    out->fetched = set != NULL;
    if (set == NULL)
        set = empty_set(r, p); /* so that rules which name it are no mistakes of their own */
    if (set == NULL)
        return;
    p->set = set;
    out->name = cfg_keep_text(r, p->name, strlen(p->name));
    out->type = (enum config_provider_type)p->type;
    out->behavior = (enum rule_behavior)p->behavior;
    out->format = p->format;
    out->set = set;
    out->interval_ms = p->interval_ms;
    if (p->type != CONFIG_PROVIDER_HTTP || p->url == NULL)
        return;
    finish_url(r, p, out);
    out->max_bytes = p->max_bytes != 0 ? p->max_bytes : LIST_BYTES_DEFAULT;
    out->path = cfg_keep_text(r, copy_path(r, p), strlen(copy_path(r, p)));
    if (out->path != NULL)
        cfg_note_file(r, out->path, true);
    out->exit = exit_of(r, p);
}

void cfg_providers_finish(struct cfg_read *r)
{
    struct cfg_providers *all = providers(r);
    size_t n = all == NULL ? 0 : all->count, before = cfg_enter_key(r, "rule-providers");
    struct config_provider *list = cfg_keep(r, (n + 1) * sizeof(*list));

    for (size_t i = 0; i < n && list != NULL; i++) {
        size_t inside = cfg_enter_key(r, all->list[i]->name);

        r->config->providers = list;
        r->config->provider_count = i + 1;
        finish_one(r, all->list[i], &list[i]);
        cfg_leave(r, inside);
    }
    cfg_leave(r, before);
}

struct rule_set *cfg_provider_set(struct cfg_read *r, const char *name, size_t len, const struct cfg_node *at,
                                  size_t offset)
{
    const struct cfg_providers *all = providers(r);
    unsigned best = UINT_MAX;
    const char *nearest = NULL;
    char word[64];

    for (size_t i = 0; all != NULL && i < all->count; i++)
        if (strlen(all->list[i]->name) == len && memcmp(all->list[i]->name, name, len) == 0)
            return all->list[i]->set;
    snprintf(word, sizeof(word), "%.*s", len < sizeof(word) ? (int)len : (int)sizeof(word) - 1, name);
    for (size_t i = 0; all != NULL && i < all->count; i++) {
        unsigned allowed = cfg_slips_allowed(word), d = cfg_word_distance(word, all->list[i]->name, allowed);

        if (d <= allowed && d < best) {
            best = d;
            nearest = all->list[i]->name;
        }
    }
    if (nearest != NULL)
        cfg_error_at(r, at, offset, "no rule provider is called \"%s\"; did you mean \"%s\"?", word, nearest);
    else
        cfg_error_at(r, at, offset, "no rule provider is called \"%s\"; rule-providers names the lists",
                     word);
    return NULL;
}

const struct cfg_type cfg_provider_map = { .name = "map of maps, by name",
                                           .expects = "a map of names, each with a map",
                                           .kind = CFG_MAP,
                                           .read = read_providers };
const struct cfg_type cfg_provider_payload = {
    .name = "list of text", .expects = "an entry", .kind = CFG_SCALAR, .list = true, .read = read_payload
};
const struct cfg_type cfg_text_node = {
    .name = "text", .expects = "a text", .kind = CFG_SCALAR, .read = read_scalar
};
const struct cfg_type cfg_geo_path = {
    .name = "path", .expects = "the path of a database", .kind = CFG_SCALAR, .read = read_geo_path
};
