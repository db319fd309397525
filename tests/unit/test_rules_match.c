/* test_rules_match.c - faces src/rules: every kind of rule against flows, and the compiled list against a naive one. */
#include "culvert/rules.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "mmdb_writer.h"

/* ---- one rule, one flow -------------------------------------------------------------------------------------- */

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

/* ---- against a naive list -------------------------------------------------------------------------------------------- */

enum { TRIES = 400, RULES = 40, FLOWS = 60 };

/* One condition as the test knows it; it is written as text for the list under test, and evaluated here by other means. */
struct simple {
    int kind; /* 0 domain, 1 suffix, 2 keyword, 3 dst, 4 src, 5 port, 6 network, 7 uid, 8 exe, 9 source port */
    char name[40];
    uint32_t net, bits; /* 10.x.y.z by bits */
    unsigned from, to;
    bool no_resolve;
};
struct made { /* op: 0 the first alone, 1 AND, 2 OR, 3 NOT the first */
    int op, n;
    struct simple part[3];
};

static const char *const labels[] = { "a", "b", "c", "ab", "example" };

static void random_name(struct prng *g, char out[40])
{
    unsigned n = 1 + prng_below(g, 4);

    out[0] = '\0';
    for (unsigned i = 0; i < n; i++) {
        strcat(out, i > 0 ? "." : "");
        strcat(out, labels[prng_below(g, ARRAY_LEN(labels))]);
    }
}

static uint32_t random_addr(struct prng *g)
{
    return 10u << 24 | prng_below(g, 3) << 16 | prng_below(g, 3) << 8 | prng_below(g, 4);
}

static void random_simple(struct prng *g, struct simple *s)
{
    static const uint32_t widths[] = { 8, 16, 23, 24, 31, 32 };

    memset(s, 0, sizeof(*s));
    s->kind = (int)prng_below(g, 10);
    random_name(g, s->name);
    if (s->kind == 2)
        strcpy(s->name, labels[prng_below(g, ARRAY_LEN(labels))]);
    s->bits = widths[prng_below(g, ARRAY_LEN(widths))];
    s->net = random_addr(g) & (uint32_t)(0xffffffffull << (32 - s->bits));
    s->from = prng_below(g, 4);
    s->to = s->from + prng_below(g, 3);
    s->no_resolve = prng_below(g, 3) == 0;
}

static void simple_text(const struct simple *s, bool inside, char out[80])
{
    static const char *const words[] = { "DOMAIN",       "DOMAIN-SUFFIX", "DOMAIN-KEYWORD", "IP-CIDR",
                                         "SRC-IP-CIDR",  "DST-PORT",      "NETWORK",        "UID",
                                         "PROCESS-NAME", "SRC-PORT" };
    static const char *const networks[] = { "tcp", "udp", "icmp", "udp" };
    char value[48];

    (void)inside;
    if (s->kind <= 2)
        snprintf(value, sizeof(value), "%s", s->name);
    else if (s->kind <= 4)
        snprintf(value, sizeof(value), "%u.%u.%u.%u/%u", s->net >> 24, s->net >> 16 & 255, s->net >> 8 & 255,
                 s->net & 255, s->bits);
    else if (s->kind == 6)
        snprintf(value, sizeof(value), "%s", networks[s->from]);
    else if (s->kind == 8)
        snprintf(value, sizeof(value), "exe%u", s->from);
    else if (s->from == s->to)
        snprintf(value, sizeof(value), "%u", s->from);
    else
        snprintf(value, sizeof(value), "%u-%u", s->from, s->to);
    snprintf(out, 80, "%s,%s%s", words[s->kind], value, s->kind == 3 && s->no_resolve ? ",no-resolve" : "");
}

struct naive_flow {
    char name[40];
    uint32_t dst, src;
    unsigned port, sport, network, uid, exe; /* network as in networks above */
    bool has_name, has_dst, has_uid, has_exe;
    unsigned settled;
};

