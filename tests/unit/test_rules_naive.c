/* test_rules_naive.c - faces src/rules: the compiled list against a list that the test evaluates by itself. */
#include "culvert/rules.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

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

static void simple_text(const struct simple *s, char out[80])
{
    static const char *const words[] = { "DOMAIN",       "DOMAIN-SUFFIX", "DOMAIN-KEYWORD", "IP-CIDR",
                                         "SRC-IP-CIDR",  "DST-PORT",      "NETWORK",        "UID",
                                         "PROCESS-NAME", "SRC-PORT" };
    static const char *const networks[] = { "tcp", "udp", "icmp", "udp" };
    char value[48];

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
        simple_text(&m->part[i], part);
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
        cmocka_unit_test(the_compiled_list_decides_as_a_naive_one_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
