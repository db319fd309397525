/* worker_msg.c - what the main thread tells a worker and asks of it; every message runs in the worker's own thread. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "culvert/dns.h"
#include "worker_impl.h"

#define PROBE_US 5000000 /* after a sleep the network may need a moment, too */

/* ---- orders -------------------------------------------------------------------------------------------------------- */

static void post_order(struct worker *w, struct worker_order *o, void (*fn)(struct loop_msg *m))
{
    if (atomic_exchange(&o->posted, true))
        return; /* on its way, and it looks at what is there when it is heard */
    o->worker = w;
    o->msg.fn = fn;
    loop_post(w->loop, &o->msg);
}

/* Whose order it is; from now on it may be posted again. */
static struct worker *order_heard(struct loop_msg *m)
{
    struct worker_order *o = CONTAINER_OF(m, struct worker_order, msg);
    struct worker *w = o->worker;

    atomic_store(&o->posted, false);
    return w;
}

static void do_mtu(struct loop_msg *m)
{
    struct worker *w = order_heard(m);

    if (w->stack)
        stack_set_mtu(w->stack, atomic_load(&w->orders.mtu_bytes));
}

void worker_set_mtu(struct worker *w, uint32_t mtu)
{
    atomic_store(&w->orders.mtu_bytes, mtu);
    post_order(w, &w->orders.mtu, do_mtu);
}

static void do_device_back(struct loop_msg *m)
{
    struct worker *w = order_heard(m);

    if (w->stack)
        worker_read_again(w);
}

void worker_device_back(struct worker *w)
{
    post_order(w, &w->orders.device_back, do_device_back);
}

static void do_socket_rules(struct loop_msg *m)
{
    struct worker *w = order_heard(m);
    struct up_socket_rules *rules = atomic_exchange(&w->orders.next_rules, NULL);

    if (!rules)
        return;
    if (w->stack) {
        up_env_set_rules(w->env, rules);
        free(w->own_rules);
        w->socket_rules = w->own_rules = rules;
        if (w->echo)
            echo_proxy_uplink_changed(w->echo);
    } else {
        free(rules);
    }
}

void worker_set_socket_rules(struct worker *w, struct up_socket_rules *rules)
{
    free(atomic_exchange(&w->orders.next_rules, rules));
    post_order(w, &w->orders.socket_rules, do_socket_rules);
}

/* ---- orders to all: one allocation, so that either all of them are told or none ------------------------------------------ */

struct workers_news {
    uint32_t count;
    _Atomic uint32_t left; /* that have not done it yet; the last one frees it */
    struct forward_policy *policy;
    struct dns_plan *dns;
    struct part {
        struct loop_msg msg;
        struct workers_news *common;
        struct worker *worker;
    } part[];
};

static void common_done(struct workers_news *c)
{
    if (atomic_fetch_sub(&c->left, 1) != 1)
        return;
    forward_policy_unref(c->policy);
    dns_plan_unref(c->dns);
    free(c);
}

struct workers_news *workers_news_new(uint32_t count, struct forward_policy *p, struct dns_plan *dns)
{
    struct workers_news *c = calloc(1, sizeof(*c) + count * sizeof(c->part[0]));

    if (!c)
        return NULL;
    c->count = count;
    atomic_init(&c->left, count);
    c->policy = p ? forward_policy_ref(p) : NULL;
    c->dns = dns ? dns_plan_ref(dns) : NULL;
    return c;
}

static void post_to_all(struct worker *const *all, struct workers_news *c, void (*fn)(struct loop_msg *m))
{
    uint32_t count = c->count; /* the last worker may have freed it before this ends */

    for (uint32_t i = 0; i < count; i++) {
        c->part[i] = (struct part){ { NULL, fn }, c, all[i] };
        loop_post(all[i]->loop, &c->part[i].msg);
    }
}

static void do_policy(struct loop_msg *m)
{
    struct part *p = CONTAINER_OF(m, struct part, msg);

    if (p->worker->stack) {
        forward_set_policy(p->worker->forward, p->common->policy);
        worker_shared_memory(p->worker, p->common->policy);
        if (p->common->dns) {
            worker_names_plan(p->worker, p->common->dns);
            worker_groups_start(p->worker, p->common->policy);
            worker_echo_again(p->worker, forward_policy_options(p->common->policy));
        }
    }
    common_done(p->common);
}

void workers_set_policy(struct worker *const *all, struct workers_news *news)
{
    post_to_all(all, news, do_policy);
}

static int tell_all(struct worker *const *all, uint32_t count, void (*fn)(struct loop_msg *m))
{
    struct workers_news *c = workers_news_new(count, NULL, NULL);

    if (!c)
        return -ENOMEM;
    post_to_all(all, c, fn);
    return 0;
}

static void on_probed(void *arg, int err)
{
    (void)arg; /* a way out that is down is marked so by the probe itself */
    (void)err;
}

