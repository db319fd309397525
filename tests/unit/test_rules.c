/* test_rules.c - faces src/rules: which rule takes a flow, and what a mistake in a rule is told. */
#include "culvert/rules.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define TARGETS_MAX 16

/* A list from classic strings; the target of rule i is i + 1, the implicit one 0. */
static struct rules *list_of(const char *const *texts, size_t n)
{
    struct rule_text *parsed = calloc(n, sizeof(*parsed));
    struct rule list[TARGETS_MAX] = { { .conds = NULL } };
    struct rules *r = NULL;
    struct err err;
    size_t at;

    assert_non_null(parsed);
    assert_in_range(n, 0, TARGETS_MAX);
    for (size_t i = 0; i < n; i++) {
        if (rules_parse(texts[i], &parsed[i], &at, &err) != 0)
            fail_msg("%s: at %zu: %s", texts[i], at, err.text);
        list[i] = (struct rule){ .conds = parsed[i].conds,
                                 .n_conds = parsed[i].n_conds,
                                 .target = (uint32_t)i + 1,
                                 .name = texts[i],
                                 .no_resolve = parsed[i].no_resolve };
    }
    assert_int_equal(rules_new(list, n, 0, &r), 0);
    free(parsed);
    return r;
}

static struct rule_flow flow_of(enum ip_proto proto, const char *client, uint16_t client_port,
                                const char *target, uint16_t target_port)
{
    struct rule_flow flow = { .proto = proto, .client.port = client_port, .target.port = target_port };

    assert_int_equal(ip_parse(client, &flow.client.addr), 0);
    if (target != NULL)
        assert_int_equal(ip_parse(target, &flow.target.addr), 0);
    else
        flow.target.name = "host.example";
    return flow;
}

static const char *const household[] = {
    "IP-CIDR,10.0.0.0/8,DIRECT",
    "IP-CIDR6,fd00::/8,DIRECT,no-resolve",
    "SRC-IP-CIDR,192.168.1.64/26,spread",
    "DST-PORT,80/443/8000-8999,web",
    "SRC-PORT,5353,mdns",
    "NETWORK,udp,datagrams",
    "NETWORK,icmp,pings",
    "IP-CIDR,203.0.113.7,one",
    "IP-CIDR6,::/0,six",
};

static const struct match_row {
    const char *what;
    enum ip_proto proto;
    const char *client;
    uint16_t client_port;
    const char *target;
    uint16_t target_port;
    uint32_t rule; /* index in household, or RULE_IMPLICIT */
} matches[] = {
    { "inside a range", IP_PROTO_TCP, "192.0.2.1", 1000, "10.255.0.1", 22, 0 },
    { "first rule wins", IP_PROTO_TCP, "192.168.1.65", 1000, "10.0.0.1", 80, 0 },
    { "just outside the range", IP_PROTO_TCP, "192.0.2.1", 1000, "11.0.0.0", 22, RULE_IMPLICIT },
    { "IPv6 range", IP_PROTO_TCP, "fd00::1", 1000, "fdff::1", 22, 1 },
    { "client's first address", IP_PROTO_TCP, "192.168.1.64", 1000, "192.0.2.9", 22, 2 },
    { "client's last address", IP_PROTO_TCP, "192.168.1.127", 1000, "192.0.2.9", 22, 2 },
    { "client one past the last", IP_PROTO_TCP, "192.168.1.128", 1000, "192.0.2.9", 22, RULE_IMPLICIT },
    { "single port of a list", IP_PROTO_TCP, "192.0.2.1", 1000, "192.0.2.9", 443, 3 },
    { "first of a port range", IP_PROTO_UDP, "192.0.2.1", 1000, "192.0.2.9", 8000, 3 },
    { "last of a port range", IP_PROTO_TCP, "192.0.2.1", 1000, "192.0.2.9", 8999, 3 },
    { "one past a port range", IP_PROTO_TCP, "192.0.2.1", 1000, "192.0.2.9", 9000, RULE_IMPLICIT },
    { "client's port", IP_PROTO_UDP, "192.0.2.1", 5353, "192.0.2.9", 5353, 4 },
    { "UDP", IP_PROTO_UDP, "192.0.2.1", 1000, "192.0.2.9", 53, 5 },
    { "echo", IP_PROTO_ICMP, "192.0.2.1", 1, "192.0.2.9", 0, 6 },
    { "echo of IPv6", IP_PROTO_ICMPV6, "fe80::1", 1, "2001:db8::1", 0, 6 },
    { "an echo id is no port", IP_PROTO_ICMP, "192.0.2.1", 5353, "192.0.2.9", 80, 6 },
    { "a bare address is one address", IP_PROTO_TCP, "192.0.2.1", 1000, "203.0.113.7", 22, 7 },
    { "::/0 is all of IPv6", IP_PROTO_TCP, "fd00::1", 1000, "2001:db8::1", 22, 8 },
    { "::/0 is nothing of IPv4", IP_PROTO_TCP, "192.0.2.1", 1000, "203.0.113.8", 22, RULE_IMPLICIT },
    { "a name has no address", IP_PROTO_TCP, "192.0.2.1", 1000, NULL, 22, RULE_IMPLICIT },
    { "a name has a port", IP_PROTO_TCP, "192.0.2.1", 1000, NULL, 80, 3 },
};

