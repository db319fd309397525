/* ping_socket.c - ping and raw sockets: made, sent to, read (icmp.md 4.1, X7, X18, X23 to X27, 4.8).
 *
 * How a ping socket works. It sends echo requests only; the kernel writes its own id (the "port" that it is bound to) and the
 * checksum, and leaves the number alone. It receives every reply with that id, whoever sent it, without an IP header.
 * TTL and TOS go and come by control messages. With IP_RECVERR each ICMP error about a request lies in the error queue; a
 * pending one also makes the next send fail, once, with that datagram lost, so the queue is emptied before each send.
 * A raw socket is used the same way: its errors come through the error queue as well, so that one reader serves both, and
 * its filters let nothing in but replies to ids of ours. There we write id and (IPv4) checksum ourselves.
 *
 * Which interface a request leaves by is said with each datagram (IP_PKTINFO): targets of one socket may lie behind several.
 *
 * DF. IPv4 as the client set it: PROBE puts it on the wire and never asks the kernel's memory of paths; DONT fragments here. IPv6:
 * what the client sent whole must stay whole, so that it hears of a small MTU; what it fragmented already is cut again to what
 * the path takes (WANT), or it would hear "too big" for ever about pieces that it never made. */
#include "ping_impl.h"

#include <time.h> /* linux/errqueue.h wants struct timespec */
#include <linux/errqueue.h>
#include <linux/filter.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define SHARED_RCVBUF (1 << 20)
#define CONTROL_BYTES 256
#define READS_EACH    16 /* batches for one event, so that a flood cannot starve the loop's other work */
#define ERRORS_EACH   256
#define BAD_READS_MAX 3    /* in a row, then a socket is broken (X25) */
#define QUOTED_BYTES  2048 /* of an error's payload: quotes go to PING_QUOTE_MAX */

#ifndef ICMP_FILTER
#define ICMP_FILTER 1 /* linux/icmp.h */
#endif

struct ping_rx {
    uint8_t *buffers; /* PING_RX_BATCH of PING_RX_BYTES, touched as far as messages reach */
    struct mmsghdr msgs[PING_RX_BATCH];
    struct iovec iov[PING_RX_BATCH];
    struct sockaddr_storage from[PING_RX_BATCH];
    _Alignas(struct cmsghdr) uint8_t control[PING_RX_BATCH][CONTROL_BYTES];
};

int ping_rx_new(struct ping_rx **out)
{
    struct ping_rx *rx = calloc(1, sizeof(*rx));

    if (!rx)
        return -ENOMEM;
    rx->buffers = mmap(NULL, (size_t)PING_RX_BATCH * PING_RX_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (rx->buffers == MAP_FAILED) {
        free(rx);
        return -ENOMEM;
    }
    for (size_t i = 0; i < PING_RX_BATCH; i++) {
        rx->iov[i] = (struct iovec){ rx->buffers + i * PING_RX_BYTES, PING_RX_BYTES };
        rx->msgs[i].msg_hdr =
            (struct msghdr){ .msg_name = &rx->from[i], .msg_iov = &rx->iov[i], .msg_iovlen = 1 };
    }
    *out = rx;
    return 0;
}

void ping_rx_free(struct ping_rx *rx)
{
    if (!rx)
        return;
    munmap(rx->buffers, (size_t)PING_RX_BATCH * PING_RX_BYTES);
    free(rx);
}

void ping_rx_trim(struct ping_rx *rx)
{
    madvise(rx->buffers, (size_t)PING_RX_BATCH * PING_RX_BYTES, MADV_DONTNEED);
}

/* ---- making one ------------------------------------------------------------------------------------------------------- */

static bool set_int(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value)) == 0;
}

