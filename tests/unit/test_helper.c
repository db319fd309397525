/* test_helper.c - the helper process and what it refuses; netlink_change.c's judgement of requests. */
#include <errno.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/app/helper_impl.h"
#include "../../src/app/privilege.h"
#include "culvert/route.h"

enum { OUR_LINK = 7 };

/* ---- which changes are ours ---- */

/* What a struct netlink would send, caught on its way. */
struct caught {
    _Alignas(8) uint8_t bytes[NETLINK_CHANGE_MAX];
    size_t len;
    int count;
};

static int catch (void *arg, const void *request, size_t len)
{
    struct caught *c = arg;

    assert_true(len <= sizeof(c->bytes));
    memcpy(c->bytes, request, len);
    c->len = len;
    c->count++;
    return 0;
}

static struct netlink *open_caught(struct caught *c)
{
    struct netlink *nl;
    struct err err;

    *c = (struct caught){ .len = 0 };
    assert_int_equal(netlink_open(&nl, &err), 0);
    netlink_delegate(nl, catch, c);
    return nl;
}

static bool is_ours(const struct caught *c)
{
    return netlink_change_is_ours(c->bytes, c->len, ROUTE_PROTO_CULVERT, OUR_LINK);
}

static void changes_of_our_own_are_let_through(void **state) /* faults.md X8, X9 */
{
    struct ip_prefix address = { .len = 96 + 30 };
    struct nl_route route = { .proto = ROUTE_PROTO_CULVERT,
                              .type = RTN_UNICAST,
                              .table = ROUTE_TABLE_DEFAULT,
                              .metric = 5,
                              .ifindex = OUR_LINK };
    struct nl_rule rule = { .proto = ROUTE_PROTO_CULVERT,
                            .action = 1,
                            .table = ROUTE_TABLE_DEFAULT,
                            .priority = 9000,
                            .fwmark = 1,
                            .dport_first = 53,
                            .ip_proto = 17,
                            .has_uid = true,
                            .iif = "br-lan" };
    struct caught c;
    struct netlink *nl = open_caught(&c);

    (void)state;
    ip_parse("198.18.0.1", &address.addr);
    assert_int_equal(netlink_route_add(nl, &route), 0);
    assert_true(is_ours(&c));
    assert_int_equal(netlink_route_del(nl, &route), 0);
    assert_true(is_ours(&c));
    assert_int_equal(netlink_rule_add(nl, &rule), 0);
    assert_true(is_ours(&c));
    assert_int_equal(netlink_addr_add(nl, OUR_LINK, &address), 0);
    assert_true(is_ours(&c));
    assert_int_equal(netlink_link_set(nl, OUR_LINK, true, 1500, 100), 0);
    assert_true(is_ours(&c));
    assert_int_equal(netlink_link_no_autoconf(nl, OUR_LINK), 0);
    assert_true(is_ours(&c));
    assert_int_equal(c.count, 6);
    netlink_close(nl);
}

static void changes_of_others_are_refused(void **state)
{
    struct ip_prefix address = { .len = 96 + 30 };
    struct nl_route route = { .proto = RTPROT_STATIC, .type = RTN_UNICAST, .table = ROUTE_TABLE_DEFAULT };
    struct nl_rule rule = {
        .proto = RTPROT_STATIC, .action = 1, .table = ROUTE_TABLE_DEFAULT, .priority = 9000
    };
    struct caught c;
    struct netlink *nl = open_caught(&c);

    (void)state;
    ip_parse("198.18.0.1", &address.addr);
    netlink_route_add(nl, &route);
    assert_false(is_ours(&c));
    route.proto = ROUTE_PROTO_CULVERT;
    route.table = NETLINK_TABLE_MAIN;
    netlink_route_add(nl, &route);
    assert_false(is_ours(&c));
    netlink_rule_add(nl, &rule);
    assert_false(is_ours(&c));
    netlink_addr_add(nl, OUR_LINK + 1, &address);
    assert_false(is_ours(&c));
    netlink_link_set(nl, OUR_LINK + 1, false, 0, 0);
    assert_false(is_ours(&c));
    netlink_link_set(nl, OUR_LINK, true, 1500, 0);
    assert_false(netlink_change_is_ours(c.bytes, c.len, ROUTE_PROTO_CULVERT, 0)); /* no device of ours */
    netlink_close(nl);
}

