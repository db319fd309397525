/* test_echo.c - echo requests: icmp.md 2.2 to 2.5, 2.8, 3.1 to 3.3. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "ip_lab.h"

static struct pkt pkt;

/* ---- what handlers do ------------------------------------------------------------------------------------------------ */

static void no_verb(struct ip_lab *lab, struct echo_req *r)
{
    (void)lab;
    (void)r;
}

static void reply_once(struct ip_lab *lab, struct echo_req *r)
{
    lab->results[0] = (int)echo_reply(r);
}

static void reply_twice(struct ip_lab *lab, struct echo_req *r)
{
    lab->results[0] = (int)echo_reply(r);
    lab->results[1] = (int)echo_reply(r);
    lab->results[2] = (int)echo_reject(r, REJECT_HOST_UNREACH);
    lab->results[3] = echo_detach(r, ECHO_KEEP_PAYLOAD | ECHO_KEEP_HEADER) == 0 ? EV_ALREADY : EV_SENT;
}

static void reply_on_a_copy(struct ip_lab *lab, struct echo_req *r)
{
    struct echo_req copy = *r;

    lab->results[0] = (int)echo_reply(&copy);
    lab->results[1] = (int)echo_detach(&copy, 0);
}

static void reject(struct ip_lab *lab, struct echo_req *r)
{
    lab->results[0] = (int)echo_reject(r, REJECT_ADMIN_PROHIBITED);
}

static void detach(struct ip_lab *lab, struct echo_req *r)
{
    lab->token = echo_detach(r, ECHO_KEEP_PAYLOAD | ECHO_KEEP_HEADER);
}

/* icmp.md 2.8, for traffic whose answers are immediate */
static void assert_requests_add_up(struct ip_lab *lab)
{
    const struct stack_counters *c = stack_counters(lab->s);

    assert_int_equal(c->icmp4_rx_echo_request,
                     c->icmp4_tx_echo_reply + c->icmp4_consumed + c->icmp4_rejected + c->icmp4_detached +
                         c->icmp4_suppressed + c->icmp4_no_route + c->icmp4_rate_limited + c->icmp4_dropped);
    assert_int_equal(c->icmp6_rx_echo_request,
                     c->icmp6_tx_echo_reply + c->icmp6_consumed + c->icmp6_rejected + c->icmp6_detached +
                         c->icmp6_suppressed + c->icmp6_no_route + c->icmp6_rate_limited + c->icmp6_dropped);
}

/* The built-in reply, or an error; as a verb that comes later. */
static enum echo_result complete(struct ip_lab *lab, echo_token token, bool reply, enum stack_reject why)
{
    struct echo_outcome o = { .kind = reply ? ECHO_OUT_REPLY : ECHO_OUT_REJECT, .why = why };

    return echo_complete(lab->s, token, &o);
}

static void ping(struct ip_lab *lab, const char *dst, const void *data, size_t len)
{
    pkt_echo(&pkt, strchr(dst, ':') != NULL ? LAB_CLIENT6 : LAB_CLIENT, dst, 0x1234, 7, data, len);
    ip_lab_input(lab, &pkt);
}

/* ---- malformed --------------------------------------------------------------------------------------------------------- */

static void malformed_requests_reach_nobody(void **state) /* icmp.md V1 to V5 */
{
    struct ip_lab *lab = *state;
    unsigned bad = 0;

    for (int v6 = 0; v6 < 2; v6++) {
        const char *src = v6 ? LAB_CLIENT6 : LAB_CLIENT, *dst = v6 ? LAB_GATEWAY6 : LAB_GATEWAY;

        for (size_t len = v6 ? 1 : 0; len < 8; len++, bad++) {
            pkt_raw(&pkt, src, dst, v6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP, "\x08\0\0\0\0\0\0", len);
            if (len >= 4)
                pkt_fix_l4(&pkt);
            ip_lab_input(lab, &pkt);
        }
        for (int vouched = 0; vouched < 2; vouched++, bad++) {
            pkt_echo(&pkt, src, dst, 1, 1, "data", 4);
            pkt.data[pkt.len - 1] ^= 1;
            pkt.meta.csum_valid = vouched; /* V5: computed anyway */
            ip_lab_input(lab, &pkt);
        }
    }
    assert_int_equal(ip_lab_count(lab, "icmp.rx.invalid"), bad);
    assert_int_equal(ip_lab_count(lab, "icmp.rx.echo_request"), 0);
    assert_int_equal(lab->echoes + lab->outs, 0);
}

