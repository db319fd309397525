/* test_h2.c - src/h2: a client and a server of ours, and peers that misbehave (RFC 9113, RFC 8441, RFC 9297). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "h2_rig.h"

#include <cmocka.h>

static void a_tunnel_carries_bytes_and_both_half_closes(void **state)
{
    struct h2_rig r;
    struct stream_side *c, *s = &r.server.streams[0];

    (void)state;
    h2_rig_init(&r);
    c = h2_ask(&r, "target.test:443", NULL, NULL);
    rig_until(&r.rig, h2_answered, c);
    assert_int_equal(c->status, 200);
    assert_string_equal(s->authority, "target.test:443");
    assert_int_equal(h2_put(c, "hello", 5), 5);
    h2_shutdown(c->s);
    rig_until(&r.rig, h2_has_ended, s);
    assert_string_equal(s->in, "hello");
    assert_false(c->ended); /* the other direction goes on */
    assert_int_equal(h2_put(s, "good day", 8), 8);
    h2_shutdown(s->s);
    rig_until(&r.rig, h2_has_ended, c);
    assert_string_equal(c->in, "good day");
    assert_false(c->closed);
    assert_false(s->closed);
    h2_stream_close(c->s, H2_NO_ERROR);
    h2_stream_close(s->s, H2_NO_ERROR);
    assert_int_equal(h2_stream_count(r.client.h), 0);
    assert_int_equal(h2_stream_count(r.server.h), 0);
    h2_rig_fini(&r);
}

static uint64_t held(const struct h2_rig *r)
{
    struct memory_use use = { { 0 } };

    h2_memory(r->client.h, &use);
    assert_int_equal(memory_sum(&use), use.bytes[MEMORY_HTTP2]);
    return use.bytes[MEMORY_HTTP2];
}

static void memory_follows_streams_and_their_queues(void **state)
{
    struct h2_datagram_options o = { .bytes = 65536, .frames = 64 };
    struct h2_rig r;
    struct stream_side *c;
    uint64_t idle, one, queued;

    (void)state;
    h2_rig_init(&r);
    c = h2_ask(&r, "first.test:1", NULL, NULL); /* what is kept from now on is there */
    rig_until(&r.rig, h2_answered, c);
    one = held(&r);
    assert_int_equal(h2_datagrams(c->s, &o), 0);
    queued = held(&r);
    assert_true(queued >= one + o.bytes);
    h2_stream_close(c->s, H2_NO_ERROR);
    rig_until(&r.rig, h2_was_closed, &r.server.streams[0]);
    idle = held(&r);
    assert_true(idle <= queued - o.bytes);
    h2_rig_fini(&r);
}

struct pump {
    struct stream_side *from, *to;
    size_t sent, total;
};

static bool pumped(void *arg)
{
    static const char data[30000];
    struct pump *p = arg;
    size_t n;

    while (p->sent < p->total) {
        n = p->total - p->sent < sizeof(data) ? p->total - p->sent : sizeof(data);
        n = h2_put(p->from, data, n);
        p->sent += n;
        if (n == 0)
            break;
    }
    if (p->sent < p->total)
        h2_want(p->from->s, LOOP_READ | LOOP_WRITE);
    return p->to->got == p->total;
}

