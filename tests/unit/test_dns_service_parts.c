/* test_dns_service_parts.c - faces src/resolver/answer_cache.c and plan.c: what is remembered and until when, and what a reload swaps. */
#include "resolver/service_impl.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define S UINT64_C(1000000) /* a second in microseconds */

/* ---- answers ---- */

static void put(struct answer_cache *c, const char *name, uint32_t ttl_s, uint64_t now_us)
{
    static const uint8_t message[40] = { 1, 2, 3 };
    const struct answer_key key = { name, DNS_A, 0 };
    const struct dns_relay relay = { .answer = { .rcode = DNS_NOERROR, .ttl_s = ttl_s },
                                     .len = sizeof(message) };

    answer_cache_put(c, &key, (struct span){ message, sizeof(message) }, &relay, now_us);
}

static const struct kept_answer *find(struct answer_cache *c, const char *name)
{
    return answer_cache_find(c, &(struct answer_key){ name, DNS_A, 0 });
}

static void an_answer_is_found_by_name_type_and_flags_only(void **state)
{
    struct answer_cache c;

    (void)state;
    assert_int_equal(answer_cache_init(&c, 4), 0);
    put(&c, "a.example", 60, 5 * S);
    assert_non_null(find(&c, "a.example"));
    assert_null(find(&c, "b.example"));
    assert_null(answer_cache_find(&c, &(struct answer_key){ "a.example", DNS_AAAA, 0 }));
    assert_null(answer_cache_find(&c, &(struct answer_key){ "a.example", DNS_A, DNS_Q_DO }));
    assert_int_equal(find(&c, "a.example")->came_us, 5 * S);
    assert_int_equal(find(&c, "a.example")->expires_us, 65 * S);
    answer_cache_fini(&c);
}

static void a_newer_answer_replaces_the_older_one(void **state)
{
    struct answer_cache c;

    (void)state;
    assert_int_equal(answer_cache_init(&c, 4), 0);
    put(&c, "a.example", 60, 0);
    put(&c, "a.example", 7, 10 * S);
    assert_int_equal(c.count, 1);
    assert_int_equal(find(&c, "a.example")->expires_us, 17 * S);
    answer_cache_fini(&c);
}

static void a_full_cache_forgets_what_was_used_longest_ago(void **state) /* faults.md D10 */
{
    struct answer_cache c;
    char name[32];

    (void)state;
    assert_int_equal(answer_cache_init(&c, 4), 0);
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof(name), "n%d.example", i);
        put(&c, name, 60, 0);
    }
    assert_non_null(find(&c, "n0.example"));
    put(&c, "n4.example", 60, 0);
    assert_int_equal(c.count, 4);
    assert_non_null(find(&c, "n0.example"));
    assert_null(find(&c, "n1.example"));
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "r%d.example", i);
        put(&c, name, 60, 0);
    }
    assert_int_equal(c.count, 4);
    answer_cache_fini(&c);
}

static void a_cleared_cache_is_empty_and_takes_answers_again(void **state)
{
    struct answer_cache c;

    (void)state;
    assert_int_equal(answer_cache_init(&c, 4), 0);
    put(&c, "a.example", 60, 0);
    answer_cache_clear(&c);
    assert_int_equal(c.count, 0);
    assert_null(find(&c, "a.example"));
    put(&c, "a.example", 60, 0);
    assert_non_null(find(&c, "a.example"));
    answer_cache_fini(&c);
}

/* ---- plans ---- */

/* Settings whose texts and lists are gone as soon as the plan is made. */
static struct dns_plan *plan_of_short_lived_settings(void)
{
    char pattern[] = "+.corp.example", server[] = "dns.example", path[] = "/q", filter[] = "*.lan",
         proxy[] = "exit.example";
    struct dns_nameserver plain = { .transport = DNS_OVER_UDP, .at = { .port = 53 } };
    struct dns_nameserver secure = { .transport = DNS_OVER_HTTPS,
                                     .at = { .name = server, .port = 443 },
                                     .path = path };
    struct dns_policy policy = { pattern, { &secure, 1 } };
    const char *filters[] = { filter }, *proxies[] = { "zz.example", proxy, "aa.example" };
    struct dns_host host = { .pattern = pattern, .n = 1 };
    struct dns_settings s = { .mode = DNS_MODE_REAL,
                              .nameservers = { &plain, 1 },
                              .policies = &policy,
                              .n_policies = 1,
                              .fake_filter = { filters, 1 },
                              .hosts = &host,
                              .n_hosts = 1 };
    const struct dns_plan_setup setup = { .settings = &s, .proxy_names = proxies, .proxy_name_count = 3 };
    struct dns_plan *p;

