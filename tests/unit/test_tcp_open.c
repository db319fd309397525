/* test_tcp_open.c - faces src/stack/tcp_request.c, tcp_input.c and tcp_emit.c: how connections begin (tcp-stack.md 5.1, 5.2; icmp.md 6.1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "lab.h"
#include "stack/tcp_impl.h"

static struct lab *lab_with(void (*change)(struct lab_options *o))
{
    struct lab_options o;

    lab_options_default(&o);
    if (change != NULL)
        change(&o);
    return lab_new(&o);
}

static void hold(struct lab_options *o)
{
    o->hold = true;
}

static void syn(struct lab *lab)
{
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
}

static void accept_now(struct lab *lab)
{
    assert_int_equal(tcp_request_accept(lab->request, lab, &lab->conn), 0);
    lab->request = NULL;
    lab_batch(lab);
}

static void the_syn_is_held_until_the_embedder_accepts(void **state) /* SYN-1, SYN-2 */
{
    struct lab *lab = lab_with(hold);

    (void)state;
    syn(lab);
    assert_int_equal(lab->requests, 1);
    assert_int_equal(lab->outs, 0);
    assert_int_equal(lab_in_use(lab, "tcb"), 0);
    lab_run_us(lab, 2000000);
    assert_int_equal(lab->outs, 0);
    accept_now(lab);
    assert_int_equal(lab_count(lab, "SYN,ACK"), 1);
    assert_int_equal(lab_last(lab)->ack, 1);
    lab_ack(lab, 1, 1);
    assert_int_equal(lab->opens, 1);
    assert_string_equal(lab_info(lab).state, "ESTABLISHED");
    lab_free(lab);
}

static void hold_and_stall(struct lab_options *o)
{
    o->hold = o->stall = true;
}

/* Early accept: what the client says first can be looked at again and again before an upstream is chosen, is
 * acknowledged and held up to the window, and a failure is an RST. */
static void early_accept_lets_the_first_bytes_be_looked_at(void **state) /* SYN-1 */
{
    struct lab *lab = lab_with(hold_and_stall);
    struct iovec iov[4];

    (void)state;
    syn(lab);
    accept_now(lab);
    lab_ack(lab, 1, 1);
    lab_data(lab, 1, 1, 100);
    lab_data(lab, 101, 1, 400);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tcp_readable_bytes(lab->conn), 500);
        assert_true(tcp_peek(lab->conn, iov, 4) > 0);
        assert_int_equal(*(const uint8_t *)iov[0].iov_base, lab_pattern(0));
    }
    assert_int_equal(lab_last(lab)->ack, 501);
    lab_clear(lab);
    tcp_abort(lab->conn);
    tcp_release(lab->conn);
    lab_batch(lab);
    assert_int_equal(lab_last(lab)->flags & LAB_RST, LAB_RST);
    assert_int_equal(lab->closes, 0); /* released: nobody wants to hear of it */
    lab_free(lab);
}

static void a_repeated_syn_is_swallowed_and_a_new_one_replaces_it(void **state) /* SYN-1, TF3 */
{
    struct lab *lab = lab_with(hold);

    (void)state;
    for (int i = 0; i < 5; i++)
        syn(lab);
    assert_int_equal(lab->requests, 1);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .seq = 5000 });
    assert_int_equal(lab->requests, 2);
    assert_int_equal(lab->gones, 1);
    assert_int_equal(lab->gone_err, -ECONNRESET);
    assert_int_equal(stack_half_open_count(lab->stack), 1);
    accept_now(lab);
    assert_int_equal(lab_last(lab)->ack, 5001);
    lab_free(lab);
}

static void an_rst_for_a_held_syn_cancels_it(void **state) /* SYN-1, RST-1 */
{
    struct lab *lab = lab_with(hold);

    (void)state;
    syn(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 77 });
    assert_int_equal(lab->gones, 0);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 1 });
    assert_int_equal(lab->gones, 1);
    assert_int_equal(lab->gone_err, -ECONNRESET);
    assert_int_equal(stack_half_open_count(lab->stack), 0);
    assert_int_equal(lab->outs, 0);
    lab_free(lab);
}

