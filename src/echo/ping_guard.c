/* ping_guard.c - our own requests of the last seconds, for the whole process, so that one that comes back through the TUN is
 * known (icmp.md X37). The worker that it arrives at may be another one than sent it.
 *
 * How it works. The keyed hash of (target, id, number) picks a line of eight 64-bit places; a place holds 40 bits of the hash
 * and the time in units of 100 ms. Adding overwrites the oldest place of the line; nothing is ever removed, entries grow too old.
 * Every worker writes and reads, nobody waits.
 *
 * What always holds. It is a hint: a missing "yes" is allowed, a wrong one has a chance of 8 in 2^40. Clients' ids are as
 * small and as sequential as ours, so a "yes" is not yet a loop: the caller also asks whether the sender is this host. */
#include "ping_impl.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { PLACES = 8, LINES = 1 << 12, STOPS = 64 };
#define UNIT_US    100000ull
#define TIME_BITS  24
#define TIME_MASK  ((1u << TIME_BITS) - 1)
#define SENT_UNITS (10 * PING_SECOND_US / UNIT_US)
#define STOP_UNITS (30 * PING_SECOND_US / UNIT_US)

struct echo_guard {
    struct hash_key key;
    _Atomic uint64_t (*lines)[PLACES];
    _Atomic uint64_t stops[STOPS]; /* targets, by the low bits of their hash */
};

int echo_guard_new(struct echo_guard **out)
{
    struct echo_guard *g = calloc(1, sizeof(*g));
    int r;

    if (!g)
        return -ENOMEM;
    if ((r = random_bytes(&g->key, sizeof(g->key))) != 0) {
        free(g);
        return r;
    }
    g->lines = mmap(NULL, sizeof(*g->lines) * LINES, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (g->lines == MAP_FAILED) {
        free(g);
        return -ENOMEM;
    }
    *out = g;
    return 0;
}

void echo_guard_free(struct echo_guard *g)
{
    if (!g)
        return;
    munmap(g->lines, sizeof(*g->lines) * LINES);
    free(g);
}

static uint64_t print_of(const struct echo_guard *g, const struct ip_addr *target, uint16_t id, uint16_t seq)
{
    uint8_t bytes[20];

    memcpy(bytes, target->b, 16);
    put_be16(bytes + 16, id);
    put_be16(bytes + 18, seq);
    return hash_bytes(&g->key, bytes, sizeof(bytes));
}

static uint64_t units(uint64_t now_us)
{
    return (now_us / UNIT_US + 1) & TIME_MASK; /* an empty place is older than anything */
}

/* How old a place is, in units; time goes round after 19 days. */
static uint64_t age(uint64_t place, uint64_t now)
{
    return place == 0 ? TIME_MASK : (now - (place & TIME_MASK)) & TIME_MASK;
}

static uint64_t place_of(uint64_t print, uint64_t now)
{
    return (print & ~(uint64_t)TIME_MASK) | now;
}

static bool is_same(uint64_t place, uint64_t print)
{
    return place != 0 && (place ^ print) >> TIME_BITS == 0;
}

void ping_guard_sent(struct echo_guard *g, uint64_t now_us, const struct ip_addr *target, uint16_t wire_id,
                     uint16_t seq)
{
    uint64_t print = print_of(g, target, wire_id, seq), now = units(now_us), oldest_age = 0;
    _Atomic uint64_t *line = g->lines[print % LINES];
    uint32_t at = 0;

    for (uint32_t i = 0; i < PLACES; i++) {
        uint64_t place = atomic_load_explicit(&line[i], memory_order_relaxed), old = age(place, now);

        if (is_same(place, print)) {
            at = i;
            break;
        }
        if (old >= oldest_age) {
            at = i;
            oldest_age = old;
        }
    }
    atomic_store_explicit(&line[at], place_of(print, now), memory_order_relaxed);
}

bool ping_guard_has(const struct echo_guard *g, uint64_t now_us, const struct ip_addr *target, uint16_t id,
                    uint16_t seq)
{
    uint64_t print = print_of(g, target, id, seq), now = units(now_us);
    _Atomic uint64_t *line = g->lines[print % LINES];

    for (uint32_t i = 0; i < PLACES; i++) {
        uint64_t place = atomic_load_explicit(&line[i], memory_order_relaxed);

        if (is_same(place, print) && age(place, now) <= SENT_UNITS)
            return true;
    }
    return false;
}

void ping_guard_stop(struct echo_guard *g, uint64_t now_us, const struct ip_addr *target)
{
    uint64_t print = hash_bytes(&g->key, target, sizeof(*target));

    atomic_store_explicit(&g->stops[print % STOPS], place_of(print, units(now_us)), memory_order_relaxed);
}

bool ping_guard_is_stopped(const struct echo_guard *g, uint64_t now_us, const struct ip_addr *target)
{
    uint64_t print = hash_bytes(&g->key, target, sizeof(*target));
    uint64_t place = atomic_load_explicit(&g->stops[print % STOPS], memory_order_relaxed);

    return is_same(place, print) && age(place, units(now_us)) <= STOP_UNITS;
}
