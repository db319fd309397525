/* demo_tour.c - the clients of `culvert demo`: plain programs with plain sockets, who know nothing of a gateway.
 * Each part is done for IPv4 and IPv6, is bounded in time, and ends as a cell of the table that a person reads. */
#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "culvert/dns.h"
#include "culvert/loop.h"
#include "demo_impl.h"

enum { TRANSFER_BYTES = 64 << 20, DATAGRAMS = 100, AT_ONCE = 100, PINGS = 5, PATIENCE_S = 10 };

struct tour {
    struct demo_pattern pattern;
    struct ip_addr target; /* of the family whose turn it is */
    struct ip_addr dns;
    uint8_t piece[DEMO_PERIOD];
    char cell[40]; /* the answer of a part, for the table */
};

/* ---- sockets ---- */

static int fail(struct tour *t, const char *what) /* errno says more */
{
    snprintf(t->cell, sizeof(t->cell), "FAILED: %s", errno != 0 ? strerror(errno) : what);
    return -1;
}

static double ms_since(uint64_t start_us)
{
    return (double)(clock_now_us() - start_us) / 1000;
}

/* Connected; every wait on it is bounded. Return: fd, or -1 and errno. */
static int open_socket(const struct ip_addr *to, int type, int protocol, uint16_t port)
{
    struct ip_port at = { *to, port };
    struct timeval patience = { .tv_sec = PATIENCE_S };
    struct sockaddr_storage sa;
    socklen_t len = ip_to_sockaddr(&at, &sa);
    int fd = socket(sa.ss_family, type | SOCK_CLOEXEC, protocol);

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience,
               sizeof(patience)); /* bounds connect, too (socket(7)) */
    if (connect(fd, (struct sockaddr *)&sa, len) == 0)
        return fd;
    len = (socklen_t)errno;
    close(fd);
    errno = (int)len;
    return -1;
}

/* The answer's head, up to its empty line, byte by byte since the body follows. */
static bool read_ok(int fd)
{
    char head[256] = "";

    for (size_t len = 0; len < sizeof(head) - 1; len++) {
        if (recv(fd, head + len, 1, 0) != 1)
            return false;
        if (strstr(head, "\r\n\r\n") != NULL)
            return strncmp(head, "HTTP/1.0 200", 12) == 0;
    }
    return false;
}

static bool ask_bytes(int fd, size_t bytes)
{
    char request[64];

    snprintf(request, sizeof(request), "GET /bytes/%zu HTTP/1.0\r\n\r\n", bytes);
    return demo_send_all(fd, request, strlen(request));
}

/* ---- TCP ---- */

static int tour_first_answer(struct tour *t)
{
    uint64_t start_us = clock_now_us();
    int fd = open_socket(&t->target, SOCK_STREAM, 0, DEMO_TCP_PORT);
    bool well = fd >= 0 && ask_bytes(fd, 1) && read_ok(fd);

    if (fd >= 0)
        close(fd);
    if (!well)
        return fail(t, "no answer");
    snprintf(t->cell, sizeof(t->cell), "%.2f ms", ms_since(start_us));
    return 0;
}

static int rate(struct tour *t, uint64_t start_us)
{
    double ms = ms_since(start_us);

    snprintf(t->cell, sizeof(t->cell), "%.2f Gbit/s", TRANSFER_BYTES * 8.0 / ms / 1e6);
    return 0;
}

static int download(struct tour *t, int fd)
{
    uint64_t start_us = clock_now_us();
    size_t done = 0;
    ssize_t n;

    if (!ask_bytes(fd, TRANSFER_BYTES) || !read_ok(fd))
        return fail(t, "no answer");
    while ((n = recv(fd, t->piece, sizeof(t->piece), 0)) > 0) {
        if (!demo_pattern_holds(&t->pattern, done, t->piece, (size_t)n)) {
            errno = 0;
            return fail(t, "wrong bytes");
        }
        done += (size_t)n;
    }
    if (n < 0)
        return fail(t, "broken");
    errno = 0;
    return done == TRANSFER_BYTES ? rate(t, start_us) : fail(t, "cut off");
}

