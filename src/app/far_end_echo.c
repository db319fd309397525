/* far_end_echo.c - the echo proxy of one thread of the far end: pings of MASQUE clients leave by sockets of this host.
 *
 * Nothing of ours comes back through a TUN here, so sockets are neither marked nor bound. */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "far_end_impl.h"

static uint32_t share_of(uint32_t whole, uint32_t threads)
{
    uint32_t share = (whole + threads - 1) / threads;

    return share > 0 ? share : 1;
}

/* Who says "time exceeded" here: an address that clients reach this host by, if there is one of the family. */
static struct ip_addr exit_address(const struct far_end_setup *setup, bool v6)
{
    const struct ip_addr *listen = &setup->masque->listen.addr;
    static const uint8_t any4[4];
    struct ip_addr found = { .w = { 0 } }, four = ip_from4(any4);
    bool is_any = ip_is_none(listen) || ip_equal(listen, &four);

    if (!is_any && ip_is4(listen) != v6)
        return *listen;
    for (size_t i = 0; i < setup->owns; i++) {
        const struct ip_addr *a = &setup->own[i];

        if (ip_is4(a) == v6 || ip_is_loopback(a) || ip_is_link_local(a))
            continue;
        if (ip_is_none(&found) || (ip_is_public(a) && !ip_is_public(&found)))
            found = *a;
    }
    return found;
}

int far_end_echo_open(struct far_end *f, const struct far_end_setup *setup)
{
    struct ip_addr exit4 = exit_address(setup, false), exit6 = exit_address(setup, true);
    struct echo_proxy_options o;
    int r;

    if (!setup->masque->echo)
        return 0;
    echo_proxy_options_defaults(&o);
    o.loop = f->loop;
    o.wheel = &f->wheel;
    o.max_flows = share_of(o.max_flows, setup->count);
    if (o.max_per_source > o.max_flows)
        o.max_per_source = o.max_flows;
    o.pool_after = share_of(o.pool_after, setup->count);
    o.share = setup->index;
    o.shares = setup->count;
    o.fallback = "refused: clients are told that this server carries none";
    o.quiet = setup->index != 0; /* one message for all */
    o.on_answer = masque_on_echo_answer;
    o.arg = f->masque;
    if ((r = random_bytes(&o.seed, sizeof(o.seed))) == 0)
        r = echo_proxy_new(&o, &f->echo);
    if (r == 0)
        masque_attach_echo(f->masque, f->echo, &exit4, &exit6);
    return r;
}
