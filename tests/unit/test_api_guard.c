/* test_api_guard.c - who may ask over TCP, what a body may say, and a name in the metrics: tables of foreign text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "api/api_impl.h"

static const struct host_row {
    const char *listen, *host;
    bool ours;
} hosts[] = {
    { "127.0.0.1", "127.0.0.1:9090", true },
    { "127.0.0.1", "localhost:9090", true },
    { "127.0.0.1", "LocalHost:9090", true },
    { "127.0.0.1", NULL, false },
    { "127.0.0.1", "", false },
    { "127.0.0.1", "127.0.0.1", false }, /* port 80 */
    { "127.0.0.1", "127.0.0.1:", false },
    { "127.0.0.1", "127.0.0.1:9091", false },
    { "127.0.0.1", "127.0.0.1:90900", false },
    { "127.0.0.1", "127.0.0.1:9090x", false },
    { "127.0.0.1", "127.0.0.2:9090", false },
    { "127.0.0.1", "localhost.evil.example:9090", false },
    { "127.0.0.1", "evil.example:9090", false },
    { "127.0.0.1", "a@127.0.0.1:9090", false },
    { "127.0.0.1", "[::1]:9090", false },
    { "::1", "[::1]:9090", true },
    { "::1", "localhost:9090", true },
    { "::1", "::1:9090", false },
    { "::1", "[::1:9090", false },
    { "192.0.2.1", "192.0.2.1:9090", true },
    { "192.0.2.1", "localhost:9090", false },
    { "0.0.0.0", "192.0.2.77:9090", true }, /* any literal: rebinding needs a name */
    { "0.0.0.0", "[2001:db8::1]:9090", true },
    { "0.0.0.0", "router.lan:9090", false },
    { "::", "192.0.2.77:9090", true },
};

static void a_host_is_ours_by_its_address_and_never_by_a_strange_name(void **state) /* faults.md A2 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
        struct ip_port at = { .port = 9090 };

        ip_parse(hosts[i].listen, &at.addr);
        if (api_host_is_ours(hosts[i].host, &at) == hosts[i].ours)
            continue;
        print_error("%s at %s\n", hosts[i].host != NULL ? hosts[i].host : "(none)", hosts[i].listen);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void an_origin_is_ours_when_its_host_is(void **state) /* faults.md A2 */
{
    struct ip_port at = { .port = 9090 };

    (void)state;
    ip_parse("127.0.0.1", &at.addr);
    assert_true(api_origin_is_ours(NULL, &at));
    assert_true(api_origin_is_ours("http://127.0.0.1:9090", &at));
    assert_false(api_origin_is_ours("https://127.0.0.1:9090", &at));
    assert_false(api_origin_is_ours("http://127.0.0.1:9090.evil.example", &at));
    assert_false(api_origin_is_ours("http://evil.example", &at));
    assert_false(api_origin_is_ours("null", &at));
    assert_false(api_origin_is_ours("", &at));
}

static void only_the_whole_secret_is_right(void **state) /* faults.md A1 */
{
    (void)state;
    assert_true(api_secret_is_right("Bearer abc", "abc"));
    assert_true(api_secret_is_right("bearer abc", "abc")); /* RFC 9110 section 11.1 */
    assert_false(api_secret_is_right(NULL, "abc"));
    assert_false(api_secret_is_right("", "abc"));
    assert_false(api_secret_is_right("Bearer ", "abc"));
    assert_false(api_secret_is_right("Bearer ab", "abc"));
    assert_false(api_secret_is_right("Bearer abcd", "abc"));
    assert_false(api_secret_is_right("Bearer abcabc", "abc"));
    assert_false(api_secret_is_right("Basic abc", "abc"));
}

#ifdef WITH_API

static const struct body_row {
    const char *text;
    int line, column;
    const char *says;
} bodies[] = {
    { "[]", 1, 1, "must be an object" },
    { "{\"now\": 5}", 1, 2, "must be the name of a member" },
    { "{\n  \"now\": \"\"\n}", 2, 3, "must be the name of a member" },
    { "{\"drain-ms\": -1}", 1, 2, "milliseconds" },
    { "{\"drain-ms\": 4294967295}", 1, 2, "milliseconds" },
    { "{\"other\": 1}", 1, 2, "unknown" },
    { "{\"now\": \"a\",\n \"now\": \"b\"}", 2, 0, "duplicate" },
    { "{\"now\": ", 1, 0, "" },
    { "{} x", 1, 0, "" },
    { "\xff", 1, 0, "" },
};

static void a_wrong_body_says_where(void **state) /* faults.md A8 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        struct api_fault f = { "", 0, 0 };
        struct api_body b;
        int r = api_body_read(bodies[i].text, strlen(bodies[i].text), &b, &f);

        if (r == -22 && f.line == bodies[i].line && (bodies[i].column == 0 || f.column == bodies[i].column) &&
            f.column > 0 && strstr(f.text, bodies[i].says) != NULL)
            continue;
        print_error("%s: %d, %d:%d %s\n", bodies[i].text, r, f.line, f.column, f.text);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void a_deep_body_is_refused_and_takes_no_stack(void **state) /* faults.md A8 */
{
    char *deep = malloc(API_BODY_MAX);
    struct api_fault f = { "", 0, 0 };
    struct api_body b;

    (void)state;
    memset(deep, '[', API_BODY_MAX);
    assert_int_equal(api_body_read(deep, 1000, &b, &f), -22);
    assert_int_equal(api_body_read(deep, API_BODY_MAX, &b, &f), -22);
    assert_int_equal(f.line, 1);
    assert_non_null(strstr(f.text, "too many values"));
    free(deep);
}

