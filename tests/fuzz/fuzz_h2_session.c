/* fuzz_h2_session.c - whole sessions of HTTP/2 at both ends: any bytes as what a peer says to our server, or to our client.
 * The first byte: bit 0 client or server; bit 1 the server's peer begins with a proper preface; bits 2 to 4 how many bytes
 * arrive at a time. Owners do what ours do: take requests, read, echo, read and send datagrams, close. The second byte says when they
 * close. What always holds: everybody owned hears of its end once, and nothing that was freed is touched. */
#undef NDEBUG /* its promises are checked in every build */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "culvert/h2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OWNERS = 32 };

struct fuzz;
struct owner {
    struct fuzz *f;
    struct h2_stream *s; /* NULL: free */
    bool capsules;
    unsigned told;
};
struct fuzz {
    struct h2 *h;
    bool over;
    bool asked;       /* for a tunnel of packets: a client does it once */
    uint8_t patience; /* events until an owner closes its stream */
    struct owner owners[OWNERS];
};

static struct loop *loop;
static struct wheel wheel;

/* ---- owners ---- */

static void send_back(struct owner *o, const uint8_t *data, size_t len)
{
    struct iovec iov = { (void *)(uintptr_t)data, len };

    if (o->capsules) {
        h2_cork(o->s);
        (void)h2_datagram_send(o->s, 0, &iov, 1, UINT64_MAX);
        (void)h2_datagram_send(o->s, 0, &iov, 1, 0); /* late already */
        h2_uncork(o->s);
    } else {
        (void)h2_sendv(o->s, &iov, 1);
    }
}

static ssize_t read_one(struct owner *o)
{
    static uint8_t memory[H2_DATAGRAM_MAX];
    struct capsule c;
    ssize_t n;

    if (!o->capsules) {
        n = h2_recv(o->s, memory, sizeof(memory));
        if (n > 0)
            send_back(o, memory, (size_t)n);
        return n;
    }
    n = h2_capsule_recv(o->s, memory, sizeof(memory), &c);
    if (n == 1 && c.type == CAPSULE_DATAGRAM)
        send_back(o, c.value, c.len);
    return n;
}

static void on_readable(void *arg)
{
    struct owner *o = arg;
    ssize_t n = 1;

    assert(o->s);
    for (int i = 0; i < 16 && n > 0; i++)
        n = read_one(o);
    if (n == 0)
        h2_shutdown(o->s);
    if (++o->told > o->f->patience || n == -EBADMSG) {
        struct h2_stream *s = o->s;

        o->s = NULL;
        h2_stream_close(s, H2_CANCEL);
    }
}

static void on_response(void *arg, const struct h2_head *head)
{
    struct owner *o = arg;

    assert(o->s && head->status >= 200 && head->status <= 999);
    for (size_t i = 0; i < head->field_count; i++)
        assert(head->fields[i].name && head->fields[i].value);
}

static void on_writable(void *arg)
{
    assert(((struct owner *)arg)->s);
}

static void on_stream_closed(void *arg, int err, uint32_t code)
{
    struct owner *o = arg;

    (void)code;
    assert(o->s && err != 0); /* once */
    o->s = NULL;
}

static const struct h2_stream_events stream_events = { on_response, on_readable, on_writable,
                                                       on_stream_closed };

static struct owner *free_owner(struct fuzz *f)
{
    for (size_t i = 0; i < OWNERS; i++) {
        if (!f->owners[i].s) {
            f->owners[i] = (struct owner){ .f = f };
            return &f->owners[i];
        }
    }
    return NULL;
}

static void datagrams(struct owner *o)
{
    static const struct h2_datagram_options queue = { 8, 512 * 1024, true };

    o->capsules = h2_datagrams(o->s, &queue) == 0;
}

/* ---- connections ---- */

static void on_request(void *arg, struct h2_stream *s, const struct h2_head *head)
{
    struct fuzz *f = arg;
    struct owner *o = free_owner(f);
    struct h2_head answer = { .status = 200 };

    assert(head->method && strlen(head->method) < H2_HEAD_MAX);
    if (!o)
        return;
    o->s = s;
    h2_accept(s, &stream_events, o);
    answer.end = strcmp(head->method, "CONNECT") != 0;
    (void)h2_respond(s, &answer);
    if (head->protocol && o->s)
        datagrams(o);
}

static void ask(struct fuzz *f, const char *protocol)
{
    struct h2_head head = { .method = "CONNECT", .authority = "a.test:443" };
    struct owner *o = free_owner(f);

    if (protocol) {
        head.protocol = protocol;
        head.scheme = "https";
        head.path = "/.well-known/masque/ip/%2A/1/";
    }
    if (!o || h2_request(f->h, &head, &stream_events, o, &o->s) != 0)
        return;
    if (protocol)
        datagrams(o);
    else
        send_back(o, (const uint8_t *)"hello", 5);
}

static void on_closed(void *arg, int err, const char *why)
{
    struct fuzz *f = arg;

    (void)err;
    assert(!f->over && why);
    f->over = true;
    for (size_t i = 0; i < OWNERS; i++)
        assert(!f->owners[i].s); /* they were told before */
}

static const struct h2_events events = { NULL, on_request, NULL, NULL, on_closed };

static void turns(struct fuzz *f)
{
    for (int i = 0; i < 4 && !f->over; i++) {
        h2_turn(f->h, LOOP_READ | LOOP_WRITE);
        if (!f->over && !f->asked && h2_has_settings(f->h) && h2_has_extended_connect(f->h)) {
            f->asked = true;
            ask(f, "connect-ip");
        }
        wheel_advance(&wheel, clock_now_us());
    }
}

static void drain(int fd)
{
    static uint8_t nothing[65536];

    while (recv(fd, nothing, sizeof(nothing), MSG_DONTWAIT) > 0)
        ;
}

static void say(struct fuzz *f, int fd, const uint8_t *data, size_t len, size_t piece)
{
    for (size_t at = 0; at < len && !f->over; at += piece) {
        size_t n = len - at < piece ? len - at : piece;

        if (send(fd, data + at, n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)n)
            return;
        turns(f);
        drain(fd);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    struct fuzz f = { 0 };
    struct h2_options opt = { .events = &events, .arg = &f, .max_streams = 16, .receive_bytes = 256 * 1024 };
    size_t piece;
    int fds[2];

    if (size < 2)
        return 0;
    if (!loop) {
        assert(loop_new(&loop) == 0);
        wheel_init(&wheel, clock_now_us());
    }
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    opt.loop = loop;
    opt.wheel = &wheel;
    opt.server = (data[0] & 1) != 0;
    opt.fd = fds[0];
    f.asked = opt.server;
    f.patience = data[1];
    piece = (size_t)1 << 2 * ((data[0] >> 2 & 7) + 1);
    assert(h2_open(&opt, &f.h) == 0);
    if (opt.server && (data[0] & 2) != 0)
        say(&f, fds[1], (const uint8_t *)preface, sizeof(preface) - 1, sizeof(preface));
    if (!opt.server)
        ask(&f, NULL);
    say(&f, fds[1], data + 2, size - 2, piece);
    if (!f.over) {
        shutdown(fds[1], SHUT_WR);
        turns(&f);
    }
    if (!f.over)
        h2_close(f.h);
    wheel_advance(&wheel, clock_now_us());
    assert(wheel.pending == 0);
    close(fds[0]);
    close(fds[1]);
    return 0;
}
