/* test_echo_owner.c - who owns an echo request: endpoints, handlers, observers, switches (icmp.md 2.1, 2.3,
 * 3.1, 3.3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>

#include "ip_lab.h"

#define ID 0x1234

static struct pkt pkt;

static const char *client_of(const char *dst)
{
    return strchr(dst, ':') != NULL ? LAB_CLIENT6 : LAB_CLIENT;
}

static void ping(struct ip_lab *lab, const char *dst)
{
    ip_lab_clear(lab);
    pkt_echo(&pkt, client_of(dst), dst, ID, 7, "payload", 7);
    ip_lab_input(lab, &pkt);
}

static struct ip_addr addr(const char *text)
{
    struct ip_addr a = { 0 };

    assert_int_equal(ip_parse(text, &a), 0);
    return a;
}

static void reply_once(struct ip_lab *lab, struct echo_req *r)
{
    lab->results[0] = (int)echo_reply(r);
}

/* ---- endpoints ----------------------------------------------------------------------------------------- */

static unsigned replies_seen;
static struct icmp_reply last_reply;

static void on_icmp_reply(void *user, const struct icmp_reply *r)
{
    (void)user;
    replies_seen++;
    last_reply = *r;
}

static struct icmp_endpoint *open_endpoint(struct ip_lab *lab, const char *local, uint16_t id)
{
    struct icmp_bind b = { .local = addr(local), .id = id };
    struct icmp_endpoint *e = NULL;

    b.family = ip_is4(&b.local) ? IP_FAMILY_4 : IP_FAMILY_6;
    assert_int_equal(icmp_endpoint_open(lab->s, &b, on_icmp_reply, lab, &e), 0);
    return e;
}

static const struct row {
    const char *id, *dst;
    uint16_t endpoint; /* 0: none is bound to dst */
    bool handler, consume, shadows;
    unsigned calls, replies;
} rows[] = {
    { "icmp.md O4", LAB_GATEWAY, ID, true, true, true, 0, 1 },
    { "icmp.md O4 v6", LAB_GATEWAY6, ID, true, true, true, 0, 1 },
    { "icmp.md O4, endpoints see no requests", LAB_GATEWAY, ID, true, true, false, 1, 0 },
    { "icmp.md O5", LAB_GATEWAY, ID, false, false, true, 0, 1 },
    { "icmp.md O5 v6", LAB_GATEWAY6, ID, false, false, true, 0, 1 },
    { "icmp.md O6", LAB_GATEWAY, ID + 1, true, true, true, 1, 0 },
    { "icmp.md O6 v6", LAB_GATEWAY6, ID + 1, true, true, true, 1, 0 },
    { "icmp.md O15", LAB_TARGET, ID, true, true, true, 0, 0 },
    { "icmp.md O15 v6", LAB_TARGET6, ID, true, true, true, 0, 1 },
    { "icmp.md O15, endpoints see no requests", LAB_TARGET, ID, true, true, false, 1, 0 },
};

static void an_endpoint_shadows_requests_with_its_id(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct row *row = &rows[i];
        struct ip_lab *lab = ip_lab_new();
        uint64_t shadowed;

        lab->cfg.echo_endpoint_shadows = row->shadows;
        if (!row->handler)
            lab->ev.on_echo = NULL;
        ip_lab_start(lab);
        lab->verdict = row->consume ? ECHO_CONSUMED : ECHO_PASS;
        replies_seen = 0;
        if (row->endpoint != 0)
            open_endpoint(lab, row->dst, row->endpoint);
        ping(lab, row->dst);
        shadowed = ip_lab_count(lab, "icmp.endpoint.malformed");
        if (lab->echoes != row->calls || lab->outs != row->replies || replies_seen != 0 ||
            shadowed != (row->endpoint == ID && row->shadows))
            fail_msg("%s: %u calls, %zu packets, %u at the endpoint", row->id, lab->echoes, lab->outs,
                     replies_seen);
        ip_lab_free(lab);
    }
}

