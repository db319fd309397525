/* shares.c - what the limits of the file mean on this machine, for one worker (config.md section 4, design.md section 6).
 *
 * Arithmetic only. Memory is dealt in equal shares once and for all; flows are the forwarders' to deal (forward.h). */
#include "config_impl.h"

#define MIB             (1ull << 20)
#define MEMORY_AUTO_MIN (16 * MIB)
#define FIXED_PROCESS   (8 * MIB) /* program, libraries, rules, log and API: resident of an idle process */
#define FIXED_WORKER                                                                                         \
    (512 << 10) /* stack and loop of a thread, its receive buffers, hand-off rings as far as touched */
#define BUFFER_CAP_MIN (2 * MIB)
#define BUFFER_CAP_MAX (256 * MIB)
#define SLOT_BYTES     (64 << 10) /* STACK_SLOT_BYTES */
#define SLOTS_MIN      8
#define SLOTS_MAX      512
#define FLOW_BYTES                                                                                           \
    1024 /* a flow at rest: 512 (tcp-stack.md PERF-9), table slots, half-open and TIME-WAIT records */
#define FLOWS_MIN 64
#define HALF_OPEN_BYTES                                                                                      \
    (16 << 10) /* of memory for each SYN that may wait: its way out is being opened, here and in the kernel */
#define HALF_OPEN_MAX      4096
#define DESCRIPTORS_FIXED  64 /* log, API, netlink, name servers; and each worker's loop, queue and doorbell */
#define DESCRIPTORS_WORKER 8

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t between(uint64_t v, uint64_t min, uint64_t max)
{
    return v < min ? min : least(v, max);
}

static uint64_t memory_budget(const struct config_limits *limits, const struct config_machine *m)
{
    uint64_t all = m->ram_bytes;

    if (limits->memory_bytes != 0)
        return limits->memory_bytes;
    if (m->cgroup_bytes != 0 && (all == 0 || m->cgroup_bytes < all))
        all = m->cgroup_bytes;
    return all / 4 > MEMORY_AUTO_MIN ? all / 4 : MEMORY_AUTO_MIN;
}

/* `auto` flows of the process: half of each worker's memory may go to flows at rest, two thirds of that to TCP; descriptors likewise. A
 * TCP flow has one descriptor; a UDP mapping has two, since its SOCKS association is held by a connection. */
static void auto_flows(const struct config_machine *m, uint64_t per_worker_bytes, uint32_t workers,
                       uint64_t *tcp, uint64_t *udp)
{
    uint64_t fixed = DESCRIPTORS_FIXED + (uint64_t)DESCRIPTORS_WORKER * workers;
    uint64_t fds = m->descriptor_limit > fixed ? (m->descriptor_limit - fixed) / workers : 0;
    uint64_t flows = per_worker_bytes / 2 / FLOW_BYTES;

    *tcp = workers * between(least(flows * 2 / 3, fds * 2 / 3), FLOWS_MIN, FORWARD_TCP_MAX);
    *udp = workers * between(least(flows / 3, fds / 6), FLOWS_MIN, FORWARD_UDP_MAX);
}

void config_shares(const struct config_limits *limits, const struct config_machine *machine,
                   struct config_shares *out)
{
    uint32_t workers = machine->workers > 0 ? machine->workers : 1;
    uint64_t budget = memory_budget(limits, machine),
             fixed = FIXED_PROCESS + (uint64_t)FIXED_WORKER * workers;
    uint64_t each = budget > fixed ? (budget - fixed) / workers : 0, tcp, udp;

    auto_flows(machine, each, workers, &tcp, &udp);
    *out = (struct config_shares){
        .memory_bytes = budget,
        .worker_bytes = each,
        .buffer_cap_bytes = between(each / 3 * 2, BUFFER_CAP_MIN, BUFFER_CAP_MAX),
        .half_open = (uint32_t)between(each / HALF_OPEN_BYTES, FLOWS_MIN, HALF_OPEN_MAX),
        .max_tcp = limits->tcp != 0 ? limits->tcp : (uint32_t)tcp,
        .max_udp = limits->udp != 0 ? limits->udp : (uint32_t)udp,
        .per_source = limits->per_source,
    };
    out->rx_slots = (uint32_t)between(out->buffer_cap_bytes / 4 / SLOT_BYTES, SLOTS_MIN, SLOTS_MAX);
}

uint64_t config_buffer_cap(const struct config_shares *s, uint64_t others)
{
    uint64_t left = s->worker_bytes > others ? s->worker_bytes - others : 0;

    return between(left / 5 * 4, BUFFER_CAP_MIN, s->buffer_cap_bytes);
}
