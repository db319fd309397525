/* ip_impl.h - what the files of the IP half share among themselves; the TCP half does not include it. */
#ifndef CULVERT_IP_IMPL_H
#define CULVERT_IP_IMPL_H

#include "stack_impl.h"

#define V4_HEADER   20
#define V6_HEADER   40
#define FRAG_HEADER 8 /* IPv6 fragment extension header */
#define IP_MAX      65535
#define V4_DF       0x4000
#define V4_MF       0x2000
#define V4_OFFSET   0x1fff /* in units of 8 bytes */

/* IPv6 next header values that are not protocols (RFC 8200 section 4) */
enum {
    NEXT_HOP_BY_HOP = 0,
    NEXT_ROUTING = 43,
    NEXT_FRAGMENT = 44,
    NEXT_NONE = 59,
    NEXT_DEST_OPTIONS = 60,
};

/* ---- input --------------------------------------------------------------------------------------------- */

/* One packet from the device (or put together from fragments) up to its protocol, or dropped and counted.
 * @slot: where it lies, if it may be kept there; NULL: whoever keeps it copies. */
void ip_input(struct stack *s, const uint8_t *data, size_t len, const struct pkt_meta *meta,
              struct block *slot, uint32_t origin, bool reassembled);
/* The stack's own address of @like's family, NULL when none is configured. */
static inline const struct ip_addr *ip_gateway(const struct stack *s, const struct ip_addr *like);
/* May something leave with this source, for somebody who asked @asked, NULL: nobody did (icmp.md N2)? */
bool ip_may_send_from(struct stack *s, const struct ip_addr *source, const struct ip_addr *asked);
/* Would this packet still be accepted, for the same reason as when it came (icmp.md A6)? */
bool ip_still_ours(struct stack *s, const struct packet *p);
bool stack_family_is_on(const struct stack *s, enum ip_family family);
static inline bool stack_has_family(const struct stack *s, const struct ip_addr *a)
{
    return stack_family_is_on(s, ip_is4(a) ? IP_FAMILY_4 : IP_FAMILY_6);
}
/* A packet copied into a block of its size; an IPv6 header that makes it longer than any block begins in the
 * headroom. *out: where it lies now. NULL: no memory. */
struct block *ip_copy(struct stack *s, const uint8_t *packet, size_t len, const uint8_t **out);
/* Bytes of header that a protocol cannot do without. */
size_t ip_min_l4(uint8_t proto);

enum ext_verdict {
    EXT_UPPER,    /* the walk ended at a protocol: p->proto and p->l4 are set */
    EXT_FRAGMENT, /* at a fragment header: p->l4 points at it */
    EXT_SHORT,    /* the chain runs past the end */
    EXT_DROP,     /* forbidden; counted, and answered where the RFC says so */
};
enum ext_place {
    EXT_FIRST, /* behind the IPv6 header */
    EXT_NESTED, /* behind a fragment header, or in a datagram put together: no hop-by-hop options, no fragment header again */
    EXT_LOOK, /* nested, and nothing is counted or sent */
};
/* Walk the extension headers of an IPv6 packet, beginning with @next at p->l4 (RFC 8200 section 4). */
enum ext_verdict ip_ext_walk(struct stack *s, struct packet *p, uint8_t next, enum ext_place place);

/* What a reply to this echo request carries. False: an option is wrong, its sender was told (icmp.md 2.7,
 * P6). */
bool ip_options_for_reply(struct stack *s, struct packet *p, struct ip_options *out);
void ip_options_copied(const struct ip_options *all, struct ip_options *out);

/* ---- the interface (iface.c, observe.c) ---------------------------------------------------------------- */

/* Lookups; each costs one look for every length in use, whatever the number of addresses. */
bool iface_is_assigned(struct iface *f, const struct ip_addr *a);
bool iface_is_broadcast(struct iface *f,
                        const struct ip_addr *a); /* 255.255.255.255, or of an on-link prefix */
bool iface_is_local_prefix(struct iface *f, const struct ip_addr *a, enum local_echo *echo);
const struct ip_addr *iface_gateway(const struct iface *f, const struct ip_addr *like);
const struct ip_addr *iface_source_for(struct iface *f, const struct ip_addr *peer); /* NULL: none assigned */
size_t iface_memory_bytes(const struct stack_config *c);
bool iface_init(struct stack *s, void *memory); /* false: config.address does not fit */
static inline const struct ip_addr *ip_gateway(const struct stack *s, const struct ip_addr *like)
{
    return iface_gateway(&s->iface, like);
}
void observers_show(struct stack *s, const uint8_t *packet, size_t len);

/* ---- fragments ----------------------------------------------------------------------------------------- */

