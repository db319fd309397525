/* loop.h - one thread's event loop (libev, epoll): descriptors, timers, messages from other threads, netlink.
 * Knows     libev and the monotonic clock; nothing of packets.
 * Threads   a loop belongs to the thread that calls loop_run(); before that, to its maker. Only what is marked [any] may be
 *           called from elsewhere: loop_post(), loop_ring_doorbell(), loop_stop().
 * Order     in one turn: the on_turn_begin hooks, descriptors and timers, then posted messages, then the on_turn_end hooks,
 *           then sleep. */
#ifndef CULVERT_LOOP_H
#define CULVERT_LOOP_H

#include "culvert/base.h"

struct loop; /* owns its epoll descriptor; heap */

int loop_new(struct loop **out); /* 0 or -errno */
void loop_free(struct loop *l);  /* no watcher may be active; NULL is fine */
/** loop_run() - run until loop_stop(); sets the calling thread as the owner. Return: 0, or -errno of a broken backend */
int loop_run(struct loop *l);
/** loop_short_slices() - the calling thread wants the processor soon and not for long: for threads that carry packets [any]
 * Its policy and nice value stay. Return: 0, also where the kernel knows nothing of it; -errno of sched_setattr(2) */
int loop_short_slices(void);
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

/** loop_io_start() - @io is not active; @fd stays the caller's, open until loop_io_stop(). @events may be 0 */
void loop_io_start(struct loop *l, struct loop_io *io, int fd, unsigned events, loop_io_fn *fn);
/** loop_io_resume() - as loop_io_start(), for a descriptor that another loop_io watched until this turn and that has been open
 * all the while: the kernel is told only what has changed */
void loop_io_resume(struct loop *l, struct loop_io *io, int fd, unsigned events, loop_io_fn *fn);
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
typedef void loop_hook_fn(void *arg); /* at most 4 of each kind, in order of registration */
void loop_on_turn_begin(struct loop *l, loop_hook_fn *fn,
                        void *arg); /* loop_now_us() is known, nothing else has run */
void loop_on_turn_end(struct loop *l, loop_hook_fn *fn, void *arg); /* before every sleep */

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
/* A route socket of the network namespace in which it was opened, wherever its thread goes later. Requests are synchronous
 * and short: the kernel answers before it returns. [main, or any one thread at a time; never a worker that carries packets] */
struct netlink;

struct nl_link {
    int ifindex;
    uint32_t mtu, txqueuelen;
    uint64_t tx_dropped; /* packets for it that the kernel did not queue; for a TUN: its queue was full */
    bool up;             /* set up by its owner (IFF_UP) */
    bool carrier;        /* something is at the other end: for a TUN, a program holds a queue */
    char name[16];       /* IFNAMSIZ */
    char kind[16];       /* "tun", "veth", ...; empty: real hardware or unknown */
    bool tun_pi;         /* kind "tun": its packets carry the 4-byte information header (no IFF_NO_PI) */
};
struct nl_addr {
    int ifindex;
    struct ip_prefix addr; /* with host bits; len is the on-link prefix in the 16-byte form */
};
enum { NETLINK_TABLE_MAIN = 254, NETLINK_TABLE_LOCAL = 255 }; /* the kernel's own tables */

