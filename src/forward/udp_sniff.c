/* udp_sniff.c - targets of a mapping whose rules need a name: their first datagrams wait until QUIC's Initial packets tell it.
 *
 * How it works (config.md sniffer; RFC 9000 section 17.2.2)
 *   Only a target comes here whose rules say that a name may change the verdict, that has none by its address, and whose port
 *   stands in `sniffer.quic`; nothing else pays for it. Mostly the first datagram tells the name. A ClientHello with a
 *   post-quantum key share goes on in the next one or two: so what the client sends to this target is held, in order, until the
 *   name is there, or there is none, or HELD_MAX datagrams wait, or `sniffer.timeout` is over. Then the rules decide, and what
 *   was held goes out as if it had just come. The decision is kept with the mapping: a client that talks to several targets in
 *   turn from one port does not lose a name that only the first datagrams told. */
#include "forward_impl.h"
#include "sniff.h"

/* Of a worker: all of them together hold no more than half of what may be held. */
#define WAITS_MAX 128
/* Targets of one mapping whose decision is kept; then the one not used for longest goes. */
#define LOOKS_MAX 128

struct udp_wait { /* what a look needs only while it waits */
    struct udp_look *look;
    struct wheel_timer timer;
    struct held_list held;
    struct quic_hello hello;
};

int udp_sniff_init(struct forward *f)
{
    int r = slab_init(&f->looks, sizeof(struct udp_look), f->opt.max_udp);

    return r != 0 ? r : slab_init(&f->waits, sizeof(struct udp_wait), WAITS_MAX);
}

static void wait_free(struct forward *f, struct udp_wait *w)
{
    if (!w)
        return;
    wheel_cancel(f->wheel, &w->timer);
    held_drop(f, &w->held);
    slab_put(&f->waits, w);
}

static void look_free(struct udp_look *look)
{
    struct forward *f = look->flow->f;

    wait_free(f, look->wait);
    slab_put(&f->looks, look);
}

bool udp_looks_wait(const struct udp_flow *u)
{
    const struct udp_look *look = u->looks;

    while (look && !look->wait)
        look = look->next;
    return look != NULL;
}

void udp_looks_free(struct udp_flow *u)
{
    while (u->looks) {
        struct udp_look *look = u->looks;

        u->looks = look->next;
        look_free(look);
    }
}

/* ---- the first datagram of a mapping -------------------------------------------------------------------------------- */

/* A row's first datagram. */
static struct span first_of(const struct udp_datagram *d)
{
    struct udp_walk w = { .row = d };
    struct iovec one = { NULL, 0 };

    udp_walk_next(&w, &one);
    return (struct span){ one.iov_base, one.iov_len };
}

enum udp_decision udp_decide_first(struct forward *f, struct udp_case *c, const struct udp_datagram *d,
                                   struct udp_verdict *out)
{
    enum udp_decision decision = udp_decide(f, c, out);
    struct udp_wait *w;
    enum sniffed found;
    char name[256];

    if (decision != UDP_WANTS_NAME)
        return decision;
    w = slab_get(&f->waits);
    found = w ? quic_hello_add(&w->hello, first_of(d), name) : SNIFF_NONE;
    slab_put(&f->waits, w);
    if (found == SNIFF_MORE)
        return UDP_WANTS_NAME;
    c->looked = true;
    if (found == SNIFF_NAME) {
        FCOUNT(f, sniffed);
        c->sniffed = name;
    }
    decision = udp_decide(f, c, out);
    c->sniffed = NULL; /* the name is gone with this function */
    return decision;
}

/* ---- a target of an open mapping -------------------------------------------------------------------------------------- */

