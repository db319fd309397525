/* echo_tunnel.c - pings through a way out that carries them (icmp.md 5.1, 5.2, M13): a client's request into the tunnel, what comes
 * back to its client.
 *
 * How it works. Each flow (client, target, the client's id) has an id of its own inside the tunnel: 12 bits are its place in the
 * table, 4 count the flows that had this place, so a late answer to an older one finds nobody. It stays with the way out that it
 * took first, and moves when that one is no longer well or no longer the rule's: then it is given an id anew (T12, T16). A flow lives
 * for 10 s after its last request or answer; when the table is full the one that was idle longest makes way, if it was idle for
 * a second at least, and when one client has half of it the one of its own (as in the echo proxy, X12). We are one router: the hop limit goes down by one here, and one that ends here is told so.
 *
 * What always holds. A request that the tunnel does not take gets what `on-down` or `on-unsupported` says, never a reply of
 * our own making because something failed, and never another way out (T11, M17). Only what the far end sends is an answer. */
#include "forward_impl.h"

#include <stdlib.h>

#define FLOW_IDLE_US  (10 * 1000000ull)
#define FLOW_EVICT_US (1 * 1000000ull)

enum { FLOWS_MAX = 4096, BUCKETS = 1024, CLIENTS = 1024 };

struct tunnel_flow {
    struct tunnel_flow *next_hash;
    struct tunnel_flow *newer, *older; /* by last use */
    struct upstream *by, *up;          /* the rule's target, and the way itself; a reference to each */
    struct flow_key key;               /* client_port is the client's id */
    struct ip_addr to;                 /* whom it pings: key.target, unless that is a fake address */
    uint64_t used_us, sent_us;
    uint16_t seq; /* that was sent last */
    uint16_t id;
    uint16_t client; /* whose it is: a place in `of_client` */
    uint8_t turn;    /* 0 to 15: how often this place was given */
    bool live;
};

struct echo_tunnel {
    struct tunnel_flow flows[FLOWS_MAX];
    struct tunnel_flow *bucket[BUCKETS];
    struct tunnel_flow *newest, *oldest;
    struct tunnel_flow *free_list; /* through next_hash */
    uint32_t touched, live;
    uint16_t
        of_client[CLIENTS]; /* live ones, by keyed hash of the client's address: two in one place share it */
};

static struct tunnel_flow **bucket_of(struct forward *f, const struct flow_key *key)
{
    return &f->tunnel->bucket[hash_flow(&f->source_key, key) % BUCKETS];
}

/* ---- the table ---- */

static void unlink_use(struct echo_tunnel *t, struct tunnel_flow *w)
{
    if (w->newer)
        w->newer->older = w->older;
    else
        t->newest = w->older;
    if (w->older)
        w->older->newer = w->newer;
    else
        t->oldest = w->newer;
}

static void link_newest(struct echo_tunnel *t, struct tunnel_flow *w)
{
    w->newer = NULL;
    w->older = t->newest;
    if (t->newest)
        t->newest->newer = w;
    else
        t->oldest = w;
    t->newest = w;
}

static void touch(struct forward *f, struct tunnel_flow *w)
{
    w->used_us = loop_now_us(f->loop);
    unlink_use(f->tunnel, w);
    link_newest(f->tunnel, w);
}

static void drop_flow(struct forward *f, struct tunnel_flow *w)
{
    struct tunnel_flow **at = bucket_of(f, &w->key);

    while (*at != w)
        at = &(*at)->next_hash;
    *at = w->next_hash;
    unlink_use(f->tunnel, w);
    upstream_unref(w->by);
    upstream_unref(w->up);
    w->live = false;
    f->tunnel->of_client[w->client]--;
    w->next_hash = f->tunnel->free_list;
    f->tunnel->free_list = w;
    f->tunnel->live--;
}

static struct tunnel_flow *find_flow(struct forward *f, const struct flow_key *key)
{
    for (struct tunnel_flow *w = *bucket_of(f, key); w; w = w->next_hash) {
        if (flow_key_equal(&w->key, key))
            return w;
    }
    return NULL;
}

/* @w takes the way @up from now on; answers of another one, or to an earlier flow, do not find it. */
static void set_way(struct forward *f, struct tunnel_flow *w, struct upstream *by, struct upstream *up)
{
    w->turn = (uint8_t)((w->turn + 1) & 15);
    w->id = (uint16_t)((uint32_t)w->turn << 12 | (uint32_t)(w - f->tunnel->flows));
    w->by = upstream_ref(by);
    w->up = upstream_ref(up);
}

static void move_flow(struct forward *f, struct tunnel_flow *w, struct upstream *by, struct upstream *up)
{
    struct upstream *old_by = w->by, *old_up = w->up;

    FCOUNT(f, echo_moved);
    set_way(f, w, by, up);
    upstream_unref(old_by);
    upstream_unref(old_up);
}

