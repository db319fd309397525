/* datagram.c - questions over UDP, through any way out.
 *
 * How it works. Directly, each question has a socket of its own: its port is one more secret from who forges answers (RFC 5452
 * section 4.5; faults.md D3). Through a proxy the port is the proxy's, and an association costs it a connection and several round
 * trips: so questions of one worker share one, whatever servers they go to, told apart by ids that are random and differ.
 * A shared one takes no more questions when it has carried SHARED_MAX at once, is LIFE_US old (so that the proxy's port changes),
 * has brought too much that nobody asked for, has been silent for SILENT_US while a question waits, or its group would not take
 * its way now; it closes IDLE_US after the last one. When it dies, each of its questions is asked once more on a new one. */
#include "service_impl.h"

#include <errno.h>
#include <stdlib.h>

#define OPEN_US       UINT64_C(4000000)
#define IDLE_US       UINT64_C(10000000)
#define SILENT_US     UINT64_C(3000000)
#define LIFE_US       UINT64_C(60000000)
#define SHARED_MAX    128
#define STRANGERS_MAX 32
#define LATE_MAX      256

struct dns_assoc {
    struct dns_assoc *next, **link; /* of the service's shared ones, or of those for one question */
    struct dns_service *s;
    struct dns_plan *plan; /* a reference, which `way` lives by */
    struct upstream *way;  /* as the plan has it: perhaps a group */
    struct up_udp *up;     /* NULL: it is gone */
    struct dns_try *tries;
    struct wheel_timer timer; /* nothing has been asked for long */
    uint64_t born_us, idle_us;
    uint64_t unheard_us; /* since when a question waits and nothing comes; 0: none does */
    unsigned n, strangers, left;
    uint16_t late
        [LATE_MAX]; /* ids of the questions that left last: the slower server of a race answers them, too */
    bool alone;     /* for one question */
    bool open, leaving;
};

static void assoc_free(struct dns_assoc *a)
{
    *a->link = a->next;
    if (a->next != NULL)
        a->next->link = a->link;
    wheel_cancel(a->s->wheel, &a->timer);
    up_udp_close(a->up);
    dns_plan_unref(a->plan);
    free(a);
}

void datagrams_close(struct dns_service *s)
{
    while (s->assocs != NULL) /* no try is left */
        assoc_free(s->assocs);
    while (s->assocs_alone != NULL)
        assoc_free(s->assocs_alone);
}

void datagram_leave(struct dns_try *t)
{
    struct dns_assoc *a = t->assoc;
    struct dns_try **at;
    uint64_t now_us;

    if (a == NULL)
        return;
    at = &a->tries;
    while (*at != t)
        at = &(*at)->assoc_next;
    *at = t->assoc_next;
    t->assoc = NULL;
    t->assoc_next = NULL;
    a->late[a->left++ % LATE_MAX] = t->id;
    if (--a->n > 0)
        return;
    now_us = loop_now_us(a->s->loop);
    a->unheard_us = 0;
    a->idle_us = a->alone || a->leaving ? now_us : now_us + IDLE_US;
    wheel_set(a->s->wheel, &a->timer, a->idle_us); /* not from here: it may be the association that called */
}

static void on_timer(struct wheel_timer *timer, uint64_t now_us)
{
    struct dns_assoc *a = CONTAINER_OF(timer, struct dns_assoc, timer);

    if (a->n == 0 && now_us >= a->idle_us)
        assoc_free(a);
    else if (a->n == 0)
        wheel_set(a->s->wheel, timer, a->idle_us);
}

/* ---- out ---- */

void datagram_send(struct dns_try *t)
{
    struct dns_assoc *a = t->assoc;

    if (a == NULL || !a->open)
        return; /* on_open sends it */
    DCOUNT(a->s, sent);
    if (a->unheard_us == 0)
        a->unheard_us = loop_now_us(a->s->loop);
    up_udp_send(a->up, &t->server->at, t->query + 2, t->query_len - 2, 0, 0, 0); /* a loss is repeated */
}

static void on_open(void *arg)
{
    struct dns_assoc *a = arg;

    a->open = true;
    for (struct dns_try *t = a->tries; t != NULL; t = t->assoc_next) {
        if (!t->job->done)
            datagram_send(t);
    }
}

/* ---- in ---- */

static bool is_from(const struct dns_try *t, const struct ip_port *source)
{
    const struct ip_port server = { t->server->at.addr, t->server->at.port };

    return ip_is_none(&source->addr) || ip_port_equal(source, &server);
}

static struct dns_try *try_of(const struct dns_assoc *a, const struct up_datagram *d)
{
    struct dns_try *t = d->len >= DNS_HEADER_LEN ? a->tries : NULL;

    while (t != NULL && (t->id != get_be16(d->data) || t->state != TRY_UDP || !is_from(t, &d->source)))
        t = t->assoc_next;
    return t;
}

/* An answer to what it carried a moment ago is no stranger. */
static bool is_late(const struct dns_assoc *a, const struct up_datagram *d)
{
    unsigned n = d->len < DNS_HEADER_LEN ? 0 : a->left < LATE_MAX ? a->left : LATE_MAX;

    while (n > 0 && a->late[n - 1] != get_be16(d->data))
        n--;
    return n > 0;
}

