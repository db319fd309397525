/* rules.c - what lists of rules cost: ninja -C build/release bench_rules && build/release/bench_rules [NAMES [RANGES]]
 *
 * A list of NAMES domains and one of RANGES prefixes are parsed from text as a provider's file is, then asked alone and through a rule
 * list. Names and flows are made before the clock runs, half of them in the list, in an order that no cache guesses. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "culvert/rules.h"

enum { NAME_BYTES = 32, LINE_BYTES = 48, ASKED = 1 << 20 };

/* Of this thread: the machine may be busy. */
static double cpu_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Distinct, and far from each other for i and i + 1. */
static uint32_t scatter(uint32_t i)
{
    i = (i ^ (i >> 16)) * 0x7feb352du;
    i = (i ^ (i >> 15)) * 0x846ca68bu;
    return i ^ (i >> 16);
}

static int name_of(uint32_t i, char *out)
{
    return snprintf(out, NAME_BYTES, "h%08" PRIx32 ".e%u.example", scatter(i), i % 997);
}

static int range_of(uint32_t i, char *out)
{
    uint32_t a = scatter(i);

    return snprintf(out, NAME_BYTES, "%u.%u.%u.0/24", 1 + (a >> 24) % 220, (a >> 16) & 255, (a >> 8) & 255);
}

static struct rule_set *load(enum rule_behavior behavior, uint32_t n, int (*line)(uint32_t, char *))
{
    char *text = malloc((size_t)n * LINE_BYTES), one[NAME_BYTES];
    struct rule_list_report report;
    struct rule_set *set = NULL;
    size_t len = 0;
    double began;

    if (text == NULL)
        exit(1);
    for (uint32_t i = 0; i < n; i++) {
        size_t bytes = (size_t)line(i, one);

        if (behavior == RULE_SET_DOMAIN) {
            memcpy(text + len, "+.", 2);
            len += 2;
        }
        memcpy(text + len, one, bytes);
        len += bytes;
        text[len++] = '\n';
    }
    began = cpu_s();
    if (rule_set_parse(behavior, RULE_LIST_TEXT, text, len, &set, &report) != 0)
        exit(1);
    printf("%-8s %9zu entries loaded in %6.3f s of CPU, %5.1f bytes each, %u bad\n",
           behavior == RULE_SET_DOMAIN ? "domain" : "ipcidr", rule_set_count(set), cpu_s() - began,
           (double)rule_set_bytes(set) / (double)rule_set_count(set), report.bad);
    free(text);
    return set;
}

static void result(const char *what, double seconds, uint32_t hits)
{
    printf("%-24s %7.1f ns each, %4.1f %% found\n", what, seconds * 1e9 / ASKED, 100.0 * hits / ASKED);
}

static void ask_names(const struct rule_set *set, const char *names)
{
    double began = cpu_s();
    uint32_t hits = 0;

    for (uint32_t i = 0; i < ASKED; i++)
        hits += rule_set_has_name(set, names + (size_t)i * NAME_BYTES, NULL);
    result("a name in the list", cpu_s() - began, hits);
}

static void ask_addrs(const struct rule_set *set, const struct ip_addr *addrs)
{
    double began = cpu_s();
    uint32_t hits = 0;

    for (uint32_t i = 0; i < ASKED; i++)
        hits += rule_set_has_addr(set, &addrs[i], NULL);
    result("an address in the list", cpu_s() - began, hits);
}

static void ask_rules(struct rule_set *domains, struct rule_set *ranges, const char *names,
                      const struct ip_addr *addrs)
{
    struct rule_cond conds[2] = { { .kind = RULE_SET, .value = { "domains", 7 }, .set = domains },
                                  { .kind = RULE_SET, .value = { "ranges", 6 }, .set = ranges } };
    struct rule list[2] = { { .conds = &conds[0], .n_conds = 1, .target = 1 },
                            { .conds = &conds[1], .n_conds = 1, .target = 2 } };
    struct rule_verdict verdict;
    struct rules *rules;
    uint32_t hits = 0;
    double began;

    if (rules_new(list, 2, 0, &rules) != 0)
        exit(1);
    began = cpu_s();
    for (uint32_t i = 0; i < ASKED; i++) {
        struct rule_flow flow = { .target = { names + (size_t)i * NAME_BYTES, addrs[i], 443 },
                                  .proto = IP_PROTO_TCP };

        rules_match(rules, &flow, &verdict);
        hits += verdict.target != 0;
    }
    result("a flow through both", cpu_s() - began, hits);
    rules_unref(rules);
}

int main(int argc, char **argv)
{
    uint32_t n_names = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000000;
    uint32_t n_ranges = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 100000;
    struct rule_set *domains = load(RULE_SET_DOMAIN, n_names, name_of);
    struct rule_set *ranges = load(RULE_SET_IPCIDR, n_ranges, range_of);
    char *names = calloc(ASKED, NAME_BYTES);
    struct ip_addr *addrs = calloc(ASKED, sizeof(*addrs));

    if (names == NULL || addrs == NULL)
        return 1;
    for (uint32_t i = 0; i < ASKED; i++) {
        uint32_t pick = scatter(i ^ 0x5bd1e995);
        char text[NAME_BYTES];

        name_of(pick % (2 * n_names), names + (size_t)i * NAME_BYTES);
        range_of(pick % (2 * n_ranges), text);
        *strchr(text, '/') = '\0';
        (void)ip_parse(text, &addrs[i]);
    }
    ask_names(domains, names);
    ask_addrs(ranges, addrs);
    ask_rules(domains, ranges, names, addrs);
    rule_set_unref(domains);
    rule_set_unref(ranges);
    free(names);
    free(addrs);
    return 0;
}
