/* upstream.h - byte streams and datagrams to the internet through one configured way out.
 * Knows     its protocols (direct, SOCKS5, SOCKS4, HTTP CONNECT, each in TLS or not), groups of them, and its sockets;
 *           has never heard of a packet or a rule.
 * Threads   [worker] from the worker that runs env->loop; exceptions are marked [any] and [main].
 * Lifetime  open .. close; on_closed is the last call, and what `arg` points to must live until it or close() returns.
 *           close() is the end at once: no callback comes after it, not even on_closed.
 * Time      no libev timer a stream: all of them live in env->wheel. */
#ifndef CULVERT_UPSTREAM_H
#define CULVERT_UPSTREAM_H

#include <sys/uio.h>

#include "culvert/base.h"
#include "culvert/loop.h"
#include "culvert/tls.h"

/* ---- the configured ways out ---------------------------------------------------------------------------------- */

enum upstream_kind {
    UPSTREAM_DIRECT,
    UPSTREAM_REJECT,
    UPSTREAM_REJECT_DROP,
    UPSTREAM_SOCKS5,
    UPSTREAM_SOCKS4,  /* IPv4 addresses only; username is a hint, no password */
    UPSTREAM_SOCKS4A, /* and names */
    UPSTREAM_HTTP,    /* CONNECT */
    UPSTREAM_GROUP,   /* several of them under one name: a new flow takes one, see up_current() */
    UPSTREAM_MASQUE,  /* HTTP/2 in TLS: CONNECT, CONNECT-UDP, and CONNECT-IP for echo */
};
enum upstream_pipelining { UPSTREAM_PIPELINING_OFF, UPSTREAM_PIPELINING_AUTO, UPSTREAM_PIPELINING_ON };
enum upstream_udp {
    UPSTREAM_UDP_AUTO,
    UPSTREAM_UDP_ON,
    UPSTREAM_UDP_OFF,
    UPSTREAM_UDP_OVER_TCP, /* SOCKS5: datagrams in the TCP connection, by hev's command 5 (socks5_frames.c) */
};

/* ---- groups: how a new flow finds its member --------------------------------------------------------------------- */

enum group_kind {
    GROUP_SELECT,       /* the one that was picked, the first until then; no other */
    GROUP_URL_TEST,     /* the fastest by a test, changed only for one that is faster by the tolerance */
    GROUP_FALLBACK,     /* the first that is well */
    GROUP_LOAD_BALANCE, /* all that are well, by strategy */
};
enum group_strategy {
    GROUP_CONSISTENT_HASH, /* by the target's address: a target stays with its member */
    GROUP_ROUND_ROBIN,
    GROUP_STICKY, /* by the client's address: a client stays with its member */
};
enum { GROUP_MEMBERS_MAX = 64, GROUP_DEPTH_MAX = 8 };

struct group_options {
    enum group_kind kind;
    enum group_strategy strategy;
    const uint32_t
        *members; /* indices of the list given to upstreams_new(), in order; DIRECT may be among them */
    uint32_t member_count; /* 1..GROUP_MEMBERS_MAX */
    /* What a test fetches through a member; no port: the test is a handshake with the member, without a target. */
    struct host_port url;
    const char *url_path;     /* "/generate_204" */
    struct tls_settings *tls; /* https; a reference is taken */
    uint32_t interval_ms;     /* between two rounds of tests of url-test */
    uint32_t timeout_ms;      /* of a test */
    uint32_t tolerance_ms;    /* url-test: how much faster another one must be */
    uint32_t max_failures;    /* in a row: then the member is down, and new flows leave it out */
    uint32_t
        retry_after_ms; /* until a test may bring it back; doubles each time, up to 16-fold, with jitter */
};

