/* confine.h - the last two stages of giving up privileges, for every command that carries packets: files and system calls.
 *
 * What may be read is the system's own (src/app/confine.c lists it), the folders of all files that the configuration names, and its
 * own folder; what may be written, what is replaced while we run. Folders, not files: who renews a certificate puts a new file
 * in the place of the old one. A later configuration may name another folder, and that takes a restart: confine_take() says so.
 * Threads   [main]; confine_now() before the first thread. */
#ifndef CULVERT_APP_CONFINE_H
#define CULVERT_APP_CONFINE_H

#include "culvert/config.h"
#include "culvert/loop.h"
#include "sandbox.h"

struct confine;

struct confine_options { /* borrowed for the call */
    const struct config *config;
    const char *config_path; /* NULL: there is no file */
    const char *api_path;    /* of a socket that is removed at the end; NULL: none */
    bool state;              /* state-dir is written */
    bool child; /* another program was started, is sent signals, and has the terminal: few lines */
};

/** confine_now() - files, then system calls; with `runtime.sandbox: require` all of it or nothing (faults.md X10)
 * @l: what was refused becomes a line of the log there
 * Return: 0 and *out; -errno with a sentence: what was asked for cannot be had. */
int confine_now(const struct confine_options *o, struct loop *l, struct confine **out, struct err *err);
/** confine_covers() - may this be opened, as far as we confined ourselves? @c: NULL: anything may */
bool confine_covers(const struct confine *c, const char *path, bool written);
/** confine_take() - is all that @now names within? Return: 0; -EACCES with a sentence that says what takes a restart */
int confine_take(const struct confine *c, const struct config *now, struct err *err);
/** confine_refused() - did the load that said @m fail because of us? Return: -EACCES with a sentence, or 0: it did not */
int confine_refused(const struct confine *c, const struct config_messages *m, struct err *err);
/** confine_load() - load_file() for a reload, whose mistakes go to the log's place and whose refusals are explained
 * Return: 0 and *out, the caller's; -EINVAL or -EACCES with a sentence, and *out is untouched. */
int confine_load(const struct confine *c, const char *path, struct config **out, struct err *err);
/* One warning for each file that the configuration names and this user may not read: a reload will want it. */
void confine_warn_unreadable(const struct config *config, const char *config_path);
void confine_end(struct confine *c, struct loop *l); /* what was to be told is told; NULL is fine */

#endif
