/* access.h - who may use a server, and what it dials for them. */
#ifndef CULVERT_SERVE_ACCESS_H
#define CULVERT_SERVE_ACCESS_H

#include "culvert/serve.h"

/** serve_users_bytes() - what a copy of them needs, their strings included */
size_t serve_users_bytes(const struct serve_user *users, size_t count);
/** serve_users_copy() - @to: so many bytes, to be cleared with explicit_bzero() before they are given back */
void serve_users_copy(struct serve_user *to, const struct serve_user *users, size_t count);
/** serve_direct_new() - the way out of a server's dials
 * @allow: copied. @public_only: the prefixes lift the ban on private destinations; else, if there are any, nothing but them is dialled
 * Return: 0 or -ENOMEM */
int serve_direct_new(const struct ip_prefix *allow, size_t allows, bool public_only, struct upstream **out);

#endif
