/* tcp_timer.c - everything that happens because time passes: one wheel timer a connection (TMR-1, TMR-2).
 *
 * A connection has three deadlines: for what it has sent (one of retransmission, loss probe, reordering,
 * window probe), for a delayed ACK, and for its life (keep-alive, an orphan's FIN-WAIT-2). The wheel's node
 * stands at the earliest one or before it: a deadline that moves away only changes a number, and the node
 * moves when it fires. */
#include "tcp_impl.h"

static bool due(const struct tcp_conn *c, enum tcp_timer which, uint32_t at)
{
    return (c->timers & which) && (int32_t)(at - now_ms(c->s)) <= 0;
}

static void earliest(const struct tcp_conn *c, enum tcp_timer which, uint32_t at, int32_t *in_ms)
{
    int32_t left = (int32_t)(at - now_ms(c->s));

    if ((c->timers & which) && left < *in_ms)
        *in_ms = left;
}

static void rearm(struct tcp_conn *c)
{
    struct stack *s = c->s;
    int32_t in_ms = INT32_MAX;
    uint64_t at_us;

    if (c->timers == 0)
        return;
    earliest(c, TIMER_REXMIT, c->rexmit_at, &in_ms);
    earliest(c, TIMER_ACK, c->ack_at, &in_ms);
    earliest(c, TIMER_LIFE, c->life_at, &in_ms);
    at_us = (s->now_us / 1000 + (uint64_t)(in_ms > 0 ? in_ms : 0)) * 1000;
    if (!wheel_is_set(&c->timer) || at_us < c->timer.deadline_us)
        wheel_set(&s->wheel, &c->timer, at_us);
}

void tcp_timer_set(struct tcp_conn *c, enum tcp_timer which, uint64_t delay_us)
{
    uint32_t at = (uint32_t)((c->s->now_us + delay_us + TICK_US - 1) / TICK_US);

    c->timers |= which & 7;
    switch (which) {
    case TIMER_REXMIT:
        c->rexmit_at = at;
        c->put_off = false;
        break;
    case TIMER_ACK:
        c->ack_at = at;
        break;
    case TIMER_LIFE:
        c->life_at = at;
        break;
    }
    rearm(c);
}

void tcp_timer_clear(struct tcp_conn *c, enum tcp_timer which)
{
    c->timers &= ~which & 7;
}

/* ---- what we sent ------------------------------------------------------------------------------------ */

static bool probe_applies(const struct tcp_conn *c)
{
    return (c->flags & CONN_SACK) &&
           !(c->flags & (CONN_RECOVERY | CONN_LOSS | CONN_TLP_OUT | CONN_PROBING)) && c->backoff == 0 &&
           c->fl->sacked == 0 && c->srtt_us > 0;
}

/* RFC 8985 section 7.2. One segment in flight may wait for a delayed ACK; but when it is the tail of a burst
 * on a path where waiting hurts, we rather probe in vain (REC-3). */
static uint32_t probe_timeout(const struct tcp_conn *c)
{
    bool alone =
        c->snd_nxt - c->snd_una <= c->mss && (c->fl->round_flight <= c->mss || c->srtt_us < PTO_IMPATIENT_US);

    return max_u32(2 * c->srtt_us + (alone ? PTO_ONE_SEGMENT_US : 0), PTO_FLOOR_US);
}

/* The window is closed, and the client has answered whenever we asked. */
static bool is_patient(const struct tcp_conn *c)
{
    return (c->flags & CONN_PROBING) && c->probes == 0;
}

/* A time-out ends a connection when it is over, not at the next retransmission (UTO-1). */
static uint32_t within_user_timeout(const struct tcp_conn *c, uint32_t delay_us)
{
    uint32_t most = tcp_knob(c, TCP_OPT_USER_TIMEOUT_MS), gone = now_ms(c->s) - c->progress_ms;
    uint64_t left_us = gone < most ? (uint64_t)(most - gone) * 1000 : 0;

    return is_patient(c) || delay_us < left_us ? delay_us : (uint32_t)left_us;
}

static void arm_outstanding(struct tcp_conn *c)
{
    bool armed = (c->timers & TIMER_REXMIT) && c->rexmit_kind != REXMIT_PROBE;
    uint32_t rto = tcp_rto_us(c), delay = within_user_timeout(c, rto);

    if (armed && (c->rexmit_kind == REXMIT_REORDER || !(c->flags & CONN_RESTART)))
        return;
    c->flags &= ~(uint32_t)CONN_RESTART;
    c->rexmit_kind = REXMIT_RTO;
    if (probe_applies(c) && (delay == rto || probe_timeout(c) < delay)) {
        c->rexmit_kind = REXMIT_TLP; /* never later than the RTO, and then in its place */
        delay = min_u32(delay, probe_timeout(c));
    }
    tcp_timer_set(c, TIMER_REXMIT, delay);
}

