/* err.c - a sentence for a person beside the number for the program. */
#include "culvert/base.h"

#include <stdio.h>

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
