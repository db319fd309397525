/* tcp_input.c - a segment arrives: who owns it, and is it acceptable (RFC 9293 section 3.10.7)?
 *
 * The order of checks is SEQ-3's: PAWS, sequence number, RST, SYN, ACK, and only then what the segment
 * brings. Nothing of a segment is used before its check: a bad ACK leaves ts_recent, the window and the data
 * alone (SEQ-6). */
#include "tcp_impl.h"

#define CHALLENGE_LAST_MASK 8191u /* more than a window and a space */

enum challenge {
    CHALLENGE_PROBE, /* has no bit in challenge_causes, the others have */
    CHALLENGE_WINDOW,
    CHALLENGE_PAWS,
    CHALLENGE_RST,
    CHALLENGE_SYN,
    CHALLENGE_ACK
};

/* RST-3: 10 in 5 s, and for one cause 1 in 500 ms, so that no storm of ACKs can be provoked (RFC 5961 section
 * 7). Causes that come by turns wait for each other. Answers to keep-alive probes have no cause. */
void tcp_challenge(struct tcp_conn *c, int cause)
{
    uint32_t now = now_ms(c->s), window = now - c->challenge_ms, bit = (1u << cause) >> 1;

    if (window >= CHALLENGE_WINDOW_MS + CHALLENGE_SPACE_MS ||
        ((now - c->challenge_last_ms) & CHALLENGE_LAST_MASK) >= CHALLENGE_SPACE_MS)
        c->challenge_causes = 0;
    if (window >= CHALLENGE_WINDOW_MS || c->challenges == 0) {
        c->challenge_ms = now;
        c->challenges = 0;
    }
    if (c->challenges >= CHALLENGE_PER_WINDOW || (c->challenge_causes & bit)) {
        COUNT(c->s, tcp_challenge_limited);
        return;
    }
    c->challenges++;
    if (bit != 0) {
        c->challenge_causes |= bit & 31;
        c->challenge_last_ms = now & CHALLENGE_LAST_MASK;
    }
    c->flags |= CONN_ACK_NOW;
    COUNT(c->s, tcp_challenge_ack);
}

/* A SYN or an RST that may be a stranger's guess; if it is not, its sender will know what to do. */
static void challenged(struct tcp_conn *c, int cause)
{
    COUNT(c->s, tcp_challenged);
    tcp_challenge(c, cause);
}

static uint32_t seg_end(const struct tcp_seg *seg)
{
    return seg->seq + seg->len + ((seg->flags & TCP_SYN) != 0) + ((seg->flags & TCP_FIN) != 0);
}

static bool ack_is_plausible(const struct tcp_conn *c, const struct tcp_seg *seg) /* RFC 5961 section 5.2 */
{
    return (seg->flags & TCP_ACK) && seq_le(c->snd_una - c->snd_wnd_max, seg->ack) &&
           seq_le(seg->ack, c->snd_nxt);
}

/* RFC 7323 section 5.3. ts_recent means nothing after 24 days of silence. A SYN without timestamps may be a client's that
 * knows nothing of this connection: the challenge ends it (RST-2), silence would keep that client out. */
static bool paws_ok(struct tcp_conn *c, const struct tcp_seg *seg)
{
    if (!(c->flags & CONN_TS) || (seg->flags & TCP_RST))
        return true;
    if (!seg->opt.has_ts) {
        if (seg->flags & TCP_SYN)
            return true;
        COUNT(c->s, tcp_paws);
        return false;
    }
    if (!seq_lt(seg->opt.tsval, c->ts_recent) || now_ms(c->s) - c->last_rx_ms >= PAWS_IDLE_MS)
        return true;
    COUNT(c->s, tcp_paws);
    tcp_challenge(c, CHALLENGE_PAWS);
    return false;
}

/* Any segment is an answer to a keep-alive (KA-1). */
static void heard(struct tcp_conn *c)
{
    c->keepalives = 0;
    c->last_rx_ms = now_ms(c->s);
}

