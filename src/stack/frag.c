/* frag.c - datagrams put together from fragments (RFC 791 section 3.2, RFC 8200 section 4.5).
 *
 * How it works: pieces are appended to a log in the order of arrival, so that a datagram holds about as much memory as it
 * has sent bytes, wherever in the datagram they belong. Two bitmaps of 8-byte units tell what is there and where pieces
 * begin; with them a duplicate, an overlap and the last gap are found in time that depends on the piece, not on how many
 * came before it. When everything is there the log is laid out once and the result goes through ip_input() again.
 *
 * What always holds
 * - an overlap that is no exact duplicate ends the datagram: its pieces go at once, later ones are dropped until the
 *   time is over (RFC 5722; for IPv4 we do the same), and so do two different ends;
 * - a shard's datagrams never hold more than FRAG_CAP, those of one source never more than half of it; the oldest go;
 * - pieces of one datagram must reach one shard: the kernel hashes them by addresses alone, so they do; those of ICMP are
 *   handed to the shard that owns echo between the two addresses. */
#include "ip_impl.h"

#define FRAG_CAP      ((size_t)1 << 20) /* bytes a shard; design.md section 6 */
#define FRAG_ENTRIES  256
#define V4_TIMEOUT_US 30000000
#define V6_TIMEOUT_US 60000000
#define UNITS         8192 /* of 8 bytes: 64 KiB */
#define TABLE_PLACES  256
#define QUOTE_MAX     1232 /* of an ICMPv6 error; IPv4's is smaller */

enum { V6_PAYLOAD_LEN_AT = 4, FRAG_OFFSET_AT = 2 };     /* in their headers */
enum { PROBLEM_FIELD = 0, PROBLEM_FIRST_FRAGMENT = 3 }; /* RFC 4443 section 3.4, RFC 7112 section 5 */

/* In a log: this, the piece's bytes, and up to 3 bytes that keep the next one aligned. */
struct piece {
    uint16_t unit, len;
};

/* At the front of each block of a log. */
struct log_head {
    uint32_t used; /* with this header */
};

struct frag_entry {
    struct flow_key key; /* id in the place of the ports; IPv6 has no protocol in its key */
    struct stack *s;
    struct wheel_timer timer;
    struct frag_entry *chain;
    struct frag_entry *older, *newer;
    struct block *log, *log_last;
    uint32_t bytes;     /* of this entry and its log, against the caps */
    uint32_t held;      /* payload bytes */
    uint32_t total;     /* payload bytes of the datagram, 0: its end has not come */
    uint32_t end;       /* highest byte seen */
    uint8_t header[60]; /* IP header of the first fragment */
    uint8_t header_len; /* 0: the first fragment has not come */
    uint8_t next;       /* IPv6: first header of the data */
    bool v6, dead;      /* dead: an overlap was seen */
    bool to_many;       /* so nobody is told of its end (icmp.md U7) */
    uint64_t have[UNITS / 64], starts[UNITS / 64];
};

struct frag_shard {
    struct pool entries;
    struct hash_key key;
    size_t bytes;
    struct frag_entry *oldest, *newest;
    struct frag_entry *table[TABLE_PLACES];
};

/* ---- bitmaps ------------------------------------------------------------------------------------------------------- */

/* The bits of word @word that lie in from..to-1. */
static uint64_t word_mask(uint32_t word, uint32_t from, uint32_t to)
{
    uint64_t mask = UINT64_MAX;

    if (word == from / 64)
        mask &= UINT64_MAX << (from % 64);
    if (word == (to - 1) / 64)
        mask &= UINT64_MAX >> (63 - (to - 1) % 64);
    return mask;
}

static bool bits_any(const uint64_t *map, uint32_t from, uint32_t to)
{
    for (uint32_t w = from / 64; from < to && w <= (to - 1) / 64; w++) {
        if ((map[w] & word_mask(w, from, to)) != 0)
            return true;
    }
    return false;
}

static bool bits_all(const uint64_t *map, uint32_t from, uint32_t to)
{
    for (uint32_t w = from / 64; from < to && w <= (to - 1) / 64; w++) {
        if ((~map[w] & word_mask(w, from, to)) != 0)
            return false;
    }
    return true;
}

