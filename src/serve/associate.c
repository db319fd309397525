/* associate.c - UDP ASSOCIATE: datagrams between one client and the world (RFC 1928 sections 6 and 7).
 *
 * How it works. A socket is bound to the address at which the client reached us, so that the announced relay is one that it
 * can reach. The first datagram from the client's address decides its port; from then on the socket is connected to it and
 * the kernel keeps others out. Outwards goes one DIRECT association, so every target sees the same port (RFC 4787 REQ-1).
 *
 * Rows stay rows: datagrams to one target that came together leave together, their payloads moved next to each other; and
 * replies of one source that came together go to the client as one row with a header before each.
 *
 * Dropped and counted: fragments and malformed headers, targets that are not allowed. */
#include "serve_impl.h"

enum { ROUNDS = 4 };

struct associate {
    void *free_link; /* the slab's */
    struct conn *conn;
    struct loop_io io; /* the client's side */
    struct up_udp *udp;
    struct ip_addr client;
    bool has_io, latched;
};

size_t associate_bytes(void)
{
    return sizeof(struct associate);
}

void associate_close(struct associate *a)
{
    struct serve *s;

    if (!a)
        return;
    s = a->conn->s;
    if (a->has_io) {
        int fd = loop_io_fd(&a->io);

        loop_io_stop(s->loop, &a->io);
        close(fd);
    }
    up_udp_close(a->udp);
    a->conn->associate = NULL;
    slab_put(&s->associates, a);
}

/* ---- from the client ---- */

/* Datagrams to one target, lying next to each other. */
struct run {
    const uint8_t *header;
    size_t header_len;
    struct socks5_address target;
    uint8_t *data;
    size_t len, size;
    bool any, closed; /* closed: a shorter one ended it */
};

static void send_run(struct associate *a, struct run *run)
{
    struct serve *s = a->conn->s;
    struct host_port to = { NULL, run->target.ip.addr, run->target.ip.port };
    char name[256];

    if (!run->any)
        return;
    run->any = false;
    if (run->target.name) {
        memcpy(name, run->target.name, run->target.name_len);
        name[run->target.name_len] = '\0';
        to.name = name;
    }
    if (up_udp_send(a->udp, &to, run->data, run->len, (uint16_t)(run->len > run->size ? run->size : 0), 0,
                    0) != 0)
        SERVE_COUNT(s, bad_requests);
}

static bool continues(const struct run *run, const uint8_t *header, size_t header_len, size_t len)
{
    return run->any && !run->closed && run->header_len == header_len && len <= run->size && len > 0 &&
           memcmp(run->header, header, header_len) == 0;
}

static void take_datagram(struct associate *a, struct run *run, uint8_t *data, size_t len)
{
    struct span rest = { data, len };
    struct socks5_address target;
    size_t header_len;

    if (socks5_udp_get(&rest, &target) != 0 ||
        (target.name && (target.name_len == 0 || memchr(target.name, 0, target.name_len)))) {
        SERVE_COUNT(a->conn->s, bad_requests);
        return;
    }
    SERVE_COUNT(a->conn->s, datagrams_up);
    header_len = len - rest.len;
    if (continues(run, data, header_len, rest.len)) {
        memmove(run->data + run->len, rest.data, rest.len);
        run->len += rest.len;
        run->closed = rest.len < run->size;
        return;
    }
    send_run(a, run);
    *run = (struct run){ .header = data,
                         .header_len = header_len,
                         .target = target,
                         .data = data + header_len,
                         .len = rest.len,
                         .size = rest.len,
                         .any = true };
}

static bool is_the_client(struct associate *a, const struct ip_port *source)
{
    struct sockaddr_storage ss;

    if (!ip_equal(&source->addr, &a->client))
        return false;
    if (!a->latched)
        a->latched = connect(loop_io_fd(&a->io), (struct sockaddr *)&ss, ip_to_sockaddr(source, &ss)) == 0;
    return a->latched;
}

static void take_row(struct associate *a, const struct up_row_in *in)
{
    struct run run = { 0 };
    size_t off = 0;

    if (!is_the_client(a, &in->source)) {
        SERVE_COUNT(a->conn->s, bad_requests);
        return;
    }
    do {
        size_t len = in->len - off < in->gso_size ? in->len - off : in->gso_size;

        take_datagram(a, &run, in->data + off, len);
        off += len;
    } while (off < in->len);
    send_run(a, &run);
}

