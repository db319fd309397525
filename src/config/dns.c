/* dns.c - the `dns`, `hosts` and `sniffer` sections: what their values mean.
 *
 * Name servers may go through a proxy, so they are gathered while the file is read and settled when all names are known. */
#include "config_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "culvert/dns.h"

#define DNS_PORT           53
#define DNS_TLS_PORT       853 /* RFC 7858 section 3.1 */
#define DNS_HTTPS_PORT     443
#define NAMESERVERS_EXPECT "192.0.2.53, tls://192.0.2.53 or https://192.0.2.53/dns-query would work"
#define ENTRIES_MAX        65536

struct cfg_dns { /* scratch: where things stand */
    struct cfg_nodes nameservers, proxy_servers, default_servers, hijack, tun_hijack, filter, rebind;
    const struct cfg_node *policy, *hosts, *mode;
    const struct cfg_node *fake[2];   /* the ranges; NULL: defaults */
    struct cfg_tls tls;               /* of TLS and HTTPS name servers: its authorities */
    struct tls_settings *settings[2]; /* TLS, HTTPS; made when first wanted */
    bool disabled;
};

static struct cfg_dns *dns_of(struct cfg_read *r)
{
    if (r->dns == NULL)
        r->dns = cfg_scratch(r, sizeof(*r->dns));
    return r->dns;
}

/* ---- gathering ------------------------------------------------------------------------------------------------------ */

/* A default lives on its reader's stack, so nodes are copied. */
static void gather(struct cfg_read *r, struct cfg_nodes *to, const struct cfg_node *v)
{
    struct cfg_node *copy = cfg_scratch(r, sizeof(*copy));

    if (copy == NULL)
        return;
    *copy = *v;
    cfg_nodes_push(r, to, copy);
}

#define GATHER(function, member)                                                                             \
    static void function(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)    \
    {                                                                                                        \
        struct cfg_dns *d = dns_of(r);                                                                       \
                                                                                                             \
        (void)k;                                                                                             \
        (void)to;                                                                                            \
        if (d != NULL)                                                                                       \
            gather(r, &d->member, v);                                                                        \
    }
#define KEEP(function, member)                                                                               \
    static void function(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)    \
    {                                                                                                        \
        struct cfg_dns *d = dns_of(r);                                                                       \
                                                                                                             \
        (void)k;                                                                                             \
        (void)to;                                                                                            \
        if (d != NULL)                                                                                       \
            d->member = v;                                                                                   \
    }

GATHER(read_nameserver, nameservers)
GATHER(read_proxy_server, proxy_servers)
GATHER(read_default_server, default_servers)
GATHER(read_hijack, hijack)
GATHER(read_tun_hijack, tun_hijack)
GATHER(read_filter, filter)
GATHER(read_rebind, rebind)
KEEP(read_policy, policy)
KEEP(read_hosts, hosts)

static void read_enable(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_dns *d = dns_of(r);
    char quoted[CFG_QUOTED_MAX];

    (void)k;
    (void)to;
    if (strcmp(v->text, "false") == 0 && d != NULL)
        d->disabled = true;
    else if (strcmp(v->text, "true") == 0)
        cfg_warning(r, v, "has no effect; mode decides");
    else
        cfg_error(r, v, "%s is neither true nor false; write one of these", cfg_quote(v->text, quoted));
}

/* The authorities of `tls://` and `https://` name servers. */
static void read_ca(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_key at_zero = *k;
    struct cfg_dns *d = dns_of(r);

    (void)to;
    at_zero.offset = 0;
    if (d != NULL)
        cfg_tls_ca.read(r, &at_zero, v, &d->tls);
}

