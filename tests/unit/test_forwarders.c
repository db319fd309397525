/* test_forwarders.c - the TCP and UDP forwarders beside the echo handler: icmp.md 6.1 to 6.3, rows that no
 * other test has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>

#include "ip_lab.h"

static struct pkt pkt;

static struct ip_addr addr(const char *text)
{
    struct ip_addr a = { 0 };

    assert_int_equal(ip_parse(text, &a), 0);
    return a;
}

/* ---- TCP ----------------------------------------------------------------------------------------------- */

struct tcp_side {
    struct tcp_request *request;
    unsigned asked, gone;
    int gone_err;
    enum stack_reject why;
    bool decide; /* in the callback */
    int second;  /* what a second verb said */
};

static struct tcp_side side;

static void on_tcp_request(void *arg, struct tcp_request *r)
{
    struct tcp_conn *c;

    (void)arg;
    side.asked++;
    side.request = r;
    tcp_request_set_user(r, &side);
    if (!side.decide)
        return;
    assert_int_equal(tcp_request_reject(r, side.why), 0);
    side.second = tcp_request_reject(r, side.why);
    assert_int_equal(tcp_request_accept(r, NULL, &c), -ESTALE);
}

static void on_tcp_gone(void *user, int err)
{
    (void)user;
    side.gone++;
    side.gone_err = err;
}

static struct ip_lab *tcp_lab(uint32_t half_open)
{
    struct ip_lab *lab = ip_lab_new();

    side = (struct tcp_side){ 0 };
    lab->ev.on_tcp_request = on_tcp_request;
    lab->ev.on_tcp_request_gone = on_tcp_gone;
    lab->cfg.max_half_open = half_open;
    ip_lab_start(lab);
    return lab;
}

static void segment(struct ip_lab *lab, const char *dst, uint16_t sport, uint8_t flags)
{
    pkt_tcp(&pkt, strchr(dst, ':') != NULL ? LAB_CLIENT6 : LAB_CLIENT, sport, dst, 80, flags, 1000, 0, NULL,
            0);
    ip_lab_input(lab, &pkt);
}

static void only_a_syn_makes_a_request(
    void **state) /* icmp.md TF1, TF2; TestForwarderDoesNotRejectECNFlags */
{
    (void)state;
    for (int v6 = 0; v6 < 2; v6++) {
        const char *target = v6 ? LAB_TARGET6 : LAB_TARGET;
        struct ip_lab *lab = tcp_lab(256);

        for (unsigned flags = 0; flags < 256; flags++) {
            bool syn = (flags & (PKT_SYN | PKT_ACK | PKT_RST | PKT_FIN)) == PKT_SYN;
            unsigned before = side.asked;
            size_t outs = lab->outs;

            segment(lab, target, (uint16_t)(2000 + flags), (uint8_t)flags);
            if (syn) /* any ECN bits, and whatever else */
                assert_int_equal(side.asked, before + 1);
            else if ((flags & PKT_SYN) == 0 || (flags & (PKT_ACK | PKT_RST)) != 0)
                assert_int_equal(side.asked, before);
            if (side.asked == before && (flags & PKT_RST) != 0)
                assert_int_equal(lab->outs, outs); /* never a reset for a reset */
        }
        segment(lab, target, 5000, PKT_SYN);
        pkt_tcp(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, 5001, target, 80, PKT_SYN, 1000, 0, NULL, 0);
        pkt.data[pkt.len - 1] ^= 1;
        ip_lab_clear(lab);
        ip_lab_input(lab, &pkt);
        assert_int_equal(lab->outs, 0);
        assert_int_equal(ip_lab_count(lab, "tcp.checksum") + ip_lab_count(lab, "tcp.malformed") > 0, 1);
        ip_lab_free(lab);
    }
}

static void what_goes_to_many_or_to_nobody_never_arrives(void **state) /* icmp.md TF2 */
{
    static const char *const dst[] = { "10.0.0.255", "255.255.255.255", "224.0.0.1",
                                       "0.0.0.0",    "ff02::1",         "::" };
    struct ip_lab *lab = tcp_lab(256);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(dst); i++)
        segment(lab, dst[i], 4000, PKT_SYN);
    assert_int_equal(side.asked + lab->outs, 0);
    assert_int_equal(ip_lab_count(lab, "ip.bad_dst"), ARRAY_LEN(dst));
    ip_lab_free(lab);
}