static int upload(struct tour *t, int fd)
{
    uint64_t start_us = clock_now_us();
    char head[64];

    snprintf(head, sizeof(head), "PUT / HTTP/1.0\r\nContent-Length: %d\r\n\r\n", TRANSFER_BYTES);
    if (!demo_send_all(fd, head, strlen(head)))
        return fail(t, "broken");
    for (size_t done = 0; done < TRANSFER_BYTES;) {
        size_t n = TRANSFER_BYTES - done < DEMO_PERIOD ? TRANSFER_BYTES - done : DEMO_PERIOD;

        if (!demo_send_all(fd, demo_pattern_at(&t->pattern, done), n))
            return fail(t, "broken");
        done += n;
    }
    errno = 0;
    return read_ok(fd) ? rate(t, start_us) : fail(t, "wrong bytes arrived");
}

static int transfer(struct tour *t, int (*fn)(struct tour *, int))
{
    int fd = open_socket(&t->target, SOCK_STREAM, 0, DEMO_TCP_PORT);
    int r = fd >= 0 ? fn(t, fd) : fail(t, "no connection");

    if (fd >= 0)
        close(fd);
    return r;
}

static int tour_download(struct tour *t)
{
    return transfer(t, download);
}

static int tour_upload(struct tour *t)
{
    return transfer(t, upload);
}

static int tour_at_once(struct tour *t)
{
    uint64_t start_us = clock_now_us();
    int fds[AT_ONCE], well = 0, error = 0;

    for (size_t i = 0; i < AT_ONCE; i++) {
        fds[i] = open_socket(&t->target, SOCK_STREAM, 0, DEMO_TCP_PORT);
        if (fds[i] < 0 || !ask_bytes(fds[i], 1000))
            error = errno;
    }
    for (size_t i = 0; i < AT_ONCE; i++) {
        if (fds[i] >= 0 && read_ok(fds[i]))
            well++;
        else
            error = errno;
        if (fds[i] >= 0)
            close(fds[i]);
    }
    errno = error;
    if (well < AT_ONCE)
        return fail(t, "some had no answer");
    snprintf(t->cell, sizeof(t->cell), "%.0f ms", ms_since(start_us));
    return 0;
}

static int tour_refused(struct tour *t)
{
    int fd = open_socket(&t->target, SOCK_STREAM, 0, DEMO_CLOSED_PORT);

    if (fd >= 0) {
        close(fd);
        errno = 0;
        return fail(t, "it opened");
    }
    if (errno != ECONNREFUSED)
        return fail(t, "");
    snprintf(t->cell, sizeof(t->cell), "refused, as it is");
    return 0;
}

/* ---- datagrams ---- */

/* @n times a datagram and its echo on a connected socket. Return: mean in ms; below 0 and errno: one was lost or wrong. */
static double round_trips(int fd, int n, uint8_t *message, size_t len, size_t compare_from)
{
    uint64_t start_us = clock_now_us();
    uint8_t reply[512];

    for (int i = 0; i < n; i++) {
        ssize_t got;

        message[len - 1] = (uint8_t)i;
        if (send(fd, message, len, 0) != (ssize_t)len)
            return -1;
        got = recv(fd, reply, sizeof(reply), 0);
        if (got < 0)
            return -1;
        errno = EBADMSG;
        if ((size_t)got != len ||
            memcmp(reply + compare_from, message + compare_from, len - compare_from) != 0)
            return -1;
    }
    return ms_since(start_us) / n;
}

static int echo(struct tour *t, int fd, int n, uint8_t *message, size_t len, size_t compare_from)
{
    double ms = fd >= 0 ? round_trips(fd, n, message, len, compare_from) : -1;
    int error = errno;

    if (fd >= 0)
        close(fd);
    errno = error;
    if (ms < 0)
        return fail(t, "lost");
    snprintf(t->cell, sizeof(t->cell), "%.2f ms", ms);
    return 0;
}

static int tour_udp(struct tour *t)
{
    uint8_t message[200] = "culvert";

    return echo(t, open_socket(&t->target, SOCK_DGRAM, 0, DEMO_UDP_PORT), DATAGRAMS, message, sizeof(message),
                0);
}

static int tour_ping(struct tour *t)
{
    bool v4 = ip_is4(&t->target);
    uint8_t message[64] = { v4 ? ICMP_ECHO : ICMP6_ECHO_REQUEST, 0, 0, 0, 0, 0, 0, 1 };
    int fd = open_socket(&t->target, SOCK_DGRAM, v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6, 0);

    return echo(t, fd, PINGS, message, sizeof(message), 8); /* type, checksum and id come back changed */
}

