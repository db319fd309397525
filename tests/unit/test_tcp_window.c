/* test_tcp_window.c - faces src/stack/tcp_output.c and tcp_timer.c: a client whose window opens, closes and shrinks as it likes, and
 * who does not always say so (tcp-stack.md SND-1, SND-3, ZWP-1, MSS-3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "lab_script.h"

#define RTT_US 10000u
#define TICKS  1000 /* of one round trip: the whim lasts for 10 s */

/* The client: takes what is in order and in its window, throws away the rest, and acknowledges whatever comes. */
struct client {
    struct lab *lab;
    struct prng dice;
    uint32_t rcv_nxt, wnd;
    uint32_t edge, top; /* the edge that the stack was told of last; what it has sent */
    bool heard;         /* something came that wants an ACK */
    bool beyond;        /* new data lay beyond the edge */
};

static void client_takes(struct client *c)
{
    for (size_t i = 0; i < c->lab->outs; i++) {
        const struct lab_out *o = &c->lab->out[i];
        uint32_t end = o->seq + o->len, most = c->rcv_nxt + c->wnd;

        c->heard |= o->len > 0 || o->seq < c->rcv_nxt;
        c->beyond |= end > c->top && end > c->edge;
        if (end > c->top)
            c->top = end;
        if (o->seq <= c->rcv_nxt && end > c->rcv_nxt)
            c->rcv_nxt = end < most ? end : most > c->rcv_nxt ? most : c->rcv_nxt;
    }
    lab_clear(c->lab);
}

static void client_says(struct client *c)
{
    c->heard = false;
    c->edge = c->rcv_nxt + c->wnd;
    lab_send(
        c->lab,
        &(struct lab_seg){
            .flags = LAB_ACK, .seq = 1, .ack = c->rcv_nxt, .wnd = c->wnd >> 7, .zero_wnd = c->wnd == 0 });
}

/* One round trip. Whatever leaves is held against the edge of its time. */
static void tick(struct client *c)
{
    for (int half = 0; half < 2; half++) {
        lab_run_us(c->lab, RTT_US / 2);
        client_takes(c);
    }
    if (c->heard)
        client_says(c);
    client_takes(c);
}

/* Three of ten changes are not told, or the word is lost. */
static void whim(struct client *c)
{
    static const uint32_t windows[] = { 0, 0, 0, 128, 512, 1408, 1536, 2944, 19968 };

    if (prng_below(&c->dice, 20) != 0)
        return;
    c->wnd = windows[prng_below(&c->dice, ARRAY_LEN(windows))];
    c->heard |= prng_below(&c->dice, 10) < 7;
}

/* The longest time without a byte while half a megabyte arrives through a window that stays open now. */
static uint64_t longest_pause_us(struct client *c)
{
    uint64_t since = c->lab->now_us, worst = 0;
    uint32_t goal = c->rcv_nxt + 500000, before = c->rcv_nxt;

    c->wnd = 499968;
    client_says(c);
    while (c->rcv_nxt < goal && c->lab->now_us - since < 100000000) {
        tick(c);
        if (c->rcv_nxt == before)
            continue;
        worst = c->lab->now_us - since > worst ? c->lab->now_us - since : worst;
        since = c->lab->now_us;
        before = c->rcv_nxt;
    }
    return c->rcv_nxt < goal ? UINT64_MAX : worst;
}

static void a_capricious_window_is_obeyed_and_costs_no_time_when_it_opens(
    void **state) /* tcp-stack.md SND-3, ZWP-1, MSS-3 */
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct client c = { .lab = lab_open(RTT_US, seed & 1 ? lab_no_sack : NULL),
                            .rcv_nxt = 1,
                            .wnd = 65535 << 7 };
        uint64_t pause;

        prng_seed(&c.dice, seed);
        c.edge = 1 + c.wnd;
        lab_write(c.lab, 1000000000);
        for (int i = 0; i < TICKS; i++) {
            client_takes(&c);
            whim(&c);
            tick(&c);
        }
        pause = longest_pause_us(&c);
        if (c.beyond || pause > 1000000 || c.lab->closes > 0 || lab_info(c.lab).mss_bytes != 1448)
            fail_msg("seed %u: %s, %.3f s without a byte, segments of %u", (unsigned)seed,
                     c.beyond ? "new data beyond the window" : "the window was obeyed", (double)pause / 1e6,
                     c.lab->conn != NULL ? lab_info(c.lab).mss_bytes : 0);
        lab_free(c.lab);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_capricious_window_is_obeyed_and_costs_no_time_when_it_opens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
