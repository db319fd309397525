/* masque_udp.c - an association through a MASQUE server: CONNECT-UDP (RFC 9298), one request stream for each target.
 *
 * How it works. The association opens when the connection is there and the server takes extended CONNECT; it lives on when the
 * connection is replaced, since its streams are made anew by the next datagrams. A target's stream is made by its first
 * datagram, which follows the request at once (RFC 9298 section 3.4 lets us), and ends when nothing went through it for a minute, or
 * when it is the one of 64 that was used longest ago. Datagrams wait for two seconds at most: late is worse than lost.
 *
 * What the answers say. A target that may not be reached (403) is told to the client as ICMP says it and not asked for again for ten
 * seconds, as is one that could not be reached. An answer that the server does not know CONNECT-UDP is the end of the
 * association: -EOPNOTSUPP, remembered for a minute (faults.md U6). */
#include "masque.h"
#include "udp_impl.h"

#include <stdlib.h>

#define TARGET_IDLE_US    (60 * SECOND_US)
#define TARGET_LOOK_US    (15 * SECOND_US)
#define TARGET_REFUSED_US (10 * SECOND_US)
#define DATAGRAM_AGE_US   (2 * SECOND_US)
#define OPENING_US        (10 * SECOND_US)
#define NO_UDP_US         (60 * SECOND_US)

enum {
    TARGETS_EACH = 64,
    TARGET_FRAMES = 64,
    TARGET_BYTES = 256 * 1024,
    READ_CAPSULES = 64, /* of one event */
};

struct masque_target {
    struct masque_target *next; /* used last comes first */
    struct masque_udp *mu;
    struct h2_stream *h2; /* NULL: refused */
    uint64_t used_us, refused_until_us;
    struct host_port to;
    bool answered;
    char name[256];
};

struct masque_udp {
    struct up_udp *u;
    struct masque *m;
    struct masque_wait wait;
    struct wheel_timer timer; /* the deadline of the opening; then idle targets */
    struct masque_target *targets;
    unsigned count;
};

size_t masque_udp_bytes(void)
{
    return sizeof(struct masque_udp);
}

size_t masque_target_bytes(void)
{
    return sizeof(struct masque_target);
}

/* ---- targets ---- */

static void drop_target(struct masque_target *t)
{
    struct masque_udp *mu = t->mu;
    struct masque_target **at = &mu->targets;

    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    mu->count--;
    h2_stream_close(t->h2, H2_CANCEL);
    masque_serve_later(mu->m);
    slab_put(&mu->m->env->masque_targets, t);
}

static bool is_target(const struct masque_target *t, const struct host_port *to)
{
    if (t->to.port != to->port || !t->to.name != !to->name)
        return false;
    return to->name ? strcmp(t->to.name, to->name) == 0 : ip_equal(&t->to.addr, &to->addr);
}

static struct masque_target *find_target(struct masque_udp *mu, const struct host_port *to)
{
    for (struct masque_target **at = &mu->targets; *at; at = &(*at)->next) {
        struct masque_target *t = *at;

        if (!is_target(t, to))
            continue;
        *at = t->next;
        t->next = mu->targets;
        mu->targets = t;
        return t;
    }
    return NULL;
}

static void drop_oldest(struct masque_udp *mu)
{
    struct masque_target *t = mu->targets;

    while (t->next)
        t = t->next;
    drop_target(t);
}

/* ---- answers ---- */

static void die(struct masque_udp *mu, const struct up_failure *why)
{
    struct up_failure copy = *why;

    UP_COUNT(mu->m->env, udp_failed);
    udp_die(mu->u, &copy);
}

static void without_udp(struct masque_udp *mu, unsigned status)
{
    struct up_failure why = { 0 };
    char server[160];

    mu->m->memory->no_udp_until_us = env_now_us(mu->m->env) + NO_UDP_US;
    if (udp_next_way(mu->u))
        return;
    masque_server_text(mu->m, server);
    if (status)
        up_fail(&why, -EOPNOTSUPP, "request", false, "%s has no CONNECT-UDP (%u)", server, status);
    else
        up_fail(&why, -EOPNOTSUPP, "request", false, "%s takes no extended CONNECT, so it carries no UDP",
                server);
    die(mu, &why);
}

enum told { TOLD_HOST, TOLD_PROHIBITED, TOLD_PORT };

/* As a router on the way would say it, or the target. */
static void tell_target(struct masque_target *t, enum told what)
{
    static const int codes[][2] = {
        [TOLD_HOST] = { 1, 3 }, [TOLD_PROHIBITED] = { 13, 1 }, [TOLD_PORT] = { 3, 4 }
    };

    struct up_udp *u = t->mu->u;
    struct ip_port target = { t->to.addr, t->to.port };
    bool v4 = ip_is4(&t->to.addr);

    if (t->to.name || !u->events->on_error)
        return;
    u->events->on_error(u->arg, &target, NULL, v4 ? 3 : 1, codes[what][v4 ? 0 : 1], 0);
}