static void an_endpoint_gets_replies_with_their_marks(
    void **state) /* icmp.md section 1, N5; TestReceiveControlMessages */
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        const char *gateway = v6 ? LAB_GATEWAY6 : LAB_GATEWAY, *target = v6 ? LAB_TARGET6 : LAB_TARGET;
        struct icmp_endpoint *e = open_endpoint(lab, gateway, 77);
        struct icmp_request r = {
            .to = addr(target), .seq = 3, .payload = "abc", .payload_len = 3, .ttl = 9
        };
        struct pkt_view v;

        ip_lab_clear(lab);
        replies_seen = 0;
        assert_int_equal(icmp_endpoint_send(e, &r), EV_SENT);
        v = ip_lab_out(lab, 0);
        assert_int_equal(v.type, v6 ? 128 : 8);
        assert_int_equal(v.word, 77u << 16 | 3);
        assert_int_equal(v.ttl, 9);
        pkt_icmp(&pkt, target, gateway, v6 ? 129 : 0, 0, 77u << 16 | 3, "abc", 3);
        if (v6) {
            put_be16(pkt.data, 0x62a0);
            pkt.data[7] = 33;
        } else {
            pkt.data[1] = 0x2a;
            pkt.data[8] = 33;
            pkt_fix_ip(&pkt);
        }
        ip_lab_input(lab, &pkt);
        assert_int_equal(replies_seen, 1);
        assert_int_equal(last_reply.seq, 3);
        assert_int_equal(last_reply.ttl, 33);
        assert_int_equal(last_reply.tos, 0x2a);
        assert_int_equal(last_reply.payload_len, 3);
        assert_true(ip_equal(&last_reply.from, &r.to));
        icmp_endpoint_close(e);
        ip_lab_input(lab, &pkt); /* nobody's now */
        assert_int_equal(replies_seen, 1);
        assert_int_equal(lab->echoes, 0); /* replies are not subscribed to by default (O20) */
    }
    assert_int_equal(ip_lab_in_use(lab, "ping"), 0);
}

static void the_most_exact_endpoint_gets_the_reply(void **state) /* icmp.md N3, N5 */
{
    struct ip_lab *lab = *state;
    static const bool binds[4][2] = { { false, false }, { true, false }, { false, true }, { true, true } };
    struct icmp_endpoint *e[4];
    int user[4] = { 0 };

    for (int i = 0; i < 4; i++) { /* from the least exact to the most: each takes over from the one before */
        struct icmp_bind b = { .family = IP_FAMILY_4, .id = 5 };

        if (binds[i][0])
            b.local = addr(LAB_GATEWAY);
        if (binds[i][1])
            b.remote = addr(LAB_TARGET);
        assert_int_equal(icmp_endpoint_open(lab->s, &b, on_icmp_reply, &user[i], &e[i]), 0);
        assert_int_equal(icmp_endpoint_open(lab->s, &b, on_icmp_reply, &user[i], &e[i]), -EADDRINUSE);
    }
    for (int i = 3; i >= 0; i--) {
        replies_seen = 0;
        pkt_icmp(&pkt, LAB_TARGET, LAB_GATEWAY, 0, 0, 5u << 16, NULL, 0);
        ip_lab_input(lab, &pkt);
        assert_int_equal(replies_seen, 1);
        icmp_endpoint_close(e[i]);
    }
    ip_lab_input(lab, &pkt);
    assert_int_equal(replies_seen, 1);
}

static void an_endpoint_hears_of_errors_about_its_requests(void **state) /* icmp.md U4, U3 */
{
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        const char *gateway = v6 ? LAB_GATEWAY6 : LAB_GATEWAY, *target = v6 ? LAB_TARGET6 : LAB_TARGET;
        struct icmp_endpoint *e = open_endpoint(lab, gateway, 77);
        struct ip_addr offender = addr(v6 ? "2001:db8::1" : "198.51.100.1");
        static struct pkt sent;

        pkt_echo(&sent, gateway, target, 77, 4, "abc", 3);
        replies_seen = 0;
        pkt_icmp(&pkt, v6 ? "2001:db8::1" : "198.51.100.1", gateway, v6 ? 3 : 11, 0, 0, sent.data, sent.len);
        ip_lab_input(lab, &pkt);
        assert_int_equal(replies_seen, 1);
        assert_true(last_reply.is_error && ip_equal(&last_reply.offender, &offender));
        assert_int_equal(last_reply.seq, 4);
        assert_int_equal(last_reply.type, v6 ? 3 : 11);
        icmp_endpoint_close(e);
    }
    assert_int_equal(lab->echoes, 0); /* U4: never offered to the handler */
}

