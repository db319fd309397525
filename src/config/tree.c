/* tree.c - libyaml's events become our own nodes, within limits (config.md section 1, point 5).
 *
 * How it works: a stack of open containers (frames) and one vector of finished nodes that wait for their container's end.
 * When a container ends, its nodes leave the vector and become an array in the scratch store. Only events are used:
 * libyaml's document loader accepts duplicate keys and circles, and needs 20 s for 200,000 nested brackets.
 *
 * What always holds: at most CFG_DEPTH_MAX frames; a node's size counts all aliases written out, so a "billion laughs"
 * file ends at the alias that crosses CFG_ALIAS_NODES_MAX; an alias to a container that is still open is refused, so there
 * is no circle. A syntax error ends the reading, since what follows one is guesswork. */
#include "config_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct frame {
    struct cfg_node *node;
    size_t first;    /* of its nodes in the vector */
    bool skip_pair;  /* the key was refused: its value is left out, too */
    bool at_value;   /* of a map: the key is there, the value comes next */
    const char *key; /* of a map: the newest key, for paths */
};

struct anchor {
    const char *name;
    const struct cfg_node *node;
    bool open; /* its container has not ended */
};

struct tree {
    struct config_store *scratch;
    struct config_messages *messages;
    struct frame frames[CFG_DEPTH_MAX];
    size_t depth;
    const struct cfg_node **nodes; /* finished, waiting for their container; malloc'ed */
    size_t count, cap;
    struct anchor anchors[CFG_ANCHORS_MAX];
    size_t n_anchors;
    size_t total, from_aliases; /* nodes so far */
    const struct cfg_node *root;
    int r; /* 0, or why reading stopped */
};

/* ---- messages with a path --------------------------------------------------------------------------------------- */

static void tree_path(const struct tree *t, char out[CFG_PATH_MAX])
{
    size_t n = 0;

    out[0] = '\0';
    for (size_t i = 0; i < t->depth && n < CFG_PATH_MAX; i++) {
        const struct frame *f = &t->frames[i];
        size_t end = i + 1 < t->depth ? t->frames[i + 1].first : t->count;
        int more = 0;

        if (f->node->kind == CFG_LIST)
            more = snprintf(out + n, CFG_PATH_MAX - n, "[%zu]", end - f->first);
        else if (f->key != NULL)
            more = snprintf(out + n, CFG_PATH_MAX - n, "%s%.60s", n > 0 ? "." : "", f->key);
        n += (size_t)more;
    }
}

/* Returns false, for use as `return tree_error(...)`. */
static bool tree_error(struct tree *t, const yaml_mark_t *at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static bool tree_error(struct tree *t, const yaml_mark_t *at, const char *fmt, ...)
{
    char path[CFG_PATH_MAX];
    va_list ap;

    tree_path(t, path);
    va_start(ap, fmt);
    cfg_message(t->messages, false, (uint32_t)at->line + 1, (uint32_t)at->column + 1, path, fmt, ap);
    va_end(ap);
    return false;
}

/* A mistake after which nothing more is read. */
#define tree_stop(t, ...) ((t)->r = -EINVAL, tree_error((t), __VA_ARGS__))

static bool tree_no_memory(struct tree *t)
{
    t->r = -ENOMEM;
    return false;
}

/* ---- nodes ----------------------------------------------------------------------------------------------------------- */

static struct cfg_node *node_new(struct tree *t, enum cfg_kind kind, const yaml_mark_t *at)
{
    struct cfg_node *n = cfg_alloc(t->scratch, sizeof(*n));

    if (n == NULL) {
        tree_no_memory(t);
        return NULL;
    }
    n->kind = kind;
    n->size = 1;
    n->line = (uint32_t)at->line + 1;
    n->column = (uint32_t)at->column + 1;
    return n;
}

bool cfg_is_null(const struct cfg_node *n)
{
    static const char *const nulls[] = { "", "~", "null", "Null", "NULL" };

    if (n->kind != CFG_SCALAR || !n->plain)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(nulls); i++) {
        if (strcmp(n->text, nulls[i]) == 0)
            return true;
    }
    return false;
}

