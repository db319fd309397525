/* test_names.c - resolv.conf and nsswitch.conf for a private namespace (faults.md Q7), on files of a temporary folder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/names.h"

struct lab {
    char dir[32], first[64], second[64];
    const char *paths[3];
};

static int setup(void **state)
{
    struct lab *lab = calloc(1, sizeof(*lab));

    strcpy(lab->dir, "/tmp/culvert-names-XXXXXX");
    assert_non_null(mkdtemp(lab->dir));
    snprintf(lab->first, sizeof(lab->first), "%s/resolv.conf", lab->dir);
    snprintf(lab->second, sizeof(lab->second), "%s/behind.conf", lab->dir);
    lab->paths[0] = lab->first;
    lab->paths[1] = lab->second;
    *state = lab;
    return 0;
}

static int teardown(void **state)
{
    struct lab *lab = *state;

    unlink(lab->first);
    unlink(lab->second);
    rmdir(lab->dir);
    free(lab);
    return 0;
}

static void put(const char *path, const char *text) /* NULL: no such file */
{
    FILE *f;

    unlink(path);
    if (text == NULL)
        return;
    f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
}

static const struct row {
    const char *when, *first, *second, *server; /* NULL: none is found */
} rows[] = {
    { "a plain one", "nameserver 192.0.2.53\n", NULL, "192.0.2.53" },
    { "IPv6", "nameserver 2001:db8::53\n", NULL, "2001:db8::53" },
    { "the first that is not loopback", "nameserver 127.0.0.1\nnameserver ::1\nnameserver 192.0.2.7\n", NULL,
      "192.0.2.7" },
    { "a stub, and what stands behind it", "nameserver 127.0.0.53\n", "nameserver 192.0.2.9\n", "192.0.2.9" },
    { "a link-local one is of the host's link", "nameserver fe80::1\nnameserver 192.0.2.8\n", NULL,
      "192.0.2.8" },
    { "no file", NULL, NULL, NULL },
    { "an empty file", "", NULL, NULL },
    { "loopback only", "nameserver 127.0.0.53\n", "nameserver 127.0.0.1\n", NULL },
    { "one of ours: exec inside exec", "# culvert: questions go on to 192.0.2.99\nnameserver 198.18.0.2\n",
      NULL, "192.0.2.99" },
    { "a comment like ours that names nothing",
      "# culvert: questions go on to nowhere\nnameserver 192.0.2.1\n", NULL, "192.0.2.1" },
};

static void the_name_server_of_the_host_is_found(void **state) /* faults.md Q7 */
{
    struct lab *lab = *state;
    int wrong = 0;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct ip_port found = { .port = 0 };
        char text[IP_TEXT_MAX] = "";
        int r;

        put(lab->first, rows[i].first);
        put(lab->second, rows[i].second);
        r = names_find_server(lab->paths, &found);
        if (r == 0)
            ip_text(&found.addr, text);
        if (rows[i].server != NULL ? r == 0 && found.port == 53 && strcmp(text, rows[i].server) == 0
                                   : r == -ENOENT)
            continue;
        print_error("%s: %d \"%s\"\n", rows[i].when, r, text);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void our_resolv_conf_names_the_tun_and_keeps_the_search_list(void **state)
{
    static const char host[] =
        "nameserver 192.0.2.1\nsearch corp.example\n# a\noptions ndots:2\nsearching x\n";
    struct ip_addr servers[2];
    struct ip_port behind = { .port = 53 };
    char out[NAMES_FILE_MAX];

    (void)state;
    ip_parse("198.18.0.2", &servers[0]);
    ip_parse("fdfe:dcba:9876::2", &servers[1]);
    ip_parse("192.0.2.1", &behind.addr);
    names_resolv_conf(servers, &behind, host, out);
    assert_string_equal(out, "# culvert: questions go on to 192.0.2.1\nnameserver 198.18.0.2\n"
                             "nameserver fdfe:dcba:9876::2\nsearch corp.example\noptions ndots:2\n");
    servers[1] = (struct ip_addr){ .w = { 0 } };
    names_resolv_conf(servers, &behind, "", out);
    assert_string_equal(out, "# culvert: questions go on to 192.0.2.1\nnameserver 198.18.0.2\n");
}

static void an_endless_search_list_is_left_out(void **state)
{
    struct ip_addr servers[2] = { { .w = { 0 } } };
    struct ip_port behind = { .port = 53 };
    char out[NAMES_FILE_MAX], *host = malloc(20001);

    (void)state;
    memset(host, 'x', 20000);
    host[20000] = '\0';
    memcpy(host, "search ", 7);
    names_resolv_conf(servers, &behind, host, out);
    assert_true(strlen(out) < 100);
    names_nsswitch(host, out);
    assert_non_null(strstr(out, "hosts: files dns\n"));
    free(host);
}

static const struct switch_row {
    const char *host, *hosts;
} switch_rows[] = {
    /* faults.md Q7: names `resolve`, mdns */
    { "passwd: files\nhosts: files mdns4_minimal [NOTFOUND=return] resolve [!UNAVAIL=return] dns\nservices: "
      "db\n",
      "hosts: files dns\n" },
    { "passwd: files\nservices: db\nhosts:\tfiles dns myhostname\n", "hosts: files dns myhostname\n" },
    { "passwd: files\nservices: db\n  hosts: myhostname resolve\n", "hosts: files dns myhostname\n" },
    { "passwd: files\nservices: db\nhosts: files notmyhostname", "hosts: files dns\n" },
    { "passwd: files\nservices: db\n", "hosts: files dns\n" },
};

static void host_names_come_from_files_and_dns_only(void **state) /* faults.md Q7 */
{
    char out[NAMES_FILE_MAX], wanted[256];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(switch_rows); i++) {
        names_nsswitch(switch_rows[i].host, out);
        snprintf(wanted, sizeof(wanted),
                 "# culvert: host names come from files and DNS only\npasswd: files\nservices: db\n%s",
                 switch_rows[i].hosts);
        assert_string_equal(out, wanted);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_name_server_of_the_host_is_found, setup, teardown),
        cmocka_unit_test(our_resolv_conf_names_the_tun_and_keeps_the_search_list),
        cmocka_unit_test(an_endless_search_list_is_left_out),
        cmocka_unit_test(host_names_come_from_files_and_dns_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
