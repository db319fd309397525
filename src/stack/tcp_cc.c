/* tcp_cc.c - how fast: slow start with HyStart++ (RFC 5681, RFC 9406), CUBIC (RFC 9438) and NewReno, all in
 * bytes.
 *
 * cwnd grows by bytes newly acknowledged, and only while it is what limits us (CC-2): in slow start while it
 * is below twice the largest flight of this round, later while output had stopped at it. */
#include "tcp_impl.h"

#define INITIAL_BYTES 14600u       /* RFC 6928 section 2 */
#define CWND_AMPLE    (512u << 10) /* 40 Gbit/s at 0.1 ms; measured: 1 MiB costs a fifth more CPU a byte */
#define CWND_MAX      (8u << 20)
#define CUBIC_OFF_MS  100000 /* beyond this the curve is steeper than any path */
#define RTT_MIN_US    4000   /* HyStart++: RFC 9406 section 4.3 */
#define RTT_MAX_US    16000
#define RTT_SAMPLES   8
#define CSS_DIVISOR   4
#define CSS_ROUNDS    5

uint32_t tcp_cc_initial(const struct tcp_conn *c)
{
    return min_u32(10u * c->mss, max_u32(2u * c->mss, INITIAL_BYTES));
}

void tcp_cc_init(struct tcp_conn *c)
{
    c->cwnd = tcp_cc_initial(c);
    c->ssthresh = UINT32_MAX;
    c->cc.last_min_rtt_us = c->cc.min_rtt_us = c->cc.baseline_rtt_us = UINT32_MAX;
}

/* The first slow start ends once, and its measurements make room for the curve's. */
static void end_first_slow_start(struct tcp_conn *c)
{
    if (c->cc.done)
        return;
    c->cc.done = true;
    c->cc.in_css = false;
    c->cc.epoch_ms = c->cc.k_ms = c->cc.w_est = 0;
}

/* What a reduction starts from: the flight that met the congestion, not what one large ACK has left of it. */
static uint32_t used_window(const struct tcp_conn *c)
{
    return min_u32(c->cwnd, max_u32(c->fl->round_flight, c->snd_nxt - c->snd_una));
}

/* ---- NewReno ----------------------------------------------------------------------------------------- */

static uint32_t reno_step(struct tcp_conn *c, uint32_t acked) /* one MSS per cwnd acknowledged */
{
    uint64_t sum = (uint64_t)acked * c->mss + c->cc.rest;

    c->cc.rest = (uint32_t)(sum % c->cwnd);
    return (uint32_t)(sum / c->cwnd);
}

static void newreno_acked(struct tcp_conn *c, uint32_t acked)
{
    c->cwnd += reno_step(c, acked);
}

static uint32_t newreno_reduce(struct tcp_conn *c, bool mark)
{
    end_first_slow_start(c);
    c->cc.rest = 0;
    return max_u32(mark ? used_window(c) / 5 * 4 : used_window(c) / 2, 2u * c->mss);
}

/* ---- CUBIC ------------------------------------------------------------------------------------------- */

static uint32_t cube_root(uint64_t x)
{
    uint64_t r = 0;

    for (int bit = 20; bit >= 0; bit--) {
        uint64_t t = r | 1ull << bit;

        if (t * t * t <= x)
            r = t;
    }
    return (uint32_t)r;
}

static void cubic_epoch(struct tcp_conn *c)
{
    struct tcp_cc_state *q = &c->cc;
    uint64_t segs;

    q->epoch_ms = now_ms(c->s) | 1; /* 0 means none */
    q->w_est = c->cwnd;
    q->rest = 0;
    if (q->w_max < c->cwnd)
        q->w_max = c->cwnd;
    segs = (q->w_max - c->cwnd) / c->mss;
    q->k_ms = cube_root(segs * 2500000000ull); /* K = cbrt(segments / 0.4) seconds */
}

/* W_cubic(t) = 0.4 (t - K)^3 + W_max, in segments and seconds (RFC 9438 section 4.2). */
static uint32_t cubic_window(const struct tcp_conn *c, uint32_t t_ms)
{
    int64_t off = (int64_t)t_ms - c->cc.k_ms, bytes;

    off = off > CUBIC_OFF_MS ? CUBIC_OFF_MS : off < -CUBIC_OFF_MS ? -CUBIC_OFF_MS : off;
    bytes = off * off * off / 1000 * c->mss / 2500000 + c->cc.w_max;
    return bytes < 0 ? 0 : bytes > CWND_MAX ? CWND_MAX : (uint32_t)bytes;
}

static void cubic_acked(struct tcp_conn *c, uint32_t acked)
{
    struct tcp_cc_state *q = &c->cc;
    uint32_t target, t;

    if (q->epoch_ms == 0)
        cubic_epoch(c);
    t = now_ms(c->s) - q->epoch_ms;
    /* section 4.3: alpha is 9/17 until the former window is reached, then 1 */
    q->w_est += (uint32_t)((uint64_t)reno_step(c, acked) * (q->w_est < q->w_max ? 9 : 17) / 17);
    target = cubic_window(c, t + c->srtt_us / 1000);
    target = min_u32(target, c->cwnd + c->cwnd / 2); /* section 4.4 */
    if (cubic_window(c, t) < q->w_est)
        c->cwnd = max_u32(c->cwnd, q->w_est);
    else if (target > c->cwnd)
        c->cwnd += (uint32_t)((uint64_t)(target - c->cwnd) * min_u32(acked, c->cwnd) / c->cwnd);
}

