/* stream.c - one stream as its owner sees it: bytes in and out under flow control, half closes, resets.
 *
 * How it works. What arrives waits in blocks until the owner takes it, and only then the window opens again, so a slow owner
 * holds up its own sender and nobody else. What is to be sent waits in blocks until nghttp2 asks for it, which it does when
 * stream and connection may send. A stream is freed when its owner and nghttp2 have both let go of it. */
#include "h2_impl.h"

/* A stream that takes a whole window within so many round trips, or this time at least, is held up by it. Windows beyond that are a
 * queue in the other side's socket, and pings stand in it: with 20 ms instead of 4 they took 45 ms instead of 26 beside downloads. */
#define GROW_RTTS   2
#define GROW_MIN_US UINT64_C(4000)
#define LINGER_US   UINT64_C(10000000) /* for their end, after we let go of a stream that we have ended */

/* ---- life ---- */

struct h2_stream *stream_new(struct h2 *h)
{
    struct h2_stream *s = slab_get(&h->slab);

    if (!s)
        return NULL;
    s->h = h;
    s->want = LOOP_READ;
    s->window = STREAM_WINDOW;
    s->next = h->streams;
    if (s->next)
        s->next->prev = s;
    h->streams = s;
    return s;
}

static void drop_memory(struct h2_stream *s)
{
    struct h2 *h = s->h;

    if (s->in.len > 0 && !h->finished)
        (void)nghttp2_session_consume_connection(h->ng, s->in.len);
    chain_drop(&h->blocks, &s->in);
    chain_drop(&h->blocks, &s->out);
    queue_free(s->queue);
    s->queue = NULL;
}

void stream_free(struct h2_stream *s)
{
    struct h2 *h = s->h;

    stream_unready(s);
    wheel_cancel(h->opt.wheel, &s->linger);
    drop_memory(s);
    h->grown_bytes -= s->window - STREAM_WINDOW;
    if (h->running == s)
        h->running = NULL;
    if (s->next)
        s->next->prev = s->prev;
    if (s->prev)
        s->prev->next = s->next;
    else
        h->streams = s->next;
    slab_put(&h->slab, s);
}

/* ---- who has something to hear ---- */

void stream_ready(struct h2_stream *s)
{
    struct h2 *h = s->h;

    if (s->is_ready || !s->owned)
        return;
    s->is_ready = true;
    s->ready_next = NULL;
    s->ready_prev = h->ready_last;
    if (h->ready_last)
        h->ready_last->ready_next = s;
    else
        h->ready_first = s;
    h->ready_last = s;
    if (h->depth == 0)
        h2_later(h);
}

void stream_unready(struct h2_stream *s)
{
    struct h2 *h = s->h;

    if (!s->is_ready)
        return;
    s->is_ready = false;
    if (s->ready_next)
        s->ready_next->ready_prev = s->ready_prev;
    else
        h->ready_last = s->ready_prev;
    if (s->ready_prev)
        s->ready_prev->ready_next = s->ready_next;
    else
        h->ready_first = s->ready_next;
}

static bool can_read(const struct h2_stream *s)
{
    return s->in.len > 0 || (s->ended_in && !s->told_end);
}

/* Half of it is free: not a wake-up for every frame that leaves. */
static bool can_write(const struct h2_stream *s)
{
    if (s->broken != 0)
        return false;
    return !s->shut && !s->queue && (s->over || s->out.len <= stream_send_room(s));
}

bool stream_has_news(const struct h2_stream *s)
{
    if (s->broken != 0)
        return s->in.len == 0 || (s->want & LOOP_READ) != 0;
    return ((s->want & LOOP_READ) != 0 && can_read(s)) || ((s->want & LOOP_WRITE) != 0 && can_write(s));
}

void h2_want(struct h2_stream *s, unsigned events)
{
    s->want = (uint8_t)events;
    if (stream_has_news(s))
        stream_ready(s);
}

void stream_break(struct h2_stream *s, int err, uint32_t code)
{
    if (s->broken != 0)
        return;
    s->broken = err;
    s->code = code;
    stream_ready(s);
}

/* ---- receiving ---- */