static void a_syn_in_flight_is_asked_about_once(
    void **state) /* icmp.md TF3, TF4, TF5; TestForwarderDroppedStats */
{
    struct ip_lab *lab = tcp_lab(2);

    (void)state;
    for (int i = 0; i < 3; i++)
        segment(lab, LAB_TARGET, 4000, PKT_SYN); /* TF3 */
    assert_int_equal(side.asked, 1);
    lab->cfg.max_half_open = 2;
    for (uint16_t port = 4001; port < 4010; port++)
        segment(lab, LAB_TARGET, port, PKT_SYN);
    assert_true(side.asked <= 2); /* TF4: swallowed or answered by a cookie, never reset */
    for (size_t i = 0; i < lab->outs; i++)
        assert_int_equal(ip_lab_out(lab, i).l4[13] & PKT_RST, 0);
    ip_lab_clear(lab);
    ip_lab_run_until(lab, lab->now_us + 151000000); /* TF5: as if it had been reset */
    assert_int_equal(side.gone, side.asked);
    assert_int_equal(side.gone_err, -ETIMEDOUT);
    assert_int_equal(lab->outs, side.asked);
    assert_int_equal(ip_lab_out(lab, 0).l4[13], PKT_RST | PKT_ACK);
    ip_lab_free(lab);
}

static void a_reset_says_so_and_silence_forgets(void **state) /* icmp.md TF7, TF9 */
{
    (void)state;
    for (int silent = 0; silent < 2; silent++) {
        struct ip_lab *lab = tcp_lab(256);
        struct ip_addr target = addr(LAB_TARGET);
        struct pkt_view v;

        side.decide = true;
        side.why = silent ? REJECT_SILENT : REJECT_RST;
        pkt_tcp(&pkt, LAB_CLIENT, 4000, LAB_TARGET, 80, PKT_SYN, 1000, 0, "data", 4);
        ip_lab_input(lab, &pkt);
        assert_int_equal(side.second, -ESTALE); /* an error, not a crash */
        assert_int_equal(lab->outs, !silent);
        if (!silent) {
            v = ip_lab_out(lab, 0);
            assert_int_equal(v.l4[13], PKT_RST | PKT_ACK);
            assert_int_equal(get_be32(v.l4 + 4), 0);
            assert_true(get_be32(v.l4 + 8) == 1001 || get_be32(v.l4 + 8) == 1005);
            assert_int_equal(v.ttl, 64);
            assert_true(ip_equal(&v.src, &target));
        }
        assert_int_equal(stack_half_open_count(lab->s), 0);
        ip_lab_input(lab, &pkt); /* TF9: its retransmission asks again */
        assert_int_equal(side.asked, 2);
        assert_int_equal(ip_lab_in_use(lab, "syn"), 0);
        ip_lab_free(lab);
    }
}

