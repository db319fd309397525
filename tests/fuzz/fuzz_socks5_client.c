/* fuzz_socks5_client.c - any bytes as a SOCKS5 server's answers. The first input byte chooses the goal, the login and how many
 * bytes arrive at a time; the rest is what the server says. */
#undef NDEBUG /* its promises are checked in every build */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "upstream/socks5.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_end(const struct socks5 *s, enum socks5_step step)
{
    if (step == SOCKS5_BROKEN)
        assert(s->err < 0 && s->why[0] != '\0' && memchr(s->why, '\0', sizeof(s->why)));
    if (step == SOCKS5_DONE)
        assert(s->state == SOCKS5_OPEN);
}

/* As handshake.c does it: never more than is missing, so no byte of the stream behind the answer is taken. */
static void run(struct socks5 *s, const uint8_t *data, size_t size, size_t piece)
{
    uint8_t *held = malloc(SOCKS5_IN_MAX); /* on the heap, so that a read past its end is seen */
    size_t have = 0, off = 0;
    unsigned steps = 0;

    for (;;) {
        struct span in = { held, have };
        uint8_t bytes[SOCKS5_OUT_MAX];
        enum socks5_step step;
        struct buf out;
        size_t n;

        buf_init(&out, bytes, sizeof(bytes));
        step = socks5_step(s, &in, &out);
        assert(!out.full && in.len <= have && ++steps <= 16 + size);
        memmove(held, in.data, in.len);
        have = in.len;
        if (step == SOCKS5_AGAIN)
            continue;
        check_end(s, step);
        if (step != SOCKS5_NEED_INPUT)
            assert(have == 0 || step == SOCKS5_BROKEN);
        if (step != SOCKS5_NEED_INPUT || off == size)
            break;
        in = (struct span){ held, have };
        n = socks5_missing(s, &in);
        assert(n > 0 && have + n <= SOCKS5_IN_MAX);
        n = n < piece ? n : piece;
        n = n < size - off ? n : size - off;
        memcpy(held + have, data + off, n);
        have += n;
        off += n;
    }
    if (s->state != SOCKS5_OPEN && s->state != SOCKS5_FAILED) {
        socks5_gone(s, size % 2);
        check_end(s, SOCKS5_BROKEN);
    }
    free(held);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct socks5_login logins[2] = { { NULL, NULL }, { "user", "password" } };
    struct host_port target = { .name = "example.test", .port = 443 };
    struct socks5 s;

    if (size == 0)
        return 0;
    socks5_init(&s, (enum socks5_goal)(data[0] % 4 % 3), &logins[data[0] / 4 % 2], &target);
    if (data[0] % 4 == 3)
        socks5_pipeline(&s);
    run(&s, data + 1, size - 1, 1 + data[0] / 8);
    return 0;
}
