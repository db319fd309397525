/* calls.c - how long each system call of a short connection takes: a library between the program and libc (tests/bench/run --calls).
 *
 * Every thread counts in a table of its own. At the end one line for each kind goes to the file that CALLS_FILE names, which is
 * opened at the start, before a sandbox forbids it:
 *     writev.SYN-ACK 8694 8700 9500 19950        how many; a tenth, half, and nine tenths of them took at most so many ns
 * A median says more than a mean here: whoever is woken by a call may take the processor in the middle of it. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define STEP_NS     50
#define STEPS       400 /* 20 us; what takes longer is in the last */
#define THREADS_MAX 64
#define VNET_HEADER 10
#define OUT_FD      900 /* out of the way of descriptors that the program counts on */

#define KINDS(X)                                                                                             \
    X(WRITE_SYNACK, "writev.SYN-ACK")                                                                        \
    X(WRITE_ACK, "writev.ACK")                                                                               \
    X(WRITE_DATA, "writev.data")                                                                             \
    X(WRITE_FIN, "writev.FIN")                                                                               \
    X(WRITE_OTHER, "writev.other")                                                                           \
    X(READ, "readv")                                                                                         \
    X(READ_NOTHING, "readv.nothing")                                                                         \
    X(CONNECT, "connect")                                                                                    \
    X(SEND, "send")                                                                                          \
    X(SENDMSG, "sendmsg")                                                                                    \
    X(RECV, "recv")                                                                                          \
    X(RECV_NOTHING, "recv.nothing")                                                                          \
    X(SHUTDOWN, "shutdown")                                                                                  \
    X(CLOSE, "close")                                                                                        \
    X(SOCKET, "socket")                                                                                      \
    X(SETSOCKOPT, "setsockopt")                                                                              \
    X(GETSOCKNAME, "getsockname")                                                                            \
    X(EPOLL_CTL, "epoll_ctl")                                                                                \
    X(EPOLL_WAIT, "epoll_wait")

enum kind {
#define KIND(id, text) id,
    KINDS(KIND)
#undef KIND
        KIND_COUNT
};

static const char *const names[KIND_COUNT] = {
#define KIND(id, text) text,
    KINDS(KIND)
#undef KIND
};

struct table {
    uint32_t took[KIND_COUNT][STEPS];
};

static struct table tables[THREADS_MAX];
static unsigned threads; /* tables that are taken */
static _Thread_local struct table *mine;
static int out_fd = -1;

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void note(enum kind kind, uint64_t since_ns)
{
    uint64_t step = (now_ns() - since_ns) / STEP_NS;

    if (mine == NULL)
        mine = &tables[__atomic_fetch_add(&threads, 1, __ATOMIC_RELAXED) % THREADS_MAX];
    mine->took[kind][step < STEPS ? step : STEPS - 1]++;
}

/* ---- what a packet is ---- */

/* The flags of an IPv4 TCP packet say it; everything else is other. */
static enum kind packet_kind(const uint8_t *p, size_t len)
{
    size_t ip = len > 0 ? (p[0] & 15) * 4u : 0;
    unsigned flags, total;

    if (len < ip + 20 || p[0] >> 4 != 4 || p[9] != 6)
        return WRITE_OTHER;
    flags = p[ip + 13];
    total = (unsigned)p[2] << 8 | p[3];
    if (flags & 4)
        return WRITE_OTHER;
    if (flags & 2)
        return WRITE_SYNACK;
    if (flags & 1)
        return WRITE_FIN;
    return total > ip + (p[ip + 12] >> 4) * 4u ? WRITE_DATA : WRITE_ACK;
}

static enum kind vector_kind(const struct iovec *iov, int n)
{
    uint8_t head[VNET_HEADER + 60];
    size_t len = 0;

    for (int i = 0; i < n && len < sizeof(head); i++) {
        size_t part = iov[i].iov_len < sizeof(head) - len ? iov[i].iov_len : sizeof(head) - len;

        memcpy(head + len, iov[i].iov_base, part);
        len += part;
    }
    return len > VNET_HEADER ? packet_kind(head + VNET_HEADER, len - VNET_HEADER) : WRITE_OTHER;
}

