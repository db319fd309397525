/* sandbox_calls.c - the system calls that are left, each with its reason (seccomp(2), by libseccomp).
 *
 * How it works. The filter is a list of calls that are allowed. What is not on it returns EPERM to the caller: the kernel sends
 * SIGSYS, and the handler puts EPERM where the call's result is expected and notes the number; the main thread writes the line.
 * On a processor whose registers we do not know here the kernel returns EPERM by itself, without a line. A few calls are
 * refused on purpose and without a line, since whoever makes them knows what to do then: raw sockets, clone3().
 *
 * A name that this processor or libseccomp does not know is left out. */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef WITH_SECCOMP
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <sched.h>
#include <seccomp.h>

#define OF_GATEWAY (1u << SANDBOX_GATEWAY | OF_PARENT)
#define OF_PARENT  (1u << SANDBOX_PARENT)
#define OF_HELPER  (1u << SANDBOX_HELPER)
#define OF_BOTH    (OF_GATEWAY | OF_HELPER)

static const struct {
    const char *name;
    unsigned who;
    const char *why;
} allowed[] = {
    { "read", OF_BOTH, "sockets, files of a reload, doorbells of loops" },
    { "readv", OF_GATEWAY, "the TUN: a header and a packet" },
    { "write", OF_BOTH, "log, doorbells, fake addresses" },
    { "writev", OF_GATEWAY, "the TUN: a header and a packet; stdio of some C libraries" },
    { "pread64", OF_BOTH, "files that the C library reads" },
    { "close", OF_BOTH, "flows end" },
    { "close_range", OF_BOTH, "the helper's first step" },
    { "recvfrom", OF_GATEWAY, "sockets" },
    { "recvmsg", OF_BOTH, "datagrams with their TTL, error queues, netlink" },
    { "recvmmsg", OF_GATEWAY, "rows of datagrams" },
    { "sendto", OF_BOTH, "sockets, netlink, the word to the service manager" },
    { "sendmsg", OF_BOTH, "sockets; a queue's descriptor for the helper" },
    { "sendmmsg", OF_GATEWAY, "rows of datagrams" },
    { "sendfile", OF_GATEWAY, "HTTP server library" },
    { "connect", OF_GATEWAY, "upstreams" },
    { "bind", OF_BOTH, "sockets of an association, netlink" },
    { "listen", OF_GATEWAY, "a control socket" },
    { "accept", OF_GATEWAY, "the control socket" },
    { "accept4", OF_GATEWAY, "the control socket" },
    { "shutdown", OF_GATEWAY, "half close" },
    { "getsockname", OF_BOTH, "the port that the kernel chose; netlink's own" },
    { "getpeername", OF_GATEWAY, "the control socket" },
    { "getsockopt", OF_BOTH, "how a connect ended, round trip time" },
    { "setsockopt", OF_BOTH, "marks, devices, buffers" },
    { "socketpair", OF_GATEWAY, "HTTP server library" },
    { "epoll_create1", OF_GATEWAY, "a loop that finds its descriptor broken makes a new one" },
    { "epoll_ctl", OF_GATEWAY, "loops" },
    { "epoll_wait", OF_GATEWAY, "loops" },
    { "epoll_pwait", OF_GATEWAY, "loops" },
    { "epoll_pwait2", OF_GATEWAY, "loops" },
    { "poll", OF_BOTH, "is there room in the log's pipe" },
    { "ppoll", OF_GATEWAY, "the same" },
    { "select", OF_BOTH, "waits of libraries" },
    { "pselect6", OF_BOTH, "the same: libnftables listens for errors" },
    { "eventfd2", OF_GATEWAY, "doorbells of loops" },
    { "pipe2", OF_GATEWAY, "doorbells where there is no eventfd" },
    { "timerfd_create", OF_GATEWAY, "libev looks for jumps of the clock" },
    { "timerfd_settime", OF_GATEWAY, "the same" },
    { "fcntl", OF_BOTH, "non-blocking, close-on-exec" },
    { "ftruncate", OF_BOTH, "files in the state folder" },
    { "openat", OF_BOTH, "a reload's files; /proc" },
    { "open", OF_BOTH, "the same, of older C libraries" },
    { "newfstatat", OF_BOTH, "is it a regular file" },
    { "fstatat64", OF_BOTH, "the same" },
    { "fstat", OF_BOTH, "the same" },
    { "fstat64", OF_BOTH, "the same" },
    { "stat", OF_BOTH, "the same" },
    { "stat64", OF_BOTH, "the same" },
    { "lstat", OF_BOTH, "the same" },
    { "statx", OF_BOTH, "the same" },
    { "statfs", OF_GATEWAY, "libraries at their first use" },
    { "fstatfs", OF_GATEWAY, "the same" },
    { "access", OF_GATEWAY, "is there a configuration" },
    { "faccessat", OF_GATEWAY, "the same" },
    { "faccessat2", OF_GATEWAY, "the same" },
    { "readlink", OF_BOTH, "whose program; real names of paths" },
    { "readlinkat", OF_BOTH, "the same" },
    { "getdents64", OF_BOTH, "folders of /proc, lists of rules" },
    { "getcwd", OF_GATEWAY, "a configuration with a relative path" },
    { "lseek", OF_BOTH, "stdio, folders" },
    { "_llseek", OF_BOTH, "the same" },
    { "fsync", OF_BOTH, "fake addresses outlive a power cut" },
    { "fdatasync", OF_GATEWAY, "the same" },
    { "rename", OF_BOTH, "a file is replaced as a whole" },
    { "renameat", OF_BOTH, "the same" },
    { "renameat2", OF_BOTH, "the same" },
    { "unlink", OF_BOTH, "the control socket at the end" },
    { "unlinkat", OF_BOTH, "the same" },
    { "utimensat", OF_GATEWAY, "a list of rules that has not changed is as good as new" },
    { "utimensat_time64", OF_GATEWAY, "the same" },
    { "mkdir", OF_GATEWAY, "the state folder" },
    { "mkdirat", OF_GATEWAY, "the same" },
    { "fchmod", OF_BOTH, "a file of the state folder is nobody else's" },
    { "umask", OF_GATEWAY, "the same" },
    { "flock", OF_GATEWAY, "one writer at a time" },
    { "dup", OF_GATEWAY, "stdio" },
    { "fchdir", OF_GATEWAY, "walks of the C library" },
    { "brk", OF_BOTH, "malloc" },
    { "munmap", OF_BOTH, "malloc, files of rules" },
    { "mremap", OF_BOTH, "malloc" },
    { "madvise", OF_BOTH, "memory goes back to the system" },
    { "mincore", OF_BOTH, "unwinding the stack of a crash" },
    { "futex", OF_BOTH, "the log's lock, joining threads" },
    { "futex_time64", OF_BOTH, "the same" },
    { "set_robust_list", OF_BOTH, "a thread begins" },
    { "get_robust_list", OF_BOTH, "the same" },
    { "rseq", OF_BOTH, "a thread begins" },
    { "set_tid_address", OF_BOTH, "a thread begins" },
    { "gettid", OF_BOTH, "who am I" },
    { "getpid", OF_BOTH, "who am I" },
    { "getppid", OF_BOTH, "who am I" },
    { "getuid", OF_BOTH, "who am I" },
    { "geteuid", OF_BOTH, "who am I" },
    { "getgid", OF_BOTH, "who am I" },
    { "getegid", OF_BOTH, "who am I; what a ping may do" },
    { "getgroups", OF_GATEWAY, "what a ping may do" },
    { "getuid32", OF_BOTH, "who am I" },
    { "geteuid32", OF_BOTH, "who am I" },
    { "getgid32", OF_BOTH, "who am I" },
    { "getegid32", OF_BOTH, "who am I" },
    { "getgroups32", OF_GATEWAY, "what a ping may do" },
    { "capget", OF_GATEWAY, "what may I" },
    { "rt_sigaction", OF_BOTH, "a second signal ends it at once" },
    { "rt_sigprocmask", OF_BOTH, "a thread begins; abort()" },
    { "rt_sigreturn", OF_BOTH, "the end of each handler" },
    { "sigreturn", OF_BOTH, "the same" },
    { "rt_sigtimedwait", OF_GATEWAY, "libraries that wait; a SIGPIPE at the end" },
    { "rt_sigtimedwait_time64", OF_GATEWAY, "the same" },
    { "sigaltstack", OF_GATEWAY, "a crash is told even when the stack is full" },
    { "signalfd4", OF_GATEWAY, "signals of a loop" },
    { "kill", OF_PARENT, "signals of the terminal go on to the command" },
    { "tgkill", OF_GATEWAY, "abort() of a thread that is stuck; a command's job is stopped, and so are we" },
    { "tkill", OF_GATEWAY, "the same, of musl" },
    { "restart_syscall", OF_BOTH, "after SIGCONT" },
    { "exit", OF_BOTH, "a thread ends" },
    { "exit_group", OF_BOTH, "the end" },
    { "wait4", OF_GATEWAY, "the helper's end" },
    { "waitid", OF_GATEWAY, "the same" },
    { "waitpid", OF_GATEWAY, "the same" },
    { "nanosleep", OF_GATEWAY, "libraries that wait" },
    { "clock_nanosleep", OF_GATEWAY, "the same" },
    { "clock_nanosleep_time64", OF_GATEWAY, "the same" },
    { "clock_gettime", OF_BOTH, "where there is no vDSO" },
    { "clock_gettime64", OF_BOTH, "the same" },
    { "clock_getres", OF_GATEWAY, "the same" },
    { "gettimeofday", OF_BOTH, "the same" },
    { "time", OF_BOTH, "the same" },
    { "getrandom", OF_BOTH, "keys, numbers of flows" },
    { "sched_yield", OF_BOTH, "locks" },
    { "sched_getaffinity", OF_GATEWAY, "how many cores" },
    { "sched_setaffinity", OF_GATEWAY, "a worker stays on its core" },
    { "getcpu", OF_GATEWAY, "the same" },
    { "sched_getattr", OF_GATEWAY, "a worker's slices" },
    { "sched_setattr", OF_GATEWAY, "the same" },
    { "membarrier", OF_GATEWAY, "locks of the C library" },
    { "getrlimit", OF_GATEWAY, "how many descriptors are left for pings" },
    { "ugetrlimit", OF_GATEWAY, "the same" },
    { "prlimit64", OF_GATEWAY, "the same" },
    { "setrlimit", OF_GATEWAY, "the last few descriptors are kept for the control socket" },
    { "getrusage", OF_GATEWAY, "status" },
    { "sysinfo", OF_GATEWAY, "status: memory of the machine" },
    { "uname", OF_BOTH, "status" },
    { "prctl", OF_BOTH, "names of threads; without privileges nothing else can be gained by it" },
    { "arch_prctl", OF_BOTH, "a thread begins" },
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    { "ptrace", OF_BOTH, "sanitizers: the search for leaks stops all threads" },
    { "getdents", OF_BOTH, "sanitizers" },
    { "process_vm_readv", OF_BOTH, "sanitizers" },
    { "clone", OF_BOTH, "sanitizers" },
    { "fork", OF_BOTH, "sanitizers: the symbolizer" },
    { "vfork", OF_BOTH, "sanitizers: the symbolizer" },
    { "execve", OF_BOTH, "sanitizers: the symbolizer" },
    { "pipe", OF_BOTH, "sanitizers: the symbolizer" },
    { "pipe2", OF_BOTH, "sanitizers: the symbolizer" },
    { "dup2", OF_BOTH, "sanitizers: the symbolizer" },
    { "dup3", OF_BOTH, "sanitizers: the symbolizer" },
    { "kill", OF_BOTH, "sanitizers: the symbolizer" },
    { "wait4", OF_BOTH, "sanitizers: the symbolizer" },
    { "ioctl", OF_BOTH, "sanitizers: is it a terminal" },
    { "personality", OF_BOTH, "sanitizers" },
    { "setrlimit", OF_BOTH, "sanitizers" },
    { "mmap", OF_BOTH, "sanitizers" },
    { "mprotect", OF_BOTH, "sanitizers" },
    { "sigaltstack", OF_BOTH, "sanitizers" },
#endif
};

