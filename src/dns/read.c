/* read.c - questions of clients and answers of name servers, out of bytes that nobody vouches for.
 *
 * How an answer is read: its header and question must be those that we asked, or it is not ours. Then every record is
 * walked once, so that counts and lengths are known to be true. Only then the addresses are looked for: those whose
 * owner is the name; without any, the CNAME of the name leads to the next one, DNS_CHAIN_MAX times at the most. The
 * order of the records does not matter.
 *
 * Time: at most RECORDS_MAX records are believed, and the walk is repeated once for each step of the chain. */
#include "wire.h"

#include <errno.h>
#include <string.h>

#define RECORDS_MAX    1000 /* of all sections; more is no answer to a question for addresses (faults.md D2) */
#define NEGATIVE_TTL_S 5    /* "no such name" without a SOA: only against storms */
#define NEGATIVE_TTL_MAX_S                                                                                   \
    300 /* RFC 2308 section 5 advises hours; a proxy that comes back must be found sooner */
#define EDNS_RCODE_SHIFT 24 /* upper bits of the code, in the OPT record's TTL (RFC 6891 section 6.1.3) */

struct header {
    uint16_t id, flags, questions, answers, authorities, additionals;
};

struct record {
    size_t name_at; /* of its owner */
    uint16_t type, class, rdata_len;
    uint32_t ttl_s;
    size_t rdata_at;
};

static bool header_read(struct span msg, struct header *out)
{
    if (msg.len < DNS_HEADER_LEN)
        return false;
    out->id = get_be16(msg.data);
    out->flags = get_be16(msg.data + 2);
    out->questions = get_be16(msg.data + 4);
    out->answers = get_be16(msg.data + 6);
    out->authorities = get_be16(msg.data + 8);
    out->additionals = get_be16(msg.data + 10);
    return true;
}

static bool question_read(struct span msg, size_t *at, struct dns_question *out)
{
    size_t p = *at;

    if (!name_read(msg, &p, &out->name) || msg.len - p < 4)
        return false;
    out->type = get_be16(msg.data + p);
    out->class = get_be16(msg.data + p + 2);
    *at = p + 4;
    return true;
}

static bool record_read(struct span msg, size_t *at, struct record *out)
{
    size_t p = *at;

    out->name_at = p;
    if (!name_skip(msg, &p) || msg.len - p < 10)
        return false;
    out->type = get_be16(msg.data + p);
    out->class = get_be16(msg.data + p + 2);
    out->ttl_s = get_be32(msg.data + p + 4);
    out->rdata_len = get_be16(msg.data + p + 8);
    out->rdata_at = p + 10;
    if (msg.len - out->rdata_at < out->rdata_len)
        return false;
    *at = out->rdata_at + out->rdata_len;
    return true;
}

/* ---- queries ---- */

/* The OPT record, if there is one; a positive rcode for what RFC 6891 section 6.1.1 forbids. */
static int query_read_edns(struct span msg, size_t at, unsigned records, struct dns_query *out)
{
    struct record r;

    while (records-- > 0) {
        if (!record_read(msg, &at, &r))
            return DNS_FORMERR;
        if (r.type != DNS_OPT)
            continue;
        if (out->has_edns || msg.data[r.name_at] != 0)
            return DNS_FORMERR;
        out->has_edns = true;
        out->dnssec_ok = (r.ttl_s & EDNS_DO) != 0;
        if (r.class > UDP_BYTES_OLD)
            out->udp_bytes = r.class;
        if ((r.ttl_s >> 16 & 0xff) != 0)
            return DNS_BADVERS;
    }
    return 0;
}

int dns_read_query(struct span msg, struct dns_query *out)
{
    size_t at = QUESTION_AT;
    struct header h;

    if (!header_read(msg, &h) || (h.flags & FLAG_QR) != 0)
        return -EBADMSG;
    *out = (struct dns_query){
        .id = h.id,
        .recursion_desired = (h.flags & FLAG_RD) != 0,
        .checking_disabled = (h.flags & FLAG_CD) != 0,
        .opcode = (uint8_t)((h.flags & FLAG_OPCODE) >> OPCODE_SHIFT),
        .udp_bytes = UDP_BYTES_OLD,
    };
    if (out->opcode != 0)
        return DNS_NOTIMP;
    if (h.questions != 1 || !question_read(msg, &at, &out->question))
        return DNS_FORMERR;
    out->has_question = true;
    return query_read_edns(msg, at, (unsigned)h.answers + h.authorities + h.additionals, out);
}

/* ---- answers ---- */

