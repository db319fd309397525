/* cell_child.c - the child's side: one step after the other, and the first that fails is the sentence that the user reads. */
#include "cell_impl.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* rtnetlink(7): a plain route, made by an administrator, in the main table. */
enum { ROUTE_UNICAST = 1, ROUTE_PROTO_STATIC = 4, ROUTE_TABLE_MAIN = 254 };

struct child {
    const struct cell_options *opt;
    int sock;
    pid_t parent;
    struct netlink *netlink, *diag;
    struct tun *tun;
};

/* ---- talking ---- */

static int tell(struct child *c, const struct cell_note *note, const int *fds, size_t n)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * (TUN_QUEUES_MAX + 1))];
        struct cmsghdr align;
    } control = { { 0 } };
    struct iovec iov = { (void *)(uintptr_t)note, sizeof(*note) };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (n > 0) {
        struct cmsghdr *m = &control.align;

        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * n);
        m->cmsg_level = SOL_SOCKET;
        m->cmsg_type = SCM_RIGHTS;
        m->cmsg_len = CMSG_LEN(sizeof(int) * n);
        memcpy(CMSG_DATA(m), fds, sizeof(int) * n);
    }
    return sendmsg(c->sock, &msg, MSG_NOSIGNAL) == (ssize_t)sizeof(*note) ? 0 : -errno;
}

static void wait_for(struct child *c, char wanted) /* the end of the parent is ours */
{
    char byte = 0;
    ssize_t n;

    do
        n = recv(c->sock, &byte, 1, 0);
    while (n < 0 && errno == EINTR);
    if (n != 1 || byte != wanted)
        _exit(1);
}

/* ---- steps ---- */

/* The kernel kills us when the parent's main thread ends, whatever ends it (faults.md Q4). */
static int die_with_parent(struct child *c, struct err *err)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        return err_set(err, -errno, "the command cannot be tied to its gateway: %s", strerror(errno));
    if (getppid() != c->parent)
        _exit(1); /* it was faster */
    return 0;
}

static int make_namespaces(struct child *c, struct err *err)
{
    struct cell_note note = { .kind = CELL_UNSHARED };
    int r = cell_unshare(&note.has_user_ns, err);

    if (r != 0)
        return r;
    if ((r = tell(c, &note, NULL, 0)) != 0)
        return err_set(err, r, "the gateway does not listen: %s", strerror(-r));
    wait_for(c, CELL_MAPPED);
    return 0;
}

static int add_default_route(struct child *c, bool v6)
{
    struct nl_route r = { .v6 = v6,
                          .type = ROUTE_UNICAST,
                          .proto = ROUTE_PROTO_STATIC,
                          .table = ROUTE_TABLE_MAIN,
                          .ifindex = tun_ifindex(c->tun) };

    r.dst.len = v6 ? 0 : 96;
    if (!v6)
        r.dst.addr = ip_from4((const uint8_t[4]){ 0, 0, 0, 0 });
    return netlink_route_add(c->netlink, &r);
}

/* Both families lead into the TUN; a kernel without IPv6 has nothing to lead. */
static int make_routes(struct child *c, struct err *err)
{
    int r = add_default_route(c, false);

    if (r != 0)
        return err_set(err, r, "no default route inside: %s", strerror(-r));
    r = add_default_route(c, true);
    if (r != 0 && r != -EOPNOTSUPP && r != -EAFNOSUPPORT && r != -EACCES && r != -EINVAL && r != -ENODEV)
        return err_set(err, r, "no default route for IPv6 inside: %s", strerror(-r));
    if (r != 0)
        log_info("no IPv6 inside: %s", strerror(-r));
    return 0;
}

static int make_network(struct child *c, struct err *err)
{
    struct nl_link lo;
    int r = netlink_open(&c->netlink, err);

    if (r != 0)
        return r;
    if ((r = netlink_link_by_name(c->netlink, "lo", &lo)) != 0 ||
        (r = netlink_link_set(c->netlink, lo.ifindex, true, 0, 0)) != 0)
        return err_set(err, r, "no loopback inside: %s", strerror(-r));
    if ((r = tun_open(c->opt->tun, c->opt->queues, c->netlink, &c->tun, err)) != 0)
        return r;
    if ((r = make_routes(c, err)) == 0)
        cell_allow_ping();
    return r;
}

static int prepare(struct child *c, struct err *err)
{
    int r;

    if ((r = die_with_parent(c, err)) != 0 || (r = make_namespaces(c, err)) != 0 ||
        (r = make_network(c, err)) != 0 ||
        (r = cell_replace_files(c->opt->resolv_conf, c->opt->nsswitch, err)) != 0 ||
        (r = cell_drop_privileges(err)) != 0)
        return r;
    return die_with_parent(c, err); /* a change of credentials has cleared it */
}

static int hand_over(struct child *c, struct err *err)
{
    struct cell_note note = { .kind = CELL_READY, .mtu = tun_mtu(c->tun) };
    int fds[TUN_QUEUES_MAX + 1];
    uint32_t n = tun_queues(c->tun);
    int r;

    for (uint32_t i = 0; i < n; i++)
        fds[i] = tun_queue_fd(c->tun, i);
    if (netlink_open_diag(&c->diag, &note.err) == 0) { /* it belongs to this namespace wherever it is used */
        note.has_diag = true;
        fds[n++] = netlink_fd(c->diag);
    }
    r = tell(c, &note, fds, n);
    return r == 0 ? 0 : err_set(err, r, "the TUN cannot be handed over: %s", strerror(-r));
}

/* From here on the parent alone holds the TUN: when it ends, the device does. tun_close() would take its addresses away. */
static void let_go(struct child *c)
{
    for (uint32_t i = 0; i < tun_queues(c->tun); i++)
        close(tun_queue_fd(c->tun, i));
    netlink_close(c->netlink);
    netlink_close(c->diag);
}

_Noreturn void cell_child(const struct cell_options *opt, int sock, pid_t parent)
{
    struct child c = { .opt = opt, .sock = sock, .parent = parent };
    struct cell_note failed = { .kind = CELL_FAILED };

    if ((failed.r = prepare(&c, &failed.err)) != 0 || (failed.r = hand_over(&c, &failed.err)) != 0) {
        (void)tell(&c, &failed, NULL, 0);
        _exit(1);
    }
    let_go(&c);
    wait_for(&c, CELL_GO);
    close(sock);
    exit(opt->run(opt->arg));
}
