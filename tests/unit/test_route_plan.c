/* test_route_plan.c - faces src/route/route_plan.c: options become routes and rules, as tables. */
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

#include "culvert/route.h"

enum { TUN_IFINDEX = 7 };

static struct ip_prefix prefix(const char *text)
{
    struct ip_prefix p;

    assert_int_equal(ip_prefix_parse(text, &p), 0);
    return p;
}

static char *plan_text(const struct route_options *opt, const struct route_surroundings *around)
{
    struct route_plan plan;
    struct err err;
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    assert_non_null(f);
    assert_int_equal(route_plan_make(opt, around, TUN_IFINDEX, &plan, &err), 0);
    route_plan_print(&plan, opt->tun_name, f);
    route_plan_fini(&plan);
    assert_int_equal(fclose(f), 0);
    return text;
}

struct plan_row {
    const char *when;
    struct route_options opt;
    const char *commands;
    const struct route_surroundings *around;
};

#define UNREACHABLE4 "ip -4 route add unreachable default table 49431 metric 4294967295 proto 197\n"
#define UNREACHABLE6 "ip -6 route add unreachable default table 49431 metric 4294967295 proto 197\n"
#define DEFAULT4     "ip -4 route add default dev tun0 table 49431 metric 100 proto 197\n"
#define DEFAULT6     "ip -6 route add default dev tun0 table 49431 metric 100 proto 197\n"
#define EXEMPT_FIRST4                                                                                        \
    "ip -4 rule add priority 9099 nop protocol 197\n"                                                        \
    "ip -4 rule add priority 9000 fwmark 0x1b6/0xffffffff goto 9099 protocol 197\n"
#define EXEMPT_LINK4                                                                                         \
    "ip -4 rule add priority 9010 to 224.0.0.0/4 goto 9099 protocol 197\n"                                   \
    "ip -4 rule add priority 9010 to 255.255.255.255/32 goto 9099 protocol 197\n"
#define EXEMPT4 EXEMPT_FIRST4 EXEMPT_LINK4
#define EXEMPT_FIRST6                                                                                        \
    "ip -6 rule add priority 9099 nop protocol 197\n"                                                        \
    "ip -6 rule add priority 9000 fwmark 0x1b6/0xffffffff goto 9099 protocol 197\n"
#define EXEMPT_LINK6 "ip -6 rule add priority 9010 to ff00::/8 goto 9099 protocol 197\n"
#define EXEMPT6      EXEMPT_FIRST6 EXEMPT_LINK6
#define LEAD4                                                                                                \
    "ip -4 rule add priority 9080 lookup main suppress_prefixlength 0 protocol 197\n"                        \
    "ip -4 rule add priority 9090 lookup 49431 protocol 197\n"
#define LEAD6                                                                                                \
    "ip -6 rule add priority 9080 lookup main suppress_prefixlength 0 protocol 197\n"                        \
    "ip -6 rule add priority 9090 lookup 49431 protocol 197\n"
#define DNS4                                                                                                 \
    "ip -4 rule add priority 9020 ipproto udp dport 53 lookup 49431 protocol 197\n"                          \
    "ip -4 rule add priority 9020 ipproto tcp dport 53 lookup 49431 protocol 197\n"

/* All routes come before all rules, whatever the family. */
static bool routes_come_first(const char *text)
{
    size_t first_rule = SIZE_MAX, last_route = SIZE_MAX;

    for (size_t i = 0; text[i] != '\0'; i++) {
        if (strncmp(text + i, " route ", 7) == 0)
            last_route = i;
        else if (first_rule == SIZE_MAX && strncmp(text + i, " rule ", 6) == 0)
            first_rule = i;
    }
    return first_rule != SIZE_MAX && last_route < first_rule;
}

