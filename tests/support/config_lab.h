/* config_lab.h - a configuration from text, and what the loader says about it, as one string. */
#ifndef CULVERT_TEST_CONFIG_LAB_H
#define CULVERT_TEST_CONFIG_LAB_H

#include "culvert/config.h"

/** lab_says() - load @yaml as the file "t.yaml" and forget it
 * Return: the messages as they are printed, or "" when there is none; malloc'ed. */
char *lab_says(const char *yaml);
char *lab_says_bytes(const char *text, size_t len);
char *lab_says_file(const char *path);
/** lab_load() - load @yaml, which must be right. Prints the messages and fails the test otherwise. */
struct config *lab_load(const char *yaml);

struct lab_row {
    const char *yaml;
    const char *says; /* all that is printed, without the last line end; "": nothing */
};
/** lab_check_rows() - print every row that says something else. Return: how many. */
int lab_check_rows(const struct lab_row *rows, size_t n);

#endif
