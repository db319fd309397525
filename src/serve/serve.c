/* serve.c - one thread's listener. Threads share an address by SO_REUSEPORT and nothing else.
 *
 * What always holds. When no descriptor is left the listener rests for 100 ms instead of spinning (faults.md R1); a connection
 * beyond max_streams is accepted and reset, so that its client knows at once. */
#include "serve_impl.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/mman.h>

#define ACCEPT_PAUSE_US UINT64_C(100000)

enum {
    KEEP_BUFFERS = 64, /* 4 MiB that are not given back */
    BACKLOG = 4096,
    ACCEPTS_MAX = 64, /* of one event */
    CONNECT_TIMEOUT_MS = 10000,
};

/* ---- buffers ---- */

int buffers_init(struct buffers *b, uint32_t limit)
{
    void *base = mmap(NULL, (size_t)limit * RELAY_BUFFER_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (base == MAP_FAILED)
        return -ENOMEM;
    *b = (struct buffers){ .base = base, .limit = limit };
    return 0;
}

void buffers_fini(struct buffers *b)
{
    if (b->base)
        munmap(b->base, (size_t)b->limit * RELAY_BUFFER_BYTES);
    *b = (struct buffers){ 0 };
}

uint8_t *buffers_get(struct buffers *b)
{
    void *buffer = b->free_list;

    if (buffer)
        memcpy(&b->free_list, buffer, sizeof(b->free_list));
    else if (b->touched < b->limit)
        buffer = b->base + (size_t)b->touched++ * RELAY_BUFFER_BYTES;
    else
        return NULL;
    b->in_use++;
    return buffer;
}

void buffers_put(struct buffers *b, uint8_t *buffer)
{
    memcpy(buffer, &b->free_list, sizeof(b->free_list)); /* last in, first out: it is still in the cache */
    b->free_list = buffer;
    if (--b->in_use > 0 || b->touched <= KEEP_BUFFERS)
        return;
    madvise(b->base, (size_t)b->touched * RELAY_BUFFER_BYTES,
            MADV_DONTNEED); /* a rush is over: faults.md G4 */
    b->touched = 0;
    b->free_list = NULL;
}

/* ---- accepting ---- */

static void accept_again(struct wheel_timer *t, uint64_t now_us)
{
    struct serve *s = CONTAINER_OF(t, struct serve, pause);

    (void)now_us;
    loop_io_set(s->loop, &s->listener, LOOP_READ);
}

static void rest(struct serve *s)
{
    SERVE_COUNT(s, refused);
    loop_io_set(s->loop, &s->listener, 0);
    wheel_set(s->wheel, &s->pause, loop_now_us(s->loop) + ACCEPT_PAUSE_US);
}

static void turn_away(struct serve *s, int fd)
{
    struct linger now = { .l_onoff = 1, .l_linger = 0 };

    SERVE_COUNT(s, refused);
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(fd);
}

static void on_listener(struct loop_io *io, unsigned events)
{
    struct serve *s = CONTAINER_OF(io, struct serve, listener);
    int on = 1;

    (void)events;
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        int fd = accept4(loop_io_fd(io), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
                rest(s);
            return;
        }
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (conn_new(s, fd) != 0)
            turn_away(s, fd);
        else
            SERVE_COUNT(s, accepted);
    }
}

/* ---- opening ---- */

/* The options with everything that they point to, in one block behind the server. */
static size_t options_bytes(const struct serve_options *opt)
{
    size_t bytes = opt->user_count * sizeof(*opt->users);

    for (size_t i = 0; i < opt->user_count; i++)
        bytes += strlen(opt->users[i].name) + strlen(opt->users[i].password) + 2;
    return bytes;
}

static const char *put_text(char **cursor, const char *text)
{
    size_t len = strlen(text) + 1;
    char *at = memcpy(*cursor, text, len);

    *cursor += len;
    return at;
}

static void copy_options(struct serve *s, const struct serve_options *opt)
{
    struct serve_user *users = (struct serve_user *)(s + 1);
    char *cursor = (char *)(users + opt->user_count);

    s->opt = *opt;
    s->opt.users = users;
    for (size_t i = 0; i < opt->user_count; i++) {
        users[i].name = put_text(&cursor, opt->users[i].name);
        users[i].password = put_text(&cursor, opt->users[i].password);
    }
    if (s->opt.max_streams == 0)
        s->opt.max_streams = SERVE_STREAMS_DEFAULT;
    if (s->opt.connect_timeout_ms == 0)
        s->opt.connect_timeout_ms = CONNECT_TIMEOUT_MS;
}

