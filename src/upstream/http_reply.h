/* http_reply.h - the answer to one GET, as bytes come (http_reply.c). */
#ifndef CULVERT_UPSTREAM_HTTP_REPLY_H
#define CULVERT_UPSTREAM_HTTP_REPLY_H

#include "talk.h"

enum http_reply_state {
    REPLY_STATUS,
    REPLY_HEADERS,
    REPLY_LENGTH, /* a body of `left` bytes */
    REPLY_TO_END, /* a body that the connection's end ends */
    REPLY_CHUNK_SIZE,
    REPLY_CHUNK,
    REPLY_CHUNK_END,
    REPLY_TRAILERS,
    REPLY_DONE,
    REPLY_FAILED,
};
enum { REPLY_LINE_MAX = 2200, REPLY_HEAD_MAX = 32768, REPLY_VALUE_MAX = 2048, REPLY_TAG_MAX = 128 };

struct http_reply {
    enum http_reply_state state;
    uint16_t status;
    uint16_t line_len;
    uint32_t total; /* bytes of head and trailers */
    bool cut;       /* the line under way did not fit */
    bool chunked, has_length;
    uint64_t left;
    char line[REPLY_LINE_MAX];
    char location[REPLY_VALUE_MAX];                /* "": none */
    char etag[REPLY_TAG_MAX], date[REPLY_TAG_MAX]; /* ETag and Last-Modified; "": none, or too long to keep */
    const char *why;                               /* after TALK_BROKEN: follows the address; static */
};

/** http_reply_step() - takes bytes from @in
 * @body: TALK_AGAIN: the next piece, borrowed from @in, perhaps empty; otherwise empty
 * Return: TALK_DONE: the answer is whole; TALK_NEED_INPUT: all of @in was taken; TALK_BROKEN: see why. */
enum talk_step http_reply_step(struct http_reply *r, struct span *in, struct span *body);
/** http_reply_end() - the connection ended. Return: TALK_DONE if that ends the body, else TALK_BROKEN */
enum talk_step http_reply_end(struct http_reply *r);

#endif
