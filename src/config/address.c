/* address.c - values that are addresses, prefixes, interfaces and host names.
 *
 * Where a value stands is kept for the checks that need two of them at once (config.c): ranges may not overlap. */
#include "config_impl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define INTERFACE_NAME_MAX 15 /* IFNAMSIZ without its NUL */

static void *member(const struct cfg_key *k, void *to)
{
    return (char *)to + k->offset;
}

/* ---- interfaces ------------------------------------------------------------------------------------------------------ */

/* What the kernel takes as a name (dev_valid_name), less the % of its name templates. */
bool cfg_interface_valid(struct cfg_read *r, const struct cfg_node *v)
{
    char quoted[CFG_QUOTED_MAX];

    if (v->count > 0 && v->count <= INTERFACE_NAME_MAX && strcspn(v->text, "/:% \t\r\n\v\f") == v->count &&
        strcmp(v->text, ".") != 0 && strcmp(v->text, "..") != 0)
        return true;
    cfg_error(r, v, "%s is no interface name; 1 to %d bytes without space, /, : or %% would work",
              cfg_quote(v->text, quoted), INTERFACE_NAME_MAX);
    return false;
}

static void read_interface(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    if (!cfg_interface_valid(r, v))
        return;
    memcpy(member(k, to), v->text, v->count + 1);
    if (k->offset == offsetof(struct config, tun.name) && to == r->config && v->line > 0)
        r->tun_name = v;
}

/* Two keys may say the same here, in either order, but not different things. */
static bool interface_agrees(struct cfg_read *r, const struct cfg_node *v, bool automatic)
{
    if (r->interface == NULL || (automatic && r->config->route.interface_auto))
        return true;
    cfg_error(r, v, "contradicts the key on line %u; keep one of the two", (unsigned)r->interface->line);
    return false;
}

/* tun.interface-name: a name, `none`, or `auto`, which follows the default route; unset is settled in config.c. */
static void read_auto_interface(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v,
                                void *to)
{
    struct config_route *route = &r->config->route;
    bool automatic = strcmp(v->text, "auto") == 0;

    (void)k;
    (void)to;
    if (!interface_agrees(r, v, automatic))
        return;
    r->interface = v;
    route->interface_auto = automatic;
    if (!automatic && strcmp(v->text, "none") != 0 && cfg_interface_valid(r, v))
        memcpy(route->interface_name, v->text, v->count + 1);
}

/* mihomo's auto-detect-interface: true is `interface-name: auto`; false says nothing. */
static void read_detect_interface(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v,
                                  void *to)
{
    char quoted[CFG_QUOTED_MAX];

    (void)k;
    (void)to;
    if (strcmp(v->text, "true") == 0) {
        if (!interface_agrees(r, v, true))
            return;
        r->config->route.interface_auto = true;
        r->interface = v;
    } else if (strcmp(v->text, "false") != 0) {
        cfg_error(r, v, "%s is neither true nor false; write one of these", cfg_quote(v->text, quoted));
    }
}

/* ---- prefixes ---------------------------------------------------------------------------------------------------------- */

static bool read_prefix(struct cfg_read *r, const struct cfg_node *v, struct ip_prefix *out)
{
    char quoted[CFG_QUOTED_MAX];

    if (ip_prefix_parse(v->text, out) == 0)
        return true;
    cfg_error(r, v, "%s is no range of addresses; 192.168.0.0/16 or fd00::/8 would work",
              cfg_quote(v->text, quoted));
    return false;
}

/* Which place of a list of @max is free; false: the list is full, and that was said. */
static bool list_has_room(struct cfg_read *r, const struct cfg_node *v, size_t count, size_t max)
{
    if (count < max)
        return true;
    if (count == max)
        cfg_error(r, v, "more than %zu entries; remove some", max);
    return false;
}

/* An address that an interface can have, with its on-link range. */
static bool interface_address_valid(struct cfg_read *r, const struct cfg_node *v, struct ip_prefix *out)
{
    char quoted[CFG_QUOTED_MAX];

    cfg_quote(v->text, quoted);
    if (ip_interface_parse(v->text, out) != 0 || strchr(v->text, '/') == NULL)
        cfg_error(r, v, "%s is no address with a prefix length; 198.18.0.1/30 would work", quoted);
    else if (ip_is_martian(&out->addr))
        cfg_error(r, v, "%s cannot be the address of an interface; 198.18.0.1/30 would work", quoted);
    else if (out->len < (ip_is4(&out->addr) ? 96 + 8 : 16))
        cfg_error(r, v, "%s covers too many addresses; a prefix length of %s or more would work", quoted,
                  ip_is4(&out->addr) ? "8" : "16");
    else
        return true;
    return false;
}

static void read_tun_address(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct tun_options *tun = &r->config->tun;
    struct ip_prefix p;

    (void)k;
    (void)to;
    if (!list_has_room(r, v, tun->addresses, ARRAY_LEN(tun->address)) || !interface_address_valid(r, v, &p))
        return;
    r->address[tun->addresses] = v->line > 0 ? v : NULL; /* a default lives on its reader's stack */
    tun->address[tun->addresses++] = p;
}

static void read_exclude(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct config_route *route = &r->config->route;
    struct ip_prefix p;

    (void)k;
    (void)to;
    if (!list_has_room(r, v, route->excludes, CONFIG_EXCLUDES_MAX) || !read_prefix(r, v, &p))
        return;
    r->exclude[route->excludes] = v;
    route->exclude[route->excludes++] = p;
}