static int make_direct(struct serve *s)
{
    struct upstream_options direct = { .name = "DIRECT", .kind = UPSTREAM_DIRECT };

    direct.allow = s->opt.allow;
    direct.allows = s->opt.allows;
    return upstream_new(&direct, &s->direct);
}

static int init_pools(struct serve *s)
{
    uint32_t n = s->opt.max_streams, buffers = n > RELAY_BUFFERS_MAX / 2 ? RELAY_BUFFERS_MAX : 2 * n;
    int r;

    if ((r = slab_init(&s->conns, sizeof(struct conn), n)) != 0 ||
        (r = slab_init(&s->hellos, sizeof(struct hello), n)) != 0 ||
        (r = slab_init(&s->associates, associate_bytes(), n)) != 0)
        return r;
    return buffers_init(&s->buffers, buffers);
}

static int bind_listener(struct serve *s, int fd)
{
    struct sockaddr_storage ss;
    socklen_t len = ip_to_sockaddr(&s->opt.listen, &ss);
    int on = 1;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0 ||
        bind(fd, (struct sockaddr *)&ss, len) != 0 || listen(fd, BACKLOG) != 0)
        return -errno;
    len = sizeof(ss);
    if (getsockname(fd, (struct sockaddr *)&ss, &len) != 0)
        return -errno;
    return ip_from_sockaddr((struct sockaddr *)&ss, &s->bound);
}

static int listen_at(struct serve *s, struct err *err)
{
    char text[IP_PORT_TEXT_MAX];
    int family = ip_is4(&s->opt.listen.addr) ? AF_INET : AF_INET6;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), r;

    ip_port_text(&s->opt.listen, text);
    if (fd < 0)
        return err_set(err, -errno, "cannot open a socket for %s: %s", text, strerror(errno));
    r = bind_listener(s, fd);
    if (r != 0) {
        close(fd);
        if (r == -EADDRINUSE)
            return err_set(err, r, "%s is in use by another program; choose another port", text);
        if (r == -EADDRNOTAVAIL)
            return err_set(err, r, "%s is no address of this machine", text);
        return err_set(err, r, "cannot listen on %s: %s", text, strerror(-r));
    }
    loop_io_start(s->loop, &s->listener, fd, LOOP_READ, on_listener);
    return 0;
}

int serve_open(const struct serve_options *opt, struct up_env *env, struct serve **out, struct err *err)
{
    struct serve *s = calloc(1, sizeof(*s) + options_bytes(opt));
    int r;

    if (!s)
        return err_set(err, -ENOMEM, "no memory for a server");
    copy_options(s, opt);
    s->env = env;
    s->loop = up_env_loop(env);
    s->wheel = up_env_wheel(env);
    s->pause.fn = accept_again;
    if ((r = make_direct(s)) != 0 || (r = init_pools(s)) != 0)
        err_set(err, r, "no memory for a server");
    else
        r = listen_at(s, err);
    if (r != 0) {
        serve_close(s);
        return r;
    }
    *out = s;
    return 0;
}

uint16_t serve_port(const struct serve *s)
{
    return s->bound.port;
}

void serve_close(struct serve *s)
{
    size_t secrets;

    if (!s)
        return;
    wheel_cancel(s->wheel, &s->pause);
    if (loop_io_active(&s->listener)) {
        int fd = loop_io_fd(&s->listener);

        loop_io_stop(s->loop, &s->listener);
        close(fd);
    }
    while (s->all)
        conn_end(s->all, true);
    buffers_fini(&s->buffers);
    slab_fini(&s->associates);
    slab_fini(&s->hellos);
    slab_fini(&s->conns);
    upstream_unref(s->direct);
    secrets = options_bytes(&s->opt);
    explicit_bzero(s + 1, secrets);
    free(s);
}

const struct serve_counters *serve_counters(const struct serve *s)
{
    return &s->cnt;
}
