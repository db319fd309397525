/* fake_ways.h - ways out, TLS and HTTP/2 that a test moves by hand, in virtual time: in place of src/upstream, src/tls, src/h2 and the
 * loop's clock. It defines their functions, so it is included by the one file of a test, which then links none of them. */
#ifndef CULVERT_TEST_FAKE_WAYS_H
#define CULVERT_TEST_FAKE_WAYS_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "culvert/h2.h"
#include "culvert/loop.h"
#include "culvert/tls.h"
#include "culvert/upstream.h"

#define WAY_MESSAGES 64
#define WAY_LINKS    24 /* ever made in one test */

struct loop {
    uint64_t now_us;
};
struct upstream {
    enum upstream_kind kind;
    int udp_err;           /* what up_udp_open() says */
    struct upstream *goes; /* a group: its member now */
};

struct said { /* a message of ours */
    uint8_t bytes[320];
    size_t len;
    struct host_port to;
};

struct up_udp { /* an association */
    struct upstream *way, *member;
    const struct up_udp_events *events;
    void *arg;
    bool open, closed;
    struct said said[WAY_MESSAGES];
    size_t count;
};
struct up_stream { /* a connection; TLS and HTTP/2 in it say their bytes here, too */
    const struct up_stream_events *events;
    void *arg;
    struct host_port to;
    bool open, closed, eof;
    uint8_t out[8192], in[8192];
    size_t out_len, in_len;
};
struct h2_stream {
    const struct h2_stream_events *events;
    void *arg;
    bool closed;
    char path[900];
    uint8_t in[1024];
    size_t in_len;
    bool end;
};
struct tls {
    struct up_stream *below;
};
struct tls_context {
    int unused;
};
struct tls_worker {
    int unused;
};
struct h2 {
    const struct h2_events *events;
    void *arg;
    bool closed, full;
    const char *why;
};

struct up_env {
    struct loop loop;
    struct wheel wheel;
    struct up_udp *udp[WAY_LINKS];
    struct up_stream *stream[WAY_LINKS];
    struct h2 *h2[WAY_LINKS];
    struct h2_stream *request[WAY_LINKS];
    size_t udps, streams, h2s, requests;
    bool no_h2; /* ALPN agrees on nothing */
};
static struct up_env *ways; /* of the test that runs */

static inline void *ways_made(size_t size, void *list, size_t *count)
{
    void *made = calloc(1, size);

    if (made == NULL || *count == WAY_LINKS)
        abort();
    ((void **)list)[(*count)++] = made;
    return made;
}

static inline struct up_env *ways_new(void)
{
    ways = calloc(1, sizeof(*ways));
    ways->loop.now_us = UINT64_C(1000000000);
    wheel_init(&ways->wheel, ways->loop.now_us);
    return ways;
}

static inline void ways_free(void)
{
    for (size_t i = 0; i < WAY_LINKS; i++) {
        free(ways->udp[i]);
        free(ways->stream[i]);
        free(ways->h2[i]);
        free(ways->request[i]);
    }
    free(ways);
    ways = NULL;
}

static inline void ways_run_ms(unsigned ms)
{
    for (unsigned i = 0; i < ms; i += 10) {
        ways->loop.now_us += 10000;
        wheel_advance(&ways->wheel, ways->loop.now_us);
    }
}

/* ---- what happens to a link, as the test says ---- */

static const struct up_failure __attribute__((unused)) way_broke = { .err = -ECONNRESET, .stage = "test" };
static const struct up_failure __attribute__((unused))
way_without_udp = { .err = -EOPNOTSUPP, .stage = "test" };

static inline void udp_now_open(struct up_udp *u)
{
    u->open = true;
    u->events->on_open(u->arg);
}

static inline void udp_now_gone(struct up_udp *u, const struct up_failure *why)
{
    u->closed = true;
    u->events->on_closed(u->arg, why);
}

static inline void udp_now_brings(struct up_udp *u, const struct ip_port *from, const void *data, size_t len)
{
    struct up_datagram d = { *from, data, len };

    u->events->on_datagrams(u->arg, &d, 1);
}

static inline void stream_now_open(struct up_stream *s)
{
    s->open = true;
    s->events->on_open(s->arg);
}

