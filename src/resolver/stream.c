/* stream.c - connections to name servers: TCP (RFC 7766), TLS (RFC 7858) and HTTPS (https.c), through any way out.
 *
 * One connection a server carries all questions to it, each with an id of its own; answers come in any order. It stays open for
 * IDLE_US after the last one. When it ends while questions wait, each of them is asked once more on a new connection
 * (faults.md D13): servers close what has been idle whenever they like. One that has been silent for SILENT_US while a question
 * waits gets no more of them: new ones are asked on a new connection. TLS is src/tls over the stream of the way out, with chain
 * and name always checked. */
#include "service_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "culvert/h2.h"

#define OPEN_US    UINT64_C(4000000)
#define IDLE_US    UINT64_C(10000000)
#define SILENT_US  UINT64_C(3000000)
#define OUT_MAX    65536
#define IN_FIRST   2048
#define READ_STEPS 16

/* ---- life ---- */

static void conn_unlink(struct dns_conn *c)
{
    struct dns_conn **at = &c->s->conns;

    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
}

static void conn_free(struct dns_conn *c)
{
    conn_unlink(c);
    wheel_cancel(c->s->wheel, &c->timer);
    h2_close(c->h2);
    tls_free(c->tls);
    up_stream_close(c->up);
    free(c->out);
    free(c->in);
    if (c->plan != c->s->plan)
        streams_forget(c->s);
    dns_plan_unref(c->plan);
    free(c);
}

/* It ended. Questions that it had taken are asked once more. */
void stream_end(struct dns_conn *c)
{
    struct dns_try *t = c->tries, *next;
    bool was_ready = c->ready;

    c->tries = NULL;
    for (struct dns_try *at = t; at != NULL; at = at->conn_next)
        https_leave(at);
    for (struct dns_try *at = t; at != NULL; at = at->conn_next)
        at->conn = NULL;
    conn_free(c);
    for (; t != NULL; t = next) {
        struct dns_service *s = t->job->s;

        next = t->conn_next;
        t->conn_next = NULL;
        if (t->job->done)
            continue;
        if (!was_ready || t->repeated || stream_ask(t) != 0) {
            try_failed(t);
        } else {
            t->repeated = true;
            DCOUNT(s, repeated);
        }
    }
}

static bool is_in_use(const struct dns_service *s, const struct dns_server_tls *t)
{
    const struct dns_conn *c = s->conns;

    while (c != NULL && c->server != t->server)
        c = c->next;
    return c != NULL || t->plan == s->plan;
}

void streams_forget(struct dns_service *s)
{
    struct dns_server_tls **at = &s->tls_contexts;

    while (*at != NULL) {
        struct dns_server_tls *t = *at;

        if (is_in_use(s, t)) {
            at = &t->next;
            continue;
        }
        *at = t->next;
        tls_context_free(t->context);
        dns_plan_unref(t->plan);
        free(t);
    }
}

void streams_close(struct dns_service *s)
{
    while (s->conns != NULL)
        conn_free(s->conns); /* no try is left */
}

static bool is_silent(const struct dns_conn *c)
{
    return c->unheard_us != 0 && loop_now_us(c->s->loop) - c->unheard_us >= SILENT_US;
}

void stream_heard(struct dns_conn *c)
{
    c->unheard_us = 0;
}

void stream_leave(struct dns_try *t)
{
    struct dns_conn *c = t->conn;
    struct dns_try **at;
    uint64_t now_us;

    if (c == NULL)
        return;
    at = &c->tries;
    while (*at != t)
        at = &(*at)->conn_next;
    *at = t->conn_next;
    t->conn = NULL;
    t->conn_next = NULL;
    https_leave(t);
    now_us = loop_now_us(c->s->loop);
    c->idle_us = is_silent(c) || c->leaving ? now_us : now_us + IDLE_US;
    if (c->tries == NULL)
        wheel_set(c->s->wheel, &c->timer, c->idle_us);
    else if (c->h2 != NULL) /* there is room for those who wait */
        wheel_set(c->s->wheel, &c->timer, now_us);
}

/* ---- bytes out ---- */

static ssize_t send_some(struct dns_conn *c, const void *data, size_t len)
{
    const struct iovec iov = { (void *)(uintptr_t)data, len };

    return c->tls != NULL ? tls_sendv(c->tls, &iov, 1) : up_stream_sendv(c->up, &iov, 1);
}

static void want(struct dns_conn *c)
{
    bool unsent = c->out_len > 0 || (c->tls != NULL && tls_unsent(c->tls));

    up_stream_want(c->up, LOOP_READ | (unsent ? LOOP_WRITE : 0u));
}

