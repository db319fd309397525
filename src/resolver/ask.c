/* ask.c - one question, asked of the name servers until one of them says something useful.
 *
 * How it works: the servers are tried in turn, `attempts` rounds, each try for a share of the total time. A try sends the
 * question over UDP; a server that was tried before gets the same question again on the same socket, and its late answer
 * to the first is still welcome, as is that of every server tried so far. An answer cut short (TC) makes the exchange go
 * on over TCP. A server that refuses, breaks or cannot be reached is dead for this ask, and the next one is tried at once.
 *
 * Against forgery (RFC 5452, faults.md D3): each socket is connected, so that only its server is heard; the port is the
 * kernel's random choice, the id a random one; what does not match the question is counted, ignored, and waited on. */
#include "resolver_impl.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATAGRAMS_A_TURN 64     /* forged ones must not hold the loop (faults.md D4) */
#define DATAGRAM_MAX     4096   /* more than we offered to take */
#define TRY_MIN_US       200000 /* a try shorter than a slow round trip would only make noise */
#define TCP_LENGTH_BYTES 2

/* ---- one server ---- */

static void exchange_stop(struct exchange *x)
{
    struct loop *l = x->ask->r->loop;

    if (x->udp_fd >= 0) {
        loop_io_stop(l, &x->udp_io);
        close(x->udp_fd);
    }
    if (x->tcp_fd >= 0) {
        loop_io_stop(l, &x->tcp_io);
        close(x->tcp_fd);
    }
    free(x->tcp_answer);
    x->udp_fd = x->tcp_fd = -1;
    x->tcp_answer = NULL;
}

/* The server is out of the game; if it was its turn, the next one has it now. */
static void exchange_die(struct exchange *x)
{
    struct ask *a = x->ask;
    uint64_t now_us = loop_now_us(a->r->loop);

    exchange_stop(x);
    x->dead = true;
    if (a->current == x) {
        a->current = NULL;
        a->next_us = now_us;
        resolver_wake_at(a->r, now_us);
    }
}

static void ask_finish(struct ask *a, int err)
{
    for (size_t i = 0; i < a->n_exchanges; i++)
        exchange_stop(&a->exchanges[i]);
    a->done = true;
    a->err = err;
    resolver_wake_at(a->r, loop_now_us(a->r->loop));
}

/* A new id and the bytes of the query, TCP's length in front. */
static int exchange_build(struct exchange *x)
{
    struct buf out;
    int r = random_bytes(&x->id, sizeof(x->id));

    if (r != 0)
        return r;
    buf_init(&out, x->query + TCP_LENGTH_BYTES, sizeof(x->query) - TCP_LENGTH_BYTES);
    dns_put_query(&out, x->id, &x->ask->question, !x->no_edns);
    assert(!out.full);
    put_be16(x->query, (uint16_t)out.len);
    x->query_len = TCP_LENGTH_BYTES + out.len;
    return 0;
}

