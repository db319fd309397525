/* fuzz_socks5_frames.c - any bytes, in pieces of any length, as a stream of UDP-in-TCP frames. It always advances or ends, stays in
 * its buffer, and what it understood is the same however the stream was cut. */
#undef NDEBUG /* its promises are checked in every build */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "culvert/upstream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct result {
    uint64_t datagrams, bytes, sum;
    int end;
};

static struct result read_all(const uint8_t *data, size_t size, size_t piece)
{
    struct socks5_frames *f = calloc(1, sizeof(*f));
    struct result out = { 0 };
    size_t at = 0;

    assert(f);
    while (out.end == 0 && at < size) {
        struct socks5_address a;
        struct span d;
        uint8_t *to;
        size_t room = socks5_frames_room(f, &to), n = size - at < piece ? size - at : piece;

        assert(room > 0);
        n = n < room ? n : room;
        memcpy(to, data + at, n);
        socks5_frames_received(f, n);
        at += n;
        while ((out.end = socks5_frames_next(f, &a, &d)) == 1) {
            assert(d.data >= f->in && d.data + d.len <= f->in + sizeof(f->in));
            assert(!a.name || ((const uint8_t *)a.name >= f->in && a.name_len <= 248));
            out.datagrams++;
            out.bytes += d.len;
            for (size_t i = 0; i < d.len; i++)
                out.sum = out.sum * 31 + d.data[i];
        }
    }
    out.sum += f->malformed;
    free(f);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct result whole, pieces;

    if (size < 1)
        return 0;
    whole = read_all(data + 1, size - 1, SIZE_MAX);
    pieces = read_all(data + 1, size - 1, 1 + (size_t)data[0]);
    assert(whole.datagrams == pieces.datagrams && whole.bytes == pieces.bytes && whole.sum == pieces.sum &&
           whole.end == pieces.end);
    return 0;
}
