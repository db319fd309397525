/* stages.h - how `culvert run` gives up what it does not need, in named stages before the first worker runs.
 *
 *     helper        a small process is forked that keeps CAP_NET_ADMIN for our routes and our TUN      (helper.h)
 *     user          runtime.user: the process becomes it, capabilities stay for the moment             (privilege.h)
 *     (open)        TUN, sockets of pings, routes, control socket: all that takes a privilege is opened by the gateway
 *     capabilities  those that marking a socket takes, or none; no program that is executed gains any
 *     files         what a reload reads, what is kept in the state folder: Landlock                    (sandbox.h)
 *     system calls  a list with reasons: seccomp                                                       (sandbox.h)
 *
 * With runtime.sandbox: false the last two are left out, and without runtime.user all of them. */
#ifndef CULVERT_APP_STAGES_H
#define CULVERT_APP_STAGES_H

#include "culvert/config.h"
#include "culvert/loop.h"
#include "confine.h"
#include "helper.h"
#include "privilege.h"

#include "culvert/route.h"

struct stages { /* the caller fills the first part */
    const struct config *config;
    const char *config_path; /* NULL: there is no file */
    const char *api_path;    /* NULL: no control socket */
    struct netlink *netlink;
    struct loop *loop;
    void (*on_fatal)(void *arg, const char *why); /* the helper died: end */
    void *arg;
    struct helper *helper; /* NULL: nothing that it would be needed for */
    struct privilege_account account;
    struct confine *confine; /* NULL: not confined */
    bool sees_programs;      /* the helper may look into processes of all users */
};

/** stages_kept() - what marking our sockets takes here: a set of enum privilege */
unsigned stages_kept(const struct config *c);
/** stages_begin() - "helper" and "user" [main, before any thread]
 * Return: 0; -errno with a sentence; -EINVAL: runtime.user is wrong. stages_end() undoes it in either case. */
int stages_begin(struct stages *s, struct err *err);
/** stages_confine() - the last three; everything is open, no thread runs yet; gateway_setup.before_threads
 * @tun_name: of the device. @route: the routes that were made, or NULL. Return: 0; -errno with a sentence: what was asked for cannot be had. */
int stages_confine(void *stages, const char *tun_name, struct route *route, struct err *err);
/** stages_warn() - what @now wants and only a restart could give it: privileges that are gone */
void stages_warn(const struct stages *s, const struct config *now);
/** stages_end() - the gateway has stopped and put everything back */
void stages_end(struct stages *s);

#endif
