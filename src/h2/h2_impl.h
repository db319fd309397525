/* h2_impl.h - the inside of a connection; shared by the files of this folder.
 *
 * Who is who
 *     session.c   life of a connection, nghttp2's callbacks, PING, GOAWAY, floods
 *     io.c        the descriptor: reading, writing, and telling streams' owners
 *     stream.c    a stream as its owner sees it
 *     head.c      requests and responses: header fields both ways
 *     chain.c     bytes that wait, in blocks
 *     datagram.c  the queue of a stream for datagrams, and capsules from a stream
 *     capsule.c, masque.c   pure
 *
 * What always holds. nghttp2 may not be entered from its own callbacks, and owners may close anything from inside theirs. So
 * whatever reads, writes or tells runs between h2_enter() and h2_leave(); a connection that was closed or has ended inside is
 * freed by the last h2_leave(); and functions of owners only queue while somebody is inside. */
#ifndef CULVERT_H2_IMPL_H
#define CULVERT_H2_IMPL_H

#include <assert.h>
#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>

#include "culvert/h2.h"

enum {
    BLOCK_BYTES = 8192,
    /* a DATA frame that fills one TLS record (RFC 8446 section 5.1) with its head */
    FRAME_DATA_MAX = 16384 - 9,
    STREAM_WINDOW = 65535,                /* RFC 9113 section 6.9.2 */
    STREAM_WINDOW_DATAGRAMS = 128 * 1024, /* the longest capsule fits */
    STREAM_WINDOW_GROWN = 1024 * 1024,
    STREAM_SEND_MAX = 64 * 1024,
    STREAM_SEND_MIN = BLOCK_BYTES,
};

/* ---- bytes that wait (chain.c) ---- */

struct block {
    struct block *next;
    uint32_t off, len; /* what is left is data[off .. len) */
    uint8_t data[BLOCK_BYTES - 16];
};
struct chain {
    struct block *first, *last;
    size_t len;
};
struct h2_blocks { /* where they come from; a mapping of its own, touched on demand */
    struct slab slab;
    void *memory;
    size_t bytes;
};
int h2_blocks_init(struct h2_blocks *b, uint32_t limit); /* 0 or -ENOMEM */
void h2_blocks_fini(struct h2_blocks *b);
/** chain_put() - append a copy. Return: false when no block is left; a part may have been taken */
bool chain_put(struct h2_blocks *b, struct chain *c, const void *data, size_t len);
size_t chain_get(struct h2_blocks *b, struct chain *c, void *to, size_t len); /* @to NULL: skip */
size_t chain_peek(const struct chain *c, void *to, size_t len);
void chain_drop(struct h2_blocks *b, struct chain *c);

/* ---- streams ---- */

struct queue; /* datagram.c */

struct h2_stream {
    struct h2 *h;
    struct h2_stream *next, *prev;             /* of all */
    struct h2_stream *ready_next, *ready_prev; /* of those whose owner has something to hear */
    const struct h2_stream_events *events;
    void *arg;
    struct chain in, out;
    struct queue *queue; /* NULL: a stream of bytes */
    struct wheel_timer linger;
    uint64_t skip; /* bytes of a capsule that nobody wants */
    uint64_t grow_since_us;
    uint32_t window, grow_bytes; /* ours; taken since grow_since_us */
    int32_t id;
    uint32_t round;  /* of telling, in which it had its turn */
    uint32_t code;   /* with broken */
    int broken;      /* -errno to be told */
    uint8_t want;    /* LOOP_READ, LOOP_WRITE */
    bool is_ready;   /* in the list */
    bool owned;      /* somebody holds it */
    bool ended_in;   /* END_STREAM came */
    bool answered;   /* client: the final head came; server: it was sent */
    bool shut;       /* END_STREAM follows what is in out */
    bool ended_out;  /* it was written */
    bool deferred;   /* nghttp2 does not ask for data */
    bool has_source; /* nghttp2 knows where data comes from */
    bool over;       /* nghttp2 has forgotten it */
    bool reset;      /* our RST_STREAM is under way */
    bool told_end;   /* h2_recv() has said 0 */
};

