/* test_serve_udp.c - our SOCKS5 client against our SOCKS5 server, in one loop over loopback: datagrams. */
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "serve_lab.h"
#include "udp_rig.h"

#define BYTES(s) s, sizeof(s) - 1

static void datagrams_of_any_size_go_and_come_back(void **state) /* faults.md U3, U4 */
{
    static const size_t sizes[] = { 0, 1, 1400, 9000, 65000 };
    static const char *const listen[] = { "127.0.0.1", "::1" }, *const targets[] = { "::1", "127.0.0.1" };
    static uint8_t data[65000];
    struct serve_lab *lab = *state;

    for (size_t family = 0; family < 2; family++) {
        struct serve_options o = serve_lab_options(listen[family]);
        struct udp_log log;
        struct peer peer;

        serve_lab_open(lab, &o);
        peer_open(&peer, &lab->rig, targets[family], true);
        udp_start(&lab->rig, &log, lab->up);
        assert_true(log.opened);
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
            memset(data, (int)(i + 1), sizeof(data));
            assert_int_equal(udp_rig_send(&log, &peer.at, data, sizes[i], 0), 0);
            until_count(&lab->rig, &log.count, (unsigned)i + 1);
            assert_int_equal(log.last_len, sizes[i]);
            assert_memory_equal(log.last, data, sizes[i] < 64 ? sizes[i] : 64);
            assert_true(ip_port_equal(&log.source, &peer.at));
        }
        assert_int_equal(serve_counters(lab->serve)->datagrams_up, ARRAY_LEN(sizes));
        assert_int_equal(serve_counters(lab->serve)->datagrams_down, ARRAY_LEN(sizes));
        up_udp_close(log.u);
        peer_close(&peer);
        serve_lab_close(lab);
    }
}

static void a_row_stays_a_row_on_the_whole_way(void **state)
{
    static uint8_t data[40 * 1000];
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct udp_log log;
    struct peer peer;
    uint64_t calls;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i / 1000);
    serve_lab_open(lab, &o);
    peer_open(&peer, &lab->rig, "127.0.0.1", false);
    udp_start(&lab->rig, &log, lab->up);
    calls = up_counters(lab->rig.env)->send_calls;
    assert_int_equal(udp_rig_send(&log, &peer.at, data, 39 * 1000 + 3, 1000), 0);
    until_count(&lab->rig, &peer.count, 40);
    assert_int_equal(up_counters(lab->rig.env)->send_calls - calls, 2); /* ours and the server's */
    for (size_t i = 0; i < 40; i++) {
        assert_int_equal(peer.got[i].len, i < 39 ? 1000 : 3);
        assert_int_equal(peer.got[i].data[0], i);
    }
    up_udp_close(log.u);
    peer_close(&peer);
}

static void every_target_sees_one_port_and_anyone_may_answer(void **state) /* RFC 4787 REQ-1, REQ-8 */
{
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct peer a, b;
    struct udp_log log;

    serve_lab_open(lab, &o);
    peer_open(&a, &lab->rig, "127.0.0.1", false);
    peer_open(&b, &lab->rig, "127.0.0.2", false);
    udp_start(&lab->rig, &log, lab->up);
    assert_int_equal(udp_rig_send(&log, &a.at, "a", 1, 0), 0);
    assert_int_equal(udp_rig_send(&log, &b.at, "b", 1, 0), 0);
    until_count(&lab->rig, &a.count, 1);
    until_count(&lab->rig, &b.count, 1);
    assert_int_equal(a.last_from.port, b.last_from.port);
    peer_send(&b, &a.last_from, "hello", 5);
    until_count(&lab->rig, &log.count, 1);
    assert_true(ip_port_equal(&log.source, &b.at));
    up_udp_close(log.u);
    peer_close(&a);
    peer_close(&b);
}

static void a_target_by_name_is_resolved_there(void **state)
{
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct rig_name *name = rig_name(&lab->rig, "target.test", RIG_LATER);
    struct host_port to = { .name = "target.test" };
    struct udp_log log;
    struct peer peer;

    serve_lab_open(lab, &o);
    peer_open(&peer, &lab->rig, "127.0.0.1", true);
    name->addrs[name->n++] = peer.at.addr;
    to.port = peer.at.port;
    udp_start(&lab->rig, &log, lab->up);
    assert_int_equal(up_udp_send(log.u, &to, "x", 1, 0, 0, 0), 0);
    until_count(&lab->rig, &log.count, 1);
    assert_true(ip_port_equal(&log.source, &peer.at));
    up_udp_close(log.u);
    peer_close(&peer);
}

static void what_is_not_allowed_is_dropped(void **state)
{
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct peer good, bad;
    struct udp_log log;

    assert_int_equal(ip_prefix_parse("127.0.0.1", &o.allow[o.allows++]), 0);
    serve_lab_open(lab, &o);
    peer_open(&good, &lab->rig, "127.0.0.1", false);
    peer_open(&bad, &lab->rig, "127.0.0.2", false);
    udp_start(&lab->rig, &log, lab->up);
    assert_int_equal(udp_rig_send(&log, &bad.at, "x", 1, 0), 0);
    assert_int_equal(udp_rig_send(&log, &good.at, "x", 1, 0), 0);
    until_count(&lab->rig, &good.count, 1);
    assert_int_equal(bad.count, 0);
    assert_int_equal(serve_counters(lab->serve)->bad_requests, 1);
    up_udp_close(log.u);
    peer_close(&good);
    peer_close(&bad);
}

