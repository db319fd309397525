/* config.c - a load from end to end, and the checks that need two sections at once. */
#include "config_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MARK_AUTO    0x1b6
#define IPV6_MTU_MIN 1280 /* RFC 8200 section 5 */

/* ---- checks across sections -------------------------------------------------------------------------------------- */

static bool overlap(const struct ip_prefix *a, const struct ip_prefix *b)
{
    return a->len < b->len ? ip_in_prefix(&b->addr, a) : ip_in_prefix(&a->addr, b);
}

/* Host bits cleared: the on-link range of an interface's address. */
static struct ip_prefix range_of(const struct ip_prefix *address)
{
    struct ip_prefix p = *address;

    for (unsigned bit = p.len; bit < 128; bit++)
        p.addr.b[bit / 8] &= (uint8_t) ~(0x80u >> (bit % 8));
    return p;
}

/* "10.0.0.1 on line 3": an address of the TUN and where it is said; a default has no line. */
static const char *tun_address_text(const struct cfg_read *r, size_t i, char out[96])
{
    const struct cfg_node *at = r->address[i];
    char addr[IP_TEXT_MAX];

    ip_text(&r->config->tun.address[i].addr, addr);
    if (at == NULL)
        snprintf(out, 96, "%s, a default", addr);
    else
        snprintf(out, 96, "%s on line %u", addr, (unsigned)at->line);
    return out;
}

static void check_tun_address(struct cfg_read *r, size_t i)
{
    const struct tun_options *tun = &r->config->tun;
    struct ip_prefix range = range_of(&tun->address[i]);
    char other_text[96];

    for (size_t j = 0; j < i; j++) {
        struct ip_prefix other = range_of(&tun->address[j]);

        if (!overlap(&range, &other))
            continue;
        cfg_error(r, r->address[i], "tun.address[%zu]: its range overlaps that of %s; give each its own", i,
                  tun_address_text(r, j, other_text));
        return;
    }
}

static void check_exclude(struct cfg_read *r, size_t i)
{
    const struct tun_options *tun = &r->config->tun;
    char address[96];

    for (size_t j = 0; j < tun->addresses; j++) {
        struct ip_prefix range = range_of(&tun->address[j]);

        if (!overlap(&range, &r->config->route.exclude[i]))
            continue;
        cfg_error(r, r->exclude[i],
                  "tun.route-exclude-address[%zu]: overlaps tun.address (%s); exclude less, or set another "
                  "tun.address",
                  i, tun_address_text(r, j, address));
        return;
    }
}

static void check_ranges(struct cfg_read *r)
{
    for (size_t i = 0; i < r->config->tun.addresses; i++)
        check_tun_address(r, i);
    for (size_t i = 0; i < r->config->route.excludes; i++)
        check_exclude(r, i);
}

/* A proxy inside the TUN's own range could only be reached through itself (faults.md S19). */
static void check_proxy_servers(struct cfg_read *r)
{
    const struct tun_options *tun = &r->config->tun;
    const struct cfg_proxy *p;

    for (size_t i = 0; (p = cfg_proxy_at(r, i)) != NULL; i++) {
        const struct host_port *server = &p->options.server;

        for (size_t j = 0; j < tun->addresses && server->name == NULL && !ip_is_none(&server->addr); j++) {
            struct ip_prefix range = range_of(&tun->address[j]);

            if (p->at != NULL && ip_in_prefix(&server->addr, &range))
                cfg_error(r, p->at,
                          "proxies[%zu].server: lies inside tun.address, so it could never be reached", i);
        }
    }
}

static void check_mtu(struct cfg_read *r)
{
    const struct tun_options *tun = &r->config->tun;

    for (size_t i = 0; i < tun->addresses && r->mtu != NULL; i++) {
        if (ip_is4(&tun->address[i].addr) || tun->mtu >= IPV6_MTU_MIN)
            continue;
        cfg_error(r, r->mtu, "tun.mtu: IPv6 needs %d or more; raise it, or set tun.address without IPv6",
                  IPV6_MTU_MIN);
        return;
    }
}

static void check_adopted(struct cfg_read *r)
{
    if (r->fd == NULL)
        return;
    if (r->tun_name != NULL)
        cfg_error(r, r->tun_name,
                  "tun.name: an adopted descriptor (tun.fd, line %u) has its name already; "
                  "keep one of the two",
                  (unsigned)r->fd->line);
}

/* A server that anybody can reach and use is found within hours. */
static void check_open_server(struct cfg_read *r)
{
    const struct serve_options *s = &r->config->serve;

    if (r->listen != NULL && s->user_count == 0 && !ip_is_loopback(&s->listen.addr))
        cfg_warning(r, r->listen,
                    "serve.socks5.listen: whoever reaches this address may use it; set serve.socks5.users");
}

