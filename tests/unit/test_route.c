/* test_route.c - faces src/route/route.c, route_restore.c and route_watch.c, in a network namespace of its own: an uplink "up0"
 * with default routes, a TUN "tun0", and connected sockets that tell by their own address which way they would go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "culvert/route.h"
#include "tun_lab.h"

enum { MARK = 0x1b6, SOON_MS = 2000 };

struct route_lab {
    struct tun_lab tun; /* tun.tun is "tun0" */
    struct tun *uplink;
    struct route *route;
};

static struct tun *open_device(struct netlink *nl, const char *name, const char *addr4, const char *addr6)
{
    struct tun_options opt = { .fd = -1 };
    struct err err = { "" };
    struct tun *t = NULL;

    snprintf(opt.name, sizeof(opt.name), "%s", name);
    if (addr4 != NULL) {
        ip_parse(addr4, &opt.address[opt.addresses].addr);
        opt.address[opt.addresses++].len = 96 + 24;
    }
    if (addr6 != NULL) {
        ip_parse(addr6, &opt.address[opt.addresses].addr);
        opt.address[opt.addresses++].len = 64;
    }
    if (tun_open(&opt, 1, nl, &t, &err) != 0)
        print_error("%s\n", err.text);
    return t;
}

static int setup(void **state)
{
    struct route_lab *lab = calloc(1, sizeof(*lab));

    *state = lab;
    if (lab == NULL)
        return -1;
    if (!tun_lab_init(&lab->tun))
        return -1;
    lab->uplink = open_device(lab->tun.nl, "up0", "192.0.2.2", "2001:db8::2");
    lab->tun.tun = open_device(lab->tun.nl, "tun0", "198.18.0.1", "fdfe:dcba:9876::1");
    return lab->uplink != NULL && lab->tun.tun != NULL &&
                   tun_lab_sh("ip route add default via 192.0.2.1 dev up0 && "
                              "ip -6 route add default via 2001:db8::1 dev up0 metric 1024")
               ? 0
               : -1;
}

static int teardown(void **state)
{
    struct route_lab *lab = *state;

    route_undo(lab->route);
    tun_close(lab->uplink);
    tun_lab_fini(&lab->tun);
    free(lab);
    return 0;
}

static struct route_options options(void)
{
    return (struct route_options){ .tun_name = "tun0", .v4 = true, .v6 = true, .mark = MARK };
}

static void apply(struct route_lab *lab, const struct route_options *opt)
{
    struct err err = { "" };
    int r = route_apply(lab->tun.nl, opt, &lab->route, &err);

    if (r != 0)
        print_error("%s\n", err.text);
    assert_int_equal(r, 0);
}

static void undo(struct route_lab *lab)
{
    route_undo(lab->route);
    lab->route = NULL;
}

/* All rules and routes of this namespace, as ip(8) shows them. The caller frees it. */
static char *everything(void)
{
    static const char command[] = "ip -d -4 rule; ip -d -6 rule; ip -d -4 route show table all; "
                                  "ip -d -6 route show table all | sed 's/ expires [0-9]*sec//'";
    char *text = calloc(1, 65536);
    FILE *f = popen(command, "re");
    size_t len;

    assert_non_null(text);
    assert_non_null(f);
    len = fread(text, 1, 65535, f);
    assert_true(len > 100 && len < 65535);
    assert_int_equal(pclose(f), 0);
    return text;
}

static void assert_everything_is(const char *before)
{
    char *now = everything();

    if (strcmp(now, before) != 0)
        print_error("before:\n%s\nnow:\n%s\n", before, now);
    assert_string_equal(now, before);
    free(now);
}

/* The address that a socket to @to gets, or the errno's name: connect() asks the routing and sends nothing. */
static const char *way(const char *to, uint16_t port, uint32_t mark, char out[IP_TEXT_MAX])
{
    struct ip_port target = { .port = port }, own;
    struct sockaddr_storage ss;
    socklen_t len;
    int fd;

    assert_int_equal(ip_parse(to, &target.addr), 0);
    len = ip_to_sockaddr(&target, &ss);
    fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (mark != 0)
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)), 0);
    if (connect(fd, (struct sockaddr *)&ss, len) != 0) {
        snprintf(out, IP_TEXT_MAX, "%s",
                 errno == ENETUNREACH || errno == EHOSTUNREACH ? "unreachable" : strerror(errno));
    } else {
        len = sizeof(ss);
        assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
        assert_int_equal(ip_from_sockaddr((struct sockaddr *)&ss, &own), 0);
        ip_text(&own.addr, out);
    }
    close(fd);
    return out;
}

