/* test_resolver_parts.c - faces src/resolver/conf.c and cache.c: the files of the system, and what is known when. */
#include "resolver/resolver_impl.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define S UINT64_C(1000000) /* a second in microseconds */

static const char *server_text(const struct resolv_conf *c, size_t i)
{
    static char text[IP_PORT_TEXT_MAX];

    return i < c->n_servers ? ip_port_text(&c->servers[i].at, text) : "none";
}

static void resolv_conf_gives_its_first_three_servers_and_its_options(void **state)
{
    static const char text[] = "# generated\n"
                               "search example.com\n"
                               "nameserver 192.0.2.53 # the near one\r\n"
                               "\tnameserver\t2001:db8::53\n"
                               "nameserver not-an-address\n"
                               ";nameserver 192.0.2.99\n"
                               "options ndots:2 timeout:3 rotate attempts:2\n"
                               "nameserver fe80::1%lo\n"
                               "nameserver 192.0.2.54";
    struct resolv_conf c;

    (void)state;
    resolv_conf_parse(text, strlen(text), &c);
    assert_int_equal(c.n_servers, 3);
    assert_string_equal(server_text(&c, 0), "192.0.2.53:53");
    assert_string_equal(server_text(&c, 1), "[2001:db8::53]:53");
    assert_string_equal(server_text(&c, 2), "[fe80::1]:53");
    assert_int_equal(c.servers[2].scope_id, 1); /* lo is the first interface of every namespace */
    assert_int_equal(c.timeout_ms, 3000);
    assert_int_equal(c.attempts, 2);
}