static void endpoints_are_refused_with_a_reason(void **state)
{
    struct ip_lab *lab = *state;
    struct icmp_endpoint *e;
    struct icmp_bind b = { .family = IP_FAMILY_4, .local = addr(LAB_GATEWAY6), .id = 1 };
    unsigned open = 0;

    assert_int_equal(icmp_endpoint_open(lab->s, &b, on_icmp_reply, lab, &e), -EAFNOSUPPORT);
    stack_set_spoofing(lab->s, false);
    b.local = addr(LAB_TARGET);
    assert_int_equal(icmp_endpoint_open(lab->s, &b, on_icmp_reply, lab, &e), -EADDRNOTAVAIL); /* N2 */
    stack_set_spoofing(lab->s, true);
    for (int i = 0; i < 300; i++) {
        b.id = (uint16_t)i;
        open += icmp_endpoint_open(lab->s, &b, on_icmp_reply, lab, &e) == 0;
    }
    assert_int_equal(open, 256);
}

/* ---- observers ----------------------------------------------------------------------------------------- */

static unsigned seen;
static size_t seen_len;

static void observer(void *arg, const uint8_t *packet, size_t len)
{
    assert_non_null(packet);
    assert_int_equal(*(int *)arg, 42);
    seen++;
    seen_len = len;
}

static void an_observer_sees_and_changes_nothing(void **state) /* icmp.md O7, 2.1 step 3 */
{
    struct ip_lab *lab = *state;
    static struct pkt piece;
    int arg = 42;

    lab->verdict = ECHO_CONSUMED;
    assert_int_equal(stack_observe(lab->s, observer, &arg), 0);
    seen = 0;
    for (int v6 = 0; v6 < 2; v6++)
        ping(lab, v6 ? LAB_GATEWAY6 : LAB_GATEWAY);
    assert_int_equal(lab->echoes, 2);
    assert_int_equal(seen, 2);
    assert_int_equal(seen_len, pkt.len);
    pkt.data[pkt.len - 1] ^= 1; /* the checksum is not looked at yet */
    ip_lab_input(lab, &pkt);
    pkt_echo(&pkt, LAB_CLIENT, "224.0.0.251", ID, 1, NULL, 0); /* nor where it goes */
    ip_lab_input(lab, &pkt);
    pkt_echo(&pkt, "10.0.0.255", LAB_GATEWAY, ID, 1, NULL, 0); /* nor where it comes from */
    ip_lab_input(lab, &pkt);
    assert_int_equal(seen, 5);
    pkt_echo(&pkt, "127.0.0.1", LAB_GATEWAY, ID, 1, NULL, 0); /* but step 2 comes before */
    ip_lab_input(lab, &pkt);
    pkt_echo(&pkt, LAB_CLIENT, LAB_GATEWAY, ID, 1, "12345678", 8);
    pkt_fragment(&pkt, 0, 8, true, 1, &piece); /* and a piece is not a datagram */
    ip_lab_input(lab, &piece);
    assert_int_equal(seen, 5);
    pkt_fragment(&pkt, 8, 8, false, 1, &piece);
    ip_lab_input(lab, &piece);
    assert_int_equal(seen, 6); /* the two together are */
    stack_unobserve(lab->s, observer, &arg);
    ping(lab, LAB_GATEWAY);
    assert_int_equal(seen, 6);
    for (int i = 0; i < 8; i++)
        assert_int_equal(stack_observe(lab->s, observer, &arg), 0);
    assert_int_equal(stack_observe(lab->s, observer, &arg), -ENOBUFS);
}

/* ---- handlers ------------------------------------------------------------------------------------------ */

static void replies_are_offered_to_those_who_ask(
    void **state) /* icmp.md O20; TestICMPForwarderReplyNonEchoRequest */
{
    struct ip_lab *lab = *state;

    lab->in_echo = reply_once;
    for (int v6 = 0; v6 < 2; v6++) {
        const char *gateway = v6 ? LAB_GATEWAY6 : LAB_GATEWAY;

        pkt_icmp(&pkt, client_of(gateway), gateway, v6 ? 129 : 0, 0, ID << 16, "x", 1);
        ip_lab_input(lab, &pkt);
        assert_int_equal(lab->echoes, 0);
        stack_set_echo_handler(lab->s, v6 ? IP_FAMILY_6 : IP_FAMILY_4, ECHO_KIND_REQUEST | ECHO_KIND_REPLY,
                               lab->ev.on_echo, lab);
        ip_lab_input(lab, &pkt);
        assert_int_equal(lab->echoes, 1);
        assert_true((lab->echo.flags & ECHO_IS_REPLY) != 0);
        assert_int_equal(lab->results[0], EV_NOT_REQUEST);
        assert_int_equal(lab->outs, 0);
        lab->echoes = 0;
    }
    assert_int_equal(ip_lab_count(lab, "icmp.rx.echo_reply"), 4);
}

