/* test_netlink.c - faces src/loop/netlink*.c, in a network namespace of its own: links, addresses, routes, rules, events. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "culvert/loop.h"
#include "loop_wait.h"
#include "netns.h"

enum { TABLE = 54321, PRIORITY = 7000, PROTO = 200 };

struct lab {
    struct netlink *nl;
    int lo;
};

static int setup(void **state)
{
    struct lab *lab = calloc(1, sizeof(*lab));
    struct nl_link link;

    *state = lab;
    if (lab == NULL)
        return -1;
    if (netlink_open(&lab->nl, NULL) != 0 || netlink_link_by_name(lab->nl, "lo", &link) != 0)
        return -1;
    lab->lo = link.ifindex;
    return 0;
}

static int teardown(void **state)
{
    struct lab *lab = *state;

    netlink_close(lab->nl);
    free(lab);
    return 0;
}

static struct ip_prefix prefix(const char *text)
{
    struct ip_prefix p;

    assert_int_equal(ip_prefix_parse(text, &p), 0);
    return p;
}

/* "addr/len" with its host bits kept */
static struct ip_prefix host_prefix(const char *addr, uint8_t len)
{
    struct ip_prefix p = { .len = len };

    assert_int_equal(ip_parse(addr, &p.addr), 0);
    if (ip_is4(&p.addr))
        p.len = (uint8_t)(len + 96);
    return p;
}

/* ---- links ---- */

static void a_link_is_found_by_name_and_by_index_and_its_settings_change(void **state)
{
    struct lab *lab = *state;
    struct nl_link link;

    assert_int_equal(netlink_link_by_name(lab->nl, "nosuch0", &link), -ENODEV);
    assert_int_equal(netlink_link_by_name(lab->nl, "a-name-of-more-than-15", &link), -ENODEV);
    assert_int_equal(netlink_link_by_name(lab->nl, "", &link), -ENODEV);
    assert_int_equal(netlink_link_by_index(lab->nl, 9999, &link), -ENODEV);
    assert_int_equal(netlink_link_by_index(lab->nl, lab->lo, &link), 0);
    assert_string_equal(link.name, "lo");
    assert_true(link.up);
    assert_int_equal(netlink_link_set(lab->nl, lab->lo, true, 9000, 77), 0);
    assert_int_equal(netlink_link_by_name(lab->nl, "lo", &link), 0);
    assert_int_equal(link.mtu, 9000);
    assert_int_equal(link.txqueuelen, 77);
    assert_int_equal(netlink_link_set(lab->nl, lab->lo, false, 0, 0), 0);
    assert_int_equal(netlink_link_by_name(lab->nl, "lo", &link), 0);
    assert_false(link.up);
    assert_int_equal(link.mtu, 9000);
    assert_int_equal(netlink_link_set(lab->nl, lab->lo, true, 65536, 1000), 0);
    assert_int_equal(netlink_link_set(lab->nl, 9999, true, 0, 0), -ENODEV);
}

/* ---- addresses ---- */

struct find_addr {
    const struct ip_prefix *want;
    unsigned found, all;
};

static int match_addr(void *arg, const struct nl_addr *a)
{
    struct find_addr *f = arg;

    f->all++;
    if (ip_equal(&a->addr.addr, &f->want->addr) && a->addr.len == f->want->len)
        f->found++;
    return 0;
}

static unsigned count_addr(struct lab *lab, int ifindex, const struct ip_prefix *want)
{
    struct find_addr f = { .want = want };

    assert_int_equal(netlink_addrs(lab->nl, ifindex, match_addr, &f), 0);
    return f.found;
}

static void addresses_of_both_families_are_added_listed_and_removed(void **state)
{
    struct lab *lab = *state;
    struct ip_prefix addrs[] = { host_prefix("198.18.0.1", 30), host_prefix("fdfe:dcba:9876::1", 126) };

    for (size_t i = 0; i < ARRAY_LEN(addrs); i++) {
        assert_int_equal(netlink_addr_add(lab->nl, lab->lo, &addrs[i]), 0);
        assert_int_equal(netlink_addr_add(lab->nl, lab->lo, &addrs[i]), -EEXIST);
        assert_int_equal(count_addr(lab, lab->lo, &addrs[i]), 1);
        assert_int_equal(count_addr(lab, 0, &addrs[i]), 1);
        assert_int_equal(count_addr(lab, 9999, &addrs[i]), 0);
        assert_int_equal(netlink_addr_del(lab->nl, lab->lo, &addrs[i]), 0);
        assert_int_equal(netlink_addr_del(lab->nl, lab->lo, &addrs[i]), -EADDRNOTAVAIL);
        assert_int_equal(count_addr(lab, lab->lo, &addrs[i]), 0);
    }
}