struct way_row {
    const char *when, *to;
    uint16_t port;
    uint32_t mark;
    const char *own; /* the address that tells the way */
};

static void check_ways(const struct way_row *rows, size_t count)
{
    char text[IP_TEXT_MAX];
    int wrong = 0;

    for (size_t i = 0; i < count; i++) {
        const char *own = way(rows[i].to, rows[i].port, rows[i].mark, text);

        if (strcmp(own, rows[i].own) == 0)
            continue;
        print_error("%s: %s port %u goes by %s, not %s\n", rows[i].when, rows[i].to, rows[i].port, own,
                    rows[i].own);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

#define TUN4    "198.18.0.1"
#define TUN6    "fdfe:dcba:9876::1"
#define UPLINK4 "192.0.2.2"
#define UPLINK6 "2001:db8::2"

static void everything_enters_the_tun_but_what_is_ours_local_or_connected(void **state)
{
    static const struct way_row rows[] = {
        { "internet", "203.0.113.5", 443, 0, TUN4 },
        { "internet, IPv6", "2001:db8:1::5", 443, 0, TUN6 },
        { "our own socket", "203.0.113.5", 443, MARK, UPLINK4 },
        { "our own socket, IPv6", "2001:db8:1::5", 443, MARK, UPLINK6 },
        { "another mark", "203.0.113.5", 443, 7, TUN4 },
        { "connected network", "192.0.2.9", 443, 0, UPLINK4 },
        { "connected network, IPv6", "2001:db8::9", 443, 0, UPLINK6 },
        { "network of the TUN", "198.18.0.9", 443, 0, TUN4 },
        { "name server that is connected, DNS not captured", "192.0.2.9", 53, 0, UPLINK4 },
        { "loopback", "127.0.0.1", 53, 0, "127.0.0.1" },
        { "loopback, IPv6", "::1", 53, 0, "::1" },
        { "the machine itself", UPLINK4, 53, 0, UPLINK4 },
        { "multicast", "239.255.255.250", 1900, 0, UPLINK4 },
    };
    struct route_lab *lab = *state;
    struct route_options opt = options();

    apply(lab, &opt);
    check_ways(rows, ARRAY_LEN(rows));
}

static void captured_dns_enters_the_tun_from_connected_and_excluded_networks_too(void **state)
{
    static const struct way_row rows[] = {
        { "connected name server", "192.0.2.9", 53, 0, TUN4 },
        { "connected name server, IPv6", "2001:db8::9", 53, 0, TUN6 },
        { "name server in the internet", "203.0.113.53", 53, 0, TUN4 },
        { "excluded name server", "198.51.100.53", 53, 0, TUN4 },
        { "our own query", "192.0.2.9", 53, MARK, UPLINK4 },
        { "local stub resolver", "127.0.0.53", 53, 0, "127.0.0.1" },
        { "connected, other port", "192.0.2.9", 5353, 0, UPLINK4 },
        { "excluded, other port", "198.51.100.53", 443, 0, UPLINK4 },
        { "excluded, IPv6", "2001:db8:5::1", 443, 0, UPLINK6 },
    };
    struct route_lab *lab = *state;
    struct route_options opt = options();
    struct ip_prefix exclude[2];

    assert_int_equal(ip_prefix_parse("198.51.100.0/24", &exclude[0]), 0);
    assert_int_equal(ip_prefix_parse("2001:db8:5::/48", &exclude[1]), 0);
    opt.capture_dns = true;
    opt.exclude = exclude;
    opt.excludes = ARRAY_LEN(exclude);
    apply(lab, &opt);
    check_ways(rows, ARRAY_LEN(rows));
}

static void a_family_that_the_tun_does_not_carry_is_left_alone(void **state) /* faults.md E4 */
{
    static const struct way_row rows[] = {
        { "IPv4", "203.0.113.5", 443, 0, TUN4 },
        { "IPv6", "2001:db8:1::5", 443, 0, UPLINK6 },
        { "IPv6 DNS", "2001:db8::9", 53, 0, UPLINK6 },
    };
    struct route_lab *lab = *state;
    struct route_options opt = options();

    opt.v6 = false;
    opt.capture_dns = true;
    apply(lab, &opt);
    check_ways(rows, ARRAY_LEN(rows));
}

static void our_sockets_without_an_uplink_fail_and_never_enter_the_tun(void **state) /* faults.md E1 */
{
    static const struct way_row rows[] = {
        { "ours", "203.0.113.5", 443, MARK, "unreachable" },
        { "ours, IPv6", "2001:db8:1::5", 443, MARK, "unreachable" },
        { "others", "203.0.113.5", 443, 0, TUN4 },
    };
    struct route_lab *lab = *state;
    struct route_options opt = options();

    apply(lab, &opt);
    assert_true(tun_lab_sh("ip link set up0 down"));
    check_ways(rows, ARRAY_LEN(rows));
}

static void undo_leaves_every_rule_and_route_as_it_was(void **state)
{
    struct route_lab *lab = *state;
    struct route_options opt = options();
    char *before = everything();
    struct ip_prefix exclude[2];

    assert_int_equal(ip_prefix_parse("10.0.0.0/8", &exclude[0]), 0);
    exclude[1] = exclude[0]; /* named twice */
    opt.exclude = exclude;
    opt.excludes = ARRAY_LEN(exclude);
    opt.capture_dns = true;
    apply(lab, &opt);
    undo(lab);
    assert_everything_is(before);
    free(before);
}

static void the_printed_plan_does_by_hand_what_apply_does(void **state)
{
    struct route_lab *lab = *state;
    struct route_options opt = options();
    struct route_plan plan;
    char *applied;
    FILE *sh;

    opt.capture_dns = true;
    apply(lab, &opt);
    applied = everything();
    undo(lab);
    assert_int_equal(route_plan_make(&opt, NULL, tun_ifindex(lab->tun.tun), &plan, NULL), 0);
    sh = popen("sh -e", "we");
    assert_non_null(sh);
    route_plan_print(&plan, "tun0", sh);
    assert_int_equal(pclose(sh), 0);
    route_plan_fini(&plan);
    assert_everything_is(applied);
    assert_int_equal(route_cleanup(lab->tun.nl, 0, 0, NULL), 0);
    free(applied);
}

static void a_failure_half_way_leaves_nothing_behind(void **state)
{
    struct route_lab *lab = *state;
    struct route_options opt = options();
    struct err err = { "" };
    char *before;

    assert_true(tun_lab_sh("ip link set tun0 mtu 1000")); /* which ends IPv6 on it */
    before = everything();
    assert_int_not_equal(route_apply(lab->tun.nl, &opt, &lab->route, &err), 0);
    assert_non_null(strstr(err.text, "IPv6 route of table 49431 cannot be added"));
    assert_everything_is(before);
    snprintf(opt.tun_name, sizeof(opt.tun_name), "nosuch0");
    assert_int_equal(route_apply(lab->tun.nl, &opt, &lab->route, &err), -ENODEV);
    assert_non_null(strstr(err.text, "no interface nosuch0"));
    assert_everything_is(before);
    free(before);
}

/* ---- two at once, and dead ones ---- */

static void a_second_instance_is_refused_and_touches_nothing(void **state) /* faults.md X4 */
{
    struct route_lab *lab = *state;
    struct route_options opt = options(), second = options();
    struct tun *other = open_device(lab->tun.nl, "tun1", "198.18.9.1", NULL);
    struct route *route = NULL;
    struct nl_link owner;
    struct err err = { "" };
    char *before;

    assert_non_null(other);
    assert_int_equal(route_owner(lab->tun.nl, 0, &owner), -ENOENT);
    apply(lab, &opt);
    assert_int_equal(route_owner(lab->tun.nl, 0, &owner), 0);
    assert_string_equal(owner.name, "tun0");
    before = everything();
    snprintf(second.tun_name, sizeof(second.tun_name), "tun1");
    second.v6 = false;
    assert_int_equal(route_apply(lab->tun.nl, &second, &route, &err), -EBUSY);
    assert_non_null(strstr(err.text, "another culvert leads the traffic into tun0"));
    assert_everything_is(before);
    free(before);
    tun_close(other);
}

/* In a child: a gateway of its own that is killed without a chance to clean up. */
static void live_and_be_killed(void)
{
    struct route_options opt = options();
    struct netlink *nl;
    struct route *route;
    struct tun *t;

    if (netlink_open(&nl, NULL) != 0)
        _exit(1);
    t = open_device(nl, "tun7", "198.18.7.1", "fdfe:dcba:7::1");
    snprintf(opt.tun_name, sizeof(opt.tun_name), "tun7");
    if (t == NULL || route_apply(nl, &opt, &route, NULL) != 0)
        _exit(1);
    kill(getpid(), SIGKILL);
}

static void let_one_be_killed(void)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0)
        live_and_be_killed();
    assert_true(waitpid(pid, &status, 0) == pid);
    assert_true(WIFSIGNALED(status));
}

