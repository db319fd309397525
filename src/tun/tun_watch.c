/* tun_watch.c - keeping the device as configured while the gateway runs (faults.md V3, V4, V11, V12).
 *
 * How it works. Any event about our link, and any report of a worker, leads to one question: how is the link now? look() compares
 * the answer with what we believe and acts on each difference, so lost or doubled events do no harm.
 *     gone      make it anew on the same descriptors, at once and then with growing pauses; ten failures end the process
 *     down/up   only told on the way down; on the way up the kernel has forgotten IPv6 addresses, which are put back
 *     MTU       told; IPv6 ends below 1280 and comes back with its addresses above
 *     address   removed by somebody: put back once. Removed again within a minute: they mean it, and are left alone
 * A device that went to another namespace still carries packets; there is nothing more to keep here. */
#include "tun_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    TRIES_MAX = 10,
    FIRST_PAUSE_MS = 20, /* doubled each time: the first six tries fall within a second */
    LAST_PAUSE_MS = 1000,
    PEACE_US = 60 * 1000000 /* between two restorations of somebody's removals */
};

/* A report on its way to main. It outlives the device if the device is closed meanwhile. */
struct tun_gone {
    struct loop_msg msg;
    struct tun *tun; /* [main] NULL: closed */
    atomic_bool pending;
};

static void try_again(struct tun *t);

static bool wants_v6(const struct tun *t)
{
    for (size_t i = 0; i < t->opt.addresses; i++)
        if (!ip_is4(&t->opt.address[i].addr))
            return true;
    return false;
}

/* ---- lost and found ---- */

static void lose(struct tun *t, const char *why)
{
    struct tun_watcher *w = &t->watch;
    struct err e;

    if (w->lost)
        return;
    w->lost = true;
    atomic_store_explicit(&t->down, true, memory_order_relaxed);
    err_set(&e, 0, "%s: %s", t->name, why);
    log_error("%s", e.text);
    if (w->told->on_lost != NULL)
        w->told->on_lost(w->arg, e.text);
}

static void on_retry(struct loop_timer *timer)
{
    try_again(CONTAINER_OF(timer, struct tun, watch.retry));
}

static void pause_before_retry(struct tun *t)
{
    uint64_t pause_ms = (uint64_t)FIRST_PAUSE_MS << (t->watch.tries - 1);

    if (pause_ms > LAST_PAUSE_MS)
        pause_ms = LAST_PAUSE_MS;
    loop_timer_start(t->watch.loop, &t->watch.retry, loop_now_us(t->watch.loop) + pause_ms * 1000, on_retry);
}

static void reopened(struct tun *t)
{
    struct tun_watcher *w = &t->watch;

    log_warning("%s was deleted; it is back with its addresses", t->name);
    w->tries = 0;
    w->left_alone = false;
    atomic_store_explicit(&t->down, false, memory_order_relaxed);
    if (w->told->on_reopened != NULL)
        w->told->on_reopened(w->arg);
}

static void moved(struct tun *t)
{
    log_warning("%s went to another network namespace: it carries packets there, but its addresses and MTU "
                "are no longer "
                "kept",
                t->name);
    t->watch.moved = true;
    t->watch.tries = 0;
    t->ifindex = 0;
    atomic_store_explicit(&t->down, false, memory_order_relaxed);
}

/* One try at making the device anew. Without privilege no later try can do better. */
static void try_again(struct tun *t)
{
    struct err e = { "" };
    int r = tun_device_again(t, &e);

    t->watch.tries++;
    if (r == -EXDEV) {
        moved(t);
        return;
    }
    if (r == 0) {
        t->v6_refused = false;
        r = tun_configure(t, &e);
    }
    if (r == 0) {
        reopened(t);
    } else if (r == -EPERM || t->watch.tries >= TRIES_MAX) {
        struct err why;

        err_set(&why, 0, "the device was deleted and cannot be made anew: %s",
                e.text[0] != '\0' ? e.text : strerror(-r));
        lose(t, why.text);
    } else {
        pause_before_retry(t);
    }
}

static void gone(struct tun *t)
{
    if (t->watch.tries > 0 || t->watch.lost) /* at work on it */
        return;
    atomic_store_explicit(&t->down, true, memory_order_relaxed);
    if (!t->adopted)
        try_again(t);
    else if (tun_device_is_attached(t->queue[0].fd))
        moved(t);
    else
        lose(t, "the device behind the adopted descriptor is gone");
}

/* ---- differences ---- */

/* @expected: the kernel took them away with a change of state, nobody did. */
static void restore_addresses(struct tun *t, bool expected)
{
    struct tun_watcher *w = &t->watch;
    uint64_t now_us = loop_now_us(w->loop);
    uint32_t missing;
    struct err e;

    if (tun_missing_addresses(t, &missing) != 0 || missing == 0)
        return;
    if (!expected && w->restored_us != 0 && now_us - w->restored_us < PEACE_US) {
        if (!w->left_alone)
            log_warning("%s: an address was removed again; it is left so. Which program removes it?",
                        t->name);
        w->left_alone = true;
        return;
    }
    if (tun_add_addresses(t, missing, &e) != 0) {
        log_warning("%s", e.text);
        return;
    }
    if (expected)
        return;
    w->restored_us = now_us;
    w->left_alone = false;
    log_warning("%s: somebody removed an address of ours; it is back", t->name);
}

