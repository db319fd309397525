/* test_handoff.c - packets that belong to another shard: tcp-stack.md 1.6 (STR-1, STR-2), design.md 3.3. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "ip_lab.h"

#define SHARDS 4

static struct pkt pkt, piece;
static uint8_t data[65536];

struct rig {
    struct ip_lab *shard[SHARDS];
};

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 31);
    for (uint32_t i = 0; i < SHARDS; i++) {
        rig->shard[i] = ip_lab_new();
        rig->shard[i]->cfg.shard = i;
        rig->shard[i]->cfg.shards = SHARDS;
        rig->shard[i]->cfg.secret.k0 = i; /* each shard its own; the steering key is common */
        rig->shard[i]->on_request = LAB_ACCEPT;
        ip_lab_start(rig->shard[i]);
    }
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;

    for (uint32_t i = 0; i < SHARDS; i++)
        ip_lab_free(rig->shard[i]);
    free(rig);
    return 0;
}

/* Carry what shards handed off to where it goes, until all is quiet; returns how many hand-offs there were. */
static unsigned carry(struct rig *rig)
{
    unsigned carried = 0, before;

    do {
        before = carried;
        for (uint32_t i = 0; i < SHARDS; i++) {
            struct ip_lab *from = rig->shard[i];

            for (size_t k = 0; k < from->hands; k++, carried++) {
                struct lab_packet *h = &from->handed[k];
                struct ip_lab *to = rig->shard[h->to_shard];

                assert_int_not_equal(h->to_shard, i);
                stack_input_handoff(to->s, to->now_us, h->origin, h->data, h->len, &h->meta);
                stack_batch_end(to->s, to->now_us);
                free(h->data);
            }
            from->hands = 0;
        }
        assert_true(carried < 1000); /* a walk that does not end */
    } while (carried != before);
    return carried;
}

static size_t all_gots(struct rig *rig, uint32_t *where)
{
    size_t sum = 0;

    for (uint32_t i = 0; i < SHARDS; i++) {
        sum += rig->shard[i]->gots;
        if (rig->shard[i]->gots > 0)
            *where = i;
    }
    return sum;
}

static void a_client_port_has_one_owner_wherever_its_datagrams_arrive(void **state) /* design.md 3.3 */
{
    struct rig *rig = *state;
    unsigned owned[SHARDS] = { 0 };
    char dst[32];

    for (uint16_t port = 1; port <= 100; port++) {
        uint32_t where = SHARDS, first = SHARDS;

        for (unsigned i = 0; i < 20; i++) {
            snprintf(dst, sizeof(dst), "198.51.100.%u", i + 1);
            pkt_udp(&pkt, LAB_CLIENT, port, dst, (uint16_t)(i + 1), data, 100);
            ip_lab_input(rig->shard[i % SHARDS], &pkt);
            assert_true(carry(rig) <= 1); /* straight to the owner */
            assert_int_equal(all_gots(rig, &where), 1);
            if (first == SHARDS)
                first = where;
            assert_int_equal(where, first);
            assert_memory_equal(rig->shard[where]->got[0].d.data->iov_base, data, 100);
            ip_lab_clear(rig->shard[where]);
        }
        owned[first]++;
    }
    for (uint32_t i = 0; i < SHARDS; i++)
        assert_true(owned[i] > 10); /* and all of them own some */
}

static void a_corrupt_datagram_is_not_handed_on(void **state) /* icmp.md UF2 */
{
    struct rig *rig = *state;

    for (uint16_t port = 1; port < 50; port++) {
        pkt_udp(&pkt, LAB_CLIENT, port, LAB_TARGET, 53, data, 100);
        pkt.data[pkt.len - 1] ^= 1;
        ip_lab_input(rig->shard[0], &pkt);
    }
    assert_int_equal(rig->shard[0]->hands, 0);
    assert_int_equal(ip_lab_count(rig->shard[0], "udp.checksum"), 49);
}

static void what_was_verified_is_not_summed_again(void **state)
{
    struct rig *rig = *state;
    uint64_t summed = 0;

    for (uint16_t port = 1; port <= 50; port++) {
        pkt_udp(&pkt, LAB_CLIENT, port, LAB_TARGET, 53, data, 100);
        ip_lab_input(rig->shard[0], &pkt);
        carry(rig);
    }
    for (uint32_t i = 0; i < SHARDS; i++)
        summed += ip_lab_count(rig->shard[i], "stack.payload_checksummed_bytes");
    assert_int_equal(summed, 50 * 108);
}