static void options_out_of_bounds_are_brought_back_into_them(void **state)
{
    static const struct {
        const char *text;
        uint32_t timeout_ms, attempts;
    } rows[] = {
        { "", 1000, 3 },
        { "options", 1000, 3 },
        { "options timeout:0 attempts:0", 1000, 1 },
        { "options timeout:31 attempts:99", 30000, 5 },
        { "options timeout:99999999999999999999 attempts:-1", 30000, 3 },
        { "options timeout: attempts:x", 1000, 3 },
        { "options timeout:2\noptions attempts:1", 2000, 1 },
        { "xoptions timeout:2", 1000, 3 },
    };
    struct resolv_conf c;
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        resolv_conf_parse(rows[i].text, strlen(rows[i].text), &c);
        if (c.timeout_ms == rows[i].timeout_ms && c.attempts == rows[i].attempts && c.n_servers == 0)
            continue;
        print_error("\"%s\": %u ms, %u attempts\n", rows[i].text, c.timeout_ms, c.attempts);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void the_hosts_file_knows_names_and_aliases_of_both_families(void **state)
{
    static const char text[] = "127.0.0.1 localhost\n"
                               "# 192.0.2.9 box\n"
                               "192.0.2.1\tBox.Example  box # printer\n"
                               "2001:db8::1 box.example. box\r\n"
                               "not-an-address box\n"
                               "192.0.2.2\n"
                               "\n"
                               "192.0.2.3 toolbox box2";
    struct ip_addr out[4];
    char addr[IP_TEXT_MAX];

    (void)state;
    assert_int_equal(hosts_find(text, strlen(text), "box", out, 4), 2);
    assert_string_equal(ip_text(&out[0], addr), "192.0.2.1");
    assert_string_equal(ip_text(&out[1], addr), "2001:db8::1");
    assert_int_equal(hosts_find(text, strlen(text), "box.example", out, 4), 2);
    assert_int_equal(hosts_find(text, strlen(text), "box", out, 1), 1);
    assert_int_equal(hosts_find(text, strlen(text), "box2", out, 4), 1);
    assert_int_equal(hosts_find(text, strlen(text), "bo", out, 4), 0);
    assert_int_equal(hosts_find(text, strlen(text), "printer", out, 4), 0);
    assert_int_equal(hosts_find(text, strlen(text), "192.0.2.2", out, 4), 0);
    assert_int_equal(hosts_find(NULL, 0, "box", out, 4), 0);
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void a_file_is_read_again_when_it_changed_and_once_a_second_at_most(void **state)
{
    char dir[] = "/tmp/culvert-files-XXXXXX", path[64];
    struct watched_file f;
    struct ip_port server;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/conf", dir);
    assert_int_equal(watched_file_init(&f, path), 0);
    assert_false(watched_file_refresh(&f, 10 * S)); /* not there yet */
    write_file(path, "nameserver 192.0.2.1\n");
    assert_false(watched_file_refresh(&f, 10 * S + S - 1));
    assert_true(watched_file_refresh(&f, 11 * S));
    assert_int_equal(f.len, 21);
    assert_false(watched_file_refresh(&f, 12 * S));
    write_file(path, "nameserver 192.0.2.77\n");
    assert_true(watched_file_refresh(&f, 13 * S));
    assert_memory_equal(f.text, "nameserver 192.0.2.77\n", 22);
    assert_int_equal(resolver_conf_servers(path, &server, 1), 1);
    assert_int_equal(server.port, 53);
    unlink(path);
    assert_true(watched_file_refresh(&f, 14 * S));
    assert_int_equal(f.len, 0);
    assert_false(watched_file_refresh(&f, 15 * S));
    assert_int_equal(resolver_conf_servers(path, &server, 1), 0);
    watched_file_fini(&f);
    rmdir(dir);
}

static void a_folder_or_a_device_in_place_of_a_file_is_an_empty_file(void **state)
{
    static const char *const paths[] = { "/tmp", "/dev/zero", "/nonexistent/file" };
    struct ip_port server;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        assert_int_equal(resolver_conf_servers(paths[i], &server, 1), 0);
}

static struct ip_addr addr4(uint8_t last)
{
    return ip_from4((const uint8_t[]){ 192, 0, 2, last });
}

static struct ip_addr addr6(uint8_t last)
{
    return ip_from6((const uint8_t[16]){ 0x20, 1, 0xd, 0xb8, [15] = last });
}

static void families_alternate_with_ipv6_first(void **state) /* RFC 8305 section 4 */
{
    const struct ip_addr four[] = { addr4(1), addr4(2), addr4(3) }, six[] = { addr6(1) };
    const struct ip_addr want[] = { addr6(1), addr4(1), addr4(2), addr4(3) };
    struct cached_name c = { .name = "x" };
    struct ip_addr out[RESOLVER_ADDRS_MAX];

    (void)state;
    cached_put_addrs(&c.family[FAMILY_V4], four, 3, 60, 100 * S);
    cached_put_addrs(&c.family[FAMILY_V6], six, 1, 60, 100 * S);
    assert_int_equal(cached_addrs(&c, false, 0, 100 * S, out), 4);
    assert_memory_equal(out, want, sizeof(want));
}

static void addresses_are_fresh_for_their_ttl_and_old_after_it(void **state) /* faults.md S18 */
{
    const struct ip_addr one = addr4(1);
    struct cached_name c = { .name = "x" };
    struct cached_family *f = &c.family[FAMILY_V4];
    struct ip_addr out[RESOLVER_ADDRS_MAX];

    (void)state;
    cached_put_addrs(f, &one, 1, 60, 100 * S);
    assert_true(cached_is_fresh(f, 160 * S - 1));
    assert_false(cached_is_fresh(f, 160 * S));
    assert_false(cached_is_known(f, 160 * S));
    assert_int_equal(cached_addrs(&c, false, 0, 160 * S, out), 0);
    assert_int_equal(cached_addrs(&c, true, 3600 * S, 160 * S, out), 1);
    assert_int_equal(cached_addrs(&c, true, 3600 * S, 3700 * S, out), 1);
    assert_int_equal(cached_addrs(&c, true, 3600 * S, 3700 * S + 1, out), 0);
}

static void no_addresses_any_more_makes_the_last_ones_old_but_keeps_them(void **state) /* faults.md S18 */
{
    const struct ip_addr one = addr4(1);
    struct cached_name c = { .name = "x" };
    struct cached_family *f = &c.family[FAMILY_V4];
    struct ip_addr out[RESOLVER_ADDRS_MAX];

    (void)state;
    cached_put_addrs(f, &one, 1, 60, 100 * S);
    cached_put_empty(f, 10, 120 * S);
    assert_false(cached_is_fresh(f, 120 * S));
    assert_true(cached_is_known(f, 130 * S - 1));
    assert_false(cached_is_known(f, 130 * S));
    assert_int_equal(cached_addrs(&c, true, 3600 * S, 130 * S, out), 1);
    cached_put_addrs(f, &one, 1, 60, 140 * S);
    assert_true(cached_is_fresh(f, 140 * S));
}

static void the_cache_is_bounded_and_the_least_used_name_goes_first(void **state)
{
    struct lookup *busy = (struct lookup *)(void *)&(int){ 0 };
    struct cached_name *n;
    struct cache c;
    char name[32];

    (void)state;
    assert_int_equal(cache_init(&c, 4), 0);
    for (unsigned i = 0; i < 4; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        assert_null(cache_find(&c, name));
        n = cache_make(&c, name);
        assert_non_null(n);
        n->used_us = 100 - i; /* n3 is the least used ... */
    }
    cache_find(&c, "n3")->lookup = busy; /* ... but being asked */
    assert_non_null(cache_make(&c, "new"));
    assert_null(cache_find(&c, "n2"));
    assert_non_null(cache_find(&c, "n3"));
    for (size_t i = 0; i < c.n; i++)
        c.names[i].lookup = busy;
    assert_null(cache_make(&c, "more"));
    cache_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resolv_conf_gives_its_first_three_servers_and_its_options),
        cmocka_unit_test(options_out_of_bounds_are_brought_back_into_them),
        cmocka_unit_test(the_hosts_file_knows_names_and_aliases_of_both_families),
        cmocka_unit_test(a_file_is_read_again_when_it_changed_and_once_a_second_at_most),
        cmocka_unit_test(a_folder_or_a_device_in_place_of_a_file_is_an_empty_file),
        cmocka_unit_test(families_alternate_with_ipv6_first),
        cmocka_unit_test(addresses_are_fresh_for_their_ttl_and_old_after_it),
        cmocka_unit_test(no_addresses_any_more_makes_the_last_ones_old_but_keeps_them),
        cmocka_unit_test(the_cache_is_bounded_and_the_least_used_name_goes_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
