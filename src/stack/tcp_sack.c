/* tcp_sack.c - the scoreboard: what was sent, as a list of segments, and what of it the client reports (RFC
 * 2018, RFC 2883).
 *
 * A segment of the list is what went out as one packet, up to 64 KiB. Reports split it, at multiples of the
 * MSS only, and at most 4,096 segments are kept (REC-1); a report that would need more is not used. */
#include "tcp_impl.h"

/* ---- flights and their segments ------------------------------------------------------------------------ */

static const struct flight no_flight; /* a write to it would be a fault at once */

struct flight *tcp_no_flight(void)
{
    return (struct flight *)(uintptr_t)&no_flight;
}

/* RACK has seen nothing of it yet: the first segment counts as the newest that was delivered up to its start. */
static bool flight_begin(struct tcp_conn *c)
{
    struct flight *fl;

    if (c->fl != &no_flight)
        return true;
    fl = pool_get(&c->s->tcp->flights);
    if (fl == NULL)
        return false;
    *fl = (struct flight){
        .rack_tx_us = now_us32(c->s), .rack_end = c->snd_nxt, .fack = c->snd_nxt, .round_end = c->snd_nxt
    };
    c->fl = fl;
    return true;
}

void tcp_flight_end(struct tcp_conn *c)
{
    if (c->fl == &no_flight)
        return;
    assert(c->fl->seg_head == NULL && !c->fl->first_used);
    pool_put(&c->s->tcp->flights, c->fl);
    c->fl = tcp_no_flight();
}

struct segment *tcp_segment_new(struct tcp_conn *c)
{
    struct segment *seg = NULL;

    if (c->segments >= SEGMENTS_PER_CONN) {
        COUNT(c->s, tcp_segment_limit);
        return NULL;
    }
    if (flight_begin(c))
        seg = c->fl->first_used ? pool_get(&c->s->tcp->segments) : &c->fl->first;
    if (seg == NULL) {
        COUNT(c->s, tcp_no_memory);
        return NULL;
    }
    c->fl->first_used |= seg == &c->fl->first;
    memset(seg, 0, sizeof(*seg));
    c->segments++;
    return seg;
}

void tcp_segment_free(struct tcp_conn *c, struct segment *seg)
{
    c->segments--;
    if (seg == &c->fl->first)
        c->fl->first_used = false;
    else
        pool_put(&c->s->tcp->segments, seg);
}

bool tcp_segment_split(struct tcp_conn *c, struct segment *seg, uint32_t len)
{
    struct segment *rest = tcp_segment_new(c);

    assert(len > 0 && len < seg->len);
    if (rest == NULL)
        return false;
    *rest = *seg;
    rest->seq = seg->seq + len;
    rest->len = seg->len - len;
    if (rest->block != NULL)
        rest->block = tcp_block_at(seg->block, rest->seq);
    seg->len = len;
    seg->flags &= (uint8_t)~SEG_FIN;
    seg->next = rest;
    if (c->fl->seg_tail == seg)
        c->fl->seg_tail = rest;
    return true;
}

struct block *tcp_block_at(struct block *b, uint32_t seq)
{
    while (b != NULL && seq_le(b->seq + b->fill, seq))
        b = b->next;
    return b;
}

/* Was one transmission made after another? Ends decide between parts of one packet (RFC 8985 section 5.1). */
static bool sent_after(uint32_t tx1, uint32_t end1, uint32_t tx2, uint32_t end2)
{
    return seq_lt(tx2, tx1) || (tx1 == tx2 && seq_lt(end2, end1));
}

/* The client's clock tells which transmission arrived; without one, a time below the shortest that was ever
 * seen does. */
static bool is_the_first_that_arrived(const struct tcp_conn *c, const struct segment *seg,
                                      const struct tcp_seg *in)
{
    uint32_t age_us = now_us32(c->s) - seg->tx_us;

    if (seg->rexmits == 0)
        return false;
    if ((c->flags & CONN_TS) && in->opt.has_ts && seq_lt(in->opt.tsecr, tcp_tsval(c) - age_us / 1000 - 1))
        return true;
    return age_us < c->min_rtt_us;
}

