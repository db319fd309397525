/* eval.c - does an expression hold for a flow? Yes, no, or not known yet (Kleene's three values).
 *
 * A condition whose matter the flow lacks is UNKNOWN, unless the caller has settled that it will stay so: then it does not hold. AND
 * and OR answer as soon as what is known decides; what an UNKNOWN was for is gathered in ask.needs. */
#include <string.h>
#include <strings.h>

#include "rules_impl.h"

static uint8_t network_bit(enum ip_proto proto)
{
    switch (proto) {
    case IP_PROTO_TCP:
        return RULE_TCP;
    case IP_PROTO_UDP:
        return RULE_UDP;
    case IP_PROTO_ICMP:
    case IP_PROTO_ICMPV6:
        return RULE_ICMP;
    }
    return 0;
}

void ask_begin(struct ask *a, const struct rule_flow *flow, struct rule_set *const *sets, uint64_t *visited)
{
    const char *slash;

    *a = (struct ask){ .flow = flow,
                       .sets = sets,
                       .name = flow->target.name,
                       .network = network_bit(flow->proto),
                       .visited = visited };
    if (a->name != NULL)
        a->name_len = strlen(a->name);
    if (flow->process != NULL) {
        slash = strrchr(flow->process, '/');
        a->process_name.text = slash != NULL ? slash + 1 : flow->process;
        a->process_name.len = strlen(a->process_name.text);
    }
}

static enum rule_answer answer(bool holds)
{
    return holds ? RULE_YES : RULE_NO;
}

/* The flow lacks what a condition is about. */
static enum rule_answer lacking(struct ask *a, uint8_t need)
{
    if (a->flow->settled & need)
        return RULE_NO;
    a->needs |= need;
    return RULE_UNKNOWN;
}

/* ---- patterns of names ---------------------------------------------------------------------------------------- */

bool glob_matches(struct piece p, struct piece t)
{
    size_t i = 0, k = 0, star = SIZE_MAX, from = 0;

    while (k < t.len) {
        if (i < p.len && p.text[i] == '*') {
            star = i++;
            from = k;
        } else if (i < p.len && (p.text[i] == '?' || p.text[i] == t.text[k])) {
            i++;
            k++;
        } else if (star != SIZE_MAX) { /* the last star takes one byte more; earlier ones need not change */
            i = star + 1;
            k = ++from;
        } else
            return false;
    }
    while (i < p.len && p.text[i] == '*')
        i++;
    return i == p.len;
}

static struct piece next_label(struct piece *rest)
{
    const char *dot = memchr(rest->text, '.', rest->len);
    struct piece label = { rest->text, dot != NULL ? (size_t)(dot - rest->text) : rest->len };
    size_t used = label.len + (dot != NULL);

    rest->text += used;
    rest->len -= used;
    return label;
}

/* Label by label; a first label `+` or an empty one is any number of labels (none, with `+`), as in lists. */
bool labels_match(struct piece p, struct piece t)
{
    bool any = p.len > 1 && p.text[0] == '+' && p.text[1] == '.', below = p.len > 0 && p.text[0] == '.';
    struct piece pattern = p, text = t;

    if (any || below) {
        struct piece rest = { p.text + 1 + any, p.len - 1 - any };

        if (any && labels_match(rest, t))
            return true;
        while (t.len > 0) {
            next_label(&t);
            if (t.len > 0 && labels_match(rest, t))
                return true;
        }
        return false;
    }
    while (pattern.len > 0 && text.len > 0) {
        struct piece a = next_label(&pattern), b = next_label(&text);

        if (!(a.len == 1 && a.text[0] == '*') && (a.len != b.len || memcmp(a.text, b.text, a.len) != 0))
            return false;
    }
    return pattern.len == 0 && text.len == 0;
}

static bool is_suffix(const struct node *n, const struct ask *a)
{
    size_t len = n->value.len;

    if (a->name_len < len || memcmp(a->name + a->name_len - len, n->value.text, len) != 0)
        return false;
    return a->name_len == len || a->name[a->name_len - len - 1] == '.';
}

static enum rule_answer name_ask(const struct node *n, struct ask *a)
{
    struct piece value = { n->value.text, n->value.len }, name = { a->name, a->name_len };

