/* access.c - see access.h. */
#include "access.h"

#include <stdlib.h>
#include <string.h>

/* What a copy of them needs, their strings included. */
static size_t users_bytes(const struct serve_user *users, size_t count)
{
    size_t bytes = count * sizeof(*users);

    for (size_t i = 0; i < count; i++)
        bytes += strlen(users[i].name) + strlen(users[i].password) + 2;
    return bytes;
}

static const char *put_text(char **cursor, const char *text)
{
    size_t len = strlen(text) + 1;
    char *at = memcpy(*cursor, text, len);

    *cursor += len;
    return at;
}

static void copy_users(struct serve_user *to, const struct serve_user *users, size_t count)
{
    char *cursor = (char *)(to + count);

    for (size_t i = 0; i < count; i++) {
        to[i].name = put_text(&cursor, users[i].name);
        to[i].password = put_text(&cursor, users[i].password);
    }
}

static struct serve_access *access_new(const struct serve_user *users, size_t count,
                                       const struct ip_prefix *allow, size_t allows,
                                       struct serve_ledger *ledger)
{
    size_t bytes = users_bytes(users, count);
    struct serve_access *a = calloc(1, sizeof(*a) + bytes);

    if (!a)
        return NULL;
    a->users_of_it = 1;
    a->ledger = ledger;
    memcpy(a->allow, allow, sizeof(a->allow));
    a->allows = allows;
    a->user_count = count;
    a->bytes = bytes;
    copy_users(a->users, users, count);
    return a;
}

struct serve_access *serve_access_new(const struct serve_options *o)
{
    return access_new(o->users, o->user_count, o->allow, o->allows, o->ledger);
}

struct serve_access *masque_access_new(const struct masque_options *o)
{
    struct serve_access *a = access_new(o->users, o->user_count, o->allow, o->allows, o->ledger);

    if (a)
        a->tls = tls_settings_ref(o->tls);
    return a;
}

struct serve_access *serve_access_ref(struct serve_access *a)
{
    a->users_of_it++;
    return a;
}

void serve_access_free(struct serve_access *a)
{
    if (!a || --a->users_of_it > 0)
        return;
    tls_settings_unref(a->tls);
    explicit_bzero(a->users, a->bytes);
    free(a);
}

int serve_direct_new(const struct ip_prefix *allow, size_t allows, bool public_only, struct upstream **out)
{
    struct upstream_options direct = { .name = "DIRECT",
                                       .kind = UPSTREAM_DIRECT,
                                       .public_only = public_only,
                                       .allow = allow,
                                       .allows = allows };

    return upstream_new(&direct, out);
}