/* Is it an answer to our question, as far as header and question tell? @at gets where the records begin. */
static int answer_is_ours(struct span msg, const struct header *h, const struct dns_question *q, size_t *at)
{
    struct dns_question echoed;

    /* Old and broken servers say what they cannot do with a bare header (RFC 1035 section 4.1.1). */
    if (h->questions == 0 && (h->flags & FLAG_RCODE) != DNS_NOERROR &&
        (h->flags & FLAG_RCODE) != DNS_NXDOMAIN && h->answers == 0)
        return 0;
    if (h->questions != 1 || !question_read(msg, at, &echoed))
        return -EBADMSG;
    if (echoed.type != q->type || echoed.class != q->class || echoed.name.len != q->name.len ||
        memcmp(echoed.name.wire, q->name.wire, q->name.len) != 0)
        return -ENOMSG;
    return 0;
}

static void lower_ttl(struct dns_answer *a, uint32_t ttl_s)
{
    if (ttl_s > INT32_MAX) /* RFC 2181 section 8: the top bit set means zero */
        ttl_s = 0;
    if (ttl_s < a->ttl_s)
        a->ttl_s = ttl_s;
}

/* RFC 2308 section 5: how long "nothing" holds is the lower of the SOA's own TTL and its last field. */
static void read_negative_ttl(struct span msg, const struct record *r, struct dns_answer *out)
{
    if (r->rdata_len < 22) /* two root names and five numbers */
        return;
    out->ttl_s = NEGATIVE_TTL_MAX_S;
    lower_ttl(out, r->ttl_s);
    lower_ttl(out, get_be32(msg.data + r->rdata_at + r->rdata_len - 4));
}

/* Walks every record once: all counts and lengths must be true. Notes EDNS and the negative TTL on the way. */
static bool check_records(struct span msg, size_t at, const struct header *h, struct dns_answer *out)
{
    unsigned all = (unsigned)h->answers + h->authorities + h->additionals;
    struct record r;

    if (all > RECORDS_MAX)
        return false;
    for (unsigned i = 0; i < all; i++) {
        if (!record_read(msg, &at, &r))
            return false;
        if (i >= h->answers && r.type == DNS_SOA)
            read_negative_ttl(msg, &r, out);
        if (i >= h->answers && r.type == DNS_OPT && !out->has_edns) {
            out->has_edns = true;
            out->rcode |= (r.ttl_s >> EDNS_RCODE_SHIFT) << 4;
        }
    }
    return true;
}

static bool owner_is(struct span msg, const struct record *r, const struct dns_name *name)
{
    size_t at = r->name_at;
    struct dns_name owner;

    return name_read(msg, &at, &owner) && dns_name_equal(&owner, name);
}

/* Takes the address of one record; a mapped one in an AAAA is nobody's (RFC 4291 section 2.5.5.2). */
static bool take_address(struct span msg, const struct record *r, struct dns_answer *out)
{
    struct ip_addr a;

    if (r->rdata_len != (r->type == DNS_A ? 4 : 16))
        return false;
    a = r->type == DNS_A ? ip_from4(msg.data + r->rdata_at) : ip_from6(msg.data + r->rdata_at);
    if (r->type == DNS_AAAA && ip_is4(&a))
        return true;
    if (out->n_addrs < DNS_ADDRS_MAX)
        out->addrs[out->n_addrs++] = a;
    lower_ttl(out, r->ttl_s);
    return true;
}

enum chain { CHAIN_END, CHAIN_NEXT, CHAIN_BROKEN };

/* One step: the addresses of @name, or else where its CNAME leads. */
static enum chain chain_step(struct span msg, size_t at, unsigned answers, uint16_t type,
                             struct dns_name *name, struct dns_answer *out)
{
    enum chain found = CHAIN_END;
    struct dns_name next = *name;
    uint32_t cname_ttl_s = 0;
    struct record r;

    while (answers-- > 0 && record_read(msg, &at, &r)) {
        size_t target_at = r.rdata_at;

        if (r.class != DNS_IN || (r.type != type && r.type != DNS_CNAME) || !owner_is(msg, &r, name))
            continue;
        if (r.type == type) {
            if (!take_address(msg, &r, out))
                return CHAIN_BROKEN;
            continue;
        }
        if (!name_read(msg, &target_at, &next) || target_at != r.rdata_at + r.rdata_len)
            return CHAIN_BROKEN;
        cname_ttl_s = r.ttl_s;
        found = CHAIN_NEXT;
    }
    if (out->n_addrs > 0 || found == CHAIN_END)
        return CHAIN_END;
    *name = next;
    lower_ttl(out, cname_ttl_s);
    return CHAIN_NEXT;
}

