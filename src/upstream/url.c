/* url.c - "socks5://user:password@host:port#name" into options (config.md: `--proxy URL`; RFC 3986 for its parts).
 *
 * No sentence repeats the part before the '@': it may hold a password (faults.md G7). */
#include "culvert/upstream.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { STORAGE_BYTES = 1024, SECRET_MAX = 255 };

struct text { /* a part of the URL */
    const char *at;
    size_t len;
};

struct store { /* the caller's memory, filled from the front */
    char *at;
    size_t left;
};

/* Cuts @t at the first (or last) @c and returns the part behind it; at == NULL when there is none. */
static struct text cut(struct text *t, char c, bool last)
{
    const char *p = last ? memrchr(t->at, c, t->len) : memchr(t->at, c, t->len);
    struct text behind = { 0 };

    if (p) {
        behind = (struct text){ p + 1, (size_t)(t->at + t->len - p - 1) };
        t->len = (size_t)(p - t->at);
    }
    return behind;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Percent-decodes @t into the store (RFC 3986 section 2.1). @what names the part in the sentence. */
static int decode(struct store *store, struct text t, const char *what, const char **out, struct err *err)
{
    char *start = store->at;
    size_t n = 0;

    for (size_t i = 0; i < t.len; i++) {
        int c = (unsigned char)t.at[i];

        if (c == '%') {
            int high = i + 2 < t.len ? hex_digit(t.at[i + 1]) : -1;
            int low = i + 2 < t.len ? hex_digit(t.at[i + 2]) : -1;

            if (high < 0 || low < 0)
                return err_set(err, -EINVAL,
                               "the %s of the URL has a %% that two hex digits do not follow; "
                               "write %%25 for a percent sign",
                               what);
            c = high << 4 | low;
            i += 2;
        }
        if (c == 0)
            return err_set(err, -EINVAL, "the %s of the URL holds a zero byte", what);
        if (n + 1 >= store->left)
            return err_set(err, -EINVAL, "the URL is too long");
        start[n++] = (char)c;
    }
    start[n] = '\0';
    store->at += n + 1;
    store->left -= n + 1;
    *out = start;
    return 0;
}

static const struct scheme {
    const char *name;
    enum upstream_kind kind;
    bool secure;
    uint16_t port; /* where none is given */
} schemes[] = {
    { "socks5", UPSTREAM_SOCKS5, false, 1080 },    { "socks5h", UPSTREAM_SOCKS5, false, 1080 },
    { "socks5+tls", UPSTREAM_SOCKS5, true, 1080 }, { "socks4", UPSTREAM_SOCKS4, false, 1080 },
    { "socks4a", UPSTREAM_SOCKS4A, false, 1080 },  { "http", UPSTREAM_HTTP, false, 80 },
    { "https", UPSTREAM_HTTP, true, 443 },         { "masque", UPSTREAM_MASQUE, true, 443 },
};

/* Which kinds there are, and which ones are known by name only. */
static int parse_scheme(struct text *url, struct upstream_options *o, struct err *err)
{
    static const char *const later[] = { "socks5s", "ss",        "trojan", "vmess",
                                         "vless",   "hysteria2", "tuic",   "wireguard" };
    const char *colon = memmem(url->at, url->len, "://", 3);
    size_t len = colon ? (size_t)(colon - url->at) : 0;

    if (len == 0 || len > 16)
        return err_set(err, -EINVAL,
                       "a proxy is written socks5://HOST:PORT or socks5://USER:PASSWORD@HOST:PORT");
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
        if (strlen(schemes[i].name) != len || strncasecmp(url->at, schemes[i].name, len) != 0)
            continue;
#ifndef WITH_MASQUE
        if (schemes[i].kind == UPSTREAM_MASQUE)
            return err_set(err, -EINVAL, "masque:// is not in this build of the program (WITH_MASQUE=OFF)");
#endif
        o->kind = schemes[i].kind;
        o->secure = schemes[i].secure;
        o->server.port = schemes[i].port;
        *url = (struct text){ colon + 3, url->len - len - 3 };
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(later); i++) {
        if (strlen(later[i]) == len && strncasecmp(url->at, later[i], len) == 0)
            return err_set(err, -EINVAL,
                           "%s:// is not supported yet; socks5://, socks5+tls://, http:// and https:// are",
                           later[i]);
    }
    return err_set(err, -EINVAL, "\"%.*s://\" is no kind of proxy that we know; write socks5:// or http://",
                   (int)len, url->at);
}

