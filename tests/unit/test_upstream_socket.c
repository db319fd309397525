/* test_upstream_socket.c - how sockets of ours are marked and bound, how they are known again, and what happens at a limit. */
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "udp_rig.h"
#include "upstream/udp_impl.h"

static int get_int(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);

    assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

/* ---- rules ---- */

static const struct rule_row {
    const char *when;
    const char *dst;
    uint32_t mark, own_mark;
    int ifindex4, ifindex6;
    const char *unbound;
    uint32_t has_mark;
    int bound_to;
} rows[] = {
    { "no rules at all", "192.0.2.1", 0, 0, 0, 0, NULL, 0, 0 },
    { "the process's mark", "192.0.2.1", 0x1b6, 0, 0, 0, NULL, 0x1b6, 0 },
    { "the upstream's own mark wins", "192.0.2.1", 0x1b6, 2, 0, 0, NULL, 2, 0 },
    { "the uplink for IPv4", "192.0.2.1", 0, 0, 1, 0, NULL, 0, 1 },
    { "the uplink for IPv6", "2001:db8::1", 0, 0, 0, 1, NULL, 0, 1 },
    { "families do not mix", "2001:db8::1", 0, 0, 1, 0, NULL, 0, 0 },
    { "loopback is never bound", "127.0.0.1", 1, 0, 1, 0, NULL, 1, 0 },
    { "a LAN with a route of its own is not bound", "192.0.2.1", 0, 0, 1, 0, "192.0.2.0/24", 0, 0 },
    { "its neighbour is", "192.0.3.1", 0, 0, 1, 0, "192.0.2.0/24", 0, 1 },
};

static void a_socket_is_marked_and_bound_as_the_rules_say(void **state) /* faults.md E1 */
{
    struct up_rig *rig = *state;
    int wrong = 0;

    if (geteuid() != 0)
        SKIP("needs root");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct upstream_options o = { .name = "DIRECT",
                                      .kind = UPSTREAM_DIRECT,
                                      .routing_mark = rows[i].own_mark };
        struct ip_port dst = { rig_addr(rows[i].dst), 80 };
        struct upstream *up;
        int fd;

        rig->rules = (struct up_socket_rules){ .mark = rows[i].mark,
                                               .ifindex4 = rows[i].ifindex4,
                                               .ifindex6 = rows[i].ifindex6 };
        if (rows[i].unbound)
            assert_int_equal(ip_prefix_parse(rows[i].unbound, &rig->rules.unbound[rig->rules.unbounds++]), 0);
        assert_int_equal(upstream_new(&o, &up), 0);
        fd = up_socket(rig->env, up, SOCK_STREAM, &dst);
        if (fd < 0 || (uint32_t)get_int(fd, SOL_SOCKET, SO_MARK) != rows[i].has_mark ||
            get_int(fd, SOL_SOCKET, SO_BINDTOIFINDEX) != rows[i].bound_to) {
            print_error("%s: %d\n", rows[i].when, fd);
            wrong++;
        }
        if (fd >= 0)
            close(fd);
        upstream_unref(up);
    }
    assert_int_equal(wrong, 0);
}

static void an_uplink_that_has_just_gone_leaves_no_other_way(void **state) /* faults.md G5 */
{
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct host_port to = rig_to("192.0.2.1", 80);
    struct stream_log log;

    rig->rules.ifindex4 = 9999;
    stream_settle(rig, &log, up, &to, 2000);
    assert_true(log.closed);
    assert_int_equal(log.why.err, -ENETUNREACH);
    upstream_unref(up);
}

static void an_interface_by_name_is_a_promise(void **state)
{
    struct upstream_options o = { .name = "DIRECT", .kind = UPSTREAM_DIRECT, .interface_name = "lo" };
    struct ip_port dst = { rig_addr("192.0.2.1"), 80 };
    struct up_rig *rig = *state;
    char name[IFNAMSIZ] = "";
    socklen_t len = sizeof(name);
    struct upstream *up;
    int fd;

    assert_int_equal(upstream_new(&o, &up), 0);
    fd = up_socket(rig->env, up, SOCK_DGRAM, &dst);
    assert_true(fd >= 0);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &len), 0);
    assert_string_equal(name, "lo");
    close(fd);
    upstream_unref(up);
    snprintf(o.interface_name, sizeof(o.interface_name), "nosuch0");
    assert_int_equal(upstream_new(&o, &up), 0);
    assert_int_equal(up_socket(rig->env, up, SOCK_STREAM, &dst), -ENODEV);
    upstream_unref(up);
}

