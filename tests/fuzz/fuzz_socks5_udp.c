/* fuzz_socks5_udp.c - any bytes as a datagram from a relay (RFC 1928 section 7). What is read must come back as it was written. */
#undef NDEBUG /* its promises are checked in every build */
#include <assert.h>
#include <string.h>

#include "culvert/upstream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span in = { data, size };
    uint8_t bytes[SOCKS5_UDP_HEADER_MAX];
    struct host_port hp = { 0 };
    struct socks5_address a;
    char name[256];
    size_t len;

    if (socks5_udp_get(&in, &a) != 0) {
        assert(in.data == data && in.len == size);
        return 0;
    }
    assert(in.data > data && in.data + in.len == data + size);
    if (a.name && (a.name_len == 0 || memchr(a.name, '\0', a.name_len)))
        return 0; /* what we would not write */
    hp.addr = a.ip.addr;
    hp.port = a.ip.port;
    if (a.name) {
        memcpy(name, a.name, a.name_len);
        name[a.name_len] = '\0';
        hp.name = name;
    }
    len = socks5_udp_put(bytes, &hp);
    if (data[3] == 4 && len != size - in.len)
        return 0; /* a mapped address is written in its short form */
    assert(len == size - in.len && memcmp(bytes, data, len) == 0);
    return 0;
}
