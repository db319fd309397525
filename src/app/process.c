/* process.c - what a process arranges for itself. */
#include "process.h"

#include "culvert/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { FEW_DESCRIPTORS = 4096 }; /* below that, some thousand flows do not fit: worth a line */
enum { DESCRIPTORS_KEPT = 8 };

void process_fill_stdio(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)open("/dev/null", O_RDWR | O_CLOEXEC); /* the lowest free number, which is fd */
    }
}

void process_close_from(int first)
{
    syscall(SYS_close_range, (unsigned)first, ~0u, 0u); /* musl 1.2.3 has no function for it; Linux 5.9 */
}

/* Where there are many, limits.tcp keeps flows from taking them all; where there are few, some stay above the soft limit. */
void process_raise_fd_limit(void)
{
    struct rlimit files, ours;
    bool few;

    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return;
    few = files.rlim_max < FEW_DESCRIPTORS;
    ours = (struct rlimit){ files.rlim_max, files.rlim_max };
    if (few && files.rlim_max >= (rlim_t)4 * DESCRIPTORS_KEPT)
        ours.rlim_cur -= DESCRIPTORS_KEPT;
    if (setrlimit(RLIMIT_NOFILE, &ours) == 0)
        files = ours;
    if (few)
        log_warning(
            "only %llu descriptors are allowed, and every flow needs one or two; raise the limit (ulimit -n, "
            "LimitNOFILE=)",
            (unsigned long long)files.rlim_cur);
}

int process_wait_for_entropy(ssize_t (*get)(void *out, size_t len, unsigned flags), unsigned most_ms)
{
    const unsigned step_ms = 100;
    uint8_t byte;

    for (unsigned waited_ms = 0;; waited_ms += step_ms) {
        if (get(&byte, 1, GRND_NONBLOCK) == 1)
            return 0;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        if (waited_ms == 0)
            log_warning("the kernel has no random numbers yet; waiting for them, %u s at most",
                        most_ms / 1000);
        if (waited_ms >= most_ms)
            return -EAGAIN;
        nanosleep(&(struct timespec){ .tv_nsec = step_ms * 1000000L }, NULL);
    }
}

uint32_t process_usable_cores(void)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) != 0 || CPU_COUNT(&set) < 1)
        return 1;
    return (uint32_t)CPU_COUNT(&set);
}

int process_claim(const char *what)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    size_t len = (size_t)snprintf(sa.sun_path + 1, sizeof(sa.sun_path) - 1, "culvert/%s", what);
    int fd, r;

    if (len >= sizeof(sa.sun_path) - 1)
        return -ENAMETOOLONG;
    if ((fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&sa, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len)) == 0)
        return fd;
    r = -errno;
    close(fd);
    return r;
}

int process_port_is_free(const struct ip_port *at)
{
    struct sockaddr_storage sa;
    socklen_t len = ip_to_sockaddr(at, &sa);
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, r;

    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on,
               sizeof(on)); /* connections that linger there are no listener */
    r = bind(fd, (struct sockaddr *)&sa, len) == 0 ? 0 : -errno;
    close(fd);
    return r;
}

void process_notify(const char *state)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    const char *path = getenv("NOTIFY_SOCKET");
    size_t len = path != NULL ? strlen(path) : 0;
    int fd;

    if (len < 2 || len >= sizeof(sa.sun_path) || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(sa.sun_path, path, len);
    if (path[0] == '@')
        sa.sun_path[0] = '\0'; /* an abstract name (unix(7)) */
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)sendto(fd, state, strlen(state), MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&sa,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    close(fd);
}

void process_notify_reloading(void)
{
    char state[64];

    snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)clock_now_us());
    process_notify(state);
}
