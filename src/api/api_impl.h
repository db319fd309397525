/* api_impl.h - what the files of src/api share. */
#ifndef CULVERT_API_IMPL_H
#define CULVERT_API_IMPL_H

#include <sys/un.h>

#include "culvert/api.h"

#define API_PATH_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1) /* 107 bytes on Linux */

/** api_address() - the address of a socket file
 * Return: 0; -ENAMETOOLONG or -EINVAL (empty) with a sentence. */
int api_address(const char *path, struct sockaddr_un *out, struct err *err);

/** api_json_status() - a snapshot as JSON text with a newline at its end; with the list of live flows when @flows
 * Return: malloc'd; NULL: no memory. */
char *api_json_status(const struct status_snapshot *s, bool flows);

#endif
