/* tcp_conn.c - a connection's beginning and end. */
#include "tcp_impl.h"

const char *tcp_state_name(enum tcps state)
{
    switch (state) {
    case TCPS_SYN_RECEIVED:
        return "SYN-RECEIVED";
    case TCPS_ESTABLISHED:
        return "ESTABLISHED";
    case TCPS_FIN_WAIT_1:
        return "FIN-WAIT-1";
    case TCPS_FIN_WAIT_2:
        return "FIN-WAIT-2";
    case TCPS_CLOSING:
        return "CLOSING";
    case TCPS_TIME_WAIT:
        return "TIME-WAIT";
    case TCPS_CLOSE_WAIT:
        return "CLOSE-WAIT";
    case TCPS_LAST_ACK:
        return "LAST-ACK";
    case TCPS_CLOSED:
        return "CLOSED";
    }
    return "?";
}

/* MSS-2. A peer that offers next to nothing is taken at 88, so that a segment list stays short (faults.md
 * T7). */
static uint16_t peer_mss(uint16_t offered, bool v6)
{
    if (offered == 0)
        return v6 ? TCP_MSS_DEFAULT6 : TCP_MSS_DEFAULT4;
    return (uint16_t)max_u32(offered, TCP_MSS_MIN);
}

void tcp_set_mss(struct tcp_conn *c)
{
    uint32_t headers = TCP_HEADER + (c->flags & CONN_V6 ? 40 : 20);
    uint32_t mss = min_u32(c->mss_peer, c->pmtu - headers);

    c->mss = (uint16_t)(mss - (c->flags & CONN_TS ? TCP_TS_BYTES : 0));
}

void tcp_pmtu_refresh(struct tcp_conn *c)
{
    uint32_t mtu = min_u32(tcp_pmtu_get(c->s, &c->key.client), UINT16_MAX);

    c->pmtu = (uint16_t)mtu;
    c->pmtu_learned = mtu < c->s->cfg.mtu_bytes;
    tcp_set_mss(c);
    c->cwnd = max_u32(c->cwnd, c->mss);
}

static uint32_t conn_flags(const struct stack *s, const struct tcp_request *r)
{
    return (r->flags & REQUEST_TS ? CONN_TS : 0) | (r->flags & REQUEST_SACK ? CONN_SACK : 0) |
           (r->flags & REQUEST_V6 ? CONN_V6 : 0) | (s->cfg.ecn && (r->flags & REQUEST_ECN) ? CONN_ECN : 0);
}

/* The window of a SYN-ACK is not scaled (RFC 7323 section 2.2). */
static void init_receive(struct tcp_conn *c, const struct tcp_request *r)
{
    const struct stack_config *cfg = &c->s->cfg;

    c->rcv_nxt = r->irs + 1;
    c->last_ack_sent = c->rcv_nxt;
    c->rcv_budget = cfg->rcv_budget_initial;
    c->rcv_adv = c->rcv_nxt + min_u32(c->rcv_budget, UINT16_MAX);
    c->ts_recent = r->tsval;
    c->rcv_mss = (uint16_t)min_u32(c->mss, cfg->mtu_bytes);
    c->quick_acks = (uint8_t)tcp_knob(c, TCP_OPT_QUICK_ACK_SEGMENTS);
    if ((r->flags & REQUEST_WS) && cfg->window_scale > 0) { /* WND-3; both or none (RFC 7323 section 2.2) */
        c->rcv_wscale = min_u32(cfg->window_scale, 14) & 15;
        c->snd_wscale = min_u32(r->ws, 14) & 15;
    }
    c->rcv_round_ms = now_ms(c->s);
}

static void init_send(struct tcp_conn *c, const struct tcp_request *r)
{
    c->snd_una = r->iss;
    c->snd_nxt = c->snd_end = r->iss + 1;
    c->snd_wnd = c->snd_wnd_max = r->wnd;
    c->snd_wl1 = r->irs;
    c->ts_offset = tcp_ts_offset(c->s, &c->key);
    tcp_cc_init(c);
}

