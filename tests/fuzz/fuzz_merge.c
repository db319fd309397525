/* fuzz_merge.c - the same segments one by one and merged into super-segments: the same stream, RCV.NXT and SACK set (tcp-stack.md
 * FUZ-8). Each record is a run of segments of one size somewhere around what the stack waits for; one lab gets them apart, the
 * other as one super-segment, in the same batch. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lab.h"
#include "stack/tcp_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RUNS_MAX  120
#define REACH     150000u /* how far ahead of RCV.NXT a run may begin: well inside the window */
#define RUN_BYTES 40000u

#define must(what)                                                                                           \
    do {                                                                                                     \
        if (!(what)) {                                                                                       \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);                        \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

struct run {
    uint32_t seq, len;
    uint16_t size;
    uint8_t flags;
};

static struct run draw(struct span *in, uint32_t next)
{
    struct run r = { .flags = LAB_ACK };
    uint16_t at = 0, size = 0;
    uint8_t how = 0, count = 0;

    span_u8(in, &how);
    span_u16(in, &at);
    span_u16(in, &size);
    span_u8(in, &count);
    r.size = (uint16_t)(1 + size % 1448);
    r.len = r.size * (1u + count % 44);
    if (how & 1) /* the last one is shorter */
        r.len -= r.len > r.size ? size % r.size : 0;
    r.len = r.len < RUN_BYTES ? r.len : RUN_BYTES;
    r.seq = how & 2 ? next : how & 4 ? next + at % REACH : next - at % (next < 60000 ? next : 60000);
    if (r.seq == 0)
        r.seq = 1;
    if (how & 8)
        r.flags |= LAB_PSH;
    return r;
}

static void send_apart(struct lab *lab, const struct run *r)
{
    for (uint32_t done = 0; done < r->len; done += r->size) {
        struct lab_seg s = { .flags = LAB_ACK, .seq = r->seq + done, .ack = 1 };

        s.len = r->len - done < r->size ? r->len - done : r->size;
        if (done + r->size >= r->len)
            s.flags = r->flags;
        lab_feed(lab, &s);
    }
}

static void send_merged(struct lab *lab, const struct run *r)
{
    struct lab_seg s = { .flags = r->flags, .seq = r->seq, .ack = 1, .len = r->len };

    s.gso_size = r->len > r->size ? r->size : 0;
    lab_feed(lab, &s);
}

static void compare(const struct lab *a, const struct lab *b)
{
    const struct tcp_conn *x = a->conn, *y = b->conn;

    must((x == NULL) == (y == NULL));
    if (x == NULL)
        return;
    must(x->rcv_nxt == y->rcv_nxt && a->got == b->got && a->eof == b->eof);
    must(!a->got_wrong && !b->got_wrong);
    must((x->ooo == NULL) == (y->ooo == NULL));
    if (x->ooo == NULL)
        return;
    must(x->ooo->count == y->ooo->count && x->ooo->bytes == y->ooo->bytes);
    for (uint32_t i = 0; i < x->ooo->count; i++)
        must(x->ooo->iv[i].start == y->ooo->iv[i].start && x->ooo->iv[i].end == y->ooo->iv[i].end);
}

static void read_all(struct lab *lab)
{
    while (tcp_readable_bytes(lab->conn) > 0)
        lab_read(lab, SIZE_MAX);
}

static struct lab *connected(uint8_t shape)
{
    struct lab_options o;
    struct lab *lab;

    lab_options_default(&o);
    o.v6 = shape & 1;
    o.ts = shape & 2;
    o.irs = shape & 4 ? 0xffff0000u : 1000;
    o.stall = shape & 8;
    o.config.max_tcp = 16;
    o.config.rcv_budget_initial = o.config.rcv_budget_max = 8u << 20;
    lab = lab_new(&o);
    lab->keep_payload = false;
    lab_connect(lab);
    lab_data(lab, 1, 1, 1); /* the window is told in full only now */
    lab_run_us(lab, 100000);
    return lab;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span in = { .data = data, .len = size };
    struct lab *apart, *merged;
    uint8_t shape = 0;

    span_u8(&in, &shape);
    apart = connected(shape);
    merged = connected(shape);
    for (int i = 0; i < RUNS_MAX && in.len > 0 && apart->conn != NULL; i++) {
        uint32_t next = apart->conn->rcv_nxt - apart->opt.irs;
        struct run r = draw(&in, next);

        if (next > 4000000)
            break;
        send_apart(apart, &r);
        send_merged(merged, &r);
        lab_batch(apart);
        lab_batch(merged);
        if (apart->conn != NULL && apart->opt.stall && i % 8 == 7) {
            read_all(apart);
            read_all(merged);
        }
        compare(apart, merged);
        lab_clear(apart);
        lab_clear(merged);
    }
    lab_free(apart);
    lab_free(merged);
    return 0;
}
