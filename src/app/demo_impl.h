/* demo_impl.h - what the two ends of `culvert demo` share: addresses, ports, and the bytes that are sent. */
#ifndef CULVERT_APP_DEMO_IMPL_H
#define CULVERT_APP_DEMO_IMPL_H

#include "culvert/base.h"

#define DEMO_TARGET4 "203.0.113.10" /* RFC 5737; they live on loopback of a private namespace */
#define DEMO_TARGET6 "2001:db8::10" /* RFC 3849 */
#define DEMO_DNS     "203.0.113.53"
#define DEMO_NAME    "demo.culvert.test" /* RFC 6761 */

enum { DEMO_TCP_PORT = 8080, DEMO_CLOSED_PORT = 8081, DEMO_UDP_PORT = 7 };

/* The stream of a transfer: position p holds demo_byte(p). Its period is a prime, so no shifted or repeated piece passes. */
enum { DEMO_PERIOD = 65521 };
struct demo_pattern {
    uint8_t data[2 * DEMO_PERIOD]; /* twice, so that a period can be read from any place in the first one */
};
void demo_pattern_init(struct demo_pattern *p);
/* The bytes from @offset on; at least DEMO_PERIOD of them. */
const uint8_t *demo_pattern_at(const struct demo_pattern *p, uint64_t offset);
bool demo_pattern_holds(const struct demo_pattern *p, uint64_t offset, const void *data, size_t len);

bool demo_send_all(int fd, const void *data, size_t len); /* into a blocking stream; false: it broke */

struct demo_servers;
/** demo_servers_start() - a TCP server, a UDP echo and a name server, a thread each [main]
 * Return: 0; -errno with a sentence. They end with the process. */
int demo_servers_start(struct demo_servers **out, struct err *err);

/** demo_tour() - use all of it from inside the cell, and print what was measured
 * @dns: where names are asked. Return: how many parts failed. */
int demo_tour(const struct ip_addr *dns);

#endif
