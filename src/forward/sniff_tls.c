/* sniff_tls.c - the name in a ClientHello, alone or in TLS records. Extensions are read in order as far as there are bytes, so a
 * hello that is not whole yet may tell its name already. */
#include "sniff.h"

#include <string.h>

#define RECORD_HANDSHAKE 22
#define RECORD_MAX       16640 /* RFC 8446 section 5.2: 2^14 and what protection may add */
#define CLIENT_HELLO     1
#define EXT_SERVER_NAME  0

/* Skips a vector with a length of @width bytes. Return: SNIFF_NAME when it was there. */
static enum sniffed skip_vector(struct span *in, unsigned width)
{
    size_t len = 0;

    if (in->len < width)
        return SNIFF_MORE;
    for (unsigned i = 0; i < width; i++)
        len = len << 8 | in->data[i];
    if (in->len - width < len)
        return SNIFF_MORE;
    span_skip(in, width + len);
    return SNIFF_NAME;
}

/* The first host_name of the list (RFC 6066 section 3). */
static enum sniffed read_server_name(struct span ext, char name[256])
{
    const uint8_t *text;
    uint16_t list_len, len;
    uint8_t type;

    if (!span_u16(&ext, &list_len) || list_len != ext.len || !span_u8(&ext, &type) || type != 0 ||
        !span_u16(&ext, &len) || !span_bytes(&ext, len, &text))
        return SNIFF_NONE;
    return host_name_normalise((const char *)text, len, name) == 0 ? SNIFF_NAME : SNIFF_NONE;
}

static enum sniffed read_extensions(struct span in, size_t declared, char name[256])
{
    bool whole = in.len >= declared;

    if (whole)
        in.len = declared;
    while (in.len > 0) {
        uint16_t type, len;

        if (!span_u16(&in, &type) || !span_u16(&in, &len) || in.len < len)
            return whole ? SNIFF_NONE : SNIFF_MORE;
        if (type == EXT_SERVER_NAME)
            return read_server_name((struct span){ in.data, len }, name);
        span_skip(&in, len);
    }
    return whole ? SNIFF_NONE : SNIFF_MORE;
}

enum sniffed sniff_hello(struct span in, char name[256])
{
    static const unsigned vectors[] = { 1, 2, 1 }; /* session id, cipher suites, compression methods */
    uint16_t extensions;
    size_t len;

    if (in.len < 1)
        return SNIFF_MORE;
    if (in.data[0] != CLIENT_HELLO)
        return SNIFF_NONE;
    if (in.len < 4)
        return SNIFF_MORE;
    len = (size_t)in.data[1] << 16 | (size_t)get_be16(in.data + 2);
    if (len > SNIFF_BYTES_MAX)
        return SNIFF_NONE;
    span_skip(&in, 4);
    if (in.len > len)
        in.len = len;
    if (in.len < 2 + 32) /* version and random */
        return in.len == len ? SNIFF_NONE : SNIFF_MORE;
    if (in.data[0] != 3)
        return SNIFF_NONE;
    len -= in.len; /* what is still to come */
    span_skip(&in, 2 + 32);
    for (size_t i = 0; i < ARRAY_LEN(vectors); i++) {
        if (skip_vector(&in, vectors[i]) == SNIFF_MORE)
            return len == 0 ? SNIFF_NONE : SNIFF_MORE;
    }
    if (!span_u16(&in, &extensions))
        return len == 0 ? SNIFF_NONE : SNIFF_MORE; /* a hello without extensions ends here */
    if (len == 0 && in.len < extensions)
        return SNIFF_NONE;
    return read_extensions(in, extensions, name);
}

/* What records carry of the handshake, one behind the other. *whole: nothing behind it belongs to it, or fits. */
static size_t gather(struct span in, uint8_t *hello, size_t cap, bool *whole)
{
    size_t have = 0;

    *whole = true;
    while (in.len > 0 && have < cap) {
        size_t len;

        if (in.data[0] != RECORD_HANDSHAKE || (in.len > 1 && in.data[1] != 3))
            return have;
        if (in.len < 5)
            break;
        len = get_be16(in.data + 3);
        if (len == 0 || len > RECORD_MAX)
            return have;
        span_skip(&in, 5);
        if (len > in.len)
            len = in.len;
        if (len > cap - have)
            len = cap - have;
        memcpy(hello + have, in.data, len);
        have += len;
        span_skip(&in, len);
    }
    *whole = have == cap;
    return have;
}

/* Read once, when all is together: record by record it would be read as often as there are records, and a client may make them of
 * one byte each. */
enum sniffed sniff_tls(struct span in, char name[256])
{
    uint8_t hello[SNIFF_BYTES_MAX + 4];
    bool whole;
    size_t have = gather(in, hello, sizeof(hello), &whole);
    enum sniffed found = sniff_hello((struct span){ hello, have }, name);

    return found == SNIFF_MORE && whole ? SNIFF_NONE : found;
}
