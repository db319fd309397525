/* test_iface.c - the interface: addresses, local prefixes, switches, and what a lookup costs (icmp.md 3.5,
 * 6.3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>

#include "ip_lab.h"
#include "stack/ip_impl.h"

static struct pkt pkt;

static struct ip_addr addr(const char *text)
{
    struct ip_addr a = { 0 };

    assert_int_equal(ip_parse(text, &a), 0);
    return a;
}

static struct ip_prefix prefix(const char *text)
{
    struct ip_prefix p;

    assert_int_equal(ip_prefix_parse(text, &p), 0);
    return p;
}

static size_t ping(struct ip_lab *lab, const char *src, const char *dst)
{
    ip_lab_clear(lab);
    pkt_echo(&pkt, src, dst, 1, 2, "x", 1);
    ip_lab_input(lab, &pkt);
    return lab->outs;
}

/* ---- cost ---------------------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static enum echo_verdict answer(void *arg, struct echo_req *r)
{
    (void)arg;
    echo_reply(r);
    return ECHO_CONSUMED;
}

/* Memory that the lookups of one echo to a temporary address read, and its reply; the median of many. */
static uint64_t median_touches(struct ip_lab *lab, bool v6)
{
    static uint64_t touches[1001];

    for (size_t i = 0; i < ARRAY_LEN(touches); i++) {
        uint64_t before = lab->s->iface.touches;
        struct ip_addr dst = addr(v6 ? "2001:db8:ffff::" : "203.0.0.0");

        put_be16(dst.b + 14, (uint16_t)(i * 61 + 1));
        pkt_echo(&pkt, v6 ? LAB_CLIENT6 : LAB_CLIENT, v6 ? LAB_TARGET6 : LAB_TARGET, 1, 2, "x", 1);
        if (v6)
            memcpy(pkt.data + 24, dst.b, 16);
        else
            memcpy(pkt.data + 16, dst.b + 12, 4);
        pkt_fix_ip(&pkt);
        pkt_fix_l4(&pkt);
        ip_lab_clear(lab);
        ip_lab_input(lab, &pkt);
        assert_int_equal(lab->outs, 1);
        touches[i] = lab->s->iface.touches - before;
    }
    qsort(touches, ARRAY_LEN(touches), sizeof(touches[0]), by_number);
    return touches[ARRAY_LEN(touches) / 2];
}

static void add_many(struct ip_lab *lab, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        struct ip_addr a = addr(i % 2 == 0 ? "20.0.0.0" : "2001:db8:1::");

        if (i % 2 == 0) /* each in a /24 of its own, as long as there are */
            put_be32(a.b + 12, (20u << 24) + (i << 7) + 1);
        else
            put_be32(a.b + 10, i + 1);
        assert_int_equal(stack_add_address(lab->s, &a, i % 2 == 0 ? 120 : 64, 0), 0);
    }
}

static void an_echo_costs_the_same_with_a_million_addresses(void **state) /* icmp.md M1, M2, M3 */
{
    static const uint32_t numbers[] = { 0, 1000, 1000000 };
    uint64_t first[2] = { 0 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        struct ip_lab *lab = ip_lab_new();
        uint32_t entries, copied;

        lab->cfg.max_addresses = numbers[i] + 2;
        lab->ev.on_echo = answer;
        ip_lab_start(lab);
        add_many(lab, numbers[i]);
        entries = ip_lab_in_use(lab, "address");
        copied = (uint32_t)ip_lab_count(lab, "stack.payload_copied_bytes");
        for (int v6 = 0; v6 < 2; v6++) {
            uint64_t median = median_touches(lab, v6);

            if (i == 0)
                first[v6] = median;
            else if (median * 10 > first[v6] * 11 || median * 10 < first[v6] * 9)
                fail_msg("%u addresses: %llu touches instead of %llu", numbers[i], (unsigned long long)median,
                         (unsigned long long)first[v6]);
        }
        assert_int_equal(ip_lab_in_use(lab, "address"), entries); /* M2: no object for what was temporary */
        assert_int_equal(ip_lab_count(lab, "stack.payload_copied_bytes"), copied);
        assert_int_equal(ip_lab_in_use(lab, "chunk2") + ip_lab_in_use(lab, "slot"), 0);
        ip_lab_free(lab);
    }
}

