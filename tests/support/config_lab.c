/* config_lab.c - see config_lab.h */
#include "config_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static char *printed(const struct config_messages *m)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    assert_non_null(f);
    config_print_messages(f, m);
    fclose(f);
    if (len > 0)
        text[len - 1] = '\0'; /* the last line end */
    return text;
}

/* What was said, after checking that the result fits it. */
static char *outcome(int r, struct config *c, struct config_messages *m)
{
    char *text = printed(m);

    if (r == 0) {
        assert_int_equal(m->errors, 0);
        assert_non_null(c);
    } else {
        assert_true(m->errors > 0);
        assert_null(c);
    }
    config_free(c);
    config_messages_free(m);
    return text;
}

char *lab_says_bytes(const char *text, size_t len)
{
    struct config_messages m = { 0 };
    struct config *c = NULL;
    int r = config_load_text(text, len, "t.yaml", &c, &m);

    return outcome(r, c, &m);
}

char *lab_says(const char *yaml)
{
    return lab_says_bytes(yaml, strlen(yaml));
}

char *lab_says_file(const char *path)
{
    struct config_messages m = { 0 };
    struct config *c = NULL;
    int r = config_load_file(path, &c, &m);

    return outcome(r, c, &m);
}

struct config *lab_load(const char *yaml)
{
    struct config_messages m = { 0 };
    struct config *c = NULL;
    int r = config_load_text(yaml, strlen(yaml), "t.yaml", &c, &m);

    if (r != 0)
        config_print_messages(stderr, &m);
    assert_int_equal(r, 0);
    config_messages_free(&m);
    return c;
}

int lab_check_rows(const struct lab_row *rows, size_t n)
{
    int wrong = 0;

    for (size_t i = 0; i < n; i++) {
        char *says = lab_says(rows[i].yaml);

        if (strcmp(says, rows[i].says) != 0) {
            print_error("%s\n  said: %s\n  not:  %s\n", rows[i].yaml, says, rows[i].says);
            wrong++;
        }
        free(says);
    }
    return wrong;
}
