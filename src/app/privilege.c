/* privilege.c - users and capabilities, by libcap-ng. */
#include "privilege.h"

#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef WITH_SECCOMP
#include <cap-ng.h>

static const struct {
    unsigned bit;
    unsigned capability;
} known[] = { { PRIVILEGE_ROUTES, CAP_NET_ADMIN },
              { PRIVILEGE_MARK, CAP_NET_RAW },
              { PRIVILEGE_PROGRAMS, CAP_SYS_PTRACE },
              { PRIVILEGE_PROGRAMS, CAP_DAC_READ_SEARCH } };
#endif

/* ---- users ---- */

int privilege_account_find(const char *name, struct privilege_account *out, struct err *err)
{
    const struct passwd *pw;

    *out = (struct privilege_account){ .set = name != NULL };
    if (name == NULL)
        return 0;
    if ((pw = getpwnam(name)) == NULL)
        return err_set(
            err, -ENOENT,
            "runtime.user: there is no user \"%s\"; make it with: useradd --system --no-create-home "
            "--shell /usr/sbin/nologin %s",
            name, name);
    out->uid = pw->pw_uid;
    out->gid = pw->pw_gid;
    snprintf(out->name, sizeof(out->name), "%s", name);
    return 0;
}

static void hand_over_files(int dir, const struct privilege_account *a)
{
    DIR *list = fdopendir(dir);
    const struct dirent *e;
    struct stat st;

    if (list == NULL) {
        close(dir);
        return;
    }
    while ((e = readdir(list)) != NULL) {
        if (fstatat(dirfd(list), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_uid == 0 &&
            ((S_ISREG(st.st_mode) && st.st_nlink == 1) || S_ISSOCK(st.st_mode)))
            (void)!fchownat(dirfd(list), e->d_name, a->uid, a->gid, AT_SYMLINK_NOFOLLOW);
    }
    closedir(list);
}

/* The files first, while nobody but root can put another in their place. */
void privilege_hand_over(const char *folder, const struct privilege_account *a)
{
    int dir = a->set && geteuid() == 0 ? open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    struct stat st;
    int again;

    if (dir < 0)
        return;
    if (fstat(dir, &st) == 0 && st.st_uid == 0 && (st.st_mode & (S_IWGRP | S_IWOTH)) == 0 &&
        (again = fcntl(dir, F_DUPFD_CLOEXEC, 0)) >= 0) {
        hand_over_files(again, a);
        (void)!fchown(dir, a->uid, a->gid);
    }
    close(dir);
}

#ifdef WITH_SECCOMP
int privilege_become(const struct privilege_account *a, struct err *err)
{
    int r;

    if (!a->set || (geteuid() == a->uid && getegid() == a->gid))
        return 0;
    if (geteuid() != 0)
        return err_set(
            err, -EPERM,
            "runtime.user: only root may become %s; start as root, or as that user without this key",
            a->name);
    capng_get_caps_process();
    r = capng_change_id((int)a->uid, (int)a->gid, CAPNG_INIT_SUPP_GRP);
    if (r != 0)
        return err_set(err, -EPERM, "runtime.user: becoming %s failed (step %d): %s", a->name, -r,
                       strerror(errno));
    (void)prctl(PR_SET_DUMPABLE, 1); /* a core of a crash is worth more; only this user could ask for it */
    return 0;
}

/* ---- capabilities ---- */

/* What this process has among @keep, in libcap-ng's set, all others cleared. */
static void select_only(unsigned keep)
{
    bool have[ARRAY_LEN(known)];

    capng_get_caps_process();
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        have[i] = capng_have_capability(CAPNG_PERMITTED, known[i].capability) != 0;
    capng_clear(CAPNG_SELECT_CAPS);
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (have[i] && (keep & known[i].bit))
            (void)capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, known[i].capability);
}

int privilege_keep(unsigned keep, struct err *err)
{
    bool may_bound;

    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    capng_get_caps_process();
    may_bound = capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP) != 0;
    if (may_bound) { /* first, while we may */
        capng_clear(CAPNG_SELECT_BOUNDS);
        if (capng_apply(CAPNG_SELECT_BOUNDS) != 0)
            return err_set(err, -EPERM, "the bounding set of capabilities cannot be cleared: %s",
                           strerror(errno));
    }
    select_only(keep);
    if (capng_apply(CAPNG_SELECT_CAPS) != 0)
        return err_set(err, -EPERM, "capabilities cannot be dropped: %s", strerror(errno));
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return err_set(err, -errno, "no-new-privs cannot be set: %s", strerror(errno));
    (void)prctl(PR_SET_DUMPABLE, 1);
    return 0;
}

/* Only the effective set changes for the trial, and comes back. */
static bool can_mark_with(int fd, unsigned capability)
{
    unsigned mark = 1;
    void *before;
    bool ok;

    capng_get_caps_process();
    if (!capng_have_capability(CAPNG_PERMITTED, capability) || (before = capng_save_state()) == NULL)
        return false;
    for (unsigned c = 0; c <= CAP_LAST_CAP; c++)
        if (c != capability)
            (void)capng_update(CAPNG_DROP, CAPNG_EFFECTIVE, c);
    ok = capng_apply(CAPNG_SELECT_CAPS) == 0 && setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) == 0;
    capng_restore_state(&before);
    (void)capng_apply(CAPNG_SELECT_CAPS);
    return ok;
}

unsigned privilege_for_mark(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    unsigned least = 0;

    if (fd < 0)
        return 0;
    if (can_mark_with(fd, CAP_NET_RAW))
        least = PRIVILEGE_MARK;
    else if (can_mark_with(fd, CAP_NET_ADMIN))
        least = PRIVILEGE_ROUTES;
    close(fd);
    return least;
}

const char *privilege_text(char *out, size_t cap)
{
    size_t len = 0;

    capng_get_caps_process();
    snprintf(out, cap, "none");
    for (unsigned c = 0; c <= CAP_LAST_CAP; c++) {
        if (capng_have_capability(CAPNG_EFFECTIVE, c) && len < cap)
            len += (size_t)snprintf(out + len, cap - len, "%s%s", len > 0 ? " " : "",
                                    capng_capability_to_name(c));
    }
    return out;
}

#else /* no libcap-ng: nothing is given up but the way back */

int privilege_become(const struct privilege_account *a, struct err *err)
{
    if (!a->set || (geteuid() == a->uid && getegid() == a->gid))
        return 0;
    return err_set(err, -EPERM, "runtime.user: this program was built without libcap-ng");
}

int privilege_keep(unsigned keep, struct err *err)
{
    (void)keep;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return err_set(err, -errno, "no-new-privs cannot be set: %s", strerror(errno));
    return 0;
}

unsigned privilege_for_mark(void)
{
    return 0;
}

const char *privilege_text(char *out, size_t cap)
{
    snprintf(out, cap, "those of the start (built without libcap-ng)");
    return out;
}

#endif
