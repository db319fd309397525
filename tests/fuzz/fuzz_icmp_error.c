/* fuzz_icmp_error.c - ICMP errors with mutated quotes about a live connection (tcp-stack.md FUZ-6, ICM-1 to ICM-3): none ends an
 * established connection, none moves its path MTU out of bounds, and one that does not name it changes nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lab.h"
#include "pkt_build.h"
#include "stack/tcp_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ERRORS_MAX 100

#define must(what)                                                                                           \
    do {                                                                                                     \
        if (!(what)) {                                                                                       \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);                        \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

struct script {
    struct span in;
    struct lab *lab;
};

static uint8_t u8(struct script *s)
{
    uint8_t v = 0;

    span_u8(&s->in, &v);
    return v;
}

/* Our own segment as a router would quote it, at a distance of the first unacknowledged byte. */
static void quote(struct script *s, struct pkt *q, uint32_t distance)
{
    struct lab *lab = s->lab;
    bool v6 = lab->opt.v6;

    pkt_tcp(q, v6 ? "2001:db8::80" : "192.0.2.80", 80, v6 ? "fd00::2" : "10.0.0.2", 40000, LAB_ACK,
            lab->conn->snd_una + distance, lab->conn->rcv_nxt, "12345678901234567890", 20);
}

static void send_error(struct script *s)
{
    static struct pkt q, p;
    struct lab *lab = s->lab;
    bool v6 = lab->opt.v6, touched = false;
    uint8_t how = u8(s), type = u8(s), code = u8(s);
    uint16_t word = 0, distance = 0, pmtu = lab->conn->pmtu;
    size_t len;

    span_u16(&s->in, &word);
    if (how & 1)
        span_u16(&s->in, &distance);
    quote(s, &q, how & 2 ? (uint32_t) - (int32_t)distance : distance);
    for (int i = 0; i < (how >> 6); i++) {
        uint8_t at = u8(s), with = u8(s);

        q.data[at % q.len] ^= with;
        touched |= with != 0;
    }
    len = how & 4 ? u8(s) % (q.len + 1) : q.len;
    if (how & 8) {
        type = v6 ? 2 : 3;
        code = v6 ? 0 : 4;
    }
    pkt_icmp(&p, v6 ? "fd00::fe" : "10.0.0.254", v6 ? "2001:db8::80" : "192.0.2.80", type, code, word, q.data,
             len);
    memcpy(stack_rx_slot(lab->stack), p.data, p.len);
    stack_input(lab->stack, lab->now_us, p.len, &p.meta);
    must(lab->conn->state == TCPS_ESTABLISHED && !(lab->conn->flags & CONN_DEAD));
    must(lab->conn->pmtu <= pmtu && lab->conn->pmtu >= (v6 ? TCP_PMTU_MIN6 : TCP_PMTU_MIN4));
    if (!touched && (distance != 0 && (how & 2))) /* below what is outstanding (ICM-1) */
        must(lab->conn->pmtu == pmtu);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = { .in = { .data = data, .len = size } };
    struct lab_options o;
    uint8_t shape = u8(&s);

    lab_options_default(&o);
    o.v6 = shape & 1;
    o.sack = shape & 2;
    o.config.offload_tso = shape & 4;
    o.config.max_tcp = 16;
    s.lab = lab_new(&o);
    s.lab->keep_payload = false;
    lab_connect(s.lab);
    lab_write(s.lab, 5000 + shape * 100u);
    for (int i = 0; i < ERRORS_MAX && s.in.len > 0; i++) {
        uint8_t op = u8(&s);

        if (op < 200)
            send_error(&s);
        else if (op < 230)
            lab_batch(s.lab);
        else if (op < 245)
            lab_run_us(s.lab, 1000ull << op % 8);
        else
            lab_ack(s.lab, 1, s.lab->conn->snd_nxt - s.lab->iss);
        must(s.lab->conn != NULL);
    }
    must(s.lab->closes == 0);
    lab_free(s.lab);
    return 0;
}
