/* forward.h - the one place that knows both sides: asks the rules, opens an upstream, moves the bytes, ends the flow with one log line.
 * Knows     stack requests and connections, rules, upstream streams and associations, the resolver.
 * Threads   one forwarder is one worker's; everything here is [worker].
 * Lifetime  forward_new .. forward_free; the stack and the up_env that it is attached to outlive it. */
#ifndef CULVERT_FORWARD_H
#define CULVERT_FORWARD_H

#include "culvert/base.h"
#include "culvert/echo.h"
#include "culvert/loop.h"
#include "culvert/resolver.h"
#include "culvert/rules.h"
#include "culvert/stack.h"
#include "culvert/upstream.h"

enum tcp_accept { TCP_ACCEPT_LATE, TCP_ACCEPT_EARLY, TCP_ACCEPT_AUTO };
enum udp_nat { UDP_NAT_ENDPOINT_INDEPENDENT, UDP_NAT_SYMMETRIC };
/* What a ping gets (icmp.md 5.3). AUTO: DIRECT is proxied, MASQUE tunnelled, other ways out as echo_unsupported says. PROXY: DIRECT only, since it
 * shows the target this host; a rule for another way out is treated as in AUTO. */
enum echo_mode {
    ECHO_MODE_AUTO,
    ECHO_MODE_REPLY_IF_HEALTHY,
    ECHO_MODE_REPLY,
    ECHO_MODE_PROXY,
    ECHO_MODE_TUNNEL,
    ECHO_MODE_DROP,
    ECHO_MODE_REJECT
};
enum echo_down { ECHO_DOWN_DROP, ECHO_DOWN_REJECT }; /* its way out is down: silence, or host unreachable */
enum echo_ttl { ECHO_TTL_HOP, ECHO_TTL_TRANSPARENT };
enum echo_delay { ECHO_DELAY_UPSTREAM_RTT, ECHO_DELAY_NONE };

struct port_range {
    uint16_t first, last;
};
#define SNIFF_RANGES_MAX 16
struct sniff_ports {
    struct port_range list[SNIFF_RANGES_MAX];
    size_t n;
};
struct
    sniff_options { /* the `sniffer:` section: names from a flow's first bytes, for flows whose rules need one */
    uint32_t timeout_ms; /* 300: how long the client's first bytes are waited for */
    struct sniff_ports tls, http, quic;
};

enum { FORWARD_TCP_MAX = 131072, FORWARD_UDP_MAX = 65536 }; /* of one worker, whatever the process may have */

/* One of `rate-limits`: payload a second, of each client address in a range, or of all that takes a way out. */
enum { RATE_UP, RATE_DOWN, RATE_LIMITS_MAX = 64 };
#define RATE_OF_SOURCE UINT32_MAX
struct rate_limit {
    uint32_t target;         /* of a rule, or the way that was taken; RATE_OF_SOURCE: of clients */
    struct ip_prefix source; /* then: whose; the first limit that has an address holds for it */
    uint64_t bytes_per_s[2]; /* RATE_UP, RATE_DOWN; 0: no limit */
};

struct forward_options {            /* the `stack:` and `limits:` sections, as far as they are policy */
    enum tcp_accept accept;         /* TCP_ACCEPT_LATE */
    uint32_t connect_timeout_ms;    /* 10 s, the whole opening */
    uint32_t tcp_idle_timeout_ms;   /* 2 h without a byte */
    uint32_t half_close_timeout_ms; /* 60 s without a byte while one direction has ended */
    enum udp_nat nat;
    uint32_t udp_idle_timeout_ms; /* 300 s */
    uint32_t dns_idle_timeout_ms; /* 10 s, for mappings that only asked port 53, or have no way out */
    enum echo_mode echo;          /* AUTO */
    enum echo_mode
        echo_unsupported; /* of a way out that cannot carry pings: REPLY_IF_HEALTHY; never AUTO or PROXY */
    enum echo_down echo_down; /* DROP */
    enum stack_reject
        echo_reject_with; /* what mode `reject` and REJECT say; REJECT_ADMIN_PROHIBITED (icmp.md M15) */
    enum echo_delay echo_delay;
    enum echo_ttl echo_ttl;    /* HOP: traceroute shows us (icmp.md X30) */
    bool echo_relay_errors;    /* true */
    uint32_t echo_max_flows;   /* 1,024, of the process */
    bool echo_direct;          /* some rule may want the echo proxy: whoever starts us makes one */
    uint32_t max_tcp, max_udp; /* of the process; dealt to its workers (design.md section 6) */
    uint32_t per_source;       /* flows of one client address; 0: no limit; dealt as well */
    /* `exec` and `demo`: queries to this address of the TUN, port 53, go to dns_server through the rules; none: off */
    struct ip_addr dns_address[2]; /* IPv4, IPv6 */
    struct ip_port dns_server;
    char in_name[16]; /* the interface that flows come by, for IN-NAME; "": none */
    struct sniff_options sniff;
};
void forward_options_defaults(struct forward_options *o);

