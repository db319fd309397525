/* session.c - a connection's life, and what nghttp2 tells of it.
 *
 * How it works. nghttp2 keeps the states of RFC 9113; we turn its callbacks into streams and their owners' events. SETTINGS go
 * out first, with a PING whose answer gives the round-trip time. Flow control is ours: windows open as owners take bytes
 * (no_auto_window_update).
 *
 * What a peer can do to us is bounded (faults.md 15): concurrent streams and the size of a head by SETTINGS; PING, SETTINGS,
 * PRIORITY, RST_STREAM and empty DATA by an allowance of 1,000 that fills up by 200 a second, since each costs us work and none
 * of them costs the sender window; their unread answers by nghttp2 (1,000); CONTINUATION by the size of a head and by nghttp2.
 *
 * Left out: server push (refused by SETTINGS), priorities of peers (RFC 9113 section 5.3.2 deprecates them). */
#include "h2_impl.h"

#include <stdio.h>

#define CALM_MAX       1000u
#define CALM_REFILL_US UINT64_C(5000) /* one each */
#define PING_REPLY_MS  15000u
#define IDLE_TRIM_US   UINT64_C(5000000)

/* ---- the end ---- */

void h2_fail(struct h2 *h, int err, const char *fmt, ...)
{
    va_list ap;

    if (h->fatal)
        return;
    va_start(ap, fmt);
    vsnprintf(h->why, sizeof(h->why), fmt, ap);
    va_end(ap);
    h->fatal = true;
    h->err = err;
    if (h->depth == 0)
        h2_later(h);
}

static void free_all(struct h2 *h)
{
    h->finished = true;
    while (h->streams)
        stream_free(h->streams);
    nghttp2_session_del(h->ng);
    h2_blocks_fini(&h->blocks);
    slab_fini(&h->slab);
    free(h);
}

/* Everybody hears of it; what they close meanwhile is closed. */
static void finish(struct h2 *h)
{
    h->finished = true;
    io_stop(h);
    wheel_cancel(h->opt.wheel, &h->quiet);
    for (struct h2_stream *s = h->streams; s && !h->closed; s = h->streams) {
        int err = s->broken != 0 ? s->broken : h->err != 0 ? h->err : -ECONNRESET;

        s->over = true;
        if (s->owned) {
            h->running = s;
            if (s->in.len > 0 && (s->want & LOOP_READ) != 0)
                s->events->on_readable(s->arg);
            if (h->running == s) {
                s->owned = false;
                s->events->on_closed(s->arg, err, s->code);
            } else if (!h->closed) { /* closed by its owner, and free */
                continue;
            }
        }
        if (!h->closed)
            stream_free(s);
    }
    if (!h->closed)
        h->opt.events->on_closed(h->opt.arg, h->err, h->why);
    h->closed = true;
}

static bool is_over(struct h2 *h)
{
    if (h->fatal)
        return true;
    if (nghttp2_session_want_read(h->ng) || nghttp2_session_want_write(h->ng) || h->out_len > 0 ||
        h->frame_len > 0)
        return false;
    if (!h->draining) /* nghttp2 gave up on it, with a GOAWAY of its own */
        h2_fail(h, -EPROTO, h->settings ? "broke the rules of HTTP/2" : "does not speak HTTP/2");
    else if (!h->why[0])
        snprintf(h->why, sizeof(h->why), "ended the connection");
    return true;
}

void h2_enter(struct h2 *h)
{
    h->depth++;
}

void h2_leave(struct h2 *h)
{
    if (h->depth == 1 && !h->closed && is_over(h)) {
        if (h->fatal && h->err != -ECONNRESET) { /* GOAWAY with the reason, if it goes */
            if (h->err == -EBUSY)
                (void)nghttp2_session_terminate_session(h->ng, NGHTTP2_ENHANCE_YOUR_CALM);
            io_write(h);
        }
        finish(h);
    }
    if (--h->depth == 0 && h->closed)
        free_all(h);
}

void h2_kick(struct h2 *h)
{
    if (h->depth > 0 || h->closed)
        return;
    h2_enter(h);
    io_write(h);
    if (h->ready_first)
        h2_later(h);
    if (h->depth == 1 && is_over(h)) /* told in the next turn: the caller is in the middle of something */
        h2_later(h);
    h->depth--;
}

void h2_later(struct h2 *h)
{
    if (!wheel_is_set(&h->soon) && !h->closed)
        wheel_set(h->opt.wheel, &h->soon, loop_now_us(h->opt.loop));
}

/* ---- what nghttp2 tells ---- */

