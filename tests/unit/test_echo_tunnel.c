/* test_echo_tunnel.c - faces src/forward/echo_tunnel.c: whose pings have room in a tunnel. The stack and the way out are the test's
 * own; what goes over the wire is test_masque_echo.c's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "forward/forward_impl.h"

struct loop {
    uint64_t now_us;
};

static struct loop loop;
static struct ways ways = { .workers = 2 };
static struct forward f;
static struct upstream *const way = (struct upstream *)(void *)&f; /* nobody looks into it */
static unsigned sent;

uint64_t loop_now_us(const struct loop *l)
{
    return l->now_us;
}

void up_echo_listen(struct up_env *env, const struct up_echo_events *events, void *arg)
{
    (void)env;
    (void)events;
    (void)arg;
}

enum up_echo_state up_echo_state(struct up_env *env, struct upstream *up, bool v6)
{
    (void)env;
    (void)up;
    (void)v6;
    return UP_ECHO_READY;
}

int up_echo_send(struct up_env *env, struct upstream *up, const struct up_echo_request *r)
{
    (void)env;
    (void)up;
    (void)r;
    sent++;
    return 0;
}

struct upstream *upstream_ref(struct upstream *up)
{
    return up;
}

void upstream_unref(struct upstream *up)
{
    (void)up;
}

uint64_t share_equal(const struct forward *forward, uint64_t whole)
{
    return whole / forward->ways->workers;
}

void echo_answer_down(struct forward *forward, struct echo_req *r)
{
    (void)forward;
    (void)r;
    fail();
}

void echo_end(struct forward *forward, struct echo_req *r)
{
    (void)forward;
    (void)r;
    fail();
}

echo_token echo_detach(struct echo_req *r, uint32_t keep)
{
    (void)r;
    (void)keep;
    fail();
    return 0;
}

enum echo_result echo_complete(struct stack *s, echo_token token, const struct echo_outcome *o)
{
    (void)s;
    (void)token;
    (void)o;
    fail();
    return EV_STALE;
}

enum echo_result echo_inject(struct stack *s, const struct echo_outcome *o, const struct echo_addr *a)
{
    (void)s;
    (void)o;
    (void)a;
    fail();
    return EV_STALE;
}

static struct echo_req request(uint8_t client, uint16_t id)
{
    const uint8_t from[] = { 10, 0, 0, client }, to[] = { 192, 0, 2, 1 };

    return (struct echo_req){ .src = ip_from4(from), .dst = ip_from4(to), .id = id, .ttl = 64 };
}

/* Return: was it sent? */
static bool ping(uint8_t client, uint16_t id)
{
    struct echo_req r = request(client, id);
    unsigned before = sent;

    echo_tunnel(&f, &r, &r.dst, way, way);
    return sent > before;
}

static bool is_known(uint8_t client, uint16_t id)
{
    struct echo_req r = request(client, id);

    return echo_tunnel_way(&f, &r, way) == way;
}

static unsigned pings(uint8_t client, unsigned n)
{
    unsigned taken = 0;

    for (unsigned i = 0; i < n; i++)
        taken += ping(client, (uint16_t)i);
    return taken;
}

static int set_up(void **state)
{
    (void)state;
    memset(&f, 0, sizeof(f));
    loop.now_us = UINT64_C(100000000);
    f.loop = &loop;
    f.ways = &ways;
    f.source_key = (struct hash_key){ 1, 2 };
    f.opt.echo_max_flows = 200; /* of two workers */
    f.opt.echo_ttl = ECHO_TTL_HOP;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    echo_tunnel_free(&f);
    return 0;
}

static void a_sweep_by_one_client_leaves_half_to_others(void **state) /* icmp.md X12 */
{
    (void)state;
    assert_int_equal(pings(2, 1000), 50);
    assert_int_equal(pings(3, 40), 40);
    assert_int_equal(pings(4, 40),
                     10);     /* design.md section 6: a worker has its part of the process's limit */
    assert_true(ping(2, 49)); /* flows that live go on */
    assert_false(ping(2, 2000));
}

static void at_its_half_a_client_loses_the_oldest_of_its_own(void **state) /* icmp.md X12 */
{
    (void)state;
    assert_true(ping(3, 0)); /* the oldest of all */
    assert_int_equal(pings(2, 50), 50);
    loop.now_us += 1000000;
    assert_true(ping(2, 100));
    assert_false(is_known(2, 0));
    assert_true(is_known(2, 1) && is_known(3, 0));
    assert_int_equal(pings(4, 50), 50);             /* now the table is full, */
    assert_true(is_known(2, 1) && !is_known(3, 0)); /* and the oldest of all goes */
}

static void flows_that_are_over_make_room(void **state)
{
    (void)state;
    assert_int_equal(pings(2, 100), 50);
    loop.now_us += 10000000;
    assert_int_equal(pings(3, 100), 50);
    assert_true(echo_tunnel_trim(&f)); /* there are some */
    loop.now_us += 10000000;
    assert_false(echo_tunnel_trim(&f));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_sweep_by_one_client_leaves_half_to_others, set_up, tear_down),
        cmocka_unit_test_setup_teardown(at_its_half_a_client_loses_the_oldest_of_its_own, set_up, tear_down),
        cmocka_unit_test_setup_teardown(flows_that_are_over_make_room, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
