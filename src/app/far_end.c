/* far_end.c - one thread of a SOCKS5 server.
 *
 * A turn of its loop: sockets and posted messages, then the wheel's timers that are due, then sleep until the next one. */
#include "far_end.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "culvert/resolver.h"

struct far_end {
    struct loop *loop;
    struct wheel wheel;
    struct loop_timer timer;
    uint64_t timer_us; /* what `timer` is set to */
    struct up_socket_rules rules;
    struct resolver *resolver;
    struct up_env *env;
    struct serve *serve;
    pthread_t thread;
    bool started;
};

/* ---- time ---- */

static void on_timer(struct loop_timer *t)
{
    CONTAINER_OF(t, struct far_end, timer)->timer_us = UINT64_MAX; /* the hook of this turn does the rest */
}

static void on_turn_end(void *arg)
{
    struct far_end *f = arg;
    uint64_t next_us;

    wheel_advance(&f->wheel, loop_now_us(f->loop));
    next_us = wheel_next_us(&f->wheel);
    if (next_us == f->timer_us)
        return;
    f->timer_us = next_us;
    if (next_us == UINT64_MAX)
        loop_timer_stop(f->loop, &f->timer);
    else
        loop_timer_start(f->loop, &f->timer, next_us, on_timer);
}

/* ---- names ---- */

static int resolve(void *arg, const char *name, up_resolved_fn *fn, void *fn_arg, struct up_resolve **out)
{
    struct far_end *f = arg;

    return resolver_query(f->resolver, name, fn, fn_arg, (struct resolver_query **)(void *)out);
}

static void resolve_cancel(void *arg, struct up_resolve *q)
{
    (void)arg;
    resolver_cancel((struct resolver_query *)(void *)q);
}

/* ---- life ---- */

static int open_env(struct far_end *f, uint32_t streams)
{
    struct up_env_options opt = {
        .loop = f->loop,
        .wheel = &f->wheel,
        .rules = &f->rules,
        .resolve = resolve,
        .resolve_cancel = resolve_cancel,
        .resolve_arg = f,
        .max_streams = streams,
        .max_udp = streams,
    };
    int r = random_bytes(&opt.seed, sizeof(opt.seed));

    return r != 0 ? r : up_env_new(&opt, &f->env);
}

int far_end_new(const struct serve_options *opt, struct far_end **out, struct err *err)
{
    struct far_end *f = calloc(1, sizeof(*f));
    struct resolver_options names = { 0 };
    int r;

    if (f == NULL)
        return err_set(err, -ENOMEM, "no memory");
    wheel_init(&f->wheel, clock_now_us());
    f->timer_us = UINT64_MAX;
    if ((r = loop_new(&f->loop)) != 0 || (r = resolver_new(f->loop, &names, &f->resolver)) != 0 ||
        (r = open_env(f, opt->max_streams ? opt->max_streams : SERVE_STREAMS_DEFAULT)) != 0)
        err_set(err, r, "the SOCKS5 server cannot be set up: %s", strerror(-r));
    else
        r = serve_open(opt, f->env, &f->serve, err);
    if (r != 0) {
        far_end_free(f);
        return r;
    }
    loop_on_turn_end(f->loop, on_turn_end, f);
    *out = f;
    return 0;
}

uint16_t far_end_port(const struct far_end *f)
{
    return serve_port(f->serve);
}

static void *run(void *arg)
{
    struct far_end *f = arg;

    loop_run(f->loop);
    return NULL;
}

int far_end_start(struct far_end *f, struct err *err)
{
    int r = -pthread_create(&f->thread, NULL, run, f);

    if (r != 0)
        return err_set(err, r, "a thread for the SOCKS5 server cannot be started: %s", strerror(-r));
    f->started = true;
    pthread_setname_np(f->thread, "far-end");
    return 0;
}

void far_end_free(struct far_end *f)
{
    if (f == NULL)
        return;
    if (f->started) {
        loop_stop(f->loop);
        pthread_join(f->thread, NULL);
    }
    if (f->serve != NULL)
        serve_close(f->serve);
    if (f->env != NULL)
        up_env_free(f->env);
    resolver_free(f->resolver);
    if (f->loop != NULL)
        loop_timer_stop(f->loop, &f->timer);
    loop_free(f->loop);
    free(f);
}
