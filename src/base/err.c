/* err.c - a sentence for a person beside the number for the program. */
#include "culvert/base.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int r, const char *fmt, ...)
{
    va_list ap;

    if (e == NULL)
        return r;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof(e->text), fmt, ap);
    va_end(ap);
    return r;
}

int err_set_listen(struct err *e, int r, const char *what, const struct ip_port *at)
{
    char text[IP_PORT_TEXT_MAX];

    ip_port_text(at, text);
    if (r == -EADDRINUSE)
        return err_set(e, r, "%s%s is in use; stop what listens there or choose another port", what, text);
    if (r == -EADDRNOTAVAIL)
        return err_set(e, r, "%s%s: this machine has no such address; \"ip address\" lists those it has",
                       what, text);
    if (r == -EACCES)
        return err_set(e, r, "%s%s: ports below 1024 take root or CAP_NET_BIND_SERVICE; choose a higher one",
                       what, text);
    return err_set(e, r, "%scannot listen on %s: %s", what, text, strerror(-r));
}