bool echo_tunnel_trim(struct forward *f)
{
    struct echo_tunnel *t = f->tunnel;
    uint64_t now_us = loop_now_us(f->loop);

    while (t && t->oldest && now_us - t->oldest->used_us >= FLOW_IDLE_US)
        drop_flow(f, t->oldest);
    return t && t->live > 0;
}

/* Of all, or of one client. */
static struct tunnel_flow *longest_idle(const struct echo_tunnel *t, bool any, uint16_t client)
{
    struct tunnel_flow *w = t->oldest;

    while (w && !any && w->client != client)
        w = w->newer;
    return w;
}

/* Return: false: there is no room for one more flow of this client. */
static bool make_room(struct forward *f, uint16_t client)
{
    struct echo_tunnel *t = f->tunnel;
    uint64_t part = share_equal(f, f->opt.echo_max_flows), limit = part < FLOWS_MAX ? part : FLOWS_MAX;
    bool has_half = t->of_client[client] >= (limit + 1) / 2;
    struct tunnel_flow *w;

    if (t->live < limit && !has_half)
        return true;
    w = longest_idle(t, !has_half, client);
    if (!w || loop_now_us(f->loop) - w->used_us < FLOW_EVICT_US)
        return false;
    drop_flow(f, w);
    return true;
}

static struct tunnel_flow *new_flow(struct forward *f, const struct flow_key *key)
{
    uint16_t client = (uint16_t)(hash_bytes(&f->source_key, &key->client, sizeof(key->client)) % CLIENTS);
    struct echo_tunnel *t = f->tunnel;
    struct tunnel_flow **bucket, *w;

    echo_tunnel_trim(f);
    if (!make_room(f, client))
        return NULL;
    w = t->free_list;
    if (w)
        t->free_list = w->next_hash;
    else
        w = &t->flows[t->touched++];
    w->key = *key;
    w->used_us = loop_now_us(f->loop);
    w->live = true;
    w->client = client;
    t->of_client[client]++;
    bucket = bucket_of(f, key);
    w->next_hash = *bucket;
    *bucket = w;
    link_newest(t, w);
    t->live++;
    return w;
}

/* ---- out ---- */

static void held_answer(struct forward *f, struct echo_wait *w, int err)
{
    struct echo_outcome o = { .kind = ECHO_OUT_DROP };
    enum echo_mode mode = f->opt.echo_unsupported;

    if (err == 0) {
        FCOUNT(f, echo_tunnelled); /* the answer comes by itself */
    } else if (err == -EOPNOTSUPP && (mode == ECHO_MODE_REPLY || mode == ECHO_MODE_REPLY_IF_HEALTHY)) {
        o.kind = ECHO_OUT_REPLY; /* it has just answered: it is well */
        FCOUNT(f, echo_replied);
    } else if ((err == -EOPNOTSUPP && mode == ECHO_MODE_REJECT) ||
               (err != -EOPNOTSUPP && err != -ETIMEDOUT && f->opt.echo_down == ECHO_DOWN_REJECT)) {
        o.kind = ECHO_OUT_REJECT;
        o.why = err == -EOPNOTSUPP ? f->opt.echo_reject_with : REJECT_HOST_UNREACH;
        FCOUNT(f, echo_rejected);
    } else {
        FCOUNT(f, echo_dropped);
    }
    echo_complete(f->stack, w->token, &o);
    slab_put(&f->echoes, w);
}

static void on_held(void *arg, uint64_t cookie, int err)
{
    struct forward *f = arg;

    if (cookie != 0)
        held_answer(f, (struct echo_wait *)(uintptr_t)cookie, err);
}

/* Only what will be held needs the right to be answered later. */
static struct echo_wait *keep(struct forward *f, struct echo_req *r)
{
    struct echo_wait *w = slab_get(&f->echoes);

    if (!w)
        return NULL;
    w->f = f;
    w->token = echo_detach(r, ECHO_KEEP_PAYLOAD | ECHO_KEEP_HEADER);
    if (w->token)
        return w;
    slab_put(&f->echoes, w);
    return NULL;
}

static void send_request(struct forward *f, struct echo_req *r, struct upstream *up,
                         const struct tunnel_flow *flow, uint8_t ttl)
{
    bool v6 = !ip_is4(&r->dst);
    bool ready = up_echo_state(f->env, up, v6) == UP_ECHO_READY;
    bool held = (r->flags & ECHO_WAS_HELD) != 0; /* for its name: it cannot be detached any more */
    struct echo_wait *w = ready || held ? NULL : keep(f, r);
    struct up_echo_request request = { .target = flow->to,
                                       .id = flow->id,
                                       .seq = r->seq,
                                       .ttl = ttl,
                                       .tos = r->tos,
                                       .df = ip_is4(&r->dst) ? r->df : !(r->flags & ECHO_REASSEMBLED),
                                       .payload = r->payload,
                                       .payload_len = r->payload_len,
                                       .cookie = (uint64_t)(uintptr_t)w };
    int e;

    if (!ready && !held && !w) {
        FCOUNT(f, echo_dropped);
        return;
    }
    e = up_echo_send(f->env, up, &request);
    if (e == 1)
        return;
    if (w)
        held_answer(f, w, e);
    else if (e == 0)
        FCOUNT(f, echo_tunnelled);
    else if (e == -EHOSTUNREACH)
        echo_answer_down(f, r);
    else
        FCOUNT(f, echo_dropped);
}

