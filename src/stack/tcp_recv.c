/* tcp_recv.c - the client's bytes: the receive queue, the window, FIN (RFC 9293 section 3.10.7.4, seventh and
 * eighth).
 *
 * In-order payload stays in the slot it was read into: the embedder usually consumes it within the batch, and
 * then nothing was copied. What stays behind after the callbacks is compacted when it is small (MEM-2); while
 * something is left over, small payloads are copied as they come. */
#include "tcp_impl.h"

#define ROUND_MIN_MS 1 /* receive autotuning on paths of microseconds */

/* Appends a copy; the last chunk is filled first. Return: bytes appended, less than @len when memory is
 * out. */
static uint32_t append_copy(struct tcp_conn *c, struct pieces *l, const uint8_t *data, uint32_t len)
{
    uint32_t done = 0;

    while (done < len) {
        struct piece *t = l->tail;
        struct block *b = t != NULL ? t->block : NULL;
        bool fresh =
                 b == NULL || b->class_ == BLOCK_SLOT || t->off + t->len != b->fill || b->fill == b->bytes,
             ok;
        uint32_t part;

        if (fresh) {
            b = block_get(c->s, tcp_copy_class(c->rcv_held + done));
            if (b == NULL) {
                COUNT(c->s, tcp_no_memory);
                break;
            }
            b->fill = 0;
        }
        part = min_u32(len - done, b->bytes - b->fill);
        ok = tcp_pieces_add(c->s, l, b, b->fill, part);
        if (ok) {
            payload_copy(c->s, block_data(b) + b->fill, data + done, part);
            b->fill += part;
            done += part;
        }
        if (fresh)
            block_put(c->s, b); /* the piece holds it now */
        if (!ok)
            break;
    }
    return done;
}

static uint32_t append(struct tcp_conn *c, const uint8_t *data, uint32_t len, struct block *slot)
{
    if (slot != NULL && (len >= COMPACT_BYTES || !(c->flags & CONN_BACKLOG)))
        return tcp_pieces_add(c->s, &c->rcv, slot, (uint32_t)(data - block_data(slot)), len) ? len : 0;
    return append_copy(c, &c->rcv, data, len);
}

/* Eighth: the client has said all. */
static void fin_received(struct tcp_conn *c)
{
    c->rcv_nxt++;
    c->rcv_adv =
        seq_max(c->rcv_adv, c->rcv_nxt); /* a FIN is taken with the window closed (RFC 9293 MUST-66) */
    c->flags |= CONN_FIN_RCVD | CONN_ACK_NOW | CONN_EV_READABLE;
    tcp_ooo_clear(c);
    switch ((enum tcps)c->state) {
    case TCPS_SYN_RECEIVED:
    case TCPS_ESTABLISHED:
        c->state = TCPS_CLOSE_WAIT;
        break;
    case TCPS_FIN_WAIT_1:
        c->state = TCPS_CLOSING;
        break;
    case TCPS_FIN_WAIT_2:
        c->state = TCPS_TIME_WAIT;
        tcp_timer_clear(c, TIMER_LIFE);
        break;
    case TCPS_CLOSING:
    case TCPS_TIME_WAIT:
    case TCPS_CLOSE_WAIT:
    case TCPS_LAST_ACK:
    case TCPS_CLOSED:
        break;
    }
}

/* ACK-1: when at once? The rest is the delayed-ACK timer's. */
static void count_for_ack(struct tcp_conn *c, const struct tcp_seg *seg, uint32_t taken)
{
    if ((uint64_t)(now_ms(c->s) - c->last_rx_ms) * 1000 > tcp_rto_us(c))
        c->quick_acks = (uint8_t)tcp_knob(c, TCP_OPT_QUICK_ACK_SEGMENTS);
    c->segs_unacked = (uint8_t)min_u32(c->segs_unacked + seg->count, UINT8_MAX);
    if (seg->mss > c->rcv_mss || c->rcv_mss == 0)
        c->rcv_mss = (uint16_t)min_u32(seg->mss, UINT16_MAX);
    if (c->quick_acks > 0 || c->segs_unacked >= 2 || taken >= 2u * c->rcv_mss)
        c->flags |= CONN_ACK_NOW;
    c->quick_acks = (uint8_t)(c->quick_acks - min_u32(c->quick_acks, seg->count));
    if (c->quick_acks == 0)
        c->careful = false;
}

/* What the client repeats was lost, or our ACK of it was. With one ACK a batch it has next to nothing to lose
 * where much is lost, and waits for its timer; so for the next segments there are more. */
void tcp_recv_careful(struct tcp_conn *c)
{
    c->quick_acks = (uint8_t)max_u32(c->quick_acks, tcp_knob(c, TCP_OPT_QUICK_ACK_SEGMENTS));
    c->careful = c->quick_acks > 0;
}

/* Not at the end of the batch but now: every second segment, and each that is out of order, which is what the
 * duplicate ACKs are made of that a client without SACK counts (RFC 5681 section 4.2). */