/* 0 no, 1 yes, 2 + the bit number of what is missing */
static int naive_simple(const struct simple *s, const struct naive_flow *f)
{
    size_t have = strlen(f->name), want = strlen(s->name);

    if (s->kind <= 2 && !f->has_name)
        return f->settled & 2 ? 0 : 2 + 1;
    if (s->kind == 3 && !f->has_dst)
        return s->no_resolve || (f->settled & 1) ? 0 : 2 + 0;
    if (s->kind == 7 && !f->has_uid)
        return f->settled & 4 ? 0 : 2 + 2;
    if (s->kind == 8 && !f->has_exe)
        return f->settled & 8 ? 0 : 2 + 3;
    switch (s->kind) {
    case 0:
        return strcmp(f->name, s->name) == 0;
    case 1:
        return strcmp(f->name, s->name) == 0 || (have > want && strcmp(f->name + have - want, s->name) == 0 &&
                                                 f->name[have - want - 1] == '.');
    case 2:
        return strstr(f->name, s->name) != NULL;
    case 3:
        return (f->dst ^ s->net) >> (32 - s->bits) == 0;
    case 4:
        return (f->src ^ s->net) >> (32 - s->bits) == 0;
    case 5:
        return f->network != 2 && f->port >= s->from && f->port <= s->to;
    case 9:
        return f->network != 2 && f->sport >= s->from && f->sport <= s->to;
    case 6:
        return s->from == 3 ? f->network == 1 : f->network == s->from;
    case 7:
        return f->uid >= s->from && f->uid <= s->to;
    default:
        return f->exe == s->from;
    }
}

/* @needs: bits of what is missing. 0, 1 or 2: not known. */
static int naive_rule(const struct made *m, const struct naive_flow *f, unsigned *needs)
{
    int all = m->op == 2 ? 0 : 1;

    *needs = 0;
    for (int i = 0; i < m->n; i++) {
        int one = naive_simple(&m->part[i], f);

        if (one >= 2)
            *needs |= 1u << (one - 2);
        if (m->op == 0)
            return one > 2 ? 2 : one;
        if (m->op == 3)
            return one >= 2 ? 2 : !one;
        if (one == (m->op == 2))
            return one;
        if (one >= 2)
            all = 2;
    }
    return all;
}

static void random_rule(struct prng *g, struct made *m, char out[400])
{
    static const char *const ops[] = { "", "AND", "OR", "NOT" };
    char part[80];

    m->op = prng_below(g, 2) == 0 ? 0 : (int)prng_below(g, 4);
    m->n = m->op == 0 || m->op == 3 ? 1 : 1 + (int)prng_below(g, 3);
    out[0] = '\0';
    for (int i = 0; i < m->n; i++) {
        random_simple(g, &m->part[i]);
        simple_text(&m->part[i], m->op != 0, part);
        if (m->op == 0)
            strcpy(out, part);
        else
            sprintf(out + strlen(out), "%s(%s)", i == 0 ? "" : ",", part);
    }
    if (m->op != 0) {
        char inside[360];

        strcpy(inside, out);
        sprintf(out, "%s,(%s)", ops[m->op], inside);
    }
}

static void random_flow(struct prng *g, struct naive_flow *f)
{
    memset(f, 0, sizeof(*f));
    random_name(g, f->name);
    f->dst = random_addr(g);
    f->src = random_addr(g);
    f->port = prng_below(g, 6);
    f->sport = prng_below(g, 6);
    f->network = prng_below(g, 3);
    f->uid = prng_below(g, 6);
    f->exe = prng_below(g, 4);
    f->has_name = prng_below(g, 3) > 0;
    f->has_dst = prng_below(g, 3) > 0;
    f->has_uid = prng_below(g, 2) > 0;
    f->has_exe = prng_below(g, 2) > 0;
    f->settled = prng_below(g, 16);
}

static struct ip_addr addr_of(uint32_t v)
{
    uint8_t be[4];

    put_be32(be, v);
    return ip_from4(be);
}

