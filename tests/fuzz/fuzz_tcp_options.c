/* fuzz_tcp_options.c - TCP options of arbitrary bytes (tcp-stack.md FUZ-2, SEQ-1): the reader against a second one, written from
 * RFC 9293 section 3.2 and RFC 7323; then a whole SYN with them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lab.h"
#include "stack/tcp_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define must(what)                                                                                           \
    do {                                                                                                     \
        if (!(what)) {                                                                                       \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);                        \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* How many bytes the option at @at takes; 0: the list ends here. */
static size_t option_len(const uint8_t *p, size_t len, size_t at)
{
    if (p[at] == 0)
        return 0;
    if (p[at] == 1)
        return 1;
    if (at + 1 >= len || p[at + 1] < 2 || at + p[at + 1] > len)
        return 0;
    return p[at + 1];
}

static void check_known(const uint8_t *p, size_t len, const struct tcp_options *got)
{
    bool mss = false, ws = false, ts = false, sack_ok = false;
    size_t n;

    for (size_t at = 0; at < len && (n = option_len(p, len, at)) > 0; at += n) {
        mss |= p[at] == 2 && n == 4;
        ws |= p[at] == 3 && n == 3;
        sack_ok |= p[at] == 4 && n == 2;
        ts |= p[at] == 8 && n == 10;
    }
    must(got->has_mss == mss && got->has_ws == ws && got->has_ts == ts && got->sack_ok == sack_ok);
    must(got->sacks <= 4);
}

/* Every block that was read is one of those that are there. */
static void check_sacks(const uint8_t *p, size_t len, const struct tcp_options *got)
{
    for (int i = 0; i < got->sacks; i++) {
        bool found = false;
        size_t n;

        for (size_t at = 0; at < len && (n = option_len(p, len, at)) > 0; at += n) {
            for (size_t k = 2; p[at] == 5 && k + 8 <= n; k += 8)
                found |= get_be32(p + at + k) == got->sack[i].start &&
                         get_be32(p + at + k + 4) == got->sack[i].end;
        }
        must(found);
    }
}

static void send_syn(const uint8_t *p, size_t len)
{
    struct lab_options o;
    struct lab *lab;

    lab_options_default(&o);
    o.config.max_tcp = 16;
    lab = lab_new(&o);
    lab_send(lab, &(struct lab_seg){ .flags = LAB_SYN, .options = p, .options_len = len });
    must(lab_count(lab, "SYN,ACK") == 1);
    lab_send(lab,
             &(struct lab_seg){ .flags = LAB_ACK, .seq = 1, .ack = 1, .options = p, .options_len = len });
    lab_free(lab);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tcp_options got;

    if (size > 40)
        size = 40;
    memset(&got, 0, sizeof(got));
    tcp_options_parse((struct span){ .data = data, .len = size }, &got);
    check_known(data, size, &got);
    check_sacks(data, size, &got);
    if (size > 0)
        send_syn(data, size);
    return 0;
}
