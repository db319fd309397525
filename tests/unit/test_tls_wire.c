/* test_tls_wire.c - src/tls/wire.c: how many system calls a byte through TLS costs, and that nothing is lost while bytes wait.
 * The pipes in memory stand for sockets: a put is a send(), a get is a recv(). */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls/tls_impl.h"
#include "tls_pair.h"

#include <cmocka.h>

/* mbedTLS and src/tls take memory by calloc() only; the sanitizers' allocator when there is one, else the C library's. */
extern void *__interceptor_calloc(size_t n, size_t size) __attribute__((weak));
extern void *__libc_calloc(size_t n, size_t size);
static unsigned allocations;

void *calloc(size_t n, size_t size)
{
    allocations++;
    return __interceptor_calloc ? __interceptor_calloc(n, size) : __libc_calloc(n, size);
}

enum { BULK = 64 * 1024, ALL = 1 << 20 };

struct rig {
    struct tls_lab lab;
    struct tls_pair p;
    uint8_t data[ALL], got[ALL];
};

static int setup(void **state)
{
    struct tls_options opt = { 0 };
    struct rig *r = calloc(1, sizeof(*r));

    for (size_t i = 0; i < ALL; i++)
        r->data[i] = (uint8_t)(i * 7 + i / 251);
    tls_lab_init(&r->lab, &opt, "localhost", pki_server(), false);
    tls_pair_open(&r->lab, &r->p);
    assert_true(tls_pair_handshake(&r->p));
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;

    tls_pair_free(&r->p);
    assert_int_equal(r->lab.worker->wire.in_use, 0);
    assert_int_equal(r->lab.server_worker->wire.in_use, 0);
    tls_lab_fini(&r->lab);
    free(r);
    return 0;
}

static ssize_t send_bytes(struct tls *t, const void *data, size_t len)
{
    return tls_sendv(t, &(struct iovec){ (void *)(uintptr_t)data, len }, 1);
}

/* ---- counts ---- */

static void a_send_and_a_receive_carry_64_kib(void **state) /* of 4 records each */
{
    struct rig *r = *state;

    r->p.up.puts = r->p.up.gets = 0;
    for (int i = 0; i < ALL / BULK; i++) {
        assert_int_equal(send_bytes(r->p.client.tls, r->data + i * BULK, BULK), BULK);
        assert_int_equal(tls_recv(r->p.server.tls, r->got + i * BULK, BULK), BULK);
        assert_false(tls_unread(r->p.server.tls));
    }
    assert_memory_equal(r->data, r->got, ALL);
    assert_int_equal(r->p.up.puts, ALL / BULK);
    assert_int_equal(r->p.up.gets, ALL / BULK);
}

static void a_small_message_is_one_send_and_one_receive(void **state)
{
    struct rig *r = *state;

    r->p.down.puts = r->p.down.gets = 0;
    assert_int_equal(send_bytes(r->p.server.tls, r->data, 100), 100);
    assert_int_equal(tls_recv(r->p.client.tls, r->got, BULK), 100);
    assert_int_equal(r->p.down.puts, 1);
    assert_int_equal(r->p.down.gets, 1);
}

/* Hello; key exchange, change of cipher and end. What came together is read together, and once more to see that it is all. */
static void a_flight_of_the_handshake_is_one_send(void **state)
{
    struct tls_options opt = { .resume = true };
    struct tls_lab lab;

    (void)state;
    tls_lab_init(&lab, &opt, "localhost", pki_server(), true);
    for (int resumed = 0; resumed < 2; resumed++) {
        struct tls_pair p;
        char in;

        tls_pair_open(&lab, &p);
        assert_true(tls_pair_handshake(&p));
        assert_int_equal(tls_recv(p.client.tls, &in, 1), -EAGAIN); /* TLS 1.3: its ticket comes now */
        assert_int_equal(tls_resumed(p.client.tls), resumed);
        assert_int_equal(p.up.puts, 2);
        assert_in_range(p.down.puts, 1, 2);
        tls_pair_free(&p);
    }
    tls_lab_fini(&lab);
}

/* The last flight finds a socket that is full: it waits, and what follows stays behind it. */
static void a_flight_that_a_full_socket_holds_up_is_finished_first(void **state)
{
    struct tls_options opt = { 0 };
    struct tls_lab lab;
    struct tls_pair p;
    char in[4];

    (void)state;
    tls_lab_init(&lab, &opt, "localhost", pki_server(), false);
    tls_pair_open(&lab, &p);
    p.up.room = 40;     /* hello and all that follows leave in small parts */
    if (!tls_has_1_3()) /* whose tickets come when the client is through, and nobody reads here */
        p.down.room = 100;
    assert_true(tls_pair_handshake(&p));
    p.up.room = 0;
    assert_int_equal(send_bytes(p.client.tls, "ping", 4), 4);
    assert_int_equal(tls_recv(p.server.tls, in, 4), 4);
    assert_memory_equal(in, "ping", 4);
    tls_pair_free(&p);
    tls_lab_fini(&lab);
}

static void one_call_takes_a_bounded_part_of_a_megabyte(
    void **state) /* others of the worker have their turn */
{
    struct rig *r = *state;

    /* whole records, which TLS 1.3 makes a byte shorter */
    assert_in_range(send_bytes(r->p.client.tls, r->data, ALL), 128 * 1024, 128 * 1024 + 16384);
    assert_false(tls_unsent(r->p.client.tls));
}

static void a_record_costs_no_allocation(void **state)
{
    struct rig *r = *state;

    allocations = 0;
    for (int i = 0; i < 8; i++) {
        assert_int_equal(send_bytes(r->p.client.tls, r->data, BULK), BULK);
        assert_int_equal(tls_recv(r->p.server.tls, r->got, BULK), BULK);
    }
    assert_int_equal(allocations, 0);
}

