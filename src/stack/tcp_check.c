/* tcp_check.c - what always holds of a connection, asserted after every core call in debug builds (TST-2). */
#include "tcp_impl.h"

#ifndef NDEBUG

static void check_segments(const struct tcp_conn *c)
{
    uint32_t at = c->snd_una, sacked = 0, lost = 0, retrans = 0, count = 0;

    for (const struct segment *s = c->seg_head; s != NULL; s = s->next) {
        assert(s->seq == at && s->len > 0);
        assert(s->next != NULL || s == c->seg_tail);
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
    assert(sacked == c->sacked && lost == c->lost && retrans == c->retrans);
    assert(count == c->segments && (count == 0) == (c->seg_tail == NULL || c->seg_head == NULL));
}

static void check_send_queue(const struct tcp_conn *c)
{
    uint32_t fin = c->flags & CONN_FIN_SENT ? 1 : 0, end = c->snd_end;

    assert(seq_le(c->snd_una, c->snd_nxt) && seq_le(c->snd_nxt, c->snd_end + fin));
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

static void check_timers(const struct tcp_conn *c)
{
    assert(c->timers == 0 || wheel_is_set(&c->timer));
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
}

#endif