static void on_client(struct loop_io *io, unsigned events)
{
    struct associate *a = CONTAINER_OF(io, struct associate, io);
    struct up_env *env = a->conn->s->env;

    (void)events;
    for (int round = 0; round < ROUNDS; round++) {
        int n = up_rows_receive(env, loop_io_fd(io));

        if (n < 0 && n != -ECONNREFUSED) /* the client's port was closed for a moment: go on */
            return;
        for (int i = 0; i < n; i++) {
            struct up_row_in in;

            up_row_received(env, i, &in);
            take_row(a, &in);
        }
        if (n >= 0 && n < UP_ROWS_MAX)
            return;
    }
}

/* ---- from the world ---- */

/* How many of @d, from the first on, are a row: one source, one length, next to each other in memory. */
static size_t row_length(const struct up_datagram *d, size_t n)
{
    size_t i = 1;

    while (i < n && d[i].len > 0 && d[i].len <= d[0].len && d[i - 1].len == d[0].len &&
           d[i].data == d[i - 1].data + d[i - 1].len && ip_port_equal(&d[i].source, &d[0].source))
        i++;
    return i;
}

static void on_datagrams(void *arg, const struct up_datagram *d, size_t n)
{
    struct associate *a = arg;
    struct serve *s = a->conn->s;
    uint8_t header[SOCKS5_UDP_HEADER_MAX];

    for (size_t i = 0, row; i < n && a->latched; i += row) {
        struct host_port from = { NULL, d[i].source.addr, d[i].source.port };
        struct iovec data = { (void *)(uintptr_t)d[i].data, 0 };
        struct up_row_out o = { .header = header, .data = &data, .ranges = 1 };
        size_t sent;

        row = row_length(d + i, n - i);
        o.header_len = socks5_udp_put(header, &from);
        o.gso_size = (uint16_t)(row > 1 ? d[i].len : 0);
        o.len = data.iov_len = (row - 1) * d[i].len + d[i + row - 1].len;
        (void)up_rows_send(s->env, loop_io_fd(&a->io), &o, &sent);
        counter_add(&s->cnt.datagrams_down, sent);
    }
}

static void on_open(void *arg)
{
    struct associate *a = arg;
    struct conn *c = a->conn;
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);
    struct ip_port relay;

    if (getsockname(loop_io_fd(&a->io), (struct sockaddr *)&ss, &len) != 0 ||
        ip_from_sockaddr((struct sockaddr *)&ss, &relay) != 0) {
        conn_end(c, true);
        return;
    }
    if (!conn_reply(c, REPLY_OK, &relay))
        return;
    SERVE_COUNT(c->s, udp_associations);
    wheel_cancel(c->s->wheel, &c->timer);
    c->state = CONN_UDP;
    slab_put(&c->s->hellos, c->hello);
    c->hello = NULL;
    loop_io_set(c->s->loop, &c->io, LOOP_READ);
    loop_io_set(c->s->loop, &a->io, LOOP_READ);
}

static void on_closed(void *arg, const struct up_failure *why)
{
    struct associate *a = arg;

    (void)why;
    a->udp = NULL;
    conn_end(a->conn, true);
}

static const struct up_udp_events udp_events = { .on_open = on_open,
                                                 .on_datagrams = on_datagrams,
                                                 .on_closed = on_closed };

/* ---- opening ---- */

static int end_of(int fd, int (*which)(int, struct sockaddr *, socklen_t *), struct ip_port *out)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof(ss);

    return which(fd, (struct sockaddr *)&ss, &len) != 0 ? -errno
                                                        : ip_from_sockaddr((struct sockaddr *)&ss, out);
}

static int bind_relay(struct associate *a, const struct ip_port *here)
{
    struct ip_port any_port = { here->addr, 0 };
    bool v6 = !ip_is4(&here->addr);
    int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_storage ss;

    if (fd < 0)
        return -errno;
    up_rows_prepare(fd, v6, false);
    if (bind(fd, (struct sockaddr *)&ss, ip_to_sockaddr(&any_port, &ss)) != 0) {
        int r = -errno;

        close(fd);
        return r;
    }
    loop_io_start(a->conn->s->loop, &a->io, fd, 0, on_client);
    a->has_io = true;
    return 0;
}

int associate_open(struct conn *c)
{
    struct serve *s = c->s;
    struct associate *a = slab_get(&s->associates);
    struct ip_port here, client;
    int r;

    if (!a)
        return -ENOMEM;
    a->conn = c;
    c->associate = a;
    if ((r = end_of(loop_io_fd(&c->io), getsockname, &here)) != 0 ||
        (r = end_of(loop_io_fd(&c->io), getpeername, &client)) != 0 || (r = bind_relay(a, &here)) != 0 ||
        (r = up_udp_open(s->env, s->direct, (uint64_t)s->opt.connect_timeout_ms * 1000, &udp_events, a,
                         &a->udp)) != 0) {
        associate_close(a);
        return r == -EOPNOTSUPP ? -EIO : r;
    }
    a->client = client.addr;
    return 0;
}
