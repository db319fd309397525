/* vsock_impl.h - what the clock and the wire (vsock.c) share with the sockets (vsock_socket.c). */
#ifndef CULVERT_VSOCK_IMPL_H
#define CULVERT_VSOCK_IMPL_H

#include <pthread.h>

#include "vsock.h"

#define FIRST_NUMBER 3

struct packet_node { /* on its way in, or waiting for vsock_packet_out() */
    struct packet_node *next;
    uint64_t at_us;
    struct pkt_meta meta;
    size_t len;
    uint8_t data[];
};

struct packet_queue {
    struct packet_node *head, *tail;
};

enum sock_kind { SOCK_LISTENER, SOCK_REQUEST, SOCK_CONN };

struct sock {
    enum sock_kind kind;
    int number; /* 0: nobody has been given it yet */
    struct vsock_net *net;
    struct sock *listener, *next; /* while it waits in a listener's queue; of that queue */
    bool linger0;

    struct ip_port at; /* listener */
    unsigned backlog, waiting;
    bool hold;
    struct sock *queue;

    struct flow_key flow; /* request, connection */
    struct tcp_request *request;
    struct tcp_conn *conn; /* NULL: it has ended, or is not one yet */
    bool opened, ended, shut;
    int err;
    struct tcp_info last;
};

struct vsock_net {
    struct stack_config config;
    struct stack *stack; /* NULL until the first packet */
    void *memory;
    size_t memory_len;
    uint64_t now_us;
    bool threads, in_wire;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct packet_queue in, out; /* in: by time, then as given */
    vsock_wire *wire;
    void *wire_arg;
    struct sock **table; /* by number - FIRST_NUMBER */
    size_t table_len;
};

void net_lock(struct vsock_net *n);
void net_unlock(struct vsock_net *n);
/* Callbacks, output and what arrives now, until nothing is left to do at this time. */
void net_settle(struct vsock_net *n);
/** net_wait() - until @ready says so, or the deadline (see vsock.h); called with the lock held once */
int net_wait(struct vsock_net *n, bool (*ready)(const struct vsock_net *n, const struct sock *s),
             const struct sock *s, uint64_t deadline_us);

extern const struct stack_events sock_events; /* without emit */
void sock_free_all(struct vsock_net *n);
struct sock *sock_at(const struct vsock_net *n, int number); /* NULL: no such socket */

#endif
