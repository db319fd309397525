/* test_confine.c - the folders that a configuration leaves open, in a process of its own: there is no way back (src/app/confine.c). */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/app/confine.h"
#include "skip.h"

static char folder[] = "/tmp/culvert-confine-XXXXXX";

/* What each test may open, below `folder`; c.yaml itself is in conf. */
static const char *const made[] = { "conf",       "conf/sub", "lists", "lists/lan.txt", "live",
                                    "live/pw",    "archive",  "state", "other",         "other/file",
                                    "archive/pw", "logs",     "lists2" };

static void make(const char *name)
{
    FILE *f;

    if (strchr(name, '/') == NULL || strcmp(name, "conf/sub") == 0) {
        assert_int_equal(mkdir(name, 0700), 0);
    } else if (strcmp(name, "live/pw") == 0) {
        assert_int_equal(symlink("../archive/pw", name), 0);
    } else {
        assert_non_null(f = fopen(name, "w"));
        fputs("192.0.2.0/24\n", f);
        fclose(f);
        assert_int_equal(chmod(name, 0600), 0);
    }
}

static int make_all(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL || chdir(folder) != 0)
        return -1;
    for (size_t i = 0; i < ARRAY_LEN(made); i++)
        make(made[i]);
    return 0;
}

static int remove_all(void **state)
{
    char command[64];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return chdir("/") == 0 ? system(command) : -1;
}

enum { TEXT = 2000 };

static void put_config(char text[TEXT], const char *list, const char *copy)
{
    snprintf(text, TEXT,
             "runtime: {state-dir: %s/state}\n"
             "log: {output: %s/logs/log}\n"
             "proxies: [{name: p, type: socks5, server: 192.0.2.1, port: 1, username: a, password: {file: "
             "../live/pw}}]\n"
             "rule-providers:\n"
             "  lan: {type: file, behavior: ipcidr, path: %s/%s}\n"
             "  ads: {type: http, behavior: ipcidr, url: 'http://192.0.2.1/ads', path: %s/%s}\n"
             "rules: ['RULE-SET,lan,p', 'RULE-SET,ads,p', 'MATCH,REJECT']\n",
             folder, folder, folder, list, folder, copy);
}

static struct config *load(const char *list, const char *copy)
{
    struct config_messages m = { 0 };
    struct config *c = NULL;
    char text[TEXT];

    put_config(text, list, copy);
    if (config_load_text(text, strlen(text), "conf/c.yaml", &c, &m) != 0)
        config_print_messages(stderr, &m);
    config_messages_free(&m);
    return c;
}

static const struct cover_row {
    const char *path;
    bool read, write;
} covers[] = {
    { "conf/c.yaml", true, false },       { "conf/new/or/not/there", true, false },
    { "lists/lan.txt", true, false },     { "lists/other.txt", true, false },
    { "live/pw", true, false },           { "archive/pw", true, false },
    { "state/select", true, true },       { "state/providers/x", true, true },
    { "logs/log.1", true, true },         { "lists2/below/ads", true, true },
    { "lists2/elsewhere", false, false }, { "other/file", false, false },
    { "nowhere/at/all", false, false },   { "listsx", false, false },
    { "/etc/hosts", true, false },        { "/", false, false },
};

static int wrong_covers(const struct confine *c)
{
    int wrong = 0;

    for (size_t i = 0; i < ARRAY_LEN(covers); i++) {
        const struct cover_row *row = &covers[i];

        if (confine_covers(c, row->path, false) == row->read &&
            confine_covers(c, row->path, true) == row->write)
            continue;
        fprintf(stderr, "%s: read %d, write %d\n", row->path, confine_covers(c, row->path, false),
                confine_covers(c, row->path, true));
        wrong++;
    }
    return wrong;
}

/* What it says is what the kernel does. */
static int wrong_opens(const struct confine *c)
{
    int wrong = 0;

    for (size_t i = 0; i < ARRAY_LEN(covers); i++) {
        int fd, e;

        if (access(covers[i].path, F_OK) != 0)
            continue;
        errno = 0;
        fd = open(covers[i].path, O_RDONLY | O_CLOEXEC);
        e = errno;
        if ((fd >= 0) != confine_covers(c, covers[i].path, false) || (fd < 0 && e != EACCES)) {
            fprintf(stderr, "%s: open says %s\n", covers[i].path, fd >= 0 ? "yes" : strerror(e));
            wrong++;
        }
        if (fd >= 0)
            close(fd);
    }
    return wrong;
}

