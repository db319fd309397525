/* test_tcp_model.c - faces src/stack/tcp_input.c: every kind of segment in every state, held against a model that was written from
 * RFC 9293 section 3.10.7.4, RFC 5961 and RFC 7323 alone (tcp-stack.md 4, CLS-3).
 *
 * The model knows of one segment: what answers it within 45 ms (a delayed ACK counts), in which state the connection is afterwards,
 * and how many bytes are delivered. 4,752 segments with CULVERT_LONG=1, else every seventh of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "lab_script.h"

#define EVERY 7 /* shares no factor with the numbers of rows, so that all of them occur */

/* seq is relative to RCV.NXT, ack to SND.NXT. */
struct probe {
    enum lab_where in;
    uint8_t flags;
    int64_t seq, ack;
    uint32_t len;
    int64_t wnd; /* what the client was told, from RCV.NXT on */
};

struct outcome {
    const char *answer; /* flags of the only packet; "": none */
    const char *then;
    int64_t taken;
};

/* ---- the model ------------------------------------------------------------------------------------------- */

static bool fin_was_received(enum lab_where in)
{
    return in == LAB_CLOSING || in == LAB_CLOSE_WAIT || in == LAB_LAST_ACK || in == LAB_TIME_WAIT;
}

static bool fin_was_sent(enum lab_where in)
{
    return in != LAB_SYN_RECEIVED && in != LAB_ESTABLISHED && in != LAB_CLOSE_WAIT;
}

/* A step more generous than the RFC, like the code: what begins at the right edge passes for its ACK. */
static bool is_acceptable(const struct probe *p)
{
    int64_t len = p->len + ((p->flags & LAB_FIN) != 0);

    return (len == 0 ? p->seq >= 0 : p->seq + len > 0) && p->seq <= p->wnd;
}

/* Seventh and eighth: the segment's text and its FIN, when the client may still send. */
static void take_text(const struct probe *p, bool our_fin_acked, struct outcome *o)
{
    int64_t end = p->seq + p->len;
    bool fin = (p->flags & LAB_FIN) && end <= p->wnd;

    o->answer = "ACK";
    end = end < p->wnd ? end : p->wnd;
    if (p->seq <= 0 && end > 0)
        o->taken = end;
    if (p->seq > 0 || !fin)
        return;
    if (!fin_was_sent(p->in))
        o->then = "CLOSE-WAIT";
    else
        o->then = our_fin_acked ? "gone" : "CLOSING"; /* gone: a TIME-WAIT record is left */
}

static void take_ack(const struct probe *p, struct outcome *o)
{
    bool all = p->ack == 0;

    if (p->in == LAB_SYN_RECEIVED)
        o->then = "ESTABLISHED";
    if (all && p->in == LAB_FIN_WAIT_1)
        o->then = "FIN-WAIT-2";
    if (all && (p->in == LAB_CLOSING || p->in == LAB_LAST_ACK))
        o->then = "gone";
    if (!fin_was_received(p->in) && (p->len > 0 || (p->flags & LAB_FIN)))
        take_text(p, p->in == LAB_FIN_WAIT_2 || (all && fin_was_sent(p->in)), o);
}

/* A record: RFC 1337, RFC 6191 (the probe's timestamp is newer). */
static void in_time_wait(const struct probe *p, struct outcome *o)
{
    o->then = "gone";
    if (p->flags & LAB_RST)
        return;
    if ((p->flags & (LAB_SYN | LAB_ACK)) == LAB_SYN) {
        o->answer = "SYN,ACK";
        o->then = "SYN-RECEIVED";
    } else if ((p->flags & (LAB_SYN | LAB_FIN)) || p->len > 0 || p->seq != 0) {
        o->answer = "ACK";
    }
}

static struct outcome model(const struct probe *p)
{
    struct outcome o = { "", lab_where_name(p->in), 0 };

    if (p->in == LAB_TIME_WAIT) {
        in_time_wait(p, &o);
    } else if (p->in == LAB_SYN_RECEIVED && (p->flags & (LAB_SYN | LAB_RST | LAB_ACK)) == LAB_SYN &&
               p->seq == -1) {
        o.answer = "SYN,ACK";        /* the same SYN */
    } else if (p->flags & LAB_RST) { /* RFC 5961 section 3.2 */
        if (p->seq == 0)
            o.then = "gone";
        else if (p->seq > 0 && p->seq < p->wnd)
            o.answer = "ACK";
    } else if ((p->flags & LAB_SYN) || !is_acceptable(p)) { /* RFC 5961 section 4.2; first */
        o.answer = "ACK";
    } else if (p->flags & LAB_ACK) { /* without it: dropped */
        if (p->in == LAB_SYN_RECEIVED && p->ack != 0)
            o.answer = "RST";
        else if (p->ack > 0 || p->ack < -2000000) /* RFC 5961 section 5.2 */
            o.answer = "ACK";
        else
            take_ack(p, &o);
    }
    return o;
}

