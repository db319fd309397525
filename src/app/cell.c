/* cell.c - the parent's side: fork, id maps, the queues that come back, and the end. */
#include "cell.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cell_impl.h"

/* ---- can it work here? ---- */

static int read_switch(const char *path) /* its number; -1: no such switch */
{
    char text[16] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC), value;

    if (fd < 0)
        return -1;
    if (read(fd, text, sizeof(text) - 1) < 0)
        text[0] = '\0';
    close(fd);
    return sscanf(text, "%d", &value) == 1 ? value : -1;
}

static int check_tun_node(struct err *err)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC), r = -errno;

    if (fd >= 0) {
        close(fd);
        return 0;
    }
    if (r == -ENOENT)
        return err_set(err, r,
                       "/dev/net/tun does not exist; as root: modprobe tun, or in a container: start it with "
                       "--device /dev/net/tun");
    if (r == -EACCES || r == -EPERM)
        return err_set(err, r, "/dev/net/tun is not open to this user; as root: chmod 666 /dev/net/tun");
    if (r == -ENODEV || r == -ENXIO)
        return err_set(err, r, "the kernel has no TUN driver; as root: modprobe tun");
    return err_set(err, r, "/dev/net/tun cannot be opened: %s", strerror(-r));
}

int cell_check(struct err *err)
{
    if (geteuid() != 0 && read_switch("/proc/sys/user/max_user_namespaces") == 0)
        return err_set(err, -ENOSPC,
                       "user namespaces are switched off; as root: sysctl user.max_user_namespaces=10000");
    if (geteuid() != 0 && read_switch("/proc/sys/kernel/unprivileged_userns_clone") == 0)
        return err_set(
            err, -EPERM,
            "user namespaces are for root only here; as root: sysctl kernel.unprivileged_userns_clone=1");
    return check_tun_node(err);
}

/* ---- what the child says ---- */

/* The next message, its descriptors in @c. Return: 0; -EPIPE: the child is gone. */
static int receive_note(struct cell *c, struct cell_note *note)
{
    union {
        char bytes[CMSG_SPACE(sizeof(c->fds))];
        struct cmsghdr align;
    } control;
    struct iovec iov = { note, sizeof(*note) };
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
    };
    ssize_t n;

    do
        n = recvmsg(c->sock, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof(*note))
        return -EPIPE;
    for (struct cmsghdr *m = CMSG_FIRSTHDR(&msg); m != NULL; m = CMSG_NXTHDR(&msg, m)) {
        if (m->cmsg_level != SOL_SOCKET || m->cmsg_type != SCM_RIGHTS)
            continue;
        c->fd_count = (m->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(c->fds, CMSG_DATA(m), c->fd_count * sizeof(int));
    }
    return 0;
}

static int send_byte(int sock, char byte)
{
    return send(sock, &byte, 1, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

static int expect(struct cell *c, enum cell_note_kind kind, struct cell_note *note, struct err *err)
{
    int r = receive_note(c, note);

    if (r != 0)
        return err_set(err, r, "the command's namespace could not be set up: the process for it died");
    if (note->kind == CELL_FAILED)
        return err_set(err, note->r, "%s", note->err.text);
    return note->kind == kind ? 0
                              : err_set(err, -EPROTO, "the command's namespace is set up in the wrong order");
}

static void remember_namespace(struct cell *c)
{
    char path[40];
    struct stat st;

    snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)c->pid);
    if (stat(path, &st) != 0)
        return;
    c->net_dev = st.st_dev;
    c->net_ino = st.st_ino;
}

static int set_up(struct cell *c, struct err *err)
{
    struct cell_note note = { .r = 0 };
    int r = expect(c, CELL_UNSHARED, &note, err);

    if (r != 0 || (note.has_user_ns && (r = cell_write_id_maps(c->pid, err)) != 0))
        return r;
    remember_namespace(c);
    if ((r = send_byte(c->sock, CELL_MAPPED)) != 0)
        return err_set(err, r, "the command's namespace could not be set up: %s", strerror(-r));
    if ((r = expect(c, CELL_READY, &note, err)) != 0)
        return r;
    c->mtu = note.mtu;
    if (note.has_diag && c->fd_count > 0 && netlink_adopt_diag(c->fds[--c->fd_count], &c->diag) != 0)
        close(c->fds[c->fd_count]);
    return c->fd_count > 0 ? 0 : err_set(err, -EPROTO, "the command's namespace came without a TUN");
}

/* ---- life ---- */

int cell_start(const struct cell_options *opt, struct cell *out, struct err *err)
{
    struct cell c = { .sock = -1 };
    pid_t parent = getpid();
    int pair[2], r;

    if ((r = cell_check(err)) != 0)
        return r;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return err_set(err, -errno, "no socket pair: %s", strerror(errno));
    fflush(NULL); /* or the child would print it again */
    c.pid = fork();
    if (c.pid == 0) {
        close(pair[0]);
        cell_child(opt, pair[1], parent);
    }
    r = -errno;
    close(pair[1]);
    c.sock = pair[0];
    if (c.pid < 0) {
        close(c.sock);
        return err_set(err, r, "no process for the command: %s", strerror(-r));
    }
    if ((r = set_up(&c, err)) != 0) {
        cell_end(&c);
        return r;
    }
    *out = c;
    return 0;
}

int cell_go(struct cell *c)
{
    int r = send_byte(c->sock, CELL_GO);

    close(c->sock);
    c->sock = -1;
    return r;
}

void cell_end(struct cell *c)
{
    if (c->pid > 0) {
        kill(c->pid, SIGKILL);
        while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
            ;
        if (c->sock >= 0)
            close(c->sock);
    }
    for (size_t i = 0; i < c->fd_count; i++)
        close(c->fds[i]);
    netlink_close(c->diag);
    *c = (struct cell){ .sock = -1 };
}