static void bits_set(uint64_t *map, uint32_t from, uint32_t to)
{
    for (uint32_t w = from / 64; from < to && w <= (to - 1) / 64; w++)
        map[w] |= word_mask(w, from, to);
}

static bool bit(const uint64_t *map, uint32_t at)
{
    return at < UNITS && (map[at / 64] >> (at % 64) & 1) != 0;
}

/* ---- entries --------------------------------------------------------------------------------------------------------- */

static struct flow_key key_of(const struct packet *p, const struct fragment *f)
{
    struct flow_key k = { .client = p->src,
                          .target = p->dst,
                          .client_port = (uint16_t)(f->id >> 16),
                          .target_port = (uint16_t)f->id,
                          .proto = p->v6 ? 0 : p->proto };

    return k;
}

static struct frag_entry **place_of(struct frag_shard *fs, const struct flow_key *k)
{
    return &fs->table[hash_flow(&fs->key, k) % TABLE_PLACES];
}

static struct frag_entry *find(struct frag_shard *fs, const struct flow_key *k)
{
    for (struct frag_entry *e = *place_of(fs, k); e != NULL; e = e->chain) {
        if (flow_key_equal(&e->key, k))
            return e;
    }
    return NULL;
}

static void log_free(struct stack *s, struct frag_entry *e)
{
    while (e->log != NULL) {
        struct block *b = e->log;
        uint32_t bytes = s->blocks[b->class_].slab.object_bytes;

        e->log = b->next;
        e->bytes -= bytes;
        s->frag->bytes -= bytes;
        block_put(s, b);
    }
    e->log_last = NULL;
}

static void entry_free(struct stack *s, struct frag_entry *e)
{
    struct frag_shard *fs = s->frag;
    struct frag_entry **at = place_of(fs, &e->key);

    log_free(s, e);
    wheel_cancel(&s->wheel, &e->timer);
    while (*at != e)
        at = &(*at)->chain;
    *at = e->chain;
    *(e->older != NULL ? &e->older->newer : &fs->oldest) = e->newer;
    *(e->newer != NULL ? &e->newer->older : &fs->newest) = e->older;
    fs->bytes -= e->bytes;
    pool_put(&fs->entries, e);
}

static size_t bytes_of_source(const struct frag_shard *fs, const struct ip_addr *src)
{
    size_t sum = 0;

    for (const struct frag_entry *e = fs->oldest; e != NULL; e = e->newer) {
        if (ip_equal(&e->key.client, src))
            sum += e->bytes;
    }
    return sum;
}

/* Throw away the oldest datagram but @keep, of @src if given. */
static bool evict_oldest(struct stack *s, const struct frag_entry *keep, const struct ip_addr *src)
{
    for (struct frag_entry *e = s->frag->oldest; e != NULL; e = e->newer) {
        if (e == keep || (src != NULL && !ip_equal(&e->key.client, src)))
            continue;
        entry_free(s, e);
        COUNT(s, frag_evicted);
        return true;
    }
    return false;
}

/* See that @bytes more for @src, in @keep, stay inside both caps. The walk over all entries is bounded by their number. */
static bool make_room(struct stack *s, const struct frag_entry *keep, const struct ip_addr *src, size_t bytes)
{
    struct frag_shard *fs = s->frag;

    while (fs->bytes + bytes > FRAG_CAP / 2 && bytes_of_source(fs, src) + bytes > FRAG_CAP / 2) {
        if (!evict_oldest(s, keep, src))
            return false;
    }
    while (fs->bytes + bytes > FRAG_CAP) {
        if (!evict_oldest(s, keep, NULL))
            return false;
    }
    return true;
}

/* ---- time is over ------------------------------------------------------------------------------------------------------ */

static const struct piece *log_piece(const struct block *b, uint32_t at)
{
    return (const struct piece *)(const void *)(block_data((struct block *)(uintptr_t)b) + at);
}

static uint32_t log_used(const struct block *b)
{
    struct log_head head;

    memcpy(&head, block_data((struct block *)(uintptr_t)b), sizeof(head));
    return head.used;
}

static uint32_t piece_room(uint32_t len)
{
    return (uint32_t)(sizeof(struct piece) + ((len + 3u) & ~3u));
}

