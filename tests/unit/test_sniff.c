/* test_sniff.c - faces src/forward/sniff_*.c: names in a client's first bytes, whole, in pieces, and broken. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "forward/sniff.h"
#include "quic_initial.h"

/* A seed of the fuzz target without its first byte, which picks the reader. */
static struct span seed(const char *name, uint8_t bytes[4096])
{
    char path[256];
    size_t n;
    FILE *f;

    snprintf(path, sizeof(path), SOURCE_DIR "/tests/fuzz/corpus/sniff/%s", name);
    f = fopen(path, "rb");
    assert_non_null(f);
    n = fread(bytes, 1, 4096, f);
    fclose(f);
    return (struct span){ bytes + 1, n - 1 };
}

static enum sniffed sniff_quic(struct span datagram, char name[256])
{
    struct quic_hello q = { .version = 0 };

    return quic_hello_add(&q, datagram, name);
}

static void a_client_hello_tells_its_name_whole_or_split_over_records(void **state)
{
    static const char *const files[] = { "tls", "records" };
    uint8_t bytes[4096];
    char name[256];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        struct span in = seed(files[i], bytes);
        size_t first = 0;

        assert_int_equal(sniff_tls(in, name), SNIFF_NAME);
        assert_string_equal(name, "www.example.com");
        for (size_t len = 0; len <= in.len;
             len++) { /* in any two segments: first more is wanted, then it is there */
            enum sniffed found = sniff_tls((struct span){ in.data, len }, name);

            assert_int_not_equal(found, SNIFF_NONE);
            if (found == SNIFF_NAME && first == 0)
                first = len;
            assert_true(first == 0 || found == SNIFF_NAME);
        }
        assert_true(first > 40);
    }
}

/* The hello of a seed in records of one byte each. */
static struct span in_small_records(struct span tls, uint8_t out[8192])
{
    size_t len = 0;

    for (size_t i = 5; i < tls.len; i++) {
        memcpy(out + len, "\x16\3\1\0\1", 5);
        out[len + 5] = tls.data[i];
        len += 6;
    }
    return (struct span){ out, len };
}

/* Such a hello was read from its beginning for each of its records: 6.5 ms for 16 KiB, and that again for each byte more. */
static void a_hello_in_records_of_one_byte_tells_its_name(void **state)
{
    uint8_t bytes[4096], small[8192];
    struct span in = seed("tls", bytes), cut;
    char name[256];

    (void)state;
    assert_true(get_be16(in.data + 3) == in.len - 5 && in.len * 6 < sizeof(small));
    cut = in_small_records(in, small);
    assert_int_equal(sniff_tls(cut, name), SNIFF_NAME);
    assert_string_equal(name, "www.example.com");
    memcpy(small + cut.len, "\x17\3\3\0\1x", 6); /* what follows a whole hello takes nothing from it, */
    assert_int_equal(sniff_tls((struct span){ small, cut.len + 6 }, name), SNIFF_NAME);
    memcpy(small + 40 * 6, "\x17\3\3\0\1x", 6); /* and what interrupts one ends it */
    assert_int_equal(sniff_tls(cut, name), SNIFF_NONE);
}

static void what_is_no_client_hello_has_no_name(void **state)
{
    uint8_t bytes[4096], broken[4096];
    struct span in = seed("tls", bytes);
    char name[256];

    (void)state;
    assert_int_equal(sniff_tls((struct span){ (const uint8_t *)"SSH-2.0-x\r\n", 11 }, name), SNIFF_NONE);
    assert_int_equal(sniff_tls((struct span){ (const uint8_t *)"\x17\3\3\0\1x", 6 }, name), SNIFF_NONE);
    assert_int_equal(sniff_tls((struct span){ (const uint8_t *)"\x16\3\1\0\0", 5 }, name), SNIFF_NONE);
    assert_int_equal(sniff_tls((struct span){ (const uint8_t *)"\x16\3\1\0\4\2\0\0\0", 9 }, name),
                     SNIFF_NONE);
    for (size_t i = 0; i < in.len; i++) { /* any byte wrong: an answer, and no read past the end */
        memcpy(broken, in.data, in.len);
        broken[i] ^= 0xff;
        sniff_tls((struct span){ broken, in.len }, name);
    }
}

