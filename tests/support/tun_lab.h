/* tun_lab.h - a TUN device, a loop and a record of its events, inside the test's namespace. */
#ifndef CULVERT_TEST_TUN_LAB_H
#define CULVERT_TEST_TUN_LAB_H

#include "culvert/tun.h"
#include "loop_wait.h"
#include "netns.h"

struct tun_lab {
    struct netlink *nl;
    struct loop *loop;
    struct loop_wait wait;
    struct tun *tun;
    unsigned mtu_events, downs, ups, reopened, lost;
    uint32_t mtu;
    char why[256];
};

bool tun_lab_init(struct tun_lab *lab); /* a route socket and a loop; no device yet */
void tun_lab_fini(struct tun_lab *lab);
int tun_lab_setup(void **state); /* of a test whose state is a lab and no more */
int tun_lab_teardown(void **state);
struct tun_options tun_lab_options(
    void); /* "tun0", 198.18.0.1/30, fdfe:dcba:9876::1/126, offload as good as there is */
int tun_lab_watch(struct tun_lab *lab); /* tun_watch() with events that are counted in @lab */
/* Runs a command in this namespace, as ip(8) and the like; false and a printed line when it fails. */
bool tun_lab_sh(const char *command);
bool tun_lab_has_address(struct tun_lab *lab, const char *device, const char *addr);

#endif
