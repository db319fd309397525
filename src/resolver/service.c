/* service.c - a client's query: what can be said at once, what its shard decides, and the reply's way back. */
#include "service_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "culvert/h2.h"

#define SECOND_US UINT64_C(1000000)
#define FAKE_TTL_S                                                                                           \
    1 /* a fake address is asked for again each time, so it is never used long after it was given */
#define HOST_TTL_S   60 /* of `hosts`: a reload may change them */
#define LIMIT_PROBES 8

const struct counter_desc dns_counter_descs[] = {
#define DNS_COUNTER_DESC(member, name) { name, offsetof(struct dns_counters, member) },
    DNS_COUNTERS(DNS_COUNTER_DESC)
#undef DNS_COUNTER_DESC
        { NULL, 0 },
};

/* ---- replies ---- */

static void ask_free(struct dns_ask *a)
{
    if (a->ended != NULL)
        *a->ended = true;
    if (a->reply != a->room)
        free(a->reply);
    slab_put(&a->home->asks, a);
}

static void deliver(struct dns_ask *a)
{
    if (!a->cancelled)
        a->fn(a->arg, a->reply, a->reply_len);
    ask_free(a);
}

static void come_home(struct loop_msg *m)
{
    struct dns_ask *a = CONTAINER_OF(m, struct dns_ask, msg);

    if (!a->home->running)
        a->cancelled = true;
    deliver(a);
}

static void ask_end(struct dns_ask *a)
{
    if (!a->away) {
        deliver(a);
        return;
    }
    a->msg.fn = come_home;
    loop_post(a->home->loop, &a->msg);
}

/* Memory for a reply of up to @want bytes, at most what the client can take. */
static void reply_begin(struct dns_ask *a, struct buf *out, size_t want)
{
    size_t cap = want < a->most_bytes ? want : a->most_bytes;

    a->reply = cap > REPLY_ROOM ? malloc(cap) : NULL;
    if (a->reply == NULL) {
        a->reply = a->room;
        cap = cap < REPLY_ROOM ? cap : REPLY_ROOM;
    }
    buf_init(out, a->reply, cap);
}

static void reply_end(struct dns_ask *a, const struct buf *out, int r)
{
    a->reply_len = out->len;
    if (r != 0) {
        if (a->reply != a->room)
            free(a->reply);
        a->reply = NULL;
        a->reply_len = 0;
    }
    ask_end(a);
}

void ask_reply(struct dns_ask *a, enum dns_rcode rcode, const struct dns_record *records, size_t n)
{
    struct buf out;

    reply_begin(a, &out, REPLY_ROOM);
    reply_end(a, &out, dns_put_reply(&out, &a->query, rcode, records, n));
}

void ask_reply_relay(struct dns_ask *a, struct span stored, uint16_t additionals, uint32_t age_s, bool stale)
{
    struct buf out;

    reply_begin(a, &out, stored.len + 11); /* and an OPT record */
    reply_end(a, &out, dns_put_relay(&out, &a->query, stored, additionals, age_s, stale));
}

/* ---- what the name's shard decides ---- */

static bool matches_any(const struct dns_patterns *p, const char *name)
{
    for (size_t i = 0; i < p->n; i++) {
        if (dns_pattern_match(p->list[i], name))
            return true;
    }
    return false;
}

/* Addresses of the question's family as records. */
static void reply_addresses(struct dns_ask *a, const struct ip_addr *addrs, size_t n, uint32_t ttl_s)
{
    struct dns_record records[DNS_HOST_ADDRS_MAX];
    size_t count = 0;

    for (size_t i = 0; i < n && count < ARRAY_LEN(records); i++) {
        if (!ip_is_none(&addrs[i]) && ip_is4(&addrs[i]) == (a->query.question.type == DNS_A))
            records[count++] =
                (struct dns_record){ .type = a->query.question.type, .ttl_s = ttl_s, .addr = addrs[i] };
    }
    ask_reply(a, DNS_NOERROR, records, count);
}

static bool is_address_question(const struct dns_ask *a)
{
    return a->query.question.type == DNS_A || a->query.question.type == DNS_AAAA;
}

