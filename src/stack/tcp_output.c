/* tcp_output.c - once a batch and connection: what was lost, what is new, and an ACK if neither carried one
 * (BAT-2).
 *
 * Sizes: a packet is as many whole segments as cwnd, the client's window, the device (64 KiB) and a
 * millisecond at the current rate (CC-4) allow; it names ranges of chunks and moves no byte. At most four 64
 * KiB packets leave in one turn (BAT-3). */
#include "tcp_impl.h"

#define PAYLOAD_RANGES 4

static uint32_t full_rate_bytes(const struct tcp_conn *c, uint32_t mss) /* CC-4 */
{
    uint64_t in_1ms = UINT32_MAX;

    if (c->srtt_us > 0)
        in_1ms = (uint64_t)c->cwnd * (c->cwnd < c->ssthresh ? 2 : 1) * 1000 / c->srtt_us;
    return in_1ms < 2 * mss ? 2 * mss : (uint32_t)(in_1ms < UINT32_MAX ? in_1ms : UINT32_MAX);
}

static uint32_t largest_packet(const struct tcp_conn *c, uint32_t mss)
{
    if (!c->s->cfg.offload_tso)
        return mss;
    return min_u32(tcp_payload_most(c), full_rate_bytes(c, mss)) / mss * mss;
}

static uint32_t send_window_left(const struct tcp_conn *c)
{
    uint32_t edge = c->snd_una + c->snd_wnd;

    return seq_lt(c->snd_nxt, edge) ? edge - c->snd_nxt : 0;
}

uint32_t tcp_sendable(const struct tcp_conn *c)
{
    uint32_t pipe = tcp_pipe(c);

    return min_u32(send_window_left(c), c->cwnd > pipe ? c->cwnd - pipe : 0);
}

static uint32_t cwnd_left(const struct tcp_conn *c, uint32_t mss)
{
    uint32_t pipe = tcp_pipe(c), left = c->cwnd > pipe ? c->cwnd - pipe : 0;

    return c->flags & CONN_TLP_SEND ? max_u32(left, mss) : left;
}

/* ---- again ------------------------------------------------------------------------------------------- */

/* Contiguous lost segments leave as one packet (REC-6). */
static void merge_lost(struct tcp_conn *c, struct segment *seg, uint32_t most)
{
    struct segment *next;

    while ((next = seg->next) != NULL && (next->flags & (SEG_LOST | SEG_RETRANS)) == SEG_LOST &&
           seg->len + next->len <= most && next->block != NULL) {
        seg->len += next->len;
        seg->flags |= next->flags & SEG_FIN;
        if (!(next->flags & SEG_TOO_LONG))
            seg->flags &= (uint8_t)~SEG_TOO_LONG;
        seg->rexmits = seg->rexmits > next->rexmits ? seg->rexmits : next->rexmits;
        seg->next = next->next;
        if (c->fl->seg_tail == next)
            c->fl->seg_tail = seg;
        tcp_segment_free(c, next);
    }
}

static void emit_again(struct tcp_conn *c, struct segment *seg, uint32_t mss)
{
    uint32_t len = seg->len - (seg->flags & SEG_FIN ? 1 : 0), held = len;
    uint8_t flags =
        (seg->flags & SEG_FIN ? TCP_FIN : 0) | (len > 0 && seg->seq + len == c->snd_end ? TCP_PSH : 0);
    struct iovec iov[PAYLOAD_RANGES];
    int n = len > 0 ? tcp_send_ranges(seg->block, seg->seq, &held, iov, PAYLOAD_RANGES) : 0;

    if (held < len) { /* too many chunks for one packet: whole segments of what fits */
        if (held > mss)
            held -= held % mss;
        if (tcp_segment_split(c, seg, held))
            flags = 0;
        else
            return;
        n = tcp_send_ranges(seg->block, seg->seq, &held, iov, PAYLOAD_RANGES);
    }
    tcp_emit_data(c, seg->seq, flags, iov, n, held, mss);
    if (!(seg->flags & SEG_RETRANS))
        c->fl->retrans += seg->len;
    seg->flags |= SEG_RETRANS;
    seg->tx_us = now_us32(c->s);
    seg->mss = (uint16_t)mss;
    if (seg->rexmits < UINT8_MAX)
        seg->rexmits++;
    tcp_loss_sent(c, seg->len);
    tcp_loss_repeated(c, seg);
}

