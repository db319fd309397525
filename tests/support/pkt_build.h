/* pkt_build.h - packets for tests: built field by field, broken on purpose, cut into fragments, and read back.
 * It shares no code with src/stack, not even the checksum, so that neither can hide the other's mistakes. */
#ifndef CULVERT_TEST_PKT_BUILD_H
#define CULVERT_TEST_PKT_BUILD_H

#include "culvert/base.h"

#define PKT_MAX 66000

struct pkt {
    uint8_t data[PKT_MAX];
    size_t len;
    size_t l4; /* offset of the L4 header */
    struct pkt_meta meta;
};

/* Addresses are text of one family; they choose the IP version. Checksums are right when these return. */
void pkt_udp(struct pkt *p, const char *src, uint16_t sport, const char *dst, uint16_t dport,
             const void *data, size_t len);
void pkt_tcp(struct pkt *p, const char *src, uint16_t sport, const char *dst, uint16_t dport, uint8_t flags,
             uint32_t seq, uint32_t ack, const void *data, size_t len);
void pkt_echo(struct pkt *p, const char *src, const char *dst, uint16_t id, uint16_t seq, const void *data,
              size_t len);
/* Any ICMP message: type, code, the 4 bytes behind the checksum, and what follows. */
void pkt_icmp(struct pkt *p, const char *src, const char *dst, uint8_t type, uint8_t code, uint32_t word,
              const void *data, size_t len);
/* A packet of this protocol with raw L4 bytes. */
void pkt_raw(struct pkt *p, const char *src, const char *dst, uint8_t proto, const void *data, size_t len);

enum { PKT_FIN = 1, PKT_SYN = 2, PKT_RST = 4, PKT_PSH = 8, PKT_ACK = 16 };

/* Put these bytes between the IPv4 header and L4 (length a multiple of 4) or before the IPv6 payload, as a chain whose
 * last next-header byte, at @next_at within them, becomes the old protocol, and whose first header has number @first. */
void pkt_insert_options(struct pkt *p, const uint8_t *options, size_t len);
void pkt_insert_ext(struct pkt *p, uint8_t first, const uint8_t *chain, size_t len, size_t next_at);
/* Set lengths from p->len, and the IPv4 header checksum; pkt_fix_l4() the L4 checksum. After a change by hand. */
void pkt_fix_ip(struct pkt *p);
void pkt_fix_l4(struct pkt *p);
bool pkt_is6(const struct pkt *p);

/** pkt_fragment() - bytes offset..offset+len-1 of @whole's payload as a fragment in @out
 * @more: the flag, whatever the position says; @id: 16 bits of it count for IPv4 */
void pkt_fragment(const struct pkt *whole, size_t offset, size_t len, bool more, uint32_t id,
                  struct pkt *out);

/* What a packet says of itself; made by pkt_parse(), which checks lengths and checksums as a careful host would. */
struct pkt_view {
    struct ip_addr src, dst;
    uint8_t proto, ttl, tos;
    bool df, more;
    uint32_t id, offset; /* of a fragment: bytes */
    bool fragment;
    uint16_t sport, dport; /* TCP, UDP */
    uint8_t type, code;    /* ICMP */
    uint32_t word;
    const uint8_t *l4, *data; /* data: behind the L4 header, or, of a later fragment, behind IP */
    size_t l4_len, len;
};
/* Return: NULL, or what is wrong with it. needs_csum in @meta: the pseudo-header's sum is checked instead (VN-4). */
const char *pkt_parse(const uint8_t *data, size_t len, const struct pkt_meta *meta, struct pkt_view *out);

uint16_t pkt_sum(const uint8_t *data, size_t len,
                 uint32_t start); /* RFC 1071 word by word, folded, network order */

#endif
