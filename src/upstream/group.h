/* group.h - which member of a group a new flow takes, as data in and choice out: no clock, no socket, no dice (group.c).
 * group_live.c feeds it with what happened and does what it asks for. */
#ifndef CULVERT_UPSTREAM_GROUP_H
#define CULVERT_UPSTREAM_GROUP_H

#include "culvert/upstream.h"

#define GROUP_WINDOW_US                                                                                      \
    UINT64_C(30000000) /* faults.md S13: at most one switch in it, and as long must a member have been well */

struct group_member {
    uint64_t hash;      /* of its name: its place for GROUP_CONSISTENT_HASH and GROUP_STICKY */
    uint64_t retry_us;  /* while it is down: when a test is due */
    uint64_t well_us;   /* since when it is well again; 0: was never down */
    uint32_t failures;  /* in a row */
    uint32_t delay_us;  /* of the last test; 0: none, or it failed */
    uint8_t times_down; /* lately: the wait grows with it */
    bool down;          /* its circuit is open: no flow is sent there */
    bool shut; /* nothing to be had for another reason; a group in it is all down. The caller's to set */
};

struct group {
    enum group_kind kind;
    enum group_strategy strategy;
    uint32_t max_failures;
    uint64_t tolerance_us, retry_after_us;
    uint64_t switched_us; /* when `now` last changed; 0: never */
    uint32_t turn;        /* GROUP_ROUND_ROBIN: whose turn it is */
    uint16_t now;         /* the usual member: changes by group_decide() only */
    uint16_t count;
    struct group_member member[GROUP_MEMBERS_MAX];
};

void group_init(struct group *g, const struct group_options *o, const char *const names[]);
/** group_order() - the members to try for one flow, the best first; those that are down are left out
 * @key: of the flow, for hashes. Return: how many are in @out. */
size_t group_order(const struct group *g, uint64_t key, uint16_t out[GROUP_MEMBERS_MAX]);
/** group_note() - a flow got through the member, or failed by its fault. @dice: any random number, for the jitter */
void group_note(struct group *g, uint32_t i, bool good, uint64_t now_us, uint32_t dice);
/** group_test() - what a test found; 0: it failed, which counts as max_failures at once */
void group_test(struct group *g, uint32_t i, uint32_t delay_us, uint64_t now_us, uint32_t dice);
/** group_decide() - look whether the usual member should be another one. Return: it changed */
bool group_decide(struct group *g, uint64_t now_us);
/** group_pick() - the user's choice; at once */
void group_pick(struct group *g, uint32_t i, uint64_t now_us);
/** group_due_us() - when to look again: a test of a member that is down, or a decision that waits. UINT64_MAX: never */
uint64_t group_due_us(const struct group *g, uint64_t now_us);

#endif