static void a_broadcast_address_is_found_by_its_prefix(void **state) /* icmp.md M3, B1, B6 */
{
    struct ip_lab *lab = *state;
    struct ip_addr second = addr("10.7.0.1");
    struct pkt_view v;

    stack_set_echo_handler(lab->s, IP_FAMILY_4, 0, NULL, NULL);
    assert_int_equal(stack_add_address(lab->s, &second, 112, 0), 0); /* 10.7.0.0/16 */
    assert_int_equal(ping(lab, LAB_CLIENT, "10.7.255.255"), 1);
    v = ip_lab_out(lab, 0);
    assert_true(ip_equal(&v.src, &second)); /* R1: the address of that prefix */
    assert_int_equal(ping(lab, "10.7.255.255", LAB_GATEWAY), 0);
    assert_int_equal(ip_lab_count(lab, "ip.bad_src"), 1);
    assert_int_equal(ping(lab, LAB_CLIENT, "10.7.0.255"), 0); /* an ordinary temporary address */
    assert_int_equal(stack_remove_address(lab->s, &second), 0);
    assert_int_equal(ping(lab, "10.7.255.255", LAB_GATEWAY), 1);
    assert_int_equal(ping(lab, LAB_CLIENT, "10.0.0.255"), 1);
}

/* ---- local prefixes ------------------------------------------------------------------------------------ */

static void prefixes_are_local_without_being_counted(void **state) /* icmp.md M4 */
{
    static const struct {
        enum local_echo echo;
        unsigned calls, replies;
    } rows[] = { { LOCAL_ECHO_REPLY, 0, 1 }, { LOCAL_ECHO_SUPPRESS, 0, 0 }, { LOCAL_ECHO_HANDLER, 1, 0 } };
    struct ip_prefix p4 = prefix("198.51.100.0/24"), p6 = prefix("2001:db8:5::/48");

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct ip_lab *lab = ip_lab_new();

        lab->cfg.promiscuous = false;
        ip_lab_start(lab);
        lab->verdict = ECHO_CONSUMED;
        assert_int_equal(ping(lab, LAB_CLIENT, "198.51.100.77"), 0);
        assert_int_equal(ip_lab_count(lab, "ip.bad_dst"), 1);
        assert_int_equal(stack_add_local_prefix(lab->s, &p4, rows[i].echo), 0);
        assert_int_equal(stack_add_local_prefix(lab->s, &p6, rows[i].echo), 0);
        assert_int_equal(ip_lab_in_use(lab, "address"), 6); /* two addresses, their prefixes, and these */
        assert_int_equal(ping(lab, LAB_CLIENT, "198.51.100.77"), rows[i].replies);
        assert_int_equal(ping(lab, LAB_CLIENT6, "2001:db8:5:9::1"), rows[i].replies);
        assert_int_equal(lab->echoes, 2 * rows[i].calls);
        if (rows[i].calls > 0)
            assert_int_equal(lab->echo.flags, 0); /* not temporary: somebody declared it */
        assert_int_equal(ping(lab, LAB_CLIENT, "198.51.101.77"), 0);
        assert_int_equal(ip_lab_count(lab, "ip.bad_dst"), 2);
        assert_int_equal(stack_remove_local_prefix(lab->s, &p4), 0);
        assert_int_equal(stack_remove_local_prefix(lab->s, &p4), -ENOENT);
        assert_int_equal(ping(lab, LAB_CLIENT, "198.51.100.77"), 0);
        assert_int_equal(ip_lab_count(lab, "ip.bad_dst"), 3);
        ip_lab_free(lab);
    }
}

static void the_longest_local_prefix_decides(void **state) /* icmp.md M4 */
{
    struct ip_prefix all = prefix("0.0.0.0/0"), some = prefix("198.51.0.0/16"), one = prefix("198.51.100.7");
    struct ip_lab *lab = *state;

    assert_int_equal(stack_add_local_prefix(lab->s, &all, LOCAL_ECHO_SUPPRESS), 0);
    assert_int_equal(stack_add_local_prefix(lab->s, &some, LOCAL_ECHO_REPLY), 0);
    assert_int_equal(stack_add_local_prefix(lab->s, &one, LOCAL_ECHO_SUPPRESS), 0);
    assert_int_equal(ping(lab, LAB_CLIENT, "203.0.113.1"), 0);
    assert_int_equal(ping(lab, LAB_CLIENT, "198.51.100.8"), 1);
    assert_int_equal(ping(lab, LAB_CLIENT, "198.51.100.7"), 0);
    assert_int_equal(ping(lab, LAB_CLIENT6, LAB_TARGET6), 1); /* 0.0.0.0/0 is all of IPv4 only */
    assert_int_equal(stack_add_local_prefix(lab->s, &one, LOCAL_ECHO_REPLY), 0); /* again: changed */
    assert_int_equal(ping(lab, LAB_CLIENT, "198.51.100.7"), 1);
}