static void ack_while_careful(struct tcp_conn *c, bool ordered)
{
    if (ordered ? c->careful && c->segs_unacked >= 2 : c->careful || !(c->flags & CONN_SACK))
        tcp_emit_ack(c);
}

static void in_order(struct tcp_conn *c, const struct tcp_seg *seg, const uint8_t *data, uint32_t len)
{
    uint32_t taken = append(c, data, len, seg->slot);

    if (c->rcv_held == 0 && (uint32_t)c->bytes_up == c->rcv_round_mark)
        c->rcv_round_ms = now_ms(c->s); /* silence is no part of a round, and no standing still */
    c->rcv_nxt += taken;
    c->rcv_held += taken;
    if (taken > 0) {
        c->flags |= CONN_EV_READABLE;
        COUNT(c->s, tcp_data_in);
    } else {
        COUNT(c->s, tcp_no_room);
    }
    count_for_ack(c, seg, taken);
    if (c->ooo == NULL)
        return;
    tcp_recv_careful(c);
    if (tcp_ooo_join(c))
        fin_received(c);
}

/* Cuts what we have and what lies beyond the edge. Return: false when nothing is left. */
static bool trim(struct tcp_conn *c, uint32_t *seq, const uint8_t **data, uint32_t *len, bool *fin)
{
    uint32_t over;

    if (seq_lt(*seq, c->rcv_nxt)) {
        uint32_t old = min_u32(c->rcv_nxt - *seq, *len);

        if (old > 0 && !(c->flags & CONN_DSACK)) {
            c->flags |= CONN_DSACK;
            c->dsack_start = *seq;
            c->dsack_len = (uint16_t)min_u32(old, UINT16_MAX);
        }
        *seq += old;
        *data += old;
        *len -= old;
        c->flags |= CONN_ACK_NOW;
    }
    if (seq_lt(c->rcv_adv, *seq + *len)) { /* SEQ-4, WND-5: not a byte beyond what was advertised */
        over = *seq + *len - c->rcv_adv;
        *len -= min_u32(over, *len);
        *fin = false;
        c->flags |= CONN_ACK_NOW;
    }
    return *len > 0 || *fin;
}

/* A FIN that brings no byte, or whose bytes we had. */
static void count_bare_fin(struct tcp_conn *c, bool taken, bool ordered)
{
    if (!taken)
        COUNT(c->s, tcp_no_room);
    else if (ordered)
        COUNT(c->s, tcp_data_in);
    else
        COUNT(c->s, tcp_ooo);
}

/* @bare: the segment brings nothing else, so this decides what it is counted as. */
static void recv_fin(struct tcp_conn *c, uint32_t at, bool bare)
{
    bool ordered = c->rcv_nxt == at, taken = true;

    if (ordered) {
        fin_received(c);
    } else {
        c->flags |= CONN_ACK_NOW;
        taken = tcp_ooo_fin(c, at);
    }
    if (bare)
        count_bare_fin(c, taken, ordered);
}

void tcp_recv_data(struct tcp_conn *c, const struct tcp_seg *seg)
{
    uint32_t seq = seg->seq, len = seg->len;
    const uint8_t *data = seg->data;
    bool fin = (seg->flags & TCP_FIN) != 0, ordered = seq_le(seq, c->rcv_nxt);

    if (c->flags & (CONN_FIN_RCVD | CONN_DEAD)) { /* nothing can follow a FIN */
        COUNT(c->s, tcp_after_fin);
        return;
    }
    if (!trim(c, &seq, &data, &len, &fin)) {
        COUNT(c->s, tcp_out_of_window);
        return;
    }
    if (len > 0 && (c->flags & CONN_RELEASED)) { /* RFC 2525 section 2.17: nobody will ever read this */
        COUNT(c->s, tcp_unwanted);
        tcp_conn_die(c, -ECONNABORTED, RST_ABORTED);
        return;
    }
    if (seq == c->rcv_nxt && len > 0) {
        in_order(c, seg, data, len);
    } else if (len > 0) {
        c->flags |= CONN_ACK_NOW;
        tcp_ooo_add(c, seq, data, len, seg->slot);
    }
    if (len > 0)
        ack_while_careful(c, ordered);
    if (!fin || (c->flags & CONN_FIN_RCVD))
        return;
    recv_fin(c, seq + len, len == 0);
}

void tcp_recv_consume(struct tcp_conn *c, uint32_t n)
{
    assert(n <= c->rcv_held);
    tcp_pieces_skip(c->s, &c->rcv, n);
    c->rcv_held -= n;
    c->bytes_up += n;
    COUNT_ADD(c->s, bytes_up, n);
}

void tcp_recv_clear(struct tcp_conn *c)
{
    tcp_pieces_clear(c->s, &c->rcv);
    c->rcv_held = 0;
    tcp_ooo_clear(c);
}

