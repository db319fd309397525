/* fake_dns.c - the moods of a name server, good and bad. */
#include "fake_dns.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FORGED_ANSWERS 200

struct reply {
    uint8_t bytes[4096];
    struct buf b;
};

static bool mood_is(const char *mood, const char *name)
{
    return strcmp(mood, name) == 0;
}

static void mood_of(const struct fake_dns *d, const struct dns_query *q, char out[64])
{
    const struct dns_name *n = &q->question.name;

    if (d->mood != NULL)
        snprintf(out, 64, "%s", d->mood);
    else
        snprintf(out, 64, "%.*s", (int)n->wire[0], (const char *)n->wire + 1);
}

static void put(struct reply *r, const struct dns_query *q, enum dns_rcode rcode,
                const struct dns_record *records, size_t n)
{
    buf_init(&r->b, r->bytes, sizeof(r->bytes));
    if (dns_put_reply(&r->b, q, rcode, records, n) != 0)
        abort();
}

static void put_good(struct reply *r, const struct dns_query *q, uint32_t ttl_s)
{
    static const uint8_t one[4] = { 192, 0, 2, 1 }, two[4] = { 192, 0, 2, 2 };
    static const uint8_t six[16] = { 0x20, 1, 0xd, 0xb8, [15] = 1 };
    struct dns_record records[2] = { { .type = q->question.type, .ttl_s = ttl_s },
                                     { .type = q->question.type, .ttl_s = ttl_s } };

    records[0].addr = q->question.type == DNS_A ? ip_from4(one) : ip_from6(six);
    records[1].addr = ip_from4(two);
    put(r, q, DNS_NOERROR, records, q->question.type == DNS_A ? 2 : 1);
}

static void put_forged(struct reply *r, const struct dns_query *q)
{
    static const uint8_t evil[4] = { 203, 0, 113, 66 };
    struct dns_record record = { .type = DNS_A, .ttl_s = 60, .addr = ip_from4(evil) };

    put(r, q, DNS_NOERROR, &record, 1);
}

static void put_chain(struct reply *r, const struct dns_query *q, unsigned steps)
{
    static const uint8_t one[4] = { 192, 0, 2, 1 };
    struct dns_record records[24] = { { .type = DNS_CNAME } };
    struct dns_name names[24];
    char text[32];

    for (unsigned i = 0; i < steps; i++) {
        snprintf(text, sizeof(text), "n%u.example", i);
        if (dns_name_from_text(text, &names[i]) != 0)
            abort();
        records[i] = (struct dns_record){
            .owner = i > 0 ? &names[i - 1] : NULL, .type = DNS_CNAME, .ttl_s = 60, .name = &names[i]
        };
    }
    records[steps] =
        (struct dns_record){ .owner = &names[steps - 1], .type = DNS_A, .ttl_s = 60, .addr = ip_from4(one) };
    put(r, q, DNS_NOERROR, records, q->question.type == DNS_A ? steps + 1 : steps);
}

/* What a mood says over TCP and UDP alike; false: nothing at all. */
static bool compose(const struct fake_dns *d, const char *mood, const struct dns_query *q, struct reply *r)
{
    bool is_a = q->question.type == DNS_A;

    if (mood_is(mood, "silent") || (mood_is(mood, "slow6") && !is_a))
        return false;
    if (mood_is(mood, "nx"))
        put(r, q, DNS_NXDOMAIN, NULL, 0);
    else if (mood_is(mood, "empty") || (mood_is(mood, "four") && !is_a) || (mood_is(mood, "six") && is_a))
        put(r, q, DNS_NOERROR, NULL, 0);
    else if (mood_is(mood, "servfail"))
        put(r, q, DNS_SERVFAIL, NULL, 0);
    else if (mood_is(mood, "refused"))
        put(r, q, DNS_REFUSED, NULL, 0);
    else if (mood_is(mood, "no-edns") && q->has_edns)
        put(r, &(struct dns_query){ .id = q->id }, DNS_FORMERR, NULL, 0);
    else if (mood_is(mood, "chain16"))
        put_chain(r, q, 16);
    else if (mood_is(mood, "chain17"))
        put_chain(r, q, 17);
    else
        put_good(r, q, d->ttl_s);
    if (mood_is(mood, "count-lies")) /* one record more than there is */
        r->bytes[7]++;
    return true;
}