static const struct {
    unsigned long request;
    unsigned who;
    const char *why;
} ioctls[] = {
    { TUNSETIFF, OF_BOTH, "the device is made again" },
    { TUNGETIFF, OF_GATEWAY, "is the queue attached" },
    { TUNSETVNETHDRSZ, OF_GATEWAY, "the device was made again" },
    { TUNSETOFFLOAD, OF_GATEWAY, "the device was made again" },
    { TUNSETSTEERINGEBPF, OF_GATEWAY, "the same; the program was loaded before" },
    { SIOCGIFNAME, OF_GATEWAY, "does an uplink still exist" },
    { SIOCGIFINDEX, OF_GATEWAY, "the same" },
    { FIONREAD, OF_GATEWAY, "how much is there to read" },
    { FIONBIO, OF_GATEWAY, "non-blocking, as some libraries say it" },
    { TIOCOUTQ, OF_GATEWAY, "how much is still to be sent (SIOCOUTQ)" },
    { TIOCGWINSZ, OF_GATEWAY, "stdio: is it a terminal" },
    { 0x5401 /* TCGETS */, OF_GATEWAY, "stdio: is it a terminal" },
};

/* Families and types of sockets. The type shares its word with flags, which are above its four bits. */
static const struct {
    int family, type;
    unsigned who;
    bool allow;
    const char *why;
} sockets[] = {
    { AF_INET, SOCK_STREAM, OF_GATEWAY, true, "upstreams" },
    { AF_INET6, SOCK_STREAM, OF_GATEWAY, true, "upstreams" },
    { AF_INET, SOCK_DGRAM, OF_GATEWAY, true, "associations, names, pings" },
    { AF_INET6, SOCK_DGRAM, OF_GATEWAY, true, "the same" },
    { AF_UNIX, SOCK_STREAM, OF_GATEWAY, true, "control socket" },
    { AF_UNIX, SOCK_DGRAM, OF_GATEWAY, true, "service manager" },
    { AF_INET, SOCK_RAW, OF_GATEWAY, false, "opened before, for pings; the probe takes the EPERM" },
    { AF_INET6, SOCK_RAW, OF_GATEWAY, false, "the same" },
};