/* ---- the policy: what decides new flows ---------------------------------------------------------------------------- */

/* Rules, what their targets mean, and options. Immutable and counted; a reload makes another one, and flows that live hold the
 * one that they were decided by until they end (faults.md C11). */
struct forward_policy;

struct forward_policy_setup { /* borrowed until forward_policy_new() returns */
    const struct forward_options *options;
    struct rules *rules; /* a reference is taken */
    /* what a rule's target index means; references are taken */
    struct upstream *const *targets;
    size_t target_count;
    const struct rate_limit *rates; /* copied; targets are indices as above */
    size_t rate_count;
    uint32_t
        workers; /* that it will be handed to: memory for each is taken here, so that handing it over cannot fail */
};
int forward_policy_new(const struct forward_policy_setup *setup,
                       struct forward_policy **out);                 /* [any] 0, -ENOMEM */
struct forward_policy *forward_policy_ref(struct forward_policy *p); /* [any] */
void forward_policy_unref(struct forward_policy *p);                 /* [any] NULL is fine */
struct rules *forward_policy_rules(struct forward_policy *p);
const struct forward_options *forward_policy_options(const struct forward_policy *p);
/* Borrowed from @p: what a rule's target index means. */
struct upstream *const *forward_policy_targets(const struct forward_policy *p, size_t *count);
const struct rate_limit *forward_policy_rates(const struct forward_policy *p, size_t *count); /* borrowed */
/** forward_policy_hits() - how many flows the rule took, summed over all workers; RULE_IMPLICIT, too [any] */
uint64_t forward_policy_hits(const struct forward_policy *p, uint32_t rule);
/** forward_policy_has() - does one of its targets stand for @up? */
bool forward_policy_has(const struct forward_policy *p, const struct upstream *up);

/* ---- a worker's forwarder --------------------------------------------------------------------------------------------- */

struct forward;

struct forward_setup {
    struct forward_policy *policy; /* a reference is taken */
    struct loop *loop;
    const struct own_flows *own; /* loop guard; NULL: none */
    struct ip_addr gateway[2];   /* IPv4, IPv6: the address that we speak from in ICMP errors; may be none */
    uint32_t worker;             /* its number, below the policy's `workers` */
};
/* Return: 0, -ENOMEM, or -errno of the random source */
int forward_new(const struct forward_setup *setup, struct forward **out);
void forward_stop(
    struct forward *f); /* its questions for names end; before the environment goes. NULL is fine */
void forward_free(struct forward *f); /* after stack_fini() */
/** forward_stack_events() - the callbacks for stack_init(); its `arg` must be the forwarder. emit and handoff are the caller's. */
void forward_stack_events(struct stack_events *out);
/** forward_end_flows() - end everything that lives: TCP by RST at the next batch end, UDP at once */
void forward_end_flows(struct forward *f);
void forward_attach(struct forward *f, struct stack *s, struct up_env *env); /* before the first packet */
/** forward_set_policy() - from now on new flows are decided by @p (a reference is taken); cannot fail
 * Time-outs and limits of flows hold for the living ones as well. max_tcp and max_udp stay what they were at the start. */
void forward_set_policy(struct forward *f, struct forward_policy *p);
struct forward_policy *forward_policy_now(const struct forward *f); /* borrowed until the next one is set */
/** forward_drain() - end the flows whose way out the policy of today does not have any more. Return: how many */
uint32_t forward_drain(struct forward *f);

/** forward_attach_echo() - DIRECT pings go through @echo, whose on_answer is forward_on_echo_answer() with the forwarder as arg
 * NULL: there is none, and no ping is proxied. @echo outlives the last packet. */
void forward_attach_echo(struct forward *f, struct echo_proxy *echo);
void forward_on_echo_answer(void *arg, uint64_t responder, const struct echo_proxy_answer *a);

