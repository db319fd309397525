/* service_lab.h - a DNS service with name servers that a test plays by hand, on virtual time. It defines functions, as fake_ways.h does:
 * for the one file of a test. */
#ifndef CULVERT_TEST_SERVICE_LAB_H
#define CULVERT_TEST_SERVICE_LAB_H

#include "resolver/service_impl.h"

#include <setjmp.h>
#include <stdio.h>
#include <cmocka.h>

#include "dns_message.h"
#include "fake_ways.h"

#define MS        UINT64_C(1000)
#define TOLD_LATE 40 /* ms: a tick of the wheel, and one of ours */

struct told { /* one question of a client, and what it was told */
    struct dns_ask *ask;
    unsigned calls, rcode, answers;
    uint32_t ttl_s;
    uint8_t last; /* of 192.0.2.x */
    uint64_t asked_us;
    unsigned after_ms;
};
struct lab {
    struct upstream direct, socks, group;
    struct dns_nameserver servers[3];
    struct dns_settings settings;
    struct dns_plan *plan;
    struct name_book *book;
    struct dns_services *all;
    struct dns_service *s;
    struct told told[64];
    size_t asked;
    struct message message;
};

/* ---- the laboratory ---- */

/* "udp", "tcp", "tls" or "https", with "#socks" or "#group" behind it; 192.0.2.53, .54, ... */
static inline void read_servers(struct lab *lab, const char *words)
{
    static const char *const names[] = { "udp", "tcp", "tls", "https" };
    char copy[64], *save, *word;

    strcpy(copy, words);
    for (word = strtok_r(copy, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save)) {
        struct dns_nameserver *s = &lab->servers[lab->settings.nameservers.n++];
        char *hash = strchr(word, '#');

        *s = (struct dns_nameserver){ .at.port = 53, .path = "/q" };
        s->at.addr = ip_from4((const uint8_t[4]){ 192, 0, 2, (uint8_t)(52 + lab->settings.nameservers.n) });
        s->target = hash == NULL ? 0 : hash[1] == 's' ? 1 : 2;
        if (hash != NULL)
            *hash = '\0';
        while (strcmp(names[s->transport], word) != 0)
            s->transport++;
        if (s->transport >= DNS_OVER_TLS)
            s->tls = (struct tls_settings *)(void *)lab; /* the fake never looks at it */
    }
}

static inline struct lab *lab_new(enum dns_order order, const char *servers)
{
    struct lab *lab = calloc(1, sizeof(*lab));
    struct upstream *targets[3] = { &lab->direct, &lab->socks, &lab->group };
    const struct dns_plan_setup plan = { .settings = &lab->settings, .targets = targets, .target_count = 3 };
    const struct name_book_options book = { .shards = 1 };
    struct dns_service_setup setup = { .env = ways_new() };

    lab->direct.kind = UPSTREAM_DIRECT;
    lab->socks.kind = UPSTREAM_SOCKS5;
    lab->group = (struct upstream){ .kind = UPSTREAM_GROUP, .goes = &lab->socks };
    lab->settings = (struct dns_settings){
        .mode = DNS_MODE_REAL, .order = order, .cache_names = 64, .queries_per_source = 1000
    };
    lab->settings.nameservers.list = lab->servers;
    read_servers(lab, servers);
    assert_int_equal(dns_plan_new(&plan, &lab->plan), 0);
    assert_int_equal(name_book_new(&book, &lab->book), 0);
    assert_int_equal(dns_services_new(1, &lab->all), 0);
    setup.loop = &ways->loop;
    setup.plan = lab->plan;
    setup.book = lab->book;
    assert_int_equal(dns_service_start(lab->all, 0, &setup, &lab->s), 0);
    return lab;
}

static inline void lab_free(struct lab *lab)
{
    dns_service_stop(lab->s);
    dns_services_free(lab->all);
    name_book_free(lab->book);
    dns_plan_unref(lab->plan);
    assert_int_equal(ways->wheel.pending, 0);
    for (size_t i = 0; i < ways->udps; i++)
        assert_true(ways->udp[i]->closed);
    for (size_t i = 0; i < ways->streams; i++)
        assert_true(ways->stream[i]->closed);
    ways_free();
    free(lab);
}