static void a_plan_is_what_the_options_say(void **state)
{
    const struct ip_prefix exclude[] = { prefix("192.168.0.0/16"), prefix("fd12:3456::/32"),
                                         prefix("10.1.2.3") };
    const struct route_surroundings lan = { .local = { prefix("192.168.1.0/24"), prefix("fd00:1::/64") },
                                            .locals = 2 };
    const struct route_surroundings others = { .mark = { { 0xca6c, UINT32_MAX }, { 0x40, 0xf0 } },
                                               .marks = 2 };
    const struct route_choice in = {
        .interface = { "br-lan", "lo" }, .interfaces = 2, .uid = { { 1000, 1999 }, { 5, 5 } }, .uids = 2
    };
    const struct route_choice all_users = { .uid = { { 0, UINT32_MAX - 1 } }, .uids = 1 };
    const struct route_choice out = {
        .interface = { "docker0" }, .interfaces = 1, .uid = { { 108, 108 } }, .uids = 1
    };
    const struct plan_row rows[] = {
        { "strict: a family that is not carried is refused; only connected private networks stay in "
          "reach", /* E4, E5 */
          { "tun0", .v4 = true, .mark = 0x1b6, .strict = true },
          UNREACHABLE4 DEFAULT4 UNREACHABLE6 EXEMPT_FIRST4
          "ip -4 rule add priority 9006 iif tun0 goto 9099 protocol 197\n" EXEMPT_LINK4
          "ip -4 rule add priority 9080 to 192.168.1.0/24 lookup main suppress_prefixlength 23 protocol "
          "197\n"
          "ip -4 rule add priority 9090 lookup 49431 protocol 197\n" EXEMPT_FIRST6
          "ip -6 rule add priority 9006 iif tun0 goto 9099 protocol 197\n" EXEMPT_LINK6
          "ip -6 rule add priority 9080 to fd00:1::/64 lookup main suppress_prefixlength 63 protocol "
          "197\n"
          "ip -6 rule add priority 9090 lookup 49431 protocol 197\n",
          &lan },
        { "marks that others route by go their way",
          { "tun0", .v4 = true, .mark = 0x1b6 },
          UNREACHABLE4 DEFAULT4 UNREACHABLE6 EXEMPT_FIRST4
          "ip -4 rule add priority 9001 fwmark 0xca6c/0xffffffff goto 9099 protocol 197\n"
          "ip -4 rule add priority 9001 fwmark 0x40/0xf0 goto 9099 protocol 197\n" EXEMPT_LINK4 LEAD4,
          &others },
        { "only from some interfaces and for some users: the gaps between them are left out",
          { "tun0", .v4 = true, .mark = 0x1b6, .include = &in },
          UNREACHABLE4 DEFAULT4 UNREACHABLE6 EXEMPT_FIRST4
          "ip -4 rule add priority 9005 nop protocol 197\n"
          "ip -4 rule add priority 9003 iif br-lan goto 9005 protocol 197\n"
          "ip -4 rule add priority 9003 iif lo goto 9005 protocol 197\n"
          "ip -4 rule add priority 9004 goto 9099 protocol 197\n"
          "ip -4 rule add priority 9007 iif lo uidrange 0-4 goto 9099 protocol 197\n"
          "ip -4 rule add priority 9007 iif lo uidrange 6-999 goto 9099 protocol 197\n"
          "ip -4 rule add priority 9007 iif lo uidrange 2000-4294967294 goto 9099 protocol "
          "197\n" EXEMPT_LINK4 LEAD4,
          NULL },
        { "all users are no gap",
          { "tun0", .v4 = true, .mark = 0x1b6, .include = &all_users },
          UNREACHABLE4 DEFAULT4 UNREACHABLE6 EXEMPT4 LEAD4,
          NULL },
        { "not from this interface, not for this user",
          { "tun0", .v4 = true, .mark = 0x1b6, .leave_out = &out },
          UNREACHABLE4 DEFAULT4 UNREACHABLE6 EXEMPT_FIRST4
          "ip -4 rule add priority 9002 iif docker0 goto 9099 protocol 197\n"
          "ip -4 rule add priority 9007 iif lo uidrange 108-108 goto 9099 protocol 197\n" EXEMPT_LINK4 LEAD4,
          NULL },
        { "on-exit: block is noted where a killed process leaves it", /* faults.md X3 */
          { "tun0", .v4 = true, .mark = 0x1b6, .on_exit = ROUTE_BLOCK },
          UNREACHABLE4 DEFAULT4 UNREACHABLE6 EXEMPT_FIRST4
          "ip -4 rule add priority 9008 nop protocol 197\n" EXEMPT_LINK4 LEAD4,
          NULL },
        { "both families",
          { "tun0", .v4 = true, .v6 = true, .mark = 0x1b6 },
          UNREACHABLE4 DEFAULT4 UNREACHABLE6 DEFAULT6 EXEMPT4 LEAD4 EXEMPT6 LEAD6,
          NULL },
        { "IPv4 only: IPv6 is left alone",
          { "tun0", .v4 = true, .mark = 0x1b6 },
          UNREACHABLE4 DEFAULT4 UNREACHABLE6 EXEMPT4 LEAD4,
          NULL },
        { "IPv6 only: IPv4 is left alone",
          { "tun0", .v6 = true, .mark = 0x1b6 },
          UNREACHABLE4 UNREACHABLE6 DEFAULT6 EXEMPT6 LEAD6,
          NULL },
        { "DNS is captured before connected networks are looked at",
          { "tun0", .v4 = true, .mark = 0x1b6, .capture_dns = true },
          UNREACHABLE4 DEFAULT4 UNREACHABLE6 EXEMPT4 DNS4 LEAD4,
          NULL },
        { "excluded prefixes, each in its family, after DNS",
          { "tun0", .v4 = true, .v6 = true, .mark = 0x1b6, .exclude = exclude,
            .excludes = ARRAY_LEN(exclude) },
          UNREACHABLE4 DEFAULT4 UNREACHABLE6 DEFAULT6 EXEMPT4
          "ip -4 rule add priority 9030 to 192.168.0.0/16 goto 9099 protocol 197\n"
          "ip -4 rule add priority 9030 to 10.1.2.3/32 goto 9099 protocol 197\n" LEAD4 EXEMPT6
          "ip -6 rule add priority 9030 to fd12:3456::/32 goto 9099 protocol 197\n" LEAD6,
          NULL },
        { "own table, priority and masked mark",
          { "tun0", .v6 = true, .mark = 0x10, .mark_mask = 0xf0, .table = 77, .priority = 500 },
          "ip -4 route add unreachable default table 77 metric 4294967295 proto 197\n"
          "ip -6 route add unreachable default table 77 metric 4294967295 proto 197\n"
          "ip -6 route add default dev tun0 table 77 metric 100 proto 197\n"
          "ip -6 rule add priority 599 nop protocol 197\n"
          "ip -6 rule add priority 500 fwmark 0x10/0xf0 goto 599 protocol 197\n"
          "ip -6 rule add priority 510 to ff00::/8 goto 599 protocol 197\n"
          "ip -6 rule add priority 580 lookup main suppress_prefixlength 0 protocol 197\n"
          "ip -6 rule add priority 590 lookup 77 protocol 197\n",
          NULL },
    };
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *text = plan_text(&rows[i].opt, rows[i].around);

        if (!routes_come_first(text) || strcmp(text, rows[i].commands) != 0) {
            print_error("%s: planned\n%s", rows[i].when, text);
            wrong++;
        }
        free(text);
    }
    assert_int_equal(wrong, 0);
}

