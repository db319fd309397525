/* test_sniff.c - faces src/forward/sniff_*.c: names in a client's first bytes, whole, in pieces, and broken. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "forward/sniff.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_hello_tells_its_name_whole_or_split_over_records),
        cmocka_unit_test(what_is_no_client_hello_has_no_name),
        cmocka_unit_test(a_request_tells_its_host),
        cmocka_unit_test(quic_of_both_versions_tells_its_name_frames_in_any_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
