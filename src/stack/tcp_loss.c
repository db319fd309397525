/* tcp_loss.c - what was lost, and what that means for the rate.
 *
 * How it works: ACKs only update the scoreboard; once a batch tcp_loss_detect() looks at it. With SACK, a
 * segment is lost when something sent later has arrived and a reordering window has passed since (RACK, RFC
 * 8985 section 6); a tail is probed (TLP, section 7). Without SACK, three duplicate ACKs or a partial ACK
 * tell (RFC 5681 section 3.2, RFC 6582 section 3.2). In fast recovery cwnd follows what is delivered (PRR,
 * RFC 9937); after a timeout it starts from one segment. What turns out to have been late and not lost (by
 * timestamps, F-RTO or DSACKs) gets back the rate that it cost. */
#include "tcp_impl.h"

#define DUP_THRESH 3

uint32_t tcp_pipe(const struct tcp_conn *c)
{
    uint32_t flight = c->snd_nxt - c->snd_una + c->fl->retrans, gone = c->fl->sacked + c->fl->lost;

    if (!(c->flags & CONN_SACK))
        gone += (uint32_t)c->dupacks * c->mss; /* each says that one segment has left the network */
    return flight > gone ? flight - gone : 0;
}

static void mark_lost(struct tcp_conn *c, struct segment *seg)
{
    if (seg->flags & SEG_RETRANS)
        c->fl->retrans -= seg->len;
    if (!(seg->flags & SEG_LOST))
        c->fl->lost += seg->len;
    seg->flags = (uint8_t)((seg->flags & ~(SEG_RETRANS | SEG_TOO_LONG)) | SEG_LOST);
    c->loss_news |= LOSS_NEW;
}

/* ---- entering and leaving ---------------------------------------------------------------------------- */

/* What a reduction takes is kept until it is known to have been needed. Return: NULL: no memory. */
static struct recovery *begin_episode(struct tcp_conn *c)
{
    struct recovery *rec = c->rec;

    if (rec != NULL && !rec->over) /* a timeout in recovery: what was before that counts */
        return rec;
    if (rec == NULL)
        rec = pool_get(&c->s->tcp->recoveries);
    if (rec == NULL)
        COUNT(c->s, tcp_no_memory);
    else
        *rec =
            (struct recovery){ .cwnd = c->cwnd, .ssthresh = c->ssthresh, .cc = c->cc, .start = c->snd_una };
    c->rec = rec;
    return rec;
}

/* Without memory for PRR's state cwnd falls to ssthresh at once. */
static void enter_recovery(struct tcp_conn *c)
{
    struct recovery *rec = begin_episode(c);

    c->flags = (c->flags & ~(uint32_t)CONN_TLP_OUT) | CONN_RECOVERY;
    c->ssthresh = c->s->tcp->cc->reduce(c, false);
    c->recover = c->snd_nxt;
    if (rec == NULL) {
        c->cwnd = c->ssthresh;
        return;
    }
    rec->flight = max_u32(c->snd_nxt - c->snd_una - c->fl->sacked + c->fl->delivered, c->mss);
}

static void drop_record(struct tcp_conn *c)
{
    if (c->rec != NULL)
        pool_put(&c->s->tcp->recoveries, c->rec);
    c->rec = NULL;
}

/* What was repeated may still be reported as needless, for another round trip. */
static void leave_recovery(struct tcp_conn *c)
{
    if (c->flags & CONN_RECOVERY)
        c->cwnd = c->ssthresh;
    c->flags &= ~(uint32_t)(CONN_RECOVERY | CONN_LOSS);
    c->dupacks = 0;
    if (c->reo_persist > 0 && --c->reo_persist == 0)
        c->reo_mult = 1;
    if (c->rec == NULL)
        return;
    c->rec->over = true;
    c->rec->until = c->snd_nxt;
    c->rec->frto = FRTO_OFF;
    if (!(c->flags & CONN_SACK) || !c->rec->again)
        drop_record(c);
}

void tcp_loss_acked(struct tcp_conn *c, uint32_t acked, uint32_t delivered)
{
    if (delivered > 0)
        c->fl->delivered += delivered;
    if (acked == 0)
        return;
    c->loss_news |= LOSS_ADVANCED;
    if ((c->flags & (CONN_RECOVERY | CONN_LOSS)) && seq_le(c->recover, c->snd_una))
        leave_recovery(c);
    if (c->rec != NULL && c->rec->over && seq_le(c->rec->until, c->snd_una))
        drop_record(c);
    c->recover = seq_max(c->recover, c->snd_una); /* never far behind: numbers wrap */
    if (!(c->flags & CONN_RECOVERY))
        tcp_cc_acked(c, acked);
}