static void a_request_tells_its_host(void **state)
{
    static const struct {
        const char *text;
        enum sniffed found;
        const char *name;
    } rows[] = {
        { "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n", SNIFF_NAME, "www.example.com" },
        { "POST /a HTTP/1.1\r\nX: y\r\nhost:WWW.Example.com:8080\r\n", SNIFF_NAME, "www.example.com" },
        { "GET http://other.example/x HTTP/1.1\r\nHost: a.b\r\n\r\n", SNIFF_NAME, "other.example" },
        { "GET / HTTP/1.1\nHost: bare.example\n\n", SNIFF_NAME, "bare.example" },
        { "GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", SNIFF_NONE, NULL },
        { "GET / HTTP/1.0\r\n\r\n", SNIFF_NONE, NULL },
        { "GET / HTTP/1.1\r\nHost: www.exam", SNIFF_MORE, NULL },
        { "GE", SNIFF_MORE, NULL },
        { "", SNIFF_MORE, NULL },
        { "SSH-2.0-OpenSSH\r\n", SNIFF_NONE, NULL },
        { "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", SNIFF_NONE, NULL },
    };
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char name[256] = "";
        enum sniffed found =
            sniff_http((struct span){ (const uint8_t *)rows[i].text, strlen(rows[i].text) }, name);

        if (found == rows[i].found && (rows[i].name == NULL || strcmp(name, rows[i].name) == 0))
            continue;
        print_error("%s: %d \"%s\"\n", rows[i].text, found, name);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void quic_of_both_versions_tells_its_name_frames_in_any_order(
    void **state) /* RFC 9001 section 5, RFC 9369 */
{
    static const char *const files[] = { "quic1", "quic2_shuffled" };
    uint8_t bytes[4096];
    char name[256];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        struct span in = seed(files[i], bytes);

        assert_int_equal(sniff_quic(in, name), SNIFF_NAME);
        assert_string_equal(name, "www.example.com");
        for (size_t len = 0; len < in.len; len += 7)
            assert_int_not_equal(sniff_quic((struct span){ in.data, len }, name), SNIFF_NAME);
        bytes[200] ^= 1; /* one bit of the ciphertext: the tag says no */
        assert_int_equal(sniff_quic(in, name), SNIFF_NONE);
    }
}

static void the_initial_packet_of_rfc_9001_is_opened(void **state) /* RFC 9001 appendix A.2 */
{
    static const uint8_t begins[] = { 0xc0, 0, 0, 0, 1, 8, 0x83, 0x94, 0xc8, 0xf0, 0x3e };
    static const uint8_t ends[] = { 0xe2, 0x21, 0xaf, 0x44, 0x86, 0x00, 0x18, 0xab,
                                    0x08, 0x56, 0x97, 0x2e, 0x19, 0x4c, 0xd9, 0x34 };
    uint8_t bytes[4096];
    struct span in = seed("quic_rfc9001_a2", bytes);
    char name[256];

    (void)state;
    assert_int_equal(in.len, 1200);
    assert_memory_equal(in.data, begins, sizeof(begins));
    assert_memory_equal(in.data + 1200 - sizeof(ends), ends, sizeof(ends));
    assert_int_equal(sniff_quic(in, name), SNIFF_NAME);
    assert_string_equal(name, "example.com");
}

/* ---- a hello of several datagrams ---- */

struct parts { /* a hello, and how its datagrams cut it */
    uint8_t hello[8000];
    size_t len;
    uint8_t datagram[4][QUIC_DATAGRAM];
};

static void part(struct parts *p, size_t i, uint32_t version, const char *cid, const struct quic_cut *cuts,
                 size_t n)
{
    quic_initial(p->datagram[i], version, cid, (uint32_t)i, p->hello, cuts, n);
}

/* As a browser with a post-quantum key share: frames of both datagrams mixed, the name cut in two. */
static void two_datagrams(struct parts *p, uint32_t version, const char *cid, const char *name)
{
    uint32_t len, cut;

    p->len = quic_client_hello(p->hello, sizeof(p->hello), name, 1216, true);
    len = (uint32_t)p->len;
    cut = len - 6; /* in the name */
    part(p, 0, version, cid, (struct quic_cut[]){ { cut, 6 }, { 0, 40 }, { 700, 500 } }, 3);
    part(p, 1, version, cid, (struct quic_cut[]){ { 1200, cut - 1200 }, { 300, 400 }, { 40, 260 } }, 3);
}

static enum sniffed add(struct quic_hello *q, const struct parts *p, size_t i, char name[256])
{
    return quic_hello_add(q, (struct span){ p->datagram[i], QUIC_DATAGRAM }, name);
}

static void a_hello_of_two_datagrams_tells_its_name_in_any_order(void **state)
{
    static const struct {
        uint32_t version;
        size_t first;
    } rows[] = { { 1, 0 }, { 1, 1 }, { 0x6b3343cf, 0 }, { 0x6b3343cf, 1 } };
    struct parts p;
    char name[256];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct quic_hello q = { .version = 0 };

        two_datagrams(&p, rows[i].version, "abcdefgh", "post.quantum.example");
        assert_int_equal(add(&q, &p, rows[i].first, name), SNIFF_MORE);
        assert_int_equal(add(&q, &p, rows[i].first, name), SNIFF_MORE); /* sent again: nothing new */
        assert_int_equal(add(&q, &p, 1 - rows[i].first, name), SNIFF_NAME);
        assert_string_equal(name, "post.quantum.example");
    }
}

static void a_name_in_the_first_datagram_is_not_waited_for(void **state)
{
    struct quic_hello q = { .version = 0 };
    struct parts p;
    char name[256];

    (void)state;
    p.len = quic_client_hello(p.hello, sizeof(p.hello), "early.example", 1216, false);
    part(&p, 0, 1, "abcdefgh", (struct quic_cut[]){ { 0, 1000 } }, 1);
    assert_int_equal(add(&q, &p, 0, name), SNIFF_NAME);
    assert_string_equal(name, "early.example");
}

