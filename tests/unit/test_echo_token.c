/* test_echo_token.c - echo requests that are answered later, outcomes, and their way between threads (icmp.md
 * 3.2, X28). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "ip_lab.h"

static struct pkt pkt;
static uint32_t keep;

static struct ip_addr addr(const char *text)
{
    struct ip_addr a = { 0 };

    assert_int_equal(ip_parse(text, &a), 0);
    return a;
}

static void detach(struct ip_lab *lab, struct echo_req *r)
{
    lab->token = echo_detach(r, keep);
}

static void ask(struct ip_lab *lab, const char *dst, const void *data, size_t len)
{
    ip_lab_clear(lab);
    lab->in_echo = detach;
    lab->verdict = ECHO_CONSUMED;
    pkt_echo(&pkt, strchr(dst, ':') != NULL ? LAB_CLIENT6 : LAB_CLIENT, dst, 0x1234, 7, data, len);
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->outs, 0);
}

static enum echo_result finish(struct ip_lab *lab, enum echo_outcome_kind kind)
{
    struct echo_outcome o = { .kind = kind, .why = REJECT_HOST_UNREACH };

    return echo_complete(lab->s, lab->token, &o);
}

static void what_is_kept_is_what_was_asked_for(void **state) /* icmp.md W2, A1, A5 */
{
    static const struct {
        uint32_t keep;
        size_t copied4, copied6;
        bool payload, exact_quote;
    } rows[] = {
        { 0, 0, 0, false, false },
        { ECHO_KEEP_PAYLOAD, 100, 100, true, false },
        { ECHO_KEEP_HEADER, 28, 48, false, true },
        { ECHO_KEEP_PAYLOAD | ECHO_KEEP_HEADER, 128, 148, true, true },
    };
    uint8_t payload[100];

    (void)state;
    memset(payload, 0xa5, sizeof(payload));
    for (size_t i = 0; i < ARRAY_LEN(rows) * 2; i++) {
        struct ip_lab *lab = ip_lab_new();
        bool v6 = i % 2 == 1;
        struct pkt_view v;
        size_t quoted;

        ip_lab_start(lab);
        keep = rows[i / 2].keep;
        ask(lab, v6 ? LAB_TARGET6 : LAB_TARGET, payload, sizeof(payload));
        assert_true(lab->token != 0);
        assert_int_equal(ip_lab_count(lab, "stack.payload_copied_bytes"),
                         v6 ? rows[i / 2].copied6 : rows[i / 2].copied4);
        memset(stack_rx_slot(lab->s), 0xdd, 2000);
        assert_int_equal(finish(lab, ECHO_OUT_REPLY), rows[i / 2].payload ? EV_SENT : EV_DROPPED);
        if (rows[i / 2].payload)
            assert_memory_equal(ip_lab_out(lab, 0).data, payload, sizeof(payload));
        ask(lab, v6 ? LAB_TARGET6 : LAB_TARGET, payload, sizeof(payload));
        assert_int_equal(finish(lab, ECHO_OUT_REJECT), EV_SENT);
        v = ip_lab_out(lab, 0);
        quoted = (v6 ? 40 : 20) + 8;
        assert_true(v.len >= quoted);
        assert_memory_equal(v.data + quoted - 8, pkt.data + quoted - 8,
                            8); /* id, seq and checksum as they were sent */
        assert_memory_equal(v.data + (v6 ? 8 : 12), pkt.data + (v6 ? 8 : 12), v6 ? 32 : 8);
        if (rows[i / 2].exact_quote)
            assert_memory_equal(v.data, pkt.data, v.len);
        ip_lab_free(lab);
    }
}