static void without_the_privilege_a_mark_is_left_out(void **state)
{
    struct ip_port dst = { rig_addr("127.0.0.1"), 80 };
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    int fd;

    if (geteuid() != 0 || seteuid(65534) != 0) {
        upstream_unref(up);
        SKIP("needs root");
    }
    rig->rules.mark = 7;
    for (int i = 0; i < 3; i++) { /* one warning in all */
        fd = up_socket(rig->env, up, SOCK_STREAM, &dst);
        assert_true(fd >= 0);
        assert_int_equal(get_int(fd, SOL_SOCKET, SO_MARK), 0);
        close(fd);
    }
    assert_int_equal(seteuid(0), 0);
    upstream_unref(up);
}

static void datagrams_leave_by_the_uplink_too(void **state) /* faults.md E1 */
{
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct udp_log log;
    struct peer peer;

    if (geteuid() != 0 ||
        system("ip address add 192.0.2.1/32 dev lo && ip address add 2001:db8::1/128 dev lo") != 0) {
        upstream_unref(up);
        SKIP("needs root, and the program ip");
    }
    for (int v6 = 0; v6 < 2; v6++) {
        peer_open(&peer, rig, v6 ? "2001:db8::1" : "192.0.2.1", true);
        rig->rules = (struct up_socket_rules){ .ifindex4 = 1, .ifindex6 = 1 }; /* "lo" */
        udp_start(rig, &log, up);
        assert_int_equal(udp_rig_send(&log, &peer.at, "x", 1, 0), 0);
        until_count(rig, &log.count, 1);
        up_udp_close(log.u);
        rig->rules = (struct up_socket_rules){ .ifindex4 = 9999, .ifindex6 = 9999 };
        udp_start(rig, &log, up);
        assert_true(udp_rig_send(&log, &peer.at, "x", 1, 0) < 0); /* it is not sent another way */
        rig->rules.unbounds = 1;
        rig->rules.unbound[0] = (struct ip_prefix){ peer.at.addr, 128 };
        up_env_set_rules(rig->env, &rig->rules);
        up_udp_close(log.u);
        udp_start(rig, &log, up);
        assert_int_equal(udp_rig_send(&log, &peer.at, "x", 1, 0), 0);
        until_count(rig, &log.count, 1);
        up_udp_close(log.u);
        peer_close(&peer);
    }
    upstream_unref(up);
}

/* The second uplink change frees the memory of the first, and the third gets it again: what was learnt must not be taken for
 * learnt under the new rules. */
static void new_rules_count_even_where_old_ones_lay(void **state) /* faults.md E1 */
{
    struct up_rig *rig = *state;
    struct upstream *up = rig_direct();
    struct udp_log log;
    struct peer peer;

    peer_open(&peer, rig, "127.0.0.1", true);
    udp_start(rig, &log, up);
    assert_int_equal(udp_rig_send(&log, &peer.at, "x", 1, 0), 0);
    rig->rules.refuse[rig->rules.refuses++] = (struct ip_prefix){ peer.at.addr, 128 };
    up_env_set_rules(rig->env, &rig->rules);
    assert_int_equal(udp_rig_send(&log, &peer.at, "x", 1, 0), -ELOOP);
    up_udp_close(log.u);
    peer_close(&peer);
    upstream_unref(up);
}

/* ---- fingerprints ---- */

static struct flow_key some_flow(uint32_t n)
{
    struct flow_key key = { .client_port = (uint16_t)n, .target_port = 443, .proto = IP_PROTO_TCP };

    key.client = rig_addr("192.0.2.1");
    key.target = rig_addr("2001:db8::1");
    key.target.w[3] = n >> 16;
    return key;
}

static void fingerprints_are_found_until_they_are_removed(void **state)
{
    enum { N = 20000 };
    static uint32_t where[N];
    struct up_rig *rig = *state;
    uint32_t left_out = 0;

    for (uint32_t i = 0; i < N; i++) {
        struct flow_key key = some_flow(i * 7919);

        where[i] = own_flows_add(rig->own, &key);
        left_out += where[i] == NO_GUARD;
    }
    assert_true(left_out < N / 100); /* a line of eight is rarely full */
    for (uint32_t i = 0; i < N; i++) {
        struct flow_key key = some_flow(i * 7919), other = key;

        other.target_port = 80;
        assert_int_equal(own_flows_has(rig->own, &key), where[i] != NO_GUARD);
        assert_false(own_flows_has(rig->own, &other));
    }
    for (uint32_t i = 0; i < N; i++)
        own_flows_remove(rig->own, where[i]);
    for (uint32_t i = 0; i < N; i++) {
        struct flow_key key = some_flow(i * 7919);

        assert_false(own_flows_has(rig->own, &key));
    }
}

