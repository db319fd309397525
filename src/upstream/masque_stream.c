/* masque_stream.c - a TCP stream through a MASQUE server, or any HTTP/2 proxy: CONNECT (RFC 9113 section 8.5).
 *
 * How it works. It begins as a handshake's try, which has the deadline and the next member of a group: it waits for the connection,
 * sends CONNECT, and is open when a 2xx comes. From then on HTTP/2's stream is the stream: its window is the relay's back-pressure,
 * END_STREAM is a FIN, RST_STREAM is an RST.
 *
 * A request that the server has not looked at (REFUSED_STREAM, a GOAWAY before it, a connection that died before any answer) is
 * made once more, on whatever connection there is then.
 *
 * In a chain (dialer-proxy) it carries what the next hop is spoken to with, and is used as a descriptor would be. What it tells its
 * user comes from the loop only, never from inside a call of the user's. */
#include "masque.h"

struct masque_stream {
    struct masque_stream *next, *prev; /* of the connection's */
    struct up_env *env;
    struct masque *m;            /* NULL: it was freed before us */
    struct handshake *handshake; /* while opening; then: */
    struct up_stream *s;         /* or: */
    void (*fn)(void *arg, unsigned events);
    void *arg;
    struct tunnel *t; /* with h2 */
    struct h2_stream *h2;
    struct wheel_timer turn; /* tells that it broke, or that its connection drains */
    struct masque_wait wait;
    const struct host_port *target; /* the handshake's */
    uint8_t want;                   /* of fn */
    bool again, shut, drain;
};

size_t masque_stream_bytes(void)
{
    return sizeof(struct masque_stream);
}

/* ---- opening ---- */

static void on_response(void *arg, const struct h2_head *head)
{
    struct masque_stream *ms = arg;
    struct up_failure why = { 0 };

    if (!ms->handshake)
        return;
    handshake_masque_done(ms->handshake, masque_answer(ms->m, head, &why) ? NULL : &why);
}

static void on_readable(void *arg)
{
    struct masque_stream *ms = arg;

    if (ms->s)
        stream_events(ms->s)->on_readable(ms->s->arg);
    else if (ms->fn)
        ms->fn(ms->arg, LOOP_READ);
}

static void on_writable(void *arg)
{
    struct masque_stream *ms = arg;

    if (ms->s)
        stream_events(ms->s)->on_writable(ms->s->arg);
    else if (ms->fn)
        ms->fn(ms->arg, LOOP_WRITE);
}

static void on_turn(struct wheel_timer *t, uint64_t now_us)
{
    struct masque_stream *ms = CONTAINER_OF(t, struct masque_stream, turn);
    unsigned broke = ms->h2 ? 0 : ms->want;

    (void)now_us;
    ms->fn(ms->arg, broke | (ms->drain ? (unsigned)MASQUE_DRAIN : 0));
}

static void on_closed(void *arg, int err, uint32_t code)
{
    struct masque_stream *ms = arg;
    struct up_stream *s = ms->s;
    struct up_failure why = { 0 };

    ms->h2 = NULL;
    masque_serve_later(ms->m);
    if (ms->fn) {
        masque_stream_want(ms, ms->want);
        return;
    }
    if (s) {
        stream_why_cut(s->memory->up, &why);
        masque_stream_close(ms);
        stream_ended(s, &why);
        return;
    }
    if (!ms->again && (err == -EAGAIN || (code == H2_NO_ERROR && h2_has_settings(ms->t->h2)))) {
        ms->again = true;
        masque_ask(ms->m, &ms->wait, 10 * SECOND_US);
        return;
    }
    masque_broke(ms->t, err, code, &why);
    handshake_masque_done(ms->handshake, &why);
}

static const struct h2_stream_events events = { on_response, on_readable, on_writable, on_closed };

static void on_ready(struct masque_wait *w, struct tunnel *t)
{
    struct masque_stream *ms = CONTAINER_OF(w, struct masque_stream, wait);
    char authority[HTTP_AUTHORITY_MAX];
    struct up_failure why = { 0 };
    int r;

    http_authority(ms->target, authority);
    ms->t = t;
    ms->drain = false; /* that was another connection */
    r = masque_request(t, authority, NULL, NULL, &events, ms, &ms->h2);
    if (r == 0)
        return;
    up_fail(&why, r == -ENOMEM ? r : -EHOSTUNREACH, "request", r != -ENOMEM, "no stream through %.100s: %s",
            ms->m->memory->up->name, strerror(-r));
    handshake_masque_done(ms->handshake, &why);
}