static void the_first_rule_that_matches_wins(void **state)
{
    struct rules *r = list_of(household, ARRAY_LEN(household));
    int wrong = 0;

    (void)state;
    assert_int_equal(rules_count(r), ARRAY_LEN(household));
    for (size_t i = 0; i < ARRAY_LEN(matches); i++) {
        const struct match_row *m = &matches[i];
        struct rule_flow flow = flow_of(m->proto, m->client, m->client_port, m->target, m->target_port);
        struct rule_verdict v;

        rules_match(r, &flow, &v);
        if (v.rule == m->rule && v.target == (m->rule == RULE_IMPLICIT ? 0 : m->rule + 1))
            continue;
        print_error("%s: rule %d \"%s\", not %d\n", m->what, (int)v.rule, rules_name(r, v.rule),
                    (int)m->rule);
        wrong++;
    }
    rules_unref(r);
    assert_int_equal(wrong, 0);
}

static void match_takes_everything_and_nothing_behind_it_is_reached(void **state)
{
    static const char *const texts[] = { "MATCH,up", "NETWORK,tcp,never" };
    struct rules *r = list_of(texts, ARRAY_LEN(texts));
    struct rule_flow flow = flow_of(IP_PROTO_TCP, "192.0.2.1", 1, "192.0.2.2", 2);
    struct rule_verdict v;

    (void)state;
    rules_match(r, &flow, &v);
    assert_int_equal(v.rule, 0);
    assert_int_equal(v.target, 1);
    assert_int_equal(v.echo, RULE_ECHO_UNSET);
    rules_unref(r);
}

static void an_empty_list_gives_the_implicit_target(void **state)
{
    struct rule_flow flow = flow_of(IP_PROTO_UDP, "192.0.2.1", 1, "192.0.2.2", 2);
    struct rule_verdict v;
    struct rules *r;

    (void)state;
    assert_int_equal(rules_new(NULL, 0, 42, &r), 0);
    rules_match(r, &flow, &v);
    assert_int_equal(v.target, 42);
    assert_int_equal(v.rule, RULE_IMPLICIT);
    assert_string_equal(rules_name(r, v.rule), "(no rule)");
    rules_unref(r);
}

static void conditions_of_one_kind_are_alternatives_and_kinds_must_all_hold(void **state)
{
    struct rule_cond conds[5]; /* deliberately mixed: dst, port, dst, network, port */
    struct rule rule = {
        .conds = conds, .n_conds = 5, .target = 7, .name = "mixed", .echo = RULE_ECHO_PROXY
    };
    struct {
        const char *target;
        uint16_t port;
        enum ip_proto proto;
        bool taken;
    } rows[] = {
        { "192.0.2.1", 80, IP_PROTO_TCP, true },     { "2001:db8::1", 443, IP_PROTO_TCP, true },
        { "192.0.2.1", 22, IP_PROTO_TCP, false },    { "198.51.100.1", 80, IP_PROTO_TCP, false },
        { "2001:db8::1", 443, IP_PROTO_UDP, false }, { "192.0.2.255", 443, IP_PROTO_TCP, true },
    };
    struct rule_verdict v;
    struct rules *r;
    size_t n, at;

    (void)state;
    assert_int_equal(rules_value_parse(RULE_DST_CIDR, "192.0.2.0/24", &conds[0], 1, &n, &at, NULL), 0);
    assert_int_equal(rules_value_parse(RULE_DST_PORT, "80", &conds[1], 1, &n, &at, NULL), 0);
    assert_int_equal(rules_value_parse(RULE_DST_CIDR, "2001:db8::/32", &conds[2], 1, &n, &at, NULL), 0);
    assert_int_equal(rules_value_parse(RULE_NETWORK, "TCP", &conds[3], 1, &n, &at, NULL), 0);
    assert_int_equal(rules_value_parse(RULE_DST_PORT, "443", &conds[4], 1, &n, &at, NULL), 0);
    assert_int_equal(rules_new(&rule, 1, 0, &r), 0);
    memset(conds, 0xff, sizeof(conds)); /* the list has its own copy */
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct rule_flow flow = flow_of(rows[i].proto, "192.0.2.1", 1, rows[i].target, rows[i].port);

        rules_match(r, &flow, &v);
        assert_int_equal(v.target, rows[i].taken ? 7 : 0);
        assert_int_equal(v.echo, rows[i].taken ? RULE_ECHO_PROXY : RULE_ECHO_UNSET);
    }
    rules_unref(r);
}

