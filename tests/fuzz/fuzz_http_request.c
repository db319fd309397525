/* fuzz_http_request.c - any bytes as a request to the MASQUE server: HTTP/1.1, then its login. The first byte chooses how many
 * arrive at a time; however they are cut, the verdict is the same. */
#undef NDEBUG /* its promises are checked in every build */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "serve/http_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int read_in_pieces(const uint8_t *data, size_t size, size_t piece, struct http_request *q)
{
    size_t have = 0, scanned = 0;
    int status = 0;

    while (status == 0 && have < size) {
        uint8_t *held;

        have = have + piece < size ? have + piece : size;
        held = malloc(have); /* exactly as much as there is, so that a byte beyond is seen */
        memcpy(held, data, have);
        status = http_request_read((struct span){ held, have }, &scanned, q);
        if (status == 200 && q->authorization.data)
            q->authorization.data = data + (q->authorization.data - held);
        free(held);
    }
    return status;
}

static void check(const struct http_request *q, const uint8_t *data, size_t size)
{
    static const struct serve_user users[] = { { "alice", "sesame" } };
    char name[256];

    assert(q->len <= size && q->len <= HTTP_HEAD_MAX && q->target.to.port != 0);
    assert(memcmp(data + q->len - 4, "\r\n\r\n", 4) == 0);
    if (q->target.to.name)
        assert(host_name_normalise(q->target.name, strlen(q->target.name), name) == 0);
    if (q->authorization.data) {
        int who = http_login(users, 1, q->authorization);

        assert(who == -1 || memmem(data, q->len, "c2VzYW1l", 8) || memmem(data, q->len, "sesame", 6));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t piece = size > 0 && data[0] > 0 ? data[0] : 1;
    struct http_request q = { .len = 0 }, whole = { .len = 0 };
    int status, at_once;

    if (size < 2 || size > 2 * HTTP_HEAD_MAX)
        return 0;
    data++;
    size--;
    status = read_in_pieces(data, size, piece, &q);
    at_once = read_in_pieces(data, size, size, &whole);
    assert(status == 0 || status == 200 || (status >= 400 && status <= 505));
    if (status == 200)
        check(&q, data, size);
    if (size < HTTP_LINE_MAX) /* beyond, it depends on what has come: 414 or 431 earlier */
        assert(status == at_once || status == 400);
    return 0;
}
