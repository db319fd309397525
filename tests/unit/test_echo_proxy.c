/* test_echo_proxy.c - the echo proxy against the kernel of a network namespace of its own. Its targets are addresses of that
 * namespace's "lo", so replies are the kernel's own; routes of kind unreachable and prohibit make its errors. */
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "echo/ping_impl.h"
#include "netns.h"

static const char *why_skipped;

struct rig {
    struct loop *loop;
    struct loop_wait wait;
    struct wheel wheel;
    struct echo_proxy *proxy;
    struct echo_guard *guard;
    struct echo_proxy_request ask;
    unsigned replies, errors;
    struct echo_proxy_answer last; /* without its pointers */
    uint64_t responder;
    uint8_t payload[65536], quote[PING_QUOTE_MAX];
    unsigned want;
    int make_result; /* of make_socket, when not 0 */
    int ifindex;
};

static struct ip_addr addr(const char *text)
{
    struct ip_addr a;

    assert_int_equal(ip_parse(text, &a), 0);
    return a;
}

static void on_answer(void *arg, uint64_t responder, const struct echo_proxy_answer *a)
{
    struct rig *g = arg;

    g->last = *a;
    g->responder = responder;
    if (a->is_error) {
        g->errors++;
        memcpy(g->quote, a->quote, a->quote_len);
    } else {
        g->replies++;
        memcpy(g->payload, a->payload, a->payload_len);
    }
}

