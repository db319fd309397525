/* udp.c - the life of an association: opening, delivering, ending. How it sends is udp_direct.c's and udp_socks.c's.
 *
 * What always holds. Callbacks come from the loop or the wheel only, never from inside up_udp_open() or up_udp_send().
 * Delivering stops at once when a callback closes the association. */
#include "udp_impl.h"
#include "masque.h"

enum {
    BATCH = 128, /* datagrams handed on together */
    ROUNDS = 4,  /* receive calls of one event, so that one association does not hold up the others */
};

void udp_close_io(struct up_udp *u, int which)
{
    int fd;

    if (!udp_has_io(u, which))
        return;
    fd = loop_io_fd(&u->io[which]);
    loop_io_stop(u->env->opt.loop, &u->io[which]);
    socket_close(u->env, fd, u->guard[which]);
    u->guard[which] = NO_GUARD;
}

static void release(struct up_udp *u)
{
    wheel_cancel(u->env->opt.wheel, &u->timer);
    handshake_cancel(u->handshake);
    u->handshake = NULL;
    udp_tunnel_close(u);
    masque_udp_close(u->masque);
    u->masque = NULL;
    udp_direct_drop_names(u);
    udp_close_io(u, 0);
    udp_close_io(u, 1);
}

static void free_udp(struct up_udp *u)
{
    u->memory->users--;
    if (u->group)
        u->group->users--;
    slab_put(&u->env->udps, u);
}

void udp_die(struct up_udp *u, const struct up_failure *why)
{
    if (u->env->running == u)
        u->env->running = NULL;
    release(u);
    u->state = UDP_DEAD;
    if (u->events->on_closed)
        u->events->on_closed(u->arg, why);
    free_udp(u);
}

void up_udp_close(struct up_udp *u)
{
    if (!u || u->state == UDP_DEAD)
        return;
    if (u->env->running == u)
        u->env->running = NULL;
    release(u);
    free_udp(u);
}

/* ---- delivering ---- */

/* Hands @n datagrams on. Return: the association is still there. */
bool udp_hand_on(struct up_udp *u, const struct up_datagram *batch, size_t n)
{
    struct up_env *env = u->env;

    if (n == 0)
        return true;
    counter_add(&env->cnt.datagrams_down, n);
    u->events->on_datagrams(u->arg, batch, n);
    return env->running == u;
}

/* One datagram as the association's owner sees it. Return: it is well formed. */
static bool unwrap(struct up_udp *u, const struct up_row_in *in, const uint8_t *data, size_t len,
                   struct up_datagram *out)
{
    struct span rest = { data, len };
    struct socks5_address from;

    *out = (struct up_datagram){ .source = in->source, .data = data, .len = len };
    if (u->socks) {
        if (socks5_udp_get(&rest, &from) != 0) {
            UP_COUNT(u->env, socks_udp_malformed);
            return false;
        }
        *out = (struct up_datagram){ .data = rest.data, .len = rest.len };
        if (!from.name) /* with a name, the source is what was asked last (faults.md U9) */
            out->source = from.ip;
    }
    counter_add(&u->env->cnt.bytes_down, out->len);
    return true;
}

/* Return: the association is still there. */
static bool deliver_batch(struct up_udp *u, int messages)
{
    struct up_datagram batch[BATCH];
    size_t n = 0;

    for (int i = 0; i < messages; i++) {
        struct up_row_in in;
        size_t off = 0;

        up_row_received(u->env, i, &in);
        do {
            size_t len = in.len - off < in.gso_size ? in.len - off : in.gso_size;

            if (unwrap(u, &in, in.data + off, len, &batch[n]))
                n++;
            off += len;
            if (n == BATCH) {
                if (!udp_hand_on(u, batch, n))
                    return false;
                n = 0;
            }
        } while (off < in.len);
    }
    return udp_hand_on(u, batch, n);
}

int up_row_send(struct up_udp *u, int which, const struct up_row_out *o)
{
    size_t all = o->gso_size == 0 || o->len <= o->gso_size ? 1 : (o->len + o->gso_size - 1) / o->gso_size,
           sent;
    int r = up_rows_send(u->env, loop_io_fd(&u->io[which]), o, &sent);

    counter_add(&u->env->cnt.datagrams_up, sent);
    counter_add(&u->env->cnt.datagrams_unsent, all - sent);
    counter_add(&u->env->cnt.bytes_up, sent == all ? o->len : sent * o->gso_size);
    return r;
}

