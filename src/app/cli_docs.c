/* cli_docs.c - the manual page's synopsis and options, and the completions of three shells, from the table behind --help. */
#include "cli_docs.h"

#include <string.h>

#include "cli_impl.h"

#define FROM_TABLE "printed from the table of src/app/cli.c; tests/unit/test_cli_docs.c compares"

/* Text with a backslash before each of @special. */
static void put_escaped(FILE *to, const char *text, const char *special)
{
    for (; *text != '\0'; text++) {
        if (strchr(special, *text) != NULL)
            putc('\\', to);
        putc(*text, to);
    }
}

/* What a shell may offer for a value or a word. */
enum offer { OFFER_NOTHING, OFFER_FILES, OFFER_COMMANDS, OFFER_NETWORKS };

static enum offer offer_for(const char *value)
{
    if (strcmp(value, "FILE") == 0 || strcmp(value, "PATH") == 0)
        return OFFER_FILES;
    if (strncmp(value, "-- ", 3) == 0)
        return OFFER_COMMANDS;
    return strcmp(value, "NETWORK") == 0 ? OFFER_NETWORKS : OFFER_NOTHING;
}

/* ---- scdoc ---- */

void cli_print_manual_synopsis(FILE *to)
{
    const struct command *c;

    for (size_t i = 0; (c = cli_command_at(i)) != NULL; i++) {
        char line[512] = "";
        size_t head = strlen("culvert ") + strlen(c->name);
        FILE *memory = fmemopen(line, sizeof(line), "w");

        if (memory == NULL)
            return;
        cli_print_synopsis(memory, c);
        fclose(memory);
        fprintf(to, "*%.*s*%s++\n", (int)head, line, line + head);
    }
    fputs("*culvert* --version++\n*culvert* --help\n", to);
}

static void put_commands_of(FILE *to, const struct option *o, const char *between)
{
    const struct command *c;
    const char *now = "";

    for (size_t i = 0; (c = cli_command_at(i)) != NULL; i++) {
        if (!(o->commands & ON(i)))
            continue;
        fprintf(to, "%s%s", now, c->name);
        now = between;
    }
}

void cli_print_manual_options(FILE *to)
{
    const struct option *o;

    for (size_t i = 0; (o = cli_option_at(i)) != NULL; i++) {
        if (i > 0)
            putc('\n', to);
        if (o->letter != 0)
            fprintf(to, "*-%c*, ", o->letter);
        fprintf(to, "*%s*%s%s\n\tFor *", o->name, o->value != NULL ? " " : "",
                o->value != NULL ? o->value : "");
        put_commands_of(to, o, "*, *");
        fputs("*: ", to);
        put_escaped(to, o->help, "*_\\");
        fputs(".\n", to);
    }
}

/* ---- bash ---- */

static void put_bash_options(FILE *to, size_t command)
{
    const struct option *o;

    for (size_t i = 0; (o = cli_option_at(i)) != NULL; i++) {
        if (!(o->commands & ON(command)))
            continue;
        fprintf(to, "%s ", o->name);
        if (o->letter != 0)
            fprintf(to, "-%c ", o->letter);
    }
    fputs("--help", to);
}

/* All options that want the same kind of value, as a pattern of `case`. */
static void put_bash_values(FILE *to, enum offer offer, const char *reply)
{
    const struct option *o;
    const char *between = "    ";

    for (size_t i = 0; (o = cli_option_at(i)) != NULL; i++) {
        if (o->value == NULL || offer_for(o->value) != offer)
            continue;
        fprintf(to, "%s%s", between, o->name);
        if (o->letter != 0)
            fprintf(to, " | -%c", o->letter);
        between = " | ";
    }
    fprintf(to, ")\n        %s\n        return\n        ;;\n", reply);
}

static const char *bash_words(const struct command *c)
{
    switch (offer_for(c->words)) {
    case OFFER_FILES:
        return "-f";
    case OFFER_COMMANDS:
        return "-c";
    case OFFER_NOTHING:
    case OFFER_NETWORKS:
        break;
    }
    return "-W ''";
}

void cli_print_bash(FILE *to)
{
    const struct command *c;

    fputs("# bash completion of culvert: " FROM_TABLE "\n"
          "# shellcheck shell=bash disable=SC2207\n"
          "_culvert() {\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n\n"
          "    COMPREPLY=()\n"
          "    if [[ $COMP_CWORD -eq 1 ]]; then\n"
          "        COMPREPLY=($(compgen -W '",
          to);
    for (size_t i = 0; (c = cli_command_at(i)) != NULL; i++)
        fprintf(to, "%s ", c->name);
    fputs("help --version --help' -- \"$cur\"))\n        return\n    fi\n    case $prev in\n", to);
    put_bash_values(to, OFFER_FILES, "COMPREPLY=($(compgen -f -- \"$cur\"))");
    put_bash_values(to, OFFER_NETWORKS, "COMPREPLY=($(compgen -W 'tcp udp icmp' -- \"$cur\"))");
    put_bash_values(to, OFFER_NOTHING, ":");
    fputs("    esac\n    case ${COMP_WORDS[1]} in\n", to);
    for (size_t i = 0; (c = cli_command_at(i)) != NULL; i++) {
        fprintf(to, "    %s)\n        if [[ $cur == -* ]]; then\n            COMPREPLY=($(compgen -W '",
                c->name);
        put_bash_options(to, i);
        fprintf(to,
                "' -- \"$cur\"))\n        else\n            COMPREPLY=($(compgen %s -- \"$cur\"))\n        "
                "fi\n        ;;\n",
                bash_words(c));
    }
    fputs("    esac\n}\ncomplete -o filenames -F _culvert culvert\n", to);
}

