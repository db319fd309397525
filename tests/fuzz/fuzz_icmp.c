/* fuzz_icmp.c - any bytes as ICMP messages, IPv4 options and quoted packets: what fuzz_packet.c reaches only
 * by luck, because here lengths and checksums are right.
 *
 * The first byte of a record says what its bytes are: a message, a message behind IPv4 options, an error that
 * quotes them, or an outcome. Promises: every packet that leaves is one that a careful host takes; no error
 * answers an error; every request is accounted for once (icmp.md 2.8); no packet memory is left behind. */
#include "ip_lab.h"
#include "stack/ip_impl.h"

#include <stdlib.h>
#include <sys/mman.h>

#define RECORD_MAX 1400
#define TOKENS     16

enum record { MESSAGE, OPTIONS, QUOTE, OUTCOME, RECORDS };

struct run {
    struct stack *s;
    struct span in;
    uint64_t now_us;
    bool in_is_error; /* the packet that is being handled */
    echo_token token[TOKENS];
    uint32_t tokens;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool promise)
{
    if (!promise)
        abort();
}

static uint8_t draw(struct run *r)
{
    uint8_t v = 0;

    span_u8(&r->in, &v);
    return v;
}

static bool is_error(bool v6, uint8_t type)
{
    return v6 ? type < 128 : type == 3 || type == 11 || type == 12;
}