/* Return: false when the peer has used up its allowance. */
static bool bothered(struct h2 *h)
{
    uint64_t now_us = loop_now_us(h->opt.loop), more = (now_us - h->calm_us) / CALM_REFILL_US;

    if (more > 0) {
        h->calm = h->calm + more > CALM_MAX ? CALM_MAX : h->calm + (uint32_t)more;
        h->calm_us = now_us;
    }
    if (h->calm > 0) {
        h->calm--;
        return true;
    }
    h2_fail(h, -EBUSY, "floods the connection with control frames");
    return false;
}

static struct h2_stream *stream_of(struct h2 *h, int32_t id)
{
    return nghttp2_session_get_stream_user_data(h->ng, id);
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct h2 *h = arg;
    struct h2_stream *s;

    head_begin(h);
    if (!h->opt.server || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    s = stream_new(h);
    if (!s)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    s->id = frame->hd.stream_id;
    return nghttp2_session_set_stream_user_data(ng, s->id, s) == 0 ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
    (void)ng, (void)frame, (void)flags;
    head_add(arg, name, name_len, value, value_len);
    return 0;
}

static void on_request(struct h2 *h, struct h2_stream *s)
{
    static const struct h2_head too_large = { .status = 431, .end = true }; /* RFC 6585 section 5 */

    counter_add(&h->cnt.streams, 1);
    if (h->in_head.too_large) {
        counter_add(&h->cnt.refused, 1);
        (void)h2_respond(s, &too_large);
        return;
    }
    if (!h->draining)
        h->opt.events->on_request(h->opt.arg, s, &h->in_head.head);
    if (!s->owned && !h->closed && !s->answered) {
        counter_add(&h->cnt.refused, 1);
        stream_reset(s, H2_REFUSED_STREAM);
    }
}

static void on_response(struct h2 *h, struct h2_stream *s)
{
    if (s->answered || h->in_head.head.status < 200) /* a trailer, or 1xx */
        return;
    s->answered = true;
    if (h->in_head.too_large) {
        stream_reset(s, H2_PROTOCOL_ERROR);
        return;
    }
    if (s->owned && s->events->on_response) {
        h->running = s;
        s->events->on_response(s->arg, &h->in_head.head);
    }
}

static void on_headers(struct h2 *h, const nghttp2_frame *frame)
{
    struct h2_stream *s = stream_of(h, frame->hd.stream_id);

    if (!s)
        return;
    h->in_head.head.end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (h->in_head.head.end)
        s->ended_in = true;
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        on_request(h, s);
    else if (!h->opt.server)
        on_response(h, s);
    /* the owner may have closed it */
    s = h->closed ? NULL : stream_of(h, frame->hd.stream_id);
    if (s && stream_has_news(s))
        stream_ready(s);
}

static void on_data_end(struct h2 *h, const nghttp2_frame *frame)
{
    struct h2_stream *s = stream_of(h, frame->hd.stream_id);

    if (frame->hd.length == 0 && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0)
        bothered(h);
    if (!s || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0)
        return;
    s->ended_in = true;
    if (stream_has_news(s))
        stream_ready(s);
}

static void on_ping(struct h2 *h, const nghttp2_frame *frame)
{
    uint64_t sent_us;

    if ((frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
        counter_add(&h->cnt.pings_received, 1);
        bothered(h);
        return;
    }
    memcpy(&sent_us, frame->ping.opaque_data, sizeof(sent_us));
    if (h->ping_us == 0 || sent_us != h->ping_us)
        return;
    h->ping_us = 0;
    h->rtt_us = clock_now_us() - sent_us;
    if (h->opt.events->on_pong)
        h->opt.events->on_pong(h->opt.arg, h->rtt_us);
}

static void on_settings(struct h2 *h, const nghttp2_frame *frame)
{
    if ((frame->hd.flags & NGHTTP2_FLAG_ACK) != 0)
        return;
    if (h->settings) {
        bothered(h);
        return;
    }
    h->settings = true;
    if (h->opt.events->on_settings)
        h->opt.events->on_settings(h->opt.arg);
}

static void on_goaway(struct h2 *h)
{
    h->draining = true;
    if (h->told_drain || !h->opt.events->on_drain)
        return;
    h->told_drain = true;
    h->opt.events->on_drain(h->opt.arg);
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct h2 *h = arg;

    (void)ng;
    if (h->closed)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    switch (frame->hd.type) { /* extensions' types, too: no enum */
    case NGHTTP2_HEADERS:
        on_headers(h, frame);
        break;
    case NGHTTP2_DATA:
        on_data_end(h, frame);
        break;
    case NGHTTP2_SETTINGS:
        on_settings(h, frame);
        break;
    case NGHTTP2_PING:
        on_ping(h, frame);
        break;
    case NGHTTP2_GOAWAY:
        on_goaway(h);
        break;
    case NGHTTP2_RST_STREAM:
        counter_add(&h->cnt.resets_received, 1);
        bothered(h);
        break;
    case NGHTTP2_PRIORITY:
        bothered(h);
        break;
    }
    return h->closed || h->fatal ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
    struct h2 *h = arg;
    struct h2_stream *s = stream_of(h, id);

    (void)flags;
    if (h->closed)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (!s || !s->owned) { /* it was closed; these were under way */
        (void)nghttp2_session_consume(ng, id, len);
        return 0;
    }
    if (!chain_put(&h->blocks, &s->in, data, len)) {
        stream_break(s, -ENOMEM, NGHTTP2_INTERNAL_ERROR);
        (void)nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_INTERNAL_ERROR);
        return 0;
    }
    if ((s->want & LOOP_READ) != 0)
        stream_ready(s);
    return 0;
}

static int err_of_code(uint32_t code)
{
    switch (code) {
    case NGHTTP2_REFUSED_STREAM:
        return -EAGAIN;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        return -EBUSY;
    default: /* any number may come */
        return -ECONNRESET;
    }
}

static void stream_is_over(struct h2_stream *s, uint32_t code)
{
    s->over = true;
    chain_drop(&s->h->blocks, &s->out);
    if (!s->owned) {
        if (s->h->running == s) /* freed when its turn is over */
            s->h->running = NULL;
        stream_free(s);
        return;
    }
    if (!s->ended_in || (code != NGHTTP2_NO_ERROR && !s->ended_out))
        stream_break(s, err_of_code(code), code);
    else if (stream_has_news(s))
        stream_ready(s);
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *arg)
{
    struct h2_stream *s = stream_of(arg, id);

    (void)ng;
    if (s && !s->h->finished)
        stream_is_over(s, code);
    return 0;
}

/* A request that could not leave: GOAWAY came before it, or it was closed at once. nghttp2 has no stream for it. */
static int on_not_sent(nghttp2_session *ng, const nghttp2_frame *frame, int error, void *arg)
{
    struct h2 *h = arg;
    struct h2_stream *s = h->streams;

    (void)error;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST ||
        stream_of(h, frame->hd.stream_id))
        return 0;
    (void)ng;
    while (s && s->id != frame->hd.stream_id)
        s = s->next;
    if (s)
        stream_is_over(s, NGHTTP2_REFUSED_STREAM);
    return 0;
}

