/* tcp_send.c - the send queue: bytes that the embedder received for the client, from tcp_tx_space() until
 * acknowledged.
 *
 * The queue is a list of chunks; each knows the sequence number of its first byte. tcp_tx_space() offers 64
 * KiB of a landing chunk that belongs to the shard, or the rest of the connection's last chunk;
 * tcp_tx_commit() donates the landing chunk, or copies a small result and keeps it (copy-break). A chunk goes
 * back when its last byte is acknowledged (DN-1). */
#include "tcp_impl.h"

#define MOVES_MS         100u
#define COMPACT_AFTER_MS 200u                   /* without progress */
#define COLD_MIN_BYTES   (2 * COPY_BREAK_BYTES) /* however many connections there are */

static uint32_t cold_most(const struct stack *s)
{
    return max_u32(UNSENT_BYTES,
                   s->cfg.snd_buffer_initial); /* whoever asks for a larger buffer wants to fill it */
}

/* What a connection may hold that cannot leave at once. With many of them that is an equal part of half of the memory, so that clients
 * that stopped reading cannot take what those that read live on (LIM-1). A part that no chunk fits is two small ones. */
static uint32_t cold_limit(const struct stack *s)
{
    size_t part = s->cfg.buffer_cap_bytes / 2 / (s->tcp->conns.slab.in_use + 1);

    if (part < s->blocks[BLOCK_CHUNK16].slab.object_bytes)
        return COLD_MIN_BYTES;
    return part < cold_most(s) ? (uint32_t)part : cold_most(s);
}

uint32_t tcp_send_limit(const struct tcp_conn *c)
{
    const struct stack_config *cfg = &c->s->cfg;
    uint32_t limit = cfg->snd_buffer_initial;

    switch (tcp_pressure(c->s)) { /* LIM-1: what its client does not take now can stay upstream */
    case PRESSURE_NONE:
        return max_u32(limit, min_u32(2 * c->cwnd, cfg->snd_buffer_max));
    case PRESSURE_NO_GROWTH:
        break;
    case PRESSURE_SHRINK:
    case PRESSURE_REFUSE:
        return min_u32(limit, max_u32(limit / 4, 2 * (c->snd_nxt - c->snd_una)));
    }
    return limit;
}

size_t tcp_tx_queued(const struct tcp_conn *c)
{
    if (c->state == TCPS_SYN_RECEIVED)
        return c->snd_end - c->snd_una - 1;
    return seq_lt(c->snd_una, c->snd_end) ? c->snd_end - c->snd_una : 0;
}

uint32_t tcp_tx_unsent(const struct tcp_conn *c)
{
    return c->flags & CONN_FIN_SENT ? 0 : c->snd_end - c->snd_nxt;
}

/* Bytes queued that could not leave at once. */
static uint32_t backlog(const struct tcp_conn *c)
{
    uint32_t now = tcp_sendable(c);

    return tcp_tx_unsent(c) > now ? tcp_tx_unsent(c) - now : 0;
}

void tcp_wake_writer(struct tcp_conn *c)
{
    if ((c->flags & CONN_WANT_WRITE) && tcp_tx_queued(c) <= tcp_send_limit(c) / 3 * 2 &&
        backlog(c) <= cold_limit(c->s) / 2) {
        c->flags &= ~(uint32_t)CONN_WANT_WRITE;
        c->flags |= CONN_EV_WRITABLE;
    }
}

void tcp_send_acked(struct tcp_conn *c)
{
    struct block *b;

    while ((b = c->snd_head) != NULL && seq_le(b->seq + b->fill, c->snd_una)) {
        c->snd_head = b->next;
        if (c->snd_head == NULL)
            c->snd_tail = NULL;
        block_put(c->s, b);
    }
}

void tcp_send_clear(struct tcp_conn *c)
{
    struct block *b;

    while ((b = c->snd_head) != NULL) {
        c->snd_head = b->next;
        block_put(c->s, b);
    }
    c->snd_tail = NULL;
}

int tcp_send_ranges(struct block *b, uint32_t seq, uint32_t *len, struct iovec *iov, int max)
{
    uint32_t done = 0;
    int n = 0;

    for (b = tcp_block_at(b, seq); b != NULL && done < *len && n < max; b = b->next) {
        uint32_t off = seq + done - b->seq, part = min_u32(b->fill - off, *len - done);

        iov[n++] = (struct iovec){ .iov_base = block_data(b) + off, .iov_len = part };
        done += part;
    }
    *len = done;
    return n;
}

