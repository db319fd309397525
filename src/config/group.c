/* group.c - `proxy-groups` and `dialer-proxy`: what refers to other ways out by name, and the circles that this could make.
 *
 * Names are looked up when all of them are known (cfg_groups_finish()); a target's index is then the same in
 * config->upstreams, in the members of groups, and in rules. */
#include "config_impl.h"

#include <stdio.h>

#include <string.h>

#define URL_BYTES_MAX 512

/* ---- keys ----------------------------------------------------------------------------------------------------------- */

static void read_member(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_group *g = to;

    (void)k;
    if (g->members.count == GROUP_MEMBERS_MAX)
        cfg_error(r, v, "has more than %d members; a group of groups would work", GROUP_MEMBERS_MAX);
    if (g->members.count <= GROUP_MEMBERS_MAX)
        cfg_nodes_push(r, &g->members, v);
}

static void read_url(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_group *g = to;
    char quoted[CFG_QUOTED_MAX];
    struct up_http_url url;

    (void)k;
    if (v->count > URL_BYTES_MAX || up_http_url_parse(v->text, &url) != 0) {
        cfg_error(r, v, "%s cannot be fetched; http://HOST[:PORT]/PATH or https://... would work",
                  cfg_quote(v->text, quoted));
        return;
    }
    g->secure = url.secure;
    g->options.url = url.at;
    if (url.at.name != NULL)
        g->options.url.name = cfg_keep_text(r, url.host, strlen(url.host));
    g->url_at = v;
    g->options.url_path = cfg_keep_text(r, url.path, strlen(url.path));
}

static void read_strategy(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_group *g = to;

    g->strategy_at = v->line != 0 ? v : NULL;
    cfg_choice.read(r, k, v, to);
}

static void read_dialer(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_proxy *p = to;

    (void)r;
    (void)k;
    p->dialer = v;
}

/* ---- names ---------------------------------------------------------------------------------------------------------- */

int64_t cfg_target_named(struct cfg_read *r, const struct cfg_node *at)
{
    int64_t index = cfg_target_find(r, at->text);
    const char *nearest = index < 0 ? cfg_target_nearest(r, at->text) : NULL;
    char quoted[CFG_QUOTED_MAX];

    if (index >= 0)
        return index;
    cfg_quote(at->text, quoted);
    if (nearest != NULL)
        cfg_error(r, at, "no proxy or group is called %s; did you mean \"%s\"?", quoted, nearest);
    else
        cfg_error(
            r, at,
            "no proxy or group is called %s; a name from proxies or proxy-groups, or DIRECT, would work",
            quoted);
    return -1;
}

static bool is_reject(int64_t index)
{
    return index == CONFIG_TARGET_REJECT || index == CONFIG_TARGET_REJECT_DROP;
}

static void check_member(struct cfg_read *r, const struct cfg_group *g, const uint32_t *members, uint32_t n,
                         const struct cfg_node *at)
{
    for (uint32_t i = 0; i + 1 < n; i++) {
        if (members[i] == members[n - 1])
            cfg_error(r, at, "is there twice; once is enough");
    }
    if (is_reject(members[n - 1]) && g->options.kind != GROUP_SELECT)
        cfg_error(r, at, "only a select group can have REJECT or REJECT-DROP as a member; leave it out");
}

static void find_members(struct cfg_read *r, struct cfg_group *g)
{
    uint32_t *members = cfg_keep(r, (g->members.count + 1) * sizeof(*members)), n = 0;
    size_t before = cfg_enter_key(r, "proxies");

    for (size_t i = 0; members != NULL && i < g->members.count; i++) {
        size_t inner = cfg_enter_index(r, i);
        int64_t index = cfg_target_named(r, g->members.list[i]);

        if (index >= 0) {
            members[n++] = (uint32_t)index;
            check_member(r, g, members, n, g->members.list[i]);
        }
        cfg_leave(r, inner);
    }
    cfg_leave(r, before);
    g->options.members = members;
    g->options.member_count = n;
}

static void find_dialer(struct cfg_read *r, const struct cfg_proxy *p, struct upstream_options *up)
{
    size_t before = cfg_enter_key(r, "dialer-proxy");
    int64_t index = cfg_target_named(r, p->dialer);

    if (is_reject(index))
        cfg_error(r, p->dialer, "leads nowhere; the name of a proxy or a group would work");
    else if (index > CONFIG_TARGET_REJECT_DROP)
        up->dialer = 1 + (uint32_t)index;
    if (up->dialer != 0 && (up->interface_name[0] != '\0' || up->routing_mark != 0))
        cfg_error(r, p->dialer,
                  "the socket is that of %.100s, so interface-name and routing-mark belong there; leave them "
                  "out here",
                  p->dialer->text);
    if (up->dialer != 0 && up->udp == UPSTREAM_UDP_ON && up->kind != UPSTREAM_MASQUE)
        cfg_error(r, p->dialer,
                  "datagrams do not follow a dialer-proxy; udp: over-tcp, auto or false would work");
    cfg_leave(r, before);
}

