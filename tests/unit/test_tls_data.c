/* test_tls_data.c - src/tls: bytes both ways through an open session, and every end of it (faults.md section 7). */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls/tls_impl.h"
#include "tls_pair.h"

#include <cmocka.h>

static void open_pair(struct tls_lab *lab, struct tls_pair *p)
{
    struct tls_options opt = { 0 };

    tls_lab_init(lab, &opt, "localhost", pki_server(), false);
    tls_pair_open(lab, p);
    assert_true(tls_pair_handshake(p));
}

static void close_pair(struct tls_lab *lab, struct tls_pair *p)
{
    tls_pair_free(p);
    tls_lab_fini(lab);
}

static void records_without_data_are_limited(void **state) /* faults.md L8 */
{
    struct tls_lab lab;
    struct tls_pair p;
    char in[10];

    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        open_pair(&lab, &p);
        for (int i = 0; i < 10000; i++) {
            if (kind == 0)
                (void)mbedtls_ssl_write(&p.server.tls->ssl, (const uint8_t *)"", 0);
            else
                (void)mbedtls_ssl_send_alert_message(&p.server.tls->ssl, MBEDTLS_SSL_ALERT_LEVEL_WARNING, 90);
        }
        assert_int_equal(tls_recv(p.client.tls, in, sizeof(in)), -ECONNRESET);
        assert_true(p.client.tls->watch.count <= TLS_IDLE_RECORDS_MAX + 1); /* it stopped early */
        assert_true(p.down.off < 4096 + sizeof(struct wire_buffer));
        close_pair(&lab, &p);
    }
    open_pair(&lab, &p); /* a few between data are no fault */
    for (int i = 0; i < 30; i++) {
        struct iovec one = { (char *)"x", 1 };

        (void)mbedtls_ssl_write(&p.server.tls->ssl, (const uint8_t *)"", 0);
        assert_int_equal(tls_sendv(p.server.tls, &one, 1), 1);
        assert_int_equal(tls_recv(p.client.tls, in, 1), 1);
    }
    close_pair(&lab, &p);
}

/* ---- bytes -------------------------------------------------------------------------------------------------------------------- */

static void fill(uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
}

static void pieces_of_any_size_arrive_whole_and_small_ones_share_records(void **state)
{
    static const size_t sizes[] = { 1, 100, 1448, 4095, 4096, 16383, 16384, 16385, 65536 };
    enum { ALL = 200000 };
    static uint8_t data[ALL], got[ALL];
    struct tls_lab lab;
    struct tls_pair p;

    (void)state;
    fill(data, ALL);
    for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
        size_t sent = 0, in = 0;

        open_pair(&lab, &p);
        p.up.off = p.up.len;
        while (sent < ALL) {
            struct iovec iov[64];
            size_t off = sent, want = 0;
            ssize_t taken;
            int n = 0;

            for (; n < 64 && off < ALL; n++) {
                size_t len = ALL - off < sizes[k] ? ALL - off : sizes[k];

                iov[n] = (struct iovec){ data + off, len };
                off += len;
                want += len;
            }
            taken = tls_sendv(p.client.tls, iov, n);
            assert_true(taken >= 128 * 1024 || taken == (ssize_t)want); /* of one call, and then all */
            sent += (size_t)taken;
        }
        if (sizes[k] >= 1448) /* at most 3 % on top */
            assert_true(p.up.len - p.up.off < ALL + ALL / 33);
        while (in < ALL) {
            ssize_t n = tls_recv(p.server.tls, got + in, ALL - in < 7777 ? ALL - in : 7777);

            assert_true(n > 0);
            in += (size_t)n;
        }
        assert_memory_equal(data, got, ALL);
        close_pair(&lab, &p);
    }
}

static void a_clogged_socket_loses_and_repeats_nothing(void **state)
{
    enum { ALL = 300000 };
    static uint8_t data[ALL], got[ALL];
    size_t sent = 0, in = 0;
    struct tls_lab lab;
    struct tls_pair p;

    (void)state;
    fill(data, ALL);
    open_pair(&lab, &p);
    p.up.room = 5000;
    p.up.piece = 999;
    while (in < ALL) {
        struct iovec iov[2] = { { data + sent, (ALL - sent) / 3 },
                                { data + sent + (ALL - sent) / 3, ALL - sent - (ALL - sent) / 3 } };
        ssize_t n = sent < ALL ? tls_sendv(p.client.tls, iov, 2) : tls_flush(p.client.tls);

        assert_true(n >= 0 || n == -EAGAIN);
        sent += n > 0 ? (size_t)n : 0;
        n = tls_recv(p.server.tls, got + in, sizeof(got) - in);
        assert_true(n > 0 || n == -EAGAIN);
        in += n > 0 ? (size_t)n : 0;
    }
    assert_int_equal(sent, ALL);
    assert_memory_equal(data, got, ALL);
    assert_false(tls_unsent(p.client.tls));
    close_pair(&lab, &p);
}