static void an_outcome_overrides_what_it_may(void **state) /* icmp.md A8, X21 */
{
    struct ip_lab *lab = *state;

    keep = 0;
    for (int v6 = 0; v6 < 2; v6++) {
        const char *target = v6 ? LAB_TARGET6 : LAB_TARGET;
        struct echo_outcome o = { .kind = ECHO_OUT_REPLY,
                                  .payload = (const uint8_t *)"other",
                                  .payload_len = 5,
                                  .ttl = 55,
                                  .has_tos = true,
                                  .tos = 0x2a,
                                  .source = addr(v6 ? "2001:db8::99" : "192.0.2.99") };
        struct pkt_view v;

        ask(lab, target, "payload", 7);
        assert_int_equal(echo_complete(lab->s, lab->token, &o), EV_SENT);
        v = ip_lab_out(lab, 0);
        assert_int_equal(v.ttl, 55);
        assert_int_equal(v.tos, 0x2a);
        assert_int_equal(v.word, 0x12340007);
        assert_true(ip_equal(&v.src, &o.source));
        assert_int_equal(v.len, 5);
        assert_memory_equal(v.data, "other", 5);
        stack_set_spoofing(lab->s, false); /* icmp.md N2: nobody else's address then */
        ask(lab, target, "payload", 7);
        assert_int_equal(echo_complete(lab->s, lab->token, &o), EV_NO_ROUTE);
        o.source = addr(target);
        ask(lab, target, "payload", 7);
        assert_int_equal(echo_complete(lab->s, lab->token, &o), EV_SENT);
        stack_set_spoofing(lab->s, true);
        ask(lab, target, "payload", 7);
        o = (struct echo_outcome){ .kind = ECHO_OUT_REPLY,
                                   .payload = (const uint8_t *)"x",
                                   .payload_len = 1 };
        assert_int_equal(echo_complete(lab->s, lab->token, &o), EV_SENT);
        assert_int_equal(ip_lab_out(lab, 0).ttl, 64);
    }
}

static void an_error_is_relayed_as_it_came(
    void **state) /* icmp.md E1, E4, E11, E13: the stack's side of them */
{
    struct ip_lab *lab = ip_lab_new();

    (void)state;
    lab->cfg.icmp_errors_burst = 1;
    ip_lab_start(lab);
    for (int v6 = 0; v6 < 2; v6++) {
        const char *client = v6 ? LAB_CLIENT6 : LAB_CLIENT, *target = v6 ? LAB_TARGET6 : LAB_TARGET;
        struct echo_addr a = { .client = addr(client), .target = addr(target), .id = 9, .seq = 8 };
        struct echo_outcome o = { .kind = ECHO_OUT_ERROR,
                                  .type = v6 ? 3 : 11,
                                  .source = addr(v6 ? "2001:db8::1" : "198.51.100.1"),
                                  .relayed = true };
        struct pkt_view v;

        for (int i = 0; i < 5; i++) { /* not the stack's bucket */
            ip_lab_clear(lab);
            assert_int_equal(echo_inject(lab->s, &o, &a), EV_SENT);
        }
        v = ip_lab_out(lab, 0);
        assert_true(ip_equal(&v.src, &o.source));
        assert_int_equal(get_be32(v.data + (v6 ? 40 : 20) + 4), 9u << 16 | 8);
        pkt_echo(&pkt, client, target, 9, 8, "payload", 7);
        o.quote = pkt.data;
        o.quote_len = (uint32_t)pkt.len;
        o.type = v6 ? 2 : 3;
        o.code = v6 ? 0 : 4;
        o.info = 1400;
        ip_lab_clear(lab);
        assert_int_equal(echo_inject(lab->s, &o, &a), EV_SENT);
        v = ip_lab_out(lab, 0);
        assert_int_equal(v.word, 1400);
        assert_memory_equal(v.data, pkt.data, pkt.len);
        o.type = v6 ? 129 : 0; /* an error, and nothing else */
        assert_int_equal(echo_inject(lab->s, &o, &a), EV_DROPPED);
        o.type = v6 ? 137 : 5;
        assert_int_equal(echo_inject(lab->s, &o, &a), EV_DROPPED);
    }
    ip_lab_free(lab);
}