static void reply_fake(struct dns_service *s, struct dns_ask *a)
{
    struct ip_addr addrs[2];

    if (name_book_fake(s->book, s->index, a->name, loop_now_us(s->loop), addrs) != 0) {
        DCOUNT(s, fake_full);
        ask_reply(a, DNS_SERVFAIL, NULL, 0);
        return;
    }
    DCOUNT(s, fake);
    reply_addresses(a, addrs, 2, FAKE_TTL_S);
}

static void decide(struct dns_service *s, struct dns_ask *a)
{
    const struct answer_key key = { a->name, a->query.question.type,
                                    (uint8_t)((a->query.dnssec_ok ? DNS_Q_DO : 0) |
                                              (a->query.checking_disabled ? DNS_Q_CD : 0)) };
    uint64_t now_us = loop_now_us(s->loop);
    struct kept_answer *k;

    if (s->settings->mode == DNS_MODE_FAKE_IP && !a->internal && a->plain && is_address_question(a) &&
        !matches_any(&s->settings->fake_filter, a->name)) {
        reply_fake(s, a);
        return;
    }
    k = answer_cache_find(&s->cache, &key);
    if (k != NULL && now_us < k->expires_us) {
        DCOUNT(s, cache_hits);
        ask_reply_relay(a, (struct span){ k->bytes, k->len }, k->additionals,
                        (uint32_t)((now_us - k->came_us) / SECOND_US), false);
        return;
    }
    job_join(s, a);
}

static void arrive(struct loop_msg *m)
{
    struct dns_ask *a = CONTAINER_OF(m, struct dns_ask, msg);

    if (a->owner->running)
        decide(a->owner, a);
}

static void go_to_shard(struct dns_ask *a)
{
    struct dns_service *s = a->home;

    a->owner = &s->all->each[name_book_shard(s->book, a->name)];
    if (a->owner == s || !a->owner->loop) {
        a->owner = s;
        decide(s, a);
        return;
    }
    a->away = true;
    a->msg.fn = arrive;
    loop_post(a->owner->loop, &a->msg);
}

/* ---- what needs nobody ---- */

/* Names below "localhost" are this machine's (RFC 6761 section 6.3); "invalid" is nobody's (section 6.4). */
static bool ends_in(const char *name, const char *word)
{
    size_t len = strlen(name), n = strlen(word);

    return len >= n && strcmp(name + len - n, word) == 0 && (len == n || name[len - n - 1] == '.');
}

static bool reply_special(struct dns_ask *a)
{
    struct ip_addr local[2] = { ip_from4((const uint8_t[4]){ 127, 0, 0, 1 }),
                                ip_from6((const uint8_t[16]){ [15] = 1 }) };

    if (ends_in(a->name, "localhost") && is_address_question(a))
        reply_addresses(a, local, 2, HOST_TTL_S);
    else if (ends_in(a->name, "invalid"))
        ask_reply(a, DNS_NXDOMAIN, NULL, 0);
    else
        return false;
    return true;
}

static bool reply_host(struct dns_ask *a)
{
    const struct dns_settings *settings = a->home->settings;

    for (size_t i = 0; i < settings->n_hosts; i++) {
        const struct dns_host *h = &settings->hosts[i];

        if (!dns_pattern_match(h->pattern, a->name))
            continue;
        if (is_address_question(a))
            reply_addresses(a, h->addrs, h->n, HOST_TTL_S);
        else
            ask_reply(a, DNS_NOERROR, NULL, 0);
        return true;
    }
    return false;
}

/* The name behind a fake address; nobody outside could know it. */
static bool reply_ptr(struct dns_ask *a)
{
    struct dns_service *s = a->home;
    struct dns_record record = { .type = DNS_PTR, .ttl_s = FAKE_TTL_S };
    struct dns_name target;
    struct ip_addr addr;
    char name[256];

    if (a->query.question.type != DNS_PTR || !dns_ptr_address(&a->query.question.name, &addr) ||
        !name_book_is_fake(s->book, &addr))
        return false;
    if (name_book_find(s->book, &addr, loop_now_us(s->loop), name, false) == NAME_FAKE &&
        dns_name_from_text(name, &target) == 0) {
        record.name = &target;
        ask_reply(a, DNS_NOERROR, &record, 1);
    } else {
        ask_reply(a, DNS_NXDOMAIN, NULL, 0);
    }
    return true;
}

