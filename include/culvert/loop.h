/* loop.h - one thread's event loop (libev, epoll): descriptors, timers, messages from other threads, netlink.
 * Knows     libev and the monotonic clock; nothing of packets.
 * Threads   a loop belongs to the thread that calls loop_run(); before that, to its maker. Only loop_post() and loop_stop()
 *           may be called from elsewhere, marked [any].
 * Order     in one turn: descriptors and timers, then posted messages, then the on_turn_end hooks, then sleep. */
#ifndef CULVERT_LOOP_H
#define CULVERT_LOOP_H

#include "culvert/base.h"

struct loop; /* owns its epoll descriptor; heap */

int loop_new(struct loop **out); /* 0 or -errno */
void loop_free(struct loop *l);  /* no watcher may be active; NULL is fine */
/** loop_run() - run until loop_stop(); sets the calling thread as the owner. Return: 0, or -errno of a broken backend */
int loop_run(struct loop *l);
void loop_stop(struct loop *l); /* [any] ends loop_run() after the current turn */
/* Is the caller the owner, or nobody running the loop? For asserts. */
bool loop_is_mine(const struct loop *l);
uint64_t loop_now_us(const struct loop *l); /* monotonic, taken once a turn; CLOCK_MONOTONIC microseconds */
uint64_t clock_now_us(void);                /* [any] the same clock, read now */

/* ---- descriptors ---- */
enum { LOOP_READ = 1, LOOP_WRITE = 2 };
/* One descriptor's interest. 48 bytes, embedded in its user, never moved while active. Zeroed = inactive. */
struct loop_io {
    _Alignas(8) unsigned char ev[48]; /* struct ev_io, checked by a static assertion in loop.c */
};
/* @events: those of LOOP_READ and LOOP_WRITE that were asked for and are there; an error or a hang-up is both */
typedef void loop_io_fn(struct loop_io *io, unsigned events);

void loop_io_start(struct loop *l, struct loop_io *io, int fd, unsigned events, loop_io_fn *fn);
void loop_io_set(struct loop *l, struct loop_io *io,
                 unsigned events); /* no system call when unchanged; 0 = keep but ask nothing */
void loop_io_stop(struct loop *l, struct loop_io *io); /* before close(fd); inactive is fine */
int loop_io_fd(const struct loop_io *io);
bool loop_io_active(const struct loop_io *io);

/* ---- timers (few: shard deadline, handshakes, resolver; never one a flow, tcp-stack.md TMR-3) ---- */
struct loop_timer {
    _Alignas(8) unsigned char ev[64]; /* struct ev_timer and the deadline */
};
typedef void loop_timer_fn(struct loop_timer *t); /* at the deadline or up to 1 ms later, never before */

void loop_timer_start(struct loop *l, struct loop_timer *t, uint64_t deadline_us,
                      loop_timer_fn *fn); /* absolute; restarts */
void loop_timer_stop(struct loop *l, struct loop_timer *t);
bool loop_timer_active(const struct loop_timer *t);

/* ---- hooks ---- */
typedef void loop_hook_fn(void *arg);
void loop_on_turn_end(struct loop *l, loop_hook_fn *fn,
                      void *arg); /* before every sleep; at most 4 hooks, in order of registration */

/* ---- messages between threads ---- */
/* A message is the sender's memory until fn has run in the receiver's thread; fn frees it or hands it back. */
struct loop_msg {
    struct loop_msg *next; /* the queue's */
    void (*fn)(struct loop_msg *m);
};
/** loop_post() - run m->fn(m) in the loop's thread, soon [any]
 * Never blocks and never fails; messages of one sender arrive in order. Posted to a loop that no longer runs, it runs in
 * loop_free(), so that what it holds can be released. */
void loop_post(struct loop *l, struct loop_msg *m);
void loop_ring_doorbell(struct loop *l); /* [any] wake it: its turn-end hooks run (used beside a base ring) */

/* ---- signals [main loop only] ---- */
/* @fn runs in a turn of the loop, not in signal context. @signo is unblocked in the calling thread, so threads that must not
 * be interrupted block it for themselves. At most 8; one loop a signal. The default action is back after loop_free(). */
