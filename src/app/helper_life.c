/* helper_life.c - the helper's own side: it waits for a record, does what is on its list, answers, and waits again.
 *
 * Whoever could take over the gateway would speak to us next, so nothing of a record is believed: its size, its kind, the name of
 * the device, each attribute of a change. Signals do not reach us; the end of the gateway is the end of the socket, and ours. */
#include "helper_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "culvert/route.h"
#include "privilege.h"
#include "process.h"
#include "program.h"
#include "sandbox.h"

enum { SOCK_FD = 3 };

/* ---- requests ---- */

static bool is_name(const char name[16])
{
    return name[0] != '\0' && memchr(name, '\0', 16) != NULL && strchr(name, '/') == NULL;
}

static int settle(struct helper_state *s, const struct helper_request *q)
{
    if (s->tun[0] != '\0')
        return strcmp(s->tun, q->name) == 0 ? 0 : -EPERM;
    memcpy(s->tun, q->name, sizeof(s->tun));
    return 0;
}

/* The device may have been made again, so its index is asked for each time; a namesake of another kind is not ours. */
static int tun_index(struct helper_state *s)
{
    struct nl_link link;

    if (s->tun[0] == '\0' || netlink_link_by_name(s->netlink, s->tun, &link) != 0)
        return 0;
    return strcmp(link.kind, "tun") == 0 ? link.ifindex : 0;
}

static int change(struct helper_state *s, const struct helper_request *q)
{
    if (q->len > sizeof(q->change) ||
        !netlink_change_is_ours(q->change, q->len, ROUTE_PROTO_CULVERT, tun_index(s)))
        return -EPERM;
    return netlink_change(s->netlink, q->change, q->len);
}

static int attach(const struct helper_state *s, const struct helper_request *q, int fd)
{
    const int32_t flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
    struct ifreq ifr = { .ifr_flags = (short)q->flags };

    if (fd < 0 || s->tun[0] == '\0' || strcmp(s->tun, q->name) != 0 || (q->flags & ~flags) != 0 ||
        (q->flags & IFF_TUN) == 0)
        return -EPERM;
    memcpy(ifr.ifr_name, q->name, sizeof(ifr.ifr_name));
    return ioctl(fd, TUNSETIFF, &ifr) == 0 ? 0 : -errno;
}

/* What is made later is what was asked for while the gateway still had the privilege itself: never a new text. */
static int keep_text(struct helper_state *s, const struct helper_request *q)
{
    char *text;

    if (s->tun[0] != '\0' || q->len > sizeof(q->change) || s->text_len + q->len > HELPER_TEXT_MAX)
        return -EPERM;
    if ((text = realloc(s->text, s->text_len + q->len + 1)) == NULL)
        return -ENOMEM;
    memcpy(text + s->text_len, q->change, q->len);
    s->text = text;
    s->text_len += q->len;
    s->text[s->text_len] = '\0';
    return 0;
}

static int load_table(const struct helper_state *s, char says[SANDBOX_TEXT_MAX])
{
    struct err err;
    int r;

    if (s->text == NULL)
        return -EPERM;
    if ((r = route_nft_run(s->text, &err)) != 0)
        snprintf(says, SANDBOX_TEXT_MAX, "%s", err.text);
    return r;
}

void helper_answer_to(struct helper_state *s, const struct helper_request *q, size_t bytes, int fd,
                      struct helper_answer *out)
{
    *out = (struct helper_answer){ .result = -EPERM };
    if (bytes != sizeof(*q))
        return;
    out->seq = q->seq;
    switch ((enum helper_kind)q->kind) {
    case HELPER_NFT_TEXT:
        out->result = keep_text(s, q);
        return;
    case HELPER_NFT_LOAD:
        out->result = load_table(s, out->says);
        return;
    case HELPER_NFT_RULES:
        out->result = route_nft_rules(&out->count);
        return;
    case HELPER_NFT_REMOVE:
        out->result = route_nft_remove();
        return;
    case HELPER_END_SOCKETS:
        out->result = s->mark != 0 && s->diag != NULL
                          ? netlink_destroy_sockets(s->diag, &q->gone, s->mark, &out->count)
                          : -EPERM;
        return;
    case HELPER_DNS_RESTORE:
        out->result = s->dns ? route_dns_restore(ROUTE_DNS_FILE) : -EPERM;
        return;
    case HELPER_SETTLE:
        out->result = is_name(q->name) ? settle(s, q) : -EPERM;
        return;
    case HELPER_CHANGE:
        out->result = change(s, q);
        return;
    case HELPER_ATTACH:
        out->result = is_name(q->name) ? attach(s, q, fd) : -EPERM;
        return;
    case HELPER_PROGRAM:
        program_of_socket(q->uid, q->inode, out->program);
        out->result = 0;
        return;
    }
}

/* ---- life ---- */

static void keep_only(int sock)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0 || dup2(sock, SOCK_FD) < 0)
        _exit(1);
    for (int fd = 0; fd < SOCK_FD; fd++)
        if (dup2(null, fd) < 0)
            _exit(1);
    process_close_from(SOCK_FD + 1);
}

/* At most one descriptor fits the room that there is; the kernel closes others. */
static ssize_t receive(struct helper_request *q, int *fd)
{
    _Alignas(struct cmsghdr) char room[CMSG_SPACE(sizeof(int))];
    struct iovec iov = { q, sizeof(*q) };
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)
    };
    const struct cmsghdr *c;
    ssize_t n = recvmsg(SOCK_FD, &m, MSG_CMSG_CLOEXEC | MSG_TRUNC);

    *fd = -1;
    c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(fd, CMSG_DATA(c), sizeof(*fd));
    return n < 0 ? -errno : n;
}

static void give_up_the_rest(const struct helper_options *opt)
{
    struct privilege_account account;
    struct err err = { "" };

    if (privilege_account_find(opt->dns ? NULL : opt->account, &account, &err) != 0 ||
        privilege_become(&account, &err) != 0 || privilege_keep(opt->keep, &err) != 0)
        _exit(1);
    /* No Landlock: inside it no process outside may be looked at, which is our trade. */
    if (opt->sandbox && sandbox_listen() == 0)
        (void)sandbox_calls(SANDBOX_HELPER, &err); /* the gateway has said it if this kernel cannot */
}

_Noreturn void helper_life(int sock, const struct helper_options *opt)
{
    struct helper_state s = { .mark = opt->mark, .dns = opt->dns };
    struct helper_request q;
    struct helper_answer a;
    struct err err;
    sigset_t all;
    ssize_t n;
    int fd;

    sigfillset(&all);
    sigdelset(&all, SIGSYS); /* a call that is refused is said by EPERM, not by death */
    sigprocmask(SIG_SETMASK, &all, NULL);
    setsid();
    prctl(PR_SET_NAME, "culvert-helper");
    keep_only(sock);
    if (netlink_open(&s.netlink, &err) != 0)
        _exit(1);
    (void)netlink_open_diag(&s.diag, &err); /* without it, nothing is ended */
    give_up_the_rest(opt);
    while ((n = receive(&q, &fd)) != 0) {
        if (n == -EINTR)
            continue;
        if (n < 0)
            _exit(1);
        helper_answer_to(&s, &q, (size_t)n, fd, &a);
        (void)sandbox_refused(a.says);
        if (fd >= 0)
            close(fd);
        if (send(SOCK_FD, &a, sizeof(a), MSG_NOSIGNAL) < 0)
            _exit(errno == EPIPE ? 0 : 1);
    }
    _exit(0);
}