/* Returns whether IPv6 has become possible again. */
static bool note_mtu(struct tun *t, uint32_t mtu)
{
    uint32_t before = tun_mtu(t);

    if (mtu == before)
        return false;
    tun_set_mtu_seen(t, mtu);
    log_info("%s: the MTU is now %u", t->name, mtu);
    if (wants_v6(t) && mtu < 1280 && before >= 1280)
        log_warning("%s: an MTU of %u is below 1280, so IPv6 is not carried", t->name, mtu);
    if (t->watch.told->on_mtu != NULL)
        t->watch.told->on_mtu(t->watch.arg, mtu);
    return mtu >= 1280 && before < 1280;
}

static bool is_down(const struct tun *t)
{
    return atomic_load_explicit(&t->down, memory_order_relaxed);
}

static void went_down(struct tun *t)
{
    atomic_store_explicit(&t->down, true, memory_order_relaxed);
    log_warning("%s was set down: nothing is carried until it is up again", t->name);
    if (t->watch.told->on_down != NULL)
        t->watch.told->on_down(t->watch.arg);
}

static void came_up(struct tun *t)
{
    atomic_store_explicit(&t->down, false, memory_order_relaxed);
    restore_addresses(t, true);
    log_info("%s is up again", t->name);
    if (t->watch.told->on_up != NULL)
        t->watch.told->on_up(t->watch.arg);
}

/* @link_event: the link itself changed. It may have been down and up again before we looked, so what is missing then is the
 * kernel's doing; removing an address makes no such event. */
static void compare(struct tun *t, const struct nl_link *link, bool link_event)
{
    memcpy(t->name, link->name,
           sizeof(t->name)); /* it may have been renamed, and would be made anew under that name */
    if (note_mtu(t, link->mtu)) {
        (void)netlink_link_no_autoconf(
            t->nl, t->ifindex); /* the kernel began with IPv6 anew, with its own defaults */
        restore_addresses(t, true);
    }
    if (!link->up && !is_down(t))
        went_down(t);
    else if (link->up && is_down(t))
        came_up(t);
    else if (link->up)
        restore_addresses(t, link_event);
}

static void look(struct tun *t, bool link_event)
{
    struct nl_link link;
    int r;

    if (t->watch.moved || t->watch.lost || t->watch.tries > 0)
        return;
    r = t->ifindex != 0 ? netlink_link_by_index(t->nl, t->ifindex, &link) : -EXDEV;
    if (r == 0)
        compare(t, &link, link_event);
    else if (r == -ENODEV)
        gone(t);
    else if (r == -EXDEV &&
             !tun_device_is_attached(t->queue[0].fd)) /* never ours to see; only its loss shows */
        gone(t);
}

static void on_event(void *arg, enum netlink_event what, int ifindex)
{
    struct tun *t = arg;

    switch (what) {
    case NETLINK_LINK_CHANGED:
    case NETLINK_ADDR_CHANGED:
        if (ifindex == t->ifindex)
            look(t, what == NETLINK_LINK_CHANGED);
        return;
    case NETLINK_EVENTS_LOST:
        look(t, true);
        return;
    case NETLINK_ROUTE_CHANGED:
    case NETLINK_RULE_CHANGED:
    case NETLINK_NFT_CHANGED:
        return;
    }
}

/* ---- reports of workers ---- */

static void on_report(struct loop_msg *m)
{
    struct tun_gone *g = CONTAINER_OF(m, struct tun_gone, msg);

    atomic_store_explicit(&g->pending, false, memory_order_release);
    if (g->tun == NULL)
        free(g);
    else
        look(g->tun, false);
}

void tun_report_gone(struct tun *t, uint32_t queue)
{
    struct tun_gone *g = t->watch.report;

    assert(queue < t->queues);
    (void)queue;
    if (g != NULL && !atomic_exchange_explicit(&g->pending, true, memory_order_acq_rel))
        loop_post(t->watch.loop, &g->msg);
}

/* ---- begin and end ---- */

int tun_watch(struct tun *t, struct loop *l, struct netlink *nl, const struct tun_events *ev, void *arg)
{
    struct tun_watcher *w = &t->watch;
    int r;

    assert(w->loop == NULL && loop_is_mine(l));
    if ((w->report = calloc(1, sizeof(*w->report))) == NULL)
        return -ENOMEM;
    w->report->tun = t;
    w->report->msg.fn = on_report;
    w->loop = l;
    w->told = ev;
    w->arg = arg;
    if (nl != NULL)
        t->nl = nl;
    if (t->ifindex != 0 && (r = netlink_watch_open(l, on_event, t, &w->events)) != 0) {
        tun_watch_end(t);
        return r;
    }
    look(t, true); /* what happened since tun_open() */
    return 0;
}

void tun_watch_end(struct tun *t)
{
    struct tun_watcher *w = &t->watch;

    if (w->loop == NULL)
        return;
    netlink_watch_close(w->events);
    loop_timer_stop(w->loop, &w->retry);
    w->report->tun = NULL;
    if (!atomic_load_explicit(&w->report->pending, memory_order_acquire))
        free(w->report); /* else its message frees it, in loop_free() at the latest */
    *w = (struct tun_watcher){ 0 };
}