/* A unicast or special route in one table. For IPv4 the prefix lengths count in the 16-byte form: any is 96, or 0. */
struct nl_route {
    struct ip_prefix dst;
    bool v6;
    bool dead;     /* read only: its link has no carrier or is down */
    uint8_t type;  /* RTN_UNICAST, RTN_UNREACHABLE, ... */
    uint8_t proto; /* RTPROT_*: ours is ROUTE_PROTO_CULVERT (route.h) */
    uint32_t table, metric;
    int ifindex;            /* 0: none; of a multipath route the first */
    struct ip_addr gateway; /* none: on-link */
};
struct nl_rule { /* a policy routing rule */
    bool v6, invert;
    uint32_t priority, table, fwmark, fwmask; /* 0: not set; a mark without a mask means all bits */
    uint32_t suppress_prefixlen_plus1;        /* 0: not set; 1 is "suppress_prefixlength 0" */
    struct ip_prefix src, dst; /* len 0: any; for IPv4 counted in the 16-byte form, any is 96 or 0 */
    uint32_t uid_first, uid_last;
    bool has_uid;
    char iif[16], oif[16];  /* empty: any */
    uint8_t action, proto;  /* FR_ACT_TO_TBL, FR_ACT_UNREACHABLE, ... */
    uint32_t goto_priority; /* FR_ACT_GOTO: go on there */
    uint8_t ip_proto;
    uint16_t dport_first, dport_last; /* 0: any */
};

/* All of these return 0 or -errno of the kernel: -EPERM without CAP_NET_ADMIN, -EOPNOTSUPP or -EAFNOSUPPORT for a family that
 * this kernel does not have. What is said beside a function comes on top of that. */
int netlink_open(struct netlink **out, struct err *err);
/** netlink_open_diag() - a socket for netlink_socket_owner() and netlink_destroy_sockets() only */
int netlink_open_diag(struct netlink **out, struct err *err);
/** netlink_adopt_diag() - one that another process has opened: it asks in the network namespace of that process
 * @fd: ours on success. Return: 0 or -errno. */
int netlink_adopt_diag(int fd, struct netlink **out);
int netlink_fd(const struct netlink *nl); /* to be handed to another process; stays ours */
/* ---- changes made by another process, which has the privilege (netlink_change.c) ---- */
#define NETLINK_CHANGE_MAX 1024
typedef int netlink_change_fn(void *arg, const void *request, size_t len);
/** netlink_delegate() - from now on @fn carries out what changes links, addresses, routes and rules; reading stays here
 * @fn: gets the request as the kernel would, at most NETLINK_CHANGE_MAX bytes, borrowed; 0 or -errno is the answer. */
void netlink_delegate(struct netlink *nl, netlink_change_fn *fn, void *arg);
/** netlink_change_is_ours() - is this one whole change that a gateway makes? Pure; the bytes may be anything.
 * Routes and rules that carry @proto; addresses of the link @ifindex, and its being up, MTU, queue length and address mode. */
bool netlink_change_is_ours(const void *request, size_t len, uint8_t proto, int ifindex);
/** netlink_change() - carry it out, on the other side. Return: 0 or -errno of the kernel */
int netlink_change(struct netlink *nl, const void *request, size_t len);

struct nl_owner {
    uint32_t uid, inode;
};
/** netlink_socket_owner() - the socket of this machine (and network namespace) that has this flow; its client's end is ours
 * Return: 0; -ENOENT: there is none, so the flow comes from elsewhere or has ended; -errno. */
int netlink_socket_owner(struct netlink *nl, const struct flow_key *key, struct nl_owner *out);
/** netlink_destroy_sockets() - end the TCP and UDP sockets that are bound to @local and carry @mark (SOCK_DESTROY)
 * Their owners see ECONNABORTED. @count: how many. Return: 0; -EPERM without CAP_NET_ADMIN; -EOPNOTSUPP: not in this kernel. */