/* Filled by config; copied by upstream_new(). A new member belongs into mark.c as well: tests/unit/test_marks.c. */
struct upstream_options {
    const char *name; /* "DIRECT", "REJECT", "REJECT-DROP" or the proxy's name */
    enum upstream_kind kind;
    struct host_port server;
    const char *username, *password; /* NULL: no login; 1..255 bytes each (RFC 1929) */
    const char *token; /* MASQUE: bearer token instead of a login (RFC 6750), 1..4096 bytes; or NULL */
    enum upstream_udp udp;
    enum upstream_pipelining pipelining; /* SOCKS5: greeting, login and request in one segment */
    bool fast_open;               /* TCP Fast Open towards the server (RFC 7413), where it has one address */
    uint32_t pool;                /* connections dialled ahead, for each worker; 0: none */
    bool secure;                  /* TLS around the connection to the server; wants `tls` */
    struct tls_settings *tls;     /* upstream_new() takes a reference */
    const char *tls_name;         /* whom the certificate must be for, and SNI; NULL: the server */
    uint32_t half_close_delay_ms; /* faults.md L12: silence after our FIN before it is passed on; 0: 2 s */
    uint32_t routing_mark;        /* 0: the process's (up_socket_rules) */
    char interface_name[16];      /* "": the process's */
    /* destinations that it may dial, names included: others are -EACCES; none: all */
    const struct ip_prefix *allow;
    size_t allows;
    /* only what the public internet reaches, and not this host (up_socket_rules.own); `allow` then adds to that */
    bool public_only;
    /* upstreams_new() only: */
    uint32_t dialer;                   /* 1 + the index of the way out that leads to the server; 0: none */
    const struct group_options *group; /* kind UPSTREAM_GROUP; borrowed */
};

struct upstream; /* immutable, counted, shared by all workers */

int upstream_new(const struct upstream_options *opt, struct upstream **out); /* 0, -EINVAL, -ENOMEM */
/** upstreams_new() - a list of them, which may name each other as members and dialers
 * @out: @n places. Return: 0; -ELOOP, -EINVAL or -ENOMEM, then @out holds nothing. */
int upstreams_new(const struct upstream_options *list, size_t n, struct upstream **out);
/** upstreams_renew() - the same, after a reload: what says the same as one of @old is that one, with all that workers know of it */
int upstreams_renew(const struct upstream_options *list, size_t n, struct upstream *const *old, size_t olds,
                    struct upstream **out);
struct upstream *upstream_ref(struct upstream *up); /* [any] */
void upstream_unref(struct upstream *up);           /* [any] NULL is fine; forgets its secrets at 0 */
const char *upstream_name(const struct upstream *up);
enum upstream_kind upstream_kind(const struct upstream *up);
/** upstream_parse_url() - "socks5://user:pw@host:port#name" into options (config.md: --proxy URL)
 * socks5, socks5h (the same), socks4, socks4a, http; inside TLS (.secure, and .tls left to the caller): https, socks5+tls,
 * masque (its TLS must offer "h2")
 * @storage: holds the copied strings, 1,024 bytes. Return: 0, or -EINVAL with a sentence in @err. */
int upstream_parse_url(const char *url, char storage[1024], struct upstream_options *out, struct err *err);

/* ---- the worker's surroundings ----------------------------------------------------------------------------------- */

/* How every socket of ours is marked and bound, so that our traffic never comes back through the TUN (faults.md E1). */
struct up_socket_rules {    /* immutable; the main thread hands a new one over when the uplink changes */
    uint32_t mark;          /* SO_MARK; 0: none */
    int ifindex4, ifindex6; /* uplink to bind to; 0: none */
    /* destinations that other interfaces reach by routes of their own: not bound */
    struct ip_prefix unbound[64];
    size_t unbounds;
    /* the TUN's own and other prefixes that must never be dialled: -ELOOP (faults.md S19) */
    struct ip_prefix refuse[16];
    size_t refuses;
    /* addresses of this host, for upstreams that are public_only */
    struct ip_addr own[64];
    size_t owns;
};

