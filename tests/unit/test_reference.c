/* test_reference.c - the reference stacks' own tests, re-created (icmp.md section 7). The name of the
 * original stands at each; every one runs for both families. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "ip_lab.h"

#define ID 0x1234

static struct pkt pkt;

struct seen {
    struct forwarder f;
    struct forwarder_request *late; /* kept beyond its callback */
    struct forwarder_request copy;
    unsigned calls;
    uint16_t id;
    uint32_t flags;
    bool replies[3]; /* what Reply() said, call by call */
    int reply_calls; /* to make */
    bool handled;    /* what to return */
    bool on_a_copy;
};

static bool handler(void *arg, struct forwarder_request *r)
{
    struct seen *seen = arg;

    seen->calls++;
    seen->id = r->req->id;
    seen->flags = r->req->flags;
    seen->late = r;
    seen->copy = *r;
    for (int i = 0; i < seen->reply_calls; i++)
        seen->replies[i] = forwarder_reply(seen->on_a_copy ? &seen->copy : r);
    return seen->handled;
}

static struct ip_lab *start(struct seen *seen, bool with_handler)
{
    struct ip_lab *lab = ip_lab_new();

    lab->ev.on_echo = NULL;
    ip_lab_start(lab);
    if (with_handler)
        forwarder_init(&seen->f, lab->s, handler, seen);
    return lab;
}

static void ping(struct ip_lab *lab, bool v6, const char *dst4, const char *dst6)
{
    ip_lab_clear(lab);
    pkt_echo(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, v6 ? dst6 : dst4, ID, 7, "payload", 7);
    ip_lab_input(lab, &pkt);
}

static void default_handler_controls_reply(void **state)
/* TestICMPEchoDefaultHandlerControlsReply; icmp.md O1, O2, O3, O18 */
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        bool v6 = i % 2, with_handler = i / 2 > 0;
        struct seen seen = { .handled = i / 2 == 2 };
        struct ip_lab *lab = start(&seen, with_handler);

        ping(lab, v6, LAB_GATEWAY, LAB_GATEWAY6);
        assert_int_equal(seen.calls, with_handler);
        assert_int_equal(lab->outs, !seen.handled);
        if (with_handler) {
            assert_int_equal(seen.id, ID); /* the local port of gVisor */
            assert_false(forwarder_reply(seen.late));
            assert_int_equal(lab->outs, !seen.handled);
        }
        ip_lab_free(lab);
    }
}

static void no_reply_seen(void *user, const struct icmp_reply *r)
{
    (void)r;
    ++*(unsigned *)user;
}

static void registered_endpoint_does_not_suppress_reply(void **state)
/* TestICMPEchoRegisteredEndpointDoesNotSuppressReply; icmp.md O4 */
{
    (void)state;
    for (int v6 = 0; v6 < 2; v6++) {
        struct seen seen = { .handled = true };
        struct ip_lab *lab = start(&seen, true);
        struct icmp_bind b = { .family = v6 ? IP_FAMILY_6 : IP_FAMILY_4, .id = ID };
        struct icmp_endpoint *e;
        unsigned received = 0;

        ip_parse(v6 ? LAB_GATEWAY6 : LAB_GATEWAY, &b.local);
        assert_int_equal(icmp_endpoint_open(lab->s, &b, no_reply_seen, &received, &e), 0);
        ping(lab, v6, LAB_GATEWAY, LAB_GATEWAY6);
        assert_int_equal(seen.calls + received, 0);
        assert_int_equal(lab->outs, 1);
        ip_lab_free(lab);
    }
}

