/* echo.h - real pings for clients: one echo request of a client becomes one of this host's kernel, by an unprivileged ping socket,
 * and the kernel's replies and errors become answers to the client (icmp.md section 4).
 * Knows     ICMP echo, ping and raw sockets; nothing of stacks, rules, tunnels or who the client is beyond its address.
 * Threads   one proxy is one worker's: [worker], with its loop and its wheel. A guard is the process's: [any].
 * Lifetime  echo_proxy_new .. echo_proxy_free. Callbacks come from the loop, and from within echo_proxy_send().
 * Memory    reserved at the start and touched on demand; no malloc for a flow or a packet. */
#ifndef CULVERT_ECHO_H
#define CULVERT_ECHO_H

#include "culvert/base.h"
#include "culvert/loop.h"

/* ---- one request, one answer ------------------------------------------------------------------------------------ */

struct echo_proxy_request { /* borrowed during echo_proxy_send() */
    struct ip_addr client, target;
    uint16_t id, seq, checksum; /* as the client sent them */
    uint8_t code, ttl, tos;
    bool df;        /* IPv4: the client set DF. IPv6: it did not fragment, so a router must not either */
    bool broadcast; /* or multicast, as far as the receiver could tell */
    bool local;     /* the target may be an address of this host (X8: off unless allowed) */
    bool options; /* IP options or extension headers came with it: a ping socket cannot carry them (strict) */
    uint32_t ingress; /* which interface or session it came from; part of the flow's key */
    /* Who gets the answers: a connection instance or a shard, with its generation. Never the same value for two of them. */
    uint64_t responder;
    const uint8_t *payload; /* after the 8-byte ICMP header */
    uint32_t payload_len;
    const uint8_t *ip_header; /* for quotes; NULL: rebuilt when needed */
    uint16_t ip_header_len;
};

struct echo_proxy_answer { /* borrowed during on_answer() */
    bool is_error;
    struct ip_addr client, target; /* the flow's */
    uint16_t id, seq;              /* the client's own */
    uint32_t ingress;
    /* a reply: hop limit and TOS as received (less one in hop mode), the payload as it came */
    uint8_t ttl, tos;
    const uint8_t *payload;
    uint32_t payload_len;
    /* an error (E1 to E5, E7): type and code of the client's family; info: MTU or pointer */
    uint8_t type, code;
    uint32_t info;
    struct ip_addr offender; /* none: an address of this host, say the gateway's instead (E9) */
    const uint8_t *quote;    /* the client's datagram, its IP header first (E11), cut to what fits (U7) */
    uint16_t quote_len;
};

/* How echo_proxy_send() ended. Whatever it is, nothing here ever means "answer in the target's place" (M17). */
enum echo_proxy_result {
    ECHO_PROXY_SENT,
    ECHO_PROXY_DROPPED, /* counted; silence */
    ECHO_PROXY_EXPIRED, /* hop mode and TTL 0 or 1: time exceeded is due from the gateway's address (X30) */
    ECHO_PROXY_OFF,     /* no socket for this family: the policy's fallback */
    ECHO_PROXY_NET_UNREACH, /* E8: said by our own kernel */
    ECHO_PROXY_HOST_UNREACH,
    ECHO_PROXY_ADMIN_PROHIBITED,
};

/* ---- loop guard (X37), one for the process ------------------------------------------------------------------------- */

struct echo_guard; /* requests that we have sent lately, and targets that came back to us; lock-free hints */
int echo_guard_new(struct echo_guard **out); /* 0 or -errno */
void echo_guard_free(struct echo_guard *g);  /* NULL is fine */

/* ---- the proxy ------------------------------------------------------------------------------------------------------ */

enum echo_proxy_mode { ECHO_PROXY_MODE_OFF, ECHO_PROXY_MODE_PING, ECHO_PROXY_MODE_RAW };
enum echo_proxy_kind { ECHO_SOCKET_PING, ECHO_SOCKET_RAW };

