/* worker_names.c - a worker's names: who answers its clients' DNS, and who finds addresses for what we dial ourselves.
 *
 * Names of proxies and name servers are asked directly (proxy-server-nameserver; by the resolver where these are plain addresses or
 * resolv.conf's): without them nothing works. All others go the way of the clients' questions where name servers are configured, and
 * never to the system's (faults.md D7, G5). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker_impl.h"

struct worker_lookup { /* what an up_resolve is: a question to the one or the other */
    struct worker *w;
    up_resolved_fn *fn;
    void *arg;
    struct resolver_query *query;
    struct dns_lookup *lookup;
    bool asking, answered;
};

static void on_resolved(void *arg, int err, const struct ip_addr *addrs, size_t n)
{
    struct worker_lookup *l = arg;

    l->fn(l->arg, err, addrs, n);
    l->answered = true;
    if (!l->asking)
        free(l);
}

int worker_resolve(void *arg, const char *name, up_resolved_fn *fn, void *fn_arg, struct up_resolve **out)
{
    struct worker *w = arg;
    struct worker_lookup *l = calloc(1, sizeof(*l));
    int r;

    if (!l)
        return -ENOMEM;
    *l = (struct worker_lookup){ .w = w, .fn = fn, .arg = fn_arg, .asking = true };
    *out = (struct up_resolve *)(void *)l;
    if (w->dns && dns_service_knows(w->dns, name))
        r = dns_service_lookup(w->dns, name, on_resolved, l, &l->lookup);
    else
        r = resolver_query(w->resolver, name, on_resolved, l, &l->query);
    l->asking = false;
    if (r != 0 || l->answered)
        free(l);
    return r;
}

void worker_resolve_cancel(void *arg, struct up_resolve *q)
{
    struct worker_lookup *l = (struct worker_lookup *)(void *)q;

    (void)arg;
    if (!l)
        return;
    resolver_cancel(l->query);
    dns_service_lookup_cancel(l->lookup);
    free(l);
}

int worker_names_open(struct worker *w, const struct worker_setup *setup)
{
    struct dns_service_setup dns = {
        .loop = w->loop,
        .env = w->env,
        .plan = setup->dns,
        .book = setup->book,
        .own = setup->own_networks,
        .owns = setup->own_network_count,
    };
    int r = dns_service_start(setup->dns_services, setup->index, &dns, &w->dns);

    if (r != 0)
        return r;
    w->plan = dns_plan_ref(setup->dns);
    forward_attach_dns(w->forward, w->dns, setup->book);
    forward_set_dns(w->forward, dns_plan_settings(w->plan));
    return 0;
}

void worker_names_plan(struct worker *w, struct dns_plan *p)
{
    const struct dns_settings *settings = dns_plan_settings(p);

    dns_service_set_plan(w->dns, p);
    forward_set_dns(w->forward, settings);
    resolver_set_servers(w->resolver, settings->proxy_servers, settings->n_proxy_servers);
    dns_plan_unref(w->plan);
    w->plan = dns_plan_ref(p);
}

void worker_names_close(struct worker *w)
{
    dns_service_stop(w->dns);
    dns_plan_unref(w->plan);
}
