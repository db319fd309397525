/* way.c - which way an opening goes: the member of a group, and the next one when that one is at fault; the hop before a hop.
 *
 * How it works. A handshake that was asked for a group takes the group's best member, and is then that member's handshake. When
 * it fails by the member's fault it begins anew with the next one, as long as members and time are left: nobody has seen
 * anything yet. Each member may take its share of the time that is left, the last one all of it; silence that may be the
 * target's is waited for to the end. A target that refuses is an answer. For an association members without UDP are passed over;
 * one that turns out to have none is no worse for it, and the next one is asked.
 *
 * A chain (dialer-proxy): instead of a dial there is a handshake with the way out that leads to our server, as deep as it goes,
 * and its connection is what our server is spoken to through. */
#include "upstream_impl.h"

void way_note(struct handshake *h, bool good)
{
    if (h->idle)
        return;
    if (good)
        up_memory_good(h->env, h->memory);
    else
        up_memory_bad(h->env, h->memory);
    if (h->try_count > 0)
        group_tell(h->env, &h->tries[h->try_at], good);
}

static void set_deadline(struct handshake *h)
{
    uint64_t now_us = env_now_us(h->env), left_us = h->whole_us > now_us ? h->whole_us - now_us : 0;
    uint32_t tries = h->try_count > 0 ? h->try_count - h->try_at : 1;

    h->deadline_us = now_us + left_us / tries;
}

int way_choose(struct handshake *h, struct up_memory *m)
{
    int tries;

    h->memory = m;
    m->users++;
    set_deadline(h);
    if (m->up->kind != UPSTREAM_GROUP)
        return 0;
    h->group = m; /* that count is the group's now */
    tries = group_tries(h->env, m, h->goal == SOCKS5_CONNECT ? &h->target : NULL, h->goal == SOCKS5_ASSOCIATE,
                        h->tries);
    h->try_count = (uint8_t)(tries > 0 ? tries : 0);
    if (tries > 0)
        h->memory = h->tries[0].memory;
    h->memory->users++;
    set_deadline(h);
    if (tries > 0)
        return 0;
    if (tries == -EOPNOTSUPP)
        up_fail(&h->why, tries, "request", false, "no member of %.80s that could be taken carries UDP",
                m->up->name);
    else
        up_fail(&h->why, tries, "connect", true,
                "no member of %.80s is well; they are tested again, and `culvert status` shows them",
                m->up->name);
    return tries;
}

bool way_next(struct handshake *h)
{
    if (h->try_at + 1u >= h->try_count || env_now_us(h->env) >= h->whole_us)
        return false;
    UP_COUNT(h->env, group_retries);
    h->memory->users--;
    h->memory = h->tries[++h->try_at].memory;
    h->memory->users++;
    h->doubted_us = 0;
    set_deadline(h);
    return true;
}

void way_leave(struct handshake *h)
{
    h->memory->users--;
    if (h->group)
        h->group->users--;
}

int way_check(struct handshake *h)
{
    const struct upstream *up = h->memory->up;

    if (up->kind == UPSTREAM_REJECT || up->kind == UPSTREAM_REJECT_DROP) {
        up_fail(&h->why, up->kind == UPSTREAM_REJECT ? -ECONNREFUSED : -ETIMEDOUT, "connect", false,
                "%.80s has %s as its member now", h->group ? h->group->up->name : up->name, up->name);
        return h->why.err;
    }
    if (upstream_is_proxy(up) && h->memory->bad_until_us > env_now_us(h->env)) {
        handshake_why_login(h);
        return h->why.err;
    }
    if (h->group && h->goal == SOCKS5_ASSOCIATE && up_has_no_udp(h->env, h->memory)) {
        up_fail(&h->why, -EOPNOTSUPP, "request", false, "%.80s carries no UDP", up->name);
        return h->why.err;
    }
    h->idle = (up->kind == UPSTREAM_DIRECT && h->goal != SOCKS5_CONNECT) ||
              (up->kind == UPSTREAM_MASQUE && h->goal == SOCKS5_ASSOCIATE);
    return 0;
}

/* ---- the dial ---- */

/* Without a word of ours at once the socket must be asked whether it is connected. */
static bool says_something(const struct handshake *h)
{
    enum upstream_kind kind = h->memory->up->kind;

    return kind == UPSTREAM_SOCKS5 || (upstream_is_proxy(h->memory->up) && h->goal == SOCKS5_CONNECT);
}

int way_start_dial(struct handshake *h, dial_fn *fn)
{
    const struct upstream *up = h->memory->up;
    bool server = upstream_is_proxy(up), unasked = says_something(h) && !up->tls && !up->server.name;
    struct up_known known = { h->known, h->known_count, h->known_err };

    return dial_start(&h->dial, h->env, h->memory, server ? &up->server : &h->target,
                      h->is_known && !server ? &known : NULL,
                      (server ? DIAL_SERVER : 0u) | (unasked ? DIAL_UNASKED : 0u), fn);
}

/* ---- chains ---- */

int way_start_via(struct handshake *h, handshake_fn *fn)
{
    struct up_memory *m = env_memory(h->env, h->memory->up->dialer);
    uint64_t now_us = env_now_us(h->env), left_us = h->deadline_us > now_us ? h->deadline_us - now_us : 0;

    wheel_cancel(h->env->opt.wheel,
                 &h->deadline); /* the hop has one of its own, and says more when it passes */
    h->started_us = clock_now_us();
    return m ? handshake_open(h->env, m, SOCKS5_CONNECT, &h->memory->up->server, NULL, left_us, fn, h,
                              &h->via)
             : -ENOMEM;
}

void way_why_via(struct handshake *h, const struct up_failure *why)
{
    bool ours =
        why->err == -ELOOP || why->err == -EMFILE || why->err == -ENOMEM || why->err == -EADDRNOTAVAIL;

    up_fail(&h->why, ours ? why->err : -EHOSTUNREACH, why->stage, !ours, "%.40s, reached through %.40s: %s",
            h->memory->up->name, h->memory->up->dialer->name, why->text);
}
