/* handshake.c - from nothing to a connected descriptor: dial, TLS, then what the proxy speaks; all under one deadline.
 *
 * How it works. The dial hands over a descriptor; talk_step() says what to send and how many bytes to read. We read exactly the bytes
 * of the answer under way, so what follows the last answer stays in the kernel (or in TLS) for the stream (faults.md S4, S11). Where the
 * end of an answer cannot be known before (HTTP), we look at the bytes before we take them. After sending we wait: it takes a round trip.
 *
 * What always holds. A handshake ends in exactly one call of its function, or in handshake_cancel(). A failure inside handshake_open()
 * is told from the wheel, after it has returned. The deadline covers everything from the name to the last byte, and is set once.
 *
 * A server that was told everything at once (pipeline.c), or was dialled before the flow came, and then closes, answers
 * nonsense or keeps silent, gets one more chance inside the same deadline: a new connection, step by step. */
#include "upstream_impl.h"
#include "masque.h"

#include <sys/socket.h>

/* ---- the end ---- */

/* What one try has got hold of, but for the descriptor. */
static void drop_way(struct handshake *h)
{
    handshake_cancel(h->via);
    masque_stream_close(h->masque);
    secure_free(h->secure);
    secure_free(h->below);
    h->masque = NULL;
    h->via = NULL;
    h->secure = h->below = NULL;
    dial_cancel(&h->dial);
}

/* Takes everything down but the descriptor. The handshake's memory is free when this returns. */
static void release(struct handshake *h)
{
    struct up_env *env = h->env;

    pipeline_end(h);
    wheel_cancel(env->opt.wheel, &h->deadline);
    drop_way(h);
    way_leave(h);
    slab_put(&env->handshakes, h);
}

/* Return: the descriptor; -1: none, or a hop carries us */
static int drop_io(struct handshake *h)
{
    bool has_fd = h->connected && !h->hop;

    if (has_fd)
        loop_io_stop(h->env->opt.loop, &h->io);
    h->connected = false;
    return has_fd ? loop_io_fd(&h->io) : -1;
}

static void close_io(struct handshake *h)
{
    struct masque_stream *hop = h->hop;

    socket_close(h->env, drop_io(h), h->guard);
    h->guard = NO_GUARD;
    h->hop = NULL;
    masque_stream_close(hop);
}

void handshake_result_close(struct up_env *env, const struct handshake_result *result)
{
    secure_free(result->secure);
    masque_stream_close(result->masque);
    if (result->fd >= 0)
        socket_close(env, result->fd, result->guard);
}

static void succeed(struct handshake *h)
{
    struct handshake_result result = { .bound = talk_bound(&h->talk),
                                       .secure = h->secure,
                                       .masque = h->masque ? h->masque : h->hop,
                                       .memory = h->memory,
                                       .peer = h->dial.peer };
    handshake_fn *fn = h->fn;
    void *arg = h->arg;

    way_note(h, true);
    pipeline_answered(h);
    if (!h->idle && !h->masque)
        h->memory->reply_len = talk_reply_len(&h->talk);
    if (h->goal == SOCKS5_CONNECT && !h->masque)
        pool_want(h->memory);
    result.guard = h->guard;
    result.fd = drop_io(h);
    h->secure = NULL;
    h->masque = h->hop = NULL;
    if (result.secure)
        result.secure->handshake = NULL;
    release(h);
    fn(arg, &result);
}

static void begin(struct handshake *h);

/* Back to where a try begins. */
static void drop_try(struct handshake *h)
{
    pipeline_end(h);
    close_io(h);
    drop_way(h);
    h->talking = h->pooled = h->early = false;
    h->in_len = h->out_len = h->out_off = h->peeked = 0;
}

/* h->why is set. It is the last word, or another member of the group gets its turn. */
static void tell_failure(struct handshake *h)
{
    struct up_failure why = h->why;
    struct handshake_result result = {
        .fd = -1, .guard = NO_GUARD, .memory = h->memory, .peer = h->dial.peer, .why = &why
    };
    bool no_udp = why.err == -EOPNOTSUPP && h->goal == SOCKS5_ASSOCIATE;
    handshake_fn *fn = h->fn;
    void *arg = h->arg;

    if (why.proxy_fault)
        way_note(h, false);
    drop_try(h);
    if ((why.proxy_fault || no_udp) && way_next(h)) {
        begin(h);
        return;
    }
    release(h);
    fn(arg, &result);
}

