/* key_rows.h - one row for each key of the configuration: written right, written wrong, and what is said then. */
#ifndef CULVERT_TESTS_KEY_ROWS_H
#define CULVERT_TESTS_KEY_ROWS_H

#include <stddef.h>

struct key_row {
    const char *path;  /* of the key in the schema */
    const char *right; /* loads without a word */
    const char *wrong; /* and this says: */
    const char *says;
};
extern const struct key_row key_rows[];
extern const size_t key_row_count;

#endif