static uint32_t cubic_reduce(struct tcp_conn *c, bool mark)
{
    struct tcp_cc_state *q = &c->cc;

    end_first_slow_start(c);
    q->epoch_ms = 0;
    if (c->cwnd < q->w_max) /* fast convergence, section 4.7 */
        q->w_max = (uint32_t)((uint64_t)c->cwnd * 17 / 20);
    else
        q->w_max = c->cwnd;
    return max_u32((uint32_t)((uint64_t)used_window(c) * (mark ? 17 : 14) / 20), 2u * c->mss);
}

const struct tcp_cc_ops *tcp_cc_select(enum tcp_congestion which)
{
    static const struct tcp_cc_ops cubic = { "cubic", cubic_acked, cubic_reduce };
    static const struct tcp_cc_ops newreno = { "newreno", newreno_acked, newreno_reduce };

    switch (which) {
    case TCP_CC_CUBIC:
        return &cubic;
    case TCP_CC_NEWRENO:
        return &newreno;
    }
    return &cubic;
}

/* ---- HyStart++ --------------------------------------------------------------------------------------- */

static void hystart_round(struct tcp_conn *c)
{
    struct tcp_cc_state *q = &c->cc;

    if (q->done)
        return;
    q->last_min_rtt_us = q->min_rtt_us;
    q->min_rtt_us = UINT32_MAX;
    q->samples = 0;
    if (!q->in_css || ++q->css_rounds < CSS_ROUNDS)
        return;
    c->ssthresh = c->cwnd; /* the delay stayed: slow start is over */
    end_first_slow_start(c);
}

void tcp_cc_rtt(struct tcp_conn *c, uint32_t rtt_us)
{
    struct tcp_cc_state *q = &c->cc;
    uint32_t thresh;

    if (q->done)
        return;
    q->min_rtt_us = min_u32(q->min_rtt_us, rtt_us);
    if (q->samples < UINT8_MAX)
        q->samples++;
    if (q->samples < RTT_SAMPLES || q->last_min_rtt_us == UINT32_MAX)
        return;
    thresh = max_u32(RTT_MIN_US, min_u32(q->last_min_rtt_us / 8, RTT_MAX_US));
    if (!q->in_css && q->min_rtt_us >= q->last_min_rtt_us + thresh) {
        q->in_css = true;
        q->css_rounds = 0;
        q->baseline_rtt_us = q->min_rtt_us;
    } else if (q->in_css && q->min_rtt_us < q->baseline_rtt_us) {
        q->in_css = false; /* it was a jitter: back to slow start */
        q->baseline_rtt_us = UINT32_MAX;
    }
}

/* ---- for all ----------------------------------------------------------------------------------------- */

static void slow_start(struct tcp_conn *c, uint32_t acked)
{
    uint32_t limit = 2 * c->fl->round_flight, grow = c->cc.in_css ? acked / CSS_DIVISOR : acked;

    if ((c->flags & CONN_LOSS) != 0)
        limit = UINT32_MAX; /* after a timeout the flight says nothing */
    if (c->cwnd < limit)
        c->cwnd = min_u32(c->cwnd + grow, limit);
}

/* Once a round trip takes twice its minimum, more than half of a large window only stands in queues: the rate
 * is reached, and a larger one would cost memory and cache on our side and delay on everybody's. */
static bool is_queueing(const struct tcp_conn *c)
{
    return c->cwnd >= CWND_AMPLE && c->srtt_us > 2 * c->min_rtt_us;
}

void tcp_cc_acked(struct tcp_conn *c, uint32_t acked)
{
    if (is_queueing(c)) {
        c->cc.epoch_ms = c->cc.done ? 0 : c->cc.epoch_ms;
    } else if (c->cwnd < c->ssthresh) {
        slow_start(c, acked);
    } else if (c->flags & CONN_CWND_LIMITED) {
        end_first_slow_start(c);
        c->s->tcp->cc->acked(c, acked);
    }
    c->cwnd = min_u32(c->cwnd, CWND_MAX);
    if (seq_le(c->fl->round_end, c->snd_una)) {
        c->fl->round_end = c->snd_nxt;
        c->fl->round_flight = c->snd_nxt - c->snd_una + acked; /* as it was before this ACK */
        c->flags &= ~(uint32_t)CONN_CWND_LIMITED;
        c->reo_grown = false;
        hystart_round(c);
    }
}

void tcp_cc_sent(struct tcp_conn *c)
{
    if (c->fl->seg_head != NULL)
        c->fl->round_flight = max_u32(c->fl->round_flight, c->snd_nxt - c->snd_una);
}

/* RFC 5681 section 4.1: a window that was not used for an RTO is no measure of the path any more. */
void tcp_cc_restart(struct tcp_conn *c)
{
    c->cwnd = min_u32(c->cwnd, tcp_cc_initial(c));
    if (c->cc.done)
        c->cc.epoch_ms = 0;
}
