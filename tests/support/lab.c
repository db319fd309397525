/* lab.c - see lab.h. Packets are built and read by pkt_build.c, which shares no code with the stack. */
#include "lab.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "pkt_build.h"

#define CLIENT_PORT 40000
#define TARGET_PORT 80
#define START_US    1000000000ull
#define KEPT_BYTES  (64u << 20)
#define READ_RANGES 64

uint8_t lab_pattern(uint64_t at)
{
    return (uint8_t)(at * 31 + (at >> 8) * 7 + (at >> 16));
}

static const char *client_text(const struct lab *lab)
{
    if (lab->opt.client != NULL)
        return lab->opt.client;
    return lab->opt.v6 ? "fd00::2" : "10.0.0.2";
}

static const char *target_text(const struct lab *lab)
{
    return lab->opt.v6 ? "2001:db8::80" : "192.0.2.80";
}

/* ---- what the stack emits ---------------------------------------------------------------------------- */

static void read_options(struct lab *lab, struct lab_out *o, const uint8_t *p, size_t len)
{
    size_t i = 0;

    o->ws = -1;
    while (i < len && p[i] != 0) {
        size_t n = p[i] == 1 ? 1 : i + 1 < len ? p[i + 1] : 0;

        assert(n > 0 && i + n <= len);
        if (p[i] == 2)
            o->mss = get_be16(p + i + 2);
        else if (p[i] == 3)
            o->ws = p[i + 2];
        else if (p[i] == 4)
            o->sack_ok = true;
        else if (p[i] == 8) {
            o->ts = true;
            o->tsval = get_be32(p + i + 2);
            o->tsecr = get_be32(p + i + 6);
        } else if (p[i] == 5) {
            o->sacks = (int)(n - 2) / 8;
            for (int k = 0; k < o->sacks; k++) {
                o->sack[k].start = get_be32(p + i + 2 + 8 * k) - lab->opt.irs;
                o->sack[k].end = get_be32(p + i + 6 + 8 * k) - lab->opt.irs;
            }
        }
        i += n;
    }
}

static void read_tcp(struct lab *lab, struct lab_out *o, const struct pkt_view *v)
{
    size_t header = (size_t)(v->l4[12] >> 4) * 4;

    o->flags = v->l4[13];
    o->raw_seq = get_be32(v->l4 + 4);
    o->raw_ack = get_be32(v->l4 + 8);
    o->wnd = get_be16(v->l4 + 14);
    o->port = v->dport;
    o->len = (uint32_t)(v->l4_len - header);
    o->options_len = header - 20;
    memcpy(o->options, v->l4 + 20, o->options_len);
    read_options(lab, o, v->l4 + 20, header - 20);
    if ((o->flags & (LAB_SYN | LAB_ACK)) == (LAB_SYN | LAB_ACK)) {
        lab->iss = o->raw_seq;
        lab->snd_shift = o->ws >= 0 ? o->ws : 0;
    } else {
        o->wnd <<= lab->snd_shift;
    }
    o->seq = o->raw_seq - lab->iss;
    o->ack = o->raw_ack - lab->opt.irs;
    if (o->ts)
        lab->last_tsval = o->tsval;
    if (lab->keep_payload && lab->bytes_used + o->len <= KEPT_BYTES) {
        memcpy(lab->bytes + lab->bytes_used, v->l4 + header, o->len);
        o->data = lab->bytes + lab->bytes_used;
        lab->bytes_used += o->len;
    } else {
        o->data = v->l4 + header;
    }
}