int udp_deliver(struct up_udp *u, struct loop_io *io)
{
    struct up_env *env = u->env;
    int r = 0;

    env->running = u;
    for (int round = 0; round < ROUNDS; round++) {
        r = up_rows_receive(env, loop_io_fd(io));
        if (r < 0)
            break;
        u->memory->health.last_good_us = env_now_us(env);
        if (!deliver_batch(u, r) || r < UP_ROWS_MAX) {
            r = 0;
            break;
        }
    }
    env->running = NULL;
    return r < 0 ? r : 0;
}

/* ---- opening ---- */

void udp_opened(struct up_udp *u)
{
    u->state = UDP_OPEN;
    UP_COUNT(u->env, udp_opened);
    if (u->events->on_open)
        u->events->on_open(u->arg);
}

static void on_direct_open(struct wheel_timer *t, uint64_t now_us)
{
    (void)now_us;
    udp_opened(CONTAINER_OF(t, struct up_udp, timer));
}

struct upstream *up_udp_way(const struct up_udp *u)
{
    return u->handshake ? handshake_memory(u->handshake)->up : u->memory->up;
}

bool up_has_no_udp(const struct up_env *env, const struct up_memory *m)
{
    const struct upstream *up = m->up;

    if (!upstream_is_proxy(up) || up->kind == UPSTREAM_GROUP)
        return up->udp == UPSTREAM_UDP_OFF;
    if (up->kind == UPSTREAM_MASQUE)
        return up->udp == UPSTREAM_UDP_OFF || m->no_udp_until_us > env_now_us(env);
    /* Inside TLS there is none either: the datagrams would leave in the clear. Nor at the end of a chain: they would not
     * follow the connection. */
    return up->udp == UPSTREAM_UDP_OFF || up->kind != UPSTREAM_SOCKS5 ||
           (up->udp != UPSTREAM_UDP_OVER_TCP && (up->tls || up->dialer)) ||
           m->no_udp_until_us > env_now_us(env);
}

int up_udp_open(struct up_env *env, struct upstream *up, uint64_t timeout_us,
                const struct up_udp_events *events, void *arg, struct up_udp **out)
{
    struct up_memory *m = env_memory(env, up);
    struct up_udp *u;
    int r = 0;

    assert(loop_is_mine(env->opt.loop));
    if (up->kind == UPSTREAM_REJECT || up->kind == UPSTREAM_REJECT_DROP)
        return -ECONNREFUSED;
    if (m && up_has_no_udp(env, m))
        return -EOPNOTSUPP;
    u = m ? slab_get(&env->udps) : NULL;
    if (!u)
        return -ENOMEM;
    u->env = env;
    u->memory = m;
    u->events = events;
    u->arg = arg;
    u->guard[0] = u->guard[1] = NO_GUARD;
    u->socks = upstream_is_proxy(up);
    u->timer.fn = on_direct_open;
    u->until_us = env_now_us(env) + timeout_us;
    m->users++;
    if (u->socks)
        r = udp_socks_open(u);
    else
        wheel_set(env->opt.wheel, &u->timer, env_now_us(env));
    if (r != 0) {
        UP_COUNT(env, udp_failed);
        free_udp(u);
        return r;
    }
    *out = u;
    return 0;
}

int up_udp_send_row(struct up_udp *u, const struct host_port *target, const struct iovec *data, int ranges,
                    uint16_t gso_size, uint8_t ttl, uint8_t tos)
{
    struct up_row_out o = { .data = data, .ranges = (size_t)ranges, .gso_size = gso_size };

    assert(loop_is_mine(u->env->opt.loop));
    for (int i = 0; i < ranges; i++)
        o.len += data[i].iov_len;
    if (u->state != UDP_OPEN)
        return -EAGAIN;
    if (u->tunnel)
        return udp_tunnel_send(u, target, &o);
    if (u->masque)
        return masque_udp_send(u->masque, target, &o);
    return u->socks ? udp_socks_send(u, target, &o) : udp_direct_send(u, target, &o, ttl, tos);
}

int up_udp_send(struct up_udp *u, const struct host_port *target, const void *data, size_t len,
                uint16_t gso_size, uint8_t ttl, uint8_t tos)
{
    struct iovec one = { (void *)(uintptr_t)data, len };

    return up_udp_send_row(u, target, &one, 1, gso_size, ttl, tos);
}
