/* vsock.h - libculvert as sockets on virtual time, for conformance runners (tcp-stack.md TST-3).
 *
 * A *net* is one stack with a clock that only its user moves and a wire whose other end is the user: packets go in and come out
 * as plain IP bytes with complete checksums. Sockets are small numbers from 3 on. The stack terminates connections and never opens
 * one, so there is listen() but no connect(). Nothing here reads a clock, opens a descriptor or sleeps.
 *
 * Results   0 or more, or -errno. -EAGAIN: it would have to wait and the deadline was VSOCK_NOW; -ETIMEDOUT: virtual time has
 *           reached the deadline, or the connection's user timeout or keep-alive gave up (then vsock_error() says so as well).
 * Time      microseconds since an epoch of the user's choice; it never goes back. A call with a deadline waits on virtual time:
 *           it lets timers fire and delivers the packets that were given for later, in order of time, until it has what it wants.
 *           With `threads` set it does not move the clock: it waits until another thread has.
 * Threads   any number on one net when `threads` was set, else one. Nets share nothing. */
#ifndef CULVERT_VSOCK_H
#define CULVERT_VSOCK_H

#include "culvert/stack.h"

struct vsock_net;

#pragma GCC visibility push(default)

#define VSOCK_NOW     0ull       /* a deadline: do not wait */
#define VSOCK_FOREVER UINT64_MAX /* a deadline: -EDEADLK when nothing can happen any more */

/* One packet that left: @packet is borrowed until the function returns. It may call any function of the net that does not
 * wait; packets that it puts in arrive after it has returned. */
typedef void vsock_wire(void *arg, uint64_t at_us, const void *packet, size_t len,
                        const struct pkt_meta *meta);

/** vsock_net_new() - a net whose clock shows @start_us (at least one second)
 * @seed: decides initial sequence numbers, timestamp offsets and ids; the same seed and calls give the same packets
 * Return: NULL without memory. */
struct vsock_net *vsock_net_new(uint64_t start_us, uint64_t seed, bool threads);
void vsock_net_free(struct vsock_net *n); /* NULL is fine; sends nothing */

/* ---- options ----------------------------------------------------------------------------------------------------- */

/* Of the net: until the first packet; later -EBUSY. The comment gives the default. Those marked (*) can
 * also be set for one connection, at any time: then the socket is the connection's, not 0. */
enum vsock_option {
    VSOCK_MTU,            /* 1500 */
    VSOCK_MSS4,           /* offered to IPv4 clients: sets the MTU to this and 40 (IPv6 gets 20 less) */
    VSOCK_RCVBUF,         /* the window at the start, bytes: 262,144 */
    VSOCK_RCVBUF_MAX,     /* autotuning's limit: 4 MiB; the same as VSOCK_RCVBUF: none */
    VSOCK_SNDBUF,         /* 131,072 */
    VSOCK_SNDBUF_MAX,     /* 4 MiB, while cwnd grows; the same as VSOCK_SNDBUF: no growth, and exactly that */
    VSOCK_WINDOW_SCALE,   /* 8; 0 with VSOCK_RCVBUF 65,535: an unscaled window */
    VSOCK_QUICKACK,       /* (*) segments that are acknowledged at once at the start: 16; 0 off */
    VSOCK_DELAYED_ACK_US, /* (*) 40,000 */
    VSOCK_USER_TIMEOUT_MS,       /* (*) 120,000 */
    VSOCK_KEEPALIVE_IDLE_MS,     /* (*) 0: off */
    VSOCK_KEEPALIVE_INTERVAL_MS, /* (*) */
    VSOCK_KEEPALIVE_PROBES,      /* (*) */
    VSOCK_RESTART_AFTER_IDLE,    /* (*) 1 */
    VSOCK_ECN,                   /* 1 */
    VSOCK_CONGESTION,            /* enum tcp_congestion: CUBIC */
    VSOCK_TIME_WAIT_MS,
    VSOCK_FIN_WAIT2_MS,
    VSOCK_OFFLOAD, /* 1: super-segments leave whole, with gso_size in their meta; default 0: plain packets */
    VSOCK_PROMISCUOUS,   /* 1: the listener of address none and port 0 takes every destination */
    VSOCK_NET_OPTIONS,   /* how many there are; those below are of a socket, at any time */
    VSOCK_LINGER0 = 100, /* vsock_close() aborts with a RST: 0 */
    VSOCK_HOLD           /* a listener: SYNs wait for vsock_admit() or vsock_refuse(): 0 */
};
/* @s: 0 for the net's own. -ENOTCONN: a connection that has ended, or that is not one yet */
int vsock_set(struct vsock_net *n, int s, enum vsock_option which, uint64_t value);
int vsock_get(struct vsock_net *n, int s, enum vsock_option which, uint64_t *value);

