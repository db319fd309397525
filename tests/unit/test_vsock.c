/* test_vsock.c - faces tests/adapter: what a conformance runner needs of it, from echo to options (tcp-stack.md TST-3). It is linked
 * to the shared object, and its client is this file's own few lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "pkt_build.h"
#include "vsock.h"

#define SECOND 1000000ull
#define CLIENT "10.0.0.2"
#define SERVER "192.0.2.80"

/* ---- a client of a few lines ------------------------------------------------------------------------------------- */

struct client {
    struct vsock_net *net;
    uint16_t port;
    uint32_t seq, ack;       /* what it sends next, what it has */
    struct pkt_view last;    /* the packet that came last, */
    uint8_t packet[PKT_MAX]; /* and its bytes */
    uint8_t offered[40];     /* options of its SYN */
    size_t offered_len;
    bool on_all; /* they go on every segment */
};

static struct pkt out;

static void client_sends(struct client *c, uint8_t flags, const void *data, size_t len)
{
    uint8_t l4[2000] = { 0 };
    size_t header = 20 + (flags & PKT_SYN || c->on_all ? c->offered_len : 0);

    assert_true(header + len <= sizeof(l4));
    put_be16(l4, c->port);
    put_be16(l4 + 2, 80);
    put_be32(l4 + 4, c->seq);
    put_be32(l4 + 8, flags & PKT_ACK ? c->ack : 0);
    l4[12] = (uint8_t)(header / 4 << 4);
    l4[13] = flags;
    put_be16(l4 + 14, 65535);
    memcpy(l4 + 20, c->offered, header - 20);
    if (len > 0)
        memcpy(l4 + header, data, len);
    pkt_raw(&out, CLIENT, SERVER, IP_PROTO_TCP, l4, header + len);
    pkt_fix_l4(&out);
    c->seq += (uint32_t)len + ((flags & (PKT_SYN | PKT_FIN)) != 0);
    assert_int_equal(vsock_packet_in(c->net, 0, out.data, out.len, NULL), 0);
}

/* Return: its TCP flags; -1: nothing came in time. */
static int client_gets(struct client *c, uint64_t deadline_us)
{
    struct pkt_meta meta;
    ssize_t len = vsock_packet_out(c->net, c->packet, sizeof(c->packet), NULL, &meta, deadline_us);
    uint32_t seq, n;

    if (len < 0)
        return -1;
    assert_null(pkt_parse(c->packet, (size_t)len, &meta, &c->last));
    assert_int_equal(c->last.proto, IP_PROTO_TCP);
    seq = get_be32(c->last.l4 + 4);
    n = (uint32_t)c->last.len + ((c->last.l4[13] & (PKT_SYN | PKT_FIN)) != 0);
    if (c->ack == 0 || seq == c->ack)
        c->ack = seq + n;
    return c->last.l4[13];
}

static uint32_t window(const struct client *c)
{
    return get_be16(c->last.l4 + 14);
}

static int port_80(struct vsock_net *net)
{
    struct ip_port at = { .port = 80 };

    ip_parse(SERVER, &at.addr);
    return vsock_listen(net, &at, 8);
}

/* Listen, and a connection that is accepted. */
static int connected(struct client *c, struct vsock_net *net, int listener)
{
    *c = (struct client){ .net = net, .port = c->port != 0 ? c->port : 40000, .seq = 1000 };
    client_sends(c, PKT_SYN, NULL, 0);
    assert_int_equal(client_gets(c, VSOCK_NOW), PKT_SYN | PKT_ACK);
    client_sends(c, PKT_ACK, NULL, 0);
    return vsock_accept(net, listener, NULL, VSOCK_NOW);
}

static struct client peer;

/* ---- its use ------------------------------------------------------------------------------------------------------- */

