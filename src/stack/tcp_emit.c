/* tcp_emit.c - segments of a connection, put together in a header buffer on the stack and handed to
 * ip_output().
 *
 * Every segment but a SYN-ACK and an RST carries the current ACK, window, timestamp and, when there is a
 * hole, SACK blocks; so whatever leaves also settles the ACK that was due. */
#include "tcp_impl.h"

#define OPTION_BYTES 40

struct segment_out {
    uint32_t seq, ack;
    uint8_t flags;
    uint16_t wnd;
    uint8_t options[OPTION_BYTES];
    uint32_t option_bytes;
};

static uint32_t sack_room(const struct tcp_conn *c)
{
    return c->flags & CONN_TS ? 3 : 4; /* RFC 2018 section 3 */
}

static bool sack_due(const struct tcp_conn *c)
{
    return (c->flags & CONN_SACK) && (c->ooo != NULL || (c->flags & CONN_DSACK));
}

uint32_t tcp_emit_mss(const struct tcp_conn *c)
{
    struct tcp_sack blocks[4];
    int n;

    if (!sack_due(c))
        return c->mss;
    n = tcp_recv_sacks(c, blocks, (int)sack_room(c));
    return n > 0 ? c->mss - (4 + 8 * (uint32_t)n) : c->mss;
}

static uint8_t *option(struct segment_out *o, uint32_t bytes)
{
    uint8_t *p = o->options + o->option_bytes;

    o->option_bytes += bytes;
    return p;
}

uint32_t tcp_tsval(const struct tcp_conn *c)
{
    return now_ms(c->s) + c->ts_offset;
}

static void put_timestamp(struct segment_out *o, const struct tcp_conn *c, uint32_t tsval)
{
    uint8_t *p = option(o, TCP_TS_BYTES);

    put_be32(p, 0x0101080a);
    put_be32(p + 4, tsval);
    put_be32(p + 8, c->ts_recent);
}

static void put_sacks(struct segment_out *o, const struct tcp_conn *c)
{
    struct tcp_sack blocks[4];
    int n = tcp_recv_sacks(c, blocks, (int)sack_room(c));
    uint8_t *p;

    if (n == 0)
        return;
    p = option(o, 4 + 8 * (uint32_t)n);
    put_be16(p, 0x0101);
    p[2] = 5;
    p[3] = (uint8_t)(2 + 8 * n);
    for (int i = 0; i < n; i++) {
        put_be32(p + 4 + 8 * i, blocks[i].start);
        put_be32(p + 8 + 8 * i, blocks[i].end);
    }
}

/* SYN-6: MSS, then SACK-permitted and timestamp, then window scale; each only if it was offered, MSS
 * always. */
static void put_syn_options(struct segment_out *o, const struct tcp_conn *c, uint32_t tsval)
{
    uint32_t mss = c->s->cfg.mtu_bytes - TCP_HEADER - (c->flags & CONN_V6 ? 40 : 20); /* MSS-1 */
    bool sack = c->flags & CONN_SACK;

    put_be32(option(o, 4), 0x02040000 | min_u32(mss, UINT16_MAX));
    if (c->flags & CONN_TS) {
        put_timestamp(o, c, tsval);
        if (sack)
            put_be16(o->options + 4, 0x0402);
    } else if (sack) {
        put_be32(option(o, 4), 0x01010402);
    }
    if (c->rcv_wscale > 0)
        put_be32(option(o, 4), 0x01030300u | c->rcv_wscale);
}

static int put_segment(struct tcp_conn *c, const struct segment_out *o, const struct iovec *iov, int ranges,
                       uint16_t gso_size, uint8_t ecn)
{
    uint8_t memory[IP_OUT_HEADROOM + TCP_HEADER_MAX], *h = memory + IP_OUT_HEADROOM;
    const struct ip_out out = {
        .src = c->key.target,
        .dst = c->key.client,
        .proto = IP_PROTO_TCP,
        .ttl = c->s->cfg.ttl,
        .tos = ecn,
        .df = true,
        .flow_label = c->ts_offset & 0xfffff,
        .csum_offset = 16,
        .gso_size = gso_size,
        .ecn_cwr = gso_size > 0 && (o->flags & TCP_CWR),
    };

    put_be16(h, c->key.target_port);
    put_be16(h + 2, c->key.client_port);
    put_be32(h + 4, o->seq);
    put_be32(h + 8, o->ack);
    h[12] = (uint8_t)((TCP_HEADER + o->option_bytes) / 4 << 4);
    h[13] = o->flags;
    put_be16(h + 14, o->wnd);
    put_be32(h + 16, 0); /* checksum, urgent pointer */
    memcpy(h + TCP_HEADER, o->options, o->option_bytes);
    COUNT(c->s, tcp_out);
    return ip_output(c->s, &out, h, TCP_HEADER + o->option_bytes, iov, ranges);
}

