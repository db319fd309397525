/* gateway_net.c - what the gateway follows of the system's network: its TUN device, the uplink, and its own routes.
 * Marks and devices of our sockets come from here, so that our own traffic never comes back through the TUN (faults.md E1). */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway_impl.h"
#include "helper.h"

#define UPLINK_SETTLE_US 50000 /* one look for a burst of netlink events */

/* ---- addresses --------------------------------------------------------------------------------------------------- */

struct ip_prefix gateway_network_of(const struct ip_prefix *address)
{
    struct ip_prefix net = *address;

    for (unsigned bit = net.len; bit < 128; bit++)
        net.addr.b[bit / 8] &= (uint8_t) ~(0x80u >> bit % 8);
    return net;
}

/* The first address behind the network's own that the kernel does not hold; none in a /31, /32, /127 or /128 without room. */
static struct ip_addr neighbour_of(const struct ip_prefix *address)
{
    struct ip_prefix net = gateway_network_of(address);
    struct ip_addr candidate = net.addr;

    if (net.len >= 127)
        return (struct ip_addr){ 0 };
    for (int i = 0; i < 2; i++) {
        candidate.b[15]++; /* at most two steps from a multiple of four: no carry */
        if (!ip_equal(&candidate, &address->addr))
            return candidate;
    }
    return (struct ip_addr){ 0 };
}

void gateway_stack_addresses(const struct tun_options *tun, struct ip_addr out[2], uint8_t out_len[2])
{
    memset(out, 0, 2 * sizeof(*out));
    for (size_t i = 0; i < tun->addresses; i++) {
        size_t family = ip_is4(&tun->address[i].addr) ? 0 : 1;

        if (!ip_is_none(&out[family]))
            continue;
        out[family] = neighbour_of(&tun->address[i]);
        if (out_len)
            out_len[family] = tun->address[i].len;
    }
}

/* ---- sockets of ours ----------------------------------------------------------------------------------------------- */

struct unbound_walk {
    struct up_socket_rules *rules;
    int tun_ifindex;
};

static int add_unbound(void *arg, const struct nl_route *r)
{
    struct unbound_walk *walk = arg;
    struct up_socket_rules *rules = walk->rules;
    bool is_default = r->dst.len == 0 || (!r->v6 && r->dst.len <= 96);
    int uplink = r->v6 ? rules->ifindex6 : rules->ifindex4;

    if (is_default || r->type != RTN_UNICAST || r->ifindex == uplink || r->ifindex == walk->tun_ifindex)
        return 0;
    if (rules->unbounds < ARRAY_LEN(rules->unbound))
        rules->unbound[rules->unbounds++] = r->dst;
    return 0;
}

static void bind_to_uplink(struct gateway *g, struct up_socket_rules *out)
{
    const struct config_route *route = &g->setup.config->route;
    struct netlink *nl = g->setup.netlink;
    struct unbound_walk walk = { out, tun_ifindex(g->tun) };
    struct nl_link link;

    if (route->interface_name[0]) {
        if (netlink_link_by_name(nl, route->interface_name, &link) == 0)
            out->ifindex4 = out->ifindex6 = link.ifindex;
        else
            log_warning("tun.interface-name: no interface \"%s\" now; sockets are not bound to it",
                        route->interface_name);
    } else if (route->interface_auto) {
        netlink_default_link(nl, false, walk.tun_ifindex, &out->ifindex4);
        netlink_default_link(nl, true, walk.tun_ifindex, &out->ifindex6);
    }
    if (out->ifindex4 || out->ifindex6)
        netlink_routes(nl, RT_TABLE_MAIN, add_unbound, &walk);
}

void gateway_socket_rules(struct gateway *g, struct up_socket_rules *out)
{
    const struct config *c = g->setup.config;

    *out = (struct up_socket_rules){ .mark = c->route.mark };
    for (size_t i = 0; i < c->tun.addresses && out->refuses < ARRAY_LEN(out->refuse); i++)
        out->refuse[out->refuses++] = gateway_network_of(&c->tun.address[i]);
    if (g->names.fakes) { /* a fake address is never dialled (faults.md D8) */
        const struct ip_prefix *fake[2] = { &c->dns.fake4, &c->dns.fake6 };

        for (size_t i = 0; i < 2 && out->refuses < ARRAY_LEN(out->refuse); i++)
            if (fake[i]->len > 0)
                out->refuse[out->refuses++] = *fake[i];
    }
    if (!g->setup.netlink)
        return; /* the TUN lives in another namespace: ours cannot loop */
    if (c->route.auto_route && out->mark == 0)
        out->mark = GATEWAY_DEFAULT_MARK;
    bind_to_uplink(g, out);
}