static bool vector_push(struct tree *t, const struct cfg_node *n)
{
    if (t->count == t->cap) {
        size_t cap = t->cap == 0 ? 64 : t->cap * 2;
        const struct cfg_node **nodes = realloc(t->nodes, cap * sizeof(struct cfg_node *));

        if (nodes == NULL)
            return tree_no_memory(t);
        t->nodes = nodes;
        t->cap = cap;
    }
    t->nodes[t->count++] = n;
    return true;
}

/* May this node be the key of a pair? What is refused is reported, and its value left out. */
static bool key_is_good(struct tree *t, const struct cfg_node *n)
{
    yaml_mark_t mark = { .line = n->line - 1, .column = n->column - 1 }, *at = &mark;

    if (n->kind != CFG_SCALAR)
        return tree_error(t, at, "a key is a word; a list or a map cannot be one");
    if (n->plain && strcmp(n->text, "<<") == 0)
        return tree_error(t, at, "merge keys (<<) are not read; write the keys out");
    if (cfg_is_null(n))
        return tree_error(t, at, "a key is empty; write its name before the colon");
    return true;
}

/* A finished node goes to its container: a list's item, a map's key or value, or the document itself. */
static bool node_done(struct tree *t, const struct cfg_node *n)
{
    struct frame *f = t->depth > 0 ? &t->frames[t->depth - 1] : NULL;

    if (f == NULL) {
        t->root = n;
        return true;
    }
    if (f->node->kind == CFG_MAP && !f->at_value) {
        f->key = NULL;
        f->skip_pair = !key_is_good(t, n);
        f->at_value = true;
        if (n->kind == CFG_SCALAR)
            f->key = n->text;
        return f->skip_pair || vector_push(t, n);
    }
    if (f->node->kind == CFG_MAP) {
        f->at_value = false;
        return f->skip_pair || vector_push(t, n);
    }
    return vector_push(t, n);
}

/* ---- anchors ---------------------------------------------------------------------------------------------------------- */

static struct anchor *anchor_find(struct tree *t, const char *name)
{
    for (size_t i = t->n_anchors; i-- > 0;) { /* the newest of a name counts (YAML 1.2 section 7.1) */
        if (strcmp(t->anchors[i].name, name) == 0)
            return &t->anchors[i];
    }
    return NULL;
}

static bool anchor_add(struct tree *t, const yaml_char_t *name, const struct cfg_node *n,
                       const yaml_mark_t *at)
{
    char *copy;

    if (name == NULL)
        return true;
    if (t->n_anchors == CFG_ANCHORS_MAX)
        return tree_stop(t, at, "more than %d anchors (&name); write the values out", CFG_ANCHORS_MAX);
    copy = cfg_copy_text(t->scratch, (const char *)name, strlen((const char *)name));
    if (copy == NULL)
        return tree_no_memory(t);
    t->anchors[t->n_anchors++] = (struct anchor){ copy, n, n->kind != CFG_SCALAR };
    return true;
}

static void anchor_close(struct tree *t, const struct cfg_node *n)
{
    for (size_t i = 0; i < t->n_anchors; i++) {
        if (t->anchors[i].node == n)
            t->anchors[i].open = false;
    }
}

static bool on_alias(struct tree *t, const yaml_event_t *e)
{
    const char *name = (const char *)e->data.alias.anchor;
    const struct anchor *a = anchor_find(t, name);
    char quoted[CFG_QUOTED_MAX];

    if (a == NULL)
        return tree_stop(t, &e->start_mark,
                         "the alias %s has no anchor before it; write &%.40s at the value it means",
                         cfg_quote(name, quoted), name);
    if (a->open)
        return tree_stop(t, &e->start_mark,
                         "the alias %s stands inside its own value; a value cannot hold itself",
                         cfg_quote(name, quoted));
    t->from_aliases += a->node->size;
    if (t->from_aliases > CFG_ALIAS_NODES_MAX)
        return tree_stop(t, &e->start_mark, "aliases expand to more than %d values; write them out",
                         CFG_ALIAS_NODES_MAX);
    if (t->depth + a->node->height > CFG_DEPTH_MAX)
        return tree_stop(t, &e->start_mark, "more than %d levels of lists and maps", CFG_DEPTH_MAX);
    return node_done(t, a->node);
}

