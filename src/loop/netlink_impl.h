/* netlink_impl.h - what the netlink files of this folder share: the socket, one request, one dump, attributes. */
#ifndef CULVERT_LOOP_NETLINK_IMPL_H
#define CULVERT_LOOP_NETLINK_IMPL_H

#include <libmnl/libmnl.h>

#include "culvert/loop.h"

enum {
    NL_REQUEST_MAX = 1024,     /* our longest request, a rule with every field, is under 256 bytes */
    NL_ANSWER_MAX = 32 * 1024, /* what the kernel puts in one read of a dump at most */
    NL_ATTRS_MAX = 64          /* attribute types above are not ours to read */
};

struct netlink {
    struct mnl_socket *sock;
    uint32_t seq;
    uint32_t portid;
    netlink_change_fn *change; /* makes the changes in our place; NULL: we do */
    void *change_arg;
    _Alignas(8) char request[NL_REQUEST_MAX];
    _Alignas(8) char answer[NL_ANSWER_MAX];
};

/* The attributes of one message by type; NULL where there is none. */
struct nl_attrs {
    const struct nlattr *at[NL_ATTRS_MAX];
};

/* A growing list of equal records, for dumps. */
struct nl_list {
    char *items;
    size_t item_size, count, room;
};

/** nl_request() - an empty request in nl->request, with @extra zeroed bytes of family header
 * That header is mnl_nlmsg_get_payload() of what is returned. */
struct nlmsghdr *nl_request(struct netlink *nl, uint16_t type, uint16_t flags, size_t extra);
/** nl_talk() - send nl->request and wait for its acknowledgement
 * @parse: sees each answer before that, or NULL. Return: 0 or -errno of the kernel, or what @parse returned below 0. */
typedef int nl_parse_fn(const struct nlmsghdr *nlh, void *arg);
int nl_talk(struct netlink *nl, struct nlmsghdr *req, nl_parse_fn *parse, void *arg);
/** nl_talk_batch() - send @len bytes of nl->request, several messages that all carry nl_batch_seq(), and wait for one answer */
uint32_t nl_batch_seq(struct netlink *nl);
int nl_talk_batch(struct netlink *nl, size_t len);
/** nl_dump() - send nl->request as a dump, collecting into @list (emptied first); again while the kernel says that it changed
 * @parse: gets the list as its argument. A family or a table that does not exist is an empty list. */
int nl_dump(struct netlink *nl, struct nlmsghdr *req, nl_parse_fn *parse, struct nl_list *list);
void *nl_list_add(struct nl_list *list); /* zeroed; NULL without memory */

void nl_attrs_read(const struct nlmsghdr *nlh, size_t header_len, struct nl_attrs *out);
uint32_t nl_attr_u32(const struct nlattr *a, uint32_t otherwise); /* also for a missing or short attribute */
void nl_attr_name(const struct nlattr *a, char out[16]);          /* an interface name; empty when missing */
bool nl_attr_addr(const struct nlattr *a, bool v6,
                  struct ip_addr *out); /* false: missing or of another length */

/* Our prefixes count IPv6 bits; the kernel wants those of the family. Any IPv4 length below 96 means "any". */
uint8_t nl_prefix_len(const struct ip_prefix *p, bool v6);
void nl_put_addr(struct nlmsghdr *req, uint16_t type, const struct ip_addr *a, bool v6);
struct ip_prefix nl_prefix(const struct nlattr *a, uint8_t len, bool v6);

#endif
