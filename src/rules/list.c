/* list.c - the file of a provider: text, or YAML's `payload:`, one entry a line.
 *
 * A million lines are read in one walk, so YAML is read as these files have it, line by line: "payload:" and then "- entry", bare or
 * in quotes. A line that is anything else is bad; bad lines are skipped, counted, and the first few named (faults.md C6). */
#include <errno.h>
#include <string.h>

#include "rules_impl.h"

#define LINE_MAX_BYTES 2048

struct reader {
    struct rule_set_builder *builder;
    struct rule_list_report *report;
    enum rule_format format;
    bool in_payload;
};

static void bad(struct reader *r, const struct err *why)
{
    uint32_t n = r->report->bad++;

    if (n >= RULE_BAD_LINES_KEPT)
        return;
    r->report->first_bad[n].line = r->report->lines;
    r->report->first_bad[n].why = *why;
}

/* The text of a quoted scalar without its quotes, in @out. Return: false: it does not end where it should. */
static bool unquote(struct piece p, char out[LINE_MAX_BYTES], struct piece *value)
{
    char quote = p.text[0];
    size_t len = 0, i = 1;

    for (; i < p.len && len < LINE_MAX_BYTES; i++) {
        if (p.text[i] == quote && !(quote == '\'' && i + 1 < p.len && p.text[i + 1] == quote))
            break;
        if (p.text[i] == quote || (quote == '"' && p.text[i] == '\\')) {
            if (++i == p.len || strchr("'\"\\", p.text[i]) == NULL)
                return false;
        }
        out[len++] = p.text[i];
    }
    if (i >= p.len || p.text[i] != quote)
        return false;
    *value = piece_trim(p.text + i + 1, p.len - i - 1);
    if (value->len > 0 && value->text[0] != '#')
        return false;
    *value = (struct piece){ out, len };
    return true;
}

/* YAML ends a bare scalar where a space and a # come. */
static struct piece without_remark(struct piece p)
{
    for (size_t i = 1; i < p.len; i++)
        if (p.text[i] == '#' && (p.text[i - 1] == ' ' || p.text[i - 1] == '\t'))
            return piece_trim(p.text, i);
    return p;
}

/* The entry of a line of YAML; length 0: the line has none. Return: false with a sentence: a bad line. */
static bool yaml_entry(struct reader *r, struct piece line, char room[LINE_MAX_BYTES], struct piece *out,
                       struct err *err)
{
    *out = (struct piece){ line.text, 0 };
    if (piece_is(line, "---") || piece_is(line, "..."))
        return true;
    if (line.len >= 8 && strncmp(line.text, "payload:", 8) == 0) {
        struct piece rest = without_remark(piece_trim(line.text + 8, line.len - 8));

        r->in_payload = true;
        if (rest.len == 0 || rest.text[0] == '#' || piece_is(rest, "[]"))
            return true;
        err_set(err, -EINVAL, "the entries of payload stand on lines of their own, each behind a dash");
        return false;
    }
    if (!r->in_payload || line.text[0] != '-' ||
        (line.len > 1 && line.text[1] != ' ' && line.text[1] != '\t')) {
        err_set(err, -EINVAL,
                "\"%.*s\" is no entry; a list is \"payload:\" and then \"- ENTRY\", a line each",
                line.len < 40 ? (int)line.len : 40, line.text);
        return false;
    }
    *out = piece_trim(line.text + 1, line.len - 1);
    if (out->len > 0 && (out->text[0] == '\'' || out->text[0] == '"')) {
        if (unquote(*out, room, out))
            return true;
        err_set(err, -EINVAL, "the quotes do not end");
        return false;
    }
    *out = without_remark(*out);
    return true;
}

static int read_line(struct reader *r, struct piece line)
{
    char room[LINE_MAX_BYTES];
    struct piece entry = line;
    struct err why = { "" };
    int e;

    if (line.len == 0 || line.text[0] == '#' || (line.len > 1 && line.text[0] == '/' && line.text[1] == '/'))
        return 0;
    if (r->format == RULE_LIST_YAML && !yaml_entry(r, line, room, &entry, &why)) {
        bad(r, &why);
        return 0;
    }
    if (entry.len == 0)
        return 0;
    e = rule_set_add(r->builder, entry.text, entry.len, &why);
    if (e == 0)
        r->report->entries++;
    else if (e != -ENOMEM)
        bad(r, &why);
    return e == -ENOMEM ? e : 0;
}

int rule_set_parse(enum rule_behavior behavior, enum rule_format format, const char *data, size_t len,
                   struct rule_set **out, struct rule_list_report *report)
{
    struct reader r = { .report = report, .format = format };
    const char *at = data, *end = data + len;
    int e = rule_set_build(behavior, &r.builder);

    *report = (struct rule_list_report){ .lines = 0 };
    if (e != 0)
        return e;
    if (len >= 3 && memcmp(data, "\357\273\277", 3) == 0)
        at += 3;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *stop = newline != NULL ? newline : end;
        size_t size = (size_t)(stop - at);

        if (size > 0 && at[size - 1] == '\r')
            size--;
        report->lines++;
        if ((e = read_line(&r, piece_trim(at, size))) != 0) {
            rule_set_builder_free(r.builder);
            return e;
        }
        at = stop + 1;
    }
    return rule_set_finish(r.builder, out);
}
