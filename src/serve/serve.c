/* serve.c - one thread's SOCKS5 server: its options, its pools, its listener. */
#include "serve_impl.h"

#include <stdlib.h>

enum { CONNECT_TIMEOUT_MS = 10000 };

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
        (r = slab_init(&s->associates, associate_bytes(), n)) != 0 ||
        (r = slab_init(&s->tunnels, tunnel_bytes(), n)) != 0)
        return r;
    return buffers_init(&s->relays.buffers, buffers);
}

static int take_connection(void *s, int fd)
{
    return conn_new(s, fd);
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
    s->relays.loop = s->loop;
    s->relays.wheel = s->wheel;
    s->relays.bytes[UP] = &s->cnt.bytes_up;
    s->relays.bytes[DOWN] = &s->cnt.bytes_down;
    s->listener = (struct listener){ .loop = s->loop,
                                     .wheel = s->wheel,
                                     .take = take_connection,
                                     .arg = s,
                                     .accepted = &s->cnt.accepted,
                                     .refused = &s->cnt.refused };
    if ((r = make_direct(s)) != 0 || (r = init_pools(s)) != 0)
        err_set(err, r, "no memory for a server");
    else
        r = listener_open(&s->listener, &s->opt.listen, err);
    if (r != 0) {
        serve_close(s);
        return r;
    }
    *out = s;
    return 0;
}

uint16_t serve_port(const struct serve *s)
{
    return s->listener.bound.port;
}

void serve_close(struct serve *s)
{
    size_t secrets;

    if (!s)
        return;
    listener_close(&s->listener);
    while (s->all)
        conn_end(s->all, true);
    buffers_fini(&s->relays.buffers);
    slab_fini(&s->associates);
    slab_fini(&s->tunnels);
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
