/* cmd_explain.c - `culvert explain`: which rule takes a flow, why those before it do not, and by which exit it leaves.
 *
 * Nothing is asked: no name server, no proxy, no running gateway. What only they know is said to be open, never guessed. */
#include <stdlib.h>
#include <string.h>

#include "commands.h"

#define SHOWN_MAX    40 /* rules that do not fit, shown one by one */
#define PORT_DEFAULT 443
#define REASON_BYTES 400

struct question {
    struct rule_flow flow;
    char name[256];
};

static int parse_port(const char *text, uint16_t *out)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != '\0' || n > UINT16_MAX)
        return -1;
    *out = (uint16_t)n;
    return 0;
}

/* "name", "name:443", "192.0.2.1:443", "2001:db8::1" or "[2001:db8::1]:443". */
static int parse_host(const char *word, struct question *q)
{
    struct host_port *target = &q->flow.target;
    const char *colon = strrchr(word, ':');
    char host[300];
    size_t len = strlen(word);

    target->port = q->flow.proto == IP_PROTO_ICMP ? 0 : PORT_DEFAULT;
    if (ip_parse(word, &target->addr) == 0)
        return 0;
    if (colon != NULL) {
        if (parse_port(colon + 1, &target->port) != 0)
            return complain(EXIT_USAGE,
                            "\"%.60s\" is no port; write HOST or HOST:PORT, as in example.org:443",
                            colon + 1);
        len = (size_t)(colon - word);
    }
    if (len >= sizeof(host))
        return complain(EXIT_USAGE, "a host of %zu bytes; a name has at most 255", len);
    memcpy(host, word, len);
    host[len] = '\0';
    if (ip_parse(host, &target->addr) == 0)
        return 0;
    if (host_name_normalise(host, len, q->name) != 0)
        return complain(EXIT_USAGE, "\"%.60s\" is neither a name nor an address", host);
    target->name = q->name;
    return 0;
}

static int parse_net(const char *word, struct rule_flow *flow)
{
    static const struct {
        const char *name;
        enum ip_proto proto;
    } nets[] = { { "tcp", IP_PROTO_TCP }, { "udp", IP_PROTO_UDP }, { "icmp", IP_PROTO_ICMP } };

    flow->proto = IP_PROTO_TCP;
    if (word == NULL)
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(nets); i++) {
        if (strcmp(word, nets[i].name) == 0) {
            flow->proto = nets[i].proto;
            return 0;
        }
    }
    return complain(EXIT_USAGE, "--net %.60s: tcp, udp or icmp would work", word);
}

static int parse_uid(const char *word, struct rule_flow *flow)
{
    char *end;
    unsigned long n;

    if (word == NULL)
        return 0;
    n = strtoul(word, &end, 10);
    if (word[0] < '0' || word[0] > '9' || *end != '\0' || n > UINT32_MAX)
        return complain(EXIT_USAGE, "--uid %.60s: a number would work, as `id -u` prints it", word);
    flow->has_uid = true;
    flow->uid = (uint32_t)n;
    return 0;
}

static int parse(const struct cli *cli, const struct config *c, struct question *q)
{
    int status;

    *q = (struct question){ .flow.process = cli->process, .flow.in_name = c->tun.name };
    if ((status = parse_net(cli->net, &q->flow)) != 0 || (status = parse_uid(cli->uid, &q->flow)) != 0 ||
        (status = parse_host(cli->words[0], q)) != 0)
        return status;
    if (cli->src != NULL && ip_parse(cli->src, &q->flow.client.addr) != 0)
        return complain(EXIT_USAGE, "--src %.60s: an address would work, as in 192.168.1.10", cli->src);
    return 0;
}

/* ---- the answer --------------------------------------------------------------------------------------------------- */

static void print_question(const struct cli *cli, const struct question *q)
{
    const struct host_port *t = &q->flow.target;
    char text[IP_TEXT_MAX];

    printf("%s to %s", cli->net != NULL ? cli->net : "tcp",
           t->name != NULL ? t->name : ip_text(&t->addr, text));
    if (q->flow.proto != IP_PROTO_ICMP)
        printf(", port %u", t->port);
    if (cli->src != NULL)
        printf(", from %s", cli->src);
    if (q->flow.has_uid)
        printf(", by user %u", q->flow.uid);
    if (q->flow.process != NULL)
        printf(", by %s", q->flow.process);
    puts("");
}

