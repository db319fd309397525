/* program.c - which program has a socket: a walk through /proc. */
#include "program.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

void program_of_socket(uint32_t uid, uint32_t inode, char out[FLOW_PROGRAM_MAX])
{
    DIR *proc = opendir("/proc");
    struct dirent *e;
    char wanted[40];
    bool found = false;

    out[0] = '\0';
    if (proc == NULL || inode == 0) {
        if (proc != NULL)
            closedir(proc);
        return;
    }
    snprintf(wanted, sizeof(wanted), "socket:[%u]", inode);
    while (!found && (e = readdir(proc)) != NULL)
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
            found = is_holder(dirfd(proc), e->d_name, uid, wanted, out);
    closedir(proc);
}
