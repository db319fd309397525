/* hev.c - a file of hev-socks5-tunnel (`tunnel` and `socks5` at the top level) becomes a tree of ours.
 *
 * How it works. Its keys are read against a schema of their own, with that program's units and defaults; then the same is said in our
 * keys, and everything behind this file sees those. A value that was taken over keeps its line, so a mistake in it is still found
 * there. What we cannot do is an error or a warning that names it; nothing is passed over in silence. */
#include "hev.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TREE_PAIRS_MAX 16 /* of one map: more than any that is made here */
#define PROXY_NAME     "socks5"

/* ---- values that are only noted --------------------------------------------------------------------------------------- */

static void note(const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    memcpy((char *)to + k->offset, &v, sizeof(v));
}

static void read_node(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    (void)r;
    note(k, v, to);
}

/* "198.18.0.1", or as older files have it, {address: 198.18.0.1, ...}. */
static void read_address(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    const struct cfg_node *address = v->kind == CFG_MAP ? cfg_map_get(v, "address") : v;

    if (address == NULL || address->kind != CFG_SCALAR)
        cfg_error(r, v, "has no address; 198.18.0.1 would work");
    else
        note(k, address, to);
}

const struct cfg_type cfg_hev_address = {
    .name = "address", .expects = "an address", .kind = CFG_SCALAR, .mixed = true, .read = read_address
};
const struct cfg_type cfg_secret_node = {
    .name = "secret", .expects = "a text", .kind = CFG_SCALAR, .mixed = true, .read = read_node
};
const struct cfg_type cfg_null_node = { .name = "`stderr`, `stdout`, path, `null`",
                                        .expects = "stderr, stdout, an absolute path or null",
                                        .kind = CFG_SCALAR,
                                        .nullable = true,
                                        .read = read_node };

static const struct {
    const char *key;
    const struct cfg_section *section;
} sections[] = {
    { "tunnel", &cfg_hev_tunnel },
    { "socks5", &cfg_hev_socks5 },
    { "mapdns", &cfg_hev_mapdns },
    { "misc", &cfg_hev_misc },
};

const struct cfg_section *cfg_hev_section(size_t i)
{
    return i < ARRAY_LEN(sections) ? sections[i].section : NULL;
}

/* ---- our tree ---------------------------------------------------------------------------------------------------------- */

struct made {
    struct cfg_read *r;
    struct cfg_node *root;
    const struct cfg_node *at; /* where values stand that have no place of their own */
};

static struct cfg_node *node_new(struct made *m, enum cfg_kind kind, const struct cfg_node *at)
{
    struct cfg_node *n = cfg_scratch(m->r, sizeof(*n));

    if (n == NULL)
        return NULL;
    *n = (struct cfg_node){ .kind = kind, .plain = true, .line = at->line, .column = at->column };
    if (kind == CFG_MAP)
        n->pairs = cfg_scratch(m->r, TREE_PAIRS_MAX * sizeof(*n->pairs));
    return (kind == CFG_MAP && n->pairs == NULL) ? NULL : n;
}

static struct cfg_node *word(struct made *m, const struct cfg_node *at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static struct cfg_node *word(struct made *m, const struct cfg_node *at, const char *fmt, ...)
{
    struct cfg_node *n = node_new(m, CFG_SCALAR, at);
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n == NULL || (n->text = cfg_copy_text(m->r->scratch, text, strlen(text))) == NULL) {
        m->r->no_memory = true;
        return NULL;
    }
    n->count = (uint32_t)strlen(text);
    return n;
}

static struct cfg_node *list_of(struct made *m, const struct cfg_node *const *items, size_t n)
{
    struct cfg_node *list = node_new(m, CFG_LIST, m->at);
    struct cfg_nodes own = { NULL };

    for (size_t i = 0; i < n; i++)
        cfg_nodes_push(m->r, &own, items[i]);
    if (list != NULL) {
        list->items = own.list;
        list->count = (uint32_t)own.count;
    }
    return list;
}

static void put(struct made *m, struct cfg_node *map, const char *key, const struct cfg_node *value)
{
    const struct cfg_node *name = word(m, m->at, "%s", key);

    if (map != NULL && name != NULL && value != NULL && map->count < TREE_PAIRS_MAX)
        map->pairs[map->count++] = (struct cfg_pair){ name, value };
}

static struct cfg_node *put_map(struct made *m, struct cfg_node *in, const char *key)
{
    struct cfg_node *map = node_new(m, CFG_MAP, m->at);

