/* group_live.h - the groups of one worker: their members' health as it happened here, and the tests (group_live.c). */
#ifndef CULVERT_UPSTREAM_GROUP_LIVE_H
#define CULVERT_UPSTREAM_GROUP_LIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct host_port;
struct up_env;
struct up_memory;
struct group_live;

enum { GROUP_TRIES_MAX = 8 }; /* members that one opening tries at most */

/* A way out that an opening may take, and which place in which group it stands for. */
struct group_try {
    struct up_memory *memory; /* never a group's; lives as long as the group's memory is in use */
    struct up_memory *group;  /* the innermost */
    uint16_t index;           /* in it */
};

/** group_tries() - where to go for one flow through the group of @m, the best first
 * @dst: where the flow goes; NULL: nowhere yet. @udp: members that are known to carry none are passed over
 * Return: how many are in @out, > 0; -EHOSTUNREACH: no member is well; -EOPNOTSUPP: none of those carries UDP. */
int group_tries(struct up_env *env, struct up_memory *m, const struct host_port *dst, bool udp,
                struct group_try out[GROUP_TRIES_MAX]);
/** group_tell() - how a try ended: it got through to the way out, or failed by its fault */
void group_tell(struct up_env *env, const struct group_try *t, bool good);
void group_live_stop(struct up_env *env, struct up_memory *m); /* no test is under way any more */
void group_live_free(struct up_env *env, struct up_memory *m); /* NULL live is fine */

#endif