/* For what fails while nobody may be called. */
static void fail_soon(struct handshake *h)
{
    drop_try(h);
    h->failed = true;
    wheel_set(h->env->opt.wheel, &h->deadline, env_now_us(h->env));
}

void handshake_cancel(struct handshake *h)
{
    if (!h)
        return;
    close_io(h);
    release(h);
}

/* A new connection, step by step, within what is left of the time. */
static void start_over(struct handshake *h)
{
    UP_COUNT(h->env, started_over);
    drop_try(h);
    begin(h);
}

/* What HTTP/2 has said instead of a talk. */
void handshake_masque_done(struct handshake *h, const struct up_failure *why)
{
    if (!why) {
        succeed(h);
        return;
    }
    h->why = *why;
    if (!why->proxy_fault)
        way_note(h, true);
    tell_failure(h);
}

/* The talk has failed, see talk_failure(). */
static void talk_failed(struct handshake *h)
{
    struct talk_failure f = talk_failure(&h->talk);

    if (!f.proxy_fault) {
        pipeline_answered(h);
        way_note(h, true); /* it answered, if only to refuse */
    } else if (h->pipelined && !f.login_fault) {
        pipeline_doubt(h);
        start_over(h);
        return;
    } else if (h->pooled && !f.login_fault) {
        h->stale = true;
        start_over(h);
        return;
    }
    handshake_why_talk(h);
    tell_failure(h);
}

static void server_gone(struct handshake *h, bool reset)
{
    talk_gone(&h->talk, reset);
    talk_failed(h);
}

static void watch(struct handshake *h, unsigned events)
{
    if (h->hop)
        masque_stream_want(h->hop, events);
    else
        loop_io_set(h->env->opt.loop, &h->io, events);
}

static ssize_t send_out(struct handshake *h)
{
    struct iovec rest = { h->out + h->out_off, (size_t)(h->out_len - h->out_off) };
    ssize_t n;

    if (h->secure)
        return rest.iov_len > 0 ? tls_sendv(h->secure->tls, &rest, 1) : secure_flush(h->secure);
    if (h->hop)
        return masque_stream_sendv(h->hop, &rest, 1);
    n = send(loop_io_fd(&h->io), rest.iov_base, rest.iov_len, MSG_NOSIGNAL);
    UP_COUNT(h->env, send_calls);
    return n < 0 ? (errno == EINTR ? -EAGAIN : -errno) : n;
}

static bool has_unsent(const struct handshake *h)
{
    return h->out_off < h->out_len || secure_unsent(h->secure);
}

/* @sent: what the first send said, which tells of the dial, too. Return: false: the dial has failed, and the handshake with it. */
static bool dial_stands(struct handshake *h, ssize_t sent)
{
    if (sent < 0 && sent != -EAGAIN) {
        handshake_why_dial(h, (int)sent);
        if (h->beginning)
            fail_soon(h);
        else
            tell_failure(h);
        return false;
    }
    if (h->early)
        dial_noted(&h->dial, sent >= 0);
    if (sent >= 0) {
        h->dial.unasked = false;
        pipeline_wait(h);
    }
    return true;
}

/* What is left waits for readiness, or the handshake has ended. */
static void flush(struct handshake *h)
{
    ssize_t n = send_out(h);

    if (h->dial.unasked && !dial_stands(h, n))
        return;
    if (n < 0 && n != -EAGAIN) {
        server_gone(h, true);
        return;
    }
    if (n > 0)
        h->out_off = (uint16_t)(h->out_off + n);
    watch(h, has_unsent(h) ? LOOP_WRITE : LOOP_READ);
}

/* Bytes that were only looked at are taken now, those that the step has used; the others are the stream's. */
static void take_peeked(struct handshake *h, size_t unused)
{
    size_t used = h->peeked - unused;

    h->peeked = 0;
    h->in_len = 0;
    if (used > 0)
        (void)recv(loop_io_fd(&h->io), h->in, used, 0);
}

/* A reply that is shorter than this server's were before, with the target's first bytes behind it: those were taken with it
 * and cannot be put back. So it is asked again, for less at a time. */
static void finish_talk(struct handshake *h)
{
    if (h->in_len == 0) {
        succeed(h);
        return;
    }
    h->memory->reply_len = SOCKS5_REPLY_MIN;
    start_over(h);
}