/* ---- addresses that vanish (faults.md E3) ---------------------------------------------------------------------------- */

struct here_walk {
    struct ip_addr *list;
    size_t count, room;
    int tun_ifindex;
};

static int add_here(void *arg, const struct nl_addr *a)
{
    struct here_walk *walk = arg;

    if (a->ifindex != walk->tun_ifindex && walk->count < walk->room)
        walk->list[walk->count++] = a->addr.addr;
    return 0;
}

static bool is_among(const struct ip_addr *a, const struct ip_addr *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (ip_equal(a, &list[i]))
            return true;
    return false;
}

static void end_sockets_on(struct gateway *g, const struct ip_addr *gone)
{
    char text[IP_TEXT_MAX];
    unsigned count = 0;
    int r = g->setup.helper != NULL ? helper_end_sockets(g->setup.helper, gone, &count)
                                    : netlink_destroy_sockets(g->diag, gone, g->rules.mark, &count);

    if (r != 0 && r != -EOPNOTSUPP)
        log_debug("sockets on %s cannot be ended: %s", ip_text(gone, text), strerror(-r));
    if (count > 0)
        log_info("%s is gone: ended %u connections of ours that began there", ip_text(gone, text), count);
}

/* What began on an address that the machine does not have any more would wait for answers for many minutes. */
static void look_at_addresses(struct gateway *g)
{
    struct ip_addr now[ARRAY_LEN(g->here)];
    struct here_walk walk = { now, 0, ARRAY_LEN(now), tun_ifindex(g->tun) };

    if (g->diag == NULL || netlink_addrs(g->setup.netlink, 0, add_here, &walk) != 0)
        return;
    for (size_t i = 0; i < g->heres; i++)
        if (!is_among(&g->here[i], now, walk.count))
            end_sockets_on(g, &g->here[i]);
    memcpy(g->here, now, walk.count * sizeof(now[0]));
    g->heres = walk.count;
}

void gateway_socket_rules_again(struct gateway *g)
{
    struct up_socket_rules now;

    gateway_socket_rules(g, &now);
    if (memcmp(&now, &g->rules, sizeof(now)) == 0)
        return;
    if (now.ifindex4 != g->rules.ifindex4 || now.ifindex6 != g->rules.ifindex6)
        log_info("uplink changed: new flows leave by interface %d (IPv4), %d (IPv6)", now.ifindex4,
                 now.ifindex6);
    for (uint32_t i = 0; i < g->worker_count; i++) {
        struct up_socket_rules *copy = malloc(sizeof(*copy));

        if (!copy)
            return; /* the next event tries again */
        *copy = now;
        worker_set_socket_rules(g->workers[i], copy);
    }
    g->rules = now;
}

static void on_uplink_settled(struct loop_timer *t)
{
    struct gateway *g = CONTAINER_OF(t, struct gateway, uplink_timer);

    look_at_addresses(g);
    gateway_socket_rules_again(g);
}

static void on_netlink(void *arg, enum netlink_event what, int ifindex)
{
    struct gateway *g = arg;

    (void)ifindex;
    if (what == NETLINK_RULE_CHANGED)
        return;
    if (!loop_timer_active(&g->uplink_timer))
        loop_timer_start(g->setup.loop, &g->uplink_timer, loop_now_us(g->setup.loop) + UPLINK_SETTLE_US,
                         on_uplink_settled);
}

/* ---- the device ------------------------------------------------------------------------------------------------------ */

static void on_mtu(void *arg, uint32_t mtu)
{
    struct gateway *g = arg;

    for (uint32_t i = 0; i < g->worker_count; i++)
        worker_set_mtu(g->workers[i], mtu);
}

static void on_down(void *arg)
{
    (void)arg; /* tun has said so; writes count as lost until it is up */
}