static int stop_at_first_addr(void *arg, const struct nl_addr *a)
{
    (void)a;
    ++*(unsigned *)arg;
    return 42;
}

static void a_walk_stops_when_its_visitor_says_so(void **state)
{
    struct lab *lab = *state;
    unsigned calls = 0;

    assert_int_equal(netlink_addrs(lab->nl, 0, stop_at_first_addr, &calls), 42);
    assert_int_equal(calls, 1);
}

/* ---- routes ---- */

struct route_list {
    struct nl_route r[1100];
    size_t count;
};

static int keep_route(void *arg, const struct nl_route *r)
{
    struct route_list *l = arg;

    assert_true(l->count < ARRAY_LEN(l->r));
    l->r[l->count++] = *r;
    return 0;
}

static struct route_list *list_routes(struct lab *lab, uint32_t table)
{
    struct route_list *l = calloc(1, sizeof(*l));

    assert_non_null(l);
    assert_int_equal(netlink_routes(lab->nl, table, keep_route, l), 0);
    return l;
}

static void assert_route_equal(const struct nl_route *a, const struct nl_route *b)
{
    assert_true(ip_equal(&a->dst.addr, &b->dst.addr));
    assert_int_equal(a->dst.len, b->dst.len);
    assert_int_equal(a->v6, b->v6);
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->proto, b->proto);
    assert_int_equal(a->table, b->table);
    assert_int_equal(a->metric, b->metric);
    assert_int_equal(a->ifindex, b->ifindex);
    assert_true(ip_equal(&a->gateway, &b->gateway));
}

static void routes_of_every_kind_come_back_as_they_were_given(void **state)
{
    struct lab *lab = *state;
    const struct nl_route rows[] = {
        { .dst = prefix("0.0.0.0/0"), .type = RTN_UNICAST, .metric = 50, .ifindex = lab->lo },
        { .dst = prefix("0.0.0.0/0"), .type = RTN_UNREACHABLE, .metric = UINT32_MAX },
        { .dst = prefix("192.0.2.0/24"), .type = RTN_UNICAST, .metric = 5, .ifindex = lab->lo },
        { .dst = prefix("198.51.100.7/32"), .type = RTN_BLACKHOLE, .metric = 1 },
        { .dst = prefix("::/0"), .v6 = true, .type = RTN_UNICAST, .metric = 50, .ifindex = lab->lo },
        { .dst = prefix("::/0"), .v6 = true, .type = RTN_UNREACHABLE, .metric = UINT32_MAX },
        { .dst = prefix("2001:db8::/32"), .v6 = true, .type = RTN_PROHIBIT, .metric = 7 },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct nl_route r = rows[i];
        struct route_list *l;

        r.table = TABLE;
        r.proto = PROTO;
        assert_int_equal(netlink_route_add(lab->nl, &r), 0);
        assert_int_equal(netlink_route_add(lab->nl, &r), 0); /* replaces an equal one */
        l = list_routes(lab, TABLE);
        assert_int_equal(l->count, 1);
        assert_route_equal(&l->r[0], &r);
        free(l);
        assert_int_equal(netlink_route_del(lab->nl, &r), 0);
        assert_int_equal(netlink_route_del(lab->nl, &r), -ESRCH);
        l = list_routes(lab, TABLE);
        assert_int_equal(l->count, 0);
        free(l);
    }
}

static int delete_route(void *arg, const struct nl_route *r)
{
    return netlink_route_del(arg, r);
}

static void a_thousand_routes_are_one_dump_and_a_visitor_may_delete_them(void **state)
{
    struct lab *lab = *state;
    struct nl_route r = {
        .dst = prefix("10.0.0.0/32"), .type = RTN_UNREACHABLE, .table = TABLE, .proto = PROTO
    };
    struct route_list *l;

    for (unsigned i = 0; i < 1000; i++) {
        put_be16(r.dst.addr.b + 14, (uint16_t)i);
        assert_int_equal(netlink_route_add(lab->nl, &r), 0);
    }
    l = list_routes(lab, TABLE);
    assert_int_equal(l->count, 1000);
    free(l);
    assert_int_equal(netlink_routes(lab->nl, TABLE, delete_route, lab->nl), 0);
    l = list_routes(lab, TABLE);
    assert_int_equal(l->count, 0);
    free(l);
}