/* What came again because our ACK was lost or late is answered at once and reported (RFC 2883). It must be
 * recent and carry a plausible ACK; anything else below the window is a stranger's guess and meets the
 * limiter. */
static void input_duplicate(struct tcp_conn *c, const struct tcp_seg *seg)
{
    bool empty = seg_end(seg) == seg->seq;

    COUNT(c->s, tcp_duplicate);
    if (!seq_lt(c->rcv_nxt - max_u32(c->rcv_budget, UINT16_MAX), seg->seq) || !ack_is_plausible(c, seg)) {
        tcp_challenge(c, empty ? CHALLENGE_PROBE : CHALLENGE_WINDOW);
        return;
    }
    heard(c); /* it lives, although nothing of ours may reach it */
    if (empty) {
        tcp_challenge(c, CHALLENGE_PROBE);
        return;
    }
    if (seg->len > (seg->seq + 1 == c->rcv_nxt)) { /* one byte there is a keep-alive probe of the old kind */
        c->flags |= CONN_DSACK;
        c->dsack_start = seg->seq;
        c->dsack_len = (uint16_t)min_u32(seg->len, UINT16_MAX);
    }
    c->flags |= CONN_ACK_NOW;
    tcp_recv_careful(c);
}

/* RFC 9293 section 3.10.7.4, first. One step more generous: a segment at the right edge is let through for
 * its ACK (a client that has filled the window sends those), and its payload is cut away later. */
static bool sequence_ok(struct tcp_conn *c, const struct tcp_seg *seg)
{
    bool rst = (seg->flags & TCP_RST) != 0;
    uint32_t end = rst ? seg->seq : seg_end(seg);

    if (seq_lt(c->rcv_adv, seg->seq) || (rst && seg->seq == c->rcv_adv && seg->seq != c->rcv_nxt)) {
        COUNT(c->s, tcp_out_of_window);
        if (!rst)
            tcp_challenge(c, CHALLENGE_WINDOW);
        return false;
    }
    if (end == seg->seq ? !seq_lt(seg->seq, c->rcv_nxt) : seq_lt(c->rcv_nxt, end))
        return true;
    if (rst)
        COUNT(c->s, tcp_out_of_window);
    else if (seg->flags & TCP_SYN)
        challenged(c, CHALLENGE_SYN); /* RST-2: whatever its sequence number */
    else
        input_duplicate(c, seg);
    return false;
}

/* Both sides have said all, and have it acknowledged; only our embedder has not read everything. */
static bool is_over(const struct tcp_conn *c)
{
    return c->state == TCPS_TIME_WAIT || c->state == TCPS_CLOSED;
}

/* Second and fourth of section 3.10.7.4, as RFC 5961 has them. A reset does not take back what the client was told that we
 * have (RFC 1337). */
static bool rst_syn_ok(struct tcp_conn *c, const struct tcp_seg *seg)
{
    if (seg->flags & TCP_RST) {
        if (is_over(c)) {
            COUNT(c->s, tcp_rst_in);
        } else if (seg->seq == c->rcv_nxt) {
            COUNT(c->s, tcp_rst_in);
            tcp_conn_die(c, -ECONNRESET, RST_NONE);
        } else {
            challenged(c, CHALLENGE_RST);
        }
        return false;
    }
    if (seg->flags & TCP_SYN) {
        challenged(c, CHALLENGE_SYN);
        return false;
    }
    if (!(seg->flags & TCP_ACK)) {
        COUNT(c->s, tcp_malformed);
        return false;
    }
    return true;
}

/* ---- the handshake's last step ----------------------------------------------------------------------- */

static void handshake_rtt(struct tcp_conn *c, const struct tcp_seg *seg)
{
    if (!(c->flags & CONN_SYNACK_AGAIN)) /* Karn (RFC 6298 section 3) */
        tcp_rtt_sample(c, now_us32(c->s) - c->synack_us);
    else if (c->flags & CONN_TS)
        tcp_rtt_echo(c, seg->opt.tsecr);
}

