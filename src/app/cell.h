/* cell.h - a child process in network, mount and user namespaces of its own, whose only way out is a TUN that we hold.
 * Knows     namespaces, capabilities, and which files of the host must look different inside; nothing of proxies.
 * Used by   `exec` (the child becomes COMMAND) and `demo` (the child runs the tour).
 * Threads   [main], before the process has any other thread: the child is a fork. */
#ifndef CULVERT_APP_CELL_H
#define CULVERT_APP_CELL_H

#include <signal.h>
#include <sys/types.h>

#include "culvert/tun.h"

struct cell_options {
    const struct tun_options *tun; /* name, addresses, MTU, offload; queues as below */
    uint32_t queues;
    const char *resolv_conf, *nsswitch; /* texts that take the place of the host's files; NULL: leave them */
    /* What the child does once it may start: exec, or work and return its exit status. It has no capabilities by then. */
    int (*run)(void *arg);
    void *arg;
};

struct cell {
    pid_t pid; /* 0: no child */
    int sock;  /* to the child, until cell_go() */
    int fds[TUN_QUEUES_MAX + 1];
    size_t fd_count; /* queues of the TUN inside; the caller's to close, or a gateway's that adopted them */
    struct netlink *diag; /* asks about the sockets inside (netlink_socket_owner()); NULL: none, or taken */
    uint32_t mtu;
    dev_t net_dev; /* its network namespace, as in stat of /proc/PID/ns/net */
    ino_t net_ino;
};

/** cell_check() - can it work here at all? One sentence that names the switch that is off (faults.md Q1, Q2) */
int cell_check(struct err *err);
/** cell_start() - fork, set everything up inside, and take over the TUN's queues; the child then waits for cell_go()
 * Return: 0; -errno with a sentence, and nothing is left. */
int cell_start(const struct cell_options *opt, struct cell *out, struct err *err);
/** cell_go() - let the child run; from here on its end is for the caller to wait for. Return: 0, or -errno: it is gone */
int cell_go(struct cell *c);
/** cell_end() - kill the child if it lives, reap it, close what is left; safe on a zeroed one */
void cell_end(struct cell *c);

/** cell_enter_network() - move this process, while it has one thread, into an empty network namespace of its own */
int cell_enter_network(struct err *err);

#endif