static void an_echo_server_is_a_page(void **state) /* TST-3; this is the example of docs/testing.md */
{
    struct vsock_net *net = vsock_net_new(SECOND, 1, false);
    struct client *c = &peer;
    char text[16];
    int listener = port_80(net), s;
    ssize_t n;

    (void)state;
    s = connected(c, net, listener); /* SYN in, SYN-ACK out, ACK in; accept() */
    assert_true(s > 0);
    client_sends(c, PKT_ACK | PKT_PSH, "hello", 5);
    n = vsock_read(net, s, text, sizeof(text), VSOCK_NOW);
    assert_int_equal(n, 5);
    assert_int_equal(vsock_write(net, s, text, (size_t)n, VSOCK_NOW), 5);
    while (client_gets(c, VSOCK_NOW) >= 0 && c->last.len == 0)
        ; /* an ACK may come first */
    assert_int_equal(c->last.len, 5);
    assert_memory_equal(c->last.data, "hello", 5);
    vsock_close(net, s);
    vsock_net_free(net);
}

static void nobody_listens_nobody_connects(void **state)
{
    struct vsock_net *net = vsock_net_new(SECOND, 1, false);
    struct client *c = &peer;

    (void)state;
    *c = (struct client){ .net = net, .port = 40000, .seq = 1000 };
    client_sends(c, PKT_SYN, NULL, 0);
    assert_int_equal(client_gets(c, VSOCK_NOW), PKT_RST | PKT_ACK);
    assert_int_equal(client_gets(c, VSOCK_NOW), -1);
    vsock_net_free(net);
}

static void both_sides_can_close_one_half(void **state)
{
    struct vsock_net *net = vsock_net_new(SECOND, 1, false);
    struct client *c = &peer;
    struct tcp_info info;
    char text[16];
    int s = connected(c, net, port_80(net));

    (void)state;
    client_sends(c, PKT_ACK | PKT_FIN, "bye", 3);
    assert_int_equal(vsock_read(net, s, text, sizeof(text), VSOCK_NOW), 3);
    assert_int_equal(vsock_read(net, s, text, sizeof(text), VSOCK_NOW), 0);
    assert_int_equal(vsock_info(net, s, &info), 0);
    assert_string_equal(info.state, "CLOSE-WAIT");
    assert_int_equal(vsock_write(net, s, "still here", 10, VSOCK_NOW), 10);
    assert_int_equal(vsock_shutdown(net, s), 0);
    assert_int_equal(vsock_write(net, s, "x", 1, VSOCK_NOW), -EPIPE);
    while (client_gets(c, VSOCK_NOW) >= 0)
        ;
    assert_true(c->last.l4[13] & PKT_FIN);
    client_sends(c, PKT_ACK, NULL, 0);
    assert_int_equal(vsock_wait(net, s, VSOCK_IN, VSOCK_NOW), 0);
    assert_int_equal(vsock_poll(net, s), VSOCK_IN | VSOCK_HUP);
    assert_int_equal(vsock_error(net, s), 0);
    assert_int_equal(vsock_info(net, s, &info), 0);
    assert_string_equal(info.state, "CLOSED");
    assert_int_equal(info.bytes_up, 3);
    assert_int_equal(info.bytes_down, 10);
    vsock_net_free(net);
}

