/* tcp_icmp.c - ICMP errors about segments that we sent (RFC 5927, RFC 1191, RFC 8201).
 *
 * The quoted sequence number must be in flight (ICM-1). Errors are soft, except that a client which is gone
 * before the handshake is done ends it (ICM-2). Too-big lowers the path MTU and sends again at once what did
 * not fit (ICM-3). */
#include "tcp_impl.h"

enum { V4_UNREACHABLE = 3, V4_FRAGMENTATION_NEEDED = 4, V6_UNREACHABLE = 1, V6_TOO_BIG = 2, V6_PORT = 4 };

static bool is_too_big(bool v6, uint8_t type, uint8_t code)
{
    return v6 ? type == V6_TOO_BIG : type == V4_UNREACHABLE && code == V4_FRAGMENTATION_NEEDED;
}

static bool is_hard(bool v6, uint8_t type, uint8_t code)
{
    return v6 ? type == V6_UNREACHABLE && code == V6_PORT
              : type == V4_UNREACHABLE && (code == 2 || code == 3);
}

/* With the SACK blocks that it may have carried: those made its payload shorter, not its packet. */
static bool is_too_long(const struct tcp_conn *c, const struct segment *seg, uint32_t old_mss)
{
    uint32_t payload = seg->len - ((seg->flags & SEG_FIN) != 0);
    uint32_t blocks = seg->mss < old_mss ? old_mss - seg->mss : 0;

    return min_u32(payload, seg->mss) + blocks > c->mss;
}

/* Not a loss: cwnd and backoff stay as they are, and SEG_TOO_LONG keeps loss detection from thinking so. */
static void repeat_too_long(struct tcp_conn *c, uint32_t old_mss)
{
    for (struct segment *seg = c->fl->seg_head; seg != NULL; seg = seg->next) {
        if ((seg->flags & SEG_SACKED) || !is_too_long(c, seg, old_mss))
            continue;
        if (seg->flags & SEG_RETRANS)
            c->fl->retrans -= seg->len;
        if (!(seg->flags & SEG_LOST))
            c->fl->lost += seg->len;
        seg->flags = (uint8_t)((seg->flags & ~SEG_RETRANS) | SEG_LOST | SEG_TOO_LONG);
    }
}

static void too_big(struct tcp_conn *c, uint32_t mtu)
{
    bool v6 = c->flags & CONN_V6;
    uint32_t old = c->mss;

    if (v6 && mtu < TCP_PMTU_MIN6)
        return;
    mtu = max_u32(mtu, v6 ? TCP_PMTU_MIN6 : TCP_PMTU_MIN4);
    if (mtu >= c->pmtu)
        return;
    tcp_pmtu_set(c->s, &c->key.client, mtu);
    tcp_pmtu_refresh(c);
    repeat_too_long(c, old);
    tcp_ready(c);
}

bool tcp_icmp_error(struct stack *s, const struct flow_key *flow, uint32_t quoted_seq, bool v6, uint8_t type,
                    uint8_t code, uint32_t mtu)
{
    struct tcp_owner o = tcp_find(s->tcp, flow, tcp_hash(s, flow));
    struct tcp_conn *c = o.conn;

    if (o.kind == OWNER_NONE)
        return false;
    if (o.kind != OWNER_CONN || seq_lt(quoted_seq, c->snd_una) || !seq_lt(quoted_seq, c->snd_nxt))
        COUNT(s, icmp_ignored);
    else if (is_too_big(v6, type, code))
        too_big(c, mtu);
    else if (c->state == TCPS_SYN_RECEIVED && is_hard(v6, type, code))
        tcp_conn_die(c, -ECONNRESET, RST_NONE);
    else
        COUNT(s, icmp_ignored);
    return true;
}