/* ---- the window -------------------------------------------------------------------------------------- */

static uint32_t free_budget(const struct tcp_conn *c)
{
    uint32_t free = c->rcv_budget > c->rcv_held ? c->rcv_budget - c->rcv_held : 0;

    return min_u32(free, (uint32_t)UINT16_MAX << c->rcv_wscale);
}

static uint32_t worth_telling(const struct tcp_conn *c, uint32_t segments) /* receiver's SWS avoidance */
{
    return min_u32(c->rcv_budget / 2, segments * max_u32(c->rcv_mss, TCP_MSS_DEFAULT4));
}

/* The right edge never moves back (RFC 9293 SHLD-14), although the scaled field counts in steps: a window
 * that is no multiple is rounded up, as long as the edge so gained stays below one step over the budget; then
 * it is rounded down on the wire, and sequence_ok() still goes by rcv_adv (RFC 7323 section 2.4). */
uint32_t tcp_recv_window(const struct tcp_conn *c)
{
    uint32_t step = 1u << c->rcv_wscale, free = free_budget(c), kept = c->rcv_adv - c->rcv_nxt;
    uint32_t down = free & ~(step - 1), up = (kept + step - 1) & ~(step - 1);

    if (down > kept && down - kept >= worth_telling(c, 1))
        return down;
    if (up <= free + step - 1 || up == kept)
        return min_u32(up, (uint32_t)UINT16_MAX << c->rcv_wscale);
    return kept & ~(step - 1);
}

bool tcp_recv_update_due(const struct tcp_conn *c)
{
    uint32_t window = tcp_recv_window(c), kept = c->rcv_adv - c->rcv_nxt;

    if ((c->flags & CONN_FIN_RCVD) || window <= kept ||
        c->bytes_up == 0) /* the first data's ACK is soon enough */
        return false;
    return window - kept >= worth_telling(c, kept == 0 ? 1 : 2);
}

/* WND-4: what was consumed in one round-trip time says what the path carries. */
static void tune_budget(struct tcp_conn *c)
{
    const struct stack *s = c->s;
    uint32_t elapsed = now_ms(s) - c->rcv_round_ms, rtt = max_u32(c->srtt_us / 1000, ROUND_MIN_MS);
    uint32_t consumed = (uint32_t)c->bytes_up - c->rcv_round_mark;

    if (elapsed < rtt || (consumed == 0 && (c->flags & CONN_BACKLOG))) /* tcp_pressure.c counts from there */
        return;
    if ((uint64_t)consumed * rtt / elapsed >= c->rcv_budget / 2 && c->rcv_budget < s->cfg.rcv_budget_max &&
        tcp_pressure(s) == PRESSURE_NONE)
        c->rcv_budget = min_u32(c->rcv_budget * 2, s->cfg.rcv_budget_max);
    c->rcv_round_ms = now_ms(s);
    c->rcv_round_mark = (uint32_t)c->bytes_up;
}

/* A small remainder must not pin a slot. Without memory for the copy it does. */
static void compact_all(struct tcp_conn *c, uint32_t below)
{
    struct pieces old = c->rcv;
    struct piece *p;

    c->rcv = (struct pieces){ 0 };
    while ((p = old.head) != NULL) {
        uint32_t done = 0;

        old.head = p->next;
        p->next = NULL;
        if (p->block->class_ == BLOCK_SLOT && p->len < below)
            done = append_copy(c, &c->rcv, block_data(p->block) + p->off, p->len);
        p->off += done;
        p->len -= done;
        if (p->len == 0) {
            block_put(c->s, p->block);
            pool_put(&c->s->tcp->pieces, p);
            continue;
        }
        if (c->rcv.tail != NULL)
            c->rcv.tail->next = p;
        else
            c->rcv.head = p;
        c->rcv.tail = p;
    }
}

static bool head_needs_compaction(const struct tcp_conn *c)
{
    const struct piece *p = c->rcv.head;

    return p->block->class_ == BLOCK_SLOT && p->len < COMPACT_BYTES;
}

void tcp_recv_settle(struct tcp_conn *c)
{
    bool all = c->overlap || !(c->flags & CONN_BACKLOG);

    tune_budget(c);
    c->overlap = false;
    if (c->rcv_held == 0) {
        c->flags &= ~(uint32_t)CONN_BACKLOG;
        return;
    }
    if (all || head_needs_compaction(c))
        compact_all(c, COMPACT_BYTES);
    c->flags |= CONN_BACKLOG;
    if (tcp_pressure(c->s) >= PRESSURE_SHRINK && c->rcv_budget > BUDGET_PRESSED)
        c->rcv_budget = max_u32(c->rcv_budget / 2, BUDGET_PRESSED); /* tcp_recv_window() keeps the edge */
}

void tcp_recv_compact(struct tcp_conn *c)
{
    if (c->rcv_held > 0)
        compact_all(c, COMPACT_PRESSED);
}
