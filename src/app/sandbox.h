/* sandbox.h - what the kernel refuses us from the first packet on: system calls (seccomp) and files (Landlock).
 * Knows     libseccomp, and Landlock's three system calls; nothing of the program's own parts but what they need, in a list with reasons.
 * Threads   [main], before the first thread; threads inherit both, and nobody can take them off again.
 * Errors    a refused call returns EPERM to whoever made it, and one line of the log names it (faults.md X9). */
#ifndef CULVERT_APP_SANDBOX_H
#define CULVERT_APP_SANDBOX_H

#include "culvert/base.h"
#include "culvert/loop.h"

/* ---- files ---- */

enum { SANDBOX_ABI_ASK = -1 };

struct sandbox_path { /* a folder, with all below it, or a file; what does not exist is left out */
    const char *path;
    bool write; /* and make and remove, not only read */
};

struct sandbox_files { /* borrowed */
    const struct sandbox_path *path;
    size_t paths;
    bool abstract_sockets; /* those of other programs may be spoken to (a service manager's) */
    bool signals;          /* may be sent to other programs (a command that we started before) */
};

/** sandbox_files() - from now on only these; descriptors that are open stay as they are
 * @abi: SANDBOX_ABI_ASK, or what to take the kernel for (tests); more than this code knows is the most that it knows
 * Return: the Landlock version in force, 1 to 7; -EOPNOTSUPP: this kernel has none or has it switched off; -errno; with a sentence. */
int sandbox_files(const struct sandbox_files *f, int abi, struct err *err);

/* ---- system calls ---- */

/* A parent is a gateway, or a far end, that has started another program before. */
enum sandbox_who { SANDBOX_GATEWAY, SANDBOX_HELPER, SANDBOX_PARENT };

/** sandbox_calls() - from now on only those of the list in sandbox_calls.c
 * Return: 0; -EOPNOTSUPP: built without libseccomp, or a kernel without it; -errno; with a sentence. */
int sandbox_calls(enum sandbox_who who, struct err *err);
/** sandbox_report() - a line of the log for each call that is refused, the first time; [main] once, before sandbox_calls() */
int sandbox_report(struct loop *l);
void sandbox_report_end(struct loop *l);

enum { SANDBOX_TEXT_MAX = sizeof(struct err) };
/** sandbox_listen() - the same for a process without a loop, which asks sandbox_refused(); once, before sandbox_calls(). 0 or -errno */
int sandbox_listen(void);
/** sandbox_refused() - was a call refused that has not been told yet? then the line about it */
bool sandbox_refused(char out[SANDBOX_TEXT_MAX]);

#endif
