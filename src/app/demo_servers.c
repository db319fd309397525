/* demo_servers.c - the internet of `culvert demo`: a TCP server, a UDP echo and a name server on loopback.
 *
 * The TCP server speaks just enough HTTP/1.0: "GET /bytes/N" answers with N bytes of the pattern, "PUT" reads Content-Length
 * bytes and answers 200 if all of them are the pattern. A thread for each connection: there are a hundred at the most. */
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "culvert/dns.h"
#include "demo_impl.h"

struct demo_servers {
    struct demo_pattern pattern;
    int tcp, udp, dns_udp, dns_tcp; /* the first two listen to both families */
};

struct visit { /* one TCP connection */
    const struct demo_servers *servers;
    int fd;
};

/* ---- the pattern ---- */

void demo_pattern_init(struct demo_pattern *p)
{
    struct prng r;

    prng_seed(&r, 1);
    for (size_t i = 0; i < DEMO_PERIOD; i++)
        p->data[i] = p->data[i + DEMO_PERIOD] = (uint8_t)prng_next(&r);
}

const uint8_t *demo_pattern_at(const struct demo_pattern *p, uint64_t offset)
{
    return p->data + offset % DEMO_PERIOD;
}

bool demo_pattern_holds(const struct demo_pattern *p, uint64_t offset, const void *data, size_t len)
{
    const uint8_t *bytes = data;

    while (len > 0) {
        size_t n = len < DEMO_PERIOD ? len : DEMO_PERIOD;

        if (memcmp(bytes, demo_pattern_at(p, offset), n) != 0)
            return false;
        bytes += n;
        offset += n;
        len -= n;
    }
    return true;
}

/* ---- TCP ---- */