static const struct piece *first_piece(const struct frag_entry *e)
{
    for (const struct block *b = e->log; b != NULL; b = b->next) {
        for (uint32_t at = sizeof(struct log_head); at < log_used(b);
             at += piece_room(log_piece(b, at)->len)) {
            if (log_piece(b, at)->unit == 0)
                return log_piece(b, at);
        }
    }
    return NULL;
}

/* Time exceeded, code 1, which quotes the first fragment (RFC 792, RFC 4443 section 3.3). */
static void tell_expired(struct stack *s, const struct frag_entry *e)
{
    uint8_t quote[sizeof(e->header) + FRAG_HEADER + QUOTE_MAX], *at = quote;
    const struct piece *first = first_piece(e);
    struct packet p = { .src = e->key.client, .dst = e->key.target, .v6 = e->v6, .ip = quote };
    uint32_t len;

    if (e->header_len == 0 || first == NULL || e->to_many)
        return;
    memcpy(at, e->header, e->header_len);
    at += e->header_len;
    if (e->v6) {
        quote[6] = NEXT_FRAGMENT;
        memset(at, 0, FRAG_HEADER);
        at[0] = e->next;
        at[3] = 1;
        put_be16(at + 4, e->key.client_port);
        put_be16(at + 6, e->key.target_port);
        at += FRAG_HEADER;
    }
    p.proto = e->v6 ? e->next : e->key.proto;
    len = first->len < QUOTE_MAX ? first->len : QUOTE_MAX;
    memcpy(at, first + 1, len);
    p.l4 = at;
    p.l4_len = len;
    p.ip_len = (uint32_t)(at - quote) + len;
    icmp_send_raw(s, &p, e->v6 ? ICMP6_TIME_EXCEEDED : ICMP4_TIME_EXCEEDED, 1, 0);
}

static void on_timeout(struct wheel_timer *t, uint64_t now_us)
{
    struct frag_entry *e = CONTAINER_OF(t, struct frag_entry, timer);
    struct stack *s = e->s;

    (void)now_us;
    if (!e->dead) {
        COUNT(s, frag_expired);
        tell_expired(s, e);
    }
    entry_free(s, e);
}

static struct frag_entry *entry_new(struct stack *s, const struct packet *p, const struct flow_key *k)
{
    struct frag_shard *fs = s->frag;
    struct frag_entry *e, **at = place_of(fs, k);

    if (!make_room(s, NULL, &p->src, s->frag->entries.slab.object_bytes))
        return NULL;
    e = pool_get(&fs->entries);
    if (e == NULL && evict_oldest(s, NULL, NULL))
        e = pool_get(&fs->entries);
    if (e == NULL)
        return NULL;
    *e = (struct frag_entry){ .key = *k,
                              .s = s,
                              .v6 = p->v6,
                              .to_many = p->broadcast || p->multicast,
                              .bytes = s->frag->entries.slab.object_bytes,
                              .older = fs->newest };
    e->timer.fn = on_timeout;
    e->chain = *at;
    *at = e;
    *(fs->newest != NULL ? &fs->newest->newer : &fs->oldest) = e;
    fs->newest = e;
    fs->bytes += s->frag->entries.slab.object_bytes;
    wheel_set(&s->wheel, &e->timer, s->now_us + (p->v6 ? V6_TIMEOUT_US : V4_TIMEOUT_US));
    return e;
}

/* ---- pieces ------------------------------------------------------------------------------------------------------------- */

/* Where the next piece of @len bytes goes, NULL when memory is short. The first block is small: most datagrams are. */
static uint8_t *log_reserve(struct stack *s, struct frag_entry *e, uint32_t len)
{
    uint32_t need = piece_room(len), used;
    struct block *b = e->log_last;
    struct log_head head = { sizeof(head) };

    if (b == NULL || log_used(b) + need > b->bytes) {
        enum block_class fits = block_class_for(need + sizeof(head));
        enum block_class c = b != NULL && fits < BLOCK_CHUNK16 ? BLOCK_CHUNK16 : fits;

        if (!make_room(s, e, &e->key.client, s->blocks[c].slab.object_bytes) || (b = block_get(s, c)) == NULL)
            return NULL;
        *(e->log_last != NULL ? &e->log_last->next : &e->log) = b;
        e->log_last = b;
        e->bytes += s->blocks[c].slab.object_bytes;
        s->frag->bytes += s->blocks[c].slab.object_bytes;
        memcpy(block_data(b), &head, sizeof(head));
    }
    used = log_used(b);
    head.used = used + need;
    memcpy(block_data(b), &head, sizeof(head));
    return block_data(b) + used;
}

