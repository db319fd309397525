/* netlink_nft.c - is a table of nftables there, with how many rules, and its removal (nfnetlink; linux/netfilter/nf_tables.h).
 * Rules are compiled by libnftables; finding out that somebody flushed them, and taking them away, needs none of that. */
#include "netlink_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#define NFT_TYPE(message) ((uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | (message)))

int netlink_open_nft(struct netlink **out, struct err *err)
{
    struct netlink *nl = calloc(1, sizeof(*nl));
    int r;

    if (nl == NULL)
        return err_set(err, -ENOMEM, "out of memory");
    nl->sock = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
    if (nl->sock == NULL || mnl_socket_bind(nl->sock, 0, MNL_SOCKET_AUTOPID) != 0) {
        r = -errno;
        netlink_close(nl);
        return err_set(err, r, "the kernel's nftables socket does not open: %s", strerror(-r));
    }
    nl->portid = mnl_socket_get_portid(nl->sock);
    *out = nl;
    return 0;
}

static struct nlmsghdr *inet_request(struct netlink *nl, uint16_t message)
{
    struct nlmsghdr *req = nl_request(nl, NFT_TYPE(message), 0, sizeof(struct nfgenmsg));
    struct nfgenmsg *head = mnl_nlmsg_get_payload(req);

    head->nfgen_family = NFPROTO_INET;
    return req;
}

static int count_rule(const struct nlmsghdr *nlh, void *arg)
{
    if (nlh->nlmsg_type != NFT_TYPE(NFT_MSG_NEWRULE))
        return 0;
    return nl_list_add(arg) == NULL ? -ENOMEM : 0;
}

int netlink_nft_rules(struct netlink *nl, const char *table, unsigned *count)
{
    struct nl_list list = { .item_size = 1 };
    struct nlmsghdr *req = inet_request(nl, NFT_MSG_GETTABLE);
    int r;

    mnl_attr_put_strz(req, NFTA_TABLE_NAME, table);
    if ((r = nl_talk(nl, req, NULL, NULL)) != 0)
        return r;
    req = inet_request(nl, NFT_MSG_GETRULE);
    mnl_attr_put_strz(req, NFTA_RULE_TABLE, table);
    r = nl_dump(nl, req, count_rule, &list);
    free(list.items);
    if (r == 0)
        *count = (unsigned)list.count;
    return r;
}

/* Each change stands between a begin and an end (nfnetlink_rcv_batch). */
static char *put_message(char *at, uint16_t type, uint16_t flags, uint32_t seq, uint8_t family,
                         uint16_t subsystem)
{
    struct nlmsghdr *nlh = mnl_nlmsg_put_header(at);
    struct nfgenmsg *head = mnl_nlmsg_put_extra_header(nlh, sizeof(*head));

    nlh->nlmsg_type = type;
    nlh->nlmsg_flags = NLM_F_REQUEST | flags;
    nlh->nlmsg_seq = seq;
    head->nfgen_family = family;
    put_be16((uint8_t *)&head->res_id, subsystem);
    return at;
}

static char *end_of(char *message)
{
    return message + MNL_ALIGN(((struct nlmsghdr *)(void *)message)->nlmsg_len);
}

int netlink_nft_remove(struct netlink *nl, const char *table)
{
    uint32_t seq = nl_batch_seq(nl);
    char *at = put_message(nl->request, NFNL_MSG_BATCH_BEGIN, 0, seq, NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES);

    at = put_message(end_of(at), NFT_TYPE(NFT_MSG_DELTABLE), NLM_F_ACK, seq, NFPROTO_INET, 0);
    mnl_attr_put_strz((struct nlmsghdr *)(void *)at, NFTA_TABLE_NAME, table);
    at = put_message(end_of(at), NFNL_MSG_BATCH_END, 0, seq, NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES);
    return nl_talk_batch(nl, (size_t)(end_of(at) - nl->request));
}
