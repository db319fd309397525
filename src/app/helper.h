/* helper.h - the one small process beside the gateway: it keeps the privileges that the gateway gives up (faults.md X8).
 * Knows     a fixed set of requests: a change of our own routes, rules and TUN (netlink_change_is_ours()), attaching a queue to
 *           that TUN again, which program has a socket. It runs no program and reads nothing that a network sent.
 * Threads   helper_start() before the first thread; helper_program() [any]; the rest [main]. Calls wait for the answer, at most
 *           HELPER_TIMEOUT_MS: never call one where packets are carried.
 * Lifetime  helper_start() .. helper_end(). It ends when we do, however we do. */
#ifndef CULVERT_APP_HELPER_H
#define CULVERT_APP_HELPER_H

#include <sys/types.h>

#include "culvert/forward.h"
#include "culvert/loop.h"

enum { HELPER_TIMEOUT_MS = 3000 };

struct helper;

struct helper_options {
    unsigned keep;       /* capabilities: a set of enum privilege */
    const char *account; /* user to become, NULL: stay */
    uint32_t mark;       /* of our sockets, which may be ended; 0: none */
    bool dns;            /* resolv.conf is to be put back: then it stays root */
    bool sandbox;        /* the system calls and files that it has no use for are shut off */
};

/** helper_start() - fork it. Return: 0; -errno with a sentence, and there is none */
int helper_start(const struct helper_options *opt, struct helper **out, struct err *err);
/** helper_watch() - @on_dead runs once, in @l, when it ended without having been asked to */
void helper_watch(struct helper *h, struct loop *l, void (*on_dead)(void *arg), void *arg);
/** helper_end() - ask it to end and wait. NULL is fine */
void helper_end(struct helper *h);
pid_t helper_pid(const struct helper *h);

/* The requests. Each returns 0 or -errno: -EPERM when it refuses, -EPIPE when it is gone, -ETIMEDOUT when it does not answer. */
/** helper_settle() - the device that it looks after, and the text of our table of nftables (NULL: none); both stay so */
int helper_settle(struct helper *h, const char *tun_name, const char *nft_text);
/* The three of struct route_agent. */
int helper_nft_load(void *helper);
int helper_nft_rules(void *helper, unsigned *count);
int helper_nft_remove(void *helper);
int helper_change(void *helper, const void *request, size_t len); /* a netlink_change_fn */
/** helper_attach() - TUNSETIFF on a queue of ours: the device is made again; tun_options.attach */
int helper_attach(void *helper, int fd, const char *name, short flags);
/** helper_end_sockets() - netlink_destroy_sockets() for our own, by their mark */
int helper_end_sockets(struct helper *h, const struct ip_addr *gone, unsigned *count);
int helper_dns_restore(struct helper *h); /* route_dns_restore(ROUTE_DNS_FILE) */
/** helper_program() - as program_of_socket() [any]; empty when it cannot say */
void helper_program(struct helper *h, uint32_t uid, uint32_t inode, char out[FLOW_PROGRAM_MAX]);

#endif