static void temporary_address_suppresses_reply(void **state)
/* TestICMPEchoTemporaryAddressSuppressesReply; icmp.md O8. Spoofing is on, so that there is a way back: what
 * keeps the reply in is the rule, and with the rule off the same packet is answered. */
{
    (void)state;
    for (int mode = 0; mode < 2; mode++) {
        struct seen seen = { .handled = false };
        struct ip_lab *lab = ip_lab_new();

        lab->ev.on_echo = NULL;
        lab->cfg.spoofing = true;
        lab->cfg.echo_temporary = mode == 0 ? ECHO_TEMPORARY_COMPAT : ECHO_TEMPORARY_REPLY;
        ip_lab_start(lab);
        ping(lab, false, LAB_TARGET, LAB_TARGET6);
        assert_int_equal(lab->outs, mode);
        assert_int_equal(seen.calls, 0);
        assert_int_equal(ip_lab_count(lab, "icmp4.suppressed_temporary"), mode == 0);
        ip_lab_free(lab);
    }
}

static void forwarder_reply_once(void **state)
/* TestICMPEchoForwarderReply; icmp.md O16, O17, O18, O19 */
{
    (void)state;
    for (int v6 = 0; v6 < 2; v6++) {
        struct seen seen = { .reply_calls = 2 };
        struct ip_lab *lab = start(&seen, true);

        ping(lab, v6, LAB_GATEWAY, LAB_GATEWAY6);
        assert_true(seen.replies[0] && seen.replies[1]); /* idempotent: it is sent */
        assert_int_equal(lab->outs, 1);
        assert_false(forwarder_reply(seen.late));
        seen.on_a_copy = true;
        seen.handled = true;
        ping(lab, v6, LAB_GATEWAY, LAB_GATEWAY6);
        assert_false(seen.replies[0] || seen.replies[1]);
        assert_false(forwarder_reply(&seen.copy));
        assert_int_equal(lab->outs, 0);
        ip_lab_free(lab);
    }
}

static void forwarder_consumes_without_reply(void **state)
/* TestICMPEchoForwarderConsumesWithoutReply; icmp.md O3, W5 */
{
    (void)state;
    for (int v6 = 0; v6 < 2; v6++) {
        struct seen seen = { .handled = true };
        struct ip_lab *lab = start(&seen, true);

        ping(lab, v6, LAB_GATEWAY, LAB_GATEWAY6);
        assert_int_equal(seen.calls, 1);
        assert_false(forwarder_reply(seen.late));
        assert_int_equal(lab->outs, 0);
        assert_int_equal(ip_lab_count(lab, "icmp.handler_consumed"), 1);
        ip_lab_free(lab);
    }
}

static void forwarder_reply_to_a_reply(void **state)
/* TestICMPForwarderReplyNonEchoRequest; icmp.md O20 */
{
    (void)state;
    for (int v6 = 0; v6 < 2; v6++) {
        struct seen seen = { .reply_calls = 1 };
        struct ip_lab *lab = start(&seen, true);

        pkt_icmp(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, v6 ? LAB_GATEWAY6 : LAB_GATEWAY, v6 ? 129 : 0, 0,
                 ID << 16, "x", 1);
        ip_lab_input(lab, &pkt);
        assert_int_equal(seen.calls, 1);
        assert_false(seen.replies[0]);
        assert_int_equal(lab->outs, 0);
        ip_lab_free(lab);
    }
}

static void forwarder_reply_overrides_suppression(void **state)
/* TestICMPEchoForwarderReplyOverridesTemporaryAddressSuppression; icmp.md O11, R2: also with no address at
 * all */
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        bool v6 = i & 1, spoofing = i & 2, addresses = i & 4;
        struct seen seen = { .reply_calls = 1 };
        struct ip_lab *lab = ip_lab_new();
        struct ip_addr target;
        struct pkt_view v;

        lab->ev.on_echo = NULL;
        lab->cfg.spoofing = spoofing; /* O14 */
        if (!addresses)
            lab->cfg.addresses = 0;
        ip_lab_start(lab);
        forwarder_init(&seen.f, lab->s, handler, &seen);
        ping(lab, v6, LAB_TARGET, LAB_TARGET6);
        assert_true(seen.replies[0]);
        assert_int_equal(seen.flags, ECHO_TEMPORARY);
        assert_int_equal(lab->outs, 1);
        v = ip_lab_out(lab, 0);
        ip_parse(v6 ? LAB_TARGET6 : LAB_TARGET, &target);
        assert_true(ip_equal(&v.src, &target));
        assert_int_equal(ip_lab_in_use(lab, "address"), addresses ? 4 : 0); /* R2: nothing is registered */
        ip_lab_free(lab);
    }
}

