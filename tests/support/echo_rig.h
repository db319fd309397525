/* echo_rig.h - an echo proxy against the kernel of a network namespace of its own. Its targets are addresses of that namespace's
 * "lo" (192.0.2.1, 2001:db8::1), so replies are the kernel's own; routes of kind unreachable and prohibit make its errors. */
#ifndef CULVERT_TEST_ECHO_RIG_H
#define CULVERT_TEST_ECHO_RIG_H

#include "culvert/echo.h"
#include "loop_wait.h"
#include "netns.h"

struct echo_rig {
    struct loop *loop;
    struct loop_wait wait;
    struct wheel wheel;
    struct echo_proxy *proxy;
    struct echo_guard *guard;
    struct echo_proxy_request ask;
    unsigned replies, errors;
    struct echo_proxy_answer last; /* without its pointers */
    uint64_t responder;
    uint8_t payload[65536], quote[1280];
    unsigned want;
    int make_result; /* of make_socket, when not 0 */
    int ifindex;
};

const char *rig_enter(void); /* the namespace: first argument of run_unless() */
int rig_setup(void **state); /* of each test: a fresh proxy */
int rig_teardown(void **state);

struct ip_addr echo_rig_addr(const char *text);
void rig_options(struct echo_rig *g,
                 struct echo_proxy_options *o); /* the defaults, and the rig's callbacks */
void rig_start(struct echo_rig *g, const struct echo_proxy_options *o); /* in place of the proxy that runs */
uint64_t rig_count(const struct echo_rig *g, const char *name); /* a counter, by its name after the dot */
enum echo_proxy_result rig_ask(struct echo_rig *g);
void rig_answers(struct echo_rig *g, unsigned n); /* wait until so many came in all */
void rig_use_v6(struct echo_rig *g);
bool rig_never(void *arg); /* for loop_wait_until(): wait all the time */

#endif
