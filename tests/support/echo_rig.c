/* echo_rig.c - see echo_rig.h. */
#include "echo_rig.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct ip_addr echo_rig_addr(const char *text)
{
    struct ip_addr a;

    assert_int_equal(ip_parse(text, &a), 0);
    return a;
}

static void on_answer(void *arg, uint64_t responder, const struct echo_proxy_answer *a)
{
    struct echo_rig *g = arg;

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
    struct echo_rig *g = arg;
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
    struct echo_rig *g = arg;

    (void)dst;
    return g->ifindex;
}

void rig_options(struct echo_rig *g, struct echo_proxy_options *o)
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

void rig_start(struct echo_rig *g, const struct echo_proxy_options *o)
{
    echo_proxy_free(g->proxy);
    g->proxy = NULL;
    assert_int_equal(echo_proxy_new(o, &g->proxy), 0);
}

int rig_setup(void **state)
{
    struct echo_rig *g = calloc(1, sizeof(*g));
    struct echo_proxy_options o;

    assert_int_equal(loop_new(&g->loop), 0);
    loop_wait_init(&g->wait, g->loop);
    wheel_init(&g->wheel, clock_now_us());
    assert_int_equal(echo_guard_new(&g->guard), 0);
    rig_options(g, &o);
    rig_start(g, &o);
    g->ask = (struct echo_proxy_request){ .client = echo_rig_addr("10.9.9.9"),
                                          .target = echo_rig_addr("192.0.2.1"),
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

int rig_teardown(void **state)
{
    struct echo_rig *g = *state;

    echo_proxy_free(g->proxy);
    echo_guard_free(g->guard);
    loop_free(g->loop);
    free(g);
    return 0;
}

uint64_t rig_count(const struct echo_rig *g, const char *name)
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
    struct echo_rig *g = arg;

    return g->replies + g->errors >= g->want;
}

bool rig_never(void *arg)
{
    (void)arg;
    return false;
}

enum echo_proxy_result rig_ask(struct echo_rig *g)
{
    return echo_proxy_send(g->proxy, &g->ask);
}

/* Wait for the answers of so many requests in all. */
void rig_answers(struct echo_rig *g, unsigned n)
{
    g->want = n;
    if (!loop_wait_until(&g->wait, 5000, has_answers, g))
        fail_msg("%u replies and %u errors, not %u in all", g->replies, g->errors, n);
}

void rig_use_v6(struct echo_rig *g)
{
    g->ask.client = echo_rig_addr("fd00::9");
    g->ask.target = echo_rig_addr("2001:db8::1");
}

/* ---- the namespace ---- */

static void add_route(struct netlink *nl, const char *dst, uint8_t type)
{
    struct nl_route r = { .type = type, .table = RT_TABLE_MAIN, .proto = 4 };

    assert_int_equal(ip_prefix_parse(dst, &r.dst), 0);
    r.v6 = !ip_is4(&r.dst.addr);
    assert_int_equal(netlink_route_add(nl, &r), 0);
}

const char *rig_enter(void)
{
    const char *why = netns_enter_for_pings(2000);
    struct netlink *nl;

    if (why != NULL)
        return why;
    assert_int_equal(netlink_open(&nl, NULL), 0);
    add_route(nl, "192.0.2.8/32", RTN_UNREACHABLE);
    add_route(nl, "192.0.2.9/32", RTN_PROHIBIT);
    add_route(nl, "2001:db8::9/128", RTN_PROHIBIT);
    netlink_close(nl);
    return NULL;
}
