/* helper.c - the gateway's side of the helper: it is forked, asked, watched, and ended. */
#include "helper_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

struct helper {
    pthread_mutex_t lock; /* one question at a time; guards sock and seq */
    int sock;
    int pidfd; /* readable when it has ended */
    pid_t pid;
    uint32_t seq;
    struct loop *loop;
    struct loop_io io;
    void (*on_dead)(void *arg);
    void *arg;
};

/* ---- questions ---- */

static int send_request(struct helper *h, const struct helper_request *q, int fd)
{
    _Alignas(struct cmsghdr) char room[CMSG_SPACE(sizeof(int))] = { 0 };
    struct iovec iov = { (void *)(uintptr_t)q, sizeof(*q) };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
    struct cmsghdr *c;

    if (fd >= 0) {
        m.msg_control = room;
        m.msg_controllen = sizeof(room);
        c = CMSG_FIRSTHDR(&m);
        *c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)),
                               .cmsg_level = SOL_SOCKET,
                               .cmsg_type = SCM_RIGHTS };
        memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    return sendmsg(h->sock, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* An answer that comes after we gave up on it has an older number and is thrown away. */
static int receive_answer(struct helper *h, struct helper_answer *a)
{
    for (;;) {
        ssize_t n = recv(h->sock, a, sizeof(*a), 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        if (n != (ssize_t)sizeof(*a))
            return -EPIPE;
        if (a->seq != h->seq)
            continue;
        a->says[sizeof(a->says) - 1] = '\0';
        if (a->says[0] != '\0')
            log_warning("the helper process: %s", a->says);
        return a->result;
    }
}

static int ask(struct helper *h, struct helper_request *q, int fd, struct helper_answer *a)
{
    int r;

    pthread_mutex_lock(&h->lock);
    q->seq = ++h->seq;
    r = send_request(h, q, fd);
    if (r == 0)
        r = receive_answer(h, a);
    pthread_mutex_unlock(&h->lock);
    return r;
}

static int give_text(struct helper *h, const char *text)
{
    size_t left = text != NULL ? strlen(text) : 0;
    int r = 0;

    while (r == 0 && left > 0) {
        struct helper_request q = { .kind = HELPER_NFT_TEXT };
        struct helper_answer a;

        q.len = (uint32_t)(left < sizeof(q.change) ? left : sizeof(q.change));
        memcpy(q.change, text, q.len);
        r = ask(h, &q, -1, &a);
        text += q.len;
        left -= q.len;
    }
    return r;
}

int helper_settle(struct helper *h, const char *tun_name, const char *nft_text)
{
    struct helper_request q = { .kind = HELPER_SETTLE };
    struct helper_answer a;
    int r = give_text(h, nft_text);

    strncpy(q.name, tun_name, sizeof(q.name) - 1);
    return r != 0 ? r : ask(h, &q, -1, &a);
}

static int ask_plainly(struct helper *h, enum helper_kind kind, unsigned *count)
{
    struct helper_request q = { .kind = kind };
    struct helper_answer a;
    int r = ask(h, &q, -1, &a);

    if (r == 0 && count != NULL)
        *count = a.count;
    return r;
}

int helper_nft_load(void *helper)
{
    return ask_plainly(helper, HELPER_NFT_LOAD, NULL);
}

int helper_nft_rules(void *helper, unsigned *count)
{
    return ask_plainly(helper, HELPER_NFT_RULES, count);
}

int helper_nft_remove(void *helper)
{
    return ask_plainly(helper, HELPER_NFT_REMOVE, NULL);
}

int helper_dns_restore(struct helper *h)
{
    return ask_plainly(h, HELPER_DNS_RESTORE, NULL);
}

int helper_end_sockets(struct helper *h, const struct ip_addr *gone, unsigned *count)
{
    struct helper_request q = { .kind = HELPER_END_SOCKETS, .gone = *gone };
    struct helper_answer a;
    int r = ask(h, &q, -1, &a);

    if (r == 0)
        *count = a.count;
    return r;
}

int helper_change(void *helper, const void *request, size_t len)
{
    struct helper_request q = { .kind = HELPER_CHANGE, .len = (uint32_t)len };
    struct helper_answer a;

    if (len > sizeof(q.change))
        return -EMSGSIZE;
    memcpy(q.change, request, len);
    return ask(helper, &q, -1, &a);
}

int helper_attach(void *helper, int fd, const char *name, short flags)
{
    struct helper_request q = { .kind = HELPER_ATTACH, .flags = (uint16_t)flags };
    struct helper_answer a;

    strncpy(q.name, name, sizeof(q.name) - 1);
    return ask(helper, &q, fd, &a);
}

void helper_program(struct helper *h, uint32_t uid, uint32_t inode, char out[FLOW_PROGRAM_MAX])
{
    struct helper_request q = { .kind = HELPER_PROGRAM, .uid = uid, .inode = inode };
    struct helper_answer a;

    out[0] = '\0';
    if (ask(h, &q, -1, &a) != 0)
        return;
    a.program[sizeof(a.program) - 1] = '\0';
    memcpy(out, a.program, FLOW_PROGRAM_MAX);
}

/* ---- life ---- */

static void on_end(struct loop_io *io, unsigned events)
{
    struct helper *h = CONTAINER_OF(io, struct helper, io);

    (void)events;
    loop_io_stop(h->loop, io);
    h->on_dead(h->arg);
}

void helper_watch(struct helper *h, struct loop *l, void (*on_dead)(void *arg), void *arg)
{
    h->loop = l;
    h->on_dead = on_dead;
    h->arg = arg;
    loop_io_start(l, &h->io, h->pidfd, LOOP_READ, on_end);
}

int helper_start(const struct helper_options *opt, struct helper **out, struct err *err)
{
    struct timeval patience = { .tv_sec = HELPER_TIMEOUT_MS / 1000 };
    struct helper *h = calloc(1, sizeof(*h));
    int pair[2], r;

    if (h == NULL || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        r = h == NULL ? -ENOMEM : -errno;
        free(h);
        return err_set(err, r, "no helper process: %s", strerror(-r));
    }
    if ((h->pid = fork()) == 0)
        helper_life(pair[1], opt);
    r = h->pid < 0 ? -errno : 0;
    close(pair[1]);
    h->sock = pair[0];
    h->pidfd = r == 0 ? (int)syscall(SYS_pidfd_open, h->pid, 0) : -1;
    pthread_mutex_init(&h->lock, NULL);
    (void)setsockopt(h->sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (r == 0 && h->pidfd < 0)
        r = -errno;
    if (r != 0) {
        helper_end(h);
        return err_set(err, r, "no helper process: %s", strerror(-r));
    }
    *out = h;
    return 0;
}

void helper_end(struct helper *h)
{
    if (h == NULL)
        return;
    if (h->loop != NULL)
        loop_io_stop(h->loop, &h->io);
    close(h->sock); /* which is how it knows */
    while (h->pid > 0 && waitpid(h->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (h->pidfd >= 0)
        close(h->pidfd);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

pid_t helper_pid(const struct helper *h)
{
    return h->pid;
}
