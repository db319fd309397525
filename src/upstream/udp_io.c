/* udp_io.c - datagrams in and out of sockets, many at a time: recvmmsg with UDP_GRO, UDP_SEGMENT, and sendmmsg without it.
 *
 * A row is a run of datagrams of one size (the last may be shorter) to one target. The kernel cuts it where it leaves
 * (UDP_SEGMENT, Linux 4.18) unless a piece is larger than the MTU (EINVAL) or the device cannot (EIO); then they go one by one
 * in one sendmmsg. What is received together (UDP_GRO, Linux 5.0) comes as one row as well.
 * The buffers are the environment's and live until the next up_rows_receive(). */
#include "udp_impl.h"

#include <time.h> /* linux/errqueue.h wants struct timespec */
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

enum {
    SEGMENTS_MAX = 64, /* of one row (UDP_MAX_SEGMENTS of Linux before 6.9) */
    ROW_BYTES = 65507, /* the most that one send takes */
};

struct udp_rx {
    uint8_t *buffers; /* UP_ROWS_MAX of RX_BYTES, touched as far as datagrams reach */
    struct mmsghdr msgs[UP_ROWS_MAX];
    struct iovec iov[UP_ROWS_MAX];
    struct sockaddr_storage from[UP_ROWS_MAX];
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof(int))];
    } control[UP_ROWS_MAX];
};

/* ---- receiving ---- */