static void count_again(struct tcp_conn *c, const struct segment *seg)
{
    if (seg->flags & SEG_TOO_LONG)
        COUNT(c->s, tcp_rexmit_mtu);
    else if (c->flags & CONN_LOSS)
        COUNT(c->s, tcp_rexmit_rto);
    else if (c->flags & CONN_SACK)
        COUNT(c->s, tcp_rexmit_rack);
    else
        COUNT(c->s, tcp_rexmit_fast);
}

/* What did not fit the path is on its way now, as if for the first time. */
static void no_longer_too_long(struct tcp_conn *c, struct segment *seg)
{
    if ((seg->flags & (SEG_TOO_LONG | SEG_RETRANS)) != (SEG_TOO_LONG | SEG_RETRANS))
        return;
    c->fl->lost -= seg->len;
    c->fl->retrans -= seg->len;
    seg->flags &= (uint8_t) ~(SEG_LOST | SEG_RETRANS | SEG_TOO_LONG);
}

/* Beyond a window that shrank nothing is repeated, but the first segment is, in place of a probe (SND-3). */
static bool may_repeat(const struct tcp_conn *c, const struct segment *seg)
{
    return seg == c->fl->seg_head || seq_lt(seg->seq, c->snd_una + c->snd_wnd);
}

/* Return: true when the turn is over and there is more. */
static bool send_lost(struct tcp_conn *c, uint32_t *turn)
{
    uint32_t mss = tcp_emit_mss(c), most;

    if (c->rec != NULL && c->rec->frto == FRTO_SECOND) /* new data first: its ACKs will tell */
        return false;
    for (struct segment *seg = c->fl->seg_head; seg != NULL && c->fl->lost > 0; seg = seg->next) {
        uint32_t left = cwnd_left(c, mss);

        if ((seg->flags & (SEG_LOST | SEG_RETRANS)) != SEG_LOST || !may_repeat(c, seg))
            continue;
        if (left < min_u32(mss, seg->len))
            break;
        if (*turn == 0)
            return true;
        most = min_u32(largest_packet(c, mss), max_u32(left / mss, 1) * mss);
        merge_lost(c, seg, most);
        if (seg->len - (seg->flags & SEG_FIN ? 1 : 0) > most && !tcp_segment_split(c, seg, most))
            break;
        emit_again(c, seg, mss);
        count_again(c, seg);
        no_longer_too_long(c, seg);
        if (seg == c->fl->seg_head)
            c->flags |= CONN_RESTART;
        *turn -= min_u32(*turn, seg->len);
    }
    return false;
}

/* TLP, RFC 8985 section 7.3: the last segment once more, whatever cwnd says. */
static void send_probe_again(struct tcp_conn *c)
{
    if (c->fl->seg_tail != NULL && !(c->fl->seg_tail->flags & SEG_SACKED))
        emit_again(c, c->fl->seg_tail, tcp_emit_mss(c));
}

/* ---- new --------------------------------------------------------------------------------------------- */

/* Sender's silly-window avoidance (SND-1). Return: payload bytes of the next packet, 0: none now. */
static uint32_t next_packet(struct tcp_conn *c, uint32_t queued, uint32_t mss)
{
    uint32_t window = send_window_left(c), cwnd = cwnd_left(c, mss);
    uint32_t n = min_u32(min_u32(queued, window), cwnd);

    if (cwnd < queued && cwnd <= window)
        c->flags |= CONN_CWND_LIMITED;
    if (n < queued && n < mss) {
        if (cwnd < window) /* ACKs will come */
            return 0;
        return n > 0 && (n >= c->snd_wnd_max / 2 || (c->flags & CONN_PROBING)) ? n : 0;
    }
    n = min_u32(n, largest_packet(c, mss));
    return n < queued ? n - n % mss : n;
}