/* Our end has left, and nobody waits for theirs. */
static int on_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct h2_stream *s;

    if ((frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) ||
        (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0)
        return 0;
    s = stream_of(arg, frame->hd.stream_id);
    if (s && s->h->opt.server && !s->owned && !s->ended_in)
        (void)nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR);
    return 0;
}

/* ---- making one ---- */

static int callbacks_new(nghttp2_session_callbacks **out)
{
    nghttp2_session_callbacks *c;

    if (nghttp2_session_callbacks_new(&c) != 0)
        return -ENOMEM;
    nghttp2_session_callbacks_set_on_begin_headers_callback(c, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(c, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(c, on_sent);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(c, on_not_sent);
    *out = c;
    return 0;
}

static int session_new(struct h2 *h)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option = NULL;
    nghttp2_mem memory;
    int r = callbacks_new(&callbacks);

    if (r == 0)
        r = nghttp2_option_new(&option);
    if (r == 0) {
        nghttp2_option_set_no_auto_window_update(option, 1);
        nghttp2_option_set_no_closed_streams(option, 1);
        nghttp2_option_set_max_send_header_block_length(option, H2_HEAD_MAX);
        h2_count_memory(h, &memory);
        r = h->opt.server ? nghttp2_session_server_new3(&h->ng, callbacks, h, option, &memory)
                          : nghttp2_session_client_new3(&h->ng, callbacks, h, option, &memory);
        nghttp2_option_del(option);
        nghttp2_session_callbacks_del(callbacks);
    }
    return r == 0 ? 0 : -ENOMEM;
}

static int say_settings(struct h2 *h)
{
    nghttp2_settings_entry server[] = {
        { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, h->opt.max_streams },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_HEAD_MAX },
        { NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1 },
    };
    nghttp2_settings_entry client[] = {
        { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_HEAD_MAX },
    };
    int r = h->opt.server ? nghttp2_submit_settings(h->ng, NGHTTP2_FLAG_NONE, server, ARRAY_LEN(server))
                          : nghttp2_submit_settings(h->ng, NGHTTP2_FLAG_NONE, client, ARRAY_LEN(client));

    if (r == 0)
        r = nghttp2_session_set_local_window_size(h->ng, NGHTTP2_FLAG_NONE, 0, (int32_t)h->opt.receive_bytes);
    return r == 0 ? 0 : -ENOMEM;
}

