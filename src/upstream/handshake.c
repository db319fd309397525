/* handshake.c - from nothing to a connected descriptor: dial, TLS, then what the proxy speaks; all under one deadline.
 *
 * How it works. The dial hands over a descriptor; talk_step() says what to send and how many bytes to read. We read exactly
 * the bytes of the answer under way, so what follows the last answer stays in the kernel (or in TLS) for the stream
 * (faults.md S4, S11). Where the end of an answer cannot be known before (HTTP), we look at the bytes before we take them.
 * After sending we wait for readiness instead of trying: an answer takes a round trip.
 *
 * What always holds. A handshake ends in exactly one call of its function, or in handshake_cancel(). A failure inside
 * handshake_open() is told from the wheel, after it has returned. The deadline covers everything from the name to the last
 * byte (design.md section 6), and is set once.
 *
 * Whose fault. What the client sees (up_failure.err) is the target's state if the way out is known to work, and "host
 * unreachable" if it is the way out that failed. A proxy that took our request and is silent may well be waiting for the
 * target, so that silence is not counted against its health. */
#include "upstream_impl.h"

#include <stdio.h>
#include <sys/socket.h>

#define BAD_LOGIN_US (10 * SECOND_US) /* faults.md S6 */

enum { SERVER_TEXT_MAX = 128 };

/* "office (192.0.2.10:1080)", "office (proxy.example.net)" or, for DIRECT, "192.0.2.1:443" */
static const char *server_text(const struct handshake *h, char out[SERVER_TEXT_MAX])
{
    const struct upstream *up = h->memory->up;
    char address[IP_PORT_TEXT_MAX];
    const char *where = up->server.name ? up->server.name : "?";

    if (!ip_is_none(&h->dial.peer.addr))
        where = ip_port_text(&h->dial.peer, address);
    else if (upstream_is_proxy(up) && !up->server.name)
        where = ip_port_text(&(struct ip_port){ up->server.addr, up->server.port }, address);
    if (upstream_is_proxy(up))
        snprintf(out, SERVER_TEXT_MAX, "%.40s (%.80s)", up->name, where);
    else
        snprintf(out, SERVER_TEXT_MAX, "%.120s", where);
    return out;
}

static const char *dialled_name(const struct handshake *h)
{
    return upstream_is_proxy(h->memory->up) ? h->memory->up->server.name : h->target_name;
}

/* ---- the end ---- */

/* Takes everything down but the descriptor. The handshake's memory is free when this returns. */
static void release(struct handshake *h)
{
    struct up_env *env = h->env;

    wheel_cancel(env->opt.wheel, &h->deadline);
    secure_free(h->secure);
    dial_cancel(&h->dial);
    h->memory->users--;
    slab_put(&env->handshakes, h);
}

static int drop_io(struct handshake *h)
{
    int fd = h->connected ? loop_io_fd(&h->io) : -1;

    if (h->connected)
        loop_io_stop(h->env->opt.loop, &h->io);
    h->connected = false;
    return fd;
}

static void succeed(struct handshake *h)
{
    struct handshake_result result = { .bound = talk_bound(&h->talk),
                                       .secure = h->secure,
                                       .peer = h->dial.peer };
    handshake_fn *fn = h->fn;
    void *arg = h->arg;

    up_memory_good(h->env, h->memory);
    result.guard = h->guard;
    result.fd = drop_io(h);
    h->secure = NULL;
    release(h);
    fn(arg, &result);
}

/* h->why is set. */
static void tell_failure(struct handshake *h)
{
    struct up_failure why = h->why;
    struct handshake_result result = { .fd = -1, .guard = NO_GUARD, .peer = h->dial.peer, .why = &why };
    handshake_fn *fn = h->fn;
    void *arg = h->arg;

    if (why.proxy_fault)
        up_memory_bad(h->env, h->memory);
    socket_close(h->env, drop_io(h), h->guard);
    release(h);
    fn(arg, &result);
}

void handshake_cancel(struct handshake *h)
{
    if (!h)
        return;
    socket_close(h->env, drop_io(h), h->guard);
    release(h);
}

/* ---- failures of the dial ---- */

