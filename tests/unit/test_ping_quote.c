/* test_ping_quote.c - what is read from ping sockets and their error queues, and the quote that a client gets. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "echo/ping_impl.h"

#include <linux/errqueue.h> /* wants struct timespec before it */

static const struct ip_addr ip_none;

static struct ip_addr addr(const char *text)
{
    struct ip_addr a;

    assert_int_equal(ip_parse(text, &a), 0);
    return a;
}

/* ---- messages ---- */

static const struct read_row {
    const char *when;
    bool v6, raw;
    enum ping_read wanted;
    uint8_t bytes[32];
    size_t len;
} reads[] = {
    { "a reply without payload", false, false, PING_READ_REPLY, { 0, 0, 9, 9, 1, 2, 3, 4 }, 8 },
    { "a reply with payload", false, false, PING_READ_REPLY, { 0, 0, 9, 9, 1, 2, 3, 4, 5 }, 9 },
    { "an IPv6 reply", true, false, PING_READ_REPLY, { 129, 0, 9, 9, 1, 2, 3, 4 }, 8 },
    { "too short", false, false, PING_READ_BAD, { 0, 0, 9, 9, 1, 2, 3 }, 7 },
    { "nothing", false, false, PING_READ_BAD, { 0 }, 0 },
    { "a request", false, false, PING_READ_OTHER, { 8, 0, 9, 9, 1, 2, 3, 4 }, 8 },
    { "an error message", false, false, PING_READ_OTHER, { 11, 0, 9, 9, 1, 2, 3, 4 }, 8 },
    { "the other family's reply", true, false, PING_READ_OTHER, { 0, 0, 9, 9, 1, 2, 3, 4 }, 8 },
    { "a reply with a code", false, false, PING_READ_OTHER, { 0, 1, 9, 9, 1, 2, 3, 4 }, 8 },
    { "raw, header cut", false, true, PING_READ_BAD, { 0x45, 0, 0, 20 }, 19 },
    { "raw, options beyond the end", false, true, PING_READ_BAD, { 0x4f }, 28 },
    { "raw, no IPv4", false, true, PING_READ_BAD, { 0x65 }, 28 },
    { "raw, bad checksum", false, true, PING_READ_BAD, { 0x45, [20] = 0, 0, 1, 1, 1, 2, 3, 4 }, 28 },
    { "raw, a reply", false, true, PING_READ_REPLY, { 0x45, [20] = 0, 0, 0xfb, 0xf9, 1, 2, 3, 4 }, 28 },
};

static void only_whole_echo_replies_are_replies(void **state) /* icmp.md X20, X24, 4.8 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(reads); i++) {
        const struct read_row *r = &reads[i];
        struct ping_message m;
        uint8_t *copy = malloc(r->len + 1); /* so that a read past the end is seen */

        memcpy(copy + 1, r->bytes, r->len);
        if (ping_read_message((struct span){ copy + 1, r->len }, r->v6, r->raw, &m) != r->wanted) {
            print_error("%s\n", r->when);
            wrong++;
        } else if (r->wanted == PING_READ_REPLY) {
            wrong += m.id != 0x102 || m.seq != 0x304 || m.payload_len > 1;
        }
        free(copy);
    }
    assert_int_equal(wrong, 0);
}

/* ---- errors: E1 to E7, E10 ---- */