static void families_have_handlers_of_their_own(void **state) /* icmp.md O21, O22 */
{
    struct ip_lab *lab = ip_lab_new();

    (void)state;
    lab->ev.on_echo = NULL;
    ip_lab_start(lab);
    lab->verdict = ECHO_CONSUMED;
    lab->ev.on_echo = NULL;
    ping(lab, LAB_GATEWAY6);
    assert_int_equal(lab->outs, 1);
    ip_lab_free(lab);

    lab = ip_lab_new();
    ip_lab_start(lab);
    lab->verdict = ECHO_CONSUMED;
    assert_int_equal(stack_set_echo_handler(lab->s, IP_FAMILY_6, ECHO_KIND_REQUEST, NULL, NULL), 0);
    ping(lab, LAB_GATEWAY6);
    assert_int_equal(lab->echoes, 0);
    assert_int_equal(lab->outs, 1);
    ping(lab, LAB_GATEWAY);
    assert_int_equal(lab->echoes, 1);
    assert_int_equal(lab->outs, 0);
    ip_lab_free(lab);

    lab = ip_lab_new();
    lab->cfg.ipv6 = false;
    lab->cfg.addresses = 1;
    ip_lab_start(lab);
    assert_int_equal(stack_set_echo_handler(lab->s, IP_FAMILY_6, ECHO_KIND_REQUEST, lab->ev.on_echo, lab),
                     -EAFNOSUPPORT);
    assert_int_equal(stack_set_echo_handler(lab->s, (enum ip_family)5, ECHO_KIND_REQUEST, NULL, NULL),
                     -EAFNOSUPPORT);
    ping(lab, LAB_GATEWAY6);
    assert_int_equal(ip_lab_count(lab, "ip.version"), 1);
    ip_lab_free(lab);
}

static enum echo_verdict second_handler(void *arg, struct echo_req *r)
{
    (void)arg;
    echo_reject(r, REJECT_HOST_UNREACH);
    return ECHO_CONSUMED;
}

static void swap_handler(struct ip_lab *lab, struct echo_req *r)
{
    assert_int_equal(stack_set_echo_handler(lab->s, IP_FAMILY_4, ECHO_KIND_REQUEST, second_handler, lab), 0);
    lab->results[0] = (int)echo_reply(r);
}

static void a_handler_is_swapped_in_one_piece(void **state) /* icmp.md O23 */
{
    struct ip_lab *lab = *state;

    lab->in_echo = swap_handler;
    ping(lab, LAB_TARGET);
    assert_int_equal(lab->results[0], EV_SENT); /* the running call is not torn */
    assert_int_equal(ip_lab_out(lab, 0).type, 0);
    ping(lab, LAB_TARGET);
    assert_int_equal(lab->echoes, 1);
    assert_int_equal(ip_lab_out(lab, 0).type, 3); /* the next message is the second handler's */
}

static void change_interface(struct ip_lab *lab, struct echo_req *r)
{
    struct ip_prefix p = { addr("192.0.2.0"), 120 };
    struct ip_addr a = addr(LAB_TARGET);

    lab->results[0] = stack_add_address(lab->s, &a, 0, 0);
    lab->results[1] = stack_remove_address(lab->s, &r->dst);
    lab->results[2] = stack_add_local_prefix(lab->s, &p, LOCAL_ECHO_REPLY);
    lab->results[3] = stack_set_promiscuous(lab->s, false);
    lab->results[4] = stack_set_up(lab->s, false);
    lab->results[5] = (int)echo_reply(r);
}

static void the_interface_stays_while_a_handler_runs(void **state) /* icmp.md W7 */
{
    struct ip_lab *lab = *state;

    lab->in_echo = change_interface;
    ping(lab, LAB_GATEWAY);
    for (int i = 0; i < 5; i++)
        assert_int_equal(lab->results[i], -EBUSY);
    assert_int_equal(lab->results[5], EV_SENT);
}