static void read_fake_range(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_dns *d = dns_of(r);
    bool v6 = k->offset == offsetof(struct config, dns.fake6);
    struct ip_prefix p;
    char quoted[CFG_QUOTED_MAX];

    if (d == NULL)
        return;
    if (strcmp(v->text, "none") == 0) {
        memset(&p, 0, sizeof(p));
    } else if (ip_prefix_parse(v->text, &p) != 0 || ip_is4(&p.addr) == v6 || p.len < (v6 ? 16 : 96 + 8) ||
               p.len > 128 - 4 || ip_is_martian(&p.addr)) {
        cfg_error(r, v, "%s is no range of fake addresses; %s or none would work", cfg_quote(v->text, quoted),
                  k->fallback);
        return;
    }
    memcpy((char *)to + k->offset, &p, sizeof(p));
    d->fake[v6] = v->line > 0 ? v : NULL;
}

static void read_block_type(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct dns_settings *s = &r->config->dns;
    uint16_t type = dns_type_parse(v->text);
    char quoted[CFG_QUOTED_MAX];

    (void)k;
    (void)to;
    if (strcmp(v->text, "none") == 0)
        return;
    if (type == 0)
        cfg_error(r, v, "%s is no type of DNS records; HTTPS, AAAA or TYPE65 would work",
                  cfg_quote(v->text, quoted));
    else if (s->n_block_types == DNS_BLOCK_TYPES_MAX)
        cfg_error(r, v, "more than %d types; remove some", DNS_BLOCK_TYPES_MAX);
    else
        s->block_types[s->n_block_types++] = type;
}

/* One port, or first-last. */
static void read_ports(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct sniff_ports *ports = (struct sniff_ports *)(void *)((char *)to + k->offset);
    const char *dash = strchr(v->text, '-');
    char quoted[CFG_QUOTED_MAX], first[8] = "";
    size_t len = dash == NULL ? v->count : (size_t)(dash - v->text);
    uint64_t a, b;

    if (strcmp(v->text, "none") == 0)
        return;
    if (len < sizeof(first))
        memcpy(first, v->text, len);
    if (cfg_parse_number(first, 1, 65535, &a) != CFG_NUMBER_OK ||
        cfg_parse_number(dash == NULL ? first : dash + 1, a, 65535, &b) != CFG_NUMBER_OK)
        cfg_error(r, v, "%s is no port; 443, 8000-8999 or none would work", cfg_quote(v->text, quoted));
    else if (ports->n == SNIFF_RANGES_MAX)
        cfg_error(r, v, "more than %d entries; ranges such as 8000-8999 take less room", SNIFF_RANGES_MAX);
    else
        ports->list[ports->n++] = (struct port_range){ (uint16_t)a, (uint16_t)b };
}

/* ---- hijack --------------------------------------------------------------------------------------------------------- */

static void add_hijack(struct cfg_read *r, const struct cfg_node *v, const char *text)
{
    struct dns_settings *s = &r->config->dns;
    struct dns_hijack h = { .to.port = DNS_PORT };
    bool bare_udp = strncmp(text, "udp://", 6) == 0;
    char quoted[CFG_QUOTED_MAX];
    uint64_t port;

    h.tcp = strncmp(text, "tcp://", 6) == 0;
    if (h.tcp || bare_udp)
        text += 6;
    if (strncmp(text, "any:", 4) == 0 && cfg_parse_number(text + 4, 1, 65535, &port) == CFG_NUMBER_OK)
        h.to.port = (uint16_t)port;
    else if (ip_parse(text, &h.to.addr) != 0 &&
             (config_parse_listen(text, &h.to) != 0 || h.to.port == 0 || ip_is_none(&h.to.addr))) {
        cfg_error(r, v, "%s is no address of name servers; any:53, tcp://any:53 or 192.0.2.53:53 would work",
                  cfg_quote(v->text, quoted));
        return;
    }
    if (s->hijacks == DNS_HIJACKS_MAX)
        cfg_error(r, v, "more than %d entries; remove some", DNS_HIJACKS_MAX);
    else
        s->hijack[s->hijacks++] = h;
}