static void a_request_that_nobody_decides_expires_after_150_s(void **state) /* TF5 */
{
    struct lab *lab = lab_with(hold);

    (void)state;
    syn(lab);
    lab_run_us(lab, 149900000);
    assert_int_equal(lab->gones, 0);
    lab_run_us(lab, 200000);
    assert_int_equal(lab->gones, 1);
    assert_int_equal(lab->gone_err, -ETIMEDOUT);
    lab_free(lab);
}

/* TF7 to TF9, SYN-1: what the client sees of each way to say no. */
static const struct refuse_row {
    enum stack_reject why;
    bool v6;
    const char *sees; /* flags of a segment, or NULL for ICMP */
    uint8_t type, code;
} refusals[] = {
    { REJECT_RST, false, "RST,ACK", 0, 0 },
    { REJECT_RST, true, "RST,ACK", 0, 0 },
    { REJECT_SILENT, false, "", 0, 0 },
    { REJECT_NET_UNREACH, false, NULL, 3, 0 },
    { REJECT_HOST_UNREACH, false, NULL, 3, 1 },
    { REJECT_PORT_UNREACH, false, NULL, 3, 3 },
    { REJECT_NET_PROHIBITED, false, NULL, 3, 9 },
    { REJECT_HOST_PROHIBITED, false, NULL, 3, 10 },
    { REJECT_ADMIN_PROHIBITED, false, NULL, 3, 13 },
    { REJECT_NET_UNREACH, true, NULL, 1, 0 },
    { REJECT_HOST_UNREACH, true, NULL, 1, 3 },
    { REJECT_PORT_UNREACH, true, NULL, 1, 4 },
    { REJECT_ADMIN_PROHIBITED, true, NULL, 1, 1 },
    { REJECT_POLICY, true, NULL, 1, 5 },
};

static bool refusal_is_seen(const struct refuse_row *r)
{
    struct lab_options o;
    struct lab *lab;
    bool ok;

    lab_options_default(&o);
    o.hold = true;
    o.v6 = r->v6;
    lab = lab_new(&o);
    syn(lab);
    tcp_request_reject(lab->request, r->why);
    lab_batch(lab);
    if (r->sees == NULL)
        ok = lab->outs == 1 && lab->out[0].icmp_type == r->type && lab->out[0].icmp_code == r->code;
    else if (r->sees[0] == '\0')
        ok = lab->outs == 0;
    else
        ok = lab->outs == 1 && lab_count(lab, r->sees) == 1 && lab->out[0].raw_seq == 0 &&
             lab->out[0].ack == 1;
    ok = ok && lab->gones == 0 && stack_half_open_count(lab->stack) == 0;
    syn(lab); /* the next SYN is a new request */
    ok = ok && lab->requests == 2;
    lab_free(lab);
    return ok;
}