/* A connected (or connecting) socket to the server, or -errno. */
static int exchange_socket(const struct exchange *x, int type)
{
    const struct resolver *r = x->ask->r;
    int family = ip_is4(&x->server.at.addr) ? AF_INET : AF_INET6, fd, err;
    struct sockaddr_storage sa;
    socklen_t len = ip_to_sockaddr(&x->server.at, &sa);

    if (family == AF_INET6)
        ((struct sockaddr_in6 *)&sa)->sin6_scope_id = x->server.scope_id;
    if (r->make_socket != NULL)
        fd = r->make_socket(r->socket_arg, family, type, &x->server.at);
    else if ((fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0)
        fd = -errno;
    if (fd < 0 || connect(fd, (struct sockaddr *)&sa, len) == 0 || errno == EINPROGRESS)
        return fd;
    err = -errno;
    close(fd);
    return err;
}

/* ---- what a server said ---- */

static void exchange_tcp_start(struct exchange *x);
static int exchange_udp_send(struct exchange *x);

/* Some old servers answer FORMERR to what they do not know, some NOTIMP (RFC 6891 section 7): ask them plainly. */
static bool retry_without_edns(struct exchange *x, const struct dns_answer *answer)
{
    if (x->no_edns || answer->has_edns || x->tcp_fd >= 0 ||
        (answer->rcode != DNS_FORMERR && answer->rcode != DNS_NOTIMP))
        return false;
    x->no_edns = true;
    return exchange_build(x) == 0 && exchange_udp_send(x) == 0;
}

static void exchange_answered(struct exchange *x, const struct dns_answer *answer)
{
    struct ask *a = x->ask;

    a->reached = true;
    if (answer->truncated) {
        counter_add(&a->r->counters.truncated, 1);
        if (x->tcp_fd >= 0)
            exchange_die(x);
        else
            exchange_tcp_start(x);
    } else if (answer->rcode == DNS_NOERROR || answer->rcode == DNS_NXDOMAIN) {
        counter_add(&a->r->counters.answers, 1);
        a->answer = *answer;
        ask_finish(a, 0);
    } else if (!retry_without_edns(x, answer)) {
        counter_add(&a->r->counters.refused, 1);
        exchange_die(x);
    }
}

/* Return: false if the message was not for us, and the exchange goes on as if it had not come. */
static bool exchange_message(struct exchange *x, const uint8_t *data, size_t len)
{
    struct resolver_counters *c = &x->ask->r->counters;
    struct dns_answer answer;
    int r = dns_read_answer((struct span){ data, len }, x->id, &x->ask->question, &answer);

    if (r == -ENOMSG) {
        counter_add(&c->ignored, 1);
        return false;
    }
    if (r != 0) {
        counter_add(&c->malformed, 1);
        x->ask->reached = true;
        exchange_die(x);
    } else {
        exchange_answered(x, &answer);
    }
    return true;
}

/* ---- UDP ---- */

static void on_udp(struct loop_io *io, unsigned events)
{
    struct exchange *x = CONTAINER_OF(io, struct exchange, udp_io);
    uint8_t data[DATAGRAM_MAX];

    (void)events;
    for (int i = 0; i < DATAGRAMS_A_TURN; i++) {
        ssize_t n = recv(x->udp_fd, data, sizeof(data), 0);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0) { /* what ICMP said: port or host unreachable */
            x->ask->socket_err = -errno;
            x->ask->reached = true;
            exchange_die(x);
            return;
        }
        if (exchange_message(x, data, (size_t)n))
            return;
    }
}

static int exchange_udp_send(struct exchange *x)
{
    ssize_t n;

    if (x->udp_fd < 0) {
        int fd = exchange_socket(x, SOCK_DGRAM);

        if (fd < 0)
            return fd;
        x->udp_fd = fd;
        loop_io_start(x->ask->r->loop, &x->udp_io, fd, LOOP_READ, on_udp);
    }
    n = send(x->udp_fd, x->query + TCP_LENGTH_BYTES, x->query_len - TCP_LENGTH_BYTES, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != ENOBUFS) /* those two are a lost datagram */
        return -errno;
    counter_add(&x->ask->r->counters.sent, 1);
    return 0;
}

/* ---- TCP (RFC 7766) ---- */

static void tcp_failed(struct exchange *x, int err)
{
    x->ask->socket_err = err;
    exchange_die(x);
}

static int tcp_send(struct exchange *x)
{
    ssize_t n = send(x->tcp_fd, x->query + x->tcp_sent, x->query_len - x->tcp_sent, MSG_NOSIGNAL);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR || errno == ENOTCONN ? 0 : -errno;
    x->tcp_sent += (size_t)n;
    if (x->tcp_sent == x->query_len)
        loop_io_set(x->ask->r->loop, &x->tcp_io, LOOP_READ);
    return 0;
}

/* Where the next bytes belong: first the two of the length, then the message, whose memory is made when it is known. */
static int tcp_receive_at(struct exchange *x, uint8_t **at, size_t *len)
{
    size_t body = get_be16(x->answer_len), done;

    if (x->tcp_received < TCP_LENGTH_BYTES) {
        *at = x->answer_len + x->tcp_received;
        *len = TCP_LENGTH_BYTES - x->tcp_received;
        return 0;
    }
    if (body < DNS_HEADER_LEN)
        return -EBADMSG;
    if (x->tcp_answer == NULL && (x->tcp_answer = malloc(body)) == NULL)
        return -ENOMEM;
    done = x->tcp_received - TCP_LENGTH_BYTES;
    *at = x->tcp_answer + done;
    *len = body - done;
    return 0;
}

/* Return: 1 when the message is whole, 0 to wait for more, or -errno. */
static int tcp_receive(struct exchange *x)
{
    uint8_t *at;
    size_t len;
    ssize_t n;
    int r;

    for (;;) {
        if ((r = tcp_receive_at(x, &at, &len)) != 0)
            return r;
        if (len == 0)
            return 1;
        n = recv(x->tcp_fd, at, len, 0);
        if (n == 0)
            return -ECONNRESET;
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        x->tcp_received += (size_t)n;
    }
}