static inline void stream_now_gone(struct up_stream *s)
{
    s->closed = true;
    s->events->on_closed(s->arg, &way_broke);
}

static inline void stream_now_brings(struct up_stream *s, const void *data, size_t len)
{
    memcpy(s->in + s->in_len, data, len);
    s->in_len += len;
    s->events->on_readable(s->arg);
}

/* ---- culvert/loop.h ---- */

uint64_t loop_now_us(const struct loop *l)
{
    return l->now_us;
}

bool loop_is_mine(const struct loop *l)
{
    return l != NULL;
}

void loop_post(struct loop *l, struct loop_msg *m) /* one worker has nobody to post to */
{
    (void)l;
    (void)m;
    abort();
}

/* ---- culvert/upstream.h ---- */

struct wheel *up_env_wheel(const struct up_env *env)
{
    return (struct wheel *)(uintptr_t)&env->wheel;
}

enum upstream_kind upstream_kind(const struct upstream *up)
{
    return up->kind;
}

struct upstream *upstream_ref(struct upstream *up)
{
    return up;
}

void upstream_unref(struct upstream *up)
{
    (void)up;
}

struct upstream *up_current(struct up_env *env, struct upstream *up)
{
    (void)env;
    return up->goes != NULL ? up->goes : up;
}

int up_udp_open(struct up_env *env, struct upstream *up, uint64_t timeout_us,
                const struct up_udp_events *events, void *arg, struct up_udp **out)
{
    (void)timeout_us;
    if (up->udp_err != 0)
        return up->udp_err;
    *out = ways_made(sizeof(**out), env->udp, &env->udps);
    (*out)->way = up;
    (*out)->member = up_current(env, up);
    (*out)->events = events;
    (*out)->arg = arg;
    return 0;
}

int up_udp_send(struct up_udp *u, const struct host_port *target, const void *data, size_t len,
                uint16_t gso_size, uint8_t ttl, uint8_t tos)
{
    struct said *s = &u->said[u->count++];

    (void)gso_size;
    (void)ttl;
    (void)tos;
    if (!u->open || u->closed || u->count == WAY_MESSAGES || len > sizeof(s->bytes))
        abort();
    memcpy(s->bytes, data, len);
    s->len = len;
    s->to = *target;
    return 0;
}

void up_udp_close(struct up_udp *u)
{
    if (u != NULL)
        u->closed = true;
}

struct upstream *up_udp_way(const struct up_udp *u)
{
    return u->member;
}

bool up_udp_may_take(struct up_env *env, struct upstream *up, const struct upstream *way)
{
    return up_current(env, up) == way;
}

int up_stream_open(struct up_env *env, struct upstream *up, const struct host_port *dst, uint64_t timeout_us,
                   const struct up_stream_events *events, void *arg, struct up_stream **out)
{
    (void)up;
    (void)timeout_us;
    *out = ways_made(sizeof(**out), env->stream, &env->streams);
    (*out)->events = events;
    (*out)->arg = arg;
    (*out)->to = *dst;
    return 0;
}

ssize_t up_stream_recv(struct up_stream *s, void *to, size_t len)
{
    size_t n = s->in_len < len ? s->in_len : len;

    if (n == 0)
        return s->eof ? 0 : -EAGAIN;
    memcpy(to, s->in, n);
    s->in_len -= n;
    memmove(s->in, s->in + n, s->in_len);
    return (ssize_t)n;
}

ssize_t up_stream_sendv(struct up_stream *s, const struct iovec *iov, int iovcnt)
{
    size_t n = 0;

    for (int i = 0; i < iovcnt; i++) {
        if (!s->open || s->closed || s->out_len + iov[i].iov_len > sizeof(s->out))
            abort();
        memcpy(s->out + s->out_len, iov[i].iov_base, iov[i].iov_len);
        s->out_len += iov[i].iov_len;
        n += iov[i].iov_len;
    }
    return (ssize_t)n;
}

void up_stream_want(struct up_stream *s,
                    unsigned events) /* what is wanted to be written is written at once */
{
    static bool inside;

    if (s == NULL || s->closed || inside || (events & LOOP_WRITE) == 0)
        return;
    inside = true;
    s->events->on_writable(s->arg);
    inside = false;
}

