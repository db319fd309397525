/* test_tcp_cookie.c - faces src/stack/tcp_cookie.c and tcp_request.c: handshakes in a flood of SYNs
 * (tcp-stack.md SYN-3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lab.h"
#include "stack/tcp_impl.h"

/* Half of the 64 records are taken, by as many sources: whoever comes now gets a cookie. */
static struct lab *crowded(const struct lab_options *o)
{
    struct lab_options held = *o;
    struct lab *lab;
    char name[24];

    held.hold = true;
    lab = lab_new(&held);
    for (int i = 0; i < 32; i++) {
        snprintf(name, sizeof(name), "10.1.0.%d", i + 1);
        lab->opt.client = name;
        lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    }
    assert_int_equal(lab->requests, 32);
    assert_int_equal(lab->outs, 0);
    lab->opt.client = NULL;
    lab->request = NULL;
    return lab;
}

static struct lab *crowded_default(void)
{
    struct lab_options o;

    lab_options_default(&o);
    return crowded(&o);
}

/* A SYN and the ACK of its cookie. */
static void shake_hands(struct lab *lab)
{
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    assert_int_equal(lab_count(lab, "SYN,ACK"), 1);
    assert_int_equal(lab->requests, 32);
    lab->now_us += 30000;
    lab_ack(lab, 1, 1);
}

static void accept_it(struct lab *lab)
{
    assert_non_null(lab->request);
    assert_int_equal(tcp_request_accept(lab->request, lab, &lab->conn), 0);
    lab->request = NULL;
    lab_batch(lab);
}

static void the_dial_begins_with_the_acknowledged_cookie(void **state) /* tcp-stack.md SYN-3 */
{
    struct lab *lab = crowded_default();
    struct tcp_info info;

    (void)state;
    shake_hands(lab);
    assert_int_equal(lab->requests, 33);
    assert_int_equal(lab->opens, 0);
    lab_clear(lab);
    accept_it(lab);
    assert_int_equal(lab->opens, 1);
    assert_int_equal(lab_count(lab, "SYN,ACK"), 0);
    info = lab_info(lab);
    assert_string_equal(info.state, "ESTABLISHED");
    assert_int_equal(info.mss_bytes, 1448);
    assert_int_equal(info.snd_wnd, 65535u << 7);
    lab->opt.stall = false;
    lab_data(lab, 1, 1, 1000);
    assert_int_equal(lab->got, 1000);
    lab_write(lab, 5000);
    assert_int_equal(lab_last(lab)->seq + lab_last(lab)->len, 5001);
    assert_true(lab_last(lab)->ts);
    lab_free(lab);
}

/* SYN-3: what an ACK has to bring back survives; without timestamps only the MSS does. */
static void a_cookie_keeps_what_was_offered(void **state)
{
    static const struct {
        bool ts, sack, v6;
        int ws;
        uint16_t mss, payload;
        uint32_t wnd;
    } rows[] = {
        { true, true, false, 7, 1460, 1448, 65535u << 7 }, { true, false, false, 0, 1460, 1448, 65535 },
        { true, true, false, -1, 1400, 1388, 65535 },      { true, true, true, 14, 1440, 1428, 65535u << 14 },
        { false, true, false, 7, 1460, 1460, 65535 },      { false, false, false, -1, 1300, 1220, 65535 },
        { false, false, true, -1, 10, 88, 65535 },         { true, true, false, 7, 9000, 1448, 65535u << 7 },
    };
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct lab_options o;
        struct lab *lab;
        struct tcp_info info;

        lab_options_default(&o);
        o.ts = rows[i].ts;
        o.sack = rows[i].sack;
        o.ws = rows[i].ws;
        lab = crowded(&o);
        lab->opt.v6 = rows[i].v6;
        lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .mss = rows[i].mss });
        wrong += lab_last(lab)->ts != rows[i].ts || lab_last(lab)->sack_ok != (rows[i].sack && rows[i].ts) ||
                 lab_last(lab)->ws != (rows[i].ws >= 0 && rows[i].ts ? 8 : -1);
        lab_ack(lab, 1, 1);
        accept_it(lab);
        info = lab_info(lab);
        if (info.mss_bytes != rows[i].payload || info.snd_wnd != rows[i].wnd ||
            !(lab->conn->flags & CONN_SACK) != !(rows[i].sack && rows[i].ts)) {
            print_error("row %zu: mss %u, window %u\n", i, info.mss_bytes, info.snd_wnd);
            wrong++;
        }
        lab_free(lab);
    }
    assert_int_equal(wrong, 0);
}

