/* confirm.h - `run --confirm TIME`: whoever may have locked himself out does nothing, and everything is put back. */
#ifndef CULVERT_APP_CONFIRM_H
#define CULVERT_APP_CONFIRM_H

#include "culvert/loop.h"

struct confirm {
    struct loop *loop;
    struct loop_io input;
    struct loop_timer timer;
    void (*on_refused)(void *arg);
    void *arg;
    bool waiting;
};

/** confirm_parse() - "60s", "2m" or "60" (seconds). Return: 0; -EINVAL with a sentence */
int confirm_parse(const char *text, uint64_t *out_us, struct err *err);
/** confirm_start() - ask on the terminal; Enter there or SIGUSR1 confirms, else @on_refused is called after @wait_us
 * @c: zeroed, and lives until confirm_end(). The signal is the loop's from now on. */
void confirm_start(struct confirm *c, struct loop *l, uint64_t wait_us, void (*on_refused)(void *arg),
                   void *arg);
void confirm_end(struct confirm *c); /* zeroed, or ended, is fine */

#endif
