/* fake_dns.h - a name server that behaves as the name asked for says; on loopback, on the test's own loop.
 *
 * The first label of the name is the mood (unless `mood` is set): "ok", "tc", "wrong-id", ... see fake_dns.c. A good
 * answer is 192.0.2.1 and 192.0.2.2 for A, 2001:db8::1 for AAAA; a forged one is 203.0.113.66. */
#ifndef CULVERT_TEST_FAKE_DNS_H
#define CULVERT_TEST_FAKE_DNS_H

#include "culvert/dns.h"
#include "culvert/loop.h"

#define FAKE_DNS_CONNS 8

struct fake_dns_conn {
    struct fake_dns *server;
    int fd;
    struct loop_io io;
    uint8_t bytes[512];
    size_t got;
};

struct fake_dns {
    struct loop *loop;
    struct ip_port at;
    const char *mood; /* NULL: the first label says */
    int udp_fd, tcp_fd;
    struct loop_io udp_io, tcp_io;
    struct fake_dns_conn conns[FAKE_DNS_CONNS];
    unsigned udp_queries, tcp_queries;
    uint16_t ids[64]; /* of the first queries */
    uint16_t ports[64];
    uint32_t ttl_s; /* of good answers; 60 */
};

/* Return: 0, or -errno of bind() where this machine has no such address. */
int fake_dns_open(struct fake_dns *d, struct loop *l, const char *addr);
void fake_dns_close(struct fake_dns *d); /* again is fine; queries to it are then refused by ICMP */

#endif
