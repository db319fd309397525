/* test_rule_set.c - faces src/rules/set.c, list.c, names.c and prefixes.c: lists as files, and what they cost. */
#include "culvert/rules.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* ---- files ------------------------------------------------------------------------------------------------------ */

static const struct list_row {
    const char *what;
    enum rule_behavior behavior;
    enum rule_format format;
    const char *text;
    uint32_t entries, bad, bad_line;
    const char *says; /* of the first bad line */
} files[] = {
    { "names", RULE_SET_DOMAIN, RULE_LIST_TEXT, "a.b\n\n# x\n  +.c.d  \r\n*.e", 3, 0, 0, "" },
    { "a mark in front", RULE_SET_DOMAIN, RULE_LIST_TEXT, "\357\273\277a.b\n", 1, 0, 0, "" },
    { "no line end", RULE_SET_IPCIDR, RULE_LIST_TEXT, "10.0.0.0/8", 1, 0, 0, "" },
    { "empty", RULE_SET_IPCIDR, RULE_LIST_TEXT, "", 0, 0, 0, "" },
    { "a name among ranges", RULE_SET_IPCIDR, RULE_LIST_TEXT, "10.0.0.0/8\na.b\n", 1, 1, 2,
      "is no address range" },
    { "a range among names", RULE_SET_DOMAIN, RULE_LIST_TEXT, "a.b\n10.0.0.0/8\n", 1, 1, 2, "is no name" },
    { "half a star", RULE_SET_DOMAIN, RULE_LIST_TEXT, "a*.b\n", 0, 1, 1, "a whole label" },
    { "rules", RULE_SET_CLASSICAL, RULE_LIST_TEXT, "DOMAIN,a.b\nIP-CIDR,10.0.0.0/8,no-resolve\nUID,0\n", 3, 0,
      0, "" },
    { "a rule with a target", RULE_SET_CLASSICAL, RULE_LIST_TEXT, "DOMAIN,a.b,DIRECT\n", 0, 1, 1,
      "\"DIRECT\" follows" },
    { "a rule that we lack", RULE_SET_CLASSICAL, RULE_LIST_TEXT, "GEOSITE,cn\n", 0, 1, 1,
      "GEOSITE is not supported" },
    { "a set in a set", RULE_SET_CLASSICAL, RULE_LIST_TEXT, "RULE-SET,x\n", 0, 1, 1,
      "cannot stand in a list" },
    { "MATCH in a set", RULE_SET_CLASSICAL, RULE_LIST_TEXT, "MATCH\n", 0, 1, 1, "unknown rule" },
    { "YAML", RULE_SET_DOMAIN, RULE_LIST_YAML, "# x\npayload:\n  - a.b # y\n  - '+.c.d'\n  - \"*.e\"\n", 3, 0,
      0, "" },
    { "YAML without indent", RULE_SET_DOMAIN, RULE_LIST_YAML, "---\npayload:\n- a.b\n- 'c.d'\n", 2, 0, 0,
      "" },
    { "YAML of rules", RULE_SET_CLASSICAL, RULE_LIST_YAML,
      "payload:\n  - DOMAIN-SUFFIX,a.b\n  - 'AND,((NETWORK,udp),(DST-PORT,443))'\n", 2, 0, 0, "" },
    { "YAML of nothing", RULE_SET_DOMAIN, RULE_LIST_YAML, "payload: []\n", 0, 0, 0, "" },
    { "YAML in brackets", RULE_SET_DOMAIN, RULE_LIST_YAML, "payload: [a.b]\n", 0, 1, 1,
      "lines of their own" },
    { "text as YAML", RULE_SET_DOMAIN, RULE_LIST_YAML, "a.b\n", 0, 1, 1, "is no entry" },
    { "open quotes", RULE_SET_DOMAIN, RULE_LIST_YAML, "payload:\n- 'a.b\n- c.d\n", 1, 1, 2,
      "quotes do not end" },
    { "doubled quotes", RULE_SET_DOMAIN, RULE_LIST_YAML, "payload:\n- 'a''b'\n", 0, 1, 2, "is no name" },
};

static void a_list_is_read_and_its_bad_lines_are_named(void **state) /* faults.md C6 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        const struct list_row *f = &files[i];
        struct rule_list_report report;
        struct rule_set *s = NULL;

        assert_int_equal(rule_set_parse(f->behavior, f->format, f->text, strlen(f->text), &s, &report), 0);
        if (report.entries != f->entries || report.bad != f->bad || rule_set_count(s) != f->entries ||
            (f->bad > 0 && (report.first_bad[0].line != f->bad_line ||
                            strstr(report.first_bad[0].why.text, f->says) == NULL))) {
            print_error("%s: %u entries, %u bad; line %u: %s\n", f->what, report.entries, report.bad,
                        report.first_bad[0].line, report.bad > 0 ? report.first_bad[0].why.text : "");
            wrong++;
        }
        rule_set_unref(s);
    }
    assert_int_equal(wrong, 0);
}

/* ---- a million entries --------------------------------------------------------------------------------------------- */

