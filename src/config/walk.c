/* walk.c - the node tree is held against the schema: which keys are there, of what kind, and what the others default to.
 *
 * How it works: a section's keys are looked up one after the other; what a key's type makes of its value is up to the type's
 * read(). Afterwards every key that was not there gets its default, which the schema holds as text and the same read()
 * takes in: so the reference that is printed from the schema and the program cannot differ. */
#include "config_impl.h"

#include <stdio.h>
#include <string.h>

#define SECTION_KEYS_MAX 64

/* ---- messages and memory of a load -------------------------------------------------------------------------------- */

void cfg_error(struct cfg_read *r, const struct cfg_node *at, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    cfg_message(r->messages, false, at->line, at->column, r->path, fmt, ap);
    va_end(ap);
}

void cfg_warning(struct cfg_read *r, const struct cfg_node *at, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    cfg_message(r->messages, true, at->line, at->column, r->path, fmt, ap);
    va_end(ap);
}

/* Exact where the scalar is plain and on one line; at a quoted one, the quote is counted. */
void cfg_error_at(struct cfg_read *r, const struct cfg_node *at, size_t offset, const char *fmt, ...)
{
    uint32_t column = at->column;
    va_list ap;

    for (size_t i = 0; i < offset && i < at->count; i++)
        column += ((unsigned char)at->text[i] & 0xc0) != 0x80;
    va_start(ap, fmt);
    cfg_message(r->messages, false, at->line, column + (at->plain ? 0 : 1), r->path, fmt, ap);
    va_end(ap);
}

static void *noted(struct cfg_read *r, void *p)
{
    if (p == NULL)
        r->no_memory = true;
    return p;
}

void *cfg_scratch(struct cfg_read *r, size_t bytes)
{
    return noted(r, cfg_alloc(r->scratch, bytes));
}

void *cfg_keep(struct cfg_read *r, size_t bytes)
{
    return noted(r, cfg_alloc(r->store, bytes));
}

char *cfg_keep_text(struct cfg_read *r, const char *text, size_t len)
{
    return noted(r, cfg_copy_text(r->store, text, len));
}

bool cfg_nodes_push(struct cfg_read *r, struct cfg_nodes *v, const struct cfg_node *n)
{
    if (v->count == v->cap) {
        size_t cap = v->cap == 0 ? 64 : v->cap * 2;
        const struct cfg_node **list = cfg_scratch(r, cap * sizeof(struct cfg_node *));

        if (list == NULL)
            return false;
        if (v->count > 0)
            memcpy(list, v->list, v->count * sizeof(struct cfg_node *));
        v->list = list;
        v->cap = cap;
    }
    v->list[v->count++] = n;
    return true;
}

/* ---- the path of the value that is being read --------------------------------------------------------------------- */

static size_t path_grow(struct cfg_read *r, int n, size_t before)
{
    size_t len = before + (size_t)(n > 0 ? n : 0);

    r->path_len = len < CFG_PATH_MAX ? len : CFG_PATH_MAX - 1;
    return before;
}

size_t cfg_enter_key(struct cfg_read *r, const char *key)
{
    size_t before = r->path_len;

    return path_grow(
        r, snprintf(r->path + before, CFG_PATH_MAX - before, "%s%.60s", before > 0 ? "." : "", key), before);
}

size_t cfg_enter_index(struct cfg_read *r, size_t index)
{
    size_t before = r->path_len;

    return path_grow(r, snprintf(r->path + before, CFG_PATH_MAX - before, "[%zu]", index), before);
}

void cfg_leave(struct cfg_read *r, size_t path_len)
{
    r->path_len = path_len;
    r->path[path_len] = '\0';
}

const struct cfg_node *cfg_map_get(const struct cfg_node *map, const char *key)
{
    for (uint32_t i = 0; map != NULL && map->kind == CFG_MAP && i < map->count; i++) {
        if (strcmp(map->pairs[i].key->text, key) == 0)
            return map->pairs[i].value;
    }
    return NULL;
}

/* ---- kinds ----------------------------------------------------------------------------------------------------------- */

/* "key:value", which YAML takes for one word. */
static const char *word_with_colon(const char *text)
{
    const char *colon = strchr(text, ':');
    size_t key = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-_");

    return colon != NULL && key > 0 && text + key == colon && colon[1] != '/' ? colon : NULL;
}

const char cfg_expects_map[] = "a map (key: value)";

