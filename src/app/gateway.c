/* gateway.c - the engine's life: TUN, shares of the limits, workers, routes; and all of it undone in reverse. */
#include "gateway.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "cgroup.h"
#include "gateway_impl.h"
#include "owner.h"
#include "process.h"
#include "watchdog.h"

/* ---- the machine ------------------------------------------------------------------------------------------------- */

void gateway_shares(const struct config *c, uint32_t workers, struct config_shares *out)
{
    struct config_machine m = { .workers = workers,
                                .cgroup_bytes = cgroup_memory_limit("/proc/self/cgroup", "/sys/fs/cgroup") };
    struct sysinfo si;
    struct rlimit files;

    m.ram_bytes = sysinfo(&si) == 0 ? (uint64_t)si.totalram * si.mem_unit : 64u << 20;
    m.descriptor_limit = getrlimit(RLIMIT_NOFILE, &files) == 0 ? files.rlim_cur : 1024;
    config_shares(&c->limits, &m, out);
}

/* ---- parts ----------------------------------------------------------------------------------------------------------- */

static void close_adopted(const struct gateway_setup *setup)
{
    for (size_t i = 0; i < setup->tun_fd_count; i++)
        close(setup->tun_fds[i]);
}

static int tun_start(struct gateway *g, struct err *err)
{
    const struct config *c = g->setup.config;
    struct tun_options opt = c->tun;
    uint32_t want = c->workers ? c->workers : process_usable_cores();
    int r;

    if (want > WORKERS_MAX)
        want = WORKERS_MAX;
    if (g->setup.tun_fd_count > 0) {
        opt.fd = g->setup.tun_fds[0];
        opt.more_fds_count = (uint32_t)g->setup.tun_fd_count - 1;
        memcpy(opt.more_fds, g->setup.tun_fds + 1, opt.more_fds_count * sizeof(opt.more_fds[0]));
    }
    if (opt.queues == 0 || opt.queues > want)
        opt.queues = want;
    r = tun_open(&opt, want, g->setup.netlink, &g->tun, err);
    if (r != 0) /* else tun_close() does it */
        close_adopted(&g->setup);
    return r;
}

/* Any worker may come to have all of them. */
static uint32_t of_a_worker(uint32_t whole, uint32_t most)
{
    return whole < most ? whole : most;
}

static void stack_share(const struct gateway *g, const struct config_shares *shares, struct stack_config *out)
{
    struct ip_addr own[2];
    uint8_t len[2];

    *out = g->setup.config->stack;
    gateway_stack_addresses(&g->setup.config->tun, own, len);
    out->addresses = 0;
    for (size_t i = 0; i < 2; i++) {
        if (ip_is_none(&own[i]))
            continue;
        out->address[out->addresses] = own[i];
        out->address_len[out->addresses++] = len[i];
    }
    out->mtu_bytes = tun_mtu(g->tun);
    out->shards = tun_queues(g->tun);
    out->offload_csum = tun_rung(g->tun) <= TUN_RUNG_TSO;
    out->offload_tso = tun_rung(g->tun) <= TUN_RUNG_TSO;
    out->offload_uso = tun_rung(g->tun) == TUN_RUNG_USO;
    out->buffer_cap_bytes = shares->buffer_cap_bytes;
    out->rx_slots = shares->rx_slots;
    out->max_half_open = shares->half_open;
    out->max_tcp = of_a_worker(shares->max_tcp, FORWARD_TCP_MAX);
    out->max_udp = of_a_worker(shares->max_udp, FORWARD_UDP_MAX);
}

static int worker_open(struct gateway *g, uint32_t index, const struct worker_setup *template,
                       struct err *err)
{
    struct worker_setup setup = *template;
    int r;

