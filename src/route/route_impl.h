/* route_impl.h - what the files of this folder share. */
#ifndef CULVERT_ROUTE_IMPL_H
#define CULVERT_ROUTE_IMPL_H

#include "culvert/route.h"

/* The run-time side of an applied plan. */
struct route_watcher {
    struct loop *loop;
    struct netlink_watch *events, *nft_events;
    struct loop_timer settle; /* changes come in crowds; one look after the last of them */
    struct loop_timer again;  /* the end of the minute in which nothing is put back, or another try */
    uint64_t again_us;        /* when it is due */
    bool failing;             /* something cannot be put back, and that was said */
    bool device_was_away;     /* then routes are missing because the kernel took them */
    bool left_alone;          /* said so in this minute; nft_left_alone likewise */
    bool nft_left_alone;
    uint64_t nft_restored_us;
    uint64_t restored_us; /* when somebody's removal was last undone; 0: never */
};

struct route {
    struct netlink *nl;
    struct route_options opt;
    struct route_surroundings around;
    struct route_plan plan;
    char tun_name[16];
    uint32_t table, priority;
    struct netlink *nft;      /* NULL: the table of nftables could not be made */
    unsigned nft_rules;       /* that it has when whole */
    struct route_agent agent; /* all NULL: we have the privilege */
    struct route_watcher watch;
};

uint32_t route_table(const struct route_options *opt);
uint32_t route_priority(const struct route_options *opt);

/** route_restore() - add what the plan has and the kernel has not
 * @added: how many were missing. Return: as route_restore_device(). */
int route_restore(struct route *r, unsigned *added);
/* How much of the plan is not in the kernel. Return: as route_restore_device(). */
int route_missing(struct route *r, unsigned *count);
/** route_adopt() - the kernel holds exactly the plan: what is missing is added first, then what else is ours is removed,
 * so that what a dead predecessor blocked is never open in between
 * @taken: how many of a predecessor's were there. Return: 0 or -errno with a sentence */
int route_adopt(struct route *r, unsigned *taken, struct err *err);
/** route_follow() - look around again, and change the rules where that changes the plan */
int route_follow(struct route *r);
/* A line for each route that is not followed and was not there @before (NULL: at the start). */
void route_tell_refused(const struct route_surroundings *before, const struct route_surroundings *now);
enum { ROUTE_HOLD_AT = 8 }; /* from the first of our priorities on: on-exit says keep or block */
#define ROUTE_NFT_TABLE "culvert"
/** route_nft_load() - our table, made or made anew in one transaction
 * Return: 0; -errno with a sentence. */
int route_nft_load(struct route *r, struct err *err);
bool route_nft_missing(struct route *r); /* gone, or not whole any more */

void route_watch_end(struct route *r);

#endif
