/* test_rules_match.c - faces src/rules: every kind of rule against flows, one rule and one flow at a time. */
#include "culvert/rules.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "mmdb_writer.h"

/* ---- allocations, counted: these take the place of the C library's for this program and the libraries that it loads ---- */

extern void *__interceptor_malloc(size_t size) __attribute__((weak)); /* the sanitizer's */
extern void *__interceptor_calloc(size_t n, size_t size) __attribute__((weak));
extern void *__interceptor_realloc(void *old, size_t size) __attribute__((weak));
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static volatile unsigned allocations; /* the compiler thinks that malloc() changes nothing */

void *malloc(size_t size)
{
    allocations++;
    return __interceptor_malloc ? __interceptor_malloc(size) : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    allocations++;
    return __interceptor_calloc ? __interceptor_calloc(n, size) : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    allocations++;
    return __interceptor_realloc ? __interceptor_realloc(old, size) : __libc_realloc(old, size);
}

/* ---- one rule, one flow ---- */

struct books { /* what rules refer to */
    struct rule_set *names, *ranges, *mixed;
    struct rule_geo *country, *asn;
    char folder[64];
};

static struct rule_set *set_of(enum rule_behavior behavior, const char *text)
{
    struct rule_list_report report;
    struct rule_set *s = NULL;

    assert_int_equal(rule_set_parse(behavior, RULE_LIST_TEXT, text, strlen(text), &s, &report), 0);
    if (report.bad > 0)
        fail_msg("line %u: %s", report.first_bad[0].line, report.first_bad[0].why.text);
    return s;
}

static void attach(const struct books *b, struct rule_text *t)
{
    for (size_t i = 0; i < t->n_conds; i++) {
        struct rule_cond *c = &t->conds[i];

        if (c->kind == RULE_SET)
            c->set = c->value.text[0] == 'n' ? b->names : c->value.text[0] == 'r' ? b->ranges : b->mixed;
        if (c->kind == RULE_GEOIP && c->value.len == 2)
            c->geo = b->country;
        if (c->kind == RULE_IP_ASN)
            c->geo = b->asn;
    }
}