static struct flow_key key_of(const struct echo_req *r)
{
    return (struct flow_key){ .client = r->src,
                              .target = r->dst,
                              .client_port = r->id,
                              .proto = ip_is4(&r->dst) ? IP_PROTO_ICMP : IP_PROTO_ICMPV6 };
}

const struct upstream *echo_tunnel_way(struct forward *f, const struct echo_req *r, const struct upstream *by)
{
    struct flow_key key = key_of(r);
    struct tunnel_flow *w = f->tunnel ? find_flow(f, &key) : NULL;

    return w && w->by == by ? w->up : NULL;
}

static struct tunnel_flow *flow_for(struct forward *f, const struct echo_req *r, struct upstream *by,
                                    struct upstream *up)
{
    struct flow_key key = key_of(r);
    struct tunnel_flow *w = find_flow(f, &key);

    if (w) {
        touch(f, w);
        if (w->up != up || w->by != by)
            move_flow(f, w, by, up);
    } else {
        w = new_flow(f, &key);
        if (w)
            set_way(f, w, by, up);
    }
    return w;
}

void echo_tunnel(struct forward *f, struct echo_req *r, const struct ip_addr *to, struct upstream *by,
                 struct upstream *up)
{
    bool hop = f->opt.echo_ttl == ECHO_TTL_HOP;
    struct tunnel_flow *flow;

    if (!f->tunnel)
        f->tunnel = calloc(1, sizeof(*f->tunnel)); /* at the first ping of this kind */
    if (!f->tunnel || r->code != 0 || ip_is_martian(to) || ip_is_link_local(to)) { /* icmp.md X9, X10 */
        FCOUNT(f, echo_dropped);
        return;
    }
    if (hop && r->ttl <= 1) { /* X30: nothing is sent */
        FCOUNT(f, echo_rejected);
        echo_end(f, r);
        return;
    }
    flow = flow_for(f, r, by, up);
    if (!flow) {
        FCOUNT(f, echo_dropped);
        return;
    }
    flow->to = *to;
    flow->seq = r->seq;
    flow->sent_us = loop_now_us(f->loop);
    send_request(f, r, up, flow, (uint8_t)(hop ? r->ttl - 1 : r->ttl));
}

/* ---- back ---- */

static void on_answer(void *arg, struct upstream *up, const struct up_echo_answer *a)
{
    struct forward *f = arg;
    struct tunnel_flow *w = f->tunnel ? &f->tunnel->flows[a->id & (FLOWS_MAX - 1)] : NULL;
    struct echo_outcome o = { .kind = a->is_error ? ECHO_OUT_ERROR : ECHO_OUT_REPLY };
    struct echo_addr to;

    if (!w || !w->live || w->id != a->id || w->up != up || !ip_equal(&w->to, &a->target)) {
        FCOUNT(f, echo_undelivered);
        return;
    }
    if (a->is_error && !f->opt.echo_relay_errors)
        return;
    touch(f, w);
    if (!a->is_error && a->seq == w->seq && w->sent_us != 0) { /* the latest one, once (T8) */
        RTT_COUNT(&f->cnt, tunnel_rtt, loop_now_us(f->loop) - w->sent_us);
        w->sent_us = 0;
    }
    to = (struct echo_addr){ w->key.client, w->key.target, w->key.client_port, a->seq };
    if (a->is_error)
        o.source = ip_equal(&a->source, &w->to) ? w->key.target : a->source;
    o.type = a->type;
    o.code = a->code;
    o.info = a->info;
    o.relayed = true;
    o.payload = a->payload;
    o.payload_len = a->payload_len;
    o.ttl = f->opt.echo_ttl == ECHO_TTL_HOP && a->ttl > 1 ? (uint8_t)(a->ttl - 1) : a->ttl;
    o.tos = a->tos;
    o.has_tos = true;
    if (echo_inject(f->stack, &o, &to) != EV_SENT)
        FCOUNT(f, echo_undelivered);
}

void echo_tunnel_attach(struct forward *f)
{
    static const struct up_echo_events events = { on_answer, on_held };

    up_echo_listen(f->env, &events, f);
}

void echo_tunnel_free(struct forward *f)
{
    while (f->tunnel && f->tunnel->oldest)
        drop_flow(f, f->tunnel->oldest);
    free(f->tunnel);
    f->tunnel = NULL;
}
