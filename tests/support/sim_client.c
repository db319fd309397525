/* sim_client.c - the client of the simulator, written without a look at the stack. It keeps a byte map of what it received and a
 * table of fixed segments of what it sends; it is slow and simple on purpose. */
#include "sim_impl.h"

#define CLIENT_RTO  300000u
#define CLIENT_CWND 64u

/* ---- the client: what it receives -------------------------------------------------------------------- */

static uint32_t window_field(const struct sim *s)
{
    uint32_t wnd = s->o.client_window != 0 ? s->o.client_window : 1 << 20, shift = 0;

    if (s->o.lab.ws > 0)
        shift = (uint32_t)s->o.lab.ws;
    wnd >>= shift;
    return wnd > 65535 ? 65535 : wnd;
}

static void put_sack(struct sim *s, struct lab_seg *seg, uint64_t at)
{
    struct client *c = &s->c;
    uint64_t a = at, b = at;

    if (at <= c->got || at >= s->o.down_bytes || !c->have[at])
        return;
    while (a > c->got && c->have[a - 1])
        a--;
    while (b < s->o.down_bytes && c->have[b])
        b++;
    for (int i = 0; i < seg->sacks; i++) {
        if (seg->sack[i].start == (uint32_t)a + 1)
            return;
    }
    seg->sack[seg->sacks].start = (uint32_t)a + 1;
    seg->sack[seg->sacks++].end = (uint32_t)b + 1;
}

static void fill_ack(struct sim *s, struct lab_seg *seg)
{
    struct client *c = &s->c;

    seg->flags |= LAB_ACK | (c->ece ? LAB_ECE : 0);
    seg->ack = (uint32_t)(1 + c->got + (c->fin_seen ? 1 : 0));
    seg->wnd = window_field(s);
    if (s->o.lab.sack) {
        if (c->dsack) {
            seg->sack[0].start = (uint32_t)c->dsack_start + 1;
            seg->sack[0].end = (uint32_t)c->dsack_end + 1;
            seg->sacks = 1;
        }
        for (int i = 0; i < 2; i++)
            put_sack(s, seg, c->recent[i]);
    }
    c->dsack = false;
    c->unacked = 0;
    c->ack_at = NEVER;
}

void client_ack(struct sim *s)
{
    struct lab_seg seg = { .seq = (uint32_t)(1 + s->c.fin_at) };
    uint64_t next = 0;

    while (next < s->c.nsegs && s->c.segs[next] != UNSENT)
        next++;
    next = next * s->c.seg < s->o.up_bytes ? next * s->c.seg : s->o.up_bytes;
    seg.seq = (uint32_t)(1 + next + (s->c.fin_sent ? 1 : 0));
    fill_ack(s, &seg);
    sim_to_stack(s, &seg);
}

static void client_receives(struct sim *s, const struct lab_out *o)
{
    struct client *c = &s->c;
    uint64_t start = (uint64_t)o->seq - 1, end = start + o->len, old = 0;
    bool now = false;

    if (o->len == 0 && !(o->flags & LAB_FIN))
        return;
    if (o->flags & LAB_CWR)
        c->ece = false;
    if ((o->tos & 3) == 3)
        c->ece = true;
    if (end > s->o.down_bytes) {
        s->r.why = "the stack sent more than there is";
        return;
    }
    for (uint64_t i = start; i < end; i++) {
        old += c->have[i];
        c->have[i] = 1;
    }
    if (old == o->len && o->len > 0) {
        c->dsack = true;
        c->dsack_start = start;
        c->dsack_end = end;
    }
    if (o->len > 0) {
        c->recent[2] = c->recent[1];
        c->recent[1] = c->recent[0];
        c->recent[0] = start;
    }
    now = old > 0 || start != c->got;
    while (c->got < s->o.down_bytes && c->have[c->got])
        c->got++;
    if (o->flags & LAB_FIN) {
        c->fin_known = true;
        c->fin_offset = end;
        now = true;
    }
    if (c->fin_known && c->got == c->fin_offset)
        c->fin_seen = true;
    c->unacked += o->gso_size > 0 && o->len > o->gso_size ? 2 : 1;
    if (now || c->unacked >= 2 || (c->fin_known && !c->fin_seen))
        client_ack(s);
    else if (c->ack_at == NEVER)
        c->ack_at = s->lab->now_us + 40000;
}

