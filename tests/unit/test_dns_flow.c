/* test_dns_flow.c - faces src/forward/dns_flow.c: questions of datagrams that go over TCP. The streams are the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "forward/forward_impl.h"

#define ROOM 1024 /* of a worker */

struct loop {
    uint64_t now_us;
};
struct up_stream {
    const struct up_stream_events *events;
    void *arg;
    bool closed;
    uint8_t in[64];
    size_t in_len;
};

static struct loop loop;
static struct wheel wheel;
static struct forward f;
static struct upstream *targets[1];
static struct ways ways = { .f = &f, .target = targets };
static struct source sources[2];
static struct udp_flow flows[2];
static struct up_stream streams[2 * ROOM];
static size_t opened;
static struct ip_port replied_from;
static size_t replied_len;

uint64_t loop_now_us(const struct loop *l)
{
    return l->now_us;
}

int up_stream_open(struct up_env *env, struct upstream *up, const struct host_port *dst, uint64_t timeout_us,
                   const struct up_stream_events *events, void *arg, struct up_stream **out)
{
    (void)env;
    (void)up;
    (void)dst;
    (void)timeout_us;
    *out = &streams[opened++];
    **out = (struct up_stream){ .events = events, .arg = arg };
    return 0;
}

ssize_t up_stream_sendv(struct up_stream *s, const struct iovec *iov, int iovcnt)
{
    assert_false(s->closed);
    assert_int_equal(iovcnt, 1);
    return (ssize_t)iov->iov_len;
}

ssize_t up_stream_recv(struct up_stream *s, void *to, size_t len)
{
    size_t n = s->in_len < len ? s->in_len : len;

    if (n == 0)
        return -EAGAIN;
    memcpy(to, s->in, n);
    s->in_len -= n;
    return (ssize_t)n;
}

void up_stream_want(struct up_stream *s, unsigned events)
{
    assert_false(s->closed);
    assert_int_equal(events, LOOP_READ);
}

void up_stream_close(struct up_stream *s)
{
    assert_false(s->closed);
    s->closed = true;
}

void udp_flow_reply(struct udp_flow *u, const struct ip_port *source, const struct iovec *iov, int n,
                    uint16_t gso_size)
{
    assert_ptr_equal(u, &flows[0]);
    assert_int_equal(n, 1);
    assert_int_equal(gso_size, 0);
    replied_from = *source;
    replied_len = iov->iov_len;
}

struct upstream *up_stream_way(const struct up_stream *s)
{
    (void)s;
    return NULL;
}

struct rate_of rate_of(const struct forward *forward, const struct upstream *target,
                       const struct upstream *way)
{
    (void)forward;
    (void)target;
    (void)way;
    return (struct rate_of){ 0 };
}

static size_t passed; /* bytes that a limit was asked about */
static bool full;     /* and what it says */

bool rate_pass(struct forward *forward, const struct source *s, struct rate_of of, int dir, size_t bytes)
{
    (void)forward;
    (void)of;
    assert_ptr_equal(s, &sources[0]);
    assert_int_equal(dir, RATE_DOWN);
    passed += bytes;
    return !full;
}

static const struct host_port server = { .port = 53 };
static const struct ip_port shown = { .port = 5353 };

static void ask(struct udp_flow *u)
{
    static const uint8_t question[20];

    dns_flow_ask(u, 0, &server, &shown, question, sizeof(question));
}

static int set_up(void **state)
{
    (void)state;
    memset(&f, 0, sizeof(f));
    loop.now_us = 1000000;
    wheel_init(&wheel, loop.now_us);
    f.loop = &loop;
    f.wheel = &wheel;
    f.ways = &ways;
    ways.rate_count = 0;
    full = false;
    passed = replied_len = 0;
    f.opt.dns_idle_timeout_ms = 10000;
    opened = 0;
    for (int i = 0; i < 2; i++) {
        sources[i] = (struct source){ .flows = 1 };
        flows[i] = (struct udp_flow){ .f = &f, .ways = &ways, .source = &sources[i] };
    }
    return dns_queries_init(&f.queries);
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        dns_flow_cancel(&flows[i]);
    assert_int_equal(f.queries.in_use, 0);
    assert_int_equal(sources[0].queries + sources[1].queries, 0);
    slab_fini(&f.queries);
    return 0;
}

static void a_question_goes_out_and_its_answer_comes_back_as_a_datagram(void **state)
{
    static const uint8_t answer[2 + 12] = { 0, 12 };
    struct up_stream *s = &streams[0];

    (void)state;
    ask(&flows[0]);
    s->events->on_open(s->arg);
    memcpy(s->in, answer, sizeof(answer));
    s->in_len = sizeof(answer);
    s->events->on_readable(s->arg);
    assert_int_equal(replied_len, 12);
    assert_true(ip_port_equal(&replied_from, &shown));
    assert_true(s->closed);
    assert_int_equal(sources[0].queries, 0);
}

static void an_answer_counts_as_the_datagram_that_it_becomes(void **state)
{
    static const uint8_t answer[2 + 12] = { 0, 12 };

    (void)state;
    ways.rate_count = 1;
    for (int i = 0; i < 2; i++) {
        struct up_stream *s = &streams[i];

        full = i == 1;
        replied_len = 0;
        ask(&flows[0]);
        s->events->on_open(s->arg);
        memcpy(s->in, answer, sizeof(answer));
        s->in_len = sizeof(answer);
        s->events->on_readable(s->arg);
        assert_int_equal(passed, 12 * (i + 1));
        assert_int_equal(replied_len, full ? 0 : 12);
        assert_true(s->closed);
    }
    assert_int_equal(counter_read(&f.cnt.rate_dropped), 1);
}

static void one_clients_questions_leave_room_for_anothers(void **state)
{
    (void)state;
    for (int i = 0; i < ROOM; i++)
        ask(&flows[0]);
    assert_int_equal(opened, ROOM / 2);
    assert_int_equal(counter_read(&f.cnt.limit_dns), ROOM - ROOM / 2);
    ask(&flows[1]);
    assert_int_equal(opened, ROOM / 2 + 1);
    streams[0].events->on_closed(streams[0].arg, NULL);
    loop.now_us += 10000000; /* the server says nothing */
    wheel_advance(&wheel, loop.now_us);
    assert_int_equal(f.queries.in_use, 0);
    ask(&flows[0]);
    assert_int_equal(sources[0].queries, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_question_goes_out_and_its_answer_comes_back_as_a_datagram, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(an_answer_counts_as_the_datagram_that_it_becomes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_clients_questions_leave_room_for_anothers, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
