/* masque.c - one thread of the MASQUE server: its options, its pools, its certificate.
 *
 * No open proxy. Destinations that only this machine or its site can reach are refused after their name is resolved, on the very
 * address that is then dialled, so a name that changes its answer (DNS rebinding) gains nothing; `allow` lifts that. */
#include "masque_impl.h"

#include <stdlib.h>

#include "access.h"

enum { CONNECT_TIMEOUT_MS = 10000 };

/* ---- certificates ---- */

void door_leave(struct door *d)
{
    if (!d || --d->users > 0)
        return;
    tls_context_free(d->tls);
    free(d);
}

static int door_new(struct masque *m, struct tls_settings *tls, struct door **out)
{
    struct door *d = calloc(1, sizeof(*d));
    int r = d ? tls_context_new(m->tls, tls, NULL, &d->tls) : -ENOMEM;

    if (r != 0) {
        free(d);
        return r;
    }
    d->users = 1;
    *out = d;
    return 0;
}

/* ---- who may do what ---- */

int masque_set_access(struct masque *m, struct serve_access *a)
{
    struct upstream *direct = NULL;
    struct door *d = NULL;
    int r = serve_direct_new(a->allow, a->allows, true, &direct);

    if (r == 0)
        r = door_new(m, a->tls, &d);
    if (r != 0) {
        upstream_unref(direct);
        serve_access_free(a);
        return r;
    }
    door_leave(m->door);
    upstream_unref(m->direct);
    serve_access_free(m->access);
    m->door = d;
    m->direct = direct;
    m->access = a;
    return 0;
}

/* ---- logins ---- */

bool masque_login(struct masque *m, struct span value, struct ledger_user **user)
{
    int who = 0;

    if (m->access->user_count > 0) {
        if (!value.data)
            return false; /* most clients ask once without */
        who = http_login(m->access->users, m->access->user_count, value);
        if (who < 0) {
            MASQUE_COUNT(m, login_failed);
            return false;
        }
    }
    *user = ledger_user(m->access->ledger, (size_t)who);
    return true;
}

bool masque_lists(const struct masque *m, const struct ip_addr *a)
{
    for (size_t i = 0; i < m->access->allows; i++)
        if (ip_in_prefix(a, &m->access->allow[i]))
            return true;
    return false;
}

void masque_attach_echo(struct masque *m, struct echo_proxy *echo, const struct ip_addr *exit4,
                        const struct ip_addr *exit6)
{
    m->echo = echo;
    m->exit_addr[0] = *exit4;
    m->exit_addr[1] = *exit6;
}

/* ---- opening ---- */

static void set_options(struct masque *m, const struct masque_options *opt)
{
    m->opt = *opt;
    if (m->opt.max_streams == 0)
        m->opt.max_streams = SERVE_STREAMS_DEFAULT;
    if (m->opt.connect_timeout_ms == 0)
        m->opt.connect_timeout_ms = CONNECT_TIMEOUT_MS;
}

static int init_pools(struct masque *m)
{
    uint32_t n = m->opt.max_streams;
    int r;

    if ((r = slab_init(&m->guests, sizeof(struct guest), n)) != 0 ||
        (r = slab_init(&m->heads, sizeof(struct head), n)) != 0 ||
        (r = slab_init(&m->tunnels, sizeof(struct tunnel), n)) != 0)
        return r;
    m->datagram = malloc(H2_DATAGRAM_MAX);
    if (!m->datagram)
        return -ENOMEM;
    return relays_init(&m->relays, n);
}

static int take_connection(void *m, int fd)
{
    return guest_new(m, fd);
}

static void set_members(struct masque *m, struct up_env *env)
{
    m->env = env;
    m->loop = up_env_loop(env);
    m->wheel = up_env_wheel(env);
    m->relays.loop = m->loop;
    m->relays.wheel = m->wheel;
    m->relays.bytes[UP] = &m->cnt.bytes_up;
    m->relays.bytes[DOWN] = &m->cnt.bytes_down;
    m->listener = (struct listener){ .loop = m->loop,
                                     .wheel = m->wheel,
                                     .take = take_connection,
                                     .arg = m,
                                     .accepted = &m->cnt.accepted,
                                     .refused = &m->cnt.refused };
}

int masque_open(const struct masque_options *opt, struct up_env *env, struct masque **out, struct err *err)
{
    struct masque *m = calloc(1, sizeof(*m));
    struct serve_access *a = m ? masque_access_new(opt) : NULL;
    int r;

    if (!a) {
        free(m);
        return err_set(err, -ENOMEM, "no memory for a server");
    }
    set_options(m, opt);
    set_members(m, env);
    r = tls_worker_new(&m->tls);
    if (r == 0)
        r = masque_set_access(m, a); /* it has it now, whatever it says */
    else
        serve_access_free(a);
    if (r == 0)
        r = init_pools(m);
    if (r != 0)
        err_set(err, r, "the MASQUE server cannot be set up: %s", strerror(-r));
    else
        r = listener_open(&m->listener, &m->opt.listen, err);
    if (r != 0) {
        masque_close(m);
        return r;
    }
    *out = m;
    return 0;
}

uint16_t masque_port(const struct masque *m)
{
    return m->listener.bound.port;
}

void masque_close(struct masque *m)
{
    if (!m)
        return;
    listener_close(&m->listener);
    while (m->all)
        guest_end(m->all, true);
    relays_fini(&m->relays);
    free(m->datagram);
    slab_fini(&m->tunnels);
    slab_fini(&m->heads);
    slab_fini(&m->guests);
    door_leave(m->door);
    tls_worker_free(m->tls);
    upstream_unref(m->direct);
    serve_access_free(m->access);
    free(m);
}

const struct masque_counters *masque_counters(const struct masque *m)
{
    return &m->cnt;
}
