/* http_request.c - reading a CONNECT request in HTTP/1.1, and writing answers.
 *
 * Strict where two readers could disagree (RFC 9112 section 11.2): lines end in CRLF and nothing else, no folded lines, no blank
 * before a colon, one Host, no content. Everything that is wrong ends the connection, so nothing is guessed.
 * Left out: any method but CONNECT. */
#include "http_request.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool is_tchar(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_token(struct span s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!is_tchar(s.data[i]))
            return false;
    return s.len > 0;
}

static bool is_text(struct span s, const char *text)
{
    return s.len == strlen(text) && strncasecmp((const char *)s.data, text, s.len) == 0;
}

bool http_take_until(struct span *s, uint8_t c, struct span *out)
{
    const uint8_t *at = s->len > 0 ? memchr(s->data, c, s->len) : NULL;

    if (!at)
        return false;
    *out = (struct span){ s->data, (size_t)(at - s->data) };
    span_skip(s, out->len + 1);
    return true;
}

/* ---- the head ---- */

/* How many bytes the head has, its empty line included; 0: not all of it is there. A line that ends otherwise than in CRLF, or
 * a NUL, makes it -1. An empty line may come before (section 2.2). */
static long head_length(struct span in, size_t *scanned)
{
    size_t start = in.len >= 2 && in.data[0] == '\r' && in.data[1] == '\n' ? 2 : 0;

    for (size_t i = *scanned; i < in.len; i++) {
        uint8_t c = in.data[i], before = i > 0 ? in.data[i - 1] : 0;

        if (c == 0 || (c == '\n' && before != '\r') || (before == '\r' && c != '\n'))
            return -1;
        if (c == '\n' && i >= 3 + start && in.data[i - 2] == '\n')
            return (long)i + 1;
    }
    *scanned = in.len;
    return 0;
}

/* "CONNECT authority HTTP/1.1". Return: 0 or the status. */
static int read_request_line(struct span line, struct http_request *out, bool *needs_host)
{
    struct span method, target;

    if (!http_take_until(&line, ' ', &method) || !http_take_until(&line, ' ', &target) || !is_token(method) ||
        target.len == 0)
        return 400;
    if (line.len != 8 || memcmp(line.data, "HTTP/", 5) != 0 || line.data[6] != '.')
        return 400;
    if (line.data[5] != '1' || (line.data[7] != '1' && line.data[7] != '0'))
        return 505;
    if (method.len != 7 || memcmp(method.data, "CONNECT", 7) != 0)
        return 405;
    *needs_host = line.data[7] == '1';
    return http_read_authority(target, &out->target) ? 0 : 400;
}

/* "name: value" without the blanks around the value (section 5). */
static bool read_field(struct span line, struct span *name, struct span *value)
{
    if (!http_take_until(&line, ':', name) || !is_token(*name))
        return false;
    while (line.len > 0 && (line.data[0] == ' ' || line.data[0] == '\t'))
        span_skip(&line, 1);
    while (line.len > 0 && (line.data[line.len - 1] == ' ' || line.data[line.len - 1] == '\t'))
        line.len--;
    for (size_t i = 0; i < line.len; i++)
        if ((line.data[i] < ' ' && line.data[i] != '\t') || line.data[i] == 0x7f)
            return false;
    *value = line;
    return true;
}

/* A host, perhaps with a port; it may differ from the target, which is what counts (RFC 9110 section 7.2). */
static bool is_host(struct span value)
{
    for (size_t i = 0; i < value.len; i++)
        if (!is_tchar(value.data[i]) && !strchr("[]:()=;,", value.data[i]))
            return false;
    return value.len > 0;
}

static int read_fields(struct span in, struct http_request *out, bool needs_host)
{
    unsigned hosts = 0;

    for (int count = 0;; count++) {
        struct span line, name, value;

        if (!http_take_until(&in, '\n', &line))
            return 400;
        line.len--; /* its CR */
        if (line.len == 0)
            break;
        if (count == HTTP_FIELDS_MAX)
            return 431;
        if (!read_field(line, &name, &value))
            return 400;
        if (is_text(name, "content-length") || is_text(name, "transfer-encoding"))
            return 400; /* CONNECT has no content (RFC 9110 section 9.3.6) */
        if (is_text(name, "host") && (++hosts > 1 || !is_host(value)))
            return 400;
        if (is_text(name, "proxy-authorization")) {
            if (out->authorization.data)
                return 400;
            out->authorization = value;
        }
    }
    return needs_host && hosts == 0 ? 400 : 200;
}

int http_request_read(struct span in, size_t *scanned, struct http_request *out)
{
    long len = head_length(in, scanned);
    struct span line;
    bool needs_host;
    int status;

    if (len == 0 && in.len >= HTTP_LINE_MAX && !memchr(in.data + 2, '\n', in.len - 2))
        return 414;
    if (len > HTTP_HEAD_MAX || (len == 0 && in.len >= HTTP_HEAD_MAX))
        return 431;
    if (len <= 0)
        return len < 0 ? 400 : 0;
    *out = (struct http_request){ .len = (size_t)len };
    in.len = (size_t)len;
    if (in.data[0] == '\r')
        span_skip(&in, 2);
    if (!http_take_until(&in, '\n', &line))
        return 400;
    if (line.len > HTTP_LINE_MAX)
        return 414;
    line.len--;
    status = read_request_line(line, out, &needs_host);
    if (status != 0)
        return status;
    if (out->target.to.name) /* it has moved with @out */
        out->target.to.name = out->target.name;
    return read_fields(in, out, needs_host);
}

/* ---- answers ---- */

int http_status_for(int err)
{
    switch (err) {
    case 0:
        return 200;
    case -EACCES:
    case -ELOOP:
        return 403;
    case -ETIMEDOUT:
        return 504;
    case -EMFILE:
    case -ENOMEM:
    case -EAGAIN:
        return 503;
    default:
        return 502;
    }
}

const char *http_proxy_error(int err)
{
    switch (err) {
    case -EACCES:
    case -ELOOP:
        return "destination_ip_prohibited";
    case -ETIMEDOUT:
        return "connection_timeout";
    case -ECONNREFUSED:
        return "connection_refused";
    case -ENETUNREACH:
    case -EHOSTUNREACH:
        return "destination_ip_unroutable";
    case -EINVAL:
        return "dns_error";
    default:
        return "proxy_internal_error";
    }
}

static const char *reason_of(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        { 200, "Connection established" },
        { 400, "Bad Request" },
        { 403, "Forbidden" },
        { 405, "Method Not Allowed" },
        { 407, "Proxy Authentication Required" },
        { 408, "Request Timeout" },
        { 414, "URI Too Long" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 502, "Bad Gateway" },
        { 503, "Service Unavailable" },
        { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" },
    };

    for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "Error";
}

void http_put_answer(struct buf *out, int status, int err)
{
    char text[320];
    int n = snprintf(text, sizeof(text), "HTTP/1.1 %d %s\r\n", status, reason_of(status));

    if (status != 200)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "Content-Length: 0\r\nConnection: close\r\n");
    if (status == 405)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "Allow: CONNECT\r\n");
    if (status == 407)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "Proxy-Authenticate: " HTTP_CHALLENGE "\r\n");
    if (err != 0)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "Proxy-Status: culvert; error=%s\r\n",
                      http_proxy_error(err));
    n += snprintf(text + n, sizeof(text) - (size_t)n, "\r\n");
    buf_put(out, text, (size_t)n);
}
