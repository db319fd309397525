/* udp_io.c - datagrams in and out of sockets, many at a time: recvmmsg with UDP_GRO, UDP_SEGMENT, and sendmmsg without it.
 *
 * A row is a run of datagrams of one size (the last may be shorter) to one target. The kernel cuts it where it leaves
 * (UDP_SEGMENT, Linux 4.18) unless a piece is larger than the MTU (EINVAL) or the device cannot (EIO); then they go one by one
 * in one sendmmsg. What is received together (UDP_GRO, Linux 5.0) comes as one row as well.
 * The buffers are the environment's and live until the next udp_receive(). */
#include "udp_impl.h"

#include <linux/errqueue.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* linux/udp.h */
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

struct udp_rx {
    uint8_t *buffers; /* RX_MESSAGES of RX_BYTES, touched as far as datagrams reach */
    struct mmsghdr msgs[RX_MESSAGES];
    struct iovec iov[RX_MESSAGES];
    struct sockaddr_storage from[RX_MESSAGES];
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof(int))];
    } control[RX_MESSAGES];
};

/* ---- receiving ---- */

int udp_rx_new(struct udp_rx **out)
{
    struct udp_rx *rx = calloc(1, sizeof(*rx));

    if (!rx)
        return -ENOMEM;
    rx->buffers = mmap(NULL, (size_t)RX_MESSAGES * RX_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (rx->buffers == MAP_FAILED) {
        free(rx);
        return -ENOMEM;
    }
    for (size_t i = 0; i < RX_MESSAGES; i++) {
        rx->iov[i] = (struct iovec){ rx->buffers + i * RX_BYTES, RX_BYTES };
        rx->msgs[i].msg_hdr =
            (struct msghdr){ .msg_name = &rx->from[i], .msg_iov = &rx->iov[i], .msg_iovlen = 1 };
    }
    *out = rx;
    return 0;
}

void udp_rx_free(struct udp_rx *rx)
{
    if (!rx)
        return;
    munmap(rx->buffers, (size_t)RX_MESSAGES * RX_BYTES);
    free(rx);
}

void udp_prepare_socket(int fd, bool v6, bool errors)
{
    int on = 1;

    (void)setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof(on)); /* without it, one datagram for each message */
    if (v6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    if (errors)
        (void)setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_RECVERR : IP_RECVERR, &on, sizeof(on));
}

int udp_receive(struct up_env *env, int fd)
{
    struct udp_rx *rx = env->rx;
    int n;

    for (size_t i = 0; i < RX_MESSAGES; i++) {
        rx->msgs[i].msg_hdr.msg_namelen = sizeof(rx->from[i]);
        rx->msgs[i].msg_hdr.msg_control = &rx->control[i];
        rx->msgs[i].msg_hdr.msg_controllen = sizeof(rx->control[i].bytes);
    }
    n = recvmmsg(fd, rx->msgs, RX_MESSAGES, MSG_DONTWAIT, NULL);
    UP_COUNT(env, recv_calls);
    return n < 0 ? -errno : n;
}

void udp_received(struct up_env *env, int i, struct udp_in *out)
{
    struct msghdr *m = &env->rx->msgs[i].msg_hdr;

    *out = (struct udp_in){ .data = env->rx->iov[i].iov_base, .len = env->rx->msgs[i].msg_len };
    (void)ip_from_sockaddr((struct sockaddr *)&env->rx->from[i],
                           &out->source); /* a connected socket may say none */
    out->gso_size = out->len;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        int size;

        if (c->cmsg_level != SOL_UDP || c->cmsg_type != UDP_GRO || c->cmsg_len < CMSG_LEN(sizeof(size)))
            continue;
        memcpy(&size, CMSG_DATA(c), sizeof(size));
        if (size > 0 && (size_t)size < out->len)
            out->gso_size = (size_t)size;
    }
    if (out->gso_size == 0) /* an empty datagram */
        out->gso_size = 1;
}

/* ---- sending ---- */

size_t udp_put_control(uint8_t *control, size_t len, int level, int type, const void *data, size_t data_len)
{
    struct cmsghdr *c = (struct cmsghdr *)(void *)(control + len);

    assert(len + CMSG_SPACE(data_len) <= UDP_CONTROL_MAX);
    memset(c, 0, CMSG_SPACE(data_len));
    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(data_len);
    memcpy(CMSG_DATA(c), data, data_len);
    return len + CMSG_SPACE(data_len);
}

/* A piece of a row: @n datagrams of @size bytes of payload, the last one as long as what is left of @len. */
static size_t put_pieces(const struct udp_out *o, const uint8_t *data, size_t len, size_t size,
                         struct iovec *iov)
{
    size_t n = 0;

    do {
        size_t piece = len < size ? len : size;

        if (o->header_len > 0)
            iov[n++] = (struct iovec){ (void *)(uintptr_t)o->header, o->header_len };
        iov[n++] = (struct iovec){ (void *)(uintptr_t)data, piece };
        data += piece;
        len -= piece;
    } while (len > 0);
    return n;
}

static struct msghdr message(const struct udp_out *o, struct iovec *iov, size_t n)
{
    return (struct msghdr){ .msg_name = (void *)(uintptr_t)o->to,
                            .msg_namelen = o->to_len,
                            .msg_iov = iov,
                            .msg_iovlen = n,
                            .msg_control = (void *)(uintptr_t)o->control,
                            .msg_controllen = o->control_len };
}

