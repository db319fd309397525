/* address.c - the address of a socket file, for both of its sides. */
#include "api_impl.h"

#include <errno.h>
#include <string.h>

int api_address(const char *path, struct sockaddr_un *out, struct err *err)
{
    size_t len = strlen(path);

    if (len == 0)
        return err_set(err, -EINVAL, "the path of the control socket is empty");
    if (len > API_PATH_MAX)
        return err_set(
            err, -ENAMETOOLONG,
            "the path of the control socket has %zu bytes, the kernel takes %zu; choose a shorter one", len,
            API_PATH_MAX);
    *out = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(out->sun_path, path, len + 1);
    return 0;
}