    setup.index = setup.stack.shard = index;
    if ((r = random_bytes(&setup.stack.secret, sizeof(setup.stack.secret))) != 0 ||
        (r = random_bytes(&setup.stack.seed, sizeof(setup.stack.seed))) != 0 ||
        (r = random_bytes(&setup.seed, sizeof(setup.seed))) != 0)
        return err_set(err, r, "no random numbers from the kernel: %s", strerror(-r));
    return worker_new(&setup, &g->workers[index], err);
}

static int workers_open(struct gateway *g, struct err *err)
{
    const struct config *c = g->setup.config;
    uint32_t count = tun_queues(g->tun);
    struct worker_setup setup = {
        .count = count,
        .tun = g->tun,
        .policy = g->policy,
        .own = g->own,
        .echo_guard = g->echo_guard,
        .owners = g->owners,
        .tun_is_default = c->route.auto_route && g->setup.netlink != NULL,
        .rules_of_sockets = &g->first_rules,
    };
    const struct config_shares *shares = &g->share.of;
    int r = random_bytes(&setup.stack.steer_key, sizeof(setup.stack.steer_key));
    struct hash_key steer = setup.stack.steer_key;

    if (r != 0)
        return err_set(err, r, "no random numbers from the kernel: %s", strerror(-r));
    (void)tun_steer(g->tun, &steer); /* without it packets are handed over; the log and the status say so */
    if ((r = gateway_deal_open(g)) != 0)
        return err_set(err, r, "no memory");
    setup.want_arg = g->deal;
    if ((r = gateway_names_open(g, count, shares->memory_bytes)) != 0)
        return err_set(err, r, "names cannot be set up: %s", strerror(-r));
    setup.want_share = gateway_deal_wanted;
    setup.dns = g->names.plan;
    setup.dns_services = g->names.services;
    setup.book = g->names.book;
    setup.own_networks = g->names.own;
    setup.own_network_count = g->names.owns;
    setup.resolver.servers = c->dns.proxy_servers;
    setup.resolver.n_servers = c->dns.n_proxy_servers;
    if (c->route.system_dns) /* the other one names ourselves */
        setup.resolver.resolv_conf_path = ROUTE_DNS_FILE ROUTE_DNS_SAVED;
    stack_share(g, shares, &setup.stack);
    setup.stack.steer_key = steer;
    gateway_stack_addresses(&c->tun, setup.gateway, NULL);
    setup.max_streams = setup.stack.max_tcp + 1024; /* DNS over TCP and probes beside the flows */
    setup.max_udp = setup.stack.max_udp;
    setup.shares = *shares;
    for (; g->worker_count < count; g->worker_count++)
        if ((r = worker_open(g, g->worker_count, &setup, err)) != 0)
            return r;
    for (uint32_t i = 0; i < count; i++)
        worker_connect(g->workers[i], g->workers, count);
    return 0;
}

static int workers_start(struct gateway *g, struct err *err)
{
    for (uint32_t i = 0; i < g->worker_count; i++) {
        int r = worker_start(g->workers[i]);

        if (r != 0)
            return err_set(err, r, "a thread for worker %u cannot be started: %s; set runtime.workers to %u",
                           i, strerror(-r), i ? i : 1);
    }
    return 0;
}

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

/* Without it, rules about users and programs match nothing, and that is said. Its thread runs once privileges are gone. */
static void owners_open(struct gateway *g)
{
    struct err err = { "" };
    uint8_t needs = rules_needs(g->setup.config->rules);

    if (owners_new(g->setup.helper, g->setup.diag, &g->owners, &err) != 0 &&
        (needs & (RULE_NEEDS_UID | RULE_NEEDS_PROCESS)))
        log_warning("rules with UID and PROCESS-* match nothing: %s", err.text);
    g->setup.diag = NULL;
}

static void on_wake(void *arg, uint64_t slept_us)
{
    struct gateway *g = arg;

    (void)slept_us;
    workers_probe(g->workers, g->worker_count);
}