static void each_refusal_looks_like_what_it_is(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
        if (refusal_is_seen(&refusals[i]))
            continue;
        print_error("row %zu: reason %d, v6 %d\n", i, refusals[i].why, refusals[i].v6);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void syn_ack_is_resent_after_1_3_7_15_and_31_seconds(
    void **state) /* SYN-4, RFC 6298 section 2.1; icmp.md TF6 */
{
    static const uint64_t at_ms[] = { 1000, 3000, 7000, 15000, 31000 };
    struct lab *lab = lab_with(NULL);

    (void)state;
    syn(lab);
    for (unsigned i = 0; i < ARRAY_LEN(at_ms); i++) {
        lab_run_until_ms(lab, at_ms[i] - 1);
        assert_int_equal(lab_count(lab, "SYN,ACK"), 1 + i);
        lab_run_until_ms(lab, at_ms[i] + 1);
        assert_int_equal(lab_count(lab, "SYN,ACK"), 2 + i);
    }
    assert_int_equal(lab->out[5].raw_seq, lab->out[0].raw_seq);
    assert_int_equal(lab->out[5].mss, lab->out[0].mss);
    assert_int_equal(lab->out[5].ws, lab->out[0].ws);
    lab_run_until_ms(lab, 62999);
    assert_int_equal(lab->closes, 0);
    lab_run_until_ms(lab, 63001);
    assert_int_equal(lab->closes, 1);
    assert_int_equal(lab->close_err, -ETIMEDOUT);
    assert_int_equal(lab->outs, 6);
    assert_int_equal(stack_tcp_count(lab->stack), 0);
    lab_free(lab);
}

static void a_repeated_syn_gets_the_same_syn_ack(void **state) /* SYN-4 */
{
    struct lab *lab = lab_with(NULL);

    (void)state;
    syn(lab);
    syn(lab);
    lab_run_us(lab, 1000000); /* and once more by itself */
    assert_int_equal(lab_count(lab, "SYN,ACK"), 3);
    for (int i = 1; i < 3; i++) {
        const struct lab_out *first = &lab->out[0], *again = &lab->out[i];

        assert_int_equal(again->raw_seq, first->raw_seq);
        assert_int_equal(again->wnd, first->wnd);
        assert_int_equal(again->options_len, first->options_len);
        assert_memory_equal(again->options, first->options, 8); /* but for the time in the timestamp */
        assert_memory_equal(again->options + 12, first->options + 12, first->options_len - 12);
    }
    assert_int_equal(lab->requests, 1);
    lab_free(lab);
}

static void the_round_trip_of_the_handshake_counts_unless_it_is_ambiguous(void **state) /* SYN-4, Karn */
{
    struct lab *lab = lab_with(NULL);

    (void)state;
    syn(lab);
    lab->now_us += 7000;
    lab_ack(lab, 1, 1);
    assert_int_equal(lab_info(lab).srtt_us, 7000);
    lab_free(lab);
    lab = lab_with(NULL);
    lab->opt.ts = false;
    syn(lab);
    lab_run_us(lab, 1500000);
    lab_ack(lab, 1, 1);
    assert_int_equal(lab_info(lab).srtt_us, 0);
    assert_int_equal(lab_info(lab).rto_us, 3000000); /* RFC 6298 section 5.7 */
    lab_write(lab, 1000);
    lab_ack(lab, 1, 1001);
    assert_true(lab_info(lab).srtt_us > 0 && lab_info(lab).rto_us < 1000000);
    lab_free(lab);
    lab = lab_with(NULL); /* with timestamps the client's echo tells which SYN-ACK it answers */
    syn(lab);
    lab_run_us(lab, 1500000);
    assert_int_equal(lab_count(lab, "SYN,ACK"), 2);
    lab_ack(lab, 1, 1);
    assert_in_range(lab_info(lab).srtt_us, 499000, 501000);
    lab_free(lab);
}

/* SYN-6: byte by byte, but for the two times. */
static void options_stand_in_the_usual_order(void **state)
{
    static const struct {
        bool ts, sack, ws;
        size_t len;
        uint8_t bytes[24];
    } rows[] = {
        { false, false, false, 4, { 2, 4, 5, 180 } },
        { false, true, false, 8, { 2, 4, 5, 180, 1, 1, 4, 2 } },
        { true, false, false, 16, { 2, 4, 5, 180, 1, 1, 8, 10 } },
        { true, true, false, 16, { 2, 4, 5, 180, 4, 2, 8, 10 } },
        { false, false, true, 8, { 2, 4, 5, 180, 1, 3, 3, 8 } },
        { false, true, true, 12, { 2, 4, 5, 180, 1, 1, 4, 2, 1, 3, 3, 8 } },
        { true, true, true, 20, { 2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 8 } },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct lab_options o;
        struct lab *lab;
        uint8_t seen[40];

        lab_options_default(&o);
        o.ts = rows[i].ts;
        o.sack = rows[i].sack;
        o.ws = rows[i].ws ? 7 : -1;
        lab = lab_new(&o);
        syn(lab);
        assert_int_equal(lab_last(lab)->options_len, rows[i].len);
        memcpy(seen, lab_last(lab)->options, rows[i].len);
        if (rows[i].ts)
            memset(seen + 8, 0, 8);
        assert_memory_equal(seen, rows[i].bytes, rows[i].len);
        lab_free(lab);
    }
}

static void a_path_that_loses_syn_acks_begins_with_one_segment(
    void **state) /* tcp-stack.md CC-2; RFC 5681 section 3.1, RFC 6928 section 2 */
{
    static const struct {
        uint64_t answered_ms;
        uint32_t segments;
    } rows[] = { { 500, 10 }, { 1500, 10 }, { 3500, 1 }, { 20000, 1 } };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct lab *lab = lab_with(NULL);

        syn(lab);
        lab_run_until_ms(lab, rows[i].answered_ms);
        lab_ack(lab, 1, 1);
        assert_int_equal(lab_info(lab).cwnd_bytes, rows[i].segments * lab_info(lab).mss_bytes);
        lab_free(lab);
    }
}

