/* mq_server.c - TLS and HTTP/2 by our own folders, and answers by the test's wishes. */
#include "mq_server.h"

#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "mq_relay.h"
#include "pki.h"

/* ---- streams ---- */

static void put_stream(struct mq_stream *s)
{
    s->s = NULL;
    mq_relay_end(s);
}

static void echo_bytes(struct mq_stream *s)
{
    char data[16384];
    ssize_t n;

    for (;;) {
        struct iovec out;

        n = h2_recv(s->s, data, h2_unsent(s->s) ? 4096 : sizeof(data));
        if (n <= 0)
            break;
        s->got += (size_t)n;
        out = (struct iovec){ data, (size_t)n };
        if (h2_sendv(s->s, &out, 1) != n) /* a test sends less than what may wait */
            fail_msg("the echo does not fit");
        if (h2_unsent(s->s))
            break;
    }
    if (n == 0)
        h2_shutdown(s->s);
}

static uint16_t sum_of(const uint8_t *data, size_t len, uint32_t sum)
{
    return (uint16_t)~csum_fold(csum_add(sum, data, len));
}

/* Turns the request into its reply, in place. */
static void make_reply(uint8_t *p, size_t len)
{
    uint8_t addr[16];
    uint16_t sum;

    if (p[0] >> 4 == 4) {
        memcpy(addr, p + 12, 4);
        memcpy(p + 12, p + 16, 4);
        memcpy(p + 16, addr, 4);
        p[8] = 61;
        memset(p + 10, 0, 2);
        sum = sum_of(p, 20, 0);
        memcpy(p + 10, &sum, 2);
        p[20] = 0;
        memset(p + 22, 0, 2);
        sum = sum_of(p + 20, len - 20, 0);
        memcpy(p + 22, &sum, 2);
    } else {
        struct ip_addr src = ip_from6(p + 24), dst = ip_from6(p + 8);

        memcpy(p + 8, src.b, 16);
        memcpy(p + 24, dst.b, 16);
        p[7] = 61;
        p[40] = 129;
        memset(p + 42, 0, 2);
        sum = sum_of(p + 40, len - 40, csum_pseudo(&src, &dst, 58, (uint32_t)(len - 40)));
        memcpy(p + 42, &sum, 2);
    }
}

static void send_back(struct mq_stream *s, const uint8_t *data, size_t len)
{
    struct iovec out = { (void *)(uintptr_t)data, len };

    assert_int_equal(h2_datagram_send(s->s, 0, &out, 1, UINT64_MAX), 0);
}

static void on_datagram(struct mq_stream *s, uint8_t *data, size_t len)
{
    struct mq_server *q = s->conn->server;

    if (s->proto == 0) {
        send_back(s, data, len);
        return;
    }
    q->pings++;
    q->last_ping_len = len;
    memcpy(q->last_ping, data, len < sizeof(q->last_ping) ? len : sizeof(q->last_ping));
    if (q->mute_echo)
        return;
    if (q->answer_len > 0) {
        send_back(s, q->answer, q->answer_len);
        return;
    }
    make_reply(data, len);
    send_back(s, data, len);
}

static void echo_capsules(struct mq_stream *s)
{
    static uint8_t memory[H2_DATAGRAM_MAX];
    struct capsule c;
    int r;

    while ((r = h2_capsule_recv(s->s, memory, sizeof(memory), &c)) == 1) {
        if (c.type == CAPSULE_DATAGRAM && c.len > 0 && memory[0] == 0)
            on_datagram(s, memory + 1, c.len - 1);
    }
    if (r == 0)
        h2_shutdown(s->s);
}

static void on_readable(void *arg)
{
    struct mq_stream *s = arg;

    if (s->conn->server->hold)
        h2_want(s->s, 0);
    else if (s->relay)
        mq_relay_turn(s);
    else if (s->capsules)
        echo_capsules(s);
    else
        echo_bytes(s);
}

static void on_stream_closed(void *arg, int err, uint32_t code)
{
    (void)err;
    ((struct mq_stream *)arg)->conn->server->resets += code != H2_NO_ERROR;
    put_stream(arg);
}

static const struct h2_stream_events stream_events = { NULL, on_readable, on_readable, on_stream_closed };

static void copy(char *to, size_t cap, const char *text)
{
    snprintf(to, cap, "%s", text ? text : "");
}

static void assign(struct mq_stream *s)
{
    uint8_t value[64];
    struct buf b;
    struct capsule_address a = { 0, { { { { 0 } } }, 128 } };

    assert_int_equal(ip_parse(s->proto == 1 ? "198.51.100.7" : "2001:db8::7", &a.prefix.addr), 0);
    buf_init(&b, value, sizeof(value));
    capsule_address_put(&b, &a);
    assert_int_equal(h2_capsule_send(s->s, CAPSULE_ADDRESS_ASSIGN, value, b.len), 0);
}