/* A window that was taken within two round trips is what holds the sender up: twice as much, while there is memory for it. */
static void grow_window(struct h2_stream *s, size_t n)
{
    struct h2 *h = s->h;
    uint64_t now_us = loop_now_us(h->opt.loop);
    uint64_t fast_us = h->rtt_us * GROW_RTTS > GROW_MIN_US ? h->rtt_us * GROW_RTTS : GROW_MIN_US;
    uint32_t more = s->window;

    s->grow_bytes += (uint32_t)n;
    if (s->grow_bytes < s->window)
        return;
    if (now_us - s->grow_since_us <= fast_us && s->window + more <= STREAM_WINDOW_GROWN &&
        h->grown_bytes + more <= h->opt.receive_bytes / 2 &&
        nghttp2_session_set_local_window_size(h->ng, NGHTTP2_FLAG_NONE, s->id, (int32_t)(s->window + more)) ==
            0) {
        s->window += more;
        h->grown_bytes += more;
    }
    s->grow_bytes = 0;
    s->grow_since_us = now_us;
}

void stream_took(struct h2_stream *s, size_t n)
{
    struct h2 *h = s->h;

    if (s->over || s->ended_in) {
        (void)nghttp2_session_consume_connection(h->ng, n);
    } else {
        (void)nghttp2_session_consume(h->ng, s->id, n);
        grow_window(s, n);
    }
    if (nghttp2_session_want_write(h->ng))
        h2_kick(h);
}

ssize_t h2_recv(struct h2_stream *s, void *to, size_t len)
{
    size_t n = chain_get(&s->h->blocks, &s->in, to, len);

    if (n > 0) {
        stream_took(s, n);
        return (ssize_t)n;
    }
    if (!s->ended_in)
        return -EAGAIN;
    s->told_end = true;
    return 0;
}

/* ---- sending ---- */

/* How much may wait: its part of the connection's memory, and never nothing. */
static size_t send_limit(const struct h2_stream *s)
{
    size_t part = s->h->opt.send_bytes / (s->h->slab.in_use + 1);

    return part > STREAM_SEND_MAX ? STREAM_SEND_MAX : part < STREAM_SEND_MIN ? STREAM_SEND_MIN : part;
}

size_t stream_send_room(const struct h2_stream *s)
{
    return send_limit(s) / 2;
}

