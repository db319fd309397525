/* http_client.c - what a client of an HTTP proxy says and expects: CONNECT (RFC 9110 section 9.3.6, RFC 9112 section 3.2.3).
 *
 * How it works
 *     REQUEST --CONNECT--> STATUS --line--> HEADERS --empty line--> OPEN, FAILED, or STATUS again after a 1xx
 * Lines end with CR LF or a bare LF (RFC 9112 section 2.2). Of each line only the beginning is kept, for a status or one of
 * three headers; the rest is counted. Content-Length and Transfer-Encoding of a 2xx mean nothing (RFC 9110 section 9.3.6):
 * the byte behind the empty line is the target's.
 *
 * Limits (faults.md S12): all heads together 8 KiB and 100 headers. Left out: Digest and NTLM logins. */
#include "talk.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { LOGIN_TEXT_MAX = 255 + 1 + 255 };

void http_init(struct http_connect *s, const struct socks5_login *login, const struct host_port *target)
{
    *s = (struct http_connect){ .state = HTTP_REQUEST, .login = login };
    if (target)
        s->target = *target;
}

static bool has_login(const struct http_connect *s)
{
    return s->login && s->login->username;
}

static enum talk_step failed(struct http_connect *s, bool proxy_fault)
{
    s->state = HTTP_FAILED;
    s->failure.proxy_fault = proxy_fault;
    return TALK_BROKEN;
}

/* ---- what we say ---- */

static void put_text(struct buf *out, const char *text)
{
    buf_put(out, text, strlen(text));
}

/* RFC 4648 section 4. */
static void put_base64(struct buf *out, const uint8_t *data, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < len; i += 3) {
        uint32_t v = (uint32_t)data[i] << 16 | (i + 1 < len ? (uint32_t)data[i + 1] << 8 : 0) |
                     (i + 2 < len ? data[i + 2] : 0);

        for (size_t k = 0; k < 4; k++)
            buf_u8(out, i + k <= len ? (uint8_t)digits[v >> (18 - 6 * k) & 63] : '=');
    }
}

/* "name:port", "1.2.3.4:port" or "[v6]:port" (RFC 9112 section 3.2.3, authority-form). */
void http_authority(const struct host_port *to, char out[HTTP_AUTHORITY_MAX])
{
    char text[IP_PORT_TEXT_MAX];

    if (to->name)
        snprintf(out, HTTP_AUTHORITY_MAX, "%.255s:%u", to->name, to->port);
    else
        snprintf(out, HTTP_AUTHORITY_MAX, "%s", ip_port_text(&(struct ip_port){ to->addr, to->port }, text));
}