/* ---- the calls ---- */

/* The next one of this name: libc's. */
#define TIMED(type, name, parameters, arguments, kind)                                                       \
    type name parameters                                                                                     \
    {                                                                                                        \
        static type(*real) parameters;                                                                       \
        uint64_t since_ns;                                                                                   \
        type r;                                                                                              \
                                                                                                             \
        if (real == NULL)                                                                                    \
            *(void **)&real = dlsym(RTLD_NEXT, #name);                                                       \
        since_ns = now_ns();                                                                                 \
        r = real arguments;                                                                                  \
        note(kind, since_ns);                                                                                \
        return r;                                                                                            \
    }

TIMED(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n), vector_kind(v, n))
TIMED(ssize_t, readv, (int fd, const struct iovec *v, int n), (fd, v, n), r < 0 ? READ_NOTHING : READ)
TIMED(int, connect, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), CONNECT)
TIMED(ssize_t, send, (int fd, const void *p, size_t n, int flags), (fd, p, n, flags), SEND)
TIMED(ssize_t, sendmsg, (int fd, const struct msghdr *m, int flags), (fd, m, flags), SENDMSG)
TIMED(ssize_t, recv, (int fd, void *p, size_t n, int flags), (fd, p, n, flags), r < 0 ? RECV_NOTHING : RECV)
TIMED(int, shutdown, (int fd, int how), (fd, how), SHUTDOWN)
TIMED(int, close, (int fd), (fd), CLOSE)
TIMED(int, socket, (int family, int type, int proto), (family, type, proto), SOCKET)
TIMED(int, setsockopt, (int fd, int level, int name, const void *p, socklen_t n), (fd, level, name, p, n),
      SETSOCKOPT)
TIMED(int, getsockname, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), GETSOCKNAME)
TIMED(int, epoll_ctl, (int ep, int op, int fd, struct epoll_event *e), (ep, op, fd, e), EPOLL_CTL)
TIMED(int, epoll_wait, (int ep, struct epoll_event *e, int n, int ms), (ep, e, n, ms), EPOLL_WAIT)

/* ---- the end ---- */

__attribute__((constructor)) static void open_file(void)
{
    const char *path = getenv("CALLS_FILE");
    int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;

    if (fd >= 0)
        out_fd = fcntl(fd, F_DUPFD_CLOEXEC, OUT_FD);
}

static unsigned at_most_ns(const uint32_t took[STEPS], uint64_t rank)
{
    uint64_t seen = 0;

    for (unsigned i = 0; i < STEPS; i++) {
        seen += took[i];
        if (seen >= rank)
            return (i + 1) * STEP_NS;
    }
    return STEPS * STEP_NS;
}

/* A process that opened no connection (the helper) has nothing to tell. */
__attribute__((destructor)) static void write_file(void)
{
    uint64_t count[KIND_COUNT] = { 0 };

    for (unsigned t = 1; t < THREADS_MAX; t++)
        for (unsigned k = 0; k < KIND_COUNT; k++)
            for (unsigned i = 0; i < STEPS; i++)
                tables[0].took[k][i] += tables[t].took[k][i];
    for (unsigned k = 0; k < KIND_COUNT; k++)
        for (unsigned i = 0; i < STEPS; i++)
            count[k] += tables[0].took[k][i];
    for (unsigned k = 0; out_fd >= 0 && count[CONNECT] > 0 && k < KIND_COUNT; k++)
        dprintf(out_fd, "%s %llu %u %u %u\n", names[k], (unsigned long long)count[k],
                at_most_ns(tables[0].took[k], (count[k] + 9) / 10),
                at_most_ns(tables[0].took[k], (count[k] + 1) / 2),
                at_most_ns(tables[0].took[k], (count[k] * 9 + 9) / 10));
}