/* ---- it was needless --------------------------------------------------------------------------------- */

/* What we took for lost was only late (RFC 4015): everything as it was, and the rate too. */
static void undo(struct tcp_conn *c)
{
    const struct recovery *rec = c->rec;

    COUNT(c->s, tcp_undone);
    c->cwnd = max_u32(c->cwnd, rec->cwnd);
    c->ssthresh = rec->ssthresh;
    c->cc = rec->cc;
    c->backoff = 0;
    tcp_pmtu_refresh(c); /* no black hole, either */
    if (!rec->over && c->fl->seg_head != NULL) {
        for (struct segment *seg = c->fl->seg_head; seg != NULL; seg = seg->next)
            seg->flags &= (uint8_t) ~(SEG_LOST | SEG_RETRANS | SEG_TOO_LONG);
        c->fl->lost = c->fl->retrans = 0;
        c->fl->rack_tx_us = c->fl->seg_head->tx_us;
        c->fl->rack_end = c->snd_una; /* what arrived late is no measure of what is missing */
    }
    c->flags = (c->flags & ~(uint32_t)(CONN_RECOVERY | CONN_LOSS)) | CONN_RESTART;
    c->dupacks = 0;
    drop_record(c);
}

/* RFC 3522: the first ACK that advances answers the original, not what we sent again. */
static bool answers_the_original(struct tcp_conn *c, const struct tcp_seg *seg)
{
    struct recovery *rec = c->rec;

    if (!rec->again || rec->judged || !(c->flags & CONN_TS) || !seg->opt.has_ts)
        return false;
    rec->judged = true;
    return seg->opt.tsecr != 0 && seq_lt(seg->opt.tsecr, rec->tsval);
}

static bool has_new_data(const struct tcp_conn *c)
{
    return c->snd_end != c->snd_nxt && !(c->flags & CONN_FIN_SENT) &&
           seq_lt(c->snd_nxt, c->snd_una + c->snd_wnd);
}

/* RFC 5682 section 3.1, with SACK: the first ACK lets new data leave instead of old; if the next one brings
 * what was never repeated, nothing was lost. */
static bool frto_says_spurious(struct tcp_conn *c, uint32_t acked)
{
    struct recovery *rec = c->rec;

    switch ((enum frto)rec->frto) {
    case FRTO_OFF:
        break;
    case FRTO_FIRST:
        rec->frto = acked > 0 && seq_lt(c->snd_una, c->recover) && has_new_data(c) ? FRTO_SECOND : FRTO_OFF;
        break;
    case FRTO_SECOND:
        rec->frto = FRTO_OFF;
        return rec->original;
    }
    return false;
}

void tcp_loss_judge(struct tcp_conn *c, const struct tcp_seg *seg, uint32_t acked)
{
    bool spurious;

    if (c->rec == NULL || c->rec->over)
        return;
    spurious = acked > 0 && answers_the_original(c, seg);
    if (!spurious && (c->flags & CONN_LOSS))
        spurious = frto_says_spurious(c, acked);
    c->rec->original = false;
    if (spurious)
        undo(c);
}

void tcp_loss_repeated(struct tcp_conn *c, const struct segment *seg)
{
    struct recovery *rec = c->rec;

    if (rec == NULL || rec->over)
        return;
    if (!rec->again)
        rec->tsval = tcp_tsval(c);
    rec->again = true;
    rec->repeated += seg->len;
}

/* RFC 3708: when all that was repeated came twice, nothing was lost. */
void tcp_loss_dsack(struct tcp_conn *c, const struct tcp_sack *b)
{
    struct recovery *rec = c->rec;

    if (rec == NULL || !rec->again || seq_lt(b->start, rec->start) || seq_lt(c->recover, b->end))
        return;
    rec->repeated -= min_u32(rec->repeated, b->end - b->start);
    if (rec->repeated == 0)
        undo(c);
}

/* ---- detection --------------------------------------------------------------------------------------- */