static void answer(struct mq_stream *s, const struct h2_head *request)
{
    static const struct h2_datagram_options queue = { 128, 256 * 1024, true };
    struct mq_server *q = s->conn->server;
    unsigned status = q->tcp_status;
    struct h2_field field = { "proxy-status", q->proxy_status };
    struct h2_head head = { .fields = &field };

    if (request->protocol)
        status = strcmp(request->protocol, "connect-udp") == 0 ? q->udp_status : q->ip_status;
    if (status == 0)
        return;
    head.status = status;
    head.end = status < 200 || status > 299;
    head.field_count = head.end && q->proxy_status ? 1 : 0;
    assert_int_equal(h2_respond(s->s, &head), 0);
    if (head.end) { /* and what they still send is not wanted (RFC 9113 section 8.1) */
        h2_stream_close(s->s, H2_NO_ERROR);
        put_stream(s);
    }
    if (!head.end && !request->protocol && q->relay != 0)
        mq_relay_start(s, q->relay);
    if (head.end || !request->protocol)
        return;
    s->capsules = true;
    assert_int_equal(h2_datagrams(s->s, &queue), 0);
    if (strcmp(request->protocol, "connect-ip") == 0) {
        char target[256];
        int proto;

        assert_int_equal(masque_ip_path_get(request->path, target, &proto), 0);
        assert_string_equal(target, "*");
        s->proto = (uint8_t)proto;
        if (!q->no_address)
            assign(s);
    }
}

static void on_request(void *arg, struct h2_stream *stream, const struct h2_head *head)
{
    struct mq_conn *c = arg;
    struct mq_server *q = c->server;
    struct mq_stream *s = q->streams;

    q->requests++;
    while (s->s) {
        assert_true(s < q->streams + MQ_STREAMS - 1);
        s++;
    }
    *s = (struct mq_stream){ .conn = c, .s = stream };
    copy(q->login, sizeof(q->login), h2_field(head, "proxy-authorization"));
    copy(q->last_path, sizeof(q->last_path), head->path);
    copy(q->last_protocol, sizeof(q->last_protocol), head->protocol);
    copy(q->last_authority, sizeof(q->last_authority), head->authority);
    h2_accept(stream, &stream_events, s);
    if (q->reset != H2_NO_ERROR) {
        h2_stream_close(stream, q->reset);
        put_stream(s);
        return;
    }
    answer(s, head);
}

/* ---- connections ---- */

static void conn_end(struct mq_conn *c, bool reset)
{
    struct linger now = { .l_onoff = 1, .l_linger = 0 };
    struct mq_server *q = c->server;

    if (!c->active)
        return;
    c->active = false;
    for (size_t i = 0; i < MQ_STREAMS; i++) {
        if (q->streams[i].conn == c)
            put_stream(&q->streams[i]);
    }
    wheel_cancel(&q->rig->wheel, &c->later);
    if (loop_io_active(&c->io))
        loop_io_stop(q->rig->loop, &c->io);
    if (reset)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    h2_close(c->h2);
    tls_free(c->tls);
    close(c->fd);
}

static void on_conn_closed(void *arg, int err, const char *why)
{
    struct mq_conn *c = arg;

    (void)err, (void)why;
    conn_end(c, false);
}

static const struct h2_events conn_events = { NULL, on_request, NULL, NULL, on_conn_closed };

static ssize_t sock_recv(void *arg, void *to, size_t len)
{
    ssize_t n = recv(((struct mq_conn *)arg)->fd, to, len, 0);

    return n < 0 ? -errno : n;
}

static ssize_t sock_send(void *arg, const void *data, size_t len)
{
    ssize_t n = send(((struct mq_conn *)arg)->fd, data, len, MSG_NOSIGNAL);

    return n < 0 ? -errno : n;
}

static const struct tls_io sock_io = { sock_recv, sock_send, NULL };

static void open_h2(struct mq_conn *c)
{
    struct mq_server *q = c->server;
    struct h2_options opt = { .loop = q->rig->loop,
                              .wheel = &q->rig->wheel,
                              .server = true,
                              .fd = c->fd,
                              .tls = c->tls,
                              .max_streams = q->max_streams,
                              .events = &conn_events,
                              .arg = c };

    loop_io_stop(q->rig->loop, &c->io);
    if (!q->raw) {
        assert_int_equal(h2_open(&opt, &c->h2), 0);
    } else if (q->raw[0]) {
        struct iovec out = { (void *)(uintptr_t)q->raw, strlen(q->raw) };

        assert_true(tls_sendv(c->tls, &out, 1) > 0);
    }
}

static void shake_hands(struct mq_conn *c)
{
    static uint64_t turn;
    enum tls_step step;

    while ((step = tls_handshake(c->tls, ++turn)) == TLS_LATER)
        ;
    if (step == TLS_BROKEN)
        conn_end(c, false);
    else if (step == TLS_DONE)
        open_h2(c);
}