static void kill_entry(struct stack *s, struct frag_entry *e)
{
    log_free(s, e);
    e->dead = true;
    COUNT(s, frag_overlap);
}

enum fit { FITS, DUPLICATE, CONFLICT };

static enum fit fit_of(const struct frag_entry *e, const struct fragment *f, uint32_t len)
{
    uint32_t from = f->offset / 8, to = (f->offset + len + 7) / 8, end = f->offset + len;

    if (f->more ? e->total != 0 && end >= e->total : (e->total != 0 && e->total != end) || e->end > end)
        return CONFLICT;
    if (!bits_any(e->have, from, to))
        return FITS;
    if (bits_all(e->have, from, to) && bit(e->starts, from) && !bits_any(e->starts, from + 1, to) &&
        (bit(e->starts, to) || !bit(e->have, to)))
        return DUPLICATE;
    return CONFLICT;
}

/* Lay the log out as one packet at *ip, in a new block. NULL: no memory for that. */
static struct block *put_together(struct stack *s, const struct frag_entry *e, uint8_t **out)
{
    struct block *whole = block_get(s, block_class_for(sizeof(e->header) + e->total));
    uint8_t *ip, *data;

    if (whole == NULL)
        return NULL;
    /* A full IPv6 datagram is longer than a block by its header, which therefore lies in the headroom. */
    ip = e->v6 ? block_data(whole) - e->header_len : block_data(whole);
    data = ip + e->header_len;
    memcpy(ip, e->header, e->header_len);
    if (e->v6) {
        put_be16(ip + 4, (uint16_t)e->total);
        ip[6] = e->next;
    } else {
        uint16_t check;

        put_be16(ip + 2, (uint16_t)(e->header_len + e->total));
        memset(ip + 6, 0, 2);
        memset(ip + 10, 0, 2);
        check = (uint16_t)~csum_fold(csum_add(0, ip, e->header_len));
        memcpy(ip + 10, &check, sizeof(check));
    }
    for (const struct block *b = e->log; b != NULL; b = b->next) {
        const struct piece *piece;

        for (uint32_t at = sizeof(struct log_head); at < log_used(b); at += piece_room(piece->len)) {
            piece = log_piece(b, at);
            payload_copy(s, data + (size_t)piece->unit * 8, piece + 1, piece->len);
        }
    }
    *out = ip;
    return whole;
}

/* All pieces are there: the entry goes, and the datagram takes the way of any packet. */
static void finish(struct stack *s, struct frag_entry *e, uint32_t origin)
{
    size_t len = e->header_len + (size_t)e->total;
    bool too_long =
        !e->v6 && len > IP_MAX; /* the first fragment had more options than the one that set the end */
    const struct pkt_meta none = { 0 };
    uint8_t *ip = NULL;
    struct block *whole = too_long ? NULL : put_together(s, e, &ip);

    entry_free(s, e);
    if (too_long) {
        COUNT(s, frag_malformed);
        return;
    }
    if (whole == NULL) {
        COUNT(s, frag_no_memory);
        return;
    }
    COUNT(s, frag_in);
    COUNT(s, frag_done);
    ip_input(s, ip, len, &none, whole, origin, true);
    block_put(s, whole);
}

static bool store(struct stack *s, struct frag_entry *e, const struct packet *p, const struct fragment *f)
{
    struct piece piece = { .unit = (uint16_t)(f->offset / 8), .len = (uint16_t)p->l4_len };
    uint32_t end = f->offset + p->l4_len;
    uint8_t *at = log_reserve(s, e, p->l4_len);

    if (at == NULL)
        return false;
    memcpy(at, &piece, sizeof(piece));
    payload_copy(s, at + sizeof(piece), p->l4, p->l4_len);
    bits_set(e->have, f->offset / 8, (end + 7) / 8);
    bits_set(e->starts, f->offset / 8, f->offset / 8 + 1);
    e->held += p->l4_len;
    if (end > e->end)
        e->end = end;
    if (!f->more)
        e->total = end;
    if (f->offset == 0) {
        e->header_len = p->v6 ? V6_HEADER : (uint8_t)((p->ip[0] & 0x0f) * 4);
        memcpy(e->header, p->ip, e->header_len);
        e->next = f->next;
    }
    return true;
}