static void print_rule(const struct rules *r, uint32_t i, const char *verdict, const char *why)
{
    printf("  %-5s rules[%u] %s: %s\n", verdict, i, rules_name(r, i), why);
}

/* The rules before @end. Return: how many of them may still take the flow. */
static uint32_t print_before(const struct rules *r, uint32_t end, const struct rule_flow *flow)
{
    uint32_t open = 0, shown = 0, hidden = 0;
    char why[REASON_BYTES];

    for (uint32_t i = 0; i < end; i++) {
        if (rules_why(r, i, flow, why, sizeof(why)) == RULE_UNKNOWN) {
            print_rule(r, i, "open", why);
            open++;
        } else if (shown < SHOWN_MAX) {
            print_rule(r, i, "no", why);
            shown++;
        } else
            hidden++;
    }
    if (hidden > 0)
        printf("  no    %u more that do not fit\n", hidden);
    return open;
}

/* Members by name, groups inside it too; which of them is in use is the running gateway's to say. */
static void print_group(const struct config *c, const struct group_options *g)
{
    static const char *const kinds[] = { "the one that was picked, the first until then",
                                         "the fastest by its test", "the first that is well",
                                         "all that are well, in turn or by hash" };

    printf(", a group: %s of", kinds[g->kind]);
    for (uint32_t i = 0; i < g->member_count; i++) {
        const struct upstream_options *member = &c->upstreams[g->members[i]];

        printf("%s %s", i > 0 ? "," : "", member->name);
        if (member->group != NULL) {
            fputs(" (", stdout);
            for (uint32_t k = 0; k < member->group->member_count; k++)
                printf("%s%s", k > 0 ? ", " : "", c->upstreams[member->group->members[k]].name);
            fputs(")", stdout);
        }
    }
}

static void print_exit(const struct config *c, uint32_t target)
{
    const struct upstream_options *up = &c->upstreams[target];
    char text[IP_PORT_TEXT_MAX];
    struct ip_port at = { up->server.addr, up->server.port };

    printf("exit: %s", up->name);
    if (target < CONFIG_TARGET_FIRST_PROXY)
        printf("%s", target == CONFIG_TARGET_DIRECT   ? ", from this host"
                     : target == CONFIG_TARGET_REJECT ? ", refused: RST or unreachable"
                                                      : ", dropped in silence");
    else if (up->group != NULL)
        print_group(c, up->group);
    else if (up->server.name != NULL)
        printf(", at %s:%u", up->server.name, up->server.port);
    else if (!ip_is_none(&up->server.addr))
        printf(", at %s", ip_port_text(&at, text));
    puts("");
}

static void print_answer(const struct config *c, const struct question *q)
{
    struct rule_verdict v;
    char why[REASON_BYTES];
    uint32_t open, end;

    rules_match(c->rules, &q->flow, &v);
    end = v.rule == RULE_IMPLICIT ? (uint32_t)rules_count(c->rules) : v.rule;
    open = print_before(c->rules, end, &q->flow);
    if (v.rule == RULE_IMPLICIT)
        puts("  yes   no rule takes it, so it is rejected");
    else {
        rules_why(c->rules, v.rule, &q->flow, why, sizeof(why));
        print_rule(c->rules, v.rule, "yes", why);
    }
    print_exit(c, v.target);
    if (open > 0)
        puts("unless an open rule above takes it, which depends on what only the running gateway sees");
}

static void print_unfetched(const struct config *c)
{
    for (size_t i = 0; i < c->provider_count; i++)
        if (!c->providers[i].fetched)
            printf("note: the list of rule-providers.%s has never been fetched, so it is empty here\n",
                   c->providers[i].name);
}

int cmd_explain(const struct cli *cli)
{
    struct config *config = NULL;
    struct question q;
    int status = load_config(cli, &config);

    if (status != EXIT_FINE)
        return status;
    status = parse(cli, config, &q);
    if (status == EXIT_FINE) {
        print_question(cli, &q);
        print_answer(config, &q);
        print_unfetched(config);
    }
    config_free(config);
    return status;
}