static void do_probe(struct loop_msg *m)
{
    struct part *p = CONTAINER_OF(m, struct part, msg);
    struct worker *w = p->worker;
    struct upstream *const *targets;
    size_t n = 0;

    targets = w->stack ? forward_policy_targets(forward_policy_now(w->forward), &n) : NULL;
    for (size_t i = 0; i < n; i++)
        (void)up_probe(w->env, targets[i], PROBE_US, on_probed, NULL);
    common_done(p->common);
}

void workers_probe(struct worker *const *all, uint32_t count)
{
    (void)tell_all(all, count, do_probe);
}

static void do_drain(struct loop_msg *m)
{
    struct part *p = CONTAINER_OF(m, struct part, msg);

    if (p->worker->stack)
        forward_drain(p->worker->forward);
    common_done(p->common);
}

int workers_drain(struct worker *const *all, uint32_t count)
{
    return tell_all(all, count, do_drain);
}

/* ---- reports ------------------------------------------------------------------------------------------------------- */

struct question {
    struct loop_msg msg;
    struct worker *worker;
    unsigned parts;
    worker_report_fn *fn;
    void *arg;
};

const struct counter_desc worker_counter_descs[] = {
    { "loop.turns", offsetof(struct worker_counters, turns) },
    { NULL, 0 },
};

static size_t count_descs(const struct counter_desc *d)
{
    size_t n = 0;

    while (d[n].name)
        n++;
    return n;
}

static size_t put_counters(struct status_counter *out, const struct counter_desc *d, const void *of)
{
    size_t n = 0;

    for (; d[n].name; n++)
        out[n] = (struct status_counter){ d[n].name,
                                          counter_read((const counter *)((const char *)of + d[n].offset)) };
    return n;
}

/* The report holds the policies whose names it shows: few, since most flows are of today's. */
static bool hold_policy(struct worker_report *r, struct forward_policy *p)
{
    struct forward_policy **more;

    for (size_t i = r->policy_count; i-- > 0;)
        if (r->policies[i] == p)
            return true;
    more = realloc((void *)r->policies, (r->policy_count + 1) * sizeof(*more));
    if (!more)
        return false;
    r->policies = more;
    r->policies[r->policy_count++] = forward_policy_ref(p);
    return true;
}

static void put_flow(void *arg, const struct flow_info *info)
{
    struct worker_report *r = arg;

    if (r->flow_count == r->flow_cap || !hold_policy(r, info->policy))
        return; /* flows that began while we counted; the next report has them */
    r->flows[r->flow_count++] = (struct status_flow){
        .worker = r->status.index,
        .id = info->id,
        .key = info->key,
        .upstream = upstream_name(info->way),
        .state = info->state,
        .rule = info->rule,
        .rule_text = rules_name(forward_policy_rules(info->policy), info->rule),
        .age_ms = info->started_us,
        .bytes_up = info->bytes_up,
        .bytes_down = info->bytes_down,
        .left = info->left,
        .host = info->name[0] ? strdup(info->name) : NULL, /* none without memory */
    };
}

static struct worker_report *report_new(const struct worker *w, bool flows)
{
    size_t counters = count_descs(stack_counter_descs) + count_descs(forward_counter_descs) +
                      count_descs(up_counter_descs) + count_descs(tun_counter_descs) +
                      count_descs(resolver_counter_descs) + count_descs(dns_counter_descs) +
                      count_descs(echo_proxy_counter_descs) + count_descs(worker_counter_descs);
    struct worker_report *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    r->flow_cap = flows ? forward_tcp_count(w->forward) + forward_udp_count(w->forward) : 0;
    r->flows = calloc(r->flow_cap + 1, sizeof(*r->flows));
    r->status.counters = calloc(counters, sizeof(*r->status.counters));
    r->status.pools = calloc(64, sizeof(*r->status.pools));
    if (r->flows && r->status.counters && r->status.pools)
        return r;
    worker_report_free(r);
    return NULL;
}

static void fill_counters(struct worker *w, struct status_worker *s)
{
    struct status_counter *c =
        (struct status_counter *)(uintptr_t)s->counters; /* ours until it is handed on */
    size_t n = put_counters(c, stack_counter_descs, stack_counters(w->stack));

    n += put_counters(c + n, forward_counter_descs, forward_counters(w->forward));
    n += put_counters(c + n, up_counter_descs, up_counters(w->env));
    n += put_counters(c + n, tun_counter_descs, tun_counters(w->tun, w->index));
    n += put_counters(c + n, resolver_counter_descs, resolver_counters(w->resolver));
    if (w->dns)
        n += put_counters(c + n, dns_counter_descs, dns_counters(w->dns));
    if (w->echo)
        n += put_counters(c + n, echo_proxy_counter_descs, echo_proxy_counters(w->echo));
    n += put_counters(c + n, worker_counter_descs, &w->cnt);
    s->counter_count = n;
}

