/* masque_echo.c - pings through a MASQUE server: CONNECT-IP scoped to ICMP or ICMPv6 (RFC 9484), one request for each family.
 *
 * How it works. A lane is a family's request on the present connection. The first ping makes it: "any target, this protocol". The
 * server answers 2xx, assigns an address (ADDRESS_ASSIGN) and from then on whole packets go both ways in capsules of context 0, from
 * that address. Pings that come before wait here, in a bounded queue. They leave before bulk data, from a queue of 128 frames and
 * 256 KiB, and not later than 10 s after they came (icmp.md T6, T7).
 *
 * What the far end lacks (no extended CONNECT, or an answer that is no 2xx) is remembered for the connection (T14). When the
 * connection goes, so does the lane; the next ping makes one on the next connection. A connection that drains may still bring
 * answers for a second (T17); after that they are of an old generation and nobody hears them (T13).
 *
 * What always holds. A ping is sent once or not at all, and only the server's packets become answers. */
#include "icmp_packet.h"
#include "masque.h"

#include <stdlib.h>

#define PING_AGE_US (10 * SECOND_US)
#define LINGER_US   SECOND_US
#define OPENING_US  (10 * SECOND_US)

enum {
    LANE_FRAMES = 128,
    LANE_BYTES = 256 * 1024,
    HELD_FRAMES = 64,
    HELD_BYTES = 256 * 1024,
    READ_CAPSULES = 128,           /* of one event */
    PAYLOAD4_MAX = 65535 - 20 - 8, /* icmp.md T1 */
    PAYLOAD6_MAX = 65535 - 8,
};

enum lane_state { LANE_IDLE, LANE_ASKED, LANE_READY, LANE_REFUSED };

struct held { /* in the ring, before its payload */
    struct up_echo_request request;
    uint64_t since_us;
};

struct lane {
    struct masque_echo *echo;
    enum lane_state state;
    bool v6;
    uint32_t number; /* of the connection that said no */
    struct h2_stream *h2;
    struct ip_addr source; /* assigned; none: not yet */
    struct masque_wait wait;
    struct wheel_timer deadline; /* of the opening */
    struct ring held;
    uint16_t ip_id;
};

struct leg { /* a lane's stream that takes nothing new, or its present one */
    struct lane *lane;
    struct h2_stream *h2;
    struct ip_addr source;
    struct wheel_timer end;
};

struct masque_echo {
    struct masque *m;
    struct lane lanes[2]; /* IPv4, IPv6 */
    struct leg old[2];
};

/* ---- what waits ---- */

static void tell_held(struct lane *l, const struct held *held, int err)
{
    struct up_env *env = l->echo->m->env;

    if (env->echo_events)
        env->echo_events->on_held(env->echo_arg, held->request.cookie, err);
}

static void fail_held(struct lane *l, int err)
{
    const struct held *held;
    size_t len;

    while ((held = ring_peek(&l->held, &len)) != NULL) {
        struct held copy = *held;

        ring_pop(&l->held);
        tell_held(l, &copy, err);
    }
}

static int hold(struct lane *l, const struct up_echo_request *r)
{
    struct held *held = ring_reserve(&l->held, sizeof(*held) + r->payload_len);

    if (!held)
        return -ENOBUFS;
    held->request = *r;
    held->since_us = env_now_us(l->echo->m->env);
    memcpy(held + 1, r->payload, r->payload_len);
    ring_commit(&l->held);
    return 1;
}

static int send_now(struct lane *l, const struct up_echo_request *r, uint64_t since_us)
{
    uint8_t head[ICMP_PACKET_HEAD];
    struct iovec iov[2] = { { head, icmp_packet_put(r, &l->source, ++l->ip_id, head) },
                            { (void *)(uintptr_t)r->payload, r->payload_len } };
    int e = h2_datagram_send(l->h2, 0, iov, 2, since_us + PING_AGE_US);

    return e == -EPIPE ? -EHOSTUNREACH : e;
}

static void send_held(struct lane *l)
{
    uint64_t now_us = env_now_us(l->echo->m->env);
    const struct held *held;
    size_t len;

    while (l->state == LANE_READY && (held = ring_peek(&l->held, &len)) != NULL) {
        struct held copy = *held;
        int e = -ETIMEDOUT;

        copy.request.payload = (const uint8_t *)(held + 1);
        if (now_us - copy.since_us < PING_AGE_US)
            e = send_now(l, &copy.request, copy.since_us);
        ring_pop(&l->held);
        tell_held(l, &copy, e);
    }
}

/* ---- a lane ---- */

static void drop_lane(struct lane *l, enum lane_state state, int err)
{
    struct masque *m = l->echo->m;

    wheel_cancel(m->env->opt.wheel, &l->deadline);
    masque_leave(m, &l->wait);
    h2_stream_close(l->h2, H2_CANCEL);
    l->h2 = NULL;
    l->source = (struct ip_addr){ 0 };
    l->state = state;
    l->number = m->number;
    masque_serve_later(m);
    fail_held(l, err);
}