/* What one fragment says of itself; its data are p->l4 and p->l4_len. */
struct fragment {
    uint32_t id;
    uint32_t offset; /* bytes */
    bool more;
    uint8_t next; /* IPv6: the first header of the data */
};
void frag_input(struct stack *s, struct packet *p, const struct fragment *f);
size_t frag_memory_bytes(const struct stack_config *c);
void frag_init(struct stack *s, void *memory);

/* ---- ICMP ---------------------------------------------------------------------------------------------- */

/* Types that are sent or read here; codes stand where they are used (RFC 792, RFC 4443). */
enum {
    ICMP4_ECHO_REPLY = 0,
    ICMP4_UNREACHABLE = 3,
    ICMP4_QUENCH = 4,
    ICMP4_REDIRECT = 5,
    ICMP4_ECHO = 8,
    ICMP4_ROUTER_ADVERT = 9,
    ICMP4_ROUTER_SOLICIT = 10,
    ICMP4_TIME_EXCEEDED = 11,
    ICMP4_PARAM_PROBLEM = 12,
    ICMP4_TIMESTAMP = 13,
    ICMP4_TIMESTAMP_REPLY = 14,
    ICMP4_INFO = 15,
    ICMP4_INFO_REPLY = 16,
    ICMP4_MASK = 17,
    ICMP4_MASK_REPLY = 18,
    ICMP6_UNREACHABLE = 1,
    ICMP6_TOO_BIG = 2,
    ICMP6_TIME_EXCEEDED = 3,
    ICMP6_PARAM_PROBLEM = 4,
    ICMP6_ECHO = 128,
    ICMP6_ECHO_REPLY = 129,
    ICMP6_MLD_QUERY = 130,
    ICMP6_MLD_REPORT = 131,
    ICMP6_MLD_DONE = 132,
    ICMP6_ROUTER_SOLICIT = 133,
    ICMP6_ROUTER_ADVERT = 134,
    ICMP6_NEIGHBOUR_SOLICIT = 135,
    ICMP6_NEIGHBOUR_ADVERT = 136,
    ICMP6_REDIRECT = 137,
    ICMP6_MLD2_REPORT = 143,
};

/* An ICMP error of this type and code, with these 4 bytes behind its checksum, about @p; limited, and with
 * the exceptions of icmp.md U7. Return: EV_SENT; EV_RATE_LIMITED; EV_NO_ROUTE: no address to send it from;
 * EV_DROPPED: not allowed, or lost. */
enum echo_result icmp_send_raw(struct stack *s, const struct packet *p, uint8_t type, uint8_t code,
                               uint32_t word);
/* The same with its sender chosen: none: as icmp_send_raw() does; @limited: it spends the stack's bucket. */
struct icmp_error {
    struct ip_addr from;
    uint8_t type, code;
    uint32_t word;
    bool limited;
};
enum echo_result icmp_send_chosen(struct stack *s, const struct packet *p, const struct icmp_error *e);
bool icmp_may_answer(const struct packet *p, uint8_t type, uint8_t code);
/* Type, code and word for @why; mtu > 0: too big. False: REJECT_SILENT. */
bool icmp_error_for(bool v6, enum stack_reject why, uint32_t mtu, struct icmp_error *out);
enum echo_result icmp_reject(struct stack *s, const struct packet *p, enum stack_reject why, uint32_t mtu);
/* The IP header of a datagram that its sender sent and that we no longer have: V6_HEADER bytes of room at @h;
 * its length. */
size_t icmp_rebuild_header(const struct stack *s, const struct flow_key *f, size_t l4_len, uint8_t *h);
void icmp_error_input(struct stack *s, const struct packet *p);
void echo_input(struct stack *s, struct packet *p);       /* a request, checked */
void echo_reply_input(struct stack *s, struct packet *p); /* a reply, checked */

bool echo_is_in_callback(const struct stack *s);

/* ICMP endpoints (endpoint_icmp.c): has one bound itself to this request's id; does one wait for this
 * reply? */
bool icmp_endpoint_shadows(struct stack *s, const struct packet *p);
bool icmp_endpoint_reply(struct stack *s, const struct packet *p);
/* An error about an echo request of ours: addresses and ICMP header of @quoted as we sent them. */
void icmp_endpoint_error(struct stack *s, const struct packet *quoted, const struct ip_addr *offender,
                         const struct icmp_error *what);
size_t icmp_endpoint_memory_bytes(void);
void icmp_endpoint_init(struct stack *s, void *memory);

size_t echo_memory_bytes(void);
void echo_init(struct stack *s, void *memory);
void echo_forget_all(struct stack *s); /* every token is stale from now on (icmp.md A7) */

/* ---- UDP ----------------------------------------------------------------------------------------------- */

size_t udp_memory_bytes(const struct stack_config *c);
void udp_init(struct stack *s, void *memory);
void udp_fini(struct stack *s);
void udp_batch_end(struct stack *s);
bool udp_batch_pending(const struct stack *s);

#endif