static void fragments_are_joined_where_they_arrive_and_then_handed_on(void **state) /* faults.md F7 */
{
    struct rig *rig = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        for (uint16_t port = 1; port < 20; port++) {
            size_t len = v6 ? 65527 : 60000;
            uint32_t where = 0;

            pkt_udp(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, port, v6 ? LAB_TARGET6 : LAB_TARGET, 53, data, len);
            for (size_t at = 0; at < len + 8; at += 1448) {
                size_t part = len + 8 - at < 1448 ? len + 8 - at : 1448;

                pkt_fragment(&pkt, at, part, at + part < len + 8, port, &piece);
                ip_lab_feed(rig->shard[1], &piece);
            }
            stack_batch_end(rig->shard[1]->s, rig->shard[1]->now_us);
            carry(rig);
            assert_int_equal(all_gots(rig, &where), 1);
            assert_int_equal(rig->shard[where]->got[0].d.len, len);
            assert_memory_equal(rig->shard[where]->got[0].d.data->iov_base, data, len);
            ip_lab_clear(rig->shard[where]);
        }
    }
}

static void an_unknown_segment_asks_every_shard_once_and_is_refused_once(
    void **state) /* tcp-stack.md STR-2, RST-4 */
{
    struct rig *rig = *state;
    size_t resets = 0;

    pkt_tcp(&pkt, LAB_CLIENT, 4000, LAB_TARGET, 80, PKT_ACK, 1, 1, "x", 1);
    ip_lab_input(rig->shard[2], &pkt);
    assert_int_equal(carry(rig), SHARDS - 1);
    for (uint32_t i = 0; i < SHARDS; i++)
        resets += rig->shard[i]->outs;
    assert_int_equal(resets, 1);
}

static void a_syn_stays_where_it_arrived(void **state) /* tcp-stack.md STR-1 */
{
    struct rig *rig = *state;

    pkt_tcp(&pkt, LAB_CLIENT, 4000, LAB_TARGET, 80, PKT_SYN, 1, 0, NULL, 0);
    ip_lab_input(rig->shard[3], &pkt);
    assert_int_equal(carry(rig), 0);
    assert_int_equal(rig->shard[3]->tcp_requests, 1);
}

static unsigned ignored(const struct rig *rig)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < SHARDS; i++)
        n += (unsigned)ip_lab_count(rig->shard[i], "icmp.ignored");
    return n;
}

static void an_error_about_no_flow_walks_past_every_shard(void **state) /* tcp-stack.md STR-2 */
{
    struct rig *rig = *state;
    struct pkt quoted;

    pkt_tcp(&quoted, LAB_TARGET, 80, LAB_CLIENT, 4000, PKT_ACK, 1, 1, "x", 1);
    pkt_icmp(&pkt, LAB_CLIENT, LAB_TARGET, 3, 4, 1400, quoted.data, quoted.len);
    ip_lab_input(rig->shard[1], &pkt);
    assert_int_equal(carry(rig), SHARDS - 1);
    for (uint32_t i = 0; i < SHARDS; i++)
        assert_int_equal(ip_lab_count(rig->shard[i], "icmp.in"), 1);
    assert_int_equal(ignored(rig), 1); /* by the last one */
}

/* The budget of walks is for what is not known where it arrives. */
static void an_error_ends_its_walk_at_the_shard_that_it_is_for(void **state) /* tcp-stack.md STR-2 */
{
    struct rig *rig = *state;
    struct pkt quoted;

    rig->shard[2]->tcp_hold = true;
    pkt_tcp(&pkt, LAB_CLIENT, 4000, LAB_TARGET, 80, PKT_SYN, 1, 0, NULL, 0);
    ip_lab_input(rig->shard[2], &pkt);
    pkt_tcp(&quoted, LAB_TARGET, 80, LAB_CLIENT, 4000, PKT_ACK, 1, 1, "x", 1);
    pkt_icmp(&pkt, LAB_CLIENT, LAB_TARGET, 3, 4, 1400, quoted.data, quoted.len);
    for (uint32_t i = 0; i < SHARDS; i++) {
        ip_lab_input(rig->shard[i], &pkt);
        assert_int_equal(carry(rig), (2 + SHARDS - i) % SHARDS);
    }
    assert_int_equal(ip_lab_count(rig->shard[2], "icmp.ignored"),
                     SHARDS); /* nothing of ours is in flight there */
    assert_int_equal(ignored(rig), SHARDS);
}