/** forward_attach_dns() - questions are answered by @dns as forward_set_dns() says, and @book knows names of addresses
 * Both outlive the last packet. */
void forward_attach_dns(struct forward *f, struct dns_service *dns, struct name_book *book);
/** forward_set_dns() - whose questions are answered here: those to the addresses of @settings' hijack, unless its mode is off
 * @settings: borrowed until the next call */
void forward_set_dns(struct forward *f, const struct dns_settings *settings);

/* ---- limits of the process, dealt to workers (design.md section 6) ------------------------------------------------ */

enum share_kind {
    SHARE_TCP,    /* limits.tcp */
    SHARE_UDP,    /* limits.udp */
    SHARE_SOURCE, /* limits.per-source */
    SHARE_RATE,   /* rate-limits */
};
/* A worker's part of one limit. What names the limit: kind, dir, limit, source; the rest is what is said of it. */
struct share {
    uint8_t kind, dir;
    uint8_t limit;         /* SHARE_RATE: which of the policy's rates */
    bool more;             /* asked: it came near its part; dealt: there is no more to have */
    struct ip_addr source; /* whose; none: not of a client */
    uint64_t part;         /* flows, or bytes a second */
    uint64_t used;         /* flows that live, or bytes since it was asked last */
};
enum { SHARES_MAX = 256, SHARE_WORKERS_MAX = 64 };
bool share_same(const struct share *a, const struct share *b); /* the same limit? [any] */
/** share_deal() - deal @whole to @n workers, by what they use and want: each[i]->part and ->more anew [any]
 * Flows that a worker has are never taken from it. Pure. Return: false: equal parts will do, until somebody wants more */
bool share_deal(struct share *const *each, uint32_t n, uint64_t whole);
/** forward_policy_whole() - what all workers together may have of this limit [any] */
uint64_t forward_policy_whole(const struct forward_policy *p, const struct share *s);

/** forward_attach_shares() - @want is called when a limit was nearly met here, once until forward_shares_report()
 * Without it the worker has an equal part of everything for ever. */
typedef void forward_want_fn(void *arg);
void forward_attach_shares(struct forward *f, forward_want_fn *want, void *arg);
/** forward_shares_report() - fill in what is used of the @n limits of @list, and append those that were nearly met
 * @list: SHARES_MAX places. What is not used of a number of flows is given back by this. @asked_by: the policy that the limits are
 * of; with another one in force nothing is said. Return: how many there are in @list */
size_t forward_shares_report(struct forward *f, struct forward_policy *asked_by, struct share *list,
                             size_t n);
/** forward_shares_set() - its part from now on; @dealt: it is not an equal one */
void forward_shares_set(struct forward *f, struct forward_policy *dealt_by, const struct share *s,
                        bool dealt);

/* ---- who opened a flow: for rules with UID and PROCESS-* --------------------------------------------------------- */

#define FLOW_PROGRAM_MAX 256
struct owners;

struct flow_owner_ask {
    struct loop_msg msg;                /* whoever has the question uses it */
    void (*answer)(struct loop_msg *m); /* posted to `home` with `msg` when the rest is filled in */
    struct loop *home;
    struct owners *owners; /* theirs */
    struct flow_key key;
    bool wants_program;
    bool found; /* the answer: a socket of this machine has the flow */
    uint32_t uid;
    char program[FLOW_PROGRAM_MAX]; /* path; "": not found, or not asked */
};
/** owner_ask_fn - find out, in another thread; one answer comes for every question, at the latest when the loop is freed [worker] */
typedef void owner_ask_fn(void *arg, struct flow_owner_ask *ask);
/** forward_attach_owners() - before the first packet; without it such rules match nothing */
void forward_attach_owners(struct forward *f, owner_ask_fn *ask, void *arg);

struct flow_end { /* borrowed */
    uint64_t id;  /* as in struct flow_info */
    struct flow_key key;
    const struct upstream *way; /* what its rule says, perhaps a group */
    struct forward_policy *policy;
    uint32_t rule, age_ms;
    uint64_t bytes_up, bytes_down;
    const char *why;  /* NULL: an orderly end */
    const char *name; /* behind the target's address; "": none is known */
};
typedef void flow_end_fn(void *arg, const struct flow_end *e);
/** forward_watch_ends() - @fn is called for each flow that ends, in the middle of its ending; NULL: not any more */
void forward_watch_ends(struct forward *f, flow_end_fn *fn, void *arg);