static void timestamps_never_go_back(void **state) /* TS-1 */
{
    struct lab *lab = crowded_default();
    uint32_t before;

    (void)state;
    for (int i = 0; i < 200; i++) {
        lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
        before = lab->last_tsval;
        lab->now_us += 1000;
        lab_ack(lab, 1, 1);
        accept_it(lab);
        lab_data(lab, 1, 1, 1);
        lab_ack(lab, 2, 1);
        lab_data(lab, 2, 1, 1);
        assert_true(lab_last(lab)->ts && (int32_t)(lab_last(lab)->tsval - before) >= 0);
        assert_true(lab_last(lab)->tsval - before <= 64);
        tcp_abort(lab->conn);
        lab_batch(lab);
        lab_clear(lab);
    }
    lab_free(lab);
}

static void a_cookie_is_good_in_its_epoch_and_the_next(void **state) /* SYN-3: epochs of 64 s */
{
    struct lab *lab = crowded_default();

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    lab->now_us += 63000000;
    lab_ack(lab, 1, 1);
    assert_int_equal(lab->requests, 33);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 1 });
    assert_int_equal(lab->gones, 1);
    lab->now_us += 64000000 - lab->now_us % 64000000; /* an epoch begins */
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    lab->now_us += 127900000;
    lab_ack(lab, 1, 1);
    assert_int_equal(lab->requests, 34);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 1 });
    assert_int_equal(lab->gones, 2);
    lab->now_us += 64000000 - lab->now_us % 64000000;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    lab->now_us += 128000000;
    lab_clear(lab);
    lab_ack(lab, 1, 1);
    assert_int_equal(lab->requests, 34);
    assert_int_equal(lab_count(lab, "RST"), 1);
    lab_free(lab);
}

static void a_guessed_cookie_is_reset(void **state) /* SYN-3, RST-4 */
{
    struct lab *lab = crowded_default();

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    lab_clear(lab);
    for (uint32_t i = 2; i < 1000; i++)
        lab_feed(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = i * 7919 });
    lab_feed(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 2, .ack = 1 });
    lab_feed(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .port = 999 });
    lab_batch(lab);
    assert_int_equal(lab->requests, 32);
    assert_int_equal(lab_count(lab, "RST"), 1000);
    lab_free(lab);
}

static void the_first_data_may_bring_the_cookie_back(void **state) /* SYN-8 */
{
    struct lab *lab = crowded_default();

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    lab_data(lab, 1, 1, 500);
    assert_int_equal(lab->requests, 33);
    lab_data(lab, 501, 1, 500); /* too early, as the first one was */
    lab_clear(lab);
    accept_it(lab);
    lab_data(lab, 1, 1, 1000);
    assert_int_equal(lab->got, 1000);
    assert_false(lab->got_wrong);
    lab_free(lab);
}

static void a_refused_dial_resets_what_the_client_holds_open(void **state) /* SYN-3, RST-6 */
{
    static const enum stack_reject whys[] = { REJECT_RST, REJECT_HOST_UNREACH, REJECT_SILENT };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(whys); i++) {
        struct lab *lab = crowded_default();

        shake_hands(lab);
        lab_clear(lab);
        tcp_request_reject(lab->request, whys[i]);
        assert_int_equal(lab->outs, whys[i] != REJECT_SILENT);
        if (lab->outs == 1) {
            assert_int_equal(lab_count(lab, "RST"), 1);
            assert_int_equal(lab_last(lab)->seq, 1);
        }
        lab_free(lab);
    }
}

static void the_client_may_reset_while_the_dial_lasts(void **state) /* RST-1 */
{
    struct lab *lab = crowded_default();

    (void)state;
    shake_hands(lab);
    lab_data(lab, 1, 1, 300);
    lab_clear(lab);
    lab_send(lab,
             &(struct lab_seg){ .flags = LAB_RST, .seq = 301 }); /* as a client that has sent data does */
    assert_int_equal(lab->gones, 0);
    assert_int_equal(lab_count(lab, "ACK"), 1);
    assert_int_equal(lab_last(lab)->ack, 1);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 1 });
    assert_int_equal(lab->gones, 1);
    assert_int_equal(lab->gone_err, -ECONNRESET);
    lab_free(lab);
}

