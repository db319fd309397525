/* fuzz_icmp_wire.c - any bytes as a packet in a connect-ip tunnel. The first byte chooses the family. What is read as an echo
 * request points into the packet, and an error about it can be written. */
#undef NDEBUG /* its promises are checked in every build */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "serve/icmp_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct echo_proxy_request *r, const uint8_t *packet, size_t len, bool v6)
{
    struct icmp_wire_error e = { r->target, r->client, 3, 1, 0, { packet, len } };
    uint8_t head[ICMP_WIRE_HEAD_MAX];
    size_t quote, n = icmp_wire_put_error(&e, head, &quote);

    assert(ip_is4(&r->client) != v6 && ip_is4(&r->target) != v6);
    assert(r->payload >= packet + 28 && r->payload + r->payload_len <= packet + len);
    assert(r->ip_header == packet && r->ip_header_len <= len);
    assert(quote <= len && n + quote <= (v6 ? 1280 : 576));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct echo_proxy_request r;
    uint8_t *packet;
    bool v6;

    if (size < 1)
        return 0;
    v6 = data[0] & 1;
    packet = malloc(size); /* exactly as much as there is */
    memcpy(packet, data + 1, size - 1);
    if (icmp_wire_read((struct span){ packet, size - 1 }, v6, &r) == ICMP_WIRE_ECHO)
        check(&r, packet, size - 1, v6);
    free(packet);
    return 0;
}