static void append_chunk(struct tcp_conn *c, struct block *b, uint32_t seq)
{
    b->next = NULL;
    b->seq = seq;
    if (c->snd_tail != NULL)
        c->snd_tail->next = b;
    else
        c->snd_head = b;
    c->snd_tail = b;
}

/* ---- compaction ------------------------------------------------------------------------------------------ */

/* Copies @len bytes from @seq on, which begin in @from, into chunks that they fill. Return: the first; NULL: no memory */
static struct block *copy_dense(struct tcp_conn *c, struct block *from, uint32_t seq, uint32_t len)
{
    struct block *first = NULL, *b = NULL;

    while (len > 0) {
        uint32_t off = seq - from->seq, part = min_u32(from->fill - off, len);

        if (b == NULL || b->fill == b->bytes) {
            struct block *fresh = block_get(c->s, len <= COPY_BREAK_BYTES ? BLOCK_CHUNK2 : BLOCK_CHUNK16);

            if (fresh == NULL)
                break;
            fresh->seq = seq;
            fresh->fill = 0;
            if (b != NULL)
                b->next = fresh;
            else
                first = fresh;
            b = fresh;
        }
        part = min_u32(part, b->bytes - b->fill);
        payload_copy(c->s, block_data(b) + b->fill, block_data(from) + off, part);
        b->fill += part;
        seq += part;
        len -= part;
        if (seq == from->seq + from->fill)
            from = from->next;
    }
    for (struct block *next; len > 0 && first != NULL; first = next) {
        next = first->next;
        block_put(c->s, first);
    }
    return first;
}

static void replace_chunks(struct tcp_conn *c, struct block *first)
{
    tcp_send_clear(c);
    c->snd_head = first;
    for (c->snd_tail = first; c->snd_tail->next != NULL;)
        c->snd_tail = c->snd_tail->next;
    for (struct segment *seg = c->fl->seg_head; seg != NULL; seg = seg->next)
        if (seg->block != NULL)
            seg->block = tcp_block_at(first, seg->seq);
}

/* What a client does not take, on its way or not, sits in chunks that may hold much more. */
void tcp_send_compact(struct tcp_conn *c)
{
    uint32_t queued = (uint32_t)tcp_tx_queued(c), dense, held = 0;
    struct block *first;

    if (queued == 0 || c->state == TCPS_SYN_RECEIVED || now_ms(c->s) - c->progress_ms < COMPACT_AFTER_MS)
        return;
    for (const struct block *b = c->snd_head; b != NULL; b = b->next)
        held += b->bytes;
    dense = queued <= COPY_BREAK_BYTES ? COPY_BREAK_BYTES
                                       : (queued + COMPACT_BYTES - 1) / COMPACT_BYTES * COMPACT_BYTES;
    if (held < dense + COPY_BREAK_BYTES)
        return;
    first = copy_dense(c, tcp_block_at(c->snd_head, c->snd_una), c->snd_una, queued);
    if (first != NULL)
        replace_chunks(c, first);
}

/* ---- filling it -------------------------------------------------------------------------------------- */

static bool may_queue(const struct tcp_conn *c)
{
    return !(c->flags & (CONN_DEAD | CONN_FIN_QUEUED | CONN_RELEASED));
}

/* As much as one super-segment carries, so that one recv() becomes one packet of whole segments (DN-4). */
static uint32_t space_in(const struct tcp_conn *c, const struct block *b)
{
    return min_u32(b->bytes - b->fill, tcp_payload_most(c) / c->mss * c->mss);
}

static struct block *landing_chunk(struct stack *s)
{
    struct tcp_shard *t = s->tcp;

    if (t->landing == NULL)
        t->landing = block_get(s, BLOCK_CHUNK64);
    if (t->landing == NULL)
        t->landing = block_get(s, BLOCK_CHUNK16);
    if (t->landing != NULL)
        t->landing->fill = 0;
    return t->landing;
}

/* Its client has taken nothing for a while of what is queued. When memory is short, what is left is for those that move. */
static bool moves(const struct tcp_conn *c)
{
    return tcp_tx_queued(c) == 0 || now_ms(c->s) - c->progress_ms < MOVES_MS;
}

