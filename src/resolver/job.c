/* job.c - one question to name servers, for all who ask it at the same time.
 *
 * How it works: the name picks its servers (nameserver-policy, else nameserver). `race` asks all of them at once, `in-order` the
 * next one when one fails or has had its time. A try sends over UDP, again after 1 and 3 s; an answer cut short (TC), or a way out
 * without UDP, makes it go on over TCP. The first NOERROR or NXDOMAIN counts. After STALE_TICK those who wait get an old
 * answer, if there is one; at the end an old one or SERVFAIL (faults.md D7): within 5 s of the question.
 *
 * Against forgery (RFC 5452; faults.md D3, D4): an answer must have the question's random id, come from its server and repeat the
 * question; what does not match is counted and waited on (datagram.c). */
#include "service_impl.h"

#include <errno.h>
#include <string.h>

#define TICK_US    UINT64_C(250000)
#define STALE_TICK 7  /* 1.75 s: RFC 8767 section 5 */
#define LAST_TICK  19 /* 4.75 s */
#define RESEND_1   4  /* ticks after a try began */
#define RESEND_2   12
#define SECOND_US  UINT64_C(1000000)

/* ---- lists ---- */

static struct dns_job **bucket_of(struct dns_service *s, const char *name, uint16_t type)
{
    return &s->buckets[(hash_bytes(&s->key, name, strlen(name)) + type) % JOB_BUCKETS];
}

static void job_unhash(struct dns_job *j)
{
    struct dns_job **at = bucket_of(j->s, j->name, j->question.type);

    while (*at != NULL && *at != j)
        at = &(*at)->chain;
    if (*at == j)
        *at = j->chain;
}

static void try_close(struct dns_try *t)
{
    datagram_leave(t);
    stream_leave(t);
    t->state = TRY_DEAD;
}

static void job_free(struct dns_job *j)
{
    struct dns_service *s = j->s;

    while (j->waiting != NULL) { /* at the end only: nobody answers them any more */
        j->waiting->job = NULL;
        j->waiting = j->waiting->next;
    }
    for (size_t i = 0; i < j->n_tries; i++)
        try_close(&j->tries[i]);
    wheel_cancel(s->wheel, &j->timer);
    *j->link_all = j->next_all;
    if (j->next_all != NULL)
        j->next_all->link_all = j->link_all;
    dns_plan_unref(j->plan);
    slab_put(&s->jobs, j);
}

void jobs_close(struct dns_service *s)
{
    while (s->all_jobs != NULL)
        job_free(s->all_jobs);
    memset(s->buckets, 0, sizeof(s->buckets));
}

/* From here on nothing that comes changes anything; its memory goes in the timer. */
static void job_done(struct dns_job *j)
{
    if (j->done)
        return;
    j->done = true;
    job_unhash(j);
    wheel_set(j->s->wheel, &j->timer, loop_now_us(j->s->loop));
}

static struct dns_ask *take_waiting(struct dns_job *j)
{
    struct dns_ask *a = j->waiting;

    if (a != NULL) {
        j->waiting = a->next;
        a->job = NULL;
    }
    return a;
}

void job_leave(struct dns_ask *a)
{
    struct dns_ask **at = &a->job->waiting;

    while (*at != a)
        at = &(*at)->next;
    *at = a->next;
    a->job = NULL;
}

/* ---- answers ---- */

static struct answer_key key_of(const struct dns_job *j)
{
    return (struct answer_key){ j->name, j->question.type, j->flags };
}

/* An old answer for all who wait. Return: there was one. */
static bool serve_stale(struct dns_job *j)
{
    struct dns_service *s = j->s;
    const struct answer_key key = key_of(j);
    const struct kept_answer *k = answer_cache_find(&s->cache, &key);
    uint64_t now_us = loop_now_us(s->loop);
    struct dns_ask *a;

    if (k == NULL || !k->positive || now_us > k->expires_us + STALE_MAX_US)
        return false;
    while ((a = take_waiting(j)) != NULL) {
        DCOUNT(s, stale);
        ask_reply_relay(a, (struct span){ k->bytes, k->len }, k->additionals, 0, true);
    }
    return true;
}

static void job_fail(struct dns_job *j)
{
    struct dns_ask *a;

    job_done(j);
    if (serve_stale(j))
        return;
    DCOUNT(j->s, failed);
    while ((a = take_waiting(j)) != NULL)
        ask_reply(a, DNS_SERVFAIL, NULL, 0);
}

/* An address that no public name can have: this machine, the device, fake ranges (faults.md D11). */
static bool is_ours(const struct dns_service *s, const struct ip_addr *a)
{
    if (ip_is_martian(a) || name_book_is_fake(s->book, a))
        return true;
    for (size_t i = 0; i < s->owns; i++) {
        if (ip_in_prefix(a, &s->own[i]))
            return true;
    }
    return false;
}

