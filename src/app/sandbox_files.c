/* sandbox_files.c - Landlock (landlock(7)), by its system calls: no library has them yet.
 *
 * How it works. A ruleset names the rights that are taken away everywhere, then gives them back below certain folders. What a right
 * is has grown with the kernel; a kernel's version says which ones it knows, and a ruleset may name no others:
 *     1  Linux 5.13: files    2  5.19: renaming across folders    3  6.2: truncating    4  6.7: TCP bind and connect
 *     5  6.10: ioctl of devices    6  6.12: signals and abstract sockets of others    7  6.15: what the audit log is told
 * We also give up executing, making devices, and signalling processes that are not ours. Connecting stays allowed, it is our trade. */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The numbers of linux/landlock.h; headers of older systems know only some of them. */
enum {
    EXECUTE = 1 << 0,
    WRITE_FILE = 1 << 1,
    READ_FILE = 1 << 2,
    READ_DIR = 1 << 3,
    REMOVE_DIR = 1 << 4,
    REMOVE_FILE = 1 << 5,
    MAKE_CHAR = 1 << 6,
    MAKE_DIR = 1 << 7,
    MAKE_REG = 1 << 8,
    MAKE_SOCK = 1 << 9,
    MAKE_FIFO = 1 << 10,
    MAKE_BLOCK = 1 << 11,
    MAKE_SYM = 1 << 12,
    REFER = 1 << 13,     /* version 2 */
    TRUNCATE = 1 << 14,  /* version 3 */
    IOCTL_DEV = 1 << 15, /* version 5 */
};
enum {
    FIRST_RIGHTS = (1 << 13) - 1,
    OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV,
    READING = READ_FILE | READ_DIR,
    WRITING = READING | WRITE_FILE | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SOCK | REFER | TRUNCATE,
};
enum { SCOPE_ABSTRACT_SOCKETS = 1, SCOPE_SIGNALS = 2 }; /* version 6 */
enum { ABI_KNOWN = 7, RULE_PATH_BENEATH = 1, CREATE_RULESET_VERSION = 1 };

#ifndef SYS_landlock_create_ruleset /* the same on all architectures */
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule       445
#define SYS_landlock_restrict_self  446
#endif

struct ruleset_attr {
    uint64_t handled_fs, handled_net, scoped;
};
struct path_attr {
    uint64_t allowed;
    int32_t parent;
} __attribute__((packed));

/* A sanitizer starts a symbolizer when it has something to say. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { NOT_HANDLED = EXECUTE };
#else
enum { NOT_HANDLED = 0 };
#endif

static uint64_t rights_of(int abi)
{
    uint64_t rights = FIRST_RIGHTS & ~(uint64_t)NOT_HANDLED;

    if (abi >= 2)
        rights |= REFER;
    if (abi >= 3)
        rights |= TRUNCATE;
    if (abi >= 5)
        rights |= IOCTL_DEV;
    return rights;
}

static uint64_t scopes(const struct sandbox_files *f)
{
    return (f->signals ? 0 : SCOPE_SIGNALS) | (f->abstract_sockets ? 0 : SCOPE_ABSTRACT_SOCKETS);
}

static int create(int abi, uint64_t rights, uint64_t scoped)
{
    struct ruleset_attr attr = { .handled_fs = rights };
    size_t size =
        offsetof(struct ruleset_attr, handled_net); /* as long as that version's, or the kernel says E2BIG */

    if (abi >= 4)
        size = offsetof(struct ruleset_attr, scoped);
    if (abi >= 6) {
        size = sizeof(attr);
        attr.scoped = scoped;
    }
    return (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
}

static int give_back(int ruleset, const char *path, uint64_t rights)
{
    struct path_attr attr = { .allowed = rights };
    struct stat st;
    int fd = open(path, O_PATH | O_CLOEXEC), r = 0;

    if (fd < 0)
        return 0;
    if (fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode))
        attr.allowed &= OF_A_FILE;
    attr.parent = fd;
    if (syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &attr, 0) != 0)
        r = -errno;
    close(fd);
    return r;
}

static int give_back_all(int ruleset, const struct sandbox_files *f, uint64_t rights)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < f->paths; i++)
        r = give_back(ruleset, f->path[i].path, rights & (f->path[i].write ? WRITING : READING));
    return r;
}

int sandbox_files(const struct sandbox_files *f, int abi, struct err *err)
{
    int r, ruleset;

    if (abi == SANDBOX_ABI_ASK)
        abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);
    if (abi < 1)
        return err_set(err, -EOPNOTSUPP, "this kernel has no Landlock (%s)", strerror(errno));
    if (abi > ABI_KNOWN)
        abi = ABI_KNOWN;
    if ((ruleset = create(abi, rights_of(abi), scopes(f))) < 0)
        return err_set(err, -errno, "Landlock cannot be used: %s", strerror(errno));
    r = give_back_all(ruleset, f, rights_of(abi));
    if (r == 0 &&
        (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || syscall(SYS_landlock_restrict_self, ruleset, 0) != 0))
        r = -errno;
    close(ruleset);
    return r == 0 ? abi : err_set(err, r, "Landlock cannot be used: %s", strerror(-r));
}