static int on_emit(void *arg, const struct iovec *iov, int iovcnt, const struct pkt_meta *meta)
{
    static uint8_t whole[PKT_MAX];
    struct run *r = arg;
    struct pkt_view v = { 0 };
    size_t len = 0;

    for (int i = 0; i < iovcnt; i++) {
        must(len + iov[i].iov_len <= sizeof(whole));
        if (iov[i].iov_len > 0)
            memcpy(whole + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    must(pkt_parse(whole, len, meta, &v) == NULL);
    must(len <= 1500);
    if (!v.fragment && (v.proto == IP_PROTO_ICMP || v.proto == IP_PROTO_ICMPV6))
        must(!(r->in_is_error && is_error(v.proto == IP_PROTO_ICMPV6, v.type)));
    return 0;
}

static enum echo_verdict on_echo(void *arg, struct echo_req *req)
{
    struct run *r = arg;
    uint8_t how = draw(r), sum = 0;

    for (uint32_t i = 0; i < req->payload_len; i++) /* all of it can be read */
        sum ^= req->payload[i];
    for (uint16_t i = 0; i < req->ip_header_len; i++)
        sum ^= req->ip_header[i];
    switch (how % 8) {
    case 0:
        echo_reply(req);
        break;
    case 1:
        echo_reject(req, (enum stack_reject)(sum % (REJECT_TTL_EXCEEDED + 1)));
        break;
    case 2:
        echo_expire(req);
        break;
    case 3:
        echo_reject_too_big(req, 600u + sum);
        break;
    case 4:
        r->token[r->tokens++ % TOKENS] = echo_detach(req, how / 8 % 8);
        break;
    default:
        break;
    }
    return how & 128 ? ECHO_CONSUMED : ECHO_PASS;
}

static void on_reply(void *user, const struct icmp_reply *reply)
{
    (void)user;
    must(reply->is_error || reply->payload != NULL);
}

static void on_udp_request(void *arg, struct udp_request *u)
{
    struct udp_endpoint *e;

    udp_request_accept(u, UDP_MATCH_CLIENT, arg, &e);
}

static void on_datagram(void *user, const struct udp_datagram *d)
{
    (void)user;
    (void)d;
}

static void on_tcp_request(void *arg, struct tcp_request *t)
{
    (void)arg;
    tcp_request_reject(t, REJECT_SILENT);
}

static void on_tcp_gone(void *user, int err)
{
    (void)user;
    (void)err;
}

static void feed(struct run *r, const struct pkt *p)
{
    memcpy(stack_rx_slot(r->s), p->data, p->len);
    stack_input(r->s, r->now_us, p->len, &p->meta);
    stack_batch_end(r->s, r->now_us);
    r->in_is_error = false;
}

static void message(struct run *r, bool v6, uint8_t how, const uint8_t *bytes, size_t len, bool options)
{
    static const char *const dst4[] = { "10.0.0.1", "192.0.2.80", "10.0.0.255", "224.0.0.1" };
    static const char *const dst6[] = { "fd00::1", "2001:db8::80", "ff02::1", "fe80::1" };
    static struct pkt p;
    size_t skip = options && !v6 ? (size_t)(how / 16 % 11) * 4 : 0;
    uint8_t block[40] = { 0 };

    if (skip > len)
        skip = len & ~(size_t)3;
    if (skip > 0)
        memcpy(block, bytes, skip);
    pkt_raw(&p, v6 ? "fd00::2" : "10.0.0.2", v6 ? dst6[how % 4] : dst4[how % 4],
            v6 ? IP_PROTO_ICMPV6 : IP_PROTO_ICMP, bytes + skip, len - skip);
    if (len - skip >= 4 && (how & 8) == 0)
        pkt_fix_l4(&p);
    if (skip > 0) {
        pkt_insert_options(&p, block, skip);
        pkt_fix_ip(&p);
    }
    r->in_is_error = len > skip && is_error(v6, bytes[skip]);
    feed(r, &p);
}

static void quote(struct run *r, bool v6, uint8_t how, const uint8_t *bytes, size_t len)
{
    static const uint8_t types4[] = { 3, 3, 11, 12 }, types6[] = { 1, 2, 3, 4 };
    static struct pkt p, sent;
    uint32_t mtu = 600u + how * 8u;

    if (how & 4) { /* a packet that we could have sent, with some bytes changed */
        pkt_udp(&sent, v6 ? "2001:db8::80" : "192.0.2.80", 53, v6 ? "fd00::2" : "10.0.0.2", 4000, "payload",
                7);
        if (how & 8)
            pkt_echo(&sent, v6 ? "fd00::1" : "10.0.0.1", v6 ? "fd00::2" : "10.0.0.2", 7, 1, "payload", 7);
        for (size_t i = 0; i + 1 < len; i += 2)
            sent.data[bytes[i] % sent.len] ^= bytes[i + 1];
        bytes = sent.data;
        len = how & 16 ? sent.len / 2 : sent.len;
    }
    pkt_icmp(&p, v6 ? "fd00::2" : "10.0.0.2",
             how & 8 ? (v6 ? "fd00::1" : "10.0.0.1") : (v6 ? "2001:db8::80" : "192.0.2.80"),
             v6 ? types6[how % 4] : types4[how % 4], how % 4 == 1 && !v6 ? 4 : 0, mtu, bytes, len);
    r->in_is_error = true;
    feed(r, &p);
}

static void outcome(struct run *r, bool v6, uint8_t how, const uint8_t *bytes, size_t len)
{
    struct echo_outcome o = { .kind = (enum echo_outcome_kind)(how % (ECHO_OUT_REJECT + 1)),
                              .why = (enum stack_reject)(how / 8 % (REJECT_TTL_EXCEEDED + 1)),
                              .type = draw(r),
                              .code = draw(r),
                              .info = draw(r) * 257u,
                              .relayed = (how & 16) != 0 };
    struct echo_addr a = { .id = how, .seq = how };
    uint8_t packed[RECORD_MAX * 2 + 256];
    struct echo_outcome back;
    size_t need;

    ip_parse(v6 ? "fd00::2" : "10.0.0.2", &a.client);
    ip_parse(v6 ? "2001:db8::80" : "192.0.2.80", &a.target);
    if (how & 32) {
        o.payload = bytes;
        o.payload_len = (uint32_t)len;
    } else if (how & 64) {
        o.quote = bytes;
        o.quote_len = (uint32_t)len;
    }
    if (how & 128)
        o.source = a.target;
    need = echo_outcome_pack(&o, packed, sizeof(packed));
    must(need <= sizeof(packed) && echo_outcome_unpack(packed, need, &back));
    if (how & 1)
        echo_complete(r->s, r->token[how / 2 % TOKENS], &back);
    else
        echo_inject(r->s, &back, &a);
}

static void step(struct run *r)
{
    uint8_t kind = draw(r), how = draw(r), size = draw(r);
    size_t len = (size_t)size * (kind & 64 ? 5 : 1);
    bool v6 = (kind & 32) != 0;
    const uint8_t *bytes;

    if (len > r->in.len)
        len = r->in.len;
    if (len > RECORD_MAX)
        len = RECORD_MAX;
    if (!span_bytes(&r->in, len, &bytes))
        return;
    switch ((enum record)(kind % RECORDS)) {
    case MESSAGE:
        message(r, v6, how, bytes, len, false);
        break;
    case OPTIONS:
        message(r, v6, how, bytes, len, true);
        break;
    case QUOTE:
        quote(r, v6, how, bytes, len);
        break;
    case OUTCOME:
    case RECORDS:
        outcome(r, v6, how, bytes, len);
        break;
    }
    if (kind & 128) {
        r->now_us += 500000;
        stack_advance(r->s, r->now_us);
    }
}

#define SUM_HOLDS(c, f)                                                                                      \
    must((c)->icmp##f##_rx_echo_request <= (c)->icmp##f##_tx_echo_reply + (c)->icmp##f##_consumed +          \
                                               (c)->icmp##f##_rejected + (c)->icmp##f##_detached +           \
                                               (c)->icmp##f##_suppressed + (c)->icmp##f##_no_route +         \
                                               (c)->icmp##f##_rate_limited + (c)->icmp##f##_dropped)

/* Completed tokens and injections add to the right side; no request may be missing from it. */
static void finish(struct run *r)
{
    const struct stack_counters *c = stack_counters(r->s);
    size_t kept = block_cost(r->s, BLOCK_SLOT);

    SUM_HOLDS(c, 4);
    SUM_HOLDS(c, 6);
    r->now_us += 700000000; /* tokens and pieces expire */
    stack_advance(r->s, r->now_us);
    must(r->s->block_bytes == kept * (1u + (r->s->rx_spare != NULL)));
    stack_fini(r->s);
}

static void open_ends(struct run *r)
{
    static struct pkt p;

    for (int v6 = 0; v6 < 2; v6++) { /* a mapping and an endpoint that errors may be about */
        struct icmp_bind b = { .family = v6 ? IP_FAMILY_6 : IP_FAMILY_4, .id = 7 };
        struct icmp_endpoint *e;

        must(icmp_endpoint_open(r->s, &b, on_reply, r, &e) == 0);
        pkt_udp(&p, v6 ? "fd00::2" : "10.0.0.2", 4000, v6 ? "2001:db8::80" : "192.0.2.80", 53, "x", 1);
        feed(r, &p);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void *region;
    static size_t bytes;
    struct stack_events ev = { .emit = on_emit,
                               .on_tcp_request = on_tcp_request,
                               .on_tcp_request_gone = on_tcp_gone,
                               .on_udp_request = on_udp_request,
                               .on_udp_datagram = on_datagram,
                               .on_echo = on_echo };
    struct run r = { .in = { data, size }, .now_us = 1000000 };
    struct stack_config c;
    uint8_t conf = draw(&r);

    stack_config_defaults(&c);
    c.rx_slots = 8;
    c.buffer_cap_bytes = 2 << 20;
    c.max_tcp = c.max_half_open = c.max_time_wait = c.max_udp = 16;
    c.echo_endpoint_shadows = conf & 1;
    c.echo_hop = (conf & 2) != 0;
    c.spoofing = (conf & 4) == 0;
    c.echo_temporary = conf & 8 ? ECHO_TEMPORARY_REPLY : ECHO_TEMPORARY_COMPAT;
    ip_parse("10.0.0.1", &c.address[0]);
    ip_parse("fd00::1", &c.address[1]);
    c.address_len[0] = 120;
    c.address_len[1] = 64;
    c.addresses = conf & 16 ? 0 : 2;
    if (region == NULL) {
        bytes = stack_memory_bytes(&c) + (1 << 20);
        region =
            mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        must(region != MAP_FAILED);
    }
    madvise(region, bytes, MADV_DONTNEED); /* zeroes again */
    r.s = stack_init(region, &c, &ev, &r, r.now_us);
    must(r.s != NULL);
    open_ends(&r);
    while (r.in.len > 0)
        step(&r);
    finish(&r);
    return 0;
}
