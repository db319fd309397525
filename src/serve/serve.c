/* serve.c - one thread's SOCKS5 server: its options, its pools, its listener. */
#include "serve_impl.h"

#include <stdlib.h>

enum { CONNECT_TIMEOUT_MS = 10000 };

/* ---- opening ---- */

static void set_options(struct serve *s, const struct serve_options *opt)
{
    s->opt = *opt;
    if (s->opt.max_streams == 0)
        s->opt.max_streams = SERVE_STREAMS_DEFAULT;
    if (s->opt.connect_timeout_ms == 0)
        s->opt.connect_timeout_ms = CONNECT_TIMEOUT_MS;
}

static int init_pools(struct serve *s)
{
    uint32_t n = s->opt.max_streams;
    int r;

    if ((r = slab_init(&s->conns, sizeof(struct conn), n)) != 0 ||
        (r = slab_init(&s->hellos, sizeof(struct hello), n)) != 0 ||
        (r = slab_init(&s->associates, associate_bytes(), n)) != 0 ||
        (r = slab_init(&s->tunnels, tunnel_bytes(), n)) != 0)
        return r;
    return relays_init(&s->relays, n);
}

static int take_connection(void *s, int fd)
{
    return conn_new(s, fd);
}

int serve_set_access(struct serve *s, struct serve_access *a)
{
    struct upstream *direct;
    int r = serve_direct_new(a->allow, a->allows, false, &direct);

    if (r != 0) {
        serve_access_free(a);
        return r;
    }
    upstream_unref(s->direct);
    serve_access_free(s->access);
    s->direct = direct;
    s->access = a;
    return 0;
}

int serve_open(const struct serve_options *opt, struct up_env *env, struct serve **out, struct err *err)
{
    struct serve *s = calloc(1, sizeof(*s));
    struct serve_access *a = s ? serve_access_new(opt) : NULL;
    int r;

    if (!a) {
        free(s);
        return err_set(err, -ENOMEM, "no memory for a server");
    }
    set_options(s, opt);
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
    if ((r = serve_set_access(s, a)) != 0 || (r = init_pools(s)) != 0) /* it has @a now, whatever it says */
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
    if (!s)
        return;
    listener_close(&s->listener);
    while (s->all)
        conn_end(s->all, true);
    relays_fini(&s->relays);
    slab_fini(&s->associates);
    slab_fini(&s->tunnels);
    slab_fini(&s->hellos);
    slab_fini(&s->conns);
    upstream_unref(s->direct);
    serve_access_free(s->access);
    free(s);
}

const struct serve_counters *serve_counters(const struct serve *s)
{
    return &s->cnt;
}
