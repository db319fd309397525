/* udp.c - UDP mappings: a datagram that nothing knows becomes a request, an accepted request an endpoint
 * (icmp.md 6.2).
 *
 * How it works: udp_input() (udp_io.c) verifies and queues; udp_batch_end() gives each datagram to the
 * endpoint that it matches, in order of arrival. One that matches nothing makes a request, keyed by the
 * client's address and port, which holds up to 16 datagrams until it is decided; an endpoint accepted for one
 * 4-tuple lets go of those for other targets, which then ask again. Lookups happen at delivery, so whatever a
 * callback opened or closed holds for the next datagram.
 *
 * What always holds
 * - a node is in the table until it is closed; an open node with held datagrams is on the list `opened`;
 * - held datagrams lie in blocks of their own size and never pin a slot, and all together hold an eighth of
 *   the buffers;
 * - each block is put back exactly once: by the delivery, the rejection or the drop that took it from its
 *   queue. */
#include "udp_impl.h"

#define HELD_MAX          16 /* datagrams a request; design.md section 6 */
#define REQUEST_EXPIRY_US 30000000
#define UDP_PATH_MTU_MIN4 576
#define UDP_PATH_MTU_MIN6 1280
#define REQUESTS_MAX      4096
#define REQUESTS_MIN      64

/* ---- queues and tables --------------------------------------------------------------------------------- */

void udp_queue_append(struct udp_queue *q, struct block *b)
{
    b->next = NULL;
    if (q->last != NULL)
        q->last->next = b;
    else
        q->first = b;
    q->last = b;
    q->count++;
}

struct block *udp_queue_take(struct udp_queue *q)
{
    struct block *b = q->first;

    if (b == NULL)
        return NULL;
    q->first = b->next;
    if (q->first == NULL)
        q->last = NULL;
    q->count--;
    return b;
}

void udp_queue_unlink(struct udp_queue *q, struct block *before, struct block *b)
{
    if (before != NULL)
        before->next = b->next;
    else
        q->first = b->next;
    if (q->last == b)
        q->last = before;
    q->count--;
}

static struct udp_node **place_of(struct udp_shard *u, const struct flow_key *k)
{
    return &u->table[hash_flow(&u->key, k) & (u->places - 1)];
}

static struct udp_node *find_key(struct udp_shard *u, const struct flow_key *k)
{
    for (struct udp_node *n = *place_of(u, k); n != NULL; n = n->chain) {
        if (flow_key_equal(&n->key, k))
            return n;
    }
    return NULL;
}

static struct flow_key client_part(const struct flow_key *flow)
{
    return (
        struct flow_key){ .client = flow->client, .client_port = flow->client_port, .proto = IP_PROTO_UDP };
}

/* The 4-tuple's own endpoint before the client port's (icmp.md N3). */
static struct udp_node *find(struct udp_shard *u, const struct flow_key *flow)
{
    struct udp_node *n = u->by_flow > 0 ? find_key(u, flow) : NULL;
    struct flow_key client;

    if (n != NULL)
        return n;
    client = client_part(flow);
    return find_key(u, &client);
}

static void insert(struct udp_shard *u, struct udp_node *n)
{
    struct udp_node **at = place_of(u, &n->key);

    n->chain = *at;
    *at = n;
}

static void take_out(struct udp_shard *u, struct udp_node *n)
{
    struct udp_node **at = place_of(u, &n->key);

    while (*at != n)
        at = &(*at)->chain;
    *at = n->chain;
}

/* ---- what a node holds --------------------------------------------------------------------------------- */

static size_t block_room(const struct stack *s, const struct block *b)
{
    return s->blocks[b->class_].slab.object_bytes;
}

static void held_append(struct udp_node *n, struct block *b)
{
    udp_queue_append(&n->held, b);
    n->s->udp->held_bytes += block_room(n->s, b);
    n->s->udp->held++;
}

static struct block *held_take(struct udp_node *n)
{
    struct block *b = udp_queue_take(&n->held);

    if (b == NULL)
        return NULL;
    n->s->udp->held_bytes -= block_room(n->s, b);
    n->s->udp->held--;
    return b;
}