static void take_address(struct lane *l, const struct capsule *c)
{
    struct span in = { c->value, c->len };
    struct capsule_address a;

    while (capsule_address_get(&in, &a) == 0) {
        if (ip_is4(&a.prefix.addr) == l->v6)
            continue;
        l->source = a.prefix.addr;
        l->state = LANE_READY;
        wheel_cancel(l->echo->m->env->opt.wheel, &l->deadline);
        send_held(l);
        return;
    }
}

static void deliver(struct lane *l, const struct ip_addr *source, const struct capsule *c)
{
    struct up_env *env = l->echo->m->env;
    struct span in = { c->value, c->len };
    struct up_echo_answer answer;
    uint64_t context;

    if (ip_is_none(source) || varint_get(&in, &context) != 0 || context != 0)
        return;
    if (icmp_packet_get(in.data, in.len, source, &answer) != 0) {
        UP_COUNT(env, echo_malformed);
        return;
    }
    l->echo->m->memory->health.last_good_us = env_now_us(env);
    if (env->echo_events)
        env->echo_events->on_answer(env->echo_arg, l->echo->m->memory->up, &answer);
}

static void on_response(void *arg, const struct h2_head *head)
{
    struct lane *l = arg;
    struct up_failure why = { 0 };

    if (masque_answer(l->echo->m, head, &why))
        return;
    h2_stream_close(l->h2, H2_CANCEL);
    l->h2 = NULL;
    drop_lane(l, LANE_REFUSED, -EOPNOTSUPP);
}

static void on_readable(void *arg)
{
    struct lane *l = arg;
    struct up_env *env = l->echo->m->env;
    struct capsule c;
    int r = 1;

    for (int i = 0; i < READ_CAPSULES && r == 1 && l->h2; i++) {
        r = h2_capsule_recv(l->h2, env->masque_scratch, H2_DATAGRAM_MAX, &c);
        if (r == 1 && c.type == CAPSULE_DATAGRAM)
            deliver(l, &l->source, &c);
        else if (r == 1 && c.type == CAPSULE_ADDRESS_ASSIGN)
            take_address(l, &c);
    }
    if (l->h2 && (r == 0 || r == -EBADMSG))
        drop_lane(l, LANE_IDLE, -EHOSTUNREACH);
}

static void on_closed(void *arg, int err, uint32_t code)
{
    struct lane *l = arg;

    (void)err, (void)code;
    l->h2 = NULL;
    drop_lane(l, LANE_IDLE, -EHOSTUNREACH);
}

static const struct h2_stream_events lane_events = { on_response, on_readable, NULL, on_closed };

static void on_ready(struct masque_wait *w, struct tunnel *t)
{
    static const struct h2_datagram_options queue = { LANE_FRAMES, LANE_BYTES, true };
    struct lane *l = CONTAINER_OF(w, struct lane, wait);
    char path[MASQUE_PATH_MAX];

    if (!h2_has_extended_connect(t->h2)) {
        drop_lane(l, LANE_REFUSED, -EOPNOTSUPP);
        return;
    }
    masque_ip_path_put(l->v6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP, path);
    if (masque_request(t, NULL, "connect-ip", path, &lane_events, l, &l->h2) != 0 ||
        h2_datagrams(l->h2, &queue) != 0)
        drop_lane(l, LANE_IDLE, -EHOSTUNREACH);
}

static void on_failed(struct masque_wait *w, const struct up_failure *why)
{
    (void)why;
    drop_lane(CONTAINER_OF(w, struct lane, wait), LANE_IDLE, -EHOSTUNREACH);
}

static void on_deadline(struct wheel_timer *t, uint64_t now_us)
{
    (void)now_us;
    drop_lane(CONTAINER_OF(t, struct lane, deadline), LANE_IDLE, -EHOSTUNREACH);
}

static void ask(struct lane *l)
{
    struct masque *m = l->echo->m;

    l->state = LANE_ASKED;
    wheel_set(m->env->opt.wheel, &l->deadline, env_now_us(m->env) + OPENING_US);
    masque_ask(m, &l->wait, OPENING_US);
}

/* ---- the connection goes ---- */

static void on_old_readable(void *arg)
{
    struct leg *g = arg;
    struct capsule c;

    while (g->h2 && h2_capsule_recv(g->h2, g->lane->echo->m->env->masque_scratch, H2_DATAGRAM_MAX, &c) == 1) {
        if (c.type == CAPSULE_DATAGRAM)
            deliver(g->lane, &g->source, &c);
    }
}

static void on_old_closed(void *arg, int err, uint32_t code)
{
    (void)err, (void)code;
    ((struct leg *)arg)->h2 = NULL;
}

static const struct h2_stream_events old_events = { NULL, on_old_readable, NULL, on_old_closed };

static void end_leg(struct leg *g)
{
    wheel_cancel(g->lane->echo->m->env->opt.wheel, &g->end);
    h2_stream_close(g->h2, H2_CANCEL);
    g->h2 = NULL;
}