static uint32_t reorder_window(const struct tcp_conn *c) /* RFC 8985 section 6.2, step 4 */
{
    uint64_t window = (uint64_t)c->reo_mult * c->min_rtt_us / 4;

    if (!(c->flags & CONN_REORDER) &&
        ((c->flags & (CONN_RECOVERY | CONN_LOSS)) || c->fl->sacked >= DUP_THRESH * (uint32_t)c->mss))
        return 0;
    return (uint32_t)(window < c->srtt_us ? window : c->srtt_us);
}

static bool sent_before_newest(const struct tcp_conn *c, const struct segment *seg)
{
    uint32_t end = seg->seq + seg->len;

    return seq_lt(seg->tx_us, c->fl->rack_tx_us) ||
           (seg->tx_us == c->fl->rack_tx_us && seq_lt(end, c->fl->rack_end));
}

/* Segments that were sent once are in order of time, so the walk ends at the first of them that is newer than
 * the newest delivery. Return: microseconds until the next one has to be looked at again; 0: none. */
static uint32_t rack_detect(struct tcp_conn *c)
{
    uint32_t wait = c->fl->rack_rtt_us + reorder_window(c), longest = 0;

    for (struct segment *seg = c->fl->seg_head; seg != NULL; seg = seg->next) {
        int32_t left;

        if ((seg->flags & SEG_SACKED) || (seg->flags & (SEG_LOST | SEG_RETRANS)) == SEG_LOST)
            continue;
        if (!sent_before_newest(c, seg)) {
            if (seg->rexmits == 0)
                break;
            continue;
        }
        left = (int32_t)(seg->tx_us + wait - now_us32(c->s));
        if (left <= 0)
            mark_lost(c, seg);
        else
            longest = max_u32(longest, (uint32_t)left);
    }
    return longest;
}

/* The first segment that is missing, one MSS of it, for clients without SACK. */
static void newreno_mark_head(struct tcp_conn *c)
{
    struct segment *seg = c->fl->seg_head;

    if (seg == NULL || (seg->flags & SEG_LOST))
        return;
    if (seg->len > seg->mss)
        tcp_segment_split(c, seg, seg->mss);
    mark_lost(c, seg);
}

static void newreno_detect(struct tcp_conn *c)
{
    if (c->flags & CONN_RECOVERY) {
        if (c->loss_news & LOSS_ADVANCED) /* a partial ACK: the next hole (RFC 6582 section 3.2) */
            newreno_mark_head(c);
    } else if (!(c->flags & CONN_LOSS) && c->dupacks >= DUP_THRESH && seq_le(c->recover, c->snd_una)) {
        newreno_mark_head(c);
    }
}

/* PRR, RFC 9937 section 6: as much may leave as was delivered, scaled down to reach ssthresh when the window
 * is over. */
static void prr_update(struct tcp_conn *c)
{
    struct recovery *r = c->rec;
    uint32_t pipe = tcp_pipe(c), send, limit;

    r->prr_delivered += c->fl->delivered;
    if (pipe > c->ssthresh) {
        uint64_t want = ((uint64_t)r->prr_delivered * c->ssthresh + r->flight - 1) / r->flight;

        send = want > r->prr_out ? (uint32_t)want - r->prr_out : 0;
    } else {
        limit = max_u32(r->prr_delivered > r->prr_out ? r->prr_delivered - r->prr_out : 0, c->fl->delivered);
        if (c->loss_news == LOSS_ADVANCED)
            limit += c->mss;
        send = min_u32(c->ssthresh - pipe, limit);
    }
    if (r->prr_out == 0)
        send = max_u32(send, c->mss); /* the first retransmission leaves at once */
    c->cwnd = pipe + send;
}

void tcp_loss_sent(struct tcp_conn *c, uint32_t bytes)
{
    if (c->rec != NULL)
        c->rec->prr_out += bytes;
}

/* Is anything missing for another reason than the path MTU? Where nothing is marked this costs nothing. */
static bool is_loss(const struct tcp_conn *c)
{
    const struct segment *seg = c->fl->lost > 0 ? c->fl->seg_head : NULL;

    while (seg != NULL && (seg->flags & (SEG_LOST | SEG_TOO_LONG)) != SEG_LOST)
        seg = seg->next;
    return seg != NULL;
}

