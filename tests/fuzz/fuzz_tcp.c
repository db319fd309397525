/* fuzz_tcp.c - sequences of mutated segments around a live connection, with relay calls, time steps and
 * failing memory (tcp-stack.md FUZ-2, FUZ-3, FUZ-4). Debug builds check every invariant of tcp_check.c after
 * each step. */
#include <stdlib.h>
#include <string.h>

#include "lab.h"
#include "stack/tcp_impl.h"

#define STEPS_MAX 400

struct script {
    struct span in;
    struct lab *lab;
};

static uint8_t u8(struct script *s)
{
    uint8_t v = 0;

    return span_u8(&s->in, &v) ? v : 0;
}

static uint32_t u16(struct script *s)
{
    uint16_t v = 0;

    return span_u16(&s->in, &v) ? v : 0;
}

/* Small distances mostly, the edges of 32 bits sometimes. */
static uint32_t distance(struct script *s)
{
    uint8_t how = u8(s);

    if (how < 128)
        return how % 8;
    if (how < 192)
        return (uint32_t)(int32_t)(int16_t)u16(s);
    return u16(s) << 16 | how;
}

/* Where the stack stands, as the client sees it. */
static uint32_t next_seq(const struct lab *lab)
{
    return lab->conn != NULL ? lab->conn->rcv_nxt - lab->opt.irs : 1;
}

static uint32_t next_ack(const struct lab *lab)
{
    return lab->conn != NULL ? lab->conn->snd_nxt - lab->iss : 1;
}

static void segment(struct script *s)
{
    struct lab *lab = s->lab;
    struct lab_seg seg = { .flags = u8(s) };
    uint8_t shape = u8(s), raw[40];

    if (shape & 1)
        seg.flags = LAB_ACK;
    seg.seq = next_seq(lab) + distance(s);
    seg.ack = next_ack(lab) - distance(s);
    seg.len = shape & 2 ? u16(s) % 30000 : shape & 4 ? 1 : 0;
    seg.wnd = shape & 8 ? u16(s) : 0;
    seg.zero_wnd = (shape & 24) == 24;
    seg.gso_size = shape & 32 && seg.len > 100 ? (uint16_t)(1 + u16(s) % seg.len) : 0;
    seg.old_ts = (shape & 192) == 192;
    if ((shape & 192) == 64 && !(seg.flags & LAB_SYN)) {
        seg.sacks = 1 + u8(s) % 2;
        for (int i = 0; i < seg.sacks; i++) {
            seg.sack[i].start = next_ack(lab) - distance(s);
            seg.sack[i].end = seg.sack[i].start + distance(s) * 1448;
        }
    } else if ((shape & 192) == 128) {
        seg.options = raw;
        seg.options_len = u8(s) % 41;
        for (size_t i = 0; i < seg.options_len; i++)
            raw[i] = u8(s);
    }
    lab_feed(lab, &seg);
}

static void relay(struct script *s)
{
    struct lab *lab = s->lab;
    uint8_t what = u8(s);

    if (lab->conn == NULL)
        return;
    switch (what % 8) {
    case 0:
        lab->opt.stall = !lab->opt.stall;
        break;
    case 1:
        lab_read(lab, u16(s));
        break;
    case 2:
        lab_write(lab, u16(s));
        break;
    case 3:
        lab->to_put += 100000;
        lab_write(lab, 0);
        break;
    case 4:
        tcp_shutdown(lab->conn);
        lab->to_put = lab->put;
        break;
    case 5:
        tcp_abort(lab->conn);
        break;
    case 6:
        tcp_release(lab->conn);
        lab->conn = NULL;
        break;
    case 7:
        tcp_conn_info(lab->conn, &(struct tcp_info){ 0 });
        break;
    }
}

static void fail_some_pool(struct script *s)
{
    struct stack *st = s->lab->stack;
    struct tcp_shard *t = st->tcp;
    struct pool *const pools[] = { &t->segments,   &t->pieces,     &t->ooo,        &t->recoveries,
                                   &st->blocks[0], &st->blocks[1], &st->blocks[2], &st->blocks[3] };

    pools[u8(s) % ARRAY_LEN(pools)]->fail_every = u8(s) % 8;
}

static void icmp(struct script *s)
{
    struct flow_key flow;

    if (s->lab->conn == NULL)
        return;
    tcp_conn_flow(s->lab->conn, &flow);
    tcp_icmp_error(s->lab->stack, &flow, s->lab->conn->snd_una + distance(s), s->lab->opt.v6, u8(s),
                   u8(s) % 16, u16(s));
}

static void step(struct script *s)
{
    uint8_t what = u8(s);

    if (what < 140)
        segment(s);
    else if (what < 180)
        lab_batch(s->lab);
    else if (what < 200)
        lab_run_us(s->lab, 1ull << (what % 20 + 4));
    else if (what < 240)
        relay(s);
    else if (what < 248)
        icmp(s);
    else
        fail_some_pool(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = { .in = { .data = data, .len = size } };
    struct lab_options o;
    uint8_t shape = u8(&s);

    lab_options_default(&o);
    o.v6 = shape & 1;
    o.ts = shape & 2;
    o.sack = shape & 4;
    o.ws = shape & 8 ? 7 : -1;
    o.config.offload_tso = shape & 16;
    o.config.max_tcp = 16;
    if (shape & 32)
        o.irs = 0xffff8000u;
    o.config.keepalive_idle_ms = shape & 64 ? 10000 : 0;
    s.lab = lab_new(&o);
    s.lab->keep_payload = false;
    lab_send(s.lab, &(struct lab_seg){ .flags = LAB_SYN });
    if (!(shape & 128))
        lab_ack(s.lab, 1, 1);
    for (int i = 0; i < STEPS_MAX && s.in.len > 0; i++)
        step(&s);
    lab_batch(s.lab);
    lab_run_us(s.lab, 400000000);
    lab_free(s.lab);
    return 0;
}
