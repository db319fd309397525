/* access.h - who may use a server, and what it dials for them. */
#ifndef CULVERT_SERVE_ACCESS_H
#define CULVERT_SERVE_ACCESS_H

#include "culvert/serve.h"

/* What is read again while a server runs: one copy a thread, which counts who still uses it. */
struct serve_access {
    uint32_t users_of_it;
    struct tls_settings *tls; /* a reference; NULL: SOCKS5 */
    struct serve_ledger *ledger;
    struct ip_prefix allow[ARRAY_LEN(((struct serve_options *)0)->allow)];
    size_t allows, user_count, bytes; /* of all that follows */
    struct serve_user users[];        /* and their strings */
};
struct serve_access *serve_access_ref(struct serve_access *a);
/** serve_direct_new() - the way out of a server's dials
 * @allow: copied. @public_only: the prefixes lift the ban on private destinations; else, if there are any, nothing but them is dialled
 * Return: 0 or -ENOMEM */
int serve_direct_new(const struct ip_prefix *allow, size_t allows, bool public_only, struct upstream **out);

#endif