/* SYN-6: only what was offered is answered. */
static void options_are_answered_only_if_offered(void **state)
{
    int wrong = 0;

    (void)state;
    for (int bits = 0; bits < 8; bits++) {
        struct lab_options o;
        struct lab *lab;
        const struct lab_out *s;

        lab_options_default(&o);
        o.ts = bits & 1;
        o.sack = bits & 2;
        o.ws = bits & 4 ? 7 : -1;
        lab = lab_new(&o);
        syn(lab);
        s = lab_last(lab);
        wrong += s == NULL || s->ts != o.ts || s->sack_ok != o.sack || s->ws != (bits & 4 ? 8 : -1) ||
                 s->mss != 1460;
        wrong += s == NULL || s->wnd != 65535 || !s->df;
        lab_free(lab);
    }
    assert_int_equal(wrong, 0);
}

static void payload_on_a_syn_is_ignored_and_later_delivered_once(void **state) /* SYN-7; faults.md T16 */
{
    struct lab *lab = lab_with(NULL);
    static const uint8_t fast_open[] = { 2, 4, 5, 180, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1 };

    (void)state;
    lab->opt.ts = false;
    lab_send(lab, &(struct lab_seg){
                      .flags = LAB_SYN, .len = 10, .options = fast_open, .options_len = sizeof(fast_open) });
    assert_int_equal(lab_last(lab)->ack, 1);
    assert_false(lab_last(lab)->ts);
    lab_ack(lab, 1, 1);
    lab_data(lab, 1, 1, 10);
    assert_int_equal(lab->got, 10);
    assert_false(lab->got_wrong);
    lab_free(lab);
}

static void data_and_fin_may_complete_the_handshake(void **state) /* SYN-7, SYN-8 */
{
    struct lab *lab = lab_with(NULL);

    (void)state;
    syn(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK | LAB_FIN, .seq = 1, .ack = 1, .len = 100 });
    assert_int_equal(lab->opens, 1);
    assert_int_equal(lab->got, 100);
    assert_true(lab->eof);
    assert_string_equal(lab_info(lab).state, "CLOSE-WAIT");
    assert_int_equal(lab_last(lab)->ack, 102);
    lab_free(lab);
}

static void a_wrong_ack_in_the_handshake_is_reset(void **state) /* RFC 9293 section 3.10.7.4, SYN-RECEIVED */
{
    struct lab *lab = lab_with(NULL);

    (void)state;
    syn(lab);
    lab_clear(lab);
    lab_ack(lab, 1, 5000);
    assert_int_equal(lab_count(lab, "RST"), 1);
    assert_int_equal(lab_last(lab)->seq, 5000);
    assert_int_equal(lab->opens, 0);
    lab_ack(lab, 1, 1);
    assert_int_equal(lab->opens, 1);
    lab_free(lab);
}

