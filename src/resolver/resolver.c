/* resolver.c - names in, addresses out: who waits for which name, and when they are told.
 *
 * How it works: a query is answered from the text itself, the hosts file or the cache; otherwise it joins the lookup of
 * its name, which asks for A and AAAA at once. All of that is looked at in one place, resolver_run(), when the one timer
 * says so. Callers are served
 *     when both families are known;
 *     SECOND_FAMILY_US after the first family had addresses (RFC 8305 section 3);
 *     STALE_AFTER_US after the question with old addresses, if there are any (RFC 8767 section 5);
 *     at the deadline at the latest.
 * The lookup goes on behind them, so that the cache gets what comes later. */
#include "resolver_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_DEFAULT_MS  5000
#define CACHE_NAMES_DEFAULT 256     /* more than LOOKUPS_MAX, so that a new name always finds a place */
#define STALE_DEFAULT_S     86400   /* an address of a day ago is a guess, an older one a danger */
#define SECOND_FAMILY_US    50000   /* RFC 8305 section 3, the resolution delay */
#define STALE_AFTER_US      1800000 /* RFC 8767 section 5, the client response timer */
#define FAILED_HOLD_US      UINT64_C(30000000) /* RFC 8767 section 5, the failure recheck timer */

static const uint16_t family_type[FAMILIES] = { [FAMILY_V6] = DNS_AAAA, [FAMILY_V4] = DNS_A };

/* ---- lists ---- */

static void query_unlink(struct resolver_query *q)
{
    if (q->next != NULL)
        q->next->link = q->link;
    else if (q->r->answered_end == &q->next)
        q->r->answered_end = q->link;
    *q->link = q->next;
}

/* Its callback will run in the next resolver_run(), in the order of answering. */
static void query_answer(struct resolver_query *q, int err, const struct ip_addr *addrs, size_t n)
{
    struct resolver *r = q->r;

    q->err = err;
    q->n = n;
    memcpy(q->addrs, addrs, n * sizeof(*addrs));
    q->next = NULL;
    q->link = r->answered_end;
    *r->answered_end = q;
    r->answered_end = &q->next;
    if (err != 0)
        counter_add(&r->counters.failed, 1);
    resolver_wake_at(r, loop_now_us(r->loop));
}

static void query_wait(struct resolver_query *q, struct lookup *l)
{
    q->next = l->waiting;
    q->link = &l->waiting;
    if (q->next != NULL)
        q->next->link = &q->next;
    l->waiting = q;
}

/* ---- a lookup ---- */

static void lookup_free(struct lookup *l, struct resolver *r)
{
    for (int k = 0; k < FAMILIES; k++)
        ask_fini(&l->asks[k]);
    l->name->lookup = NULL;
    if (l->next != NULL)
        l->next->link = l->link;
    *l->link = l->next;
    r->n_lookups--;
    free(l);
}

/* A family is asked unless it is fresh, or failed a moment ago. That there were none of it is believed only while the
 * other family is fresh: a name may move from one to the other. If that leaves nothing, everything is asked. */
static void lookup_ask(struct lookup *l, struct resolver *r, const struct dns_name *name, uint64_t now_us)
{
    const struct cached_family *f = l->name->family;
    bool any_fresh = cached_is_fresh(&f[FAMILY_V6], now_us) || cached_is_fresh(&f[FAMILY_V4], now_us);
    bool skip[FAMILIES];

    if (any_fresh)
        l->addrs_at_us = now_us;
    for (int k = 0; k < FAMILIES; k++)
        skip[k] = any_fresh ? cached_is_known(&f[k], now_us) : now_us < f[k].failed_until_us;
    for (int k = 0; k < FAMILIES; k++) {
        struct dns_question q = { .name = *name, .type = family_type[k], .class = DNS_IN };

        l->asked[k] = !skip[k] || (skip[FAMILY_V6] && skip[FAMILY_V4]);
        if (l->asked[k])
            ask_init(&l->asks[k], r, &q, now_us, now_us + r->timeout_us);
    }
}

static int lookup_new(struct resolver *r, struct cached_name *name, const struct dns_name *wire,
                      uint64_t now_us, struct lookup **out)
{
    struct lookup *l;

    if (r->n_lookups == LOOKUPS_MAX)
        return -EAGAIN;
    l = calloc(1, sizeof(*l));
    if (l == NULL)
        return -ENOMEM;
    l->name = name;
    l->started_us = now_us;
    name->lookup = l;
    l->next = r->lookups;
    l->link = &r->lookups;
    if (l->next != NULL)
        l->next->link = &l->next;
    r->lookups = l;
    r->n_lookups++;
    lookup_ask(l, r, wire, now_us);
    resolver_wake_at(r, now_us);
    *out = l;
    return 0;
}

