/* udp_script.h - what the scripts of UDP begin with, in a laboratory of ip_lab.h. */
#ifndef CULVERT_TEST_UDP_SCRIPT_H
#define CULVERT_TEST_UDP_SCRIPT_H

#include "ip_lab.h"

void udp_bytes(uint8_t *data, size_t len); /* the same random ones every time */
void udp_from_client(struct pkt *p, bool v6, uint16_t sport, uint16_t dport, const void *data, size_t len);
struct ip_port udp_target(bool v6, uint16_t port);
/* An endpoint for the client's port 4000, whose first datagram is forgotten. */
void udp_open(struct ip_lab *lab, bool v6);

#endif
