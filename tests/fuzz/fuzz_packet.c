/* fuzz_packet.c - a whole shard fed with packets, time and calls of its embedder (tcp-stack.md FUZ-1, FUZ-3, FUZ-4,
 * FUZ-5, FUZ-6; faults.md P13).
 *
 * Input: one byte of configuration, one that makes pools fail, then records: an operation byte and what it needs. Packets
 * come raw or with their checksums put right, so that mutations reach the protocols. What the callbacks decide is drawn
 * from the input as well. Checked after each record: what came in is accounted for; every packet that leaves is one that a
 * careful host would take and no longer than the MTU. At the end: when all is released and twenty minutes are over, no packet
 * memory is held. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "culvert/stack.h"
#include "pkt_build.h"
#include "stack/tcp_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OBJECTS  16
#define DRAIN_US 1200000000 /* longer than every time-out of the stack */

enum {
    CONF_CSUM = 1,
    CONF_SUPER = 2,
    CONF_SHARDS = 4,
    CONF_NO_ADDRESS = 8,
    CONF_NO_ECHO = 16,
    CONF_STRICT = 32, /* only assigned addresses */
    CONF_EMIT_FAILS = 64,
    CONF_ECHO_REPLY = 128,
};

struct embedder {
    struct stack *s;
    struct span in;
    uint64_t now_us;
    uint8_t conf;
    uint32_t draws;
    struct tcp_request *tcp_requests[OBJECTS];
    struct tcp_conn *conns[OBJECTS];
    struct udp_request *udp_requests[OBJECTS];
    struct udp_endpoint *endpoints[OBJECTS];
    struct ip_port peer[OBJECTS]; /* of endpoints: who may be answered for */
    echo_token tokens[OBJECTS];
    uint32_t next_ack, next_seq; /* what a peer of the last TCP segment that left would send */
};

static uint8_t bulk[65536];

static void *region;
static size_t region_bytes;

/* The next decision: from the input while it lasts, then counted. */
static uint8_t draw(struct embedder *e)
{
    uint8_t v;

    return span_u8(&e->in, &v) ? v : (uint8_t)(e->draws++ * 41);
}