/* ---- the filter ---- */

struct filter {
    scmp_filter_ctx ctx;
    unsigned who;
    int r; /* the first failure */
};

/* -EDOM and the like: libseccomp cannot express it on this processor. A rule that is there already is as good. */
static void note(struct filter *f, int r)
{
    if (r != 0 && r != -EEXIST && f->r == 0)
        f->r = r;
}

static void add_calls(struct filter *f)
{
    for (size_t i = 0; i < ARRAY_LEN(allowed); i++) {
        int nr =
            (allowed[i].who & f->who) != 0 ? seccomp_syscall_resolve_name(allowed[i].name) : __NR_SCMP_ERROR;

        if (nr != __NR_SCMP_ERROR && nr >= 0)
            note(f, seccomp_rule_add(f->ctx, SCMP_ACT_ALLOW, nr, 0));
    }
}

static void add_sockets(struct filter *f)
{
    for (size_t i = 0; i < ARRAY_LEN(sockets); i++) {
        if ((sockets[i].who & f->who) != 0)
            note(f,
                 seccomp_rule_add(f->ctx, sockets[i].allow ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(EPERM),
                                  SCMP_SYS(socket), 2, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)sockets[i].family),
                                  SCMP_A1(SCMP_CMP_MASKED_EQ, 0xf, (scmp_datum_t)sockets[i].type)));
    }
    /* routes are read and watched; whose socket is it. Without CAP_NET_ADMIN nothing can be changed by them. */
    note(f, seccomp_rule_add(f->ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2, SCMP_A0(SCMP_CMP_EQ, AF_NETLINK),
                             SCMP_A2(SCMP_CMP_EQ, NETLINK_ROUTE)));
    note(f, seccomp_rule_add(f->ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2, SCMP_A0(SCMP_CMP_EQ, AF_NETLINK),
                             SCMP_A2(SCMP_CMP_EQ, NETLINK_SOCK_DIAG)));
    if ((f->who & OF_HELPER) != 0) /* our table of nftables */
        note(f, seccomp_rule_add(f->ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2,
                                 SCMP_A0(SCMP_CMP_EQ, AF_NETLINK), SCMP_A2(SCMP_CMP_EQ, NETLINK_NETFILTER)));
}