/* Every cut, and every byte changed: no crash, and nothing longer than it says. */
static void a_change_that_is_not_whole_is_refused(void **state)
{
    struct nl_rule rule = { .proto = ROUTE_PROTO_CULVERT,
                            .action = 1,
                            .table = ROUTE_TABLE_DEFAULT,
                            .priority = 9000,
                            .iif = "br-lan" };
    struct caught c;
    struct netlink *nl = open_caught(&c);

    (void)state;
    netlink_rule_add(nl, &rule);
    assert_true(is_ours(&c));
    for (size_t len = 0; len < c.len; len++)
        assert_false(netlink_change_is_ours(c.bytes, len, ROUTE_PROTO_CULVERT, OUR_LINK));
    for (size_t i = 0; i < c.len; i++) {
        for (int bit = 0; bit < 8; bit++) {
            struct caught bad = c;

            bad.bytes[i] ^= (uint8_t)(1 << bit);
            (void)is_ours(&bad);
        }
    }
    for (uint32_t more = 1; more < 4;
         more++) { /* an attribute that looks whole to libmnl, and lies beyond the end */
        struct caught longer = c;
        uint32_t len = (uint32_t)(c.len + more);

        memcpy(longer.bytes, &len, sizeof(len));
        memcpy(longer.bytes + c.len, c.bytes + 28, 4); /* the first attribute's head */
        memcpy(longer.bytes + c.len, &(uint16_t){ 4 }, 2);
        longer.len = len;
        assert_false(is_ours(&longer));
    }
    netlink_close(nl);
}

/* ---- records ---- */

static int answer(struct helper_state *s, struct helper_request *q, size_t bytes)
{
    struct helper_answer a;

    helper_answer_to(s, q, bytes, -1, &a);
    return a.result;
}

static void a_record_is_believed_in_nothing(void **state) /* faults.md X8 */
{
    struct helper_state s = { .netlink = NULL };
    struct helper_request q = { .kind = HELPER_SETTLE, .name = "tun7" };
    struct helper_request no_end = { .kind = HELPER_SETTLE };

    (void)state;
    memset(no_end.name, 'x', sizeof(no_end.name));
    assert_int_equal(answer(&s, &q, sizeof(q) - 1), -EPERM);
    assert_int_equal(answer(&s, &no_end, sizeof(q)), -EPERM);
    q.kind = 99;
    assert_int_equal(answer(&s, &q, sizeof(q)), -EPERM);
    q.kind = HELPER_NFT_LOAD; /* no text was given */
    assert_int_equal(answer(&s, &q, sizeof(q)), -EPERM);
    q.kind = HELPER_ATTACH; /* no device was named */
    q.flags = IFF_TUN;
    assert_int_equal(answer(&s, &q, sizeof(q)), -EPERM);
    q.kind = HELPER_SETTLE;
    assert_int_equal(answer(&s, &q, sizeof(q)), 0);
    assert_int_equal(answer(&s, &q, sizeof(q)), 0); /* the same again */
    strcpy(q.name, "eth0");
    assert_int_equal(answer(&s, &q, sizeof(q)), -EPERM);
    q.kind = HELPER_ATTACH;
    assert_int_equal(answer(&s, &q, sizeof(q)), -EPERM); /* another name */
    strcpy(q.name, "tun7");
    q.flags = IFF_TAP;
    assert_int_equal(answer(&s, &q, sizeof(q)), -EPERM);
    q.flags = IFF_TUN | IFF_PERSIST;
    assert_int_equal(answer(&s, &q, sizeof(q)), -EPERM);
    q.kind = HELPER_NFT_TEXT; /* too late */
    q.len = 4;
    assert_int_equal(answer(&s, &q, sizeof(q)), -EPERM);
    q.kind = HELPER_CHANGE;
    q.len = UINT32_MAX;
    assert_int_equal(answer(&s, &q, sizeof(q)), -EPERM);
}

/* ---- the process ---- */

static struct helper *started(unsigned keep)
{
    struct helper_options opt = { .keep = keep, .sandbox = true };
    struct helper *h;
    struct err err = { "" };

    if (helper_start(&opt, &h, &err) != 0)
        fail_msg("%s", err.text);
    return h;
}

static void it_answers_until_it_is_ended(void **state)
{
    char program[FLOW_PROGRAM_MAX];
    struct helper *h = started(0);

    (void)state;
    assert_int_equal(helper_settle(h, "tun7", "table inet culvert {}"), 0);
    assert_int_equal(helper_settle(h, "eth0", NULL), -EPERM);
    helper_program(h, getuid(), 1, program);
    assert_string_equal(program, "");
    assert_int_equal(helper_change(h, program, 16), -EPERM);
    helper_end(h);
}

struct watched {
    struct loop *loop;
    int deaths;
};

static void on_dead(void *arg)
{
    struct watched *w = arg;

    w->deaths++;
    loop_stop(w->loop);
}

static void its_death_is_noticed_once(void **state) /* faults.md X8 */
{
    struct helper *h = started(0);
    struct watched w = { NULL, 0 };

    (void)state;
    assert_int_equal(loop_new(&w.loop), 0);
    helper_watch(h, w.loop, on_dead, &w);
    assert_int_equal(kill(helper_pid(h), SIGKILL), 0);
    assert_int_equal(loop_run(w.loop), 0);
    assert_int_equal(w.deaths, 1);
    assert_true(helper_settle(h, "tun7", NULL) < 0);
    helper_end(h);
    loop_free(w.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(changes_of_our_own_are_let_through),
        cmocka_unit_test(changes_of_others_are_refused),
        cmocka_unit_test(a_change_that_is_not_whole_is_refused),
        cmocka_unit_test(a_record_is_believed_in_nothing),
        cmocka_unit_test(it_answers_until_it_is_ended),
        cmocka_unit_test(its_death_is_noticed_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
