/* route.h - auto-route: the machine's traffic is led into the TUN, and everything is put back at the end.
 * Knows     policy rules and routes of Linux through loop's netlink; nothing of packets, upstreams or configuration files.
 * Threads   [main] throughout.
 * Lifetime  route_apply .. route_undo. What a killed process left is found by its protocol number and removed by route_cleanup().
 *
 * How it leads. For each family that the TUN carries (strict: for both) there are rules at priorities of our own, in this order:
 *
 *     9000  our mark                     goto 9099    our sockets see the machine's routing as if we were not there
 *     9001  marks of other programs      goto 9099    that rules of theirs know: WireGuard's own packets, another VPN's
 *     9002  from excluded interfaces     goto 9099    "lo" is the machine itself
 *     9003  from included interfaces     goto 9005
 *     9004  (with included ones)         goto 9099
 *     9005  (nothing)
 *     9006  from the TUN                 goto 9099    strict only: what we send to clients goes by the machine's routing
 *     9007  users that are left out      goto 9099    of the machine itself
 *     9008  on-exit: keep or block       (nothing)    says so to whoever finds what a killed process left
 *     9010  multicast, broadcast         goto 9099    belongs to the link, and no proxy carries it
 *     9020  port 53, UDP and TCP         our table    when DNS is captured: name servers on the LAN and excluded ones, too
 *     9030  excluded prefixes            goto 9099
 *     9080  everything                   main, without its default route: the TUN's and all connected networks stay reachable
 *           strict: one rule for each connected network of private addresses, and for those of included interfaces
 *     9090  everything                   our table
 *     9099  (nothing)                    where goto leads; the machine's own rules follow, "main" at 32766
 *
 * Addresses of the machine itself, loopback among them, are local before any of this (the kernel's rule 0), port 53 included.
 * A marked socket that finds no route gets an error and never falls into the TUN.
 *
 * Our table holds a default route through the TUN and, with the worst metric and tied to no device, an unreachable default: when
 * the device is down or gone, what belongs into it stays in (faults.md V3). The latter exists for both families.
 *
 * A family that the TUN has no address of is left alone in the plain form: its traffic takes the way it had, past the tunnel, and
 * route_apply() says so in one line. Strict, it finds the unreachable default. Strict also means that no route that somebody else
 * puts into the main table leads traffic past the tunnel: not one more specific than a default (TunnelVision, faults.md E5), and
 * not a LAN that claims public addresses (TunnelCrack); what must go past it is named in the exclusions.
 *
 * A program that binds its socket to another interface gets "no route to host", since our table knows no way but the TUN. */
#ifndef CULVERT_ROUTE_H
#define CULVERT_ROUTE_H

#include <stdio.h>

#include "culvert/base.h"
#include "culvert/loop.h"

enum {
    ROUTE_PROTO_CULVERT = 197, /* of each route and rule of ours (rtnetlink(7) leaves 5 to 255 to programs) */
    ROUTE_TABLE_DEFAULT = 0xC117,  /* 49431 */
    ROUTE_PRIORITY_DEFAULT = 9000, /* the first of ROUTE_PRIORITIES */
    ROUTE_PRIORITIES = 100,
    ROUTE_METRIC_TUN = 100,
    ROUTE_EXCLUDES_MAX = 256, /* each is a rule that every lookup walks past */
    ROUTE_LOCALS_MAX = 64,
    ROUTE_REFUSED_MAX = 8, /* to be told of; there may be more */
    ROUTE_MARKS_MAX = 16,
    ROUTE_NAMES_MAX = 16, /* interfaces, ranges of ids, cgroups: of each kind */
    ROUTE_CGROUP_MAX = 256
};

enum route_on_exit { ROUTE_RESTORE, ROUTE_KEEP, ROUTE_BLOCK };

struct route_ids { /* of users or groups, both ends included */
    uint32_t first, last;
};

/* Which traffic is led: that which every list of kind "include" knows and none of kind "exclude". An empty list says nothing. */
struct route_choice {
    char interface[ROUTE_NAMES_MAX][16]; /* where it comes in; "lo": from the machine itself */
    size_t interfaces;
    struct route_ids uid[ROUTE_NAMES_MAX], gid[ROUTE_NAMES_MAX]; /* of programs on the machine itself */
    size_t uids, gids;
    char cgroup[ROUTE_NAMES_MAX]
               [ROUTE_CGROUP_MAX]; /* paths below the root of cgroup v2, without the first slash */
    size_t cgroups;
};

struct route_options {
    char tun_name[16];
    bool v4, v6;                 /* families that the TUN carries: tun_carries() */
    struct ip_prefix address[8]; /* of the TUN, for the table of nftables */
    size_t addresses;
    uint32_t mark;      /* of our sockets, not 0 */
    uint32_t mark_mask; /* 0: all bits */
    bool capture_dns;   /* port 53 enters the TUN, on-link name servers included */
    bool strict;
    const struct ip_prefix *exclude; /* borrowed until route_undo(); of any family */
    size_t excludes;
    const struct route_choice *include, *leave_out; /* NULL: nothing; borrowed until route_undo() */
    enum route_on_exit on_exit;
    uint32_t table, priority; /* 0: the defaults above */
    /* the caller holds the lock of instances: whatever is there is a dead one's (faults.md X4) */
    bool take_over;
};

/* What will be done, as data: routes and rules in the order in which they are added. */
struct route_plan {
    struct nl_route *routes;
    struct nl_rule *rules;
    size_t route_count, rule_count;
};