/* ---- zsh ---- */

/* In '...': a quote ends it, stands escaped, and opens it again. */
static void put_zsh_text(FILE *to, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            fputs("'\\'", to);
        else if (strchr("[]\\:", *text) != NULL)
            putc('\\', to);
        putc(*text, to);
    }
}

static const char *zsh_action(enum offer offer)
{
    switch (offer) {
    case OFFER_FILES:
        return "_files";
    case OFFER_COMMANDS:
        return "_normal";
    case OFFER_NETWORKS:
        return "(tcp udp icmp)";
    case OFFER_NOTHING:
        break;
    }
    return " ";
}

static void put_zsh_option(FILE *to, const struct option *o)
{
    for (int pass = o->letter != 0 ? 0 : 1; pass < 2; pass++) {
        if (pass == 0)
            fprintf(to, " \\\n            '-%c[", o->letter);
        else
            fprintf(to, " \\\n            '%s%s[", o->name, o->value != NULL ? "=" : "");
        put_zsh_text(to, o->help);
        putc(']', to);
        if (o->value != NULL)
            fprintf(to, ":%s:%s", o->value, zsh_action(offer_for(o->value)));
        putc('\'', to);
    }
}

static void put_zsh_command(FILE *to, const struct command *c, size_t number)
{
    const struct option *o;

    fprintf(to, "    %s)\n        _arguments '--help[how it is used]'", c->name);
    for (size_t i = 0; (o = cli_option_at(i)) != NULL; i++) {
        if (o->commands & ON(number))
            put_zsh_option(to, o);
    }
    if (offer_for(c->words) == OFFER_COMMANDS)
        fputs(" \\\n            '*::command:_normal'", to);
    else if (c->words[0] != '\0')
        fprintf(to, " \\\n            '1:%s:%s'", offer_for(c->words) == OFFER_FILES ? "file" : "target",
                zsh_action(offer_for(c->words)));
    fputs("\n        ;;\n", to);
}

void cli_print_zsh(FILE *to)
{
    const struct command *c;

    fputs("#compdef culvert\n# zsh completion of culvert: " FROM_TABLE "\n"
          "local -a commands\ncommands=(\n",
          to);
    for (size_t i = 0; (c = cli_command_at(i)) != NULL; i++) {
        fprintf(to, "    '%s:", c->name);
        put_zsh_text(to, c->help);
        fputs("'\n", to);
    }
    fputs(")\n"
          "if (( CURRENT == 2 )); then\n"
          "    _describe command commands\n"
          "    _arguments '--version[which version this is]' '--help[all commands]'\n"
          "    return\n"
          "fi\n"
          "local name=$words[2]\n"
          "shift words\n"
          "(( CURRENT-- ))\n"
          "case $name in\n",
          to);
    for (size_t i = 0; (c = cli_command_at(i)) != NULL; i++)
        put_zsh_command(to, c, i);
    fputs("esac\n", to);
}

/* ---- fish ---- */

static void put_fish_option(FILE *to, const struct option *o)
{
    enum offer offer = o->value != NULL ? offer_for(o->value) : OFFER_NOTHING;

    fputs("complete -c culvert -n '__fish_seen_subcommand_from ", to);
    put_commands_of(to, o, " ");
    fprintf(to, "' -l %s", o->name + 2);
    if (o->letter != 0)
        fprintf(to, " -s %c", o->letter);
    if (offer == OFFER_FILES)
        fputs(" -rF", to);
    else if (offer == OFFER_NETWORKS)
        fputs(" -xa 'tcp udp icmp'", to);
    else if (o->value != NULL)
        fputs(" -x", to);
    fputs(" -d '", to);
    put_escaped(to, o->help, "'\\");
    fputs("'\n", to);
}

void cli_print_fish(FILE *to)
{
    const struct command *c;
    const struct option *o;

    fputs("# fish completion of culvert: " FROM_TABLE "\n"
          "complete -c culvert -f\n"
          "complete -c culvert -n __fish_use_subcommand -l version -d 'which version this is'\n"
          "complete -c culvert -l help -d 'how it is used'\n",
          to);
    for (size_t i = 0; (c = cli_command_at(i)) != NULL; i++) {
        fprintf(to, "complete -c culvert -n __fish_use_subcommand -a %s -d '", c->name);
        put_escaped(to, c->help, "'\\");
        fputs("'\n", to);
        if (offer_for(c->words) == OFFER_FILES)
            fprintf(to, "complete -c culvert -n '__fish_seen_subcommand_from %s' -F\n", c->name);
        else if (offer_for(c->words) == OFFER_COMMANDS)
            fprintf(to,
                    "complete -c culvert -n '__fish_seen_subcommand_from %s' -xa "
                    "'(__fish_complete_subcommand)'\n",
                    c->name);
    }
    for (size_t i = 0; (o = cli_option_at(i)) != NULL; i++)
        put_fish_option(to, o);
}