static void icmp_rate_limit(void **state) /* TestIcmpRateLimit; icmp.md L4, L7 */
{
    (void)state;
    for (int v6 = 0; v6 < 2; v6++) {
        struct ip_lab *lab = ip_lab_new();

        lab->cfg.icmp_errors_burst = 5;
        lab->ev.on_udp_request = NULL; /* every port is closed */
        lab->ev.on_echo = NULL;
        ip_lab_start(lab);
        for (int i = 0; i < 6; i++) {
            ping(lab, v6, LAB_GATEWAY, LAB_GATEWAY6);
            assert_int_equal(lab->outs, 1);
        }
        for (int i = 0; i < 6; i++) {
            ip_lab_clear(lab);
            pkt_udp(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, 4000, v6 ? LAB_GATEWAY6 : LAB_GATEWAY, 9, "x", 1);
            ip_lab_input(lab, &pkt);
            assert_int_equal(lab->outs, i < 5);
        }
        ip_lab_free(lab);
    }
}

static void checksum_validation(void **state)
/* ipv6 TestICMPChecksumValidationSimple, WithPayload, MultipleViews; TestICMPCounts; icmp.md V4, 2.8, U1 to
 * U6 */
{
    static const struct {
        uint8_t type, code, ttl;
        const char *counter;
        bool v6;
    } types[] = {
        { 8, 0, 64, "icmp4.rx.echo_request", false },    { 0, 0, 64, "icmp4.rx.echo_reply", false },
        { 3, 1, 64, "icmp4.rx.dst_unreachable", false }, { 3, 4, 64, "icmp4.rx.packet_too_big", false },
        { 4, 0, 64, "icmp4.rx.query", false },           { 5, 0, 64, "icmp4.rx.redirect", false },
        { 11, 0, 64, "icmp4.rx.time_exceeded", false },  { 12, 0, 64, "icmp4.rx.param_problem", false },
        { 13, 0, 64, "icmp4.rx.query", false },          { 18, 0, 64, "icmp4.rx.query", false },
        { 99, 0, 64, "icmp4.rx.invalid", false },        { 128, 0, 64, "icmp6.rx.echo_request", true },
        { 129, 0, 64, "icmp6.rx.echo_reply", true },     { 1, 4, 64, "icmp6.rx.dst_unreachable", true },
        { 2, 0, 64, "icmp6.rx.packet_too_big", true },   { 3, 0, 64, "icmp6.rx.time_exceeded", true },
        { 4, 0, 64, "icmp6.rx.param_problem", true },    { 133, 0, 255, "icmp6.rx.query", true },
        { 134, 0, 255, "icmp6.rx.query", true },         { 135, 0, 255, "icmp6.rx.query", true },
        { 136, 0, 255, "icmp6.rx.query", true },         { 137, 0, 255, "icmp6.rx.redirect", true },
        { 133, 0, 254, "icmp6.rx.invalid", true },       { 136, 1, 255, "icmp6.rx.invalid", true },
        { 130, 0, 1, "icmp6.rx.invalid", true }, /* no router alert, not link-local */
        { 200, 0, 64, "icmp6.rx.unrecognized", true },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(types) * 2; i++) {
        size_t k = i / 2;
        bool bad = i % 2;
        struct ip_lab *lab = ip_lab_new();
        const char *invalid = types[k].v6 ? "icmp6.rx.invalid" : "icmp4.rx.invalid";
        static uint8_t payload[200];

        lab->ev.on_echo = NULL;
        ip_lab_start(lab);
        pkt_icmp(&pkt, types[k].v6 ? LAB_CLIENT6 : LAB_CLIENT, types[k].v6 ? LAB_GATEWAY6 : LAB_GATEWAY,
                 types[k].type, types[k].code, 0, payload, sizeof(payload));
        pkt.data[types[k].v6 ? 7 : 8] = types[k].ttl;
        pkt_fix_ip(&pkt);
        if (bad)
            pkt.data[pkt.len - 1] ^= 1;
        ip_lab_input(lab, &pkt);
        if (ip_lab_count(lab, bad ? invalid : types[k].counter) != 1 ||
            (bad && strcmp(types[k].counter, invalid) != 0 && ip_lab_count(lab, types[k].counter) != 0))
            fail_msg("type %u code %u, %s checksum: not %s", types[k].type, types[k].code,
                     bad ? "bad" : "good", bad ? invalid : types[k].counter);
        if (types[k].type != 8 && types[k].type != 128)
            assert_int_equal(lab->outs, 0); /* U5, U6: never answered */
        ip_lab_free(lab);
    }
}