static int books_open(void **state)
{
    struct books *b = calloc(1, sizeof(*b));

    b->names = set_of(RULE_SET_DOMAIN, "+.all.example\n.below.example\n*.child.example\nself.example\n"
                                       "a.*.star.example\n+.*.deep.example\n# a remark\n\n");
    b->ranges = set_of(RULE_SET_IPCIDR, "10.0.0.0/8\n10.1.0.0/16\n203.0.113.7\n2001:db8::/32\r\n");
    b->mixed =
        set_of(RULE_SET_CLASSICAL, "DOMAIN,one.example\nDOMAIN-SUFFIX,two.example\nIP-CIDR,10.0.0.0/8\n"
                                   "IP-CIDR,11.0.0.0/8,no-resolve\nSRC-IP-CIDR,172.16.0.0/12\n"
                                   "DST-PORT,6881-6889\nAND,((NETWORK,udp),(DST-PORT,443))\nUID,7\n");
    *state = b;
#ifdef WITH_GEOIP
    static const struct mmdb_row countries[] = { { "198.51.100.0/24", "DE", 0 },
                                                 { "2001:db8:de::/48", "DE", 0 } };
    static const struct mmdb_row networks[] = { { "198.51.100.0/24", NULL, 64500 } };
    char path[96];
    struct err err;

    strcpy(b->folder, "/tmp/culvert-geo-XXXXXX");
    assert_non_null(mkdtemp(b->folder));
    snprintf(path, sizeof(path), "%s/c.mmdb", b->folder);
    assert_int_equal(mmdb_write(path, "Test-Country", countries, ARRAY_LEN(countries)), 0);
    if (rule_geo_open(path, RULE_GEO_COUNTRY, &b->country, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(rule_geo_open(path, RULE_GEO_ASN, &b->asn, &err), -EINVAL);
    assert_non_null(strstr(err.text, "of another kind: Test-Country"));
    unlink(path);
    assert_int_equal(mmdb_write(path, "Test-ASN", networks, ARRAY_LEN(networks)), 0);
    assert_int_equal(rule_geo_open(path, RULE_GEO_ASN, &b->asn, &err), 0);
    unlink(path);
    rmdir(b->folder);
#endif
    return 0;
}

static int books_close(void **state)
{
    struct books *b = *state;

    rule_set_unref(b->names);
    rule_set_unref(b->ranges);
    rule_set_unref(b->mixed);
    rule_geo_unref(b->country);
    rule_geo_unref(b->asn);
    free(b);
    return 0;
}

/* "tcp host.example 10.0.0.1 :443 <192.168.1.5:1000 uid=7 exe=/usr/bin/curl in=tun0", in any order, parts as wanted. */
static struct rule_flow flow_from(const char *words, char room[512])
{
    struct rule_flow f = { .proto = IP_PROTO_TCP };
    char *word, *save;

    ip_parse("192.0.2.200", &f.client.addr);
    strcpy(room, words);
    for (word = strtok_r(room, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save)) {
        if (strcmp(word, "udp") == 0)
            f.proto = IP_PROTO_UDP;
        else if (strcmp(word, "icmp") == 0)
            f.proto = IP_PROTO_ICMP;
        else if (word[0] == ':')
            f.target.port = (uint16_t)atoi(word + 1);
        else if (word[0] == '<' && word[1] == ':')
            f.client.port = (uint16_t)atoi(word + 2);
        else if (word[0] == '<')
            assert_int_equal(ip_parse(word + 1, &f.client.addr), 0);
        else if (strncmp(word, "uid=", 4) == 0) {
            f.has_uid = true;
            f.uid = (uint32_t)atoi(word + 4);
        } else if (strncmp(word, "exe=", 4) == 0)
            f.process = word + 4;
        else if (strncmp(word, "in=", 3) == 0)
            f.in_name = word + 3;
        else if (strcmp(word, "settled") == 0)
            f.settled = 15;
        else if (ip_parse(word, &f.target.addr) != 0 && strcmp(word, "tcp") != 0)
            f.target.name = word;
    }
    return f;
}

static const struct kind_row {
    const char *rule, *flow, *answer; /* "yes", "no", or what it lacks */
} rows[] = {
    { "IP-CIDR,10.0.0.0/8,no-resolve", "a.example 10.0.0.1", "yes" },
    { "DOMAIN,a.example", "a.example", "yes" },
    { "DOMAIN,A.Example", "a.example", "yes" },
    { "DOMAIN,a.example", "b.a.example", "no" },
    { "DOMAIN,a.example", "10.0.0.1", "name" },
    { "DOMAIN,a.example", "10.0.0.1 settled", "no" },
    { "DOMAIN-SUFFIX,a.example", "a.example", "yes" },
    { "DOMAIN-SUFFIX,a.example", "x.y.a.example", "yes" },
    { "DOMAIN-SUFFIX,a.example", "xa.example", "no" },
    { "DOMAIN-SUFFIX,a.example", "example", "no" },
    { "DOMAIN-SUFFIX,example", "a.example", "yes" },
    { "DOMAIN-KEYWORD,trac", "my-tracker.example", "yes" },
    { "DOMAIN-KEYWORD,trac", "example.org", "no" },
    { "DOMAIN-WILDCARD,*.a.example", "b.c.a.example", "yes" },
    { "DOMAIN-WILDCARD,*.a.example", "a.example", "no" },
    { "DOMAIN-WILDCARD,a?.*e", "ab.example", "yes" },
    { "DOMAIN-WILDCARD,a?.*e", "a.example", "no" },
    { "DOMAIN-WILDCARD,*a*b*c*", "xxaxxbxxc", "yes" },
    { "DOMAIN-WILDCARD,*a*b*c*", "xxcxxbxxa", "no" },
#ifdef WITH_REGEX
    { "DOMAIN-REGEX,^(www|api)[0-9]{1,2}\\.example$", "api12.example", "yes" },
    { "DOMAIN-REGEX,^(www|api)[0-9]{1,2}\\.example$", "api123.example", "no" },
    { "DOMAIN-REGEX,EXAMPLE", "an.example.org", "yes" },
    { "DOMAIN-REGEX,a", "10.0.0.1", "name" },
#endif
    { "IP-CIDR,10.0.0.0/8", "10.255.255.255", "yes" },
    { "IP-CIDR,10.0.0.0/8", "11.0.0.0", "no" },
    { "IP-CIDR,10.0.0.0/8", "a.example", "address" },
    { "IP-CIDR,10.0.0.0/8", "a.example 10.1.1.1", "yes" },
    { "IP-CIDR,10.0.0.0/8", "a.example settled", "no" },
    { "IP-CIDR,10.0.0.0/8,no-resolve", "a.example", "no" },
    { "IP-CIDR,10.0.0.0/8,no-resolve", "10.0.0.1", "yes" },
    { "IP-CIDR6,2001:db8::/32", "2001:db8::1", "yes" },
    { "IP-CIDR,0.0.0.0/0", "2001:db8::1", "no" },
    { "SRC-IP-CIDR,192.168.0.0/16", "a.example <192.168.3.4", "yes" },
    { "SRC-IP-CIDR,192.168.0.0/16", "a.example <192.169.3.4", "no" },
    { "GEOIP,LAN", "192.168.1.1", "yes" },
    { "GEOIP,lan", "127.0.0.1", "yes" },
    { "GEOIP,private", "fd00::1", "yes" },
    { "GEOIP,LAN", "fe80::1", "yes" },
    { "GEOIP,LAN", "172.32.0.1", "no" },
    { "GEOIP,LAN", "a.example", "address" },
    { "GEOIP,LAN,no-resolve", "a.example", "no" },
#ifdef WITH_GEOIP
    { "GEOIP,DE", "198.51.100.77", "yes" },
    { "GEOIP,de", "2001:db8:de::1", "yes" },
    { "GEOIP,FR", "198.51.100.77", "no" },
    { "GEOIP,DK", "198.51.100.77", "no" },
    { "GEOIP,DE", "198.51.101.1", "no" },
    { "GEOIP,DE", "a.example", "address" },
    { "IP-ASN,64500", "198.51.100.1", "yes" },
    { "IP-ASN,AS64501", "198.51.100.1", "no" },
    { "IP-ASN,64500,no-resolve", "a.example", "no" },
#endif
    { "DST-PORT,80/443/8000-8999", "a.example :8500", "yes" },
    { "DST-PORT,80/443/8000-8999", "a.example :81", "no" },
    { "DST-PORT,443", "icmp 10.0.0.1 :443", "no" },
    { "SRC-PORT,5353", "a.example <:5353", "yes" },
    { "SRC-PORT,5353", "a.example <:5354", "no" },
    { "NETWORK,udp", "udp a.example", "yes" },
    { "NETWORK,UDP", "a.example", "no" },
    { "NETWORK,icmp", "icmp 10.0.0.1", "yes" },
    { "PROCESS-NAME,curl", "a.example exe=/usr/bin/curl", "yes" },
    { "PROCESS-NAME,Curl", "a.example exe=/usr/bin/curl", "yes" },
    { "PROCESS-NAME,curl", "a.example exe=/usr/bin/curl2", "no" },
    { "PROCESS-NAME,curl", "a.example", "process" },
    { "PROCESS-PATH,/usr/bin/curl", "a.example exe=/usr/bin/curl", "yes" },
    { "PROCESS-PATH,/bin/curl", "a.example exe=/usr/bin/curl", "no" },
    { "UID,1000-1999", "a.example uid=1500", "yes" },
    { "UID,0", "a.example uid=1500", "no" },
    { "UID,0", "a.example", "uid" },
    { "UID,0", "a.example settled", "no" },
    { "IN-NAME,tun0/tun1", "a.example in=tun1", "yes" },
    { "IN-NAME,tun0/tun1", "a.example in=tun2", "no" },
    { "IN-NAME,tun0", "a.example", "no" },
    { "RULE-SET,names", "all.example", "yes" },
    { "RULE-SET,names", "x.y.all.example", "yes" },
    { "RULE-SET,names", "below.example", "no" },
    { "RULE-SET,names", "x.y.below.example", "yes" },
    { "RULE-SET,names", "x.child.example", "yes" },
    { "RULE-SET,names", "x.y.child.example", "no" },
    { "RULE-SET,names", "child.example", "no" },
    { "RULE-SET,names", "self.example", "yes" },
    { "RULE-SET,names", "x.self.example", "no" },
    { "RULE-SET,names", "a.b.star.example", "yes" },
    { "RULE-SET,names", "a.b.c.star.example", "no" },
    { "RULE-SET,names", "x.deep.example", "yes" },
    { "RULE-SET,names", "z.y.x.deep.example", "yes" },
    { "RULE-SET,names", "deep.example", "no" },
    { "RULE-SET,names", "10.0.0.1", "name" },
    { "RULE-SET,ranges", "10.1.2.3", "yes" },
    { "RULE-SET,ranges", "10.200.2.3", "yes" },
    { "RULE-SET,ranges", "203.0.113.7", "yes" },
    { "RULE-SET,ranges", "203.0.113.8", "no" },
    { "RULE-SET,ranges", "2001:db8:1::", "yes" },
    { "RULE-SET,ranges", "a.example", "address" },
    { "RULE-SET,ranges,no-resolve", "a.example", "no" },
    { "RULE-SET,mixed", "one.example", "yes" },
    { "RULE-SET,mixed", "x.two.example settled", "yes" },
    { "RULE-SET,mixed", "none.example settled", "no" },
    { "RULE-SET,mixed", "none.example 11.1.1.1 settled", "yes" },
    { "RULE-SET,mixed", "none.example settled <172.17.0.1", "yes" },
    { "RULE-SET,mixed", "none.example settled :6889", "yes" },
    { "RULE-SET,mixed", "none.example settled :443", "no" },
    { "RULE-SET,mixed", "none.example settled udp :443", "yes" },
    { "RULE-SET,mixed", "none.example settled uid=7", "yes" },
    { "RULE-SET,mixed", "none.example", "address uid" },
    { "AND,((NETWORK,udp),(DST-PORT,443))", "udp a.example :443", "yes" },
    { "AND,((NETWORK,udp),(DST-PORT,443))", "a.example :443", "no" },
    { "AND,((NETWORK,udp),(DST-PORT,80/443))", "udp a.example :80", "yes" },
    { "AND,((DOMAIN,a.example),(IP-CIDR,10.0.0.0/8))", "b.example", "no" },
    { "AND,((DOMAIN,a.example),(IP-CIDR,10.0.0.0/8))", "a.example", "address" },
    { "AND,((DOMAIN,a.example),(IP-CIDR,10.0.0.0/8,no-resolve))", "a.example", "no" },
    { "OR,((DOMAIN,a.example),(IP-CIDR,10.0.0.0/8))", "a.example", "yes" },
    { "OR,((DOMAIN,a.example),(IP-CIDR,10.0.0.0/8))", "b.example", "address" },
    { "OR,((DOMAIN,a.example),(IP-CIDR,10.0.0.0/8))", "10.0.0.1", "yes" },
    { "NOT,((DOMAIN,a.example))", "b.example", "yes" },
    { "NOT,((DOMAIN,a.example))", "a.example", "no" },
    { "NOT,((DOMAIN,a.example))", "10.0.0.1", "name" },
    { "NOT,((DOMAIN,a.example))", "10.0.0.1 settled", "yes" },
    { "NOT,((OR,((DST-PORT,80/443),(AND,((UID,0),(NETWORK,tcp))))))", "a.example :22 uid=1", "yes" },
    { "NOT,((OR,((DST-PORT,80/443),(AND,((UID,0),(NETWORK,tcp))))))", "a.example :22 uid=0", "no" },
};

static struct rules *rules_of_one(const struct books *b, const char *entry)
{
    struct rule_text *t = calloc(1, sizeof(*t));
    struct rule rule;
    struct rules *r = NULL;
    struct err err;
    size_t at;

    if (rules_parse_entry(entry, t, &at, &err) != 0)
        fail_msg("%s: at %zu: %s", entry, at, err.text);
    attach(b, t);
    rule =
        (struct rule){ .conds = t->conds, .n_conds = t->n_conds, .target = 1, .no_resolve = t->no_resolve };
    assert_int_equal(rules_new(&rule, 1, 0, &r), 0);
    free(t);
    return r;
}

static const char *answer_text(enum rule_answer is, uint8_t needs, char out[64])
{
    static const char *const words[] = { " address", " name", " uid", " process" };

    if (is != RULE_UNKNOWN)
        return is == RULE_YES ? "yes" : "no";
    out[0] = '\0';
    for (int i = 0; i < 4; i++)
        if (needs & 1 << i)
            strcat(out, words[i]);
    return out[0] != '\0' ? out + 1 : "nothing";
}

static void every_kind_answers_as_the_table_says(void **state)
{
    const struct books *b = *state;
    int wrong = 0;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct rules *r = rules_of_one(b, rows[i].rule);
        char room[512], text[64], why[256];
        struct rule_flow flow = flow_from(rows[i].flow, room);
        enum rule_answer is = rules_why(r, 0, &flow, why, sizeof(why));
        struct rule_verdict v;
        const char *says;

        rules_match(r, &flow, &v);
        says = answer_text(is, v.needs, text);
        if (strcmp(says, rows[i].answer) != 0 || (v.rule == 0) != (is == RULE_YES) || why[0] == '\0' ||
            (v.needs & ~rules_needs(r)) != 0) {
            print_error("%s, %s: %s (%s; rule %d, needs %u), not %s\n", rows[i].rule, rows[i].flow, says, why,
                        (int)v.rule, v.needs, rows[i].answer);
            wrong++;
        }
        rules_unref(r);
    }
    assert_int_equal(wrong, 0);
}

static void asking_allocates_nothing(void **state) /* culvert/rules.h */
{
    const struct books *b = *state;
    void *volatile counted; /* or the compiler leaves both out */
    unsigned before;

    before = allocations;
    counted = malloc(1);
    free(counted);
    assert_int_equal(allocations, before + 1); /* it counts */
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct rules *r = rules_of_one(b, rows[i].rule);
        char room[512], why[256];
        struct rule_flow flow = flow_from(rows[i].flow, room);
        struct rule_verdict v;
        uint64_t visited = 0;

        before = allocations;
        rules_match(r, &flow, &v);
        rules_match_counted(r, &flow, &v, &visited);
        (void)rules_why(r, 0, &flow, why, sizeof(why));
        if (flow.target.name != NULL)
            (void)rule_set_has_name(b->names, flow.target.name, &visited);
        (void)rule_set_has_addr(b->ranges, &flow.target.addr, &visited);
        if (allocations != before)
            fail_msg("%s, %s: %u allocations", rows[i].rule, rows[i].flow, allocations - before);
        rules_unref(r);
    }
}

