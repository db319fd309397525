/* tcp_cookie.c - SYN-ACKs that need no memory (RFC 4987 section 3.6), for times when SYNs come in crowds.
 *
 * The ISS is 29 bits of a keyed hash over 4-tuple, the client's number, the epoch of 64 s and the index of an
 * MSS, and that index; an ACK is taken in its epoch and the next. Window scale, SACK and ECN only survive in
 * the low bits of our timestamp, so without timestamps they are not agreed on. */
#include "tcp_impl.h"

#define EPOCH_US    (64u * 1000000ull)
#define MSS_BITS    3
#define OPTIONS     63u /* low bits of a timestamp: shift, SACK, ECN */
#define NO_SHIFT    15u
#define OPTION_SACK 16u
#define OPTION_ECN  32u

/* The largest one that is not above what was offered; both families share them. */
static const uint16_t mss_of[1 << MSS_BITS] = { TCP_MSS_MIN, 536, 1220, 1360, 1400, 1440, 1460, 8960 };

static uint32_t mss_index(const struct tcp_request *r)
{
    uint32_t i = ARRAY_LEN(mss_of) - 1, mss = r->mss;

    if (mss == 0) /* RFC 9293 MUST-15 */
        mss = r->flags & REQUEST_V6 ? TCP_MSS_DEFAULT6 : TCP_MSS_DEFAULT4;
    while (i > 0 && mss_of[i] > mss)
        i--;
    return i;
}

static uint32_t cookie_of(const struct stack *s, const struct tcp_key *key, uint32_t irs, uint64_t epoch,
                          uint32_t mss)
{
    struct {
        struct tcp_key key;
        uint32_t irs, epoch, mss, purpose;
    } in;

    memset(&in, 0, sizeof(in));
    in.key = *key;
    in.irs = irs;
    in.epoch = (uint32_t)epoch;
    in.mss = mss;
    in.purpose = 0x636f6f6b; /* a hash of its own: it tells nothing of others made with the secret */
    return (uint32_t)hash_bytes(&s->cfg.secret, &in, sizeof(in)) << MSS_BITS | mss;
}

/* The newest time not after @clock whose low bits are @options: timestamps never go back (TS-1). */
static uint32_t timestamp_with(uint32_t clock, uint32_t options)
{
    uint32_t ts = (clock & ~OPTIONS) | options;

    return seq_lt(clock, ts) ? ts - (OPTIONS + 1) : ts;
}

void tcp_cookie_send(struct stack *s, struct tcp_request *r)
{
    uint32_t options = r->flags & REQUEST_WS ? min_u32(r->ws, 14) : NO_SHIFT;
    struct tcp_conn c; /* as it would be; it ends with this function */

    if (!(r->flags & REQUEST_TS))
        r->flags &= (uint8_t) ~(REQUEST_WS | REQUEST_SACK | REQUEST_ECN);
    options |= (r->flags & REQUEST_SACK ? OPTION_SACK : 0) | (r->flags & REQUEST_ECN ? OPTION_ECN : 0);
    r->iss = cookie_of(s, &r->key, r->irs, s->now_us / EPOCH_US, mss_index(r));
    tcp_conn_init(&c, s, r);
    tcp_emit_synack(&c, timestamp_with(tcp_tsval(&c), options));
    s->tcp->cookies_until_us = s->now_us + 2 * EPOCH_US;
    COUNT(s, tcp_syn_cookie);
}

static void read_options(const struct tcp_seg *seg, struct tcp_request *r)
{
    uint32_t options = seg->opt.tsecr & OPTIONS;

    if (!seg->opt.has_ts)
        return;
    r->flags |= REQUEST_TS;
    r->tsval = seg->opt.tsval;
    r->ws = options & NO_SHIFT;
    if (r->ws != NO_SHIFT)
        r->flags |= REQUEST_WS;
    if (options & OPTION_SACK)
        r->flags |= REQUEST_SACK;
    if (options & OPTION_ECN)
        r->flags |= REQUEST_ECN;
}

bool tcp_cookie_check(struct stack *s, const struct tcp_seg *seg, struct tcp_request *r)
{
    uint32_t cookie = seg->ack - 1, irs = seg->seq - 1, mss = cookie & (ARRAY_LEN(mss_of) - 1);
    uint64_t epoch = s->now_us / EPOCH_US;

    if (cookie != cookie_of(s, &r->key, irs, epoch, mss) &&
        (epoch == 0 || cookie != cookie_of(s, &r->key, irs, epoch - 1, mss)))
        return false;
    r->irs = irs;
    r->iss = cookie;
    r->wnd = seg->wnd;
    r->mss = mss_of[mss];
    read_options(seg, r);
    return true;
}