/* Steps until an answer is missing. Return: whether more of the same answer should be read at once. */
static bool run_steps(struct handshake *h)
{
    for (;;) {
        struct span in = { h->in, h->in_len };
        struct buf out;
        enum talk_step step;

        buf_init(&out, h->out, sizeof(h->out));
        step = talk_step(&h->talk, &in, &out);
        memmove(h->in, in.data, in.len);
        h->in_len = (uint16_t)in.len;
        if (h->peeked > 0 && step != TALK_AGAIN)
            take_peeked(h, in.len);
        if (out.len > 0) {
            h->out_len = (uint16_t)out.len;
            h->out_off = 0;
            flush(h); /* an answer cannot be there yet */
            return false;
        }
        switch (step) {
        case TALK_AGAIN:
            continue;
        case TALK_NEED_INPUT:
            return true;
        case TALK_DONE:
            finish_talk(h);
            return false;
        case TALK_BROKEN:
            talk_failed(h);
            return false;
        }
    }
}

/* Return: bytes now in h->in; 0 their end; -EAGAIN; -errno. *wanted: how many were asked for. */
static ssize_t read_some(struct handshake *h, size_t *wanted)
{
    struct span in = { h->in, h->in_len };
    size_t missing = talk_missing(&h->talk, &in);
    bool look = missing == TALK_LOOK && !h->secure && !h->hop;
    ssize_t n;

    *wanted = missing = look ? sizeof(h->in) : missing == TALK_LOOK ? 1 : missing;
    assert(h->in_len + missing <= sizeof(h->in));
    if (h->secure)
        return tls_recv(h->secure->tls, h->in + h->in_len, missing);
    if (h->hop)
        return masque_stream_recv(h->hop, h->in + h->in_len, missing);
    n = recv(loop_io_fd(&h->io), h->in + h->in_len, missing, look ? MSG_PEEK : 0);
    UP_COUNT(h->env, recv_calls);
    if (look && n > 0)
        h->peeked = (uint16_t)n;
    return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

static void read_answer(struct handshake *h)
{
    size_t wanted;
    ssize_t n;

    do {
        n = read_some(h, &wanted);
        if (n == -EAGAIN)
            return;
        if (n < 0 && h->secure) { /* TLS 1.3 refuses our certificate only now */
            handshake_why_tls(h);
            tell_failure(h);
            return;
        }
        if (n < 0 && n != -ECONNRESET && h->dial.fast) { /* so much for our SYN */
            handshake_why_dial(h, (int)n);
            tell_failure(h);
            return;
        }
        if (n <= 0) {
            server_gone(h, n < 0);
            return;
        }
        h->in_len = (uint16_t)(h->in_len + n);
    } while (run_steps(h) && (size_t)n == wanted);
}

/* ---- TLS ---- */

enum socks5_goal handshake_goal(const struct handshake *h)
{
    return h->goal == SOCKS5_ASSOCIATE && h->memory->up->udp == UPSTREAM_UDP_OVER_TCP ? SOCKS5_IN_TCP
                                                                                      : h->goal;
}

static void start_talk(struct handshake *h)
{
    struct up_memory *m = h->memory;

    talk_init(&h->talk, m->up->kind, handshake_goal(h), &m->up->login, &h->target);
    if (m->up->head_path)
        talk_init_head(&h->talk, &m->up->server, m->up->head_path);
    talk_expect(&h->talk, m->reply_len);
    if (h->pooled)
        talk_greeted(&h->talk);
    else if (h->goal == SOCKS5_CONNECT && h->doubted_us == 0 && pipeline_begin(h))
        talk_pipeline(&h->talk);
    if (!h->dial.unasked)
        pipeline_wait(h);
    h->talking = true;
    watch(h, LOOP_READ);
    run_steps(h);
}

void handshake_secure_step(struct handshake *h)
{
    struct secure *below = h->secure->below;

    if (secure_unsent(below) && secure_flush(below) == -ECONNRESET) {
        server_gone(h, true);
        return;
    }
    switch (tls_handshake(h->secure->tls, env_now_us(h->env))) {
    case TLS_DONE:
        if (tls_resumed(h->secure->tls))
            UP_COUNT(h->env, tls_resumed);
        else
            UP_COUNT(h->env, tls_full);
        start_talk(h);
        break;
    case TLS_WANT_READ:
        watch(h, LOOP_READ | (secure_unsent(below) ? LOOP_WRITE : 0u));
        break;
    case TLS_WANT_WRITE:
        watch(h, LOOP_WRITE);
        break;
    case TLS_LATER:
        watch(h, 0);
        secure_again(h->secure);
        break;
    case TLS_QUEUED: /* wake() goes on; meanwhile the server is silent, too */
        watch(h, 0);
        break;
    case TLS_BROKEN:
        handshake_why_tls(h);
        tell_failure(h);
        break;
    }
}

static void start_secure(struct handshake *h)
{
    int r = secure_new(h, &h->secure);

    if (r == 0) {
        handshake_secure_step(h);
        return;
    }
    up_fail(&h->why, -ENOMEM, "tls", false, "no memory for TLS");
    tell_failure(h);
}

/* ---- events ---- */

static void on_hop(void *arg, unsigned events)
{
    struct handshake *h = arg;

    (void)events;
    if (!h->talking)
        handshake_secure_step(h);
    else if (has_unsent(h))
        flush(h);
    else
        read_answer(h);
}

static void on_io(struct loop_io *io, unsigned events)
{
    on_hop(CONTAINER_OF(io, struct handshake, io), events);
}

/* @fd: -1: the hop, which is set */
static void connected(struct handshake *h, int fd, uint32_t guard)
{
    h->guard = guard;
    h->connected = true;
    if (h->hop)
        masque_stream_carry(h->hop, on_hop, h);
    else
        loop_io_start(h->env->opt.loop, &h->io, fd, LOOP_READ, on_io);
    if (h->memory->up->tls) {
        start_secure(h);
        return;
    }
    h->secure = h->below;
    h->below = NULL;
    start_talk(h);
}

static void on_dialled(struct dial *d, int fd, uint32_t guard, int err)
{
    struct handshake *h = CONTAINER_OF(d, struct handshake, dial);

    if (fd < 0) {
        handshake_why_dial(h, err);
        tell_failure(h);
        return;
    }
    connected(h, fd, guard);
}

/* The hop before ours is open. */
static void on_via(void *arg, const struct handshake_result *result)
{
    struct handshake *h = arg;

    h->via = NULL;
    if (result->why) {
        way_why_via(h, result->why);
        tell_failure(h);
        return;
    }
    up_memory_rtt(h->memory, clock_now_us() - h->started_us);
    h->below = result->secure;
    h->hop = result->masque;
    wheel_set(h->env->opt.wheel, &h->deadline, h->deadline_us);
    connected(h, result->fd, result->guard);
}

/* ---- time ---- */

/* Silence that may be the target's is no reason to try another member. */
static bool waits_for_target(const struct handshake *h)
{
    if (!upstream_is_proxy(h->memory->up))
        return !h->dial.resolving;
    if (h->masque)
        return masque_stream_asked(h->masque);
    return h->talking && !has_unsent(h) && talk_asked(&h->talk) && h->in_len == 0;
}

static void on_deadline(struct wheel_timer *t, uint64_t now_us)
{
    struct handshake *h = CONTAINER_OF(t, struct handshake, deadline);

    if (h->idle) {
        succeed(h);
        return;
    }
    if (!h->failed && now_us < h->deadline_us) { /* not the deadline, only the end of our patience */
        pipeline_doubt(h);
        start_over(h);
        return;
    }
    if (!h->failed)
        pipeline_silent(h);
    if (!h->failed && now_us < h->whole_us && waits_for_target(h)) {
        h->deadline_us = h->whole_us;
        wheel_set(h->env->opt.wheel, &h->deadline, h->deadline_us);
        return;
    }
    if (!h->failed)
        handshake_why_timeout(h);
    tell_failure(h);
}

struct up_memory *handshake_memory(const struct handshake *h)
{
    return h->memory;
}

const char *handshake_stage(const struct handshake *h)
{
    if (h->via)
        return handshake_stage(h->via);
    if (h->masque)
        return masque_stream_stage(h->masque);
    if (h->dial.resolving)
        return "resolve";
    if (!h->connected || h->dial.unasked)
        return "connect";
    return h->talking ? talk_stage(&h->talk) : "tls";
}

/* ---- the beginning ---- */

/* A name is checked before anything is dialled, whatever the handshake will be like (faults.md S10). */
static int take_target(struct handshake *h, const struct host_port *target)
{
    if (!target)
        return 0;
    h->target = *target;
    h->target.name = NULL;
    if (!target->name || ip_parse(target->name, &h->target.addr) == 0)
        return 0;
    if (host_name_normalise(target->name, strlen(target->name), h->target_name) != 0)
        return -EINVAL;
    h->target.name = h->target_name;
    return 0;
}

static void take_known(struct handshake *h, const struct up_known *known)
{
    h->is_known = h->target.name != NULL;
    h->known_err = known->err;
    h->known_count = (uint8_t)(known->n < UP_ADDRS_MAX ? known->n : UP_ADDRS_MAX);
    if (h->known_count > 0)
        memcpy(h->known, known->addrs, h->known_count * sizeof(h->known[0]));
}

/* A connection that was dialled ahead. It is spoken to when begin() has set everything up. */
static bool take_pooled(struct handshake *h)
{
    struct handshake_result found;

    if (h->goal != SOCKS5_CONNECT || h->stale || !pool_take(h->memory, &found))
        return false;
    h->secure = found.secure;
    h->hop = found.masque;
    h->guard = found.guard;
    h->dial.peer = found.peer;
    if (h->secure)
        h->secure->handshake = h;
    h->connected = h->pooled = true;
    if (h->hop)
        masque_stream_carry(h->hop, on_hop, h);
    else
        loop_io_resume(h->env->opt.loop, &h->io, found.fd, LOOP_READ, on_io);
    return true;
}

/* Nobody waits for this connection: begin() speaks. */
static void take_early(struct handshake *h)
{
    int fd = dial_take(&h->dial, &h->guard);

    if (fd < 0)
        return;
    h->connected = h->early = true;
    loop_io_start(h->env->opt.loop, &h->io, fd, LOOP_READ, on_io);
}

/* Return: 0: under way, or idle; or -errno, and h->why says it */
static int start(struct handshake *h)
{
    struct up_memory *m = h->memory;
    int r = way_check(h);

    if (r != 0 || h->idle)
        return r;
    h->dial = (struct dial){ .env = h->env };
    if (m->up->kind == UPSTREAM_MASQUE && h->goal == SOCKS5_CONNECT) {
        r = masque_stream_new(h, &h->target, h->deadline_us - env_now_us(h->env), &h->masque);
        if (r != 0)
            handshake_why_dial(h, r);
        return r;
    }
    if (take_pooled(h))
        return 0;
    r = m->up->dialer ? way_start_via(h, on_via) : way_start_dial(h, on_dialled);
    if (r != 0)
        handshake_why_dial(h, r);
    else if (!m->up->dialer)
        take_early(h);
    return r;
}

/* One try. What fails at once, or has nothing to do, is told by the deadline timer. */
static void begin(struct handshake *h)
{
    h->start_err = start(h);
    h->failed = h->start_err != 0;
    if (h->failed || h->idle)
        wheel_set(h->env->opt.wheel, &h->deadline, env_now_us(h->env));
    else if (!h->via)
        wheel_set(h->env->opt.wheel, &h->deadline, h->deadline_us);
    if (!h->pooled && !h->early)
        return;
    h->beginning = true;
    start_talk(h); /* a pooled one that fails now starts over, and calls nobody */
    h->beginning = false;
}

int handshake_open(struct up_env *env, struct up_memory *m, enum socks5_goal goal,
                   const struct host_port *target, const struct up_known *known, uint64_t timeout_us,
                   handshake_fn *fn, void *arg, struct handshake **out)
{
    struct handshake *h = slab_get(&env->handshakes);
    int r;

    if (!h)
        return -ENOMEM;
    h->env = env;
    h->fn = fn;
    h->arg = arg;
    h->goal = goal;
    h->guard = NO_GUARD;
    h->deadline.fn = on_deadline;
    h->whole_us = env_now_us(env) + timeout_us;
    h->dial.env = env;
    r = take_target(h, target);
    if (r != 0) {
        slab_put(&env->handshakes, h);
        return r;
    }
    if (known)
        take_known(h, known);
    if (way_choose(h, m) == 0) {
        begin(h);
    } else {
        h->failed = true;
        wheel_set(env->opt.wheel, &h->deadline, env_now_us(env));
    }
    if (h->start_err == -EMFILE || h->start_err == -ENOMEM) {
        r = h->start_err;
        release(h);
        return r;
    }
    *out = h;
    return 0;
}