/* A list of 40 values becomes a set of its own; the answers stay the same. */
static void many_values_of_one_key_answer_as_a_few_do(void **state)
{
    struct rule_cond conds[44];
    char names[40][24], room[512];
    struct rule rule = { .conds = conds, .n_conds = ARRAY_LEN(conds), .target = 1 };
    struct rule_verdict v;
    struct rule_flow flow;
    struct rules *r;

    (void)state;
    for (int i = 0; i < 40; i++) {
        snprintf(names[i], sizeof(names[i]), "n%d.example", i);
        conds[i] = (struct rule_cond){ .kind = RULE_DOMAIN_SUFFIX,
                                       .value = { names[i], (uint32_t)strlen(names[i]) } };
    }
    for (int i = 40; i < 44; i++)
        conds[i] = (struct rule_cond){ .kind = RULE_DST_PORT, .ports = { (uint16_t)i, (uint16_t)i } };
    assert_int_equal(rules_new(&rule, 1, 0, &r), 0);
    flow = flow_from("x.n39.example :43", room);
    rules_match(r, &flow, &v);
    assert_int_equal(v.rule, 0);
    flow = flow_from("x.n40.example :43", room);
    rules_match(r, &flow, &v);
    assert_int_equal(v.rule, RULE_IMPLICIT);
    flow = flow_from("x.n39.example :44", room);
    rules_match(r, &flow, &v);
    assert_int_equal(v.rule, RULE_IMPLICIT);
    flow = flow_from("10.0.0.1 :43", room);
    rules_match(r, &flow, &v);
    assert_int_equal(v.needs, RULE_NEEDS_NAME);
    rules_unref(r);
}

