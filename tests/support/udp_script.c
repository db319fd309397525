/* udp_script.c - see udp_script.h. */
#include "udp_script.h"

#include <assert.h>

void udp_bytes(uint8_t *data, size_t len)
{
    struct prng r;

    prng_seed(&r, 8);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)prng_next(&r);
}

void udp_from_client(struct pkt *p, bool v6, uint16_t sport, uint16_t dport, const void *data, size_t len)
{
    pkt_udp(p, v6 ? LAB_CLIENT6 : LAB_CLIENT, sport, v6 ? LAB_TARGET6 : LAB_TARGET, dport, data, len);
}

struct ip_port udp_target(bool v6, uint16_t port)
{
    struct ip_port t = { .port = port };

    ip_parse(v6 ? LAB_TARGET6 : LAB_TARGET, &t.addr);
    return t;
}

void udp_open(struct ip_lab *lab, bool v6)
{
    static const uint8_t first[4];
    static struct pkt p;

    lab->on_request = LAB_ACCEPT;
    udp_from_client(&p, v6, 4000, 53, first, sizeof(first));
    ip_lab_input(lab, &p);
    assert(lab->endpoint != NULL);
    ip_lab_clear(lab);
}