/* Return: false: the connection broke. */
static bool push(struct dns_conn *c)
{
    while (c->ready && c->out_len > 0) {
        ssize_t n = send_some(c, c->out, c->out_len);

        if (n == -EAGAIN)
            break;
        if (n < 0)
            return false;
        c->out_len -= (size_t)n;
        memmove(c->out, c->out + n, c->out_len);
    }
    if (c->ready && c->tls != NULL) {
        int r = tls_flush(c->tls);

        if (r != 0 && r != -EAGAIN)
            return false;
    }
    if (c->open)
        want(c);
    return true;
}

static bool append(struct dns_conn *c, const void *data, size_t len)
{
    if (c->out_len + len > c->out_cap) {
        size_t cap = (c->out_len + len) * 2;
        uint8_t *bytes = cap <= OUT_MAX ? realloc(c->out, cap) : NULL;

        if (bytes == NULL)
            return false;
        c->out = bytes;
        c->out_cap = cap;
    }
    memcpy(c->out + c->out_len, data, len);
    c->out_len += len;
    return true;
}

/* ---- bytes in ---- */

static struct dns_try *try_of(const struct dns_conn *c, uint16_t id)
{
    struct dns_try *t = c->tries;

    while (t != NULL && t->id != id)
        t = t->conn_next;
    return t;
}

/* Hands on every whole message. Return: false: what came is no DNS. */
static bool hand_on(struct dns_conn *c)
{
    size_t at = 0;

    while (c->in_len - at >= 2) {
        size_t len = get_be16(c->in + at);
        struct dns_try *t;

        if (len < DNS_HEADER_LEN) /* faults.md D5: a length of 0 */
            return false;
        if (c->in_len - at < 2 + len)
            break;
        t = try_of(c, get_be16(c->in + at + 2));
        if (t != NULL) {
            stream_leave(t);
            try_message(t, c->in + at + 2, len);
        } else {
            DCOUNT(c->s, ignored); /* its question has been given up */
        }
        at += 2 + len;
    }
    c->in_len -= at;
    if (at > 0)
        memmove(c->in, c->in + at, c->in_len);
    return true;
}

/* Room for the message that is under way. */
static bool make_room(struct dns_conn *c)
{
    size_t need = c->in_len < 2 ? IN_FIRST : 2u + get_be16(c->in);
    uint8_t *bytes;

    if (need < IN_FIRST)
        need = IN_FIRST;
    if (c->in_cap >= need && c->in_len < c->in_cap)
        return true;
    bytes = realloc(c->in, need);
    if (bytes == NULL)
        return false;
    c->in = bytes;
    c->in_cap = need;
    return true;
}

static bool pull(struct dns_conn *c)
{
    for (int i = 0; i < READ_STEPS; i++) {
        ssize_t n;

        if (!make_room(c))
            return false;
        n = c->tls != NULL ? tls_recv(c->tls, c->in + c->in_len, c->in_cap - c->in_len)
                           : up_stream_recv(c->up, c->in + c->in_len, c->in_cap - c->in_len);
        if (n == -EAGAIN)
            return true;
        if (n <= 0)
            return false;
        c->in_len += (size_t)n;
        stream_heard(c);
        if (!hand_on(c))
            return false;
    }
    if (c->tls != NULL) /* what is left inside TLS is announced by no descriptor */
        wheel_set(c->s->wheel, &c->timer, loop_now_us(c->s->loop));
    return true;
}

/* ---- TLS ---- */

static ssize_t io_recv(void *arg, void *to, size_t len)
{
    struct dns_conn *c = arg;

    return c->up == NULL ? -ECONNRESET : up_stream_recv(c->up, to, len);
}

static ssize_t io_send(void *arg, const void *data, size_t len)
{
    struct dns_conn *c = arg;
    const struct iovec iov = { (void *)(uintptr_t)data, len };

    return c->up == NULL ? -ECONNRESET : up_stream_sendv(c->up, &iov, 1);
}

static void io_wake(void *arg)
{
    struct dns_conn *c = arg;

    wheel_set(c->s->wheel, &c->timer, loop_now_us(c->s->loop));
}

static const struct tls_io tls_io = { io_recv, io_send, io_wake };

static struct tls_context *context_of(const struct dns_conn *c)
{
    const struct dns_nameserver *server = c->server;
    struct dns_service *s = c->s;
    struct dns_server_tls *t = s->tls_contexts;
    char text[IP_TEXT_MAX];

    while (t != NULL && t->server != server)
        t = t->next;
    if (t != NULL)
        return t->context;
    t = calloc(1, sizeof(*t));
    if (t == NULL ||
        tls_context_new(s->tls, server->tls,
                        server->at.name != NULL ? server->at.name : ip_text(&server->at.addr, text),
                        &t->context) != 0) {
        free(t);
        return NULL;
    }
    t->plan = dns_plan_ref(c->plan);
    t->server = c->server;
    t->next = s->tls_contexts;
    s->tls_contexts = t;
    return t->context;
}