void http_put_basic(struct buf *out, const struct socks5_login *login)
{
    char text[LOGIN_TEXT_MAX + 1];
    int n = snprintf(text, sizeof(text), "%s:%s", login->username, login->password);

    put_text(out, "Basic ");
    put_base64(out, (const uint8_t *)text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
    explicit_bzero(text, sizeof(text));
}

/* A test of a group: any status will do (RFC 9110 section 9.3.2). */
static void put_head(const struct http_connect *s, struct buf *out)
{
    char to[HTTP_AUTHORITY_MAX];

    http_authority(&s->target, to);
    put_text(out, "HEAD ");
    put_text(out, s->head_path);
    put_text(out, " HTTP/1.1\r\nHost: ");
    put_text(out, to);
    put_text(out, "\r\nUser-Agent: culvert\r\nConnection: close\r\n\r\n");
}

static void put_request(const struct http_connect *s, struct buf *out)
{
    char to[HTTP_AUTHORITY_MAX];

    http_authority(&s->target, to);
    put_text(out, "CONNECT ");
    put_text(out, to);
    put_text(out, " HTTP/1.1\r\nHost: ");
    put_text(out, to);
    put_text(out, "\r\n");
    if (has_login(s)) {
        put_text(out, "Proxy-Authorization: ");
        http_put_basic(out, s->login);
        put_text(out, "\r\n");
    }
    put_text(out, "\r\n");
}

/* ---- what we hear ---- */

/* A first byte that is not ours tells what listens there (faults.md S5). */
static enum talk_step stranger(struct http_connect *s, uint8_t byte)
{
    static const struct {
        uint8_t byte;
        const char *is;
    } known[] = {
        { 0x05, "speaks SOCKS5, not HTTP: set type: socks5" },
        { 0x00, "speaks SOCKS4, not HTTP: set type: socks4" },
        { 0x15, "wants TLS: set tls, or use its port without TLS" },
        { 0x16, "wants TLS: set tls, or use its port without TLS" },
        { 'S', "is an SSH server, not HTTP" },
        { '<', "answers as HTTP/0.9, without a status: is it a proxy?" },
    };
    const char *is = NULL;

    for (size_t i = 0; i < ARRAY_LEN(known) && !is; i++)
        is = known[i].byte == byte ? known[i].is : NULL;
    if (is)
        talk_fail(&s->failure, -EHOSTUNREACH, "%s", is);
    else
        talk_fail(&s->failure, -EHOSTUNREACH, "does not speak HTTP: its answer begins with the byte 0x%02x",
                  byte);
    return failed(s, true);
}

/* "HTTP/1.1 200 anything" (RFC 9112 section 4). */
static bool parse_status(const char *line, uint16_t *out)
{
    const char *d = line + 9;

    if (strncmp(line, "HTTP/1.", 7) != 0 || (line[7] != '0' && line[7] != '1') || line[8] != ' ')
        return false;
    for (int i = 0; i < 3; i++) {
        if (d[i] < '0' || d[i] > '9')
            return false;
    }
    if (d[3] != '\0' && d[3] != ' ')
        return false;
    *out = (uint16_t)((d[0] - '0') * 100 + (d[1] - '0') * 10 + (d[2] - '0'));
    return *out >= 100;
}

/* What a proxy says of the target: RFC 9209 section 2.3 (Proxy-Status), and squid's errno in X-Squid-Error. */
static int hint_of(const char *line)
{
    static const struct {
        const char *header, *text;
        int err;
    } hints[] = {
        { "Proxy-Status:", "error=connection_refused", -ECONNREFUSED },
        { "Proxy-Status:", "error=connection_timeout", -ETIMEDOUT },
        { "Proxy-Status:", "error=destination_ip_unroutable", -ENETUNREACH },
        { "Proxy-Status:", "error=destination_ip_prohibited", -EACCES },
        { "X-Squid-Error:", "ERR_CONNECT_FAIL 111", -ECONNREFUSED },
        { "X-Squid-Error:", "ERR_CONNECT_FAIL 110", -ETIMEDOUT },
        { "X-Squid-Error:", "ERR_CONNECT_FAIL 101", -ENETUNREACH },
        { "X-Squid-Error:", "ERR_ACCESS_DENIED", -EACCES },
    };

    for (size_t i = 0; i < ARRAY_LEN(hints); i++) {
        if (strncasecmp(line, hints[i].header, strlen(hints[i].header)) == 0 && strstr(line, hints[i].text))
            return hints[i].err;
    }
    return 0;
}

static void on_header(struct http_connect *s)
{
    static const char basic[] = "Proxy-Authenticate: Basic";

    if (s->hint == 0)
        s->hint = hint_of(s->line);
    if (strncasecmp(s->line, basic, sizeof(basic) - 1) == 0)
        s->basic = true;
}

static enum talk_step refused_login(struct http_connect *s)
{
    const char *why = s->status == 401 ? "asks for a login as a web server does (401): is it a proxy?"
                      : !s->basic      ? "wants a login of a kind that we do not have (407); Basic would work"
                      : has_login(s)   ? "refused the login (407): check username and password"
                                       : "wants a login (407): set username and password";

    talk_fail(&s->failure, -EHOSTUNREACH, "%s", why);
    s->failure.login_fault = true;
    return failed(s, true);
}

/* The proxy is well and the target is not. */
static enum talk_step refused_target(struct http_connect *s)
{
    static const struct {
        int err;
        const char *text;
    } texts[] = {
        { -ECONNREFUSED, "says that the target refused the connection" },
        { -ETIMEDOUT, "says that the target did not answer in time" },
        { -ENETUNREACH, "says that the target's network is unreachable" },
        { -EACCES, "does not allow this target" },
        { -EHOSTUNREACH, "could not reach the target" },
    };
    int err = s->status == 403   ? -EACCES
              : s->hint != 0     ? s->hint
              : s->status == 504 ? -ETIMEDOUT
                                 : -EHOSTUNREACH;

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (texts[i].err == err)
            talk_fail(&s->failure, err, "%s (%u)", texts[i].text, s->status);
    }
    return failed(s, false);
}

