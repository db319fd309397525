/* masque_impl.h - the inside of one thread of the MASQUE server: its listener (masque.c), connections (guest.c) and what they
 * ask for in HTTP/1.1 (guest_http1.c). Everything belongs to the thread that runs the environment's loop. */
#ifndef CULVERT_SERVE_MASQUE_IMPL_H
#define CULVERT_SERVE_MASQUE_IMPL_H

#include <errno.h>
#include <stdio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "culvert/h2.h"
#include "http_request.h"
#include "listener.h"
#include "relay.h"

/* A certificate at work. An old one lives until the last connection that was opened with it has ended. */
struct door {
    struct tls_context *tls;
    uint32_t users; /* connections, and one for being the current one */
};

struct head { /* a request before it is complete, and no longer */
    size_t len, scanned;
    uint8_t in[HTTP_HEAD_MAX];
};

enum guest_state {
    GUEST_TLS,     /* its handshake */
    GUEST_HEAD,    /* HTTP/1.1: reading the request */
    GUEST_OPENING, /* dialling */
    GUEST_RELAY,   /* bytes go both ways */
    GUEST_HTTP2,   /* the descriptor is h2's */
    GUEST_LINGER, /* our last words are on their way; what still comes is thrown away until the client hangs up */
};

struct tunnel;

struct guest {       /* one TLS connection of a client */
    void *free_link; /* the slab's */
    struct loop_io io;
    struct masque *m;
    struct guest *next, **at; /* all of the thread */
    struct door *door;
    struct tls *tls;
    struct h2 *h2; /* NULL: HTTP/1.1 */
    struct tunnel *tunnels;
    struct wheel_timer deadline; /* of TLS and the request; later of LINGER */
    struct wheel_timer again;    /* the next step of TLS, or plain bytes that no descriptor announces */
    struct head *head;
    struct up_stream *up; /* while it is opening; then the relay's */
    struct relay relay;
    struct ledger_user *user; /* NULL: not limited */
    bool holds_flow;
    uint8_t state;  /* enum guest_state */
    uint8_t want;   /* LOOP_READ, LOOP_WRITE: what the reader of plain bytes waits for */
    bool end_due;   /* close_notify waits for room */
    bool fin_due;   /* and the FIN for it */
    bool their_end; /* LINGER: they have hung up */
};

enum tunnel_kind { TUNNEL_TCP, TUNNEL_UDP, TUNNEL_ECHO };

struct tunnel {      /* one request of HTTP/2, and what it opened */
    void *free_link; /* the slab's */
    struct guest *g;
    struct tunnel *next, **at; /* of the connection */
    struct h2_stream *stream;
    struct wheel_timer goodbye; /* refused: closed at the end of this turn */
    struct ledger_user *user;
    uint8_t kind; /* enum tunnel_kind */
    bool is_open; /* answered with 200 */
    union {
        struct {
            struct up_stream *up; /* while it is opening; then the relay's */
            struct relay relay;
        };
        struct {
            struct up_udp *udp;
            struct up_resolve *query; /* NULL: the target's address is known */
            bool asking;              /* inside up_resolve_name() */
            bool refused;             /* by its answer */
            struct ip_port target;
            struct wheel_timer idle;
            uint64_t used_us;
        };
        struct {
            uint32_t generation;
            bool v6;
            struct ip_addr assigned; /* the source of its packets */
        };
    };
};

struct masque {
    struct masque_options opt; /* its users, limits and `allow` are not looked at: */
    struct serve_access *access;
    struct up_env *env;
    struct loop *loop;
    struct wheel *wheel;
    struct upstream *direct;
    struct listener listener;
    struct tls_worker *tls;
    struct door *door;
    struct slab guests, heads, tunnels;
    struct echo_proxy *echo;     /* NULL: no pings */
    struct ip_addr exit_addr[2]; /* of IPv4 and IPv6; none: see masque_attach_echo() */
    uint32_t generation;         /* of the last echo tunnel */
    uint8_t *datagram;           /* H2_DATAGRAM_MAX bytes, for whoever reads one */
    struct relays relays;
    struct guest *all;
    const void *running; /* what is being called back; NULL once it has ended */
    struct masque_counters cnt;
};

#define MASQUE_COUNT(m, member) counter_add(&(m)->cnt.member, 1)

/* ---- certificates (masque.c) ---- */
void door_leave(struct door *d); /* NULL is fine */

/* ---- a login, whatever it came in (masque.c) ---- */
/** masque_login() - who is it? @value: of Proxy-Authorization; data NULL: none
 * Return: false: not one of ours, and counted. @user: whose limits hold; NULL: none. */
bool masque_login(struct masque *m, struct span value, struct ledger_user **user);
bool masque_lists(const struct masque *m, const struct ip_addr *a); /* is it named by `allow`? */

/* ---- connections (guest.c) ---- */
int guest_new(struct masque *m, int fd);     /* 0; -ENOMEM, and the descriptor is still the caller's */
void guest_end(struct guest *g, bool reset); /* everything of it, at once */
void guest_linger(struct guest *g); /* after the last words: end this connection without cutting them off */
void guest_update(struct guest *g); /* after anything that changed what is waited for */
void guest_drop_head(struct guest *g);
/** guest_say() - a few bytes into an empty connection. Return: false: it has ended */
bool guest_say(struct guest *g, const struct buf *out);

/* ---- HTTP/1.1 (guest_http1.c) ---- */
void http1_on_readable(struct guest *g); /* state HEAD */

/* ---- HTTP/2 (guest_http2.c) ---- */
int http2_start(struct guest *g); /* 0 or -ENOMEM */
/** tunnel_answer() - the final response; @err: why, told in Proxy-Status; @capsules: DATAGRAM capsules follow (RFC 9297) */
void tunnel_answer(struct tunnel *t, unsigned status, int err, bool capsules);
void tunnel_refuse(struct tunnel *t, unsigned status, int err); /* answers, and ends the tunnel */
void tunnel_end(struct tunnel *t, enum h2_code code);           /* everything of it, at once */
void tunnel_drop(struct tunnel *t);                             /* the same when its stream is gone already */
void tunnel_on_closed(void *tunnel, int err, uint32_t code);    /* on_closed of every kind: drops it */
/** tunnel_read_capsules() - some of those that have come, to @take, which does not end the tunnel
 * Their end is the end of both directions (RFC 9298 section 3.1). */
void tunnel_read_capsules(struct tunnel *t, void (*take)(struct tunnel *t, const struct capsule *c));

/* What each kind does. open: the request was read and its login is right; it answers, now or later. release: gives back what
 * the kind holds, but not the tunnel. */
void tunnel_tcp_open(struct tunnel *t, const struct host_port *to);
void tunnel_tcp_release(struct tunnel *t);
void tunnel_udp_open(struct tunnel *t, const struct host_port *to);
void tunnel_udp_release(struct tunnel *t);
void tunnel_echo_open(struct tunnel *t, int proto);
void tunnel_echo_release(struct tunnel *t);
extern const struct h2_stream_events tunnel_tcp_events, tunnel_udp_events, tunnel_echo_events;

#endif
