/* fuzz_socks5_server.c - any bytes as a SOCKS5 client's handshake. The first input byte chooses whether a login is wanted and how
 * many bytes arrive at a time. */
#undef NDEBUG /* its promises are checked in every build */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "serve/socks5_server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_target(const struct socks5_server *s)
{
    char name[256];

    assert(s->command == SERVER_CONNECT || s->command == SERVER_ASSOCIATE || s->command == SERVER_UDP_IN_TCP);
    if (s->target.name)
        assert(host_name_normalise(s->target.name, strlen(s->target.name), name) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct serve_user users[] = { { "user", "password" } };
    uint8_t *held = malloc(SERVER_IN_MAX);
    size_t have = 0, off = 1, steps = 0;
    struct socks5_server s;

    server_init(&s, users, size > 0 ? data[0] % 2 : 0);
    for (;;) {
        struct span in = { held, have };
        enum server_step step;
        uint8_t bytes[SERVER_OUT_MAX];
        struct buf out;

        buf_init(&out, bytes, sizeof(bytes));
        step = server_step(&s, &in, &out);
        assert(!out.full && in.len <= have && ++steps <= 16 + size);
        memmove(held, in.data, in.len);
        have = in.len;
        if (step == SERVER_AGAIN)
            continue;
        if (step == SERVER_ASKED)
            check_target(&s);
        if (step != SERVER_NEED_INPUT || off >= size)
            break;
        assert(have < SERVER_IN_MAX); /* the longest message fits */
        for (size_t i = 0; i <= data[0] / 2u && off < size && have < SERVER_IN_MAX; i++)
            held[have++] = data[off++];
    }
    free(held);
    return 0;
}