static void the_client_may_reset_the_handshake(void **state) /* RST-1 */
{
    struct lab *lab = lab_with(NULL);

    (void)state;
    syn(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 1 });
    assert_int_equal(lab->closes, 1);
    assert_int_equal(lab->close_err, -ECONNRESET);
    assert_int_equal(lab->opens, 0);
    lab_free(lab);
}

/* MSS-1, MSS-2; faults.md T7: offered, and the payload that we then send at most. */
static const struct mss_row {
    uint16_t offered;
    bool v6, ts;
    uint32_t payload;
} mss_rows[] = {
    { 1460, false, true, 1448 }, { 1460, false, false, 1460 }, { 65535, false, false, 1460 },
    { 9000, true, true, 1428 },  { 1, false, false, 88 },      { 8, false, true, 76 },
    { 536, false, false, 536 },  { 1220, true, false, 1220 },
};

static void the_mss_is_clamped_and_options_count(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(mss_rows); i++) {
        const struct mss_row *r = &mss_rows[i];
        struct lab_options o;
        struct lab *lab;

        lab_options_default(&o);
        o.v6 = r->v6;
        o.ts = r->ts;
        lab = lab_new(&o);
        lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .mss = r->offered });
        lab_ack(lab, 1, 1);
        if (lab_info(lab).mss_bytes != r->payload) {
            print_error("offered %u: %u, not %u\n", r->offered, lab_info(lab).mss_bytes, r->payload);
            wrong++;
        }
        lab_free(lab);
    }
    assert_int_equal(wrong, 0);
}

static void v6(struct lab_options *o)
{
    o->v6 = true;
}

static void a_client_without_mss_option_gets_the_default(void **state) /* MSS-1, MSS-2; RFC 9293 MUST-15 */
{
    static const uint8_t none[4] = { 1, 1, 1, 1 }, zero[4] = { 2, 4, 0, 0 };

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct lab *lab = lab_with(i & 1 ? v6 : NULL);

        lab->opt.ts = false;
        lab_send(lab,
                 &(struct lab_seg){ .flags = LAB_SYN, .options = i & 2 ? zero : none, .options_len = 4 });
        assert_int_equal(lab_last(lab)->mss,
                         i & 1 ? 1440 : 1460); /* MSS-1: ours is the device's MTU less 40 or 60 */
        lab_ack(lab, 1, 1);
        assert_int_equal(lab_info(lab).mss_bytes, i & 1 ? 1220 : 536);
        lab_free(lab);
    }
}

static void no_tso_and_a_large_buffer(struct lab_options *o)
{
    o->config.offload_tso = false;
    o->config.snd_buffer_initial = 2u << 20;
    o->ws = 10;
}

/* With segments of 76 bytes the window would hold 13,000 of them. */
static void a_tiny_mss_does_not_exceed_the_segments_of_a_connection(void **state) /* MSS-2; faults.md T7 */
{
    struct lab *lab = lab_with(no_tso_and_a_large_buffer);
    uint32_t una = 1;

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .mss = 1 });
    lab_ack(lab, 1, 1);
    lab->conn->cwnd = 1u << 20; /* as after a long transfer */
    lab_write(lab, 2u << 20);
    for (int i = 0; i < 40; i++) {
        lab_clear(lab);
        lab->now_us += 1000;
        una += 76 * 100;
        lab_ack(lab, 1, una);
        assert_in_range(lab->conn->segments, 1, 4096);
        if (i == 20)
            assert_int_equal(lab->conn->segments, 4096);
    }
    lab_free(lab);
}