static void what_is_asked_for_is_what_the_first_open_rule_lacks(void **state)
{
    static const char *const texts[] = { "DOMAIN,a.example", "UID,7",        "IP-CIDR,10.0.0.0/8",
                                         "PROCESS-NAME,x",   "DST-PORT,443", "IP-CIDR,11.0.0.0/8" };
    struct rule_text *t = calloc(ARRAY_LEN(texts), sizeof(*t));
    struct rule list[ARRAY_LEN(texts)];
    struct rule_verdict v;
    struct rule_flow flow;
    struct rules *r;
    char room[512];
    struct err err;
    size_t at;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        assert_int_equal(rules_parse_entry(texts[i], &t[i], &at, &err), 0);
        list[i] = (struct rule){ .conds = t[i].conds, .n_conds = t[i].n_conds, .target = (uint32_t)i + 1 };
    }
    assert_int_equal(rules_new(list, ARRAY_LEN(texts), 0, &r), 0);
    assert_int_equal(rules_needs(r), 15);
    flow = flow_from("a.example :443", room);
    rules_match(r, &flow, &v);
    assert_int_equal(v.needs, 0); /* the first rule takes it; nothing below is asked */
    flow = flow_from("b.example :443", room);
    rules_match(r, &flow, &v);
    assert_int_equal(v.needs, RULE_NEEDS_UID);
    assert_int_equal(v.rule, 4); /* what it would be without */
    flow.settled = RULE_NEEDS_UID;
    rules_match(r, &flow, &v);
    assert_int_equal(v.needs, RULE_NEEDS_ADDRESS);
    flow = flow_from("b.example 12.0.0.1 :443 uid=1", room);
    rules_match(r, &flow, &v);
    assert_int_equal(v.needs, RULE_NEEDS_PROCESS);
    flow = flow_from("b.example 12.0.0.1 :443 uid=1 exe=/y", room);
    rules_match(r, &flow, &v);
    assert_int_equal(v.needs, 0);
    assert_int_equal(v.rule, 4);
    rules_unref(r);
    free(t);
}

