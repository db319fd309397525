/* far_end.c - one thread of the far end.
 *
 * A turn of its loop: sockets and posted messages, then the wheel's timers that are due, then sleep until the next one. */
#include "far_end_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static void take_own(struct far_end *f, const struct ip_addr *own, size_t owns)
{
    f->rules.owns = owns < ARRAY_LEN(f->rules.own) ? owns : ARRAY_LEN(f->rules.own);
    memcpy(f->rules.own, own, f->rules.owns * sizeof(*own));
}

static uint32_t streams_of(const struct far_end_setup *setup)
{
    uint32_t socks5 = setup->socks5 != NULL ? setup->socks5->max_streams : 0;
    uint32_t masque = setup->masque != NULL ? setup->masque->max_streams : 0;
    uint32_t most = socks5 > masque ? socks5 : masque;

    return most > 0 ? most : SERVE_STREAMS_DEFAULT;
}

static int open_servers(struct far_end *f, const struct far_end_setup *setup, struct err *err)
{
    int r = setup->socks5 != NULL ? serve_open(setup->socks5, f->env, &f->serve, err) : 0;

    if (r == 0 && setup->masque != NULL)
        r = masque_open(setup->masque, f->env, &f->masque, err);
    if (r == 0 && setup->masque != NULL && (r = far_end_echo_open(f, setup)) != 0)
        err_set(err, r, "pings cannot be set up: %s", strerror(-r));
    return r;
}

int far_end_new(const struct far_end_setup *setup, struct far_end **out, struct err *err)
{
    struct far_end *f = calloc(1, sizeof(*f));
    struct resolver_options names = { 0 };
    int r;

    if (f == NULL)
        return err_set(err, -ENOMEM, "no memory");
    wheel_init(&f->wheel, clock_now_us());
    f->timer_us = UINT64_MAX;
    if (setup->owns > 0)
        take_own(f, setup->own, setup->owns);
    if ((r = loop_new(&f->loop)) != 0 || (r = resolver_new(f->loop, &names, &f->resolver)) != 0 ||
        (r = open_env(f, streams_of(setup))) != 0)
        err_set(err, r, "the server cannot be set up: %s", strerror(-r));
    else
        r = open_servers(f, setup, err);
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

uint16_t far_end_masque_port(const struct far_end *f)
{
    return masque_port(f->masque);
}

/* ---- news from the main thread ---- */

struct news {
    struct loop_msg msg;
    struct far_end *far_end;
    struct serve_access *access; /* NULL: it is about addresses */
    bool socks5;                 /* whose access */
    size_t owns;
    struct ip_addr own[];
};

static void on_news(struct loop_msg *m)
{
    struct news *n = CONTAINER_OF(m, struct news, msg);
    struct far_end *f = n->far_end;

    if (n->access == NULL && f->env != NULL) {
        take_own(f, n->own, n->owns);
        up_env_set_rules(f->env, &f->rules);
    } else if (n->access != NULL && f->env != NULL) {
        if ((n->socks5 ? serve_set_access(f->serve, n->access) : masque_set_access(f->masque, n->access)) !=
            0)
            log_warning("no memory for what was read again; the old users and certificate stay");
        n->access = NULL;
    }
    serve_access_free(n->access);
    free(n);
}

/* @access: taken */
static int tell(struct far_end *f, struct serve_access *access, bool socks5, const struct ip_addr *own,
                size_t owns)
{
    struct news *n = calloc(1, sizeof(*n) + owns * sizeof(*own));

    if (n == NULL) {
        serve_access_free(access);
        return -ENOMEM;
    }
    n->msg.fn = on_news;
    n->far_end = f;
    n->access = access;
    n->socks5 = socks5;
    n->owns = owns;
    if (owns > 0)
        memcpy(n->own, own, owns * sizeof(*own));
    loop_post(f->loop, &n->msg);
    return 0;
}

int far_end_set_access(struct far_end *f, const struct masque_options *o)
{
    struct serve_access *a = masque_access_new(o);

    return a != NULL ? tell(f, a, false, NULL, 0) : -ENOMEM;
}

int far_end_set_socks5(struct far_end *f, const struct serve_options *o)
{
    struct serve_access *a = serve_access_new(o);

    return a != NULL ? tell(f, a, true, NULL, 0) : -ENOMEM;
}

int far_end_set_own(struct far_end *f, const struct ip_addr *own, size_t owns)
{
    return tell(f, NULL, false, own, owns);
}

/* ---- the thread ---- */

static void *run(void *arg)
{
    struct far_end *f = arg;

    pthread_setname_np(pthread_self(), "far-end"); /* of another thread it would be a write into /proc */
    (void)loop_short_slices();                     /* a preference */
    loop_run(f->loop);
    return NULL;
}

int far_end_start(struct far_end *f, struct err *err)
{
    int r = -pthread_create(&f->thread, NULL, run, f);

    if (r != 0)
        return err_set(err, r, "a thread of the server cannot be started: %s", strerror(-r));
    f->started = true;
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
    if (f->loop != NULL)
        loop_timer_stop(f->loop, &f->timer);
    serve_close(f->serve);
    masque_close(f->masque);
    echo_proxy_free(f->echo);
    if (f->env != NULL)
        up_env_free(f->env);
    f->env = NULL; /* news may still come, from loop_free() */
    resolver_free(f->resolver);
    loop_free(f->loop);
    free(f);
}