    if (a->name == NULL)
        return lacking(a, RULE_NEEDS_NAME);
    if (n->kind == RULE_DOMAIN)
        return answer(value.len == name.len && memcmp(value.text, name.text, name.len) == 0);
    if (n->kind == RULE_DOMAIN_SUFFIX)
        return answer(is_suffix(n, a));
    if (n->kind == RULE_DOMAIN_KEYWORD)
        return answer(memmem(name.text, name.len, value.text, value.len) != NULL);
    if (n->kind == RULE_DOMAIN_WILDCARD)
        return answer(glob_matches(value, name));
    if (n->kind == RULE_DOMAIN_LABELS)
        return answer(labels_match(value, name));
    return answer(regex_matches(n->regex, name.text, name.len, &a->regex_gave_up));
}

/* ---- addresses ------------------------------------------------------------------------------------------------- */

/* What mihomo calls LAN: unspecified, loopback, link-local, multicast, broadcast, and the private ranges (RFC 1918, RFC 4193). */
bool addr_is_lan(const struct ip_addr *a)
{
    static const char *const private[] = { "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7" };

    if (ip_is_martian(a) || ip_is_link_local(a))
        return true;
    for (size_t i = 0; i < ARRAY_LEN(private); i++) {
        struct ip_prefix p;

        if (ip_prefix_parse(private[i], &p) == 0 && ip_in_prefix(a, &p))
            return true;
    }
    return false;
}

static enum rule_answer addr_lacking(struct ask *a, bool no_resolve)
{
    return no_resolve ? RULE_NO : lacking(a, RULE_NEEDS_ADDRESS);
}

static bool addr_fits(const struct node *n, const struct ip_addr *addr)
{
    uint32_t asn;

    if (n->kind == RULE_DST_CIDR)
        return ip_in_prefix(addr, &n->prefix);
    if (n->kind == RULE_IP_ASN)
        return geo_asn(n->geo, addr, &asn) && asn >= n->range.first && asn <= n->range.last;
    if (n->geo == NULL)
        return addr_is_lan(addr);
    return geo_has_country(n->geo, addr, n->value.text, n->value.len);
}

static enum rule_answer addr_ask(const struct node *n, struct ask *a)
{
    const struct ip_addr *addr = &a->flow->target.addr;

    return ip_is_none(addr) ? addr_lacking(a, n->no_resolve) : answer(addr_fits(n, addr));
}

static bool addr_within(const struct prefixes *p, const struct ask *a)
{
    return prefixes_find(p, &a->flow->target.addr, a->visited) != PREFIX_NONE;
}

/* ---- programs ------------------------------------------------------------------------------------------------------ */

static enum rule_answer process_ask(const struct node *n, struct ask *a)
{
    struct piece is = a->process_name;

    if (a->flow->process == NULL)
        return lacking(a, RULE_NEEDS_PROCESS);
    if (n->kind == RULE_PROCESS_PATH)
        is = (struct piece){ a->flow->process, strlen(a->flow->process) };
    return answer(is.len == n->value.len && strncasecmp(is.text, n->value.text, is.len) == 0);
}

static enum rule_answer uid_ask(const struct node *n, struct ask *a)
{
    if (!a->flow->has_uid)
        return lacking(a, RULE_NEEDS_UID);
    return answer(a->flow->uid >= n->range.first && a->flow->uid <= n->range.last);
}

static bool in_name_is(const struct node *n, const struct ask *a)
{
    const char *in = a->flow->in_name;

    return in != NULL && strlen(in) == n->value.len && memcmp(in, n->value.text, n->value.len) == 0;
}

/* An echo's id travels in the place of a port (struct flow_key) and must never match one. */
static bool port_within(const struct node *n, const struct ask *a, uint16_t port)
{
    return a->network != RULE_ICMP && port >= n->range.first && port <= n->range.last;
}

/* ---- expressions -------------------------------------------------------------------------------------------------- */

/* @decides: the answer of one member that is the answer of all: NO for AND, YES for OR. */
static enum rule_answer members_ask(const struct node *n, struct ask *a, enum rule_answer decides)
{
    enum rule_answer all = decides == RULE_NO ? RULE_YES : RULE_NO;
    const struct node *end = n + 1 + n->inside;

    for (const struct node *m = n + 1; m < end; m += 1 + m->inside) {
        enum rule_answer one = node_ask(m, a);

        if (one == decides)
            return decides;
        if (one == RULE_UNKNOWN)
            all = RULE_UNKNOWN;
    }
    return all;
}

static enum rule_answer not(enum rule_answer a) {
    return a == RULE_UNKNOWN ? a
           : a == RULE_YES   ? RULE_NO
                             : RULE_YES;
}

static struct rule_set *set_of(const struct node *n, struct rule_set *const *sets)
{
    return n->set == RULE_SET_OWN ? n->own_set : sets[n->set];
}