static void code_and_empty_payload_are_answered(void **state) /* icmp.md V9, V10 */
{
    struct ip_lab *lab = *state;

    ping(lab, LAB_GATEWAY, NULL, 0);
    assert_int_equal(ip_lab_out(lab, 0).l4_len, 8);
    pkt_icmp(&pkt, LAB_CLIENT, LAB_GATEWAY, 8, 42, 0x10002, "x", 1);
    ip_lab_input(lab, &pkt);
    assert_int_equal(ip_lab_out(lab, 1).code, 42);
    assert_int_equal(lab->echo.code, 42);
}

/* ---- who answers --------------------------------------------------------------------------------------------------------- */

static const struct owner_row {
    const char *id, *dst;
    bool handler;
    void (*in_echo)(struct ip_lab *lab, struct echo_req *r);
    enum echo_verdict verdict;
    unsigned calls, replies;
    const char *counted;
} owners[] = {
    /* icmp.md O1, O2, O3, O8 to O14, O16, O17, O19 */
    { "O1", LAB_GATEWAY, false, NULL, ECHO_PASS, 0, 1, "icmp.tx.echo_reply" },
    { "O1 v6", LAB_GATEWAY6, false, NULL, ECHO_PASS, 0, 1, "icmp.tx.echo_reply" },
    { "O2", LAB_GATEWAY, true, no_verb, ECHO_PASS, 1, 1, "icmp.tx.echo_reply" },
    { "O2 v6", LAB_GATEWAY6, true, no_verb, ECHO_PASS, 1, 1, "icmp.tx.echo_reply" },
    { "O3", LAB_GATEWAY, true, no_verb, ECHO_CONSUMED, 1, 0, "icmp.handler_consumed" },
    { "O3 v6", LAB_GATEWAY6, true, no_verb, ECHO_CONSUMED, 1, 0, "icmp.handler_consumed" },
    { "O8", LAB_TARGET, false, NULL, ECHO_PASS, 0, 0, "icmp.suppressed_temporary" },
    { "O9", LAB_TARGET, true, no_verb, ECHO_PASS, 1, 0, "icmp.suppressed_temporary" },
    { "O10", LAB_TARGET, true, no_verb, ECHO_CONSUMED, 1, 0, "icmp.handler_consumed" },
    { "O11 pass", LAB_TARGET, true, reply_once, ECHO_PASS, 1, 1, "icmp.tx.echo_reply" },
    { "O11 consumed", LAB_TARGET, true, reply_once, ECHO_CONSUMED, 1, 1, "icmp.tx.echo_reply" },
    { "O12", LAB_TARGET6, false, NULL, ECHO_PASS, 0, 1, "icmp.tx.echo_reply" },
    { "O12 pass", LAB_TARGET6, true, no_verb, ECHO_PASS, 1, 1, "icmp.tx.echo_reply" },
    { "O13", LAB_TARGET6, true, no_verb, ECHO_CONSUMED, 1, 0, "icmp.handler_consumed" },
    { "O14", LAB_TARGET6, true, reply_once, ECHO_PASS, 1, 1, "icmp.tx.echo_reply" },
    { "O16", LAB_TARGET, true, reply_twice, ECHO_CONSUMED, 1, 1, "icmp.tx.echo_reply" },
    { "O17", LAB_GATEWAY, true, reply_once, ECHO_PASS, 1, 1, "icmp.tx.echo_reply" },
    { "O19", LAB_GATEWAY, true, reply_on_a_copy, ECHO_CONSUMED, 1, 0, "icmp.handler_consumed" },
    { "reject", LAB_TARGET, true, reject, ECHO_PASS, 1, 1, "icmp.rejected" },
};

static void who_answers(void **state) /* tcp-stack.md IP-7 */
{
    int wrong = 0;

    (void)state;
    for (int spoofing = 0; spoofing < 2; spoofing++) { /* O14: on or off */
        for (size_t i = 0; i < ARRAY_LEN(owners); i++) {
            struct ip_lab *lab = ip_lab_new();
            const struct owner_row *row = &owners[i];

            lab->cfg.spoofing = spoofing;
            if (!row->handler)
                lab->ev.on_echo = NULL;
            ip_lab_start(lab);
            lab->in_echo = row->in_echo;
            lab->verdict = row->verdict;
            ping(lab, row->dst, "payload", 7);
            if (lab->echoes != row->calls || lab->outs != row->replies ||
                ip_lab_count(lab, row->counted) != 1) {
                print_error("%s: %u calls, %zu packets, %s not counted\n", row->id, lab->echoes, lab->outs,
                            row->counted);
                wrong++;
            }
            assert_requests_add_up(lab);
            ip_lab_free(lab);
        }
    }
    assert_int_equal(wrong, 0);
}