static int on_emit(void *arg, const struct iovec *iov, int iovcnt, const struct pkt_meta *meta)
{
    static uint8_t packet[PKT_MAX];
    struct lab *lab = arg;
    struct lab_out o = { .at_us = lab->now_us, .gso_size = meta->gso_size };
    struct pkt_view v;
    const char *wrong;
    size_t len = 0;

    assert(iovcnt <= STACK_EMIT_IOV);
    for (int i = 0; i < iovcnt; i++) {
        assert(len + iov[i].iov_len <= sizeof(packet));
        memcpy(packet + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    wrong = pkt_parse(packet, len, meta, &v);
    if (wrong != NULL) {
        fprintf(stderr, "the stack emitted a bad packet: %s\n", wrong);
        abort();
    }
    o.packet_bytes = (uint32_t)len;
    o.packet = packet;
    o.df = v.df;
    o.tos = v.tos;
    o.ttl = v.ttl;
    o.client = get_be32(v.dst.b + 12);
    o.flow_label = lab->opt.v6 ? get_be32(packet) & 0xfffff : 0;
    if (v.proto == IP_PROTO_TCP) {
        read_tcp(lab, &o, &v);
    } else {
        o.icmp_type = v.type;
        o.icmp_code = v.code;
    }
    if (lab->hook != NULL)
        lab->hook(lab, &o);
    else if (lab->outs < LAB_SEGMENTS)
        lab->out[lab->outs++] = o;
    return lab->emit_error;
}

/* ---- the embedder ------------------------------------------------------------------------------------ */

static void fill_send_queue(struct lab *lab)
{
    uint8_t *space;
    size_t room;

    while (lab->conn != NULL && lab->put < lab->to_put && (room = tcp_tx_space(lab->conn, &space)) > 0) {
        size_t n = lab->to_put - lab->put < room ? (size_t)(lab->to_put - lab->put) : room;

        for (size_t i = 0; i < n; i++)
            space[i] = lab_pattern(lab->put + i);
        tcp_tx_commit(lab->conn, n);
        lab->put += n;
    }
    if (lab->conn != NULL && lab->put == lab->to_put && lab->shutdown_when_put)
        tcp_shutdown(lab->conn);
}

void lab_read(struct lab *lab, size_t most)
{
    struct iovec iov[READ_RANGES];
    int n = tcp_peek(lab->conn, iov, READ_RANGES);
    size_t done = 0;

    for (int i = 0; i < n && done < most; i++) {
        size_t part = iov[i].iov_len < most - done ? iov[i].iov_len : most - done;

        for (size_t k = 0; k < part; k++)
            lab->got_wrong |= ((const uint8_t *)iov[i].iov_base)[k] != lab_pattern(lab->got + k);
        lab->got += part;
        done += part;
    }
    tcp_consume(lab->conn, done);
    if (tcp_at_eof(lab->conn))
        lab->eof = true;
}

static void on_request(void *arg, struct tcp_request *r)
{
    struct lab *lab = arg;

    lab->requests++;
    lab->request = r;
    tcp_request_set_user(r, lab);
    if (lab->opt.hold)
        return;
    if (tcp_request_accept(r, lab, &lab->conn) == 0)
        lab->request = NULL;
}

static void on_gone(void *user, int err)
{
    struct lab *lab = user;

    lab->gones++;
    lab->gone_err = err;
    lab->request = NULL;
}

static void on_open(void *user)
{
    struct lab *lab = user;

    lab->opens++;
    fill_send_queue(lab);
}

static void on_readable(void *user)
{
    struct lab *lab = user;

    lab->readables++;
    if (lab->on_readable != NULL) {
        lab->on_readable(lab);
        return;
    }
    if (lab->opt.stall)
        return;
    while (tcp_readable_bytes(lab->conn) > 0)
        lab_read(lab, SIZE_MAX);
    lab->eof = tcp_at_eof(lab->conn);
    if (lab->eof && lab->shutdown_at_eof)
        tcp_shutdown(lab->conn);
}

static void on_writable(void *user)
{
    struct lab *lab = user;

    lab->writables++;
    fill_send_queue(lab);
}

static void on_closed(void *user, int err)
{
    struct lab *lab = user;

    lab->closes++;
    lab->close_err = err;
    lab->conn = NULL;
}

/* ---- the client -------------------------------------------------------------------------------------- */

static size_t put_options(struct lab *lab, const struct lab_seg *s, uint8_t *at)
{
    struct buf b;
    bool syn = s->flags & LAB_SYN;
    uint32_t tsval = s->tsval != 0 ? s->tsval : (uint32_t)(lab->now_us / 1000) + lab->ts_base;

    buf_init(&b, at, 40);
    if (s->options != NULL) {
        buf_put(&b, s->options, s->options_len);
    } else {
        if (syn || s->mss != 0) {
            buf_u16(&b, 0x0204);
            buf_u16(&b, s->mss != 0 ? s->mss : lab->opt.v6 ? 1440 : 1460);
        }
        if (syn && lab->opt.sack)
            buf_u32(&b, 0x01010402);
        if (lab->opt.ts && !s->no_ts && !(s->flags & LAB_RST)) {
            buf_u32(&b, 0x0101080a);
            buf_u32(&b, s->old_ts ? tsval - 100000 : tsval);
            buf_u32(&b, lab->last_tsval);
        }
        if (syn && lab->opt.ws >= 0)
            buf_u32(&b, 0x01030300u | (uint32_t)lab->opt.ws);
        if (s->sacks > 0) {
            buf_u16(&b, 0x0101);
            buf_u8(&b, 5);
            buf_u8(&b, (uint8_t)(2 + 8 * s->sacks));
            for (int i = 0; i < s->sacks; i++) {
                buf_u32(&b, s->sack[i].start + lab->iss);
                buf_u32(&b, s->sack[i].end + lab->iss);
            }
        }
    }
    assert(!b.full);
    while (b.len % 4 != 0)
        buf_u8(&b, 0);
    return b.len;
}

void lab_feed(struct lab *lab, const struct lab_seg *s)
{
    static struct pkt p;
    static uint8_t l4[PKT_MAX];
    size_t header = 20 + put_options(lab, s, l4 + 20);

    put_be16(l4, s->port != 0 ? s->port : CLIENT_PORT);
    put_be16(l4 + 2, TARGET_PORT);
    put_be32(l4 + 4, s->seq + lab->opt.irs);
    put_be32(l4 + 8, s->flags & LAB_ACK ? s->ack + lab->iss : 0);
    l4[12] = (uint8_t)((s->drop_offset ? 4 : s->long_offset ? 15 : header / 4) << 4);
    l4[12] |= s->ae;
    l4[13] = s->flags;
    put_be16(l4 + 14, s->zero_wnd ? 0 : s->wnd != 0 ? (uint16_t)s->wnd : 65535);
    put_be16(l4 + 16, 0);
    put_be16(l4 + 18, s->urgent);
    assert(header + s->len < sizeof(l4) - 100);
    for (uint32_t i = 0; i < s->len; i++)
        l4[header + i] = s->data != NULL ? ((const uint8_t *)s->data)[i] : lab_pattern(s->seq - 1 + i);
    pkt_raw(&p, client_text(lab), target_text(lab), IP_PROTO_TCP, l4, header + s->len);
    if (s->tos != 0) {
        if (lab->opt.v6)
            p.data[1] = (uint8_t)(s->tos << 4);
        else
            p.data[1] = s->tos;
        pkt_fix_ip(&p);
    }
    pkt_fix_l4(&p);
    if (s->bad_checksum)
        p.data[p.l4 + 16] ^= 0x55;
    if (s->flip_bit > 0) {
        size_t bit = (s->flip_bit - 1) % (p.len * 8);

        p.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    if (s->gso_size > 0) {
        p.meta.gso = lab->opt.v6 ? PKT_GSO_TCP6 : PKT_GSO_TCP4;
        p.meta.gso_size = s->gso_size;
        p.meta.csum_valid = true;
    }
    memcpy(stack_rx_slot(lab->stack), p.data, p.len);
    stack_input(lab->stack, lab->now_us, p.len, &p.meta);
}

void lab_batch(struct lab *lab)
{
    stack_batch_end(lab->stack, lab->now_us);
}

void lab_send(struct lab *lab, const struct lab_seg *s)
{
    lab_feed(lab, s);
    lab_batch(lab);
}

void lab_data(struct lab *lab, uint32_t seq, uint32_t ack, uint32_t len)
{
    lab_send(lab, &(struct lab_seg){ .flags = LAB_ACK, .seq = seq, .ack = ack, .len = len });
}

void lab_ack(struct lab *lab, uint32_t seq, uint32_t ack)
{
    lab_data(lab, seq, ack, 0);
}

void lab_connect(struct lab *lab)
{
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN });
    lab->now_us += 100;
    lab_ack(lab, 1, 1);
    lab_clear(lab);
}

struct lab *lab_connected(const struct lab_options *o)
{
    struct lab *lab = lab_new(o);

    lab_connect(lab);
    return lab;
}

struct lab *lab_stalled(void)
{
    struct lab_options o;

    lab_options_default(&o);
    o.stall = true;
    return lab_connected(&o);
}

void lab_run_us(struct lab *lab, uint64_t us)
{
    uint64_t until = lab->now_us + us, next;

    while ((next = stack_next_deadline(lab->stack)) <= until) {
        if (next > lab->now_us)
            lab->now_us = next;
        stack_advance(lab->stack, lab->now_us);
        if (next == stack_next_deadline(lab->stack) && next <= lab->now_us)
            lab->now_us += 1000; /* nothing may stand still */
    }
    if (until > lab->now_us)
        lab->now_us = until;
    stack_advance(lab->stack, lab->now_us);
}

void lab_run_until_ms(struct lab *lab, uint64_t ms)
{
    uint64_t at = START_US + ms * 1000;

    if (at > lab->now_us)
        lab_run_us(lab, at - lab->now_us);
}

void lab_write(struct lab *lab, uint64_t bytes)
{
    lab->to_put += bytes;
    fill_send_queue(lab);
    lab_batch(lab);
}

/* ---- looking ----------------------------------------------------------------------------------------- */

void lab_clear(struct lab *lab)
{
    lab->outs = 0;
    lab->bytes_used = 0;
}

const char *lab_flags_text(uint8_t flags, char out[40])
{
    static const char *const names[] = { "FIN", "SYN", "RST", NULL, "ACK", "URG", "ECE", "CWR" };
    static const int order[] = { 1, 0, 2, 4, 5, 6, 7 };

    out[0] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        if (!(flags & 1 << order[i]))
            continue;
        if (out[0] != '\0')
            strcat(out, ",");
        strcat(out, names[order[i]]);
    }
    return out;
}