static void udp_send(struct fake_dns *d, const struct reply *r, const struct sockaddr_storage *to,
                     socklen_t len)
{
    (void)!sendto(d->udp_fd, r->bytes, r->b.len, 0, (const struct sockaddr *)to, len);
}

/* Answers that must not be taken; the right one follows (faults.md D3, D4). */
static void udp_forge(struct fake_dns *d, const char *mood, struct dns_query q,
                      const struct sockaddr_storage *to, socklen_t len)
{
    unsigned n = mood_is(mood, "forged") ? FORGED_ANSWERS : 1;
    struct reply r;

    if (mood_is(mood, "other-name"))
        q.question.name.wire[1] ^= 1;
    if (mood_is(mood, "case"))
        q.question.name.wire[1] ^= 0x20;
    for (unsigned i = 0; i < n; i++) {
        if (mood_is(mood, "wrong-id") || mood_is(mood, "forged"))
            q.id++;
        put_forged(&r, &q);
        if (mood_is(mood, "not-an-answer"))
            r.bytes[2] &= 0x7f;
        if (mood_is(mood, "short"))
            r.b.len = 11;
        udp_send(d, &r, to, len);
    }
}

static bool forges(const char *mood)
{
    static const char *const names[] = {
        "wrong-id", "forged", "other-name", "case", "not-an-answer", "short"
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (mood_is(mood, names[i]))
            return true;
    }
    return false;
}

static void udp_note(struct fake_dns *d, const struct dns_query *q, const struct sockaddr_storage *from)
{
    struct ip_port at;

    if (d->udp_queries < ARRAY_LEN(d->ids) && ip_from_sockaddr((const struct sockaddr *)from, &at) == 0) {
        d->ids[d->udp_queries] = q->id;
        d->ports[d->udp_queries] = at.port;
    }
    d->udp_queries++;
}

static void on_udp(struct loop_io *io, unsigned events)
{
    struct fake_dns *d = CONTAINER_OF(io, struct fake_dns, udp_io);
    struct sockaddr_storage from;
    socklen_t len = sizeof(from);
    struct dns_query q;
    uint8_t bytes[512];
    struct reply r;
    char mood[64];
    ssize_t n = recvfrom(d->udp_fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &len);

    (void)events;
    if (n < 0 || dns_read_query((struct span){ bytes, (size_t)n }, &q) != 0)
        return;
    udp_note(d, &q, &from);
    mood_of(d, &q, mood);
    if (mood_is(mood, "lost") && d->udp_queries <= 2) /* the first try of both families */
        return;
    if (forges(mood))
        udp_forge(d, mood, q, &from, len);
    if (!compose(d, mood, &q, &r))
        return;
    if (strncmp(mood, "tc", 2) == 0) {
        put(&r, &q, DNS_NOERROR, NULL, 0);
        r.bytes[2] |= 0x02;
    }
    udp_send(d, &r, &from, len);
}

static void conn_close(struct fake_dns_conn *c)
{
    if (c->fd < 0)
        return;
    loop_io_stop(c->server->loop, &c->io);
    close(c->fd);
    c->fd = -1;
}

static void tcp_send(struct fake_dns_conn *c, const struct reply *r, size_t length_said, size_t sent)
{
    uint8_t out[sizeof(r->bytes) + 2];

    put_be16(out, (uint16_t)length_said);
    memcpy(out + 2, r->bytes, r->b.len);
    (void)!send(c->fd, out, sent + 2, MSG_NOSIGNAL);
}

