/* udp_direct.c - datagrams straight to their targets: one socket for each family, made when it is first needed, not connected,
 * so that one client port keeps one port of ours whomever it talks to (RFC 4787 REQ-1).
 *
 * ICMP errors come through the error queue with the datagram's target and are told one by one (faults.md U12; traceroute).
 * A target by name is resolved once a minute; the latest 16 datagrams of an association wait for it, in order. */
#include "udp_impl.h"

#include <time.h> /* linux/errqueue.h wants struct timespec */
#include <linux/errqueue.h>
#include <sys/socket.h>

#define NAME_TTL_US (60 * SECOND_US)

enum { ERRORS_EACH = 16 }; /* read from the queue for one event */

/* ---- the error queue ---- */

static const struct sock_extended_err *find_error(struct msghdr *m)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        bool is4 = c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR;
        bool is6 = c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR;

        if ((is4 || is6) &&
            c->cmsg_len >= CMSG_LEN(sizeof(struct sock_extended_err) + sizeof(struct sockaddr_in)))
            return (const struct sock_extended_err *)(const void *)CMSG_DATA(c);
    }
    return NULL;
}

/* Our own kernel's word about the path's MTU reads like the router's that it stands for. */
static void tell_error(struct up_udp *u, const struct sock_extended_err *e, const struct ip_port *target)
{
    bool v6 = !ip_is4(&target->addr), local = e->ee_origin == SO_EE_ORIGIN_LOCAL;
    struct ip_port offender = { 0 };
    uint32_t mtu = e->ee_errno == EMSGSIZE ? e->ee_info : 0;

    if (local && e->ee_errno != EMSGSIZE)
        return;
    if (!local && e->ee_origin != SO_EE_ORIGIN_ICMP && e->ee_origin != SO_EE_ORIGIN_ICMP6)
        return;
    (void)ip_from_sockaddr(SO_EE_OFFENDER(e), &offender);
    if (local)
        u->events->on_error(u->arg, target, &offender.addr, v6 ? 2 : 3, v6 ? 0 : 4, mtu);
    else
        u->events->on_error(u->arg, target, &offender.addr, e->ee_type, e->ee_code, mtu);
}