enum rule_answer node_ask(const struct node *n, struct ask *a)
{
    switch ((enum rule_kind)n->kind) {
    case RULE_DST_CIDR:
    case RULE_GEOIP:
    case RULE_IP_ASN:
        return addr_ask(n, a);
    case RULE_SRC_CIDR:
        if (ip_is_none(&a->flow->client.addr))
            return lacking(a, NEEDS_SOURCE); /* a flow has one; a question of `explain` need not */
        return answer(ip_in_prefix(&a->flow->client.addr, &n->prefix));
    case RULE_DST_PORT:
        return answer(port_within(n, a, a->flow->target.port));
    case RULE_SRC_PORT:
        return answer(port_within(n, a, a->flow->client.port));
    case RULE_NETWORK:
        return answer((n->networks & a->network) != 0);
    case RULE_DOMAIN:
    case RULE_DOMAIN_SUFFIX:
    case RULE_DOMAIN_KEYWORD:
    case RULE_DOMAIN_WILDCARD:
    case RULE_DOMAIN_LABELS:
    case RULE_DOMAIN_REGEX:
        return name_ask(n, a);
    case RULE_PROCESS_NAME:
    case RULE_PROCESS_PATH:
        return process_ask(n, a);
    case RULE_UID:
        return uid_ask(n, a);
    case RULE_IN_NAME:
        return answer(in_name_is(n, a));
    case RULE_SET:
        return set_ask(set_of(n, a->sets), a, n->no_resolve);
    case RULE_AND:
        return members_ask(n, a, RULE_NO);
    case RULE_OR:
        return members_ask(n, a, RULE_YES);
    case RULE_NOT:
        return not(node_ask(n + 1, a));
    }
    return RULE_NO;
}

/* ---- sets ----------------------------------------------------------------------------------------------------------- */

static void worse(enum rule_answer *sum, enum rule_answer one)
{
    if (one != RULE_NO && *sum != RULE_YES)
        *sum = one;
}

/* Any entry will do. */
enum rule_answer set_ask(const struct rule_set *s, struct ask *a, bool no_resolve)
{
    bool no_addr = ip_is_none(&a->flow->target.addr);
    enum rule_answer sum = RULE_NO;

    if (s->names.count > 0)
        worse(&sum, a->name == NULL ? lacking(a, RULE_NEEDS_NAME)
                                    : answer(names_has(&s->names, a->name, a->name_len, a->visited)));
    if (sum != RULE_YES && s->src.count > 0)
        worse(&sum, answer(prefixes_find(&s->src, &a->flow->client.addr, a->visited) != PREFIX_NONE));
    if (sum != RULE_YES && s->dst_no_resolve.count > 0 && !no_addr)
        worse(&sum, answer(addr_within(&s->dst_no_resolve, a)));
    if (sum != RULE_YES && s->dst.count > 0)
        worse(&sum, no_addr ? addr_lacking(a, no_resolve) : answer(addr_within(&s->dst, a)));
    for (uint32_t i = 0; i < s->n_exprs && sum != RULE_YES; i++)
        worse(&sum, node_ask(&s->nodes.list[s->expr[i]], a));
    return sum;
}

/* ---- what may be asked for --------------------------------------------------------------------------------------------- */

uint8_t node_needs(const struct node *n, struct rule_set *const *sets)
{
    uint8_t needs = 0;

    switch ((enum rule_kind)n->kind) {
    case RULE_DST_CIDR:
    case RULE_GEOIP:
    case RULE_IP_ASN:
        return n->no_resolve ? 0 : RULE_NEEDS_ADDRESS;
    case RULE_DOMAIN:
    case RULE_DOMAIN_SUFFIX:
    case RULE_DOMAIN_KEYWORD:
    case RULE_DOMAIN_WILDCARD:
    case RULE_DOMAIN_LABELS:
    case RULE_DOMAIN_REGEX:
        return RULE_NEEDS_NAME;
    case RULE_PROCESS_NAME:
    case RULE_PROCESS_PATH:
        return RULE_NEEDS_PROCESS;
    case RULE_UID:
        return RULE_NEEDS_UID;
    case RULE_SET:
        needs = set_of(n, sets)->needs;
        return n->no_resolve ? needs & (uint8_t)~RULE_NEEDS_ADDRESS : needs;
    case RULE_AND:
    case RULE_OR:
    case RULE_NOT:
        for (const struct node *m = n + 1; m < n + 1 + n->inside; m += 1 + m->inside)
            needs |= node_needs(m, sets);
        return needs;
    case RULE_SRC_CIDR:
    case RULE_DST_PORT:
    case RULE_SRC_PORT:
    case RULE_NETWORK:
    case RULE_IN_NAME:
        break;
    }
    return needs;
}
