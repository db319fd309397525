/* guest.c - a TLS connection of a client: its handshake, its bytes while a relay has it, and its end.
 *
 * How it works. Whoever reads plain bytes says by `want` what it waits for; guest_update() turns that into interest in the
 * descriptor, since plain bytes may wait inside TLS when the socket is empty (then a timer is the event), and a record that was
 * made must leave although the reader has nothing more to send.
 *
 * The end. Our direction ends by close_notify and then a FIN, when all before has left. A connection that is over is read on until
 * the client hangs up, 5 s at the most: closing a socket with unread bytes would reset it and may take our last words along. */
#include "masque_impl.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define LINGER_US UINT64_C(5000000)

/* ---- the session's way to the socket ---- */

static ssize_t io_recv(void *arg, void *to, size_t len)
{
    ssize_t n = recv(loop_io_fd(&((struct guest *)arg)->io), to, len, 0);

    return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

static ssize_t io_send(void *arg, const void *data, size_t len)
{
    ssize_t n = send(loop_io_fd(&((struct guest *)arg)->io), data, len, MSG_NOSIGNAL);

    if (n >= 0)
        return n;
    return errno == EINTR || errno == ENOBUFS || errno == ENOMEM ? -EAGAIN : -errno; /* faults.md R4 */
}

static void io_wake(void *arg)
{
    struct guest *g = arg;

    wheel_set(g->m->wheel, &g->again, loop_now_us(g->m->loop));
}

static const struct tls_io tls_io = { io_recv, io_send, io_wake };

/* ---- the end ---- */

void guest_drop_head(struct guest *g)
{
    slab_put(&g->m->heads, g->head); /* which clears it: it may hold a password */
    g->head = NULL;
}

void guest_end(struct guest *g, bool reset)
{
    struct masque *m = g->m;
    int fd = loop_io_fd(&g->io);

    if (m->running == g)
        m->running = NULL;
    wheel_cancel(m->wheel, &g->deadline);
    wheel_cancel(m->wheel, &g->again);
    if (reset)
        up_stream_reset(g->up);
    else
        up_stream_close(g->up);
    while (g->tunnels)
        tunnel_end(g->tunnels, H2_CANCEL);
    h2_close(g->h2);
    relay_stop(&g->relay, reset);
    if (g->holds_flow)
        ledger_close_flow(g->user);
    guest_drop_head(g);
    tls_free(g->tls);
    loop_io_stop(m->loop, &g->io);
    if (reset) {
        struct linger now = { .l_onoff = 1, .l_linger = 0 };

        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    close(fd);
    door_leave(g->door);
    *g->at = g->next;
    if (g->next)
        g->next->at = g->at;
    slab_put(&m->guests, g);
}

void guest_linger(struct guest *g)
{
    guest_drop_head(g);
    g->state = GUEST_LINGER;
    g->want = LOOP_READ;
    g->end_due = true;
    wheel_set(g->m->wheel, &g->deadline, loop_now_us(g->m->loop) + LINGER_US);
    guest_update(g);
}

/* Return: false: the connection has ended. */
static bool read_away(struct guest *g)
{
    uint8_t away[4096];

    while (!g->their_end) {
        ssize_t n = recv(loop_io_fd(&g->io), away, sizeof(away), 0);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        g->their_end = n <= 0;
    }
    g->want = 0;
    if (!tls_unsent(g->tls) && !g->end_due) {
        guest_end(g, false);
        return false;
    }
    return true;
}

/* ---- what is waited for ---- */

static void send_end(struct guest *g)
{
    if (g->end_due && tls_shutdown(g->tls) == 0) {
        g->end_due = false;
        g->fin_due = true;
    }
    if (!g->fin_due || tls_unsent(g->tls))
        return;
    g->fin_due = false;
    (void)shutdown(loop_io_fd(&g->io), SHUT_WR);
}

void guest_update(struct guest *g)
{
    struct masque *m = g->m;

    send_end(g);
    loop_io_set(m->loop, &g->io, g->want | (tls_unsent(g->tls) ? LOOP_WRITE : 0u));
    if ((g->want & LOOP_READ) != 0 && g->state != GUEST_LINGER && tls_unread(g->tls))
        wheel_set(m->wheel, &g->again, loop_now_us(m->loop));
    else
        wheel_cancel(m->wheel, &g->again);
}

bool guest_say(struct guest *g, const struct buf *out)
{
    if (tls_sendv(g->tls, &(struct iovec){ out->data, out->len }, 1) == (ssize_t)out->len)
        return true;
    guest_end(g, true);
    return false;
}

/* ---- TLS ---- */

static void on_opened(struct guest *g)
{
    const char *alpn = tls_alpn(g->tls);

    if (alpn && strcmp(alpn, H2_ALPN) == 0) {
        MASQUE_COUNT(g->m, http2);
        if (http2_start(g) != 0)
            guest_end(g, true);
        return;
    }
    MASQUE_COUNT(g->m, http1);
    g->head = slab_get(&g->m->heads);
    if (!g->head) {
        guest_end(g, true);
        return;
    }
    g->state = GUEST_HEAD;
    g->want = LOOP_READ;
    guest_update(g);
}

static void step_tls(struct guest *g)
{
    struct masque *m = g->m;

    switch (tls_handshake(g->tls, loop_now_us(m->loop))) {
    case TLS_DONE:
        on_opened(g);
        return;
    case TLS_WANT_READ:
        loop_io_set(m->loop, &g->io, LOOP_READ);
        return;
    case TLS_WANT_WRITE:
        loop_io_set(m->loop, &g->io, LOOP_WRITE);
        return;
    case TLS_LATER:
    case TLS_QUEUED:
        loop_io_set(m->loop, &g->io, 0);
        io_wake(g);
        return;
    case TLS_BROKEN: /* an alert may be on its way: no reset */
        MASQUE_COUNT(m, tls_failed);
        log_debug("a client's TLS failed: it %s", tls_why(g->tls));
        guest_end(g, false);
        return;
    }
}

/* ---- events ---- */

/* While we dial: a client that goes away ends the dial; one that already sends lets its bytes wait. */
static void look_for_end(struct guest *g)
{
    uint8_t byte;
    /* what TLS has read already waits, too, and their end is behind it */
    ssize_t n = tls_unread(g->tls) ? 1 : recv(loop_io_fd(&g->io), &byte, 1, MSG_PEEK);

    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        guest_end(g, true);
        return;
    }
    if (n > 0)
        g->want = 0;
    guest_update(g);
}

static void run(struct guest *g, unsigned events)
{
    switch ((enum guest_state)g->state) {
    case GUEST_TLS:
        step_tls(g);
        return;
    case GUEST_HEAD:
        if ((events & LOOP_READ) != 0)
            http1_on_readable(g);
        return;
    case GUEST_OPENING:
        look_for_end(g);
        return;
    case GUEST_RELAY:
        relay_on_client(&g->relay,
                        events & g->want & (tls_unsent(g->tls) ? LOOP_READ : LOOP_READ | LOOP_WRITE));
        return;
    case GUEST_HTTP2:
        return;
    case GUEST_LINGER:
        (void)read_away(g);
        return;
    }
}

static void run_events(struct guest *g, unsigned events)
{
    struct masque *m = g->m;

    m->running = g;
    run(g, events);
    if (m->running == g && g->state != GUEST_TLS && g->state != GUEST_HTTP2)
        guest_update(g);
    m->running = NULL;
}

static void on_io(struct loop_io *io, unsigned events)
{
    struct guest *g = CONTAINER_OF(io, struct guest, io);

    if (g->state != GUEST_TLS && (events & LOOP_WRITE) != 0)
        (void)tls_flush(g->tls); /* what is broken shows when it is read */
    run_events(g, events);
}

static void on_again(struct wheel_timer *t, uint64_t now_us)
{
    (void)now_us;
    run_events(CONTAINER_OF(t, struct guest, again), LOOP_READ);
}

static void on_deadline(struct wheel_timer *t, uint64_t now_us)
{
    (void)now_us;
    guest_end(CONTAINER_OF(t, struct guest, deadline), true);
}

int guest_new(struct masque *m, int fd)
{
    struct guest *g = slab_get(&m->guests);

    if (!g)
        return -ENOMEM;
    g->m = m;
    g->deadline.fn = on_deadline;
    g->again.fn = on_again;
    if (tls_open(m->door->tls, &tls_io, g, &g->tls) != 0) {
        slab_put(&m->guests, g);
        return -ENOMEM;
    }
    g->door = m->door;
    g->door->users++;
    g->next = m->all;
    g->at = &m->all;
    if (g->next)
        g->next->at = &g->next;
    m->all = g;
    wheel_set(m->wheel, &g->deadline, loop_now_us(m->loop) + (uint64_t)m->opt.connect_timeout_ms * 1000);
    loop_io_start(m->loop, &g->io, fd, LOOP_READ, on_io);
    return 0;
}