unsigned lab_count(const struct lab *lab, const char *flags)
{
    unsigned n = 0;
    char text[40];

    for (size_t i = 0; i < lab->outs; i++)
        n += strcmp(lab_flags_text(lab->out[i].flags, text), flags) == 0;
    return n;
}

const struct lab_out *lab_last(const struct lab *lab)
{
    return lab->outs > 0 ? &lab->out[lab->outs - 1] : NULL;
}

uint32_t lab_in_use(const struct lab *lab, const char *pool)
{
    struct stack_pool_info info[32];
    size_t n = stack_pools(lab->stack, info, ARRAY_LEN(info));

    for (size_t i = 0; i < n; i++) {
        if (strcmp(info[i].name, pool) == 0)
            return info[i].in_use;
    }
    return UINT32_MAX;
}

struct tcp_info lab_info(const struct lab *lab)
{
    struct tcp_info info;

    tcp_conn_info(lab->conn, &info);
    return info;
}

/* ---- life -------------------------------------------------------------------------------------------- */

void lab_options_default(struct lab_options *o)
{
    *o = (struct lab_options){ .ts = true, .sack = true, .ws = 7, .irs = 1000000 };
    stack_config_defaults(&o->config);
    o->config.max_tcp = 1024;
    o->config.max_half_open = 64;
    o->config.max_half_open_per_source = 32;
    o->config.max_time_wait = 64;
    o->config.max_udp = 64;
    o->config.rx_slots = 64;
    o->config.buffer_cap_bytes = 64u << 20;
    o->config.offload_csum = o->config.offload_tso = true;
    o->config.secret = (struct hash_key){ 1, 2 };
    o->config.seed = 1;
}