    put(m, in, key, map);
    return map;
}

#define PUT(m, map, key, ...) put((m), (map), (key), word((m), (m)->at, __VA_ARGS__))

/* ---- what their words are in ours ----------------------------------------------------------------------------------------- */

static void put_tun(struct made *m, const struct cfg_hev *h)
{
    struct cfg_node *tun = put_map(m, m->root, "tun"), *log = put_map(m, m->root, "log");
    static const char *const levels[] = {
        [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARNING] = "warning", [LOG_ERROR] = "error"
    };
    const struct cfg_node *address[2];
    size_t n = 0;

    if (h->ipv4 != NULL)
        address[n++] = word(m, h->ipv4, "%s/32", h->ipv4->text);
    if (h->ipv6 != NULL)
        address[n++] = word(m, h->ipv6, "%s/128", h->ipv6->text);
    put(m, tun, "name", h->name != NULL ? h->name : word(m, m->at, "tun0"));
    PUT(m, tun, "mtu", "%u", (unsigned)h->mtu);
    put(m, tun, "address", list_of(m, address, n));
    PUT(m, log, "level", "%s", levels[h->log_level]);
    if (h->log_file != NULL)
        put(m, log, "output",
            strcmp(h->log_file->text, "null") == 0 ? word(m, h->log_file, "/dev/null") : h->log_file);
}

static void put_stack(struct made *m, const struct cfg_hev *h)
{
    struct cfg_node *stack = put_map(m, m->root, "stack"), *limits = put_map(m, m->root, "limits");
    struct cfg_node *tcp = put_map(m, stack, "tcp"), *udp = put_map(m, stack, "udp");
    uint32_t tcp_ms = h->tcp_ms != 0 ? h->tcp_ms : h->both_ms != 0 ? h->both_ms : 300000;
    uint32_t udp_ms = h->udp_ms != 0 ? h->udp_ms : h->both_ms != 0 ? h->both_ms : 60000;

    PUT(m, put_map(m, stack, "icmp"), "echo", "%s", h->ping ? "reply" : "drop");
    PUT(m, tcp, "connect-timeout", "%ums", (unsigned)h->connect_ms);
    PUT(m, tcp, "idle-timeout", "%ums", (unsigned)tcp_ms);
    PUT(m, tcp, "half-close-timeout", "%ums", (unsigned)tcp_ms);
    PUT(m, udp, "idle-timeout", "%ums", (unsigned)udp_ms);
    if (h->sessions == 0)
        return;
    PUT(m, limits, "tcp", "%u", (unsigned)h->sessions);
    PUT(m, limits, "udp", "%u", (unsigned)h->sessions);
}

/* strtoul with base 0, as they read it; 0 is none. */
static void put_mark(struct made *m, struct cfg_node *tun, const struct cfg_node *v)
{
    size_t before = cfg_enter_key(m->r, "socks5.mark");
    char quoted[CFG_QUOTED_MAX], *end;
    unsigned long mark;

    errno = 0;
    mark = strtoul(v->text, &end, 0);
    if (v->text[0] < '0' || v->text[0] > '9' || *end != '\0' || errno != 0 || mark > UINT32_MAX)
        cfg_error(m->r, v, "%s is no mark; a number such as 438 or 0x1b6 would work",
                  cfg_quote(v->text, quoted));
    else if (mark != 0)
        put(m, tun, "routing-mark", word(m, v, "0x%lx", mark));
    cfg_leave(m->r, before);
}

static void put_proxy(struct made *m, const struct cfg_hev *h)
{
    struct cfg_node *proxy = node_new(m, CFG_MAP, m->at);
    const struct cfg_node *list[1] = { proxy }, *rules[1] = { word(m, m->at, "MATCH," PROXY_NAME) };

    PUT(m, proxy, "name", PROXY_NAME);
    PUT(m, proxy, "type", "socks5");
    put(m, proxy, "server", h->server);
    PUT(m, proxy, "port", "%u", (unsigned)h->port);
    PUT(m, proxy, "udp", "%s", h->udp ? "true" : "over-tcp");
    PUT(m, proxy, "pipelining", "%s", h->pipeline ? "true" : "false");
    PUT(m, proxy, "tcp-fast-open", "%s", h->fast_open ? "true" : "false");
    put(m, proxy, "username", h->username);
    put(m, proxy, "password", h->password);
    put(m, m->root, "proxies", list_of(m, list, 1));
    put(m, m->root, "rules", list_of(m, rules, 1));
}