static void what_a_killed_instance_left_keeps_traffic_in_until_the_next_one_takes_over(void **state)
{
    static const struct way_row closed[] = {
        { "others", "203.0.113.5", 443, 0, "unreachable" },
        { "others, IPv6", "2001:db8:1::5", 443, 0, "unreachable" },
        { "ours", "203.0.113.5", 443, MARK, UPLINK4 },
    };
    struct route_lab *lab = *state;
    struct route_options opt = options();
    char *before = everything();
    struct nl_link owner;
    char text[IP_TEXT_MAX];

    let_one_be_killed();
    check_ways(closed, ARRAY_LEN(closed));
    assert_int_equal(route_owner(lab->tun.nl, 0, &owner), -ENOENT);
    apply(lab, &opt);
    assert_string_equal(way("203.0.113.5", 443, 0, text), TUN4);
    undo(lab);
    assert_everything_is(before);
    free(before);
}

static void cleanup_removes_what_a_killed_instance_left_and_nothing_else(void **state)
{
    struct route_lab *lab = *state;
    char *before;
    unsigned removed;

    assert_true(
        tun_lab_sh("ip rule add priority 9200 lookup 77 && ip route add 10.9.0.0/16 dev up0 table 77"));
    before = everything();
    let_one_be_killed();
    assert_int_equal(route_cleanup(lab->tun.nl, ROUTE_TABLE_DEFAULT, ROUTE_PRIORITY_DEFAULT, &removed), 0);
    assert_true(removed > 8);
    assert_everything_is(before);
    let_one_be_killed();
    assert_int_equal(route_cleanup(lab->tun.nl, 0, 0, &removed), 0);
    assert_everything_is(before);
    assert_int_equal(route_cleanup(lab->tun.nl, 0, 0, &removed), 0);
    assert_int_equal(removed, 0);
    assert_true(tun_lab_sh("ip rule del priority 9200 && ip route flush table 77"));
    free(before);
}

