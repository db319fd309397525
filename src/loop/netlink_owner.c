/* netlink_owner.c - whose socket is it? One question of NETLINK_SOCK_DIAG (inet_diag) for one flow, answered by the kernel's own
 * tables of connections: no list is walked, and nothing waits. Only sockets of this network namespace are found. */
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <stdlib.h>
#include <string.h>

#include "netlink_impl.h"

int netlink_open_diag(struct netlink **out, struct err *err)
{
    struct netlink *nl = calloc(1, sizeof(*nl));
    int r;

    if (nl == NULL)
        return err_set(err, -ENOMEM, "out of memory");
    nl->sock = mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC);
    if (nl->sock == NULL || mnl_socket_bind(nl->sock, 0, MNL_SOCKET_AUTOPID) != 0) {
        r = -errno;
        netlink_close(nl);
        return err_set(err, r, "the kernel's socket for questions about sockets does not open: %s",
                       strerror(-r));
    }
    nl->portid = mnl_socket_get_portid(nl->sock);
    *out = nl;
    return 0;
}

int netlink_adopt_diag(int fd, struct netlink **out)
{
    struct netlink *nl = calloc(1, sizeof(*nl));

    if (nl == NULL)
        return -ENOMEM;
    nl->sock = mnl_socket_fdopen(fd);
    if (nl->sock == NULL) {
        int r = -errno;

        free(nl);
        return r;
    }
    nl->portid = mnl_socket_get_portid(nl->sock);
    *out = nl;
    return 0;
}

int netlink_fd(const struct netlink *nl)
{
    return mnl_socket_get_fd(nl->sock);
}

static void put_end(const struct ip_addr *a, uint16_t port, __be32 addr[4], __be16 *port_be)
{
    if (ip_is4(a))
        memcpy(addr, a->b + 12, 4);
    else
        memcpy(addr, a->b, 16);
    put_be16((uint8_t *)port_be, port);
}

struct found {
    struct nl_owner owner;
    bool any;
};

static int take_owner(const struct nlmsghdr *nlh, void *arg)
{
    struct found *f = arg;
    const struct inet_diag_msg *m = mnl_nlmsg_get_payload(nlh);

    if (mnl_nlmsg_get_payload_len(nlh) < sizeof(*m))
        return -EBADMSG;
    f->owner.uid = m->idiag_uid;
    f->owner.inode = m->idiag_inode;
    f->any = true;
    return 0;
}

/* The kernel looks UDP up as a packet that comes in, so there the far end stands first. */
int netlink_socket_owner(struct netlink *nl, const struct flow_key *key, struct nl_owner *out)
{
    struct nlmsghdr *req = nl_request(nl, SOCK_DIAG_BY_FAMILY, 0, sizeof(struct inet_diag_req_v2));
    struct inet_diag_req_v2 *q = mnl_nlmsg_get_payload(req);
    struct inet_diag_sockid *id = &q->id;
    struct found found = { .any = false };
    int r;

    if (key->proto != IP_PROTO_TCP && key->proto != IP_PROTO_UDP)
        return -ENOENT;
    q->sdiag_family = ip_is4(&key->client) ? AF_INET : AF_INET6;
    q->sdiag_protocol = key->proto;
    q->idiag_states = UINT32_MAX;
    if (key->proto == IP_PROTO_TCP) {
        put_end(&key->client, key->client_port, id->idiag_src, &id->idiag_sport);
        put_end(&key->target, key->target_port, id->idiag_dst, &id->idiag_dport);
    } else {
        put_end(&key->target, key->target_port, id->idiag_src, &id->idiag_sport);
        put_end(&key->client, key->client_port, id->idiag_dst, &id->idiag_dport);
    }
    id->idiag_cookie[0] = id->idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    r = nl_talk(nl, req, take_owner, &found);
    if (r != 0 || !found.any)
        return r != 0 ? r : -ENOENT;
    *out = found.owner;
    return 0;
}