static void defaults(struct h2_options *o)
{
    o->max_streams = o->max_streams ? o->max_streams : 256;
    o->receive_bytes = o->receive_bytes >= 64 * 1024 ? o->receive_bytes
                       : o->receive_bytes            ? 64 * 1024
                                                     : 4 << 20;
    o->send_bytes = o->send_bytes ? o->send_bytes : 4 << 20;
    o->keep_alive_reply_ms = o->keep_alive_reply_ms ? o->keep_alive_reply_ms : PING_REPLY_MS;
}

int h2_open(const struct h2_options *opt, struct h2 **out)
{
    struct h2 *h = calloc(1, sizeof(*h));
    uint32_t blocks;
    int r;

    if (!h)
        return -ENOMEM;
    h->opt = *opt;
    defaults(&h->opt);
    blocks = (h->opt.receive_bytes + h->opt.send_bytes) / (BLOCK_BYTES - 16) + 4 * h->opt.max_streams + 64;
    h->heard_us = h->calm_us = loop_now_us(opt->loop);
    h->calm = CALM_MAX;
    h->quiet.fn = h2_on_quiet;
    /* closed streams whose last frames have not left are still there: room for as many again */
    if ((r = slab_init(&h->slab, sizeof(struct h2_stream), 2 * h->opt.max_streams)) != 0 ||
        (r = h2_blocks_init(&h->blocks, blocks)) != 0 || (r = session_new(h)) != 0 ||
        (r = say_settings(h)) != 0) {
        free_all(h);
        return r;
    }
    io_start(h);
    (void)h2_ping(h);
    if (h->opt.keep_alive_ms)
        wheel_set(h->opt.wheel, &h->quiet, h->heard_us + (uint64_t)h->opt.keep_alive_ms * 1000);
    *out = h;
    return 0;
}

void h2_close(struct h2 *h)
{
    if (!h || h->closed)
        return;
    h->closed = true;
    io_stop(h);
    wheel_cancel(h->opt.wheel, &h->quiet);
    for (struct h2_stream *s = h->streams; s; s = s->next)
        s->owned = false;
    h->running = NULL;
    if (h->depth > 0)
        return; /* h2_leave() does the rest */
    if (nghttp2_session_terminate_session(h->ng, NGHTTP2_NO_ERROR) == 0)
        io_goodbye(h);
    free_all(h);
}

/* ---- questions and wishes ---- */

void h2_drain(struct h2 *h)
{
    if (h->draining)
        return;
    h->draining = true;
    (void)nghttp2_submit_goaway(h->ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h->ng),
                                NGHTTP2_NO_ERROR, NULL, 0);
    h2_kick(h);
}

bool h2_can_open(const struct h2 *h)
{
    uint32_t theirs = nghttp2_session_get_remote_settings(h->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);

    return !h->draining && !h->finished && !h->fatal && h->slab.in_use < h->opt.max_streams &&
           h->slab.in_use < theirs;
}

bool h2_has_settings(const struct h2 *h)
{
    return h->settings;
}

bool h2_has_extended_connect(const struct h2 *h)
{
    return h->settings &&
           nghttp2_session_get_remote_settings(h->ng, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1;
}

uint32_t h2_stream_count(const struct h2 *h)
{
    return h->slab.in_use;
}

int h2_ping(struct h2 *h)
{
    uint64_t now_us = clock_now_us();
    uint8_t opaque[8];

    if (h->finished || h->fatal || h->closed)
        return -ECONNRESET;
    if (h->ping_us != 0)
        return 0;
    memcpy(opaque, &now_us, sizeof(opaque));
    if (nghttp2_submit_ping(h->ng, NGHTTP2_FLAG_NONE, opaque) != 0)
        return -ECONNRESET;
    h->ping_us = now_us;
    wheel_set(h->opt.wheel, &h->quiet, now_us + (uint64_t)h->opt.keep_alive_reply_ms * 1000);
    h2_kick(h);
    return 0;
}

/* Silence: a question, and no answer to it is the end. Any byte from them counts as an answer. */
void h2_on_quiet(struct wheel_timer *t, uint64_t now_us)
{
    struct h2 *h = CONTAINER_OF(t, struct h2, quiet);
    uint64_t wait_us = (uint64_t)h->opt.keep_alive_ms * 1000;

    (void)slab_trim(&h->blocks.slab, NULL, NULL);
    if (h->ping_us != 0 && h->heard_us < h->ping_us) {
        h2_fail(h, -ETIMEDOUT, "does not answer any more");
        return;
    }
    h->ping_us = 0;
    if (wait_us == 0)
        return;
    if (now_us >= h->heard_us + wait_us)
        (void)h2_ping(h);
    else
        wheel_set(h->opt.wheel, &h->quiet, h->heard_us + wait_us);
}

const char *h2_why(const struct h2 *h)
{
    return h->why;
}

uint64_t h2_heard_us(const struct h2 *h)
{
    return h->heard_us;
}

const struct h2_counters *h2_counters(const struct h2 *h)
{
    return &h->cnt;
}