static void a_list_lives_until_its_last_reference(void **state)
{
    static const char *const texts[] = { "MATCH,up" };
    struct rules *r = list_of(texts, 1);

    (void)state;
    assert_ptr_equal(rules_ref(r), r);
    rules_unref(r);
    assert_string_equal(rules_name(r, 0), "MATCH,up"); /* AddressSanitizer sees the difference */
    rules_unref(r);
    rules_unref(NULL);
}

static void a_condition_that_contradicts_itself_is_refused(void **state)
{
    struct rule_cond bad[] = {
        { .kind = RULE_DST_PORT, .ports = { .first = 2, .last = 1 } },
        { .kind = RULE_SRC_CIDR, .prefix.len = 129 },
        { .kind = RULE_NETWORK, .networks = 0 },
        { .kind = RULE_NETWORK, .networks = 8 },
    };
    struct rules *r = NULL;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct rule rule = { .conds = &bad[i], .n_conds = 1 };

        assert_int_equal(rules_new(&rule, 1, 0, &r), -EINVAL);
        assert_null(r);
    }
}

/* faults.md C1 (known but unsupported, near miss) and config.md section 1: what, where, and what would work. */
static const struct text_row {
    const char *text;
    int r;
    size_t at;
    const char *says; /* part of the sentence; of a good rule: its target */
    size_t conds;
} texts[] = {
    { "MATCH,up", 0, 0, "up", 0 },
    { "MATCH, my proxy ", 0, 0, "my proxy", 0 },
    { " IP-CIDR , 10.0.0.0/8 , DIRECT , no-resolve ", 0, 0, "DIRECT", 1 },
    { "IP-CIDR,fd00::/8,DIRECT", 0, 0, "DIRECT", 1 },
    { "IP-CIDR6,10.1.2.3/8,DIRECT", 0, 0, "DIRECT", 1 },
    { "DST-PORT,80/443/8000-8999,web", 0, 0, "web", 3 },
    { "DST-PORT,0-65535,web", 0, 0, "web", 1 },
    { "SRC-PORT, 80 / 443 ,web", 0, 0, "web", 2 },
    { "NETWORK,UDP,up", 0, 0, "up", 1 },
    { "", -EINVAL, 0, "unknown rule \"\"; write TYPE,VALUE,TARGET", 0 },
    { "MATCH", -EINVAL, 5, "the target is missing", 0 },
    { "MATCH,", -EINVAL, 6, "the target is empty", 0 },
    { "MATCH,up,no-resolve", -EINVAL, 9, "no-resolve is for IP-CIDR", 0 },
    { "IP-CIDR", -EINVAL, 7, "IP-CIDR needs a value and a target", 0 },
    { "IP-CIDR,10.0.0.0/8", -EINVAL, 18, "the target is missing", 0 },
    { "IP-CIDR,10.0.0.0/8,", -EINVAL, 19, "the target is empty", 0 },
    { "IP-CIDR,10.0.0.0/33,up", -EINVAL, 8, "\"10.0.0.0/33\" is no address range", 0 },
    { "IP-CIDR,10.0.0/8,up", -EINVAL, 8, "is no address range", 0 },
    { "IP-CIDR, ,up", -EINVAL, 9, "\"\" is no address range", 0 },
    { "IP-CIDR,10.0.0.0/8,up,noresolve", -EINVAL, 22, "\"noresolve\" follows the target", 0 },
    { "IP-CIDR,10.0.0.0/8,up,src", -EINVAL, 22, "write SRC-IP-CIDR instead", 0 },
    { "IP-CIDR,10.0.0.0/8,up,no-resolve,no-resolve", -EINVAL, 33, "written twice", 0 },
    { "DST-PORT,80/x,up", -EINVAL, 12, "\"x\" is no port", 0 },
    { "DST-PORT,65536,up", -EINVAL, 9, "\"65536\" is no port", 0 },
    { "DST-PORT,443-80,up", -EINVAL, 9, "\"443-80\" runs backwards; write 80-443", 0 },
    { "DST-PORT,80//443,up", -EINVAL, 12, "\"\" is no port", 0 },
    { "DST-PORT,-1,up", -EINVAL, 9, "\"-1\" is no port", 0 },
    { "DST-PORT,1-2-3,up", -EINVAL, 9, "\"1-2-3\" is no port", 0 },
    { "DST-PORT,,up", -EINVAL, 9, "\"\" is no port", 0 },
    { "NETWORK,sctp,up", -EINVAL, 8, "write tcp, udp or icmp", 0 },
    { "DOMAIN,exa mple.org,up", -EINVAL, 7, "\"exa mple.org\" is no name", 0 },
    { "DOMAIN-SUFFIX,+.example.org,up", -EINVAL, 14, "leave out the \"+.\"", 0 },
    { "DOMAIN-SUFFIX,.example.org,up", 0, 0, "up", 1 },
    { "DOMAIN-KEYWORD,a b,up", -EINVAL, 15, "can never be in a name", 0 },
    { "DOMAIN-KEYWORD,,up", -EINVAL, 15, "the value is empty", 0 },
    { "DOMAIN-WILDCARD,*.ex?mple.org,up", 0, 0, "up", 1 },
    { "GEOIP,LAN,up,no-resolve", 0, 0, "up", 1 },
    { "GEOIP,Germany,up", -EINVAL, 6, "write two letters", 0 },
    { "PROCESS-NAME,/bin/sh,up", -EINVAL, 13, "PROCESS-PATH takes it", 0 },
    { "PROCESS-PATH,sh,up", -EINVAL, 13, "PROCESS-NAME takes a bare name", 0 },
    { "UID,0/1000-1999,up", 0, 0, "up", 2 },
    { "UID,root,up", -EINVAL, 4, "is no user", 0 },
    { "IN-NAME,tun0/tun1,up", 0, 0, "up", 2 },
    { "RULE-SET,list,up,no-resolve", 0, 0, "up", 1 },
    { " AND,((NETWORK,udp),(DST-PORT,443)),REJECT", 0, 0, "REJECT", 3 },
    { "NOT,((OR,((DST-PORT,80/443),(UID,0)))),up", 0, 0, "up", 6 },
    { "AND,(NETWORK,udp),up", -EINVAL, 5, "AND wants its rules in parentheses", 0 },
    { "AND,((NETWORK,udp),DST-PORT),up", -EINVAL, 19, "AND wants its rules in parentheses", 0 },
    { "AND,(()),up", -EINVAL, 6, "unknown rule", 0 },
    { "OR,(),up", -EINVAL, 3, "OR wants its rules in parentheses", 0 },
    { "OR,((NETWORK,udp)", -EINVAL, 3, "OR wants its rules in parentheses", 0 },
    { "NOT,((NETWORK,udp),(UID,0)),up", -EINVAL, 4, "NOT takes one rule", 0 },
    { "AND,((IP-CIDR,10.0.0.0/8,no-resolve),(NETWORK,udp)),up", 0, 0, "up", 3 },
    { "AND,((NETWORK,udp,no-resolve)),up", -EINVAL, 18, "no-resolve is for IP-CIDR", 0 },
    { "AND,((NETWORK,udp),(GEOSITE,cn)),up", -ENOTSUP, 20, "GEOSITE is not supported", 0 },
    { "GEOIP,LAN,up,src", -EINVAL, 13, "\"src\" is not supported", 0 },
#ifdef WITH_REGEX
    { "DOMAIN-REGEX,^a{1,3}\\.(org|net)$,up", 0, 0, "up", 1 },
    { "DOMAIN-REGEX,(a,up", -EINVAL, 13, "is no regular expression: missing closing parenthesis", 0 },
#else
    { "DOMAIN-REGEX,^a,up", -ENOTSUP, 13, "WITH_REGEX=OFF", 0 },
#endif
    { "GEOSITE,cn,DIRECT", -ENOTSUP, 0, "GEOSITE is not supported; use RULE-SET", 0 },
    { "SUB-RULE,(NETWORK,tcp),sub", -ENOTSUP, 0, "SUB-RULE is not supported", 0 },
    { "ip-cidr,10.0.0.0/8,up", -EINVAL, 0, "did you mean \"IP-CIDR\"?", 0 },
    { "IPCIDR,10.0.0.0/8,up", -EINVAL, 0, "did you mean \"IP-CIDR\"?", 0 },
    { "DTS-PORT,80,up", -EINVAL, 0, "did you mean \"DST-PORT\"?", 0 },
    { "MACTH,up", -EINVAL, 0, "did you mean \"MATCH\"?", 0 },
    { "DOMAIN-SUFIX,example.com,up", -EINVAL, 0, "did you mean \"DOMAIN-SUFFIX\"?", 0 },
    { "FROBNICATE,1,up", -EINVAL, 0, "unknown rule \"FROBNICATE\"; write TYPE,VALUE,TARGET", 0 },
};