static void on_response(void *arg, const struct h2_head *head)
{
    struct masque_target *t = arg;
    struct masque_udp *mu = t->mu;
    struct up_failure why = { 0 };

    t->answered = true;
    if (masque_answer(mu->m, head, &why))
        return;
    if (head->status == 400 || head->status == 404 || head->status == 405 || head->status == 501) {
        without_udp(mu, head->status);
    } else if (head->status == 401 || head->status == 407) {
        die(mu, &why);
    } else {
        h2_stream_close(t->h2, H2_CANCEL);
        t->h2 = NULL;
        t->refused_until_us = env_now_us(mu->m->env) + TARGET_REFUSED_US;
        tell_target(t, head->status == 403 ? TOLD_PROHIBITED : TOLD_HOST);
    }
}

/* Return: the target is still there. */
static bool deliver(struct masque_target *t, const struct capsule *c)
{
    struct up_udp *u = t->mu->u;
    struct up_env *env = u->env;
    struct span rest = { c->value, c->len };
    struct up_datagram d = { 0 };
    uint64_t context;

    if (c->type != CAPSULE_DATAGRAM || varint_get(&rest, &context) != 0 || context != 0)
        return true; /* RFC 9298 section 4: what nobody registered is dropped */
    if (!t->to.name)
        d.source = (struct ip_port){ t->to.addr, t->to.port };
    d.data = rest.data;
    d.len = rest.len;
    t->used_us = u->memory->health.last_good_us = env_now_us(env);
    UP_COUNT(env, datagrams_down);
    counter_add(&env->cnt.bytes_down, rest.len);
    env->running = u;
    u->events->on_datagrams(u->arg, &d, 1);
    if (env->running != u)
        return false;
    env->running = NULL;
    return true;
}

static void on_readable(void *arg)
{
    struct masque_target *t = arg;
    struct up_env *env = t->mu->m->env;
    struct capsule c;
    int r = 1;

    for (int i = 0; i < READ_CAPSULES && r == 1; i++) {
        r = h2_capsule_recv(t->h2, env->masque_scratch, H2_DATAGRAM_MAX, &c);
        if (r == 1 && !deliver(t, &c))
            return;
    }
    if (r == 0 || r == -EBADMSG)
        drop_target(t);
}

static void on_closed(void *arg, int err, uint32_t code)
{
    struct masque_target *t = arg;

    struct masque_udp *mu = t->mu;

    (void)err;
    t->h2 = NULL;
    if (code == H2_CONNECT_ERROR && t->answered) {
        mu->u->env->running = mu->u; /* its owner may close it when it hears that */
        tell_target(t, TOLD_PORT);
        if (mu->u->env->running != mu->u)
            return;
        mu->u->env->running = NULL;
    }
    drop_target(t); /* the next datagram asks again */
}

static const struct h2_stream_events target_events = { on_response, on_readable, NULL, on_closed };

/* ---- sending ---- */

static int ask_target(struct masque_target *t)
{
    static const struct h2_datagram_options queue = { TARGET_FRAMES, TARGET_BYTES, false };
    struct masque *m = t->mu->m;
    char path[MASQUE_PATH_MAX];
    int r = masque_udp_path_put(&t->to, path);

    if (r == 0 && !m->current)
        r = -EAGAIN;
    if (r == 0)
        r = masque_request(m->current, NULL, "connect-udp", path, &target_events, t, &t->h2);
    if (r == 0)
        r = h2_datagrams(t->h2, &queue);
    return r;
}

static bool copy_target(struct masque_target *t, const struct host_port *to)
{
    t->to = *to;
    if (!to->name)
        return true;
    t->to.name = t->name;
    return host_name_normalise(to->name, strlen(to->name), t->name) == 0;
}

static struct masque_target *new_target(struct masque_udp *mu, const struct host_port *to)
{
    struct masque_target *t;

    if (mu->count >= TARGETS_EACH)
        drop_oldest(mu);
    t = slab_get(&mu->m->env->masque_targets);
    if (!t)
        return NULL;
    t->mu = mu;
    t->next = mu->targets;
    mu->targets = t;
    mu->count++;
    if (copy_target(t, to) && ask_target(t) == 0)
        return t;
    drop_target(t);
    return NULL;
}

