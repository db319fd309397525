/* socket.c - every socket of ours is made here: marked, bound to the uplink, refused where it must never go (faults.md E1, S19).
 *
 * How a socket leaves by the uplink. A connected one is bound to the interface's index (SO_BINDTOIFINDEX; free for everybody
 * since Linux 5.7). One that is not connected asks for it with each datagram (IP_PKTINFO), since its targets may lie behind
 * different interfaces. An index that has just gone is accepted and fails at the connect. Loopback and the prefixes that other interfaces reach by routes of their own are not bound.
 *
 * What a lack of privilege means. In a network namespace of our own there is nothing to loop through, and the mark is not
 * ours to set: EPERM is one warning. An interface that the configuration names for one upstream is a promise: there it fails. */
#include "upstream_impl.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>

#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62 /* asm-generic/socket.h, Linux 5.0 */
#endif

enum {
    NOTSENT_LOWAT_BYTES = 256 * 1024
}; /* unsent bytes in the kernel: enough for any path, little to throw away */

static const struct up_socket_rules *rules_of(const struct up_env *env)
{
    return env->opt.rules ? env->opt.rules : &env->no_rules;
}

static bool is_among(const struct ip_addr *a, const struct ip_prefix *prefixes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (ip_in_prefix(a, &prefixes[i]))
            return true;
    }
    return false;
}

/* 0.0.0.0/8 and :: would be dialled as ourselves by Linux. */
static bool is_nowhere(const struct ip_addr *a)
{
    return ip_is_none(a) || (ip_is4(a) && a->b[12] == 0);
}

int socket_check(struct up_env *env, const struct upstream *up, const struct ip_port *dst)
{
    const struct up_socket_rules *r = rules_of(env);

    if (is_nowhere(&dst->addr) || is_among(&dst->addr, r->refuse, r->refuses)) {
        UP_COUNT(env, loop_refused);
        return -ELOOP;
    }
    return up && !upstream_allows(up, &dst->addr, r->own, r->owns) ? -EACCES : 0;
}

int up_may_dial(struct up_env *env, const struct upstream *up, const struct ip_port *dst)
{
    return socket_check(env, up, dst);
}

int socket_ifindex(const struct up_env *env, const struct ip_addr *dst)
{
    const struct up_socket_rules *r = rules_of(env);

    if (ip_is_loopback(dst) || is_among(dst, r->unbound, r->unbounds))
        return 0;
    return ip_is4(dst) ? r->ifindex4 : r->ifindex6;
}

static void set_int(int fd, int level, int name, int value)
{
    (void)setsockopt(fd, level, name, &value,
                     sizeof(value)); /* a preference: without it, it is only slower */
}

static int set_mark(struct up_env *env, const struct upstream *up, int fd)
{
    uint32_t mark = up && up->routing_mark ? up->routing_mark : rules_of(env)->mark;

    if (mark == 0 || setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) == 0)
        return 0;
    if (errno != EPERM)
        return -errno;
    if (!env->warned_mark)
        log_warning("sockets cannot be marked (SO_MARK needs CAP_NET_ADMIN); traffic of our own is kept out "
                    "of the TUN by "
                    "other means only");
    env->warned_mark = true;
    return 0;
}

static int set_device(struct up_env *env, const struct upstream *up, int fd, const struct ip_addr *dst,
                      bool connected)
{
    int ifindex = socket_ifindex(env, dst);

    if (up && up->interface_name[0]) {
        socklen_t len = (socklen_t)strlen(up->interface_name);

        return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, up->interface_name, len) == 0 ? 0 : -errno;
    }
    if (!connected || ifindex == 0 ||
        setsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &ifindex, sizeof(ifindex)) == 0)
        return 0;
    if (!env->warned_bind)
        log_warning("sockets cannot be bound to the uplink: %s", strerror(errno));
    env->warned_bind = true;
    return 0;
}

int socket_open(struct up_env *env, const struct upstream *up, int type, const struct ip_port *dst,
                bool connected)
{
    int fd, r = socket_check(env, up, dst);

    if (r != 0)
        return r;
    fd = socket(ip_is4(&dst->addr) ? AF_INET : AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE)
            UP_COUNT(env, no_sockets);
        return errno == ENFILE ? -EMFILE : -errno;
    }
    if ((r = set_mark(env, up, fd)) != 0 || (r = set_device(env, up, fd, &dst->addr, connected)) != 0) {
        close(fd);
        return r;
    }
    return fd;
}

void socket_tune(int fd)
{
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_int(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES);
}

/* Without a cookie of the server, connect() does what it always does, and asks for one. */
void socket_fast_open(int fd)
{
    set_int(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
}

int up_socket(struct up_env *env, const struct upstream *up, int type, const struct ip_port *dst)
{
    int fd = socket_open(env, up, type, dst, true);

    if (fd >= 0 && type == SOCK_STREAM)
        socket_tune(fd);
    return fd;
}

static int local_address(int fd, struct ip_port *out)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);

    if (getsockname(fd, (struct sockaddr *)&ss, &len) != 0)
        return -errno;
    return ip_from_sockaddr((struct sockaddr *)&ss, out);
}

uint32_t socket_guard(struct up_env *env, int fd, uint8_t proto, const struct ip_port *dst)
{
    struct flow_key key = { .target = dst->addr, .target_port = dst->port, .proto = proto };
    struct ip_port local;

    if (!env->opt.own || local_address(fd, &local) != 0)
        return NO_GUARD;
    key.client = local.addr;
    key.client_port = local.port;
    return own_flows_add(env->opt.own, &key);
}

uint32_t socket_guard_udp(struct up_env *env, int fd, bool v6)
{
    struct ip_port local;

    if (!env->opt.own || local_address(fd, &local) != 0)
        return NO_GUARD;
    return own_flows_add_udp(env->opt.own, local.port, v6);
}

void socket_note_local(struct up_env *env, const struct upstream *up, const struct ip_port *dst)
{
    uint64_t now_us = env_now_us(env), *at_us = &env->local_at_us[ip_is4(&dst->addr) ? 0 : 1];
    struct sockaddr_storage ss;
    struct ip_port local;
    int fd;

    if (!env->opt.own || (*at_us != 0 && now_us - *at_us < SECOND_US))
        return;
    *at_us = now_us;
    fd = socket_open(env, up, SOCK_DGRAM, dst, true);
    if (fd < 0)
        return;
    if (connect(fd, (struct sockaddr *)&ss, ip_to_sockaddr(dst, &ss)) == 0 && local_address(fd, &local) == 0)
        own_flows_add_local(env->opt.own, &local.addr);
    close(fd);
}

void socket_close(struct up_env *env, int fd, uint32_t guard)
{
    if (fd < 0)
        return;
    own_flows_remove(env->opt.own, guard);
    close(fd);
}
