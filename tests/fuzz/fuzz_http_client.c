/* fuzz_http_client.c - any bytes as the answer of an HTTP proxy. The first byte chooses how many arrive at a time. */
#undef NDEBUG /* its promises are checked in every build */
#include <assert.h>
#include <string.h>

#include "upstream/talk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct socks5_login login = { "alice", "sesame" };
    const struct host_port target = { .name = "proxy.test", .port = 443 };
    size_t piece = size > 0 && data[0] > 0 ? data[0] : 1, off = 1;
    enum talk_step step = TALK_AGAIN;
    uint8_t said[TALK_OUT_MAX];
    struct talk t;

    talk_init(&t, UPSTREAM_HTTP, SOCKS5_CONNECT, &login, &target);
    while (step == TALK_AGAIN || (step == TALK_NEED_INPUT && off < size)) {
        size_t n = off >= size ? 0 : piece < size - off ? piece : size - off;
        struct span in = { data + (size > 0 ? off : 0), n };
        struct buf out;

        buf_init(&out, said, sizeof(said));
        step = talk_step(&t, &in, &out);
        assert(!out.full && in.len <= n);
        if (step == TALK_NEED_INPUT)
            assert(in.len == 0);
        off += n - in.len;
        assert(t.http.total <= HTTP_HEAD_MAX + 1);
    }
    if (step == TALK_NEED_INPUT) {
        talk_gone(&t, size % 2);
        step = TALK_BROKEN;
    }
    if (step == TALK_BROKEN) {
        struct talk_failure f = talk_failure(&t);

        assert(f.err < 0 && f.why[0] != '\0' && memchr(f.why, '\0', sizeof(f.why)) &&
               !strstr(f.why, "sesame"));
    }
    return 0;
}