static void a_slow_reader_holds_up_only_its_own_stream(void **state)
{
    struct h2_rig r;
    struct stream_side *slow, *fast;
    struct pump p = { .total = 8 * 1024 * 1024 };
    char junk[30000] = "";
    size_t sent = 0;

    (void)state;
    h2_rig_init(&r);
    r.server.hold = true;
    slow = h2_ask(&r, "a:1", NULL, NULL);
    rig_until(&r.rig, h2_answered, slow);
    for (int i = 0; i < 100; i++) { /* until nothing goes any more */
        size_t n = h2_put(slow, junk, sizeof(junk));

        sent += n;
        rig_run_ms(&r.rig, 1);
    }
    assert_in_range(sent, 65535, 65535 + 64 * 1024); /* their window, and what may wait here */
    r.server.hold = false;
    fast = h2_ask(&r, "b:1", NULL, NULL);
    rig_until(&r.rig, h2_answered, fast);
    p.from = fast;
    p.to = &r.server.streams[1];
    rig_until(&r.rig, pumped, &p);
    r.server.streams[0].hold = false;
    h2_want(r.server.streams[0].s, LOOP_READ); /* and when it reads, all of it is there */
    h2_shutdown(slow->s);
    rig_until(&r.rig, h2_has_ended, &r.server.streams[0]);
    assert_int_equal(r.server.streams[0].got, sent);
    h2_rig_fini(&r);
}

static void resets_tell_their_reason(void **state)
{
    static const struct {
        enum h2_code code;
        int err;
    } rows[] = {
        { H2_CONNECT_ERROR, -ECONNRESET },
        { H2_CANCEL, -ECONNRESET },
        { H2_REFUSED_STREAM, -EAGAIN },
        { H2_ENHANCE_YOUR_CALM, -EBUSY },
    };
    struct h2_rig r;

    (void)state;
    h2_rig_init(&r);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream_side *c = h2_ask(&r, "a:1", NULL, NULL);

        rig_until(&r.rig, h2_answered, c);
        h2_stream_close(r.server.streams[r.server.n - 1].s, rows[i].code);
        rig_until(&r.rig, h2_was_closed, c);
        assert_int_equal(c->err, rows[i].err);
        assert_int_equal(c->code, rows[i].code);
    }
    r.server.refuse = true;
    {
        struct stream_side *c = h2_ask(&r, "a:1", NULL, NULL);

        rig_until(&r.rig, h2_was_closed, c);
        assert_int_equal(c->err, -EAGAIN);
    }
    assert_int_equal(h2_stream_count(r.client.h), 0);
    h2_rig_fini(&r);
}

static void a_drained_connection_ends_with_its_last_stream(void **state)
{
    struct h2_rig r;
    struct h2_head head = { .method = "CONNECT", .authority = "b:1" };
    struct stream_side *c, other = { 0 };

    (void)state;
    h2_rig_init(&r);
    c = h2_ask(&r, "a:1", NULL, NULL);
    rig_until(&r.rig, h2_answered, c);
    h2_drain(r.server.h);
    rig_run_ms(&r.rig, 20);
    assert_true(r.client.drained);
    assert_false(h2_can_open(r.client.h));
    assert_int_equal(h2_request(r.client.h, &head, &h2_stream_log, &other, &other.s), -ESHUTDOWN);
    assert_int_equal(h2_put(c, "still here", 10), 10); /* what runs goes on */
    h2_shutdown(c->s);
    rig_until(&r.rig, h2_has_ended, &r.server.streams[0]);
    assert_string_equal(r.server.streams[0].in, "still here");
    assert_false(r.client.over);
    h2_shutdown(r.server.streams[0].s);
    rig_until(&r.rig, h2_has_ended, c);
    rig_until(&r.rig, h2_side_over, &r.server);
    assert_int_equal(r.server.err, 0);
    rig_until(&r.rig, h2_side_over, &r.client);
    h2_rig_fini(&r);
}

static void extended_connect_is_known_from_settings(void **state) /* RFC 8441 section 3 */
{
    struct h2_rig r;
    struct stream_side *c;

    (void)state;
    h2_rig_init(&r);
    assert_true(h2_has_extended_connect(r.client.h));
    c = h2_ask(&r, "proxy.test", "connect-udp", "/.well-known/masque/udp/192.0.2.1/53/");
    rig_until(&r.rig, h2_answered, c);
    assert_string_equal(r.server.streams[0].protocol, "connect-udp");
    assert_string_equal(r.server.streams[0].path, "/.well-known/masque/udp/192.0.2.1/53/");
    h2_rig_fini(&r);
}