static bool reply_at_once(struct dns_ask *a)
{
    const struct dns_settings *settings = a->home->settings;

    switch (dns_question_fate(&a->query.question, settings->block_types, settings->n_block_types)) {
    case DNS_NOT_IMPLEMENTED:
        ask_reply(a, DNS_NOTIMP, NULL, 0);
        return true;
    case DNS_EMPTY:
        DCOUNT(a->home, blocked);
        ask_reply(a, DNS_NOERROR, NULL, 0);
        return true;
    case DNS_PASS:
        break;
    }
    return reply_ptr(a) || reply_special(a) || reply_host(a);
}

void ask_start(struct dns_ask *a)
{
    struct dns_service *s = a->home;

    if (reply_at_once(a))
        DCOUNT(s, local);
    else
        go_to_shard(a);
}

/* ---- questions ---- */

struct dns_ask *ask_new(struct dns_service *s, dns_reply_fn *fn, void *arg)
{
    struct dns_ask *a = slab_get(&s->asks);

    if (a == NULL) {
        DCOUNT(s, limit);
        return NULL;
    }
    a->home = a->owner = s;
    a->fn = fn;
    a->arg = arg;
    a->most_bytes = DNS_TCP_BYTES_MAX;
    return a;
}

/* faults.md D10. A client's place is one of a few that its hash names; without a free one it shares the last. */
static bool source_may_ask(struct dns_service *s, const struct ip_addr *client)
{
    uint32_t second = (uint32_t)(loop_now_us(s->loop) / SECOND_US);
    uint64_t hash = hash_bytes(&s->key, client, sizeof(*client));
    struct limit_place *p = NULL;

    for (unsigned i = 0; i < LIMIT_PROBES; i++) {
        p = &s->limits[(hash + i) % LIMIT_PLACES];
        if (p->second != second || ip_equal(&p->addr, client))
            break;
    }
    if (p->second != second)
        *p = (struct limit_place){ *client, second, 0 };
    return p->used++ < s->settings->queries_per_source;
}

/* Its name as the key of everything: as a host has it, or else as text. Return: false: too long to be a key. */
static bool take_name(struct dns_ask *a)
{
    char text[DNS_NAME_TEXT_MAX];
    size_t len = strlen(dns_name_text(&a->query.question.name, text));

    a->plain = host_name_normalise(text, len, a->name) == 0;
    if (!a->plain && len >= sizeof(a->name))
        return false;
    if (!a->plain)
        memcpy(a->name, text, len + 1);
    return true;
}

static void ask_take(struct dns_ask *a, int rcode)
{
    if (rcode > 0) {
        DCOUNT(a->home, malformed);
        ask_reply(a, (enum dns_rcode)rcode, NULL, 0);
    } else if (!take_name(a)) {
        ask_reply(a, DNS_NXDOMAIN, NULL, 0);
    } else {
        ask_start(a);
    }
}

int dns_service_ask(struct dns_service *s, const struct ip_addr *client, const uint8_t *message, size_t len,
                    bool tcp, dns_reply_fn *fn, void *arg, struct dns_ask **out)
{
    bool ended = false;
    struct dns_ask *a;
    int r;

    assert(loop_is_mine(s->loop));
    DCOUNT(s, queries);
    if (!source_may_ask(s, client)) {
        DCOUNT(s, limit_source);
        return -EAGAIN;
    }
    if ((a = ask_new(s, fn, arg)) == NULL)
        return -EAGAIN;
    r = dns_read_query((struct span){ message, len }, &a->query);
    if (r < 0) {
        DCOUNT(s, malformed);
        ask_free(a);
        return -EBADMSG;
    }
    if (!tcp)
        a->most_bytes = a->query.udp_bytes < REPLY_ROOM ? a->query.udp_bytes : REPLY_ROOM;
    a->ended = &ended;
    ask_take(a, r);
    if (!ended)
        a->ended = NULL;
    if (out != NULL)
        *out = ended ? NULL : a;
    return 0;
}

