/* tcp_ooo.c - received payload: pieces of slots and chunks, and the set of intervals beyond a hole (OOO-1).
 *
 * Intervals are a sorted array of at most 128, found by bisection. What is held is never dropped again (no
 * reneging), so of a new segment only the bytes that are not held yet are stored. Payloads of 16 KiB and more
 * stay in their slot; smaller ones are copied behind one another into a chunk that all intervals share, so
 * that held memory follows held bytes (MEM-2). */
#include "tcp_impl.h"

/* ---- pieces ------------------------------------------------------------------------------------------ */

enum block_class tcp_copy_class(uint32_t held)
{
    return held < 4096 ? BLOCK_CHUNK2 : held < 65536 ? BLOCK_CHUNK16 : BLOCK_CHUNK64;
}

/* @b gets one more reference, except when the last piece simply grows. */
bool tcp_pieces_add(struct stack *s, struct pieces *l, struct block *b, uint32_t off, uint32_t len)
{
    struct piece *p = l->tail;

    if (p != NULL && p->block == b && p->off + p->len == off) {
        p->len += len;
        return true;
    }
    p = pool_get(&s->tcp->pieces);
    if (p == NULL) {
        COUNT(s, tcp_no_memory);
        return false;
    }
    *p = (struct piece){ .block = b, .off = off, .len = len };
    b->refs++;
    if (l->tail != NULL)
        l->tail->next = p;
    else
        l->head = p;
    l->tail = p;
    return true;
}

void tcp_pieces_skip(struct stack *s, struct pieces *l, uint32_t n)
{
    while (n > 0) {
        struct piece *p = l->head;
        uint32_t part = min_u32(n, p->len);

        p->off += part;
        p->len -= part;
        n -= part;
        if (p->len > 0)
            return;
        l->head = p->next;
        if (l->head == NULL)
            l->tail = NULL;
        block_put(s, p->block);
        pool_put(&s->tcp->pieces, p);
    }
}

void tcp_pieces_clear(struct stack *s, struct pieces *l)
{
    struct piece *p, *next;

    for (p = l->head; p != NULL; p = next) {
        next = p->next;
        block_put(s, p->block);
        pool_put(&s->tcp->pieces, p);
    }
    l->head = l->tail = NULL;
}

static void pieces_join(struct pieces *to, struct pieces *from)
{
    if (from->head == NULL)
        return;
    if (to->tail != NULL)
        to->tail->next = from->head;
    else
        to->head = from->head;
    to->tail = from->tail;
    from->head = from->tail = NULL;
}

/* ---- the set ----------------------------------------------------------------------------------------- */

static struct ooo_set *set_of(struct tcp_conn *c)
{
    struct ooo_set *o = c->ooo;

    if (o != NULL)
        return o;
    o = pool_get(&c->s->tcp->ooo);
    if (o == NULL) {
        COUNT(c->s, tcp_no_memory);
        return NULL;
    }
    memset(o, 0, offsetof(struct ooo_set, iv));
    c->ooo = o;
    return o;
}

static void set_free(struct tcp_conn *c)
{
    struct ooo_set *o = c->ooo;

    if (o->chunk != NULL)
        block_put(c->s, o->chunk);
    pool_put(&c->s->tcp->ooo, o);
    c->ooo = NULL;
}

void tcp_ooo_clear(struct tcp_conn *c)
{
    if (c->ooo == NULL)
        return;
    for (uint32_t i = 0; i < c->ooo->count; i++)
        tcp_pieces_clear(c->s, &c->ooo->iv[i].pieces);
    set_free(c);
}