static void a_right_body_is_read(void **state)
{
    static const char text[] = "{\"now\": \"a \\u00e4\"}";
    struct api_fault f;
    struct api_body b;

    (void)state;
    assert_int_equal(api_body_read("", 0, &b, &f), 0);
    assert_string_equal(b.member, "");
    assert_true(b.drain_ms == API_NO_DRAIN);
    assert_int_equal(api_body_read(text, strlen(text), &b, &f), 0);
    assert_string_equal(b.member, "a \xc3\xa4");
    assert_int_equal(api_body_read("{\"drain-ms\": 60000}", 19, &b, &f), 0);
    assert_int_equal(b.drain_ms, 60000);
}

#endif

static void a_name_in_the_metrics_is_escaped(void **state)
{
    static const struct status_counter counters[] = { { "icmp_proxy.drops_code", 1 },
                                                      { "ip.short", 3 },
                                                      { "icmp_proxy.drops_rate", 2 } };
    static const struct status_rule rules[] = { { "a \"b\" \\ \n", "x", 7 } };
    struct status_worker w = { .counters = counters, .counter_count = 3 };
    struct status_snapshot s = { .workers = &w, .worker_count = 1, .rules = rules, .rule_count = 1 };
    char *text = api_metrics(&s);

    (void)state;
    assert_non_null(
        strstr(text, "culvert_rule_hits_total{rule=\"0\",text=\"a \\\"b\\\" \\\\ \\n\",via=\"x\"} 7\n"));
    assert_non_null(
        strstr(text, "# TYPE culvert_ip_short_total counter\nculvert_ip_short_total{worker=\"0\"} 3\n"));
    assert_non_null(strstr(text, "icmp_proxy_drops_total{worker=\"0\",reason=\"code\"} 1\n"
                                 "icmp_proxy_drops_total{worker=\"0\",reason=\"rate\"} 2\n"));
    free(text);
}

static void memory_is_one_family_with_a_purpose(void **state)
{
    struct status_worker w = { .index = 3, .memory = { { [MEMORY_PACKETS] = 16384, [MEMORY_TLS] = 40960 } } };
    struct status_snapshot s = { .workers = &w,
                                 .worker_count = 1,
                                 .memory = { { [MEMORY_RULES] = 7, [MEMORY_GEODATA] = 9 } } };
    char *text = api_metrics(&s);
    size_t series = 0;

    (void)state;
    assert_non_null(strstr(text, "culvert_memory_bytes{worker=\"3\",purpose=\"packets\"} 16384\n"
                                 "culvert_memory_bytes{worker=\"3\",purpose=\"tls\"} 40960\n"
                                 "culvert_memory_bytes{worker=\"all\",purpose=\"rules\"} 7\n"
                                 "culvert_memory_bytes{worker=\"all\",purpose=\"geodata\"} 9\n"));
    for (const char *at = text; (at = strstr(at, "culvert_memory_bytes{")) != NULL; at++)
        series++;
    assert_int_equal(series, 4);
    assert_int_equal(memory_sum(&s.memory), 7); /* the kernel takes mapped pages back */
    free(text);
}

static void relayed_errors_have_family_type_and_code(void **state) /* icmp.md 4.10 */
{
    static const struct status_counter counters[] = { { "icmp_proxy.errors_relayed_v4_3_13", 4 },
                                                      { "icmp_proxy.errors_relayed_v6_1_0", 5 },
                                                      { "icmp_proxy.errors_relayed_other", 6 } };
    struct status_worker w = { .counters = counters, .counter_count = 3 };
    struct status_snapshot s = { .workers = &w, .worker_count = 1 };
    char *text = api_metrics(&s);

    (void)state;
#define RELAYED "icmp_proxy_errors_relayed_total{worker=\"0\",family="
    assert_non_null(strstr(text, RELAYED "\"v4\",type=\"3\",code=\"13\"} 4\n" RELAYED
                                         "\"v6\",type=\"1\",code=\"0\"} 5\n" RELAYED
                                         "\"\",type=\"other\",code=\"other\"} 6\n"));
    free(text);
}

static void many_rules_are_few_series(void **state)
{
    enum { RULES = 100000 };
    struct status_rule *rules = calloc(RULES, sizeof(*rules));
    struct status_snapshot s = { .rules = rules, .rule_count = RULES };
    size_t series = 0;
    char *text;

    (void)state;
    for (size_t i = 0; i < RULES; i++)
        rules[i] = (struct status_rule){ "some", "out", 1 };
    rules[RULES - 1] = (struct status_rule){ "MATCH", "last", 9 };
    text = api_metrics(&s);
    for (const char *at = text; (at = strstr(at, "culvert_rule_hits_total{")) != NULL; at++)
        series++;
    assert_int_equal(series, 501);
    assert_non_null(strstr(text, "{rule=\"498\",text=\"some\",via=\"out\"} 1\n"));
    assert_non_null(strstr(text, "{rule=\"99999\",text=\"MATCH\",via=\"last\"} 9\n"));
    assert_non_null(strstr(text, "{rule=\"other\",text=\"\",via=\"\"} 99500\n"));
    free(text);
    free(rules);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_host_is_ours_by_its_address_and_never_by_a_strange_name),
        cmocka_unit_test(an_origin_is_ours_when_its_host_is),
        cmocka_unit_test(only_the_whole_secret_is_right),
#ifdef WITH_API
        cmocka_unit_test(a_wrong_body_says_where),
        cmocka_unit_test(a_deep_body_is_refused_and_takes_no_stack),
        cmocka_unit_test(a_right_body_is_read),
#endif
        cmocka_unit_test(a_name_in_the_metrics_is_escaped),
        cmocka_unit_test(memory_is_one_family_with_a_purpose),
        cmocka_unit_test(relayed_errors_have_family_type_and_code),
        cmocka_unit_test(many_rules_are_few_series),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