static void list_segment(struct tcp_conn *c, struct segment *seg)
{
    if (c->fl->seg_head == NULL) {
        c->fl->seg_head = seg;
        c->progress_ms = now_ms(c->s);
        c->flags |= CONN_RESTART;
    } else {
        c->fl->seg_tail->next = seg;
    }
    c->fl->seg_tail = seg;
    if ((c->flags & CONN_SACK) && !(c->flags & (CONN_RECOVERY | CONN_LOSS | CONN_TLP_OUT)))
        c->flags |= CONN_RESTART; /* the loss probe waits from the last transmission on */
}

/* One packet of @len bytes from snd_nxt, with our FIN if it is next. Return: false: no memory. */
static bool send_packet(struct tcp_conn *c, uint32_t len, uint32_t mss)
{
    struct block *from = tcp_block_at(
        c->fl->seg_tail != NULL && c->fl->seg_tail->block != NULL ? c->fl->seg_tail->block : c->snd_head,
        c->snd_nxt);
    struct segment *seg = tcp_segment_new(c);
    struct iovec iov[PAYLOAD_RANGES];
    uint32_t held = len;
    uint8_t flags = 0;
    int n = 0;

    if (seg == NULL)
        return false;
    if (len > 0)
        n = tcp_send_ranges(from, c->snd_nxt, &held, iov, PAYLOAD_RANGES);
    if (held < len && held > mss && held % mss != 0) {
        held -= held % mss;
        n = tcp_send_ranges(from, c->snd_nxt, &held, iov, PAYLOAD_RANGES);
    }
    *seg = (struct segment){ .block = held > 0 ? from : NULL,
                             .seq = c->snd_nxt,
                             .len = held,
                             .tx_us = now_us32(c->s),
                             .mss = (uint16_t)mss };
    if (c->snd_nxt + held == c->snd_end) {
        flags = held > 0 ? TCP_PSH : 0; /* SND-2; a bare FIN has nothing to push */
        if (c->flags & CONN_FIN_QUEUED) {
            flags |= TCP_FIN;
            seg->flags = SEG_FIN;
            seg->len++;
            c->flags |= CONN_FIN_SENT;
        }
    }
    tcp_emit_data(c, c->snd_nxt, flags, iov, n, held, mss);
    c->snd_nxt += seg->len;
    list_segment(c, seg);
    tcp_loss_sent(c, seg->len);
    return true;
}

static void fin_sent(struct tcp_conn *c)
{
    if (c->state == TCPS_ESTABLISHED)
        c->state = TCPS_FIN_WAIT_1;
    else if (c->state == TCPS_CLOSE_WAIT)
        c->state = TCPS_LAST_ACK;
}

static void idle_restart(struct tcp_conn *c) /* CC-3 */
{
    if (tcp_knob(c, TCP_OPT_RESTART_AFTER_IDLE) && c->fl->seg_head == NULL && c->snd_nxt != c->snd_end &&
        (uint64_t)(now_ms(c->s) - c->progress_ms) * 1000 > tcp_rto_us(c))
        tcp_cc_restart(c);
}

/* Memory is out. With nothing on its way no ACK will bring us back here, and a FIN alone has no other timer. */
static void retry_soon(struct tcp_conn *c)
{
    if (c->fl->seg_head != NULL)
        return;
    c->flags |= CONN_STARVED;
    tcp_timer_set(c, TIMER_ACK, NO_MEMORY_RETRY_US);
}