static void held_drop(struct udp_node *n)
{
    struct block *b;

    while ((b = held_take(n)) != NULL) {
        COUNT(n->s, udp_held_dropped);
        block_put(n->s, b);
    }
}

/* Keep @b with @n, which is not decided yet: the oldest goes for it; without memory it goes itself. */
static void hold(struct udp_node *n, struct block *b)
{
    struct stack *s = n->s;

    if (n->held.count == HELD_MAX) { /* the newest are worth most (UF1; faults.md U7) */
        COUNT(s, udp_held_dropped);
        block_put(s, held_take(n));
    }
    if (s->udp->held_bytes < s->cfg.buffer_cap_bytes / 8)
        b = udp_item_compact(s, b);
    else {
        block_put(s, b);
        b = NULL;
    }
    if (b == NULL)
        COUNT(s, udp_held_dropped);
    else
        held_append(n, b);
}

/* Out of the table and of all lists; the memory goes when no callback of it runs any more. */
static void node_close(struct udp_node *n)
{
    struct udp_shard *u = n->s->udp;

    take_out(u, n);
    wheel_cancel(&n->s->wheel, &n->expiry);
    held_drop(n);
    if (n->opened_listed) {
        struct udp_node **at = &u->opened;

        while (*at != n)
            at = &(*at)->next_opened;
        *at = n->next_opened;
    }
    if (!n->open)
        u->requests--;
    else {
        u->endpoints--;
        u->by_flow -= !ip_is_none(&n->key.target);
    }
    n->closed = true;
    if (!n->busy)
        pool_put(&u->nodes, n);
}

static void leave_callback(struct udp_node *n)
{
    n->busy = false;
    if (n->closed)
        pool_put(&n->s->udp->nodes, n);
}

/* ---- delivery ------------------------------------------------------------------------------------------ */

/* The first row of @q. @n is busy meanwhile, so that it may be closed by its callback. Return: datagrams of
 * @q that it was */
static uint32_t deliver(struct udp_node *n, struct udp_queue *q)
{
    struct stack *s = n->s;
    struct iovec iov[UDP_ROW_RANGES];
    struct udp_queue row = { 0 };
    struct udp_datagram d;
    uint32_t count = udp_row_take(q, &row, iov, &d);
    struct block *b;

    COUNT_ADD(s, udp_delivered, count);
    if (s->ev.on_udp_datagram != NULL)
        s->ev.on_udp_datagram(n->user, &d);
    while ((b = udp_queue_take(&row)) != NULL)
        block_put(s, b);
    return count;
}

static void deliver_held(struct udp_node *n)
{
    struct udp_queue all = n->held;

    for (const struct block *b = all.first; b != NULL; b = b->next)
        n->s->udp->held_bytes -= block_room(n->s, b);
    n->s->udp->held -= all.count;
    n->held = (struct udp_queue){ 0 };
    n->busy = true;
    while (!n->closed && all.count > 0)
        deliver(n, &all);
    for (struct block *b; (b = udp_queue_take(&all)) != NULL;) {
        COUNT(n->s, udp_held_dropped);
        block_put(n->s, b);
    }
    leave_callback(n);
}

static void deliver_opened(struct udp_shard *u)
{
    struct udp_node *n;

    while ((n = u->opened) != NULL) {
        u->opened = n->next_opened;
        n->opened_listed = false;
        deliver_held(n);
    }
}

static void on_expiry(struct wheel_timer *t, uint64_t now_us)
{
    struct udp_node *n = CONTAINER_OF(t, struct udp_node, expiry);
    struct stack *s = n->s;
    void *user = n->user;

    (void)now_us;
    COUNT(s, udp_expired);
    node_close(n);
    if (s->ev.on_udp_request_gone != NULL)
        s->ev.on_udp_request_gone(user);
}