static void consumed_or_not_a_verb_is_the_answer(void **state) /* icmp.md O18, W1, W3, W5 */
{
    struct ip_lab *lab = *state;

    lab->in_echo = reply_once;
    for (int consumed = 0; consumed < 2; consumed++) {
        lab->verdict = consumed ? ECHO_CONSUMED : ECHO_PASS;
        ping(lab, LAB_GATEWAY);
        assert_int_equal(lab->outs, 1);
    }
    assert_int_equal(ip_lab_count(lab, "icmp.handler_reply"), 2);
    assert_int_equal(ip_lab_count(lab, "icmp.handler_consumed"), 0);
    lab->in_echo = NULL;
    ping(lab, LAB_GATEWAY);
    assert_int_equal(lab->outs, 0); /* W5 */
    assert_int_equal(ip_lab_count(lab, "icmp.handler_consumed"), 1);
    assert_int_equal(echo_reply(lab->echo_ptr), EV_STALE); /* O18 */
    assert_null(lab->echo_ptr->payload);                   /* W1: gone with the callback */
}

/* ---- rejecting ----------------------------------------------------------------------------------------- */

static enum stack_reject why;

static void reject_as_told(struct ip_lab *lab, struct echo_req *r)
{
    lab->results[0] = (int)echo_reject(r, why);
}

static void reject_too_big(struct ip_lab *lab, struct echo_req *r)
{
    lab->results[0] = (int)echo_reject_too_big(r, 1280);
}

static void expire(struct ip_lab *lab, struct echo_req *r)
{
    lab->results[0] = (int)echo_expire(r);
}

static void rejections_say_why(void **state) /* icmp.md 3.3, J1, J2, J3, J4 */
{
    static const struct {
        enum stack_reject why;
        uint8_t type4, code4, type6, code6;
    } table[] = {
        { REJECT_NET_UNREACH, 3, 0, 1, 0 },      { REJECT_HOST_UNREACH, 3, 1, 1, 3 },
        { REJECT_PORT_UNREACH, 3, 3, 1, 4 },     { REJECT_NET_PROHIBITED, 3, 9, 1, 1 },
        { REJECT_HOST_PROHIBITED, 3, 10, 1, 1 }, { REJECT_ADMIN_PROHIBITED, 3, 13, 1, 1 },
        { REJECT_POLICY, 3, 13, 1, 5 },          { REJECT_TTL_EXCEEDED, 11, 0, 3, 0 },
    };
    struct ip_lab *lab = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        const char *target = v6 ? LAB_TARGET6 : LAB_TARGET;
        struct ip_addr gateway = addr(v6 ? LAB_GATEWAY6 : LAB_GATEWAY);

        for (size_t i = 0; i < ARRAY_LEN(table); i++) {
            struct pkt_view v;

            lab->in_echo = reject_as_told;
            why = table[i].why;
            ping(lab, target);
            v = ip_lab_out(lab, 0);
            assert_int_equal(lab->results[0], EV_SENT);
            assert_int_equal(v.type, v6 ? table[i].type6 : table[i].type4);
            assert_int_equal(v.code, v6 ? table[i].code6 : table[i].code4);
            assert_true(ip_equal(&v.src, &gateway));
            assert_memory_equal(v.data, pkt.data, pkt.len); /* J1: unmodified */
        }
        lab->in_echo = reject_too_big;
        ping(lab, target);
        assert_int_equal(ip_lab_out(lab, 0).type << 8 | ip_lab_out(lab, 0).code, v6 ? 2 << 8 : 3 << 8 | 4);
        assert_int_equal(ip_lab_out(lab, 0).word, 1280);
        lab->in_echo = expire;
        ping(lab, target);
        assert_int_equal(ip_lab_out(lab, 0).type, v6 ? 3 : 11);
    }
    why = REJECT_HOST_UNREACH;
    lab->in_echo = reject_as_told;
    ping(lab, "10.0.0.255"); /* J3: never about what was sent to many */
    assert_int_equal(lab->results[0], EV_DROPPED);
    assert_int_equal(lab->outs, 0);
}

/* ---- addresses that come and go ------------------------------------------------------------------------ */