static void late_replies_are_injected(void **state) /* icmp.md 3.1, X22, X28 */
{
    struct ip_lab *lab = *state;
    static uint8_t large[3000], joined[4000];

    for (int v6 = 0; v6 < 2; v6++) {
        struct echo_addr a = { .client = addr(v6 ? LAB_CLIENT6 : LAB_CLIENT),
                               .target = addr(v6 ? LAB_TARGET6 : LAB_TARGET),
                               .id = 9,
                               .seq = 8 };
        struct echo_outcome o = { .kind = ECHO_OUT_REPLY, .payload = large, .payload_len = 100 };
        struct pkt_view v;

        ip_lab_clear(lab);
        assert_int_equal(echo_inject(lab->s, &o, &a), EV_SENT);
        assert_int_equal(echo_inject(lab->s, &o, &a), EV_SENT); /* a duplicate is one */
        v = ip_lab_out(lab, 1);
        assert_int_equal(v.type, v6 ? 129 : 0);
        assert_int_equal(v.word, 9u << 16 | 8);
        assert_int_equal(v.len, 100);
        ip_lab_clear(lab);
        o.payload_len = sizeof(large); /* X28: in fragments, for no DF is in the way */
        assert_int_equal(echo_inject(lab->s, &o, &a), EV_SENT);
        assert_int_equal(ip_lab_join(lab, 0, lab->outs, joined, sizeof(joined), &v), sizeof(large) + 8);
        o = (struct echo_outcome){ .kind = ECHO_OUT_REPLY };
        ip_lab_clear(lab);
        assert_int_equal(echo_inject(lab->s, &o, &a), EV_SENT);
        assert_int_equal(ip_lab_out(lab, 0).l4_len, 8);
        o.kind = ECHO_OUT_DROP;
        assert_int_equal(echo_inject(lab->s, &o, &a), EV_DROPPED);
        assert_int_equal(lab->outs, 1);
        a.target = addr(v6 ? LAB_TARGET : LAB_TARGET6); /* two families */
        o.kind = ECHO_OUT_REPLY;
        assert_int_equal(echo_inject(lab->s, &o, &a), EV_NO_ROUTE);
    }
}

static void duplicates_are_allowed_where_asked(void **state) /* icmp.md A4 */
{
    struct ip_lab *lab = *state;

    for (int many = 0; many < 2; many++) {
        keep = ECHO_KEEP_PAYLOAD | (many ? ECHO_ALLOW_DUP : 0);
        ask(lab, LAB_TARGET, "x", 1);
        assert_int_equal(finish(lab, ECHO_OUT_REPLY), EV_SENT);
        assert_int_equal(finish(lab, ECHO_OUT_REPLY), many ? EV_SENT : EV_STALE);
        ip_lab_run_until(lab, lab->now_us + 10000000);
        assert_int_equal(finish(lab, ECHO_OUT_REPLY), EV_STALE);
        assert_int_equal(ip_lab_in_use(lab, "echo"), 0);
    }
}

static void a_token_lives_as_long_as_configured(void **state) /* icmp.md A2 */
{
    static const uint32_t lives_ms[] = { 1000, 60000 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(lives_ms); i++) {
        struct ip_lab *lab = ip_lab_new();

        lab->cfg.echo_token_ms = lives_ms[i];
        ip_lab_start(lab);
        keep = ECHO_KEEP_PAYLOAD;
        ask(lab, LAB_TARGET, "x", 1);
        ip_lab_run_until(lab, lab->now_us + lives_ms[i] * 1000ull - 1000);
        assert_int_equal(ip_lab_in_use(lab, "echo"), 1);
        ip_lab_run_until(lab, lab->now_us + 1000);
        assert_int_equal(ip_lab_in_use(lab, "echo"), 0);
        assert_int_equal(ip_lab_count(lab, "icmp.detach_expired"), 1);
        assert_int_equal(lab->outs, 0);
        ip_lab_free(lab);
    }
}

static void generations_tell_the_uses_of_a_place_apart(void **state) /* icmp.md A1 */
{
    struct ip_lab *lab = *state;
    echo_token first;

    keep = 0;
    ask(lab, LAB_TARGET, "x", 1);
    first = lab->token;
    assert_int_equal(finish(lab, ECHO_OUT_DROP), EV_DROPPED);
    for (int i = 0; i < 1000; i++) {
        struct echo_outcome o = { .kind = ECHO_OUT_EXPIRE };

        ask(lab, LAB_TARGET, "x", 1);
        assert_true(lab->token != first);
        assert_int_equal(echo_complete(lab->s, first, &o), EV_STALE);
        assert_int_equal(finish(lab, ECHO_OUT_DROP), EV_DROPPED);
    }
    assert_int_equal(lab->outs, 0);
    assert_int_equal(echo_token_shard(first), 0);
}