static void on_leg_end(struct wheel_timer *t, uint64_t now_us)
{
    (void)now_us;
    end_leg(CONTAINER_OF(t, struct leg, end));
}

void masque_echo_moved(struct masque *m)
{
    struct masque_echo *e = m->echo;

    for (size_t i = 0; e && i < ARRAY_LEN(e->lanes); i++) {
        struct lane *l = &e->lanes[i];
        struct leg *g = &e->old[i];

        if (l->state == LANE_REFUSED)
            l->state = LANE_IDLE; /* the next connection may know better */
        if (!l->h2)
            continue;
        end_leg(g);
        if (l->state == LANE_READY) {
            g->h2 = l->h2;
            g->source = l->source;
            h2_hand_over(g->h2, &old_events, g);
            wheel_set(m->env->opt.wheel, &g->end, env_now_us(m->env) + LINGER_US);
            l->h2 = NULL;
        }
        drop_lane(l, LANE_IDLE, -EHOSTUNREACH);
    }
}

/* ---- life ---- */

void masque_echo_free(struct masque *m)
{
    struct masque_echo *e = m->echo;

    if (!e)
        return;
    m->echo = NULL;
    for (size_t i = 0; i < ARRAY_LEN(e->lanes); i++) {
        end_leg(&e->old[i]);
        drop_lane(&e->lanes[i], LANE_IDLE, -EHOSTUNREACH);
        free(e->lanes[i].held.data);
    }
    free(e);
}

/* Once for each upstream that pings take. */
static struct masque_echo *echo_of(struct masque *m)
{
    struct masque_echo *e = m->echo ? NULL : calloc(1, sizeof(*e));
    struct up_env *env = m->env;

    if (m->echo || !e)
        return m->echo;
    if (!env->masque_scratch)
        env->masque_scratch = malloc(H2_DATAGRAM_MAX);
    e->m = m;
    m->echo = e;
    for (size_t i = 0; i < ARRAY_LEN(e->lanes); i++) {
        struct lane *l = &e->lanes[i];
        void *memory = calloc(1, HELD_BYTES);

        l->echo = e;
        l->v6 = i == 1;
        l->wait = (struct masque_wait){ .ready = on_ready, .failed = on_failed, .extended = true };
        l->deadline.fn = on_deadline;
        e->old[i].lane = l;
        e->old[i].end.fn = on_leg_end;
        if (memory)
            ring_init(&l->held, memory, HELD_BYTES, HELD_FRAMES);
        if (!memory || !env->masque_scratch) {
            free(memory);
            free(e->lanes[0].held.data == memory ? NULL : e->lanes[0].held.data);
            free(e);
            m->echo = NULL;
            return NULL;
        }
    }
    return e;
}

enum up_echo_state up_echo_state(struct up_env *env, struct upstream *up, bool v6)
{
    struct up_memory *memory = up->kind == UPSTREAM_MASQUE ? env_memory(env, up) : NULL;
    struct masque *m = memory ? memory->masque : NULL;

    if (up->kind != UPSTREAM_MASQUE)
        return UP_ECHO_UNSUPPORTED;
    if (!m)
        return UP_ECHO_UNKNOWN;
    if (!m->current && !m->handshake && m->retry_at_us > env_now_us(env))
        return UP_ECHO_DOWN;
    if (!m->echo)
        return UP_ECHO_UNKNOWN;
    switch (m->echo->lanes[v6].state) {
    case LANE_READY:
        return UP_ECHO_READY;
    case LANE_REFUSED:
        return UP_ECHO_UNSUPPORTED;
    case LANE_IDLE:
    case LANE_ASKED:
        break;
    }
    return UP_ECHO_UNKNOWN;
}

void up_echo_listen(struct up_env *env, const struct up_echo_events *events, void *arg)
{
    env->echo_events = events;
    env->echo_arg = arg;
}

int up_echo_send(struct up_env *env, struct upstream *up, const struct up_echo_request *r)
{
    bool v6 = !ip_is4(&r->target);
    enum up_echo_state state = up_echo_state(env, up, v6);
    struct up_memory *memory;
    struct masque *m;
    struct masque_echo *e;
    struct lane *l;
    int held;

    if (state == UP_ECHO_UNSUPPORTED || state == UP_ECHO_DOWN)
        return state == UP_ECHO_DOWN ? -EHOSTUNREACH : -EOPNOTSUPP;
    if (r->payload_len > (v6 ? PAYLOAD6_MAX : PAYLOAD4_MAX))
        return -EMSGSIZE;
    memory = env_memory(env, up);
    m = memory ? masque_of(env, memory) : NULL;
    e = m ? echo_of(m) : NULL;
    if (!e)
        return -ENOMEM;
    l = &e->lanes[v6];
    if (l->state == LANE_READY)
        return send_now(l, r, env_now_us(env));
    held = hold(l, r);
    if (held == 1 && l->state == LANE_IDLE)
        ask(l);
    return held;
}
