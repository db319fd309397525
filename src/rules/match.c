/* match.c - the first rule that takes a flow: candidates from the indexes, then the rules that no index holds.
 *
 * How it works: `best` is the lowest rule that holds so far. Each index gives the rules that the flow's values may fulfil, and those
 * below `best` are asked. Then come the rules that wait for what the flow lacks, until one says UNKNOWN, and last the rules in no
 * index, up to `best`. The order of looking never matters, since only the lowest counts. */
#include <assert.h>
#include <string.h>

#include "rules_impl.h"

struct match {
    const struct rules_core *core;
    struct ask ask;
    uint32_t best; /* the lowest rule that holds; RULE_IMPLICIT: none yet */
    uint32_t open; /* the lowest whose answer is not known */
    uint8_t needs; /* what that one lacks */
    bool gave_up;
};

static void visit(struct match *m)
{
    if (m->ask.visited != NULL)
        ++*m->ask.visited;
}

/* Return: true when it was asked and is UNKNOWN. */
static bool consider(struct match *m, uint32_t rule)
{
    if (rule >= m->best)
        return false;
    visit(m);
    m->ask.needs = 0;
    switch (node_ask(&m->core->nodes.list[m->core->rule[rule].node], &m->ask)) {
    case RULE_YES:
        m->best = rule;
        break;
    case RULE_UNKNOWN:
        if (rule < m->open) {
            m->open = rule;
            m->needs = m->ask.needs;
        }
        return true;
    case RULE_NO:
        break;
    }
    return false;
}

static void by_value(struct match *m, enum rule_kind kind, const void *value, size_t len)
{
    const struct guard *end, *g = guards_find(&m->core->guards, kind, value, len, &end, m->ask.visited);
    uint64_t hash = g != NULL ? g->hash : 0;

    for (; g != NULL && g < end && g->hash == hash && g->rule < m->best; g++)
        consider(m, g->rule);
}

static void by_number(struct match *m, enum rule_kind kind, uint32_t number)
{
    by_value(m, kind, &number, sizeof(number));
}

static void by_name(struct match *m)
{
    const char *name = m->ask.name;
    size_t len = m->ask.name_len;

    by_value(m, RULE_DOMAIN, name, len);
    while (len > 0) {
        const char *dot = memchr(name, '.', len);

        by_value(m, RULE_DOMAIN_SUFFIX, name, len);
        if (dot == NULL)
            break;
        len -= (size_t)(dot + 1 - name);
        name = dot + 1;
    }
}

static void by_process(struct match *m)
{
    struct piece is = m->ask.process_name;
    char lower[NAME_BYTES_MAX];

    if (is.len > sizeof(lower))
        return; /* longer than any that is in the index */
    for (size_t i = 0; i < is.len; i++)
        lower[i] = is.text[i] >= 'A' && is.text[i] <= 'Z' ? (char)(is.text[i] - 'A' + 'a') : is.text[i];
    by_value(m, RULE_PROCESS_NAME, lower, is.len);
}

static void by_address(struct match *m, const struct prefixes *p, const struct ip_addr *addr)
{
    uint32_t at = prefixes_find(p, addr, m->ask.visited);

    for (; at != PREFIX_NONE; at = prefixes_wider(p, addr, at, m->ask.visited))
        consider(m, p->list[at].value);
}

static void by_indexes(struct match *m)
{
    const struct rule_flow *flow = m->ask.flow;

    if (m->ask.name != NULL)
        by_name(m);
    if (!ip_is_none(&flow->target.addr))
        by_address(m, &m->core->dst, &flow->target.addr);
    by_address(m, &m->core->src, &flow->client.addr);
    if (m->ask.network != RULE_ICMP) {
        by_number(m, RULE_DST_PORT, flow->target.port);
        by_number(m, RULE_SRC_PORT, flow->client.port);
    }
    if (flow->has_uid)
        by_number(m, RULE_UID, flow->uid);
    if (flow->process != NULL)
        by_process(m);
    if (flow->in_name != NULL)
        by_value(m, RULE_IN_NAME, flow->in_name, strlen(flow->in_name));
}

static uint8_t lacks(const struct ask *a)
{
    uint8_t lacks = 0;

    if (ip_is_none(&a->flow->target.addr))
        lacks |= RULE_NEEDS_ADDRESS;
    if (a->name == NULL)
        lacks |= RULE_NEEDS_NAME;
    if (!a->flow->has_uid)
        lacks |= RULE_NEEDS_UID;
    if (a->flow->process == NULL)
        lacks |= RULE_NEEDS_PROCESS;
    return lacks & (uint8_t)~a->flow->settled;
}

static void by_what_is_missing(struct match *m)
{
    uint8_t missing = lacks(&m->ask);

    for (int i = 0; i < NEEDS_KINDS; i++) {
        const struct order *o = &m->core->waiting[i];

        if (!(missing & 1u << i))
            continue;
        for (uint32_t k = 0; k < o->count && o->list[k] < m->best; k++)
            if (consider(m, o->list[k]))
                break; /* all that follow are later */
    }
}

void rules_match_counted(const struct rules *r, const struct rule_flow *flow, struct rule_verdict *out,
                         uint64_t *visited)
{
    struct match m = { .core = r->core, .best = RULE_IMPLICIT, .open = RULE_IMPLICIT };
    const struct order *rest = &r->core->rest;

    ask_begin(&m.ask, flow, r->sets, visited);
    by_indexes(&m);
    by_what_is_missing(&m);
    for (uint32_t i = 0; i < rest->count && rest->list[i] < m.best; i++)
        consider(&m, rest->list[i]);
    *out = (struct rule_verdict){ .target = rules_target(r, m.best),
                                  .rule = m.best,
                                  .needs = m.open < m.best ? m.needs : 0,
                                  .regex_gave_up = m.ask.regex_gave_up };
    if (m.best != RULE_IMPLICIT)
        out->echo = (enum rule_echo)r->core->rule[m.best].echo;
}

void rules_match(const struct rules *r, const struct rule_flow *flow, struct rule_verdict *out)
{
    rules_match_counted(r, flow, out, NULL);
}

/* The implicit rule has the highest number, too. */
void rules_match_any(const struct rules *r, const struct rule_flow *flow, const struct ip_addr *addrs,
                     size_t n, struct rule_verdict *out, uint32_t *fits)
{
    uint32_t target[RULE_ADDRS_MAX];
    struct rule_flow one = *flow;
    struct rule_verdict v;

    assert(n <= RULE_ADDRS_MAX);
    *fits = 0;
    if (n == 0)
        rules_match(r, flow, out);
    for (size_t i = 0; i < n; i++) {
        one.target.addr = addrs[i];
        rules_match(r, &one, &v);
        target[i] = v.target;
        if (i > 0) {
            v.needs |= out->needs;
            v.regex_gave_up |= out->regex_gave_up;
        }
        if (i == 0 || v.rule < out->rule)
            *out = v;
        out->needs = v.needs;
        out->regex_gave_up = v.regex_gave_up;
    }
    for (size_t i = 0; i < n; i++)
        if (target[i] == out->target)
            *fits |= UINT32_C(1) << i;
}
