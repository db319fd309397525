/* test_cli.c - what the command line takes and refuses, as a table (faults.md C12). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/cli.h"
#include "app/confirm.h"

enum { WORDS_MAX = 16 };

/* @line split at spaces, as a shell without quotes would. */
static int split(const char *line, char storage[256], char *argv[WORDS_MAX])
{
    int n = 0;

    snprintf(storage, 256, "%s", line);
    for (char *word = strtok(storage, " "); word != NULL; word = strtok(NULL, " "))
        argv[n++] = word;
    argv[n] = NULL;
    return n;
}

static const struct row {
    const char *line;
    const char *error; /* NULL: it is taken; else a part of the sentence */
    enum cli_command command;
} rows[] = {
    { "culvert run", NULL, CLI_RUN },
    { "culvert run -c a.yaml", NULL, CLI_RUN },
    { "culvert run --config a.yaml", NULL, CLI_RUN },
    { "culvert run --config=a.yaml --tun=tun7 --dry-run", NULL, CLI_RUN },
    { "culvert run --proxy socks5://192.0.2.1:1080", NULL, CLI_RUN },
    { "culvert exec -- true", NULL, CLI_EXEC },
    { "culvert exec true", NULL, CLI_EXEC },
    { "culvert exec --builtin --dns 192.0.2.53 -- curl -s -c x --help", NULL, CLI_EXEC },
    { "culvert exec curl --proxy y", NULL, CLI_EXEC },
    { "culvert serve", NULL, CLI_SERVE },
    { "culvert serve --listen 127.0.0.1:1080", NULL, CLI_SERVE },
    { "culvert demo", NULL, CLI_DEMO },
    { "culvert check a.yaml", NULL, CLI_CHECK },
    { "culvert check -- -odd-name.yaml", NULL, CLI_CHECK },
    { "culvert check -", NULL, CLI_CHECK },
    { "culvert status --api /tmp/x --flows", NULL, CLI_STATUS },
    { "culvert cleanup", NULL, CLI_CLEANUP },
    { "culvert cleanup --stopped", NULL, CLI_CLEANUP },
    { "culvert run --confirm 60s", NULL, CLI_RUN },
    { "culvert connections --api /tmp/x", NULL, CLI_CONNECTIONS },
    { "culvert reload --drain 60s", NULL, CLI_RELOAD },
    { "culvert select --api /tmp/x pick office", NULL, CLI_SELECT },
    { "culvert select pick office --api=/tmp/x", NULL, CLI_SELECT },
    { "culvert --help", NULL, CLI_HELP },
    { "culvert -h", NULL, CLI_HELP },
    { "culvert help", NULL, CLI_HELP },
    { "culvert help exec", NULL, CLI_HELP },
    { "culvert run --help", NULL, CLI_HELP },
    { "culvert check --help", NULL, CLI_HELP },
    { "culvert --version", NULL, CLI_VERSION },
    { "culvert", "no command", CLI_HELP },
    { "culvert runn", "unknown command \"runn\"", CLI_HELP },
    { "culvert --bogus", "unknown option \"--bogus\"", CLI_HELP },
    { "culvert help bogus", "unknown command", CLI_HELP },
    { "culvert explain", "HOST[:PORT] is missing", CLI_EXPLAIN },
    { "culvert run --bogus", "unknown option \"--bogus\"", CLI_RUN },
    { "culvert run -x", "unknown option \"-x\"", CLI_RUN },
    { "culvert run -c", "--config needs a value: FILE", CLI_RUN },
    { "culvert run --proxy", "--proxy needs a value: URL", CLI_RUN },
    { "culvert run --proxy=", "--proxy needs a value", CLI_RUN },
    { "culvert run -c a -c b", "given twice", CLI_RUN },
    { "culvert run --dry-run=yes", "takes no value", CLI_RUN },
    { "culvert run check", "\"check\" is too much", CLI_RUN },
    { "culvert run --dns 1.2.3.4", "--dns does not belong to \"run\"", CLI_RUN },
    { "culvert run -c a --proxy b", "give one of them", CLI_RUN },
    { "culvert exec --builtin --proxy b -- true", "give one of them", CLI_EXEC },
    { "culvert exec", "COMMAND is missing", CLI_EXEC },
    { "culvert exec --", "COMMAND is missing", CLI_EXEC },
    { "culvert check", "FILE is missing", CLI_CHECK },
    { "culvert check a b", "\"b\" is too much", CLI_CHECK },
    { "culvert check a --tun b", "does not belong", CLI_CHECK },
    { "culvert demo now", "too much", CLI_DEMO },
    { "culvert --version now", "too much", CLI_VERSION },
};