static void every_route_and_rule_carries_our_number_and_the_worst_route_is_unreachable(
    void **state) /* faults.md V3 */
{
    const struct route_options opt = { "tun0", .v4 = true, .v6 = true, .mark = 1, .capture_dns = true };
    struct route_plan plan;
    unsigned unreachable[2] = { 0 };

    (void)state;
    assert_int_equal(route_plan_make(&opt, NULL, TUN_IFINDEX, &plan, NULL), 0);
    for (size_t i = 0; i < plan.route_count; i++) {
        const struct nl_route *r = &plan.routes[i];

        assert_int_equal(r->proto, ROUTE_PROTO_CULVERT);
        assert_int_equal(r->table, ROUTE_TABLE_DEFAULT);
        if (r->type == RTN_UNREACHABLE) {
            unreachable[r->v6]++;
            assert_int_equal(r->metric, UINT32_MAX);
            assert_int_equal(r->ifindex, 0);
        } else {
            assert_int_equal(r->ifindex, TUN_IFINDEX);
        }
    }
    assert_int_equal(unreachable[0], 1);
    assert_int_equal(unreachable[1], 1);
    for (size_t i = 0; i < plan.rule_count; i++) {
        assert_int_equal(plan.rules[i].proto, ROUTE_PROTO_CULVERT);
        assert_in_range(plan.rules[i].priority, ROUTE_PRIORITY_DEFAULT,
                        ROUTE_PRIORITY_DEFAULT + ROUTE_PRIORITIES - 1);
    }
    route_plan_fini(&plan);
}

static void options_that_cannot_work_are_refused_with_a_sentence(void **state)
{
    static struct ip_prefix many[ROUTE_EXCLUDES_MAX + 1];
    const struct {
        struct route_options opt;
        const char *says;
    } rows[] = {
        { { "tun0", .mark = 1 }, "has no address" },
        { { "tun0", .v4 = true }, "must not be 0" },
        { { "tun0", .v4 = true, .mark = 0x100, .mark_mask = 0xff }, "must not be 0" },
        { { "tun0", .v4 = true, .mark = 0x101, .mark_mask = 0xff }, "outside its mask" },
        { { "tun0", .v4 = true, .mark = 1, .exclude = many, .excludes = ARRAY_LEN(many) },
          "257 prefixes are more than 256" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct route_plan plan = { .route_count = 99 };
        struct err err = { "" };

        assert_int_equal(route_plan_make(&rows[i].opt, NULL, TUN_IFINDEX, &plan, &err), -EINVAL);
        assert_int_equal(plan.route_count, 99); /* untouched */
        assert_non_null(strstr(err.text, rows[i].says));
    }
}

static char *nft_text(const struct route_options *opt)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    assert_non_null(f);
    route_nft_text(opt, f);
    assert_int_equal(fclose(f), 0);
    return text;
}