/* The bits of "255.192.0.0" from the left; 0: it is no mask. */
static unsigned mask_length(const char *text)
{
    struct in_addr mask;
    uint32_t inverse;

    if (inet_pton(AF_INET, text, &mask) != 1)
        return 0;
    inverse = ~ntohl(mask.s_addr);
    if ((inverse & (inverse + 1)) != 0)
        return 0;
    return inverse == 0 ? 32 : (unsigned)__builtin_clz(inverse);
}

/* They answer A alone, and forget with the process. */
static void put_dns(struct made *m, const struct cfg_hev *h)
{
    struct cfg_node *dns = put_map(m, m->root, "dns");
    unsigned length = mask_length(h->dns_netmask->text);
    size_t before = cfg_enter_key(m->r, "mapdns.netmask");

    if (length == 0)
        cfg_error(m->r, h->dns_netmask, "is no mask of a network; 255.192.0.0 would work");
    cfg_leave(m->r, before);
    PUT(m, dns, "mode", "fake-ip");
    put(m, dns, "hijack", word(m, h->dns_address, "%s:%u", h->dns_address->text, (unsigned)h->dns_port));
    if (length != 0)
        put(m, dns, "fake-ip-range", word(m, h->dns_network, "%s/%u", h->dns_network->text, length));
    PUT(m, dns, "fake-ip-range6", "none");
    PUT(m, dns, "fake-ip-filter", "none");
    PUT(m, dns, "fake-ip-store", "false");
}

/* ---- a file of theirs ------------------------------------------------------------------------------------------------------ */

static void check_login(struct cfg_read *r, const struct cfg_hev *h)
{
    const struct cfg_node *one = h->username != NULL ? h->username : h->password;
    size_t before = cfg_enter_key(r, "socks5");

    if ((h->username == NULL) != (h->password == NULL))
        cfg_error(r, one, "has only one of username and password; write both, or none");
    if (h->udp_address != NULL && h->udp_address->text[0] != '\0')
        cfg_error(r, h->udp_address,
                  "udp-address is not supported; datagrams go where the server says, so leave it out, or let "
                  "the server announce that address");
    cfg_leave(r, before);
}

static void read_sections(struct cfg_read *r, const struct cfg_node *root, struct cfg_hev *h)
{
    for (size_t i = 0; i < ARRAY_LEN(sections); i++) {
        size_t before = cfg_enter_key(r, sections[i].key);

        cfg_read_section(r, sections[i].section, cfg_map_get(root, sections[i].key), h);
        cfg_leave(r, before);
    }
}

static bool is_theirs(const char *key)
{
    for (size_t i = 0; i < ARRAY_LEN(sections); i++) {
        if (strcmp(sections[i].key, key) == 0)
            return true;
    }
    return false;
}

const struct cfg_node *cfg_hev_tree(struct cfg_read *r, const struct cfg_node *root)
{
    const struct cfg_node *tunnel = cfg_map_get(root, "tunnel"), *socks5 = cfg_map_get(root, "socks5");
    struct made m = { .r = r, .at = socks5 != NULL ? socks5 : tunnel };
    struct cfg_hev h = { 0 };

    if (m.at == NULL)
        return root;
    for (uint32_t i = 0; i < root->count; i++)
        if (!is_theirs(root->pairs[i].key->text))
            cfg_error(r, root->pairs[i].key,
                      "the key \"%.60s\" cannot stand beside \"%s\", which makes this a file of "
                      "hev-socks5-tunnel; write it anew with tun and proxies, or leave this key out",
                      root->pairs[i].key->text, tunnel != NULL ? "tunnel" : "socks5");
    if (socks5 == NULL)
        cfg_error(r, tunnel, "the key \"socks5\" is missing; a map with address and port would work");
    read_sections(r, root, &h);
    check_login(r, &h);
    m.root = node_new(&m, CFG_MAP, m.at);
    if (r->messages->errors > 0 || m.root == NULL)
        return NULL;
    put_tun(&m, &h);
    if (h.mark != NULL)
        put_mark(&m, (struct cfg_node *)cfg_map_get(m.root, "tun"), h.mark);
    put_stack(&m, &h);
    put_proxy(&m, &h);
    if (h.dns_names > 0)
        put_dns(&m, &h);
    return r->no_memory ? NULL : m.root;
}
