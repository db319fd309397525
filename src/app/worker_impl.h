/* worker_impl.h - the inside of a worker, shared by worker.c (its turn and its life) and worker_msg.c (what main tells it). */
#ifndef CULVERT_APP_WORKER_IMPL_H
#define CULVERT_APP_WORKER_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "culvert/echo.h"
#include "worker.h"

struct worker_counters {
    counter turns; /* of its loop: each has waited once (epoll_wait) */
};
extern const struct counter_desc worker_counter_descs[]; /* ends with name NULL */

/* What main tells a worker. The messages are the worker's own, so none is lost for want of memory; what is told again before it
 * was heard replaces what was told before. */
struct worker_orders {
    struct worker_order {
        struct loop_msg msg;
        struct worker *worker;
        atomic_bool posted;
    } mtu, device_back, socket_rules;
    _Atomic uint32_t mtu_bytes;
    _Atomic(struct up_socket_rules *) next_rules; /* NULL: taken */
};

struct worker {
    uint32_t index, count;
    struct tun *tun;
    struct loop *loop;
    struct stack *stack;
    void *stack_memory;
    size_t stack_bytes;
    struct up_env *env;
    struct resolver *resolver;
    struct dns_service *dns; /* NULL: only while the worker is made */
    struct dns_plan *plan;   /* a reference: the service's */
    struct forward *forward;
    const struct up_socket_rules *socket_rules; /* those in force */
    struct up_socket_rules *own_rules;          /* replaced at run time; freed by us */
    struct worker_orders orders;
    struct echo_proxy *echo; /* NULL: no rule wants it */
    struct echo_guard *echo_guard;
    struct forward_policy *policy; /* the first one, until its thread has begun */
    struct config_shares shares;
    uint64_t shared_bytes;  /* its part of what all workers share: rules and lists */
    struct name_book *book; /* until worker_free() */
    bool tun_is_default;
    uint64_t seed;
    struct worker_fetch *fetches; /* under way */
    struct loop_io tun_io;
    struct loop_timer timer;
    struct loop_timer trim;
    uint64_t timer_us; /* what `timer` is set to */
    uint64_t rx_turn;  /* the last turn in which the TUN had packets */
    struct worker_counters cnt;
    struct worker *peer[WORKERS_MAX];
    struct ring *inbox[WORKERS_MAX]; /* from each other worker */
    bool ring_bell[WORKERS_MAX];     /* we put something there during this turn */
    struct worker_last *last;        /* worker_ended.c: flows that ended */
    struct worker_ended *ended;      /* the same, for those who listen; NULL: nobody has yet */
    bool ended_wanted;               /* somebody does now */
    struct log_sink *log;            /* of whoever made us; NULL: the process's */
    pthread_t thread;
    bool started;
};

/* 0 or -errno; needs loop, stack, forward. Nothing is opened when no rule lets a ping leave from this host. */
int worker_echo_open(struct worker *w, const struct forward_options *f);
/** worker_echo_again() - after a reload: ask once more whether we may ping (icmp.md X4), or open what no rule wanted before */
void worker_echo_again(struct worker *w, const struct forward_options *f);
void worker_shared_memory(struct worker *w, struct forward_policy *p); /* @p is in force from now on */
void worker_limit_packets(struct worker *w); /* packets give way to what else is of limits.memory */
void worker_memory(const struct worker *w, struct memory_use *add); /* worker_msg.c; in its thread */
/* ---- worker_names.c: up_env_options.resolve and its cancel; the service, once forward and env are there ---- */
int worker_resolve(void *arg, const char *name, up_resolved_fn *fn, void *fn_arg, struct up_resolve **out);
void worker_resolve_cancel(void *arg, struct up_resolve *q);
int worker_names_open(struct worker *w, const struct worker_setup *setup); /* 0 or -errno */
void worker_names_plan(struct worker *w, struct dns_plan *p);              /* after a reload */
void worker_names_close(struct worker *w);
/* ---- worker_group.c ---- */
/** worker_groups_report() - its groups, in one piece of memory behind ->groups, for free(); none without memory */
void worker_groups_report(struct worker *w, struct status_worker *out);
/** worker_upstreams_report() - health of its ways out, behind ->upstreams, for free(); none without memory */
void worker_upstreams_report(struct worker *w, struct status_worker *out);
void worker_groups_start(struct worker *w, struct forward_policy *p); /* in its thread */
void worker_on_group_tested(void *arg, struct upstream *group, uint32_t member, uint32_t delay_us);
void worker_on_group_no_udp(void *arg, struct upstream *group, uint32_t member);
void worker_on_group_switch(void *arg, struct upstream *group, uint32_t from, uint32_t to);

/* ---- worker_ended.c ---- */
enum { WORKER_LAST_MAX = 100 };
int worker_last_open(struct worker *w); /* needs forward; 0 or -ENOMEM */
/** worker_last() - the flows that ended last, newest first, for free(); in its thread. Return: how many */
size_t worker_last(const struct worker *w, struct status_ended **out);

void worker_fetches_end(struct worker *w); /* worker_fetch.c: its thread has ended */

void worker_read_again(struct worker *w); /* start reading the TUN queue; also after it was gone */

#endif
