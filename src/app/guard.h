/* guard.h - a small process that outlives a killed gateway just long enough to end what ran in its namespace (faults.md Q4).
 * The kernel kills COMMAND itself when its gateway dies; the guard finds COMMAND's children, in the background or not. */
#ifndef CULVERT_APP_GUARD_H
#define CULVERT_APP_GUARD_H

#include "cell.h"

struct guard {
    pid_t pid; /* 0: none */
    int pipe;  /* our end; when it closes without a word, the guard acts */
};

/** guard_start() - fork it [main, before any thread]; a failure costs the guard only and is a log line */
void guard_start(struct guard *g, const struct cell *c);
/* the gateway ends in order: nothing is killed; NULL-safe on a zeroed one */
void guard_dismiss(struct guard *g);

#endif
