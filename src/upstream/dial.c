/* dial.c - a TCP connection to one host, by the first of its addresses that answers (RFC 8305, faults.md S18).
 *
 * How it works. The name is resolved through the callback of the environment; its addresses are put in order; one attempt
 * starts, and the next one 250 ms later, or at once when the one before has failed. The first that connects wins, the others
 * are closed. A dial never ends by time alone: the handshake that holds it has the deadline.
 *
 * With a single address, and a caller that speaks first, there is no need to wait: dial_take().
 *
 * The guard against loops (faults.md E1) costs a system call, to learn our port. What it knows a SYN by is a dial that nobody has
 * answered yet, and where our server has just answered, the way there does not lead into the TUN: such a dial does without. Should
 * the way change at this very moment, the SYN of each that comes back makes one more, until UNGUARDED_MAX of them wait.
 *
 * For a server of ours the winner is remembered and tried first next time, and when its name fails, the addresses of the last
 * good answer are used. For names of DIRECT targets only the lesson "IPv6 does not work here" is kept, for a minute. */
#include "upstream_impl.h"

#include <sys/socket.h>

#define NEXT_ATTEMPT_US UINT64_C(250000) /* RFC 8305 section 8 */
#define NO_IP6_US       (60 * SECOND_US)
#define FAR_US          (10 * SECOND_US)
#define TRUST_US        (SECOND_US / 2) /* half of the time that E1 has to find a loop */
#define UNGUARDED_MAX   64              /* of one server and worker */

static void start_next(struct dial *d);

/* ---- the order ---- */

static void move_to_front(struct ip_addr *addrs, size_t from)
{
    struct ip_addr a = addrs[from];

    memmove(addrs + 1, addrs, from * sizeof(*addrs));
    addrs[0] = a;
}

void dial_order(struct ip_addr *addrs, size_t n, const struct ip_addr *first, bool ip6_second)
{
    bool want4 = ip6_second;

    for (size_t at = 0; at < n; at++) {
        size_t i = at;

        while (i < n && ip_is4(&addrs[i]) != want4)
            i++;
        if (i < n)
            move_to_front(addrs + at, i - at);
        want4 = !want4;
    }
    for (size_t i = 1; i < n && first && !ip_is_none(first); i++) {
        if (ip_equal(&addrs[i], first)) {
            move_to_front(addrs, i);
            return;
        }
    }
}

/* ---- the end ---- */

static void stop_attempt(struct dial *d, struct attempt *a, bool keep_socket)
{
    int fd = loop_io_fd(&a->io);

    loop_io_stop(d->env->opt.loop, &a->io);
    a->active = false;
    d->active--;
    if (!keep_socket)
        socket_close(d->env, fd, a->guard);
}

static void stop_all(struct dial *d)
{
    if (d->resolving && d->env->opt.resolve_cancel)
        d->env->opt.resolve_cancel(d->env->opt.resolve_arg, d->query);
    d->resolving = false;
    wheel_cancel(d->env->opt.wheel, &d->next_timer);
    for (size_t i = 0; d->active > 0 && i < ARRAY_LEN(d->attempts); i++) {
        if (d->attempts[i].active)
            stop_attempt(d, &d->attempts[i], false);
    }
}

void dial_cancel(struct dial *d)
{
    stop_all(d);
    if (d->unguarded)
        d->memory->unguarded--;
    d->unguarded = false;
}

/* A refusal says most: somebody lives there. Among the others the last word counts. */
static void note_error(struct dial *d, const struct ip_addr *addr, int err)
{
    if (d->err == -ECONNREFUSED)
        return;
    d->err = err;
    d->peer = (struct ip_port){ *addr, d->port };
}

static void remember_winner(struct dial *d, const struct attempt *a)
{
    bool is4 = ip_is4(&d->addrs[a->index]);

    if (d->is_server)
        d->memory->last_good = d->addrs[a->index];
    if (!is4)
        d->memory->no_ip6_until_us = 0;
    for (size_t i = 0; is4 && i < a->index; i++) {
        if (!ip_is4(&d->addrs[i]))
            d->memory->no_ip6_until_us = env_now_us(d->env) + NO_IP6_US;
    }
}

static void answered(struct dial *d, const struct attempt *a)
{
    d->peer = (struct ip_port){ d->addrs[a->index], d->port };
    if (d->is_server && !d->fast)
        up_memory_rtt(d->memory, clock_now_us() - a->started_us);
    remember_winner(d, a);
}

static void win(struct dial *d, struct attempt *a)
{
    int fd = loop_io_fd(&a->io);
    uint32_t guard = a->guard;

    answered(d, a);
    stop_attempt(d, a, true);
    stop_all(d);
    d->fn(d, fd, guard, 0);
}

/* Nothing is under way any more, and nothing is left to try. */
static void lose(struct dial *d)
{
    wheel_cancel(d->env->opt.wheel, &d->next_timer);
    if (!d->starting)
        d->fn(d, -1, NO_GUARD, d->err);
}

/* ---- attempts ---- */

static void on_attempt(struct loop_io *io, unsigned events)
{
    struct attempt *a = CONTAINER_OF(io, struct attempt, io);
    struct dial *d = CONTAINER_OF(a - a->index, struct dial, attempts);
    socklen_t len = sizeof(int);
    int err = 0;

    (void)events;
    if (d->unasked) { /* the first send tells as well, and one system call is saved */
        win(d, a);
        return;
    }
    if (getsockopt(loop_io_fd(io), SOL_SOCKET, SO_ERROR, &err, &len) != 0)
        err = errno;
    if (err == 0) {
        win(d, a);
        return;
    }
    note_error(d, &d->addrs[a->index], -err);
    stop_attempt(d, a, false);
    start_next(d);
}