static void temporary_addresses_answer_as_configured(void **state) /* icmp.md 2.3, echo_temporary */
{
    static const struct {
        enum stack_echo_temporary mode;
        unsigned v4, v6;
    } rows[] = { { ECHO_TEMPORARY_COMPAT, 0, 1 },
                 { ECHO_TEMPORARY_SUPPRESS, 0, 0 },
                 { ECHO_TEMPORARY_REPLY, 1, 1 } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct ip_lab *lab = ip_lab_new();

        lab->cfg.echo_temporary = rows[i].mode;
        lab->ev.on_echo = NULL;
        ip_lab_start(lab);
        ping(lab, LAB_TARGET, "x", 1);
        assert_int_equal(lab->outs, rows[i].v4);
        ping(lab, LAB_TARGET6, "x", 1);
        assert_int_equal(lab->outs, rows[i].v4 + rows[i].v6);
        ip_lab_free(lab);
    }
}

static void verbs_say_what_happened(void **state) /* icmp.md O16, O18, O19, W4, W6 */
{
    struct ip_lab *lab = *state;

    lab->in_echo = reply_twice;
    ping(lab, LAB_TARGET, "x", 1);
    assert_int_equal(lab->results[0], EV_SENT);
    assert_int_equal(lab->results[1], EV_ALREADY);
    assert_int_equal(lab->results[2], EV_ALREADY);
    assert_int_equal(lab->results[3], EV_ALREADY);
    assert_int_equal(echo_reply(lab->echo_ptr), EV_STALE); /* after the callback */
    lab->in_echo = reply_on_a_copy;
    ping(lab, LAB_TARGET, "x", 1);
    assert_int_equal(lab->results[0], EV_STALE);
    assert_int_equal(lab->results[1], 0);
    assert_int_equal(lab->outs, 1);
    assert_int_equal(ip_lab_count(lab, "icmp.stale"), 3);
}

static void the_request_shows_what_was_received(void **state) /* icmp.md 3.1 */
{
    struct ip_lab *lab = *state;
    static const uint8_t payload[] = "a payload that must be seen";

    for (int v6 = 0; v6 < 2; v6++) {
        struct ip_addr src, dst;

        pkt_echo(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, v6 ? LAB_TARGET6 : LAB_TARGET, 0xbeef, 0xf00d, payload,
                 sizeof(payload));
        if (v6) {
            put_be16(pkt.data, 0x62a0);
            pkt.data[7] = 9;
        } else {
            pkt.data[1] = 0x2a;
            pkt.data[6] = 0x40;
            pkt.data[8] = 9;
            pkt_fix_ip(&pkt);
        }
        ip_lab_input(lab, &pkt);
        ip_parse(v6 ? LAB_CLIENT6 : LAB_CLIENT, &src);
        ip_parse(v6 ? LAB_TARGET6 : LAB_TARGET, &dst);
        assert_true(ip_equal(&lab->echo.src, &src) && ip_equal(&lab->echo.dst, &dst));
        assert_int_equal(lab->echo.id, 0xbeef);
        assert_int_equal(lab->echo.seq, 0xf00d);
        assert_int_equal(lab->echo.ttl, 9);
        assert_int_equal(lab->echo.tos, 0x2a);
        assert_true(lab->echo.df);
        assert_int_equal(lab->echo.flags, ECHO_TEMPORARY);
        assert_int_equal(lab->echo.payload_len, sizeof(payload));
        assert_int_equal(lab->echo.ip_header_len, v6 ? 40 : 20);
        assert_int_equal(lab->echo.rx_time_us, lab->now_us);
    }
    assert_null(lab->echo_ptr->payload); /* W1: gone with the callback */
}

/* ---- the built-in reply -------------------------------------------------------------------------------------------------------- */

