/* upstream.c - one configured way out: copied from its options, immutable, counted, its secrets forgotten at the end. */
#include "upstream_impl.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    SECRET_MAX = 255, /* one length byte (RFC 1929 section 2) */
    TOKEN_MAX = 4096,
    HALF_CLOSE_DELAY_MS = 2000, /* faults.md L12 */
};

static bool secret_fits(const char *s)
{
    size_t len = s ? strlen(s) : 0;

    return len >= 1 && len <= SECRET_MAX;
}

static bool has_no_server(enum upstream_kind kind)
{
    return kind == UPSTREAM_DIRECT || kind == UPSTREAM_REJECT || kind == UPSTREAM_REJECT_DROP ||
           kind == UPSTREAM_GROUP;
}

static bool login_is_valid(const struct upstream_options *opt)
{
    if (opt->kind == UPSTREAM_SOCKS4 || opt->kind == UPSTREAM_SOCKS4A)
        return !opt->password && (!opt->username || secret_fits(opt->username));
    if (opt->token && (opt->kind != UPSTREAM_MASQUE || opt->username || strlen(opt->token) > TOKEN_MAX))
        return false;
    if (!opt->username && !opt->password)
        return true;
    return secret_fits(opt->username) && secret_fits(opt->password);
}

/* What was to be inside TLS never goes without it. */
static bool tls_is_valid(const struct upstream_options *opt)
{
    if (opt->kind == UPSTREAM_MASQUE && !opt->secure)
        return false;
    if (opt->secure != (opt->tls != NULL) || (opt->secure && has_no_server(opt->kind)))
        return false;
    return !opt->tls_name || (opt->tls_name[0] != '\0' && strlen(opt->tls_name) <= 255);
}

/* Elsewhere there is nothing to dial ahead, or one connection carries all. */
static bool has_pool(enum upstream_kind kind)
{
    return kind == UPSTREAM_SOCKS5 || kind == UPSTREAM_SOCKS4 || kind == UPSTREAM_SOCKS4A ||
           kind == UPSTREAM_HTTP;
}

/* The server's name in the spelling that resolvers get; "" when it is an address. */
static int server_name(const struct upstream_options *opt, char out[256])
{
    out[0] = '\0';
    if (has_no_server(opt->kind))
        return 0;
    if (opt->server.port == 0)
        return -EINVAL;
    if (opt->server.name)
        return host_name_normalise(opt->server.name, strlen(opt->server.name), out);
    return ip_is_none(&opt->server.addr) ? -EINVAL : 0;
}

/* Copies @s to the cursor and moves it; NULL stays NULL. */
static const char *put_text(char **cursor, const char *s)
{
    char *at = *cursor;
    size_t len;

    if (!s)
        return NULL;
    len = strlen(s) + 1;
    memcpy(at, s, len);
    *cursor += len;
    return at;
}

static size_t text_bytes(const char *s)
{
    return s ? strlen(s) + 1 : 0;
}

/* The prefixes come first behind the structure, since they want alignment and text does not. */
static char *put_allow(struct upstream *up, const struct upstream_options *opt)
{
    if (opt->allows == 0)
        return up->text;
    up->allow = (struct ip_prefix *)(void *)up->text;
    up->allows = opt->allows;
    memcpy(up->allow, opt->allow, opt->allows * sizeof(*opt->allow));
    return up->text + opt->allows * sizeof(*opt->allow);
}

