/* test_config_text.c - bytes, syntax and limits of a configuration file (src/config/file.c, tree.c). */
#include "config_lab.h"
#include "skip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define FINE "rules: [{via: DIRECT}]\n"

static void free_text(char **text)
{
    free(*text);
}
#define AUTO_TEXT __attribute__((cleanup(free_text))) char *

/* ---- faults.md C4 ------------------------------------------------------------------------------------------------- */

static const struct lab_row syntax[] = {
    { "tun:\n\tmtu: 1500\n", "t.yaml:2:1: a tab cannot indent YAML; use spaces" },
    { "t\xc3\xbcn:\n\tmtu: 1500\n", "t.yaml:2:1: a tab cannot indent YAML; use spaces" },
    { "tun: [", "t.yaml:2:1: a list in [ ] is not closed; it began on line 1, column 6" },
    { "tun: {mtu: 1500\n",
      "t.yaml:2:1: a map in { } is not closed, or a comma is missing; it began on line 1, column 6" },
    { "proxies:\n  - {name: a\nrules: [MATCH]\n",
      "t.yaml:3:6: a map in { } is not closed, or a comma is missing; it began on line 2, column 5" },
    { "log: {level: 'info}\n",
      "t.yaml:2:1: a quote is opened and never closed; it began on line 1, column 14" },
    { "log: {level: info}}\n", "t.yaml:1:19: a key is expected here, indented like the lines above" },
    { "tun:\n  mtu: 1500\n name: a\n",
      "t.yaml:3:2: a key is expected here, indented like the lines above; it began on line 1, column 1" },
    { "log: level: info\n", "t.yaml:1:11: a colon is not expected here; indent a key like its neighbours, "
                            "and put a value that holds "
                            "\": \" in quotes" },
    { "version: 1\n---\nversion: 1\n",
      "t.yaml:2:1: a second document begins here; one file is one document" },
    { "", "t.yaml:1:1: nothing configured; docs/config.md has a first file of ten lines" },
    { "# only\n# comments\n",
      "t.yaml:1:1: nothing configured; docs/config.md has a first file of ten lines" },
    { "---\n...\n", "t.yaml:1:1: nothing configured; docs/config.md has a first file of ten lines" },
    { "{}\n", "t.yaml:1:1: nothing configured; docs/config.md has a first file of ten lines" },
    { "[]\n", "t.yaml:1:1: is a list; a map (key: value) would work" },
    { "hello\n", "t.yaml:1:1: is a single value; a map (key: value) would work" },
    { "? [a]\n: b\n", "t.yaml:1:3: a key is a word; a list or a map cannot be one" },
    { "'': b\n", "t.yaml:1:1: unknown key \"\"; docs/config.md lists the keys that would work" },
    { "~: b\n", "t.yaml:1:1: a key is empty; write its name before the colon" },
    { "log: {level: \"in\\0fo\"}\n", "t.yaml:1:14: log.level: the value holds a NUL (\\0); remove it\n"
                                     "t.yaml:1:14: log.level: unknown value \"in\"; info, debug, warning or "
                                     "error would work" },
    { "log: !!map {level: info}\n",
      "t.yaml:1:6: log: the tag \"tag:yaml.org,2002:map\" has no meaning here; remove it" },
    { "log: {level: !!str info}\n", "" },
    { "%TAG ! x\n---\n" FINE, "t.yaml:1:1: a %TAG directive has no meaning here; remove it" },
    { "%YAML 1.2\n---\n" FINE "...\n", "" },
    { "%YAML 3.0\n---\n" FINE, "t.yaml:1:1: found incompatible YAML document" },
};

static void a_syntax_error_has_line_and_column(void **state) /* faults.md C4 */
{
    (void)state;
    assert_int_equal(lab_check_rows(syntax, ARRAY_LEN(syntax)), 0);
}

static void crlf_and_a_byte_order_mark_are_accepted(void **state) /* faults.md C4 */
{
    static const struct lab_row rows[] = {
        { "rules:\r\n  - {via: DIRECT}\r\n", "" },
        { "rules:\r  - {via: DIRECT}\r", "" },
        { "\xef\xbb\xbf" FINE, "" },
        { "\xef\xbb\xbflog: {level: x}\n",
          "t.yaml:1:14: log.level: unknown value \"x\"; info, debug, warning or error would work" },
        { "version: 1\r\nlog: {level: x}\r\n",
          "t.yaml:2:14: log.level: unknown value \"x\"; info, debug, warning or error would work" },
    };

    (void)state;
    assert_int_equal(lab_check_rows(rows, ARRAY_LEN(rows)), 0);
}

