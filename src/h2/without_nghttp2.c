/* without_nghttp2.c - in place of the files that open nghttp2, in a build with WITH_MASQUE=OFF: no connection of HTTP/2 can be opened,
 * so the functions that want one are never called with one. The loader has refused what would (WITH_MASQUE in src/config). */
#include <errno.h>

#include "culvert/h2.h"

const char *h2_field(const struct h2_head *head, const char *name)
{
    (void)head;
    (void)name;
    return NULL;
}

int h2_open(const struct h2_options *opt, struct h2 **out)
{
    (void)opt;
    (void)out;
    return -ENOTSUP;
}

void h2_close(struct h2 *h)
{
    (void)h;
}

void h2_turn(struct h2 *h, unsigned events)
{
    (void)h;
    (void)events;
}

void h2_drain(struct h2 *h)
{
    (void)h;
}

bool h2_can_open(const struct h2 *h)
{
    (void)h;
    return false;
}

bool h2_has_settings(const struct h2 *h)
{
    (void)h;
    return false;
}

bool h2_has_extended_connect(const struct h2 *h)
{
    (void)h;
    return false;
}

void h2_memory(const struct h2 *h, struct memory_use *add)
{
    (void)h;
    (void)add;
}

uint32_t h2_stream_count(const struct h2 *h)
{
    (void)h;
    return 0;
}

int h2_ping(struct h2 *h)
{
    (void)h;
    return -ENOTSUP;
}

const char *h2_why(const struct h2 *h)
{
    (void)h;
    return "";
}

uint64_t h2_heard_us(const struct h2 *h)
{
    (void)h;
    return 0;
}

const struct h2_counters *h2_counters(const struct h2 *h)
{
    static const struct h2_counters nothing;

    (void)h;
    return &nothing;
}

int h2_request(struct h2 *h, const struct h2_head *head, const struct h2_stream_events *events, void *arg,
               struct h2_stream **out)
{
    (void)h;
    (void)head;
    (void)events;
    (void)arg;
    (void)out;
    return -ENOTSUP;
}

void h2_accept(struct h2_stream *s, const struct h2_stream_events *events, void *arg)
{
    (void)s;
    (void)events;
    (void)arg;
}

void h2_hand_over(struct h2_stream *s, const struct h2_stream_events *events, void *arg)
{
    (void)s;
    (void)events;
    (void)arg;
}

int h2_respond(struct h2_stream *s, const struct h2_head *head)
{
    (void)s;
    (void)head;
    return -ENOTSUP;
}

ssize_t h2_recv(struct h2_stream *s, void *to, size_t len)
{
    (void)s;
    (void)to;
    (void)len;
    return -ENOTSUP;
}

ssize_t h2_sendv(struct h2_stream *s, const struct iovec *iov, int iovcnt)
{
    (void)s;
    (void)iov;
    (void)iovcnt;
    return -ENOTSUP;
}

void h2_want(struct h2_stream *s, unsigned events)
{
    (void)s;
    (void)events;
}

void h2_shutdown(struct h2_stream *s)
{
    (void)s;
}

bool h2_unsent(const struct h2_stream *s)
{
    (void)s;
    return false;
}

void h2_stream_linger(struct h2_stream *s)
{
    (void)s;
}

void h2_stream_close(struct h2_stream *s, enum h2_code code)
{
    (void)s;
    (void)code;
}

int h2_datagrams(struct h2_stream *s, const struct h2_datagram_options *opt)
{
    (void)s;
    (void)opt;
    return -ENOTSUP;
}

int h2_datagram_send(struct h2_stream *s, uint64_t context, const struct iovec *iov, int iovcnt,
                     uint64_t deadline_us)
{
    (void)s;
    (void)context;
    (void)iov;
    (void)iovcnt;
    (void)deadline_us;
    return -ENOTSUP;
}

void h2_cork(struct h2_stream *s)
{
    (void)s;
}

void h2_uncork(struct h2_stream *s)
{
    (void)s;
}

int h2_capsule_send(struct h2_stream *s, uint64_t type, const void *value, size_t len)
{
    (void)s;
    (void)type;
    (void)value;
    (void)len;
    return -ENOTSUP;
}

int h2_capsule_recv(struct h2_stream *s, void *memory, size_t cap, struct capsule *out)
{
    (void)s;
    (void)memory;
    (void)cap;
    (void)out;
    return -ENOTSUP;
}