bool demo_send_all(int fd, const void *data, size_t len)
{
    const char *at = data;

    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static void answer_get(const struct visit *v, uint64_t bytes)
{
    const struct demo_pattern *p = &v->servers->pattern;
    char head[96];

    snprintf(head, sizeof(head), "HTTP/1.0 200 OK\r\nContent-Length: %llu\r\n\r\n",
             (unsigned long long)bytes);
    if (!demo_send_all(v->fd, head, strlen(head)))
        return;
    for (uint64_t done = 0; done < bytes;) {
        size_t n = bytes - done < DEMO_PERIOD ? (size_t)(bytes - done) : DEMO_PERIOD;

        if (!demo_send_all(v->fd, demo_pattern_at(p, done), n))
            return;
        done += n;
    }
}

static void answer_put(const struct visit *v, uint64_t bytes, const char *begun, size_t begun_len)
{
    const struct demo_pattern *p = &v->servers->pattern;
    bool exact = demo_pattern_holds(p, 0, begun, begun_len);
    uint64_t done = begun_len;
    char *piece = malloc(DEMO_PERIOD);
    ssize_t n;

    while (piece != NULL && done < bytes && (n = recv(v->fd, piece, DEMO_PERIOD, 0)) > 0) {
        exact = exact && demo_pattern_holds(p, done, piece, (size_t)n);
        done += (uint64_t)n;
    }
    free(piece);
    if (exact && done == bytes)
        demo_send_all(v->fd, "HTTP/1.0 200 OK\r\n\r\n", 19);
    else
        demo_send_all(v->fd, "HTTP/1.0 400 Bad Request\r\n\r\n", 28);
}

static void *serve_visit(void *arg)
{
    struct visit *v = arg;
    char head[1024] = "", *end = NULL, *body;
    size_t len = 0;
    unsigned long long bytes;
    ssize_t n;

    while (end == NULL && len < sizeof(head) - 1 &&
           (n = recv(v->fd, head + len, sizeof(head) - 1 - len, 0)) > 0) {
        len += (size_t)n;
        head[len] = '\0';
        end = strstr(head, "\r\n\r\n");
    }
    if (end != NULL) {
        body = end + 4;
        if (sscanf(head, "GET /bytes/%llu ", &bytes) == 1)
            answer_get(v, bytes);
        else if (sscanf(head, "PUT / HTTP/1.0\r\nContent-Length: %llu", &bytes) == 1)
            answer_put(v, bytes, body, len - (size_t)(body - head));
    }
    close(v->fd);
    free(v);
    return NULL;
}

static bool detach_thread(void *(*fn)(void *), void *arg)
{
    pthread_t thread;

    return pthread_create(&thread, NULL, fn, arg) == 0 && pthread_detach(thread) == 0;
}

static void *serve_tcp(void *arg)
{
    const struct demo_servers *s = arg;

    for (;;) {
        struct visit *v = malloc(sizeof(*v));

        if (v == NULL)
            continue;
        *v = (struct visit){ s, accept(s->tcp, NULL, NULL) };
        if (v->fd < 0 || !detach_thread(serve_visit, v)) {
            if (v->fd >= 0)
                close(v->fd);
            free(v);
        }
    }
    return NULL;
}

/* ---- UDP and names ---- */

static void *serve_udp(void *arg)
{
    const struct demo_servers *s = arg;
    char data[2048];

    for (;;) {
        struct sockaddr_storage from;
        socklen_t from_len = sizeof(from);
        ssize_t n = recvfrom(s->udp, data, sizeof(data), 0, (struct sockaddr *)&from, &from_len);

        if (n >= 0)
            sendto(s->udp, data, (size_t)n, 0, (struct sockaddr *)&from, from_len);
    }
    return NULL;
}

/* Every A is DEMO_TARGET4, every AAAA DEMO_TARGET6, whatever the name. Return: bytes of the reply; 0: none. */
static size_t answer_name(const uint8_t *query, size_t len, uint8_t *reply, size_t cap)
{
    struct dns_query q;
    struct dns_record record = { .ttl_s = 60 };
    struct buf out;

    if (dns_read_query((struct span){ query, len }, &q) != 0 || !q.has_question)
        return 0;
    record.type = q.question.type;
    ip_parse(q.question.type == DNS_AAAA ? DEMO_TARGET6 : DEMO_TARGET4, &record.addr);
    buf_init(&out, reply, cap);
    if (dns_put_reply(&out, &q, DNS_NOERROR, &record, record.type == DNS_A || record.type == DNS_AAAA) != 0)
        return 0;
    return out.len;
}

static void *serve_dns_udp(void *arg)
{
    const struct demo_servers *s = arg;
    uint8_t query[512], reply[512];

    for (;;) {
        struct sockaddr_storage from;
        socklen_t from_len = sizeof(from);
        ssize_t n = recvfrom(s->dns_udp, query, sizeof(query), 0, (struct sockaddr *)&from, &from_len);
        size_t len = n > 0 ? answer_name(query, (size_t)n, reply, sizeof(reply)) : 0;

        if (len > 0)
            sendto(s->dns_udp, reply, len, 0, (struct sockaddr *)&from, from_len);
    }
    return NULL;
}

static void *serve_dns_tcp(void *arg) /* one question a connection */
{
    const struct demo_servers *s = arg;
    uint8_t query[514], reply[514];

    for (;;) {
        int fd = accept(s->dns_tcp, NULL, NULL);
        size_t got = 0, len = 0;
        ssize_t n;

        while (got < sizeof(query) && (got < 2 || got < 2u + get_be16(query)) &&
               (n = recv(fd, query + got, sizeof(query) - got, 0)) > 0)
            got += (size_t)n;
        if (got > 2)
            len = answer_name(query + 2, got - 2, reply + 2, sizeof(reply) - 2);
        put_be16(reply, (uint16_t)len);
        if (len > 0)
            demo_send_all(fd, reply, len + 2);
        if (fd >= 0)
            close(fd);
    }
    return NULL;
}

/* ---- start ---- */

/* Bound to @where, or to all addresses of both families when it is NULL. Return: fd or -errno. */
static int bind_socket(int type, const char *where, uint16_t port)
{
    struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(port) }; /* IPv4, too (ipv6(7)) */
    struct ip_port at = { .port = port };
    struct sockaddr_storage sa;
    socklen_t len = sizeof(any);
    int fd, r;

    memcpy(&sa, &any, sizeof(any));
    if (where != NULL) {
        ip_parse(where, &at.addr);
        len = ip_to_sockaddr(&at, &sa);
    }
    fd = socket(sa.ss_family, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&sa, len) == 0 && (type != SOCK_STREAM || listen(fd, 256) == 0))
        return fd;
    r = -errno;
    close(fd);
    return r;
}

int demo_servers_start(struct demo_servers **out, struct err *err)
{
    struct demo_servers *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return err_set(err, -ENOMEM, "no memory");
    demo_pattern_init(&s->pattern);
    s->tcp = bind_socket(SOCK_STREAM, NULL, DEMO_TCP_PORT);
    s->udp = bind_socket(SOCK_DGRAM, NULL, DEMO_UDP_PORT);
    s->dns_udp = bind_socket(SOCK_DGRAM, DEMO_DNS, 53);
    s->dns_tcp = bind_socket(SOCK_STREAM, DEMO_DNS, 53);
    *out = s; /* they all end with the process, so nothing is undone */
    if (s->tcp < 0 || s->udp < 0 || s->dns_udp < 0 || s->dns_tcp < 0)
        return err_set(err, -EADDRNOTAVAIL, "the tour's own servers cannot listen");
    if (!detach_thread(serve_tcp, s) || !detach_thread(serve_udp, s) || !detach_thread(serve_dns_udp, s) ||
        !detach_thread(serve_dns_tcp, s))
        return err_set(err, -EAGAIN, "the tour's own servers cannot start");
    return 0;
}