static void add_ioctls(struct filter *f)
{
    for (size_t i = 0; i < ARRAY_LEN(ioctls); i++) {
        if ((ioctls[i].who & f->who) != 0)
            note(f, seccomp_rule_add(f->ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                                     SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX, ioctls[i].request)));
    }
}

/* Memory is written or executed, never both; threads, but no processes. clone3() hides its flags from filters: the C library
 * takes clone() when it does not exist. */
static void add_memory_and_threads(struct filter *f)
{
    const int calls[] = { SCMP_SYS(mmap), SCMP_SYS(mmap2), SCMP_SYS(mprotect) };
    const unsigned both = PROT_WRITE | PROT_EXEC;

    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        const unsigned ways[] = { 0, PROT_WRITE, PROT_EXEC };

        for (size_t w = 0; w < ARRAY_LEN(ways) && calls[i] >= 0; w++)
            note(f, seccomp_rule_add(f->ctx, SCMP_ACT_ALLOW, calls[i], 1,
                                     SCMP_A2(SCMP_CMP_MASKED_EQ, both, ways[w])));
    }
    if ((f->who & OF_GATEWAY) == 0)
        return;
    note(f, seccomp_rule_add(f->ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                             SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD)));
    note(f, seccomp_rule_add(f->ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0));
}

/* ---- a refused call ---- */

/* The one mutable object here: a handler gets no argument. Set before the filter, then only read. */
static struct {
    int pipe[2]; /* numbers of calls, from the handlers to the main thread */
    struct loop_io io;
    uint64_t told[16]; /* a bit for each call that had its line [main] */
} refused = { .pipe = { -1, -1 } };

