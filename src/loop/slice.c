/* slice.c - how the scheduler treats the threads that carry packets.
 *
 * A thread that wakes up waits behind those that compute until their slice is used up: 1.4 ms with two cores, and whether it is,
 * is looked at when the clock ticks, often every 4 ms. From Linux 6.12 on a thread can ask for slices of its own length (EEVDF):
 * who wants a short one gets it soon, before others have used theirs up, and no more time in all. Older kernels take the wish and
 * do as before. */
#include "loop_impl.h"

#include <errno.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Round trips beside a large flow were as short as with 0.1 ms, the least that is granted, whose CPU was less sure. */
#define SLICE_NS 400000u

/* sched_setattr(2), as it was from the beginning; the C library of Debian 12 has no name for it. */
struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
};

int loop_short_slices(void)
{
    struct attributes a = { .size = sizeof(a) };

    if (syscall(SYS_sched_getattr, 0, &a, sizeof(a), 0) != 0)
        return -errno;
    if (a.policy != SCHED_OTHER) /* somebody has chosen for us */
        return 0;
    a.runtime_ns = SLICE_NS;
    return syscall(SYS_sched_setattr, 0, &a, 0) == 0 ? 0 : -errno;
}