/* All but what points to others of its kind. */
static int make(const struct upstream_options *opt, struct upstream **out)
{
    char server[256], *cursor;
    struct upstream *up;
    size_t bytes;

    if (!opt->name || (opt->kind == UPSTREAM_GROUP) != (opt->group != NULL) || !login_is_valid(opt) ||
        !tls_is_valid(opt) || server_name(opt, server) != 0)
        return -EINVAL;
    bytes = sizeof(*up) + text_bytes(opt->name) + text_bytes(server) + text_bytes(opt->username) +
            text_bytes(opt->password) + text_bytes(opt->token) + text_bytes(opt->tls_name) +
            opt->allows * sizeof(*opt->allow);
    up = calloc(1, bytes);
    if (!up)
        return -ENOMEM;
    atomic_init(&up->refs, 1);
    up->mark = upstream_mark(opt);
    up->kind = opt->kind;
    up->udp = opt->udp;
    up->pipelining = opt->pipelining;
    up->fast_open = opt->fast_open;
    up->pool = has_pool(opt->kind) ? opt->pool : 0;
    up->routing_mark = opt->routing_mark;
    snprintf(up->interface_name, sizeof(up->interface_name), "%s", opt->interface_name);
    up->public_only = opt->public_only;
    up->bytes = bytes;
    cursor = put_allow(up, opt);
    up->name = put_text(&cursor, opt->name);
    up->server = opt->server;
    up->server.name = put_text(&cursor, server[0] ? server : NULL);
    up->login.username = put_text(&cursor, opt->username);
    up->login.password = put_text(&cursor, opt->password);
    up->token = put_text(&cursor, opt->token);
    up->tls_name = put_text(&cursor, opt->tls_name);
    up->tls = opt->tls ? tls_settings_ref(opt->tls) : NULL;
    up->half_close_delay_ms = opt->half_close_delay_ms > 0 ? opt->half_close_delay_ms : HALF_CLOSE_DELAY_MS;
    *out = up;
    return 0;
}

int upstream_new(const struct upstream_options *opt, struct upstream **out)
{
    return opt->dialer != 0 || opt->group ? -EINVAL : make(opt, out);
}

/* ---- a list of them, which name each other ---- */

struct making {
    const struct upstream_options *list;
    size_t n;
    struct upstream **out; /* NULL: not made yet */
    struct upstream *const *old;
    size_t olds;
    uint8_t *under_way; /* whoever meets one of these has gone in a circle */
};

static int make_at(struct making *m, size_t i);

static struct upstream *ref_at(struct making *m, size_t i, int *r)
{
    *r = make_at(m, i);
    return *r == 0 ? upstream_ref(m->out[i]) : NULL;
}

/* What a test of @member fetches: an upstream of its own, reached through the member. */
static int make_test(const struct upstream *group, struct upstream *member, struct upstream **out)
{
    struct upstream_options opt = { .name = member->name,
                                    .kind = UPSTREAM_HTTP,
                                    .server = group->group.url,
                                    .secure = group->group.tls != NULL,
                                    .tls = group->group.tls };
    int r;

    r = make(&opt, out);
    if (r != 0)
        return r;
    (*out)->head_path = group->head_path;
    if (member->kind != UPSTREAM_DIRECT)
        (*out)->dialer = upstream_ref(member);
    return 0;
}

static int fill_group(struct making *m, struct upstream *up, const struct group_options *o)
{
    int r = 0;

    if (o->member_count == 0 || o->member_count > GROUP_MEMBERS_MAX)
        return -EINVAL;
    up->group = *o;
    up->group.member_count = 0;
    up->members = calloc(o->member_count, sizeof(struct upstream *));
    up->tests = o->url.port != 0 ? calloc(o->member_count, sizeof(struct upstream *)) : NULL;
    up->head_path = o->url_path ? strdup(o->url_path) : NULL;
    if (!up->members || (o->url.port != 0 && (!up->tests || !up->head_path)))
        return -ENOMEM;
    for (uint32_t i = 0; i < o->member_count && r == 0; i++) {
        if (o->members[i] >= m->n)
            return -EINVAL;
        up->members[i] = ref_at(m, o->members[i], &r);
        if (r == 0)
            up->mark = upstream_mark_with(up->mark, up->members[i]);
        if (r == 0 && up->tests)
            r = make_test(up, up->members[i], &up->tests[i]);
        up->group.member_count += up->members[i] != NULL;
    }
    up->group.members = NULL; /* what they pointed to was the caller's */
    up->group.url = (struct host_port){ 0 };
    up->group.url_path = NULL;
    up->group.tls = NULL;
    return r;
}