static void half_open_requests_are_limited_per_source_and_in_all(void **state) /* SYN-3, TF4; faults.md T4 */
{
    struct lab *lab = lab_with(hold);

    (void)state;
    for (uint16_t i = 0; i < 100; i++)
        lab_feed(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = (uint16_t)(1000 + i) });
    lab_batch(lab);
    assert_int_equal(lab->requests, 32);
    assert_int_equal(stack_counters(lab->stack)->tcp_half_open_limit, 68);
    assert_int_equal(lab->outs, 0);
    lab->opt.client = "10.0.0.3";
    for (uint16_t i = 0; i < 100; i++)
        lab_feed(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = (uint16_t)(1000 + i) });
    lab_batch(lab);
    assert_int_equal(lab->requests, 32); /* half of the records: now only cookies are sent */
    assert_int_equal(lab_count(lab, "SYN,ACK"), 100);
    assert_int_equal(stack_counters(lab->stack)->tcp_syn_cookie, 100);
    assert_int_equal(stack_counters(lab->stack)->tcp_half_open_limit, 68);
    lab_free(lab);
}

static void a_handshake_without_an_answer_counts_as_half_open(void **state) /* SYN-3 */
{
    struct lab *lab = lab_with(NULL);

    (void)state;
    for (uint16_t i = 0; i < 40; i++)
        lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = (uint16_t)(1000 + i) });
    assert_int_equal(lab_count(lab, "SYN,ACK"), 32);
    assert_int_equal(stack_half_open_count(lab->stack), 32);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 1, .port = 1000 });
    lab_send(lab, &(struct lab_seg){ .flags = LAB_RST, .seq = 1, .port = 1001 });
    assert_int_equal(stack_half_open_count(lab->stack), 30);
    lab_run_us(lab, 64000000);
    assert_int_equal(stack_half_open_count(lab->stack), 0);
    lab_free(lab);
}

static void at_the_connection_limit_the_request_stays(void **state)
{
    struct lab_options o;
    struct lab *lab;
    struct tcp_conn *c;

    (void)state;
    lab_options_default(&o);
    o.hold = true;
    o.config.max_tcp = 1;
    lab = lab_new(&o);
    syn(lab);
    accept_now(lab);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 7 });
    assert_int_equal(tcp_request_accept(lab->request, lab, &c), -ENOBUFS);
    tcp_request_reject(lab->request, REJECT_SILENT);
    lab_free(lab);
}

static void iss_differs_by_flow_and_grows_with_time(void **state) /* SYN-5, RFC 6528 */
{
    struct lab *lab = lab_with(NULL);
    uint32_t first, other;

    (void)state;
    syn(lab);
    first = lab_last(lab)->raw_seq;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .port = 41000 });
    other = lab_last(lab)->raw_seq;
    assert_true(other - first > 1000000 || first - other > 1000000);
    lab_free(lab);
    lab = lab_with(NULL);
    lab->now_us += 4000000;
    syn(lab);
    assert_int_equal(lab_last(lab)->raw_seq - first, 1000000);
    lab_free(lab);
}

static void segments_of_no_connection_meet_the_table(void **state) /* RST-4; TF1, TF2 */
{
    static const struct {
        uint8_t flags;
        const char *answer;
        bool request;
    } rows[] = {
        { 0, "", false },
        { LAB_FIN, "", false },
        { LAB_FIN | LAB_PSH | LAB_URG, "", false },
        { LAB_SYN | LAB_FIN, "", true },
        { LAB_SYN | LAB_RST, "", false },
        { LAB_SYN | LAB_ACK, "RST", false },
        { LAB_ACK, "RST", false },
        { LAB_FIN | LAB_ACK, "RST", false },
        { LAB_RST, "", false },
        { LAB_RST | LAB_ACK, "", false },
        { LAB_SYN | LAB_ECE | LAB_CWR, "", true },
    };
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct lab *lab = lab_with(hold);
        bool ok;

        lab_send(lab, &(struct lab_seg){ .flags = rows[i].flags, .seq = 10, .ack = 20, .len = 5 });
        ok = lab->requests == rows[i].request && lab->outs == (rows[i].answer[0] != '\0');
        if (lab->outs == 1)
            ok = ok && lab_count(lab, rows[i].answer) == 1 && lab->out[0].raw_seq == 20;
        if (!ok)
            print_error("flags %u\n", rows[i].flags);
        wrong += !ok;
        lab_free(lab);
    }
    assert_int_equal(wrong, 0);
}