void tcp_timer_rexmit(struct tcp_conn *c)
{
    if (c->fl->seg_head != NULL) {
        arm_outstanding(c);
    } else if (c->snd_end != c->snd_nxt &&
               !(c->flags & CONN_FIN_SENT)) { /* the window is closed, or memory is out */
        if ((c->timers & TIMER_REXMIT) && c->rexmit_kind == REXMIT_PROBE)
            return;
        if (!(c->flags & CONN_PROBING))
            c->progress_ms = now_ms(c->s);
        c->rexmit_kind = REXMIT_PROBE;
        tcp_timer_set(c, TIMER_REXMIT, within_user_timeout(c, tcp_rto_us(c)));
    } else {
        tcp_timer_clear(c, TIMER_REXMIT);
    }
}

/* UTO-1 and CLS-4. While a closed window's client answers, its time begins with each question: that is forever (ZWP-1).
 * Return: true when the connection has ended. */
static bool gave_up(struct tcp_conn *c)
{
    bool orphaned = (c->flags & CONN_RELEASED) && c->backoff >= ORPHAN_RTOS;

    if (is_patient(c))
        c->progress_ms = now_ms(c->s);
    if (!orphaned && now_ms(c->s) - c->progress_ms < tcp_knob(c, TCP_OPT_USER_TIMEOUT_MS))
        return false;
    COUNT(c->s, tcp_timeout);
    tcp_conn_die(c, -ETIMEDOUT, RST_TIMEOUT);
    return true;
}

static void back_off(struct tcp_conn *c)
{
    if (c->backoff < UINT8_MAX)
        c->backoff++;
}

/* MSS-3: two timeouts of large segments in a row may be a path that swallows large packets and says
 * nothing. */
static void suspect_black_hole(struct tcp_conn *c)
{
    uint32_t floor = c->flags & CONN_V6 ? TCP_PMTU_MIN6 : TCP_PMTU_MIN4, next = max_u32(1024, floor);
    uint32_t headers = (c->flags & CONN_V6 ? 60 : 40) + (c->flags & CONN_TS ? TCP_TS_BYTES : 0);

    if (c->backoff < 2 || c->fl->seg_head == NULL)
        return;
    if (c->backoff > 2)
        next = floor;
    if (next >= c->pmtu || c->fl->seg_head->len + headers <= next) /* what is lost would fit there, too */
        return;
    c->pmtu = (uint16_t)next;
    c->pmtu_learned = false; /* a guess of this connection's own; undo() takes it back if it was wrong */
    tcp_set_mss(c);
}

static void synack_timeout(struct tcp_conn *c)
{
    if (c->backoff >= SYN_ACK_RETRIES) {
        COUNT(c->s, tcp_timeout);
        tcp_conn_die(c, -ETIMEDOUT, RST_NONE);
        return;
    }
    back_off(c);
    c->flags |= CONN_SYNACK_DUE | CONN_SYNACK_AGAIN;
}

static void probes_window(struct tcp_conn *c)
{
    c->flags |= CONN_PROBING;
    if (c->probes < UINT8_MAX)
        c->probes++;
}

/* The window shrank over what is in flight: the client throws away at least a part of the first segment, so this is no loss,
 * nor a path that is too narrow, as long as it answers (SND-3). */
static bool is_shut_out(const struct tcp_conn *c)
{
    return c->snd_wnd < min_u32(c->fl->seg_head->len, c->mss);
}

static void retransmission_timeout(struct tcp_conn *c)
{
    if (c->fl->seg_head == NULL || gave_up(c))
        return;
    COUNT(c->s, tcp_rto);
    tcp_loss_timeout(c);
    back_off(c);
    c->flags |= CONN_RESTART;
    if ((c->flags & CONN_PROBING) || is_shut_out(c)) /* a sliver that left asks, too: its silence counts */
        probes_window(c);
    else
        suspect_black_hole(c);
}

static void window_probe(struct tcp_conn *c)
{
    if (gave_up(c))
        return;
    probes_window(c);
    back_off(c);
    if (seq_lt(c->snd_nxt, c->snd_una + c->snd_wnd)) /* a sliver is open: tcp_output() fills it */
        return;
    COUNT(c->s, tcp_zero_probe);
    tcp_emit_probe(c);
}

/* A timer that fires late means a loop that was late, and then the ACK may already lie in the device's queue:
 * it gets one more tick. Without this a busy machine repeats what has long arrived. */
