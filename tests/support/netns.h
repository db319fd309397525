/* netns.h - a network namespace of the test's own, and waiting for events on a loop instead of sleeping. */
#ifndef CULVERT_TEST_NETNS_H
#define CULVERT_TEST_NETNS_H

#include "culvert/loop.h"
#include "skip.h"

/** netns_enter() - move this process into a fresh network namespace with "lo" up; call it before any thread
 * Without root it takes a user namespace as well. The namespace goes away with the process.
 * Return: NULL; or a sentence that says why this machine does not allow it, to be printed after "skipped: ". */
const char *netns_enter(void);
/** netns_enter_for_pings() - netns_enter(), and there ping sockets for everybody, 192.0.2.1 and 2001:db8::1 on "lo"
 * @mtu: of "lo", bytes. Return: as netns_enter(). */
const char *netns_enter_for_pings(uint32_t mtu);
/** netns_enter_with_tun() - netns_enter(), where /dev/net/tun can be used. Return: as netns_enter(). */
const char *netns_enter_with_tun(void);

/* Runs a loop until something is true. One object a loop, made once, since it takes one of the loop's hooks. */
struct loop_wait {
    struct loop *loop;
    bool (*done)(void *arg);
    void *arg;
    bool ok, waiting;
    struct loop_timer deadline;
};
void loop_wait_init(struct loop_wait *w, struct loop *l);
/* Looks after every turn. Return: whether @done became true within @timeout_ms. */
bool loop_wait_until(struct loop_wait *w, unsigned timeout_ms, bool (*done)(void *arg), void *arg);

#endif
