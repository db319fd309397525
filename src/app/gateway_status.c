/* gateway_status.c - a snapshot of all workers: a question to each, and when the last one has answered, the whole at once. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "culvert/dns.h"
#include "gateway_impl.h"

struct snapshot {
    struct gateway *g; /* NULL: it ended while workers were still answering */
    struct snapshot *next;
    uint32_t workers;
    unsigned parts;
    void (*done)(void *arg, const struct status_snapshot *s);
    void *arg;
    uint32_t waiting;
    struct worker_report *report[WORKERS_MAX];
};

struct ending { /* a flow that a worker is asked to end */
    struct loop_msg msg;
    struct gateway *g; /* as above */
    struct ending *next;
    struct loop *to;
    bool found;
    void (*done)(void *arg, bool found);
    void *arg;
};

struct arrival { /* a worker's answer on its way to the main thread */
    struct loop_msg msg;
    struct loop *to;
    struct snapshot *snapshot;
    uint32_t worker;
    struct worker_report *report;
};

static uint64_t resident_bytes(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (!f)
        return 0;
    if (fscanf(f, "%*s %llu", &pages) != 1)
        pages = 0;
    fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* The last one is what takes a flow that no rule of the file takes. NULL: no memory, and *count is 0. */
static struct status_rule *rules_of(struct forward_policy *p, size_t *count)
{
    struct rules *rules = forward_policy_rules(p);
    uint32_t n = (uint32_t)rules_count(rules);
    struct status_rule *all = calloc(n + 1, sizeof(*all));
    size_t targets;
    struct upstream *const *target = forward_policy_targets(p, &targets);

    *count = all ? n + 1 : 0;
    for (uint32_t i = 0; i < *count; i++) {
        uint32_t rule = i < n ? i : RULE_IMPLICIT;

        all[i] =
            (struct status_rule){ rules_name(rules, rule), upstream_name(target[rules_target(rules, rule)]),
                                  forward_policy_hits(p, rule) };
    }
    return all;
}

static int by_end(const void *a, const void *b)
{
    const struct status_ended *x = a, *y = b;

    return (x->ago_ms > y->ago_ms) - (x->ago_ms < y->ago_ms);
}

/* Of all workers, newest first. NULL: no memory, and *count is 0. */
static struct status_ended *ended_of(const struct snapshot *s, size_t *count)
{
    struct status_ended *all;
    size_t n = 0;

    for (uint32_t i = 0; i < s->workers; i++)
        n += s->report[i] ? s->report[i]->ended_count : 0;
    all = calloc(n + 1, sizeof(*all));
    *count = all ? n : 0;
    for (uint32_t i = 0, at = 0; all && i < s->workers; i++) {
        const struct worker_report *r = s->report[i];

        if (r && r->ended_count > 0)
            memcpy(all + at, r->ended, r->ended_count * sizeof(*all));
        at += r ? (uint32_t)r->ended_count : 0;
    }
    if (*count > 1)
        qsort(all, *count, sizeof(*all), by_end);
    return all;
}

/* What all workers share. What is resident and nobody has named is `other`. */
static void add_shared_memory(struct gateway *g, struct status_snapshot *out)
{
    uint64_t sum;

    rules_memory(forward_policy_rules(g->policy), &out->memory);
    if (g->names.book)
        out->memory.bytes[MEMORY_DNS] += name_book_bytes(g->names.book);
    sum = memory_sum(&out->memory);
    for (size_t i = 0; i < out->worker_count; i++)
        sum += memory_sum(&out->workers[i].memory);
    out->memory.bytes[MEMORY_OTHER] = out->rss_bytes > sum ? out->rss_bytes - sum : 0;
}

static void show(struct snapshot *s)
{
    struct gateway *g = s->g;
    struct status_worker workers[WORKERS_MAX];
    struct status_snapshot out = {
        .version = CULVERT_VERSION,
        .tun = tun_name(g->tun),
        .offload = tun_rung_text(tun_rung(g->tun)),
        .mtu = tun_mtu(g->tun),
        .steering = tun_steering(g->tun),
        .tun_kernel_drops = tun_kernel_drops(g->tun),
        .uptime_ms = (clock_now_us() - g->started_us) / 1000,
        .log_lines_lost = log_lines_lost(),
        .rss_bytes = resident_bytes(),
        .budget_bytes = g->share.of.memory_bytes,
        .workers = workers,
    };
    struct status_rule *rules = s->parts & STATUS_RULES ? rules_of(g->policy, &out.rule_count) : NULL;
    struct status_ended *ended = ended_of(s, &out.ended_count);
    struct status_flow *flows;
    size_t flow_count = 0;

    for (uint32_t i = 0; i < s->workers; i++)
        flow_count += s->report[i] ? s->report[i]->flow_count : 0;
    flows = calloc(flow_count + 1, sizeof(*flows));
    for (uint32_t i = 0; i < s->workers; i++) {
        const struct worker_report *r = s->report[i];

        if (!r)
            continue;
        workers[out.worker_count++] = r->status;
        if (flows && r->flow_count > 0)
            memcpy(flows + out.flow_count, r->flows, r->flow_count * sizeof(*flows));
        out.flow_count += flows ? r->flow_count : 0;
    }
    out.flows = flows;
    add_shared_memory(g, &out);
    if (g->route)
        out.not_followed_count = route_not_followed(g->route, &out.not_followed);
    out.rules = rules;
    out.ended = ended;
    s->done(s->arg, &out);
    free(ended);
    free(flows);
    free(rules);
}

static void finish(struct snapshot *s)
{
    if (s->g) {
        struct snapshot **at;

        show(s);
        for (at = &s->g->snapshots; *at != s; at = &(*at)->next)
            ;
        *at = s->next;
    }
    for (uint32_t i = 0; i < s->workers; i++)
        worker_report_free(s->report[i]);
    free(s);
}

void gateway_status_forget(struct gateway *g)
{
    for (struct snapshot *s = g->snapshots; s; s = s->next)
        s->g = NULL;
    g->snapshots = NULL;
    for (struct ending *e = g->endings; e; e = e->next)
        e->g = NULL;
    g->endings = NULL;
}

static void on_arrival(struct loop_msg *m)
{
    struct arrival *a = CONTAINER_OF(m, struct arrival, msg);
    struct snapshot *s = a->snapshot;

    s->report[a->worker] = a->report;
    free(a);
    if (--s->waiting == 0)
        finish(s);
}

static void on_report(void *arg, uint32_t worker, struct worker_report *report) /* in the worker's thread */
{
    struct arrival *a = arg;

    a->worker = worker;
    a->report = report;
    loop_post(a->to, &a->msg);
}

void gateway_status(struct gateway *g, unsigned parts,
                    void (*done)(void *arg, const struct status_snapshot *s), void *arg)
{
    struct snapshot *s = calloc(1, sizeof(*s));

    if (!s) {
        done(arg, NULL);
        return;
    }
    s->g = g;
    s->parts = parts;
    s->done = done;
    s->arg = arg;
    s->workers = g->worker_count;
    s->next = g->snapshots;
    g->snapshots = s;
    s->waiting = 1; /* ours, until all questions are out */
    for (uint32_t i = 0; i < g->worker_count; i++) {
        struct arrival *a = calloc(1, sizeof(*a));

        if (!a)
            continue;
        a->msg.fn = on_arrival;
        a->snapshot = s;
        a->to = g->setup.loop;
        s->waiting++;
        if (worker_report(g->workers[i], parts, on_report, a) != 0) {
            s->waiting--;
            free(a);
        }
    }
    if (--s->waiting == 0)
        finish(s);
}

/* ---- ending a flow ---- */

static void on_ended(struct loop_msg *m)
{
    struct ending *e = CONTAINER_OF(m, struct ending, msg);

    if (e->g) {
        struct ending **at;

        for (at = &e->g->endings; *at != e; at = &(*at)->next)
            ;
        *at = e->next;
        e->done(e->arg, e->found);
    }
    free(e);
}

static void on_worker_ended(void *arg, bool found) /* in the worker's thread */
{
    struct ending *e = arg;

    e->found = found;
    loop_post(e->to, &e->msg);
}

void gateway_end_flow(struct gateway *g, uint64_t id, void (*done)(void *arg, bool found), void *arg)
{
    uint64_t worker = id >> FLOW_ID_WORKER_SHIFT;
    struct ending *e = worker < g->worker_count ? calloc(1, sizeof(*e)) : NULL;

    if (!e) {
        done(arg, false);
        return;
    }
    *e = (struct ending){ { NULL, on_ended }, g, g->endings, g->setup.loop, false, done, arg };
    g->endings = e;
    if (worker_end_flow(g->workers[worker], id, on_worker_ended, e) != 0) {
        g->endings = e->next;
        free(e);
        done(arg, false);
    }
}
