/* test_resolver.c - faces src/resolver as a whole: real sockets, a loop, and name servers of every mood on loopback. */
#include "culvert/resolver.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "fake_dns.h"
#include "loop_wait.h"
#include "netns.h"

#define GOOD    "2001:db8::1 192.0.2.1 192.0.2.2"
#define WAIT_MS 8000 /* far beyond any of our own limits: only a hang reaches it */

/* A loop, two name servers and a resolver that asks them in this order. */
struct lab {
    struct loop *loop;
    struct loop_wait wait;
    struct fake_dns first, second;
    struct resolver *resolver;
    unsigned sockets_made;
    int socket_err; /* what make_socket answers, if not 0 */
};

/* One question and what came of it, as text. */
struct result {
    struct lab *lab;
    unsigned calls;
    int err;
    char addrs[512];
    uint64_t asked_us, took_ms;
};

static int make_socket(void *arg, int family, int type, const struct ip_port *dst)
{
    struct lab *lab = arg;
    int fd;

    assert_int_equal(ip_is4(&dst->addr), family == AF_INET);
    if (lab->socket_err != 0)
        return lab->socket_err;
    lab->sockets_made++;
    fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd >= 0 ? fd : -errno;
}

static void new_resolver(struct lab *lab, size_t servers, uint32_t timeout_ms)
{
    struct ip_port at[2] = { lab->first.at, lab->second.at };
    struct resolver_options opt = { .hosts_path = "/nonexistent/hosts",
                                    .resolv_conf_path = "/nonexistent/resolv.conf",
                                    .servers = at,
                                    .n_servers = servers,
                                    .timeout_ms = timeout_ms,
                                    .make_socket = make_socket,
                                    .socket_arg = lab };

    resolver_free(lab->resolver);
    lab->resolver = NULL;
    assert_int_equal(resolver_new(lab->loop, &opt, &lab->resolver), 0);
}

static int setup(void **state)
{
    struct lab *lab = calloc(1, sizeof(*lab));

    if (lab == NULL || loop_new(&lab->loop) != 0 || fake_dns_open(&lab->first, lab->loop, "127.0.0.1") != 0 ||
        fake_dns_open(&lab->second, lab->loop, "127.0.0.1") != 0)
        return -1;
    loop_wait_init(&lab->wait, lab->loop);
    new_resolver(lab, 1, 2000);
    *state = lab;
    return 0;
}

static int teardown(void **state)
{
    struct lab *lab = *state;

    resolver_free(lab->resolver);
    fake_dns_close(&lab->first);
    fake_dns_close(&lab->second);
    loop_free(lab->loop);
    free(lab);
    return 0;
}

static void on_result(void *arg, int err, const struct ip_addr *addrs, size_t n)
{
    struct result *r = arg;
    char text[IP_TEXT_MAX];

    r->calls++;
    r->err = err;
    r->addrs[0] = '\0';
    for (size_t i = 0; i < n; i++)
        snprintf(r->addrs + strlen(r->addrs), sizeof(r->addrs) - strlen(r->addrs), "%s%s", i > 0 ? " " : "",
                 ip_text(&addrs[i], text));
    r->took_ms = (clock_now_us() - r->asked_us) / 1000;
}

static bool is_answered(void *arg)
{
    return ((struct result *)arg)->calls > 0;
}

static void ask(struct lab *lab, const char *name, struct result *out)
{
    *out = (struct result){ .lab = lab, .asked_us = clock_now_us() };
    assert_int_equal(resolver_query(lab->resolver, name, on_result, out, NULL), 0);
    assert_int_equal(out->calls, 0); /* never before resolver_query() has returned */
}

/* Asks and waits. Return: the addresses, or "" and out->err. */
static const char *resolve(struct lab *lab, const char *name, struct result *out)
{
    ask(lab, name, out);
    if (!loop_wait_until(&lab->wait, WAIT_MS, is_answered, out))
        fail_msg("%s: no answer at all", name);
    assert_int_equal(out->calls, 1);
    return out->addrs;
}

/* ---- what a server says ---- */

