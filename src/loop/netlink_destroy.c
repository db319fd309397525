/* netlink_destroy.c - sockets whose address has left the machine are ended by the kernel (sock_diag(7), SOCK_DESTROY).
 * Such a connection is dead, but nothing says so before its retransmissions end, many minutes later (faults.md E3). The kernel
 * tells us marks only with CAP_NET_ADMIN, and without one nothing is ended: the mark is what makes a socket ours. */
#include "netlink_impl.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <stdlib.h>
#include <string.h>

struct wanted {
    struct nl_list list; /* what a dump hands to its parser */
    uint8_t local[16];
    size_t local_len;
    uint32_t mark;
};

static int parse_socket(const struct nlmsghdr *nlh, void *arg)
{
    struct wanted *w = CONTAINER_OF(arg, struct wanted, list);
    const struct inet_diag_msg *m = mnl_nlmsg_get_payload(nlh);
    struct nl_attrs attrs;
    struct inet_diag_msg *copy;

    if (mnl_nlmsg_get_payload_len(nlh) < sizeof(*m) || memcmp(m->id.idiag_src, w->local, w->local_len) != 0)
        return 0;
    nl_attrs_read(nlh, sizeof(*m), &attrs);
    if (nl_attr_u32(attrs.at[INET_DIAG_MARK], 0) != w->mark)
        return 0;
    if ((copy = nl_list_add(&w->list)) == NULL)
        return -ENOMEM;
    *copy = *m;
    return 0;
}

static int destroy(struct netlink *nl, const struct inet_diag_msg *m, uint8_t protocol)
{
    struct nlmsghdr *req = nl_request(nl, SOCK_DESTROY, 0, sizeof(struct inet_diag_req_v2));
    struct inet_diag_req_v2 *q = mnl_nlmsg_get_payload(req);

    q->sdiag_family = m->idiag_family;
    q->sdiag_protocol = protocol;
    q->idiag_states = UINT32_MAX;
    q->id = m->id; /* with its cookie: not a socket that has taken its place */
    return nl_talk(nl, req, NULL, NULL);
}

static int destroy_of(struct netlink *nl, struct wanted *w, uint8_t family, uint8_t protocol, unsigned *count)
{
    struct nlmsghdr *req = nl_request(nl, SOCK_DIAG_BY_FAMILY, 0, sizeof(struct inet_diag_req_v2));
    struct inet_diag_req_v2 *q = mnl_nlmsg_get_payload(req);
    const struct inet_diag_msg *found;
    int r;

    q->sdiag_family = family;
    q->sdiag_protocol = protocol;
    q->idiag_states = UINT32_MAX;
    if ((r = nl_dump(nl, req, parse_socket, &w->list)) != 0)
        return r;
    found = (const struct inet_diag_msg *)(const void *)w->list.items;
    for (size_t i = 0; i < w->list.count; i++) {
        int e = destroy(nl, &found[i], protocol);

        *count += e == 0;
        if (r == 0 && e != -ENOENT) /* ended by itself */
            r = e;
    }
    return r;
}

int netlink_destroy_sockets(struct netlink *nl, const struct ip_addr *local, uint32_t mark, unsigned *count)
{
    bool v6 = !ip_is4(local);
    struct wanted w = { .list.item_size = sizeof(struct inet_diag_msg),
                        .local_len = v6 ? 16 : 4,
                        .mark = mark };
    int r;

    *count = 0;
    if (mark == 0)
        return 0;
    memcpy(w.local, v6 ? local->b : local->b + 12, w.local_len);
    r = destroy_of(nl, &w, v6 ? AF_INET6 : AF_INET, IP_PROTO_TCP, count);
    if (r == 0)
        r = destroy_of(nl, &w, v6 ? AF_INET6 : AF_INET, IP_PROTO_UDP, count);
    free(w.list.items);
    return r;
}
