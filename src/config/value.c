/* value.c - what a single value may look like: numbers, words, durations, sizes, marks, paths.
 *
 * Scalars are read as written (config.md section 1): the schema gives a value its type, quotes do not, and only `true` and
 * `false` are booleans. A number has no sign, no leading zero (octal to some readers), no exponent. */
#include "config_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void store_u32(const struct cfg_key *k, void *to, uint32_t v)
{
    memcpy((char *)to + k->offset, &v, sizeof(v));
}

static void store_u64(const struct cfg_key *k, void *to, uint64_t v)
{
    memcpy((char *)to + k->offset, &v, sizeof(v));
}

static void store_int(const struct cfg_key *k, void *to, int v)
{
    memcpy((char *)to + k->offset, &v, sizeof(v)); /* enums of the option structs are as wide, see schema.c */
}

static void store_bool(const struct cfg_key *k, void *to, bool v)
{
    memcpy((char *)to + k->offset, &v, sizeof(v));
}

static void store_text(const struct cfg_key *k, void *to, const char *v)
{
    memcpy((char *)to + k->offset, &v, sizeof(v));
}

/* ---- sections and words ------------------------------------------------------------------------------------------- */

static void read_section(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    cfg_read_section(r, k->section, v, to);
}

static void read_bool(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    char quoted[CFG_QUOTED_MAX];

    if (strcmp(v->text, "true") == 0)
        store_bool(k, to, true);
    else if (strcmp(v->text, "false") == 0)
        store_bool(k, to, false);
    else
        cfg_error(r, v, "%s is neither true nor false; write one of these", cfg_quote(v->text, quoted));
}

/* "a, b or c": the choices that work. */
void cfg_list_choices(const struct cfg_choice *choices, char *out, size_t cap)
{
    size_t total = 0, seen = 0, n = 0;

    for (const struct cfg_choice *c = choices; c->text != NULL; c++)
        total += c->state == CFG_HERE;
    out[0] = '\0';
    for (const struct cfg_choice *c = choices; c->text != NULL && n < cap; c++) {
        if (c->state != CFG_HERE)
            continue;
        n += (size_t)snprintf(out + n, cap - n, "%s%s",
                              seen == 0           ? ""
                              : seen + 1 == total ? " or "
                                                  : ", ",
                              c->text);
        seen++;
    }
}

static const struct cfg_choice *choice_nearest(const struct cfg_choice *choices, const char *word)
{
    for (const struct cfg_choice *c = choices; c->text != NULL; c++) {
        if (cfg_word_distance(word, c->text, cfg_slips_allowed(word)) <= cfg_slips_allowed(word))
            return c;
    }
    return NULL;
}

static void choice_unknown(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v)
{
    const struct cfg_choice *near = choice_nearest(k->choices, v->text);
    char quoted[CFG_QUOTED_MAX], works[200];

    cfg_quote(v->text, quoted);
    cfg_list_choices(k->choices, works, sizeof(works));
    if (near != NULL)
        cfg_error(r, v, "unknown value %s; did you mean \"%s\"?", quoted, near->text);
    else
        cfg_error(r, v, "unknown value %s; %s would work", quoted, works);
}

/* The choice that was made; NULL: none that works, and that was said. */
static const struct cfg_choice *chosen(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v)
{
    const struct cfg_choice *c = k->choices;
    char works[200];

    while (c->text != NULL && strcmp(c->text, v->text) != 0)
        c++;
    cfg_list_choices(k->choices, works, sizeof(works));
    if (c->text == NULL)
        choice_unknown(r, k, v);
    else if (c->state == CFG_LATER)
        cfg_error(r, v, "\"%s\" is not supported yet; %s would work", c->text, works);
    else if (c->state == CFG_FOREIGN)
        cfg_error(r, v, "\"%s\" is not supported; %s would work%s%s", c->text, works, k->instead ? ", " : "",
                  k->instead ? k->instead : "");
    else if (c->state == CFG_LEFT_OUT)
        cfg_error(r, v, "\"%s\" is not in this build of the program; %s would work", c->text, works);
    else
        return c;
    return NULL;
}

static void read_choice(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    const struct cfg_choice *c = chosen(r, k, v);

    if (c != NULL)
        store_int(k, to, c->value);
}

/* Only one of the choices works so far, so there is nothing to store. */
static void read_choice_only(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    (void)to;
    chosen(r, k, v);
}

/* ---- numbers -------------------------------------------------------------------------------------------------------- */

enum cfg_number cfg_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    bool negative = text[0] == '-';
    const char *digits = text + negative;
    size_t len = strspn(digits, "0123456789");
    uint64_t n;

    if (len == 0 || digits[len] != '\0')
        return CFG_NUMBER_TEXT;
    if (len > 1 && digits[0] == '0')
        return CFG_NUMBER_ZERO;
    if (negative || len > 19)
        return CFG_NUMBER_RANGE;
    n = strtoull(digits, NULL, 10);
    if (n < min || n > max)
        return CFG_NUMBER_RANGE;
    *out = n;
    return CFG_NUMBER_OK;
}

