/* test_serve_masque_udp.c - the MASQUE server: datagrams, and pings in a namespace whose addresses answer them. */
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "masque_lab.h"

/* ---- UDP ---- */

struct echo_server { /* answers datagrams with themselves */
    struct loop_io io;
    uint16_t port;
};

static void on_datagram(struct loop_io *io, unsigned events)
{
    static uint8_t data[65536];
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    ssize_t n = recvfrom(loop_io_fd(io), data, sizeof(data), 0, (struct sockaddr *)&ss, &len);

    (void)events;
    if (n >= 0)
        (void)sendto(loop_io_fd(io), data, (size_t)n, 0, (struct sockaddr *)&ss, len);
}

static void echo_server_open(struct masque_lab *lab, struct echo_server *e)
{
    struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(sin);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    *e = (struct echo_server){ .port = 0 };
    assert_int_equal(bind(fd, (struct sockaddr *)&sin, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
    e->port = ntohs(sin.sin_port);
    loop_io_start(lab->h2.rig.loop, &e->io, fd, LOOP_READ, on_datagram);
}

static void echo_server_close(struct masque_lab *lab, struct echo_server *e)
{
    int fd = loop_io_fd(&e->io);

    loop_io_stop(lab->h2.rig.loop, &e->io);
    close(fd);
}

static struct stream_side *ask_udp(struct masque_lab *lab, const char *host, uint16_t port)
{
    static const struct h2_datagram_options queue = { .frames = 64, .bytes = 512 * 1024 };
    char path[128];
    struct stream_side *s;

    snprintf(path, sizeof(path), "/.well-known/masque/udp/%s/%u/", host, port);
    s = h2_ask(&lab->h2, "proxy", "connect-udp", path);
    s->capsules = true;
    assert_int_equal(h2_datagrams(s->s, &queue), 0);
    rig_until(&lab->h2.rig, h2_answered, s);
    return s;
}

static void put_datagram(struct stream_side *s, uint64_t context, const void *data, size_t len)
{
    struct iovec iov = { (void *)(uintptr_t)data, len };

    assert_int_equal(h2_datagram_send(s->s, context, &iov, 1, UINT64_MAX), 0);
}

static bool got_datagram(void *arg)
{
    return ((struct stream_side *)arg)->datagrams >= 1;
}

static bool got_all_sizes(void *arg)
{
    return ((struct stream_side *)arg)->datagrams >= 4;
}

static void datagrams_go_both_ways_by_address_and_by_name(void **state)
{
    static const size_t sizes[] = { 0, 1, 1350, 60000 };
    static uint8_t data[60000];
    struct masque_lab *lab = *state;
    struct echo_server e;
    struct rig_name *name;

    masque_lab_start(lab);
    name = rig_name(&lab->h2.rig, "target.test", RIG_NOW);
    name->addrs[name->n++] = rig_addr("10.0.0.1"); /* not this one */
    name->addrs[name->n++] = rig_addr("127.0.0.1");
    echo_server_open(lab, &e);
    for (int by_name = 0; by_name < 2; by_name++) {
        struct stream_side *s = ask_udp(lab, by_name ? "target.test" : "127.0.0.1", e.port);

        assert_int_equal(s->status, 200);
        put_datagram(s, 1, "other context", 13); /* dropped */
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
            put_datagram(s, 0, data, sizes[i]);
        rig_until(&lab->h2.rig, got_all_sizes, s);
        assert_int_equal(s->datagrams, 4);
        assert_int_equal(s->last_len, 60001); /* its context, too */
        h2_shutdown(s->s);
        rig_until(&lab->h2.rig, h2_has_ended, s);
        h2_stream_close(s->s, H2_NO_ERROR);
    }
    assert_int_equal(masque_counters(lab->masque)->datagrams_up, 8);
    echo_server_close(lab, &e);
}

static void a_closed_port_resets_the_stream(void **state)
{
    struct masque_lab *lab = *state;
    struct echo_server e;
    struct stream_side *s;

    masque_lab_start(lab);
    echo_server_open(lab, &e);
    echo_server_close(lab, &e);
    s = ask_udp(lab, "127.0.0.1", e.port);
    put_datagram(s, 0, "x", 1);
    rig_until(&lab->h2.rig, h2_was_closed, s);
    assert_int_equal(s->code, H2_CONNECT_ERROR);
}

/* ---- pings ---- */

static uint16_t sum16(const uint8_t *data, size_t len, uint32_t sum)
{
    for (size_t i = 0; i < len; i++)
        sum += (uint32_t)data[i] << (i % 2 ? 0 : 8);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

struct ping {
    const char *from, *to;
    uint8_t ttl, type;
    uint16_t id, seq;
    size_t payload;
};

/* An echo request as a client of the tunnel sends it. Return: its length. */
static size_t make_ping(const struct ping *p, uint8_t *to)
{
    struct ip_addr a = rig_addr(p->from), b = rig_addr(p->to);
    size_t head = ip_is4(&a) ? 20 : 40, len = head + 8 + p->payload;
    uint8_t *icmp = to + head;
    uint32_t sum = 0;

    memset(to, 0, head + 8);
    for (size_t i = 0; i < p->payload; i++)
        icmp[8 + i] = (uint8_t)(i * 7);
    icmp[0] = p->type ? p->type : head == 20 ? 8 : 128;
    put_be16(icmp + 4, p->id);
    put_be16(icmp + 6, p->seq);
    if (head == 20) {
        to[0] = 0x45;
        to[1] = 0x20;
        put_be16(to + 2, (uint16_t)len);
        to[8] = p->ttl;
        to[9] = 1;
        memcpy(to + 12, a.b + 12, 4);
        memcpy(to + 16, b.b + 12, 4);
        put_be16(to + 10, sum16(to, 20, 0));
    } else {
        to[0] = 0x62;
        put_be16(to + 4, (uint16_t)(len - 40));
        to[6] = 58;
        to[7] = p->ttl;
        memcpy(to + 8, a.b, 16);
        memcpy(to + 24, b.b, 16);
        for (size_t i = 8; i < 40; i += 2)
            sum += get_be16(to + i);
        sum += (uint32_t)(len - 40) + 58;
    }
    put_be16(icmp + 2, sum16(icmp, len - head, sum));
    return len;
}

#define FIRST4 "100.64.0.2" /* what the first tunnel of a server is given */
#define FIRST6 "fd63:756c:7665:7274::2"

static struct stream_side *ask_echo(struct masque_lab *lab, int proto)
{
    static const struct h2_datagram_options queue = { .frames = 128, .bytes = 512 * 1024, .urgent = true };
    char path[MASQUE_PATH_MAX];
    struct stream_side *s;

    masque_ip_path_put((uint8_t)proto, path);
    s = h2_ask(&lab->h2, "proxy", "connect-ip", path);
    s->capsules = true;
    assert_int_equal(h2_datagrams(s->s, &queue), 0);
    rig_until(&lab->h2.rig, h2_answered, s);
    return s;
}

static void put_ping(struct stream_side *s, const struct ping *p)
{
    static uint8_t packet[H2_DATAGRAM_MAX];

    put_datagram(s, 0, packet, make_ping(p, packet));
}

static void a_ping_of_any_size_comes_back_exact(void **state) /* icmp.md T1, T2 */
{
    static const size_t sizes[2][5] = { { 0, 56, 1452, 9000, 65507 },
                                        { 0, 56, 1452, 9000, 65488 } }; /* "lo" takes 65,536 */
    struct masque_lab *lab = *state;

    masque_lab_start(lab);
    for (int v6 = 0; v6 < 2; v6++) {
        struct stream_side *s = ask_echo(lab, v6 ? 58 : 1);
        size_t head = v6 ? 40 : 20;

        assert_int_equal(s->status, 200);
        for (size_t i = 0; i < ARRAY_LEN(sizes[0]); i++) {
            struct ping p = {
                v6 ? FIRST6 : FIRST4, v6 ? "2001:db8::1" : "192.0.2.1", 64, 0, 0xbeef, (uint16_t)(i + 1),
                sizes[v6][i]
            };

            s->datagrams = 0;
            put_ping(s, &p);
            rig_until(&lab->h2.rig, got_datagram, s);
            assert_int_equal(s->last_len, 1 + head + 8 + sizes[v6][i]);
            assert_int_equal(s->last[1 + head], v6 ? 129 : 0);
            assert_int_equal(get_be16(s->last + 1 + head + 4), 0xbeef);
            assert_int_equal(get_be16(s->last + 1 + head + 6), i + 1);
            if (sizes[v6][i] >= 8)
                assert_int_equal(s->last[1 + head + 8 + 3], 21);
            assert_int_equal(s->last[1 + (v6 ? 7 : 8)], 63); /* one hop: ours (T3) */
        }
        h2_stream_close(s->s, H2_CANCEL);
        rig_run_ms(&lab->h2.rig, 20); /* its place, and so its address, is free again */
    }
}

static void what_a_ping_cannot_have_is_an_error_from_the_exit(void **state) /* icmp.md T3, T9, T15 */
{
    static const struct {
        const char *when, *to;
        uint8_t ttl, type, code;
        const char *source;
    } rows[] = {
        { "its time is up here", "192.0.2.1", 1, 11, 0, "198.51.100.1" },
        { "a private target", "10.0.0.1", 64, 3, 13, "198.51.100.1" },
        { "no route", "192.0.2.14", 64, 3, 0, "198.51.100.1" },
        { "ours, and private", "2001:db8:9::1", 64, 1, 1, "2001:db8:f::1" },
        { "time is up, IPv6", "2001:db8::1", 1, 3, 0, "2001:db8:f::1" },
    };
    struct masque_lab *lab = *state;
    int wrong = 0;

    masque_lab_start(lab);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct ip_addr to = rig_addr(rows[i].to), source = rig_addr(rows[i].source), said;
        bool v6 = !ip_is4(&to);
        struct stream_side *s = ask_echo(lab, v6 ? 58 : 1);
        struct ping p = { v6 ? FIRST6 : FIRST4, rows[i].to, rows[i].ttl, 0, 7, 1, 56 };
        size_t head = v6 ? 40 : 20;

        put_ping(s, &p);
        rig_until(&lab->h2.rig, got_datagram, s);
        said = v6 ? ip_from6(s->last + 1 + 8) : ip_from4(s->last + 1 + 12);
        if ((s->last[1 + head] != rows[i].type || s->last[2 + head] != rows[i].code ||
             !ip_equal(&said, &source)) &&
            ++wrong)
            print_error("%s: %u/%u\n", rows[i].when, s->last[1 + head], s->last[2 + head]);
        h2_stream_close(s->s, H2_CANCEL);
        rig_run_ms(&lab->h2.rig, 20);
    }
    assert_int_equal(wrong, 0);
}

static bool has_dropped(void *lab)
{
    return masque_counters(((struct masque_lab *)lab)->masque)->echo_dropped >= 4;
}

static void what_is_no_ping_of_this_tunnel_is_dropped(void **state) /* RFC 9484 section 7.1; icmp.md T5 */
{
    const struct ping foreign = { "100.64.0.9", "192.0.2.1", 64, 0, 1, 1, 8 };
    const struct ping reply = { FIRST4, "192.0.2.1", 64, 11, 1, 1, 8 };
    const struct ping six = { FIRST6, "2001:db8::1", 64, 0, 1, 1, 8 };
    const struct ping good = { FIRST4, "192.0.2.1", 64, 0, 1, 9, 8 };
    struct masque_lab *lab = *state;
    struct stream_side *s;

    masque_lab_start(lab);
    s = ask_echo(lab, 1);
    put_ping(s, &foreign);
    put_ping(s, &reply);
    put_ping(s, &six);
    put_datagram(s, 0, "", 0);
    rig_until(&lab->h2.rig, has_dropped, lab);
    assert_int_equal(s->datagrams, 0);
    put_ping(s, &good);
    rig_until(&lab->h2.rig, got_datagram, s);
    rig_run_ms(&lab->h2.rig, 50);
    assert_int_equal(s->datagrams, 1); /* one answer for one request, and none for the others */
    h2_stream_close(s->s, H2_CANCEL);
}

static void a_server_without_pings_says_so_by_a_status(void **state) /* icmp.md T10 */
{
    struct masque_options o = masque_lab_options();
    struct masque_lab *lab = *state;

    o.echo = false;
    masque_lab_serve(lab, &o);
    masque_lab_connect(lab);
    assert_int_equal(ask_echo(lab, 1)->status, 403);
    assert_int_equal(ask_echo(lab, 58)->status, 403);
}

static void an_answer_to_a_tunnel_that_has_ended_is_dropped(void **state) /* icmp.md T13 */
{
    struct echo_proxy_answer a = { .ttl = 64 };
    struct masque_lab *lab = *state;
    struct stream_side *s;

    masque_lab_start(lab);
    s = ask_echo(lab, 1);
    a.client = rig_addr(FIRST4);
    a.target = rig_addr("192.0.2.1");
    masque_on_echo_answer(lab->masque, UINT64_C(1) << 32 | 1,
                          &a); /* this one: first place, first generation */
    rig_until(&lab->h2.rig, got_datagram, s);
    masque_on_echo_answer(lab->masque, UINT64_C(9) << 32 | 1, &a);
    masque_on_echo_answer(lab->masque, UINT64_C(1) << 32 | 99, &a);
    h2_stream_close(s->s, H2_CANCEL);
    rig_run_ms(&lab->h2.rig, 20);
    masque_on_echo_answer(lab->masque, UINT64_C(1) << 32 | 1, &a);
    assert_int_equal(masque_counters(lab->masque)->echo_dropped, 3);
    assert_int_equal(masque_counters(lab->masque)->echo_answers, 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, masque_lab_setup, masque_lab_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(datagrams_go_both_ways_by_address_and_by_name),
        TEST(a_closed_port_resets_the_stream),
        TEST(a_ping_of_any_size_comes_back_exact),
        TEST(what_a_ping_cannot_have_is_an_error_from_the_exit),
        TEST(what_is_no_ping_of_this_tunnel_is_dropped),
        TEST(a_server_without_pings_says_so_by_a_status),
        TEST(an_answer_to_a_tunnel_that_has_ended_is_dropped),
    };

    return run_unless(netns_enter_for_pings(65536), tests);
}