static const char *dial_text(int err)
{
    static const struct {
        int err;
        const char *text;
    } texts[] = {
        { -ECONNREFUSED, "refuses connections" },
        { -ENETUNREACH, "is unreachable: there is no route to its network" },
        { -EHOSTUNREACH, "is unreachable" },
        { -ETIMEDOUT, "does not answer" },
        { -EACCES, "may not be dialled: it is not among the allowed destinations, or a firewall forbids it" },
        { -EPERM, "may not be dialled: a firewall of this machine forbids it" },
        { -ELOOP, "would lead back into the gateway: it is an address of the TUN, or no address at all" },
        { -EADDRNOTAVAIL, "cannot be dialled: every local port towards it is in use; widen "
                          "net.ipv4.ip_local_port_range or add another address" },
        { -EMFILE, "cannot be dialled: no file descriptor is left; raise the limit (ulimit -n)" },
        { -ENODEV, "cannot be dialled: the interface that it is bound to does not exist" },
    };

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (texts[i].err == err)
            return texts[i].text;
    }
    return strerror(-err);
}

/* What the client shall see of a failed dial. */
static int dial_err(int err, bool proxy)
{
    switch (err) {
    case -ELOOP:
    case -EMFILE:
    case -ENOMEM:
        return err;
    case -EADDRNOTAVAIL: /* faults.md S23 */
        return -ECONNREFUSED;
    case -ECONNREFUSED:
    case -ENETUNREACH:
    case -ETIMEDOUT:
    case -EACCES:
        return proxy ? -EHOSTUNREACH : err;
    case -ENODEV: /* the uplink has just gone */
        return proxy ? -EHOSTUNREACH : -ENETUNREACH;
    case -EPERM:
        return proxy ? -EHOSTUNREACH : -EACCES;
    case -ECONNRESET:
        return proxy ? -EHOSTUNREACH : -ECONNREFUSED;
    default:
        return -EHOSTUNREACH;
    }
}

static bool is_our_own_trouble(int err)
{
    return err == -ELOOP || err == -EMFILE || err == -ENOMEM || err == -EADDRNOTAVAIL;
}

static void note_dial_failure(struct handshake *h, int err)
{
    bool proxy = upstream_is_proxy(h->memory->up);
    char server[SERVER_TEXT_MAX];

    if (h->dial.addr_count == 0)
        up_fail(&h->why, dial_err(err, proxy), "resolve", proxy, "the name %.120s cannot be resolved",
                dialled_name(h));
    else
        up_fail(&h->why, dial_err(err, proxy), "connect", proxy && !is_our_own_trouble(err), "%s %s",
                server_text(h, server), dial_text(err));
}

/* ---- the proxy's answers ---- */

static void note_talk_failure(struct handshake *h)
{
    struct talk_failure f = talk_failure(&h->talk);
    char server[SERVER_TEXT_MAX];
    struct up_memory *m = h->memory;

    up_fail(&h->why, f.err, talk_stage(&h->talk), f.proxy_fault, "%s %s", server_text(h, server), f.why);
    if (f.login_fault) {
        m->bad_until_us = env_now_us(h->env) + BAD_LOGIN_US;
        snprintf(m->bad_why, sizeof(m->bad_why), "%s", f.why);
    }
    if (!f.proxy_fault)
        up_memory_good(h->env, m); /* it answered, if only to refuse */
    if (f.err == -EOPNOTSUPP)
        m->no_udp_until_us = env_now_us(h->env) + 60 * SECOND_US; /* faults.md U6 */
}

static void server_gone(struct handshake *h, bool reset)
{
    talk_gone(&h->talk, reset);
    note_talk_failure(h);
    tell_failure(h);
}

static ssize_t send_out(struct handshake *h)
{
    struct iovec rest = { h->out + h->out_off, (size_t)(h->out_len - h->out_off) };
    ssize_t n;

    if (h->secure)
        return rest.iov_len > 0 ? tls_sendv(h->secure->tls, &rest, 1) : tls_flush(h->secure->tls);
    n = send(loop_io_fd(&h->io), rest.iov_base, rest.iov_len, MSG_NOSIGNAL);
    return n < 0 ? (errno == EINTR ? -EAGAIN : -errno) : n;
}