static void group_discovery_is_counted_if_sound(void **state) /* icmp.md U2, U1 */
{
    static const uint8_t alert[] = { 58, 0, 5, 2, 0, 0, 1, 0 }, atomic[] = { 58, 0, 0, 0, 0, 0, 0, 1 };
    struct ip_lab *lab = *state;

    pkt_icmp(&pkt, "fe80::2", "ff02::1", 130, 0, 0, "0123456789abcdef", 16);
    pkt.data[7] = 1;
    ip_lab_input(lab, &pkt);
    assert_int_equal(ip_lab_count(lab, "icmp6.rx.invalid"), 1);
    pkt_insert_ext(&pkt, 0, alert, sizeof(alert), 0);
    ip_lab_input(lab, &pkt);
    assert_int_equal(ip_lab_count(lab, "icmp6.rx.query"), 1);
    pkt_icmp(&pkt, LAB_CLIENT6, LAB_GATEWAY6, 135, 0, 0, "0123456789abcdef", 16);
    pkt.data[7] = 255;
    pkt_insert_ext(&pkt, 44, atomic, sizeof(atomic), 0); /* F9: neighbour discovery in fragments, even one */
    ip_lab_input(lab, &pkt);
    assert_int_equal(ip_lab_count(lab, "icmp6.rx.invalid"), 2);
    assert_int_equal(lab->echoes + lab->outs, 0);
}

static void ping_multicast_broadcast(void **state) /* TestPingMulticastBroadcast; icmp.md B1 to B4, B7, R1 */
{
    static const char *const many[] = { "10.0.0.255", "10.0.0.0", "255.255.255.255", "224.0.0.1", "ff02::1" };

    (void)state;
    for (int ignore = 0; ignore < 2; ignore++) {
        struct ip_lab *lab = ip_lab_new();

        lab->cfg.echo_ignore_broadcast = ignore;
        lab->ev.on_echo = NULL;
        ip_lab_start(lab);
        for (size_t i = 0; i < ARRAY_LEN(many); i++) {
            bool v6 = strchr(many[i], ':') != NULL;
            struct ip_addr gateway;
            struct pkt_view v;

            ping(lab, v6, many[i], many[i]);
            assert_int_equal(lab->outs, !ignore);
            if (ignore)
                continue;
            v = ip_lab_out(lab, 0);
            ip_parse(v6 ? LAB_GATEWAY6 : LAB_GATEWAY, &gateway);
            assert_true(ip_equal(&v.src, &gateway));
        }
        ping(lab, false, LAB_GATEWAY, NULL);
        assert_int_equal(lab->outs, 1);
        ip_lab_free(lab);
    }
}

