/* gateway.h - the engine of `run`, `exec` and `demo`: a TUN, N workers, one configuration, wired and running.
 * Knows     every folder; it is the only place that ties them together (worker.c is one thread's share).
 * Threads   all of it is [main]; it starts the worker threads and joins them. */
#ifndef CULVERT_APP_GATEWAY_H
#define CULVERT_APP_GATEWAY_H

#include "culvert/api.h"
#include "culvert/config.h"
#include "culvert/loop.h"
#include "culvert/tun.h"

#define GATEWAY_DEFAULT_MARK                                                                                 \
    0x1b6 /* SO_MARK of our sockets with auto-route, when tun.routing-mark says nothing */

struct gateway;
struct helper;
struct route;

struct gateway_setup {
    const struct config *config; /* borrowed until gateway_free(); all that the file or --proxy said */
    struct loop *loop;           /* the main thread's */
    struct netlink *netlink; /* NULL: touch no link, address or route (adopted TUN of another namespace) */
    /* adopted queues, or NULL: open what config says. The gateway's from the call on, whatever comes of it: it closes them */
    const int *tun_fds;
    size_t tun_fd_count;
    struct ip_addr dns_address[2]; /* forward.h: queries to these, port 53, go to dns_server; none: off */
    struct ip_port dns_server;
    struct helper *helper; /* looks programs up; NULL: we do. Until gateway_stop() */
    /* Asks about the clients' sockets; the gateway's in any case. NULL: they are of this network namespace */
    struct netlink *diag;
    /* Everything is open and routes are made, no thread runs: privileges go now. NULL: they stay. 0 or -errno with a sentence */
    int (*before_threads)(void *arg, const char *tun_name, struct route *route, struct err *err);
    void *before_arg;
    /* What is in state_dir is read, and written: `run`, not what lives as long as a command does */
    bool keeps_state;
    /* The process is there for this gateway alone: a worker that is stuck ends it, and the service manager hears that none is */
    bool is_process;
    /* The gateway cannot go on (device lost for good): the caller ends with status 1. [main] */
    void (*on_fatal)(void *arg, const char *why);
    void *arg;
};

/** gateway_start() - open the TUN, apply routes when auto-route is on, start the workers
 * Return: 0 when packets are being forwarded; -errno with a sentence in @err, and everything undone. */
int gateway_start(const struct gateway_setup *setup, struct gateway **out, struct err *err);
/** gateway_stop() - end all flows, join the workers, put routes and rules back; within 2 s. NULL is fine. */
void gateway_stop(struct gateway *g);
/* From now on gateway_stop() puts the routes back, whatever tun.on-exit says. */
void gateway_forget_on_exit(struct gateway *g);
#define GATEWAY_NO_DRAIN UINT32_MAX
/** gateway_reload() - decide new flows by @now; flows that live are not touched (faults.md C9 to C11)
 * Keys that only a restart changes are named in the log. @now: borrowed until this returns.
 * @drain_ms: after this time, flows whose way out is not in @now are ended; GATEWAY_NO_DRAIN: never.
 * Return: 0; -errno with a sentence, and nothing has changed. */
int gateway_reload(struct gateway *g, const struct config *now, uint32_t drain_ms, struct err *err);
/** gateway_ready_line() - "ready: tun0, 2 workers, 2 queues, offload tso+uso" into @out; returns @out */
const char *gateway_ready_line(const struct gateway *g, char *out, size_t cap);
/** gateway_status() - collect a snapshot from all workers (a message to each), then call @done in the main loop, once
 * @parts: STATUS_* (api.h). The snapshot is borrowed until @done returns; NULL: no memory for it. */
void gateway_status(struct gateway *g, unsigned parts,
                    void (*done)(void *arg, const struct status_snapshot *s), void *arg);

struct gateway_events { /* static */
    void (*on_ended)(void *arg, const struct status_ended *e);
    void (*on_counters)(void *arg,
                        const struct status_snapshot *s); /* once a second; NULL: no memory for one */
};
/** gateway_watch() - begin to tell of ended flows and counters; NULL: end it. Called in the main loop, as what it tells */
void gateway_watch(struct gateway *g, const struct gateway_events *events, void *arg);
/** gateway_end_flow() - end one live flow by its id (status_flow), then call @done in the main loop, once: was there one? */
void gateway_end_flow(struct gateway *g, uint64_t id, void (*done)(void *arg, bool found), void *arg);
/** gateway_pick() - this member of a `select` group takes new flows, from now on and after a restart
 * Return: 0; -ENOENT no such group; -EINVAL it chooses for itself, or has no such member; with a sentence. */
int gateway_pick(struct gateway *g, const char *group, const char *member, struct err *err);

struct route_options;
/** gateway_route_options() - what auto-route is told by the configuration; the families are the caller's to say
 * @out: points into @c */
void gateway_route_options(const struct config *c, const char *tun_name, uint32_t mark,
                           struct route_options *out);

/** gateway_stack_addresses() - the address of the stack's own in each TUN network: the first usable one that is not the kernel's
 * @out: IPv4, IPv6; none where the TUN has no address of that family. @out_len: the lengths of their networks, or NULL. */
void gateway_stack_addresses(const struct tun_options *tun, struct ip_addr out[2], uint8_t out_len[2]);

#endif
