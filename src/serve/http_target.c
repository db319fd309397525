/* http_target.c - where a client of a proxy in HTTP wants to go, and who it is.
 *
 * Left out: Digest logins (RFC 7616): they need the password in the clear here, and give nothing inside TLS. */
#include "http_request.h"
#include "socks5_server.h"

#include <string.h>
#include <strings.h>

/* ---- small readers ---- */

static bool read_number(struct span s, unsigned max, unsigned *out)
{
    unsigned n = 0;

    if (s.len == 0 || s.len > 5)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9')
            return false;
        n = n * 10 + (unsigned)(s.data[i] - '0');
    }
    *out = n;
    return n <= max;
}

/* ---- targets ---- */

/* An address or a host name. A name of digits and dots only would be read as an address by some resolver: it is none. */
static bool read_host(struct span host, struct http_target *out)
{
    char text[256];

    *out = (struct http_target){ .name = "" };
    if (host.len == 0 || host.len >= sizeof(text) || memchr(host.data, 0, host.len))
        return false;
    memcpy(text, host.data, host.len);
    text[host.len] = '\0';
    if (ip_parse(text, &out->to.addr) == 0)
        return true;
    if (strspn(text, "0123456789.") == host.len || host_name_normalise(text, host.len, out->name) != 0)
        return false;
    out->to.name = out->name;
    return true;
}

static bool read_port(struct span text, struct http_target *out)
{
    unsigned port;

    if (!read_number(text, 65535, &port) || port == 0)
        return false;
    out->to.port = (uint16_t)port;
    return true;
}

bool http_read_authority(struct span text, struct http_target *out)
{
    struct span host = text;
    size_t colon = text.len;

    while (colon > 0 && text.data[colon - 1] != ':')
        colon--;
    if (colon == 0)
        return false;
    host.len = colon - 1;
    span_skip(&text, colon);
    if (host.len > 0 && host.data[0] != '[' && memchr(host.data, ':', host.len))
        return false; /* an IPv6 address wants brackets (RFC 3986 section 3.2.2) */
    return read_host(host, out) && read_port(text, out);
}

/* ---- logins ---- */

/* Strict base64 (RFC 4648 section 4); the final = may be left out. Return: bytes; 0: it is none, or does not fit. */
static size_t decode_base64(struct span in, uint8_t *out, size_t cap)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0;
    size_t len = 0;

    while (in.len > 0 && in.data[in.len - 1] == '=')
        in.len--;
    if (in.len % 4 == 1)
        return 0;
    for (size_t i = 0; i < in.len; i++) {
        const char *at = in.data[i] != 0 ? strchr(digits, in.data[i]) : NULL;

        if (!at)
            return 0;
        bits = bits << 6 | (uint32_t)(at - digits);
        if (i % 4 == 0)
            continue;
        if (len == cap)
            return 0;
        out[len++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
    }
    return len;
}

static bool take_scheme(struct span *value, const char *scheme)
{
    size_t len = strlen(scheme);

    if (value->len <= len || strncasecmp((const char *)value->data, scheme, len) != 0 ||
        value->data[len] != ' ')
        return false;
    span_skip(value, len);
    while (value->len > 0 && value->data[0] == ' ')
        span_skip(value, 1);
    return true;
}

int http_login(const struct serve_user *users, size_t n, struct span value)
{
    uint8_t login[512]; /* 255, a colon, 255 */
    struct span rest, name;
    int found = -1;

    if (take_scheme(&value, "Bearer"))
        return server_login(users, n, NULL, &value);
    if (!take_scheme(&value, "Basic"))
        return -1;
    rest = (struct span){ login, decode_base64(value, login, sizeof(login)) };
    if (http_take_until(&rest, ':', &name))
        found = server_login(users, n, &name, &rest);
    explicit_bzero(login, sizeof(login));
    return found;
}