/* RFC 8985 section 6.2, steps 2 and 3. */
void tcp_rack_delivered(struct tcp_conn *c, const struct segment *seg, const struct tcp_seg *in)
{
    uint32_t end = seg->seq + seg->len, rtt = now_us32(c->s) - seg->tx_us;

    if (seq_lt(c->fl->fack, end))
        c->fl->fack = end;
    else if (seq_lt(end, c->fl->fack) && seg->rexmits == 0)
        c->flags |= CONN_REORDER;
    if (seg->rexmits == 0 && c->rec != NULL && seq_lt(seg->seq, c->recover))
        c->rec->original = true;
    if (is_the_first_that_arrived(c, seg, in))
        return;
    c->fl->rack_rtt_us = rtt;
    if (sent_after(seg->tx_us, end, c->fl->rack_tx_us, c->fl->rack_end)) {
        c->fl->rack_tx_us = seg->tx_us;
        c->fl->rack_end = end;
    }
}

static uint32_t mark_sacked(struct tcp_conn *c, struct segment *seg, const struct tcp_seg *in)
{
    if (seg->flags & SEG_LOST)
        c->fl->lost -= seg->len;
    if (seg->flags & SEG_RETRANS)
        c->fl->retrans -= seg->len;
    seg->flags = (uint8_t)((seg->flags & ~(SEG_LOST | SEG_RETRANS | SEG_TOO_LONG)) | SEG_SACKED);
    c->fl->sacked += seg->len;
    tcp_rack_delivered(c, seg, in);
    return seg->len;
}

/* Cuts [lo, hi) out of @seg, moved inwards to multiples of its MSS; NULL when nothing whole is left or memory
 * is out. */
static struct segment *cut_out(struct tcp_conn *c, struct segment *seg, uint32_t lo, uint32_t hi)
{
    uint32_t from = (lo - seg->seq + seg->mss - 1) / seg->mss * seg->mss;
    uint32_t to = hi - seg->seq == seg->len ? seg->len : (hi - seg->seq) / seg->mss * seg->mss;

    if (from >= to)
        return NULL;
    if (from > 0) {
        if (!tcp_segment_split(c, seg, from))
            return NULL;
        seg = seg->next;
        to -= from;
    }
    if (to < seg->len && !tcp_segment_split(c, seg, to))
        return NULL;
    return seg;
}

static uint32_t mark_range(struct tcp_conn *c, uint32_t start, uint32_t end, const struct tcp_seg *in)
{
    uint32_t delivered = 0;

    for (struct segment *seg = c->fl->seg_head; seg != NULL && seq_lt(seg->seq, end); seg = seg->next) {
        uint32_t seg_end = seg->seq + seg->len;
        struct segment *part;

        if ((seg->flags & SEG_SACKED) || seq_le(seg_end, start))
            continue;
        part = cut_out(c, seg, seq_max(start, seg->seq), seq_min(end, seg_end));
        if (part == NULL)
            continue;
        delivered += mark_sacked(c, part, in);
        seg = part;
    }
    return delivered;
}

/* RFC 2883 section 4: the first block lies below the ACK, or inside the second block. */
static bool is_dsack(const struct tcp_seg *seg)
{
    const struct tcp_sack *b = seg->opt.sack;

    if (!seq_lt(b[0].start, b[0].end))
        return false;
    if (seq_le(b[0].end, seg->ack))
        return true;
    return seg->opt.sacks > 1 && seq_le(b[1].start, b[0].start) && seq_le(b[0].end, b[1].end);
}

/* A needless retransmission: be more patient with reordering (RFC 8985 section 6.2, step 4), but not for data
 * that we never sent or that is long gone. */
static bool dsack_input(struct tcp_conn *c, const struct tcp_sack *b)
{
    if (seq_lt(c->snd_nxt, b->end) || seq_lt(b->start, c->snd_una - max_u32(c->snd_wnd_max, UINT16_MAX)))
        return false;
    if (!c->reo_grown && c->reo_mult < UINT8_MAX)
        c->reo_mult++;
    c->reo_grown = true; /* once a round */
    c->reo_persist = REO_PERSIST;
    COUNT(c->s, tcp_spurious);
    tcp_loss_dsack(c, b);
    return true;
}

uint32_t tcp_sack_input(struct tcp_conn *c, const struct tcp_seg *seg, bool *dsack)
{
    uint32_t delivered = 0, first = 0;

    if (is_dsack(seg)) {
        *dsack = dsack_input(c, &seg->opt.sack[0]);
        first = 1;
    }
    for (uint32_t i = first; i < seg->opt.sacks; i++) {
        const struct tcp_sack *b = &seg->opt.sack[i];

        if (!seq_lt(b->start, b->end) || seq_lt(c->snd_nxt, b->end) || seq_le(b->end, c->snd_una))
            continue; /* nothing that we sent */
        delivered += mark_range(c, b->start, b->end, seg);
    }
    return delivered;
}
