/* gateway_impl.h - the inside of a gateway, shared by gateway.c (its life), gateway_net.c (what it follows of the system's
 * network) and gateway_status.c (snapshots). All of it belongs to the main thread. */
#ifndef CULVERT_APP_GATEWAY_IMPL_H
#define CULVERT_APP_GATEWAY_IMPL_H

#include "culvert/route.h"
#include "gateway.h"
#include "worker.h"

struct gateway_names { /* gateway_names.c */
    struct name_book *book;
    struct dns_plan *plan; /* of new questions */
    struct dns_services *services;
    bool fakes; /* fake addresses have been in use since the start, or since a reload */
    struct ip_prefix own[16];
    size_t owns;
    struct loop_timer timer; /* the next look whether the book must be written */
    uint64_t saved;          /* name_book_changes() of what is on disk */
    bool save_failed;
};

struct gateway {
    struct gateway_setup setup;
    struct tun *tun;
    struct gateway_names names;
    struct route *route;
    struct netlink_watch *watch;
    struct loop_timer uplink_timer;     /* a burst of netlink events is looked at once */
    struct up_socket_rules first_rules; /* what the workers start with, and read: never changed after that */
    struct up_socket_rules rules;       /* the latest; main's own */
    bool dns_is_set;                    /* the system's resolv.conf names us */
    struct netlink *diag;               /* NULL: sockets on a vanished address end by themselves, later */
    struct ip_addr here[64];            /* the machine's addresses at the last look, without the TUN's */
    size_t heres;
    struct own_flows *own;
    struct echo_guard *echo_guard;
    struct owners *owners;
    struct {
        uint32_t workers;
        struct config_shares of; /* as at the start */
    } share;
    struct deal *deal;             /* gateway_deal.c */
    struct forward_policy *policy; /* of new flows */
    struct worker *workers[WORKERS_MAX];
    uint32_t worker_count;
    uint64_t started_us;
    struct loop_timer drain_timer;
    struct rule_list *lists; /* fetched by HTTP; gateway_lists.c */
    size_t list_count;
    struct snapshot *snapshots;                /* under way; gateway_status.c */
    struct ending *endings;                    /* the same */
    const struct gateway_events *watch_events; /* gateway_events.c; NULL: nobody listens */
    void *watch_arg;
    struct loop_timer watch_timer;
    uint32_t watch_turns;
    struct pick *picks; /* gateway_picks.c */
    struct watchdog *watchdog;
    size_t pick_count;
};

/* ---- gateway_names.c ---- */
int gateway_names_open(struct gateway *g, uint32_t workers, uint64_t memory_bytes); /* 0 or -errno */
/** gateway_names_plan() - what @c says of names, with the ways out of @p; the caller's reference. Return: 0 or -ENOMEM */
int gateway_names_plan(const struct config *c, const struct forward_policy *p, struct dns_plan **out);
void gateway_names_use_fakes(struct gateway *g, const struct dns_plan *p); /* before workers hear of it */
void gateway_names_set_plan(struct gateway *g, struct dns_plan *p); /* they have; the reference is ours now */
void gateway_names_close(struct gateway *g);                        /* all workers freed */

/* ---- gateway_net.c ---- */
struct ip_prefix gateway_network_of(const struct ip_prefix *address); /* without its host bits */
/** gateway_socket_rules() - mark, uplink and refused prefixes for sockets of ours, from the configuration and the main table */
void gateway_socket_rules(struct gateway *g, struct up_socket_rules *out);
void gateway_socket_rules_again(
    struct gateway *g); /* what they follow from has changed: workers hear of it */
/** gateway_device_watch() - before the workers start: they report a lost device to it */
int gateway_device_watch(struct gateway *g, struct err *err);
int gateway_routes_open(struct gateway *g,
                        struct err *err); /* auto-route, and watching the TUN and the uplink */
void gateway_routes_close(struct gateway *g);

/* ---- gateway.c ---- */
void gateway_shares(const struct config *c, uint32_t workers,
                    struct config_shares *out); /* on this machine */

/* ---- gateway_policy.c ---- */
/** gateway_policy() - rules, targets and options of @c; the caller's reference. Return: 0 or -errno with a sentence */
int gateway_policy(struct gateway *g, const struct config *c, struct forward_policy **out, struct err *err);
/** gateway_set_policy() - new flows are decided by @p, whose reference is taken over, and new questions by @plan; NULL:
 * nothing but a list of the rules has changed. Return: 0; -ENOMEM: nobody was told */
int gateway_set_policy(struct gateway *g, struct forward_policy *p, struct dns_plan *plan);

/* ---- gateway_deal.c ---- */
int gateway_deal_open(struct gateway *g);   /* before workers are made; 0 or -ENOMEM */
void gateway_deal_wanted(void *deal);       /* some worker came near its part of a limit [worker] */
void gateway_deal_close(struct gateway *g); /* the workers' threads have ended; they are not freed yet */

/* ---- gateway_events.c ---- */
void gateway_watch_end(struct gateway *g); /* the workers are told nothing: they end as well */

/* ---- gateway_picks.c ---- */
void gateway_picks_open(
    struct gateway *g); /* what was chosen before; the workers are there and need not run yet */
void gateway_picks_again(struct gateway *g); /* a reload may have made groups anew */
void gateway_picks_close(struct gateway *g);
/** gateway_picks_decode() - the text of the file, NUL at [len]; changed by it. Return: 0; -EBADMSG: torn, and nothing is chosen */
int gateway_picks_decode(struct gateway *g, char *text, size_t len);

/* ---- gateway_lists.c ---- */
/* The workers run. @wait_us: before the first fetch, so that a row of reloads does not become one of fetches */
void gateway_lists_open(struct gateway *g, const struct config *c, uint64_t wait_us);
void gateway_lists_close(struct gateway *g);

/* ---- gateway_status.c ---- */
void gateway_status_forget(struct gateway *g); /* answers that are still to come are thrown away */

#endif
