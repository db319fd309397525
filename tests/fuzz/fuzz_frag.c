/* fuzz_frag.c - reassembly of both families (tcp-stack.md FUZ-5, IP-5): pieces of known datagrams, in any order, again, overlapping, with
 * the wrong flags, too late. What is delivered has the bytes that were sent; what is held stays within its caps; in the end nothing is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ip_lab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DATAGRAMS  4
#define PIECES_MAX 300
#define LONG_US    90000000ull /* longer than any reassembly */

#define must(what)                                                                                           \
    do {                                                                                                     \
        if (!(what)) {                                                                                       \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);                        \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

static struct pkt whole[DATAGRAMS], piece;
static const size_t lengths[DATAGRAMS] = { 3000, 60000, 3000, 20000 };

static uint8_t pattern(unsigned which, size_t at)
{
    return (uint8_t)(which * 71 + at * 13 + (at >> 8));
}

static void make_datagrams(void)
{
    static uint8_t bytes[65536];

    for (unsigned i = 0; i < DATAGRAMS; i++) {
        for (size_t k = 0; k < lengths[i]; k++)
            bytes[k] = pattern(i, k);
        pkt_udp(&whole[i], i < 2 ? LAB_CLIENT : LAB_CLIENT6, (uint16_t)(5000 + i),
                i < 2 ? LAB_TARGET : LAB_TARGET6, 53, bytes, lengths[i]);
    }
}

/* A piece with right bytes; what it says of itself may be wrong. */
static void send_piece(struct ip_lab *lab, struct span *in)
{
    uint8_t which = 0, how = 0;
    uint16_t at = 0, len = 0, lie = 0;
    size_t total, offset, bytes;

    span_u8(in, &which);
    span_u8(in, &how);
    span_u16(in, &at);
    span_u16(in, &len);
    total = whole[which % DATAGRAMS].len - whole[which % DATAGRAMS].l4;
    offset = at * 8ul % total;
    bytes = how & 1 ? 1480 : len;
    bytes = bytes < total - offset ? bytes : total - offset;
    if (offset + bytes < total && !(how & 2))
        bytes &= ~(size_t)7;
    pkt_fragment(&whole[which % DATAGRAMS], offset, bytes, (offset + bytes < total) != ((how & 12) == 12),
                 which >> 4, &piece);
    if ((how & 48) == 48) { /* the header lies */
        span_u16(in, &lie);
        piece.data[(lie >> 8) % piece.l4] ^= (uint8_t)lie;
        if (how & 64)
            pkt_fix_ip(&piece);
    }
    ip_lab_feed(lab, &piece);
}

static void check_delivered(const struct ip_lab *lab)
{
    for (size_t i = 0; i < lab->gots; i++) {
        const struct iovec *d = &lab->got[i].data;
        const uint8_t *bytes = d->iov_base;
        unsigned which = lab->got[i].d.client.port - 5000u;

        must(which < DATAGRAMS && d->iov_len == lengths[which]);
        for (size_t k = 0; k < d->iov_len; k++)
            must(bytes[k] == pattern(which, k));
    }
    must(ip_lab_sum_error(lab) == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span in = { .data = data, .len = size };
    struct ip_lab *lab = ip_lab_new();

    if (whole[0].len == 0)
        make_datagrams();
    lab->on_request = LAB_ACCEPT;
    ip_lab_start(lab);
    for (int i = 0; i < PIECES_MAX && in.len > 0; i++) {
        uint8_t op = 0;

        span_u8(&in, &op);
        if (op < 220)
            send_piece(lab, &in);
        else if (op < 240)
            stack_batch_end(lab->s, lab->now_us);
        else
            ip_lab_run_until(lab, lab->now_us + (1000ull << op % 16));
        must(lab->gots < LAB_KEEP);
    }
    stack_batch_end(lab->s, lab->now_us);
    check_delivered(lab);
    ip_lab_run_until(lab, lab->now_us + LONG_US);
    ip_lab_free(lab);
    return 0;
}
