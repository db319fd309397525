/* sim.c - see sim.h. The client keeps a byte map of what it received and a table of fixed segments of what it
 * sends; it is slow and simple on purpose. */
#include "sim.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stack/tcp_impl.h"

#define EVENTS      65536
#define CLIENT_RTO  300000u
#define CLIENT_CWND 64u
#define NEVER       UINT64_MAX

enum { UNSENT, SENT, SACKED, LOST, ACKED };

struct event {
    uint64_t at, order;
    bool to_stack;
    struct lab_seg seg;
    struct lab_out out;
};

struct client {
    bool open, fin_sent, fin_acked, fin_seen, reset;
    uint32_t mss, wnd;    /* of the stack */
    uint64_t una, fin_at; /* stream offsets */
    uint8_t *segs;        /* state of each MSS of the stream */
    uint64_t *sent_at;
    size_t nsegs;
    unsigned dupacks, backoff;
    uint64_t rto_at, ack_at, syn_at;
    bool recovering;
    uint64_t recover;
    uint8_t *have; /* byte map of what we received */
    uint64_t got, fin_offset;
    bool fin_known;
    unsigned unacked;
    uint64_t recent[3];
    uint64_t dsack_start, dsack_end;
    bool dsack;
};

struct sim {
    struct sim_options o;
    struct lab *lab;
    struct prng rng;
    struct event *heap;
    size_t events;
    uint64_t order;
    uint64_t free_at[2]; /* when the rate limit lets the next packet pass */
    struct client c;
    struct sim_result r;
    uint64_t down_high;
    uint64_t relay_at;
};

static bool chance(struct sim *s, double p)
{
    return p > 0 && (double)(prng_next(&s->rng) >> 11) / (double)(1ull << 53) < p;
}

/* ---- the link ---------------------------------------------------------------------------------------- */

