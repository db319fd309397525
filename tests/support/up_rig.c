/* up_rig.c - the surroundings of an upstream for tests, over loopback sockets in one thread. */
#include "up_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- time ---- */

static void on_timer(struct loop_timer *t)
{
    (void)t; /* the hook of this turn advances */
}

static void on_turn_end(void *arg)
{
    struct up_rig *rig = arg;
    uint64_t next_us;

    wheel_advance(&rig->wheel, loop_now_us(rig->loop));
    next_us = wheel_next_us(&rig->wheel);
    if (next_us == UINT64_MAX)
        loop_timer_stop(rig->loop, &rig->timer);
    else
        loop_timer_start(rig->loop, &rig->timer, next_us, on_timer);
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

void rig_run_ms(struct up_rig *rig, unsigned ms)
{
    (void)loop_wait_until(&rig->wait, ms, never, NULL);
}

/* ---- names ---- */

static void answer(struct up_resolve *q)
{
    up_resolved_fn *fn = q->fn;

    q->fn = NULL;
    if (q->name->answer == RIG_FAILS)
        fn(q->fn_arg, -ENOENT, NULL, 0);
    else
        fn(q->fn_arg, 0, q->name->addrs, q->name->n);
}

static void on_answer_timer(struct wheel_timer *t, uint64_t now_us)
{
    (void)now_us;
    answer(CONTAINER_OF(t, struct up_resolve, timer));
}

static int resolve(void *arg, const char *name, up_resolved_fn *fn, void *fn_arg, struct up_resolve **out)
{
    struct up_rig *rig = arg;
    struct up_resolve *q = &rig->questions[rig->asked++ % ARRAY_LEN(rig->questions)];

    *q = (struct up_resolve){ .rig = rig, .fn = fn, .fn_arg = fn_arg, .timer.fn = on_answer_timer };
    for (size_t i = 0; i < ARRAY_LEN(rig->names); i++) {
        if (rig->names[i].name && strcmp(rig->names[i].name, name) == 0)
            q->name = &rig->names[i];
    }
    if (!q->name)
        return -ENOENT;
    *out = q;
    if (q->name->answer == RIG_LATER)
        wheel_set(&rig->wheel, &q->timer, loop_now_us(rig->loop) + 2000);
    else if (q->name->answer != RIG_NEVER)
        answer(q);
    return 0;
}

static void resolve_cancel(void *arg, struct up_resolve *q)
{
    struct up_rig *rig = arg;

    assert_non_null(q->fn);
    q->fn = NULL;
    rig->cancelled++;
    wheel_cancel(&rig->wheel, &q->timer);
}

struct rig_name *rig_name(struct up_rig *rig, const char *name, enum rig_answer how)
{
    struct rig_name *n = rig->names;

    while (n->name && strcmp(n->name, name) != 0)
        n++;
    *n = (struct rig_name){ .name = name, .answer = how };
    return n;
}

/* ---- life ---- */

void rig_init(struct up_rig *rig)
{
    struct up_env_options opt = {
        .resolve = resolve, .resolve_cancel = resolve_cancel, .max_streams = 256, .max_udp = 64
    };

    memset(rig, 0, sizeof(*rig));
    assert_int_equal(loop_new(&rig->loop), 0);
    wheel_init(&rig->wheel, clock_now_us());
    loop_on_turn_end(rig->loop, on_turn_end, rig);
    loop_wait_init(&rig->wait, rig->loop);
    assert_int_equal(own_flows_new(&rig->own), 0);
    opt.loop = rig->loop;
    opt.wheel = &rig->wheel;
    opt.rules = &rig->rules;
    opt.own = rig->own;
    opt.resolve_arg = rig;
    assert_int_equal(up_env_new(&opt, &rig->env), 0);
}

void rig_fini(struct up_rig *rig)
{
    up_env_free(rig->env);
    assert_int_equal(rig->wheel.pending, 0); /* faults.md G4: nothing is left behind */
    own_flows_free(rig->own);
    loop_timer_stop(rig->loop, &rig->timer);
    loop_free(rig->loop);
}

int up_rig_setup(void **state)
{
    struct up_rig *rig = calloc(1, sizeof(*rig));

    assert_non_null(rig);
    rig_init(rig);
    *state = rig;
    return 0;
}

int up_rig_teardown(void **state)
{
    rig_fini(*state);
    free(*state);
    return 0;
}

struct upstream *rig_direct(void)
{
    struct upstream_options o = { .name = "DIRECT", .kind = UPSTREAM_DIRECT };
    struct upstream *up;

    assert_int_equal(upstream_new(&o, &up), 0);
    return up;
}

struct upstream *rig_socks(uint16_t port, const char *username, const char *password)
{
    struct upstream_options o = {
        .name = "office", .kind = UPSTREAM_SOCKS5, .username = username, .password = password
    };
    struct upstream *up;

    o.server = rig_to("127.0.0.1", port);
    assert_int_equal(upstream_new(&o, &up), 0);
    return up;
}

struct ip_addr rig_addr(const char *text)
{
    struct ip_addr a;

    assert_int_equal(ip_parse(text, &a), 0);
    return a;
}

struct host_port rig_to(const char *host, uint16_t port)
{
    struct host_port hp = { .port = port };

    if (ip_parse(host, &hp.addr) != 0)
        hp.name = host;
    return hp;
}

/* ---- the server ---- */

static void end_conn(struct plan_conn *c, bool reset)
{
    int fd = loop_io_fd(&c->io);
    struct linger now = { .l_onoff = 1, .l_linger = 0 };

    if (!c->active)
        return;
    if (reset)
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
    wheel_cancel(&c->server->rig->wheel, &c->timer);
    loop_io_stop(c->server->rig->loop, &c->io);
    close(fd);
    c->active = false;
}

static void follow(struct plan_conn *c);

static void on_slow_timer(struct wheel_timer *t, uint64_t now_us)
{
    (void)now_us;
    follow(CONTAINER_OF(t, struct plan_conn, timer));
}

/* Sends what the step wants. Returns whether it is done. */
static bool send_step(struct plan_conn *c, const struct plan_step *step)
{
    size_t n = step->slowly && step->len > c->sent ? 1 : step->len - c->sent;

    if (n > 0 && send(loop_io_fd(&c->io), step->send + c->sent, n, MSG_NOSIGNAL) != (ssize_t)n)
        return true;
    c->sent += n;
    if (c->sent < step->len)
        wheel_set(&c->server->rig->wheel, &c->timer, loop_now_us(c->server->rig->loop) + 1000);
    return c->sent >= step->len;
}

static void follow(struct plan_conn *c)
{
    const struct plan *plan = &c->server->plan;

    while (c->flooded < plan->flood) {
        static const char x[4096] = { [0 ... 4095] = 'x' };
        ssize_t n = send(loop_io_fd(&c->io), x, sizeof(x), MSG_NOSIGNAL);

        if (n <= 0)
            return;
        c->flooded += (size_t)n;
    }
    while (c->step < plan->count && c->got >= plan->steps[c->step].after) {
        if (!send_step(c, &plan->steps[c->step]))
            return;
        c->got -= plan->steps[c->step].after;
        c->sent = 0;
        c->step++;
        if (c->got > 0 && c->server->strict) {
            end_conn(c, false);
            return;
        }
        if (c->server->forgets)
            c->got = 0;
    }
    if (c->step == plan->count && plan->end != PLAN_HANG)
        end_conn(c, plan->end == PLAN_RESET);
}

static void on_conn(struct loop_io *io, unsigned events)
{
    struct plan_conn *c = CONTAINER_OF(io, struct plan_conn, io);
    uint8_t in[4096];
    ssize_t n = recv(loop_io_fd(io), in, sizeof(in), 0);

    (void)events;
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        c->server->closed++;
        c->server->saw_reset |= n < 0 && errno == ECONNRESET;
        end_conn(c, false);
        return;
    }
    for (ssize_t i = 0; i < n && c->total_in + (size_t)i < sizeof(c->in); i++)
        c->in[c->total_in + (size_t)i] = in[i];
    c->first_in = c->total_in == 0 ? (size_t)n : c->first_in;
    c->total_in += (size_t)n;
    c->got += (size_t)n;
    if (!wheel_is_set(&c->timer))
        follow(c);
}