/* ---- circles -------------------------------------------------------------------------------------------------------- */

struct circle {
    struct cfg_read *r;
    uint8_t *mark; /* of each target: 1 on the way down, 2 done */
    bool found;
    size_t first_group; /* target */
};

static void walk(struct circle *c, size_t i);

/* One step from a target to what it names at @at. */
static void step(struct circle *c, size_t to, const struct cfg_node *at)
{
    const struct upstream_options *ups = c->r->config->upstreams;
    char quoted[CFG_QUOTED_MAX];

    if (c->mark[to] == 1 && !c->found) {
        c->found = true;
        cfg_error(c->r, at, "goes round in a circle: %s leads back here; take one of them out",
                  cfg_quote(ups[to].name, quoted));
    }
    if (c->mark[to] == 0)
        walk(c, to);
}

static void walk(struct circle *c, size_t i)
{
    const struct upstream_options *up = &c->r->config->upstreams[i];
    const struct cfg_proxy *p =
        i >= CONFIG_TARGET_FIRST_PROXY ? cfg_proxy_at(c->r, i - CONFIG_TARGET_FIRST_PROXY) : NULL;
    const struct cfg_group *g = cfg_group_of(c->r, i);
    size_t before = c->r->path_len;

    c->mark[i] = 1;
    if (p != NULL && up->dialer != 0) {
        cfg_leave(c->r, 0);
        cfg_enter_key(c->r, "proxies");
        cfg_enter_index(c->r, i - CONFIG_TARGET_FIRST_PROXY);
        step(c, up->dialer - 1, p->dialer);
    }
    for (uint32_t k = 0; g != NULL && k < g->options.member_count; k++) {
        cfg_leave(c->r, 0);
        cfg_enter_key(c->r, "proxy-groups");
        cfg_enter_index(c->r, i - c->first_group);
        step(c, g->options.members[k], g->members.list[k]);
    }
    cfg_leave(c->r, before);
    c->mark[i] = 2;
}

static void check_circles(struct cfg_read *r)
{
    struct circle c = { .r = r,
                        .mark = cfg_scratch(r, r->config->upstream_count),
                        .first_group = CONFIG_TARGET_FIRST_PROXY };

    while (cfg_proxy_at(r, c.first_group - CONFIG_TARGET_FIRST_PROXY) != NULL)
        c.first_group++;
    for (size_t i = 0; c.mark != NULL && i < r->config->upstream_count; i++) {
        c.found = false;
        if (c.mark[i] == 0)
            walk(&c, i);
    }
}

/* ---- the end of it -------------------------------------------------------------------------------------------------------- */

static void finish_group(struct cfg_read *r, struct cfg_group *g)
{
    if (g->strategy_at != NULL && g->options.kind != GROUP_LOAD_BALANCE)
        cfg_error(r, g->strategy_at, "strategy belongs to type load-balance; leave it out");
    if (g->members.count == 0 && g->at != NULL)
        cfg_error(r, g->at, "has no members; proxies: [...] names them");
    find_members(r, g);
    if (g->secure && g->url_at != NULL && r->messages->errors == 0)
        g->options.tls = cfg_tls_usual(r, g->url_at);
}

void cfg_groups_finish(struct cfg_read *r, struct upstream_options *ups, size_t errors)
{
    const struct cfg_proxy *p;
    struct cfg_group *g;

    for (size_t i = 0; (p = cfg_proxy_at(r, i)) != NULL; i++) {
        size_t before = cfg_enter_key(r, "proxies");

        cfg_enter_index(r, i);
        if (p->dialer != NULL)
            find_dialer(r, p, &ups[CONFIG_TARGET_FIRST_PROXY + i]);
        cfg_leave(r, before);
    }
    for (size_t i = 0; (g = cfg_group_at(r, i)) != NULL; i++) {
        size_t before = cfg_enter_key(r, "proxy-groups");

        cfg_enter_index(r, i);
        finish_group(r, g);
        cfg_leave(r, before);
    }
    if (r->messages->errors == errors)
        check_circles(r);
}

const struct cfg_type cfg_group_members = { .name = "list of names",
                                            .expects = "the name of a proxy or a group",
                                            .kind = CFG_SCALAR,
                                            .list = true,
                                            .read = read_member };
const struct cfg_type cfg_group_url = { .name = "URL",
                                        .expects = "a URL such as http://cp.example.net/generate_204",
                                        .kind = CFG_SCALAR,
                                        .read = read_url };
const struct cfg_type cfg_group_strategy = {
    .name = "choice", .expects = "one word", .kind = CFG_SCALAR, .read = read_strategy
};
const struct cfg_type cfg_dialer = {
    .name = "name", .expects = "the name of a proxy or a group", .kind = CFG_SCALAR, .read = read_dialer
};
