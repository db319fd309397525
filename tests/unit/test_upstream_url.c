/* test_upstream_url.c - a proxy's URL as people type it, and the sentence that each mistake earns. */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "culvert/upstream.h"

static const struct good_row {
    const char *url, *host; /* host: the name, or the address as text */
    uint16_t port;
    const char *username, *password, *name;
} good[] = {
    { "socks5://192.0.2.10:1080", "192.0.2.10", 1080, NULL, NULL, "192.0.2.10:1080" },
    { "socks5://192.0.2.10", "192.0.2.10", 1080, NULL, NULL, "192.0.2.10" },
    { "socks5h://proxy.example.net:1081/", "proxy.example.net", 1081, NULL, NULL, "proxy.example.net:1081" },
    { "SOCKS5://Proxy.Example.NET.", "proxy.example.net", 1080, NULL, NULL, "Proxy.Example.NET." },
    { "socks5://[2001:db8::1]:1080", "2001:db8::1", 1080, NULL, NULL, "[2001:db8::1]:1080" },
    { "socks5://[2001:db8::1]", "2001:db8::1", 1080, NULL, NULL, "[2001:db8::1]" },
    { "socks5://bob:pw@192.0.2.11:1080#pasted", "192.0.2.11", 1080, "bob", "pw", "pasted" },
    { "socks5://bob:p%40ss%3aw%25@host:9#my%20exit", "host", 9, "bob", "p@ss:w%", "my exit" },
    { "socks5://bob:a:b@c@host:9", "host", 9, "bob", "a:b@c", "host:9" },
    { "socks5://127.0.0.1:65535#", "127.0.0.1", 65535, NULL, NULL, "127.0.0.1:65535" },
};

static bool same(const char *a, const char *b)
{
    return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

static void a_url_is_read(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        struct upstream_options o;
        char storage[1024], text[IP_TEXT_MAX];
        struct err err = { "" };
        struct upstream *up;
        const char *host;

        if (upstream_parse_url(good[i].url, storage, &o, &err) != 0) {
            print_error("%s: %s\n", good[i].url, err.text);
            wrong++;
            continue;
        }
        host = o.server.name ? o.server.name : ip_text(&o.server.addr, text);
        if (!same(host, good[i].host) || o.server.port != good[i].port ||
            !same(o.username, good[i].username) || !same(o.password, good[i].password) ||
            !same(o.name, good[i].name) || o.kind != UPSTREAM_SOCKS5) {
            print_error("%s: %s %u %s\n", good[i].url, host, o.server.port, o.name);
            wrong++;
        }
        assert_int_equal(upstream_new(&o, &up), 0);
        assert_string_equal(upstream_name(up), good[i].name);
        upstream_unref(up);
    }
    assert_int_equal(wrong, 0);
}