enum { NAMES = 1000000, RANGES = 100000 };

/* Names as they are in lists of such a size: 8 to 30 bytes, 17.6 on average here, a third of them below another one. */
static size_t name_of(uint32_t i, char *out) /* up to 40 bytes */
{
    static const char *const tops[] = { "com", "net", "org", "co.example", "info", "io" };
    uint32_t h = i * 2654435761u;

    if (i % 3 == 0)
        return (size_t)sprintf(out, "ad%u.host%u.%s", h % 97, i, tops[i % 5]);
    return (size_t)sprintf(out, "%c%csite%u.%s", 'a' + h % 26, 'a' + h / 26 % 26, i, tops[i % 5]);
}

static void a_million_names_are_small_and_found_in_a_few_steps(void **state) /* faults.md C6 */
{
    size_t used = 0, cap = NAMES * 40, found = 0;
    char *text = malloc(cap), name[64];
    struct rule_list_report report;
    struct rule_set *s = NULL;
    uint64_t visited = 0, missed = 0;
    double each;

    (void)state;
    assert_non_null(text);
    for (uint32_t i = 0; i < NAMES; i++) {
        if (i == 777776)
            used += (size_t)sprintf(text + used, "not a name\n");
        used += (size_t)sprintf(text + used, "+.");
        used += name_of(i, text + used);
        text[used++] = '\n';
    }
    assert_true(used < cap);
    assert_int_equal(rule_set_parse(RULE_SET_DOMAIN, RULE_LIST_TEXT, text, used, &s, &report), 0);
    free(text);
    assert_int_equal(report.entries, NAMES);
    assert_int_equal(report.bad, 1); /* skipped, counted and named; all others are there */
    assert_int_equal(report.first_bad[0].line, 777777);
    each = (double)rule_set_bytes(s) / NAMES;
    for (uint32_t i = 0; i < NAMES; i += 10) {
        sprintf(name, "www.");
        name_of(i, name + 4);
        found += rule_set_has_name(s, name, &visited);
        name[4]++;
        rule_set_has_name(s, name, &missed);
    }
    print_message("%.1f bytes an entry, %.2f places for a name that is there, %.2f for one that is not\n",
                  each, (double)visited / (NAMES / 10), (double)missed / (NAMES / 10));
    assert_int_equal(found, NAMES / 10);
    assert_true(each <= 32);
    assert_true(visited <= 4ull * NAMES / 10);
    assert_true(missed <= 6ull * NAMES / 10);
    rule_set_unref(s);
}

static void rules_count_their_lists_and_themselves(void **state)
{
    static const char list[] = "+.example.org\n+.example.net\n";
    struct rule_cond cond = { .kind = RULE_SET };
    struct rule rule = { .name = "RULE-SET,list,out", .target = 1, .conds = &cond, .n_conds = 1 };
    struct memory_use use = { { 0 } };
    struct rule_list_report report;
    struct rules *r;

    (void)state;
    assert_int_equal(
        rule_set_parse(RULE_SET_DOMAIN, RULE_LIST_TEXT, list, sizeof(list) - 1, &cond.set, &report), 0);
    assert_int_equal(rules_new(&rule, 1, 0, &r), 0);
    rules_memory(r, &use);
    assert_true(use.bytes[MEMORY_RULES] > rule_set_bytes(cond.set));
    assert_true(use.bytes[MEMORY_RULES] < rule_set_bytes(cond.set) + 4096);
    assert_int_equal(memory_sum(&use), use.bytes[MEMORY_RULES]);
    rules_unref(r);
    rule_set_unref(cond.set);
}