/* What the plan takes from the machine as it is, and follows. */
struct route_surroundings {
    struct ip_prefix local[ROUTE_LOCALS_MAX]; /* strict: connected networks that stay reachable */
    size_t locals;
    struct ip_prefix refused
        [ROUTE_REFUSED_MAX]; /* strict: routes of others that would lead past the tunnel, not followed */
    size_t refuseds;
    struct route_mark {
        uint32_t mark, mask;
    } mark[ROUTE_MARKS_MAX]; /* that rules of other programs know */
    size_t marks;
};
/** route_look() - read them
 * @tun_ifindex: our device, or 0: it is not there yet. Return: 0 or -errno of the kernel; what is too many is left out. */
int route_look(struct netlink *nl, const struct route_options *opt, int tun_ifindex,
               struct route_surroundings *out);

/** route_plan_make() - options and surroundings to plan; pure
 * @around: NULL: none. @tun_ifindex: of opt->tun_name
 * Return: 0; -EINVAL with a sentence: no family, no mark, mark 0 under its mask, too many exclusions; -ENOMEM. */
int route_plan_make(const struct route_options *opt, const struct route_surroundings *around, int tun_ifindex,
                    struct route_plan *out, struct err *err);
void route_plan_fini(struct route_plan *plan); /* zeroed is fine */
/* The plan as commands of ip(8), one a line, for --dry-run; each would do by hand what route_apply() does. */
void route_plan_print(const struct route_plan *plan, const char *tun_name, FILE *out);

/* The table of nftables that goes with it, as text for nft(8). */
void route_nft_text(const struct route_options *opt, FILE *out);
bool route_needs_nft(const struct route_options *opt); /* groups or cgroups are named */

struct route;

/* Another process that has the privilege, and how it is asked about our table of nftables. Each returns 0 or -errno. */
struct route_agent {
    int (*load)(
        void *
            arg); /* the text of route_nft_whole(), which it was given while we had the privilege ourselves */
    int (*rules)(void *arg, unsigned *count); /* as netlink_nft_rules() */
    int (*remove)(void *arg);
    void *arg;
};
/** route_nft_whole() - the transaction that makes our table, as text; the caller's (free()); NULL: nftables is not in use */
char *route_nft_whole(const struct route *r);
/** route_nft_run() - [the other process] let libnftables do it. Return: 0; -errno with a sentence */
int route_nft_run(const char *text, struct err *err);
void route_delegate(struct route *r, const struct route_agent *agent); /* copied; until route_undo() */

/** route_apply() - make it so, removing first what a dead predecessor left
 * @nl: borrowed until route_undo()
 * Return: 0; -EBUSY: another live instance has this table, nothing was touched; -EEXIST: our table or priorities hold routes or
 * rules of another program; -ENODEV: no such TUN; others of the kernel. Always with a sentence, and nothing left behind. */
int route_apply(struct netlink *nl, const struct route_options *opt, struct route **out, struct err *err);
/** route_restore_device() - add what is missing after the device was down, or was deleted and made anew (new ifindex)
 * Return: 0; -ENODEV or -ENETDOWN while it is not there or down; others of the kernel. */
int route_restore_device(struct route *r);
/** route_watch() - keep it so: routes come back with their device, and what somebody else removes comes back
 * (faults.md V3, V12); removed again within a minute it comes back at that minute's end, with one warning. Return: 0 or -errno. */
int route_watch(struct route *r, struct loop *l);
/* As on-exit says: takes everything away, or leaves it; and frees @r. What is gone already is fine. NULL is fine. */
void route_undo(struct route *r);
/* From now on route_undo() takes everything away, whatever on-exit says: nobody confirmed (--confirm). */
void route_forget_on_exit(struct route *r);
/** route_not_followed() - with strict-route: routes of others that would lead past the tunnel (faults.md E5)
 * @out: borrowed until the next change of routes. Return: how many. */
size_t route_not_followed(const struct route *r, const struct ip_prefix **out);

/** route_owner() - the live instance that has this table: one whose default route leads to a TUN that a program holds
 * @table: 0 is the default. Return: 0 and its device; -ENOENT: nobody, or only leftovers. */
int route_owner(struct netlink *nl, uint32_t table, struct nl_link *out);
#define ROUTE_DNS_FILE  "/etc/resolv.conf"
#define ROUTE_DNS_SAVED ".culvert-saved" /* the name of what was there ends with this */
/** route_dns_set() - let the machine's programs ask us for names
 * @path: ROUTE_DNS_FILE; what is there stays beside it. @server: IPv4 and IPv6; none: left out. Return: 0 or -errno */
int route_dns_set(const char *path, const struct ip_addr server[2]);
/** route_dns_restore() - put back what route_dns_set() found, of whichever process, also after a power cut
 * What somebody else has written since stays. Return: 0; -ENOENT: there is nothing to put back; -errno */
int route_dns_restore(const char *path);
/* Did on-exit of whoever made the rules say keep or block? (rule 9008) */
bool route_is_held(struct netlink *nl);
/** route_cleanup() - remove routes and rules that carry our protocol number, and our table of nftables [whoever knows that no instance is alive]
 * @table, @priority: only those of this table and from this priority on; both 0: all of ours, wherever they are
 * @removed: how many, or NULL. Return: 0 or the first -errno; it goes on after one. */
int route_cleanup(struct netlink *nl, uint32_t table, uint32_t priority, unsigned *removed);
int route_nft_remove(void); /* our table of nftables alone. 0; -ENOENT: was not there; -errno */
/** route_nft_rules() - how many rules it has. 0; -ENOENT; -errno */
int route_nft_rules(unsigned *count);

#endif
