/* vsock_socket.c - see vsock.h: listeners, connections, and what the stack tells of them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vsock_impl.h"

#define PEEK_RANGES 256

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

struct sock *sock_at(const struct vsock_net *n, int number)
{
    size_t i = (size_t)number - FIRST_NUMBER;

    return number >= FIRST_NUMBER && i < n->table_len ? n->table[i] : NULL;
}

static struct sock *sock_of_kind(const struct vsock_net *n, int number, enum sock_kind kind, int *err)
{
    struct sock *s = sock_at(n, number);

    *err = s == NULL ? -EBADF : s->kind != kind ? (kind == SOCK_CONN ? -ENOTCONN : -EINVAL) : 0;
    return *err == 0 ? s : NULL;
}

static int sock_number(struct vsock_net *n, struct sock *s)
{
    size_t i = 0;
    struct sock **table;

    while (i < n->table_len && n->table[i] != NULL)
        i++;
    if (i == n->table_len) {
        table = realloc(n->table, (i + 64) * sizeof(*table));
        if (table == NULL)
            return -ENOMEM;
        memset(table + i, 0, 64 * sizeof(*table));
        n->table = table;
        n->table_len = i + 64;
    }
    n->table[i] = s;
    s->number = (int)i + FIRST_NUMBER;
    return s->number;
}

/* ---- a listener's queue --------------------------------------------------------------------------------------------- */

static void queue_add(struct sock *listener, struct sock *s)
{
    struct sock **at = &listener->queue;

    while (*at != NULL)
        at = &(*at)->next;
    *at = s;
    s->listener = listener;
    listener->waiting++;
}

static void queue_remove(struct sock *s)
{
    struct sock **at = &s->listener->queue;

    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    s->listener->waiting--;
    s->listener = s->next = NULL;
}

static void sock_free(struct sock *s)
{
    if (s->listener != NULL)
        queue_remove(s);
    if (s->number != 0)
        s->net->table[s->number - FIRST_NUMBER] = NULL;
    free(s);
}

static struct sock *first_of(const struct sock *listener, enum sock_kind kind)
{
    for (struct sock *s = listener->queue; s != NULL; s = s->next) {
        if (s->kind == kind && (kind == SOCK_REQUEST || s->opened))
            return s;
    }
    return NULL;
}

static bool accept_ready(const struct vsock_net *n, const struct sock *listener)
{
    (void)n;
    return first_of(listener, SOCK_CONN) != NULL;
}

static bool pending_ready(const struct vsock_net *n, const struct sock *listener)
{
    (void)n;
    return first_of(listener, SOCK_REQUEST) != NULL;
}

/* ---- what the stack tells --------------------------------------------------------------------------------------------- */

static struct sock *listener_for(const struct vsock_net *n, const struct flow_key *flow)
{
    static const struct ip_addr none;
    struct sock *best = NULL;
    int best_score = -1;

    for (size_t i = 0; i < n->table_len; i++) {
        struct sock *s = n->table[i];
        bool any_addr, any_port;
        int score;

        if (s == NULL || s->kind != SOCK_LISTENER)
            continue;
        any_addr = memcmp(&s->at.addr, &none, sizeof(none)) == 0;
        any_port = s->at.port == 0;
        if ((!any_addr && memcmp(&s->at.addr, &flow->target, sizeof(none)) != 0) ||
            (!any_port && s->at.port != flow->target_port))
            continue;
        score = (any_addr ? 0 : 2) + (any_port ? 0 : 1);
        if (score > best_score) {
            best = s;
            best_score = score;
        }
    }
    return best;
}

static bool admit(struct sock *s)
{
    struct tcp_request *r = s->request;

    if (tcp_request_accept(r, s, &s->conn) != 0)
        return false;
    s->kind = SOCK_CONN;
    s->request = NULL;
    return true;
}

