/* http_reply.c - the answer to one GET (RFC 9112): status, headers, and a body by length, in chunks, or to the end.
 *
 * A pure step machine over foreign bytes. What would make two readers disagree about where the body ends is refused: two lengths,
 * a transfer coding beside `chunked`, folded headers. Compressed bodies were not asked for, and are refused. */
#include "http_reply.h"

#include <string.h>
#include <strings.h>

static enum talk_step broken(struct http_reply *r, const char *why)
{
    r->state = REPLY_FAILED;
    r->why = why;
    return TALK_BROKEN;
}

/* ---- headers ------------------------------------------------------------------------------------------------------------ */

/* "HTTP/1.1 200 anything" */
static bool parse_status(const char *line, uint16_t *out)
{
    unsigned n = 0;

    if (strncmp(line, "HTTP/1.", 7) != 0 || strspn(line + 7, "01") < 1 || line[8] != ' ')
        return false;
    for (int i = 9; i < 12; i++) {
        if (line[i] < '0' || line[i] > '9')
            return false;
        n = n * 10 + (unsigned)(line[i] - '0');
    }
    *out = (uint16_t)n;
    return n >= 100 && (line[12] == '\0' || line[12] == ' ');
}

/* The value behind "name:", without blanks around it; NULL: another header. */
static const char *value_of(char *line, const char *name)
{
    size_t len = strlen(name), end;
    char *v;

    if (strncasecmp(line, name, len) != 0 || line[len] != ':')
        return NULL;
    v = line + len + 1;
    v += strspn(v, " \t");
    end = strlen(v);
    while (end > 0 && (v[end - 1] == ' ' || v[end - 1] == '\t'))
        v[--end] = '\0';
    return v;
}

static bool parse_size(const char *text, unsigned base, uint64_t *out)
{
    uint64_t n = 0;
    size_t digits = 0;

    for (; *text != '\0' && *text != ';' && *text != ' '; text++, digits++) {
        int d = *text >= '0' && *text <= '9'   ? *text - '0'
                : *text >= 'a' && *text <= 'f' ? *text - 'a' + 10
                : *text >= 'A' && *text <= 'F' ? *text - 'A' + 10
                                               : 99;

        if (d >= (int)base || digits >= 15)
            return false;
        n = n * base + (unsigned)d;
    }
    *out = n;
    return digits > 0;
}

static void keep(char *to, size_t cap, const char *value)
{
    size_t len = strlen(value);

    to[0] = '\0';
    if (len < cap)
        memcpy(to, value, len + 1);
}

static enum talk_step on_length(struct http_reply *r, const char *value)
{
    uint64_t n;

    if (strspn(value, "0123456789") != strlen(value) || !parse_size(value, 10, &n) ||
        (r->has_length && n != r->left))
        return broken(r, "answers with a length that is none");
    r->has_length = true;
    r->left = n;
    return TALK_AGAIN;
}

static enum talk_step on_header(struct http_reply *r)
{
    const char *v;

    if (r->line[0] == ' ' || r->line[0] == '\t')
        return broken(r, "answers with a folded header");
    if ((v = value_of(r->line, "Content-Length")) != NULL)
        return on_length(r, v);
    if ((v = value_of(r->line, "Transfer-Encoding")) != NULL) {
        if (r->chunked || strcasecmp(v, "chunked") != 0)
            return broken(r, "answers in a transfer coding that is not chunked");
        r->chunked = true;
    } else if ((v = value_of(r->line, "Content-Encoding")) != NULL) {
        if (strcasecmp(v, "identity") != 0)
            return broken(r, "answers with a compressed body, which was not asked for");
    } else if ((v = value_of(r->line, "Location")) != NULL) {
        if (r->cut || strlen(v) >= sizeof(r->location))
            return broken(r, "redirects to an address that is too long");
        keep(r->location, sizeof(r->location), v);
    } else if ((v = value_of(r->line, "ETag")) != NULL && !r->cut) {
        keep(r->etag, sizeof(r->etag), v);
    } else if ((v = value_of(r->line, "Last-Modified")) != NULL && !r->cut) {
        keep(r->date, sizeof(r->date), v);
    }
    return TALK_AGAIN;
}