/* ---- datagrams ---------------------------------------------------------------------------------------------------------------- */

struct count {
    struct stream_side *s;
    unsigned want;
};

static bool counted(void *arg)
{
    struct count *c = arg;

    return c->s->datagrams >= c->want;
}

static struct stream_side *datagram_pair(struct h2_rig *r, unsigned frames, bool urgent)
{
    struct h2_datagram_options opt = { frames, 256 * 1024, urgent };
    struct stream_side *c = h2_ask(r, "proxy.test", "connect-udp", "/x/");

    rig_until(&r->rig, h2_answered, c);
    r->server.streams[r->server.n - 1].capsules = true;
    assert_int_equal(h2_datagrams(r->server.streams[r->server.n - 1].s, &opt), 0);
    assert_int_equal(h2_datagrams(c->s, &opt), 0);
    return c;
}

static void send_one(struct stream_side *s, const void *data, size_t len, uint64_t deadline_us)
{
    struct iovec iov = { (void *)(uintptr_t)data, len };

    assert_int_equal(h2_datagram_send(s->s, 0, &iov, 1, deadline_us), 0);
}

static void datagrams_of_every_size_arrive_whole(void **state) /* icmp.md T1 */
{
    static const size_t sizes[] = { 0, 1, 63, 64, 1200, 16367, 16384, 20000, 65507, 65535 };
    static uint8_t data[65535];
    struct h2_rig r;
    struct stream_side *c;

    (void)state;
    h2_rig_init(&r);
    c = datagram_pair(&r, 128, false);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct count n = { &r.server.streams[0], (unsigned)i + 1 };

        memset(data, (int)(0x41 + i), sizeof(data));
        send_one(c, data, sizes[i], UINT64_MAX);
        rig_until(&r.rig, counted, &n);
        assert_int_equal(n.s->last_len, sizes[i] + 1); /* and the context id */
        assert_int_equal(n.s->last[0], 0);
        if (sizes[i] > 0)
            assert_memory_equal(n.s->last + 1, data, sizes[i] < 63 ? sizes[i] : 63);
    }
    h2_rig_fini(&r);
}

/* DATA frames that wait at the server's end, not read yet. */
static unsigned frames_waiting(const struct h2_rig *r)
{
    static uint8_t bytes[65536];
    ssize_t len = recv(r->server.fd, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT), at = 0;
    unsigned n = 0;

    while (at + 9 <= len) {
        n += bytes[at + 3] == 0; /* RFC 9113 section 4.1: length, type */
        at += 9 + (ssize_t)(get_be16(bytes + at + 1) + ((size_t)bytes[at] << 16));
    }
    return n;
}

static void a_batch_of_datagrams_leaves_in_one_frame(void **state)
{
    static uint8_t data[1200];
    struct h2_rig r;
    struct stream_side *c;
    struct count n;

    (void)state;
    h2_rig_init(&r);
    c = datagram_pair(&r, 128, false);
    rig_run_ms(&r.rig, 5);
    h2_cork(c->s);
    for (int i = 0; i < 10; i++)
        send_one(c, data, sizeof(data), UINT64_MAX);
    assert_int_equal(frames_waiting(&r), 0);
    h2_uncork(c->s);
    assert_int_equal(frames_waiting(&r), 1);
    n = (struct count){ &r.server.streams[0], 10 };
    rig_until(&r.rig, counted, &n);
    assert_int_equal(n.s->last_len, sizeof(data) + 1);
    for (int i = 0; i < 3; i++)
        send_one(c, data, sizeof(data), UINT64_MAX);
    assert_int_equal(frames_waiting(&r), 3); /* on its own a datagram waits for nobody */
    h2_rig_fini(&r);
}