static void a_scheme_is_a_kind_and_whether_it_is_inside_tls(void **state)
{
    static const struct {
        const char *url;
        enum upstream_kind kind;
        bool secure;
        uint16_t port;
    } rows[] = {
        { "socks5h://h", UPSTREAM_SOCKS5, false, 1080 },
        { "SOCKS5+TLS://h:2", UPSTREAM_SOCKS5, true, 2 },
        { "http://u:p@h", UPSTREAM_HTTP, false, 80 },
        { "https://u:p@h", UPSTREAM_HTTP, true, 443 },
        { "http://[::1]:3128", UPSTREAM_HTTP, false, 3128 },
        { "socks4://bob@h", UPSTREAM_SOCKS4, false, 1080 },
        { "socks4a://h:9", UPSTREAM_SOCKS4A, false, 9 },
        { "masque://alice:pw@h", UPSTREAM_MASQUE, true, 443 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct upstream_options o;
        struct upstream *up;
        char storage[1024];
        struct err err = { "" };

        assert_int_equal(upstream_parse_url(rows[i].url, storage, &o, &err), 0);
        assert_int_equal(o.kind, rows[i].kind);
        assert_int_equal(o.secure, rows[i].secure);
        assert_int_equal(o.server.port, rows[i].port);
        /* What must be inside TLS is nothing without it. */
        assert_int_equal(upstream_new(&o, &up), rows[i].secure ? -EINVAL : 0);
        if (!rows[i].secure)
            upstream_unref(up);
    }
}

static const struct bad_row {
    const char *url, *says;
} bad[] = {
    { "", "socks5://HOST:PORT" },
    { "192.0.2.10:1080", "socks5://HOST:PORT" },
    { "://x", "socks5://HOST:PORT" },
    { "socks4://bob:hunter2@192.0.2.10", "SOCKS4 has no password" },
    { "socks4://@192.0.2.10", "1 to 255 bytes" },
    { "ss://YWVz@192.0.2.10:8388", "ss:// is not supported yet" },
    { "gopher://192.0.2.10", "\"gopher://\" is no kind" },
    { "socks5://", "names no host" },
    { "socks5://:1080", "names no host" },
    { "socks5://host:", "port" },
    { "socks5://host:0", "port" },
    { "socks5://host:65536", "port" },
    { "socks5://host:99999999999999999999", "port" },
    { "socks5://host:12a", "port" },
    { "socks5://host:-1", "port" },
    { "socks5://2001:db8::1:1080", "in brackets" },
    { "socks5://[2001:db8::1", "in brackets" },
    { "socks5://[2001:db8::1]1080", "in brackets" },
    { "socks5://[2001:db8::1]:1:2", "in brackets" },
    { "socks5://ho st:1", "neither an address nor a host name" },
    { "socks5://h%C3%B6st:1", "neither an address nor a host name" },
    { "socks5://host:1/path", "nothing may follow" },
    { "socks5://host:1?x=y", "nothing may follow" },
    { "socks5://bob@host:1", "without a password" },
    { "socks5://:pw@host:1", "user name must have 1 to 255" },
    { "socks5://bob:@host:1", "password must have 1 to 255" },
    { "socks5://bob:SECRET", "port" }, /* "@HOST" was forgotten */
    { "socks5://bob:SECRET%zz@host:1", "two hex digits" },
    { "socks5://bob:SECRET%4@host:1", "two hex digits" },
    { "socks5://bob:SECRET%@host:1", "two hex digits" },
    { "socks5://bob:SECRET%00@host:1", "zero byte" },
    { "socks5://host:1#na%0", "two hex digits" },
};

static void a_mistake_is_a_sentence_without_secrets(void **state) /* faults.md G7 */
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct upstream_options o = { .name = "untouched" };
        char storage[1024];
        struct err err = { "" };
        int r = upstream_parse_url(bad[i].url, storage, &o, &err);

        if (r == -EINVAL && strstr(err.text, bad[i].says) && !strstr(err.text, "SECRET") &&
            same(o.name, "untouched"))
            continue;
        print_error("%s: %d, \"%s\"\n", bad[i].url, r, err.text);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

static void a_login_of_256_bytes_is_refused(void **state) /* faults.md S7 */
{
    char url[600], storage[1024], secret[257];
    struct upstream_options o;
    struct upstream *up;
    struct err err;

    (void)state;
    memset(secret, 's', 256);
    secret[256] = '\0';
    snprintf(url, sizeof(url), "socks5://bob:%s@host:1", secret);
    assert_int_equal(upstream_parse_url(url, storage, &o, &err), -EINVAL);
    snprintf(url, sizeof(url), "socks5://%s:pw@host:1", secret);
    assert_int_equal(upstream_parse_url(url, storage, &o, &err), -EINVAL);
    snprintf(url, sizeof(url), "socks5://bob:%s@host:1", secret + 1);
    assert_int_equal(upstream_parse_url(url, storage, &o, &err), 0);
    o.password = secret;
    assert_int_equal(upstream_new(&o, &up), -EINVAL);
}

static void a_url_that_is_too_long_is_refused(void **state)
{
    char url[3000], storage[1024];
    struct upstream_options o;
    struct err err;

    (void)state;
    memset(url, 'a', sizeof(url));
    memcpy(url, "socks5://host:1#", 16);
    url[sizeof(url) - 1] = '\0';
    assert_int_equal(upstream_parse_url(url, storage, &o, &err), -EINVAL);
    assert_non_null(strstr(err.text, "too long"));
}

static void an_upstream_needs_what_its_kind_needs(void **state)
{
    struct upstream_options o = { .name = "x", .kind = UPSTREAM_SOCKS5 };
    struct upstream *up;

    (void)state;
    assert_int_equal(upstream_new(&o, &up), -EINVAL); /* no server */
    o.server.name = "host";
    assert_int_equal(upstream_new(&o, &up), -EINVAL); /* no port */
    o.server.port = 1;
    o.username = "bob";
    assert_int_equal(upstream_new(&o, &up), -EINVAL); /* half a login */
    o.password = "";
    assert_int_equal(upstream_new(&o, &up), -EINVAL); /* RFC 1929: 1..255 */
    o.password = "pw";
    assert_int_equal(upstream_new(&o, &up), 0);
    assert_int_equal(upstream_kind(up), UPSTREAM_SOCKS5);
    upstream_unref(upstream_ref(up));
    upstream_unref(up);
    o = (struct upstream_options){ .name = "REJECT", .kind = UPSTREAM_REJECT };
    assert_int_equal(upstream_new(&o, &up), 0);
    upstream_unref(up);
    upstream_unref(NULL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_url_is_read),
        cmocka_unit_test(a_scheme_is_a_kind_and_whether_it_is_inside_tls),
        cmocka_unit_test(a_mistake_is_a_sentence_without_secrets),
        cmocka_unit_test(a_login_of_256_bytes_is_refused),
        cmocka_unit_test(a_url_that_is_too_long_is_refused),
        cmocka_unit_test(an_upstream_needs_what_its_kind_needs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
