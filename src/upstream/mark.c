/* mark.c - one number for all that a way out was made of, so that a reload finds what has not changed (faults.md C11).
 *
 * Two that say the same have the same mark; for others to share one takes a collision of SipHash. The mark covers secrets, so it is
 * neither shown nor stored. */
#include "upstream_impl.h"

static uint64_t mix(uint64_t h, const void *data, size_t len)
{
    struct hash_key key = { h, len };

    return hash_bytes(&key, data, len);
}

static uint64_t mix_text(uint64_t h, const char *text)
{
    return text ? mix(h, text, strlen(text)) : mix(h, "", 1);
}

static uint64_t mix_server(uint64_t h, const struct host_port *s)
{
    h = mix(mix_text(h, s->name), &s->addr, sizeof(s->addr));
    return mix(h, &s->port, sizeof(s->port));
}

static uint64_t mix_tls(uint64_t h, const struct tls_settings *tls)
{
    uint64_t mark = tls ? tls_settings_mark(tls) : 0;

    return mix(h, &mark, sizeof(mark));
}

static uint64_t mix_group(uint64_t h, const struct group_options *g)
{
    uint32_t plain[] = { g->kind,       g->strategy,     g->member_count, g->interval_ms,
                         g->timeout_ms, g->tolerance_ms, g->max_failures, g->retry_after_ms };

    h = mix(h, plain, sizeof(plain));
    return mix_tls(mix_text(mix_server(h, &g->url), g->url_path), g->tls);
}

uint64_t upstream_mark(const struct upstream_options *o)
{
    uint32_t plain[] = { o->kind,   o->udp,         o->pipelining,          o->fast_open,   o->pool,
                         o->secure, o->public_only, o->half_close_delay_ms, o->routing_mark };
    uint64_t h = mix(0, plain, sizeof(plain));

    h = mix_server(mix_text(h, o->name), &o->server);
    h = mix_text(mix_text(mix_text(h, o->username), o->password), o->token);
    h = mix_text(mix_tls(h, o->tls), o->tls_name);
    h = mix_text(h, o->interface_name);
    if (o->allows > 0)
        h = mix(h, o->allow, o->allows * sizeof(*o->allow));
    return o->group ? mix_group(h, o->group) : h;
}

uint64_t upstream_mark_with(uint64_t mark, const struct upstream *named)
{
    return mix(mark, &named->mark, sizeof(named->mark));
}