static void the_reply_is_the_request_turned_round(void **state) /* icmp.md R1 to R7 */
{
    struct ip_lab *lab = *state;
    uint8_t payload[1400];

    for (size_t i = 0; i < sizeof(payload); i++)
        payload[i] = (uint8_t)(i * 7);
    lab->in_echo = reply_once;
    for (int v6 = 0; v6 < 2; v6++) {
        for (size_t len = 0; len <= sizeof(payload); len += 100) {
            struct ip_addr src, dst;
            struct pkt_view v;

            ip_lab_clear(lab);
            pkt_echo(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, v6 ? LAB_TARGET6 : LAB_TARGET, 0xbeef, 0xf00d,
                     payload, len);
            if (v6)
                put_be16(pkt.data, 0x6ff0);
            else {
                pkt.data[1] = 0xff;
                pkt.data[6] = len % 200 == 0 ? 0x40 : 0;
                pkt_fix_ip(&pkt);
            }
            pkt.data[v6 ? 7 : 8] = 200;
            if (!v6)
                pkt_fix_ip(&pkt);
            ip_lab_input(lab, &pkt);
            v = ip_lab_out(lab, 0);
            ip_parse(v6 ? LAB_CLIENT6 : LAB_CLIENT, &dst);
            ip_parse(v6 ? LAB_TARGET6 : LAB_TARGET, &src);
            assert_true(ip_equal(&v.src, &src) && ip_equal(&v.dst, &dst));
            assert_int_equal(v.type, v6 ? 129 : 0);
            assert_int_equal(v.word, 0xbeeff00d);
            assert_int_equal(v.ttl, 64);
            assert_int_equal(v.tos, 0xff);
            assert_int_equal(v.len, len);
            assert_memory_equal(v.data, payload, len);
            if (!v6) {
                assert_int_equal(v.df, len % 200 == 0);
                assert_int_equal(v.id, 0x4321);
            }
            assert_int_equal(lab->results[0], EV_SENT);
        }
    }
    assert_int_equal(ip_lab_count(lab, "stack.payload_copied_bytes"), 0); /* icmp.md R11 */
}

static void a_reply_without_any_address_of_ours(void **state) /* icmp.md R2, J2: no address lookup */
{
    struct ip_lab *lab = ip_lab_new();
    struct pkt_view v;
    struct ip_addr dst;

    (void)state;
    lab->cfg.addresses = 0;
    ip_lab_start(lab);
    lab->in_echo = reply_once;
    ping(lab, LAB_TARGET, "x", 1);
    assert_int_equal(lab->results[0], EV_SENT);
    lab->in_echo = reject;
    ping(lab, LAB_TARGET, "x", 1);
    v = ip_lab_out(lab, 1);
    ip_parse(LAB_TARGET, &dst);
    assert_true(ip_equal(&v.src, &dst));
    ping(lab, "224.0.0.1", "x", 1); /* R1: nobody to answer as */
    lab->in_echo = NULL;
    ping(lab, "224.0.0.1", "x", 1);
    assert_int_equal(lab->outs, 2);
    assert_int_equal(ip_lab_count(lab, "icmp.tx.no_route"), 1);
    ip_lab_free(lab);
}

static void replies_larger_than_the_mtu(void **state) /* icmp.md R8 */
{
    struct ip_lab *lab = *state;
    static uint8_t payload[2000], joined[3000];
    struct pkt_view first;

    stack_set_mtu(lab->s, 1280);
    lab->cfg.mtu_bytes = 1280;
    lab->in_echo = reply_once;
    pkt_echo(&pkt, LAB_CLIENT, LAB_TARGET, 1, 1, payload, sizeof(payload));
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->results[0], EV_SENT);
    assert_int_equal(ip_lab_join(lab, 0, lab->outs, joined, sizeof(joined), &first), sizeof(payload) + 8);
    assert_int_equal(first.id, 0x4321);
    ip_lab_clear(lab);
    pkt.data[6] = 0x40; /* DF */
    pkt_fix_ip(&pkt);
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->results[0], EV_DROPPED);
    assert_int_equal(lab->outs, 0);
    assert_int_equal(ip_lab_count(lab, "icmp.tx.dropped"), 1);
    pkt_echo(&pkt, LAB_CLIENT6, LAB_TARGET6, 1, 1, payload, sizeof(payload));
    ip_lab_input(lab, &pkt);
    assert_int_equal(ip_lab_join(lab, 0, lab->outs, joined, sizeof(joined), &first), sizeof(payload) + 8);
    assert_requests_add_up(lab);
}

static void a_reply_counts_only_when_the_device_took_it(void **state) /* icmp.md R9, R10 */
{
    struct ip_lab *lab = *state;

    lab->emit_result = -11;
    lab->in_echo = reply_once;
    ping(lab, LAB_TARGET, "x", 1);
    assert_int_equal(lab->results[0], EV_DROPPED);
    assert_int_equal(ip_lab_count(lab, "icmp.tx.echo_reply"), 0);
    assert_requests_add_up(lab);
}