static void what_is_left_of_a_record_is_announced(void **state)
{
    struct iovec one = { (char *)"0123456789", 10 };
    struct tls_lab lab;
    struct tls_pair p;
    char in[10];

    (void)state;
    open_pair(&lab, &p);
    assert_int_equal(tls_sendv(p.server.tls, &one, 1), 10);
    assert_false(tls_unread(p.client.tls));
    assert_int_equal(tls_recv(p.client.tls, in, 4), 4);
    assert_true(tls_unread(p.client.tls));
    assert_int_equal(tls_recv(p.client.tls, in, 10), 6);
    assert_false(tls_unread(p.client.tls));
    assert_int_equal(tls_recv(p.client.tls, in, 10), -EAGAIN);
    close_pair(&lab, &p);
}

/* ---- ends --------------------------------------------------------------------------------------------------------------------- */

static void each_direction_ends_by_itself(void **state) /* faults.md L12 */
{
    struct iovec one = { (char *)"late", 4 };
    struct tls_lab lab;
    struct tls_pair p;
    char in[10];

    (void)state;
    open_pair(&lab, &p);
    tls_shutdown(p.client.tls);
    assert_int_equal(tls_recv(p.server.tls, in, 10), 0);
    assert_int_equal(tls_recv(p.server.tls, in, 10), 0);
    assert_int_equal(tls_sendv(p.client.tls, &one, 1), -ECONNRESET);
    assert_int_equal(tls_sendv(p.server.tls, &one, 1), 4);
    assert_int_equal(tls_recv(p.client.tls, in, 10), 4);
    tls_shutdown(p.server.tls);
    assert_int_equal(tls_recv(p.client.tls, in, 10), 0);
    assert_false(tls_truncated(p.client.tls));
    close_pair(&lab, &p);
}

static void an_end_that_came_with_the_last_bytes_is_announced(void **state)
{
    struct iovec one = { (char *)"data", 4 };
    struct tls_lab lab;
    struct tls_pair p;
    char in[10];

    (void)state;
    for (int how = 0; how < 2; how++) {
        open_pair(&lab, &p);
        assert_int_equal(tls_sendv(p.server.tls, &one, 1), 4);
        if (how == 0)
            tls_shutdown(p.server.tls);
        p.down.ended = true;
        assert_int_equal(tls_recv(p.client.tls, in, 10), 4);
        assert_int_equal(tls_unread(p.client.tls),
                         how == 0); /* of its own end the descriptor tells by itself */
        assert_int_equal(tls_recv(p.client.tls, in, 10), how == 0 ? 0 : -ECONNRESET);
        assert_false(tls_unread(p.client.tls));
        close_pair(&lab, &p);
    }
}

static void an_end_without_close_notify_is_a_cut(void **state) /* faults.md L11, G8 */
{
    struct iovec one = { (char *)"data", 4 };
    char in[10];

    (void)state;
    for (int how = 0; how < 3; how++) {
        struct tls_lab lab;
        struct tls_pair p;

        open_pair(&lab, &p);
        assert_int_equal(tls_sendv(p.server.tls, &one, 1), 4);
        p.down.len -= how == 2 ? 3 : 0; /* in the middle of a record */
        p.down.ended = how != 1;
        p.down.reset = how == 1;
        if (how < 2)
            assert_int_equal(tls_recv(p.client.tls, in, 10), 4); /* what came is delivered first */
        assert_int_equal(tls_recv(p.client.tls, in, 10), -ECONNRESET);
        assert_int_equal(tls_recv(p.client.tls, in, 10), -ECONNRESET);
        assert_int_equal(tls_truncated(p.client.tls), how != 1);
        close_pair(&lab, &p);
    }
}

static void a_bent_record_is_an_end_and_never_data(void **state)
{
    struct iovec one = { (char *)"data", 4 };
    struct tls_lab lab;
    struct tls_pair p;
    char in[10];

    (void)state;
    open_pair(&lab, &p);
    assert_int_equal(tls_sendv(p.server.tls, &one, 1), 4);
    p.down.data[p.down.len - 1] ^= 1;
    assert_int_equal(tls_recv(p.client.tls, in, 10), -ECONNRESET);
    assert_false(tls_truncated(p.client.tls));
    close_pair(&lab, &p);
}

static void a_broken_socket_is_told_and_what_came_can_be_read(void **state) /* faults.md S17 */
{
    struct iovec one = { (char *)"data", 4 };
    struct tls_lab lab;
    struct tls_pair p;
    char in[10];

    (void)state;
    open_pair(&lab, &p);
    assert_int_equal(tls_sendv(p.server.tls, &one, 1), 4);
    p.up.reset = true;
    assert_int_equal(tls_sendv(p.client.tls, &one, 1), -ECONNRESET);
    assert_int_equal(tls_sendv(p.client.tls, &one, 1), -ECONNRESET);
    assert_int_equal(tls_recv(p.client.tls, in, 10), 4);
    close_pair(&lab, &p);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_without_data_are_limited),
        cmocka_unit_test(pieces_of_any_size_arrive_whole_and_small_ones_share_records),
        cmocka_unit_test(a_clogged_socket_loses_and_repeats_nothing),
        cmocka_unit_test(what_is_left_of_a_record_is_announced),
        cmocka_unit_test(each_direction_ends_by_itself),
        cmocka_unit_test(an_end_that_came_with_the_last_bytes_is_announced),
        cmocka_unit_test(an_end_without_close_notify_is_a_cut),
        cmocka_unit_test(a_bent_record_is_an_end_and_never_data),
        cmocka_unit_test(a_broken_socket_is_told_and_what_came_can_be_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