static void on_datagrams(void *arg, const struct up_datagram *d, size_t n)
{
    struct dns_assoc *a = arg;

    for (size_t i = 0; i < n; i++) {
        struct dns_try *t = try_of(a, &d[i]);

        if (t != NULL) {
            a->unheard_us = 0;
            try_message(t, d[i].data, d[i].len);
        } else {
            DCOUNT(a->s, ignored);
            if (!a->alone && !is_late(a, &d[i]) && ++a->strangers >= STRANGERS_MAX)
                a->leaving = true;
        }
    }
}

/* An unreachable name server; the next one, at once. */
static void on_error(void *arg, const struct ip_port *target, const struct ip_addr *offender, int type,
                     int code, uint32_t mtu)
{
    struct dns_assoc *a = arg;
    struct dns_try *next;

    (void)offender;
    (void)type;
    (void)code;
    for (struct dns_try *t = mtu == 0 ? a->tries : NULL; t != NULL; t = next) {
        const struct ip_port server = { t->server->at.addr, t->server->at.port };

        next = t->assoc_next;
        if (t->state == TRY_UDP && ip_port_equal(target, &server))
            try_failed(t);
    }
}

/* Questions that it had taken are asked once more; without UDP they go over TCP. */
static void on_closed(void *arg, const struct up_failure *why)
{
    struct dns_assoc *a = arg;
    struct dns_try *t = a->tries, *next;
    bool was_open = a->open, group = upstream_kind(a->way) == UPSTREAM_GROUP;
    int err = why->err;

    for (struct dns_try *at = t; at != NULL; at = at->assoc_next)
        at->assoc = NULL;
    a->up = NULL;
    a->tries = NULL;
    assoc_free(a);
    for (; t != NULL; t = next) {
        struct dns_service *s = t->job->s;

        next = t->assoc_next;
        t->assoc_next = NULL;
        if (t->state != TRY_UDP || t->job->done)
            continue;
        if (err == -EOPNOTSUPP && !(was_open && group)) { /* of a group another member may have it */
            try_over_stream(t);
        } else if (!was_open || t->repeated || datagram_ask(t) != 0) {
            try_failed(t);
        } else {
            t->repeated = true;
            DCOUNT(s, repeated);
        }
    }
}

static const struct up_udp_events events = { on_open, on_datagrams, on_error, on_closed };

/* ---- questions ---- */

static bool may_carry(struct dns_assoc *a, const struct upstream *way)
{
    uint64_t now_us = loop_now_us(a->s->loop);

    if (a->way != way || a->leaving || a->n >= SHARED_MAX)
        return false;
    if (now_us - a->born_us >= LIFE_US || (a->unheard_us != 0 && now_us - a->unheard_us >= SILENT_US) ||
        upstream_kind(up_udp_way(a->up)) ==
            UPSTREAM_DIRECT || /* a group went on to it while this one opened */
        (a->open && !up_udp_may_take(a->s->env, a->way, up_udp_way(a->up))))
        a->leaving = true;
    return !a->leaving;
}

/* Return: 0, -ENOMEM, or as up_udp_open() */
static int assoc_new(const struct dns_try *t, struct upstream *way, struct dns_assoc **out)
{
    struct dns_service *s = t->job->s;
    struct dns_assoc *a = calloc(1, sizeof(*a)), **list;
    int r;

    if (a == NULL)
        return -ENOMEM;
    r = up_udp_open(s->env, way, OPEN_US, &events, a, &a->up);
    if (r != 0) {
        free(a);
        return r;
    }
    a->s = s;
    a->plan = dns_plan_ref(t->job->plan);
    a->way = way;
    a->alone = upstream_kind(up_udp_way(a->up)) == UPSTREAM_DIRECT;
    a->born_us = loop_now_us(s->loop);
    a->timer.fn = on_timer;
    list = a->alone ? &s->assocs_alone : &s->assocs;
    a->next = *list;
    a->link = list;
    if (a->next != NULL)
        a->next->link = &a->next;
    *list = a;
    *out = a;
    return 0;
}

/* Ids are random; two questions of one association must not share one. */
static int own_id(const struct dns_assoc *a, struct dns_try *t)
{
    for (const struct dns_try *other = a->tries; other != NULL;) {
        int r;

        if (other->id != t->id) {
            other = other->assoc_next;
            continue;
        }
        if ((r = random_bytes(&t->id, sizeof(t->id))) != 0)
            return r;
        put_be16(t->query + 2, t->id);
        other = a->tries;
    }
    return 0;
}

int datagram_ask(struct dns_try *t)
{
    struct upstream *way = t->job->plan->targets[t->server->target];
    struct dns_assoc *a = upstream_kind(way) == UPSTREAM_DIRECT ? NULL : t->job->s->assocs;
    int r;

    while (a != NULL && !may_carry(a, way))
        a = a->next;
    if (a == NULL && (r = assoc_new(t, way, &a)) != 0)
        return r;
    if ((r = own_id(a, t)) != 0)
        return r;
    t->assoc = a;
    t->assoc_next = a->tries;
    a->tries = t;
    a->n++;
    datagram_send(t);
    return 0;
}