/* ---- scalars, containers ----------------------------------------------------------------------------------------------- */

/* Scalars are read as written, so "this is text" is the one tag that changes nothing. */
static bool tag_is_good(struct tree *t, const yaml_char_t *tag, const yaml_mark_t *at)
{
    static const char *const text_tags[] = { "!", "str", "tag:yaml.org,2002:str" };
    char quoted[CFG_QUOTED_MAX];

    if (tag == NULL)
        return true;
    for (size_t i = 0; i < ARRAY_LEN(text_tags); i++) {
        if (strcmp((const char *)tag, text_tags[i]) == 0)
            return true;
    }
    tree_error(t, at, "the tag %s has no meaning here; remove it", cfg_quote((const char *)tag, quoted));
    return true; /* the value is still looked at */
}

static bool count_node(struct tree *t, const yaml_mark_t *at)
{
    if (++t->total > CFG_NODES_MAX)
        return tree_stop(t, at, "more than %d values in one file", CFG_NODES_MAX);
    return true;
}

static bool on_scalar(struct tree *t, const yaml_event_t *e)
{
    const char *text = (const char *)e->data.scalar.value;
    size_t len = e->data.scalar.length;
    struct cfg_node *n;

    if (!count_node(t, &e->start_mark) || (n = node_new(t, CFG_SCALAR, &e->start_mark)) == NULL)
        return false;
    tag_is_good(t, e->data.scalar.tag, &e->start_mark);
    if (memchr(text, '\0', len) != NULL)
        tree_error(t, &e->start_mark, "the value holds a NUL (\\0); remove it");
    n->plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    n->brackets = n->plain && t->depth > 0 && t->frames[t->depth - 1].node->brackets;
    n->text = cfg_copy_text(t->scratch, text, len);
    if (n->text == NULL)
        return tree_no_memory(t);
    n->count = (uint32_t)strlen(n->text);
    return anchor_add(t, e->data.scalar.anchor, n, &e->start_mark) && node_done(t, n);
}

static bool on_start(struct tree *t, const yaml_event_t *e, enum cfg_kind kind)
{
    const yaml_char_t *anchor =
        kind == CFG_LIST ? e->data.sequence_start.anchor : e->data.mapping_start.anchor;
    const yaml_char_t *tag = kind == CFG_LIST ? e->data.sequence_start.tag : e->data.mapping_start.tag;
    struct cfg_node *n;

    if (t->depth == CFG_DEPTH_MAX)
        return tree_stop(t, &e->start_mark, "more than %d levels of lists and maps", CFG_DEPTH_MAX);
    if (!count_node(t, &e->start_mark) || (n = node_new(t, kind, &e->start_mark)) == NULL)
        return false;
    tag_is_good(t, tag, &e->start_mark);
    n->brackets = kind == CFG_LIST && e->data.sequence_start.style == YAML_FLOW_SEQUENCE_STYLE;
    t->frames[t->depth++] = (struct frame){ .node = n, .first = t->count };
    return anchor_add(t, anchor, n, &e->start_mark);
}

static int by_key(const void *a, const void *b)
{
    const struct cfg_pair *x = *(const struct cfg_pair *const *)a, *y = *(const struct cfg_pair *const *)b;
    int order = strcmp(x->key->text, y->key->text);

    return order != 0 ? order : x < y ? -1 : 1; /* equal keys stay in the order of the file */
}