int netlink_destroy_sockets(struct netlink *nl, const struct ip_addr *local, uint32_t mark, unsigned *count);
void netlink_close(struct netlink *nl);                                              /* NULL is fine */
int netlink_link_by_name(struct netlink *nl, const char *name, struct nl_link *out); /* -ENODEV */
int netlink_link_by_index(struct netlink *nl, int ifindex, struct nl_link *out);     /* -ENODEV */
/* Sets it up or down; mtu and txqueuelen 0 = leave as it is. */
int netlink_link_set(struct netlink *nl, int ifindex, bool up, uint32_t mtu, uint32_t txqueuelen);
/* No link-local address and no router solicitation of the kernel's own on this link, from its next "up" on. */
int netlink_link_no_autoconf(struct netlink *nl, int ifindex);
/* @addr with its host bits: .len is the on-link prefix. Adding one that is there: -EEXIST; removing none: -EADDRNOTAVAIL. */
int netlink_addr_add(struct netlink *nl, int ifindex, const struct ip_prefix *addr);
int netlink_addr_del(struct netlink *nl, int ifindex, const struct ip_prefix *addr);
int netlink_route_add(struct netlink *nl, const struct nl_route *r); /* replaces an equal one */
int netlink_route_del(struct netlink *nl, const struct nl_route *r); /* -ESRCH: was not there */
int netlink_rule_add(struct netlink *nl, const struct nl_rule *r);   /* -EEXIST */
int netlink_rule_del(struct netlink *nl, const struct nl_rule *r);   /* -ENOENT: was not there */

/* Walks. The list is read whole (and again when it changed meanwhile) before @fn sees the first entry, so @fn may change what
 * it walks over. @fn returns non-zero to stop; that is what the walk returns then. -ENOMEM. */
typedef int netlink_addr_fn(void *arg, const struct nl_addr *a);
typedef int netlink_route_fn(void *arg, const struct nl_route *r);
typedef int netlink_rule_fn(void *arg, const struct nl_rule *r);
int netlink_addrs(struct netlink *nl, int ifindex, netlink_addr_fn *fn,
                  void *arg); /* ifindex 0 = all links */
/* Both families, IPv4 first; table 0 = all. Cached and cloned routes are left out. */
int netlink_routes(struct netlink *nl, uint32_t table, netlink_route_fn *fn, void *arg);
int netlink_rules(struct netlink *nl, netlink_rule_fn *fn,
                  void *arg); /* both families, in order of priority */
/** netlink_default_link() - the interface of the best default route of the main table, for a family
 * Return: 0 and its index; -ENETUNREACH when there is none. @skip_ifindex: our own device, never the answer. */
int netlink_default_link(struct netlink *nl, bool v6, int skip_ifindex, int *ifindex);

/* ---- nftables: whole tables of family inet, looked at and removed; libnftables makes them (src/route) ---- */
int netlink_open_nft(struct netlink **out, struct err *err); /* a socket for these two only */
/** netlink_nft_rules() - how many rules are in @table. Return: 0; -ENOENT: no such table; -EPERM, ... */
int netlink_nft_rules(struct netlink *nl, const char *table, unsigned *count);
int netlink_nft_remove(struct netlink *nl, const char *table); /* -ENOENT: was not there */

enum netlink_event {
    NETLINK_LINK_CHANGED, /* or is gone: netlink_link_by_index() says -ENODEV then */
    NETLINK_ADDR_CHANGED,
    NETLINK_ROUTE_CHANGED, /* ifindex 0: not tied to a link */
    NETLINK_RULE_CHANGED,  /* ifindex is always 0 */
    NETLINK_NFT_CHANGED,   /* of netlink_watch_open_nft() only: any table, any program */
    NETLINK_EVENTS_LOST
};
typedef void netlink_event_fn(void *arg, enum netlink_event what, int ifindex);
struct netlink_watch;
/** netlink_watch_open() - tell of changes to links, addresses, routes and rules; @fn runs in @l's thread
 * Several equal events in a row may come as one. ENOBUFS (events lost, faults.md R4) comes as one NETLINK_EVENTS_LOST with
 * ifindex 0: read everything anew. @fn must not close the watch. */
int netlink_watch_open(struct loop *l, netlink_event_fn *fn, void *arg, struct netlink_watch **out);
/* The same for nftables; -EPERM without CAP_NET_ADMIN. */
int netlink_watch_open_nft(struct loop *l, netlink_event_fn *fn, void *arg, struct netlink_watch **out);
void netlink_watch_close(struct netlink_watch *w); /* NULL is fine */

#endif
