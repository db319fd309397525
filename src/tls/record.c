/* record.c - the headers of TLS records as they come in (RFC 5246 section 6.2): how many, and what a stranger said. */
#include "tls_impl.h"

enum { RECORD_ALERT = 21 };

static size_t take_head(struct record_watch *w, const uint8_t *data, size_t len)
{
    size_t n = sizeof(w->head) - w->head_len;

    n = n < len ? n : len;
    memcpy(w->head + w->head_len, data, n);
    w->head_len = (uint8_t)(w->head_len + n);
    if (w->head_len == sizeof(w->head)) {
        w->body_left = get_be16(w->head + 3);
        w->count++;
        if (w->body_left == 0)
            w->head_len = 0;
    }
    return n;
}

/* An alert of two bytes is in the clear: an encrypted one is longer. */
static size_t take_body(struct record_watch *w, const uint8_t *data, size_t len)
{
    size_t n = len < w->body_left ? len : w->body_left;
    bool alert = w->head[0] == RECORD_ALERT && get_be16(w->head + 3) == sizeof(w->alert);

    for (size_t i = 0; alert && i < n; i++)
        w->alert[sizeof(w->alert) - w->body_left + i] = data[i];
    w->body_left -= (uint32_t)n;
    if (w->body_left == 0)
        w->head_len = 0;
    return n;
}

void record_watch(struct record_watch *w, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len && w->first_len < sizeof(w->first); i++)
        w->first[w->first_len++] = data[i];
    while (len > 0) {
        size_t n = w->head_len < sizeof(w->head) ? take_head(w, data, len) : take_body(w, data, len);

        data += n;
        len -= n;
    }
}

const char *record_stranger(const struct record_watch *w)
{
    static const struct {
        uint8_t byte;
        const char *is;
    } known[] = {
        { 'H', "is an HTTP server without TLS: leave tls out, or use its port with TLS" },
        { '<', "is an HTTP server without TLS: leave tls out, or use its port with TLS" },
        { 0x05, "speaks SOCKS5 without TLS: leave tls out, or use its port with TLS" },
        { 0x00, "speaks SOCKS4 without TLS: leave tls out, or use its port with TLS" },
        { 'S', "is an SSH server" },
        { '2', "is a mail or FTP server" },
    };

    for (size_t i = 0; w->first_len > 0 && i < ARRAY_LEN(known); i++) {
        if (known[i].byte == w->first[0])
            return known[i].is;
    }
    return w->first_len > 0 && (w->first[0] < 20 || w->first[0] > 23) ? "does not speak TLS" : NULL;
}