/* The rules decide with what is known, and what waited goes on in its order. */
static void settle(struct udp_look *look, const char *name)
{
    struct udp_flow *u = look->flow;
    struct forward *f = u->f;
    struct udp_case c = { u->ways, &u->client, &look->target, u->owner, name, true };
    struct udp_wait *w = look->wait;
    struct udp_verdict v;
    struct held *h;

    if (name)
        FCOUNT(f, sniffed);
    look->wait = NULL;
    wheel_cancel(f->wheel, &w->timer);
    if (udp_decide(f, &c, &v) == UDP_NOBODY || v.name.known == NAME_FAKE) {
        if (v.name.known == NAME_FAKE) /* a reload has made it one meanwhile: the next datagram asks anew */
            flow_name_release(f, &look->target.addr);
        look->target = (struct ip_port){ .port = 0 };
        wait_free(f, w);
        return;
    }
    look->way = (uint16_t)v.rule.target;
    if (u->rule == RULE_IMPLICIT)
        u->rule = v.rule.rule;
    while ((h = held_take(&w->held)) != NULL) {
        struct iovec data = { h->data, h->len };

        udp_flow_pass(u, &(struct udp_datagram){ u->client, h->target, &data, 1, h->len, 0, h->ttl, h->tos });
        slab_put(&f->held, h);
    }
    slab_put(&f->waits, w);
}

static void on_timer(struct wheel_timer *t, uint64_t now_us)
{
    (void)now_us;
    settle(CONTAINER_OF(t, struct udp_wait, timer)->look, NULL);
}

struct udp_look *udp_look_find(struct udp_flow *u, const struct ip_port *target)
{
    for (struct udp_look **at = &u->looks, *look; (look = *at) != NULL; at = &look->next) {
        if (!ip_port_equal(&look->target, target))
            continue;
        *at = look->next;
        look->next = u->looks;
        u->looks = look;
        return look;
    }
    return NULL;
}

/* The one behind the limit that was not used for longest. Return: false: all of them wait. */
static bool make_room(struct udp_flow *u)
{
    struct udp_look **oldest = NULL, *gone;
    size_t n = 0;

    for (struct udp_look **at = &u->looks; *at; at = &(*at)->next) {
        n++;
        if (!(*at)->wait)
            oldest = at;
    }
    if (n < LOOKS_MAX)
        return true;
    if (!oldest)
        return false;
    gone = *oldest;
    *oldest = gone->next;
    look_free(gone);
    return true;
}

struct udp_look *udp_look_keep(struct udp_flow *u, const struct ip_port *target, uint32_t way)
{
    struct udp_look *look = make_room(u) ? slab_get(&u->f->looks) : NULL;

    if (!look)
        return NULL;
    *look = (struct udp_look){ u->looks, u, NULL, *target, (uint16_t)way };
    u->looks = look;
    return look;
}

struct udp_look *udp_look_start(struct udp_flow *u, const struct ip_port *target)
{
    struct forward *f = u->f;
    struct udp_wait *w = slab_get(&f->waits);
    struct udp_look *look = w ? udp_look_keep(u, target, 0) : NULL;

    if (!look) {
        slab_put(&f->waits, w);
        return NULL;
    }
    look->wait = w;
    w->look = look;
    w->timer.fn = on_timer;
    wheel_set(f->wheel, &w->timer, loop_now_us(f->loop) + (uint64_t)f->opt.sniff.timeout_ms * 1000);
    return look;
}

static void take_one(struct udp_look *look, const struct udp_datagram *d, const struct iovec *one)
{
    struct udp_wait *w = look->wait;
    char name[256];

    if (w && held_add(look->flow->f, &w->held, d, one)) {
        enum sniffed found = quic_hello_add(&w->hello, (struct span){ one->iov_base, one->iov_len }, name);

        if (found == SNIFF_NAME)
            settle(look, name);
        else if (found == SNIFF_NONE || w->held.count == HELD_MAX)
            settle(look, NULL);
        return;
    }
    if (w) /* too long to be held, or no memory for it: nothing is lost for a name */
        settle(look, NULL);
    udp_flow_pass(look->flow,
                  &(struct udp_datagram){ d->client, d->target, one, 1, one->iov_len, 0, d->ttl, d->tos });
}

void udp_look_take(struct udp_look *look, const struct udp_datagram *d)
{
    struct udp_walk w = { .row = d };
    struct iovec one;

    while (udp_walk_next(&w, &one))
        take_one(look, d, &one);
}