static bool set_result(ucontext_t *uc, long result)
{
#if defined(__x86_64__)
    uc->uc_mcontext.gregs[REG_RAX] = result;
    return true;
#elif defined(__i386__)
    uc->uc_mcontext.gregs[REG_EAX] = (int)result;
    return true;
#elif defined(__aarch64__)
    uc->uc_mcontext.regs[0] = (unsigned long)result;
    return true;
#elif defined(__arm__)
    uc->uc_mcontext.arm_r0 = (unsigned long)result;
    return true;
#elif defined(__riscv)
    uc->uc_mcontext.__gregs[10] = (unsigned long)result;
    return true;
#else
    (void)uc;
    (void)result;
    return false;
#endif
}

static void on_refused(int signo, siginfo_t *info, void *context)
{
    int saved = errno, nr = info->si_syscall;

    (void)signo;
    (void)set_result(context, -EPERM);
    if (refused.pipe[1] >= 0)
        (void)!write(refused.pipe[1], &nr, sizeof(nr)); /* full: it has been said often enough */
    errno = saved;
}

static uint32_t refusal(void)
{
    ucontext_t probe = { 0 };
    struct sigaction act = { .sa_sigaction = on_refused, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK };

    if (!set_result(&probe, 0) || sigaction(SIGSYS, &act, NULL) != 0)
        return SCMP_ACT_ERRNO(EPERM);
    return SCMP_ACT_TRAP;
}

int sandbox_calls(enum sandbox_who who, struct err *err)
{
    struct filter f = { .ctx = seccomp_init(refusal()), .who = 1u << who };

    if (f.ctx == NULL)
        return err_set(err, -ENOMEM, "no memory for the list of system calls");
    add_calls(&f);
    add_ioctls(&f);
    add_memory_and_threads(&f);
    add_sockets(&f);
    if (f.r == 0)
        f.r = seccomp_load(f.ctx);
    seccomp_release(f.ctx);
    if (f.r == -EINVAL || f.r == -ENOSYS || f.r == -ECANCELED)
        return err_set(err, -EOPNOTSUPP, "this kernel takes no list of system calls (seccomp)");
    return f.r == 0 ? 0 : err_set(err, f.r, "the list of system calls cannot be set: %s", strerror(-f.r));
}

/* ---- the line ---- */

int sandbox_listen(void)
{
    return pipe2(refused.pipe, O_NONBLOCK | O_CLOEXEC) == 0 ? 0 : -errno;
}

bool sandbox_refused(char out[SANDBOX_TEXT_MAX])
{
    char *name;
    size_t n;
    int nr;

    do {
        if (read(refused.pipe[0], &nr, sizeof(nr)) != (ssize_t)sizeof(nr))
            return false;
        n = (size_t)(unsigned)nr;
    } while (n >= 64 * ARRAY_LEN(refused.told) || (refused.told[n / 64] >> n % 64 & 1));
    refused.told[n / 64] |= 1ull << n % 64;
    name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, nr);
    snprintf(out, SANDBOX_TEXT_MAX,
             "sandbox: the system call %s (%d) was refused; please report it, and set runtime.sandbox: false "
             "if something does not work",
             name != NULL ? name : "?", nr);
    free(name);
    return true;
}

static void on_told(struct loop_io *io, unsigned events)
{
    char text[SANDBOX_TEXT_MAX];

    (void)io;
    (void)events;
    while (sandbox_refused(text))
        log_error("%s", text);
}

int sandbox_report(struct loop *l)
{
    int r = sandbox_listen();

    if (r != 0)
        return r;
    loop_io_start(l, &refused.io, refused.pipe[0], LOOP_READ, on_told);
    return 0;
}

void sandbox_report_end(struct loop *l)
{
    if (refused.pipe[0] < 0)
        return;
    on_told(NULL, 0);
    loop_io_stop(l, &refused.io);
    close(refused.pipe[0]);
    close(refused.pipe[1]);
    refused.pipe[0] = refused.pipe[1] = -1;
}

#else /* no libseccomp */

int sandbox_calls(enum sandbox_who who, struct err *err)
{
    (void)who;
    return err_set(err, -EOPNOTSUPP, "this program was built without libseccomp");
}

int sandbox_listen(void)
{
    return 0;
}

bool sandbox_refused(char out[SANDBOX_TEXT_MAX])
{
    (void)out;
    return false;
}

int sandbox_report(struct loop *l)
{
    (void)l;
    return 0;
}

void sandbox_report_end(struct loop *l)
{
    (void)l;
}

#endif