static void new_request(struct stack *s, const struct flow_key *flow, struct block *b)
{
    struct udp_shard *u = s->udp;
    struct udp_node *n = u->requests < u->max_requests ? pool_get(&u->nodes) : NULL;

    if (n == NULL) {
        COUNT(s, udp_limit);
        block_put(s, b);
        return;
    }
    *n = (struct udp_node){
        .key = client_part(flow), .s = s, .expiry.fn = on_expiry, .asked = { flow->target, flow->target_port }
    };
    u->requests++;
    insert(u, n);
    hold(n, b);
    if (n->held.count == 0) { /* nothing to show: no memory for it */
        node_close(n);
        return;
    }
    wheel_set(&s->wheel, &n->expiry, s->now_us + REQUEST_EXPIRY_US);
    COUNT(s, udp_requests);
    n->busy = true;
    s->ev.on_udp_request(s->arg, (struct udp_request *)n);
    leave_callback(n);
}

/* The first that waits, with what makes a row with it. Return: how many */
static uint32_t dispatch(struct stack *s)
{
    struct udp_queue *ready = &s->udp->ready;
    struct flow_key flow = udp_item_key(udp_item(ready->first));
    struct udp_node *n = find(s->udp, &flow);
    uint32_t count = 1;
    struct block *b;

    if (n != NULL && n->open && n->held.count == 0) {
        n->busy = true;
        count = deliver(n, ready);
        leave_callback(n);
        return count;
    }
    b = udp_queue_take(ready);
    if (n != NULL && n->open) { /* older ones wait on the list `opened`: behind them */
        held_append(n, b);
    } else if (n != NULL) {
        hold(n, b);
    } else if (s->ev.on_udp_request != NULL) {
        new_request(s, &flow, b);
    } else {
        COUNT(s, udp_rejected);
        udp_item_reject(s, udp_item(b), REJECT_PORT_UNREACH);
        block_put(s, b);
    }
    return count;
}

/* Every packet goes exactly one way (stack.h); between batches it may also wait. */
static void check_sum(const struct stack *s)
{
    const struct stack_counters *n = &s->cnt;

    (void)n;
    assert(n->udp_in == n->udp_delivered + n->udp_passed_on + n->udp_length + n->udp_checksum +
                            n->udp_held_dropped + n->udp_limit + n->udp_rejected + s->udp->ready.count +
                            s->udp->held);
}

void udp_batch_end(struct stack *s)
{
    struct udp_shard *u = s->udp;
    uint32_t left, done;

    deliver_opened(u);
    for (left = u->ready.count; left > 0 && u->ready.first != NULL; left -= done < left ? done : left)
        done = dispatch(s);
    deliver_opened(u);
    check_sum(s);
}

bool udp_batch_pending(const struct stack *s)
{
    return s->udp->ready.count > 0 || s->udp->opened != NULL;
}

/* ---- requests ------------------------------------------------------------------------------------------ */

void udp_request_first(const struct udp_request *r, struct udp_datagram *out)
{
    const struct udp_node *n = (const struct udp_node *)r;

    udp_item_show(udp_item(n->held.first), out);
}

/* RFC 8201 section 5.2: the client is who says it, and no less than every link of IPv6 has. A mapping that is
 * handed from shard to shard keeps what its owner knows. */
bool udp_icmp_error(struct stack *s, const struct flow_key *flow, bool v6, uint32_t mtu)
{
    struct udp_node *n = find(s->udp, flow);

    if (n == NULL || !n->open)
        return false;
    if (mtu < (v6 ? UDP_PATH_MTU_MIN6 : UDP_PATH_MTU_MIN4))
        mtu = v6 ? UDP_PATH_MTU_MIN6 : UDP_PATH_MTU_MIN4;
    if (n->path_mtu == 0 || mtu <= n->path_mtu) {
        n->path_mtu = mtu;
        n->path_mtu_us = s->now_us;
    }
    return true;
}

void udp_request_set_user(struct udp_request *r, void *user)
{
    ((struct udp_node *)r)->user = user;
}

/* The endpoint is for the target that was asked for, alone: it gets that key, and what is for others asks
 * again. */