/* Fingerprints of our own open sockets, one for the process, so that a packet of ours that comes back is known (E1). [any] */
struct own_flows;
int own_flows_new(struct own_flows **out); /* 0, -ENOMEM, or -errno of the random source */
void own_flows_free(struct own_flows *o);  /* after every up_env that has it; NULL is fine */
/** own_flows_has() - is this (proto, source port, target) a socket of ours? Reads only; false alarms 1 in 2^32 */
bool own_flows_has(const struct own_flows *o, const struct flow_key *flow);

struct up_resolve; /* a question under way */
typedef void up_resolved_fn(void *arg, int err, const struct ip_addr *addrs,
                            size_t n); /* addrs borrowed; err 0 or -errno */
struct up_env_options {
    struct loop *loop;
    struct wheel *wheel;                 /* advanced by the caller */
    const struct up_socket_rules *rules; /* borrowed; up_env_set_rules() replaces it */
    struct own_flows *own;               /* NULL: no guard */
    /* Names of servers and of DIRECT targets. May answer before it returns. *out: to cancel, valid until answered. */
    int (*resolve)(void *arg, const char *name, up_resolved_fn *fn, void *fn_arg, struct up_resolve **out);
    void (*resolve_cancel)(void *arg, struct up_resolve *q);
    void *resolve_arg;
    /* A group's test has ended in this worker, or another member is its usual one now (from, to: indices; why: static). NULL: nobody asks. */
    void (*on_group_tested)(void *arg, struct upstream *group, uint32_t member, uint32_t delay_us);
    void (*on_group_switch)(void *arg, struct upstream *group, uint32_t from, uint32_t to);
    /* An association passes over this member, which carries no UDP; once until it does. NULL: nobody asks. */
    void (*on_group_no_udp)(void *arg, struct upstream *group, uint32_t member);
    void *group_arg;
    uint32_t max_streams, max_udp; /* sizes of the pools, from limits; memory is touched on demand */
    uint64_t seed;
};
/* one a worker: pools, per-upstream memory (health, last good address, "no UDP here"), receive buffers */
struct up_env;
int up_env_new(const struct up_env_options *opt, struct up_env **out); /* 0 or -ENOMEM; @opt is copied */
void up_env_memory(const struct up_env *env, struct memory_use *add);  /* with TLS and HTTP/2 */
bool up_env_trim(struct up_env *env); /* as slab_trim(), for all that it holds */
void up_env_free(struct up_env *env); /* all streams and associations closed before */
struct loop *up_env_loop(const struct up_env *env);
struct wheel *up_env_wheel(const struct up_env *env);
/** up_env_set_rules() - for sockets from now on; what was dialled ahead under the old ones is closed
 * @rules: borrowed until the next call, or up_env_free() */
void up_env_set_rules(struct up_env *env, const struct up_socket_rules *rules);
/** up_may_dial() - would @up dial this address? Return: 0; -EACCES: not allowed; -ELOOP: a refused prefix, or no address */
int up_may_dial(struct up_env *env, const struct upstream *up, const struct ip_port *dst);
/** up_env_set_client() - for whom the openings that follow are, until the next call; for groups that are `sticky` */
void up_env_set_client(struct up_env *env, const struct ip_addr *client);
/** up_resolve_name() - the addresses of @name, as DIRECT would look them up; may answer before it returns
 * @out: for up_resolve_cancel(), valid until answered. Return: 0; -errno, and @fn is not called. */
int up_resolve_name(struct up_env *env, const char *name, up_resolved_fn *fn, void *arg,
                    struct up_resolve **out);
void up_resolve_cancel(struct up_env *env, struct up_resolve *q); /* @fn will not be called */
/** up_socket() - a non-blocking, close-on-exec socket with mark and device, as env's rules want for @dst
 * Return: fd, or -errno: -ELOOP refused prefix; -EMFILE, ... */
int up_socket(struct up_env *env, const struct upstream *up, int type, const struct ip_port *dst);

/* ---- a file over HTTP ------------------------------------------------------------------------------------------------ */

