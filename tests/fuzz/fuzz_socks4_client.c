/* fuzz_socks4_client.c - any bytes as the answer of a SOCKS4 server. The first byte chooses how many arrive at a time. */
#undef NDEBUG /* its promises are checked in every build */
#include <assert.h>
#include <string.h>

#include "upstream/talk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct socks5_login login = { "alice", NULL };
    const struct host_port target = { .name = "proxy.test", .port = 443 };
    size_t piece = size > 0 && data[0] > 0 ? data[0] : 1, off = 1, have = 0;
    uint8_t said[TALK_OUT_MAX], held[SOCKS4_IN_MAX];
    struct talk t;

    talk_init(&t, UPSTREAM_SOCKS4A, SOCKS5_CONNECT, &login, &target);
    for (;;) {
        struct span in = { held, have };
        enum talk_step step;
        struct buf out;
        size_t n;

        buf_init(&out, said, sizeof(said));
        step = talk_step(&t, &in, &out);
        assert(!out.full && in.len <= have);
        memmove(held, in.data, in.len);
        have = in.len;
        if (step == TALK_AGAIN)
            continue;
        if (step == TALK_BROKEN)
            assert(talk_failure(&t).err < 0 && talk_failure(&t).why[0] != '\0');
        if (step != TALK_NEED_INPUT || off >= size)
            return 0;
        in = (struct span){ held, have };
        n = talk_missing(&t, &in);
        assert(n > 0 && have + n <= sizeof(held));
        n = n < piece ? n : piece;
        n = n < size - off ? n : size - off;
        memcpy(held + have, data + off, n);
        have += n;
        off += n;
    }
}
