/* wheel.c - a hierarchical timing wheel (Varghese and Lauck 1987).
 *
 * Four levels of 256 places. A node lies on the lowest level on which its tick and the current tick share all higher
 * digits (base 256): level 0 holds the rest of the current 256 ticks, one tick a place; a place of level n holds a row of
 * 256^n ticks and is dealt out to the lower levels ("cascade") when the current tick enters that row. So a node moves at
 * most three times, and all nodes of one tick meet in one list in the order in which they were set.
 *
 * What always holds
 * - level 0 has no node behind now_tick; the place of now_tick itself holds nodes whose time has passed already;
 * - on levels 1 and 2 all occupied places lie ahead in the current row of the level above; level 3 is a circle, and a
 *   node that is too far ahead for it waits at its far end and is looked at again there;
 * - a bit of `occupied` is set exactly when the list of its place is not empty. */
#include "culvert/base.h"

#define LEVELS     4
#define PLACES     256
#define DIGIT_BITS 8
#define TICK_US    1000
#define FARTHEST   (((uint64_t)1 << (LEVELS * DIGIT_BITS)) - ((uint64_t)1 << ((LEVELS - 1) * DIGIT_BITS)))

static unsigned digit(uint64_t tick, unsigned level)
{
    return tick >> (level * DIGIT_BITS) & (PLACES - 1);
}

/* The first tick that is not before @us: rounding up is what keeps a timer from firing early. */
static uint64_t tick_not_before(uint64_t us)
{
    return us / TICK_US + (us % TICK_US != 0);
}

static void list_init(struct wheel_timer *head)
{
    head->next = head->prev = head;
}

static bool list_empty(const struct wheel_timer *head)
{
    return head->next == head;
}

static void list_append(struct wheel_timer *head, struct wheel_timer *t)
{
    t->prev = head->prev;
    t->next = head;
    head->prev->next = t;
    head->prev = t;
}