static bool row_holds(const struct row *row)
{
    char storage[256], *argv[WORDS_MAX];
    struct err err = { "" };
    struct cli cli;
    int r = cli_parse(split(row->line, storage, argv), argv, &cli, &err);

    if (row->error == NULL && r == 0 && cli.command == row->command)
        return true;
    if (row->error != NULL && r == -EINVAL && strstr(err.text, row->error) != NULL &&
        cli.topic == row->command)
        return true;
    if (row->error != NULL && r == -EINVAL && strstr(err.text, row->error) != NULL &&
        row->command == CLI_VERSION)
        return true;
    print_error("%s: %d \"%s\", command %d, topic %d\n", row->line, r, err.text, cli.command, cli.topic);
    return false;
}

static void every_line_is_taken_or_refused_with_its_sentence(void **state) /* faults.md C12 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        wrong += !row_holds(&rows[i]);
    assert_int_equal(wrong, 0);
}

static void values_land_in_their_fields(void **state)
{
    char storage[256], *argv[WORDS_MAX];
    struct cli cli;

    (void)state;
    assert_int_equal(
        cli_parse(split("culvert run -c a.yaml --tun=tun7 --dry-run", storage, argv), argv, &cli, NULL), 0);
    assert_string_equal(cli.config, "a.yaml");
    assert_string_equal(cli.tun, "tun7");
    assert_true(cli.dry_run);
    assert_null(cli.proxy);
    assert_int_equal(
        cli_parse(split("culvert exec --dns ::1 --proxy=socks5://x:1 -- curl -s --dns y", storage, argv),
                  argv, &cli, NULL),
        0);
    assert_string_equal(cli.dns, "::1");
    assert_string_equal(cli.words[0], "curl");
    assert_string_equal(cli.words[3], "y");
    assert_null(cli.words[4]);
    assert_int_equal(cli_parse(split("culvert check a.yaml", storage, argv), argv, &cli, NULL), 0);
    assert_string_equal(cli.words[0], "a.yaml");
}

static void an_argument_of_64_kib_makes_a_short_sentence(void **state) /* faults.md C12 */
{
    char *big = malloc(65537), name[] = "culvert", run[] = "run", *argv[] = { name, big, NULL },
         *argv2[] = { name, run, big, NULL };
    struct err err = { "" };
    struct cli cli;

    (void)state;
    memset(big, 'x', 65536);
    big[65536] = '\0';
    assert_int_equal(cli_parse(2, argv, &cli, &err), -EINVAL);
    assert_in_range(strlen(err.text), 1, 100);
    memset(big, '-', 2);
    assert_int_equal(cli_parse(3, argv2, &cli, &err), -EINVAL);
    assert_in_range(strlen(err.text), 1, 100);
    free(big);
}

static void help_names_every_command_and_its_options(void **state)
{
    static const char *const wanted[] = { "culvert run [-c FILE] [--proxy URL] [--tun NAME] [--dry-run]",
                                          "culvert check FILE",
                                          "culvert exec [-c FILE]",
                                          "-- COMMAND ...",
                                          "culvert serve [-c FILE] [--listen ADDR:PORT]",
                                          "culvert demo",
                                          "culvert status",
                                          "--version",
                                          "Exit status" };
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    (void)state;
    cli_print_help(f, CLI_HELP);
    fclose(f);
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        if (strstr(text, wanted[i]) == NULL)
            fail_msg("help lacks \"%s\"", wanted[i]);
    }
    free(text);
}

static void the_time_to_confirm_is_seconds_or_minutes(void **state)
{
    static const struct {
        const char *text;
        uint64_t us; /* 0: refused */
    } times[] = { { "60s", 60000000 }, { "60", 60000000 }, { "2m", 120000000 }, { "0s", 0 },   { "1h", 0 },
                  { "s", 0 },          { "", 0 },          { "-5", 0 },         { "90000", 0 } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(times); i++) {
        struct err err = { "" };
        uint64_t us = 0;

        assert_int_equal(confirm_parse(times[i].text, &us, &err), times[i].us != 0 ? 0 : -EINVAL);
        assert_int_equal(us, times[i].us);
        assert_int_equal(err.text[0] != '\0', times[i].us == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_time_to_confirm_is_seconds_or_minutes),
        cmocka_unit_test(every_line_is_taken_or_refused_with_its_sentence),
        cmocka_unit_test(values_land_in_their_fields),
        cmocka_unit_test(an_argument_of_64_kib_makes_a_short_sentence),
        cmocka_unit_test(help_names_every_command_and_its_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