static void on_plan_listener(struct loop_io *io, unsigned events)
{
    struct plan_server *p = CONTAINER_OF(io, struct plan_server, listener);
    int fd = accept4(loop_io_fd(io), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
    struct plan_conn *c = p->conns;

    (void)events;
    assert_true(fd >= 0);
    while (c->active)
        c++;
    assert_true(c < p->conns + PLAN_CONNS);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    *c = (struct plan_conn){ .server = p, .active = true, .timer.fn = on_slow_timer };
    p->accepted++;
    loop_io_start(p->rig->loop, &c->io, fd, LOOP_READ, on_conn);
    follow(c);
}

void plan_open(struct plan_server *p, struct up_rig *rig, const struct plan *plan)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    memset(p, 0, sizeof(*p));
    p->rig = rig;
    p->plan = *plan;
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    p->port = ntohs(at.sin_port);
    loop_io_start(rig->loop, &p->listener, fd, LOOP_READ, on_plan_listener);
}

void plan_close(struct plan_server *p)
{
    int fd = loop_io_fd(&p->listener);

    for (size_t i = 0; i < PLAN_CONNS; i++)
        end_conn(&p->conns[i], false);
    loop_io_stop(p->rig->loop, &p->listener);
    close(fd);
}

struct upstream *plan_socks(struct plan_server *p, struct up_rig *rig, const struct plan *plan)
{
    plan_open(p, rig, plan);
    return rig_socks(p->port, NULL, NULL);
}

