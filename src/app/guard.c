/* guard.c - ends the processes of a namespace whose gateway was killed.
 *
 * It has no descriptor but the pipe, no signal but SIGKILL reaches it, and it is in a session of its own, so it neither holds a
 * terminal or a pipe of COMMAND's open nor is stopped by the keyboard. Processes are found by their network namespace in /proc;
 * a walk is repeated until it finds none, since a process may fork between two looks. */
#include "guard.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process.h"

enum { WALKS_MAX = 1000 };

static bool in_namespace(const char *pid, const struct cell *c)
{
    char path[64];
    struct stat st;

    snprintf(path, sizeof(path), "/proc/%.20s/ns/net", pid);
    return stat(path, &st) == 0 && st.st_dev == c->net_dev && st.st_ino == c->net_ino;
}

static int kill_once(const struct cell *c) /* returns how many */
{
    DIR *proc = opendir("/proc");
    const struct dirent *e;
    int killed = 0;

    while (proc != NULL && (e = readdir(proc)) != NULL) {
        if (isdigit((unsigned char)e->d_name[0]) && in_namespace(e->d_name, c))
            killed += kill((pid_t)strtol(e->d_name, NULL, 10), SIGKILL) == 0;
    }
    if (proc != NULL)
        closedir(proc);
    return killed;
}

/* Standard input to error lead nowhere, the pipe is 3, and nothing else is open. */
static void keep_only(int pipe)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int fd = 0; fd < 3; fd++) {
        if (null < 0 || dup2(null, fd) < 0)
            _exit(1);
    }
    if (dup2(pipe, 3) < 0)
        _exit(1);
    process_close_from(4);
}

static _Noreturn void guard_life(int pipe, const struct cell *c)
{
    sigset_t all;
    char byte;
    ssize_t n;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    setsid();
    prctl(PR_SET_NAME, "culvert-guard");
    keep_only(pipe);
    do
        n = read(3, &byte, 1);
    while (n < 0 && errno == EINTR);
    for (int i = 0; n == 0 && i < WALKS_MAX && kill_once(c) > 0; i++)
        ;
    _exit(0);
}

void guard_start(struct guard *g, const struct cell *c)
{
    int pair[2];
    pid_t pid;

    *g = (struct guard){ .pipe = -1 };
    if (c->net_ino == 0 || pipe2(pair, O_CLOEXEC) != 0)
        return;
    pid = fork();
    if (pid == 0) {
        close(pair[1]);
        guard_life(pair[0], c);
    }
    close(pair[0]);
    if (pid < 0) {
        close(pair[1]);
        log_warning("children of the command would outlive a killed gateway: %s", strerror(errno));
        return;
    }
    *g = (struct guard){ .pid = pid, .pipe = pair[1] };
}

void guard_dismiss(struct guard *g)
{
    if (g->pid <= 0)
        return;
    (void)!write(g->pipe, "", 1);
    close(g->pipe);
    while (waitpid(g->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    *g = (struct guard){ .pipe = -1 };
}
