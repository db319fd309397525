/* masque.c - the connection to a MASQUE server: dialled on demand, shared, watched, drained, dialled again.
 *
 * How it works. Whoever wants a stream stands in line. The first one makes us dial; TLS must agree on "h2" (RFC 9113 section
 * 3.2); then everybody gets a stream of the one connection. What wants extended CONNECT waits for the server's SETTINGS (RFC 8441
 * section 3). After a GOAWAY the connection takes nothing new and its streams end in their own time; the next request dials.
 *
 * A dial that fails tells all who wait, and for a while (0.25 s, doubled with each failure up to 30 s, a quarter of it by chance,
 * so that many gateways do not come back in step) nobody dials: those who come meanwhile hear the same reason at once.
 *
 * Health is a PING every 15 s of silence; its round trip is the upstream's. A connection that carried nothing for two minutes
 * is closed. */
#include "masque.h"

#include <stdio.h>
#include <stdlib.h>

#define BACKOFF_MIN_US      (SECOND_US / 4)
#define BACKOFF_MAX_US      (30 * SECOND_US)
#define IDLE_US             (120 * SECOND_US)
#define IDLE_LOOK_US        (30 * SECOND_US)
#define BAD_LOGIN_US        (10 * SECOND_US) /* faults.md S6 */
#define KEEP_ALIVE_MS       15000
#define KEEP_ALIVE_REPLY_MS 10000

enum { STREAMS_MAX = 1024 };

static void end_tunnel(struct tunnel *t);
static void dial(struct masque *m, uint64_t timeout_us);

const char *masque_server_text(const struct masque *m, char out[160])
{
    snprintf(out, 160, "%.40s (%.100s)", m->memory->up->name, m->authority);
    return out;
}

/* ---- the line ---- */

static void unlink_wait(struct masque *m, struct masque_wait *w)
{
    if (w->prev)
        w->prev->next = w->next;
    else
        m->first = w->next;
    if (w->next)
        w->next->prev = w->prev;
    else
        m->last = w->prev;
    w->linked = false;
}

void masque_leave(struct masque *m, struct masque_wait *w)
{
    if (w->linked)
        unlink_wait(m, w);
}

static void fail_all(struct masque *m, const struct up_failure *why)
{
    struct up_failure copy = *why;
    struct masque_wait *last = m->last, *w;

    do { /* those who come while we tell wait for the next dial */
        w = m->first;
        if (!w)
            return;
        unlink_wait(m, w);
        w->failed(w, &copy);
    } while (w != last);
}

/* Whoever is in front and can go, goes. */
static void serve_line(struct masque *m)
{
    struct masque_wait *w = m->first;

    while (w && m->current && h2_can_open(m->current->h2)) {
        struct masque_wait *next = w->next;

        if (!w->extended || h2_has_settings(m->current->h2)) {
            unlink_wait(m, w);
            w->ready(w, m->current);
            next = m->first; /* anybody may have come or gone */
            if (next == w)
                return;
        }
        w = next;
    }
}

static void on_serve(struct wheel_timer *t, uint64_t now_us)
{
    struct masque *m = CONTAINER_OF(t, struct masque, serve);

    if (m->current) {
        serve_line(m);
        return;
    }
    if (!m->first || m->handshake)
        return;
    if (m->retry_at_us > now_us)
        fail_all(m, &m->why);
    else
        dial(m, 10 * SECOND_US);
}

void masque_serve_later(struct masque *m)
{
    if (m->first && !wheel_is_set(&m->serve))
        wheel_set(m->env->opt.wheel, &m->serve, env_now_us(m->env));
}

void masque_ask(struct masque *m, struct masque_wait *w, uint64_t timeout_us)
{
    uint64_t now_us = env_now_us(m->env);

    w->linked = true;
    w->next = NULL;
    w->prev = m->last;
    if (m->last)
        m->last->next = w;
    else
        m->first = w;
    m->last = w;
    m->idle_since_us = now_us;
    if (!m->current && !m->handshake && m->retry_at_us <= now_us)
        dial(m, timeout_us);
    else
        masque_serve_later(m);
}

