/* api.h - the control socket: HTTP/1.1 over a unix socket, JSON by jansson, server by libmicrohttpd on our loop.
 * Knows     how a snapshot looks as JSON and who may ask; not how it is collected (a callback does).
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
    uint32_t worker;
    struct flow_key key;
    const char *upstream, *state;
    uint32_t rule;
    const char *rule_text; /* as it was when it took the flow */
    bool left;             /* its way out is not in the configuration any more (faults.md C11) */
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
struct status_worker {
    uint32_t index;
    uint32_t tcp_flows, udp_flows, half_open;
    const struct status_counter *counters; /* stack, forward, upstream and tun counters, all names distinct */
    size_t counter_count;
    const struct status_pool *pools;
    size_t pool_count;
    const struct status_group *groups;
    size_t group_count;
};
struct status_snapshot {
    const char *version, *tun, *offload;
    uint32_t mtu;
    uint64_t tun_kernel_drops; /* packets that found the device's queue full (STR-5) */
    uint64_t uptime_ms, log_lines_lost;
    uint64_t rss_bytes;
    const struct status_worker *workers;
    size_t worker_count;
    const struct status_flow *flows;
    size_t flow_count;
};

struct api;
struct api_answer; /* one request under way */
struct api_options {
    /* at most 107 bytes; a stale socket is replaced after a failed connect (faults.md A7) */
    const char *unix_path;
    /* GET /v1/status[?flows=1]: must end in api_answer_status(), now or later, in the main loop */
    void (*on_status)(void *arg, bool flows, struct api_answer *a);
    void *arg;
};
int api_open(const struct api_options *opt, struct loop *l, struct api **out,
             struct err *err); /* 0 or -errno with a sentence */
void api_close(struct api *a); /* unanswered requests are dropped; removes the socket file; NULL is fine */
void api_answer_status(struct api_answer *a, const struct status_snapshot *s); /* NULL: no memory for one */

/** api_get() - the client side: GET @path from a unix socket, blocking, at most @timeout_ms; prints the body to @out
 * Return: 0; -errno with a sentence in @err; -EPROTO for a status other than 200. Works without WITH_API too. */
int api_get(const char *unix_path, const char *path, int timeout_ms, FILE *out, struct err *err);

#endif