static void write_config(const char *path, const char *list, const char *copy)
{
    char text[TEXT];
    FILE *f = fopen(path, "w");

    put_config(text, list, copy);
    if (f == NULL || fputs(text, f) < 0 || fclose(f) != 0)
        _exit(8);
}

/* The caller's is not touched by a file that is not taken: it would free that for a second time. */
static bool wrong_loads(const struct confine *c)
{
    struct config *none = NULL, *taken = NULL;
    struct err err = { "" };
    bool refused = confine_load(c, "conf/writes.yaml", &none, &err) == -EACCES && none == NULL &&
                   strstr(err.text, "lists/ads is outside of the folders") != NULL;
    bool loaded = confine_load(c, "conf/same.yaml", &taken, &err) == 0;

    config_free(taken);
    return !refused || !loaded;
}

enum { FINE, CANNOT = 77 };

static int confined(void)
{
    struct config *first = load("lists/lan.txt", "lists2/below/ads"), *same, *reads, *writes;
    struct confine_options o = { .config = first, .config_path = "conf/c.yaml", .state = true };
    struct confine *c = NULL;
    struct loop *l;
    struct err err = { "" };
    int r = 1;

    write_config("conf/same.yaml", "lists/lan.txt", "state/ads");
    write_config("conf/writes.yaml", "lists/lan.txt", "lists/ads");
    if (first == NULL || loop_new(&l) != 0 || confine_now(&o, l, &c, &err) != 0)
        return 1;
    same = load("lists/lan.txt", "state/ads");
    writes = load("lists/lan.txt", "lists/ads");
    reads = load("other/file", "lists2/below/ads"); /* not loaded at all: the kernel refuses it */
    if (open("other/file", O_RDONLY | O_CLOEXEC) >= 0)
        r = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) < 0 ? CANNOT : 7;
    else if (wrong_covers(c) > 0)
        r = 2;
    else if (wrong_opens(c) > 0)
        r = 3;
    else if (same == NULL || confine_take(c, same, &err) != 0)
        r = 4;
    else if (writes == NULL || confine_take(c, writes, &err) != -EACCES ||
             strstr(err.text, "lists/ads is outside of the folders that the sandbox left writable") == NULL)
        r = 5;
    else if (wrong_loads(c))
        r = 9;
    else
        r = reads != NULL ? 6 : FINE;
    config_free(first);
    config_free(same);
    config_free(writes);
    config_free(reads);
    confine_end(c, l);
    loop_free(l);
    return r;
}

static void only_folders_of_the_configuration_are_open(void **state) /* faults.md X9 */
{
    pid_t pid = fork();
    int status;

    (void)state;
    if (pid == 0)
        _exit(confined());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == CANNOT)
        SKIP("this kernel has no Landlock");
    assert_int_equal(WEXITSTATUS(status), FINE);
}

static void without_a_sandbox_everything_is_open(void **state)
{
    struct config *c = load("other/file", "lists2/below/ads");
    struct err err = { "" };

    (void)state;
    assert_non_null(c);
    assert_true(confine_covers(NULL, "/nowhere", true));
    assert_int_equal(confine_take(NULL, c, &err), 0);
    config_free(c);
}

static void a_configuration_knows_the_files_that_it_names(void **state)
{
    struct config *c = load("lists/lan.txt", "lists2/below/ads");
    unsigned found = 0, written = 0;

    (void)state;
    assert_non_null(c);
    for (const struct config_file *f = c->files; f != NULL; f = f->next) {
        found += strcmp(f->path, "conf/../live/pw") == 0 || strstr(f->path, "/lists/lan.txt") != NULL ||
                 strstr(f->path, "/lists2/below/ads") != NULL;
        written += f->written;
    }
    assert_int_equal(found, 4); /* the copy is read at the start, and written later */
    assert_int_equal(written, 1);
    config_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_folders_of_the_configuration_are_open),
        cmocka_unit_test(without_a_sandbox_everything_is_open),
        cmocka_unit_test(a_configuration_knows_the_files_that_it_names),
    };

    return cmocka_run_group_tests(tests, make_all, remove_all);
}