static inline void on_reply(void *arg, const uint8_t *message, size_t len)
{
    struct told *t = arg;

    t->calls++;
    t->after_ms = (unsigned)((ways->loop.now_us - t->asked_us) / MS);
    t->ask = NULL;
    assert_non_null(message);
    assert_true(len >= DNS_HEADER_LEN);
    t->rcode = message[3] & 15;
    t->answers = get_be16(message + 6);
    if (t->answers > 0) { /* the last record is an address, or one with an OPT behind it */
        size_t end = len - (get_be16(message + 10) > 0 ? 11 : 0);

        t->last = message[end - 1];
        t->ttl_s = get_be32(message + end - 10);
    }
}

static inline struct told *ask_with(struct lab *lab, const char *name, uint16_t type, unsigned flags)
{
    static const struct ip_addr client = { { { [15] = 9 } } };
    struct told *t = &lab->told[lab->asked++];
    struct dns_question q = question_of(name, type);
    uint8_t query[320];
    struct buf b;

    *t = (struct told){ .asked_us = ways->loop.now_us };
    buf_init(&b, query, sizeof(query));
    dns_put_query(&b, 7, &q, flags);
    assert_int_equal(dns_service_ask(lab->s, &client, query, b.len, true, on_reply, t, &t->ask), 0);
    return t;
}

static inline struct told *ask(struct lab *lab, const char *name)
{
    return ask_with(lab, name, DNS_A, DNS_Q_EDNS);
}

/* An answer to these bytes of a question: 192.0.2.@last, or with 0 none at all. */
static inline struct span answer_to(struct lab *lab, const uint8_t *query, size_t len, uint16_t flags,
                                    uint32_t ttl_s, uint8_t last)
{
    struct message *m = &lab->message;
    struct dns_query q;

    assert_int_equal(dns_read_query((struct span){ query, len }, &q), 0);
    message_begin(m, flags, 1, last != 0, 0, 0);
    message_question(m, &q.question);
    if (last != 0)
        message_a(m, MESSAGE_OWNER, 2, ttl_s, last);
    memcpy(m->bytes, query, 2);
    return (struct span){ m->bytes, m->b.len };
}

/* The server answers what association @i said as its @k-th message. */
static inline void udp_answers(struct lab *lab, size_t i, size_t k, uint16_t flags, uint8_t last)
{
    const struct said *said = &ways->udp[i]->said[k];
    struct ip_port from = { said->to.addr, said->to.port };
    struct span a;

    assert_true(k < ways->udp[i]->count);
    a = answer_to(lab, said->bytes, said->len, flags, 60, last);
    udp_now_brings(ways->udp[i], &from, a.data, a.len);
}

/* ... and the message at @at of connection @i; returns where the next one is. */
static inline size_t stream_answers(struct lab *lab, size_t i, size_t at, uint16_t flags, uint8_t last)
{
    struct up_stream *s = ways->stream[i];
    size_t len;
    uint8_t framed[600];
    struct span a;

    assert_true(at + 2 < s->out_len);
    len = get_be16(s->out + at);
    a = answer_to(lab, s->out + at + 2, len, flags, 60, last);
    put_be16(framed, (uint16_t)a.len);
    memcpy(framed + 2, a.data, a.len);
    stream_now_brings(s, framed, a.len + 2);
    return at + 2 + len;
}

#define GOOD      MESSAGE_RESPONSE
#define SERVFAIL  (MESSAGE_RESPONSE | DNS_SERVFAIL)
#define TRUNCATED (MESSAGE_RESPONSE | MESSAGE_TRUNCATED)

static inline void assert_told(const struct told *t, unsigned rcode, uint8_t last, unsigned at_ms)
{
    assert_int_equal(t->calls, 1);
    assert_int_equal(t->rcode, rcode);
    assert_int_equal(t->last, last);
    assert_in_range(t->after_ms, at_ms, at_ms + TOLD_LATE);
}

#endif