static void replies_have_a_bucket_of_their_own_if_they_want(void **state) /* icmp.md L4, L5, L1 */
{
    struct seen seen = { .reply_calls = 1 };
    struct ip_lab *lab = ip_lab_new();

    (void)state;
    lab->ev.on_echo = NULL;
    lab->ev.on_udp_request = NULL;
    lab->cfg.echo_reply_limited = true;
    lab->cfg.echo_replies_burst = 3;
    lab->cfg.echo_replies_per_second = 10;
    ip_lab_start(lab);
    forwarder_init(&seen.f, lab->s, handler, &seen);
    for (int i = 0; i < 5; i++) {
        ping(lab, i % 2, LAB_GATEWAY, LAB_GATEWAY6); /* both families share it */
        assert_int_equal(lab->outs, i < 3);
        assert_int_equal(seen.replies[0], i < 3); /* L5: false is not sent */
    }
    assert_int_equal(ip_lab_count(lab, "icmp.tx.rate_limited"), 2);
    ip_lab_clear(lab);
    pkt_udp(&pkt, LAB_CLIENT, 4000, LAB_GATEWAY, 9, "x", 1); /* pings do not starve errors */
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->outs, 1);
    ip_lab_run_until(lab, lab->now_us + 100000); /* one more each 100 ms */
    for (int i = 0; i < 2; i++) {
        ping(lab, false, LAB_GATEWAY, NULL);
        assert_int_equal(lab->outs, i == 0);
    }
    stack_set_echo_limits(lab->s, false, 0, 0); /* at run time */
    ping(lab, false, LAB_GATEWAY, NULL);
    assert_int_equal(lab->outs, 1);
    stack_set_icmp_limits(lab->s, 0, 0);
    ip_lab_clear(lab);
    pkt_udp(&pkt, LAB_CLIENT, 4000, LAB_GATEWAY, 9, "x", 1);
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->outs, 0);
    ip_lab_free(lab);
}

static void a_way_is_looked_for_before_a_token_is_spent(void **state) /* icmp.md L6, R3 */
{
    struct ip_lab *lab = ip_lab_new();

    (void)state;
    lab->cfg.addresses = 0;
    lab->cfg.icmp_errors_burst = 1;
    lab->ev.on_udp_request = NULL;
    lab->ev.on_echo = NULL;
    ip_lab_start(lab);
    for (int i = 0; i < 3; i++) { /* a reply and an error that nobody can send */
        ping(lab, i % 2, "224.0.0.1", "ff02::1");
        assert_int_equal(lab->outs, 0);
    }
    assert_int_equal(ip_lab_count(lab, "icmp.tx.no_route"), 3);
    assert_int_equal(ip_lab_count(lab, "icmp.tx.rate_limited"), 0);
    pkt_udp(&pkt, LAB_CLIENT, 4000, LAB_TARGET, 9, "x", 1);
    ip_lab_input(lab, &pkt);
    assert_int_equal(lab->outs, 1); /* the token was still there */
    ip_lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(default_handler_controls_reply),
        cmocka_unit_test(registered_endpoint_does_not_suppress_reply),
        cmocka_unit_test(temporary_address_suppresses_reply),
        cmocka_unit_test(forwarder_reply_once),
        cmocka_unit_test(forwarder_consumes_without_reply),
        cmocka_unit_test(forwarder_reply_to_a_reply),
        cmocka_unit_test(forwarder_reply_overrides_suppression),
        cmocka_unit_test(icmp_rate_limit),
        cmocka_unit_test(checksum_validation),
        cmocka_unit_test_setup_teardown(group_discovery_is_counted_if_sound, ip_lab_setup, ip_lab_teardown),
        cmocka_unit_test(ping_multicast_broadcast),
        cmocka_unit_test(replies_have_a_bucket_of_their_own_if_they_want),
        cmocka_unit_test(a_way_is_looked_for_before_a_token_is_spent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