static bool put_off(struct tcp_conn *c)
{
    uint32_t late_ms = now_ms(c->s) - c->rexmit_at;

    if (c->put_off || late_ms < LATE_MS || (c->rexmit_kind != REXMIT_TLP && c->rexmit_kind != REXMIT_RTO))
        return false;
    tcp_timer_set(c, TIMER_REXMIT, TICK_US);
    c->put_off = true;
    return true;
}

static void rexmit_fires(struct tcp_conn *c)
{
    if (put_off(c))
        return;
    tcp_timer_clear(c, TIMER_REXMIT);
    if (c->state == TCPS_SYN_RECEIVED) {
        synack_timeout(c);
        return;
    }
    switch ((enum rexmit_kind)c->rexmit_kind) {
    case REXMIT_RTO:
        retransmission_timeout(c);
        break;
    case REXMIT_TLP:
        if (c->fl->seg_head != NULL)
            tcp_loss_probe(c);
        c->flags |= CONN_RESTART;
        break;
    case REXMIT_REORDER:
        c->flags |= CONN_LOSS_CHECK | CONN_RESTART;
        break;
    case REXMIT_PROBE:
        window_probe(c);
        break;
    }
}

/* ---- its life ---------------------------------------------------------------------------------------- */

void tcp_timer_life(struct tcp_conn *c)
{
    uint32_t idle_ms = tcp_knob(c, TCP_OPT_KEEPALIVE_IDLE_MS);

    if ((c->flags & CONN_RELEASED) && c->state == TCPS_FIN_WAIT_2)
        tcp_timer_set(c, TIMER_LIFE, c->s->cfg.fin_wait2_ms * 1000ull);
    else if (idle_ms > 0 && !(c->flags & CONN_RELEASED))
        tcp_timer_set(c, TIMER_LIFE, idle_ms * 1000ull);
}

/* KA-1. What is on its way or waits for the window asks often enough, and for longer (RFC 9293 MUST-26). */
static void keepalive(struct tcp_conn *c)
{
    uint32_t quiet = now_ms(c->s) - c->last_rx_ms, idle_ms = tcp_knob(c, TCP_OPT_KEEPALIVE_IDLE_MS);

    if (c->snd_una != seq_max(c->snd_end, c->snd_nxt)) {
        c->keepalives = 0;
        tcp_timer_set(c, TIMER_LIFE, idle_ms * 1000ull);
        return;
    }
    if (quiet < idle_ms) {
        tcp_timer_set(c, TIMER_LIFE, (idle_ms - quiet) * 1000ull);
        return;
    }
    if (c->keepalives >= tcp_knob(c, TCP_OPT_KEEPALIVE_PROBES)) {
        COUNT(c->s, tcp_timeout);
        tcp_conn_die(c, -ETIMEDOUT, RST_TIMEOUT);
        return;
    }
    c->keepalives++;
    COUNT(c->s, tcp_keepalive_probe);
    tcp_emit_probe(c);
    tcp_timer_set(c, TIMER_LIFE, tcp_knob(c, TCP_OPT_KEEPALIVE_INTERVAL_MS) * 1000ull);
}

static void life_fires(struct tcp_conn *c)
{
    tcp_timer_clear(c, TIMER_LIFE);
    if (c->flags & CONN_RELEASED) {
        if (c->state == TCPS_FIN_WAIT_2) { /* CLS-4: it never says goodbye */
            COUNT(c->s, tcp_timeout);
            tcp_conn_die(c, -ETIMEDOUT, RST_NONE);
        }
        return;
    }
    if (tcp_knob(c, TCP_OPT_KEEPALIVE_IDLE_MS) > 0)
        keepalive(c);
}

static void ack_fires(struct tcp_conn *c)
{
    tcp_timer_clear(c, TIMER_ACK);
    c->flags &= ~(uint32_t)CONN_STARVED;
    if (c->segs_unacked > 0)
        c->flags |= CONN_ACK_NOW;
    tcp_wake_writer(c);
}

void tcp_timer_fire(struct wheel_timer *timer, uint64_t now_us)
{
    struct tcp_conn *c = CONTAINER_OF(timer, struct tcp_conn, timer);

    c->s->now_us = now_us;
    if (due(c, TIMER_ACK, c->ack_at))
        ack_fires(c);
    if (due(c, TIMER_REXMIT, c->rexmit_at))
        rexmit_fires(c);
    if (!(c->flags & CONN_DEAD) && due(c, TIMER_LIFE, c->life_at))
        life_fires(c);
    if (c->flags & CONN_DEAD)
        return;
    rearm(c);
    tcp_ready(c);
}
