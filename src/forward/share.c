/* share.c - a limit of the process is dealt to its workers (design.md section 6, "Limits without sharing"). */
#include "forward_impl.h"

uint64_t share_equal(const struct forward *f, uint64_t whole)
{
    return whole > 0 && whole < f->ways->workers ? 1 : whole / f->ways->workers;
}

void share_want(struct forward *f)
{
    if (f->wants || !f->want_share)
        return;
    f->wants = true;
    f->want_share(f->want_arg);
}