/* ---- the client: what it sends ----------------------------------------------------------------------- */

static void mark(struct sim *s, uint64_t from, uint64_t to, uint8_t state)
{
    struct client *c = &s->c;

    for (size_t i = from / c->seg; i < c->nsegs; i++) {
        uint64_t a = i * (uint64_t)c->seg, b = a + c->seg < s->o.up_bytes ? a + c->seg : s->o.up_bytes;

        if (a < from)
            continue;
        if (b > to)
            break;
        if (c->segs[i] != ACKED)
            c->segs[i] = state;
    }
}

static void detect_loss(struct sim *s)
{
    struct client *c = &s->c;
    size_t above = 0;

    if (!s->o.lab.sack) {
        if (c->dupacks == 3 || (c->recovering && c->dupacks == 0)) {
            size_t first = (size_t)(c->una / c->seg);

            if (first < c->nsegs && c->segs[first] == SENT)
                c->segs[first] = LOST;
        }
        if (c->dupacks == 3)
            c->recovering = true;
        return;
    }
    for (size_t i = c->nsegs; i-- > 0;) {
        if (c->segs[i] == SACKED)
            above++;
        else if (c->segs[i] == SENT && above >= 3 &&
                 s->lab->now_us - c->sent_at[i] >
                     2 * s->o.link.delay_us + 3000 + s->o.link.jitter_us + s->o.link.reorder_us)
            c->segs[i] = LOST;
    }
}

static void client_acked(struct sim *s, const struct lab_out *o)
{
    struct client *c = &s->c;
    uint64_t ack = (uint64_t)o->ack - 1;

    if (ack > s->o.up_bytes + 1 || (ack > s->o.up_bytes && !c->fin_sent)) {
        s->r.why = "the stack acknowledged what was never sent";
        return;
    }
    if (ack < c->una)
        return;
    c->wnd = o->wnd;
    if ((o->flags & LAB_ECE) && ack > c->cwr_from) {
        c->cwr_due = true;
        c->cwr_from = c->nsegs * (uint64_t)c->seg;
        for (size_t i = c->nsegs; i-- > 0 && c->segs[i] == UNSENT;)
            c->cwr_from = i * (uint64_t)c->seg;
    }
    if (ack > c->una) {
        c->una = ack;
        c->dupacks = 0;
        c->backoff = 0;
        c->rto_at = s->lab->now_us + CLIENT_RTO;
        if (c->recovering && ack >= c->recover)
            c->recovering = false;
        mark(s, 0, ack, ACKED);
        if (ack == s->o.up_bytes + 1)
            c->fin_acked = true;
        detect_loss(s);
    } else if (o->len == 0 && o->sacks >= 0) {
        c->dupacks++;
    }
    for (int i = 0; i < o->sacks; i++) {
        uint64_t a = (uint64_t)o->sack[i].start - 1, b = (uint64_t)o->sack[i].end - 1;

        if (a >= c->una)
            mark(s, a, b, SACKED);
    }
    if (o->sacks > 0 || c->dupacks == 3)
        detect_loss(s);
}

static void send_segs(struct sim *s, size_t first, size_t count)
{
    struct client *c = &s->c;
    uint64_t start = first * (uint64_t)c->seg, end = start + count * (uint64_t)c->seg;
    struct lab_seg seg = { .seq = (uint32_t)start + 1 };

    end = end < s->o.up_bytes ? end : s->o.up_bytes;
    seg.len = (uint32_t)(end - start);
    seg.gso_size = count > 1 ? (uint16_t)c->seg : 0;
    if (end == s->o.up_bytes)
        seg.flags = LAB_PSH;
    seg.tos = s->o.ecn ? 2 : 0; /* ECT(0) */
    if (c->cwr_due && c->segs[first] == UNSENT) {
        seg.flags |= LAB_CWR;
        c->cwr_due = false;
    }
    for (size_t i = first; i < first + count; i++) {
        c->segs[i] = SENT;
        c->sent_at[i] = s->lab->now_us;
    }
    fill_ack(s, &seg);
    sim_to_stack(s, &seg);
    if (c->rto_at == NEVER)
        c->rto_at = s->lab->now_us + CLIENT_RTO;
}

