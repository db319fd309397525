/* far_end.h - one thread of a SOCKS5 server: loop, timers, resolver and sockets around src/serve.
 * Knows     how these are wired, as worker.h does for the gateway; used by `serve`, `exec --builtin` and `demo`.
 * Threads   all calls [main]; the connections live in the thread that far_end_start() makes. */
#ifndef CULVERT_APP_FAR_END_H
#define CULVERT_APP_FAR_END_H

#include "culvert/serve.h"

struct far_end;

/** far_end_new() - listen; nothing is accepted before far_end_start(), so a fork may come in between
 * @opt: borrowed until far_end_free()
 * Return: 0; -errno with a sentence in @err, -EADDRINUSE and -EADDRNOTAVAIL about opt->listen among them. */
int far_end_new(const struct serve_options *opt, struct far_end **out, struct err *err);
uint16_t far_end_port(const struct far_end *f);
int far_end_start(struct far_end *f, struct err *err);
void far_end_free(struct far_end *f); /* ends the thread and all of its connections; NULL is fine */

#endif