static void requests_to_many(void **state) /* icmp.md B1 to B6 */
{
    static const struct {
        const char *id, *dst, *from;
    } rows[] = {
        { "B1", "10.0.0.255", LAB_GATEWAY },  { "B2", "255.255.255.255", LAB_GATEWAY },
        { "B3", "224.0.0.1", LAB_GATEWAY },   { "B4", "ff02::1", LAB_GATEWAY6 },
        { "B5", "224.0.0.251", NULL },        { "B5 v6", "ff02::fb", NULL },
        { "B6", "10.0.1.255", "10.0.1.255" },
    };
    struct ip_lab *lab = ip_lab_new();

    (void)state;
    lab->cfg.echo_temporary = ECHO_TEMPORARY_REPLY;
    ip_lab_start(lab);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct ip_addr from;
        struct pkt_view v;

        ip_lab_clear(lab);
        ping(lab, rows[i].dst, "x", 1);
        if (lab->outs != (rows[i].from != NULL))
            fail_msg("%s: %zu packets", rows[i].id, lab->outs);
        if (rows[i].from == NULL)
            continue;
        v = ip_lab_out(lab, 0);
        ip_parse(rows[i].from, &from);
        if (!ip_equal(&v.src, &from))
            fail_msg("%s: another source", rows[i].id);
    }
    assert_int_equal(ip_lab_count(lab, "ip.bad_dst"), 2);
    ip_lab_free(lab);
}

/* ---- limits --------------------------------------------------------------------------------------------------------------------- */

static void replies_are_not_limited_but_errors_are(void **state) /* icmp.md L4, L5, L7 */
{
    struct ip_lab *lab = ip_lab_new();

    (void)state;
    lab->cfg.icmp_errors_burst = 5;
    ip_lab_start(lab);
    for (int i = 0; i < 100; i++)
        ping(lab, LAB_GATEWAY, "x", 1);
    assert_int_equal(lab->outs, 100);
    lab->in_echo = reject;
    for (int i = 0; i < 6; i++) {
        ping(lab, LAB_TARGET, "x", 1);
        assert_int_equal(lab->results[0], i < 5 ? EV_SENT : EV_RATE_LIMITED);
    }
    assert_int_equal(lab->outs, 105);
    assert_int_equal(ip_lab_count(lab, "icmp.tx.rate_limited"), 1);
    for (int i = 0; i < 6; i++)
        ping(lab, LAB_TARGET6, "x", 1);
    assert_int_equal(lab->outs, 105); /* L1: both families share the bucket */
    lab->in_echo = NULL;
    for (int i = 0; i < 6; i++)
        ping(lab, LAB_GATEWAY, "x", 1);
    assert_int_equal(lab->outs, 111);
    assert_requests_add_up(lab);
    ip_lab_free(lab);
}

static void the_bucket_can_be_shut_and_opened_wide(void **state) /* icmp.md L8 */
{
    static const struct {
        uint32_t rate, burst;
        unsigned sent;
    } rows[] = { { 0, 50, 0 }, { 1000, 0, 0 }, { UINT32_MAX, 50, 300 } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct ip_lab *lab = ip_lab_new();

        lab->cfg.icmp_errors_per_second = rows[i].rate;
        lab->cfg.icmp_errors_burst = rows[i].burst;
        ip_lab_start(lab);
        lab->in_echo = reject;
        for (int k = 0; k < 300; k++)
            ping(lab, LAB_TARGET, "x", 1);
        assert_int_equal(lab->outs, rows[i].sent);
        ip_lab_free(lab);
    }
}

/* ---- reply later ------------------------------------------------------------------------------------------------------------------ */

