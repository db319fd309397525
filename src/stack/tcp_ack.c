/* tcp_ack.c - what the client has received: SND.UNA, the send window, the round-trip time (RFC 9293 section
 * 3.10.7.4, fifth; RFC 6298; RFC 7323 section 4). What it has not received is tcp_loss.c's concern. */
#include "tcp_impl.h"

#define SMALL_LOST_TOO                                                                                       \
    4 /* time-outs in a row: segments of the smallest size were lost as well, so it was not the size (MSS-3) */
#define MIN_RTT_SHIFT 18 /* 262 s: how long the shortest round trip counts (RFC 8985 section 6.2) */

void tcp_rtt_sample(struct tcp_conn *c, uint32_t rtt_us)
{
    uint32_t r = min_u32(max_u32(rtt_us, 1), RTO_MAX_US), off;

    if (c->min_rtt_us == 0 || r < c->min_rtt_us)
        c->min_rtt_us = r;
    else if (now_ms(c->s) >> MIN_RTT_SHIFT !=
             c->last_rx_ms >> MIN_RTT_SHIFT) /* the path may be another one */
        c->min_rtt_us = min_u32(r, 2 * c->min_rtt_us);
    if (c->srtt_us == 0) { /* RFC 6298 section 2.2 */
        c->srtt_us = r;
        c->rttvar_us = r / 2;
    } else {
        off = r > c->srtt_us ? r - c->srtt_us : c->srtt_us - r;
        c->rttvar_us = (uint32_t)((3ull * c->rttvar_us + off) / 4);
        c->srtt_us = max_u32((uint32_t)((7ull * c->srtt_us + r) / 8), 1);
    }
    tcp_cc_rtt(c, r);
}

uint32_t tcp_rto_us(const struct tcp_conn *c)
{
    uint64_t rto = RTO_INITIAL_US;

    if (c->srtt_us != 0)
        rto = (uint64_t)c->srtt_us + max_u32(4 * c->rttvar_us, RTO_VAR_FLOOR_US);
    else if ((c->flags & CONN_SYNACK_AGAIN) && c->state != TCPS_SYN_RECEIVED)
        rto = RTO_UNSURE_US;
    rto <<= c->backoff < 16 ? c->backoff : 16;
    return (uint32_t)(rto < RTO_MAX_US ? rto : RTO_MAX_US);
}

/* RFC 9293 section 3.10.7.4. SND.WL2 is not kept: an ACK below SND.UNA never comes here, and SND.WL2 is never
 * above it. */
static void update_window(struct tcp_conn *c, const struct tcp_seg *seg)
{
    if (seq_lt(seg->seq, c->snd_wl1))
        return;
    c->snd_wl1 = seg->seq;
    c->snd_wnd = (uint32_t)seg->wnd << c->snd_wscale;
    c->snd_wnd_max = max_u32(c->snd_wnd_max, c->snd_wnd);
}

/* @n bytes at the front of @seg are delivered; returns those that no SACK had reported. */
static uint32_t count_delivered(struct tcp_conn *c, const struct segment *seg, uint32_t n)
{
    if (seg->flags & SEG_LOST)
        c->fl->lost -= n;
    if (seg->flags & SEG_RETRANS)
        c->fl->retrans -= n;
    if (seg->flags & SEG_SACKED) {
        c->fl->sacked -= n;
        return 0;
    }
    return n;
}

static void segment_trim(struct segment *seg, uint32_t n)
{
    seg->seq += n;
    seg->len -= n;
    if (seg->block != NULL)
        seg->block = tcp_block_at(seg->block, seg->seq);
}

/* What one ACK says about the round-trip time. Nothing, when it covers a segment that was sent twice: which
 * one is answered is unknown (Karn), and what lies behind the hole that it filled has only waited at the
 * client. */
struct timing {
    bool measured, ambiguous;
    uint32_t tx_us; /* of the newest segment acknowledged */
};

/* Takes everything that @in acknowledges from the list. Return: bytes newly delivered. */
static uint32_t clean_segments(struct tcp_conn *c, const struct tcp_seg *in, struct timing *t)
{
    uint32_t delivered = 0, ack = in->ack, n;
    struct segment *seg;

    while ((seg = c->fl->seg_head) != NULL && seq_lt(seg->seq, ack)) {
        n = min_u32(seg->len, ack - seg->seq);
        t->ambiguous |= seg->rexmits > 0;
        if (!(seg->flags & SEG_SACKED)) {
            tcp_rack_delivered(c, seg, in);
            t->measured = true;
            t->tx_us = seg->tx_us;
        }
        delivered += count_delivered(c, seg, n);
        if (n < seg->len) {
            segment_trim(seg, n);
            break;
        }
        c->fl->seg_head = seg->next;
        if (c->fl->seg_head == NULL)
            c->fl->seg_tail = NULL;
        tcp_segment_free(c, seg);
    }
    return delivered;
}

