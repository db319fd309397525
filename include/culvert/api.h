/* api.h - the control socket: HTTP/1.1 over a unix socket and over TCP, JSON by jansson, server by libmicrohttpd on our loop.
 * Knows     how a snapshot looks as JSON and as metrics, and who may ask; not how it is collected or changed (callbacks do).
 * Threads   [main] only. Built when WITH_API is on. */
#ifndef CULVERT_API_H
#define CULVERT_API_H

#include <stdio.h>

#include "culvert/base.h"
#include "culvert/loop.h"

struct status_counter {
    const char *name;
    uint64_t value;
};
struct status_pool {
    const char *name;
    uint64_t object_bytes, in_use, high_water, limit, failed;
};
struct status_flow {
    uint64_t id; /* of this flow and no other, as long as it lives */
    uint32_t worker;
    struct flow_key key;
    const char *upstream, *state;
    uint32_t rule;
    const char *rule_text; /* as it was when it took the flow */
    bool left;             /* its way out is not in the configuration any more (faults.md C11) */
    const char *host;      /* the name behind the destination's address; NULL: none is known */
    uint64_t age_ms, bytes_up, bytes_down;
};
#define STATUS_NAME_MAX 132
struct status_member {
    char name[STATUS_NAME_MAX];
    bool down;
    uint32_t failures, delay_ms; /* in a row; of the last test, 0: none */
};
struct status_group { /* as one worker sees it */
    char name[STATUS_NAME_MAX];
    const char *type;
    const struct status_member *members;
    uint32_t member_count, now; /* now: what a new flow takes */
};
struct status_upstream { /* as one worker sees it */
    char name[STATUS_NAME_MAX];
    const char *type;
    uint32_t failures, rtt_us; /* in a row; of a connect to its server, 0: unknown */
    uint64_t good_ms;          /* since the last handshake or data; UINT64_MAX: never */
    bool udp_refused;
};
struct status_rule {
    const char *text, *target;
    uint64_t hits; /* flows that it took since it was loaded */
};
struct status_worker {
    uint32_t index;
    uint32_t tcp_flows, udp_flows, half_open;
    struct memory_use memory;
    const struct status_counter *counters; /* stack, forward, upstream and tun counters, all names distinct */
    size_t counter_count;
    const struct status_pool *pools;
    size_t pool_count;
    const struct status_group *groups;
    size_t group_count;
    const struct status_upstream *upstreams; /* groups are not among them */
    size_t upstream_count;
};
struct status_ended { /* a flow that has ended */
    uint64_t id;
    struct flow_key key;
    char upstream[STATUS_NAME_MAX], rule[132], reason[132], host[132];
    uint64_t up, down;
    uint32_t age_ms;
    uint64_t ago_ms; /* since it ended; in a snapshot only */
};
struct status_snapshot {
    const char *version, *tun, *offload;
    const char *steering; /* "on", or "off: " and why (STR-4) */
    uint32_t mtu;
    uint64_t tun_kernel_drops; /* packets that found the device's queue full (STR-5) */
    uint64_t uptime_ms, log_lines_lost;
    uint64_t rss_bytes, budget_bytes; /* budget: limits.memory as it is in force */
    struct memory_use memory;         /* what no worker has, but all together */
    const struct status_worker *workers;
    size_t worker_count;
    const struct status_flow *flows;
    size_t flow_count;
    const struct status_rule *rules;
    size_t rule_count;
    const struct ip_prefix
        *not_followed; /* with strict-route: routes of others that would lead past the tunnel */
    size_t not_followed_count;
    const struct status_ended *ended; /* the last few of each worker, newest first */
    size_t ended_count;
};

struct api;
struct api_answer; /* one request under way */
/* What a snapshot has beside counters, pools, groups and upstreams. */
enum { STATUS_FLOWS = 1, STATUS_RULES = 2, STATUS_ENDED = 4 };
#define API_NO_DRAIN UINT32_MAX
struct api_options {
    /* at most 107 bytes; NULL: none. A stale socket is replaced after a failed connect (faults.md A7) */
    const char *unix_path;
    struct ip_port listen; /* over TCP as well; no address: not. A public one needs a secret (faults.md A3) */
    const char *secret;    /* callers over TCP send "Authorization: Bearer SECRET"; NULL: none. Copied */
    const char *metrics;   /* path of the metrics, "/metrics"; NULL: none. Copied */
    void *arg;
    /* @parts: STATUS_*. Must end in api_answer_status(), now or later, in the main loop */
    void (*on_status)(void *arg, unsigned parts, struct api_answer *a);
    /* PUT groups/NAME. Return: 0; -ENOENT no such group; -EINVAL no `select`, or no such member; -errno; with a sentence */
    int (*on_pick)(void *arg, const char *group, const char *member, struct err *err);
    /* DELETE flows/ID: must end in api_answer_ended(), as above */
    void (*on_end_flow)(void *arg, uint64_t id, struct api_answer *a);
    /* POST reload: read the file again. @drain_ms: API_NO_DRAIN: none. Return: 0; -errno with a sentence, nothing has changed */
    int (*on_reload)(void *arg, uint32_t drain_ms, struct err *err);
    /* GET events: the first one listens (true), the last one has left (false). NULL: nobody may */
    void (*on_watch)(void *arg, bool on);
};
/** api_open() - listen; what a callback needs must be there once the loop runs
 * Return: 0; -errno with a sentence: -EINVAL for what is wrong in the options, others are the machine's. */
int api_open(const struct api_options *opt, struct loop *l, struct api **out, struct err *err);
void api_close(struct api *a); /* unanswered requests are dropped; removes the socket file; NULL is fine */
void api_answer_status(struct api_answer *a, const struct status_snapshot *s); /* NULL: no memory for one */
void api_answer_ended(struct api_answer *a, bool found); /* true: there was such a flow, and it is ended */
/* To all that listen; NULL is fine for either. A listener that does not read loses updates (faults.md A5). */
void api_tell_ended(struct api *a, const struct status_ended *e);
void api_tell_counters(struct api *a, const struct status_snapshot *s);

/** api_ask() - the client side: one request to a unix socket, blocking, at most @timeout_ms; the body of a good answer goes to @out
 * @method: "GET", "PUT", ...; @body: JSON, or NULL. Works without WITH_API too.
 * Return: 0 for a status of 200 to 299; -errno with a sentence in @err; -EPROTO for another status, then the sentence is the server's. */
int api_ask(const char *unix_path, const char *method, const char *path, const char *body, int timeout_ms,
            FILE *out, struct err *err);

#endif