static void a_call_waits_on_virtual_time(void **state)
{
    struct vsock_net *net = vsock_net_new(SECOND, 1, false);
    struct client *c = &peer;
    char text[16];
    int s = connected(c, net, port_80(net));
    struct pkt_meta ok = { .csum_valid = true };

    (void)state;
    assert_int_equal(vsock_read(net, s, text, 1, VSOCK_NOW), -EAGAIN);
    assert_int_equal(vsock_read(net, s, text, 1, 2 * SECOND), -ETIMEDOUT);
    assert_int_equal(vsock_now(net), 2 * SECOND);
    pkt_tcp(&out, CLIENT, 40000, SERVER, 80, PKT_ACK, c->seq, c->ack, "later", 5);
    assert_int_equal(vsock_packet_in(net, 5 * SECOND, out.data, out.len, &ok), 0);
    assert_int_equal(vsock_next(net), 5 * SECOND);
    assert_int_equal(vsock_read(net, s, text, sizeof(text), VSOCK_FOREVER), 5);
    assert_int_equal(vsock_now(net), 5 * SECOND);
    while (client_gets(c, VSOCK_NOW) >= 0)
        ;
    assert_int_equal(vsock_write(net, s, "lost", 4, VSOCK_NOW),
                     4); /* the client stays silent: it is sent again */
    assert_int_equal(client_gets(c, VSOCK_NOW) & PKT_ACK, PKT_ACK);
    assert_true(client_gets(c, 8 * SECOND) >= 0);
    assert_int_equal(c->last.len, 4);
    assert_int_equal(vsock_read(net, s, text, 1, VSOCK_FOREVER), -ETIMEDOUT); /* the user timeout */
    assert_int_equal(vsock_error(net, s), -ETIMEDOUT);
    assert_int_equal(vsock_accept(net, 3, NULL, VSOCK_FOREVER), -EDEADLK); /* nothing can happen any more */
    vsock_net_free(net);
}

static void what_waits_can_be_looked_at(
    void **state) /* what recv(MSG_PEEK), SIOCINQ and SIOCOUTQ tell elsewhere */
{
    struct vsock_net *net = vsock_net_new(SECOND, 1, false);
    struct client *c = &peer;
    struct tcp_info info;
    char text[16];
    int s = connected(c, net, port_80(net));

    (void)state;
    assert_int_equal(vsock_peek(net, s, text, sizeof(text), VSOCK_NOW), -EAGAIN);
    client_sends(c, PKT_ACK | PKT_PSH, "once", 4);
    client_sends(c, PKT_ACK | PKT_PSH, "more", 4);
    assert_int_equal(vsock_peek(net, s, text, 3, VSOCK_NOW), 3);
    assert_int_equal(vsock_peek(net, s, text, sizeof(text), VSOCK_NOW), 8);
    assert_memory_equal(text, "oncemore", 8);
    assert_int_equal(vsock_info(net, s, &info), 0);
    assert_int_equal(info.readable, 8);
    assert_int_equal(vsock_read(net, s, text, 5, VSOCK_NOW), 5);
    assert_int_equal(vsock_info(net, s, &info), 0);
    assert_int_equal(info.readable, 3);
    client_sends(c, PKT_ACK | PKT_FIN, NULL, 0);
    assert_int_equal(vsock_peek(net, s, text, sizeof(text), VSOCK_NOW), 3);
    assert_int_equal(vsock_read(net, s, text, sizeof(text), VSOCK_NOW), 3);
    assert_int_equal(vsock_peek(net, s, text, sizeof(text), VSOCK_NOW), 0);
    assert_int_equal(vsock_peek(net, 99, text, sizeof(text), VSOCK_NOW), -EBADF);
    vsock_net_free(net);
}

static void a_write_of_the_send_buffer_does_not_wait(void **state)
{
    static char bytes[400000];
    struct vsock_net *net = vsock_net_new(SECOND, 1, false);
    struct client *c = &peer;
    struct tcp_info info;
    int s;

    (void)state;
    assert_int_equal(vsock_set(net, 0, VSOCK_SNDBUF, sizeof(bytes)), 0);
    s = connected(c, net, port_80(net));
    assert_int_equal(vsock_write(net, s, bytes, sizeof(bytes), VSOCK_NOW), sizeof(bytes));
    assert_int_equal(vsock_write(net, s, bytes, 1, VSOCK_NOW), -EAGAIN);
    assert_int_equal(vsock_info(net, s, &info), 0);
    assert_int_equal(info.unacked, 10 * 536);
    assert_int_equal(info.unsent, sizeof(bytes) - 10 * 536);
    assert_string_equal(info.cc_state, "open");
    vsock_net_free(net);
}