/* SOCKS4 has a user name that is no secret, and no password. */
static int parse_user(struct text login, struct store *store, struct upstream_options *o, struct err *err)
{
    int r;

    if (memchr(login.at, ':', login.len))
        return err_set(err, -EINVAL, "SOCKS4 has no password; write USER@, or socks5://");
    r = decode(store, login, "user name", &o->username, err);
    if (r == 0 && (o->username[0] == '\0' || strlen(o->username) > SECRET_MAX))
        return err_set(err, -EINVAL, "the user name must have 1 to 255 bytes");
    return r;
}

static int parse_login(struct text login, struct store *store, struct upstream_options *o, struct err *err)
{
    struct text password;
    int r;

    if (o->kind == UPSTREAM_SOCKS4 || o->kind == UPSTREAM_SOCKS4A)
        return parse_user(login, store, o, err);
    password = cut(&login, ':', false);
    if (!password.at)
        return err_set(err, -EINVAL, "the URL has a user name without a password; write USER:PASSWORD@");
    if ((r = decode(store, login, "user name", &o->username, err)) != 0 ||
        (r = decode(store, password, "password", &o->password, err)) != 0)
        return r;
    if (o->username[0] == '\0' || strlen(o->username) > SECRET_MAX)
        return err_set(err, -EINVAL, "the user name must have 1 to 255 bytes (RFC 1929)");
    if (o->password[0] == '\0' || strlen(o->password) > SECRET_MAX)
        return err_set(err, -EINVAL, "the password must have 1 to 255 bytes (RFC 1929)");
    return 0;
}

static int parse_port(struct text port, uint16_t *out, struct err *err)
{
    uint32_t n = 0;

    for (size_t i = 0; i < port.len; i++) {
        if (port.at[i] < '0' || port.at[i] > '9' || n > 65535)
            return err_set(
                err, -EINVAL, /* not quoted: with a forgotten "@HOST" it is the password */
                "what follows the last colon is no port from 1 to 65535; write [USER:PASSWORD@]HOST:PORT");
        n = n * 10 + (uint32_t)(port.at[i] - '0');
    }
    if (n == 0 || n > 65535)
        return err_set(err, -EINVAL, "the port must be a number from 1 to 65535");
    *out = (uint16_t)n;
    return 0;
}

/* "[v6]:port", "v4:port" or "name:port"; the port may be left out. */
static int parse_server(struct text server, struct store *store, struct upstream_options *o, struct err *err)
{
    struct text port = { 0 };
    const char *host;
    char name[256];
    int r;

    if (server.len > 0 && server.at[0] == '[') {
        struct text behind = cut(&server, ']', false);

        if (!behind.at || (behind.len > 0 && behind.at[0] != ':'))
            return err_set(err, -EINVAL,
                           "an IPv6 address is written in brackets, as in socks5://[2001:db8::1]:1080");
        port = behind.len > 0 ? (struct text){ behind.at + 1, behind.len - 1 } : port;
        server = (struct text){ server.at + 1, server.len - 1 };
    } else {
        port = cut(&server, ':', false);
    }
    if (port.at && memchr(port.at, ':', port.len))
        return err_set(err, -EINVAL,
                       "an IPv6 address is written in brackets, as in socks5://[2001:db8::1]:1080");
    if ((port.at && (r = parse_port(port, &o->server.port, err)) != 0) ||
        (r = decode(store, server, "host", &host, err)) != 0)
        return r;
    if (ip_parse(host, &o->server.addr) == 0)
        return 0;
    if (host_name_normalise(host, strlen(host), name) != 0)
        return err_set(err, -EINVAL,
                       host[0] ? "the host of the URL is neither an address nor a host name"
                               : "the URL names no host; write socks5://HOST:PORT");
    return decode(store, (struct text){ name, strlen(name) }, "host", &o->server.name, err);
}