#define SAME4 "meta nfproto ipv4 ip saddr != { 198.18.0.1 } "
#define NFT_START                                                                                            \
    "table inet culvert {\n  chain prerouting {\n"                                                           \
    "    type filter hook prerouting priority mangle; policy accept;\n"                                      \
    "    iifname \"tun0\" return\n"                                                                          \
    "    ip daddr { 198.18.0.1 } fib saddr type != local drop\n"                                             \
    "    meta mark != 0 return\n"                                                                            \
    "    ct direction reply meta mark set 0x1b6 return\n"                                                    \
    "    ct status snat ct reply ip daddr != { 198.18.0.1 } meta mark set 0x1b6 return\n  }\n"
#define NFT_OUTPUT                                                                                           \
    "  chain output {\n    type route hook output priority mangle; policy accept;\n"                         \
    "    meta mark != 0 return\n    oifname \"lo\" return\n"                                                 \
    "    ct direction reply meta mark set 0x1b6 return\n"
#define NFT_EARLIER                                                                                          \
    "    meta mark != 0 return\n"                                                                            \
    "    " SAME4 "tcp flags & (syn | ack) == syn ct mark set ct mark | 0x20000000\n"                         \
    "    " SAME4 "meta l4proto tcp ct mark & 0x20000000 == 0 meta mark set 0x1b6 return\n"                   \
    "    meta nfproto ipv6  tcp flags & (syn | ack) == syn ct mark set ct mark | 0x20000000\n"               \
    "    meta nfproto ipv6  meta l4proto tcp ct mark & 0x20000000 == 0 meta mark set 0x1b6 return\n  }\n"

static void the_table_of_nftables_is_what_the_options_say(void **state) /* faults.md E6, E7 */
{
    const struct route_choice in = { .gid = { { 5, 5 }, { 10, 20 } },
                                     .gids = 2,
                                     .cgroup = { "system.slice/tor.service", "user.slice" },
                                     .cgroups = 2 };
    const struct route_choice left = { .gid = { { 7, 7 } }, .gids = 1, .cgroup = { "a" }, .cgroups = 1 };
    struct route_options plain = { "tun0", .v4 = true, .mark = 0x1b6, .address = { { .len = 126 } },
                                   .addresses = 1 };
    struct route_options chosen;
    char *text;

    (void)state;
    assert_int_equal(ip_parse("198.18.0.1", &plain.address[0].addr), 0);
    chosen = plain;
    chosen.include = &in;
    chosen.leave_out = &left;
    assert_false(route_needs_nft(&plain));
    assert_true(route_needs_nft(&chosen));
    text = nft_text(&plain);
    assert_string_equal(text, NFT_START NFT_OUTPUT NFT_EARLIER "}\n");
    free(text);
    text = nft_text(&chosen);
    assert_string_equal(text, NFT_START
                        "  chain cgroups {\n"
                        "    socket cgroupv2 level 2 \"system.slice/tor.service\" return\n"
                        "    socket cgroupv2 level 1 \"user.slice\" return\n"
                        "    meta mark set 0x1b6\n  }\n" NFT_OUTPUT
                        "    meta skgid { 7-7 } meta mark set 0x1b6 return\n"
                        "    meta skgid != { 5-5, 10-20 } meta mark set 0x1b6 return\n"
                        "    socket cgroupv2 level 1 \"a\" meta mark set 0x1b6 return\n"
                        "    jump cgroups\n" NFT_EARLIER "  chain postrouting {\n"
                        "    type nat hook postrouting priority srcnat; policy accept;\n"
                        "    oifname != \"tun0\" meta nfproto ipv4 ip saddr { 198.18.0.1 } masquerade\n"
                        "    oifname != \"tun0\" meta nfproto ipv6 accept\n  }\n}\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_is_what_the_options_say),
        cmocka_unit_test(every_route_and_rule_carries_our_number_and_the_worst_route_is_unreachable),
        cmocka_unit_test(the_table_of_nftables_is_what_the_options_say),
        cmocka_unit_test(options_that_cannot_work_are_refused_with_a_sentence),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