static void bytes_that_are_no_text_are_named_with_their_place(void **state) /* faults.md C4 */
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *says;
    } rows[] = {
        { "\xff\xfeh\0i\0", 6, "t.yaml:1:1: this is UTF-16; save the file as UTF-8" },
        { "\xfe\xff\0h\0i", 6, "t.yaml:1:1: this is UTF-16; save the file as UTF-8" },
        { "t\0u\0n\0", 6, "t.yaml:1:1: this is UTF-16; save the file as UTF-8" },
        { "\xff\xfe\0\0t\0\0\0", 8, "t.yaml:1:1: this is UTF-32; save the file as UTF-8" },
        { "a: b\nab\0c", 9, "t.yaml:2:3: there is a NUL byte; a text file has none" },
        { "a: \xff", 4, "t.yaml:1:4: the byte 0xff is not UTF-8 here; save the file as UTF-8" },
        { "a: \xc0\xaf", 5, "t.yaml:1:4: the byte 0xc0 is not UTF-8 here; save the file as UTF-8" },
        { "a: \xed\xa0\x80", 6, "t.yaml:1:4: the byte 0xed is not UTF-8 here; save the file as UTF-8" },
        { "a: \xe2\x82", 5, "t.yaml:1:4: the byte 0xe2 is not UTF-8 here; save the file as UTF-8" },
        { "\xc3\xa9\xc3\xa9\xe9", 5, "t.yaml:1:3: the byte 0xe9 is not UTF-8 here; save the file as UTF-8" },
        { "a: \x1b[31m", 8, "t.yaml:1:4: the control character U+001B is not allowed; remove it" },
        { "a: \x7f", 4, "t.yaml:1:4: the control character U+007F is not allowed; remove it" },
        { "a: \xc2\x9b", 5, "t.yaml:1:4: the control character U+009B is not allowed; remove it" },
    };
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        AUTO_TEXT says = lab_says_bytes(rows[i].bytes, rows[i].len);

        if (strcmp(says, rows[i].says) == 0)
            continue;
        print_error("row %zu said: %s\n  not: %s\n", i, says, rows[i].says);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* ---- faults.md C2, C5 ------------------------------------------------------------------------------------------------ */

static void a_key_twice_is_an_error_that_points_to_the_first(void **state) /* faults.md C2 */
{
    static const struct lab_row rows[] = {
        { "log: {level: info}\nlog: {level: info}\n",
          "t.yaml:2:1: the key \"log\" is there twice; the first is on line 1, column 1" },
        { "log:\n  level: info\n  format: text\n  level: debug\n  level: error\n",
          "t.yaml:4:3: log: the key \"level\" is there twice; the first is on line 2, column 3\n"
          "t.yaml:5:3: log: the key \"level\" is there twice; the first is on line 2, column 3" },
        { "serve: {socks5: {users: {a: x, b: x, a: x}}}\n",
          "t.yaml:1:38: serve.socks5.users: the key \"a\" is there twice; the first is on line 1, column "
          "26" },
        { "rules: [{via: DIRECT}, {via: DIRECT, 'via': REJECT}]\n",
          "t.yaml:1:38: rules[1]: the key \"via\" is there twice; the first is on line 1, column 25" },
        { "tun: {name: a, device: b}\nrules: [{via: DIRECT}]\n",
          "t.yaml:1:16: tun.device: says the same as \"name\" on line 1; keep one of the two" },
    };

    (void)state;
    assert_int_equal(lab_check_rows(rows, ARRAY_LEN(rows)), 0);
}

static void aliases_merge_keys_and_circles(void **state) /* faults.md C5 */
{
    static const struct lab_row rows[] = {
        { "log: &a {level: *a}\n",
          "t.yaml:1:17: log.level: the alias \"a\" stands inside its own value; a value cannot hold itself" },
        { "rules: &r [*r]\n",
          "t.yaml:1:12: rules[0]: the alias \"r\" stands inside its own value; a value cannot hold itself" },
        { "log: *l\n",
          "t.yaml:1:6: log: the alias \"l\" has no anchor before it; write &l at the value it means" },
        { "log:\n  <<: {level: info}\n",
          "t.yaml:2:3: log: merge keys (<<) are not read; write the keys out" },
        { "log: &l {level: info}\n<<: *l\n", "t.yaml:2:1: merge keys (<<) are not read; write the keys out" },
        { "rules: &r [{via: &d DIRECT}]\nlog: {level: &d debug}\napi: {unix: none}\n", "" },
        { "log: {level: &l x}\nstack: {tcp: {accept: *l}}\n", /* both uses of a wrong value stand at its anchor */
          "t.yaml:1:14: log.level: unknown value \"x\"; info, debug, warning or error would work\n"
          "t.yaml:1:14: stack.tcp.accept: unknown value \"x\"; late, early or auto would work" },
    };

    (void)state;
    assert_int_equal(lab_check_rows(rows, ARRAY_LEN(rows)), 0);
}

