/* far_end.h - one thread of the far end: loop, timers, resolver and sockets around src/serve.
 * Knows     how these are wired, as worker.h does for the gateway; used by `serve`, `exec --builtin` and `demo`.
 * Threads   all calls [main]; the connections live in the thread that far_end_start() makes. */
#ifndef CULVERT_APP_FAR_END_H
#define CULVERT_APP_FAR_END_H

#include "culvert/serve.h"

struct far_end;

struct far_end_setup {
    const struct serve_options *socks5;  /* NULL: none; borrowed until far_end_free() */
    const struct masque_options *masque; /* the same */
    uint32_t index, count;               /* which thread of how many */
    /* addresses of this host; more than up_socket_rules holds are left out */
    const struct ip_addr *own;
    size_t owns;
};

/** far_end_new() - listen; nothing is accepted before far_end_start(), so a fork may come in between
 * Return: 0; -errno with a sentence in @err, -EADDRINUSE and -EADDRNOTAVAIL about an address to listen at among them. */
int far_end_new(const struct far_end_setup *setup, struct far_end **out, struct err *err);
uint16_t far_end_port(const struct far_end *f); /* of SOCKS5 */
uint16_t far_end_masque_port(const struct far_end *f);
int far_end_start(struct far_end *f, struct err *err);
/** far_end_set_access() - another certificate, users, `allow` and limits of MASQUE from now on (masque_set_access()). Return: 0, -ENOMEM */
int far_end_set_access(struct far_end *f, const struct masque_options *o);
/** far_end_set_socks5() - the same of SOCKS5: users, `allow` and limits (serve_set_access()) */
int far_end_set_socks5(struct far_end *f, const struct serve_options *o);
/** far_end_set_own() - the addresses of this host have changed. Return: 0, -ENOMEM */
int far_end_set_own(struct far_end *f, const struct ip_addr *own, size_t owns);
void far_end_free(struct far_end *f); /* ends the thread and all of its connections; NULL is fine */

#endif
