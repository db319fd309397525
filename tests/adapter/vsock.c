/* vsock.c - see vsock.h: the stack's clock, its wire and its options. */
#include "vsock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vsock_impl.h"

#define PACKET_MAX 65575 /* an IPv6 header and the longest payload */
#define EMIT_MAX   (PACKET_MAX + 1)
#define TICK_US    1000

/* ---- the lock ---------------------------------------------------------------------------------------------------- */

void net_lock(struct vsock_net *n)
{
    pthread_mutex_lock(&n->lock);
}

void net_unlock(struct vsock_net *n)
{
    pthread_cond_broadcast(&n->changed);
    pthread_mutex_unlock(&n->lock);
}

static void lock_init(struct vsock_net *n)
{
    pthread_mutexattr_t a;

    pthread_mutexattr_init(&a);
    pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE); /* the wire calls back */
    pthread_mutex_init(&n->lock, &a);
    pthread_mutexattr_destroy(&a);
    pthread_cond_init(&n->changed, NULL);
}

/* ---- queues of packets -------------------------------------------------------------------------------------------- */

static struct packet_node *node_new(uint64_t at_us, size_t len, const struct pkt_meta *meta)
{
    struct packet_node *p = malloc(sizeof(*p) + len);

    if (p == NULL)
        return NULL;
    *p = (struct packet_node){ .at_us = at_us, .len = len };
    if (meta != NULL)
        p->meta = *meta;
    return p;
}

/* Behind everything that is not later. */
static void queue_add(struct packet_queue *q, struct packet_node *p)
{
    struct packet_node **at = &q->head;

    if (q->tail != NULL && q->tail->at_us <= p->at_us)
        at = &q->tail->next;
    while (*at != NULL && (*at)->at_us <= p->at_us)
        at = &(*at)->next;
    p->next = *at;
    *at = p;
    if (p->next == NULL)
        q->tail = p;
}

static struct packet_node *queue_take(struct packet_queue *q)
{
    struct packet_node *p = q->head;

    if (p == NULL)
        return NULL;
    q->head = p->next;
    if (q->head == NULL)
        q->tail = NULL;
    return p;
}

static void queue_clear(struct packet_queue *q)
{
    struct packet_node *p;

    while ((p = queue_take(q)) != NULL)
        free(p);
}

/* ---- the stack ------------------------------------------------------------------------------------------------------ */