static void a_detached_request_is_answered_later_and_once(void **state) /* icmp.md A1, A4 */
{
    struct ip_lab *lab = *state;

    lab->in_echo = detach;
    for (int v6 = 0; v6 < 2; v6++) {
        ip_lab_clear(lab);
        ping(lab, v6 ? LAB_TARGET6 : LAB_TARGET, "payload", 7);
        assert_true(lab->token != 0);
        assert_int_equal(lab->outs, 0);
        memset(stack_rx_slot(lab->s), 0xdd, 2000); /* the packet's own memory is long reused */
        ip_lab_run_until(lab, lab->now_us + 500000);
        assert_int_equal(complete(lab, lab->token, true, REJECT_SILENT), EV_SENT);
        assert_memory_equal(ip_lab_out(lab, 0).data, "payload", 7);
        assert_int_equal(ip_lab_out(lab, 0).word, 0x12340007);
        assert_int_equal(complete(lab, lab->token, true, REJECT_SILENT), EV_STALE);
        ping(lab, v6 ? LAB_TARGET6 : LAB_TARGET, "payload", 7);
        assert_int_equal(complete(lab, lab->token, false, REJECT_HOST_UNREACH), EV_SENT);
        assert_int_equal(ip_lab_out(lab, 1).type, v6 ? 1 : 3);
        assert_memory_equal(ip_lab_out(lab, 1).data, pkt.data, pkt.len);
    }
    assert_int_equal(lab->outs, 2);
    assert_int_equal(ip_lab_in_use(lab, "echo") + ip_lab_in_use(lab, "chunk2"), 0);
}

static void tokens_that_nobody_gave_are_stale(void **state) /* icmp.md A4 */
{
    static const echo_token tokens[] = {
        0, 1, UINT64_MAX, (uint64_t)1 << 32, (uint64_t)1 << 32 | 4097, (uint64_t)2 << 32 | 1
    };
    struct ip_lab *lab = *state;

    lab->in_echo = detach;
    ping(lab, LAB_TARGET, "x", 1);
    for (size_t i = 0; i < ARRAY_LEN(tokens); i++)
        assert_int_equal(complete(lab, tokens[i], true, REJECT_SILENT), EV_STALE);
    assert_int_equal(lab->outs, 0);
}

static void tokens_live_ten_seconds(void **state) /* icmp.md A2 */
{
    struct ip_lab *lab = *state;

    lab->in_echo = detach;
    ping(lab, LAB_TARGET, "x", 1);
    ip_lab_run_until(lab, lab->now_us + 9999000);
    assert_int_equal(ip_lab_count(lab, "icmp.detach_expired"), 0);
    ip_lab_run_until(lab, lab->now_us + 1000);
    assert_int_equal(ip_lab_count(lab, "icmp.detach_expired"), 1);
    assert_int_equal(complete(lab, lab->token, true, REJECT_SILENT), EV_STALE);
    assert_int_equal(lab->outs, 0);
    assert_int_equal(ip_lab_in_use(lab, "echo"), 0);
}

static void tokens_are_capped_by_number_and_by_bytes(void **state) /* icmp.md A5 */
{
    static uint8_t payload[60000];

    for (int large = 0; large < 2; large++) {
        struct ip_lab *lab = ip_lab_new();
        unsigned given = 0;

        (void)state;
        lab->cfg.buffer_cap_bytes = 64 << 20;
        ip_lab_start(lab);
        lab->in_echo = detach;
        lab->verdict = ECHO_CONSUMED;
        for (int i = 0; i < 5000; i++) {
            ping(lab, LAB_TARGET, payload, large ? sizeof(payload) : 1);
            given += lab->token != 0;
        }
        assert_int_equal(given, large ? (4u << 20) / 60028 : 4096);
        assert_int_equal(ip_lab_count(lab, "icmp.detach_refused"), 5000 - given);
        assert_requests_add_up(lab);
        ip_lab_run_until(lab, lab->now_us + 11000000);
        assert_int_equal(ip_lab_in_use(lab, "echo"), 0);
        ip_lab_free(lab);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, ip_lab_setup, ip_lab_teardown)
    const struct CMUnitTest tests[] = {
        T(malformed_requests_reach_nobody),
        T(code_and_empty_payload_are_answered),
        cmocka_unit_test(who_answers),
        cmocka_unit_test(temporary_addresses_answer_as_configured),
        T(verbs_say_what_happened),
        T(the_request_shows_what_was_received),
        T(the_reply_is_the_request_turned_round),
        cmocka_unit_test(a_reply_without_any_address_of_ours),
        T(replies_larger_than_the_mtu),
        T(a_reply_counts_only_when_the_device_took_it),
        cmocka_unit_test(requests_to_many),
        cmocka_unit_test(replies_are_not_limited_but_errors_are),
        cmocka_unit_test(the_bucket_can_be_shut_and_opened_wide),
        T(a_detached_request_is_answered_later_and_once),
        T(tokens_that_nobody_gave_are_stale),
        T(tokens_live_ten_seconds),
        cmocka_unit_test(tokens_are_capped_by_number_and_by_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