static void finish_hijack(struct cfg_read *r, const struct cfg_dns *d)
{
    const struct cfg_nodes *nodes = d->hijack.count > 0 ? &d->hijack : &d->tun_hijack;
    const char *path = nodes == &d->hijack ? "dns.hijack" : "tun.dns-hijack";
    struct dns_settings *s = &r->config->dns;

    if (d->hijack.count > 0 && d->tun_hijack.count > 0)
        cfg_error(r, d->tun_hijack.list[0],
                  "tun.dns-hijack: says the same as dns.hijack; keep one of the two");
    for (size_t i = 0; i < nodes->count; i++) {
        size_t before = cfg_enter_key(r, path);

        cfg_enter_index(r, i);
        add_hijack(r, nodes->list[i], nodes->list[i]->text);
        cfg_leave(r, before);
    }
    if (nodes->count == 0) {
        s->hijack[0] = (struct dns_hijack){ .tcp = false, .to.port = DNS_PORT };
        s->hijack[1] = (struct dns_hijack){ .tcp = true, .to.port = DNS_PORT };
        s->hijacks = 2;
    }
}

/* ---- patterns ------------------------------------------------------------------------------------------------------- */

static const char *keep_pattern(struct cfg_read *r, const struct cfg_node *v)
{
    char pattern[256], quoted[CFG_QUOTED_MAX];

    if (v->kind != CFG_SCALAR) {
        cfg_wrong_kind(r, v, "a pattern of names such as +.example.org");
        return NULL;
    }
    if (dns_pattern_check(v->text, pattern) == 0)
        return cfg_keep_text(r, pattern, strlen(pattern));
    cfg_error(r, v, "%s is no pattern of names; www.example.org, *.example.org or +.example.org would work",
              cfg_quote(v->text, quoted));
    return NULL;
}

static void finish_patterns(struct cfg_read *r, const struct cfg_nodes *nodes, const char *path,
                            struct dns_patterns *out)
{
    const char **list = cfg_keep(r, (nodes->count + 1) * sizeof(*list));
    size_t n = 0;

    for (size_t i = 0; i < nodes->count && list != NULL; i++) {
        size_t before = cfg_enter_key(r, path);

        cfg_enter_index(r, i);
        if (strcmp(nodes->list[i]->text, "none") != 0 && (list[n] = keep_pattern(r, nodes->list[i])) != NULL)
            n++;
        cfg_leave(r, before);
    }
    *out = (struct dns_patterns){ list, n };
}

/* ---- name servers ---------------------------------------------------------------------------------------------------- */

static struct tls_settings *tls_of(struct cfg_read *r, struct cfg_dns *d, const struct cfg_node *at,
                                   bool https)
{
    static const char *const h2[] = { "h2" };
    struct tls_settings **made = &d->settings[https];

    if (*made != NULL)
        return *made;
    d->tls.options.alpn = https ? h2 : NULL;
    d->tls.options.alpns = https ? 1 : 0;
    d->tls.options.resume = true;
    *made = cfg_tls_client(r, &d->tls.options, at);
    return *made;
}

/* "#office": which way out. What is no such name was said. */
static uint32_t exit_of(struct cfg_read *r, const struct cfg_node *v, const char *name)
{
    int64_t target = *name == '\0' ? CONFIG_TARGET_DIRECT : cfg_target_find(r, name);
    const char *near = target == CFG_TARGET_UNKNOWN ? cfg_target_nearest(r, name) : NULL;
    char quoted[CFG_QUOTED_MAX];

    if (near != NULL)
        cfg_error(r, v, "unknown proxy %s; did you mean \"%s\"?", cfg_quote(name, quoted), near);
    else if (target == CFG_TARGET_UNKNOWN)
        cfg_error(r, v, "unknown proxy %s; the name of a proxy or DIRECT would work",
                  cfg_quote(name, quoted));
    return target < 0 ? CONFIG_TARGET_DIRECT : (uint32_t)target;
}

