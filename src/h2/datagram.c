/* datagram.c - HTTP datagrams on a stream (RFC 9297): the queue they leave from, and capsules out of what has come.
 *
 * How it works. A queue holds whole capsules with their deadlines and is asked for bytes when the connection can write, as late as
 * possible, so that what is too old never leaves (icmp.md T7). A capsule that was begun must be finished: HTTP/2 may cut it
 * anywhere. Received capsules stay in the stream's blocks until one is whole, which the window is large enough for, so no
 * memory is needed to put them together. */
#include "h2_impl.h"

struct record { /* in the ring, before its capsule */
    uint64_t deadline_us;
    uint32_t len;
    bool keep; /* not dropped by age */
    uint8_t data[];
};

struct queue {
    struct ring ring;
    uint32_t done; /* bytes of the first record that have left */
};

/* ---- the queue ---- */

static const struct record *first(struct queue *q)
{
    size_t len;

    return ring_peek(&q->ring, &len);
}

static void pop(struct queue *q)
{
    ring_pop(&q->ring);
    q->done = 0;
    if (ring_is_empty(&q->ring)) /* from the front again: only what waits at a time is ever touched */
        ring_init(&q->ring, q->ring.data, q->ring.cap, q->ring.max_records);
}

bool queue_is_empty(const struct queue *q)
{
    return ring_is_empty(&q->ring);
}

size_t queue_bytes(const struct queue *q)
{
    return q ? sizeof(*q) + q->ring.cap : 0;
}

void queue_free(struct queue *q)
{
    if (!q)
        return;
    free(q->ring.data);
    free(q);
}

static void drop_expired(struct h2_stream *s, uint64_t now_us)
{
    const struct record *r;

    while (s->queue->done == 0 && (r = first(s->queue)) != NULL && !r->keep && r->deadline_us <= now_us) {
        counter_add(&s->h->cnt.datagrams_expired, 1);
        pop(s->queue);
    }
}

size_t queue_read(struct h2_stream *s, uint8_t *to, size_t len, uint64_t now_us)
{
    struct queue *q = s->queue;
    size_t got = 0;

    for (;;) {
        const struct record *r;
        size_t n;

        drop_expired(s, now_us);
        r = first(q);
        if (!r || got == len)
            return got;
        n = r->len - q->done;
        if (n > len - got) {
            if (got > 0 && r->len <= FRAME_DATA_MAX)
                return got; /* not cut without need: the next frame has room for all of it */
            n = len - got;
        }
        memcpy(to + got, r->data + q->done, n);
        got += n;
        q->done += (uint32_t)n;
        if (q->done == r->len)
            pop(q);
    }
}

int h2_datagrams(struct h2_stream *s, const struct h2_datagram_options *opt)
{
    struct h2 *h = s->h;
    struct queue *q = calloc(1, sizeof(*q));
    void *memory = q ? calloc(1, opt->bytes) : NULL;

    assert(!s->queue && (opt->bytes & (opt->bytes - 1)) == 0);
    if (!memory) {
        free(q);
        return -ENOMEM;
    }
    ring_init(&q->ring, memory, opt->bytes, opt->frames);
    s->queue = q;
    if (s->over)
        return 0;
    if (nghttp2_session_set_local_window_size(h->ng, NGHTTP2_FLAG_NONE, s->id, STREAM_WINDOW_DATAGRAMS) ==
        0) {
        h->grown_bytes += STREAM_WINDOW_DATAGRAMS - s->window;
        s->window = STREAM_WINDOW_DATAGRAMS;
    }
    if (opt->urgent) {
        nghttp2_priority_spec spec;

        nghttp2_priority_spec_init(&spec, 0, NGHTTP2_MAX_WEIGHT, 0);
        (void)nghttp2_session_change_stream_priority(h->ng, s->id, &spec);
        if (!h->urgent) {
            h->urgent = true;
            io_low_water(h);
        }
    }
    h2_kick(h);
    return 0;
}

/* Room for one more, the oldest making way. NULL: the first has begun to leave and there is no more room. */
static struct record *make_room(struct h2_stream *s, size_t len)
{
    struct queue *q = s->queue;

    for (;;) {
        struct record *r = ring_reserve(&q->ring, sizeof(*r) + len);
        const struct record *oldest;

        if (r)
            return r;
        oldest = first(q);
        if (!oldest || oldest->keep || q->done > 0)
            return NULL;
        counter_add(&s->h->cnt.datagrams_dropped, 1);
        pop(q);
    }
}