/* @or_word: "", or "auto or " and the like, of what else would work. */
static bool read_number(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v,
                        const char *or_word, uint64_t *out)
{
    char quoted[CFG_QUOTED_MAX];
    const char *wrong = NULL;

    switch (cfg_parse_number(v->text, k->min, k->max, out)) {
    case CFG_NUMBER_OK:
        return true;
    case CFG_NUMBER_TEXT:
        wrong = "is no whole number";
        break;
    case CFG_NUMBER_ZERO:
        wrong = "has a leading zero";
        break;
    case CFG_NUMBER_RANGE:
        wrong = "is out of range";
        break;
    }
    if (k->min == k->max)
        cfg_error(r, v, "%s %s; %s%" PRIu64 " would work", cfg_quote(v->text, quoted), wrong, or_word,
                  k->min);
    else
        cfg_error(r, v, "%s %s; %s%" PRIu64 " to %" PRIu64 " would work", cfg_quote(v->text, quoted), wrong,
                  or_word, k->min, k->max);
    return false;
}

static void read_uint(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    uint64_t n;

    if (read_number(r, k, v, "", &n))
        store_u32(k, to, (uint32_t)n);
}

static void read_auto_uint(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    uint64_t n = 0;

    if (strcmp(v->text, "auto") == 0 || read_number(r, k, v, "auto or ", &n))
        store_u32(k, to, (uint32_t)n);
}

static void read_none_uint(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    uint64_t n = 0;

    if (strcmp(v->text, "none") == 0 || read_number(r, k, v, "none or ", &n))
        store_u32(k, to, (uint32_t)n);
}

static void read_port(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    uint16_t port;
    uint64_t n;

    if (!read_number(r, k, v, "", &n))
        return;
    port = (uint16_t)n;
    memcpy((char *)to + k->offset, &port, sizeof(port));
}

static void read_mtu(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    uint64_t n;

    if (!read_number(r, k, v, "", &n))
        return;
    store_u32(k, to, (uint32_t)n);
    r->mtu = v->line > 0 ? v : NULL;
}

static void read_version(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    uint64_t n;

    (void)to; /* there is one version, so nothing depends on it */
    read_number(r, k, v, "", &n);
}

static void read_fd(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    uint64_t n;

    if (!read_number(r, k, v, "", &n))
        return;
    store_int(k, to, (int)n);
    r->fd = v;
}

/* ---- numbers with a unit ---------------------------------------------------------------------------------------------- */

struct unit {
    const char *name;
    uint64_t worth;
};

static const struct unit durations[] = { { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 } };
static const struct unit sizes[] = { { "GiB", 1 << 30 }, { "MiB", 1 << 20 }, { "KiB", 1 << 10 }, { "", 1 } };
/* in bytes a second */
static const struct unit rates[] = { { "Gbit", 125000000 }, { "Mbit", 125000 }, { "kbit", 125 } };

/* 90000 with durations: "90s". The largest unit that leaves no rest. */
static const char *with_unit(const struct unit *units, size_t n, uint64_t v, char out[32])
{
    for (size_t i = 0; i < n; i++) {
        if (v % units[i].worth != 0 && i + 1 < n)
            continue;
        snprintf(out, 32, "%" PRIu64 "%s", v / units[i].worth, units[i].name);
        break;
    }
    return out;
}

static void unit_range(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v,
                       const struct unit *units, size_t n)
{
    char quoted[CFG_QUOTED_MAX], min[32], max[32];

    cfg_error(r, v, "%s is out of range; %s to %s would work", cfg_quote(v->text, quoted),
              with_unit(units, n, k->min, min), with_unit(units, n, k->max, max));
}

/* @bare: what a number without a unit is worth. @says: the end of the sentence about an unknown unit. */
static bool read_with_unit(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v,
                           const struct unit *units, size_t n, uint64_t bare, const char *says, uint64_t *out)
{
    size_t digits = strspn(v->text, "0123456789");
    uint64_t worth = v->text[digits] == '\0' ? bare : 0, number;
    char quoted[CFG_QUOTED_MAX];

    cfg_quote(v->text, quoted);
    if (digits == 0)
        cfg_error(r, v, "%s does not start with a digit; %s would work", quoted, k->type->expects);
    else if (digits > 1 && v->text[0] == '0')
        cfg_error(r, v, "%s has a leading zero; %s would work", quoted, k->type->expects);
    else {
        for (size_t i = 0; i < n && worth == 0; i++) {
            if (strcmp(v->text + digits, units[i].name) == 0)
                worth = units[i].worth;
        }
        if (worth == 0) {
            cfg_error_at(r, v, digits, "%s has no known unit; %s", quoted, says);
            return false;
        }
        number = digits > 18 ? UINT64_MAX : strtoull(v->text, NULL, 10);
        if (number > UINT64_MAX / worth || number * worth < k->min || number * worth > k->max) {
            unit_range(r, k, v, units, n);
            return false;
        }
        *out = number * worth;
        return true;
    }
    return false;
}