void tcp_loss_detect(struct tcp_conn *c)
{
    uint32_t wait_us = 0;

    c->flags &= ~(uint32_t)CONN_LOSS_CHECK;
    if (c->fl->seg_head == NULL) {
        c->loss_news = 0;
        tcp_flight_end(c);
        return;
    }
    if (c->flags & CONN_SACK)
        wait_us = rack_detect(c);
    else
        newreno_detect(c);
    if (!(c->flags & (CONN_RECOVERY | CONN_LOSS)) && is_loss(c))
        enter_recovery(c);
    if (c->rec != NULL && (c->flags & CONN_RECOVERY))
        prr_update(c);
    c->fl->delivered = c->loss_news = 0;
    /* What was delivered long ago and is reported now makes a long wait; the RTO comes first then, as by a timer of its own. */
    if (wait_us > 0 && wait_us < tcp_rto_us(c)) {
        c->rexmit_kind = REXMIT_REORDER;
        tcp_timer_set(c, TIMER_REXMIT, wait_us);
    } else if (c->rexmit_kind == REXMIT_REORDER) {
        c->rexmit_kind = REXMIT_RTO;
        c->flags |= CONN_RESTART;
    }
}

/* ---- time -------------------------------------------------------------------------------------------- */

/* RTO-2. A second timeout of the same data also forgets what SACK said: the client may have dropped it (RFC
 * 2018 section 8). */
void tcp_loss_timeout(struct tcp_conn *c)
{
    bool again = (c->flags & CONN_LOSS) && c->backoff > 0;
    struct recovery *rec = begin_episode(c);

    if (!(c->flags & (CONN_RECOVERY | CONN_LOSS)) || seq_le(c->recover, c->snd_una))
        c->ssthresh = c->s->tcp->cc->reduce(c, false);
    if (rec != NULL)
        rec->frto = (c->flags & CONN_SACK) && (!again || c->fl->sacked == 0) ? FRTO_FIRST : FRTO_OFF;
    c->flags = (c->flags & ~(uint32_t)(CONN_TLP_OUT | CONN_RECOVERY)) | CONN_LOSS;
    c->recover = c->snd_nxt;
    c->cwnd = c->mss;
    c->dupacks = 0;
    for (struct segment *seg = c->fl->seg_head; seg != NULL; seg = seg->next) {
        if (again && (seg->flags & SEG_SACKED)) {
            c->fl->sacked -= seg->len;
            seg->flags &= (uint8_t)~SEG_SACKED;
        }
        if (!(seg->flags & SEG_SACKED))
            mark_lost(c, seg);
    }
}

/* RFC 8985 section 7.3: something new if there is, else the last segment again. */
void tcp_loss_probe(struct tcp_conn *c)
{
    struct segment *seg = c->fl->seg_tail;
    bool fresh = c->snd_end != c->snd_nxt && !(c->flags & CONN_FIN_SENT) &&
                 c->snd_una + c->snd_wnd - c->snd_nxt >= min_u32(c->mss, c->snd_end - c->snd_nxt) &&
                 seq_lt(c->snd_nxt, c->snd_una + c->snd_wnd);

    COUNT(c->s, tcp_rexmit_tlp);
    c->flags = (c->flags & ~(uint32_t)CONN_TLP_REXMIT) | CONN_TLP_OUT | CONN_TLP_SEND;
    if (fresh)
        return;
    c->flags |= CONN_TLP_REXMIT;
    if (seg->len > seg->mss)
        tcp_segment_split(c, seg, (seg->len - 1) / seg->mss * seg->mss);
}

/* RFC 8985 section 7.4.2: was the probe needed? Then something was lost, and that counts as congestion. A client without DSACK says
 * that the probe came twice by a bare duplicate ACK. */
void tcp_loss_tlp_acked(struct tcp_conn *c, const struct tcp_seg *seg, bool twice)
{
    if (seq_lt(seg->ack, c->recover) && !(twice && seg->opt.sacks > 0 && seg->opt.sack[0].end == c->recover))
        return;
    if (!(c->flags & CONN_TLP_REXMIT) || twice) {
        c->flags &= ~(uint32_t)CONN_TLP_OUT;
    } else if (seq_lt(c->recover, seg->ack)) {
        c->flags &= ~(uint32_t)CONN_TLP_OUT;
        if (!(c->flags & (CONN_RECOVERY | CONN_LOSS)))
            c->cwnd = c->ssthresh = c->s->tcp->cc->reduce(c, false);
    }
}