/* "host", "host:port", "[v6]:port" or a bare IPv6 address. */
static bool read_place(struct cfg_read *r, const char *text, uint16_t port, struct host_port *out)
{
    char host[256], name[256];
    const char *colon = strrchr(text, ':');
    size_t len = strlen(text);
    uint64_t n = port;

    *out = (struct host_port){ .port = port };
    if (ip_parse(text, &out->addr) == 0)
        return !ip_is_none(&out->addr);
    if (colon != NULL) {
        len = (size_t)(colon - text);
        if (cfg_parse_number(colon + 1, 1, 65535, &n) != CFG_NUMBER_OK)
            return false;
    }
    if (len == 0 || len >= sizeof(host))
        return false;
    memcpy(host, text, len);
    host[len] = '\0';
    out->port = (uint16_t)n;
    if (ip_parse(host, &out->addr) == 0)
        return (colon == NULL || host[0] == '[' || strchr(host, ':') == NULL) && !ip_is_none(&out->addr);
    if (host_name_normalise(host, len, name) != 0 || strspn(name, "0123456789.") == strlen(name))
        return false;
    out->name = cfg_keep_text(r, name, strlen(name));
    return true;
}

struct scheme {
    const char *text;
    enum dns_transport transport;
    uint16_t port;
};
static const struct scheme schemes[] = {
    { "udp://", DNS_OVER_UDP, DNS_PORT },     { "tcp://", DNS_OVER_TCP, DNS_PORT },
    { "tls://", DNS_OVER_TLS, DNS_TLS_PORT }, { "https://", DNS_OVER_HTTPS, DNS_HTTPS_PORT },
    { "", DNS_OVER_UDP, DNS_PORT },
};

/* "/dns-query", also as a template "/dns-query{?dns}" (RFC 8484 section 3). Return: NULL: no path can look like this. */
static const char *keep_path(struct cfg_read *r, const char *path)
{
    const char *end = path != NULL ? strstr(path, "{?dns}") : NULL;
    size_t len = path == NULL ? 0 : end != NULL ? (size_t)(end - path) : strlen(path);

    if (path == NULL)
        return "/dns-query";
    for (size_t i = 0; i < len; i++) {
        if (path[i] <= ' ' || path[i] > '~' || path[i] == '{')
            return NULL;
    }
    return cfg_keep_text(r, path, len);
}

static bool take_nameserver(struct cfg_read *r, struct cfg_dns *d, const struct cfg_node *v,
                            struct dns_nameserver *out)
{
    const struct scheme *s = schemes;
    char text[512], quoted[CFG_QUOTED_MAX];
    char *hash, *slash;

    if (v->kind != CFG_SCALAR || v->count >= sizeof(text)) {
        cfg_error(r, v, "is no name server; " NAMESERVERS_EXPECT);
        return false;
    }
    while (strncmp(v->text, s->text, strlen(s->text)) != 0)
        s++;
    memcpy(text, v->text + strlen(s->text), v->count - strlen(s->text) + 1);
    hash = strchr(text, '#');
    if (hash != NULL)
        *hash++ = '\0';
    slash = s->transport == DNS_OVER_HTTPS ? strchr(text, '/') : NULL;
    *out = (struct dns_nameserver){ .transport = s->transport };
    if (s->transport == DNS_OVER_HTTPS)
        out->path = keep_path(r, slash);
    if (slash != NULL)
        *slash = '\0';
    if (!read_place(r, text, s->port, &out->at) || (out->at.name != NULL && s->transport == DNS_OVER_UDP) ||
        (out->path == NULL && s->transport == DNS_OVER_HTTPS)) {
        cfg_error(r, v, "%s is no name server; " NAMESERVERS_EXPECT, cfg_quote(v->text, quoted));
        return false;
    }
    out->target = exit_of(r, v, hash == NULL ? "" : hash);
#ifndef WITH_MASQUE
    if (s->transport == DNS_OVER_HTTPS) {
        cfg_error(r, v, "this program was built without HTTP/2 (WITH_MASQUE=OFF); tls:// would work");
        return false;
    }
#endif
    if (s->transport == DNS_OVER_TLS || s->transport == DNS_OVER_HTTPS)
        out->tls = tls_of(r, d, v, s->transport == DNS_OVER_HTTPS);
    return true;
}