static int threads_start(struct gateway *g, struct err *err)
{
    int r = g->owners != NULL ? owners_start(g->owners) : 0;

    if (r != 0)
        return err_set(err, r, "no thread for look-ups of programs: %s", strerror(-r));
    if ((r = workers_start(g, err)) != 0)
        return r;
    r = watchdog_start(g->setup.loop, g->workers, g->worker_count, g->setup.is_process, on_wake, g,
                       &g->watchdog);
    return r == 0 ? 0 : err_set(err, r, "no memory");
}

static int confine(struct gateway *g, struct err *err)
{
    if (g->setup.before_threads == NULL)
        return 0;
    return g->setup.before_threads(g->setup.before_arg, tun_name(g->tun), g->route, err);
}

int gateway_start(const struct gateway_setup *setup, struct gateway **out, struct err *err)
{
    struct gateway *g = calloc(1, sizeof(*g));
    int r;

    if (!g) {
        close_adopted(setup);
        netlink_close(setup->diag);
        return err_set(err, -ENOMEM, "no memory");
    }
    g->setup = *setup;
    g->started_us = clock_now_us();
    if ((r = tun_start(g, err)) != 0)
        goto undo;
    g->share.workers = tun_queues(g->tun);
    gateway_shares(setup->config, g->share.workers, &g->share.of);
    if ((r = gateway_policy(g, setup->config, &g->policy, err)) != 0)
        goto undo;
    if ((r = own_flows_new(&g->own)) != 0 || (r = echo_guard_new(&g->echo_guard)) != 0) {
        err_set(err, r, "the guard against loops cannot be set up: %s", strerror(-r));
        goto undo;
    }
    g->names.fakes = setup->config->dns.mode == DNS_MODE_FAKE_IP;
    owners_open(g);
    gateway_socket_rules(g, &g->rules);
    g->first_rules = g->rules;
    if ((r = workers_open(g, err)) != 0)
        goto undo;
    gateway_picks_open(g);
    if ((r = gateway_device_watch(g, err)) != 0 || (r = gateway_routes_open(g, err)) != 0 ||
        (r = confine(g, err)) != 0)
        goto undo;
    if ((r = threads_start(g, err)) != 0)
        goto undo;
    gateway_lists_open(g, setup->config, 0);
    *out = g;
    return 0;
undo:
    gateway_stop(g);
    return r;
}

void gateway_stop(struct gateway *g)
{
    if (!g)
        return;
    gateway_status_forget(g);
    gateway_watch_end(g);
    watchdog_stop(g->watchdog);
    gateway_lists_close(g);
    loop_timer_stop(g->setup.loop, &g->drain_timer);
    gateway_routes_close(g); /* first: traffic goes its old way while our flows end */
    for (uint32_t i = 0; i < g->worker_count; i++)
        worker_stop(g->workers[i]);
    owners_free(
        g->owners); /* what it still has to say goes to the workers' loops, which worker_free() empties */
    gateway_deal_close(g);
    for (uint32_t i = 0; i < g->worker_count; i++)
        worker_free(g->workers[i]);
    watchdog_free(g->watchdog);
    gateway_names_close(g);
    gateway_picks_close(g);
    if (g->tun)
        tun_close(g->tun);
    netlink_close(g->setup.diag); /* it came to nothing before it was used */
    forward_policy_unref(g->policy);
    own_flows_free(g->own);
    echo_guard_free(g->echo_guard);
    free(g);
}

const char *gateway_ready_line(const struct gateway *g, char *out, size_t cap)
{
    snprintf(out, cap, "ready: %s, mtu %u, %u worker%s, %u queue%s, offload %s%s", tun_name(g->tun),
             tun_mtu(g->tun), g->worker_count, g->worker_count == 1 ? "" : "s", tun_queues(g->tun),
             tun_queues(g->tun) == 1 ? "" : "s", tun_rung_text(tun_rung(g->tun)),
             g->route ? ", auto-route" : "");
    return out;
}