static enum talk_step on_head(struct http_connect *s)
{
    if (s->status >= 200 && s->status <= 299) {
        s->state = HTTP_OPEN;
        return TALK_AGAIN;
    }
    if (s->status < 200 && s->status != 101) { /* an interim answer: the next one counts */
        s->state = HTTP_STATUS;
        return TALK_AGAIN;
    }
    switch (s->status) {
    case 401:
    case 407:
        return refused_login(s);
    case 403:
    case 502:
    case 503:
    case 504:
        return refused_target(s);
    case 400:
    case 404:
    case 405:
    case 501:
        talk_fail(&s->failure, -EHOSTUNREACH, "does not take CONNECT (%u): is it a proxy?", s->status);
        return failed(s, true);
    default: /* a number of theirs */
        talk_fail(&s->failure, -EHOSTUNREACH, "answered CONNECT with status %u", s->status);
        return failed(s, true);
    }
}

bool http_answer(const struct socks5_login *login, unsigned status, const char *proxy_status,
                 const char *authenticate, struct talk_failure *failure)
{
    struct http_connect s = { .state = HTTP_HEADERS, .login = login, .status = (uint16_t)status };

    snprintf(s.line, sizeof(s.line), "Proxy-Status: %s", proxy_status ? proxy_status : "");
    on_header(&s);
    snprintf(s.line, sizeof(s.line), "Proxy-Authenticate: %s", authenticate ? authenticate : "");
    on_header(&s);
    on_head(&s);
    *failure = s.failure;
    return s.state == HTTP_OPEN;
}

/* s->line is complete, without its end. */
static enum talk_step on_line(struct http_connect *s)
{
    s->line[s->line_len] = '\0';
    if (s->line_len > 0 && s->line[s->line_len - 1] == '\r')
        s->line[--s->line_len] = '\0';
    if (s->state == HTTP_STATUS) {
        if (!parse_status(s->line, &s->status)) {
            talk_fail(&s->failure, -EHOSTUNREACH, "does not speak HTTP/1.1: its answer has no status");
            return failed(s, true);
        }
        s->state = s->head_path ? HTTP_OPEN : HTTP_HEADERS;
        return TALK_AGAIN;
    }
    if (s->line_len == 0)
        return on_head(s);
    if (++s->headers > HTTP_HEADERS_MAX) {
        talk_fail(&s->failure, -EHOSTUNREACH, "answered with more than %d headers", HTTP_HEADERS_MAX);
        return failed(s, true);
    }
    on_header(s);
    return TALK_AGAIN;
}

static enum talk_step on_byte(struct http_connect *s, uint8_t byte)
{
    enum talk_step step;

    if (s->total == 0 && byte != 'H')
        return stranger(s, byte);
    if (++s->total > HTTP_HEAD_MAX) {
        talk_fail(&s->failure, -EHOSTUNREACH, "answered with more than %d bytes of headers", HTTP_HEAD_MAX);
        return failed(s, true);
    }
    if (byte != '\n') {
        if (s->line_len < sizeof(s->line) - 1)
            s->line[s->line_len++] = (char)byte;
        return TALK_NEED_INPUT;
    }
    step = on_line(s);
    s->line_len = 0;
    return step;
}

enum talk_step http_step(struct http_connect *s, struct span *in, struct buf *out)
{
    enum talk_step step = TALK_NEED_INPUT;

    switch (s->state) {
    case HTTP_REQUEST:
        if (s->head_path)
            put_head(s, out);
        else
            put_request(s, out);
        s->state = HTTP_STATUS;
        return TALK_AGAIN;
    case HTTP_STATUS:
    case HTTP_HEADERS:
        while (in->len > 0 && step == TALK_NEED_INPUT) {
            uint8_t byte = in->data[0];

            span_skip(in, 1);
            step = on_byte(s, byte);
        }
        return step;
    case HTTP_OPEN:
        return TALK_DONE;
    case HTTP_FAILED:
        return TALK_BROKEN;
    }
    return TALK_BROKEN;
}

void http_gone(struct http_connect *s, bool reset)
{
    talk_fail(&s->failure, -EHOSTUNREACH, "%s the connection instead of answering the request",
              reset ? "reset" : "closed");
    failed(s, true);
}