static void on_request(void *arg, struct tcp_request *r)
{
    struct vsock_net *n = arg;
    struct sock *l, *s = NULL;
    struct flow_key flow;

    tcp_request_flow(r, &flow);
    l = listener_for(n, &flow);
    if (l == NULL) {
        tcp_request_reject(r, REJECT_RST);
        return;
    }
    if (l->waiting < l->backlog)
        s = calloc(1, sizeof(*s));
    if (s == NULL) {
        tcp_request_reject(r, REJECT_SILENT);
        return;
    }
    *s = (struct sock){ .kind = SOCK_REQUEST, .net = n, .flow = flow, .request = r };
    tcp_request_set_user(r, s);
    queue_add(l, s);
    if (!l->hold && !admit(s)) {
        tcp_request_reject(r, REJECT_SILENT);
        sock_free(s);
    }
}

static void end(struct sock *s, int err)
{
    s->request = NULL;
    s->conn = NULL;
    s->ended = true;
    s->err = err;
    s->last.state = "CLOSED";
    if (s->number == 0 && !s->opened)
        sock_free(s); /* nobody ever saw it */
}

static void on_gone(void *user, int err)
{
    struct sock *s = user;

    s->kind = SOCK_CONN; /* one that ended before it began */
    s->last.cc_state = "open";
    end(s, err != 0 ? err : -ECONNRESET);
}

static void on_open(void *user)
{
    struct sock *s = user;

    s->opened = true;
}

static void on_progress(void *user)
{
    (void)user; /* whoever waits looks for himself */
}

static void on_closed(void *user, int err)
{
    struct sock *s = user;

    tcp_conn_info(s->conn, &s->last);
    end(s, err);
}

const struct stack_events sock_events = {
    .on_tcp_request = on_request,
    .on_tcp_request_gone = on_gone,
    .on_tcp_open = on_open,
    .on_tcp_readable = on_progress,
    .on_tcp_writable = on_progress,
    .on_tcp_closed = on_closed,
};

/* ---- listening ------------------------------------------------------------------------------------------------------------ */

int vsock_listen(struct vsock_net *n, const struct ip_port *at, unsigned backlog)
{
    struct sock *s = calloc(1, sizeof(*s));
    int r = -ENOMEM;

    if (s == NULL)
        return r;
    *s = (struct sock){ .kind = SOCK_LISTENER, .net = n, .at = *at, .backlog = backlog };
    net_lock(n);
    for (size_t i = 0; i < n->table_len; i++) {
        struct sock *other = n->table[i];

        if (other != NULL && other->kind == SOCK_LISTENER && ip_port_equal(&other->at, at))
            r = -EADDRINUSE;
    }
    if (r != -EADDRINUSE)
        r = sock_number(n, s);
    net_unlock(n);
    if (r < 0)
        free(s);
    return r;
}

static int take(struct vsock_net *n, int listener, enum sock_kind kind, struct flow_key *who,
                uint64_t deadline_us)
{
    struct sock *l, *s;
    int r;

    net_lock(n);
    l = sock_of_kind(n, listener, SOCK_LISTENER, &r);
    if (l != NULL)
        r = net_wait(n, kind == SOCK_CONN ? accept_ready : pending_ready, l, deadline_us);
    if (r == 0) {
        s = first_of(l, kind);
        r = sock_number(n, s);
        if (r > 0) {
            queue_remove(s);
            if (who != NULL)
                *who = s->flow;
        }
    }
    net_unlock(n);
    return r;
}

int vsock_accept(struct vsock_net *n, int listener, struct flow_key *who, uint64_t deadline_us)
{
    return take(n, listener, SOCK_CONN, who, deadline_us);
}

int vsock_pending(struct vsock_net *n, int listener, struct flow_key *who, uint64_t deadline_us)
{
    return take(n, listener, SOCK_REQUEST, who, deadline_us);
}

int vsock_admit(struct vsock_net *n, int number)
{
    struct sock *s;
    int r;

    net_lock(n);
    s = sock_of_kind(n, number, SOCK_REQUEST, &r);
    if (s != NULL)
        r = admit(s) ? 0 : -ENOBUFS;
    net_settle(n);
    net_unlock(n);
    return r;
}

int vsock_refuse(struct vsock_net *n, int number, enum stack_reject why)
{
    struct sock *s;
    int r;

    net_lock(n);
    s = sock_of_kind(n, number, SOCK_REQUEST, &r);
    if (s != NULL) {
        tcp_request_reject(s->request, why);
        sock_free(s);
    }
    net_settle(n);
    net_unlock(n);
    return r;
}

