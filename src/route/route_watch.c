/* route_watch.c - keeping applied routes and rules in place while the gateway runs (faults.md V3, V12).
 * Events only say that something changed; a moment later one look compares the whole plan with the kernel, so crowds of events
 * cost one look and lost ones none. Routes that went with their device come back with it, silently: tun tells that story.
 * What somebody removed is put back, at most once a minute: two programs that both insist would never stop, and one that reloads
 * twice must not leave the way open for good. */
#include "route_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

enum {
    SETTLE_US = 50 * 1000, /* with the kernel's own delays well within the second of faults.md V3 */
    PEACE_US = 60 * 1000000,
    RETRY_US = 1000000
};

static void look(struct route *r);

/* Within the minute after a restoration nothing is put back, and the first look that would have is told. */
static bool is_recent(const struct route_watcher *w, uint64_t restored_us)
{
    return restored_us != 0 && loop_now_us(w->loop) - restored_us < PEACE_US;
}

static void on_again(struct loop_timer *t)
{
    look(CONTAINER_OF(t, struct route, watch.again));
}

/* An earlier look than this one stays. */
static void look_again(struct route *r, uint64_t at_us)
{
    struct route_watcher *w = &r->watch;

    if (loop_timer_active(&w->again) && w->again_us <= at_us)
        return;
    w->again_us = at_us;
    loop_timer_start(w->loop, &w->again, at_us, on_again);
}

/* One line, and then tried in silence until it works: what is missing may be a way past the tunnel. */
static void cannot(struct route *r, const char *what, const char *why)
{
    if (!r->watch.failing)
        log_warning("auto-route: %s cannot be put back, and that is tried each second: %s", what, why);
    r->watch.failing = true;
    look_again(r, loop_now_us(r->watch.loop) + RETRY_US);
}

/* Missing while the device stood: somebody did it. */
static void put_back(struct route *r)
{
    struct route_watcher *w = &r->watch;
    unsigned added;
    int result = route_restore(r, &added);

    if (result != 0) {
        cannot(r, "missing routes or rules", strerror(-result));
        return;
    }
    if (added == 0)
        return;
    w->restored_us = loop_now_us(w->loop);
    w->left_alone = w->failing = false;
    log_warning("auto-route: somebody removed %u routes or rules of ours; they are back", added);
}

/* A firewall's reload flushes everybody's tables (faults.md E7). */
static void look_at_nft(struct route *r)
{
    struct route_watcher *w = &r->watch;
    struct err err = { "" };

    if (!route_nft_missing(r))
        return;
    if (is_recent(w, w->nft_restored_us)) {
        if (!w->nft_left_alone)
            log_warning("auto-route: our table of nftables was flushed again; it comes back in a minute. "
                        "Which program does it?");
        w->nft_left_alone = true;
        look_again(r, w->nft_restored_us + PEACE_US);
        return;
    }
    if (route_nft_load(r, &err) != 0) {
        cannot(r, "our table of nftables was flushed; it", err.text);
        return;
    }
    w->nft_restored_us = loop_now_us(w->loop);
    w->nft_left_alone = w->failing = false;
    log_warning("auto-route: somebody flushed our table of nftables; it is back");
}

static bool device_is_up(struct route *r)
{
    struct nl_link link;

    return netlink_link_by_name(r->nl, r->tun_name, &link) == 0 && link.up;
}

/* Networks come and go with the uplink, and other programs' marks with them. */
static void follow(struct route *r)
{
    int result = route_follow(r);

    if (result != 0 && result != -ENODEV)
        log_warning("auto-route: the rules cannot follow a change of the network: %s", strerror(-result));
}

static void look(struct route *r)
{
    struct route_watcher *w = &r->watch;
    unsigned count;

    follow(r);
    look_at_nft(r);
    if (!device_is_up(r)) {
        w->device_was_away = true;
    } else if (w->device_was_away) {
        w->device_was_away = route_restore(r, &count) != 0;
        if (!w->device_was_away && count > 0)
            log_info("auto-route: the routes through %s are back", r->tun_name);
    } else if (!is_recent(w, w->restored_us)) {
        put_back(r);
    } else if (!w->left_alone && route_missing(r, &count) == 0 && count > 0) {
        w->left_alone = true;
        look_again(r, w->restored_us + PEACE_US);
        log_warning(
            "auto-route: %u routes or rules of ours were removed again; they come back in a minute. Which "
            "program does it?",
            count);
    }
}

static void on_settled(struct loop_timer *t)
{
    look(CONTAINER_OF(t, struct route, watch.settle));
}

static bool is_our_device(const struct route *r, int ifindex)
{
    for (size_t i = 0; i < r->plan.route_count; i++)
        if (r->plan.routes[i].ifindex == ifindex)
            return true;
    return false;
}

static void on_event(void *arg, enum netlink_event what, int ifindex)
{
    struct route *r = arg;

    if (what == NETLINK_ADDR_CHANGED)
        return;
    if (what == NETLINK_LINK_CHANGED && is_our_device(r, ifindex))
        r->watch.device_was_away = true; /* it may be back before we look */
    if (!loop_timer_active(&r->watch.settle))
        loop_timer_start(r->watch.loop, &r->watch.settle, loop_now_us(r->watch.loop) + SETTLE_US, on_settled);
}

int route_watch(struct route *r, struct loop *l)
{
    int result;

    assert(r->watch.loop == NULL && loop_is_mine(l));
    if ((result = netlink_watch_open(l, on_event, r, &r->watch.events)) != 0)
        return result;
    if (r->nft != NULL && (result = netlink_watch_open_nft(l, on_event, r, &r->watch.nft_events)) != 0) {
        netlink_watch_close(r->watch.events);
        return result;
    }
    r->watch.loop = l;
    look(r);
    return 0;
}

void route_watch_end(struct route *r)
{
    if (r->watch.loop == NULL)
        return;
    netlink_watch_close(r->watch.events);
    netlink_watch_close(r->watch.nft_events);
    loop_timer_stop(r->watch.loop, &r->watch.settle);
    loop_timer_stop(r->watch.loop, &r->watch.again);
    r->watch = (struct route_watcher){ 0 };
}
