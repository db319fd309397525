/* fetch.c - one file over HTTP or HTTPS, through any way out: lists of rules, a few a day.
 *
 * How it works. A stream to the host of the address, TLS over it where the address says so (chain and name always checked), one GET, and
 * the answer into memory that grows up to the caller's limit. A redirect starts anew, at most REDIRECTS_MAX times, and never from one
 * scheme to the other. Silence ends it after the caller's time, a trickle after ten times that. */
#include "http_reply.h"
#include "upstream_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REDIRECTS_MAX 5
#define OPEN_US       UINT64_C(10000000)
#define READ_STEPS    16
#define IN_BYTES      16384
#define FIRST_BYTES   65536
#define REQUEST_MAX   (2048 + 1024)

struct up_fetch {
    struct up_env *env;
    struct upstream *up;         /* one reference */
    struct tls_settings *tls_of; /* one reference; NULL: plain */
    struct up_http_url url;      /* of the hop under way */
    char validator[UP_VALIDATOR_MAX];
    struct up_stream *stream;
    struct tls_context *context;
    struct tls *tls;
    bool open, ready;
    size_t max_bytes, len, cap;
    char *body;
    struct http_reply reply;
    unsigned redirects;
    uint64_t silence_us;
    struct wheel_timer silence, total, turn;
    size_t out_len, out_sent;
    char out[REQUEST_MAX];
    uint8_t in[IN_BYTES];
    up_fetched_fn *fn;
    void *arg;
};

/* ---- ends --------------------------------------------------------------------------------------------------------------- */

static void disconnect(struct up_fetch *f)
{
    wheel_cancel(f->env->opt.wheel, &f->turn);
    tls_free(f->tls);
    tls_context_free(f->context);
    up_stream_close(f->stream);
    f->tls = NULL;
    f->context = NULL;
    f->stream = NULL;
    f->open = f->ready = false;
}

void up_fetch_cancel(struct up_fetch *f)
{
    if (f == NULL)
        return;
    disconnect(f);
    wheel_cancel(f->env->opt.wheel, &f->silence);
    wheel_cancel(f->env->opt.wheel, &f->total);
    upstream_unref(f->up);
    tls_settings_unref(f->tls_of);
    free(f->body);
    free(f);
}

static void finish(struct up_fetch *f, struct up_fetched *result)
{
    up_fetched_fn *fn = f->fn;
    void *arg = f->arg;

    result->status = f->reply.status;
    if (result->err == 0) {
        result->body = f->body;
        result->len = f->len;
        f->body = NULL;
        if (f->reply.etag[0] != '\0')
            snprintf(result->validator, sizeof(result->validator), "If-None-Match: %s", f->reply.etag);
        else if (f->reply.date[0] != '\0')
            snprintf(result->validator, sizeof(result->validator), "If-Modified-Since: %s", f->reply.date);
    }
    up_fetch_cancel(f);
    fn(arg, result);
}

