/* udp_socks.c - UDP ASSOCIATE (RFC 1928 sections 6 and 7): a control connection, and a socket connected to the relay.
 *
 * The relay's socket is connected, so the kernel lets nobody else in (faults.md U8, U11). The association lives as long as the
 * control connection; when that ends, the owner is told -ECONNRESET and opens a new one (U7). ICMP errors on the relay's
 * socket speak of the relay and not of a target: they are read and forgotten (U12). */
#include "udp_impl.h"
#include "masque.h"

#include <stdio.h>
#include <sys/socket.h>

enum { JUNK_MAX = 512, ERROR_READS_MAX = 16 };

void udp_associate_died(struct up_udp *u, const char *how)
{
    struct up_failure why = { 0 };

    up_fail(&why, -ECONNRESET, "stream", false, "%.80s %s its UDP association", u->memory->up->name, how);
    udp_die(u, &why);
}

/* Nothing is ever said on the control connection after the reply; what comes is thrown away, within reason. */
static void on_control(struct loop_io *io, unsigned events)
{
    struct up_udp *u = CONTAINER_OF(io, struct up_udp, io[UDP_IO_CONTROL]);
    uint8_t junk[JUNK_MAX];
    ssize_t n = recv(loop_io_fd(io), junk, sizeof(junk), 0);

    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        udp_associate_died(u, n == 0 ? "closed" : "reset");
        return;
    }
    u->junk_bytes = (uint16_t)(u->junk_bytes + n);
    if (u->junk_bytes > JUNK_MAX)
        udp_associate_died(u, "sends data where none belongs, which ends");
}

static void on_relay(struct loop_io *io, unsigned events)
{
    struct up_udp *u = CONTAINER_OF(io, struct up_udp, io[UDP_IO_RELAY]);

    (void)events;
    for (int i = 0; i < ERROR_READS_MAX; i++) {
        int r = udp_deliver(u, io);

        if (r == 0 || r == -EAGAIN || r == -EINTR) /* 0: it may be closed by now */
            return;
    }
}

/* 0.0.0.0, ::, or a name, which nobody sends: the relay is where the server is (faults.md U8). */
static struct ip_port relay_address(const struct handshake_result *result)
{
    struct ip_port relay = result->bound;
    bool is_any = ip_is_none(&relay.addr) || (ip_is4(&relay.addr) && get_be32(relay.addr.b + 12) == 0);

    if (is_any)
        relay.addr = result->peer.addr;
    return relay;
}

/* Return: 0 or -errno; the socket is ours to close in either case. */
static int open_relay(struct up_udp *u, const struct ip_port *relay)
{
    struct sockaddr_storage ss;
    int fd, r = 0;

    if (relay->port == 0)
        return -EPROTO;
    fd = up_socket(u->env, u->memory->up, SOCK_DGRAM, relay);
    if (fd < 0)
        return fd;
    up_rows_prepare(fd, !ip_is4(&relay->addr), false);
    if (connect(fd, (struct sockaddr *)&ss, ip_to_sockaddr(relay, &ss)) != 0)
        r = -errno;
    if (r != 0) {
        close(fd);
        return r;
    }
    u->guard[UDP_IO_RELAY] = socket_guard(u->env, fd, IP_PROTO_UDP, relay);
    loop_io_start(u->env->opt.loop, &u->io[UDP_IO_RELAY], fd, LOOP_READ, on_relay);
    return 0;
}

static void on_handshake(void *arg, const struct handshake_result *result)
{
    struct up_udp *u = arg;
    struct ip_port relay = relay_address(result);
    char text[IP_PORT_TEXT_MAX];
    struct up_failure why = { 0 };
    int r;

    u->handshake = NULL;
    if (u->memory->up->kind == UPSTREAM_GROUP)
        u->group = u->memory;
    else
        u->memory->users--;
    u->memory = result->memory; /* the member, if a group was asked */
    u->memory->users++;
    if (result->why) {
        UP_COUNT(u->env, udp_failed);
        udp_die(u, result->why);
        return;
    }
    if (u->memory->up->kind == UPSTREAM_MASQUE) {
        u->socks = false;
        masque_udp_open(u);
        return;
    }
    if (result->fd < 0 && !result->masque) { /* a group's DIRECT */
        u->socks = false;
        udp_opened(u);
        return;
    }
    if (result->memory->up->udp == UPSTREAM_UDP_OVER_TCP) {
        r = udp_tunnel_open(u, result);
        if (r == 0) {
            udp_opened(u);
            return;
        }
        handshake_result_close(u->env, result);
        UP_COUNT(u->env, udp_failed);
        up_fail(&why, r, "request", false, "no memory for UDP over TCP");
        udp_die(u, &why);
        return;
    }
    assert(result->fd >= 0); /* up_has_no_udp(): at the end of a chain there is only the kind above */
    u->guard[UDP_IO_CONTROL] = result->guard;
    loop_io_start(u->env->opt.loop, &u->io[UDP_IO_CONTROL], result->fd, LOOP_READ, on_control);
    r = open_relay(u, &relay);
    if (r != 0) {
        UP_COUNT(u->env, udp_failed);
        up_fail(&why, r == -EMFILE || r == -ELOOP ? r : -EHOSTUNREACH, "request", true,
                "%.80s announced the UDP relay %s, which cannot be used: %s", u->memory->up->name,
                ip_port_text(&relay, text), strerror(-r));
        udp_die(u, &why);
        return;
    }
    udp_opened(u);
}

int udp_socks_open(struct up_udp *u)
{
    uint64_t now_us = env_now_us(u->env), left_us = u->until_us > now_us ? u->until_us - now_us : 0;

    return handshake_open(u->env, u->memory, SOCKS5_ASSOCIATE, NULL, NULL, left_us, on_handshake, u,
                          &u->handshake);
}

bool udp_next_way(struct up_udp *u)
{
    struct up_failure why = { 0 };
    int r;

    if (!u->group || u->state != UDP_OPENING)
        return false;
    masque_udp_close(u->masque);
    u->masque = NULL;
    u->memory->users--;
    u->memory = u->group; /* and that count */
    u->group = NULL;
    u->socks = true;
    r = udp_socks_open(u);
    if (r != 0) {
        UP_COUNT(u->env, udp_failed);
        up_fail(&why, r, "connect", false, "%.80s cannot be dialled: %s", u->memory->up->name, strerror(-r));
        udp_die(u, &why);
    }
    return true;
}

int udp_target(const struct host_port *target, struct host_port *out, char name[256])
{
    *out = *target;
    if (target->name && ip_parse(target->name, &out->addr) == 0)
        out->name = NULL;
    if (!out->name)
        return 0;
    if (host_name_normalise(out->name, strlen(out->name), name) != 0)
        return -EINVAL;
    out->name = name;
    return 0;
}

int udp_socks_send(struct up_udp *u, const struct host_port *target, struct up_row_out *o)
{
    struct host_port to;
    uint8_t header[SOCKS5_UDP_HEADER_MAX];
    char name[256];

    if (udp_target(target, &to, name) != 0)
        return -EINVAL;
    o->header = header;
    o->header_len = socks5_udp_put(header, &to);
    return up_row_send(u, UDP_IO_RELAY, o);
}