static bool may_be_taken(const struct dial *d)
{
    return d->starting && d->unasked && d->addr_count == 1 && d->memory->far_until_us <= env_now_us(d->env);
}

/* With several addresses the answer may have come from another one. */
static bool needs_guard(const struct dial *d)
{
    const struct up_memory *m = d->memory;

    return !d->is_server || d->addr_count > 1 || m->unguarded >= UNGUARDED_MAX ||
           m->health.last_good_us == 0 || m->health.last_good_us + TRUST_US <= env_now_us(d->env);
}

static uint32_t guard(struct dial *d, int fd, const struct ip_port *dst)
{
    if (needs_guard(d))
        return socket_guard(d->env, fd, IP_PROTO_TCP, dst);
    d->unguarded = true;
    d->memory->unguarded++;
    return NO_GUARD;
}

/* Return: 0 when the attempt runs. */
static int start_attempt(struct dial *d, uint8_t index)
{
    struct attempt *a = &d->attempts[index];
    struct ip_port dst = { d->addrs[index], d->port };
    struct sockaddr_storage ss;
    int fd = socket_open(d->env, d->memory->up, SOCK_STREAM, &dst, true);

    if (fd < 0)
        return fd;
    d->fast =
        d->is_server && d->memory->up->fast_open && d->addr_count == 1; /* else there is a race to be won */
    if (d->fast)
        socket_fast_open(fd);
    if (connect(fd, (struct sockaddr *)&ss, ip_to_sockaddr(&dst, &ss)) != 0 && errno != EINPROGRESS) {
        int r = -errno;

        close(fd);
        return r;
    }
    *a = (struct attempt){ .started_us = clock_now_us(), .index = index, .active = !may_be_taken(d) };
    a->guard = guard(d, fd, &dst);
    if (may_be_taken(d)) {
        d->early_fd = fd;
        return 0;
    }
    d->active++;
    loop_io_start(d->env->opt.loop, &a->io, fd, LOOP_WRITE, on_attempt);
    return 0;
}

static void start_next(struct dial *d)
{
    while (d->tried < d->addr_count) {
        uint8_t index = d->tried++;
        int r = start_attempt(d, index);

        if (r == 0) {
            if (d->tried < d->addr_count)
                wheel_set(d->env->opt.wheel, &d->next_timer, env_now_us(d->env) + NEXT_ATTEMPT_US);
            return;
        }
        note_error(d, &d->addrs[index], r);
    }
    if (d->active == 0)
        lose(d);
}

static void on_next_timer(struct wheel_timer *t, uint64_t now_us)
{
    (void)now_us;
    start_next(CONTAINER_OF(t, struct dial, next_timer));
}

/* ---- names ---- */

static void take_addresses(struct dial *d, const struct ip_addr *addrs, size_t n)
{
    struct up_memory *m = d->memory;

    d->addr_count = (uint8_t)(n < UP_ADDRS_MAX ? n : UP_ADDRS_MAX);
    memcpy(d->addrs, addrs, d->addr_count * sizeof(*addrs));
    dial_order(d->addrs, d->addr_count, d->is_server ? &m->last_good : NULL,
               m->no_ip6_until_us > env_now_us(d->env));
}

static void on_resolved(void *arg, int err, const struct ip_addr *addrs, size_t n)
{
    struct dial *d = arg;
    struct up_memory *m = d->memory;

    d->resolving = false;
    if (err == 0 && addrs && n > 0) {
        take_addresses(d, addrs, n);
        if (d->is_server) {
            m->addr_count = d->addr_count;
            memcpy(m->addrs, d->addrs, sizeof(m->addrs));
        }
    } else if (d->is_server && m->addr_count > 0) {
        take_addresses(d, m->addrs, m->addr_count);
    } else {
        d->err = err != 0 ? err : -ENOENT;
    }
    start_next(d);
}

static void resolve(struct dial *d, const char *name)
{
    const struct up_env_options *o = &d->env->opt;
    int r = -ENOENT;

    d->resolving = true;
    if (o->resolve)
        r = o->resolve(o->resolve_arg, name, on_resolved, d, &d->query);
    if (r != 0)
        on_resolved(d, r, NULL, 0);
}

int dial_start(struct dial *d, struct up_env *env, struct up_memory *m, const struct host_port *dst,
               const struct up_known *known, unsigned how, dial_fn *fn)
{
    *d = (struct dial){ .env = env,
                        .memory = m,
                        .fn = fn,
                        .port = dst->port,
                        .early_fd = -1,
                        .is_server = (how & DIAL_SERVER) != 0,
                        .unasked = (how & DIAL_UNASKED) != 0 };
    d->next_timer.fn = on_next_timer;
    d->err = -EHOSTUNREACH;
    d->starting = true;
    if (known) {
        on_resolved(d, known->n > 0 ? 0 : known->err, known->addrs, known->n);
    } else if (dst->name) {
        resolve(d, dst->name);
    } else {
        take_addresses(d, &dst->addr, 1);
        start_next(d);
    }
    d->starting = false;
    return d->resolving || d->active > 0 || d->early_fd >= 0 ? 0 : d->err;
}

int dial_take(struct dial *d, uint32_t *guard)
{
    int fd = d->early_fd;

    d->early_fd = -1;
    if (fd < 0)
        return -1;
    *guard = d->attempts[0].guard;
    d->peer = (struct ip_port){ d->addrs[0], d->port };
    return fd;
}

void dial_noted(struct dial *d, bool there)
{
    if (there)
        answered(d, &d->attempts[0]);
    else
        d->memory->far_until_us = env_now_us(d->env) + FAR_US;
}
