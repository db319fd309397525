/* https.c - questions over HTTPS (RFC 8484), on the connections of stream.c.
 *
 * Each question is a GET of its own stream: the message is in the path, so no body is sent, and its id is 0 (section 4.1). All go
 * over one HTTP/2 connection at the same time; what it has no room for waits for a stream that ends. A stream that was refused
 * (REFUSED_STREAM, GOAWAY) is asked for once more, on another connection if this one takes no more (faults.md D13). What caches on
 * the way have kept for some time has aged: the TTLs are less by that (section 5.1).
 *
 * Not here: POST, which no cache can answer; padding (RFC 8467): lengths tell names apart. */
#include "service_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "culvert/h2.h"

#define HTTPS_PORT    443
#define RECEIVE_BYTES 131072
#define SEND_BYTES    65536
#define STREAMS_MAX   100 /* RFC 9113 section 6.5.2 recommends servers no less */
#define BODY_FIRST    2048
#define BODY_MAX      65535
#define MEDIA_TYPE    "application/dns-message"

/* ---- the request ---- */

/* RFC 4648 section 5, without padding (RFC 8484 section 6). @out: room for 4 bytes of each 3 begun, and the end. */
static void put_base64url(const uint8_t *in, size_t len, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint32_t bits = 0;
    unsigned held = 0;

    for (size_t i = 0; i < len; i++) {
        bits = bits << 8 | in[i];
        for (held += 8; held >= 6; held -= 6)
            *out++ = digits[bits >> (held - 6) & 63];
    }
    if (held > 0)
        *out++ = digits[bits << (6 - held) & 63];
    *out = '\0';
}

static void put_authority(const struct host_port *at, char *out, size_t size)
{
    char text[IP_TEXT_MAX];
    const char *host = at->name != NULL ? at->name : ip_text(&at->addr, text);
    bool v6 = at->name == NULL && !ip_is4(&at->addr);
    int n = snprintf(out, size, v6 ? "[%s]" : "%s", host);

    if (at->port != HTTPS_PORT && n > 0 && (size_t)n < size)
        snprintf(out + n, size - (size_t)n, ":%u", at->port);
}

/* ---- the response ---- */

static void forget(struct dns_try *t)
{
    free(t->body);
    t->body = NULL;
    t->body_len = t->body_cap = 0;
}

void https_leave(struct dns_try *t)
{
    h2_stream_close(t->request, H2_CANCEL);
    t->request = NULL;
    forget(t);
}

static void fail(struct dns_try *t)
{
    stream_leave(t);
    try_failed(t);
}

static bool is_message(const struct h2_head *head)
{
    const char *type = h2_field(head, "content-type");
    size_t len = strlen(MEDIA_TYPE);

    return head->status == 200 && type != NULL && strncasecmp(type, MEDIA_TYPE, len) == 0 &&
           (type[len] == '\0' || type[len] == ';' || type[len] == ' ');
}

static void on_response(void *arg, const struct h2_head *head)
{
    struct dns_try *t = arg;
    const char *age = h2_field(head, "age");

    stream_heard(t->conn);
    t->age_s = age != NULL ? (uint32_t)strtoul(age, NULL, 10) : 0;
    if (is_message(head))
        return;
    DCOUNT(t->job->s, refused);
    fail(t);
}

/* Return: false: no memory, or longer than a message can be. */
static bool take(struct dns_try *t, const uint8_t *data, size_t len)
{
    size_t cap = t->body_len + len <= BODY_FIRST ? BODY_FIRST : BODY_MAX;
    uint8_t *bytes = t->body;

    if (t->body_len + len > BODY_MAX)
        return false;
    if (cap > t->body_cap && (bytes = realloc(t->body, cap)) == NULL)
        return false;
    t->body = bytes;
    t->body_cap = cap > t->body_cap ? cap : t->body_cap;
    memcpy(bytes + t->body_len, data, len);
    t->body_len += len;
    return true;
}

/* All of it is here. The message outlives the try's leave, and the try may be over while it is read. */
static void whole(struct dns_try *t)
{
    uint8_t *body = t->body;
    size_t len = t->body_len;

    t->body = NULL;
    stream_leave(t);
    try_message(t, body, len);
    free(body);
}

static void on_readable(void *arg)
{
    struct dns_try *t = arg;
    uint8_t data[4096];
    ssize_t n;

    stream_heard(t->conn);
    while ((n = h2_recv(t->request, data, sizeof(data))) > 0) {
        if (!take(t, data, (size_t)n)) {
            DCOUNT(t->job->s, bad_answers);
            fail(t);
            return;
        }
    }
    if (n == 0)
        whole(t);
}

/* With the whole connection its tries go where stream_end() sends them. */
static void on_closed(void *arg, int err, uint32_t code)
{
    struct dns_try *t = arg;
    struct dns_conn *c = t->conn;

    (void)code;
    t->request = NULL;
    forget(t);
    if (h2_why(c->h2)[0] != '\0')
        return;
    stream_leave(t);
    if (err == -EAGAIN && !t->repeated && stream_ask(t) == 0) {
        t->repeated = true;
        DCOUNT(t->job->s, repeated);
        return;
    }
    try_failed(t);
}

static const struct h2_stream_events request_events = { on_response, on_readable, NULL, on_closed };

/* ---- asking ---- */

static int request(struct dns_conn *c, struct dns_try *t)
{
    static const struct h2_field accept = { "accept", MEDIA_TYPE };
    const char *path = c->server->path;
    char message[(SERVICE_QUERY_MAX + 2) / 3 * 4 + 1], target[1024], authority[300];
    struct h2_head head = { .method = "GET",
                            .scheme = "https",
                            .authority = authority,
                            .path = target,
                            .fields = &accept,
                            .field_count = 1,
                            .end = true };

    put_authority(&c->server->at, authority, sizeof(authority));
    put_base64url(t->query + 2, t->query_len - 2, message);
    snprintf(target, sizeof(target), "%s%cdns=%s", path, strchr(path, '?') != NULL ? '&' : '?', message);
    return h2_request(c->h2, &head, &request_events, t, &t->request);
}

void https_ask_waiting(struct dns_conn *c)
{
    struct dns_try *t = c->tries;

    while (t != NULL && !c->leaving && h2_can_open(c->h2)) {
        if (t->request == NULL && request(c, t) != 0)
            return;
        t = t->conn_next;
    }
}

/* ---- the connection ---- */

static void on_drain(void *arg)
{
    struct dns_conn *c = arg;

    c->leaving = true;
}

static void on_over(void *arg, int err, const char *why)
{
    (void)err;
    (void)why; /* as with other streams: the next server, or a failure, is what is told */
    stream_end(arg);
}

static const struct h2_events connection_events = { .on_drain = on_drain, .on_closed = on_over };

static void want(void *below, unsigned events)
{
    struct dns_conn *c = below;

    if (c->up != NULL)
        up_stream_want(c->up, events);
}

bool https_start(struct dns_conn *c)
{
    struct h2_options opt = { .loop = c->s->loop,
                              .wheel = c->s->wheel,
                              .fd = -1,
                              .tls = c->tls,
                              .below = c,
                              .want = want,
                              .max_streams = STREAMS_MAX,
                              .receive_bytes = RECEIVE_BYTES,
                              .send_bytes = SEND_BYTES,
                              .events = &connection_events,
                              .arg = c };
    const char *alpn = tls_alpn(c->tls);

    if (alpn == NULL || strcmp(alpn, H2_ALPN) != 0 || h2_open(&opt, &c->h2) != 0)
        return false;
    https_ask_waiting(c);
    return true;
}