static void on_conn_io(struct loop_io *io, unsigned events)
{
    (void)events;
    shake_hands(CONTAINER_OF(io, struct mq_conn, io));
}

static void on_listener(struct loop_io *io, unsigned events)
{
    struct mq_server *q = CONTAINER_OF(io, struct mq_server, listener);
    struct mq_conn *c = q->conns;
    int fd = accept4(loop_io_fd(io), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)events;
    if (fd < 0)
        return;
    q->accepted++;
    while (c->active) {
        assert_true(c < q->conns + MQ_CONNS - 1);
        c++;
    }
    *c = (struct mq_conn){ .server = q, .fd = fd, .active = true };
    assert_int_equal(tls_open(q->context, &sock_io, c, &c->tls), 0);
    loop_io_start(q->rig->loop, &c->io, fd, LOOP_READ, on_conn_io);
}

void mq_open(struct mq_server *q, struct up_rig *rig, const char *alpn)
{
    const struct pki_id *id = pki_server();
    struct tls_options opt = { .server = true, .certificate = id->certificate, .private_key = id->key };
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct tls_settings *settings;
    struct err err;

    memset(q, 0, sizeof(*q));
    q->rig = rig;
    q->alpn = alpn;
    q->tcp_status = q->udp_status = q->ip_status = 200;
    opt.alpn = &q->alpn;
    opt.alpns = alpn ? 1 : 0;
    assert_int_equal(tls_worker_new(&q->worker), 0);
    assert_int_equal(tls_settings_new(&opt, &settings, &err), 0);
    assert_int_equal(tls_context_new(q->worker, settings, NULL, &q->context), 0);
    tls_settings_unref(settings);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    q->port = ntohs(at.sin_port);
    loop_io_start(rig->loop, &q->listener, fd, LOOP_READ, on_listener);
}

void mq_drain(struct mq_server *q)
{
    for (size_t i = 0; i < MQ_CONNS; i++) {
        if (q->conns[i].active && q->conns[i].h2)
            h2_drain(q->conns[i].h2);
    }
}

void mq_go_away(struct mq_server *q, uint32_t last_id)
{
    uint8_t frame[17] = { 0, 0, 8, 7 };
    struct iovec out = { frame, sizeof(frame) };

    put_be32(frame + 9, last_id);
    for (size_t i = 0; i < MQ_CONNS; i++) {
        if (q->conns[i].active && q->conns[i].h2)
            assert_int_equal(tls_sendv(q->conns[i].tls, &out, 1), sizeof(frame));
    }
}

void mq_cut(struct mq_server *q)
{
    for (size_t i = 0; i < MQ_CONNS; i++)
        conn_end(&q->conns[i], true);
}

void mq_close(struct mq_server *q)
{
    int fd = loop_io_fd(&q->listener);

    for (size_t i = 0; i < MQ_CONNS; i++)
        conn_end(&q->conns[i], false);
    loop_io_stop(q->rig->loop, &q->listener);
    close(fd);
    tls_context_free(q->context);
    tls_worker_free(q->worker);
}

struct upstream *mq_upstream(const struct mq_server *q, const char *username, const char *password,
                             const char *token)
{
    static const char *const alpn[] = { H2_ALPN };
    const struct pki_id *authority = pki_authority();
    struct upstream_options o = { .name = "exit",
                                  .kind = UPSTREAM_MASQUE,
                                  .server = rig_to("127.0.0.1", q->port),
                                  .username = username,
                                  .password = password,
                                  .token = token,
                                  .secure = true };
    struct tls_options opt = { .resume = true, .alpn = alpn, .alpns = 1 };
    struct upstream *up;
    struct err err;

    assert_int_equal(tls_ca_parse(authority->certificate, strlen(authority->certificate), &opt.ca, &err), 0);
    assert_int_equal(tls_settings_new(&opt, &o.tls, &err), 0);
    assert_int_equal(upstream_new(&o, &up), 0);
    tls_settings_unref(o.tls);
    tls_ca_unref(opt.ca);
    return up;
}

void mq_lab_init(struct mq_lab *l, const char *alpn)
{
    rig_init(&l->rig);
    mq_open(&l->server, &l->rig, alpn);
    l->up = mq_upstream(&l->server, NULL, NULL, NULL);
}

void mq_lab_fini(struct mq_lab *l)
{
    upstream_unref(l->up);
    mq_close(&l->server);
    rig_fini(&l->rig);
}

void mq_start(struct mq_lab *l, struct stream_log *log, const char *host, uint16_t port, unsigned timeout_ms)
{
    struct host_port to = rig_to(host, port);

    stream_start(&l->rig, log, l->up, &to, timeout_ms);
}