/* ---- names ---- */

static bool right_answer(struct tour *t, const uint8_t *reply, size_t len, const struct dns_question *q)
{
    struct dns_answer a;

    return dns_read_answer((struct span){ reply, len }, 1, q, &a) == 0 && a.n_addrs == 1 &&
           ip_equal(&a.addrs[0], &t->target);
}

static ssize_t recv_framed(int fd, uint8_t bytes[514]) /* a length and that many bytes; returns both */
{
    ssize_t n = recv(fd, bytes, 2, MSG_WAITALL);

    if (n != 2 || get_be16(bytes) > 512)
        return -1;
    n = recv(fd, bytes + 2, get_be16(bytes), MSG_WAITALL);
    return n < 0 ? n : n + 2;
}

/* The address of the family whose turn it is, by UDP or TCP. */
static int ask_name(struct tour *t, int type)
{
    struct dns_question q = { .type = ip_is4(&t->target) ? DNS_A : DNS_AAAA, .class = DNS_IN };
    size_t prefix = type == SOCK_STREAM ? 2 : 0; /* RFC 1035 section 4.2.2 */
    uint64_t start_us = clock_now_us();
    uint8_t bytes[514];
    struct buf query;
    ssize_t n = -1;
    int fd;

    dns_name_from_text(DEMO_NAME, &q.name);
    buf_init(&query, bytes + prefix, 512);
    dns_put_query(&query, 1, &q, true);
    if (prefix > 0)
        put_be16(bytes, (uint16_t)query.len);
    fd = open_socket(&t->dns, type, 0, 53);
    if (fd >= 0 && demo_send_all(fd, bytes, prefix + query.len))
        n = type == SOCK_STREAM ? recv_framed(fd, bytes) : recv(fd, bytes, sizeof(bytes), 0);
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return fail(t, "no answer");
    errno = 0;
    if ((size_t)n <= prefix || !right_answer(t, bytes + prefix, (size_t)n - prefix, &q))
        return fail(t, "wrong answer");
    snprintf(t->cell, sizeof(t->cell), "%.2f ms", ms_since(start_us));
    return 0;
}

static int tour_dns_udp(struct tour *t)
{
    return ask_name(t, SOCK_DGRAM);
}

static int tour_dns_tcp(struct tour *t)
{
    return ask_name(t, SOCK_STREAM);
}

/* ---- the table ---- */

static const struct part {
    const char *name;
    int (*fn)(struct tour *t); /* 0, or -1; either way t->cell says it */
} parts[] = {
    { "TCP, connect and first answer", tour_first_answer },
    { "TCP, download of 64 MiB", tour_download },
    { "TCP, upload of 64 MiB", tour_upload },
    { "TCP, 100 connections at once", tour_at_once },
    { "TCP, a closed port", tour_refused },
    { "UDP, mean of 100 echoes", tour_udp },
    { "ping, mean of 5", tour_ping },
    { "DNS over UDP", tour_dns_udp },
    { "DNS over TCP", tour_dns_tcp },
};

static int run_part(struct tour *t, const struct part *part, const char *target)
{
    int r;

    ip_parse(target, &t->target);
    t->cell[0] = '\0';
    errno = 0;
    r = part->fn(t);
    printf("  %-28s", t->cell);
    fflush(stdout);
    return r == 0 ? 0 : 1;
}

int demo_tour(const struct ip_addr *dns)
{
    struct tour *t = calloc(1, sizeof(*t));
    int failed = 0;

    if (t == NULL)
        return 1;
    demo_pattern_init(&t->pattern);
    t->dns = *dns;
    printf("  %-32s  %-28s  %s\n", "", "IPv4", "IPv6");
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        printf("  %-32s", parts[i].name);
        fflush(stdout);
        failed += run_part(t, &parts[i], DEMO_TARGET4);
        failed += run_part(t, &parts[i], DEMO_TARGET6);
        putchar('\n');
    }
    if (failed == 0)
        printf("\nall of it worked\n");
    else
        printf("\n%d of %zu parts failed\n", failed, 2 * ARRAY_LEN(parts));
    free(t);
    return failed;
}
