/* why.c - one rule and one flow, in words: for `culvert explain`. */
#include <stdio.h>
#include <string.h>

#include "rules_impl.h"

#define VALUE_SHOWN 60

struct words {
    char *out;
    size_t cap, len;
};

static void say(struct words *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct words *w, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(w->out + w->len, w->cap - w->len, fmt, ap);
    va_end(ap);
    if (n > 0)
        w->len = w->len + (size_t)n < w->cap ? w->len + (size_t)n : w->cap - 1;
}

static void say_prefix(struct words *w, const struct ip_prefix *p)
{
    char text[IP_TEXT_MAX];

    say(w, "%s/%u", ip_text(&p->addr, text), ip_is4(&p->addr) && p->len >= 96 ? p->len - 96u : p->len);
}

static const char *network_text(uint8_t network)
{
    return network == RULE_TCP ? "tcp" : network == RULE_UDP ? "udp" : "icmp";
}

static void say_what(struct words *w, const struct node *n)
{
    int len = n->value.len < VALUE_SHOWN ? (int)n->value.len : VALUE_SHOWN;

    say(w, "%.*s", len, n->value.text);
}

static void say_range(struct words *w, const struct node *n)
{
    if (n->range.first == n->range.last)
        say(w, "%u", n->range.first);
    else
        say(w, "%u-%u", n->range.first, n->range.last);
}

static void say_unknown(struct words *w, uint8_t needs)
{
    static const char *const what[] = { "the address, which a look-up would tell",
                                        "the name, which DNS or the first bytes may tell", "the user (--uid)",
                                        "the program (--process)", "the client's address (--src)" };
    bool more = false;

    for (size_t i = 0; i < ARRAY_LEN(what); i++)
        if (needs & 1u << i) {
            say(w, "%s%s", more ? " and " : "depends on ", what[i]);
            more = true;
        }
}

static void say_name(struct words *w, const struct node *n, const struct ask *a, bool holds)
{
    static const struct {
        enum rule_kind kind;
        const char *yes, *no;
    } verbs[] = {
        { RULE_DOMAIN, "is", "is not" },
        { RULE_DOMAIN_SUFFIX, "is or is below", "is not below" },
        { RULE_DOMAIN_KEYWORD, "contains", "does not contain" },
    };
    const char *verb = holds ? "matches" : "does not match";

    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        if (n->kind == verbs[i].kind)
            verb = holds ? verbs[i].yes : verbs[i].no;
    if (a->name == NULL)
        say(w, "there is no name");
    else {
        say(w, "%.100s %s ", a->name, verb);
        say_what(w, n);
    }
    if (a->regex_gave_up)
        say(w, " (it took too many steps)");
}

static void say_addr(struct words *w, const struct node *n, const struct ip_addr *addr, bool holds)
{
    char text[IP_TEXT_MAX];
    uint32_t asn;

    if (ip_is_none(addr)) {
        say(w, "there is no address%s", n->no_resolve ? " (no-resolve)" : "");
        return;
    }
    say(w, "%s is %s", ip_text(addr, text), holds ? "in " : "not in ");
    if (n->kind == RULE_DST_CIDR || n->kind == RULE_SRC_CIDR)
        say_prefix(w, &n->prefix);
    else if (n->kind == RULE_IP_ASN) {
        say(w, "network ");
        say_range(w, n);
        if (!holds && geo_asn(n->geo, addr, &asn))
            say(w, ", but in %u", asn);
    } else
        say_what(w, n);
}

static void say_program(struct words *w, const struct node *n, const struct ask *a, bool holds)
{
    if (n->kind == RULE_UID && !a->flow->has_uid)
        say(w, "the user is not known");
    else if (n->kind == RULE_UID) {
        say(w, "user %u is %s", a->flow->uid, holds ? "" : "not ");
        say_range(w, n);
    } else if (a->flow->process == NULL)
        say(w, "the program is not known");
    else {
        say(w, "%.100s is %s", a->flow->process, holds ? "" : "not ");
        say_what(w, n);
    }
}