static const struct map_row {
    const char *id;
    bool v6;
    uint8_t origin, type, code;
    int err;
    uint32_t info;
    bool told;
    uint8_t to_type, to_code;
    uint32_t to_info;
} maps[] = {
    { "E1", false, SO_EE_ORIGIN_ICMP, 11, 0, EHOSTUNREACH, 0, true, 11, 0, 0 },
    { "E1", true, SO_EE_ORIGIN_ICMP6, 3, 0, EHOSTUNREACH, 0, true, 3, 0, 0 },
    { "E2", false, SO_EE_ORIGIN_ICMP, 11, 1, EHOSTUNREACH, 0, true, 11, 1, 0 },
    { "E2", true, SO_EE_ORIGIN_ICMP6, 3, 1, EHOSTUNREACH, 0, true, 3, 1, 0 },
    { "E3", false, SO_EE_ORIGIN_ICMP, 3, 1, EHOSTUNREACH, 0, true, 3, 1, 0 },
    { "E3", false, SO_EE_ORIGIN_ICMP, 3, 13, EHOSTUNREACH, 0, true, 3, 13, 0 },
    { "E3", true, SO_EE_ORIGIN_ICMP6, 1, 1, EACCES, 0, true, 1, 1, 0 },
    { "E4", false, SO_EE_ORIGIN_ICMP, 3, 4, EMSGSIZE, 1400, true, 3, 4, 1400 },
    { "E4, above our limit", false, SO_EE_ORIGIN_ICMP, 3, 4, EMSGSIZE, 9000, true, 3, 4, 1500 },
    { "E4, below the least", false, SO_EE_ORIGIN_ICMP, 3, 4, EMSGSIZE, 20, true, 3, 4, 68 },
    { "E4, not said", false, SO_EE_ORIGIN_ICMP, 3, 4, EMSGSIZE, 0, true, 3, 4, 576 },
    { "E4", true, SO_EE_ORIGIN_ICMP6, 2, 0, EMSGSIZE, 1400, true, 2, 0, 1400 },
    { "E4, below the least", true, SO_EE_ORIGIN_ICMP6, 2, 0, EMSGSIZE, 600, true, 2, 0, 1280 },
    { "E5", false, SO_EE_ORIGIN_ICMP, 12, 0, EPROTO, 20, true, 12, 0, 20 },
    { "E5", true, SO_EE_ORIGIN_ICMP6, 4, 1, EPROTO, 6, true, 4, 1, 6 },
    { "E6", false, SO_EE_ORIGIN_ICMP, 4, 0, 0, 0, false, 0, 0, 0 },
    { "E6", false, SO_EE_ORIGIN_ICMP, 5, 1, 0, 0, false, 0, 0, 0 },
    { "E7", false, SO_EE_ORIGIN_LOCAL, 0, 0, EMSGSIZE, 1300, true, 3, 4, 1300 },
    { "E7", true, SO_EE_ORIGIN_LOCAL, 0, 0, EMSGSIZE, 1300, true, 2, 0, 1300 },
    { "a local word of another kind", false, SO_EE_ORIGIN_LOCAL, 3, 4, EHOSTUNREACH, 0, false, 0, 0, 0 },
    { "the other family's", true, SO_EE_ORIGIN_ICMP, 3, 1, EHOSTUNREACH, 0, false, 0, 0, 0 },
    { "E10: by type and code, whatever errno says", false, SO_EE_ORIGIN_ICMP, 11, 0, EMSGSIZE, 1, true, 11, 0,
      0 },
    { "an unknown time exceeded", false, SO_EE_ORIGIN_ICMP, 11, 7, EHOSTUNREACH, 0, false, 0, 0, 0 },
};