static void what_is_no_longer_ours_is_stale(void **state) /* icmp.md A6 */
{
    struct ip_addr gateway = addr(LAB_GATEWAY);
    struct ip_prefix prefix = { addr("198.51.100.0"), 120 };

    (void)state;
    for (int i = 0; i < 5; i++) {
        static const char *const dst[] = { LAB_GATEWAY, LAB_TARGET, "198.51.100.7", LAB_TARGET, LAB_GATEWAY };
        struct ip_lab *lab = ip_lab_new();

        ip_lab_start(lab);
        assert_int_equal(stack_add_local_prefix(lab->s, &prefix, LOCAL_ECHO_HANDLER), 0);
        keep = ECHO_KEEP_PAYLOAD;
        ask(lab, dst[i], "x", 1);
        if (i == 0)
            assert_int_equal(stack_remove_address(lab->s, &gateway), 0);
        if (i == 1)
            assert_int_equal(stack_set_promiscuous(lab->s, false), 0);
        if (i == 2)
            assert_int_equal(stack_remove_local_prefix(lab->s, &prefix), 0);
        if (i == 3)
            assert_int_equal(stack_set_up(lab->s, false), 0);
        assert_int_equal(finish(lab, ECHO_OUT_REPLY), i < 4 ? EV_STALE : EV_SENT);
        assert_int_equal(ip_lab_in_use(lab, "echo"), 0);
        ip_lab_free(lab);
    }
}

/* ---- other threads ------------------------------------------------------------------------------------- */

#define RECORD_MAX 4096

/* What a worker's inbox is in the gateway: one ring, one producer at a time. */
struct inbox {
    struct ring ring;
    uint8_t *memory;
    struct ip_lab *lab;
    bool full;
};

struct record {
    echo_token token;
    size_t len;
};

static bool post(void *driver, uint32_t to_shard, echo_token token, const struct echo_outcome *o)
{
    struct ip_lab *lab = driver;
    struct inbox *box = (struct inbox *)lab->gone_user;
    size_t len = echo_outcome_pack(o, NULL, 0);
    struct record *r;

    if (to_shard != 0 || box->full)
        return false;
    r = ring_reserve(&box->ring, sizeof(*r) + len);
    if (r == NULL)
        return false;
    *r = (struct record){ token, len };
    assert_int_equal(echo_outcome_pack(o, r + 1, len), len);
    ring_commit(&box->ring);
    return true;
}

static unsigned drain(struct inbox *box, unsigned results[9])
{
    const struct record *r;
    unsigned n = 0;
    size_t len;

    for (; (r = ring_peek(&box->ring, &len)) != NULL; ring_pop(&box->ring), n++) {
        struct echo_outcome o;

        assert_true(echo_outcome_unpack(r + 1, r->len, &o));
        results[echo_complete(box->lab->s, r->token, &o)]++;
    }
    return n;
}

#define PINGS 200

struct helper {
    struct ip_lab *lab;
    echo_token token[PINGS];
    unsigned posted;
};

static void *complete_elsewhere(void *arg)
{
    struct helper *h = arg;

    for (int i = 0; i < PINGS; i++) {
        uint8_t payload[16];
        struct echo_outcome o = { .kind = ECHO_OUT_REPLY,
                                  .payload = payload,
                                  .payload_len = sizeof(payload) };

        memset(payload, i, sizeof(payload)); /* on this thread's stack: the record has its own */
        h->posted += echo_post(h->lab->s, h->token[i], &o) == EV_POSTED;
        memset(payload, 0xee, sizeof(payload));
    }
    return NULL;
}

static struct inbox *inbox_new(struct ip_lab *lab)
{
    struct inbox *box = calloc(1, sizeof(*box));

    box->memory = aligned_alloc(64, 1 << 20);
    memset(box->memory, 0, 1 << 20);
    ring_init(&box->ring, box->memory, 1 << 20, 4096);
    box->lab = lab;
    lab->gone_user = box;
    return box;
}

static void inbox_free(struct inbox *box)
{
    free(box->memory);
    free(box);
}

