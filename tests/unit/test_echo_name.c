/* test_echo_name.c - faces src/forward/echo_name.c and the way back in echo_direct.c: pings to fake addresses (icmp.md M18). The name
 * servers, the policy, the proxy and the stack are the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "forward/forward_impl.h"

#define PINGS_MAX 100 /* of one test: a policy that is asked more often than that is asked for ever */

struct loop {
    uint64_t now_us;
};

static struct loop loop;
static struct forward f;
static const char *name; /* that the address stands for now */
static unsigned asked, held, pinged;
static up_resolved_fn *answer_fn;
static void *answer_arg;

uint64_t loop_now_us(const struct loop *l)
{
    return l->now_us;
}

bool loop_is_mine(const struct loop *l)
{
    return l != NULL;
}

void loop_post(struct loop *l, struct loop_msg *m)
{
    (void)l;
    (void)m;
    fail();
}

int up_resolve_name(struct up_env *env, const char *text, up_resolved_fn *fn, void *arg,
                    struct up_resolve **out)
{
    (void)env;
    assert_string_equal(text, name);
    asked++;
    answer_fn = fn;
    answer_arg = arg;
    *out = NULL;
    return 0;
}

void up_resolve_cancel(struct up_env *env, struct up_resolve *q)
{
    (void)env;
    (void)q;
}

enum echo_verdict echo_policy_on_echo(void *arg, struct echo_req *r)
{
    struct echo_alias alias;

    assert_ptr_equal(arg, &f);
    switch (echo_name_find(&f, &r->dst, name, &alias)) {
    case ECHO_NAME_KNOWN:
        pinged++;
        break;
    case ECHO_NAME_ASKED:
        held += echo_name_hold(&f, r);
        break;
    case ECHO_NAME_MISSING:
    case ECHO_NAME_BUSY:
        fail();
    }
    if (pinged + held > PINGS_MAX)
        fail_msg("%u pings were held and %u sent", held, pinged);
    return ECHO_CONSUMED;
}

static struct ip_addr addr(const char *text)
{
    struct ip_addr a;

    assert_int_equal(ip_parse(text, &a), 0);
    return a;
}

static void ping(const char *fake)
{
    static const uint8_t packet[29] = { 0x45 };
    struct echo_req r = { .src = addr("10.0.0.2"),
                          .dst = addr(fake),
                          .payload = packet + 28,
                          .payload_len = 1,
                          .ip_header = packet,
                          .ip_header_len = 20 };

    echo_policy_on_echo(&f, &r);
}

static void server_says(const char *real)
{
    struct ip_addr a = addr(real);

    answer_fn(answer_arg, 0, &a, 1);
}

static int set_up(void **state)
{
    (void)state;
    memset(&f, 0, sizeof(f));
    loop.now_us = 1000000;
    f.loop = &loop;
    asked = held = pinged = 0;
    name = "a.example";
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    echo_names_free(&f);
    return 0;
}

/* ---- waiting for the name ------------------------------------------------------------------------------------------- */

static void pings_wait_for_one_answer_and_are_sent_then(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++)
        ping("198.19.0.5");
    assert_int_equal(asked, 1);
    assert_int_equal(held, 8);
    server_says("192.0.2.5");
    assert_int_equal(pinged, 8);
    ping("198.19.0.5");
    assert_int_equal(pinged, 9);
    assert_int_equal(asked, 1);
}

/* A worker went round for ever here: each ping that was let go waited again, behind those that were still to be let go. */
static void an_address_that_gets_another_name_meanwhile_is_asked_for_anew(void **state)
{
    (void)state;
    ping("198.19.0.5");
    ping("198.19.0.5");
    name = "b.example";
    server_says("192.0.2.5");
    assert_int_equal(asked, 2);
    assert_int_equal(held, 4);
    assert_int_equal(pinged, 0);
    server_says("192.0.2.6");
    assert_int_equal(pinged, 2);
}

/* ---- the way back --------------------------------------------------------------------------------------------------- */

static struct echo_outcome told;
static struct echo_addr told_to;

enum echo_result echo_inject(struct stack *s, const struct echo_outcome *o, const struct echo_addr *a)
{
    (void)s;
    told = *o;
    told_to = *a;
    return EV_SENT;
}

enum echo_result echo_reject(struct echo_req *r, enum stack_reject why)
{
    (void)r;
    (void)why;
    fail();
    return EV_STALE;
}

enum echo_result echo_expire(struct echo_req *r)
{
    (void)r;
    fail();
    return EV_STALE;
}

enum echo_proxy_result echo_proxy_send(struct echo_proxy *p, const struct echo_proxy_request *r)
{
    (void)p;
    (void)r;
    fail();
    return ECHO_PROXY_OFF;
}

static uint64_t place_of(const char *fake, const char *real)
{
    struct ip_addr a = addr(fake);
    struct echo_alias alias;

    ping(fake);
    server_says(real);
    assert_int_equal(echo_name_find(&f, &a, name, &alias), ECHO_NAME_KNOWN);
    return alias.place;
}

/* A router says something about a ping; its quote names @quoted as the target. */
static void an_error_comes(const char *fake, const char *real, const char *quoted, uint64_t place)
{
    struct ip_addr to = addr(quoted);
    bool v6 = !ip_is4(&to);
    uint8_t quote[48] = { v6 ? 0x60 : 0x45 };
    struct echo_proxy_answer a = { .is_error = true,
                                   .client = addr(v6 ? "fd00::2" : "10.0.0.2"),
                                   .target = addr(real),
                                   .type = v6 ? 3 : 11,
                                   .offender = addr(real),
                                   .quote = quote,
                                   .quote_len = v6 ? 48 : 28 };
    struct ip_addr shown = addr(fake);

    memcpy(quote + (v6 ? 24 : 16), v6 ? to.b : to.b + 12, v6 ? 16 : 4);
    forward_on_echo_answer(&f, place << 1, &a);
    assert_true(ip_equal(&told_to.target, &shown));
    assert_true(ip_equal(&told.source, &shown));
}

/* The proxy keeps the headers of a flow's last 64 requests, without IPv6 extensions, and makes one for the others. */
static void no_quote_tells_the_real_address(void **state)
{
    static const struct {
        const char *fake, *real;
    } rows[] = { { "198.19.0.5", "192.0.2.5" }, { "fd00:1::5", "2001:db8::5" } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t place = place_of(rows[i].fake, rows[i].real);

        an_error_comes(rows[i].fake, rows[i].real, rows[i].fake, place);
        assert_non_null(told.quote);
        an_error_comes(rows[i].fake, rows[i].real, rows[i].real, place);
        assert_null(told.quote);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pings_wait_for_one_answer_and_are_sent_then, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_address_that_gets_another_name_meanwhile_is_asked_for_anew, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(no_quote_tells_the_real_address, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