static bool text_row_holds(const struct text_row *row)
{
    struct rule_text out = { .n_conds = 99 };
    struct err err = { "" };
    size_t at = 0;
    int r = rules_parse(row->text, &out, &at, &err);

    if (r != row->r) {
        print_error("\"%s\": %d (%s), not %d\n", row->text, r, err.text, row->r);
        return false;
    }
    if (r == 0 && (out.n_conds != row->conds || out.target_len != strlen(row->says) ||
                   strncmp(out.target, row->says, out.target_len) != 0)) {
        print_error("\"%s\": %zu conditions to \"%.*s\"\n", row->text, out.n_conds, (int)out.target_len,
                    out.target);
        return false;
    }
    if (r != 0 && (at != row->at || strstr(err.text, row->says) == NULL || out.n_conds != 99)) {
        print_error("\"%s\": at %zu: %s; not at %zu: %s\n", row->text, at, err.text, row->at, row->says);
        return false;
    }
    return true;
}

static void a_mistake_in_a_rule_is_told_with_its_place_and_a_way_out(void **state) /* faults.md C1 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        wrong += !text_row_holds(&texts[i]);
    assert_int_equal(wrong, 0);
}

static void a_port_list_has_a_limit(void **state)
{
    char text[1024] = "DST-PORT,1";
    struct rule_text out;
    struct err err;
    size_t at;

    (void)state;
    for (int i = 2; i <= RULE_CONDS_MAX; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "/%d", i);
    strcat(text, ",up");
    assert_int_equal(rules_parse(text, &out, &at, &err), 0);
    assert_int_equal(out.n_conds, RULE_CONDS_MAX);
    memmove(text + 11, text + 9, strlen(text + 9) + 1);
    memcpy(text + 9, "0/", 2);
    assert_int_equal(rules_parse(text, &out, &at, &err), -EINVAL);
    assert_non_null(strstr(err.text, "more than 64 ports"));
}

static void keys_of_the_map_form_are_known_or_not_ours(void **state)
{
    enum rule_kind kind;

    (void)state;
    assert_int_equal(rules_key_parse("dst-cidr", &kind), 0);
    assert_int_equal(kind, RULE_DST_CIDR);
    assert_int_equal(rules_key_parse("network", &kind), 0);
    assert_int_equal(kind, RULE_NETWORK);
    assert_int_equal(rules_key_parse("domain-suffix", &kind), 0);
    assert_int_equal(kind, RULE_DOMAIN_SUFFIX);
    assert_int_equal(rules_key_parse("via", &kind), -ENOENT);
}

static void echo_modes_are_those_of_the_specification(void **state)
{
    enum rule_echo echo;
    struct err err;

    (void)state;
    assert_int_equal(rules_echo_parse("reply-if-healthy", &echo, &err), 0);
    assert_int_equal(echo, RULE_ECHO_REPLY_IF_HEALTHY);
    assert_int_equal(rules_echo_parse("no", &echo, &err), -EINVAL);
    assert_non_null(strstr(err.text, "write auto, reply, reply-if-healthy"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_rule_that_matches_wins),
        cmocka_unit_test(match_takes_everything_and_nothing_behind_it_is_reached),
        cmocka_unit_test(an_empty_list_gives_the_implicit_target),
        cmocka_unit_test(conditions_of_one_kind_are_alternatives_and_kinds_must_all_hold),
        cmocka_unit_test(a_list_lives_until_its_last_reference),
        cmocka_unit_test(a_condition_that_contradicts_itself_is_refused),
        cmocka_unit_test(a_mistake_in_a_rule_is_told_with_its_place_and_a_way_out),
        cmocka_unit_test(a_port_list_has_a_limit),
        cmocka_unit_test(keys_of_the_map_form_are_known_or_not_ours),
        cmocka_unit_test(echo_modes_are_those_of_the_specification),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