static void completions_come_from_any_thread(void **state) /* icmp.md A3, A7 */
{
    struct ip_lab *lab = ip_lab_new();
    struct inbox *box = inbox_new(lab);
    struct helper h = { .lab = lab };
    unsigned results[9] = { 0 }, done = 0;
    pthread_t thread;

    (void)state;
    lab->ev.echo_post = post;
    ip_lab_start(lab);
    keep = 0;
    for (int i = 0; i < PINGS; i++) {
        ask(lab, LAB_TARGET, "x", 1);
        h.token[i] = lab->token;
    }
    ip_lab_clear(lab);
    assert_int_equal(pthread_create(&thread, NULL, complete_elsewhere, &h), 0);
    while (done < PINGS)
        done += drain(box, results);
    pthread_join(thread, NULL);
    assert_int_equal(h.posted, PINGS);
    assert_int_equal(results[EV_SENT], PINGS);
    for (size_t i = 0; i < PINGS; i++)
        assert_int_equal(ip_lab_out(lab, i).data[15], i);
    complete_elsewhere(&h); /* A7: late ones, when all tokens are stale */
    assert_int_equal(drain(box, results), PINGS);
    assert_int_equal(results[EV_STALE], PINGS);
    box->full = true;
    complete_elsewhere(&h);
    assert_int_equal(h.posted, 2 * PINGS);
    inbox_free(box);
    ip_lab_free(lab);
}

static void another_shards_token_is_posted_to_it(void **state) /* icmp.md A1, A3 */
{
    struct echo_outcome o = { .kind = ECHO_OUT_REPLY, .payload = (const uint8_t *)"x", .payload_len = 1 };
    struct ip_lab *first = ip_lab_new(), *second = ip_lab_new();
    struct inbox *box = inbox_new(first);
    unsigned results[9] = { 0 };

    (void)state;
    second->gone_user = box;
    first->cfg.shards = second->cfg.shards = 2;
    second->cfg.shard = 1;
    first->ev.echo_post = second->ev.echo_post = post;
    ip_lab_start(first);
    ip_lab_start(second);
    keep = 0;
    for (unsigned i = 0; i < 64 && first->token == 0; i++) { /* one whose addresses this shard owns (F10) */
        char dst[32];

        snprintf(dst, sizeof(dst), "192.0.2.%u", i);
        ask(first, dst, "x", 1);
    }
    assert_true(first->token != 0);
    assert_int_equal(echo_complete(second->s, first->token, &o), EV_POSTED);
    assert_int_equal(drain(box, results), 1);
    assert_int_equal(results[EV_SENT], 1);
    assert_int_equal(first->outs, 1);
    assert_int_equal(second->outs, 0);
    box->full = true;
    assert_int_equal(echo_complete(second->s, first->token, &o), EV_DROPPED);
    assert_int_equal(echo_complete(second->s, (echo_token)1 << 32 | 7u << 16 | 1, &o),
                     EV_STALE); /* no such shard */
    inbox_free(box);
    ip_lab_free(first);
    ip_lab_free(second);
}

static void an_outcome_survives_its_way_as_bytes(void **state)
{
    struct echo_outcome o = { .kind = ECHO_OUT_ERROR,
                              .type = 3,
                              .payload = (const uint8_t *)"abc",
                              .payload_len = 3,
                              .quote = (const uint8_t *)"quoted",
                              .quote_len = 6 };
    uint8_t bytes[RECORD_MAX];
    struct echo_outcome back;
    size_t len = echo_outcome_pack(&o, bytes, sizeof(bytes));

    (void)state;
    assert_true(echo_outcome_unpack(bytes, len, &back));
    assert_int_equal(back.type, 3);
    assert_memory_equal(back.payload, "abc", 3);
    assert_memory_equal(back.quote, "quoted", 6);
    for (size_t cut = 0; cut < len; cut++)
        assert_false(echo_outcome_unpack(bytes, cut, &back));
    assert_false(echo_outcome_unpack(bytes, len + 1, &back));
    memset(bytes, 0x77, sizeof(bytes));
    assert_int_equal(echo_outcome_pack(&o, bytes, len - 1), len);
    assert_int_equal(bytes[0], 0x77);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, ip_lab_setup, ip_lab_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_kept_is_what_was_asked_for),
        T(an_outcome_overrides_what_it_may),
        cmocka_unit_test(an_error_is_relayed_as_it_came),
        T(late_replies_are_injected),
        T(duplicates_are_allowed_where_asked),
        cmocka_unit_test(a_token_lives_as_long_as_configured),
        T(generations_tell_the_uses_of_a_place_apart),
        cmocka_unit_test(what_is_no_longer_ours_is_stale),
        cmocka_unit_test(completions_come_from_any_thread),
        cmocka_unit_test(another_shards_token_is_posted_to_it),
        cmocka_unit_test(an_outcome_survives_its_way_as_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
