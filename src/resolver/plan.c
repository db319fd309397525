/* plan.c - what the `dns` and `hosts` sections say, with the ways out that they name, in one immutable and counted piece.
 *
 * How it works. A reload makes a new one before anybody is told; each service takes it for new questions, and questions and
 * connections that live hold the one that they began with. All that the settings point to is copied, so the file that they were
 * read from may go. */
#include "service_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES 16384

struct block { /* memory of a plan; all of it goes at once */
    struct block *next;
    size_t used, cap;
    _Alignas(max_align_t) unsigned char bytes[];
};

/* ---- copying: NULL once memory was out, and then no further ---- */

static void *keep(struct dns_plan *p, const void *data, size_t len)
{
    size_t room = (len + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    struct block *b = p->blocks;
    void *to;

    if (b == NULL || b->cap - b->used < room) {
        size_t cap = room > BLOCK_BYTES ? room : BLOCK_BYTES;

        b = malloc(sizeof(*b) + cap);
        if (b == NULL) {
            p->broken = true;
            return NULL;
        }
        *b = (struct block){ .next = p->blocks, .cap = cap };
        p->blocks = b;
    }
    to = b->bytes + b->used;
    b->used += room;
    if (len > 0)
        memcpy(to, data, len);
    return to;
}

static const char *keep_text(struct dns_plan *p, const char *text)
{
    return text != NULL ? keep(p, text, strlen(text) + 1) : NULL;
}

static void keep_patterns(struct dns_plan *p, struct dns_patterns *from)
{
    const char **list = keep(p, from->list, from->n * sizeof(*list));

    for (size_t i = 0; i < from->n && list != NULL; i++)
        list[i] = keep_text(p, list[i]);
    from->list = list;
}

static int by_name(const void *a, const void *b)
{
    return strcasecmp(*(const char *const *)a, *(const char *const *)b);
}

/* In order: there may be thousands, and each dial to a name asks whether it is one of them. */
static void keep_proxies(struct dns_plan *p, const struct dns_plan_setup *setup)
{
    p->proxies = (struct dns_patterns){ setup->proxy_names, setup->proxy_name_count };
    keep_patterns(p, &p->proxies);
    if (!p->broken)
        qsort((void *)(uintptr_t)p->proxies.list, p->proxies.n, sizeof(*p->proxies.list), by_name);
}

static void keep_servers(struct dns_plan *p, struct dns_nameservers *from)
{
    struct dns_nameserver *list = keep(p, from->list, from->n * sizeof(*list));

    for (size_t i = 0; i < from->n && list != NULL; i++) {
        list[i].at.name = keep_text(p, list[i].at.name);
        list[i].path = keep_text(p, list[i].path);
        if (list[i].tls != NULL)
            tls_settings_ref(list[i].tls);
    }
    from->n = list != NULL ? from->n : 0;
    from->list = list;
}

static void keep_policies(struct dns_plan *p)
{
    struct dns_settings *s = &p->settings;
    struct dns_policy *list = keep(p, s->policies, s->n_policies * sizeof(*list));

    s->n_policies = list != NULL ? s->n_policies : 0;
    for (size_t i = 0; i < s->n_policies; i++) {
        list[i].pattern = keep_text(p, list[i].pattern);
        keep_servers(p, &list[i].servers);
    }
    s->policies = list;
}

static void keep_hosts(struct dns_plan *p)
{
    struct dns_settings *s = &p->settings;
    struct dns_host *list = keep(p, s->hosts, s->n_hosts * sizeof(*list));

    for (size_t i = 0; i < s->n_hosts && list != NULL; i++)
        list[i].pattern = keep_text(p, list[i].pattern);
    s->hosts = list;
}

/* ---- life ---- */

static void forget_servers(const struct dns_nameservers *servers)
{
    for (size_t i = 0; i < servers->n; i++)
        tls_settings_unref(servers->list[i].tls);
}

static void plan_free(struct dns_plan *p)
{
    forget_servers(&p->settings.nameservers);
    forget_servers(&p->settings.proxy_nameservers);
    for (size_t i = 0; i < p->settings.n_policies; i++)
        forget_servers(&p->settings.policies[i].servers);
    for (size_t i = 0; i < p->target_count; i++)
        upstream_unref(p->targets[i]);
    free((void *)p->targets);
    while (p->blocks != NULL) {
        struct block *b = p->blocks;

        p->blocks = b->next;
        free(b);
    }
    free(p);
}

int dns_plan_new(const struct dns_plan_setup *setup, struct dns_plan **out)
{
    struct dns_plan *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return -ENOMEM;
    atomic_init(&p->refs, 1);
    p->settings = *setup->settings;
    keep_servers(p, &p->settings.nameservers);
    keep_servers(p, &p->settings.proxy_nameservers);
    keep_policies(p);
    keep_patterns(p, &p->settings.fake_filter);
    keep_patterns(p, &p->settings.rebind_allow);
    keep_hosts(p);
    keep_proxies(p, setup);
    p->targets = calloc(setup->target_count + 1, sizeof(struct upstream *));
    for (; p->targets != NULL && p->target_count < setup->target_count; p->target_count++)
        p->targets[p->target_count] = upstream_ref(setup->targets[p->target_count]);
    if (p->broken || p->targets == NULL) {
        plan_free(p);
        return -ENOMEM;
    }
    *out = p;
    return 0;
}

struct dns_plan *dns_plan_ref(struct dns_plan *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void dns_plan_unref(struct dns_plan *p)
{
    if (p != NULL && atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1)
        plan_free(p);
}

/* ---- questions ---- */

const struct dns_settings *dns_plan_settings(const struct dns_plan *p)
{
    return &p->settings;
}

static bool has_server(const struct dns_nameservers *servers, const char *name)
{
    for (size_t i = 0; i < servers->n; i++) {
        if (servers->list[i].at.name != NULL && strcasecmp(servers->list[i].at.name, name) == 0)
            return true;
    }
    return false;
}

bool dns_plan_asks_first(const struct dns_plan *p, const char *name)
{
    if (bsearch(&name, p->proxies.list, p->proxies.n, sizeof(*p->proxies.list), by_name) != NULL)
        return true;
    for (size_t i = 0; i < p->settings.n_policies; i++) {
        if (has_server(&p->settings.policies[i].servers, name))
            return true;
    }
    return has_server(&p->settings.nameservers, name) || has_server(&p->settings.proxy_nameservers, name);
}

bool dns_plan_bootstraps(const struct dns_plan *p, const char *name)
{
    const struct dns_nameservers *servers = &p->settings.proxy_nameservers;

    return servers->n > 0 && !has_server(servers, name) && dns_plan_asks_first(p, name);
}

const struct dns_nameservers *dns_plan_servers(const struct dns_plan *p, const char *name)
{
    const struct dns_settings *s = &p->settings;

    if (dns_plan_bootstraps(p, name))
        return &s->proxy_nameservers;
    for (size_t i = 0; i < s->n_policies; i++) {
        if (dns_pattern_match(s->policies[i].pattern, name))
            return &s->policies[i].servers;
    }
    return &s->nameservers;
}
