/* udp_impl.h - the inside of an association; shared by udp.c (life), udp_io.c (system calls), udp_direct.c and udp_socks.c. */
#ifndef CULVERT_UPSTREAM_UDP_IMPL_H
#define CULVERT_UPSTREAM_UDP_IMPL_H

#include <netinet/in.h>

#include "upstream_impl.h"

enum {
    UDP_NAMES_POOL = 1024, /* targets by name that DIRECT associations of one worker remember */
    UDP_NAMES_EACH = 8,    /* of them for one association */
    UDP_HELD_POOL = 1024,  /* datagrams that wait for a name */
    UDP_HELD_EACH = 16,
    UDP_HELD_BYTES = 2048, /* larger ones do not wait */
};

/* ---- system calls (udp_io.c): the up_rows of upstream.h, and this ---- */

/* One control message behind the others in @control. Return: the new length. */
size_t udp_put_control(uint8_t *control, size_t len, int level, int type, const void *data, size_t data_len);
enum { UDP_CONTROL_MAX = 160 };
int udp_rx_new(struct udp_rx **out);
void udp_rx_free(struct udp_rx *rx); /* NULL is fine */
void udp_rx_trim(struct udp_rx *rx); /* give the buffers' memory back; they stay usable */

/* ---- an association ---- */

enum udp_state { UDP_OPENING, UDP_OPEN, UDP_DYING, UDP_DEAD };

struct udp_held { /* a datagram that waits for its target's address */
    struct udp_held *next;
    uint16_t len, gso_size, port;
    uint8_t ttl, tos;
    uint8_t data[UDP_HELD_BYTES];
};

struct udp_name { /* a target by name of a DIRECT association */
    struct udp_name *next;
    struct up_udp *u;
    struct up_resolve *query;
    struct udp_held *first, *last;
    struct ip_addr addr;
    uint64_t until_us; /* when to ask again */
    bool resolving;
    char name[256];
};

enum { UDP_IO_4 = 0, UDP_IO_6 = 1, UDP_IO_RELAY = 0, UDP_IO_CONTROL = 1 };

struct up_udp {
    struct loop_io io[2]; /* DIRECT: a socket for each family; SOCKS5: the relay and the control connection */
    struct up_env *env;
    struct up_memory *memory;
    struct up_memory *group; /* that was asked, when `memory` is a member of it; NULL: none */
    uint64_t until_us;       /* the end of the opening's time */
    const struct up_udp_events *events;
    void *arg;
    struct masque_udp *masque;   /* MASQUE: all the rest is there */
    struct handshake *handshake; /* SOCKS5, while opening */
    struct udp_tunnel *tunnel;   /* SOCKS5 over TCP; NULL: not that */
    struct udp_name *names;      /* DIRECT, the latest first */
    struct wheel_timer timer;    /* tells what happened inside a call: on_open of DIRECT, the end */
    uint32_t guard[2];
    struct ip_addr checked; /* DIRECT: the last target that socket_check() let pass ... */
    uint32_t checked_rules; /* ... under these: up_env.rules_number */
    int checked_ifindex;
    uint16_t junk_bytes; /* that the server sent on the control connection */
    uint8_t state;       /* enum udp_state */
    uint8_t held;
    bool socks;
};

/** up_row_send() - a row through one of the association's sockets, counted */
int up_row_send(struct up_udp *u, int which, const struct up_row_out *o);
/** udp_deliver() - read @io and hand the datagrams on, a few batches at most. Return: 0, or -errno of the socket */
int udp_deliver(struct up_udp *u, struct loop_io *io);
/** udp_hand_on() - to the owner, while env->running is @u. Return: the association is still there */
bool udp_hand_on(struct up_udp *u, const struct up_datagram *batch, size_t n);
void udp_die(struct up_udp *u, const struct up_failure *why); /* on_closed runs inside */
void udp_opened(struct up_udp *u);                            /* on_open runs inside */
void udp_close_io(struct up_udp *u, int which);
static inline bool udp_has_io(const struct up_udp *u, int which)
{
    return loop_io_active(&u->io[which]);
}

int udp_direct_send(struct up_udp *u, const struct host_port *target, const struct up_row_out *o, uint8_t ttl,
                    uint8_t tos);
void udp_direct_drop_names(struct up_udp *u);
int udp_socks_open(struct up_udp *u);
/** udp_next_way() - while it opens, the way out says that it has no UDP: the group that was asked may have another member
 * Return: it opens anew, or is dead and gone; false: there is none */
bool udp_next_way(struct up_udp *u);
/** udp_tunnel_open() - what the handshake has made carries the datagrams. Return: 0 or -ENOMEM, then nothing was taken */
int udp_tunnel_open(struct up_udp *u, const struct handshake_result *result);
int udp_tunnel_send(struct up_udp *u, const struct host_port *target, const struct up_row_out *o);
void udp_tunnel_close(struct up_udp *u); /* none is fine */
size_t udp_tunnel_bytes(void);
void udp_associate_died(struct up_udp *u, const char *how);
/** udp_target() - @target as SOCKS5 wants it; @name: room for it. Return: 0, -EINVAL */
int udp_target(const struct host_port *target, struct host_port *out, char name[256]);
int udp_socks_send(struct up_udp *u, const struct host_port *target, struct up_row_out *o);

#endif
