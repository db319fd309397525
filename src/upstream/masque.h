/* masque.h - one HTTP/2 connection to a MASQUE server, shared by all that goes this way on this worker.
 *
 * Who is who
 *     masque       what this worker knows of one such upstream: its connection, its back-off, who waits (masque.c)
 *     tunnel       one connection; after a GOAWAY it drains while the next one is dialled
 *     masque_stream, masque_udp, echo lane   what runs in it (masque_stream.c, masque_udp.c, masque_echo.c)
 *     masque_wait  a place in the line for a connection */
#ifndef CULVERT_UPSTREAM_MASQUE_H
#define CULVERT_UPSTREAM_MASQUE_H

#include "culvert/h2.h"
#include "upstream_impl.h"

struct masque_echo;

struct tunnel {
    struct tunnel *next; /* of those that drain */
    struct masque *masque;
    struct h2 *h2;
    struct secure *secure;
    struct masque_stream *hop; /* it goes through another one's stream; NULL: by fd */
    int fd;
    uint32_t guard;
    uint32_t number; /* grows: which connection an answer came from */
};

/* Waiting ends in exactly one of the two, or in masque_leave(). */
struct masque_wait {
    struct masque_wait *next, *prev;
    void (*ready)(struct masque_wait *w, struct tunnel *t);
    void (*failed)(struct masque_wait *w, const struct up_failure *why);
    bool extended; /* wants their SETTINGS first: extended CONNECT */
    bool linked;
};

/* A question whether the server is well (masque_check.c). */
struct masque_check {
    void (*fn)(void *arg, int err); /* NULL: none under way */
    void *arg;
    struct tunnel *asked; /* it has our PING; NULL: `wait` is in line for a connection */
    struct masque_wait wait;
    struct wheel_timer deadline;
};

struct masque {
    struct up_env *env;
    struct up_memory *memory;
    struct handshake *handshake; /* dialling; NULL: not */
    struct tunnel *current;      /* NULL: none that takes new streams */
    struct tunnel *draining;
    struct masque_wait *first, *last;
    struct wheel_timer idle;  /* looks for connections that nobody uses */
    struct wheel_timer serve; /* the line moves, not inside a callback of a stream */
    uint64_t idle_since_us;
    uint64_t retry_at_us; /* no dial before this */
    uint32_t failures;    /* dials in a row */
    uint32_t number;
    struct up_failure why; /* of the last failure */
    struct prng dice;
    char authorization[32 + 4096]; /* "Basic ...", "Bearer ..."; "": none */
    char authority[HTTP_AUTHORITY_MAX];
    struct masque_stream *streams; /* all of its streams of bytes: it tells them when it goes */
    struct masque_echo *echo;      /* NULL: not used yet */
    struct masque_check check;
};

/** masque_of() - made at the first use. NULL: no memory */
struct masque *masque_of(struct up_env *env, struct up_memory *m);
void masque_memory(const struct masque *m, struct memory_use *add); /* NULL is fine */
void masque_free(struct masque *m); /* NULL is fine; nothing of its kind is open, or it never hears of it */
/** masque_ask() - w->ready or w->failed comes, later */
void masque_ask(struct masque *m, struct masque_wait *w, uint64_t timeout_us);
void masque_leave(struct masque *m, struct masque_wait *w); /* not in line is fine */
void masque_serve_later(struct masque *m); /* a stream has ended: somebody may wait for its place */
/** masque_request() - a CONNECT, with our login. Return: as h2_request() */
int masque_request(struct tunnel *t, const char *authority, const char *protocol, const char *path,
                   const struct h2_stream_events *events, void *arg, struct h2_stream **out);
/** masque_answer() - what their final head says. Return: open; else @why is filled in */
bool masque_answer(struct masque *m, const struct h2_head *head, struct up_failure *why);
/** masque_broke() - why a stream without an answer has ended */
void masque_broke(struct tunnel *t, int err, uint32_t code, struct up_failure *why);
const char *masque_server_text(const struct masque *m, char out[160]);

/* masque_check.c */
/** masque_check() - ask whether it is well; at most one question at a time. @fn: later, once; 0, -ETIMEDOUT, -EHOSTUNREACH, ... */
void masque_check(struct masque *m, uint64_t timeout_us, void (*fn)(void *arg, int err), void *arg);
void masque_check_cancel(struct masque *m); /* none under way is fine */
void masque_check_pong(struct tunnel *t);   /* for masque.c: an answer to a PING */
void masque_check_moved(struct tunnel *t);  /* for masque.c: it takes nothing new, or is gone */

/* masque_echo.c, for masque.c */
void masque_echo_moved(struct masque *m); /* the connection takes nothing new, or is gone */
void masque_echo_free(struct masque *m);

/* masque_stream.c: first a handshake's try, then a stream's */
/** masque_stream_new() - ask for @dst, whose name lives as long as @h; handshake_masque_done() comes, later. 0 or -ENOMEM */
int masque_stream_new(struct handshake *h, const struct host_port *dst, uint64_t timeout_us,
                      struct masque_stream **out);
/* The request is out to a server that speaks: silence may be the target's. */
bool masque_stream_asked(const struct masque_stream *ms);
/* It is @s from now on, and carries nothing else: its owner's events come from the stream. */
void masque_stream_attach(struct masque_stream *ms, struct up_stream *s);
/** masque_stream_carry() - it carries something else (a handshake's talk, TLS, HTTP/2): used as a descriptor from now on
 * @fn: what is wanted (LOOP_READ at first) has come, in every turn. A break is all that is wanted: recv says it. MASQUE_DRAIN
 *      besides, alone or with these, perhaps again: its connection takes nothing new, and wants to end. May be ignored. */
enum { MASQUE_DRAIN = 1 << 7 };
static_assert((MASQUE_DRAIN & (LOOP_READ | LOOP_WRITE)) == 0, "an event of its own");
void masque_stream_carry(struct masque_stream *ms, void (*fn)(void *arg, unsigned events), void *arg);
/** Return: of recv, bytes; 0 their end; -EAGAIN; -ECONNRESET. Of sendv, bytes; -EAGAIN; -ECONNRESET */
ssize_t masque_stream_recv(struct masque_stream *ms, void *to, size_t len);
ssize_t masque_stream_sendv(struct masque_stream *ms, const struct iovec *iov, int iovcnt);
void masque_stream_want(struct masque_stream *ms, unsigned events);
void masque_stream_shutdown(struct masque_stream *ms);
/* After a shutdown what was sent still leaves, and their end is waited for; else it is a reset. NULL is fine. */
void masque_stream_close(struct masque_stream *ms);
void masque_stream_reset(struct masque_stream *ms);
/* For masque.c: @t takes nothing new; whoever carries something in there is told. */
void masque_stream_drain(struct masque_stream *ms, const struct tunnel *t);
struct masque_stream *masque_stream_next(struct masque_stream *ms);
void masque_stream_orphan(struct masque_stream *ms); /* for masque.c: the connection is freed before it */
const char *masque_stream_stage(const struct masque_stream *ms);
size_t masque_stream_bytes(void);

/* masque_udp.c, for udp.c */
struct up_udp;
void masque_udp_open(struct up_udp *u); /* on_open or on_closed comes; the latter perhaps in here */
int masque_udp_send(struct masque_udp *mu, const struct host_port *target, const struct up_row_out *o);
void masque_udp_close(struct masque_udp *mu); /* NULL is fine */
size_t masque_udp_bytes(void);
size_t masque_target_bytes(void);

#endif
