/* iface.c - the stack's one interface: addresses, on-link prefixes, prefixes that are local as a whole, and
 * the switches.
 *
 * How it works: everything is an entry (address, length) in one hash table, an address being an entry of full
 * length. A packet asks three things: is its source a broadcast address, is its destination one of ours, does
 * a local prefix hold it. Each is one look for every *length* that is in use, not for every address, so a
 * packet costs the same with none and with a million of them (icmp.md M1, M3). A packet for an address that
 * is not here makes nothing (M2).
 *
 * What always holds
 * - an entry is in the table while it is an address, or some address's on-link prefix, or a local prefix;
 * - addresses of a family are on a list in the order they were added: the first is the gateway address;
 * - while an echo handler runs nothing here changes (icmp.md W7). */
#include "ip_impl.h"

#define FULL_LEN       128
#define V4_LEN         96  /* lengths are counted in the 16-byte form */
#define V4_LAST_ONLINK 126 /* /31 and /32 have no broadcast address (RFC 3021) */

struct iface_entry {
    struct iface_entry *chain;
    struct ip_addr net;
    uint8_t len;
    bool assigned, privacy;                 /* an address */
    bool local;                             /* a local prefix, and how echo to it is answered */
    uint8_t local_echo;                     /* enum local_echo */
    uint8_t onlink_len;                     /* of an address; 0: none */
    struct iface_entry *next, *prev;        /* addresses of the family */
    struct iface_entry *mates, *mates_prev; /* addresses of one on-link prefix */
    struct iface_entry *members;            /* of an on-link prefix: its addresses, the oldest first */
};

/* ---- the table ----------------------------------------------------------------------------------------- */

static struct ip_addr masked(const struct ip_addr *a, unsigned len)
{
    struct ip_addr out = *a;

    for (unsigned i = 0; i < 4; i++) {
        unsigned bits = len > i * 32 ? len - i * 32 : 0;
        uint8_t *b = out.b + i * 4;

        if (bits < 32)
            put_be32(b, bits == 0 ? 0 : get_be32(b) & UINT32_MAX << (32 - bits));
    }
    return out;
}

static struct iface_entry **place_of(struct iface *f, const struct ip_addr *net, unsigned len)
{
    uint8_t key[17];

    memcpy(key, net->b, 16);
    key[16] = (uint8_t)len;
    return &f->table[hash_bytes(&f->key, key, sizeof(key)) & (f->places - 1)];
}

/* The one look; `touches` counts memory that it reads, for the tests of M1. */
static struct iface_entry *find(struct iface *f, const struct ip_addr *a, unsigned len)
{
    struct ip_addr net = masked(a, len);
    struct iface_entry *e = *place_of(f, &net, len);

    f->touches++;
    for (; e != NULL; e = e->chain) {
        f->touches++;
        if (e->len == len && ip_equal(&e->net, &net))
            return e;
    }
    return NULL;
}

static struct iface_entry *find_or_add(struct iface *f, const struct ip_addr *a, unsigned len)
{
    struct iface_entry *e = find(f, a, len), **at;

    if (e != NULL)
        return e;
    e = pool_get(&f->entries);
    if (e == NULL)
        return NULL;
    *e = (struct iface_entry){ .net = masked(a, len), .len = (uint8_t)len };
    at = place_of(f, &e->net, len);
    e->chain = *at;
    *at = e;
    return e;
}

/* Gone when it is nothing any more. */
static void drop_if_idle(struct iface *f, struct iface_entry *e)
{
    struct iface_entry **at;

    if (e->assigned || e->local || e->members != NULL)
        return;
    at = place_of(f, &e->net, e->len);
    while (*at != e)
        at = &(*at)->chain;
    *at = e->chain;
    pool_put(&f->entries, e);
}

/* ---- lengths in use ------------------------------------------------------------------------------------ */

static void length_add(struct iface_lengths *l, unsigned len)
{
    if (l->count[len]++ == 0)
        l->used[len / 64] |= (uint64_t)1 << (len % 64);
}

static void length_remove(struct iface_lengths *l, unsigned len)
{
    if (--l->count[len] == 0)
        l->used[len / 64] &= ~((uint64_t)1 << (len % 64));
}

/* The longest length in use below @below, or -1. */
static int length_below(const struct iface_lengths *l, int below)
{
    for (int word = (below - 1) / 64; below > 0 && word >= 0; word--) {
        int bits = below - word * 64;
        uint64_t set = l->used[word] & (bits < 64 ? ((uint64_t)1 << bits) - 1 : UINT64_MAX);

        if (set != 0)
            return word * 64 + 63 - __builtin_clzll(set);
    }
    return -1;
}