static int make_socket(void *arg, int family, enum echo_proxy_kind kind, bool *marked)
{
    struct rig *g = arg;
    int fd;

    *marked = false;
    if (g->make_result)
        return g->make_result;
    fd = socket(family, (kind == ECHO_SOCKET_RAW ? SOCK_RAW : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC,
                family == AF_INET6 ? 58 : 1);
    return fd < 0 ? -errno : fd;
}

static int interface_for(void *arg, const struct ip_addr *dst)
{
    struct rig *g = arg;

    (void)dst;
    return g->ifindex;
}

static void options(struct rig *g, struct echo_proxy_options *o)
{
    echo_proxy_options_defaults(o);
    o->loop = g->loop;
    o->wheel = &g->wheel;
    o->make_socket = make_socket;
    o->interface_for = interface_for;
    o->socket_arg = o->arg = g;
    o->on_answer = on_answer;
    o->guard = g->guard;
    o->quiet = true;
    o->seed = 1;
}

static void start(struct rig *g, const struct echo_proxy_options *o)
{
    echo_proxy_free(g->proxy);
    g->proxy = NULL;
    assert_int_equal(echo_proxy_new(o, &g->proxy), 0);
}

static int setup(void **state)
{
    struct rig *g = calloc(1, sizeof(*g));
    struct echo_proxy_options o;

    if (why_skipped) {
        print_message("skipped: %s\n", why_skipped);
        *state = NULL;
        free(g);
        return 0;
    }
    assert_int_equal(loop_new(&g->loop), 0);
    loop_wait_init(&g->wait, g->loop);
    wheel_init(&g->wheel, clock_now_us());
    assert_int_equal(echo_guard_new(&g->guard), 0);
    options(g, &o);
    start(g, &o);
    g->ask = (struct echo_proxy_request){ .client = addr("10.9.9.9"),
                                          .target = addr("192.0.2.1"),
                                          .id = 77,
                                          .seq = 1,
                                          .ttl = 64,
                                          .local = true,
                                          .responder = 1,
                                          .payload = (const uint8_t *)"0123456789",
                                          .payload_len = 10 };
    *state = g;
    return 0;
}

static int teardown(void **state)
{
    struct rig *g = *state;

    if (!g)
        return 0;
    echo_proxy_free(g->proxy);
    echo_guard_free(g->guard);
    loop_free(g->loop);
    free(g);
    return 0;
}

#define RIG(g)                                                                                               \
    struct rig *g = *state;                                                                                  \
    if (!g)                                                                                                  \
    skip()

static uint64_t count(const struct rig *g, const char *name)
{
    for (const struct counter_desc *d = echo_proxy_counter_descs; d->name; d++)
        if (strcmp(strchr(d->name, '.') + 1, name) == 0)
            return counter_read(
                (const counter *)(const void *)((const char *)echo_proxy_counters(g->proxy) + d->offset));
    fail_msg("no counter %s", name);
    return 0;
}

static bool has_answers(void *arg)
{
    struct rig *g = arg;

    return g->replies + g->errors >= g->want;
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

static enum echo_proxy_result ask(struct rig *g)
{
    return echo_proxy_send(g->proxy, &g->ask);
}

/* Wait for the answers of so many requests in all. */
static void answers(struct rig *g, unsigned n)
{
    g->want = n;
    if (!loop_wait_until(&g->wait, 5000, has_answers, g))
        fail_msg("%u replies and %u errors, not %u in all", g->replies, g->errors, n);
}

static void use_v6(struct rig *g)
{
    g->ask.client = addr("fd00::9");
    g->ask.target = addr("2001:db8::1");
}

/* ---- requests and replies ---- */

static void a_reply_has_the_clients_id_number_and_bytes(void **state) /* icmp.md X7, X18, X21 */
{
    RIG(g);
    for (int v6 = 0; v6 < 2; v6++) {
        if (v6)
            use_v6(g);
        g->ask.tos = 0x48;
        g->ask.responder = 5;
        assert_int_equal(ask(g), ECHO_PROXY_SENT);
        answers(g, (unsigned)v6 + 1);
        assert_int_equal(g->errors, 0);
        assert_true(ip_equal(&g->last.client, &g->ask.client) && ip_equal(&g->last.target, &g->ask.target));
        assert_int_equal(g->last.id, 77);
        assert_int_equal(g->last.seq, 1);
        assert_int_equal(g->last.payload_len, 10);
        assert_memory_equal(g->payload, "0123456789", 10);
        assert_int_equal(g->last.ttl, 63); /* the kernel's 64, and we are one router */
        if (!v6) /* whether Linux reflects the class of IPv6 depends on its version */
            assert_int_equal(g->last.tos, 0x48);
        assert_int_equal(g->responder, 5);
    }
    assert_int_equal(count(g, "requests_v4"), 1);
    assert_int_equal(count(g, "requests_v6"), 1);
    assert_int_equal(count(g, "replies"), 2);
    assert_int_equal(count(g, "outstanding"), 0);
}

static void payloads_of_every_size_are_exact(void **state) /* icmp.md X18, X23, T1 */
{
    static const uint32_t sizes[] = { 0, 1, 1472, 1473, 3000, 65507 };
    static uint8_t data[65507];
    unsigned n = 0;
    RIG(g);

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    g->ask.payload = data;
    for (int v6 = 0; v6 < 2; v6++) {
        if (v6)
            use_v6(g);
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
            g->ask.seq++;
            g->ask.payload_len = sizes[i];
            assert_int_equal(ask(g), ECHO_PROXY_SENT);
            answers(g, ++n);
            assert_int_equal(g->last.payload_len, sizes[i]);
            assert_memory_equal(g->payload, data, sizes[i]);
        }
    }
}

static const struct refused_row {
    const char *when, *target;
    uint8_t code, ttl;
    bool broadcast;
    enum echo_proxy_result wanted;
    const char *counter;
} refused[] = {
    { "a code", "192.0.2.1", 1, 64, false, ECHO_PROXY_DROPPED, "drops_code" },
    { "multicast", "224.0.0.1", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "multicast", "ff02::1", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "broadcast", "255.255.255.255", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "0/8", "0.1.2.3", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "240/4", "240.0.0.1", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "unspecified", "::", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "loopback", "127.0.0.1", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "loopback", "::1", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "link-local without its link", "fe80::1", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "a network's broadcast, as the stack saw", "192.0.2.255", 0, 64, true, ECHO_PROXY_DROPPED,
      "drops_target" },
    { "an address of this host", "192.0.2.1", 0, 64, false, ECHO_PROXY_DROPPED, "drops_target" },
    { "TTL 1", "192.0.2.1", 0, 1, false, ECHO_PROXY_EXPIRED, "ttl_expired" },
    { "TTL 0", "2001:db8::1", 0, 0, false, ECHO_PROXY_EXPIRED, "ttl_expired" },
};

static void what_may_not_leave_makes_no_flow_and_no_socket(void **state) /* icmp.md X8, X9, X10, X30 */
{
    RIG(g);
    g->ask.local = false;
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        const struct refused_row *r = &refused[i];
        uint64_t before = count(g, r->counter);

        g->ask.target = addr(r->target);
        g->ask.code = r->code;
        g->ask.ttl = r->ttl;
        g->ask.broadcast = r->broadcast;
        if (ask(g) != r->wanted || count(g, r->counter) != before + 1)
            fail_msg("%s: %s", r->when, r->target);
    }
    assert_int_equal(count(g, "flows_created"), 0);
}

