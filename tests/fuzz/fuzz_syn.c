/* fuzz_syn.c - crowds of SYNs, answers to cookies real and guessed, decisions early and late, and the clock
 * (tcp-stack.md FUZ-7). What always holds: the records stay below their limit, and when everything has timed out none is left. */
#include <stdio.h>
#include <stdlib.h>

#include "lab.h"
#include "stack/tcp_impl.h"

#define STEPS_MAX 600
#define RECORDS   16
#define ANSWERS   32
#define END_US    400000000u
#define REJECTS   10

struct answer { /* a SYN-ACK that we have seen */
    uint8_t client;
    uint16_t port;
    uint32_t raw_seq;
};

struct crowd {
    struct span in;
    struct lab *lab;
    char name[24];
    struct answer answer[ANSWERS];
    size_t answers;
};

static uint8_t u8(struct crowd *c)
{
    uint8_t v = 0;

    return span_u8(&c->in, &v) ? v : 0;
}

static void choose_client(struct crowd *c, uint8_t n)
{
    snprintf(c->name, sizeof(c->name), c->lab->opt.v6 ? "fd00::1:%x" : "10.1.0.%u", n % 64 + 1u);
    c->lab->opt.client = c->name;
}

static void remember(struct crowd *c, uint8_t client)
{
    for (size_t i = 0; i < c->lab->outs; i++) {
        const struct lab_out *o = &c->lab->out[i];

        if ((o->flags & (LAB_SYN | LAB_ACK)) == (LAB_SYN | LAB_ACK))
            c->answer[c->answers++ % ANSWERS] = (struct answer){ client, o->port, o->raw_seq };
    }
    lab_clear(c->lab);
}

/* A SYN, with options of all kinds; the batch goes on, or ends. */
static void syn(struct crowd *c)
{
    uint8_t client = u8(c), shape = u8(c), raw[40];
    struct lab_seg s = { .flags = LAB_SYN, .port = (uint16_t)(1000 + u8(c) % 8) };

    choose_client(c, client);
    c->lab->opt.ts = shape & 1;
    c->lab->opt.sack = shape & 2;
    c->lab->opt.ws = shape & 4 ? shape >> 4 : -1;
    s.seq = shape & 8 ? u8(c) : 0;
    s.flags |= (shape & 96) == 96 ? LAB_ECE | LAB_CWR : 0;
    s.mss = (uint16_t)(u8(c) * 8);
    if (shape & 128) {
        s.options = raw;
        s.options_len = u8(c) % 41;
        for (size_t i = 0; i < s.options_len; i++)
            raw[i] = u8(c);
    }
    lab_send(c->lab, &s);
    remember(c, client);
}

/* The ACK of something that was answered, or nearly; with data, with a FIN, or a reset. */
static void ack(struct crowd *c)
{
    const struct answer *a = &c->answer[u8(c) % ANSWERS];
    uint8_t shape = u8(c);
    struct lab_seg s = { .flags = LAB_ACK, .seq = 1, .port = a->port };

    choose_client(c, a->client);
    c->lab->opt.ts = shape & 1;
    s.ack = a->raw_seq + 1 - c->lab->iss;
    s.flags |= shape & 2 ? LAB_FIN : 0;
    s.len = shape & 4 ? 100 : 0;
    if (shape & 8)
        s.ack ^= 1u << u8(c) % 32;
    if (shape & 16)
        s.seq += u8(c);
    if ((shape & 96) == 96)
        s.flags = LAB_RST | (shape & LAB_ACK);
    lab_send(c->lab, &s);
    remember(c, a->client);
}

static void decide(struct crowd *c)
{
    struct lab *lab = c->lab;
    uint8_t how = u8(c);

    if (lab->request == NULL)
        return;
    if (how & 1) {
        if (tcp_request_accept(lab->request, lab, &lab->conn) != 0)
            return;
    } else {
        tcp_request_reject(lab->request, (enum stack_reject)(how % REJECTS));
    }
    lab->request = NULL;
    lab_batch(lab);
    lab_clear(lab);
}

static void let_time_pass(struct crowd *c)
{
    lab_run_us(c->lab, 1000ull << u8(c) % 18);
    lab_clear(c->lab);
}

static void step(struct crowd *c)
{
    uint8_t what = u8(c);

    if (what < 120)
        syn(c);
    else if (what < 200)
        ack(c);
    else if (what < 235)
        decide(c);
    else
        let_time_pass(c);
    if (stack_half_open_count(c->lab->stack) > RECORDS)
        abort();
}

static void read_nothing(struct lab *lab)
{
    (void)lab;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct crowd c = { .in = { .data = data, .len = size } };
    struct lab_options o;
    uint8_t shape = u8(&c);

    lab_options_default(&o);
    o.v6 = shape & 1;
    o.hold = true;
    o.config.max_half_open = RECORDS;
    o.config.max_half_open_per_source = 1 + (shape >> 1 & 7);
    o.config.max_tcp = 8;
    o.config.max_time_wait = 4;
    if (shape & 16)
        o.irs = 0xfffffff0u;
    c.lab = lab_new(&o);
    c.lab->keep_payload = false;
    c.lab->on_readable = read_nothing; /* many connections, and the laboratory knows the last one alone */
    for (int i = 0; i < STEPS_MAX && c.in.len > 0; i++)
        step(&c);
    lab_batch(c.lab);
    lab_run_us(c.lab, END_US);
    if (stack_half_open_count(c.lab->stack) != 0)
        abort();
    lab_free(c.lab);
    return 0;
}