/* The one of before that says the same, or this one. */
static struct upstream *settle(const struct making *m, struct upstream *up)
{
    for (size_t i = 0; i < m->olds; i++) {
        struct upstream *old = m->old[i];

        if (old->mark == up->mark && old->kind == up->kind && strcmp(old->name, up->name) == 0) {
            upstream_unref(up);
            return upstream_ref(old);
        }
    }
    return up;
}

static int make_at(struct making *m, size_t i)
{
    const struct upstream_options *opt = &m->list[i];
    struct upstream *up;
    int r;

    if (m->under_way[i])
        return -ELOOP;
    if (m->out[i])
        return 0;
    r = opt->dialer > m->n ? -EINVAL : make(opt, &up);
    if (r != 0)
        return r;
    m->under_way[i] = 1;
    if (opt->dialer != 0)
        up->dialer = ref_at(m, opt->dialer - 1, &r);
    if (up->dialer)
        up->mark = upstream_mark_with(up->mark, up->dialer);
    if (r == 0 && opt->group)
        r = fill_group(m, up, opt->group);
    m->under_way[i] = 0;
    if (r == 0)
        m->out[i] = settle(m, up);
    else
        upstream_unref(up);
    return r;
}

int upstreams_new(const struct upstream_options *list, size_t n, struct upstream **out)
{
    return upstreams_renew(list, n, NULL, 0, out);
}

int upstreams_renew(const struct upstream_options *list, size_t n, struct upstream *const *old, size_t olds,
                    struct upstream **out)
{
    struct making m = { list, n, out, old, olds, calloc(n > 0 ? n : 1, 1) };
    int r = m.under_way ? 0 : -ENOMEM;

    memset(out, 0, n * sizeof(struct upstream *));
    for (size_t i = 0; i < n && r == 0; i++)
        r = make_at(&m, i);
    for (size_t i = 0; i < n && r != 0; i++) {
        upstream_unref(out[i]);
        out[i] = NULL;
    }
    free(m.under_way);
    return r;
}

struct upstream *upstream_ref(struct upstream *up)
{
    atomic_fetch_add_explicit(&up->refs, 1, memory_order_relaxed);
    return up;
}

void upstream_unref(struct upstream *up)
{
    if (!up || atomic_fetch_sub_explicit(&up->refs, 1, memory_order_acq_rel) != 1)
        return;
    tls_settings_unref(up->tls);
    upstream_unref(up->dialer);
    for (uint32_t i = 0; up->members && i < up->group.member_count; i++) {
        upstream_unref(up->members[i]);
        if (up->tests)
            upstream_unref(up->tests[i]);
    }
    if (up->kind == UPSTREAM_GROUP)
        free((char *)(uintptr_t)up->head_path); /* those of its tests are this one */
    free(up->members);
    free(up->tests);
    explicit_bzero(up, up->bytes);
    free(up);
}

const char *upstream_name(const struct upstream *up)
{
    return up->name;
}

enum upstream_kind upstream_kind(const struct upstream *up)
{
    return up->kind;
}

bool upstream_allows(const struct upstream *up, const struct ip_addr *dst, const struct ip_addr *own,
                     size_t owns)
{
    for (size_t i = 0; i < up->allows; i++) {
        if (ip_in_prefix(dst, &up->allow[i]))
            return true;
    }
    if (!up->public_only)
        return up->allows == 0;
    for (size_t i = 0; i < owns; i++) {
        if (ip_equal(dst, &own[i]))
            return false;
    }
    return ip_is_public(dst);
}

void up_fail(struct up_failure *f, int err, const char *stage, bool proxy_fault, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(f->text, sizeof(f->text), fmt, ap);
    va_end(ap);
    f->err = err;
    f->stage = stage;
    f->proxy_fault = proxy_fault;
}