/* ---- bytes -------------------------------------------------------------------------------------------------------------------- */

static int events_of(const struct sock *s)
{
    int e = 0;

    if (s->kind == SOCK_LISTENER)
        return first_of(s, SOCK_CONN) != NULL || first_of(s, SOCK_REQUEST) != NULL ? VSOCK_IN : 0;
    if (s->ended)
        return VSOCK_IN | VSOCK_HUP | (s->err != 0 ? VSOCK_ERR : 0);
    if (s->conn == NULL || !s->opened)
        return 0;
    if (tcp_readable_bytes(s->conn) > 0 || tcp_at_eof(s->conn))
        e |= VSOCK_IN;
    return e;
}

/* How much of @len a buffer that does not grow has room for; one that grows is the stack's to measure, to within a chunk. */
static size_t fits(const struct sock *s, size_t len)
{
    const struct stack_config *c = &s->net->config;
    size_t queued = tcp_tx_queued(s->conn), most = c->snd_buffer_initial;

    if (c->snd_buffer_max > most)
        return len;
    return queued >= most ? 0 : len < most - queued ? len : most - queued;
}

/* Whether a byte could be written is known by asking for the space, and giving it back. */
static bool has_room(const struct sock *s)
{
    uint8_t *space;

    if (s->conn == NULL || !s->opened || s->shut || fits(s, 1) == 0 || tcp_tx_space(s->conn, &space) == 0)
        return false;
    tcp_tx_commit(s->conn, 0);
    return true;
}

static bool read_ready(const struct vsock_net *n, const struct sock *s)
{
    (void)n;
    return s->ended || (events_of(s) & VSOCK_IN);
}

static bool write_ready(const struct vsock_net *n, const struct sock *s)
{
    (void)n;
    return s->ended || s->shut || has_room(s);
}

static size_t copy_front(const struct sock *s, uint8_t *to, size_t len)
{
    struct iovec iov[PEEK_RANGES];
    int ranges = tcp_peek(s->conn, iov, PEEK_RANGES);
    size_t done = 0;

    for (int i = 0; i < ranges && done < len; i++) {
        size_t part = iov[i].iov_len < len - done ? iov[i].iov_len : len - done;

        memcpy(to + done, iov[i].iov_base, part);
        done += part;
    }
    return done;
}

static size_t copy_out(struct sock *s, uint8_t *to, size_t len)
{
    size_t done = 0, part;

    while (done < len && (part = copy_front(s, to + done, len - done)) > 0) {
        tcp_consume(s->conn, part);
        done += part;
    }
    return done;
}

static ssize_t take_bytes(struct vsock_net *n, int number, void *buf, size_t len, uint64_t deadline_us,
                          bool keep)
{
    struct sock *s;
    ssize_t r;
    int err;

    net_lock(n);
    s = sock_of_kind(n, number, SOCK_CONN, &err);
    r = s == NULL ? err : net_wait(n, read_ready, s, deadline_us);
    if (r == 0 && s->ended)
        r = s->err;
    else if (r == 0)
        r = (ssize_t)(keep ? copy_front(s, buf, len) : copy_out(s, buf, len));
    net_settle(n);
    net_unlock(n);
    return r;
}

ssize_t vsock_read(struct vsock_net *n, int number, void *buf, size_t len, uint64_t deadline_us)
{
    return take_bytes(n, number, buf, len, deadline_us, false);
}

ssize_t vsock_peek(struct vsock_net *n, int number, void *buf, size_t len, uint64_t deadline_us)
{
    return take_bytes(n, number, buf, len, deadline_us, true);
}

static size_t copy_in(struct sock *s, const uint8_t *from, size_t len)
{
    size_t done = 0, room, most;
    uint8_t *space;

    while (s->conn != NULL && (most = fits(s, len - done)) > 0 &&
           (room = tcp_tx_space(s->conn, &space)) > 0) {
        size_t part = room < most ? room : most;

        memcpy(space, from + done, part);
        tcp_tx_commit(s->conn, part);
        done += part;
    }
    return done;
}

