/* body.c - what callers send: one small JSON object, or nothing (faults.md A8). Pure. */
#ifdef WITH_API

#include "api_impl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

enum { VALUES_MAX = 1000 };

static int fail(struct api_fault *fault, int line, int column, const char *what, const char *key)
{
    fault->line = line > 0 ? line : 1;
    fault->column = column > 0 ? column : 1;
    snprintf(fault->text, sizeof(fault->text), what, key);
    return -EINVAL;
}

/* jansson keeps no places, so the key is looked for in the text again: right for what people write by hand, and where the same
 * word stands earlier inside a value it shows that one. */
static int fail_at_key(struct api_fault *fault, const char *text, size_t len, const char *what,
                       const char *key)
{
    size_t n = strlen(key);
    int line = 1, column = 1;

    for (size_t i = 0; i < len; i++) {
        if (text[i] == '"' && len - i > n + 1 && memcmp(text + i + 1, key, n) == 0 && text[i + n + 1] == '"')
            return fail(fault, line, column, what, key);
        column = text[i] == '\n' ? 1 : column + 1;
        line += text[i] == '\n';
    }
    return fail(fault, 1, 1, what, key);
}

static bool is_name(const json_t *v)
{
    return json_is_string(v) && json_string_length(v) > 0 && json_string_length(v) < STATUS_NAME_MAX;
}

static int read_keys(json_t *o, const char *text, size_t len, struct api_body *out, struct api_fault *fault)
{
    const char *key;
    json_t *v;

    json_object_foreach(o, key, v)
    {
        if (strcmp(key, "now") == 0 && is_name(v))
            memcpy(out->member, json_string_value(v), json_string_length(v) + 1);
        else if (strcmp(key, "now") == 0)
            return fail_at_key(fault, text, len, "\"%s\" must be the name of a member", key);
        else if (strcmp(key, "drain-ms") == 0 && json_is_integer(v) && json_integer_value(v) >= 0 &&
                 json_integer_value(v) < API_NO_DRAIN)
            out->drain_ms = (uint32_t)json_integer_value(v);
        else if (strcmp(key, "drain-ms") == 0)
            return fail_at_key(fault, text, len, "\"%s\" must be a number of milliseconds, from 0 on", key);
        else
            return fail_at_key(fault, text, len, "the key \"%.60s\" is unknown", key);
    }
    return 0;
}

/* Each value costs jansson many times its text: half a million of them are 20 MiB. What we take has one or two. */
static bool has_many_values(const char *text, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += text[i] == ',' || text[i] == '[' || text[i] == '{';
    return n > VALUES_MAX;
}

int api_body_read(const char *text, size_t len, struct api_body *out, struct api_fault *fault)
{
    json_error_t at;
    json_t *o;
    int r;

    *out = (struct api_body){ .drain_ms = API_NO_DRAIN };
    if (len == 0)
        return 0;
    if (has_many_values(text, len))
        return fail(fault, 1, 1, "%s", "the body has too many values; {\"now\": \"NAME\"} would work");
    o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &at);
    if (o == NULL && json_error_code(&at) == json_error_out_of_memory)
        return -ENOMEM;
    if (o == NULL)
        return fail(fault, at.line, at.column, "%s", at.text);
    r = json_is_object(o) ? read_keys(o, text, len, out, fault)
                          : fail(fault, 1, 1, "%s", "the body must be an object, as in {\"now\": \"NAME\"}");
    json_decref(o);
    return r;
}

#else
typedef int body_is_left_out; /* a file that says nothing is no C */
#endif
