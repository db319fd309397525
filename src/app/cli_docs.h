/* cli_docs.h - what is printed from the table of commands and kept in the tree: parts of the manual page, completions of shells.
 * Knows     the table (cli_impl.h) and how scdoc, bash, zsh and fish write; tests/unit/test_cli_docs.c compares and writes the files. */
#ifndef CULVERT_APP_CLI_DOCS_H
#define CULVERT_APP_CLI_DOCS_H

#include <stdio.h>

void cli_print_manual_synopsis(FILE *to); /* of culvert(1), for scdoc */
void cli_print_manual_options(FILE *to);
void cli_print_bash(FILE *to); /* packaging/completions/culvert.bash */
void cli_print_zsh(FILE *to);  /* packaging/completions/_culvert */
void cli_print_fish(FILE *to); /* packaging/completions/culvert.fish */

#endif