/* ---- sockets ------------------------------------------------------------------------------------------------------- */

/** vsock_listen() - take connections to @at; address none: any, port 0: any; the most exact listener wins
 * @backlog: connections and held SYNs that wait; beyond it SYNs are dropped in silence
 * A SYN that no listener wants is answered by a RST. Return: the listener. */
int vsock_listen(struct vsock_net *n, const struct ip_port *at, unsigned backlog);
/** vsock_accept() - the next connection whose handshake is complete; @who may be NULL */
int vsock_accept(struct vsock_net *n, int listener, struct flow_key *who, uint64_t deadline_us);
/** vsock_pending() - the next SYN that a listener with VSOCK_HOLD holds, as a socket
 * It becomes a connection by vsock_admit(): wait for the handshake with vsock_wait(VSOCK_OUT). */
int vsock_pending(struct vsock_net *n, int listener, struct flow_key *who, uint64_t deadline_us);
int vsock_admit(struct vsock_net *n, int s);
int vsock_refuse(struct vsock_net *n, int s, enum stack_reject why); /* closes @s, too */

/** vsock_read() - bytes in order; 0: the client's FIN; whatever is there, at least one byte */
ssize_t vsock_read(struct vsock_net *n, int s, void *buf, size_t len, uint64_t deadline_us);
/** vsock_peek() - the same, and the bytes stay; vsock_info() says how many there are in all */
ssize_t vsock_peek(struct vsock_net *n, int s, void *buf, size_t len, uint64_t deadline_us);
/** vsock_write() - queue bytes; fewer than @len only when the deadline was reached after some
 * VSOCK_SNDBUF bytes find room whatever the client's window. */
ssize_t vsock_write(struct vsock_net *n, int s, const void *buf, size_t len, uint64_t deadline_us);
int vsock_shutdown(struct vsock_net *n, int s); /* our FIN, after what is queued */
int vsock_abort(struct vsock_net *n, int s);    /* a RST now; the socket is closed */
int vsock_close(struct vsock_net *n, int s);    /* the number is free at once; what is queued is still sent */

enum { VSOCK_IN = 1, VSOCK_OUT = 4, VSOCK_ERR = 8, VSOCK_HUP = 16 }; /* of poll(): POLLIN, POLLOUT, ... */
int vsock_poll(struct vsock_net *n, int s);                          /* what holds now */
int vsock_wait(struct vsock_net *n, int s, int events,
               uint64_t deadline_us);        /* until one of them (or ERR, HUP) does */
int vsock_error(struct vsock_net *n, int s); /* why the connection ended: 0 or -errno; 0 while it lives */
/** vsock_info() - state, congestion state, cwnd, ssthresh, MSS, unacked, sacked, lost, retrans, reordering, RTO, SRTT, probes, backoff,
 * what the handshake agreed on, bytes to be read and bytes not yet sent
 * Of a connection that has ended: state "CLOSED" and the last byte counts. Return: -ENOTCONN for a listener. */
int vsock_info(struct vsock_net *n, int s, struct tcp_info *out);

/* ---- the wire ------------------------------------------------------------------------------------------------------- */

/** vsock_packet_in() - one IP packet for the stack, at @at_us (the past means now)
 * @meta: of a super-segment, or of a packet whose checksum need not be looked at; NULL: a plain packet
 * Packets of the same time are one batch: their answers come after the last of them. -EMSGSIZE above 65,535 bytes. */
int vsock_packet_in(struct vsock_net *n, uint64_t at_us, const void *packet, size_t len,
                    const struct pkt_meta *meta);
/** vsock_packet_out() - the next packet that left, oldest first; not used when there is a wire
 * Return: its length, cut to @cap; @at_us and @meta may be NULL. Waits as the deadline says. */
ssize_t vsock_packet_out(struct vsock_net *n, void *buf, size_t cap, uint64_t *at_us, struct pkt_meta *meta,
                         uint64_t deadline_us);
void vsock_set_wire(struct vsock_net *n, vsock_wire *wire,
                    void *arg); /* NULL: queue packets for vsock_packet_out() */

/* ---- the clock ------------------------------------------------------------------------------------------------------- */

uint64_t vsock_now(struct vsock_net *n);
uint64_t vsock_next(struct vsock_net *n); /* when something will happen by itself; UINT64_MAX: never */
void vsock_advance(struct vsock_net *n, uint64_t to_us); /* everything due until then, in order of time */

const struct stack_counters *vsock_counters(
    struct vsock_net *n); /* until vsock_net_free(); NULL before the first packet */

#pragma GCC visibility pop

#endif