static void say_port(struct words *w, const struct node *n, const struct ask *a, bool holds)
{
    if (a->network == RULE_ICMP) {
        say(w, "a ping has no port");
        return;
    }
    say(w, "%s %u is %s", n->kind == RULE_DST_PORT ? "port" : "source port",
        n->kind == RULE_DST_PORT ? a->flow->target.port : a->flow->client.port, holds ? "" : "not ");
    say_range(w, n);
}

static void say_node(struct words *w, const struct node *n, struct ask *a, enum rule_answer is);

/* AND: the member that decides, OR: the one that holds, or how many do not. */
static void say_members(struct words *w, const struct node *n, struct ask *a, enum rule_answer is)
{
    const struct node *end = n + 1 + n->inside;
    unsigned members = 0;

    for (const struct node *m = n + 1; m < end; m += 1 + m->inside, members++) {
        bool decides = (n->kind == RULE_AND) == (is == RULE_NO);

        if (decides && node_ask(m, a) == is) {
            say_node(w, m, a, is);
            return;
        }
    }
    if (members == 0)
        say(w, "takes everything");
    else if (is == RULE_YES)
        say(w, "all of its %u conditions hold", members);
    else if (members <= 3) {
        for (const struct node *m = n + 1; m < end; m += 1 + m->inside) {
            say(w, "%s", m == n + 1 ? "" : ", ");
            say_node(w, m, a, is);
        }
    } else
        say(w, "none of its %u values fits", members);
}

static void say_set(struct words *w, const struct node *n, const struct ask *a, bool holds)
{
    const struct rule_set *s = n->set == RULE_SET_OWN ? n->own_set : a->sets[n->set];

    say(w, "%s of its %zu entries fit%s", holds ? "one" : "none", s->entries, holds ? "s" : "");
}

static void say_node(struct words *w, const struct node *n, struct ask *a, enum rule_answer is)
{
    bool holds = is == RULE_YES;

    if (is == RULE_UNKNOWN) {
        a->needs = 0;
        node_ask(n, a);
        say_unknown(w, a->needs);
        return;
    }
    switch ((enum rule_kind)n->kind) {
    case RULE_DST_CIDR:
    case RULE_GEOIP:
    case RULE_IP_ASN:
        say_addr(w, n, &a->flow->target.addr, holds);
        break;
    case RULE_SRC_CIDR:
        say_addr(w, n, &a->flow->client.addr, holds);
        break;
    case RULE_DST_PORT:
    case RULE_SRC_PORT:
        say_port(w, n, a, holds);
        break;
    case RULE_NETWORK:
        say(w, "it is %s%s", holds ? "" : "not for ", network_text(a->network));
        break;
    case RULE_DOMAIN:
    case RULE_DOMAIN_SUFFIX:
    case RULE_DOMAIN_KEYWORD:
    case RULE_DOMAIN_WILDCARD:
    case RULE_DOMAIN_LABELS:
    case RULE_DOMAIN_REGEX:
        say_name(w, n, a, holds);
        break;
    case RULE_PROCESS_NAME:
    case RULE_PROCESS_PATH:
    case RULE_UID:
        say_program(w, n, a, holds);
        break;
    case RULE_IN_NAME:
        say(w, "it came in by %s", a->flow->in_name != NULL ? a->flow->in_name : "nothing that has a name");
        break;
    case RULE_SET:
        say_set(w, n, a, holds);
        break;
    case RULE_AND:
    case RULE_OR:
        say_members(w, n, a, is);
        break;
    case RULE_NOT:
        say_node(w, n + 1, a, holds ? RULE_NO : RULE_YES);
        break;
    }
}

enum rule_answer rules_why(const struct rules *r, uint32_t rule, const struct rule_flow *flow, char *out,
                           size_t cap)
{
    struct words w = { out, cap, 0 };
    const struct node *n;
    enum rule_answer is;
    struct ask a;

    out[0] = '\0';
    if (rule >= r->core->n) {
        say(&w, "no rule took it");
        return RULE_YES;
    }
    n = &r->core->nodes.list[r->core->rule[rule].node];
    ask_begin(&a, flow, r->sets, NULL);
    is = node_ask(n, &a);
    say_node(&w, n, &a, is);
    return is;
}
