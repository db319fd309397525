/* udp_wait.c - targets of a mapping whose rules need to know more: their datagrams wait until it is there, then the rules decide and
 * what was held goes out as if it had just come.
 *
 * What is waited for
 *   A name (config.md sniffer; RFC 9000 section 17.2.2). Only a target comes here whose rules say that a name may change the verdict,
 *   that has none by its address, and whose port stands in `sniffer.quic`. Mostly the first datagram tells it. A ClientHello with a
 *   post-quantum key share goes on in the next one or two: so the wait ends with the name, or when there is none, or HELD_MAX
 *   datagrams wait, or `sniffer.timeout` is over. The decision is kept with the mapping: a client that talks to several targets
 *   in turn from one port does not lose a name that only the first datagrams told.
 *   The addresses of a fake address's name. Those that the rules let go their way are kept with its association (udp_flow_pin()).
 *   Who has the client's port: for a mapping that began with questions that are answered here, and so had no need to know.
 *
 * What always holds. Nothing goes out undecided for want of room: what cannot wait is lost, and counted. So no client gets round a rule by
 * filling the table, and the client's next datagram tries again. */
#include "forward_impl.h"
#include "sniff.h"

/* Of a worker: all of them together hold no more than half of what may be held. */
#define WAITS_MAX 128
/* Of one client, so that it does not have all of them: what cannot wait is lost. */
#define WAITS_EACH (WAITS_MAX / 2)
/* And one that no target gets: to look at a mapping's first datagram. */
#define SCRATCH_WAITS 1
/* Targets of one mapping whose decision is kept; then the one not used for longest goes. One client has half of a worker's. */
#define LOOKS_MAX 128

struct udp_wait { /* what a look needs only while it waits */
    struct udp_look *look;
    enum udp_decision lacks;
    struct wheel_timer timer; /* of a name */
    struct held_list held;
    struct name_ask name; /* its addresses */
    struct quic_hello hello;
};

int udp_waits_init(struct forward *f)
{
    int r = slab_init(&f->looks, sizeof(struct udp_look), f->opt.max_udp * 2);

    return r != 0 ? r : slab_init(&f->waits, sizeof(struct udp_wait), WAITS_MAX + SCRATCH_WAITS);
}

static struct udp_wait *wait_new(struct udp_flow *u)
{
    struct forward *f = u->f;
    bool room = f->waits.in_use < WAITS_MAX && u->source->waits < WAITS_EACH;
    struct udp_wait *w = room ? slab_get(&f->waits) : NULL;

    if (w)
        u->source->waits++;
    return w;
}

static void wait_put(struct udp_flow *u, struct udp_wait *w)
{
    u->source->waits--;
    slab_put(&u->f->waits, w);
}

static void look_put(struct udp_look *look)
{
    look->flow->source->looks--;
    slab_put(&look->flow->f->looks, look);
}