static void block(struct h2_rig *r, struct stream_side *bulk)
{
    static const char data[16384];
    int small = 4096;

    setsockopt(r->client.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    while (h2_put(bulk, data, sizeof(data)) > 0)
        ; /* the other end does not run meanwhile */
}

static void a_full_queue_drops_the_oldest_and_the_late_ones(void **state) /* icmp.md T7 */
{
    struct h2_rig r;
    struct stream_side *bulk, *c;
    struct count n;
    uint64_t now_us;

    (void)state;
    h2_rig_init(&r);
    bulk = h2_ask(&r, "a:1", NULL, NULL);
    rig_until(&r.rig, h2_answered, bulk);
    c = datagram_pair(&r, 128, true);
    block(&r, bulk);
    now_us = loop_now_us(r.rig.loop);
    for (unsigned i = 0; i < 1000; i++)
        send_one(c, &i, sizeof(i),
                 i >= 990 ? now_us : now_us + 60 * 1000000ull); /* the last ten are late already */
    n = (struct count){ &r.server.streams[1], 118 };
    rig_until(&r.rig, counted, &n);
    rig_run_ms(&r.rig, 20);
    assert_int_equal(n.s->datagrams, 118); /* 128 held, ten of them late */
    assert_int_equal(h2_counters(r.client.h)->datagrams_dropped, 1000 - 128);
    assert_int_equal(h2_counters(r.client.h)->datagrams_expired, 10);
    h2_rig_fini(&r);
}

static void an_urgent_datagram_waits_for_one_frame_of_bulk_at_most(void **state) /* icmp.md T6 */
{
    struct h2_rig r;
    struct stream_side *bulk, *c;
    struct count n;
    int held = 0;

    (void)state;
    h2_rig_init(&r);
    bulk = h2_ask(&r, "a:1", NULL, NULL);
    rig_until(&r.rig, h2_answered, bulk);
    c = datagram_pair(&r, 128, true);
    block(&r, bulk);
    assert_true(h2_unsent(bulk->s));
    assert_int_equal(ioctl(r.server.fd, FIONREAD, &held), 0);
    send_one(c, "ping", 4, UINT64_MAX);
    n = (struct count){ &r.server.streams[1], 1 };
    rig_until(&r.rig, counted, &n);
    /* what the socket held, one frame, and one that the peer's end reads in the same go */
    assert_in_range(n.s->bulk_at, 0, (size_t)held + 16384 + 16384);
    assert_true(n.s->bulk_at < 60 * 1024); /* and far from all of it */
    h2_rig_fini(&r);
}

static void unknown_capsules_are_skipped_and_cut_ones_are_an_error(
    void **state) /* RFC 9297 section 3.2, 3.3 */
{
    static uint8_t big[60000];
    struct h2_rig r;
    struct stream_side *c, *s;
    struct count n;

    (void)state;
    h2_rig_init(&r);
    c = datagram_pair(&r, 128, false);
    s = &r.server.streams[0];
    assert_int_equal(h2_capsule_send(c->s, 0x2575, big, sizeof(big)), 0);
    assert_int_equal(h2_capsule_send(c->s, 0x3fffffff, "", 0), 0);
    send_one(c, "after", 5, UINT64_MAX);
    n = (struct count){ s, 1 };
    rig_until(&r.rig, counted, &n);
    assert_memory_equal(s->last + 1, "after", 5);
    assert_int_equal(h2_counters(r.server.h)->capsules_skipped, 2);
    c = h2_ask(&r, "proxy.test", "connect-udp", "/y/");
    rig_until(&r.rig, h2_answered, c);
    s = &r.server.streams[1];
    s->capsules = true;
    assert_int_equal(h2_put(c, "\x00\x05xx", 4), 4);
    h2_shutdown(c->s);
    rig_run_ms(&r.rig, 20);
    assert_int_equal(s->bad, -EBADMSG);
    h2_rig_fini(&r);
}

/* ---- peers that misbehave ------------------------------------------------------------------------------------------------------ */

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                              "\0\0\0\4\0\0\0\0\0";
enum { PREFACE_LEN = 24 + 9 };

static void garbage_is_named(void **state)
{
    static const char *const texts[] = { "HTTP/1.1 400 Bad Request\r\n\r\n",
                                         "\x05\x00\x00\x01\x00\x00\x00\x00",
                                         "SSH-2.0-OpenSSH_9.2p1 Debian\r\n" };
    struct h2_rig r;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        h2_rig_init_raw(&r, false);
        assert_true(write(r.server.fd, texts[i], i == 1 ? 8 : strlen(texts[i])) > 0);
        shutdown(r.server.fd, SHUT_WR);
        rig_until(&r.rig, h2_side_over, &r.client);
        assert_true(r.client.err == -EPROTO || r.client.err == -ECONNRESET);
        assert_non_null(strstr(r.client.why, "HTTP/2"));
        h2_rig_fini(&r);
    }
}