static void resets_to_strangers_are_limited(void **state) /* RST-5 */
{
    struct lab_options o;
    struct lab *lab;

    (void)state;
    lab_options_default(&o);
    o.config.rst_per_second = 10;
    lab = lab_new(&o);
    for (uint16_t i = 0; i < 100; i++)
        lab_feed(lab, &(struct lab_seg){ .flags = LAB_ACK, .port = (uint16_t)(1000 + i) });
    assert_int_equal(lab_count(lab, "RST"), 10);
    assert_int_equal(stack_counters(lab->stack)->tcp_rst_limited, 90);
    lab_free(lab);
}

static void a_bad_checksum_or_offset_is_dropped_without_an_answer(void **state) /* TF1, SEQ-2; faults.md T2 */
{
    struct lab *lab = lab_with(hold);

    (void)state;
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .bad_checksum = true });
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .drop_offset = true });
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .bad_checksum = true });
    lab_send(lab,
             &(struct lab_seg){ .flags = LAB_SYN, .long_offset = true }); /* 60 bytes, of which 40 came */
    assert_int_equal(lab->requests, 0);
    assert_int_equal(lab->outs, 0);
    assert_int_equal(stack_counters(lab->stack)->tcp_checksum, 2);
    assert_int_equal(stack_counters(lab->stack)->tcp_malformed, 2);
    lab_free(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_syn_is_held_until_the_embedder_accepts),
        cmocka_unit_test(early_accept_lets_the_first_bytes_be_looked_at),
        cmocka_unit_test(a_repeated_syn_is_swallowed_and_a_new_one_replaces_it),
        cmocka_unit_test(an_rst_for_a_held_syn_cancels_it),
        cmocka_unit_test(a_request_that_nobody_decides_expires_after_150_s),
        cmocka_unit_test(each_refusal_looks_like_what_it_is),
        cmocka_unit_test(syn_ack_is_resent_after_1_3_7_15_and_31_seconds),
        cmocka_unit_test(a_repeated_syn_gets_the_same_syn_ack),
        cmocka_unit_test(the_round_trip_of_the_handshake_counts_unless_it_is_ambiguous),
        cmocka_unit_test(options_stand_in_the_usual_order),
        cmocka_unit_test(a_path_that_loses_syn_acks_begins_with_one_segment),
        cmocka_unit_test(options_are_answered_only_if_offered),
        cmocka_unit_test(payload_on_a_syn_is_ignored_and_later_delivered_once),
        cmocka_unit_test(data_and_fin_may_complete_the_handshake),
        cmocka_unit_test(a_wrong_ack_in_the_handshake_is_reset),
        cmocka_unit_test(the_client_may_reset_the_handshake),
        cmocka_unit_test(the_mss_is_clamped_and_options_count),
        cmocka_unit_test(a_client_without_mss_option_gets_the_default),
        cmocka_unit_test(a_tiny_mss_does_not_exceed_the_segments_of_a_connection),
        cmocka_unit_test(half_open_requests_are_limited_per_source_and_in_all),
        cmocka_unit_test(a_handshake_without_an_answer_counts_as_half_open),
        cmocka_unit_test(at_the_connection_limit_the_request_stays),
        cmocka_unit_test(iss_differs_by_flow_and_grows_with_time),
        cmocka_unit_test(segments_of_no_connection_meet_the_table),
        cmocka_unit_test(resets_to_strangers_are_limited),
        cmocka_unit_test(a_bad_checksum_or_offset_is_dropped_without_an_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