/* "No such name" is said of the name, not of a type (RFC 2308 section 5): the other family need not be waited for. */
static void store_empty(struct lookup *l, const struct ask *a, uint64_t now_us)
{
    for (int k = 0; k < FAMILIES; k++) {
        if (a != &l->asks[k] && a->answer.rcode != DNS_NXDOMAIN)
            continue;
        if (l->asked[k] && !l->stored[k]) {
            cached_put_empty(&l->name->family[k], a->answer.ttl_s, now_us);
            l->stored[k] = true;
        }
    }
}

/* Puts what a finished ask found into the cache, once. */
static void store(struct lookup *l, int k, uint64_t now_us)
{
    const struct ask *a = &l->asks[k];
    struct cached_family *f = &l->name->family[k];
    struct ip_addr old[RESOLVER_ADDRS_MAX];

    if (a->err == 0 && a->answer.n_addrs > 0) {
        cached_put_addrs(f, a->answer.addrs, a->answer.n_addrs, a->answer.ttl_s, now_us);
        if (l->addrs_at_us == 0)
            l->addrs_at_us = now_us;
    } else if (a->err == 0) {
        store_empty(l, a, now_us);
    } else if (cached_addrs(l->name, true, a->r->stale_max_us, now_us, old) > 0) {
        f->failed_until_us = now_us + FAILED_HOLD_US; /* there is something to use meanwhile */
    }
    l->stored[k] = true;
}

/* Lets both asks go on; true when neither is left. */
static bool lookup_run(struct lookup *l, uint64_t now_us)
{
    bool all = true;

    for (int k = 0; k < FAMILIES; k++) {
        if (!l->asked[k] || l->stored[k])
            continue;
        ask_run(&l->asks[k], now_us);
        if (l->asks[k].done)
            store(l, k, now_us);
    }
    for (int k = 0; k < FAMILIES; k++)
        all = all && (!l->asked[k] || l->stored[k]);
    return all;
}

/* Why there are no addresses: "none" only if every family was said to be empty. */
static int lookup_err(const struct lookup *l)
{
    for (int k = FAMILIES - 1; k >= 0; k--) {
        if (l->asked[k] && l->asks[k].done && l->asks[k].err != 0)
            return l->asks[k].err;
    }
    return -ENOENT;
}

static void lookup_serve(struct lookup *l, int err, const struct ip_addr *addrs, size_t n, bool stale)
{
    while (l->waiting != NULL) {
        struct resolver_query *q = l->waiting;

        query_unlink(q);
        if (stale)
            counter_add(&q->r->counters.stale_answers, 1);
        query_answer(q, err, addrs, n);
    }
}

