/* fuzz_http_reply.c - any bytes as the answer of a web server. The first byte chooses how many arrive at a time; what comes out must
 * not depend on it. */
#undef NDEBUG /* its promises are checked in every build */
#include <assert.h>
#include <string.h>

#include "upstream/http_reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    enum talk_step step;
    const char *why;
    size_t bytes, used;
    uint64_t sum;
};

static struct outcome read_all(const uint8_t *data, size_t size, size_t piece)
{
    struct http_reply r = { .state = REPLY_STATUS };
    struct outcome out = { .step = TALK_NEED_INPUT };

    while (out.step == TALK_NEED_INPUT && out.used < size) {
        struct span in = { data + out.used, piece < size - out.used ? piece : size - out.used }, body;
        size_t given = in.len;

        do {
            size_t before = in.len;

            out.step = http_reply_step(&r, &in, &body);
            assert(in.len <= before && body.len <= before);
            assert(body.len == 0 || (out.step == TALK_AGAIN && before - in.len == body.len));
            for (size_t i = 0; i < body.len; i++)
                out.sum = out.sum * 31 + body.data[i];
            out.bytes += body.len;
        } while (out.step == TALK_AGAIN);
        out.used += given - in.len;
    }
    if (out.step == TALK_NEED_INPUT)
        out.step = http_reply_end(&r);
    assert(out.step == TALK_DONE || (out.step == TALK_BROKEN && r.why != NULL));
    assert(memchr(r.location, '\0', sizeof(r.location)) && memchr(r.etag, '\0', sizeof(r.etag)));
    out.why = r.why;
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome whole, cut;

    if (size == 0)
        return 0;
    whole = read_all(data + 1, size - 1, size);
    cut = read_all(data + 1, size - 1, data[0] > 0 ? data[0] : 1);
    assert(whole.step == cut.step && whole.why == cut.why && whole.bytes == cut.bytes &&
           whole.used == cut.used && whole.sum == cut.sum);
    return 0;
}
