/* tcp_check.c - what always holds of a connection, asserted after every core call in debug builds (TST-2). */
#include "tcp_impl.h"

#ifndef NDEBUG

static void check_segments(const struct tcp_conn *c)
{
    uint32_t at = c->snd_una, sacked = 0, lost = 0, retrans = 0, count = 0;

    for (const struct segment *s = c->fl->seg_head; s != NULL; s = s->next) {
        assert(s->seq == at && s->len > 0);
        assert(s->next != NULL || s == c->fl->seg_tail);
        assert(!((s->flags & SEG_SACKED) && (s->flags & (SEG_LOST | SEG_RETRANS))));
        assert(s->block != NULL || s->len == 1);
        assert(s->block == NULL ||
               (seq_le(s->block->seq, s->seq) && seq_lt(s->seq, s->block->seq + s->block->fill)));
        sacked += s->flags & SEG_SACKED ? s->len : 0;
        lost += s->flags & SEG_LOST ? s->len : 0;
        retrans += s->flags & SEG_RETRANS ? s->len : 0;
        at += s->len;
        count++;
    }
    assert(c->state == TCPS_SYN_RECEIVED || at == c->snd_nxt);
    assert(sacked == c->fl->sacked && lost == c->fl->lost && retrans == c->fl->retrans);
    assert(count == c->segments && (count == 0) == (c->fl->seg_tail == NULL || c->fl->seg_head == NULL));
}

static void check_send_queue(const struct tcp_conn *c)
{
    uint32_t fin = c->flags & CONN_FIN_SENT ? 1 : 0, end = c->snd_end;

    assert(seq_le(c->snd_una, c->snd_nxt) && seq_le(c->snd_nxt, c->snd_end + fin));
    assert(c->state == TCPS_SYN_RECEIVED || c->snd_nxt - c->snd_una <= c->snd_wnd_max + fin);
    for (const struct block *b = c->snd_head; b != NULL; b = b->next) {
        assert(b->fill > 0 && b->fill <= b->bytes);
        assert(seq_lt(c->snd_una, b->seq + b->fill));
        assert(b->next == NULL ? b == c->snd_tail : b->next->seq == b->seq + b->fill);
        end = b->seq + b->fill;
    }
    assert(end == c->snd_end);
    if (c->snd_head != NULL && c->state != TCPS_SYN_RECEIVED)
        assert(seq_le(c->snd_head->seq, c->snd_una));
}

static void check_receive(const struct tcp_conn *c)
{
    uint32_t held = 0, bytes = 0, before = c->rcv_nxt;

    for (const struct piece *p = c->rcv.head; p != NULL; p = p->next) {
        assert(p->len > 0 && p->off + p->len <= p->block->bytes && p->block->refs > 0);
        assert(p->next != NULL || p == c->rcv.tail);
        held += p->len;
    }
    assert(held == c->rcv_held && seq_le(c->rcv_nxt, c->rcv_adv));
    for (uint32_t i = 0; c->ooo != NULL && i < c->ooo->count; i++) {
        const struct interval *iv = &c->ooo->iv[i];
        uint32_t sum = 0;

        assert(seq_lt(before, iv->start) && seq_lt(iv->start, iv->end));
        for (const struct piece *p = iv->pieces.head; p != NULL; p = p->next)
            sum += p->len;
        assert(sum == iv->end - iv->start);
        before = iv->end;
        bytes += sum;
    }
    assert(c->ooo == NULL || bytes == c->ooo->bytes);
}

/* The wheel's node stands at the earliest deadline or before it; what is overdue is due now. */
static void check_deadline(const struct tcp_conn *c, enum tcp_timer which, uint32_t at)
{
    uint32_t node = (uint32_t)(c->timer.deadline_us / 1000), now = now_ms(c->s);

    assert(!(c->timers & which) || seq_le(node, seq_lt(at, now) ? now : at));
}

static void check_timers(const struct tcp_conn *c)
{
    assert(c->timers == 0 || wheel_is_set(&c->timer));
    check_deadline(c, TIMER_REXMIT, c->rexmit_at);
    check_deadline(c, TIMER_ACK, c->ack_at);
    check_deadline(c, TIMER_LIFE, c->life_at);
}

void tcp_check(const struct tcp_conn *c)
{
    if (c->flags & CONN_DEAD)
        return;
    check_segments(c);
    check_send_queue(c);
    check_receive(c);
    check_timers(c);
    assert(c->rec == NULL || c->rec->over || (c->flags & (CONN_RECOVERY | CONN_LOSS)));
    assert(c->cwnd >= c->mss || (c->flags & CONN_RECOVERY));
    assert(c->rec == NULL || c->rec->frto == FRTO_OFF || (c->flags & CONN_LOSS));
}

/* Nobody is left, so nothing may be. */
void tcp_check_empty(const struct tcp_shard *t)
{
    assert(t->conns.slab.in_use == 0 && t->requests.slab.in_use == 0);
    assert(t->segments.slab.in_use == 0 && t->pieces.slab.in_use == 0 && t->flights.slab.in_use == 0);
    assert(t->ooo.slab.in_use == 0 && t->recoveries.slab.in_use == 0);
}

/* Every segment goes exactly one way (stack.h). */
void tcp_check_sum(const struct stack *s)
{
    const struct stack_counters *n = &s->cnt;

    assert(n->tcp_in == n->tcp_malformed + n->tcp_checksum + n->tcp_passed_on + n->tcp_unknown +
                            n->tcp_requests + n->tcp_syn_cookie + n->tcp_half_open_limit +
                            n->tcp_pressure_refused + n->tcp_rst_in + n->tcp_challenged + n->tcp_paws +
                            n->tcp_out_of_window + n->tcp_duplicate + n->tcp_bad_ack + n->tcp_acks_in +
                            n->tcp_data_in + n->tcp_ooo + n->tcp_ooo_dropped + n->tcp_after_fin +
                            n->tcp_unwanted + n->tcp_no_room);
    assert(n->tcp_rst_sent == n->tcp_rst_stranger + n->tcp_rst_refused + n->tcp_rst_aborted +
                                  n->tcp_rst_timeout + n->tcp_rst_pressure);
}

/* A connection acknowledges once a batch; many more is a conversation with itself. */
void tcp_check_acks(const struct stack *s, uint64_t before)
{
    assert(counter_read(&s->cnt.tcp_pure_acks) - before <= 100 + 2ull * s->tcp->conns.slab.in_use);
}

#endif