struct up_http_url { /* "https://name:port/path?query", taken apart */
    bool secure;
    struct host_port at; /* its name is `host` once up_http_url_settle() was called */
    char host[256];      /* a name (as host_name_normalise() makes it) or an address */
    char path[2048];
};
/** up_http_url_parse() - http and https, without a login; a fragment is cut off. Return: 0; -EINVAL, @out is then of no use */
int up_http_url_parse(const char *url, struct up_http_url *out);
void up_http_url_settle(struct up_http_url *url); /* after it was copied: at.name points into it again */

enum { UP_VALIDATOR_MAX = 160 };
struct up_fetch_options {
    struct upstream *up; /* a reference is taken */
    const char *url;
    struct tls_settings *tls; /* for https; a reference is taken */
    size_t max_bytes;         /* of the body */
    uint64_t silence_us;      /* without a byte; ten times that in total */
    const char *validator;    /* up_fetched.validator of an earlier answer; NULL: none */
};
struct up_fetched {
    int err;         /* 0; -ETIMEDOUT, -EFBIG, -EPROTO, ... */
    char why[200];   /* then: a sentence about the host */
    unsigned status; /* 200, or 304: nothing has changed; with an error any that came, 0: none */
    char *body;      /* 200: whoever is told frees it; may be NULL if it is empty */
    size_t len;
    char validator[UP_VALIDATOR_MAX]; /* for the next time; "": none */
};
struct up_fetch;
typedef void up_fetched_fn(void *arg, struct up_fetched *result);
/** up_fetch_open() - GET one address; up to five redirects, none between http and https
 * @fn: called once, never before this function has returned; the fetch is gone then. Return: 0; -errno, and @fn is not called. */
int up_fetch_open(struct up_env *env, const struct up_fetch_options *opt, up_fetched_fn *fn, void *arg,
                  struct up_fetch **out);
void up_fetch_cancel(struct up_fetch *f); /* no call any more; NULL is fine */

/* ---- streams --------------------------------------------------------------------------------------------------- */

/* Why an opening or a stream ended. `err` is what the client shall see: -ECONNREFUSED refused (RST), -ENETUNREACH, -EHOSTUNREACH,
 * -EACCES prohibited, -ETIMEDOUT the target timed out (silence), -ECONNRESET cut in the middle, -ELOOP, -EMFILE, -ENOMEM.
 * An unreachable, silent or broken proxy is -EHOSTUNREACH whatever the socket said (design.md section 6). */
struct up_failure {
    int err;           /* -errno */
    const char *stage; /* "resolve", "connect", "tls", "method", "login", "request", "stream"; static text */
    bool proxy_fault;  /* the way out failed, not the target: counts against its health */
    /* a sentence without secrets: "office (192.0.2.10:1080) wants a login; set username and password" */
    char text[200];
};

struct up_stream_events {
    /* the target (as far as the proxy says) has answered; may send and receive now */
    void (*on_open)(void *arg);
    void (*on_readable)(void *arg); /* only while wanted, see up_stream_want() */
    void (*on_writable)(void *arg);
    /* Failed to open, or broke; never for an orderly EOF. The stream is gone: closing it in here is allowed and does nothing.
     * What recv or sendv returned as an error comes here too, later, unless the caller has closed by then. */
    void (*on_closed)(void *arg, const struct up_failure *why);
};

struct up_stream;

/** up_stream_open() - start connecting to @dst through @up
 * @timeout_us: bounds the whole opening, name resolution and handshake included (design.md section 6)
 * @events: static; none of them runs before this function has returned
 * Return: 0; -EMFILE or -ENOMEM or -EINVAL (a name that no SOCKS server may see, faults.md S10), then no callback at all. */
int up_stream_open(struct up_env *env, struct upstream *up, const struct host_port *dst, uint64_t timeout_us,
                   const struct up_stream_events *events, void *arg, struct up_stream **out);