/* Rules with their targets, the addresses of a name, then the rule that takes it and the addresses that go to its target. */
static const struct any_row {
    const char *rules[4];
    uint32_t target[4];
    const char *addrs[4];
    uint32_t rule, fits;
    uint8_t needs;
} any_rows[] = {
    { { "IP-CIDR,10.0.0.0/8" }, { 1 }, { "8.8.8.8", "10.0.0.1" }, 0, 2, 0 },
    { { "IP-CIDR,10.0.0.0/8", "IP-CIDR,8.0.0.0/8" }, { 1, 1 }, { "8.8.8.8", "10.0.0.1" }, 0, 3, 0 },
    { { "IP-CIDR,10.0.0.0/8", "IP-CIDR,8.0.0.0/8" },
      { 1, 2 },
      { "8.8.8.8", "10.0.0.1", "10.1.0.0" },
      0,
      6,
      0 },
    { { "IP-CIDR,10.0.0.0/8" }, { 1 }, { "8.8.8.8", "2001:db8::1" }, RULE_IMPLICIT, 3, 0 },
    { { "IP-CIDR6,2001:db8::/32" }, { 1 }, { "8.8.8.8", "2001:db8::1" }, 0, 2, 0 },
    { { "IP-CIDR,10.0.0.0/8,no-resolve" }, { 1 }, { "8.8.8.8", "10.0.0.1" }, 0, 2, 0 },
    { { "NOT,((IP-CIDR,10.0.0.0/8))" }, { 1 }, { "10.0.0.1", "8.8.8.8" }, 0, 2, 0 },
    { { "AND,((IP-CIDR,10.0.0.0/8),(IP-CIDR,11.0.0.0/8))" },
      { 1 },
      { "11.0.0.1", "10.0.0.1" },
      RULE_IMPLICIT,
      3,
      0 },
    { { "GEOIP,LAN" }, { 1 }, { "1.1.1.1", "192.168.0.1" }, 0, 2, 0 },
    { { "RULE-SET,ranges" }, { 1 }, { "1.1.1.1", "2001:db8::9" }, 0, 2, 0 },
    { { "RULE-SET,mixed" }, { 1 }, { "1.1.1.1", "11.2.3.4" }, 0, 2, RULE_NEEDS_UID },
    { { "DOMAIN,a.example", "IP-CIDR,10.0.0.0/8" }, { 1, 2 }, { "10.0.0.1", "8.8.8.8" }, 0, 3, 0 },
    { { "AND,((UID,7),(IP-CIDR,10.0.0.0/8))" },
      { 1 },
      { "8.8.8.8", "10.0.0.1" },
      RULE_IMPLICIT,
      3,
      RULE_NEEDS_UID },
    { { "IP-CIDR,10.0.0.0/8" }, { 1 }, { NULL }, RULE_IMPLICIT, 0, RULE_NEEDS_ADDRESS },
};