static void a_small_send_buffer_holds_no_more(void **state)
{
    static char bytes[30000];
    struct vsock_net *net = vsock_net_new(SECOND, 1, false);
    struct client *c = &peer;
    int s;

    (void)state;
    assert_int_equal(vsock_set(net, 0, VSOCK_SNDBUF, 20000), 0);
    assert_int_equal(vsock_set(net, 0, VSOCK_SNDBUF_MAX, 20000), 0);
    s = connected(c, net, port_80(net));
    assert_int_equal(vsock_write(net, s, bytes, sizeof(bytes), VSOCK_NOW), 20000);
    assert_int_equal(vsock_poll(net, s) & VSOCK_OUT, 0);
    while (client_gets(c, VSOCK_NOW) >= 0)
        ;
    client_sends(c, PKT_ACK, NULL, 0); /* of the first ten segments */
    assert_int_equal(vsock_poll(net, s) & VSOCK_OUT, VSOCK_OUT);
    assert_int_equal(vsock_write(net, s, bytes, sizeof(bytes), VSOCK_NOW), 5360);
    vsock_net_free(net);
}

static void info_tells_what_was_agreed_on(void **state)
{
    struct vsock_net *net = vsock_net_new(SECOND, 1, false);
    int listener = port_80(net);
    struct client *c = &peer;
    struct tcp_info info;

    (void)state;
    assert_int_equal(vsock_info(net, connected(c, net, listener), &info), 0);
    assert_false(info.timestamps || info.sack || info.ecn || info.snd_wscale > 0 || info.rcv_wscale > 0);

    *c = (struct client){ .net = net, .port = 40001, .seq = 1000, .offered_len = 20 };
    memcpy(c->offered, "\x02\x04\x05\xb4\x04\x02\x08\x0a\0\0\0\1\0\0\0\0\1\3\3\7", 20);
    client_sends(c, PKT_SYN | 0xc0, NULL, 0); /* with ECE and CWR; its ACK has to carry a timestamp, too */
    assert_int_equal(client_gets(c, VSOCK_NOW), PKT_SYN | PKT_ACK | 0x40);
    memcpy(c->offered, "\1\1\x08\x0a\0\0\0\1", 8);
    memcpy(c->offered + 8, c->last.l4 + 28, 4);
    c->offered_len = 12;
    c->on_all = true;
    client_sends(c, PKT_ACK, NULL, 0);
    assert_int_equal(vsock_info(net, vsock_accept(net, listener, NULL, VSOCK_NOW), &info), 0);
    assert_true(info.timestamps && info.sack && info.ecn);
    assert_int_equal(info.snd_wscale, 7);
    assert_int_equal(info.rcv_wscale, 8);
    vsock_net_free(net);
}

static void linger_zero_and_abort_are_a_reset(void **state)
{
    struct vsock_net *net = vsock_net_new(SECOND, 1, false);
    struct client *c = &peer;
    int listener = port_80(net), s = connected(c, net, listener);

    (void)state;
    assert_int_equal(vsock_set(net, s, VSOCK_LINGER0, 1), 0);
    assert_int_equal(vsock_close(net, s), 0);
    assert_true(client_gets(c, VSOCK_NOW) & PKT_RST);
    c->port = 40001;
    s = connected(c, net, listener);
    assert_int_equal(vsock_abort(net, s), 0);
    assert_true(client_gets(c, VSOCK_NOW) & PKT_RST);
    assert_int_equal(vsock_abort(net, s), -EBADF);
    c->port = 40002;
    s = connected(c, net, listener);
    client_sends(c, PKT_RST, NULL, 0);
    assert_int_equal(vsock_write(net, s, "x", 1, VSOCK_NOW), -ECONNRESET);
    vsock_net_free(net);
}