/* How much more may be queued; 0: nothing now. What a stalled client's last recv() brings would stay, too. */
static uint32_t room_for(const struct tcp_conn *c)
{
    uint32_t limit = tcp_send_limit(c), queued = (uint32_t)tcp_tx_queued(c), now = tcp_sendable(c);
    uint32_t cold = cold_limit(c->s), room = now + cold;

    if (queued >= limit || tcp_tx_unsent(c) >= room) /* DN-3 */
        return 0;
    if (tcp_pressure(c->s) >= PRESSURE_SHRINK && !moves(c))
        return 0;
    room -= tcp_tx_unsent(c);
    if (tcp_tx_unsent(c) >= now && cold == COLD_MIN_BYTES && room > COPY_BREAK_BYTES)
        room = COPY_BREAK_BYTES; /* into a small chunk */
    if (tcp_pressure(c->s) != PRESSURE_NONE && room > limit - queued)
        room = max_u32(limit - queued, c->mss);
    return room;
}

size_t tcp_tx_space(struct tcp_conn *c, uint8_t **out)
{
    struct tcp_shard *t = c->s->tcp;
    struct block *b = c->snd_tail;
    uint32_t room;

    t->space_for = NULL;
    if (!may_queue(c))
        return 0;
    room = room_for(c);
    if (room == 0) {
        c->flags |= CONN_WANT_WRITE;
        return 0;
    }
    if (b == NULL || b->bytes - b->fill < CHUNK_REUSE_BYTES)
        b = landing_chunk(c->s);
    if (b == NULL) {
        COUNT(c->s, tcp_no_memory);
        c->flags |= CONN_WANT_WRITE | CONN_STARVED;
        tcp_timer_set(c, TIMER_ACK,
                      NO_MEMORY_RETRY_US); /* no ACK may be on its way that would wake the writer */
        return 0;
    }
    t->space_for = c;
    t->space = b;
    *out = block_data(b) + b->fill;
    return min_u32(space_in(c, b), room);
}

/* Results below this are copied to a chunk of their size, so that a few bytes do not hold 64 KiB until they are
 * acknowledged. When memory is short, or there are many who may not read, that is worth more than the copy costs. */
static uint32_t copy_below(const struct tcp_conn *c, uint32_t len)
{
    bool leaves = tcp_tx_unsent(c) + len <= tcp_sendable(c) || cold_limit(c->s) >= UNSENT_BYTES;

    return tcp_pressure(c->s) == PRESSURE_NONE && leaves ? COPY_BREAK_BYTES : COMPACT_BYTES;
}

/* Copies @len bytes, less than copy_below(), behind the last chunk's, and into a small chunk of its own what does
 * not fit there. */
static bool copy_break(struct tcp_conn *c, const uint8_t *data, uint32_t len)
{
    struct block *tail = c->snd_tail, *fresh = NULL;
    uint32_t room = tail != NULL ? tail->bytes - tail->fill : 0, first = min_u32(len, room);

    if (first < len) {
        bool small = len - first <= COPY_BREAK_BYTES && tcp_tx_queued(c) < 2 * COPY_BREAK_BYTES;

        fresh = block_get(c->s, small ? BLOCK_CHUNK2 : BLOCK_CHUNK16);
        if (fresh == NULL)
            return false;
    }
    if (first > 0) {
        payload_copy(c->s, block_data(tail) + tail->fill, data, first);
        tail->fill += first;
    }
    if (fresh != NULL) {
        payload_copy(c->s, block_data(fresh), data + first, len - first);
        fresh->fill = len - first;
        append_chunk(c, fresh, c->snd_end + first);
    }
    return true;
}

void tcp_tx_commit(struct tcp_conn *c, size_t n)
{
    struct tcp_shard *t = c->s->tcp;
    struct block *b = t->space;
    uint32_t len = (uint32_t)n;

    assert(t->space_for == c && n <= b->bytes - b->fill);
    t->space_for = NULL;
    if (n == 0)
        return;
    if (b == c->snd_tail) {
        b->fill += len;
    } else if (len >= copy_below(c, len) || !copy_break(c, block_data(b), len)) {
        b->fill = len;
        append_chunk(c, b, c->snd_end);
        t->landing = NULL;
    }
    c->snd_end += len;
    tcp_output_full(c);
    tcp_ready(c);
}