struct echo_proxy_options {
    struct loop *loop;
    struct wheel *wheel; /* advanced by the caller; timers of flows live in it */
    bool transparent;    /* TTL unchanged and never expired (X33); false: we are one router (X30) */
    bool relay_errors;   /* E14; true */
    bool strict;         /* drop what a ping socket cannot carry (4.6) */
    bool prefer_raw;     /* raw sockets even where ping sockets would do */
    bool guard_needed;   /* the TUN carries the default route: refuse to run unmarked and unbound (X35) */
    /* Limits of this proxy: the process's, dealt to the workers in equal shares (X12). */
    uint32_t max_flows;                 /* 1,024 by default, 16,384 at most */
    uint32_t max_per_source;            /* 512 */
    uint32_t new_per_second, new_burst; /* of one source: 200, 400 */
    uint32_t pool_after;    /* flows with a socket of their own; those beyond share sockets (X17): 256 */
    uint32_t pool_sockets;  /* of one family: 4 */
    uint32_t idle_ms;       /* 10,000 */
    uint32_t share, shares; /* which part of the raw id space is ours: 0 of 1 */
    uint64_t seed;
    const char *fallback;     /* what pings get meanwhile, for the operator's message: "dropped" */
    bool quiet;               /* another worker's proxy writes the message */
    struct echo_guard *guard; /* NULL: none */
    /* socket(2) of @family (AF_INET, AF_INET6) and @kind, with mark, non-blocking and close-on-exec, made where our sockets
     * belong. *marked: a routing mark is in force on it. Return: fd or -errno. NULL: an unmarked one. */
    int (*make_socket)(void *arg, int family, enum echo_proxy_kind kind, bool *marked);
    /* Interface that requests to @dst leave by, 0: as routed. -ELOOP, -EACCES: must not be sent. NULL: as routed. */
    int (*interface_for)(void *arg, const struct ip_addr *dst);
    void *socket_arg;
    void (*on_answer)(void *arg, uint64_t responder, const struct echo_proxy_answer *a);
    void *arg;
};
void echo_proxy_options_defaults(struct echo_proxy_options *o); /* everything but loop, wheel and callbacks */

struct echo_proxy;

/** echo_proxy_new() - reserve memory and try which sockets can be had (X1); none is no error: the modes say so
 * Return: 0, -ENOMEM or -errno of the random source. */
int echo_proxy_new(const struct echo_proxy_options *o, struct echo_proxy **out);
void echo_proxy_free(struct echo_proxy *p); /* closes all; NULL is fine */

/** echo_proxy_send() - carry one request out; see the results
 * Answers come by on_answer, perhaps before this returns (an error of our own kernel). */
enum echo_proxy_result echo_proxy_send(struct echo_proxy *p, const struct echo_proxy_request *r);
/** echo_proxy_is_loop() - is this request, just arrived from a client, one of our own (X37)?
 * Then it is counted, said once, and its target is not proxied for 30 s. The caller drops it. */
bool echo_proxy_is_loop(struct echo_proxy *p, const struct ip_addr *client, const struct ip_addr *target,
                        uint16_t id, uint16_t seq);
enum echo_proxy_mode echo_proxy_mode(const struct echo_proxy *p, bool v6);
/** echo_proxy_responder_gone() - its flows are closed now, their late replies are dropped (X15) */
void echo_proxy_responder_gone(struct echo_proxy *p, uint64_t responder);
/** echo_proxy_uplink_changed() - flows whose interface is gone are closed; new ones ask interface_for() anew (X36) */
void echo_proxy_uplink_changed(struct echo_proxy *p);
/** echo_proxy_probe() - try again which sockets can be had: on reload; by itself every 60 s while a family is off (X4) */
void echo_proxy_probe(struct echo_proxy *p);
uint32_t echo_proxy_flows(const struct echo_proxy *p);
void echo_proxy_memory(const struct echo_proxy *p, struct memory_use *add);
bool echo_proxy_trim(struct echo_proxy *p); /* as slab_trim(), for all that it holds */

/* ---- metrics (4.10) --------------------------------------------------------------------------------------------------- */

/* Errors of the network that clients were told of: family, type, code (RFC 792, RFC 1812 section 5.2.7.1, RFC 4443). */
/* clang-format off */
#define ECHO_PROXY_ERRORS(E, X) \
    E(X, 4, 3, 0) E(X, 4, 3, 1) E(X, 4, 3, 2) E(X, 4, 3, 3) E(X, 4, 3, 4) E(X, 4, 3, 5) E(X, 4, 3, 6) \
    E(X, 4, 3, 7) E(X, 4, 3, 8) E(X, 4, 3, 9) E(X, 4, 3, 10) E(X, 4, 3, 11) E(X, 4, 3, 12) \
    E(X, 4, 3, 13) E(X, 4, 3, 14) E(X, 4, 3, 15) E(X, 4, 11, 0) E(X, 4, 11, 1) E(X, 4, 12, 0) \
    E(X, 4, 12, 1) E(X, 4, 12, 2) E(X, 6, 1, 0) E(X, 6, 1, 1) E(X, 6, 1, 2) E(X, 6, 1, 3) E(X, 6, 1, 4) \
    E(X, 6, 1, 5) E(X, 6, 1, 6) E(X, 6, 1, 7) E(X, 6, 2, 0) E(X, 6, 3, 0) E(X, 6, 3, 1) E(X, 6, 4, 0) \
    E(X, 6, 4, 1) E(X, 6, 4, 2) E(X, 6, 4, 3)