/* ---- failures ---- */

static void back_off(struct masque *m, const struct up_failure *why)
{
    uint64_t wait_us = BACKOFF_MIN_US << (m->failures < 8 ? m->failures : 8);

    wait_us = wait_us < BACKOFF_MAX_US ? wait_us : BACKOFF_MAX_US;
    wait_us = wait_us * 3 / 4 + prng_below(&m->dice, (uint32_t)(wait_us / 2));
    m->failures++;
    m->why = *why;
    m->retry_at_us = env_now_us(m->env) + wait_us;
    fail_all(m, why);
}

static void fail_dial(struct masque *m, const char *stage, const char *text)
{
    char server[160];
    struct up_failure why = { 0 };

    up_fail(&why, -EHOSTUNREACH, stage, true, "%s %.120s", masque_server_text(m, server), text);
    back_off(m, &why);
}

void masque_broke(struct tunnel *t, int err, uint32_t code, struct up_failure *why)
{
    struct masque *m = t->masque;
    char server[160];
    const char *text = h2_why(t->h2);

    masque_server_text(m, server);
    if (code == H2_CONNECT_ERROR)
        up_fail(why, -ECONNREFUSED, "request", false, "%s says that the target refused the connection",
                server);
    else if (err == -EBUSY && !text[0])
        up_fail(why, -EHOSTUNREACH, "request", true, "%s says that we ask too much (ENHANCE_YOUR_CALM)",
                server);
    else if (err == -EAGAIN && !text[0])
        up_fail(why, -EHOSTUNREACH, "request", true, "%s takes no more streams (REFUSED_STREAM)", server);
    else if (!text[0])
        up_fail(why, -EHOSTUNREACH, "request", true, "%s reset the request (code %u)", server, code);
    else
        up_fail(why, -EHOSTUNREACH, "request", true, "%s %.120s", server, text);
}

/* ---- requests and answers ---- */

int masque_request(struct tunnel *t, const char *authority, const char *protocol, const char *path,
                   const struct h2_stream_events *events, void *arg, struct h2_stream **out)
{
    struct masque *m = t->masque;
    struct h2_field fields[2];
    struct h2_head head = { .method = "CONNECT", .authority = authority ? authority : m->authority };

    head.fields = fields;
    if (m->authorization[0])
        fields[head.field_count++] = (struct h2_field){ "proxy-authorization", m->authorization };
    if (protocol) {
        head.protocol = protocol;
        head.scheme = "https";
        head.path = path;
        fields[head.field_count++] = (struct h2_field){ "capsule-protocol", "?1" }; /* RFC 9297 section 3.4 */
    }
    return h2_request(t->h2, &head, events, arg, out);
}

bool masque_answer(struct masque *m, const struct h2_head *head, struct up_failure *why)
{
    struct up_memory *memory = m->memory;
    struct talk_failure f;
    char server[160];

    if (http_answer(&memory->up->login, head->status, h2_field(head, "proxy-status"),
                    h2_field(head, "proxy-authenticate"), &f))
        return true;
    if (f.login_fault && memory->up->token)
        snprintf(f.why, sizeof(f.why), "refused the login (%u): check token", head->status);
    up_fail(why, f.err, "request", f.proxy_fault, "%s %s", masque_server_text(m, server), f.why);
    if (f.login_fault) {
        memory->bad_until_us = env_now_us(m->env) + BAD_LOGIN_US;
        snprintf(memory->bad_why, sizeof(memory->bad_why), "%s", f.why);
    }
    return false;
}

/* ---- a connection ---- */

static void on_settings(void *arg)
{
    masque_serve_later(((struct tunnel *)arg)->masque);
}

/* To the list of those that only finish what they have. */
static void retire(struct tunnel *t)
{
    struct masque *m = t->masque;

    if (m->current != t)
        return;
    m->current = NULL;
    t->next = m->draining;
    m->draining = t;
    for (struct masque_stream *ms = m->streams; ms; ms = masque_stream_next(ms))
        masque_stream_drain(ms, t);
    masque_echo_moved(m);
    masque_check_moved(t);
    masque_serve_later(m);
}