/* The addresses of a name, by an answer that the caller has: no other may be dialled from here. */
struct up_known {
    const struct ip_addr *addrs; /* in the resolver's order */
    size_t n;
    int err; /* n is 0: why it has none, as up_resolved_fn says it */
};
/** up_stream_open_known() - the same for a name that the caller has looked up: DIRECT, as a group's member too, dials one of
 * @known and asks nobody; a proxy gets the name, as ever
 * @known: copied; NULL: as up_stream_open() */
int up_stream_open_known(struct up_env *env, struct upstream *up, const struct host_port *dst,
                         const struct up_known *known, uint64_t timeout_us,
                         const struct up_stream_events *events, void *arg, struct up_stream **out);
/** up_stream_recv() - up to @len bytes into the caller's memory. Return: bytes; 0 their FIN; -EAGAIN; -errno it broke
 * After sendv failed, what had arrived before can still be read; then comes the error, never a 0 (faults.md G8, S17). */
ssize_t up_stream_recv(struct up_stream *s, void *to, size_t len);
/** up_stream_sendv() - as much as goes. Return: bytes taken, -EAGAIN, -errno. No SIGPIPE. */
ssize_t up_stream_sendv(struct up_stream *s, const struct iovec *iov, int iovcnt);
void up_stream_want(struct up_stream *s,
                    unsigned events); /* LOOP_READ | LOOP_WRITE; from on_open on LOOP_READ, until changed */
void up_stream_shutdown(struct up_stream *s); /* our FIN, after what was sent */
void up_stream_close(struct up_stream *s);    /* NULL is fine */
void up_stream_reset(struct up_stream *s);    /* as close, but RST (linger 0) */
const char *up_stream_stage(const struct up_stream *s);

/* ---- datagrams ----------------------------------------------------------------------------------------------------- */

struct up_datagram {
    /* who answered; none when the relay gave a name (faults.md U9): then the last target */
    struct ip_port source;
    const uint8_t *data;
    size_t len;
};

struct up_udp_events {
    void (*on_open)(void *arg);
    void (*on_datagrams)(void *arg, const struct up_datagram *d, size_t n); /* a batch, borrowed */
    /* An ICMP error of the kernel about @target (U12; icmp.md E1..E5): not the end. @offender may be none. */
    void (*on_error)(void *arg, const struct ip_port *target, const struct ip_addr *offender, int icmp_type,
                     int icmp_code, uint32_t mtu);
    /* -EOPNOTSUPP: this way out has no UDP (remembered 60 s, faults.md U6). -ECONNRESET: the association died, open a new one. */
    void (*on_closed)(void *arg, const struct up_failure *why);
};

struct up_udp;
/** up_udp_open() - an association for one client port. Return: as up_stream_open(); -EOPNOTSUPP at once when that is remembered */
int up_udp_open(struct up_env *env, struct upstream *up, uint64_t timeout_us,
                const struct up_udp_events *events, void *arg, struct up_udp **out);
/** up_udp_send() - one datagram, or a row of @gso_size ones (the last may be shorter); only after on_open
 * @ttl: for DIRECT, the hop limit to leave with; 0 = the system's. Return: 0 or -errno, counted; a datagram lost is not an error. */
int up_udp_send(struct up_udp *u, const struct host_port *target, const void *data, size_t len,
                uint16_t gso_size, uint8_t ttl, uint8_t tos);
/** up_udp_send_row() - the same from @ranges ranges of memory; each but the last holds whole datagrams of @gso_size */
int up_udp_send_row(struct up_udp *u, const struct host_port *target, const struct iovec *data, int ranges,
                    uint16_t gso_size, uint8_t ttl, uint8_t tos);
void up_udp_close(struct up_udp *u); /* NULL is fine */

/* ---- pings through a tunnel (RFC 9484 for ICMP; icmp.md section 5) -------------------------------------------------- */