/* Lengths below this are the other family's. */
static int shortest(const struct ip_addr *a)
{
    return ip_is4(a) ? V4_LEN : 0;
}

/* ---- what a packet asks -------------------------------------------------------------------------------- */

bool iface_is_assigned(struct iface *f, const struct ip_addr *a)
{
    const struct iface_entry *e = find(f, a, FULL_LEN);

    return e != NULL && e->assigned;
}

static bool host_part_is_uniform(const struct ip_addr *a, unsigned len)
{
    uint32_t host = UINT32_MAX >> (len - V4_LEN), v = get_be32(a->b + 12) & host;

    return v == host || v == 0;
}

/* The on-link prefix whose network or broadcast address this is. */
static const struct iface_entry *broadcast_of(struct iface *f, const struct ip_addr *a)
{
    for (int len = V4_LAST_ONLINK + 1; (len = length_below(&f->onlink, len)) > V4_LEN;) {
        const struct iface_entry *e;

        if (!host_part_is_uniform(a, (unsigned)len))
            continue;
        e = find(f, a, (unsigned)len);
        if (e != NULL && e->members != NULL)
            return e;
    }
    return NULL;
}

bool iface_is_broadcast(struct iface *f, const struct ip_addr *a)
{
    return ip_is4(a) && (get_be32(a->b + 12) == UINT32_MAX || broadcast_of(f, a) != NULL);
}

bool iface_is_local_prefix(struct iface *f, const struct ip_addr *a, enum local_echo *echo)
{
    for (int len = FULL_LEN + 1; (len = length_below(&f->local, len)) >= shortest(a);) {
        const struct iface_entry *e = find(f, a, (unsigned)len);

        if (e != NULL && e->local) {
            *echo = (enum local_echo)e->local_echo;
            return true;
        }
    }
    return false;
}

/* ---- what we send from --------------------------------------------------------------------------------- */

const struct ip_addr *iface_gateway(const struct iface *f, const struct ip_addr *like)
{
    const struct iface_entry *first = f->first[!ip_is4(like)], *e = first;

    while (e != NULL && e->privacy)
        e = e->next;
    e = e != NULL ? e : first;
    return e != NULL ? &e->net : NULL;
}

/* The address that shares the longest on-link prefix with @peer, else the gateway address. */
const struct ip_addr *iface_source_for(struct iface *f, const struct ip_addr *peer)
{
    for (int len = FULL_LEN; (len = length_below(&f->onlink, len)) >= shortest(peer);) {
        const struct iface_entry *e = find(f, peer, (unsigned)len);

        if (e != NULL && e->members != NULL)
            return &e->members->net;
    }
    return iface_gateway(f, peer);
}

/* ---- addresses ----------------------------------------------------------------------------------------- */

static bool is_locked(const struct stack *s)
{
    return echo_is_in_callback(s);
}

static void list_append(struct iface *f, struct iface_entry *e)
{
    bool v6 = !ip_is4(&e->net);

    e->next = NULL;
    e->prev = f->last[v6];
    *(e->prev != NULL ? &e->prev->next : &f->first[v6]) = e;
    f->last[v6] = e;
}

static void list_remove(struct iface *f, struct iface_entry *e)
{
    bool v6 = !ip_is4(&e->net);

    *(e->prev != NULL ? &e->prev->next : &f->first[v6]) = e->next;
    *(e->next != NULL ? &e->next->prev : &f->last[v6]) = e->prev;
}

static bool join_onlink(struct iface *f, struct iface_entry *e, unsigned len)
{
    struct iface_entry *prefix;

    if (len == 0 || len >= FULL_LEN)
        return true;
    prefix = find_or_add(f, &e->net, len);
    if (prefix == NULL)
        return false;
    e->onlink_len = (uint8_t)len;
    e->mates_prev = prefix->members; /* behind the first, which stays the one that we speak as */
    e->mates = prefix->members != NULL ? prefix->members->mates : NULL;
    *(e->mates_prev != NULL ? &e->mates_prev->mates : &prefix->members) = e;
    if (e->mates != NULL)
        e->mates->mates_prev = e;
    length_add(&f->onlink, len);
    return true;
}

static void leave_onlink(struct iface *f, struct iface_entry *e)
{
    struct iface_entry *prefix;

    if (e->onlink_len == 0)
        return;
    prefix = find(f, &e->net, e->onlink_len);
    *(e->mates_prev != NULL ? &e->mates_prev->mates : &prefix->members) = e->mates;
    if (e->mates != NULL)
        e->mates->mates_prev = e->mates_prev;
    length_remove(&f->onlink, e->onlink_len);
    drop_if_idle(f, prefix);
}

