/* stream.c - an open byte stream: nothing but a socket, or TLS around one (secure.c): the handshake is gone by then.
 *
 * What always holds. Data goes straight between the socket and the caller's memory. A stream whose sending failed has been
 * reset: Linux then hands out what had arrived and ends with a 0 that looks like an orderly end, which must not reach the
 * client as one (faults.md G8, S17), so send_failed turns it into an error. */
#include "upstream_impl.h"
#include "masque.h"

#include <netinet/in.h>
#include <sys/socket.h>

/* The owners' tables are few, static, and never change. */
static uint8_t owner_number(struct up_env *env, const struct up_stream_events *events)
{
    uint8_t i = 0;

    while (env->owners[i] && env->owners[i] != events)
        i++;
    assert(i < OWNERS_MAX - 1); /* the last one stays NULL */
    env->owners[i] = events;
    return i;
}

const struct up_stream_events *stream_events(const struct up_stream *s)
{
    return s->memory->env->owners[s->owner];
}

/* The memory is free when this returns. The descriptor must be closed. */
static void free_stream(struct up_stream *s)
{
    s->memory->users--;
    slab_put(&s->memory->env->streams, s);
}

/* @politely: with a close_notify, if it goes. */
static void drop_secure(struct up_stream *s, bool politely)
{
    struct masque_stream *hop;

    if (!s->is_secure || s->state != STREAM_OPEN)
        return;
    hop = s->secure->hop;
    secure_close(s->secure, politely);
    if (hop && politely)
        masque_stream_shutdown(hop);
    masque_stream_close(hop);
    s->secure = NULL;
    s->is_secure = false;
}

