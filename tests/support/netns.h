/* netns.h - a network namespace of the test's own. Plain POSIX, for programs too that are linked to nothing else of ours. */
#ifndef CULVERT_TEST_NETNS_H
#define CULVERT_TEST_NETNS_H

#include <stdbool.h>
#include <stdint.h>

#include "skip.h"

/** netns_enter() - move this process into a fresh network namespace with "lo" up; call it before any thread
 * Without root it takes a user namespace as well. The namespace goes away with the process.
 * Return: NULL; or a sentence that says why this machine does not allow it, to be printed after "skipped: ". */
const char *netns_enter(void);
/** netns_enter_with_tun() - netns_enter(), where /dev/net/tun can be used. Return: as netns_enter(). */
const char *netns_enter_with_tun(void);
/** netns_enter_for_pings() - netns_enter(), and there ping sockets for everybody, 192.0.2.1 and 2001:db8::1 on "lo"
 * @mtu: of "lo", bytes. Return: as netns_enter(). (netns_pings.c) */
const char *netns_enter_for_pings(uint32_t mtu);

/** netns_refuse() - "@what: " and errno's text; the string is the module's, until the next call */
const char *netns_refuse(const char *what);
bool netns_write_file(const char *path, const char *text); /* true: all of it */
/** netns_link_up() - Return: 0 or -errno */
int netns_link_up(const char *name);

#endif
