/* serve.c - the far end: `serve.socks5` and `serve.masque`. */
#include "config_impl.h"

#include <errno.h>
#include <string.h>

enum { USER_MAX = 255 }; /* bytes of a name or a password (RFC 1929) */

/* ---- users: {alice: SECRET, bob: SECRET} ------------------------------------------------------------------------------ */

static const struct serve_user *read_map(struct cfg_read *r, const struct cfg_node *v, bool basic)
{
    struct serve_user *users = cfg_keep(r, v->count * sizeof(*users));

    for (uint32_t i = 0; users != NULL && i < v->count; i++) {
        const struct cfg_node *name = v->pairs[i].key;
        size_t before = cfg_enter_key(r, name->text);

        if (name->count == 0 || name->count > USER_MAX)
            cfg_error(r, name, "a user name of %u bytes; 1 to %d would work", (unsigned)name->count,
                      USER_MAX);
        else if (basic && strchr(name->text, ':') != NULL)
            cfg_error(r, name, "holds a colon, which ends a user name in HTTP (RFC 7617)");
        users[i].name = cfg_keep_text(r, name->text, name->count);
        users[i].password = cfg_read_secret(r, v->pairs[i].value, USER_MAX);
        cfg_leave(r, before);
    }
    return users;
}

static void read_users(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct serve_options *serve = (struct serve_options *)(void *)((char *)to + k->offset);

    serve->users = read_map(r, v, false);
    serve->user_count = serve->users != NULL ? v->count : 0;
}

static void read_masque_users(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct masque_options *o = &((struct cfg_masque *)to)->options;

    (void)k;
    o->users = read_map(r, v, true);
    o->user_count = o->users != NULL ? v->count : 0;
}

static void read_masque_allow(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct masque_options *o = &((struct cfg_masque *)to)->options;

    (void)k;
    (void)cfg_take_prefix(r, v, o->allow, &o->allows, ARRAY_LEN(o->allow));
}

static void read_per_user(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    cfg_read_section(r, k->section, v, (char *)to + k->offset);
}

/* ---- serve.masque ------------------------------------------------------------------------------------------------------- */

static void read_masque(struct cfg_read *r, const struct cfg_key *k, const struct cfg_node *v, void *to)
{
    struct cfg_masque *m = cfg_scratch(r, sizeof(*m));
    const struct cfg_node *listen = r->listen;

    (void)to;
    if (m == NULL)
        return;
    r->masque = m;
    cfg_read_section(r, k->section, v, m);
    m->listen = r->listen != listen ? r->listen : NULL;
    r->listen = listen; /* that one is SOCKS5's */
}

static void make_settings(struct cfg_read *r, struct cfg_masque *m)
{
    static const char *const alpn[] = { "h2", "http/1.1" };
    struct err err;
    int e;

    m->tls.options.server = true;
    m->tls.options.resume = true;
    m->tls.options.alpn = alpn;
    m->tls.options.alpns = ARRAY_LEN(alpn);
    e = tls_settings_new(&m->tls.options, &m->options.tls, &err);
    if (e == -ENOMEM)
        r->no_memory = true;
    else if (e != 0)
        cfg_error(r, m->tls.key_at, "serve.masque.private-key: %s", err.text);
    else
        cfg_hold_tls(r, m->options.tls);
}

void cfg_masque_finish(struct cfg_read *r)
{
    struct cfg_masque *m = r->masque;

    if (m == NULL)
        return;
    if (m->options.user_count == 0 && m->listen != NULL && !ip_is_loopback(&m->options.listen.addr))
        cfg_error(
            r, m->listen,
            "serve.masque: whoever reaches this address could use it; set serve.masque.users, or listen on "
            "127.0.0.1");
    if (m->tls.options.certificate == NULL || m->tls.options.private_key == NULL)
        return; /* missing or unreadable: said where they stand */
    make_settings(r, m);
    r->config->has_masque = true;
    r->config->masque = m->options;
}

CFG_MAP_TYPE(cfg_users, "map of names to secrets", "a map such as {alice: {file: PATH}}", read_users);
CFG_MAP_TYPE(cfg_masque_users, "map of names to secrets", "a map such as {alice: {file: PATH}}",
             read_masque_users);
CFG_LIST_TYPE(cfg_masque_allow, "list of prefixes", "a prefix such as 10.0.0.0/8", read_masque_allow);
CFG_MAP_TYPE(cfg_per_user, "map", "a map such as {flows: 1000, rate: 50Mbit}", read_per_user);
CFG_MAP_TYPE(cfg_masque, "map",
             "a map such as {listen: '0.0.0.0:443', certificate: FILE, private-key: FILE, users: MAP}",
             read_masque);