/* The first fragment must show all headers up to the protocol's own (RFC 7112; RFC 1858 section 4.2). */
static bool has_all_headers(struct stack *s, const struct packet *p, const struct fragment *f)
{
    struct packet look = *p;

    if (!p->v6)
        return p->l4_len >= ip_min_l4(p->proto);
    switch (ip_ext_walk(s, &look, f->next, EXT_LOOK)) {
    case EXT_UPPER:
        return look.l4_len >= ip_min_l4(look.proto);
    case EXT_SHORT:
    case EXT_FRAGMENT:
        return false;
    case EXT_DROP: /* said again, and told, when the datagram is complete */
        return true;
    }
    return false;
}

/* IPv6 wants the sender to know what is wrong with a piece, later ones not excepted. */
static bool refuse(struct stack *s, const struct packet *p, const struct fragment *f, uint8_t code,
                   size_t pointer)
{
    struct packet told = *p;

    told.proto = f->offset == 0 ? f->next : NEXT_NONE; /* an error about an error is not answered */
    if (p->v6)
        icmp_send_raw(s, &told, ICMP6_PARAM_PROBLEM, code, (uint32_t)pointer);
    return false;
}

/* RFC 791 section 3.2, RFC 8200 section 4.5: there also what the answers point at. */
static bool is_well_formed(struct stack *s, const struct packet *p, const struct fragment *f)
{
    size_t before = p->v6 ? 0 : (size_t)(p->l4 - p->ip);

    if (p->l4_len == 0 || p->meta.gso != PKT_GSO_NONE)
        return false;
    if (f->more && p->l4_len % 8 != 0)
        return refuse(s, p, f, PROBLEM_FIELD, V6_PAYLOAD_LEN_AT);
    if (before + f->offset + p->l4_len > IP_MAX)
        return refuse(s, p, f, PROBLEM_FIELD, (size_t)(p->l4 - p->ip) - FRAG_HEADER + FRAG_OFFSET_AT);
    return f->offset != 0 || has_all_headers(s, p, f) || refuse(s, p, f, PROBLEM_FIRST_FRAGMENT, 0);
}

void frag_input(struct stack *s, struct packet *p, const struct fragment *f)
{
    struct flow_key k = key_of(p, f);
    struct frag_entry *e;

    if (!is_well_formed(s, p, f)) {
        COUNT(s, frag_malformed);
        return;
    }
    if ((p->v6 ? f->next == IP_PROTO_ICMPV6 : p->proto == IP_PROTO_ICMP) && icmp_owner_took_it(s, p)) {
        COUNT(s, frag_in);
        return;
    }
    e = find(s->frag, &k);
    if (e == NULL)
        e = entry_new(s, p, &k);
    if (e == NULL) {
        COUNT(s, frag_no_memory);
        return;
    }
    switch (e->dead ? CONFLICT : fit_of(e, f, p->l4_len)) {
    case CONFLICT:
        kill_entry(s, e);
        return;
    case DUPLICATE:
        COUNT(s, frag_in);
        return;
    case FITS:
        break;
    }
    if (!store(s, e, p, f)) {
        COUNT(s, frag_no_memory);
        return;
    }
    if (e->held == e->total)
        finish(s, e, p->origin);
    else
        COUNT(s, frag_in);
}

/* ---- life ------------------------------------------------------------------------------------------------------------------ */

size_t frag_memory_bytes(const struct stack_config *c)
{
    (void)c;
    return sizeof(struct frag_shard) + pool_region_bytes(sizeof(struct frag_entry), FRAG_ENTRIES);
}

void frag_init(struct stack *s, void *memory)
{
    uint8_t *at = memory;

    s->frag = region_take(&at, sizeof(struct frag_shard), CACHE_LINE);
    s->frag->key = (struct hash_key){ prng_next(&s->prng), prng_next(&s->prng) };
    s->frag->key.k0 ^= s->cfg.secret.k0;
    s->frag->key.k1 ^= s->cfg.secret.k1;
    pool_init(s, &s->frag->entries, "frag", sizeof(struct frag_entry), FRAG_ENTRIES, &at);
}
