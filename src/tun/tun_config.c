/* tun_config.c - the device as an interface: name, MTU, queue length, addresses, up (through netlink).
 * An IPv6 address needs an MTU of 1280 (RFC 8200 section 5) and a kernel with IPv6 on; without them the device carries IPv4 only,
 * and a line says so, because a machine without IPv6 must still get its tunnel. */
#include "tun_impl.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <string.h>

enum {
    MTU_DEFAULT = 1500,
    MTU_MIN = 576, /* what every IPv4 host takes (RFC 791 section 3.1) */
    MTU_MAX = 65535,
    MTU_MIN_IP6 = 1280,
    TXQUEUELEN_DEFAULT = 4096, /* packets (STR-5) */
    LOCAL_WAIT_MS = 100
};

static int check_name(const char *name, struct err *err)
{
    if (memchr(name, '\0', 16) == NULL)
        return err_set(err, -EINVAL,
                       "tun.name: \"%.16s...\" is too long; an interface name has at most 15 characters",
                       name);
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return err_set(err, -EINVAL, "tun.name: \"%s\" is no interface name", name);
    for (const char *c = name; *c != '\0'; c++)
        if (*c == '/' || *c == ':' || *c == '%' || isspace((unsigned char)*c) || iscntrl((unsigned char)*c))
            return err_set(err, -EINVAL,
                           "tun.name: \"%s\" has a character that no interface name may have; use letters, "
                           "digits, '-' and '_'",
                           name);
    return 0;
}

int tun_check_options(const struct tun_options *opt, struct err *err)
{
    int r;

    if (opt->fd < 0 && (r = check_name(opt->name, err)) != 0)
        return r;
    if (opt->mtu != 0 && (opt->mtu < MTU_MIN || opt->mtu > MTU_MAX))
        return err_set(err, -ERANGE, "tun.mtu: %u is outside %d to %d", opt->mtu, MTU_MIN, MTU_MAX);
    if (opt->queues > TUN_QUEUES_MAX)
        return err_set(err, -ERANGE, "tun.queues: %u is more than %d", opt->queues, TUN_QUEUES_MAX);
    if (opt->addresses > TUN_ADDRESSES_MAX)
        return err_set(err, -ERANGE, "tun.address: %zu addresses are more than %d", opt->addresses,
                       TUN_ADDRESSES_MAX);
    if (opt->more_fds_count > TUN_QUEUES_MAX - 1)
        return err_set(err, -ERANGE, "tun.fd: more than %d descriptors", TUN_QUEUES_MAX);
    return 0;
}

void tun_set_mtu_seen(struct tun *t, uint32_t mtu)
{
    atomic_store_explicit(&t->mtu, mtu, memory_order_relaxed);
    if (mtu > atomic_load_explicit(&t->mtu_largest, memory_order_relaxed))
        atomic_store_explicit(&t->mtu_largest, mtu, memory_order_relaxed);
}

static bool is_v6(const struct tun *t, size_t i)
{
    return !ip_is4(&t->opt.address[i].addr);
}

/* What an IPv6 address is answered with where there is no IPv6: not compiled in, or switched off (disable_ipv6). */
static bool means_no_ip6(int r)
{
    return r == -EAFNOSUPPORT || r == -EOPNOTSUPP || r == -EACCES;
}

struct present {
    const struct tun *t;
    uint32_t found;
};

static int note_present(void *arg, const struct nl_addr *a)
{
    struct present *p = arg;

    for (size_t i = 0; i < p->t->opt.addresses; i++)
        if (ip_equal(&a->addr.addr, &p->t->opt.address[i].addr) && a->addr.len == p->t->opt.address[i].len)
            p->found |= 1u << i;
    return 0;
}

int tun_missing_addresses(struct tun *t, uint32_t *out)
{
    struct present p = { .t = t };
    uint32_t wanted = 0;
    int r;

    if (t->adopted) { /* not ours to configure */
        *out = 0;
        return 0;
    }
    for (size_t i = 0; i < t->opt.addresses; i++)
        if (!is_v6(t, i) || (tun_mtu(t) >= MTU_MIN_IP6 && !t->v6_refused))
            wanted |= 1u << i;
    r = netlink_addrs(t->nl, t->ifindex, note_present, &p);
    if (r == 0)
        *out = wanted & ~p.found;
    return r;
}

int tun_add_addresses(struct tun *t, uint32_t which, struct err *err)
{
    char text[IP_TEXT_MAX];

    for (size_t i = 0; i < t->opt.addresses; i++) {
        int r = (which & 1u << i) != 0 ? netlink_addr_add(t->nl, t->ifindex, &t->opt.address[i]) : -EEXIST;

        if (r == 0)
            t->added[i] = true;
        if (r == 0 || r == -EEXIST)
            continue;
        if (!is_v6(t, i) || !means_no_ip6(r))
            return err_set(err, r, "%s: address %s cannot be added: %s", t->name,
                           ip_text(&t->opt.address[i].addr, text), strerror(-r));
        if (!t->v6_refused)
            log_warning("%s: IPv6 is off on this machine, so only IPv4 is carried", t->name);
        t->v6_refused = true;
    }
    return 0;
}