static void strict_drops_what_a_ping_socket_cannot_carry(void **state) /* icmp.md 4.6 */
{
    struct echo_proxy_options o;
    RIG(g);

    options(g, &o);
    o.strict = true;
    start(g, &o);
    g->ask.options = true;
    assert_int_equal(ask(g), ECHO_PROXY_DROPPED);
    assert_int_equal(count(g, "drops_options"), 1);
}

/* ---- errors of our own kernel ---- */

static void what_our_kernel_says_is_the_answer(void **state) /* icmp.md E8 */
{
    static const struct {
        const char *target;
        enum echo_proxy_result wanted;
    } rows[] = { { "198.51.100.1", ECHO_PROXY_NET_UNREACH },
                 { "192.0.2.8", ECHO_PROXY_HOST_UNREACH },
                 { "192.0.2.9", ECHO_PROXY_ADMIN_PROHIBITED },
                 { "2001:db8:1::1", ECHO_PROXY_NET_UNREACH },
                 { "2001:db8::9", ECHO_PROXY_ADMIN_PROHIBITED } };
    RIG(g);

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        g->ask.target = addr(rows[i].target);
        g->ask.client = addr(ip_is4(&g->ask.target) ? "10.9.9.9" : "fd00::9");
        if (ask(g) != rows[i].wanted)
            fail_msg("%s", rows[i].target);
    }
    assert_int_equal(g->replies + g->errors, 0);
}

static void too_big_for_the_first_link_quotes_the_clients_datagram(
    void **state) /* icmp.md E7, E9, E11, X27 */
{
    static uint8_t big[65600];
    static const uint8_t header[20] = { 0x45, 0, 0,  0, 0xab, 0xcd, 0x40, 0, 33, 1,
                                        0,    0, 10, 9, 9,    9,    192,  0, 2,  1 };
    RIG(g);

    g->ask.payload = big;
    g->ask.payload_len = 3000;
    g->ask.df = true;
    g->ask.checksum = 0x1234;
    g->ask.ip_header = header;
    g->ask.ip_header_len = sizeof(header);
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    answers(g, 1);
    assert_int_equal(g->errors, 1);
    assert_int_equal(g->last.type, 3);
    assert_int_equal(g->last.code, 4);
    assert_int_equal(g->last.info, 2000); /* of "lo", as main() has set it */
    assert_true(ip_is_none(&g->last.offender));
    assert_int_equal(g->last.quote_len, 548);
    assert_int_equal(get_be16(g->quote + 4), 0xabcd);
    assert_int_equal(get_be16(g->quote + 22), 0x1234);
    g->ask.df = false; /* the same without DF is cut to pieces */
    g->ask.seq++;
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    answers(g, 2);
    assert_int_equal(g->replies, 1);
    assert_int_equal(g->last.payload_len, 3000);
}

static void errors_can_be_switched_off(void **state) /* icmp.md E14 */
{
    static uint8_t big[3000];
    struct echo_proxy_options o;
    RIG(g);

    options(g, &o);
    o.relay_errors = false;
    start(g, &o);
    g->ask.payload = big;
    g->ask.payload_len = sizeof(big);
    g->ask.df = true;
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    assert_int_equal(g->errors, 0);
    assert_int_equal(count(g, "drops_error_off"), 1);
}