ssize_t vsock_write(struct vsock_net *n, int number, const void *buf, size_t len, uint64_t deadline_us)
{
    struct sock *s;
    size_t done = 0;
    int r;

    net_lock(n);
    s = sock_of_kind(n, number, SOCK_CONN, &r);
    while (r == 0 && done < len) {
        r = net_wait(n, write_ready, s, deadline_us);
        if (r == 0 && (s->ended || s->shut))
            r = s->ended && s->err != 0 ? s->err : -EPIPE;
        if (r == 0)
            done += copy_in(s, (const uint8_t *)buf + done, len - done);
        net_settle(n);
    }
    net_unlock(n);
    return done > 0 ? (ssize_t)done : r;
}

/* ---- ends ------------------------------------------------------------------------------------------------------------------------ */

int vsock_shutdown(struct vsock_net *n, int number)
{
    struct sock *s;
    int r;

    net_lock(n);
    s = sock_of_kind(n, number, SOCK_CONN, &r);
    if (s != NULL && s->conn == NULL)
        r = -ENOTCONN;
    if (r == 0) {
        s->shut = true;
        tcp_shutdown(s->conn);
        net_settle(n);
    }
    net_unlock(n);
    return r;
}

static void let_go(struct sock *s, bool abort_it)
{
    if (s->request != NULL)
        tcp_request_reject(s->request, REJECT_RST);
    if (s->conn != NULL && abort_it)
        tcp_abort(s->conn);
    if (s->conn != NULL)
        tcp_release(s->conn);
    s->conn = NULL;
    s->request = NULL;
}

static int drop(struct vsock_net *n, int number, bool abort_it)
{
    struct sock *s;

    net_lock(n);
    s = sock_at(n, number);
    if (s != NULL) {
        while (s->queue != NULL) {
            struct sock *waits = s->queue;

            let_go(waits, true);
            sock_free(waits);
        }
        let_go(s, abort_it || s->linger0);
        sock_free(s);
        net_settle(n);
    }
    net_unlock(n);
    return s != NULL ? 0 : -EBADF;
}

int vsock_abort(struct vsock_net *n, int number)
{
    return drop(n, number, true);
}

int vsock_close(struct vsock_net *n, int number)
{
    return drop(n, number, false);
}

void sock_free_all(struct vsock_net *n)
{
    for (size_t i = 0; i < n->table_len; i++) {
        struct sock *s = n->table[i];

        while (s != NULL && s->queue != NULL)
            sock_free(s->queue);
        if (s != NULL)
            sock_free(s);
    }
    free(n->table);
}

/* ---- looking --------------------------------------------------------------------------------------------------------------------- */

int vsock_poll(struct vsock_net *n, int number)
{
    struct sock *s;
    int e = -EBADF;

    net_lock(n);
    s = sock_at(n, number);
    if (s != NULL)
        e = events_of(s) | (has_room(s) ? VSOCK_OUT : 0);
    net_unlock(n);
    return e;
}

static bool any_ready(const struct vsock_net *n, const struct sock *s)
{
    return s->ended || (s->kind == SOCK_LISTENER && events_of(s)) || read_ready(n, s) || write_ready(n, s);
}

int vsock_wait(struct vsock_net *n, int number, int events, uint64_t deadline_us)
{
    struct sock *s;
    int r = -EBADF;

    net_lock(n);
    s = sock_at(n, number);
    if (s != NULL)
        r = net_wait(n,
                     s->kind == SOCK_LISTENER || (events & (VSOCK_IN | VSOCK_OUT)) == (VSOCK_IN | VSOCK_OUT)
                         ? any_ready
                     : events & VSOCK_IN ? read_ready
                                         : write_ready,
                     s, deadline_us);
    net_unlock(n);
    return r;
}

int vsock_error(struct vsock_net *n, int number)
{
    struct sock *s;
    int r;

    net_lock(n);
    s = sock_at(n, number);
    r = s != NULL ? s->err : -EBADF;
    net_unlock(n);
    return r;
}

int vsock_info(struct vsock_net *n, int number, struct tcp_info *out)
{
    struct sock *s;
    int r;

    net_lock(n);
    s = sock_of_kind(n, number, SOCK_CONN, &r);
    if (s != NULL && s->conn != NULL)
        tcp_conn_info(s->conn, out);
    else if (s != NULL)
        *out = s->last;
    net_unlock(n);
    return r;
}
