/* exec_builtin.h - the SOCKS5 server inside this program that is the upstream of `exec --builtin` and of `demo`.
 * It listens on loopback with a login of random bytes, so that nobody else on the machine can use it. [main] */
#ifndef CULVERT_APP_EXEC_BUILTIN_H
#define CULVERT_APP_EXEC_BUILTIN_H

#include "culvert/config.h"
#include "far_end.h"

struct builtin {
    struct far_end *far_end; /* NULL: not in use */
    struct serve_options options;
    struct serve_user user;
    char name[17], password[33];
};

/** builtin_new() - make the server, not running yet, and the configuration that has it as its upstream
 * Return: EXIT_FINE; or an exit status, and stderr has said why. */
int builtin_new(struct builtin *b, struct config **config);
int builtin_start(struct builtin *b); /* its thread; the same results; fine when it is not in use */
void builtin_free(struct builtin *b);

#endif
