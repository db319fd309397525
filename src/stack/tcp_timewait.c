/* tcp_timewait.c - what is left of a connection that ended in order and whose last ACK may have been lost
 * (RFC 9293 section 3.6).
 *
 * A record of 64 bytes. All wait equally long, so they stand in one list by deadline, and one timer watches
 * its head; a FIN that comes again puts its record at the end. At the limit the oldest gives way. RST is
 * ignored (RFC 1337). */
#include "tcp_impl.h"

static struct tcp_tw *tw_at(struct tcp_shard *t, uint32_t index_1)
{
    return index_1 != 0 ? pool_at(&t->tws, index_1 - 1) : NULL;
}

static void tw_link(struct tcp_shard *t, struct tcp_tw *tw)
{
    uint32_t index_1 = pool_index(&t->tws, tw) + 1;
    struct tcp_tw *last = tw_at(t, t->tw_last);

    tw->prev = t->tw_last;
    tw->next = 0;
    if (last != NULL)
        last->next = index_1 & 0x7fffffff;
    else
        t->tw_first = index_1;
    t->tw_last = index_1;
}

static void tw_unlink(struct tcp_shard *t, struct tcp_tw *tw)
{
    struct tcp_tw *prev = tw_at(t, tw->prev), *next = tw_at(t, tw->next);

    if (prev != NULL)
        prev->next = tw->next;
    else
        t->tw_first = tw->next;
    if (next != NULL)
        next->prev = tw->prev;
    else
        t->tw_last = tw->prev;
}

static void tw_free(struct tcp_shard *t, struct tcp_tw *tw)
{
    tcp_table_remove(t, &tw->key);
    tw_unlink(t, tw);
    pool_put(&t->tws, tw);
}

static void tw_arm(struct tcp_shard *t)
{
    const struct tcp_tw *first = tw_at(t, t->tw_first);
    uint64_t ms = t->s->now_us / 1000;

    if (first != NULL && !wheel_is_set(&t->tw_timer))
        wheel_set(&t->s->wheel, &t->tw_timer, (ms + (uint32_t)(first->deadline_ms - (uint32_t)ms)) * 1000);
}

void tcp_tw_timer(struct wheel_timer *timer, uint64_t now_us)
{
    struct tcp_shard *t = CONTAINER_OF(timer, struct tcp_shard, tw_timer);
    struct tcp_tw *tw;

    t->s->now_us = now_us;
    while ((tw = tw_at(t, t->tw_first)) != NULL && (int32_t)(tw->deadline_ms - now_ms(t->s)) <= 0)
        tw_free(t, tw);
    tw_arm(t);
}

void tcp_tw_enter(struct tcp_conn *c)
{
    struct stack *s = c->s;
    struct tcp_shard *t = s->tcp;
    struct tcp_tw *tw = pool_get(&t->tws);

    tcp_table_remove(t, &c->key);
    if (tw == NULL && t->tw_first != 0) {
        tw_free(t, tw_at(t, t->tw_first));
        tw = pool_get(&t->tws);
    }
    COUNT(s, tcp_time_wait);
    if (tw == NULL) /* none configured, or a test makes it fail: as if its time were over */
        return;
    memset(tw, 0, sizeof(*tw));
    tw->key = c->key;
    tw->rcv_nxt = c->rcv_nxt;
    tw->snd_nxt = c->snd_nxt;
    tw->ts_recent = c->ts_recent;
    tw->ts = (c->flags & CONN_TS) != 0;
    tw->deadline_ms = now_ms(s) + s->cfg.time_wait_ms;
    tw_link(t, tw);
    tcp_table_add(t, OWNER_TW, &tw->key);
    tw_arm(t);
}

static void tw_answer(struct stack *s, const struct tcp_tw *tw)
{
    const uint32_t ts[2] = { now_ms(s) + tcp_ts_offset(s, &tw->key), tw->ts_recent };
    struct flow_key flow;

    if (!bucket_take(&s->tw_bucket, s->now_us, s->cfg.rst_per_second, s->cfg.rst_per_second)) {
        COUNT(s, tcp_challenge_limited);
        return;
    }
    tcp_flow_of(&tw->key, &flow);
    COUNT(s, tcp_challenge_ack);
    tcp_reply_ack(s, &flow, tw->snd_nxt, tw->rcv_nxt, tw->ts ? ts : NULL);
}

/* RFC 6191 section 2: surely a new connection's SYN, not an old one's. */
static bool tw_syn_is_new(const struct tcp_tw *tw, const struct tcp_seg *seg)
{
    if (tw->ts && seg->opt.has_ts)
        return seq_lt(tw->ts_recent, seg->opt.tsval) ||
               (tw->ts_recent == seg->opt.tsval && seq_lt(tw->rcv_nxt, seg->seq));
    return seq_lt(tw->rcv_nxt, seg->seq);
}

bool tcp_tw_input(struct stack *s, struct tcp_tw *tw, const struct tcp_seg *seg, uint32_t *iss_above)
{
    struct tcp_shard *t = s->tcp;

    if (seg->flags & TCP_RST) {
        COUNT(s, tcp_rst_in);
        return false;
    }
    if ((seg->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && tw_syn_is_new(tw, seg)) {
        *iss_above = tw->snd_nxt + 65536; /* SHLD-4: well above all that the old connection sent */
        tw_free(t, tw);
        return true;
    }
    if (seg->flags & TCP_SYN)
        COUNT(s, tcp_challenged);
    else
        COUNT(s, tcp_duplicate);
    if ((seg->flags & TCP_FIN) &&
        seg->seq + seg->len + 1 == tw->rcv_nxt) { /* our ACK was lost: 2 MSL again */
        tw_unlink(t, tw);
        tw->deadline_ms = now_ms(s) + s->cfg.time_wait_ms;
        tw_link(t, tw);
    } else if (!(seg->flags & (TCP_SYN | TCP_FIN)) && seg->len == 0 && seg->seq == tw->rcv_nxt) {
        return false; /* an ACK as it should be; answering it would start a conversation */
    }
    tw_answer(s, tw);
    return false;
}
