/* h2_rig.h - two ends of an HTTP/2 connection on one loop, joined by a socket pair, and what their owners were told. */
#ifndef CULVERT_TEST_H2_RIG_H
#define CULVERT_TEST_H2_RIG_H

#include "culvert/h2.h"
#include "up_rig.h"

enum { SIDE_STREAMS = 64 };

struct h2_side;
struct stream_side { /* one end of a stream */
    struct h2_side *side;
    struct h2_stream *s;
    unsigned status; /* of the response */
    char path[128], protocol[32], authority[64], login[64];
    bool hold; /* does not read by itself */
    bool ended, closed, writable;
    int err;
    uint32_t code;
    size_t got;    /* bytes read */
    char in[256];  /* the first of them */
    bool capsules; /* reads capsules instead of bytes: the number of datagrams, and the last one */
    unsigned datagrams;
    size_t last_len;
    uint8_t last[64];
    size_t bulk_at; /* of the peer's first stream, when the first datagram came */
    int bad;
};
struct h2_side {
    struct h2 *h;
    int fd;
    bool settings, drained, over, refuse, hold;
    int err;
    char why[200];
    unsigned pongs;
    unsigned requests;
    size_t n;
    struct stream_side streams[SIDE_STREAMS];
    struct h2_head answer; /* server: to every request; status 0: none yet */
};
struct h2_rig {
    struct up_rig rig;
    struct h2_side client, server;
};
void h2_rig_init(struct h2_rig *r);                  /* both ends open */
void h2_rig_init_raw(struct h2_rig *r, bool server); /* only one end; the other's descriptor is the test's */
void h2_rig_fini(struct h2_rig *r);
extern const struct h2_events h2_side_events;
extern const struct h2_stream_events h2_stream_log;
/* A CONNECT, with :protocol and :path unless NULL */
struct stream_side *h2_ask(struct h2_rig *r, const char *authority, const char *protocol, const char *path);
size_t h2_put(struct stream_side *s, const void *data, size_t len); /* what goes */
bool h2_answered(void *stream_side);
bool h2_was_closed(void *stream_side);
bool h2_has_ended(void *stream_side);
bool h2_side_over(void *h2_side);

#endif