static void read_duration(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    uint64_t ms;

    if (read_with_unit(r, k, v, durations, ARRAY_LEN(durations), 1000, "write ms, s, m or h, as in \"30s\"",
                       &ms))
        store_u32(k, to, (uint32_t)ms);
}

int config_parse_duration(const char *text, uint32_t *out_ms)
{
    size_t digits = strspn(text, "0123456789");
    uint64_t worth = text[digits] == '\0' ? 1000 : 0;

    if (digits == 0 || digits > 9)
        return -EINVAL;
    for (size_t i = 0; i < ARRAY_LEN(durations) && worth == 0; i++)
        if (strcmp(text + digits, durations[i].name) == 0)
            worth = durations[i].worth;
    if (worth == 0 || strtoull(text, NULL, 10) * worth >= UINT32_MAX)
        return -EINVAL;
    *out_ms = (uint32_t)(strtoull(text, NULL, 10) * worth);
    return 0;
}

/* mihomo's tolerance and timeout: a bare number is milliseconds. */
static void read_duration_ms(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    uint64_t ms;

    if (read_with_unit(r, k, v, durations, ARRAY_LEN(durations), 1, "write ms, s, m or h, as in \"50ms\"",
                       &ms))
        store_u32(k, to, (uint32_t)ms);
}

static void read_duration_or_off(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v,
                                 void *to)
{
    if (strcmp(v->text, "off") == 0)
        store_u32(k, to, 0);
    else
        read_duration(r, k, v, to);
}

static void read_auto_size(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    uint64_t bytes = 0;

    if (strcmp(v->text, "auto") == 0 ||
        read_with_unit(r, k, v, sizes, ARRAY_LEN(sizes), 1, "write KiB, MiB or GiB, as in \"64MiB\"", &bytes))
        store_u64(k, to, bytes);
}

static void read_rate(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    uint64_t bytes = 0;

    if (strcmp(v->text, "none") == 0 || read_with_unit(r, k, v, rates, ARRAY_LEN(rates), 0,
                                                       "write kbit, Mbit or Gbit, as in \"50Mbit\"", &bytes))
        store_u64(k, to, bytes);
}

/* Decimal or hex, as tools of the kernel write marks. `auto` leaves 0, which config.c gives a meaning. */
static void read_auto_mark(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    bool hex = v->text[0] == '0' && (v->text[1] == 'x' || v->text[1] == 'X');
    size_t digits = hex ? strspn(v->text + 2, "0123456789abcdefABCDEF") : 0;
    char quoted[CFG_QUOTED_MAX];
    uint64_t mark = 0;

    if (strcmp(v->text, "auto") == 0) {
        store_u32(k, to, 0);
        return;
    }
    if (hex && digits > 0 && digits <= 8 && v->text[2 + digits] == '\0')
        mark = strtoull(v->text + 2, NULL, 16);
    else if (!hex)
        cfg_parse_number(v->text, 1, UINT32_MAX, &mark);
    if (mark == 0) {
        cfg_error(r, v, "%s is no mark; a number from 1 to 0xffffffff would work, as in 0x1b6",
                  cfg_quote(v->text, quoted));
        return;
    }
    store_u32(k, to, (uint32_t)mark);
}

/* ---- paths ------------------------------------------------------------------------------------------------------------ */

static void read_output(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    char quoted[CFG_QUOTED_MAX];

    if (v->text[0] == '/' || strcmp(v->text, "stderr") == 0 || strcmp(v->text, "stdout") == 0)
        store_text(k, to, cfg_keep_text(r, v->text, v->count));
    else
        cfg_error(r, v, "%s is no place for a log; stderr, stdout or an absolute path would work",
                  cfg_quote(v->text, quoted));
}

static void read_output_dir(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    char quoted[CFG_QUOTED_MAX];

    if (v->text[0] == '/')
        store_text(k, to, cfg_keep_text(r, v->text, v->count));
    else
        cfg_error(r, v, "%s is no absolute path; /var/lib/culvert would work", cfg_quote(v->text, quoted));
}

/* Whether this machine has the account is asked when it is needed: a file may be checked elsewhere. */
static void read_account(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    char quoted[CFG_QUOTED_MAX];

    if (v->text[0] != '\0' && v->count <= 32 && strpbrk(v->text, ":/ \t\n") == NULL)
        store_text(k, to, cfg_keep_text(r, v->text, v->count));
    else
        cfg_error(r, v, "%s is no name of a user; culvert would work", cfg_quote(v->text, quoted));
}

