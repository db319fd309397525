/* ledger.h - what each user takes at the moment: flows, and bytes a second each way; one for all threads of a server.
 * Knows     names of users and two limits.
 * Threads   ledger_new, ledger_free: [main]; all else [any]: a few atomics, touched once a flow and once a read of up to
 *           64 KiB, and only where a limit is set. */
#ifndef CULVERT_SERVE_LEDGER_H
#define CULVERT_SERVE_LEDGER_H

#include "culvert/serve.h"

struct ledger_user;
/** ledger_user() - the entry of users[@index] of the options; NULL: no ledger, or nothing is limited */
struct ledger_user *ledger_user(struct serve_ledger *l, size_t index);
/** ledger_open_flow() - may this user open one more? Then it counts until ledger_close_flow(). NULL: yes */
bool ledger_open_flow(struct ledger_user *u);
void ledger_close_flow(struct ledger_user *u);
/** ledger_wait_us() - how long until this user may move bytes again in direction @way (0 up, 1 down); 0: now */
uint64_t ledger_wait_us(struct ledger_user *u, int way, uint64_t now_us);
void ledger_spend(struct ledger_user *u, int way, uint64_t now_us, size_t bytes);

#endif
