/* fuzz_sniff.c - a client's first bytes: TLS, HTTP or QUIC by the first byte. A name that is found is one that a host can have, and
 * what is found stays found when more bytes follow. */
#include "forward/sniff.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static enum sniffed (*const readers[])(struct span, char *) = { sniff_tls, sniff_http, sniff_quic,
                                                                    sniff_hello };
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