static void fail(struct up_fetch *f, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void fail(struct up_fetch *f, int err, const char *fmt, ...)
{
    struct up_fetched result = { .err = err };
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(result.why, sizeof(result.why), fmt, ap);
    va_end(ap);
    finish(f, &result);
}

static void on_silence(struct wheel_timer *t, uint64_t now_us)
{
    struct up_fetch *f = CONTAINER_OF(t, struct up_fetch, silence);

    (void)now_us;
    fail(f, -ETIMEDOUT, "%.100s says nothing for %u s", f->url.host, (unsigned)(f->silence_us / 1000000));
}

static void on_total(struct wheel_timer *t, uint64_t now_us)
{
    struct up_fetch *f = CONTAINER_OF(t, struct up_fetch, total);

    (void)now_us;
    fail(f, -ETIMEDOUT, "%.100s is not done after %u s", f->url.host,
         (unsigned)(f->silence_us * 10 / 1000000));
}

static void heard(struct up_fetch *f)
{
    wheel_set(f->env->opt.wheel, &f->silence, env_now_us(f->env) + f->silence_us);
}

/* ---- the request ---------------------------------------------------------------------------------------------------------- */

static void put_request(struct up_fetch *f)
{
    char authority[HTTP_AUTHORITY_MAX];
    char *colon;

    http_authority(&f->url.at, authority);
    colon = strrchr(authority, ':');
    if (colon != NULL && f->url.at.port == (f->url.secure ? 443 : 80))
        *colon = '\0'; /* some servers know their name only so */
    f->out_len = (size_t)snprintf(f->out, sizeof(f->out),
                                  "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: culvert/%s\r\nAccept: */*\r\n"
                                  "Connection: close\r\n%s%s\r\n",
                                  f->url.path, authority, CULVERT_VERSION, f->validator,
                                  f->validator[0] != '\0' ? "\r\n" : "");
    f->out_sent = 0;
}

static ssize_t send_some(struct up_fetch *f)
{
    const struct iovec iov = { f->out + f->out_sent, f->out_len - f->out_sent };

    return f->tls != NULL ? tls_sendv(f->tls, &iov, 1) : up_stream_sendv(f->stream, &iov, 1);
}

/* Return: false: it broke. */
static bool push(struct up_fetch *f)
{
    while (f->out_sent < f->out_len) {
        ssize_t n = send_some(f);

        if (n == -EAGAIN)
            break;
        if (n < 0)
            return false;
        f->out_sent += (size_t)n;
    }
    if (f->tls != NULL) {
        int r = tls_flush(f->tls);

        if (r != 0 && r != -EAGAIN)
            return false;
    }
    up_stream_want(
        f->stream,
        LOOP_READ | (f->out_sent < f->out_len || (f->tls != NULL && tls_unsent(f->tls)) ? LOOP_WRITE : 0u));
    return true;
}

/* ---- connecting ----------------------------------------------------------------------------------------------------------- */

static ssize_t io_recv(void *arg, void *to, size_t len)
{
    return up_stream_recv(((struct up_fetch *)arg)->stream, to, len);
}

static ssize_t io_send(void *arg, const void *data, size_t len)
{
    const struct iovec iov = { (void *)(uintptr_t)data, len };

    return up_stream_sendv(((struct up_fetch *)arg)->stream, &iov, 1);
}

static void io_wake(void *arg)
{
    struct up_fetch *f = arg;

    wheel_set(f->env->opt.wheel, &f->turn, env_now_us(f->env));
}

static const struct tls_io tls_io = { io_recv, io_send, io_wake };

static int tls_start(struct up_fetch *f)
{
    char text[IP_TEXT_MAX];
    const char *name = f->url.at.name != NULL ? f->url.at.name : ip_text(&f->url.at.addr, text);
    int r = f->env->tls != NULL ? 0 : tls_worker_new(&f->env->tls);

    if (r == 0)
        r = tls_context_new(f->env->tls, f->tls_of, name, &f->context);
    return r != 0 ? r : tls_open(f->context, &tls_io, f, &f->tls);
}

static const struct up_stream_events fetch_events;

static int connect_to(struct up_fetch *f)
{
    int r = f->url.secure ? tls_start(f) : 0;

    f->reply = (struct http_reply){ .state = REPLY_STATUS };
    f->len = 0;
    put_request(f);
    if (r == 0)
        r = up_stream_open(f->env, f->up, &f->url.at, OPEN_US, &fetch_events, f, &f->stream);
    return r;
}

/* ---- the answer ------------------------------------------------------------------------------------------------------------ */

static const char *const redirect_why[] = { "redirects too often", "redirects without saying where to",
                                            "redirects from one of http and https to the other; write the "
                                            "address that it ends at" };

/* Where a Location leads: a whole address, or a path on the same host. Return: NULL, or what is wrong. */
static const char *follow(struct up_fetch *f)
{
    char whole[REPLY_VALUE_MAX + HTTP_AUTHORITY_MAX + 16], authority[HTTP_AUTHORITY_MAX];
    const char *to = f->reply.location;
    struct up_http_url next;

    if (++f->redirects > REDIRECTS_MAX)
        return redirect_why[0];
    http_authority(&f->url.at, authority);
    if (to[0] == '/' && to[1] == '/')
        snprintf(whole, sizeof(whole), "%s:%s", f->url.secure ? "https" : "http", to);
    else if (to[0] == '/')
        snprintf(whole, sizeof(whole), "%s://%s%s", f->url.secure ? "https" : "http", authority, to);
    else
        snprintf(whole, sizeof(whole), "%s", to);
    if (up_http_url_parse(whole, &next) != 0)
        return redirect_why[1];
    if (next.secure != f->url.secure)
        return redirect_why[2];
    f->url = next;
    up_http_url_settle(&f->url);
    return NULL;
}

static void redirected(struct up_fetch *f)
{
    const char *why = follow(f);
    int r;

    if (why != NULL) {
        fail(f, -EPROTO, "%.100s %s", f->url.host, why);
        return;
    }
    disconnect(f);
    heard(f);
    r = connect_to(f);
    if (r != 0)
        fail(f, r, "%.100s cannot be dialled: %s", f->url.host, strerror(-r));
}

static void answered(struct up_fetch *f)
{
    struct up_fetched result = { 0 };

    switch (f->reply.status) {
    case 200:
        finish(f, &result);
        break;
    case 304: /* only a validator of ours can cause it */
        if (f->validator[0] != '\0')
            finish(f, &result);
        else
            fail(f, -EPROTO, "%.100s answers 304 to a question that it has not been asked", f->url.host);
        break;
    case 301:
    case 302:
    case 303:
    case 307:
    case 308:
        redirected(f);
        break;
    default: /* a number of theirs */
        fail(f, -EPROTO, "%.100s answers with status %u", f->url.host, f->reply.status);
        break;
    }
}

/* Return: false: too much, and it has failed. */
static bool keep_body(struct up_fetch *f, const struct span *piece)
{
    size_t need = f->len + piece->len, cap = f->cap == 0 ? FIRST_BYTES : f->cap;
    char *more = f->body;

    if (f->reply.status != 200) /* the words of an error, or of a redirect */
        return true;
    if (need > f->max_bytes) {
        fail(f, -EFBIG, "%.100s sends more than %zu bytes, the limit", f->url.host, f->max_bytes);
        return false;
    }
    while (cap < need)
        cap *= 2;
    if (cap > f->cap && (more = realloc(f->body, cap)) == NULL) {
        fail(f, -ENOMEM, "no memory for the answer of %.100s", f->url.host);
        return false;
    }
    f->body = more;
    f->cap = cap;
    if (piece->len > 0)
        memcpy(f->body + f->len, piece->data, piece->len);
    f->len = need;
    return true;
}

/* Return: false: it is over, and @f is gone or has begun anew. */
static bool take(struct up_fetch *f, size_t len)
{
    struct span in = { f->in, len }, body;
    enum talk_step step;

    heard(f);
    do {
        step = http_reply_step(&f->reply, &in, &body);
        if (step == TALK_AGAIN && !keep_body(f, &body))
            return false;
    } while (step == TALK_AGAIN);
    if (step == TALK_NEED_INPUT)
        return true;
    if (step == TALK_DONE)
        answered(f);
    else
        fail(f, -EPROTO, "%.100s %s", f->url.host, f->reply.why);
    return false;
}

static void pull(struct up_fetch *f)
{
    for (int i = 0; i < READ_STEPS; i++) {
        ssize_t n = f->tls != NULL ? tls_recv(f->tls, f->in, sizeof(f->in))
                                   : up_stream_recv(f->stream, f->in, sizeof(f->in));

        if (n == -EAGAIN)
            return;
        if (n == 0 && http_reply_end(&f->reply) == TALK_DONE) {
            answered(f);
            return;
        }
        if (n <= 0) {
            fail(f, -ECONNRESET, "%.100s %s", f->url.host,
                 f->tls != NULL && n < 0 ? tls_why(f->tls) : "ended in the middle of its answer");
            return;
        }
        if (!take(f, (size_t)n))
            return;
    }
    if (f->tls != NULL) /* what is left inside TLS is announced by no descriptor */
        io_wake(f);
}

/* ---- events ---------------------------------------------------------------------------------------------------------------- */

/* Return: false: it broke. */
static bool shake_hands(struct up_fetch *f)
{
    switch (tls_handshake(f->tls, env_now_us(f->env))) {
    case TLS_DONE:
        f->ready = true;
        return true;
    case TLS_WANT_READ:
        up_stream_want(f->stream, LOOP_READ);
        return true;
    case TLS_WANT_WRITE:
        up_stream_want(f->stream, LOOP_READ | LOOP_WRITE);
        return true;
    case TLS_LATER:
        io_wake(f);
        up_stream_want(f->stream, 0);
        return true;
    case TLS_QUEUED:
        up_stream_want(f->stream, 0);
        return true;
    case TLS_BROKEN:
        break;
    }
    return false;
}

static void go_on(struct up_fetch *f)
{
    if (!f->ready && f->tls == NULL)
        f->ready = true;
    if ((!f->ready && !shake_hands(f)) || (f->ready && !push(f))) {
        fail(f, -ECONNRESET, "%.100s %s", f->url.host,
             f->tls != NULL ? tls_why(f->tls) : "closed the connection");
        return;
    }
    if (f->ready)
        pull(f);
}

static void on_turn(struct wheel_timer *t, uint64_t now_us)
{
    struct up_fetch *f = CONTAINER_OF(t, struct up_fetch, turn);

    (void)now_us;
    if (f->open)
        go_on(f);
}

static void on_open(void *arg)
{
    struct up_fetch *f = arg;

    f->open = true;
    heard(f);
    go_on(f);
}

static void on_event(void *arg)
{
    go_on(arg);
}

static void on_closed(void *arg, const struct up_failure *why)
{
    struct up_fetch *f = arg;

    f->stream = NULL;
    fail(f, why->err, "%s", why->text);
}

static const struct up_stream_events fetch_events = { on_open, on_event, on_event, on_closed };

int up_fetch_open(struct up_env *env, const struct up_fetch_options *opt, up_fetched_fn *fn, void *arg,
                  struct up_fetch **out)
{
    struct up_fetch *f = calloc(1, sizeof(*f));
    int r;

    if (f == NULL)
        return -ENOMEM;
    f->env = env;
    f->up = upstream_ref(opt->up);
    f->tls_of = opt->tls != NULL ? tls_settings_ref(opt->tls) : NULL;
    f->max_bytes = opt->max_bytes;
    f->silence_us = opt->silence_us;
    f->fn = fn;
    f->arg = arg;
    f->silence.fn = on_silence;
    f->total.fn = on_total;
    f->turn.fn = on_turn;
    snprintf(f->validator, sizeof(f->validator), "%s", opt->validator != NULL ? opt->validator : "");
    r = up_http_url_parse(opt->url, &f->url);
    up_http_url_settle(&f->url);
    if (r == 0 && f->url.secure && f->tls_of == NULL)
        r = -EINVAL;
    if (r == 0)
        r = connect_to(f);
    if (r != 0) {
        up_fetch_cancel(f);
        return r;
    }
    heard(f);
    wheel_set(env->opt.wheel, &f->total, env_now_us(env) + 10 * f->silence_us);
    *out = f;
    return 0;
}
