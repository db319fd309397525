/* route_impl.h - what the files of this folder share. */
#ifndef CULVERT_ROUTE_IMPL_H
#define CULVERT_ROUTE_IMPL_H

#include "culvert/route.h"

/* The run-time side of an applied plan. */
struct route_watcher {
    struct loop *loop;
    struct netlink_watch *events;
    struct loop_timer settle; /* changes come in crowds; one look after the last of them */
    bool device_was_away;     /* then routes are missing because the kernel took them */
    bool left_alone;
    uint64_t restored_us; /* when somebody's removal was last undone; 0: never */
};

struct route {
    struct netlink *nl;
    struct route_plan plan;
    char tun_name[16];
    uint32_t table, priority;
    struct route_watcher watch;
};

uint32_t route_table(const struct route_options *opt);
uint32_t route_priority(const struct route_options *opt);

/** route_restore() - add what the plan has and the kernel has not
 * @added: how many were missing. Return: as route_restore_device(). */
int route_restore(struct route *r, unsigned *added);
/* How much of the plan is not in the kernel. Return: as route_restore_device(). */
int route_missing(struct route *r, unsigned *count);
void route_watch_end(struct route *r);

#endif
