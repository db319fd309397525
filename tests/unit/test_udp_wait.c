/* test_udp_wait.c - faces src/forward/udp_wait.c: whose datagrams have room to wait until the rules can decide. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "forward/forward_impl.h"

#define ROOM 128 /* of a worker */

static struct forward f;
static struct wheel wheel;
static struct source sources[2];
static struct udp_flow flows[2];

static bool waits(struct udp_flow *u, uint16_t port)
{
    const struct udp_verdict lacks = { .name.known = NAME_UNKNOWN };

    return udp_look_start(u, &(struct ip_port){ .port = port }, UDP_WANTS_NAME, &lacks) != NULL;
}

static void one_clients_targets_leave_room_to_wait_for_anothers(void **state)
{
    unsigned n = 0;

    (void)state;
    assert_int_equal(loop_new(&f.loop), 0);
    wheel_init(&wheel, loop_now_us(f.loop));
    f.wheel = &wheel;
    f.opt.max_udp = 1000;
    f.opt.sniff.timeout_ms = 300;
    assert_int_equal(udp_waits_init(&f), 0);
    for (int i = 0; i < 2; i++)
        flows[i] = (struct udp_flow){ .f = &f, .source = &sources[i] };
    while (n < ROOM && waits(&flows[0], (uint16_t)n))
        n++;
    assert_int_equal(n, ROOM / 2);
    assert_true(waits(&flows[1], 443));
    udp_looks_free(&flows[0]);
    assert_true(waits(&flows[0], 443));
    udp_looks_free(&flows[0]);
    udp_looks_free(&flows[1]);
    assert_int_equal(sources[0].waits + sources[1].waits, 0);
    assert_int_equal(f.waits.in_use + f.looks.in_use, 0);
    slab_fini(&f.waits);
    slab_fini(&f.looks);
    loop_free(f.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(
        one_clients_targets_leave_room_to_wait_for_anothers) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
