/* tcp_pressure.c - what gives way when packet memory runs short (tcp-stack.md LIM-1, LIM-2).
 *
 * From 60 % of the cap on, windows and send buffers stop growing (tcp_recv.c, tcp_send.c ask tcp_pressure()).
 * From 80 % on, a connection whose data waits gets a smaller window (tcp_recv.c) and what it holds, either way, is copied
 * out of large blocks that it fills only in part. From 95 % on, SYNs are swallowed and of the connections
 * that stand still the one that holds most for longest is reset, then others like it, until 90 % are reached.
 *
 * Standing still means for a second: the embedder takes nothing of what is held for it, or the client takes
 * nothing of what is queued for it. An embedder that may not take it yet (tcp_hold_back()) does not stand still as long as
 * there are others that do; if there are none, memory is worth more than its flow. */
#include "tcp_impl.h"

#define STALL_MS         1000u
#define STALL_LOSS_MS    3000u   /* where it may be loss as well: some retransmissions long */
#define STILL_MAX_MS     100000u /* keeps the product below 2^64 */
#define RELIEF_EVERY_US  50000u
#define ORPHANS_EVERY_US 100000u
#define ORPHANS_AT_ONCE  64u
#define ORPHANS_PART     256u /* of the limit, at most, in one go */

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

/* For how long, in ms; 0: it does not, or for less than STALL_MS. @all: those that are held back as well */
static uint32_t stands_still(const struct tcp_conn *c, bool all)
{
    uint32_t now = now_ms(c->s), still = 0;

    if (c->rcv_held > 0 && (all || !c->held_back) && (uint32_t)c->bytes_up == c->rcv_round_mark)
        still = now - c->rcv_round_ms;
    if (tcp_tx_queued(c) > 0 && (c->flags & CONN_PROBING))
        still = max_u32(still, max_u32(now - c->progress_ms, STALL_MS));
    else if (tcp_tx_queued(c) > 0 &&
             c->fl->seg_head != NULL) /* what has only just been queued has had no chance to move */
        still = max_u32(still, now - c->progress_ms > STALL_LOSS_MS ? now - c->progress_ms : 0);
    return still >= STALL_MS ? still : 0;
}

/* Who is given up first: who holds much, and above all for long. A client that loses a second in a crowd is not who filled the memory. */
static uint64_t burden(const struct tcp_conn *c, bool all)
{
    uint64_t still = min_u32(stands_still(c, all), STILL_MAX_MS);

    return held_by(c) * still * still;
}

struct relief {
    struct tcp_conn *heaviest;
    uint64_t most;
    size_t goal, freed;
    bool all; /* nobody else stands still */
};

static void weigh(struct tcp_conn *c, void *arg)
{
    struct relief *r = arg;
    uint64_t its = burden(c, r->all);

    if (its > r->most) {
        r->heaviest = c;
        r->most = its;
    }
}

static void inspect(struct tcp_conn *c, void *arg)
{
    if (held_by(c) == 0)
        return;
    if ((uint32_t)c->bytes_up != c->rcv_round_mark) { /* something was consumed: the second begins now */
        c->rcv_round_mark = (uint32_t)c->bytes_up;
        c->rcv_round_ms = now_ms(c->s);
    }
    tcp_recv_compact(c);
    tcp_send_compact(c);
    weigh(c, arg);
}

static void give_up(struct tcp_conn *c, struct relief *r)
{
    COUNT(c->s, tcp_pressure_aborted);
    r->freed += held_by(c);
    tcp_conn_die(c, -ECONNABORTED, RST_PRESSURE);
}

static void give_up_if_heavy(struct tcp_conn *c, void *arg)
{
    struct relief *r = arg;

    if (r->freed < r->goal && burden(c, r->all) >= r->most / 2)
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
    if (tcp_pressure(s) < PRESSURE_REFUSE)
        return;
    if (r.heaviest == NULL) {
        r.all = true;
        tcp_table_each_conn(t, weigh, &r);
    }
    if (r.heaviest == NULL)
        return;
    r.goal = s->block_bytes - percent_of_cap(s, 90);
    give_up(r.heaviest, &r);
    tcp_table_each_conn(t, give_up_if_heavy, &r);
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

struct ending {
    uint32_t idle_ms; /* who has been silent for as long goes */
    uint32_t most, ended;
};

static void end_orphan(struct tcp_conn *c, struct ending *e)
{
    COUNT(c->s, tcp_orphan_ended);
    e->ended++;
    tcp_conn_die(c, -ETIMEDOUT, RST_PRESSURE);
}

static void end_if_old(struct tcp_conn *c, void *arg)
{
    struct ending *e = arg;

    if ((c->flags & CONN_RELEASED) && e->ended < e->most && now_ms(c->s) - c->last_rx_ms >= e->idle_ms)
        end_orphan(c, e);
}

/* The oldest goes, and of large limits some others of its age, so that not every SYN of a crowd walks through the table. */
void tcp_orphan_make_room(struct stack *s)
{
    struct tcp_shard *t = s->tcp;
    struct tcp_conn *oldest = NULL;
    struct ending e = { .most = min_u32(t->conns.slab.limit / ORPHANS_PART, ORPHANS_AT_ONCE) };

    if (t->conns.slab.in_use < t->conns.slab.limit) {
        t->orphan_room = 0;
        return;
    }
    if (t->orphan_room > 0) { /* they have ended and are gone when the batch is over */
        t->orphan_room--;
        return;
    }
    if (s->now_us < t->orphan_at_us)
        return;
    tcp_table_each_conn(t, find_orphan, &oldest);
    if (oldest == NULL) {
        t->orphan_at_us =
            s->now_us + ORPHANS_EVERY_US; /* a walk through the table finds nothing new at once */
        return;
    }
    e.idle_ms = (now_ms(s) - oldest->last_rx_ms) / 2;
    end_orphan(oldest, &e);
    if (e.most > 1)
        tcp_table_each_conn(t, end_if_old, &e);
    t->orphan_room = e.ended - 1;
}
