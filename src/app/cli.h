/* cli.h - the command line: one table that is both the parser and `--help`.
 * Knows     which commands and options exist; not what they do. Pure: it reads argv and opens nothing. */
#ifndef CULVERT_APP_CLI_H
#define CULVERT_APP_CLI_H

#include <stdio.h>

#include "culvert/base.h"

enum cli_command {
    CLI_RUN,
    CLI_EXEC,
    CLI_SERVE,
    CLI_DEMO,
    CLI_CHECK,
    CLI_EXPLAIN,
    CLI_STATUS,
    CLI_CLEANUP,
    CLI_CONNECTIONS,
    CLI_RELOAD,
    CLI_SELECT,
    CLI_DOCTOR,
    CLI_HELP,
    CLI_VERSION
};

enum { EXIT_FINE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 }; /* config.md section 5 */

struct cli { /* all of it points into argv; what was not given is NULL or false */
    enum cli_command command;
    enum cli_command topic; /* CLI_HELP: about this command; CLI_HELP itself: about all */
    const char *config, *proxy, *tun, *dns, *listen, *api;
    const char *drain, *root, *net, *src, *uid, *process, *confirm;
    bool dry_run, builtin, flows, ended, stopped;
    char *const *
        words; /* exec: COMMAND and its arguments, ends with NULL; check: FILE is the first, explain: HOST[:PORT], select: GROUP MEMBER */
};

/** cli_parse() - `culvert ...` into @out
 * Return: 0; -EINVAL with a sentence in @err, and then out->topic is the command that was meant (CLI_HELP: none). */
int cli_parse(int argc, char *const argv[], struct cli *out, struct err *err);
/** cli_print_help() - all commands, or one with its options */
void cli_print_help(FILE *to, enum cli_command topic);
/** cli_print_usage() - one line: "usage: culvert check FILE" */
void cli_print_usage(FILE *to, enum cli_command topic);

#endif
