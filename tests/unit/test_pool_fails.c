/* test_pool_fails.c - faces src/stack/pool.c and all who take from it, TCP's aside (test_tcp_sim.c): whichever pool is out, now and then
 * or always, what is delivered is right, and afterwards all is as before (tcp-stack.md MEM-3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "ip_lab.h"
#include "stack/stack_impl.h"

#define PORTS 12u

/* A datagram whose bytes follow from its port and its length. */
static void fill(uint8_t *data, size_t len, uint16_t port)
{
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(port + len + i * 7);
}

static void detach(struct ip_lab *lab, struct echo_req *r)
{
    lab->token = echo_detach(r, ECHO_KEEP_PAYLOAD | ECHO_KEEP_HEADER);
}

static void on_reply(void *user, const struct icmp_reply *r)
{
    (void)r;
    ++*(unsigned *)user;
}

static void send_datagram(struct ip_lab *lab, uint16_t port, size_t len, bool pieces)
{
    static uint8_t data[4000];
    static struct pkt whole, piece;

    fill(data, len, port);
    pkt_udp(&whole, LAB_CLIENT, port, LAB_TARGET, 53, data, len);
    if (!pieces) {
        ip_lab_input(lab, &whole);
        return;
    }
    for (size_t at = 0; at < len + 8; at += 1200) { /* the first one last */
        size_t off = (len + 8 - 1) / 1200 * 1200 - at, part = len + 8 - off < 1200 ? len + 8 - off : 1200;

        pkt_fragment(&whole, off, part, at > 0, port, &piece);
        ip_lab_input(lab, &piece);
    }
}

static void ask_and_answer(struct ip_lab *lab)
{
    static const uint8_t text[300] = "payload";
    struct icmp_endpoint *e[3] = { NULL };
    unsigned replies = 0;
    struct pkt p;

    for (uint16_t i = 0; i < 20; i++) {
        lab->token = 0;
        pkt_echo(&p, LAB_CLIENT, LAB_TARGET, 7, i, text, sizeof(text));
        ip_lab_input(lab, &p);
        if (lab->token != 0)
            echo_complete(lab->s, lab->token, &(struct echo_outcome){ .kind = ECHO_OUT_REPLY });
    }
    for (uint16_t i = 0; i < 3; i++) {
        struct icmp_bind b = { .family = IP_FAMILY_4, .id = (uint16_t)(100 + i) };
        int r = icmp_endpoint_open(lab->s, &b, on_reply, &replies, &e[i]);

        assert_true(r == 0 || r == -ENOBUFS);
    }
    for (uint16_t i = 0; i < 3; i++) {
        if (e[i] != NULL)
            icmp_endpoint_close(e[i]);
    }
}

static void addresses_come_and_go(struct ip_lab *lab)
{
    for (int i = 0; i < 10; i++) {
        struct ip_addr a = ip_from4((const uint8_t[]){ 10, 0, 0, (uint8_t)(50 + i) });
        int r = stack_add_address(lab->s, &a, 120, 0);

        assert_true(r == 0 || r == -ENOBUFS);
        assert_int_equal(stack_remove_address(lab->s, &a), r == 0 ? 0 : -ENOENT);
    }
}

/* Return: datagrams that were delivered; each of them right. */
static size_t check_delivered(struct ip_lab *lab)
{
    uint8_t wanted[4000];

    for (size_t i = 0; i < lab->gots; i++) {
        const struct udp_datagram *d = &lab->got[i].d;

        fill(wanted, d->len, d->client.port);
        assert_true(d->len == 700 || d->len == 3300);
        assert_memory_equal(lab->got[i].data.iov_base, wanted, d->len);
    }
    return lab->gots;
}

static size_t everything_once(struct ip_lab *lab)
{
    struct udp_endpoint *open[PORTS] = { NULL };
    struct pkt p;
    size_t n;

    for (uint16_t i = 0; i < PORTS; i++) {
        lab->endpoint = NULL;
        send_datagram(lab, (uint16_t)(4000 + i), 700, false);
        open[i] = lab->endpoint;
        send_datagram(lab, (uint16_t)(4000 + i), 3300, true);
        if (open[i] == NULL)
            open[i] = lab->endpoint;
    }
    ask_and_answer(lab);
    addresses_come_and_go(lab);
    pkt_tcp(&p, LAB_CLIENT, 5000, LAB_TARGET, 80, PKT_SYN, 1, 0, NULL, 0);
    ip_lab_input(lab, &p);
    n = check_delivered(lab);
    for (uint16_t i = 0; i < PORTS; i++) {
        if (open[i] != NULL)
            udp_endpoint_close(open[i]);
    }
    ip_lab_run_until(lab, lab->now_us + 400ull * 1000000); /* held requests, tokens and pieces have expired */
    ip_lab_clear(lab);
    assert_null(ip_lab_sum_error(lab));
    return n;
}

static void note_in_use(const struct ip_lab *lab, uint32_t *out)
{
    for (size_t i = 0; i < lab->s->pool_count; i++)
        out[i] = lab->s->pools[i]->slab.in_use;
}

static void every_pool_may_fail_every_kth_time(void **state) /* tcp-stack.md MEM-3 */
{
    struct ip_lab *lab = *state;
    uint32_t before[STACK_POOLS_MAX], after[STACK_POOLS_MAX];
    unsigned suffered = 0;
    size_t all;

    lab->on_request = LAB_ACCEPT;
    lab->verdict = ECHO_CONSUMED;
    lab->in_echo = detach;
    all = everything_once(lab);
    assert_int_equal(all, 2 * PORTS);
    note_in_use(lab, before);
    for (size_t pool = 0; pool < lab->s->pool_count; pool++) {
        for (uint32_t k = 1; k <= 50; k++) {
            lab->s->pools[pool]->fail_every = k;
            suffered += everything_once(lab) < all;
            lab->s->pools[pool]->fail_every = 0;
            note_in_use(lab, after);
            for (size_t i = 0; i < lab->s->pool_count; i++) {
                if (after[i] > before[i]) /* fewer: the spare slot is taken again with the next packet */
                    fail_msg("%s, every %u: %u of %s in use, more than %u", lab->s->pools[pool]->name, k,
                             after[i], lab->s->pools[i]->name, before[i]);
            }
        }
    }
    assert_true(suffered > 50); /* some of these pools do matter */
    assert_int_equal(everything_once(lab), all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_pool_may_fail_every_kth_time, ip_lab_setup, ip_lab_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