bool cfg_wrong_kind(struct cfg_read *r, const struct cfg_node *v, const char *expects)
{
    if (cfg_is_null(v) && expects == cfg_expects_map)
        cfg_error(r, v, "has no value; %s would work, each key on a line of its own that is indented",
                  expects);
    else if (cfg_is_null(v))
        cfg_error(r, v, "has no value; %s would work", expects);
    else if (v->kind == CFG_SCALAR && v->plain && word_with_colon(v->text) != NULL)
        cfg_error(r, v, "is a single value; a space is missing after the colon");
    else if (v->kind == CFG_SCALAR)
        cfg_error(r, v, "is a single value; %s would work", expects);
    else
        cfg_error(r, v, "is a %s; %s would work", v->kind == CFG_LIST ? "list" : "map", expects);
    return false;
}

bool cfg_need_text(struct cfg_read *r, const struct cfg_node *v, const char *expects)
{
    if (v->kind != CFG_SCALAR || cfg_is_null(v))
        return cfg_wrong_kind(r, v, expects);
    return true;
}

/* What a key's value may be, for messages. */
static const char *expected(const struct cfg_key *k, char *room, size_t cap)
{
    if (k->choices == NULL)
        return k->type->expects;
    cfg_list_choices(k->choices, room, cap);
    return room;
}

static void read_one(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    bool fits = v->kind == k->type->kind || (k->type->mixed && v->kind != CFG_LIST);
    char room[200];

    if (!fits || (cfg_is_null(v) && !k->type->nullable))
        cfg_wrong_kind(r, v, expected(k, room, sizeof(room)));
    else
        k->type->read(r, k, v, to);
}

static void read_value(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    if (!k->type->list || v->kind != CFG_LIST) {
        read_one(r, k, v, to);
        return;
    }
    for (uint32_t i = 0; i < v->count; i++) {
        size_t before = cfg_enter_index(r, i);

        read_one(r, k, v->items[i], to);
        cfg_leave(r, before);
    }
}

/* ---- defaults -------------------------------------------------------------------------------------------------------- */

static void read_default(struct cfg_read *r, const struct cfg_key *k, void *to)
{
    struct cfg_node word = { .kind = CFG_SCALAR, .plain = true };
    const char *rest = k->fallback;

    while (*rest != '\0') {
        size_t len = k->type->list ? strcspn(rest, " ") : strlen(rest);

        word.text = cfg_copy_text(r->scratch, rest, len);
        if (noted(r, (void *)word.text) == NULL)
            return;
        word.count = (uint32_t)len;
        read_value(r, k, &word, to);
        rest += len;
        rest += strspn(rest, " ");
    }
}

/* A key that a reload leaves as it was; a section of that kind is noted key by key. */
static bool is_fixed(const struct cfg_read *r, const struct cfg_key *k)
{
    return (k->fixed || r->fixed) && k->type != &cfg_section_type;
}

/* The value of a key; all keys of a fixed section are fixed. */
static void read_key(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    bool outside = r->fixed;

    r->fixed = outside || k->fixed;
    if (v != NULL)
        read_value(r, k, v, to);
    else
        cfg_read_section(r, k->section, NULL, to);
    r->fixed = outside;
}

static void default_of(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *map, void *to)
{
    char room[200];
    size_t before;

    if (k->state != CFG_HERE)
        return;
    before = cfg_enter_key(r, k->name);
    if (is_fixed(r, k))
        cfg_fixed_default(r, k);
    if (k->type == &cfg_section_type)
        read_key(r, k, NULL, to);
    else if (k->required && map != NULL) {
        cfg_leave(r, before);
        cfg_error(r, map, "the key \"%s\" is missing; %s would work", k->name,
                  expected(k, room, sizeof(room)));
    } else if (k->fallback != NULL)
        read_default(r, k, to);
    cfg_leave(r, before);
}

/* ---- keys ------------------------------------------------------------------------------------------------------------ */

static const struct cfg_key *key_find(const struct cfg_section *s, const char *name)
{
    for (const struct cfg_key *k = s->keys; k->name != NULL; k++) {
        if (strcmp(k->name, name) == 0)
            return k;
    }
    return NULL;
}

/* "proxy" for "proxies", "rule" for "rules". */
static bool is_plural(const char *name, const char *key)
{
    size_t len = strlen(name);

    if (len > 3 && name[len - 1] == 'y' && strncmp(name, key, len - 1) == 0)
        return strcmp(key + len - 1, "ies") == 0;
    return len > 3 && strncmp(name, key, len) == 0 && strcmp(key + len, "s") == 0;
}

static const struct cfg_key *key_nearest(const struct cfg_section *s, const char *name)
{
    unsigned best = cfg_slips_allowed(name);
    const struct cfg_key *nearest = NULL;

    for (const struct cfg_key *k = s->keys; k->name != NULL; k++) {
        if (is_plural(name, k->name))
            return k;
    }

    for (const struct cfg_key *k = s->keys; k->name != NULL; k++) {
        unsigned d = cfg_word_distance(name, k->name, best);

        if (d <= best && (nearest == NULL || d < best)) {
            nearest = k;
            best = d;
        }
    }
    return nearest;
}

