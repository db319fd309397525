/* reference.c - docs/config.md, printed from the schema: what the loader obeys is what people read. */
#include "config_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static const char intro[] =
    "# Configuration\n"
    "\n"
    "One YAML file drives every command. This page is printed from the table that the loader obeys\n"
    "(`culvert check --schema`), so it cannot say anything else than the program does; a test compares the "
    "two.\n"
    "\n"
    "    culvert check FILE      every mistake at once, each with line, column and what would work\n"
    "\n"
    "A first file:\n"
    "\n"
    "```yaml\n"
    "tun:\n"
    "  auto-route: true\n"
    "proxies:\n"
    "  - {name: up, type: socks5, server: 192.0.2.10, port: 1080}\n"
    "rules:\n"
    "  - MATCH,up\n"
    "```\n"
    "\n"
    "How values are written:\n"
    "\n"
    "- A key that is unknown, or is there twice, is an error; so is a name that nothing has. Nothing is "
    "guessed.\n"
    "- Booleans are `true` and `false`. `yes`, `no`, `on` and `off` are text.\n"
    "- *number*: decimal, without a leading zero. *mark*: a number, or hex as in `0x1b6`.\n"
    "- *duration*: `300ms`, `60s`, `5m`, `2h`; a bare number is seconds. *size*: `64KiB`, `8MiB`, `1GiB`; a "
    "bare number is bytes.\n"
    "- *list*: a single value is a list of one.\n"
    "- *secret*: text, `{file: PATH}`, `{env: NAME}` or `{credential: NAME}` (systemd's LoadCredential). A "
    "relative path is\n"
    "  relative to the folder of the configuration. Nothing ever prints a secret; a file with one that all "
    "users can read\n"
    "  earns a warning.\n"
    "- The file itself: UTF-8, one document, at most 16 MiB, 32 levels deep; aliases may expand to 10,000 "
    "values; merge keys\n"
    "  (`<<`) and tags are not read.\n"
    "\n"
    "*Later* marks a key that the loader knows and that is not built yet: it is refused as \"not supported "
    "yet\".\n"
    "*Restart* marks a key, or a section, that a reload leaves as it was: the log names it when it has "
    "changed.\n";

/* A table's cell may hold no bar. */
static void put_cell(FILE *to, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|')
            fputc('\\', to);
        fputc(*text, to);
    }
}

static void put_choices(FILE *to, const struct cfg_choice *choices, enum cfg_state state, const char *before)
{
    const char *between = before;

    for (const struct cfg_choice *c = choices; c->text != NULL; c++) {
        if (c->state != state)
            continue;
        fprintf(to, "%s`%s`", between, c->text);
        between = ", ";
    }
}

/* 3600000 as 1h: the same units as the file's. */
static void put_duration(FILE *to, uint64_t ms)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = { { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 } };
    size_t i = 0;

    while (ms % units[i].ms != 0)
        i++;
    fprintf(to, "%" PRIu64 "%s", ms / units[i].ms, units[i].name);
}

static void put_range(FILE *to, const struct cfg_key *k)
{
    bool duration = k->type == &cfg_duration || k->type == &cfg_duration_or_off;

    if (k->max == 0 || k->type == &cfg_socket_path)
        return;
    fputs(", ", to);
    if (k->type == &cfg_auto_size)
        fprintf(to, "%" PRIu64 "MiB or more", k->min >> 20);
    else if (k->min == k->max)
        fprintf(to, "%" PRIu64, k->min);
    else if (duration) {
        put_duration(to, k->min);
        fputs(" to ", to);
        put_duration(to, k->max);
    } else
        fprintf(to, "%" PRIu64 " to %" PRIu64, k->min, k->max);
}

void cfg_put_value(FILE *to, const struct cfg_key *k)
{
    if (k->choices != NULL) {
        put_choices(to, k->choices, CFG_HERE, "");
        put_choices(to, k->choices, CFG_LATER, "; later ");
        return;
    }
    put_cell(to, k->type->name);
    put_range(to, k);
}

void cfg_put_default(FILE *to, const struct cfg_key *k)
{
    if (k->required)
        fputs("*required*", to);
    else if (k->shown != NULL)
        put_cell(to, k->shown);
    else if (k->fallback == NULL)
        fputs(" ", to);
    else {
        const char *rest = k->fallback;

        while (*rest != '\0') { /* a list is separated by spaces */
            size_t len = k->type->list ? strcspn(rest, " ") : strlen(rest);

            fprintf(to, "%s`%.*s`", rest == k->fallback ? "" : ", ", (int)len, rest);
            rest += len;
            rest += strspn(rest, " ");
        }
    }
}

static void put_key(FILE *to, const struct cfg_key *k)
{
    fprintf(to, "| `%s` | ", k->name);
    if (k->state == CFG_ALIAS) {
        fprintf(to, "as `%s` | | mihomo's spelling |\n", k->alias);
        return;
    }
    cfg_put_value(to, k);
    fputs(" | ", to);
    cfg_put_default(to, k);
    fputs(" | ", to);
    if (k->state == CFG_LATER)
        fputs("*Later.* ", to);
    if (k->fixed)
        fputs("*Restart.* ", to);
    put_cell(to, k->help != NULL ? k->help : k->section != NULL ? k->section->help : "");
    fputs(" |\n", to);
}

static void put_section(FILE *to, const struct cfg_section *s, bool later)
{
    bool top = s->where[0] == '\0';

    fprintf(to, "\n## %s%s%s\n\n%s%s\n\n| key | value | default | meaning |\n|---|---|---|---|\n",
            top ? "" : "`", top ? "Top level" : s->where, top ? "" : "`", s->help,
            later ? " *Later, all of it.*" : "");
    for (const struct cfg_key *k = s->keys; k->name != NULL; k++)
        put_key(to, k);
    for (const struct cfg_key *k = s->keys; k->name != NULL; k++) {
        if (k->section != NULL)
            put_section(to, k->section, later || k->state == CFG_LATER);
    }
}

static void put_foreign(FILE *to)
{
    const struct cfg_foreign *list;
    size_t n;

    list = cfg_foreign_list(&n);
    fputs("\n## Keys of mihomo\n\n"
          "`proxies` of type socks5, `rules` and most of `tun` can be pasted from a mihomo file. These keys "
          "are known and refused;\n"
          "the message says the same as this table.\n\n| where | key | instead |\n|---|---|---|\n",
          to);
    for (size_t i = 0; i < n; i++) {
        fprintf(to, "| %s | `%s` | ", list[i].where[0] == '\0' ? "top level" : list[i].where, list[i].name);
        put_cell(to, list[i].instead);
        fputs(" |\n", to);
    }
}

static void put_hev(FILE *to)
{
    const struct cfg_section *s;

    fputs("\n# Files of hev-socks5-tunnel\n\n"
          "A file with `tunnel` and `socks5` at the top level is read as hev-socks5-tunnel reads it: its "
          "keys, its "
          "units, its defaults.\n"
          "It holds these four sections and no other key. The last column says which key of ours does the "
          "same.\n",
          to);
    for (size_t i = 0; (s = cfg_hev_section(i)) != NULL; i++)
        put_section(to, s, false);
}

int config_print_reference(FILE *to)
{
    fputs(intro, to);
    put_section(to, &cfg_schema, false);
    put_foreign(to);
    put_hev(to);
    return fflush(to) != 0 || ferror(to) ? -EIO : 0;
}
