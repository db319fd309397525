/* fuzz_netlink_change.c - what a gateway that was taken over could send to the helper as a change of routes. */
#include <stdlib.h>
#include <string.h>

#include "culvert/loop.h"
#include "culvert/route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *request =
        malloc(size > 0 ? size : 1); /* exactly as long, so that a look beyond it is seen, and aligned */

    if (request == NULL)
        return 0;
    memcpy(request, data, size);
    (void)netlink_change_is_ours(request, size, ROUTE_PROTO_CULVERT, 7);
    free(request);
    return 0;
}
