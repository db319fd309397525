/* echo_name.c - pings to fake addresses (icmp.md M18): the name behind one is looked up, and its real address of the same family is
 * what is pinged.
 *
 * How it works. A place holds one fake address with what its name was found to be, for a minute; failures for five seconds. The
 * first ping to it makes the question, and it and those that come meanwhile are copied and wait; when the answer is there
 * the policy sees them again, as if they came now. The place's number goes with the request to the echo proxy, as the responder, so
 * that an answer finds the fake address again; flows of a tunnel remember both addresses themselves.
 *
 * What always holds. No real address reaches a client that asked for a fake one: not as a source, not in a quote. A name without an
 * address of the family is told as no route to it, and never answered by us. */
#include "forward_impl.h"

#include <stdlib.h>

#define KNOWN_FOR_US   UINT64_C(60000000)
#define MISSING_FOR_US UINT64_C(5000000)

enum { PLACES = 256, PROBES = 8, HELD_EACH = 8, HELD_PACKET = 2048, HELD_ALL = 256 };

struct held_ping {
    void *free_link;
    struct held_ping *next;
    struct echo_req req; /* a copy: it carries no right to answer */
    uint8_t packet[HELD_PACKET];
};

enum place_state { PLACE_FREE, PLACE_ASKED, PLACE_KNOWN, PLACE_MISSING };

struct place {
    struct forward *f;
    struct ip_addr fake, real;
    enum place_state state;
    uint32_t generation; /* how often it was given to another address */
    uint64_t until_us;
    struct up_resolve *query;
    bool asking; /* inside up_resolve_name() */
    unsigned count;
    struct held_ping *first, *last;
    char name[256];
};

struct echo_names {
    struct slab held;
    struct place places[PLACES];
};

static struct echo_names *names_of(struct forward *f)
{
    if (f->echo_names)
        return f->echo_names;
    f->echo_names = calloc(1, sizeof(*f->echo_names)); /* at the first ping to a fake address */
    if (f->echo_names && slab_init(&f->echo_names->held, sizeof(struct held_ping), HELD_ALL) != 0) {
        free(f->echo_names);
        f->echo_names = NULL;
    }
    return f->echo_names;
}

/* ---- places ---- */

/* The place of @fake, or one that it may take: the one of eight that is over first. NULL: all wait for answers. */
static struct place *place_for(struct echo_names *n, const struct forward *f, const struct ip_addr *fake)
{
    uint64_t at = hash_bytes(&f->source_key, fake->b, sizeof(fake->b));
    struct place *best = NULL;

    for (unsigned i = 0; i < PROBES; i++) {
        struct place *p = &n->places[(at + i) % PLACES];

        if (p->state != PLACE_FREE && ip_equal(&p->fake, fake))
            return p;
        if (p->state != PLACE_ASKED && (!best || p->until_us < best->until_us))
            best = p;
    }
    return best;
}

static void settle(struct place *p, int err, const struct ip_addr *addrs, size_t n)
{
    uint64_t now_us = loop_now_us(p->f->loop);

    p->query = NULL;
    p->state = PLACE_MISSING;
    p->until_us = now_us + MISSING_FOR_US;
    for (size_t i = 0; err == 0 && i < n; i++) {
        if (ip_is4(&addrs[i]) != ip_is4(&p->fake))
            continue;
        p->real = addrs[i];
        p->state = PLACE_KNOWN;
        p->until_us = now_us + KNOWN_FOR_US;
        return;
    }
}

/* All that waited is taken first: the address may stand for another name by now, and then they wait again, for that one's answer. */
static void release(struct place *p)
{
    struct forward *f = p->f;
    struct held_ping *h = p->first, *next;

    p->first = p->last = NULL;
    p->count = 0;
    for (; h; h = next) {
        next = h->next;
        (void)echo_policy_on_echo(f, &h->req);
        slab_put(&f->echo_names->held, h);
    }
}

static void on_resolved(void *arg, int err, const struct ip_addr *addrs, size_t n)
{
    struct place *p = arg;

    settle(p, err, addrs, n);
    if (!p->asking)
        release(p);
}

static void ask(struct place *p)
{
    int r;

    p->state = PLACE_ASKED;
    p->asking = true;
    r = up_resolve_name(p->f->env, p->name, on_resolved, p, &p->query);
    p->asking = false;
    if (r != 0)
        settle(p, r, NULL, 0);
}

static void take_place(struct place *p, struct forward *f, const struct ip_addr *fake, const char *name)
{
    p->f = f;
    p->fake = *fake;
    p->real = (struct ip_addr){ 0 };
    p->generation++;
    strcpy(p->name, name);
    ask(p);
}

/* ---- for the policy ---- */

enum echo_named echo_name_find(struct forward *f, const struct ip_addr *fake, const char *name,
                               struct echo_alias *out)
{
    struct echo_names *n = names_of(f);
    struct place *p = n ? place_for(n, f, fake) : NULL;

    if (!p)
        return ECHO_NAME_BUSY;
    if (p->state == PLACE_FREE || !ip_equal(&p->fake, fake) || strcmp(p->name, name) != 0 ||
        (p->state != PLACE_ASKED && p->until_us <= loop_now_us(f->loop))) {
        if (p->state == PLACE_ASKED) /* the address has got another name meanwhile */
            return ECHO_NAME_BUSY;
        take_place(p, f, fake, name);
    }
    out->real = p->real;
    out->place = (uint64_t)p->generation << 32 | (uint64_t)(p - n->places + 1);
    switch (p->state) {
    case PLACE_KNOWN:
        return ECHO_NAME_KNOWN;
    case PLACE_MISSING:
        return ECHO_NAME_MISSING;
    case PLACE_ASKED:
    case PLACE_FREE:
        break;
    }
    return ECHO_NAME_ASKED;
}

bool echo_name_hold(struct forward *f, const struct echo_req *r)
{
    struct place *p = place_for(f->echo_names, f, &r->dst);
    size_t before = (size_t)(r->payload - r->ip_header), len = before + r->payload_len;
    struct held_ping *h;

    if (!p || p->state != PLACE_ASKED || p->count >= HELD_EACH || len > HELD_PACKET)
        return false;
    h = slab_get(&f->echo_names->held);
    if (!h)
        return false;
    h->next = NULL;
    h->req = *r;
    h->req.flags |= ECHO_WAS_HELD;
    memcpy(h->packet, r->ip_header, len);
    h->req.ip_header = h->packet;
    h->req.payload = h->packet + before;
    if (p->first)
        p->last->next = h;
    else
        p->first = h;
    p->last = h;
    p->count++;
    return true;
}

const struct ip_addr *echo_name_shown(struct forward *f, uint64_t place)
{
    uint32_t slot = (uint32_t)place - 1;
    struct place *p = f->echo_names && slot < PLACES ? &f->echo_names->places[slot] : NULL;

    return p && p->generation == place >> 32 ? &p->fake : NULL;
}

void echo_names_free(struct forward *f)
{
    struct echo_names *n = f->echo_names;

    if (!n)
        return;
    for (size_t i = 0; i < PLACES; i++) {
        if (n->places[i].query)
            up_resolve_cancel(f->env, n->places[i].query);
    }
    slab_fini(&n->held);
    free(n);
    f->echo_names = NULL;
}
