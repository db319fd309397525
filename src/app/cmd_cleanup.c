/* cmd_cleanup.c - `culvert cleanup`: what a killed gateway left of routes, rules and nftables is taken away (faults.md X2, X3). */
#include "commands.h"

#include <errno.h>
#include <string.h>

#include "culvert/loop.h"
#include "culvert/route.h"

static int clean(struct netlink *nl, bool stopped)
{
    struct nl_link owner;
    unsigned removed = 0;
    int r;

    if (route_owner(nl, 0, &owner) == 0)
        return complain(EXIT_FAILED, "a culvert is running, with %s; it puts everything back when it ends",
                        owner.name);
    if (stopped && route_is_held(nl)) {
        printf("left as it is: on-exit says keep or block; `culvert cleanup` opens it\n");
        return EXIT_FINE;
    }
    r = route_dns_restore(ROUTE_DNS_FILE);
    if (r == 0)
        printf("%s is back\n", ROUTE_DNS_FILE);
    else if (r != -ENOENT)
        return complain(EXIT_FAILED, "%s cannot be put back: %s", ROUTE_DNS_FILE, strerror(-r));
    r = route_cleanup(nl, 0, 0, &removed);
    if (r == -EPERM)
        return complain(EXIT_FAILED, "cleanup needs root or CAP_NET_ADMIN");
    if (r != 0)
        return complain(EXIT_FAILED, "not everything could be removed: %s", strerror(-r));
    if (removed == 0)
        printf("nothing to remove\n");
    else
        printf("removed %u routes, rules and tables\n", removed);
    return EXIT_FINE;
}

int cmd_cleanup(const struct cli *cli)
{
    struct err err = { "" };
    struct netlink *nl;
    int status;

    if (netlink_open(&nl, &err) != 0)
        return complain(EXIT_FAILED, "%s", err.text);
    status = clean(nl, cli->stopped);
    netlink_close(nl);
    return status;
}