static void on_drain(void *arg)
{
    retire(arg);
}

static void on_pong(void *arg, uint64_t rtt_us)
{
    struct tunnel *t = arg;

    up_memory_rtt(t->masque->memory, rtt_us);
    RTT_COUNT(&t->masque->env->cnt, masque_rtt, rtt_us);
    up_memory_good(t->masque->env, t->masque->memory);
    t->masque->failures = 0;
    masque_check_pong(t);
}

static void on_closed(void *arg, int err, const char *why)
{
    struct tunnel *t = arg;
    struct masque *m = t->masque;
    bool fresh = !h2_has_settings(t->h2);

    retire(t);
    if (err != 0 && fresh)
        fail_dial(m, "request", why);
    end_tunnel(t);
    masque_serve_later(m);
}

static const struct h2_events tunnel_events = { on_settings, NULL, on_drain, on_pong, on_closed };

static void unlink_tunnel(struct tunnel *t)
{
    struct tunnel **at = &t->masque->draining;

    if (t->masque->current == t) {
        t->masque->current = NULL;
        return;
    }
    while (*at && *at != t)
        at = &(*at)->next;
    if (*at)
        *at = t->next;
}

static void end_tunnel(struct tunnel *t)
{
    struct up_env *env = t->masque->env;

    unlink_tunnel(t);
    h2_close(t->h2);
    secure_close(t->secure, true);
    if (t->hop)
        masque_stream_shutdown(t->hop);
    masque_stream_close(t->hop);
    socket_close(env, t->fd, t->guard);
    free(t);
}

static bool below_unsent(void *tunnel)
{
    return secure_unsent(((struct tunnel *)tunnel)->secure);
}

static int below_flush(void *tunnel)
{
    return secure_flush(((struct tunnel *)tunnel)->secure);
}

static void below_want(void *tunnel, unsigned events)
{
    masque_stream_want(((struct tunnel *)tunnel)->hop, events);
}

/* When the connection around ours drains, so does ours: the next one goes another way, and both can end. */
static void on_hop(void *arg, unsigned events)
{
    struct tunnel *t = arg;

    if ((events & MASQUE_DRAIN) != 0) {
        retire(t);
        h2_drain(t->h2);
    }
    h2_turn(t->h2, events & (LOOP_READ | LOOP_WRITE));
}

static int start_tunnel(struct masque *m, const struct handshake_result *result)
{
    struct tunnel *t = calloc(1, sizeof(*t)); /* once a connection */
    struct h2_options opt = { .loop = m->env->opt.loop,
                              .wheel = m->env->opt.wheel,
                              .fd = result->fd,
                              .tls = result->secure->tls,
                              .unsent = below_unsent,
                              .flush = below_flush,
                              .want = below_want,
                              .below = t,
                              .max_streams = STREAMS_MAX,
                              .keep_alive_ms = KEEP_ALIVE_MS,
                              .keep_alive_reply_ms = KEEP_ALIVE_REPLY_MS,
                              .events = &tunnel_events,
                              .arg = t };
    int r;

    if (!t)
        return -ENOMEM;
    *t = (struct tunnel){ .masque = m,
                          .secure = result->secure,
                          .hop = result->masque,
                          .fd = result->fd,
                          .guard = result->guard,
                          .number = ++m->number };
    if (t->hop)
        masque_stream_carry(t->hop, on_hop, t);
    r = h2_open(&opt, &t->h2);
    if (r != 0) {
        free(t);
        return r;
    }
    m->current = t;
    m->idle_since_us = env_now_us(m->env);
    wheel_set(m->env->opt.wheel, &m->idle, m->idle_since_us + IDLE_LOOK_US);
    return 0;
}