static void a_flow_relays_twenty_errors_a_second(void **state) /* icmp.md E13 */
{
    static uint8_t big[3000];
    RIG(g);

    g->ask.payload = big;
    g->ask.payload_len = sizeof(big);
    g->ask.df = true;
    for (int i = 0; i < 50; i++) {
        g->ask.seq++;
        assert_int_equal(ask(g), ECHO_PROXY_SENT);
    }
    assert_int_equal(g->errors, 20); /* the loop's time stands still meanwhile */
    assert_int_equal(count(g, "drops_error_rate"), 30);
}

/* ---- flows ---- */

static void flows_of_two_clients_have_kernel_ids_of_their_own(void **state) /* icmp.md X6, X7 */
{
    RIG(g);
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    g->ask.client = addr("10.9.9.8");
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    answers(g, 2);
    g->ask.seq = 2;
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    answers(g, 3);
    assert_int_equal(count(g, "flows"), 2);
    assert_int_equal(((struct ping_flow *)slab_at(&g->proxy->table.flows, 0))->wire_id ==
                         ((struct ping_flow *)slab_at(&g->proxy->table.flows, 1))->wire_id,
                     0);
}

static void an_idle_flow_ends_between_its_time_and_a_second_more(void **state) /* icmp.md X11 */
{
    uint64_t last_us;
    RIG(g);

    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    answers(g, 1);
    last_us = ((struct ping_flow *)slab_at(&g->proxy->table.flows, 0))->active_us;
    wheel_advance(&g->wheel, last_us + 9999000);
    assert_int_equal(echo_proxy_flows(g->proxy), 1);
    wheel_advance(&g->wheel, last_us + 11000000);
    assert_int_equal(echo_proxy_flows(g->proxy), 0);
    assert_int_equal(count(g, "flows_idle"), 1);
    assert_int_equal(count(g, "flows"), 0);
}

static void a_new_responder_gets_the_flow_with_its_socket(void **state) /* icmp.md X14 */
{
    uint16_t wire_id;
    RIG(g);

    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    wire_id = ((struct ping_flow *)slab_at(&g->proxy->table.flows, 0))->wire_id;
    g->ask.responder = 2;
    g->ask.seq = 2;
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    answers(g, 2);
    assert_int_equal(g->responder, 2); /* the reply in flight reached it, too */
    assert_int_equal(((struct ping_flow *)slab_at(&g->proxy->table.flows, 0))->wire_id, wire_id);
    assert_int_equal(count(g, "flows_rebound"), 1);
    assert_int_equal(count(g, "flows_created"), 1);
}

static void a_responder_that_is_gone_takes_its_flows_with_it(void **state) /* icmp.md X15 */
{
    RIG(g);
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    g->ask.client = addr("10.9.9.8");
    g->ask.responder = 2;
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    echo_proxy_responder_gone(g->proxy, 1);
    assert_int_equal(echo_proxy_flows(g->proxy), 1);
    assert_int_equal(count(g, "drops_responder"), 1);
    answers(g, 1);
    assert_int_equal(g->responder, 2);
    assert_false(loop_wait_until(&g->wait, 50, never, NULL));
    assert_int_equal(g->replies, 1);
}

static void no_descriptor_or_id_means_a_second_of_rest_and_nothing_else(void **state) /* icmp.md X13, M17 */
{
    static const int errors[] = { -EMFILE, -ENFILE, -EADDRINUSE, -EAGAIN };
    RIG(g);

    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        g->make_result = errors[i];
        g->proxy->backoff_until_us = 0;
        g->ask.client = addr("10.9.9.8");
        assert_int_equal(ask(g), ECHO_PROXY_DROPPED);
        assert_int_equal(count(g, "drops_socket"), i + 1);
        g->make_result = 0;
        assert_int_equal(ask(g), ECHO_PROXY_DROPPED);
        assert_int_equal(count(g, "drops_backoff"), i + 1);
    }
    g->ask.client = addr("10.9.9.9"); /* the flow that lives goes on */
    g->ask.seq = 2;
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    answers(g, 2);
    assert_int_equal(count(g, "flows"), 1);
}