static void close_socket(struct up_stream *s, bool reset)
{
    int fd = loop_io_fd(&s->io);

    drop_secure(s, !reset);
    if (s->over_masque)
        return;
    loop_io_stop(s->memory->env->opt.loop, &s->io);
    if (reset) {
        struct linger now = { .l_onoff = 1, .l_linger = 0 };

        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    socket_close(s->memory->env, fd, s->guard);
}

static void tell_closed(struct up_stream *s, const struct up_failure *why)
{
    s->state = STREAM_DEAD;
    if (stream_events(s)->on_closed)
        stream_events(s)->on_closed(s->arg, why);
    free_stream(s);
}

void stream_ended(struct up_stream *s, const struct up_failure *why)
{
    tell_closed(s, why);
}

/* ---- breaking ---- */

static void unlink_broken(struct up_stream *s)
{
    struct up_stream **at = &s->memory->env->broken;

    while (*at != s) /* a caller that closes at once finds it in front */
        at = &(*at)->next_broken;
    *at = s->next_broken;
}

void stream_why_cut(const struct upstream *up, struct up_failure *why)
{
    if (up->dialer)
        up_fail(why, -ECONNRESET, "stream", false,
                "the connection through %.80s, reached through %.80s, was cut", up->name, up->dialer->name);
    else
        up_fail(why, -ECONNRESET, "stream", false, "the connection through %.100s was cut", up->name);
}

void stream_tell_broken(struct wheel_timer *t, uint64_t now_us)
{
    struct up_env *env = CONTAINER_OF(t, struct up_env, broken_timer);
    struct up_stream *s;

    (void)now_us;
    while ((s = env->broken) != NULL) {
        struct up_failure why = { 0 };

        env->broken = s->next_broken;
        stream_why_cut(s->memory->up, &why);
        close_socket(s, true);
        tell_closed(s, &why);
    }
}

static int stream_break(struct up_stream *s)
{
    struct up_env *env = s->memory->env;

    if (s->state == STREAM_OPEN) {
        drop_secure(s, false);
        s->state = STREAM_BROKEN;
        s->next_broken = env->broken;
        env->broken = s;
        if (!s->over_masque)
            loop_io_set(env->opt.loop, &s->io, 0);
        if (!wheel_is_set(&env->broken_timer))
            wheel_set(env->opt.wheel, &env->broken_timer, env_now_us(env));
    }
    return -ECONNRESET;
}

/* ---- opening ---- */

static void on_io(struct loop_io *io, unsigned events)
{
    struct up_stream *s = CONTAINER_OF(io, struct up_stream, io);
    struct up_env *env = s->memory->env;

    env->running = s;
    if ((events & LOOP_READ) != 0)
        stream_events(s)->on_readable(s->arg);
    if ((events & LOOP_WRITE) != 0 && env->running == s)
        stream_events(s)->on_writable(s->arg);
    env->running = NULL;
}

static void take_over(struct up_stream *s, const struct handshake_result *result)
{
    struct up_env *env = result->memory->env;

    UP_COUNT(env, streams_opened);
    s->memory = result->memory; /* the member, if a group was asked */
    s->memory->users++;
    s->guard = result->guard;
    s->state = STREAM_OPEN;
    s->is_secure = result->secure != NULL;
    s->over_masque = s->is_secure && result->masque;
    s->is_masque = !s->is_secure && result->masque;
    if (s->over_masque)
        masque_stream_carry(result->masque, secure_on_hop, s);
    else if (!s->is_masque)
        loop_io_resume(env->opt.loop, &s->io, result->fd, LOOP_READ, s->is_secure ? secure_on_io : on_io);
    if (s->is_masque) {
        s->masque = result->masque;
        masque_stream_attach(s->masque, s);
    } else if (s->is_secure) {
        s->secure = result->secure;
        secure_attach(s->secure, s);
    }
}

static void on_handshake(void *arg, const struct handshake_result *result)
{
    struct up_stream *s = arg;
    struct up_env *env = s->memory->env;

    s->handshake = NULL;
    if (result->why) {
        UP_COUNT(env, streams_failed);
        tell_closed(s, result->why);
        return;
    }
    s->memory->users--;
    take_over(s, result);
    stream_events(s)->on_open(s->arg);
}

int stream_adopt(struct up_env *env, const struct handshake_result *result,
                 const struct up_stream_events *events, void *arg, struct up_stream **out)
{
    struct up_stream *s = slab_get(&env->streams);

    if (!s)
        return -ENOMEM;
    s->memory = result->memory;
    s->owner = owner_number(env, events);
    s->arg = arg;
    take_over(s, result);
    *out = s;
    return 0;
}

int up_stream_open_known(struct up_env *env, struct upstream *up, const struct host_port *dst,
                         const struct up_known *known, uint64_t timeout_us,
                         const struct up_stream_events *events, void *arg, struct up_stream **out)
{
    struct up_memory *m;
    struct up_stream *s;
    int r;

    assert(loop_is_mine(env->opt.loop));
    if (up->kind == UPSTREAM_REJECT || up->kind == UPSTREAM_REJECT_DROP)
        return -ECONNREFUSED;
    m = env_memory(env, up);
    s = m ? slab_get(&env->streams) : NULL;
    if (!s)
        return -ENOMEM;
    s->memory = m;
    s->owner = owner_number(env, events);
    s->arg = arg;
    s->guard = NO_GUARD;
    s->state = STREAM_OPENING;
    m->users++;
    r = handshake_open(env, m, SOCKS5_CONNECT, dst, known, timeout_us, on_handshake, s, &s->handshake);
    if (r != 0) {
        UP_COUNT(env, streams_failed);
        free_stream(s);
        return r;
    }
    *out = s;
    return 0;
}

int up_stream_open(struct up_env *env, struct upstream *up, const struct host_port *dst, uint64_t timeout_us,
                   const struct up_stream_events *events, void *arg, struct up_stream **out)
{
    return up_stream_open_known(env, up, dst, NULL, timeout_us, events, arg, out);
}

/* ---- bytes ---- */

ssize_t up_stream_recv(struct up_stream *s, void *to, size_t len)
{
    ssize_t n;

    assert(s->state == STREAM_OPEN || s->state == STREAM_BROKEN);
    if (s->is_masque) {
        n = masque_stream_recv(s->masque, to, len);
    } else if (s->is_secure) {
        n = secure_recv(s->secure, to, len);
    } else {
        n = recv(loop_io_fd(&s->io), to, len, 0);
        n = n < 0 ? -errno : n;
        UP_COUNT(s->memory->env, recv_calls);
    }
    if (n > 0) {
        counter_add(&s->memory->env->cnt.bytes_down, (uint64_t)n);
        s->memory->health.last_good_us = env_now_us(s->memory->env);
        return n;
    }
    if (n == -EAGAIN || n == -EINTR)
        return -EAGAIN;
    if (s->is_masque) /* an orderly end; HTTP/2 tells of others by itself */
        return 0;
    return n == 0 && !s->send_failed ? 0 : stream_break(s);
}

/* Before the second send, since Nagle's algorithm holds nothing back before that: a connection that sends one request and reads
 * the answer does without these system calls. With TLS it has been done (secure_new()). */
static void tune(struct up_stream *s)
{
    if (!s->is_secure && s->sends < 2 && ++s->sends == 2)
        socket_tune(loop_io_fd(&s->io));
}

static ssize_t send_plain(struct up_stream *s, const struct iovec *iov, int iovcnt)
{
    struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)iovcnt };
    ssize_t n = sendmsg(loop_io_fd(&s->io), &msg, MSG_NOSIGNAL);

    UP_COUNT(s->memory->env, send_calls);
    if (n >= 0)
        return n;
    return errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ENOMEM /* faults.md R4 */
               ? -EAGAIN
               : -ECONNRESET;
}