/** forward_pools() - as stack_pools(), for what the forwarder holds. Return: how many, at most @cap */
size_t forward_pools(const struct forward *f, struct stack_pool_info *out, size_t cap);
void forward_memory(const struct forward *f, struct memory_use *add);
bool forward_trim(struct forward *f); /* as slab_trim(), for all that the forwarder holds */

/* ---- what status and connections show --------------------------------------------------------------------------- */

struct flow_info {
    uint64_t id; /* of this flow in this process, until it ends; then nobody's for weeks */
    struct flow_key key;
    const struct upstream *way;
    struct forward_policy *policy; /* that decided it; borrowed, as all of this */
    uint32_t rule;                 /* index of the rule that took it, in that policy */
    uint64_t started_us, bytes_up, bytes_down;
    const char *state; /* "opening", "open", "closing" */
    bool left;         /* today's policy does not have its way out any more */
    const char *name;  /* behind the target's address, by an answer of ours; "": none is known */
};
typedef void flow_fn(void *arg, const struct flow_info *info);
/* Each flow that lives, once; @fn must not end one. */
void forward_flows(struct forward *f, flow_fn *fn, void *arg);
enum { FLOW_ID_WORKER_SHIFT = 58 }; /* the upper six bits of an id are its worker */
/** forward_end_flow() - end this one, as if its way out had broken. Return: false: there is none (any more) */
bool forward_end_flow(struct forward *f, uint64_t id);

/* clang-format off */
#define FORWARD_COUNTERS(X) \
    X(tcp_opened, "flow.tcp_opened") \
    X(tcp_failed, "flow.tcp_failed") \
    X(tcp_ended, "flow.tcp_ended") \
    X(tcp_reset_by_client, "flow.tcp_reset_by_client") \
    X(tcp_reset_by_upstream, "flow.tcp_reset_by_upstream") \
    X(tcp_idle, "flow.tcp_idle") \
    X(udp_opened, "flow.udp_opened") \
    X(udp_failed, "flow.udp_failed") \
    X(udp_ended, "flow.udp_ended") \
    X(udp_idle_evicted, "flow.udp_idle_evicted") \
    X(udp_way_evicted, "flow.udp_way_evicted") /* an association: its mapping has too many */ \
    X(rejected, "flow.rejected") \
    X(regex_limit, "rules.regex_limit") \
    X(undecided, "flow.undecided") \
    X(dropped, "flow.dropped") \
    X(limit_tcp, "flow.limit_tcp") \
    X(limit_udp, "flow.limit_udp") \
    X(limit_source, "flow.limit_source") \
    X(limit_dns, "flow.limit_dns") /* no room for a question over TCP: to carry it, or to answer it here */ \
    X(loop, "flow.loop") \
    X(no_sockets, "flow.no_sockets") \
    X(dns_over_tcp, "flow.dns_over_tcp") \
    X(udp_refused, "flow.udp_refused") \
    X(rate_dropped, "flow.rate_dropped") \
    X(dns_hijacked, "flow.dns_hijacked") \
    X(sniffed, "flow.sniffed") \
    X(fakeip_unknown, "fakeip.unknown") \
    X(echo_replied, "flow.echo_replied") \
    X(echo_dropped, "flow.echo_dropped") \
    X(echo_rejected, "flow.echo_rejected") \
    X(echo_proxied, "flow.echo_proxied") \
    X(echo_tunnelled, "flow.echo_tunnelled") \
    X(echo_undelivered, "flow.echo_undelivered") \
    X(echo_moved, "flow.echo_moved") \
    RTT_COUNTERS(X, tunnel_rtt, "icmp_tunnel.rtt") \
    X(bytes_up, "flow.bytes_up") \
    X(bytes_down, "flow.bytes_down")
/* clang-format on */

struct forward_counters {
#define FORWARD_COUNTER_MEMBER(member, name) counter member;
    FORWARD_COUNTERS(FORWARD_COUNTER_MEMBER)
#undef FORWARD_COUNTER_MEMBER
};
const struct forward_counters *forward_counters(const struct forward *f);
extern const struct counter_desc forward_counter_descs[]; /* ends with name NULL */
uint32_t forward_tcp_count(const struct forward *f);
uint32_t forward_udp_count(const struct forward *f);

#endif