static void the_default_link_is_the_best_default_route_that_is_not_ours(void **state)
{
    struct lab *lab = *state;
    int ifindex = -1;

    for (int v6 = 0; v6 < 2; v6++) {
        struct nl_route r = { .dst = prefix(v6 ? "::/0" : "0.0.0.0/0"),
                              .v6 = v6 != 0,
                              .type = RTN_UNICAST,
                              .table = RT_TABLE_MAIN,
                              .metric = 10,
                              .proto = PROTO,
                              .ifindex = lab->lo };

        assert_int_equal(netlink_default_link(lab->nl, v6 != 0, 0, &ifindex), -ENETUNREACH);
        assert_int_equal(netlink_route_add(lab->nl, &r), 0);
        assert_int_equal(netlink_default_link(lab->nl, v6 != 0, 0, &ifindex), 0);
        assert_int_equal(ifindex, lab->lo);
        assert_int_equal(netlink_default_link(lab->nl, v6 != 0, lab->lo, &ifindex), -ENETUNREACH);
        assert_int_equal(netlink_route_del(lab->nl, &r), 0);
    }
}

/* ---- rules ---- */

struct find_rule {
    bool v6;
    unsigned found;
    struct nl_rule rule;
};

static int match_rule(void *arg, const struct nl_rule *r)
{
    struct find_rule *f = arg;

    if (r->priority == PRIORITY && r->v6 == f->v6) {
        f->found++;
        f->rule = *r;
    }
    return 0;
}

static void assert_rule_equal(const struct nl_rule *a, const struct nl_rule *b)
{
    assert_int_equal(a->invert, b->invert);
    assert_int_equal(a->table, b->table);
    assert_int_equal(a->action, b->action);
    assert_int_equal(a->proto, b->proto);
    assert_int_equal(a->fwmark, b->fwmark);
    assert_int_equal(a->fwmask, b->fwmask);
    assert_int_equal(a->suppress_prefixlen_plus1, b->suppress_prefixlen_plus1);
    assert_int_equal(a->has_uid, b->has_uid);
    assert_int_equal(a->uid_first, b->uid_first);
    assert_int_equal(a->uid_last, b->uid_last);
    assert_string_equal(a->iif, b->iif);
    assert_string_equal(a->oif, b->oif);
    assert_int_equal(a->ip_proto, b->ip_proto);
    assert_int_equal(a->dport_first, b->dport_first);
    assert_int_equal(a->dport_last, b->dport_last);
    if (b->dst.len > 0) {
        assert_int_equal(a->dst.len, b->dst.len);
        assert_true(ip_equal(&a->dst.addr, &b->dst.addr));
    }
    if (b->src.len > 0) {
        assert_int_equal(a->src.len, b->src.len);
        assert_true(ip_equal(&a->src.addr, &b->src.addr));
    }
}

static void rules_of_every_kind_come_back_as_they_were_given(void **state)
{
    struct lab *lab = *state;
    const struct nl_rule rows[] = {
        { .table = TABLE },
        { .table = RT_TABLE_MAIN, .fwmark = 0x1b6, .fwmask = UINT32_MAX },
        { .table = RT_TABLE_MAIN, .suppress_prefixlen_plus1 = 1 },
        { .table = TABLE, .invert = true, .fwmark = 2, .fwmask = 0xff },
        { .table = TABLE, .ip_proto = IP_PROTO_UDP, .dport_first = 53, .dport_last = 53 },
        { .table = TABLE, .has_uid = true, .uid_first = 0, .uid_last = 0 },
        { .table = TABLE, .iif = "lo" },
        { .table = TABLE, .oif = "br-lan" },
        { .table = RT_TABLE_MAIN, .dst = prefix("192.168.0.0/16"), .src = prefix("10.0.0.0/8") },
        { .v6 = true, .table = TABLE },
        { .v6 = true, .table = RT_TABLE_MAIN, .dst = prefix("fd00::/8") },
        { .v6 = true, .table = RT_TABLE_MAIN, .suppress_prefixlen_plus1 = 1 },
        { .v6 = true, .action = FR_ACT_UNREACHABLE },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct nl_rule r = rows[i];
        struct find_rule f = { .v6 = r.v6 };

        r.priority = PRIORITY;
        r.proto = PROTO;
        if (r.action == 0)
            r.action = FR_ACT_TO_TBL;
        assert_int_equal(netlink_rule_add(lab->nl, &r), 0);
        assert_int_equal(netlink_rule_add(lab->nl, &r), -EEXIST);
        assert_int_equal(netlink_rules(lab->nl, match_rule, &f), 0);
        assert_int_equal(f.found, 1);
        assert_rule_equal(&f.rule, &r);
        assert_int_equal(netlink_rule_del(lab->nl, &f.rule),
                         0); /* what was read is good enough to delete by */
        assert_int_equal(netlink_rule_del(lab->nl, &r), -ENOENT);
    }
}

