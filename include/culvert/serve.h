/* serve.h - the far end: a SOCKS5 server (RFC 1928, 1929) for `culvert serve`, `demo` and tests; MASQUE comes beside it.
 * Knows     listening sockets and, for its dials, the same sockets as upstream's DIRECT; nothing of packets.
 * Threads   serve_open and serve_close: [main]; everything else runs in the worker threads it is given, one listener each
 *           (SO_REUSEPORT), nothing shared but the immutable options. */
#ifndef CULVERT_SERVE_H
#define CULVERT_SERVE_H

#include "culvert/base.h"
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

struct serve_options {
    struct ip_port listen;          /* port 0: any; see serve_port() */
    bool udp;                       /* UDP ASSOCIATE; default true */
    const struct serve_user *users; /* none: no login */
    size_t user_count;
    struct ip_prefix allow[32]; /* destinations allowed; none: all (it binds to loopback by default) */
    size_t allows;
    uint32_t connect_timeout_ms; /* 10,000 */
    uint32_t max_streams;        /* per thread; 0: SERVE_STREAMS_DEFAULT */
};

/* One server thread's part: listener, connections, associations. */
struct serve;
/** serve_open() - start listening in @env's loop; each thread opens its own on the same address
 * Return: 0; -errno with a sentence in @err (faults.md C8: port in use). */
int serve_open(const struct serve_options *opt, struct up_env *env, struct serve **out, struct err *err);
uint16_t serve_port(const struct serve *s);
void serve_close(struct serve *s); /* all connections with it */

struct serve_counters {
    counter accepted, refused, streams, udp_associations, bytes_up, bytes_down, datagrams_up, datagrams_down,
        bad_requests, login_failed;
};
const struct serve_counters *serve_counters(const struct serve *s);

#endif