/* The second of two equal keys is reported and leaves the map. */
static bool drop_duplicates(struct tree *t, struct cfg_node *map)
{
    struct cfg_pair **sorted;
    char quoted[CFG_QUOTED_MAX];
    uint32_t kept = 0;

    if (map->count < 2)
        return true;
    sorted = malloc(map->count * sizeof(struct cfg_pair *));
    if (sorted == NULL)
        return tree_no_memory(t);
    for (uint32_t i = 0; i < map->count; i++)
        sorted[i] = &map->pairs[i];
    qsort(sorted, map->count, sizeof(struct cfg_pair *), by_key);
    for (uint32_t i = 1, first = 0; i < map->count; i++) {
        const struct cfg_node *one = sorted[first]->key, *two = sorted[i]->key;
        yaml_mark_t at = { .line = two->line - 1, .column = two->column - 1 };

        if (strcmp(one->text, two->text) != 0) {
            first = i;
            continue;
        }
        tree_error(t, &at, "the key %s is there twice; the first is on line %u, column %u",
                   cfg_quote(two->text, quoted), (unsigned)one->line, (unsigned)one->column);
        sorted[i]->value = NULL; /* marks it; the keys are still compared */
    }
    free(sorted);
    for (uint32_t i = 0; i < map->count; i++) {
        if (map->pairs[i].value != NULL)
            map->pairs[kept++] = map->pairs[i];
    }
    map->count = kept;
    return true;
}

/* The nodes that waited become the container's own. */
static bool adopt(struct tree *t, struct cfg_node *n, size_t first)
{
    size_t count = t->count - first;
    void *own = cfg_alloc(t->scratch, count * sizeof(const struct cfg_node *));

    if (own == NULL)
        return tree_no_memory(t);
    if (count > 0)
        memcpy(own, t->nodes + first, count * sizeof(const struct cfg_node *));
    for (size_t i = first; i < t->count; i++) {
        const struct cfg_node *child = t->nodes[i];

        n->size += child->size;
        if (child->height + 1 > n->height)
            n->height = (uint8_t)(child->height + 1);
    }
    t->count = first;
    if (n->kind == CFG_LIST) {
        n->items = own;
        n->count = (uint32_t)count;
    } else { /* key, value, key, value: that is an array of pairs already */
        n->pairs = own;
        n->count = (uint32_t)(count / 2);
    }
    return true;
}

static bool on_end(struct tree *t)
{
    struct frame *f;
    struct cfg_node *n;

    assert(t->depth > 0); /* libyaml pairs each end with a start */
    f = &t->frames[t->depth - 1];
    n = f->node;
    assert(n != NULL);
    f->key = NULL;
    if (!adopt(t, n, f->first) || (n->kind == CFG_MAP && !drop_duplicates(t, n)))
        return false;
    anchor_close(t, n);
    t->depth--;
    return node_done(t, n);
}

/* ---- libyaml -------------------------------------------------------------------------------------------------------------- */

/* The byte at a mark, or 0. Marks count characters and lines, not bytes. */
static char byte_at(const char *text, size_t len, const yaml_mark_t *at)
{
    size_t i = 0;

    for (size_t line = 0; line < at->line; line++) {
        const char *end = memchr(text + i, '\n', len - i);

        if (end == NULL)
            return '\0';
        i = (size_t)(end - text) + 1;
    }
    for (size_t column = 0; column < at->column && i < len; column++) {
        for (i++; i < len && ((unsigned char)text[i] & 0xc0) == 0x80; i++)
            ;
    }
    return i < len ? text[i] : '\0';
}

