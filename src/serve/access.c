/* access.c - see access.h. */
#include "access.h"

#include <string.h>

size_t serve_users_bytes(const struct serve_user *users, size_t count)
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

void serve_users_copy(struct serve_user *to, const struct serve_user *users, size_t count)
{
    char *cursor = (char *)(to + count);

    for (size_t i = 0; i < count; i++) {
        to[i].name = put_text(&cursor, users[i].name);
        to[i].password = put_text(&cursor, users[i].password);
    }
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