static void an_error_about_a_mapping_goes_straight_to_its_owner(void **state) /* design.md 3.3 */
{
    struct rig *rig = *state;
    struct pkt quoted;

    for (uint16_t port = 1; port <= 40; port++) {
        uint32_t owner = SHARDS;

        pkt_udp(&pkt, LAB_CLIENT, port, LAB_TARGET, 53, "x", 1);
        ip_lab_input(rig->shard[0], &pkt);
        carry(rig);
        assert_int_equal(all_gots(rig, &owner), 1);
        ip_lab_clear(rig->shard[owner]);
        pkt_udp(&quoted, LAB_TARGET, 53, LAB_CLIENT, port, data, 100);
        pkt_icmp(&pkt, LAB_CLIENT, LAB_TARGET, 3, 4, 1400, quoted.data, quoted.len);
        for (uint32_t i = 0; i < SHARDS; i++) {
            ip_lab_input(rig->shard[i], &pkt);
            assert_int_equal(carry(rig), i == owner ? 0 : 1);
        }
        assert_int_equal(ignored(rig), 0);
    }
}

/* ---- steered packets (STR-4): steer_packet() in the place of the device ---- */

static struct ip_lab *steered(struct rig *rig, const struct pkt *p)
{
    struct steer k;

    steer_init(&k, &rig->shard[0]->cfg.steer_key);
    return rig->shard[steer_packet(&k, p->data, p->len) % SHARDS];
}

static void a_mapping_is_where_its_datagrams_are_steered_to(void **state) /* tcp-stack.md STR-4 */
{
    struct rig *rig = *state;
    char dst[48];

    for (int v6 = 0; v6 < 2; v6++) {
        for (uint16_t i = 1; i <= 100; i++) {
            snprintf(dst, sizeof(dst), v6 ? "2001:db8:77::%u" : "198.51.100.%u", i);
            pkt_udp(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, i, dst, (uint16_t)(i * 7), data, 100);
            ip_lab_input(steered(rig, &pkt), &pkt);
            assert_int_equal(carry(rig), 0);
        }
    }
}

static void echo_and_its_pieces_are_steered_to_their_owner(void **state) /* tcp-stack.md STR-4, icmp.md F10 */
{
    struct rig *rig = *state;
    char dst[48];

    for (int v6 = 0; v6 < 2; v6++) {
        for (uint16_t i = 1; i <= 100; i++) {
            snprintf(dst, sizeof(dst), v6 ? "2001:db8:77::%u" : "198.51.100.%u", i);
            pkt_echo(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, dst, i, 1, data, 2000);
            ip_lab_input(steered(rig, &pkt), &pkt);
            for (unsigned half = 0; half < 2; half++) {
                pkt_fragment(&pkt, half * 1000, half ? 1008 : 1000, half == 0, i, &piece);
                ip_lab_input(steered(rig, &piece), &piece);
            }
            assert_int_equal(carry(rig), 0);
        }
    }
}

static void an_error_is_steered_to_what_it_is_about(void **state) /* tcp-stack.md STR-4 */
{
    struct rig *rig = *state;
    struct pkt quoted;

    for (uint32_t i = 0; i < SHARDS; i++)
        rig->shard[i]->tcp_hold = true;
    for (int v6 = 0; v6 < 2; v6++) {
        const char *client = v6 ? LAB_CLIENT6 : LAB_CLIENT, *target = v6 ? LAB_TARGET6 : LAB_TARGET;
        uint8_t type = v6 ? 2 : 3, code = v6 ? 0 : 4;

        for (uint16_t port = 1; port <= 100; port++) {
            pkt_tcp(&pkt, client, port, target, 80, PKT_SYN, 1, 0, NULL, 0);
            ip_lab_input(steered(rig, &pkt), &pkt);
            pkt_tcp(&quoted, target, 80, client, port, PKT_ACK, 1, 1, "x", 1);
            pkt_icmp(&pkt, client, target, type, code, 1400, quoted.data, quoted.len);
            ip_lab_input(steered(rig, &pkt), &pkt);
            assert_int_equal(carry(rig), 0); /* that shard has the request, so nobody else is asked */
            pkt_udp(&quoted, target, 53, client, port, data, 100);
            pkt_icmp(&pkt, client, target, type, code, 1400, quoted.data, quoted.len);
            ip_lab_input(steered(rig, &pkt), &pkt);
            assert_int_equal(carry(rig), 0);
        }
    }
}