static void many_flows_share_few_sockets_and_never_mix(void **state) /* icmp.md X17 */
{
    struct echo_proxy_options o;
    RIG(g);

    options(g, &o);
    o.pool_after = 2;
    start(g, &o);
    for (unsigned i = 0; i < 100; i++) {
        uint8_t payload[2], c[4] = { 10, 9, 8, (uint8_t)i };

        g->ask.client = ip_from4(c);
        g->ask.seq = (uint16_t)(i % 7);
        put_be16(payload, (uint16_t)i);
        g->ask.payload = payload;
        g->ask.payload_len = 2;
        assert_int_equal(ask(g), ECHO_PROXY_SENT);
        answers(g, i + 1);
        assert_int_equal(get_be16(g->payload), i);
        assert_int_equal(g->last.seq, i % 7);
        assert_int_equal(g->last.client.b[15], i);
    }
    assert_int_equal(count(g, "flows"), 100);
    assert_int_equal(count(g, "flows_pooled"), 98);
    for (int i = 0; i < 4; i++)
        assert_true(g->proxy->pool[0][i].fd >= 0);
    assert_int_equal(g->proxy->pool[0][4].fd, -1);
    wheel_advance(&g->wheel, clock_now_us() + 30000000);
    assert_int_equal(count(g, "flows_pooled"), 0);
}

static void a_reply_to_a_flow_that_is_gone_is_dropped(void **state) /* icmp.md X16, X17 */
{
    struct echo_proxy_options o;
    RIG(g);

    options(g, &o);
    o.pool_after = 0;
    start(g, &o);
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    ping_flow_close(slab_at(&g->proxy->table.flows, 0));
    g->ask.client = addr("10.9.9.8"); /* the same place, another flow */
    g->ask.seq = 9;
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    answers(g, 1);
    assert_false(loop_wait_until(&g->wait, 50, never, NULL));
    assert_int_equal(g->replies, 1);
    assert_int_equal(g->last.seq, 9);
    assert_int_equal(count(g, "drops_generation"), 1);
}

static void a_socket_that_cannot_be_read_ends_its_flows_and_nobody_elses(void **state) /* icmp.md X25 */
{
    struct echo_proxy_options o;
    struct ping_flow *f;
    int null;
    RIG(g);

    options(g, &o);
    o.pool_after = 1;
    start(g, &o);
    assert_int_equal(ask(g), ECHO_PROXY_SENT); /* a socket of its own */
    g->ask.client = addr("10.9.9.8");
    assert_int_equal(ask(g), ECHO_PROXY_SENT); /* a shared one */
    answers(g, 2);
    null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (uint32_t i = 0; i < 2; i++) {
        f = slab_at(&g->proxy->table.flows, i);
        ping_socket_on_ready(&f->sock->io, LOOP_READ); /* nothing to read is no error */
        assert_int_equal(echo_proxy_flows(g->proxy), 2 - i);
        loop_io_stop(g->loop, &f->sock->io);
        assert_true(dup2(null, f->sock->fd) >= 0);
        for (int n = 0; f->live && n < 10; n++)
            ping_socket_on_ready(&f->sock->io, LOOP_READ);
        assert_int_equal(echo_proxy_flows(g->proxy), 1 - i);
    }
    close(null);
    g->ask.seq = 2; /* both kinds are opened again */
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    g->ask.client = addr("10.9.9.9");
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    answers(g, 4);
}

/* ---- rights, loops, uplinks ---- */

static void without_the_right_the_mode_is_off_until_it_comes_back(void **state) /* icmp.md X1, X3, X4 */
{
    RIG(g);
    assert_int_equal(echo_proxy_mode(g->proxy, false), ECHO_PROXY_MODE_PING);
    g->make_result = -EACCES;
    assert_int_equal(ask(g), ECHO_PROXY_OFF);
    assert_int_equal(echo_proxy_mode(g->proxy, false), ECHO_PROXY_MODE_OFF);
    assert_int_equal(count(g, "families_off"), 2);
    assert_true(loop_timer_active(&g->proxy->probe_timer));
    g->make_result = 0;
    echo_proxy_probe(g->proxy);
    assert_int_equal(count(g, "families_ping_socket"), 2);
    assert_false(loop_timer_active(&g->proxy->probe_timer));
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    answers(g, 1);
}

