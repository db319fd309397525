/* test_http_reply.c - faces src/upstream/http_reply.c, and the addresses that src/upstream/url.c takes apart. */
#include "upstream/http_reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "culvert/upstream.h"

/* What a reader makes of @text in pieces of @piece bytes: the body, or "!" and why not. */
static const char *read_reply(const char *text, size_t piece, struct http_reply *r, char out[256])
{
    enum talk_step step = TALK_NEED_INPUT;
    size_t at = 0, len = strlen(text), n = 0;

    *r = (struct http_reply){ .state = REPLY_STATUS };
    while (step == TALK_NEED_INPUT && at < len) {
        struct span in = { (const uint8_t *)text + at, piece < len - at ? piece : len - at }, body;

        at += in.len;
        do {
            step = http_reply_step(r, &in, &body);
            if (body.len > 0)
                memcpy(out + n, body.data, body.len);
            n += body.len;
        } while (step == TALK_AGAIN);
    }
    if (step == TALK_NEED_INPUT)
        step = http_reply_end(r);
    out[n] = '\0';
    if (step == TALK_BROKEN)
        snprintf(out, 256, "!%s", r->why);
    return out;
}

#define OK "HTTP/1.1 200 OK\r\n"

static const struct reply_row {
    const char *text, *gives;
} replies[] = {
    { OK "Content-Length: 5\r\n\r\nhello", "hello" },
    { OK "content-length:5 \r\nContent-Length: 5\r\n\r\nhello", "hello" },
    { OK "\r\nto the end", "to the end" },
    { "HTTP/1.0 200\n\nbare line ends", "bare line ends" },
    { OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nA: b\r\n\r\n", "hello!" },
    { OK "Transfer-Encoding: CHUNKED\r\nContent-Length: 99\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
      "0123456789" },
    { "HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\n" OK "Content-Length: 2\r\n\r\nhi", "hi" },
    { OK "Content-Length: 0\r\n\r\n", "" },
    { "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "" },
    { OK "Content-Length: 6\r\n\r\nhello", "!ended in the middle of its answer" },
    { OK "Content-Length: 5\r\n", "!ended in the middle of its answer" },
    { OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "!ended in the middle of its answer" },
    { OK "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "!answers with a length that is none" },
    { OK "Content-Length: -5\r\n\r\nhello", "!answers with a length that is none" },
    { OK "Content-Length: 5;6\r\n\r\nhello", "!answers with a length that is none" },
    { OK "Content-Length: 9999999999999999\r\n\r\nhello", "!answers with a length that is none" },
    { OK "Transfer-Encoding: gzip, chunked\r\n\r\n", "!answers in a transfer coding that is not chunked" },
    { OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "!answers in a transfer coding that is not chunked" },
    { OK "Transfer-Encoding: chunked\r\n\r\nx\r\n", "!answers with a chunk that has no size" },
    { OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n",
      "!answers with a chunk that is longer than its size" },
    { OK "A: b\r\n folded\r\n\r\n", "!answers with a folded header" },
    { OK "Content-Encoding: gzip\r\n\r\n", "!answers with a compressed body, which was not asked for" },
    { "HTTP/1.1 101 Switching\r\n\r\n", "!switches to another protocol, which was not asked for" },
    { "HTTP/2 200\r\n\r\n", "!does not answer in HTTP/1.1" },
    { "SSH-2.0-x\r\n", "!does not answer in HTTP/1.1" },
};

static void a_body_ends_where_its_head_says_however_it_is_cut(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
        for (size_t piece = 1; piece < 100; piece += piece < 4 ? 1 : 7) {
            struct http_reply r;
            char out[256];

            if (strcmp(read_reply(replies[i].text, piece, &r, out), replies[i].gives) == 0)
                continue;
            print_error("\"%s\" in pieces of %zu: \"%s\", not \"%s\"\n", replies[i].text, piece, out,
                        replies[i].gives);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

static void location_and_validators_are_kept(void **state)
{
    struct http_reply r;
    char out[256];

    (void)state;
    read_reply("HTTP/1.1 302 Found\r\nLocation: \t/there \r\nETag: W/\"a b\"\r\nLast-Modified: Tue\r\n\r\n",
               9, &r, out);
    assert_int_equal(r.status, 302);
    assert_string_equal(r.location, "/there");
    assert_string_equal(r.etag, "W/\"a b\"");
    assert_string_equal(r.date, "Tue");
}

static void a_head_without_an_end_is_given_up(void **state)
{
    struct http_reply r = { .state = REPLY_HEADERS };
    enum talk_step step = TALK_AGAIN;
    uint32_t n = 0;

    (void)state;
    while (step != TALK_BROKEN && n <= REPLY_HEAD_MAX) {
        struct span in = { (const uint8_t *)(n % 80 == 79 ? "\n" : "a"), 1 }, body;

        step = http_reply_step(&r, &in, &body);
        n++;
    }
    assert_int_equal(n, REPLY_HEAD_MAX + 1);
    assert_string_equal(r.why, "answers with too many headers");
}

static const struct url_row {
    const char *url, *host, *path; /* host NULL: refused */
    uint16_t port;
} urls[] = {
    { "http://a.test", "a.test", "/", 80 },
    { "https://A.test/x", "a.test", "/x", 443 },
    { "https://cdn.test/gh/a/b@release/c.txt?d=e#f", "cdn.test", "/gh/a/b@release/c.txt?d=e", 443 },
    { "http://192.0.2.1:8080?q", "192.0.2.1", "/?q", 8080 },
    { "http://[2001:db8::1]:81/", "2001:db8::1", "/", 81 },
    { "http://user:pw@a.test/", NULL, NULL, 0 },
    { "http://a.test:0/", NULL, NULL, 0 },
    { "http://a.test:65536/", NULL, NULL, 0 },
    { "http://a.test:/", NULL, NULL, 0 },
    { "http://[a.test]/", NULL, NULL, 0 },
    { "http://[::1/", NULL, NULL, 0 },
    { "http:///x", NULL, NULL, 0 },
    { "ftp://a.test/", NULL, NULL, 0 },
    { "http://a.test/\r\nX: y", NULL, NULL, 0 },
    { "http://a.test/a b", NULL, NULL, 0 },
};

static void an_address_is_taken_apart_or_refused(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        const struct url_row *row = &urls[i];
        struct up_http_url url;
        int r = up_http_url_parse(row->url, &url);
        bool good = row->host == NULL ? r != 0
                                      : r == 0 && strcmp(url.host, row->host) == 0 &&
                                            strcmp(url.path, row->path) == 0 && url.at.port == row->port;

        if (!good)
            print_error("%s: %d, %s, %s\n", row->url, r, r == 0 ? url.host : "", r == 0 ? url.path : "");
        wrong += !good;
    }
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_body_ends_where_its_head_says_however_it_is_cut),
        cmocka_unit_test(location_and_validators_are_kept),
        cmocka_unit_test(a_head_without_an_end_is_given_up),
        cmocka_unit_test(an_address_is_taken_apart_or_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