void up_stream_close(struct up_stream *s)
{
    if (s != NULL)
        s->closed = true;
}

/* ---- culvert/tls.h: bytes as they are ---- */

int tls_worker_new(struct tls_worker **out)
{
    *out = calloc(1, sizeof(**out));
    return 0;
}

void tls_worker_free(struct tls_worker *w)
{
    free(w);
}

void tls_worker_memory(const struct tls_worker *w, struct memory_use *add)
{
    (void)w;
    (void)add;
}

struct tls_settings *tls_settings_ref(struct tls_settings *s)
{
    return s;
}

void tls_settings_unref(struct tls_settings *s)
{
    (void)s;
}

int tls_context_new(struct tls_worker *w, struct tls_settings *s, const char *name, struct tls_context **out)
{
    (void)w;
    (void)s;
    (void)name;
    *out = calloc(1, sizeof(**out));
    return 0;
}

void tls_context_free(struct tls_context *c)
{
    free(c);
}

int tls_open(struct tls_context *c, const struct tls_io *io, void *arg, struct tls **out)
{
    (void)c;
    (void)io;
    (void)arg;
    *out = calloc(1, sizeof(**out));
    return 0;
}

void tls_free(struct tls *t)
{
    free(t);
}

enum tls_step tls_handshake(struct tls *t, uint64_t turn)
{
    (void)turn;
    t->below = ways->stream[ways->streams - 1]; /* the latest is the one that shakes hands */
    return TLS_DONE;
}

ssize_t tls_recv(struct tls *t, void *to, size_t len)
{
    return up_stream_recv(t->below, to, len);
}

ssize_t tls_sendv(struct tls *t, const struct iovec *iov, int iovcnt)
{
    return up_stream_sendv(t->below, iov, iovcnt);
}

int tls_flush(struct tls *t)
{
    (void)t;
    return 0;
}

bool tls_unsent(const struct tls *t)
{
    (void)t;
    return false;
}

const char *tls_alpn(const struct tls *t)
{
    (void)t;
    return ways->no_h2 ? NULL : H2_ALPN;
}

/* ---- culvert/h2.h ---- */

void h2_memory(const struct h2 *h, struct memory_use *add)
{
    (void)h;
    (void)add;
}

int h2_open(const struct h2_options *opt, struct h2 **out)
{
    *out = ways_made(sizeof(**out), ways->h2, &ways->h2s);
    (*out)->events = opt->events;
    (*out)->arg = opt->arg;
    (*out)->why = "";
    return 0;
}

void h2_close(struct h2 *h)
{
    if (h != NULL)
        h->closed = true;
}

void h2_turn(struct h2 *h, unsigned events)
{
    (void)h;
    (void)events;
}

bool h2_can_open(const struct h2 *h)
{
    return !h->full && !h->closed;
}

const char *h2_why(const struct h2 *h)
{
    return h->why;
}

const char *h2_field(const struct h2_head *head, const char *name)
{
    for (size_t i = 0; i < head->field_count; i++) {
        if (strcmp(head->fields[i].name, name) == 0)
            return head->fields[i].value;
    }
    return NULL;
}

int h2_request(struct h2 *h, const struct h2_head *head, const struct h2_stream_events *events, void *arg,
               struct h2_stream **out)
{
    if (h->closed)
        abort();
    *out = ways_made(sizeof(**out), ways->request, &ways->requests);
    (*out)->events = events;
    (*out)->arg = arg;
    strncpy((*out)->path, head->path, sizeof((*out)->path) - 1);
    return 0;
}

ssize_t h2_recv(struct h2_stream *s, void *to, size_t len)
{
    size_t n = s->in_len < len ? s->in_len : len;

    if (n == 0)
        return s->end ? 0 : -EAGAIN;
    memcpy(to, s->in, n);
    s->in_len -= n;
    memmove(s->in, s->in + n, s->in_len);
    return (ssize_t)n;
}

void h2_stream_close(struct h2_stream *s, enum h2_code code)
{
    (void)code;
    if (s != NULL)
        s->closed = true;
}

#endif