/* ---- and the stack --------------------------------------------------------------------------------------- */

static struct lab *bring_to(enum lab_where in)
{
    struct lab *lab = lab_in(in);

    lab_run_us(lab, in == LAB_TIME_WAIT ? 2000 : 0); /* a newer timestamp */
    lab_clear(lab);
    return lab;
}

static bool holds(struct probe p)
{
    struct lab *lab = bring_to(p.in);
    uint32_t rcv_nxt = (p.in == LAB_SYN_RECEIVED ? 1 : 1 + LAB_UP) + fin_was_received(p.in);
    uint64_t before = lab->got;
    char answer[40] = "", flags[40];
    const char *then;
    struct outcome o;
    bool ok;

    p.wnd = lab->conn != NULL ? lab_info(lab).rcv_wnd : 65536;
    p.seq = p.seq > 1 << 24 ? p.seq - (1 << 25) + p.wnd : p.seq;
    o = model(&p);
    lab_send(lab, &(struct lab_seg){ .flags = p.flags,
                                     .seq = rcv_nxt + (uint32_t)p.seq,
                                     .ack = 1 + fin_was_sent(p.in) + (uint32_t)p.ack,
                                     .len = p.len });
    lab_run_us(lab, 45000);
    if (lab->outs > 0)
        lab_flags_text(lab->out[0].flags, answer);
    then = lab->conn != NULL ? lab_info(lab).state : "gone";
    ok = lab->outs <= 1 && strcmp(answer, o.answer) == 0 && strcmp(then, o.then) == 0 &&
         (int64_t)(lab->got - before) == o.taken;
    if (!ok)
        print_error("%s, %s, seq %+lld, ack %+lld, %u bytes: %zu answers (%s), then %s, %llu taken; not "
                    "(%s), %s, %lld\n",
                    lab_where_name(p.in), lab_flags_text(p.flags, flags), (long long)p.seq, (long long)p.ack,
                    p.len, lab->outs, answer, then, (unsigned long long)(lab->got - before), o.answer, o.then,
                    (long long)o.taken);
    lab_free(lab);
    return ok;
}

#define EDGE (1 << 25) /* stands for the right edge of the window */

static void every_segment_in_every_state_is_answered_as_the_rfcs_say(
    void **state) /* tcp-stack.md SEQ-3, SEQ-5, SEQ-6, RST-1, RST-2, CLS-3, TW-1; faults.md T1 */
{
    static const enum lab_where states[] = { LAB_SYN_RECEIVED, LAB_ESTABLISHED, LAB_FIN_WAIT_1,
                                             LAB_FIN_WAIT_2,   LAB_CLOSING,     LAB_TIME_WAIT,
                                             LAB_CLOSE_WAIT,   LAB_LAST_ACK };
    static const uint8_t flags[] = { 0,
                                     LAB_SYN,
                                     LAB_FIN,
                                     LAB_RST,
                                     LAB_ACK,
                                     LAB_SYN | LAB_FIN,
                                     LAB_SYN | LAB_RST,
                                     LAB_SYN | LAB_ACK,
                                     LAB_FIN | LAB_ACK };
    static const int64_t seqs[] = { -3000000, -300000,  -60,           -1, 0, 1, 50, EDGE - 1,
                                    EDGE,     EDGE + 1, EDGE + 9000000 };
    static const int64_t acks[] = { -100000000, -1, 0, 1 };
    static const uint32_t lens[] = { 0, 1, 10 };
    size_t step = getenv("CULVERT_LONG") != NULL ? 1 : EVERY, tried = 0, wrong = 0;
    size_t all = ARRAY_LEN(states) * ARRAY_LEN(flags) * ARRAY_LEN(seqs) * ARRAY_LEN(acks) * ARRAY_LEN(lens);

    (void)state;
    for (size_t i = 0; i < all; i += step) {
        size_t n = i;
        struct probe p = { .in = states[n % ARRAY_LEN(states)] };

        p.flags = flags[(n /= ARRAY_LEN(states)) % ARRAY_LEN(flags)];
        p.seq = seqs[(n /= ARRAY_LEN(flags)) % ARRAY_LEN(seqs)];
        p.len = lens[(n /= ARRAY_LEN(seqs)) % ARRAY_LEN(lens)];
        p.ack = acks[(n /= ARRAY_LEN(lens)) % ARRAY_LEN(acks)];
        if (!(p.flags & LAB_ACK) && p.ack != 0)
            continue; /* nobody reads it */
        tried++;
        wrong += !holds(p);
    }
    print_message("%zu segments\n", tried);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_segment_in_every_state_is_answered_as_the_rfcs_say),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
