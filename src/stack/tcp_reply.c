/* tcp_reply.c - segments that belong to no connection: resets for strangers, and the ACKs of TIME-WAIT. */
#include "tcp_impl.h"

#define REPLY_BYTES (TCP_HEADER + TCP_TS_BYTES)

struct reply {
    uint32_t seq, ack;
    uint8_t flags;
    const uint32_t *ts;
};

static void reply_send(struct stack *s, const struct flow_key *flow, const struct reply *r)
{
    uint8_t memory[IP_OUT_HEADROOM + REPLY_BYTES], *h = memory + IP_OUT_HEADROOM;
    size_t len = r->ts != NULL ? REPLY_BYTES : TCP_HEADER;
    const struct ip_out o = {
        .src = flow->target,
        .dst = flow->client,
        .proto = IP_PROTO_TCP,
        .ttl = s->cfg.ttl,
        .df = true,
        .csum_offset = 16,
    };

    memset(h, 0, REPLY_BYTES);
    put_be16(h, flow->target_port);
    put_be16(h + 2, flow->client_port);
    put_be32(h + 4, r->seq);
    put_be32(h + 8, r->ack);
    h[12] = (uint8_t)(len / 4 << 4);
    h[13] = r->flags;
    if (r->ts != NULL) {
        put_be32(h + 20, 0x0101080a);
        put_be32(h + 24, r->ts[0]);
        put_be32(h + 28, r->ts[1]);
    }
    COUNT(s, tcp_out);
    ip_output(s, &o, h, len, NULL, 0);
}

void tcp_count_rst(struct stack *s, enum tcp_rst why)
{
    COUNT(s, tcp_rst_sent);
    switch (why) {
    case RST_NONE:
        break;
    case RST_STRANGER:
        COUNT(s, tcp_rst_stranger);
        break;
    case RST_REFUSED:
        COUNT(s, tcp_rst_refused);
        break;
    case RST_ABORTED:
        COUNT(s, tcp_rst_aborted);
        break;
    case RST_TIMEOUT:
        COUNT(s, tcp_rst_timeout);
        break;
    case RST_PRESSURE:
        COUNT(s, tcp_rst_pressure);
        break;
    }
}

void tcp_reply_rst(struct stack *s, const struct flow_key *flow, const struct tcp_seg *seg, enum tcp_rst why)
{
    uint32_t seqs = seg->len + ((seg->flags & TCP_SYN) != 0) + ((seg->flags & TCP_FIN) != 0);
    struct reply r = { .flags = TCP_RST };

    if (seg->flags & TCP_RST) /* never in reply to a reset */
        return;
    if (why == RST_STRANGER &&
        !bucket_take(&s->rst_bucket, s->now_us, s->cfg.rst_per_second, s->cfg.rst_per_second)) {
        COUNT(s, tcp_rst_limited);
        return;
    }
    if (seg->flags & TCP_ACK) {
        r.seq = seg->ack;
    } else {
        r.flags |= TCP_ACK;
        r.ack = seg->seq + seqs;
    }
    tcp_count_rst(s, why);
    reply_send(s, flow, &r);
}

void tcp_reply_ack(struct stack *s, const struct flow_key *flow, uint32_t seq, uint32_t ack,
                   const uint32_t ts[2])
{
    reply_send(s, flow, &(struct reply){ .seq = seq, .ack = ack, .flags = TCP_ACK, .ts = ts });
}
