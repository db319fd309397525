/* sniff_http.c - the host of an HTTP/1 request: out of its absolute target, else out of Host. */
#include "sniff.h"

#include <string.h>
#include <strings.h>

/* The methods of RFC 9110 section 9 and PATCH; what begins otherwise is no HTTP for us. CONNECT is for proxies. */
static const char *const methods[] = { "GET ",    "HEAD ",    "POST ",  "PUT ",
                                       "DELETE ", "OPTIONS ", "TRACE ", "PATCH " };

static enum sniffed begins_like_http(struct span in)
{
    enum sniffed best = SNIFF_NONE;

    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        size_t len = strlen(methods[i]), n = in.len < len ? in.len : len;

        if (memcmp(in.data, methods[i], n) != 0)
            continue;
        if (n == len)
            return SNIFF_NAME;
        best = SNIFF_MORE;
    }
    return best;
}

/* "name", "name:port", with spaces around; an address is no name. */
static enum sniffed read_host(const uint8_t *text, size_t len, char name[256])
{
    const uint8_t *colon;
    struct ip_addr addr;

    while (len > 0 && (text[0] == ' ' || text[0] == '\t')) {
        text++;
        len--;
    }
    while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t'))
        len--;
    colon = memchr(text, ':', len);
    if (colon != NULL)
        len = (size_t)(colon - text);
    if (host_name_normalise((const char *)text, len, name) != 0 || ip_parse(name, &addr) == 0)
        return SNIFF_NONE;
    return SNIFF_NAME;
}

/* The authority of "METHOD http://name:port/path HTTP/1.1". */
static enum sniffed read_target(const uint8_t *line, size_t len, char name[256])
{
    static const char scheme[] = "http://";
    const uint8_t *target = memchr(line, ' ', len);
    size_t n = 0;

    if (target == NULL)
        return SNIFF_NONE;
    target++;
    len -= (size_t)(target - line);
    if (len < sizeof(scheme) - 1 || strncasecmp((const char *)target, scheme, sizeof(scheme) - 1) != 0)
        return SNIFF_MORE; /* Host tells */
    target += sizeof(scheme) - 1;
    len -= sizeof(scheme) - 1;
    while (n < len && target[n] != '/' && target[n] != ' ' && target[n] != '?')
        n++;
    return read_host(target, n, name);
}

enum sniffed sniff_http(struct span in, char name[256])
{
    static const char host[] = "host:";
    enum sniffed found = in.len == 0 ? SNIFF_MORE : begins_like_http(in);
    bool first = true;

    if (found != SNIFF_NAME)
        return found;
    while (in.len > 0) {
        const uint8_t *end = memchr(in.data, '\n', in.len);
        size_t len;

        if (end == NULL)
            return SNIFF_MORE;
        len = (size_t)(end - in.data);
        if (len > 0 && in.data[len - 1] == '\r')
            len--;
        if (first && (found = read_target(in.data, len, name)) != SNIFF_MORE)
            return found;
        if (!first && len == 0)
            return SNIFF_NONE; /* the head has ended */
        if (!first && len >= sizeof(host) - 1 &&
            strncasecmp((const char *)in.data, host, sizeof(host) - 1) == 0)
            return read_host(in.data + sizeof(host) - 1, len - (sizeof(host) - 1), name);
        first = false;
        span_skip(&in, (size_t)(end - in.data) + 1);
    }
    return SNIFF_MORE;
}
