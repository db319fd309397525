/* cli_impl.h - the table of commands and options behind the parser, for those who print it: help, manual page, completions. */
#ifndef CULVERT_APP_CLI_IMPL_H
#define CULVERT_APP_CLI_IMPL_H

#include "cli.h"

#define ON(command) (1u << (command))

struct command {
    const char *name;
    const char *words; /* what stands behind the options */
    const char *help;
    int min_words, max_words; /* max -1: any number */
};

struct option {
    const char *name;
    const char *value; /* what is expected; NULL: a switch */
    const char *help;
    size_t field; /* of struct cli: a const char * or, for a switch, a bool */
    unsigned commands;
    char letter; /* 0: none */
};

const struct command *cli_command_at(size_t i); /* NULL: no more */
const struct option *cli_option_at(size_t i);   /* NULL: no more */
/** cli_print_synopsis() - "culvert check FILE", without the end of the line */
void cli_print_synopsis(FILE *to, const struct command *c);

#endif