static bool rebinds(const struct dns_job *j, const struct dns_answer *answer)
{
    const struct dns_patterns *allow = &j->plan->settings.rebind_allow;

    for (size_t i = 0; i < answer->n_addrs; i++) {
        if (!is_ours(j->s, &answer->addrs[i]))
            continue;
        for (size_t k = 0; k < allow->n; k++) {
            if (dns_pattern_match(allow->list[k], j->name))
                return false;
        }
        return true;
    }
    return false;
}

static void learn(const struct dns_job *j, const struct dns_answer *answer)
{
    struct dns_service *s = j->s;
    uint64_t now_us = loop_now_us(s->loop);

    for (size_t i = 0; i < answer->n_addrs; i++)
        name_book_learn(s->book, s->index, &answer->addrs[i], j->name, now_us,
                        now_us + answer->ttl_s * SECOND_US);
}

/* @age_s: since when it is true; its TTLs are less by that. */
static void job_answered(struct dns_job *j, struct span message, const struct dns_relay *relay,
                         uint32_t age_s)
{
    const struct answer_key key = key_of(j);
    struct dns_service *s = j->s;
    uint64_t now_us = loop_now_us(s->loop), age_us = age_s * SECOND_US;
    struct dns_ask *a;

    DCOUNT(s, answers);
    job_done(j);
    if (rebinds(j, &relay->answer)) {
        DCOUNT(s, rebind);
        while ((a = take_waiting(j)) != NULL)
            ask_reply(a, DNS_NOERROR, NULL, 0);
        return;
    }
    learn(j, &relay->answer);
    if (j->plan == s->plan)
        answer_cache_put(&s->cache, &key, message, relay, now_us > age_us ? now_us - age_us : 0);
    while ((a = take_waiting(j)) != NULL)
        ask_reply_relay(a, (struct span){ message.data, relay->len }, relay->additionals, age_s, false);
}

/* ---- tries ---- */

static void job_next_try(struct dns_job *j);

void try_failed(struct dns_try *t)
{
    struct dns_job *j = t->job;

    if (j->done || t->state == TRY_DEAD)
        return;
    t->state = TRY_DEAD;
    for (size_t i = 0; i < j->started_tries; i++) {
        if (j->tries[i].state != TRY_DEAD)
            return;
    }
    if (j->started_tries < j->n_tries)
        job_next_try(j);
    else
        job_fail(j);
}

static int build_query(struct dns_try *t)
{
    unsigned flags = t->no_edns ? 0 : DNS_Q_EDNS | t->job->flags;
    struct buf out;
    int r = 0;

    t->id = 0; /* RFC 8484 section 4.1: the same question is the same request */
    if (t->server->transport != DNS_OVER_HTTPS)
        r = random_bytes(&t->id, sizeof(t->id));
    buf_init(&out, t->query + 2, sizeof(t->query) - 2);
    dns_put_query(&out, t->id, &t->job->question, flags);
    put_be16(t->query, (uint16_t)out.len);
    t->query_len = 2 + out.len;
    return r;
}

void try_over_stream(struct dns_try *t)
{
    datagram_leave(t);
    t->state = TRY_STREAM;
    t->repeated = false;
    if (build_query(t) != 0 || stream_ask(t) != 0)
        try_failed(t);
}

/* RFC 6891 section 7: some old servers answer FORMERR or NOTIMP to what they do not know. */
static bool again_without_edns(struct dns_try *t, const struct dns_answer *a)
{
    if (t->no_edns || a->has_edns || t->state != TRY_UDP ||
        (a->rcode != DNS_FORMERR && a->rcode != DNS_NOTIMP))
        return false;
    t->no_edns = true;
    datagram_leave(t);
    return build_query(t) == 0 && datagram_ask(t) == 0;
}

void try_message(struct dns_try *t, const uint8_t *data, size_t len)
{
    struct dns_job *j = t->job;
    struct dns_relay relay;
    int r;

    if (j->done || t->state == TRY_DEAD)
        return;
    r = dns_read_relay((struct span){ data, len }, t->id, &j->question, &relay);
    if (r == -ENOMSG) {
        DCOUNT(j->s, ignored);
        if (t->state == TRY_STREAM) /* over a stream nobody else can have sent it */
            try_failed(t);
    } else if (r != 0) {
        DCOUNT(j->s, bad_answers);
        try_failed(t);
    } else if (relay.answer.truncated) {
        DCOUNT(j->s, truncated);
        if (t->state == TRY_UDP)
            try_over_stream(t);
        else
            try_failed(t);
    } else if (relay.answer.rcode == DNS_NOERROR || relay.answer.rcode == DNS_NXDOMAIN) {
        job_answered(j, (struct span){ data, len }, &relay, t->age_s);
    } else if (!again_without_edns(t, &relay.answer)) {
        DCOUNT(j->s, refused);
        try_failed(t);
    }
}

