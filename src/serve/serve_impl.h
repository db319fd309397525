/* serve_impl.h - the inside of one server thread: its listener (serve.c), connections (conn.c), the moving of bytes (relay.c)
 * and UDP associations (associate.c). Everything belongs to the thread that runs the environment's loop. */
#ifndef CULVERT_SERVE_IMPL_H
#define CULVERT_SERVE_IMPL_H

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "culvert/serve.h"
#include "access.h"
#include "listener.h"
#include "relay.h"
#include "socks5_server.h"

/* ---- a connection of a client ---- */

enum conn_state {
    CONN_HANDSHAKE, /* reading the client's messages */
    CONN_OPENING,   /* dialling, or making an association */
    CONN_RELAY,     /* bytes go both ways */
    CONN_UDP,       /* an association lives as long as this */
    CONN_LINGER,    /* our last words are out; what still comes is thrown away until the client hangs up */
};

struct hello { /* before the request is complete, and no longer */
    struct socks5_server server;
    size_t in_len;
    uint8_t in[SERVER_IN_MAX];
};

struct associate;
struct tunnel;

struct conn {
    void *free_link; /* the slab's */
    struct loop_io io;
    struct serve *s;
    struct conn *next, **at;  /* all connections of the thread */
    struct wheel_timer timer; /* the handshake's deadline; later LINGER */
    struct up_stream *up;     /* while it is opening; then the relay's */
    struct hello *hello;
    struct associate *associate;
    struct tunnel *tunnel; /* CONN_UDP over this connection */
    struct relay relay;
    struct serve_access *access; /* as it was when the connection came; a count of it */
    struct ledger_user *user;    /* NULL: not limited */
    bool holds_flow;
    uint8_t state; /* enum conn_state */
};

struct serve {
    struct serve_options opt; /* but for users, allow and ledger, which `access` has */
    struct serve_access *access;
    struct up_env *env;
    struct loop *loop;
    struct wheel *wheel;
    struct upstream *direct;
    struct listener listener;
    struct slab conns, hellos, associates, tunnels;
    struct relays relays;
    struct conn *all;
    struct serve_counters cnt;
};

#define SERVE_COUNT(s, member) counter_add(&(s)->cnt.member, 1)

/** conn_new() - take over an accepted descriptor. Return: 0 or -ENOMEM, and the descriptor is still the caller's */
int conn_new(struct serve *s, int fd);
void conn_end(struct conn *c, bool reset); /* everything of it, at once */
/** conn_reply() - answer the request. Return: the client has it; otherwise the connection has ended */
bool conn_reply(struct conn *c, enum server_reply code, const struct ip_port *bound);
void conn_linger(struct conn *c); /* after the last words: end this connection without cutting them off */

int associate_open(struct conn *c);        /* 0, then a reply later; or -errno */
void associate_close(struct associate *a); /* NULL is fine */
size_t associate_bytes(void);

/* ---- UDP in TCP (udp_in_tcp.c) ---- */
int tunnel_open(struct conn *c);     /* as associate_open() */
void tunnel_close(struct tunnel *t); /* NULL is fine */
void tunnel_on_client(struct tunnel *t, unsigned events);
size_t tunnel_bytes(void);

#endif