static void refusing_before_the_handshake_has_many_ways(void **state) /* icmp.md TF8, 3.3 */
{
    static const struct {
        enum stack_reject why;
        uint8_t type4, code4, type6, code6;
    } table[] = {
        { REJECT_NET_UNREACH, 3, 0, 1, 0 },
        { REJECT_HOST_UNREACH, 3, 1, 1, 3 },
        { REJECT_ADMIN_PROHIBITED, 3, 13, 1, 1 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(table) * 2; i++) {
        bool v6 = i % 2;
        struct ip_lab *lab = tcp_lab(256);
        struct pkt_view v;

        side.decide = true;
        side.why = table[i / 2].why;
        segment(lab, v6 ? LAB_TARGET6 : LAB_TARGET, 4000, PKT_SYN);
        v = ip_lab_out(lab, 0);
        assert_int_equal(v.type, v6 ? table[i / 2].type6 : table[i / 2].type4);
        assert_int_equal(v.code, v6 ? table[i / 2].code6 : table[i / 2].code4);
        assert_int_equal(get_be16(v.data + (v6 ? 40 : 20)), 4000); /* the ports of the SYN */
        ip_lab_free(lab);
    }
}

/* ---- UDP ----------------------------------------------------------------------------------------------- */

static void datagram(struct ip_lab *lab, const char *dst, uint16_t dport, const char *data)
{
    pkt_udp(&pkt, strchr(dst, ':') != NULL ? LAB_CLIENT6 : LAB_CLIENT, 4000, dst, dport, data, strlen(data));
    ip_lab_input(lab, &pkt);
}

static void no_path_loses_or_keeps_a_datagram(void **state) /* icmp.md UF4, UF5, UF7 */
{
    (void)state;
    for (int how = 0; how < 5; how++) {
        struct ip_lab *lab = ip_lab_new();

        ip_lab_start(lab);
        lab->on_request = how == 0   ? LAB_HOLD
                          : how == 1 ? LAB_ACCEPT
                          : how == 2 ? LAB_ACCEPT_FLOW
                                     : LAB_REJECT;
        lab->why = how == 4 ? REJECT_SILENT : REJECT_PORT_UNREACH;
        datagram(lab, LAB_TARGET, 53, "first");
        if (how == 0) /* nobody decides */
            ip_lab_run_until(lab, lab->now_us + 31000000);
        assert_int_equal(lab->gots, how == 1 || how == 2); /* UF4: the first is already queued in it */
        assert_int_equal(ip_lab_count(lab, "udp.rejected"),
                         how >= 3); /* UF5: not counted when it was taken */
        assert_int_equal(lab->outs, how == 3);
        assert_int_equal(lab->gone, how == 0);
        assert_int_equal(
            ip_lab_in_use(lab, "slot") + ip_lab_in_use(lab, "chunk2") + ip_lab_in_use(lab, "chunk16"), 0);
        ip_lab_free(lab);
    }
}

static void the_endpoint_of_the_flow_comes_before_that_of_the_port(void **state) /* icmp.md N3, N4 */
{
    struct ip_lab *lab = *state;
    struct udp_endpoint *flow;

    lab->on_request = LAB_ACCEPT_FLOW;
    datagram(lab, LAB_TARGET, 53, "a");
    flow = lab->endpoint;
    lab->on_request = LAB_ACCEPT;
    datagram(lab, "192.0.2.81", 53, "b"); /* another target: a mapping for the port */
    assert_int_equal(lab->requests, 2);
    datagram(lab, LAB_TARGET, 53, "c");
    datagram(lab, "192.0.2.82", 53, "d");
    assert_int_equal(lab->requests, 2); /* N4: endpoints before the handler */
    assert_int_equal(lab->gots, 4);
    udp_endpoint_close(flow);
    datagram(lab, LAB_TARGET, 53, "e"); /* now the port's */
    assert_int_equal(lab->requests, 2);
    assert_int_equal(lab->gots, 5);
}

static unsigned to_many;
static bool was_multicast;

static void on_broadcast(void *arg, const struct udp_datagram *d, bool multicast)
{
    struct ip_lab *lab = arg;
    struct ip_port from = { addr(LAB_GATEWAY), d->target.port };

    if (!ip_is4(&d->client.addr))
        from.addr = addr(LAB_GATEWAY6);
    to_many++;
    was_multicast = multicast;
    assert_int_equal(d->len, 5);
    assert_int_equal(udp_inject(lab->s, &from, &d->client, d->data, d->ranges), 0);
}

static void datagrams_to_many_are_shown_and_answered_without_an_endpoint(void **state) /* icmp.md UF6 */
{
    static const char *const dst[] = { "10.0.0.255", "255.255.255.255", "224.0.0.1", "ff02::1" };

    (void)state;
    for (int wanted = 0; wanted < 2; wanted++) {
        struct ip_lab *lab = ip_lab_new();

        if (wanted)
            lab->ev.on_udp_broadcast = on_broadcast;
        ip_lab_start(lab);
        lab->on_request = LAB_ACCEPT;
        datagram(lab, LAB_TARGET, 53, "a mapping of the same port is no business of theirs");
        to_many = 0;
        for (size_t i = 0; i < ARRAY_LEN(dst); i++) {
            ip_lab_clear(lab);
            datagram(lab, dst[i], 137, "name?");
            assert_int_equal(lab->outs, wanted);
            if (!wanted)
                continue;
            assert_int_equal(ip_lab_out(lab, 0).sport, 137);
            assert_int_equal(ip_lab_out(lab, 0).len, 5);
            assert_int_equal(was_multicast, i >= 2);
        }
        assert_int_equal(to_many, wanted ? ARRAY_LEN(dst) : 0);
        assert_int_equal(ip_lab_count(lab, "ip.bad_dst"), wanted ? 0 : ARRAY_LEN(dst));
        pkt.data[pkt.len - 1] ^= 1;
        ip_lab_input(lab, &pkt); /* UF2: nothing is shown that is corrupt */
        assert_int_equal(to_many, wanted ? ARRAY_LEN(dst) : 0);
        ip_lab_free(lab);
    }
}

/* ---- the way to the client ----------------------------------------------------------------------------- */

static int send_bytes(struct ip_lab *lab, size_t len)
{
    static uint8_t bytes[4000];
    struct iovec iov = { .iov_base = bytes, .iov_len = len };
    struct ip_port from = { addr(LAB_TARGET6), 53 };

    ip_lab_clear(lab);
    return udp_send(lab->endpoint, &from, &iov, 1, 0);
}

static void too_big(struct ip_lab *lab, const char *sender, uint32_t mtu, uint16_t client_port)
{
    static struct pkt quoted;

    pkt_udp(&quoted, LAB_TARGET6, 53, LAB_CLIENT6, client_port, "payload", 7);
    pkt_icmp(&pkt, sender, LAB_TARGET6, 2, 0, mtu, quoted.data, quoted.len);
    ip_lab_input(lab, &pkt);
}

static void a_client_behind_a_smaller_link_is_learnt(void **state) /* icmp.md U3, R8; RFC 8201 section 4 */
{
    struct ip_lab *lab = *state;
    struct pkt_view first;
    static uint8_t joined[4000];

    lab->on_request = LAB_ACCEPT;
    datagram(lab, LAB_TARGET6, 53, "x");
    assert_int_equal(send_bytes(lab, 1400), 0);
    assert_int_equal(lab->outs, 1);
    assert_int_equal(send_bytes(lab, 3000), 0); /* must be cut: to what passes everywhere */
    for (size_t i = 0; i < lab->outs; i++)
        assert_true(lab->out[i].len <= 1280);
    assert_int_equal(ip_lab_join(lab, 0, lab->outs, joined, sizeof(joined), &first), 3008);
    too_big(lab, "fd00::77", 1400, 4001); /* about another port */
    assert_int_equal(ip_lab_count(lab, "icmp.ignored"), 1);
    too_big(lab, "fd00::77", 1400, 4000);
    assert_int_equal(send_bytes(lab, 1400), 0);
    assert_int_equal(lab->outs, 2);
    assert_true(lab->out[0].len <= 1400 &&
                lab->out[0].len > 1280); /* known now: no smaller than it must be */
    too_big(lab, "fd00::77", 600, 4000); /* never below what IPv6 asks of every link */
    assert_int_equal(send_bytes(lab, 1400), 0);
    assert_true(lab->out[0].len <= 1280 && lab->out[0].len > 1200);
    assert_int_equal(send_bytes(lab, 1200), 0);
    assert_int_equal(lab->outs, 1);
    ip_lab_run_until(lab, lab->now_us + 601000000); /* ten minutes: tried again */
    assert_int_equal(send_bytes(lab, 1400), 0);
    assert_int_equal(lab->outs, 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, ip_lab_setup, ip_lab_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_a_syn_makes_a_request),
        cmocka_unit_test(what_goes_to_many_or_to_nobody_never_arrives),
        cmocka_unit_test(a_syn_in_flight_is_asked_about_once),
        cmocka_unit_test(a_reset_says_so_and_silence_forgets),
        cmocka_unit_test(refusing_before_the_handshake_has_many_ways),
        cmocka_unit_test(no_path_loses_or_keeps_a_datagram),
        T(the_endpoint_of_the_flow_comes_before_that_of_the_port),
        cmocka_unit_test(datagrams_to_many_are_shown_and_answered_without_an_endpoint),
        T(a_client_behind_a_smaller_link_is_learnt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