/* RFC 9112 section 6.3: what the body's end is. */
static enum talk_step on_head(struct http_reply *r)
{
    if (r->status == 101)
        return broken(r, "switches to another protocol, which was not asked for");
    if (r->status < 200) { /* an interim answer: the next one counts */
        *r = (struct http_reply){ .state = REPLY_STATUS, .total = r->total };
        return TALK_AGAIN;
    }
    if (r->status == 204 || r->status == 304 || (!r->chunked && r->has_length && r->left == 0))
        r->state = REPLY_DONE;
    else
        r->state = r->chunked ? REPLY_CHUNK_SIZE : r->has_length ? REPLY_LENGTH : REPLY_TO_END;
    return r->state == REPLY_DONE ? TALK_DONE : TALK_AGAIN;
}

/* ---- lines -------------------------------------------------------------------------------------------------------------- */

static enum talk_step on_line(struct http_reply *r)
{
    switch (r->state) {
    case REPLY_STATUS:
        if (!parse_status(r->line, &r->status))
            return broken(r, "does not answer in HTTP/1.1");
        r->state = REPLY_HEADERS;
        return TALK_AGAIN;
    case REPLY_HEADERS:
        return r->line[0] == '\0' ? on_head(r) : on_header(r);
    case REPLY_CHUNK_SIZE:
        if (r->cut || !parse_size(r->line, 16, &r->left))
            return broken(r, "answers with a chunk that has no size");
        r->state = r->left == 0 ? REPLY_TRAILERS : REPLY_CHUNK;
        return TALK_AGAIN;
    case REPLY_CHUNK_END:
        if (r->line[0] != '\0')
            return broken(r, "answers with a chunk that is longer than its size");
        r->state = REPLY_CHUNK_SIZE;
        return TALK_AGAIN;
    case REPLY_TRAILERS:
        if (r->line[0] == '\0')
            r->state = REPLY_DONE;
        return r->state == REPLY_DONE ? TALK_DONE : TALK_AGAIN;
    case REPLY_LENGTH:
    case REPLY_TO_END:
    case REPLY_CHUNK:
    case REPLY_DONE:
    case REPLY_FAILED:
        break;
    }
    return broken(r, "answers out of order");
}

/* Bytes up to the end of a line. */
static enum talk_step take_line(struct http_reply *r, struct span *in)
{
    bool head = r->state != REPLY_CHUNK_SIZE && r->state != REPLY_CHUNK_END;
    enum talk_step step;

    while (in->len > 0) {
        char c = (char)in->data[0];

        span_skip(in, 1);
        if (head && ++r->total > REPLY_HEAD_MAX)
            return broken(r, "answers with too many headers");
        if (c == '\n') {
            if (r->line_len > 0 && r->line[r->line_len - 1] == '\r')
                r->line_len--;
            r->line[r->line_len] = '\0';
            step = on_line(r);
            r->line_len = 0;
            r->cut = false;
            return step;
        }
        if (c == '\0')
            return broken(r, "answers with a zero byte among its headers");
        if (r->line_len < sizeof(r->line) - 1)
            r->line[r->line_len++] = c;
        else
            r->cut = true;
    }
    return TALK_NEED_INPUT;
}

/* ---- the body ------------------------------------------------------------------------------------------------------------- */

static enum talk_step take_body(struct http_reply *r, struct span *in, struct span *body)
{
    size_t n = r->state != REPLY_TO_END && r->left < in->len ? (size_t)r->left : in->len;

    if (n == 0)
        return TALK_NEED_INPUT;
    *body = (struct span){ in->data, n };
    span_skip(in, n);
    if (r->state == REPLY_TO_END)
        return TALK_AGAIN;
    r->left -= n;
    if (r->left == 0)
        r->state = r->state == REPLY_LENGTH ? REPLY_DONE : REPLY_CHUNK_END;
    return TALK_AGAIN;
}

enum talk_step http_reply_step(struct http_reply *r, struct span *in, struct span *body)
{
    *body = (struct span){ 0 };
    switch (r->state) {
    case REPLY_STATUS:
    case REPLY_HEADERS:
    case REPLY_CHUNK_SIZE:
    case REPLY_CHUNK_END:
    case REPLY_TRAILERS:
        return take_line(r, in);
    case REPLY_LENGTH:
    case REPLY_TO_END:
    case REPLY_CHUNK:
        return take_body(r, in, body);
    case REPLY_DONE:
        return TALK_DONE;
    case REPLY_FAILED:
        break;
    }
    return TALK_BROKEN;
}

enum talk_step http_reply_end(struct http_reply *r)
{
    if (r->state == REPLY_TO_END)
        r->state = REPLY_DONE;
    if (r->state == REPLY_DONE)
        return TALK_DONE;
    return r->state == REPLY_FAILED ? TALK_BROKEN : broken(r, "ended in the middle of its answer");
}