static void raw_sockets_do_the_same_with_ids_of_ours(void **state) /* icmp.md 4.8 */
{
    struct echo_proxy_options o;
    RIG(g);

    options(g, &o);
    o.prefer_raw = true;
    o.share = 1;
    o.shares = 4;
    start(g, &o);
    if (echo_proxy_mode(g->proxy, false) != ECHO_PROXY_MODE_RAW)
        skip(); /* no CAP_NET_RAW here */
    for (unsigned i = 0; i < 40; i++) {
        uint8_t c[4] = { 10, 9, 8, (uint8_t)i };

        g->ask.client = ip_from4(c);
        if (i == 20)
            use_v6(g);
        if (i > 20) {
            g->ask.client = addr("fd00::9");
            g->ask.id = (uint16_t)i;
        }
        assert_int_equal(ask(g), ECHO_PROXY_SENT);
        answers(g, i + 1);
        assert_true(ip_equal(&g->last.client, &g->ask.client));
        assert_memory_equal(g->payload, "0123456789", 10);
        assert_int_equal(g->last.ttl, 63);
    }
    assert_int_equal(count(g, "replies"), 40);
    assert_int_equal(g->proxy->ids.low, 1 + 16383);
    wheel_advance(&g->wheel, clock_now_us() + 30000000);
    assert_int_equal(g->proxy->ids.count, g->proxy->ids.size);
}

static void nothing_starts_that_would_come_back_through_the_tun(void **state) /* icmp.md X35 */
{
    struct echo_proxy_options o;
    RIG(g);

    options(g, &o);
    o.guard_needed = true;
    start(g, &o);
    assert_int_equal(ask(g), ECHO_PROXY_OFF);
    g->ifindex = 1; /* bound to an interface is enough */
    start(g, &o);
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    answers(g, 1);
}

static void a_prefix_that_must_not_be_dialled_is_not_pinged(void **state) /* icmp.md X8, X35 */
{
    RIG(g);
    g->ifindex = -ELOOP;
    assert_int_equal(ask(g), ECHO_PROXY_DROPPED);
    g->ifindex = -EACCES;
    assert_int_equal(ask(g), ECHO_PROXY_ADMIN_PROHIBITED);
}

static void flows_of_a_vanished_uplink_are_closed(void **state) /* icmp.md X36 */
{
    RIG(g);
    g->ifindex = 1;
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    g->ifindex = 0;
    g->ask.client = addr("10.9.9.8");
    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    echo_proxy_uplink_changed(g->proxy);
    assert_int_equal(echo_proxy_flows(g->proxy), 2); /* "lo" is still there */
    ((struct ping_flow *)slab_at(&g->proxy->table.flows, 0))->ifindex = 9999;
    echo_proxy_uplink_changed(g->proxy);
    assert_int_equal(echo_proxy_flows(g->proxy), 1);
}

static void our_own_request_that_comes_back_is_known_by_its_sender_too(void **state) /* icmp.md X37 */
{
    struct ip_addr stranger = addr("10.9.9.9"), own = addr("192.0.2.1");
    uint16_t wire_id;
    RIG(g);

    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    answers(g, 1);
    wire_id = ((struct ping_flow *)slab_at(&g->proxy->table.flows, 0))->wire_id;
    assert_false(echo_proxy_is_loop(g->proxy, &own, &g->ask.target, wire_id, 2));
    /* a client may have the id and the number that we have: only a sender of this host makes it a loop */
    assert_false(echo_proxy_is_loop(g->proxy, &stranger, &g->ask.target, wire_id, 1));
    assert_true(echo_proxy_is_loop(g->proxy, &own, &g->ask.target, wire_id, 1));
    assert_int_equal(count(g, "loop_detected"), 1);
    assert_int_equal(ask(g), ECHO_PROXY_DROPPED);
    assert_int_equal(count(g, "drops_loop"), 1);
}