static int on_emit(void *arg, const struct iovec *iov, int iovcnt, const struct pkt_meta *meta)
{
    struct vsock_net *n = arg;
    struct packet_node *p;
    size_t len = 0, at = 0;

    for (int i = 0; i < iovcnt; i++)
        len += iov[i].iov_len;
    p = node_new(n->now_us, len, meta);
    if (p == NULL)
        return -ENOBUFS;
    for (int i = 0; i < iovcnt; i++) {
        if (iov[i].iov_len > 0)
            memcpy(p->data + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    queue_add(&n->out, p);
    return 0;
}

/* From here on the options are fixed. Return: false without memory, or when the options contradict each other. */
static bool net_start(struct vsock_net *n)
{
    struct stack_events events = sock_events;

    if (n->stack != NULL)
        return true;
    events.emit = on_emit;
    n->memory_len = stack_memory_bytes(&n->config);
    n->memory =
        mmap(NULL, n->memory_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (n->memory == MAP_FAILED) {
        n->memory = NULL;
        return false;
    }
    n->stack = stack_init(n->memory, &n->config, &events, n, n->now_us);
    return n->stack != NULL;
}

static void drain(struct vsock_net *n)
{
    struct packet_node *p;

    if (n->wire == NULL || n->in_wire)
        return;
    n->in_wire = true;
    while (n->wire != NULL && (p = queue_take(&n->out)) != NULL) {
        n->wire(n->wire_arg, p->at_us, p->data, p->len, &p->meta);
        free(p);
    }
    n->in_wire = false;
}

static bool feed_due(struct vsock_net *n)
{
    bool any = false;

    while (n->in.head != NULL && n->in.head->at_us <= n->now_us) {
        struct packet_node *p = queue_take(&n->in);

        memcpy(stack_rx_slot(n->stack), p->data, p->len);
        stack_input(n->stack, n->now_us, p->len, &p->meta);
        free(p);
        any = true;
    }
    return any;
}

void net_settle(struct vsock_net *n)
{
    if (n->stack == NULL || n->in_wire)
        return;
    do {
        stack_batch_end(n->stack, n->now_us);
        drain(n);
    } while (feed_due(n));
}

/* ---- the clock -------------------------------------------------------------------------------------------------------- */

static uint64_t next_at(const struct vsock_net *n)
{
    uint64_t at = n->stack != NULL ? stack_next_deadline(n->stack) : UINT64_MAX;

    return n->in.head != NULL && n->in.head->at_us < at ? n->in.head->at_us : at;
}

static void step_to(struct vsock_net *n, uint64_t at_us)
{
    if (at_us > n->now_us)
        n->now_us = at_us;
    stack_advance(n->stack, n->now_us);
    drain(n);
    if (feed_due(n))
        net_settle(n);
}

static void move_to(struct vsock_net *n, uint64_t to_us)
{
    uint64_t next;

    if (n->stack == NULL) { /* no packet has been seen: nothing is there that time could pass for */
        n->now_us = to_us > n->now_us ? to_us : n->now_us;
        return;
    }
    if (n->in_wire)
        return;
    while ((next = next_at(n)) <= to_us) {
        step_to(n, next);
        if (next_at(n) <= n->now_us) { /* timers have ticks: the next one is due within this one */
            if (to_us - n->now_us < TICK_US || to_us < n->now_us)
                break;
            n->now_us += TICK_US;
        }
    }
    step_to(n, to_us);
}

int net_wait(struct vsock_net *n, bool (*ready)(const struct vsock_net *n, const struct sock *s),
             const struct sock *s, uint64_t deadline_us)
{
    while (!ready(n, s)) {
        uint64_t next;

        if (deadline_us == VSOCK_NOW || n->in_wire)
            return -EAGAIN;
        if (n->now_us >= deadline_us)
            return -ETIMEDOUT;
        if (n->threads) {
            pthread_cond_wait(&n->changed, &n->lock);
            continue;
        }
        next = next_at(n);
        if (next == UINT64_MAX && deadline_us == VSOCK_FOREVER)
            return -EDEADLK;
        if (next <= n->now_us)
            next = n->now_us + 1;
        move_to(n, next < deadline_us ? next : deadline_us);
    }
    return 0;
}

uint64_t vsock_now(struct vsock_net *n)
{
    uint64_t now;

    net_lock(n);
    now = n->now_us;
    net_unlock(n);
    return now;
}

uint64_t vsock_next(struct vsock_net *n)
{
    uint64_t at;

    net_lock(n);
    at = next_at(n);
    net_unlock(n);
    return at;
}

void vsock_advance(struct vsock_net *n, uint64_t to_us)
{
    net_lock(n);
    move_to(n, to_us);
    net_unlock(n);
}

/* ---- the wire ------------------------------------------------------------------------------------------------------------ */

int vsock_packet_in(struct vsock_net *n, uint64_t at_us, const void *packet, size_t len,
                    const struct pkt_meta *meta)
{
    struct packet_node *p = NULL;

    if (len > STACK_SLOT_BYTES)
        return -EMSGSIZE;
    net_lock(n);
    if (net_start(n))
        p = node_new(at_us > n->now_us ? at_us : n->now_us, len, meta);
    if (p != NULL) {
        memcpy(p->data, packet, len);
        queue_add(&n->in, p);
        if (at_us <= n->now_us && !n->in_wire) {
            feed_due(n);
            net_settle(n);
        }
    }
    net_unlock(n);
    return p != NULL ? 0 : -ENOMEM;
}

static bool something_left(const struct vsock_net *n, const struct sock *s)
{
    (void)s;
    return n->out.head != NULL;
}

ssize_t vsock_packet_out(struct vsock_net *n, void *buf, size_t cap, uint64_t *at_us, struct pkt_meta *meta,
                         uint64_t deadline_us)
{
    struct packet_node *p;
    ssize_t r;

    net_lock(n);
    r = net_wait(n, something_left, NULL, deadline_us);
    if (r == 0) {
        p = queue_take(&n->out);
        memcpy(buf, p->data, p->len < cap ? p->len : cap);
        if (at_us != NULL)
            *at_us = p->at_us;
        if (meta != NULL)
            *meta = p->meta;
        r = (ssize_t)p->len;
        free(p);
    }
    net_unlock(n);
    return r;
}

void vsock_set_wire(struct vsock_net *n, vsock_wire *wire, void *arg)
{
    net_lock(n);
    n->wire = wire;
    n->wire_arg = arg;
    net_unlock(n);
}

/* ---- options --------------------------------------------------------------------------------------------------------------- */

/* Whatever the config's type, an option is a number. */
static const struct option_row {
    size_t offset, bytes;
    uint64_t most;
} options[VSOCK_NET_OPTIONS] = {
#define ROW(option, member, max)                                                                             \
    [option] = { offsetof(struct stack_config, member), sizeof(((struct stack_config *)0)->member), max }
    ROW(VSOCK_MTU, mtu_bytes, 65535),
    ROW(VSOCK_MSS4, mtu_bytes, 65495),
    ROW(VSOCK_RCVBUF, rcv_budget_initial, 1u << 30),
    ROW(VSOCK_RCVBUF_MAX, rcv_budget_max, 1u << 30),
    ROW(VSOCK_SNDBUF, snd_buffer_initial, 1u << 30),
    ROW(VSOCK_SNDBUF_MAX, snd_buffer_max, 1u << 30),
    ROW(VSOCK_WINDOW_SCALE, window_scale, 14),
    ROW(VSOCK_QUICKACK, quick_ack_segments, 255),
    ROW(VSOCK_DELAYED_ACK_US, delayed_ack_us, 500000), /* RFC 9293 MUST-40 */
    ROW(VSOCK_USER_TIMEOUT_MS, user_timeout_ms, UINT32_MAX / 4),
    ROW(VSOCK_KEEPALIVE_IDLE_MS, keepalive_idle_ms, UINT32_MAX / 4),
    ROW(VSOCK_KEEPALIVE_INTERVAL_MS, keepalive_interval_ms, UINT32_MAX / 4),
    ROW(VSOCK_KEEPALIVE_PROBES, keepalive_probes, 255),
    ROW(VSOCK_RESTART_AFTER_IDLE, restart_after_idle, 1),
    ROW(VSOCK_ECN, ecn, 1),
    ROW(VSOCK_CONGESTION, congestion, TCP_CC_NEWRENO),
    ROW(VSOCK_TIME_WAIT_MS, time_wait_ms, UINT32_MAX / 4),
    ROW(VSOCK_FIN_WAIT2_MS, fin_wait2_ms, UINT32_MAX / 4),
    ROW(VSOCK_OFFLOAD, offload_tso, 1),
    ROW(VSOCK_PROMISCUOUS, promiscuous, 1),
#undef ROW
};

static void put_member(struct stack_config *c, const struct option_row *row, uint64_t v)
{
    uint8_t *at = (uint8_t *)c + row->offset;
    uint32_t word = (uint32_t)v;

    if (row->bytes == 1)
        *at = (uint8_t)v; /* uint8_t or bool */
    else
        memcpy(at, &word, sizeof(word));
}

static uint64_t get_member(const struct stack_config *c, const struct option_row *row)
{
    const uint8_t *at = (const uint8_t *)c + row->offset;
    uint32_t word = 0;

    if (row->bytes == 1)
        return *at;
    memcpy(&word, at, sizeof(word));
    return word;
}

static int set_net(struct vsock_net *n, enum vsock_option which, uint64_t value)
{
    if (n->stack != NULL)
        return -EBUSY;
    if (value > options[which].most)
        return -EINVAL;
    put_member(&n->config, &options[which], value + (which == VSOCK_MSS4 ? 40 : 0));
    if (which == VSOCK_OFFLOAD)
        n->config.offload_csum = value != 0;
    if (which == VSOCK_RCVBUF && n->config.rcv_budget_max < value)
        n->config.rcv_budget_max = (uint32_t)value;
    if (which == VSOCK_SNDBUF && n->config.snd_buffer_max < value)
        n->config.snd_buffer_max = (uint32_t)value;
    return 0;
}

/* Return: the connection's option of that meaning; TCP_OPTIONS: it has none. */
static enum tcp_option conn_option(enum vsock_option which)
{
    static const struct {
        enum vsock_option net;
        enum tcp_option conn;
    } rows[] = {
        { VSOCK_QUICKACK, TCP_OPT_QUICK_ACK_SEGMENTS },
        { VSOCK_DELAYED_ACK_US, TCP_OPT_DELAYED_ACK_US },
        { VSOCK_USER_TIMEOUT_MS, TCP_OPT_USER_TIMEOUT_MS },
        { VSOCK_KEEPALIVE_IDLE_MS, TCP_OPT_KEEPALIVE_IDLE_MS },
        { VSOCK_KEEPALIVE_INTERVAL_MS, TCP_OPT_KEEPALIVE_INTERVAL_MS },
        { VSOCK_KEEPALIVE_PROBES, TCP_OPT_KEEPALIVE_PROBES },
        { VSOCK_RESTART_AFTER_IDLE, TCP_OPT_RESTART_AFTER_IDLE },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].net == which)
            return rows[i].conn;
    }
    return TCP_OPTIONS;
}

static int set_conn(struct sock *k, enum vsock_option which, uint64_t value)
{
    enum tcp_option o = conn_option(which);

    if (o == TCP_OPTIONS || value > options[which].most)
        return -EINVAL;
    return k->conn != NULL ? tcp_set_option(k->conn, o, (uint32_t)value) : -ENOTCONN;
}

int vsock_set(struct vsock_net *n, int s, enum vsock_option which, uint64_t value)
{
    struct sock *k;
    int r = 0;

    net_lock(n);
    k = sock_at(n, s);
    if (which < VSOCK_NET_OPTIONS)
        r = k != NULL && k->kind == SOCK_CONN ? set_conn(k, which, value) : set_net(n, which, value);
    else if (k == NULL)
        r = -EBADF;
    else if (which == VSOCK_LINGER0)
        k->linger0 = value != 0;
    else if (which == VSOCK_HOLD && k->kind == SOCK_LISTENER)
        k->hold = value != 0;
    else
        r = -EINVAL;
    net_unlock(n);
    return r;
}

int vsock_get(struct vsock_net *n, int s, enum vsock_option which, uint64_t *value)
{
    struct sock *k;
    int r = 0;

    net_lock(n);
    k = sock_at(n, s);
    if (which < VSOCK_NET_OPTIONS && k != NULL && k->conn != NULL && conn_option(which) != TCP_OPTIONS)
        *value = tcp_get_option(k->conn, conn_option(which));
    else if (which < VSOCK_NET_OPTIONS)
        *value = get_member(&n->config, &options[which]) - (which == VSOCK_MSS4 ? 40 : 0);
    else if (k == NULL)
        r = -EBADF;
    else if (which == VSOCK_LINGER0)
        *value = k->linger0;
    else if (which == VSOCK_HOLD && k->kind == SOCK_LISTENER)
        *value = k->hold;
    else
        r = -EINVAL;
    net_unlock(n);
    return r;
}

/* ---- life --------------------------------------------------------------------------------------------------------------------- */

struct vsock_net *vsock_net_new(uint64_t start_us, uint64_t seed, bool threads)
{
    struct vsock_net *n = calloc(1, sizeof(*n));

    if (n == NULL)
        return NULL;
    stack_config_defaults(&n->config);
    n->config.offload_csum = n->config.offload_tso = n->config.offload_uso = false;
    n->config.seed = seed;
    n->config.secret = (struct hash_key){ seed, ~seed };
    n->now_us = start_us;
    n->threads = threads;
    lock_init(n);
    return n;
}

void vsock_net_free(struct vsock_net *n)
{
    if (n == NULL)
        return;
    if (n->stack != NULL)
        stack_fini(n->stack);
    if (n->memory != NULL)
        munmap(n->memory, n->memory_len);
    sock_free_all(n);
    queue_clear(&n->in);
    queue_clear(&n->out);
    pthread_cond_destroy(&n->changed);
    pthread_mutex_destroy(&n->lock);
    free(n);
}

const struct stack_counters *vsock_counters(struct vsock_net *n)
{
    return n->stack != NULL ? stack_counters(n->stack) : NULL;
}