static struct rules *rules_of_row(const struct books *b, const struct any_row *row)
{
    struct rule_text *t = calloc(ARRAY_LEN(row->rules), sizeof(*t));
    struct rule list[ARRAY_LEN(row->rules)];
    struct rules *r = NULL;
    struct err err;
    size_t n = 0, at;

    for (; n < ARRAY_LEN(row->rules) && row->rules[n] != NULL; n++) {
        assert_int_equal(rules_parse_entry(row->rules[n], &t[n], &at, &err), 0);
        attach(b, &t[n]);
        list[n] = (struct rule){ .conds = t[n].conds,
                                 .n_conds = t[n].n_conds,
                                 .target = row->target[n],
                                 .no_resolve = t[n].no_resolve };
    }
    assert_int_equal(rules_new(list, n, 0, &r), 0);
    free(t);
    return r;
}

static void each_address_of_a_name_is_judged_by_itself(void **state)
{
    int wrong = 0;

    for (size_t i = 0; i < ARRAY_LEN(any_rows); i++) {
        const struct any_row *row = &any_rows[i];
        struct rules *r = rules_of_row(*state, row);
        struct ip_addr addrs[ARRAY_LEN(row->addrs)];
        char room[512];
        struct rule_flow flow = flow_from("a.example", room);
        struct rule_verdict v;
        uint32_t fits;
        unsigned before;
        size_t n = 0;

        for (; n < ARRAY_LEN(addrs) && row->addrs[n] != NULL; n++)
            assert_int_equal(ip_parse(row->addrs[n], &addrs[n]), 0);
        before = allocations;
        rules_match_any(r, &flow, addrs, n, &v, &fits);
        assert_int_equal(allocations, before);
        if (v.rule != row->rule || fits != row->fits || v.needs != row->needs ||
            v.target != (row->rule == RULE_IMPLICIT ? 0 : row->target[row->rule])) {
            print_error("row %zu: rule %d, fits %x, needs %u\n", i, (int)v.rule, fits, v.needs);
            wrong++;
        }
        rules_unref(r);
    }
    assert_int_equal(wrong, 0);
}