static void without_udp_it_says_so(void **state) /* faults.md U6 */
{
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct udp_log log;

    o.udp = false;
    serve_lab_open(lab, &o);
    udp_start(&lab->rig, &log, lab->up);
    assert_true(log.closed);
    assert_int_equal(log.why.err, -EOPNOTSUPP);
    assert_non_null(strstr(log.why.text, "code 7"));
}

static bool no_associations(void *arg)
{
    return ((struct serve_lab *)arg)->rig.wheel.pending == 0;
}

static void an_association_ends_with_its_connection(void **state) /* faults.md U7, G4 */
{
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct udp_log log;

    serve_lab_open(lab, &o);
    udp_start(&lab->rig, &log, lab->up);
    up_udp_close(log.u);
    rig_until(&lab->rig, no_associations, lab);
    udp_start(&lab->rig, &log, lab->up);
    serve_close(lab->serve); /* from their side */
    lab->serve = NULL;
    rig_until(&lab->rig, udp_is_closed, &log);
    assert_int_equal(log.why.err, -ECONNRESET);
}

/* A client by hand: its control connection, the relay that was announced, two sockets. */
struct raw {
    int control;
    struct ip_port relay;
    struct peer first, second, stranger;
};

static void raw_open(struct raw *raw, struct serve_lab *lab)
{
    uint8_t in[12];

    raw->control = serve_lab_client(lab, "\5\1\0\5\3\0\1\0\0\0\0\0\0", 13);
    assert_int_equal(serve_lab_read(lab, raw->control, in, sizeof(in)), sizeof(in));
    assert_memory_equal(in, "\5\0\5\0\0\1\177\0\0\1", 10);
    raw->relay = (struct ip_port){ rig_addr("127.0.0.1"), get_be16(in + 10) };
    peer_open(&raw->first, &lab->rig, "127.0.0.1", false);
    peer_open(&raw->second, &lab->rig, "127.0.0.1", false);
    peer_open(&raw->stranger, &lab->rig, "127.0.0.2", false);
}

static void raw_close(struct raw *raw)
{
    close(raw->control);
    peer_close(&raw->first);
    peer_close(&raw->second);
    peer_close(&raw->stranger);
}

static void only_the_clients_address_and_first_port_are_served(void **state) /* faults.md U8, U11 */
{
    uint8_t data[] = { 0, 0, 0, 1, 127, 0, 0, 1, 0, 0, 'x' };
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct peer target;
    struct raw raw;

    serve_lab_open(lab, &o);
    raw_open(&raw, lab);
    peer_open(&target, &lab->rig, "127.0.0.1", true);
    put_be16(data + 8, target.at.port);
    peer_send(&raw.stranger, &raw.relay, data, sizeof(data)); /* before anybody: still not served */
    peer_send(&raw.first, &raw.relay, data, sizeof(data));
    until_count(&lab->rig, &raw.first.count, 1);
    assert_memory_equal(raw.first.got[0].data, data, sizeof(data));
    peer_send(&raw.second, &raw.relay, data, sizeof(data));
    peer_send(&raw.first, &raw.relay, data, sizeof(data));
    until_count(&lab->rig, &raw.first.count, 2);
    assert_int_equal(target.count, 2);
    assert_int_equal(raw.second.count + raw.stranger.count, 0);
    raw_close(&raw);
    peer_close(&target);
}

static void malformed_datagrams_are_dropped(void **state) /* faults.md U9, from the other side */
{
    static const struct {
        const char *data;
        size_t len;
    } bad[] = {
        { BYTES("") },
        { BYTES("\0\0\0\1\177\0\0") },
        { BYTES("\0\0\1\1\177\0\0\1\0\1fragment") },
        { BYTES("\0\0\0\2\177\0\0\1\0\1x") },
        { BYTES("\0\0\0\3\0\0\1an empty name") },
        { BYTES("\0\0\0\3\3a\0b\0\1a zero inside") },
        { BYTES("\0\0\0\3\3a b\0\1a space inside") },
        { BYTES("\0\0\0\3\377a\0\1a name past the end") },
        { BYTES("\0\0\0\1\0\0\0\0\0\1to nowhere") },
    };
    uint8_t data[] = { 0, 0, 0, 1, 127, 0, 0, 1, 0, 0, 'x' };
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct peer target;
    struct raw raw;

    serve_lab_open(lab, &o);
    raw_open(&raw, lab);
    peer_open(&target, &lab->rig, "127.0.0.1", false);
    put_be16(data + 8, target.at.port);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        peer_send(&raw.first, &raw.relay, bad[i].data, bad[i].len);
    peer_send(&raw.first, &raw.relay, data, sizeof(data));
    until_count(&lab->rig, &target.count, 1);
    assert_int_equal(serve_counters(lab->serve)->bad_requests, ARRAY_LEN(bad));
    raw_close(&raw);
    peer_close(&target);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, serve_lab_setup, serve_lab_teardown)
    static const struct CMUnitTest tests[] = {
        TEST(datagrams_of_any_size_go_and_come_back),
        TEST(a_row_stays_a_row_on_the_whole_way),
        TEST(every_target_sees_one_port_and_anyone_may_answer),
        TEST(a_target_by_name_is_resolved_there),
        TEST(what_is_not_allowed_is_dropped),
        TEST(without_udp_it_says_so),
        TEST(an_association_ends_with_its_connection),
        TEST(only_the_clients_address_and_first_port_are_served),
        TEST(malformed_datagrams_are_dropped),
    };
    return run_unless(netns_enter(), tests);
}