static void a_hello_of_three_datagrams_is_put_together_and_a_longer_one_given_up(void **state)
{
    struct quic_hello q = { .version = 0 };
    struct parts p;
    char name[256];
    uint32_t len;

    (void)state;
    p.len = quic_client_hello(p.hello, sizeof(p.hello), "late.example", 2700, true);
    len = (uint32_t)p.len;
    part(&p, 0, 1, "abcdefgh", (struct quic_cut[]){ { 0, 1100 } }, 1);
    part(&p, 1, 1, "abcdefgh", (struct quic_cut[]){ { 1100, 1100 } }, 1);
    part(&p, 2, 1, "abcdefgh", (struct quic_cut[]){ { 2200, len - 2200 } }, 1);
    assert_int_equal(add(&q, &p, 2, name), SNIFF_MORE);
    assert_int_equal(add(&q, &p, 0, name), SNIFF_MORE);
    assert_int_equal(add(&q, &p, 1, name), SNIFF_NAME);
    assert_string_equal(name, "late.example");

    q = (struct quic_hello){ .version = 0 }; /* behind QUIC_HELLO_MAX nothing is kept */
    memset(p.hello, 0, sizeof(p.hello));
    memcpy(p.hello, "\1\0\x3f\0\3\3", 6); /* 16128 bytes, and the length of its suites says 0 */
    p.hello[40] = 0xff;                   /* suites to the bound and over it */
    p.hello[39] = 0xff;
    for (uint32_t at = 0; at < QUIC_HELLO_MAX; at += 1024) {
        uint8_t frame[1100];
        struct buf b;

        buf_init(&b, frame, sizeof(frame));
        buf_u8(&b, 6);
        buf_u32(&b, 0x80000000 | at);
        buf_u16(&b, 0x4000 | 1024);
        buf_put(&b, at == 0 ? p.hello : p.hello + 1024, 1024);
        quic_seal(p.datagram[0], 1, "abcdefgh", at, frame, b.len);
        assert_int_equal(add(&q, &p, 0, name), at + 1024 == QUIC_HELLO_MAX ? SNIFF_NONE : SNIFF_MORE);
    }
}

static void another_connection_of_the_same_port_is_passed_over(void **state)
{
    struct quic_hello q = { .version = 0 };
    struct parts one, other;
    char name[256];

    (void)state;
    two_datagrams(&one, 1, "abcdefgh", "one.quantum.example");
    two_datagrams(&other, 1, "ABCDEFGH", "two.quantum.example");
    assert_int_equal(add(&q, &one, 0, name), SNIFF_MORE);
    assert_int_equal(add(&q, &other, 1, name), SNIFF_MORE);
    assert_int_equal(quic_hello_add(&q, (struct span){ (const uint8_t *)"garbage", 7 }, name), SNIFF_MORE);
    one.datagram[1][600] ^= 1; /* one bit wrong, then as it was sent */
    assert_int_equal(add(&q, &one, 1, name), SNIFF_MORE);
    one.datagram[1][600] ^= 1;
    assert_int_equal(add(&q, &one, 1, name), SNIFF_NAME);
    assert_string_equal(name, "one.quantum.example");
}

static void early_data_before_the_initial_packet_is_waited_behind(void **state) /* RFC 9000 section 17.2.3 */
{
    struct quic_hello q = { .version = 0 };
    uint8_t early[64] = { 0xd0, 0, 0, 0, 1, 8, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 0, 40 };
    struct parts p;
    char name[256];

    (void)state;
    two_datagrams(&p, 1, "abcdefgh", "early.data.example");
    assert_int_equal(quic_hello_add(&q, (struct span){ early, 56 }, name), SNIFF_MORE);
    assert_int_equal(add(&q, &p, 0, name), SNIFF_MORE);
    assert_int_equal(add(&q, &p, 1, name), SNIFF_NAME);
    assert_string_equal(name, "early.data.example");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_hello_tells_its_name_whole_or_split_over_records),
        cmocka_unit_test(a_hello_in_records_of_one_byte_tells_its_name),
        cmocka_unit_test(what_is_no_client_hello_has_no_name),
        cmocka_unit_test(a_request_tells_its_host),
        cmocka_unit_test(quic_of_both_versions_tells_its_name_frames_in_any_order),
        cmocka_unit_test(the_initial_packet_of_rfc_9001_is_opened),
        cmocka_unit_test(a_hello_of_two_datagrams_tells_its_name_in_any_order),
        cmocka_unit_test(a_name_in_the_first_datagram_is_not_waited_for),
        cmocka_unit_test(a_hello_of_three_datagrams_is_put_together_and_a_longer_one_given_up),
        cmocka_unit_test(another_connection_of_the_same_port_is_passed_over),
        cmocka_unit_test(early_data_before_the_initial_packet_is_waited_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
