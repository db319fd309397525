/* watchdog.h - is every worker still turning, and did the machine sleep? [main]
 * A message goes to each worker and must be back some ticks later. Ticks are counted, not time: a process that was stopped, or a
 * machine that slept, has missed none (faults.md R6). */
#ifndef CULVERT_APP_WATCHDOG_H
#define CULVERT_APP_WATCHDOG_H

#include "worker.h"

enum {
    WATCHDOG_TICK_US = 2500000,
    WATCHDOG_TICKS = 4,          /* without an answer: stuck (faults.md R7: 10 s) */
    WATCHDOG_SLEPT_US = 5000000, /* a shorter sleep is not worth a probe */
};

struct watchdog;

/** watchdog_start() - look at every tick
 * @is_process: WATCHDOG=1 to the service manager while all answer, and a worker that does not is ended with the whole process: one
 * line, its stack, abort(). Else it is one line, and another when the worker is back.
 * @on_wake: the machine slept that long (faults.md X7), or NULL. Return: 0 or -ENOMEM. */
int watchdog_start(struct loop *l, struct worker *const *workers, uint32_t count, bool is_process,
                   void (*on_wake)(void *arg, uint64_t slept_us), void *arg, struct watchdog **out);
/** watchdog_stop() - after the workers have ended, before their loops are freed: an answer may be on its way. NULL is fine */
void watchdog_stop(struct watchdog *w);
void watchdog_free(struct watchdog *w); /* after their loops are freed; NULL is fine */

/** clock_slept_us() - how long the machine slept since the last call: what CLOCK_BOOTTIME has gained on CLOCK_MONOTONIC. Pure.
 * @gap_us: of the last call, 0 before the first */
uint64_t clock_slept_us(uint64_t *gap_us, uint64_t monotonic_us, uint64_t boottime_us);

#endif
