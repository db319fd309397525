/* helper_impl.h - what the two sides of the helper's socket say to each other: one record there, one back. */
#ifndef CULVERT_APP_HELPER_IMPL_H
#define CULVERT_APP_HELPER_IMPL_H

#include "helper.h"
#include "sandbox.h"

enum helper_kind {
    HELPER_NFT_TEXT = 1, /* a piece of it; only before HELPER_SETTLE */
    HELPER_SETTLE,
    HELPER_CHANGE,
    HELPER_ATTACH,
    HELPER_PROGRAM,
    HELPER_NFT_LOAD,
    HELPER_NFT_RULES,
    HELPER_NFT_REMOVE,
    HELPER_END_SOCKETS,
    HELPER_DNS_RESTORE
};
enum { HELPER_TEXT_MAX = 256 * 1024 };

struct helper_request {
    uint32_t kind; /* enum helper_kind, unchecked */
    uint32_t seq;  /* comes back */
    uint32_t len;  /* HELPER_CHANGE, HELPER_NFT_TEXT: bytes of `change` */
    uint32_t uid, inode;
    int32_t flags;       /* HELPER_ATTACH: of TUNSETIFF; the queue's descriptor comes with the record */
    struct ip_addr gone; /* HELPER_END_SOCKETS */
    char name[16];       /* HELPER_SETTLE, HELPER_ATTACH */
    _Alignas(8) uint8_t change[NETLINK_CHANGE_MAX];
};
struct helper_answer {
    uint32_t seq;
    int32_t result; /* 0 or -errno */
    uint32_t count; /* HELPER_NFT_RULES, HELPER_END_SOCKETS */
    char program[FLOW_PROGRAM_MAX];
    char says[SANDBOX_TEXT_MAX]; /* for the gateway's log; "": nothing. The helper has no log of its own */
};

struct helper_state { /* of the helper itself */
    struct netlink *netlink, *diag;
    uint32_t mark; /* of sockets that may be ended; 0: none may */
    bool dns;      /* resolv.conf may be put back */
    char tun[16];  /* empty: not settled yet */
    char *text;    /* of our table of nftables; NULL: there is none */
    size_t text_len;
};

/** helper_answer_to() - do what a record of @bytes bytes asks for, if it is one and allowed
 * @fd: the descriptor that came with it, or -1; stays the caller's */
void helper_answer_to(struct helper_state *s, const struct helper_request *q, size_t bytes, int fd,
                      struct helper_answer *out);
/** helper_life() - the helper's whole life, on its end of the socket */
_Noreturn void helper_life(int sock, const struct helper_options *opt);

#endif