static void a_held_syn_is_admitted_or_refused(void **state)
{
    struct vsock_net *net = vsock_net_new(SECOND, 1, false);
    struct client *c = &peer;
    int listener = port_80(net), s;
    struct flow_key who;

    (void)state;
    assert_int_equal(vsock_set(net, listener, VSOCK_HOLD, 1), 0);
    *c = (struct client){ .net = net, .port = 40000, .seq = 1000 };
    client_sends(c, PKT_SYN, NULL, 0);
    assert_int_equal(client_gets(c, VSOCK_NOW), -1);
    s = vsock_pending(net, listener, &who, VSOCK_NOW);
    assert_int_equal(who.client_port, 40000);
    assert_int_equal(vsock_admit(net, s), 0);
    assert_int_equal(client_gets(c, VSOCK_NOW), PKT_SYN | PKT_ACK);
    assert_int_equal(vsock_wait(net, s, VSOCK_OUT, VSOCK_NOW), -EAGAIN);
    client_sends(c, PKT_ACK, NULL, 0);
    assert_int_equal(vsock_wait(net, s, VSOCK_OUT, VSOCK_NOW), 0);

    *c = (struct client){ .net = net, .port = 40001, .seq = 1000 };
    client_sends(c, PKT_SYN, NULL, 0);
    s = vsock_pending(net, listener, &who, VSOCK_NOW);
    assert_int_equal(vsock_refuse(net, s, REJECT_RST), 0);
    assert_int_equal(client_gets(c, VSOCK_NOW), PKT_RST | PKT_ACK);
    vsock_net_free(net);
}

/* ---- options ---------------------------------------------------------------------------------------------------------- */

static void the_window_starts_as_it_is_told(void **state)
{
    struct vsock_net *net = vsock_net_new(SECOND, 1, false);
    struct client *c = &peer;
    uint64_t v;

    (void)state;
    assert_int_equal(vsock_set(net, 0, VSOCK_RCVBUF, 65535), 0);
    assert_int_equal(vsock_set(net, 0, VSOCK_RCVBUF_MAX, 65535), 0);
    assert_int_equal(vsock_set(net, 0, VSOCK_WINDOW_SCALE, 0), 0);
    assert_int_equal(vsock_set(net, 0, VSOCK_MSS4, 1000), 0);
    assert_int_equal(vsock_set(net, 0, VSOCK_WINDOW_SCALE, 15), -EINVAL);
    vsock_advance(net, 5 * SECOND); /* time may pass: until the first packet everything can be set */
    assert_int_equal(vsock_now(net), 5 * SECOND);
    assert_int_equal(vsock_set(net, 0, VSOCK_MSS4, 1100), 0);
    assert_int_equal(vsock_set(net, 0, VSOCK_MSS4, 1000), 0);
    assert_int_equal(vsock_get(net, 0, VSOCK_MSS4, &v), 0);
    assert_int_equal(v, 1000);
    port_80(net);
    *c = (struct client){ .net = net, .port = 40000, .seq = 1000 };
    memcpy(c->offered, "\x02\x04\x05\xb4\x01\x03\x03\x07", 8);
    c->offered_len = 8;
    client_sends(c, PKT_SYN, NULL, 0);
    assert_int_equal(client_gets(c, VSOCK_NOW), PKT_SYN | PKT_ACK);
    assert_int_equal(window(c), 65535);
    assert_int_equal(get_be16(c->last.l4 + 22), 1000);
    client_sends(c, PKT_ACK, NULL, 0);
    client_sends(c, PKT_ACK, "1234", 4);
    assert_true(client_gets(c, VSOCK_NOW) >= 0);
    assert_int_equal(window(c), 65535 - 4);
    assert_int_equal(vsock_set(net, 0, VSOCK_MTU, 1400), -EBUSY);
    vsock_net_free(net);
}

static void without_quick_acks_an_ack_is_delayed(void **state)
{
    struct vsock_net *net = vsock_net_new(SECOND, 1, false);
    struct client *c = &peer;

    (void)state;
    assert_int_equal(vsock_set(net, 0, VSOCK_QUICKACK, 0), 0);
    connected(c, net, port_80(net));
    client_sends(c, PKT_ACK, "1", 1);
    assert_int_equal(client_gets(c, VSOCK_NOW), -1);
    assert_int_equal(client_gets(c, vsock_now(net) + 39000), -1);
    assert_int_equal(client_gets(c, vsock_now(net) + 3000), PKT_ACK);
    vsock_net_free(net);
}

