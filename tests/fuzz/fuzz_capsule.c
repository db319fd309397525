/* fuzz_capsule.c - what the other end of a MASQUE tunnel writes: capsules and their entries (RFC 9297, RFC 9484), paths, and the
 * ICMP packets that come back. The first byte says which reader. What was read is written and read again. */
#include <stdlib.h>
#include <string.h>

#include "culvert/h2.h"
#include "upstream/icmp_packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void addresses(struct span in)
{
    struct capsule_address a, again;
    uint8_t memory[64];

    while (capsule_address_get(&in, &a) == 0) {
        struct buf b;
        struct span back;

        buf_init(&b, memory, sizeof(memory));
        capsule_address_put(&b, &a);
        back = (struct span){ memory, b.len };
        check(!b.full && capsule_address_get(&back, &again) == 0 && back.len == 0);
        check(again.request_id == a.request_id && again.prefix.len == a.prefix.len &&
              ip_equal(&again.prefix.addr, &a.prefix.addr));
    }
}

static void routes(struct span in)
{
    struct capsule_route r;

    while (capsule_route_get(&in, &r) == 0)
        check(memcmp(r.from.b, r.to.b, 16) <= 0);
}

static void capsules(struct span in)
{
    uint64_t type, len;

    while (capsule_head_get(&in, &type, &len) == 0) {
        uint8_t head[CAPSULE_HEAD_MAX];
        struct span back = { head, capsule_head_put(head, type, len) };
        uint64_t type2, len2;

        check(capsule_head_get(&back, &type2, &len2) == 0 && type2 == type && len2 == len && back.len == 0);
        if (len > in.len)
            return;
        span_skip(&in, (size_t)len);
    }
}

static void paths(const uint8_t *data, size_t size)
{
    char path[MASQUE_PATH_MAX], again[MASQUE_PATH_MAX], name[256];
    struct host_port to;
    int proto;

    size = size < sizeof(path) - 1 ? size : sizeof(path) - 1;
    memcpy(path, data, size);
    path[size] = '\0';
    if (masque_udp_path_get(path, name, &to) == 0)
        check(to.port != 0 && masque_udp_path_put(&to, again) == 0);
    (void)masque_ip_path_get(path, name, &proto);
}

static void packets(const uint8_t *data, size_t size)
{
    struct ip_addr source;
    struct up_echo_answer a;

    check(ip_parse(size > 0 && data[0] >> 4 == 6 ? "2001:db8::7" : "198.51.100.7", &source) == 0);
    if (icmp_packet_get(data, size, &source, &a) == 0 && a.payload_len > 0)
        check(a.payload >= data && a.payload + a.payload_len <= data + size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span in = { data + 1, size > 0 ? size - 1 : 0 };

    if (size == 0)
        return 0;
    switch (data[0] % 5) {
    case 0:
        addresses(in);
        break;
    case 1:
        routes(in);
        break;
    case 2:
        capsules(in);
        break;
    case 3:
        paths(in.data, in.len);
        break;
    case 4:
        packets(in.data, in.len);
        break;
    }
    return 0;
}