/* ---- sources ------------------------------------------------------------------------------------------- */

static void ignore_reply(void *user, const struct icmp_reply *r)
{
    (void)user;
    (void)r;
}

static void we_speak_as_an_address_of_ours(void **state) /* icmp.md M5, R1, J2 */
{
    struct ip_addr privacy = addr("172.16.0.9"), far = addr("172.16.0.1");
    struct icmp_bind b = { .family = IP_FAMILY_4, .id = 1 };
    struct icmp_request to_far = { .to = addr("172.16.0.200") }, to_any = { .to = addr(LAB_TARGET) };
    struct ip_lab *lab = *state;
    struct icmp_endpoint *e;
    struct pkt_view v;

    ping(lab, LAB_CLIENT, "203.0.113.5"); /* a temporary address is in use: never a candidate */
    assert_int_equal(icmp_endpoint_open(lab->s, &b, ignore_reply, NULL, &e), 0);
    assert_int_equal(stack_add_address(lab->s, &far, 120, 0), 0);
    ip_lab_clear(lab);
    assert_int_equal(icmp_endpoint_send(e, &to_far), EV_SENT);
    assert_int_equal(icmp_endpoint_send(e, &to_any), EV_SENT);
    v = ip_lab_out(lab, 0);
    assert_true(ip_equal(&v.src, &far)); /* on its link */
    v = ip_lab_out(lab, 1);
    assert_int_equal(get_be32(v.src.b + 12), 0x0a000001); /* the gateway address */
    for (int i = 0; i < 2;
         i++) { /* the first goes: the next is the gateway address; one of limited life comes last */
        struct ip_addr gone = addr(i == 0 ? LAB_GATEWAY : "172.16.0.1");

        if (i == 0)
            assert_int_equal(stack_add_address(lab->s, &privacy, 0, ADDRESS_PRIVACY), 0);
        assert_int_equal(stack_remove_address(lab->s, &gone), 0);
        ip_lab_clear(lab);
        assert_int_equal(icmp_endpoint_send(e, &to_any), EV_SENT);
        v = ip_lab_out(lab, 0);
        assert_true(ip_equal(&v.src, i == 0 ? &far : &privacy));
    }
    assert_int_equal(stack_remove_address(lab->s, &privacy), 0);
    assert_int_equal(icmp_endpoint_send(e, &to_any), EV_NO_ROUTE);
    assert_int_equal(ip_lab_count(lab, "icmp4.tx.no_route"), 1);
}

/* ---- switches ------------------------------------------------------------------------------------------ */

static void promiscuous_is_switched_at_run_time(void **state) /* icmp.md N1; TestPromiscuousMode */
{
    struct ip_lab *lab = *state;

    lab->verdict = ECHO_CONSUMED;
    ping(lab, LAB_CLIENT, LAB_TARGET);
    assert_int_equal(lab->echoes, 1);
    assert_int_equal(stack_set_promiscuous(lab->s, false), 0);
    ping(lab, LAB_CLIENT, LAB_TARGET);
    assert_int_equal(lab->echoes, 1);
    assert_int_equal(ip_lab_count(lab, "ip.bad_dst"), 1);
    ping(lab, LAB_CLIENT, LAB_GATEWAY);
    assert_int_equal(lab->echoes, 2);
}