static void each_queue_entry_becomes_what_the_table_says(void **state) /* icmp.md E1 to E7, E10 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(maps); i++) {
        const struct map_row *r = &maps[i];
        struct ping_error_record e = {
            .origin = r->origin, .type = r->type, .code = r->code, .err = r->err, .info = r->info
        };
        uint8_t type = 0, code = 0;
        uint32_t info = 0;
        bool told = ping_error_map(&e, r->v6, 1500, &type, &code, &info) == PING_ERROR_TELL;

        if (told == r->told && (!told || (type == r->to_type && code == r->to_code && info == r->to_info)))
            continue;
        print_error("%s, IPv%d %u/%u: told %d %u/%u %u\n", r->id, r->v6 ? 6 : 4, r->type, r->code, told, type,
                    code, info);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void put(struct msghdr *m, int level, int type, const void *data, size_t len)
{
    struct cmsghdr *c = (struct cmsghdr *)(void *)((uint8_t *)m->msg_control + m->msg_controllen);

    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(len);
    memcpy(CMSG_DATA(c), data, len);
    m->msg_controllen += CMSG_SPACE(len);
}

static void a_record_is_read_from_its_control_messages(void **state) /* icmp.md E9, E11 */
{
    _Alignas(struct cmsghdr) uint8_t control[256] = { 0 };
    struct sockaddr_storage to;
    struct ip_port target = { addr("2001:db8::9"), 0 };
    struct msghdr m = { .msg_name = &to, .msg_control = control };
    struct in6_pktinfo info = { .ipi6_ifindex = 3 };
    struct ping_error_record e;
    struct {
        struct sock_extended_err ee;
        struct sockaddr_in6 offender;
    } said = {
        .ee = { .ee_errno = EHOSTUNREACH, .ee_origin = SO_EE_ORIGIN_ICMP6, .ee_type = 3, .ee_info = 7 },
        .offender = { .sin6_family = AF_INET6 }
    };

    (void)state;
    m.msg_namelen = ip_to_sockaddr(&target, &to);
    assert_false(ping_read_error(&m, (struct span){ NULL, 0 }, &e));
    memcpy(said.offender.sin6_addr.s6_addr, addr("2001:db8::1").b, 16);
    memcpy(info.ipi6_addr.s6_addr, addr("2001:db8::5").b, 16);
    put(&m, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
    put(&m, IPPROTO_IPV6, IPV6_RECVERR, &said, sizeof(said));
    assert_true(ping_read_error(&m, (struct span){ NULL, 0 }, &e));
    assert_true(ip_equal(&e.offender, &(struct ip_addr){ { .b = { 0x20, 1, 0xd, 0xb8, [15] = 1 } } }));
    assert_true(ip_equal(&e.target, &target.addr));
    assert_int_equal(e.source.b[15], 5);
    assert_int_equal(e.type, 3);
    assert_int_equal(e.info, 7);
    ((struct cmsghdr *)(void *)control)->cmsg_len = 200; /* longer than what there is */
    assert_false(ping_read_error(&(struct msghdr){ .msg_control = control, .msg_controllen = CMSG_SPACE(20) },
                                 (struct span){ NULL, 0 }, &e));
}

/* ---- quotes ---- */

/* A whole echo request as one byte string, checksum and all. */
static size_t make_request(uint8_t *out, bool v6, const struct ip_addr *src, const struct ip_addr *dst,
                           uint16_t id, uint16_t seq, const uint8_t *payload, size_t len)
{
    uint32_t pseudo = 0;

    memset(out, 0, 8);
    out[0] = v6 ? 128 : 8;
    put_be16(out + 4, id);
    put_be16(out + 6, seq);
    memcpy(out + 8, payload, len);
    if (v6) {
        uint8_t p[40] = { 0 };

        memcpy(p, src->b, 16);
        memcpy(p + 16, dst->b, 16);
        put_be32(p + 32, (uint32_t)len + 8);
        p[39] = 58;
        pseudo = (uint16_t)~ping_sum(p, sizeof(p), 0);
    }
    put_be16(out + 2, ping_sum(out, len + 8, pseudo));
    return len + 8;
}

static void a_rebuilt_quote_has_the_clients_own_checksum_exactly(void **state) /* icmp.md E11 */
{
    struct prng r;

    (void)state;
    prng_seed(&r, 4);
    for (int i = 0; i < 20000; i++) {
        bool v6 = i & 1;
        uint8_t payload[64], ours[72], theirs[72], quote[PING_QUOTE_MAX];
        struct ip_addr client = addr(v6 ? "fd00::77" : "10.0.0.7"),
                       target = addr(v6 ? "2001:db8::9" : "192.0.2.9"),
                       source = addr(v6 ? "2001:db8:1::5" : "198.51.100.5");
        size_t len = prng_below(&r, sizeof(payload) + 1), at = v6 ? 40 : 20, n;
        uint16_t id = (uint16_t)prng_next(&r), seq = (uint16_t)prng_next(&r);
        struct ping_original o = { .client = client, .target = target, .id = id, .seq = seq };

        if (v6)
            o.wire_source = source;
        for (size_t j = 0; j < len; j++)
            payload[j] = (uint8_t)prng_next(&r);
        n = make_request(ours, v6, &source, &target, (uint16_t)prng_next(&r), (uint16_t)prng_next(&r),
                         payload, len);
        make_request(theirs, v6, &client, &target, id, seq, payload, len);
        assert_int_equal(ping_quote(&o, (struct span){ ours, n }, quote), at + n);
        /* 0x0000 and 0xffff are the same sum; nobody sends the one or the other by choice */
        if (get_be16(quote + at + 2) != get_be16(theirs + 2))
            assert_int_equal((uint16_t)(get_be16(quote + at + 2) + get_be16(theirs + 2)), 0xffff);
        memcpy(quote + at + 2, theirs + 2, 2);
        assert_memory_equal(quote + at, theirs, n);
    }
}

static void a_kept_header_is_quoted_with_one_hop_left(void **state) /* icmp.md E11, X19 */
{
    static const uint8_t header[24] = { 0x46, 0x48, 0, 40, 0x12, 0x34, 0x40, 0, 61,   1, 0xde, 0xad,
                                        10,   0,    0, 7,  192,  0,    2,    9, 0x94, 4, 0,    0 };
    struct ping_sent sent = { .len = 16, .seq = 3, .checksum = 0xabcd, .used = true, .header_len = 24 };
    struct ping_original o = { addr("10.0.0.7"), addr("192.0.2.9"), 77, 3, &sent, ip_none };
    uint8_t quoted[16] = { 8, 0, 1, 1, 0, 9, 0, 9, 'p', 'a', 'y' }, quote[PING_QUOTE_MAX];

    (void)state;
    memcpy(sent.header, header, sizeof(header));
    assert_int_equal(ping_quote(&o, (struct span){ quoted, sizeof(quoted) }, quote), 24 + 16);
    assert_int_equal(quote[8], 1);
    assert_int_equal(ping_sum(quote, 24, 0), 0); /* the header's own checksum fits again */
    quote[8] = 61;
    memcpy(quote + 10, header + 10, 2);
    assert_memory_equal(quote, header, 24);
    assert_int_equal(get_be16(quote + 26), 0xabcd);
    assert_int_equal(get_be16(quote + 28), 77);
    assert_int_equal(get_be16(quote + 30), 3);
    assert_memory_equal(quote + 32, "pay", 3);
}

static void a_quote_never_makes_a_packet_too_long(void **state) /* icmp.md E12, U7 */
{
    static uint8_t quoted[2000] = { 8 }, quote[PING_QUOTE_MAX];
    struct ping_original o = { addr("10.0.0.7"), addr("192.0.2.9"), 77, 3, NULL, ip_none };
    uint16_t id, seq;

    (void)state;
    assert_int_equal(ping_quote(&o, (struct span){ quoted, sizeof(quoted) }, quote), 548);
    assert_int_equal(ping_quote(&o, (struct span){ quoted, 8 }, quote), 28);
    o.client = addr("fd00::7");
    o.target = addr("2001:db8::9");
    assert_int_equal(ping_quote(&o, (struct span){ quoted, sizeof(quoted) }, quote), 1232);
    assert_false(ping_quoted_echo((struct span){ quoted, 7 }, false, &id, &seq));
    assert_true(ping_quoted_echo((struct span){ quoted, 8 }, false, &id, &seq));
    assert_false(ping_quoted_echo((struct span){ quoted, 8 }, true, &id, &seq));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_whole_echo_replies_are_replies),
        cmocka_unit_test(each_queue_entry_becomes_what_the_table_says),
        cmocka_unit_test(a_record_is_read_from_its_control_messages),
        cmocka_unit_test(a_rebuilt_quote_has_the_clients_own_checksum_exactly),
        cmocka_unit_test(a_kept_header_is_quoted_with_one_hop_left),
        cmocka_unit_test(a_quote_never_makes_a_packet_too_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