void tcp_conn_init(struct tcp_conn *c, struct stack *s, const struct tcp_request *r)
{
    memset(c, 0, sizeof(*c));
    c->s = s;
    c->fl = tcp_no_flight();
    c->key = r->key;
    c->state = TCPS_SYN_RECEIVED;
    c->flags = conn_flags(s, r) | CONN_SYNACK_DUE;
    c->timer.fn = tcp_timer_fire;
    c->last_rx_ms = c->progress_ms = now_ms(s);
    c->reo_mult = 1;
    c->mss_peer = peer_mss(r->mss, r->flags & REQUEST_V6);
    tcp_pmtu_refresh(c);
    init_receive(c, r);
    init_send(c, r);
}

void tcp_conn_syn_again(struct tcp_conn *c, const struct tcp_seg *syn)
{
    uint8_t offers = tcp_request_offers(syn);

    if (!(offers & REQUEST_TS))
        c->flags &= ~(uint32_t)CONN_TS;
    else if (seq_lt(c->ts_recent, syn->opt.tsval)) /* RFC 7323 section 4.3 */
        c->ts_recent = syn->opt.tsval;
    if (!(offers & REQUEST_SACK))
        c->flags &= ~(uint32_t)CONN_SACK;
    if (!(offers & REQUEST_ECN))
        c->flags &= ~(uint32_t)CONN_ECN;
    if (!(offers & REQUEST_WS))
        c->rcv_wscale = c->snd_wscale = 0;
    tcp_set_mss(c);
    c->cwnd = max_u32(c->cwnd, c->mss);
}

struct tcp_conn *tcp_conn_new(struct stack *s, const struct tcp_request *r)
{
    struct tcp_conn *c = pool_get(&s->tcp->conns);

    if (c != NULL)
        tcp_conn_init(c, s, r);
    return c;
}

void tcp_conn_opened(struct tcp_conn *c, uint32_t seq, uint32_t ack, uint16_t wnd)
{
    c->state = TCPS_ESTABLISHED;
    c->snd_una = c->recover = ack;
    c->snd_wnd = (uint32_t)wnd << c->snd_wscale;
    c->snd_wnd_max = max_u32(c->snd_wnd_max, c->snd_wnd);
    c->snd_wl1 = seq;
    c->backoff = 0;
    c->flags = (c->flags & ~(uint32_t)CONN_SYNACK_DUE) | CONN_EV_OPEN;
    c->progress_ms = now_ms(c->s);
    tcp_timer_clear(c, TIMER_REXMIT);
    tcp_timer_life(c);
    COUNT(c->s, tcp_opened);
}

void tcp_conn_free(struct tcp_conn *c)
{
    struct stack *s = c->s;

    wheel_cancel(&s->wheel, &c->timer);
    tcp_knobs_drop(c);
    tcp_recv_clear(c);
    tcp_send_clear(c);
    while (c->fl->seg_head != NULL) {
        struct segment *seg = c->fl->seg_head;

        c->fl->seg_head = seg->next;
        tcp_segment_free(c, seg);
    }
    tcp_flight_end(c);
    if (c->rec != NULL)
        pool_put(&s->tcp->recoveries, c->rec);
    pool_put(&s->tcp->conns, c);
}

/* From here on the 4-tuple is free, and packets do not find the connection any more; the embedder may still
 * hold it until on_tcp_closed(). */
void tcp_conn_die(struct tcp_conn *c, int err, enum tcp_rst rst)
{
    if (c->flags & CONN_DEAD)
        return;
    if (rst != RST_NONE)
        tcp_emit_rst(c, rst);
    if (c->state == TCPS_SYN_RECEIVED)
        tcp_half_open_leave(c->s, &c->key.client);
    c->flags |= CONN_DEAD;
    c->err = (int8_t)err;
    wheel_cancel(&c->s->wheel, &c->timer);
    c->timers = 0;
    tcp_table_remove(c->s->tcp, &c->key);
    tcp_ready(c);
}
