/* process.h - what a process arranges for itself: descriptors, cores, and a word to its service manager. [main] */
#ifndef CULVERT_APP_PROCESS_H
#define CULVERT_APP_PROCESS_H

#include <sys/types.h>

#include "culvert/base.h"

/** process_fill_stdio() - put /dev/null in place of closed descriptors 0 to 2, so that no socket of ours lands there
 * They are close-on-exec: a command that we start finds them closed, as it would without us. */
void process_fill_stdio(void);
void process_close_from(int first); /* close all descriptors from @first on */

/** process_raise_fd_limit() - soft limit of descriptors up to the hard one (faults.md R1)
 * A small limit is said in a log line, and a few stay between the two for the control socket, which must answer when flows have
 * taken all others (G1). */
void process_raise_fd_limit(void);

/** process_wait_for_entropy() - at boot the kernel may have no random numbers yet: wait for them, with one line (faults.md R11)
 * @get: getrandom(2), or a test's. @most_ms: ENTROPY_WAIT_MS. Return: 0; -EAGAIN: still none; another -errno. */
enum { ENTROPY_WAIT_MS = 10000 };
int process_wait_for_entropy(ssize_t (*get)(void *out, size_t len, unsigned flags), unsigned most_ms);

uint32_t process_usable_cores(void); /* those that the affinity mask leaves; >= 1 */

/** process_claim() - hold @what in this network namespace until the descriptor is closed, so that a second one can be told why it fails
 * An abstract socket name (unix(7)) that anybody may take: good for a sentence, never for a decision about safety.
 * Return: the descriptor; -EADDRINUSE: somebody has it; another -errno: nothing is known. */
int process_claim(const char *what);

/** process_port_is_free() - could a server listen there? SO_REUSEPORT would let a second one in beside the first
 * Return: 0; -EADDRINUSE, -EADDRNOTAVAIL, -EACCES or another -errno of bind. */
int process_port_is_free(const struct ip_port *at);

/** process_notify() - sd_notify(3) without its library: "READY=1" to the socket in $NOTIFY_SOCKET
 * Not run by a service manager: does nothing. Never blocks; a message that cannot be sent is lost. */
void process_notify(const char *state);
void process_notify_reloading(
    void); /* with the time that systemd wants beside it (sd_notify(3)); READY=1 ends it */

#endif
