/* tcp_bytes.c - the bytes of an open TCP flow, both ways, and the end of each way; the flow's life is tcp_flow.c.
 *
 * Neither side is read when the other cannot take more, or when a limit says that it is not this flow's turn (rate.c). */
#include "forward_impl.h"

/* One wake-up moves at most this much to the client before others get a turn. */
#define DOWN_ROUNDS 4
#define UP_RANGES   64

void tcp_flow_want(struct tcp_flow *t)
{
    if (t->up)
        up_stream_want(t->up, (t->want_read ? LOOP_READ : 0u) | (t->want_write ? LOOP_WRITE : 0u));
}

/* Nothing more can come from or go to the upstream: free its socket now, the client's side may take its time (TW-1). */
static void close_finished_upstream(struct tcp_flow *t)
{
    if (t->up && t->up_eof && t->up_shut) {
        up_stream_close(t->up);
        t->up = NULL;
    }
}

/* The stream is of no more use, but what it had received before it broke is still the client's: drain_step() reads it. */
void tcp_flow_broke(struct tcp_flow *t)
{
    FCOUNT(t->ways->f, tcp_reset_by_upstream);
    rate_stop_tcp(t);
    if (t->up)
        up_stream_want(t->up, 0);
    t->state = TCP_FLOW_DRAIN;
    t->active_ms = forward_now_ms(t->ways->f);
    wheel_set(t->ways->f->wheel, &t->timer, loop_now_us(t->ways->f->loop));
}

/* The half-close time-out counts from now on, not from when the idle one would have been looked at. */
static void arm_half_close(struct tcp_flow *t)
{
    wheel_set(t->ways->f->wheel, &t->timer,
              loop_now_us(t->ways->f->loop) + (uint64_t)t->ways->f->opt.half_close_timeout_ms * 1000);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

/* The first @bytes of what @n ranges hold. Return: how many ranges that are, the last one cut. */
static int cut(struct iovec *iov, int n, size_t bytes)
{
    int i;

    for (i = 0; i < n && bytes > 0; i++) {
        if (iov[i].iov_len > bytes)
            iov[i].iov_len = bytes;
        bytes -= iov[i].iov_len;
    }
    return i;
}

void tcp_flow_pump_up(struct tcp_flow *t)
{
    struct iovec iov[UP_RANGES];
    int n;

    if (t->state != TCP_FLOW_OPEN || !t->up || rate_waits(t, RATE_UP))
        return;
    while ((n = tcp_peek(t->conn, iov, UP_RANGES)) > 0) {
        size_t offered = 0;
        ssize_t taken;

        if (t->paced && (n = cut(iov, n, rate_allow(t, RATE_UP))) == 0) {
            t->want_write = false;
            break;
        }
        taken = up_stream_sendv(t->up, iov, n);
        if (taken == -EAGAIN)
            taken = 0;
        if (taken < 0) {
            tcp_flow_broke(t);
            return;
        }
        for (int i = 0; i < n; i++)
            offered += iov[i].iov_len;
        tcp_consume(t->conn, (size_t)taken);
        if (t->paced)
            rate_took(t, RATE_UP, (size_t)taken);
        t->want_write = (size_t)taken < offered;
        if (t->want_write)
            break;
    }
    if (n == 0)
        t->want_write = false;
    if (!t->up_shut && tcp_at_eof(t->conn)) {
        t->client_eof = t->up_shut = true;
        up_stream_shutdown(t->up);
        close_finished_upstream(t);
        arm_half_close(t);
    }
    tcp_flow_want(t);
}

static void upstream_ended(struct tcp_flow *t)
{
    t->up_eof = true;
    t->want_read = false;
    tcp_shutdown(t->conn);
    close_finished_upstream(t);
    arm_half_close(t);
    tcp_flow_want(t);
}

void tcp_flow_pump_down(struct tcp_flow *t)
{
    if (rate_waits(t, RATE_DOWN))
        return;
    for (int round = 0; round < DOWN_ROUNDS && t->state == TCP_FLOW_OPEN && t->up && !t->up_eof; round++) {
        size_t room, allowed = t->paced ? rate_allow(t, RATE_DOWN) : SIZE_MAX;
        uint8_t *to;
        ssize_t n;

        room = allowed > 0 ? tcp_tx_space(t->conn, &to) : 0;
        if (room > allowed)
            room = allowed;
        if (room == 0) {
            t->want_read = false;
            tcp_flow_want(t);
            return;
        }
        n = up_stream_recv(t->up, to, room);
        tcp_tx_commit(t->conn, n > 0 ? (size_t)n : 0);
        if (t->paced && n > 0)
            rate_took(t, RATE_DOWN, (size_t)n);
        if (n == 0) {
            upstream_ended(t);
        } else if (n == -EAGAIN) {
            return;
        } else if (n < 0) {
            tcp_flow_broke(t);
        } else if ((size_t)n < room) {
            return; /* a short read: the socket is empty, and epoll tells when it is not */
        }
    }
}

void tcp_flow_resume(struct tcp_flow *t, int dir)
{
    if (t->state != TCP_FLOW_OPEN)
        return;
    t->active_ms = forward_now_ms(t->ways->f);
    if (dir == RATE_UP) {
        tcp_flow_pump_up(t);
        return;
    }
    t->want_read = !t->up_eof;
    tcp_flow_pump_down(t);
    tcp_flow_want(t);
}