int udp_rx_new(struct udp_rx **out)
{
    struct udp_rx *rx = calloc(1, sizeof(*rx));

    if (!rx)
        return -ENOMEM;
    rx->buffers = mmap(NULL, (size_t)UP_ROWS_MAX * RX_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (rx->buffers == MAP_FAILED) {
        free(rx);
        return -ENOMEM;
    }
    for (size_t i = 0; i < UP_ROWS_MAX; i++) {
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
    munmap(rx->buffers, (size_t)UP_ROWS_MAX * RX_BYTES);
    free(rx);
}

void udp_rx_trim(struct udp_rx *rx)
{
    madvise(rx->buffers, (size_t)UP_ROWS_MAX * RX_BYTES, MADV_DONTNEED);
}

void up_rows_prepare(int fd, bool v6, bool errors)
{
    int on = 1;

    (void)setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof(on)); /* without it, one datagram for each message */
    if (v6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    if (errors)
        (void)setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_RECVERR : IP_RECVERR, &on, sizeof(on));
}

int up_rows_receive(struct up_env *env, int fd)
{
    struct udp_rx *rx = env->rx;
    int n;

    for (size_t i = 0; i < UP_ROWS_MAX; i++) {
        rx->msgs[i].msg_hdr.msg_namelen = sizeof(rx->from[i]);
        rx->msgs[i].msg_hdr.msg_control = &rx->control[i];
        rx->msgs[i].msg_hdr.msg_controllen = sizeof(rx->control[i].bytes);
    }
    n = recvmmsg(fd, rx->msgs, UP_ROWS_MAX, MSG_DONTWAIT, NULL);
    UP_COUNT(env, recv_calls);
    return n < 0 ? -errno : n;
}

void up_row_received(struct up_env *env, int i, struct up_row_in *out)
{
    struct msghdr *m = &env->rx->msgs[i].msg_hdr;

    *out = (struct up_row_in){ .data = env->rx->iov[i].iov_base, .len = env->rx->msgs[i].msg_len };
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

/* Where we are in a row. */
struct cursor {
    const struct iovec *range;
    size_t at;   /* in *range */
    size_t left; /* in all of them */
};

static struct cursor row_begin(const struct up_row_out *o)
{
    return (struct cursor){ o->data, 0, o->len };
}

/* The next bytes that lie together, at most @max. */
static struct iovec take(struct cursor *c, size_t max)
{
    struct iovec piece;

    while (c->at == c->range->iov_len && c->left > 0) {
        c->range++;
        c->at = 0;
    }
    piece.iov_base = (uint8_t *)c->range->iov_base + c->at;
    piece.iov_len = c->range->iov_len - c->at < max ? c->range->iov_len - c->at : max;
    c->at += piece.iov_len;
    c->left -= piece.iov_len;
    return piece;
}

/* The next @len bytes of a row as pieces of at most @size; with a header, each piece is a datagram and has it in front. */
static size_t put_pieces(const struct up_row_out *o, struct cursor *c, size_t len, size_t size,
                         struct iovec *iov)
{
    size_t n = 0;

    do {
        if (o->header_len > 0)
            iov[n++] = (struct iovec){ (void *)(uintptr_t)o->header, o->header_len };
        iov[n] = take(c, len < size ? len : size);
        len -= iov[n++].iov_len;
    } while (len > 0);
    return n;
}

static struct msghdr message(const struct up_row_out *o, struct iovec *iov, size_t n)
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

/* The next @len bytes, at most SEGMENTS_MAX datagrams, by one system call that cuts them. */
static int send_cut(struct up_env *env, int fd, const struct up_row_out *o, struct cursor c, size_t len)
{
    struct iovec iov[2 * SEGMENTS_MAX];
    _Alignas(struct cmsghdr) uint8_t control[UDP_CONTROL_MAX];
    uint16_t segment = (uint16_t)(o->header_len + o->gso_size);
    struct msghdr m = message(o, iov, put_pieces(o, &c, len, o->header_len > 0 ? o->gso_size : len, iov));

    if (o->control_len > 0)
        memcpy(control, o->control, o->control_len);
    m.msg_controllen =
        udp_put_control(control, o->control_len, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment));
    m.msg_control = control;
    return (int)send_message(env, fd, &m);
}

/* The same, each datagram a message of its own. @sent grows by those that left. */
static int send_each(struct up_env *env, int fd, const struct up_row_out *o, struct cursor c, size_t len,
                     size_t *sent)
{
    struct iovec iov[2 * SEGMENTS_MAX];
    struct mmsghdr msgs[SEGMENTS_MAX];
    size_t step = o->header_len > 0 ? 2 : 1, pieces = put_pieces(o, &c, len, o->gso_size, iov) / step,
           done = 0;

    for (size_t i = 0; i < pieces; i++)
        msgs[i] = (struct mmsghdr){ .msg_hdr = message(o, iov + i * step, step) };
    while (done < pieces) {
        int n = sendmmsg(fd, msgs + done, (unsigned)(pieces - done), MSG_NOSIGNAL | MSG_DONTWAIT);

        UP_COUNT(env, send_calls);
        if (n <= 0) {
            ssize_t r = n == 0                    ? -EAGAIN
                        : is_pending_error(errno) ? send_message(env, fd, &msgs[done].msg_hdr)
                                                  : -errno;

            if (r < 0)
                return (int)r;
            n = 1;
        }
        done += (size_t)n;
        *sent += (size_t)n;
    }
    return 0;
}

/* The next @len bytes; @c is moved past them, whatever becomes of them. */
static int send_row(struct up_env *env, int fd, const struct up_row_out *o, struct cursor *c, size_t len,
                    size_t *sent)
{
    int r = env->no_gso ? -EIO : send_cut(env, fd, o, *c, len);

    if (r == -EIO)
        env->no_gso = true;
    if (r == -EIO || r == -EINVAL || r == -EMSGSIZE)
        r = send_each(env, fd, o, *c, len, sent);
    else if (r >= 0)
        *sent += (len + o->gso_size - 1) / o->gso_size;
    while (len > 0)
        len -= take(c, len).iov_len;
    return r < 0 ? r : 0;
}

static int send_one(struct up_env *env, int fd, const struct up_row_out *o, size_t *sent)
{
    struct cursor c = row_begin(o);
    struct iovec iov[2];
    struct msghdr m = message(o, iov, put_pieces(o, &c, o->len, o->len, iov));
    ssize_t n = send_message(env, fd, &m);

    if (n < 0)
        return (int)n;
    (*sent)++;
    return 0;
}

int up_rows_send(struct up_env *env, int fd, const struct up_row_out *o, size_t *sent)
{
    size_t most = ROW_BYTES / (o->header_len + o->gso_size + 1);
    struct cursor c = row_begin(o);
    int r = 0;

    *sent = 0;
    if (o->gso_size == 0 || o->len <= o->gso_size) {
        r = send_one(env, fd, o, sent);
        return is_full(r) ? 0 : r;
    }
    most = most > SEGMENTS_MAX ? SEGMENTS_MAX : most == 0 ? 1 : most;
    while (c.left > 0 && r == 0)
        r = send_row(env, fd, o, &c, c.left < most * o->gso_size ? c.left : most * o->gso_size, sent);
    return is_full(r) ? 0 : r;
}