/* What libyaml says, for people. Its context tells where the thing began that went wrong. */
static const char *syntax_advice(const yaml_parser_t *p, const char *text, size_t len)
{
    static const struct {
        const char *problem, *says;
    } table[] = {
        { "did not find expected ',' or ']'", "a list in [ ] is not closed, or a comma is missing" },
        { "did not find expected ',' or '}'", "a map in { } is not closed, or a comma is missing" },
        { "did not find expected key", "a key is expected here, indented like the lines above" },
        { "did not find expected '-' indicator",
          "a list item (- ...) is expected here, indented like the items above" },
        { "could not find expected ':'", "a key without its colon; write \"key: value\"" },
        { "mapping values are not allowed in this context",
          "a colon is not expected here; indent a key like its neighbours, and put a value that holds "
          "\": \" in quotes" },
        { "found unexpected end of stream", "a quote is opened and never closed" },
        { "did not find expected node content", "a value is expected here" },
        { "did not find expected <document start>",
          "more text after the end of the document; one document is read" },
        { "block sequence entries are not allowed in this context",
          "a list item (- ...) is not expected here; look at the indentation" },
        { "block mapping keys are not allowed in this context",
          "a key is not expected here; look at the indentation" },
    };

    if (byte_at(text, len, &p->problem_mark) == '\t')
        return "a tab cannot indent YAML; use spaces";
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (p->problem != NULL && strcmp(p->problem, table[i].problem) == 0)
            return table[i].says;
    }
    return p->problem != NULL ? p->problem : "this is no YAML";
}

/* Did the text end inside brackets? Then the innermost of them is what was forgotten. */
static const struct cfg_node *unclosed(const struct tree *t, const yaml_parser_t *p, const char *text,
                                       size_t len)
{
    if (t->depth == 0 || p->problem == NULL || strcmp(p->problem, "did not find expected node content") != 0)
        return NULL;
    return byte_at(text, len, &p->problem_mark) == '\0' ? t->frames[t->depth - 1].node : NULL;
}

static bool syntax_error(struct tree *t, const yaml_parser_t *p, const char *text, size_t len)
{
    const char *says = syntax_advice(p, text, len);
    const struct cfg_node *open = unclosed(t, p, text, len);
    yaml_mark_t at = p->problem_mark;

    if (p->error == YAML_MEMORY_ERROR)
        return tree_no_memory(t);
    t->depth = 0; /* the place says it all; the path of what is half read would mislead */
    t->r = -EINVAL;
    if (open != NULL)
        return tree_error(t, &at, "a %s is not closed; it began on line %u, column %u",
                          open->kind == CFG_LIST ? "list in [ ]" : "map in { }", (unsigned)open->line,
                          (unsigned)open->column);
    if (p->context != NULL && p->context_mark.line < at.line)
        return tree_error(t, &at, "%s; it began on line %zu, column %zu", says, p->context_mark.line + 1,
                          p->context_mark.column + 1);
    return tree_error(t, &at, "%s", says);
}

static bool on_event(struct tree *t, const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_ALIAS_EVENT:
        return on_alias(t, e);
    case YAML_SCALAR_EVENT:
        return on_scalar(t, e);
    case YAML_SEQUENCE_START_EVENT:
        return on_start(t, e, CFG_LIST);
    case YAML_MAPPING_START_EVENT:
        return on_start(t, e, CFG_MAP);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return on_end(t);
    case YAML_DOCUMENT_START_EVENT:
        if (t->root != NULL)
            return tree_stop(t, &e->start_mark, "a second document begins here; one file is one document");
        return true;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        return true;
    }
    return true;
}

static void tree_read(struct tree *t, yaml_parser_t *p, const char *text, size_t len)
{
    bool more = true;

    while (more) {
        yaml_event_t e;

        if (!yaml_parser_parse(p, &e)) {
            syntax_error(t, p, text, len);
            return;
        }
        more = on_event(t, &e) && e.type != YAML_STREAM_END_EVENT;
        yaml_event_delete(&e);
    }
}

int cfg_tree(const char *text, size_t len, struct config_store *scratch, struct config_messages *m,
             const struct cfg_node **out)
{
    struct tree *t = calloc(1, sizeof(*t));
    yaml_parser_t p;
    int r;

    if (t == NULL || !yaml_parser_initialize(&p)) {
        free(t);
        return -ENOMEM;
    }
    t->scratch = scratch;
    t->messages = m;
    yaml_parser_set_encoding(&p, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&p, (const unsigned char *)text, len);
    tree_read(t, &p, text, len);
    yaml_parser_delete(&p);
    r = t->r;
    if (r == 0)
        *out = t->root;
    free(t->nodes);
    free(t);
    return r;
}
