/* test_serve_clients.c - our SOCKS5 server and clients written by hand: pipelined, silent, too many, gone; and its listener. */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "serve_lab.h"

#define BYTES(s) s, sizeof(s) - 1

enum { PIECE = 64 * 1024 };

/* What a client leaves behind that resets while its target takes nothing: the kernel's memory of both (faults.md G4). */
static void a_client_that_resets_while_its_target_stalls_is_noticed(void **state)
{
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct linger at_once = { 1, 0 };
    char request[] = "\5\1\0\5\1\0\1\x7f\0\0\1..", answer[12], piece[PIECE] = { 0 };
    uint16_t port;
    int listener = closed_port(&port), fd, target;
    struct pollfd p;

    serve_lab_open(lab, &o);
    assert_int_equal(listen(listener, 4), 0);
    put_be16((uint8_t *)request + 11, port);
    fd = serve_lab_client(lab, request, 13);
    assert_int_equal(serve_lab_read(lab, fd, answer, sizeof(answer)), sizeof(answer));
    target = accept(listener, NULL, NULL);
    assert_true(target >= 0);
    for (int full = 0; full < 20;) { /* until nothing has moved for a while */
        full = send(fd, piece, sizeof(piece), MSG_DONTWAIT | MSG_NOSIGNAL) > 0 ? 0 : full + 1;
        rig_run_ms(&lab->rig, 1);
    }
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
    close(fd);
    p = (struct pollfd){ .fd = target };
    for (int ms = 0; ms < 3000 && poll(&p, 1, 0) == 0; ms += 10)
        rig_run_ms(&lab->rig, 10);
    assert_true((p.revents & POLLERR) != 0); /* the target was reset, too */
    close(target);
    close(listener);
}

static void a_request_sent_all_at_once_with_data_works(void **state) /* faults.md S4 */
{
    static const struct plan_step steps[] = { { 5, BYTES("yes"), false } };
    struct plan plan = { steps, 1, PLAN_HANG, 0 };
    char hello[] = "\5\1\0\5\1\0\1\177\0\0\1\0\0early", out[64];
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct plan_server target;
    int fd;

    serve_lab_open(lab, &o);
    plan_open(&target, &lab->rig, &plan);
    put_be16((uint8_t *)hello + 11, target.port);
    fd = serve_lab_client(lab, hello, sizeof(hello) - 1);
    assert_int_equal(serve_lab_read(lab, fd, out, 15), 15);
    assert_memory_equal(out, "\5\0\5\0\0\1\0\0\0\0\0\0yes", 15);
    assert_memory_equal(target.conns[0].in, "early", 5);
    close(fd);
    while (target.closed == 0)
        rig_run_ms(&lab->rig, 1);
    plan_close(&target);
}

static void a_refusal_arrives_even_if_unread_bytes_are_left(void **state)
{
    char out[64], hello[4096] = "\5\1\0\5\2\0\1\177\0\0\1\0\1"; /* BIND, and a lot behind it */
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    int fd;

    serve_lab_open(lab, &o);
    fd = serve_lab_client(lab, hello, sizeof(hello));
    assert_int_equal(serve_lab_read(lab, fd, out, sizeof(out)), 12);
    assert_memory_equal(out, "\5\0\5\7\0\1\0\0\0\0\0\0", 12);
    close(fd);
    assert_int_equal(serve_counters(lab->serve)->bad_requests, 1);
}

static void a_client_that_says_nothing_is_sent_away_in_time(void **state) /* faults.md T12 */
{
    char out[8];
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    int fd;

    o.connect_timeout_ms = 30;
    serve_lab_open(lab, &o);
    fd = serve_lab_client(lab, "\5", 1);
    assert_int_equal(serve_lab_read(lab, fd, out, sizeof(out)), 0);
    close(fd);
}

static void a_connection_beyond_the_limit_is_reset(void **state) /* faults.md R1 */
{
    int fds[3];
    char out[8];
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");

    o.max_streams = 2;
    serve_lab_open(lab, &o);
    for (size_t i = 0; i < 3; i++)
        fds[i] = serve_lab_client(lab, "\5\1\0", 3);
    assert_int_equal(serve_lab_read(lab, fds[0], out, 2), 2);
    assert_int_equal(serve_lab_read(lab, fds[1], out, 2), 2);
    assert_int_equal(serve_lab_read(lab, fds[2], out, 2), -ECONNRESET);
    assert_int_equal(serve_counters(lab->serve)->refused, 1);
    for (size_t i = 0; i < 3; i++)
        close(fds[i]);
}

static void without_descriptors_the_listener_rests_and_goes_on(void **state) /* faults.md R1 */
{
    char out[8];
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct rlimit old, low;
    int fd;

    serve_lab_open(lab, &o);
    fd = serve_lab_client(lab, "\5\1\0", 3);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = old;
    low.rlim_cur = (rlim_t)fd + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    rig_run_ms(&lab->rig, 50);
    assert_int_equal(serve_counters(lab->serve)->refused, 1); /* asked once, not in every turn */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(serve_lab_read(lab, fd, out, 2), 2);
    close(fd);
}

static void a_port_that_is_taken_is_said(void **state) /* faults.md C8 */
{
    struct serve_lab *lab = *state;
    struct serve_options o = serve_lab_options("127.0.0.1");
    struct err err = { "" };
    int fd = closed_port(&o.listen.port);

    assert_int_equal(serve_open(&o, lab->rig.env, &lab->serve, &err), -EADDRINUSE);
    assert_non_null(strstr(err.text, "is in use; stop what listens there"));
    close(fd);
    o.listen.addr = rig_addr("192.0.2.1");
    assert_int_equal(serve_open(&o, lab->rig.env, &lab->serve, &err), -EADDRNOTAVAIL);
    assert_non_null(strstr(err.text, "this machine has no such address"));
    assert_null(lab->serve);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, serve_lab_setup, serve_lab_teardown)
    static const struct CMUnitTest tests[] = {
        TEST(a_client_that_resets_while_its_target_stalls_is_noticed),
        TEST(a_request_sent_all_at_once_with_data_works),
        TEST(a_refusal_arrives_even_if_unread_bytes_are_left),
        TEST(a_client_that_says_nothing_is_sent_away_in_time),
        TEST(a_connection_beyond_the_limit_is_reset),
        TEST(without_descriptors_the_listener_rests_and_goes_on),
        TEST(a_port_that_is_taken_is_said),
    };

    return run_unless(netns_enter(), tests);
}
