/* test_route_dns.c - faces src/route/route_dns.c: the system's resolv.conf is replaced and comes back, in a folder of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "culvert/route.h"

struct folder {
    char path[64], file[96], saved[128];
};

static int setup(void **state)
{
    struct folder *f = calloc(1, sizeof(*f));

    *state = f;
    if (f == NULL)
        return -1;
    snprintf(f->path, sizeof(f->path), "/tmp/culvert-dns-XXXXXX");
    if (mkdtemp(f->path) == NULL)
        return -1;
    snprintf(f->file, sizeof(f->file), "%s/resolv.conf", f->path);
    snprintf(f->saved, sizeof(f->saved), "%s" ROUTE_DNS_SAVED, f->file);
    return 0;
}

static int teardown(void **state)
{
    struct folder *f = *state;

    unlink(f->file);
    unlink(f->saved);
    assert_int_equal(rmdir(f->path), 0); /* nothing else is left */
    free(f);
    return 0;
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void assert_text(const char *path, const char *wanted)
{
    char text[1024];
    FILE *f = fopen(path, "re");
    size_t n;

    assert_non_null(f);
    n = fread(text, 1, sizeof(text) - 1, f);
    fclose(f);
    text[n] = '\0';
    if (strstr(text, wanted) == NULL)
        print_error("%s has: %s\n", path, text);
    assert_non_null(strstr(text, wanted));
}

static void set(const struct folder *f)
{
    struct ip_addr server[2];

    assert_int_equal(ip_parse("198.18.0.2", &server[0]), 0);
    assert_int_equal(ip_parse("fdfe:dcba:9876::2", &server[1]), 0);
    assert_int_equal(route_dns_set(f->file, server), 0);
    assert_text(f->file, "\nnameserver 198.18.0.2\nnameserver fdfe:dcba:9876::2\n");
}

static void a_file_comes_back_as_the_same_file(void **state)
{
    struct folder *f = *state;
    struct stat before, after;

    put(f->file, "nameserver 192.0.2.53\n");
    assert_int_equal(chmod(f->file, 0600), 0);
    assert_int_equal(stat(f->file, &before), 0);
    set(f);
    assert_text(f->saved, "nameserver 192.0.2.53\n");
    assert_int_equal(route_dns_restore(f->file), 0);
    assert_int_equal(stat(f->file, &after), 0);
    assert_int_equal(after.st_ino, before.st_ino);
    assert_int_equal(after.st_mode, before.st_mode);
    assert_text(f->file, "nameserver 192.0.2.53\n");
    assert_int_equal(route_dns_restore(f->file), -ENOENT);
}

static void a_link_of_systemd_resolved_comes_back_as_a_link(void **state)
{
    struct folder *f = *state;
    char to[64] = "";

    assert_int_equal(symlink("../run/systemd/resolve/stub-resolv.conf", f->file), 0);
    set(f);
    assert_int_equal(route_dns_restore(f->file), 0);
    assert_true(readlink(f->file, to, sizeof(to) - 1) > 0);
    assert_string_equal(to, "../run/systemd/resolve/stub-resolv.conf");
}

static void where_there_was_nothing_there_is_nothing_again(void **state)
{
    struct folder *f = *state;

    set(f);
    assert_int_equal(route_dns_restore(f->file), 0);
    assert_int_not_equal(access(f->file, F_OK), 0);
}

static void a_second_start_after_a_kill_keeps_what_was_saved_first(void **state) /* faults.md X2 */
{
    struct folder *f = *state;

    put(f->file, "nameserver 192.0.2.53\n");
    set(f);
    set(f);
    assert_int_equal(route_dns_restore(f->file), 0);
    assert_text(f->file, "nameserver 192.0.2.53\n");
}

static void what_a_dhcp_client_writes_meanwhile_stays(void **state)
{
    struct folder *f = *state;

    put(f->file, "nameserver 192.0.2.53\n");
    set(f);
    assert_int_equal(unlink(f->file), 0);
    put(f->file, "nameserver 192.0.2.54\n");
    assert_int_equal(route_dns_restore(f->file), 0);
    assert_text(f->file, "nameserver 192.0.2.54\n");
    set(f); /* and the next start saves that one */
    assert_int_equal(route_dns_restore(f->file), 0);
    assert_text(f->file, "nameserver 192.0.2.54\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_file_comes_back_as_the_same_file, setup, teardown),
        cmocka_unit_test_setup_teardown(a_link_of_systemd_resolved_comes_back_as_a_link, setup, teardown),
        cmocka_unit_test_setup_teardown(where_there_was_nothing_there_is_nothing_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_second_start_after_a_kill_keeps_what_was_saved_first, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_a_dhcp_client_writes_meanwhile_stays, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