typedef void loop_signal_fn(void *arg, int signo);
void loop_on_signal(struct loop *l, int signo, loop_signal_fn *fn, void *arg);

/* ---- netlink: links, addresses, routes, rules (libmnl) ---- */
struct
    netlink; /* a route socket of this namespace; requests are synchronous and short [main, before or beside the workers] */

struct nl_link {
    int ifindex;
    uint32_t mtu, txqueuelen;
    bool up;
    char name[16];
};
struct nl_route { /* a unicast or special route in one table */
    struct ip_prefix dst;
    bool v6;
    uint8_t type;  /* RTN_UNICAST, RTN_UNREACHABLE, ... */
    uint8_t proto; /* RTPROT_*: ours is ROUTE_PROTO_CULVERT (route.h) */
    uint32_t table, metric;
    int ifindex;            /* 0: none */
    struct ip_addr gateway; /* none: on-link */
};
struct nl_rule { /* a policy routing rule */
    bool v6, invert;
    uint32_t priority, table, fwmark, fwmask, suppress_prefixlen_plus1; /* 0: not set */
    struct ip_prefix src, dst; /* len 0: any; for IPv4 counted in the 16-byte form, any is 96 or 0 */
    uint32_t uid_first, uid_last;
    bool has_uid;
    char iif[16], oif[16]; /* empty: any */
    uint8_t action, proto; /* FR_ACT_TO_TBL, FR_ACT_UNREACHABLE, ... */
    uint8_t ip_proto;
    uint16_t dport_first, dport_last; /* 0: any */
};

int netlink_open(struct netlink **out, struct err *err);
void netlink_close(struct netlink *nl);
int netlink_link_by_name(struct netlink *nl, const char *name, struct nl_link *out); /* 0, -ENODEV */
int netlink_link_by_index(struct netlink *nl, int ifindex, struct nl_link *out);
int netlink_link_set(struct netlink *nl, int ifindex, bool up, uint32_t mtu,
                     uint32_t txqueuelen); /* 0 = leave as it is */
int netlink_addr_add(struct netlink *nl, int ifindex,
                     const struct ip_prefix *addr); /* addr with its host bits: .len is the on-link prefix */
int netlink_addr_del(struct netlink *nl, int ifindex, const struct ip_prefix *addr);
int netlink_route_add(struct netlink *nl, const struct nl_route *r); /* replaces an equal one */
int netlink_route_del(struct netlink *nl, const struct nl_route *r); /* -ESRCH: was not there */
int netlink_rule_add(struct netlink *nl, const struct nl_rule *r);   /* -EEXIST */
int netlink_rule_del(struct netlink *nl, const struct nl_rule *r);
typedef int netlink_route_fn(void *arg,
                             const struct nl_route *r); /* non-zero stops the walk and is returned */
typedef int netlink_rule_fn(void *arg, const struct nl_rule *r);
int netlink_routes(struct netlink *nl, uint32_t table, netlink_route_fn *fn,
                   void *arg); /* both families; table 0 = all */
int netlink_rules(struct netlink *nl, netlink_rule_fn *fn, void *arg);
/** netlink_default_link() - the interface of the best default route of the main table, for a family
 * Return: 0 and its index; -ENETUNREACH when there is none. @skip_ifindex: our own device, never the answer. */
int netlink_default_link(struct netlink *nl, bool v6, int skip_ifindex, int *ifindex);
/** netlink_watch() - tell of changes to links, addresses, routes and rules; @fn runs in @l's thread
 * ENOBUFS (events lost, faults.md R4) comes as one call with ifindex 0: read everything anew. */
enum netlink_event {
    NETLINK_LINK_CHANGED,
    NETLINK_ADDR_CHANGED,
    NETLINK_ROUTE_CHANGED,
    NETLINK_RULE_CHANGED,
    NETLINK_EVENTS_LOST
};
typedef void netlink_event_fn(void *arg, enum netlink_event what, int ifindex);
struct netlink_watch;
int netlink_watch_open(struct loop *l, netlink_event_fn *fn, void *arg, struct netlink_watch **out);
void netlink_watch_close(struct netlink_watch *w);

#endif