/* A datagram socket tells a pending ICMP error to whoever calls next, once; what we wanted to send has not been tried then
 * (faults.md U12). */
static bool is_pending_error(int err)
{
    return err == ECONNREFUSED || err == EHOSTUNREACH || err == ENETUNREACH || err == EHOSTDOWN ||
           err == EPROTO || err == ENOPROTOOPT || err == EACCES || err == EMSGSIZE || err == EOPNOTSUPP;
}

static ssize_t send_message(struct up_env *env, int fd, const struct msghdr *m)
{
    ssize_t n = sendmsg(fd, m, MSG_NOSIGNAL | MSG_DONTWAIT);

    UP_COUNT(env, send_calls);
    if (n < 0 && is_pending_error(errno)) {
        n = sendmsg(fd, m, MSG_NOSIGNAL | MSG_DONTWAIT);
        UP_COUNT(env, send_calls);
    }
    return n < 0 ? -errno : n;
}

static bool is_full(int err)
{
    return err == -EAGAIN || err == -ENOBUFS || err == -ENOMEM || err == -EINTR;
}

static int sent(struct up_env *env, int r, size_t datagrams, size_t bytes)
{
    if (r >= 0) {
        counter_add(&env->cnt.datagrams_up, datagrams);
        counter_add(&env->cnt.bytes_up, bytes);
        return 0;
    }
    counter_add(&env->cnt.datagrams_unsent, datagrams);
    return is_full(r) ? 0 : r;
}

/* At most UDP_SEGMENTS_MAX datagrams, by one system call that cuts them. */
static int send_cut(struct up_env *env, int fd, const struct udp_out *o, const uint8_t *data, size_t len)
{
    struct iovec iov[2 * UDP_SEGMENTS_MAX];
    _Alignas(struct cmsghdr) uint8_t control[UDP_CONTROL_MAX];
    uint16_t segment = (uint16_t)(o->header_len + o->gso_size);
    struct msghdr m = message(o, iov, put_pieces(o, data, len, o->gso_size, iov));

    if (o->control_len > 0)
        memcpy(control, o->control, o->control_len);
    m.msg_controllen =
        udp_put_control(control, o->control_len, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment));
    m.msg_control = control;
    return (int)send_message(env, fd, &m);
}

/* The same, each datagram a message of its own. Return: 0 or -errno; how many went is counted here. */
static int send_each(struct up_env *env, int fd, const struct udp_out *o, const uint8_t *data, size_t len)
{
    struct iovec iov[2 * UDP_SEGMENTS_MAX];
    struct mmsghdr msgs[UDP_SEGMENTS_MAX];
    size_t step = o->header_len > 0 ? 2 : 1, pieces = put_pieces(o, data, len, o->gso_size, iov) / step,
           done = 0;

    for (size_t i = 0; i < pieces; i++)
        msgs[i] = (struct mmsghdr){ .msg_hdr = message(o, iov + i * step, step) };
    while (done < pieces) {
        int n = sendmmsg(fd, msgs + done, (unsigned)(pieces - done), MSG_NOSIGNAL | MSG_DONTWAIT);
        size_t bytes = 0;

        UP_COUNT(env, send_calls);
        if (n <= 0) {
            int r = n < 0 && is_pending_error(errno) ? (int)send_message(env, fd, &msgs[done].msg_hdr)
                    : n < 0                          ? -errno
                                                     : -EAGAIN;

            if (r < 0)
                return sent(env, r, pieces - done, 0);
            n = 1;
        }
        for (int i = 0; i < n; i++)
            bytes += iov[(done + (size_t)i) * step + step - 1].iov_len;
        sent(env, 0, (size_t)n, bytes);
        done += (size_t)n;
    }
    return 0;
}

static int send_one(struct up_env *env, int fd, const struct udp_out *o)
{
    struct iovec iov[2];
    struct msghdr m = message(o, iov, put_pieces(o, o->data, o->len, o->len, iov));
    ssize_t n = send_message(env, fd, &m);

    return sent(env, n < 0 ? (int)n : 0, 1, o->len);
}

int udp_send_row(struct up_env *env, int fd, const struct udp_out *o)
{
    size_t each = o->header_len + o->gso_size, most, off = 0;

    if (o->gso_size == 0 || o->len <= o->gso_size)
        return send_one(env, fd, o);
    most = each > 0 ? UDP_ROW_BYTES / each : 1;
    most = most > UDP_SEGMENTS_MAX ? UDP_SEGMENTS_MAX : most == 0 ? 1 : most;
    while (off < o->len) {
        size_t len = o->len - off < most * o->gso_size ? o->len - off : most * o->gso_size;
        int r = env->no_gso ? -EIO : send_cut(env, fd, o, o->data + off, len);

        if (r == -EIO)
            env->no_gso = true;
        if (r == -EIO || r == -EINVAL || r == -EMSGSIZE)
            r = send_each(env, fd, o, o->data + off, len);
        else
            r = sent(env, r, (len + o->gso_size - 1) / o->gso_size, len);
        if (r != 0)
            return r;
        off += len;
    }
    return 0;
}