static void a_refreshed_set_takes_the_place_of_the_old_one(void **state)
{
    struct books *b = *state;
    struct rule_set *fresh = set_of(RULE_SET_DOMAIN, "new.example\n");
    struct rules *old = rules_of_one(b, "RULE-SET,names"), *now = NULL;
    char room[512];
    struct rule_flow flow = flow_from("new.example", room);
    struct rule_verdict v;

    assert_int_equal(rules_with_set(old, b->names, fresh, &now), 0);
    rule_set_unref(fresh);
    rules_match(old, &flow, &v);
    assert_int_equal(v.rule, RULE_IMPLICIT);
    rules_unref(old);
    rules_match(now, &flow, &v);
    assert_int_equal(v.rule, 0);
    rules_unref(now);
}

#ifdef WITH_REGEX
static void an_expression_that_would_take_forever_gives_up(void **state)
{
    struct rules *r = rules_of_one(*state, "DOMAIN-REGEX,^(a+)+$");
    struct rule_flow flow = { .proto = IP_PROTO_TCP };
    struct rule_verdict v;
    char name[64];

    memset(name, 'a', 60);
    strcpy(name + 60, ".b");
    flow.target.name = name;
    rules_match(r, &flow, &v);
    assert_int_equal(v.rule, RULE_IMPLICIT);
    assert_true(v.regex_gave_up);
    flow.target.name = "aaaa";
    rules_match(r, &flow, &v);
    assert_int_equal(v.rule, 0);
    assert_false(v.regex_gave_up);
    rules_unref(r);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_answers_as_the_table_says),
        cmocka_unit_test(asking_allocates_nothing),
        cmocka_unit_test(many_values_of_one_key_answer_as_a_few_do),
        cmocka_unit_test(what_is_asked_for_is_what_the_first_open_rule_lacks),
        cmocka_unit_test(each_address_of_a_name_is_judged_by_itself),
        cmocka_unit_test(a_refreshed_set_takes_the_place_of_the_old_one),
#ifdef WITH_REGEX
        cmocka_unit_test(an_expression_that_would_take_forever_gives_up),
#endif
    };

    return cmocka_run_group_tests(tests, books_open, books_close);
}
