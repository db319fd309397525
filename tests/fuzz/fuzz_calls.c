/* fuzz_calls.c - the order of calls and re-entrancy with failing pools (tcp-stack.md FUZ-4, ARC-3, MEM-3): every callback may release,
 * abort, shut down, read or write any connection, the one that it is about included. No callback comes for what was released, and in
 * the end nothing is held. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "pkt_build.h"
#include "stack/tcp_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PORTS     6
#define STEPS_MAX 400
#define CALLS_MAX 4 /* in one callback */
#define DRAIN_US  1200000000ull

#define must(what)                                                                                           \
    do {                                                                                                     \
        if (!(what)) {                                                                                       \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);                        \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

struct end { /* one client port: both sides of what happens on it */
    struct fuzz *f;
    struct tcp_request *request;
    struct tcp_conn *conn;
    uint32_t seq, ack; /* the client's next, and what it has */
};

struct fuzz {
    struct stack *s;
    struct span in;
    uint64_t now_us;
    unsigned depth;
    struct end end[PORTS];
};

static uint8_t draw(struct fuzz *f)
{
    uint8_t v = 0;

    span_u8(&f->in, &v);
    return v;
}

/* ---- calls ----------------------------------------------------------------------------------------------------------- */

static void write_some(struct end *e, size_t n)
{
    uint8_t *space;
    size_t room = tcp_tx_space(e->conn, &space);

    if (room == 0)
        return;
    n = n < room ? n : room;
    memset(space, 'x', n);
    tcp_tx_commit(e->conn, n);
}

static void decide(struct end *e, uint8_t how)
{
    struct tcp_request *r = e->request;

    e->request = NULL;
    if (how % 4 != 0 && e->conn == NULL) {
        if (tcp_request_accept(r, e, &e->conn) == 0)
            return;
        e->conn = NULL;
    }
    tcp_request_reject(r, (enum stack_reject)(how % (REJECT_TTL_EXCEEDED + 1)));
}

static void call(struct fuzz *f)
{
    uint8_t what = draw(f);
    struct end *e = &f->end[what % PORTS];

    if (e->request != NULL && (what & 64))
        decide(e, draw(f));
    if (e->conn == NULL)
        return;
    switch (what / PORTS % 7) {
    case 0:
        tcp_release(e->conn);
        e->conn = NULL;
        break;
    case 1:
        tcp_abort(e->conn);
        break;
    case 2:
        tcp_shutdown(e->conn);
        break;
    case 3:
        tcp_consume(e->conn, tcp_readable_bytes(e->conn) / (1 + draw(f) % 3));
        break;
    case 4:
        tcp_abort(e->conn);
        tcp_release(e->conn);
        e->conn = NULL;
        break;
    case 5:
        tcp_conn_info(e->conn, &(struct tcp_info){ 0 });
        write_some(e, 1);
        break;
    case 6:
        write_some(e, draw(f) * 400ul);
        break;
    }
}

static void calls(struct fuzz *f)
{
    must(++f->depth == 1); /* callbacks do not nest */
    for (int i = draw(f) % (CALLS_MAX + 1); i > 0; i--)
        call(f);
    f->depth--;
}

/* ---- callbacks ------------------------------------------------------------------------------------------------------- */

static void on_request(void *arg, struct tcp_request *r)
{
    struct fuzz *f = arg;
    struct flow_key flow;
    struct end *e;

    tcp_request_flow(r, &flow);
    must(flow.client_port >= 1000 && flow.client_port < 1000 + PORTS);
    e = &f->end[flow.client_port - 1000];
    if (e->request != NULL ||
        e->conn != NULL) { /* the one before was released, aborted or is being replaced */
        tcp_request_reject(r, REJECT_RST);
    } else {
        e->request = r;
        tcp_request_set_user(r, e);
        if (draw(f) % 4 != 0)
            decide(e, 1);
    }
    calls(f);
}

static void on_gone(void *user, int err)
{
    struct end *e = user;

    must(e->request != NULL && err <= 0);
    e->request = NULL;
    calls(e->f);
}

static void on_event(void *user)
{
    struct end *e = user;

    must(e->conn != NULL); /* nothing comes after tcp_release() */
    calls(e->f);
}

static void on_closed(void *user, int err)
{
    struct end *e = user;

    must(e->conn != NULL && err <= 0);
    if (draw(e->f) & 1)
        tcp_conn_info(e->conn, &(struct tcp_info){ 0 });
    e->conn = NULL;
    calls(e->f);
}

static int on_emit(void *arg, const struct iovec *iov, int n, const struct pkt_meta *meta)
{
    static uint8_t packet[PKT_MAX];
    struct fuzz *f = arg;
    struct pkt_view v;
    size_t len = 0;

    for (int i = 0; i < n; i++) {
        must(len + iov[i].iov_len <= sizeof(packet));
        if (iov[i].iov_len > 0)
            memcpy(packet + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    must(pkt_parse(packet, len, meta, &v) == NULL);
    if (v.proto == IP_PROTO_TCP && v.dport >= 1000 && v.dport < 1000 + PORTS)
        f->end[v.dport - 1000].ack =
            get_be32(v.l4 + 4) + (uint32_t)v.len + ((v.l4[13] & (PKT_SYN | PKT_FIN)) != 0);
    return 0;
}

/* ---- steps --------------------------------------------------------------------------------------------------------------- */

static void packet(struct fuzz *f, uint8_t op)
{
    static const uint8_t flags[] = { PKT_SYN, PKT_ACK, PKT_ACK, PKT_ACK, PKT_ACK | PKT_FIN, PKT_RST };
    static const uint8_t bytes[20000];
    static struct pkt p;
    struct end *e = &f->end[op % PORTS];
    uint8_t how = draw(f), kind = flags[how % ARRAY_LEN(flags)];
    size_t len = how & 32 && kind == PKT_ACK ? draw(f) * 70ul : 0;
    uint32_t gap = (how & 192) == 192 ? draw(f) * 50u : 0;

    pkt_tcp(&p, "10.0.0.2", (uint16_t)(1000 + op % PORTS), "192.0.2.80", 80, kind, e->seq + gap, e->ack,
            bytes, len);
    if (gap == 0)
        e->seq += (uint32_t)len + ((kind & (PKT_SYN | PKT_FIN)) != 0);
    memcpy(stack_rx_slot(f->s), p.data, p.len);
    stack_input(f->s, f->now_us, p.len, &p.meta);
}

static void fail_some_pool(struct fuzz *f)
{
    uint8_t which = draw(f);

    f->s->pools[which % f->s->pool_count]->fail_every = draw(f) % 6;
}

static void step(struct fuzz *f)
{
    uint8_t op = draw(f);

    if (op < 150)
        packet(f, op);
    else if (op < 200)
        stack_batch_end(f->s, f->now_us);
    else if (op < 220) {
        f->now_us += 1000ull << op % 20;
        stack_advance(f->s, f->now_us);
    } else if (op < 245)
        call(f);
    else
        fail_some_pool(f);
}

static void finish(struct fuzz *f)
{
    size_t kept;
    uint64_t next, end;
    unsigned turns = 0;

    f->in.len = 0;
    for (size_t i = 0; i < f->s->pool_count; i++)
        f->s->pools[i]->fail_every = 0;
    stack_batch_end(f->s, f->now_us);
    for (unsigned i = 0; i < PORTS; i++) {
        if (f->end[i].request != NULL)
            decide(&f->end[i], 0);
        if (f->end[i].conn != NULL)
            tcp_release(f->end[i].conn);
        f->end[i].conn = NULL;
    }
    stack_batch_end(f->s, f->now_us);
    end = f->now_us + DRAIN_US;
    while ((next = stack_next_deadline(f->s)) < end) {
        must(++turns < 100000);
        f->now_us = next > f->now_us ? next : f->now_us + 1000;
        stack_advance(f->s, f->now_us);
    }
    must(stack_tcp_count(f->s) == 0 && stack_half_open_count(f->s) == 0);
    kept = block_cost(f->s, BLOCK_SLOT) * (1u + (f->s->rx_spare != NULL));
    if (f->s->tcp->landing != NULL)
        kept += block_cost(f->s, (enum block_class)f->s->tcp->landing->class_);
    must(f->s->block_bytes == kept);
    stack_fini(f->s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct stack_events ev = { .emit = on_emit,
                                            .on_tcp_request = on_request,
                                            .on_tcp_request_gone = on_gone,
                                            .on_tcp_open = on_event,
                                            .on_tcp_readable = on_event,
                                            .on_tcp_writable = on_event,
                                            .on_tcp_closed = on_closed };
    static void *region;
    static size_t region_bytes;
    struct fuzz f = { .in = { .data = data, .len = size }, .now_us = 1000000 };
    struct stack_config c;

    stack_config_defaults(&c);
    c.rx_slots = 8;
    c.buffer_cap_bytes = 2 << 20;
    c.max_tcp = c.max_half_open = c.max_time_wait = c.max_udp = 16;
    c.max_half_open_per_source = 16;
    c.snd_buffer_initial = 32768;
    c.keepalive_idle_ms = 20000;
    if (region == NULL) {
        region_bytes = stack_memory_bytes(&c);
        region = mmap(NULL, region_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                      -1, 0);
        must(region != MAP_FAILED);
    }
    madvise(region, region_bytes, MADV_DONTNEED); /* zeroes again */
    f.s = stack_init(region, &c, &ev, &f, f.now_us);
    must(f.s != NULL);
    for (unsigned i = 0; i < PORTS; i++)
        f.end[i] = (struct end){ .f = &f, .seq = 1000 * (i + 1) };
    for (int i = 0; i < STEPS_MAX && f.in.len > 0; i++)
        step(&f);
    finish(&f);
    return 0;
}