/* ---- connections ---- */

struct head_text { /* the header block under way: they never interleave (RFC 9113 section 4.3) */
    char text[H2_HEAD_MAX];
    size_t len;
    struct h2_field fields[H2_FIELDS_MAX];
    struct h2_head head;
    bool too_large;
};

struct h2 {
    struct h2_options opt;
    nghttp2_session *ng;
    struct loop_io io;
    struct wheel_timer soon;  /* the next turn: bytes inside TLS, owners that have not heard all */
    struct wheel_timer quiet; /* keep-alive */
    size_t library_bytes;     /* that nghttp2 holds */
    struct slab slab;         /* streams */
    struct h2_blocks blocks;
    struct h2_stream *streams, *ready_first, *ready_last;
    struct h2_stream *running; /* being told; NULL when it was closed meanwhile */
    uint32_t round, depth;
    uint64_t heard_us, ping_us; /* ping_us 0: none under way */
    uint64_t rtt_us;
    size_t grown_bytes; /* of windows beyond their first size */
    uint32_t calm;      /* what a peer may still bother us with */
    uint64_t calm_us;
    int err; /* fatal: h2_leave() ends the connection */
    bool fatal, settings, draining, told_drain, finished, unread, urgent, closed;
    const uint8_t *frame; /* written by nghttp2, not yet sent */
    size_t frame_len, out_off, out_len;
    uint8_t out[16384]; /* small frames share a record */
    char why[160];
    struct head_text in_head;
    struct h2_counters cnt;
};

void h2_count_memory(struct h2 *h, nghttp2_mem *out); /* memory.c: what nghttp2 is to allocate by */
void h2_enter(struct h2 *h);
void h2_leave(struct h2 *h); /* @h may be gone afterwards */
void h2_fail(struct h2 *h, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/** h2_kick() - something was queued: write it now, or at the end of what is running. @h may be gone afterwards */
void h2_kick(struct h2 *h);
void h2_later(struct h2 *h); /* look again in the next turn */
void h2_on_quiet(struct wheel_timer *t, uint64_t now_us);

/* io.c */
void io_start(struct h2 *h);
void io_stop(struct h2 *h);
void io_write(struct h2 *h);
void io_goodbye(struct h2 *h); /* write what goes, and never mind */
void io_tell(struct h2 *h);    /* one round: every stream that is ready, once */
void io_low_water(struct h2 *h);

/* stream.c */
struct h2_stream *stream_new(struct h2 *h);
void stream_free(struct h2_stream *s);
void stream_ready(struct h2_stream *s); /* its owner shall be told what there is */
void stream_unready(struct h2_stream *s);
bool stream_has_news(const struct h2_stream *s);
void stream_break(struct h2_stream *s, int err, uint32_t code);
void stream_reset(struct h2_stream *s, enum h2_code code);
size_t stream_send_room(const struct h2_stream *s);
void stream_resume(struct h2_stream *s);
nghttp2_data_provider stream_source(struct h2_stream *s);
void stream_took(struct h2_stream *s, size_t n); /* open the window again */

/* head.c */
void head_begin(struct h2 *h);
void head_add(struct h2 *h, const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len);
enum { HEAD_NV_MAX = 8 + H2_FIELDS_MAX };
size_t head_nv(const struct h2_head *head, char status[4], nghttp2_nv *out); /* 0: too many */

/* datagram.c */
size_t queue_read(struct h2_stream *s, uint8_t *to, size_t len, uint64_t now_us);
bool queue_is_empty(const struct queue *q);
size_t queue_bytes(const struct queue *q); /* NULL is fine */
void queue_free(struct queue *q);

#endif