/* ---- events ---- */

struct told {
    unsigned of[NETLINK_EVENTS_LOST + 1];
    int last_ifindex[NETLINK_EVENTS_LOST + 1];
};

static void on_event(void *arg, enum netlink_event what, int ifindex)
{
    struct told *told = arg;

    told->of[what]++;
    told->last_ifindex[what] = ifindex;
}

static bool all_kinds_told(void *arg)
{
    const struct told *told = arg;

    return told->of[NETLINK_LINK_CHANGED] > 0 && told->of[NETLINK_ADDR_CHANGED] > 0 &&
           told->of[NETLINK_ROUTE_CHANGED] > 0 && told->of[NETLINK_RULE_CHANGED] > 0;
}

static void every_kind_of_change_is_told(void **state)
{
    struct lab *lab = *state;
    struct ip_prefix addr = host_prefix("198.18.0.1", 32);
    struct nl_rule rule = { .table = TABLE, .priority = PRIORITY, .action = FR_ACT_TO_TBL };
    struct netlink_watch *watch;
    struct told told = { 0 };
    struct loop_wait wait;
    struct loop *loop;

    assert_int_equal(loop_new(&loop), 0);
    loop_wait_init(&wait, loop);
    assert_int_equal(netlink_watch_open(loop, on_event, &told, &watch), 0);
    assert_int_equal(netlink_link_set(lab->nl, lab->lo, true, 9000, 0), 0);
    assert_int_equal(netlink_addr_add(lab->nl, lab->lo, &addr), 0);
    assert_int_equal(netlink_rule_add(lab->nl, &rule), 0);
    assert_true(loop_wait_until(&wait, 2000, all_kinds_told, &told));
    assert_int_equal(told.last_ifindex[NETLINK_LINK_CHANGED], lab->lo);
    assert_int_equal(told.last_ifindex[NETLINK_ADDR_CHANGED], lab->lo);
    assert_int_equal(told.last_ifindex[NETLINK_RULE_CHANGED], 0);
    assert_int_equal(netlink_rule_del(lab->nl, &rule), 0);
    assert_int_equal(netlink_addr_del(lab->nl, lab->lo, &addr), 0);
    netlink_watch_close(watch);
    loop_free(loop);
}

static bool loss_told(void *arg)
{
    return ((const struct told *)arg)->of[NETLINK_EVENTS_LOST] > 0;
}

static void events_that_the_kernel_dropped_are_told_as_lost(void **state) /* faults.md R4 */
{
    struct lab *lab = *state;
    struct ip_prefix addr = host_prefix("198.18.0.1", 32);
    struct netlink_watch *watch;
    struct told told = { 0 };
    struct loop_wait wait;
    struct loop *loop;

    assert_int_equal(loop_new(&loop), 0);
    loop_wait_init(&wait, loop);
    assert_int_equal(netlink_watch_open(loop, on_event, &told, &watch), 0);
    for (int i = 0; i < 3000; i++) { /* 4 events each, and nobody reads: more than the receive buffer holds */
        assert_int_equal(netlink_addr_add(lab->nl, lab->lo, &addr), 0);
        assert_int_equal(netlink_addr_del(lab->nl, lab->lo, &addr), 0);
    }
    assert_true(loop_wait_until(&wait, 5000, loss_told, &told));
    assert_int_equal(told.last_ifindex[NETLINK_EVENTS_LOST], 0);
    netlink_watch_close(watch);
    loop_free(loop);
}

static bool nft_told(void *arg)
{
    return ((const struct told *)arg)->of[NETLINK_NFT_CHANGED] > 0;
}