static char *repeated(const char *unit, size_t times, const char *end)
{
    size_t len = strlen(unit);
    char *text = malloc(len * times + strlen(end) + 1);

    assert_non_null(text);
    for (size_t i = 0; i < times; i++)
        memcpy(text + i * len, unit, len);
    strcpy(text + len * times, end);
    return text;
}

/* Each level holds nine of the one before: a few lines that would be 9^29 values. */
static char *billion_laughs(void)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    assert_non_null(f);
    fprintf(f, "a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for (int i = 1; i < 30; i++) {
        fprintf(f, "a%d: &a%d [", i, i);
        for (int j = 0; j < 9; j++)
            fprintf(f, "*a%d%s", i - 1, j < 8 ? ", " : "]\n");
    }
    fclose(f);
    return text;
}

static double cpu_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int bomb_is_refused(const char *what, char *text, const char *says)
{
    double before = cpu_ms(), ms;
    AUTO_TEXT said = lab_says(text);

    ms = cpu_ms() - before;
    free(text);
    if (strstr(said, says) != NULL && ms < 100)
        return 0;
    print_error("%s: said \"%.200s\" after %.0f ms of CPU\n", what, said, ms);
    return 1;
}

static void a_bomb_is_an_error_in_less_than_100_ms(void **state) /* faults.md C5 */
{
    static const char *const deep = "more than 32 levels of lists and maps";
    int wrong = 0;

    (void)state;
    wrong += bomb_is_refused("billion laughs", billion_laughs(), "aliases expand to more than 10000 values");
    wrong += bomb_is_refused("200,000 brackets", repeated("[", 200000, ""), deep);
    wrong += bomb_is_refused("200,000 brackets on lines", repeated("[\n", 200000, ""), deep);
    wrong += bomb_is_refused("200,000 maps in maps", repeated("{a: ", 200000, ""), deep);
    wrong += bomb_is_refused("200,000 dashes", repeated("- ", 200000, ""), deep);
    wrong += bomb_is_refused("200,000 question marks", repeated("? ", 200000, ""), deep);
    wrong += bomb_is_refused("100,000 documents", repeated("---\n", 100000, ""), "a second document");
    wrong += bomb_is_refused("100,000 directives", repeated("%TAG !a x\n", 100000, ""), "directive");
    wrong += bomb_is_refused("17 MiB", repeated("# comment #\n", (17 << 20) / 12, ""),
                             "the most that is read is 16777216");
    assert_int_equal(wrong, 0);
}

static void the_limits_hold_exactly(void **state) /* config.md section 1, point 5 */
{
    char inner[200];
    AUTO_TEXT at_limit = NULL;
    AUTO_TEXT beyond = NULL;

    (void)state;
    /* the top level is one of the 32 */
    snprintf(inner, sizeof(inner), "x: %.31s%.31s\n", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
             "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]");
    at_limit = lab_says(inner);
    assert_null(strstr(at_limit, "levels"));
    snprintf(inner, sizeof(inner), "x: %.32s%.32s\n", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
             "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]");
    beyond = lab_says(inner);
    assert_non_null(strstr(beyond, "more than 32 levels"));
}

static void aliases_may_expand_to_10000_values_and_no_more(void **state) /* config.md section 1, point 5 */
{
    char *text = repeated("*a,", 10000, "]\n"), *all;
    AUTO_TEXT at_limit = NULL;
    AUTO_TEXT beyond = NULL;

    (void)state;
    assert_true(asprintf(&all, "a: &a x\nb: [%s", text) > 0);
    at_limit = lab_says(all);
    assert_null(strstr(at_limit, "expand"));
    free(all);
    assert_true(asprintf(&all, "a: &a x\nb: [*a,%s", text) > 0);
    beyond = lab_says(all);
    assert_non_null(strstr(beyond, "aliases expand to more than 10000 values"));
    free(all);
    free(text);
}

