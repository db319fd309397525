/* icmp_packet.h - whole IP packets with ICMP in them, as the client's end of CONNECT-IP writes and reads them (RFC 9484
 * section 6). Pure. */
#ifndef CULVERT_UPSTREAM_ICMP_PACKET_H
#define CULVERT_UPSTREAM_ICMP_PACKET_H

#include "culvert/upstream.h"

enum { ICMP_PACKET_HEAD = 40 + 8 + 8 };
/** icmp_packet_put() - IP and ICMP headers of an echo request from @source; the payload follows. Return: their bytes
 * A payload over 65,507 bytes (IPv6: 65,527) fits no packet: the caller's promise. */
size_t icmp_packet_put(const struct up_echo_request *r, const struct ip_addr *source, uint16_t ip_id,
                       uint8_t head[ICMP_PACKET_HEAD]);
/** icmp_packet_get() - a packet for @source: an echo reply, or an ICMP error about an echo request of ours
 * Return: 0; -EBADMSG: broken, not for us, or neither of the two. */
int icmp_packet_get(const uint8_t *packet, size_t len, const struct ip_addr *source,
                    struct up_echo_answer *out);

#endif
