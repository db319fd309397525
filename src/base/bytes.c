/* bytes.c - the two views through which all foreign bytes are read and all of ours are written. */
#include "culvert/base.h"

#include <string.h>

bool span_u8(struct span *s, uint8_t *out)
{
    if (s->len < 1)
        return false;
    *out = s->data[0];
    span_skip(s, 1);
    return true;
}

bool span_u16(struct span *s, uint16_t *out)
{
    if (s->len < 2)
        return false;
    *out = get_be16(s->data);
    span_skip(s, 2);
    return true;
}

bool span_u32(struct span *s, uint32_t *out)
{
    if (s->len < 4)
        return false;
    *out = get_be32(s->data);
    span_skip(s, 4);
    return true;
}

bool span_bytes(struct span *s, size_t n, const uint8_t **out)
{
    if (s->len < n)
        return false;
    *out = s->data;
    if (n > 0) /* an empty span may be NULL, and NULL + 0 is undefined in C */
        span_skip(s, n);
    return true;
}

void buf_init(struct buf *b, void *memory, size_t cap)
{
    *b = (struct buf){ .data = memory, .cap = cap };
}

/* Room for @len bytes at the end, or NULL and the buffer is full from now on: later, shorter pieces must not slip in. */
static uint8_t *buf_extend(struct buf *b, size_t len)
{
    uint8_t *at;

    if (b->full || len > b->cap - b->len) {
        b->full = true;
        return NULL;
    }
    at = b->data + b->len;
    b->len += len;
    return at;
}

void buf_put(struct buf *b, const void *data, size_t len)
{
    uint8_t *at;

    if (len == 0)
        return;
    at = buf_extend(b, len);
    if (at != NULL)
        memcpy(at, data, len);
}

void buf_u8(struct buf *b, uint8_t v)
{
    uint8_t *at = buf_extend(b, 1);

    if (at != NULL)
        *at = v;
}

void buf_u16(struct buf *b, uint16_t v)
{
    uint8_t *at = buf_extend(b, 2);

    if (at != NULL)
        put_be16(at, v);
}

void buf_u32(struct buf *b, uint32_t v)
{
    uint8_t *at = buf_extend(b, 4);

    if (at != NULL)
        put_be32(at, v);
}