struct worker {
    struct own_flows *own;
    uint32_t first;
    unsigned lost;
};

static void *add_and_remove(void *arg)
{
    struct worker *w = arg;

    for (uint32_t i = 0; i < 20000; i++) {
        struct flow_key key = some_flow(w->first + i);
        struct ip_addr local = key.target;
        uint32_t where = own_flows_add(w->own, &key);

        own_flows_add_local(w->own, &local);
        w->lost += where != NO_GUARD && !own_flows_has(w->own, &key);
        own_flows_remove(w->own, where);
    }
    return NULL;
}

static void workers_share_fingerprints_without_waiting(void **state)
{
    struct worker workers[4];
    pthread_t threads[4];
    struct up_rig *rig = *state;

    for (uint32_t i = 0; i < 4; i++) {
        workers[i] = (struct worker){ rig->own, i << 20, 0 };
        assert_int_equal(pthread_create(&threads[i], NULL, add_and_remove, &workers[i]), 0);
    }
    for (uint32_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(workers[i].lost, 0);
    }
}

/* ---- limits ---- */

static void an_empty_pool_fails_one_opening_alone(void **state) /* faults.md R2 */
{
    static const struct up_stream_events none;
    struct up_rig *rig = *state;
    struct up_env_options opt = { .loop = rig->loop, .wheel = &rig->wheel, .max_streams = 2, .max_udp = 1 };
    struct host_port to = rig_to("127.0.0.1", 9);
    struct upstream *up = rig_direct();
    struct up_stream *streams[3] = { NULL };
    struct up_udp *udps[2] = { NULL };
    struct up_env *env;

    assert_int_equal(up_env_new(&opt, &env), 0);
    assert_int_equal(up_stream_open(env, up, &to, 1000000, &none, NULL, &streams[0]), 0);
    assert_int_equal(up_stream_open(env, up, &to, 1000000, &none, NULL, &streams[1]), 0);
    assert_int_equal(up_stream_open(env, up, &to, 1000000, &none, NULL, &streams[2]), -ENOMEM);
    assert_null(streams[2]);
    up_stream_close(streams[0]);
    assert_int_equal(up_stream_open(env, up, &to, 1000000, &none, NULL, &streams[2]), 0);
    up_stream_close(streams[1]);
    up_stream_reset(streams[2]);
    assert_int_equal(up_udp_open(env, up, 1000000, NULL, NULL, &udps[0]), 0);
    assert_int_equal(up_udp_open(env, up, 1000000, NULL, NULL, &udps[1]), -ENOMEM);
    up_udp_close(udps[0]);
    up_env_free(env);
    upstream_unref(up);
}

static void memories_of_upstreams_that_are_gone_are_swept(void **state) /* faults.md C11, G4 */
{
    struct up_rig *rig = *state;

    for (int i = 0; i < 100; i++) {
        struct upstream *up = rig_direct();
        struct up_memory *m = env_memory(rig->env, up);

        assert_non_null(m);
        assert_ptr_equal(env_memory(rig->env, up), m);
        if (i == 0)
            m->users++; /* something of it is still open */
        assert_int_equal(atomic_load(&up->refs), 2);
        upstream_unref(up);
    }
    {
        size_t left = 0;

        for (size_t i = 0; i < MEMORY_BUCKETS; i++) {
            for (struct up_memory *m = rig->env->memories[i]; m; m = m->next) {
                left++;
                m->users = 0;
            }
        }
        assert_int_equal(left, 2); /* the one in use, and the last one, which nothing has swept yet */
    }
}

static void an_idle_stream_is_small(void **state) /* tcp-stack.md PERF-9 */
{
    (void)state;
    assert_true(sizeof(struct up_stream) <= 80);
    assert_true(sizeof(struct up_udp) <= 256);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, up_rig_setup, up_rig_teardown)
    static const struct CMUnitTest tests[] = {
        TEST(a_socket_is_marked_and_bound_as_the_rules_say),
        TEST(an_uplink_that_has_just_gone_leaves_no_other_way),
        TEST(an_interface_by_name_is_a_promise),
        TEST(without_the_privilege_a_mark_is_left_out),
        TEST(datagrams_leave_by_the_uplink_too),
        TEST(new_rules_count_even_where_old_ones_lay),
        TEST(fingerprints_are_found_until_they_are_removed),
        TEST(workers_share_fingerprints_without_waiting),
        TEST(an_empty_pool_fails_one_opening_alone),
        TEST(memories_of_upstreams_that_are_gone_are_swept),
        TEST(an_idle_stream_is_small),
    };
    return run_unless(netns_enter(), tests);
}
