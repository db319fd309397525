/* route.c - a plan becomes routes and rules of the kernel, and they are taken away again.
 *
 * How we know our own. Each route and rule carries ROUTE_PROTO_CULVERT, and lies in our table or at our priorities. What carries
 * the number there is ours or a dead predecessor's; what lies there without it is another program's, and we do not start.
 * A predecessor lives if the default route of the table leads to a TUN that a program still holds: the kernel removes a TUN, and
 * its route, with the last descriptor. Rules and the unreachable routes outlive a kill, and so keep the traffic in. */
#include "route_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>

/* ---- looking ---- */

struct owner_search {
    struct netlink *nl;
    struct nl_link *link;
    bool found;
};

static int look_for_owner(void *arg, const struct nl_route *r)
{
    struct owner_search *s = arg;
    struct nl_link link;

    if (s->found || r->proto != ROUTE_PROTO_CULVERT || r->type != RTN_UNICAST || r->ifindex == 0)
        return 0;
    if (netlink_link_by_index(s->nl, r->ifindex, &link) == 0 && link.carrier) {
        s->found = true;
        *s->link = link;
    }
    return 0;
}

int route_owner(struct netlink *nl, uint32_t table, struct nl_link *out)
{
    struct nl_link link = { 0 };
    struct owner_search s = { .nl = nl, .link = &link };
    int r = netlink_routes(nl, table != 0 ? table : ROUTE_TABLE_DEFAULT, look_for_owner, &s);

    if (r == 0 && !s.found)
        r = -ENOENT;
    if (r == 0)
        *out = link;
    return r;
}

static int look_for_hold(void *arg, const struct nl_rule *r)
{
    if (r->proto == ROUTE_PROTO_CULVERT && r->action == FR_ACT_NOP &&
        r->priority % ROUTE_PRIORITIES == ROUTE_HOLD_AT)
        *(bool *)arg = true;
    return 0;
}

bool route_is_held(struct netlink *nl)
{
    bool held = false;

    return netlink_rules(nl, look_for_hold, &held) == 0 && held;
}

/* What lies in our table or at our priorities and is not of our kind. */
struct strangers {
    uint32_t priority;
    unsigned routes, rules;
};

static int count_strange_route(void *arg, const struct nl_route *r)
{
    if (r->proto != ROUTE_PROTO_CULVERT)
        ((struct strangers *)arg)->routes++;
    return 0;
}

static int count_strange_rule(void *arg, const struct nl_rule *r)
{
    struct strangers *s = arg;

    if (r->proto != ROUTE_PROTO_CULVERT && r->priority >= s->priority &&
        r->priority < s->priority + ROUTE_PRIORITIES)
        s->rules++;
    return 0;
}

static int check_place(const struct route *rt, int tun_ifindex, bool take_over, struct err *err)
{
    struct strangers s = { .priority = rt->priority };
    struct nl_link owner;
    int r;

    if (!take_over && route_owner(rt->nl, rt->table, &owner) == 0 && owner.ifindex != tun_ifindex)
        return err_set(err, -EBUSY,
                       "auto-route: another culvert leads the traffic into %s already; stop that one first",
                       owner.name);
    if ((r = netlink_routes(rt->nl, rt->table, count_strange_route, &s)) != 0 ||
        (r = netlink_rules(rt->nl, count_strange_rule, &s)) != 0)
        return err_set(err, r, "auto-route: routes and rules cannot be read: %s", strerror(-r));
    if (s.routes > 0)
        return err_set(err, -EEXIST,
                       "auto-route: table %u holds routes of another program; remove them with: ip route "
                       "flush table %u",
                       rt->table, rt->table);
    if (s.rules > 0)
        return err_set(err, -EEXIST,
                       "auto-route: another program has rules at priorities %u to %u; see: ip rule",
                       rt->priority, rt->priority + ROUTE_PRIORITIES - 1);
    return 0;
}

/* ---- removing ---- */

struct cleaner {
    struct netlink *nl;
    uint32_t priority;
    unsigned removed;
    int result;
};

static void count_removal(struct cleaner *c, int r)
{
    if (r == 0)
        c->removed++;
    else if (r != -ESRCH && r != -ENOENT && c->result == 0) /* gone meanwhile is as good */
        c->result = r;
}

static int remove_rule(void *arg, const struct nl_rule *r)
{
    struct cleaner *c = arg;
    bool in_range =
        c->priority == 0 || (r->priority >= c->priority && r->priority < c->priority + ROUTE_PRIORITIES);

    if (r->proto == ROUTE_PROTO_CULVERT && in_range)
        count_removal(c, netlink_rule_del(c->nl, r));
    return 0;
}

static int remove_route(void *arg, const struct nl_route *r)
{
    struct cleaner *c = arg;

    if (r->proto == ROUTE_PROTO_CULVERT)
        count_removal(c, netlink_route_del(c->nl, r));
    return 0;
}

static int cleanup(struct netlink *nl, uint32_t table, uint32_t priority, const struct route_agent *agent,
                   unsigned *removed)
{
    struct cleaner c = { .nl = nl, .priority = priority };
    int r = netlink_rules(nl, remove_rule, &c);

    if (r == 0)
        r = netlink_routes(nl, table, remove_route, &c);
    count_removal(&c, agent->remove != NULL ? agent->remove(agent->arg) : route_nft_remove());
    if (removed != NULL)
        *removed = c.removed;
    return r != 0 ? r : c.result;
}

int route_cleanup(struct netlink *nl, uint32_t table, uint32_t priority, unsigned *removed)
{
    return cleanup(nl, table, priority, &(struct route_agent){ .remove = NULL }, removed);
}

