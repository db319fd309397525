/* write.c - queries to name servers and replies to clients. Nothing is compressed but the owner that is the question's. */
#include "wire.h"

#include <errno.h>

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

void dns_put_query(struct buf *out, uint16_t id, const struct dns_question *q, bool edns)
{
    put_header(out, id, FLAG_RD, (const uint16_t[4]){ 1, 0, 0, edns });
    put_question(out, q);
    if (edns)
        put_edns(out, 0, false);
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
    if (r->type == DNS_CNAME) {
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

static void put_reply(struct buf *out, const struct dns_query *q, enum dns_rcode rcode, uint16_t extra_flags,
                      const struct dns_record *records, size_t n)
{
    uint16_t flags = FLAG_QR | FLAG_RA | extra_flags | (uint16_t)(q->opcode << OPCODE_SHIFT);

    flags |= (uint16_t)(rcode & FLAG_RCODE);
    if (q->recursion_desired)
        flags |= FLAG_RD;
    if (q->checking_disabled)
        flags |= FLAG_CD;
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