/* RFC 7323 section 4.1: what the client echoes of our clock. An echo of what we have not yet said is no measurement. */
void tcp_rtt_echo(struct tcp_conn *c, uint32_t tsecr)
{
    uint32_t ago_ms = tcp_tsval(c) - tsecr;

    if (tsecr != 0 && ago_ms < RTO_MAX_US / 1000)
        tcp_rtt_sample(c, ago_ms * 1000);
}

static void take_sample(struct tcp_conn *c, const struct tcp_seg *seg, const struct timing *t)
{
    if (t->measured && !t->ambiguous)
        tcp_rtt_sample(c, now_us32(c->s) - t->tx_us);
    else if (c->flags & CONN_TS) /* RFC 7323 section 4.1 lifts Karn's restriction */
        tcp_rtt_echo(c, seg->opt.tsecr);
}

static uint32_t ack_advances(struct tcp_conn *c, const struct tcp_seg *seg)
{
    uint32_t acked = seg->ack - c->snd_una, delivered, payload = acked;
    struct timing timing = { 0 };

    c->snd_una = seg->ack;
    delivered = clean_segments(c, seg, &timing);
    take_sample(c, seg, &timing);
    tcp_send_acked(c);
    if (seq_lt(c->snd_end, seg->ack))
        payload--; /* the FIN */
    c->bytes_down += payload;
    COUNT_ADD(c->s, bytes_down, payload);
    if (c->backoff >= SMALL_LOST_TOO)
        tcp_pmtu_refresh(c);
    c->backoff = 0;
    c->probes = 0;
    c->progress_ms = now_ms(c->s);
    c->flags |= CONN_RESTART;
    return delivered;
}

/* RFC 5681 section 2: the definition of a duplicate ACK, but for what is outstanding. */
static bool is_duplicate_ack(const struct tcp_conn *c, const struct tcp_seg *seg)
{
    return seg->ack == c->snd_una && seg->len == 0 && !(seg->flags & TCP_FIN) &&
           (uint32_t)seg->wnd << c->snd_wscale == c->snd_wnd;
}

/* The client answers to probes: that is life, if not progress (ZWP-1). What it has thrown away because the window was
 * closed, a FIN for instance, does not wait for a timer that was backed off meanwhile. */
static void probe_answered(struct tcp_conn *c)
{
    uint32_t waiting = seq_max(c->snd_end, c->snd_nxt) - c->snd_una;

    c->progress_ms = now_ms(c->s);
    c->probes = 0;
    if (c->snd_wnd >= min_u32(c->mss, waiting)) {
        c->flags = (c->flags & ~(uint32_t)CONN_PROBING) | CONN_RESTART;
        c->backoff = 0;
    }
}

/* RFC 3168 section 6.1.2: once per window of data, so not for what left before the last reduction. */
static void ecn_echo(struct tcp_conn *c, uint32_t acked)
{
    if ((c->flags & (CONN_RECOVERY | CONN_LOSS)) || seq_lt(c->snd_una - acked, c->recover))
        return;
    c->ssthresh = c->s->tcp->cc->reduce(c, true);
    c->cwnd = c->ssthresh;
    c->recover = c->snd_nxt;
    c->flags |= CONN_CWR_DUE;
}

void tcp_ack_input(struct tcp_conn *c, const struct tcp_seg *seg)
{
    uint32_t acked = 0, delivered = 0;
    bool dsack = false, old = seq_lt(seg->ack, c->snd_una);
    bool again = is_duplicate_ack(c, seg);
    bool duplicate = again && !(c->flags & CONN_SACK) && c->fl->seg_head != NULL; /* REC-5 */

    if (!old) {
        update_window(c, seg);
        acked = seg->ack - c->snd_una;
        if (acked > 0)
            delivered = ack_advances(c, seg);
    }
    if ((c->flags & CONN_SACK) && seg->opt.sacks > 0)
        delivered += tcp_sack_input(c, seg, &dsack);
    if (acked > 0)
        c->dupacks = 0;
    else if (duplicate && c->dupacks < UINT8_MAX)
        c->dupacks++;
    if (c->flags & CONN_TLP_OUT)
        tcp_loss_tlp_acked(c, seg, dsack || (again && seg->opt.sacks == 0));
    if ((c->flags & CONN_ECN) && (seg->flags & TCP_ECE) && acked > 0)
        ecn_echo(c, acked);
    if (acked > 0 || delivered > 0 || duplicate) {
        c->flags |= CONN_LOSS_CHECK;
        tcp_loss_judge(c, seg, acked);
        tcp_loss_acked(c, acked, delivered);
    }
    if (c->flags & CONN_PROBING)
        probe_answered(c);
    tcp_wake_writer(c); /* the window may have opened, too */
}