/* Return: the association is still there. */
static bool read_errors(struct up_udp *u, struct loop_io *io)
{
    struct up_env *env = u->env;
    bool alive = true;

    env->running = u;
    for (int i = 0; alive && i < ERRORS_EACH; i++) {
        struct sockaddr_storage to;
        _Alignas(struct cmsghdr) uint8_t control[512];
        uint8_t ignored[64];
        struct iovec iov = { ignored, sizeof(ignored) };
        struct msghdr m = { .msg_name = &to,
                            .msg_namelen = sizeof(to),
                            .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = control,
                            .msg_controllen = sizeof(control) };
        const struct sock_extended_err *e;
        struct ip_port target;

        if (recvmsg(loop_io_fd(io), &m, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
            break;
        e = find_error(&m);
        if (e && u->events->on_error && ip_from_sockaddr((struct sockaddr *)&to, &target) == 0)
            tell_error(u, e, &target);
        alive = env->running == u;
    }
    env->running = NULL;
    return alive;
}

static void on_readable(struct up_udp *u, struct loop_io *io)
{
    int r = udp_deliver(u, io);

    /* An error that waits is told by the receive call, or leaves it with nothing: either way there is something to read.
     * -ECONNRESET and such do not happen to a socket that is not connected. */
    if (r < 0 && r != -EINTR)
        (void)read_errors(u, io);
}

static void on_readable4(struct loop_io *io, unsigned events)
{
    (void)events;
    on_readable(CONTAINER_OF(io, struct up_udp, io[UDP_IO_4]), io);
}

static void on_readable6(struct loop_io *io, unsigned events)
{
    (void)events;
    on_readable(CONTAINER_OF(io, struct up_udp, io[UDP_IO_6]), io);
}

/* ---- sending ---- */

static int open_family(struct up_udp *u, int which, const struct ip_port *dst)
{
    int fd = socket_open(u->env, u->memory->up, SOCK_DGRAM, dst, false);

    if (fd < 0)
        return fd;
    up_rows_prepare(fd, which == UDP_IO_6, true);
    loop_io_start(u->env->opt.loop, &u->io[which], fd, LOOP_READ,
                  which == UDP_IO_6 ? on_readable6 : on_readable4);
    return 0;
}

static int check_target(struct up_udp *u, const struct ip_port *dst)
{
    uint32_t rules = u->env->rules_number;
    int r;

    if (u->checked_rules == rules && !ip_is_none(&u->checked) && ip_equal(&u->checked, &dst->addr))
        return 0;
    r = socket_check(u->env, u->memory->up, dst);
    if (r != 0)
        return r;
    socket_note_local(u->env, u->memory->up, dst);
    u->checked = dst->addr;
    u->checked_rules = rules;
    u->checked_ifindex = u->memory->up->interface_name[0] ? 0 : socket_ifindex(u->env, &dst->addr);
    return 0;
}

static size_t put_controls(const struct up_udp *u, bool v6, uint8_t ttl, uint8_t tos, uint8_t *control)
{
    int level = v6 ? IPPROTO_IPV6 : IPPROTO_IP, hops = ttl, class = tos;
    size_t n = 0;

    if (u->checked_ifindex != 0 && v6) {
        struct in6_pktinfo info = { .ipi6_ifindex = (unsigned)u->checked_ifindex };

        n = udp_put_control(control, n, level, IPV6_PKTINFO, &info, sizeof(info));
    } else if (u->checked_ifindex != 0) {
        struct in_pktinfo info = { .ipi_ifindex = u->checked_ifindex };

        n = udp_put_control(control, n, level, IP_PKTINFO, &info, sizeof(info));
    }
    if (ttl != 0)
        n = udp_put_control(control, n, level, v6 ? IPV6_HOPLIMIT : IP_TTL, &hops, sizeof(hops));
    if (tos != 0)
        n = udp_put_control(control, n, level, v6 ? IPV6_TCLASS : IP_TOS, &class, sizeof(class));
    return n;
}

static int send_to_address(struct up_udp *u, const struct ip_port *dst, const struct up_row_out *what,
                           uint8_t ttl, uint8_t tos)
{
    _Alignas(struct cmsghdr) uint8_t control[UDP_CONTROL_MAX];
    int which = ip_is4(&dst->addr) ? UDP_IO_4 : UDP_IO_6, r;
    struct sockaddr_storage ss;
    struct up_row_out o = *what;

    if ((r = check_target(u, dst)) != 0 || (!udp_has_io(u, which) && (r = open_family(u, which, dst)) != 0))
        return r;
    o.to = (struct sockaddr *)&ss;
    o.to_len = ip_to_sockaddr(dst, &ss);
    o.control_len = put_controls(u, which == UDP_IO_6, ttl, tos, control);
    o.control = o.control_len > 0 ? control : NULL;
    r = up_row_send(u, which, &o);
    if (u->guard[which] == NO_GUARD) /* it has a port now */
        u->guard[which] = socket_guard_udp(u->env, loop_io_fd(&u->io[which]), which == UDP_IO_6);
    return r;
}

/* ---- targets by name ---- */

static void send_held(struct udp_name *n)
{
    struct up_udp *u = n->u;

    while (n->first) {
        struct udp_held *h = n->first;
        struct ip_port dst = { n->addr, h->port };
        struct iovec data = { h->data, h->len };
        struct up_row_out o = { .data = &data, .ranges = 1, .len = h->len, .gso_size = h->gso_size };

        n->first = h->next;
        u->held--;
        if (ip_is_none(&n->addr))
            UP_COUNT(u->env, datagrams_unsent);
        else
            (void)send_to_address(u, &dst, &o, h->ttl, h->tos); /* as lost as any datagram if it fails */
        slab_put(&u->env->held, h);
    }
    n->last = NULL;
}

static void on_resolved(void *arg, int err, const struct ip_addr *addrs, size_t count)
{
    struct udp_name *n = arg;

    n->resolving = false;
    n->until_us = env_now_us(n->u->env) + NAME_TTL_US;
    if (err == 0 && count > 0) {
        n->addr = addrs[0];
        for (size_t i = 0; i < count; i++) { /* no race for datagrams: IPv4 works more often */
            if (ip_is4(&addrs[i])) {
                n->addr = addrs[i];
                break;
            }
        }
    } else {
        n->until_us = env_now_us(n->u->env) + SECOND_US;
    }
    send_held(n);
}

static void ask(struct udp_name *n)
{
    const struct up_env_options *o = &n->u->env->opt;
    int r = -ENOENT;

    n->resolving = true;
    if (o->resolve)
        r = o->resolve(o->resolve_arg, n->name, on_resolved, n, &n->query);
    if (r != 0)
        on_resolved(n, r, NULL, 0);
}

static void free_name(struct udp_name *n)
{
    struct up_env *env = n->u->env;

    if (n->resolving && env->opt.resolve_cancel)
        env->opt.resolve_cancel(env->opt.resolve_arg, n->query);
    while (n->first) {
        struct udp_held *h = n->first;

        n->first = h->next;
        n->u->held--;
        slab_put(&env->held, h);
    }
    slab_put(&env->names, n);
}

void udp_direct_drop_names(struct up_udp *u)
{
    while (u->names) {
        struct udp_name *n = u->names;

        u->names = n->next;
        free_name(n);
    }
}

/* The entry of @name, moved to the front; made if need be, in place of the one that was used longest ago. */
static struct udp_name *find_name(struct up_udp *u, const char *name)
{
    struct udp_name **at = &u->names, *n;
    size_t count = 0;

    while (*at && strcmp((*at)->name, name) != 0) {
        if (++count == UDP_NAMES_EACH && !(*at)->next) {
            n = *at;
            *at = NULL;
            free_name(n);
            break;
        }
        at = &(*at)->next;
    }
    n = *at;
    if (n) {
        *at = n->next;
    } else {
        n = slab_get(&u->env->names);
        if (!n)
            return NULL;
        n->u = u;
        memcpy(n->name, name, strlen(name) + 1);
    }
    n->next = u->names;
    u->names = n;
    return n;
}

/* The oldest one of this name makes room for a newer one, which is more likely still wanted (faults.md U7). */
static void drop_oldest(struct udp_name *n)
{
    struct udp_held *h = n->first;

    n->first = h->next;
    if (!n->first)
        n->last = NULL;
    n->u->held--;
    UP_COUNT(n->u->env, datagrams_unsent);
    slab_put(&n->u->env->held, h);
}

static int hold(struct udp_name *n, uint16_t port, const struct up_row_out *o, uint8_t ttl, uint8_t tos)
{
    struct up_udp *u = n->u;
    struct udp_held *h = NULL;

    if (u->held == UDP_HELD_EACH && n->first)
        drop_oldest(n);
    if (u->held < UDP_HELD_EACH && o->len <= UDP_HELD_BYTES)
        h = slab_get(&u->env->held);
    if (!h) {
        UP_COUNT(u->env, datagrams_unsent);
        return 0;
    }
    UP_COUNT(u->env, datagrams_held);
    h->len = (uint16_t)o->len;
    h->gso_size = o->gso_size;
    h->port = port;
    h->ttl = ttl;
    h->tos = tos;
    for (size_t i = 0, at = 0; i < o->ranges; at += o->data[i++].iov_len) {
        if (o->data[i].iov_len > 0)
            memcpy(h->data + at, o->data[i].iov_base, o->data[i].iov_len);
    }
    if (n->last)
        n->last->next = h;
    else
        n->first = h;
    n->last = h;
    u->held++;
    return 0;
}

int udp_direct_send(struct up_udp *u, const struct host_port *target, const struct up_row_out *o, uint8_t ttl,
                    uint8_t tos)
{
    struct ip_port dst = { target->addr, target->port };
    struct udp_name *n;
    char name[256];
    int r;

    if (!target->name || ip_parse(target->name, &dst.addr) == 0)
        return send_to_address(u, &dst, o, ttl, tos);
    if (host_name_normalise(target->name, strlen(target->name), name) != 0)
        return -EINVAL;
    n = find_name(u, name);
    if (!n)
        return -ENOMEM;
    if (!n->resolving && n->until_us > env_now_us(u->env)) {
        dst.addr = n->addr;
        return ip_is_none(&n->addr) ? -EHOSTUNREACH : send_to_address(u, &dst, o, ttl, tos);
    }
    r = hold(n, target->port, o, ttl, tos);
    if (!n->resolving)
        ask(n);
    return r;
}