static void ecn_is_agreed_on_only_when_it_is_on(void **state)
{
    (void)state;
    for (unsigned on = 0; on < 2; on++) {
        struct vsock_net *net = vsock_net_new(SECOND, 1, false);
        struct client *c = &peer;

        assert_int_equal(vsock_set(net, 0, VSOCK_ECN, on), 0);
        port_80(net);
        *c = (struct client){ .net = net, .port = 40000, .seq = 1000 };
        client_sends(c, PKT_SYN | 0xc0, NULL, 0); /* ECE and CWR */
        assert_int_equal(client_gets(c, VSOCK_NOW), PKT_SYN | PKT_ACK | (on ? 0x40 : 0));
        vsock_net_free(net);
    }
}

static void options_can_be_a_connections_own(void **state) /* tcp-stack.md ARC-2, TST-3 */
{
    struct vsock_net *net = vsock_net_new(SECOND, 1, false);
    int s = connected(&peer, net, port_80(net));
    uint64_t value = 0;

    (void)state;
    assert_int_equal(vsock_set(net, 0, VSOCK_USER_TIMEOUT_MS, 10000), -EBUSY); /* the net has begun */
    assert_int_equal(vsock_set(net, s, VSOCK_USER_TIMEOUT_MS, 10000), 0);
    assert_int_equal(vsock_get(net, s, VSOCK_USER_TIMEOUT_MS, &value), 0);
    assert_int_equal(value, 10000);
    assert_int_equal(vsock_get(net, 0, VSOCK_USER_TIMEOUT_MS, &value), 0);
    assert_int_equal(value, 120000);
    assert_int_equal(vsock_set(net, s, VSOCK_MTU, 1400), -EINVAL);
    vsock_net_free(net);
}

static void timeouts_and_congestion_control_are_options(void **state)
{
    struct vsock_net *net = vsock_net_new(SECOND, 1, false);
    struct client *c = &peer;
    struct tcp_info info;
    int s;

    (void)state;
    assert_int_equal(vsock_set(net, 0, VSOCK_USER_TIMEOUT_MS, 10000), 0);
    assert_int_equal(vsock_set(net, 0, VSOCK_KEEPALIVE_IDLE_MS, 5000), 0);
    assert_int_equal(vsock_set(net, 0, VSOCK_KEEPALIVE_INTERVAL_MS, 1000), 0);
    assert_int_equal(vsock_set(net, 0, VSOCK_KEEPALIVE_PROBES, 2), 0);
    assert_int_equal(vsock_set(net, 0, VSOCK_CONGESTION, TCP_CC_NEWRENO), 0);
    assert_int_equal(vsock_set(net, 0, VSOCK_RESTART_AFTER_IDLE, 0), 0);
    s = connected(c, net, port_80(net));
    assert_int_equal(client_gets(c, 7 * SECOND), PKT_ACK); /* a keep-alive probe, */
    assert_int_equal(get_be32(c->last.l4 + 4), c->ack - 1);
    client_sends(c, PKT_ACK, NULL, 0); /* answered */
    assert_int_equal(vsock_write(net, s, "x", 1, VSOCK_NOW), 1);
    vsock_advance(net, vsock_now(net) + SECOND);
    assert_int_equal(vsock_info(net, s, &info), 0);
    assert_string_equal(info.state, "ESTABLISHED");
    assert_true(info.unacked == 1 && info.cwnd_bytes > 0 && info.ssthresh_bytes > 0 && info.mss_bytes == 536);
    assert_true(info.rto_us >= 200000 && info.srtt_us < SECOND && info.sacked == 0 && info.reordering > 0);
    assert_true(info.backoff > 0 || info.retrans > 0 || info.lost > 0 || info.probes > 0);
    vsock_advance(net, vsock_now(net) + 15 * SECOND);
    assert_int_equal(vsock_error(net, s), -ETIMEDOUT);
    vsock_net_free(net);
}

