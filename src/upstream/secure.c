/* secure.c - TLS around a connection to a proxy: first under the handshake, then under the stream.
 *
 * How it works. One object carries the session from the handshake into the stream, so the session's two functions never
 * change their argument. The stream's owner sees the same events as on a bare socket, although they come from elsewhere:
 * plain bytes may wait inside TLS when the socket is empty, and a record that was made must leave although the owner has
 * nothing more to send. secure_update() turns both into interest in the descriptor and a timer.
 *
 * The owner's FIN (faults.md L12). Some servers answer on after our close_notify, some close at once and lose the reply. So it
 * is held until the reply has been silent for a while. */
#include "masque.h"

#include <sys/socket.h>

#define END_RETRY_US UINT64_C(50000) /* while a full socket holds up our end */
/* To one stream: 0.4 ms of cipher, then others have their turn (faults.md L13). */
#define TURN_BYTES_MAX (128u * 1024)

/* ---- the session's way to the socket ---- */

static ssize_t io_recv(void *arg, void *to, size_t len)
{
    struct secure *c = arg;
    ssize_t n;

    if (c->below)
        return tls_recv(c->below->tls, to, len);
    if (c->hop)
        return masque_stream_recv(c->hop, to, len);
    n = recv(c->fd, to, len, 0);
    UP_COUNT(c->env, recv_calls);
    return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

static ssize_t io_send(void *arg, const void *data, size_t len)
{
    struct secure *c = arg;
    struct iovec all = { (void *)(uintptr_t)data, len };
    ssize_t n;

    if (c->below)
        return tls_sendv(c->below->tls, &all, 1);
    if (c->hop)
        return masque_stream_sendv(c->hop, &all, 1);
    n = send(c->fd, data, len, MSG_NOSIGNAL);
    UP_COUNT(c->env, send_calls);
    if (n >= 0)
        return n;
    return errno == EINTR || errno == ENOBUFS || errno == ENOMEM ? -EAGAIN : -errno; /* faults.md R4 */
}

static void io_wake(void *arg)
{
    secure_again(arg);
}

static const struct tls_io io = { io_recv, io_send, io_wake };

/* ---- life ---- */

/* Whom the certificate must be for. */
static const char *name_of(const struct upstream *up, char text[IP_TEXT_MAX])
{
    if (up->tls_name)
        return up->tls_name;
    return up->server.name ? up->server.name : ip_text(&up->server.addr, text);
}

static int context_of(struct up_env *env, struct up_memory *m, struct tls_context **out)
{
    char text[IP_TEXT_MAX];
    int r = 0;

    if (!env->tls)
        r = tls_worker_new(&env->tls);
    if (r == 0 && !m->tls)
        r = tls_context_new(env->tls, m->up->tls, name_of(m->up, text), &m->tls);
    *out = m->tls;
    return r;
}

static void on_timer(struct wheel_timer *t, uint64_t now_us);

int secure_new(struct handshake *h, struct secure **out)
{
    struct up_env *env = h->env;
    struct tls_context *context;
    struct secure *c;
    int r = context_of(env, h->memory, &context);

    if (r != 0)
        return r;
    c = slab_get(&env->secures);
    if (!c)
        return -ENOMEM;
    *c = (struct secure){ .env = env, .fd = -1, .hop = h->hop, .handshake = h, .timer.fn = on_timer };
    if (!h->hop)
        c->fd = loop_io_fd(&h->io);
    r = tls_open(context, &io, c, &c->tls);
    if (r != 0) {
        slab_put(&env->secures, c);
        return r;
    }
    /* a request behind the last flight must not wait for its ACK, which may take 40 ms */
    if (!h->hop && !h->below)
        socket_tune(c->fd);
    c->below = h->below;
    h->below = NULL;
    *out = c;
    return 0;
}

void secure_free(struct secure *c)
{
    if (!c)
        return;
    secure_free(c->below);
    wheel_cancel(c->env->opt.wheel, &c->timer);
    tls_free(c->tls);
    slab_put(&c->env->secures, c);
}

void secure_again(struct secure *c)
{
    wheel_set(c->env->opt.wheel, &c->timer, env_now_us(c->env));
}

/* ---- all levels at once ---- */

bool secure_unsent(const struct secure *c)
{
    return c && (tls_unsent(c->tls) || secure_unsent(c->below));
}

static bool secure_unread(const struct secure *c)
{
    return c && (tls_unread(c->tls) || secure_unread(c->below));
}

int secure_flush(struct secure *c)
{
    int r = tls_flush(c->tls);

    if (!c->below || r == -ECONNRESET)
        return r;
    return secure_flush(c->below);
}

/* The last words of all levels, as far as they go. */
static void say_end(struct secure *c)
{
    for (; c; c = c->below)
        (void)tls_shutdown(c->tls);
}

void secure_close(struct secure *c, bool politely)
{
    if (politely)
        say_end(c);
    secure_free(c);
}

/* ---- under a stream ---- */

static uint64_t end_due_us(const struct secure *c)
{
    return c->heard_us + (uint64_t)c->stream->memory->up->half_close_delay_ms * 1000;
}

static void watch(struct secure *c, unsigned events)
{
    if (c->hop)
        masque_stream_want(c->hop, events);
    else
        loop_io_set(c->env->opt.loop, &c->stream->io, events);
}

void secure_update(struct secure *c)
{
    struct up_env *env = c->env;
    uint64_t now_us = env_now_us(env), due_us;

    watch(c, c->want | (secure_unsent(c) ? LOOP_WRITE : 0u));
    if ((c->want & LOOP_READ) != 0 && secure_unread(c)) {
        wheel_set(env->opt.wheel, &c->timer, now_us);
    } else if (c->end_held) {
        due_us = end_due_us(c);
        wheel_set(env->opt.wheel, &c->timer, due_us > now_us ? due_us : now_us + END_RETRY_US);
    } else {
        wheel_cancel(env->opt.wheel, &c->timer);
    }
}

void secure_attach(struct secure *c, struct up_stream *s)
{
    c->handshake = NULL;
    c->stream = s;
    c->want = LOOP_READ;
    secure_update(c);
}

ssize_t secure_recv(struct secure *c, void *to, size_t len)
{
    uint64_t now_us = env_now_us(c->env);
    ssize_t n;

    if (c->heard_us != now_us)
        c->turn_bytes = 0;
    else if (c->turn_bytes >= TURN_BYTES_MAX && !c->stream->send_failed)
        return -EAGAIN; /* secure_update() asks again in the next turn */
    n = tls_recv(c->tls, to, len);
    if (n > 0) {
        c->heard_us = now_us;
        c->turn_bytes += (uint32_t)n;
    } else if (n < 0 && n != -EAGAIN && tls_truncated(c->tls)) {
        UP_COUNT(c->env, tls_truncated);
    }
    return n;
}

void secure_end(struct secure *c)
{
    c->heard_us = env_now_us(c->env);
    c->end_held = true;
    secure_update(c);
}

/* One round of the owner's events; its stream may be closed or broken by any of them. */
static void run_events(struct up_stream *s, unsigned events)
{
    struct up_env *env = s->memory->env;
    struct secure *c = s->secure;

    env->running = s;
    if ((events & c->want & LOOP_READ) != 0)
        stream_events(s)->on_readable(s->arg);
    if (env->running == s && s->state == STREAM_OPEN && (events & c->want & LOOP_WRITE) != 0 &&
        !secure_unsent(c))
        stream_events(s)->on_writable(s->arg);
    if (env->running == s && s->state == STREAM_OPEN)
        secure_update(c);
    env->running = NULL;
}

void secure_on_hop(void *stream, unsigned events)
{
    struct up_stream *s = stream;

    if ((events & LOOP_WRITE) != 0 && secure_flush(s->secure) == -ECONNRESET)
        s->send_failed = true; /* what it has received is still the owner's: recv tells */
    run_events(s, events);
}

void secure_on_io(struct loop_io *loop_io, unsigned events)
{
    secure_on_hop(CONTAINER_OF(loop_io, struct up_stream, io), events);
}

static void on_timer(struct wheel_timer *t, uint64_t now_us)
{
    struct secure *c = CONTAINER_OF(t, struct secure, timer);

    if (c->handshake) {
        handshake_secure_step(c->handshake);
        return;
    }
    if (c->end_held && now_us >= end_due_us(c) && tls_shutdown(c->tls) == 0)
        c->end_held = false;
    if ((c->want & LOOP_READ) != 0 && secure_unread(c))
        run_events(c->stream, LOOP_READ);
    else
        secure_update(c);
}