static void send_fin(struct sim *s)
{
    struct lab_seg seg = { .seq = (uint32_t)s->o.up_bytes + 1, .flags = LAB_FIN };

    s->c.fin_sent = true;
    fill_ack(s, &seg);
    sim_to_stack(s, &seg);
    if (s->c.rto_at == NEVER)
        s->c.rto_at = s->lab->now_us + CLIENT_RTO;
}

void client_sends(struct sim *s)
{
    struct client *c = &s->c;
    uint64_t limit = s->o.up_bytes, round = s->o.message_bytes;
    size_t flight = 0, i;

    if (!c->open)
        return;
    if (round > 0 &&
        (c->got / round + 1) * round < limit) /* the next message waits for the answer to the last */
        limit = (c->got / round + 1) * round;
    for (i = 0; i < c->nsegs; i++)
        flight += c->segs[i] == SENT;
    for (i = (size_t)(c->una / c->seg); i < c->nsegs && flight < CLIENT_CWND; i++) {
        size_t n = 1, most = s->o.merge_up ? 1 + prng_below(&s->rng, 44) : 1;
        uint64_t end = (i + 1) * (uint64_t)c->seg;

        if (c->segs[i] != LOST && c->segs[i] != UNSENT)
            continue;
        if ((end < s->o.up_bytes ? end : s->o.up_bytes) > c->una + c->wnd || i * (uint64_t)c->seg >= limit)
            break;
        while (n < most && i + n < c->nsegs && c->segs[i + n] == c->segs[i] && flight + n < CLIENT_CWND &&
               (i + n + 1) * (uint64_t)c->seg <= c->una + c->wnd && (i + n) * (uint64_t)c->seg < limit)
            n++;
        send_segs(s, i, n);
        flight += n;
        i += n - 1;
    }
    if (i >= c->nsegs && !c->fin_sent)
        send_fin(s);
}

void client_timeout(struct sim *s)
{
    struct client *c = &s->c;

    c->rto_at = NEVER;
    if (c->fin_acked || (c->una >= s->o.up_bytes && !c->fin_sent))
        return;
    for (size_t i = 0; i < c->nsegs; i++) {
        if (c->segs[i] == SENT) /* what was SACKed stays: the stack may not take it back */
            c->segs[i] = LOST;
    }
    c->dupacks = 0;
    c->recovering = true;
    c->recover = s->o.up_bytes;
    if (c->backoff < 4)
        c->backoff++;
    c->rto_at = s->lab->now_us + ((uint64_t)CLIENT_RTO << c->backoff);
    if (c->wnd < c->seg && c->una < s->o.up_bytes) { /* closed window: one segment asks */
        send_segs(s, (size_t)(c->una / c->seg), 1);
        return;
    }
    if (c->una >= s->o.up_bytes && c->fin_sent)
        send_fin(s);
}

void client_syn(struct sim *s)
{
    struct lab_seg seg = { .flags = (uint8_t)(LAB_SYN | (s->o.ecn ? LAB_ECE | LAB_CWR : 0)),
                           .wnd = window_field(s),
                           .mss = (uint16_t)s->c.mss };

    s->c.syn_at = s->lab->now_us + 1000000;
    seg.mss = (uint16_t)(s->c.mss + (s->o.lab.ts ? 12 : 0));
    sim_to_stack(s, &seg);
}

void client_input(struct sim *s, const struct lab_out *o)
{
    struct client *c = &s->c;

    if (o->flags & LAB_RST) {
        c->reset = true;
        return;
    }
    if (o->flags & LAB_SYN) {
        if (!c->open) {
            c->open = true;
            c->syn_at = NEVER;
            c->wnd = o->wnd;
        }
        client_ack(s);
        return;
    }
    if (!c->open)
        return;
    client_receives(s, o);
    client_acked(s, o);
}