static void floods_of_control_frames_end_the_connection(
    void **state) /* faults.md 15: PING, SETTINGS, PRIORITY */
{
    static const struct {
        const char *frame;
        size_t len;
    } rows[] = {
        { "\0\0\x08\6\0\0\0\0\0"
          "12345678",
          17 },
        { "\0\0\0\4\0\0\0\0\0", 9 },
        { "\0\0\5\2\0\0\0\0\1\0\0\0\0\x10", 14 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct h2_rig r;

        h2_rig_init_raw(&r, true);
        assert_int_equal(write(r.client.fd, preface, PREFACE_LEN), PREFACE_LEN);
        for (int n = 0; n < 3000 && !r.server.over; n++) {
            char sink[4096];

            if (write(r.client.fd, rows[i].frame, rows[i].len) < 0)
                rig_run_ms(&r.rig, 1);
            while (read(r.client.fd, sink, sizeof(sink)) > 0)
                ;
        }
        rig_until(&r.rig, h2_side_over, &r.server);
        assert_int_equal(r.server.err, -EBUSY);
        h2_rig_fini(&r);
    }
}

static void rapid_resets_end_the_connection(void **state) /* faults.md 15, CVE-2023-44487 */
{
    struct h2_rig r;

    (void)state;
    h2_rig_init(&r);
    for (int i = 0; i < 20000 && !r.server.over && !r.client.over; i++) {
        struct h2_head head = { .method = "CONNECT", .authority = "a:1" };
        struct stream_side s = { .side = &r.client };

        if (!h2_can_open(r.client.h) || h2_request(r.client.h, &head, &h2_stream_log, &s, &s.s) != 0)
            rig_run_ms(&r.rig, 1);
        else
            h2_stream_close(s.s, H2_CANCEL);
        if (i % 16 == 0)
            rig_run_ms(&r.rig, 1);
    }
    assert_true(r.server.over);
    assert_in_range(r.server.requests, 900, 5000);
    h2_rig_fini(&r);
}

/* What is waiting to be taken, and thrown away now, opens a window, and saying so finds the connection broken and their reset. */
static void a_stream_may_be_reset_while_we_let_it_linger(void **state)
{
    static const uint8_t reset[] = { 0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8 };
    uint8_t frame[9 + 16000] = { 0, 16000 >> 8, 16000 & 255, 0, 0, 0, 0, 0, 1 };
    struct stream_side *c;
    struct h2_rig r;

    (void)state;
    h2_rig_init_raw(&r, false);
    assert_int_equal(write(r.server.fd, preface + 24, PREFACE_LEN - 24), PREFACE_LEN - 24);
    c = h2_ask(&r, "a:1", NULL, NULL);
    c->hold = true;
    rig_run_ms(&r.rig, 5);
    assert_int_equal(write(r.server.fd, "\0\0\1\1\4\0\0\0\1\x88", 10), 10); /* 200 */
    h2_shutdown(c->s);
    for (int i = 0; i < 3; i++)
        assert_int_equal(write(r.server.fd, frame, sizeof(frame)), sizeof(frame));
    rig_until(&r.rig, h2_answered, c);
    rig_run_ms(&r.rig, 5);
    assert_int_equal(write(r.server.fd, reset, sizeof(reset)), sizeof(reset));
    shutdown(r.server.fd, SHUT_RDWR);
    h2_stream_linger(c->s);
    rig_until(&r.rig, h2_side_over, &r.client);
    assert_false(c->closed);
    rig_run_ms(&r.rig, 5);
    h2_rig_fini(&r);
}

static void a_silent_peer_is_noticed(void **state)
{
    struct h2_rig r;
    struct h2_options opt = { 0 };

    (void)state;
    h2_rig_init_raw(&r, false);
    h2_close(r.client.h);
    opt = (struct h2_options){ .loop = r.rig.loop,
                               .wheel = &r.rig.wheel,
                               .fd = r.client.fd,
                               .keep_alive_ms = 50,
                               .keep_alive_reply_ms = 50,
                               .events = &h2_side_events,
                               .arg = &r.client };
    assert_int_equal(h2_open(&opt, &r.client.h), 0);
    rig_until(&r.rig, h2_side_over, &r.client);
    assert_int_equal(r.client.err, -ETIMEDOUT);
    h2_rig_fini(&r);
}

static void streams_hear_that_the_connection_broke(void **state)
{
    struct h2_rig r;
    struct stream_side *c;

    (void)state;
    h2_rig_init(&r);
    c = h2_ask(&r, "a:1", NULL, NULL);
    rig_until(&r.rig, h2_answered, c);
    shutdown(r.server.fd, SHUT_RDWR);
    rig_until(&r.rig, h2_side_over, &r.client);
    assert_true(c->closed);
    assert_int_equal(c->err, -ECONNRESET);
    h2_rig_fini(&r);
}

static void streams_beyond_the_servers_number_are_refused_here(void **state)
{
    struct h2_rig r;
    struct h2_head head = { .method = "CONNECT", .authority = "a:1" };
    struct stream_side s[300] = { { 0 } };
    unsigned opened = 0;

    (void)state;
    h2_rig_init(&r);
    for (size_t i = 0; i < ARRAY_LEN(s); i++) {
        int e = h2_request(r.client.h, &head, &h2_stream_log, &s[i], &s[i].s);

        assert_true(e == 0 || e == -EBUSY);
        opened += e == 0;
    }
    assert_int_equal(opened, 256);
    h2_rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tunnel_carries_bytes_and_both_half_closes),
        cmocka_unit_test(memory_follows_streams_and_their_queues),
        cmocka_unit_test(a_slow_reader_holds_up_only_its_own_stream),
        cmocka_unit_test(resets_tell_their_reason),
        cmocka_unit_test(a_drained_connection_ends_with_its_last_stream),
        cmocka_unit_test(extended_connect_is_known_from_settings),
        cmocka_unit_test(datagrams_of_every_size_arrive_whole),
        cmocka_unit_test(a_batch_of_datagrams_leaves_in_one_frame),
        cmocka_unit_test(a_full_queue_drops_the_oldest_and_the_late_ones),
        cmocka_unit_test(an_urgent_datagram_waits_for_one_frame_of_bulk_at_most),
        cmocka_unit_test(unknown_capsules_are_skipped_and_cut_ones_are_an_error),
        cmocka_unit_test(garbage_is_named),
        cmocka_unit_test(floods_of_control_frames_end_the_connection),
        cmocka_unit_test(rapid_resets_end_the_connection),
        cmocka_unit_test(a_stream_may_be_reset_while_we_let_it_linger),
        cmocka_unit_test(a_silent_peer_is_noticed),
        cmocka_unit_test(streams_hear_that_the_connection_broke),
        cmocka_unit_test(streams_beyond_the_servers_number_are_refused_here),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