static ssize_t read_source(nghttp2_session *ng, int32_t id, uint8_t *to, size_t len, uint32_t *flags,
                           nghttp2_data_source *source, void *arg)
{
    struct h2_stream *s = source->ptr;
    size_t n, most = len < FRAME_DATA_MAX ? len : FRAME_DATA_MAX;
    bool empty;

    (void)ng, (void)id, (void)arg;
    if (s->queue) {
        n = queue_read(s, to, most, loop_now_us(s->h->opt.loop));
        empty = queue_is_empty(s->queue);
    } else {
        n = chain_get(&s->h->blocks, &s->out, to, most);
        empty = s->out.len == 0;
    }
    if (empty && s->shut) {
        s->ended_out = true;
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    } else if (n == 0) {
        s->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (stream_has_news(s))
        stream_ready(s);
    return (ssize_t)n;
}

nghttp2_data_provider stream_source(struct h2_stream *s)
{
    s->has_source = true;
    return (nghttp2_data_provider){ .source.ptr = s, .read_callback = read_source };
}

void stream_resume(struct h2_stream *s)
{
    if (s->deferred && !s->over) {
        s->deferred = false;
        (void)nghttp2_session_resume_data(s->h->ng, s->id);
    }
    h2_kick(s->h);
}

void h2_cork(struct h2_stream *s)
{
    s->h->depth++;
}

void h2_uncork(struct h2_stream *s)
{
    struct h2 *h = s->h;

    h->depth--;
    h2_kick(h);
}

ssize_t h2_sendv(struct h2_stream *s, const struct iovec *iov, int iovcnt)
{
    size_t limit = send_limit(s), taken = 0;

    if (s->shut || s->over || s->queue || s->broken != 0)
        return -EPIPE;
    for (int i = 0; i < iovcnt && s->out.len < limit; i++) {
        size_t n = iov[i].iov_len, room = limit - s->out.len, before = s->out.len;

        n = n < room ? n : room;
        if (!chain_put(&s->h->blocks, &s->out, iov[i].iov_base, n)) {
            taken += s->out.len - before;
            break;
        }
        taken += n;
    }
    if (taken == 0)
        return -EAGAIN;
    stream_resume(s);
    return (ssize_t)taken;
}

void h2_shutdown(struct h2_stream *s)
{
    if (s->shut || s->over)
        return;
    s->shut = true;
    stream_resume(s);
}

bool h2_unsent(const struct h2_stream *s)
{
    return !s->over &&
           (s->out.len > 0 || (s->shut && !s->ended_out) || (s->queue && !queue_is_empty(s->queue)));
}

/* ---- opening, answering, closing ---- */

int h2_request(struct h2 *h, const struct h2_head *head, const struct h2_stream_events *events, void *arg,
               struct h2_stream **out)
{
    nghttp2_nv nv[HEAD_NV_MAX];
    char status[4];
    size_t n = head_nv(head, status, nv);
    struct h2_stream *s;
    nghttp2_data_provider source;

    assert(!h->opt.server && loop_is_mine(h->opt.loop));
    if (h->draining || h->finished || h->fatal)
        return -ESHUTDOWN;
    if (head->protocol && !h2_has_extended_connect(h))
        return -EOPNOTSUPP;
    if (!h2_can_open(h))
        return -EBUSY;
    s = n > 0 ? stream_new(h) : NULL;
    if (!s)
        return -ENOMEM;
    s->events = events;
    s->arg = arg;
    s->owned = true;
    source = stream_source(s);
    s->id = nghttp2_submit_request(h->ng, NULL, nv, n, head->end ? NULL : &source, s);
    if (s->id < 0) {
        int r = s->id == NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE ? -ESHUTDOWN : -ENOMEM;

        stream_free(s);
        return r;
    }
    s->shut = s->ended_out = head->end;
    counter_add(&h->cnt.streams, 1);
    h2_kick(h);
    *out = s;
    return 0;
}

void h2_accept(struct h2_stream *s, const struct h2_stream_events *events, void *arg)
{
    s->events = events;
    s->arg = arg;
    s->owned = true;
}

void h2_hand_over(struct h2_stream *s, const struct h2_stream_events *events, void *arg)
{
    s->events = events;
    s->arg = arg;
}

int h2_respond(struct h2_stream *s, const struct h2_head *head)
{
    nghttp2_nv nv[HEAD_NV_MAX];
    char status[4];
    size_t n = head_nv(head, status, nv);
    nghttp2_data_provider source;
    int r;

    if (s->answered || s->over || s->broken != 0)
        return -EALREADY;
    source = stream_source(s);
    r = n > 0 ? nghttp2_submit_response(s->h->ng, s->id, nv, n, head->end ? NULL : &source)
              : NGHTTP2_ERR_NOMEM;
    if (r != 0)
        return -ENOMEM;
    s->answered = true;
    if (head->end)
        s->shut = s->ended_out = true;
    h2_kick(s->h);
    return 0;
}

void stream_reset(struct h2_stream *s, enum h2_code code)
{
    if (s->reset || s->over)
        return;
    s->reset = true;
    drop_memory(s);
    (void)nghttp2_submit_rst_stream(s->h->ng, NGHTTP2_FLAG_NONE, s->id, (uint32_t)code);
    h2_kick(s->h);
}

void h2_stream_close(struct h2_stream *s, enum h2_code code)
{
    struct h2 *h;

    if (!s || !s->owned) /* told that it is over, or being told */
        return;
    h = s->h;
    s->owned = false;
    stream_unready(s);
    if (h->running == s)
        h->running = NULL;
    if (s->over) {
        stream_free(s);
        return;
    }
    /* All was said: the rest leaves by itself, and what a client still sends is not wanted then (RFC 9113 section 8.1). */
    if (s->shut && (s->ended_in || h->opt.server))
        return;
    stream_reset(s, code);
}

static void on_linger(struct wheel_timer *t, uint64_t now_us)
{
    (void)now_us;
    stream_reset(CONTAINER_OF(t, struct h2_stream, linger), H2_CANCEL);
}

void h2_stream_linger(struct h2_stream *s)
{
    struct h2 *h;

    if (!s || !s->owned || !s->shut || s->over || s->ended_in) {
        h2_stream_close(s, H2_CANCEL);
        return;
    }
    h = s->h;
    s->owned = false;
    stream_unready(s);
    if (h->running == s)
        h->running = NULL;
    s->linger.fn = on_linger;
    wheel_set(h->opt.wheel, &s->linger, loop_now_us(h->opt.loop) + LINGER_US);
    /* last, since this may write, and find that it is over: then it is free */
    stream_took(s, chain_get(&h->blocks, &s->in, NULL, s->in.len));
}