static void no_memory_is_taken_for_a_packet(void **state) /* echo.h: Memory */
{
    uint32_t flows;
    RIG(g);

    assert_int_equal(ask(g), ECHO_PROXY_SENT);
    answers(g, 1);
    flows = g->proxy->table.flows.touched;
    for (unsigned i = 0; i < 200; i++) {
        g->ask.seq++;
        assert_int_equal(ask(g), ECHO_PROXY_SENT);
        answers(g, i + 2);
    }
    assert_int_equal(g->proxy->table.flows.touched, flows);
    wheel_advance(&g->wheel, clock_now_us() + 30000000);
    while (echo_proxy_trim(g->proxy))
        ;
    assert_int_equal(echo_proxy_flows(g->proxy), 0);
}

/* ---- the namespace ---- */

static void add_address(struct netlink *nl, int lo, const char *text)
{
    struct ip_prefix a;

    assert_int_equal(ip_interface_parse(text, &a), 0);
    assert_int_equal(netlink_addr_add(nl, lo, &a), 0);
}

static void add_route(struct netlink *nl, const char *dst, uint8_t type)
{
    struct nl_route r = { .type = type, .table = RT_TABLE_MAIN, .proto = 4 };

    assert_int_equal(ip_prefix_parse(dst, &r.dst), 0);
    r.v6 = !ip_is4(&r.dst.addr);
    assert_int_equal(netlink_route_add(nl, &r), 0);
}

static int enter(void **state)
{
    struct netlink *nl;
    struct nl_link lo;
    FILE *f;

    (void)state;
    why_skipped = netns_enter();
    if (why_skipped)
        return 0;
    f = fopen("/proc/sys/net/ipv4/ping_group_range", "w");
    if (!f || fprintf(f, "%u %u", getegid(), getegid()) < 0 || fclose(f) != 0)
        why_skipped = "ping_group_range cannot be set here";
    assert_int_equal(netlink_open(&nl, NULL), 0);
    assert_int_equal(netlink_link_by_name(nl, "lo", &lo), 0);
    assert_int_equal(netlink_link_set(nl, lo.ifindex, true, 2000, 0), 0);
    add_address(nl, lo.ifindex, "192.0.2.1/32");
    add_address(nl, lo.ifindex, "2001:db8::1/128");
    add_route(nl, "192.0.2.8/32", RTN_UNREACHABLE);
    add_route(nl, "192.0.2.9/32", RTN_PROHIBIT);
    add_route(nl, "2001:db8::9/128", RTN_PROHIBIT);
    netlink_close(nl);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_reply_has_the_clients_id_number_and_bytes),
        TEST(payloads_of_every_size_are_exact),
        TEST(what_may_not_leave_makes_no_flow_and_no_socket),
        TEST(strict_drops_what_a_ping_socket_cannot_carry),
        TEST(what_our_kernel_says_is_the_answer),
        TEST(too_big_for_the_first_link_quotes_the_clients_datagram),
        TEST(errors_can_be_switched_off),
        TEST(a_flow_relays_twenty_errors_a_second),
        TEST(flows_of_two_clients_have_kernel_ids_of_their_own),
        TEST(an_idle_flow_ends_between_its_time_and_a_second_more),
        TEST(a_new_responder_gets_the_flow_with_its_socket),
        TEST(a_responder_that_is_gone_takes_its_flows_with_it),
        TEST(no_descriptor_or_id_means_a_second_of_rest_and_nothing_else),
        TEST(many_flows_share_few_sockets_and_never_mix),
        TEST(a_reply_to_a_flow_that_is_gone_is_dropped),
        TEST(a_socket_that_cannot_be_read_ends_its_flows_and_nobody_elses),
        TEST(without_the_right_the_mode_is_off_until_it_comes_back),
        TEST(raw_sockets_do_the_same_with_ids_of_ours),
        TEST(nothing_starts_that_would_come_back_through_the_tun),
        TEST(a_prefix_that_must_not_be_dialled_is_not_pinged),
        TEST(flows_of_a_vanished_uplink_are_closed),
        TEST(our_own_request_that_comes_back_is_known_by_its_sender_too),
        TEST(no_memory_is_taken_for_a_packet),
    };

    return cmocka_run_group_tests(tests, enter, NULL);
}
