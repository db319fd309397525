/* owner.c - who has a client's socket: a thread that asks the kernel, so that no worker does.
 *
 * A worker posts its question; the thread asks NETLINK_SOCK_DIAG for the user and, where a rule wants the program, walks /proc for the
 * process that has the socket, and posts the answer back. Flows from other machines, and programs of users that /proc hides from us,
 * have no answer: such a flow matches no rule of that kind. */
#include "owner.h"

#include <dirent.h>
#include <fcntl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct owners {
    struct loop *loop;
    struct netlink *diag;
    pthread_t thread;
    bool started;
};

/* Has /proc/PID/fd a link to this socket? */
static bool has_socket(int fd_dir, const char *wanted)
{
    DIR *dir = fdopendir(fd_dir);
    struct dirent *e;
    bool found = false;

    if (dir == NULL) {
        close(fd_dir);
        return false;
    }
    while (!found && (e = readdir(dir)) != NULL) {
        char link[64];
        ssize_t n = readlinkat(dirfd(dir), e->d_name, link, sizeof(link) - 1);

        if (n <= 0)
            continue;
        link[n] = '\0';
        found = strcmp(link, wanted) == 0;
    }
    closedir(dir);
    return found;
}

/* Is @pid of this user and the holder of the socket? Then its program goes to @out. */
static bool is_holder(int proc, const char *pid, uint32_t uid, const char *wanted, char out[FLOW_PROGRAM_MAX])
{
    char path[300];
    struct stat st;
    ssize_t n;
    int dir;

    if (fstatat(proc, pid, &st, 0) != 0 || st.st_uid != uid)
        return false;
    snprintf(path, sizeof(path), "%.20s/fd", pid);
    dir = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || !has_socket(dir, wanted))
        return false;
    snprintf(path, sizeof(path), "%.20s/exe", pid);
    n = readlinkat(proc, path, out, FLOW_PROGRAM_MAX - 1);
    out[n > 0 ? n : 0] = '\0';
    return n > 0;
}

static void find_program(const struct nl_owner *owner, char out[FLOW_PROGRAM_MAX])
{
    DIR *proc = opendir("/proc");
    struct dirent *e;
    char wanted[40];
    bool found = false;

    out[0] = '\0';
    if (proc == NULL || owner->inode == 0) {
        if (proc != NULL)
            closedir(proc);
        return;
    }
    snprintf(wanted, sizeof(wanted), "socket:[%u]", owner->inode);
    while (!found && (e = readdir(proc)) != NULL)
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
            found = is_holder(dirfd(proc), e->d_name, owner->uid, wanted, out);
    closedir(proc);
}

/* [the thread] */
static void look_up(struct loop_msg *m)
{
    struct flow_owner_ask *ask = CONTAINER_OF(m, struct flow_owner_ask, msg);
    struct owners *o = ask->owners;
    struct nl_owner owner;

    ask->found = netlink_socket_owner(o->diag, &ask->key, &owner) == 0;
    ask->program[0] = '\0';
    if (ask->found) {
        ask->uid = owner.uid;
        if (ask->wants_program)
            find_program(&owner, ask->program);
    }
    m->fn = ask->answer;
    loop_post(ask->home, m);
}

static void *run(void *arg)
{
    struct owners *o = arg;

    loop_run(o->loop);
    return NULL;
}

int owners_new(struct owners **out, struct err *err)
{
    struct owners *o = calloc(1, sizeof(*o));
    int r;

    if (o == NULL)
        return err_set(err, -ENOMEM, "out of memory");
    r = netlink_open_diag(&o->diag, err);
    if (r == 0 && (r = loop_new(&o->loop)) != 0)
        err_set(err, r, "no event loop for look-ups of programs: %s", strerror(-r));
    if (r == 0 && (r = -pthread_create(&o->thread, NULL, run, o)) != 0)
        err_set(err, r, "no thread for look-ups of programs: %s", strerror(-r));
    o->started = r == 0;
    if (r != 0) {
        owners_free(o);
        return r;
    }
    *out = o;
    return 0;
}

static void owners_stop(struct owners *o)
{
    if (o == NULL || !o->started)
        return;
    loop_stop(o->loop);
    pthread_join(o->thread, NULL);
    o->started = false;
}

void owners_free(struct owners *o)
{
    if (o == NULL)
        return;
    owners_stop(o);
    if (o->loop != NULL)
        loop_free(o->loop);
    netlink_close(o->diag);
    free(o);
}

void owners_ask(void *arg, struct flow_owner_ask *ask)
{
    struct owners *o = arg;

    ask->owners = o;
    ask->msg.fn = look_up;
    loop_post(o->loop, &ask->msg);
}
