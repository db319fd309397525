/* worker_echo.c - a worker's echo proxy: pings of DIRECT leave by sockets that are marked and bound as all of ours (faults.md E1).
 *
 * A ping socket is not connected, so it is not bound to the uplink: each request says by which interface it leaves. */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker_impl.h"

static bool is_among(const struct ip_addr *a, const struct ip_prefix *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ip_in_prefix(a, &list[i]))
            return true;
    return false;
}

static int interface_for(void *arg, const struct ip_addr *dst)
{
    const struct worker *w = arg;
    const struct up_socket_rules *r = w->socket_rules;

    if (is_among(dst, r->refuse, r->refuses))
        return -ELOOP;
    if (is_among(dst, r->unbound, r->unbounds))
        return 0;
    return ip_is4(dst) ? r->ifindex4 : r->ifindex6;
}

/* A mark that we may not set is no failure: the proxy asks whether anything else keeps it out of the TUN (icmp.md X35). */
static int make_socket(void *arg, int family, enum echo_proxy_kind kind, bool *marked)
{
    const struct worker *w = arg;
    uint32_t mark = w->socket_rules->mark;
    int type = (kind == ECHO_SOCKET_RAW ? SOCK_RAW : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
    int fd = socket(family, type, family == AF_INET6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);

    if (fd < 0)
        return -errno;
    *marked = mark != 0 && setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) == 0;
    return fd;
}

static uint32_t share_of(uint32_t whole, uint32_t workers)
{
    uint32_t share = (whole + workers - 1) / workers;

    return share > 0 ? share : 1;
}

/* Sockets that pings may have to themselves: few where descriptors are, for those are shared with TCP. */
static uint32_t own_sockets(uint32_t usual)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur / 16 > usual)
        return usual;
    return (uint32_t)(files.rlim_cur / 16);
}

int worker_echo_open(struct worker *w, const struct forward_options *f)
{
    struct echo_proxy_options o;
    int r;

    if (!f->echo_direct)
        return 0; /* no rule lets a ping leave from this host */
    echo_proxy_options_defaults(&o);
    o.loop = w->loop;
    o.wheel = stack_wheel(w->stack);
    o.transparent = f->echo_ttl == ECHO_TTL_TRANSPARENT;
    o.relay_errors = f->echo_relay_errors;
    o.guard_needed = w->tun_is_default;
    o.max_flows = share_of(f->echo_max_flows, w->count);
    if (o.max_per_source > o.max_flows)
        o.max_per_source = o.max_flows;
    o.pool_after = share_of(own_sockets(o.pool_after), w->count);
    o.share = w->index;
    o.shares = w->count;
    o.seed = w->seed;
    o.fallback = f->echo_down == ECHO_DOWN_REJECT ? "rejected as host unreachable" : "dropped";
    o.quiet = w->index != 0; /* one message for all */
    o.guard = w->echo_guard;
    o.make_socket = make_socket;
    o.interface_for = interface_for;
    o.socket_arg = w;
    o.on_answer = forward_on_echo_answer;
    o.arg = w->forward;
    r = echo_proxy_new(&o, &w->echo);
    if (r == 0)
        forward_attach_echo(w->forward, w->echo);
    return r;
}

void worker_echo_again(struct worker *w, const struct forward_options *f)
{
    int r;

    if (w->echo)
        echo_proxy_probe(w->echo);
    else if ((r = worker_echo_open(w, f)) != 0)
        log_warning("worker %u cannot proxy pings: %s", w->index, strerror(-r));
}