/* Replies only, and only to ids that are ours (4.8: SHOULD); a failure costs nothing but work. */
static void filter_raw(const struct ping_socket *s)
{
    const struct ping_ids *ids = &s->proxy->ids;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0), /* IPv4: X = length of its header, which comes first */
        BPF_STMT(BPF_LD | BPF_H | BPF_IND, 4),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, ids->low, 0, 2),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, ids->high, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = { ARRAY_LEN(code), code };

    if (s->v6) {
        uint32_t blocked[8];

        memset(blocked, 0xff, sizeof(blocked));
        blocked[PING6_REPLY / 32] &= ~(1u << PING6_REPLY % 32);
        (void)setsockopt(s->fd, IPPROTO_ICMPV6, ICMP6_FILTER, blocked, sizeof(blocked));
        code[0] = (struct sock_filter)BPF_STMT(BPF_LDX | BPF_W | BPF_IMM, 0); /* no IPv6 header here */
    } else {
        uint32_t blocked = ~(1u << PING4_REPLY);

        (void)setsockopt(s->fd, SOL_RAW, ICMP_FILTER, &blocked, sizeof(blocked));
    }
    (void)setsockopt(s->fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

static void set_options(const struct ping_socket *s)
{
    if (s->v6) {
        set_int(s->fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
        set_int(s->fd, IPPROTO_IPV6, IPV6_RECVERR, 1);
        set_int(s->fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
        set_int(s->fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
        set_int(s->fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1); /* our address in what an error quotes (E11) */
    } else {
        set_int(s->fd, IPPROTO_IP, IP_RECVERR, 1);
        set_int(s->fd, IPPROTO_IP, IP_RECVTTL, 1);
        set_int(s->fd, IPPROTO_IP, IP_RECVTOS, 1);
    }
    set_int(s->fd, SOL_SOCKET, SO_TIMESTAMPNS, 1);
    if ((s->shared || s->raw) && !set_int(s->fd, SOL_SOCKET, SO_RCVBUFFORCE, SHARED_RCVBUF))
        set_int(s->fd, SOL_SOCKET, SO_RCVBUF, SHARED_RCVBUF);
}

/* Bind to nobody's id, so that the kernel picks a free one: a given id would not be ours alone (4.1). */
static int take_id(struct ping_socket *s)
{
    struct sockaddr_storage ss = { .ss_family = s->v6 ? AF_INET6 : AF_INET };
    socklen_t len = s->v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    struct ip_port local;

    if (s->raw)
        return 0;
    if (bind(s->fd, (struct sockaddr *)&ss, len) != 0 ||
        getsockname(s->fd, (struct sockaddr *)&ss, &len) != 0)
        return -errno;
    if (ip_from_sockaddr((struct sockaddr *)&ss, &local) != 0)
        return -EAFNOSUPPORT;
    s->wire_id = local.port;
    return 0;
}

static int plain_socket(int family, enum echo_proxy_kind kind)
{
    int fd = socket(family, (kind == ECHO_SOCKET_RAW ? SOCK_RAW : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC,
                    family == AF_INET6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);

    return fd < 0 ? -errno : fd;
}

int ping_socket_open(struct echo_proxy *p, struct ping_socket *s, bool v6, enum echo_proxy_kind kind,
                     bool *marked)
{
    int family = v6 ? AF_INET6 : AF_INET, r;
    bool is_marked = false;

    s->proxy = p;
    s->v6 = v6;
    s->raw = kind == ECHO_SOCKET_RAW;
    s->mtu_mode = -1;
    s->bad_reads = 0;
    s->fd = p->opt.make_socket ? p->opt.make_socket(p->opt.socket_arg, family, kind, &is_marked)
                               : plain_socket(family, kind);
    if (s->fd < 0) {
        r = s->fd;
        s->fd = -1;
        return r;
    }
    set_options(s);
    if (s->raw)
        filter_raw(s);
    if ((r = take_id(s)) != 0) {
        close(s->fd);
        s->fd = -1;
        return r;
    }
    loop_io_start(p->opt.loop, &s->io, s->fd, LOOP_READ, ping_socket_on_ready);
    if (marked)
        *marked = is_marked;
    return 0;
}

void ping_socket_close(struct ping_socket *s)
{
    if (s->fd < 0)
        return;
    loop_io_stop(s->proxy->opt.loop, &s->io);
    close(s->fd);
    s->fd = -1;
    if (s->proxy->reading == s)
        s->proxy->reading = NULL;
}

bool ping_is_address_of_host(const struct ip_addr *a)
{
    struct ip_port at = { *a, 0 };
    struct sockaddr_storage ss;
    socklen_t len = ip_to_sockaddr(&at, &ss);
    int fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool is;

    if (fd < 0)
        return false;
    is = bind(fd, (struct sockaddr *)&ss, len) == 0; /* addresses of others: EADDRNOTAVAIL */
    close(fd);
    return is;
}

/* ---- sending ---------------------------------------------------------------------------------------------------------------- */

static void set_mtu_mode(struct ping_socket *s, const struct ping_packet *k)
{
    int mode = s->v6 ? (k->df ? IPV6_PMTUDISC_PROBE : IPV6_PMTUDISC_WANT)
                     : (k->df ? IP_PMTUDISC_PROBE : IP_PMTUDISC_DONT);

    if (mode == s->mtu_mode)
        return;
    s->mtu_mode = mode;
    if (!s->v6) {
        set_int(s->fd, IPPROTO_IP, IP_MTU_DISCOVER, mode);
        return;
    }
    set_int(s->fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, mode);
    set_int(s->fd, IPPROTO_IPV6, IPV6_DONTFRAG, k->df);
}

static void put_control(struct msghdr *m, int level, int type, const void *data, size_t len)
{
    struct cmsghdr *c = (struct cmsghdr *)(void *)((uint8_t *)m->msg_control + m->msg_controllen);

    assert(m->msg_controllen + CMSG_SPACE(len) <= CONTROL_BYTES);
    memset(c, 0, CMSG_SPACE(len));
    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(len);
    memcpy(CMSG_DATA(c), data, len);
    m->msg_controllen += CMSG_SPACE(len);
}

static void put_controls(struct msghdr *m, const struct ping_packet *k, bool v6)
{
    int ttl = k->ttl, tos = k->tos;

    if (ttl > 0)
        put_control(m, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_HOPLIMIT : IP_TTL, &ttl, sizeof(ttl));
    put_control(m, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_TCLASS : IP_TOS, &tos, sizeof(tos));
    if (k->ifindex == 0)
        return;
    if (v6) {
        struct in6_pktinfo info = { .ipi6_ifindex = (unsigned)k->ifindex };

        put_control(m, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
    } else {
        struct in_pktinfo info = { .ipi_ifindex = k->ifindex };

        put_control(m, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
    }
}

int ping_socket_send(struct ping_socket *s, const struct ping_packet *k)
{
    struct ip_port to = { *k->target, 0 };
    struct sockaddr_storage ss;
    _Alignas(struct cmsghdr) uint8_t control[CONTROL_BYTES];
    uint8_t header[PING_HEADER] = { s->v6 ? PING6_REQUEST : PING4_REQUEST };
    struct iovec iov[2] = { { header, sizeof(header) }, { (void *)(uintptr_t)k->payload, k->payload_len } };
    struct msghdr m = { .msg_name = &ss, .msg_iov = iov, .msg_iovlen = 2, .msg_control = control };

    m.msg_namelen = ip_to_sockaddr(&to, &ss);
    put_be16(header + 4, k->id);
    put_be16(header + 6, k->seq);
    if (s->raw && !s->v6) {
        uint16_t above = (uint16_t)~ping_sum(k->payload, k->payload_len, 0);

        put_be16(header + 2, ping_sum(header, sizeof(header), above));
    }
    set_mtu_mode(s, k);
    put_controls(&m, k, s->v6);
    return sendmsg(s->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* ---- reading --------------------------------------------------------------------------------------------------------------------- */

bool ping_socket_drain(struct ping_socket *s, uint32_t *local_mtu)
{
    struct echo_proxy *p = s->proxy;
    struct ping_socket *outer = p->reading;
    bool alive = true;

    p->reading = s;
    for (int i = 0; alive && i < ERRORS_EACH; i++) {
        struct sockaddr_storage to;
        _Alignas(struct cmsghdr) uint8_t control[2 * CONTROL_BYTES];
        uint8_t data[QUOTED_BYTES];
        struct iovec iov = { data, sizeof(data) };
        struct msghdr m = { .msg_name = &to,
                            .msg_namelen = sizeof(to),
                            .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = control,
                            .msg_controllen = sizeof(control) };
        struct ping_error_record e;
        ssize_t n = recvmsg(s->fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT);

        if (n < 0)
            break;
        if (!ping_read_error(&m, (struct span){ data, (size_t)n }, &e))
            continue;
        if (e.origin == SO_EE_ORIGIN_LOCAL && e.err == EMSGSIZE && local_mtu)
            *local_mtu = e.info;
        else
            ping_on_error(s, &e);
        alive = p->reading == s;
    }
    if (alive || outer != s)
        p->reading = outer;
    return alive;
}

/* How long ago the kernel had it: what lay in the queue does not count as travelling (4.10). */
static uint64_t time_in_queue_us(const struct timespec *arrived)
{
    struct timespec now;
    int64_t us;

    clock_gettime(CLOCK_REALTIME, &now);
    us = (int64_t)(now.tv_sec - arrived->tv_sec) * 1000000 + (now.tv_nsec - arrived->tv_nsec) / 1000;
    return us > 0 && us < (int64_t)PING_SECOND_US * 10 ? (uint64_t)us : 0;
}

static int control_int(const struct cmsghdr *c, int fallback)
{
    int value;

    if (c->cmsg_len == CMSG_LEN(1)) /* IP_TOS comes as a byte */
        return *CMSG_DATA(c);
    if (c->cmsg_len < CMSG_LEN(sizeof(value)))
        return fallback;
    memcpy(&value, CMSG_DATA(c), sizeof(value));
    return value;
}

static void take_controls(struct msghdr *h, struct ping_message *m, uint64_t *late_us)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
        if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) ||
            (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_HOPLIMIT)) {
            m->ttl = (uint8_t)control_int(c, m->ttl);
        } else if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) ||
                   (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS)) {
            m->tos = (uint8_t)control_int(c, m->tos);
        } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS &&
                   c->cmsg_len >= CMSG_LEN(sizeof(struct timespec))) {
            struct timespec at;

            memcpy(&at, CMSG_DATA(c), sizeof(at));
            *late_us = time_in_queue_us(&at);
        }
    }
}

static void take_message(struct ping_socket *s, int i)
{
    struct ping_rx *rx = s->proxy->rx;
    struct msghdr *h = &rx->msgs[i].msg_hdr;
    struct span bytes = { rx->iov[i].iov_base, rx->msgs[i].msg_len };
    struct ping_message m;
    struct ip_port from;
    uint64_t late_us = 0;

    if (h->msg_flags & MSG_TRUNC) {
        PCOUNT(s->proxy, drop_truncated);
        return;
    }
    if (ip_from_sockaddr((struct sockaddr *)&rx->from[i], &from) != 0 ||
        ping_read_message(bytes, s->v6, s->raw, &m) != PING_READ_REPLY) {
        PCOUNT(s->proxy, drop_type);
        return;
    }
    take_controls(h, &m, &late_us);
    ping_on_message(s, &from.addr, &m, late_us);
}

/* Return: more may be there, and the socket is. */
static bool read_batch(struct ping_socket *s)
{
    struct echo_proxy *p = s->proxy;
    struct ping_rx *rx = p->rx;
    int n;

    for (size_t i = 0; i < PING_RX_BATCH; i++) {
        rx->msgs[i].msg_hdr.msg_namelen = sizeof(rx->from[i]);
        rx->msgs[i].msg_hdr.msg_control = rx->control[i];
        rx->msgs[i].msg_hdr.msg_controllen = CONTROL_BYTES;
    }
    n = recvmmsg(s->fd, rx->msgs, PING_RX_BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < n && p->reading == s; i++)
        take_message(s, i);
    if (p->reading != s)
        return false;
    if (n >= 0 || errno == EAGAIN || errno == EINTR) {
        s->bad_reads = n >= 0 ? 0 : s->bad_reads;
        return n == PING_RX_BATCH;
    }
    if (++s->bad_reads < BAD_READS_MAX) /* most likely a pending error, which this call has taken */
        return ping_socket_drain(s, NULL);
    ping_flow_socket_broke(s);
    return false;
}

void ping_socket_on_ready(struct loop_io *io, unsigned events)
{
    struct ping_socket *s = CONTAINER_OF(io, struct ping_socket, io);
    struct echo_proxy *p = s->proxy;

    (void)events;
    if (!ping_socket_drain(s, NULL))
        return;
    p->reading = s;
    for (int i = 0; i < READS_EACH && read_batch(s); i++)
        ;
    p->reading = NULL;
}