/* The first interval that ends at @seq or behind it; count when there is none. */
static uint32_t find_interval(const struct ooo_set *o, uint32_t seq, uint64_t *steps)
{
    uint32_t lo = 0, hi = o->count;

    ++*steps;
    if (hi > 0 && seq_lt(o->iv[hi - 1].end, seq)) /* the usual case: at the tail */
        return hi;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;

        ++*steps;
        if (seq_lt(o->iv[mid].end, seq))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void remove_interval(struct ooo_set *o, uint32_t i)
{
    o->count--;
    memmove(&o->iv[i], &o->iv[i + 1], (o->count - i) * sizeof(o->iv[0]));
}

/* [start, end) has just been touched at @seq: it is the newest, and what was noted inside it before would only take the place of
 * another one. */
static void remember(struct ooo_set *o, uint32_t seq, uint32_t start, uint32_t end)
{
    uint32_t kept[ARRAY_LEN(o->recent)] = { seq };
    uint8_t n = 1;

    for (uint8_t i = 0; i < o->recents && n < ARRAY_LEN(kept); i++) {
        if (seq_lt(o->recent[i], start) || !seq_lt(o->recent[i], end))
            kept[n++] = o->recent[i];
    }
    memcpy(o->recent, kept, sizeof(kept));
    o->recents = n;
}

/* Copies into the shared chunk; the interval's last piece grows when it ends where the chunk is free. */
static uint32_t store_copy(struct tcp_conn *c, struct pieces *l, const uint8_t *data, uint32_t len)
{
    struct ooo_set *o = c->ooo;
    uint32_t done = 0;

    while (done < len) {
        uint32_t part;

        if (o->chunk == NULL || o->chunk->fill == o->chunk->bytes) {
            if (o->chunk != NULL)
                block_put(c->s, o->chunk);
            o->chunk = block_get(c->s, tcp_copy_class(o->bytes));
            if (o->chunk == NULL) {
                COUNT(c->s, tcp_no_memory);
                break;
            }
            o->chunk->fill = 0;
        }
        part = min_u32(len - done, o->chunk->bytes - o->chunk->fill);
        if (!tcp_pieces_add(c->s, l, o->chunk, o->chunk->fill, part))
            break;
        payload_copy(c->s, block_data(o->chunk) + o->chunk->fill, data + done, part);
        o->chunk->fill += part;
        done += part;
    }
    return done;
}

static uint32_t store(struct tcp_conn *c, struct pieces *l, const uint8_t *data, uint32_t len,
                      struct block *slot)
{
    if (slot != NULL && len >= COMPACT_BYTES)
        return tcp_pieces_add(c->s, l, slot, (uint32_t)(data - block_data(slot)), len) ? len : 0;
    return store_copy(c, l, data, len);
}

/* [seq, seq + len) touches no byte that is held; @i is the first interval that ends at @seq or behind it.
 * Return: bytes stored, from the front. */
static uint32_t add_new(struct tcp_conn *c, uint32_t i, uint32_t seq, const uint8_t *data, uint32_t len,
                        struct block *slot)
{
    struct ooo_set *o = c->ooo;
    struct pieces fresh = { 0 };
    bool grows = i < o->count && o->iv[i].end == seq;
    uint32_t next = grows ? i + 1 : i, done;
    bool touches = next < o->count && o->iv[next].start == seq + len;

    if (!grows && !touches && o->count == OOO_INTERVALS)
        return 0;
    done = store(c, grows ? &o->iv[i].pieces : &fresh, data, len, slot);
    if (done == 0)
        return 0;
    o->bytes += done;
    touches = touches && done == len;
    if (!grows && touches) { /* in front of the next one */
        pieces_join(&fresh, &o->iv[i].pieces);
        o->iv[i].pieces = fresh;
        o->iv[i].start = seq;
    } else if (!grows && o->count == OOO_INTERVALS) { /* memory ended inside what would have closed the gap */
        o->bytes -= done;
        tcp_pieces_clear(c->s, &fresh);
        return 0;
    } else if (!grows) {
        memmove(&o->iv[i + 1], &o->iv[i], (o->count - i) * sizeof(o->iv[0]));
        o->iv[i] = (struct interval){ .start = seq, .end = seq + done, .pieces = fresh };
        o->count++;
    } else {
        o->iv[i].end += done;
        if (touches) { /* the gap between two is closed */
            pieces_join(&o->iv[i].pieces, &o->iv[next].pieces);
            o->iv[i].end = o->iv[next].end;
            remove_interval(o, next);
        }
    }
    return done;
}

static void report_duplicate(struct tcp_conn *c, uint32_t start, uint32_t end)
{
    c->flags |= CONN_DSACK;
    c->dsack_start = start;
    c->dsack_len = (uint16_t)min_u32(end - start, UINT16_MAX);
}

void tcp_ooo_add(struct tcp_conn *c, uint32_t seq, const uint8_t *data, uint32_t len, struct block *slot)
{
    uint64_t *steps = &c->s->tcp->ooo_steps;
    struct ooo_set *o = set_of(c);
    uint32_t at = seq, end = seq + len, stored = 0, i;

    if (o == NULL) {
        COUNT(c->s, tcp_no_room);
        return;
    }
    i = find_interval(o, at, steps);
    while (seq_lt(at, end)) {
        uint32_t until = end, next, done;

        ++*steps;
        for (; i < o->count && seq_lt(o->iv[i].end, at); i++)
            ++*steps;
        next = i;
        if (i < o->count && seq_le(o->iv[i].start, at) && seq_lt(at, o->iv[i].end)) {
            until = seq_min(end, o->iv[i].end);
            if (!(c->flags & CONN_DSACK))
                report_duplicate(c, at, until);
            at = until;
            continue;
        }
        if (i < o->count && o->iv[i].end == at)
            next = i + 1;
        if (next < o->count)
            until = seq_min(end, o->iv[next].start);
        done = add_new(c, i, at, data + (at - seq), until - at, slot);
        at += done;
        stored += done;
        if (at != until)
            break;
    }
    if (at != seq) {
        assert(i < o->count && seq_le(o->iv[i].start, seq) &&
               seq_lt(seq, o->iv[i].end)); /* the walk ended in it */
        remember(o, seq, o->iv[i].start, o->iv[i].end);
    }
    if (stored > 0)
        COUNT(c->s, tcp_ooo);
    else if (at != seq)
        COUNT(c->s, tcp_duplicate);
    else if (o->count == OOO_INTERVALS)
        COUNT(c->s, tcp_ooo_dropped);
    else
        COUNT(c->s, tcp_no_room);
    if (o->count == 0 && !o->has_fin)
        set_free(c);
}

bool tcp_ooo_fin(struct tcp_conn *c, uint32_t fin_seq)
{
    struct ooo_set *o = set_of(c);

    if (o == NULL)
        return false;
    o->has_fin = true;
    o->fin_seq = fin_seq;
    remember(o, fin_seq, fin_seq, fin_seq + 1);
    return true;
}

bool tcp_ooo_join(struct tcp_conn *c)
{
    struct ooo_set *o = c->ooo;
    bool fin;

    while (o->count > 0 && seq_le(o->iv[0].start, c->rcv_nxt)) {
        struct interval *iv = &o->iv[0];
        uint32_t held = iv->end - iv->start, old = min_u32(c->rcv_nxt - iv->start, held);

        if (old > 0 &&
            !(c->flags & CONN_DSACK)) /* the segment in order brought it once more (RFC 2883 section 4.2) */
            report_duplicate(c, iv->start, iv->start + old);
        o->bytes -= held;
        tcp_pieces_skip(c->s, &iv->pieces, old);
        pieces_join(&c->rcv, &iv->pieces);
        if (old >
            0) /* what is left of a slot may be small: tcp_recv_settle() looks at all of them again (MEM-2) */
            c->overlap = true;
        c->rcv_held += held - old;
        c->rcv_nxt += held - old;
        remove_interval(o, 0);
        c->flags |= CONN_ACK_NOW | CONN_EV_READABLE;
    }
    if (seq_lt(o->fin_seq, c->rcv_nxt))
        o->has_fin = false; /* the client went on behind its FIN: one of the two was not its own */
    fin = o->has_fin && o->fin_seq == c->rcv_nxt;
    if (o->count == 0 && (fin || !o->has_fin))
        set_free(c);
    return fin;
}

/* The island around @seq, with the FIN that ends it; one alone is an island, too. Return: false: it is no longer there. */
static bool island_at(const struct ooo_set *o, uint32_t seq, struct tcp_sack *out)
{
    uint64_t steps = 0;
    uint32_t at = find_interval(o, seq + 1, &steps);

    if (o->has_fin && seq == o->fin_seq) {
        at = find_interval(o, seq, &steps); /* it may end there */
        *out = (struct tcp_sack){ seq, seq + 1 };
        if (at < o->count && o->iv[at].end == seq)
            out->start = o->iv[at].start;
        return true;
    }
    if (at >= o->count || seq_lt(seq, o->iv[at].start))
        return false;
    *out = (struct tcp_sack){ o->iv[at].start, o->iv[at].end + (o->has_fin && o->iv[at].end == o->fin_seq) };
    return true;
}

/* Return: how many there are now, with @b if it was not among those from @first on. */
static int add_block(struct tcp_sack out[4], int first, int n, struct tcp_sack b)
{
    for (int k = first; k < n; k++) {
        if (out[k].start == b.start)
            return n;
    }
    out[n] = b;
    return n + 1;
}

/* ACK-3: the island of the newest segment first, then those of the ones before, then as many others as there is room for
 * (RFC 2018 section 4). */
int tcp_recv_sacks(const struct tcp_conn *c, struct tcp_sack out[4], int max)
{
    const struct ooo_set *o = c->ooo;
    struct tcp_sack b;
    int n = 0, first;

    if (c->flags & CONN_DSACK)
        out[n++] = (struct tcp_sack){ c->dsack_start, c->dsack_start + c->dsack_len };
    first = n;
    if (o == NULL)
        return n;
    for (uint32_t i = 0; i < o->recents && n < max; i++) {
        if (island_at(o, o->recent[i], &b))
            n = add_block(out, first, n, b);
    }
    for (uint32_t i = o->count; i > 0 && n < max; i--) {
        if (island_at(o, o->iv[i - 1].start, &b))
            n = add_block(out, first, n, b);
    }
    return n;
}