    assert_int_equal(dns_plan_new(&setup, &p), 0);
    memset(pattern, 'x', sizeof(pattern) - 1);
    memset(server, 'x', sizeof(server) - 1);
    memset(path, 'x', sizeof(path) - 1);
    memset(filter, 'x', sizeof(filter) - 1);
    memset(proxy, 'x', sizeof(proxy) - 1);
    return p;
}

static void a_plan_keeps_all_that_its_settings_pointed_to(void **state)
{
    struct dns_plan *p = plan_of_short_lived_settings();
    const struct dns_settings *s = dns_plan_settings(p);

    (void)state;
    assert_int_equal(s->mode, DNS_MODE_REAL);
    assert_int_equal(s->nameservers.n, 1);
    assert_string_equal(s->policies[0].pattern, "+.corp.example");
    assert_string_equal(s->policies[0].servers.list[0].at.name, "dns.example");
    assert_string_equal(s->policies[0].servers.list[0].path, "/q");
    assert_string_equal(s->fake_filter.list[0], "*.lan");
    assert_string_equal(s->hosts[0].pattern, "+.corp.example");
    dns_plan_unref(dns_plan_ref(p));
    dns_plan_unref(p);
}

static void names_that_name_servers_hang_on_are_asked_first(
    void **state) /* faults.md D7: no chicken and egg */
{
    struct dns_plan *p = plan_of_short_lived_settings();

    (void)state;
    assert_true(dns_plan_asks_first(p, "dns.example"));
    assert_true(dns_plan_asks_first(p, "EXIT.example"));
    assert_true(dns_plan_asks_first(p, "aa.example") && dns_plan_asks_first(p, "ZZ.example"));
    assert_false(dns_plan_asks_first(p, "www.corp.example"));
    dns_plan_unref(p);
}

/* The names of proxies, and whom they are asked of. */
static void names_of_proxies_are_asked_of_their_own_servers_but_never_a_server_of_itself(void **state)
{
    static const struct dns_nameserver secure = { .transport = DNS_OVER_TLS,
                                                  .at = { .name = "boot.example", .port = 853 } };
    static const struct dns_nameserver usual = { .transport = DNS_OVER_TLS,
                                                 .at = { .name = "usual.example", .port = 853 } };
    static const char *const proxies[] = { "exit.example" };
    struct dns_settings s = { .nameservers = { &usual, 1 }, .proxy_nameservers = { &secure, 1 } };
    const struct dns_plan_setup setup = { .settings = &s, .proxy_names = proxies, .proxy_name_count = 1 };
    struct dns_plan *p;

    (void)state;
    assert_int_equal(dns_plan_new(&setup, &p), 0);
    assert_true(dns_plan_bootstraps(p, "exit.example"));
    assert_true(dns_plan_bootstraps(p, "usual.example"));
    assert_false(dns_plan_bootstraps(p, "boot.example")); /* the resolver's */
    assert_true(dns_plan_asks_first(p, "boot.example"));
    assert_false(dns_plan_bootstraps(p, "www.example"));
    assert_string_equal(dns_plan_servers(p, "exit.example")->list[0].at.name, "boot.example");
    assert_string_equal(dns_plan_servers(p, "www.example")->list[0].at.name, "usual.example");
    dns_plan_unref(p);
    s.proxy_nameservers.n = 0; /* plain addresses, or none: the resolver's as well */
    assert_int_equal(dns_plan_new(&setup, &p), 0);
    assert_false(dns_plan_bootstraps(p, "exit.example"));
    assert_true(dns_plan_asks_first(p, "exit.example"));
    dns_plan_unref(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_is_found_by_name_type_and_flags_only),
        cmocka_unit_test(a_newer_answer_replaces_the_older_one),
        cmocka_unit_test(a_full_cache_forgets_what_was_used_longest_ago),
        cmocka_unit_test(a_cleared_cache_is_empty_and_takes_answers_again),
        cmocka_unit_test(a_plan_keeps_all_that_its_settings_pointed_to),
        cmocka_unit_test(names_that_name_servers_hang_on_are_asked_first),
        cmocka_unit_test(names_of_proxies_are_asked_of_their_own_servers_but_never_a_server_of_itself),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