static void spoofing_decides_whose_name_may_be_used(
    void **state) /* icmp.md N2; TestSpoofingWithAddress, TestSpoofingNoAddress */
{
    struct ip_lab *lab = *state;
    struct iovec data = { .iov_base = (void *)(uintptr_t) "x", .iov_len = 1 };
    struct ip_port asked = { addr(LAB_TARGET), 53 }, other = { addr("203.0.113.9"), 53 },
                   assigned = { addr(LAB_GATEWAY), 53 }, client = { addr(LAB_CLIENT), 4000 };
    static struct pkt sent;

    lab->on_request = LAB_ACCEPT;
    pkt_udp(&pkt, LAB_CLIENT, 4000, LAB_TARGET, 53, "x", 1);
    ip_lab_input(lab, &pkt);
    assert_int_equal(udp_send(lab->endpoint, &other, &data, 1, 0), 0);
    assert_int_equal(udp_inject(lab->s, &other, &client, &data, 1), 0);
    stack_set_spoofing(lab->s, false);
    assert_int_equal(udp_send(lab->endpoint, &other, &data, 1, 0), -EADDRNOTAVAIL);
    assert_int_equal(udp_send(lab->endpoint, &asked, &data, 1, 0), 0); /* it answers what it was asked (M2) */
    assert_int_equal(udp_send(lab->endpoint, &assigned, &data, 1, 0), 0);
    assert_int_equal(udp_inject(lab->s, &asked, &client, &data, 1), -EADDRNOTAVAIL);
    assert_int_equal(udp_inject(lab->s, &assigned, &client, &data, 1), 0);
    pkt_udp(&sent, LAB_TARGET, 53, LAB_CLIENT, 4000, "x", 1);
    pkt_icmp(&pkt, LAB_CLIENT, LAB_TARGET, 3, 4, 600, sent.data, sent.len);
    ip_lab_input(lab, &pkt); /* icmp.md U4: it quotes a source that is not ours now */
    assert_int_equal(ip_lab_count(lab, "icmp.ignored"), 1);
    stack_set_spoofing(lab->s, true);
    ip_lab_input(lab, &pkt);
    assert_int_equal(ip_lab_count(lab, "icmp.ignored"), 1);
}

static void an_interface_that_is_down_drops(void **state) /* icmp.md 2.1 step 1 */
{
    struct ip_lab *lab = *state;

    assert_int_equal(stack_set_up(lab->s, false), 0);
    ping(lab, LAB_CLIENT, LAB_GATEWAY);
    assert_int_equal(lab->outs + lab->echoes, 0);
    assert_int_equal(ip_lab_count(lab, "ip.down"), 1);
    assert_int_equal(stack_set_up(lab->s, true), 0);
    assert_int_equal(ping(lab, LAB_CLIENT, LAB_GATEWAY), 1);
}

static void loopback_is_let_in_where_allowed(void **state) /* icmp.md 2.1 step 2 */
{
    (void)state;
    for (int allowed = 0; allowed < 2; allowed++) {
        struct ip_lab *lab = ip_lab_new();

        lab->cfg.allow_loopback = allowed;
        lab->cfg.echo_temporary = ECHO_TEMPORARY_REPLY;
        lab->ev.on_echo = NULL;
        ip_lab_start(lab);
        assert_int_equal(ping(lab, "127.0.0.1", LAB_GATEWAY), allowed);
        assert_int_equal(ping(lab, LAB_CLIENT, "127.0.0.2"), allowed);
        assert_int_equal(ip_lab_count(lab, "ip.bad_src"), !allowed);
        assert_int_equal(ip_lab_count(lab, "ip.bad_dst"), !allowed);
        ip_lab_free(lab);
    }
}

static void what_cannot_be_an_address_is_refused(void **state)
{
    struct ip_addr bad[] = { addr("127.0.0.1"), addr("224.0.0.1"), addr("::"), addr("0.0.0.0") };
    struct ip_addr one = addr("192.0.2.1");
    struct ip_lab *lab = *state;
    unsigned added = 0;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(stack_add_address(lab->s, &bad[i], 0, 0), -EINVAL);
    assert_int_equal(stack_add_address(lab->s, &one, 24, 0), -EINVAL); /* a length of IPv6 */
    for (uint32_t i = 0; i < 1000; i++) {
        struct ip_addr a = addr("20.0.0.1");

        put_be32(a.b + 12, (20u << 24) + (i << 8) + 1);
        added += stack_add_address(lab->s, &a, 120, 0) == 0;
    }
    assert_true(added >= 64 && added < 1000); /* config.max_addresses, whatever their prefixes */
    assert_int_equal(ping(lab, LAB_CLIENT, "20.0.0.1"), 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, ip_lab_setup, ip_lab_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_echo_costs_the_same_with_a_million_addresses),
        T(a_broadcast_address_is_found_by_its_prefix),
        cmocka_unit_test(prefixes_are_local_without_being_counted),
        T(the_longest_local_prefix_decides),
        T(we_speak_as_an_address_of_ours),
        T(promiscuous_is_switched_at_run_time),
        T(spoofing_decides_whose_name_may_be_used),
        T(an_interface_that_is_down_drops),
        cmocka_unit_test(loopback_is_let_in_where_allowed),
        T(what_cannot_be_an_address_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