/* Serves those who wait, if it is time to. */
static void lookup_try_serve(struct lookup *l, const struct resolver *r, bool finished, uint64_t now_us)
{
    struct ip_addr addrs[RESOLVER_ADDRS_MAX];
    size_t n;

    if (l->waiting == NULL)
        return;
    n = cached_addrs(l->name, false, 0, now_us, addrs);
    if (n > 0 && (finished || l->addrs_at_us == 0 || now_us >= l->addrs_at_us + SECOND_FAMILY_US)) {
        lookup_serve(l, 0, addrs, n, false);
        return;
    }
    if (n > 0 || (!finished && now_us < l->started_us + STALE_AFTER_US))
        return;
    n = cached_addrs(l->name, true, r->stale_max_us, now_us, addrs);
    if (n > 0)
        lookup_serve(l, 0, addrs, n, true);
    else if (finished)
        lookup_serve(l, lookup_err(l), addrs, 0, false);
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* When to look at it again. */
static uint64_t lookup_next_us(const struct lookup *l, uint64_t now_us)
{
    uint64_t next_us = NEVER;

    for (int k = 0; k < FAMILIES; k++) {
        if (l->asked[k] && !l->stored[k])
            next_us = sooner(next_us, l->asks[k].next_us);
    }
    if (l->waiting != NULL && now_us < l->addrs_at_us + SECOND_FAMILY_US)
        next_us = sooner(next_us, l->addrs_at_us + SECOND_FAMILY_US);
    if (l->waiting != NULL && now_us < l->started_us + STALE_AFTER_US)
        next_us = sooner(next_us, l->started_us + STALE_AFTER_US);
    return next_us;
}

/* ---- the one place where things end ---- */

/* What a callback asks, and is answered at once, waits for the next turn. */
static void run_answered(struct resolver *r)
{
    size_t n = 0;

    for (const struct resolver_query *q = r->answered; q != NULL; q = q->next)
        n++;
    while (r->answered != NULL && n-- > 0) {
        struct resolver_query *q = r->answered;

        query_unlink(q);
        q->fn(q->arg, q->err, q->addrs, q->n);
        free(q);
    }
}

static void resolver_run(struct loop_timer *t)
{
    struct resolver *r = CONTAINER_OF(t, struct resolver, timer);
    uint64_t now_us = loop_now_us(r->loop), next_us = NEVER;
    struct lookup *next;

    r->wake_us = NEVER;
    for (struct lookup *l = r->lookups; l != NULL; l = next) {
        bool finished = lookup_run(l, now_us);

        next = l->next;
        lookup_try_serve(l, r, finished, now_us);
        if (finished)
            lookup_free(l, r);
        else
            next_us = sooner(next_us, lookup_next_us(l, now_us));
    }
    if (next_us != NEVER)
        resolver_wake_at(r, next_us);
    run_answered(r); /* last: callers may ask and cancel as they like */
}

void resolver_wake_at(struct resolver *r, uint64_t us)
{
    if (us >= r->wake_us)
        return;
    r->wake_us = us;
    loop_timer_start(r->loop, &r->timer, us, resolver_run);
}

/* ---- queries ---- */

/* "localhost" and what is below it, when no file says otherwise (RFC 6761 section 6.3): never asked of anybody. */
static size_t find_localhost(const char *name, struct ip_addr *out)
{
    static const char word[] = "localhost";
    size_t len = strlen(name), word_len = sizeof(word) - 1;

    if (len < word_len || strcmp(name + len - word_len, word) != 0 ||
        (len > word_len && name[len - word_len - 1] != '.'))
        return 0;
    out[0] = ip_from6((const uint8_t[16]){ [15] = 1 });
    out[1] = ip_from4((const uint8_t[4]){ 127, 0, 0, 1 });
    return 2;
}

static void refresh_files(struct resolver *r, uint64_t now_us)
{
    watched_file_refresh(&r->hosts, now_us);
    if (!watched_file_refresh(&r->conf_file, now_us) || r->fixed_servers)
        return;
    resolv_conf_parse(r->conf_file.text, r->conf_file.len, &r->conf);
    if (r->conf.n_servers == 0) { /* resolv.conf(5): then it is the local machine */
        r->conf.servers[0].at = (struct ip_port){ ip_from4((const uint8_t[4]){ 127, 0, 0, 1 }), DNS_PORT };
        r->conf.n_servers = 1;
    }
}

/* Answers from what is at hand: a file, or a cache that need not ask. false: the name must be asked. */
static bool answer_at_once(struct resolver *r, struct resolver_query *q, const char *name, uint64_t now_us)
{
    struct ip_addr addrs[RESOLVER_ADDRS_MAX];
    struct cached_name *c = cache_find(&r->cache, name);
    size_t n = hosts_find(r->hosts.text, r->hosts.len, name, addrs, RESOLVER_ADDRS_MAX);
    bool stale = false;

    if (n == 0)
        n = find_localhost(name, addrs);
    if (n == 0 && c != NULL) {
        for (int k = 0; k < FAMILIES; k++) {
            if (!cached_is_known(&c->family[k], now_us))
                return false;
        }
        n = cached_addrs(c, false, 0, now_us, addrs);
        if (n == 0) {
            n = cached_addrs(c, true, r->stale_max_us, now_us, addrs);
            stale = n > 0;
        }
        if (n == 0 &&
            (now_us < c->family[FAMILY_V6].failed_until_us || now_us < c->family[FAMILY_V4].failed_until_us))
            return false;
    } else if (n == 0) {
        return false;
    }
    counter_add(&r->counters.cache_hits, 1);
    if (stale)
        counter_add(&r->counters.stale_answers, 1);
    query_answer(q, n > 0 ? 0 : -ENOENT, addrs, n);
    return true;
}

/* Joins the lookup of @name, or starts one. */
static int ask_name(struct resolver *r, struct resolver_query *q, const char *name,
                    const struct dns_name *wire, uint64_t now_us)
{
    struct cached_name *c = cache_find(&r->cache, name);
    struct lookup *l;
    int err;

    if (c == NULL)
        c = cache_make(&r->cache, name);
    if (c == NULL)
        return -EAGAIN;
    c->used_us = now_us;
    l = c->lookup;
    if (l == NULL && (err = lookup_new(r, c, wire, now_us, &l)) != 0)
        return err;
    query_wait(q, l);
    resolver_wake_at(r, now_us); /* a lookup that has served others may have what this one wants */
    return 0;
}

static int query_start(struct resolver *r, struct resolver_query *q, const char *text)
{
    uint64_t now_us = loop_now_us(r->loop);
    struct ip_addr literal;
    struct dns_name wire;
    char name[256];

    if (ip_parse(text, &literal) == 0) {
        counter_add(&r->counters.cache_hits, 1);
        query_answer(q, 0, &literal, 1);
        return 0;
    }
    if (host_name_normalise(text, strlen(text), name) != 0 || dns_name_from_text(name, &wire) != 0)
        return -EINVAL;
    refresh_files(r, now_us);
    return answer_at_once(r, q, name, now_us) ? 0 : ask_name(r, q, name, &wire, now_us);
}

int resolver_query(struct resolver *r, const char *name, resolver_fn *fn, void *arg,
                   struct resolver_query **out)
{
    struct resolver_query *q;
    int err;

    assert(loop_is_mine(r->loop));
    q = calloc(1, sizeof(*q));
    if (q == NULL)
        return -ENOMEM;
    q->r = r;
    q->fn = fn;
    q->arg = arg;
    if ((err = query_start(r, q, name)) != 0) {
        free(q);
        return err;
    }
    counter_add(&r->counters.queries, 1);
    if (out != NULL)
        *out = q;
    return 0;
}

void resolver_cancel(struct resolver_query *q)
{
    if (q == NULL)
        return;
    query_unlink(q);
    free(q);
}

/* ---- the resolver ---- */

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value != 0 ? value : otherwise;
}