#define ECHO_PROXY_ERROR_COUNTER(X, family, type, code) \
    X(err_v##family##_##type##_##code, "icmp_proxy.errors_relayed_v" #family "_" #type "_" #code)
/* clang-format on */

/* The last six are gauges. Names carry no addresses. */
/* clang-format off */
#define ECHO_PROXY_COUNTERS(X) \
    X(requests4, "icmp_proxy.requests_v4") \
    X(requests6, "icmp_proxy.requests_v6") \
    X(replies, "icmp_proxy.replies") \
    ECHO_PROXY_ERRORS(ECHO_PROXY_ERROR_COUNTER, X) \
    X(err_other, "icmp_proxy.errors_relayed_other") \
    X(expired, "icmp_proxy.ttl_expired") \
    X(drop_code, "icmp_proxy.drops_code") \
    X(drop_target, "icmp_proxy.drops_target") \
    X(drop_options, "icmp_proxy.drops_options") \
    X(drop_flow_cap, "icmp_proxy.drops_flow_cap") \
    X(drop_source_cap, "icmp_proxy.drops_source_cap") \
    X(drop_rate, "icmp_proxy.drops_rate") \
    X(drop_socket, "icmp_proxy.drops_socket") \
    X(drop_backoff, "icmp_proxy.drops_backoff") \
    X(drop_send, "icmp_proxy.drops_send") \
    X(drop_source, "icmp_proxy.drops_source") \
    X(drop_seq, "icmp_proxy.drops_seq") \
    X(drop_duplicate, "icmp_proxy.drops_duplicate") \
    X(drop_type, "icmp_proxy.drops_type") \
    X(drop_truncated, "icmp_proxy.drops_truncated") \
    X(drop_responder, "icmp_proxy.drops_responder") \
    X(drop_generation, "icmp_proxy.drops_generation") \
    X(drop_quote, "icmp_proxy.drops_quote") \
    X(drop_error, "icmp_proxy.drops_error_type") \
    X(drop_error_rate, "icmp_proxy.drops_error_rate") \
    X(drop_error_off, "icmp_proxy.drops_error_off") \
    X(drop_loop, "icmp_proxy.drops_loop") \
    X(loop_detected, "icmp_proxy.loop_detected") \
    X(flows_created, "icmp_proxy.flows_created") \
    X(flows_evicted, "icmp_proxy.flows_evicted") \
    X(flows_idle, "icmp_proxy.flows_idle") \
    X(flows_rebound, "icmp_proxy.flows_rebound") \
    X(send_again, "icmp_proxy.send_again") \
    X(send_emfile, "icmp_proxy.send_errors_emfile") \
    X(send_eagain, "icmp_proxy.send_errors_eagain") \
    X(send_unreach, "icmp_proxy.send_errors_unreachable") \
    X(send_emsgsize, "icmp_proxy.send_errors_emsgsize") \
    X(send_other, "icmp_proxy.send_errors_other") \
    RTT_COUNTERS(X, rtt, "icmp_proxy.rtt") \
    X(flows, "icmp_proxy.flows") \
    X(flows_pooled, "icmp_proxy.flows_pooled") \
    X(outstanding, "icmp_proxy.outstanding") \
    X(mode_off, "icmp_proxy.families_off") \
    X(mode_ping, "icmp_proxy.families_ping_socket") \
    X(mode_raw, "icmp_proxy.families_raw")
/* clang-format on */

struct echo_proxy_counters {
#define ECHO_PROXY_COUNTER_MEMBER(member, name) counter member;
    ECHO_PROXY_COUNTERS(ECHO_PROXY_COUNTER_MEMBER)
#undef ECHO_PROXY_COUNTER_MEMBER
};
const struct echo_proxy_counters *echo_proxy_counters(const struct echo_proxy *p);
extern const struct counter_desc echo_proxy_counter_descs[]; /* ends with name NULL */

#endif
