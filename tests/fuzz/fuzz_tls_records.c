/* fuzz_tls_records.c - any bytes as what a server says to our TLS client: the record watch, mbedTLS, and the sentences of both.
 * The first byte chooses how many arrive at a time and whether the end is a reset. */
#undef NDEBUG /* its promises are checked in every build */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tls/tls_impl.h"
#include "tls_pair.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct feed {
    const uint8_t *data;
    size_t len, piece;
    bool reset;
};

static ssize_t feed_recv(void *arg, void *to, size_t len)
{
    struct feed *f = arg;
    size_t n = len < f->piece ? len : f->piece;

    if (f->len == 0)
        return f->reset ? -ECONNRESET : 0;
    n = n < f->len ? n : f->len;
    memcpy(to, f->data, n);
    f->data += n;
    f->len -= n;
    return (ssize_t)n;
}

static ssize_t feed_send(void *arg, const void *data, size_t len)
{
    (void)arg;
    (void)data;
    return (ssize_t)len;
}

static void feed_wake(void *arg)
{
    (void)arg;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct tls_io io = { feed_recv, feed_send, feed_wake };
    static struct tls_context *context; /* made once: parsing is not what is tried here */
    struct feed f = { data + 1, size > 0 ? size - 1 : 0, 1, false };
    enum tls_step step = TLS_WANT_READ;
    struct tls *t;

    if (size == 0)
        return 0;
    if (!context) {
        struct tls_options opt = { .ca = tls_test_ca(pki_authority()) };
        struct tls_settings *s;
        struct tls_worker *w;
        struct err err;

        assert(tls_worker_new(&w) == 0 && tls_settings_new(&opt, &s, &err) == 0);
        assert(tls_context_new(w, s, "localhost", &context) == 0);
        tls_settings_unref(s);
        tls_ca_unref(opt.ca);
    }
    f.piece = (data[0] & 127u) + 1u;
    f.reset = data[0] > 127;
    assert(tls_open(context, &io, &f, &t) == 0);
    for (uint64_t turn = 0; step != TLS_BROKEN; turn++) {
        step = tls_handshake(t, turn);
        assert(step != TLS_DONE && turn < 100000);
    }
    assert(tls_why(t)[0] != '\0' && memchr(tls_why(t), '\0', sizeof(t->why)));
    tls_free(t);
    return 0;
}