static uint32_t first_addresses(const struct tun *t)
{
    uint32_t which = 0;

    for (size_t i = 0; i < t->opt.addresses; i++) {
        if (!is_v6(t, i) || t->opt.mtu >= MTU_MIN_IP6)
            which |= 1u << i;
        else
            log_warning("%s: an MTU of %u is below 1280, so IPv6 is not carried", t->name, t->opt.mtu);
    }
    return which;
}

static int find_link(struct tun *t, struct err *err)
{
    struct nl_link link;
    int r = netlink_link_by_name(t->nl, t->name, &link);

    if (r == -ENODEV && t->adopted) /* its packets come to us, its interface is somebody else's business */
        return 0;
    if (r != 0)
        return err_set(err, r, "%s: the kernel does not tell about it: %s", t->name, strerror(-r));
    t->ifindex = link.ifindex;
    if (t->adopted) {
        tun_set_mtu_seen(t, link.mtu);
        atomic_store_explicit(&t->down, !link.up, memory_order_relaxed);
    }
    return 0;
}

struct local_search {
    const struct tun *t;
    uint32_t found;
};

static int note_local(void *arg, const struct nl_route *r)
{
    struct local_search *s = arg;

    for (size_t i = 0; i < s->t->opt.addresses; i++)
        if (r->v6 && r->dst.len == 128 && ip_equal(&r->dst.addr, &s->t->opt.address[i].addr))
            s->found |= 1u << i;
    return 0;
}

/* The kernel makes an IPv6 address local in a work queue, some time after it was added (seen: up to a few milliseconds), and what
 * arrives before is dropped. So that "up" means usable, we wait for it; not for long, since nothing depends on it. */
static void wait_until_local(struct tun *t)
{
    uint32_t wanted = 0;

    for (size_t i = 0; i < t->opt.addresses; i++)
        if (is_v6(t, i) && t->added[i] && !t->v6_refused)
            wanted |= 1u << i;
    for (int i = 0; i < LOCAL_WAIT_MS; i++) {
        struct local_search s = { .t = t };

        if (netlink_routes(t->nl, NETLINK_TABLE_LOCAL, note_local, &s) != 0 || (s.found & wanted) == wanted)
            return;
        poll(NULL, 0, 1);
    }
}

int tun_configure(struct tun *t, struct err *err)
{
    int r;

    if (t->opt.mtu == 0)
        t->opt.mtu = MTU_DEFAULT;
    if (t->opt.txqueuelen == 0)
        t->opt.txqueuelen = TXQUEUELEN_DEFAULT;
    tun_set_mtu_seen(t, t->opt.mtu);
    if (t->nl == NULL)
        return 0;
    if ((r = find_link(t, err)) != 0 || t->adopted)
        return r;
    /* Without this the kernel gives itself a link-local address and looks for routers inside our tunnel. No IPv6, no harm. */
    (void)netlink_link_no_autoconf(t->nl, t->ifindex);
    if ((r = netlink_link_set(t->nl, t->ifindex, true, t->opt.mtu, t->opt.txqueuelen)) != 0)
        return err_set(err, r, "%s: MTU %u and up cannot be set: %s", t->name, t->opt.mtu, strerror(-r));
    if ((r = tun_add_addresses(t, first_addresses(t), err)) != 0)
        return r;
    wait_until_local(t);
    return 0;
}

void tun_remove_added(struct tun *t)
{
    if (t->nl == NULL || t->made)
        return;
    for (size_t i = 0; i < t->opt.addresses; i++)
        if (t->added[i])
            (void)netlink_addr_del(t->nl, t->ifindex, &t->opt.address[i]);
}

struct family_search {
    bool v6, found;
};

static int note_family(void *arg, const struct nl_addr *a)
{
    struct family_search *s = arg;

    s->found |= ip_is4(&a->addr.addr) != s->v6 && !ip_is_link_local(&a->addr.addr);
    return 0;
}

/* Somebody else gave it its addresses; where they cannot be seen, both families are believed in. */
static bool adopted_carries(const struct tun *t, bool v6)
{
    struct family_search s = { .v6 = v6 };

    if (t->nl == NULL || t->ifindex == 0 || netlink_addrs(t->nl, t->ifindex, note_family, &s) != 0)
        return true;
    return s.found;
}

bool tun_carries(const struct tun *t, bool v6)
{
    if (t->adopted)
        return adopted_carries(t, v6);
    for (size_t i = 0; i < t->opt.addresses; i++)
        if (is_v6(t, i) == v6 && (!v6 || (!t->v6_refused && tun_mtu(t) >= MTU_MIN_IP6)))
            return true;
    return false;
}