static void establish(struct tcp_conn *c, const struct tcp_seg *seg)
{
    handshake_rtt(c, seg);
    if (c->backoff > 1) /* our SYN-ACK was lost more than once (RFC 5681 3.1, as RFC 6928 2 has it) */
        c->cwnd = c->mss;
    tcp_half_open_leave(c->s, &c->key.client);
    tcp_conn_opened(c, seg->seq, seg->ack, seg->wnd);
}

/* Return: true when the segment completed the handshake and goes on as in ESTABLISHED (SYN-7, SYN-8). */
static bool handshake_input(struct tcp_conn *c, const struct tcp_seg *seg)
{
    struct flow_key flow;

    if ((seg->flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN && seg->seq + 1 == c->rcv_nxt) {
        COUNT(c->s, tcp_duplicate);
        tcp_conn_syn_again(c, seg);
        c->flags |= CONN_SYNACK_DUE | CONN_SYNACK_AGAIN; /* SYN-4 */
        return false;
    }
    if (!paws_ok(c, seg) || !sequence_ok(c, seg) || !rst_syn_ok(c, seg))
        return false;
    if (seg->ack != c->snd_nxt && !(seq_lt(c->snd_una, seg->ack) && seq_le(seg->ack, c->snd_nxt))) {
        COUNT(c->s, tcp_bad_ack);
        tcp_flow_of(&c->key, &flow);
        tcp_reply_rst(c->s, &flow, seg, RST_STRANGER);
        return false;
    }
    establish(c, seg);
    return true;
}

/* ---- synchronised states ----------------------------------------------------------------------------- */

/* Our FIN is acknowledged: fifth of section 3.10.7.4. */
static void fin_acked(struct tcp_conn *c)
{
    switch ((enum tcps)c->state) {
    case TCPS_FIN_WAIT_1:
        c->state = TCPS_FIN_WAIT_2;
        tcp_timer_life(c);
        break;
    case TCPS_CLOSING:
        c->state = TCPS_TIME_WAIT;
        tcp_timer_clear(c, TIMER_LIFE);
        break;
    case TCPS_LAST_ACK:
        c->state = TCPS_CLOSED;
        tcp_timer_clear(c, TIMER_LIFE); /* there is nobody left whom a keep-alive could ask */
        break;
    case TCPS_SYN_RECEIVED:
    case TCPS_ESTABLISHED:
    case TCPS_FIN_WAIT_2:
    case TCPS_TIME_WAIT:
    case TCPS_CLOSE_WAIT:
    case TCPS_CLOSED:
        break;
    }
}

static void ecn_input(struct tcp_conn *c, const struct tcp_seg *seg) /* RFC 3168 section 6.1.3 */
{
    if (seg->flags & TCP_CWR)
        c->flags &= ~(uint32_t)CONN_ECE_DUE;
    if (seg->ecn == 3) {
        c->flags |= CONN_ECE_DUE;
        c->quick_acks = (uint8_t)max_u32(c->quick_acks, 2);
    }
}

/* RFC 7323 sections 4.3 and 5.5. PAWS has let an older one pass only because ts_recent is no longer valid. */
static void keep_timestamp(struct tcp_conn *c, const struct tcp_seg *seg)
{
    if (seq_le(seg->seq, c->last_ack_sent) || seq_lt(seg->opt.tsval, c->ts_recent))
        c->ts_recent = seg->opt.tsval;
}

void tcp_conn_input(struct tcp_conn *c, const struct tcp_seg *seg)
{
    if (c->state == TCPS_SYN_RECEIVED) {
        if (!handshake_input(c, seg))
            return;
    } else if (!paws_ok(c, seg) || !sequence_ok(c, seg) || !rst_syn_ok(c, seg)) {
        return;
    }
    if (!ack_is_plausible(c, seg)) {
        COUNT(c->s, tcp_bad_ack);
        tcp_challenge(c, CHALLENGE_ACK);
        return;
    }
    if (c->flags & CONN_TS)
        keep_timestamp(c, seg);
    if (c->flags & CONN_ECN)
        ecn_input(c, seg);
    tcp_ack_input(c, seg);
    if ((c->flags & CONN_FIN_SENT) && c->snd_una == c->snd_nxt)
        fin_acked(c);
    if (seg->len > 0 || (seg->flags & TCP_FIN))
        tcp_recv_data(c, seg);
    else
        COUNT(c->s, tcp_acks_in);
    heard(c);
}

/* ---- from the packet to its owner -------------------------------------------------------------------- */

static bool parse_segment(struct stack *s, const struct packet *p, struct tcp_seg *seg)
{
    uint32_t header;

    if (p->l4_len < TCP_HEADER || (header = (p->l4[12] >> 4) * 4u) < TCP_HEADER || header > p->l4_len) {
        COUNT(s, tcp_malformed);
        return false;
    }
    if (!p->csum_ok) {
        uint32_t sum = csum_pseudo(&p->src, &p->dst, IP_PROTO_TCP, p->l4_len);

        COUNT_ADD(s, payload_summed, p->l4_len);
        if (csum_fold(csum_add(sum, p->l4, p->l4_len)) != 0xffff) {
            COUNT(s, tcp_checksum);
            return false;
        }
    }
    seg->seq = get_be32(p->l4 + 4);
    seg->ack = get_be32(p->l4 + 8);
    seg->flags = p->l4[13];
    seg->wnd = get_be16(p->l4 + 14);
    seg->ecn = p->tos & 3;
    seg->data = p->l4 + header;
    seg->len = p->l4_len - header;
    seg->slot = p->slot;
    seg->mss = p->meta.gso != PKT_GSO_NONE && p->meta.gso_size > 0 ? p->meta.gso_size : seg->len;
    seg->count = seg->len > seg->mss ? (seg->len + seg->mss - 1) / seg->mss : 1;
    tcp_options_parse((struct span){ .data = p->l4 + TCP_HEADER, .len = header - TCP_HEADER }, &seg->opt);
    return true;
}

/* RFC 9293 section 3.10.7.2: RST ignored, ACK answered with RST, SYN taken, anything else dropped. Every
 * address listens. */
static void input_unknown(struct stack *s, const struct packet *p, const struct flow_key *flow,
                          const struct tcp_seg *seg)
{
    if ((seg->flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN) {
        tcp_request_syn(s, p, flow, seg, 0);
        return;
    }
    if (tcp_request_cookie_ack(s, p, flow, seg))
        return;
    if (stack_pass_on(s, p)) { /* STR-2 */
        COUNT(s, tcp_passed_on);
        return;
    }
    COUNT(s, tcp_unknown);
    if (seg->flags & TCP_ACK)
        tcp_reply_rst(s, flow, seg, RST_STRANGER);
}

void tcp_input(struct stack *s, struct packet *p)
{
    struct flow_key flow = { .client = p->src, .target = p->dst, .proto = IP_PROTO_TCP };
    struct tcp_owner owner;
    struct tcp_seg seg;
    uint32_t iss_above;

    COUNT(s, tcp_in);
    if (!parse_segment(s, p, &seg))
        return;
    if (seg.count > 1)
        COUNT(s, tcp_super_in);
    flow.client_port = get_be16(p->l4);
    flow.target_port = get_be16(p->l4 + 2);
    owner = tcp_find(s->tcp, &flow, tcp_hash(s, &flow));
    switch (owner.kind) {
    case OWNER_CONN:
        tcp_conn_input(owner.conn, &seg);
        tcp_check(owner.conn);
        tcp_ready(owner.conn);
        break;
    case OWNER_REQUEST:
        tcp_request_input(s, owner.request, p, &seg);
        break;
    case OWNER_TW:
        if (tcp_tw_input(s, owner.tw, &seg, &iss_above))
            tcp_request_syn(s, p, &flow, &seg, iss_above);
        break;
    case OWNER_NONE:
        input_unknown(s, p, &flow, &seg);
        break;
    }
}