static void a_table_or_priorities_of_another_program_are_not_taken(void **state)
{
    struct route_lab *lab = *state;
    struct route_options opt = options();
    struct err err = { "" };

    opt.take_over = true; /* over our own dead, not over others */
    assert_true(tun_lab_sh("ip route add 10.9.0.0/16 dev up0 table 49431"));
    assert_int_equal(route_apply(lab->tun.nl, &opt, &lab->route, &err), -EEXIST);
    assert_non_null(strstr(err.text, "ip route flush table 49431"));
    assert_true(tun_lab_sh("ip route flush table 49431 && ip rule add priority 9050 lookup 77"));
    assert_int_equal(route_apply(lab->tun.nl, &opt, &lab->route, &err), -EEXIST);
    assert_non_null(strstr(err.text, "priorities 9000 to 9099"));
    assert_true(tun_lab_sh("ip rule del priority 9050"));
    apply(lab, &opt);
}

/* ---- at run time ---- */

static bool is_led(void *arg)
{
    char text[IP_TEXT_MAX];

    (void)arg;
    return strcmp(way("203.0.113.5", 443, 0, text), TUN4) == 0 &&
           strcmp(way("2001:db8:1::5", 443, 0, text), TUN6) == 0;
}

static void while_the_device_is_down_nothing_leaks_and_routes_come_back_with_it(
    void **state) /* faults.md V3 */
{
    static const struct way_row closed[] = {
        { "others", "203.0.113.5", 443, 0, "unreachable" },
        { "others, IPv6", "2001:db8:1::5", 443, 0, "unreachable" },
        { "ours", "203.0.113.5", 443, MARK, UPLINK4 },
        { "connected", "192.0.2.9", 443, 0, UPLINK4 },
    };
    struct route_lab *lab = *state;
    struct route_options opt = options();
    char *before;

    apply(lab, &opt);
    before = everything();
    assert_int_equal(tun_lab_watch(&lab->tun), 0);
    assert_int_equal(route_watch(lab->route, lab->tun.loop), 0);
    assert_true(tun_lab_sh("ip link set tun0 down"));
    check_ways(closed, ARRAY_LEN(closed));
    assert_int_equal(route_restore_device(lab->route), -ENETDOWN);
    assert_true(tun_lab_sh("ip link set tun0 up"));
    assert_true(loop_wait_until(&lab->tun.wait, SOON_MS, is_led, NULL));
    assert_everything_is(before);
    free(before);
}