static void fill_pools(struct worker *w, struct status_worker *s)
{
    struct status_pool *out = (struct status_pool *)(uintptr_t)s->pools;
    struct stack_pool_info info[64];
    size_t n = stack_pools(w->stack, info, ARRAY_LEN(info));

    n += forward_pools(w->forward, info + n, ARRAY_LEN(info) - n);
    for (size_t i = 0; i < n; i++)
        out[i] = (struct status_pool){ info[i].name,       info[i].object_bytes, info[i].in_use,
                                       info[i].high_water, info[i].limit,        info[i].failed };
    s->pool_count = n;
}

void worker_memory(const struct worker *w, struct memory_use *add)
{
    stack_memory(w->stack, add);
    forward_memory(w->forward, add);
    up_env_memory(w->env, add);
    resolver_memory(w->resolver, add);
    if (w->dns)
        dns_service_memory(w->dns, add);
    if (w->echo)
        echo_proxy_memory(w->echo, add);
}

void worker_shared_memory(struct worker *w, struct forward_policy *p)
{
    struct memory_use use = { { 0 } };

    rules_memory(forward_policy_rules(p), &use);
    w->shared_bytes = use.bytes[MEMORY_RULES] / w->count;
    worker_limit_packets(w);
}

void worker_limit_packets(struct worker *w)
{
    struct memory_use use = { { 0 } };
    uint64_t others = w->shared_bytes + (w->book ? name_book_bytes(w->book) / w->count : 0);

    worker_memory(w, &use);
    others += memory_sum(&use) - use.bytes[MEMORY_PACKETS];
    stack_set_buffer_cap(w->stack, config_buffer_cap(&w->shares, others));
}

static void do_report(struct loop_msg *m)
{
    struct question q = *CONTAINER_OF(m, struct question, msg);
    struct worker *w = q.worker;
    struct worker_report *r = w->stack ? report_new(w, (q.parts & STATUS_FLOWS) != 0) : NULL;

    free(CONTAINER_OF(m, struct question, msg));
    if (r) {
        r->status.index = w->index;
        r->status.tcp_flows = forward_tcp_count(w->forward);
        r->status.udp_flows = forward_udp_count(w->forward);
        r->status.half_open = stack_half_open_count(w->stack);
        fill_counters(w, &r->status);
        fill_pools(w, &r->status);
        worker_memory(w, &r->status.memory);
        worker_groups_report(w, &r->status);
        worker_upstreams_report(w, &r->status);
        if (q.parts & STATUS_ENDED)
            r->ended_count = worker_last(w, &r->ended);
        if (q.parts & STATUS_FLOWS) {
            uint64_t now_us = loop_now_us(w->loop);

            forward_flows(w->forward, put_flow, r);
            for (size_t i = 0; i < r->flow_count; i++)
                r->flows[i].age_ms = (now_us - r->flows[i].age_ms) / 1000; /* put_flow left the start there */
        }
    }
    q.fn(q.arg, w->index, r);
}

int worker_report(struct worker *w, unsigned parts, worker_report_fn *fn, void *arg)
{
    struct question *q = malloc(sizeof(*q));

    if (!q)
        return -ENOMEM;
    *q = (struct question){ { NULL, do_report }, w, parts, fn, arg };
    loop_post(w->loop, &q->msg);
    return 0;
}

struct end_order {
    struct loop_msg msg;
    struct worker *worker;
    uint64_t id;
    void (*fn)(void *arg, bool found);
    void *arg;
};

static void do_end_flow(struct loop_msg *m)
{
    struct end_order o = *CONTAINER_OF(m, struct end_order, msg);

    free(CONTAINER_OF(m, struct end_order, msg));
    o.fn(o.arg, o.worker->stack && forward_end_flow(o.worker->forward, o.id));
}

int worker_end_flow(struct worker *w, uint64_t id, void (*fn)(void *arg, bool found), void *arg)
{
    struct end_order *o = malloc(sizeof(*o));

    if (!o)
        return -ENOMEM;
    *o = (struct end_order){ { NULL, do_end_flow }, w, id, fn, arg };
    loop_post(w->loop, &o->msg);
    return 0;
}

void worker_report_free(struct worker_report *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->policy_count; i++)
        forward_policy_unref(r->policies[i]);
    free((void *)r->policies);
    for (size_t i = 0; i < r->flow_count; i++)
        free((void *)(uintptr_t)r->flows[i].host);
    free(r->flows);
    free(r->ended);
    free((void *)(uintptr_t)r->status.counters);
    free((void *)(uintptr_t)r->status.pools);
    free((void *)(uintptr_t)r->status.groups);
    free((void *)(uintptr_t)r->status.upstreams);
    free(r);
}
