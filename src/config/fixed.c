/* fixed.c - which keys a reload cannot change, and whether a new file would change one (faults.md C11).
 *
 * How it works. The schema marks such keys, or whole sections. While a file is read, the walk notes each marked key with a hash of what
 * stands there, written or by default; two configurations differ in a key when their hashes do. */
#include <string.h>

#include "config_impl.h"

struct config_fixed {
    struct config_fixed *next;
    uint64_t hash;
    char path[];
};

static uint64_t mix(uint64_t h, const void *data, size_t len)
{
    struct hash_key key = { h, len };

    return hash_bytes(&key, data, len);
}

/* A list of one says the same as its item. */
static uint64_t mix_node(uint64_t h, const struct cfg_node *v)
{
    switch (v->kind) {
    case CFG_SCALAR:
        return mix(h, v->text, v->count);
    case CFG_LIST:
        for (uint32_t i = 0; i < v->count; i++)
            h = mix_node(h, v->items[i]);
        return h;
    case CFG_MAP:
        for (uint32_t i = 0; i < v->count; i++)
            h = mix_node(mix_node(h, v->pairs[i].key), v->pairs[i].value);
        return h;
    }
    return h;
}

static void note(struct cfg_read *r, uint64_t hash)
{
    struct config_fixed *f = cfg_keep(r, sizeof(*f) + r->path_len + 1);

    if (!f)
        return;
    f->hash = hash;
    memcpy(f->path, r->path, r->path_len);
    f->next = r->config->fixed;
    r->config->fixed = f;
}

void cfg_fixed_value(struct cfg_read *r, const struct cfg_node *v)
{
    note(r, mix_node(0, v));
}

void cfg_fixed_default(struct cfg_read *r, const struct cfg_key *k)
{
    const char *rest = k->fallback != NULL ? k->fallback : "";
    uint64_t h = 0;

    while (*rest != '\0') {
        size_t len = k->type->list ? strcspn(rest, " ") : strlen(rest);

        h = mix(h, rest, len);
        rest += len;
        rest += strspn(rest, " ");
    }
    note(r, h);
}

static const struct config_fixed *find(const struct config *c, const char *path)
{
    const struct config_fixed *f = c->fixed;

    while (f && strcmp(f->path, path) != 0)
        f = f->next;
    return f;
}

size_t config_fixed_changes(const struct config *old, const struct config *now, const char **out, size_t cap)
{
    size_t n = 0;

    for (const struct config_fixed *f = now->fixed; f; f = f->next) {
        const struct config_fixed *was = find(old, f->path);

        if ((!was || was->hash != f->hash) && n < cap)
            out[n++] = f->path;
    }
    return n;
}