static void a_hundred_thousand_ranges_are_small_and_found_in_a_few_steps(void **state)
{
    struct rule_set_builder *b;
    struct rule_set *s;
    struct ip_addr addr;
    uint64_t visited = 0;
    char text[64];
    double each;

    (void)state;
    assert_int_equal(rule_set_build(RULE_SET_IPCIDR, &b), 0);
    for (uint32_t i = 0; i < RANGES; i++) {
        int len = i % 4 == 3 ? snprintf(text, sizeof(text), "2001:%x:%x::/48", i >> 8, i & 255)
                             : snprintf(text, sizeof(text), "%u.%u.%u.0/%u", 1 + i / 65536, i / 256 % 256,
                                        i % 256, 22 + i % 4);

        assert_int_equal(rule_set_add(b, text, (size_t)len, NULL), 0);
    }
    assert_int_equal(rule_set_finish(b, &s), 0);
    each = (double)rule_set_bytes(s) / RANGES;
    for (uint32_t i = 0; i < RANGES; i += 10) {
        snprintf(text, sizeof(text), i % 4 == 3 ? "2001:%x:%x::1" : "%u.%u.0.1",
                 i % 4 == 3 ? i >> 8 : 1 + i / 65536, i % 4 == 3 ? i & 255 : i / 256 % 256);
        assert_int_equal(ip_parse(text, &addr), 0);
        rule_set_has_addr(s, &addr, &visited);
    }
    print_message("%.1f bytes an entry, %.2f places for an address\n", each, (double)visited / (RANGES / 10));
    assert_true(each <= 32);
    assert_true(visited <= 20ull * RANGES / 10); /* 2^17 is more than there are */
    rule_set_unref(s);
}

/* Rules of their own, not in a list: what a match looks at must not grow with them. */
static void the_cost_of_a_match_does_not_grow_with_the_rules(void **state) /* faults.md C6 */
{
    enum { MANY = 100000 };
    struct rule_cond *conds = calloc(MANY, sizeof(*conds));
    struct rule *list = calloc(MANY, sizeof(*list));
    char(*names)[32] = calloc(MANY, sizeof(*names));
    struct rules *r;
    uint64_t all = 0;

    (void)state;
    for (uint32_t i = 0; i < MANY; i++) {
        struct rule_cond *c = &conds[i];

        c->kind = i % 2 == 0 ? RULE_DOMAIN_SUFFIX : RULE_DST_CIDR;
        snprintf(names[i], sizeof(names[i]), i % 2 == 0 ? "n%u.example" : "%u.%u.%u.0/24",
                 i % 2 == 0 ? i : 1 + i / 65536, i / 256 % 256, i % 256);
        c->no_resolve = true;
        if (i % 2 == 0) {
            c->value.text = names[i];
            c->value.len = (uint32_t)strlen(names[i]);
        } else
            assert_int_equal(ip_prefix_parse(names[i], &c->prefix), 0);
        list[i] = (struct rule){ .conds = c, .n_conds = 1, .target = i, .name = names[i] };
    }
    assert_int_equal(rules_new(list, MANY, 0, &r), 0);
    for (uint32_t i = 0; i < MANY; i += 100) {
        char name[64];
        struct rule_flow flow = { .target.name = name, .proto = IP_PROTO_TCP };
        struct rule_verdict v;

        snprintf(name, sizeof(name), "www.n%u.example", i);
        rules_match_counted(r, &flow, &v, &all);
        assert_int_equal(v.rule, i);
    }
    print_message("%.1f places for one of %d rules\n", (double)all / (MANY / 100), MANY);
    assert_true(all <= 15ull * MANY / 100);
    rules_unref(r);
    free(conds);
    free(list);
    free(names);
}

static void a_range_inside_another_is_dropped_but_not_over_families(void **state)
{
    static const char text[] = "::/0\n10.0.0.0/8\n10.1.0.0/16\n10.1.2.3\n2001:db8::/32\n";
    struct rule_list_report report;
    struct ip_addr a;
    struct rule_set *s;

    (void)state;
    assert_int_equal(rule_set_parse(RULE_SET_IPCIDR, RULE_LIST_TEXT, text, strlen(text), &s, &report), 0);
    assert_int_equal(ip_parse("10.1.2.4", &a), 0);
    assert_true(rule_set_has_addr(s, &a, NULL));
    assert_int_equal(ip_parse("11.1.2.4", &a), 0);
    assert_false(rule_set_has_addr(s, &a, NULL)); /* ::/0 is nothing of IPv4 */
    assert_int_equal(ip_parse("2001:db9::", &a), 0);
    assert_true(rule_set_has_addr(s, &a, NULL));
    rule_set_unref(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_is_read_and_its_bad_lines_are_named),
        cmocka_unit_test(a_million_names_are_small_and_found_in_a_few_steps),
        cmocka_unit_test(rules_count_their_lists_and_themselves),
        cmocka_unit_test(a_hundred_thousand_ranges_are_small_and_found_in_a_few_steps),
        cmocka_unit_test(the_cost_of_a_match_does_not_grow_with_the_rules),
        cmocka_unit_test(a_range_inside_another_is_dropped_but_not_over_families),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
