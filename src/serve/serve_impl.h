/* serve_impl.h - the inside of one server thread: its listener (serve.c), connections (conn.c), the moving of bytes (relay.c)
 * and UDP associations (associate.c). Everything belongs to the thread that runs the environment's loop. */
#ifndef CULVERT_SERVE_IMPL_H
#define CULVERT_SERVE_IMPL_H

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "culvert/serve.h"
#include "socks5_server.h"

enum {
    RELAY_BUFFER_BYTES = 64 * 1024,
    RELAY_BUFFERS_MAX =
        4096, /* 256 MiB, touched on demand: what a server holds for stalled peers is bounded */
};

/* ---- buffers: held by a direction only while bytes wait in it ---- */

struct buffers {
    uint8_t *base;
    uint32_t limit, touched, in_use;
    void *free_list;
};
int buffers_init(struct buffers *b, uint32_t limit);
void buffers_fini(struct buffers *b);
uint8_t *buffers_get(struct buffers *b); /* RELAY_BUFFER_BYTES, not zeroed; NULL at the limit */
void buffers_put(struct buffers *b, uint8_t *buffer);

/* ---- a connection of a client ---- */

enum conn_state {
    CONN_HANDSHAKE, /* reading the client's messages */
    CONN_OPENING,   /* dialling, or making an association */
    CONN_RELAY,     /* bytes go both ways */
    CONN_UDP,       /* an association lives as long as this */
    CONN_LINGER,    /* our last words are out; what still comes is thrown away until the client hangs up */
    CONN_DRAIN,     /* the target reset: what it had sent is still going out, then a reset */
};

struct half {        /* one direction */
    uint8_t *buffer; /* NULL: nothing waits */
    uint32_t off, len;
    bool eof;     /* the source has said all */
    bool shut;    /* and the sink knows */
    bool starved; /* waits for a buffer */
};
enum { UP = 0, DOWN = 1 };

struct hello { /* before the request is complete, and no longer */
    struct socks5_server server;
    size_t in_len;
    uint8_t in[SERVER_IN_MAX];
};

struct associate;

struct conn {
    void *free_link; /* the slab's */
    struct loop_io io;
    struct serve *s;
    struct conn *next, **at; /* all connections of the thread */
    struct conn *next_starved;
    struct wheel_timer timer; /* the handshake's deadline; later LINGER and DRAIN */
    struct up_stream *up;
    struct hello *hello;
    struct associate *associate;
    struct half half[2];
    uint64_t drain_until_us;
    uint8_t state; /* enum conn_state */
};

struct serve {
    struct serve_options opt; /* deep copy: users and their strings are behind it */
    struct up_env *env;
    struct loop *loop;
    struct wheel *wheel;
    struct upstream *direct;
    struct loop_io listener;
    struct ip_port bound;
    struct wheel_timer pause; /* no descriptor is left: accepting goes on after it (faults.md R1) */
    struct slab conns, hellos, associates;
    struct buffers buffers;
    struct conn *all;
    struct conn *starved;
    const void *running; /* as in upstream: what is being called back; NULL once it has ended */
    struct serve_counters cnt;
};

#define SERVE_COUNT(s, member) counter_add(&(s)->cnt.member, 1)

/** conn_new() - take over an accepted descriptor. Return: 0 or -ENOMEM, and the descriptor is still the caller's */
int conn_new(struct serve *s, int fd);
void conn_end(struct conn *c, bool reset); /* everything of it, at once */
/** conn_reply() - answer the request. Return: the client has it; otherwise the connection has ended */
bool conn_reply(struct conn *c, enum server_reply code, const struct ip_port *bound);
void conn_linger(struct conn *c); /* after the last words: end this connection without cutting them off */

void relay_start(struct conn *c, const uint8_t *early,
                 size_t len); /* @early: what the client sent behind its request */
void relay_on_client(struct conn *c, unsigned events);
void relay_on_drain_timer(struct conn *c);
void relay_release(struct conn *c); /* its buffers */
void relay_on_up_readable(void *conn);
void relay_on_up_writable(void *conn);

int associate_open(struct conn *c);        /* 0, then a reply later; or -errno */
void associate_close(struct associate *a); /* NULL is fine */
size_t associate_bytes(void);

#endif