static void tcp_answer(struct fake_dns_conn *c, const struct dns_query *asked)
{
    struct dns_query q = *asked;
    struct reply r;
    char mood[64];

    mood_of(c->server, &q, mood);
    if (mood_is(mood, "tc-other-id"))
        q.id++;
    put_good(&r, &q, c->server->ttl_s);
    if (mood_is(mood, "tc-zero"))
        tcp_send(c, &r, 0, 0);
    else if (mood_is(mood, "tc-hang"))
        tcp_send(c, &r, r.b.len, 0);
    else if (mood_is(mood, "tc-half"))
        tcp_send(c, &r, 65535, r.b.len);
    else if (!mood_is(mood, "tc-close"))
        tcp_send(c, &r, r.b.len, r.b.len);
    if (mood_is(mood, "tc-close") || mood_is(mood, "tc-half"))
        conn_close(c);
}

static void on_conn(struct loop_io *io, unsigned events)
{
    struct fake_dns_conn *c = CONTAINER_OF(io, struct fake_dns_conn, io);
    ssize_t n = recv(c->fd, c->bytes + c->got, sizeof(c->bytes) - c->got, 0);
    struct dns_query q;

    (void)events;
    if (n <= 0) {
        conn_close(c);
        return;
    }
    c->got += (size_t)n;
    if (c->got < 2 || c->got < 2u + get_be16(c->bytes))
        return;
    c->got = 0;
    c->server->tcp_queries++;
    if (dns_read_query((struct span){ c->bytes + 2, get_be16(c->bytes) }, &q) == 0)
        tcp_answer(c, &q);
}

static void on_tcp(struct loop_io *io, unsigned events)
{
    struct fake_dns *d = CONTAINER_OF(io, struct fake_dns, tcp_io);
    int fd = accept4(d->tcp_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)events;
    for (size_t i = 0; fd >= 0 && i < FAKE_DNS_CONNS; i++) {
        if (d->conns[i].fd >= 0)
            continue;
        d->conns[i] = (struct fake_dns_conn){ .server = d, .fd = fd };
        loop_io_start(d->loop, &d->conns[i].io, fd, LOOP_READ, on_conn);
        return;
    }
    if (fd >= 0)
        close(fd);
}

static int bind_to(int type, struct ip_port *at)
{
    struct sockaddr_storage sa;
    socklen_t len = ip_to_sockaddr(at, &sa);
    int fd = socket(sa.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), r;

    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&sa, len) != 0 || getsockname(fd, (struct sockaddr *)&sa, &len) != 0) {
        r = -errno;
        close(fd);
        return r;
    }
    ip_from_sockaddr((struct sockaddr *)&sa, at);
    return fd;
}

int fake_dns_open(struct fake_dns *d, struct loop *l, const char *addr)
{
    *d = (struct fake_dns){ .loop = l, .udp_fd = -1, .tcp_fd = -1, .ttl_s = 60 };
    for (size_t i = 0; i < FAKE_DNS_CONNS; i++)
        d->conns[i].fd = -1;
    if (ip_parse(addr, &d->at.addr) != 0)
        return -EINVAL;
    for (int i = 0; i < 20 && d->udp_fd < 0; i++) { /* until UDP has a port that TCP has free, too */
        d->at.port = 0;
        d->tcp_fd = bind_to(SOCK_STREAM, &d->at);
        if (d->tcp_fd < 0)
            return d->tcp_fd;
        d->udp_fd = bind_to(SOCK_DGRAM, &d->at);
        if (d->udp_fd < 0)
            close(d->tcp_fd);
    }
    if (d->udp_fd < 0)
        return d->udp_fd;
    if (listen(d->tcp_fd, 16) != 0)
        return -errno;
    loop_io_start(l, &d->udp_io, d->udp_fd, LOOP_READ, on_udp);
    loop_io_start(l, &d->tcp_io, d->tcp_fd, LOOP_READ, on_tcp);
    return 0;
}

void fake_dns_close(struct fake_dns *d)
{
    if (d->udp_fd < 0)
        return;
    for (size_t i = 0; i < FAKE_DNS_CONNS; i++)
        conn_close(&d->conns[i]);
    loop_io_stop(d->loop, &d->udp_io);
    loop_io_stop(d->loop, &d->tcp_io);
    close(d->udp_fd);
    close(d->tcp_fd);
    d->udp_fd = d->tcp_fd = -1;
}