static void on_failed(struct masque_wait *w, const struct up_failure *why)
{
    handshake_masque_done(CONTAINER_OF(w, struct masque_stream, wait)->handshake, why);
}

int masque_stream_new(struct handshake *h, const struct host_port *dst, uint64_t timeout_us,
                      struct masque_stream **out)
{
    struct up_env *env = h->env;
    struct masque *m = masque_of(env, h->memory);
    struct masque_stream *ms = m ? slab_get(&env->masque_streams) : NULL;

    if (!ms)
        return -ENOMEM;
    ms->env = env;
    ms->m = m;
    ms->next = m->streams;
    if (ms->next)
        ms->next->prev = ms;
    m->streams = ms;
    ms->turn.fn = on_turn;
    ms->handshake = h;
    ms->target = dst;
    ms->wait.ready = on_ready;
    ms->wait.failed = on_failed;
    masque_ask(m, &ms->wait, timeout_us);
    *out = ms;
    return 0;
}

bool masque_stream_asked(const struct masque_stream *ms)
{
    return ms->h2 != NULL && h2_has_settings(ms->t->h2);
}

const char *masque_stream_stage(const struct masque_stream *ms)
{
    if (ms->h2)
        return "request";
    return ms->m->handshake ? handshake_stage(ms->m->handshake) : "connect";
}

/* ---- open ---- */

void masque_stream_attach(struct masque_stream *ms, struct up_stream *s)
{
    assert(ms->h2); /* whoever hands it over has just read from it */
    wheel_cancel(ms->env->opt.wheel, &ms->turn);
    ms->handshake = NULL;
    ms->target = NULL;
    ms->fn = NULL;
    ms->s = s;
    masque_stream_want(ms, LOOP_READ);
}

void masque_stream_carry(struct masque_stream *ms, void (*fn)(void *arg, unsigned events), void *arg)
{
    ms->handshake = NULL;
    ms->target = NULL;
    ms->fn = fn;
    ms->arg = arg;
    masque_stream_want(ms, LOOP_READ);
    if (ms->drain)
        wheel_set(ms->env->opt.wheel, &ms->turn, env_now_us(ms->env));
}

ssize_t masque_stream_recv(struct masque_stream *ms, void *to, size_t len)
{
    return ms->h2 ? h2_recv(ms->h2, to, len) : -ECONNRESET;
}

ssize_t masque_stream_sendv(struct masque_stream *ms, const struct iovec *iov, int iovcnt)
{
    ssize_t n = ms->h2 ? h2_sendv(ms->h2, iov, iovcnt) : -ECONNRESET;

    return n == -EPIPE ? -ECONNRESET : n;
}

void masque_stream_want(struct masque_stream *ms, unsigned wanted)
{
    ms->want = (uint8_t)wanted;
    if (ms->h2)
        h2_want(ms->h2, wanted);
    else if (wanted != 0)
        wheel_set(ms->env->opt.wheel, &ms->turn, env_now_us(ms->env));
}

void masque_stream_shutdown(struct masque_stream *ms)
{
    ms->shut = true;
    if (ms->h2)
        h2_shutdown(ms->h2);
}

static void leave_connection(struct masque_stream *ms)
{
    if (ms->next)
        ms->next->prev = ms->prev;
    if (ms->prev)
        ms->prev->next = ms->next;
    else
        ms->m->streams = ms->next;
    masque_leave(ms->m, &ms->wait);
    ms->m = NULL;
}

void masque_stream_drain(struct masque_stream *ms, const struct tunnel *t)
{
    if (ms->t != t || !ms->h2)
        return;
    ms->drain = true; /* from now on: who carries something with it later hears of it as well */
    if (ms->fn)
        wheel_set(ms->env->opt.wheel, &ms->turn, env_now_us(ms->env));
}

struct masque_stream *masque_stream_next(struct masque_stream *ms)
{
    return ms->next;
}

void masque_stream_orphan(struct masque_stream *ms)
{
    h2_stream_close(ms->h2, H2_CANCEL);
    ms->h2 = NULL;
    leave_connection(ms);
}

void masque_stream_reset(struct masque_stream *ms)
{
    h2_stream_close(ms->h2, H2_CANCEL);
    ms->h2 = NULL;
    wheel_cancel(ms->env->opt.wheel, &ms->turn);
    if (ms->m) {
        masque_serve_later(ms->m);
        leave_connection(ms);
    }
    slab_put(&ms->env->masque_streams, ms);
}

void masque_stream_close(struct masque_stream *ms)
{
    if (!ms)
        return;
    if (ms->shut) {
        h2_stream_linger(ms->h2);
        ms->h2 = NULL;
    }
    masque_stream_reset(ms);
}
