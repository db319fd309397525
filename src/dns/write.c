/* write.c - queries to name servers and replies to clients. Nothing is compressed but the owner that is the question's. */
#include "wire.h"

#include <errno.h>
#include <string.h>

#define POINTER_TO_QUESTION (0xc000 | QUESTION_AT)

static void put_header(struct buf *out, uint16_t id, uint16_t flags, const uint16_t counts[4])
{
    buf_u16(out, id);
    buf_u16(out, flags);
    for (size_t i = 0; i < 4; i++)
        buf_u16(out, counts[i]);
}

static void put_question(struct buf *out, const struct dns_question *q)
{
    buf_put(out, q->name.wire, q->name.len);
    buf_u16(out, q->type);
    buf_u16(out, q->class);
}

/* RFC 6891 section 6.1.2; @rcode gives its upper bits. */
static void put_edns(struct buf *out, unsigned rcode, bool dnssec_ok)
{
    buf_u8(out, 0);
    buf_u16(out, DNS_OPT);
    buf_u16(out, DNS_UDP_BYTES);
    buf_u32(out, (uint32_t)(rcode >> 4) << 24 | (dnssec_ok ? EDNS_DO : 0));
    buf_u16(out, 0);
}

void dns_put_query(struct buf *out, uint16_t id, const struct dns_question *q, unsigned flags)
{
    bool edns = (flags & DNS_Q_EDNS) != 0;

    put_header(out, id, (flags & DNS_Q_CD) != 0 ? FLAG_RD | FLAG_CD : FLAG_RD,
               (const uint16_t[4]){ 1, 0, 0, edns });
    put_question(out, q);
    if (edns)
        put_edns(out, 0, (flags & DNS_Q_DO) != 0);
}

static void put_record(struct buf *out, const struct dns_record *r)
{
    if (r->owner != NULL)
        buf_put(out, r->owner->wire, r->owner->len);
    else
        buf_u16(out, POINTER_TO_QUESTION);
    buf_u16(out, r->type);
    buf_u16(out, DNS_IN);
    buf_u32(out, r->ttl_s);
    if (r->type == DNS_CNAME || r->type == DNS_PTR) {
        buf_u16(out, r->name->len);
        buf_put(out, r->name->wire, r->name->len);
    } else if (r->type == DNS_A) {
        buf_u16(out, 4);
        buf_put(out, r->addr.b + 12, 4);
    } else {
        buf_u16(out, 16);
        buf_put(out, r->addr.b, 16);
    }
}

/* What of the flags is the client's to have back. */
static uint16_t echoed_flags(const struct dns_query *q)
{
    return (uint16_t)((q->recursion_desired ? FLAG_RD : 0) | (q->checking_disabled ? FLAG_CD : 0));
}

static void put_reply(struct buf *out, const struct dns_query *q, enum dns_rcode rcode, uint16_t extra_flags,
                      const struct dns_record *records, size_t n)
{
    uint16_t flags = FLAG_QR | FLAG_RA | extra_flags | (uint16_t)(q->opcode << OPCODE_SHIFT);

    flags |= (uint16_t)(rcode & FLAG_RCODE) | echoed_flags(q);
    put_header(out, q->id, flags, (const uint16_t[4]){ q->has_question, (uint16_t)n, 0, q->has_edns });
    if (q->has_question)
        put_question(out, &q->question);
    for (size_t i = 0; i < n; i++)
        put_record(out, &records[i]);
    if (q->has_edns)
        put_edns(out, (unsigned)rcode, q->dnssec_ok);
}

int dns_put_reply(struct buf *out, const struct dns_query *q, enum dns_rcode rcode,
                  const struct dns_record *records, size_t n)
{
    if (n <= UINT16_MAX)
        put_reply(out, q, rcode, 0, records, n);
    if (n > UINT16_MAX || out->full) {
        buf_init(out, out->data, out->cap);
        put_reply(out, q, rcode, FLAG_TC, NULL, 0);
    }
    return out->full ? -ENOSPC : 0;
}

/* ---- answers that are handed on ---- */

#define STALE_TTL_S 30 /* RFC 8767 section 4 */

static void lower_ttls(struct span msg, unsigned records, uint32_t age_s, bool stale, uint8_t *bytes)
{
    size_t at = QUESTION_AT;

    if (!name_skip(msg, &at))
        return;
    at += 4;
    while (records-- > 0 && name_skip(msg, &at) && msg.len - at >= 10) {
        uint32_t ttl_s = get_be32(msg.data + at + 4);

        if (ttl_s >
            DNS_TTL_MAX_S) /* with the top bit set, too: then RFC 2181 section 8 says 0, which is 1 below */
            ttl_s = ttl_s > INT32_MAX ? 0 : DNS_TTL_MAX_S;
        ttl_s = stale ? STALE_TTL_S : ttl_s > age_s ? ttl_s - age_s : 0;
        put_be32(bytes + at + 4, ttl_s < DNS_TTL_MIN_S ? DNS_TTL_MIN_S : ttl_s);
        at += 10u + get_be16(msg.data + at + 8);
        if (at > msg.len)
            return;
    }
}

int dns_put_relay(struct buf *out, const struct dns_query *q, struct span stored, uint16_t additionals,
                  uint32_t age_s, bool stale)
{
    uint16_t flags = get_be16(stored.data + 2), records;

    flags =
        (uint16_t)((flags & ~(FLAG_RD | FLAG_CD | FLAG_AA | FLAG_TC)) | FLAG_QR | FLAG_RA | echoed_flags(q));
    buf_put(out, stored.data, stored.len);
    if (q->has_edns)
        put_edns(out, 0, q->dnssec_ok);
    if (out->full || stored.len < DNS_HEADER_LEN + q->question.name.len + 4u) {
        buf_init(out, out->data, out->cap);
        put_reply(out, q, (enum dns_rcode)(flags & FLAG_RCODE), FLAG_TC, NULL, 0);
        return out->full ? -ENOSPC : 0;
    }
    put_be16(out->data, q->id);
    put_be16(out->data + 2, flags);
    put_be16(out->data + 10, (uint16_t)(additionals + q->has_edns));
    memcpy(out->data + QUESTION_AT, q->question.name.wire, q->question.name.len);
    records = (uint16_t)(get_be16(stored.data + 6) + get_be16(stored.data + 8) + additionals);
    lower_ttls((struct span){ out->data, stored.len }, records, age_s, stale, out->data);
    return 0;
}