static void on_tcp(struct loop_io *io, unsigned events)
{
    struct exchange *x = CONTAINER_OF(io, struct exchange, tcp_io);
    int r = 0;

    if ((events & LOOP_WRITE) != 0 && x->tcp_sent < x->query_len)
        r = tcp_send(x);
    if (r == 0 && (events & LOOP_READ) != 0 && x->tcp_sent == x->query_len)
        r = tcp_receive(x);
    if (r == -EBADMSG)
        counter_add(&x->ask->r->counters.malformed, 1);
    if (r < 0)
        tcp_failed(x, r);
    else if (r == 1 && !exchange_message(x, x->tcp_answer, get_be16(x->answer_len)))
        exchange_die(x); /* over TCP nobody else can have sent it */
}

/* The try gets its full time anew: the server is alive and has more to say. */
static void exchange_tcp_start(struct exchange *x)
{
    struct ask *a = x->ask;
    int fd;

    exchange_stop(x);
    fd = exchange_build(x) == 0 ? exchange_socket(x, SOCK_STREAM) : -EIO;
    if (fd < 0) {
        tcp_failed(x, fd);
        return;
    }
    x->tcp_fd = fd;
    loop_io_start(a->r->loop, &x->tcp_io, fd, LOOP_READ | LOOP_WRITE, on_tcp);
    counter_add(&a->r->counters.sent, 1);
    if (a->current == x)
        a->next_us = loop_now_us(a->r->loop) + a->try_us;
}

/* ---- the whole question ---- */

void ask_init(struct ask *a, struct resolver *r, const struct dns_question *q, uint64_t now_us,
              uint64_t deadline_us)
{
    const struct resolv_conf *conf = &r->conf;
    uint64_t share_us;

    *a = (struct ask){ .r = r, .question = *q, .next_us = now_us, .deadline_us = deadline_us };
    a->n_exchanges = conf->n_servers;
    a->tries_max = (unsigned)conf->n_servers * conf->attempts;
    share_us = a->tries_max > 0 ? (deadline_us - now_us) / a->tries_max : 0;
    a->try_us = conf->timeout_ms * UINT64_C(1000);
    if (a->try_us > share_us)
        a->try_us = share_us;
    if (a->try_us < TRY_MIN_US)
        a->try_us = TRY_MIN_US;
    for (size_t i = 0; i < a->n_exchanges; i++)
        a->exchanges[i] =
            (struct exchange){ .ask = a, .server = conf->servers[i], .udp_fd = -1, .tcp_fd = -1 };
}

/* Starts one try, or goes on waiting for a server that is answering over TCP. 0, or -errno and the server is dead. */
static int ask_try(struct exchange *x)
{
    int r = 0;

    if (x->tcp_fd >= 0)
        return 0;
    if (x->query_len == 0)
        r = exchange_build(x);
    if (r == 0)
        r = exchange_udp_send(x);
    if (r != 0) {
        x->ask->socket_err = r;
        exchange_stop(x);
        x->dead = true;
    }
    return r;
}

static bool any_alive(const struct ask *a)
{
    for (size_t i = 0; i < a->n_exchanges; i++) {
        if (!a->exchanges[i].dead)
            return true;
    }
    return false;
}

/* The next server that is not dead; with all tries used up, late answers are waited for until the deadline. */
static void ask_next_try(struct ask *a, uint64_t now_us)
{
    a->current = NULL;
    while (a->tries < a->tries_max) {
        struct exchange *x = &a->exchanges[a->tries++ % a->n_exchanges];

        if (x->dead || ask_try(x) != 0)
            continue;
        a->current = x;
        a->next_us = now_us + a->try_us;
        break;
    }
    if (a->current == NULL || a->next_us > a->deadline_us)
        a->next_us = a->deadline_us;
    if (!any_alive(a))
        ask_finish(a, a->reached ? -EHOSTUNREACH : a->socket_err == 0 ? -ENETUNREACH : a->socket_err);
}

void ask_run(struct ask *a, uint64_t now_us)
{
    if (a->done || now_us < a->next_us)
        return;
    if (a->current != NULL)
        counter_add(&a->r->counters.timeouts, 1);
    if (now_us >= a->deadline_us)
        ask_finish(a, -ETIMEDOUT);
    else
        ask_next_try(a, now_us);
}

void ask_fini(struct ask *a)
{
    for (size_t i = 0; i < a->n_exchanges; i++)
        exchange_stop(&a->exchanges[i]);
    a->n_exchanges = 0;
}