static void on_up(void *arg)
{
    (void)arg; /* tun has its addresses back, route_watch() the routes */
}

static void on_reopened(void *arg)
{
    struct gateway *g = arg;

    for (uint32_t i = 0; i < g->worker_count; i++)
        worker_device_back(g->workers[i]);
}

static void on_lost(void *arg, const char *why)
{
    struct gateway *g = arg;

    g->setup.on_fatal(g->setup.arg, why);
}

static const struct tun_events device_events = { on_mtu, on_down, on_up, on_reopened, on_lost };

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

void gateway_route_options(const struct config *c, const char *tun_name, uint32_t mark,
                           struct route_options *out)
{
    *out = (struct route_options){
        .mark = mark,
        .capture_dns = true,
        .strict = c->route.strict,
        .exclude = c->route.exclude,
        .excludes = c->route.excludes,
        .include = &c->route.include,
        .leave_out = &c->route.leave_out,
        .on_exit = c->route.on_exit,
    };
    snprintf(out->tun_name, sizeof(out->tun_name), "%s", tun_name);
    for (size_t i = 0; i < c->tun.addresses && i < ARRAY_LEN(out->address); i++)
        out->address[out->addresses++] = c->tun.address[i];
}

static int auto_route(struct gateway *g, struct err *err)
{
    struct route_options opt;
    int r;

    gateway_route_options(g->setup.config, tun_name(g->tun), g->rules.mark, &opt);
    opt.v4 = tun_carries(g->tun, false);
    opt.v6 = tun_carries(g->tun, true);
    if ((r = route_apply(g->setup.netlink, &opt, &g->route, err)) != 0)
        return r;
    r = route_watch(g->route, g->setup.loop);
    return r == 0 ? 0 : err_set(err, r, "routes cannot be watched: %s", strerror(-r));
}

/* Without it programs still ask by port 53, which is led to us in any case. */
static void set_system_dns(struct gateway *g)
{
    struct ip_addr own[2];
    int r;

    if (!g->setup.config->route.system_dns)
        return;
    gateway_stack_addresses(&g->setup.config->tun, own, NULL);
    if ((r = route_dns_set(ROUTE_DNS_FILE, own)) != 0)
        log_warning("tun.system-dns: %s cannot be replaced: %s", ROUTE_DNS_FILE, strerror(-r));
    else
        g->dns_is_set = true;
}

static void restore_system_dns(struct gateway *g)
{
    int r = 0;

    if (g->dns_is_set)
        r = g->setup.helper != NULL ? helper_dns_restore(g->setup.helper) : route_dns_restore(ROUTE_DNS_FILE);

    if (r != 0)
        log_error("%s cannot be put back: %s; it is %s%s", ROUTE_DNS_FILE, strerror(-r), ROUTE_DNS_FILE,
                  ROUTE_DNS_SAVED);
    g->dns_is_set = false;
}

int gateway_device_watch(struct gateway *g, struct err *err)
{
    int r = tun_watch(g->tun, g->setup.loop, g->setup.netlink, &device_events, g);

    return r == 0 ? 0 : err_set(err, r, "the TUN cannot be watched: %s", strerror(-r));
}

int gateway_routes_open(struct gateway *g, struct err *err)
{
    const struct config *c = g->setup.config;
    int r;

    if (!g->setup.netlink)
        return 0;
    if (c->route.auto_route && (r = auto_route(g, err)) != 0)
        return r;
    set_system_dns(g);
    if (netlink_open_diag(&g->diag, NULL) != 0)
        g->diag = NULL;
    look_at_addresses(g);
    if ((r = netlink_watch_open(g->setup.loop, on_netlink, g, &g->watch)) != 0)
        return err_set(err, r, "netlink cannot be watched: %s", strerror(-r));
    return 0;
}

void gateway_forget_on_exit(struct gateway *g)
{
    if (g->route != NULL)
        route_forget_on_exit(g->route);
}

void gateway_routes_close(struct gateway *g)
{
    loop_timer_stop(g->setup.loop, &g->uplink_timer);
    netlink_watch_close(g->watch);
    g->watch = NULL;
    netlink_close(g->diag);
    g->diag = NULL;
    restore_system_dns(g);
    route_undo(g->route);
    g->route = NULL;
}