#define must(what)                                                                                           \
    do {                                                                                                     \
        if (!(what)) {                                                                                       \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);                        \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* ---- callbacks ------------------------------------------------------------------------------------------------------ */

static int on_emit(void *arg, const struct iovec *iov, int n, const struct pkt_meta *meta)
{
    static uint8_t packet[PKT_MAX];
    struct embedder *e = arg;
    struct pkt_view v;
    size_t len = 0;

    must(n >= 1 && n <= STACK_EMIT_IOV);
    for (int i = 0; i < n; i++) {
        must(len + iov[i].iov_len <= sizeof(packet));
        if (iov[i].iov_len > 0)
            memcpy(packet + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    must(pkt_parse(packet, len, meta, &v) == NULL);
    must(meta->gso != PKT_GSO_NONE ? meta->needs_csum && meta->gso_size > 0 && v.len > meta->gso_size
                                   : len <= e->s->cfg.mtu_bytes);
    must((e->conf & CONF_SUPER) != 0 || meta->gso == PKT_GSO_NONE);
    if (v.proto == IP_PROTO_TCP && !v.fragment) {
        e->next_ack = get_be32(v.l4 + 4) + (uint32_t)v.len + ((v.l4[13] & (PKT_SYN | PKT_FIN)) != 0);
        e->next_seq = get_be32(v.l4 + 8);
    }
    return (e->conf & CONF_EMIT_FAILS) != 0 && e->draws++ % 3 == 0 ? -EAGAIN : 0;
}

static bool on_handoff(void *arg, uint32_t to, uint32_t origin, const void *packet, size_t len,
                       const struct pkt_meta *meta)
{
    struct embedder *e = arg;
    uint8_t sum = 0;

    must(to != e->s->cfg.shard && to < e->s->cfg.shards && origin < e->s->cfg.shards && meta != NULL);
    for (size_t i = 0; i < len; i++)
        sum ^= ((const uint8_t *)packet)[i];
    return sum % 4 != 0;
}

/* A place in a table of pointers: an empty one if there is one. */
static void **place_for(void **table)
{
    for (size_t i = 0; i < OBJECTS; i++) {
        if (table[i] == NULL)
            return &table[i];
    }
    return NULL;
}

static void forget(void **table, const void *object)
{
    for (size_t i = 0; i < OBJECTS; i++) {
        if (table[i] == object)
            table[i] = NULL;
    }
}

static void tcp_decide(struct embedder *e, struct tcp_request *r, uint8_t how)
{
    void **at = place_for((void **)e->conns);
    struct tcp_conn *c;

    forget((void **)e->tcp_requests, r);
    if (how < 160 && at != NULL && tcp_request_accept(r, at, &c) == 0)
        *at = c;
    else
        tcp_request_reject(r, (enum stack_reject)(how % (REJECT_TTL_EXCEEDED + 1)));
}

static void on_tcp_request(void *arg, struct tcp_request *r)
{
    struct embedder *e = arg;
    uint8_t how = draw(e);
    void **at = place_for((void **)e->tcp_requests);
    struct flow_key flow;

    tcp_request_flow(r, &flow);
    must(flow.proto == IP_PROTO_TCP);
    if (how >= 220 && at != NULL) { /* later */
        *at = r;
        tcp_request_set_user(r, at);
    } else {
        tcp_decide(e, r, how);
    }
}

/* The user of a request or a connection is its place in the table. */
static void on_gone(void *user, int err)
{
    must(err <= 0);
    *(void **)user = NULL;
}

static void on_open(void *user)
{
    must(*(struct tcp_conn **)user != NULL);
}

static void on_readable(void *user)
{
    struct tcp_conn *c = *(struct tcp_conn **)user;
    struct iovec iov[8];
    size_t sum = 0;
    int n = tcp_peek(c, iov, 8);

    for (int i = 0; i < n; i++)
        sum += iov[i].iov_len;
    must(sum <= tcp_readable_bytes(c));
    if (sum % 3 != 0)
        tcp_consume(c, sum);
}

static void udp_decide(struct embedder *e, struct udp_request *r, uint8_t how)
{
    void **at = place_for((void **)e->endpoints);
    struct udp_datagram d;
    struct udp_endpoint *p;

    forget((void **)e->udp_requests, r);
    udp_request_first(r, &d);
    if (how < 180 && at != NULL &&
        udp_request_accept(r, how % 3 == 0 ? UDP_MATCH_FLOW : UDP_MATCH_CLIENT, at, &p) == 0) {
        *at = p;
        e->peer[(struct udp_endpoint **)at - e->endpoints] = d.target;
    } else {
        udp_request_reject(r, (enum stack_reject)(how % (REJECT_TTL_EXCEEDED + 1)));
    }
}

static void on_udp_request(void *arg, struct udp_request *r)
{
    struct embedder *e = arg;
    uint8_t how = draw(e);
    void **at = place_for((void **)e->udp_requests);

    if (how >= 200 && at != NULL) {
        *at = r;
        udp_request_set_user(r, at);
    } else {
        udp_decide(e, r, how);
    }
}

static void on_udp_gone(void *user)
{
    *(void **)user = NULL;
}

static void on_datagram(void *user, const struct udp_datagram *d)
{
    struct udp_endpoint *p = *(struct udp_endpoint **)user;
    uint8_t sum = (uint8_t)d->len;

    must(d->gso_size == 0 || d->gso_size < d->len);
    must(d->ranges >= 1 && d->ranges <= UDP_ROW_RANGES);
    for (int r = 0; r < d->ranges; r++) {
        for (size_t i = 0; i < d->data[r].iov_len; i++)
            sum ^= ((const uint8_t *)d->data[r].iov_base)[i];
        must(r == d->ranges - 1 || d->data[r].iov_len % d->gso_size == 0);
    }
    if (sum % 4 == 0) { /* send it back */
        udp_send(p, &d->target, d->data, d->ranges, 0);
    } else if (sum % 16 == 1) {
        udp_endpoint_close(p);
        *(void **)user = NULL;
    }
}

static enum echo_verdict on_echo(void *arg, struct echo_req *r)
{
    struct embedder *e = arg;
    uint8_t how = draw(e), sum = 0;

    for (uint32_t i = 0; i < r->payload_len; i++)
        sum ^= r->payload[i];
    for (uint16_t i = 0; i < r->ip_header_len; i++)
        sum ^= r->ip_header[i];
    if (how % 4 == 0)
        echo_reply(r);
    else if (how % 4 == 1)
        echo_reject(r, (enum stack_reject)(how % (REJECT_TTL_EXCEEDED + 1)));
    else if (how % 4 == 2)
        e->tokens[sum % OBJECTS] = echo_detach(r, how % 8);
    return how & 64 ? ECHO_CONSUMED : ECHO_PASS;
}

/* ---- records ------------------------------------------------------------------------------------------------------------ */

/* A TCP segment's numbers are written as distances from the ones that would continue the last conversation. */
static void continue_tcp(const struct embedder *e, struct pkt *p)
{
    uint8_t *l4 = p->data + p->l4;

    put_be32(l4 + 4, get_be32(l4 + 4) + e->next_seq);
    put_be32(l4 + 8, get_be32(l4 + 8) + e->next_ack);
}

/* From the input's bytes: numbers that continue, right checksums, a long payload. */
static void dress(const struct embedder *e, struct pkt *p, uint8_t flags)
{
    uint8_t proto = p->data[pkt_is6(p) ? 6 : 9];

    if (p->len < p->l4 + 8)
        return;
    if (flags & 64 && p->len < 30000) {
        memcpy(p->data + p->len, bulk, 30000);
        p->len += 30000;
    }
    if (flags & 16 && proto == IP_PROTO_TCP && p->len >= p->l4 + 20)
        continue_tcp(e, p);
    if (flags & 64 && proto == IP_PROTO_UDP)
        put_be16(p->data + p->l4 + 4, (uint16_t)(p->len - p->l4));
    pkt_fix_ip(p);
    pkt_fix_l4(p);
}

/* Record: flags, length, gso_size if flags say so, bytes. */
static void input_packet(struct embedder *e, uint8_t op)
{
    static struct pkt p;
    uint8_t flags = draw(e);
    uint16_t len = 0, gso_size = 0;
    const uint8_t *bytes;

    span_u16(&e->in, &len);
    if (flags & 32)
        span_u16(&e->in, &gso_size);
    if (len > e->in.len)
        len = (uint16_t)e->in.len;
    span_bytes(&e->in, len, &bytes);
    memset(p.data, 0, 128);
    if (len > 0)
        memcpy(p.data, bytes, len);
    p.len = len;
    p.l4 = len > 0 && pkt_is6(&p) ? 40 : 20;
    p.meta = (struct pkt_meta){ 0 };
    if (op % 2 == 0)
        dress(e, &p, flags);
    p.meta = (struct pkt_meta){ .gso = flags & 3,
                                .needs_csum = (flags & 4) != 0,
                                .csum_valid = (flags & 8) != 0,
                                .gso_size = gso_size,
                                .csum_start = (uint16_t)p.l4,
                                .csum_offset = p.data[p.l4 == 40 ? 6 : 9] == IP_PROTO_TCP ? 16 : 6 };
    if (flags & 128 && e->s->cfg.shards > 1) {
        stack_input_handoff(e->s, e->now_us, 1, p.data, p.len, &p.meta);
        return;
    }
    memcpy(stack_rx_slot(e->s), p.data, p.len);
    stack_input(e->s, e->now_us, p.len, &p.meta);
}

static void send_datagrams(struct embedder *e, struct udp_endpoint *p, const struct ip_port *from)
{
    struct iovec iov[140];
    uint16_t size = 0;
    int n = 1 + draw(e) % 140;

    span_u16(&e->in, &size);
    if (n > 20)
        size %= 1500;
    for (int i = 0; i < n; i++)
        iov[i] = (struct iovec){ .iov_base = bulk, .iov_len = i + 1 < n ? size : size / 2u };
    udp_send(p, from, iov, n, n > 1 ? size : 0);
}

/* An outcome of any kind, sound or not, for a token or for an echo that nobody sent. */
static void call_echo(struct embedder *e, uint8_t op)
{
    static const uint8_t bytes[2000] = { 0x45, 0, 7 };
    struct echo_outcome o = { .kind = (enum echo_outcome_kind)(draw(e) % (ECHO_OUT_REJECT + 1)),
                              .why = (enum stack_reject)(op % (REJECT_TTL_EXCEEDED + 1)),
                              .type = draw(e),
                              .code = draw(e),
                              .info = draw(e) * 257u,
                              .ttl = draw(e),
                              .has_tos = (op & 32) != 0,
                              .relayed = (op & 16) != 0 };
    struct echo_addr a = { .id = op, .seq = draw(e) };
    uint8_t how = draw(e);

    ip_parse(how & 1 ? "10.0.0.2" : "fd00::2", &a.client);
    ip_parse(how & 2 ? "192.0.2.80" : "2001:db8::80", &a.target);
    if (how & 4)
        o.source = how & 8 ? a.target : a.client;
    if (how & 16)
        o = (struct echo_outcome){ .kind = o.kind, .payload = bytes, .payload_len = draw(e) * 7u };
    if (how & 32) {
        o.quote = bytes;
        o.quote_len = draw(e) * 7u;
    }
    if (how & 64)
        echo_inject(e->s, &o, &a);
    else
        echo_complete(e->s, e->tokens[op % OBJECTS], &o);
}

static void call_udp(struct embedder *e, uint8_t op)
{
    size_t i = op % OBJECTS;

    if (e->udp_requests[i] != NULL)
        udp_decide(e, e->udp_requests[i], draw(e));
    if (e->endpoints[i] == NULL)
        return;
    if (op & 16) {
        send_datagrams(e, e->endpoints[i], &e->peer[i]);
    } else if (op & 32) {
        udp_endpoint_error(e->endpoints[i], &e->peer[i], NULL,
                           (enum stack_reject)(draw(e) % (REJECT_TTL_EXCEEDED + 1)), op & 64 ? 1300 : 0);
    } else {
        udp_endpoint_close(e->endpoints[i]);
        e->endpoints[i] = NULL;
    }
}

static void call_tcp(struct embedder *e, uint8_t op)
{
    size_t i = op % OBJECTS;
    struct tcp_conn *c;
    uint8_t *space;

    if (e->tcp_requests[i] != NULL)
        tcp_decide(e, e->tcp_requests[i], draw(e));
    c = e->conns[i];
    if (c == NULL)
        return;
    switch (op >> 4 & 7) {
    case 0:
        tcp_shutdown(c);
        break;
    case 1:
        tcp_abort(c);
        break;
    case 2:
        e->conns[i] = NULL;
        tcp_release(c);
        break;
    case 3:
        tcp_consume(c, tcp_readable_bytes(c));
        break;
    default: {
        size_t room = tcp_tx_space(c, &space), n = (size_t)draw(e) * 300;

        if (room == 0)
            return;
        n = n < room ? n : room;
        memcpy(space, bulk, n);
        tcp_tx_commit(c, n);
        break;
    }
    }
}

static void check_sums(const struct stack *s)
{
    const struct stack_counters *c = stack_counters(s);

    must(c->ip_in + c->ip_handoff_in + c->frag_done ==
         c->tcp_in + c->udp_in + c->icmp_in + c->ip_short + c->ip_version + c->ip_malformed + c->ip_checksum +
             c->ip_bad_src + c->ip_bad_dst + c->ip_options + c->ip_proto + c->ip_ext_header + c->frag_in +
             c->frag_malformed + c->frag_overlap + c->frag_no_memory);
    must(s->block_bytes <= s->cfg.buffer_cap_bytes);
}

static void step(struct embedder *e)
{
    uint8_t op = draw(e);

    switch (op >> 5) {
    case 0:
    case 1:
    case 2:
        input_packet(e, op);
        break;
    case 3:
        stack_batch_end(e->s, e->now_us);
        break;
    case 4:
        e->now_us += (uint64_t)draw(e) << (op % 24);
        stack_advance(e->s, e->now_us);
        must(stack_next_deadline(e->s) >= stack_now_us(e->s) / 1000 * 1000);
        break;
    case 5:
        call_udp(e, draw(e));
        break;
    case 6:
        call_tcp(e, draw(e));
        break;
    default:
        if (op % 4 == 0)
            stack_set_mtu(e->s, 576 + draw(e) * 40u);
        else
            call_echo(e, op);
        break;
    }
    check_sums(e->s);
}

static void let_go(struct embedder *e)
{
    for (size_t i = 0; i < OBJECTS; i++) {
        if (e->tcp_requests[i] != NULL)
            tcp_decide(e, e->tcp_requests[i], 255);
        if (e->conns[i] != NULL)
            tcp_release(e->conns[i]);
        e->conns[i] = NULL;
        if (e->udp_requests[i] != NULL)
            udp_decide(e, e->udp_requests[i], 255);
        if (e->endpoints[i] != NULL)
            udp_endpoint_close(e->endpoints[i]);
        e->endpoints[i] = NULL;
    }
}

/* Let go of everything, wait for all timers, and see that no packet memory is left behind but what the shard keeps ready:
 * the slot to read into, its spare, and the chunk that upstream data land in. */
static void finish(struct embedder *e)
{
    size_t kept = block_cost(e->s, BLOCK_SLOT) * (1u + (e->s->rx_spare != NULL));
    uint64_t next, end = e->now_us + DRAIN_US;
    uint32_t turns = 0;

    stack_batch_end(e->s, e->now_us);
    let_go(e);
    while ((next = stack_next_deadline(e->s)) < end) {
        must(++turns < 100000); /* a timer that re-arms itself for ever */
        e->now_us = next > e->now_us ? next : e->now_us + 1000;
        stack_advance(e->s, e->now_us);
    }
    if (e->s->tcp->landing != NULL)
        kept += block_cost(e->s, (enum block_class)e->s->tcp->landing->class_);
    must(e->s->block_bytes == kept);
    must(stack_tcp_count(e->s) == 0 && stack_udp_count(e->s) == 0 && stack_half_open_count(e->s) == 0);
    check_sums(e->s);
    stack_fini(e->s);
}

static void configure(struct stack_config *c, uint8_t conf)
{
    stack_config_defaults(c);
    c->rx_slots = 8;
    c->buffer_cap_bytes = 2 << 20;
    c->max_tcp = c->max_half_open = c->max_time_wait = c->max_udp = 16;
    c->max_half_open_per_source = 8;
    c->offload_csum = (conf & (CONF_CSUM | CONF_SUPER)) != 0;
    c->offload_tso = c->offload_uso = (conf & CONF_SUPER) != 0;
    c->shards = conf & CONF_SHARDS ? 3 : 1;
    c->promiscuous = (conf & CONF_STRICT) == 0;
    if (conf & CONF_ECHO_REPLY)
        c->echo_temporary = ECHO_TEMPORARY_REPLY;
    if (conf & CONF_NO_ADDRESS)
        return;
    ip_parse("10.0.0.1", &c->address[0]);
    ip_parse("fd00::1", &c->address[1]);
    c->address_len[0] = 120;
    c->address_len[1] = 64;
    c->addresses = 2;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct stack_events ev = { .emit = on_emit,
                               .handoff = on_handoff,
                               .on_tcp_request = on_tcp_request,
                               .on_tcp_request_gone = on_gone,
                               .on_tcp_open = on_open,
                               .on_tcp_readable = on_readable,
                               .on_tcp_writable = on_open,
                               .on_tcp_closed = on_gone,
                               .on_udp_request = on_udp_request,
                               .on_udp_request_gone = on_udp_gone,
                               .on_udp_datagram = on_datagram,
                               .on_echo = on_echo };
    struct embedder e = { .in = { data, size }, .now_us = 1000000 };
    struct stack_config c;
    uint8_t fail = 0;

    span_u8(&e.in, &e.conf);
    span_u8(&e.in, &fail);
    configure(&c, e.conf);
    if (e.conf & CONF_NO_ECHO)
        ev.on_echo = NULL;
    if (region == NULL) {
        region_bytes = stack_memory_bytes(&c) + (1 << 20);
        region = mmap(NULL, region_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                      -1, 0);
        must(region != MAP_FAILED);
    }
    must(stack_memory_bytes(&c) <= region_bytes);
    madvise(region, region_bytes, MADV_DONTNEED); /* zeroes again */
    e.s = stack_init(region, &c, &ev, &e, e.now_us);
    must(e.s != NULL);
    for (int i = 0; i < BLOCK_CLASSES; i++)
        e.s->blocks[i].fail_every = (fail >> (2 * i) & 3) * 2u;
    while (e.in.len > 0)
        step(&e);
    finish(&e);
    return 0;
}
