/* test_base_steer.c - faces src/base/steer.c: what decides about a packet's shard, and what does not (tcp-stack.md STR-4). */
#include "culvert/base.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "pkt_build.h"

#define CLIENT  "10.0.0.2"
#define TARGET  "198.51.100.7"
#define CLIENT6 "2001:db8::2"
#define TARGET6 "2001:db8:1::7"

static const struct hash_key key = { 0x0123456789abcdef, 0xfedcba9876543210 };
static struct pkt pkt, other;
static struct steer k;

static int setup(void **state)
{
    (void)state;
    steer_init(&k, &key);
    return 0;
}

static uint16_t value(const struct pkt *p)
{
    return steer_packet(&k, p->data, p->len);
}

static struct ip_addr addr(const char *text)
{
    struct ip_addr a;

    assert_int_equal(ip_parse(text, &a), 0);
    return a;
}

static void tcp_goes_by_all_four_of_its_tuple(void **state)
{
    (void)state;
    for (int v6 = 0; v6 < 2; v6++) {
        const char *c = v6 ? CLIENT6 : CLIENT, *t = v6 ? TARGET6 : TARGET;
        uint16_t first;

        pkt_tcp(&pkt, c, 4000, t, 80, PKT_SYN, 1, 0, NULL, 0);
        first = value(&pkt);
        pkt_tcp(&pkt, c, 4000, t, 80, PKT_ACK, 77, 99, "data", 4);
        assert_int_equal(value(&pkt), first);
        pkt_tcp(&pkt, c, 4001, t, 80, PKT_SYN, 1, 0, NULL, 0);
        assert_int_not_equal(value(&pkt), first);
        pkt_tcp(&pkt, c, 4000, t, 81, PKT_SYN, 1, 0, NULL, 0);
        assert_int_not_equal(value(&pkt), first);
        pkt_tcp(&pkt, v6 ? "2001:db8::3" : "10.0.0.3", 4000, t, 80, PKT_SYN, 1, 0, NULL, 0);
        assert_int_not_equal(value(&pkt), first);
        pkt_tcp(&pkt, c, 4000, v6 ? "2001:db8:1::8" : "198.51.100.8", 80, PKT_SYN, 1, 0, NULL, 0);
        assert_int_not_equal(value(&pkt), first);
    }
}

static void udp_goes_by_the_client_alone(void **state) /* design.md 3.3 */
{
    struct ip_addr client;

    (void)state;
    for (int v6 = 0; v6 < 2; v6++) {
        client = addr(v6 ? CLIENT6 : CLIENT);
        pkt_udp(&pkt, v6 ? CLIENT6 : CLIENT, 5000, v6 ? TARGET6 : TARGET, 53, "q", 1);
        pkt_udp(&other, v6 ? CLIENT6 : CLIENT, 5000, v6 ? "2001:db8:2::1" : "192.0.2.1", 99, "another", 7);
        assert_int_equal(value(&pkt), value(&other));
        assert_int_equal(value(&pkt), steer_client_port(&k, &client, 5000));
        pkt_udp(&other, v6 ? CLIENT6 : CLIENT, 5001, v6 ? TARGET6 : TARGET, 53, "q", 1);
        assert_int_not_equal(value(&pkt), value(&other));
    }
}

static void fragments_and_echo_go_by_their_addresses(void **state)
{
    (void)state;
    for (int v6 = 0; v6 < 2; v6++) {
        const char *c = v6 ? CLIENT6 : CLIENT, *t = v6 ? TARGET6 : TARGET;
        struct ip_addr client = addr(c), target = addr(t);
        uint16_t both = steer_addresses(&k, &client, &target);
        uint8_t data[3000] = { 0 };

        pkt_udp(&pkt, c, 5000, t, 53, data, sizeof(data));
        for (size_t at = 0; at < 3000; at += 1000) {
            pkt_fragment(&pkt, at, 1000, true, 7, &other);
            assert_int_equal(value(&other), both);
        }
        pkt_echo(&pkt, c, t, 1, 2, data, 56);
        assert_int_equal(value(&pkt), both);
        pkt_echo(&pkt, c, t, 9, 3, data, 56);
        assert_int_equal(value(&pkt), both);
    }
}