/* @nodes: a list, as it was read. */
static void take_nameservers(struct cfg_read *r, struct cfg_dns *d, const struct cfg_node *const *nodes,
                             size_t count, struct dns_nameservers *out)
{
    struct dns_nameserver *list = cfg_keep(r, DNS_NAMESERVERS_MAX * sizeof(*list));
    size_t n = 0;

    if (count > DNS_NAMESERVERS_MAX)
        cfg_error(r, nodes[DNS_NAMESERVERS_MAX], "more than %d name servers; remove some",
                  DNS_NAMESERVERS_MAX);
    for (size_t i = 0; i < count && i < DNS_NAMESERVERS_MAX && list != NULL; i++) {
        size_t before = cfg_enter_index(r, i);

        n += take_nameserver(r, d, nodes[i], &list[n]);
        cfg_leave(r, before);
    }
    *out = (struct dns_nameservers){ list, n };
}

static void finish_policy(struct cfg_read *r, struct cfg_dns *d)
{
    size_t count = d->policy == NULL ? 0 : d->policy->count, n = 0;
    struct dns_policy *list = cfg_keep(r, (count + 1) * sizeof(*list));

    for (size_t i = 0; i < count && list != NULL; i++) {
        const struct cfg_pair *p = &d->policy->pairs[i];
        size_t before = cfg_enter_key(r, "dns.nameserver-policy");

        list[n].pattern = keep_pattern(r, p->key);
        cfg_enter_key(r, p->key->text);
        if (p->value->kind == CFG_LIST)
            take_nameservers(r, d, p->value->items, p->value->count, &list[n].servers);
        else
            take_nameservers(r, d, &p->value, 1, &list[n].servers);
        n += list[n].pattern != NULL && list[n].servers.n > 0;
        cfg_leave(r, before);
    }
    r->config->dns.policies = list;
    r->config->dns.n_policies = n;
}

/* Those of the proxies' names are asked before anything else works: directly. Plain addresses find the names of the others, or, with
 * no others, all. */
static void take_proxy_server(struct cfg_read *r, const struct cfg_node *v,
                              const struct dns_nameserver *server, struct dns_nameserver *others)
{
    struct dns_settings *s = &r->config->dns;
    bool plain = server->transport == DNS_OVER_UDP;

    if (server->target != CONFIG_TARGET_DIRECT)
        cfg_error(r, v,
                  "is asked for the names of proxies, so it cannot be asked through one; "
                  "leave out what stands behind #");
    else if (plain ? s->n_proxy_servers == RESOLVER_SERVERS_MAX
                   : s->proxy_nameservers.n == DNS_NAMESERVERS_MAX)
        cfg_error(r, v, "more than %d %s; remove some", plain ? RESOLVER_SERVERS_MAX : DNS_NAMESERVERS_MAX,
                  plain ? "plain addresses" : "name servers");
    else if (plain)
        s->proxy_servers[s->n_proxy_servers++] = (struct ip_port){ server->at.addr, server->at.port };
    else
        others[s->proxy_nameservers.n++] = *server;
}

static void take_proxy_servers(struct cfg_read *r, struct cfg_dns *d, const char *key,
                               const struct cfg_nodes *nodes, struct dns_nameserver *others)
{
    for (size_t i = 0; i < nodes->count; i++) {
        size_t before = cfg_enter_key(r, key);
        struct dns_nameserver server;

        cfg_enter_index(r, i);
        if (take_nameserver(r, d, nodes->list[i], &server))
            take_proxy_server(r, nodes->list[i], &server, others);
        cfg_leave(r, before);
    }
}

static bool stands_before(const struct cfg_node *a, const struct cfg_node *b)
{
    return a->line < b->line || (a->line == b->line && a->column < b->column);
}

