/* owner.h - who has a client's socket, for rules with UID and PROCESS-*; asked by workers, found in a thread of its own. */
#ifndef CULVERT_APP_OWNER_H
#define CULVERT_APP_OWNER_H

#include "culvert/forward.h"
#include "culvert/loop.h"

struct owners;
struct helper;

/** owners_new() - ready to be asked; it answers when its thread runs
 * @diag:   asks about sockets, of another network namespace perhaps; ours in any case; NULL: those of this one
 * @helper: sees the programs of all users, until owners_free(); NULL: we look with what we may
 * Return: 0 or -errno with a sentence. */
int owners_new(struct helper *helper, struct netlink *diag, struct owners **out, struct err *err);
int owners_start(struct owners *o); /* the thread, once: 0 or -errno */
/** owners_ask() - forward's owner_ask_fn, with the struct owners as @arg [worker] */
void owners_ask(void *arg, struct flow_owner_ask *ask);
/** owners_free() - end the thread. After the workers' threads have ended, and before their loops are freed: what was asked and not
 * answered is answered, or runs when its loop is freed. NULL is fine. */
void owners_free(struct owners *o);

#endif