/* icmp.md F10: pieces and whole requests of any id, wherever they arrive, meet in one shard. */
static void echo_between_two_addresses_meets_in_one_shard(void **state)
{
    struct rig *rig = *state;

    for (int v6 = 0; v6 < 2; v6++) {
        const char *client = v6 ? LAB_CLIENT6 : LAB_CLIENT, *target = v6 ? LAB_TARGET6 : LAB_TARGET;
        unsigned owners = 0;

        for (uint32_t i = 0; i < SHARDS; i++)
            rig->shard[i]->echoes = 0;
        for (uint16_t id = 0; id < 8; id++) {
            pkt_echo(&pkt, client, target, id, 1, data, 2000);
            pkt_fragment(&pkt, 0, 1000, true, id, &piece);
            ip_lab_input(rig->shard[id % SHARDS], &piece);
            pkt_fragment(&pkt, 1000, 1008, false, id, &piece);
            ip_lab_input(rig->shard[(id + 1) % SHARDS], &piece);
            pkt_echo(&pkt, client, target, id, 2, data, 100);
            ip_lab_input(rig->shard[(id + 2) % SHARDS], &pkt);
            carry(rig);
        }
        for (uint32_t i = 0; i < SHARDS; i++) {
            assert_true(rig->shard[i]->echoes == 0 || rig->shard[i]->echoes == 16);
            owners += rig->shard[i]->echoes > 0;
        }
        assert_int_equal(owners, 1);
    }
}

static void a_full_ring_drops_and_counts_and_sends_nothing(
    void **state) /* tcp-stack.md STR-2: never an RST */
{
    struct rig *rig = *state;
    struct ip_lab *lab = rig->shard[0];

    lab->handoff_full = true;
    pkt_tcp(&pkt, LAB_CLIENT, 4000, LAB_TARGET, 80, PKT_ACK, 1, 1, "x", 1);
    ip_lab_input(lab, &pkt);
    for (uint16_t port = 1; port < 20; port++) {
        pkt_udp(&pkt, LAB_CLIENT, port, LAB_TARGET, 53, data, 10);
        ip_lab_input(lab, &pkt);
    }
    assert_int_equal(lab->outs, 0);
    assert_int_equal(ip_lab_count(lab, "ip.handoff_full"), 20 - lab->gots);
    assert_int_equal(ip_lab_count(lab, "ip.handoff_out"), 0);
}

static void walks_have_a_budget(void **state) /* tcp-stack.md STR-2: 10,000 a second */
{
    struct rig *rig = *state;
    struct ip_lab *lab = rig->shard[0];
    uint64_t out;

    pkt_tcp(&pkt, LAB_CLIENT, 4000, LAB_TARGET, 80, PKT_ACK, 1, 1, "x", 1);
    for (int i = 0; i < 30000; i++) {
        lab->now_us += 33;
        ip_lab_feed(lab, &pkt);
        assert_int_equal(lab->outs, 0); /* never an RST */
        ip_lab_clear(lab);
    }
    out = ip_lab_count(lab, "ip.handoff_out");
    assert_in_range(out, 9900, 11000);
    assert_int_equal(ip_lab_count(lab, "ip.handoff_full"), 30000 - out);
    assert_int_equal(lab->outs, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_client_port_has_one_owner_wherever_its_datagrams_arrive),
        T(a_corrupt_datagram_is_not_handed_on),
        T(what_was_verified_is_not_summed_again),
        T(fragments_are_joined_where_they_arrive_and_then_handed_on),
        T(an_unknown_segment_asks_every_shard_once_and_is_refused_once),
        T(a_syn_stays_where_it_arrived),
        T(an_error_about_no_flow_walks_past_every_shard),
        T(an_error_ends_its_walk_at_the_shard_that_it_is_for),
        T(an_error_about_a_mapping_goes_straight_to_its_owner),
        T(a_mapping_is_where_its_datagrams_are_steered_to),
        T(echo_and_its_pieces_are_steered_to_their_owner),
        T(an_error_is_steered_to_what_it_is_about),
        T(echo_between_two_addresses_meets_in_one_shard),
        T(a_full_ring_drops_and_counts_and_sends_nothing),
        T(walks_have_a_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
