/* fuzz_sniff.c - a client's first bytes: TLS, HTTP or QUIC by the first byte. A name that is found is one that a host can have. */
#include "forward/sniff.h"

#include <stdlib.h>
#include <string.h>

#include "quic_initial.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum sniffed one_datagram(struct span in, char name[256])
{
    struct quic_hello q = { .version = 0 };

    return quic_hello_add(&q, in, name);
}

/* The bytes as the frames of Initial packets, sealed: what no fuzzer finds behind a tag. A length of a byte, times eight, is before each. */
static enum sniffed sealed_frames(struct span in, char name[256])
{
    struct quic_hello q = { .version = 0 };
    enum sniffed found = SNIFF_NONE;
    uint8_t length, *datagram = malloc(QUIC_DATAGRAM);

    for (uint32_t n = 0; datagram && n < 8 && found != SNIFF_NAME && span_u8(&in, &length); n++) {
        size_t len = (size_t)length * 8 < in.len ? (size_t)length * 8 : in.len;

        if (len > QUIC_PAYLOAD)
            len = QUIC_PAYLOAD;
        quic_seal(datagram, 1, "abcdefgh", n, in.data, len);
        span_skip(&in, len);
        found = quic_hello_add(&q, (struct span){ datagram, QUIC_DATAGRAM }, name);
        if (q.whole > QUIC_HELLO_MAX ||
            (q.whole < QUIC_HELLO_MAX && (q.have[q.whole / 8] >> q.whole % 8 & 1) != 0))
            abort();
    }
    free(datagram);
    return found;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static enum sniffed (*const readers[])(struct span, char *) = { sniff_tls, sniff_http, one_datagram,
                                                                    sniff_hello, sealed_frames };
    enum sniffed (*reader)(struct span, char *);
    char name[256], again[256];
    uint8_t *copy;

    if (size < 1)
        return 0;
    reader = readers[data[0] % ARRAY_LEN(readers)];
    copy = malloc(size); /* of exact size: a read past the end is seen */
    if (copy == NULL)
        return 0;
    memcpy(copy, data + 1, size - 1);
    if (reader((struct span){ copy, size - 1 }, name) == SNIFF_NAME &&
        (host_name_normalise(name, strlen(name), again) != 0 || strcmp(name, again) != 0))
        abort();
    free(copy);
    return 0;
}
