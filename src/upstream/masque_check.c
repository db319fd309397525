/* masque_check.c - is a MASQUE server well? (design.md section 6, Healthy)
 *
 * How it works. A PING on the connection that there is (RFC 9113 section 6.7): no other proof is as cheap, and none says more about
 * the way that pings and flows take. Only when there is no connection one is dialled, and its SETTINGS are the answer; it stays, for
 * whoever comes next. A connection that goes into its drain while we ask is asked no more: the next one is.
 *
 * probe.c lets no two questions about one upstream run at a time, so there is one place for it. */
#include "masque.h"

static void finish(struct masque *m, int err)
{
    struct masque_check c = m->check;

    masque_check_cancel(m);
    c.fn(c.arg, err);
}

static void on_ready(struct masque_wait *w, struct tunnel *t)
{
    (void)t;
    finish(CONTAINER_OF(w, struct masque, check.wait), 0);
}

static void on_failed(struct masque_wait *w, const struct up_failure *why)
{
    finish(CONTAINER_OF(w, struct masque, check.wait), why->err);
}

static void on_deadline(struct wheel_timer *t, uint64_t now_us)
{
    struct masque *m = CONTAINER_OF(t, struct masque, check.deadline);

    (void)now_us;
    if (m->check.asked) /* a failed dial has been counted where it failed */
        up_memory_bad(m->env, m->memory);
    finish(m, -ETIMEDOUT);
}

static void ask(struct masque *m, uint64_t timeout_us)
{
    m->check.asked = NULL;
    m->check.wait = (struct masque_wait){ .ready = on_ready, .failed = on_failed, .extended = true };
    masque_ask(m, &m->check.wait, timeout_us);
}

void masque_check(struct masque *m, uint64_t timeout_us, void (*fn)(void *arg, int err), void *arg)
{
    uint64_t now_us = env_now_us(m->env);

    m->check = (struct masque_check){ .fn = fn, .arg = arg, .deadline.fn = on_deadline };
    wheel_set(m->env->opt.wheel, &m->check.deadline, now_us + timeout_us);
    m->idle_since_us = now_us;
    if (m->current && h2_ping(m->current->h2) == 0)
        m->check.asked = m->current;
    else
        ask(m, timeout_us);
}

void masque_check_cancel(struct masque *m)
{
    if (!m->check.fn)
        return;
    wheel_cancel(m->env->opt.wheel, &m->check.deadline);
    masque_leave(m, &m->check.wait);
    m->check.fn = NULL;
    m->check.asked = NULL;
}

void masque_check_pong(struct tunnel *t)
{
    if (t->masque->check.fn && t->masque->check.asked == t)
        finish(t->masque, 0);
}

void masque_check_moved(struct tunnel *t)
{
    if (t->masque->check.fn && t->masque->check.asked == t)
        ask(t->masque, 10 * SECOND_US); /* our own deadline is nearer */
}
