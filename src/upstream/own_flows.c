/* own_flows.c - fingerprints of our own open sockets, so that a packet of ours that comes back through the TUN is known
 * (faults.md E1). One table for the process: every worker writes, every worker reads, nobody waits.
 *
 * How it works. The keyed hash of the 5-tuple picks a line of eight 64-bit places; a place holds the rest of the hash, never 0.
 * Adding takes a free place by compare-and-swap; removing stores 0; looking reads eight words of one cache line. A full line
 * leaves a socket without its guard, which costs nothing but the warning.
 * A datagram socket that is not connected is entered by its port alone. Its packets carry one of our own addresses, and no
 * other program of this machine can have the same port, so the port and the address together say that the packet is ours.
 *
 * What always holds. The table is a hint: a wrong "yes" has a chance of 8 in 2^64 for each lookup, a missing "yes" is allowed. */
#include "upstream_impl.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { PLACES = 8, LINES = 1 << 14, LOCALS = 32 };

struct own_flows {
    struct hash_key key;
    _Atomic uint64_t (*lines)[PLACES]; /* touched on demand */
    atomic_uint local_next;
    struct {
        _Atomic uint64_t high, low;
    } locals[LOCALS]; /* source addresses of ours; a torn one matches nothing */
};

int own_flows_new(struct own_flows **out)
{
    struct own_flows *o = calloc(1, sizeof(*o));
    int r;

    if (!o)
        return -ENOMEM;
    r = random_bytes(&o->key, sizeof(o->key));
    if (r != 0) {
        free(o);
        return r;
    }
    o->lines = mmap(NULL, sizeof(*o->lines) * LINES, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (o->lines == MAP_FAILED) {
        free(o);
        return -ENOMEM;
    }
    *out = o;
    return 0;
}

void own_flows_free(struct own_flows *o)
{
    if (!o)
        return;
    munmap(o->lines, sizeof(*o->lines) * LINES);
    free(o);
}

static uint64_t fingerprint(const struct own_flows *o, const struct flow_key *flow)
{
    uint64_t h = hash_flow(&o->key, flow);

    return h != 0 ? h : 1;
}

static uint32_t line_of(uint64_t print)
{
    return (uint32_t)(print % LINES);
}

uint32_t own_flows_add(struct own_flows *o, const struct flow_key *flow)
{
    uint64_t print = fingerprint(o, flow);
    uint32_t line = line_of(print);

    for (uint32_t i = 0; i < PLACES; i++) {
        uint64_t empty = 0;

        if (atomic_compare_exchange_strong_explicit(&o->lines[line][i], &empty, print, memory_order_relaxed,
                                                    memory_order_relaxed))
            return line * PLACES + i;
    }
    return NO_GUARD;
}

void own_flows_remove(struct own_flows *o, uint32_t where)
{
    if (o && where != NO_GUARD)
        atomic_store_explicit(&o->lines[where / PLACES][where % PLACES], 0, memory_order_relaxed);
}

static bool is_in_table(const struct own_flows *o, const struct flow_key *flow)
{
    uint64_t print = fingerprint(o, flow);
    uint32_t line = line_of(print);

    for (uint32_t i = 0; i < PLACES; i++) {
        if (atomic_load_explicit(&o->lines[line][i], memory_order_relaxed) == print)
            return true;
    }
    return false;
}

static struct flow_key udp_key(uint16_t port, bool v6)
{
    return (struct flow_key){ .client_port = port, .target_port = v6 ? 6 : 4, .proto = IP_PROTO_UDP };
}

uint32_t own_flows_add_udp(struct own_flows *o, uint16_t port, bool v6)
{
    struct flow_key key = udp_key(port, v6);

    return own_flows_add(o, &key);
}

static bool is_local(const struct own_flows *o, const struct ip_addr *addr)
{
    uint64_t high, low;

    memcpy(&high, addr->b, 8);
    memcpy(&low, addr->b + 8, 8);
    for (size_t i = 0; i < LOCALS; i++) {
        if (atomic_load_explicit(&o->locals[i].low, memory_order_relaxed) == low &&
            atomic_load_explicit(&o->locals[i].high, memory_order_relaxed) == high)
            return true;
    }
    return false;
}

void own_flows_add_local(struct own_flows *o, const struct ip_addr *addr)
{
    uint64_t high, low;
    unsigned at;

    if (ip_is_none(addr) || is_local(o, addr))
        return;
    memcpy(&high, addr->b, 8);
    memcpy(&low, addr->b + 8, 8);
    at = atomic_fetch_add_explicit(&o->local_next, 1, memory_order_relaxed) % LOCALS;
    atomic_store_explicit(&o->locals[at].high, high, memory_order_relaxed);
    atomic_store_explicit(&o->locals[at].low, low, memory_order_relaxed);
}

bool own_flows_has(const struct own_flows *o, const struct flow_key *flow)
{
    struct flow_key port_only;

    if (is_in_table(o, flow))
        return true;
    if (flow->proto != IP_PROTO_UDP)
        return false;
    port_only = udp_key(flow->client_port, !ip_is4(&flow->target));
    return is_in_table(o, &port_only) && is_local(o, &flow->client);
}