static void an_address_that_becomes_permanent_is_answered(void **state) /* icmp.md O24, O25 */
{
    static const uint32_t flags[] = { 0, ADDRESS_PRIVACY };
    struct ip_addr target = addr(LAB_TARGET);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
        struct ip_lab *lab = ip_lab_new();

        lab->ev.on_echo = NULL;
        ip_lab_start(lab);
        lab->on_request = LAB_ACCEPT; /* a live mapping uses the address while it is temporary */
        pkt_udp(&pkt, LAB_CLIENT, 4000, LAB_TARGET, 53, "x", 1);
        ip_lab_input(lab, &pkt);
        ping(lab, LAB_TARGET);
        assert_int_equal(lab->outs, 0);
        assert_int_equal(stack_add_address(lab->s, &target, 0, flags[i]), 0);
        assert_int_equal(stack_add_address(lab->s, &target, 0, flags[i]), -EEXIST);
        ping(lab, LAB_TARGET);
        assert_int_equal(lab->outs, 1);
        assert_int_equal(stack_remove_address(lab->s, &target), 0);
        assert_int_equal(stack_remove_address(lab->s, &target), -ENOENT);
        ping(lab, LAB_TARGET);
        assert_int_equal(lab->outs, 0);
        ip_lab_free(lab);
    }
}

static void promiscuous_and_handle_local_do_not_go_together(void **state) /* icmp.md O26 */
{
    struct ip_lab *lab = ip_lab_new();
    struct ip_lab *refused = ip_lab_new();

    (void)state;
    refused->cfg.handle_local = true;
    refused->bytes = stack_memory_bytes(&refused->cfg);
    refused->memory = calloc(1, 4096); /* refused before any memory is used */
    assert_null(stack_init(refused->memory, &refused->cfg, &refused->ev, refused, 1));
    free(refused->memory);
    free(refused);

    lab->cfg.handle_local = true;
    lab->cfg.promiscuous = false;
    lab->ev.on_echo = NULL;
    ip_lab_start(lab);
    assert_int_equal(stack_set_promiscuous(lab->s, true), -EINVAL);
    ping(lab, LAB_GATEWAY);
    assert_int_equal(lab->outs, 1); /* others are not taken for us */
    pkt_echo(&pkt, LAB_GATEWAY, "10.0.0.1", ID, 1, NULL, 0);
    ip_lab_input(lab, &pkt);
    assert_int_equal(ip_lab_count(lab, "ip.bad_src"), 1);
    ip_lab_free(lab);
}

static void a_hop_answers_for_everything_but_itself(void **state) /* icmp.md 2.1 step 12, V8, X30 */
{
    struct ip_lab *lab = ip_lab_new();

    (void)state;
    lab->cfg.echo_hop = true;
    ip_lab_start(lab);
    for (int v6 = 0; v6 < 2; v6++) {
        for (uint8_t ttl = 0; ttl < 3; ttl++) {
            pkt_echo(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, v6 ? LAB_TARGET6 : LAB_TARGET, ID, 1, "x", 1);
            pkt.data[v6 ? 7 : 8] = ttl;
            pkt_fix_ip(&pkt);
            ip_lab_clear(lab);
            lab->echoes = 0;
            ip_lab_input(lab, &pkt);
            assert_int_equal(lab->echoes, ttl > 1);
            if (ttl <= 1)
                assert_int_equal(ip_lab_out(lab, 0).type, v6 ? 3 : 11);
        }
        pkt_echo(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, v6 ? LAB_GATEWAY6 : LAB_GATEWAY, ID, 1, "x", 1);
        pkt.data[v6 ? 7 : 8] = 0;
        pkt_fix_ip(&pkt);
        ip_lab_clear(lab);
        ip_lab_input(lab, &pkt);
        assert_int_equal(ip_lab_out(lab, 0).type, v6 ? 129 : 0);
    }
    ip_lab_free(lab);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, ip_lab_setup, ip_lab_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_endpoint_shadows_requests_with_its_id),
        T(an_endpoint_gets_replies_with_their_marks),
        T(the_most_exact_endpoint_gets_the_reply),
        T(an_endpoint_hears_of_errors_about_its_requests),
        T(endpoints_are_refused_with_a_reason),
        T(an_observer_sees_and_changes_nothing),
        T(replies_are_offered_to_those_who_ask),
        cmocka_unit_test(families_have_handlers_of_their_own),
        T(a_handler_is_swapped_in_one_piece),
        T(the_interface_stays_while_a_handler_runs),
        T(consumed_or_not_a_verb_is_the_answer),
        T(rejections_say_why),
        cmocka_unit_test(an_address_that_becomes_permanent_is_answered),
        cmocka_unit_test(promiscuous_and_handle_local_do_not_go_together),
        cmocka_unit_test(a_hop_answers_for_everything_but_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