/* By two names, the second is mihomo's: in the file's order, and a mistake is told by the one that it stands under. */
static void finish_proxy_servers(struct cfg_read *r, struct cfg_dns *d)
{
    struct dns_nameserver *others = cfg_keep(r, DNS_NAMESERVERS_MAX * sizeof(*others));

    struct {
        const char *key;
        const struct cfg_nodes *nodes;
    } lists[] = { { "dns.proxy-server-nameserver", &d->proxy_servers },
                  { "dns.default-nameserver", &d->default_servers } };
    bool other_first = d->default_servers.count > 0 && d->proxy_servers.count > 0 &&
                       stands_before(d->default_servers.list[0], d->proxy_servers.list[0]);

    for (size_t i = 0; i < ARRAY_LEN(lists) && others != NULL; i++) {
        size_t k = other_first ? ARRAY_LEN(lists) - 1 - i : i;

        take_proxy_servers(r, d, lists[k].key, lists[k].nodes, others);
    }
    r->config->dns.proxy_nameservers.list = others;
}

/* ---- hosts ------------------------------------------------------------------------------------------------------------ */

static void take_host_addrs(struct cfg_read *r, const struct cfg_node *v, struct dns_host *out)
{
    size_t count = v->kind == CFG_LIST ? v->count : 1;
    char quoted[CFG_QUOTED_MAX];

    for (size_t i = 0; i < count; i++) {
        const struct cfg_node *item = v->kind == CFG_LIST ? v->items[i] : v;

        if (item->kind != CFG_SCALAR)
            cfg_wrong_kind(r, item, "an address");
        else if (out->n == DNS_HOST_ADDRS_MAX)
            cfg_error(r, item, "more than %d addresses; remove some", DNS_HOST_ADDRS_MAX);
        else if (ip_parse(item->text, &out->addrs[out->n]) == 0)
            out->n++;
        else
            cfg_error(r, item, "%s is no address; 192.168.1.1 would work", cfg_quote(item->text, quoted));
    }
}

static void finish_hosts(struct cfg_read *r, const struct cfg_dns *d)
{
    size_t count = d->hosts == NULL ? 0 : d->hosts->count, n = 0;
    struct dns_host *list = cfg_keep(r, (count + 1) * sizeof(*list));

    for (size_t i = 0; i < count && list != NULL; i++) {
        const struct cfg_pair *p = &d->hosts->pairs[i];
        size_t before = cfg_enter_key(r, "hosts");

        list[n].pattern = keep_pattern(r, p->key);
        cfg_enter_key(r, p->key->text);
        take_host_addrs(r, p->value, &list[n]);
        n += list[n].pattern != NULL && list[n].n > 0;
        cfg_leave(r, before);
    }
    r->config->dns.hosts = list;
    r->config->dns.n_hosts = n;
}

/* ---- together ---------------------------------------------------------------------------------------------------------- */

static bool prefixes_meet(const struct ip_prefix *a, const struct ip_prefix *b)
{
    return a->len < b->len ? ip_in_prefix(&b->addr, a) : ip_in_prefix(&a->addr, b);
}

/* An address may mean one thing only. */
static void check_fake_range(struct cfg_read *r, const struct ip_prefix *fake, const struct cfg_node *node,
                             const char *key)
{
    const struct config *c = r->config;
    struct cfg_node at = { .line = 0 };

    if (fake->len == 0)
        return;
    for (size_t i = 0; i < c->tun.addresses; i++) {
        if (prefixes_meet(fake, &c->tun.address[i]))
            cfg_error(r, node != NULL ? node : &at,
                      "%s: overlaps tun.address[%zu]; 198.19.0.0/16 and fdfe:dcba:9877::/64 would work", key,
                      i);
    }
    for (size_t i = 0; i < c->route.excludes; i++) {
        if (prefixes_meet(fake, &c->route.exclude[i]))
            cfg_error(r, node != NULL ? node : &at,
                      "%s: overlaps tun.route-exclude-address[%zu], so it would never come in; exclude less",
                      key, i);
    }
}

