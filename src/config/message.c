/* message.c - what is wrong with a file: kept in a list, put in order, printed, one line each.
 *
 * A message quotes the file, so it must neither move a terminal's cursor nor show a secret: values are escaped and cut,
 * and the login of a URL is hidden even where no URL belongs. The readers never quote a value that is a secret. */
#include "config_impl.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGES_MAX 10000
#define TEXT_MAX     700
#define WORD_MAX     48

/* Keys of the file stand in paths: a line break in one must not begin a new line here, nor an escape reach the terminal. */
static void hide_controls(char *text)
{
    for (char *s = text; *s != '\0'; s++) {
        unsigned char c = (unsigned char)s[0];

        if (c < 0x20 || c == 0x7f)
            *s = '?';
        else if (c == 0xc2 && (unsigned char)s[1] >= 0x80 && (unsigned char)s[1] < 0xa0)
            s[0] = s[1] = '?';
    }
}

/* The list is made for mistakes, so having no room for one only counts it. */
static struct config_message *message_new(struct config_messages *m)
{
    struct config_message *list;
    size_t cap = m->count;

    if (m->count >= MESSAGES_MAX)
        return NULL;
    if (cap == 0 || (cap >= 16 && (cap & (cap - 1)) == 0)) {
        list = realloc(m->list, (cap == 0 ? 16 : cap * 2) * sizeof(*list));
        if (list == NULL)
            return NULL;
        m->list = list;
    }
    return &m->list[m->count];
}

void cfg_message(struct config_messages *m, bool warning, uint32_t line, uint32_t column, const char *path,
                 const char *fmt, va_list ap)
{
    struct config_message *msg = message_new(m);
    char text[TEXT_MAX];
    int n = 0;

    if (warning)
        m->warnings++;
    else
        m->errors++;
    if (path[0] != '\0')
        n = snprintf(text, sizeof(text), "%s: ", path);
    vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
    hide_controls(text);
    if (msg == NULL || (msg->text = strdup(text)) == NULL) {
        m->left_out++;
        return;
    }
    msg->line = line;
    msg->column = column;
    msg->warning = warning;
    m->count++;
}

struct sorted {
    struct config_message message;
    size_t index; /* keeps messages of one place in the order they were found */
};

static int by_place(const void *a, const void *b)
{
    const struct sorted *x = a, *y = b;

    if (x->message.line != y->message.line)
        return x->message.line < y->message.line ? -1 : 1;
    if (x->message.column != y->message.column)
        return x->message.column < y->message.column ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

void cfg_messages_sort(struct config_messages *m)
{
    struct sorted *s = m->count < 2 ? NULL : malloc(m->count * sizeof(*s));

    if (s == NULL)
        return; /* in the order of finding, then */
    for (size_t i = 0; i < m->count; i++)
        s[i] = (struct sorted){ m->list[i], i };
    qsort(s, m->count, sizeof(*s), by_place);
    for (size_t i = 0; i < m->count; i++)
        m->list[i] = s[i].message;
    free(s);
}

void config_print_messages(FILE *to, const struct config_messages *m)
{
    const char *file = m->file != NULL ? m->file : "configuration";

    for (size_t i = 0; i < m->count; i++) {
        const struct config_message *msg = &m->list[i];

        fputs(file, to);
        if (msg->line > 0)
            fprintf(to, ":%u:%u", (unsigned)msg->line, (unsigned)msg->column);
        fprintf(to, ": %s%s\n", msg->warning ? "warning: " : "", msg->text);
    }
    if (m->left_out > 0)
        fprintf(to, "%s: and %zu more\n", file, m->left_out);
}

void config_messages_free(struct config_messages *m)
{
    for (size_t i = 0; i < m->count; i++)
        free(m->list[i].text);
    free(m->list);
    free(m->file);
    free(m->refused);
    *m = (struct config_messages){ 0 };
}

/* ---- values in messages ---------------------------------------------------------------------------------------- */

/* "socks5://bob:pw@host" without "bob:pw"; the last @ counts, since a password may hold one. Returns how much of @text is
 * the part up to "://", and where what follows the login begins. */
static size_t login_hidden(const char *text, const char **rest)
{
    const char *scheme = strstr(text, "://"), *at = strrchr(text, '@');

    *rest = text;
    if (scheme == NULL || at == NULL || at < scheme)
        return 0;
    *rest = at;
    return (size_t)(scheme - text) + 3;
}

/* No control bytes, neither of ASCII nor, in UTF-8, U+0080 to U+009F. */
static bool is_shown(const char *s)
{
    unsigned char c = (unsigned char)s[0];

    return c >= 0x20 && c != 0x7f && !(c == 0xc2 && (unsigned char)s[1] < 0xa0);
}

const char *cfg_quote(const char *text, char out[CFG_QUOTED_MAX])
{
    static const char hex[] = "0123456789abcdef";
    const char *rest;
    size_t head = login_hidden(text, &rest), n = 0;
    bool hidden = head > 0;

    out[n++] = '"';
    for (const char *s = text; *s != '\0'; s++) {
        if (hidden && s == text + head) {
            memcpy(out + n, "***", 3);
            n += 3;
            s = rest;
        }
        if (n > CFG_QUOTED_MAX - 12) { /* room for one escape, the dots, the quote and the NUL */
            /* not in the middle of a character */
            while (n > 1 && ((unsigned char)*s & 0xc0) == 0x80) {
                s--;
                n--;
            }
            memcpy(out + n, "...", 3);
            n += 3;
            break;
        }
        if (is_shown(s)) {
            out[n++] = *s;
            continue;
        }
        memcpy(out + n, "\\x", 2);
        out[n + 2] = hex[(unsigned char)*s >> 4];
        out[n + 3] = hex[(unsigned char)*s & 15];
        n += 4;
    }
    out[n++] = '"';
    out[n] = '\0';
    return out;
}

/* ---- "did you mean" ---------------------------------------------------------------------------------------------- */

static int folded(char c)
{
    return c == '_' ? '-' : tolower((unsigned char)c);
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Edits of one letter, and two neighbours swapped, count one each (optimal string alignment). */
unsigned cfg_word_distance(const char *a, const char *b, unsigned limit)
{
    unsigned rows[3][WORD_MAX + 1];
    size_t la = strlen(a), lb = strlen(b);

    if (la > WORD_MAX || lb > WORD_MAX || (la > lb ? la - lb : lb - la) > limit)
        return limit + 1;
    for (size_t j = 0; j <= lb; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= la; i++) {
        unsigned *now = rows[i % 3], *before = rows[(i + 2) % 3], *older = rows[(i + 1) % 3];
        unsigned best = now[0] = (unsigned)i;

        for (size_t j = 1; j <= lb; j++) {
            unsigned change = folded(a[i - 1]) != folded(b[j - 1]);

            now[j] = least(before[j - 1] + change, least(before[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && folded(a[i - 1]) == folded(b[j - 2]) &&
                folded(a[i - 2]) == folded(b[j - 1]))
                now[j] = least(now[j], older[j - 2] + 1);
            best = least(best, now[j]);
        }
        if (best > limit)
            return limit + 1;
    }
    return least(rows[la % 3][lb], limit + 1);
}

unsigned cfg_slips_allowed(const char *word)
{
    size_t len = strlen(word);

    return len < 3 ? 0 : len < 6 ? 1 : len < 12 ? 2 : 3;
}