/* Move all of @from behind what @to has. */
static void list_splice(struct wheel_timer *to, struct wheel_timer *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

static void mark(struct wheel *w, unsigned level, unsigned place, bool occupied)
{
    uint64_t bit = (uint64_t)1 << (place % 64);

    if (occupied)
        w->occupied[level][place / 64] |= bit;
    else
        w->occupied[level][place / 64] &= ~bit;
}

static void unlink_timer(struct wheel *w, struct wheel_timer *t)
{
    struct wheel_timer *head = t->next, *first = &w->slot[0][0];

    t->prev->next = t->next;
    t->next->prev = t->prev;
    t->next = t->prev = NULL;
    /* The list became empty: what is left is its head, which tells the place; a head of wheel_advance() has none. */
    if (list_empty(head) && head >= first && head < first + (size_t)LEVELS * PLACES) {
        size_t index = (size_t)(head - first);

        mark(w, (unsigned)(index / PLACES), index % PLACES, false);
    }
}

/* The lowest level where all digits above agree with the current tick; LEVELS - 1 is a circle and takes the rest. */
static unsigned level_of(const struct wheel *w, uint64_t tick)
{
    uint64_t differs = tick ^ w->now_tick;
    unsigned level = 0;

    while (level < LEVELS - 1 && differs >> ((level + 1) * DIGIT_BITS) != 0)
        level++;
    return level;
}

static void place(struct wheel *w, struct wheel_timer *t)
{
    uint64_t tick = tick_not_before(t->deadline_us);
    unsigned level, at;

    if (tick < w->now_tick)
        tick = w->now_tick;
    if (tick - w->now_tick >= FARTHEST)
        tick = w->now_tick + FARTHEST - 1;
    level = level_of(w, tick);
    at = digit(tick, level);
    list_append(&w->slot[level][at], t);
    mark(w, level, at, true);
    w->operations++;
}

/* Empty a place into @out, which is a list of its own afterwards. */
static void take_place(struct wheel *w, unsigned level, unsigned at, struct wheel_timer *out)
{
    list_init(out);
    list_splice(out, &w->slot[level][at]);
    mark(w, level, at, false);
}

/* The first occupied place of @level at or after @from; PLACES: none. */
static unsigned find_place(const struct wheel *w, unsigned level, unsigned from)
{
    for (unsigned word = from / 64; word < PLACES / 64; word++) {
        uint64_t bits = w->occupied[level][word];

        if (word == from / 64)
            bits &= UINT64_MAX << (from % 64);
        if (bits != 0)
            return word * 64 + (unsigned)__builtin_ctzll(bits);
    }
    return PLACES;
}

/* The next tick at which something fires or cascades: at or after the current one. UINT64_MAX: the wheel is empty.
 * A lower level is always earlier than the ones above it. */
static uint64_t next_tick(const struct wheel *w)
{
    unsigned at = find_place(w, 0, digit(w->now_tick, 0));

    if (at < PLACES)
        return (w->now_tick & ~(uint64_t)(PLACES - 1)) + at;
    for (unsigned level = 1; level < LEVELS; level++) {
        unsigned shift = level * DIGIT_BITS, here = digit(w->now_tick, level);
        uint64_t row = w->now_tick >> shift;

        at = here + 1 < PLACES ? find_place(w, level, here + 1) : PLACES;
        if (at < PLACES)
            return (row - here + at) << shift;
        if (level == LEVELS - 1 && (at = find_place(w, level, 0)) < here)
            return (row - here + PLACES + at) << shift;
    }
    return UINT64_MAX;
}

/* Go to @tick, which no occupied place lies before, and deal out the rows that begin there, the widest first. */
static void enter_tick(struct wheel *w, uint64_t tick)
{
    struct wheel_timer row;

    w->now_tick = tick;
    for (unsigned level = LEVELS - 1; level > 0; level--) {
        if ((tick & (((uint64_t)1 << (level * DIGIT_BITS)) - 1)) != 0)
            continue;
        take_place(w, level, digit(tick, level), &row);
        while (!list_empty(&row)) {
            struct wheel_timer *t = row.next;

            unlink_timer(w, t);
            place(w, t);
        }
    }
}

static void fire_current(struct wheel *w, uint64_t now_us, struct wheel_timer *late)
{
    unsigned at = digit(w->now_tick, 0);
    struct wheel_timer due, *head = &w->slot[0][at];

    take_place(w, 0, at, &due);
    while (!list_empty(&due)) {
        struct wheel_timer *t = due.next;

        unlink_timer(w, t);
        w->pending--;
        t->fn(t, now_us);
    }
    /* Set to the past by the calls above: they wait for the next advance, or a timer that re-arms itself would spin. */
    if (!list_empty(head)) {
        list_splice(late, head);
        mark(w, 0, at, false);
    }
}

void wheel_init(struct wheel *w, uint64_t now_us)
{
    *w = (struct wheel){ .now_tick = now_us / TICK_US };
    for (unsigned level = 0; level < LEVELS; level++) {
        for (unsigned at = 0; at < PLACES; at++)
            list_init(&w->slot[level][at]);
    }
}

void wheel_cancel(struct wheel *w, struct wheel_timer *t)
{
    if (!wheel_is_set(t))
        return;
    unlink_timer(w, t);
    w->pending--;
    w->operations++;
}

void wheel_set(struct wheel *w, struct wheel_timer *t, uint64_t deadline_us)
{
    if (wheel_is_set(t))
        unlink_timer(w, t);
    else
        w->pending++;
    t->deadline_us = deadline_us;
    place(w, t);
}

uint64_t wheel_next_us(const struct wheel *w)
{
    uint64_t tick = w->pending > 0 ? next_tick(w) : UINT64_MAX;

    return tick < UINT64_MAX / TICK_US ? tick * TICK_US : UINT64_MAX;
}

void wheel_advance(struct wheel *w, uint64_t now_us)
{
    uint64_t target = now_us / TICK_US, next;
    struct wheel_timer late;

    list_init(&late);
    fire_current(w, now_us, &late);
    while (w->now_tick < target) {
        next = next_tick(w);
        if (next > target) {
            w->now_tick = target;
            break;
        }
        enter_tick(w, next);
        fire_current(w, now_us, &late);
    }
    if (!list_empty(&late)) {
        list_splice(&w->slot[0][digit(w->now_tick, 0)], &late);
        mark(w, 0, digit(w->now_tick, 0), true);
    }
}
