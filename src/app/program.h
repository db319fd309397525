/* program.h - which program has a socket. Slow (it looks at every process): for the helper, or a thread of its own. */
#ifndef CULVERT_APP_PROGRAM_H
#define CULVERT_APP_PROGRAM_H

#include "culvert/forward.h"

/** program_of_socket() - the path of the program whose process has the socket with this inode and belongs to @uid [any]
 * Empty when there is none, or when /proc hides it from us. */
void program_of_socket(uint32_t uid, uint32_t inode, char out[FLOW_PROGRAM_MAX]);

#endif
