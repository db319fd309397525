/* worker.h - one worker: a thread, its loop, its TUN queue, its stack shard, its upstream sockets and its flows.
 * Knows     how these are wired; nothing of signals, files or routes.
 * Threads   worker_new, worker_start, worker_stop, worker_free: [main]. Everything else happens in the worker's own thread. */
#ifndef CULVERT_APP_WORKER_H
#define CULVERT_APP_WORKER_H

#include "culvert/api.h"
#include "culvert/config.h"
#include "culvert/echo.h"
#include "culvert/forward.h"
#include "culvert/loop.h"
#include "culvert/resolver.h"
#include "culvert/stack.h"
#include "culvert/tun.h"
#include "culvert/upstream.h"

#define WORKERS_MAX 64

/* Packets that another worker handed over: one ring for each pair, the only memory that two workers share. */
#define HANDOFF_RING_BYTES   (1u << 20)
#define HANDOFF_RING_PACKETS 1024

struct worker;

struct worker_setup { /* all of it is borrowed until worker_new() returns, but for what says otherwise */
    uint32_t index, count;
    struct tun *tun; /* until worker_free(); this worker's queue is `index` */
    struct stack_config stack;
    struct forward_policy *policy; /* a reference is taken */
    struct own_flows *own;         /* until worker_free() */
    struct echo_guard *echo_guard; /* until worker_free() */
    struct owners *owners;         /* until worker_stop(); NULL: nobody can be asked */
    bool tun_is_default;           /* the TUN carries the default route: nothing of ours may loop */
    const struct up_socket_rules *rules_of_sockets; /* until replaced by worker_set_socket_rules() */
    struct ip_addr gateway[2];
    struct resolver_options resolver;
    struct dns_plan *dns; /* a reference is taken */
    /* Names, until worker_free(). */
    struct dns_services *dns_services;
    struct name_book *book;
    const struct ip_prefix *own_networks; /* of the TUN */
    size_t own_network_count;
    uint32_t max_streams, max_udp;
    struct config_shares shares; /* of the limits */
    forward_want_fn *want_share; /* called in the worker's thread; with more than one worker */
    void *want_arg;
    uint64_t seed;
};

int worker_new(const struct worker_setup *setup, struct worker **out, struct err *err);
/** worker_connect() - all workers exist: tell this one of the others, before any worker_start() */
void worker_connect(struct worker *w, struct worker *const *all, uint32_t count);
int worker_start(struct worker *w); /* 0 or -errno of pthread_create */
/** worker_stop() - end its flows and its thread, and wait for it */
void worker_stop(struct worker *w);
void worker_free(struct worker *w); /* NULL is fine */
struct loop *worker_loop(struct worker *w);

/* Messages to the worker [main]. */
void worker_set_mtu(struct worker *w, uint32_t mtu);
void worker_device_back(struct worker *w); /* the TUN was made anew: read again */
/** workers_probe() - all ways out are tried now, each worker's own connections first (faults.md X7) */
void workers_probe(struct worker *const *all, uint32_t count);
/** worker_set_socket_rules() - @rules replaces the old ones; the worker frees it (free()) when it is replaced in turn */
void worker_set_socket_rules(struct worker *w, struct up_socket_rules *rules);

/* A file for the main thread: a message that goes there and back. Whoever asks owns it again when `done` has been called, in the
 * thread of `back`; exactly once, with -ECANCELED if the worker ends before. */
struct worker_fetch {
    struct loop_msg msg;
    struct worker *worker;
    struct worker_fetch *next;
    struct up_fetch *under_way;
    struct up_fetch_options options;  /* what it points to lives until then */
    char validator[UP_VALIDATOR_MAX]; /* room for options.validator */
    struct loop *back;
    void (*done)(struct loop_msg *m); /* its `msg` */
    struct up_fetched result;
};
void worker_fetch(struct worker *w, struct worker_fetch *f);

/** worker_pick() - the group's member from now on (a `select`); @group: borrowed, @member: its name, copied */
void worker_pick(struct worker *w, struct upstream *group, const char *member);
struct workers_news;
/** workers_news_new() - what it takes to tell @count workers of a policy, so that telling them cannot fail
 * @p, @dns: references are taken; @dns NULL: nothing but a list of the rules has changed. Return: NULL: no memory */
struct workers_news *workers_news_new(uint32_t count, struct forward_policy *p, struct dns_plan *dns);
/** workers_set_policy() - all of them decide new flows by it and answer new questions by it; @news is theirs now */
void workers_set_policy(struct worker *const *all, struct workers_news *news);
/** workers_drain() - end the flows whose way out is not in the policy any more. Return: 0; -ENOMEM: none has been told */
int workers_drain(struct worker *const *all, uint32_t count);

/* A worker's part of a snapshot. Filled in its thread, owned by whoever asked; worker_report_free() frees it. */
struct worker_report {
    struct status_worker status;
    struct status_flow *flows;
    size_t flow_count, flow_cap;
    /* what the flows' names belong to; references */
    struct forward_policy **policies;
    size_t policy_count;
    struct status_ended *ended;
    size_t ended_count;
};
/** worker_report() - ask for what is always there and @parts of STATUS_*; @fn runs in the worker's thread with the filled report, and hands it on by itself */
typedef void worker_report_fn(void *arg, uint32_t worker, struct worker_report *report);
int worker_report(struct worker *w, unsigned parts, worker_report_fn *fn, void *arg); /* 0 or -ENOMEM */
/** worker_watch() - begin or end to tell of flows that end, for worker_next_ended(), until worker_free() [main] */
void worker_watch(struct worker *w, bool on);
/** worker_next_ended() - the oldest that nobody has seen. Return: false: there is none [main] */
bool worker_next_ended(struct worker *w, struct status_ended *out);
/** worker_end_flow() - end this flow, if it lives; @fn runs in the worker's thread, as above */
int worker_end_flow(struct worker *w, uint64_t id, void (*fn)(void *arg, bool found), void *arg);
void worker_report_free(struct worker_report *r);

#endif