static void an_open_request_that_nobody_decides_is_reset(void **state) /* TF5 */
{
    struct lab *lab = crowded_default();

    (void)state;
    shake_hands(lab);
    lab_clear(lab);
    lab_run_us(lab, 151000000);
    assert_int_equal(lab->gone_err, -ETIMEDOUT);
    assert_int_equal(lab->gones, 33);
    assert_int_equal(lab_count(lab, "RST"), 1);
    assert_int_equal(lab_count(lab, "RST,ACK"), 32);
    assert_int_equal(stack_half_open_count(lab->stack), 0);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN }); /* the crowd is gone: a record again */
    assert_int_equal(lab->requests, 34);
    lab_free(lab);
}

/* ---- the flood --------------------------------------------------------------------------------------- */

struct flood {
    struct lab_options opt;
    uint32_t next;
    char name[24];
};

static void spoofed(struct lab *lab, struct flood *f, int n)
{
    for (int i = 0; i < n; i++, f->next++) {
        snprintf(f->name, sizeof(f->name), "10.%u.%u.%u", 2 + f->next / 65000 % 200, f->next / 250 % 250,
                 1 + f->next % 250);
        lab->opt.client = f->name;
        lab_feed(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = (uint16_t)(1024 + f->next % 60000) });
    }
    lab_batch(lab);
    lab_clear(lab);
    lab->opt.client = NULL;
}

/* An honest client comes, and comes again once after a second if nobody answers. */
static bool honest(struct lab *lab, struct flood *f, uint16_t port)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        lab->request = NULL;
        lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = port });
        if (lab->request != NULL) { /* it came before the crowd */
            accept_it(lab);
            lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .port = port });
            return lab->conn != NULL;
        }
        if (lab_count(lab, "SYN,ACK") == 1) {
            lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .port = port });
            if (lab->request != NULL) {
                accept_it(lab);
                return lab->opens > 0;
            }
        }
        spoofed(lab, f, 100);
        lab->now_us += 1000000;
    }
    return false;
}

/* SYN-3; faults.md T3: 100,000 spoofed SYNs within a second, and 200 honest clients between them. */
static void honest_clients_connect_in_a_flood(void **state)
{
    struct flood f = { 0 };
    unsigned connected = 0, dials;
    struct lab *lab;

    (void)state;
    lab_options_default(&f.opt);
    f.opt.hold = true;
    lab = lab_new(&f.opt);
    for (uint16_t i = 0; i < 200; i++) {
        spoofed(lab, &f, 500);
        lab->now_us += 5000;
        lab_clear(lab);
        connected += honest(lab, &f, (uint16_t)(2000 + i));
        if (lab->conn != NULL) {
            tcp_abort(lab->conn);
            lab_batch(lab);
        }
    }
    dials = lab->requests - connected;
    assert_true(f.next >= 100000);
    assert_true(connected * 100 >= 200 * 99);
    assert_in_range(dials, 0, 32); /* of 100,000 */
    assert_in_range(lab_in_use(lab, "syn"), 0, 33);
    assert_int_equal(lab_in_use(lab, "tcb"), 0);
    assert_true(stack_counters(lab->stack)->tcp_syn_cookie > 99000);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_dial_begins_with_the_acknowledged_cookie),
        cmocka_unit_test(a_cookie_keeps_what_was_offered),
        cmocka_unit_test(timestamps_never_go_back),
        cmocka_unit_test(a_cookie_is_good_in_its_epoch_and_the_next),
        cmocka_unit_test(a_guessed_cookie_is_reset),
        cmocka_unit_test(the_first_data_may_bring_the_cookie_back),
        cmocka_unit_test(a_refused_dial_resets_what_the_client_holds_open),
        cmocka_unit_test(the_client_may_reset_while_the_dial_lasts),
        cmocka_unit_test(an_open_request_that_nobody_decides_is_reset),
        cmocka_unit_test(honest_clients_connect_in_a_flood),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