static bool has_unsent(const struct handshake *h)
{
    return h->out_off < h->out_len || (h->secure && tls_unsent(h->secure->tls));
}

/* What is left waits for readiness, or the handshake has ended. */
static void flush(struct handshake *h)
{
    ssize_t n = send_out(h);

    if (n < 0 && n != -EAGAIN) {
        server_gone(h, true);
        return;
    }
    if (n > 0)
        h->out_off = (uint16_t)(h->out_off + n);
    loop_io_set(h->env->opt.loop, &h->io, has_unsent(h) ? LOOP_WRITE : LOOP_READ);
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
            succeed(h);
            return false;
        case TALK_BROKEN:
            note_talk_failure(h);
            tell_failure(h);
            return false;
        }
    }
}

/* Return: bytes now in h->in; 0 their end; -EAGAIN; -errno. *wanted: how many were asked for. */
static ssize_t read_some(struct handshake *h, size_t *wanted)
{
    struct span in = { h->in, h->in_len };
    size_t missing = talk_missing(&h->talk, &in);
    bool look = missing == TALK_LOOK && !h->secure;
    ssize_t n;

    *wanted = missing = look ? sizeof(h->in) : missing == TALK_LOOK ? 1 : missing;
    assert(h->in_len + missing <= sizeof(h->in));
    if (h->secure)
        return tls_recv(h->secure->tls, h->in + h->in_len, missing);
    n = recv(loop_io_fd(&h->io), h->in + h->in_len, missing, look ? MSG_PEEK : 0);
    if (look && n > 0)
        h->peeked = (uint16_t)n;
    return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

static void note_tls_failure(struct handshake *h)
{
    char server[SERVER_TEXT_MAX];

    UP_COUNT(h->env, tls_failed);
    up_fail(&h->why, -EHOSTUNREACH, "tls", true, "%s %s", server_text(h, server), tls_why(h->secure->tls));
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
            note_tls_failure(h);
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

static void start_talk(struct handshake *h)
{
    h->talking = true;
    loop_io_set(h->env->opt.loop, &h->io, LOOP_READ);
    run_steps(h);
}

void handshake_secure_step(struct handshake *h)
{
    struct loop *loop = h->env->opt.loop;

    switch (tls_handshake(h->secure->tls, env_now_us(h->env))) {
    case TLS_DONE:
        start_talk(h);
        break;
    case TLS_WANT_READ:
        loop_io_set(loop, &h->io, LOOP_READ);
        break;
    case TLS_WANT_WRITE:
        loop_io_set(loop, &h->io, LOOP_WRITE);
        break;
    case TLS_LATER:
        loop_io_set(loop, &h->io, 0);
        secure_again(h->secure);
        break;
    case TLS_QUEUED: /* wake() goes on; meanwhile the server is silent, too */
        loop_io_set(loop, &h->io, 0);
        break;
    case TLS_BROKEN:
        note_tls_failure(h);
        tell_failure(h);
        break;
    }
}

static void start_secure(struct handshake *h, int fd)
{
    int r = secure_new(h->env, h->memory, fd, h, &h->secure);

    if (r == 0) {
        handshake_secure_step(h);
        return;
    }
    up_fail(&h->why, -ENOMEM, "tls", false, "no memory for TLS");
    tell_failure(h);
}

/* ---- events ---- */

static void on_io(struct loop_io *io, unsigned events)
{
    struct handshake *h = CONTAINER_OF(io, struct handshake, io);

    (void)events;
    if (!h->talking)
        handshake_secure_step(h);
    else if (has_unsent(h))
        flush(h);
    else
        read_answer(h);
}

static void on_dialled(struct dial *d, int fd, uint32_t guard, int err)
{
    struct handshake *h = CONTAINER_OF(d, struct handshake, dial);

    if (fd < 0) {
        note_dial_failure(h, err);
        tell_failure(h);
        return;
    }
    h->guard = guard;
    h->connected = true;
    loop_io_start(h->env->opt.loop, &h->io, fd, LOOP_READ, on_io);
    if (h->memory->up->tls)
        start_secure(h, fd);
    else
        start_talk(h);
}

/* ---- time ---- */

static void note_timeout(struct handshake *h)
{
    bool proxy = upstream_is_proxy(h->memory->up);
    const char *stage = handshake_stage(h);
    char server[SERVER_TEXT_MAX];

    if (h->dial.resolving) {
        up_fail(&h->why, -EHOSTUNREACH, stage, proxy, "the name %.120s was not resolved in time",
                dialled_name(h));
    } else if (!h->connected) {
        if (ip_is_none(&h->dial.peer.addr) && h->dial.tried > 0)
            h->dial.peer = (struct ip_port){ h->dial.addrs[0], h->dial.port };
        up_fail(&h->why, proxy ? -EHOSTUNREACH : -ETIMEDOUT, stage, proxy, "%s did not answer in time",
                server_text(h, server));
    } else if (!h->talking) {
        UP_COUNT(h->env, tls_timeout);
        up_fail(&h->why, -EHOSTUNREACH, stage, true, "%s did not finish the TLS handshake in time",
                server_text(h, server));
    } else {
        UP_COUNT(h->env, socks_timeout);
        up_fail(&h->why, -EHOSTUNREACH, stage, !talk_asked(&h->talk) || h->in_len > 0,
                "%s did not finish its answer to our %s in time", server_text(h, server),
                talk_greets(&h->talk) ? "greeting" : stage);
    }
}

static void on_deadline(struct wheel_timer *t, uint64_t now_us)
{
    struct handshake *h = CONTAINER_OF(t, struct handshake, deadline);

    (void)now_us;
    if (!h->failed)
        note_timeout(h);
    tell_failure(h);
}

const char *handshake_stage(const struct handshake *h)
{
    if (h->dial.resolving)
        return "resolve";
    if (!h->connected)
        return "connect";
    return h->talking ? talk_stage(&h->talk) : "tls";
}

/* ---- the beginning ---- */

/* A name is checked before anything is dialled, whatever the handshake will be like (faults.md S10). */
static int take_target(struct handshake *h, const struct host_port *target, struct host_port *out)
{
    *out = (struct host_port){ 0 };
    if (!target)
        return 0;
    *out = *target;
    out->name = NULL;
    if (!target->name || ip_parse(target->name, &out->addr) == 0)
        return 0;
    if (host_name_normalise(target->name, strlen(target->name), h->target_name) != 0)
        return -EINVAL;
    out->name = h->target_name;
    return 0;
}

static int start(struct handshake *h, const struct host_port *target)
{
    struct up_memory *m = h->memory;
    bool direct = !upstream_is_proxy(m->up);
    char server[SERVER_TEXT_MAX];
    int r;

    if (!direct && m->bad_until_us > env_now_us(h->env)) {
        up_fail(&h->why, -EHOSTUNREACH, "login", false, "%s %s (not tried again for 10 s)",
                server_text(h, server), m->bad_why);
        return -EHOSTUNREACH;
    }
    r = dial_start(&h->dial, h->env, m, direct ? target : &m->up->server, !direct, on_dialled);
    if (r != 0)
        note_dial_failure(h, r);
    return r;
}

int handshake_open(struct up_env *env, struct up_memory *m, enum socks5_goal goal,
                   const struct host_port *target, uint64_t timeout_us, handshake_fn *fn, void *arg,
                   struct handshake **out)
{
    struct handshake *h = slab_get(&env->handshakes);
    struct host_port checked;
    int r;

    if (!h)
        return -ENOMEM;
    h->env = env;
    h->memory = m;
    h->fn = fn;
    h->arg = arg;
    h->guard = NO_GUARD;
    h->deadline.fn = on_deadline;
    h->dial.env = env;
    r = take_target(h, target, &checked);
    if (r != 0) {
        slab_put(&env->handshakes, h);
        return r;
    }
    m->users++;
    talk_init(&h->talk, m->up->kind, goal, &m->up->login, &checked);
    r = start(h, &checked);
    if (r == -EMFILE || r == -ENOMEM) {
        release(h);
        return r;
    }
    h->failed = r != 0;
    wheel_set(env->opt.wheel, &h->deadline, env_now_us(env) + (h->failed ? 0 : timeout_us));
    *out = h;
    return 0;
}
