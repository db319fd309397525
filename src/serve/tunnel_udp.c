/* tunnel_udp.c - connect-udp by HTTP/2: one stream is one UDP target (RFC 9298).
 *
 * How it works. A name is resolved once, before the answer, and the address that it gave is the target from then on. Datagrams
 * travel in capsules of context 0; other contexts are dropped, as nothing has registered them (section 4). What comes from
 * anywhere but the target is dropped, too. A port unreachable ends the stream by a reset (H2_CONNECT_ERROR), so that the client
 * can tell its own; other ICMP errors may pass, and are left to the retransmission of whoever speaks over it.
 *
 * Limits. A user's rate: what is beyond is dropped, as a full line would. Five minutes without a datagram: the end. */
#include "masque_impl.h"

#define IDLE_US     UINT64_C(300000000)
#define DEADLINE_US UINT64_C(1000000) /* what waits so long in our queue is late, whatever it is */

enum {
    QUEUE_FRAMES = 512,
    QUEUE_BYTES = 512 * 1024,
};

/* ---- from the client ---- */

static bool within_rate(struct tunnel *t, int way, size_t bytes)
{
    uint64_t now_us = loop_now_us(t->g->m->loop);

    if (ledger_wait_us(t->user, way, now_us) > 0) {
        MASQUE_COUNT(t->g->m, over_limit);
        return false;
    }
    ledger_spend(t->user, way, now_us, bytes);
    t->used_us = now_us;
    return true;
}

static void take_capsule(struct tunnel *t, const struct capsule *c)
{
    struct host_port to = { NULL, t->target.addr, t->target.port };
    struct span value = { c->value, c->len };
    uint64_t context;

    if (c->type != CAPSULE_DATAGRAM || varint_get(&value, &context) != 0 || context != 0)
        return;
    if (!within_rate(t, UP, value.len))
        return;
    MASQUE_COUNT(t->g->m, datagrams_up);
    (void)up_udp_send(t->udp, &to, value.data, value.len, 0, 0, 0);
}

static void on_readable(void *arg)
{
    tunnel_read_capsules(arg, take_capsule);
}

const struct h2_stream_events tunnel_udp_events = { .on_readable = on_readable,
                                                    .on_closed = tunnel_on_closed };

/* ---- from the target ---- */

static void on_datagrams(void *arg, const struct up_datagram *d, size_t n)
{
    struct tunnel *t = arg;
    uint64_t now_us = loop_now_us(t->g->m->loop);

    h2_cork(t->stream);
    for (size_t i = 0; i < n; i++) {
        struct iovec data = { (void *)(uintptr_t)d[i].data, d[i].len };

        if (!ip_port_equal(&d[i].source, &t->target) || !within_rate(t, DOWN, d[i].len))
            continue;
        MASQUE_COUNT(t->g->m, datagrams_down);
        (void)h2_datagram_send(t->stream, 0, &data, 1, now_us + DEADLINE_US);
    }
    h2_uncork(t->stream);
}

static void on_error(void *arg, const struct ip_port *target, const struct ip_addr *offender, int type,
                     int code, uint32_t mtu)
{
    struct tunnel *t = arg;
    bool v4 = ip_is4(&t->target.addr), unreachable = type == (v4 ? 3 : 1) && !(v4 && code == 4);

    (void)offender, (void)mtu;
    if (!unreachable || !ip_port_equal(target, &t->target))
        return; /* too big is what a client finds out by itself (RFC 8899); others pass */
    if (code == (v4 ? 3 : 4)) {
        tunnel_end(t, H2_CONNECT_ERROR); /* nobody listens there: their client tells it as that */
    } else { /* RFC 9298 section 3.1: whatever it is, the stream is to be closed */
        h2_shutdown(t->stream);
        tunnel_end(t, H2_NO_ERROR);
    }
}

static void on_udp_open(void *arg)
{
    static const struct h2_datagram_options queue = { .frames = QUEUE_FRAMES, .bytes = QUEUE_BYTES };
    struct tunnel *t = arg;

    if (h2_datagrams(t->stream, &queue) != 0) {
        tunnel_refuse(t, 503, -ENOMEM);
        return;
    }
    MASQUE_COUNT(t->g->m, udp);
    tunnel_answer(t, 200, 0, true);
    h2_want(t->stream, LOOP_READ);
}

static void on_udp_closed(void *arg, const struct up_failure *why)
{
    struct tunnel *t = arg;

    t->udp = NULL;
    if (t->is_open)
        tunnel_end(t, H2_CONNECT_ERROR);
    else
        tunnel_refuse(t, (unsigned)http_status_for(why->err), why->err);
}

static const struct up_udp_events udp_events = {
    .on_open = on_udp_open, .on_datagrams = on_datagrams, .on_error = on_error, .on_closed = on_udp_closed
};

/* ---- opening ---- */

static void on_idle(struct wheel_timer *timer, uint64_t now_us)
{
    struct tunnel *t = CONTAINER_OF(timer, struct tunnel, idle);

    if (now_us >= t->used_us + IDLE_US)
        tunnel_end(t, H2_NO_ERROR);
    else
        wheel_set(t->g->m->wheel, &t->idle, t->used_us + IDLE_US);
}

static void open_association(struct tunnel *t)
{
    struct masque *m = t->g->m;
    int r = up_may_dial(m->env, m->direct, &t->target);

    if (r == 0)
        r = up_udp_open(m->env, m->direct, (uint64_t)m->opt.connect_timeout_ms * 1000, &udp_events, t,
                        &t->udp);
    if (r != 0) {
        tunnel_refuse(t, (unsigned)http_status_for(r), r);
        return;
    }
    t->used_us = loop_now_us(m->loop);
    t->idle.fn = on_idle;
    wheel_set(m->wheel, &t->idle, t->used_us + IDLE_US);
}

/* The first of the addresses that may be reached; when none may, the last, which is then refused for what it is. */
static void on_resolved(void *arg, int err, const struct ip_addr *addrs, size_t n)
{
    struct tunnel *t = arg;
    struct masque *m = t->g->m;

    t->query = NULL;
    for (size_t i = 0; err == 0 && i < n; i++) {
        t->target.addr = addrs[i];
        if (up_may_dial(m->env, m->direct, &t->target) == 0)
            break;
    }
    t->refused = err != 0 || n == 0;
    if (t->asking)
        return; /* tunnel_udp_open() goes on */
    if (t->refused)
        tunnel_refuse(t, 502, -EINVAL);
    else
        open_association(t);
}

void tunnel_udp_open(struct tunnel *t, const struct host_port *to)
{
    int r;

    t->target = (struct ip_port){ to->addr, to->port };
    if (!to->name) {
        open_association(t);
        return;
    }
    t->asking = true;
    r = up_resolve_name(t->g->m->env, to->name, on_resolved, t, &t->query);
    t->asking = false;
    if (r == 0 && !t->refused && ip_is_none(&t->target.addr))
        return; /* the answer comes later */
    t->query = NULL;
    if (r != 0 || t->refused)
        tunnel_refuse(t, 502, -EINVAL);
    else
        open_association(t);
}

void tunnel_udp_release(struct tunnel *t)
{
    struct masque *m = t->g->m;

    if (t->query)
        up_resolve_cancel(m->env, t->query);
    t->query = NULL;
    wheel_cancel(m->wheel, &t->idle);
    up_udp_close(t->udp);
    t->udp = NULL;
}