/* faults.md A3: an open control port on an address that others reach is how the Clash family was taken over in 2025. */
static void check_api(struct cfg_read *r)
{
    const struct config *c = r->config;

    if (c->api.listen.port != 0 && c->api.secret == NULL && !ip_is_loopback(&c->api.listen.addr))
        cfg_error(
            r, r->api_listen,
            "api.listen: others can reach this address, and there is no api.secret; set one, or listen on "
            "127.0.0.1");
}

/* What `auto` means for our own sockets: with auto-route they must be told from the traffic that enters the TUN. */
static void settle_route(struct cfg_read *r)
{
    struct config_route *route = &r->config->route;

    if (route->auto_route && route->mark == 0)
        route->mark = MARK_AUTO;
    if (r->interface == NULL)
        route->interface_auto = route->auto_route;
}

/* Whoever is told to ask us needs an answer. */
static void check_system_dns(struct cfg_read *r, const struct cfg_node *root)
{
    const struct cfg_node *at = cfg_map_get(cfg_map_get(root, "tun"), "system-dns");

    if (!r->config->route.system_dns || at == NULL)
        return;
    if (!r->config->route.auto_route)
        cfg_error(r, at, "tun.system-dns: needs tun.auto-route; set both or none");
    else if (r->config->dns.mode == DNS_MODE_OFF)
        cfg_error(r, at, "tun.system-dns: nobody would answer with dns.mode off; real or fake-ip would work");
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

static int tree_of(struct cfg_read *r, const char *text, size_t len, const struct cfg_node **root)
{
    struct cfg_node at = { .line = 1, .column = 1 };
    struct err err;
    int e;

    if (len > CFG_FILE_MAX) {
        cfg_error(r, &at, "the text has %zu bytes; the most that is read is %zu", len, CFG_FILE_MAX);
        return -EINVAL;
    }
    if (!cfg_check_text(text, len, &at.line, &at.column, &err)) {
        cfg_error(r, &at, "%s", err.text);
        return -EINVAL;
    }
    if (len >= 3 && memcmp(text, "\357\273\277", 3) == 0) { /* libyaml would count the mark as a column */
        text += 3;
        len -= 3;
    }
    e = cfg_tree(text, len, r->scratch, r->messages, root);
    if (e == 0 && (*root == NULL || cfg_is_null(*root) ||
                   ((*root)->kind == CFG_MAP && (*root)->count == 0 && r->messages->errors == 0))) {
        at.line = at.column = 1;
        cfg_error(r, &at, "nothing configured; docs/config.md has a first file of ten lines");
        return -EINVAL;
    }
    return e;
}

static void read_tree(struct cfg_read *r, const struct cfg_node *root)
{
    struct config *c = r->config;
    bool wanted = cfg_map_get(root, "tun") != NULL || cfg_map_get(root, "proxies") != NULL ||
                  cfg_map_get(root, "rules") != NULL;

    cfg_read_section(r, &cfg_schema, root, c);
    cfg_proxies_finish(r);
    if (!r->no_memory)
        cfg_rates_finish(r);
    if (!r->no_memory)
        cfg_dns_finish(r);
    if (!r->no_memory)
        cfg_providers_finish(r);
    if (!r->no_memory)
        cfg_rules_finish(r, wanted);
    c->stack.mtu_bytes = c->tun.mtu;
    c->has_tun = cfg_map_get(root, "tun") != NULL;
    c->has_serve = cfg_map_get(cfg_map_get(root, "serve"), "socks5") != NULL;
    check_ranges(r);
    check_proxy_servers(r);
    check_mtu(r);
    check_adopted(r);
    check_system_dns(r, root);
    check_open_server(r);
    check_api(r);
    if (!r->no_memory)
        cfg_masque_finish(r);
    settle_route(r);
}

static void struct_defaults(struct config *c)
{
    stack_config_defaults(&c->stack);
    c->stack.echo_endpoint_shadows = false; /* a ping of ours must not hide a client's (icmp.md 2.3) */
    forward_options_defaults(&c->forward);
    c->tun.fd = -1;
    c->tun.txqueuelen = 4096; /* tun.h, STR-5 */
    c->serve.connect_timeout_ms = 10000;
    c->serve.max_streams = SERVE_STREAMS_DEFAULT;
}

/* "dir/file.yaml": "dir/"; no folder: "". */
static const char *folder_of(struct cfg_read *r, const char *name)
{
    const char *slash = strrchr(name, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - name) + 1;
    char *folder = cfg_scratch(r, len + 1);

    return folder == NULL ? "" : memcpy(folder, name, len);
}

static int load_begin(struct cfg_read *r, const char *name, struct config_messages *messages)
{
    *r = (struct cfg_read){ .messages = messages };
    r->store = cfg_store_new();
    r->scratch = cfg_store_new();
    if (messages->file == NULL)
        messages->file = strdup(name);
    if (r->store == NULL || r->scratch == NULL || messages->file == NULL)
        return -ENOMEM;
    r->config = cfg_keep(r, sizeof(*r->config));
    if (r->config == NULL)
        return -ENOMEM;
    r->config->store = r->store; /* config_free() does from here on */
    r->folder = folder_of(r, name);
    if (r->no_memory)
        return -ENOMEM;
    struct_defaults(r->config);
    return 0;
}

/* @e: what happened so far. The configuration leaves only when there was no error at all. */
static int load_end(struct cfg_read *r, int e, struct config **out)
{
    if (r->no_memory)
        e = -ENOMEM;
    else if (e == 0 && (r->messages->errors > 0 || r->config->rules == NULL))
        e = -EINVAL;
    cfg_messages_sort(r->messages);
    cfg_store_free(r->scratch);
    if (e == 0)
        *out = r->config;
    else if (r->config != NULL)
        config_free(r->config);
    else
        cfg_store_free(r->store);
    return e;
}

/* @mode: of the file; 0: it is none. */
static int load_text(const char *text, size_t len, const char *name, unsigned mode, struct config **out,
                     struct config_messages *messages)
{
    const struct cfg_node *root = NULL;
    struct cfg_read r;
    int e = load_begin(&r, name, messages);

    if (e == 0)
        e = tree_of(&r, text, len, &root);
    if (e == 0 && (root = cfg_hev_tree(&r, root)) != NULL)
        read_tree(&r, root);
    if (e == 0 && r.secret_inside != NULL && (mode & S_IROTH))
        cfg_warning(&r, r.secret_inside,
                    "a secret in a file that every user of the machine can read; "
                    "chmod o-r would help, or {file: PATH}");
    return load_end(&r, e, out);
}

int config_load_text(const char *text, size_t len, const char *name, struct config **out,
                     struct config_messages *messages)
{
    return load_text(text, len, name, 0, out, messages);
}

/* A message about the file as a whole. */
static void file_message(const char *path, struct config_messages *messages, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void file_message(const char *path, struct config_messages *messages, const char *fmt, ...)
{
    va_list ap;

    if (messages->file == NULL)
        messages->file = strdup(path);
    va_start(ap, fmt);
    cfg_message(messages, false, 0, 0, "", fmt, ap);
    va_end(ap);
}

int config_load_file(const char *path, struct config **out, struct config_messages *messages)
{
    unsigned mode;
    struct err err;
    size_t len;
    char *text;
    int e = cfg_read_file(path, CFG_FILE_MAX, &text, &len, &mode, &err);

    if (e == -ENOMEM)
        return e;
    cfg_note_refused(messages, e, path);
    if (e != 0) {
        file_message(path, messages, "%s", err.text);
        return e;
    }
    e = load_text(text, len, path, mode, out, messages);
    explicit_bzero(text, len);
    free(text);
    return e;
}

int config_from_proxy_url(const char *url, struct config **out, struct config_messages *messages)
{
    struct cfg_node root = { .kind = CFG_MAP }, match = { .kind = CFG_SCALAR, .plain = true },
                    at = { .line = 0 };
    const struct cfg_proxy *p = NULL;
    struct cfg_read r;
    size_t size;
    char *rule;
    int e = load_begin(&r, "--proxy", messages);

    if (e != 0)
        return load_end(&r, e, out);
    p = cfg_proxy_url(&r, url, &at);
    size = p == NULL ? 0 : strlen(p->options.name) + sizeof("MATCH,");
    rule = p == NULL ? NULL : cfg_scratch(&r, size);
    if (rule != NULL) {
        snprintf(rule, size, "MATCH,%s", p->options.name);
        match.text = rule;
        match.count = (uint32_t)strlen(rule);
        cfg_nodes_push(&r, &r.rules, &match);
        read_tree(&r, &root);
        r.config->has_tun = true;
        r.config->route.auto_route = true;
        settle_route(&r);
    }
    return load_end(&r, 0, out);
}

void config_free(struct config *c)
{
    struct config_store *store;

    if (c == NULL)
        return;
    rules_unref(c->rules);
    for (size_t i = 0; i < c->provider_count; i++)
        rule_set_unref(c->providers[i].set);
    rule_geo_unref(c->geo[RULE_GEO_COUNTRY]);
    rule_geo_unref(c->geo[RULE_GEO_ASN]);
    cfg_release(c);
    store = c->store; /* which holds c itself */
    cfg_store_free(store);
}
