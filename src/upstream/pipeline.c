/* pipeline.c - may a SOCKS5 server be told everything at once: greeting, login and request in one segment?
 *
 * It saves a round trip, a packet and its wake-up at the far end. But there are servers that read what has come, answer the
 * greeting and throw the rest away: nothing but silence follows, and silence is also what a slow target looks like.
 *
 * How it works (`pipelining: auto`). The first handshake goes step by step, so the server and its login method are known.
 * Then one handshake says all at once, on trial, while the others go on step by step. An answer to its request, even a
 * refusal, proves the server, and from then on all say all at once. Silence, an end or nonsense where the answer should be:
 * the handshake starts over on a new connection, step by step (handshake.c), and nothing is said at once for a minute. If the
 * answer now comes fast, it was the server and not its target, and nothing is said at once for an hour.
 * `pipelining: true` differs in that every handshake is on trial until the server is proved, the first one too.
 *
 * A proved server that was silent to the end of the time may have had a slow target: the next handshake is on trial.
 *
 * What always holds. Nobody loses more than one start-over to it, a proved server that changes its mind is found out in the
 * same way, and with `auto` no target is told to a server that did not take our login before. */
#include "upstream_impl.h"

#define SILENCE_US UINT64_C(300000) /* and four round trips: longer than most targets take to answer */
#define DOUBT_US   (60 * SECOND_US)
#define OFF_US     (3600 * SECOND_US)

static uint64_t patience_us(const struct up_memory *m)
{
    return SILENCE_US + 4 * (uint64_t)m->health.rtt_us;
}

bool pipeline_begin(struct handshake *h)
{
    struct up_memory *m = h->memory;
    bool eager = m->up->pipelining == UPSTREAM_PIPELINING_ON;

    if (m->up->kind != UPSTREAM_SOCKS5 || m->up->pipelining == UPSTREAM_PIPELINING_OFF ||
        m->no_pipelining_until_us > env_now_us(h->env))
        return false;
    if (!m->pipelining_proved) {
        if (!eager && (m->health.last_good_us == 0 || m->pipelining_tried))
            return false;
        h->on_trial = m->pipelining_tried = true;
    }
    h->pipelined = true;
    UP_COUNT(h->env, pipelined);
    return true;
}

void pipeline_wait(struct handshake *h)
{
    uint64_t until_us = env_now_us(h->env) + patience_us(h->memory);

    if (h->on_trial && until_us < h->deadline_us)
        wheel_set(h->env->opt.wheel, &h->deadline, until_us);
}

static void leave_trial(struct handshake *h)
{
    if (h->on_trial)
        h->memory->pipelining_tried = false;
    h->on_trial = h->pipelined = false;
}

void pipeline_doubt(struct handshake *h)
{
    struct up_memory *m = h->memory;
    uint64_t now_us = env_now_us(h->env);

    leave_trial(h);
    m->pipelining_proved = false;
    m->no_pipelining_until_us = now_us + DOUBT_US;
    h->doubted_us = now_us;
}

void pipeline_silent(struct handshake *h)
{
    if (h->pipelined)
        h->memory->pipelining_proved = false;
    leave_trial(h);
}

void pipeline_answered(struct handshake *h)
{
    struct up_memory *m = h->memory;
    uint64_t now_us = env_now_us(h->env);

    if (h->pipelined)
        m->pipelining_proved = true;
    else if (h->doubted_us != 0 && now_us - h->doubted_us < patience_us(m))
        m->no_pipelining_until_us = now_us + OFF_US;
}

void pipeline_end(struct handshake *h)
{
    leave_trial(h);
}
