/* socks5.h - the client side of SOCKS5 as a state machine without I/O (RFC 1928, login by RFC 1929).
 * The caller feeds bytes and sends bytes; see socks5_client.c. */
#ifndef CULVERT_UPSTREAM_SOCKS5_H
#define CULVERT_UPSTREAM_SOCKS5_H

#include "culvert/upstream.h"

enum socks5_goal {
    SOCKS5_CONNECT,   /* a stream to the target */
    SOCKS5_ASSOCIATE, /* a UDP relay; the target is not used */
    SOCKS5_IN_TCP,    /* datagrams as frames of this connection (socks5_frames.c); the same */
    SOCKS5_HELLO,     /* greeting and login only: a probe */
};
enum socks5_state {
    SOCKS5_GREET,
    SOCKS5_METHOD,
    SOCKS5_LOGIN,
    SOCKS5_ASK, /* logged in some time ago: only the request is left to say */
    SOCKS5_REPLY,
    SOCKS5_OPEN,
    SOCKS5_FAILED
};
enum socks5_step { SOCKS5_AGAIN, SOCKS5_NEED_INPUT, SOCKS5_DONE, SOCKS5_BROKEN };

enum {
    SOCKS5_IN_MAX = 2 + 2 + 3 + SOCKS5_ADDRESS_MAX, /* the longest answers to all that we say */
    /* greeting, login (RFC 1929 section 2) and request together */
    SOCKS5_OUT_MAX = (2 + 2) + (1 + 1 + 255 + 1 + 255) + (3 + SOCKS5_ADDRESS_MAX),
    SOCKS5_REPLY_MIN = 4 + 1 + 2, /* the shortest success: an empty name */
    SOCKS5_REPLY_IP4 = 4 + 4 + 2, /* what nearly every server says */
};

struct socks5_login {
    const char *username, *password; /* 1..255 bytes each; NULL: none */
};

struct socks5 {
    enum socks5_goal goal;
    enum socks5_state state;
    const struct socks5_login *login; /* borrowed */
    struct host_port target;          /* its name is borrowed */
    struct ip_port bound;             /* once open: what the reply announced; none: a name, or nothing */
    bool pipelined;                   /* everything is said at once, for the one method that we expect */
    uint8_t reply_len; /* how much of the reply to ask for; SOCKS5_REPLY_MIN is always safe. Once open:
                                         how much the next one of this server will have, as far as one may guess */
    /* once failed: */
    enum socks5_state failed_in;
    int err;          /* -errno that the client shall see */
    bool proxy_fault; /* else the target's */
    bool login_fault; /* the configuration's: do not hammer the server (faults.md S6) */
    char why[120];    /* goes after "NAME (ADDRESS) "; no secrets */
};

void socks5_init(struct socks5 *s, enum socks5_goal goal, const struct socks5_login *login,
                 const struct host_port *target);
/** socks5_pipeline() - after socks5_init(), SOCKS5_CONNECT only: say greeting, login and request in one message */
void socks5_pipeline(struct socks5 *s);
/** socks5_greeted() - after socks5_init(): the connection has been greeted and logged in by a SOCKS5_HELLO */
void socks5_greeted(struct socks5 *s);
/** socks5_step() - one step; the caller repeats while SOCKS5_AGAIN and sends what @out got after every step
 * @in:   bytes received; we skip what we used
 * @out:  room for SOCKS5_OUT_MAX */
enum socks5_step socks5_step(struct socks5 *s, struct span *in, struct buf *out);
/** socks5_missing() - how many more bytes the answer under way surely has, given that @in is what came of it
 * Reading exactly so many leaves whatever follows the last answer to the stream (faults.md S4, S11). Never 0 while
 * socks5_step() says SOCKS5_NEED_INPUT. */
size_t socks5_missing(const struct socks5 *s, const struct span *in);
/** socks5_gone() - the server closed or reset the connection now; fills the failure in */
void socks5_gone(struct socks5 *s, bool reset);
const char *socks5_stage(const struct socks5 *s); /* "method", "login", "request" */

#endif