int masque_udp_send(struct masque_udp *mu, const struct host_port *target, const struct up_row_out *o)
{
    struct up_env *env = mu->m->env;
    uint64_t now_us = env_now_us(env);
    size_t piece = o->gso_size ? o->gso_size : o->len;
    struct masque_target *t = find_target(mu, target);
    int r = 0;

    if (!mu->m->current && !mu->wait.linked &&
        !(t && t->h2)) { /* the connection went: the next ones get a new one */
        masque_ask(mu->m, &mu->wait, 10 * SECOND_US);
        return 0;
    }
    if (!t)
        t = new_target(mu, target);
    if (!t || (!t->h2 && t->refused_until_us > now_us)) {
        UP_COUNT(env, datagrams_unsent);
        return 0;
    }
    if (!t->h2 && ask_target(t) != 0) {
        drop_target(t);
        return 0;
    }
    t->used_us = now_us;
    h2_cork(t->h2);
    for (size_t i = 0; i < o->ranges && r == 0; i++) {
        const uint8_t *data = o->data[i].iov_base;

        for (size_t off = 0; (off < o->data[i].iov_len || off == 0) && r == 0; off += piece > 0 ? piece : 1) {
            size_t left = o->data[i].iov_len - off;
            struct iovec one = { (void *)(uintptr_t)(data + off), left < piece ? left : piece };

            r = h2_datagram_send(t->h2, 0, &one, 1, now_us + DATAGRAM_AGE_US);
            if (r == 0) {
                UP_COUNT(env, datagrams_up);
                counter_add(&env->cnt.bytes_up, one.iov_len);
            }
        }
    }
    h2_uncork(t->h2);
    return r == -EMSGSIZE ? r : 0;
}

/* ---- life ---- */

static void look_at_targets(struct masque_udp *mu, uint64_t now_us)
{
    for (struct masque_target *t = mu->targets, *next; t; t = next) {
        next = t->next;
        if (now_us - t->used_us >= TARGET_IDLE_US)
            drop_target(t);
    }
    wheel_set(mu->m->env->opt.wheel, &mu->timer, now_us + TARGET_LOOK_US);
}

static void on_timer(struct wheel_timer *timer, uint64_t now_us)
{
    struct masque_udp *mu = CONTAINER_OF(timer, struct masque_udp, timer);
    struct up_failure why = { 0 };
    char server[160];

    if (mu->u->state == UDP_OPEN) {
        look_at_targets(mu, now_us);
        return;
    }
    up_fail(&why, -EHOSTUNREACH, "connect", true, "%s was not ready for UDP in time",
            masque_server_text(mu->m, server));
    die(mu, &why);
}

static void on_ready(struct masque_wait *w, struct tunnel *t)
{
    struct masque_udp *mu = CONTAINER_OF(w, struct masque_udp, wait);

    if (!h2_has_extended_connect(t->h2)) {
        without_udp(mu, 0);
        return;
    }
    if (mu->u->state == UDP_OPEN)
        return;
    wheel_set(mu->m->env->opt.wheel, &mu->timer, env_now_us(mu->m->env) + TARGET_LOOK_US);
    udp_opened(mu->u);
}

static void on_failed(struct masque_wait *w, const struct up_failure *why)
{
    struct masque_udp *mu = CONTAINER_OF(w, struct masque_udp, wait);

    if (mu->u->state != UDP_OPEN) /* an open one goes on when the server is back */
        die(mu, why);
}

void masque_udp_open(struct up_udp *u)
{
    struct up_failure why = { 0 };
    struct up_env *env = u->env;
    struct masque *m = masque_of(env, u->memory);
    struct masque_udp *mu;

    if (!env->masque_scratch)
        env->masque_scratch = malloc(H2_DATAGRAM_MAX); /* once a worker */
    mu = m && env->masque_scratch ? slab_get(&env->masque_udps) : NULL;
    if (!mu) {
        up_fail(&why, -ENOMEM, "connect", false, "no memory for an association through %.80s",
                u->memory->up->name);
        UP_COUNT(env, udp_failed);
        udp_die(u, &why);
        return;
    }
    mu->u = u;
    mu->m = m;
    mu->wait = (struct masque_wait){ .ready = on_ready, .failed = on_failed, .extended = true };
    mu->timer.fn = on_timer;
    u->masque = mu;
    wheel_set(env->opt.wheel, &mu->timer, env_now_us(env) + OPENING_US);
    masque_ask(m, &mu->wait, OPENING_US);
}

void masque_udp_close(struct masque_udp *mu)
{
    if (!mu)
        return;
    wheel_cancel(mu->m->env->opt.wheel, &mu->timer);
    masque_leave(mu->m, &mu->wait);
    while (mu->targets)
        drop_target(mu->targets);
    slab_put(&mu->m->env->masque_udps, mu);
}