struct lab *lab_new(const struct lab_options *o)
{
    static const struct stack_events events = {
        .emit = on_emit,
        .on_tcp_request = on_request,
        .on_tcp_request_gone = on_gone,
        .on_tcp_open = on_open,
        .on_tcp_readable = on_readable,
        .on_tcp_writable = on_writable,
        .on_tcp_closed = on_closed,
    };
    struct lab *lab = calloc(1, sizeof(*lab));
    struct stack_events ev = o->embedder != NULL ? *o->embedder : events;

    ev.emit = on_emit;
    ev.driver = lab;
    lab->opt = *o;
    lab->now_us = START_US;
    lab->ts_base = 500000;
    lab->out = calloc(LAB_SEGMENTS, sizeof(*lab->out));
    lab->keep_payload = true;
    lab->bytes =
        mmap(NULL, KEPT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    lab->memory_len = stack_memory_bytes(&o->config);
    lab->memory = mmap(NULL, lab->memory_len, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert(lab->bytes != MAP_FAILED && lab->memory != MAP_FAILED);
    lab->stack =
        stack_init(lab->memory, &o->config, &ev, o->embedder != NULL ? o->embedder_arg : lab, lab->now_us);
    assert(lab->stack != NULL);
    return lab;
}

void lab_free(struct lab *lab)
{
    if (lab == NULL)
        return;
    stack_fini(lab->stack);
    munmap(lab->memory, lab->memory_len);
    munmap(lab->bytes, KEPT_BYTES);
    free(lab->out);
    free(lab);
}