/* The path of the first section that has a key of exactly this name: a right key in the wrong place. */
static bool key_elsewhere(const struct cfg_section *s, const char *name, unsigned depth,
                          char out[CFG_PATH_MAX])
{
    if (s->where[0] != '\0' && key_find(s, name) != NULL) {
        snprintf(out, CFG_PATH_MAX, "%s.%s", s->where, name);
        return true;
    }
    for (const struct cfg_key *k = s->keys; k->name != NULL && depth < 4; k++) {
        if (k->section != NULL && key_elsewhere(k->section, name, depth + 1, out))
            return true;
    }
    return false;
}

static void unknown_key(struct cfg_read *r, const struct cfg_section *s, const struct cfg_node *key)
{
    const struct cfg_foreign *foreign = cfg_foreign_find(s->where, key->text);
    const struct cfg_key *nearest = key_nearest(s, key->text);
    const char *colon = word_with_colon(key->text);
    char quoted[CFG_QUOTED_MAX], place[CFG_PATH_MAX];

    cfg_quote(key->text, quoted);
    if (colon != NULL) /* what follows may be a secret */
        cfg_error(r, key, "unknown key \"%.*s:...\"; a space is missing after the colon",
                  colon - key->text < 40 ? (int)(colon - key->text) : 40, key->text);
    else if (foreign != NULL)
        cfg_error(r, key, "the key %s of %s is not supported; %s", quoted, cfg_foreign_program(foreign),
                  foreign->instead);
    else if (nearest != NULL)
        cfg_error(r, key, "unknown key %s; did you mean \"%s\"?", quoted, nearest->name);
    else if (key_elsewhere(&cfg_schema, key->text, 0, place))
        cfg_error(r, key, "unknown key %s; there is \"%s\"", quoted, place);
    else
        cfg_error(r, key, "unknown key %s; docs/config.md lists the keys that would work", quoted);
}

/* What the section has seen so far: the key node of each key, by its index. */
struct seen {
    const struct cfg_node *key[SECTION_KEYS_MAX];
};

static bool first_of_its_kind(struct cfg_read *r, const struct cfg_section *s, const struct cfg_key *k,
                              const struct cfg_node *key, struct seen *seen)
{
    size_t i = (size_t)(k - s->keys);

    if (seen->key[i] != NULL) {
        cfg_error(r, key, "says the same as \"%s\" on line %u; keep one of the two", seen->key[i]->text,
                  (unsigned)seen->key[i]->line);
        return false;
    }
    seen->key[i] = key;
    return true;
}

static void read_pair(struct cfg_read *r, const struct cfg_section *s, const struct cfg_pair *p,
                      struct seen *seen, void *to)
{
    const struct cfg_key *k = key_find(s, p->key->text);
    size_t before;

    if (k == NULL) {
        unknown_key(r, s, p->key);
        return;
    }
    before = cfg_enter_key(r, k->name);
    if (k->state == CFG_ALIAS)
        k = key_find(s, k->alias);
    if (first_of_its_kind(r, s, k, p->key, seen)) {
        switch (k->state) {
        case CFG_HERE:
        case CFG_ALIAS:
        case CFG_NO_EFFECT: /* its type looks at the value and warns */
            if (is_fixed(r, k))
                cfg_fixed_value(r, p->value);
            read_key(r, k, p->value, to);
            break;
        case CFG_LATER:
            cfg_error(r, p->key, "not supported yet; %s",
                      k->instead != NULL ? k->instead : "leave it out for now");
            break;
        case CFG_LEFT_OUT:
            if (p->value->kind == CFG_SCALAR && strcmp(p->value->text, "none") == 0)
                break; /* that is what it is */
            cfg_error(r, p->key, "not supported; %s", k->instead);
            break;
        case CFG_FOREIGN:
            cfg_error(r, p->key, "not supported; %s", k->instead);
            break;
        }
    }
    cfg_leave(r, before);
}

void cfg_read_section(struct cfg_read *r, const struct cfg_section *s, const struct cfg_node *v, void *to)
{
    struct seen seen = { { NULL } };

    if (v != NULL && v->kind != CFG_MAP) {
        cfg_wrong_kind(r, v, cfg_expects_map);
        v = NULL;
    }
    for (uint32_t i = 0; v != NULL && i < v->count; i++)
        read_pair(r, s, &v->pairs[i], &seen, to);
    for (const struct cfg_key *k = s->keys; k->name != NULL; k++) {
        if (seen.key[k - s->keys] == NULL)
            default_of(r, k, v, to);
    }
}