int upstream_parse_url(const char *url, char storage[1024], struct upstream_options *out, struct err *err)
{
    struct store store = { storage, STORAGE_BYTES };
    struct upstream_options o = { .udp = UPSTREAM_UDP_AUTO, .pipelining = UPSTREAM_PIPELINING_AUTO };
    struct text rest = { url, strlen(url) }, fragment, server, shown;
    int r = parse_scheme(&rest, &o, err);

    if (r != 0)
        return r;
    fragment = cut(&rest, '#', false);
    if (rest.len > 0 && rest.at[rest.len - 1] == '/')
        rest.len--;
    server = cut(&rest, '@', true);
    shown = server = server.at ? server : rest;
    if (memchr(server.at, '/', server.len) || memchr(server.at, '?', server.len))
        return err_set(err, -EINVAL, "nothing may follow the port of a proxy's URL but #NAME");
    if (server.at != rest.at && (r = parse_login(rest, &store, &o, err)) != 0)
        return r;
    if ((r = parse_server(server, &store, &o, err)) != 0 ||
        (r = decode(&store, fragment.len > 0 ? fragment : shown, "name", &o.name, err)) != 0)
        return r;
    *out = o;
    return 0;
}

/* ---- addresses of files ----------------------------------------------------------------------------------------------- */

void up_http_url_settle(struct up_http_url *url)
{
    url->at.name = ip_is_none(&url->at.addr) ? url->host : NULL;
}

/* "name:port", "1.2.3.4" or "[v6]:port", @len bytes. */
static bool parse_authority(const char *text, size_t len, struct up_http_url *out)
{
    const char *end = text + len, *colon;
    size_t host_len;
    char raw[256];
    uint32_t port = 0;

    if (text[0] == '[') {
        colon = memchr(text, ']', len);
        if (colon == NULL)
            return false;
        host_len = (size_t)(colon - ++text);
        colon++;
    } else {
        colon = memchr(text, ':', len);
        colon = colon != NULL ? colon : end;
        host_len = (size_t)(colon - text);
    }
    if (host_len == 0 || host_len >= sizeof(raw))
        return false;
    memcpy(raw, text, host_len);
    raw[host_len] = '\0';
    if (ip_parse(raw, &out->at.addr) == 0)
        ip_text(&out->at.addr, out->host);
    else if (text[-1] == '[' || host_name_normalise(raw, host_len, out->host) != 0)
        return false;
    if (colon == end)
        return true;
    if (*colon != ':' || colon + 1 == end || end - colon > 6)
        return false;
    for (const char *d = colon + 1; d < end; d++) {
        if (*d < '0' || *d > '9')
            return false;
        port = port * 10 + (uint32_t)(*d - '0');
    }
    out->at.port = (uint16_t)port;
    return port >= 1 && port <= 65535;
}

int up_http_url_parse(const char *url, struct up_http_url *out)
{
    size_t scheme = strncmp(url, "https://", 8) == 0 ? 8 : strncmp(url, "http://", 7) == 0 ? 7 : 0;
    size_t authority = strcspn(url + scheme, "/?#"), path;
    const char *rest = url + scheme + authority;

    for (const char *c = url; *c != '\0'; c++) {
        if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f) /* a line end would end the request, too */
            return -EINVAL;
    }
    path = strcspn(rest, "#");
    if (scheme == 0 || path + 1 >= sizeof(out->path) || memchr(url + scheme, '@', authority) != NULL)
        return -EINVAL;
    memset(out, 0, sizeof(*out));
    out->secure = scheme == 8;
    out->at.port = out->secure ? 443 : 80;
    snprintf(out->path, sizeof(out->path), "%s%.*s", *rest == '/' ? "" : "/", (int)path, rest);
    if (!parse_authority(url + scheme, authority, out))
        return -EINVAL;
    up_http_url_settle(out);
    return 0;
}