/* Fills in addresses and the lowest TTL on the way to them; without addresses the negative TTL stays. */
static int read_addresses(struct span msg, size_t at, unsigned answers, const struct dns_question *q,
                          struct dns_answer *out)
{
    uint32_t negative_ttl_s = out->ttl_s;
    struct dns_name name = q->name;

    out->ttl_s = DNS_TTL_MAX_S;
    for (unsigned step = 0; step <= DNS_CHAIN_MAX; step++) {
        switch (chain_step(msg, at, answers, q->type, &name, out)) {
        case CHAIN_END:
            if (out->n_addrs == 0)
                out->ttl_s = negative_ttl_s;
            return 0;
        case CHAIN_BROKEN:
            return -EBADMSG;
        case CHAIN_NEXT:
            break;
        }
    }
    return -EBADMSG;
}

/* Header and question of an answer to @q, and what they say. Return: 0; -ENOMSG or -EBADMSG, see dns_read_answer() */
static int read_head(struct span msg, uint16_t id, const struct dns_question *q, struct header *h, size_t *at,
                     struct dns_answer *a)
{
    int r;

    if (!header_read(msg, h) || h->id != id || (h->flags & FLAG_QR) == 0 || (h->flags & FLAG_OPCODE) != 0)
        return -ENOMSG;
    if ((r = answer_is_ours(msg, h, q, at)) != 0)
        return r;
    a->rcode = h->flags & FLAG_RCODE;
    a->truncated = (h->flags & FLAG_TC) != 0;
    return 0;
}

int dns_read_answer(struct span msg, uint16_t id, const struct dns_question *q, struct dns_answer *out)
{
    size_t at = QUESTION_AT;
    struct dns_answer a = { .ttl_s = NEGATIVE_TTL_S };
    struct header h;
    int r;

    if ((r = read_head(msg, id, q, &h, &at, &a)) != 0)
        return r;
    if (!a.truncated) { /* a cut message may end anywhere, and nothing of it is used */
        if (!check_records(msg, at, &h, &a))
            return -EBADMSG;
        if (a.rcode == DNS_NOERROR && (r = read_addresses(msg, at, h.answers, q, &a)) != 0)
            return r;
    }
    if (a.ttl_s < DNS_TTL_MIN_S)
        a.ttl_s = DNS_TTL_MIN_S;
    *out = a;
    return 0;
}

/* ---- answers that are handed on ---- */

/* The lowest TTL of all records, and where the OPT record begins; the walk has been made before, so it cannot fail.
 * @nothing: the answers lead to nothing, as CNAMEs without an address do: that holds no longer than "no such name" would (RFC 2308
 * section 2.2). */
static void look_over(struct span msg, size_t at, const struct header *h, bool nothing, struct dns_relay *out)
{
    unsigned before = (unsigned)h->answers + h->authorities, all = before + h->additionals;
    uint32_t negative_s = out->answer.ttl_s;
    struct record r;

    out->len = msg.len;
    out->additionals = h->additionals;
    out->answer.ttl_s = nothing ? negative_s : DNS_TTL_MAX_S;
    for (unsigned i = 0; i < all; i++) {
        size_t begins = at;

        if (!record_read(msg, &at, &r))
            return;
        if (r.type == DNS_OPT &&
            i >= before) { /* what stands behind it is dropped with it: it is hardly ever there */
            out->len = begins;
            out->additionals = (uint16_t)(i - before);
            return;
        }
        if (i < h->answers || (i < before && h->answers == 0))
            lower_ttl(&out->answer, r.ttl_s);
        if (i + 1 == all)
            out->len = at;
    }
}

int dns_read_relay(struct span msg, uint16_t id, const struct dns_question *q, struct dns_relay *out)
{
    bool addresses = q->type == DNS_A || q->type == DNS_AAAA;
    struct dns_relay a = { .answer.ttl_s = NEGATIVE_TTL_S };
    size_t at = QUESTION_AT;
    struct header h;
    int r;

    if ((r = read_head(msg, id, q, &h, &at, &a.answer)) != 0)
        return r;
    if (!a.answer.truncated && h.questions == 1) {
        if (!check_records(msg, at, &h, &a.answer))
            return -EBADMSG;
        if (addresses && a.answer.rcode == DNS_NOERROR &&
            (r = read_addresses(msg, at, h.answers, q, &a.answer)) != 0)
            return r;
        look_over(msg, at, &h, h.answers == 0 || (addresses && a.answer.n_addrs == 0), &a);
    }
    if (a.answer.ttl_s < DNS_TTL_MIN_S)
        a.answer.ttl_s = DNS_TTL_MIN_S;
    *out = a;
    return 0;
}