/* Whether this way out carries pings of a family. Asking costs nothing and opens nothing. */
enum up_echo_state {
    UP_ECHO_UNSUPPORTED, /* its kind carries none, or the far end has said so (remembered for the connection, icmp.md T14) */
    UP_ECHO_UNKNOWN, /* nobody has asked yet, or the answer is under way: a request is held */
    UP_ECHO_READY,
    UP_ECHO_DOWN, /* it could not be reached a moment ago */
};
enum up_echo_state up_echo_state(struct up_env *env, struct upstream *up, bool v6);

struct up_echo_request {
    struct ip_addr target;
    uint16_t id, seq; /* the id is the caller's, one for each flow: answers carry it */
    uint8_t ttl, tos; /* as it shall leave here */
    bool df;
    const uint8_t *payload;
    uint32_t payload_len;
    uint64_t cookie; /* for on_held */
};
struct up_echo_answer { /* borrowed */
    bool is_error;
    struct ip_addr source; /* who says it */
    struct ip_addr target; /* whom it is about: the source of a reply, the quoted destination of an error */
    uint16_t id, seq;      /* of the request */
    uint8_t ttl, tos;
    uint8_t type, code; /* of an error */
    uint32_t info;      /* of an error: its second word, in host order */
    const uint8_t *payload;
    uint32_t payload_len; /* of a reply */
};
struct up_echo_events {
    void (*on_answer)(void *arg, struct upstream *up, const struct up_echo_answer *a);
    /* What became of a request that was held: 0 it has left; -EOPNOTSUPP the far end carries none; -EHOSTUNREACH it cannot be
     * reached; -ETIMEDOUT too old. */
    void (*on_held)(void *arg, uint64_t cookie, int err);
};
/** up_echo_listen() - who gets the answers of this worker; NULL: nobody (before the arg goes away) */
void up_echo_listen(struct up_env *env, const struct up_echo_events *events, void *arg);
/** up_echo_send() - one echo request; late is worse than lost: dropped when it has not left within 10 s, or when 128 newer ones
 * wait (icmp.md T7). Never sent twice, never answered by us.
 * Return: 0; 1 held: on_held comes; -EOPNOTSUPP; -EHOSTUNREACH down; -ENOBUFS no room to hold it; -EMSGSIZE; -ENOMEM. */
int up_echo_send(struct up_env *env, struct upstream *up, const struct up_echo_request *r);

/* ---- health (this worker's view) ------------------------------------------------------------------------------------ */

struct up_health {
    uint64_t last_good_us; /* last handshake or data, 0 never */
    uint64_t last_bad_us;
    uint32_t failures; /* in a row */
    uint32_t rtt_us;   /* smoothed time of connect to the server, 0 unknown */
    bool udp_refused;  /* for the next 60 s at most */
};
void up_health_get(struct up_env *env, const struct upstream *up, struct up_health *out);
/** up_probe() - a proxy handshake without CONNECT, for MASQUE a PING on its connection, bounded by @timeout_us; DIRECT is always well
 * @fn runs once, later; err 0 or -errno. Probes of one upstream that run at the same time are one. */
int up_probe(struct up_env *env, struct upstream *up, uint64_t timeout_us, void (*fn)(void *arg, int err),
             void *arg);

/* ---- groups (this worker's view) ------------------------------------------------------------------------------------ */

/** up_current() - the way out that a new flow through @up would take: @up itself, or a member of a group, at any depth
 * Round-robin is not moved on. Return: never NULL, never a group; a group without a well member shows its first. */
struct upstream *up_current(struct up_env *env, struct upstream *up);
/** up_echo_way() - the same for a ping from @client to @target (icmp.md T16): what TCP to there would take, or @prefer, if it is
 * one of the well members; one whose tunnel could not be reached a moment ago comes last. @prefer: NULL: no wish. Return: as above */
struct upstream *up_echo_way(struct up_env *env, struct upstream *up, const struct ip_addr *client,
                             const struct host_port *target, bool v6, const struct upstream *prefer);