int h2_datagram_send(struct h2_stream *s, uint64_t context, const struct iovec *iov, int iovcnt,
                     uint64_t deadline_us)
{
    uint8_t head[CAPSULE_HEAD_MAX], id[VARINT_BYTES_MAX];
    size_t len = 0, head_len, id_len = varint_put(id, context);
    struct record *r;
    uint8_t *to;

    if (!s->queue || s->shut || s->over || s->broken != 0)
        return -EPIPE;
    for (int i = 0; i < iovcnt; i++)
        len += iov[i].iov_len;
    if (len > H2_DATAGRAM_MAX - VARINT_BYTES_MAX)
        return -EMSGSIZE;
    head_len = capsule_head_put(head, CAPSULE_DATAGRAM, id_len + len);
    r = make_room(s, head_len + id_len + len);
    if (!r) {
        counter_add(&s->h->cnt.datagrams_dropped, 1);
        return 0;
    }
    r->deadline_us = deadline_us;
    r->len = (uint32_t)(head_len + id_len + len);
    r->keep = false;
    memcpy(r->data, head, head_len);
    memcpy(r->data + head_len, id, id_len);
    to = r->data + head_len + id_len;
    for (int i = 0; i < iovcnt; to += iov[i++].iov_len)
        if (iov[i].iov_len > 0)
            memcpy(to, iov[i].iov_base, iov[i].iov_len);
    ring_commit(&s->queue->ring);
    stream_resume(s);
    return 0;
}

int h2_capsule_send(struct h2_stream *s, uint64_t type, const void *value, size_t len)
{
    uint8_t head[CAPSULE_HEAD_MAX];
    size_t head_len = capsule_head_put(head, type, len);
    struct record *r;

    if (!s->queue || s->shut || s->over || s->broken != 0)
        return -EPIPE;
    r = len <= 65535 ? ring_reserve(&s->queue->ring, sizeof(*r) + head_len + len) : NULL;
    if (!r)
        return len <= 65535 ? -EAGAIN : -EMSGSIZE;
    r->len = (uint32_t)(head_len + len);
    r->keep = true;
    memcpy(r->data, head, head_len);
    memcpy(r->data + head_len, value, len);
    ring_commit(&s->queue->ring);
    stream_resume(s);
    return 0;
}

/* ---- capsules that have come ---- */

static bool is_wanted(uint64_t type)
{
    return type <= CAPSULE_ROUTE_ADVERTISEMENT;
}

/* Bytes that nobody wants go as they come. */
static void skip_some(struct h2_stream *s)
{
    size_t n = s->skip < s->in.len ? (size_t)s->skip : s->in.len;

    n = chain_get(&s->h->blocks, &s->in, NULL, n);
    s->skip -= n;
    if (n > 0)
        stream_took(s, n);
}

static int starved(struct h2_stream *s)
{
    if (!s->ended_in)
        return -EAGAIN;
    s->told_end = true;
    return s->in.len == 0 && s->skip == 0 ? 0 : -EBADMSG; /* RFC 9297 section 3.3 */
}

int h2_capsule_recv(struct h2_stream *s, void *memory, size_t cap, struct capsule *out)
{
    for (;;) {
        uint8_t head[CAPSULE_HEAD_MAX];
        struct span at;
        uint64_t type, len;
        size_t head_len;

        skip_some(s);
        at = (struct span){ head, chain_peek(&s->in, head, sizeof(head)) };
        if (s->skip > 0 || capsule_head_get(&at, &type, &len) != 0)
            return starved(s);
        head_len = (size_t)(at.data - head);
        if (!is_wanted(type) || len > cap || len + head_len > STREAM_WINDOW_DATAGRAMS) {
            counter_add(&s->h->cnt.capsules_skipped, 1);
            s->skip = head_len + len;
            continue;
        }
        if (s->in.len - head_len < len)
            return starved(s);
        chain_get(&s->h->blocks, &s->in, NULL, head_len);
        chain_get(&s->h->blocks, &s->in, memory, (size_t)len);
        stream_took(s, head_len + (size_t)len);
        *out = (struct capsule){ type, memory, (size_t)len };
        return 1;
    }
}
