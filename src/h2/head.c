/* head.c - header fields: from nghttp2's calls into a head, and from a head into nghttp2's array. */
#include "h2_impl.h"

#include <stdio.h>

const char *h2_field(const struct h2_head *head, const char *name)
{
    for (size_t i = 0; i < head->field_count; i++) {
        if (strcmp(head->fields[i].name, name) == 0)
            return head->fields[i].value;
    }
    return NULL;
}

void head_begin(struct h2 *h)
{
    struct head_text *t = &h->in_head;

    t->len = 0;
    t->too_large = false;
    t->head = (struct h2_head){ .fields = t->fields };
}

static const char *keep(struct head_text *t, const uint8_t *data, size_t len)
{
    char *at = t->text + t->len;

    if (len + 1 > sizeof(t->text) - t->len) {
        t->too_large = true;
        return NULL;
    }
    memcpy(at, data, len);
    at[len] = '\0';
    t->len += len + 1;
    return at;
}

static void add_pseudo(struct head_text *t, const char *name, const char *value)
{
    const struct {
        const char *name;
        const char **to;
    } known[] = {
        { ":method", &t->head.method },       { ":scheme", &t->head.scheme },
        { ":authority", &t->head.authority }, { ":path", &t->head.path },
        { ":protocol", &t->head.protocol },
    };

    if (strcmp(name, ":status") == 0)
        t->head.status = (unsigned)strtoul(value, NULL, 10); /* nghttp2 has seen three digits */
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (strcmp(name, known[i].name) == 0)
            *known[i].to = value;
    }
}

void head_add(struct h2 *h, const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len)
{
    struct head_text *t = &h->in_head;
    const char *n = keep(t, name, name_len), *v = n ? keep(t, value, value_len) : NULL;

    if (!v)
        return;
    if (n[0] == ':')
        add_pseudo(t, n, v);
    else if (t->head.field_count < H2_FIELDS_MAX)
        t->fields[t->head.field_count++] = (struct h2_field){ n, v };
    else
        t->too_large = true;
}

static nghttp2_nv nv(const char *name, const char *value, bool secret)
{
    return (nghttp2_nv){ (uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name), strlen(value),
                         secret ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE };
}

size_t head_nv(const struct h2_head *head, char status[4], nghttp2_nv *out)
{
    const struct h2_field pseudo[] = {
        { ":status", head->status ? status : NULL },
        { ":method", head->method },
        { ":protocol", head->protocol },
        { ":scheme", head->scheme },
        { ":authority", head->authority },
        { ":path", head->path },
    };
    size_t n = 0;

    if (head->field_count > H2_FIELDS_MAX)
        return 0;
    snprintf(status, 4, "%03u", head->status % 1000);
    for (size_t i = 0; i < ARRAY_LEN(pseudo); i++) {
        if (pseudo[i].value)
            out[n++] = nv(pseudo[i].name, pseudo[i].value, false);
    }
    for (size_t i = 0; i < head->field_count; i++) {
        const struct h2_field *f = &head->fields[i];
        bool secret = strcmp(f->name, "proxy-authorization") == 0 || strcmp(f->name, "authorization") == 0;

        out[n++] = nv(f->name, f->value, secret); /* RFC 7541 section 7.1.3 */
    }
    return n;
}