static void read_socket_path(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    char quoted[CFG_QUOTED_MAX];

    if (strcmp(v->text, "none") == 0)
        store_text(k, to, NULL);
    else if (v->text[0] != '/')
        cfg_error(r, v, "%s is no absolute path; /run/culvert/api.sock or none would work",
                  cfg_quote(v->text, quoted));
    else if (v->count > k->max)
        cfg_error(r, v, "a path of %u bytes; a socket's path has at most %" PRIu64, (unsigned)v->count,
                  k->max);
    else
        store_text(k, to, cfg_keep_text(r, v->text, v->count));
    r->config->api_unix_set = v->line > 0;
}

/* Beside the paths of the API, which begin with /v1/. */
static void read_metrics_path(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    char quoted[CFG_QUOTED_MAX];

    if (v->text[0] != '/' || v->count < 2 || v->text[v->count - 1] == '/' ||
        strpbrk(v->text, "?#% ") != NULL || strncmp(v->text, "/v1/", 4) == 0)
        cfg_error(r, v, "%s is no path for metrics; /metrics would work", cfg_quote(v->text, quoted));
    else
        store_text(k, to, cfg_keep_text(r, v->text, v->count));
}

/* ---- keys of other programs that change nothing --------------------------------------------------------------------------- */

/* `tun.enable`: there is no switch beside leaving the section out. */
static void read_true_only(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    (void)k;
    (void)to;
    if (strcmp(v->text, "true") == 0)
        cfg_warning(r, v, "has no effect; a section that is there is in force");
    else
        cfg_error(r, v, "only true would work; to be without it, remove the section");
}

static void read_ignored(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    (void)k;
    (void)to;
    cfg_warning(r, v, "has no effect here; remove it");
}

const struct cfg_type cfg_section_type = {
    .name = "map", .expects = cfg_expects_map, .kind = CFG_MAP, .read = read_section
};
CFG_SCALAR_TYPE(cfg_bool, "`true`, `false`", "true or false", read_bool);
CFG_SCALAR_TYPE(cfg_uint, "number", "a number", read_uint);
CFG_SCALAR_TYPE(cfg_auto_uint, "`auto`, number", "auto or a number", read_auto_uint);
CFG_SCALAR_TYPE(cfg_none_uint, "`none`, number", "none or a number", read_none_uint);
CFG_SCALAR_TYPE(cfg_port, "number", "a port such as 1080", read_port);
CFG_SCALAR_TYPE(cfg_mtu, "number", "a number", read_mtu);
CFG_SCALAR_TYPE(cfg_choice, "choice", "one word", read_choice);
CFG_SCALAR_TYPE(cfg_choice_only, "choice", "one word", read_choice_only);
CFG_SCALAR_TYPE(cfg_duration, "duration", "a duration such as 300ms, 60s, 5m or 2h", read_duration);
CFG_SCALAR_TYPE(cfg_duration_ms, "duration", "a duration such as 50ms or 5s", read_duration_ms);
CFG_SCALAR_TYPE(cfg_duration_or_off, "`off`, duration", "off or a duration such as 60s or 5m",
                read_duration_or_off);
CFG_SCALAR_TYPE(cfg_auto_size, "`auto`, size", "auto or a size such as 64MiB", read_auto_size);
CFG_SCALAR_TYPE(cfg_rate, "`none`, rate", "none or a rate such as 50Mbit", read_rate);
CFG_SCALAR_TYPE(cfg_auto_mark, "`auto`, mark", "a mark such as 0x1b6", read_auto_mark);
CFG_SCALAR_TYPE(cfg_version, "number", "1", read_version);
CFG_SCALAR_TYPE(cfg_fd, "number", "the number of an open descriptor", read_fd);
CFG_SCALAR_TYPE(cfg_output, "`stderr`, `stdout`, path", "stderr, stdout or an absolute path", read_output);
CFG_SCALAR_TYPE(cfg_metrics_path, "path", "a path of a URL, as in /metrics", read_metrics_path);
CFG_SCALAR_TYPE(cfg_output_dir, "path", "an absolute path", read_output_dir);
CFG_SCALAR_TYPE(cfg_socket_path, "path, `none`", "an absolute path or none", read_socket_path);
CFG_SCALAR_TYPE(cfg_account, "user", "the name of a user", read_account);
CFG_SCALAR_TYPE(cfg_true_only, "`true`", "true", read_true_only);
const struct cfg_type cfg_ignored = {
    .name = "any", .expects = "a value", .kind = CFG_SCALAR, .mixed = true, .read = read_ignored
};

#define LATER_TYPE(type, name_) const struct cfg_type type = { .name = (name_) }

LATER_TYPE(cfg_later_text, "text");
