/* tcp_pressure.c - what gives way when packet memory runs short (tcp-stack.md LIM-1, LIM-2).
 *
 * From 60 % of the cap on, windows and send buffers stop growing (tcp_recv.c, tcp_send.c ask tcp_pressure()).
 * From 80 % on, a connection whose data waits gets a smaller window (tcp_recv.c) and what it holds is copied
 * out of large blocks that it fills only in part. From 95 % on, SYNs are swallowed and of the connections
 * that stand still the largest is reset, then others of its size, until 90 % are reached.
 *
 * Standing still means for a second: the embedder takes nothing of what is held for it, or the client takes
 * nothing of what is queued for it. */
#include "tcp_impl.h"

#define STALL_MS         1000u
#define RELIEF_EVERY_US  50000u
#define ORPHANS_EVERY_US 100000u

static size_t percent_of_cap(const struct stack *s, unsigned percent)
{
    return s->cfg.buffer_cap_bytes / 100 * percent;
}

enum tcp_pressure tcp_pressure(const struct stack *s)
{
    if (s->block_bytes < percent_of_cap(s, 60))
        return PRESSURE_NONE;
    if (s->block_bytes < percent_of_cap(s, 80))
        return PRESSURE_NO_GROWTH;
    return s->block_bytes < percent_of_cap(s, 95) ? PRESSURE_SHRINK : PRESSURE_REFUSE;
}

static size_t held_by(const struct tcp_conn *c)
{
    return c->rcv_held + (c->ooo != NULL ? c->ooo->bytes : 0) + tcp_tx_queued(c);
}

static bool stands_still(const struct tcp_conn *c)
{
    uint32_t now = now_ms(c->s);

    if (c->rcv_held > 0 && (uint32_t)c->bytes_up == c->rcv_round_mark && now - c->rcv_round_ms >= STALL_MS)
        return true;
    if (tcp_tx_queued(c) == 0)
        return false; /* and what has only just been queued has had no chance to move */
    return (c->flags & CONN_PROBING) || (c->fl->seg_head != NULL && now - c->progress_ms >= STALL_MS);
}

struct relief {
    struct tcp_conn *largest;
    size_t bytes, goal, freed;
};

static void inspect(struct tcp_conn *c, void *arg)
{
    struct relief *r = arg;
    size_t held = held_by(c);

    if (held == 0)
        return;
    if ((uint32_t)c->bytes_up != c->rcv_round_mark) { /* something was consumed: the second begins now */
        c->rcv_round_mark = (uint32_t)c->bytes_up;
        c->rcv_round_ms = now_ms(c->s);
    }
    tcp_recv_compact(c);
    if (held > r->bytes && stands_still(c)) {
        r->largest = c;
        r->bytes = held;
    }
}

static void give_up(struct tcp_conn *c, struct relief *r)
{
    COUNT(c->s, tcp_pressure_aborted);
    r->freed += held_by(c);
    tcp_conn_die(c, -ECONNABORTED, true);
}

static void give_up_if_large(struct tcp_conn *c, void *arg)
{
    struct relief *r = arg;

    if (r->freed < r->goal && held_by(c) >= r->bytes / 2 && stands_still(c))
        give_up(c, r);
}

void tcp_pressure_relieve(struct stack *s)
{
    struct tcp_shard *t = s->tcp;
    struct relief r = { 0 };

    if (tcp_pressure(s) < PRESSURE_SHRINK || s->now_us < t->relief_at_us)
        return;
    t->relief_at_us = s->now_us + RELIEF_EVERY_US;
    tcp_table_each_conn(t, inspect, &r);
    if (tcp_pressure(s) < PRESSURE_REFUSE || r.largest == NULL)
        return;
    r.goal = s->block_bytes - percent_of_cap(s, 90);
    give_up(r.largest, &r);
    tcp_table_each_conn(t, give_up_if_large, &r);
}

/* ---- orphans ----------------------------------------------------------------------------------------- */

static void find_orphan(struct tcp_conn *c, void *arg)
{
    struct tcp_conn **oldest = arg;

    if (!(c->flags & CONN_RELEASED))
        return;
    if (*oldest == NULL || seq_lt(c->last_rx_ms, (*oldest)->last_rx_ms))
        *oldest = c;
}

void tcp_orphan_make_room(struct stack *s)
{
    struct tcp_shard *t = s->tcp;
    struct tcp_conn *oldest = NULL;

    if (t->conns.slab.in_use < t->conns.slab.limit || s->now_us < t->orphan_at_us)
        return;
    tcp_table_each_conn(t, find_orphan, &oldest);
    if (oldest == NULL) {
        t->orphan_at_us =
            s->now_us + ORPHANS_EVERY_US; /* a walk through the table finds nothing new at once */
        return;
    }
    COUNT(s, tcp_orphan_ended);
    tcp_conn_die(oldest, -ETIMEDOUT, true);
}