static const struct mood_row {
    const char *mood;
    const char *addrs; /* with one server */
    int err;
} moods[] = {
    { "ok", GOOD, 0 },
    { "four", "192.0.2.1 192.0.2.2", 0 },
    { "six", "2001:db8::1", 0 },
    { "chain16", "192.0.2.1", 0 },
    { "no-edns", GOOD, 0 },
    { "lost", GOOD, 0 }, /* the first try of both families is not answered */
    { "slow6", "192.0.2.1 192.0.2.2", 0 },
    { "nx", "", -ENOENT },
    { "empty", "", -ENOENT },
    { "servfail", "", -EHOSTUNREACH },
    { "refused", "", -EHOSTUNREACH },
    { "count-lies", "", -EHOSTUNREACH }, /* faults.md D2 */
    { "chain17", "", -EHOSTUNREACH },    /* faults.md D6 */
    { "silent", "", -ETIMEDOUT },
    { "wrong-id", GOOD, 0 }, /* faults.md D3: all of these are followed by the right answer */
    { "other-name", GOOD, 0 },
    { "case", GOOD, 0 },
    { "not-an-answer", GOOD, 0 },
    { "short", GOOD, 0 },
    { "forged", GOOD, 0 }, /* faults.md D4 */
    { "tc", GOOD, 0 },     /* faults.md D5 */
    { "tc-zero", "", -EHOSTUNREACH },
    { "tc-close", "", -EHOSTUNREACH },
    { "tc-half", "", -EHOSTUNREACH },
    { "tc-other-id", "", -EHOSTUNREACH },
    { "tc-hang", "", -ETIMEDOUT },
};

