/* tcp_api.c - what the embedder does with a connection (include/culvert/stack.h); sending is in
 * tcp_send.c. */
#include "tcp_impl.h"

int tcp_peek(const struct tcp_conn *c, struct iovec *iov, int max)
{
    int n = 0;

    if (c->flags & CONN_DEAD)
        return 0;
    for (const struct piece *p = c->rcv.head; p != NULL && n < max; p = p->next)
        iov[n++] = (struct iovec){ .iov_base = block_data(p->block) + p->off, .iov_len = p->len };
    return n;
}

size_t tcp_readable_bytes(const struct tcp_conn *c)
{
    return c->flags & CONN_DEAD ? 0 : c->rcv_held;
}

void tcp_consume(struct tcp_conn *c, size_t n)
{
    if (n == 0 || (c->flags & CONN_DEAD))
        return;
    tcp_recv_consume(c, (uint32_t)n);
    tcp_ready(c); /* the window may have to be told */
}

void tcp_hold_back(struct tcp_conn *c, bool held)
{
    if (c->held_back && !held) { /* it has had no chance to move before */
        c->rcv_round_ms = now_ms(c->s);
        c->rcv_round_mark = (uint32_t)c->bytes_up;
    }
    c->held_back = held;
}

bool tcp_at_eof(const struct tcp_conn *c)
{
    return (c->flags & CONN_FIN_RCVD) && c->rcv_held == 0;
}

void tcp_shutdown(struct tcp_conn *c)
{
    if (c->flags & (CONN_FIN_QUEUED | CONN_DEAD))
        return;
    c->flags |= CONN_FIN_QUEUED;
    tcp_ready(c);
}

void tcp_abort(struct tcp_conn *c)
{
    tcp_conn_die(c, -ECONNABORTED, RST_ABORTED);
}

void tcp_release(struct tcp_conn *c)
{
    if (c->flags & CONN_RELEASED)
        return;
    c->flags |= CONN_RELEASED;
    if (c->flags & CONN_DEAD)
        return;
    if (c->state == TCPS_SYN_RECEIVED || c->rcv_held > 0) { /* RFC 2525 section 2.17 */
        tcp_conn_die(c, -ECONNABORTED, RST_ABORTED);
        return;
    }
    tcp_shutdown(c);
    tcp_timer_clear(c, TIMER_LIFE);
    tcp_timer_life(c);
    tcp_ready(c);
}

void tcp_conn_flow(const struct tcp_conn *c, struct flow_key *out)
{
    tcp_flow_of(&c->key, out);
}

static const char *cc_state(const struct tcp_conn *c)
{
    if (c->flags & CONN_LOSS)
        return "loss";
    if (c->flags & CONN_RECOVERY)
        return "recovery";
    if ((c->flags & CONN_ECN) && !(c->flags & CONN_TLP_OUT) && seq_lt(c->snd_una, c->recover))
        return "cwr";
    return c->fl->sacked > 0 || c->dupacks > 0 ? "disorder" : "open";
}

void tcp_conn_info(const struct tcp_conn *c, struct tcp_info *out)
{
    *out = (struct tcp_info){
        .state = tcp_state_name((enum tcps)c->state),
        .cc_state = cc_state(c),
        .cwnd_bytes = c->cwnd,
        .ssthresh_bytes = c->ssthresh,
        .mss_bytes = c->mss,
        .unacked = c->snd_nxt - c->snd_una,
        .sacked = c->fl->sacked,
        .lost = c->fl->lost,
        .retrans = c->fl->retrans,
        .reordering = c->reo_mult,
        .rto_us = tcp_rto_us(c),
        .srtt_us = c->srtt_us,
        .rttvar_us = c->rttvar_us,
        .probes = c->probes,
        .backoff = c->backoff,
        .snd_wnd = c->snd_wnd,
        .rcv_wnd = c->rcv_adv - c->rcv_nxt,
        .readable = (uint32_t)tcp_readable_bytes(c),
        .unsent = tcp_tx_unsent(c),
        .timestamps = (c->flags & CONN_TS) != 0,
        .sack = (c->flags & CONN_SACK) != 0,
        .ecn = (c->flags & CONN_ECN) != 0,
        .snd_wscale = c->snd_wscale,
        .rcv_wscale = c->rcv_wscale,
        .bytes_up = c->bytes_up,
        .bytes_down = c->bytes_down,
    };
}