static void a_table_of_nftables_is_counted_watched_and_removed(void **state) /* faults.md E7 */
{
    static const char make[] = "printf 'table inet lab {\\n chain a {\\n counter\\n counter\\n }\\n}\\n"
                               "table inet other {\\n chain a {\\n counter\\n }\\n}\\n' | nft -f -";
    struct netlink_watch *watch;
    struct told told = { 0 };
    struct loop_wait wait;
    struct netlink *nft;
    struct loop *loop;
    unsigned count = 99;

    (void)state;
    if (system("command -v nft >/dev/null") != 0)
        SKIP("nft is not installed");
    assert_int_equal(netlink_open_nft(&nft, NULL), 0);
    assert_int_equal(loop_new(&loop), 0);
    loop_wait_init(&wait, loop);
    assert_int_equal(netlink_watch_open_nft(loop, on_event, &told, &watch), 0);
    assert_int_equal(netlink_nft_rules(nft, "lab", &count), -ENOENT);
    assert_int_equal(netlink_nft_remove(nft, "lab"), -ENOENT);
    assert_int_equal(count, 99);
    assert_int_equal(system(make), 0);
    assert_true(loop_wait_until(&wait, 2000, nft_told, &told));
    assert_int_equal(netlink_nft_rules(nft, "lab", &count), 0);
    assert_int_equal(count, 2);
    assert_int_equal(netlink_nft_remove(nft, "lab"), 0);
    assert_int_equal(netlink_nft_rules(nft, "lab", &count), -ENOENT);
    assert_int_equal(netlink_nft_rules(nft, "other", &count), 0); /* nobody else's is touched */
    assert_int_equal(count, 1);
    assert_int_equal(netlink_nft_remove(nft, "other"), 0);
    netlink_watch_close(watch);
    loop_free(loop);
    netlink_close(nft);
}

static int udp_on(const char *addr, uint32_t mark)
{
    struct ip_port at = { .port = 0 }, to = { .port = 9 };
    struct sockaddr_storage ss;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(ip_parse(addr, &at.addr), 0);
    assert_int_equal(ip_parse("127.0.0.1", &to.addr), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&ss, ip_to_sockaddr(&at, &ss)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&ss, ip_to_sockaddr(&to, &ss)), 0);
    return fd;
}

static int error_of(int fd)
{
    int error = -1;
    socklen_t len = sizeof(error);

    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len), 0);
    close(fd);
    return error;
}

static void only_sockets_with_the_address_and_the_mark_are_ended(void **state) /* faults.md E3 */
{
    struct ip_addr gone;
    struct netlink *diag;
    unsigned count = 99;
    int ours, other_mark, other_address, r;

    (void)state;
    assert_int_equal(netlink_open_diag(&diag, NULL), 0);
    assert_int_equal(ip_parse("127.0.0.7", &gone), 0);
    ours = udp_on("127.0.0.7", 5);
    other_mark = udp_on("127.0.0.7", 6);
    other_address = udp_on("127.0.0.8", 5);
    r = netlink_destroy_sockets(diag, &gone, 5, &count);
    if (r == -EOPNOTSUPP)
        SKIP("this kernel has no SOCK_DESTROY");
    assert_int_equal(r, 0);
    assert_int_equal(count, 1);
    assert_int_equal(error_of(ours), ECONNABORTED);
    assert_int_equal(error_of(other_mark), 0);
    assert_int_equal(error_of(other_address), 0);
    assert_int_equal(netlink_destroy_sockets(diag, &gone, 0, &count), 0); /* no mark: none is known as ours */
    assert_int_equal(count, 0);
    netlink_close(diag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_link_is_found_by_name_and_by_index_and_its_settings_change, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(addresses_of_both_families_are_added_listed_and_removed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_walk_stops_when_its_visitor_says_so, setup, teardown),
        cmocka_unit_test_setup_teardown(routes_of_every_kind_come_back_as_they_were_given, setup, teardown),
        cmocka_unit_test_setup_teardown(a_thousand_routes_are_one_dump_and_a_visitor_may_delete_them, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_default_link_is_the_best_default_route_that_is_not_ours, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(rules_of_every_kind_come_back_as_they_were_given, setup, teardown),
        cmocka_unit_test_setup_teardown(every_kind_of_change_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(a_table_of_nftables_is_counted_watched_and_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(only_sockets_with_the_address_and_the_mark_are_ended, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(events_that_the_kernel_dropped_are_told_as_lost, setup, teardown),
    };

    return run_unless(netns_enter(), tests);
}
