/* sim_link.c - the link of the simulator: everything that happens to packets between the stack and its client (TST-4). */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pkt_build.h"
#include "sim_impl.h"

#define EVENTS_MAX       SIM_EVENTS
#define BURST_MAX        20000 /* packets without any cause between them */
#define ICMP_INTERVAL_US 1000
#define THINNED_MAX      4 /* ACKs in a row: a box leaves one out because a later one says more */

bool sim_chance(struct sim *s, double p)
{
    return p > 0 && (double)(prng_next(&s->rng) >> 11) / (double)(1ull << 53) < p;
}

/* ---- what is on its way ------------------------------------------------------------------------------------------ */

static bool before(const struct event *a, const struct event *b)
{
    return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void heap_push(struct sim *s, const struct event *e)
{
    size_t i = s->events++;

    assert(s->events <= EVENTS_MAX);
    s->heap[i] = *e;
    s->heap[i].order = s->order++;
    while (i > 0 && before(&s->heap[i], &s->heap[(i - 1) / 2])) {
        struct event t = s->heap[i];

        s->heap[i] = s->heap[(i - 1) / 2];
        s->heap[(i - 1) / 2] = t;
        i = (i - 1) / 2;
    }
}

struct event sim_pop(struct sim *s)
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

bool sim_due(const struct sim *s)
{
    return s->events > 0 && s->heap[0].at <= s->lab->now_us;
}

/* ---- what becomes of one packet ------------------------------------------------------------------------------------- */

/* Gilbert-Elliott: two states, each with its loss; the state may change with every packet. */
static bool burst_loss(struct sim *s, bool up)
{
    const struct sim_link *l = &s->o.link;

    if (l->to_bad <= 0)
        return false;
    s->bad[up] = s->bad[up] ? !sim_chance(s, l->to_good) : sim_chance(s, l->to_bad);
    return s->bad[up] && sim_chance(s, l->bad_loss);
}

static bool dark(const struct sim *s)
{
    uint64_t now = s->lab->now_us;

    return s->o.blackout_us > 0 && now >= s->o.blackout_at_us && now < s->o.blackout_at_us + s->o.blackout_us;
}

/* Return: false when the drop-tail queue is full. */
static bool queue_pass(struct sim *s, bool up, uint32_t bytes, uint64_t *at)
{
    const struct sim_link *l = &s->o.link;
    uint64_t now = s->lab->now_us, *free_at = &s->free_at[up];

    if (l->rate_bytes_per_s == 0)
        return true;
    if (*free_at < now)
        *free_at = now;
    if (l->queue_packets > 0 && *free_at - now > l->queue_packets * (1500ull * 1000000 / l->rate_bytes_per_s))
        return false;
    *free_at += (bytes + 40ull) * 1000000 / l->rate_bytes_per_s;
    *at += *free_at - now;
    return true;
}

/* One bit of the packet turns over. The client's checksum finds that; the stack has to find it by its own. */
static bool corrupted(struct sim *s, struct event *e)
{
    if (!sim_chance(s, s->o.link.corrupt))
        return false;
    s->r.corrupted++;
    if (e->kind == TO_CLIENT || e->seg.gso_size > 0)
        return true;
    e->seg.flip_bit = 1 + prng_below(&s->rng, 20000);
    return false;
}

static void mark_congestion(struct sim *s, struct event *e)
{
    uint8_t *tos = e->kind == TO_STACK ? &e->seg.tos : &e->out.tos;

    if ((*tos & 3) != 0 && sim_chance(s, s->o.link.mark)) {
        *tos |= 3;
        s->r.marked++;
    }
}

/* Return: false when the packet is lost. */
static bool link_send(struct sim *s, struct event *e, uint32_t bytes)
{
    const struct sim_link *l = &s->o.link;
    bool up = e->kind == TO_STACK;

    e->at = s->lab->now_us + l->delay_us;
    if (dark(s) || sim_chance(s, l->loss) || burst_loss(s, up) || !queue_pass(s, up, bytes, &e->at) ||
        corrupted(s, e))
        return false;
    mark_congestion(s, e);
    if (l->jitter_us > 0)
        e->at += prng_below(&s->rng, (uint32_t)l->jitter_us);
    if (sim_chance(s, l->reorder))
        e->at += l->reorder_us;
    heap_push(s, e);
    if (sim_chance(s, l->duplicate)) {
        e->at += 1 + prng_below(&s->rng, 2000);
        heap_push(s, e);
    }
    return true;
}

/* ---- from the stack ------------------------------------------------------------------------------------------------------ */

static uint32_t wire_bytes(const struct sim *s, const struct lab_out *o)
{
    uint32_t payload = o->gso_size > 0 && o->len > o->gso_size ? o->gso_size : o->len;

    return payload + (s->o.lab.v6 ? 60 : 40) + (o->ts ? 12 : 0) +
           (o->sacks > 0 ? 4 + 8 * (uint32_t)o->sacks : 0);
}

/* The path has become narrow: what does not fit is dropped, and the router may say so. */
static bool too_big(struct sim *s, const struct lab_out *o)
{
    const struct sim_link *l = &s->o.link;
    struct event e = { .kind = ICMP_TO_STACK, .out = *o };

    if (l->narrow_mtu == 0 || s->lab->now_us < s->o.narrow_at_us || wire_bytes(s, o) <= l->narrow_mtu)
        return false;
    s->r.too_big++;
    if (l->narrow_icmp && s->lab->now_us >= s->icmp_at) {
        s->icmp_at = s->lab->now_us + ICMP_INTERVAL_US;
        e.at = s->lab->now_us + l->delay_us;
        heap_push(s, &e);
    }
    return true;
}

void sim_too_big(struct sim *s, const struct lab_out *o)
{
    static struct pkt quoted, p;
    struct lab *lab = s->lab;
    bool v6 = s->o.lab.v6;
    const char *client = v6 ? "fd00::2" : "10.0.0.2", *target = v6 ? "2001:db8::80" : "192.0.2.80";

    pkt_tcp(&quoted, target, 80, client, o->port, o->flags, o->raw_seq, o->raw_ack, "12345678", 8);
    pkt_icmp(&p, v6 ? "fd00::fe" : "10.0.0.254", target, v6 ? 2 : 3, v6 ? 0 : 4, s->o.link.narrow_mtu,
             quoted.data, quoted.len);
    memcpy(stack_rx_slot(lab->stack), p.data, p.len);
    stack_input(lab->stack, lab->now_us, p.len, &p.meta);
}

static void trace(const struct sim *s, const struct lab_out *o)
{
    char flags[40];

    if (getenv("SIM_TRACE") != NULL)
        fprintf(stderr, "%10.3f > %s seq %u len %u gso %u ack %u wnd %u sacks %d\n",
                (double)(s->lab->now_us - 1000000000) / 1000, lab_flags_text(o->flags, flags), o->seq, o->len,
                o->gso_size, o->ack, o->wnd, o->sacks);
}

static void count_sent(struct sim *s, const struct lab_out *o)
{
    s->r.packets_down++;
    s->r.digest =
        hash_bytes(&(struct hash_key){ s->r.digest, s->r.packets_down }, o->packet, o->packet_bytes);
    s->r.acks_down += o->len == 0;
    s->r.down_sent += o->len;
    s->r.cwr_down += (o->flags & LAB_CWR) != 0 && !(o->flags & LAB_SYN);
    if (o->len > 0 && (uint64_t)o->seq - 1 + o->len > s->down_high) {
        if (o->seq - 1 < s->down_high)
            s->r.down_resent += s->down_high - (o->seq - 1);
        s->down_high = o->seq - 1 + o->len;
    } else {
        s->r.down_resent += o->len;
    }
}

/* How much of a super-segment goes on as one packet: one segment, all of it, or a random number of them. Sometimes a box on the
 * way cuts where it likes. */
static uint32_t next_part(struct sim *s, const struct lab_out *o, uint32_t left)
{
    uint32_t part = left;

    if (o->gso_size > 0 && s->o.down_shape != SIM_DOWN_WHOLE)
        part = o->gso_size * (s->o.down_shape == SIM_DOWN_MIXED ? 1 + prng_below(&s->rng, 20) : 1);
    part = part < left ? part : left;
    if (part > 1 && sim_chance(s, s->o.link.recut))
        part = 1 + prng_below(&s->rng, part - 1);
    return part;
}

/* What the stack emits is checked here, cut as the path would, and put on the link. */
void sim_from_stack(struct lab *lab, const struct lab_out *o)
{
    struct sim *s = lab->hook_arg;
    uint32_t at = 0;

    if (o->flags == 0) /* ICMP of the stack */
        return;
    for (uint32_t i = 0; i < o->len; i++) {
        if (o->data[i] != lab_pattern((uint64_t)o->seq - 1 + i)) {
            s->r.why = "the stack sent a wrong byte";
            return;
        }
    }
    if (++s->burst > BURST_MAX)
        s->r.why = "the stack sends without end";
    trace(s, o);
    count_sent(s, o);
    do {
        struct event e = { .kind = TO_CLIENT, .out = *o };

        e.out.seq += at;
        e.out.raw_seq += at;
        e.out.len = next_part(s, o, o->len - at);
        at += e.out.len;
        if (at < o->len)
            e.out.flags &= (uint8_t) ~(LAB_FIN | LAB_PSH);
        if (at > e.out.len)
            e.out.flags &= (uint8_t)~LAB_CWR; /* a super-segment's first segment carries it */
        if (too_big(s, &e.out) || !link_send(s, &e, e.out.len))
            s->r.down_dropped += e.out.len;
    } while (at < o->len);
}

/* ---- from the client --------------------------------------------------------------------------------------------------------- */

static void send_up(struct sim *s, const struct lab_seg *seg)
{
    struct event e = { .kind = TO_STACK, .seg = *seg };

    e.seg.tsval = (uint32_t)(s->lab->now_us / 1000) + s->lab->ts_base;
    s->r.up_sent += seg->len;
    if (!link_send(s, &e, seg->len))
        s->r.up_dropped += seg->len;
}

void sim_to_stack(struct sim *s, const struct lab_seg *seg)
{
    struct lab_seg first = *seg, rest = *seg;

    if (seg->len == 0 && (seg->flags & ~LAB_ECE) == LAB_ACK && s->thinned < THINNED_MAX &&
        sim_chance(s, s->o.link.ack_thinning)) {
        s->thinned++;
        s->r.acks_thinned++;
        return;
    }
    s->thinned = 0;
    if (seg->len > 1 && seg->gso_size == 0 && sim_chance(s, s->o.link.recut)) {
        first.len = 1 + prng_below(&s->rng, seg->len - 1);
        first.flags &= (uint8_t) ~(LAB_FIN | LAB_PSH);
        rest.seq += first.len;
        rest.len -= first.len;
        rest.flags &= (uint8_t)~LAB_CWR;
        send_up(s, &first);
        send_up(s, &rest);
        return;
    }
    send_up(s, seg);
}
