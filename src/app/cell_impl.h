/* cell_impl.h - the two sides of cell.h: what parent and child tell each other, and the steps of the child. */
#ifndef CULVERT_APP_CELL_IMPL_H
#define CULVERT_APP_CELL_IMPL_H

#include "cell.h"

/* Child to parent, one message each, over a SOCK_SEQPACKET pair; both are the same program. */
enum cell_note_kind {
    CELL_UNSHARED, /* namespaces are made: write the id maps, if there is a user namespace */
    CELL_READY,    /* with the TUN's queues as SCM_RIGHTS */
    CELL_FAILED,   /* with a sentence, then the child ends */
};
struct cell_note {
    enum cell_note_kind kind;
    int r; /* CELL_FAILED */
    bool has_user_ns;
    bool has_diag; /* CELL_READY: the last descriptor asks about sockets inside */
    uint32_t mtu;
    struct err err;
};
/* Parent to child: one byte. */
enum { CELL_MAPPED = 'm', CELL_GO = 'g' };

/** cell_child() - the life of the child, from the fork on; never returns */
_Noreturn void cell_child(const struct cell_options *opt, int sock, pid_t parent);

/* cell_ns.c: namespaces and privileges */
int cell_unshare(bool *has_user_ns, struct err *err);
int cell_write_id_maps(pid_t child, struct err *err); /* [parent] */
void cell_allow_ping(void);
/** cell_drop_privileges() - no capabilities, none to be had by exec either; the bounding set stays, so that file
 * capabilities do not keep a program from starting (design.md section 6) */
int cell_drop_privileges(struct err *err);

/* cell_files.c: files of the host that look different inside */
int cell_replace_files(const char *resolv_conf, const char *nsswitch, struct err *err);

#endif