/** up_stream_way() - the way out that this stream has taken; while it opens, the one that is tried */
struct upstream *up_stream_way(const struct up_stream *s);
struct upstream *up_udp_way(const struct up_udp *u); /* the same for an association */
/** up_udp_may_take() - might a new association through @up take @way, which up_udp_way() told of an older one? Of a group that spreads
 * the load, any member that is well will do; members that carry no UDP are passed over. */
bool up_udp_may_take(struct up_env *env, struct upstream *up, const struct upstream *way);
/** up_group_start() - begin to care for @group: tests in their time. @tests: this worker does the rounds of url-test.
 * Others are told by up_group_tested() what it found. */
int up_group_start(struct up_env *env, struct upstream *group, bool tests);
/** up_group_tested() - what another worker's test found: @delay_us of @member (an index), 0: it failed */
void up_group_tested(struct up_env *env, struct upstream *group, uint32_t member, uint32_t delay_us);
/** upstream_group_selects() - may up_group_pick() say this? Return: 0, -EINVAL no select, -ENOENT no such member [any] */
int upstream_group_selects(const struct upstream *group, const char *member);
/** up_group_pick() - `select`: this member from now on; running flows stay. Return: 0, -EINVAL no select, -ENOENT no such member */
int up_group_pick(struct up_env *env, struct upstream *group, const char *member);
struct up_group_info {
    enum group_kind kind;
    uint32_t now; /* the index of the member that a new flow takes */
    uint32_t members;
    uint64_t switches;
    struct {
        const char *name;
        bool down;
        uint32_t failures, delay_us; /* in a row; of the last test, 0: none */
    } member[GROUP_MEMBERS_MAX];
};
int up_group_info(struct up_env *env, struct upstream *group,
                  struct up_group_info *out); /* 0 or -EINVAL, -ENOMEM */

struct up_counters {
    counter streams_opened, streams_failed, udp_opened, udp_failed, bytes_up, bytes_down, datagrams_up,
        datagrams_down;
    counter tls_full, tls_resumed, tls_failed, tls_timeout,
        tls_truncated; /* full and resumed: handshakes that went through */
    counter echo_malformed, socks_udp_malformed, socks_timeout, no_sockets, loop_refused, datagrams_unsent,
        datagrams_held;
    counter send_calls, recv_calls;
    counter pool_opened, pool_taken, pool_dead,
        pool_expired; /* connections dialled ahead, and what became of them */
    counter pipelined,
        started_over; /* handshakes that said all at once; that went on step by step, or on a new connection */
    counter group_retries, group_switches, group_tests, group_refused;
#define UP_RTT_MEMBER(member, name) counter member;
    RTT_COUNTERS(UP_RTT_MEMBER, masque_rtt,
                 "masque.rtt") /* of PINGs on the connections themselves (icmp.md T8) */
#undef UP_RTT_MEMBER
};
const struct up_counters *up_counters(const struct up_env *env);
extern const struct counter_desc up_counter_descs[]; /* ends with name NULL */

/* ---- datagram sockets, many datagrams at a time (for associations, and for serve's side of them) ---------------------- */

/* One datagram or a row of equal ones (the last may be shorter), with what goes before each and beside each. */
struct up_row_out {
    const struct sockaddr *to; /* NULL: the socket is connected */
    socklen_t to_len;
    const void *header; /* before each, as SOCKS5 wants */
    size_t header_len;
    const struct iovec *data; /* each range but the last holds whole datagrams */
    size_t ranges;
    size_t len;          /* of all ranges */
    uint16_t gso_size;   /* 0: one datagram, in one range */
    const void *control; /* struct cmsghdr's, or NULL */
    size_t control_len;
};
/** up_rows_send() - all of it, by as few system calls as the kernel allows (UDP_SEGMENT, else sendmmsg)
 * @sent: how many datagrams left. Return: 0; what a full queue drops is lost, not an error. -EMSGSIZE, -ENETUNREACH, ... */
int up_rows_send(struct up_env *env, int fd, const struct up_row_out *o, size_t *sent);

