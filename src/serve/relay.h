/* relay.h - bytes between a client's end and its target, both ways; used by every kind of server in this folder.
 * Knows     up_streams, and the client's end only through relay_end: a socket, or TLS around one.
 * Memory    a direction borrows a buffer while bytes wait in it; the number of buffers of a thread is bounded. */
#ifndef CULVERT_SERVE_RELAY_H
#define CULVERT_SERVE_RELAY_H

#include "culvert/upstream.h"
#include "ledger.h"

enum { RELAY_BUFFER_BYTES = 64 * 1024 };

/* ---- relays ---- */

struct relay;

/* All relays of one server thread. */
struct relays {
    struct loop *loop;
    struct wheel *wheel;
    struct buffers buffers;      /* of RELAY_BUFFER_BYTES; held by a direction only while bytes wait in it */
    struct relay *starved;       /* wait for a buffer */
    const struct relay *running; /* what is being called back; NULL once it has ended */
    counter *bytes[2];           /* UP, DOWN */
};
/** relays_init() - @max_streams: how many there may be at a time; the other members are the caller's
 * Return: 0 or -ENOMEM */
int relays_init(struct relays *all, uint32_t max_streams);
void relays_fini(struct relays *all); /* all zero is fine */

struct half {        /* one direction */
    uint8_t *buffer; /* NULL: nothing waits */
    uint32_t off, len;
    bool eof;     /* the source has said all */
    bool shut;    /* and the sink knows */
    bool starved; /* waits for a buffer */
    bool resting; /* its user's rate is used up */
};
enum { UP = 0, DOWN = 1 };

/* The client's end. */
struct relay_end {
    ssize_t (*recv)(struct relay *r, void *to, size_t len); /* bytes, 0 their end, -EAGAIN, -errno */
    ssize_t (*send)(struct relay *r, const void *from, size_t len);
    void (*shut)(struct relay *r); /* the target has said all */
    void (*want)(struct relay *r, unsigned events);
    bool (*is_sent)(struct relay *r); /* nothing waits in its queues any more, or never will leave */
    /* It was reset; asked while nothing is read from it. NULL: relay_on_client() tells of that at all times */
    bool (*is_broken)(struct relay *r);
    /* The relay is over; called once. @reset: it broke, and the client shall see that */
    void (*over)(struct relay *r, bool reset);
};

struct relay {
    struct relays *all;
    const struct relay_end *end;
    struct up_stream *up;
    struct ledger_user *user; /* whose rate it is; NULL: no limit */
    struct half half[2];
    struct relay *next_starved;
    struct wheel_timer
        timer; /* a rate that was used up, a look at a client that is not read, or the end of a drain */
    uint64_t drain_until_us;
    bool draining; /* the target reset: what it had sent is still going out, then a reset */
    bool started;
};

/** relay_start() - after the target answered; @early: what the client sent behind its request, at most RELAY_BUFFER_BYTES
 * @up: whose callbacks call relay_on_up_*; the relay's from now on. It may be over when this returns. */
void relay_start(struct relay *r, struct relays *all, const struct relay_end *end, struct up_stream *up,
                 const uint8_t *early, size_t len);
void relay_on_client(struct relay *r, unsigned events);
void relay_on_up_readable(struct relay *r);
void relay_on_up_writable(struct relay *r);
void relay_on_up_closed(struct relay *r); /* it broke, and is gone */
bool relay_socket_broken(int fd);         /* for is_broken of an end that is a TCP socket */
/** relay_stop() - give back all it holds, its stream too; `over` is not called. Not started or stopped: nothing */
void relay_stop(struct relay *r, bool reset);

#endif
