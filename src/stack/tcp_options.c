/* tcp_options.c - the options of a TCP header (RFC 9293 section 3.1, RFC 7323, RFC 2018).
 *
 * Unknown options are skipped by their length. A length of 0 or 1, or one beyond the header, ends the list
 * and the segment is processed with what was read (SEQ-1); an option of the wrong length counts as
 * unknown. */
#include "tcp_impl.h"

enum { OPT_END = 0, OPT_NOP = 1, OPT_MSS = 2, OPT_WS = 3, OPT_SACK_OK = 4, OPT_SACK = 5, OPT_TS = 8 };

static void parse_sack(struct span body, struct tcp_options *out)
{
    struct tcp_sack *b;

    if (body.len % 8 != 0)
        return;
    out->sacks = 0;
    while (out->sacks < ARRAY_LEN(out->sack)) {
        b = &out->sack[out->sacks];
        if (!span_u32(&body, &b->start) || !span_u32(&body, &b->end))
            return;
        out->sacks++;
    }
}

static void parse_one(uint8_t kind, struct span body, struct tcp_options *out)
{
    if (kind == OPT_MSS && body.len == 2)
        out->has_mss = span_u16(&body, &out->mss);
    else if (kind == OPT_WS && body.len == 1)
        out->has_ws = span_u8(&body, &out->ws);
    else if (kind == OPT_SACK_OK && body.len == 0)
        out->sack_ok = true;
    else if (kind == OPT_SACK)
        parse_sack(body, out);
    else if (kind == OPT_TS && body.len == 8)
        out->has_ts = span_u32(&body, &out->tsval) && span_u32(&body, &out->tsecr);
}

void tcp_options_parse(struct span in, struct tcp_options *out)
{
    const uint8_t *body;
    uint8_t kind, len;

    out->has_mss = out->has_ws = out->has_ts = out->sack_ok = false;
    out->sacks = 0;
    /* The layout that nearly every segment has: NOP NOP TS (RFC 7323 appendix A). */
    if (in.len == TCP_TS_BYTES && get_be32(in.data) == 0x0101080a) {
        out->has_ts = true;
        out->tsval = get_be32(in.data + 4);
        out->tsecr = get_be32(in.data + 8);
        return;
    }
    while (span_u8(&in, &kind) && kind != OPT_END) {
        if (kind == OPT_NOP)
            continue;
        if (!span_u8(&in, &len) || len < 2 || !span_bytes(&in, len - 2u, &body))
            return;
        parse_one(kind, (struct span){ .data = body, .len = len - 2u }, out);
    }
}
