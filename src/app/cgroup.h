/* cgroup.h - the memory that our control group may have. */
#ifndef CULVERT_APP_CGROUP_H
#define CULVERT_APP_CGROUP_H

#include <stdint.h>

/** cgroup_memory_limit() - of cgroup v2 (memory.max) or v1 (memory.limit_in_bytes), whichever is in use
 * @membership: "/proc/self/cgroup"; @root: "/sys/fs/cgroup"
 * Return: bytes; 0: no limit, or it cannot be read. Our own group is looked at, and in a container, where its path is the host's, the
 * root; the kernel enforces the smallest on the way up, too. */
uint64_t cgroup_memory_limit(const char *membership, const char *root);

#endif