static void an_error_goes_where_the_packet_went_that_it_is_about(void **state)
{
    struct pkt quoted;

    (void)state;
    for (int v6 = 0; v6 < 2; v6++) {
        const char *c = v6 ? CLIENT6 : CLIENT, *t = v6 ? TARGET6 : TARGET;
        const char *router = v6 ? "2001:db8:9::1" : "10.9.9.9";

        for (int tcp = 0; tcp < 2; tcp++) {
            if (tcp) {
                pkt_tcp(&pkt, c, 4000, t, 80, PKT_ACK, 1, 1, "up", 2);
                pkt_tcp(&quoted, t, 80, c, 4000, PKT_ACK, 1, 1, "down", 4);
            } else {
                pkt_udp(&pkt, c, 4000, t, 80, "up", 2);
                pkt_udp(&quoted, t, 80, c, 4000, "down", 4);
            }
            pkt_icmp(&other, router, t, v6 ? 2 : 3, v6 ? 0 : 4, 1300, quoted.data, quoted.len);
            assert_int_equal(value(&other), value(&pkt));
            pkt_icmp(&other, router, t, v6 ? 3 : 11, 0, 0, quoted.data, quoted.len < 48 ? quoted.len : 48);
            assert_int_equal(value(&other), value(&pkt));
        }
    }
}

/* Every cut of a packet has a value, and reading it stays inside (the sanitizers look). */
static void a_packet_may_end_anywhere(void **state)
{
    struct pkt quoted;
    uint8_t *cut;

    (void)state;
    for (int v6 = 0; v6 < 2; v6++) {
        pkt_tcp(&quoted, v6 ? TARGET6 : TARGET, 80, v6 ? CLIENT6 : CLIENT, 4000, PKT_ACK, 1, 1, "x", 1);
        pkt_icmp(&pkt, v6 ? CLIENT6 : CLIENT, v6 ? TARGET6 : TARGET, v6 ? 2 : 3, v6 ? 0 : 4, 1300,
                 quoted.data, quoted.len);
        for (size_t len = 0; len < pkt.len; len++) {
            cut = malloc(len + 1);
            memcpy(cut + 1, pkt.data, len);
            (void)steer_packet(&k, cut + 1, len);
            free(cut);
        }
    }
}

/* The worst of many keys for what comes in equal steps: a client's ports one after the other, and clients one after the other. */
static void equal_steps_are_spread_over_shards(void **state)
{
    enum { FLOWS = 4096, SHARDS = 4 };

    (void)state;
    for (uint64_t n = 0; n < 200; n++) {
        struct hash_key one = { n, 0 };
        unsigned by_port[SHARDS] = { 0 }, by_client[SHARDS] = { 0 };
        struct ip_addr client = addr(CLIENT);

        steer_init(&k, &one);
        for (uint16_t i = 0; i < FLOWS; i++) {
            by_port[steer_client_port(&k, &client, (uint16_t)(32768 + 2 * i)) % SHARDS]++;
            put_be16(client.b + 14, i);
            by_client[steer_client_port(&k, &client, 5353) % SHARDS]++;
            client = addr(CLIENT);
        }
        for (unsigned i = 0; i < SHARDS; i++) {
            assert_in_range(by_port[i], FLOWS / SHARDS * 3 / 4, FLOWS / SHARDS * 5 / 4);
            assert_in_range(by_client[i], FLOWS / SHARDS * 3 / 4, FLOWS / SHARDS * 5 / 4);
        }
    }
}

/* Two flows meet under a fourth of all keys, whoever chose them: here, two that differ in one bit. */
static void nobody_without_the_key_knows_who_meets(void **state)
{
    enum { KEYS = 4000, SHARDS = 4 };
    struct ip_addr client = addr(CLIENT);
    unsigned meet = 0;

    (void)state;
    for (uint64_t n = 0; n < KEYS; n++) {
        struct hash_key one = { n, 1 };

        steer_init(&k, &one);
        meet +=
            steer_client_port(&k, &client, 5000) % SHARDS == steer_client_port(&k, &client, 5001) % SHARDS;
    }
    assert_in_range(meet, KEYS / 4 - 150, KEYS / 4 + 150);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {
        T(tcp_goes_by_all_four_of_its_tuple),
        T(udp_goes_by_the_client_alone),
        T(fragments_and_echo_go_by_their_addresses),
        T(an_error_goes_where_the_packet_went_that_it_is_about),
        T(a_packet_may_end_anywhere),
        T(equal_steps_are_spread_over_shards),
        T(nobody_without_the_key_knows_who_meets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