static void every_mood_of_a_single_server_has_its_result(void **state) /* faults.md D2, D3, D4, D5, D6 */
{
    struct lab *lab = *state;
    struct result r;
    int wrong = 0;

    for (size_t i = 0; i < ARRAY_LEN(moods); i++) {
        new_resolver(lab, 1, 1000);
        lab->first.mood = moods[i].mood;
        lab->first.udp_queries = 0;
        if (strcmp(resolve(lab, "host.example", &r), moods[i].addrs) == 0 && r.err == moods[i].err &&
            r.took_ms <= 2000)
            continue;
        print_error("%s: \"%s\", %d after %u ms\n", moods[i].mood, r.addrs, r.err, (unsigned)r.took_ms);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void a_second_server_makes_good_what_the_first_did_wrong(void **state) /* faults.md D2, D6 */
{
    static const char *const bad[] = { "servfail", "refused", "count-lies",  "chain17", "tc-zero",
                                       "tc-close", "tc-half", "tc-other-id", "silent",  "tc-hang" };
    struct lab *lab = *state;
    struct result r;
    int wrong = 0;

    lab->second.mood = "ok";
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        new_resolver(lab, 2, 3000); /* a try takes half a second */
        lab->first.mood = bad[i];
        if (strcmp(resolve(lab, "host.example", &r), GOOD) == 0 && r.took_ms < 2000)
            continue;
        print_error("%s: \"%s\", %d after %u ms\n", bad[i], r.addrs, r.err, (unsigned)r.took_ms);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void a_server_that_is_gone_is_passed_over_at_once(void **state) /* faults.md D7 */
{
    struct lab *lab = *state;
    struct result r;

    new_resolver(lab, 2, 5000);
    fake_dns_close(&lab->first);
    assert_string_equal(resolve(lab, "ok.example", &r), GOOD);
    assert_in_range(r.took_ms, 0, 1000);
    fake_dns_close(&lab->second);
    assert_string_equal(resolve(lab, "other.example", &r), "");
    assert_int_equal(r.err, -EHOSTUNREACH);
    assert_in_range(r.took_ms, 0, 1000);
}

static void names_are_asked_over_ipv6_too(void **state)
{
    struct lab *lab = *state;
    struct result r;

    fake_dns_close(&lab->second);
    if (fake_dns_open(&lab->second, lab->loop, "::1") != 0)
        SKIP("this machine has no ::1");
    lab->first.at = lab->second.at;
    new_resolver(lab, 1, 2000);
    assert_string_equal(resolve(lab, "ok.example", &r), GOOD);
    assert_string_equal(resolve(lab, "tc.example", &r), GOOD);
    assert_int_equal(lab->second.udp_queries, 4);
    assert_int_equal(lab->second.tcp_queries, 2);
}

static void nobody_answers_within_five_seconds_at_the_most(void **state) /* faults.md D7 */
{
    struct lab *lab = *state;
    struct result r;

    new_resolver(lab, 2, 0);
    assert_string_equal(resolve(lab, "silent.example", &r), "");
    assert_int_equal(r.err, -ETIMEDOUT);
    assert_in_range(r.took_ms, 4900, 6000);
}

static void ids_and_ports_are_different_each_time(void **state) /* faults.md D3 */
{
    struct lab *lab = *state;
    unsigned same_id = 0, same_port = 0;
    struct result r;
    char name[32];

    for (int i = 0; i < 16; i++) {
        snprintf(name, sizeof(name), "ok.n%d.example", i);
        resolve(lab, name, &r);
    }
    assert_int_equal(lab->first.udp_queries, 32);
    for (unsigned i = 0; i < 32; i++) {
        for (unsigned k = 0; k < i; k++) {
            same_id += lab->first.ids[i] == lab->first.ids[k];
            same_port += lab->first.ports[i] == lab->first.ports[k];
        }
    }
    assert_true(same_id <= 1); /* of 496 pairs; one clash has a chance of 0.8 % */
    assert_true(same_port <= 3);
}

static void forged_answers_are_counted_and_not_believed(void **state) /* faults.md D3, D4 */
{
    struct lab *lab = *state;
    struct result r;

    assert_string_equal(resolve(lab, "forged.example", &r), GOOD);
    assert_true(resolver_counters(lab->resolver)->ignored >=
                200); /* of one family, if the kernel drops some */
    assert_int_equal(resolver_counters(lab->resolver)->answers, 2);
}

/* ---- what is remembered ---- */

static void a_second_question_is_answered_from_the_cache(void **state)
{
    struct lab *lab = *state;
    struct result r;

    resolve(lab, "ok.example", &r);
    assert_string_equal(resolve(lab, "OK.Example.", &r), GOOD);
    assert_int_equal(lab->first.udp_queries, 2);
    assert_int_equal(resolver_counters(lab->resolver)->cache_hits, 1);
    resolve(lab, "nx.example", &r);
    resolve(lab, "nx.example", &r);
    assert_int_equal(r.err, -ENOENT);
    assert_int_equal(lab->first.udp_queries, 4);
}

static void one_question_is_on_the_wire_for_all_who_ask_the_same(void **state)
{
    struct lab *lab = *state;
    struct result r[10];

    for (size_t i = 0; i < ARRAY_LEN(r); i++)
        ask(lab, "ok.example", &r[i]);
    for (size_t i = 0; i < ARRAY_LEN(r); i++) {
        assert_true(loop_wait_until(&lab->wait, WAIT_MS, is_answered, &r[i]));
        assert_string_equal(r[i].addrs, GOOD);
    }
    assert_int_equal(lab->first.udp_queries, 2);
    assert_int_equal(lab->sockets_made, 2);
}

/* Lets the loop run until @ms from now. */
static bool is_past(void *arg)
{
    return clock_now_us() >= *(uint64_t *)arg;
}

static void let_pass(struct lab *lab, unsigned ms)
{
    uint64_t until_us = clock_now_us() + ms * UINT64_C(1000);

    loop_wait_until(&lab->wait, ms + 1, is_past, &until_us);
}

static void old_addresses_are_used_while_the_name_fails(void **state) /* faults.md S18 */
{
    static const char *const ways_to_fail[] = { "servfail", "nx", "silent" };
    struct lab *lab = *state;
    struct result r;

    for (size_t i = 0; i < ARRAY_LEN(ways_to_fail); i++) {
        new_resolver(lab, 1, 4000);
        lab->first.mood = "ok";
        lab->first.ttl_s = 1; /* the least there is */
        resolve(lab, "proxy.example", &r);
        let_pass(lab, 1050);
        lab->first.mood = ways_to_fail[i];
        assert_string_equal(resolve(lab, "proxy.example", &r), GOOD);
        assert_int_equal(r.err, 0);
        assert_in_range(r.took_ms, 0, 3000); /* RFC 8767: after 1.8 s, if nobody says anything */
        assert_int_equal(resolver_counters(lab->resolver)->stale_answers, 1);
    }
    let_pass(lab, 2400); /* the question behind the last answer has failed by now, ... */
    lab->first.udp_queries = 0;
    resolve(lab, "proxy.example", &r);
    assert_int_equal(lab->first.udp_queries, 0); /* ... and is not repeated for a while */
    assert_in_range(r.took_ms, 0, 1000);
}

static void a_name_that_comes_back_gets_its_new_addresses(void **state) /* faults.md S18 */
{
    struct lab *lab = *state;
    struct result r;

    lab->first.mood = "six";
    lab->first.ttl_s = 1;
    resolve(lab, "proxy.example", &r);
    let_pass(lab, 1050);
    lab->first.mood = "four";
    assert_string_equal(resolve(lab, "proxy.example", &r), "192.0.2.1 192.0.2.2"); /* not the old IPv6 one */
}

/* ---- what needs no server ---- */

static void addresses_and_localhost_are_their_own_answer(void **state)
{
    static const struct {
        const char *name, *addrs;
    } rows[] = {
        { "192.0.2.7", "192.0.2.7" },          { "2001:db8::7", "2001:db8::7" },
        { "[2001:db8::7]", "2001:db8::7" },    { "localhost", "::1 127.0.0.1" },
        { "any.LOCALHOST.", "::1 127.0.0.1" },
    };
    struct lab *lab = *state;
    struct result r;

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_string_equal(resolve(lab, rows[i].name, &r), rows[i].addrs);
    assert_int_equal(lab->first.udp_queries, 0);
}

static void what_is_no_host_name_is_refused_before_anything_is_sent(void **state) /* faults.md S10 */
{
    static const char *const bad[] = { "",    ".",         "a..b", "with space", "caf\xc3\xa9.example",
                                       "a/b", "1.2.3.4:80" };
    struct lab *lab = *state;
    struct resolver_query *q = NULL;
    char longest[300] = "";
    struct result r = { .lab = lab };

    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(resolver_query(lab->resolver, bad[i], on_result, &r, &q), -EINVAL);
    for (int i = 0; i < 127; i++)
        strcat(longest, "a.");
    assert_int_equal(resolver_query(lab->resolver, longest, on_result, &r, &q), 0); /* 253 and a dot */
    resolver_cancel(q);
    strcpy(longest + 253, "aa");
    assert_int_equal(resolver_query(lab->resolver, longest, on_result, &r, &q), -EINVAL);
    assert_int_equal(r.calls, 0);
}

static void the_hosts_file_wins_and_is_read_again_when_it_changes(void **state)
{
    struct lab *lab = *state;
    char path[] = "/tmp/culvert-hosts-XXXXXX";
    struct resolver_options opt = { .hosts_path = path, .servers = &lab->first.at, .n_servers = 1 };
    int fd = mkstemp(path);
    struct result r;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, "192.0.2.99 ok.example\n", 22), 22);
    resolver_free(lab->resolver);
    assert_int_equal(resolver_new(lab->loop, &opt, &lab->resolver), 0);
    assert_string_equal(resolve(lab, "ok.example", &r), "192.0.2.99");
    assert_string_equal(resolve(lab, "ok.other", &r), GOOD);
    assert_int_equal(ftruncate(fd, 0), 0);
    let_pass(lab, 1050);
    assert_string_equal(resolve(lab, "ok.example", &r), GOOD);
    close(fd);
    unlink(path);
}

/* ---- lifetimes ---- */

static void a_cancelled_question_is_never_answered(void **state)
{
    struct lab *lab = *state;
    struct resolver_query *wire, *cached;
    struct result gone = { .lab = lab }, there;

    assert_int_equal(resolver_query(lab->resolver, "ok.example", on_result, &gone, &wire), 0);
    ask(lab, "ok.example", &there);
    resolver_cancel(wire);
    resolver_cancel(NULL);
    assert_true(loop_wait_until(&lab->wait, WAIT_MS, is_answered, &there));
    assert_int_equal(resolver_query(lab->resolver, "ok.example", on_result, &gone, &cached), 0);
    resolver_cancel(cached);
    resolve(lab, "ok.example", &there);
    assert_int_equal(gone.calls, 0);
}

static void a_resolver_with_open_questions_can_be_freed(void **state)
{
    static const char *const names[] = { "silent.a", "silent.b", "tc-hang.c", "ok.d", "127.0.0.1" };
    struct lab *lab = *state;
    struct result r[ARRAY_LEN(names)], last;

    new_resolver(lab, 2, 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        ask(lab, names[i], &r[i]);
    new_resolver(lab, 2, 0); /* before anything was sent */
    for (size_t i = 0; i < 3; i++)
        ask(lab, names[i], &r[i]);
    resolve(lab, "ok.example", &last); /* by now all is on the wire */
    new_resolver(lab, 2, 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_int_equal(r[i].calls, 0);
}

/* A caller that asks again, and cancels another one, from inside its callback. */
struct tangle {
    struct lab *lab;
    struct resolver_query *victim;
    struct result *again;
    bool done;
};

static void on_tangle(void *arg, int err, const struct ip_addr *addrs, size_t n)
{
    struct tangle *t = arg;

    (void)addrs;
    assert_int_equal(err, 0);
    assert_true(n > 0);
    resolver_cancel(t->victim);
    ask(t->lab, "ok.example", t->again);
    t->done = true;
}

static void a_callback_may_ask_and_cancel(void **state)
{
    struct lab *lab = *state;
    struct result victim = { .lab = lab }, again = { .lab = lab };
    struct tangle t = { .lab = lab, .again = &again };

    assert_int_equal(resolver_query(lab->resolver, "192.0.2.1", on_tangle, &t, NULL), 0);
    assert_int_equal(resolver_query(lab->resolver, "192.0.2.2", on_result, &victim, &t.victim), 0);
    assert_true(loop_wait_until(&lab->wait, WAIT_MS, is_answered, &again));
    assert_true(t.done);
    assert_string_equal(again.addrs, GOOD);
    assert_int_equal(victim.calls, 0);
}

static void a_socket_that_cannot_be_made_is_an_error_and_not_a_wait(void **state)
{
    struct lab *lab = *state;
    struct result r;

    lab->socket_err = -EMFILE;
    new_resolver(lab, 2, 5000);
    assert_string_equal(resolve(lab, "ok.example", &r), "");
    assert_int_equal(r.err, -EMFILE);
    assert_in_range(r.took_ms, 0, 1000);
    lab->socket_err = 0;
    assert_string_equal(resolve(lab, "ok.example", &r), GOOD);
}

static void names_on_the_wire_are_bounded(void **state)
{
    struct lab *lab = *state;
    static struct result r[200];
    size_t taken = 0;
    char name[32];

    for (size_t i = 0; i < ARRAY_LEN(r); i++) {
        snprintf(name, sizeof(name), "silent.n%zu.example", i);
        if (resolver_query(lab->resolver, name, on_result, &r[i], NULL) == 0)
            taken++;
    }
    assert_int_equal(taken, 128);
    assert_int_equal(resolver_query(lab->resolver, "one.more", on_result, &r[0], NULL), -EAGAIN);
    assert_int_equal(resolver_query(lab->resolver, "192.0.2.1", on_result, &r[0], NULL), 0);
}

int main(void)
{
#define LAB_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        LAB_TEST(every_mood_of_a_single_server_has_its_result),
        LAB_TEST(a_second_server_makes_good_what_the_first_did_wrong),
        LAB_TEST(a_server_that_is_gone_is_passed_over_at_once),
        LAB_TEST(names_are_asked_over_ipv6_too),
        LAB_TEST(nobody_answers_within_five_seconds_at_the_most),
        LAB_TEST(ids_and_ports_are_different_each_time),
        LAB_TEST(forged_answers_are_counted_and_not_believed),
        LAB_TEST(a_second_question_is_answered_from_the_cache),
        LAB_TEST(one_question_is_on_the_wire_for_all_who_ask_the_same),
        LAB_TEST(old_addresses_are_used_while_the_name_fails),
        LAB_TEST(a_name_that_comes_back_gets_its_new_addresses),
        LAB_TEST(addresses_and_localhost_are_their_own_answer),
        LAB_TEST(what_is_no_host_name_is_refused_before_anything_is_sent),
        LAB_TEST(the_hosts_file_wins_and_is_read_again_when_it_changes),
        LAB_TEST(a_cancelled_question_is_never_answered),
        LAB_TEST(a_resolver_with_open_questions_can_be_freed),
        LAB_TEST(a_callback_may_ask_and_cancel),
        LAB_TEST(a_socket_that_cannot_be_made_is_an_error_and_not_a_wait),
        LAB_TEST(names_on_the_wire_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