bool cfg_take_prefix(struct cfg_read *r, const struct cfg_node *v, struct ip_prefix *list, size_t *count,
                     size_t cap)
{
    struct ip_prefix p;

    if (!list_has_room(r, v, *count, cap) || !read_prefix(r, v, &p))
        return false;
    list[(*count)++] = p;
    return true;
}

static void read_allow(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct serve_options *serve = member(k, to);

    (void)cfg_take_prefix(r, v, serve->allow, &serve->allows, ARRAY_LEN(serve->allow));
}

/* ---- places ---------------------------------------------------------------------------------------------------------------- */

int config_parse_listen(const char *text, struct ip_port *out)
{
    const char *colon = strrchr(text, ':');
    char addr[IP_TEXT_MAX];
    struct ip_port p;
    uint64_t port;

    if (colon == NULL || (size_t)(colon - text) >= sizeof(addr))
        return -EINVAL;
    memcpy(addr, text, (size_t)(colon - text));
    addr[colon - text] = '\0';
    if (text[0] != '[' && strchr(addr, ':') != NULL) /* ::1:1080 could be an address alone */
        return -EINVAL;
    if (ip_parse(addr, &p.addr) != 0 || cfg_parse_number(colon + 1, 0, 65535, &port) != CFG_NUMBER_OK)
        return -EINVAL;
    p.port = (uint16_t)port;
    *out = p;
    return 0;
}

static void read_listen(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    char quoted[CFG_QUOTED_MAX];

    if (config_parse_listen(v->text, member(k, to)) != 0)
        cfg_error(r, v, "%s is no address with a port; 127.0.0.1:1080 or '[::1]:1080' would work",
                  cfg_quote(v->text, quoted));
    else if (v->line > 0)
        r->listen = v;
}

/* A port that the kernel chooses is none that Host could name. */
static void read_api_listen(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct ip_port *at = member(k, to);
    char quoted[CFG_QUOTED_MAX];

    if (config_parse_listen(v->text, at) != 0 || at->port == 0)
        cfg_error(r, v, "%s is no address with a port; 127.0.0.1:9090 or '[::1]:9090' would work",
                  cfg_quote(v->text, quoted));
    r->api_listen = v;
}

/* "host:port", where @host gets what `server` would take: an address without brackets. */
static bool is_host_with_port(const char *text, char host[256], uint64_t *port)
{
    const char *colon = strrchr(text, ':');
    struct ip_port both;

    if (config_parse_listen(text, &both) == 0)
        ip_text(&both.addr, host);
    else if (colon == NULL || host_name_normalise(text, (size_t)(colon - text), host) != 0 ||
             host[strspn(host, "0123456789.")] == '\0')
        return false;
    return cfg_parse_number(colon + 1, 1, 65535, port) == CFG_NUMBER_OK;
}

/* An address or a name; the port beside it is a key of its own. */
static void read_host(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct host_port *server = member(k, to);
    char name[256], quoted[CFG_QUOTED_MAX];
    uint64_t port;

    if (ip_parse(v->text, &server->addr) == 0) {
        if (ip_is_martian(&server->addr) && !ip_is_loopback(&server->addr)) /* faults.md S19 */
            cfg_error(r, v,
                      "%s is no address that a server can have; 192.0.2.10 or proxy.example.net would work",
                      cfg_quote(v->text, quoted));
        return;
    }
    if (is_host_with_port(v->text, name, &port)) {
        cfg_error(r, v, "%s: the port is a key of its own; server: %s and port: %u would work",
                  cfg_quote(v->text, quoted), name, (unsigned)port);
        return;
    }
    if (host_name_normalise(v->text, v->count, name) == 0 && strspn(name, "0123456789.") < strlen(name))
        server->name = cfg_keep_text(r, name, strlen(name));
    else
        cfg_error(r, v,
                  "%s is neither an address nor a host name; 192.0.2.10 or proxy.example.net would work",
                  cfg_quote(v->text, quoted));
}

CFG_SCALAR_TYPE(cfg_interface, "interface", "the name of an interface", read_interface);
CFG_SCALAR_TYPE(cfg_auto_interface, "`auto`, `none`, interface", "auto, none or the name of an interface",
                read_auto_interface);
CFG_SCALAR_TYPE(cfg_detect_interface, "`true`, `false`", "true or false", read_detect_interface);
CFG_LIST_TYPE(cfg_tun_addresses, "list of ADDRESS/LENGTH", "an address such as 198.18.0.1/30",
              read_tun_address);
CFG_LIST_TYPE(cfg_excludes, "list of ranges", "a range such as 192.168.0.0/16", read_exclude);
CFG_LIST_TYPE(cfg_allow, "list of ranges", "a range such as 192.168.0.0/16", read_allow);
CFG_SCALAR_TYPE(cfg_api_listen, "ADDRESS:PORT", "an address and a port, as in 127.0.0.1:9090",
                read_api_listen);
CFG_SCALAR_TYPE(cfg_listen, "ADDRESS:PORT", "an address and a port, as in 127.0.0.1:1080", read_listen);
CFG_SCALAR_TYPE(cfg_host, "address or name", "an address or a host name", read_host);