static void ten_thousand_mistakes_are_listed_and_the_rest_counted(void **state)
{
    char *text = repeated("- 1\n", 12000, "");
    struct config_messages m = { 0 };
    struct config *c = NULL;
    char *all;

    (void)state;
    assert_true(asprintf(&all, "rules:\n%s", text) > 0);
    assert_true(config_load_text(all, strlen(all), "t.yaml", &c, &m) < 0);
    assert_int_equal(m.count, 10000);
    assert_int_equal(m.errors, 12000);
    assert_int_equal(m.left_out, 2000);
    assert_int_equal(m.list[0].line, 2);
    assert_int_equal(m.list[9999].line, 10001);
    config_messages_free(&m);
    free(all);
    free(text);
}

/* ---- faults.md C7 ------------------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/culvert-config-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) != NULL && chmod(folder, 0755) == 0 ? chdir(folder) : -1;
}

static int remove_folder(void **state)
{
    static const char *const names[] = {
        "fifo", "socket", "circle", "locked", "fine.yaml", "big.yaml", "dir"
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        remove(names[i]);
    return chdir("/") == 0 ? rmdir(folder) : -1;
}

static void write_file(const char *name, const char *text, mode_t mode)
{
    FILE *f = fopen(name, "w");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(name, mode), 0);
}

static void make_strange_files(void)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX, .sun_path = "socket" };
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(s, (const struct sockaddr *)&sa, sizeof(sa)), 0);
    close(s);
    assert_int_equal(mkfifo("fifo", 0600), 0);
    assert_int_equal(mkdir("dir", 0700), 0);
    assert_int_equal(symlink("circle", "circle"), 0);
    write_file("fine.yaml", FINE, 0600);
    write_file("big.yaml", "", 0600);
    assert_int_equal(truncate("big.yaml", (16 << 20) + 1), 0);
}

static void what_is_no_file_earns_one_sentence_and_never_a_wait(void **state) /* faults.md C7 */
{
    static const struct {
        const char *path, *says;
    } rows[] = {
        { "dir", "dir: is a folder; give the file in it" },
        { "fifo", "fifo: is a pipe; only a regular file can be read" },
        { "socket", "socket: is a socket; only a regular file can be read" },
        { "/dev/zero", "/dev/zero: is a device; only a regular file can be read" },
        { "circle", "circle: cannot be read: its symbolic links lead in a circle" },
        { "nowhere.yaml", "nowhere.yaml: cannot be read: there is no such file" },
        { "fine.yaml/x", "fine.yaml/x: cannot be read: a part of the path is a file, not a folder" },
        { "big.yaml", "big.yaml: has 16777217 bytes; the most that is read is 16777216" },
        { "fine.yaml", "" },
    };
    int wrong = 0;

    (void)state;
    make_strange_files();
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        AUTO_TEXT says = lab_says_file(rows[i].path);

        if (strcmp(says, rows[i].says) == 0)
            continue;
        print_error("%s said: %s\n", rows[i].path, says);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void a_file_that_this_user_may_not_read_is_said_to_be_so(void **state) /* faults.md C7 */
{
    AUTO_TEXT says = NULL;

    (void)state;
    if (geteuid() == 0 && seteuid(65534) != 0)
        SKIP("the user cannot be changed here");
    says = lab_says_file("locked");
    assert_true(seteuid(getuid()) == 0);
    assert_string_equal(
        says, "locked: cannot be read: this user may not read it; change its mode or owner, or run as "
              "another user");
}

static int lock_file(void **state)
{
    (void)state;
    write_file("locked", FINE, 0000);
    return 0;
}

static void a_file_of_proc_has_no_size_and_is_read_all_the_same(void **state)
{
    AUTO_TEXT says = lab_says_file("/proc/sys/kernel/ostype");

    (void)state;
    assert_string_equal(says,
                        "/proc/sys/kernel/ostype:1:1: is a single value; a map (key: value) would work");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_syntax_error_has_line_and_column),
        cmocka_unit_test(crlf_and_a_byte_order_mark_are_accepted),
        cmocka_unit_test(bytes_that_are_no_text_are_named_with_their_place),
        cmocka_unit_test(a_key_twice_is_an_error_that_points_to_the_first),
        cmocka_unit_test(aliases_merge_keys_and_circles),
        cmocka_unit_test(a_bomb_is_an_error_in_less_than_100_ms),
        cmocka_unit_test(the_limits_hold_exactly),
        cmocka_unit_test(aliases_may_expand_to_10000_values_and_no_more),
        cmocka_unit_test(ten_thousand_mistakes_are_listed_and_the_rest_counted),
        cmocka_unit_test(what_is_no_file_earns_one_sentence_and_never_a_wait),
        cmocka_unit_test_setup(a_file_that_this_user_may_not_read_is_said_to_be_so, lock_file),
        cmocka_unit_test(a_file_of_proc_has_no_size_and_is_read_all_the_same),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