bool plan_saw_close(void *server)
{
    struct plan_server *p = server;

    return p->closed > 0;
}

int closed_port(uint16_t *port)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    *port = ntohs(at.sin_port);
    return fd;
}

void silence_open(struct silence *s, const char *addr, uint16_t port)
{
    struct sockaddr_storage ss;
    struct ip_port at = { rig_addr(addr), port };
    socklen_t len = ip_to_sockaddr(&at, &ss);

    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&ss, len), 0);
    assert_int_equal(listen(s->listener, 0), 0);
    for (size_t i = 0; i < ARRAY_LEN(s->fillers); i++) {
        s->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)!connect(s->fillers[i], (struct sockaddr *)&ss, len);
    }
}

void silence_close(struct silence *s)
{
    for (size_t i = 0; i < ARRAY_LEN(s->fillers); i++)
        close(s->fillers[i]);
    close(s->listener);
}

/* ---- streams ---- */

static void on_open(void *arg)
{
    struct stream_log *log = arg;

    assert_false(log->opened || log->closed);
    log->opened = true;
    log->opened_us = clock_now_us();
    up_stream_want(log->s, log->read_on_open ? LOOP_READ : 0);
}

static void on_readable(void *arg)
{
    struct stream_log *log = arg;
    char *grown = realloc(log->in, log->in_len + 65536);
    ssize_t n;

    assert_non_null(grown);
    log->in = grown;
    n = up_stream_recv(log->s, log->in + log->in_len, 65536);
    if (n > 0) {
        log->in_len += (size_t)n;
    } else if (n != -EAGAIN) {
        log->eof = n == 0;
        log->broke = n < 0;
        up_stream_want(log->s, 0);
    }
}

static void on_writable(void *arg)
{
    (void)arg;
}

static void on_closed(void *arg, const struct up_failure *why)
{
    struct stream_log *log = arg;

    assert_false(log->closed);
    log->closed = true;
    log->closed_us = clock_now_us();
    log->why = *why;
    log->s = NULL;
}

void stream_start_known(struct up_rig *rig, struct stream_log *log, struct upstream *up,
                        const struct host_port *dst, const struct up_known *known, unsigned timeout_ms)
{
    static const struct up_stream_events events = { on_open, on_readable, on_writable, on_closed };

    *log = (struct stream_log){ .read_on_open = true };
    assert_int_equal(
        up_stream_open_known(rig->env, up, dst, known, (uint64_t)timeout_ms * 1000, &events, log, &log->s),
        0);
    assert_false(log->opened || log->closed);
}

void stream_start(struct up_rig *rig, struct stream_log *log, struct upstream *up,
                  const struct host_port *dst, unsigned timeout_ms)
{
    stream_start_known(rig, log, up, dst, NULL, timeout_ms);
}

void stream_settle(struct up_rig *rig, struct stream_log *log, struct upstream *up,
                   const struct host_port *dst, unsigned timeout_ms)
{
    stream_start(rig, log, up, dst, timeout_ms);
    rig_until(rig, stream_is_settled, log);
}

bool stream_is_settled(void *arg)
{
    struct stream_log *log = arg;

    return log->opened || log->closed;
}

bool stream_is_over(void *arg)
{
    struct stream_log *log = arg;

    return log->closed || log->eof || log->broke;
}

void stream_forget(struct stream_log *log)
{
    up_stream_close(log->s);
    free(log->in);
    *log = (struct stream_log){ 0 };
}

void stream_send(struct stream_log *log, const void *data, size_t len)
{
    struct iovec iov = { (void *)(uintptr_t)data, len };

    assert_int_equal(up_stream_sendv(log->s, &iov, 1), (ssize_t)len);
}

void probe_log_on_probe(void *arg, int err)
{
    struct probe_log *log = arg;

    log->calls++;
    log->err = err;
}

bool probe_log_is_done(void *arg)
{
    struct probe_log *log = arg;

    return log->calls == log->wanted;
}