static void check_mode(struct cfg_read *r, const struct cfg_dns *d)
{
    const struct dns_settings *s = &r->config->dns;
    const struct cfg_node top = { .line = 1, .column = 1 };

    if (s->mode == DNS_MODE_REAL && s->nameservers.n == 0)
        cfg_error(r, d->mode != NULL ? d->mode : &top,
                  "dns.mode: real asks name servers, and there is none; set dns.nameserver");
    if (s->mode == DNS_MODE_FAKE_IP && s->fake4.len == 0 && s->fake6.len == 0)
        cfg_error(r, d->mode != NULL ? d->mode : &top,
                  "dns.mode: fake-ip without a range of fake addresses; set dns.fake-ip-range");
    if (s->mode == DNS_MODE_FAKE_IP) {
        check_fake_range(r, &s->fake4, d->fake[0], "dns.fake-ip-range");
        check_fake_range(r, &s->fake6, d->fake[1], "dns.fake-ip-range6");
    }
}

static void read_mode(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_dns *d = dns_of(r);

    cfg_choice.read(r, k, v, to);
    if (d != NULL && v->line > 0)
        d->mode = v;
}

void cfg_dns_finish(struct cfg_read *r)
{
    struct cfg_dns *d = dns_of(r);
    struct dns_settings *s = &r->config->dns;
    size_t before;

    if (d == NULL)
        return;
    if (d->disabled)
        s->mode = DNS_MODE_OFF;
    finish_hijack(r, d);
    finish_patterns(r, &d->filter, "dns.fake-ip-filter", &s->fake_filter);
    finish_patterns(r, &d->rebind, "dns.rebind-allow", &s->rebind_allow);
    before = cfg_enter_key(r, "dns.nameserver");
    take_nameservers(r, d, d->nameservers.list, d->nameservers.count, &s->nameservers);
    cfg_leave(r, before);
    finish_policy(r, d);
    finish_proxy_servers(r, d);
    finish_hosts(r, d);
    check_mode(r, d);
}

CFG_SCALAR_TYPE(cfg_dns_mode, "choice", "one word", read_mode);
CFG_SCALAR_TYPE(cfg_dns_enable, "`true`, `false`", "true or false", read_enable);
CFG_SCALAR_TYPE(cfg_dns_ca, "path, PEM", "a file or PEM text", read_ca);
CFG_SCALAR_TYPE(cfg_dns_range, "`none`, range", "a range of addresses, or none", read_fake_range);
CFG_LIST_TYPE(cfg_dns_hijack, "list of ADDRESS:PORT", "any:53, tcp://any:53 or an address", read_hijack);
CFG_LIST_TYPE(cfg_tun_hijack, "list of ADDRESS:PORT", "any:53, tcp://any:53 or an address", read_tun_hijack);
CFG_LIST_TYPE(cfg_dns_filter, "list of patterns", "a pattern of names such as +.example.org", read_filter);
CFG_LIST_TYPE(cfg_dns_rebind, "list of patterns", "a pattern of names such as +.example.org", read_rebind);
CFG_LIST_TYPE(cfg_dns_types, "list of types", "a type such as HTTPS", read_block_type);
CFG_LIST_TYPE(cfg_dns_servers, "list of servers", "a name server such as tls://192.0.2.53#proxy",
              read_nameserver);
CFG_LIST_TYPE(cfg_dns_proxy_servers, "list of servers", "a name server such as tls://192.0.2.53",
              read_proxy_server);
CFG_LIST_TYPE(cfg_dns_default_servers, "list of servers", "a name server such as tls://192.0.2.53",
              read_default_server);
CFG_MAP_TYPE(cfg_dns_policy, "map of servers by pattern", "a map of name servers by pattern", read_policy);
CFG_MAP_TYPE(cfg_dns_hosts, "map of addresses by pattern", "a map of addresses by name", read_hosts);
CFG_LIST_TYPE(cfg_sniff_ports, "list of ports", "a port such as 443, 8000-8999, or none", read_ports);