ssize_t up_stream_sendv(struct up_stream *s, const struct iovec *iov, int iovcnt)
{
    ssize_t n;

    assert((s->state == STREAM_OPEN || s->state == STREAM_BROKEN) && !s->shut);
    if (s->send_failed || s->state == STREAM_BROKEN)
        return -ECONNRESET;
    if (s->is_masque) {
        n = masque_stream_sendv(s->masque, iov, iovcnt);
        if (n > 0)
            counter_add(&s->memory->env->cnt.bytes_up, (uint64_t)n);
        return n;
    }
    tune(s);
    if (s->is_secure) {
        n = tls_sendv(s->secure->tls, iov, iovcnt);
        secure_update(s->secure);
    } else {
        n = send_plain(s, iov, iovcnt);
    }
    if (n >= 0)
        counter_add(&s->memory->env->cnt.bytes_up, (uint64_t)n);
    else if (n != -EAGAIN)
        s->send_failed = true; /* on_closed follows what recv still has */
    return n;
}

void up_stream_want(struct up_stream *s, unsigned events)
{
    if (s->state != STREAM_OPEN)
        return;
    if (s->is_masque) {
        masque_stream_want(s->masque, events);
    } else if (s->is_secure) {
        s->secure->want = (uint8_t)events;
        secure_update(s->secure);
    } else {
        loop_io_set(s->memory->env->opt.loop, &s->io, events);
    }
}

void up_stream_shutdown(struct up_stream *s)
{
    if (s->state != STREAM_OPEN || s->shut)
        return;
    s->shut = true;
    if (s->is_masque) {
        masque_stream_shutdown(s->masque);
        return;
    }
    if (s->is_secure) {
        secure_end(s->secure);
        return;
    }
    (void)shutdown(loop_io_fd(&s->io), SHUT_WR); /* ENOTCONN: it was reset, which the next recv says */
}

static void end_stream(struct up_stream *s, bool reset)
{
    if (!s)
        return;
    if (s->memory->env->running == s)
        s->memory->env->running = NULL;
    switch ((enum stream_state)s->state) {
    case STREAM_OPENING:
        handshake_cancel(s->handshake);
        break;
    case STREAM_BROKEN:
        unlink_broken(s);
        close_socket(s, reset);
        break;
    case STREAM_OPEN:
        if (s->is_masque && reset)
            masque_stream_reset(s->masque);
        else if (s->is_masque)
            masque_stream_close(s->masque);
        else
            close_socket(s, reset);
        break;
    case STREAM_DEAD:
        return;
    }
    free_stream(s);
}

void up_stream_close(struct up_stream *s)
{
    end_stream(s, false);
}

void up_stream_reset(struct up_stream *s)
{
    end_stream(s, true);
}

struct upstream *up_stream_way(const struct up_stream *s)
{
    return s->state == STREAM_OPENING ? handshake_memory(s->handshake)->up : s->memory->up;
}

const char *up_stream_stage(const struct up_stream *s)
{
    return s->state == STREAM_OPENING ? handshake_stage(s->handshake) : "stream";
}