static void narrow_to_flow(struct udp_node *n)
{
    struct udp_shard *u = n->s->udp;
    struct udp_queue all = n->held;

    take_out(u, n);
    n->key.target = n->asked.addr;
    n->key.target_port = n->asked.port;
    insert(u, n);
    u->by_flow++;
    n->held = (struct udp_queue){ 0 };
    for (struct block *b; (b = udp_queue_take(&all)) != NULL;) {
        struct flow_key k = udp_item_key(udp_item(b));

        if (flow_key_equal(&k, &n->key)) {
            udp_queue_append(&n->held, b);
        } else {
            u->held_bytes -= block_room(n->s, b);
            u->held--;
            udp_queue_append(&u->ready, b);
        }
    }
}

int udp_request_accept(struct udp_request *r, enum udp_match match, void *user, struct udp_endpoint **out)
{
    struct udp_node *n = (struct udp_node *)r;
    struct udp_shard *u = n->s->udp;

    assert(!n->open && !n->closed);
    if (u->endpoints >= n->s->cfg.max_udp) {
        COUNT(n->s, udp_endpoint_limit);
        return -ENOBUFS;
    }
    wheel_cancel(&n->s->wheel, &n->expiry);
    u->requests--;
    u->endpoints++;
    n->open = true;
    n->user = user;
    if (match == UDP_MATCH_FLOW)
        narrow_to_flow(n);
    n->opened_listed = true;
    n->next_opened = u->opened;
    u->opened = n;
    *out = (struct udp_endpoint *)n;
    return 0;
}

void udp_request_reject(struct udp_request *r, enum stack_reject why)
{
    struct udp_node *n = (struct udp_node *)r;
    struct block *b;

    assert(!n->open && !n->closed);
    while ((b = held_take(n)) != NULL) {
        COUNT(n->s, udp_rejected);
        udp_item_reject(n->s, udp_item(b), why);
        block_put(n->s, b);
    }
    node_close(n);
}

void udp_endpoint_close(struct udp_endpoint *e)
{
    struct udp_node *n = (struct udp_node *)e;

    assert(n->open && !n->closed);
    node_close(n);
}

/* ---- life ---------------------------------------------------------------------------------------------- */

static uint32_t max_requests(const struct stack_config *c)
{
    uint32_t n = c->max_udp < REQUESTS_MAX ? c->max_udp : REQUESTS_MAX;

    return n > REQUESTS_MIN ? n : REQUESTS_MIN;
}

static uint32_t table_places(const struct stack_config *c)
{
    uint32_t places = 1;

    while (places < c->max_udp + max_requests(c))
        places *= 2;
    return places;
}

size_t udp_memory_bytes(const struct stack_config *c)
{
    return sizeof(struct udp_shard) + CACHE_LINE + table_places(c) * sizeof(void *) +
           pool_region_bytes(sizeof(struct udp_node), c->max_udp + max_requests(c));
}

void udp_init(struct stack *s, void *memory)
{
    uint8_t *at = memory;
    struct udp_shard *u = region_take(&at, sizeof(*u), CACHE_LINE);

    s->udp = u;
    u->key = s->cfg.secret;
    u->key.k0 ^= prng_next(&s->prng);
    u->places = table_places(&s->cfg);
    u->max_requests = max_requests(&s->cfg);
    u->table = region_take(&at, u->places * sizeof(void *), CACHE_LINE);
    pool_init(s, &u->nodes, "udp", sizeof(struct udp_node), s->cfg.max_udp + u->max_requests, &at);
}

/* Requests hear that they are gone; endpoints belong to whoever calls this. */
void udp_fini(struct stack *s)
{
    struct udp_shard *u = s->udp;

    for (uint32_t i = 0; i < u->places && u->requests > 0; i++) {
        struct udp_node *n = u->table[i], *next;

        for (; n != NULL; n = next) {
            void *user = n->user;

            next = n->chain;
            if (n->open)
                continue;
            node_close(n);
            if (s->ev.on_udp_request_gone != NULL)
                s->ev.on_udp_request_gone(user);
        }
    }
}

uint32_t stack_udp_count(const struct stack *s)
{
    return s->udp->endpoints;
}