/* Return: false: it broke; the certificate is wrong, for one (faults.md D13). */
static bool shake_hands(struct dns_conn *c)
{
    switch (tls_handshake(c->tls, loop_now_us(c->s->loop))) {
    case TLS_DONE:
        c->ready = true;
        return c->server->transport != DNS_OVER_HTTPS || https_start(c);
    case TLS_WANT_READ:
        up_stream_want(c->up, LOOP_READ);
        return true;
    case TLS_WANT_WRITE:
        up_stream_want(c->up, LOOP_READ | LOOP_WRITE);
        return true;
    case TLS_LATER:
        io_wake(c);
        up_stream_want(c->up, 0);
        return true;
    case TLS_QUEUED:
        up_stream_want(c->up, 0);
        return true;
    case TLS_BROKEN:
        break;
    }
    return false;
}

/* ---- events ---- */

static void go_on(struct dns_conn *c, bool readable)
{
    bool well = true;

    if (c->h2 != NULL) {
        h2_turn(c->h2, readable ? LOOP_READ : LOOP_WRITE);
        return;
    }
    if (!c->ready && c->tls != NULL)
        well = shake_hands(c);
    if (well && c->ready && c->h2 == NULL)
        well = push(c);
    if (well && c->ready && c->h2 == NULL && readable)
        well = pull(c);
    if (!well)
        stream_end(c);
}

static void on_open(void *arg)
{
    struct dns_conn *c = arg;

    c->open = true;
    c->ready = c->tls == NULL;
    go_on(c, false);
}

static void on_readable(void *arg)
{
    go_on(arg, true);
}

static void on_writable(void *arg)
{
    go_on(arg, false);
}

static void on_closed(void *arg, const struct up_failure *why)
{
    struct dns_conn *c = arg;

    (void)why; /* the question goes to the next server, or fails: that is what is told */
    c->up = NULL;
    stream_end(c);
}

static const struct up_stream_events stream_events = { on_open, on_readable, on_writable, on_closed };

static void on_timer(struct wheel_timer *timer, uint64_t now_us)
{
    struct dns_conn *c = CONTAINER_OF(timer, struct dns_conn, timer);

    if (c->tries == NULL && now_us >= c->idle_us)
        conn_free(c);
    else if (c->tries == NULL)
        wheel_set(c->s->wheel, timer, c->idle_us);
    else if (c->h2 != NULL)
        https_ask_waiting(c);
    else if (c->open)
        go_on(c, true);
}

/* ---- questions ---- */

static int conn_open(struct dns_conn *c)
{
    struct upstream *way = c->plan->targets[c->server->target];
    struct tls_context *context = NULL;

    if (c->server->tls != NULL && (context = context_of(c)) == NULL)
        return -ENOMEM;
    if (context != NULL && tls_open(context, &tls_io, c, &c->tls) != 0)
        return -ENOMEM;
    return up_stream_open(c->s->env, way, &c->server->at, OPEN_US, &stream_events, c, &c->up);
}

static struct dns_conn *conn_new(const struct dns_try *t)
{
    struct dns_conn *c = calloc(1, sizeof(*c));
    struct dns_service *s = t->job->s;

    if (c == NULL)
        return NULL;
    c->s = s;
    c->plan = dns_plan_ref(t->job->plan);
    c->server = t->server;
    c->timer.fn = on_timer;
    c->next = s->conns;
    s->conns = c;
    if (conn_open(c) != 0) {
        conn_free(c);
        return NULL;
    }
    DCOUNT(s, connections);
    return c;
}

/* Ids are random; two questions of one connection must not share one. */
static int own_id(struct dns_conn *c, struct dns_try *t)
{
    while (try_of(c, t->id) != NULL) {
        int r = random_bytes(&t->id, sizeof(t->id));

        if (r != 0)
            return r;
        put_be16(t->query + 2, t->id);
    }
    return 0;
}

/* Over HTTPS a stream is what tells questions apart. */
static bool take_try(struct dns_conn *c, struct dns_try *t)
{
    return t->server->transport == DNS_OVER_HTTPS || (own_id(c, t) == 0 && append(c, t->query, t->query_len));
}

int stream_ask(struct dns_try *t)
{
    struct dns_service *s = t->job->s;
    struct dns_conn *c = s->conns;

    while (c != NULL && (c->server != t->server || c->leaving || is_silent(c)))
        c = c->next;
    if (c == NULL && (c = conn_new(t)) == NULL)
        return -ENOMEM;
    if (!take_try(c, t))
        return -ENOBUFS;
    DCOUNT(s, sent);
    t->conn = c;
    t->conn_next = c->tries;
    c->tries = t;
    if (c->unheard_us == 0)
        c->unheard_us = loop_now_us(s->loop);
    if (c->h2 != NULL)
        https_ask_waiting(c);
    else if (c->ready) /* not from here: a connection that broke would end this try while it is being made */
        up_stream_want(c->up, LOOP_READ | LOOP_WRITE);
    return 0;
}
