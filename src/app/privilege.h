/* privilege.h - who the process is and what it may do, given up in named stages (docs/how-it-works.md, "Privileges").
 * Knows     users, groups and capabilities (libcap-ng); nothing of what the program does with them.
 * Threads   all of it [main], before the first thread: credentials of Linux belong to a thread, and threads inherit them. */
#ifndef CULVERT_APP_PRIVILEGE_H
#define CULVERT_APP_PRIVILEGE_H

#include <sys/types.h>

#include "culvert/base.h"

/* Capabilities that may be worth keeping, as bits of a set. */
enum privilege {
    PRIVILEGE_ROUTES = 1, /* CAP_NET_ADMIN: routes, rules, addresses, the TUN; marks before Linux 5.17 */
    PRIVILEGE_MARK = 2,   /* CAP_NET_RAW: SO_MARK since Linux 5.17; raw sockets are refused by the sandbox */
    PRIVILEGE_PROGRAMS = 4, /* CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH: which program has a socket */
};

struct privilege_account {
    uid_t uid;
    gid_t gid;
    bool set; /* there is one to become */
    char name[33];
};

/** privilege_account_find() - @name: runtime.user, or NULL: stay, and out->set is false
 * Return: 0; -ENOENT: no such user, with a sentence. */
int privilege_account_find(const char *name, struct privilege_account *out, struct err *err);
/** privilege_hand_over() - a folder of ours, and the files right in it, become the account's where they are root's now
 * What is missing, somebody else's, linked twice or a symbolic link is left alone. */
void privilege_hand_over(const char *folder, const struct privilege_account *a);
/** privilege_become() - change user, group and supplementary groups for good; capabilities stay until privilege_keep(), which the next stages need
 * Return: 0, also when there is none to become or we are it; -EPERM or another -errno with a sentence. */
int privilege_become(const struct privilege_account *a, struct err *err);
/** privilege_keep() - all capabilities but those of @keep are gone, from the bounding set as well, and no program that is executed
 * from here on gains any (no-new-privs)
 * @keep: a set of enum privilege; what we do not have is not gained. Return: 0 or -errno with a sentence. */
int privilege_keep(unsigned keep, struct err *err);
/** privilege_for_mark() - the smallest set that lets a socket be marked here: tried, since kernels differ
 * Return: PRIVILEGE_MARK, PRIVILEGE_ROUTES, or 0 when neither does. */
unsigned privilege_for_mark(void);
/** privilege_text() - "CAP_NET_RAW" or "none": what the process has now, for the log; returns @out */
const char *privilege_text(char *out, size_t cap);

#endif