struct up_row_in {
    struct ip_port source;
    uint8_t *data; /* the environment's buffer, until the next up_rows_receive(); may be written to */
    size_t len;
    size_t gso_size; /* > 0: the length of each but the last, which may be shorter */
};
enum { UP_ROWS_MAX = 16 };
/** up_rows_receive() - a batch, by one recvmmsg. Return: how many rows for up_row_received(), at most UP_ROWS_MAX; or -errno */
int up_rows_receive(struct up_env *env, int fd);
void up_row_received(struct up_env *env, int i, struct up_row_in *out);
void up_rows_prepare(int fd, bool v6, bool errors); /* UDP_GRO; @errors: the error queue (IP_RECVERR) */

/* ---- SOCKS5 messages, pure: both ends read and write the same ones (RFC 1928) --------------------------------------- */

struct socks5_address {
    const char *name; /* NULL: an address. Else name_len bytes, borrowed from the message, any byte values */
    uint8_t name_len;
    struct ip_port ip; /* the port is valid in either case */
};
enum { SOCKS5_ADDRESS_MAX = 1 + 1 + 255 + 2, SOCKS5_UDP_HEADER_MAX = 3 + SOCKS5_ADDRESS_MAX };

/** socks5_address_put() - type, address, port (section 5). @a's name: 1..255 bytes. Return: bytes, <= SOCKS5_ADDRESS_MAX */
size_t socks5_address_put(uint8_t *to, const struct host_port *a);
/** socks5_address_get() - the same from the front of @in
 * Return: 0; -EAGAIN it is cut short (nothing skipped); -EAFNOSUPPORT no such type (nothing skipped). */
int socks5_address_get(struct span *in, struct socks5_address *out);
/** socks5_udp_put() - the header before each datagram (section 7). Return: bytes, <= SOCKS5_UDP_HEADER_MAX */
size_t socks5_udp_put(uint8_t *to, const struct host_port *a);
/** socks5_udp_get() - read the header off a datagram; what is left in @in is its data
 * Return: 0; -EBADMSG too short, RSV not 0, a fragment, or no such address type (faults.md U9). */
int socks5_udp_get(struct span *in, struct socks5_address *out);

/* ---- UDP in TCP: datagrams as frames of a stream, pure (socks5_frames.c) ---- */

enum {
    SOCKS5_FRAME_HEADER_MAX = 255, /* its length is one byte, so a name has at most 248 */
    SOCKS5_FRAME_DATA_MAX = 16384, /* of ours; a longer one that comes is thrown away */
    SOCKS5_FRAMES_BYTES = SOCKS5_FRAME_HEADER_MAX + SOCKS5_FRAME_DATA_MAX,
};
struct socks5_frames { /* zeroed; both directions of one connection */
    uint32_t in_at, in_len, skip, out_at, out_len;
    uint32_t malformed; /* how many that came were thrown away */
    uint8_t in[SOCKS5_FRAMES_BYTES], out[2 * SOCKS5_FRAMES_BYTES];
};
/** socks5_frames_room() - where to put what is received next; data of earlier frames is gone then. Return: bytes, > 0 once
 * socks5_frames_next() has said 0 */
size_t socks5_frames_room(struct socks5_frames *f, uint8_t **to);
void socks5_frames_received(struct socks5_frames *f, size_t n);
/** socks5_frames_next() - the next datagram. Return: 1; 0: no whole one is left; -EBADMSG: these are no frames, and nothing that
 * follows can be understood */
int socks5_frames_next(struct socks5_frames *f, struct socks5_address *a, struct span *data);
/** socks5_frames_add() - a datagram to send. Return: 0; -ENOBUFS: no room, it is lost; -EMSGSIZE */
int socks5_frames_add(struct socks5_frames *f, const struct host_port *a, const void *data, size_t len);
struct span socks5_frames_unsent(const struct socks5_frames *f);
void socks5_frames_sent(struct socks5_frames *f, size_t n);

#endif