void dns_service_cancel(struct dns_ask *a)
{
    if (a == NULL)
        return;
    a->cancelled = true;
    if (a->away || a->job == NULL)
        return; /* it comes home once more */
    job_leave(a);
    ask_free(a);
}

/* ---- life ---- */

int dns_services_new(uint32_t count, struct dns_services **out)
{
    struct dns_services *all = calloc(1, sizeof(*all) + count * sizeof(all->each[0]));

    if (all == NULL)
        return -ENOMEM;
    all->count = count;
    *out = all;
    return 0;
}

void dns_services_free(struct dns_services *all)
{
    for (uint32_t i = 0; all != NULL && i < all->count; i++) {
        slab_fini(&all->each[i].asks);
        slab_fini(&all->each[i].jobs);
    }
    free(all);
}

int dns_service_start(struct dns_services *all, uint32_t index, const struct dns_service_setup *setup,
                      struct dns_service **out)
{
    struct dns_service *s = &all->each[index];
    size_t share = setup->plan->settings.cache_names / all->count + 1;
    int r;

    s->all = all;
    s->index = index;
    s->loop = setup->loop;
    s->env = setup->env;
    s->wheel = up_env_wheel(setup->env);
    s->plan = dns_plan_ref(setup->plan);
    s->settings = &s->plan->settings;
    s->book = setup->book;
    s->own = setup->own;
    s->owns = setup->owns;
    s->running = true;
    if ((r = random_bytes(&s->key, sizeof(s->key))) != 0 ||
        (r = slab_init(&s->asks, sizeof(struct dns_ask), SERVICE_ASKS_MAX)) != 0 ||
        (r = slab_init(&s->jobs, sizeof(struct dns_job), SERVICE_JOBS_MAX)) != 0 ||
        (r = answer_cache_init(&s->cache, share)) != 0 || (r = tls_worker_new(&s->tls)) != 0)
        goto undo;
    s->limits = calloc(LIMIT_PLACES, sizeof(*s->limits));
    r = -ENOMEM;
    if (s->limits == NULL)
        goto undo;
    *out = s;
    return 0;
undo:
    dns_service_stop(s);
    return r;
}

void dns_service_stop(struct dns_service *s)
{
    if (s == NULL || !s->running)
        return;
    s->running = false;
    jobs_close(s);
    streams_close(s);
    datagrams_close(s);
    dns_plan_unref(s->plan);
    s->plan = NULL;
    streams_forget(s);
    tls_worker_free(s->tls);
    answer_cache_fini(&s->cache);
    free(s->limits);
    s->limits = NULL;
}

void dns_service_set_plan(struct dns_service *s, struct dns_plan *p)
{
    struct dns_plan *old = s->plan;

    s->plan = dns_plan_ref(p);
    s->settings = &p->settings;
    answer_cache_clear(&s->cache);
    streams_forget(s);
    dns_plan_unref(old);
}

void dns_service_memory(const struct dns_service *s, struct memory_use *add)
{
    const struct slab *const slabs[] = { &s->asks, &s->jobs };

    memory_add_slabs(add, MEMORY_DNS, slabs, ARRAY_LEN(slabs));
    add->bytes[MEMORY_DNS] += s->cache.bytes + s->cache.bucket_count * sizeof(*s->cache.buckets) +
                              LIMIT_PLACES * sizeof(*s->limits);
    for (const struct dns_conn *c = s->conns; c != NULL; c = c->next) {
        add->bytes[MEMORY_DNS] += sizeof(*c) + c->out_cap + c->in_cap;
        if (c->h2 != NULL)
            h2_memory(c->h2, add);
    }
    tls_worker_memory(s->tls, add);
}

bool dns_service_trim(struct dns_service *s)
{
    bool more = slab_trim(&s->asks, NULL, NULL);

    return slab_trim(&s->jobs, NULL, NULL) || more;
}

bool dns_service_knows(const struct dns_service *s, const char *name)
{
    if (dns_plan_asks_first(s->plan, name))
        return dns_plan_bootstraps(s->plan, name);
    return s->settings->mode != DNS_MODE_OFF && s->settings->nameservers.n > 0;
}

const struct dns_counters *dns_counters(const struct dns_service *s)
{
    return &s->cnt;
}