/* ---- a wire, and threads ------------------------------------------------------------------------------------------------- */

static void answer_syn_ack(void *arg, uint64_t at_us, const void *packet, size_t len,
                           const struct pkt_meta *meta)
{
    struct client *c = arg;

    assert_true(len <= sizeof(c->packet));
    memcpy(c->packet, packet, len);
    assert_null(pkt_parse(c->packet, len, meta, &c->last));
    if (!(c->last.l4[13] & PKT_SYN))
        return;
    c->ack = get_be32(c->last.l4 + 4) + 1;
    pkt_tcp(&out, CLIENT, 40000, SERVER, 80, PKT_ACK, c->seq, c->ack, "hi", 2);
    vsock_packet_in(c->net, at_us + 25000, out.data, out.len, NULL); /* 25 ms later */
}

static void a_wire_answers_by_itself(void **state)
{
    struct vsock_net *net = vsock_net_new(SECOND, 1, false);
    struct client *c = &peer;
    char text[4];
    int listener = port_80(net), s;

    (void)state;
    *c = (struct client){ .net = net, .port = 40000, .seq = 1000 };
    vsock_set_wire(net, answer_syn_ack, c);
    client_sends(c, PKT_SYN, NULL, 0);
    s = vsock_accept(net, listener, NULL, VSOCK_FOREVER);
    assert_true(s > 0);
    assert_int_equal(vsock_now(net), SECOND + 25000);
    assert_int_equal(vsock_read(net, s, text, sizeof(text), VSOCK_FOREVER), 2);
    vsock_net_free(net);
}

static void *reader(void *arg)
{
    struct vsock_net *net = arg;
    static char text[8];
    int s = vsock_accept(net, 3, NULL, VSOCK_FOREVER);
    ssize_t n = vsock_read(net, s, text, sizeof(text), VSOCK_FOREVER);

    return n == 2 ? text : NULL;
}

static void a_thread_waits_while_another_moves_the_clock(void **state)
{
    struct vsock_net *net = vsock_net_new(SECOND, 1, true);
    struct client *c = &peer;
    pthread_t thread;
    void *text;

    (void)state;
    assert_int_equal(port_80(net), 3);
    *c = (struct client){ .net = net, .port = 40000, .seq = 1000 };
    vsock_set_wire(net, answer_syn_ack, c);
    assert_int_equal(pthread_create(&thread, NULL, reader, net), 0);
    client_sends(c, PKT_SYN, NULL, 0);
    vsock_advance(net, 2 * SECOND);
    pthread_join(thread, &text);
    assert_non_null(text);
    assert_memory_equal(text, "hi", 2);
    vsock_net_free(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_echo_server_is_a_page),
        cmocka_unit_test(nobody_listens_nobody_connects),
        cmocka_unit_test(both_sides_can_close_one_half),
        cmocka_unit_test(a_call_waits_on_virtual_time),
        cmocka_unit_test(what_waits_can_be_looked_at),
        cmocka_unit_test(a_write_of_the_send_buffer_does_not_wait),
        cmocka_unit_test(a_small_send_buffer_holds_no_more),
        cmocka_unit_test(info_tells_what_was_agreed_on),
        cmocka_unit_test(linger_zero_and_abort_are_a_reset),
        cmocka_unit_test(a_held_syn_is_admitted_or_refused),
        cmocka_unit_test(the_window_starts_as_it_is_told),
        cmocka_unit_test(without_quick_acks_an_ack_is_delayed),
        cmocka_unit_test(ecn_is_agreed_on_only_when_it_is_on),
        cmocka_unit_test(options_can_be_a_connections_own),
        cmocka_unit_test(timeouts_and_congestion_control_are_options),
        cmocka_unit_test(a_wire_answers_by_itself),
        cmocka_unit_test(a_thread_waits_while_another_moves_the_clock),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