static bool send_new(struct tcp_conn *c, uint32_t *turn)
{
    uint32_t mss = tcp_emit_mss(c);

    if (c->flags & CONN_FIN_SENT)
        return false;
    idle_restart(c);
    for (;;) {
        uint32_t queued = c->snd_end - c->snd_nxt, len = 0;

        if (queued == 0 && !(c->flags & CONN_FIN_QUEUED))
            return false;
        if (queued > 0 && (len = next_packet(c, queued, mss)) == 0)
            return false;
        if (*turn == 0)
            return true;
        if (!send_packet(c, len, mss)) {
            retry_soon(c);
            return false;
        }
        *turn -= min_u32(*turn, max_u32(len, 1));
        c->flags &= ~(uint32_t)CONN_TLP_SEND;
        mss = tcp_emit_mss(c); /* the first packet may have settled a DSACK */
        if (c->flags & CONN_FIN_SENT) {
            fin_sent(c);
            return false;
        }
    }
}

/* ---- all of it --------------------------------------------------------------------------------------- */

static bool output_synack(struct tcp_conn *c)
{
    if (c->flags & CONN_SYNACK_DUE) {
        tcp_emit_synack(c, tcp_tsval(c));
        if (!(c->timers & TIMER_REXMIT)) {
            c->rexmit_kind = REXMIT_RTO;
            tcp_timer_set(c, TIMER_REXMIT, tcp_rto_us(c));
        }
    } else if (c->flags & CONN_ACK_NOW) {
        tcp_emit_ack(c);
    }
    return false;
}

/* At most *turn bytes. Return: true when there is more for another turn. */
static bool output(struct tcp_conn *c, uint32_t *turn)
{
    bool probe = (c->flags & CONN_TLP_SEND) != 0, more;

    if (c->pmtu_learned)
        tcp_pmtu_refresh(c); /* it may have been forgotten meanwhile */
    if (c->flags & CONN_LOSS_CHECK)
        tcp_loss_detect(c);
    if ((c->flags & (CONN_TLP_SEND | CONN_TLP_REXMIT)) == (CONN_TLP_SEND | CONN_TLP_REXMIT)) {
        c->flags &= ~(uint32_t)CONN_TLP_SEND;
        send_probe_again(c);
    }
    more = c->fl->lost > 0 && send_lost(c, turn);
    if (!more)
        more = send_new(c, turn);
    if (probe)
        c->recover = c->snd_nxt;
    c->flags &= ~(uint32_t)CONN_TLP_SEND;
    tcp_cc_sent(c);
    if ((c->flags & CONN_ACK_NOW) || tcp_recv_update_due(c))
        tcp_emit_ack(c);
    else if (c->segs_unacked > 0 && !(c->timers & TIMER_ACK))
        tcp_timer_set(c, TIMER_ACK, tcp_knob(c, TCP_OPT_DELAYED_ACK_US));
    tcp_timer_rexmit(c);
    return more;
}

bool tcp_output(struct tcp_conn *c)
{
    uint32_t turn = TURN_BYTES;

    return c->state == TCPS_SYN_RECEIVED ? output_synack(c) : output(c, &turn);
}

/* Whole packets of the largest size need not wait for the end of the batch: nothing can be added to them, and
 * what was just received is still in the cache. Everything else waits (BAT-2), and so does a connection that
 * has had its turn, until another one or the end of the batch comes between (BAT-3). */
void tcp_output_full(struct tcp_conn *c)
{
    uint32_t full = largest_packet(c, tcp_emit_mss(c));
    struct tcp_shard *t = c->s->tcp;

    if (c->state == TCPS_SYN_RECEIVED || c->snd_end - c->snd_nxt < full || tcp_sendable(c) < full)
        return;
    if (t->turn_of != c)
        t->turn_left = TURN_BYTES;
    t->turn_of = c;
    if (t->turn_left == 0)
        return;
    output(c, &t->turn_left);
    tcp_check(c);
}
