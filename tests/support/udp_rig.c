/* udp_rig.c - datagrams for tests: peers on loopback, and associations that write down what they are told. */
#include "udp_rig.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- a peer: what datagrams are sent to ---- */

static void on_peer(struct loop_io *io, unsigned events)
{
    static uint8_t data[65536];
    struct peer *p = CONTAINER_OF(io, struct peer, io);
    _Alignas(struct cmsghdr) uint8_t control[128];
    struct sockaddr_storage from;
    struct iovec iov = { data, sizeof(data) };
    struct msghdr m = { .msg_name = &from,
                        .msg_namelen = sizeof(from),
                        .msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = control,
                        .msg_controllen = sizeof(control) };
    ssize_t n = recvmsg(loop_io_fd(io), &m, 0);

    (void)events;
    if (n < 0)
        return;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL)
            memcpy(&p->last_ttl, CMSG_DATA(c), sizeof(int));
    }
    if (p->count < ARRAY_LEN(p->got)) {
        p->got[p->count].len = (size_t)n;
        memcpy(p->got[p->count].data, data, (size_t)n < 64 ? (size_t)n : 64);
    }
    assert_int_equal(ip_from_sockaddr((struct sockaddr *)&from, &p->last_from), 0);
    p->count++;
    p->bytes += (size_t)n;
    if (p->echo)
        sendto(loop_io_fd(io), data, (size_t)n, 0, (struct sockaddr *)&from, m.msg_namelen);
}

void peer_open(struct peer *p, struct up_rig *rig, const char *addr, bool echo)
{
    struct ip_port at = { rig_addr(addr), 0 };
    bool v6 = !ip_is4(&at.addr);
    struct sockaddr_storage ss;
    socklen_t len = ip_to_sockaddr(&at, &ss);
    int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1,
        room = 1 << 20;

    memset(p, 0, sizeof(*p));
    p->rig = rig;
    p->echo = echo;
    assert_int_equal(bind(fd, (struct sockaddr *)&ss, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
    assert_int_equal(ip_from_sockaddr((struct sockaddr *)&ss, &p->at), 0);
    setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    loop_io_start(rig->loop, &p->io, fd, LOOP_READ, on_peer);
}

void peer_send(struct peer *p, const struct ip_port *to, const void *data, size_t len)
{
    struct sockaddr_storage ss;
    socklen_t ss_len = ip_to_sockaddr(to, &ss);

    assert_int_equal(sendto(loop_io_fd(&p->io), data, len, 0, (struct sockaddr *)&ss, ss_len), (ssize_t)len);
}

void peer_close(struct peer *p)
{
    int fd = loop_io_fd(&p->io);

    loop_io_stop(p->rig->loop, &p->io);
    close(fd);
}

/* ---- an association and what it told ---- */

static void on_open(void *arg)
{
    ((struct udp_log *)arg)->opened = true;
}

static void on_datagrams(void *arg, const struct up_datagram *d, size_t n)
{
    struct udp_log *log = arg;

    for (size_t i = 0; i < n; i++) {
        log->count++;
        log->bytes += d[i].len;
        log->last_len = d[i].len;
        memcpy(log->last, d[i].data, d[i].len < 64 ? d[i].len : 64);
        log->source = d[i].source;
    }
    if (log->close_on_data) {
        up_udp_close(log->u);
        log->u = NULL;
    }
}

static void on_error(void *arg, const struct ip_port *target, const struct ip_addr *offender, int type,
                     int code, uint32_t mtu)
{
    struct udp_log *log = arg;

    log->errors++;
    log->error_target = *target;
    log->offender = *offender;
    log->icmp_type = type;
    log->icmp_code = code;
    log->mtu = mtu;
}

static void on_closed(void *arg, const struct up_failure *why)
{
    struct udp_log *log = arg;

    assert_false(log->closed);
    log->closed = true;
    log->why = *why;
    up_udp_close(log->u); /* allowed, and nothing */
    log->u = NULL;
}

const struct up_udp_events udp_log_events = { on_open, on_datagrams, on_error, on_closed };

bool udp_is_settled(void *arg)
{
    struct udp_log *log = arg;

    return log->opened || log->closed;
}

bool udp_is_closed(void *arg)
{
    return ((struct udp_log *)arg)->closed;
}

bool udp_has_errors(void *arg)
{
    return ((struct udp_log *)arg)->errors > 0;
}

struct expect {
    const unsigned *count;
    unsigned n;
};

static bool has_count(void *arg)
{
    const struct expect *e = arg;

    return *e->count >= e->n;
}

void until_count(struct up_rig *rig, const unsigned *count, unsigned n)
{
    struct expect e = { count, n };

    rig_until(rig, has_count, &e);
    assert_int_equal(*count, n);
}

void udp_start(struct up_rig *rig, struct udp_log *log, struct upstream *up)
{
    *log = (struct udp_log){ 0 };
    assert_int_equal(up_udp_open(rig->env, up, 2000000, &udp_log_events, log, &log->u), 0);
    assert_false(log->opened || log->closed);
    rig_until(rig, udp_is_settled, log);
}

int udp_rig_send(struct udp_log *log, const struct ip_port *to, const void *data, size_t len, uint16_t gso)
{
    struct host_port target = { NULL, to->addr, to->port };

    return up_udp_send(log->u, &target, data, len, gso, 0, 0);
}