static struct rule_flow flow_of_naive(const struct naive_flow *f, char exe[16])
{
    static const enum ip_proto protos[] = { IP_PROTO_TCP, IP_PROTO_UDP, IP_PROTO_ICMP };
    struct rule_flow flow = { .client = { addr_of(f->src), (uint16_t)f->sport },
                              .proto = protos[f->network],
                              .settled = (uint8_t)f->settled };

    snprintf(exe, 16, "/opt/exe%u", f->exe);
    flow.target.port = (uint16_t)f->port;
    if (f->has_name)
        flow.target.name = f->name;
    if (f->has_dst)
        flow.target.addr = addr_of(f->dst);
    flow.has_uid = f->has_uid;
    flow.uid = f->uid;
    flow.process = f->has_exe ? exe : NULL;
    return flow;
}

static int compare(const struct made *list, char texts[][400], const struct rules *r,
                   const struct naive_flow *f)
{
    uint32_t best = RULE_IMPLICIT;
    unsigned needs, open = 0;
    struct rule_verdict v;
    char exe[16];
    struct rule_flow flow = flow_of_naive(f, exe);

    for (uint32_t i = 0; i < RULES && best == RULE_IMPLICIT; i++) {
        int is = naive_rule(&list[i], f, &needs);

        if (is == 1)
            best = i;
        else if (is == 2 && open == 0)
            open = needs;
    }
    rules_match(r, &flow, &v);
    if (v.rule == best && (v.needs != 0) == (open != 0) && (v.needs & ~open) == 0)
        return 0;
    print_error("%s dst %d:%x src %x :%u <:%u net %u uid %d:%u exe %d:%u settled %u: rule %d needs %u, naive "
                "%d needs %u\n",
                f->has_name ? f->name : "-", f->has_dst, f->dst, f->src, f->port, f->sport, f->network,
                f->has_uid, f->uid, f->has_exe, f->exe, f->settled, (int)v.rule, v.needs, (int)best, open);
    for (uint32_t i = 0; i < RULES; i++)
        if (i == v.rule || i == best)
            print_error("  rule %u: %s\n", i, texts[i]);
    return 1;
}

static void the_compiled_list_decides_as_a_naive_one_does(void **state)
{
    static struct made made[RULES];
    static char texts[RULES][400];
    struct rule_text *t = calloc(RULES, sizeof(*t));
    struct rule list[RULES];
    int wrong = 0;
    struct err err;
    size_t at;

    (void)state;
    for (uint64_t seed = 1; seed <= TRIES && wrong < 3; seed++) {
        struct naive_flow flow;
        struct rules *r;
        struct prng g;

        prng_seed(&g, seed);
        for (int i = 0; i < RULES; i++) {
            random_rule(&g, &made[i], texts[i]);
            if (rules_parse_entry(texts[i], &t[i], &at, &err) != 0)
                fail_msg("%s: at %zu: %s", texts[i], at, err.text);
            list[i] =
                (struct rule){ .conds = t[i].conds, .n_conds = t[i].n_conds, .no_resolve = t[i].no_resolve };
        }
        assert_int_equal(rules_new(list, RULES, 0, &r), 0);
        for (int i = 0; i < FLOWS; i++) {
            random_flow(&g, &flow);
            wrong += compare(made, texts, r, &flow);
        }
        rules_unref(r);
    }
    free(t);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_answers_as_the_table_says),
        cmocka_unit_test(many_values_of_one_key_answer_as_a_few_do),
        cmocka_unit_test(what_is_asked_for_is_what_the_first_open_rule_lacks),
        cmocka_unit_test(a_refreshed_set_takes_the_place_of_the_old_one),
#ifdef WITH_REGEX
        cmocka_unit_test(an_expression_that_would_take_forever_gives_up),
#endif
        cmocka_unit_test(the_compiled_list_decides_as_a_naive_one_does),
    };

    return cmocka_run_group_tests(tests, books_open, books_close);
}
