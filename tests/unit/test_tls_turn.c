/* test_tls_turn.c - src/tls: how long many handshakes at once hold up one turn of a loop (faults.md L13).
 * In processor time of the thread, which a busy machine does not change. Less than a second is reported and not promised; what fails
 * is a turn that does the work of many. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls/tls_impl.h"
#include "tls_pair.h"

#include <cmocka.h>

enum { SERVERS = 20, EACH = 4, ALL = SERVERS * EACH }; /* a context runs four full handshakes at once */

struct flood {
    struct tls_lab lab;
    struct tls_context *to[SERVERS]; /* as many upstreams of one worker */
    struct tls_pair pairs[ALL];
    double longest_ms[2], all_ms[2]; /* client, server */
    unsigned turns;
};

static double cpu_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

/* All that are under way, once each, as a loop would call them in one turn. Return: how many are not through. */
static unsigned one_turn(struct flood *f, bool server)
{
    double start_ms = cpu_ms(), took_ms;
    unsigned left = 0;

    for (int i = 0; i < ALL; i++) {
        struct tls_side *side = server ? &f->pairs[i].server : &f->pairs[i].client;

        if (side->step != TLS_DONE)
            side->step = tls_handshake(side->tls, f->turns);
        assert_int_not_equal(side->step, TLS_BROKEN);
        left += side->step != TLS_DONE;
    }
    took_ms = cpu_ms() - start_ms;
    f->all_ms[server] += took_ms;
    if (took_ms > f->longest_ms[server])
        f->longest_ms[server] = took_ms;
    return left;
}

static void eighty_full_handshakes_at_once_share_the_turns(void **state) /* faults.md L13 */
{
    struct tls_options opt = { 0 };
    struct flood *f = calloc(1, sizeof(*f));
    unsigned left = ALL;

    (void)state;
    tls_lab_init(&f->lab, &opt, "localhost", pki_server(), false);
    for (int i = 0; i < SERVERS; i++)
        assert_int_equal(tls_context_new(f->lab.worker, f->lab.client->settings, "localhost", &f->to[i]), 0);
    for (int i = 0; i < ALL; i++) {
        struct tls_lab one = { .client = f->to[i / EACH], .server = f->lab.server };

        tls_pair_open(&one, &f->pairs[i]);
        f->pairs[i].client.step = f->pairs[i].server.step = TLS_WANT_READ;
    }
    while (left > 0) {
        f->turns++;
        left = one_turn(f, false);
        left += one_turn(f, true);
        assert_true(f->turns < 1000);
    }
    print_message("%u turns; the longest: client %.2f ms, server %.2f ms; all: %.0f and %.0f ms\n", f->turns,
                  f->longest_ms[0], f->longest_ms[1], f->all_ms[0], f->all_ms[1]);
    for (int side = 0; side < 2;
         side++) /* one of them would be an eightieth, if all took their turn in one */
        assert_true(f->longest_ms[side] < f->all_ms[side] / 8);
    for (int i = 0; i < ALL; i++)
        tls_pair_free(&f->pairs[i]);
    for (int i = 0; i < SERVERS; i++)
        tls_context_free(f->to[i]);
    tls_lab_fini(&f->lab);
    free(f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(eighty_full_handshakes_at_once_share_the_turns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