static void try_start(struct dns_try *t)
{
    const struct dns_plan *p = t->job->plan;
    int r;

    if (t->server->transport != DNS_OVER_UDP || t->server->target >= p->target_count) {
        t->state = TRY_STREAM;
        r = t->server->target >= p->target_count ? -EINVAL : build_query(t);
        if (r == 0)
            r = stream_ask(t);
    } else {
        t->state = TRY_UDP;
        r = build_query(t);
        if (r == 0)
            r = datagram_ask(t);
        if (r == -EOPNOTSUPP) {
            try_over_stream(t);
            return;
        }
    }
    if (r != 0)
        try_failed(t);
}

static void job_next_try(struct dns_job *j)
{
    j->tick_of_try = j->ticks;
    try_start(&j->tries[j->started_tries++]);
}

/* ---- time ---- */

static void resend(struct dns_job *j)
{
    unsigned since = j->ticks - j->tick_of_try;

    if (since != RESEND_1 && since != RESEND_2)
        return;
    for (size_t i = 0; i < j->started_tries; i++) {
        if (j->tries[i].state == TRY_UDP)
            datagram_send(&j->tries[i]);
    }
}

static void on_tick(struct wheel_timer *timer, uint64_t now_us)
{
    struct dns_job *j = CONTAINER_OF(timer, struct dns_job, timer);
    unsigned share;

    if (j->done) {
        job_free(j);
        return;
    }
    j->ticks++;
    wheel_set(j->s->wheel, timer, now_us + TICK_US);
    if (j->ticks >= LAST_TICK) {
        job_fail(j);
        return;
    }
    if (j->ticks >= STALE_TICK && j->waiting != NULL)
        serve_stale(j);
    share = LAST_TICK / (unsigned)j->n_tries;
    if (j->started_tries < j->n_tries && j->ticks - j->tick_of_try >= (share > 2 ? share : 2))
        job_next_try(j);
    else
        resend(j);
}

/* ---- a new question ---- */

static struct dns_job *job_new(struct dns_service *s, const struct dns_ask *a, uint8_t flags)
{
    const struct dns_nameservers *servers = dns_plan_servers(s->plan, a->name);
    struct dns_job *j = servers->n > 0 ? slab_get(&s->jobs) : NULL;
    struct dns_job **bucket;

    if (j == NULL)
        return NULL;
    j->s = s;
    j->plan = dns_plan_ref(s->plan);
    memcpy(j->name, a->name, sizeof(j->name));
    j->question = a->query.question;
    j->flags = flags;
    j->timer.fn = on_tick;
    j->n_tries = servers->n < DNS_NAMESERVERS_MAX ? servers->n : DNS_NAMESERVERS_MAX;
    for (size_t i = 0; i < j->n_tries; i++)
        j->tries[i] = (struct dns_try){ .job = j, .server = &servers->list[i] };
    bucket = bucket_of(s, j->name, j->question.type);
    j->chain = *bucket;
    *bucket = j;
    j->next_all = s->all_jobs;
    j->link_all = &s->all_jobs;
    if (j->next_all != NULL)
        j->next_all->link_all = &j->next_all;
    s->all_jobs = j;
    wheel_set(s->wheel, &j->timer, loop_now_us(s->loop) + TICK_US);
    return j;
}

static void job_start(struct dns_job *j)
{
    size_t at_once = j->plan->settings.order == DNS_RACE ? j->n_tries : 1;

    DCOUNT(j->s, asked);
    while (!j->done && j->started_tries < at_once)
        job_next_try(j);
}

void job_join(struct dns_service *s, struct dns_ask *a)
{
    uint8_t flags =
        (uint8_t)((a->query.dnssec_ok ? DNS_Q_DO : 0) | (a->query.checking_disabled ? DNS_Q_CD : 0));
    struct dns_job *j = *bucket_of(s, a->name, a->query.question.type);
    bool fresh;

    while (j != NULL && (strcmp(j->name, a->name) != 0 || j->question.type != a->query.question.type ||
                         j->flags != flags || j->plan != s->plan))
        j = j->chain;
    fresh = j == NULL;
    if (fresh)
        j = job_new(s, a, flags);
    else
        DCOUNT(s, coalesced);
    if (j == NULL) { /* no name server is configured, or too many questions are open */
        DCOUNT(s, limit);
        ask_reply(a, dns_plan_servers(s->plan, a->name)->n == 0 ? DNS_REFUSED : DNS_SERVFAIL, NULL, 0);
        return;
    }
    a->next = j->waiting;
    a->job = j;
    j->waiting = a;
    if (fresh)
        job_start(j);
}