static uint16_t window_field(struct tcp_conn *c)
{
    uint32_t field = tcp_recv_window(c) >> c->rcv_wscale;

    /* the edge on the wire is that of before, or less than one step short of it */
    assert(seq_lt(c->rcv_adv, c->rcv_nxt + ((field + 1) << c->rcv_wscale)));
    c->rcv_adv = seq_max(c->rcv_adv, c->rcv_nxt + (field << c->rcv_wscale));
    return (uint16_t)field;
}

static void ack_settled(struct tcp_conn *c)
{
    c->last_ack_sent = c->rcv_nxt;
    c->segs_unacked = 0;
    c->flags &= ~(uint32_t)(CONN_ACK_NOW | CONN_DSACK);
    if (!(c->flags & CONN_STARVED))
        tcp_timer_clear(c, TIMER_ACK);
}

static void fill(struct tcp_conn *c, struct segment_out *o, uint32_t seq, uint8_t flags)
{
    o->seq = seq;
    o->ack = c->rcv_nxt;
    o->flags = flags | TCP_ACK;
    o->option_bytes = 0;
    if (c->flags & CONN_ECE_DUE)
        o->flags |= TCP_ECE;
    if (c->flags & CONN_TS)
        put_timestamp(o, c, tcp_tsval(c));
    if (sack_due(c))
        put_sacks(o, c);
    o->wnd = window_field(c);
}

void tcp_emit_data(struct tcp_conn *c, uint32_t seq, uint8_t flags, const struct iovec *iov, int ranges,
                   uint32_t len, uint32_t mss)
{
    bool fresh = seq == c->snd_nxt;
    struct segment_out o;
    uint8_t ecn = 0;

    fill(c, &o, seq, flags);
    if ((c->flags & CONN_ECN) && fresh && len > 0) { /* new data only (RFC 3168 section 6.1.5) */
        ecn = 2;
        if (c->flags & CONN_CWR_DUE)
            o.flags |= TCP_CWR;
        c->flags &= ~(uint32_t)CONN_CWR_DUE;
    }
    if (len > mss)
        COUNT(c->s, tcp_super_out);
    put_segment(c, &o, iov, ranges, len > mss ? (uint16_t)mss : 0, ecn);
    ack_settled(c);
}

void tcp_emit_ack(struct tcp_conn *c)
{
    struct segment_out o;

    fill(c, &o, c->snd_nxt, 0);
    COUNT(c->s, tcp_pure_acks);
    put_segment(c, &o, NULL, 0, 0, 0);
    ack_settled(c);
}

void tcp_emit_probe(struct tcp_conn *c)
{
    struct segment_out o;

    fill(c, &o, c->snd_una - 1, 0);
    put_segment(c, &o, NULL, 0, 0, 0); /* an ACK that is due stays so: of an old segment nothing is used */
}

/* RST-6. A connection whose SYN-ACK was never sent refuses the SYN itself. */
void tcp_emit_rst(struct tcp_conn *c, enum tcp_rst why)
{
    bool unanswered = c->state == TCPS_SYN_RECEIVED && (c->flags & CONN_SYNACK_DUE);
    struct segment_out o = { .seq = unanswered ? 0 : c->snd_nxt,
                             .ack = c->rcv_nxt,
                             .flags = TCP_RST | TCP_ACK };

    if ((c->flags & CONN_TS) && !unanswered)
        put_timestamp(&o, c, tcp_tsval(c));
    tcp_count_rst(c->s, why);
    put_segment(c, &o, NULL, 0, 0, 0);
}

void tcp_emit_synack(struct tcp_conn *c, uint32_t tsval)
{
    struct segment_out o = {
        .seq = c->snd_una,
        .ack = c->rcv_nxt,
        .flags = TCP_SYN | TCP_ACK | (c->flags & CONN_ECN ? TCP_ECE : 0),
        .wnd = (uint16_t)(c->rcv_adv - c->rcv_nxt), /* at most 65,535, not scaled */
    };

    put_syn_options(&o, c, tsval);
    c->synack_us = now_us32(c->s);
    put_segment(c, &o, NULL, 0, 0, 0);
    c->flags &= ~(uint32_t)(CONN_SYNACK_DUE | CONN_ACK_NOW);
}