static void use_options(struct resolver *r, const struct resolver_options *opt)
{
    resolv_conf_parse(NULL, 0, &r->conf);
    r->timeout_us = or_default(opt->timeout_ms, TIMEOUT_DEFAULT_MS) * UINT64_C(1000);
    r->stale_max_us = or_default(opt->stale_max_s, STALE_DEFAULT_S) * UINT64_C(1000000);
    r->make_socket = opt->make_socket;
    r->socket_arg = opt->socket_arg;
}

void resolver_set_servers(struct resolver *r, const struct ip_port *servers, size_t n)
{
    if (n == 0 && !r->fixed_servers)
        return;
    r->fixed_servers = n > 0;
    r->conf_file.checked_us = 0;
    r->conf_file.inode = 0; /* what is there is new to us */
    r->conf.n_servers = 0;
    for (size_t i = 0; i < n && i < RESOLVER_SERVERS_MAX; i++)
        r->conf.servers[r->conf.n_servers++].at = servers[i];
}

int resolver_new(struct loop *l, const struct resolver_options *opt, struct resolver **out)
{
    size_t names = opt->cache_names > CACHE_NAMES_DEFAULT ? opt->cache_names : CACHE_NAMES_DEFAULT;
    struct resolver *r = calloc(1, sizeof(*r));
    int err;

    if (r == NULL)
        return -ENOMEM;
    r->loop = l;
    r->wake_us = NEVER;
    r->answered_end = &r->answered;
    use_options(r, opt);
    resolver_set_servers(r, opt->servers, opt->n_servers);
    if ((err = watched_file_init(&r->hosts, opt->hosts_path != NULL ? opt->hosts_path : "/etc/hosts")) != 0 ||
        (err = watched_file_init(&r->conf_file, opt->resolv_conf_path != NULL ? opt->resolv_conf_path
                                                                              : "/etc/resolv.conf")) != 0 ||
        (err = cache_init(&r->cache, names)) != 0) {
        resolver_free(r);
        return err;
    }
    *out = r;
    return 0;
}

void resolver_free(struct resolver *r)
{
    if (r == NULL)
        return;
    while (r->lookups != NULL) {
        while (r->lookups->waiting != NULL)
            resolver_cancel(r->lookups->waiting);
        lookup_free(r->lookups, r);
    }
    while (r->answered != NULL)
        resolver_cancel(r->answered);
    loop_timer_stop(r->loop, &r->timer);
    cache_fini(&r->cache);
    watched_file_fini(&r->hosts);
    watched_file_fini(&r->conf_file);
    free(r);
}

void resolver_memory(const struct resolver *r, struct memory_use *add)
{
    add->bytes[MEMORY_DNS] += sizeof(*r) + r->cache.cap * sizeof(*r->cache.hashes) +
                              r->cache.n * sizeof(*r->cache.names) + r->n_lookups * sizeof(struct lookup);
}

const struct resolver_counters *resolver_counters(const struct resolver *r)
{
    return &r->counters;
}

#define COUNTER(name)                                                                                        \
    {                                                                                                        \
        "resolver." #name, offsetof(struct resolver_counters, name)                                          \
    }
const struct counter_desc resolver_counter_descs[] = {
    COUNTER(queries),   COUNTER(cache_hits), COUNTER(stale_answers), COUNTER(failed),
    COUNTER(sent),      COUNTER(answers),    COUNTER(ignored),       COUNTER(malformed),
    COUNTER(truncated), COUNTER(refused),    COUNTER(timeouts),      { NULL, 0 },
};
