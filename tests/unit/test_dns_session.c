/* test_dns_session.c - faces src/forward/dns_hijack.c: whose connections have room for questions that are answered here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "forward/forward_impl.h"

#define ROOM 1024 /* of a worker */

static struct forward f;
static struct ways ways = { .f = &f };
static struct source sources[2];
static struct tcp_flow flows[ROOM];

static bool begins(struct tcp_flow *t, struct source *source)
{
    *t = (struct tcp_flow){ .ways = &ways, .source = source };
    t->dns = dns_session_new(t);
    return t->dns != NULL;
}

static void one_clients_connections_leave_room_for_anothers(void **state)
{
    size_t n = 0;

    (void)state;
    assert_int_equal(dns_sessions_init(&f.sessions), 0);
    while (n < ROOM && begins(&flows[n], &sources[0]))
        n++;
    assert_int_equal(n, ROOM / 2);
    assert_int_equal(counter_read(&f.cnt.limit_dns), 1);
    assert_true(begins(&flows[n++], &sources[1]));
    dns_session_free(flows[0].dns);
    assert_true(begins(&flows[0], &sources[0]));
    while (n-- > 0)
        dns_session_free(flows[n].dns);
    assert_int_equal(sources[0].sessions + sources[1].sessions, 0);
    assert_int_equal(f.sessions.in_use, 0);
    slab_fini(&f.sessions);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(one_clients_connections_leave_room_for_anothers) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
