/* probe.c - is this way out well? A handshake as far as the login, without asking for any target; a MASQUE server gets a PING on
 * the connection that there is (design.md section 6, Healthy).
 * Probes of one upstream that run at the same time are one: the later ones wait for the first. */
#include "masque.h"

/* Takes the whole list off the upstream, so that a function may probe again, then tells everyone. */
static void tell_all(struct probe *first, int err)
{
    struct up_env *env = first->env;

    first->memory->probe = NULL;
    while (first) {
        struct probe *next = first->next;
        void (*fn)(void *, int) = first->fn;
        void *arg = first->arg;

        slab_put(&env->probes, first);
        fn(arg, err);
        first = next;
    }
}

static void on_later(struct wheel_timer *t, uint64_t now_us)
{
    struct probe *p = CONTAINER_OF(t, struct probe, later);

    (void)now_us;
    tell_all(p, p->err);
}

static void on_handshake(void *arg, const struct handshake_result *result)
{
    struct probe *p = arg;

    p->handshake = NULL;
    handshake_result_close(p->env, result);
    tell_all(p, result->why ? result->why->err : 0);
}

static void on_checked(void *arg, int err)
{
    struct probe *p = arg;

    p->masque = NULL;
    tell_all(p, err);
}

/* The first probe of an upstream: asks it, or knows the answer. */
static void start(struct probe *p, uint64_t timeout_us)
{
    const struct upstream *up = p->memory->up;

    p->later.fn = on_later;
    p->memory->probe = p;
    if (up->kind == UPSTREAM_MASQUE && (p->masque = masque_of(p->env, p->memory)) != NULL) {
        masque_check(p->masque, timeout_us, on_checked, p);
        return;
    }
    if (upstream_is_proxy(up))
        p->err = handshake_open(p->env, p->memory, SOCKS5_HELLO, NULL, NULL, timeout_us, on_handshake, p,
                                &p->handshake);
    else if (up->kind != UPSTREAM_DIRECT)
        p->err = -ECONNREFUSED;
    if (!p->handshake)
        wheel_set(p->env->opt.wheel, &p->later, env_now_us(p->env));
}

int up_probe(struct up_env *env, struct upstream *up, uint64_t timeout_us, void (*fn)(void *arg, int err),
             void *arg)
{
    struct upstream *now = up_current(env, up);
    struct up_memory *m = env_memory(env, now->kind == UPSTREAM_MASQUE ? now : up);
    struct probe *p = m ? slab_get(&env->probes) : NULL;

    if (!p)
        return -ENOMEM;
    *p = (struct probe){ .env = env, .memory = m, .fn = fn, .arg = arg };
    if (m->probe) {
        p->next = m->probe->next;
        m->probe->next = p;
    } else {
        start(p, timeout_us);
    }
    return 0;
}

void probe_free(struct up_env *env, struct probe *p)
{
    if (!p)
        return;
    p->memory->probe = NULL;
    wheel_cancel(env->opt.wheel, &p->later);
    handshake_cancel(p->handshake);
    if (p->masque)
        masque_check_cancel(p->masque);
    while (p) {
        struct probe *next = p->next;

        slab_put(&env->probes, p);
        p = next;
    }
}