static void a_device_that_was_made_anew_gets_its_routes_back(void **state) /* faults.md V4 */
{
    struct route_lab *lab = *state;
    struct route_options opt = options();
    char text[IP_TEXT_MAX];

    apply(lab, &opt);
    assert_int_equal(tun_lab_watch(&lab->tun), 0);
    assert_int_equal(route_watch(lab->route, lab->tun.loop), 0);
    assert_true(tun_lab_sh("ip link del tun0"));
    assert_string_equal(way("203.0.113.5", 443, 0, text), "unreachable");
    assert_int_equal(route_restore_device(lab->route), -ENODEV);
    assert_true(loop_wait_until(&lab->tun.wait, SOON_MS, is_led, NULL));
    assert_int_equal(route_restore_device(lab->route), 0);
}

static void a_removed_rule_or_route_comes_back_once_and_is_left_when_removed_again(
    void **state) /* faults.md V12 */
{
    struct route_lab *lab = *state;
    struct route_options opt = options();
    char *before;

    apply(lab, &opt);
    before = everything();
    assert_int_equal(route_watch(lab->route, lab->tun.loop), 0);
    assert_true(tun_lab_sh("ip rule del priority 9090 && ip -6 route del default dev tun0 table 49431"));
    assert_true(loop_wait_until(&lab->tun.wait, SOON_MS, is_led, NULL));
    assert_everything_is(before);
    assert_true(tun_lab_sh("ip rule del priority 9090"));
    assert_false(loop_wait_until(&lab->tun.wait, 200, is_led, NULL));
    free(before);
}

struct agent {
    int loads;
    bool loaded;
};

static int agent_load(void *arg)
{
    struct agent *a = arg;

    a->loaded = ++a->loads == 3;
    return a->loaded ? 0 : -EIO;
}

static int agent_rules(void *arg, unsigned *count)
{
    *count = 1;
    return ((struct agent *)arg)->loaded ? 0 : -ENOENT;
}

static bool is_loaded(void *arg)
{
    return ((struct agent *)arg)->loaded;
}

static void what_cannot_be_put_back_is_tried_again(void **state) /* faults.md E7 */
{
    struct agent a = { .loads = 0 };
    struct route_agent agent = { .load = agent_load, .rules = agent_rules, .arg = &a };
    struct route_lab *lab = *state;
    struct route_options opt = options();
    char *text;

    apply(lab, &opt);
    text = route_nft_whole(lab->route);
    if (text == NULL)
        SKIP("no nftables in this build or kernel");
    free(text);
    route_delegate(lab->route, &agent);
    assert_int_equal(route_watch(lab->route, lab->tun.loop), 0);
    assert_true(loop_wait_until(&lab->tun.wait, 10000, is_loaded, &a));
    assert_int_equal(a.loads, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(everything_enters_the_tun_but_what_is_ours_local_or_connected, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(captured_dns_enters_the_tun_from_connected_and_excluded_networks_too,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_family_that_the_tun_does_not_carry_is_left_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(our_sockets_without_an_uplink_fail_and_never_enter_the_tun, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(undo_leaves_every_rule_and_route_as_it_was, setup, teardown),
        cmocka_unit_test_setup_teardown(the_printed_plan_does_by_hand_what_apply_does, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failure_half_way_leaves_nothing_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(a_second_instance_is_refused_and_touches_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(
            what_a_killed_instance_left_keeps_traffic_in_until_the_next_one_takes_over, setup, teardown),
        cmocka_unit_test_setup_teardown(cleanup_removes_what_a_killed_instance_left_and_nothing_else, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_table_or_priorities_of_another_program_are_not_taken, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(while_the_device_is_down_nothing_leaks_and_routes_come_back_with_it,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_device_that_was_made_anew_gets_its_routes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(
            a_removed_rule_or_route_comes_back_once_and_is_left_when_removed_again, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_put_back_is_tried_again, setup, teardown),
    };

    return run_unless(netns_enter_with_tun(), tests);
}
