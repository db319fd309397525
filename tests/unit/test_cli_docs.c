/* test_cli_docs.c - the manual page of the program and the completions in the tree are what the table behind --help says.
 * Run with UPDATE=1 in the environment, it writes them anew. */
#include "app/cli_docs.h"
#include "config/config_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define MANUAL      SOURCE_DIR "/docs/culvert.1.scd"
#define COMPLETIONS SOURCE_DIR "/packaging/completions/"

static char *printed(void (*print)(FILE *to))
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    assert_non_null(f);
    print(f);
    assert_int_equal(fclose(f), 0);
    return text;
}

static char *file_text(const char *path)
{
    struct err err = { "" };
    unsigned mode;
    size_t len;
    char *text;

    if (cfg_read_file(path, 1 << 20, &text, &len, &mode, &err) == 0)
        return text;
    print_error("%s: %s\n", path, err.text);
    return strdup("");
}

static void compare(const char *path, const char *now, const char *wanted)
{
    if (strcmp(now, wanted) == 0)
        return;
    if (getenv("UPDATE") != NULL) {
        FILE *f = fopen(path, "w");

        assert_non_null(f);
        fputs(wanted, f);
        assert_int_equal(fclose(f), 0);
        return;
    }
    print_error("%s is not what the table says; run this test with UPDATE=1 to write it anew\n", path);
    assert_string_equal(now, wanted);
}

static void file_is(const char *path, void (*print)(FILE *to))
{
    char *now = file_text(path), *wanted = printed(print);

    compare(path, now, wanted);
    free(wanted);
    free(now);
}

/* The part of the page between two headings is what @print says. */
static void part_is(const char *path, const char *from, const char *to, void (*print)(FILE *to))
{
    char *now = file_text(path), *middle = printed(print), *wanted = NULL;
    char *first = strstr(now, from), *last = strstr(now, to);
    size_t len = 0;
    FILE *f = open_memstream(&wanted, &len);

    assert_non_null(f);
    assert_non_null(first);
    assert_non_null(last);
    assert_true(first < last);
    fprintf(f, "%.*s%s%s\n%s", (int)(first - now), now, from, middle, last);
    assert_int_equal(fclose(f), 0);
    compare(path, now, wanted);
    free(wanted);
    free(middle);
    free(now);
}

static void the_manual_has_the_synopsis_of_every_command(void **state)
{
    (void)state;
    part_is(MANUAL, "# SYNOPSIS\n\n", "# DESCRIPTION\n", cli_print_manual_synopsis);
}

static void the_manual_has_every_option_and_its_commands(void **state)
{
    (void)state;
    part_is(MANUAL, "# OPTIONS\n\n", "# SIGNALS\n", cli_print_manual_options);
}

static void the_shells_complete_what_the_program_takes(void **state)
{
    (void)state;
    file_is(COMPLETIONS "culvert.bash", cli_print_bash);
    file_is(COMPLETIONS "_culvert", cli_print_zsh);
    file_is(COMPLETIONS "culvert.fish", cli_print_fish);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_manual_has_the_synopsis_of_every_command),
        cmocka_unit_test(the_manual_has_every_option_and_its_commands),
        cmocka_unit_test(the_shells_complete_what_the_program_takes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