static bool before(const struct event *a, const struct event *b)
{
    return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void heap_push(struct sim *s, const struct event *e)
{
    size_t i = s->events++;

    assert(s->events <= EVENTS);
    s->heap[i] = *e;
    while (i > 0 && before(&s->heap[i], &s->heap[(i - 1) / 2])) {
        struct event t = s->heap[i];

        s->heap[i] = s->heap[(i - 1) / 2];
        s->heap[(i - 1) / 2] = t;
        i = (i - 1) / 2;
    }
}

static struct event heap_pop(struct sim *s)
{
    struct event top = s->heap[0];
    size_t i = 0, k;

    s->heap[0] = s->heap[--s->events];
    while ((k = 2 * i + 1) < s->events) {
        struct event t;

        if (k + 1 < s->events && before(&s->heap[k + 1], &s->heap[k]))
            k++;
        if (!before(&s->heap[k], &s->heap[i]))
            break;
        t = s->heap[i];
        s->heap[i] = s->heap[k];
        s->heap[k] = t;
        i = k;
    }
    return top;
}

/* Return: false when the packet is lost. */
static bool link_send(struct sim *s, struct event *e, uint32_t bytes)
{
    const struct sim_link *l = &s->o.link;
    uint64_t now = s->lab->now_us, at = now + l->delay_us;
    bool dark =
        s->o.blackout_us > 0 && now >= s->o.blackout_at_us && now < s->o.blackout_at_us + s->o.blackout_us;

    if (dark || chance(s, l->loss))
        return false;
    if (l->rate_bytes_per_s > 0) {
        uint64_t *free_at = &s->free_at[e->to_stack], cost = (bytes + 40ull) * 1000000 / l->rate_bytes_per_s;

        if (*free_at < now)
            *free_at = now;
        if (l->queue_packets > 0 &&
            (*free_at - now) > l->queue_packets * (1500ull * 1000000 / l->rate_bytes_per_s))
            return false;
        *free_at += cost;
        at += *free_at - now;
    }
    if (l->jitter_us > 0)
        at += prng_below(&s->rng, (uint32_t)l->jitter_us);
    if (chance(s, l->reorder))
        at += l->reorder_us;
    e->at = at;
    e->order = s->order++;
    heap_push(s, e);
    if (chance(s, l->duplicate)) {
        e->at += 1 + prng_below(&s->rng, 2000);
        e->order = s->order++;
        heap_push(s, e);
    }
    return true;
}

/* What the stack emits is checked here, cut into segments of one MSS, and put on the link. */
static void from_stack(struct lab *lab, const struct lab_out *o)
{
    struct sim *s = lab->hook_arg;
    char flags[40];
    uint32_t at = 0, step = o->gso_size > 0 && !s->o.whole_down ? o->gso_size : o->len;

    for (uint32_t i = 0; i < o->len; i++) {
        if (o->data[i] != lab_pattern((uint64_t)o->seq - 1 + i)) {
            s->r.why = "the stack sent a wrong byte";
            return;
        }
    }
    if (getenv("SIM_TRACE") != NULL)
        fprintf(stderr, "%10.3f > %s seq %u len %u gso %u ack %u\n",
                (double)(lab->now_us - 1000000000) / 1000, lab_flags_text(o->flags, flags), o->seq, o->len,
                o->gso_size, o->ack);
    s->r.packets_down++;
    s->r.acks_down += o->len == 0;
    s->r.down_sent += o->len;
    if (o->len > 0 && (uint64_t)o->seq - 1 + o->len > s->down_high) {
        if (o->seq - 1 < s->down_high)
            s->r.down_resent += s->down_high - (o->seq - 1);
        s->down_high = o->seq - 1 + o->len;
    } else {
        s->r.down_resent += o->len;
    }
    do {
        struct event e = { .to_stack = false, .out = *o };

        e.out.seq += at;
        e.out.len = o->len - at < step ? o->len - at : step;
        at += e.out.len;
        if (at < o->len)
            e.out.flags &= (uint8_t) ~(LAB_FIN | LAB_PSH);
        if (!link_send(s, &e, e.out.len))
            s->r.down_dropped += e.out.len;
    } while (at < o->len);
}

static void to_stack(struct sim *s, struct lab_seg *seg)
{
    struct event e = { .to_stack = true, .seg = *seg };

    e.seg.tsval = (uint32_t)(s->lab->now_us / 1000) + s->lab->ts_base;
    s->r.up_sent += seg->len;
    if (!link_send(s, &e, seg->len))
        s->r.up_dropped += seg->len;
}

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

    seg->flags |= LAB_ACK;
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

static void client_ack(struct sim *s)
{
    struct lab_seg seg = { .seq = (uint32_t)(1 + s->c.fin_at) };
    uint64_t next = 0;

    while (next < s->c.nsegs && s->c.segs[next] != UNSENT)
        next++;
    next = next * s->c.mss < s->o.up_bytes ? next * s->c.mss : s->o.up_bytes;
    seg.seq = (uint32_t)(1 + next + (s->c.fin_sent ? 1 : 0));
    fill_ack(s, &seg);
    to_stack(s, &seg);
}

static void client_receives(struct sim *s, const struct lab_out *o)
{
    struct client *c = &s->c;
    uint64_t start = (uint64_t)o->seq - 1, end = start + o->len, old = 0;
    bool now = false;

    if (o->len == 0 && !(o->flags & LAB_FIN))
        return;
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

    for (size_t i = from / c->mss; i < c->nsegs; i++) {
        uint64_t a = i * (uint64_t)c->mss, b = a + c->mss < s->o.up_bytes ? a + c->mss : s->o.up_bytes;

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
            size_t first = (size_t)(c->una / c->mss);

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
    uint64_t start = first * (uint64_t)c->mss, end = start + count * (uint64_t)c->mss;
    struct lab_seg seg = { .seq = (uint32_t)start + 1 };

    end = end < s->o.up_bytes ? end : s->o.up_bytes;
    seg.len = (uint32_t)(end - start);
    seg.gso_size = count > 1 ? (uint16_t)c->mss : 0;
    if (end == s->o.up_bytes)
        seg.flags = LAB_PSH;
    for (size_t i = first; i < first + count; i++) {
        c->segs[i] = SENT;
        c->sent_at[i] = s->lab->now_us;
    }
    fill_ack(s, &seg);
    to_stack(s, &seg);
    if (c->rto_at == NEVER)
        c->rto_at = s->lab->now_us + CLIENT_RTO;
}

static void send_fin(struct sim *s)
{
    struct lab_seg seg = { .seq = (uint32_t)s->o.up_bytes + 1, .flags = LAB_FIN };

    s->c.fin_sent = true;
    fill_ack(s, &seg);
    to_stack(s, &seg);
    if (s->c.rto_at == NEVER)
        s->c.rto_at = s->lab->now_us + CLIENT_RTO;
}

static void client_sends(struct sim *s)
{
    struct client *c = &s->c;
    size_t flight = 0, i;

    if (!c->open)
        return;
    for (i = 0; i < c->nsegs; i++)
        flight += c->segs[i] == SENT;
    for (i = (size_t)(c->una / c->mss); i < c->nsegs && flight < CLIENT_CWND; i++) {
        size_t n = 1, most = s->o.merge_up ? 1 + prng_below(&s->rng, 44) : 1;
        uint64_t end = (i + 1) * (uint64_t)c->mss;

        if (c->segs[i] != LOST && c->segs[i] != UNSENT)
            continue;
        if ((end < s->o.up_bytes ? end : s->o.up_bytes) > c->una + c->wnd)
            break;
        while (n < most && i + n < c->nsegs && c->segs[i + n] == c->segs[i] && flight + n < CLIENT_CWND &&
               (i + n + 1) * (uint64_t)c->mss <= c->una + c->wnd)
            n++;
        send_segs(s, i, n);
        flight += n;
        i += n - 1;
    }
    if (i >= c->nsegs && !c->fin_sent)
        send_fin(s);
}

static void client_timeout(struct sim *s)
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
    if (c->wnd < c->mss && c->una < s->o.up_bytes) { /* closed window: one segment asks */
        send_segs(s, (size_t)(c->una / c->mss), 1);
        return;
    }
    if (c->una >= s->o.up_bytes && c->fin_sent)
        send_fin(s);
}

static void client_syn(struct sim *s)
{
    struct lab_seg seg = { .flags = LAB_SYN, .wnd = window_field(s), .mss = (uint16_t)s->c.mss };

    s->c.syn_at = s->lab->now_us + 1000000;
    seg.mss = (uint16_t)(s->c.mss + (s->o.lab.ts ? 12 : 0));
    to_stack(s, &seg);
}

static void client_input(struct sim *s, const struct lab_out *o)
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

/* ---- the run ----------------------------------------------------------------------------------------- */

static void relay_reads(struct lab *lab)
{
    struct sim *s = lab->hook_arg;

    if (!s->o.stalled_relay) {
        while (tcp_readable_bytes(lab->conn) > 0)
            lab_read(lab, SIZE_MAX);
    }
    lab->eof = tcp_at_eof(lab->conn);
}

static void relay_turn(struct sim *s)
{
    struct lab *lab = s->lab;

    if (lab->conn != NULL && s->o.stalled_relay && lab->now_us >= s->relay_at) {
        lab_read(lab, 1 + prng_below(&s->rng, 30000));
        s->relay_at = lab->now_us + 5000;
    }
    if (lab->conn != NULL && lab->eof && s->o.down_after_up && lab->to_put == 0 && !lab->shutdown_when_put) {
        lab->shutdown_when_put = true;
        lab_write(lab, s->o.down_bytes);
    }
    lab_batch(lab);
}

static void choose_iss(struct sim *s)
{
    uint32_t edge = s->o.wrap == 2 ? 0x80000000u : 0, found = 0;
    struct stack *fake = calloc(1, sizeof(*fake));
    struct flow_key flow = { .client_port = 40000, .target_port = 80, .proto = IP_PROTO_TCP };
    struct tcp_key key;

    ip_parse(s->o.lab.v6 ? "fd00::2" : "10.0.0.2", &flow.client);
    ip_parse(s->o.lab.v6 ? "2001:db8::80" : "192.0.2.80", &flow.target);
    tcp_key_of(&flow, &key);
    fake->now_us = 1000000000;
    fake->cfg = s->o.lab.config;
    while (edge - tcp_iss(fake, &key) > 60000 || edge == tcp_iss(fake, &key))
        fake->cfg.secret.k0 = ++found;
    s->o.lab.config.secret = fake->cfg.secret;
    s->o.lab.irs = edge - 1 - prng_below(&s->rng, 60000);
    free(fake);
}

static uint64_t next_time(const struct sim *s)
{
    const struct client *c = &s->c;
    uint64_t at = stack_next_deadline(s->lab->stack);

    if (s->events > 0 && s->heap[0].at < at)
        at = s->heap[0].at;
    if (c->rto_at < at)
        at = c->rto_at;
    if (c->ack_at < at)
        at = c->ack_at;
    if (c->syn_at < at)
        at = c->syn_at;
    if (s->o.stalled_relay && s->lab->conn != NULL && s->relay_at < at)
        at = s->relay_at;
    return at;
}

static void step(struct sim *s)
{
    struct lab *lab = s->lab;
    unsigned batch = s->o.batch_packets > 1 ? 1 + prng_below(&s->rng, s->o.batch_packets) : 1;

    stack_advance(lab->stack, lab->now_us);
    while (s->events > 0 && s->heap[0].at <= lab->now_us) {
        struct event e = heap_pop(s);

        if (!e.to_stack) {
            client_input(s, &e.out);
            continue;
        }
        if (getenv("SIM_TRACE") != NULL)
            fprintf(stderr, "%10.3f < flags %u seq %u len %u ack %u sacks %d\n",
                    (double)(lab->now_us - 1000000000) / 1000, e.seg.flags, e.seg.seq, e.seg.len, e.seg.ack,
                    e.seg.sacks);
        lab_feed(lab, &e.seg);
        if (--batch == 0) {
            lab_batch(lab);
            batch = s->o.batch_packets > 1 ? 1 + prng_below(&s->rng, s->o.batch_packets) : 1;
        }
    }
    lab_batch(lab);
    if (s->c.rto_at <= lab->now_us)
        client_timeout(s);
    if (s->c.ack_at <= lab->now_us)
        client_ack(s);
    if (s->c.syn_at <= lab->now_us)
        client_syn(s);
    client_sends(s);
    relay_turn(s);
}

static bool finished(const struct sim *s)
{
    return s->lab->closes > 0 && s->c.fin_seen && s->c.fin_acked;
}

void sim_options_default(struct sim_options *o)
{
    memset(o, 0, sizeof(*o));
    lab_options_default(&o->lab);
    o->link = (struct sim_link){ .delay_us = 5000, .reorder_us = 3000 };
    o->seed = 1;
    o->up_bytes = o->down_bytes = 200000;
    o->batch_packets = 8;
    o->deadline_us = 300ull * 1000000;
}

struct sim_result sim_run(const struct sim_options *o)
{
    struct sim *s = calloc(1, sizeof(*s));
    struct sim_result r;

    s->o = *o;
    prng_seed(&s->rng, o->seed);
    if (o->wrap != 0)
        choose_iss(s);
    s->lab = lab_new(&s->o.lab);
    s->lab->keep_payload = false;
    s->lab->hook = from_stack;
    s->lab->hook_arg = s;
    s->lab->on_readable = relay_reads;
    if (o->prepare != NULL)
        o->prepare(s->lab, o->prepare_arg);
    if (!o->down_after_up) {
        s->lab->to_put = o->down_bytes;
        s->lab->shutdown_when_put = true;
    }
    s->heap = calloc(EVENTS, sizeof(*s->heap));
    s->c.mss = 1400;
    s->c.nsegs = (size_t)((o->up_bytes + s->c.mss - 1) / s->c.mss);
    s->c.segs = calloc(s->c.nsegs + 1, 1);
    s->c.sent_at = calloc(s->c.nsegs + 1, sizeof(uint64_t));
    s->c.have = calloc(o->down_bytes + 1, 1);
    s->c.rto_at = s->c.ack_at = NEVER;
    s->c.syn_at = s->lab->now_us;
    s->o.blackout_at_us += s->lab->now_us;
    s->relay_at = s->lab->now_us;
    {
        uint64_t start = s->lab->now_us;

        while (!finished(s) && s->r.why == NULL && !s->c.reset && s->lab->now_us - start < o->deadline_us) {
            uint64_t at = next_time(s);

            if (at == NEVER) {
                s->r.why = "nothing is going to happen any more";
                break;
            }
            if (at > s->lab->now_us)
                s->lab->now_us = at;
            step(s);
        }
        s->r.took_us = s->lab->now_us - start;
    }
    s->r.wrong = s->r.why != NULL || s->lab->got_wrong;
    s->r.reset = s->c.reset;
    if (s->c.reset)
        s->r.why = "the stack reset the connection";
    else if (s->r.why == NULL && !finished(s))
        s->r.why = "not over in time";
    else if (s->r.why == NULL && (s->c.got != o->down_bytes || s->lab->got != o->up_bytes))
        s->r.why = "a stream is short";
    else if (s->r.why == NULL && s->lab->got_wrong)
        s->r.why = "the stack delivered a wrong byte";
    else if (s->r.why == NULL && s->lab->close_err != 0)
        s->r.why = "the connection did not end in order";
    s->r.up_twice = stack_counters(s->lab->stack)->tcp_duplicate;
    s->r.done = s->r.why == NULL;
    r = s->r;
    lab_free(s->lab);
    free(s->heap);
    free(s->c.segs);
    free(s->c.sent_at);
    free(s->c.have);
    free(s);
    return r;
}