static const char *no_h2(const struct handshake_result *result)
{
    const char *alpn = tls_alpn(result->secure->tls);

    return alpn && strcmp(alpn, H2_ALPN) == 0 ? NULL
           : alpn ? "does not offer HTTP/2 (ALPN h2) but something else: it is no MASQUE server"
                  : "does not offer HTTP/2 (ALPN h2): it is no MASQUE server";
}

static void on_handshake(void *arg, const struct handshake_result *result)
{
    struct masque *m = arg;
    const char *wrong;

    m->handshake = NULL;
    if (result->why) {
        back_off(m, result->why);
        return;
    }
    wrong = no_h2(result);
    if (!wrong && start_tunnel(m, result) == 0) {
        serve_line(m);
        return;
    }
    handshake_result_close(m->env, result);
    fail_dial(m, "tls", wrong ? wrong : "cannot be used: no memory for a connection");
}

static void dial(struct masque *m, uint64_t timeout_us)
{
    int r = handshake_open(m->env, m->memory, SOCKS5_HELLO, NULL, NULL, timeout_us, on_handshake, m,
                           &m->handshake);

    if (r != 0) {
        up_fail(&m->why, r, "connect", false, "%.80s cannot be dialled: %s", m->memory->up->name,
                strerror(-r));
        m->retry_at_us = env_now_us(m->env) + BACKOFF_MIN_US;
        masque_serve_later(m);
    }
}

static void on_idle(struct wheel_timer *t, uint64_t now_us)
{
    struct masque *m = CONTAINER_OF(t, struct masque, idle);

    if (m->current && h2_stream_count(m->current->h2) > 0)
        m->idle_since_us = now_us;
    if (m->current && now_us - m->idle_since_us >= IDLE_US)
        end_tunnel(m->current);
    if (m->current)
        wheel_set(m->env->opt.wheel, &m->idle, now_us + IDLE_LOOK_US);
}

/* ---- life ---- */

static void set_login(struct masque *m)
{
    const struct upstream *up = m->memory->up;
    struct buf b;

    buf_init(&b, m->authorization, sizeof(m->authorization) - 1);
    if (up->token) {
        snprintf(m->authorization, sizeof(m->authorization), "Bearer %s", up->token);
    } else if (up->login.username) {
        http_put_basic(&b, &up->login);
        m->authorization[b.len] = '\0';
    }
}

struct masque *masque_of(struct up_env *env, struct up_memory *memory)
{
    struct masque *m = memory->masque;
    struct host_port server = memory->up->server;

    if (m)
        return m;
    m = calloc(1, sizeof(*m)); /* once for each upstream of a configuration */
    if (!m)
        return NULL;
    m->env = env;
    m->memory = memory;
    m->idle.fn = on_idle;
    m->serve.fn = on_serve;
    prng_seed(&m->dice, env->opt.seed ^ (uint64_t)(uintptr_t)m);
    http_authority(&server, m->authority);
    set_login(m);
    memory->masque = m;
    return m;
}

static void tunnel_memory(const struct tunnel *t, struct memory_use *add)
{
    add->bytes[MEMORY_HTTP2] += sizeof(*t);
    if (t->h2)
        h2_memory(t->h2, add);
}

void masque_memory(const struct masque *m, struct memory_use *add)
{
    if (!m)
        return;
    add->bytes[MEMORY_HTTP2] += sizeof(*m);
    if (m->current)
        tunnel_memory(m->current, add);
    for (const struct tunnel *t = m->draining; t; t = t->next)
        tunnel_memory(t, add);
}

void masque_free(struct masque *m)
{
    if (!m)
        return;
    handshake_cancel(m->handshake);
    wheel_cancel(m->env->opt.wheel, &m->idle);
    wheel_cancel(m->env->opt.wheel, &m->serve);
    masque_check_cancel(m);
    masque_echo_free(m);
    while (m->streams) /* those that carry others, which are freed later */
        masque_stream_orphan(m->streams);
    while (m->current)
        end_tunnel(m->current);
    while (m->draining)
        end_tunnel(m->draining);
    m->memory->masque = NULL;
    explicit_bzero(m->authorization, sizeof(m->authorization));
    free(m);
}
