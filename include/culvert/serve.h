/* serve.h - the far end: a SOCKS5 server (RFC 1928, 1929) and a MASQUE server, for `culvert serve`, `demo` and tests.
 * Knows     listening sockets and, for its dials, the same sockets as upstream's DIRECT; pings go through src/echo.
 * Threads   *_open and *_close: [main] while the loop does not run, else its thread; everything else runs in the worker threads it is given, one listener each
 *           (SO_REUSEPORT), nothing shared but the immutable options. */
#ifndef CULVERT_SERVE_H
#define CULVERT_SERVE_H

#include "culvert/base.h"
#include "culvert/echo.h"
#include "culvert/loop.h"
#include "culvert/upstream.h"

struct serve_user {
    const char *name, *password; /* 1..255 bytes each */
};

struct serve_per_user {
    uint32_t flows;            /* at a time, in all threads; 0: no limit */
    uint64_t bytes_per_second; /* each way; 0: no limit */
};

/* What users take at the moment, one for all threads of a server. [main] */
struct serve_ledger;
int serve_ledger_new(const struct serve_per_user *limits, size_t users,
                     struct serve_ledger **out); /* 0, -ENOMEM */
void serve_ledger_free(struct serve_ledger *l);  /* after all threads; NULL is fine */

#define SERVE_STREAMS_DEFAULT 16384

struct serve_options {              /* copied by serve_open(), users with their strings */
    struct ip_port listen;          /* port 0: any; see serve_port() */
    bool udp;                       /* UDP ASSOCIATE and UDP in TCP; what is read from a file: true */
    const struct serve_user *users; /* none: no login */
    size_t user_count;
    struct ip_prefix allow[32]; /* destinations allowed; none: all (it binds to loopback by default) */
    size_t allows;
    struct serve_per_user per_user;
    struct serve_ledger *ledger; /* borrowed; shared by all threads; NULL: no limits of users */
    uint32_t connect_timeout_ms; /* of the handshake, and of a dial; 0: 10,000 */
    uint32_t max_streams;        /* per thread; 0: SERVE_STREAMS_DEFAULT */
};

/* One server thread's part: listener, connections, associations. */
struct serve;
/** serve_open() - start listening in @env's loop; each thread opens its own on the same address
 * @env: borrowed until serve_close()
 * Return: 0; -errno with a sentence in @err (faults.md C8: port in use). */
int serve_open(const struct serve_options *opt, struct up_env *env, struct serve **out, struct err *err);
uint16_t serve_port(const struct serve *s); /* the one that was bound, host order */
/* Who may do what, as it is read again: users, `allow`, limits, and of MASQUE the certificate. */
struct serve_access;
/** serve_access_new(), masque_access_new() - a copy of that part of @opt, in one piece that belongs to whoever has it. NULL: no memory [any] */
struct serve_access *serve_access_new(const struct serve_options *opt);
void serve_access_free(struct serve_access *a); /* NULL is fine; [any] while no server has it */
/** serve_set_access() - takes @a: for connections from now on; what is open goes on. Return: 0; -ENOMEM, and all is as it was. */
int serve_set_access(struct serve *s, struct serve_access *a);
void serve_close(struct serve *s); /* all connections with it, at once; NULL is fine */

struct serve_counters {
    counter accepted, refused, streams, udp_associations, bytes_up, bytes_down, datagrams_up, datagrams_down,
        bad_requests, login_failed;
};
const struct serve_counters *serve_counters(const struct serve *s);

/* ---- MASQUE: a proxy over TLS ------------------------------------------------------------------------------------ */

/* CONNECT by HTTP/1.1 and HTTP/2 (RFC 9110 section 9.3.6): what a browser or curl calls an HTTPS proxy. By HTTP/2 also UDP
 * (RFC 9298), and pings (RFC 9484, ICMP and ICMPv6 echo only). */
struct masque_options {
    struct ip_port listen; /* port 0: any; see masque_port() */
    /* a server's, with ALPN; masque_open() takes a reference */
    struct tls_settings *tls;
    const struct serve_user *users; /* none: no login */
    size_t user_count;
    bool echo; /* carry pings */
    /* Destinations that may be dialled although they are private, loopback, link-local or this host's own. */
    struct ip_prefix allow[32];
    size_t allows;
    struct serve_per_user per_user;
    struct serve_ledger *ledger; /* borrowed; shared by all threads; NULL: no limits of users */
    uint32_t connect_timeout_ms; /* of a dial, and of TLS and the request before it; 0: 10,000 */
    uint32_t max_streams;        /* per thread; 0: SERVE_STREAMS_DEFAULT */
};

struct masque; /* one server thread's part */
/** masque_open() - start listening in @env's loop; @opt is copied, @env borrowed until masque_close()
 * Return: 0; -errno with a sentence in @err */
int masque_open(const struct masque_options *opt, struct up_env *env, struct masque **out, struct err *err);
uint16_t masque_port(const struct masque *m);
struct serve_access *masque_access_new(const struct masque_options *opt);
/** masque_set_access() - takes @a: for connections, requests and pings from now on; what is open goes on
 * Return: 0; -ENOMEM, and all is as it was. */
int masque_set_access(struct masque *m, struct serve_access *a);
/** masque_attach_echo() - pings leave through @echo, whose on_answer is masque_on_echo_answer() and arg this server
 * @exit: who says that a hop limit ran out here, for IPv4 and IPv6; none: a ping's time is up in silence */
void masque_attach_echo(struct masque *m, struct echo_proxy *echo, const struct ip_addr *exit4,
                        const struct ip_addr *exit6);
/** masque_on_echo_answer() - on_answer of that proxy; @responder: as the server gave it, late and foreign ones are dropped and counted */
void masque_on_echo_answer(void *masque, uint64_t responder, const struct echo_proxy_answer *a);
void masque_close(struct masque *m); /* all connections with it; NULL is fine */

struct masque_counters {
    counter accepted, refused, tls_failed, http1, http2, streams, udp, echo, bytes_up, bytes_down,
        datagrams_up, datagrams_down, echo_requests, echo_answers, echo_dropped, bad_requests, login_failed,
        denied, over_limit;
};
const struct masque_counters *masque_counters(const struct masque *m);

#endif