/* ---- what waits ---- */

static void held_records_leave_together(void **state)
{
    struct rig *r = *state;
    struct tls *t = r->p.client.tls;

    r->p.up.puts = 0;
    tls_hold(t);
    for (int i = 0; i < 3; i++)
        assert_int_equal(send_bytes(t, r->data + i * 1000, 1000), 1000);
    assert_int_equal(r->p.up.puts, 0);
    assert_false(tls_unsent(t)); /* nothing is held up: they are only not asked for yet */
    assert_int_equal(tls_flush(t), 0);
    assert_int_equal(r->p.up.puts, 1);
    assert_int_equal(tls_recv(r->p.server.tls, r->got, ALL), 3000);
    assert_memory_equal(r->data, r->got, 3000);
    assert_int_equal(send_bytes(t, r->data, 10), 10); /* and the hold is over */
    assert_int_equal(r->p.up.puts, 2);
}

static void what_was_read_ahead_is_announced(void **state)
{
    struct rig *r = *state;
    struct tls *t = r->p.server.tls;

    assert_int_equal(send_bytes(r->p.client.tls, r->data, BULK), BULK);
    assert_int_equal(tls_recv(t, r->got, 16384), 16384);
    r->p.up.gets = 0;
    for (int i = 1; i < 4; i++) {
        assert_true(tls_unread(t)); /* although the socket is empty */
        assert_int_equal(tls_recv(t, r->got + i * 16384, 16384), 16384);
    }
    assert_false(tls_unread(t));
    assert_int_equal(r->p.up.gets, 0);
    assert_memory_equal(r->data, r->got, BULK);
}

static void without_a_free_buffer_each_record_goes_by_itself(void **state)
{
    struct rig *r = *state;
    struct buffers *all[] = { &r->lab.worker->wire, &r->lab.server_worker->wire };
    void *taken[2][WIRE_BUFFERS_MAX];

    for (int k = 0; k < 2; k++)
        for (int i = 0; i < WIRE_BUFFERS_MAX; i++)
            assert_non_null(taken[k][i] = buffers_get(all[k]));
    r->p.up.puts = 0;
    assert_int_equal(send_bytes(r->p.client.tls, r->data, BULK), BULK);
    assert_int_equal(r->p.up.puts, tls_has_1_3() ? 5 : 4); /* a record of 1.3 holds a byte less */
    assert_int_equal(tls_recv(r->p.server.tls, r->got, BULK), BULK);
    assert_memory_equal(r->data, r->got, BULK);
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < WIRE_BUFFERS_MAX; i++)
            buffers_put(all[k], taken[k][i]);
}

/* A session that is closed in the middle gives back what it holds: teardown() looks. */
static void a_session_that_ends_gives_its_buffers_back(void **state)
{
    struct rig *r = *state;

    r->p.up.room = 20000;
    assert_int_equal(send_bytes(r->p.client.tls, r->data, BULK), BULK);
    assert_true(tls_unsent(r->p.client.tls));
    assert_int_equal(tls_recv(r->p.server.tls, r->got, 100), 100);
    assert_true(tls_unread(r->p.server.tls));
    assert_int_equal(r->lab.worker->wire.in_use, 1);
    assert_int_equal(tls_shutdown(r->p.client.tls), -EAGAIN); /* our end stays behind what waits */
}

static void with_any_room_and_any_pieces_every_byte_arrives_once(void **state)
{
    struct rig *r = *state;
    struct prng dice;

    prng_seed(&dice, 7);
    for (int round = 0; round < 4; round++) {
        size_t sent = 0, in = 0;

        while (in < ALL) {
            size_t len = 1 + prng_below(&dice, 100000), want = 1 + prng_below(&dice, 100000);
            ssize_t n;

            r->p.up.room = 1 + prng_below(&dice, 200000);
            r->p.up.piece = prng_below(&dice, 3) == 0 ? 1 + prng_below(&dice, 5000) : 0;
            if (prng_below(&dice, 3) == 0)
                tls_hold(r->p.client.tls);
            len = len < ALL - sent ? len : ALL - sent;
            n = len > 0 ? send_bytes(r->p.client.tls, r->data + sent, len) : tls_flush(r->p.client.tls);
            assert_true(n >= 0 || n == -EAGAIN);
            sent += n > 0 ? (size_t)n : 0;
            want = want < ALL - in ? want : ALL - in;
            n = tls_recv(r->p.server.tls, r->got + in, want);
            assert_true(n > 0 || n == -EAGAIN);
            in += n > 0 ? (size_t)n : 0;
        }
        assert_memory_equal(r->data, r->got, ALL);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_send_and_a_receive_carry_64_kib, setup, teardown),
        cmocka_unit_test_setup_teardown(a_small_message_is_one_send_and_one_receive, setup, teardown),
        cmocka_unit_test(a_flight_of_the_handshake_is_one_send),
        cmocka_unit_test(a_flight_that_a_full_socket_holds_up_is_finished_first),
        cmocka_unit_test_setup_teardown(one_call_takes_a_bounded_part_of_a_megabyte, setup, teardown),
        cmocka_unit_test_setup_teardown(a_record_costs_no_allocation, setup, teardown),
        cmocka_unit_test_setup_teardown(held_records_leave_together, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_read_ahead_is_announced, setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_free_buffer_each_record_goes_by_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(a_session_that_ends_gives_its_buffers_back, setup, teardown),
        cmocka_unit_test_setup_teardown(with_any_room_and_any_pieces_every_byte_arrives_once, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
