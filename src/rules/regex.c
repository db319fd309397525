/* regex.c - DOMAIN-REGEX by pcre2, so bounded that no expression can hold a worker.
 *
 * A match may take MATCH_STEPS steps of pcre2's counter (about a millisecond) and no memory but a piece of the caller's stack: a
 * pattern that wants more does not match, and the verdict says so. Expressions that would be dear to compile are refused. There is
 * no just-in-time compiler: it wants memory that is writable and executable, and names are short. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rules_impl.h"

#ifdef WITH_REGEX

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define MATCH_STEPS   20000
#define PATTERN_MAX   512
#define NESTING_MAX   20
#define STACK_BYTES   (40 * 1024) /* pcre2's frames; it starts with 20 KiB */
#define HEAP_LIMIT_KB 16

struct rule_regex {
    pcre2_code *code;
    pcre2_match_context *limits;
};

/* pcre2 asks for memory to work in: it gets a run on our stack, and an end. */
struct workspace {
    size_t used;
    _Alignas(max_align_t) uint8_t bytes[STACK_BYTES];
};

static void *workspace_take(size_t size, void *arg)
{
    struct workspace *w = arg;
    size_t at = (w->used + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);

    if (size > sizeof(w->bytes) || at > sizeof(w->bytes) - size)
        return NULL;
    w->used = at + size;
    return w->bytes + at;
}

static void workspace_leave(void *memory, void *arg)
{
    (void)memory;
    (void)arg; /* all of it ends with the call */
}

int regex_supported(struct err *err)
{
    (void)err;
    return 0;
}

static pcre2_match_context *limits_new(void)
{
    pcre2_match_context *m = pcre2_match_context_create(NULL);

    if (m == NULL)
        return NULL;
    pcre2_set_match_limit(m, MATCH_STEPS);
    pcre2_set_depth_limit(m, MATCH_STEPS);
    pcre2_set_heap_limit(m, HEAP_LIMIT_KB);
    return m;
}

static int cannot_compile(int code, size_t at, struct err *err)
{
    char why[120] = "";

    pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof(why));
    return err_set(err, -EINVAL, "is no regular expression: %s, at its byte %zu", why, at + 1);
}

int regex_new(const char *text, size_t len, struct rule_regex **out, struct err *err)
{
    struct rule_regex *r = calloc(1, sizeof(*r));
    pcre2_compile_context *c = pcre2_compile_context_create(NULL);
    PCRE2_SIZE at = 0;
    int code = 0, e = -ENOMEM;

    if (r == NULL || c == NULL || (r->limits = limits_new()) == NULL)
        goto undo;
    pcre2_set_max_pattern_length(c, PATTERN_MAX);
    pcre2_set_parens_nest_limit(c, NESTING_MAX);
    r->code = pcre2_compile((PCRE2_SPTR)text, len, PCRE2_CASELESS | PCRE2_NEVER_UTF | PCRE2_NEVER_BACKSLASH_C,
                            &code, &at, c);
    if (r->code == NULL) {
        e = cannot_compile(code, at, err);
        goto undo;
    }
    pcre2_compile_context_free(c);
    *out = r;
    return 0;
undo:
    pcre2_compile_context_free(c);
    regex_free(r);
    return e;
}

void regex_free(struct rule_regex *r)
{
    if (r == NULL)
        return;
    pcre2_code_free(r->code);
    pcre2_match_context_free(r->limits);
    free(r);
}

bool regex_matches(const struct rule_regex *r, const char *name, size_t len, bool *gave_up)
{
    struct workspace w;
    pcre2_general_context *memory;
    pcre2_match_data *data;
    int n;

    w.used = 0;
    memory = pcre2_general_context_create(workspace_take, workspace_leave, &w);
    data = memory == NULL ? NULL : pcre2_match_data_create(1, memory);
    n = data == NULL ? PCRE2_ERROR_NOMEMORY
                     : pcre2_match(r->code, (PCRE2_SPTR)name, len, 0, 0, data, r->limits);
    if (n < 0 && n != PCRE2_ERROR_NOMATCH)
        *gave_up = true;
    return n >= 0;
}

#else

int regex_supported(struct err *err)
{
    return err_set(
        err, -ENOTSUP,
        "DOMAIN-REGEX is not supported by this program: it was built without pcre2 (WITH_REGEX=OFF); "
        "use DOMAIN-WILDCARD");
}

int regex_new(const char *text, size_t len, struct rule_regex **out, struct err *err)
{
    (void)text;
    (void)len;
    (void)out;
    return regex_supported(err);
}

void regex_free(struct rule_regex *r)
{
    (void)r;
}

bool regex_matches(const struct rule_regex *r, const char *name, size_t len, bool *gave_up)
{
    (void)r;
    (void)name;
    (void)len;
    (void)gave_up;
    return false;
}

#endif
