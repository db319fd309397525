/* fuzz_steer.c - packets of arbitrary bytes and the shard that they belong to (tcp-stack.md STR-4, FUZ-1).
 * A value is the packet's alone: the same again, and the same whatever lies behind its end. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "culvert/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct hash_key key = { 1, 2 };
    uint8_t longer[2048];
    struct steer k;

    if (size > sizeof(longer) / 2)
        return 0;
    steer_init(&k, &key);
    memset(longer, 0xa5, sizeof(longer));
    if (size > 0)
        memcpy(longer, data, size);
    if (steer_packet(&k, data, size) != steer_packet(&k, longer, size))
        abort();
    return 0;
}
