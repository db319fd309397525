/* test_serve_http.c - what the MASQUE server reads: CONNECT requests of HTTP/1.1, targets, logins; and ICMP in whole packets. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "serve/http_request.h"
#include "serve/icmp_wire.h"
#include "upstream/icmp_packet.h"

#define LINE "CONNECT target.test:443 HTTP/1.1\r\n"
#define HOST "Host: target.test:443\r\n"

static const struct serve_user users[] = { { "alice", "sesame" }, { "bob", "open:door" } };

/* ---- requests ---- */

static const struct request_row {
    const char *when, *in;
    int status;
} requests[] = {
    { "a plain one", LINE HOST "\r\n", 200 },
    { "with what curl adds", LINE HOST "User-Agent: curl/7.88.1\r\nProxy-Connection: Keep-Alive\r\n\r\n",
      200 },
    { "an empty line before", "\r\n" LINE HOST "\r\n", 200 },
    { "HTTP/1.0 without Host", "CONNECT a:1 HTTP/1.0\r\n\r\n", 200 },
    { "an IPv6 target", "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n", 200 },
    { "data behind it", LINE HOST "\r\n\x16\x03\x01", 200 },
    { "not all of it", LINE HOST, 0 },
    { "a bare LF behind the request line", "CONNECT target.test:443 HTTP/1.1\n" HOST "\r\n", 400 },
    { "a bare LF between fields", LINE "Host: a\nX: y\r\n\r\n", 400 },
    { "a bare CR", LINE "Host: a\rX: y\r\n\r\n", 400 },
    { "a folded line", LINE HOST "X: a\r\n b\r\n\r\n", 400 },
    { "a blank before the colon", LINE "Host : a\r\n\r\n", 400 },
    { "a field without a name", LINE HOST ": a\r\n\r\n", 400 },
    { "a field without a colon", LINE HOST "abc\r\n\r\n", 400 },
    { "a control byte in a value", LINE HOST "X: a\x01\r\n\r\n", 400 },
    { "two Hosts", LINE HOST HOST "\r\n", 400 },
    { "no Host", LINE "\r\n", 400 },
    { "an empty Host", LINE "Host:\r\n\r\n", 400 },
    { "a Host that is a path", LINE "Host: a/b\r\n\r\n", 400 },
    { "Content-Length", LINE HOST "Content-Length: 5\r\n\r\nabcde", 400 },
    { "Content-Length of nothing", LINE HOST "content-length: 0\r\n\r\n", 400 },
    { "Transfer-Encoding", LINE HOST "Transfer-Encoding: chunked\r\n\r\n", 400 },
    { "two logins", LINE HOST "Proxy-Authorization: Basic YQ==\r\nproxy-authorization: Basic Yg==\r\n\r\n",
      400 },
    { "GET", "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 405 },
    { "connect in lower case", "connect a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405 },
    { "two blanks", "CONNECT  a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
    { "a tab", "CONNECT\ta:1 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
    { "no version", "CONNECT a:1\r\nHost: a\r\n\r\n", 400 },
    { "HTTP/2.0", "CONNECT a:1 HTTP/2.0\r\nHost: a\r\n\r\n", 505 },
    { "http/1.1", "CONNECT a:1 http/1.1\r\nHost: a\r\n\r\n", 400 },
    { "no port", "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
    { "port 0", "CONNECT a:0 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
    { "port 65536", "CONNECT a:65536 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
    { "a login in the target", "CONNECT u@a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
    { "IPv6 without brackets", "CONNECT 2001:db8::1:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
    { "an address in decimal", "CONNECT 2130706433:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
    { "a short address", "CONNECT 127.1:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400 },
    { "TLS instead", "\x16\x03\x01\x02\r\n\r\n", 400 },
};

static int read_text(const char *in, size_t piece, struct http_request *q)
{
    size_t len = strlen(in), have = 0, scanned = 0;
    int status = 0;

    while (status == 0 && have < len) {
        have = have + piece < len ? have + piece : len;
        status = http_request_read((struct span){ (const uint8_t *)in, have }, &scanned, q);
    }
    return status;
}

static void requests_are_taken_or_refused_however_they_are_cut(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
        for (size_t piece = 1; piece < 200; piece += 66) {
            struct http_request q;
            int status = read_text(requests[i].in, piece, &q);

            if (status == requests[i].status)
                continue;
            print_error("%s, %zu bytes at a time: %d, not %d\n", requests[i].when, piece, status,
                        requests[i].status);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

static void a_request_says_where_to_and_who(void **state)
{
    const char *in =
        "CONNECT Target.Test.:8443 HTTP/1.1\r\nHost: x\r\nProxy-Authorization:  Basic abc \r\n\r\nrest";
    struct http_request q;

    (void)state;
    assert_int_equal(read_text(in, 1000, &q), 200);
    assert_string_equal(q.target.to.name, "target.test");
    assert_int_equal(q.target.to.port, 8443);
    assert_int_equal(q.authorization.len, 9);
    assert_memory_equal(q.authorization.data, "Basic abc", 9);
    assert_string_equal(in + q.len, "rest");
}

static void what_is_too_long_has_a_status_of_its_own(void **state)
{
    char *in = malloc(HTTP_HEAD_MAX + 1);
    struct http_request q;
    size_t scanned = 0, n;

    (void)state;
    memset(in, 'a', HTTP_HEAD_MAX);
    memcpy(in, "CONNECT ", 8);
    assert_int_equal(http_request_read((struct span){ (uint8_t *)in, HTTP_LINE_MAX }, &scanned, &q), 414);
    n = strlen(LINE HOST "X: ");
    memcpy(in, LINE HOST "X: ", n);
    scanned = 0;
    assert_int_equal(http_request_read((struct span){ (uint8_t *)in, HTTP_HEAD_MAX - 1 }, &scanned, &q), 0);
    assert_int_equal(http_request_read((struct span){ (uint8_t *)in, HTTP_HEAD_MAX }, &scanned, &q), 431);
    n = strlen(LINE HOST);
    for (int i = 0; i < HTTP_FIELDS_MAX; i++, n += 6)
        memcpy(in + n, "X: y\r\n", 6);
    memcpy(in + n, "\r\n", 2);
    scanned = 0;
    assert_int_equal(http_request_read((struct span){ (uint8_t *)in, n + 2 }, &scanned, &q), 431);
    free(in);
}

/* ---- logins ---- */

static int login(const char *value)
{
    return http_login(users, ARRAY_LEN(users), (struct span){ (const uint8_t *)value, strlen(value) });
}

static void a_login_is_basic_or_a_bearer_token(void **state) /* RFC 7617, RFC 6750 section 2.1 */
{
    (void)state;
    assert_int_equal(login("Basic YWxpY2U6c2VzYW1l"), 0);
    assert_int_equal(login("basic   YWxpY2U6c2VzYW1l"), 0);
    assert_int_equal(login("Basic Ym9iOm9wZW46ZG9vcg=="), 1); /* a colon in the password */
    assert_int_equal(login("Basic Ym9iOm9wZW46ZG9vcg"), 1);
    assert_int_equal(login("Bearer sesame"), 0);
    assert_int_equal(login("Bearer open:door"), 1);
    assert_int_equal(login("Bearer sesam"), -1);
    assert_int_equal(login("Basic YWxpY2U6c2VzYW1"), -1);
    assert_int_equal(login("Basic YWxpY2U6"), -1);
    assert_int_equal(login("Basic YWxp*2U6c2VzYW1l"), -1);
    assert_int_equal(login("Basic YWxpY2U="), -1);
    assert_int_equal(login("Basic "), -1);
    assert_int_equal(login("Basic"), -1);
    assert_int_equal(login("Bearer "), -1);
    assert_int_equal(login("Digest username=alice"), -1);
    assert_int_equal(login(""), -1);
}

static void an_answer_says_what_a_client_needs(void **state)
{
    uint8_t bytes[HTTP_ANSWER_MAX + 1];
    struct buf b;

    (void)state;
    buf_init(&b, bytes, HTTP_ANSWER_MAX);
    http_put_answer(&b, 407, 0);
    bytes[b.len] = '\0';
    assert_non_null(strstr((char *)bytes, "Proxy-Authenticate: Basic realm="));
    buf_init(&b, bytes, HTTP_ANSWER_MAX);
    http_put_answer(&b, http_status_for(-ETIMEDOUT), -ETIMEDOUT);
    bytes[b.len] = '\0';
    assert_non_null(strstr((char *)bytes, "HTTP/1.1 504 Gateway Timeout\r\n"));
    assert_non_null(strstr((char *)bytes, "Proxy-Status: culvert; error=connection_timeout\r\n"));
    buf_init(&b, bytes, HTTP_ANSWER_MAX);
    http_put_answer(&b, 200, 0);
    bytes[b.len] = '\0';
    assert_string_equal((char *)bytes, "HTTP/1.1 200 Connection established\r\n\r\n");
    assert_int_equal(http_status_for(-EACCES), 403);
    assert_int_equal(http_status_for(-ECONNREFUSED), 502);
}

/* ---- packets ---- */

static struct ip_addr addr(const char *text)
{
    struct ip_addr a;

    assert_int_equal(ip_parse(text, &a), 0);
    return a;
}

/* A reply that we write is a sound packet: with its type turned into a request's it reads back. */
static void what_is_written_reads_back(void **state) /* icmp.md T1, T2, T4 */
{
    static const char *const ends[][2] = { { "100.64.0.2", "192.0.2.1" }, { "fd00::2", "2001:db8::1" } };
    static const uint32_t lengths[] = { 0, 1, 56, 1452, 65507 };
    uint8_t *packet = malloc(70000);

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(lengths); i++) {
        bool v6 = i % 2;
        struct echo_proxy_answer a = { .client = addr(ends[v6][0]),
                                       .target = addr(ends[v6][1]),
                                       .id = 0x1234,
                                       .seq = 7,
                                       .ttl = 55,
                                       .tos = 0xb8,
                                       .payload_len = lengths[i / 2] };
        size_t icmp = v6 ? 40 : 20, n = icmp + 8;
        struct echo_proxy_request r;

        for (uint32_t j = 0; j < a.payload_len; j++)
            packet[n + j] = (uint8_t)(j * 7);
        a.payload = packet + n;
        assert_int_equal(icmp_wire_put_reply(&a, packet), n);
        assert_int_equal(icmp_wire_read((struct span){ packet, n + a.payload_len }, v6, &r), ICMP_WIRE_OTHER);
        packet[icmp] = v6 ? 128 : 8; /* and its checksum with it (RFC 1624) */
        put_be16(packet + icmp + 2, (uint16_t)(get_be16(packet + icmp + 2) + (v6 ? 256 : -2048)));
        if (icmp_wire_read((struct span){ packet, n + a.payload_len }, v6, &r) != ICMP_WIRE_ECHO) {
            put_be16(packet + icmp + 2, (uint16_t)(get_be16(packet + icmp + 2) + (v6 ? 1 : -1)));
            assert_int_equal(icmp_wire_read((struct span){ packet, n + a.payload_len }, v6, &r),
                             ICMP_WIRE_ECHO);
        }
        assert_true(ip_equal(&r.client, &a.target) && ip_equal(&r.target, &a.client));
        assert_int_equal(r.id, 0x1234);
        assert_int_equal(r.seq, 7);
        assert_int_equal(r.ttl, 55);
        assert_int_equal(r.tos, 0xb8);
        assert_int_equal(r.payload_len, a.payload_len);
        packet[n + a.payload_len / 2] ^= a.payload_len ? 1 : 0;
        if (a.payload_len > 0)
            assert_int_equal(icmp_wire_read((struct span){ packet, n + a.payload_len }, v6, &r),
                             ICMP_WIRE_BROKEN);
        for (size_t cut = 0; cut < n; cut++)
            assert_int_not_equal(icmp_wire_read((struct span){ packet, cut }, v6, &r), ICMP_WIRE_ECHO);
        assert_int_equal(icmp_wire_read((struct span){ packet, n }, !v6, &r), ICMP_WIRE_BROKEN);
    }
    free(packet);
}

/* RFC 6946, RFC 8200 section 5: what came to the other end in pieces may leave in pieces; nothing else of IPv6 may. */
static void a_packet_of_ipv6_says_whether_it_may_leave_in_pieces(void **state) /* icmp.md T1, T4 */
{
    static uint8_t payload[65527], packet[66000];
    static const struct {
        uint32_t len;
        bool whole, df;
    } rows[] = { { 56, true, true },     { 56, false, false },    { 8000, true, true },
                 { 8000, false, false }, { 65519, false, false }, { 65520, false, false },
                 { 65527, false, false } };
    struct ip_addr source = addr("fd00::2");

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct up_echo_request r = { .target = addr("2001:db8::1"),
                                     .id = 3,
                                     .seq = 4,
                                     .ttl = 60,
                                     .tos = 8,
                                     .df = rows[i].whole,
                                     .payload = payload,
                                     .payload_len = rows[i].len };
        size_t n = icmp_packet_put(&r, &source, 1, packet);
        struct echo_proxy_request read;

        memcpy(packet + n, payload, r.payload_len);
        assert_int_equal(icmp_wire_read((struct span){ packet, n + r.payload_len }, true, &read),
                         ICMP_WIRE_ECHO);
        assert_int_equal(read.df, rows[i].df);
        assert_int_equal(read.payload_len, rows[i].len);
        assert_int_equal(read.ip_header_len, n - 8);
        assert_int_equal(read.tos, 8);
        if (n > 48) { /* a piece of something is none */
            packet[42] |= 1 << 3;
            assert_int_equal(icmp_wire_read((struct span){ packet, n + r.payload_len }, true, &read),
                             ICMP_WIRE_OTHER);
        }
    }
}

static void an_error_fits_into_what_everybody_takes(void **state) /* icmp.md U7 */
{
    uint8_t head[ICMP_WIRE_HEAD_MAX], quoted[2000] = { 0x45 };
    struct icmp_wire_error e = {
        addr("192.0.2.9"), addr("100.64.0.2"), 3, 4, 1400, { quoted, sizeof(quoted) }
    };
    size_t quote;

    (void)state;
    assert_int_equal(icmp_wire_put_error(&e, head, &quote) + quote, 576);
    assert_int_equal(head[20], 3);
    assert_int_equal(head[21], 4);
    assert_int_equal(get_be16(head + 26), 1400);
    e.source = addr("2001:db8::9");
    e.target = addr("fd00::2");
    e.type = 2;
    e.code = 0;
    assert_int_equal(icmp_wire_put_error(&e, head, &quote) + quote, 1280);
    assert_int_equal(get_be32(head + 44), 1400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_taken_or_refused_however_they_are_cut),
        cmocka_unit_test(a_request_says_where_to_and_who),
        cmocka_unit_test(what_is_too_long_has_a_status_of_its_own),
        cmocka_unit_test(a_login_is_basic_or_a_bearer_token),
        cmocka_unit_test(an_answer_says_what_a_client_needs),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(a_packet_of_ipv6_says_whether_it_may_leave_in_pieces),
        cmocka_unit_test(an_error_fits_into_what_everybody_takes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