static int add_address(struct iface *f, const struct ip_addr *a, unsigned onlink_len, uint32_t flags)
{
    struct iface_entry *e = find_or_add(f, a, FULL_LEN);

    if (e == NULL)
        return -ENOBUFS;
    if (e->assigned)
        return -EEXIST;
    if (!join_onlink(f, e, onlink_len)) {
        drop_if_idle(f, e);
        return -ENOBUFS;
    }
    e->assigned = true;
    e->privacy = (flags & ADDRESS_PRIVACY) != 0;
    list_append(f, e);
    return 0;
}

int stack_add_address(struct stack *s, const struct ip_addr *a, uint8_t onlink_len, uint32_t flags)
{
    if (is_locked(s))
        return -EBUSY;
    if (ip_is_martian(a) || onlink_len > FULL_LEN || (onlink_len != 0 && onlink_len < shortest(a)))
        return -EINVAL;
    if (!stack_has_family(s, a))
        return -EAFNOSUPPORT;
    return add_address(&s->iface, a, onlink_len, flags);
}

int stack_remove_address(struct stack *s, const struct ip_addr *a)
{
    struct iface *f = &s->iface;
    struct iface_entry *e;

    if (is_locked(s))
        return -EBUSY;
    e = find(f, a, FULL_LEN);
    if (e == NULL || !e->assigned)
        return -ENOENT;
    leave_onlink(f, e);
    list_remove(f, e);
    e->assigned = false;
    e->onlink_len = 0;
    drop_if_idle(f, e);
    return 0;
}

/* ---- local prefixes ------------------------------------------------------------------------------------ */

int stack_add_local_prefix(struct stack *s, const struct ip_prefix *p, enum local_echo echo)
{
    struct iface_entry *e;

    if (is_locked(s))
        return -EBUSY;
    if (p->len > FULL_LEN || p->len < shortest(&p->addr))
        return -EINVAL;
    if (!stack_has_family(s, &p->addr))
        return -EAFNOSUPPORT;
    e = find_or_add(&s->iface, &p->addr, p->len);
    if (e == NULL)
        return -ENOBUFS;
    if (!e->local)
        length_add(&s->iface.local, p->len);
    e->local = true;
    e->local_echo = (uint8_t)echo;
    return 0;
}

int stack_remove_local_prefix(struct stack *s, const struct ip_prefix *p)
{
    struct iface_entry *e;

    if (is_locked(s))
        return -EBUSY;
    e = p->len <= FULL_LEN ? find(&s->iface, &p->addr, p->len) : NULL;
    if (e == NULL || !e->local)
        return -ENOENT;
    e->local = false;
    length_remove(&s->iface.local, p->len);
    drop_if_idle(&s->iface, e);
    return 0;
}

/* ---- switches ------------------------------------------------------------------------------------------ */

int stack_set_promiscuous(struct stack *s, bool on)
{
    if (is_locked(s))
        return -EBUSY;
    if (on && s->cfg.handle_local)
        return -EINVAL;
    s->cfg.promiscuous = on;
    return 0;
}

void stack_set_spoofing(struct stack *s, bool on)
{
    s->cfg.spoofing = on;
}

int stack_set_up(struct stack *s, bool up)
{
    if (is_locked(s))
        return -EBUSY;
    s->iface.down = !up;
    return 0;
}

/* ---- life ---------------------------------------------------------------------------------------------- */

static uint32_t entries_max(const struct stack_config *c)
{
    return 2 * c->max_addresses + c->max_local_prefixes; /* an address may bring an on-link prefix */
}

static uint32_t table_places(const struct stack_config *c)
{
    uint32_t places = 64;

    while (places < 2 * entries_max(c))
        places *= 2;
    return places;
}

size_t iface_memory_bytes(const struct stack_config *c)
{
    return CACHE_LINE + table_places(c) * sizeof(struct iface_entry *) +
           pool_region_bytes(sizeof(struct iface_entry), entries_max(c));
}

bool iface_init(struct stack *s, void *memory)
{
    struct iface *f = &s->iface;
    uint8_t *at = memory;

    f->key = s->cfg.secret;
    f->key.k1 ^= prng_next(&s->prng);
    f->places = table_places(&s->cfg);
    f->table = region_take(&at, f->places * sizeof(*f->table), CACHE_LINE);
    pool_init(s, &f->entries, "address", sizeof(struct iface_entry), entries_max(&s->cfg), &at);
    for (size_t i = 0; i < s->cfg.addresses; i++) {
        int r = add_address(f, &s->cfg.address[i], s->cfg.address_len[i], 0);

        if (r != 0 && r != -EEXIST)
            return false;
    }
    return true;
}
