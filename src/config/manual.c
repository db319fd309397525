/* manual.c - docs/culvert.yaml.5.scd, the manual page of the file, printed from the schema for scdoc. */
#include "config_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char head[] =
    "culvert.yaml(5)\n"
    "\n"
    "# NAME\n"
    "\n"
    "culvert.yaml - the configuration of *culvert*(1)\n"
    "\n"
    "# DESCRIPTION\n"
    "\n"
    "One YAML file drives every command. *culvert check* FILE names every mistake in it, each with line, "
    "column "
    "and what would work.\n"
    "A key that is unknown, or is there twice, is an error. A duration is written as 300ms, 60s, 5m or 2h; a "
    "size as 64KiB, 8MiB or 1GiB.\n"
    "Where a list is wanted, a single value is a list of one. A secret is text, {file: PATH}, {env: NAME} or "
    "{credential: NAME}.\n"
    "_Later_ marks what is known and refused as not supported yet; _Restart_ what a reload leaves as it "
    "was.\n"
    "This page is printed from the table that the loader obeys.\n";

static const char tail[] = "\n"
                           "# EXAMPLE\n"
                           "\n"
                           "All traffic of a machine through one proxy, but for the network at home:\n"
                           "\n"
                           "```\n"
                           "tun:\n"
                           "  auto-route: true\n"
                           "proxies:\n"
                           "  - {name: up, type: socks5, server: 192.0.2.10, port: 1080}\n"
                           "rules:\n"
                           "  - IP-CIDR,192.168.0.0/16,DIRECT\n"
                           "  - MATCH,up\n"
                           "```\n"
                           "\n"
                           "# SEE ALSO\n"
                           "\n"
                           "*culvert*(1)\n";

/* The little Markdown of our own help texts as scdoc: `word` is bold, *word* underlined, and an escaped bar a bar. */
static void put_text(FILE *to, const char *text)
{
    bool word = false, stressed = false;

    for (; *text != '\0'; text++) {
        if (*text == '`') {
            word = !word;
            putc('*', to);
        } else if (!word && *text == '*' && (stressed || (text[1] >= 'A' && text[1] <= 'z'))) {
            stressed = !stressed;
            putc('_', to);
        } else if (*text == '\\' && text[1] == '|')
            continue;
        else {
            if (strchr("*_\\#", *text) != NULL)
                putc('\\', to);
            putc(*text, to);
        }
    }
}

static void put_cell(FILE *to, const char *before, void (*put)(FILE *to, const struct cfg_key *k),
                     const struct cfg_key *k)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    if (f == NULL)
        return;
    put(f, k);
    if (fclose(f) == 0 && strspn(text, " ") < len) {
        fputs(before, to);
        put_text(to, text);
    }
    free(text);
}

static void put_key(FILE *to, const struct cfg_key *k)
{
    const char *help = k->help != NULL ? k->help : k->section != NULL ? k->section->help : "";

    fprintf(to, "\n*%s*", k->name);
    if (k->state == CFG_ALIAS) {
        fprintf(to, "\n\tAs *%s*: mihomo's spelling.\n", k->alias);
        return;
    }
    put_cell(to, ": ", cfg_put_value, k);
    put_cell(to, k->required ? "; " : "; default ", cfg_put_default, k);
    fprintf(to, "\n\t%s%s", k->state == CFG_LATER ? "_Later._ " : "", k->fixed ? "_Restart._ " : "");
    put_text(to, help);
    putc('\n', to);
}

static void put_section(FILE *to, const struct cfg_section *s)
{
    fprintf(to, "\n## %s\n\n",
            s->where[0] == '\0' ? "TOP LEVEL" : s->where); /* scdoc takes headings as they are */
    put_text(to, s->help);
    putc('\n', to);
    for (const struct cfg_key *k = s->keys; k->name != NULL; k++)
        put_key(to, k);
    for (const struct cfg_key *k = s->keys; k->name != NULL; k++) {
        if (k->section != NULL)
            put_section(to, k->section);
    }
}

int config_print_manual(FILE *to)
{
    fputs(head, to);
    fputs("\n# KEYS\n", to);
    put_section(to, &cfg_schema);
    fputs(tail, to);
    return fflush(to) != 0 || ferror(to) ? -EIO : 0;
}