static void look_free(struct udp_look *look)
{
    struct forward *f = look->flow->f;
    struct udp_wait *w = look->wait;

    if (w) {
        wheel_cancel(f->wheel, &w->timer);
        name_ask_cancel(f, &w->name);
        held_drop(f, &w->held);
        wait_put(look->flow, w);
    }
    look_put(look);
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
    w = slab_get(&f->waits); /* there is one: SCRATCH_WAITS */
    found = quic_hello_add(&w->hello, first_of(d), name);
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

static void unlink_look(struct udp_look *look)
{
    struct udp_look **at = &look->flow->looks;

    while (*at != look)
        at = &(*at)->next;
    *at = look->next;
}

/* What waited goes on, in its order; its target has a way now. */
static void pass_held(struct udp_flow *u, struct udp_wait *w)
{
    struct forward *f = u->f;
    struct held *h;

    while ((h = held_take(&w->held)) != NULL) {
        struct iovec data = { h->data, h->len };

        udp_flow_pass(u, &(struct udp_datagram){ u->client, h->target, &data, 1, h->len, 0, h->ttl, h->tos });
        slab_put(&f->held, h);
    }
    wait_put(u, w);
}

static void settle(struct udp_look *look, const char *sniffed);

static void on_timer(struct wheel_timer *t, uint64_t now_us)
{
    (void)now_us;
    settle(CONTAINER_OF(t, struct udp_wait, timer)->look, NULL);
}

static void on_name(struct name_ask *a)
{
    settle(CONTAINER_OF(a, struct udp_wait, name)->look, NULL);
}

static bool ask_owner(struct udp_flow *u, const struct ip_port *target)
{
    struct flow_key key = { u->client.addr, target->addr, u->client.port, target->port, IP_PROTO_UDP, { 0 } };

    return u->owner || owner_ask(u->ways, &u->owner, &key, NULL, OWNER_NEEDS, u);
}

/* Asks for what the verdict @v lacks. Return: false: it cannot be had, for want of room */
static bool ask(struct udp_look *look, enum udp_decision lacks, const struct udp_verdict *v)
{
    struct udp_wait *w = look->wait;
    struct forward *f = look->flow->f;

    w->lacks = lacks;
    switch (lacks) {
    case UDP_WANTS_NAME:
        wheel_set(f->wheel, &w->timer, loop_now_us(f->loop) + (uint64_t)f->opt.sniff.timeout_ms * 1000);
        break;
    case UDP_WANTS_ADDRESS: /* an answer that is there at once is used when the datagram is held */
        (void)name_ask(f, &w->name, v->name.known == NAME_FAKE ? v->name.text : NULL, on_name);
        break;
    case UDP_WANTS_OWNER:
        return ask_owner(look->flow, &look->target);
    case UDP_DECIDED:
    case UDP_NOBODY:
        break;
    }
    return true;
}

/* Has come what this one waits for? What a datagram may tell is its own affair. */
static bool is_there(const struct udp_wait *w)
{
    const struct owner *owner = w->look->flow->owner;

    return (w->lacks == UDP_WANTS_ADDRESS && !w->name.resolving) ||
           (w->lacks == UDP_WANTS_OWNER && owner && !owner->waiting);
}

/* They may tell the name already. */
static void look_at_held(struct udp_look *look)
{
    struct udp_wait *w = look->wait;
    enum sniffed found = SNIFF_MORE;
    char name[256];

    for (struct held *h = w->held.first; h && found == SNIFF_MORE; h = h->next)
        found = quic_hello_add(&w->hello, (struct span){ h->data, h->len }, name);
    if (found != SNIFF_MORE)
        settle(look, found == SNIFF_NAME ? name : NULL);
}

/* The rules are asked again, with what is known now; a look that has come to an end without a way to keep is gone. */
static void settle(struct udp_look *look, const char *sniffed)
{
    struct udp_flow *u = look->flow;
    struct forward *f = u->f;
    struct udp_wait *w = look->wait;
    struct udp_case c = { .ways = u->ways,
                          .client = &u->client,
                          .target = &look->target,
                          .owner = u->owner,
                          .name = &w->name,
                          .sniffed = sniffed,
                          .looked = w->lacks == UDP_WANTS_NAME };
    struct udp_verdict v;
    enum udp_decision decision = udp_decide(f, &c, &v);

    wheel_cancel(f->wheel, &w->timer);
    if (sniffed)
        FCOUNT(f, sniffed);
    if (decision == UDP_DECIDED && v.name.known != NAME_FAKE) {
        look->wait = NULL;
        look->way = (uint16_t)v.rule.target;
    } else if (decision == UDP_DECIDED && udp_flow_pin(u, &look->target, &v, &w->name)) {
        unlink_look(look);
        look_put(look);
    } else if (decision != UDP_DECIDED && decision != UDP_NOBODY && ask(look, decision, &v)) {
        if (is_there(w))
            settle(look, NULL);
        else if (decision == UDP_WANTS_NAME)
            look_at_held(look);
        return;
    } else { /* what waited is lost; the next datagram asks anew */
        counter_add(&f->cnt.undecided, w->held.count);
        unlink_look(look);
        look_free(look);
        return;
    }
    if (u->rule == RULE_IMPLICIT)
        u->rule = v.rule.rule;
    pass_held(u, w);
}

void udp_looks_on_owner(struct udp_flow *u)
{
    struct udp_look *look;

    do { /* each settling may change the list */
        for (look = u->looks; look && !(look->wait && look->wait->lacks == UDP_WANTS_OWNER);)
            look = look->next;
        if (look)
            settle(look, NULL);
    } while (look);
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

/* At a limit the one that was not used for longest goes. Return: false: all of the mapping's wait, or it has none. */
static bool make_room(struct udp_flow *u)
{
    struct udp_look **oldest = NULL, *gone;
    size_t n = 0;

    for (struct udp_look **at = &u->looks; *at; at = &(*at)->next) {
        n++;
        if (!(*at)->wait)
            oldest = at;
    }
    if (n < LOOKS_MAX && u->source->looks < u->f->opt.max_udp)
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
    u->source->looks++;
    return look;
}

struct udp_look *udp_look_start(struct udp_flow *u, const struct ip_port *target, enum udp_decision lacks,
                                const struct udp_verdict *v)
{
    struct udp_wait *w = wait_new(u);
    struct udp_look *look = w ? udp_look_keep(u, target, 0) : NULL;

    if (!look) {
        if (w)
            wait_put(u, w);
        return NULL;
    }
    look->wait = w;
    w->look = look;
    w->timer.fn = on_timer;
    if (ask(look, lacks, v))
        return look;
    unlink_look(look);
    look_free(look);
    return NULL;
}

static void pass_one(struct udp_flow *u, const struct udp_datagram *d, const struct iovec *one)
{
    udp_flow_pass(u, &(struct udp_datagram){ d->client, d->target, one, 1, one->iov_len, 0, d->ttl, d->tos });
}

/* A datagram is looked at first: what tells the name need not wait, however long it is. */
static void take_one(struct udp_look *look, const struct udp_datagram *d, const struct iovec *one)
{
    struct udp_flow *u = look->flow;
    struct udp_wait *w = look->wait;
    enum sniffed found = SNIFF_MORE;
    char name[256];

    if (w && w->lacks == UDP_WANTS_NAME)
        found = quic_hello_add(&w->hello, (struct span){ one->iov_base, one->iov_len }, name);
    if (found == SNIFF_MORE && w) {
        if (!held_add(u->f, &w->held, d, one))
            FCOUNT(u->f, undecided);
        if (is_there(w) || (w->lacks == UDP_WANTS_NAME && w->held.count == HELD_MAX))
            settle(look, NULL);
        return;
    }
    if (w)
        settle(look, found == SNIFF_NAME ? name : NULL);
    pass_one(u, d, one);
}

void udp_look_take(struct udp_look *look, const struct udp_datagram *d)
{
    const struct ip_port target = look->target;
    struct udp_flow *u = look->flow;
    struct udp_walk w = { .row = d };
    struct iovec one;

    while (udp_walk_next(&w, &one)) {
        if (look)
            take_one(look, d, &one);
        else
            pass_one(u, d, &one);
        look = udp_look_find(u, &target); /* it may be gone */
    }
}
