/* pool.c - connections to a proxy that are dialled ahead (`pool`): the next flow finds TCP, TLS, greeting and login done.
 *
 * How it works. After a flow has been opened through an upstream, its pool is filled by the wheel's next turn, so nobody
 * waits for that. A flow takes the newest one that is still alive and says only its request (handshake.c). One that waits for
 * longer than servers like is closed; it is replaced as long as flows come. One that fails is not: the next flow that works
 * fills the pool again, so a dead server is not dialled for nothing.
 *
 * What always holds. Ready ones and those under way together are never more than configured, for each upstream and worker. A
 * pooled connection that turns out dead costs its flow a start-over and nothing else. */
#include "masque.h"

#include <sys/socket.h>

#define AGE_US     (15 * SECOND_US) /* servers end a connection without a request after 20 to 60 s */
#define DEMAND_US  (60 * SECOND_US) /* without a flow for so long the pool is left to run dry */
#define TIMEOUT_US (10 * SECOND_US)

static void unlink_pooled(struct pooled *p)
{
    struct pooled **at = &p->memory->pool;

    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    p->memory->pooled--;
    p->memory->users--;
}

static void free_pooled(struct pooled *p)
{
    struct up_env *env = p->memory->env;

    wheel_cancel(env->opt.wheel, &p->timer);
    unlink_pooled(p);
    slab_put(&env->pooled, p);
}

/* What it is made of: the receiver's. */
static struct handshake_result take(struct pooled *p)
{
    struct handshake_result made = { .fd = -1,
                                     .guard = p->guard,
                                     .secure = p->secure,
                                     .masque = p->hop,
                                     .peer = p->peer,
                                     .memory = p->memory };

    if (!p->hop) {
        made.fd = loop_io_fd(&p->io);
        loop_io_stop(p->memory->env->opt.loop, &p->io);
    }
    return made;
}

static void drop(struct pooled *p)
{
    if (p->handshake) {
        handshake_cancel(p->handshake);
    } else {
        struct handshake_result made = take(p);

        handshake_result_close(p->memory->env, &made);
    }
    free_pooled(p);
}

void pool_drop_all(struct up_memory *m)
{
    wheel_cancel(m->env->opt.wheel, &m->pool_timer);
    while (m->pool)
        drop(m->pool);
}

/* Nothing may have come: neither an end nor words. Inside TLS there may be tickets, which are for TLS. */
static bool is_alive(const struct pooled *p)
{
    uint8_t byte;

    if (p->secure)
        return tls_recv(p->secure->tls, &byte, 1) == -EAGAIN;
    if (p->hop)
        return masque_stream_recv(p->hop, &byte, 1) == -EAGAIN;
    return recv(loop_io_fd(&p->io), &byte, 1, MSG_PEEK) < 0 && errno == EAGAIN;
}

static void drop_dead(struct pooled *p)
{
    UP_COUNT(p->memory->env, pool_dead);
    drop(p);
}

/* ---- filling ---- */

static void on_hop(void *arg, unsigned events)
{
    struct pooled *p = arg;

    (void)events;
    if (!is_alive(p))
        drop_dead(p);
}

static void on_io(struct loop_io *io, unsigned events)
{
    on_hop(CONTAINER_OF(io, struct pooled, io), events);
}

static void on_age(struct wheel_timer *t, uint64_t now_us)
{
    struct pooled *p = CONTAINER_OF(t, struct pooled, timer);
    struct up_memory *m = p->memory;

    UP_COUNT(m->env, pool_expired);
    drop(p);
    if (now_us - m->pool_wanted_us < DEMAND_US)
        wheel_set(m->env->opt.wheel, &m->pool_timer, now_us);
}

static void on_greeted(void *arg, const struct handshake_result *result)
{
    struct pooled *p = arg;
    struct up_env *env = p->memory->env;

    p->handshake = NULL;
    if (result->why) {
        free_pooled(p);
        return;
    }
    UP_COUNT(env, pool_opened);
    p->secure = result->secure;
    p->hop = result->masque;
    p->guard = result->guard;
    p->peer = result->peer;
    if (p->hop)
        masque_stream_carry(p->hop, on_hop, p);
    else
        loop_io_resume(env->opt.loop, &p->io, result->fd, LOOP_READ, on_io);
    wheel_set(env->opt.wheel, &p->timer, env_now_us(env) + AGE_US);
}

static bool dial_one(struct up_memory *m)
{
    struct up_env *env = m->env;
    struct pooled *p = slab_get(&env->pooled);

    if (!p)
        return false;
    p->memory = m;
    p->timer.fn = on_age;
    p->next = m->pool;
    m->pool = p;
    m->pooled++;
    m->users++;
    if (handshake_open(env, m, SOCKS5_HELLO, NULL, NULL, TIMEOUT_US, on_greeted, p, &p->handshake) == 0)
        return true;
    free_pooled(p);
    return false;
}

static void on_fill(struct wheel_timer *t, uint64_t now_us)
{
    struct up_memory *m = CONTAINER_OF(t, struct up_memory, pool_timer);

    (void)now_us;
    while (m->pooled < m->up->pool && dial_one(m))
        ;
}

void pool_want(struct up_memory *m)
{
    if (m->up->pool == 0)
        return;
    m->pool_wanted_us = env_now_us(m->env);
    m->pool_timer.fn = on_fill;
    if (m->pooled < m->up->pool && !wheel_is_set(&m->pool_timer))
        wheel_set(m->env->opt.wheel, &m->pool_timer, m->pool_wanted_us);
}

/* ---- taking ---- */

static struct pooled *first_ready(struct up_memory *m)
{
    struct pooled *p = m->pool;

    while (p && p->handshake)
        p = p->next;
    return p;
}

bool pool_take(struct up_memory *m, struct handshake_result *out)
{
    struct pooled *p;

    while ((p = first_ready(m)) != NULL) {
        if (!is_alive(p)) {
            drop_dead(p);
            continue;
        }
        UP_COUNT(m->env, pool_taken);
        *out = take(p);
        free_pooled(p);
        return true;
    }
    return false;
}