/* ---- adding ---- */

static int reverse_path_filter(const char *name)
{
    char path[64];
    int value = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/sys/net/ipv4/conf/%s/rp_filter", name);
    if ((f = fopen(path, "re")) == NULL)
        return 0;
    if (fscanf(f, "%d", &value) != 1)
        value = 0;
    fclose(f);
    return value;
}

/* Strict filtering asks where an answer's sender would be reached without our mark, hears "the TUN", and drops the answer. */
static void warn_of_strict_filter(struct route *rt, int tun_ifindex)
{
    struct nl_link uplink;
    int ifindex, all, own;

    if (netlink_default_link(rt->nl, false, tun_ifindex, &ifindex) != 0 ||
        netlink_link_by_index(rt->nl, ifindex, &uplink) != 0)
        return;
    all = reverse_path_filter("all");
    own = reverse_path_filter(uplink.name);
    if ((all > own ? all : own) == 1) /* the larger one is in force (ip-sysctl) */
        log_warning("%s filters strictly by reverse path, which drops the answers of proxies; allow them "
                    "with: sysctl "
                    "net.ipv4.conf.%s.rp_filter=2",
                    uplink.name, uplink.name);
}

static void say_what_is_left_alone(const struct route_options *opt)
{
    const char *fate = opt->strict ? "is refused" : "is left alone and goes past the tunnel";

    if (!opt->v6)
        log_warning("auto-route: %s has no IPv6 address, so IPv6 traffic %s", opt->tun_name, fate);
    if (!opt->v4)
        log_warning("auto-route: %s has no IPv4 address, so IPv4 traffic %s", opt->tun_name, fate);
}

/* What is left leads nowhere: the unreachable defaults. */
static void remove_tun_routes(struct route *rt)
{
    for (size_t i = 0; i < rt->plan.route_count; i++)
        if (rt->plan.routes[i].ifindex != 0)
            (void)netlink_route_del(rt->nl, &rt->plan.routes[i]);
}

static struct route *route_alloc(struct netlink *nl, const struct route_options *opt)
{
    struct route *rt = calloc(1, sizeof(*rt));

    if (rt == NULL)
        return NULL;
    rt->nl = nl;
    rt->opt = *opt;
    rt->table = route_table(opt);
    rt->priority = route_priority(opt);
    memcpy(rt->tun_name, opt->tun_name, sizeof(rt->tun_name));
    rt->tun_name[sizeof(rt->tun_name) - 1] = '\0';
    return rt;
}

static void route_free(struct route *rt)
{
    route_plan_fini(&rt->plan);
    netlink_close(rt->nft);
    free(rt);
}

/* Nothing is touched yet. */
static int prepare(struct route *rt, struct nl_link *link, struct err *err)
{
    int r = netlink_link_by_name(rt->nl, rt->tun_name, link);

    if (r != 0)
        return err_set(err, r, "auto-route: there is no interface %s", rt->tun_name);
    if ((r = route_look(rt->nl, &rt->opt, link->ifindex, &rt->around)) != 0)
        return err_set(err, r, "auto-route: routes and rules cannot be read: %s", strerror(-r));
    if ((r = route_plan_make(&rt->opt, &rt->around, link->ifindex, &rt->plan, err)) != 0)
        return r;
    return check_place(rt, link->ifindex, rt->opt.take_over, err);
}

/* Only some options cannot be without it. */
static int load_nft(struct route *rt, struct err *err)
{
    struct err why = { "" };
    int r = route_nft_load(rt, &why);

    if (r != 0 && route_needs_nft(&rt->opt))
        return err_set(err, r, "tun: groups and cgroups need nftables: %s", why.text);
    if (r != 0)
        log_warning("auto-route: without nftables, answers to who connects from beyond the LAN go into the "
                    "tunnel, and so do connections from before: %s",
                    why.text);
    return 0;
}

int route_apply(struct netlink *nl, const struct route_options *opt, struct route **out, struct err *err)
{
    struct route *rt = route_alloc(nl, opt);
    struct nl_link link;
    unsigned taken = 0;
    int r;

    if (rt == NULL)
        return err_set(err, -ENOMEM, "out of memory");
    if ((r = prepare(rt, &link, err)) != 0) {
        route_free(rt);
        return r;
    }
    if ((r = load_nft(rt, err)) != 0 || (r = route_adopt(rt, &taken, err)) != 0) {
        route_forget_on_exit(rt);
        route_undo(rt);
        return r;
    }
    if (taken > 0)
        log_info("auto-route: took over or removed %u routes and rules that an earlier culvert left", taken);
    say_what_is_left_alone(opt);
    route_tell_refused(NULL, &rt->around);
    warn_of_strict_filter(rt, link.ifindex);
    *out = rt;
    return 0;
}

void route_delegate(struct route *rt, const struct route_agent *agent)
{
    rt->agent = *agent;
}

void route_forget_on_exit(struct route *rt)
{
    rt->opt.on_exit = ROUTE_RESTORE;
}

size_t route_not_followed(const struct route *rt, const struct ip_prefix **out)
{
    *out = rt->around.refused;
    return rt->around.refuseds;
}

void route_undo(struct route *rt)
{
    if (rt == NULL)
        return;
    route_watch_end(rt);
    if (rt->opt.on_exit == ROUTE_RESTORE)
        (void)cleanup(rt->nl, rt->table, rt->priority, &rt->agent, NULL);
    else if (rt->opt.on_exit == ROUTE_BLOCK)
        remove_tun_routes(rt);
    route_free(rt);
}
